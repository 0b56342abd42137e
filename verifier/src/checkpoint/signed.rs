//! Reading a signed checkpoint and verifying its lines.

use super::{Checkpoint, cosignature_message, note_key_id};
use crate::Hash;
use crate::encoding::{parse_base64, parse_base64_array};
use crate::manifest::{Key, Revoked, TrustedKeys};
use crate::policy::{Policy, Witness};
use crate::proof::parse_decimal;

/// The most signature lines a checkpoint may have.
pub const MAX_SIGNATURES: usize = 64;

/// A text is not a signed checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// It is not UTF-8, or has a control character other than a line feed.
    #[error("the checkpoint is not text")]
    NotText,
    /// The first line is empty, or there is none.
    #[error("the checkpoint has no origin")]
    Origin,
    /// The second line is not a decimal number below 2^64 without a leading zero.
    #[error("line 2 of the checkpoint is not a size")]
    Size,
    /// The third line is not the base64 of 32 bytes.
    #[error("line 3 of the checkpoint is not a root")]
    Root,
    /// After the root there is no empty line: an extension line, or the end.
    #[error("line 4 of the checkpoint is not empty")]
    Extension,
    /// A line after that is not a signature line.
    #[error("line {line} of the checkpoint is not a signature line")]
    Signature {
        /// Which line, the first being 1.
        line: usize,
    },
    /// There is none, or there are more than [`MAX_SIGNATURES`].
    #[error("the checkpoint has not 1 to {MAX_SIGNATURES} signature lines")]
    SignatureCount,
}

/// The lines of a checkpoint do not verify.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No line is by a checkpoint key that is trusted and not revoked, under the origin as its name.
    #[error("the checkpoint has no line by a trusted, unrevoked checkpoint key of the log")]
    NotSignedByLog,
    /// A line by a known key does not verify.
    #[error("line {line} of the checkpoint names a known key and does not verify under it")]
    Mismatch {
        /// Which line, the first being 1.
        line: usize,
    },
}

/// A witness' statement that it saw a checkpoint as part of a growing log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cosignature {
    /// The index of the witness in its policy.
    pub witness: usize,
    /// When, in seconds after 1970-01-01T00:00:00Z. Of several lines the earliest.
    pub unix_seconds: u64,
}

/// The lines of a checkpoint that verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signatures {
    /// The log's checkpoint key.
    pub key_id: Hash,
    /// One for each witness of the policy that cosigned, in the order of the lines.
    pub cosignatures: Vec<Cosignature>,
}

/// A checkpoint with its signature lines, of which none is verified yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedCheckpoint {
    checkpoint: Checkpoint,
    lines: Vec<Line>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    name: String,
    key_id: [u8; 4],
    /// What stands behind the key id.
    signature: Vec<u8>,
}

impl SignedCheckpoint {
    /// Reads a checkpoint: three lines, an empty one, 1 to 64 signature lines and nothing after them.
    ///
    /// # Errors
    /// Where it is anything else.
    pub fn parse(input: &[u8]) -> Result<Self, ParseError> {
        let text = std::str::from_utf8(input).map_err(|_| ParseError::NotText)?;
        if text.bytes().any(|byte| byte < 0x20 && byte != b'\n') {
            return Err(ParseError::NotText);
        }
        let (origin, rest) = text.split_once('\n').ok_or(ParseError::Origin)?;
        if origin.is_empty() {
            return Err(ParseError::Origin);
        }
        let (size, rest) = rest.split_once('\n').ok_or(ParseError::Size)?;
        let size = parse_decimal(size).ok_or(ParseError::Size)?;
        let (root, rest) = rest.split_once('\n').ok_or(ParseError::Root)?;
        let root = parse_base64_array(root).ok_or(ParseError::Root)?;
        let mut rest = rest.strip_prefix('\n').ok_or(ParseError::Extension)?;
        let mut lines = Vec::new();
        while !rest.is_empty() {
            if lines.len() == MAX_SIGNATURES {
                return Err(ParseError::SignatureCount);
            }
            let malformed = ParseError::Signature { line: lines.len() + 5 };
            let (line, after) = rest.split_once('\n').ok_or(malformed)?;
            lines.push(Line::parse(line).ok_or(malformed)?);
            rest = after;
        }
        if lines.is_empty() {
            return Err(ParseError::SignatureCount);
        }
        Ok(Self { checkpoint: Checkpoint { origin: origin.to_owned(), size, root }, lines })
    }

    /// What the checkpoint says; nothing vouches for it before [`Self::verify`].
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Verifies the lines by known keys; those by others are ignored.
    ///
    /// Known are the manifest's checkpoint keys under the checkpoint's origin as their name, without the revoked
    /// ones unless these are to count, and the policy's witnesses. Whether the origin is the right one is for the
    /// caller to check.
    ///
    /// # Errors
    /// Where a line by a known key does not verify, or the log's own line is not there.
    pub fn verify(
        &self,
        keys: &TrustedKeys,
        policy: Option<&Policy>,
        revoked: Revoked,
    ) -> Result<Signatures, Error> {
        let text = self.checkpoint.text();
        let origin = self.checkpoint.origin.as_str();
        let log_keys: Vec<(&Key, [u8; 4])> = keys
            .checkpoint_keys()
            .filter(|key| revoked == Revoked::Counted || key.revoked_at.is_none())
            .map(|key| (key, note_key_id(origin, key.public_key.bytes())))
            .collect();
        let witnesses = policy.map_or(&[][..], Policy::witnesses);
        let mut log_key = None;
        let mut cosignatures: Vec<Cosignature> = Vec::new();
        for (index, line) in self.lines.iter().enumerate() {
            let mut is_known = false;
            let mut is_verified = false;
            // Ids are short: where two keys have one, the line may be by either.
            if line.name == origin {
                for (key, _) in log_keys.iter().filter(|(_, key_id)| *key_id == line.key_id) {
                    is_known = true;
                    if line.is_log_signature(key, &text) {
                        is_verified = true;
                        log_key.get_or_insert(key.key_id);
                    }
                }
            }
            for (witness, known) in witnesses.iter().enumerate() {
                if known.key_id != line.key_id || known.name != line.name {
                    continue;
                }
                is_known = true;
                if let Some(unix_seconds) = line.cosigned_at(known, &text) {
                    is_verified = true;
                    match cosignatures.iter_mut().find(|cosignature| cosignature.witness == witness) {
                        Some(earlier) => earlier.unix_seconds = earlier.unix_seconds.min(unix_seconds),
                        None => cosignatures.push(Cosignature { witness, unix_seconds }),
                    }
                }
            }
            if is_known && !is_verified {
                return Err(Error::Mismatch { line: index + 5 });
            }
        }
        Ok(Signatures { key_id: log_key.ok_or(Error::NotSignedByLog)?, cosignatures })
    }
}

impl Line {
    fn parse(line: &str) -> Option<Self> {
        let (name, blob) = line.strip_prefix("\u{2014} ")?.split_once(' ')?;
        if !is_key_name(name) {
            return None;
        }
        let blob = parse_base64(blob)?;
        let (key_id, signature) = blob.split_first_chunk::<4>()?;
        if signature.is_empty() {
            return None;
        }
        Some(Self { name: name.to_owned(), key_id: *key_id, signature: signature.to_vec() })
    }

    fn is_log_signature(&self, key: &Key, text: &str) -> bool {
        let signature: Option<&[u8; 64]> = self.signature.as_slice().try_into().ok();
        signature.is_some_and(|signature| key.public_key.verify(text.as_bytes(), signature).is_ok())
    }

    /// The time of a cosignature that verifies.
    fn cosigned_at(&self, witness: &Witness, text: &str) -> Option<u64> {
        let (time, signature) = self.signature.split_first_chunk::<8>()?;
        let unix_seconds = u64::from_be_bytes(*time);
        // C2SP tlog-cosignature: a time is at most 2^63-1.
        i64::try_from(unix_seconds).ok()?;
        let message = cosignature_message(unix_seconds, text);
        witness.public_key.verify(&message, signature.try_into().ok()?).ok()?;
        Some(unix_seconds)
    }
}

/// Whether a text can be a key's name in a note: not empty, no white space, no `+`.
pub(crate) fn is_key_name(name: &str) -> bool {
    !name.is_empty() && !name.chars().any(|character| character.is_whitespace() || character == '+')
}
