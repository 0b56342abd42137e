//! Starting the server, watching it, stopping it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::Signal;
use sqlx::{ConnectOptions, Connection};
use tokio::process::Child;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::account::Account;
use super::binaries::{self, Binaries, Wanted};
use super::directory::{self, Locked};
use super::postmaster::{self, PidFile};
use super::{
    Cluster, During, Error, Options, PORT, RESTART_GRACE, SUPERUSER, Status, configuration, connect_options,
    initialise, log, socket,
};

/// How often a file or a process is looked at while something is expected of it.
const POLL: Duration = Duration::from_millis(10);

/// How often an adopted postmaster is looked at: it is no child of ours, so its end is not announced.
const WATCH: Duration = Duration::from_millis(200);

/// How long a server that says it is ready may leave connections unanswered before it is given up.
const ANSWER: Duration = Duration::from_secs(20);

/// How long the backends of a killed postmaster may take to notice; until then no other can start.
const LINGER: Duration = Duration::from_secs(5);

/// How long an immediate shutdown may take.
const IMMEDIATE_STOP: Duration = Duration::from_secs(10);

/// The wait after a failed restart: doubled from the first to the last.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How often the size of the log is looked at.
const LOG_CHECK: Duration = Duration::from_secs(60);

/// What a [`Cluster`] asks of its supervisor.
#[derive(Debug)]
pub(super) enum Command {
    /// Stop the server and say how that went.
    Stop(oneshot::Sender<Result<(), Error>>),
    /// Leave it running, and say when the lock is free.
    Detach(oneshot::Sender<()>),
}

/// The postmaster that serves the cluster.
#[derive(Debug)]
enum Process {
    /// Started by us.
    Child(Child),
    /// Found running.
    Adopted(PidFile),
}

/// The cluster as its supervisor holds it. Holds the directory's lock.
#[derive(Debug)]
struct Server {
    locked: Locked,
    data: PathBuf,
    log: PathBuf,
    socket_directory: PathBuf,
    binaries: Binaries,
    account: Account,
    start_timeout: Duration,
    stop_timeout: Duration,
    /// None between the end of one and the start of the next.
    process: Option<Process>,
}

pub(super) async fn start(options: Options) -> Result<Cluster, Error> {
    let account = Account::choose(options.account.as_deref())?;
    let locked = Locked::open(&options.directory, &account)?;
    let data = locked.path.join("data");
    if data.exists() && !directory::is_private(&data, &account) {
        let who = account.name().unwrap_or("us");
        let reason =
            format!("the cluster has to be a directory of {who} that is closed to everyone else (0700)");
        return Err(Error::Unsafe { path: data, reason });
    }
    let major = initialise::major(&data);
    if data.exists() && major.is_none() {
        return Err(Error::Unsafe { path: data, reason: "it exists but has no PG_VERSION".to_owned() });
    }
    let binaries = find(&options, &locked.path, Wanted { major }, &account).await?;
    let socket_directory = match postmaster::live(&data).and_then(|live| live.socket_directory) {
        Some(running) if directory::is_private(&running, &account) => running,
        _ => socket::choose(&locked.path, &account)?,
    };
    if major.is_none() {
        let parent = &locked.path;
        initialise::initialise(parent, &data, &socket_directory, &options.settings, &binaries, &account)
            .await?;
    } else if postmaster::live(&data).is_none() {
        configuration::write(&data, &socket_directory, &options.settings, &account)?;
    }
    let mut server = Server {
        log: locked.path.join("postgres.log"),
        locked,
        data,
        socket_directory,
        binaries,
        account,
        start_timeout: options.start_timeout,
        stop_timeout: options.stop_timeout,
        process: None,
    };
    let pid = match server.bring_up().await {
        Ok(pid) => pid,
        Err(error) => {
            // What kept it from starting matters more than what keeps it from stopping.
            server.stop().await.ok();
            return Err(error);
        }
    };
    let (status, observer) = watch::channel(Status::Running { pid });
    let (commands, requests) = mpsc::channel(1);
    let cluster = Cluster {
        data: server.data.clone(),
        log: server.log.clone(),
        socket_directory: server.socket_directory.clone(),
        version: server.binaries.version,
        adopted: matches!(server.process, Some(Process::Adopted(_))),
        account: server.account.name().map(str::to_owned),
        status: observer,
        commands: Some(commands),
    };
    tokio::spawn(supervise(server, status, requests));
    Ok(cluster)
}

async fn find(
    options: &Options,
    parent: &Path,
    wanted: Wanted,
    account: &Account,
) -> Result<Binaries, Error> {
    if let Some(directory) = &options.binaries {
        return binaries::named(directory, wanted, account).await;
    }
    let found = match binaries::installed(wanted, account).await {
        Ok(binaries) => return Ok(binaries),
        Err(found) => found,
    };
    if let Some(download) = &options.download
        && wanted.accepts(download.version()?)
    {
        tracing::info!(version = download.version, "no suitable PostgreSQL is installed; downloading one");
        let directory = download.provide(&parent.join("binaries")).await?;
        return binaries::named(&directory, wanted, account).await;
    }
    Err(Error::NoBinaries { wanted: wanted.to_string(), found })
}

/// Runs until the cluster is stopped, detached or dropped.
async fn supervise(mut server: Server, status: watch::Sender<Status>, mut requests: mpsc::Receiver<Command>) {
    let mut log_check = interval(LOG_CHECK);
    log_check.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            request = requests.recv() => return finish(server, &status, request).await,
            reason = server.ended() => {
                tracing::warn!(reason, "Postgres went away; bringing it back");
                status.send_replace(Status::Restarting { reason });
                tokio::select! {
                    request = requests.recv() => return finish(server, &status, request).await,
                    pid = server.bring_back() => {
                        tracing::info!(pid, "Postgres is back");
                        status.send_replace(Status::Running { pid });
                    }
                }
            }
            _ = log_check.tick() => {
                if let Err(error) = log::shorten(&server.log) {
                    tracing::warn!(%error, "cannot shorten the log of Postgres");
                }
            }
        }
    }
}

async fn finish(mut server: Server, status: &watch::Sender<Status>, request: Option<Command>) {
    match request {
        Some(Command::Stop(answer)) => {
            let result = server.stop().await;
            if result.is_ok() {
                socket::clean_up(&server.locked.path, &server.socket_directory);
            }
            status.send_replace(Status::Stopped);
            // The lock is free before the caller goes on.
            drop(server);
            answer.send(result).ok();
        }
        Some(Command::Detach(answer)) => {
            status.send_replace(Status::Stopped);
            drop(server);
            answer.send(()).ok();
        }
        // The cluster was dropped, and has told the server.
        None => {
            status.send_replace(Status::Stopped);
        }
    }
}

impl Server {
    /// Brings the server to where it accepts connections, by adoption or by a start; answers its process id.
    async fn bring_up(&mut self) -> Result<u32, Error> {
        let begun = Instant::now();
        let deadline = begun + self.start_timeout;
        let after_crash = postmaster::left_pid_file(&self.data);
        loop {
            if let Some(pid) = self.adopt(deadline).await? {
                return Ok(pid);
            }
            postmaster::disown_stale(&self.data, &self.socket_directory, &self.account)?;
            log::shorten(&self.log).during("shorten", &self.log)?;
            let child = self.launch()?;
            let pid = child.id().unwrap_or(0);
            self.process = Some(Process::Child(child));
            match self.ready(deadline).await {
                Ok(()) => return Ok(pid),
                Err(Unready::Gone(reason)) => {
                    self.process = None;
                    // Somebody else's was quicker, or backends of a killed one still hold its memory.
                    let overtaken = postmaster::live(&self.data).is_some();
                    let lingering = after_crash && begun.elapsed() < LINGER;
                    if !overtaken && !lingering {
                        return Err(self.start_error(reason));
                    }
                    sleep(BACKOFF.0).await;
                }
                Err(Unready::Silent) => {
                    let waited = begun.elapsed().as_secs();
                    return Err(self.start_error(format!("it did not accept connections within {waited} s")));
                }
            }
        }
    }

    /// Takes over the postmaster that already runs, if there is one that is not about to end.
    async fn adopt(&mut self, deadline: Instant) -> Result<Option<u32>, Error> {
        while let Some(live) = postmaster::live(&self.data) {
            let pid = live.pid;
            if live.state == "stopping" && Instant::now() < deadline {
                sleep(POLL).await;
                continue;
            }
            self.process = Some(Process::Adopted(live));
            match self.ready(deadline).await {
                Ok(()) => {
                    tracing::info!(pid, "adopted the Postgres that already runs on this data directory");
                    return Ok(Some(pid));
                }
                Err(Unready::Gone(_)) => self.process = None,
                Err(Unready::Silent) => {
                    tracing::warn!(pid, "the Postgres that already runs does not answer; replacing it");
                    self.stop().await?;
                }
            }
        }
        Ok(None)
    }

    fn launch(&self) -> Result<Child, Error> {
        let output = log::open(&self.log).during("open", &self.log)?;
        let also = output.try_clone().during("open", &self.log)?;
        let program = self.binaries.program("postgres");
        self.account
            .command(&program)
            .arg("-D")
            .arg(&self.data)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(also)
            // A Ctrl-C at the terminal goes to the foreground process group; the service first finishes what
            // it does, then stops the server itself.
            .process_group(0)
            .spawn()
            .during("run", &program)
    }

    /// Waits until the process at hand accepts connections.
    async fn ready(&mut self, deadline: Instant) -> Result<(), Unready> {
        let mut ready_since: Option<Instant> = None;
        loop {
            let pid = match &mut self.process {
                Some(Process::Child(child)) => match child.try_wait() {
                    Ok(None) => child.id(),
                    Ok(Some(status)) => return Err(Unready::Gone(format!("it ended with {status}"))),
                    Err(error) => return Err(Unready::Gone(error.to_string())),
                },
                Some(Process::Adopted(file)) if postmaster::is_alive(file.pid, &self.data) => Some(file.pid),
                _ => return Err(Unready::Gone("it ended".to_owned())),
            };
            let file = postmaster::read(&self.data);
            if file.is_some_and(|file| Some(file.pid) == pid && file.state == "ready") {
                let since = *ready_since.get_or_insert_with(Instant::now);
                // Without its socket (a cleaner of /tmp; other options) it can never be asked.
                let socket = self.socket_directory.join(format!(".s.PGSQL.{PORT}"));
                if self.answers().await {
                    return Ok(());
                }
                if since.elapsed() > ANSWER || !socket.exists() {
                    return Err(Unready::Silent);
                }
            }
            if Instant::now() > deadline {
                return Err(Unready::Silent);
            }
            sleep(POLL).await;
        }
    }

    async fn answers(&self) -> bool {
        // `cannot_connect_now`: it starts or stops. Any other refusal is an answer.
        const NOT_NOW: &str = "57P03";
        let options =
            connect_options(&self.socket_directory, SUPERUSER, "postgres").disable_statement_logging();
        match timeout(Duration::from_secs(5), options.connect()).await {
            Ok(Ok(connection)) => connection.close().await.is_ok(),
            Ok(Err(sqlx::Error::Database(error))) => error.code().is_none_or(|code| code != NOT_NOW),
            Ok(Err(_)) | Err(_) => false,
        }
    }

    /// Waits for the process to end; says how.
    async fn ended(&mut self) -> String {
        let reason = match &mut self.process {
            Some(Process::Child(child)) => match child.wait().await {
                Ok(status) => status.to_string(),
                Err(error) => error.to_string(),
            },
            Some(Process::Adopted(file)) => {
                while postmaster::is_alive(file.pid, &self.data) {
                    sleep(WATCH).await;
                }
                "it ended".to_owned()
            }
            None => "it is not there".to_owned(),
        };
        self.process = None;
        reason
    }

    /// Brings the server back after it ended, for as long as that takes.
    async fn bring_back(&mut self) -> u32 {
        if !postmaster::left_pid_file(&self.data) {
            let grace = Instant::now() + RESTART_GRACE;
            while Instant::now() < grace && postmaster::live(&self.data).is_none() {
                sleep(POLL).await;
            }
        }
        let mut wait = BACKOFF.0;
        loop {
            match self.bring_up().await {
                Ok(pid) => return pid,
                // Expected once or twice after a kill: backends that have not noticed yet hold the memory.
                Err(error) => tracing::warn!(%error, retry_ms = wait.as_millis(), "Postgres does not start"),
            }
            sleep(wait).await;
            wait = (wait * 2).min(BACKOFF.1);
        }
    }

    /// Stops whatever postmaster serves the directory: fast, then immediately.
    async fn stop(&mut self) -> Result<(), Error> {
        let mut pid = 0;
        for (signal, patience) in [(Signal::SIGINT, self.stop_timeout), (Signal::SIGQUIT, IMMEDIATE_STOP)] {
            match &self.process {
                Some(Process::Child(child)) => pid = child.id().unwrap_or(0),
                _ => match postmaster::live(&self.data) {
                    Some(live) => pid = live.pid,
                    None => return Ok(()),
                },
            }
            if pid != 0 {
                postmaster::signal(pid, signal);
            }
            let gone = async {
                if let Some(Process::Child(child)) = &mut self.process {
                    child.wait().await.ok();
                    self.process = None;
                }
                // Also one that somebody else has started meanwhile.
                while postmaster::live(&self.data).is_some() {
                    sleep(POLL).await;
                }
                self.process = None;
            };
            if timeout(patience, gone).await.is_ok() {
                return Ok(());
            }
            tracing::warn!(pid, %signal, "Postgres does not stop in time");
        }
        Err(Error::WillNotStop { pid })
    }

    fn start_error(&self, reason: String) -> Error {
        Error::Start { reason, log: self.log.clone(), tail: log::tail(&self.log) }
    }
}

/// Why a server does not accept connections.
enum Unready {
    /// Its process ended, so.
    Gone(String),
    /// It is there but does not answer in time.
    Silent,
}
