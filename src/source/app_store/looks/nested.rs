//! Lists within lists: submissions and their items, groups and their subscriptions, an availability and its
//! territories. What the outer list does not include whole is listed by itself.

use std::collections::{HashMap, HashSet};

use super::super::answer::{self, ReviewSubmission, Territory};
use super::super::client::{AppStoreClient, Request};
use super::super::document::{Related, Resource};
use super::super::observe::{self, KnownApp, take};
use super::super::products;
use super::{Known, covered, owner};
use crate::observation::{Kind, Observation};
use crate::source::fetch::StoreError;
use crate::source::look::{Covered, Look};

/// The submissions of these apps, at most [`APPS_A_REQUEST`], with their items.
pub(super) async fn reviews(
    client: &AppStoreClient,
    apps: &[KnownApp],
    known: &Known,
    look: &mut Look,
) -> Result<(), StoreError> {
    let ids: Vec<_> = apps.iter().map(|app| app.id.as_str()).collect();
    let app_ids = ids.join(",");
    // Those whose items are more than a page includes, and those of whose items some are not told.
    let mut long: Vec<(KnownApp, ReviewSubmission)> = Vec::new();
    let mut partial: HashSet<String> = HashSet::new();
    let read = |found: &Resource, related: &Related<'_>| {
        let Some(submission) = answer::review_submission(found, related) else { return false };
        let (bundle_id, name) = (submission.bundle_id.as_deref(), submission.app_name.as_deref());
        let app = match (submission.app_id.as_deref(), apps) {
            (None, [only]) => Some(only.clone()),
            (id, _) => {
                let asked = apps.iter().find(|app| Some(app.id.as_str()) == id);
                asked.cloned().or_else(|| owner(id, bundle_id, name, known))
            }
        };
        let Some(app) = app else { return false };
        let mut read = take(look, observe::review_submission(&app, &submission));
        if submission.items_complete {
            for item in &submission.items {
                read &= take(look, observe::review_item(&app, &submission, item));
            }
        } else if submission.items_unread == 0 && !submission.items.is_empty() {
            long.push((app, submission));
        } else {
            for item in &submission.items {
                read &= take(look, observe::review_item(&app, &submission, item));
            }
            look.unread += submission.items_unread;
            partial.insert(app.id.clone());
        }
        read
    };
    let walked = client.walk(Request::ReviewSubmissions { app_ids: &app_ids }, read).await;
    let mut failed = None;
    for (app, submission) in long {
        // What came with the submission is true, also where the rest is not had.
        let mut items = HashMap::new();
        let request = Request::ReviewItems { submission_id: &submission.id };
        let read = |found: &Resource, _: &Related<'_>| {
            let Some(item) = answer::review_item(found) else { return false };
            items.insert(item.id.clone(), item);
            true
        };
        let rest = if failed.is_none() { Some(client.walk(request, read).await) } else { None };
        for item in &submission.items {
            items.entry(item.id.clone()).or_insert_with(|| item.clone());
        }
        match rest {
            Some(Ok(walk)) if walk.complete => {}
            Some(Ok(walk)) => {
                look.unread += walk.unread;
                partial.insert(app.id.clone());
            }
            Some(Err(error)) => failed = Some(error),
            None => {}
        }
        for item in items.values() {
            look.unread += u32::from(!take(look, observe::review_item(&app, &submission, item)));
        }
    }
    let walk = walked?;
    if let Some(error) = failed {
        return Err(error);
    }
    look.unread += walk.unread;
    if walk.complete {
        for id in ids {
            look.covered.push(Covered { kind: Kind::ReviewSubmission, scope: Some(id.to_owned()) });
            if !partial.contains(id) {
                look.covered.push(Covered { kind: Kind::ReviewItem, scope: Some(id.to_owned()) });
            }
        }
    }
    Ok(())
}

/// An app's subscriptions, of all its groups.
pub(super) async fn subscriptions(
    client: &AppStoreClient,
    app: &KnownApp,
    look: &mut Look,
) -> Result<(), StoreError> {
    // Groups whose subscriptions are more than a page includes, or are not told.
    let mut long: Vec<(String, Option<String>)> = Vec::new();
    let read = |found: &Resource, related: &Related<'_>| {
        let group = found.owned("referenceName");
        let many = found.many("subscriptions");
        if !many.complete {
            long.push((found.id.clone(), group));
            return true;
        }
        let mut whole = true;
        for id in many.ids {
            let told = related.get("subscriptions", id);
            let told = told.and_then(|told| products::subscription(&told, related, group.as_deref()));
            whole &= told.is_some_and(|told| take(look, observe::subscription(app, &told)));
        }
        whole
    };
    let mut walk = client.walk(Request::SubscriptionGroups { app_id: &app.id }, read).await?;
    for (group_id, group) in long {
        let read = |found: &Resource, related: &Related<'_>| {
            let told = products::subscription(found, related, group.as_deref());
            told.is_some_and(|told| take(look, observe::subscription(app, &told)))
        };
        let listed = client.walk(Request::GroupSubscriptions { group_id: &group_id }, read).await?;
        walk.complete &= listed.complete;
        walk.unread += listed.unread;
    }
    covered(look, walk, &[Kind::Subscription], Some(&app.id));
    Ok(())
}

/// Where an app can be had; none where it was never offered.
pub(in crate::source::app_store) async fn availability(
    client: &AppStoreClient,
    app: &KnownApp,
) -> Result<Option<Observation>, StoreError> {
    let request = Request::Availability { app_id: &app.id };
    let found = match client.one(request, |found, _| Some(products::availability(found))).await {
        Ok(Some(found)) => found,
        Ok(None) | Err(StoreError::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut territories: Vec<Territory> = Vec::new();
    let read = |place: &Resource, _: &Related<'_>| {
        let Some(territory) = products::territory(place) else { return false };
        territories.push(territory);
        true
    };
    let walk = client.walk(Request::TerritoryAvailabilities { availability_id: &found.id }, read).await?;
    // The list has every territory of the store, those too where the app cannot be had: one of none is a lie.
    if !walk.complete || territories.is_empty() {
        return Err(StoreError::Malformed { what: "a list of territories that is not whole" });
    }
    Ok(Some(observe::availability(app, &found, &territories)))
}
