//! What is sold, where, and what is announced.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::scenario::items::listed;
use crate::scenario::{AppStoreTeam, Fact, Item, ScenarioError};
use crate::values::{
    APP_EVENT_STATES, CONTENT_STATUSES, IN_APP_PURCHASE_STATES, IN_APP_PURCHASE_TYPES, SUBSCRIPTION_PERIODS,
    SUBSCRIPTION_STATES, known,
};

/// An in-app purchase that is no subscription.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct InAppPurchase {
    /// The store's id, unique over all teams.
    pub id: String,
    /// The id of its app.
    pub app: String,
    /// Its name.
    pub name: String,
    /// Its product id.
    pub product_id: String,
    /// One of [`IN_APP_PURCHASE_TYPES`].
    #[serde(default = "consumable")]
    pub kind: String,
    /// One of [`IN_APP_PURCHASE_STATES`].
    pub state: String,
}

/// A group of subscriptions, of which a customer has one at a time.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SubscriptionGroup {
    /// The store's id, unique over all teams.
    pub id: String,
    /// The id of its app.
    pub app: String,
    /// Its name within the team.
    pub reference_name: String,
}

/// A subscription.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Subscription {
    /// The store's id, unique over all teams.
    pub id: String,
    /// The id of its group.
    pub group: String,
    /// Its name.
    pub name: String,
    /// Its product id.
    pub product_id: String,
    /// One of [`SUBSCRIPTION_STATES`].
    pub state: String,
    /// One of [`SUBSCRIPTION_PERIODS`].
    #[serde(default = "a_month")]
    pub period: String,
}

/// An event that the store shows with an app.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AppEvent {
    /// The store's id, unique over all teams.
    pub id: String,
    /// The id of its app.
    pub app: String,
    /// Its name within the team.
    pub reference_name: String,
    /// One of [`APP_EVENT_STATES`].
    pub state: String,
    /// When it is shown first, in every territory.
    #[serde(default, with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub publish_start: Option<OffsetDateTime>,
}

/// Where an app is on sale; its id is the app's.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Availability {
    /// The id of its app.
    pub app: String,
    /// Whether it goes on sale where the store opens next.
    #[serde(default)]
    pub in_new_territories: bool,
    /// The territories.
    #[serde(default)]
    pub territories: Vec<Territory>,
}

/// Whether an app is on sale in a territory.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Territory {
    /// Three letters, such as `USA`.
    pub territory: String,
    /// Whether it is meant to be on sale there.
    #[serde(default)]
    pub available: bool,
    /// What stands in the way, or that nothing does: each one of [`CONTENT_STATUSES`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub content_statuses: Vec<String>,
}

impl Territory {
    pub(crate) fn check(&self) -> Result<(), ScenarioError> {
        self.content_statuses.iter().try_for_each(|status| known("content status", status, CONTENT_STATUSES))
    }

    /// Its id on the wire, which names the app and the territory, as the store's does.
    pub(crate) fn id(&self, app: &str) -> String {
        STANDARD_NO_PAD.encode(serde_json::json!({ "s": app, "t": self.territory }).to_string())
    }
}

impl Item for InAppPurchase {
    const KIND: &'static str = "inAppPurchases";
    const PARENT: &'static str = "app";

    fn id(&self) -> &str {
        &self.id
    }

    fn parent(&self) -> &str {
        &self.app
    }

    fn check(&self) -> Result<(), ScenarioError> {
        known("in-app purchase type", &self.kind, IN_APP_PURCHASE_TYPES)
    }

    fn state_mut(&mut self) -> Option<(&'static str, &'static [&'static str], &mut String)> {
        Some(("in-app purchase state", IN_APP_PURCHASE_STATES, &mut self.state))
    }

    fn facts(&self, _old: bool) -> Vec<Fact> {
        vec![Fact::new(Self::KIND, &self.id, "state", &self.state)]
    }

    listed!(in_app_purchases);
}

impl Item for SubscriptionGroup {
    const KIND: &'static str = "subscriptionGroups";
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
        None
    }

    fn facts(&self, _old: bool) -> Vec<Fact> {
        Vec::new()
    }

    listed!(subscription_groups);
}

impl Item for Subscription {
    const KIND: &'static str = "subscriptions";
    const PARENT: &'static str = "subscription group";

    fn id(&self) -> &str {
        &self.id
    }

    fn parent(&self) -> &str {
        &self.group
    }

    fn hangs_in(&self, team: &AppStoreTeam) -> bool {
        team.subscription_groups.iter().any(|group| group.id == self.group)
    }

    fn check(&self) -> Result<(), ScenarioError> {
        known("subscription period", &self.period, SUBSCRIPTION_PERIODS)
    }

    fn state_mut(&mut self) -> Option<(&'static str, &'static [&'static str], &mut String)> {
        Some(("subscription state", SUBSCRIPTION_STATES, &mut self.state))
    }

    fn facts(&self, _old: bool) -> Vec<Fact> {
        vec![Fact::new(Self::KIND, &self.id, "state", &self.state)]
    }

    listed!(subscriptions);
}

impl Item for AppEvent {
    const KIND: &'static str = "appEvents";
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
        Some(("app event state", APP_EVENT_STATES, &mut self.state))
    }

    fn facts(&self, _old: bool) -> Vec<Fact> {
        vec![Fact::new(Self::KIND, &self.id, "eventState", &self.state)]
    }

    listed!(app_events);
}

impl Item for Availability {
    const KIND: &'static str = "appAvailabilities";
    const PARENT: &'static str = "app";

    fn id(&self) -> &str {
        &self.app
    }

    fn parent(&self) -> &str {
        &self.app
    }

    fn check(&self) -> Result<(), ScenarioError> {
        self.territories.iter().try_for_each(Territory::check)
    }

    fn state_mut(&mut self) -> Option<(&'static str, &'static [&'static str], &mut String)> {
        None
    }

    fn facts(&self, _old: bool) -> Vec<Fact> {
        let kind = "territoryAvailabilities";
        let facts = |territory: &Territory| {
            let id = territory.id(&self.app);
            [
                Fact::new(kind, &id, "available", territory.available),
                Fact::new(kind, &id, "contentStatuses", territory.content_statuses.join(",")),
            ]
        };
        self.territories.iter().flat_map(facts).collect()
    }

    listed!(availabilities);
}

fn consumable() -> String {
    "CONSUMABLE".to_owned()
}

fn a_month() -> String {
    "ONE_MONTH".to_owned()
}
