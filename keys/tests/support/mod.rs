//! What the ring's tests share: a ring, its two tables, and the customer's side.

#![allow(dead_code)] // Each test binary uses a part of it.

use std::collections::BTreeMap;

use statusledger_keys::key_encryption::KeyEncryptionKey;
use statusledger_keys::key_id::KeyId;
use statusledger_keys::ring::{Change, Ring, RingError, StoredKey, StoredManifest, StoredRing};
use statusledger_verify::manifest::{KeyManifest, Pin};
use statusledger_verify::time::Timestamp;

pub(crate) const INSTANCE: &str = "status.example.com";
pub(crate) const LEDGER: &str = "0f0e0d0c-0b0a-4908-8706-050403020100";
pub(crate) const START: &str = "2026-11-22T01:02:03.000004Z";

pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub(crate) fn days(time: Timestamp, days: i64) -> Timestamp {
    time.plus_seconds(days * 86_400).unwrap()
}

/// A new instance's ring, made at [`START`].
pub(crate) fn ring() -> Ring {
    Ring::create(INSTANCE, LEDGER, at(START)).unwrap().ring
}

pub(crate) fn event_types(change: &Change) -> Vec<String> {
    change.events.iter().map(|event| event.event_type.as_str().to_owned()).collect()
}

/// Whether a customer with that pin accepts the ring's manifest.
pub(crate) fn verifies(ring: &Ring, pin: &Pin) -> bool {
    KeyManifest::parse(ring.manifest()).unwrap().trust(pin).is_ok()
}

/// The tables `key_manifests` and `signing_keys`.
#[derive(Default)]
pub(crate) struct Database {
    manifests: BTreeMap<u64, Vec<u8>>,
    keys: BTreeMap<KeyId, StoredKey>,
}

impl Database {
    pub(crate) fn write(&mut self, change: &Change, kek: &KeyEncryptionKey) {
        let stored = change.to_stored(kek).unwrap();
        if let Some(StoredManifest { serial, document }) = stored.manifest {
            assert_eq!(serial, self.manifests.len() as u64 + 1, "serials have no gap");
            self.manifests.insert(serial, document);
        }
        for row in stored.insert {
            assert!(self.keys.insert(row.key_id, row).is_none(), "a row is inserted once");
        }
        for key_id in stored.erase {
            let row = self.keys.get_mut(&key_id).unwrap();
            assert!(row.ciphertext.take().is_some(), "what is erased was there");
        }
    }

    pub(crate) fn read(&self, kek: &KeyEncryptionKey) -> Result<Ring, RingError> {
        let (&serial, document) = self.manifests.last_key_value().unwrap();
        let manifest = StoredManifest { serial, document: document.clone() };
        Ring::from_stored(&StoredRing { manifest, keys: self.keys.values().cloned().collect() }, kek)
    }
}
