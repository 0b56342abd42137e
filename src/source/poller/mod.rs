//! The poller: asks each store key what its plan says is due, one node at a time.
//!
//! A source that is due is claimed by lease; a node that dies in a round leaves it to the next one. What a round saw
//! before it failed counts: each observation is true by itself. Failing rounds back off with jitter, and a store
//! that says when to come back is obeyed.

pub mod access;
mod client;
mod edits;
mod health;
mod plan;
mod round;
mod rows;

use super::fetch::{FetchOptions, StoreError};
use super::{Health, Kind, budget};
use crate::config::PollingSettings;
use crate::database::Database;
use crate::id::{NodeId, SourceId, WorkspaceId};
use crate::ledger::{Writer, append};
use crate::observation;
use crate::sealing::{self, SecretColumn};
use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use time::OffsetDateTime;
use tokio::sync::{Semaphore, watch};

use client::Client;

/// How long a claimed source is this node's without a renewal: what a node that dies keeps from the others.
const LEASE: time::Duration = time::Duration::seconds(10);
/// How often the lease of a sweep in flight is renewed.
const RENEW_EVERY: Duration = Duration::from_secs(3);
/// Keys of one store that a node attends to at once. Another store's have their own.
const AT_ONCE: usize = 16;
/// How long a key is one of these. Whose store takes longer to answer waits on without a place: all that a request in flight
/// costs is a connection, and a store that answers nobody would have all the places.
const PLACE_FOR: Duration = Duration::from_secs(2);
/// Keys of one store that are attended to at all on a node, those without a place among them.
const ROUNDS: usize = 256;
/// Rounds of a node that read or write the database at once: what they leave of the connections is the API's.
const TURNS: usize = 16;
/// How often what is remembered of sources that were deleted is dropped.
const TIDY_EVERY: Duration = Duration::from_secs(10);
/// A wait, in the store's time, that its source's health tells of.
const LONG_WAIT: Duration = Duration::from_secs(900);
/// Rounds in a row that a key must be refused in before it counts as refused and not merely suspect.
const REFUSALS: u32 = 3;
/// The shortest time between two looks for due sources.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The longest.
const LOOK_EVERY_AT_MOST: Duration = Duration::from_secs(1);

/// What is remembered of a source between sweeps on this node.
struct Station {
    client: Client,
    /// The SHA-256 of the sealed key that the client has, by which it is known to be the source's of today.
    under: [u8; 32],
    failing: budget::Backoff,
    /// Rounds in a row that the key was refused in, as far as they heard of the key.
    refusals: u32,
    /// Rounds in a row since the last of these in which the store failed.
    unheard: u32,
    /// As it was last told, with the words to it.
    health: Option<(Health, Option<String>)>,
    /// Why the last poll that failed did.
    why: Option<String>,
}

type Stations = Mutex<HashMap<SourceId, Arc<tokio::sync::Mutex<Station>>>>;

/// The poller of a node.
pub struct Poller {
    database: Database,
    writer: Writer,
    node: NodeId,
    settings: PollingSettings,
    /// Locked for look-ups; a station is locked for the length of its sweep.
    stations: Stations,
    places: [Places; 2],
    turns: Semaphore,
}

/// The rounds of one store's keys.
struct Places {
    kind: Kind,
    /// Those that hold up others.
    quick: Arc<Semaphore>,
    /// All.
    all: Arc<Semaphore>,
}

impl Places {
    fn of(kind: Kind) -> Self {
        Self { kind, quick: Arc::new(Semaphore::new(AT_ONCE)), all: Arc::new(Semaphore::new(ROUNDS)) }
    }
}

/// Why a source cannot be asked at all.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// The database.
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    /// The workspace's data key.
    #[error(transparent)]
    Sealing(#[from] sealing::Error),
    /// What is stored of it is no key.
    #[error("the stored key is damaged: {0}")]
    Damaged(String),
    /// The key is none that a client can be made of.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What it said is not recorded.
    #[error(transparent)]
    Observation(#[from] observation::Error),
    /// Its health is not recorded.
    #[error(transparent)]
    Source(#[from] super::Error),
}

impl Unusable {
    /// Whether the source was deleted, or given another key, while it was attended to.
    fn is_deletion(&self) -> bool {
        matches!(self, Self::Observation(observation::Error::Gone) | Self::Source(super::Error::Missing(_)))
    }

    /// Whether the node has closed its connections.
    fn is_the_nodes_end(&self) -> bool {
        let closed =
            |e: &(dyn std::error::Error + 'static)| matches!(e.downcast_ref(), Some(sqlx::Error::PoolClosed));
        match self {
            Self::Sql(e) | Self::Observation(observation::Error::Sql(e)) => closed(e),
            other => std::error::Error::source(other).is_some_and(closed),
        }
    }

    /// What it says of the source's health, with the words to it; none where it is the service's own trouble, which may
    /// be over the next moment.
    fn health(&self) -> Option<(Health, String)> {
        match self {
            Self::Damaged(_) | Self::Store(_) | Self::Sealing(sealing::Error::Seal(_)) => {
                Some((Health::Refused, format!("the source cannot be used: {self}")))
            }
            Self::Observation(
                e @ (observation::Error::Draft(_)
                | observation::Error::Time
                | observation::Error::Sql(sqlx::Error::Database(_))
                | observation::Error::Append(append::Error::Sql(_) | append::Error::Sealing(_))),
            ) => Some((Health::Degraded, format!("what the store says is not recorded: {e}"))),
            Self::Sql(_) | Self::Sealing(_) | Self::Source(_) | Self::Observation(_) => None,
        }
    }
}

struct Due {
    workspace: WorkspaceId,
    source: SourceId,
    /// When it was due: another time at the round's end is somebody's wish for another round.
    at: Option<OffsetDateTime>,
}

impl Poller {
    /// A poller for `node`.
    #[must_use]
    pub fn new(database: Database, writer: Writer, node: NodeId, settings: PollingSettings) -> Arc<Self> {
        Arc::new(Self {
            database,
            writer,
            node,
            settings,
            stations: Mutex::default(),
            places: [Kind::AppStore, Kind::GooglePlay].map(Places::of),
            turns: Semaphore::new(TURNS),
        })
    }

    /// Polls until the node stops.
    pub async fn run(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let (least, most) = (self.settings.scaled(LOOK_EVERY), self.settings.scaled(LOOK_EVERY_AT_MOST));
        let every = (self.settings.hot() / 4).clamp(least, most);
        let mut look = tokio::time::interval(every);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut tidy = tokio::time::interval(TIDY_EVERY);
        tidy.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = stop.changed() => return,
                _ = look.tick() => {
                    for places in &self.places {
                        self.attend_to_all(places).await;
                    }
                }
                _ = tidy.tick() => self.forget_deleted().await,
            }
        }
    }

    /// Attends to what is due of one store, as far as there is room.
    async fn attend_to_all(self: &Arc<Self>, places: &Places) {
        let room = places.quick.available_permits().min(places.all.available_permits());
        if room == 0 {
            return;
        }
        let due = match self.claim(places.kind, room as i64).await {
            Ok(due) => due,
            Err(e) => {
                tracing::warn!(error = %e, "due sources cannot be looked for");
                return;
            }
        };
        for due in due {
            // Nobody else takes permits, so that there are as many as there were.
            let (quick, all) = (Arc::clone(&places.quick), Arc::clone(&places.all));
            let (Ok(quick), Ok(all)) = (quick.acquire_owned().await, all.acquire_owned().await) else {
                return;
            };
            let poller = Arc::clone(self);
            tokio::spawn(async move {
                let attended = poller.attend(due);
                tokio::pin!(attended);
                if tokio::time::timeout(PLACE_FOR, &mut attended).await.is_err() {
                    drop(quick);
                    attended.await;
                }
                drop(all);
            });
        }
    }

    /// A turn at the database.
    async fn turn(&self) -> Option<tokio::sync::SemaphorePermit<'_>> {
        // It is never closed.
        self.turns.acquire().await.ok()
    }

    async fn claim(&self, kind: Kind, room: i64) -> Result<Vec<Due>, sqlx::Error> {
        sqlx::query_as!(
            Due,
            r#"UPDATE sources s SET lease_holder = $1, leased_until = now() + $3::float8 * interval '1 second'
                 FROM (SELECT workspace_id, source_id FROM sources
                        WHERE deleted_at IS NULL AND kind = $4
                          AND next_poll_at <= now() AND leased_until < now()
                        ORDER BY next_poll_at LIMIT $2 FOR UPDATE SKIP LOCKED) AS due
                WHERE s.workspace_id = due.workspace_id AND s.source_id = due.source_id
               RETURNING s.workspace_id AS "workspace: WorkspaceId", s.source_id AS "source: SourceId", s.next_poll_at AS at"#,
            self.node.uuid(),
            room,
            LEASE.as_seconds_f64(),
            kind.name()
        )
        .fetch_all(&self.database.worker)
        .await
    }

    /// Drops the clients of sources that were deleted, and their keys with them.
    async fn forget_deleted(&self) {
        let known: Vec<uuid::Uuid> =
            self.stations.lock().unwrap_or_else(PoisonError::into_inner).keys().map(|id| id.uuid()).collect();
        let deleted = sqlx::query_scalar!(
            r#"SELECT source_id AS "source: SourceId" FROM sources
                WHERE source_id = ANY($1) AND deleted_at IS NOT NULL"#,
            &known
        )
        .fetch_all(&self.database.worker)
        .await;
        match deleted {
            Ok(deleted) => deleted.iter().for_each(|source| self.forget(*source)),
            Err(e) => tracing::debug!(error = %e, "deleted sources cannot be looked for"),
        }
        let clients = self.stations.lock().unwrap_or_else(PoisonError::into_inner).len();
        metrics::gauge!("statusledger_store_clients").set(clients as f64);
    }

    fn forget(&self, source: SourceId) {
        self.stations.lock().unwrap_or_else(PoisonError::into_inner).remove(&source);
    }

    /// Asks everything of a source now, whatever its plan says, and records it. That the store fails is no error here:
    /// it is the source's health.
    ///
    /// # Errors
    /// If the source cannot be used, or the database does not confirm.
    pub async fn look_now(&self, workspace: WorkspaceId, source: SourceId) -> Result<(), Unusable> {
        let at = make_due(&self.database, workspace, source).await?;
        self.round(&Due { workspace, source, at }).await.map(drop)
    }

    async fn attend(&self, due: Due) {
        let swept = tokio::select! {
            swept = self.round(&due) => swept,
            () = self.keep(&due) => Err(Unusable::Observation(observation::Error::Gone)),
        };
        let wait = match swept {
            Ok(wait) => wait,
            // The node stops: the lease runs out, and whoever is next goes on.
            Err(e) if e.is_the_nodes_end() => return,
            Err(e) if e.is_deletion() => {
                self.forget(due.source);
                // One whose key was replaced goes on at once with the new one.
                Duration::ZERO
            }
            Err(e) => {
                tracing::warn!(source = %due.source, error = %e, "a source cannot be asked");
                if let Some((health, why)) = e.health() {
                    let (workspace, source) = (due.workspace, due.source);
                    if let Some(station) = self.known(source) {
                        // What it was told before is not what it is now.
                        station.lock().await.health = None;
                    }
                    let told =
                        super::set_health(&self.writer, workspace, source, health, Some(&why), None).await;
                    if let Err(e) = told {
                        tracing::warn!(source = %due.source, error = %e, "the source's health is not recorded");
                    }
                }
                self.settings.longest_wait().min(self.settings.hot() * 4)
            }
        };
        // A look that was asked for meanwhile stays due. A crash before this leaves the lease, after which another node
        // goes on.
        let done = sqlx::query!(
            "UPDATE sources SET leased_until = '-infinity',
                    next_poll_at = CASE WHEN next_poll_at = $5 THEN now() + $4::float8 * interval '1 second'
                                        ELSE next_poll_at END
              WHERE workspace_id = $1 AND source_id = $2 AND lease_holder = $3",
            due.workspace.uuid(),
            due.source.uuid(),
            self.node.uuid(),
            wait.as_secs_f64(),
            due.at
        )
        .execute(&self.database.worker)
        .await;
        if let Err(e) = done {
            tracing::warn!(source = %due.source, error = %e, "a source's lease is left to run out");
        }
    }

    /// Renews a lease for as long as it is polled; ends when the source is deleted. A lease that is lost all the same (the
    /// database was away) costs a sweep twice: what both saw is recorded once.
    async fn keep(&self, due: &Due) {
        let mut renew = tokio::time::interval(RENEW_EVERY);
        renew.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        renew.tick().await;
        loop {
            renew.tick().await;
            let renewed = sqlx::query_scalar!(
                r#"UPDATE sources SET leased_until = now() + $4::float8 * interval '1 second'
                    WHERE workspace_id = $1 AND source_id = $2 AND lease_holder = $3
                   RETURNING deleted_at IS NOT NULL AS "deleted!""#,
                due.workspace.uuid(),
                due.source.uuid(),
                self.node.uuid(),
                LEASE.as_seconds_f64()
            )
            .fetch_optional(&self.database.worker)
            .await;
            match renewed {
                Ok(Some(true)) => return,
                Ok(_) => {}
                Err(e) => tracing::debug!(source = %due.source, error = %e, "a lease is not renewed"),
            }
        }
    }

    fn known(&self, source: SourceId) -> Option<Arc<tokio::sync::Mutex<Station>>> {
        self.stations.lock().unwrap_or_else(PoisonError::into_inner).get(&source).cloned()
    }

    async fn station(&self, due: &Due) -> Result<Arc<tokio::sync::Mutex<Station>>, Unusable> {
        if let Some(station) = self.known(due.source) {
            let under = station.lock().await.under;
            match self.is_told(due.workspace, due.source, under).await {
                Ok(_) => return Ok(station),
                // The source has another key by now, or is gone: what follows finds out.
                Err(Unusable::Observation(observation::Error::Gone)) => self.forget(due.source),
                Err(e) => return Err(e),
            }
        }
        let turn = self.turn().await;
        let mut tx = self.database.workspace(due.workspace).await?;
        let row = sqlx::query!(
            "SELECT kind, settings, secret, rate_limit, rate_remaining, rate_at FROM sources
              WHERE workspace_id = $1 AND source_id = $2 AND deleted_at IS NULL",
            due.workspace.uuid(),
            due.source.uuid()
        )
        .fetch_optional(&mut *tx)
        .await?
        .ok_or(Unusable::Observation(observation::Error::Gone))?;
        drop(tx);
        let damaged = |e: String| Unusable::Damaged(e);
        let data_key = self.writer.data_keys().get(due.workspace).await?;
        let sealed = row.secret.ok_or_else(|| Unusable::Damaged("there is none".into()))?;
        let under = Sha256::digest(&sealed).into();
        let secret =
            SecretColumn::SourceSecret(due.source).open(&data_key, &sealed).map_err(sealing::Error::from)?;
        let settings = super::open_settings(&data_key, due.source, row.settings.as_deref())
            .map_err(sealing::Error::from)?;
        let kind = Kind::from_name(&row.kind).ok_or_else(|| damaged(format!("kind {}", row.kind)))?;
        let mut client =
            Client::new(kind, &secret, settings, fetch_options(&self.settings), self.edits(due))?;
        if let (Some(limit), Some(remaining), Some(at)) = (row.rate_limit, row.rate_remaining, row.rate_at) {
            client.resume(limit, remaining, at);
        }
        client.learn(self.apps(due).await?, true);
        drop(turn);
        self.discard_leftovers(due, &client).await?;
        let station = Arc::new(tokio::sync::Mutex::new(Station {
            client,
            under,
            failing: budget::Backoff::new(self.settings.hot(), self.settings.longest_wait()),
            refusals: 0,
            unheard: 0,
            health: None,
            why: None,
        }));
        self.stations.lock().unwrap_or_else(PoisonError::into_inner).insert(due.source, Arc::clone(&station));
        Ok(station)
    }
}

impl Poller {
    fn edits(&self, due: &Due) -> edits::OpenEdits {
        Self::edits_of(&self.database, due)
    }

    fn edits_of(database: &Database, due: &Due) -> edits::OpenEdits {
        edits::OpenEdits { database: database.clone(), workspace: due.workspace, source: due.source }
    }

    /// The apps that the source has told of: what a listing of several apps is asked for by.
    async fn apps(&self, due: &Due) -> Result<Vec<client::KnownApp>, sqlx::Error> {
        let mut tx = self.database.workspace(due.workspace).await?;
        let rows = sqlx::query!(
            r#"SELECT scope, app, description ->> 'name' AS name FROM subjects
                WHERE workspace_id = $1 AND source_id = $2 AND kind = 'app' AND gone_at IS NULL ORDER BY scope"#,
            due.workspace.uuid(),
            due.source.uuid()
        )
        .fetch_all(&mut *tx)
        .await?;
        Ok(rows
            .into_iter()
            .map(|r| client::KnownApp { id: r.scope, bundle_id: r.app, name: r.name.unwrap_or_default() })
            .collect())
    }
}

/// Makes every poll of a source due, but for those that were stopped for good: whoever holds it next asks them all. A
/// round that is under way may have asked already, so that another follows it. Gives since when it is due; none where
/// it is not polled.
///
/// # Errors
/// If the database does not confirm.
pub async fn make_due(
    database: &Database,
    workspace: WorkspaceId,
    source: SourceId,
) -> Result<Option<OffsetDateTime>, sqlx::Error> {
    let mut tx = database.workspace(workspace).await?;
    lock(&mut tx, workspace, source).await?;
    sqlx::query!(
        "UPDATE polls SET due_at = now()
          WHERE workspace_id = $1 AND source_id = $2
            AND (refused IS NULL OR due_at < now() + interval '1 day')",
        workspace.uuid(),
        source.uuid()
    )
    .execute(&mut *tx)
    .await?;
    let due_at = sqlx::query_scalar!(
        "UPDATE sources SET next_poll_at = now()
          WHERE workspace_id = $1 AND source_id = $2 AND deleted_at IS NULL AND next_poll_at IS NOT NULL
          RETURNING next_poll_at",
        workspace.uuid(),
        source.uuid()
    )
    .fetch_optional(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(due_at.flatten())
}

/// Keeps others from changing the plan of a source until the transaction's end. Gives when the source is due.
async fn lock(
    tx: &mut PgConnection,
    workspace: WorkspaceId,
    source: SourceId,
) -> Result<Option<OffsetDateTime>, sqlx::Error> {
    let due_at = sqlx::query_scalar!(
        "SELECT next_poll_at FROM sources WHERE workspace_id = $1 AND source_id = $2 FOR NO KEY UPDATE",
        workspace.uuid(),
        source.uuid()
    )
    .fetch_optional(tx)
    .await?;
    Ok(due_at.flatten())
}

/// How stores are reached under these settings.
#[must_use]
pub fn fetch_options(settings: &PollingSettings) -> FetchOptions {
    FetchOptions {
        allow_insecure_hosts: settings.allow_other_hosts,
        time_scale: settings.time_scale,
        ..FetchOptions::default()
    }
}

/// A draw from 0 to 1.
fn draw() -> f64 {
    let mut byte = [0];
    crate::ledger::fill_random(&mut byte);
    f64::from(byte[0]) / 255.0
}
