//! What several receipts and two checkpoints say together.

use statusledger_verify::check::Check;
use statusledger_verify::checkpoint::Checkpoint;
use statusledger_verify::consistency::{ConsistencyProof, Error, Evidence, verify};
use statusledger_verify::encoding::hex;
use statusledger_verify::numbering::{self, Numbered};

use crate::common::{DESTINATION, LEDGER, OTHER_LEDGER, World, consistency_path, tree_root};

fn numbered(number: u64, seq: u64) -> Numbered {
    Numbered { ledger: LEDGER.to_owned(), destination: DESTINATION.to_owned(), number, seq }
}

fn checks(receipts: &[Numbered], complete: bool) -> Vec<(usize, Check)> {
    numbering::check(receipts, complete).into_iter().map(|(index, failure)| (index, failure.check)).collect()
}

#[test]
fn a_missing_number_is_a_gap_only_where_all_are_asked_for() {
    let receipts = [numbered(7, 20), numbered(3, 4), numbered(4, 5), numbered(5, 9)];
    assert_eq!(checks(&receipts, false), []);
    assert_eq!(checks(&receipts, true), [(0, Check::NumberGap)]);
    assert_eq!(checks(&receipts[1..], true), []);
    let failure = &numbering::check(&receipts, true)[0].1;
    assert!(failure.detail.contains("from 6 to 6"), "{failure}");
    // What is before the lowest and after the highest is not known.
    assert_eq!(checks(&[numbered(1000, 1)], true), []);
    assert_eq!(checks(&[], true), []);
    assert_eq!(checks(&[numbered(1, 0), numbered(9_007_199_254_740_991, 1)], true), [(1, Check::NumberGap)]);
}

#[test]
fn a_number_of_two_entries_is_a_conflict_in_any_case() {
    for complete in [false, true] {
        let conflict = |receipts: &[Numbered], at: &[usize]| {
            let expected: Vec<_> = at.iter().map(|index| (*index, Check::NumberConflict)).collect();
            assert_eq!(checks(receipts, complete), expected, "{receipts:?}");
        };
        conflict(&[numbered(1, 5), numbered(1, 5)], &[]);
        conflict(&[numbered(1, 5), numbered(2, 6), numbered(1, 5), numbered(2, 6)], &[]);
        conflict(&[numbered(1, 5), numbered(1, 6)], &[0, 1]);
        conflict(&[numbered(1, 6), numbered(2, 7), numbered(1, 5)], &[0, 2]);
        conflict(&[numbered(1, 5), numbered(2, 5)], &[0, 1]);
        conflict(&[numbered(2, 5), numbered(1, 6), numbered(3, 9)], &[0, 1]);
    }
}

#[test]
fn ledgers_and_destinations_count_for_themselves() {
    let elsewhere = Numbered { destination: "another".to_owned(), ..numbered(1, 6) };
    let other = Numbered { ledger: OTHER_LEDGER.to_owned(), ..numbered(5, 1) };
    assert_eq!(checks(&[numbered(1, 5), elsewhere, other, numbered(2, 6)], true), []);
}

fn checkpoint(world: &World, size: usize) -> Checkpoint {
    let root = tree_root(&world.ledger.leaves()[..size]);
    Checkpoint { origin: "a/b".to_owned(), size: size as u64, root }
}

fn judge(older: &Checkpoint, newer: &Checkpoint, evidence: Evidence<'_>) -> Result<(), Option<Check>> {
    verify(older, newer, evidence).map_err(|error| match error {
        Error::Failed(failure) => Some(failure.check),
        Error::ProofNeeded { .. } => None,
    })
}

const INCONSISTENT: Result<(), Option<Check>> = Err(Some(Check::Inconsistent));

#[test]
fn two_checkpoints_are_of_one_history_or_not() {
    let world = World::default();
    let leaves = world.ledger.leaves();
    let (older, newer) = (checkpoint(&world, 7), checkpoint(&world, 20));
    let proof = ConsistencyProof { from: 7, to: 20, hashes: consistency_path(7, &leaves) };
    let forged = Checkpoint { root: [1; 32], ..older.clone() };
    let with = |proof| Evidence { proof: Some(proof), recomputed_root: None };
    let root = |root| Evidence { proof: None, recomputed_root: Some(root) };
    assert_eq!(judge(&older, &newer, with(&proof)), Ok(()));
    assert_eq!(judge(&older, &newer, root(older.root)), Ok(()));
    assert_eq!(judge(&newer, &older, root(older.root)), Ok(()));
    assert_eq!(judge(&older, &older, Evidence::default()), Ok(()));
    assert_eq!(judge(&older, &newer, Evidence::default()), Err(None));
    assert_eq!(judge(&forged, &older, Evidence::default()), INCONSISTENT);
    assert_eq!(judge(&forged, &newer, with(&proof)), INCONSISTENT);
    assert_eq!(judge(&forged, &newer, root(older.root)), INCONSISTENT);
    assert_eq!(judge(&older, &newer, root([1; 32])), INCONSISTENT);
    // The newer is smaller, and nothing shows it as a prefix.
    assert_eq!(judge(&newer, &older, Evidence::default()), INCONSISTENT);
    let elsewhere = Checkpoint { origin: "a/c".to_owned(), ..newer.clone() };
    assert_eq!(judge(&older, &elsewhere, with(&proof)), Err(Some(Check::Origin)));
    let mut spoilt = proof.clone();
    spoilt.hashes[0][0] ^= 1;
    assert_eq!(judge(&older, &newer, with(&spoilt)), INCONSISTENT);
    // A proof that is there has to be right, even where the entries would do.
    let both = Evidence { proof: Some(&spoilt), recomputed_root: Some(older.root) };
    assert_eq!(judge(&older, &newer, both), INCONSISTENT);
    let other_sizes = ConsistencyProof { from: 6, to: 20, hashes: consistency_path(6, &leaves) };
    assert_eq!(judge(&older, &newer, with(&other_sizes)), Err(Some(Check::Proof)));
    // Two equal trees need none, and one of other trees says nothing about them.
    assert_eq!(judge(&older, &older, with(&other_sizes)), Ok(()));
    let empty = ConsistencyProof { from: 0, to: 20, hashes: Vec::new() };
    assert_eq!(judge(&checkpoint(&world, 0), &newer, with(&empty)), Ok(()));
}

#[test]
fn a_consistency_proof_has_one_form() {
    let hash = hex(&[7; 32]);
    let right = format!("{{\"from\":1,\"to\":2,\"hashes\":[\"{hash}\"]}}");
    let proof = ConsistencyProof::parse(right.as_bytes()).unwrap();
    assert_eq!(proof, ConsistencyProof { from: 1, to: 2, hashes: vec![[7; 32]] });
    for text in [
        String::new(),
        "[]".to_owned(),
        right.replace("\"from\":1", "\"from\":-1"),
        right.replace("\"from\":1", "\"from\":1.0"),
        right.replace("\"from\":1", "\"from\":1,\"from\":1"),
        right.replace("\"from\":1", "\"from\":1,\"v\":1"),
        right.replace("\"from\":1,", ""),
        right.replace(&hash, &hash.to_uppercase().replace('7', "A")),
        right.replace(&hash, &hash[1..]),
        right.replace(&format!("\"{hash}\""), "null"),
        format!("{right}{}", " ".repeat(1 << 20)),
    ] {
        assert_eq!(ConsistencyProof::parse(text.as_bytes()).unwrap_err().check, Check::Proof, "{text}");
    }
}
