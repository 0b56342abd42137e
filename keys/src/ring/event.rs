//! What the instance's ledger records of a change of keys.

use sha2::{Digest, Sha256};
use statusledger_verify::encoding;
use statusledger_verify::json::{Object, Value};

use super::document::{Document, KeyRecord, integer, object, text, time_or_null};
use crate::key_id::KeyId;
use crate::signing::KeyPurpose;

/// The type of a key event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum KeyEventType {
    /// `key.added`
    Added,
    /// `key.retired`
    Retired,
    /// `key.revoked`
    Revoked,
    /// `key.destroyed`
    Destroyed,
    /// `key.root_exported`
    RootExported,
    /// `key.manifest_published`
    ManifestPublished,
}

impl KeyEventType {
    /// The entry's `type`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "key.added",
            Self::Retired => "key.retired",
            Self::Revoked => "key.revoked",
            Self::Destroyed => "key.destroyed",
            Self::RootExported => "key.root_exported",
            Self::ManifestPublished => "key.manifest_published",
        }
    }
}

/// An entry for the instance's ledger: its `type` and its `data`, without what the ledger adds to it.
///
/// No entry holds anything of a private key. Times, ids and keys are written as in the key manifest; `serial` is
/// that of the manifest in which the change appears.
///
/// | type | `data` |
/// |---|---|
/// | `key.added` | `endorsed_by` (the endorsing root's id, its own for the first; null for other keys), `key_id`, `not_before`, `public_key`, `purpose`, `serial` |
/// | `key.retired` | `key_id`, `not_after`, `purpose`, `serial`, `verify_until` (null for roots) |
/// | `key.revoked` | `key_id`, `purpose`, `revoked_at`, `serial` |
/// | `key.destroyed` | `key_id`, `purpose`: the private part is gone from the instance |
/// | `key.root_exported` | `key_id`: the private root left the instance as a file |
/// | `key.manifest_published` | `expires`, `issued_at`, `key_id` (the signing root), `serial`, `sha256` (hex, of the manifest as it is served) |
///
/// `key.manifest_published` is what finds a stolen root: a manifest whose hash is not in the instance's ledger
/// was not issued by the instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyEvent {
    /// The entry's `type`.
    pub event_type: KeyEventType,
    /// The entry's `data`; its members are in the table above.
    pub data: Object,
}

impl KeyEvent {
    pub(super) fn added(key: &KeyRecord, serial: u64) -> Self {
        let endorsed_by = key.endorsement.as_ref().map_or(Value::Null, |endorsement| text(endorsement.by));
        Self::new(
            KeyEventType::Added,
            [
                ("endorsed_by", endorsed_by),
                ("key_id", text(key.key_id)),
                ("not_before", text(key.not_before)),
                ("public_key", text(encoding::base64(&key.public_key))),
                ("purpose", text(key.purpose)),
                ("serial", integer(serial)),
            ],
        )
    }

    pub(super) fn retired(key: &KeyRecord, serial: u64) -> Self {
        Self::new(
            KeyEventType::Retired,
            [
                ("key_id", text(key.key_id)),
                ("not_after", time_or_null(key.not_after)),
                ("purpose", text(key.purpose)),
                ("serial", integer(serial)),
                ("verify_until", time_or_null(key.verify_until)),
            ],
        )
    }

    pub(super) fn revoked(key: &KeyRecord, serial: u64) -> Self {
        Self::new(
            KeyEventType::Revoked,
            [
                ("key_id", text(key.key_id)),
                ("purpose", text(key.purpose)),
                ("revoked_at", time_or_null(key.revoked_at)),
                ("serial", integer(serial)),
            ],
        )
    }

    pub(super) fn destroyed(key_id: KeyId, purpose: KeyPurpose) -> Self {
        Self::new(KeyEventType::Destroyed, [("key_id", text(key_id)), ("purpose", text(purpose))])
    }

    pub(super) fn root_exported(key_id: KeyId) -> Self {
        Self::new(KeyEventType::RootExported, [("key_id", text(key_id))])
    }

    pub(super) fn manifest_published(document: &Document, signer: KeyId) -> Self {
        let hash = KeyId(Sha256::digest(&document.bytes).into());
        Self::new(
            KeyEventType::ManifestPublished,
            [
                ("expires", text(document.contents.expires)),
                ("issued_at", text(document.contents.issued_at)),
                ("key_id", text(signer)),
                ("serial", integer(document.contents.serial)),
                ("sha256", text(hash)),
            ],
        )
    }

    fn new<const N: usize>(event_type: KeyEventType, members: [(&str, Value); N]) -> Self {
        Self { event_type, data: object(members) }
    }
}
