//! Append: the only writer of entries.
//!
//! Two ways lead to the one SQL function that inserts (`statement`):
//!
//! * [`Writer::append`], the group commit. Requests for a workspace queue at its `committer`, a task that takes what
//!   has gathered while the last batch was being committed, builds it on the head it remembers, and sends it as one
//!   statement, in one commit with other workspaces' where those wait too (`shared_commit`). The function compares the
//!   remembered head with the real one; when another process has appended in between, nothing is written and the batch is
//!   built again. So the chain's lock costs one commit a batch.
//! * [`Locked`], a transaction that holds the head's lock from its start. What it changes besides (a subject, a
//!   destination, a source) commits with the entry or not at all.
//!
//! A lost connection leaves it unknown whether a batch was committed. The very same batch is then sent again
//! (`attempt`): either the head is still where it was, and it is written now, or the entry at the batch's first place is
//! the batch's own (its nonce is random), and it was written before.

mod attempt;
mod committer;
mod connections;
mod locked;
mod shared_commit;
mod statement;

pub use locked::Locked;
pub(crate) use statement::entry_type;

use super::batch::{Batch, Head, Recorded};
use super::checkpoint::SignedTree;
use super::draft::{Draft, IdempotencyKey};
use crate::access::door::standing::Lapse;
use crate::database::{Database, WorkspaceTx};
use crate::delivery::Outbox;
use crate::delivery::routes::Routes;
use crate::id::{LedgerId, NodeId, WorkspaceId};
use crate::keyring::{Keyring, Snapshot};
use crate::sealing::{self, DataKeys};
use committer::{QUEUE, Request, commit_batches};
use connections::Connections;
use shared_commit::SharedCommit;
use statement::Lanes;
use statusledger_verify::Hash;
use statusledger_verify::time::Timestamp;
use statusledger_verify::tree::Frontier;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, oneshot};

/// Shared by every append, exclusive to a rotation of the keys (`migrations/0001_spine.sql`).
pub(crate) const RING_LOCK: i64 = 1_397_489_665;

/// An entry that was not recorded.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The workspace does not exist.
    #[error("the workspace {0} does not exist")]
    NoWorkspace(WorkspaceId),
    /// The idempotency key was used before.
    #[error("the idempotency key was used before")]
    KeyTaken(Prior),
    /// The database did not answer in time; whether the entry was recorded is unknown.
    #[error("the database does not answer; whether the entry was recorded is not known: {0}")]
    Unavailable(Arc<sqlx::Error>),
    /// The database refused.
    #[error("the database refused the entry: {0}")]
    Sql(Arc<sqlx::Error>),
    /// The workspace's data key cannot be had.
    #[error("{0}")]
    Sealing(Arc<sealing::Error>),
    /// What was to be recorded cannot be an entry.
    #[error(transparent)]
    Draft(#[from] super::draft::Error),
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopping,
    /// Something was changed since it was compared; nothing is recorded.
    #[error("something was changed meanwhile")]
    Moved,
    /// The node has not compared this server's histories with what was signed yet; nothing is recorded.
    #[error("the database was replaced, and its histories are not compared with what was signed yet")]
    Uncompared,
    /// The ledger lacks entries that were signed; nothing is recorded.
    #[error("the ledger of workspace {0} lacks entries that were signed: nothing is added to it")]
    Lost(WorkspaceId),
    /// What allows the entry was looked up before the workspace's routes were changed: it is to be looked up again. Nothing
    /// is recorded.
    #[error("what allows the entry has to be looked up again")]
    Outdated,
    /// The idempotency key that the request claimed is another's by now; nothing is recorded.
    #[error("the idempotency key is no longer this request's")]
    ClaimLost,
    /// Whoever asked may not do so any more; nothing is recorded.
    #[error("whoever asked may not do so any more: {0}")]
    Lapsed(Lapse),
    /// What the request asks of its transaction cannot be kept: a fault of ours.
    #[error("the terms of a request cannot be kept: {0}")]
    Terms(&'static str),
}

impl From<sqlx::Error> for Error {
    fn from(e: sqlx::Error) -> Self {
        Self::Sql(Arc::new(e))
    }
}

impl From<sealing::Error> for Error {
    fn from(e: sealing::Error) -> Self {
        Self::Sealing(Arc::new(e))
    }
}

/// What an idempotency key was used for before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prior {
    /// SHA-256 of the body it came with.
    pub body_hash: [u8; 32],
    /// The entry that was recorded then.
    pub seq: u64,
    /// When.
    pub timestamp: Timestamp,
}

/// The writer of all ledgers. Cloned freely; clones share the committers.
#[derive(Clone, Debug)]
pub struct Writer(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    database: Database,
    keyring: Keyring,
    data_keys: DataKeys,
    /// The node that sends; a command sends nothing and takes no lanes.
    node: Option<NodeId>,
    outbox: Outbox,
    /// What batches are sent on.
    connections: Connections,
    /// Those that wait for one of them.
    shared_commit: SharedCommit,
    /// A committer's door by workspace. Locked for look-ups only.
    committers: Mutex<HashMap<WorkspaceId, mpsc::Sender<Request>>>,
    /// The newest head known by workspace; a hint, since the SQL function compares. Locked for look-ups only.
    heads: Mutex<HashMap<WorkspaceId, Head>>,
}

impl Writer {
    /// A writer for `node` (none: a command beside the nodes), which hands what is to be delivered to `outbox`.
    #[must_use]
    pub fn new(
        database: Database,
        keyring: Keyring,
        data_keys: DataKeys,
        node: Option<NodeId>,
        outbox: Outbox,
    ) -> Self {
        let most = database.service.options().get_max_connections().div_ceil(2).max(2);
        let connections = Connections::new((*database.service.connect_options()).clone(), most as usize);
        Self(Arc::new(Shared {
            connections,
            shared_commit: SharedCommit::default(),
            database,
            keyring,
            data_keys,
            node,
            outbox,
            committers: Mutex::default(),
            heads: Mutex::default(),
        }))
    }

    /// Records `draft` and returns once it is durable, with others that arrive meanwhile in one commit.
    ///
    /// # Errors
    /// If it was not recorded, or (only [`Error::Unavailable`]) if that is not known.
    pub async fn append(&self, workspace: WorkspaceId, draft: Draft) -> Result<Recorded, Error> {
        if !draft.terms.is_empty() {
            return Err(Error::Terms("a change is recorded without the head's lock"));
        }
        let (reply, answer) = oneshot::channel();
        let mut request = Request { draft, reply };
        loop {
            let door = self.committer(workspace);
            match door.send(request).await {
                Ok(()) => return answer.await.unwrap_or(Err(Error::Stopping)),
                // It went idle between look-up and sending: the next look-up makes a new one.
                Err(mpsc::error::SendError(back)) => request = back,
            }
        }
    }

    /// Begins a transaction that holds the workspace's head.
    ///
    /// # Errors
    /// If the workspace does not exist, or the database does not answer.
    pub async fn lock(&self, workspace: WorkspaceId) -> Result<Locked, Error> {
        let data_key = self.0.data_keys.get(workspace).await.map_err(|e| match e {
            sealing::Error::Missing(workspace) => Error::NoWorkspace(workspace),
            e => e.into(),
        })?;
        let mut tx = self.0.database.workspace(workspace).await?;
        // Before the head's lock, as in every other order of the two a rotation could wait for us and we for it.
        sqlx::query!("SELECT pg_advisory_xact_lock_shared($1) AS x", RING_LOCK).fetch_one(&mut *tx).await?;
        Locked::adopt(self.clone(), tx, workspace, data_key).await
    }

    /// The same, and nobody else fixes a receipt to a key until it ends.
    ///
    /// # Errors
    /// If the workspace does not exist, or the database does not answer.
    pub async fn lock_for_rotation(&self, workspace: WorkspaceId) -> Result<Locked, Error> {
        let data_key = self.0.data_keys.get(workspace).await?;
        let mut tx = self.0.database.workspace(workspace).await?;
        crate::keyring::lock(&mut tx).await?;
        Locked::adopt(self.clone(), tx, workspace, data_key).await
    }

    /// The database it writes to.
    #[must_use]
    pub fn database(&self) -> &Database {
        &self.0.database
    }

    /// The data keys it seals with.
    #[must_use]
    pub fn data_keys(&self) -> &DataKeys {
        &self.0.data_keys
    }

    fn committer(&self, workspace: WorkspaceId) -> mpsc::Sender<Request> {
        let mut committers = self.0.committers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(door) = committers.get(&workspace).filter(|door| !door.is_closed()) {
            return door.clone();
        }
        let (door, requests) = mpsc::channel(QUEUE);
        committers.insert(workspace, door.clone());
        tokio::spawn(commit_batches(self.clone(), workspace, requests));
        door
    }

    fn remembered(&self, workspace: WorkspaceId) -> Option<Head> {
        self.0.heads.lock().unwrap_or_else(PoisonError::into_inner).get(&workspace).cloned()
    }

    fn remember(&self, head: Head) {
        self.0.heads.lock().unwrap_or_else(PoisonError::into_inner).insert(head.workspace, head);
    }

    async fn head(&self, workspace: WorkspaceId) -> Result<Head, Error> {
        if let Some(head) = self.remembered(workspace) {
            return Ok(head);
        }
        let mut tx = self.0.database.workspace(workspace).await?;
        let head = read_head(&mut tx, workspace, false).await?.ok_or(Error::NoWorkspace(workspace))?;
        self.remember(head.clone());
        Ok(head)
    }

    /// The newest heads that this process knows to be durable, as trees: what it has acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> Vec<(LedgerId, SignedTree)> {
        let heads = self.0.heads.lock().unwrap_or_else(PoisonError::into_inner);
        let tree = |head: &Head| SignedTree { size: head.frontier.size(), root: head.frontier.root() };
        heads.values().map(|head| (head.ledger, tree(head))).collect()
    }

    fn forget(&self, workspace: WorkspaceId) {
        self.0.heads.lock().unwrap_or_else(PoisonError::into_inner).remove(&workspace);
    }
}

/// A batch that is durable, and the lanes that its deliveries joined.
struct Written {
    batch: Arc<Batch>,
    lanes: Lanes,
    ring: Arc<Snapshot>,
}

impl std::fmt::Debug for Written {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Written").field("entries", &self.batch.entries.len()).finish_non_exhaustive()
    }
}

/// What `key` was used for within the last 24 hours, if it was.
///
/// # Errors
/// If the database does not answer.
pub async fn read_prior(tx: &mut WorkspaceTx, key: &IdempotencyKey) -> Result<Option<Prior>, sqlx::Error> {
    let workspace = tx.workspace;
    let row = sqlx::query!(
        "SELECT body_hash, seq, recorded_at FROM idempotency_keys
          WHERE workspace_id = $1 AND source_id = $2 AND key = $3 AND expires_at > now()",
        workspace.uuid(),
        key.source.uuid(),
        key.key
    )
    .fetch_optional(&mut **tx)
    .await?;
    Ok(row.and_then(|row| {
        Some(Prior {
            body_hash: row.body_hash.try_into().ok()?,
            seq: row.seq as u64,
            timestamp: Timestamp::from_unix_micros(row.recorded_at)?,
        })
    }))
}

/// Reads the workspace's head and its destinations, both of one moment; with `lock`, until the transaction ends. A
/// workspace that was ended has none to write on: this node may still have its data key. (A head that is remembered from
/// before has moved: its end is an entry.)
async fn read_head(
    tx: &mut WorkspaceTx,
    workspace: WorkspaceId,
    lock: bool,
) -> Result<Option<Head>, sqlx::Error> {
    if lock {
        sqlx::query!(
            "SELECT 1 AS x FROM heads h JOIN workspaces w USING (workspace_id, ledger_id)
              WHERE h.workspace_id = $1 FOR UPDATE OF h",
            workspace.uuid()
        )
        .fetch_optional(&mut **tx)
        .await?;
    }
    let Some(row) = sqlx::query!(
        r#"SELECT h.ledger_id AS "ledger: LedgerId", h.size, h.leaf, h.frontier, h.recorded_at, h.routes
             FROM heads h JOIN workspaces w USING (workspace_id, ledger_id)
            WHERE h.workspace_id = $1 AND w.deleted_at IS NULL"#,
        workspace.uuid()
    )
    .fetch_optional(&mut **tx)
    .await?
    else {
        return Ok(None);
    };
    let wrong = |what: &str| sqlx::Error::Decode(format!("the head of {workspace} {what}").into());
    let hashes: Vec<Hash> = row.frontier.as_chunks::<32>().0.to_vec();
    let frontier = Frontier::from_parts(row.size as u64, hashes)
        .ok_or_else(|| wrong("has a frontier of another size"))?;
    let leaf: Hash = row.leaf.try_into().map_err(|_| wrong("has no leaf hash"))?;
    // Not in one statement with the head: a change of the destinations between the two is refused by the count.
    let routes = Routes::read(&mut *tx, workspace, row.routes).await?;
    Ok(Some(Head {
        workspace,
        ledger: row.ledger,
        leaf,
        frontier,
        recorded_at: row.recorded_at,
        routes: Arc::new(routes),
    }))
}

/// The clock, in microseconds since 1970.
#[must_use]
pub fn unix_micros() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| i64::try_from(d.as_micros()).unwrap_or(i64::MAX))
}
