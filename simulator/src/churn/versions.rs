//! Version lines: from upload through review to release and its seven days.

use std::collections::VecDeque;

use crate::churn::{Churn, bumped, dotted, numbers, uuid};
use crate::random::Random;
use crate::scenario::{AppStoreTeam, Build, Item, ReviewItem, ReviewSubmission, Scenario, Step, Version};

/// The last day of a phased release.
const LAST_DAY: u8 = 7;

/// The versions of one app on one platform.
#[derive(Debug)]
pub(super) struct VersionLine {
    app: String,
    platform: String,
    /// What is on its way: its id (none while only the build is there), its state and its build.
    pub(super) upcoming: Option<Upcoming>,
    live: Option<String>,
    newest: [u32; 3],
    newest_build: u64,
    /// The day of the phased release of what is live.
    phased_day: Option<u8>,
    kept: VecDeque<Kept>,
}

/// What is taken away with an old version.
#[derive(Debug)]
struct Kept {
    version: String,
    build: Option<String>,
    submission: Option<String>,
}

#[derive(Debug)]
pub(super) struct Upcoming {
    version: Option<String>,
    state: String,
    build: Option<String>,
    /// Its submission for review and the submission's item, once it was handed in.
    submission: Option<(String, Option<String>)>,
}

pub(super) fn version_lines(scenario: &Scenario) -> Vec<VersionLine> {
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
                    phased_day: None,
                    kept: VecDeque::new(),
                });
                lines.len() - 1
            });
            let line = &mut lines[index];
            line.newest = line.newest.max(numbers(&version.version_string));
            let submission = submission_of(team, &version.id);
            line.kept.push_back(Kept {
                version: version.id.clone(),
                build: version.build.clone(),
                submission: submission.as_ref().map(|(id, _)| id.clone()),
            });
            match version.state.as_str() {
                "READY_FOR_DISTRIBUTION" => {
                    line.live = Some(version.id.clone());
                    line.phased_day = version.phased_release.as_ref().and_then(|phased| phased.day);
                }
                "REPLACED_WITH_NEW_VERSION" | "DEVELOPER_REJECTED" => {}
                _ => {
                    line.upcoming = Some(Upcoming {
                        version: Some(version.id.clone()),
                        state: version.state.clone(),
                        build: version.build.clone(),
                        submission,
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

/// The submission that a version is up for review in, and its item there.
fn submission_of(team: &AppStoreTeam, version: &str) -> Option<(String, Option<String>)> {
    let names = |named: &Option<String>| named.as_deref() == Some(version);
    let submission = team.review_submissions.iter().rev().find(|submission| names(&submission.version))?;
    let mut items = team.review_items.iter();
    let item = items.find(|item| item.submission == submission.id && names(&item.version));
    Some((submission.id.clone(), item.map(|item| item.id.clone())))
}

impl VersionLine {
    pub(super) fn advance(&mut self, random: &mut Random, churn: &Churn) -> Vec<Step> {
        let mut steps = self.roll_out();
        let Some(upcoming) = &mut self.upcoming else {
            steps.push(self.upload(random));
            return steps;
        };
        let Some(id) = upcoming.version.clone() else {
            steps.extend(self.prepare(random));
            return steps;
        };
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
        steps.push(Step::VersionState { id: id.clone(), state: state.to_owned() });
        steps.extend(upcoming.review(&id, &self.app, &self.platform, random));
        if let Some(kept) = self.kept.iter_mut().rev().find(|kept| kept.version == id) {
            kept.submission = upcoming.submission.as_ref().map(|(submission, _)| submission.clone());
        }
        if state == "READY_FOR_DISTRIBUTION" {
            if let (Some(old), Some(day)) = (&self.live, self.phased_day) {
                steps.push(phased(old, "COMPLETE", day));
            }
            self.phased_day = Some(1);
            steps.push(phased(&id, "ACTIVE", 1));
            if let Some(old) = self.live.replace(id) {
                let state = "REPLACED_WITH_NEW_VERSION".to_owned();
                steps.push(Step::VersionState { id: old, state });
            }
            self.upcoming = None;
            while self.kept.len() > churn.keep.max(2) {
                let Some(kept) = self.kept.pop_front() else { break };
                let submission = kept.submission;
                steps.extend(
                    submission.map(|id| Step::Remove { resource: "reviewSubmissions".to_owned(), id }),
                );
                steps.push(Step::RemoveVersion { id: kept.version });
                steps.extend(kept.build.map(|id| Step::RemoveBuild { id }));
            }
        }
        steps
    }

    /// A new build is uploaded.
    fn upload(&mut self, random: &mut Random) -> Step {
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
        self.upcoming = Some(Upcoming {
            version: None,
            state: String::new(),
            build: Some(build.id.clone()),
            submission: None,
        });
        Step::AddBuild(build)
    }

    /// The phased release of what is live goes on by a day, and ends with its seventh.
    fn roll_out(&mut self) -> Vec<Step> {
        let (Some(live), Some(day)) = (&self.live, self.phased_day) else { return Vec::new() };
        if day < LAST_DAY {
            self.phased_day = Some(day + 1);
            vec![Step::PhasedDay { id: live.clone(), day: day + 1 }]
        } else {
            self.phased_day = None;
            vec![phased(live, "COMPLETE", day)]
        }
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
        self.kept.push_back(Kept { version: version.id.clone(), build: build.clone(), submission: None });
        self.upcoming = Some(Upcoming {
            version: Some(version.id.clone()),
            state: version.state.clone(),
            build: build.clone(),
            submission: None,
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

impl Upcoming {
    /// What its new state means for its submission for review.
    fn review(&mut self, version: &str, app: &str, platform: &str, random: &mut Random) -> Vec<Step> {
        let (submission, item) = match self.state.as_str() {
            "WAITING_FOR_REVIEW" => ("WAITING_FOR_REVIEW", "READY_FOR_REVIEW"),
            "IN_REVIEW" => ("IN_REVIEW", "READY_FOR_REVIEW"),
            "REJECTED" | "METADATA_REJECTED" => ("UNRESOLVED_ISSUES", "REJECTED"),
            "PENDING_DEVELOPER_RELEASE" => ("COMPLETE", "APPROVED"),
            _ => return Vec::new(),
        };
        if let Some((id, item_id)) = &self.submission {
            let state = |resource: &str, id: &String, state: &str| Step::State {
                resource: resource.to_owned(),
                id: id.clone(),
                state: state.to_owned(),
            };
            let item = item_id.as_ref().map(|id| state(ReviewItem::KIND, id, item));
            return [state(ReviewSubmission::KIND, id, submission)].into_iter().chain(item).collect();
        }
        let (id, item_id) = (uuid(random), uuid(random));
        self.submission = Some((id.clone(), Some(item_id.clone())));
        vec![
            Step::AddReviewSubmission(ReviewSubmission {
                id: id.clone(),
                app: app.to_owned(),
                platform: platform.to_owned(),
                state: submission.to_owned(),
                submitted: None,
                version: Some(version.to_owned()),
            }),
            Step::AddReviewItem(ReviewItem {
                id: item_id,
                submission: id,
                state: item.to_owned(),
                version: Some(version.to_owned()),
                event: None,
            }),
        ]
    }
}

fn phased(version: &str, state: &str, day: u8) -> Step {
    Step::PhasedRelease { id: version.to_owned(), state: state.to_owned(), day: Some(day) }
}
