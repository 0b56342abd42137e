//! What a request asks of the transaction that carries it out: that nothing was changed since it was compared
//! (`If-Match`), that it is carried out once (`Idempotency-Key`), and that whoever asked may do so still ([`Standing`]).
//!
//! All of it can only be promised where the change itself is committed. It travels from the request to its [`Act`], from
//! there with the audit entry that every change has to write, and is kept under the head's lock in its transaction
//! ([`Locked`]): whoever changes something cannot leave it behind without leaving the entry behind too.
//!
//! [`Act`]: crate::audit::Act
//! [`Locked`]: super::Locked

use super::append::Error;
use crate::access::door::standing::Standing;
use crate::database::{Database, WorkspaceTx};
use crate::id::{LedgerId, WorkspaceId};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use uuid::Uuid;

/// How long a claim holds that is not renewed, in seconds.
pub const LEASE_S: i32 = 60;
/// How long an answer is kept, or that there was one, in hours.
pub const KEPT_H: i32 = 24;

/// How far the acts in a workspace have come. Who may change what a client can read of it holds the head's lock and
/// writes an audit entry, or (a destination that is disabled by the service) counts the routes up: while a version is the
/// same, nothing of that was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// The ledger: another after an accepted loss.
    pub ledger: LedgerId,
    /// Its newest audit entry.
    pub act: Option<i64>,
    /// The count of changes of the destinations.
    pub routes: i64,
}

/// Reads the version of a workspace; none where there is no such workspace.
///
/// # Errors
/// If the database does not answer.
pub async fn version(database: &Database, workspace: WorkspaceId) -> Result<Option<Version>, sqlx::Error> {
    let mut tx = database.workspace(workspace).await?;
    // One statement, so of one moment.
    sqlx::query_as!(
        Version,
        r#"SELECT h.ledger_id AS "ledger: LedgerId", h.routes,
                  (SELECT max(a.seq) FROM audit_index a
                    WHERE a.workspace_id = h.workspace_id AND a.ledger_id = h.ledger_id) AS act
             FROM heads h JOIN workspaces w USING (workspace_id, ledger_id) WHERE h.workspace_id = $1"#,
        workspace.uuid()
    )
    .fetch_optional(&mut *tx)
    .await
}

/// What came of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No transaction has asked.
    Unasked,
    /// It held, in a transaction that may since have been committed.
    Held,
    /// It did not, and that transaction is not committed.
    Broken,
}

/// That a workspace has not come further than when it was looked at. Clones share the verdict.
#[derive(Clone, Debug)]
pub struct Condition(Arc<ConditionParts>);

#[derive(Debug)]
struct ConditionParts {
    /// None: nothing could be compared, so it holds nowhere.
    compared: Option<(WorkspaceId, Version)>,
    verdict: AtomicU8,
}

impl Condition {
    /// That `workspace` is still at `version`; with none, what never holds.
    #[must_use]
    pub fn new(compared: Option<(WorkspaceId, Version)>) -> Self {
        Self(Arc::new(ConditionParts { compared, verdict: AtomicU8::new(0) }))
    }

    /// What came of it.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match self.0.verdict.load(Ordering::SeqCst) {
            0 => Verdict::Unasked,
            1 => Verdict::Held,
            _ => Verdict::Broken,
        }
    }

    /// Whether it is the same, not only alike.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Holds it against `now`, the version of `workspace` before the transaction that holds its head.
    ///
    /// # Errors
    /// If it does not hold; or it was held in another transaction: then this one is not to be committed, since part of the
    /// change may have been.
    pub fn hold(&self, workspace: WorkspaceId, now: Version) -> Result<(), Error> {
        if self.verdict() == Verdict::Held {
            return Err(Error::Terms("a change under a condition is one transaction"));
        }
        if self.0.compared.is_some_and(|(of, _)| of != workspace) {
            return Err(Error::Terms("a change is recorded elsewhere than its condition was compared"));
        }
        let holds = self.0.compared.is_some_and(|(_, then)| then == now);
        self.0.verdict.store(if holds { 1 } else { 2 }, Ordering::SeqCst);
        if holds { Ok(()) } else { Err(Error::Moved) }
    }
}

/// An idempotency key that a request holds: a row, whose `claim` is this request's own. Cloned freely.
#[derive(Clone, Debug)]
pub struct Claim(Arc<ClaimParts>);

/// The parts of a [`Claim`].
#[derive(Debug)]
pub struct ClaimParts {
    /// Where the key was sent to.
    pub workspace: WorkspaceId,
    /// Who sent it.
    pub caller: String,
    /// The key.
    pub key: String,
    /// This request's own: another that takes the row over has another.
    pub id: Uuid,
}

impl Claim {
    /// Of its parts.
    #[must_use]
    pub fn new(parts: ClaimParts) -> Self {
        Self(Arc::new(parts))
    }

    /// Whether it is the same, not only alike.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Says in the transaction of a change that it is carried out. A crash before the commit leaves a claim whose lease
    /// ends, one after it a claim that is kept, and nothing is done again.
    ///
    /// # Errors
    /// If the claim is another's by now: then the change is not to be committed.
    pub async fn carry_out(&self, tx: &mut WorkspaceTx) -> Result<(), Error> {
        let here = tx.workspace;
        // Seen only within the workspace that the key was sent to, and the change may be another's.
        if here != self.workspace {
            see(tx, self.workspace).await?;
        }
        let marked = sqlx::query!(
            "UPDATE request_keys SET carried_out = true, leased_until = now() + make_interval(secs => $5),
                    expires_at = now() + make_interval(hours => $6)
              WHERE workspace_id = $1 AND caller = $2 AND key = $3 AND claim = $4 AND status IS NULL",
            self.workspace.uuid(),
            self.caller,
            self.key,
            self.id,
            f64::from(LEASE_S),
            KEPT_H
        )
        .execute(&mut **tx)
        .await?
        .rows_affected();
        if here != self.workspace {
            see(tx, here).await?;
        }
        if marked == 1 { Ok(()) } else { Err(Error::ClaimLost) }
    }
}

impl std::ops::Deref for Claim {
    type Target = ClaimParts;
    fn deref(&self) -> &ClaimParts {
        &self.0
    }
}

/// Makes the rest of a transaction see `workspace`.
async fn see(tx: &mut WorkspaceTx, workspace: WorkspaceId) -> Result<(), sqlx::Error> {
    sqlx::query_scalar!("SELECT set_config('sl.workspace', $1, true)", workspace.uuid().to_string())
        .fetch_one(&mut **tx)
        .await?;
    Ok(())
}

/// What a request asks of the transaction that carries it out.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// That whoever asked may do so still.
    pub standing: Standing,
    /// That nothing was changed since it was compared.
    pub condition: Option<Condition>,
    /// That it is carried out once.
    pub claim: Option<Claim>,
}

impl Terms {
    /// Whether nothing is asked.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.condition.is_none()
            && self.claim.is_none()
            && matches!(self.standing, Standing::Own | Standing::Proven)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn at(act: Option<i64>) -> Version {
        Version { ledger: LedgerId::from(Uuid::nil()), act, routes: 3 }
    }

    #[test]
    fn a_condition_holds_once_and_only_where_it_was_compared() {
        let (here, elsewhere) = (WorkspaceId::new(), WorkspaceId::new());
        let condition = Condition::new(Some((here, at(Some(7)))));
        assert_eq!(condition.verdict(), Verdict::Unasked);
        assert!(matches!(condition.hold(elsewhere, at(Some(7))), Err(Error::Terms(_))));
        condition.hold(here, at(Some(7))).unwrap();
        assert_eq!(condition.verdict(), Verdict::Held);
        // Part of the change may be committed: what follows is no comparison any more.
        assert!(matches!(condition.hold(here, at(Some(8))), Err(Error::Terms(_))));
        assert_eq!(condition.verdict(), Verdict::Held);
        let others = [at(Some(8)), at(None), Version { routes: 4, ..at(Some(7)) }];
        for now in others.into_iter().chain([Version { ledger: LedgerId::new(), ..at(Some(7)) }]) {
            let condition = Condition::new(Some((here, at(Some(7)))));
            assert!(matches!(condition.hold(here, now), Err(Error::Moved)), "{now:?}");
            assert_eq!(condition.verdict(), Verdict::Broken);
        }
        let never = Condition::new(None);
        assert!(matches!(never.hold(here, at(Some(7))), Err(Error::Moved)));
    }
}
