//! What happens behind the key, when, and when it was found out.

use crate::world::{Subject, World, turned};
use anyhow::Result;
use statusledger_simulator::{Simulator, Step};
use std::collections::HashMap;
use std::ops::Range;
use std::time::{Duration, Instant};
use time::OffsetDateTime;

/// Numbers that look random and are the same in every run (SplitMix64).
struct Draw(u64);

impl Draw {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to below 1.
    fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// A change to come.
pub struct Change {
    /// Seconds of the stores' time from the beginning.
    pub at: f64,
    pub step: Step,
    /// Whether the store was about to make it.
    pub hot: bool,
    /// What there is to find out.
    pub expects: Vec<Expected>,
}

/// What there is to find out of a change.
#[derive(Clone)]
pub struct Expected {
    pub kind: &'static str,
    pub id: String,
    /// The new state; none where it is a fact that changes.
    pub to: Option<&'static str>,
}

/// The times of the changes, in seconds of the stores' time.
pub struct Span {
    /// What is hot changes from here to there, again and again.
    pub hot: Range<f64>,
    /// What is settled changes from the beginning until then, each at most once.
    pub settled: f64,
    /// How many of the settled ones change.
    pub count: usize,
}

/// The least time between two changes of a subject.
const LEAST_GAP_S: f64 = 180.0;
/// The mean of what comes on top of it.
const MEAN_GAP_S: f64 = 360.0;

/// All changes, in their order.
pub fn plan(world: &World, span: &Span) -> Vec<Change> {
    let mut draw = Draw(0x5747);
    let mut changes = Vec::new();
    let (hot, mut settled): (Vec<&Subject>, Vec<&Subject>) =
        world.subjects.iter().partition(|subject| !subject.course.is_empty());
    // TestFlight's review of a build in it says what is so, whatever becomes of the build.
    settled.retain(|s| s.kind != "build" || !hot.iter().any(|h| h.kind == "beta_external" && h.id == s.id));
    for subject in hot {
        // The first within the span, however short it is.
        let within = (LEAST_GAP_S + MEAN_GAP_S).min((span.hot.end - span.hot.start).max(0.0));
        let mut at = span.hot.start + draw.unit() * within;
        for turn in 1.. {
            if at >= span.hot.end || (subject.ends && turn >= subject.course.len()) {
                break;
            }
            let to = subject.course[turn % subject.course.len()];
            changes.push(change(subject, at, to, true));
            at += LEAST_GAP_S - MEAN_GAP_S * (1.0 - draw.unit()).ln();
        }
    }
    for _ in 0..span.count.min(settled.len()) {
        let subject = settled.swap_remove((draw.bits() % settled.len() as u64) as usize);
        changes.push(change(subject, draw.unit() * span.settled, turned(subject), false));
    }
    changes.sort_by(|a, b| a.at.total_cmp(&b.at));
    changes
}

fn change(subject: &Subject, at: f64, to: &'static str, hot: bool) -> Change {
    let id = || subject.id.clone();
    let expected = |kind, to| Expected { kind, id: id(), to };
    let (step, expects) = match subject.kind {
        "availability" => {
            let step = Step::TerritoryAvailability {
                app: id(),
                territory: "T00".into(),
                available: Some(false),
                content_statuses: None,
            };
            (step, vec![expected("availability", None)])
        }
        // TestFlight's states follow from the build's.
        "build" => {
            let beta = if to == "VALID" { "READY_FOR_BETA_TESTING" } else { "PROCESSING_EXCEPTION" };
            let step = Step::State { resource: subject.resource.into(), id: id(), state: to.into() };
            let betas = ["beta_internal", "beta_external"].map(|kind| expected(kind, Some(beta)));
            (step, [expected("build", Some(to))].into_iter().chain(betas).collect())
        }
        kind => {
            let step = Step::State { resource: subject.resource.into(), id: id(), state: to.into() };
            (step, vec![expected(kind, Some(to))])
        }
    };
    Change { at, step, hot, expects }
}

/// A change that was made.
pub struct Made {
    pub at: OffsetDateTime,
    pub hot: bool,
    pub expects: Expected,
}

/// Makes the changes when they are due, `factor` of the stores' seconds in one of ours.
pub async fn make(simulator: &Simulator, changes: Vec<Change>, factor: f64) -> Result<Vec<Made>> {
    let begun = Instant::now();
    let mut made = Vec::new();
    for change in changes {
        let due = begun + Duration::from_secs_f64(change.at / factor);
        tokio::time::sleep_until(due.into()).await;
        let at = OffsetDateTime::now_utc();
        simulator.apply(change.step)?;
        made.extend(change.expects.into_iter().map(|expects| Made { at, hot: change.hot, expects }));
    }
    Ok(made)
}

/// What was found out, by kind and id: when, and the state.
pub type Found = HashMap<(String, String), Vec<(OffsetDateTime, String)>>;

/// How long it took to find changes out, in seconds of the stores' time.
#[derive(Default)]
pub struct Times {
    pub hot: Vec<Duration>,
    pub settled: Vec<Duration>,
    /// Of the settled ones, those by kind.
    pub kinds: HashMap<&'static str, Vec<Duration>>,
    /// Changes that were never seen: the next one came first, or the time was over.
    pub missed_hot: usize,
    pub missed_settled: usize,
}

/// Holds what was found out against what was made.
pub fn compare(made: &[Made], found: &Found, factor: f64) -> Times {
    let mut times = Times::default();
    let mut of: HashMap<(&str, &str), Vec<&Made>> = HashMap::new();
    for one in made {
        of.entry((one.expects.kind, &one.expects.id)).or_default().push(one);
    }
    for ((kind, id), all) in of {
        let found = found.get(&(kind.to_owned(), id.to_owned())).map_or(&[][..], Vec::as_slice);
        for (n, one) in all.iter().enumerate() {
            // A course has three states or more: before the change after the next, its state is this change's.
            let until = all.get(n + 2).map(|later| later.at);
            let seen = found.iter().find(|(at, to)| {
                *at >= one.at
                    && until.is_none_or(|until| *at < until)
                    && one.expects.to.is_none_or(|expected| expected == to)
            });
            match seen {
                Some((at, _)) => {
                    let time = Duration::try_from(*at - one.at).unwrap_or_default().mul_f64(factor);
                    if one.hot {
                        times.hot.push(time);
                    } else {
                        times.settled.push(time);
                        times.kinds.entry(one.expects.kind).or_default().push(time);
                    }
                }
                None if one.hot => times.missed_hot += 1,
                None => times.missed_settled += 1,
            }
        }
    }
    times
}
