//! Ed25519 against the Wycheproof vectors, and where these do not reach.

use serde_json::Value as Json;
use statusledger_verify::signature::{Error, Kind, PublicKey, message};

use crate::common::{sha256, shared};

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn every_wycheproof_vector_has_its_result() {
    let Some(path) = shared("vectors/ed25519-wycheproof.json") else { return };
    let vectors: Json = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let mut seen = 0;
    for group in vectors["testGroups"].as_array().unwrap() {
        let key: [u8; 32] = unhex(group["publicKey"]["pk"].as_str().unwrap()).try_into().unwrap();
        for test in group["tests"].as_array().unwrap() {
            let signature: Result<[u8; 64], _> = unhex(test["sig"].as_str().unwrap()).try_into();
            let message = unhex(test["msg"].as_str().unwrap());
            let verified = signature.is_ok_and(|signature| {
                PublicKey::from_bytes(&key).is_ok_and(|key| key.verify(&message, &signature).is_ok())
            });
            assert_eq!(verified, test["result"] == "valid", "{test}");
            seen += 1;
        }
    }
    assert_eq!(seen, vectors["numberOfTests"].as_u64().unwrap());
}

/// The eight points of small order, in every encoding that a lenient reader takes, from the order of curve25519's
/// torsion subgroup (RFC 7748 and RFC 8032, section 5.1).
const SMALL_ORDER: [&str; 14] = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
];

#[test]
fn keys_of_small_order_or_beyond_the_field_are_refused() {
    for text in SMALL_ORDER {
        let bytes: [u8; 32] = unhex(text).try_into().unwrap();
        assert!(PublicKey::from_bytes(&bytes).is_err(), "{text}");
    }
    // Every y from p to 2^255-1, with either sign.
    for low in 0xED..=0xFF {
        for high in [0x7F, 0xFF] {
            let mut bytes = [0xFF; 32];
            (bytes[0], bytes[31]) = (low, high);
            assert_eq!(PublicKey::from_bytes(&bytes), Err(Error::NonCanonicalKey), "{low:x} {high:x}");
        }
    }
}

#[test]
fn signatures_by_small_order_or_unreduced_parts_are_refused() {
    use ed25519_dalek::{Signer, SigningKey};
    let signing = SigningKey::from_bytes(&sha256(&[b"key"]));
    let key = PublicKey::from_bytes(signing.verifying_key().as_bytes()).unwrap();
    let signature = signing.sign(b"message").to_bytes();
    key.verify(b"message", &signature).unwrap();
    assert_eq!(key.verify(b"messagf", &signature), Err(Error::Mismatch));
    for text in SMALL_ORDER {
        let mut changed = signature;
        changed[..32].copy_from_slice(&unhex(text));
        assert!(key.verify(b"message", &changed).is_err(), "{text}");
        // S = 0 with R = -[k]A would need A small; with R small and S = 0 only a weak key verifies.
        changed[32..].fill(0);
        assert!(key.verify(b"message", &changed).is_err(), "{text}");
    }
    // S + L is the same scalar.
    let order = unhex("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");
    let mut changed = signature;
    let mut carry = 0;
    for (byte, add) in changed[32..].iter_mut().zip(order) {
        let sum = u16::from(*byte) + u16::from(add) + carry;
        (*byte, carry) = (sum as u8, sum >> 8);
    }
    assert_eq!(key.verify(b"message", &changed), Err(Error::NonCanonicalS));
}

#[test]
fn the_kinds_have_messages_of_their_own() {
    assert_eq!(message(Kind::Receipt, b"{}"), b"statusledger/v1/receipt\n{}");
    assert_eq!(message(Kind::Export, b"{}"), b"statusledger/v1/export\n{}");
    assert_eq!(message(Kind::Manifest, b"{}"), b"statusledger/v1/manifest\n{}");
    assert_eq!(message(Kind::Endorsement, b"{}"), b"statusledger/v1/endorsement\n{}");
}
