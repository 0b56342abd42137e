//! The simulator over the wire: one test binary, a file a theme.
#![allow(clippy::unwrap_used, missing_docs)]

mod demo;
mod support;
