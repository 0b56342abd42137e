//! The one ciphertext format of this crate, for key-encryption keys and data keys alike.
//!
//! ```text
//! version 0x01 | id of the key [8] | nonce [24] | ciphertext | tag [16]
//! ```
//!
//! The algorithm is [C2SP XAES-256-GCM](https://c2sp.org/XAES-256-GCM): AES-256-GCM (NIST SP 800-38D) under a
//! key derived for each message (NIST SP 800-108r1, CMAC) from the first half of a random 192-bit nonce.
//! Plain AES-256-GCM with a random 96-bit nonce may seal 2^32 messages a key before the risk of a repeated
//! nonce exceeds 2^-32, which a workspace that receives 1,000 events a second reaches in 50 days; here the
//! limit is 2^80 messages, so no counter has to be kept and none can be lost.
//!
//! The key's id lets a reader say "another key" instead of "altered", and lets a rotation find what still
//! stands under an old one (in SQL, `substring(column from 2 for 8)`). The additional data binds a ciphertext to what it is for:
//!
//! ```text
//! "statusledger/v1/" purpose 0x0A | version | id of the key | each part: length as 8 bytes, big endian | part
//! ```
//!
//! Each purpose has a fixed list of parts (or one that carries its own count), so no two places encode alike.

use std::fmt;

use sha2::{Digest, Sha256};
use xaes_256_gcm::aead::{AeadInOut, KeyInit};
use xaes_256_gcm::{Key, Nonce, Xaes256Gcm};
use zeroize::Zeroizing;

const VERSION: u8 = 1;
const ID_BYTES: usize = 8;
const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;
const HEADER_BYTES: usize = 1 + ID_BYTES;

/// By how many bytes a ciphertext is longer than its plaintext.
pub const OVERHEAD_BYTES: usize = HEADER_BYTES + NONCE_BYTES + TAG_BYTES;

/// Names a key-encryption key or a data key without telling anything of it: the first 8 bytes of a SHA-256
/// over the key under a label of its kind. Displayed as 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SealingKeyId([u8; ID_BYTES]);

impl SealingKeyId {
    /// The id of the key under which `ciphertext` was sealed, to choose the key by, or to find what a
    /// rotation has left. Nothing is authenticated by this.
    ///
    /// # Errors
    /// [`SealError::Malformed`], [`SealError::Version`]: not a ciphertext of this crate.
    pub fn of_ciphertext(ciphertext: &[u8]) -> Result<Self, SealError> {
        Ok(Parts::split(ciphertext)?.id)
    }

    /// The id of those bytes, as they were stored beside a ciphertext.
    pub fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }

    /// The bytes that stand in a ciphertext.
    pub fn as_bytes(&self) -> &[u8; 8] {
        &self.0
    }
}

impl fmt::Display for SealingKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SealingKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why something could not be sealed or opened. Never holds anything of a key or a plaintext.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The operating system gave no random bytes.
    #[error("the operating system gives no random bytes: {0}")]
    Random(getrandom::Error),
    /// The plaintext is longer than AES-GCM can seal (64 GiB).
    #[error("the plaintext is too long to seal")]
    TooLong,
    /// Too short to be a ciphertext.
    #[error("{length} bytes are too short for a ciphertext")]
    Malformed {
        /// How long it is.
        length: usize,
    },
    /// A ciphertext of a version that this build does not know.
    #[error("ciphertext version {0} is not known")]
    Version(u8),
    /// Sealed under another key than the one given.
    #[error("sealed under key {sealed_under}, not under {given}")]
    WrongKey {
        /// The key named in the ciphertext.
        sealed_under: SealingKeyId,
        /// The key that was to open it.
        given: SealingKeyId,
    },
    /// Sealed under a key-encryption key that is not among those held.
    #[error("sealed under key {sealed_under}, and held is {}", list(held))]
    NotHeld {
        /// The key named in the ciphertext.
        sealed_under: SealingKeyId,
        /// The keys that there are.
        held: Vec<SealingKeyId>,
    },
    /// The right key, but not what was sealed here: altered, or moved from another place.
    #[error("the ciphertext does not authenticate: it was altered, or sealed for another place")]
    NotAuthentic,
}

fn list(ids: &[SealingKeyId]) -> String {
    if ids.is_empty() {
        return "none".into();
    }
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// What a ciphertext is for; the first thing in its additional data.
#[derive(Clone, Copy)]
pub(crate) enum SealPurpose {
    DataKey,
    SigningKey,
    Cell,
}

impl SealPurpose {
    fn label(self) -> &'static [u8] {
        match self {
            Self::DataKey => b"statusledger/v1/data-key\n",
            Self::SigningKey => b"statusledger/v1/signing-key\n",
            Self::Cell => b"statusledger/v1/cell\n",
        }
    }
}

struct Parts<'a> {
    id: SealingKeyId,
    nonce: &'a Nonce,
    body: &'a [u8],
    tag: &'a xaes_256_gcm::Tag,
}

impl<'a> Parts<'a> {
    fn split(ciphertext: &'a [u8]) -> Result<Self, SealError> {
        let malformed = || SealError::Malformed { length: ciphertext.len() };
        let (&version, rest) = ciphertext.split_first().ok_or_else(malformed)?;
        if version != VERSION {
            return Err(SealError::Version(version));
        }
        let (id, rest) = rest.split_first_chunk::<ID_BYTES>().ok_or_else(malformed)?;
        let (nonce, rest) = rest.split_first_chunk::<NONCE_BYTES>().ok_or_else(malformed)?;
        let (body, tag) = rest.split_last_chunk::<TAG_BYTES>().ok_or_else(malformed)?;
        Ok(Self { id: SealingKeyId(*id), nonce: nonce.into(), body, tag: tag.into() })
    }
}

/// 32 secret bytes and their cipher. On the heap, so that moving the owner copies no secret; wiped when
/// dropped.
pub(crate) struct SealingKey {
    bytes: Box<Zeroizing<[u8; 32]>>,
    cipher: Box<Xaes256Gcm>,
    id: SealingKeyId,
}

impl SealingKey {
    /// `id_label` separates the ids of the kinds of key.
    pub(crate) fn new(bytes: Box<Zeroizing<[u8; 32]>>, id_label: &[u8]) -> Self {
        let key: &Key = (&**bytes).into();
        let cipher = Box::new(Xaes256Gcm::new(key));
        let digest = Sha256::new().chain_update(id_label).chain_update(bytes.as_slice()).finalize();
        let mut id = [0; ID_BYTES];
        id.copy_from_slice(&digest[..ID_BYTES]);
        Self { bytes, cipher, id: SealingKeyId(id) }
    }

    pub(crate) fn generate(id_label: &[u8]) -> Result<Self, SealError> {
        Ok(Self::new(random_secret()?, id_label))
    }

    pub(crate) fn id(&self) -> SealingKeyId {
        self.id
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    pub(crate) fn seal(
        &self,
        purpose: SealPurpose,
        parts: &[&[u8]],
        plaintext: &[u8],
    ) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).map_err(SealError::Random)?;
        let mut out = Vec::with_capacity(plaintext.len() + OVERHEAD_BYTES);
        out.push(VERSION);
        out.extend_from_slice(&self.id.0);
        out.extend_from_slice(&nonce);
        let body = out.len();
        out.extend_from_slice(plaintext);
        let tag = self
            .cipher
            .encrypt_inout_detached(
                &nonce.into(),
                &self.additional_data(purpose, parts),
                out[body..].as_mut().into(),
            )
            .map_err(|_| SealError::TooLong)?;
        out.extend_from_slice(&tag);
        Ok(out)
    }

    pub(crate) fn open(
        &self,
        purpose: SealPurpose,
        parts: &[&[u8]],
        ciphertext: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let Parts { id, nonce, body, tag } = Parts::split(ciphertext)?;
        if id != self.id {
            return Err(SealError::WrongKey { sealed_under: id, given: self.id });
        }
        let mut plaintext = Zeroizing::new(body.to_vec());
        self.cipher
            .decrypt_inout_detached(
                nonce,
                &self.additional_data(purpose, parts),
                plaintext.as_mut_slice().into(),
                tag,
            )
            .map_err(|_| SealError::NotAuthentic)?;
        Ok(plaintext)
    }

    fn additional_data(&self, purpose: SealPurpose, parts: &[&[u8]]) -> Vec<u8> {
        let mut data = purpose.label().to_vec();
        data.push(VERSION);
        data.extend_from_slice(&self.id.0);
        for part in parts {
            data.extend_from_slice(&(part.len() as u64).to_be_bytes());
            data.extend_from_slice(part);
        }
        data
    }
}

/// 32 bytes of the operating system's randomness, written straight to the heap.
pub(crate) fn random_secret() -> Result<Box<Zeroizing<[u8; 32]>>, SealError> {
    let mut bytes = Box::new(Zeroizing::new([0; 32]));
    getrandom::fill(&mut **bytes).map_err(SealError::Random)?;
    Ok(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    /// The specification's two vectors: the most significant bit of L is 0 in the first and 1 in the second.
    #[test]
    fn the_cipher_agrees_with_the_vectors_of_c2sp() {
        for (key, additional_data, expected) in [
            ([1; 32], "", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"),
            ([3; 32], "c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"),
        ] {
            let key = SealingKey::new(Box::new(Zeroizing::new(key)), b"");
            let mut text = b"XAES-256-GCM".to_vec();
            let tag = key
                .cipher
                .encrypt_inout_detached(
                    b"ABCDEFGHIJKLMNOPQRSTUVWX".into(),
                    additional_data.as_bytes(),
                    text.as_mut_slice().into(),
                )
                .unwrap();
            text.extend_from_slice(&tag);
            assert_eq!(text, hex(expected));
        }
    }

    #[test]
    fn a_ciphertext_is_longer_by_the_stated_overhead_and_names_its_key() {
        let key = SealingKey::generate(b"test").unwrap();
        let sealed = key.seal(SealPurpose::Cell, &[b"place"], b"plaintext").unwrap();
        assert_eq!(sealed.len(), 9 + OVERHEAD_BYTES);
        assert_eq!(SealingKeyId::of_ciphertext(&sealed), Ok(key.id()));
        assert_eq!(*key.open(SealPurpose::Cell, &[b"place"], &sealed).unwrap(), b"plaintext");
    }

    #[test]
    fn nothing_opens_under_another_purpose_or_other_parts() {
        let key = SealingKey::generate(b"test").unwrap();
        let sealed = key.seal(SealPurpose::Cell, &[b"ab", b"c"], b"plaintext").unwrap();
        for parts in [&[b"a".as_slice(), b"bc"][..], &[b"abc"], &[b"ab", b"c", b""], &[b"c", b"ab"], &[]] {
            assert_eq!(key.open(SealPurpose::Cell, parts, &sealed), Err(SealError::NotAuthentic));
        }
        let parts = [b"ab".as_slice(), b"c"];
        assert_eq!(key.open(SealPurpose::DataKey, &parts, &sealed), Err(SealError::NotAuthentic));
        assert_eq!(key.open(SealPurpose::SigningKey, &parts, &sealed), Err(SealError::NotAuthentic));
    }

    #[test]
    fn every_changed_bit_and_every_truncation_is_refused() {
        let key = SealingKey::generate(b"test").unwrap();
        let sealed = key.seal(SealPurpose::Cell, &[b"place"], b"plaintext").unwrap();
        for bit in 0..sealed.len() * 8 {
            let mut altered = sealed.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            let error = key.open(SealPurpose::Cell, &[b"place"], &altered).unwrap_err();
            match bit / 8 {
                0 => assert!(matches!(error, SealError::Version(_)), "bit {bit}: {error}"),
                1..=8 => assert!(matches!(error, SealError::WrongKey { .. }), "bit {bit}: {error}"),
                _ => assert_eq!(error, SealError::NotAuthentic, "bit {bit}"),
            }
        }
        for length in 0..sealed.len() {
            let error = key.open(SealPurpose::Cell, &[b"place"], &sealed[..length]).unwrap_err();
            if length < OVERHEAD_BYTES {
                assert_eq!(error, SealError::Malformed { length });
            } else {
                assert_eq!(error, SealError::NotAuthentic);
            }
        }
    }

    #[test]
    fn the_same_plaintext_never_seals_to_the_same_bytes() {
        let key = SealingKey::generate(b"test").unwrap();
        let mut seen = std::collections::HashSet::new();
        for _ in 0..1_000 {
            assert!(seen.insert(key.seal(SealPurpose::Cell, &[], b"").unwrap()));
        }
    }
}
