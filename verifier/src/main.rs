//! The command line of the verifier: `statusledger-verify receipt|export|consistency|keys`.
//!
//! What verified goes to standard output, a line a file; what did not to standard error, with its file and the check
//! that failed. With `--json` every file also gets an object on standard output. Exit status: 0 all verified, 1
//! something did not, 2 usage or I/O.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
