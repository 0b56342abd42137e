//! The changes of a ring. Each takes the time, and gives a [`Change`] or leaves everything as it was.

use std::sync::Arc;

use statusledger_verify::manifest::Pin;
use statusledger_verify::time::Timestamp;

use super::document::{Contents, Document, Endorsement, KeyRecord, endorsement_statement};
use super::event::KeyEvent;
use super::{MANIFEST_DAYS, Private, Ring, RingError, RootFile, RootKey, VERIFY_DAYS};
use crate::key_id::KeyId;
use crate::signing::{KeyPurpose, Purpose, Root, SigningKey};

const DAY_SECONDS: i64 = 86_400;

/// Which keys a rotation replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// The receipt key.
    Receipt,
    /// The checkpoint key.
    Checkpoint,
    /// Both, in one manifest.
    Both,
}

impl Rotation {
    fn purposes(self) -> &'static [KeyPurpose] {
        match self {
            Self::Receipt => &[KeyPurpose::Receipt],
            Self::Checkpoint => &[KeyPurpose::Checkpoint],
            Self::Both => &[KeyPurpose::Receipt, KeyPurpose::Checkpoint],
        }
    }
}

/// A new ring, and everything that has to happen for it to be the instance's:
///
/// 1. write `root_file`, if there is one, and make sure that it lasts: it is the only copy;
/// 2. in one transaction, write [`Change::to_stored`] and append `events` to the instance's ledger;
/// 3. use `ring`, and serve its manifest.
///
/// A crash before the end of 2 leaves the old ring in force (and at most a root file of a root that never
/// came to be).
#[derive(Debug)]
#[must_use]
pub struct Change {
    /// The ring from now on.
    pub ring: Ring,
    /// The entries for the instance's ledger, in order.
    pub events: Vec<KeyEvent>,
    /// A root that leaves the ring, to be written to a file first.
    pub root_file: Option<RootFile>,
    /// Pins that verified the manifest before and do not any more: only where a root was revoked.
    pub broken_pins: Vec<Pin>,
    /// Whether there is a new manifest.
    pub(super) published: bool,
    pub(super) added: Vec<(KeyId, KeyPurpose)>,
    pub(super) erased: Vec<KeyId>,
}

/// A change being made: the next manifest, and what came of the private parts.
struct Draft {
    next: Contents,
    private: Private,
    events: Vec<KeyEvent>,
    added: Vec<(KeyId, KeyPurpose)>,
    erased: Vec<KeyId>,
}

impl Ring {
    /// A new instance's ring: a root that endorses itself, a receipt key, a checkpoint key, and the manifest
    /// with serial 1.
    ///
    /// # Errors
    /// [`RingError::Manifest`] where `instance` is not a host name or `ledger` not a UUID of the format;
    /// [`RingError::Time`], [`RingError::Seal`], [`RingError::Sign`].
    pub fn create(instance: &str, ledger: &str, now: Timestamp) -> Result<Change, RingError> {
        let root = Arc::new(SigningKey::<Root>::generate()?);
        let first = Contents {
            instance: instance.to_owned(),
            ledger: ledger.to_owned(),
            serial: 1,
            issued_at: now,
            expires: days_after(now, MANIFEST_DAYS)?,
            keys: Vec::new(),
        };
        let mut draft = Draft::new(first, Private::with_root(RootKey::Kept(root.clone())));
        draft.add_root(&root, &root)?;
        draft.add(KeyPurpose::Receipt)?;
        draft.add(KeyPurpose::Checkpoint)?;
        draft.publish(None, &root, None)
    }

    /// Replaces the receipt key, the checkpoint key, or both. The old key's `not_after` is `now`, its
    /// `verify_until` 90 days later.
    ///
    /// No body that names the old key may get an `issued_at` after `now`: the service appends under a lock
    /// that it also takes to write this change.
    ///
    /// # Errors
    /// [`RingError::RootOffline`], [`RingError::ClockBehind`], [`RingError::Time`], [`RingError::Seal`],
    /// [`RingError::Sign`], [`RingError::Manifest`] (the manifest has no room for more keys).
    pub fn rotate(&self, rotation: Rotation, now: Timestamp) -> Result<Change, RingError> {
        let (mut draft, root) = self.draft(now)?;
        for &purpose in rotation.purposes() {
            draft.retire(self.current(purpose).key_id)?;
            draft.add(purpose)?;
        }
        draft.publish(Some(self), &root, None)
    }

    /// Replaces the root by a new one that the old one endorses. Every pin that verified before goes on
    /// verifying. The old private root is erased here; where it was lent, the new one leaves as a file as
    /// well, and the operator destroys the old file.
    ///
    /// # Errors
    /// As [`Ring::rotate`].
    pub fn rotate_root(&self, now: Timestamp) -> Result<Change, RingError> {
        let (mut draft, old) = self.draft(now)?;
        let new = Arc::new(SigningKey::<Root>::generate()?);
        draft.retire(old.key_id())?;
        draft.add_root(&new, &old)?;
        let root_file = if self.root_is_offline() {
            draft.events.push(KeyEvent::root_exported(new.key_id()));
            Some(RootFile { instance: self.instance().to_owned(), key: new.clone() })
        } else {
            draft.erase(old.key_id(), KeyPurpose::Root);
            draft.private.root = RootKey::Kept(new.clone());
            None
        };
        draft.publish(Some(self), &new, root_file)
    }

    /// Declares a key compromised: nothing by it counts from now on, whatever its date. A current receipt or
    /// checkpoint key is replaced at once. The private part is erased.
    ///
    /// A current root is refused: [`Ring::rotate_root`] first, then revoke the old one; see the module's
    /// text for what that means to customers. [`Change::broken_pins`] names the pins that end here.
    ///
    /// # Errors
    /// [`RingError::UnknownKey`], [`RingError::Revoked`] (already), [`RingError::Current`] (a current root),
    /// and as [`Ring::rotate`].
    pub fn revoke(&self, key_id: KeyId, now: Timestamp) -> Result<Change, RingError> {
        let key = self.key(key_id)?;
        let purpose = key.purpose;
        if let Some(revoked_at) = key.revoked_at {
            return Err(RingError::Revoked { key_id, revoked_at });
        }
        let is_current = key.not_after.is_none();
        if is_current && purpose == KeyPurpose::Root {
            return Err(RingError::Current { key_id, purpose });
        }
        let (mut draft, root) = self.draft(now)?;
        if is_current {
            draft.retire(key_id)?;
        }
        draft.revoke(key_id)?;
        if self.holds_private(key_id) {
            draft.erase(key_id, purpose);
        }
        if is_current {
            draft.add(purpose)?;
        }
        draft.publish(Some(self), &root, None)
    }

    /// Signs the same keys again: a new serial and 100 more days.
    ///
    /// # Errors
    /// As [`Ring::rotate`].
    pub fn republish(&self, now: Timestamp) -> Result<Change, RingError> {
        let (draft, root) = self.draft(now)?;
        draft.publish(Some(self), &root, None)
    }

    /// The same keys, with another ledger for the instance's own events: the one before lost entries that were signed.
    ///
    /// # Errors
    /// As [`Ring::rotate`], and [`RingError::Manifest`] where `ledger` is not a UUID of the format.
    pub fn continue_in(&self, ledger: &str, now: Timestamp) -> Result<Change, RingError> {
        let (mut draft, root) = self.draft(now)?;
        ledger.clone_into(&mut draft.next.ledger);
        draft.publish(Some(self), &root, None)
    }

    /// Destroys the private part of a retired key, once every delivery that names it is settled or has its
    /// signature stored. Does nothing, and has no events, where it is gone already. The manifest stays as it
    /// is, since it says nothing of private parts.
    ///
    /// # Errors
    /// [`RingError::UnknownKey`], [`RingError::Current`].
    pub fn destroy(&self, key_id: KeyId) -> Result<Change, RingError> {
        let key = self.key(key_id)?;
        let purpose = key.purpose;
        if key.not_after.is_none() {
            return Err(RingError::Current { key_id, purpose });
        }
        let mut draft = self.unpublished_draft();
        if self.holds_private(key_id) {
            draft.erase(key_id, purpose);
        }
        Ok(draft.keep(self, None))
    }

    /// Takes the private root out of the ring, into [`Change::root_file`].
    ///
    /// # Errors
    /// [`RingError::RootOffline`]: it is already out.
    pub fn export_root(&self) -> Result<Change, RingError> {
        let RootKey::Kept(root) = &self.private.root else {
            return Err(RingError::RootOffline { key_id: self.current(KeyPurpose::Root).key_id });
        };
        let root_file = RootFile { instance: self.instance().to_owned(), key: root.clone() };
        let mut draft = self.unpublished_draft();
        draft.events.push(KeyEvent::root_exported(root.key_id()));
        draft.erased.push(root.key_id());
        draft.private.root = RootKey::Offline;
        Ok(draft.keep(self, Some(root_file)))
    }

    /// The same ring with the root of a file lent to it, for one operation: the ring that the operation gives
    /// has it no more, and it is never stored. A ring that holds its root stays as it is.
    ///
    /// # Errors
    /// [`RingError::OtherInstance`], [`RingError::OtherRoot`].
    pub fn with_root(&self, file: &RootFile) -> Result<Self, RingError> {
        if file.instance() != self.instance() {
            return Err(RingError::OtherInstance {
                instance: self.instance().to_owned(),
                found: file.instance().to_owned(),
            });
        }
        let key_id = self.current(KeyPurpose::Root).key_id;
        if file.key_id() != key_id {
            return Err(RingError::OtherRoot { key_id, found: file.key_id() });
        }
        let mut ring = self.clone();
        if self.root_is_offline() {
            ring.private.root = RootKey::Lent(file.key.clone());
        }
        Ok(ring)
    }

    /// The start of a change that signs a manifest, and the root that signs for it.
    fn draft(&self, now: Timestamp) -> Result<(Draft, Arc<SigningKey<Root>>), RingError> {
        let issued_at = self.issued_at();
        if now < issued_at {
            return Err(RingError::ClockBehind { now, issued_at });
        }
        let (RootKey::Kept(root) | RootKey::Lent(root)) = &self.private.root else {
            return Err(RingError::RootOffline { key_id: self.current(KeyPurpose::Root).key_id });
        };
        let next = Contents {
            serial: self.serial() + 1,
            issued_at: now,
            expires: days_after(now, MANIFEST_DAYS)?,
            ..self.document.contents.clone()
        };
        Ok((Draft::new(next, self.private.clone()), root.clone()))
    }

    /// The start of a change of private parts only.
    fn unpublished_draft(&self) -> Draft {
        Draft::new(self.document.contents.clone(), self.private.clone())
    }
}

fn days_after(now: Timestamp, days: i64) -> Result<Timestamp, RingError> {
    now.plus_seconds(days * DAY_SECONDS).ok_or(RingError::Time { now })
}

impl Draft {
    fn new(next: Contents, mut private: Private) -> Self {
        if let RootKey::Lent(_) = private.root {
            private.root = RootKey::Offline;
        }
        Self { next, private, events: Vec::new(), added: Vec::new(), erased: Vec::new() }
    }

    /// The time of the change.
    fn now(&self) -> Timestamp {
        self.next.issued_at
    }

    fn key_mut(&mut self, key_id: KeyId) -> Result<&mut KeyRecord, RingError> {
        let found = self.next.keys.iter_mut().find(|key| key.key_id == key_id);
        found.ok_or(RingError::UnknownKey { key_id })
    }

    fn retire(&mut self, key_id: KeyId) -> Result<(), RingError> {
        let (now, serial) = (self.now(), self.next.serial);
        let verify_until = days_after(now, VERIFY_DAYS)?;
        let key = self.key_mut(key_id)?;
        key.not_after = Some(now);
        key.verify_until = (key.purpose != KeyPurpose::Root).then_some(verify_until);
        let event = KeyEvent::retired(key, serial);
        self.events.push(event);
        Ok(())
    }

    fn revoke(&mut self, key_id: KeyId) -> Result<(), RingError> {
        let (now, serial) = (self.now(), self.next.serial);
        let key = self.key_mut(key_id)?;
        key.revoked_at = Some(now);
        let event = KeyEvent::revoked(key, serial);
        self.events.push(event);
        Ok(())
    }

    /// Takes a private part out of the ring.
    fn erase(&mut self, key_id: KeyId, purpose: KeyPurpose) {
        match purpose {
            KeyPurpose::Root => self.private.root = RootKey::Offline,
            KeyPurpose::Receipt => {
                self.private.receipt.remove(&key_id);
            }
            KeyPurpose::Checkpoint => {
                self.private.checkpoint.remove(&key_id);
            }
        }
        self.erased.push(key_id);
        self.events.push(KeyEvent::destroyed(key_id, purpose));
    }

    /// A new current receipt or checkpoint key.
    fn add(&mut self, purpose: KeyPurpose) -> Result<(), RingError> {
        match purpose {
            KeyPurpose::Root => unreachable!("roots are added with their endorsement"),
            KeyPurpose::Receipt => {
                let key = Arc::new(SigningKey::generate()?);
                self.record(&key, None);
                self.private.receipt.insert(key.key_id(), key);
            }
            KeyPurpose::Checkpoint => {
                let key = Arc::new(SigningKey::generate()?);
                self.record(&key, None);
                self.private.checkpoint.insert(key.key_id(), key);
            }
        }
        Ok(())
    }

    fn add_root(&mut self, root: &SigningKey<Root>, endorser: &SigningKey<Root>) -> Result<(), RingError> {
        let statement = endorsement_statement(&self.next.instance, root, self.now());
        let signature = endorser.sign_endorsement(statement.as_bytes())?;
        self.record(root, Some(Endorsement { by: endorser.key_id(), signature }));
        Ok(())
    }

    fn record<P: Purpose>(&mut self, key: &SigningKey<P>, endorsement: Option<Endorsement>) {
        let record = KeyRecord {
            key_id: key.key_id(),
            public_key: *key.public_key().bytes(),
            purpose: P::PURPOSE,
            not_before: self.now(),
            not_after: None,
            verify_until: None,
            revoked_at: None,
            endorsement,
        };
        self.added.push((record.key_id, record.purpose));
        self.events.push(KeyEvent::added(&record, self.next.serial));
        self.next.keys.push(record);
    }

    /// Signs the manifest and releases the change, if a customer would accept it.
    fn publish(
        mut self,
        previous: Option<&Ring>,
        root: &SigningKey<Root>,
        root_file: Option<RootFile>,
    ) -> Result<Change, RingError> {
        // Read back from the signed bytes: what the ring then holds is what a customer will see.
        let document = Document::read(&self.next.sign(root)?)?;
        self.events.push(KeyEvent::manifest_published(&document, root.key_id()));
        let broken_pins = previous.map_or(Ok(Vec::new()), |previous| broken_pins(previous, &document))?;
        Ok(self.change(document, root_file, broken_pins, true))
    }

    /// Releases a change of private parts only; the manifest stays.
    fn keep(self, previous: &Ring, root_file: Option<RootFile>) -> Change {
        self.change(previous.document.clone(), root_file, Vec::new(), false)
    }

    fn change(
        self,
        document: Document,
        root_file: Option<RootFile>,
        broken_pins: Vec<Pin>,
        published: bool,
    ) -> Change {
        let Self { private, events, added, erased, .. } = self;
        Change { ring: Ring { document, private }, events, root_file, broken_pins, published, added, erased }
    }
}

/// The pins that a manifest ends, if it may end them and is otherwise a successor of the ring's.
fn broken_pins(previous: &Ring, next: &Document) -> Result<Vec<Pin>, RingError> {
    next.follows(&previous.document)?;
    let broken: Vec<Pin> = previous.pins().into_iter().filter(|pin| !next.is_trusted_under(pin)).collect();
    // A revoked root ends its own pin and those of the roots before it, and nothing else ends any.
    let keys = &next.contents.keys;
    let last_revoked = keys
        .iter()
        .rposition(|key| key.purpose == KeyPurpose::Root && key.revoked_at == Some(next.contents.issued_at));
    let may_break = |pin: &Pin| keys.iter().position(|key| key.key_id.0 == pin.key_id) <= last_revoked;
    match broken.iter().find(|pin| !may_break(pin)) {
        Some(pin) => Err(RingError::PinLost { pin: pin.clone() }),
        None => Ok(broken),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use statusledger_verify::Check;

    use super::*;

    fn at(second: u32) -> Timestamp {
        format!("2026-11-22T01:02:{second:02}.000004Z").parse().unwrap()
    }

    /// A ring with a retired root and a retired receipt key, and what `alter` makes of its next manifest.
    fn released(alter: impl FnOnce(&mut Contents)) -> Result<Change, RingError> {
        let ring = Ring::create("a.example", "0f0e0d0c-0b0a-4908-8706-050403020100", at(0))?.ring;
        let ring = ring.rotate(Rotation::Receipt, at(1))?.ring.rotate_root(at(2))?.ring;
        let (mut draft, root) = ring.draft(at(3))?;
        alter(&mut draft.next);
        draft.publish(Some(&ring), &root, None)
    }

    fn index(contents: &Contents, purpose: KeyPurpose, is_current: bool) -> usize {
        let mut keys = contents.keys.iter();
        keys.position(|key| key.purpose == purpose && key.not_after.is_none() == is_current).unwrap()
    }

    #[test]
    fn a_manifest_that_takes_something_back_is_not_released() {
        assert!(released(|_| {}).is_ok());
        for alter in [
            |next: &mut Contents| {
                next.keys.remove(index(next, KeyPurpose::Receipt, false));
            },
            |next: &mut Contents| next.serial -= 2,
            |next: &mut Contents| {
                let retired = index(next, KeyPurpose::Root, false);
                next.keys[retired].not_after = Some(at(3));
            },
        ] {
            let error = released(alter).unwrap_err();
            assert!(
                matches!(&error, RingError::Manifest(failure) if failure.check == Check::Rollback),
                "{error}"
            );
        }
    }

    #[test]
    fn a_manifest_that_a_pin_would_lose_is_not_released() {
        let error = released(|next| {
            let retired = index(next, KeyPurpose::Root, false);
            next.keys[retired].revoked_at = Some(at(2));
        });
        assert!(matches!(error, Err(RingError::PinLost { .. })));
    }

    #[test]
    fn a_manifest_that_a_customer_would_refuse_is_not_released() {
        for alter in [
            |next: &mut Contents| next.expires = next.expires.plus_seconds(1).unwrap(),
            |next: &mut Contents| {
                let root = index(next, KeyPurpose::Root, true);
                next.keys[root].endorsement.as_mut().unwrap().signature[0] ^= 1;
            },
            |next: &mut Contents| {
                let key = index(next, KeyPurpose::Checkpoint, true);
                next.keys[key].public_key = next.keys[key - 1].public_key;
            },
        ] {
            let error = released(alter).unwrap_err();
            assert!(
                matches!(&error, RingError::Manifest(failure) if failure.check == Check::Manifest),
                "{error}"
            );
        }
        let error = released(|next| {
            let current = index(next, KeyPurpose::Receipt, true);
            next.keys[current].revoked_at = Some(at(3));
        });
        assert!(matches!(error, Err(RingError::NotOneCurrent { purpose: KeyPurpose::Receipt })));
    }
}
