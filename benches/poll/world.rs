//! What stands behind the keys: 200 apps with 10,000 subjects behind one, or an app with 50 behind each of many. Few of them
//! are about to change.

use statusledger::source::app_store::looks::Counts;
use statusledger_simulator::scenario::{
    App, AppEvent, AppInfo, AppStoreTeam, Availability, BetaReview, Build, BuildUpload, InAppPurchase,
    PhasedRelease, ReviewItem, ReviewSubmission, Scenario, Subscription, SubscriptionGroup, Territory,
    Version,
};

/// The name of the one team in the scenario.
pub const TEAM: &str = "bench";
/// Apps of the one team.
pub const APPS: usize = 200;
/// Of so many apps of one each, as many are hot as of the one team's: a tenth.
const OF_MANY: usize = 720;
/// Territories of each app's availability.
pub const TERRITORIES: usize = 40;
/// When the oldest build was uploaded.
const FIRST_UPLOAD: time::OffsetDateTime = time::macros::datetime!(2026-01-05 10:20:30 UTC);
/// Apps in review: a version, its submission, the app's info.
const IN_REVIEW: std::ops::Range<usize> = 0..6;
/// Apps with a phased release that goes on.
const ROLLING_OUT: std::ops::Range<usize> = 6..11;
/// Apps with an upload in processing.
const UPLOADING: std::ops::Range<usize> = 11..14;
/// Apps with subscriptions in review; they are among those that have subscriptions, which every second app has.
const SELLING: [usize; 2] = [14, 16];
/// Apps whose newest build is in processing.
const PROCESSING: std::ops::Range<usize> = 20..32;
/// Apps whose newest build is in TestFlight's review.
const TESTING: std::ops::Range<usize> = 32..42;
/// Apps with an in-app purchase in review.
const PURCHASES: std::ops::Range<usize> = 42..62;
/// Apps with an event in review.
const EVENTS: std::ops::Range<usize> = 62..72;

/// Something with a status.
#[derive(Clone)]
pub struct Subject {
    /// Its kind, as entries name it.
    pub kind: &'static str,
    /// Its type, as steps of the simulator name it.
    pub resource: &'static str,
    pub id: String,
    /// The state that it begins with.
    pub state: &'static str,
    /// The states that it goes through, round and round; none where it rests.
    pub course: &'static [&'static str],
    /// Whether the course ends with its last state.
    pub ends: bool,
}

/// The states of a kind that is in the store's hands, and whether the last of them is the end.
fn course(kind: &str) -> (&'static [&'static str], bool) {
    match kind {
        "version" => (
            &["WAITING_FOR_REVIEW", "IN_REVIEW", "PENDING_APPLE_RELEASE", "PROCESSING_FOR_DISTRIBUTION"],
            false,
        ),
        "review_submission" => (&["WAITING_FOR_REVIEW", "IN_REVIEW", "COMPLETING"], false),
        "app_info" => (&["WAITING_FOR_REVIEW", "IN_REVIEW", "ACCEPTED", "PENDING_RELEASE"], false),
        "in_app_purchase" => (&["WAITING_FOR_REVIEW", "IN_REVIEW", "PROCESSING_CONTENT"], false),
        "subscription" => (&["WAITING_FOR_REVIEW", "IN_REVIEW", "PENDING_BINARY_APPROVAL"], false),
        "app_event" => (&["WAITING_FOR_REVIEW", "IN_REVIEW", "ACCEPTED"], false),
        "beta_external" => {
            (&["WAITING_FOR_BETA_REVIEW", "IN_BETA_REVIEW", "IN_EXPORT_COMPLIANCE_REVIEW"], false)
        }
        "beta_review" => (&["WAITING_FOR_REVIEW", "IN_REVIEW", "APPROVED"], true),
        "build" => (&["PROCESSING", "VALID"], true),
        "phased_release" => (&["ACTIVE", "COMPLETE"], true),
        "build_upload" => (&["PROCESSING", "COMPLETE"], true),
        _ => (&[], true),
    }
}

/// The state that something at rest is turned to.
pub fn turned(subject: &Subject) -> &'static str {
    match subject.kind {
        "version" => "DEVELOPER_REJECTED",
        "phased_release" => "INACTIVE",
        "build" => "INVALID",
        "build_upload" => "FAILED",
        "review_submission" => "UNRESOLVED_ISSUES",
        "review_item" => "REMOVED",
        "app_info" => "REPLACED_WITH_NEW_INFO",
        "app_event" => "PAST",
        _ => "REJECTED",
    }
}

/// The teams, and what of them has a status of its own to change.
pub struct World {
    pub scenario: Scenario,
    pub subjects: Vec<Subject>,
    /// All subjects, the beta states of builds and the apps included.
    pub count: usize,
    /// What there is behind each team's key.
    pub counts: Vec<Counts>,
    /// Whether each team's key has anything hot behind it.
    pub hot: Vec<bool>,
    /// How many there are of each kind, and how many of them are hot.
    pub mix: Vec<(&'static str, usize, usize)>,
}

struct Maker {
    team: AppStoreTeam,
    subjects: Vec<Subject>,
    /// After how many apps those that are hot come again.
    period: usize,
}

fn app_id(n: usize) -> String {
    format!("{}", 1_000_000_000 + n)
}

impl Maker {
    fn new(name: String, period: usize) -> Self {
        let team = AppStoreTeam { name, hourly_limit: 3500, ..AppStoreTeam::default() };
        Self { team, subjects: Vec::new(), period }
    }

    fn counts(&self) -> Counts {
        Counts {
            apps: self.team.apps.len() as u64,
            builds: self.team.builds.len() as u64,
            review_submissions: self.team.review_submissions.len() as u64,
            apps_with_subscriptions: self.team.subscription_groups.len() as u64,
        }
    }

    /// Notes a subject, hot or at rest; gives its state.
    fn subject(
        &mut self,
        kind: &'static str,
        resource: &'static str,
        id: &str,
        hot: bool,
        rest: &'static str,
    ) -> String {
        let (course, ends) = if hot { course(kind) } else { (&[][..], true) };
        let state = course.first().copied().unwrap_or(rest);
        self.subjects.push(Subject { kind, resource, id: id.to_owned(), state, course, ends });
        state.to_owned()
    }

    fn app(&mut self, n: usize) {
        let (app, slot) = (app_id(n), n % self.period);
        let bundle_id = format!("com.example.app{n}");
        self.team.apps.push(App {
            id: app.clone(),
            name: format!("App {n}"),
            bundle_id,
            primary_locale: "en-US".into(),
            ..App::default()
        });
        self.versions(n, &app);
        for i in 0..3 {
            let id = format!("s{n}-{i}");
            let hot = i == 2 && IN_REVIEW.contains(&slot);
            let state = self.subject("review_submission", "reviewSubmissions", &id, hot, "COMPLETE");
            let platform = "IOS".to_owned();
            self.team.review_submissions.push(ReviewSubmission {
                id: id.clone(),
                app: app.clone(),
                platform,
                state,
                ..ReviewSubmission::default()
            });
            let item = format!("i{n}-{i}");
            let rest = if hot { "READY_FOR_REVIEW" } else { "APPROVED" };
            let state = self.subject("review_item", "reviewSubmissionItems", &item, false, rest);
            let version = Some(format!("v{n}-{}", i + 3));
            self.team.review_items.push(ReviewItem { id: item, submission: id, state, version, event: None });
        }
        for i in 0..2 {
            let id = format!("n{n}-{i}");
            let hot = i == 1 && IN_REVIEW.contains(&slot);
            let state = self.subject("app_info", "appInfos", &id, hot, "READY_FOR_DISTRIBUTION");
            self.team.app_infos.push(AppInfo { id, app: app.clone(), state });
        }
        self.sales(n, &app);
    }

    fn versions(&mut self, n: usize, app: &str) {
        let slot = n % self.period;
        for i in 0..6 {
            let id = format!("v{n}-{i}");
            let hot = i == 5 && IN_REVIEW.contains(&slot);
            let live = i == if IN_REVIEW.contains(&slot) { 4 } else { 5 };
            let rest = if live { "READY_FOR_DISTRIBUTION" } else { "REPLACED_WITH_NEW_VERSION" };
            let state = self.subject("version", "appStoreVersions", &id, hot, rest);
            let phased_release = live.then(|| {
                let rolling = ROLLING_OUT.contains(&slot);
                let (id, resource) = (format!("{id}-phased"), "appStoreVersionPhasedReleases");
                let state = self.subject("phased_release", resource, &id, rolling, "COMPLETE");
                PhasedRelease { state, day: Some(if rolling { 3 } else { 7 }) }
            });
            self.team.versions.push(Version {
                id,
                app: app.to_owned(),
                platform: "IOS".into(),
                version_string: format!("1.{i}"),
                state,
                release_type: "MANUAL".into(),
                phased_release,
                ..Version::default()
            });
        }
    }

    /// The `i`th build of an app; the last one is the newest of all of its round.
    fn build(&mut self, n: usize, i: usize) {
        let (app, slot) = (app_id(n), n % self.period);
        let id = format!("b{n}-{i}");
        let newest = i == 5;
        let processing_state =
            self.subject("build", "builds", &id, newest && PROCESSING.contains(&slot), "VALID");
        let testing = newest && TESTING.contains(&slot);
        let external_state =
            testing.then(|| self.subject("beta_external", "buildBetaDetails", &id, true, ""));
        self.team.builds.push(Build {
            id: id.clone(),
            app: app.clone(),
            platform: "IOS".into(),
            version: format!("{}", i + 1),
            pre_release_version: format!("1.{i}"),
            processing_state,
            external_state,
            // Lists give the newest first, by this.
            uploaded: Some(FIRST_UPLOAD + time::Duration::minutes((i * APPS + n) as i64)),
            ..Build::default()
        });
        if i >= 4 {
            let state = self.subject("beta_review", "betaAppReviewSubmissions", &id, testing, "APPROVED");
            self.team.beta_reviews.push(BetaReview { build: id.clone(), state, submitted: None });
        }
        if i >= 2 {
            let upload = format!("u{n}-{i}");
            let hot = newest && UPLOADING.contains(&slot);
            let state = self.subject("build_upload", "buildUploads", &upload, hot, "COMPLETE");
            self.team.build_uploads.push(BuildUpload {
                id: upload,
                app,
                platform: "IOS".into(),
                version: format!("{}", i + 1),
                short_version: format!("1.{i}"),
                state,
                ..BuildUpload::default()
            });
        }
    }

    fn sales(&mut self, n: usize, app: &str) {
        let slot = n % self.period;
        for i in 0..4 {
            let id = format!("p{n}-{i}");
            let hot = i == 3 && PURCHASES.contains(&slot);
            let state = self.subject("in_app_purchase", "inAppPurchases", &id, hot, "APPROVED");
            self.team.in_app_purchases.push(InAppPurchase {
                product_id: format!("com.example.app{n}.p{i}"),
                name: format!("Pack {i}"),
                kind: "CONSUMABLE".into(),
                app: app.to_owned(),
                id,
                state,
            });
        }
        if n.is_multiple_of(2) {
            let group = format!("g{n}");
            let reference_name = "Plans".to_owned();
            self.team.subscription_groups.push(SubscriptionGroup {
                id: group.clone(),
                app: app.to_owned(),
                reference_name,
            });
            for i in 0..4 {
                let id = format!("r{n}-{i}");
                let hot = i >= 2 && SELLING.contains(&slot);
                let state = self.subject("subscription", "subscriptions", &id, hot, "APPROVED");
                self.team.subscriptions.push(Subscription {
                    product_id: format!("com.example.app{n}.s{i}"),
                    name: format!("Plan {i}"),
                    group: group.clone(),
                    period: "ONE_MONTH".into(),
                    id,
                    state,
                });
            }
        }
        for i in 0..3 {
            let id = format!("e{n}-{i}");
            let hot = i == 2 && EVENTS.contains(&slot);
            let state = self.subject("app_event", "appEvents", &id, hot, "PUBLISHED");
            let reference_name = format!("Event {i}");
            self.team.app_events.push(AppEvent {
                id,
                app: app.to_owned(),
                reference_name,
                state,
                publish_start: None,
            });
        }
        self.subject("availability", "appAvailabilities", app, false, "AVAILABLE");
        let territory = |t: usize| Territory {
            territory: format!("T{t:02}"),
            available: true,
            content_statuses: vec!["AVAILABLE".into()],
        };
        self.team.availabilities.push(Availability {
            app: app.to_owned(),
            in_new_territories: true,
            territories: (0..TERRITORIES).map(territory).collect(),
        });
    }
}

impl World {
    /// One team with 200 apps.
    pub fn of_one() -> Self {
        let mut maker = Maker::new(TEAM.into(), APPS);
        (0..APPS).for_each(|n| maker.app(n));
        // All apps' first builds, then their second ones, …: as teams make them, so that the newest of every app are
        // among the newest of all.
        (0..6).for_each(|i| (0..APPS).for_each(|n| maker.build(n, i)));
        Self::of(vec![maker])
    }

    /// So many teams with an app each.
    pub fn of_many(teams: usize) -> Self {
        let make = |n| {
            let mut maker = Maker::new(format!("{TEAM} {n}"), OF_MANY);
            maker.app(n);
            (0..6).for_each(|i| maker.build(n, i));
            maker
        };
        Self::of((0..teams).map(make).collect())
    }

    fn of(makers: Vec<Maker>) -> Self {
        let counts = makers.iter().map(Maker::counts).collect();
        let is_hot = |subject: &Subject| !subject.course.is_empty();
        let hot = makers.iter().map(|maker| maker.subjects.iter().any(is_hot)).collect();
        let (mut app_store, mut subjects) = (Vec::new(), Vec::new());
        for maker in makers {
            app_store.push(maker.team);
            subjects.extend(maker.subjects);
        }
        let apps = app_store.iter().map(|team| team.apps.len()).sum();
        let mut mix: Vec<(&'static str, usize, usize)> = vec![("app", apps, 0)];
        for subject in &subjects {
            let hot = usize::from(is_hot(subject));
            match mix.iter_mut().find(|(kind, ..)| *kind == subject.kind) {
                Some(row) => (row.1, row.2) = (row.1 + 1, row.2 + hot),
                None => mix.push((subject.kind, 1, hot)),
            }
        }
        // Every build has both beta states, which are in processing as long as it is.
        let of = |kind| mix.iter().find(|(known, ..)| *known == kind).map_or((0, 0), |row| (row.1, row.2));
        let ((builds, processing), (_, testing)) = (of("build"), of("beta_external"));
        mix.retain(|(kind, ..)| *kind != "beta_external");
        mix.push(("beta_internal", builds, processing));
        mix.push(("beta_external", builds, processing + testing));
        let count = mix.iter().map(|(_, all, _)| all).sum();
        let scenario = Scenario { seed: 7, app_store, ..Scenario::default() };
        Self { scenario, subjects, count, counts, hot, mix }
    }
}
