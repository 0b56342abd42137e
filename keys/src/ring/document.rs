//! The key manifest as the ring holds it, and how it is written.
//!
//! It is read by the verifier's own parser only: a ring never holds a manifest that a customer would refuse.

use std::fmt;
use std::sync::Arc;

use statusledger_verify::encoding;
use statusledger_verify::json::{Object, Value};
use statusledger_verify::manifest::{self, KeyManifest, Pin, TrustedKeys};
use statusledger_verify::time::Timestamp;

use super::RingError;
use crate::key_id::KeyId;
use crate::signing::{KeyPurpose, Root, SignError, SigningKey};

/// The public side of a key: its object in the key manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRecord {
    /// SHA-256 of `public_key`.
    pub key_id: KeyId,
    /// The raw Ed25519 public key.
    pub public_key: [u8; 32],
    /// What the key is for.
    pub purpose: KeyPurpose,
    /// Since when it signs.
    pub not_before: Timestamp,
    /// Until when it signed; none while it is current.
    pub not_after: Option<Timestamp>,
    /// Until when what it signed counts as fresh; none while it is current, and for roots.
    pub verify_until: Option<Timestamp>,
    /// When it was declared compromised.
    pub revoked_at: Option<Timestamp>,
    /// Of a root: who introduced it.
    pub endorsement: Option<Endorsement>,
}

/// A root's introduction by another root, or by itself if it is the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endorsement {
    /// The endorsing root.
    pub by: KeyId,
    /// Its signature of kind `endorsement`.
    pub signature: [u8; 64],
}

/// What a key manifest says, without its signature.
#[derive(Clone)]
pub(super) struct Contents {
    pub(super) instance: String,
    pub(super) ledger: String,
    pub(super) serial: u64,
    pub(super) issued_at: Timestamp,
    pub(super) expires: Timestamp,
    pub(super) keys: Vec<KeyRecord>,
}

/// A signed key manifest, verified under its own current root, with its bytes.
#[derive(Clone)]
pub(super) struct Document {
    pub(super) contents: Contents,
    pub(super) bytes: Arc<[u8]>,
    pub(super) trusted: Arc<TrustedKeys>,
}

impl Document {
    /// Reads a signed manifest and verifies it under its own current root, and that there is one current key
    /// of each purpose.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, RingError> {
        let manifest = KeyManifest::parse(bytes).map_err(RingError::Manifest)?;
        let contents = Contents {
            instance: manifest.instance.clone(),
            ledger: manifest.ledger.clone(),
            serial: manifest.serial,
            issued_at: manifest.issued_at,
            expires: manifest.expires,
            keys: manifest.keys.iter().map(KeyRecord::from).collect(),
        };
        for purpose in [KeyPurpose::Root, KeyPurpose::Receipt, KeyPurpose::Checkpoint] {
            let mut current = contents.keys.iter().filter(|key| key.is_current(purpose));
            if current.next().is_none() || current.next().is_some() {
                return Err(RingError::NotOneCurrent { purpose });
            }
        }
        let root = contents.current(KeyPurpose::Root).key_id;
        let pin = Pin { key_id: root.0, instance: contents.instance.clone() };
        let trusted = manifest.trust(&pin).map_err(RingError::Manifest)?;
        Ok(Self { contents, bytes: bytes.into(), trusted: Arc::new(trusted) })
    }

    /// Whether a customer with that pin trusts the manifest.
    pub(super) fn is_trusted_under(&self, pin: &Pin) -> bool {
        self.trusted.manifest().clone().trust(pin).is_ok()
    }

    /// Whether a customer who has the older manifest accepts this one as its successor.
    pub(super) fn follows(&self, older: &Self) -> Result<(), RingError> {
        manifest::compare(older.trusted.manifest(), self.trusted.manifest()).map_err(RingError::Manifest)
    }
}

impl Contents {
    /// The signed manifest, canonical.
    pub(super) fn sign(&self, root: &SigningKey<Root>) -> Result<Vec<u8>, SignError> {
        let mut manifest = object([
            ("expires", text(self.expires)),
            ("instance", text(&self.instance)),
            ("issued_at", text(self.issued_at)),
            ("key_id", text(root.key_id())),
            ("keys", Value::Array(self.keys.iter().map(|key| Value::Object(key.to_object())).collect())),
            ("ledger", text(&self.ledger)),
            ("serial", integer(self.serial)),
            ("v", Value::Int(1)),
        ]);
        let signature = root.sign_manifest(Value::Object(manifest.clone()).canonical().as_bytes())?;
        manifest.insert("signature".to_owned(), text(encoding::base64(&signature)));
        Ok(Value::Object(manifest).canonical().into_bytes())
    }

    pub(super) fn key(&self, key_id: KeyId) -> Option<&KeyRecord> {
        self.keys.iter().find(|key| key.key_id == key_id)
    }

    /// The current key of a purpose. A signed manifest that was read has exactly one.
    pub(super) fn current(&self, purpose: KeyPurpose) -> &KeyRecord {
        let current = self.keys.iter().find(|key| key.is_current(purpose));
        current.expect("a manifest is only read with a current key of each purpose")
    }
}

impl From<&manifest::Key> for KeyRecord {
    fn from(key: &manifest::Key) -> Self {
        let endorsement = key.endorsed_by.zip(key.endorsement);
        Self {
            key_id: KeyId(key.key_id),
            public_key: *key.public_key.bytes(),
            purpose: key.purpose,
            not_before: key.not_before,
            not_after: key.not_after,
            verify_until: key.verify_until,
            revoked_at: key.revoked_at,
            endorsement: endorsement.map(|(by, signature)| Endorsement { by: KeyId(by), signature }),
        }
    }
}

impl KeyRecord {
    fn is_current(&self, purpose: KeyPurpose) -> bool {
        self.purpose == purpose && self.not_after.is_none() && self.revoked_at.is_none()
    }

    /// The key's object in the manifest.
    fn to_object(&self) -> Object {
        let mut key = object([
            ("key_id", text(self.key_id)),
            ("not_after", time_or_null(self.not_after)),
            ("not_before", text(self.not_before)),
            ("public_key", text(encoding::base64(&self.public_key))),
            ("purpose", text(self.purpose)),
            ("revoked_at", time_or_null(self.revoked_at)),
            ("verify_until", time_or_null(self.verify_until)),
        ]);
        if let Some(endorsement) = &self.endorsement {
            key.insert("endorsed_by".to_owned(), text(endorsement.by));
            key.insert("endorsement".to_owned(), text(encoding::base64(&endorsement.signature)));
        }
        key
    }
}

/// The statement that an endorsement signs, canonical.
pub(super) fn endorsement_statement(
    instance: &str,
    root: &SigningKey<Root>,
    not_before: Timestamp,
) -> String {
    let statement = object([
        ("instance", text(instance)),
        ("key_id", text(root.key_id())),
        ("not_before", text(not_before)),
        ("public_key", text(encoding::base64(root.public_key().bytes()))),
        ("purpose", text(KeyPurpose::Root)),
    ]);
    Value::Object(statement).canonical()
}

pub(super) fn object<const N: usize>(members: [(&str, Value); N]) -> Object {
    let mut object = Object::new();
    for (name, value) in members {
        object.insert(name.to_owned(), value);
    }
    object
}

pub(super) fn text(value: impl fmt::Display) -> Value {
    Value::String(value.to_string())
}

pub(super) fn integer(value: u64) -> Value {
    Value::Int(i64::try_from(value).expect("a serial counts the changes of a ring"))
}

pub(super) fn time_or_null(time: Option<Timestamp>) -> Value {
    time.map_or(Value::Null, text)
}
