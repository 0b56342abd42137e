//! Postgres servers that a test may kill: a primary, a streaming replica of it, and the address under which the service
//! finds whichever serves.
//!
//! The address is a socket directory that is a symbolic link: a failover turns it to the other server, as a virtual
//! address or a name would be.

use super::cluster::{noted, temporary};
use super::eventually;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection};
use statusledger::database::{self, Database, roles};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tokio::process::Child;

/// The database in them.
const DATABASE: &str = "statusledger";
/// Connections of a node's pools.
const CONNECTIONS: u32 = 6;

/// Where the programs of Postgres are: as `initdb` in the path, or the newest that Debian has.
fn binaries() -> PathBuf {
    let in_path = std::env::var_os("PATH")
        .into_iter()
        .flat_map(|p| std::env::split_paths(&p).map(|dir| dir.join("initdb")).collect::<Vec<_>>());
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut debian: Vec<PathBuf> = debian.map(|entry| entry.path().join("bin/initdb")).collect();
    debian.sort();
    let found = in_path.chain(debian.into_iter().rev()).find(|path| path.is_file());
    let found = std::fs::canonicalize(found.expect("PostgreSQL is installed")).unwrap();
    found.parent().unwrap().to_owned()
}

/// Postgres does not run as root: then its account is `postgres`.
fn as_its_account(program: &str) -> Command {
    let program = binaries().join(program);
    if !nix::unistd::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
    command
}

fn done(command: &mut Command) {
    let output = command.current_dir("/").stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A server.
pub struct Server {
    /// Its directory: the data, the socket, the log.
    pub directory: PathBuf,
    process: Option<(Child, PathBuf)>,
}

impl Server {
    fn place(name: &str) -> PathBuf {
        let directory = temporary(name);
        if nix::unistd::geteuid().is_root() {
            let account = nix::unistd::User::from_name("postgres").unwrap().expect("the account postgres");
            nix::unistd::chown(&directory, Some(account.uid), Some(account.gid)).unwrap();
        }
        directory
    }

    /// A new cluster, migrated, with an empty database.
    pub async fn primary() -> Self {
        let directory = Self::place("primary");
        let mut initdb = as_its_account("initdb");
        done(
            initdb
                .args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-D"])
                .arg(directory.join("data")),
        );
        let mut server = Self { directory, process: None };
        server.start().await;
        let mut superuser = server.superuser("postgres").await;
        roles::ensure(&mut superuser).await.unwrap();
        let owner = roles::OWNER;
        for statement in
            [format!("CREATE ROLE {owner} LOGIN"), format!("CREATE DATABASE {DATABASE} OWNER {owner}")]
        {
            sqlx::query(AssertSqlSafe(statement)).execute(&mut superuser).await.unwrap();
        }
        superuser.close().await.unwrap();
        database::migrate(server.options(owner, DATABASE)).await.unwrap();
        server
    }

    /// A streaming replica of it, caught up.
    pub async fn replica(&self) -> Self {
        let directory = Self::place("replica");
        let mut base_backup = as_its_account("pg_basebackup");
        done(
            base_backup
                .args(["-U", "postgres", "-X", "stream", "-c", "fast", "-R", "-h"])
                .arg(&self.directory)
                .arg("-D")
                .arg(directory.join("data")),
        );
        let mut server = Self { directory, process: None };
        server.start().await;
        self.until_replicated("streaming").await;
        server
    }

    async fn start(&mut self) {
        let log = std::fs::File::create(self.directory.join("log")).unwrap();
        let mut command = tokio::process::Command::from(as_its_account("postgres"));
        command.arg("-D").arg(self.directory.join("data")).current_dir("/").kill_on_drop(true);
        let socket = format!("unix_socket_directories={}", self.directory.display());
        // It names itself to its primary by its cluster's name.
        for setting in ["listen_addresses=", &socket, "cluster_name=second", "max_connections=60"] {
            command.args(["-c", setting]);
        }
        let child =
            command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let note = noted(child.id().unwrap());
        std::fs::write(&note, "").unwrap();
        self.process = Some((child, note));
        eventually("the server accepts connections", || async {
            self.options("postgres", "postgres").connect().await.ok().map(drop)
        })
        .await;
    }

    /// Ends it at once, with all its backends, as a power cut would.
    pub async fn kill(&mut self) {
        use nix::sys::signal::{Signal, kill};
        let Some((mut child, note)) = self.process.take() else { return };
        let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap());
        kill(pid, Signal::SIGQUIT).unwrap();
        child.wait().await.unwrap();
        std::fs::remove_file(&note).unwrap();
    }

    /// How to connect to it.
    fn options(&self, role: &str, database: &str) -> PgConnectOptions {
        options_at(&self.directory, role, database)
    }

    /// Whoever may do everything.
    pub async fn superuser(&self, database: &str) -> PgConnection {
        self.options("postgres", database).connect().await.unwrap()
    }

    /// The same, in the service's database.
    pub async fn within(&self) -> PgConnection {
        self.superuser(DATABASE).await
    }

    async fn set(&self, setting: &str, value: &str) {
        let mut superuser = self.superuser("postgres").await;
        let statement = format!("ALTER SYSTEM SET {setting} = '{value}'");
        sqlx::query(AssertSqlSafe(statement)).execute(&mut superuser).await.unwrap();
        sqlx::query("SELECT pg_reload_conf()").execute(&mut superuser).await.unwrap();
    }

    async fn until_replicated(&self, what: &str) {
        eventually(&format!("the replica is {what}"), || async {
            let mut superuser = self.superuser("postgres").await;
            let held: bool = sqlx::query_scalar(
                "SELECT EXISTS (SELECT FROM pg_stat_replication WHERE state = 'streaming' AND $1 IN (state, sync_state)
                                   AND flush_lsn = pg_current_wal_flush_lsn())",
            )
            .bind(what)
            .fetch_one(&mut superuser)
            .await
            .unwrap();
            held.then_some(())
        })
        .await;
    }

    /// From now on no commit is confirmed that its replica does not have.
    pub async fn synchronous(&self) {
        self.set("synchronous_standby_names", "second").await;
        self.until_replicated("sync").await;
    }

    /// From now on no commit waits for the replica.
    pub async fn asynchronous(&self) {
        self.set("synchronous_standby_names", "").await;
        eventually("no commit waits", || async {
            let mut superuser = self.superuser("postgres").await;
            let waited: bool = sqlx::query_scalar(
                "SELECT EXISTS (SELECT FROM pg_stat_replication WHERE sync_state = 'sync')",
            )
            .fetch_one(&mut superuser)
            .await
            .unwrap();
            (!waited).then_some(())
        })
        .await;
    }

    /// A replica: from now on it gets nothing more.
    pub async fn stop_receiving(&self) {
        self.set("primary_conninfo", "").await;
        eventually("the replica has stopped receiving", || async {
            let mut superuser = self.superuser("postgres").await;
            let receiving: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_stat_wal_receiver")
                .fetch_one(&mut superuser)
                .await
                .unwrap();
            (receiving == 0).then_some(())
        })
        .await;
    }

    /// Makes the replica a primary.
    pub async fn promote(&self) {
        let mut superuser = self.superuser("postgres").await;
        let promoted: bool =
            sqlx::query_scalar("SELECT pg_promote(true, 30)").fetch_one(&mut superuser).await.unwrap();
        assert!(promoted);
    }
}

fn options_at(directory: &Path, role: &str, database: &str) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .socket(directory)
        .port(5432)
        .username(role)
        .database(database)
        .disable_statement_logging()
}

/// Where the service finds the server that serves.
pub struct Address(PathBuf);

impl Address {
    /// One that leads to `server`.
    pub fn of(server: &Server) -> Self {
        let address = Self(temporary("address").join("current"));
        address.turn_to(server);
        address
    }

    /// From now on it leads to `server`.
    pub fn turn_to(&self, server: &Server) {
        let aside = self.0.with_extension("new");
        std::os::unix::fs::symlink(&server.directory, &aside).unwrap();
        std::fs::rename(&aside, &self.0).unwrap();
    }

    /// For a command line, as `role`.
    pub fn url(&self, role: &str) -> String {
        format!("postgres:///{DATABASE}?host={}&user={role}&sslmode=disable", self.0.display())
    }

    /// The pools of a node.
    pub async fn open(&self) -> Database {
        let as_role = |role| options_at(&self.0, role, DATABASE);
        Database::open(as_role(roles::SERVICE), as_role(roles::WORKER), CONNECTIONS).await.unwrap()
    }
}
