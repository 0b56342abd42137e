//! What a verification that succeeded says.

use crate::check::Facts;
use crate::checkpoint::Checkpoint;
use crate::time::Timestamp;

/// How fresh a thing has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Neither the key's `verify_until` nor the manifest's `expires` may be past.
    Fresh,
    /// Neither is judged.
    Evidence,
}

/// What was proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The entry stands in the log as the instance signed it. Others may be shown another history.
    Included,
    /// And the policy is met: its witnesses saw this history too.
    Witnessed,
}

impl Verdict {
    /// The name in answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Included => "included",
            Self::Witnessed => "witnessed",
        }
    }
}

/// Who vouches for the times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeSource {
    /// Only the signer.
    Claimed,
    /// A witness' cosignature bears a time of its own.
    Witnessed,
}

impl TimeSource {
    /// The name in answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Claimed => "claimed",
            Self::Witnessed => "witnessed",
        }
    }
}

/// A file verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What was proven.
    pub verdict: Verdict,
    /// Who vouches for the times.
    pub time: TimeSource,
    /// The columns of an answer.
    pub facts: Facts,
    /// The checkpoint that the proof or the export leads to.
    pub checkpoint: Checkpoint,
    /// What was verified.
    pub subject: Subject,
}

/// What was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A receipt.
    Receipt {
        /// The receipt's id.
        id: String,
        /// The destination that it was made for.
        destination: String,
        /// Its number among that destination's.
        number: u64,
        /// When it was signed, as the signer claims.
        issued_at: Timestamp,
        /// The entry's type.
        entry_type: String,
        /// When the entry was recorded, as the signer claims.
        timestamp: Timestamp,
    },
    /// An export.
    Export {
        /// The first `seq` that it covers.
        from: u64,
        /// The first `seq` after it.
        to: u64,
        /// How many entries are in it.
        count: u64,
        /// When it was made, as the signer claims.
        exported_at: Timestamp,
    },
}
