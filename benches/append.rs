//! Append: what a durable entry costs, beside what Postgres does without a ledger.
//!
//!     cargo bench --bench append [-- --entries N --rounds N --callers N --workspaces N]
//!
//! All contenders use one server, the embedded one with its defaults, and take turns in every round, the order
//! reversed in each second one. Rows hold the same bytes: they are built by the service's own code, before the clock
//! starts, as are the drafts that are appended and the COPY streams that are sent. A checkpoint of the server
//! precedes each turn, so that nobody pays for what another left to write.
#![allow(clippy::cast_precision_loss)]

#[path = "support/entry.rs"]
mod entry;
#[path = "support/ground.rs"]
mod ground;
#[path = "append/rivals.rs"]
mod rivals;
mod support;

use anyhow::{Context, Result};
use clap::Parser;
use entry::draft;
use ground::Ground;
use rivals::Rivals;
use statusledger::audit::Act;
use statusledger::id::WorkspaceId;
use statusledger::ledger::{Draft, Writer};
use statusledger::workspace;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use support::{claim, count, figure, line, median, percentile, table};

#[derive(Parser)]
struct Arguments {
    /// Entries appended (and rows copied), over all rounds.
    #[arg(long, default_value_t = 500_000)]
    entries: usize,
    /// Rounds.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Concurrent callers of `append` on one ledger.
    #[arg(long, default_value_t = 4000)]
    callers: usize,
    /// Workspaces of the last table; 0 leaves it out.
    #[arg(long, default_value_t = 1000)]
    workspaces: usize,
    /// What cargo says to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Appends in flight for each of many workspaces.
const IN_FLIGHT: usize = 16;
/// Appends by each caller of many workspaces, a round.
const EACH: usize = 4;
/// Appends of one client, a round.
const ALONE: usize = 300;

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    support::block_on(run(arguments))
}

async fn run(arguments: Arguments) -> Result<()> {
    line(format!("append: {}", support::machine()));
    let ground = Ground::start().await?;
    let measured = measure(&ground, &arguments).await;
    ground.stop().await?;
    measured
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.2} ms", duration.as_secs_f64() * 1e3)
}

fn drafts(n: usize) -> Result<Vec<Draft>> {
    (0..n).map(draft).collect()
}

/// Appends `drafts` to one ledger by `callers` at once; returns entries per second.
async fn append_all(
    writer: &Writer,
    workspace: WorkspaceId,
    drafts: Vec<Draft>,
    callers: usize,
) -> Result<f64> {
    let total = drafts.len();
    let mut shares: Vec<Vec<Draft>> = (0..callers).map(|_| Vec::new()).collect();
    for (i, draft) in drafts.into_iter().enumerate() {
        shares[i % callers].push(draft);
    }
    let mut tasks = tokio::task::JoinSet::new();
    let started = Instant::now();
    for share in shares {
        let writer = writer.clone();
        tasks.spawn(async move {
            for draft in share {
                writer.append(workspace, draft).await?;
            }
            Ok::<_, statusledger::ledger::append::Error>(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(total as f64 / started.elapsed().as_secs_f64())
}

/// Rates by contender, one a round.
type Rates = BTreeMap<&'static str, Vec<f64>>;

const LOOP: &str = "INSERT of one row a commit, 1 connection";
const COPY: &str = "binary COPY of 5,000 rows a commit";
const BATCH: &str = "INSERT … unnest of 1,000 rows a commit, 1 connection";
const MANY: &str = "append, many callers";
const SOME: &str = "append, 64 callers";

async fn measure(ground: &Ground, arguments: &Arguments) -> Result<()> {
    let cluster = ground.attached.cluster.as_ref().context("the bench runs its own cluster")?;
    let mut rivals = Rivals::prepare(cluster, &ground.opened.writer).await?;
    let (workspace, _) = workspace::create(&ground.opened.writer, &Act::operator(), "bench", None).await?;
    let (rounds, share) = (arguments.rounds.max(1), arguments.entries / arguments.rounds.max(1));
    // Connections, statements and pages that every contender uses are warm before the first round.
    append_all(&ground.opened.writer, workspace, drafts(10_000)?, 1000).await?;
    rivals.warm_up().await?;

    let mut rates = Rates::new();
    let (mut appends, mut inserts) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let mut turns = [LOOP, COPY, BATCH, MANY, SOME];
        if round % 2 == 1 {
            turns.reverse();
        }
        for turn in turns {
            rivals.checkpoint().await?;
            let rate = match turn {
                LOOP => rivals.insert_loop(Duration::from_secs(1)).await?,
                COPY => rivals.copy(share).await?,
                BATCH => rivals.batches(share, 1000).await?,
                MANY => {
                    append_all(&ground.opened.writer, workspace, drafts(share)?, arguments.callers).await?
                }
                _ => append_all(&ground.opened.writer, workspace, drafts(share / 5)?, 64).await?,
            };
            rates.entry(turn).or_default().push(rate);
        }
        rivals.checkpoint().await?;
        // One client: an append, an INSERT, an append, an INSERT. In a task, as whoever calls it in the service is.
        let writer = ground.opened.writer.clone();
        let turns = tokio::spawn(async move {
            let mut took = Vec::with_capacity(ALONE);
            for draft in drafts(ALONE)? {
                let started = Instant::now();
                writer.append(workspace, draft).await?;
                took.push((started.elapsed(), rivals.insert_once().await?));
            }
            anyhow::Ok((rivals, took))
        });
        let took;
        (rivals, took) = turns.await??;
        for (append, insert) in took {
            appends.push(append);
            inserts.push(insert);
        }
    }

    let names = [LOOP, COPY, BATCH, MANY, SOME];
    let middle = |name: &str| median(&rates[name]);
    let beside = |of: &str, than: &str| {
        median(&rates[of].iter().zip(&rates[than]).map(|(a, b)| a / b).collect::<Vec<_>>())
    };
    let rows = names.map(|name| {
        let all = &rates[name];
        let (low, high) = all.iter().fold((f64::MAX, 0.0_f64), |(l, h), r| (l.min(*r), h.max(*r)));
        let label = if name == MANY { format!("append, {} callers", arguments.callers) } else { name.into() };
        let ratios = [figure(beside(name, COPY)), figure(beside(name, LOOP)), figure(beside(name, BATCH))];
        let cells = [label, count(middle(name)), format!("{} to {}", count(low), count(high))];
        cells.into_iter().chain(ratios).collect()
    });
    table(
        &format!(
            "one ledger, durable, rows of {} bytes, {rounds} rounds of {} (medians)",
            rivals.row_bytes(),
            count(share as f64)
        ),
        &["", "per second", "range", "of COPY", "of INSERT", "of unnest"],
        &rows,
    );
    let lat = |name: &str, values: &[Duration]| {
        let (p50, p99) = (percentile(values, 0.5), percentile(values, 0.99));
        vec![name.to_owned(), milliseconds(p50), milliseconds(p99)]
    };
    let latency_ratio = percentile(&appends, 0.5).as_secs_f64() / percentile(&inserts, 0.5).as_secs_f64();
    table(
        &format!("1 client, {} each, taking turns: from the call to the durable answer", appends.len()),
        &["", "p50", "p99"],
        &[
            lat("append", &appends),
            lat("INSERT of one row", &inserts),
            vec![
                "ratio".into(),
                figure(latency_ratio),
                figure(percentile(&appends, 0.99).as_secs_f64() / percentile(&inserts, 0.99).as_secs_f64()),
            ],
        ],
    );
    let (copy_ratio, insert_ratio) = (beside(MANY, COPY), beside(MANY, LOOP));
    let many = if arguments.workspaces > 0 {
        Some(many_workspaces(ground, &mut rivals, arguments.workspaces).await?)
    } else {
        None
    };
    line("");
    claim("append.copy_ratio", copy_ratio, ">=", 0.5);
    claim("append.insert_ratio", insert_ratio, ">=", 10.0);
    claim("append.latency_ratio", latency_ratio, "<=", 1.5);
    if let Some(many) = many {
        claim("append.many_workspaces", many, ">=", 60_000.0);
    }
    Ok(())
}

/// Many ledgers, each with a few appends in flight, beside transactions of as many rows without a ledger.
async fn many_workspaces(ground: &Ground, rivals: &mut Rivals, workspaces: usize) -> Result<f64> {
    const ROUNDS: usize = 3;
    let mut making = tokio::task::JoinSet::new();
    for first in 0..16 {
        let writer = ground.opened.writer.clone();
        making.spawn(async move {
            let mut made = Vec::new();
            for n in (first..workspaces).step_by(16) {
                made.push(workspace::create(&writer, &Act::operator(), &format!("many {n}"), None).await?.0);
            }
            Ok::<_, workspace::Error>(made)
        });
    }
    let mut ids = Vec::with_capacity(workspaces);
    while let Some(made) = making.join_next().await {
        ids.extend(made??);
    }
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let mut tasks = tokio::task::JoinSet::new();
        let each: Vec<Draft> = drafts(EACH)?;
        rivals.checkpoint().await?;
        let started = Instant::now();
        for id in &ids {
            for _ in 0..IN_FLIGHT {
                let (writer, id, each) = (ground.opened.writer.clone(), *id, each.clone());
                tasks.spawn(async move {
                    for draft in each {
                        writer.append(id, draft).await?;
                    }
                    Ok::<_, statusledger::ledger::append::Error>(())
                });
            }
        }
        while let Some(done) = tasks.join_next().await {
            done??;
        }
        let rate = (workspaces * IN_FLIGHT * EACH) as f64 / started.elapsed().as_secs_f64();
        rivals.checkpoint().await?;
        let bare = rivals.many_batches(workspaces, IN_FLIGHT, EACH).await?;
        // The first round fills the caches of heads and data keys: it is not counted.
        if round > 0 {
            with.push(rate);
            without.push(bare);
        }
    }
    let ratios: Vec<f64> = with.iter().zip(&without).map(|(a, b)| a / b).collect();
    table(
        &format!(
            "{} workspaces, {IN_FLIGHT} appends in flight each, {ROUNDS} rounds of {} (medians)",
            count(workspaces as f64),
            count((workspaces * IN_FLIGHT * EACH) as f64)
        ),
        &["", "per second"],
        &[
            vec!["append".into(), count(median(&with))],
            vec![
                format!("INSERT … unnest of {IN_FLIGHT} rows a commit, 16 connections, no ledger"),
                count(median(&without)),
            ],
            vec!["ratio (0.8 is asked for)".into(), figure(median(&ratios))],
        ],
    );
    Ok(median(&with))
}
