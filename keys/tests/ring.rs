//! The ring's operations, each checked as a customer would check it: with the verifier, under the pins that
//! were handed out.

#![allow(clippy::unwrap_used)]

mod support;

use statusledger_keys::key_encryption::KeyEncryptionKey;
use statusledger_keys::key_id::KeyId;
use statusledger_keys::ring::{DueWork, KeyEventType, Ring, RingError, RootFile, Rotation};
use statusledger_keys::sealing::SealError;
use statusledger_keys::signing::{KeyPurpose, OwnCheck, SignError};
use statusledger_verify::checkpoint::{self, Checkpoint, SignedCheckpoint};
use statusledger_verify::manifest::Revoked;
use statusledger_verify::signature::{Kind, PublicKey, message};

use support::{Database, INSTANCE, LEDGER, START, at, days, event_types, ring, verifies};

#[test]
fn a_new_ring_has_one_key_of_each_purpose_and_a_manifest_of_100_days() {
    let change = Ring::create(INSTANCE, LEDGER, at(START)).unwrap();
    let ring = &change.ring;
    assert_eq!((ring.instance(), ring.ledger(), ring.serial()), (INSTANCE, LEDGER, 1));
    assert_eq!(ring.issued_at(), at(START));
    assert_eq!(ring.expires(), at("2027-03-02T01:02:03.000004Z"));
    let purposes: Vec<_> = ring.keys().iter().map(|key| key.purpose).collect();
    assert_eq!(purposes, [KeyPurpose::Root, KeyPurpose::Receipt, KeyPurpose::Checkpoint]);
    assert!(ring.keys().iter().all(|key| ring.holds_private(key.key_id)));
    assert_eq!(
        event_types(&change),
        ["key.added", "key.added", "key.added", "key.manifest_published"].map(str::to_owned)
    );
    assert_eq!(ring.pin().to_string(), format!("{}@{INSTANCE}", ring.keys()[0].key_id));
    assert_eq!(ring.pins(), [ring.pin()]);
    assert!(verifies(ring, &ring.pin()));
}

#[test]
fn names_that_the_format_does_not_allow_make_no_ring() {
    for (instance, ledger) in [
        ("", LEDGER),
        ("Status.example.com", LEDGER),
        ("status example.com", LEDGER),
        (&"a".repeat(254), LEDGER),
        (INSTANCE, ""),
        (INSTANCE, "0F0E0D0C-0B0A-4908-8706-050403020100"),
        (INSTANCE, "not-a-uuid"),
    ] {
        let error = Ring::create(instance, ledger, at(START)).unwrap_err();
        assert!(matches!(error, RingError::Manifest(_)), "{instance:?} {ledger:?}: {error}");
    }
}

#[test]
fn a_rotation_retires_the_old_key_now_and_lets_it_count_for_exactly_90_days() {
    let first = ring();
    let now = at("2027-02-21T12:00:00.000000Z");
    let change = first.rotate(Rotation::Both, now).unwrap();
    let second = &change.ring;
    assert_eq!(second.serial(), 2);
    for purpose in [KeyPurpose::Receipt, KeyPurpose::Checkpoint] {
        let old = second.key(first.current(purpose).key_id).unwrap();
        assert_eq!(old.not_after, Some(now));
        assert_eq!(old.verify_until, Some(at("2027-05-22T12:00:00.000000Z")));
        assert_eq!(second.current(purpose).not_before, now);
        assert_ne!(second.current(purpose).key_id, old.key_id);
    }
    assert!(verifies(second, &first.pin()));
    assert_eq!(second.pin(), first.pin());
    assert_eq!(second.expires(), days(now, 100));
    // What the old keys still owe can be signed until they are destroyed.
    let old = first.receipt_key().key_id();
    assert_eq!(second.receipt_key_by_id(old).unwrap().key_id(), old);
    let destroyed = second.destroy(old).unwrap();
    assert_eq!(event_types(&destroyed), ["key.destroyed"]);
    assert!(matches!(destroyed.ring.receipt_key_by_id(old), Err(RingError::Destroyed { .. })));
    assert_eq!(destroyed.ring.manifest(), second.manifest());
    assert_eq!(destroyed.ring.destroy(old).unwrap().events, []);
}

#[test]
fn a_rotation_of_one_key_leaves_the_other() {
    let first = ring();
    let second = first.rotate(Rotation::Receipt, days(at(START), 1)).unwrap().ring;
    assert_ne!(second.receipt_key().key_id(), first.receipt_key().key_id());
    assert_eq!(second.checkpoint_key().key_id(), first.checkpoint_key().key_id());
    let third = second.rotate(Rotation::Checkpoint, days(at(START), 1)).unwrap().ring;
    assert_eq!(third.receipt_key().key_id(), second.receipt_key().key_id());
    assert_ne!(third.checkpoint_key().key_id(), second.checkpoint_key().key_id());
}

#[test]
fn a_clock_that_went_back_signs_nothing() {
    let ring = ring().republish(days(at(START), 2)).unwrap().ring;
    let behind = days(at(START), 1);
    for result in [
        ring.rotate(Rotation::Both, behind),
        ring.rotate_root(behind),
        ring.republish(behind),
        ring.revoke(ring.receipt_key().key_id(), behind),
    ] {
        assert!(matches!(result, Err(RingError::ClockBehind { .. })));
    }
    let end = at("9999-12-01T00:00:00.000000Z");
    assert!(matches!(ring.rotate(Rotation::Both, end), Err(RingError::Time { .. })));
    assert!(matches!(ring.republish(end), Err(RingError::Time { .. })));
}

#[test]
fn a_new_root_is_endorsed_by_the_old_one_and_every_pin_holds() {
    let first = ring();
    let second = first.rotate_root(days(at(START), 10)).unwrap();
    assert_eq!(event_types(&second), ["key.retired", "key.added", "key.destroyed", "key.manifest_published"]);
    let third = second.ring.rotate_root(days(at(START), 20)).unwrap().ring;
    let pins = [first.pin(), second.ring.pin(), third.pin()];
    assert_eq!(third.pins(), pins);
    assert!(pins.iter().all(|pin| verifies(&third, pin)));
    let old = third.key(KeyId(first.pin().key_id)).unwrap();
    assert_eq!((old.not_after, old.verify_until), (Some(days(at(START), 10)), None));
    assert!(!third.holds_private(old.key_id), "a retired root could only endorse forgeries");
}

#[test]
fn a_current_root_is_not_revoked_and_a_retired_one_takes_the_pins_up_to_itself() {
    let first = ring();
    let current = KeyId(first.pin().key_id);
    assert!(matches!(
        first.revoke(current, at(START)),
        Err(RingError::Current { purpose: KeyPurpose::Root, .. })
    ));
    let second = first.rotate_root(days(at(START), 1)).unwrap().ring;
    let third = second.rotate_root(days(at(START), 2)).unwrap().ring;
    let fourth = third.rotate_root(days(at(START), 3)).unwrap().ring;
    let change = fourth.revoke(KeyId(second.pin().key_id), days(at(START), 4)).unwrap();
    assert_eq!(change.broken_pins, [first.pin(), second.pin()]);
    assert_eq!(change.ring.pins(), [third.pin(), fourth.pin()]);
    assert!(!verifies(&change.ring, &first.pin()));
    assert!(!verifies(&change.ring, &second.pin()));
    assert!(verifies(&change.ring, &third.pin()));
    // The first root again: nothing is left to break.
    let again = change.ring.revoke(KeyId(first.pin().key_id), days(at(START), 5)).unwrap();
    assert_eq!(again.broken_pins, []);
    assert_eq!(again.ring.pins(), [third.pin(), fourth.pin()]);
    let next = again.ring.rotate(Rotation::Both, days(at(START), 6)).unwrap();
    assert_eq!(next.broken_pins, []);
}

#[test]
fn a_revoked_current_key_is_replaced_in_the_same_manifest_and_signs_no_more() {
    let first = ring();
    let now = days(at(START), 5);
    let key_id = first.receipt_key().key_id();
    let change = first.revoke(key_id, now).unwrap();
    assert_eq!(
        event_types(&change),
        ["key.retired", "key.revoked", "key.destroyed", "key.added", "key.manifest_published"]
    );
    let ring = &change.ring;
    let revoked = ring.key(key_id).unwrap();
    assert_eq!((revoked.not_after, revoked.revoked_at), (Some(now), Some(now)));
    assert_eq!(revoked.verify_until, Some(days(now, 90)));
    assert!(matches!(ring.receipt_key_by_id(key_id), Err(RingError::Revoked { .. })));
    assert!(!ring.holds_private(key_id));
    assert_eq!(ring.receipt_key().key_id(), ring.current(KeyPurpose::Receipt).key_id);
    assert_eq!(change.broken_pins, []);
    assert!(matches!(ring.revoke(key_id, now), Err(RingError::Revoked { .. })));
}

#[test]
fn revoking_a_retired_key_keeps_its_window() {
    let first = ring();
    let key_id = first.checkpoint_key().key_id();
    let second = first.rotate(Rotation::Checkpoint, days(at(START), 5)).unwrap().ring;
    let change = second.revoke(key_id, days(at(START), 7)).unwrap();
    assert_eq!(event_types(&change), ["key.revoked", "key.destroyed", "key.manifest_published"]);
    let key = change.ring.key(key_id).unwrap();
    assert_eq!(key.not_after, Some(days(at(START), 5)));
    assert_eq!(key.verify_until, Some(days(at(START), 95)));
    assert_eq!(key.revoked_at, Some(days(at(START), 7)));
    assert_eq!(change.ring.checkpoint_key().key_id(), second.checkpoint_key().key_id());
    assert!(matches!(change.ring.checkpoint_key_by_id(key_id), Err(RingError::Revoked { .. })));
}

#[test]
fn a_current_key_is_not_destroyed() {
    let ring = ring();
    for key in ring.keys() {
        assert!(matches!(ring.destroy(key.key_id), Err(RingError::Current { .. })));
    }
}

#[test]
fn lookups_say_what_is_wrong_with_an_id() {
    let ring = ring();
    let (receipt, checkpoint) = (ring.receipt_key().key_id(), ring.checkpoint_key().key_id());
    assert!(matches!(ring.receipt_key_by_id(KeyId([0; 32])), Err(RingError::UnknownKey { .. })));
    assert!(matches!(
        ring.receipt_key_by_id(checkpoint),
        Err(RingError::OtherPurpose { purpose: KeyPurpose::Checkpoint, .. })
    ));
    assert!(matches!(ring.checkpoint_key_by_id(receipt), Err(RingError::OtherPurpose { .. })));
    assert!(matches!(
        ring.receipt_key_by_id(KeyId(ring.pin().key_id)),
        Err(RingError::OtherPurpose { purpose: KeyPurpose::Root, .. })
    ));
    assert!(matches!(ring.destroy(KeyId([0; 32])), Err(RingError::UnknownKey { .. })));
    assert!(matches!(ring.revoke(KeyId([0; 32]), at(START)), Err(RingError::UnknownKey { .. })));
}

#[test]
fn an_offline_root_is_needed_for_every_manifest_and_lent_for_one_operation() {
    let kek = KeyEncryptionKey::generate().unwrap();
    let mut database = Database::default();
    let created = Ring::create(INSTANCE, LEDGER, at(START)).unwrap();
    database.write(&created, &kek);
    let exported = created.ring.export_root().unwrap();
    assert_eq!(event_types(&exported), ["key.root_exported"]);
    database.write(&exported, &kek);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("root.key");
    exported.root_file.as_ref().unwrap().write(&path).unwrap();

    let ring = database.read(&kek).unwrap();
    assert!(ring.root_is_offline());
    let now = days(at(START), 91);
    for result in [
        ring.rotate(Rotation::Both, now),
        ring.rotate_root(now),
        ring.republish(now),
        ring.revoke(ring.receipt_key().key_id(), now),
    ] {
        assert!(matches!(result, Err(RingError::RootOffline { .. })));
    }
    assert!(matches!(ring.export_root(), Err(RingError::RootOffline { .. })));

    let file = RootFile::read(&path).unwrap();
    let rotated = ring.with_root(&file).unwrap().rotate(Rotation::Both, now).unwrap();
    assert!(rotated.root_file.is_none());
    assert!(rotated.ring.root_is_offline());
    assert!(matches!(rotated.ring.republish(now), Err(RingError::RootOffline { .. })));
    database.write(&rotated, &kek);
    let ring = database.read(&kek).unwrap();
    assert!(ring.root_is_offline() && verifies(&ring, &created.ring.pin()));
    // All of the ring stored again, the root lent: it is still not among the rows.
    let stored = ring.with_root(&file).unwrap().to_stored(&kek).unwrap();
    assert!(Ring::from_stored(&stored, &kek).unwrap().root_is_offline());

    let replaced = ring.with_root(&file).unwrap().rotate_root(now).unwrap();
    let new_file = replaced.root_file.as_ref().unwrap();
    assert_eq!(new_file.key_id().0, replaced.ring.pin().key_id);
    database.write(&replaced, &kek);
    let ring = database.read(&kek).unwrap();
    assert!(ring.root_is_offline());
    assert!(matches!(ring.with_root(&file), Err(RingError::OtherRoot { .. })));
    let last = ring.with_root(new_file).unwrap().republish(now).unwrap().ring;
    assert!(verifies(&last, &created.ring.pin()) && verifies(&last, &last.pin()));
}

#[test]
fn the_root_of_another_instance_is_refused() {
    let exported = ring().export_root().unwrap().ring;
    let other = Ring::create("other.example.com", LEDGER, at(START)).unwrap().ring;
    let file = other.export_root().unwrap().root_file.unwrap();
    assert!(matches!(exported.with_root(&file), Err(RingError::OtherInstance { .. })));
}

#[test]
fn stored_keys_cannot_stand_in_for_one_another() {
    let kek = KeyEncryptionKey::generate().unwrap();
    let ring = ring().rotate(Rotation::Both, days(at(START), 1)).unwrap().ring;
    let stored = ring.to_stored(&kek).unwrap();
    let row = |key_id| stored.keys.iter().position(|row| row.key_id == key_id).unwrap();
    let receipt = row(ring.receipt_key().key_id());
    let checkpoint = row(ring.checkpoint_key().key_id());
    let retired = stored
        .keys
        .iter()
        .position(|row| row.purpose == KeyPurpose::Receipt && row.key_id != ring.receipt_key().key_id())
        .unwrap();

    for other in [checkpoint, retired] {
        let mut swapped = stored.clone();
        swapped.keys[receipt].ciphertext = stored.keys[other].ciphertext.clone();
        let error = Ring::from_stored(&swapped, &kek).unwrap_err();
        assert!(matches!(error, RingError::Seal(SealError::NotAuthentic)), "{error}");
    }

    let mut relabelled = stored.clone();
    relabelled.keys[receipt].purpose = KeyPurpose::Checkpoint;
    assert!(matches!(Ring::from_stored(&relabelled, &kek), Err(RingError::Stray { .. })));

    let mut doubled = stored.clone();
    doubled.keys.push(stored.keys[receipt].clone());
    assert!(matches!(Ring::from_stored(&doubled, &kek), Err(RingError::Stray { .. })));

    let mut missing = stored.clone();
    missing.keys[checkpoint].ciphertext = None;
    assert!(matches!(
        Ring::from_stored(&missing, &kek),
        Err(RingError::Missing { purpose: KeyPurpose::Checkpoint, .. })
    ));

    let mut fewer = stored.clone();
    fewer.keys.remove(retired);
    let read = Ring::from_stored(&fewer, &kek).unwrap();
    assert!(matches!(read.receipt_key_by_id(stored.keys[retired].key_id), Err(RingError::Destroyed { .. })));

    let mut renumbered = stored.clone();
    renumbered.manifest.serial += 1;
    assert!(matches!(Ring::from_stored(&renumbered, &kek), Err(RingError::Serial { serial: 3, found: 2 })));

    // The keys of another ring of the same instance name.
    let other = support::ring().to_stored(&kek).unwrap();
    let mut foreign = stored.clone();
    foreign.keys.extend(other.keys);
    assert!(matches!(Ring::from_stored(&foreign, &kek), Err(RingError::Stray { .. })));

    let other_kek = KeyEncryptionKey::generate().unwrap();
    let error = Ring::from_stored(&stored, &other_kek).unwrap_err();
    assert!(matches!(error, RingError::Seal(SealError::WrongKey { sealed_under, given })
            if sealed_under == kek.id() && given == other_kek.id()));
}

#[test]
fn a_manifest_changed_in_the_database_is_refused_at_every_byte() {
    let kek = KeyEncryptionKey::generate().unwrap();
    let stored = ring().to_stored(&kek).unwrap();
    for position in 0..stored.manifest.document.len() {
        let mut altered = stored.clone();
        altered.manifest.document[position] ^= 1;
        assert!(Ring::from_stored(&altered, &kek).is_err(), "byte {position}");
    }
}

#[test]
fn a_new_key_encryption_key_takes_over_the_whole_ring() {
    let (old, new) = (KeyEncryptionKey::generate().unwrap(), KeyEncryptionKey::generate().unwrap());
    let stored = ring().to_stored(&old).unwrap();
    let rewrapped = Ring::from_stored(&stored, &old).unwrap().to_stored(&new).unwrap();
    let read = Ring::from_stored(&rewrapped, &new).unwrap();
    assert_eq!(read.manifest(), stored.manifest.document);
    assert!(read.keys().iter().all(|key| read.holds_private(key.key_id)));
    assert!(Ring::from_stored(&rewrapped, &old).is_err());
}

#[test]
fn work_is_announced_14_days_ahead_and_a_rotation_on_time_covers_the_manifest() {
    let ring = ring();
    let due = |day| {
        let due = ring.due(days(at(START), day));
        due.into_iter().map(|due| (due.work, due.now)).collect::<Vec<_>>()
    };
    let (receipt, checkpoint) =
        (DueWork::Rotate(KeyPurpose::Receipt), DueWork::Rotate(KeyPurpose::Checkpoint));
    assert_eq!(due(76), []);
    assert_eq!(due(77), [(receipt, false), (checkpoint, false)]);
    assert_eq!(due(90), [(receipt, false), (checkpoint, false), (DueWork::Republish, false)]);
    assert_eq!(due(91), [(receipt, true), (checkpoint, true), (DueWork::Republish, false)]);
    assert_eq!(due(93), [(receipt, true), (checkpoint, true), (DueWork::Republish, true)]);
    assert!(days(at(START), 93) < ring.expires());

    let rotated = ring.rotate(Rotation::Both, days(at(START), 91)).unwrap().ring;
    assert_eq!(rotated.due(days(at(START), 92)), []);
    let republished = ring.republish(days(at(START), 80)).unwrap().ring;
    assert_eq!(republished.due(days(at(START), 91)).len(), 2, "republishing makes no key younger");
    assert!(ring.due(days(at(START), 91)).iter().all(|due| !due.root_is_offline));
    let offline = ring.export_root().unwrap().ring;
    assert!(offline.due(days(at(START), 77)).iter().all(|due| due.root_is_offline));
}

#[test]
fn every_signature_verifies_under_its_kind_and_no_other() {
    let ring = ring();
    let verifies = |purpose, kind, signature: &[u8; 64]| {
        let public = PublicKey::from_bytes(&ring.current(purpose).public_key).unwrap();
        public.verify(&message(kind, b"{}"), signature).is_ok()
    };
    for check in [OwnCheck::Here, OwnCheck::ByCaller] {
        let receipt = ring.receipt_key().sign_receipt(b"{}", check).unwrap();
        assert!(verifies(KeyPurpose::Receipt, Kind::Receipt, &receipt));
        assert!(!verifies(KeyPurpose::Receipt, Kind::Export, &receipt));
        assert!(!verifies(KeyPurpose::Checkpoint, Kind::Receipt, &receipt));
        assert_eq!(ring.receipt_key().sign_receipt(b"{}", check).unwrap(), receipt, "deterministic");
    }
    let export = ring.receipt_key().sign_export(b"{}").unwrap();
    assert!(verifies(KeyPurpose::Receipt, Kind::Export, &export));
    assert!(!verifies(KeyPurpose::Receipt, Kind::Receipt, &export));
}

#[test]
fn a_signed_checkpoint_is_trusted_under_the_pin() {
    let ring = ring();
    let origin = checkpoint::origin(INSTANCE, LEDGER);
    let checkpoint = Checkpoint { origin, size: 7, root: [9; 32] };
    let note = ring.checkpoint_key().sign_checkpoint(&checkpoint).unwrap();
    assert!(note.starts_with(&format!("{}\n\u{2014} {INSTANCE}/{LEDGER} ", checkpoint.text())), "{note}");
    let signed = SignedCheckpoint::parse(note.as_bytes()).unwrap();
    assert_eq!(*signed.checkpoint(), checkpoint);
    signed.verify(ring.trusted_keys(), None, Revoked::Refused).unwrap();
    signed.verify(support::ring().trusted_keys(), None, Revoked::Refused).unwrap_err();

    for origin in ["", "a b", "a+b", "a\nb", "a\u{a0}b"] {
        let checkpoint = Checkpoint { origin: origin.into(), size: 0, root: [0; 32] };
        let error = ring.checkpoint_key().sign_checkpoint(&checkpoint).unwrap_err();
        assert!(matches!(error, SignError::Origin { .. }), "{origin:?}");
    }
}

#[test]
fn a_published_manifest_is_named_by_its_hash_in_the_ledger() {
    use sha2::{Digest, Sha256};
    let change = ring().rotate(Rotation::Receipt, days(at(START), 1)).unwrap();
    let event = change.events.last().unwrap();
    assert_eq!(event.event_type, KeyEventType::ManifestPublished);
    let hash = KeyId(Sha256::digest(change.ring.manifest()).into()).to_string();
    assert_eq!(event.data.get("sha256").and_then(|value| value.as_str()), Some(hash.as_str()));
    assert_eq!(event.data.get("serial").and_then(|value| value.as_int()), Some(2));
}
