//! The key-encryption keys of a node: where they come from, which one seals, and the replacing of one by another.
//!
//! A node holds one or several ([`HeldKeys`]), all from its settings: a file, the environment, AWS KMS ([`kms`]). It
//! opens with whichever a ciphertext names. It **seals** under the one that the row of `instance` names, read in the
//! transaction that writes, so all nodes change over together and nothing is written under the old key afterwards.
//! [`rewrap`] changes that row and then brings everything else under the new key; [`holders`] is how it knows that no
//! node would be left without it.

pub mod holders;
pub mod kms;
pub mod rewrap;

use crate::config::Settings;
use crate::database::Database;
use crate::instance::Instance;
use kms::{Kms, Wrapped};
use sqlx::PgConnection;
use statusledger_keys::held_keys::HeldKeys;
use statusledger_keys::key_encryption::{KeyEncryptionError, KeyEncryptionKey, KeyEncryptionSource};
use statusledger_keys::sealing::SealingKeyId;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use zeroize::Zeroizing;

/// The key itself, in the environment.
const VARIABLE: &str = "STATUSLEDGER_KEY_ENCRYPTION_KEY";

/// Key-encryption keys that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database.
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    /// A file or a variable does not give a key.
    #[error("the key-encryption key ({place}) cannot be used: {}", with_cause(source))]
    Unusable {
        /// Where it was looked for.
        place: String,
        /// What is wrong there.
        source: KeyEncryptionError,
    },
    /// What KMS gave is not a key.
    #[error("AWS KMS gave no key: {0}")]
    Key(#[from] KeyEncryptionError),
    /// KMS is to be used, and nothing says in which region.
    #[error("AWS KMS needs a region: set kms.region, or name the key by its ARN")]
    Region,
    /// KMS did not answer, or there are no credentials to ask it with.
    #[error("AWS KMS cannot be asked to {what} ({by}): {why}")]
    Unreachable {
        /// What it was to do.
        what: &'static str,
        /// By which KMS key, in which region, and at which endpoint.
        by: String,
        /// What the SDK says.
        why: String,
    },
    /// KMS answered that it will not.
    #[error("AWS KMS refuses to {what} ({by}): {said}; {advice}")]
    Refused {
        /// What it was to do.
        what: &'static str,
        /// By which KMS key, in which region, and at which endpoint.
        by: String,
        /// KMS's name of the error, and its words.
        said: String,
        /// Ours.
        advice: String,
    },
    /// An answer of KMS lacks what it has to have.
    #[error("AWS KMS answered without a key ({kms_key})")]
    Answer {
        /// The KMS key asked.
        kms_key: String,
    },
    /// What KMS unwrapped is another key than its row says.
    #[error("the stored key {stored} unwraps to another one, {found}: its row was altered")]
    Mismatch {
        /// The row's.
        stored: SealingKeyId,
        /// The key's own id.
        found: SealingKeyId,
    },
    /// Secrets stand under a key that this process does not hold.
    #[error(
        "the instance's secrets are sealed under key-encryption key {needed}, and held is {held:?}: {advice}"
    )]
    NotHeld {
        /// The key that is missing.
        needed: SealingKeyId,
        /// Those that are there.
        held: Vec<SealingKeyId>,
        /// What to set.
        advice: String,
    },
    /// A stored id that is none.
    #[error("the database holds a key id of {0} bytes, and it has 8")]
    Id(usize),
}

fn with_cause(error: &KeyEncryptionError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

pub(crate) fn id(bytes: &[u8]) -> Result<SealingKeyId, Error> {
    bytes.try_into().map(SealingKeyId::from_bytes).map_err(|_| Error::Id(bytes.len()))
}

/// A process's key-encryption keys, shared by its tasks.
#[derive(Clone)]
pub struct KeyEncryption(Arc<Inner>);

struct Inner {
    kms: Option<Kms>,
    /// What a new instance is sealed under, and, where KMS made it just now, how it is to be stored.
    first: SealingKeyId,
    first_wrapped: Option<(Vec<u8>, String)>,
    /// Replaced as a whole by whoever has learnt of another key; locked for that alone.
    held: RwLock<HeldKeys>,
}

impl std::fmt::Debug for KeyEncryption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("KeyEncryption").field(&self.held()).finish()
    }
}

impl KeyEncryption {
    /// Fetches the keys that the settings name. A file is made, and KMS asked for a new key, only where the database
    /// has no instance yet, which then is to be called `name`. Nothing is written to the database.
    ///
    /// # Errors
    /// If a key cannot be had; the message names where it was looked for. A wrapped key that is not needed, and that
    /// KMS does not unwrap, is only logged.
    pub async fn load(settings: &Settings, name: &str, database: &Database) -> Result<Self, Error> {
        let instance = Instance::read(database).await?;
        let kms = Kms::new(&settings.kms).await?;
        let mut held = HeldKeys::default();
        let mut first = None;
        for (source, place) in sources(settings, instance.is_some()) {
            let key = source.load().map_err(|source| Error::Unusable { place, source })?;
            first.get_or_insert(key.id());
            held = held.with(Arc::new(key));
        }
        let mut first_wrapped = None;
        if let (None, Some(kms)) = (&instance, &kms) {
            let Wrapped { key, blob, kms_key } = kms.generate(name).await?;
            first = Some(key.id());
            first_wrapped = Some((blob, kms_key));
            held = held.with(Arc::new(key));
        }
        let current = match &instance {
            Some(_) => Some(current(&mut *database.service.acquire().await?).await?),
            None => None,
        };
        let first = current.flatten().or(first).expect("without an instance a file is made, or a key by KMS");
        let inner = Inner { kms, first, first_wrapped, held: RwLock::new(held) };
        let this = Self(Arc::new(inner));
        if let Some(instance) = instance {
            for (key, error) in this.learn(database, &instance.name).await? {
                if key == first {
                    return Err(error);
                }
                tracing::warn!(%key, %error, "a wrapped key-encryption key cannot be unwrapped");
            }
        }
        Ok(this)
    }

    /// The keys held now.
    #[must_use]
    pub fn held(&self) -> HeldKeys {
        self.0.held.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// KMS, where the settings name a key of it.
    #[must_use]
    pub fn kms(&self) -> Option<&Kms> {
        self.0.kms.as_ref()
    }

    fn hold(&self, key: Arc<KeyEncryptionKey>) {
        let mut held = self.0.held.write().unwrap_or_else(PoisonError::into_inner);
        *held = std::mem::take(&mut *held).with(key);
    }

    /// Unwraps what is stored and not held yet. Answers the keys that KMS did not unwrap. Asks KMS, so it is not to be
    /// called while a transaction is open.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn learn(
        &self,
        database: &Database,
        instance: &str,
    ) -> Result<Vec<(SealingKeyId, Error)>, Error> {
        let Some(kms) = &self.0.kms else { return Ok(Vec::new()) };
        let rows = sqlx::query!("SELECT key_id, wrapped FROM key_encryption_keys ORDER BY created_at")
            .fetch_all(&database.service)
            .await?;
        let mut failed = Vec::new();
        for row in rows {
            let stored = id(&row.key_id)?;
            if self.held().get(stored).is_some() {
                continue;
            }
            match kms.unwrap(instance, &row.wrapped).await {
                Ok(key) if key.id() == stored => self.hold(Arc::new(key)),
                Ok(key) => failed.push((stored, Error::Mismatch { stored, found: key.id() })),
                Err(e) => failed.push((stored, e)),
            }
        }
        Ok(failed)
    }

    /// The key to seal under, which stays the one until the transaction of `connection` ends. Before there is an
    /// instance, that is the one that it is made with.
    ///
    /// # Errors
    /// [`Error::NotHeld`], or if the database does not answer.
    pub async fn sealing_key(&self, connection: &mut PgConnection) -> Result<Arc<KeyEncryptionKey>, Error> {
        let needed = current(connection).await?.unwrap_or(self.0.first);
        match self.held().get(needed) {
            Some(key) => Ok(Arc::clone(key)),
            None => Err(self.not_held(connection, needed).await?),
        }
    }

    /// Checks that every key is held under which something may stand: the current one, and those that are being
    /// replaced.
    ///
    /// # Errors
    /// [`Error::NotHeld`], or if the database does not answer.
    pub async fn check(&self, connection: &mut PgConnection) -> Result<(), Error> {
        self.sealing_key(&mut *connection).await?;
        let old = sqlx::query_scalar!("SELECT old_key FROM key_encryption_rewraps WHERE finished_at IS NULL")
            .fetch_all(&mut *connection)
            .await?;
        for old in old {
            let needed = id(&old)?;
            if self.held().get(needed).is_none() {
                return Err(self.not_held(connection, needed).await?);
            }
        }
        Ok(())
    }

    async fn not_held(&self, connection: &mut PgConnection, needed: SealingKeyId) -> Result<Error, Error> {
        let kms_key = sqlx::query_scalar!(
            "SELECT kms_key FROM key_encryption_keys WHERE key_id = $1",
            &needed.as_bytes()[..]
        )
        .fetch_optional(connection)
        .await?;
        let advice = match kms_key {
            Some(kms_key) => format!("AWS KMS keeps it, wrapped by {kms_key}: set kms.key or kms.other_keys to that"),
            None => {
                "name its file as key_encryption_key_file, or among key_encryption_key_other_files while it is being replaced".into()
            }
        };
        Ok(Error::NotHeld { needed, held: self.held().ids(), advice })
    }

    /// Stores the key that a new instance is made with, in the transaction that makes it; answers its id. A crash
    /// before the commit leaves nothing: what KMS wrapped is then kept by nobody.
    ///
    /// # Errors
    /// If the database refuses.
    pub async fn store_first(&self, connection: &mut PgConnection) -> Result<SealingKeyId, Error> {
        let first = self.0.first;
        if let Some((blob, kms_key)) = &self.0.first_wrapped {
            store(connection, first, kms_key, blob).await?;
        }
        Ok(first)
    }
}

/// Where a node's own keys are, the one that a new instance is made with first.
fn sources(settings: &Settings, exists: bool) -> Vec<(KeyEncryptionSource, String)> {
    let file = |path: &Path| (KeyEncryptionSource::File(path.to_owned()), path.display().to_string());
    let path: PathBuf = settings.key_encryption_key_path();
    let with_kms = settings.kms.key.is_some();
    let mut sources = Vec::new();
    match std::env::var(VARIABLE) {
        Ok(value) => {
            sources.push((KeyEncryptionSource::Value(Zeroizing::new(value)), VARIABLE.to_owned()));
        }
        // With KMS there need not be a file; one that lies where files used to is still good for what is under it.
        Err(_) if with_kms && settings.key_encryption_key_file.is_none() && !path.exists() => {}
        // Beside an instance a missing file is a mount that failed or a wrong directory, not a first run: a new key
        // would open nothing.
        Err(_) if with_kms || exists => sources.push(file(&path)),
        Err(_) => {
            sources.push((KeyEncryptionSource::CreatedFile(path.clone()), path.display().to_string()));
        }
    }
    sources.extend(settings.key_encryption_key_other_files.iter().map(|path| file(path)));
    sources
}

/// The key that everything is sealed under from now on, kept from changing until the transaction ends; none where there
/// is no instance.
async fn current(connection: &mut PgConnection) -> Result<Option<SealingKeyId>, Error> {
    let current = sqlx::query_scalar!("SELECT key_encryption_key FROM instance FOR SHARE")
        .fetch_optional(connection)
        .await?;
    current.map(|bytes| id(&bytes)).transpose()
}

async fn store(
    connection: &mut PgConnection,
    key: SealingKeyId,
    kms_key: &str,
    wrapped: &[u8],
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO key_encryption_keys (key_id, kms_key, wrapped) VALUES ($1, $2, $3)",
        &key.as_bytes()[..],
        kms_key,
        wrapped
    )
    .execute(connection)
    .await?;
    Ok(())
}
