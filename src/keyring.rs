//! The instance's key ring, as it lies in the database and is used by a node.
//!
//! The ring itself (what may be rotated when, what a manifest says) is the keys crate's. Here it is read, kept in
//! memory for signing, and changed: under a lock that every append with deliveries shares, so that no receipt is
//! fixed under a key that has just been retired, and together with its events in the instance's ledger.

use crate::audit::{Act, Action};
use crate::database::{Database, WorkspaceTx};
use crate::id::{LedgerId, WorkspaceId};
use crate::key_encryption::{self, KeyEncryption};
use crate::ledger::append::{RING_LOCK, unix_micros};
use crate::ledger::{self, Draft, Writer, hex};
use sqlx::PgConnection;
use statusledger_keys::held_keys::HeldKeys;
use statusledger_keys::key_id::KeyId;
use statusledger_keys::ring::{
    Change, Ring, RingError, RootFile, StoredChange, StoredKey, StoredManifest, StoredRing,
};
use statusledger_keys::sealing::SealError;
use statusledger_keys::signing::{KeyPurpose, OwnCheck, SignError, parse_purpose};
use statusledger_verify::Hash;
use statusledger_verify::checkpoint::Checkpoint;
use statusledger_verify::json::Value;
use statusledger_verify::manifest::{KeyManifest, Pin, TrustedKeys};
use statusledger_verify::time::Timestamp;
use std::sync::{Arc, PoisonError, RwLock};

/// The channel on which nodes hear of a new ring.
pub const CHANGED: &str = "statusledger_keys";

/// A ring that cannot be read, used or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database.
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    /// The ring refuses.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// There is no key-encryption key to seal it under.
    #[error(transparent)]
    KeyEncryption(#[from] key_encryption::Error),
    /// A stored private key does not open.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The signature cannot be made.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The key has been destroyed, or never was.
    #[error("the private key {0} is not in the ring")]
    NoKey(String),
    /// The stored manifest does not verify under its own root.
    #[error("the stored key manifest does not verify: {0}")]
    Manifest(String),
    /// There is no ring.
    #[error("the instance has no key ring yet")]
    Empty,
    /// The ring's events could not be recorded.
    #[error("the key events cannot be recorded: {0}")]
    Events(#[from] ledger::append::Error),
    /// The root's file.
    #[error(transparent)]
    RootFile(#[from] statusledger_keys::ring::RootFileError),
}

/// A ring at one moment, and what its manifest makes trusted.
#[derive(Debug)]
pub struct Snapshot {
    ring: Ring,
    trusted: TrustedKeys,
    manifest: Arc<str>,
    serial: i64,
}

impl Snapshot {
    fn new(ring: Ring) -> Result<Self, Error> {
        let wrong = |f: statusledger_verify::Failure| Error::Manifest(format!("{}: {}", f.check, f.detail));
        let trusted =
            KeyManifest::parse(ring.manifest()).and_then(|m| m.trust(&ring.pin())).map_err(wrong)?;
        let manifest =
            String::from_utf8(ring.manifest().to_vec()).map_err(|e| Error::Manifest(e.to_string()))?.into();
        let serial = i64::try_from(ring.serial()).map_err(|e| Error::Manifest(e.to_string()))?;
        Ok(Self { ring, trusted, manifest, serial })
    }

    /// The ring.
    #[must_use]
    pub const fn ring(&self) -> &Ring {
        &self.ring
    }

    /// Which manifest it is.
    #[must_use]
    pub const fn serial(&self) -> i64 {
        self.serial
    }

    /// The instance's name.
    #[must_use]
    pub fn instance(&self) -> &str {
        self.ring.instance()
    }

    /// The manifest, as it is served.
    #[must_use]
    pub fn manifest(&self) -> &Arc<str> {
        &self.manifest
    }

    /// What the manifest makes trusted.
    #[must_use]
    pub const fn trusted(&self) -> &TrustedKeys {
        &self.trusted
    }

    /// The pin to hand out.
    #[must_use]
    pub fn pin(&self) -> Pin {
        self.ring.pin()
    }

    /// The current receipt key's id.
    #[must_use]
    pub fn receipt_key_id(&self) -> Hash {
        self.ring.current(KeyPurpose::Receipt).key_id.0
    }

    /// The current checkpoint key's id.
    #[must_use]
    pub fn checkpoint_key_id(&self) -> Hash {
        self.ring.current(KeyPurpose::Checkpoint).key_id.0
    }

    /// Signs a receipt with the key it was fixed to. The caller verifies the whole body before it leaves.
    ///
    /// # Errors
    /// If the key has been destroyed.
    pub fn sign_receipt(&self, key_id: &Hash, canonical: &[u8]) -> Result<[u8; 64], Error> {
        let key = self.ring.receipt_key_by_id(KeyId(*key_id)).map_err(|_| Error::NoKey(hex(key_id)))?;
        Ok(key.sign_receipt(canonical, OwnCheck::ByCaller)?)
    }

    /// Signs an export's manifest with the current receipt key.
    ///
    /// # Errors
    /// If the signature cannot be made.
    pub fn sign_export(&self, canonical: &[u8]) -> Result<[u8; 64], Error> {
        Ok(self.ring.receipt_key().sign_export(canonical)?)
    }

    /// The note of a tree whose checkpoint was signed before.
    ///
    /// # Errors
    /// If the manifest does not know the key.
    pub fn checkpoint_note(
        &self,
        key_id: &Hash,
        ledger: LedgerId,
        size: u64,
        root: Hash,
        signature: &[u8; 64],
    ) -> Result<String, Error> {
        let key = self.ring.key(KeyId(*key_id)).map_err(|_| Error::NoKey(hex(key_id)))?;
        let origin = format!("{}/{ledger}", self.instance());
        let note_key = statusledger_verify::checkpoint::note_key_id(&origin, &key.public_key);
        let line = statusledger_verify::checkpoint::signature_line(&origin, note_key, signature);
        Ok(format!("{}\n{line}", Checkpoint { origin, size, root }.text()))
    }

    /// Signs the tree of `size` entries of `ledger`, with the key it was fixed to.
    ///
    /// # Errors
    /// If the key has been destroyed.
    pub fn sign_checkpoint(
        &self,
        key_id: &Hash,
        ledger: LedgerId,
        size: u64,
        root: Hash,
    ) -> Result<String, Error> {
        let key = self.ring.checkpoint_key_by_id(KeyId(*key_id)).map_err(|_| Error::NoKey(hex(key_id)))?;
        let origin = format!("{}/{ledger}", self.instance());
        Ok(key.sign_checkpoint(&Checkpoint { origin, size, root })?)
    }
}

/// The ring that a node uses, shared by its tasks.
#[derive(Clone)]
pub struct Keyring {
    database: Database,
    key_encryption: KeyEncryption,
    /// Replaced as a whole by whoever has read a newer one; locked for that alone.
    current: Arc<RwLock<Arc<Snapshot>>>,
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyring").field("serial", &self.current().serial()).finish_non_exhaustive()
    }
}

impl Keyring {
    /// Reads the ring from the database.
    ///
    /// # Errors
    /// If there is none, or it does not open with these key-encryption keys.
    pub async fn load(database: Database, key_encryption: KeyEncryption) -> Result<Self, Error> {
        let mut connection = database.service.acquire().await?;
        let snapshot = read(&mut connection, &key_encryption.held()).await?.ok_or(Error::Empty)?;
        drop(connection);
        Ok(Self::holding(database, key_encryption, snapshot))
    }

    /// A ring that was just made and is not in the database yet.
    ///
    /// # Errors
    /// If its manifest does not verify.
    pub fn with(database: Database, key_encryption: KeyEncryption, ring: Ring) -> Result<Self, Error> {
        Ok(Self::holding(database, key_encryption, Snapshot::new(ring)?))
    }

    fn holding(database: Database, key_encryption: KeyEncryption, snapshot: Snapshot) -> Self {
        Self { database, key_encryption, current: Arc::new(RwLock::new(Arc::new(snapshot))) }
    }

    /// The ring now.
    #[must_use]
    pub fn current(&self) -> Arc<Snapshot> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the ring again, if the database has a newer one.
    ///
    /// # Errors
    /// If it cannot be read, or an older one than this node has used stands there: the database was set back.
    pub async fn reload(&self) -> Result<(), Error> {
        let used = self.current().serial;
        let mut connection = self.database.service.acquire().await?;
        let snapshot = read(&mut connection, &self.key_encryption.held()).await?.ok_or(Error::Empty)?;
        self.replace(snapshot, used)
    }

    /// Takes a ring that was read when this node had used the serial `used`. Another task may have read a newer one
    /// meanwhile, which stays.
    fn replace(&self, snapshot: Snapshot, used: i64) -> Result<(), Error> {
        if snapshot.serial < used {
            return Err(Error::Manifest(format!(
                "the database has serial {}, but this node has used {used}",
                snapshot.serial
            )));
        }
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if snapshot.serial >= current.serial {
            *current = Arc::new(snapshot);
        }
        Ok(())
    }

    /// Changes the ring: `operation` makes a change of the newest ring, which is written with its events in one
    /// transaction. A crash before its commit leaves the old ring; a root file that was written then belongs to no
    /// ring and can be deleted.
    ///
    /// # Errors
    /// If the operation refuses, or the database does not confirm.
    pub async fn change<T>(
        &self,
        writer: &Writer,
        act: &Act,
        instance_workspace: WorkspaceId,
        operation: impl FnOnce(&Ring, Timestamp) -> Result<(Change, T), Error>,
    ) -> Result<T, Error> {
        let mut locked = writer.lock_for_rotation(instance_workspace).await?;
        let used = self.current().serial;
        let ring = read(&mut locked, &self.key_encryption.held()).await?.ok_or(Error::Empty)?;
        self.replace(ring, used)?;
        let snapshot = self.current();
        // The events are recorded under the ring that is being left, at the very time of the change: the retired
        // key's window includes it.
        let micros = unix_micros().max(locked.recorded_at());
        let now = Timestamp::from_unix_micros(micros).unwrap_or_else(Timestamp::now);
        let (change, value) = operation(snapshot.ring(), now)?;
        let mut drafts: Vec<Draft> = change
            .events
            .iter()
            .map(|e| Draft::new(e.event_type.as_str(), e.data.clone()))
            .collect::<Result<_, _>>()
            .map_err(|e| Error::Manifest(e.to_string()))?;
        let what = change.events.iter().map(|e| Value::String(e.event_type.as_str().into())).collect();
        let record = act.of(Action::KeyRingChanged).detail("change", Value::Array(what));
        drafts.push(record.draft().map_err(|e| Error::Manifest(e.to_string()))?);
        locked.append_at(&drafts, micros).await?;
        let key_encryption_key = self.key_encryption.sealing_key(&mut locked).await?;
        store(&mut locked, &change.to_stored(&key_encryption_key)?).await?;
        locked.commit().await?;
        self.reload().await?;
        // Other nodes hear of it at once; who does not hear finds out within a minute, or by being refused.
        let told =
            sqlx::query!("SELECT pg_notify($1, '') AS x", CHANGED).fetch_one(&self.database.worker).await;
        if let Err(e) = told {
            tracing::debug!(error = %e, "other nodes will find out by looking");
        }
        Ok(value)
    }
}

/// Publishes a manifest whose ledger of the instance's events is `ledger`, in the transaction that begins it; answers the
/// events for that ledger. `lent` is the file of a root that is offline. The caller holds the ring's lock.
///
/// # Errors
/// If the root is offline and not lent, or the database refuses.
pub async fn continue_in(
    tx: &mut WorkspaceTx,
    key_encryption: &KeyEncryption,
    ledger: LedgerId,
    lent: Option<&RootFile>,
    now: Timestamp,
) -> Result<Vec<Draft>, Error> {
    let snapshot = read(tx, &key_encryption.held()).await?.ok_or(Error::Empty)?;
    let ring = lent.map(|root| snapshot.ring.with_root(root)).transpose()?;
    let change = ring.as_ref().unwrap_or(&snapshot.ring).continue_in(&ledger.to_string(), now)?;
    let drafts = change.events.iter().map(|e| Draft::new(e.event_type.as_str(), e.data.clone()));
    let drafts = drafts.collect::<Result<_, _>>().map_err(|e| Error::Manifest(e.to_string()))?;
    let key_encryption_key = key_encryption.sealing_key(tx).await?;
    store(tx, &change.to_stored(&key_encryption_key)?).await?;
    Ok(drafts)
}

/// Reads the newest ring.
async fn read(connection: &mut PgConnection, held: &HeldKeys) -> Result<Option<Snapshot>, Error> {
    // One statement, so that manifest and keys are those of one moment: a rotation may commit between two.
    let rows = sqlx::query!(
        "SELECT m.serial, m.document, k.key_id, k.purpose, k.private_key
         FROM (SELECT serial, document FROM key_manifests ORDER BY serial DESC LIMIT 1) m, signing_keys k"
    )
    .fetch_all(&mut *connection)
    .await?;
    let Some(manifest) = rows.first().map(|row| (row.serial, row.document.clone().into_bytes())) else {
        return Ok(None);
    };
    let mut keys = Vec::with_capacity(rows.len());
    for row in rows {
        let wrong = |what: &str| Error::Manifest(format!("a row of signing_keys has a wrong {what}"));
        keys.push(StoredKey {
            key_id: KeyId(row.key_id.try_into().map_err(|_| wrong("key_id"))?),
            purpose: parse_purpose(&row.purpose).map_err(|_| wrong("purpose"))?,
            ciphertext: row.private_key,
        });
    }
    let serial = u64::try_from(manifest.0).map_err(|e| Error::Manifest(e.to_string()))?;
    let stored = StoredRing { manifest: StoredManifest { serial, document: manifest.1 }, keys };
    Ok(Some(Snapshot::new(Ring::from_stored(&stored, held)?)?))
}

/// Writes a change of the ring. The manifest's serial is its primary key: of two changes made from one ring, the
/// second is refused.
///
/// # Errors
/// If the database refuses.
pub async fn store(tx: &mut WorkspaceTx, change: &StoredChange) -> Result<(), Error> {
    if let Some(manifest) = &change.manifest {
        let document = std::str::from_utf8(&manifest.document).map_err(|e| Error::Manifest(e.to_string()))?;
        sqlx::query!(
            "INSERT INTO key_manifests (serial, document) VALUES ($1, $2)",
            manifest.serial as i64,
            document
        )
        .execute(&mut **tx)
        .await?;
    }
    for key in &change.insert {
        sqlx::query!(
            "INSERT INTO signing_keys (key_id, purpose, private_key) VALUES ($1, $2, $3)",
            &key.key_id.0[..],
            key.purpose.to_string(),
            key.ciphertext.as_deref()
        )
        .execute(&mut **tx)
        .await?;
    }
    for key_id in &change.erase {
        sqlx::query!("UPDATE signing_keys SET private_key = NULL WHERE key_id = $1", &key_id.0[..])
            .execute(&mut **tx)
            .await?;
    }
    Ok(())
}

/// Takes the lock that a change of the ring needs, until the transaction ends.
///
/// # Errors
/// If the database does not answer.
pub async fn lock(tx: &mut WorkspaceTx) -> Result<(), sqlx::Error> {
    sqlx::query!("SELECT pg_advisory_xact_lock($1) AS x", RING_LOCK).fetch_one(&mut **tx).await?;
    Ok(())
}
