//! How long what stands beside the ledgers is kept: attempts, settled deliveries, openings of sealed values.
//!
//! By default for ever. An operator's policy (`retention` in the settings, whose changes are entries of the instance's
//! ledger) deletes what is older, once a day, on one node. What was deleted of a workspace is an entry of its ledger, in
//! the transaction that deletes it. Entries themselves are never deleted: each is part of what the next one proves, and
//! they hold no value that is sealed. Nor is the index of audit entries: it shows nothing that they do not.

use crate::audit::{Act, Action};
use crate::config::RetentionSettings;
use crate::id::{LedgerId, WorkspaceId};
use crate::ledger::{Writer, append, draft};
use statusledger_verify::json::Value;
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::watch;

/// How often it is looked whether a day has passed.
const LOOK_EVERY: Duration = Duration::from_secs(3600);
/// Between one run and the next, over all nodes.
const RUN_EVERY: time::Duration = time::Duration::days(1);
/// Rows of one kind deleted in one transaction, which holds the ledger meanwhile.
const AT_ONCE: i64 = 10_000;
/// The instance's note of its last run.
const LAST_RUN: &str = "retention applied";

/// A policy that was not applied.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database.
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    /// The entry.
    #[error(transparent)]
    Append(#[from] append::Error),
    /// The entry.
    #[error(transparent)]
    Draft(#[from] draft::Error),
}

/// What one transaction deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deleted {
    /// Attempts by their age; those of deleted deliveries are not counted.
    pub attempts: u64,
    /// Settled deliveries.
    pub deliveries: u64,
    /// Openings.
    pub openings: u64,
}

impl Deleted {
    const fn any(self) -> bool {
        self.attempts + self.deliveries + self.openings > 0
    }

    /// Whether there may be more of it.
    const fn is_full(self) -> bool {
        let most = AT_ONCE as u64;
        self.attempts >= most || self.deliveries >= most || self.openings >= most
    }
}

/// Applies the policy once a day until the node stops.
pub async fn keep(writer: Writer, settings: RetentionSettings, mut stop: watch::Receiver<bool>) {
    if settings == RetentionSettings::default() {
        return;
    }
    let mut tick = tokio::time::interval(LOOK_EVERY);
    loop {
        tokio::select! {
            _ = stop.changed() => return,
            _ = tick.tick() => {}
        }
        // A transaction that is cut off by the node's end leaves everything as it was.
        tokio::select! {
            _ = stop.changed() => return,
            applied = apply_if_due(&writer, &settings) => if let Err(e) = applied {
                tracing::warn!(error = %e, "what is older than the retention policy allows is not deleted yet");
            }
        }
    }
}

async fn apply_if_due(writer: &Writer, settings: &RetentionSettings) -> Result<(), Error> {
    let now = OffsetDateTime::now_utc();
    // Whoever moves the note runs.
    let moved = sqlx::query!(
        "INSERT INTO instance_facts AS f (name, value) VALUES ($1, $2)
             ON CONFLICT (name) DO UPDATE SET value = excluded.value
          WHERE f.value::bigint <= $3",
        LAST_RUN,
        now.unix_timestamp().to_string(),
        (now - RUN_EVERY).unix_timestamp()
    )
    .execute(&writer.database().service)
    .await?
    .rows_affected();
    if moved == 1 { apply(writer, settings, now).await } else { Ok(()) }
}

/// Deletes what is older than `settings` allows at `now`, in every workspace. A crash leaves each transaction done, with
/// its entry, or not.
///
/// # Errors
/// If the database does not confirm; what was deleted before is deleted and on the record.
pub async fn apply(writer: &Writer, settings: &RetentionSettings, now: OffsetDateTime) -> Result<(), Error> {
    let workspaces = sqlx::query_scalar!(
        r#"SELECT workspace_id AS "workspace: WorkspaceId" FROM workspaces WHERE deleted_at IS NULL"#
    )
    .fetch_all(&writer.database().worker)
    .await?;
    for workspace in workspaces {
        let policy = Policy::of(writer, settings, workspace, now).await?;
        loop {
            let deleted = match delete(writer, &policy).await {
                // It has ended meanwhile, and everything of it with it.
                Err(Error::Append(append::Error::NoWorkspace(_))) => break,
                deleted => deleted?,
            };
            if !deleted.is_full() {
                break;
            }
        }
    }
    Ok(())
}

/// What a workspace may no longer keep.
struct Policy {
    workspace: WorkspaceId,
    attempts_before: Option<OffsetDateTime>,
    deliveries_before: Option<OffsetDateTime>,
    openings_before: Option<OffsetDateTime>,
    /// Of each ledger, the first seq whose openings stay.
    openings: Vec<(LedgerId, i64)>,
}

impl Policy {
    async fn of(
        writer: &Writer,
        settings: &RetentionSettings,
        workspace: WorkspaceId,
        now: OffsetDateTime,
    ) -> Result<Self, Error> {
        let before = |days: Option<u32>| days.map(|days| now - time::Duration::days(days.into()));
        let openings_before = before(settings.openings_days);
        let mut openings = Vec::new();
        if let Some(at) = openings_before {
            let mut tx = writer.database().workspace(workspace).await?;
            let ledgers = sqlx::query!(
                r#"SELECT ledger_id AS "ledger: LedgerId", size FROM heads WHERE workspace_id = $1"#,
                workspace.uuid()
            )
            .fetch_all(&mut *tx)
            .await?;
            for row in ledgers {
                let first = first_since(&mut tx, workspace, row.ledger, row.size, at).await?;
                openings.push((row.ledger, first));
            }
        }
        Ok(Self {
            workspace,
            attempts_before: before(settings.attempts_days),
            deliveries_before: before(settings.deliveries_days),
            openings_before,
            openings,
        })
    }
}

/// The first entry of a ledger that was recorded at `at` or later: the times of entries rise with their numbers.
async fn first_since(
    tx: &mut sqlx::PgConnection,
    workspace: WorkspaceId,
    ledger: LedgerId,
    size: i64,
    at: OffsetDateTime,
) -> Result<i64, sqlx::Error> {
    let (mut low, mut high) = (0, size);
    while low < high {
        let middle = low + (high - low) / 2;
        let older = sqlx::query_scalar!(
            r#"SELECT (entry::jsonb ->> 'timestamp')::timestamptz < $4 AS "older!" FROM entries
                WHERE workspace_id = $1 AND ledger_id = $2 AND seq = $3"#,
            workspace.uuid(),
            ledger.uuid(),
            middle,
            at
        )
        .fetch_one(&mut *tx)
        .await?;
        if older { low = middle + 1 } else { high = middle }
    }
    Ok(low)
}

/// Deletes at most [`AT_ONCE`] of each kind, with the entry that says so. Nothing is written where there is nothing.
async fn delete(writer: &Writer, policy: &Policy) -> Result<Deleted, Error> {
    let workspace = policy.workspace.uuid();
    let mut locked = writer.lock(policy.workspace).await?;
    let mut deleted = Deleted::default();
    if let Some(before) = policy.deliveries_before {
        // What a lane counts as gone keeps its numbers accounted for (`doctor`).
        deleted.deliveries = sqlx::query_scalar!(
            r#"WITH gone AS (
                   DELETE FROM deliveries WHERE ctid = ANY (ARRAY(
                       SELECT ctid FROM deliveries WHERE workspace_id = $1 AND settled_at < $2 LIMIT $3))
                   RETURNING destination_id, number
               ), attempted AS (
                   DELETE FROM attempts a USING gone g
                    WHERE a.workspace_id = $1 AND a.destination_id = g.destination_id AND a.number = g.number
               ), counted AS (
                   UPDATE lanes l SET forgotten = l.forgotten + g.n
                     FROM (SELECT destination_id, count(*) AS n FROM gone GROUP BY destination_id) g
                    WHERE l.workspace_id = $1 AND l.destination_id = g.destination_id
               )
               SELECT count(*) AS "n!" FROM gone"#,
            workspace,
            before,
            AT_ONCE
        )
        .fetch_one(&mut **locked)
        .await? as u64;
    }
    if let Some(before) = policy.attempts_before {
        deleted.attempts = sqlx::query!(
            "DELETE FROM attempts WHERE ctid = ANY (ARRAY(
                 SELECT ctid FROM attempts WHERE workspace_id = $1 AND started_at < $2 LIMIT $3))",
            workspace,
            before,
            AT_ONCE
        )
        .execute(&mut **locked)
        .await?
        .rows_affected();
    }
    for (ledger, first) in &policy.openings {
        deleted.openings += sqlx::query!(
            "DELETE FROM openings WHERE ctid = ANY (ARRAY(
                 SELECT ctid FROM openings WHERE workspace_id = $1 AND ledger_id = $2 AND seq < $3 LIMIT $4))",
            workspace,
            ledger.uuid(),
            first,
            AT_ONCE
        )
        .execute(&mut **locked)
        .await?
        .rows_affected();
    }
    if !deleted.any() {
        return Ok(deleted);
    }
    let act = Act::system();
    let mut record = act.of(Action::RetentionApplied).target("workspace", policy.workspace);
    for (what, count, before) in [
        ("attempts", deleted.attempts, policy.attempts_before),
        ("deliveries", deleted.deliveries, policy.deliveries_before),
        ("openings", deleted.openings, policy.openings_before),
    ] {
        let Some(at) = before.and_then(|at| at.format(&Rfc3339).ok()).filter(|_| count > 0) else { continue };
        let count = Value::Int(i64::try_from(count).unwrap_or(i64::MAX));
        record = record.detail(what, count).detail(&format!("{what}_before"), Value::String(at));
    }
    locked.append(&[record.draft()?]).await?;
    locked.commit().await?;
    Ok(deleted)
}
