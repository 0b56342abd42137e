//! App Store Connect's answers as types. Unknown members are ignored, unknown values kept as they are. What lacks
//! something that it cannot be known by is no answer, and is counted by whoever reads the list.

use time::OffsetDateTime;

use super::document::{Related, Resource};
pub use super::products::{AppEvent, AppInfo, Availability, InAppPurchase, Subscription, Territory};
use super::states;

/// An app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    /// The store's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its bundle id.
    pub bundle_id: String,
    /// Its SKU.
    pub sku: Option<String>,
    /// Its primary locale.
    pub primary_locale: Option<String>,
}

/// An app store version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The store's id.
    pub id: String,
    /// `IOS`, `MAC_OS`, `TV_OS`, `VISION_OS`, or what the store may say one day.
    pub platform: String,
    /// Such as `2.4.1`.
    pub version_string: String,
    /// `AppVersionState`, as the store says it. Where an answer has only the deprecated `appStoreState`, that,
    /// in the words of this one.
    pub app_version_state: String,
    /// `MANUAL`, `AFTER_APPROVAL`, `SCHEDULED`.
    pub release_type: Option<String>,
    /// When it was made.
    pub created_date: Option<OffsetDateTime>,
    /// The id of the build chosen for it.
    pub build_id: Option<String>,
    /// The number of that build.
    pub build_version: Option<String>,
    /// How far its phased release is.
    pub phased_release: Option<PhasedRelease>,
}

/// A phased release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PhasedRelease {
    /// The store's id.
    pub id: String,
    /// `INACTIVE`, `ACTIVE`, `PAUSED`, `COMPLETE`.
    pub state: String,
    /// The day it is at, 1 to 7.
    pub current_day_number: Option<i64>,
}

/// A build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Build {
    /// The store's id.
    pub id: String,
    /// The build number (`CFBundleVersion`).
    pub version: String,
    /// `PROCESSING`, `FAILED`, `INVALID`, `VALID`.
    pub processing_state: String,
    /// Whether TestFlight has let it expire.
    pub expired: bool,
    /// When it was uploaded.
    pub uploaded_date: Option<OffsetDateTime>,
    /// The id of its app, as the answer says it.
    pub app_id: Option<String>,
    /// The bundle id of that app, where the answer includes it.
    pub bundle_id: Option<String>,
    /// The name of that app, where the answer includes it.
    pub app_name: Option<String>,
    /// The platform of the version that it was uploaded for.
    pub platform: Option<String>,
    /// The version that it was uploaded for (`CFBundleShortVersionString`).
    pub pre_release_version: Option<String>,
    /// `InternalBetaState`.
    pub internal_build_state: Option<String>,
    /// `ExternalBetaState`.
    pub external_build_state: Option<String>,
    /// Its TestFlight review, where there was one and the answer includes it.
    pub beta_review: Option<BetaReview>,
}

/// The review of a build for TestFlight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BetaReview {
    /// The store's id.
    pub id: String,
    /// `BetaReviewState`.
    pub state: String,
    /// When it was submitted.
    pub submitted_date: Option<OffsetDateTime>,
    /// The number of its build, where the answer includes that.
    pub build_version: Option<String>,
}

/// An upload of a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildUpload {
    /// The store's id.
    pub id: String,
    /// `BuildUploadState`.
    pub state: String,
    /// What is wrong with it, sorted and each once.
    pub errors: Vec<UploadError>,
    /// The build number.
    pub build_version: Option<String>,
    /// The version string.
    pub version_string: Option<String>,
    /// The platform.
    pub platform: Option<String>,
    /// When the upload was announced.
    pub created_date: Option<OffsetDateTime>,
    /// When it had arrived.
    pub uploaded_date: Option<OffsetDateTime>,
}

/// What is wrong with an upload, in the store's words.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UploadError {
    /// The store's code.
    pub code: String,
    /// What it says to a person.
    pub description: String,
}

/// A submission to review.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReviewSubmission {
    /// The store's id.
    pub id: String,
    /// Its state.
    pub state: String,
    /// Its platform.
    pub platform: Option<String>,
    /// When it was submitted, the first time or the last: the store does not say which.
    pub submitted_date: Option<OffsetDateTime>,
    /// The id of its app, as the answer says it.
    pub app_id: Option<String>,
    /// The bundle id of that app, where the answer includes it.
    pub bundle_id: Option<String>,
    /// The name of that app, where the answer includes it.
    pub app_name: Option<String>,
    /// The version string of the version in it, where the answer includes it.
    pub version_string: Option<String>,
    /// Those of its items that the answer includes.
    pub items: Vec<ReviewItem>,
    /// Whether these are all.
    pub items_complete: bool,
    /// How many of those that came could not be read.
    pub items_unread: u32,
}

/// A thing in a submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReviewItem {
    /// The store's id.
    pub id: String,
    /// Its state.
    pub state: String,
    /// What it is: the relationship's name, such as `appStoreVersion`, and the id. Where the answer says that.
    pub of: Option<(String, String)>,
}

/// A webhook, as a team has set it up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// The store's id.
    pub id: String,
    /// What the team calls it.
    pub name: Option<String>,
    /// Where it sends to.
    pub url: Option<String>,
    /// Whether it sends anything.
    pub enabled: Option<bool>,
    /// What it is told, as `WebhookEventType`.
    pub event_types: Vec<String>,
}

/// What a webhook has sent, or tried to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookDelivery {
    /// The store's id.
    pub id: String,
    /// `SUCCEEDED`, `FAILED`, `PENDING`.
    pub state: Option<String>,
    /// When it was made.
    pub created_date: Option<OffsetDateTime>,
    /// Whether somebody had it sent again.
    pub redelivery: bool,
    /// `WebhookEventType`.
    pub event_type: Option<String>,
    /// Whether it is a test.
    pub ping: bool,
    /// The body that was sent. None where the store keeps it no longer.
    pub payload: Option<String>,
}

pub(super) fn app(of: &Resource) -> Option<App> {
    Some(App {
        id: of.id.clone(),
        name: of.owned("name")?,
        bundle_id: of.owned("bundleId")?,
        sku: of.owned("sku"),
        primary_locale: of.owned("primaryLocale"),
    })
}

pub(super) fn version(of: &Resource, related: &Related) -> Option<Version> {
    let state = of.text("appVersionState");
    let deprecated = || of.text("appStoreState").map(states::version_state_of_deprecated);
    Some(Version {
        id: of.id.clone(),
        platform: of.owned("platform")?,
        version_string: of.owned("versionString")?,
        app_version_state: state.or_else(deprecated)?.to_owned(),
        release_type: of.owned("releaseType"),
        created_date: of.date("createdDate"),
        build_id: of.one("build").map(|(_, id)| id.to_owned()),
        build_version: related.one(of, "build").and_then(|build| build.owned("version")),
        phased_release: related
            .one(of, "appStoreVersionPhasedRelease")
            .and_then(|phased| phased_release(&phased)),
    })
}

pub(super) fn phased_release(of: &Resource) -> Option<PhasedRelease> {
    Some(PhasedRelease {
        id: of.id.clone(),
        state: of.owned("phasedReleaseState")?,
        current_day_number: of.attribute("currentDayNumber").and_then(serde_json::Value::as_i64),
    })
}

pub(super) fn build(of: &Resource, related: &Related) -> Option<Build> {
    let app = related.one(of, "app");
    let pre_release = related.one(of, "preReleaseVersion");
    let beta = related.one(of, "buildBetaDetail");
    let review = related.one(of, "betaAppReviewSubmission");
    let text = |of: &Option<Resource>, name: &str| of.as_ref()?.owned(name);
    Some(Build {
        id: of.id.clone(),
        version: of.owned("version")?,
        processing_state: of.owned("processingState")?,
        expired: of.attribute("expired").and_then(serde_json::Value::as_bool).unwrap_or(false),
        uploaded_date: of.date("uploadedDate"),
        app_id: of.one("app").map(|(_, id)| id.to_owned()),
        bundle_id: text(&app, "bundleId"),
        app_name: text(&app, "name"),
        platform: text(&pre_release, "platform"),
        pre_release_version: text(&pre_release, "version"),
        internal_build_state: text(&beta, "internalBuildState"),
        external_build_state: text(&beta, "externalBuildState"),
        beta_review: review.and_then(|review| beta_review(&review, related)),
    })
}

pub(super) fn beta_review(of: &Resource, related: &Related) -> Option<BetaReview> {
    Some(BetaReview {
        id: of.id.clone(),
        state: of.owned("betaReviewState")?,
        submitted_date: of.date("submittedDate"),
        build_version: related.one(of, "build").and_then(|build| build.owned("version")),
    })
}

pub(super) fn build_upload(of: &Resource) -> Option<BuildUpload> {
    let state = of.attribute("state")?;
    let text = |of: &serde_json::Value, name: &str| {
        of.get(name).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
    };
    let errors = state.get("errors").and_then(serde_json::Value::as_array).into_iter().flatten();
    let mut errors: Vec<_> = errors
        .map(|error| UploadError { code: text(error, "code"), description: text(error, "description") })
        .collect();
    // The store does not promise an order, and another order is no news.
    errors.sort();
    errors.dedup();
    Some(BuildUpload {
        id: of.id.clone(),
        state: state.get("state")?.as_str()?.to_owned(),
        errors,
        build_version: of.owned("cfBundleVersion"),
        version_string: of.owned("cfBundleShortVersionString"),
        platform: of.owned("platform"),
        created_date: of.date("createdDate"),
        uploaded_date: of.date("uploadedDate"),
    })
}

pub(super) fn review_submission(of: &Resource, related: &Related) -> Option<ReviewSubmission> {
    let app = related.one(of, "app");
    let version = related.one(of, "appStoreVersionForReview");
    let text = |of: &Option<Resource>, name: &str| of.as_ref()?.owned(name);
    let many = of.many("items");
    let items: Vec<_> =
        many.ids.iter().filter_map(|id| review_item(&related.get("reviewSubmissionItems", id)?)).collect();
    Some(ReviewSubmission {
        id: of.id.clone(),
        state: of.owned("state")?,
        platform: of.owned("platform"),
        submitted_date: of.date("submittedDate"),
        app_id: of.one("app").map(|(_, id)| id.to_owned()),
        bundle_id: text(&app, "bundleId"),
        app_name: text(&app, "name"),
        version_string: text(&version, "versionString"),
        items_complete: many.complete && items.len() == many.ids.len(),
        items_unread: u32::try_from(many.ids.len() - items.len()).unwrap_or(u32::MAX),
        items,
    })
}

pub(super) fn review_item(of: &Resource) -> Option<ReviewItem> {
    Some(ReviewItem {
        id: of.id.clone(),
        state: of.owned("state")?,
        of: of.ones().next().map(|(name, _, id)| (name.to_owned(), id.to_owned())),
    })
}

pub(super) fn webhook(of: &Resource) -> Option<Webhook> {
    let types = of.attribute("eventTypes").and_then(serde_json::Value::as_array).into_iter().flatten();
    Some(Webhook {
        id: of.id.clone(),
        name: of.owned("name"),
        url: of.owned("url"),
        enabled: of.attribute("enabled").and_then(serde_json::Value::as_bool),
        event_types: types.filter_map(serde_json::Value::as_str).map(str::to_owned).collect(),
    })
}

pub(super) fn webhook_delivery(of: &Resource, related: &Related) -> Option<WebhookDelivery> {
    let event = related.one(of, "event");
    let flag = |of: &Resource, name: &str| of.attribute(name).and_then(serde_json::Value::as_bool);
    Some(WebhookDelivery {
        id: of.id.clone(),
        state: of.owned("deliveryState"),
        created_date: of.date("createdDate"),
        redelivery: flag(of, "redelivery").unwrap_or(false),
        event_type: event.as_ref().and_then(|event| event.owned("eventType")),
        ping: event.as_ref().and_then(|event| flag(event, "ping")).unwrap_or(false),
        payload: event.as_ref().and_then(|event| event.owned("payload")),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::{Value, json};
    use time::macros::datetime;

    use super::*;

    fn resource(document: Value) -> Resource {
        serde_json::from_value(document).unwrap()
    }

    #[test]
    fn nulls_unknown_values_and_unknown_members_are_taken_as_they_are() {
        let of = resource(json!({
            "type": "appStoreVersions", "id": "v1", "new": {"a": 1},
            "attributes": {
                "platform": "WATCH_OS", "versionString": "1.0", "appVersionState": "HELD_BY_THE_MOON",
                "releaseType": null, "createdDate": null, "earliestReleaseDate": null, "rank": 7,
            },
            "relationships": { "build": { "data": null }, "appStoreVersionPhasedRelease": null },
        }));
        let version = version(&of, &Related::of(&[])).unwrap();
        assert_eq!(version.platform, "WATCH_OS");
        assert_eq!(version.app_version_state, "HELD_BY_THE_MOON");
        assert_eq!((version.release_type, version.build_id, version.phased_release), (None, None, None));
    }

    #[test]
    fn the_deprecated_state_stands_in_only_where_the_other_is_missing() {
        let read = |attributes: Value| {
            version(&resource(json!({ "id": "v", "attributes": attributes })), &Related::of(&[]))
        };
        let old = json!({ "platform": "IOS", "versionString": "1", "appStoreState": "READY_FOR_SALE" });
        assert_eq!(read(old).unwrap().app_version_state, "READY_FOR_DISTRIBUTION");
        let both = json!({ "platform": "IOS", "versionString": "1", "appStoreState": "READY_FOR_SALE", "appVersionState": "IN_REVIEW" });
        assert_eq!(read(both).unwrap().app_version_state, "IN_REVIEW");
        assert_eq!(read(json!({ "platform": "IOS", "versionString": "1" })), None);
        assert_eq!(read(Value::Null), None);
    }

    #[test]
    fn a_build_is_read_with_what_its_page_includes() {
        let included = [
            json!({ "type": "apps", "id": "1001", "attributes": { "bundleId": "com.acme", "name": "Acme" } }),
            json!({ "type": "preReleaseVersions", "id": "p", "attributes": { "version": "2.0", "platform": "TV_OS" } }),
            json!({ "type": "buildBetaDetails", "id": "b", "attributes": { "internalBuildState": "EXPIRED", "externalBuildState": "BETA_REJECTED" } }),
            json!({ "type": "betaAppReviewSubmissions", "id": "r", "attributes": { "betaReviewState": "REJECTED", "submittedDate": "2026-01-05T10:20:30Z" } }),
        ];
        let of = resource(json!({
            "type": "builds", "id": "b",
            "attributes": { "version": "41", "processingState": "VALID", "expired": true },
            "relationships": {
                "app": { "data": { "type": "apps", "id": "1001" } },
                "preReleaseVersion": { "data": { "type": "preReleaseVersions", "id": "p" } },
                "buildBetaDetail": { "data": { "type": "buildBetaDetails", "id": "b" } },
                "betaAppReviewSubmission": { "data": { "type": "betaAppReviewSubmissions", "id": "r" } },
            },
        }));
        let build = build(&of, &Related::of(&included)).unwrap();
        assert_eq!((build.bundle_id.as_deref(), build.app_name.as_deref()), (Some("com.acme"), Some("Acme")));
        assert_eq!((build.platform.as_deref(), build.expired), (Some("TV_OS"), true));
        assert_eq!(build.external_build_state.as_deref(), Some("BETA_REJECTED"));
        let review = build.beta_review.unwrap();
        assert_eq!(
            (review.state.as_str(), review.submitted_date),
            ("REJECTED", Some(datetime!(2026-01-05 10:20:30 UTC)))
        );
    }

    #[test]
    fn the_errors_of_an_upload_have_an_order_of_our_own() {
        let read = |errors: Value| {
            build_upload(&resource(
                json!({ "id": "u", "attributes": { "state": { "state": "FAILED", "errors": errors } } }),
            ))
            .unwrap()
            .errors
        };
        let (a, b) =
            (json!({ "code": "90062", "description": "a" }), json!({ "code": "90717", "description": "b" }));
        assert_eq!(read(json!([a, b])), read(json!([b, a, b])));
        assert_eq!(read(json!([a, b])).len(), 2);
        assert_eq!(read(Value::Null), []);
        assert_eq!(build_upload(&resource(json!({ "id": "u", "attributes": { "state": {} } }))), None);
    }

    #[test]
    fn an_item_says_what_it_is_and_a_submission_whether_it_has_others() {
        let included = [json!({
            "type": "reviewSubmissionItems", "id": "i1", "attributes": { "state": "ACCEPTED" },
            "relationships": {
                "appStoreVersion": { "links": { "related": "x" } },
                "appEvent": { "data": { "type": "appEvents", "id": "e1" } },
            },
        })];
        let of = |items: &[&str]| {
            let items: Vec<_> =
                items.iter().map(|id| json!({ "type": "reviewSubmissionItems", "id": id })).collect();
            let of = resource(json!({
                "id": "s", "attributes": { "state": "IN_REVIEW" }, "relationships": { "items": { "data": items } },
            }));
            review_submission(&of, &Related::of(&included)).unwrap()
        };
        let whole = of(&["i1"]);
        assert_eq!(whole.items[0].of, Some(("appEvent".to_owned(), "e1".to_owned())));
        assert!(whole.items_complete);
        let part = of(&["i1", "not included"]);
        assert_eq!((part.items.len(), part.items_complete, part.items_unread), (1, false, 1));
    }
}
