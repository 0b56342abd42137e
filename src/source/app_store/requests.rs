//! Everything that the client can ask of App Store Connect: one list, each a GET.
//!
//! A request names the fields that are read and no others. Page sizes are the most that the store gives: 200 resources
//! a page, 50 related ones of each. What one list can include is not asked for by itself.

use std::borrow::Cow;

use reqwest::Method;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// How many resources a page has: the most that the store gives.
const PAGE: &str = "200";

/// How many related resources of each resource a page includes: the most that the store gives.
pub(super) const RELATED: usize = 50;

/// [`RELATED`], as a query has it.
const RELATED_TEXT: &str = "50";

/// How many apps one request for review submissions names: more would make its address longer than some proxies take.
pub const APPS_A_REQUEST: usize = 50;

/// How many builds one request names, for the same reason: their ids are UUIDs.
pub const BUILDS_A_REQUEST: usize = 50;

/// What is read of a version by itself.
const VERSION: &str = "platform,versionString,appVersionState,appStoreState,releaseType,createdDate,build,appStoreVersionPhasedRelease";

/// What is read of a version that comes with an app: a version's own includes are not had at one remove.
const VERSION_OF_APP: &str = "platform,versionString,appVersionState,appStoreState";

/// What is read of a build.
const BUILD: &str = "version,uploadedDate,expired,processingState,preReleaseVersion,buildBetaDetail,betaAppReviewSubmission,app";

/// What is read of a thing in review: its state, and which of these it is.
const REVIEW_ITEM: &str = "state,appStoreVersion,appCustomProductPageVersion,appStoreVersionExperiment,appStoreVersionExperimentV2,appEvent,backgroundAssetVersion,gameCenterAchievementVersion,gameCenterActivityVersion,gameCenterChallengeVersion,gameCenterLeaderboardSetVersion,gameCenterLeaderboardVersion,inAppPurchaseVersion,subscriptionVersion,subscriptionGroupVersion";

/// What can be in review: [`REVIEW_ITEM`] without its state.
const REVIEWED: &str = "appStoreVersion,appCustomProductPageVersion,appStoreVersionExperiment,appStoreVersionExperimentV2,appEvent,backgroundAssetVersion,gameCenterAchievementVersion,gameCenterActivityVersion,gameCenterChallengeVersion,gameCenterLeaderboardSetVersion,gameCenterLeaderboardVersion,inAppPurchaseVersion,subscriptionVersion,subscriptionGroupVersion";

/// What is read of an upload.
const BUILD_UPLOAD: &str =
    "cfBundleShortVersionString,cfBundleVersion,createdDate,state,platform,uploadedDate";

/// What is read of an in-app purchase.
const IN_APP_PURCHASE: &str = "name,productId,inAppPurchaseType,state";

/// What is read of a subscription.
const SUBSCRIPTION: &str = "name,productId,state";

/// What is read of an in-app event.
const APP_EVENT: &str = "referenceName,eventState";

/// What is read of an app's information.
const APP_INFO: &str = "state,appStoreState";

/// Every request that this client can make. Each is a GET; the pages behind the first are asked at the address that the
/// store gives, which has to be the same path of the same host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// The apps that the key sees, by themselves.
    AppNames,
    /// The apps that the key sees, with the newest of all that one request can include of each.
    Apps {
        /// How many apps a page has, at most 200.
        page: u16,
    },
    /// An app.
    App {
        /// Its id.
        id: &'a str,
    },
    /// An app's versions, with their builds and phased releases.
    Versions {
        /// The app's id.
        app_id: &'a str,
    },
    /// A version, with its build and phased release.
    Version {
        /// Its id.
        id: &'a str,
    },
    /// The builds of all apps that the key sees, the newest first, with their TestFlight states and reviews.
    Builds,
    /// The builds of some apps, with the versions they were uploaded for and their TestFlight states.
    BuildsOf {
        /// The apps' ids, separated by commas.
        app_ids: &'a str,
    },
    /// Some builds, with their TestFlight states and reviews.
    BuildsNamed {
        /// The builds' ids, separated by commas; at most [`BUILDS_A_REQUEST`].
        ids: &'a str,
    },
    /// A build, with its TestFlight states and review.
    Build {
        /// Its id.
        id: &'a str,
    },
    /// A TestFlight review, with its build.
    BetaReview {
        /// Its id.
        id: &'a str,
    },
    /// The review submissions of some apps, with their items.
    ReviewSubmissions {
        /// The apps' ids, separated by commas; at most [`APPS_A_REQUEST`].
        app_ids: &'a str,
    },
    /// A review submission, with its items.
    ReviewSubmission {
        /// Its id.
        id: &'a str,
    },
    /// The items of a review submission, with what each is.
    ReviewItems {
        /// The submission's id.
        submission_id: &'a str,
    },
    /// An app's infos.
    AppInfos {
        /// The app's id.
        app_id: &'a str,
    },
    /// An app's info.
    AppInfo {
        /// Its id.
        id: &'a str,
    },
    /// An app's in-app purchases.
    InAppPurchases {
        /// The app's id.
        app_id: &'a str,
    },
    /// An in-app purchase.
    InAppPurchase {
        /// Its id.
        id: &'a str,
    },
    /// An app's subscription groups, with the subscriptions of each.
    SubscriptionGroups {
        /// The app's id.
        app_id: &'a str,
    },
    /// The subscriptions of a group.
    GroupSubscriptions {
        /// The group's id.
        group_id: &'a str,
    },
    /// A subscription, with its group.
    Subscription {
        /// Its id.
        id: &'a str,
    },
    /// An app's in-app events.
    AppEvents {
        /// The app's id.
        app_id: &'a str,
    },
    /// An in-app event.
    AppEvent {
        /// Its id.
        id: &'a str,
    },
    /// An app's uploads of builds, the newest first.
    BuildUploads {
        /// The app's id.
        app_id: &'a str,
    },
    /// An upload of a build.
    BuildUpload {
        /// Its id.
        id: &'a str,
    },
    /// Where an app can be had; the territories are a list of their own.
    Availability {
        /// The app's id.
        app_id: &'a str,
    },
    /// The territories of an availability.
    TerritoryAvailabilities {
        /// The availability's id.
        availability_id: &'a str,
    },
    /// The phased release of a version.
    PhasedRelease {
        /// The version's id.
        version_id: &'a str,
    },
    /// The webhooks set up for an app.
    Webhooks {
        /// The app's id.
        app_id: &'a str,
    },
    /// What a webhook has sent, with the events.
    WebhookDeliveries {
        /// The webhook's id.
        webhook_id: &'a str,
        /// The oldest to tell, by when it was made.
        since: OffsetDateTime,
    },
    /// One of the team's users: asked once, when a key is given, to find out whether it can administer the team.
    Users,
}

type Query<'a> = Vec<(&'static str, Cow<'a, str>)>;

impl<'a> Request<'a> {
    /// The method, which is GET.
    #[must_use]
    pub fn method(&self) -> Method {
        Method::GET
    }

    /// The path, in segments.
    pub(super) fn path(&self) -> Vec<&'a str> {
        match *self {
            Self::AppNames | Self::Apps { .. } => vec!["v1", "apps"],
            Self::App { id } => vec!["v1", "apps", id],
            Self::Versions { app_id } => vec!["v1", "apps", app_id, "appStoreVersions"],
            Self::Version { id } => vec!["v1", "appStoreVersions", id],
            Self::Builds | Self::BuildsOf { .. } | Self::BuildsNamed { .. } => vec!["v1", "builds"],
            Self::Build { id } => vec!["v1", "builds", id],
            Self::BetaReview { id } => vec!["v1", "betaAppReviewSubmissions", id],
            Self::ReviewSubmissions { .. } => vec!["v1", "reviewSubmissions"],
            Self::ReviewSubmission { id } => vec!["v1", "reviewSubmissions", id],
            Self::ReviewItems { submission_id } => vec!["v1", "reviewSubmissions", submission_id, "items"],
            Self::AppInfos { app_id } => vec!["v1", "apps", app_id, "appInfos"],
            Self::AppInfo { id } => vec!["v1", "appInfos", id],
            Self::InAppPurchases { app_id } => vec!["v1", "apps", app_id, "inAppPurchasesV2"],
            Self::InAppPurchase { id } => vec!["v2", "inAppPurchases", id],
            Self::SubscriptionGroups { app_id } => vec!["v1", "apps", app_id, "subscriptionGroups"],
            Self::GroupSubscriptions { group_id } => {
                vec!["v1", "subscriptionGroups", group_id, "subscriptions"]
            }
            Self::Subscription { id } => vec!["v1", "subscriptions", id],
            Self::AppEvents { app_id } => vec!["v1", "apps", app_id, "appEvents"],
            Self::AppEvent { id } => vec!["v1", "appEvents", id],
            Self::BuildUploads { app_id } => vec!["v1", "apps", app_id, "buildUploads"],
            Self::BuildUpload { id } => vec!["v1", "buildUploads", id],
            Self::Availability { app_id } => vec!["v1", "apps", app_id, "appAvailabilityV2"],
            Self::TerritoryAvailabilities { availability_id } => {
                vec!["v2", "appAvailabilities", availability_id, "territoryAvailabilities"]
            }
            Self::PhasedRelease { version_id } => {
                vec!["v1", "appStoreVersions", version_id, "appStoreVersionPhasedRelease"]
            }
            Self::Webhooks { app_id } => vec!["v1", "apps", app_id, "webhooks"],
            Self::WebhookDeliveries { webhook_id, .. } => vec!["v1", "webhooks", webhook_id, "deliveries"],
            Self::Users => vec!["v1", "users"],
        }
    }

    /// The query: only the fields that are read.
    pub(super) fn query(&self) -> Query<'a> {
        match *self {
            Self::AppNames => list(&[("fields[apps]", "name,bundleId,sku,primaryLocale")]),
            Self::Apps { page } => {
                let mut query = apps();
                query.push(("limit", page.to_string().into()));
                query
            }
            Self::App { .. } => one(&[("fields[apps]", "name,bundleId,sku,primaryLocale")]),
            Self::Versions { .. } => list(VERSION_QUERY),
            Self::Version { .. } => one(VERSION_QUERY),
            // Newest first: what is uploaded during the walk moves others to a later page, where they are seen again.
            Self::Builds => {
                let mut query = list(BUILD_QUERY);
                query.push(("sort", "-uploadedDate".into()));
                query
            }
            // The app is included so that a filter which the store ignores is noticed.
            Self::BuildsOf { app_ids } => {
                let mut query = list(&[
                    (
                        "fields[builds]",
                        "version,uploadedDate,expired,processingState,preReleaseVersion,buildBetaDetail,app",
                    ),
                    ("fields[preReleaseVersions]", "version,platform"),
                    ("fields[buildBetaDetails]", "internalBuildState,externalBuildState"),
                    ("fields[apps]", "bundleId"),
                    ("include", "preReleaseVersion,buildBetaDetail,app"),
                ]);
                query.push(("filter[app]", app_ids.into()));
                query
            }
            Self::BuildsNamed { ids } => {
                let mut query = list(BUILD_QUERY);
                query.push(("filter[id]", ids.into()));
                query
            }
            Self::Build { .. } => one(BUILD_QUERY),
            Self::BetaReview { .. } => one(&[
                ("fields[betaAppReviewSubmissions]", "betaReviewState,submittedDate,build"),
                ("fields[builds]", "version"),
                ("include", "build"),
            ]),
            Self::ReviewSubmissions { app_ids } => {
                let mut query = list(SUBMISSION_QUERY);
                query.push(("filter[app]", app_ids.into()));
                query
            }
            Self::ReviewSubmission { .. } => one(SUBMISSION_QUERY),
            Self::ReviewItems { .. } => {
                list(&[("fields[reviewSubmissionItems]", REVIEW_ITEM), ("include", REVIEWED)])
            }
            Self::AppInfos { .. } => list(&[("fields[appInfos]", APP_INFO)]),
            Self::AppInfo { .. } => one(&[("fields[appInfos]", APP_INFO)]),
            Self::InAppPurchases { .. } => list(&[("fields[inAppPurchases]", IN_APP_PURCHASE)]),
            Self::InAppPurchase { .. } => one(&[("fields[inAppPurchases]", IN_APP_PURCHASE)]),
            Self::SubscriptionGroups { .. } => list(&[
                ("fields[subscriptionGroups]", "referenceName,subscriptions"),
                ("fields[subscriptions]", SUBSCRIPTION),
                ("include", "subscriptions"),
                ("limit[subscriptions]", RELATED_TEXT),
            ]),
            Self::GroupSubscriptions { .. } => list(&[("fields[subscriptions]", SUBSCRIPTION)]),
            Self::Subscription { .. } => one(&[
                ("fields[subscriptions]", "name,productId,state,group"),
                ("fields[subscriptionGroups]", "referenceName"),
                ("include", "group"),
            ]),
            Self::AppEvents { .. } => list(&[("fields[appEvents]", APP_EVENT)]),
            Self::AppEvent { .. } => one(&[("fields[appEvents]", APP_EVENT)]),
            Self::BuildUploads { .. } => {
                list(&[("fields[buildUploads]", BUILD_UPLOAD), ("sort", "-uploadedDate")])
            }
            Self::BuildUpload { .. } => one(&[("fields[buildUploads]", BUILD_UPLOAD)]),
            Self::Availability { .. } => one(&[("fields[appAvailabilities]", "availableInNewTerritories")]),
            Self::TerritoryAvailabilities { .. } => list(&[
                ("fields[territoryAvailabilities]", "available,contentStatuses,territory"),
                ("fields[territories]", "currency"),
                ("include", "territory"),
            ]),
            Self::PhasedRelease { .. } => {
                one(&[("fields[appStoreVersionPhasedReleases]", "phasedReleaseState,currentDayNumber")])
            }
            Self::Webhooks { .. } => list(&[("fields[webhooks]", "enabled,eventTypes,name,url")]),
            Self::WebhookDeliveries { since, .. } => {
                let mut query = list(&[
                    ("fields[webhookDeliveries]", "createdDate,deliveryState,redelivery,event"),
                    ("fields[webhookEvents]", "eventType,payload,ping,createdDate"),
                    ("include", "event"),
                ]);
                let since = since.to_offset(time::UtcOffset::UTC).format(&Rfc3339);
                let since = since.expect("a time that was measured has a year of four digits");
                query.push(("filter[createdDateGreaterThanOrEqualTo]", since.into()));
                query
            }
            Self::Users => vec![("fields[users]", "allAppsVisible".into()), ("limit", "1".into())],
        }
    }
}

const VERSION_QUERY: &[(&str, &str)] = &[
    ("fields[appStoreVersions]", VERSION),
    ("fields[builds]", "version"),
    ("fields[appStoreVersionPhasedReleases]", "phasedReleaseState,currentDayNumber"),
    ("include", "build,appStoreVersionPhasedRelease"),
];

const BUILD_QUERY: &[(&str, &str)] = &[
    ("fields[builds]", BUILD),
    ("fields[preReleaseVersions]", "version,platform"),
    ("fields[buildBetaDetails]", "internalBuildState,externalBuildState"),
    ("fields[betaAppReviewSubmissions]", "betaReviewState,submittedDate"),
    ("fields[apps]", "bundleId,name"),
    ("include", "app,preReleaseVersion,buildBetaDetail,betaAppReviewSubmission"),
];

const SUBMISSION_QUERY: &[(&str, &str)] = &[
    ("fields[reviewSubmissions]", "platform,submittedDate,state,app,items,appStoreVersionForReview"),
    ("fields[reviewSubmissionItems]", REVIEW_ITEM),
    ("fields[appStoreVersions]", "versionString"),
    ("fields[apps]", "bundleId,name"),
    ("include", "items,appStoreVersionForReview,app"),
    ("limit[items]", RELATED_TEXT),
];

/// All that a list of apps can include of what is read. Not the builds: their TestFlight states would be at two
/// removes, so that they would have to be asked for all the same.
fn apps() -> Query<'static> {
    one(&[
        (
            "fields[apps]",
            "name,bundleId,sku,primaryLocale,appStoreVersions,reviewSubmissions,appInfos,inAppPurchasesV2,subscriptionGroups,appEvents",
        ),
        ("fields[appStoreVersions]", VERSION_OF_APP),
        ("fields[reviewSubmissions]", "platform,submittedDate,state"),
        ("fields[appInfos]", APP_INFO),
        // The list of apps describes these as of the first version, whose name is the reference name.
        ("fields[inAppPurchases]", "name,referenceName,productId,inAppPurchaseType,state"),
        ("fields[subscriptionGroups]", "referenceName"),
        ("fields[appEvents]", APP_EVENT),
        (
            "include",
            "appStoreVersions,reviewSubmissions,appInfos,inAppPurchasesV2,subscriptionGroups,appEvents",
        ),
        ("limit[appStoreVersions]", RELATED_TEXT),
        ("limit[reviewSubmissions]", RELATED_TEXT),
        ("limit[appInfos]", RELATED_TEXT),
        ("limit[inAppPurchasesV2]", RELATED_TEXT),
        ("limit[subscriptionGroups]", RELATED_TEXT),
        ("limit[appEvents]", RELATED_TEXT),
    ])
}

fn one(query: &[(&'static str, &'static str)]) -> Query<'static> {
    query.iter().map(|(name, value)| (*name, Cow::Borrowed(*value))).collect()
}

fn list(query: &[(&'static str, &'static str)]) -> Query<'static> {
    let mut query = one(query);
    query.push(("limit", PAGE.into()));
    query
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeSet;

    use time::macros::datetime;

    use super::super::spec::Description;
    use super::super::values::MEMBERS;
    use super::*;

    /// Each request once, with an id that no path has.
    fn all() -> Vec<Request<'static>> {
        let id = "ID";
        let all = vec![
            Request::AppNames,
            Request::Apps { page: 200 },
            Request::App { id },
            Request::Versions { app_id: id },
            Request::Version { id },
            Request::Builds,
            Request::BuildsOf { app_ids: id },
            Request::BuildsNamed { ids: id },
            Request::Build { id },
            Request::BetaReview { id },
            Request::ReviewSubmissions { app_ids: id },
            Request::ReviewSubmission { id },
            Request::ReviewItems { submission_id: id },
            Request::AppInfos { app_id: id },
            Request::AppInfo { id },
            Request::InAppPurchases { app_id: id },
            Request::InAppPurchase { id },
            Request::SubscriptionGroups { app_id: id },
            Request::GroupSubscriptions { group_id: id },
            Request::Subscription { id },
            Request::AppEvents { app_id: id },
            Request::AppEvent { id },
            Request::BuildUploads { app_id: id },
            Request::BuildUpload { id },
            Request::Availability { app_id: id },
            Request::TerritoryAvailabilities { availability_id: id },
            Request::PhasedRelease { version_id: id },
            Request::Webhooks { app_id: id },
            Request::WebhookDeliveries { webhook_id: id, since: datetime!(2026-01-05 10:20:30 +1) },
            Request::Users,
        ];
        // Does not compile when a request is added, so that nobody forgets it above.
        for request in &all {
            match request {
                Request::AppNames
                | Request::Apps { .. }
                | Request::App { .. }
                | Request::Versions { .. }
                | Request::Version { .. }
                | Request::Builds
                | Request::BuildsOf { .. }
                | Request::BuildsNamed { .. }
                | Request::Build { .. }
                | Request::BetaReview { .. }
                | Request::ReviewSubmissions { .. }
                | Request::ReviewSubmission { .. }
                | Request::ReviewItems { .. }
                | Request::AppInfos { .. }
                | Request::AppInfo { .. }
                | Request::InAppPurchases { .. }
                | Request::InAppPurchase { .. }
                | Request::SubscriptionGroups { .. }
                | Request::GroupSubscriptions { .. }
                | Request::Subscription { .. }
                | Request::AppEvents { .. }
                | Request::AppEvent { .. }
                | Request::BuildUploads { .. }
                | Request::BuildUpload { .. }
                | Request::Availability { .. }
                | Request::TerritoryAvailabilities { .. }
                | Request::PhasedRelease { .. }
                | Request::Webhooks { .. }
                | Request::WebhookDeliveries { .. }
                | Request::Users => {}
            }
        }
        let kinds: BTreeSet<_> = all.iter().map(|one| format!("{one:?}")).collect();
        assert_eq!(kinds.len(), 30);
        all
    }

    fn template(request: &Request<'_>) -> String {
        let segments = request.path().into_iter().map(|part| if part == "ID" { "{id}" } else { part });
        segments.fold(String::new(), |path, part| path + "/" + part)
    }

    /// The names in a `fields[…]`, a `limit[…]`.
    fn bracketed<'q>(name: &'q str, what: &str) -> Option<&'q str> {
        name.strip_prefix(what)?.strip_prefix('[')?.strip_suffix(']')
    }

    #[test]
    fn every_request_is_in_the_description() {
        let Some(description) = Description::load() else { return };
        for request in all() {
            let template = template(&request);
            assert_eq!(request.method(), Method::GET);
            assert!(description.get(&template).is_some(), "{template}");
            let query = request.query();
            let mut names = BTreeSet::new();
            for (name, value) in &query {
                assert!(names.insert(*name), "{template} asks twice for {name}");
                let schema = description.parameter(&template, name);
                let schema = schema.unwrap_or_else(|| panic!("{template} has no parameter {name}"));
                if let Some(allowed) = description.values_of(schema) {
                    for value in value.split(',') {
                        assert!(allowed.contains(&value), "{template} has no {value} in {name}");
                    }
                }
                if let Some(most) = schema.get("maximum") {
                    // Of users, one is enough to know.
                    let wanted = if matches!(request, Request::Users) { Some(1) } else { most.as_u64() };
                    assert_eq!(value.parse::<u64>().ok(), wanted, "{template} {name}");
                }
            }
            for required in description.required(&template) {
                assert!(names.contains(required), "{template} needs {required}");
            }
            let dates = names.iter().filter(|name| name.starts_with("filter[createdDate")).count();
            assert_eq!(dates, usize::from(matches!(request, Request::WebhookDeliveries { .. })));
        }
    }

    #[test]
    fn what_is_included_is_told_and_limited_to_the_fields_that_are_read() {
        let Some(description) = Description::load() else { return };
        for request in all() {
            let (template, query) = (template(&request), request.query());
            let value = |name: &str| query.iter().find(|(n, _)| *n == name).map(|(_, value)| value.as_ref());
            let Some(included) = value("include") else { continue };
            let fields: BTreeSet<_> = query
                .iter()
                .filter(|(name, _)| bracketed(name, "fields").is_some())
                .flat_map(|(_, value)| value.split(','))
                .collect();
            for included in included.split(',') {
                // A relationship that is not among the fields is not told, and what it includes cannot be placed.
                assert!(fields.contains(included), "{template} includes {included} and hides it");
                let limit = format!("limit[{included}]");
                let limited = description.parameter(&template, &limit).is_some();
                assert_eq!(limited, value(&limit).is_some(), "{template} {limit}");
            }
        }
    }

    #[test]
    fn every_list_of_values_among_the_fields_that_are_read_is_known() {
        let Some(description) = Description::load() else { return };
        let mut read = BTreeSet::new();
        for request in all() {
            for (name, fields) in request.query() {
                let Some(kind) = bracketed(name, "fields") else { continue };
                let schemas = description.resources(kind);
                assert!(!schemas.is_empty(), "{kind}");
                for (schema, _) in schemas {
                    for field in fields.split(',') {
                        // An upload's state is an object with the state in it.
                        let nested = format!("{field}.state");
                        for attribute in [field, &nested] {
                            if description.values(schema, attribute).is_some() {
                                read.insert((schema.to_owned(), attribute.to_owned()));
                            }
                        }
                    }
                }
            }
        }
        let known: BTreeSet<_> =
            MEMBERS.iter().map(|m| (m.schema.to_owned(), m.attribute.to_owned())).collect();
        assert_eq!(read, known);
    }

    #[test]
    fn a_time_is_asked_for_in_utc() {
        let request =
            Request::WebhookDeliveries { webhook_id: "w", since: datetime!(2026-01-05 10:20:30 +1) };
        let query = request.query();
        let since = query.iter().find(|(name, _)| *name == "filter[createdDateGreaterThanOrEqualTo]");
        assert_eq!(since.unwrap().1, "2026-01-05T09:20:30Z");
    }
}
