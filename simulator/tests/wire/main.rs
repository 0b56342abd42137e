//! The simulator over the wire: one test binary, a file a theme.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod app_store;
mod demo;
mod google_play;
mod scenario;
mod shapes;
mod support;
