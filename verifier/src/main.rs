//! The verifier command line.
fn main() {}
