//! The poller: sweeps each store key in its turn, one node at a time.
//!
//! A source that is due is claimed by lease; a node that dies in a sweep leaves it to the next one. What a sweep saw
//! before it failed counts: each observation is true by itself. Failing sweeps back off with jitter, and a store
//! that says when to come back is obeyed.

use super::fetch::{FetchOptions, ForbiddenCause, StoreError};
use super::{Health, Kind, app_store, budget, google_play};
use crate::config::PollingSettings;
use crate::database::Database;
use crate::id::{NodeId, SourceId, WorkspaceId};
use crate::ledger::Writer;
use crate::observation::{self, Observation};
use crate::sealing::{self, SecretColumn};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use time::OffsetDateTime;
use tokio::sync::{Semaphore, watch};

/// How long a claimed source is this node's without a renewal: what a node that dies keeps from the others.
const LEASE: time::Duration = time::Duration::seconds(10);
/// How often the lease of a sweep in flight is renewed.
const RENEW_EVERY: Duration = Duration::from_secs(3);
/// The longest sweep.
const LONGEST_SWEEP: Duration = Duration::from_secs(100);
/// Sweeps at once on a node.
const SWEEPS: usize = 16;
/// The longest wait of a source that fails.
const LONGEST_WAIT: Duration = Duration::from_secs(900);
/// Sweeps in a row that a key must be refused in before it counts as refused and not merely suspect.
const REFUSALS: u32 = 3;
/// The shortest time between two looks for due sources.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A store's client.
enum Client {
    AppStore(Box<app_store::client::AppStoreClient>),
    GooglePlay(Box<google_play::client::PlayClient>),
}

impl Client {
    /// Requests that may be made now.
    fn requests_left(&self) -> u32 {
        match self {
            Self::AppStore(client) => client.requests_left(),
            Self::GooglePlay(client) => client.requests_left(),
        }
    }

    /// The interval that the store's limit allows after a sweep that began with `before` requests left: as often as
    /// one likes while there is plenty, and when the next three sweeps are not covered, so seldom that each is whole.
    fn pace(&self, before: u32) -> Duration {
        const HOUR: Duration = Duration::from_secs(3600);
        const MINUTE: Duration = Duration::from_secs(60);
        let left = self.requests_left();
        let used = before.saturating_sub(left);
        if left >= used.saturating_mul(3) {
            return Duration::ZERO;
        }
        // What may be spent in a window: 80 % of the published limits.
        let (window, allowed) = match self {
            Self::AppStore(_) => (HOUR, 2800),
            Self::GooglePlay(_) => (MINUTE, 2400),
        };
        window * used / allowed
    }
}

/// What is remembered of a source between sweeps on this node.
struct Station {
    client: Client,
    failing: budget::Backoff,
    refusals: u32,
    health: Option<Health>,
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
    sweeps: Arc<Semaphore>,
}

/// Why a source cannot be swept at all.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    #[error(transparent)]
    Sealing(#[from] sealing::Error),
    #[error("the stored key is damaged: {0}")]
    Damaged(String),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Observation(#[from] observation::Error),
    #[error(transparent)]
    Source(#[from] super::Error),
}

struct Due {
    workspace: WorkspaceId,
    source: SourceId,
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
            sweeps: Arc::new(Semaphore::new(SWEEPS)),
        })
    }

    /// Polls until the node stops.
    pub async fn run(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let every =
            Duration::from_secs_f64(self.settings.interval_s / 4.0).clamp(LOOK_EVERY, Duration::from_secs(1));
        let mut look = tokio::time::interval(every);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = stop.changed() => return,
                _ = look.tick() => {}
            }
            let room = self.sweeps.available_permits();
            if room == 0 {
                continue;
            }
            match self.claim(room as i64).await {
                Ok(due) => {
                    for due in due {
                        let Ok(permit) = Arc::clone(&self.sweeps).acquire_owned().await else { return };
                        let poller = Arc::clone(&self);
                        tokio::spawn(async move {
                            poller.sweep(due).await;
                            drop(permit);
                        });
                    }
                }
                Err(e) => tracing::warn!(error = %e, "due sources cannot be looked for"),
            }
        }
    }

    async fn claim(&self, room: i64) -> Result<Vec<Due>, sqlx::Error> {
        sqlx::query_as!(
            Due,
            r#"UPDATE sources s SET lease_holder = $1, leased_until = now() + $3::float8 * interval '1 second'
                 FROM (SELECT workspace_id, source_id FROM sources
                        WHERE deleted_at IS NULL AND kind <> 'inbound'
                          AND next_poll_at <= now() AND leased_until < now()
                        ORDER BY next_poll_at LIMIT $2 FOR UPDATE SKIP LOCKED) AS due
                WHERE s.workspace_id = due.workspace_id AND s.source_id = due.source_id
               RETURNING s.workspace_id AS "workspace: WorkspaceId", s.source_id AS "source: SourceId""#,
            self.node.uuid(),
            room,
            LEASE.as_seconds_f64()
        )
        .fetch_all(&self.database.worker)
        .await
    }

    async fn sweep(&self, due: Due) {
        let swept = tokio::select! {
            swept = self.try_sweep(&due) => swept,
            never = self.keep(&due) => match never {},
        };
        let wait = match swept {
            Ok(wait) => wait,
            Err(e) => {
                tracing::warn!(source = %due.source, error = %e, "a source cannot be swept");
                if matches!(
                    e,
                    Unusable::Damaged(_) | Unusable::Store(_) | Unusable::Sealing(sealing::Error::Seal(_))
                ) {
                    let why = format!("the source cannot be used: {e}");
                    let (workspace, source) = (due.workspace, due.source);
                    let told =
                        super::set_health(&self.writer, workspace, source, Health::Refused, Some(&why)).await;
                    if let Err(e) = told {
                        tracing::warn!(source = %due.source, error = %e, "the source's health is not recorded");
                    }
                }
                LONGEST_WAIT.min(Duration::from_secs_f64(self.settings.interval_s * 4.0))
            }
        };
        // A crash before this leaves the lease, after which another node goes on.
        let done = sqlx::query!(
            "UPDATE sources SET leased_until = '-infinity', next_poll_at = now() + $4::float8 * interval '1 second'
              WHERE workspace_id = $1 AND source_id = $2 AND lease_holder = $3",
            due.workspace.uuid(),
            due.source.uuid(),
            self.node.uuid(),
            wait.as_secs_f64()
        )
        .execute(&self.database.worker)
        .await;
        if let Err(e) = done {
            tracing::warn!(source = %due.source, error = %e, "a source's lease is left to run out");
        }
    }

    /// Renews a lease for as long as it is polled. One that is lost all the same (the database was away) costs a sweep
    /// twice: what both saw is recorded once.
    async fn keep(&self, due: &Due) -> std::convert::Infallible {
        let mut renew = tokio::time::interval(RENEW_EVERY);
        renew.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        renew.tick().await;
        loop {
            renew.tick().await;
            let renewed = sqlx::query!(
                "UPDATE sources SET leased_until = now() + $4::float8 * interval '1 second'
                  WHERE workspace_id = $1 AND source_id = $2 AND lease_holder = $3",
                due.workspace.uuid(),
                due.source.uuid(),
                self.node.uuid(),
                LEASE.as_seconds_f64()
            )
            .execute(&self.database.worker)
            .await;
            if let Err(e) = renewed {
                tracing::debug!(source = %due.source, error = %e, "a lease is not renewed");
            }
        }
    }

    /// Sweeps once and says when to come again.
    async fn try_sweep(&self, due: &Due) -> Result<Duration, Unusable> {
        let interval = Duration::from_secs_f64(self.settings.interval_s);
        let station = self.station(due).await?;
        let mut station = station.lock().await;
        let mut seen: Vec<Observation> = Vec::new();
        let before = station.client.requests_left();
        let at = OffsetDateTime::now_utc();
        let swept = tokio::time::timeout(LONGEST_SWEEP, async {
            match &station.client {
                Client::AppStore(client) => app_store::sweep(client, &mut seen).await,
                Client::GooglePlay(client) => google_play::sweep(client, &mut seen).await,
            }
        })
        .await
        .unwrap_or(Err(StoreError::Timeout));
        let news = observation::record(&self.writer, due.workspace, due.source, &seen, at).await?;
        metrics::counter!("statusledger_sweeps_total", "outcome" => if swept.is_ok() { "ok" } else { "failed" })
            .increment(1);
        metrics::counter!("statusledger_transitions_total").increment(news.transitions as u64);
        let (health, wait) = match &swept {
            Ok(()) => {
                station.failing.reset();
                station.refusals = 0;
                let interval = station.client.pace(before).max(interval);
                (Health::Ok, interval.mul_f64(0.95 + 0.1 * f64::from(random_percent()) / 100.0))
            }
            Err(e) => {
                let floor = e.retry_after().unwrap_or_default().max(interval);
                let wait = station.failing.fail(Some(floor)).min(LONGEST_WAIT.max(floor));
                (self.judge(e, &mut station), wait)
            }
        };
        // One failure of a store is not worth telling; a second in a row is.
        let told = match (&swept, health) {
            (Err(_), Health::Degraded) => station.failing.failures() >= 2,
            _ => true,
        };
        if told && station.health != Some(health) {
            let detail = swept.as_ref().err().map(ToString::to_string);
            super::set_health(&self.writer, due.workspace, due.source, health, detail.as_deref()).await?;
            station.health = Some(health);
        }
        self.note_sweep(due, at).await?;
        Ok(wait)
    }

    fn judge(&self, error: &StoreError, station: &mut Station) -> Health {
        match error {
            StoreError::Unauthorized { .. } => {
                station.refusals += 1;
                if station.refusals >= REFUSALS { Health::Refused } else { Health::Suspect }
            }
            StoreError::Forbidden { cause: ForbiddenCause::Agreements, .. } => Health::AgreementsMissing,
            StoreError::Forbidden { .. } => Health::RoleTooSmall,
            _ => Health::Degraded,
        }
    }

    async fn note_sweep(&self, due: &Due, at: OffsetDateTime) -> Result<(), sqlx::Error> {
        let mut tx = self.database.workspace(due.workspace).await?;
        sqlx::query!(
            "UPDATE sources SET last_polled_at = $3 WHERE workspace_id = $1 AND source_id = $2",
            due.workspace.uuid(),
            due.source.uuid(),
            at
        )
        .execute(&mut *tx)
        .await?;
        tx.commit().await
    }

    async fn station(&self, due: &Due) -> Result<Arc<tokio::sync::Mutex<Station>>, Unusable> {
        if let Some(station) = self.stations.lock().unwrap_or_else(PoisonError::into_inner).get(&due.source) {
            return Ok(Arc::clone(station));
        }
        let mut tx = self.database.workspace(due.workspace).await?;
        let row = sqlx::query!(
            "SELECT kind, settings, secret FROM sources WHERE workspace_id = $1 AND source_id = $2",
            due.workspace.uuid(),
            due.source.uuid()
        )
        .fetch_one(&mut *tx)
        .await?;
        drop(tx);
        let damaged = |e: serde_json::Error| Unusable::Damaged(e.to_string());
        let data_key = self.writer.data_keys().get(due.workspace).await?;
        let sealed = row.secret.ok_or_else(|| Unusable::Damaged("there is none".into()))?;
        let secret =
            SecretColumn::SourceSecret(due.source).open(&data_key, &sealed).map_err(sealing::Error::from)?;
        let options = fetch_options(&self.settings);
        let client = match Kind::from_name(&row.kind) {
            Some(Kind::AppStore) => {
                let credentials: app_store::Credentials = serde_json::from_slice(&secret).map_err(damaged)?;
                let settings = serde_json::from_value(row.settings).map_err(damaged)?;
                Client::AppStore(Box::new(app_store::client(&credentials, &settings, options)?))
            }
            Some(Kind::GooglePlay) => {
                let settings = serde_json::from_value(row.settings).map_err(damaged)?;
                let account = std::str::from_utf8(&secret).map_err(|e| Unusable::Damaged(e.to_string()))?;
                Client::GooglePlay(Box::new(google_play::client(account, &settings, options)?))
            }
            _ => return Err(Unusable::Damaged(format!("a source of kind {} is not polled", row.kind))),
        };
        let base = Duration::from_secs_f64(self.settings.interval_s);
        let station = Arc::new(tokio::sync::Mutex::new(Station {
            client,
            failing: budget::Backoff::new(base, LONGEST_WAIT),
            refusals: 0,
            health: None,
        }));
        self.stations.lock().unwrap_or_else(PoisonError::into_inner).insert(due.source, Arc::clone(&station));
        Ok(station)
    }
}

/// How stores are reached under these settings.
#[must_use]
pub fn fetch_options(settings: &PollingSettings) -> FetchOptions {
    FetchOptions { allow_insecure_hosts: settings.allow_other_hosts, ..FetchOptions::default() }
}

fn random_percent() -> u8 {
    let mut byte = [0];
    crate::ledger::fill_random(&mut byte);
    byte[0] % 101
}
