//! The simulator over the wire: one test binary, a file a theme.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod app_store;
mod demo;
mod edits;
mod faults;
mod google_play;
mod resources;
mod scenario;
mod shapes;
mod studio;
mod support;
mod webhooks;
