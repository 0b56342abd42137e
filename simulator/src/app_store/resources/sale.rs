//! What is sold, where, and what is announced.

use serde_json::json;

use crate::app_store::jsonapi::Resource;
use crate::app_store::resources::{date, elsewhere, many, one, text, unlinked};
use crate::app_store::view::View;
use crate::scenario::{AppEvent, Availability, InAppPurchase, Subscription, SubscriptionGroup, Territory};
use crate::values::OLD_IN_APP_PURCHASE_STATES;

/// The relationships of an in-app purchase to what the simulator does not have.
const PURCHASE_ELSEWHERE: &[&str] = &[
    "inAppPurchaseLocalizations",
    "pricePoints",
    "content",
    "appStoreReviewScreenshot",
    "promotedPurchase",
    "iapPriceSchedule",
    "inAppPurchaseAvailability",
    "images",
    "offerCodes",
    "versions",
];

/// The relationships of a subscription to what the simulator does not have.
const SUBSCRIPTION_ELSEWHERE: &[&str] = &[
    "subscriptionLocalizations",
    "appStoreReviewScreenshot",
    "introductoryOffers",
    "promotionalOffers",
    "offerCodes",
    "prices",
    "pricePoints",
    "promotedPurchase",
    "subscriptionAvailability",
    "winBackOffers",
    "images",
    "planAvailabilities",
    "versions",
];

/// For how long an event goes on.
const EVENT_LIFE: time::Duration = time::Duration::days(7);

impl View<'_> {
    pub(super) fn group_resource(&self, group: &SubscriptionGroup) -> Resource {
        Resource {
            kind: "subscriptionGroups",
            id: group.id.clone(),
            collection: Some("/v1/subscriptionGroups"),
            attributes: vec![("referenceName", text(&group.reference_name))],
            relationships: [many("subscriptions", "subscriptions", self.subscriptions.ids_of(&group.id))]
                .into_iter()
                .chain(elsewhere(&["subscriptionGroupLocalizations", "versions"]))
                .collect(),
        }
    }
}

/// An in-app purchase.
pub(super) fn purchase(purchase: &InAppPurchase) -> Resource {
    Resource {
        kind: "inAppPurchases",
        id: purchase.id.clone(),
        collection: Some("/v2/inAppPurchases"),
        attributes: vec![
            ("name", text(&purchase.name)),
            ("productId", text(&purchase.product_id)),
            ("inAppPurchaseType", text(&purchase.kind)),
            ("state", text(&purchase.state)),
            ("familySharable", Some(false.into())),
            ("contentHosting", Some(false.into())),
        ],
        relationships: elsewhere(PURCHASE_ELSEWHERE).collect(),
    }
}

/// An in-app purchase where apps include it: the description has the deprecated resource there, which does
/// not know every state.
pub(super) fn old_purchase(purchase: &InAppPurchase) -> Resource {
    let known = OLD_IN_APP_PURCHASE_STATES.contains(&purchase.state.as_str());
    Resource {
        kind: "inAppPurchases",
        id: purchase.id.clone(),
        collection: Some("/v1/inAppPurchases"),
        attributes: vec![
            ("referenceName", text(&purchase.name)),
            ("productId", text(&purchase.product_id)),
            ("inAppPurchaseType", text(&purchase.kind)),
            ("state", known.then(|| purchase.state.clone().into())),
        ],
        relationships: Vec::new(),
    }
}

/// A subscription.
pub(super) fn subscription(subscription: &Subscription) -> Resource {
    Resource {
        kind: "subscriptions",
        id: subscription.id.clone(),
        collection: Some("/v1/subscriptions"),
        attributes: vec![
            ("name", text(&subscription.name)),
            ("productId", text(&subscription.product_id)),
            ("familySharable", Some(false.into())),
            ("state", text(&subscription.state)),
            ("subscriptionPeriod", text(&subscription.period)),
            ("groupLevel", Some(1.into())),
        ],
        relationships: [unlinked(one("group", "subscriptionGroups", Some(subscription.group.clone())))]
            .into_iter()
            .chain(elsewhere(SUBSCRIPTION_ELSEWHERE))
            .collect(),
    }
}

/// An event of an app.
pub(super) fn event(event: &AppEvent) -> Resource {
    let schedule = event.publish_start.map(|start| {
        json!([{
            "territories": ["USA"],
            "publishStart": date(Some(start)),
            "eventStart": date(Some(start)),
            "eventEnd": date(Some(start + EVENT_LIFE)),
        }])
    });
    Resource {
        kind: "appEvents",
        id: event.id.clone(),
        collection: Some("/v1/appEvents"),
        attributes: vec![
            ("referenceName", text(&event.reference_name)),
            ("badge", text("SPECIAL_EVENT")),
            ("eventState", text(&event.state)),
            ("purchaseRequirement", text("NO_COST_ASSOCIATED")),
            ("primaryLocale", text("en-US")),
            ("priority", text("NORMAL")),
            ("purpose", text("APPROPRIATE_FOR_ALL_USERS")),
            ("territorySchedules", schedule),
        ],
        relationships: elsewhere(&["localizations"]).collect(),
    }
}

/// Where an app is on sale; its id is the app's.
pub(super) fn availability(availability: &Availability) -> Resource {
    let ids = availability.territories.iter().map(|territory| territory.id(&availability.app)).collect();
    Resource {
        kind: "appAvailabilities",
        id: availability.app.clone(),
        collection: Some("/v2/appAvailabilities"),
        attributes: vec![("availableInNewTerritories", Some(availability.in_new_territories.into()))],
        relationships: vec![many("territoryAvailabilities", "territoryAvailabilities", ids)],
    }
}

/// Whether an app is on sale in a territory.
pub(super) fn territory_availability(availability: &Availability, territory: &Territory) -> Resource {
    Resource {
        kind: "territoryAvailabilities",
        id: territory.id(&availability.app),
        collection: Some("/v1/territoryAvailabilities"),
        attributes: vec![
            ("available", Some(territory.available.into())),
            ("preOrderEnabled", Some(false.into())),
            ("contentStatuses", Some(territory.content_statuses.clone().into())),
        ],
        relationships: vec![unlinked(one("territory", "territories", Some(territory.territory.clone())))],
    }
}

/// A territory.
pub(super) fn territory(territory: &Territory) -> Resource {
    Resource {
        kind: "territories",
        id: territory.territory.clone(),
        collection: None,
        attributes: vec![("currency", text("USD"))],
        relationships: Vec::new(),
    }
}
