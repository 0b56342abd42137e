//! What the stores hold now. Steps are the only way to change it.

use time::OffsetDateTime;

use crate::faults::FaultBoard;
use crate::scenario::{
    App, AppStoreTeam, Build, PhasedRelease, PlayAccount, PlayApp, Release, Scenario, ScenarioError, Step,
    Version,
};
use crate::values::{
    APP_VERSION_STATES, EXTERNAL_BETA_STATES, INTERNAL_BETA_STATES, PHASED_RELEASE_STATES, PROCESSING_STATES,
    WELL_KNOWN_TRACKS, known,
};

/// Both stores.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) teams: Vec<AppStoreTeam>,
    pub(crate) accounts: Vec<PlayAccount>,
    pub(crate) faults: FaultBoard,
    unknown_values: bool,
    transitions: u64,
}

impl World {
    /// The stores as a scenario begins, every part of it checked as a step would be.
    pub(crate) fn new(scenario: &Scenario) -> Result<Self, ScenarioError> {
        let mut world = Self {
            teams: Vec::new(),
            accounts: Vec::new(),
            faults: FaultBoard::default(),
            unknown_values: scenario.unknown_values,
            transitions: 0,
        };
        for team in &scenario.app_store {
            if world.teams.iter().any(|known| known.name == team.name) {
                return Err(duplicate("team", &team.name));
            }
            world.teams.push(AppStoreTeam {
                apps: Vec::new(),
                versions: Vec::new(),
                builds: Vec::new(),
                ..team.clone()
            });
            for app in &team.apps {
                world.add_app(&team.name, app.clone())?;
            }
            for build in &team.builds {
                world.add_build(build.clone())?;
            }
            for version in &team.versions {
                world.add_version(version.clone())?;
            }
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
                world.put_release(release.clone())?;
            }
        }
        Ok(world)
    }

    /// How many states of subjects have changed so far.
    pub(crate) fn transitions(&self) -> u64 {
        self.transitions
    }

    /// Applies one step; what is refused changes nothing.
    pub(crate) fn apply(&mut self, step: Step, now: f64) -> Result<(), ScenarioError> {
        match step {
            Step::AddApp { team, app } => self.add_app(&team, app),
            Step::RemoveApp { id } => self.remove_app(&id),
            Step::AddVersion(version) => self.add_version(version),
            Step::VersionState { id, state } => {
                self.check("version state", &state, APP_VERSION_STATES)?;
                let version = self.version_mut(&id)?;
                let changed = version.state != state;
                version.state = state;
                self.transitions += u64::from(changed);
                Ok(())
            }
            Step::VersionBuild { id, build } => {
                if let Some(build) = &build {
                    self.build_mut(build)?;
                }
                self.version_mut(&id)?.build = build;
                Ok(())
            }
            Step::PhasedRelease { id, state, day } => {
                self.check("phased release state", &state, PHASED_RELEASE_STATES)?;
                self.version_mut(&id)?.phased_release = Some(PhasedRelease { state, day });
                Ok(())
            }
            Step::RemoveVersion { id } => {
                self.version_mut(&id)?;
                self.teams.iter_mut().for_each(|team| team.versions.retain(|version| version.id != id));
                Ok(())
            }
            Step::AddBuild(build) => self.add_build(build),
            Step::BuildState { id, processing_state, expired, internal_state, external_state } => {
                self.build_state(&id, processing_state, expired, internal_state, external_state)
            }
            Step::RemoveBuild { id } => {
                self.build_mut(&id)?;
                for team in &mut self.teams {
                    team.builds.retain(|build| build.id != id);
                    for version in &mut team.versions {
                        version.build.take_if(|build| *build == id);
                    }
                }
                Ok(())
            }
            Step::AddPlayApp { account, app } => self.add_play_app(&account, app),
            Step::RemovePlayApp { package } => {
                let account = self.account_of(&package)?;
                account.apps.retain(|app| app.package != package);
                account.releases.retain(|release| release.package != package);
                Ok(())
            }
            Step::Release(release) => self.put_release(release),
            Step::RemoveRelease { package, track, version_codes } => {
                let account = self.account_of(&package)?;
                let before = account.releases.len();
                account.releases.retain(|release| {
                    release.package != package
                        || release.track != track
                        || release.version_codes != version_codes
                });
                if account.releases.len() == before {
                    return Err(missing("release", &format!("{package} {track} {version_codes:?}")));
                }
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

    fn add_app(&mut self, team: &str, app: App) -> Result<(), ScenarioError> {
        if self.teams.iter().any(|team| team.apps.iter().any(|known| known.id == app.id)) {
            return Err(duplicate("app", &app.id));
        }
        let found = self.teams.iter_mut().find(|known| known.name == team);
        found.ok_or_else(|| missing("team", team))?.apps.push(app);
        Ok(())
    }

    fn remove_app(&mut self, id: &str) -> Result<(), ScenarioError> {
        let team = self.team_of(id)?;
        team.apps.retain(|app| app.id != id);
        team.versions.retain(|version| version.app != id);
        team.builds.retain(|build| build.app != id);
        Ok(())
    }

    fn add_version(&mut self, mut version: Version) -> Result<(), ScenarioError> {
        if !self.unknown_values {
            version.check()?;
        }
        if self.version_mut(&version.id).is_ok() {
            return Err(duplicate("version", &version.id));
        }
        if let Some(build) = &version.build {
            self.build_mut(build)?;
        }
        version.created.get_or_insert_with(OffsetDateTime::now_utc);
        self.team_of(&version.app)?.versions.push(version);
        Ok(())
    }

    fn add_build(&mut self, mut build: Build) -> Result<(), ScenarioError> {
        if !self.unknown_values {
            build.check()?;
        }
        if self.build_mut(&build.id).is_ok() {
            return Err(duplicate("build", &build.id));
        }
        build.uploaded.get_or_insert_with(OffsetDateTime::now_utc);
        self.team_of(&build.app)?.builds.push(build);
        Ok(())
    }

    fn build_state(
        &mut self,
        id: &str,
        processing_state: Option<String>,
        expired: Option<bool>,
        internal_state: Option<String>,
        external_state: Option<String>,
    ) -> Result<(), ScenarioError> {
        for (kind, value, values) in [
            ("processing state", &processing_state, PROCESSING_STATES),
            ("internal beta state", &internal_state, INTERNAL_BETA_STATES),
            ("external beta state", &external_state, EXTERNAL_BETA_STATES),
        ] {
            if let Some(value) = value {
                self.check(kind, value, values)?;
            }
        }
        let build = self.build_mut(id)?;
        let before = (build.processing_state.clone(), build.expired);
        if let Some(state) = processing_state {
            build.processing_state = state;
        }
        if let Some(expired) = expired {
            build.expired = expired;
        }
        build.internal_state = internal_state.or(build.internal_state.take());
        build.external_state = external_state.or(build.external_state.take());
        let changed = before != (build.processing_state.clone(), build.expired);
        self.transitions += u64::from(changed);
        Ok(())
    }

    fn add_play_app(&mut self, account: &str, app: PlayApp) -> Result<(), ScenarioError> {
        if self.account_of(&app.package).is_ok() {
            return Err(duplicate("app", &app.package));
        }
        let found = self.accounts.iter_mut().find(|known| known.name == account);
        found.ok_or_else(|| missing("account", account))?.apps.push(app);
        Ok(())
    }

    fn put_release(&mut self, release: Release) -> Result<(), ScenarioError> {
        if !self.unknown_values {
            release.check()?;
        }
        let account = self.account_of(&release.package)?;
        if !account.apps.iter().any(|app| app.package == release.package && has_track(app, &release.track)) {
            return Err(missing("track", &release.track));
        }
        let known = account.releases.iter_mut().find(|known| {
            known.package == release.package
                && known.track == release.track
                && known.version_codes == release.version_codes
        });
        match known {
            Some(known) => {
                let changed = known.state != release.state;
                *known = release;
                self.transitions += u64::from(changed);
            }
            None => account.releases.push(release),
        }
        Ok(())
    }

    fn check(&self, kind: &'static str, value: &str, values: &[&str]) -> Result<(), ScenarioError> {
        if self.unknown_values { Ok(()) } else { known(kind, value, values) }
    }

    fn team_of(&mut self, app: &str) -> Result<&mut AppStoreTeam, ScenarioError> {
        let found = self.teams.iter_mut().find(|team| team.apps.iter().any(|known| known.id == app));
        found.ok_or_else(|| missing("app", app))
    }

    fn version_mut(&mut self, id: &str) -> Result<&mut Version, ScenarioError> {
        let mut versions = self.teams.iter_mut().flat_map(|team| &mut team.versions);
        versions.find(|version| version.id == id).ok_or_else(|| missing("version", id))
    }

    fn build_mut(&mut self, id: &str) -> Result<&mut Build, ScenarioError> {
        let mut builds = self.teams.iter_mut().flat_map(|team| &mut team.builds);
        builds.find(|build| build.id == id).ok_or_else(|| missing("build", id))
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
