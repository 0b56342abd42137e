//! What commands print.

use std::io::{self, Write};

/// Prints a line on standard output. A reader that has gone (a closed pipe) is no fault of the command's.
pub fn line(text: impl AsRef<str>) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{}", text.as_ref()).and_then(|()| out.flush());
}

/// Prints a line on standard error.
pub fn note(text: impl AsRef<str>) {
    let _ = writeln!(io::stderr().lock(), "{}", text.as_ref());
}
