//! A private Postgres in the data directory, run by this process.
//!
//! [`Cluster::start`] finds (or downloads) the binaries, makes the cluster once, starts `postgres` or adopts
//! the one that still runs, and keeps it running until [`Cluster::stop`].
//!
//! # Layout
//! ```text
//! DIRECTORY/             owned by us; 0700, or 0711 when Postgres runs as another account
//!   lock                 held (flock) by the supervising process: one at a time
//!   data/                the cluster, owned by the account, 0700
//!   socket/              the Unix socket, owned by the account, 0700
//!   socket-directory     where the socket went when DIRECTORY is too long a path for it
//!   postgres.log[.1]     what the server says, at most two files of 8 MiB and a minute
//!   binaries/            downloaded, where none is installed
//! ```
//!
//! # Who may connect
//! The server listens on no TCP port. Authentication is `trust`, because there is nobody left to tell apart:
//! the socket's directory is 0700 and the socket itself 0700, so the kernel lets only the account that
//! Postgres runs as (and root) connect, and that account owns the data files anyway. `peer` with a map would
//! name the same accounts again. The service's separation of roles is about what its own statements may do,
//! not about who is at the other end.
//!
//! # Root
//! Postgres refuses to run as root. As root, every child (`initdb`, `postgres`, even `--version`) runs as an
//! unprivileged account, with no supplementary groups: `postgres` if it exists, else `nobody`, or the one
//! that [`Options::account`] names. `DIRECTORY` itself stays ours, so that the account cannot put a link
//! where we write; it gets `data/` and `socket/`. The account has to be able to reach them: a path with a
//! component that it cannot search is refused before anything is created. Only the directory right above
//! `DIRECTORY`, if it is ours, is opened to 0711, and only if nothing in it could be read by that.
//!
//! # Crashes
//! * of `initdb`: it works in `initialising-…/`, which becomes `data/` by a rename after everything is
//!   synced; a left-over one is removed. A half-made cluster is never started.
//! * of this process (`kill -9`): Postgres is in a process group of its own and lives on; the lock dies with
//!   us; the next start finds the live postmaster and adopts it.
//! * of Postgres: [`Status`] says so, and it is started again. A postmaster that somebody stopped in good
//!   order is given [`RESTART_GRACE`] to be started by the same hand (`pg_ctl restart`), and is then adopted.
//!
//! # Durability
//! `fsync` and `full_page_writes` stay on; [`check_durability`] refuses a server where they are not, this
//! one or an operator's.

mod account;
mod binaries;
mod configuration;
mod directory;
mod download;
mod durability;
mod initialise;
mod log;
mod postmaster;
mod socket;
mod supervisor;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::Uid;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tokio::sync::{mpsc, oneshot, watch};

pub use binaries::{Binaries, Version};
pub use download::Download;
pub use durability::{NotDurable, check_durability};

/// The oldest major version of Postgres that the schema is written for.
pub const OLDEST_MAJOR: u32 = 15;

/// The port, which on a Unix socket is only a part of the file's name.
pub const PORT: u16 = 5432;

/// The cluster's superuser.
pub const SUPERUSER: &str = "postgres";

/// How long a postmaster that was stopped in good order by somebody else may stay away before it is started
/// again: `pg_ctl restart` takes well under a second, and two postmasters racing for one directory would
/// make that command fail.
pub const RESTART_GRACE: Duration = Duration::from_secs(5);

/// How to run the cluster.
#[derive(Clone, Debug)]
pub struct Options {
    /// The cluster's own directory; made if absent, with everything above it except the parent's parents.
    pub directory: PathBuf,
    /// The directory with `postgres` and `initdb`; none: look for it, then download.
    pub binaries: Option<PathBuf>,
    /// As root: the account that Postgres runs as; none: `postgres`, else `nobody`.
    pub account: Option<String>,
    /// Settings of `postgresql.conf` beyond ours (name, value), the last one wins. They take effect when the
    /// server is next started, not on one that is adopted.
    pub settings: Vec<(String, String)>,
    /// What to download where no binaries are installed; none: that is an error.
    pub download: Option<Download>,
    /// How long the server may take to accept connections. Recovery after a crash can take minutes.
    pub start_timeout: Duration,
    /// How long a fast shutdown may take before it becomes an immediate one (which loses nothing, but makes
    /// the next start recover).
    pub stop_timeout: Duration,
}

impl Options {
    /// The defaults for a cluster in `directory`.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            binaries: None,
            account: None,
            settings: Vec::new(),
            download: Some(Download::default()),
            start_timeout: Duration::from_secs(600),
            stop_timeout: Duration::from_secs(30),
        }
    }
}

/// What the supervised server does now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// It accepts connections.
    Running {
        /// The postmaster's process id.
        pid: u32,
    },
    /// It went away and is being started, or waited for.
    Restarting {
        /// What was seen of its end.
        reason: String,
    },
    /// It was stopped, or given up by [`Cluster::detach`].
    Stopped,
}

/// A running private cluster. Dropping it asks the server for a fast shutdown without waiting; use
/// [`Cluster::stop`] to wait, [`Cluster::detach`] to leave it running.
#[derive(Debug)]
pub struct Cluster {
    data: PathBuf,
    log: PathBuf,
    socket_directory: PathBuf,
    version: Version,
    adopted: bool,
    account: Option<String>,
    status: watch::Receiver<Status>,
    commands: Option<mpsc::Sender<supervisor::Command>>,
}

impl Cluster {
    /// Starts the cluster of `options.directory`, making it first if there is none, or adopts the postmaster
    /// that already runs on it. Returns when it accepts connections.
    ///
    /// # Errors
    /// See [`Error`]; nothing is left running after one.
    pub async fn start(options: Options) -> Result<Self, Error> {
        supervisor::start(options).await
    }

    /// The directory of the Unix socket.
    pub fn socket_directory(&self) -> &Path {
        &self.socket_directory
    }

    /// The port, a part of the socket's name.
    pub fn port(&self) -> u16 {
        PORT
    }

    /// The name of the cluster's superuser.
    pub fn superuser(&self) -> &str {
        SUPERUSER
    }

    /// The version of the binaries that run.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Postgres's own data directory (`PGDATA`).
    pub fn data_directory(&self) -> &Path {
        &self.data
    }

    /// Where the server's messages go.
    pub fn log_file(&self) -> &Path {
        &self.log
    }

    /// Whether the postmaster was already running and was taken over.
    pub fn adopted(&self) -> bool {
        self.adopted
    }

    /// The unprivileged account that the server runs as; none: our own.
    pub fn account(&self) -> Option<&str> {
        self.account.as_deref()
    }

    /// How to connect as `role` to `database`, over the socket.
    pub fn connect_options(&self, role: &str, database: &str) -> PgConnectOptions {
        connect_options(&self.socket_directory, role, database)
    }

    /// What the server does, now and from now on.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Stops the server: fast (open transactions are rolled back), then, after [`Options::stop_timeout`],
    /// immediately. Returns when it is gone and the lock is free.
    ///
    /// # Errors
    /// [`Error::WillNotStop`] if it outlives both.
    pub async fn stop(mut self) -> Result<(), Error> {
        let (answer, done) = oneshot::channel();
        let Some(commands) = self.commands.take() else { return Ok(()) };
        if commands.send(supervisor::Command::Stop(answer)).await.is_err() {
            return Ok(());
        }
        done.await.unwrap_or(Ok(()))
    }

    /// Lets go of the server, which goes on running; the next [`Cluster::start`] adopts it.
    pub async fn detach(mut self) {
        let (answer, done) = oneshot::channel();
        let Some(commands) = self.commands.take() else { return };
        if commands.send(supervisor::Command::Detach(answer)).await.is_ok() {
            // The sender is dropped unanswered only if the task is already gone, which is as good.
            done.await.ok();
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.commands.is_some()
            && let Some(live) = postmaster::live(&self.data)
        {
            postmaster::signal(live.pid, nix::sys::signal::Signal::SIGINT);
        }
    }
}

/// How to connect (role, database) to the cluster of `directory` ([`Options::directory`]) while it runs, whoever
/// runs it; none: it does not, or it is not ours. For commands beside a node; takes no lock and starts nothing.
pub fn running(directory: &Path) -> Option<impl Fn(&str, &str) -> PgConnectOptions + use<>> {
    // A directory that somebody else prepared could name a socket of theirs.
    let ours = directory::open(directory).ok()?.metadata().ok()?.uid() == Uid::effective().as_raw();
    let live = postmaster::live(&directory.join("data")).filter(|live| ours && live.state == "ready")?;
    let socket_directory = live.socket_directory?;
    Some(move |role: &str, database: &str| connect_options(&socket_directory, role, database))
}

/// A connection over the socket in `directory`. Encryption is off: a Unix socket has no wire to protect.
fn connect_options(directory: &Path, role: &str, database: &str) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .socket(directory)
        .port(PORT)
        .username(role)
        .database(database)
        .ssl_mode(PgSslMode::Disable)
}

/// Why there is no cluster.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No usable binaries are installed, and none may be downloaded.
    #[error(
        "found no PostgreSQL {wanted}; install it, or name the directory of its binaries. Found: {}",
        list(found)
    )]
    NoBinaries {
        /// What would have done, such as `15 or newer`.
        wanted: String,
        /// What there is instead, and where.
        found: Vec<String>,
    },
    /// The directory that the operator named has no usable binaries.
    #[error("{path} has no usable PostgreSQL {wanted}: {reason}")]
    UnusableBinaries {
        /// The directory named.
        path: PathBuf,
        /// What would have done.
        wanted: String,
        /// What is the matter with it.
        reason: String,
    },
    /// The binaries could not be downloaded.
    #[error("cannot download PostgreSQL from {url}: {reason}")]
    Download {
        /// What was asked for.
        url: String,
        /// What went wrong.
        reason: String,
    },
    /// What was downloaded is not what was promised.
    #[error("PostgreSQL from {url} has the SHA-256 {found}, not {expected}; it was not unpacked")]
    Checksum {
        /// What was asked for.
        url: String,
        /// The checksum promised, in hex.
        expected: String,
        /// The checksum of what came, in hex.
        found: String,
    },
    /// The archive is not one of PostgreSQL binaries, or not a safe one.
    #[error("the PostgreSQL archive from {url} is refused: {reason}")]
    Archive {
        /// What was asked for.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no account to run Postgres as.
    #[error(
        "Postgres does not run as root, and there is no account {0:?} to run it as: create it, name another, \
         or start the service as an ordinary user"
    )]
    NoAccount(String),
    /// The account cannot reach the cluster's directory, or the binaries.
    #[error(
        "Postgres runs as {account:?}, which cannot reach {target}: {component} does not let it through. \
         Either `chmod o+x {component}`, or use a directory outside it{hint}"
    )]
    Unreachable {
        /// The unprivileged account.
        account: String,
        /// What it has to reach.
        target: PathBuf,
        /// The path component that has no search permission for it.
        component: PathBuf,
        /// Why it was not opened, where it could have been.
        hint: String,
    },
    /// A path that has to be ours is somebody else's, or open to others.
    #[error("{path} is not safe to use: {reason}")]
    Unsafe {
        /// The path.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Another process supervises this cluster.
    #[error("{directory} is in use by another process{}", holder(.pid))]
    InUse {
        /// The cluster's directory.
        directory: PathBuf,
        /// Who holds its lock, where that is known.
        pid: Option<u32>,
    },
    /// `initdb` failed.
    #[error("initdb failed: {0}")]
    Initdb(String),
    /// The server ended, or did not accept connections in time.
    #[error("Postgres did not start: {reason}. The end of {log}: {tail}")]
    Start {
        /// What was seen.
        reason: String,
        /// The server's log.
        log: PathBuf,
        /// The log's last lines.
        tail: String,
    },
    /// The server is still there after an immediate shutdown.
    #[error("Postgres (process {pid}) does not stop")]
    WillNotStop {
        /// The postmaster.
        pid: u32,
    },
    /// A setting that cannot be written.
    #[error("{0:?} is not the name or value of a Postgres setting")]
    Setting(String),
    /// The file system, or starting a process, failed.
    #[error("{action} {path}: {source}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

fn list(found: &[String]) -> String {
    if found.is_empty() { "none".to_owned() } else { found.join("; ") }
}

fn holder(pid: &Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" ({pid})"))
}

/// Names what was being done to which path, for an error of the system.
trait During<T> {
    fn during(self, action: &'static str, path: &Path) -> Result<T, Error>;
}

impl<T> During<T> for std::io::Result<T> {
    fn during(self, action: &'static str, path: &Path) -> Result<T, Error> {
        self.map_err(|source| Error::Io { action, path: path.to_owned(), source })
    }
}

impl<T> During<T> for nix::Result<T> {
    fn during(self, action: &'static str, path: &Path) -> Result<T, Error> {
        self.map_err(std::io::Error::from).during(action, path)
    }
}
