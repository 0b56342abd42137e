//! Many keys: 100,000 subjects behind 2,000 of them, on one node.
//!
//! What is settled is looked at for an hour and more of the stores' time, at a speed that fills the machine; what is hot for
//! minutes, at one that does not: there, what the service takes by itself counts as many times.

use crate::changes::{Span, Times, compare, make, plan};
use crate::ground::Ground;
use crate::service::{SETTLED_S, Service};
use crate::support::{claim, count, line, table};
use crate::world::World;
use crate::{Arguments, HOUR_S, detection, ratio, resources, seconds, simulator};
use anyhow::{Context, Result};
use futures_util::{StreamExt, TryStreamExt};
use serde_json::json;
use statusledger::audit::Act;
use statusledger::id::WorkspaceId;
use statusledger::ledger::Writer;
use statusledger::source::app_store::looks::minimum_requests;
use statusledger::source::{self, Kind, NewSource};
use statusledger::workspace;
use statusledger_simulator::Simulator;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Keys of a workspace.
const KEYS_EACH: usize = 20;
/// How long the first sweep may take.
const PATIENCE: Duration = Duration::from_secs(600);
/// Settled subjects that change.
const SETTLED_CHANGES: usize = 2000;
/// How long the service is left alone after the first sweep, which what is hot had to wait for.
const WARM: Duration = Duration::from_secs(3);
/// How many times as short intervals are at most.
const FASTEST: f64 = 75.0;
/// How much of a machine sweeps may take that come at their intervals: a first sweep is one that takes all of it.
const LOAD: f64 = 0.8;
/// What a change counts for that was never seen.
const NEVER: Duration = Duration::from_secs(86_400);
/// How long what is hot is looked at.
const HOT_FOR: Duration = Duration::from_secs(20);
/// How long the last of what is hot is waited for, in seconds of the stores' time.
const LAST_HOT_S: f64 = 75.0;

/// Measures, and prints the claims.
pub async fn run(arguments: &Arguments) -> Result<()> {
    let slow = arguments.hot_factor;
    let world = World::of_many(arguments.keys);
    let minimum: u64 = world.counts.iter().map(minimum_requests).sum();
    let hot = world.hot.iter().filter(|hot| **hot).count();
    line(format!(
        "{} subjects behind {} keys in {} workspaces; {} keys have something in review, processing or rolling out",
        count(world.count as f64),
        count(arguments.keys as f64),
        count(arguments.keys.div_ceil(KEYS_EACH) as f64),
        count(hot as f64)
    ));
    line(format!(
        "time: the service's intervals are {slow} times as short where hot changes are waited for; all times below are so many \
         times ours"
    ));
    let simulator = simulator(&world, arguments.factor.unwrap_or(FASTEST)).await?;
    let (directory, workspaces) = prepare(&world, &simulator).await?;
    let service = Service::start_in(directory, slow, workspaces).await?;
    let bench = Bench { world: &world, simulator: &simulator, minimum };
    let swept = bench.sweep(&service).await?;
    let fast = arguments.factor.unwrap_or_else(|| swept.factor());
    line(format!(
        "the first sweep took {:.0} s of ours: the intervals are {fast} times as short where settled changes are waited for",
        swept.took.as_secs_f64()
    ));
    // What is settled is asked beside what is hot, as on any other day.
    service.spread(slow).await?;
    let hot = bench.hot(&service, slow).await?;
    let service = service.again(fast).await?;
    service.spread(fast).await?;
    let settled = bench.settled(&service, arguments.hours.unwrap_or(1.02) * HOUR_S, fast, &swept).await;
    service.stop().await?;
    simulator.shutdown().await;
    let (settled, ratio) = settled?;
    let mut times = Times { hot: hot.hot, missed_hot: hot.missed_hot, ..settled };
    detection(&times, "ours");
    // What was never seen took as long as nothing that was.
    times.hot.extend(std::iter::repeat_n(NEVER, times.missed_hot));
    times.settled.extend(std::iter::repeat_n(NEVER, times.missed_settled));
    line("");
    claim("poll.hot_p99_s", seconds(&times.hot, 0.99), "<=", 60.0);
    claim("poll.settled_p99_s", seconds(&times.settled, 0.99), "<=", 3600.0);
    claim("poll.requests_ratio", ratio, "<=", 1.05);
    Ok(())
}

/// An instance with the keys in it, which serves nothing yet: over HTTP each would be tried first.
async fn prepare(world: &World, simulator: &Simulator) -> Result<(TempDir, Vec<WorkspaceId>)> {
    let ground = Ground::start().await?;
    let writer = &ground.opened.writer;
    let teams: Vec<&str> = world.scenario.app_store.iter().map(|team| team.name.as_str()).collect();
    let made = teams.chunks(KEYS_EACH).map(|teams| workspace_of(writer, simulator, teams));
    let workspaces = futures_util::stream::iter(made).buffered(8).try_collect().await?;
    Ok((ground.stop_keeping().await?, workspaces))
}

async fn workspace_of(writer: &Writer, simulator: &Simulator, teams: &[&str]) -> Result<WorkspaceId> {
    let (workspace, _) = workspace::create(writer, &Act::operator(), teams[0], None).await?;
    for team in teams {
        let key = simulator.app_store_key(team).context("the team has a key")?;
        let credentials = json!({
            "key_id": key.key_id, "issuer_id": key.issuer_id, "private_key": key.private_key_pem.as_str(),
        });
        let new = NewSource {
            kind: Kind::AppStore,
            name: (*team).to_owned(),
            settings: json!({ "base_url": simulator.app_store_base_url() }),
            secret: Some(credentials.to_string().into_bytes().into()),
            webhook_secret: None,
        };
        source::create(writer, &Act::operator(), workspace, new).await?;
    }
    Ok(workspace)
}

/// The first sweep.
struct Swept {
    /// How long it took, in our time.
    took: Duration,
    /// What it asked of keys behind which nothing is hot.
    requests: u64,
}

impl Swept {
    /// How many times as short this machine lets intervals be.
    fn factor(&self) -> f64 {
        (LOAD * SETTLED_S / self.took.as_secs_f64()).floor().clamp(1.0, FASTEST)
    }
}

struct Bench<'a> {
    world: &'a World,
    simulator: &'a Simulator,
    minimum: u64,
}

impl Bench<'_> {
    /// The first sweep of all keys, each of which is due at once.
    async fn sweep(&self, service: &Service) -> Result<Swept> {
        let started = Instant::now();
        service.has_subjects(self.world.count, PATIENCE).await?;
        Ok(Swept { took: started.elapsed(), requests: of_settled(self.world, self.simulator) })
    }

    /// An hour in which something of what is settled changes; with the requests of a sweep, as many times the minimum.
    async fn settled(
        &self,
        service: &Service,
        hours_s: f64,
        factor: f64,
        first: &Swept,
    ) -> Result<(Times, f64)> {
        let Self { world, simulator, minimum } = *self;
        let newest = service.sizes().await?;
        let asked = of_settled(world, simulator);
        let settled = (hours_s - HOUR_S).max(30.0);
        let span = Span { hot: 0.0..0.0, settled, count: SETTLED_CHANGES };
        let before = (service.used()?, simulator.request_count(), Instant::now());
        let end = Instant::now() + Duration::from_secs_f64(hours_s / factor);
        let made = make(simulator, plan(world, &span), factor).await?;
        tokio::time::sleep_until(end.into()).await;
        let after = (service.used()?, simulator.request_count(), Instant::now());
        let times = compare(&made, &service.found(&newest).await?, factor);

        let hours = (after.2 - before.2).as_secs_f64() * factor / HOUR_S;
        let of = world.counts.iter().zip(&world.hot).filter(|(_, hot)| !**hot);
        let least: u64 = of.map(|(counts, _)| minimum_requests(counts)).sum();
        let swept = first.requests as f64 / least as f64;
        // A sweep in each interval, of which up to a tenth is spread; beside it `recent_builds`, which tells again what is new.
        let since = (of_settled(world, simulator) - asked) as f64;
        let again = since / (least as f64 * hours * HOUR_S / SETTLED_S);
        let an_hour = (after.1 - before.1) as f64 / hours;
        table(
            "requests",
            &["", "requests", "times the minimum"],
            &[
                vec!["the fewest that tell all of it once".into(), count(minimum as f64), "1".into()],
                vec!["… of the keys with nothing hot".into(), count(least as f64), "1".into()],
                vec![
                    format!("their first sweep, in {:.0} s of ours", first.took.as_secs_f64()),
                    count(first.requests as f64),
                    format!("{swept:.2}"),
                ],
                vec![
                    format!("their sweeps after it, one in {:.0} min", SETTLED_S / 60.0),
                    count(since),
                    format!("{again:.2}"),
                ],
                vec!["all keys, an hour".into(), count(an_hour), ratio(an_hour as u64, minimum)],
            ],
        );
        resources(before.0, after.0, hours);
        Ok((times, swept))
    }

    /// What is hot, each changed once and more.
    async fn hot(&self, service: &Service, factor: f64) -> Result<Times> {
        let newest = service.sizes().await?;
        tokio::time::sleep(WARM).await;
        let until = HOT_FOR.as_secs_f64() * factor - LAST_HOT_S;
        let span = Span { hot: 0.0..until, settled: 0.0, count: 0 };
        let end = Instant::now() + HOT_FOR;
        let made = make(self.simulator, plan(self.world, &span), factor).await?;
        tokio::time::sleep_until(end.into()).await;
        Ok(compare(&made, &service.found(&newest).await?, factor))
    }
}

/// The requests so far by keys behind which nothing is hot.
fn of_settled(world: &World, simulator: &Simulator) -> u64 {
    let asked = simulator.requests_by_key();
    let teams = world.scenario.app_store.iter().zip(&world.hot).filter(|(_, hot)| !**hot);
    let keys = teams.filter_map(|(team, _)| simulator.app_store_key(&team.name));
    keys.filter_map(|key| asked.get(&key.key_id)).sum()
}
