//! A transaction that holds the head of a ledger.

use super::committer::keys_of;
use super::statement::{is_uncompared, write};
use super::{Error, Writer, Written, read_head};
use crate::access::door::standing::{Admitted, Standing};
use crate::audit::display;
use crate::database::WorkspaceTx;
use crate::delivery::Handoff;
use crate::delivery::routes::Routes;
use crate::id::{LedgerId, WorkspaceId};
use crate::ledger::batch::{self, Batch, Head, Recorded};
use crate::ledger::draft::Draft;
use crate::ledger::terms::{Claim, Condition, Terms, Version};
use crate::ledger::unix_micros;
use crate::sealing;
use statusledger_keys::envelope::DataKey;
use std::sync::Arc;

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
