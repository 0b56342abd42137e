//! The embedded cluster as the commands use it: run by this process, or, while a node runs it, joined.

use super::embedded::{self, Cluster};
use super::{Database, roles};
use crate::config::Settings;
use anyhow::{Context, Result, bail};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions};
use std::path::PathBuf;

/// The database in the embedded cluster.
pub const DATABASE: &str = "statusledger";
/// Connections kept for whoever looks in from outside: `psql`, the commands.
const SPARE_CONNECTIONS: u32 = 20;

/// How long a data directory that is in use is tried again: what a process that was just ended may take to be gone.
const ENDING_WITHIN: std::time::Duration = std::time::Duration::from_secs(3);
/// The pause between two tries.
const ENDING_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// A database, and the cluster under it where this process runs one.
#[derive(Debug)]
pub struct Attached {
    /// The pools.
    pub database: Database,
    /// The cluster, where this process runs it.
    pub cluster: Option<Cluster>,
}

impl Attached {
    /// Closes the pools and stops the cluster, if it is this process's.
    ///
    /// # Errors
    /// If the cluster does not stop.
    pub async fn close(self) -> Result<()> {
        self.database.service.close().await;
        self.database.worker.close().await;
        stop(self.cluster).await
    }
}

/// Stops a cluster, if there is one.
///
/// # Errors
/// If it does not stop.
pub async fn stop(cluster: Option<Cluster>) -> Result<()> {
    if let Some(cluster) = cluster {
        cluster.stop().await.context("the embedded database did not stop cleanly")?;
    }
    Ok(())
}

/// Where the embedded cluster lies ([`embedded::Options::directory`]).
#[must_use]
pub fn directory(settings: &Settings) -> PathBuf {
    settings.data_dir.join("postgres")
}

/// Starts the embedded cluster (or adopts the one that still runs), migrates it, and opens the pools.
///
/// # Errors
/// If Postgres cannot be found, started or migrated.
pub async fn start(settings: &Settings) -> Result<Attached> {
    let mut options = embedded::Options::new(directory(settings));
    options.binaries.clone_from(&settings.postgres_bin);
    // The two pools, and half as many that only append (`ledger::connections`).
    let most = settings.database_connections;
    let connections = most * 2 + most.div_ceil(2) + SPARE_CONNECTIONS;
    options.settings.push(("max_connections".into(), connections.to_string()));
    let mut until = None;
    let cluster = loop {
        match Cluster::start(options.clone()).await {
            // A process that was killed a moment ago may not be gone yet.
            Err(e @ embedded::Error::InUse { .. }) => {
                let now = tokio::time::Instant::now();
                let until = *until.get_or_insert_with(|| {
                    tracing::warn!("{e}; waiting up to {} s for it to end", ENDING_WITHIN.as_secs());
                    now + ENDING_WITHIN
                });
                if now >= until {
                    return Err(e).context("the embedded database does not start");
                }
                tokio::time::sleep(ENDING_PAUSE).await;
            }
            started => break started.context("the embedded database does not start")?,
        }
    };
    match open_cluster(settings, &cluster).await {
        Ok(database) => Ok(Attached { database, cluster: Some(cluster) }),
        Err(e) => {
            if let Err(stop) = cluster.stop().await {
                tracing::warn!(error = %stop, "the embedded database did not stop cleanly");
            }
            Err(e)
        }
    }
}

async fn open_cluster(settings: &Settings, cluster: &Cluster) -> Result<Database> {
    let as_role = |role: &str, database: &str| cluster.connect_options(role, database);
    let mut superuser = as_role(cluster.superuser(), "postgres").connect().await?;
    roles::ensure(&mut superuser).await?;
    let owner = roles::OWNER;
    let made = |r: Result<_, sqlx::Error>| match r {
        Ok(_) => Ok(()),
        // It exists: made at an earlier start.
        Err(sqlx::Error::Database(e)) if matches!(e.code().as_deref(), Some("42710" | "42P04" | "23505")) => {
            Ok(())
        }
        Err(e) => Err(e),
    };
    // The names are constants of this program.
    made(sqlx::query(AssertSqlSafe(format!("CREATE ROLE {owner} LOGIN"))).execute(&mut superuser).await)?;
    made(
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {DATABASE} OWNER {owner}")))
            .execute(&mut superuser)
            .await,
    )?;
    super::migrate(as_role(owner, DATABASE)).await?;
    Ok(Database::open(
        as_role(roles::SERVICE, DATABASE),
        as_role(roles::WORKER, DATABASE),
        settings.database_connections,
    )
    .await?)
}

/// The pools over the operator's server.
///
/// # Errors
/// If an address is missing or wrong, or a role is refused.
pub async fn open_external(settings: &Settings, url: &str) -> Result<Database> {
    let service: PgConnectOptions = url.parse().context("the database address cannot be read")?;
    let Some(worker) = &settings.worker_database_url else {
        bail!("with --database-url the worker's address is needed too: --worker-database-url");
    };
    let worker: PgConnectOptions = worker.parse().context("the worker's database address cannot be read")?;
    let connections = settings.database_connections;
    if settings.database_pooled {
        return Ok(Database::open_pooled(service, worker, connections).await?);
    }
    Ok(Database::open(service, worker, connections).await?)
}

/// For commands: the operator's server where one is named, else the embedded cluster: joined where a node runs it,
/// started for the length of the command where none does.
///
/// # Errors
/// If there is no database to be had.
pub async fn attach(settings: &Settings) -> Result<Attached> {
    if let Some(url) = &settings.database_url {
        return Ok(Attached { database: open_external(settings, url).await?, cluster: None });
    }
    let directory = directory(settings);
    if !directory.is_dir() {
        bail!(
            "{} holds no statusledger data; name the data directory (--data-dir)",
            settings.data_dir.display()
        );
    }
    if let Some(options) = embedded::running(&directory) {
        let as_role = |role: &str| options(role, DATABASE);
        if let Ok(database) = Database::open(as_role(roles::SERVICE), as_role(roles::WORKER), 4).await {
            return Ok(Attached { database, cluster: None });
        }
    }
    start(settings).await
}
