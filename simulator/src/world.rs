//! What the stores hold now. Steps are the only way to change it.

mod apps;
mod edits;
mod items;
mod webhooks;

use crate::faults::FaultBoard;
use crate::history::History;
use crate::scenario::{
    AppEvent, AppInfo, AppStoreTeam, Availability, BetaReview, Build, BuildUpload, Fact, InAppPurchase, Item,
    PingShape, PlayAccount, PlayApp, Release, ReviewItem, ReviewSubmission, Scenario, ScenarioError, Step,
    Subscription, SubscriptionGroup, Version, Webhook,
};
use crate::values::{WELL_KNOWN_TRACKS, known};
use crate::world::apps::Away;
pub(crate) use crate::world::edits::{Edit, EditRefused, Edits};
pub use crate::world::webhooks::WebhookDelivery;
pub(crate) use crate::world::webhooks::{Deliveries, Outgoing};

/// Both stores.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) teams: Vec<AppStoreTeam>,
    pub(crate) accounts: Vec<PlayAccount>,
    pub(crate) faults: FaultBoard,
    pub(crate) history: History,
    pub(crate) deliveries: Deliveries,
    pub(crate) edits: Edits,
    /// Apps that left a team, by the team that they left.
    away: Vec<Away>,
    unknown_values: bool,
    transitions: u64,
}

impl World {
    /// The stores as a scenario begins, every part of it checked as a step would be. `base` is the address
    /// that App Store Connect's links begin with.
    pub(crate) fn new(scenario: &Scenario, base: &str) -> Result<Self, ScenarioError> {
        let mut world = Self {
            teams: Vec::new(),
            accounts: Vec::new(),
            faults: FaultBoard::default(),
            history: History::default(),
            deliveries: Deliveries::new(base),
            edits: Edits::default(),
            away: Vec::new(),
            unknown_values: scenario.unknown_values,
            transitions: 0,
        };
        for team in &scenario.app_store {
            world.add_team(team)?;
        }
        for account in &scenario.google_play {
            if world.accounts.iter().any(|known| known.name == account.name) {
                return Err(duplicate("account", &account.name));
            }
            world.accounts.push(PlayAccount { apps: Vec::new(), releases: Vec::new(), ..account.clone() });
            for app in &account.apps {
                world.add_play_app(&account.name, app.clone())?;
            }
            for release in &account.releases {
                world.put_release(release.clone(), 0.0)?;
            }
        }
        Ok(world)
    }

    fn add_team(&mut self, team: &AppStoreTeam) -> Result<(), ScenarioError> {
        if self.teams.iter().any(|known| known.name == team.name) {
            return Err(duplicate("team", &team.name));
        }
        self.teams.push(AppStoreTeam {
            name: team.name.clone(),
            hourly_limit: team.hourly_limit,
            old_states: team.old_states,
            admin: team.admin,
            ..AppStoreTeam::default()
        });
        for app in &team.apps {
            self.add_app(&team.name, app.clone())?;
        }
        self.add_all::<Build>(team)?;
        self.add_all::<Version>(team)?;
        self.add_all::<BetaReview>(team)?;
        self.add_all::<BuildUpload>(team)?;
        self.add_all::<AppEvent>(team)?;
        self.add_all::<ReviewSubmission>(team)?;
        self.add_all::<ReviewItem>(team)?;
        self.add_all::<AppInfo>(team)?;
        self.add_all::<InAppPurchase>(team)?;
        self.add_all::<SubscriptionGroup>(team)?;
        self.add_all::<Subscription>(team)?;
        self.add_all::<Availability>(team)?;
        self.add_all::<Webhook>(team)
    }

    /// How many states of subjects have changed so far.
    pub(crate) fn transitions(&self) -> u64 {
        self.transitions
    }

    /// Applies one step; what is refused changes nothing.
    pub(crate) fn apply(&mut self, step: Step, now: f64) -> Result<(), ScenarioError> {
        match step {
            Step::AddApp { team, app } => self.add_app(&team, app),
            Step::RemoveApp { id } => self.remove_app(&id, now),
            Step::TransferApp { id, to } => self.transfer_app(&id, to.as_deref(), now),
            Step::ReturnApp { id } => self.return_app(&id, now),
            Step::AddVersion(version) => self.add(version, now),
            Step::AddBuild(build) => self.add(build, now),
            Step::AddBetaReview(review) => self.add(review, now),
            Step::AddBuildUpload(upload) => self.add(upload, now),
            Step::AddReviewSubmission(submission) => self.add(submission, now),
            Step::AddReviewItem(item) => self.add(item, now),
            Step::AddAppInfo(info) => self.add(info, now),
            Step::AddInAppPurchase(purchase) => self.add(purchase, now),
            Step::AddSubscriptionGroup(group) => self.add(group, now),
            Step::AddSubscription(subscription) => self.add(subscription, now),
            Step::AddAppEvent(event) => self.add(event, now),
            Step::AddAvailability(availability) => self.add(availability, now),
            Step::AddWebhook(webhook) => self.add(webhook, now),
            Step::State { resource, id, state } => self.set_state(&resource, &id, state, now),
            Step::VersionState { id, state } => self.set_state(Version::KIND, &id, state, now),
            Step::VersionBuild { id, build } => self.version_build(&id, build),
            Step::PhasedRelease { id, state, day } => self.phased_release(&id, Some(state), Some(day), now),
            Step::PhasedDay { id, day } => self.phased_release(&id, None, Some(Some(day)), now),
            Step::BuildState { id, processing_state, expired, internal_state, external_state } => {
                self.build_state(&id, processing_state, expired, internal_state, external_state, now)
            }
            Step::UploadState { id, state, errors, warnings, infos, build } => {
                self.upload_state(&id, state, [errors, warnings, infos], build, now)
            }
            Step::TerritoryAvailability { app, territory, available, content_statuses } => {
                self.territory(&app, &territory, available, content_statuses, now)
            }
            Step::RemoveVersion { id } => self.remove(Version::KIND, &id, now),
            Step::RemoveBuild { id } => self.remove(Build::KIND, &id, now),
            Step::Remove { resource, id } => self.remove(&resource, &id, now),
            Step::AddPlayApp { account, app } => self.add_play_app(&account, app),
            Step::RemovePlayApp { package } => self.remove_play_app(&package, now),
            Step::Release(release) => self.put_release(release, now),
            Step::RemoveRelease { package, track, version_codes } => {
                let account = self.account_of(&package)?;
                let place = account.releases.iter().position(|release| {
                    release.package == package
                        && release.track == track
                        && release.version_codes == version_codes
                });
                let missing = || missing("release", &format!("{package} {track} {version_codes:?}"));
                let gone = account.releases.remove(place.ok_or_else(missing)?);
                self.changed(now, gone.facts(), &[]);
                Ok(())
            }
            Step::WithholdWebhooks { withhold } => {
                self.deliveries.withhold = withhold;
                Ok(())
            }
            Step::PingWebhook { webhook, shape } => {
                self.ping(&webhook, shape)?;
                Ok(())
            }
            Step::Fault(fault) => {
                self.faults.begin(fault, now);
                Ok(())
            }
            Step::EndFault { name } => {
                self.faults.end(name.as_deref());
                Ok(())
            }
        }
    }

    /// Sends a ping to a webhook; gives the id of its delivery.
    pub(crate) fn ping(&mut self, webhook: &str, shape: PingShape) -> Result<String, ScenarioError> {
        let webhook = self.find::<Webhook>(webhook)?.1.clone();
        Ok(self.deliveries.ping(&webhook, shape))
    }

    /// Delivers an event again, by the id of a past delivery; gives the id of the new one.
    pub(crate) fn redeliver(&mut self, delivery: &str) -> Result<String, ScenarioError> {
        let found = self.deliveries.all().find(|known| known.id == delivery).cloned();
        let past = found.ok_or_else(|| missing("webhook delivery", delivery))?;
        let webhook = self.find::<Webhook>(&past.webhook)?.1.clone();
        Ok(self.deliveries.redeliver(&webhook, &past))
    }

    /// Remembers what has changed, and tells the webhooks.
    fn changed(&mut self, at: f64, before: Vec<Fact>, after: &[Fact]) {
        for change in self.history.record(at, before, after) {
            if change.from.is_some() && change.to.is_some() {
                self.deliveries.tell(&self.teams, &change);
            }
        }
    }

    fn add_play_app(&mut self, account: &str, app: PlayApp) -> Result<(), ScenarioError> {
        if self.account_of(&app.package).is_ok() {
            return Err(duplicate("app", &app.package));
        }
        let found = self.accounts.iter_mut().find(|known| known.name == account);
        found.ok_or_else(|| missing("account", account))?.apps.push(app);
        Ok(())
    }

    fn remove_play_app(&mut self, package: &str, now: f64) -> Result<(), ScenarioError> {
        let account = self.account_of(package)?;
        account.apps.retain(|app| app.package != package);
        let of_app = |release: &mut Release| release.package == package;
        let gone = account.releases.extract_if(.., of_app).flat_map(|release| release.facts()).collect();
        self.changed(now, gone, &[]);
        self.edits.forget(package);
        Ok(())
    }

    fn put_release(&mut self, release: Release, now: f64) -> Result<(), ScenarioError> {
        if !self.unknown_values {
            release.check()?;
        }
        release.check_numbers()?;
        let account = self.account_of(&release.package)?;
        if !account.apps.iter().any(|app| app.package == release.package && has_track(app, &release.track)) {
            return Err(missing("track", &release.track));
        }
        let after = release.facts();
        let known = account.releases.iter_mut().find(|known| {
            known.package == release.package
                && known.track == release.track
                && known.version_codes == release.version_codes
        });
        let (before, changed) = match known {
            Some(known) => {
                let (before, changed) = (known.facts(), known.state != release.state);
                *known = release;
                (before, changed)
            }
            None => {
                account.releases.push(release);
                (Vec::new(), false)
            }
        };
        self.transitions += u64::from(changed);
        self.changed(now, before, &after);
        Ok(())
    }

    fn check(&self, kind: &'static str, value: &str, values: &[&str]) -> Result<(), ScenarioError> {
        if self.unknown_values { Ok(()) } else { known(kind, value, values) }
    }

    fn account_of(&mut self, package: &str) -> Result<&mut PlayAccount, ScenarioError> {
        let found =
            self.accounts.iter_mut().find(|account| account.apps.iter().any(|app| app.package == package));
        found.ok_or_else(|| missing("app", package))
    }
}

/// Whether an app has a track of that name.
pub(crate) fn has_track(app: &PlayApp, track: &str) -> bool {
    WELL_KNOWN_TRACKS.contains(&track) || app.tracks.iter().any(|own| own == track)
}

fn missing(kind: &'static str, id: &str) -> ScenarioError {
    ScenarioError::Missing { kind, id: id.to_owned() }
}

fn duplicate(kind: &'static str, id: &str) -> ScenarioError {
    ScenarioError::Duplicate { kind, id: id.to_owned() }
}
