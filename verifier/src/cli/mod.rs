//! Arguments in, answers out. What is verified, and how, is the library's.

mod answer;
mod arguments;
mod consistency;
mod export;
mod input;
mod keys;
mod receipt;

use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use self::answer::Answers;
use self::arguments::{Arguments, Command};

/// Why there is no verdict: the command cannot be carried out. Exit status 2.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// The arguments do not fit together.
    #[error("{0}")]
    Usage(String),
    /// A file cannot be read.
    #[error("{}: {source}", answer::printable(&path.display().to_string()))]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// An answer cannot be written.
    #[error("the answer cannot be written: {0}")]
    Write(#[from] std::io::Error),
}

/// How the whole run ended; the worst of its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// All verified.
    Verified,
    /// Something did not.
    Failed,
    /// A file could not be read.
    Unread,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        Self::from(match outcome {
            Outcome::Verified => 0,
            Outcome::Failed => 1,
            Outcome::Unread => 2,
        })
    }
}

/// Runs the command line. Wrong arguments end the process with status 2.
pub(crate) fn run() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match &arguments.command {
        Command::Receipt(arguments) => receipt::run(arguments, &mut Answers::new(arguments.common.json)),
        Command::Export(arguments) => export::run(arguments, &mut Answers::new(arguments.common.json)),
        Command::Consistency(arguments) => {
            consistency::run(arguments, &mut Answers::new(arguments.common.json))
        }
        Command::Keys(arguments) => keys::run(arguments, &mut Answers::new(arguments.common.json)),
    };
    match result {
        Ok(outcome) => outcome.into(),
        Err(error) => {
            complain(&error);
            Outcome::Unread.into()
        }
    }
}

/// Writes a line to standard error. Where even that fails, the exit status still tells.
fn complain(what: &dyn fmt::Display) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr().lock(), "statusledger-verify: {what}");
}
