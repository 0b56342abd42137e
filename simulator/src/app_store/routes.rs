//! What can be asked of App Store Connect here: each path with what a request for it may say. Everything
//! else that Apple's description allows is refused, never ignored.

use crate::app_store::jsonapi::Listing;
use crate::values::{
    APP_EVENT_STATES, APP_STORE_STATES, APP_VERSION_STATES, BETA_REVIEW_STATES, DELIVERY_STATES,
    IN_APP_PURCHASE_STATES, IN_APP_PURCHASE_TYPES, PLATFORMS, PROCESSING_STATES, REVIEW_SUBMISSION_STATES,
    SUBSCRIPTION_STATES, UPLOAD_STATES,
};

/// A path and what it takes.
pub(crate) struct Route {
    /// The path in Apple's description.
    pub(crate) template: &'static str,
    pub(crate) listing: Listing,
}

/// A filter that takes any value.
const ANY: &[&str] = &[];

/// The values of a filter on a boolean.
const BOOLEAN: &[&str] = &["true", "false"];

/// What apps include.
const APP_INCLUDES: &[(&str, &str)] = &[
    ("appStoreVersions", "appStoreVersions"),
    ("builds", "builds"),
    ("preReleaseVersions", "preReleaseVersions"),
    ("appInfos", "appInfos"),
    ("inAppPurchasesV2", "inAppPurchases"),
    ("subscriptionGroups", "subscriptionGroups"),
    ("appEvents", "appEvents"),
    ("reviewSubmissions", "reviewSubmissions"),
];

/// Of which apps include up to a limit.
const APP_LIMITED: &[&str] = &[
    "appStoreVersions",
    "builds",
    "preReleaseVersions",
    "appInfos",
    "inAppPurchasesV2",
    "subscriptionGroups",
    "appEvents",
    "reviewSubmissions",
];

/// What versions include.
const VERSION_INCLUDES: &[(&str, &str)] = &[
    ("app", "apps"),
    ("build", "builds"),
    ("appStoreVersionPhasedRelease", "appStoreVersionPhasedReleases"),
];

/// What builds include.
const BUILD_INCLUDES: &[(&str, &str)] = &[
    ("preReleaseVersion", "preReleaseVersions"),
    ("app", "apps"),
    ("buildBetaDetail", "buildBetaDetails"),
    ("betaAppReviewSubmission", "betaAppReviewSubmissions"),
    ("appStoreVersion", "appStoreVersions"),
    ("buildUpload", "buildUploads"),
];

/// What submissions include.
const SUBMISSION_INCLUDES: &[(&str, &str)] =
    &[("app", "apps"), ("items", "reviewSubmissionItems"), ("appStoreVersionForReview", "appStoreVersions")];

/// The one way to what includes nothing but an app.
const OF_APP: &[(&str, &str)] = &[("app", "apps")];

/// A read of one resource.
const fn one(
    template: &'static str,
    kind: &'static str,
    includes: &'static [(&'static str, &'static str)],
    limited: &'static [&'static str],
) -> Route {
    Route {
        template,
        listing: Listing { kind, paged: false, includes, limited, filters: &[], required: &[], sorts: &[] },
    }
}

/// A list.
const fn list(
    template: &'static str,
    kind: &'static str,
    includes: &'static [(&'static str, &'static str)],
    limited: &'static [&'static str],
    filters: &'static [(&'static str, &'static [&'static str])],
    sorts: &'static [&'static str],
) -> Route {
    Route {
        template,
        listing: Listing { kind, paged: true, includes, limited, filters, required: &[], sorts },
    }
}

/// A list with a filter that has to be there.
const fn filtered(route: Route, required: &'static [&'static str]) -> Route {
    Route { template: route.template, listing: Listing { required, ..route.listing } }
}

/// Every path.
pub(crate) const ROUTES: &[Route] = &[
    list(
        "/v1/apps",
        "apps",
        APP_INCLUDES,
        APP_LIMITED,
        &[("id", ANY), ("bundleId", ANY), ("name", ANY), ("sku", ANY)],
        &["name", "bundleId", "sku"],
    ),
    one("/v1/apps/{id}", "apps", APP_INCLUDES, APP_LIMITED),
    list(
        "/v1/apps/{id}/appStoreVersions",
        "appStoreVersions",
        VERSION_INCLUDES,
        &[],
        &[
            ("id", ANY),
            ("platform", PLATFORMS),
            ("versionString", ANY),
            ("appVersionState", APP_VERSION_STATES),
            ("appStoreState", APP_STORE_STATES),
        ],
        &[],
    ),
    one("/v1/appStoreVersions/{id}", "appStoreVersions", VERSION_INCLUDES, &[]),
    one("/v1/appStoreVersions/{id}/appStoreVersionPhasedRelease", "appStoreVersionPhasedReleases", &[], &[]),
    list(
        "/v1/builds",
        "builds",
        BUILD_INCLUDES,
        &[],
        &[
            ("id", ANY),
            ("app", ANY),
            ("version", ANY),
            ("expired", BOOLEAN),
            ("processingState", PROCESSING_STATES),
            ("betaAppReviewSubmission.betaReviewState", BETA_REVIEW_STATES),
            ("preReleaseVersion.platform", PLATFORMS),
            ("preReleaseVersion.version", ANY),
        ],
        &["version", "uploadedDate"],
    ),
    one("/v1/builds/{id}", "builds", BUILD_INCLUDES, &[]),
    list(
        "/v1/buildBetaDetails",
        "buildBetaDetails",
        &[("build", "builds")],
        &[],
        &[("id", ANY), ("build", ANY)],
        &[],
    ),
    filtered(
        list(
            "/v1/betaAppReviewSubmissions",
            "betaAppReviewSubmissions",
            &[("build", "builds")],
            &[],
            &[("build", ANY), ("betaReviewState", BETA_REVIEW_STATES)],
            &[],
        ),
        &["build"],
    ),
    filtered(
        list(
            "/v1/reviewSubmissions",
            "reviewSubmissions",
            SUBMISSION_INCLUDES,
            &["items"],
            &[("app", ANY), ("platform", PLATFORMS), ("state", REVIEW_SUBMISSION_STATES)],
            &[],
        ),
        &["app"],
    ),
    one("/v1/reviewSubmissions/{id}", "reviewSubmissions", SUBMISSION_INCLUDES, &["items"]),
    list(
        "/v1/reviewSubmissions/{id}/items",
        "reviewSubmissionItems",
        &[("appStoreVersion", "appStoreVersions"), ("appEvent", "appEvents")],
        &[],
        &[],
        &[],
    ),
    list("/v1/apps/{id}/appInfos", "appInfos", OF_APP, &[], &[], &[]),
    one("/v1/appInfos/{id}", "appInfos", OF_APP, &[]),
    list(
        "/v1/apps/{id}/inAppPurchasesV2",
        "inAppPurchases",
        &[],
        &[],
        &[
            ("productId", ANY),
            ("name", ANY),
            ("state", IN_APP_PURCHASE_STATES),
            ("inAppPurchaseType", IN_APP_PURCHASE_TYPES),
        ],
        &["name", "inAppPurchaseType"],
    ),
    one("/v2/inAppPurchases/{id}", "inAppPurchases", &[], &[]),
    list(
        "/v1/apps/{id}/subscriptionGroups",
        "subscriptionGroups",
        &[("subscriptions", "subscriptions")],
        &["subscriptions"],
        &[("referenceName", ANY), ("subscriptions.state", SUBSCRIPTION_STATES)],
        &["referenceName"],
    ),
    list(
        "/v1/subscriptionGroups/{id}/subscriptions",
        "subscriptions",
        &[("group", "subscriptionGroups")],
        &[],
        &[("productId", ANY), ("name", ANY), ("state", SUBSCRIPTION_STATES)],
        &["name"],
    ),
    one("/v1/subscriptions/{id}", "subscriptions", &[("group", "subscriptionGroups")], &[]),
    list(
        "/v1/apps/{id}/appEvents",
        "appEvents",
        &[],
        &[],
        &[("id", ANY), ("eventState", APP_EVENT_STATES)],
        &[],
    ),
    one("/v1/appEvents/{id}", "appEvents", &[], &[]),
    list(
        "/v1/apps/{id}/buildUploads",
        "buildUploads",
        &[("build", "builds")],
        &[],
        &[
            ("cfBundleShortVersionString", ANY),
            ("cfBundleVersion", ANY),
            ("platform", PLATFORMS),
            ("state", UPLOAD_STATES),
        ],
        &["cfBundleVersion", "uploadedDate"],
    ),
    one("/v1/buildUploads/{id}", "buildUploads", &[("build", "builds")], &[]),
    one(
        "/v1/apps/{id}/appAvailabilityV2",
        "appAvailabilities",
        &[("territoryAvailabilities", "territoryAvailabilities")],
        &["territoryAvailabilities"],
    ),
    one(
        "/v2/appAvailabilities/{id}",
        "appAvailabilities",
        &[("territoryAvailabilities", "territoryAvailabilities")],
        &["territoryAvailabilities"],
    ),
    list(
        "/v2/appAvailabilities/{id}/territoryAvailabilities",
        "territoryAvailabilities",
        &[("territory", "territories")],
        &[],
        &[],
        &[],
    ),
    one("/v1/betaAppReviewSubmissions/{id}", "betaAppReviewSubmissions", &[("build", "builds")], &[]),
    list("/v1/users", "users", &[], &[], &[], &["username", "lastName"]),
    list("/v1/apps/{id}/webhooks", "webhooks", OF_APP, &[], &[], &[]),
    one("/v1/webhooks/{id}", "webhooks", OF_APP, &[]),
    list(
        "/v1/webhooks/{id}/deliveries",
        "webhookDeliveries",
        &[("event", "webhookEvents")],
        &[],
        &[
            ("deliveryState", DELIVERY_STATES),
            ("createdDateGreaterThanOrEqualTo", ANY),
            ("createdDateLessThan", ANY),
        ],
        &[],
    ),
];
