//! The ring in the database.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::document::Document;
use super::operations::Change;
use super::{Private, Ring, RingError, RootKey};
use crate::held_keys::KeyHolder;
use crate::key_encryption::KeyEncryptionKey;
use crate::key_id::KeyId;
use crate::sealing::{SealError, SealPurpose, SealingKeyId};
use crate::signing::{KeyPurpose, Purpose, SigningKey};

/// A row of `key_manifests`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredManifest {
    /// The manifest's serial.
    pub serial: u64,
    /// The manifest, byte for byte as it is served.
    pub document: Vec<u8>,
}

/// A row of `signing_keys`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredKey {
    /// The key's id.
    pub key_id: KeyId,
    /// What it is for.
    pub purpose: KeyPurpose,
    /// The sealed private part; none where it was destroyed or is offline.
    pub ciphertext: Option<Vec<u8>>,
}

impl StoredKey {
    /// The private part of a key of `instance` under another key-encryption key; none where there is no private
    /// part. The key itself, and so its id and all that it signed, stays.
    ///
    /// # Errors
    /// [`SealError::NotHeld`], [`SealError::WrongKey`], [`SealError::NotAuthentic`] where it does not open, and
    /// [`SealError::Random`].
    pub fn rewrap(
        &self,
        instance: &str,
        from: &impl KeyHolder,
        to: &KeyEncryptionKey,
    ) -> Result<Option<Vec<u8>>, SealError> {
        let Some(ciphertext) = &self.ciphertext else { return Ok(None) };
        let place = place(instance, self.purpose, &self.key_id);
        let secret = open(from, &place, ciphertext)?;
        Ok(Some(to.sealing().seal(SealPurpose::SigningKey, &place, &secret)?))
    }
}

/// All of a ring in the database: the newest manifest and every key's row.
///
/// Two tables fit it: `key_manifests (serial primary key, document)`, of which the newest is the ring's public
/// side, and `signing_keys (key_id primary key, purpose, private_key null)`, a row a key. Each private key is
/// sealed under the key-encryption key for its instance, purpose and id, so that no row can stand in for
/// another, and deleting one (or setting it to null) destroys one key. Nothing public is read from the key
/// rows: what their purpose says only has to agree with the manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRing {
    /// The newest manifest.
    pub manifest: StoredManifest,
    /// A row for each key of the manifest. When reading, a missing row is the same as one without a private
    /// part.
    pub keys: Vec<StoredKey>,
}

/// What one [`Change`] writes, in one transaction with its events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredChange {
    /// A new row of `key_manifests`; none where the public side did not change. Its serial is one more than
    /// the last, so that the primary key refuses a change that was made from an older ring.
    pub manifest: Option<StoredManifest>,
    /// New rows of `signing_keys`.
    pub insert: Vec<StoredKey>,
    /// Rows whose private part is to be set to null.
    pub erase: Vec<KeyId>,
}

impl Ring {
    /// All of the ring as it is stored; for a new key-encryption key, say. A lent root is left out.
    ///
    /// # Errors
    /// [`SealError::Random`].
    pub fn to_stored(&self, key_encryption_key: &KeyEncryptionKey) -> Result<StoredRing, SealError> {
        let keys = self.keys().iter().map(|key| self.stored_key(key.key_id, key.purpose, key_encryption_key));
        Ok(StoredRing { manifest: self.stored_manifest(), keys: keys.collect::<Result<_, _>>()? })
    }

    fn stored_manifest(&self) -> StoredManifest {
        StoredManifest { serial: self.serial(), document: self.manifest().to_vec() }
    }

    fn stored_key(
        &self,
        key_id: KeyId,
        purpose: KeyPurpose,
        key_encryption_key: &KeyEncryptionKey,
    ) -> Result<StoredKey, SealError> {
        let secret = match purpose {
            KeyPurpose::Root => match &self.private.root {
                RootKey::Kept(key) if key.key_id() == key_id => Some(key.secret()),
                _ => None,
            },
            KeyPurpose::Receipt => self.private.receipt.get(&key_id).map(|key| key.secret()),
            KeyPurpose::Checkpoint => self.private.checkpoint.get(&key_id).map(|key| key.secret()),
        };
        let place = place(self.instance(), purpose, &key_id);
        let ciphertext = secret
            .map(|secret| {
                key_encryption_key.sealing().seal(SealPurpose::SigningKey, &place, secret.as_slice())
            })
            .transpose()?;
        Ok(StoredKey { key_id, purpose, ciphertext })
    }

    /// Reads a ring back. The manifest is verified as a customer would verify it, under its own current root,
    /// and each private key must belong to its public one.
    ///
    /// That the manifest is the newest, and of the root that customers pinned, is for the caller to hold
    /// against what the node itself remembers (a database rolled back shows neither): its last manifest, by
    /// `statusledger_verify::manifest::compare`, and its pin among [`Ring::pins`].
    ///
    /// # Errors
    /// [`RingError::Manifest`], [`RingError::Serial`], [`RingError::Stray`], [`RingError::Mismatch`],
    /// [`RingError::Missing`], [`RingError::Seal`].
    pub fn from_stored(stored: &StoredRing, holder: &impl KeyHolder) -> Result<Self, RingError> {
        let document = Document::read(&stored.manifest.document)?;
        if document.contents.serial != stored.manifest.serial {
            return Err(RingError::Serial {
                serial: stored.manifest.serial,
                found: document.contents.serial,
            });
        }
        let mut ring = Self { document, private: Private::with_root(RootKey::Offline) };
        let current_root = ring.current(KeyPurpose::Root).key_id;
        for row in &stored.keys {
            let key_id = row.key_id;
            let stray = RingError::Stray { key_id };
            let Some(key) = ring.document.contents.key(key_id).filter(|key| key.purpose == row.purpose)
            else {
                return Err(stray);
            };
            let Some(ciphertext) = &row.ciphertext else { continue };
            if key.revoked_at.is_some() || ring.holds_private(key_id) {
                return Err(stray);
            }
            let place = place(ring.instance(), row.purpose, &key_id);
            let secret = open(holder, &place, ciphertext)?;
            match row.purpose {
                KeyPurpose::Root if key_id == current_root => {
                    ring.private.root = RootKey::Kept(matching(key_id, &secret)?);
                }
                KeyPurpose::Root => return Err(stray),
                KeyPurpose::Receipt => {
                    ring.private.receipt.insert(key_id, matching(key_id, &secret)?);
                }
                KeyPurpose::Checkpoint => {
                    ring.private.checkpoint.insert(key_id, matching(key_id, &secret)?);
                }
            }
        }
        for purpose in [KeyPurpose::Receipt, KeyPurpose::Checkpoint] {
            let key_id = ring.current(purpose).key_id;
            if !ring.holds_private(key_id) {
                return Err(RingError::Missing { key_id, purpose });
            }
        }
        Ok(ring)
    }
}

impl Change {
    /// What this change writes. Before it is written, [`Change::root_file`] has to be safe.
    ///
    /// # Errors
    /// [`SealError::Random`].
    pub fn to_stored(&self, key_encryption_key: &KeyEncryptionKey) -> Result<StoredChange, SealError> {
        let insert = self
            .added
            .iter()
            .map(|(key_id, purpose)| self.ring.stored_key(*key_id, *purpose, key_encryption_key));
        Ok(StoredChange {
            manifest: self.published.then(|| self.ring.stored_manifest()),
            insert: insert.collect::<Result<_, _>>()?,
            erase: self.erased.clone(),
        })
    }
}

/// What a sealed private key is bound to.
fn place<'a>(instance: &'a str, purpose: KeyPurpose, key_id: &'a KeyId) -> [&'a [u8]; 3] {
    [instance.as_bytes(), purpose.name().as_bytes(), &key_id.0]
}

fn open(
    holder: &impl KeyHolder,
    place: &[&[u8]; 3],
    ciphertext: &[u8],
) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let key = holder.key_for(SealingKeyId::of_ciphertext(ciphertext)?)?;
    key.sealing().open(SealPurpose::SigningKey, place, ciphertext)
}

fn matching<P: Purpose>(key_id: KeyId, secret: &[u8]) -> Result<Arc<SigningKey<P>>, RingError> {
    SigningKey::from_slice(secret)
        .filter(|key| key.key_id() == key_id)
        .map(Arc::new)
        .ok_or(RingError::Mismatch { key_id })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::signing::Receipt;

    #[test]
    fn each_private_key_is_rewrapped_by_itself_and_a_ring_under_two_keys_is_read_by_a_holder_of_both() {
        use crate::held_keys::HeldKeys;
        let [old, new] = [(); 2].map(|()| Arc::new(KeyEncryptionKey::generate().unwrap()));
        let held = HeldKeys::default().with(Arc::clone(&old)).with(Arc::clone(&new));
        let now = "2026-11-22T01:02:03.000004Z".parse().unwrap();
        let ring = Ring::create("a.example", "0f0e0d0c-0b0a-4908-8706-050403020100", now).unwrap().ring;
        let mut stored = ring.to_stored(&old).unwrap();
        for row in 0..stored.keys.len() {
            let again = stored.keys[row].rewrap("a.example", &held, &new).unwrap().unwrap();
            assert_eq!(SealingKeyId::of_ciphertext(&again), Ok(new.id()));
            stored.keys[row].ciphertext = Some(again);
            // As a crash after any row leaves it.
            let read = Ring::from_stored(&stored, &held).unwrap();
            assert_eq!(read.keys(), ring.keys());
            assert!(read.keys().iter().all(|key| read.holds_private(key.key_id)));
        }
        Ring::from_stored(&stored, &*new).unwrap();
        let error = Ring::from_stored(&stored, &*old).unwrap_err();
        assert!(matches!(error, RingError::Seal(SealError::WrongKey { .. })), "{error}");
        let mut key = stored.keys.remove(0);
        assert_eq!(key.rewrap("b.example", &held, &old), Err(SealError::NotAuthentic), "another instance's");
        key.ciphertext = None;
        assert_eq!(key.rewrap("a.example", &held, &old), Ok(None), "a destroyed key stays destroyed");
    }

    #[test]
    fn a_private_key_that_is_not_the_public_ones_is_refused_however_well_it_is_sealed() {
        let kek = KeyEncryptionKey::generate().unwrap();
        let now = "2026-11-22T01:02:03.000004Z".parse().unwrap();
        let ring = Ring::create("a.example", "0f0e0d0c-0b0a-4908-8706-050403020100", now).unwrap().ring;
        let stored = ring.to_stored(&kek).unwrap();
        let other = SigningKey::<Receipt>::generate().unwrap().secret();
        for row in 0..stored.keys.len() {
            let StoredKey { key_id, purpose, .. } = stored.keys[row];
            for secret in [&other[..], &other[1..], &[]] {
                let place = place("a.example", purpose, &key_id);
                let mut wrong = stored.clone();
                wrong.keys[row].ciphertext =
                    Some(kek.sealing().seal(SealPurpose::SigningKey, &place, secret).unwrap());
                let error = Ring::from_stored(&wrong, &kek).unwrap_err();
                assert!(matches!(error, RingError::Mismatch { key_id: named } if named == key_id), "{error}");
            }
        }
    }
}
