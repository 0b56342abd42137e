//! What the stores hold at the start, and what happens to it when.
//!
//! A scenario is a TOML or JSON file. Times are scenario seconds from the start; one real second is
//! `speed` scenario seconds. Values are checked against the stores' own descriptions when a scenario is
//! loaded, so that the simulator cannot say what no store says (unless `unknown_values` asks for it).

use std::collections::BTreeSet;
use std::path::Path;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::churn::Churn;
use crate::faults::Fault;
#[cfg(doc)]
use crate::values::WELL_KNOWN_TRACKS;
use crate::values::{
    APP_VERSION_STATES, EXTERNAL_BETA_STATES, INTERNAL_BETA_STATES, PHASED_RELEASE_STATES, PLATFORMS,
    PROCESSING_STATES, RELEASE_LIFECYCLE_STATES, RELEASE_TYPES, known,
};

/// Both stores at the start, and what happens then.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Everything that is drawn (key ids, the churn) is drawn from this.
    #[serde(default)]
    pub seed: u64,
    /// Scenario seconds a real second; absent is 1. [`crate::Options::speed`] goes before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed: Option<f64>,
    /// Lets states through that the stores' descriptions do not know.
    #[serde(default)]
    pub unknown_values: bool,
    /// App Store Connect teams, each with an API key of its own.
    #[serde(default)]
    pub app_store: Vec<AppStoreTeam>,
    /// Play developer accounts, each with a service account of its own.
    #[serde(default)]
    pub google_play: Vec<PlayAccount>,
    /// What happens when.
    #[serde(default, rename = "step")]
    pub steps: Vec<TimedStep>,
    /// Releases that go on by themselves, without an end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub churn: Option<Churn>,
}

/// A team of App Store Connect and what its key sees.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AppStoreTeam {
    /// Names the team here (the wire does not carry it).
    pub name: String,
    /// Requests an hour before the store answers 429; Apple's is 3500.
    #[serde(default = "apple_hourly_limit")]
    pub hourly_limit: u32,
    /// The team's apps.
    #[serde(default)]
    pub apps: Vec<App>,
    /// The apps' versions.
    #[serde(default)]
    pub versions: Vec<Version>,
    /// The apps' builds.
    #[serde(default)]
    pub builds: Vec<Build>,
}

/// An app of App Store Connect.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct App {
    /// The store's id, unique over all teams.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its bundle id.
    pub bundle_id: String,
    /// Its SKU; absent is the bundle id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sku: Option<String>,
    /// Its primary locale.
    #[serde(default = "primary_locale")]
    pub primary_locale: String,
}

/// An app store version.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Version {
    /// The store's id, unique over all teams.
    pub id: String,
    /// The id of its app.
    pub app: String,
    /// One of [`PLATFORMS`].
    pub platform: String,
    /// Such as `2.4.1`.
    pub version_string: String,
    /// One of [`APP_VERSION_STATES`].
    #[serde(default = "prepare_for_submission")]
    pub state: String,
    /// One of [`RELEASE_TYPES`].
    #[serde(default = "manual_release")]
    pub release_type: String,
    /// When it was made; absent is the moment at which the simulator learned of it.
    #[serde(default, with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub created: Option<OffsetDateTime>,
    /// The id of the build chosen for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<String>,
    /// How far its phased release is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phased_release: Option<PhasedRelease>,
}

/// A phased release; its id is that of its version with `-phased` behind it.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PhasedRelease {
    /// One of [`PHASED_RELEASE_STATES`].
    pub state: String,
    /// The day it is at, 1 to 7.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub day: Option<u8>,
}

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

/// A Play developer account and what its service account sees.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PlayAccount {
    /// Names the account here (the wire does not carry it).
    pub name: String,
    /// Requests a minute before the store answers 429; Google's is 3000.
    #[serde(default = "google_minute_limit")]
    pub minute_limit: u32,
    /// How long an access token lives, in seconds.
    #[serde(default = "access_token_seconds")]
    pub token_seconds: u32,
    /// The account's apps.
    #[serde(default)]
    pub apps: Vec<PlayApp>,
    /// The releases on their tracks.
    #[serde(default)]
    pub releases: Vec<Release>,
}

/// An app of Google Play.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PlayApp {
    /// Its package name, unique over all accounts.
    pub package: String,
    /// Its title.
    pub display_name: String,
    /// Tracks of its own beside [`WELL_KNOWN_TRACKS`].
    #[serde(default)]
    pub tracks: Vec<String>,
}

/// A release on a track, known by package, track and version codes.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// The app's package name.
    pub package: String,
    /// The track.
    pub track: String,
    /// Its name, which another release may have too.
    pub name: String,
    /// Its version codes, in any order.
    pub version_codes: BTreeSet<i32>,
    /// One of [`RELEASE_LIFECYCLE_STATES`].
    pub state: String,
}

/// A step and when it happens.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct TimedStep {
    /// Scenario seconds from the start.
    pub at: f64,
    /// What happens.
    #[serde(flatten)]
    pub step: Step,
}

/// One change in what the stores hold, or in how they answer.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Step {
    /// A team gets an app.
    AddApp {
        /// The team's name.
        team: String,
        /// The app.
        app: App,
    },
    /// An app leaves its team, with its versions and builds.
    RemoveApp {
        /// The app's id.
        id: String,
    },
    /// An app gets a version.
    AddVersion(Version),
    /// A version changes its state.
    VersionState {
        /// The version's id.
        id: String,
        /// One of [`APP_VERSION_STATES`].
        state: String,
    },
    /// A build is chosen for a version, or taken away from it.
    VersionBuild {
        /// The version's id.
        id: String,
        /// The build's id.
        build: Option<String>,
    },
    /// A version's phased release moves.
    PhasedRelease {
        /// The version's id.
        id: String,
        /// One of [`PHASED_RELEASE_STATES`].
        state: String,
        /// The day it is at, 1 to 7.
        day: Option<u8>,
    },
    /// A version is gone.
    RemoveVersion {
        /// The version's id.
        id: String,
    },
    /// A build is uploaded.
    AddBuild(Build),
    /// A build changes; what is absent stays.
    BuildState {
        /// The build's id.
        id: String,
        /// One of [`PROCESSING_STATES`].
        processing_state: Option<String>,
        /// Whether TestFlight has let it expire.
        expired: Option<bool>,
        /// One of [`INTERNAL_BETA_STATES`].
        internal_state: Option<String>,
        /// One of [`EXTERNAL_BETA_STATES`].
        external_state: Option<String>,
    },
    /// A build is gone.
    RemoveBuild {
        /// The build's id.
        id: String,
    },
    /// An account gets a Play app.
    AddPlayApp {
        /// The account's name.
        account: String,
        /// The app.
        app: PlayApp,
    },
    /// A Play app leaves its account, with its releases.
    RemovePlayApp {
        /// Its package name.
        package: String,
    },
    /// A release appears or, where package, track and version codes are known, changes.
    Release(Release),
    /// A release is obsolete and no longer listed.
    RemoveRelease {
        /// The app's package name.
        package: String,
        /// The track.
        track: String,
        /// Its version codes.
        version_codes: BTreeSet<i32>,
    },
    /// The stores begin to answer wrongly.
    Fault(Fault),
    /// They stop: the fault of that name, or all of them.
    EndFault {
        /// The fault's name.
        name: Option<String>,
    },
}

/// Why a scenario or a step is refused.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// The file cannot be read.
    #[error("cannot read the scenario {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The text is neither a scenario in TOML nor one in JSON.
    #[error("not a scenario: {0}")]
    Syntax(String),
    /// Something refers to what is not there.
    #[error("there is no {kind} `{id}`")]
    Missing {
        /// What it would be.
        kind: &'static str,
        /// Its id or name.
        id: String,
    },
    /// Something is there twice.
    #[error("there is already a {kind} `{id}`")]
    Duplicate {
        /// What it is.
        kind: &'static str,
        /// Its id or name.
        id: String,
    },
    /// A value that no store gives, without `unknown_values`.
    #[error("`{value}` is not a {kind}")]
    UnknownValue {
        /// What it would be.
        kind: &'static str,
        /// The value.
        value: String,
    },
    /// A number that makes no sense.
    #[error("{0}")]
    Number(&'static str),
}

impl Scenario {
    /// Reads a scenario from a file: JSON where its name ends in `.json`, else TOML.
    pub fn load(path: &Path) -> Result<Self, ScenarioError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ScenarioError::Read { path: path.display().to_string(), source })?;
        if path.extension().is_some_and(|extension| extension == "json") {
            Self::from_json(&text)
        } else {
            Self::from_toml(&text)
        }
    }

    /// Reads a scenario from TOML.
    pub fn from_toml(text: &str) -> Result<Self, ScenarioError> {
        toml::from_str(text).map_err(|error| ScenarioError::Syntax(error.to_string()))
    }

    /// Reads a scenario from JSON.
    pub fn from_json(text: &str) -> Result<Self, ScenarioError> {
        serde_json::from_str(text).map_err(|error| ScenarioError::Syntax(error.to_string()))
    }
}

impl Version {
    pub(crate) fn check(&self) -> Result<(), ScenarioError> {
        known("platform", &self.platform, PLATFORMS)?;
        known("version state", &self.state, APP_VERSION_STATES)?;
        known("release type", &self.release_type, RELEASE_TYPES)?;
        if let Some(phased) = &self.phased_release {
            known("phased release state", &phased.state, PHASED_RELEASE_STATES)?;
        }
        Ok(())
    }
}

impl Build {
    pub(crate) fn check(&self) -> Result<(), ScenarioError> {
        known("platform", &self.platform, PLATFORMS)?;
        known("processing state", &self.processing_state, PROCESSING_STATES)?;
        if let Some(state) = &self.internal_state {
            known("internal beta state", state, INTERNAL_BETA_STATES)?;
        }
        if let Some(state) = &self.external_state {
            known("external beta state", state, EXTERNAL_BETA_STATES)?;
        }
        Ok(())
    }
}

impl Release {
    pub(crate) fn check(&self) -> Result<(), ScenarioError> {
        known("release lifecycle state", &self.state, RELEASE_LIFECYCLE_STATES)
    }
}

fn apple_hourly_limit() -> u32 {
    3500
}

fn google_minute_limit() -> u32 {
    3000
}

fn access_token_seconds() -> u32 {
    3599
}

fn primary_locale() -> String {
    "en-US".to_owned()
}

fn prepare_for_submission() -> String {
    "PREPARE_FOR_SUBMISSION".to_owned()
}

fn manual_release() -> String {
    "MANUAL".to_owned()
}

fn valid_build() -> String {
    "VALID".to_owned()
}
