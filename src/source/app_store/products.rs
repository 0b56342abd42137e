//! What an app sells and shows beside its versions, and where it can be had.

use std::collections::BTreeSet;

use super::document::{Related, Resource};
use super::states;

/// An app's information: its name, categories and ratings, as submitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppInfo {
    /// The store's id.
    pub id: String,
    /// Its state. Where an answer has only the deprecated `appStoreState`, that, in the words of this one.
    pub state: String,
}

/// An in-app purchase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InAppPurchase {
    /// The store's id.
    pub id: String,
    /// Its state.
    pub state: String,
    /// Its reference name.
    pub name: Option<String>,
    /// The product id that the app knows it by.
    pub product_id: Option<String>,
    /// `CONSUMABLE`, `NON_CONSUMABLE`, `NON_RENEWING_SUBSCRIPTION`.
    pub purchase_type: Option<String>,
}

/// An auto-renewable subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// The store's id.
    pub id: String,
    /// Its state.
    pub state: String,
    /// Its reference name.
    pub name: Option<String>,
    /// The product id that the app knows it by.
    pub product_id: Option<String>,
    /// The reference name of its group, where the answer says it.
    pub group: Option<String>,
}

/// An in-app event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppEvent {
    /// The store's id.
    pub id: String,
    /// Its state.
    pub state: String,
    /// Its reference name.
    pub name: Option<String>,
}

/// Where an app can be had, but for the territories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Availability {
    /// The store's id.
    pub id: String,
    /// Whether it will be had in territories that the store opens.
    pub available_in_new_territories: Option<bool>,
}

/// An app in a territory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Territory {
    /// The territory's code, three letters.
    pub code: String,
    /// Whether the app is offered there.
    pub available: bool,
    /// What the store says to that, each once.
    pub content_statuses: BTreeSet<String>,
}

pub(super) fn app_info(of: &Resource) -> Option<AppInfo> {
    let deprecated = || of.text("appStoreState").map(states::app_info_state_of_deprecated);
    Some(AppInfo { id: of.id.clone(), state: of.text("state").or_else(deprecated)?.to_owned() })
}

pub(super) fn in_app_purchase(of: &Resource) -> Option<InAppPurchase> {
    Some(InAppPurchase {
        id: of.id.clone(),
        state: of.owned("state")?,
        name: of.owned("name").or_else(|| of.owned("referenceName")),
        product_id: of.owned("productId"),
        purchase_type: of.owned("inAppPurchaseType"),
    })
}

/// `group` is the reference name of the group that it was listed in.
pub(super) fn subscription(of: &Resource, related: &Related, group: Option<&str>) -> Option<Subscription> {
    let told = || related.one(of, "group").and_then(|group| group.owned("referenceName"));
    Some(Subscription {
        id: of.id.clone(),
        state: of.owned("state")?,
        name: of.owned("name"),
        product_id: of.owned("productId"),
        group: group.map(str::to_owned).or_else(told),
    })
}

pub(super) fn app_event(of: &Resource) -> Option<AppEvent> {
    Some(AppEvent { id: of.id.clone(), state: of.owned("eventState")?, name: of.owned("referenceName") })
}

pub(super) fn availability(of: &Resource) -> Availability {
    Availability {
        id: of.id.clone(),
        available_in_new_territories: of
            .attribute("availableInNewTerritories")
            .and_then(serde_json::Value::as_bool),
    }
}

/// The longest code of a territory that is taken over, in bytes. They are ISO 3166's, of three letters.
const MAX_TERRITORY: usize = 16;

fn is_territory(code: &str) -> bool {
    (1..=MAX_TERRITORY).contains(&code.len()) && !code.chars().any(char::is_control)
}

pub(super) fn territory(of: &Resource) -> Option<Territory> {
    let statuses = of.attribute("contentStatuses").and_then(serde_json::Value::as_array);
    Some(Territory {
        code: of.one("territory").map(|(_, code)| code).filter(|code| is_territory(code))?.to_owned(),
        available: of.attribute("available")?.as_bool()?,
        content_statuses: statuses
            .into_iter()
            .flatten()
            .filter_map(serde_json::Value::as_str)
            .map(str::to_owned)
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::{Value, json};

    use super::*;

    fn resource(document: Value) -> Resource {
        serde_json::from_value(document).unwrap()
    }

    #[test]
    fn a_purchase_is_named_in_either_way_that_the_store_has() {
        let read =
            |attributes: Value| in_app_purchase(&resource(json!({ "id": "1", "attributes": attributes })));
        let second = read(
            json!({ "name": "Gold", "productId": "gold", "inAppPurchaseType": "CONSUMABLE", "state": "APPROVED" }),
        );
        let first = read(
            json!({ "referenceName": "Gold", "productId": "gold", "inAppPurchaseType": "CONSUMABLE", "state": "APPROVED" }),
        );
        assert_eq!(second, first);
        assert_eq!(second.unwrap().name.as_deref(), Some("Gold"));
        assert_eq!(read(json!({ "name": "Gold" })), None);
    }

    #[test]
    fn an_info_has_a_state_in_todays_words() {
        let read = |attributes: Value| {
            app_info(&resource(json!({ "id": "1", "attributes": attributes }))).map(|info| info.state)
        };
        assert_eq!(read(json!({ "state": "PENDING_RELEASE" })).as_deref(), Some("PENDING_RELEASE"));
        assert_eq!(
            read(json!({ "appStoreState": "PENDING_APPLE_RELEASE" })).as_deref(),
            Some("PENDING_RELEASE")
        );
        assert_eq!(
            read(json!({ "appStoreState": "METADATA_REJECTED" })).as_deref(),
            Some("METADATA_REJECTED")
        );
        assert_eq!(read(json!({ "state": null })), None);
    }

    #[test]
    fn a_territory_that_does_not_say_whether_is_not_read() {
        let read = |attributes: Value| {
            territory(&resource(json!({
                "id": "t", "attributes": attributes,
                "relationships": { "territory": { "data": { "type": "territories", "id": "NOR" } } },
            })))
        };
        let told =
            read(json!({ "available": false, "contentStatuses": ["CANNOT_SELL", "NEW", "CANNOT_SELL"] }))
                .unwrap();
        assert_eq!((told.code.as_str(), told.available), ("NOR", false));
        assert_eq!(told.content_statuses.into_iter().collect::<Vec<_>>(), ["CANNOT_SELL", "NEW"]);
        assert_eq!(read(json!({ "contentStatuses": [] })), None);
        for code in ["NORWAY-AND-SVALBARD", "N\0R", ""] {
            let coded = json!({ "id": "t", "attributes": { "available": true },
                "relationships": { "territory": { "data": { "type": "territories", "id": code } } } });
            assert_eq!(territory(&resource(coded)), None, "{code:?}");
        }
    }
}
