//! The instance's key ring: its roots, receipt keys and checkpoint keys, current and past.
//!
//! A [`Ring`] is a value. An operation takes one and the time, and gives a [`Change`]: the new ring, what to
//! write to the database, and the entries for the instance's ledger. Nothing here touches a database; the
//! service writes all of a change in one transaction, in which it also loaded the ring that the operation
//! started from (so two nodes never rotate at once, and a key that one destroyed is not written again by
//! another).
//!
//! The public side of the ring **is** its key manifest; nothing of it is kept a second time. Before a change
//! is released, its manifest is parsed as a customer would, verified under every pin that verified before and
//! under the current root's, and compared with the one before it for a rollback.
//!
//! # What happens to a key
//! - **receipt and checkpoint keys** rotate every [`ROTATION_DAYS`] days. The old key's `not_after` is the time
//!   of the rotation, its `verify_until` 90 days later. Its private part stays until [`Ring::destroy`], so
//!   that a body whose signature a crash cut off can be signed again as it was to be.
//! - **roots** stay until the operator replaces one ([`Ring::rotate_root`]): the old root endorses the new one
//!   and its private part goes at once, since after its window it could only endorse a forgery.
//! - **revoked keys** count for nothing, whatever their date. The private part goes at once: a body that such
//!   a key was still to sign is issued again under the new key.
//!
//! # The root offline
//! [`Ring::export_root`] takes the private root out of the ring, into a [`RootFile`]. From then on an operation
//! that signs a manifest needs [`Ring::with_root`], which lends the root to the ring for one operation; what
//! is stored never holds a lent root, and a root made by a lent one leaves as a file again. [`Ring::due`] warns
//! [`WARNING_DAYS`] days ahead. If every copy of the file is lost, the manifest expires and nothing can
//! renew it: the instance then needs a new ring, and every customer a new pin.
//!
//! # What a customer does when a key is revoked
//! **A receipt or checkpoint key:** fetch the manifest again. Receipts under that key answer `key_revoked`
//! unless witnesses dated them before the revocation; the operator issues them again under a new key, with
//! the same destination and number.
//!
//! **A root:** whoever has a root's private part is the instance, for everyone who pinned it or a root before
//! it; that cannot be mended from inside. The operator rotates to a new root first (a current root cannot be
//! revoked), then revokes the stolen one. An endorsement by a revoked root no longer counts, so every pin up
//! to and including the stolen root fails from then on (`manifest`), which is what a revocation is for:
//! [`Change::broken_pins`] names them. Their holders need the new pin by the way they got the first, not from
//! the instance's address, and then verify what they hold again under it: a receipt by a key that the new
//! manifest does not list was signed by the thief. Pins of later roots hold on. Until a holder has the new
//! pin, the thief can still show them manifests.

mod document;
mod due;
mod event;
mod operations;
mod root_file;
mod stored;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use statusledger_verify::Failure;
use statusledger_verify::manifest::{self, Pin, TrustedKeys};
use statusledger_verify::time::Timestamp;

pub use self::document::{Endorsement, KeyRecord};
pub use self::due::{Due, DueWork};
pub use self::event::{KeyEvent, KeyEventType};
pub use self::operations::{Change, Rotation};
pub use self::root_file::{RootFile, RootFileError};
pub use self::stored::{StoredChange, StoredKey, StoredManifest, StoredRing};

use self::document::Document;
use crate::key_id::KeyId;
use crate::sealing::SealError;
use crate::signing::{Checkpoint, KeyPurpose, Receipt, Root, SignError, SigningKey};

/// How long receipt and checkpoint keys are used, in days: 13 weeks. Four rotations are 364 days, so each
/// falls on the same day of the week, a quarter apart, and never drifts into a weekend that it did not start
/// in.
pub const ROTATION_DAYS: i64 = 91;

/// How long a receipt by a retired key counts as fresh, in days: 90, as the format says.
pub const VERIFY_DAYS: i64 = manifest::VERIFY_DAYS;

/// How long a manifest is valid, in days: 100, the most that the format allows, so that a rotation, which signs a
/// new one, normally comes before the expiry.
pub const MANIFEST_DAYS: i64 = manifest::MAX_VALIDITY_DAYS;

/// How many days before its expiry a manifest is due to be signed again, if no rotation did. Later than a
/// rotation on time (day 93 after day 91), so that an offline root is fetched once a quarter, not twice.
pub const REPUBLISH_BEFORE_DAYS: i64 = 7;

/// How many days ahead of its time work is announced: time to fetch an offline root.
pub const WARNING_DAYS: i64 = 14;

/// Why a ring was not loaded, not changed, or has no such key. Never holds anything of a private key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RingError {
    /// The clock stands before the newest manifest; what is signed now would be dated wrongly.
    #[error("the clock is behind: it shows {now}, and the newest key manifest was issued at {issued_at}")]
    ClockBehind {
        /// The time given.
        now: Timestamp,
        /// When the newest manifest was issued.
        issued_at: Timestamp,
    },
    /// A time to come does not fit the format (after the year 9999).
    #[error("{now} leaves no room for the times that follow it")]
    Time {
        /// The time given.
        now: Timestamp,
    },
    /// No key of the ring has that id.
    #[error("the ring has no key {key_id}")]
    UnknownKey {
        /// The id given.
        key_id: KeyId,
    },
    /// The key serves another purpose than asked for.
    #[error("key {key_id} is a {purpose} key")]
    OtherPurpose {
        /// The id given.
        key_id: KeyId,
        /// What it is for.
        purpose: KeyPurpose,
    },
    /// The key has been revoked; nothing by it counts.
    #[error("key {key_id} was revoked at {revoked_at}")]
    Revoked {
        /// The id given.
        key_id: KeyId,
        /// Since when.
        revoked_at: Timestamp,
    },
    /// The private part of the key has been destroyed.
    #[error("the private part of key {key_id} has been destroyed")]
    Destroyed {
        /// The id given.
        key_id: KeyId,
    },
    /// The key is in use: it has to be rotated before this.
    #[error("{purpose} key {key_id} is current: rotate it first")]
    Current {
        /// The id given.
        key_id: KeyId,
        /// What it is for.
        purpose: KeyPurpose,
    },
    /// The operation signs a manifest and the root is not here.
    #[error("the root {key_id} is offline: this needs its file")]
    RootOffline {
        /// The current root.
        key_id: KeyId,
    },
    /// The file is of another instance.
    #[error("the root file is of instance {found}, not {instance}")]
    OtherInstance {
        /// The ring's instance.
        instance: String,
        /// The file's.
        found: String,
    },
    /// The file holds another key than the current root.
    #[error("the root file holds key {found}; the current root is {key_id}")]
    OtherRoot {
        /// The current root.
        key_id: KeyId,
        /// The file's.
        found: KeyId,
    },
    /// Nothing was signed, or what was signed was not released.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// A private key could not be made, sealed or opened.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The manifest, stored or just made, is not one that a customer would accept.
    #[error("the key manifest fails its own verification: {0}")]
    Manifest(Failure),
    /// A manifest just made no longer verifies under a pin that it must keep. It was not released.
    #[error("the new key manifest would not verify under the pin {pin}")]
    PinLost {
        /// The pin.
        pin: Pin,
    },
    /// The stored manifest is not one of a ring: it has no current key of a purpose, or several.
    #[error("the key manifest does not have exactly one current {purpose} key")]
    NotOneCurrent {
        /// The purpose.
        purpose: KeyPurpose,
    },
    /// The stored manifest is not the one that its row says.
    #[error("the stored key manifest has serial {found}, its row says {serial}")]
    Serial {
        /// What the row says.
        serial: u64,
        /// What the manifest says.
        found: u64,
    },
    /// A private key is stored that the manifest does not have, twice, for another purpose, or past its time.
    #[error("the stored private key {key_id} has no place in the key manifest")]
    Stray {
        /// The id of its row.
        key_id: KeyId,
    },
    /// What is stored as a private key is another key's.
    #[error("the stored private key does not belong to the public key {key_id}")]
    Mismatch {
        /// The id of its row.
        key_id: KeyId,
    },
    /// The private part of a current receipt or checkpoint key is not stored.
    #[error("the private part of the current {purpose} key {key_id} is missing")]
    Missing {
        /// The current key.
        key_id: KeyId,
        /// What it is for.
        purpose: KeyPurpose,
    },
}

/// The private root, if it is here at all.
#[derive(Clone)]
enum RootKey {
    /// Part of the ring, and stored with it.
    Kept(Arc<SigningKey<Root>>),
    /// Lent by [`Ring::with_root`] for one operation; never stored.
    Lent(Arc<SigningKey<Root>>),
    Offline,
}

/// An instance's keys. The private parts are wiped from memory with the last ring (or signing task) that
/// holds them; `Debug` shows none of them.
#[derive(Clone)]
pub struct Ring {
    document: Document,
    private: Private,
}

/// The private parts that are here.
#[derive(Clone)]
struct Private {
    root: RootKey,
    receipt: BTreeMap<KeyId, Arc<SigningKey<Receipt>>>,
    checkpoint: BTreeMap<KeyId, Arc<SigningKey<Checkpoint>>>,
}

impl Private {
    fn with_root(root: RootKey) -> Self {
        Self { root, receipt: BTreeMap::new(), checkpoint: BTreeMap::new() }
    }

    /// Whether this has the private part of a key, other than by loan.
    fn holds(&self, key_id: KeyId) -> bool {
        self.receipt.contains_key(&key_id)
            || self.checkpoint.contains_key(&key_id)
            || matches!(&self.root, RootKey::Kept(key) if key.key_id() == key_id)
    }
}

impl Ring {
    /// The instance's name.
    pub fn instance(&self) -> &str {
        &self.document.contents.instance
    }

    /// The ledger of the instance's own events.
    pub fn ledger(&self) -> &str {
        &self.document.contents.ledger
    }

    /// The manifest's serial: 1, 2, 3, …
    pub fn serial(&self) -> u64 {
        self.document.contents.serial
    }

    /// When the manifest was issued.
    pub fn issued_at(&self) -> Timestamp {
        self.document.contents.issued_at
    }

    /// When the manifest expires.
    pub fn expires(&self) -> Timestamp {
        self.document.contents.expires
    }

    /// The key manifest: what `/.well-known/statusledger-keys.json` serves, byte for byte.
    pub fn manifest(&self) -> &[u8] {
        &self.document.bytes
    }

    /// The manifest as a customer with [`Ring::pin`] trusts it, to verify with before anything leaves.
    pub fn trusted_keys(&self) -> &Arc<TrustedKeys> {
        &self.document.trusted
    }

    /// The public side of every key, in the manifest's order.
    pub fn keys(&self) -> &[KeyRecord] {
        &self.document.contents.keys
    }

    /// The public side of one key.
    ///
    /// # Errors
    /// [`RingError::UnknownKey`].
    pub fn key(&self, key_id: KeyId) -> Result<&KeyRecord, RingError> {
        self.document.contents.key(key_id).ok_or(RingError::UnknownKey { key_id })
    }

    /// The public side of the current key of a purpose.
    pub fn current(&self, purpose: KeyPurpose) -> &KeyRecord {
        self.document.contents.current(purpose)
    }

    /// Whether the private part of the current root is elsewhere.
    pub fn root_is_offline(&self) -> bool {
        !matches!(self.private.root, RootKey::Kept(_))
    }

    /// Whether the private part of a key is in this ring (a lent root is not).
    pub fn holds_private(&self, key_id: KeyId) -> bool {
        self.private.holds(key_id)
    }

    /// What a new customer pins: the current root. A root before it would do as well while it is not revoked
    /// (see [`Ring::pins`]), but the newest outlasts the revocation of any before it, and no root whose
    /// private part has left the instance's hands can speak to whoever pinned a later one.
    pub fn pin(&self) -> Pin {
        self.pin_of(self.current(KeyPurpose::Root).key_id)
    }

    /// Every pin under which the manifest verifies, oldest root first.
    pub fn pins(&self) -> Vec<Pin> {
        self.keys()
            .iter()
            .filter(|key| key.purpose == KeyPurpose::Root)
            .map(|key| self.pin_of(key.key_id))
            .filter(|pin| self.document.is_trusted_under(pin))
            .collect()
    }

    fn pin_of(&self, key_id: KeyId) -> Pin {
        Pin { key_id: key_id.0, instance: self.instance().to_owned() }
    }

    /// The current receipt key.
    pub fn receipt_key(&self) -> &Arc<SigningKey<Receipt>> {
        &self.private.receipt[&self.current(KeyPurpose::Receipt).key_id]
    }

    /// The current checkpoint key.
    pub fn checkpoint_key(&self) -> &Arc<SigningKey<Checkpoint>> {
        &self.private.checkpoint[&self.current(KeyPurpose::Checkpoint).key_id]
    }

    /// A receipt key, current or retired, to sign again what a crash left unsigned. The key signs whatever
    /// `issued_at` the body has; that it lies in the key's window was decided when the body was written.
    ///
    /// # Errors
    /// [`RingError::UnknownKey`], [`RingError::OtherPurpose`], [`RingError::Revoked`] (issue the receipt again
    /// under the current key), [`RingError::Destroyed`].
    pub fn receipt_key_by_id(&self, key_id: KeyId) -> Result<&Arc<SigningKey<Receipt>>, RingError> {
        self.usable(key_id, KeyPurpose::Receipt)?;
        self.private.receipt.get(&key_id).ok_or(RingError::Destroyed { key_id })
    }

    /// A checkpoint key, current or retired; otherwise as [`Ring::receipt_key_by_id`].
    ///
    /// # Errors
    /// As [`Ring::receipt_key_by_id`].
    pub fn checkpoint_key_by_id(&self, key_id: KeyId) -> Result<&Arc<SigningKey<Checkpoint>>, RingError> {
        self.usable(key_id, KeyPurpose::Checkpoint)?;
        self.private.checkpoint.get(&key_id).ok_or(RingError::Destroyed { key_id })
    }

    fn usable(&self, key_id: KeyId, purpose: KeyPurpose) -> Result<(), RingError> {
        let key = self.key(key_id)?;
        if key.purpose != purpose {
            return Err(RingError::OtherPurpose { key_id, purpose: key.purpose });
        }
        match key.revoked_at {
            Some(revoked_at) => Err(RingError::Revoked { key_id, revoked_at }),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring")
            .field("instance", &self.instance())
            .field("serial", &self.serial())
            .field("keys", &self.keys().len())
            .field("root_is_offline", &self.root_is_offline())
            .finish_non_exhaustive()
    }
}
