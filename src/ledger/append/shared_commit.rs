//! One commit for the batches of several ledgers.
//!
//! A commit costs what it costs, with one entry in it or a thousand. The committers of workspaces that append a little at
//! a time would each pay for their own, so what waits for a connection is sent together: whoever gets the connection
//! sends its own batch and those that wait behind it, each of which is written or not as by itself
//! (`ledger_append_several`). A batch that was left out, and any whose company was refused, goes alone from then on: what
//! another workspace does wrong is no reason to refuse it.
//!
//! Whoever is dropped while it sends leaves the others not knowing; they find out whether they were written
//! (`super::attempt`), as after a lost connection.

use super::connections::Connections;
use super::statement::{self, Lanes};
use crate::database::server::Server;
use crate::database::{in_time, is_passing};
use crate::id::NodeId;
use crate::keyring::Snapshot;
use crate::ledger::batch::Batch;
use crate::ledger::draft::IdempotencyKey;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::oneshot;

/// Most ledgers in one commit.
const MOST_LEDGERS: usize = 64;
/// Most entries in one commit of several ledgers: who has as many has a commit's worth.
const MOST_ENTRIES: usize = 1024;
/// Most bytes of entries and openings.
const MOST_BYTES: usize = 4 << 20;

/// A batch that is to be written.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub batch: Arc<Batch>,
    /// The idempotency keys of its entries, by position.
    pub keys: Arc<[(usize, IdempotencyKey)]>,
    /// What its deliveries' receipts are fixed to.
    pub ring: Arc<Snapshot>,
}

impl Job {
    fn bytes(&self) -> usize {
        self.batch.entries.iter().map(|e| e.entry.len()).sum::<usize>()
            + self.batch.sealed.iter().map(|(_, _, sealed)| sealed.len()).sum::<usize>()
    }
}

/// Who sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sender {
    /// The node, which takes the lanes that nobody holds.
    pub node: Option<NodeId>,
    /// The server that it has compared.
    pub compared: Option<Server>,
}

/// Why a batch was not written, or is not known to be.
#[derive(Debug)]
pub(super) enum Unwritten {
    /// It was not: alone it will be, or hear why not.
    Apart,
    /// What the database, or the way to it, said to this batch alone.
    Said(sqlx::Error),
    /// The answer was lost.
    Lost,
}

type Outcome = Result<Lanes, Unwritten>;

#[derive(Debug)]
struct Waiting {
    job: Job,
    by: Sender,
    id: u64,
    reply: oneshot::Sender<Outcome>,
}

/// Batches that wait for a connection.
#[derive(Debug, Default)]
pub(super) struct SharedCommit(Mutex<Queue>);

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    next: u64,
}

impl SharedCommit {
    /// Writes `job`, alone or with others; durable when it says so.
    ///
    /// # Errors
    /// If it was not written, or if that is not known.
    pub(super) async fn write(&self, connections: &Connections, by: Sender, job: Job) -> Outcome {
        let (id, mut answer) = self.wait_for(by, job);
        loop {
            let lent = tokio::select! {
                biased;
                answered = &mut answer => return answered.unwrap_or(Err(Unwritten::Lost)),
                lent = connections.lend() => lent,
            };
            let mut lent = match lent {
                Ok(lent) => lent,
                // Whoever has taken it is on the way with it.
                Err(e) if self.withdraw(id) => return Err(Unwritten::Said(e)),
                Err(_) => return answer.await.unwrap_or(Err(Unwritten::Lost)),
            };
            let company = self.take();
            if send(lent.connection(), company).await {
                lent.give_back();
            }
        }
    }

    fn wait_for(&self, by: Sender, job: Job) -> (u64, oneshot::Receiver<Outcome>) {
        let (reply, answer) = oneshot::channel();
        let mut queue = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let id = queue.next;
        queue.next += 1;
        queue.waiting.push_back(Waiting { job, by, id, reply });
        (id, answer)
    }

    /// Whether it was still waiting.
    fn withdraw(&self, id: u64) -> bool {
        let mut queue = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = queue.waiting.len();
        queue.waiting.retain(|waiting| waiting.id != id);
        queue.waiting.len() < before
    }

    /// The first that waits, and what fits behind it. One ledger never stands in it twice: its committer waits for the
    /// first.
    fn take(&self) -> Vec<Waiting> {
        let mut queue = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut taken, mut entries, mut bytes): (Vec<Waiting>, _, _) = (Vec::new(), 0, 0);
        while let Some(next) = queue.waiting.front() {
            entries += next.job.batch.entries.len();
            bytes += next.job.bytes();
            let fits = taken.first().is_none_or(|first| {
                taken.len() < MOST_LEDGERS
                    && entries <= MOST_ENTRIES
                    && bytes <= MOST_BYTES
                    && next.job.ring.serial() == first.job.ring.serial()
                    && next.by == first.by
            });
            if !fits {
                break;
            }
            taken.extend(queue.waiting.pop_front());
        }
        taken
    }
}

/// Sends what was taken and answers each; whether the connection is as good as before.
async fn send(connection: &mut sqlx::PgConnection, mut company: Vec<Waiting>) -> bool {
    // Who does not wait any more has been dropped with its callers: a node that stops.
    company.retain(|waiting| !waiting.reply.is_closed());
    if company.len() < 2 {
        let Some(Waiting { job, by, reply, .. }) = company.pop() else { return true };
        let writing =
            statement::write(connection, &job.batch, &job.keys, &job.ring, by.node, by.compared.as_ref());
        let written = in_time(writing).await.and_then(|written| written);
        let good = is_as_good(&written);
        let _ = reply.send(written.map_err(Unwritten::Said));
        return good;
    }
    let jobs: Vec<&Job> = company.iter().map(|waiting| &waiting.job).collect();
    let by = &company[0].by;
    let written = in_time(statement::write_several(connection, &jobs, by)).await.and_then(|written| written);
    let good = is_as_good(&written);
    match written {
        Ok(written) => {
            for (waiting, lanes) in company.into_iter().zip(written) {
                let _ = waiting.reply.send(lanes.ok_or(Unwritten::Apart));
            }
        }
        Err(e) => {
            // A server that shuts down may have committed before it said so, and what cannot be read was answered to
            // something: who asks again looks first.
            let lost = is_passing(&e) || !matches!(e, sqlx::Error::Database(_));
            tracing::debug!(error = %e, ledgers = company.len(), "a commit of several ledgers failed");
            for waiting in company {
                let _ = waiting.reply.send(Err(if lost { Unwritten::Lost } else { Unwritten::Apart }));
            }
        }
    }
    good
}

/// Refused by the server, a connection is as good as before.
fn is_as_good<T>(answer: &Result<T, sqlx::Error>) -> bool {
    matches!(answer, Ok(_) | Err(sqlx::Error::Database(_)))
}
