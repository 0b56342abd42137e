//! What App Store Connect tells webhooks: an event for each change that they ask for, and its deliveries.

use std::collections::VecDeque;
use std::sync::Arc;

use aws_lc_rs::hmac;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::macros::format_description;

use crate::history::StateChange;
use crate::scenario::{AppStoreTeam, PingShape, Webhook};

/// How many deliveries are remembered; a demo may run for weeks.
const REMEMBERED: usize = 4096;

/// What a delivery says that was withheld.
const WITHHELD: &str = "Connection timed out";

/// An event and one attempt to deliver it.
#[derive(Clone, Debug)]
pub struct WebhookDelivery {
    /// The delivery's id.
    pub id: String,
    /// The id of the webhook that it goes to.
    pub webhook: String,
    /// The id of the event, which is the `data.id` of the payload; the same for all deliveries of it.
    pub event: String,
    /// One of [`crate::values::WEBHOOK_EVENT_TYPES`]; `None` for a ping.
    pub event_type: Option<&'static str>,
    /// The body, byte for byte.
    pub payload: Arc<str>,
    /// One of [`crate::values::DELIVERY_STATES`].
    pub state: &'static str,
    /// Whether it was delivered before.
    pub redelivery: bool,
    /// When the event happened, in real time.
    pub event_created: OffsetDateTime,
    /// When the delivery was made, in real time.
    pub created: OffsetDateTime,
    /// When it was sent; `None` for one that was withheld or is not sent yet.
    pub sent: Option<OffsetDateTime>,
    /// The status and the beginning of the body of the answer.
    pub response: Option<(u16, String)>,
    /// Why there was no answer.
    pub error: Option<String>,
}

/// A delivery that is to be sent.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) delivery: String,
    pub(crate) url: String,
    pub(crate) signature: String,
    pub(crate) payload: Arc<str>,
}

/// The last deliveries, and those that are to be sent.
#[derive(Debug)]
pub(crate) struct Deliveries {
    pub(crate) withhold: bool,
    base: String,
    all: VecDeque<WebhookDelivery>,
    outgoing: Vec<Outgoing>,
}

/// The value of the signature's header: HMAC-SHA256 over the raw body, in lowercase hexadecimal.
pub(crate) fn signature(secret: &str, body: &[u8]) -> String {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), body);
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("hmacsha256={hex}")
}

/// An event before it is written down for a webhook.
struct Event {
    kind: &'static str,
    event_type: &'static str,
    attributes: Value,
    resource: &'static str,
}

impl Deliveries {
    pub(crate) fn new(base: &str) -> Self {
        Self { withhold: false, base: base.to_owned(), all: VecDeque::new(), outgoing: Vec::new() }
    }

    /// Tells the webhooks of the app that a change belongs to.
    pub(crate) fn tell(&mut self, teams: &[AppStoreTeam], change: &StateChange) {
        if teams.iter().all(|team| team.webhooks.is_empty()) {
            return;
        }
        let Some(app) = app_of(teams, change) else { return };
        let (id, now) = (uuid::Uuid::new_v4().to_string(), OffsetDateTime::now_utc());
        for webhook in teams.iter().flat_map(|team| &team.webhooks) {
            let Some(event) = event(change, webhook, now).filter(|event| {
                webhook.app == app
                    && webhook.enabled
                    && webhook.event_types.iter().any(|wanted| wanted == event.event_type)
            }) else {
                continue;
            };
            let payload = json!({ "data": {
                "type": event.kind,
                "id": id,
                "version": 1,
                "attributes": event.attributes,
                "relationships": { "instance": {
                    "data": { "type": event.resource, "id": change.id },
                    "links": { "self": format!("{}/v1/{}/{}", self.base, event.resource, change.id) },
                } },
            } });
            self.deliver(webhook, &id, Some(event.event_type), payload.to_string().into(), now, false);
        }
    }

    /// Sends a ping to a webhook; gives the id of its delivery.
    pub(crate) fn ping(&mut self, webhook: &Webhook, shape: PingShape) -> String {
        let (id, now) = (uuid::Uuid::new_v4().to_string(), OffsetDateTime::now_utc());
        let payload = match shape {
            PingShape::Timestamp => json!({ "data": {
                "type": "webhookPingCreated",
                "id": id,
                "version": 1,
                "attributes": { "timestamp": timestamp(now) },
                "relationships": {},
            } }),
            PingShape::Minimal => json!({ "data": { "type": "webhookPingCreated", "id": id } }),
            PingShape::Resource => json!({ "data": {
                "type": "webhookPings",
                "id": id,
                "links": { "self": format!("{}/v1/webhookPings/{id}", self.base) },
            } }),
        };
        self.deliver(webhook, &id, None, payload.to_string().into(), now, false)
    }

    /// Delivers an event again; gives the id of the new delivery.
    pub(crate) fn redeliver(&mut self, webhook: &Webhook, past: &WebhookDelivery) -> String {
        let (id, payload) = (past.event.clone(), Arc::clone(&past.payload));
        self.deliver(webhook, &id, past.event_type, payload, past.event_created, true)
    }

    fn deliver(
        &mut self,
        webhook: &Webhook,
        event: &str,
        event_type: Option<&'static str>,
        payload: Arc<str>,
        event_created: OffsetDateTime,
        redelivery: bool,
    ) -> String {
        let id = uuid::Uuid::new_v4().to_string();
        if self.all.len() == REMEMBERED {
            self.all.pop_front();
        }
        self.all.push_back(WebhookDelivery {
            id: id.clone(),
            webhook: webhook.id.clone(),
            event: event.to_owned(),
            event_type,
            payload: Arc::clone(&payload),
            state: if self.withhold { "FAILED" } else { "PENDING" },
            redelivery,
            event_created,
            created: OffsetDateTime::now_utc(),
            sent: None,
            response: None,
            error: self.withhold.then(|| WITHHELD.to_owned()),
        });
        if !self.withhold {
            let signature = signature(&webhook.secret, payload.as_bytes());
            let url = webhook.url.clone();
            self.outgoing.push(Outgoing { delivery: id.clone(), url, signature, payload });
        }
        id
    }

    /// What is to be sent now; asked for again, it is not given again.
    pub(crate) fn take_outgoing(&mut self) -> Vec<Outgoing> {
        std::mem::take(&mut self.outgoing)
    }

    /// Writes down how sending went.
    pub(crate) fn sent(
        &mut self,
        delivery: &str,
        at: OffsetDateTime,
        outcome: Result<(u16, String), String>,
    ) {
        let Some(found) = self.all.iter_mut().find(|known| known.id == delivery) else { return };
        found.sent = Some(at);
        match outcome {
            Ok((status, body)) => {
                found.state = if (200..300).contains(&status) { "SUCCEEDED" } else { "FAILED" };
                found.response = Some((status, body));
            }
            Err(error) => {
                found.state = "FAILED";
                found.error = Some(error);
            }
        }
    }

    /// All that are remembered, the oldest first.
    pub(crate) fn all(&self) -> impl DoubleEndedIterator<Item = &WebhookDelivery> {
        self.all.iter()
    }
}

/// The app that a change belongs to, where webhooks hear of it.
fn app_of<'a>(teams: &'a [AppStoreTeam], change: &StateChange) -> Option<&'a str> {
    let mut teams = teams.iter();
    match change.resource {
        "appStoreVersions" => teams
            .find_map(|team| team.versions.iter().find(|version| version.id == change.id))
            .map(|version| version.app.as_str()),
        "buildBetaDetails" => teams
            .find_map(|team| team.builds.iter().find(|build| build.id == change.id))
            .map(|build| build.app.as_str()),
        "buildUploads" => teams
            .find_map(|team| team.build_uploads.iter().find(|upload| upload.id == change.id))
            .map(|upload| upload.app.as_str()),
        _ => None,
    }
}

/// The event of a change, as a webhook is told it.
fn event(change: &StateChange, webhook: &Webhook, now: OffsetDateTime) -> Option<Event> {
    let (from, to) = (change.from.as_deref()?, change.to.as_deref()?);
    let event =
        |kind, event_type, attributes| Event { kind, event_type, attributes, resource: change.resource };
    match change.attribute {
        "appVersionState" | "appStoreState" => Some(event(
            "appStoreVersionAppVersionStateUpdated",
            "APP_STORE_VERSION_APP_VERSION_STATE_UPDATED",
            json!({ "oldValue": from, "newValue": to, "timestamp": timestamp(now) }),
        )),
        "externalBuildState" => Some(event(
            "buildBetaDetailExternalBuildStateUpdated",
            "BUILD_BETA_DETAIL_EXTERNAL_BUILD_STATE_UPDATED",
            json!({ "oldExternalBuildState": from, "newExternalBuildState": to, "timestamp": timestamp(now) }),
        )),
        "state" if change.resource == "buildUploads" => {
            let mut attributes = json!({ "newState": to, "timestamp": timestamp(now) });
            if webhook.tells_old_upload_state {
                attributes["oldState"] = from.into();
            }
            Some(event("buildUploadStateUpdated", "BUILD_UPLOAD_STATE_UPDATED", attributes))
        }
        _ => None,
    }
}

/// A time as the payloads carry it: three digits of a second, in UTC.
fn timestamp(at: OffsetDateTime) -> String {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    // Every part of the format stands in a time of any date.
    at.format(&format).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::signature;

    #[test]
    fn a_body_is_signed_as_apple_signs_it() {
        assert_eq!(
            signature("This is my secret", b"Hello, World!"),
            "hmacsha256=7f062172b01cb00b53ca068614674a3d982a34062a0f5d37687d5e3377e54657"
        );
    }
}
