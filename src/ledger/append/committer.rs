//! The committer of a workspace: what gathers while a batch is on its way is the next.

use super::attempt::{Trouble, commit};
use super::shared_commit::{Job, Sender, Unwritten};
use super::{Error, Writer};
use crate::delivery::Handoff;
use crate::id::WorkspaceId;
use crate::keyring::Snapshot;
use crate::ledger::batch::{self, Head, Recorded};
use crate::ledger::draft::{Draft, IdempotencyKey};
use crate::ledger::unix_micros;
use statusledger_keys::envelope::DataKey;
use std::borrow::Borrow;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Most entries in a batch: beyond that a larger one saves nothing and makes the others wait.
const MAX_BATCH: usize = 2048;
/// Most deliveries in a batch, about: each is a row, and the statement has its time.
const MAX_BATCH_DELIVERIES: usize = 16_384;
/// Most bytes in a batch, entries and openings together.
const MAX_BATCH_BYTES: usize = 4 << 20;
/// From how many requests on the next batch is built while one is on its way: fewer wait for more to come.
const AHEAD: usize = 256;
/// Requests that may queue at a workspace's committer; more wait at its door.
pub(super) const QUEUE: usize = 4096;
/// How long a committer with nothing to do is kept.
const IDLE: Duration = Duration::from_secs(60);

/// A request that waits at a committer.
#[derive(Debug)]
pub(super) struct Request {
    pub draft: Draft,
    pub reply: oneshot::Sender<Result<Recorded, Error>>,
}

/// Takes what has gathered, commits it, answers; ends when nothing has come for a while.
///
/// While a batch is on its way, the next is built on the head that it will leave, if enough has gathered to make that
/// worth a thread. Where the first is then not written, the second is not either: it goes back to the queue.
pub(super) async fn commit_batches(
    writer: Writer,
    workspace: WorkspaceId,
    mut requests: mpsc::Receiver<Request>,
) {
    let mut gathered = Vec::new();
    let mut ahead: Option<Building> = None;
    // Whether what the last batch delivered left from this node.
    let mut leaves_here = false;
    // Whether the node's memory has it that this one will.
    let mut intended;
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
            None => {
                let most = writer.remembered(workspace).map_or(MAX_BATCH, |head| most(&head));
                prepare(&writer, workspace, take(&mut gathered, most)).await
            }
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
            intended = match &compared {
                // On its way to the disk while the batch is on its way to the database.
                Some(server) if leaves_here && !ready.job.batch.deliveries.is_empty() => {
                    shared.outbox.intend(&ready.job.batch, server)
                }
                _ => false,
            };
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
                if !lanes.is_empty() {
                    leaves_here = lanes.values().any(|lane| lane.held);
                }
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
                // Whatever comes of it, what leaves is remembered then.
                if intended {
                    writer.0.outbox.withdraw(&job.batch);
                }
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

/// Most entries of a batch behind `head`: fewer where each may go to many.
fn most(head: &Head) -> usize {
    (MAX_BATCH_DELIVERIES / head.routes.len().max(1)).clamp(1, MAX_BATCH)
}

/// Takes from the front of `gathered` what fits one batch, at most `most`.
fn take(gathered: &mut Vec<Request>, most: usize) -> Vec<Request> {
    let mut bytes = 0;
    let mut keys = std::collections::HashSet::new();
    let fits = gathered
        .iter()
        .take(most)
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
pub(super) fn keys_of<D: Borrow<Draft>>(drafts: &[D]) -> Arc<[(usize, IdempotencyKey)]> {
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
        let requests = take(gathered, most(head));
        let (head, ring) = (head.clone(), writer.0.keyring.current());
        Some(Self(tokio::task::spawn_blocking(move || Ready::new(requests, &head, &key, ring))))
    }

    async fn done(self) -> Result<Ready, Vec<Request>> {
        // Who waits for what a panic took with it hears that the node is stopping.
        self.0.await.unwrap_or_else(|_| Err(Vec::new()))
    }
}
