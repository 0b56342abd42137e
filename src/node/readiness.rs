//! Whether a node may serve.

use crate::database::Database;
use crate::id::LedgerId;
use crate::ledger::unix_micros;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How far the newest entry may be ahead of the clock: as much as clocks of machines that are kept right differ, and more.
const CLOCK_LEAD: Duration = Duration::from_secs(5);

/// What can keep a node from serving. The first that does is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The node is stopping.
    Stopping,
    /// The heads are not verified, or are not those that were signed.
    History,
    /// The self-audit has found another history than was signed.
    SelfAudit,
    /// The clock is behind what the ledgers say.
    Clock,
}

/// Whether a node may serve, and if not, why not. Cloned freely. Locked for look-ups only.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<Mutex<BTreeMap<Reason, String>>>);

impl Readiness {
    pub(super) fn unverified() -> Self {
        let why = "the ledgers' heads are not verified yet".into();
        Self(Arc::new(Mutex::new(BTreeMap::from([(Reason::History, why)]))))
    }

    /// Whether it may.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Why not.
    #[must_use]
    pub fn words(&self) -> String {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.values().next().cloned().unwrap_or_else(|| "ready".into())
    }

    /// Whether that keeps it from serving, in these words; says whether that is new.
    pub fn set(&self, reason: Reason, state: Result<(), String>) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match state {
            Ok(()) => all.remove(&reason).is_some(),
            Err(why) => all.insert(reason, why).is_none(),
        }
    }
}

/// Compares the clock with the newest entry of any ledger. A clock that went back (or an entry made while it, or another
/// node's, was ahead) makes every timestamp the newest one until it has caught up: for some seconds nobody minds, but a
/// node that would record hours under one time waits.
pub(super) async fn look_at_clock(database: &Database, readiness: &Readiness) -> Result<(), sqlx::Error> {
    let newest = sqlx::query!(
        r#"SELECT recorded_at, ledger_id AS "ledger: LedgerId" FROM heads ORDER BY recorded_at DESC LIMIT 1"#
    )
    .fetch_optional(&database.worker)
    .await?;
    let Some(newest) = newest else { return Ok(()) };
    let lead = newest.recorded_at.saturating_sub(unix_micros());
    let state = if lead <= CLOCK_LEAD.as_micros() as i64 {
        Ok(())
    } else {
        let seconds = lead / 1_000_000;
        Err(format!("the newest entry of ledger {} is {seconds} s ahead of this node's clock", newest.ledger))
    };
    match (readiness.set(Reason::Clock, state.clone()), state) {
        (true, Err(why)) => tracing::error!(why, "the node is not ready: its clock is behind the ledgers"),
        (true, Ok(())) => tracing::warn!("the clock has caught up with the ledgers"),
        (false, _) => {}
    }
    Ok(())
}
