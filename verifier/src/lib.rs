//! Verifies statusledger receipts, exports, checkpoints and key manifests, offline.
//!
//! This crate is the formats' only implementation in Rust; the service uses it to make what it sends and to check
//! it before it leaves. It knows nothing of the service, of a database or of a network.
//!
//! The modules, in the order in which a receipt needs them:
//!
//! - [`check`]: the checks, numbered, and what a failed one says
//! - [`json`], [`time`], [`encoding`]: how values are written
//! - [`signature`], [`tree`]: Ed25519 and RFC 6962
//! - [`manifest`]: the key manifest under a customer's pin, which every trust comes from
//! - [`entry`], [`proof`], [`checkpoint`], [`policy`]: the parts of a receipt
//! - [`receipt`], [`numbering`]: one body, and several of them
//! - [`scan`], [`export`]: a ledger, or a part of it, in one file
//! - [`consistency`]: two checkpoints of one log
//! - [`report`]: what a verification that succeeded says
//!
//! Trust comes from the caller alone, as a [`Pin`](manifest::Pin): nothing that a file brings along is believed
//! before a chain of signatures leads to it from there.
//!
//! ```no_run
//! use statusledger_verify::manifest::{KeyManifest, Pin};
//! use statusledger_verify::receipt;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let pin: Pin = std::env::var("STATUSLEDGER_PIN")?.parse()?;
//! let keys = KeyManifest::parse(&std::fs::read("keys.json")?)?.trust(&pin)?;
//! let report = receipt::verify(&std::fs::read("receipt.json")?, &keys, &receipt::Options::default())?;
//! assert_eq!(report.facts.instance, Some(pin.instance));
//! # Ok(())
//! # }
//! ```

pub mod check;
pub mod checkpoint;
pub mod consistency;
pub mod encoding;
pub mod entry;
pub mod export;
pub mod json;
pub mod manifest;
mod members;
pub mod numbering;
pub mod policy;
pub mod proof;
pub mod receipt;
pub mod report;
pub mod scan;
pub mod signature;
pub mod time;
pub mod tree;

pub use check::{Check, Facts, Failure};
pub use report::{Mode, Report, Subject, TimeSource, Verdict};

/// A SHA-256 hash.
pub type Hash = [u8; 32];
