//! Data keys, one a workspace, and the cells that they seal.
//!
//! A ciphertext opens only in the cell it was written to: workspace, table, row and column are authenticated with
//! it. The keys lie in the database, wrapped by the key-encryption key, which only the nodes hold.

use crate::database::{Database, WorkspaceTx};
use crate::id::{DestinationId, LedgerId, SourceId, WorkspaceId};
use crate::key_encryption::{self, KeyEncryption};
use statusledger_keys::envelope::{Cell, DataKey};
use statusledger_keys::sealing::SealError;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use zeroize::Zeroizing;

/// A data key that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database.
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    /// There is no key-encryption key to seal it under.
    #[error(transparent)]
    KeyEncryption(key_encryption::Error),
    /// The key does not unwrap, or a value does not open.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The workspace has none: it does not exist, or its data was destroyed.
    #[error("the workspace {0} has no data key")]
    Missing(WorkspaceId),
}

impl From<key_encryption::Error> for Error {
    fn from(e: key_encryption::Error) -> Self {
        match e {
            key_encryption::Error::Sql(e) => Self::Sql(e),
            e => Self::KeyEncryption(e),
        }
    }
}

/// The data keys of the workspaces that this node has worked for, unwrapped. Shared by all tasks; the map is locked
/// for look-ups only.
#[derive(Clone)]
pub struct DataKeys {
    database: Database,
    key_encryption: KeyEncryption,
    known: Arc<Mutex<HashMap<WorkspaceId, Arc<DataKey>>>>,
}

impl std::fmt::Debug for DataKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DataKeys").finish_non_exhaustive()
    }
}

impl DataKeys {
    /// Over `database`, with the node's key-encryption keys.
    #[must_use]
    pub fn new(database: Database, key_encryption: KeyEncryption) -> Self {
        Self { database, key_encryption, known: Arc::default() }
    }

    /// The workspace's data key.
    ///
    /// # Errors
    /// If it has none, or it does not unwrap.
    pub async fn get(&self, workspace: WorkspaceId) -> Result<Arc<DataKey>, Error> {
        if let Some(key) = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&workspace) {
            return Ok(Arc::clone(key));
        }
        let mut tx = self.database.workspace(workspace).await?;
        let key = self.within(&mut tx).await?;
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(workspace, Arc::clone(&key));
        Ok(key)
    }

    /// The workspace's data key as `tx` sees it, perhaps not committed yet, so it is not remembered.
    ///
    /// # Errors
    /// If it has none, or it does not unwrap.
    pub async fn within(&self, tx: &mut WorkspaceTx) -> Result<Arc<DataKey>, Error> {
        let workspace = tx.workspace;
        let wrapped = sqlx::query_scalar!(
            "SELECT wrapped_key FROM data_keys WHERE workspace_id = $1",
            workspace.uuid()
        )
        .fetch_optional(&mut **tx)
        .await?
        .ok_or(Error::Missing(workspace))?;
        Ok(Arc::new(DataKey::unwrap(&self.key_encryption.held(), *workspace.uuid().as_bytes(), &wrapped)?))
    }

    /// Forgets the key of a workspace whose key was destroyed.
    pub fn forget(&self, workspace: WorkspaceId) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(&workspace);
    }

    /// The workspaces whose keys are in memory.
    #[must_use]
    pub fn known(&self) -> Vec<WorkspaceId> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    /// Makes the workspace's data key, in the transaction that makes the workspace.
    ///
    /// # Errors
    /// If it has one already, or the database does not answer.
    pub async fn create(&self, tx: &mut WorkspaceTx) -> Result<(), Error> {
        let workspace = tx.workspace;
        let key = DataKey::generate(*workspace.uuid().as_bytes())?;
        let wrapped = key.wrap(&*self.key_encryption.sealing_key(tx).await?)?;
        sqlx::query!(
            "INSERT INTO data_keys (workspace_id, wrapped_key) VALUES ($1, $2)",
            workspace.uuid(),
            wrapped
        )
        .execute(&mut **tx)
        .await?;
        Ok(())
    }
}

/// Seals an opening for its row.
///
/// # Errors
/// If it is too long for a message of the cipher.
pub fn seal_opening(
    key: &DataKey,
    ledger: LedgerId,
    seq: u64,
    name: &str,
    opening: &[u8],
) -> Result<Vec<u8>, SealError> {
    let (ledger, seq) = (ledger.uuid(), seq.to_be_bytes());
    key.seal(
        &Cell { table: "openings", row: &[ledger.as_bytes(), &seq, name.as_bytes()], column: "sealed" },
        opening,
    )
}

/// Opens an opening from its row.
///
/// # Errors
/// If it was sealed by another key or for another row, or was changed.
pub fn open_opening(
    key: &DataKey,
    ledger: LedgerId,
    seq: u64,
    name: &str,
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let (ledger, seq) = (ledger.uuid(), seq.to_be_bytes());
    key.open(
        &Cell { table: "openings", row: &[ledger.as_bytes(), &seq, name.as_bytes()], column: "sealed" },
        sealed,
    )
}

/// A column that holds a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretColumn {
    /// `sources.secret`: a store key.
    SourceSecret(SourceId),
    /// `sources.webhook_secret`: what the store signs its webhooks with.
    SourceWebhookSecret(SourceId),
    /// `destinations.secret`: the `whsec_` secret in use.
    DestinationSecret(DestinationId),
    /// `destinations.previous_secret`: the one before, during a rotation.
    DestinationPreviousSecret(DestinationId),
    /// `destinations.url`: where to, which can hold a token.
    DestinationUrl(DestinationId),
    /// `sources.settings`: how a store is asked, as JSON; it can hold an account's address.
    SourceSettings(SourceId),
}

impl SecretColumn {
    fn with_cell<T>(self, f: impl FnOnce(&Cell<'_>) -> T) -> T {
        let (table, row, column) = match self {
            Self::SourceSecret(id) => ("sources", id.uuid(), "secret"),
            Self::SourceWebhookSecret(id) => ("sources", id.uuid(), "webhook_secret"),
            Self::DestinationSecret(id) => ("destinations", id.uuid(), "secret"),
            Self::DestinationPreviousSecret(id) => ("destinations", id.uuid(), "previous_secret"),
            Self::DestinationUrl(id) => ("destinations", id.uuid(), "url"),
            Self::SourceSettings(id) => ("sources", id.uuid(), "settings"),
        };
        f(&Cell { table, row: &[row.as_bytes()], column })
    }

    /// Seals a secret for this column.
    ///
    /// # Errors
    /// If it is too long for a message of the cipher.
    pub fn seal(self, key: &DataKey, secret: &[u8]) -> Result<Vec<u8>, SealError> {
        self.with_cell(|cell| key.seal(cell, secret))
    }

    /// Opens a secret of this column.
    ///
    /// # Errors
    /// If it was sealed by another key or for another place, or was changed.
    pub fn open(self, key: &DataKey, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        self.with_cell(|cell| key.open(cell, sealed))
    }
}

/// The place of an attempt's answer: destination, number and attempt.
fn answer_cell<T>(
    (destination, number, attempt): (DestinationId, i64, i32),
    f: impl FnOnce(&Cell<'_>) -> T,
) -> T {
    let (id, number, attempt) = (destination.uuid(), number.to_be_bytes(), attempt.to_be_bytes());
    f(&Cell { table: "attempts", row: &[id.as_bytes(), &number, &attempt], column: "answer" })
}

/// Seals what a receiver answered to an attempt: destination, number of the delivery, which attempt.
///
/// # Errors
/// If it is too long for a message of the cipher.
pub fn seal_answer(
    key: &DataKey,
    attempt: (DestinationId, i64, i32),
    answer: &str,
) -> Result<Vec<u8>, SealError> {
    answer_cell(attempt, |cell| key.seal(cell, answer.as_bytes()))
}

/// Opens it.
///
/// # Errors
/// If it was sealed by another key or for another attempt, or was changed.
pub fn open_answer(
    key: &DataKey,
    attempt: (DestinationId, i64, i32),
    sealed: &[u8],
) -> Result<String, SealError> {
    let opened = answer_cell(attempt, |cell| key.open(cell, sealed))?;
    Ok(String::from_utf8_lossy(&opened).into_owned())
}
