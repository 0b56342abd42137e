//! Webhooks, and what was sent to them.

use serde_json::json;

use crate::app_store::jsonapi::Resource;
use crate::app_store::resources::{date, elsewhere, one, text, unlinked};
use crate::app_store::view::View;
use crate::scenario::Webhook;
use crate::world::WebhookDelivery;

impl View<'_> {
    pub(super) fn delivery_resource(&self, delivery: &WebhookDelivery) -> Resource {
        let url = self.webhooks.get(&delivery.webhook).map(|webhook| json!({ "url": webhook.url }));
        let response = delivery
            .response
            .as_ref()
            .map(|(status, body)| json!({ "httpStatusCode": status, "body": body }));
        Resource {
            kind: "webhookDeliveries",
            id: delivery.id.clone(),
            collection: None,
            attributes: vec![
                ("createdDate", date(Some(delivery.created))),
                ("deliveryState", text(delivery.state)),
                ("errorMessage", delivery.error.as_ref().and_then(text)),
                ("redelivery", Some(delivery.redelivery.into())),
                ("sentDate", date(delivery.sent)),
                ("request", url),
                ("response", response),
            ],
            relationships: vec![unlinked(one("event", "webhookEvents", Some(delivery.event.clone())))],
        }
    }
}

/// A webhook, without its secret.
pub(super) fn webhook(webhook: &Webhook) -> Resource {
    Resource {
        kind: "webhooks",
        id: webhook.id.clone(),
        collection: Some("/v1/webhooks"),
        attributes: vec![
            ("enabled", Some(webhook.enabled.into())),
            ("eventTypes", Some(webhook.event_types.clone().into())),
            ("name", text(&webhook.name)),
            ("url", text(&webhook.url)),
        ],
        relationships: [unlinked(one("app", "apps", Some(webhook.app.clone())))]
            .into_iter()
            .chain(elsewhere(&["deliveries"]))
            .collect(),
    }
}

/// An event that was delivered.
pub(super) fn event(delivery: &WebhookDelivery) -> Resource {
    Resource {
        kind: "webhookEvents",
        id: delivery.event.clone(),
        collection: None,
        attributes: vec![
            ("eventType", delivery.event_type.and_then(text)),
            ("payload", text(&delivery.payload)),
            ("ping", Some(delivery.event_type.is_none().into())),
            ("createdDate", date(Some(delivery.event_created))),
        ],
        relationships: Vec::new(),
    }
}
