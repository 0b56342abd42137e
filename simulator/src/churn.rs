//! Releases that go on by themselves: each version line and each track with a release moves on after a
//! drawn time, through review, rejection and release, and begins anew. It never ends, and one seed always
//! gives the same course.

use std::cmp::Ordering;
use std::collections::{BTreeSet, BinaryHeap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::random::Random;
use crate::scenario::{Build, Release, Scenario, Step, Version};

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
}

/// The versions of one app on one platform.
#[derive(Debug)]
struct VersionLine {
    app: String,
    platform: String,
    /// What is on its way: its id (none while only the build is there), its state and its build.
    upcoming: Option<Upcoming>,
    live: Option<String>,
    newest: [u32; 3],
    newest_build: u64,
    kept: VecDeque<(String, Option<String>)>,
}

#[derive(Debug)]
struct Upcoming {
    version: Option<String>,
    state: String,
    build: Option<String>,
}

/// The releases of one track.
#[derive(Debug)]
struct TrackLine {
    upcoming: Option<Release>,
    live: Option<Release>,
    newest: [u32; 3],
    newest_code: i32,
    package: String,
    track: String,
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
        // A line that has begun its cycle anew shows nobody a transition at once, so those on their way to
        // somewhere go first.
        let mut order: Vec<usize> = (0..lines.len()).collect();
        order.sort_by_key(|index| lines[*index].idle());
        let share = churn.dwell[1] / lines.len().max(1) as f64;
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
        }
    }
}

fn version_lines(scenario: &Scenario) -> Vec<VersionLine> {
    let mut lines: Vec<VersionLine> = Vec::new();
    for team in &scenario.app_store {
        for version in &team.versions {
            let found =
                lines.iter().position(|line| line.app == version.app && line.platform == version.platform);
            let index = found.unwrap_or_else(|| {
                lines.push(VersionLine {
                    app: version.app.clone(),
                    platform: version.platform.clone(),
                    upcoming: None,
                    live: None,
                    newest: [0; 3],
                    newest_build: 0,
                    kept: VecDeque::new(),
                });
                lines.len() - 1
            });
            let line = &mut lines[index];
            line.newest = line.newest.max(numbers(&version.version_string));
            line.kept.push_back((version.id.clone(), version.build.clone()));
            match version.state.as_str() {
                "READY_FOR_DISTRIBUTION" => line.live = Some(version.id.clone()),
                "REPLACED_WITH_NEW_VERSION" | "DEVELOPER_REJECTED" => {}
                _ => {
                    line.upcoming = Some(Upcoming {
                        version: Some(version.id.clone()),
                        state: version.state.clone(),
                        build: version.build.clone(),
                    });
                }
            }
        }
        for build in &team.builds {
            for line in lines.iter_mut().filter(|line| line.app == build.app) {
                line.newest_build = line.newest_build.max(build.version.parse().unwrap_or(0));
            }
        }
    }
    lines
}

fn track_lines(scenario: &Scenario) -> Vec<TrackLine> {
    let mut lines: Vec<TrackLine> = Vec::new();
    for release in scenario.google_play.iter().flat_map(|account| &account.releases) {
        let found =
            lines.iter().position(|line| line.package == release.package && line.track == release.track);
        let index = found.unwrap_or_else(|| {
            lines.push(TrackLine {
                upcoming: None,
                live: None,
                newest: [0; 3],
                newest_code: 0,
                package: release.package.clone(),
                track: release.track.clone(),
            });
            lines.len() - 1
        });
        let line = &mut lines[index];
        line.newest = line.newest.max(numbers(&release.name));
        line.newest_code =
            line.newest_code.max(release.version_codes.iter().max().copied().unwrap_or_default());
        let place = if release.state == "PUBLISHED" { &mut line.live } else { &mut line.upcoming };
        *place = Some(release.clone());
    }
    lines
}

impl VersionLine {
    fn advance(&mut self, random: &mut Random, churn: &Churn) -> Vec<Step> {
        let Some(upcoming) = &mut self.upcoming else { return self.upload(random) };
        let Some(id) = upcoming.version.clone() else { return self.prepare(random) };
        let state = match upcoming.state.as_str() {
            "WAITING_FOR_REVIEW" => "IN_REVIEW",
            "IN_REVIEW" if random.chance(churn.rejection) => {
                if random.chance(0.5) {
                    "REJECTED"
                } else {
                    "METADATA_REJECTED"
                }
            }
            "IN_REVIEW" => "PENDING_DEVELOPER_RELEASE",
            "PENDING_DEVELOPER_RELEASE" => "PROCESSING_FOR_DISTRIBUTION",
            "PROCESSING_FOR_DISTRIBUTION" => "READY_FOR_DISTRIBUTION",
            _ => "WAITING_FOR_REVIEW",
        };
        upcoming.state = state.to_owned();
        let mut steps = vec![Step::VersionState { id: id.clone(), state: state.to_owned() }];
        if state == "READY_FOR_DISTRIBUTION" {
            if let Some(old) = self.live.replace(id) {
                let state = "REPLACED_WITH_NEW_VERSION".to_owned();
                steps.push(Step::VersionState { id: old, state });
            }
            self.upcoming = None;
            while self.kept.len() > churn.keep.max(2) {
                let Some((version, build)) = self.kept.pop_front() else { break };
                steps.push(Step::RemoveVersion { id: version });
                steps.extend(build.map(|id| Step::RemoveBuild { id }));
            }
        }
        steps
    }

    /// A new build is uploaded.
    fn upload(&mut self, random: &mut Random) -> Vec<Step> {
        self.newest = bumped(self.newest, random);
        self.newest_build += 1;
        let build = Build {
            id: uuid(random),
            app: self.app.clone(),
            platform: self.platform.clone(),
            version: self.newest_build.to_string(),
            pre_release_version: dotted(self.newest),
            processing_state: "PROCESSING".to_owned(),
            ..Build::default()
        };
        self.upcoming = Some(Upcoming { version: None, state: String::new(), build: Some(build.id.clone()) });
        vec![Step::AddBuild(build)]
    }

    /// The build is processed, and a version is prepared with it.
    fn prepare(&mut self, random: &mut Random) -> Vec<Step> {
        let build = self.upcoming.as_ref().and_then(|upcoming| upcoming.build.clone());
        let version = Version {
            id: uuid(random),
            app: self.app.clone(),
            platform: self.platform.clone(),
            version_string: dotted(self.newest),
            state: "PREPARE_FOR_SUBMISSION".to_owned(),
            release_type: "MANUAL".to_owned(),
            build: build.clone(),
            ..Version::default()
        };
        self.kept.push_back((version.id.clone(), build.clone()));
        self.upcoming = Some(Upcoming {
            version: Some(version.id.clone()),
            state: version.state.clone(),
            build: build.clone(),
        });
        let processed = build.map(|id| Step::BuildState {
            id,
            processing_state: Some("VALID".to_owned()),
            expired: None,
            internal_state: Some("IN_BETA_TESTING".to_owned()),
            external_state: Some("READY_FOR_BETA_SUBMISSION".to_owned()),
        });
        processed.into_iter().chain([Step::AddVersion(version)]).collect()
    }
}

impl TrackLine {
    fn advance(&mut self, random: &mut Random, churn: &Churn) -> Vec<Step> {
        let Some(mut release) = self.upcoming.take() else {
            self.newest = bumped(self.newest, random);
            self.newest_code += 1;
            let release = Release {
                package: self.package.clone(),
                track: self.track.clone(),
                name: dotted(self.newest),
                version_codes: BTreeSet::from([self.newest_code]),
                state: "NOT_SENT_FOR_REVIEW".to_owned(),
            };
            self.upcoming = Some(release.clone());
            return vec![Step::Release(release)];
        };
        let state = match release.state.as_str() {
            "IN_REVIEW" if random.chance(churn.rejection) => "NOT_APPROVED",
            "IN_REVIEW" if random.chance(0.5) => "APPROVED_NOT_PUBLISHED",
            "IN_REVIEW" | "APPROVED_NOT_PUBLISHED" => "PUBLISHED",
            "DRAFT" => "NOT_SENT_FOR_REVIEW",
            _ => "IN_REVIEW",
        };
        release.state = state.to_owned();
        let mut steps = vec![Step::Release(release.clone())];
        if state == "PUBLISHED" {
            if let Some(old) = self.live.replace(release) {
                steps.push(Step::RemoveRelease {
                    package: old.package,
                    track: old.track,
                    version_codes: old.version_codes,
                });
            }
        } else {
            self.upcoming = Some(release);
        }
        steps
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
