//! Uploads, builds and their beta review.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::scenario::items::listed;
use crate::scenario::{AppStoreTeam, Fact, Item, ScenarioError};
use crate::values::{
    BETA_REVIEW_STATES, EXTERNAL_BETA_STATES, INTERNAL_BETA_STATES, PLATFORMS, PROCESSING_STATES,
    UPLOAD_STATES, known,
};

/// A build.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Build {
    /// The store's id, unique over all teams.
    pub id: String,
    /// The id of its app.
    pub app: String,
    /// One of [`PLATFORMS`].
    pub platform: String,
    /// The build number (`CFBundleVersion`).
    pub version: String,
    /// The version it is a build of (`CFBundleShortVersionString`).
    pub pre_release_version: String,
    /// One of [`PROCESSING_STATES`].
    #[serde(default = "valid_build")]
    pub processing_state: String,
    /// Whether TestFlight has let it expire.
    #[serde(default)]
    pub expired: bool,
    /// When it was uploaded; absent is the moment at which the simulator learned of it.
    #[serde(default, with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub uploaded: Option<OffsetDateTime>,
    /// One of [`INTERNAL_BETA_STATES`]; absent follows from the processing state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub internal_state: Option<String>,
    /// One of [`EXTERNAL_BETA_STATES`]; absent follows from the processing state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_state: Option<String>,
}

/// The review of a build for external testers; its id is the build's.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct BetaReview {
    /// The id of the build.
    pub build: String,
    /// One of [`BETA_REVIEW_STATES`].
    pub state: String,
    /// When it was handed in; absent is the moment at which the simulator learned of it.
    #[serde(default, with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub submitted: Option<OffsetDateTime>,
}

/// An upload on its way to a build.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct BuildUpload {
    /// The store's id, unique over all teams.
    pub id: String,
    /// The id of its app.
    pub app: String,
    /// One of [`PLATFORMS`].
    pub platform: String,
    /// The build number (`CFBundleVersion`).
    pub version: String,
    /// The version it is for (`CFBundleShortVersionString`).
    pub short_version: String,
    /// One of [`UPLOAD_STATES`].
    pub state: String,
    /// What is wrong with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<StateDetail>,
    /// What may be wrong with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<StateDetail>,
    /// What is said of it beside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub infos: Vec<StateDetail>,
    /// The id of the build that it became.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<String>,
    /// When it was begun; absent is the moment at which the simulator learned of it.
    #[serde(default, with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub created: Option<OffsetDateTime>,
    /// When it was complete.
    #[serde(default, with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub uploaded: Option<OffsetDateTime>,
}

/// What is said of an upload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct StateDetail {
    /// Apple's code, such as `90683`.
    pub code: String,
    /// The same in words.
    pub description: String,
}

impl Build {
    /// What TestFlight says of it, to internal and to external testers.
    pub(crate) fn beta_states(&self) -> (&str, &str) {
        let follows = match (self.expired, self.processing_state.as_str()) {
            (true, _) => "EXPIRED",
            (_, "PROCESSING") => "PROCESSING",
            (_, "VALID") => "READY_FOR_BETA_TESTING",
            _ => "PROCESSING_EXCEPTION",
        };
        (self.internal_state.as_deref().unwrap_or(follows), self.external_state.as_deref().unwrap_or(follows))
    }
}

impl Item for Build {
    const KIND: &'static str = "builds";
    const PARENT: &'static str = "app";

    fn id(&self) -> &str {
        &self.id
    }

    fn parent(&self) -> &str {
        &self.app
    }

    fn check(&self) -> Result<(), ScenarioError> {
        known("platform", &self.platform, PLATFORMS)?;
        if let Some(state) = &self.internal_state {
            known("internal beta state", state, INTERNAL_BETA_STATES)?;
        }
        if let Some(state) = &self.external_state {
            known("external beta state", state, EXTERNAL_BETA_STATES)?;
        }
        Ok(())
    }

    fn appear(&mut self, now: OffsetDateTime) {
        self.uploaded.get_or_insert(now);
    }

    fn state_mut(&mut self) -> Option<(&'static str, &'static [&'static str], &mut String)> {
        Some(("processing state", PROCESSING_STATES, &mut self.processing_state))
    }

    fn facts(&self, _old: bool) -> Vec<Fact> {
        let (internal, external) = self.beta_states();
        vec![
            Fact::new(Self::KIND, &self.id, "processingState", &self.processing_state),
            Fact::new(Self::KIND, &self.id, "expired", self.expired),
            Fact::new("buildBetaDetails", &self.id, "internalBuildState", internal),
            Fact::new("buildBetaDetails", &self.id, "externalBuildState", external),
        ]
    }

    listed!(builds);
}

impl Item for BetaReview {
    const KIND: &'static str = "betaAppReviewSubmissions";
    const PARENT: &'static str = "build";

    fn id(&self) -> &str {
        &self.build
    }

    fn parent(&self) -> &str {
        &self.build
    }

    fn hangs_in(&self, team: &AppStoreTeam) -> bool {
        team.builds.iter().any(|build| build.id == self.build)
    }

    fn check(&self) -> Result<(), ScenarioError> {
        Ok(())
    }

    fn appear(&mut self, now: OffsetDateTime) {
        self.submitted.get_or_insert(now);
    }

    fn state_mut(&mut self) -> Option<(&'static str, &'static [&'static str], &mut String)> {
        Some(("beta review state", BETA_REVIEW_STATES, &mut self.state))
    }

    fn facts(&self, _old: bool) -> Vec<Fact> {
        vec![Fact::new(Self::KIND, &self.build, "betaReviewState", &self.state)]
    }

    listed!(beta_reviews);
}

impl Item for BuildUpload {
    const KIND: &'static str = "buildUploads";
    const PARENT: &'static str = "app";

    fn id(&self) -> &str {
        &self.id
    }

    fn parent(&self) -> &str {
        &self.app
    }

    fn check(&self) -> Result<(), ScenarioError> {
        known("platform", &self.platform, PLATFORMS)
    }

    fn refers_to(&self, team: &AppStoreTeam) -> Vec<(&'static str, bool, String)> {
        let known = |id: &String| ("build", team.builds.iter().any(|known| known.id == *id), id.clone());
        self.build.iter().map(known).collect()
    }

    fn appear(&mut self, now: OffsetDateTime) {
        self.created.get_or_insert(now);
    }

    fn state_mut(&mut self) -> Option<(&'static str, &'static [&'static str], &mut String)> {
        Some(("upload state", UPLOAD_STATES, &mut self.state))
    }

    fn facts(&self, _old: bool) -> Vec<Fact> {
        vec![Fact::new(Self::KIND, &self.id, "state", &self.state)]
    }

    listed!(build_uploads);
}

fn valid_build() -> String {
    "VALID".to_owned()
}
