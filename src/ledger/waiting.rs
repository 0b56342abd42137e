//! Requests that wait for a ledger to grow.
//!
//! However many wait, a node looks after one ledger's size once: a look-out for each ledger that somebody waits for, which
//! ends with the last of them. Any node may append, so looking is all there is. How many may wait is bounded, for each
//! key or person and for each workspace, since a limit of requests a minute is none of requests that last half of one.

use crate::database::Database;
use crate::http::problem::Problem;
use crate::id::WorkspaceId;
use crate::node::Readiness;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

/// Requests of one key or person that may wait at once, on each node: as many as there are windows open.
pub const OF_ONE: usize = 64;
/// Requests of a workspace that may wait at once, on each node: what one append wakes.
pub const OF_A_WORKSPACE: usize = 512;
/// How often a look-out looks at the head.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Seconds after which somebody may have gone.
const TRY_AGAIN_S: u64 = 5;

/// Who waits for which ledgers. Cloned freely. Locked for counting only.
#[derive(Clone, Debug, Default)]
pub struct Waiting(Arc<Mutex<HashMap<WorkspaceId, Waited>>>);

/// A ledger that somebody waits for.
#[derive(Debug)]
struct Waited {
    /// How many wait, by key or person. None of them is zero.
    callers: HashMap<uuid::Uuid, usize>,
    total: usize,
    /// What the look-out sees.
    size: watch::Receiver<i64>,
}

/// A place among those who wait; it is free again when dropped.
#[derive(Debug)]
pub struct Place {
    waiting: Waiting,
    workspace: WorkspaceId,
    caller: uuid::Uuid,
    size: watch::Receiver<i64>,
}

impl Waiting {
    /// A place for `caller` among those who wait for the workspace's ledger.
    ///
    /// # Errors
    /// If too many of theirs wait (429), or of the workspace's (503).
    pub fn place(
        &self,
        database: &Database,
        readiness: &Readiness,
        workspace: WorkspaceId,
        caller: uuid::Uuid,
    ) -> Result<Place, Problem> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let look_out = || {
            let (sees, size) = watch::channel(-1);
            tokio::spawn(look_out(database.clone(), readiness.clone(), workspace, sees));
            size
        };
        let waited = all.entry(workspace).or_insert_with(|| Waited {
            callers: HashMap::new(),
            total: 0,
            size: look_out(),
        });
        if waited.callers.get(&caller).is_some_and(|own| *own >= OF_ONE) {
            let mut problem = Problem::too_many(TRY_AGAIN_S);
            problem.detail = format!("Of this key or person {OF_ONE} requests wait for entries already.");
            return Err(problem);
        }
        if waited.total >= OF_A_WORKSPACE {
            let mut problem = Problem::unavailable(format!(
                "In this workspace {OF_A_WORKSPACE} requests wait for entries already."
            ));
            problem.retry_after = Some(TRY_AGAIN_S);
            return Err(problem);
        }
        // It ends too when the node must not serve, which may have been for a moment.
        if waited.size.has_changed().is_err() {
            waited.size = look_out();
        }
        *waited.callers.entry(caller).or_default() += 1;
        waited.total += 1;
        Ok(Place { waiting: self.clone(), workspace, caller, size: waited.size.clone() })
    }
}

impl Place {
    /// Waits until the ledger has more than `size` entries; false where it is not worth waiting any more.
    pub async fn grown(&mut self, size: i64, until: Instant) -> bool {
        let grown = self.size.wait_for(|now| *now > size);
        matches!(timeout_at(until, grown).await, Ok(Ok(_)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.waiting.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(waited) = all.get_mut(&self.workspace) else { return };
        waited.total -= 1;
        if let Some(own) = waited.callers.get_mut(&self.caller) {
            *own -= 1;
            if *own == 0 {
                waited.callers.remove(&self.caller);
            }
        }
        if waited.total == 0 {
            all.remove(&self.workspace);
        }
    }
}

/// Looks after a ledger's size until nobody waits for it, or the node must not serve.
async fn look_out(
    database: Database,
    readiness: Readiness,
    workspace: WorkspaceId,
    size: watch::Sender<i64>,
) {
    loop {
        tokio::select! {
            () = size.closed() => return,
            () = sleep(LOOK_EVERY) => {}
        }
        if !readiness.is_ready() {
            return;
        }
        // One statement outside of a transaction, where a page takes three round trips.
        let seen = sqlx::query_scalar!(
            "SELECT h.size FROM heads h JOIN workspaces w USING (workspace_id, ledger_id) WHERE h.workspace_id = $1",
            workspace.uuid()
        )
        .fetch_optional(&database.worker)
        .await;
        match seen {
            // Where there is none any more, whoever waits has to hear that.
            Ok(seen) => {
                let seen = seen.unwrap_or(i64::MAX);
                size.send_if_modified(|last| std::mem::replace(last, seen) != seen);
            }
            Err(e) => tracing::debug!(error = %e, "a ledger's size is not known for a moment"),
        }
    }
}
