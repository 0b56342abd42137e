//! Self-audit: what is stored, verified again a little at a time, for as long as a node runs.
//!
//! [`mod@slice`] verifies 256 entries by themselves, against what was signed; `pace` bounds how many a second. A pass goes
//! through a ledger from its first entry on; whichever node has a ledger's lease does the next slice, and how far a pass
//! has come is kept so that it survives the node. That is a hint and no more: each slice proves itself, so whoever changes
//! it delays a pass, and hides nothing for longer than that.
//!
//! A pass ends at the first row that does not agree: what follows cannot be judged without it. That is told once, in the
//! instance's ledger, and by metrics and `doctor` for as long as it lasts. Where what is wrong is what a start would refuse
//! (the head, or a history that is not the one that was signed), no node is ready any more.

pub mod pace;
pub mod slice;
mod trees;

use crate::audit::{Act, Action, Outcome};
use crate::config::SelfAuditSettings;
use crate::database::Database;
use crate::doctor::Finding;
use crate::id::{LedgerId, NodeId, WorkspaceId};
use crate::ledger::checkpoint;
use crate::ledger::history;
use crate::ledger::seen_heads::SeenHeads;
use crate::ledger::{Writer, append, draft, read};
use crate::node::{Readiness, Reason};
use pace::Pace;
use slice::{Audited, Auditor};
use statusledger_verify::json::Value;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How often it is looked what there is to do, and what was found by whom. A shorter interval between passes is kept.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How long a ledger is leased for one slice (`claim` says the same).
const LEASE: Duration = Duration::from_secs(60);

/// A part of an audit that was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database.
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    /// The slice.
    #[error(transparent)]
    Slice(#[from] slice::Error),
    /// The entry that says what was found.
    #[error(transparent)]
    Append(#[from] append::Error),
    /// That entry.
    #[error(transparent)]
    Draft(#[from] draft::Error),
}

/// A node's part in the self-audit.
#[derive(Debug)]
pub struct SelfAudit {
    /// Verifies slices.
    pub auditor: Auditor,
    /// Writes what was found.
    pub writer: Writer,
    /// The instance's own workspace, whose ledger says what was found.
    pub instance: WorkspaceId,
    /// This node.
    pub node: NodeId,
    /// How fast, and how often.
    pub settings: SelfAuditSettings,
}

/// A ledger whose next slice is this node's to verify.
#[derive(Debug)]
struct Turn {
    workspace: WorkspaceId,
    ledger: LedgerId,
    next_seq: i64,
    /// Whether this pass has found anything before.
    found: bool,
    /// What is known to be wrong, and with which entry.
    finding: Option<(Option<u64>, String)>,
}

/// Audits until the node stops.
pub async fn keep(audit: SelfAudit, readiness: Readiness, mut stop: watch::Receiver<bool>) {
    let off = audit.settings.entries_per_second == 0;
    let mut pace = Pace::new(audit.settings.entries_per_second, Instant::now());
    let idle = LOOK_EVERY.min(Duration::from_secs_f64(audit.settings.interval_s));
    let mut looked: Option<Instant> = None;
    loop {
        let mut next = pace.next();
        // Whoever finds something tells it; the others see it here.
        if looked.is_none_or(|at| at.elapsed() >= idle) {
            if let Err(e) = look(&audit.auditor.database, &audit.auditor.seen, &readiness).await {
                tracing::debug!(error = %e, "what the self-audit has found cannot be looked at");
            }
            looked = Some(Instant::now());
        }
        let began = Instant::now();
        if off {
            next = began + LOOK_EVERY;
        } else if began >= next {
            let turn = tokio::time::timeout(LEASE, audit.turn()).await;
            match turn.unwrap_or_else(|_| Err(sqlx::Error::PoolTimedOut.into())) {
                Ok(Some(audited)) => {
                    pace.spend(began, audited.entries);
                    if audited.finding.is_some() {
                        looked = None;
                    }
                    next = pace.next();
                }
                Ok(None) => next = began + idle,
                Err(e) => {
                    // The lease runs out by itself; the slice is verified again.
                    tracing::debug!(error = %e, "a slice could not be verified");
                    next = began + LOOK_EVERY;
                }
            }
        }
        tokio::select! {
            _ = stop.changed() => return,
            () = tokio::time::sleep_until(next.into()) => {}
        }
    }
}

/// Tells the metrics how the audit stands, and the node whether it may serve.
async fn look(database: &Database, seen: &SeenHeads, readiness: &Readiness) -> Result<(), sqlx::Error> {
    let oldest = sqlx::query_scalar!(
        r#"SELECT CASE WHEN count(*) = count(a.ended_at) THEN EXTRACT(epoch FROM min(a.ended_at))::float8 END
             FROM workspaces w LEFT JOIN self_audits a USING (workspace_id, ledger_id)"#
    )
    .fetch_one(&database.worker)
    .await?;
    metrics::gauge!("statusledger_self_audit_oldest_pass_timestamp_seconds").set(oldest.unwrap_or(0.0));
    let rows = sqlx::query!(
        r#"SELECT w.workspace_id AS "workspace: WorkspaceId", w.ledger_id AS "ledger: LedgerId", a.finding_seq
             FROM self_audits a JOIN workspaces w USING (workspace_id, ledger_id) WHERE a.finding IS NOT NULL"#
    )
    .fetch_all(&database.worker)
    .await?;
    metrics::gauge!("statusledger_self_audit_findings").set(rows.len() as f64);
    let mut refused = Ok(());
    for row in rows {
        metrics::gauge!("statusledger_self_audit_first_row", "ledger" => row.ledger.to_string())
            .set(row.finding_seq.map_or(-1.0, |seq| seq as f64));
        match history::check_ledger(database, seen, row.workspace, row.ledger).await {
            Err(e @ checkpoint::Error::Disagrees { .. }) => {
                refused = Err(format!("the history is not the one that was signed: {e}"));
            }
            Err(checkpoint::Error::Sql(e)) => return Err(e),
            Ok(()) | Err(checkpoint::Error::File { .. } | checkpoint::Error::Lost(_)) => {}
        }
    }
    readiness.set(Reason::SelfAudit, refused);
    Ok(())
}

impl SelfAudit {
    /// Verifies one slice of the ledger that has waited longest; none where none is due.
    ///
    /// # Errors
    /// If the database does not answer. What was found is then found again.
    pub async fn turn(&self) -> Result<Option<Audited>, Error> {
        let turn = match self.claim().await? {
            Some(turn) => turn,
            None => {
                self.enlist().await?;
                let Some(turn) = self.claim().await? else { return Ok(None) };
                turn
            }
        };
        let from = u64::try_from(turn.next_seq).unwrap_or(0);
        let audited = self.auditor.slice(turn.workspace, turn.ledger, from).await?;
        metrics::counter!("statusledger_self_audit_entries_total").increment(audited.entries);
        let finding = self.judge(&turn, &audited).await;
        self.done(&turn, &audited, finding.as_ref()).await?;
        Ok(Some(audited))
    }

    /// What is to be known of the ledger from now on. That is told, once; where it cannot be now, in the next pass.
    async fn judge(&self, turn: &Turn, audited: &Audited) -> Option<(Option<u64>, String)> {
        let agrees = audited.next.is_none() && audited.finding.is_none() && !turn.found;
        let known = match (&audited.finding, &turn.finding) {
            // One without a row may be the same that a slice further on has the row of.
            (Some(Finding { seq: None, .. }), Some(known)) => Some(known.clone()),
            (Some(finding), _) => Some((finding.seq, finding.what.clone())),
            (None, _) if agrees => None,
            (None, known) => known.clone(),
        };
        if let Some(finding) = audited.finding.as_ref().filter(|_| known != turn.finding) {
            tracing::error!(finding = %finding, "the self-audit found a row that does not agree");
        }
        if agrees && turn.finding.is_some() {
            tracing::warn!(ledger = %turn.ledger, "the self-audit finds nothing any more");
            metrics::gauge!("statusledger_self_audit_first_row", "ledger" => turn.ledger.to_string())
                .set(-1.0);
        }
        if audited.finding.is_some() || agrees && turn.finding.is_some() {
            if let Err(e) = self.tell(turn, known.as_ref()).await {
                tracing::error!(error = %e, "what the self-audit found is not in the instance's ledger yet");
            }
        } else if agrees {
            self.sign(turn, audited).await;
        }
        known
    }

    /// Signs what a whole pass has verified, where nothing is signed yet that says as much: the next pass is compared with
    /// it, also in a ledger of which nobody wants a receipt.
    async fn sign(&self, turn: &Turn, audited: &Audited) {
        if audited.size <= audited.signed {
            return;
        }
        let Auditor { database, keyring, seen, .. } = &self.auditor;
        if let Err(e) =
            read::checkpoint(database, keyring, seen, turn.workspace, None, Some(audited.size)).await
        {
            tracing::warn!(error = %e, ledger = %turn.ledger, "what was verified is not signed this time");
        }
    }

    /// Puts it on the record, once: whoever moves the instance's note of it writes the entry, in one transaction.
    async fn tell(&self, turn: &Turn, finding: Option<&(Option<u64>, String)>) -> Result<(), Error> {
        let note = finding.map_or_else(String::new, |(seq, what)| format!("{seq:?} {what}"));
        let mut locked = self.writer.lock(self.instance).await?;
        let moved = sqlx::query!(
            "INSERT INTO instance_facts AS f (name, value) VALUES ($1, $2)
                 ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE f.value <> excluded.value",
            format!("self-audit of {}", turn.ledger),
            note
        )
        .execute(&mut **locked)
        .await?
        .rows_affected();
        if moved == 0 {
            return Ok(());
        }
        let act = Act::system();
        let text = |text: &str| Value::String(text.into());
        let record = match finding {
            Some((seq, what)) => {
                let record = act.of(Action::LedgerDisagrees).outcome(Outcome::Failure, what.clone());
                match seq {
                    Some(seq) => record.detail("seq", Value::Int(i64::try_from(*seq).unwrap_or(i64::MAX))),
                    None => record,
                }
            }
            None => act.of(Action::LedgerAgrees),
        };
        let record = record
            .target("workspace", turn.workspace)
            .detail("ledger", text(&turn.ledger.to_string()))
            .detail("node", text(&self.node.to_string()));
        locked.append(&[record.draft()?]).await?;
        locked.commit().await?;
        Ok(())
    }

    /// Adds the ledgers that were never audited.
    async fn enlist(&self) -> Result<(), sqlx::Error> {
        sqlx::query!(
            "INSERT INTO self_audits (workspace_id, ledger_id)
             SELECT workspace_id, ledger_id FROM workspaces w
              WHERE NOT EXISTS (SELECT FROM self_audits a
                                 WHERE a.workspace_id = w.workspace_id AND a.ledger_id = w.ledger_id)
                 ON CONFLICT DO NOTHING"
        )
        .execute(&self.auditor.database.worker)
        .await?;
        Ok(())
    }

    /// Takes the ledger that has waited longest of those in the middle of a pass or due for one. One that this node held
    /// when it was killed is its own.
    async fn claim(&self) -> Result<Option<Turn>, sqlx::Error> {
        let row = sqlx::query!(
            r#"UPDATE self_audits a SET holder = $1, leased_until = now() + interval '60 seconds',
                      next_seq = CASE WHEN a.began_at IS NULL THEN 0 ELSE a.next_seq END,
                      found = a.began_at IS NOT NULL AND a.found,
                      began_at = COALESCE(a.began_at, now())
                 FROM (SELECT s.workspace_id, s.ledger_id
                         FROM self_audits s JOIN workspaces w USING (workspace_id, ledger_id)
                        WHERE (s.leased_until < now() OR s.holder = $1)
                          AND (s.began_at IS NOT NULL OR s.looked_at <= now() - make_interval(secs => $2))
                        ORDER BY s.looked_at LIMIT 1 FOR UPDATE OF s SKIP LOCKED) AS due
                WHERE a.workspace_id = due.workspace_id AND a.ledger_id = due.ledger_id
               RETURNING a.workspace_id AS "workspace: WorkspaceId", a.ledger_id AS "ledger: LedgerId",
                         a.next_seq, a.found, a.finding_seq, a.finding"#,
            self.node.uuid(),
            self.settings.interval_s
        )
        .fetch_optional(&self.auditor.database.worker)
        .await?;
        Ok(row.map(|row| Turn {
            workspace: row.workspace,
            ledger: row.ledger,
            next_seq: row.next_seq,
            found: row.found,
            finding: row.finding.map(|what| (row.finding_seq.map(|seq| seq as u64), what)),
        }))
    }

    /// Notes how far it has come, and lets go. Of a turn that lasted longer than its lease nothing is noted.
    async fn done(
        &self,
        turn: &Turn,
        audited: &Audited,
        finding: Option<&(Option<u64>, String)>,
    ) -> Result<(), sqlx::Error> {
        let named = audited.finding.as_ref().is_some_and(|finding| finding.seq.is_some());
        let ends = audited.next.is_none() || named;
        let noted = sqlx::query!(
            "UPDATE self_audits
                SET next_seq = $4, looked_at = now(), leased_until = '-infinity', found = found OR $5,
                    began_at = CASE WHEN $6 THEN NULL ELSE began_at END,
                    ended_at = CASE WHEN $7 THEN now() ELSE ended_at END,
                    finding_seq = $8, finding = $9
              WHERE workspace_id = $1 AND ledger_id = $2 AND holder = $3 AND leased_until >= now()",
            turn.workspace.uuid(),
            turn.ledger.uuid(),
            self.node.uuid(),
            audited.next.unwrap_or(0) as i64,
            audited.finding.is_some(),
            ends,
            ends && !named,
            finding.and_then(|(seq, _)| *seq).map(|seq| seq as i64),
            finding.map(|(_, what)| what.as_str())
        )
        .execute(&self.auditor.database.worker)
        .await?
        .rows_affected();
        if noted == 1 && ends && !named {
            metrics::counter!("statusledger_self_audit_passes_total").increment(1);
        }
        Ok(())
    }
}
