//! The key manifest and the pin that it is trusted under.
//!
//! [`KeyManifest::parse`] reads a manifest and checks all that needs no signature; [`KeyManifest::trust`] verifies
//! its signatures under a customer's [`Pin`]. Only [`TrustedKeys`] verify anything.

mod parse;
mod rollback;
mod trust;

pub use rollback::compare;
pub use trust::TrustedKeys;

use std::fmt;
use std::str::FromStr;

use crate::Hash;
use crate::encoding::{hex, parse_hex};
use crate::members::is_instance_name;
use crate::signature::PublicKey;
use crate::time::Timestamp;

/// The largest key manifest, in bytes.
pub const MAX_BYTES: usize = 1 << 20;

/// The most keys in a manifest.
pub const MAX_KEYS: usize = 1024;

/// The longest time from `issued_at` to `expires`, in days.
pub const MAX_VALIDITY_DAYS: i64 = 100;

/// How long after its window a rotated key's receipts are still fresh, in days.
pub const VERIFY_DAYS: i64 = 90;

const SECONDS_PER_DAY: i64 = 86_400;

/// What a customer keeps: a root key's id and the instance that it speaks for. Written `KEY_ID@INSTANCE`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pin {
    /// The id of the pinned root.
    pub key_id: Hash,
    /// The instance's name.
    pub instance: String,
}

/// A text is not a pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PinError {
    /// There is no `@INSTANCE`.
    #[error("a pin is KEY_ID@INSTANCE; this one has no instance")]
    MissingInstance,
    /// Before the `@` there are not 64 lowercase hex digits.
    #[error("a pin is KEY_ID@INSTANCE; the key id is 64 lowercase hex digits")]
    KeyId,
    /// After the `@` there is no instance name.
    #[error("a pin is KEY_ID@INSTANCE; the instance is a host name in lowercase")]
    Instance,
}

impl FromStr for Pin {
    type Err = PinError;

    fn from_str(text: &str) -> Result<Self, PinError> {
        let (key_id, instance) = text.split_once('@').ok_or(PinError::MissingInstance)?;
        if instance.is_empty() {
            return Err(PinError::MissingInstance);
        }
        if !is_instance_name(instance) {
            return Err(PinError::Instance);
        }
        Ok(Self { key_id: parse_hex(key_id).ok_or(PinError::KeyId)?, instance: instance.to_owned() })
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}@{}", hex(&self.key_id), self.instance)
    }
}

/// What a key may sign. A key has one purpose for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Key manifests and endorsements.
    Root,
    /// Receipts and exports.
    Receipt,
    /// Checkpoints.
    Checkpoint,
}

impl Purpose {
    /// The name in a manifest.
    pub fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Receipt => "receipt",
            Self::Checkpoint => "checkpoint",
        }
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Whether what a revoked key signed counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Revoked {
    /// Nothing by it counts, whatever its date.
    #[default]
    Refused,
    /// It counts. For comparing two histories only: that both were signed under one key is the finding.
    Counted,
}

/// A key in a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// SHA-256 of the public key.
    pub key_id: Hash,
    /// The key.
    pub public_key: PublicKey,
    /// What it may sign.
    pub purpose: Purpose,
    /// The start of its window.
    pub not_before: Timestamp,
    /// The end of its window; none while the key is current.
    pub not_after: Option<Timestamp>,
    /// Until when what it signed is fresh; none while the key is current, and for roots.
    pub verify_until: Option<Timestamp>,
    /// When it was declared compromised.
    pub revoked_at: Option<Timestamp>,
    /// Of a root: the root that introduced it.
    pub endorsed_by: Option<Hash>,
    /// Of a root: that root's signature.
    pub endorsement: Option<[u8; 64]>,
}

impl Key {
    /// Whether a time lies in the key's window; both ends belong to it.
    pub fn window_contains(&self, time: Timestamp) -> bool {
        self.not_before <= time && self.not_after.is_none_or(|end| time <= end)
    }
}

/// A key manifest of the right shape, of which nothing is trusted yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyManifest {
    /// The instance whose keys these are.
    pub instance: String,
    /// The ledger of the instance's own events.
    pub ledger: String,
    /// Counts the manifests of the instance, from 1.
    pub serial: u64,
    /// When it was signed.
    pub issued_at: Timestamp,
    /// Until when it is fresh.
    pub expires: Timestamp,
    /// The keys, in the order of the document.
    pub keys: Vec<Key>,
    /// The root that signed it.
    pub key_id: Hash,
    /// Its signature.
    signature: [u8; 64],
    /// What the signature is over: the canonical manifest without `signature`.
    signed: Vec<u8>,
}

impl KeyManifest {
    /// The key of that id, whatever its purpose.
    pub fn key(&self, key_id: &Hash) -> Option<&Key> {
        self.keys.iter().find(|key| key.key_id == *key_id)
    }
}
