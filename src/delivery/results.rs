//! Outcomes of attempts, written in batches: one commit for as many as have gathered.
//!
//! A crash before the commit leaves attempts that nobody remembers: they are made again, under the same
//! `webhook-id`, which is what "at least once" means.

use super::{LaneKey, queue};
use crate::database::{Database, in_time};
use crate::id::{DestinationId, NodeId, WorkspaceId};
use crate::receipt::Signatures;
use std::collections::{HashMap, HashSet};
use std::time::Duration;
use time::OffsetDateTime;
use tokio::sync::{mpsc, oneshot};

/// Outcomes written at once, at most.
const BATCH: usize = 512;
/// How soon after a write the next may begin. Lanes do not wait for it, and a commit for each of hundreds that end in the same
/// second costs more than they do; one that ends alone is written at once.
const GATHER: Duration = Duration::from_millis(5);
/// How often the lanes' own rows are brought up to date; appends lock those rows, so not with every batch.
const LANES_EVERY: Duration = Duration::from_millis(100);
/// Rows of lanes that are brought up to date in one commit.
const LANES_AT_ONCE: usize = 128;
/// How long to wait before trying again when the database does not answer.
const PAUSE: Duration = Duration::from_millis(200);

/// What became of an attempt, as the delivery's row says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The receiver took it.
    Delivered,
    /// It is tried again at that time.
    Retry(OffsetDateTime),
}

/// An attempt that has ended.
#[derive(Debug)]
pub struct Outcome {
    /// The lane.
    pub key: LaneKey,
    /// The fence under which the lane was held when it was sent.
    pub fence: i64,
    /// The delivery's number.
    pub number: i64,
    /// Which attempt, from 1.
    pub attempt: i32,
    /// When it began.
    pub started_at: OffsetDateTime,
    /// How long it took.
    pub duration: Duration,
    /// The answer's status, if there was one.
    pub status: Option<i32>,
    /// What went wrong, in words for the tenant.
    pub error: Option<String>,
    /// The first KiB of the answer of a failed attempt, sealed.
    pub answer: Option<Vec<u8>>,
    /// What became of it.
    pub state: State,
    /// The signatures in its body: stored, they let the body be made again when the keys are gone.
    pub signatures: Option<Signatures>,
    /// Told when it is written: whether it still was this node's to write.
    pub written: oneshot::Sender<bool>,
}

/// Where a lane stands, for its own row.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// The lane.
    pub key: LaneKey,
    /// Its fence.
    pub fence: i64,
    /// Every delivery up to this number has had its first attempt, and its outcome is written.
    pub sent_through: i64,
    /// Since when it has done nothing but fail.
    pub failing_since: Option<OffsetDateTime>,
}

/// What lanes report.
#[derive(Debug)]
pub enum Report {
    /// An attempt has ended.
    Outcome(Box<Outcome>),
    /// A lane has moved on.
    Progress(Progress),
    /// Write everything now, and say when it is done.
    Flush(oneshot::Sender<()>),
}

/// Writes what lanes report until they are gone.
pub async fn write_results(database: Database, node: NodeId, mut reports: mpsc::Receiver<Report>) {
    let mut progress: HashMap<LaneKey, Progress> = HashMap::new();
    let mut gathered = Vec::with_capacity(BATCH);
    let mut tick = tokio::time::interval(LANES_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut soonest = tokio::time::Instant::now();
    loop {
        let mut flush = Vec::new();
        let mut due = false;
        tokio::select! {
            n = reports.recv_many(&mut gathered, BATCH) => if n == 0 { break },
            _ = tick.tick() => due = true,
        }
        // Somebody who waits until all is written, or nobody being left, ends the gathering.
        while gathered.len() < BATCH
            && !gathered.is_empty()
            && !gathered.iter().any(|r| matches!(r, Report::Flush(_)))
        {
            let room = BATCH - gathered.len();
            match tokio::time::timeout_at(soonest, reports.recv_many(&mut gathered, room)).await {
                Ok(n) if n > 0 => {}
                Ok(_) | Err(_) => break,
            }
        }
        let mut outcomes = Vec::with_capacity(gathered.len());
        for report in gathered.drain(..) {
            match report {
                Report::Outcome(outcome) => outcomes.push(*outcome),
                Report::Progress(p) => {
                    progress.insert(p.key, p);
                }
                Report::Flush(done) => flush.push(done),
            }
        }
        if !outcomes.is_empty() {
            let written = loop {
                match in_time(write_outcomes(&database, node, &outcomes)).await.and_then(|written| written) {
                    Ok(written) => break written,
                    Err(e) => {
                        tracing::warn!(error = %e, outcomes = outcomes.len(), "outcomes of attempts wait for the database");
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            };
            soonest = tokio::time::Instant::now() + GATHER;
            for outcome in outcomes {
                let mine = written.contains(&(outcome.key.destination, outcome.number));
                let _ = outcome.written.send(mine);
            }
        }
        if (due || !flush.is_empty())
            && !progress.is_empty()
            && let Err(e) = write_progress(&database, node, &mut progress).await
        {
            tracing::warn!(error = %e, "the lanes' progress waits for the database");
        }
        for done in flush {
            let _ = done.send(());
        }
    }
    if !progress.is_empty()
        && let Err(e) = write_progress(&database, node, &mut progress).await
    {
        tracing::warn!(error = %e, "the lanes' progress is not written; some attempts will be made again");
    }
}

/// Writes outcomes, and says which were: not those of a lane that is this node's no more.
async fn write_outcomes(
    database: &Database,
    node: NodeId,
    outcomes: &[Outcome],
) -> Result<HashSet<(DestinationId, i64)>, sqlx::Error> {
    let keys: Vec<LaneKey> = outcomes.iter().map(|o| o.key).collect();
    let (workspaces, destinations) = queue::columns(&keys);
    let fences: Vec<i64> = outcomes.iter().map(|o| o.fence).collect();
    let numbers: Vec<i64> = outcomes.iter().map(|o| o.number).collect();
    let attempts: Vec<i32> = outcomes.iter().map(|o| o.attempt).collect();
    let started: Vec<OffsetDateTime> = outcomes.iter().map(|o| o.started_at).collect();
    let durations: Vec<i64> =
        outcomes.iter().map(|o| i64::try_from(o.duration.as_micros()).unwrap_or(i64::MAX)).collect();
    let statuses: Vec<Option<i32>> = outcomes.iter().map(|o| o.status).collect();
    let errors: Vec<Option<&str>> = outcomes.iter().map(|o| o.error.as_deref()).collect();
    let answers: Vec<Option<&[u8]>> = outcomes.iter().map(|o| o.answer.as_deref()).collect();
    let next: Vec<Option<OffsetDateTime>> = outcomes
        .iter()
        .map(|o| match o.state {
            State::Delivered => None,
            State::Retry(at) => Some(at),
        })
        .collect();
    let by_receipt: Vec<Option<&[u8]>> =
        outcomes.iter().map(|o| o.signatures.as_ref().map(|s| &s.receipt[..])).collect();
    let by_checkpoint: Vec<Option<&[u8]>> =
        outcomes.iter().map(|o| o.signatures.as_ref().map(|s| &s.checkpoint[..])).collect();
    let compared = database.compared.server();
    // What became of an attempt says nothing of a history that is shorter: there the number may be another delivery's.
    // An outcome under an older fence is refused: another node has taken the lane, and sends it (again) itself.
    // Durable when this has returned: the lane moves on then, and a retry that a crash of Postgres took with it would be
    // nobody's any more.
    let written = sqlx::query!(
        r#"SELECT destination_id AS "destination!: DestinationId", number AS "number!"
             FROM attempts_record($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)"#,
        node.uuid(),
        &workspaces,
        &destinations,
        &fences,
        &numbers,
        &attempts,
        &started,
        &durations,
        &statuses as &[Option<i32>],
        &errors as &[Option<&str>],
        &answers as &[Option<&[u8]>],
        &next as &[Option<OffsetDateTime>],
        &by_receipt as &[Option<&[u8]>],
        &by_checkpoint as &[Option<&[u8]>],
        compared.as_ref().map(|server| server.started_at),
        compared.as_ref().map(|server| server.tables),
    )
    .fetch_all(&database.worker)
    .await?;
    Ok(written.into_iter().map(|row| (row.destination, row.number)).collect())
}

/// Brings the lanes' rows up to date (durable a moment later: where a crash takes it back, the lane is looked at from where it
/// stood before, and finds what is settled settled), but for those that an append holds locked just now, and keeps in
/// `progress` only what is not written.
async fn write_progress(
    database: &Database,
    node: NodeId,
    progress: &mut HashMap<LaneKey, Progress>,
) -> Result<(), sqlx::Error> {
    let all: Vec<Progress> = progress.values().copied().collect();
    // An append to a lane waits while its row is being written: not for thousands of others with it.
    for some in all.chunks(LANES_AT_ONCE) {
        for key in in_time(write_lanes(database, node, some)).await.and_then(|written| written)? {
            progress.remove(&key);
        }
    }
    Ok(())
}

/// Writes where lanes stand, in one commit; returns those done (or lost to another node).
async fn write_lanes(
    database: &Database,
    node: NodeId,
    progress: &[Progress],
) -> Result<Vec<LaneKey>, sqlx::Error> {
    let compared = database.compared.server();
    let keys: Vec<LaneKey> = progress.iter().map(|p| p.key).collect();
    let (workspaces, destinations) = queue::columns(&keys);
    let fences: Vec<i64> = progress.iter().map(|p| p.fence).collect();
    let through: Vec<i64> = progress.iter().map(|p| p.sent_through).collect();
    let failing: Vec<Option<OffsetDateTime>> = progress.iter().map(|p| p.failing_since).collect();
    let rows = sqlx::query!(
        r#"SELECT workspace_id AS "workspace!: WorkspaceId", destination_id AS "destination!: DestinationId"
             FROM lanes_advance($1, $2, $3, $4, $5, $6, $7, $8)"#,
        node.uuid(),
        &workspaces,
        &destinations,
        &fences,
        &through,
        &failing as &[Option<OffsetDateTime>],
        compared.as_ref().map(|server| server.started_at),
        compared.as_ref().map(|server| server.tables),
    )
    .fetch_all(&database.worker)
    .await?;
    Ok(rows.into_iter().map(|r| LaneKey { workspace: r.workspace, destination: r.destination }).collect())
}
