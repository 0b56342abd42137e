//! The database: two pools, transactions that see one workspace, and what a server must be before it is used.
//!
//! The service's role sees one workspace at a time, named for the length of a transaction by the setting
//! `sl.workspace`; the worker's role sees a few tables across workspaces and no entry. Both are refused at start if
//! they could do more than that. The owner's role is used by `migrate` alone.

pub mod attach;
pub mod embedded;
pub mod pooled;
pub mod roles;
pub mod server;

use crate::id::{UserId, WorkspaceId};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{Postgres, Transaction};
use std::sync::Arc;
use std::time::Duration;

/// The migrations, embedded in the program.
pub static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!();

/// The oldest Postgres that is supported, as `server_version_num`.
pub const OLDEST_VERSION: i32 = 150_000;

/// How long to wait for a free connection before a request is refused.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the database may take over one batch of an append, or what a sender waits for: longer than an append waits for
/// a lock (`migrations/0001_spine.sql`).
pub const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// A database that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server, or a statement.
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    /// The migrations.
    #[error("the migrations do not apply: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// The server or the role is not what this program may run with.
    #[error("{0}")]
    Refused(String),
}

/// Whether it is the state of the server, or of the way to it, and not of what it was asked: later it may answer.
#[must_use]
pub fn is_passing(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(refused) => refused.code().is_some_and(|code| {
            // Lost connections; serialization and deadlocks; no room (connections, disk, memory); a lock that is not
            // had in time; shut down, cancelled, starting; the system under the server; read-only.
            ["08", "40", "53", "55P03", "57", "58", "25006"].iter().any(|class| code.starts_with(class))
        }),
        _ => false,
    }
}

/// What the database does not answer in time is taken for lost: a connection that swallows everything says nothing, and
/// whoever waits for it costs memory.
///
/// # Errors
/// If it takes longer than [`ANSWER_WITHIN`].
pub async fn in_time<T>(asking: impl Future<Output = T>) -> Result<T, sqlx::Error> {
    let late = |_| sqlx::Error::Io(std::io::ErrorKind::TimedOut.into());
    tokio::time::timeout(ANSWER_WITHIN, asking).await.map_err(late)
}

/// The pools of a node.
#[derive(Clone, Debug)]
pub struct Database {
    /// The service's role: one workspace at a time, by [`Database::workspace`].
    pub service: PgPool,
    /// The worker's role: across workspaces, no entries.
    pub worker: PgPool,
    /// Which server this node has compared with what was signed.
    pub compared: server::Compared,
    /// The ways to a pooler, where there is one in between: then no connection can listen for notifications.
    pub relays: Arc<[pooled::Relay]>,
}

/// A transaction that sees one workspace's rows and no other's.
#[derive(Debug)]
pub struct WorkspaceTx {
    tx: Transaction<'static, Postgres>,
    /// The workspace it sees.
    pub workspace: WorkspaceId,
}

impl Database {
    /// Opens both pools and refuses a server or a role that this program must not run with.
    ///
    /// # Errors
    /// If the server cannot be reached, is too old, can lose commits, is not migrated, or a role may do more than
    /// it needs.
    pub async fn open(
        service: PgConnectOptions,
        worker: PgConnectOptions,
        connections: u32,
    ) -> Result<Self, Error> {
        let pool = |options: PgConnectOptions, name: &str| {
            PgPoolOptions::new()
                .max_connections(connections)
                .min_connections(1)
                .acquire_timeout(ACQUIRE_TIMEOUT)
                .connect_with(options.application_name(name))
        };
        let database = Self {
            service: pool(service, "statusledger service").await?,
            worker: pool(worker, "statusledger worker").await?,
            compared: server::Compared::default(),
            relays: Arc::from([]),
        };
        roles::check_server(&database.service).await?;
        roles::check_filters(&database.service).await?;
        roles::check_service(&database.service).await?;
        roles::check_worker(&database.worker).await?;
        Ok(database)
    }

    /// The same through a pooler that gives server connections away with every transaction.
    ///
    /// # Errors
    /// As [`Database::open`], and if a way to the pooler cannot be made.
    pub async fn open_pooled(
        service: PgConnectOptions,
        worker: PgConnectOptions,
        connections: u32,
    ) -> Result<Self, Error> {
        let to = |options: &PgConnectOptions| {
            pooled::Relay::start(options).map_err(|e| Error::Refused(e.to_string()))
        };
        let relays = [to(&service)?, to(&worker)?];
        let (service, worker) = (relays[0].options(service), relays[1].options(worker));
        Ok(Self { relays: Arc::from(relays), ..Self::open(service, worker, connections).await? })
    }

    /// Whether a pooler stands in between.
    #[must_use]
    pub fn is_pooled(&self) -> bool {
        !self.relays.is_empty()
    }

    /// Begins a transaction that sees `workspace` and nothing else.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn workspace(&self, workspace: WorkspaceId) -> Result<WorkspaceTx, sqlx::Error> {
        let mut tx = self.service.begin().await?;
        // Whoever holds a row for longer than that holds up nobody for longer.
        sqlx::query!(
            "SELECT set_config('sl.workspace', $1, true) AS workspace, set_config('lock_timeout', '10s', true) AS lock",
            workspace.uuid().to_string()
        )
        .fetch_one(&mut *tx)
        .await?;
        Ok(WorkspaceTx { tx, workspace })
    }
}

/// Which workspaces a transaction sees by name ([`Database::workspaces`]).
#[derive(Clone, Copy, Debug)]
pub enum Seen {
    /// This one.
    One(WorkspaceId),
    /// Those that a person has a part in.
    Of(UserId),
    /// Every one on the instance.
    All,
}

impl Database {
    /// Begins a transaction that sees these rows of `workspaces` and, but for one workspace, nothing else of any.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn workspaces(&self, seen: Seen) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
        let (setting, value) = match seen {
            Seen::One(workspace) => ("sl.workspace", workspace.uuid().to_string()),
            Seen::Of(user) => ("sl.user", user.uuid().to_string()),
            Seen::All => ("sl.workspaces", "all".to_owned()),
        };
        let mut tx = self.service.begin().await?;
        sqlx::query_scalar!("SELECT set_config($1, $2, true)", setting, value).fetch_one(&mut *tx).await?;
        Ok(tx)
    }

    /// A transaction that sees `workspace` as it is at one moment: whatever is committed meanwhile, it is not seen.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn snapshot(&self, workspace: WorkspaceId) -> Result<WorkspaceTx, sqlx::Error> {
        let mut tx = self.service.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        sqlx::query_scalar!("SELECT set_config('sl.workspace', $1, true)", workspace.uuid().to_string())
            .fetch_one(&mut *tx)
            .await?;
        Ok(WorkspaceTx { tx, workspace })
    }
}

impl WorkspaceTx {
    /// Commits. A crash before this has returned leaves either all of it or nothing.
    ///
    /// # Errors
    /// If the database does not confirm; then it is unknown whether the commit took place.
    pub async fn commit(self) -> Result<(), sqlx::Error> {
        self.tx.commit().await
    }
}

impl std::ops::Deref for WorkspaceTx {
    type Target = sqlx::PgConnection;
    fn deref(&self) -> &Self::Target {
        &self.tx
    }
}

impl std::ops::DerefMut for WorkspaceTx {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.tx
    }
}

/// Brings the schema up to this program's version, as the owner, making the roles first where they are missing.
///
/// # Errors
/// If the owner may not, or a migration fails; each migration is a transaction, so a crash leaves whole steps.
pub async fn migrate(owner: PgConnectOptions) -> Result<(), Error> {
    use sqlx::ConnectOptions;
    let mut connection = owner.application_name("statusledger migrate").connect().await?;
    roles::ensure(&mut connection).await?;
    MIGRATIONS.run(&mut connection).await?;
    Ok(())
}
