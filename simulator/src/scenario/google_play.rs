//! What Google Play holds.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::scenario::{Fact, ScenarioError};
#[cfg(doc)]
use crate::values::WELL_KNOWN_TRACKS;
use crate::values::{RELEASE_LIFECYCLE_STATES, RELEASE_STATUSES, known};

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
    /// One of [`RELEASE_STATUSES`], as an edit shows it; absent follows from the state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// The share of users that get it, above 0 and below 1; only with the status `inProgress` or `halted`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_fraction: Option<f64>,
    /// 0 to 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_app_update_priority: Option<u8>,
}

impl Release {
    pub(crate) fn check(&self) -> Result<(), ScenarioError> {
        known("release lifecycle state", &self.state, RELEASE_LIFECYCLE_STATES)?;
        self.status.as_ref().map_or(Ok(()), |status| known("release status", status, RELEASE_STATUSES))
    }

    /// Whether its numbers make sense, whatever the values.
    pub(crate) fn check_numbers(&self) -> Result<(), ScenarioError> {
        let staged = matches!(self.status(), "inProgress" | "halted");
        if self.user_fraction.is_some_and(|share| !(share > 0.0 && share < 1.0 && staged)) {
            let wrong = "a user fraction is above 0 and below 1, and of a release in progress or halted";
            return Err(ScenarioError::Number(wrong));
        }
        if self.in_app_update_priority.is_some_and(|priority| priority > 5) {
            return Err(ScenarioError::Number("an in-app update priority is 0 to 5"));
        }
        Ok(())
    }

    /// Its status as an edit shows it.
    pub(crate) fn status(&self) -> &str {
        match &self.status {
            Some(status) => status,
            None if matches!(self.state.as_str(), "DRAFT" | "UNSPECIFIED") => "draft",
            None => "completed",
        }
    }

    /// What it is known by: package, track and version codes.
    pub(crate) fn key(&self) -> String {
        let codes: Vec<_> = self.version_codes.iter().map(i32::to_string).collect();
        format!("{}/{}/{}", self.package, self.track, codes.join(","))
    }

    /// What the store says of it.
    pub(crate) fn facts(&self) -> Vec<Fact> {
        let fact = |attribute, value: String| Fact::new("releases", &self.key(), attribute, value);
        let mut facts =
            vec![fact("releaseLifecycleState", self.state.clone()), fact("status", self.status().to_owned())];
        facts.extend(self.user_fraction.map(|share| fact("userFraction", share.to_string())));
        let priority = self.in_app_update_priority;
        facts.extend(priority.map(|priority| fact("inAppUpdatePriority", priority.to_string())));
        facts
    }
}

fn google_minute_limit() -> u32 {
    3000
}

fn access_token_seconds() -> u32 {
    3599
}
