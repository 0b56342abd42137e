//! Inclusion proofs as text: a C2SP `tlog-proof` without extra data.

use std::fmt;

use crate::Hash;
use crate::encoding::{base64, parse_base64_array};

/// The first line of a proof.
const HEADER: &str = "c2sp.org/tlog-proof@v1";

/// The most hashes a proof may have: a log of more than 2^63 entries is none of ours.
pub const MAX_HASHES: usize = 63;

/// A proof that the entry at an index stands in the tree of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The entry's index, which is its `seq`.
    pub index: u64,
    /// From the leaf's sibling up (RFC 6962, section 2.1.1).
    pub hashes: Vec<Hash>,
    /// The signed checkpoint, verbatim.
    pub checkpoint: String,
}

/// A text is not a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The first line is another.
    #[error("line 1 of the proof is not {HEADER}")]
    Header,
    /// The second line is not `index <n>`; there may be no `extra` line.
    #[error("line 2 of the proof is not an index")]
    Index,
    /// A line of the path is not the base64 of 32 bytes.
    #[error("line {line} of the proof is not a hash")]
    Hash {
        /// Which line, the first being 1.
        line: usize,
    },
    /// There are more than [`MAX_HASHES`].
    #[error("the proof has more than {MAX_HASHES} hashes")]
    TooManyHashes,
    /// There is no empty line before the checkpoint.
    #[error("the proof has no checkpoint")]
    NoCheckpoint,
}

impl Proof {
    /// Reads a proof. The checkpoint in it is only cut out; see
    /// [`SignedCheckpoint::parse`](crate::checkpoint::SignedCheckpoint::parse).
    ///
    /// # Errors
    /// Where the text is not a header, an index, at most 63 hashes, an empty line and a rest.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let (header, rest) = text.split_once('\n').ok_or(Error::Header)?;
        if header != HEADER {
            return Err(Error::Header);
        }
        let (index, mut rest) = rest.split_once('\n').ok_or(Error::Index)?;
        let index = index.strip_prefix("index ").and_then(parse_decimal).ok_or(Error::Index)?;
        let mut hashes = Vec::new();
        loop {
            let (line, after) = rest.split_once('\n').ok_or(Error::NoCheckpoint)?;
            rest = after;
            if line.is_empty() {
                return Ok(Self { index, hashes, checkpoint: rest.to_owned() });
            }
            if hashes.len() == MAX_HASHES {
                return Err(Error::TooManyHashes);
            }
            hashes.push(parse_base64_array(line).ok_or(Error::Hash { line: hashes.len() + 3 })?);
        }
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{HEADER}\nindex {}", self.index)?;
        self.hashes.iter().try_for_each(|hash| writeln!(formatter, "{}", base64(hash)))?;
        write!(formatter, "\n{}", self.checkpoint)
    }
}

/// A decimal number of ASCII digits without a leading zero, below 2^64.
pub(crate) fn parse_decimal(text: &str) -> Option<u64> {
    let is_canonical =
        text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if is_canonical { text.parse().ok() } else { None }
}
