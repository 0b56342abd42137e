//! Postgres without a ledger: the same rows, the same primary key, no other index, no row-level security.

use super::drafts;
use anyhow::{Context, Result};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection};
use statusledger::database::embedded::Cluster;
use statusledger::database::roles;
use statusledger::id::{LedgerId, WorkspaceId};
use statusledger::ledger::Writer;
use statusledger::ledger::append::unix_micros;
use statusledger::ledger::batch::{self, Head, Recorded};
use statusledger::workspace;
use statusledger_verify::tree::Frontier;
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Rows in a commit of COPY.
const COPY_ROWS: usize = 5000;
const TYPE: &str = "store.version.transitioned";
const TABLES: [&str; 3] = ["rival_insert", "rival_copy", "rival_batch"];

/// The contenders' tables and connections.
pub struct Rivals {
    owner: PgConnection,
    superuser: PgConnection,
    options: PgConnectOptions,
    /// Rows as the service builds them.
    rows: Vec<Recorded>,
    key: (Uuid, Uuid),
    inserted: i64,
    copied: i64,
    batched: i64,
}

impl Rivals {
    /// Makes the tables and the rows.
    pub async fn prepare(cluster: &Cluster, writer: &Writer) -> Result<Self> {
        let options = cluster.connect_options(roles::OWNER, "statusledger");
        let mut owner = options.clone().connect().await?;
        for table in TABLES {
            // The names are constants of this program.
            sqlx::query(AssertSqlSafe(format!(
                "CREATE TABLE {table} (workspace_id uuid NOT NULL, ledger_id uuid NOT NULL, seq bigint NOT NULL,
                     leaf bytea NOT NULL, type text NOT NULL, entry text NOT NULL,
                     PRIMARY KEY (workspace_id, ledger_id, seq))"
            )))
            .execute(&mut owner)
            .await?;
        }
        let superuser = cluster.connect_options(cluster.superuser(), "statusledger").connect().await?;
        let (workspace, ledger) =
            workspace::create(writer, &statusledger::audit::Act::operator(), "rows", None).await?;
        let rows = rows(writer, workspace, ledger).await?;
        Ok(Self {
            owner,
            superuser,
            options,
            rows,
            key: (workspace.uuid(), ledger.uuid()),
            inserted: 0,
            copied: 0,
            batched: 0,
        })
    }

    /// Bytes of a row's entry.
    pub fn row_bytes(&self) -> usize {
        self.rows.first().map_or(0, |row| row.entry.len())
    }

    /// Has the server write out what was left.
    pub async fn checkpoint(&mut self) -> Result<()> {
        sqlx::query("CHECKPOINT").execute(&mut self.superuser).await?;
        Ok(())
    }

    /// Each statement once and some more.
    pub async fn warm_up(&mut self) -> Result<()> {
        self.insert_loop(Duration::from_millis(300)).await?;
        self.copy(COPY_ROWS).await?;
        self.batches(5000, 1000).await?;
        Ok(())
    }

    /// One row, one commit; how long it took.
    pub async fn insert_once(&mut self) -> Result<Duration> {
        let row = &self.rows[self.inserted as usize % self.rows.len()];
        let started = Instant::now();
        sqlx::query(
            "INSERT INTO rival_insert (workspace_id, ledger_id, seq, leaf, type, entry)
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(self.key.0)
        .bind(self.key.1)
        .bind(self.inserted)
        .bind(&row.leaf[..])
        .bind(TYPE)
        .bind(&*row.entry)
        .execute(&mut self.owner)
        .await?;
        self.inserted += 1;
        Ok(started.elapsed())
    }

    /// One row a commit for `time`; rows per second.
    pub async fn insert_loop(&mut self, time: Duration) -> Result<f64> {
        let (started, before) = (Instant::now(), self.inserted);
        while started.elapsed() < time {
            self.insert_once().await?;
        }
        Ok((self.inserted - before) as f64 / started.elapsed().as_secs_f64())
    }

    /// At least `rows` rows by COPY, the streams made before the clock starts; rows per second.
    pub async fn copy(&mut self, rows: usize) -> Result<f64> {
        let streams: Vec<Vec<u8>> = (0..rows.div_ceil(COPY_ROWS))
            .map(|n| self.stream(self.copied + (n * COPY_ROWS) as i64))
            .collect();
        let total = streams.len() * COPY_ROWS;
        self.copied += total as i64;
        let started = Instant::now();
        for stream in streams {
            let mut copy = self
                .owner
                .copy_in_raw(
                    "COPY rival_copy (workspace_id, ledger_id, seq, leaf, type, entry)
                     FROM STDIN WITH (FORMAT binary)",
                )
                .await?;
            copy.send(stream).await?;
            copy.finish().await?;
        }
        Ok(total as f64 / started.elapsed().as_secs_f64())
    }

    /// `COPY_ROWS` rows in COPY's binary format.
    fn stream(&self, first: i64) -> Vec<u8> {
        let mut out = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
        let field = |out: &mut Vec<u8>, bytes: &[u8]| {
            out.extend((bytes.len() as i32).to_be_bytes());
            out.extend(bytes);
        };
        for seq in first..first + COPY_ROWS as i64 {
            let row = &self.rows[seq as usize % self.rows.len()];
            out.extend(6_i16.to_be_bytes());
            field(&mut out, self.key.0.as_bytes());
            field(&mut out, self.key.1.as_bytes());
            field(&mut out, &seq.to_be_bytes());
            field(&mut out, &row.leaf);
            field(&mut out, TYPE.as_bytes());
            field(&mut out, row.entry.as_bytes());
        }
        out.extend((-1_i16).to_be_bytes());
        out
    }

    /// At least `rows` rows in transactions of `size` on one connection; rows per second.
    pub async fn batches(&mut self, rows: usize, size: usize) -> Result<f64> {
        let batches = rows.div_ceil(size);
        let first = self.batched;
        self.batched += (batches * size) as i64;
        let started = Instant::now();
        for n in 0..batches {
            let at = first + (n * size) as i64;
            insert_batch(&mut self.owner, self.key, at, &self.rows, size).await?;
        }
        Ok((batches * size) as f64 / started.elapsed().as_secs_f64())
    }

    /// `keys` × `each` transactions of `size` rows, over 16 connections; rows per second.
    pub async fn many_batches(&mut self, keys: usize, size: usize, each: usize) -> Result<f64> {
        let rows: Arc<[Recorded]> = self.rows.iter().take(size).cloned().collect();
        let mut connections = Vec::new();
        for _ in 0..16 {
            connections.push(self.options.clone().connect().await?);
        }
        let share = keys.div_ceil(16);
        let mut tasks = tokio::task::JoinSet::new();
        let started = Instant::now();
        for mut connection in connections {
            let rows = Arc::clone(&rows);
            tasks.spawn(async move {
                let keys: Vec<_> = (0..share).map(|_| (Uuid::now_v7(), Uuid::now_v7())).collect();
                for n in 0..each {
                    for key in &keys {
                        insert_batch(&mut connection, *key, (n * size) as i64, &rows, size).await?;
                    }
                }
                connection.close().await?;
                Ok::<_, anyhow::Error>(())
            });
        }
        while let Some(done) = tasks.join_next().await {
            done??;
        }
        Ok((share * 16 * each * size) as f64 / started.elapsed().as_secs_f64())
    }
}

async fn insert_batch(
    connection: &mut PgConnection,
    key: (Uuid, Uuid),
    first: i64,
    rows: &[Recorded],
    size: usize,
) -> Result<()> {
    let picked = || (0..size).map(|i| &rows[(first as usize + i) % rows.len()]);
    let leaves: Vec<&[u8]> = picked().map(|row| row.leaf.as_slice()).collect();
    let entries: Vec<&str> = picked().map(|row| &*row.entry).collect();
    sqlx::query(
        "INSERT INTO rival_batch (workspace_id, ledger_id, seq, leaf, type, entry)
         SELECT $1, $2, $3 + n - 1, leaf, type, entry
           FROM unnest($4::bytea[], $5::text[], $6::text[]) WITH ORDINALITY AS u (leaf, type, entry, n)",
    )
    .bind(key.0)
    .bind(key.1)
    .bind(first)
    .bind(leaves)
    .bind(vec![TYPE; size])
    .bind(entries)
    .execute(connection)
    .await?;
    Ok(())
}

/// Rows as the service builds them, in a ledger of their own.
async fn rows(writer: &Writer, workspace: WorkspaceId, ledger: LedgerId) -> Result<Vec<Recorded>> {
    let key = writer.data_keys().get(workspace).await?;
    let head = Head {
        workspace,
        ledger,
        leaf: [0; 32],
        frontier: Frontier::new(),
        recorded_at: 0,
        routes: Arc::default(),
    };
    let batch = batch::build(&head, &drafts(COPY_ROWS)?, &key, unix_micros());
    Ok(batch.context("the rows cannot be built")?.entries)
}
