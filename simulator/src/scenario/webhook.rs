//! The webhooks that a team has set up.

use serde::{Deserialize, Serialize};

use crate::scenario::items::listed;
use crate::scenario::{AppStoreTeam, Fact, Item, ScenarioError};
use crate::values::{WEBHOOK_EVENT_TYPES, known};

/// A webhook of an app.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// The store's id, unique over all teams.
    pub id: String,
    /// The id of its app.
    pub app: String,
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Where events are sent to.
    pub url: String,
    /// The secret that they are signed with.
    pub secret: String,
    /// Whether anything is sent or recorded.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Which events: each one of [`WEBHOOK_EVENT_TYPES`].
    #[serde(default = "every_event")]
    pub event_types: Vec<String>,
    /// Whether the event of an upload says the state before, too.
    #[serde(default)]
    pub tells_old_upload_state: bool,
}

/// The shapes that a ping was seen in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PingShape {
    /// `webhookPingCreated` with a timestamp among its attributes.
    Timestamp,
    /// `webhookPingCreated` with no more than type and id.
    Minimal,
    /// The type `webhookPings`, which the API gives to what asks for a ping.
    Resource,
}

impl Item for Webhook {
    const KIND: &'static str = "webhooks";
    const PARENT: &'static str = "app";

    fn id(&self) -> &str {
        &self.id
    }

    fn parent(&self) -> &str {
        &self.app
    }

    fn check(&self) -> Result<(), ScenarioError> {
        self.event_types.iter().try_for_each(|kind| known("webhook event type", kind, WEBHOOK_EVENT_TYPES))
    }

    fn state_mut(&mut self) -> Option<(&'static str, &'static [&'static str], &mut String)> {
        None
    }

    fn facts(&self, _old: bool) -> Vec<Fact> {
        Vec::new()
    }

    listed!(webhooks);
}

fn yes() -> bool {
    true
}

fn every_event() -> Vec<String> {
    WEBHOOK_EVENT_TYPES.iter().map(|kind| (*kind).to_owned()).collect()
}
