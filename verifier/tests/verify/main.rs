//! Tests of the verifier but for exports, a file a theme.
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;

mod checkpoints;
mod command_line;
mod histories;
mod json;
mod manifests;
mod receipts;
mod signatures;
mod tree;
