//! Deliver: from an inbound event's POST to a receiver that has checked it.
//!
//!     cargo bench --bench deliver [-- --rounds N --seconds S --backlog N --max-in-flight N --only PART]
//!
//! Everything runs on this machine: the service is the real binary in a child process (`statusledger up`, with its
//! embedded Postgres), the sender of events and the receivers share the bench's process, and both speak HTTP over
//! loopback. An event's time runs from just before its POST to the receiver's own check of it.
#![allow(clippy::cast_precision_loss)]

mod load;
mod receiver;
#[path = "../support/service.rs"]
mod service;
#[path = "../support/mod.rs"]
mod support;

use anyhow::{Context, Result};
use clap::Parser;
use futures_util::{StreamExt, TryStreamExt};
use load::{Load, PAYLOAD};
use receiver::{Hook, Manner, Receiver};
use service::Service;
use statusledger_verify::manifest::{KeyManifest, TrustedKeys};
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::{claim, count, figure, line, median, percentile, table};

#[derive(Clone, Parser)]
struct Arguments {
    /// Rounds of the throughput and of the backlog.
    #[arg(long, default_value_t = 2)]
    rounds: usize,
    /// Seconds that events are sent for, each time.
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Events of the backlog.
    #[arg(long, default_value_t = 10_000)]
    backlog: usize,
    /// Attempts at once to a destination, as a team sets it for throughput (the service's default is 1: in order).
    #[arg(long, default_value_t = 64)]
    max_in_flight: u32,
    /// Destinations of which a tenth hang.
    #[arg(long, default_value_t = 10_000)]
    destinations: usize,
    /// One part alone: `throughput`, `latency`, `drain`, `stranger`, `tenth`.
    #[arg(long)]
    only: Option<String>,
    /// What cargo says to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Events posted at once.
const CONCURRENT: usize = 50;
/// Events a second where latency is measured.
const RATE: f64 = 50.0;
/// Deliveries that wait at the destination that hangs.
const HANGING: usize = 2000;
/// How long that destination takes.
const HANG: Duration = Duration::from_secs(10);
/// How long events may take to come before the bench says that some are missing.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> Result<()> {
    support::block_on(run(Arguments::parse()))
}

async fn run(arguments: Arguments) -> Result<()> {
    line(format!("deliver: {}", support::machine()));
    let service = Service::start().await?;
    let measured = measure(&service, &arguments).await;
    let used = service.used();
    service.stop().await?;
    measured?;
    if let Some((_, peak)) = used {
        line(format!("the service's process peaked at {peak:.0} MiB"));
    }
    Ok(())
}

/// A line of events to one hook.
struct Lane {
    name: &'static str,
    load: Load,
    hook: Arc<Hook>,
}

struct Bench<'a> {
    service: &'a Service,
    receiver: Receiver,
    arguments: &'a Arguments,
}

impl Bench<'_> {
    async fn lane(&self, name: &'static str, label: &'static str, manner: Manner) -> Result<Lane> {
        let line = self.service.line(name, &self.receiver.url(name), self.arguments.max_in_flight).await?;
        let hook = self.receiver.expect(name, &line.secret, &line.destination, manner)?;
        let lane = Lane { name: label, load: Load::new(self.service, Arc::new(line)), hook };
        // Connections, caches, the lane's task.
        lane.load.closed(500, 16, PATIENCE).await?;
        lane.hook.reached(lane.load.posted(), PATIENCE).await?;
        Ok(lane)
    }

    fn wants(&self, part: &str) -> bool {
        self.arguments.only.as_deref().is_none_or(|only| only == part)
    }
}

async fn measure(service: &Service, arguments: &Arguments) -> Result<()> {
    let failed = |f: statusledger_verify::Failure| anyhow::anyhow!("{}: {}", f.check, f.detail);
    let manifest = KeyManifest::parse(&service.keys().await?).map_err(failed)?;
    let keys: Arc<TrustedKeys> = Arc::new(manifest.trust(&service.pin.parse()?).map_err(failed)?);
    let bench = Bench { service, receiver: Receiver::start().await?, arguments };
    line(format!(
        "payloads of {PAYLOAD} bytes; max_in_flight {} on every destination; figures of Svix's server 1.100 as published",
        arguments.max_in_flight
    ));
    let hmac = bench.lane("hmac", "receiver checks the HMAC", Manner::Hmac).await?;
    let receipt = bench.lane("receipt", "… and verifies the receipt", Manner::Receipt(keys)).await?;
    let mut claims: Vec<(&str, f64, &str, f64)> = Vec::new();
    // Before the load, in whose wake the database cleans up for minutes.
    if bench.wants("latency") {
        let (p50, p99) = latency([&hmac, &receipt]).await?;
        claims.push(("deliver.p50_ms", p50, "<=", 2.5));
        claims.push(("deliver.p99_ms", p99, "<=", 4.0));
    }
    if bench.wants("stranger") {
        claims.push(("deliver.stranger_ratio", stranger(&bench, &hmac).await?, "<=", 1.5));
    }
    if bench.wants("throughput") {
        claims.push(("deliver.events_per_s", throughput(&bench, [&hmac, &receipt]).await?, ">=", 5000.0));
    }
    if bench.wants("drain") {
        claims.push(("deliver.drain_per_s", drain(&bench, [&hmac, &receipt]).await?, ">=", 7500.0));
    }
    if bench.wants("tenth") {
        claims.push(("deliver.hanging_tenth_ratio", hanging_tenth(&bench, &hmac).await?, "<=", 1.5));
    }
    for lane in [&hmac, &receipt] {
        anyhow::ensure!(lane.hook.refused() == 0, "{} notifications did not verify", lane.hook.refused());
    }
    line("");
    for (name, measured, relation, target) in claims {
        claim(name, measured, relation, target);
    }
    Ok(())
}

/// Events a second from the first POST to the last arrival, 50 posted at once.
async fn throughput(bench: &Bench<'_>, lanes: [&Lane; 2]) -> Result<f64> {
    let mut rates = [Vec::new(), Vec::new()];
    let mut accepted = [Vec::new(), Vec::new()];
    let mut processor = [Vec::new(), Vec::new()];
    for _ in 0..bench.arguments.rounds.max(1) {
        for (i, lane) in lanes.iter().enumerate() {
            let before = bench.service.used();
            let started = Instant::now();
            let time = Duration::from_secs_f64(bench.arguments.seconds);
            let posted = lane.load.closed(usize::MAX, CONCURRENT, time).await?;
            accepted[i].push(posted as f64 / started.elapsed().as_secs_f64());
            let ended = lane.hook.reached(lane.load.posted(), PATIENCE).await?;
            rates[i].push(posted as f64 / (ended - started).as_secs_f64());
            if let (Some((before, _)), Some((after, _))) = (before, bench.service.used()) {
                processor[i].push((after - before) * 1e6 / posted as f64);
            }
        }
    }
    let mut rows: Vec<Vec<String>> = lanes
        .iter()
        .enumerate()
        .map(|(i, lane)| {
            vec![
                lane.name.to_owned(),
                count(median(&rates[i])),
                count(median(&accepted[i])),
                format!("{:.0} us", median(&processor[i])),
            ]
        })
        .collect();
    rows.push(vec!["Svix's server (HMAC)".into(), "950 to 1,030".into(), String::new(), String::new()]);
    table(
        &format!(
            "{CONCURRENT} events at once, {} rounds of {} s (medians)",
            bench.arguments.rounds, bench.arguments.seconds
        ),
        &["", "events/s end to end", "accepted/s", "service's processor time an event"],
        &rows,
    );
    Ok(median(&rates[0]))
}

/// Deliveries a second of a backlog: the receiver holds its answers until all events are in, then answers at once.
async fn drain(bench: &Bench<'_>, lanes: [&Lane; 2]) -> Result<f64> {
    /// The receiver's silence stays well within an attempt's deadline of 20 s.
    const FILL: Duration = Duration::from_secs(12);
    let mut rates = [Vec::new(), Vec::new()];
    let mut sizes = Vec::new();
    for _ in 0..bench.arguments.rounds.max(1) {
        for (i, lane) in lanes.iter().enumerate() {
            lane.hook.set_open(false);
            lane.load.closed(bench.arguments.backlog, CONCURRENT, FILL).await?;
            let waiting = lane.load.posted() - lane.hook.arrived();
            sizes.push(waiting as f64);
            let started = Instant::now();
            lane.hook.set_open(true);
            let ended = lane.hook.reached(lane.load.posted(), PATIENCE).await?;
            rates[i].push(waiting as f64 / (ended - started).as_secs_f64());
        }
    }
    let mut rows: Vec<Vec<String>> =
        lanes.iter().zip(&rates).map(|(lane, r)| vec![lane.name.to_owned(), count(median(r))]).collect();
    rows.push(vec!["Svix's server (HMAC)".into(), "2,496".into()]);
    table(
        &format!(
            "draining a backlog of {} deliveries, {} rounds (medians)",
            count(median(&sizes)),
            bench.arguments.rounds
        ),
        &["", "deliveries/s"],
        &rows,
    );
    Ok(median(&rates[0]))
}

/// From POST to arrival of `RATE` events a second for `time`.
async fn times(lane: &Lane, time: Duration) -> Result<Vec<Duration>> {
    Ok(timed(lane, time).await?.into_iter().map(|timed| timed.came).collect())
}

/// An event of those posted at a rate; times since it was due, but for `at`, which is since the first was.
struct Timed {
    at: Duration,
    answered: Duration,
    came: Duration,
}

async fn timed(lane: &Lane, time: Duration) -> Result<Vec<Timed>> {
    let posted = lane.load.open(RATE, time).await?;
    lane.hook.reached(lane.load.posted(), PATIENCE).await?;
    let first = posted.iter().map(|posted| posted.due).min().context("events")?;
    posted
        .into_iter()
        .map(|posted| {
            let came = lane.hook.arrival(posted.n).context("it has come")?;
            Ok(Timed {
                at: posted.due - first,
                answered: posted.answered - posted.due,
                came: came.saturating_duration_since(posted.due),
            })
        })
        .collect()
}

/// The slowest of them, and what of that was until the answer.
fn slowest(mut timed: Vec<Timed>) -> String {
    timed.sort_by_key(|timed| std::cmp::Reverse(timed.came));
    let some: Vec<String> = timed
        .iter()
        .take(8)
        .map(|t| format!("{:.1} ({:.1}) at {:.2} s", ms(t.came), ms(t.answered), t.at.as_secs_f64()))
        .collect();
    format!("the slowest, in ms, until they came (were answered): {}", some.join("; "))
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// A row of a table: within what time so much of `times` lies, for each of `parts`.
fn row<const N: usize>(name: &str, times: &[Duration], parts: [f64; N]) -> Vec<String> {
    let cells = parts.map(|part| format!("{:.2} ms", ms(percentile(times, part))));
    [name.to_owned()].into_iter().chain(cells).collect()
}

async fn latency(lanes: [&Lane; 2]) -> Result<(f64, f64)> {
    let mut all = [Vec::new(), Vec::new()];
    for _ in 0..4 {
        for (lane, all) in lanes.iter().zip(&mut all) {
            all.extend(times(lane, Duration::from_secs(3)).await?);
        }
    }
    let of = |i: usize, part| ms(percentile(&all[i], part));
    let parts = [0.5, 0.9, 0.99];
    table(
        &format!("{RATE} events/s, {} events each, in turns of 3 s", all[0].len()),
        &["", "p50", "p90", "p99"],
        &[
            row(lanes[0].name, &all[0], parts),
            row(lanes[1].name, &all[1], parts),
            vec!["Svix's server (HMAC)".into(), "2.8 ms".into(), String::new(), "4.3 to 6.3 ms".into()],
        ],
    );
    Ok((of(0, 0.5), of(0, 0.99)))
}

/// A destination's latency alone, and beside another with `HANGING` deliveries that takes `HANG` for each.
async fn stranger(bench: &Bench<'_>, lane: &Lane) -> Result<f64> {
    let time = Duration::from_secs(8);
    let alone = times(lane, time).await?;
    let line = Arc::new(
        bench.service.line("hang", &bench.receiver.url("hang"), bench.arguments.max_in_flight).await?,
    );
    let hook = bench.receiver.expect("hang", &line.secret, &line.destination, Manner::Slow(HANG))?;
    let load = Load::new(bench.service, Arc::clone(&line));
    load.closed(HANGING, CONCURRENT, PATIENCE).await?;
    hook.holds(bench.arguments.max_in_flight as usize, PATIENCE).await?;
    let beside = times(lane, time).await?;
    let waiting = load.posted() - hook.arrived();
    bench.service.disable(&line).await?;
    // What hangs is answered, so that the service can stop.
    hook.set_open(false);
    let ratio = ms(percentile(&beside, 0.99)) / ms(percentile(&alone, 0.99));
    table(
        &format!(
            "a stranger's {RATE} events/s beside a destination that takes {} s ({} deliveries waiting, {} at once)",
            HANG.as_secs(),
            count(waiting as f64),
            bench.arguments.max_in_flight
        ),
        &["", "p50", "p99"],
        &[
            row("alone", &alone, [0.5, 0.99]),
            row("beside it", &beside, [0.5, 0.99]),
            vec!["ratio".into(), String::new(), figure(ratio)],
            vec!["Svix's server beside it".into(), "18.4 s".into(), "over 18 s".into()],
        ],
    );
    Ok(ratio)
}

/// A destination's latency alone, and beside many others of which every tenth hangs with more behind what hangs.
async fn hanging_tenth(bench: &Bench<'_>, lane: &Lane) -> Result<f64> {
    /// Destinations of a workspace.
    const EACH: usize = 100;
    /// Events to each.
    const EVENTS: usize = 2;
    let time = Duration::from_secs(8);
    let alone = times(lane, time).await?;
    // Whom they are for is not looked at: what the secrets and ids are is of no account here.
    let nobody = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let quick = bench.receiver.expect("quick", nobody, "", Manner::Any)?;
    let never = bench.receiver.expect("never", nobody, "", Manner::Never(HANG))?;
    let urls: Vec<String> =
        (0..EACH).map(|n| bench.receiver.url(if n % 10 == 0 { "never" } else { "quick" })).collect();
    let workspaces = (bench.arguments.destinations / EACH).max(1);
    let started = Instant::now();
    // Four at a time: one waits for its commits.
    let make = |n: usize| bench.service.fan(format!("fan {n}"), &urls);
    let fans: Vec<_> = futures_util::stream::iter(0..workspaces).map(make).buffered(4).try_collect().await?;
    let made = started.elapsed();
    let started = Instant::now();
    for n in 0..EVENTS {
        for fan in &fans {
            bench.service.event(fan, format!("{n}")).await?;
        }
    }
    let hang = workspaces * EACH / 10;
    quick.reached(workspaces * EACH / 10 * 9 * EVENTS, PATIENCE).await?;
    never.holds(hang, PATIENCE).await?;
    let came = started.elapsed();
    // What thousands of deliveries in a burst leave to be written is not what hangs.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let timed = timed(lane, time).await?;
    let beside: Vec<Duration> = timed.iter().map(|timed| timed.came).collect();
    let waiting = never.waiting();
    never.set_open(false);
    let ratio = ms(percentile(&beside, 0.99)) / ms(percentile(&alone, 0.99));
    table(
        &format!(
            "a stranger's {RATE} events/s beside {} destinations in {workspaces} workspaces, of which {} hang for {} s \
             (made in {:.0} s; {} deliveries to the others in {:.0} s)",
            count((workspaces * EACH) as f64),
            count(waiting as f64),
            HANG.as_secs(),
            made.as_secs_f64(),
            count(quick.arrived() as f64),
            came.as_secs_f64(),
        ),
        &["", "p50", "p99"],
        &[
            row("alone", &alone, [0.5, 0.99]),
            row("beside them", &beside, [0.5, 0.99]),
            vec!["ratio".into(), String::new(), figure(ratio)],
        ],
    );
    line(slowest(timed));
    Ok(ratio)
}
