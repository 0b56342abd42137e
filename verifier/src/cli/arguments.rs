//! The arguments, as formats.md lists them.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use statusledger_verify::manifest::Pin;
use statusledger_verify::report::Mode;
use statusledger_verify::time::Timestamp;

/// Verifies statusledger receipts, exports and key manifests, offline.
///
/// Exit status: 0 all verified, 1 something did not (standard error says what), 2 usage or I/O. A FILE of - is
/// standard input, except for exports.
#[derive(Debug, Parser)]
#[command(name = "statusledger-verify", version, max_term_width = 100)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Verify notification bodies
    Receipt(ReceiptArguments),
    /// Verify an exported ledger
    Export(ExportArguments),
    /// Verify that of two bodies, checkpoints or exports of one log the newer extends the older
    Consistency(ConsistencyArguments),
    /// Verify a key manifest
    Keys(KeysArguments),
}

/// What every command takes.
#[derive(Debug, Args)]
pub(super) struct CommonArguments {
    /// The root key that you trust, and for which instance; without it nothing verifies
    #[arg(long, value_name = "KEY_ID@INSTANCE")]
    pub(super) pin: Option<Pin>,
    /// Print an object a file on standard output
    #[arg(long)]
    pub(super) json: bool,
}

/// What is asked of a receipt or an export.
#[derive(Debug, Args)]
pub(super) struct JudgingArguments {
    /// The ledger that it has to be of
    #[arg(long, value_name = "ID")]
    pub(super) ledger: Option<String>,
    /// The time at which freshness is judged [default: now]
    #[arg(long, value_name = "TIME")]
    pub(super) at: Option<Timestamp>,
    /// A C2SP tlog-policy that the checkpoint's cosignatures have to meet
    #[arg(long, value_name = "FILE")]
    pub(super) policy: Option<PathBuf>,
}

/// How fresh a thing has to be.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum As {
    /// The key's verify_until and the key manifest's expires may not be past
    Fresh,
    /// Neither is judged
    Evidence,
}

impl From<As> for Mode {
    fn from(mode: As) -> Self {
        match mode {
            As::Fresh => Self::Fresh,
            As::Evidence => Self::Evidence,
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct ReceiptArguments {
    /// The bodies, as they were received
    #[arg(required = true, value_name = "BODY")]
    pub(super) bodies: Vec<PathBuf>,
    /// The instance's key manifest
    #[arg(long, value_name = "FILE")]
    pub(super) keys: PathBuf,
    /// The destination that they have to be for
    #[arg(long, value_name = "ID")]
    pub(super) destination: Option<String>,
    /// How fresh they have to be
    #[arg(long = "as", value_enum, default_value_t = As::Fresh)]
    pub(super) mode: As,
    /// Fail where a number is missing between the lowest and the highest of a ledger and destination
    #[arg(long)]
    pub(super) complete: bool,
    #[command(flatten)]
    pub(super) judging: JudgingArguments,
    #[command(flatten)]
    pub(super) common: CommonArguments,
}

#[derive(Debug, Args)]
pub(super) struct ExportArguments {
    /// The export
    #[arg(value_name = "LEDGER.zip")]
    pub(super) file: PathBuf,
    /// A key manifest to take in place of the export's own
    #[arg(long, value_name = "FILE")]
    pub(super) keys: Option<PathBuf>,
    /// How fresh it has to be
    #[arg(long = "as", value_enum, default_value_t = As::Evidence)]
    pub(super) mode: As,
    #[command(flatten)]
    pub(super) judging: JudgingArguments,
    #[command(flatten)]
    pub(super) common: CommonArguments,
}

#[derive(Debug, Args)]
pub(super) struct ConsistencyArguments {
    /// A body, a checkpoint or an export
    #[arg(value_name = "OLDER")]
    pub(super) older: PathBuf,
    /// A later body, checkpoint or export of the same log
    #[arg(value_name = "NEWER")]
    pub(super) newer: PathBuf,
    /// The instance's key manifest
    #[arg(long, value_name = "FILE")]
    pub(super) keys: PathBuf,
    /// A consistency proof; not needed where the sizes are equal or an export from 0 covers both
    #[arg(long, value_name = "FILE")]
    pub(super) proof: Option<PathBuf>,
    #[command(flatten)]
    pub(super) common: CommonArguments,
}

#[derive(Debug, Args)]
pub(super) struct KeysArguments {
    /// The key manifest
    #[arg(value_name = "KEYS.json")]
    pub(super) file: PathBuf,
    /// An older key manifest, of which the newer may take nothing back
    #[arg(long, value_name = "OLD.json")]
    pub(super) since: Option<PathBuf>,
    #[command(flatten)]
    pub(super) common: CommonArguments,
}
