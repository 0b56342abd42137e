//! A running simulator: the listener, and the task that takes the scenario's steps when they are due.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

use crate::clock::Clock;
use crate::google_play::token::AccessTokens;
use crate::history::StateChange;
use crate::keys::{AppStoreKey, KeyError, ServiceAccount};
use crate::postman::{Postman, post};
use crate::quota::RollingQuota;
use crate::record::{Record, RecordedRequest};
use crate::scenario::{PingShape, Scenario, ScenarioError, Step};
use crate::server::{TOKEN_PATH, answer};
use crate::timeline::Timeline;
use crate::world::{WebhookDelivery, World};

/// The window of App Store Connect's quota, in scenario seconds.
const HOUR: f64 = 3600.0;

/// The window of Google's quota, in scenario seconds.
const MINUTE: f64 = 60.0;

/// How long [`Simulator::shutdown`] waits for answers that are held back.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// How the simulator is run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The port on 127.0.0.1; 0 is any free one.
    pub port: u16,
    /// Scenario seconds a real second; 0 stands still until [`Simulator::advance`]. Absent is the scenario's
    /// own speed, or 1.
    pub speed: Option<f64>,
    /// Where the stores' private keys are kept, each in its own file, made where they are missing. Absent
    /// makes new ones that live as long as the simulator.
    pub keys: Option<PathBuf>,
}

/// Why the simulator does not start.
#[derive(Debug, thiserror::Error)]
pub enum SimulatorError {
    /// The scenario is wrong.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// There are no keys.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// There is no client to send webhooks with.
    #[error("cannot make a client for webhooks: {0}")]
    Client(#[from] reqwest::Error),
    /// The port cannot be had.
    #[error("cannot listen on port {port} of 127.0.0.1: {source}")]
    Listen {
        /// The port.
        port: u16,
        /// Why.
        source: std::io::Error,
    },
}

/// Both stores, listening. When it is dropped, it stops listening by itself, a moment later.
pub struct Simulator {
    shared: Arc<Shared>,
    address: SocketAddr,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

/// What the listener's requests share.
pub(crate) struct Shared {
    pub(crate) base: String,
    pub(crate) clock: Clock,
    /// In the order of the world's teams.
    pub(crate) app_store_keys: Vec<AppStoreKey>,
    /// The place of each key's team, by the key's id.
    pub(crate) teams_by_key: HashMap<String, usize>,
    /// In the order of the world's accounts.
    pub(crate) service_accounts: Vec<ServiceAccount>,
    pub(crate) postman: Postman,
    state: Mutex<Shifting>,
    pushed: Notify,
}

/// What changes while it runs.
pub(crate) struct Shifting {
    pub(crate) world: World,
    pub(crate) timeline: Timeline,
    pub(crate) tokens: AccessTokens,
    pub(crate) app_store_quota: Vec<RollingQuota>,
    pub(crate) google_quota: Vec<RollingQuota>,
    pub(crate) record: Record,
}

impl Shared {
    /// A request that panicked leaves nothing half done: each change is one step.
    pub(crate) fn state(&self) -> MutexGuard<'_, Shifting> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes every step that is due.
    fn catch_up(&self) {
        let now = self.clock.now();
        let mut state = self.state();
        while let Some((at, steps)) = state.timeline.due(now) {
            for step in steps {
                if let Err(error) = state.world.apply(step, at) {
                    tracing::warn!(at, %error, "a step of the scenario is refused");
                }
            }
        }
        self.postman.take(state.world.deliveries.take_outgoing());
    }
}

impl Simulator {
    /// Starts both stores on 127.0.0.1, and the scenario's time.
    pub async fn start(scenario: Scenario, options: Options) -> Result<Self, SimulatorError> {
        let speed = options.speed.or(scenario.speed).unwrap_or(1.0);
        if !(speed.is_finite() && speed >= 0.0) {
            return Err(ScenarioError::Number("the speed is not a number from 0 on").into());
        }
        let timeline = Timeline::new(&scenario)?;
        let port = options.port;
        let listening = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
        let listener = listening.map_err(|source| SimulatorError::Listen { port, source })?;
        let address = listener.local_addr().map_err(|source| SimulatorError::Listen { port, source })?;
        let base = format!("http://{address}");
        let world = World::new(&scenario, &base)?;
        let keys = options.keys.as_deref();
        let provide = |name| AppStoreKey::provide(scenario.seed, name, keys);
        let app_store_keys =
            world.teams.iter().map(|team| provide(&team.name)).collect::<Result<Vec<_>, _>>()?;
        let ids = app_store_keys.iter().map(|key| key.key_id.clone());
        let names: Vec<_> = world.accounts.iter().map(|account| account.name.clone()).collect();
        let (postman, letters) = Postman::new()?;
        let shared = Arc::new(Shared {
            base,
            teams_by_key: ids.zip(0..).collect(),
            app_store_keys,
            service_accounts: service_accounts(scenario.seed, names, options.keys.clone()).await?,
            clock: Clock::new(speed),
            state: Mutex::new(Shifting {
                app_store_quota: world
                    .teams
                    .iter()
                    .map(|team| RollingQuota::new(team.hourly_limit, HOUR))
                    .collect(),
                google_quota: world
                    .accounts
                    .iter()
                    .map(|account| RollingQuota::new(account.minute_limit, MINUTE))
                    .collect(),
                world,
                timeline,
                tokens: AccessTokens::default(),
                record: Record::default(),
            }),
            pushed: Notify::new(),
            postman,
        });
        let (stop, stopped) = watch::channel(false);
        let router = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        let mut ended = stopped.clone();
        let server = axum::serve(listener, router).with_graceful_shutdown(async move {
            // An error is the simulator dropped, which ends it as well.
            let _ = ended.wait_for(|stop| *stop).await;
        });
        let serving = tokio::spawn(async move {
            if let Err(error) = server.await {
                tracing::error!(%error, "the simulator's listener failed");
            }
        });
        let stepping = tokio::spawn(step_on(Arc::clone(&shared), stopped.clone()));
        let posting = tokio::spawn(post(Arc::clone(&shared), letters, stopped));
        Ok(Self { shared, address, stop, tasks: vec![serving, stepping, posting] })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What stands in for `https://api.appstoreconnect.apple.com`.
    pub fn app_store_base_url(&self) -> &str {
        &self.shared.base
    }

    /// What stands in for `https://androidpublisher.googleapis.com`.
    pub fn publisher_base_url(&self) -> &str {
        &self.shared.base
    }

    /// What stands in for `https://playdeveloperreporting.googleapis.com`.
    pub fn reporting_base_url(&self) -> &str {
        &self.shared.base
    }

    /// The API key of a team, by the team's name.
    pub fn app_store_key(&self, team: &str) -> Option<AppStoreKey> {
        let place = self.shared.state().world.teams.iter().position(|known| known.name == team)?;
        self.shared.app_store_keys.get(place).cloned()
    }

    /// The service account file of an account, by the account's name; its `token_uri` is the simulator's.
    pub fn google_service_account_json(&self, account: &str) -> Option<Zeroizing<String>> {
        let place = self.shared.state().world.accounts.iter().position(|known| known.name == account)?;
        let found = self.shared.service_accounts.get(place)?;
        Some(found.json(&format!("{}{TOKEN_PATH}", self.shared.base)))
    }

    /// The names of the App Store Connect teams.
    pub fn app_store_teams(&self) -> Vec<String> {
        self.shared.state().world.teams.iter().map(|team| team.name.clone()).collect()
    }

    /// The names of the Play accounts.
    pub fn google_play_accounts(&self) -> Vec<String> {
        self.shared.state().world.accounts.iter().map(|account| account.name.clone()).collect()
    }

    /// Takes a step now, whatever the scenario's time.
    pub fn apply(&self, step: Step) -> Result<(), ScenarioError> {
        let now = self.shared.clock.now();
        self.with_world(|world| world.apply(step, now))
    }

    /// Does something to the stores, and sends what webhooks are to be told of it.
    fn with_world<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        let mut state = self.shared.state();
        let result = change(&mut state.world);
        self.shared.postman.take(state.world.deliveries.take_outgoing());
        result
    }

    /// Sends a ping to a webhook, by its id; gives the id of the delivery.
    pub fn ping_webhook(&self, webhook: &str, shape: PingShape) -> Result<String, ScenarioError> {
        self.with_world(|world| world.ping(webhook, shape))
    }

    /// Delivers an event again, by the id of one of its deliveries: the same payload with the same `data.id`.
    /// Gives the id of the new delivery.
    pub fn redeliver_webhook(&self, delivery: &str) -> Result<String, ScenarioError> {
        self.with_world(|world| world.redeliver(delivery))
    }

    /// From now on events of webhooks are written down as failed and not sent, so that only the list of
    /// deliveries knows of them; or they are sent again.
    pub fn withhold_webhooks(&self, withhold: bool) {
        self.shared.state().world.deliveries.withhold = withhold;
    }

    /// What webhooks were sent and what was withheld, the oldest first, the last 4,096 of it.
    pub fn webhook_deliveries(&self) -> Vec<WebhookDelivery> {
        self.shared.state().world.deliveries.all().cloned().collect()
    }

    /// Waits until everything that webhooks are to be told so far was sent and answered, or has failed.
    pub async fn webhooks_settled(&self) {
        self.shared.postman.settled().await;
    }

    /// Every change in what the stores hold, in order, the last 131,072 of them; what a scenario begins with
    /// appears at 0.
    pub fn history(&self) -> Vec<StateChange> {
        self.shared.state().world.history.all()
    }

    /// How many of Google Play's edits are open, over all accounts.
    pub fn open_edits(&self) -> usize {
        self.shared.state().world.edits.open_count()
    }

    /// How many edits were committed.
    pub fn committed_edits(&self) -> u64 {
        self.shared.state().world.edits.commits()
    }

    /// Moves the scenario's time on by so many scenario seconds, and takes what is due by then.
    pub fn advance(&self, seconds: f64) {
        self.shared.clock.push(seconds);
        self.shared.catch_up();
        self.shared.pushed.notify_one();
    }

    /// The scenario's time, in scenario seconds since the start.
    pub fn now(&self) -> f64 {
        self.shared.clock.now()
    }

    /// How often the main state of a resource has changed so far. What appears is no change.
    pub fn transitions(&self) -> u64 {
        self.shared.state().world.transitions()
    }

    /// The requests so far, the last 65,536 of them.
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.shared.state().record.all()
    }

    /// How many requests there were.
    pub fn request_count(&self) -> u64 {
        self.shared.state().record.count()
    }

    /// How many requests there were by the id of the key that their token names, however many are remembered.
    pub fn requests_by_key(&self) -> HashMap<String, u64> {
        self.shared.state().record.by_key()
    }

    /// Stops listening, and waits until the answers on their way are written, at most five seconds.
    pub async fn shutdown(self) {
        self.stop.send_replace(true);
        for task in self.tasks {
            // Whether it ended, panicked or hangs on a slow answer: there is nothing more to do for it.
            let _ = tokio::time::timeout(LAST_ANSWERS, task).await;
        }
    }
}

/// RSA keys take a noticeable part of a second each: they are made off the runtime, all at once.
async fn service_accounts(
    seed: u64,
    names: Vec<String>,
    keys: Option<PathBuf>,
) -> Result<Vec<ServiceAccount>, KeyError> {
    let mut tasks = Vec::new();
    for name in names {
        let keys = keys.clone();
        tasks
            .push(tokio::task::spawn_blocking(move || ServiceAccount::provide(seed, &name, keys.as_deref())));
    }
    let mut accounts = Vec::new();
    for task in tasks {
        accounts.push(task.await.map_err(|_| KeyError::Generate)??);
    }
    Ok(accounts)
}

/// Takes each step when it is due, until the simulator stops.
async fn step_on(shared: Arc<Shared>, mut stopped: watch::Receiver<bool>) {
    loop {
        let wait = shared.state().timeline.next_at().and_then(|at| shared.clock.until(at));
        let due = async {
            match wait {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => shared.catch_up(),
            () = shared.pushed.notified() => {}
            _ = stopped.wait_for(|stop| *stop) => return,
        }
    }
}
