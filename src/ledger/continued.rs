//! Going on after a loss that was accepted: another ledger, whose entry 0 names the one before.
//!
//! Receipts promise that a ledger only grows. Where entries that were signed are gone for good, the only honest way on is
//! under another name: the workspace gets a new ledger, and with it a new origin. What there is of the old one stays as
//! it is, is closed, and can be read, proven and exported under its own origin; its deliveries that are on their way go
//! out, since whatever was committed before the loss is a beginning of both histories. Receipt numbers start again.
//!
//! It is done by the operator, offline (`statusledger doctor --accept-loss`), a transaction a ledger: a crash leaves
//! whole ledgers, and the next run does the rest.

use super::append::{self, Locked, Writer};
use super::checkpoint::SignedTree;
use super::draft::{self, Draft};
use super::history::{Disagreement, Kind};
use super::{hex, unix_micros};
use crate::audit::{Act, Action};
use crate::id::{LedgerId, WorkspaceId};
use crate::instance::Instance;
use crate::key_encryption::KeyEncryption;
use crate::keyring;
use crate::sealing;
use statusledger_keys::ring::RootFile;
use statusledger_verify::json::{Object, Value};
use statusledger_verify::time::Timestamp;

/// A loss that cannot be accepted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing is missing, or it cannot be told what.
    #[error(
        "ledger {ledger} is not only shorter: {what}. That is no loss to be accepted; restore the database, or find out who \
         changed it"
    )]
    Damaged {
        /// Which.
        ledger: LedgerId,
        /// In what way.
        what: String,
    },
    /// Another command was quicker.
    #[error("ledger {0} is not the one that its workspace writes to any more; run the command again")]
    Moved(LedgerId),
    /// The database.
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    /// The first entries.
    #[error(transparent)]
    Append(#[from] append::Error),
    /// The first entries.
    #[error(transparent)]
    Draft(#[from] draft::Error),
    /// The workspace's data key.
    #[error(transparent)]
    Sealing(#[from] sealing::Error),
    /// The key manifest that names the instance's new ledger.
    #[error("the key manifest cannot name the instance's new ledger: {0}")]
    Keyring(#[from] keyring::Error),
}

/// What a loss is accepted with.
#[derive(Debug)]
pub struct Acceptance<'a> {
    /// The writer, of no node.
    pub writer: &'a Writer,
    /// The instance.
    pub instance: &'a Instance,
    /// What the ring is sealed under.
    pub key_encryption: &'a KeyEncryption,
    /// The root, where it is offline.
    pub root: Option<&'a RootFile>,
}

/// What came of an accepted loss.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The workspace writes to another ledger now.
    Continued {
        /// Which.
        by: LedgerId,
        /// Deliveries of the other history, which are not made any more.
        given_up: u64,
    },
    /// There is nothing to go on with: the workspace is gone or has ended, or another ledger follows already. It is on
    /// record.
    Recorded,
}

impl Acceptance<'_> {
    /// Accepts one loss.
    ///
    /// # Errors
    /// If it is none, or the database does not confirm; then nothing of it is done.
    pub async fn accept(&self, found: &Disagreement) -> Result<Outcome, Error> {
        let damaged = || Error::Damaged { ledger: found.ledger, what: found.what.clone() };
        let lost = found.signed.ok_or_else(damaged)?;
        match (found.kind, found.workspace) {
            (Kind::Damaged, _) => Err(damaged()),
            (Kind::Shorter | Kind::Other, Some(workspace)) => self.go_on(workspace, found, lost).await,
            (_, workspace) => {
                self.record(workspace.unwrap_or(self.instance.workspace), found, lost).await?;
                Ok(Outcome::Recorded)
            }
        }
    }

    fn origin(&self, ledger: LedgerId) -> String {
        format!("{}/{ledger}", self.instance.name)
    }

    /// The entry that says who accepted what.
    fn audited(&self, found: &Disagreement, lost: SignedTree) -> Result<Draft, Error> {
        let act = Act::operator();
        let record = act
            .of(Action::LossAccepted)
            .target("ledger", found.ledger)
            .detail("origin", Value::String(self.origin(found.ledger)))
            .detail("size", Value::Int(lost.size as i64))
            .detail("root", Value::String(hex(&lost.root)))
            .detail("remains", Value::Int(found.has as i64));
        Ok(record.draft()?)
    }

    /// Puts an accepted loss on record where no ledger follows: of a workspace that is gone, in the instance's ledger.
    async fn record(
        &self,
        workspace: WorkspaceId,
        found: &Disagreement,
        lost: SignedTree,
    ) -> Result<(), Error> {
        let mut locked = self.writer.lock(self.instance.workspace).await?;
        locked.append(&[self.audited(found, lost)?]).await?;
        see(&mut locked, workspace).await?;
        accepted(&mut locked, workspace, found, lost, None).await?;
        see(&mut locked, self.instance.workspace).await?;
        Ok(locked.commit().await?)
    }

    async fn go_on(
        &self,
        workspace: WorkspaceId,
        found: &Disagreement,
        lost: SignedTree,
    ) -> Result<Outcome, Error> {
        let (old, new) = (found.ledger, LedgerId::new());
        let mut tx = self.writer.database().workspace(workspace).await?;
        // Before the heads, as everywhere: the instance's own ledger comes with a new manifest.
        keyring::lock(&mut tx).await?;
        let closed = sqlx::query!(
            r#"UPDATE heads h SET closed = true FROM workspaces w
                WHERE h.workspace_id = $1 AND h.ledger_id = $2 AND w.workspace_id = $1 AND w.ledger_id = $2
               RETURNING h.recorded_at, h.routes, w.deleted_at IS NOT NULL AS "ended!""#,
            workspace.uuid(),
            old.uuid()
        )
        .fetch_optional(&mut *tx)
        .await?
        .ok_or(Error::Moved(old))?;
        if closed.ended {
            // Its data key is destroyed: nobody writes to it any more.
            accepted(&mut tx, workspace, found, lost, None).await?;
            tx.commit().await?;
            let mut locked = self.writer.lock(self.instance.workspace).await?;
            locked.append(&[self.audited(found, lost)?]).await?;
            locked.commit().await?;
            return Ok(Outcome::Recorded);
        }
        // The time of a workspace's entries never goes back, and whoever knows the old head's destinations reads anew.
        sqlx::query!(
            "INSERT INTO heads (workspace_id, ledger_id, leaf, frontier, recorded_at, routes)
             VALUES ($1, $2, $3, '', $4, $5)",
            workspace.uuid(),
            new.uuid(),
            &[0_u8; 32][..],
            closed.recorded_at,
            closed.routes + 1
        )
        .execute(&mut *tx)
        .await?;
        sqlx::query!(
            "UPDATE workspaces SET ledger_id = $2 WHERE workspace_id = $1",
            workspace.uuid(),
            new.uuid()
        )
        .execute(&mut *tx)
        .await?;
        accepted(&mut tx, workspace, found, lost, Some(new)).await?;
        sqlx::query!("UPDATE lanes SET base = last_number WHERE workspace_id = $1", workspace.uuid())
            .execute(&mut *tx)
            .await?;
        // What is known of the stores is known from the old ledger: entry 0 stands for that.
        sqlx::query!("UPDATE subjects SET seq = 0 WHERE workspace_id = $1", workspace.uuid())
            .execute(&mut *tx)
            .await?;
        // Entries of a second history must not be signed under the origin of the first. Which of them both have is not
        // known, so none is.
        let given_up = match found.kind {
            Kind::Other => give_up(&mut tx, workspace, old).await?,
            _ => 0,
        };
        let micros = unix_micros().max(closed.recorded_at);
        let mut drafts = vec![self.first(found, lost)?, self.audited(found, lost)?];
        if workspace == self.instance.workspace {
            sqlx::query!("UPDATE instance SET ledger_id = $1", new.uuid()).execute(&mut *tx).await?;
            let now = Timestamp::from_unix_micros(micros).unwrap_or_else(Timestamp::now);
            drafts.extend(keyring::continue_in(&mut tx, self.key_encryption, new, self.root, now).await?);
        }
        let data_key = self.writer.data_keys().get(workspace).await?;
        let mut locked = Locked::adopt(self.writer.clone(), tx, workspace, data_key).await?;
        locked.append_at(&drafts, micros).await?;
        // A crash before this commit leaves the old ledger as it was found.
        locked.commit().await?;
        Ok(Outcome::Continued { by: new, given_up })
    }

    /// Entry 0.
    fn first(&self, found: &Disagreement, lost: SignedTree) -> Result<Draft, Error> {
        let mut data = Object::default();
        data.insert("origin".into(), Value::String(self.origin(found.ledger)));
        data.insert("size".into(), Value::Int(lost.size as i64));
        data.insert("root".into(), Value::String(hex(&lost.root)));
        data.insert("remains".into(), Value::Int(found.has as i64));
        Ok(Draft::new("ledger.continued", data)?)
    }
}

/// Makes the rest of a transaction see `workspace`.
async fn see(tx: &mut sqlx::PgConnection, workspace: WorkspaceId) -> Result<(), sqlx::Error> {
    sqlx::query_scalar!("SELECT set_config('sl.workspace', $1, true)", workspace.uuid().to_string())
        .fetch_one(tx)
        .await?;
    Ok(())
}

async fn accepted(
    tx: &mut sqlx::PgConnection,
    workspace: WorkspaceId,
    found: &Disagreement,
    lost: SignedTree,
    by: Option<LedgerId>,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO losses AS l (workspace_id, ledger_id, size, root, accepted_at, continued_by, other)
         VALUES ($1, $2, $3, $4, now(), $5, $6)
         ON CONFLICT (workspace_id, ledger_id) DO UPDATE
            SET size = excluded.size, root = excluded.root, accepted_at = excluded.accepted_at,
                continued_by = COALESCE(excluded.continued_by, l.continued_by), other = l.other OR excluded.other",
        workspace.uuid(),
        found.ledger.uuid(),
        lost.size as i64,
        &lost.root[..],
        by.map(LedgerId::uuid),
        found.kind == Kind::Other
    )
    .execute(tx)
    .await?;
    Ok(())
}

async fn give_up(
    tx: &mut sqlx::PgConnection,
    workspace: WorkspaceId,
    ledger: LedgerId,
) -> Result<u64, sqlx::Error> {
    let given_up = sqlx::query!(
        "UPDATE deliveries SET state = 'given_up', next_attempt_at = NULL, settled_at = now()
          WHERE workspace_id = $1 AND ledger_id = $2 AND state IN ('pending', 'retry')",
        workspace.uuid(),
        ledger.uuid()
    )
    .execute(tx)
    .await?;
    Ok(given_up.rows_affected())
}
