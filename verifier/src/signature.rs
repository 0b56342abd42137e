//! Ed25519 (RFC 8032), cofactorless and strict, with a domain for each kind of signed document.
//!
//! Implementations of Ed25519 disagree about signatures at the edges: keys and R outside their canonical
//! encoding, S not reduced, points of small order. A receipt must mean the same to every verifier, so all of these
//! are refused here by the bytes, before the library's own strict verification.

use ed25519_dalek::{Signature, VerifyingKey};
use sha2::{Digest, Sha256};

use crate::Hash;

/// What a signature is over. A signature of one kind is never one of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A notification's body.
    Receipt,
    /// An export's `manifest.json`.
    Export,
    /// A key manifest.
    Manifest,
    /// A root that introduces another.
    Endorsement,
}

impl Kind {
    /// The name in the signed message.
    pub fn name(self) -> &'static str {
        match self {
            Self::Receipt => "receipt",
            Self::Export => "export",
            Self::Manifest => "manifest",
            Self::Endorsement => "endorsement",
        }
    }
}

/// What is signed: `statusledger/v1/<kind>` || 0x0A || canonical bytes.
pub fn message(kind: Kind, canonical: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(32 + canonical.len());
    message.extend_from_slice(b"statusledger/v1/");
    message.extend_from_slice(kind.name().as_bytes());
    message.push(b'\n');
    message.extend_from_slice(canonical);
    message
}

/// The id of a key: SHA-256 of its 32 raw bytes.
pub fn key_id(public_key: &[u8; 32]) -> Hash {
    Sha256::digest(public_key).into()
}

/// A key or a signature is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The key's y coordinate is not reduced modulo 2^255-19.
    #[error("the public key is not canonically encoded")]
    NonCanonicalKey,
    /// The key's bytes are no point of the curve.
    #[error("the public key is not a point of the curve")]
    InvalidKey,
    /// The key is of small order, and verifies signatures that nobody made.
    #[error("the public key is weak (of small order)")]
    WeakKey,
    /// R is not reduced, or is the point with x = 0 and its sign set.
    #[error("the signature's R is not canonically encoded")]
    NonCanonicalR,
    /// S is not below the order of the group.
    #[error("the signature's S is not canonical")]
    NonCanonicalS,
    /// The equation does not hold, or R is of small order or no point.
    #[error("the signature does not verify")]
    Mismatch,
}

/// A public key that is canonical and not weak.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    key: VerifyingKey,
    key_id: Hash,
}

impl PublicKey {
    /// Reads the 32 raw bytes of a key.
    ///
    /// # Errors
    /// Where they are not canonical, not a point, or a point of small order.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, Error> {
        if !is_reduced_coordinate(bytes) {
            return Err(Error::NonCanonicalKey);
        }
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| Error::InvalidKey)?;
        // The two points with x = 0, whose sign bit must be clear, are of small order.
        if key.is_weak() {
            return Err(Error::WeakKey);
        }
        Ok(Self { key, key_id: key_id(bytes) })
    }

    /// SHA-256 of the raw bytes.
    pub fn key_id(&self) -> Hash {
        self.key_id
    }

    /// The 32 raw bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        self.key.as_bytes()
    }

    /// Verifies a signature (R || S) over a message.
    ///
    /// # Errors
    /// Where R or S is not canonical, R is of small order, or the cofactorless equation does not hold.
    pub fn verify(&self, message: &[u8], signature: &[u8; 64]) -> Result<(), Error> {
        let (r, s) = signature.split_at(32);
        if !is_reduced_coordinate(r.try_into().expect("half of a signature is 32 bytes")) {
            return Err(Error::NonCanonicalR);
        }
        if !is_reduced_scalar(s.try_into().expect("half of a signature is 32 bytes")) {
            return Err(Error::NonCanonicalS);
        }
        self.key.verify_strict(message, &Signature::from_bytes(signature)).map_err(|_| Error::Mismatch)
    }
}

/// Whether the y coordinate of an encoded point (little-endian, the top bit is x's sign) is below 2^255-19.
fn is_reduced_coordinate(bytes: &[u8; 32]) -> bool {
    let is_at_least_p =
        bytes[31] & 0x7F == 0x7F && bytes[1..31].iter().all(|byte| *byte == 0xFF) && bytes[0] >= 0xED;
    !is_at_least_p
}

/// The order of the group, 2^252 + 27742317777372353535851937790883648493, little-endian.
const ORDER: [u8; 32] = [
    0xED, 0xD3, 0xF5, 0x5C, 0x1A, 0x63, 0x12, 0x58, 0xD6, 0x9C, 0xF7, 0xA2, 0xDE, 0xF9, 0xDE, 0x14, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

fn is_reduced_scalar(bytes: &[u8; 32]) -> bool {
    bytes.iter().rev().lt(ORDER.iter().rev())
}
