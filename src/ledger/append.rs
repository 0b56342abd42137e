//! Append: the only writer of entries.
//!
//! Two ways lead to the one SQL function that inserts:
//!
//! * [`Writer::append`], the group commit. Requests for a workspace queue at its committer, a task that takes what
//!   has gathered while the last batch was being committed, builds it on the head it remembers, and sends it as one
//!   statement. The function compares the remembered head with the real one; when another process has appended in
//!   between, nothing is written and the batch is built again. So the chain's lock costs one commit a batch.
//! * [`Locked`], a transaction that holds the head's lock from its start. What it changes besides (a subject, a
//!   destination, a source) commits with the entry or not at all.
//!
//! A lost connection leaves it unknown whether a batch was committed. The committer then sends the very same batch
//! again: either the head is still where it was, and it is written now, or the entry at the batch's first place is
//! the batch's own (its nonce is random), and it was written before.

use super::batch::{self, Batch, Head, Recorded};
use super::checkpoint::SignedTree;
use super::connections::Connections;
use super::draft::{Draft, IdempotencyKey};
use super::shared_commit::{Job, Sender, SharedCommit, Unwritten};
use super::terms::{Claim, Condition, Terms, Version};
use crate::access::door::standing::{Admitted, Lapse, Standing};
use crate::audit::display;
use crate::database::server::Server;
use crate::database::{Database, WorkspaceTx, in_time, is_passing};
use crate::delivery::routes::Routes;
use crate::delivery::{Handoff, Lane, Outbox};
use crate::id::{DestinationId, LedgerId, NodeId, WorkspaceId};
use crate::keyring::{Keyring, Snapshot};
use crate::sealing::{self, DataKeys};
use sqlx::PgConnection;
use statusledger_keys::envelope::DataKey;
use statusledger_verify::Hash;
use statusledger_verify::time::Timestamp;
use statusledger_verify::tree::Frontier;
use std::borrow::Borrow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, oneshot};

/// Most entries in a batch: beyond that a larger one saves nothing and makes the others wait.
const MAX_BATCH: usize = 1000;
/// Most bytes in a batch, entries and openings together.
const MAX_BATCH_BYTES: usize = 4 << 20;
/// From how many requests on the next batch is built while one is on its way: fewer wait for more to come.
const AHEAD: usize = 256;
/// Requests that may queue at a workspace's committer; more wait at its door.
const QUEUE: usize = 4096;
/// How long a batch is tried while the database does not answer, before its requests are refused.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long a committer with nothing to do is kept.
const IDLE: Duration = Duration::from_secs(60);
/// What the SQL function says where an append reaches a server that its node has not compared with what was signed.
const UNCOMPARED: &str = "SL005";
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

/// A request that waits at a committer.
#[derive(Debug)]
struct Request {
    draft: Draft,
    reply: oneshot::Sender<Result<Recorded, Error>>,
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

/// Takes what has gathered, commits it, answers; ends when nothing has come for a while.
///
/// While a batch is on its way, the next is built on the head that it will leave, if enough has gathered to make that
/// worth a thread. Where the first is then not written, the second is not either: it goes back to the queue.
async fn commit_batches(writer: Writer, workspace: WorkspaceId, mut requests: mpsc::Receiver<Request>) {
    let mut gathered = Vec::new();
    let mut ahead: Option<Building> = None;
    loop {
        if gathered.is_empty() && ahead.is_none() {
            match tokio::time::timeout(IDLE, requests.recv_many(&mut gathered, MAX_BATCH)).await {
                Ok(0) => return,
                Ok(_) => {}
                Err(_) => {
                    // Whoever got the door before this finds it closed and makes another; what is in it is still
                    // done.
                    requests.close();
                    continue;
                }
            }
        }
        // Who was answered with the last batch asks again right now: the first of them must not go alone.
        tokio::task::yield_now().await;
        while gathered.len() < MAX_BATCH {
            let Ok(request) = requests.try_recv() else { break };
            gathered.push(request);
        }
        let ready = match ahead.take() {
            Some(building) => building.done().await,
            None => prepare(&writer, workspace, take(&mut gathered)).await,
        };
        let ready = match ready {
            Ok(ready) => ready,
            // Whatever it is, it is met again there.
            Err(requests) => {
                commit(&writer, workspace, requests, None).await;
                continue;
            }
        };
        let written = {
            let shared = &writer.0;
            let compared = shared.database.compared.server();
            let by = Sender { node: shared.node, compared };
            let writing = shared.shared_commit.write(&shared.connections, by, ready.job.clone());
            tokio::pin!(writing);
            loop {
                let room = MAX_BATCH.saturating_sub(gathered.len());
                tokio::select! {
                    biased;
                    written = &mut writing => break written,
                    came = requests.recv_many(&mut gathered, room), if room > 0 && !requests.is_closed() => {
                        if came > 0 && ahead.is_none() && gathered.len() >= AHEAD {
                            ahead = Building::start(&writer, &ready.job.batch.after, &mut gathered).await;
                        }
                    }
                }
            }
        };
        match written {
            Ok(lanes) => {
                let Ready { requests, job: Job { batch, ring, .. } } = ready;
                writer.remember(batch.after.clone());
                let recorded = batch.entries.clone();
                writer.0.outbox.hand_over(Handoff { batch, lanes, ring });
                let answer = async move {
                    for (request, recorded) in requests.into_iter().zip(recorded) {
                        // The sender may have gone; the entry stays.
                        let _ = request.reply.send(Ok(recorded));
                    }
                };
                if ahead.is_some() {
                    // The next batch leaves before the last one's callers are woken.
                    tokio::spawn(answer);
                } else {
                    answer.await;
                }
            }
            Err(e) => {
                if let Some(building) = ahead.take() {
                    let back = building.done().await.map_or_else(|r| r, |ready| ready.requests);
                    gathered.splice(0..0, back);
                }
                let Ready { requests, job } = ready;
                let lost = match e {
                    Unwritten::Apart => false,
                    Unwritten::Lost => true,
                    Unwritten::Said(e) => {
                        writer.forget(workspace);
                        matches!(Trouble::from(e), Trouble::Lost(_))
                    }
                };
                commit(&writer, workspace, requests, lost.then_some(job)).await;
            }
        }
    }
}

/// Takes from the front of `gathered` what fits one batch.
fn take(gathered: &mut Vec<Request>) -> Vec<Request> {
    let mut bytes = 0;
    let mut keys = std::collections::HashSet::new();
    let fits = gathered
        .iter()
        .take(MAX_BATCH)
        .take_while(|r| {
            bytes += r.draft.weight();
            // One key twice in a batch: the second waits for the next, and finds the first's answer.
            let fresh = r.draft.idempotency.as_ref().is_none_or(|k| keys.insert((k.source, k.key.clone())));
            fresh && bytes <= MAX_BATCH_BYTES.max(r.draft.weight())
        })
        .count()
        .max(1);
    gathered.drain(..fits.min(gathered.len())).collect()
}

/// A batch that can be sent, and who waits for it.
struct Ready {
    requests: Vec<Request>,
    job: Job,
}

impl Ready {
    fn new(
        requests: Vec<Request>,
        head: &Head,
        data_key: &DataKey,
        ring: Arc<Snapshot>,
    ) -> Result<Self, Vec<Request>> {
        // Whether the head is the older one of the two, or what was looked up, is found on the longer way.
        if requests.iter().any(|r| r.draft.allowed_at.is_some_and(|at| at != head.routes.version)) {
            return Err(requests);
        }
        let drafts: Vec<&Draft> = requests.iter().map(|r| &r.draft).collect();
        match batch::build(head, &drafts, data_key, unix_micros()) {
            Ok(batch) => {
                Ok(Self { job: Job { batch: Arc::new(batch), keys: keys_of(&drafts), ring }, requests })
            }
            Err(_) => Err(requests),
        }
    }
}

/// The idempotency keys of drafts, by position.
fn keys_of<D: Borrow<Draft>>(drafts: &[D]) -> Arc<[(usize, IdempotencyKey)]> {
    let key = |(i, d): (usize, &D)| Some((i, d.borrow().idempotency.clone()?));
    drafts.iter().enumerate().filter_map(key).collect()
}

/// Builds a batch on the head that is known; gives the requests back where that fails.
async fn prepare(
    writer: &Writer,
    workspace: WorkspaceId,
    requests: Vec<Request>,
) -> Result<Ready, Vec<Request>> {
    let (Ok(head), Ok(key)) = (writer.head(workspace).await, writer.0.data_keys.get(workspace).await) else {
        return Err(requests);
    };
    Ready::new(requests, &head, &key, writer.0.keyring.current())
}

/// A batch that is being built on another thread.
struct Building(tokio::task::JoinHandle<Result<Ready, Vec<Request>>>);

impl Building {
    async fn start(writer: &Writer, head: &Head, gathered: &mut Vec<Request>) -> Option<Self> {
        let key = writer.0.data_keys.get(head.workspace).await.ok()?;
        let (head, ring, requests) = (head.clone(), writer.0.keyring.current(), take(gathered));
        Some(Self(tokio::task::spawn_blocking(move || Ready::new(requests, &head, &key, ring))))
    }

    async fn done(self) -> Result<Ready, Vec<Request>> {
        // Who waits for what a panic took with it hears that the node is stopping.
        self.0.await.unwrap_or_else(|_| Err(Vec::new()))
    }
}

/// Commits one batch and answers each of its requests. A bad one never fails the others.
/// `sent` is what was built of them, and perhaps written: it is sent again unchanged until that is known.
async fn commit(writer: &Writer, workspace: WorkspaceId, mut requests: Vec<Request>, mut sent: Option<Job>) {
    let deadline = Instant::now() + PATIENCE;
    let mut pause = Duration::from_millis(5);
    while !requests.is_empty() {
        // Cut off anywhere, it leaves `sent` as it has to be: what may have been written is still there.
        let outcome = in_time(attempt(writer, workspace, &requests, &mut sent)).await;
        let outcome = outcome.unwrap_or_else(|e| Err(Trouble::Lost(e)));
        match outcome {
            Ok(Written { batch, lanes, ring }) => {
                for (request, recorded) in requests.drain(..).zip(&batch.entries) {
                    // The sender may have gone; the entry stays.
                    let _ = request.reply.send(Ok(recorded.clone()));
                }
                writer.remember(batch.after.clone());
                writer.0.outbox.hand_over(Handoff { batch, lanes, ring });
            }
            Err(Trouble::Moved) => {
                sent = None;
                writer.forget(workspace);
            }
            Err(Trouble::Closed) => {
                writer.forget(workspace);
                writer.0.database.compared.doubt();
                refuse(requests, &Error::Lost(workspace));
                return;
            }
            Err(Trouble::RingMoved) => {
                sent = None;
                if let Err(e) = writer.0.keyring.reload().await {
                    tracing::warn!(error = %e, "the key ring cannot be read again");
                    tokio::time::sleep(pause).await;
                }
            }
            Err(Trouble::Outdated(now)) => {
                let (old, left) =
                    requests.into_iter().partition(|r| r.draft.allowed_at.is_some_and(|at| at != now));
                refuse(old, &Error::Outdated);
                requests = left;
            }
            Err(Trouble::KeysTaken(taken)) => {
                sent = None;
                writer.forget(workspace);
                let mut left = Vec::with_capacity(requests.len());
                for request in requests.drain(..) {
                    match request.draft.idempotency.as_ref().and_then(|k| taken.get(k_id(k).as_str())) {
                        Some(prior) => drop(request.reply.send(Err(Error::KeyTaken(*prior)))),
                        None => left.push(request),
                    }
                }
                requests = left;
            }
            Err(Trouble::Lost(e)) => {
                writer.forget(workspace);
                if is_uncompared(&e) {
                    writer.0.database.compared.doubt();
                }
                if !matches!(e, sqlx::Error::Database(_)) {
                    writer.0.connections.drop_free();
                }
                if Instant::now() + pause > deadline {
                    refuse(requests, &Error::Unavailable(Arc::new(e)));
                    return;
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(1));
            }
            Err(Trouble::Refused(e)) => {
                writer.forget(workspace);
                // One of several is at fault: alone, each gets its own answer.
                if requests.len() > 1 {
                    for request in requests {
                        Box::pin(commit(writer, workspace, vec![request], None)).await;
                    }
                } else {
                    refuse(requests, &e);
                }
                return;
            }
        }
    }
}

fn refuse(requests: Vec<Request>, error: &Error) {
    for request in requests {
        let _ = request.reply.send(Err(error.clone()));
    }
}

/// What an append learned of the lanes that its deliveries joined.
pub(super) type Lanes = HashMap<DestinationId, Lane>;

/// A batch that is durable, and the lanes that its deliveries joined.
struct Written {
    batch: Arc<Batch>,
    lanes: Lanes,
    ring: Arc<Snapshot>,
}

/// Why a batch is not written (yet).
enum Trouble {
    /// Another has appended, or changed the destinations.
    Moved,
    /// The keys were rotated.
    RingMoved,
    /// The ledger lacks what was signed.
    Closed,
    /// What allows some of it was looked up at another count of the routes than this one.
    Outdated(i64),
    /// Some idempotency keys were used before.
    KeysTaken(HashMap<String, Prior>),
    /// The connection was lost or could not be had.
    Lost(sqlx::Error),
    /// It will not be written.
    Refused(Error),
}

impl From<sqlx::Error> for Trouble {
    fn from(e: sqlx::Error) -> Self {
        match e.as_database_error().and_then(|d| d.code()).as_deref() {
            Some("SL001") => Self::Moved,
            Some("SL003") => Self::RingMoved,
            Some("SL006") => Self::Closed,
            // Until the node has looked at that server.
            Some(UNCOMPARED) => Self::Lost(e),
            _ if is_passing(&e) => Self::Lost(e),
            _ => Self::Refused(e.into()),
        }
    }
}

/// Whether an append was refused since its server's histories are not compared with what was signed.
fn is_uncompared(e: &sqlx::Error) -> bool {
    matches!(e, sqlx::Error::Database(d) if d.code().as_deref() == Some(UNCOMPARED))
}

async fn attempt(
    writer: &Writer,
    workspace: WorkspaceId,
    requests: &[Request],
    sent: &mut Option<Job>,
) -> Result<Written, Trouble> {
    let fault = |e: Error| match e {
        Error::Sql(e) => {
            Trouble::from(Arc::try_unwrap(e).unwrap_or_else(|e| sqlx::Error::Protocol(e.to_string())))
        }
        e => Trouble::Refused(e),
    };
    let again = sent.is_some();
    if let Some(job) = sent.as_ref() {
        if is_written(writer, &job.batch).await? {
            // Its lanes will be found by looking for what is due.
            let Job { batch, ring, .. } = sent.take().ok_or(Trouble::Moved)?;
            return Ok(Written { batch, lanes: HashMap::new(), ring });
        }
    } else {
        let remembered = writer.remembered(workspace).is_some();
        let head = writer.head(workspace).await.map_err(fault)?;
        let now = head.routes.version;
        let looked_up_at = || requests.iter().filter_map(|r| r.draft.allowed_at);
        if remembered && looked_up_at().any(|at| at > now) {
            // The head is older than what others have committed.
            return Err(Trouble::Moved);
        }
        if looked_up_at().any(|at| at != now) {
            return Err(Trouble::Outdated(now));
        }
        let key = match writer.0.data_keys.get(workspace).await {
            Ok(key) => key,
            Err(sealing::Error::Sql(e)) => return Err(e.into()),
            Err(e) => return Err(Trouble::Refused(e.into())),
        };
        let drafts: Vec<&Draft> = requests.iter().map(|r| &r.draft).collect();
        let batch = batch::build(&head, &drafts, &key, unix_micros())
            .map_err(|e| Trouble::Refused(sealing::Error::Seal(e).into()))?;
        let (batch, keys) = (Arc::new(batch), keys_of(&drafts));
        *sent = Some(Job { batch, keys, ring: writer.0.keyring.current() });
    }
    let Some(Job { batch, keys, ring }) = sent.clone() else { return Err(Trouble::Moved) };
    let mut lent = writer.0.connections.lend().await?;
    let compared = writer.0.database.compared.server();
    match write(lent.connection(), &batch, &keys, &ring, writer.0.node, compared.as_ref()).await {
        Ok(lanes) => {
            lent.give_back();
            *sent = None;
            Ok(Written { batch, lanes, ring })
        }
        // The server went on with what was sent before, after it was looked for: it may be the batch itself that has moved
        // the head. Now that is decided.
        Err(sqlx::Error::Database(_)) if again && is_written(writer, &batch).await? => {
            lent.give_back();
            *sent = None;
            Ok(Written { batch, lanes: HashMap::new(), ring })
        }
        Err(sqlx::Error::Database(e)) if e.code().as_deref() == Some("SL004") => {
            lent.give_back();
            Err(Trouble::KeysTaken(read_taken(writer, workspace, &keys).await?))
        }
        Err(e) => Err(e.into()),
    }
}

/// Whether a batch that was sent is the one that stands at its place.
async fn is_written(writer: &Writer, batch: &Batch) -> Result<bool, sqlx::Error> {
    let Some(first) = batch.entries.first() else { return Ok(true) };
    let mut tx = writer.0.database.workspace(batch.before.workspace).await?;
    let leaf = sqlx::query_scalar!(
        "SELECT leaf FROM entries WHERE workspace_id = $1 AND ledger_id = $2 AND seq = $3",
        batch.before.workspace.uuid(),
        batch.before.ledger.uuid(),
        first.seq as i64
    )
    .fetch_optional(&mut *tx)
    .await?;
    Ok(leaf.is_some_and(|leaf| leaf == first.leaf))
}

fn k_id(key: &IdempotencyKey) -> String {
    format!("{}/{}", key.source, key.key)
}

/// What the taken ones of `keys` were used for.
async fn read_taken(
    writer: &Writer,
    workspace: WorkspaceId,
    keys: &[(usize, IdempotencyKey)],
) -> Result<HashMap<String, Prior>, sqlx::Error> {
    let mut tx = writer.0.database.workspace(workspace).await?;
    let mut taken = HashMap::new();
    for (_, key) in keys {
        if let Some(prior) = read_prior(&mut tx, key).await? {
            taken.insert(k_id(key), prior);
        }
    }
    Ok(taken)
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

/// Sends a batch to the SQL function. A crash before its commit leaves nothing, after it everything.
pub(super) async fn write(
    connection: &mut PgConnection,
    batch: &Batch,
    keys: &[(usize, IdempotencyKey)],
    ring: &Snapshot,
    node: Option<NodeId>,
    compared: Option<&Server>,
) -> Result<Lanes, sqlx::Error> {
    let (before, after) = (&batch.before, &batch.after);
    let seq = |position: usize| before.frontier.size() as i64 + position as i64;
    let leaves: Vec<&[u8]> = batch.entries.iter().map(|e| e.leaf.as_slice()).collect();
    let types: Vec<&str> = batch.entries.iter().map(|e| entry_type(&e.entry)).collect();
    let entries: Vec<&str> = batch.entries.iter().map(|e| &*e.entry).collect();
    let opening_seqs: Vec<i64> = batch.sealed.iter().map(|(p, _, _)| seq(*p)).collect();
    let opening_names: Vec<&str> = batch.sealed.iter().map(|(_, name, _)| name.as_str()).collect();
    let openings: Vec<&[u8]> = batch.sealed.iter().map(|(_, _, sealed)| sealed.as_slice()).collect();
    let node_hashes: Vec<&[u8]> = batch.nodes.hashes.iter().map(Vec::as_slice).collect();
    let key_sources: Vec<uuid::Uuid> = keys.iter().map(|(_, k)| k.source.uuid()).collect();
    let key_names: Vec<&str> = keys.iter().map(|(_, k)| k.key.as_str()).collect();
    let key_hashes: Vec<&[u8]> = keys.iter().map(|(_, k)| k.body_hash.as_slice()).collect();
    let key_seqs: Vec<i64> = keys.iter().map(|(p, _)| seq(*p)).collect();
    let destinations: Vec<uuid::Uuid> = batch.deliveries.iter().map(|d| d.destination.uuid()).collect();
    let delivery_seqs: Vec<i64> = batch.deliveries.iter().map(|d| seq(d.position)).collect();
    let receipts: Vec<uuid::Uuid> = batch.deliveries.iter().map(|d| d.receipt.uuid()).collect();
    let rows = sqlx::query!(
        r#"SELECT destination_id AS "destination!: DestinationId", before_first AS "before_first!",
                  held AS "held!", fence AS "fence!", sent_through AS "sent_through!", failing_since,
                  base
             FROM ledger_append($1, $2, $3, $4, $5, $6, $7, $8, $9::bytea[], $10::text[], $11::text[],
                  $12::bigint[], $13::text[], $14::bytea[], $15::smallint[], $16::bigint[], $17::bytea[],
                  $18::uuid[], $19::text[], $20::bytea[], $21::bigint[], $22::uuid[], $23::bigint[], $24::uuid[],
                  $25, $26, $27, $28, $29, $30)"#,
        before.workspace.uuid(),
        before.ledger.uuid(),
        before.frontier.size() as i64,
        &before.leaf[..],
        before.routes.version,
        &after.leaf[..],
        after.frontier.hashes().concat(),
        after.recorded_at,
        &leaves as &[&[u8]],
        &types as &[&str],
        &entries as &[&str],
        &opening_seqs,
        &opening_names as &[&str],
        &openings as &[&[u8]],
        &batch.nodes.levels,
        &batch.nodes.tiles,
        &node_hashes as &[&[u8]],
        &key_sources,
        &key_names as &[&str],
        &key_hashes as &[&[u8]],
        &key_seqs,
        &destinations,
        &delivery_seqs,
        &receipts,
        ring.serial(),
        &ring.receipt_key_id()[..],
        &ring.checkpoint_key_id()[..],
        node.map(NodeId::uuid),
        compared.map(|server| server.started_at),
        compared.map(|server| server.tables),
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|r| {
            let lane = Lane {
                before_first: r.before_first,
                held: r.held,
                fence: r.fence,
                sent_through: r.sent_through,
                failing_since: r.failing_since,
                base: r.base.unwrap_or(0),
            };
            (r.destination, lane)
        })
        .collect())
}

/// Sends batches of several ledgers to the SQL function; the lanes of each that was written, in their order. A crash
/// before its commit leaves nothing of any, after it everything.
pub(super) async fn write_several(
    connection: &mut PgConnection,
    jobs: &[&Job],
    by: &Sender,
) -> Result<Vec<Option<Lanes>>, sqlx::Error> {
    let Some(first) = jobs.first() else { return Ok(Vec::new()) };
    let each = |count: fn(&Job) -> usize| jobs.iter().map(|job| count(job) as i32).collect::<Vec<_>>();
    let before: Vec<&Head> = jobs.iter().map(|job| &job.batch.before).collect();
    let after: Vec<&Head> = jobs.iter().map(|job| &job.batch.after).collect();
    let seq = |job: &Job, position: usize| job.batch.before.frontier.size() as i64 + position as i64;
    let joined = |of: for<'a> fn(&'a str) -> &'a str| -> Vec<String> {
        let of_one =
            |job: &&Job| job.batch.entries.iter().map(|e| of(&e.entry)).collect::<Vec<_>>().join("\u{1e}");
        jobs.iter().map(of_one).collect()
    };
    let leaves: Vec<Vec<u8>> =
        jobs.iter().map(|job| job.batch.entries.iter().flat_map(|e| e.leaf).collect()).collect();
    let sealed = || jobs.iter().flat_map(|job| job.batch.sealed.iter().map(move |sealed| (*job, sealed)));
    let nodes = || jobs.iter().map(|job| &job.batch.nodes);
    let keys = || jobs.iter().flat_map(|job| job.keys.iter().map(move |key| (*job, key)));
    let deliveries = || jobs.iter().flat_map(|job| job.batch.deliveries.iter().map(move |d| (*job, d)));
    let rows = sqlx::query!(
        r#"SELECT place AS "place!", destination_id AS "destination_id: DestinationId", before_first, held, fence,
                  sent_through, failing_since, base
             FROM ledger_append_several($1, $2, $3, $4, $5, $6, $7, $8, $9::bytea[], $10::text[], $11::text[],
                  $12, $13, $14::text[], $15::bytea[], $16, $17::smallint[], $18::bigint[], $19::bytea[],
                  $20, $21::uuid[], $22::text[], $23::bytea[], $24::bigint[],
                  $25, $26::uuid[], $27::bigint[], $28::uuid[], $29, $30, $31, $32, $33, $34)"#,
        &before.iter().map(|h| h.workspace.uuid()).collect::<Vec<_>>(),
        &before.iter().map(|h| h.ledger.uuid()).collect::<Vec<_>>(),
        &before.iter().map(|h| h.frontier.size() as i64).collect::<Vec<_>>(),
        &before.iter().map(|h| h.leaf.as_slice()).collect::<Vec<_>>() as &[&[u8]],
        &before.iter().map(|h| h.routes.version).collect::<Vec<_>>(),
        &after.iter().map(|h| h.leaf.as_slice()).collect::<Vec<_>>() as &[&[u8]],
        &after.iter().map(|h| h.frontier.hashes().concat()).collect::<Vec<_>>(),
        &after.iter().map(|h| h.recorded_at).collect::<Vec<_>>(),
        &leaves,
        &joined(entry_type),
        &joined(|entry| entry),
        &each(|job| job.batch.sealed.len()),
        &sealed().map(|(job, (p, _, _))| seq(job, *p)).collect::<Vec<_>>(),
        &sealed().map(|(_, (_, name, _))| name.as_str()).collect::<Vec<_>>() as &[&str],
        &sealed().map(|(_, (_, _, sealed))| sealed.as_slice()).collect::<Vec<_>>() as &[&[u8]],
        &each(|job| job.batch.nodes.levels.len()),
        &nodes().flat_map(|n| &n.levels).copied().collect::<Vec<_>>(),
        &nodes().flat_map(|n| &n.tiles).copied().collect::<Vec<_>>(),
        &nodes().flat_map(|n| &n.hashes).map(Vec::as_slice).collect::<Vec<_>>() as &[&[u8]],
        &each(|job| job.keys.len()),
        &keys().map(|(_, (_, key))| key.source.uuid()).collect::<Vec<_>>(),
        &keys().map(|(_, (_, key))| key.key.as_str()).collect::<Vec<_>>() as &[&str],
        &keys().map(|(_, (_, key))| key.body_hash.as_slice()).collect::<Vec<_>>() as &[&[u8]],
        &keys().map(|(job, (p, _))| seq(job, *p)).collect::<Vec<_>>(),
        &each(|job| job.batch.deliveries.len()),
        &deliveries().map(|(_, d)| d.destination.uuid()).collect::<Vec<_>>(),
        &deliveries().map(|(job, d)| seq(job, d.position)).collect::<Vec<_>>(),
        &deliveries().map(|(_, d)| d.receipt.uuid()).collect::<Vec<_>>(),
        first.ring.serial(),
        &first.ring.receipt_key_id()[..],
        &first.ring.checkpoint_key_id()[..],
        by.node.map(NodeId::uuid),
        by.compared.as_ref().map(|server| server.started_at),
        by.compared.as_ref().map(|server| server.tables),
    )
    .fetch_all(connection)
    .await?;
    let mut written: Vec<Option<Lanes>> = jobs.iter().map(|_| None).collect();
    for row in rows {
        let place = row.place as usize;
        let slot = place.checked_sub(1).and_then(|at| written.get_mut(at));
        let lanes = slot.ok_or_else(|| sqlx::Error::Decode(format!("batch {place} of another").into()))?;
        let lanes = lanes.get_or_insert_default();
        let (Some(destination), Some(before_first), Some(held), Some(fence), Some(sent_through)) =
            (row.destination_id, row.before_first, row.held, row.fence, row.sent_through)
        else {
            continue;
        };
        let (failing_since, base) = (row.failing_since, row.base.unwrap_or(0));
        lanes.insert(destination, Lane { before_first, held, fence, sent_through, failing_since, base });
    }
    Ok(written)
}

/// The type of an entry of ours: it stands between the last `"type":"` and `","v":1}`.
pub(crate) fn entry_type(entry: &str) -> &str {
    let end = entry.len().saturating_sub(r#"","v":1}"#.len());
    let start = entry[..end].rfind('"').map_or(0, |at| at + 1);
    &entry[start..end]
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

/// A transaction that holds the head of a workspace's ledger: the proof that what it reads stays so until it ends.
#[derive(Debug)]
pub struct Locked {
    writer: Writer,
    tx: WorkspaceTx,
    head: Head,
    /// As it was when the lock was taken: entries, and changes of the destinations.
    at_lock: (u64, i64),
    /// What was kept of the terms of requests: each is asked once in a transaction.
    stood: Vec<Admitted>,
    held: Vec<Condition>,
    carried_out: Vec<Claim>,
    data_key: Arc<DataKey>,
    written: Vec<Written>,
}

impl std::fmt::Debug for Written {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Written").field("entries", &self.batch.entries.len()).finish_non_exhaustive()
    }
}

impl Locked {
    /// Takes the head's lock in `tx`, which may have made the workspace itself.
    ///
    /// # Errors
    /// If the workspace does not exist, or the database does not answer.
    pub async fn adopt(
        writer: Writer,
        mut tx: WorkspaceTx,
        workspace: WorkspaceId,
        data_key: Arc<DataKey>,
    ) -> Result<Self, Error> {
        let head = read_head(&mut tx, workspace, true).await?.ok_or(Error::NoWorkspace(workspace))?;
        let at_lock = (head.frontier.size(), head.routes.version);
        let (stood, held, carried_out) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { writer, tx, head, at_lock, stood, held, carried_out, data_key, written: Vec::new() })
    }

    /// The last entry's time, in microseconds since 1970.
    #[must_use]
    pub const fn recorded_at(&self) -> i64 {
        self.head.recorded_at
    }

    /// Appends `drafts`, durable when [`Locked::commit`] has returned.
    ///
    /// # Errors
    /// If the database refuses; then the transaction is to be dropped.
    pub async fn append(&mut self, drafts: &[Draft]) -> Result<Vec<Recorded>, Error> {
        self.append_at(drafts, unix_micros()).await
    }

    /// The same, at `now` (microseconds since 1970).
    ///
    /// # Errors
    /// If the database refuses; then the transaction is to be dropped.
    pub async fn append_at(&mut self, drafts: &[Draft], now: i64) -> Result<Vec<Recorded>, Error> {
        if drafts.is_empty() {
            return Ok(Vec::new());
        }
        for draft in drafts {
            self.check(&draft.terms).await?;
        }
        let named;
        let drafts = if drafts.iter().any(|draft| draft.person.is_some()) {
            named = display::sealed(&mut self.tx, &self.writer.0.data_keys, drafts).await?;
            &named[..]
        } else {
            drafts
        };
        let batch = batch::build(&self.head, drafts, &self.data_key, now)
            .map_err(|e| Error::from(sealing::Error::Seal(e)))?;
        let (batch, keys) = (Arc::new(batch), keys_of(drafts));
        let mut ring = self.writer.0.keyring.current();
        let newest = sqlx::query_scalar!(r#"SELECT max(serial) AS "serial!" FROM key_manifests"#)
            .fetch_one(&mut *self.tx)
            .await?;
        if newest != ring.serial() {
            // The lock taken at the beginning holds rotations off: what is read now stays.
            self.writer
                .0
                .keyring
                .reload()
                .await
                .map_err(|e| Error::Sql(Arc::new(sqlx::Error::Protocol(e.to_string()))))?;
            ring = self.writer.0.keyring.current();
        }
        let compared = self.writer.0.database.compared.server();
        let written = write(&mut self.tx, &batch, &keys, &ring, self.writer.0.node, compared.as_ref()).await;
        let lanes = written.map_err(|e| match &e {
            sqlx::Error::Database(d) if d.code().as_deref() == Some("SL006") => {
                self.writer.0.database.compared.doubt();
                Error::Lost(self.head.workspace)
            }
            e if is_uncompared(e) => {
                self.writer.0.database.compared.doubt();
                Error::Uncompared
            }
            _ => e.into(),
        })?;
        index(&mut self.tx, &batch, drafts).await?;
        // Last: whoever repeats the request waits at its row from here on, on a connection each, and what is left to do
        // needs none besides this one.
        for draft in drafts {
            let Some(claim) = &draft.terms.claim else { continue };
            if !self.carried_out.iter().any(|known| known.is(claim)) {
                claim.carry_out(&mut self.tx).await?;
                self.carried_out.push(claim.clone());
            }
        }
        self.head = batch.after.clone();
        let recorded = batch.entries.clone();
        self.written.push(Written { batch, lanes, ring });
        Ok(recorded)
    }

    /// Asks whether whoever acts may do so still, and holds the condition of their request against what was committed
    /// before this transaction took the lock. Appending what an act says does so too; whoever finds that there is nothing
    /// to change has to ask.
    ///
    /// # Errors
    /// If they may not, or it does not hold; then the transaction is to be dropped.
    pub async fn check(&mut self, terms: &Terms) -> Result<(), Error> {
        match &terms.standing {
            Standing::Own | Standing::Proven => {}
            Standing::Unsaid => return Err(Error::Terms("nobody says with what whoever acts was let in")),
            Standing::Admitted(admitted) => {
                if !self.stood.iter().any(|known| known.is(admitted)) {
                    admitted.again().await.map_err(Error::Lapsed)?;
                    self.stood.push(admitted.clone());
                }
            }
        }
        let Some(condition) = &terms.condition else { return Ok(()) };
        if self.held.iter().any(|known| known.is(condition)) {
            return Ok(());
        }
        let (size, routes) = self.at_lock;
        let act = sqlx::query_scalar!(
            "SELECT max(seq) FROM audit_index WHERE workspace_id = $1 AND ledger_id = $2 AND seq < $3",
            self.head.workspace.uuid(),
            self.head.ledger.uuid(),
            size as i64
        )
        .fetch_one(&mut *self.tx)
        .await?;
        condition.hold(self.head.workspace, Version { ledger: self.head.ledger, act, routes })?;
        self.held.push(condition.clone());
        Ok(())
    }

    /// Says that the workspace's destinations were changed in this transaction: appends from here on, and everybody
    /// after the commit, sees them.
    ///
    /// # Errors
    /// If the database refuses.
    pub async fn routes_changed(&mut self) -> Result<(), Error> {
        let version = sqlx::query_scalar!(
            "UPDATE heads SET routes = routes + 1 WHERE workspace_id = $1 AND ledger_id = $2 RETURNING routes",
            self.head.workspace.uuid(),
            self.head.ledger.uuid()
        )
        .fetch_one(&mut *self.tx)
        .await?;
        self.head.routes = Arc::new(Routes::read(&mut self.tx, self.head.workspace, version).await?);
        Ok(())
    }

    /// The ledger it writes to.
    #[must_use]
    pub const fn ledger(&self) -> LedgerId {
        self.head.ledger
    }

    /// Its workspace.
    #[must_use]
    pub const fn workspace(&self) -> WorkspaceId {
        self.head.workspace
    }

    /// Commits, then hands the deliveries over. A crash in between leaves them to whoever looks for what is due.
    ///
    /// # Errors
    /// If the database does not confirm; whether it was committed is then unknown.
    pub async fn commit(self) -> Result<(), Error> {
        let Self { writer, tx, head, written, .. } = self;
        if let Err(e) = tx.commit().await {
            writer.forget(head.workspace);
            return Err(Error::Unavailable(Arc::new(e)));
        }
        writer.remember(head);
        for Written { batch, lanes, ring } in written {
            writer.0.outbox.hand_over(Handoff { batch, lanes, ring });
        }
        Ok(())
    }
}

impl std::ops::Deref for Locked {
    type Target = WorkspaceTx;
    fn deref(&self) -> &WorkspaceTx {
        &self.tx
    }
}

impl std::ops::DerefMut for Locked {
    fn deref_mut(&mut self) -> &mut WorkspaceTx {
        &mut self.tx
    }
}

/// Writes how the audit entries of a batch are found, in its transaction.
async fn index(tx: &mut WorkspaceTx, batch: &Batch, drafts: &[Draft]) -> Result<(), sqlx::Error> {
    let found: Vec<_> = drafts
        .iter()
        .zip(&batch.entries)
        .filter_map(|(d, entry)| Some((d.audit.as_ref()?, entry.seq as i64)))
        .collect();
    if found.is_empty() {
        return Ok(());
    }
    let seqs: Vec<i64> = found.iter().map(|(_, seq)| *seq).collect();
    let actions: Vec<&str> = found.iter().map(|(found, _)| found.action).collect();
    let actors: Vec<&str> = found.iter().map(|(found, _)| found.actor.as_str()).collect();
    let outcomes: Vec<&str> = found.iter().map(|(found, _)| found.outcome).collect();
    // Ids have no white space.
    let targets: Vec<String> = found.iter().map(|(found, _)| found.targets.join(" ")).collect();
    sqlx::query!(
        "INSERT INTO audit_index (workspace_id, ledger_id, seq, recorded_at, action, actor, outcome, targets)
         SELECT $1, $2, seq, $3, action, actor, outcome, string_to_array(targets, ' ')
           FROM unnest($4::bigint[], $5::text[], $6::text[], $7::text[], $8::text[])
                AS u (seq, action, actor, outcome, targets)",
        batch.after.workspace.uuid(),
        batch.after.ledger.uuid(),
        batch.after.recorded_at,
        &seqs,
        &actions as &[&str],
        &actors as &[&str],
        &outcomes as &[&str],
        &targets
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// The clock, in microseconds since 1970.
#[must_use]
pub fn unix_micros() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| i64::try_from(d.as_micros()).unwrap_or(i64::MAX))
}
