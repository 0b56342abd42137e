//! Releases that go on by themselves: each version line and each track with a release moves on after a
//! drawn time, through review, rejection and release, and begins anew. It never ends, and one seed always
//! gives the same course.

mod sale;
mod tracks;
mod versions;

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use serde::{Deserialize, Serialize};

use crate::churn::sale::{SaleLine, sale_lines};
use crate::churn::tracks::{TrackLine, track_lines};
use crate::churn::versions::{VersionLine, version_lines};
use crate::random::Random;
use crate::scenario::{Scenario, Step};

/// How releases go on.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Churn {
    /// Between which scenario seconds the time is drawn that a version or release stays as it is.
    pub dwell: [f64; 2],
    /// How probable it is that a review ends in a rejection, 0 to 1.
    #[serde(default = "rejection")]
    pub rejection: f64,
    /// How many versions and builds a line keeps; older ones are taken away, so that it can run for ever.
    #[serde(default = "keep")]
    pub keep: usize,
}

fn rejection() -> f64 {
    0.2
}

fn keep() -> usize {
    12
}

/// The course of all lines, as steps in the order of their times.
#[derive(Debug)]
pub(crate) struct Course {
    churn: Churn,
    random: Random,
    lines: Vec<Line>,
    due: BinaryHeap<Due>,
}

#[derive(Debug)]
enum Line {
    Versions(VersionLine),
    Track(TrackLine),
    Sale(SaleLine),
}

#[derive(Debug, PartialEq)]
struct Due {
    at: f64,
    line: usize,
}

impl Eq for Due {}

impl Ord for Due {
    /// The earliest is the greatest, since `BinaryHeap` gives the greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        other.at.total_cmp(&self.at).then(other.line.cmp(&self.line))
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Course {
    /// The course of the lines that a scenario begins with; each line's first step comes within one dwell,
    /// spread evenly, so that the first of them comes soon.
    pub(crate) fn new(scenario: &Scenario, churn: &Churn) -> Self {
        let random = Random::new(scenario.seed, "churn");
        let lines: Vec<_> = version_lines(scenario)
            .into_iter()
            .map(Line::Versions)
            .chain(track_lines(scenario).into_iter().map(Line::Track))
            .collect();
        let first = lines.len();
        let lines: Vec<_> =
            lines.into_iter().chain(sale_lines(scenario).into_iter().map(Line::Sale)).collect();
        // A line that has begun its cycle anew shows nobody a transition at once, so those on their way to
        // somewhere go first.
        let mut order: Vec<usize> = (0..lines.len()).collect();
        order.sort_by_key(|index| (*index >= first, lines[*index].idle()));
        // What is sold comes after all of those, which keep their share of the dwell to themselves.
        let share = churn.dwell[1] / first.max(1) as f64;
        let due = order
            .into_iter()
            .enumerate()
            .map(|(place, line)| Due { at: share * (place as f64 + 0.5), line })
            .collect();
        Self { churn: churn.clone(), random, lines, due }
    }

    /// When the next steps are due, in scenario seconds.
    pub(crate) fn next_at(&self) -> Option<f64> {
        self.due.peek().map(|due| due.at)
    }

    /// The next steps, all of one line and of one moment.
    pub(crate) fn advance(&mut self) -> Vec<Step> {
        let Some(due) = self.due.pop() else { return Vec::new() };
        let steps = match &mut self.lines[due.line] {
            Line::Versions(line) => line.advance(&mut self.random, &self.churn),
            Line::Track(line) => line.advance(&mut self.random, &self.churn),
            Line::Sale(line) => vec![line.advance(&mut self.random, &self.churn)],
        };
        let dwell = self.random.between(self.churn.dwell[0], self.churn.dwell[1]);
        self.due.push(Due { at: due.at + dwell, line: due.line });
        steps
    }
}

impl Line {
    fn idle(&self) -> bool {
        match self {
            Self::Versions(line) => line.upcoming.is_none(),
            Self::Track(line) => line.upcoming.is_none(),
            Self::Sale(_) => false,
        }
    }
}

/// The numbers of a version string; what is none counts as 0.
fn numbers(version: &str) -> [u32; 3] {
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    std::array::from_fn(|_| parts.next().unwrap_or(0))
}

fn bumped([major, minor, patch]: [u32; 3], random: &mut Random) -> [u32; 3] {
    if random.chance(0.3) { [major, minor + 1, 0] } else { [major, minor, patch + 1] }
}

fn dotted([major, minor, patch]: [u32; 3]) -> String {
    format!("{major}.{minor}.{patch}")
}

/// A resource id as Apple gives them to versions and builds.
pub(crate) fn uuid(random: &mut Random) -> String {
    let bytes = (u128::from(random.bits()) << 64 | u128::from(random.bits())).to_be_bytes();
    uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
}
