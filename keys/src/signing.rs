//! Signing keys, each of which can sign only what its purpose allows.
//!
//! | key | signs |
//! |---|---|
//! | [`SigningKey<Receipt>`] | receipts, exports |
//! | [`SigningKey<Checkpoint>`] | checkpoints |
//! | [`SigningKey<Root>`] | key manifests, endorsements of roots |
//!
//! The purpose is part of the type, so that a mix-up does not compile:
//!
//! ```
//! use statusledger_keys::signing::{OwnCheck, Receipt, Root, SigningKey};
//! let receipt = SigningKey::<Receipt>::generate()?;
//! receipt.sign_receipt(b"{}", OwnCheck::Here)?;
//! receipt.sign_export(b"{}")?;
//! let root = SigningKey::<Root>::generate()?;
//! root.sign_manifest(b"{}")?;
//! root.sign_endorsement(b"{}")?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//! ```compile_fail,E0599
//! use statusledger_keys::signing::{Receipt, SigningKey};
//! let receipt = SigningKey::<Receipt>::generate().unwrap();
//! receipt.sign_manifest(b"{}");
//! ```
//! ```compile_fail,E0599
//! use statusledger_keys::signing::{Receipt, SigningKey};
//! let receipt = SigningKey::<Receipt>::generate().unwrap();
//! receipt.sign_endorsement(b"{}");
//! ```
//! ```compile_fail,E0599
//! use statusledger_keys::signing::{Receipt, SigningKey};
//! use statusledger_verify::checkpoint::Checkpoint;
//! let receipt = SigningKey::<Receipt>::generate().unwrap();
//! receipt.sign_checkpoint(&Checkpoint { origin: "a/b".into(), size: 0, root: [0; 32] });
//! ```
//! ```compile_fail,E0599
//! use statusledger_keys::signing::{OwnCheck, Root, SigningKey};
//! let root = SigningKey::<Root>::generate().unwrap();
//! root.sign_receipt(b"{}", OwnCheck::Here);
//! ```
//! ```compile_fail,E0599
//! use statusledger_keys::signing::{Checkpoint, SigningKey};
//! let checkpoint = SigningKey::<Checkpoint>::generate().unwrap();
//! checkpoint.sign_export(b"{}");
//! ```
//! Nor is there a purpose beside these three:
//! ```compile_fail,E0277
//! use statusledger_keys::signing::{KeyPurpose, Purpose};
//! struct Everything;
//! impl Purpose for Everything {
//!     const PURPOSE: KeyPurpose = KeyPurpose::Root;
//! }
//! ```
//! Nor a copy of a key, or its bytes:
//! ```compile_fail,E0599
//! use statusledger_keys::signing::{Root, SigningKey};
//! let root = SigningKey::<Root>::generate().unwrap();
//! root.clone();
//! ```
//!
//! Signatures are deterministic Ed25519 (RFC 8032). Each is verified, strictly, before it is released: a fault
//! in the computation of a deterministic signature can give the private key away.

use std::fmt;
use std::marker::PhantomData;

use ed25519_dalek::Signer as _;
use statusledger_verify::checkpoint::{self, Checkpoint as TreeCheckpoint};
use statusledger_verify::signature::{self, Kind, PublicKey};
use zeroize::Zeroizing;

use crate::key_id::KeyId;
use crate::sealing::{SealError, random_secret};

/// What a key of the ring is for, as a value; never two things.
pub use statusledger_verify::manifest::Purpose as KeyPurpose;

/// A text that names no purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key's purpose is root, receipt or checkpoint")]
pub struct UnknownPurpose;

/// Reads a purpose by its name in the key manifest, as a database column has it.
///
/// # Errors
/// [`UnknownPurpose`].
pub fn parse_purpose(name: &str) -> Result<KeyPurpose, UnknownPurpose> {
    [KeyPurpose::Root, KeyPurpose::Receipt, KeyPurpose::Checkpoint]
        .into_iter()
        .find(|purpose| purpose.name() == name)
        .ok_or(UnknownPurpose)
}

/// The purpose of a [`SigningKey`], as a type. Implemented by [`Root`], [`Receipt`] and [`Checkpoint`] only.
pub trait Purpose: private::Sealed {
    /// The same as a value.
    const PURPOSE: KeyPurpose;
}

mod private {
    pub trait Sealed {}
}

macro_rules! purposes {
    ($($(#[$doc:meta])* $name:ident),+) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub enum $name {}
        impl private::Sealed for $name {}
        impl Purpose for $name {
            const PURPOSE: KeyPurpose = KeyPurpose::$name;
        }
    )+};
}

purposes! {
    /// Signs key manifests and endorses roots.
    Root,
    /// Signs receipts and exports.
    Receipt,
    /// Signs checkpoints.
    Checkpoint
}

/// Why a signature was not released. Never holds anything of the key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// The signature just made does not verify: this machine computes wrongly.
    #[error("the signature just made by key {key_id} does not verify; it was not released")]
    OwnCheck {
        /// The key that made it.
        key_id: KeyId,
    },
    /// The checkpoint would not be one: its origin cannot name a key in a signed note.
    #[error("{origin:?} cannot be the origin of a checkpoint")]
    Origin {
        /// The origin given.
        origin: String,
    },
}

/// Who verifies a signature before it leaves the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnCheck {
    /// The signing key, at once.
    Here,
    /// The caller, who verifies the finished document as its recipient will; once is enough.
    ByCaller,
}

/// An Ed25519 key that signs for one purpose. Wiped from memory when dropped; `Debug` shows the public side.
pub struct SigningKey<P> {
    key: Box<ed25519_dalek::SigningKey>,
    public: PublicKey,
    key_id: KeyId,
    purpose: PhantomData<fn() -> P>,
}

impl<P: Purpose> SigningKey<P> {
    /// A new key from the operating system's randomness.
    ///
    /// # Errors
    /// [`SealError::Random`].
    pub fn generate() -> Result<Self, SealError> {
        Ok(Self::from_secret(&*random_secret()?))
    }

    /// The key of a 32-byte seed (RFC 8032, section 5.1.5).
    pub(crate) fn from_secret(secret: &[u8; 32]) -> Self {
        let key = Box::new(ed25519_dalek::SigningKey::from_bytes(secret));
        let public = PublicKey::from_bytes(key.verifying_key().as_bytes())
            .expect("a public key computed from a seed is canonical and of full order");
        let key_id = KeyId(public.key_id());
        Self { key, public, key_id, purpose: PhantomData }
    }

    /// As [`SigningKey::from_secret`], of what was sealed or written to a file; none where that is not 32
    /// bytes.
    pub(crate) fn from_slice(secret: &[u8]) -> Option<Self> {
        Some(Self::from_secret(secret.try_into().ok()?))
    }

    pub(crate) fn secret(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(*self.key.as_bytes())
    }

    /// The key's id: SHA-256 of its public key.
    pub fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// The public key.
    pub fn public_key(&self) -> &PublicKey {
        &self.public
    }

    fn sign_message(&self, message: &[u8], check: OwnCheck) -> Result<[u8; 64], SignError> {
        let signature = self.key.sign(message).to_bytes();
        if check == OwnCheck::Here && self.public.verify(message, &signature).is_err() {
            return Err(SignError::OwnCheck { key_id: self.key_id });
        }
        Ok(signature)
    }

    fn sign_kind(&self, kind: Kind, canonical: &[u8], check: OwnCheck) -> Result<[u8; 64], SignError> {
        self.sign_message(&signature::message(kind, canonical), check)
    }
}

impl SigningKey<Receipt> {
    /// Signs a receipt: `canonical` is the body without `openings`, `receipt.proof` and `receipt.signature`.
    ///
    /// # Errors
    /// [`SignError::OwnCheck`], if the check is made here.
    pub fn sign_receipt(&self, canonical: &[u8], check: OwnCheck) -> Result<[u8; 64], SignError> {
        self.sign_kind(Kind::Receipt, canonical, check)
    }

    /// Signs an export: `canonical` is its `manifest.json` without `signature`.
    ///
    /// # Errors
    /// [`SignError::OwnCheck`].
    pub fn sign_export(&self, canonical: &[u8]) -> Result<[u8; 64], SignError> {
        self.sign_kind(Kind::Export, canonical, OwnCheck::Here)
    }
}

impl SigningKey<Root> {
    /// Signs a key manifest: `canonical` is the manifest without `signature`.
    ///
    /// # Errors
    /// [`SignError::OwnCheck`].
    pub fn sign_manifest(&self, canonical: &[u8]) -> Result<[u8; 64], SignError> {
        self.sign_kind(Kind::Manifest, canonical, OwnCheck::Here)
    }

    /// Endorses a root: `canonical` is the endorsement statement.
    ///
    /// # Errors
    /// [`SignError::OwnCheck`].
    pub fn sign_endorsement(&self, canonical: &[u8]) -> Result<[u8; 64], SignError> {
        self.sign_kind(Kind::Endorsement, canonical, OwnCheck::Here)
    }
}

impl SigningKey<Checkpoint> {
    /// Signs a checkpoint and returns the signed note: its text, an empty line, and the log's signature line.
    ///
    /// # Errors
    /// [`SignError::Origin`]: empty, or with a space, a plus sign or a control character, which the name in a
    /// signature line cannot have; [`SignError::OwnCheck`].
    pub fn sign_checkpoint(&self, checkpoint: &TreeCheckpoint) -> Result<String, SignError> {
        let origin = &checkpoint.origin;
        if origin.is_empty() || origin.contains(|c: char| c.is_whitespace() || c.is_control() || c == '+') {
            return Err(SignError::Origin { origin: origin.clone() });
        }
        let text = checkpoint.text();
        let signature = self.sign_message(text.as_bytes(), OwnCheck::Here)?;
        let note_key_id = checkpoint::note_key_id(origin, self.public.bytes());
        Ok(format!("{text}\n{}", checkpoint::signature_line(origin, note_key_id, &signature)))
    }
}

impl<P: Purpose> fmt::Debug for SigningKey<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("purpose", &P::PURPOSE)
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// A key whose signatures do not verify, as on a machine that computes wrongly.
    fn faulty<P: Purpose>() -> SigningKey<P> {
        let (key, other) = (SigningKey::<P>::generate().unwrap(), SigningKey::<P>::generate().unwrap());
        SigningKey { public: other.public.clone(), ..key }
    }

    #[test]
    fn a_signature_that_does_not_verify_is_not_released() {
        let (receipt, root) = (faulty::<Receipt>(), faulty::<Root>());
        let checkpoint = TreeCheckpoint { origin: "a/b".into(), size: 0, root: [0; 32] };
        for result in [
            receipt.sign_receipt(b"{}", OwnCheck::Here).map(drop),
            receipt.sign_export(b"{}").map(drop),
            root.sign_manifest(b"{}").map(drop),
            root.sign_endorsement(b"{}").map(drop),
            faulty::<Checkpoint>().sign_checkpoint(&checkpoint).map(drop),
        ] {
            assert!(matches!(result, Err(SignError::OwnCheck { .. })), "{result:?}");
        }
        // Left to the caller, who verifies the whole document.
        receipt.sign_receipt(b"{}", OwnCheck::ByCaller).unwrap();
    }

    #[test]
    fn purposes_are_read_back_from_their_names() {
        for purpose in [KeyPurpose::Root, KeyPurpose::Receipt, KeyPurpose::Checkpoint] {
            assert_eq!(parse_purpose(purpose.name()), Ok(purpose));
        }
        assert_eq!(parse_purpose("Root"), Err(UnknownPurpose));
    }
}
