//! Random sequences of operations, against a model that knows only the rules of the format.

#![allow(clippy::unwrap_used)]

mod support;

use proptest::prelude::*;
use statusledger_keys::key_encryption::KeyEncryptionKey;
use statusledger_keys::key_id::KeyId;
use statusledger_keys::ring::{Change, KeyEvent, Ring, RingError, RootFile, Rotation};
use statusledger_keys::signing::{KeyPurpose, OwnCheck};
use statusledger_verify::json::{Object, Value};
use statusledger_verify::manifest::{self, KeyManifest, Pin};
use statusledger_verify::signature::{Kind, PublicKey, message};
use statusledger_verify::time::Timestamp;

use support::{Database, INSTANCE, LEDGER, START, at, days, verifies};

#[derive(Clone, Debug)]
enum Step {
    Rotate(Rotation),
    RotateRoot,
    Republish,
    ExportRoot,
    /// Of the key at that place in the manifest, counted around.
    Revoke(usize),
    Destroy(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => prop_oneof![Just(Rotation::Receipt), Just(Rotation::Checkpoint), Just(Rotation::Both)]
            .prop_map(Step::Rotate),
        3 => Just(Step::RotateRoot),
        1 => Just(Step::Republish),
        1 => Just(Step::ExportRoot),
        3 => (0usize..64).prop_map(Step::Revoke),
        3 => (0usize..64).prop_map(Step::Destroy),
    ]
}

/// The keys as the ledger's entries tell them, and nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    key_id: String,
    purpose: String,
    not_before: Option<String>,
    not_after: Option<String>,
    verify_until: Option<String>,
    revoked_at: Option<String>,
    private: bool,
}

fn member(data: &Object, name: &str) -> Option<String> {
    match data.get(name) {
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Null) => None,
        other => panic!("{name}: {other:?}"),
    }
}

fn tell(told: &mut Vec<Told>, event: &KeyEvent) {
    let data = &event.data;
    let key_id = member(data, "key_id").unwrap();
    let known = told.iter_mut().find(|key| key.key_id == key_id);
    match event.event_type.as_str() {
        "key.added" => {
            assert!(known.is_none());
            told.push(Told {
                key_id,
                purpose: member(data, "purpose").unwrap(),
                not_before: member(data, "not_before"),
                not_after: None,
                verify_until: None,
                revoked_at: None,
                private: true,
            });
        }
        "key.retired" => {
            let key = known.unwrap();
            (key.not_after, key.verify_until) = (member(data, "not_after"), member(data, "verify_until"));
        }
        "key.revoked" => known.unwrap().revoked_at = member(data, "revoked_at"),
        "key.destroyed" | "key.root_exported" => known.unwrap().private = false,
        "key.manifest_published" => assert_eq!(known.unwrap().purpose, "root"),
        other => panic!("{other}"),
    }
}

struct World {
    kek: KeyEncryptionKey,
    database: Database,
    ring: Ring,
    now: Timestamp,
    root_file: Option<RootFile>,
    /// Every pin ever handed out, oldest first, and whether its root was revoked.
    pins: Vec<(Pin, bool)>,
    told: Vec<Told>,
}

impl World {
    fn new() -> Self {
        let change = Ring::create(INSTANCE, LEDGER, at(START)).unwrap();
        let mut world = Self {
            kek: KeyEncryptionKey::generate().unwrap(),
            database: Database::default(),
            ring: change.ring.clone(),
            now: at(START),
            root_file: None,
            pins: vec![(change.ring.pin(), false)],
            told: Vec::new(),
        };
        world.accept(change, None);
        world
    }

    /// The ring for an operation that signs: with the root lent where it is offline, which must be refused
    /// without.
    fn signing_ring(&self) -> Ring {
        match &self.root_file {
            None => self.ring.clone(),
            Some(file) => {
                assert!(matches!(self.ring.republish(self.now), Err(RingError::RootOffline { .. })));
                self.ring.with_root(file).unwrap()
            }
        }
    }

    fn take(&mut self, step: &Step) {
        let key_at = |place: &usize| self.ring.keys()[place % self.ring.keys().len()].clone();
        let before = self.ring.clone();
        let change = match step {
            Step::Rotate(rotation) => self.signing_ring().rotate(*rotation, self.now).unwrap(),
            Step::Republish => self.signing_ring().republish(self.now).unwrap(),
            Step::RotateRoot => {
                let change = self.signing_ring().rotate_root(self.now).unwrap();
                self.pins.push((change.ring.pin(), false));
                change
            }
            Step::ExportRoot => match self.ring.export_root() {
                Ok(change) => change,
                Err(error) => {
                    assert!(matches!(error, RingError::RootOffline { .. }) && self.root_file.is_some());
                    return;
                }
            },
            Step::Revoke(place) => {
                let key = key_at(place);
                match self.signing_ring().revoke(key.key_id, self.now) {
                    Ok(change) => {
                        for (pin, revoked) in &mut self.pins {
                            *revoked |= pin.key_id == key.key_id.0;
                        }
                        change
                    }
                    Err(RingError::Revoked { .. }) => {
                        assert!(key.revoked_at.is_some());
                        return;
                    }
                    Err(RingError::Current { .. }) => {
                        assert!(key.purpose == KeyPurpose::Root && key.not_after.is_none());
                        return;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            Step::Destroy(place) => {
                let key = key_at(place);
                match self.ring.destroy(key.key_id) {
                    Ok(change) => {
                        assert!(!change.ring.holds_private(key.key_id));
                        change
                    }
                    Err(RingError::Current { .. }) => {
                        assert!(key.not_after.is_none());
                        return;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        };
        self.accept(change, Some(&before));
    }

    fn accept(&mut self, mut change: Change, before: Option<&Ring>) {
        self.database.write(&change, &self.kek);
        for event in &change.events {
            tell(&mut self.told, event);
        }
        self.root_file = change.root_file.take().or(self.root_file.take());
        self.ring = self.database.read(&self.kek).unwrap();
        assert_eq!(self.ring.manifest(), change.ring.manifest());
        for key in self.ring.keys() {
            assert_eq!(self.ring.holds_private(key.key_id), change.ring.holds_private(key.key_id));
        }
        assert_eq!(self.ring.root_is_offline(), self.root_file.is_some());

        let new = KeyManifest::parse(self.ring.manifest()).unwrap();
        if let Some(before) = before {
            let old = KeyManifest::parse(before.manifest()).unwrap();
            manifest::compare(&old, &new).unwrap();
            if self.ring.manifest() != before.manifest() {
                assert_eq!(self.ring.serial(), before.serial() + 1);
                manifest::compare(&new, &old).unwrap_err();
            }
            let broken: Vec<Pin> =
                before.pins().into_iter().filter(|pin| !verifies(&self.ring, pin)).collect();
            assert_eq!(change.broken_pins, broken);
        }
        self.check_pins();
        self.check_keys();
    }

    /// A pin holds exactly while neither its root nor any after it is revoked.
    fn check_pins(&self) {
        let mut held = Vec::new();
        for (place, (pin, _)) in self.pins.iter().enumerate() {
            let holds = self.pins[place..].iter().all(|(_, revoked)| !revoked);
            assert_eq!(verifies(&self.ring, pin), holds, "pin {place} of {:?}", self.pins);
            held.extend(holds.then(|| pin.clone()));
        }
        assert_eq!(self.ring.pins(), held);
        assert_eq!(held.last(), Some(&self.ring.pin()));
        let elsewhere = Pin { instance: "other.example.com".into(), ..self.ring.pin() };
        assert!(!verifies(&self.ring, &elsewhere));
    }

    fn check_keys(&self) {
        let told: Vec<Told> = self
            .ring
            .keys()
            .iter()
            .map(|key| Told {
                key_id: key.key_id.to_string(),
                purpose: key.purpose.to_string(),
                not_before: Some(key.not_before.to_string()),
                not_after: key.not_after.map(|time| time.to_string()),
                verify_until: key.verify_until.map(|time| time.to_string()),
                revoked_at: key.revoked_at.map(|time| time.to_string()),
                private: self.ring.holds_private(key.key_id),
            })
            .collect();
        assert_eq!(told, self.told, "the ledger's entries tell the whole ring");

        for purpose in [KeyPurpose::Root, KeyPurpose::Receipt, KeyPurpose::Checkpoint] {
            let of_purpose: Vec<_> = self.ring.keys().iter().filter(|key| key.purpose == purpose).collect();
            let current: Vec<_> = of_purpose.iter().filter(|key| key.not_after.is_none()).collect();
            assert_eq!(current.len(), 1, "one current {purpose} key");
            assert_eq!(current[0].key_id, self.ring.current(purpose).key_id);
            assert_eq!(current[0].revoked_at, None);
            for key in of_purpose {
                let until = key.not_after.filter(|_| purpose != KeyPurpose::Root).map(|end| days(end, 90));
                assert_eq!(key.verify_until, until);
                assert!(key.revoked_at.is_none() || !self.ring.holds_private(key.key_id));
            }
        }
        for key in self.ring.keys() {
            self.check_signature(key.key_id);
        }
        assert_eq!(self.ring.expires(), days(self.ring.issued_at(), 100));
    }

    /// What a held key signs verifies under the public key that the manifest gives out.
    fn check_signature(&self, key_id: KeyId) {
        let key = self.ring.key(key_id).unwrap();
        let public = PublicKey::from_bytes(&key.public_key).unwrap();
        if key.purpose == KeyPurpose::Receipt {
            match self.ring.receipt_key_by_id(key_id) {
                Ok(signing) => {
                    let signature = signing.sign_receipt(b"{}", OwnCheck::ByCaller).unwrap();
                    public.verify(&message(Kind::Receipt, b"{}"), &signature).unwrap();
                }
                Err(RingError::Revoked { .. }) => assert!(key.revoked_at.is_some()),
                Err(RingError::Destroyed { .. }) => assert!(key.not_after.is_some()),
                Err(error) => panic!("{error}"),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_sequence_of_operations_keeps_the_rules(
        steps in prop::collection::vec((step(), prop_oneof![Just(0i64), 1i64..10_000_000]), 1..24),
    ) {
        let mut world = World::new();
        for (step, wait_seconds) in &steps {
            world.now = world.now.plus_seconds(*wait_seconds).unwrap();
            world.take(step);
        }
    }
}
