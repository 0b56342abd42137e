//! Outcomes of attempts, written in batches: one commit for as many as have gathered.
//!
//! A crash before the commit leaves attempts that nobody remembers: they are made again, under the same
//! `webhook-id`, which is what "at least once" means.

use super::{LaneKey, queue};
use crate::database::{Database, in_time};
use crate::id::{DestinationId, NodeId};
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
        if (due || !flush.is_empty()) && !progress.is_empty() {
            match in_time(write_progress(&database, node, progress.values())).await.and_then(|r| r) {
                Ok(written) => progress.retain(|key, _| !written.contains(key)),
                Err(e) => tracing::warn!(error = %e, "the lanes' progress waits for the database"),
            }
        }
        for done in flush {
            let _ = done.send(());
        }
    }
    if !progress.is_empty()
        && let Err(e) = write_progress(&database, node, progress.values()).await
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
        r#"WITH r AS MATERIALIZED (
             SELECT u.* FROM unnest($2::uuid[], $3::uuid[], $4::bigint[], $5::bigint[], $6::int[],
                                    $7::timestamptz[], $8::bigint[], $9::int[], $10::text[], $11::bytea[],
                                    $12::timestamptz[], $13::bytea[], $14::bytea[])
                    AS u (workspace_id, destination_id, fence, number, attempt, started_at, duration_us, status,
                          error, answer, next_attempt_at, receipt_signature, checkpoint_signature)
               JOIN lanes l ON l.workspace_id = u.workspace_id AND l.destination_id = u.destination_id
                           AND l.holder = $1 AND l.fence = u.fence
              WHERE (SELECT is_compared($15, $16))
         ), a AS (
             INSERT INTO attempts (workspace_id, destination_id, number, attempt, started_at, duration_us, status,
                                   error, answer)
             SELECT workspace_id, destination_id, number, attempt, started_at, duration_us, status, error, answer
               FROM r ON CONFLICT DO NOTHING
         )
         UPDATE deliveries d
            SET state = CASE WHEN r.next_attempt_at IS NULL THEN 'delivered' ELSE 'retry' END,
                attempts = r.attempt,
                next_attempt_at = r.next_attempt_at,
                receipt_signature = COALESCE(r.receipt_signature, d.receipt_signature),
                checkpoint_signature = COALESCE(r.checkpoint_signature, d.checkpoint_signature),
                first_attempt_at = COALESCE(d.first_attempt_at, r.started_at),
                settled_at = CASE WHEN r.next_attempt_at IS NULL THEN now() END
           FROM r
          WHERE d.workspace_id = r.workspace_id AND d.destination_id = r.destination_id AND d.number = r.number
         RETURNING d.destination_id AS "destination: DestinationId", d.number"#,
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
/// stood before, and finds what is settled settled), but for those that an append holds locked just now; returns those done (or
/// lost to another node).
async fn write_progress(
    database: &Database,
    node: NodeId,
    progress: impl Iterator<Item = &Progress>,
) -> Result<Vec<LaneKey>, sqlx::Error> {
    let compared = database.compared.server();
    let progress: Vec<Progress> = progress.copied().collect();
    let keys: Vec<LaneKey> = progress.iter().map(|p| p.key).collect();
    let (workspaces, destinations) = queue::columns(&keys);
    let fences: Vec<i64> = progress.iter().map(|p| p.fence).collect();
    let through: Vec<i64> = progress.iter().map(|p| p.sent_through).collect();
    let failing: Vec<Option<OffsetDateTime>> = progress.iter().map(|p| p.failing_since).collect();
    let rows = sqlx::query!(
        r#"WITH soon AS MATERIALIZED (
               SELECT set_config('synchronous_commit', 'off', true)
           ), w AS (
               SELECT u.* FROM soon, unnest($2::uuid[], $3::uuid[], $4::bigint[], $5::bigint[], $6::timestamptz[])
                   AS u (workspace_id, destination_id, fence, sent_through, failing_since)
           ), free AS (
               SELECT l.workspace_id, l.destination_id FROM lanes l JOIN w USING (workspace_id, destination_id)
                  FOR UPDATE OF l SKIP LOCKED
           ), done AS (
               UPDATE lanes l
                  SET sent_through = GREATEST(l.sent_through, LEAST(w.sent_through, l.last_number)),
                      failing_since = w.failing_since,
                      next_retry_at = (SELECT min(d.next_attempt_at) FROM deliveries d
                                        WHERE d.workspace_id = l.workspace_id
                                          AND d.destination_id = l.destination_id
                                          AND d.next_attempt_at IS NOT NULL AND d.state = 'retry')
                 FROM w JOIN free USING (workspace_id, destination_id)
                WHERE l.workspace_id = w.workspace_id AND l.destination_id = w.destination_id
                  AND l.holder = $1 AND l.fence = w.fence AND (SELECT is_compared($7, $8))
           )
           SELECT workspace_id AS "workspace_id!", destination_id AS "destination_id!" FROM free"#,
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
    Ok(rows
        .into_iter()
        .map(|r| LaneKey { workspace: r.workspace_id.into(), destination: r.destination_id.into() })
        .collect())
}
