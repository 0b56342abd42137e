//! A team of App Store Connect, its apps and their versions.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::scenario::items::listed;
use crate::scenario::{
    AppEvent, AppInfo, Availability, BetaReview, Build, BuildUpload, Fact, InAppPurchase, Item, ReviewItem,
    ReviewSubmission, ScenarioError, Subscription, SubscriptionGroup, Webhook,
};
#[cfg(doc)]
use crate::values::APP_STORE_STATES;
use crate::values::{APP_VERSION_STATES, PHASED_RELEASE_STATES, PLATFORMS, RELEASE_TYPES, known};

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
    /// Whether versions carry only the deprecated `appStoreState`, as before `appVersionState` existed.
    #[serde(default)]
    pub old_states: bool,
    /// Whether its key is an administrator's, who may list the team's users; else that is forbidden.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub admin: bool,
    /// The builds' beta reviews.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beta_reviews: Vec<BetaReview>,
    /// Uploads that become builds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub build_uploads: Vec<BuildUpload>,
    /// What was handed in for review.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub review_submissions: Vec<ReviewSubmission>,
    /// The items of those.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub review_items: Vec<ReviewItem>,
    /// The apps' metadata in its own review.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub app_infos: Vec<AppInfo>,
    /// The apps' in-app purchases.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub in_app_purchases: Vec<InAppPurchase>,
    /// The apps' groups of subscriptions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subscription_groups: Vec<SubscriptionGroup>,
    /// The subscriptions in those.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subscriptions: Vec<Subscription>,
    /// The apps' events.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub app_events: Vec<AppEvent>,
    /// Where the apps are on sale, at most one an app.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub availabilities: Vec<Availability>,
    /// The apps' webhooks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub webhooks: Vec<Webhook>,
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
    /// One of [`APP_VERSION_STATES`]; in a team with [`AppStoreTeam::old_states`] one of
    /// [`APP_STORE_STATES`] as well.
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

impl PhasedRelease {
    pub(crate) fn check(&self) -> Result<(), ScenarioError> {
        known("phased release state", &self.state, PHASED_RELEASE_STATES)
    }
}

impl Version {
    /// The id of its phased release.
    pub(crate) fn phased_id(&self) -> Option<String> {
        self.phased_release.as_ref().map(|_| format!("{}-phased", self.id))
    }
}

impl Item for Version {
    const KIND: &'static str = "appStoreVersions";
    const PARENT: &'static str = "app";

    fn id(&self) -> &str {
        &self.id
    }

    fn parent(&self) -> &str {
        &self.app
    }

    fn check(&self) -> Result<(), ScenarioError> {
        known("platform", &self.platform, PLATFORMS)?;
        known("release type", &self.release_type, RELEASE_TYPES)?;
        self.phased_release.as_ref().map_or(Ok(()), PhasedRelease::check)
    }

    fn refers_to(&self, team: &AppStoreTeam) -> Vec<(&'static str, bool, String)> {
        let known = |id: &String| ("build", team.builds.iter().any(|known| known.id == *id), id.clone());
        self.build.iter().map(known).collect()
    }

    fn appear(&mut self, now: OffsetDateTime) {
        self.created.get_or_insert(now);
    }

    fn state_mut(&mut self) -> Option<(&'static str, &'static [&'static str], &mut String)> {
        Some(("version state", APP_VERSION_STATES, &mut self.state))
    }

    fn facts(&self, old: bool) -> Vec<Fact> {
        let mut facts = vec![if old {
            Fact::new(Self::KIND, &self.id, "appStoreState", app_store_state(&self.state))
        } else {
            Fact::new(Self::KIND, &self.id, "appVersionState", &self.state)
        }];
        if let (Some(phased), Some(id)) = (&self.phased_release, self.phased_id()) {
            let kind = "appStoreVersionPhasedReleases";
            facts.push(Fact::new(kind, &id, "phasedReleaseState", &phased.state));
            facts.extend(phased.day.map(|day| Fact::new(kind, &id, "currentDayNumber", day)));
        }
        facts
    }

    listed!(versions);
}

/// The deprecated attribute has other names for the states around the release.
pub(crate) fn app_store_state(state: &str) -> &str {
    match state {
        "READY_FOR_DISTRIBUTION" => "READY_FOR_SALE",
        "PROCESSING_FOR_DISTRIBUTION" => "PROCESSING_FOR_APP_STORE",
        other => other,
    }
}

fn apple_hourly_limit() -> u32 {
    3500
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
