//! A batch on the longer way: sent until it is known to be written or refused, and what of it can be is written.

use super::committer::{Request, keys_of};
use super::shared_commit::Job;
use super::statement::{UNCOMPARED, is_uncompared, write};
use super::{Error, Prior, Writer, Written, read_prior};
use crate::database::{in_time, is_passing};
use crate::delivery::Handoff;
use crate::id::WorkspaceId;
use crate::ledger::batch::{self, Batch};
use crate::ledger::draft::{Draft, IdempotencyKey};
use crate::ledger::unix_micros;
use crate::sealing;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a batch is tried while the database does not answer, before its requests are refused.
const PATIENCE: Duration = Duration::from_secs(15);

/// Commits one batch and answers each of its requests. A bad one never fails the others.
/// `sent` is what was built of them, and perhaps written: it is sent again unchanged until that is known.
pub(super) async fn commit(
    writer: &Writer,
    workspace: WorkspaceId,
    mut requests: Vec<Request>,
    mut sent: Option<Job>,
) {
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

/// Why a batch is not written (yet).
pub(super) enum Trouble {
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
            // What the server did not refuse may have been written: it is looked for.
            _ if is_passing(&e) || e.as_database_error().is_none() => Self::Lost(e),
            _ => Self::Refused(e.into()),
        }
    }
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
