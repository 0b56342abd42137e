//! One poll of App Store Connect: what is asked, and what of it is seen. Nothing is kept between polls, and a poll that
//! fails half-way keeps what it saw.

use super::answer::{self, Build};
use super::client::{AppStoreClient, Request, Walk};
use super::document::{Related, Resource};
pub use super::observe::KnownApp;
use super::observe::{self, take};
use super::polls::names_an_app;
pub use super::polls::{Counts, Poll, covers, minimum_requests};
use super::requests::{APPS_A_REQUEST, BUILDS_A_REQUEST};
pub use super::states::heat;
use super::{products, webhook};
use crate::observation::{Kind, Observation};
use crate::source::fetch::StoreError;
use crate::source::look::{Covered, Look};
pub(super) use nested::availability;
use nested::{reviews, subscriptions};
use std::collections::HashSet;
use time::OffsetDateTime;

mod nested;

/// How many apps a page has: the most that the store gives.
const APPS_A_PAGE: u16 = 200;

/// How many apps a page has where what so many apps include is more than is read of an answer.
const FEWER_APPS_A_PAGE: u16 = 40;

/// How many hot builds beside the newest one poll asks for: what a page would have. The others have their turn with the
/// next, so that a value that Apple gives to thousands at once does not cost a request for 50 of them each minute.
const OLDER_BUILDS: usize = 200;

/// What the last `apps` look told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The apps that the key sees.
    pub apps: Vec<KnownApp>,
    /// Since when what webhooks have sent is not known yet; none where this source is not told by webhooks.
    pub told_since: Option<OffsetDateTime>,
    /// The ids of the builds that are hot, the longest unseen first. For [`Poll::RecentBuilds`] alone.
    pub hot_builds: Vec<String>,
}

impl Known {
    fn app(&self, id: &str) -> Option<&KnownApp> {
        self.apps.iter().find(|app| app.id == id)
    }
}

/// Polls once. `look` gets what was seen, also where the poll fails half-way; [`Look::polls`] is only told by
/// [`Poll::Apps`], and all of them are only where it covers [`Kind::App`].
///
/// # Errors
/// The first request that failed. A poll of an app that the key sees no longer is [`StoreError::NotFound`].
pub async fn look(
    client: &AppStoreClient,
    poll: &Poll,
    known: &Known,
    look: &mut Look,
) -> Result<(), StoreError> {
    match poll {
        Poll::Apps => apps(client, look).await,
        Poll::Builds => builds(client, known, look).await,
        Poll::RecentBuilds => recent_builds(client, known, look).await,
        Poll::Reviews => {
            for apps in known.apps.chunks(APPS_A_REQUEST) {
                reviews(client, apps, known, look).await?;
            }
            Ok(())
        }
        Poll::ReviewsOf(id) => {
            let app = app_of(client, known, id).await?;
            reviews(client, &[app], known, look).await
        }
        Poll::Versions(id) | Poll::AllVersions(id) => {
            let app = app_of(client, known, id).await?;
            let read = |found: &Resource, related: &Related<'_>| {
                let Some(version) = answer::version(found, related) else { return false };
                let phased = version.phased_release.as_ref();
                let phased = phased.map(|phased| observe::phased_release(&app, &version, phased));
                let read = take(look, observe::version(&app, &version));
                // One that is pointed at and not told is not absent.
                let whole = phased.is_some() || found.one("appStoreVersionPhasedRelease").is_none();
                phased.is_none_or(|phased| take(look, phased)) && whole && read
            };
            let walk = client.walk(Request::Versions { app_id: id }, read).await?;
            covered(look, walk, &[Kind::Version, Kind::PhasedRelease], Some(id));
            Ok(())
        }
        Poll::Subscriptions(id) => {
            let app = app_of(client, known, id).await?;
            subscriptions(client, &app, look).await
        }
        Poll::InAppPurchases(id) => {
            let read = |app: &KnownApp, found: &Resource| {
                Some(observe::in_app_purchase(app, &products::in_app_purchase(found)?))
            };
            list(client, Request::InAppPurchases { app_id: id }, id, known, Kind::InAppPurchase, look, read)
                .await
        }
        Poll::AppInfos(id) => {
            let read =
                |app: &KnownApp, found: &Resource| Some(observe::app_info(app, &products::app_info(found)?));
            list(client, Request::AppInfos { app_id: id }, id, known, Kind::AppInfo, look, read).await
        }
        Poll::AppEvents(id) => {
            let read = |app: &KnownApp, found: &Resource| {
                Some(observe::app_event(app, &products::app_event(found)?))
            };
            list(client, Request::AppEvents { app_id: id }, id, known, Kind::AppEvent, look, read).await
        }
        Poll::Uploads(id) => {
            let read = |app: &KnownApp, found: &Resource| {
                Some(observe::build_upload(app, &answer::build_upload(found)?))
            };
            list(client, Request::BuildUploads { app_id: id }, id, known, Kind::BuildUpload, look, read).await
        }
        Poll::Availability(id) => {
            let app = app_of(client, known, id).await?;
            if let Some(seen) = availability(client, &app).await? {
                look.unread += u32::from(!take(look, seen));
            }
            look.covered.push(Covered { kind: Kind::Availability, scope: Some(id.clone()) });
            Ok(())
        }
        Poll::Webhooks(id) => {
            let since = known.told_since.unwrap_or_else(OffsetDateTime::now_utc);
            for webhook in client.webhooks(id).await?.items {
                for delivery in client.webhook_deliveries(&webhook.id, since).await?.items {
                    match webhook::parse_delivery(&delivery) {
                        Some(Ok(event)) => look.told.push(event),
                        Some(Err(_)) => look.unread += 1,
                        None => {}
                    }
                }
            }
            Ok(())
        }
    }
}

/// Notes the end of a walk: what it listed is covered where it was whole.
fn covered(look: &mut Look, walk: Walk, kinds: &[Kind], scope: Option<&str>) {
    look.unread += walk.unread;
    if walk.complete {
        let covered = kinds.iter().map(|kind| Covered { kind: *kind, scope: scope.map(str::to_owned) });
        look.covered.extend(covered);
    }
}

/// The app, as the last list of apps had it, or as it is by itself.
async fn app_of(client: &AppStoreClient, known: &Known, id: &str) -> Result<KnownApp, StoreError> {
    if let Some(app) = known.app(id) {
        return Ok(app.clone());
    }
    let found = client.one(Request::App { id }, |found, _| answer::app(found)).await?;
    found.map(known_app).ok_or(StoreError::Malformed { what: "an app that is none" })
}

pub(super) fn known_app(app: answer::App) -> KnownApp {
    KnownApp { id: app.id, bundle_id: app.bundle_id, name: app.name }
}

/// A list of an app whose every item is one subject.
async fn list(
    client: &AppStoreClient,
    request: Request<'_>,
    id: &str,
    known: &Known,
    kind: Kind,
    look: &mut Look,
    read: impl Fn(&KnownApp, &Resource) -> Option<Observation>,
) -> Result<(), StoreError> {
    let app = app_of(client, known, id).await?;
    let walk =
        client.walk(request, |found, _| read(&app, found).is_some_and(|seen| take(look, seen))).await?;
    covered(look, walk, &[kind], Some(id));
    Ok(())
}

async fn apps(client: &AppStoreClient, look: &mut Look) -> Result<(), StoreError> {
    let mut whole = Look::default();
    let mut walked = walk_apps(client, APPS_A_PAGE, &mut whole).await;
    if matches!(walked, Err(StoreError::TooLarge { .. })) {
        whole = Look::default();
        walked = walk_apps(client, FEWER_APPS_A_PAGE, &mut whole).await;
    }
    look.observations.append(&mut whole.observations);
    look.covered.append(&mut whole.covered);
    look.polls.push(Poll::Apps.name());
    if !whole.polls.is_empty() {
        look.polls.extend([Poll::Builds, Poll::RecentBuilds, Poll::Reviews].map(|poll| poll.name()));
    }
    look.polls.append(&mut whole.polls);
    look.unread += whole.unread;
    covered(look, walked?, &[Kind::App], None);
    Ok(())
}

async fn walk_apps(client: &AppStoreClient, page: u16, look: &mut Look) -> Result<Walk, StoreError> {
    client.walk(Request::Apps { page }, |found, related| take_app(found, related, look)).await
}

/// An app with all that its page includes of it.
fn take_app(found: &Resource, related: &Related<'_>, look: &mut Look) -> bool {
    let Some(app) = answer::app(found).map(known_app) else { return false };
    if !names_an_app(&app.id) || !take(look, observe::app(&app)) {
        return false;
    }
    let id = || app.id.clone();
    let versions = included(found, related, &app, look, "appStoreVersions", Kind::Version, |app, found| {
        Some(observe::version(app, &answer::version(found, related)?))
    });
    let purchases =
        included(found, related, &app, look, "inAppPurchasesV2", Kind::InAppPurchase, |app, found| {
            Some(observe::in_app_purchase(app, &products::in_app_purchase(found)?))
        });
    let infos = included(found, related, &app, look, "appInfos", Kind::AppInfo, |app, found| {
        Some(observe::app_info(app, &products::app_info(found)?))
    });
    let events = included(found, related, &app, look, "appEvents", Kind::AppEvent, |app, found| {
        Some(observe::app_event(app, &products::app_event(found)?))
    });
    let seen = look.observations.len();
    let submissions =
        included(found, related, &app, look, "reviewSubmissions", Kind::ReviewSubmission, |app, found| {
            Some(observe::review_submission(app, &answer::review_submission(found, related)?))
        });
    let open = look.observations[seen..].iter().any(|submission| submission.state != "COMPLETE");
    let groups = found.many("subscriptionGroups");
    let reasons = [
        (Poll::Versions(id()), versions),
        (Poll::AllVersions(id()), !versions),
        (Poll::InAppPurchases(id()), !purchases),
        (Poll::AppInfos(id()), !infos),
        (Poll::AppEvents(id()), !events),
        (Poll::ReviewsOf(id()), open || !submissions),
        (Poll::Subscriptions(id()), !groups.ids.is_empty() || !groups.complete),
        (Poll::Uploads(id()), true),
        (Poll::Availability(id()), true),
    ];
    look.polls.extend(reasons.into_iter().filter(|(_, reason)| *reason).map(|(poll, _)| poll.name()));
    true
}

/// What a page includes of one relationship of an app. Whether that is all there is, so that the app is covered.
fn included(
    found: &Resource,
    related: &Related<'_>,
    app: &KnownApp,
    look: &mut Look,
    relationship: &str,
    kind: Kind,
    read: impl Fn(&KnownApp, &Resource) -> Option<Observation>,
) -> bool {
    // The resources' type is the relationship's name, but for this one.
    let resources = if relationship == "inAppPurchasesV2" { "inAppPurchases" } else { relationship };
    let many = found.many(relationship);
    let mut complete = many.complete;
    for id in many.ids {
        let seen = related.get(resources, id).and_then(|found| read(app, &found));
        if !seen.is_some_and(|seen| take(look, seen)) {
            look.unread += 1;
            complete = false;
        }
    }
    if complete {
        look.covered.push(Covered { kind, scope: Some(app.id.clone()) });
    }
    complete
}

async fn builds(client: &AppStoreClient, known: &Known, look: &mut Look) -> Result<(), StoreError> {
    let read = |found: &Resource, related: &Related<'_>| take_build(found, related, known, look);
    let walk = client.walk(Request::Builds, read).await?;
    let kinds = [Kind::Build, Kind::BetaInternal, Kind::BetaExternal, Kind::BetaReview];
    covered(look, walk, &kinds, None);
    Ok(())
}

/// The newest page of builds, and the hot ones that are not on it. They are asked for by their ids: a filter by state would
/// not tell how those ended that have left it.
async fn recent_builds(client: &AppStoreClient, known: &Known, look: &mut Look) -> Result<(), StoreError> {
    let mut newest = HashSet::new();
    let read = |found: &Resource, related: &Related<'_>| {
        newest.insert(found.id.clone());
        take_build(found, related, known, look)
    };
    let walk = client.first_page(Request::Builds, read).await?;
    look.unread += walk.unread;
    if walk.complete {
        return Ok(());
    }
    // An id with a comma would be two.
    let older = known.hot_builds.iter().filter(|id| !newest.contains(*id) && !id.contains(','));
    let older: Vec<&str> = older.take(OLDER_BUILDS).map(String::as_str).collect();
    for ids in older.chunks(BUILDS_A_REQUEST) {
        let ids = ids.join(",");
        let read = |found: &Resource, related: &Related<'_>| take_build(found, related, known, look);
        let walk = client.first_page(Request::BuildsNamed { ids: &ids }, read).await?;
        look.unread += walk.unread;
    }
    Ok(())
}

/// A build, of the app that its own answer names: a filter or a list of apps may be behind.
fn take_build(found: &Resource, related: &Related<'_>, known: &Known, look: &mut Look) -> bool {
    let Some(build) = answer::build(found, related) else { return false };
    let Build { app_id, bundle_id, app_name, .. } = &build;
    let Some(app) = owner(app_id.as_deref(), bundle_id.as_deref(), app_name.as_deref(), known) else {
        return false;
    };
    let mut whole = points_at_what_is_told(found, related, &["buildBetaDetail", "betaAppReviewSubmission"]);
    for seen in observe::build(&app, &build) {
        whole &= take(look, seen);
    }
    whole
}

/// Whether the page has the resources that these relationships point at. What is pointed at and not told is not absent.
fn points_at_what_is_told(found: &Resource, related: &Related<'_>, relationships: &[&str]) -> bool {
    relationships.iter().all(|name| found.one(name).is_none_or(|(kind, id)| related.get(kind, id).is_some()))
}

/// Whose something is: by the answer itself, or by the last list of apps.
fn owner(id: Option<&str>, bundle_id: Option<&str>, name: Option<&str>, known: &Known) -> Option<KnownApp> {
    let id = id?;
    if let Some(app) = known.app(id) {
        return Some(app.clone());
    }
    Some(KnownApp {
        id: id.to_owned(),
        bundle_id: bundle_id?.to_owned(),
        name: name.unwrap_or_default().to_owned(),
    })
}

#[cfg(test)]
mod tests;
