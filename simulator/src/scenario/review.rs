//! What is reviewed beside versions and builds: submissions, their items, and the metadata of apps.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::scenario::items::listed;
use crate::scenario::{AppStoreTeam, Fact, Item, ScenarioError};
use crate::values::{APP_INFO_STATES, PLATFORMS, REVIEW_ITEM_STATES, REVIEW_SUBMISSION_STATES, known};

/// What a team handed in for review at one time.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ReviewSubmission {
    /// The store's id, unique over all teams.
    pub id: String,
    /// The id of its app.
    pub app: String,
    /// One of [`PLATFORMS`].
    pub platform: String,
    /// One of [`REVIEW_SUBMISSION_STATES`].
    pub state: String,
    /// When it was handed in.
    #[serde(default, with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub submitted: Option<OffsetDateTime>,
    /// The id of the version in it that is up for review.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// One thing in a submission: a version or an event.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ReviewItem {
    /// The store's id, unique over all teams.
    pub id: String,
    /// The id of its submission.
    pub submission: String,
    /// One of [`REVIEW_ITEM_STATES`].
    pub state: String,
    /// The id of the version that it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The id of the event that it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
}

/// An app's metadata, which goes through a review of its own.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AppInfo {
    /// The store's id, unique over all teams.
    pub id: String,
    /// The id of its app.
    pub app: String,
    /// One of [`APP_INFO_STATES`].
    pub state: String,
}

impl Item for ReviewSubmission {
    const KIND: &'static str = "reviewSubmissions";
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
        let known = |id: &String| ("version", team.versions.iter().any(|known| known.id == *id), id.clone());
        self.version.iter().map(known).collect()
    }

    fn state_mut(&mut self) -> Option<(&'static str, &'static [&'static str], &mut String)> {
        Some(("review submission state", REVIEW_SUBMISSION_STATES, &mut self.state))
    }

    fn facts(&self, _old: bool) -> Vec<Fact> {
        vec![Fact::new(Self::KIND, &self.id, "state", &self.state)]
    }

    listed!(review_submissions);
}

impl Item for ReviewItem {
    const KIND: &'static str = "reviewSubmissionItems";
    const PARENT: &'static str = "review submission";

    fn id(&self) -> &str {
        &self.id
    }

    fn parent(&self) -> &str {
        &self.submission
    }

    fn hangs_in(&self, team: &AppStoreTeam) -> bool {
        team.review_submissions.iter().any(|submission| submission.id == self.submission)
    }

    fn check(&self) -> Result<(), ScenarioError> {
        Ok(())
    }

    fn refers_to(&self, team: &AppStoreTeam) -> Vec<(&'static str, bool, String)> {
        let version =
            |id: &String| ("version", team.versions.iter().any(|known| known.id == *id), id.clone());
        let event =
            |id: &String| ("app event", team.app_events.iter().any(|known| known.id == *id), id.clone());
        self.version.iter().map(version).chain(self.event.iter().map(event)).collect()
    }

    fn state_mut(&mut self) -> Option<(&'static str, &'static [&'static str], &mut String)> {
        Some(("review item state", REVIEW_ITEM_STATES, &mut self.state))
    }

    fn facts(&self, _old: bool) -> Vec<Fact> {
        vec![Fact::new(Self::KIND, &self.id, "state", &self.state)]
    }

    listed!(review_items);
}

impl Item for AppInfo {
    const KIND: &'static str = "appInfos";
    const PARENT: &'static str = "app";

    fn id(&self) -> &str {
        &self.id
    }

    fn parent(&self) -> &str {
        &self.app
    }

    fn check(&self) -> Result<(), ScenarioError> {
        Ok(())
    }

    fn state_mut(&mut self) -> Option<(&'static str, &'static [&'static str], &mut String)> {
        Some(("app info state", APP_INFO_STATES, &mut self.state))
    }

    fn facts(&self, _old: bool) -> Vec<Fact> {
        vec![Fact::new(Self::KIND, &self.id, "state", &self.state)]
    }

    listed!(app_infos);
}
