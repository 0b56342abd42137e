//! The scenario of the demo: two teams on both stores that release without end.

use std::collections::BTreeSet;

use crate::churn::{Churn, uuid};
use crate::random::Random;
use crate::scenario::{
    App, AppStoreTeam, Build, InAppPurchase, PlayAccount, PlayApp, Release, ReviewItem, ReviewSubmission,
    Scenario, Subscription, SubscriptionGroup, Version,
};

/// Scenario seconds a real second: a review that takes most of a day passes in seconds.
const SPEED: f64 = 3600.0;

/// For how many real seconds a version or release stays as it is, at [`SPEED`]: long enough that a poll
/// twice a second sees every state, short enough that someone likes to watch it.
const DWELL: [f64; 2] = [1.2, 2.4];

impl Scenario {
    /// Two teams, "Tidepool" and "Northwind Transit", each with an App Store Connect key and a Play account
    /// of its own. Their releases go through review, rejection and publication, about five transitions a
    /// real second at this scenario's own speed, for ever.
    ///
    /// Each Play account has one app, so that a sweep takes seven requests and four sweeps a second stay below
    /// the share of Google's 3,000 requests a minute that a client may spend.
    pub fn demo() -> Self {
        Self::demo_with(20_261_122)
    }

    /// The same with another course of events.
    pub fn demo_with(seed: u64) -> Self {
        let mut cast = Cast { random: Random::new(seed, "cast") };
        let tidepool = cast.team(
            "Tidepool",
            &[
                ("6450112001", "Tidepool", "com.tidepool.app"),
                ("6450112002", "Tidepool Notes", "com.tidepool.notes"),
            ],
            &[
                ("6450112001", "IOS", "4.2.0", "IN_REVIEW"),
                ("6450112001", "MAC_OS", "4.1.3", "WAITING_FOR_REVIEW"),
                ("6450112001", "VISION_OS", "1.3.0", "PREPARE_FOR_SUBMISSION"),
                ("6450112002", "IOS", "2.0.1", "PENDING_DEVELOPER_RELEASE"),
            ],
        );
        let northwind = cast.team(
            "Northwind Transit",
            &[
                ("1593300417", "Northwind Transit", "com.northwind.transit"),
                ("1593300418", "Northwind Driver", "com.northwind.driver"),
            ],
            &[
                ("1593300417", "IOS", "11.7.0", "WAITING_FOR_REVIEW"),
                ("1593300417", "TV_OS", "3.0.2", "IN_REVIEW"),
                ("1593300418", "IOS", "6.4.1", "REJECTED"),
            ],
        );
        let tidepool_play = play(
            "Tidepool",
            &[("com.tidepool.app", "Tidepool", &[])],
            &[
                ("com.tidepool.app", "production", "4.2.0", 402_000, "IN_REVIEW"),
                ("com.tidepool.app", "beta", "4.3.0", 403_001, "NOT_SENT_FOR_REVIEW"),
            ],
        );
        let northwind_play = play(
            "Northwind Transit",
            &[("com.northwind.transit", "Northwind Transit", &["field-test"])],
            &[
                ("com.northwind.transit", "production", "11.7.0", 1_170_000, "NOT_SENT_FOR_REVIEW"),
                ("com.northwind.transit", "field-test", "11.8.0", 1_180_002, "IN_REVIEW"),
                ("com.northwind.transit", "beta", "11.9.0", 1_190_000, "APPROVED_NOT_PUBLISHED"),
            ],
        );
        Self {
            seed,
            speed: Some(SPEED),
            app_store: vec![tidepool, northwind],
            google_play: vec![tidepool_play, northwind_play],
            churn: Some(Churn { dwell: DWELL.map(|seconds| seconds * SPEED), rejection: 0.2, keep: 12 }),
            ..Self::default()
        }
    }
}

/// Gives the demo's resources their ids.
struct Cast {
    random: Random,
}

impl Cast {
    /// A team whose every version line has a version on sale and one on its way, each with a build.
    fn team(
        &mut self,
        name: &str,
        apps: &[(&str, &str, &str)],
        lines: &[(&str, &str, &str, &str)],
    ) -> AppStoreTeam {
        let mut team = AppStoreTeam { name: name.to_owned(), hourly_limit: 3500, ..AppStoreTeam::default() };
        for (id, name, bundle_id) in apps {
            team.apps.push(App {
                id: (*id).to_owned(),
                name: (*name).to_owned(),
                bundle_id: (*bundle_id).to_owned(),
                sku: None,
                primary_locale: "en-US".to_owned(),
            });
        }
        for (number, (app, platform, upcoming, state)) in lines.iter().enumerate() {
            let live = before(upcoming);
            for (place, (version_string, state)) in
                [(live.as_str(), "READY_FOR_DISTRIBUTION"), (*upcoming, *state)].into_iter().enumerate()
            {
                let build = Build {
                    id: uuid(&mut self.random),
                    app: (*app).to_owned(),
                    platform: (*platform).to_owned(),
                    version: (100 * (number + 1) + place).to_string(),
                    pre_release_version: version_string.to_owned(),
                    processing_state: "VALID".to_owned(),
                    ..Build::default()
                };
                let id = uuid(&mut self.random);
                if matches!(state, "WAITING_FOR_REVIEW" | "IN_REVIEW" | "REJECTED") {
                    self.submit(&mut team, app, platform, &id, state);
                }
                team.versions.push(Version {
                    id,
                    app: (*app).to_owned(),
                    platform: (*platform).to_owned(),
                    version_string: version_string.to_owned(),
                    state: state.to_owned(),
                    release_type: "MANUAL".to_owned(),
                    build: Some(build.id.clone()),
                    ..Version::default()
                });
                team.builds.push(build);
            }
        }
        self.sell(&mut team);
        team
    }

    /// Hands a version in for review.
    fn submit(&mut self, team: &mut AppStoreTeam, app: &str, platform: &str, version: &str, state: &str) {
        let submission = uuid(&mut self.random);
        let rejected = state == "REJECTED";
        team.review_items.push(ReviewItem {
            id: uuid(&mut self.random),
            submission: submission.clone(),
            state: if rejected { "REJECTED" } else { "READY_FOR_REVIEW" }.to_owned(),
            version: Some(version.to_owned()),
            event: None,
        });
        team.review_submissions.push(ReviewSubmission {
            id: submission,
            app: app.to_owned(),
            platform: platform.to_owned(),
            state: if rejected { "UNRESOLVED_ISSUES" } else { state }.to_owned(),
            submitted: None,
            version: Some(version.to_owned()),
        });
    }

    /// Gives the first app of a team an in-app purchase and a subscription.
    fn sell(&mut self, team: &mut AppStoreTeam) {
        let Some(App { id: app, bundle_id, .. }) = team.apps.first() else { return };
        let group = uuid(&mut self.random);
        team.in_app_purchases.push(InAppPurchase {
            id: uuid(&mut self.random),
            app: app.clone(),
            name: "Supporter badge".to_owned(),
            product_id: format!("{bundle_id}.badge"),
            kind: "NON_CONSUMABLE".to_owned(),
            state: "WAITING_FOR_REVIEW".to_owned(),
        });
        team.subscriptions.push(Subscription {
            id: uuid(&mut self.random),
            group: group.clone(),
            name: "Plus, monthly".to_owned(),
            product_id: format!("{bundle_id}.plus.monthly"),
            state: "IN_REVIEW".to_owned(),
            period: "ONE_MONTH".to_owned(),
        });
        team.subscription_groups.push(SubscriptionGroup {
            id: group,
            app: app.clone(),
            reference_name: "Plus".to_owned(),
        });
    }
}

/// An account whose every track has a release that is out and one on its way.
fn play(name: &str, apps: &[(&str, &str, &[&str])], tracks: &[(&str, &str, &str, i32, &str)]) -> PlayAccount {
    let release = |package: &str, track: &str, name: &str, code: i32, state: &str| Release {
        package: package.to_owned(),
        track: track.to_owned(),
        name: name.to_owned(),
        version_codes: BTreeSet::from([code]),
        state: state.to_owned(),
        ..Release::default()
    };
    PlayAccount {
        name: name.to_owned(),
        minute_limit: 3000,
        token_seconds: 3599,
        apps: apps
            .iter()
            .map(|(package, display_name, tracks)| PlayApp {
                package: (*package).to_owned(),
                display_name: (*display_name).to_owned(),
                tracks: tracks.iter().map(|track| (*track).to_owned()).collect(),
            })
            .collect(),
        releases: tracks
            .iter()
            .flat_map(|(package, track, name, code, state)| {
                [
                    release(package, track, &before(name), code - 1, "PUBLISHED"),
                    release(package, track, name, *code, state),
                ]
            })
            .collect(),
    }
}

/// The version before this one.
fn before(version: &str) -> String {
    let mut parts: Vec<u32> = version.split('.').map(|part| part.parse().unwrap_or(0)).collect();
    for index in (0..parts.len()).rev() {
        if parts[index] > 0 {
            parts[index] -= 1;
            break;
        }
        parts[index] = 9;
    }
    parts.iter().map(u32::to_string).collect::<Vec<_>>().join(".")
}
