//! A node: one process over a database, and what runs in it.
//!
//! It starts in an order that lets nothing out before it is known to be right: the database and its roles, the
//! instance and its keys, the heads against what was signed, and only then lanes, poller and listener. It stops in
//! the opposite order: no new requests, lanes wound down, outcomes written.

use crate::access::context::TrustedProxies;
use crate::access::denial::{Denials, write_denials};
use crate::access::door::GateParts;
use crate::access::secret::AccessSecret;
use crate::access::session::SessionSettings;
use crate::access::sign_in::{self, SignIn};
use crate::access::{Gate, ended, keys};
use crate::audit::{self, Act};
use crate::config::Settings;
use crate::database::server::Server;
use crate::database::{self, Database};
use crate::delivery::channels::webhook;
use crate::delivery::dispatcher::{self, Parts};
use crate::delivery::guard::Policy;
use crate::delivery::{Outbox, queue, results};
use crate::http::limit::RateLimits;
use crate::http::serve::{Bounds, fitting, serve};
use crate::http::{self, App};
use crate::id::{LedgerId, NodeId};
use crate::instance::{self, Instance};
use crate::key_encryption::{KeyEncryption, holders};
use crate::keyring::Keyring;
use crate::ledger::Writer;
use crate::ledger::append::unix_micros;
use crate::ledger::checkpoint::{self, SeenHeads};
use crate::ledger::history;
use crate::ledger::waiting::Waiting;
use crate::peers;
use crate::retention;
use crate::room::{self, Room};
use crate::self_audit::slice::Auditor;
use crate::self_audit::{self, SelfAudit};
use crate::source::inbound::SourceTokens;
use crate::source::poller::Poller;
use crate::source::webhook::WebhookSecrets;
use crate::workspace;
use anyhow::{Context, Result, anyhow, bail};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use nix::fcntl::{Flock, FlockArg};
use statusledger_keys::ring::{DueWork, Rotation};
use statusledger_keys::signing::KeyPurpose;
use statusledger_verify::time::Timestamp;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

/// How often the database is asked whether it is still the same one.
const WATCH_EVERY: Duration = Duration::from_secs(2);
/// How often the keys are looked at for what is due, and expired idempotency keys are removed.
const HOUSEKEEPING_EVERY: Duration = Duration::from_secs(60);
/// How far the newest entry may be ahead of the clock: as much as clocks of machines that are kept right differ, and more.
const CLOCK_LEAD: Duration = Duration::from_secs(5);
/// How long requests in flight may take when the node stops.
const STOP_WITHIN: Duration = Duration::from_secs(30);

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
    fn unverified() -> Self {
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

/// A node's directory: used by one process at a time.
#[derive(Debug)]
pub struct NodeDirectory {
    /// Which node this directory makes of the process.
    pub node: NodeId,
    _lock: Flock<File>,
}

impl NodeDirectory {
    /// Opens the directory, or makes it, and takes it for this process. The lock ends with the process, however it
    /// ends.
    ///
    /// # Errors
    /// If it cannot be made or written, or another process has it.
    pub fn open(path: &Path) -> Result<Self> {
        std::fs::create_dir_all(path)
            .with_context(|| format!("cannot make the data directory {}", path.display()))?;
        let lock_path = path.join("node-lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .with_context(|| format!("cannot write in the data directory {}", path.display()))?;
        let lock = take_lock(file).ok_or_else(|| {
            anyhow!("the data directory {} is used by another statusledger process", path.display())
        })?;
        let id_path = path.join("node-id");
        let node = match std::fs::read_to_string(&id_path) {
            Ok(text) => text.trim().parse().with_context(|| format!("{} is damaged", id_path.display()))?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let node = NodeId::new();
                let aside = path.join("node-id.new");
                let mut file = File::create(&aside)?;
                writeln!(file, "{node}")?;
                file.sync_all()?;
                std::fs::rename(&aside, &id_path)?;
                node
            }
            Err(e) => return Err(e).with_context(|| format!("cannot read {}", id_path.display())),
        };
        Ok(Self { node, _lock: lock })
    }
}

/// Takes the lock, waiting a moment for a process that is just being ended.
fn take_lock(mut file: File) -> Option<Flock<File>> {
    const TRIES: u32 = 30;
    const PAUSE: Duration = Duration::from_millis(100);
    for _ in 0..TRIES {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Some(lock),
            Err((back, _)) => file = back,
        }
        std::thread::sleep(PAUSE);
    }
    None
}

/// Where requests may go besides public https, under these settings.
///
/// # Errors
/// If a network is not one.
pub fn policy(settings: &Settings) -> Result<Policy> {
    let networks = settings
        .delivery
        .allow_networks
        .iter()
        .map(|n| {
            n.parse().with_context(|| {
                format!("the setting delivery.allow_networks: \"{n}\" is not a network (CIDR)")
            })
        })
        .collect::<Result<_>>()?;
    Ok(Policy { allow_http: settings.delivery.allow_http, allowed_networks: networks })
}

fn trusted_proxies(settings: &Settings) -> Result<TrustedProxies> {
    let networks = settings
        .trusted_proxies
        .iter()
        .map(|n| {
            n.parse().with_context(|| format!("the setting trusted_proxies: \"{n}\" is not a network (CIDR)"))
        })
        .collect::<Result<_>>()?;
    Ok(TrustedProxies(Arc::new(networks)))
}

fn metrics_handle() -> Result<PrometheusHandle> {
    // One recorder a process; tests run several nodes in one.
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    if let Some(handle) = HANDLE.get() {
        return Ok(handle.clone());
    }
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    // Lost only to another task that was faster, whose handle is then taken.
    let _ = metrics::set_global_recorder(recorder);
    Ok(HANDLE.get_or_init(|| handle).clone())
}

/// A node that serves.
pub struct Node {
    /// Its instance.
    pub instance: Instance,
    /// Its keys.
    pub keyring: Keyring,
    /// Its writer.
    pub writer: Writer,
    /// What it handed out.
    pub seen_heads: SeenHeads,
    /// Its database.
    pub database: Database,
    /// Where it listens.
    pub address: SocketAddr,
    /// The address under which people reach it.
    pub base: url::Url,
    /// Its door.
    pub gate: Gate,
    stop: watch::Sender<bool>,
    server: JoinHandle<()>,
    dispatcher: JoinHandle<()>,
    poller: JoinHandle<()>,
    denied: JoinHandle<()>,
    results: JoinHandle<()>,
    watcher: JoinHandle<Result<()>>,
    holding: JoinHandle<()>,
    retaining: JoinHandle<()>,
    auditing: JoinHandle<()>,
    directory: NodeDirectory,
}

impl Node {
    /// Starts a node over `database`. `name` is the instance's name where the operator gave one.
    ///
    /// # Errors
    /// If anything is not as it has to be; nothing has been served then.
    pub async fn start(settings: &Settings, name: Option<&str>, database: Database) -> Result<Self> {
        Ok(Self::start_with(settings, name, database, async |_, _| Ok(())).await?.0)
    }

    /// The same, with something to be done before anybody is served: whoever finds the node ready finds it done.
    ///
    /// # Errors
    /// If anything is not as it has to be, or `first` fails; nothing has been served then.
    pub async fn start_with<T>(
        settings: &Settings,
        name: Option<&str>,
        database: Database,
        first: impl AsyncFnOnce(&Writer, &Gate) -> Result<T>,
    ) -> Result<(Self, T)> {
        let directory = NodeDirectory::open(&settings.data_dir)?;
        let metrics = metrics_handle()?;
        let policy = policy(settings)?;
        let (outbox, handoffs) = Outbox::new();
        let keys = KeyEncryption::load(settings, name.unwrap_or(instance::DEFAULT_NAME), &database).await?;
        // Before it is read which key is in use: see `holders`.
        holders::tell(&database, directory.node, &keys).await?;
        let opened =
            Instance::open(&database, keys.clone(), name, Some(directory.node), outbox.clone()).await?;
        let (instance, keyring, writer) = (opened.instance, opened.keyring, opened.writer);
        let seen_heads = SeenHeads::open(&settings.data_dir.join("heads"))?;
        remember_manifest(&settings.data_dir, &keyring)?;
        let readiness = Readiness::unverified();
        // Before the heads are read: what is appended from then on says that it is for this server.
        let server = database.identify().await?;
        let checked = history::check_heads(&database, &seen_heads)
            .await
            .context("the database does not hold the history that was signed; run `statusledger doctor`")?;
        peers::compared(&database, directory.node, &server).await?;
        // Once more: another node may have found what this one did not.
        history::check_heads(&database, &seen_heads)
            .await
            .context("the database does not hold the history that was signed; run `statusledger doctor`")?;
        database.compared.trust(server);
        tracing::info!(ledgers = checked, "the heads agree with what was signed");
        audit::startup::record(&writer, instance.workspace, directory.node, settings)
            .await
            .context("what changed since the last start cannot be put on the record")?;
        queue::forget_past(&database, directory.node).await?;

        let (stop, stopping) = watch::channel(false);
        let (reports, reported) = mpsc::channel(4096);
        let results = tokio::spawn(results::write_results(database.clone(), directory.node, reported));
        let mut roots = Vec::new();
        if let Some(path) = &settings.delivery.extra_roots {
            roots.push(std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?);
        }
        let sender = webhook::Sender::new(
            policy.clone(),
            &webhook::Settings {
                deadline: Duration::from_secs_f64(settings.delivery.deadline_s),
                extra_roots: roots,
            },
        )?;
        let shared = dispatcher::shared(Parts {
            database: database.clone(),
            data_keys: writer.data_keys().clone(),
            keyring: keyring.clone(),
            writer: writer.clone(),
            node: directory.node,
            seen_heads: seen_heads.clone(),
            sender,
            settings: settings.delivery.clone(),
            reports,
            outbox,
            stop: stopping.clone(),
        });
        let access_secret = AccessSecret::load(&database, writer.data_keys(), instance.workspace).await?;
        let (denials, noted) = Denials::new();
        let hours = |h: f64| Duration::from_secs_f64(h * 3600.0);
        let gate = Gate::new(GateParts {
            database: database.clone(),
            secret: access_secret,
            instance: instance.workspace,
            denials,
            sessions: SessionSettings {
                public_url: settings.public_url.clone(),
                idle: hours(settings.access.session_idle_h),
                longest: hours(settings.access.session_longest_h),
            },
            deletion_waits: time::Duration::seconds_f64(settings.access.deletion_waits_h * 3600.0),
        });
        let proxies = trusted_proxies(settings)?;
        let denied = tokio::spawn(write_denials(writer.clone(), instance.workspace, noted, stopping.clone()));
        let done = first(&writer, &gate).await?;
        let listener = tokio::net::TcpListener::bind((settings.listen, settings.port))
            .await
            .with_context(|| format!("cannot listen on {}:{}", settings.listen, settings.port))?;
        let address = listener.local_addr()?;
        let base = sign_in::base(settings.public_url.as_deref(), address.port())?;
        let sign_in = SignIn::new(gate.clone(), writer.clone(), &settings.access, base.clone())?;
        let app = App {
            database: database.clone(),
            keyring: keyring.clone(),
            data_keys: writer.data_keys().clone(),
            writer: writer.clone(),
            seen_heads: seen_heads.clone(),
            shared: Arc::clone(&shared),
            policy,
            polling: settings.polling.clone(),
            gate: gate.clone(),
            limits: RateLimits::new(&settings.api),
            sign_in,
            proxies,
            source_tokens: SourceTokens::default(),
            webhook_secrets: WebhookSecrets::default(),
            waiting: Waiting::default(),
            room: Room::new(room::REQUESTS),
            readiness: readiness.clone(),
            metrics,
        };
        readiness.set(Reason::History, Ok(()));
        look_at_clock(&database, &readiness).await?;
        let poller = Poller::new(database.clone(), writer.clone(), directory.node, settings.polling.clone());
        let poller = tokio::spawn(poller.run(stopping.clone()));
        let dispatcher = tokio::spawn(dispatcher::dispatch(shared, handoffs));
        let bounds = Bounds {
            connections: fitting(settings.http.connections),
            head_within: Duration::from_secs_f64(settings.http.head_timeout_s),
        };
        let (ending, audited) = (readiness.clone(), readiness.clone());
        // Requests that wait for news answer when the node stops, or it would stop when their time is up.
        let stopped = move || {
            ending.set(Reason::Stopping, Err("the node is stopping".into()));
        };
        let server = tokio::spawn(serve(listener, http::router(app), bounds, stopping.clone(), stopped));
        let watcher = tokio::spawn(watch_over(Watched {
            database: database.clone(),
            keyring: keyring.clone(),
            writer: writer.clone(),
            seen_heads: seen_heads.clone(),
            instance: instance.clone(),
            node: directory.node,
            readiness,
            stop: stopping.clone(),
        }));
        let audit = SelfAudit {
            auditor: Auditor {
                database: database.clone(),
                data_keys: writer.data_keys().clone(),
                keyring: keyring.clone(),
                seen: seen_heads.clone(),
            },
            writer: writer.clone(),
            instance: instance.workspace,
            node: directory.node,
            settings: settings.self_audit.clone(),
        };
        let auditing = tokio::spawn(self_audit::keep(audit, audited, stopping.clone()));
        let retaining =
            tokio::spawn(retention::keep(writer.clone(), settings.retention.clone(), stopping.clone()));
        let holding = tokio::spawn(holders::keep(
            database.clone(),
            directory.node,
            instance.name.clone(),
            keys,
            stopping,
        ));
        let node = Self {
            instance,
            keyring,
            writer,
            seen_heads,
            database,
            address,
            stop,
            server,
            dispatcher,
            poller,
            denied,
            results,
            watcher,
            base,
            gate,
            holding,
            retaining,
            auditing,
            directory,
        };
        Ok((node, done))
    }

    /// Makes an administrator's key that reaches the whole instance.
    ///
    /// # Errors
    /// If the database does not confirm.
    pub async fn bootstrap_key(&self) -> Result<Zeroizing<String>, keys::Error> {
        keys::bootstrap(&self.writer, &self.gate.secret, self.instance.workspace).await
    }

    /// Waits until the node must not serve any more, and says why.
    ///
    /// # Errors
    /// Always: a node does not end by itself but for a reason.
    pub async fn refused(&mut self) -> Result<()> {
        match (&mut self.watcher).await {
            Ok(Err(e)) => Err(e),
            Ok(Ok(())) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Stops: answers what is in flight, winds the lanes down, writes what they report.
    pub async fn stop(self) {
        // Nobody listens any more when all have ended already.
        let _ = self.stop.send(true);
        let ended = async {
            let _ = self.server.await;
            let _ = self.poller.await;
            let _ = self.dispatcher.await;
            drop(self.gate);
            let _ = self.denied.await;
            let _ = self.holding.await;
            let _ = self.retaining.await;
            let _ = self.auditing.await;
        };
        if tokio::time::timeout(STOP_WITHIN, ended).await.is_err() {
            tracing::warn!("some work did not end in time; it will be taken up again at the next start");
        }
        self.watcher.abort();
        self.results.abort();
        remember_acknowledged(&self.writer, &self.seen_heads).await;
        if let Err(e) = peers::leave(&self.database, self.directory.node).await {
            tracing::debug!(error = %e, "the node counts as serving for a little longer");
        }
        self.database.service.close().await;
        self.database.worker.close().await;
    }
}

/// Keeps the newest key manifest in the node's directory, and refuses a database with an older one or another:
/// a ring that was set back could sign under keys that were already destroyed.
fn remember_manifest(directory: &Path, keyring: &Keyring) -> Result<()> {
    use statusledger_verify::manifest::{self, KeyManifest};
    let path = directory.join("keys.json");
    let current = keyring.current();
    let read = |bytes: &[u8]| KeyManifest::parse(bytes).map_err(|f| anyhow!("{}: {}", f.check, f.detail));
    match std::fs::read(&path) {
        Ok(bytes) => {
            let (old, new) = (read(&bytes)?, read(current.manifest().as_bytes())?);
            manifest::compare(&old, &new).map_err(|f| {
                anyhow!(
                    "the key manifest in the database does not follow the one that this node used before ({}): {}",
                    path.display(),
                    f.detail
                )
            })?;
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
    }
    let aside = directory.join("keys.json.new");
    std::fs::write(&aside, current.manifest().as_bytes())?;
    File::open(&aside)?.sync_all()?;
    std::fs::rename(&aside, &path)?;
    Ok(())
}

struct Watched {
    database: Database,
    keyring: Keyring,
    writer: Writer,
    seen_heads: SeenHeads,
    instance: Instance,
    node: NodeId,
    readiness: Readiness,
    stop: watch::Receiver<bool>,
}

/// Watches the database and the keys. After every reconnect to a server that is not the same as before, the heads are
/// compared again before anything is served; until then appends are refused by the database itself.
async fn watch_over(mut watched: Watched) -> Result<()> {
    let mut known = watched.database.compared.server();
    // The server that was met last, and since when.
    let mut met = None;
    let mut tick = tokio::time::interval(WATCH_EVERY);
    let mut keep_house = tokio::time::interval(HOUSEKEEPING_EVERY);
    loop {
        tokio::select! {
            _ = watched.stop.changed() => return Ok(()),
            _ = tick.tick() => {}
            () = watched.database.compared.doubted() => known = None,
            _ = keep_house.tick() => {
                // What was not done is done the next time.
                if tokio::time::timeout(HOUSEKEEPING_EVERY, housekeeping(&watched)).await.is_err() {
                    tracing::warn!("the database does not answer what has to be looked after");
                }
                continue;
            }
        }
        match database::in_time(watched.database.identify()).await.and_then(|server| server) {
            Ok(now) if known.as_ref() == Some(&now) => {
                if let Err(e) = peers::tell(&watched.database, watched.node, &now).await {
                    tracing::debug!(error = %e, "other nodes do not hear of this one for a moment");
                }
            }
            Ok(now) if now.timeline.is_none() => {
                known = None;
                watched
                    .readiness
                    .set(Reason::History, Err("the database is a standby, which takes no entries".into()));
            }
            Ok(now) => {
                watched.readiness.set(
                    Reason::History,
                    Err("the database was restarted; the heads are being verified".into()),
                );
                remember_acknowledged(&watched.writer, &watched.seen_heads).await;
                let since = match &met {
                    Some((server, since)) if *server == now => *since,
                    _ => met.insert((now.clone(), Instant::now())).1,
                };
                if compare_again(&watched, &now, since).await? {
                    watched.database.compared.trust(now.clone());
                    watched.readiness.set(Reason::History, Ok(()));
                    known = Some(now);
                } else {
                    known = None;
                }
            }
            Err(e) => {
                tracing::debug!(error = %e, "the database does not answer");
                known = None;
                continue;
            }
        }
        let looking = look_at_clock(&watched.database, &watched.readiness);
        if let Err(e) = database::in_time(looking).await.and_then(|looked| looked) {
            tracing::debug!(error = %e, "the clock cannot be compared with the heads");
        }
    }
}

/// Keeps what this node has acknowledged beside what it has signed: a database that lacks it was set back all the same.
/// A crash in between forgets the last minute of it, and nothing that was signed.
async fn remember_acknowledged(writer: &Writer, seen: &SeenHeads) {
    let remembered = writer.acknowledged().into_iter().map(|(ledger, tree)| {
        let seen = seen.clone();
        async move { seen.remember(ledger, tree).await }
    });
    // All at once: they are written with one flush.
    for kept in futures_util::future::join_all(remembered).await {
        if let Err(e) = kept {
            tracing::error!(error = %e, "this node cannot remember what it acknowledged");
        }
    }
}

/// Whether a database that came back holds what was signed; false where it cannot say yet.
///
/// # Errors
/// If it is not to be trusted, or holds another history: then the node ends.
async fn compare_again(watched: &Watched, server: &Server, since: Instant) -> Result<bool> {
    if let Err(e @ database::Error::Refused(_)) =
        database::roles::check_server(&watched.database.service).await
    {
        watched.readiness.set(Reason::History, Err(e.to_string()));
        bail!("the database came back as one that cannot be trusted: {e}");
    }
    match history::check_heads(&watched.database, &watched.seen_heads).await {
        Ok(ledgers) => match others_behind(watched, server, since).await {
            Ok(behind) if behind.is_empty() => {
                tracing::info!(ledgers, "the database came back, and the heads agree with what was signed");
                Ok(true)
            }
            Ok(behind) => {
                let why =
                    format!("the database was promoted; {} nodes have not compared it yet", behind.len());
                watched.readiness.set(Reason::History, Err(why));
                Ok(false)
            }
            Err(e) => {
                tracing::warn!(error = %e, "the database went away again");
                Ok(false)
            }
        },
        Err(e @ checkpoint::Error::Lost(_)) => {
            watched
                .readiness
                .set(Reason::History, Err(format!("the database came back with another history: {e}")));
            bail!("the database came back with another history than was signed: {e}");
        }
        Err(e) => {
            tracing::warn!(error = %e, "the heads cannot be verified yet");
            Ok(false)
        }
    }
}

/// The other nodes that served before the server was promoted and are waited for.
async fn others_behind(
    watched: &Watched,
    server: &Server,
    since: Instant,
) -> Result<Vec<NodeId>, sqlx::Error> {
    peers::tell(&watched.database, watched.node, server).await?;
    if since.elapsed() >= peers::PATIENCE {
        return Ok(Vec::new());
    }
    peers::behind(&watched.database, watched.node, server).await
}

/// Compares the clock with the newest entry of any ledger. A clock that went back (or an entry made while it, or another
/// node's, was ahead) makes every timestamp the newest one until it has caught up: for some seconds nobody minds, but a
/// node that would record hours under one time waits.
async fn look_at_clock(database: &Database, readiness: &Readiness) -> Result<(), sqlx::Error> {
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

async fn housekeeping(watched: &Watched) {
    remember_acknowledged(&watched.writer, &watched.seen_heads).await;
    let expired = sqlx::query!("DELETE FROM idempotency_keys WHERE expires_at < now()")
        .execute(&watched.database.worker)
        .await;
    if let Err(e) = expired {
        tracing::debug!(error = %e, "expired idempotency keys stay for now");
    }
    let expired = sqlx::query!("DELETE FROM request_keys WHERE expires_at < now()")
        .execute(&watched.database.worker)
        .await;
    if let Err(e) = expired {
        tracing::debug!(error = %e, "expired answers to idempotency keys stay for now");
    }
    // Longer than a store goes on repeating an event.
    let old = sqlx::query!("DELETE FROM store_events WHERE received_at < now() - interval '90 days'")
        .execute(&watched.database.worker)
        .await;
    if let Err(e) = old {
        tracing::debug!(error = %e, "old events of the stores stay for now");
    }
    if let Err(e) = workspace::end::end_due(&watched.writer).await {
        tracing::error!(error = %e, "a workspace whose time has come is not ended yet");
    }
    let stale =
        sqlx::query!("DELETE FROM sign_ins WHERE expires_at < now()").execute(&watched.database.worker).await;
    if let Err(e) = stale {
        tracing::debug!(error = %e, "sign-ins that were not finished stay for now");
    }
    if let Err(e) = ended::remove(&watched.database).await {
        tracing::debug!(error = %e, "sessions, links and invitations that ended long ago stay for now");
    }
    if let Err(e) = watched.keyring.reload().await {
        tracing::warn!(error = %e, "the key ring cannot be read again");
        return;
    }
    let now = Timestamp::now();
    for due in watched.keyring.current().ring().due(now) {
        if due.root_is_offline {
            tracing::warn!(at = %due.at, work = ?due.work, "the keys need the offline root: `statusledger keys rotate --root FILE`");
            continue;
        }
        if !due.now {
            continue;
        }
        let done = watched
            .keyring
            .change(&watched.writer, &Act::system(), watched.instance.workspace, |ring, now| {
                // Another node may have done it meanwhile.
                let still = ring.due(now).iter().any(|d| d.work == due.work && d.now);
                let change = match due.work {
                    _ if !still => ring.republish(now)?,
                    DueWork::Rotate(KeyPurpose::Checkpoint) => ring.rotate(Rotation::Checkpoint, now)?,
                    DueWork::Rotate(_) => ring.rotate(Rotation::Receipt, now)?,
                    DueWork::Republish => ring.republish(now)?,
                };
                Ok((change, ()))
            })
            .await;
        match done {
            Ok(()) => tracing::info!(work = ?due.work, "the keys were renewed"),
            Err(e) => tracing::error!(error = %e, work = ?due.work, "the keys could not be renewed"),
        }
    }
    if let Err(e) = queue::destroy_retired(&watched.keyring, &watched.writer, &watched.instance).await {
        tracing::warn!(error = %e, "retired keys are not destroyed yet");
    }
}
