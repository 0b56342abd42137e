//! Which keys of a manifest a pin leads to.

use std::collections::HashSet;

use super::{Key, KeyManifest, Pin, Purpose};
use crate::Hash;
use crate::check::{Check, Failure};
use crate::encoding::{base64, hex};
use crate::json::{Object, Value};
use crate::signature::{self, Kind};

/// The keys of a manifest that a trusted, current root signed.
#[derive(Clone, Debug)]
pub struct TrustedKeys {
    manifest: KeyManifest,
    pin: Pin,
}

impl TrustedKeys {
    /// The manifest, whose signature verified under the pin.
    pub fn manifest(&self) -> &KeyManifest {
        &self.manifest
    }

    /// The pin.
    pub fn pin(&self) -> &Pin {
        &self.pin
    }

    /// The receipt key of that id, revoked or not; none where the manifest has no such key, or one of another
    /// purpose.
    pub fn receipt_key(&self, key_id: &Hash) -> Option<&Key> {
        self.manifest.key(key_id).filter(|key| key.purpose == Purpose::Receipt)
    }

    /// The checkpoint keys, revoked or not.
    pub fn checkpoint_keys(&self) -> impl Iterator<Item = &Key> {
        self.manifest.keys.iter().filter(|key| key.purpose == Purpose::Checkpoint)
    }
}

impl KeyManifest {
    /// Verifies the manifest under a pin.
    ///
    /// Trusted are the pinned root and the roots that a chain of endorsements leads to from it. A chain ends at a
    /// revoked root. A manifest with an endorsement that is wrong in itself (its signature, its endorser's place
    /// or window) is refused as a whole, wherever the pin is.
    ///
    /// # Errors
    /// [`Check::Manifest`] where an endorsement is wrong, the pinned root is not there, or the manifest's
    /// signature is not by a trusted root that is current in it; then [`Check::Instance`] where the manifest is
    /// another instance's than the pin.
    pub fn trust(self, pin: &Pin) -> Result<TrustedKeys, Failure> {
        let failure = |detail: String| Failure::new(Check::Manifest, detail);
        let mut trusted: HashSet<Hash> = HashSet::new();
        for (index, root) in self.keys.iter().enumerate().filter(|(_, key)| key.purpose == Purpose::Root) {
            let endorser = self
                .verify_endorsement(index, root)
                .map_err(|detail| failure(format!("the endorsement of keys[{index}] {detail}")))?;
            let is_chained = endorser.revoked_at.is_none() && trusted.contains(&endorser.key_id);
            if root.key_id == pin.key_id || is_chained {
                trusted.insert(root.key_id);
            }
        }
        if !trusted.contains(&pin.key_id) {
            return Err(failure(format!("the pinned root {} is not in the key manifest", hex(&pin.key_id))));
        }
        let signer = self.key(&self.key_id).filter(|key| key.purpose == Purpose::Root);
        let named = hex(&self.key_id);
        let signer = signer
            .ok_or_else(|| failure(format!("the key manifest names as signer {named}, not a root of it")))?;
        if !trusted.contains(&signer.key_id) {
            return Err(failure(format!(
                "no chain of endorsements leads from the pin to the signer {named}"
            )));
        }
        if signer.revoked_at.is_some() {
            return Err(failure(format!("the key manifest is signed by the revoked root {named}")));
        }
        if signer.not_after.is_some() || signer.not_before > self.issued_at {
            return Err(failure(format!(
                "the key manifest is signed by the root {named}, which is not current"
            )));
        }
        signer
            .public_key
            .verify(&signature::message(Kind::Manifest, &self.signed), &self.signature)
            .map_err(|error| failure(format!("the key manifest's signature by {named}: {error}")))?;
        if self.instance != pin.instance {
            let detail = format!("the key manifest is of {}, the pin of {}", self.instance, pin.instance);
            return Err(Failure::new(Check::Instance, detail));
        }
        Ok(TrustedKeys { manifest: self, pin: pin.clone() })
    }

    /// The endorser of a root, if the endorsement is right in itself.
    fn verify_endorsement<'a>(&'a self, index: usize, root: &'a Key) -> Result<&'a Key, String> {
        let (Some(endorsed_by), Some(endorsement)) = (root.endorsed_by, root.endorsement) else {
            return Err("is missing".to_owned());
        };
        let is_first = !self.keys[..index].iter().any(|key| key.purpose == Purpose::Root);
        let endorser = if is_first && endorsed_by == root.key_id {
            root
        } else {
            self.keys[..index]
                .iter()
                .find(|key| key.key_id == endorsed_by && key.purpose == Purpose::Root)
                .ok_or("is not by a root that stands before it")?
        };
        if !endorser.window_contains(root.not_before) {
            return Err("is by a root that was not in its window at not_before".to_owned());
        }
        let message = signature::message(Kind::Endorsement, self.endorsed_bytes(root).as_bytes());
        let verified = endorser.public_key.verify(&message, &endorsement);
        verified.map(|()| endorser).map_err(|error| format!("does not verify: {error}"))
    }

    /// What the endorsement of a root is over.
    fn endorsed_bytes(&self, root: &Key) -> String {
        let mut statement = Object::new();
        for (name, value) in [
            ("instance", self.instance.clone()),
            ("key_id", hex(&root.key_id)),
            ("not_before", root.not_before.to_string()),
            ("public_key", base64(root.public_key.bytes())),
            ("purpose", root.purpose.to_string()),
        ] {
            statement.insert(name.to_owned(), Value::String(value));
        }
        Value::Object(statement).canonical()
    }
}
