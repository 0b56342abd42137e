//! An inclusion proof that parses is written as it was read, and one of consistency is read or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use statusledger_verify::consistency::ConsistencyProof;
use statusledger_verify::proof::Proof;
use statusledger_verify::tree;

fuzz_target!(|input: &[u8]| {
    if let Ok(proof) = ConsistencyProof::parse(input) {
        let _ = tree::verify_consistency(proof.from, proof.to, &[0; 32], &[1; 32], &proof.hashes);
    }
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(proof) = Proof::parse(text) else { return };
    assert_eq!(proof.to_string(), text);
    for size in [0, 1, proof.index, proof.index.saturating_add(1), u64::MAX] {
        let _ = tree::verify_inclusion(proof.index, size, &[0; 32], &proof.hashes, &[1; 32]);
    }
});
