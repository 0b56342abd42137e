//! What the stores hold at the start, and what happens to it when.
//!
//! A scenario is a TOML or JSON file. Times are scenario seconds from the start; one real second is
//! `speed` scenario seconds. Values are checked against the stores' own descriptions when a scenario is
//! loaded, so that the simulator cannot say what no store says (unless `unknown_values` asks for it).

mod app_store;
mod builds;
mod google_play;
mod items;
mod review;
mod sale;
mod step;
mod webhook;

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::churn::Churn;

pub(crate) use self::app_store::app_store_state;
pub use self::app_store::{App, AppStoreTeam, PhasedRelease, Version};
pub use self::builds::{BetaReview, Build, BuildUpload, StateDetail};
pub use self::google_play::{PlayAccount, PlayApp, Release};
pub(crate) use self::items::{Fact, Item};
pub use self::review::{AppInfo, ReviewItem, ReviewSubmission};
pub use self::sale::{AppEvent, Availability, InAppPurchase, Subscription, SubscriptionGroup, Territory};
pub use self::step::{Step, TimedStep};
pub use self::webhook::{PingShape, Webhook};

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
