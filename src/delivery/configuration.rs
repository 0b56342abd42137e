//! How destinations are set, as the lanes of this node need it.
//!
//! Thousands of lanes would each ask for their destination's row again and again, all of them at once where they were
//! held up together. Here a workspace's rows are read when the first of them is wanted, and one statement for all
//! workspaces asks from time to time whether anything in them has changed: each change of a destination moves
//! `heads.routes` in its own transaction. What this node has changed itself is forgotten at once ([`Configurations::forget`]);
//! what another has changed is seen within [`AGE`], and nothing older than that is used while the database does not answer.

use super::channels::webhook::WebhookSecret;
use super::queue::{self, Configured};
use super::{LaneKey, destination};
use crate::database::server::Server;
use crate::database::{Database, in_time};
use crate::id::{DestinationId, LedgerId, WorkspaceId};
use crate::sealing::DataKeys;
use statusledger_keys::envelope::DataKey;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use url::Url;

/// How old what is known of a destination may be.
pub const AGE: Duration = Duration::from_secs(5);
/// How often it is asked whether that has changed.
pub const ASK_EVERY: Duration = Duration::from_secs(2);
/// For how long one that was not there is not looked for again.
pub const ABSENT: Duration = Duration::from_secs(1);
/// A workspace that no lane has wanted for so long is forgotten.
const UNUSED: Duration = Duration::from_secs(120);
/// For how long nobody tries again to read what has just not been had.
const PAUSE: Duration = Duration::from_millis(500);

/// A destination's settings, opened.
pub struct Settings {
    /// Where to.
    pub url: Url,
    /// Whether notifications carry openings.
    pub openings: bool,
    /// Attempts at once, at most.
    pub max_in_flight: usize,
    /// The secret in use, and the one before.
    secrets: Vec<WebhookSecret>,
    /// When the one before ends.
    previous_until: Option<Instant>,
}

impl Settings {
    /// The secrets to sign with: the one in use, and the one before while that is valid.
    #[must_use]
    pub fn secrets(&self) -> &[WebhookSecret] {
        let ended = self.previous_until.is_none_or(|until| Instant::now() >= until);
        if ended { &self.secrets[..1] } else { &self.secrets }
    }

    fn open(
        row: &Configured,
        key: &DataKey,
        lane: LaneKey,
        read: Instant,
    ) -> Result<Self, destination::Error> {
        let secret = row.secret.as_deref().ok_or(destination::Error::Emptied)?;
        let mut secrets = vec![destination::open_secret(key, lane.destination, secret, false)?];
        let mut previous_until = None;
        if let Some(previous) = &row.previous {
            secrets.push(destination::open_secret(key, lane.destination, &previous.secret, true)?);
            previous_until = Some(read + previous.left);
        }
        let url = destination::open_url(key, lane.destination, row.url.as_deref())?;
        let url = Url::parse(&url).map_err(|e| destination::Error::Url(e.to_string()))?;
        let (openings, max_in_flight) = (row.openings, row.max_in_flight);
        Ok(Self { url, openings, max_in_flight, secrets, previous_until })
    }
}

/// What was so when the rows were read: the ledger and its count of changes, on which server.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Version {
    /// None of a workspace that has ended.
    routes: Option<(LedgerId, i64)>,
    /// A server that was set back may come to the same count by another way.
    server: Option<Server>,
}

/// A workspace's destinations that take something.
struct Loaded {
    version: Version,
    read: Instant,
    rows: HashMap<DestinationId, Configured>,
    opened: Mutex<HashMap<DestinationId, Arc<Settings>>>,
}

#[derive(Default)]
struct State {
    loaded: Option<Arc<Loaded>>,
    /// When that was last known to be so.
    confirmed: Option<Instant>,
    used: Option<Instant>,
    failed: Option<Instant>,
    /// How often it was forgotten: what was being read meanwhile may be what was before.
    forgotten: u64,
}

#[derive(Default)]
struct Slot {
    state: Mutex<State>,
    /// One reads, the others wait for what they read.
    reading: tokio::sync::Mutex<()>,
}

impl Slot {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn current(&self) -> Option<Arc<Loaded>> {
        let mut state = self.state();
        state.used = Some(Instant::now());
        let fresh = state.confirmed.is_some_and(|at| at.elapsed() < AGE);
        state.loaded.clone().filter(|_| fresh)
    }
}

/// What is known of destinations. Locked for look-ups only.
#[derive(Default)]
pub struct Configurations(Mutex<HashMap<WorkspaceId, Arc<Slot>>>);

impl Configurations {
    fn slot(&self, workspace: WorkspaceId) -> Arc<Slot> {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(slots.entry(workspace).or_default())
    }

    /// How a destination is set; none where it takes nothing any more. Of one that was deleted, or whose workspace has
    /// ended, there is nothing left to be opened.
    ///
    /// # Errors
    /// If the database does not answer, or what is stored does not open.
    pub async fn get(
        &self,
        database: &Database,
        data_keys: &DataKeys,
        lane: LaneKey,
    ) -> Result<Option<Arc<Settings>>, queue::Error> {
        let slot = self.slot(lane.workspace);
        let waiting = Instant::now();
        // One that is not among them may have been made since they were read, as whatever there is for it was.
        let tells = |loaded: &Loaded| {
            loaded.read >= waiting
                || loaded.read.elapsed() < ABSENT
                || loaded.rows.contains_key(&lane.destination)
        };
        let loaded = loop {
            if let Some(loaded) = slot.current().filter(|loaded| tells(loaded)) {
                break loaded;
            }
            let _turn = slot.reading.lock().await;
            if let Some(loaded) = slot.current().filter(|loaded| tells(loaded)) {
                break loaded;
            }
            let forgotten = {
                let state = slot.state();
                if state.failed.is_some_and(|at| at > waiting || at.elapsed() < PAUSE) {
                    return Err(sqlx::Error::from(std::io::Error::from(std::io::ErrorKind::TimedOut)).into());
                }
                state.forgotten
            };
            let server = database.compared.server();
            let asked = Instant::now();
            let read = in_time(queue::configured(database, lane.workspace)).await.and_then(|read| read);
            let mut state = slot.state();
            match read {
                Ok((routes, rows)) => {
                    if state.forgotten == forgotten {
                        let version = Version { routes, server };
                        let opened = Mutex::default();
                        state.loaded = Some(Arc::new(Loaded { version, read: asked, rows, opened }));
                        state.confirmed = Some(asked);
                        state.failed = None;
                    }
                }
                Err(e) => {
                    state.failed = Some(Instant::now());
                    return Err(e.into());
                }
            }
        };
        let Some(row) = loaded.rows.get(&lane.destination) else { return Ok(None) };
        let known = |loaded: &Loaded| {
            let opened = loaded.opened.lock().unwrap_or_else(PoisonError::into_inner);
            opened.get(&lane.destination).cloned()
        };
        if let Some(settings) = known(&loaded) {
            return Ok(Some(settings));
        }
        let data_key = data_keys.get(lane.workspace).await?;
        let settings = Settings::open(row, &data_key, lane, loaded.read).map_err(|e| {
            tracing::error!(destination = %lane.destination, error = %e, "a destination's settings do not open");
            queue::Error::Damaged(0, "the destination's settings do not open")
        })?;
        let settings = Arc::new(settings);
        let mut opened = loaded.opened.lock().unwrap_or_else(PoisonError::into_inner);
        opened.insert(lane.destination, Arc::clone(&settings));
        Ok(Some(settings))
    }

    /// Forgets what is known of a workspace's destinations: some of it has changed.
    pub fn forget(&self, workspace: WorkspaceId) {
        let slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(&workspace) {
            let mut state = slot.state();
            state.loaded = None;
            state.forgotten += 1;
        }
    }

    /// Asks whether anything that is known has changed, and forgets what has, and what nobody wants any more.
    ///
    /// # Errors
    /// If the database does not answer; what is known then ages.
    pub async fn confirm(&self, database: &Database) -> Result<(), sqlx::Error> {
        let known: Vec<(WorkspaceId, Arc<Slot>, Arc<Loaded>)> = {
            let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // One that somebody holds is being read.
            slots.retain(|_, slot| {
                Arc::strong_count(slot) > 1 || slot.state().used.is_some_and(|at| at.elapsed() < UNUSED)
            });
            let loaded = |slot: &Arc<Slot>| slot.state().loaded.clone();
            slots.iter().filter_map(|(id, slot)| Some((*id, Arc::clone(slot), loaded(slot)?))).collect()
        };
        if known.is_empty() {
            return Ok(());
        }
        let (server, asked) = (database.compared.server(), Instant::now());
        let workspaces: Vec<WorkspaceId> = known.iter().map(|(workspace, ..)| *workspace).collect();
        let mut now = in_time(queue::routes_of(database, &workspaces)).await??;
        for (workspace, slot, loaded) in known {
            let version = Version { routes: now.remove(&workspace), server: server.clone() };
            let mut state = slot.state();
            // What was forgotten or read meanwhile speaks for itself.
            if !state.loaded.as_ref().is_some_and(|there| Arc::ptr_eq(there, &loaded)) {
                continue;
            }
            if version == loaded.version {
                state.confirmed = state.confirmed.max(Some(asked));
            } else {
                state.loaded = None;
            }
        }
        Ok(())
    }
}
