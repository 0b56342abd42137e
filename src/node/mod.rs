//! A node: one process over a database, and what runs in it.
//!
//! It starts in an order that lets nothing out before it is known to be right: the database and its roles, the
//! instance and its keys, the heads against what was signed, and only then lanes, poller and listener. It stops in
//! the opposite order: no new requests, lanes wound down, outcomes written.

mod directory;
mod housekeeping;
mod readiness;
mod watch_over;

pub use directory::NodeDirectory;
use directory::remember_manifest;
use readiness::look_at_clock;
pub use readiness::{Readiness, Reason};

use crate::access::context::TrustedProxies;
use crate::access::denial::{Denials, write_denials};
use crate::access::door::GateParts;
use crate::access::secret::AccessSecret;
use crate::access::session::SessionSettings;
use crate::access::sign_in::{self, SignIn};
use crate::access::{Gate, keys};
use crate::audit;
use crate::config::Settings;
use crate::database::Database;
use crate::delivery::channels::webhook;
use crate::delivery::dispatcher::{self, Parts};
use crate::delivery::guard::Policy;
use crate::delivery::{Outbox, queue, results};
use crate::http::limit::RateLimits;
use crate::http::serve::{Bounds, fitting, serve};
use crate::http::{self, App};
use crate::instance::{self, Instance};
use crate::key_encryption::{KeyEncryption, holders};
use crate::keyring::Keyring;
use crate::ledger::Writer;
use crate::ledger::history;
use crate::ledger::seen_heads::SeenHeads;
use crate::ledger::waiting::Waiting;
use crate::peers;
use crate::retention;
use crate::room::{self, Room};
use crate::self_audit::slice::Auditor;
use crate::self_audit::{self, SelfAudit};
use crate::source::inbound::SourceTokens;
use crate::source::poller::Poller;
use crate::source::webhook::WebhookSecrets;
use anyhow::{Context, Result};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use watch_over::{Watched, remember_acknowledged, watch_over};
use zeroize::Zeroizing;

/// How long requests in flight may take when the node stops.
const STOP_WITHIN: Duration = Duration::from_secs(30);

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
        let app = App::new(http::Parts {
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
        });
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
        // First of all: whoever ends us may not wait for the rest.
        settle(&self.seen_heads).await;
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
        settle(&self.seen_heads).await;
        if let Err(e) = peers::leave(&self.database, self.directory.node).await {
            tracing::debug!(error = %e, "the node counts as serving for a little longer");
        }
        self.database.service.close().await;
        self.database.worker.close().await;
    }
}

/// Leaves nothing open that was about to be committed. What is committed yet is remembered before it leaves.
async fn settle(seen_heads: &SeenHeads) {
    if let Err(e) = seen_heads.close().await {
        tracing::debug!(error = %e, "what was not committed is not withdrawn; the next start asks the database");
    }
}
