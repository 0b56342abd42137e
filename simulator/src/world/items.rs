//! Steps on the resources of App Store Connect.

use time::OffsetDateTime;

use crate::scenario::{
    AppEvent, AppInfo, AppStoreTeam, Availability, BetaReview, Build, BuildUpload, InAppPurchase, Item,
    PhasedRelease, ReviewItem, ReviewSubmission, ScenarioError, StateDetail, Subscription, SubscriptionGroup,
    Territory, Version, Webhook,
};
use crate::values::{
    APP_STORE_STATES, CONTENT_STATUSES, EXTERNAL_BETA_STATES, INTERNAL_BETA_STATES, PHASED_RELEASE_STATES,
    PROCESSING_STATES, UPLOAD_STATES,
};
use crate::world::{World, duplicate, missing};

impl World {
    /// Adds all resources of a type that a team begins with.
    pub(super) fn add_all<T: Item>(&mut self, team: &AppStoreTeam) -> Result<(), ScenarioError> {
        T::list(team).iter().try_for_each(|item| self.add(item.clone(), 0.0))
    }

    /// Adds a resource to the team that it belongs to.
    pub(super) fn add<T: Item>(&mut self, mut item: T, at: f64) -> Result<(), ScenarioError> {
        if !self.unknown_values {
            item.check()?;
        }
        if self.find::<T>(item.id()).is_ok() {
            return Err(duplicate(T::KIND, item.id()));
        }
        let found = self.teams.iter().position(|team| item.hangs_in(team));
        let team = found.ok_or_else(|| missing(T::PARENT, item.parent()))?;
        if let Some((kind, values, state)) = item.state_mut() {
            self.check(kind, state, self.states_in::<T>(team, state, values))?;
        }
        for (kind, known, id) in item.refers_to(&self.teams[team]) {
            if !known {
                return Err(missing(kind, &id));
            }
        }
        item.appear(OffsetDateTime::now_utc());
        let facts = item.facts(self.teams[team].old_states);
        T::list_mut(&mut self.teams[team]).push(item);
        self.changed(at, Vec::new(), &facts);
        Ok(())
    }

    /// The states that a resource of a team may have: versions under deprecated states have those, too.
    fn states_in<T: Item>(
        &self,
        team: usize,
        state: &str,
        values: &'static [&'static str],
    ) -> &'static [&'static str] {
        let old = T::KIND == Version::KIND && self.teams[team].old_states;
        if old && APP_STORE_STATES.contains(&state) { APP_STORE_STATES } else { values }
    }

    /// A resource by its id, and the place of its team.
    pub(super) fn find<T: Item>(&self, id: &str) -> Result<(usize, &T), ScenarioError> {
        let mut found = self.teams.iter().enumerate().filter_map(|(team, known)| {
            T::list(known).iter().find(|item| item.id() == id).map(|item| (team, item))
        });
        found.next().ok_or_else(|| missing(T::KIND, id))
    }

    /// Changes a resource and remembers what that changed.
    fn change<T: Item>(
        &mut self,
        id: &str,
        at: f64,
        change: impl FnOnce(&mut T),
    ) -> Result<(), ScenarioError> {
        let (team, _) = self.find::<T>(id)?;
        let old_states = self.teams[team].old_states;
        let mut items = T::list_mut(&mut self.teams[team]).iter_mut();
        let item = items.find(|item| item.id() == id).ok_or_else(|| missing(T::KIND, id))?;
        let before = item.facts(old_states);
        change(item);
        let after = item.facts(old_states);
        self.changed(at, before, &after);
        Ok(())
    }

    /// Sets the main state of a resource.
    pub(super) fn set_state(
        &mut self,
        resource: &str,
        id: &str,
        state: String,
        at: f64,
    ) -> Result<(), ScenarioError> {
        match resource {
            Version::KIND => self.state_of::<Version>(id, state, at),
            Build::KIND => self.state_of::<Build>(id, state, at),
            BetaReview::KIND => self.state_of::<BetaReview>(id, state, at),
            BuildUpload::KIND => self.state_of::<BuildUpload>(id, state, at),
            ReviewSubmission::KIND => self.state_of::<ReviewSubmission>(id, state, at),
            ReviewItem::KIND => self.state_of::<ReviewItem>(id, state, at),
            AppInfo::KIND => self.state_of::<AppInfo>(id, state, at),
            InAppPurchase::KIND => self.state_of::<InAppPurchase>(id, state, at),
            Subscription::KIND => self.state_of::<Subscription>(id, state, at),
            AppEvent::KIND => self.state_of::<AppEvent>(id, state, at),
            "buildBetaDetails" => self.build_state(id, None, None, None, Some(state), at),
            "appStoreVersionPhasedReleases" => {
                let missing = || missing("appStoreVersionPhasedReleases", id);
                let version = id.strip_suffix("-phased").ok_or_else(missing)?.to_owned();
                self.find::<Version>(&version)?.1.phased_release.as_ref().ok_or_else(missing)?;
                self.phased_release(&version, Some(state), None, at)
            }
            other => Err(missing("type of resource with a state", other)),
        }
    }

    fn state_of<T: Item>(&mut self, id: &str, state: String, at: f64) -> Result<(), ScenarioError> {
        let (team, item) = self.find::<T>(id)?;
        let mut probe = item.clone();
        let Some((kind, values, before)) = probe.state_mut() else {
            return Err(missing("type of resource with a state", T::KIND));
        };
        let differs = *before != state;
        self.check(kind, &state, self.states_in::<T>(team, &state, values))?;
        self.change::<T>(id, at, |item| {
            if let Some((_, _, place)) = item.state_mut() {
                *place = state;
            }
        })?;
        self.transitions += u64::from(differs);
        Ok(())
    }

    pub(super) fn version_build(&mut self, id: &str, build: Option<String>) -> Result<(), ScenarioError> {
        if let Some(build) = &build {
            self.find::<Build>(build)?;
        }
        self.change::<Version>(id, 0.0, |version| version.build = build)
    }

    /// Moves a phased release; what is absent stays. One that is not there is begun, if a state is given.
    pub(super) fn phased_release(
        &mut self,
        id: &str,
        state: Option<String>,
        day: Option<Option<u8>>,
        at: f64,
    ) -> Result<(), ScenarioError> {
        if let Some(state) = &state {
            self.check("phased release state", state, PHASED_RELEASE_STATES)?;
        }
        let phased = self.find::<Version>(id)?.1.phased_release.clone();
        let differs =
            phased.as_ref().zip(state.as_ref()).is_some_and(|(phased, state)| phased.state != *state);
        let begun = phased.unwrap_or_default();
        let state = state.unwrap_or(begun.state);
        if state.is_empty() {
            return Err(missing("phased release", id));
        }
        let phased = PhasedRelease { state, day: day.unwrap_or(begun.day) };
        self.transitions += u64::from(differs);
        self.change::<Version>(id, at, |version| version.phased_release = Some(phased))
    }

    pub(super) fn build_state(
        &mut self,
        id: &str,
        processing_state: Option<String>,
        expired: Option<bool>,
        internal_state: Option<String>,
        external_state: Option<String>,
        at: f64,
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
        let build = self.find::<Build>(id)?.1;
        let differs = processing_state.as_ref().is_some_and(|state| *state != build.processing_state)
            || expired.is_some_and(|expired| expired != build.expired);
        self.change::<Build>(id, at, |build| {
            if let Some(state) = processing_state {
                build.processing_state = state;
            }
            if let Some(expired) = expired {
                build.expired = expired;
            }
            build.internal_state = internal_state.or(build.internal_state.take());
            build.external_state = external_state.or(build.external_state.take());
        })?;
        self.transitions += u64::from(differs);
        Ok(())
    }

    pub(super) fn upload_state(
        &mut self,
        id: &str,
        state: Option<String>,
        [errors, warnings, infos]: [Option<Vec<StateDetail>>; 3],
        build: Option<String>,
        at: f64,
    ) -> Result<(), ScenarioError> {
        if let Some(state) = &state {
            self.check("upload state", state, UPLOAD_STATES)?;
        }
        if let Some(build) = &build {
            self.find::<Build>(build)?;
        }
        let upload = self.find::<BuildUpload>(id)?.1;
        let differs = state.as_ref().is_some_and(|state| *state != upload.state);
        self.change::<BuildUpload>(id, at, |upload| {
            upload.state = state.unwrap_or_else(|| std::mem::take(&mut upload.state));
            upload.errors = errors.unwrap_or_else(|| std::mem::take(&mut upload.errors));
            upload.warnings = warnings.unwrap_or_else(|| std::mem::take(&mut upload.warnings));
            upload.infos = infos.unwrap_or_else(|| std::mem::take(&mut upload.infos));
            upload.build = build.or(upload.build.take());
        })?;
        self.transitions += u64::from(differs);
        Ok(())
    }

    pub(super) fn territory(
        &mut self,
        app: &str,
        territory: &str,
        available: Option<bool>,
        content_statuses: Option<Vec<String>>,
        at: f64,
    ) -> Result<(), ScenarioError> {
        for status in content_statuses.iter().flatten() {
            self.check("content status", status, CONTENT_STATUSES)?;
        }
        let mut differs = false;
        self.change::<Availability>(app, at, |availability| {
            let place = availability.territories.iter().position(|known| known.territory == territory);
            let place = place.unwrap_or_else(|| {
                let territory = Territory { territory: territory.to_owned(), ..Territory::default() };
                availability.territories.push(territory);
                availability.territories.len() - 1
            });
            let known = &mut availability.territories[place];
            differs = available.is_some_and(|available| available != known.available);
            known.available = available.unwrap_or(known.available);
            if let Some(statuses) = content_statuses {
                known.content_statuses = statuses;
            }
        })?;
        self.transitions += u64::from(differs);
        Ok(())
    }

    /// Takes a resource away, with all that hangs on it.
    pub(super) fn remove(&mut self, resource: &str, id: &str, at: f64) -> Result<(), ScenarioError> {
        match resource {
            Version::KIND => {
                self.take::<Version>(id, at)?;
                for submission in self.teams.iter_mut().flat_map(|team| &mut team.review_submissions) {
                    submission.version.take_if(|version| version == id);
                }
                self.take_where::<ReviewItem>(|item| item.version.as_deref() == Some(id), at);
            }
            Build::KIND => {
                self.take::<Build>(id, at)?;
                self.take_where::<BetaReview>(|review| review.build == id, at);
                for team in &mut self.teams {
                    team.versions
                        .iter_mut()
                        .for_each(|version| drop(version.build.take_if(|build| build == id)));
                    team.build_uploads
                        .iter_mut()
                        .for_each(|upload| drop(upload.build.take_if(|build| build == id)));
                }
            }
            BetaReview::KIND => self.take::<BetaReview>(id, at)?,
            BuildUpload::KIND => self.take::<BuildUpload>(id, at)?,
            ReviewSubmission::KIND => {
                self.take::<ReviewSubmission>(id, at)?;
                self.take_where::<ReviewItem>(|item| item.submission == id, at);
            }
            ReviewItem::KIND => self.take::<ReviewItem>(id, at)?,
            AppInfo::KIND => self.take::<AppInfo>(id, at)?,
            InAppPurchase::KIND => self.take::<InAppPurchase>(id, at)?,
            SubscriptionGroup::KIND => {
                self.take::<SubscriptionGroup>(id, at)?;
                self.take_where::<Subscription>(|subscription| subscription.group == id, at);
            }
            Subscription::KIND => self.take::<Subscription>(id, at)?,
            AppEvent::KIND => {
                self.take::<AppEvent>(id, at)?;
                self.take_where::<ReviewItem>(|item| item.event.as_deref() == Some(id), at);
            }
            Availability::KIND => self.take::<Availability>(id, at)?,
            Webhook::KIND => self.take::<Webhook>(id, at)?,
            "appStoreVersionPhasedReleases" => {
                let missing = || missing("appStoreVersionPhasedReleases", id);
                let version = id.strip_suffix("-phased").ok_or_else(missing)?;
                self.find::<Version>(version)?.1.phased_release.as_ref().ok_or_else(missing)?;
                self.change::<Version>(version, at, |version| version.phased_release = None)?;
            }
            other => return Err(missing("type of resource that can be removed", other)),
        }
        Ok(())
    }

    fn take<T: Item>(&mut self, id: &str, at: f64) -> Result<(), ScenarioError> {
        self.find::<T>(id)?;
        self.take_where::<T>(|item| item.id() == id, at);
        Ok(())
    }

    fn take_where<T: Item>(&mut self, gone: impl Fn(&T) -> bool, at: f64) {
        let mut facts = Vec::new();
        for team in &mut self.teams {
            let old_states = team.old_states;
            let taken = T::list_mut(team).extract_if(.., |item| gone(item));
            facts.extend(taken.flat_map(|item| item.facts(old_states)));
        }
        self.changed(at, facts, &[]);
    }
}
