//! Poll: how soon a change behind a store key stands in the ledger, and what that costs.
//!
//!     cargo bench --bench poll [-- --keys N --factor F --hot-factor F --hours H]
//!     cargo bench --bench poll -- --only key [--factor F --baseline-factor F --hours H --settle-s S]
//!
//! Without more, 100,000 subjects behind 2,000 keys. `--only key` looks at one key with 10,000 subjects, whose limit is what
//! is short, beside a client that asks app by app (four minutes); `service` and `baseline` are its halves.
//!
//! Everything runs on this machine: the service is the real binary in a child process (`statusledger up`, with its
//! embedded Postgres), App Store Connect is the simulator in the bench's process, over HTTP. Time is scaled: the
//! simulator's clock and the hour of its limit run `factor` times as fast, and so do the service's intervals
//! (`polling.time_scale`). What the service computes does not run faster, so that what it takes counts `factor` times
//! in the times below. A change's time runs from the step that makes it to the timestamp of its entry.
#![allow(clippy::cast_precision_loss)]

mod changes;
mod fleet;
#[path = "../support/ground.rs"]
mod ground;
mod plain;
mod service;
#[path = "../support/mod.rs"]
mod support;
mod world;

use anyhow::{Context, Result};
use changes::{Span, Times, compare, make, plan};
use clap::Parser;
use plain::Plain;
use service::{Service, Used};
use statusledger::source::app_store::looks::minimum_requests;
use statusledger_simulator::{Options, RecordedRequest, Simulator};
use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};
use support::{claim, count, figure, line, percentile, table};
use world::{APPS, World};

#[derive(Parser)]
struct Arguments {
    /// Keys, of an app with some 50 subjects each.
    #[arg(long, default_value_t = 2000)]
    keys: usize,
    /// How many times as fast as ours the store's clock runs [default: what the machine allows, 75 at most; one key: 30].
    #[arg(long)]
    factor: Option<f64>,
    /// The same where what is hot is looked at behind many keys.
    #[arg(long, default_value_t = 12.0)]
    hot_factor: f64,
    /// The same for the baseline, which computes nothing worth the name.
    #[arg(long, default_value_t = 100.0)]
    baseline_factor: f64,
    /// Hours of the store's time from the first sweep to the end: what is settled changes in all of them but the last,
    /// so that all of its polls' hour has its share [default: 1.02; one key: 1.92].
    #[arg(long)]
    hours: Option<f64>,
    /// Seconds of ours from the first sweep until what is hot changes, used for the baseline, too: Postgres looks at its tables once a minute, whatever
    /// our clock says, and knows only then that the one of the subjects is no longer empty.
    #[arg(long, default_value_t = 70.0)]
    settle_s: f64,
    /// Another part: `key`, of which `service` and `baseline` are halves.
    #[arg(long)]
    only: Option<String>,
    /// What cargo says to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Arguments {
    /// For one key.
    fn factor(&self) -> f64 {
        self.factor.unwrap_or(30.0)
    }
}

/// Apple's limit, and what of it is ours.
const LIMIT: f64 = 3500.0;
/// Settled subjects that change.
const SETTLED_CHANGES: usize = 600;
/// An hour of the store's time.
const HOUR_S: f64 = 3600.0;

fn main() -> Result<()> {
    support::block_on(run(Arguments::parse()))
}

async fn run(arguments: Arguments) -> Result<()> {
    line(format!("poll: {}", support::machine()));
    if arguments.only.is_none() {
        return fleet::run(&arguments).await;
    }
    let world = World::of_one();
    let minimum = minimum_requests(&world.counts[0]);
    describe(&world, minimum, &arguments);
    let ours = match arguments.only.as_deref() {
        Some("baseline") => {
            tell(&baseline(&world, &arguments).await?, minimum);
            None
        }
        _ => Some(service(&world, minimum, &arguments).await?),
    };
    let Some(ours) = ours else { return Ok(()) };
    line("");
    claim("poll.key.hot_p99_s", seconds(&ours.times.hot, 0.99), "<=", 60.0);
    claim("poll.key.settled_p99_s", seconds(&ours.times.settled, 0.99), "<=", 3600.0);
    claim("poll.key.missed", (ours.times.missed_hot + ours.times.missed_settled) as f64, "<=", 0.0);
    claim("poll.key.budget_share", ours.share, "<=", 0.80);
    claim("poll.key.sweep_over_minimum", ours.sweep, "<=", 1.10);
    Ok(())
}

fn seconds(times: &[Duration], part: f64) -> f64 {
    percentile(times, part).as_secs_f64()
}

fn describe(world: &World, minimum: u64, arguments: &Arguments) {
    let mut rows: Vec<Vec<String>> = world
        .mix
        .iter()
        .map(|(kind, all, hot)| vec![(*kind).into(), count(*all as f64), hot.to_string()])
        .collect();
    let hot: usize = world.mix.iter().map(|(.., hot)| hot).sum();
    rows.push(vec!["all".into(), count(world.count as f64), hot.to_string()]);
    table(
        &format!("subjects behind one key: {APPS} apps, Apple's limit of {} requests an hour", count(LIMIT)),
        &["kind", "subjects", "of them in review, processing or rolling out"],
        &rows,
    );
    line(format!(
        "time: the store's clock runs {} times as fast (the baseline's {}); all times below are the store's",
        arguments.factor(),
        arguments.baseline_factor
    ));
    line(format!("the fewest requests that tell all of it once: {minimum}"));
}

struct Measured {
    times: Times,
    /// The largest share of the limit that was spent in any hour.
    share: f64,
    /// Requests of the first sweep, as many times the minimum.
    sweep: f64,
}

async fn simulator(world: &World, factor: f64) -> Result<Simulator> {
    let options = Options { speed: Some(factor), ..Options::default() };
    Ok(Simulator::start(world.scenario.clone(), options).await?)
}

async fn service(world: &World, minimum: u64, arguments: &Arguments) -> Result<Measured> {
    let factor = arguments.factor();
    let simulator = simulator(world, factor).await?;
    let mut service = Service::start(factor).await?;
    let measured = measure(world, minimum, arguments, &simulator, &mut service).await;
    drop(service.stop().await?);
    simulator.shutdown().await;
    measured
}

async fn measure(
    world: &World,
    minimum: u64,
    arguments: &Arguments,
    simulator: &Simulator,
    service: &mut Service,
) -> Result<Measured> {
    let factor = arguments.factor();
    let began = simulator.now();
    service.watch(simulator).await?;
    let tried = simulator.request_count();
    service.has_seen(world.count).await?;
    let first = simulator.requests();
    let first_s = simulator.now() - began;
    let (hours_s, settle) =
        (arguments.hours.unwrap_or(1.92) * HOUR_S, Duration::from_secs_f64(arguments.settle_s));
    let span = Span {
        hot: arguments.settle_s * factor..hours_s - 300.0,
        settled: (hours_s - HOUR_S).max(300.0),
        count: SETTLED_CHANGES,
    };
    let end = Instant::now() + Duration::from_secs_f64(hours_s / factor);
    let observed = async {
        let settle = tokio::time::sleep(settle);
        let baseline = match arguments.only.as_deref() {
            Some("service") => {
                settle.await;
                None
            }
            _ => Some(tokio::join!(baseline(world, arguments), settle).0?),
        };
        let before = (service.used()?, simulator.request_count(), simulator.now());
        tokio::time::sleep_until(end.into()).await;
        anyhow::Ok((baseline, before, (service.used()?, simulator.request_count(), simulator.now())))
    };
    let changes = make(simulator, plan(world, &span), factor);
    let (made, observed, mut samples) = tokio::join!(changes, observed, sample(simulator, end));
    let (made, (baseline, before, after)) = (made?, observed?);
    // The hour that the first sweep is in counts as well.
    samples.insert(0, (began, 0));
    let hours = (after.2 - before.2) / HOUR_S;
    let spent = (after.1 - before.1) as f64;
    let found = service.found(&[0]).await?;
    let times = compare(&made, &found, factor);

    let distinct = first.iter().map(|r| (&r.path, &r.query)).collect::<HashSet<_>>().len();
    table(
        "the first sweep, until every subject was recorded",
        &["", "requests", "times the minimum"],
        &[
            vec!["the minimum".into(), minimum.to_string(), "1".into()],
            vec!["different requests".into(), distinct.to_string(), ratio(distinct as u64, minimum)],
            vec![
                format!("all of them, in {} of the store's time", clock(first_s)),
                first.len().to_string(),
                ratio(first.len() as u64, minimum),
            ],
        ],
    );
    line(format!("of them {tried} until the source was made: each kind of read is tried with a new key"));
    let requests = simulator.requests();
    by_operation(&requests[requests.len().saturating_sub(spent as usize)..], hours);
    detection(&times, "ours");
    if let Some(baseline) = &baseline {
        tell(baseline, minimum);
    }
    kinds(&times);
    let share = largest_hour(&samples) / LIMIT;
    spending(minimum, spent / hours, hours, share);
    resources(before.0, after.0, hours);
    Ok(Measured { times, share, sweep: first.len() as f64 / minimum as f64 })
}

fn ratio(requests: u64, minimum: u64) -> String {
    format!("{:.2}", requests as f64 / minimum as f64)
}

fn clock(s: f64) -> String {
    format!("{:.0} min {:02.0} s", (s / 60.0).floor(), s % 60.0)
}

/// The requests so far at each time of the store's, until `end`.
async fn sample(simulator: &Simulator, end: Instant) -> Vec<(f64, u64)> {
    let mut samples = Vec::new();
    while Instant::now() < end {
        samples.push((simulator.now(), simulator.request_count()));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    samples
}

/// The most requests in any hour.
fn largest_hour(samples: &[(f64, u64)]) -> f64 {
    let mut from = 0;
    let mut most = 0;
    for (at, requests) in samples {
        while samples[from].0 < at - HOUR_S {
            from += 1;
        }
        most = most.max(requests - samples[from].1);
    }
    most as f64
}

fn by_operation(requests: &[RecordedRequest], hours: f64) {
    let mut counts: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for request in requests {
        let row = counts.entry(request.operation.unwrap_or(&request.path)).or_default();
        row.0 += 1;
        row.1 += u64::from(request.status != 200);
    }
    let rows: Vec<_> = counts
        .into_iter()
        .map(|(path, (all, failed))| vec![path.to_owned(), count(all as f64 / hours), failed.to_string()])
        .collect();
    table("requests an hour, by what was asked", &["", "an hour", "not answered with 200, in all"], &rows);
}

fn detection(times: &Times, whose: &str) {
    let row = |name: &str, times: &[Duration], missed: usize, limit: &str| {
        let cells = [0.5, 0.9, 0.99, 1.0].map(|part| format!("{} s", count(seconds(times, part))));
        let ends = [missed.to_string(), limit.to_owned()];
        [name.to_owned(), count(times.len() as f64)].into_iter().chain(cells).chain(ends).collect::<Vec<_>>()
    };
    table(
        &format!("from the change to when it was found out (ours: its entry), {whose}"),
        &["", "changes seen", "p50", "p90", "p99", "longest", "never seen", "to be kept"],
        &[
            row("in review, processing, rolling out", &times.hot, times.missed_hot, "60 s"),
            row("settled", &times.settled, times.missed_settled, "3,600 s"),
        ],
    );
}

fn kinds(times: &Times) {
    let sorted: BTreeMap<_, _> = times.kinds.iter().collect();
    let rows: Vec<_> = sorted
        .into_iter()
        .map(|(kind, times)| {
            let cells = [0.5, 0.99].map(|part| format!("{} s", count(seconds(times, part))));
            [(*kind).to_owned(), times.len().to_string()].into_iter().chain(cells).collect::<Vec<_>>()
        })
        .collect();
    table(
        "the settled ones by kind: what shares a list with something hot is seen as soon as that",
        &["", "changes seen", "p50", "p99"],
        &rows,
    );
}

fn spending(minimum: u64, an_hour: f64, hours: f64, share: f64) {
    table(
        "requests",
        &["", "an hour"],
        &[
            vec![format!("spent, over {:.0} min", hours * 60.0), count(an_hour)],
            vec!["most in any one hour".into(), count(share * LIMIT)],
            vec!["what a sweep an hour costs at least".into(), minimum.to_string()],
            vec!["what a sweep a minute would cost at least".into(), count(minimum as f64 * 60.0)],
            vec!["ours to spend (80 %)".into(), count(LIMIT * 0.8)],
            vec!["Apple's limit".into(), count(LIMIT)],
        ],
    );
}

fn resources(before: Used, after: Used, hours: f64) {
    let cell = |from: f64, to: f64| format!("{} s", figure((to - from) / hours));
    table(
        "what it takes",
        &["", "processor time an hour", "memory"],
        &[
            vec![
                "the service's process".into(),
                cell(before.service_s, after.service_s),
                format!("{:.0} MiB (peak)", after.service_mib),
            ],
            vec![
                "its Postgres".into(),
                cell(before.database_s, after.database_s),
                format!("{:.0} MiB", after.database_mib),
            ],
        ],
    );
}

/// What the plain client found, and how many requests a sweep of it takes.
struct Baseline {
    times: Times,
    requests: u64,
}

async fn baseline(world: &World, arguments: &Arguments) -> Result<Baseline> {
    let factor = arguments.baseline_factor;
    let simulator = simulator(world, factor).await?;
    // Changes for half an hour, then time for what a whole sweep of some 70 minutes finds last.
    let span = Span { hot: 0.0..HOUR_S / 2.0, settled: HOUR_S / 2.0, count: SETTLED_CHANGES };
    let until = Instant::now() + Duration::from_secs_f64(110.0 * 60.0 / factor);
    let client = Plain::new(&simulator, world, factor)?;
    let (made, swept) = tokio::join!(make(&simulator, plan(world, &span), factor), client.run(until));
    let (made, (found, requests)) = (made?, swept.context("the baseline fails")?);
    simulator.shutdown().await;
    Ok(Baseline { times: compare(&made, &found, factor), requests })
}

fn tell(baseline: &Baseline, minimum: u64) {
    let Baseline { times, requests } = baseline;
    detection(times, "the baseline: app by app, without includes, round and round");
    line(format!(
        "its sweep takes {requests} requests, {} times the minimum, and so {} at {} an hour",
        ratio(*requests, minimum),
        clock(*requests as f64 / (LIMIT * 0.8) * HOUR_S),
        count(LIMIT * 0.8)
    ));
}
