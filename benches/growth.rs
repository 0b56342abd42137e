//! Growth: what a read and an append cost when the ledger is a hundred times as long.
//!
//!     cargo bench --bench growth [-- --sizes 10000,1000000 --rounds N]
//!
//! The service is the real binary in a child process with its embedded defaults (`statusledger up`), and is asked over
//! HTTP, as customers ask. The ledger is filled by the service's own append, beside it, on the same Postgres. Each
//! figure is the median of the times of one client; each question is about a place drawn at random from the whole
//! ledger, so that nothing is warm but what every question shares. `--sizes 10000,1000000,20000000` goes further.
#![allow(clippy::cast_precision_loss)]

#[path = "support/entry.rs"]
mod entry;
#[path = "support/service.rs"]
mod service;
mod support;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use entry::draft;
use serde_json::Value as Json;
use service::Service;
use sqlx::{ConnectOptions, Connection};
use statusledger::config::Settings;
use statusledger::database::{attach, embedded, roles};
use statusledger::delivery::Outbox;
use statusledger::id::WorkspaceId;
use statusledger::instance::Instance;
use statusledger::key_encryption::KeyEncryption;
use statusledger::ledger::Writer;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use support::{claim, count, figure, line, percentile, table};

#[derive(Parser)]
struct Arguments {
    /// Sizes of the ledger at which is measured, ascending.
    #[arg(long, value_delimiter = ',', default_values_t = [10_000, 1_000_000])]
    sizes: Vec<u64>,
    /// Questions of each kind at each size.
    #[arg(long, default_value_t = 300)]
    rounds: usize,
    /// What cargo says to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Subjects whose current status is asked for.
const SUBJECTS: i32 = 500;
/// Entries in the page that is asked for.
const PAGE: u64 = 100;
/// Concurrent appends while the ledger is filled.
const FILLERS: usize = 4000;
const KINDS: [&str; 5] = ["append", "inclusion", "consistency", "status", "page"];

fn main() -> Result<()> {
    support::block_on(run(Arguments::parse()))
}

async fn run(arguments: Arguments) -> Result<()> {
    ensure!(!arguments.sizes.is_empty() && arguments.sizes.is_sorted(), "sizes ascend");
    line(format!("growth: {}", support::machine()));
    let service = Service::start().await?;
    let measured = measure(&service, &arguments).await;
    service.stop().await?;
    measured
}

/// Appends until the ledger has `size` entries.
async fn fill(writer: &Writer, workspace: WorkspaceId, have: u64, size: u64) -> Result<()> {
    let wanted = size.saturating_sub(have);
    let mut tasks = tokio::task::JoinSet::new();
    for first in 0..FILLERS as u64 {
        let writer = writer.clone();
        tasks.spawn(async move {
            for n in (first..wanted).step_by(FILLERS) {
                writer.append(workspace, draft(n as usize)?).await?;
            }
            Ok::<_, anyhow::Error>(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

/// A sequence that looks random and is the same in every run (xorshift, 64 bits).
struct Places(u64);

impl Places {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end.max(1)
    }
}

async fn measure(service: &Service, arguments: &Arguments) -> Result<()> {
    let settings = Settings { data_dir: service.directory().to_owned(), ..Settings::default() };
    let attached = attach::attach(&settings).await?;
    let keys = KeyEncryption::load(&settings, "bench.localhost", &attached.database).await?;
    // Beside the node: what is appended here is sent by nobody, and there is no destination.
    let (outbox, _handoffs) = Outbox::new();
    let opened = Instance::open(&attached.database, keys, None, None, outbox).await?;
    let workspace = service.workspace("growth").await?;
    let base = format!("/v1/workspaces/{workspace}");
    subjects(service, &settings, workspace).await?;

    let mut times: BTreeMap<(usize, &str), Vec<Duration>> = BTreeMap::new();
    let mut filled = Vec::new();
    let mut places = Places(0x9E37_79B9_7F4A_7C15);
    for (at, size) in arguments.sizes.iter().copied().enumerate() {
        let have = entries(service, &base).await?;
        let started = Instant::now();
        fill(&opened.writer, workspace, have, size).await?;
        filled.push((size - have.min(size)) as f64 / started.elapsed().as_secs_f64());
        // What the server put off while the ledger was filled is done before the clock runs.
        settle(service, workspace, &settings).await?;
        // In turns, a first turn that is not counted: connections, statements and shared pages are warm.
        for round in 0..=arguments.rounds {
            let older = places.below(size - 1) + 1;
            let seq = places.below(size);
            let from = places.below(size - PAGE);
            for kind in KINDS {
                let started = Instant::now();
                match kind {
                    "append" => drop(opened.writer.append(workspace, draft(seq as usize)?).await?),
                    "inclusion" => {
                        let path = format!("{base}/proofs/inclusion?seq={seq}&size={size}");
                        expect(&service.get(&path).await?, "hashes")?;
                    }
                    "consistency" => {
                        let path = format!("{base}/proofs/consistency?from={older}&to={size}");
                        expect(&service.get(&path).await?, "hashes")?;
                    }
                    "status" => expect(&service.get(&format!("{base}/status?all=true")).await?, "subjects")?,
                    _ => {
                        let path = format!("{base}/entries?from={from}&limit={PAGE}");
                        expect(&service.get(&path).await?, "items")?;
                    }
                }
                if round > 0 {
                    times.entry((at, kind)).or_default().push(started.elapsed());
                }
            }
        }
    }
    let middle = |at: usize, kind: &str| percentile(&times[&(at, kind)], 0.5).as_secs_f64() * 1e3;
    let last = arguments.sizes.len() - 1;
    let mut head = vec![String::new()];
    head.extend(arguments.sizes.iter().map(|size| format!("{} entries", count(*size as f64))));
    head.push("last to first".into());
    let words = |kind: &str| match kind {
        "append" => "append, 1 client".to_owned(),
        "inclusion" | "consistency" => format!("{kind} proof"),
        "status" => format!("current status ({SUBJECTS} subjects)"),
        _ => format!("page of {PAGE} entries"),
    };
    let rows: Vec<Vec<String>> = KINDS
        .iter()
        .map(|kind| {
            let mut row = vec![words(kind)];
            row.extend((0..=last).map(|at| format!("{:.2} ms", middle(at, kind))));
            row.push(figure(middle(last, kind) / middle(0, kind)));
            row
        })
        .chain([{
            let mut row = vec!["filled, entries a second".to_owned()];
            row.extend(filled.iter().map(|rate| count(*rate)));
            row.push(String::new());
            row
        }])
        .collect();
    table(
        &format!(
            "p50 of {} each, in turns; embedded Postgres with its defaults (shared_buffers {})",
            arguments.rounds,
            shared_buffers(&settings).await?
        ),
        &head.iter().map(String::as_str).collect::<Vec<_>>(),
        &rows,
    );
    line("");
    for kind in KINDS {
        claim(&format!("growth.{kind}"), middle(last, kind) / middle(0, kind), "<=", 2.0);
    }
    Ok(())
}

/// An answer that lacks what it is asked for is no measurement.
fn expect(answer: &Json, member: &str) -> Result<()> {
    ensure!(answer[member].as_array().is_some_and(|items| !items.is_empty()), "the answer has no {member}");
    Ok(())
}

async fn entries(service: &Service, base: &str) -> Result<u64> {
    service.get(&format!("{base}/entries?limit=1")).await?["size"].as_u64().context("a page names the size")
}

/// A connection to the service's cluster in the service's own role, which sees `workspace`.
async fn connect(settings: &Settings, workspace: WorkspaceId) -> Result<sqlx::PgConnection> {
    let options = embedded::running(&attach::directory(settings)).context("the cluster runs")?;
    let mut connection = options(roles::SERVICE, attach::DATABASE).connect().await?;
    sqlx::query("SELECT set_config('sl.workspace', $1, false)")
        .bind(workspace.uuid().to_string())
        .execute(&mut connection)
        .await?;
    Ok(connection)
}

/// Subjects of a source, as a poll would have left them.
async fn subjects(service: &Service, settings: &Settings, workspace: WorkspaceId) -> Result<()> {
    let source = service.source(workspace).await?;
    let mut connection = connect(settings, workspace).await?;
    sqlx::query(
        "INSERT INTO subjects (workspace_id, source_id, kind, subject_key, app, description, state, state_since,
                               first_seen_at, last_seen_at, seq)
         SELECT $1, $2, 'version', 'version-' || n, 'com.example.app' || n % 50,
                jsonb_build_object('app', 'com.example.app' || n % 50, 'key', 'version-' || n, 'kind', 'version',
                                   'platform', 'IOS', 'version', '4.' || n),
                'IN_REVIEW', now(), now(), now(), 0
           FROM generate_series(1, $3) AS n",
    )
    .bind(workspace.uuid())
    .bind(source.uuid())
    .bind(SUBJECTS)
    .execute(&mut connection)
    .await?;
    Ok(connection.close().await?)
}

async fn settle(service: &Service, workspace: WorkspaceId, settings: &Settings) -> Result<()> {
    let mut connection = connect(settings, workspace).await?;
    // Some hundred megabytes were written: they are on disk once nothing is dirty; the checkpointer says when.
    let written = "SELECT buffers_checkpoint + buffers_clean FROM pg_stat_bgwriter";
    let mut before: i64 = -1;
    for _ in 0..20 {
        let now: i64 = sqlx::query_scalar(written).fetch_one(&mut connection).await?;
        if now == before {
            break;
        }
        before = now;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    connection.close().await?;
    service.get(&format!("/v1/workspaces/{workspace}/checkpoint")).await.map(drop)
}

async fn shared_buffers(settings: &Settings) -> Result<String> {
    let options = embedded::running(&attach::directory(settings)).context("the cluster runs")?;
    let mut connection = options(roles::SERVICE, attach::DATABASE).connect().await?;
    let setting = sqlx::query_scalar("SHOW shared_buffers").fetch_one(&mut connection).await?;
    connection.close().await?;
    Ok(setting)
}
