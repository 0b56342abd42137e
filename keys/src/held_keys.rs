//! The key-encryption keys that a node holds at one time.
//!
//! Usually that is one. While the key-encryption key is being replaced it is two: what stands under the old one is
//! opened by it, while more and more stands under the new one. Each ciphertext names its key, so opening needs no
//! trying. Under which of them something new is sealed is not decided here: the service asks the database, so that
//! all nodes change over at one moment.

use std::fmt;
use std::sync::Arc;

use crate::key_encryption::KeyEncryptionKey;
use crate::sealing::{SealError, SealingKeyId};

/// Whoever can open what stands under a key-encryption key: that key alone, or all keys of a node.
pub trait KeyHolder {
    /// The key to open with what is sealed under `id`.
    ///
    /// # Errors
    /// [`SealError::NotHeld`].
    fn key_for(&self, id: SealingKeyId) -> Result<&KeyEncryptionKey, SealError>;
}

/// Gives itself whatever is asked for: opening then says [`SealError::WrongKey`].
impl KeyHolder for KeyEncryptionKey {
    fn key_for(&self, _: SealingKeyId) -> Result<&KeyEncryptionKey, SealError> {
        Ok(self)
    }
}

/// A node's key-encryption keys, each once. A value: whoever learns of another key makes a new one.
#[derive(Clone, Default)]
pub struct HeldKeys(Vec<Arc<KeyEncryptionKey>>);

impl HeldKeys {
    /// These and one more; a key that is held already is not held twice.
    #[must_use]
    pub fn with(mut self, key: Arc<KeyEncryptionKey>) -> Self {
        if self.get(key.id()).is_none() {
            self.0.push(key);
        }
        self
    }

    /// The key of that id.
    pub fn get(&self, id: SealingKeyId) -> Option<&Arc<KeyEncryptionKey>> {
        self.0.iter().find(|key| key.id() == id)
    }

    /// The ids of all of them, in the order in which they came.
    pub fn ids(&self) -> Vec<SealingKeyId> {
        self.0.iter().map(|key| key.id()).collect()
    }
}

impl KeyHolder for HeldKeys {
    fn key_for(&self, id: SealingKeyId) -> Result<&KeyEncryptionKey, SealError> {
        self.get(id).map(Arc::as_ref).ok_or_else(|| SealError::NotHeld { sealed_under: id, held: self.ids() })
    }
}

impl fmt::Debug for HeldKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.ids()).finish()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::envelope::DataKey;

    fn key() -> Arc<KeyEncryptionKey> {
        Arc::new(KeyEncryptionKey::generate().unwrap())
    }

    #[test]
    fn what_stands_under_any_held_key_opens_and_nothing_else_does() {
        let (old, new, other) = (key(), key(), key());
        let held = HeldKeys::default().with(Arc::clone(&old)).with(Arc::clone(&new)).with(Arc::clone(&old));
        assert_eq!(held.ids(), [old.id(), new.id()]);
        let data_key = DataKey::generate([1; 16]).unwrap();
        for kek in [&old, &new] {
            let wrapped = data_key.wrap(kek).unwrap();
            assert_eq!(DataKey::unwrap(&held, [1; 16], &wrapped).unwrap().id(), data_key.id());
        }
        let error = DataKey::unwrap(&held, [1; 16], &data_key.wrap(&other).unwrap()).unwrap_err();
        assert_eq!(
            error,
            SealError::NotHeld { sealed_under: other.id(), held: vec![old.id(), new.id()] },
            "it says which keys there are"
        );
        assert!(error.to_string().contains(&other.id().to_string()), "{error}");
    }

    #[test]
    fn a_key_that_is_learnt_changes_no_set_that_others_hold() {
        let (old, new) = (key(), key());
        let before = HeldKeys::default().with(Arc::clone(&old));
        let after = before.clone().with(Arc::clone(&new));
        assert!(before.get(new.id()).is_none() && after.get(new.id()).is_some());
        assert_eq!(format!("{before:?}"), format!("{{{}}}", old.id()));
        let nobody = HeldKeys::default().key_for(old.id()).unwrap_err();
        assert_eq!(nobody, SealError::NotHeld { sealed_under: old.id(), held: vec![] });
    }
}
