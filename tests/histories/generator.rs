//! Random stores, and what happens in them: every draw from one seed.

use std::collections::BTreeSet;

use statusledger_simulator::scenario::{
    App, AppEvent, AppInfo, AppStoreTeam, Availability, BetaReview, Build, BuildUpload, InAppPurchase,
    PhasedRelease, PlayAccount, PlayApp, Release, ReviewItem, ReviewSubmission, StateDetail, Subscription,
    SubscriptionGroup, Territory, Version, Webhook,
};
use statusledger_simulator::{Scenario, Step, values};

use super::oracle::Sight;
use super::served::Registry;

/// What webhooks are signed with.
pub const SECRET: &str = "a secret of the histories";

/// SplitMix64: the same seed is the same history with every version of every crate.
pub struct Random(pub u64);

impl Random {
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.bits() % end as u64) as usize
    }

    pub fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    fn value(&mut self, all: &[&str]) -> String {
        (*self.of(all)).to_owned()
    }
}

/// How the store's own webhooks come in a history.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Webhooks {
    None,
    /// As the simulator tells them, of which its list of deliveries knows.
    Listed,
    /// Made here, as late as can be: no list knows of them.
    Unlisted,
}

/// A store in the making, and what is known of it that no history of states has.
pub struct Generator {
    pub random: Random,
    pub registry: Registry,
    pub apple: bool,
    pub google: bool,
    pub webhooks: Webhooks,
    away: Vec<(bool, String)>,
    groups: Vec<(String, String)>,
    next: usize,
}

const TERRITORIES: [&str; 3] = ["DEU", "JPN", "USA"];
const TRACKS: [&str; 5] = ["production", "beta", "alpha", "internal", "qa"];

impl Generator {
    pub fn new(seed: u64) -> Self {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let stores = random.below(4);
        let webhooks = match random.below(4) {
            0 => Webhooks::Listed,
            1 => Webhooks::Unlisted,
            _ => Webhooks::None,
        };
        Self {
            random,
            registry: Registry::default(),
            apple: stores != 3,
            google: stores >= 2,
            webhooks,
            away: Vec::new(),
            groups: Vec::new(),
            next: 0,
        }
    }

    fn id(&mut self, what: &str) -> String {
        self.next += 1;
        format!("{what}{}", self.next)
    }

    fn of_app(&mut self, what: &str, app: &str) -> String {
        let id = self.id(what);
        self.registry.app_of.insert(id.clone(), app.to_owned());
        id
    }

    pub fn scenario(&mut self) -> Scenario {
        let mut scenario = Scenario { seed: self.random.bits(), ..Scenario::default() };
        if self.apple {
            let mut team =
                AppStoreTeam { name: "Acme".into(), hourly_limit: 3500, ..AppStoreTeam::default() };
            for _ in 0..1 + usize::from(self.random.percent(20)) {
                self.fill(&mut team);
            }
            scenario.app_store.push(team);
        }
        if self.google {
            let package = self.play_app();
            let mut releases = Vec::new();
            for _ in 0..1 + self.random.below(3) {
                releases.push(self.release(&package));
            }
            let apps = vec![PlayApp { tracks: vec!["qa".into()], display_name: "Acme".into(), package }];
            let account =
                PlayAccount { name: "acme".into(), apps, releases, minute_limit: 3000, token_seconds: 3599 };
            scenario.google_play.push(account);
        }
        scenario
    }

    fn play_app(&mut self) -> String {
        let package = format!("com.acme.{}", self.id("app"));
        self.registry.apps.insert((false, package.clone()));
        self.registry.tracks.insert(package.clone(), TRACKS.map(str::to_owned).to_vec());
        package
    }

    fn release(&mut self, package: &str) -> Release {
        self.next += 1;
        let code = self.next as i32;
        let mut version_codes = BTreeSet::from([code]);
        if self.random.percent(30) {
            version_codes.insert(code + 1000);
        }
        Release {
            package: package.to_owned(),
            track: self.random.value(&TRACKS),
            // Names repeat.
            name: format!("{}.0", self.random.below(2)),
            version_codes,
            state: self.random.value(&values::RELEASE_LIFECYCLE_STATES[1..]),
            ..Release::default()
        }
    }

    fn apple_app(&mut self) -> App {
        self.next += 1;
        let id = (1000 + self.next).to_string();
        self.registry.apps.insert((true, id.clone()));
        App {
            name: format!("App {id}"),
            bundle_id: format!("com.acme.i{id}"),
            id,
            sku: None,
            primary_locale: "en-US".into(),
        }
    }

    /// An app with some of all that an app can have.
    fn fill(&mut self, team: &mut AppStoreTeam) {
        let app = self.apple_app();
        let id = app.id.clone();
        team.apps.push(app);
        for _ in 0..self.random.below(3) {
            let build = self.build(&id);
            if self.random.percent(50) {
                team.beta_reviews.push(self.beta_review(&build.id));
            }
            team.builds.push(build);
        }
        for _ in 0..1 + self.random.below(2) {
            team.versions.push(self.version(&id));
        }
        for share in [40, 40, 40, 40, 40, 40, 40].into_iter().enumerate() {
            if !self.random.percent(share.1) {
                continue;
            }
            match share.0 {
                0 => team.build_uploads.push(self.upload(&id)),
                1 => {
                    let submission = self.submission(&id);
                    let version = team.versions.last().map(|v| v.id.clone());
                    team.review_items.push(self.item(&submission.id, &id, version));
                    team.review_submissions.push(submission);
                }
                2 => team.app_infos.push(self.info(&id)),
                3 => team.in_app_purchases.push(self.purchase(&id)),
                4 => {
                    let group = SubscriptionGroup {
                        id: self.id("g"),
                        app: id.clone(),
                        reference_name: "Plus".into(),
                    };
                    self.groups.push((group.id.clone(), id.clone()));
                    team.subscriptions.push(self.subscription(&group.id, &id));
                    team.subscription_groups.push(group);
                }
                5 => team.app_events.push(self.event(&id)),
                _ => team.availabilities.push(self.availability(&id)),
            }
        }
        if self.webhooks == Webhooks::Listed {
            team.webhooks.push(Webhook {
                id: format!("w{id}"),
                app: id,
                name: "status".into(),
                url: "http://127.0.0.1:9/".into(),
                secret: SECRET.into(),
                enabled: true,
                event_types: values::WEBHOOK_EVENT_TYPES.iter().map(|t| (*t).to_owned()).collect(),
                tells_old_upload_state: self.random.percent(50),
            });
        }
    }

    fn version(&mut self, app: &str) -> Version {
        let phased = self.random.percent(40);
        Version {
            id: self.of_app("v", app),
            app: app.to_owned(),
            platform: self.random.value(values::PLATFORMS),
            version_string: format!("{}.0", self.next),
            state: self.random.value(values::APP_VERSION_STATES),
            release_type: "MANUAL".into(),
            phased_release: phased.then(|| PhasedRelease {
                state: self.random.value(values::PHASED_RELEASE_STATES),
                day: Some(1),
            }),
            ..Version::default()
        }
    }

    fn build(&mut self, app: &str) -> Build {
        Build {
            id: self.of_app("b", app),
            app: app.to_owned(),
            platform: self.random.value(values::PLATFORMS),
            version: self.next.to_string(),
            pre_release_version: "1.0".into(),
            processing_state: self.random.value(values::PROCESSING_STATES),
            ..Build::default()
        }
    }

    fn beta_review(&mut self, build: &str) -> BetaReview {
        BetaReview {
            build: build.to_owned(),
            state: self.random.value(values::BETA_REVIEW_STATES),
            submitted: None,
        }
    }

    fn upload(&mut self, app: &str) -> BuildUpload {
        BuildUpload {
            id: self.of_app("u", app),
            app: app.to_owned(),
            platform: self.random.value(values::PLATFORMS),
            version: self.next.to_string(),
            short_version: "1.0".into(),
            state: self.random.value(values::UPLOAD_STATES),
            ..BuildUpload::default()
        }
    }

    fn submission(&mut self, app: &str) -> ReviewSubmission {
        ReviewSubmission {
            id: self.of_app("s", app),
            app: app.to_owned(),
            platform: self.random.value(values::PLATFORMS),
            state: self.random.value(values::REVIEW_SUBMISSION_STATES),
            ..ReviewSubmission::default()
        }
    }

    fn item(&mut self, submission: &str, app: &str, version: Option<String>) -> ReviewItem {
        let id = self.of_app("r", app);
        self.registry.parent.insert(id.clone(), submission.to_owned());
        let state = self.random.value(values::REVIEW_ITEM_STATES);
        ReviewItem { id, submission: submission.to_owned(), state, version, event: None }
    }

    fn info(&mut self, app: &str) -> AppInfo {
        AppInfo {
            id: self.of_app("i", app),
            app: app.to_owned(),
            state: self.random.value(values::APP_INFO_STATES),
        }
    }

    fn purchase(&mut self, app: &str) -> InAppPurchase {
        InAppPurchase {
            id: self.of_app("p", app),
            app: app.to_owned(),
            name: "Coins".into(),
            product_id: format!("coins{}", self.next),
            kind: "CONSUMABLE".into(),
            state: self.random.value(values::IN_APP_PURCHASE_STATES),
        }
    }

    fn subscription(&mut self, group: &str, app: &str) -> Subscription {
        Subscription {
            id: self.of_app("c", app),
            group: group.to_owned(),
            name: "Plus".into(),
            product_id: format!("plus{}", self.next),
            state: self.random.value(values::SUBSCRIPTION_STATES),
            period: "ONE_MONTH".into(),
        }
    }

    fn event(&mut self, app: &str) -> AppEvent {
        AppEvent {
            id: self.of_app("e", app),
            app: app.to_owned(),
            reference_name: "Fair".into(),
            state: self.random.value(values::APP_EVENT_STATES),
            publish_start: None,
        }
    }

    fn availability(&mut self, app: &str) -> Availability {
        let in_new_territories = self.random.percent(50);
        self.registry.in_new_territories.insert(app.to_owned(), in_new_territories);
        let territories = TERRITORIES[..1 + self.random.below(3)].iter().map(|territory| Territory {
            territory: (*territory).to_owned(),
            available: self.random.percent(70),
            content_statuses: vec!["AVAILABLE".into()],
        });
        Availability { app: app.to_owned(), in_new_territories, territories: territories.collect() }
    }

    /// What happens next. `truth` is everything that is there now; `before` gives the state of a subject before its
    /// last change.
    pub fn step(&mut self, truth: &[Sight], before: impl Fn(&Sight) -> Option<String>) -> Vec<Step> {
        let subjects: Vec<&Sight> = truth.iter().filter(|sight| sight.subject.0 != "app").collect();
        let draw = self.random.below(100);
        if draw < 72 && !subjects.is_empty() {
            let sight = *self.random.of(&subjects);
            let loops = before(sight).filter(|_| self.random.percent(40));
            return self.change(sight, loops);
        }
        if draw < 80 && !subjects.is_empty() {
            let sight = *self.random.of(&subjects);
            return self.remove(sight).into_iter().collect();
        }
        if draw < 87 {
            return self.app_moves();
        }
        self.add(truth)
    }

    fn change(&mut self, sight: &Sight, loops: Option<String>) -> Vec<Step> {
        let (kind, id) = (sight.subject.0, sight.subject.1.clone());
        let mut other = |values: &[&str]| match &loops {
            Some(state) if values.contains(&state.as_str()) => state.clone(),
            _ => {
                let others: Vec<&&str> = values.iter().filter(|value| **value != sight.state).collect();
                (**self.random.of(&others)).to_owned()
            }
        };
        let build = |processing_state, internal_state, external_state| Step::BuildState {
            id: id.clone(),
            processing_state,
            expired: None,
            internal_state,
            external_state,
        };
        let (resource, values) = match kind {
            "version" => ("appStoreVersions", values::APP_VERSION_STATES),
            "phased_release" => ("appStoreVersionPhasedReleases", values::PHASED_RELEASE_STATES),
            "beta_review" => ("betaAppReviewSubmissions", values::BETA_REVIEW_STATES),
            "review_submission" => ("reviewSubmissions", values::REVIEW_SUBMISSION_STATES),
            "review_item" => ("reviewSubmissionItems", values::REVIEW_ITEM_STATES),
            "app_info" => ("appInfos", values::APP_INFO_STATES),
            "in_app_purchase" => ("inAppPurchases", values::IN_APP_PURCHASE_STATES),
            "subscription" => ("subscriptions", values::SUBSCRIPTION_STATES),
            "app_event" => ("appEvents", values::APP_EVENT_STATES),
            "beta_internal" => return vec![build(None, Some(other(values::INTERNAL_BETA_STATES)), None)],
            "beta_external" => return vec![build(None, None, Some(other(values::EXTERNAL_BETA_STATES)))],
            "build" => {
                let state = other(values::PROCESSING_STATES);
                if self.random.percent(30) {
                    let expired = Some(!sight.facts["expired"].as_bool().unwrap());
                    return vec![Step::BuildState {
                        id,
                        processing_state: None,
                        expired,
                        internal_state: None,
                        external_state: None,
                    }];
                }
                return vec![build(Some(state), None, None)];
            }
            "build_upload" => {
                let state = other(values::UPLOAD_STATES);
                let errors = match self.random.below(3) {
                    0 => Vec::new(),
                    n => vec![(format!("9000{n}"), "It is wrong.".to_owned())],
                };
                self.registry.errors.insert(id.clone(), errors.clone());
                let errors = errors.into_iter().map(|(code, description)| StateDetail { code, description });
                return vec![Step::UploadState {
                    id,
                    state: Some(state),
                    errors: Some(errors.collect()),
                    warnings: None,
                    infos: None,
                    build: None,
                }];
            }
            "availability" => {
                let statuses =
                    self.random.percent(20).then(|| vec![self.random.value(values::CONTENT_STATUSES)]);
                return vec![Step::TerritoryAvailability {
                    app: id,
                    territory: self.random.value(&TERRITORIES),
                    available: Some(self.random.percent(50)),
                    content_statuses: statuses,
                }];
            }
            "release" => {
                let state = other(values::RELEASE_LIFECYCLE_STATES);
                let (package, track, codes) = release_of(&id);
                let name = format!("{}.0", self.random.below(2));
                let release =
                    Release { package, track, name, version_codes: codes, state, ..Release::default() };
                return vec![Step::Release(release)];
            }
            other => unreachable!("{other}"),
        };
        let state = other(values);
        let mut steps = vec![Step::State { resource: resource.into(), id: id.clone(), state }];
        if kind == "phased_release" && self.random.percent(50) {
            let day = 1 + self.random.below(7) as u8;
            steps.push(Step::PhasedDay { id: id.trim_end_matches("-phased").to_owned(), day });
        }
        steps
    }

    fn remove(&mut self, sight: &Sight) -> Option<Step> {
        let id = sight.subject.1.clone();
        let resource = match sight.subject.0 {
            "version" => "appStoreVersions",
            "phased_release" => "appStoreVersionPhasedReleases",
            "build" => "builds",
            "beta_review" => "betaAppReviewSubmissions",
            "build_upload" => "buildUploads",
            "review_submission" => "reviewSubmissions",
            "review_item" => "reviewSubmissionItems",
            "app_info" => "appInfos",
            "in_app_purchase" => "inAppPurchases",
            "subscription" => "subscriptions",
            "app_event" => "appEvents",
            "availability" => "appAvailabilities",
            "release" => {
                let (package, track, version_codes) = release_of(&id);
                return Some(Step::RemoveRelease { package, track, version_codes });
            }
            _ => return None,
        };
        Some(Step::Remove { resource: resource.into(), id })
    }

    /// An app leaves, comes back, or is new.
    fn app_moves(&mut self) -> Vec<Step> {
        if !self.away.is_empty() && self.random.percent(70) {
            let (apple, id) = self.away.swap_remove(0);
            self.registry.apps.insert((apple, id.clone()));
            if apple {
                return vec![Step::ReturnApp { id }];
            }
            let app = PlayApp { package: id.clone(), display_name: "Acme".into(), tracks: vec!["qa".into()] };
            let release = self.release(&id);
            return vec![Step::AddPlayApp { account: "acme".into(), app }, Step::Release(release)];
        }
        if self.registry.apps.is_empty() || self.random.percent(20) {
            if self.apple {
                return vec![Step::AddApp { team: "Acme".into(), app: self.apple_app() }];
            }
            let package = self.play_app();
            let app =
                PlayApp { package: package.clone(), display_name: "New".into(), tracks: vec!["qa".into()] };
            let release = self.release(&package);
            return vec![Step::AddPlayApp { account: "acme".into(), app }, Step::Release(release)];
        }
        let there: Vec<_> = self.registry.apps.iter().cloned().collect();
        let app = self.random.of(&there).clone();
        self.registry.apps.remove(&app);
        self.away.push(app.clone());
        let id = app.1;
        match (app.0, self.random.percent(50)) {
            (true, true) => vec![Step::TransferApp { id, to: None }],
            (true, false) => vec![Step::RemoveApp { id }],
            (false, _) => vec![Step::RemovePlayApp { package: id }],
        }
    }

    /// Something new of an app that is there.
    fn add(&mut self, truth: &[Sight]) -> Vec<Step> {
        let there: Vec<_> = self.registry.apps.iter().cloned().collect();
        if there.is_empty() {
            return Vec::new();
        }
        let (apple, id) = self.random.of(&there).clone();
        if !apple {
            return vec![Step::Release(self.release(&id))];
        }
        let of = |kind: &str| truth.iter().filter(|s| s.subject.0 == kind && s.app == id).collect::<Vec<_>>();
        let step = match self.random.below(11) {
            0 => Step::AddVersion(self.version(&id)),
            1 => Step::AddBuild(self.build(&id)),
            2 => Step::AddBuildUpload(self.upload(&id)),
            3 => Step::AddAppInfo(self.info(&id)),
            4 => Step::AddInAppPurchase(self.purchase(&id)),
            5 => Step::AddAppEvent(self.event(&id)),
            6 if of("availability").is_empty() => Step::AddAvailability(self.availability(&id)),
            7 => match self.groups.iter().find(|(_, app)| *app == id).cloned() {
                Some((group, app)) => Step::AddSubscription(self.subscription(&group, &app)),
                None => return Vec::new(),
            },
            8 => match of("build").first().filter(|_| of("beta_review").is_empty()) {
                Some(build) => Step::AddBetaReview(self.beta_review(&build.subject.1)),
                None => return Vec::new(),
            },
            9 => match of("version").first() {
                Some(version) => Step::PhasedRelease {
                    id: version.subject.1.clone(),
                    state: self.random.value(values::PHASED_RELEASE_STATES),
                    day: Some(1),
                },
                None => return Vec::new(),
            },
            10 => {
                let submission = self.submission(&id);
                let version = of("version").first().map(|version| version.subject.1.clone());
                let item = self.item(&submission.id, &id, version);
                return vec![Step::AddReviewSubmission(submission), Step::AddReviewItem(item)];
            }
            _ => return Vec::new(),
        };
        vec![step]
    }
}

fn release_of(id: &str) -> (String, String, BTreeSet<i32>) {
    let parts: Vec<&str> = id.split('/').collect();
    let codes = parts[2].split('+').map(|code| code.parse().unwrap()).collect();
    (parts[0].to_owned(), parts[1].to_owned(), codes)
}
