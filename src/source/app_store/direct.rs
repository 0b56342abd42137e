//! One resource, asked for by itself: whether it is there, and in what state. A list that left something out, or put
//! it back, is not believed without this.

use super::answer;
use super::client::{AppStoreClient, Request};
use super::document::{Related, Resource};
use super::looks::{KnownApp, availability, known_app};
use super::{observe, products};
use crate::observation::{Doubt, Kind, Observation};
use crate::source::fetch::StoreError;

/// Why something is not asked for: it was recorded without what it hangs on.
const OF_NOTHING: StoreError = StoreError::Malformed { what: "something that hangs on nothing known" };

/// Asks for one subject of an app by itself: `Ok(None)` where the store says that there is no such (404, 410, or a
/// relationship to nothing).
///
/// Two kinds have no address of their own. A phased release is asked for as its version's, a thing in review with its
/// submission: never in a list of all, which may be the very one that lied.
///
/// # Errors
/// The request that failed; [`StoreError::Malformed`] where what it hangs on is not known, a list is not whole or the
/// resource has no state; [`StoreError::Setup`] for a kind that is not Apple's.
pub async fn direct(
    client: &AppStoreClient,
    doubt: &Doubt,
    app: &KnownApp,
) -> Result<Option<Observation>, StoreError> {
    let (kind, key) = (doubt.kind, doubt.key.as_str());
    let found = match kind {
        Kind::App => {
            let found = client.one(Request::App { id: key }, |found, _| answer::app(found)).await;
            found.map(|found| found.map(|found| observe::app(&known_app(found))))
        }
        Kind::Version => {
            let read = |found: &Resource, related: &Related<'_>| {
                Some(observe::version(app, &answer::version(found, related)?))
            };
            client.one(Request::Version { id: key }, read).await
        }
        Kind::PhasedRelease => phased_release(client, doubt, app).await,
        Kind::Build | Kind::BetaInternal | Kind::BetaExternal => build(client, kind, key, app).await,
        Kind::BetaReview => {
            let read = |found: &Resource, related: &Related<'_>| {
                Some(observe::beta_review(app, &answer::beta_review(found, related)?))
            };
            client.one(Request::BetaReview { id: key }, read).await
        }
        Kind::BuildUpload => {
            let read = |found: &Resource, _: &Related<'_>| {
                Some(observe::build_upload(app, &answer::build_upload(found)?))
            };
            client.one(Request::BuildUpload { id: key }, read).await
        }
        Kind::ReviewSubmission => {
            let read = |found: &Resource, related: &Related<'_>| {
                Some(observe::review_submission(app, &answer::review_submission(found, related)?))
            };
            client.one(Request::ReviewSubmission { id: key }, read).await
        }
        Kind::ReviewItem => review_item(client, doubt, app).await,
        Kind::AppInfo => {
            let read =
                |found: &Resource, _: &Related<'_>| Some(observe::app_info(app, &products::app_info(found)?));
            client.one(Request::AppInfo { id: key }, read).await
        }
        Kind::InAppPurchase => {
            let read = |found: &Resource, _: &Related<'_>| {
                Some(observe::in_app_purchase(app, &products::in_app_purchase(found)?))
            };
            client.one(Request::InAppPurchase { id: key }, read).await
        }
        Kind::Subscription => {
            let read = |found: &Resource, related: &Related<'_>| {
                Some(observe::subscription(app, &products::subscription(found, related, None)?))
            };
            client.one(Request::Subscription { id: key }, read).await
        }
        Kind::AppEvent => {
            let read = |found: &Resource, _: &Related<'_>| {
                Some(observe::app_event(app, &products::app_event(found)?))
            };
            client.one(Request::AppEvent { id: key }, read).await
        }
        Kind::Availability => availability(client, app).await,
        Kind::Release | Kind::Rollout => {
            let reason = format!("App Store Connect has no {}", kind.name());
            Err(StoreError::Setup { reason })
        }
    };
    match found {
        Err(StoreError::NotFound { .. }) => Ok(None),
        found => found,
    }
}

/// A build, or what TestFlight says about it.
async fn build(
    client: &AppStoreClient,
    kind: Kind,
    key: &str,
    app: &KnownApp,
) -> Result<Option<Observation>, StoreError> {
    let read = |found: &Resource, related: &Related<'_>| {
        let build = answer::build(found, related)?;
        let told = found.one("buildBetaDetail").is_none_or(|(kind, id)| related.get(kind, id).is_some());
        (kind == Kind::Build || told).then(|| observe::build(app, &build))
    };
    let seen = client.one(Request::Build { id: key }, read).await?;
    Ok(seen.into_iter().flatten().find(|seen| seen.kind == kind))
}

/// A version has one phased release at a time. One with another id is none of this one's.
async fn phased_release(
    client: &AppStoreClient,
    doubt: &Doubt,
    app: &KnownApp,
) -> Result<Option<Observation>, StoreError> {
    let version_id = doubt.said("version_id").ok_or(OF_NOTHING)?;
    let request = Request::PhasedRelease { version_id };
    let found = client.one(request, |found, _| answer::phased_release(found)).await?;
    let found = found.filter(|found| found.id == doubt.key);
    Ok(found.map(|found| {
        let (platform, version) = (doubt.said("platform"), doubt.said("version"));
        observe::phased_release_of(app, version_id, platform, version, &found)
    }))
}

async fn review_item(
    client: &AppStoreClient,
    doubt: &Doubt,
    app: &KnownApp,
) -> Result<Option<Observation>, StoreError> {
    let id = doubt.said("submission").ok_or(OF_NOTHING)?;
    let read = |found: &Resource, related: &Related<'_>| answer::review_submission(found, related);
    let Some(submission) = client.one(Request::ReviewSubmission { id }, read).await? else { return Ok(None) };
    let mut found = submission.items.iter().find(|item| item.id == doubt.key).cloned();
    if found.is_none() && !submission.items_complete {
        let read = |of: &Resource, _: &Related<'_>| {
            let Some(item) = answer::review_item(of) else { return false };
            if item.id == doubt.key {
                found = Some(item);
            }
            true
        };
        let whole = client.walk(Request::ReviewItems { submission_id: id }, read).await?.complete;
        if found.is_none() && !whole {
            return Err(StoreError::Malformed { what: "a list that is not whole" });
        }
    }
    Ok(found.map(|item| observe::review_item(app, &submission, &item)))
}
