//! Verifies statusledger receipts, exports, checkpoints and key manifests, offline.
//!
//! This crate is the formats' only implementation in Rust; the service uses it to make what it sends and to check
//! it before it leaves. It knows nothing of the service, of a database or of a network.
//!
//! The modules, in the order in which a receipt needs them:
//!
//! - [`check`]: the checks and what a failed one says
//! - [`json`], [`time`], [`encoding`]: how values are written
//! - [`signature`], [`tree`]: Ed25519 and RFC 6962

pub mod check;
pub mod checkpoint;
pub mod encoding;
pub mod entry;
pub mod json;
pub mod manifest;
mod members;
pub mod policy;
pub mod proof;
pub mod receipt;
pub mod report;
pub mod signature;
pub mod time;
pub mod tree;

pub use check::{Check, Facts, Failure};
pub use report::{Mode, Report, Subject, TimeSource, Verdict};

/// A SHA-256 hash.
pub type Hash = [u8; 32];
