//! Tracks of Google Play: from draft through review to publication.

use std::collections::BTreeSet;

use crate::churn::{Churn, bumped, dotted, numbers};
use crate::random::Random;
use crate::scenario::{Release, Scenario, Step};

/// The releases of one track.
#[derive(Debug)]
pub(super) struct TrackLine {
    pub(super) upcoming: Option<Release>,
    live: Option<Release>,
    newest: [u32; 3],
    newest_code: i32,
    package: String,
    track: String,
}

pub(super) fn track_lines(scenario: &Scenario) -> Vec<TrackLine> {
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

impl TrackLine {
    pub(super) fn advance(&mut self, random: &mut Random, churn: &Churn) -> Vec<Step> {
        let Some(mut release) = self.upcoming.take() else {
            self.newest = bumped(self.newest, random);
            self.newest_code += 1;
            let release = Release {
                package: self.package.clone(),
                track: self.track.clone(),
                name: dotted(self.newest),
                version_codes: BTreeSet::from([self.newest_code]),
                state: "NOT_SENT_FOR_REVIEW".to_owned(),
                ..Release::default()
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
