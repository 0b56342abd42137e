//! A team of which everything has a status, and how to ask for it.

use reqwest::{Response, StatusCode};
use serde_json::Value;
use statusledger_simulator::{Options, Scenario, Simulator, Step};

use crate::support::{PUBLISHER, REPORTING, access_token, claims, get_with, sign};

pub(crate) const EVERYTHING: &str = include_str!("everything.toml");

/// Each path that the simulator has, as it is here and as the description has it.
pub(crate) const READS: &[(&str, &str)] = &[
    ("/v1/apps", "/v1/apps"),
    ("/v1/apps/3001", "/v1/apps/{id}"),
    ("/v1/apps/3001/appStoreVersions", "/v1/apps/{id}/appStoreVersions"),
    ("/v1/appStoreVersions/v-1", "/v1/appStoreVersions/{id}"),
    (
        "/v1/appStoreVersions/v-1/appStoreVersionPhasedRelease",
        "/v1/appStoreVersions/{id}/appStoreVersionPhasedRelease",
    ),
    ("/v1/builds", "/v1/builds"),
    ("/v1/builds/b-1", "/v1/builds/{id}"),
    ("/v1/buildBetaDetails", "/v1/buildBetaDetails"),
    ("/v1/betaAppReviewSubmissions?filter[build]=b-1", "/v1/betaAppReviewSubmissions"),
    ("/v1/reviewSubmissions?filter[app]=3001,3002", "/v1/reviewSubmissions"),
    ("/v1/reviewSubmissions/s-1", "/v1/reviewSubmissions/{id}"),
    ("/v1/reviewSubmissions/s-1/items", "/v1/reviewSubmissions/{id}/items"),
    ("/v1/apps/3001/appInfos", "/v1/apps/{id}/appInfos"),
    ("/v1/appInfos/f-1", "/v1/appInfos/{id}"),
    ("/v1/apps/3001/inAppPurchasesV2", "/v1/apps/{id}/inAppPurchasesV2"),
    ("/v2/inAppPurchases/p-1", "/v2/inAppPurchases/{id}"),
    ("/v1/apps/3001/subscriptionGroups", "/v1/apps/{id}/subscriptionGroups"),
    ("/v1/subscriptionGroups/g-1/subscriptions", "/v1/subscriptionGroups/{id}/subscriptions"),
    ("/v1/subscriptions/m-1", "/v1/subscriptions/{id}"),
    ("/v1/apps/3001/appEvents", "/v1/apps/{id}/appEvents"),
    ("/v1/appEvents/e-1", "/v1/appEvents/{id}"),
    ("/v1/apps/3001/buildUploads", "/v1/apps/{id}/buildUploads"),
    ("/v1/buildUploads/u-2", "/v1/buildUploads/{id}"),
    ("/v1/apps/3001/appAvailabilityV2", "/v1/apps/{id}/appAvailabilityV2"),
    ("/v2/appAvailabilities/3001", "/v2/appAvailabilities/{id}"),
    (
        "/v2/appAvailabilities/3001/territoryAvailabilities",
        "/v2/appAvailabilities/{id}/territoryAvailabilities",
    ),
    ("/v1/users", "/v1/users"),
    ("/v1/betaAppReviewSubmissions/b-1", "/v1/betaAppReviewSubmissions/{id}"),
    ("/v1/apps/3001/webhooks", "/v1/apps/{id}/webhooks"),
    ("/v1/webhooks/w-1", "/v1/webhooks/{id}"),
    (
        "/v1/webhooks/w-1/deliveries?filter[createdDateGreaterThanOrEqualTo]=2026-01-01T00:00:00Z",
        "/v1/webhooks/{id}/deliveries",
    ),
];

/// What each path may include, and whether that takes a limit.
pub(crate) const INCLUDES: &[(&str, &str, bool)] = &[
    ("/v1/apps", "appStoreVersions", true),
    ("/v1/apps", "builds", true),
    ("/v1/apps", "preReleaseVersions", true),
    ("/v1/apps", "appInfos", true),
    ("/v1/apps", "inAppPurchasesV2", true),
    ("/v1/apps", "subscriptionGroups", true),
    ("/v1/apps", "appEvents", true),
    ("/v1/apps", "reviewSubmissions", true),
    ("/v1/apps/{id}", "inAppPurchasesV2", true),
    ("/v1/apps/{id}", "reviewSubmissions", true),
    ("/v1/apps/{id}/appStoreVersions", "app", false),
    ("/v1/apps/{id}/appStoreVersions", "build", false),
    ("/v1/apps/{id}/appStoreVersions", "appStoreVersionPhasedRelease", false),
    ("/v1/appStoreVersions/{id}", "appStoreVersionPhasedRelease", false),
    ("/v1/builds", "preReleaseVersion", false),
    ("/v1/builds", "app", false),
    ("/v1/builds", "buildBetaDetail", false),
    ("/v1/builds", "betaAppReviewSubmission", false),
    ("/v1/builds", "appStoreVersion", false),
    ("/v1/builds", "buildUpload", false),
    ("/v1/builds/{id}", "buildUpload", false),
    ("/v1/buildBetaDetails", "build", false),
    ("/v1/betaAppReviewSubmissions", "build", false),
    ("/v1/reviewSubmissions", "app", false),
    ("/v1/reviewSubmissions", "items", true),
    ("/v1/reviewSubmissions", "appStoreVersionForReview", false),
    ("/v1/reviewSubmissions/{id}", "items", true),
    ("/v1/reviewSubmissions/{id}/items", "appStoreVersion", false),
    ("/v1/reviewSubmissions/{id}/items", "appEvent", false),
    ("/v1/apps/{id}/appInfos", "app", false),
    ("/v1/appInfos/{id}", "app", false),
    ("/v1/apps/{id}/subscriptionGroups", "subscriptions", true),
    ("/v1/subscriptionGroups/{id}/subscriptions", "group", false),
    ("/v1/subscriptions/{id}", "group", false),
    ("/v1/apps/{id}/buildUploads", "build", false),
    ("/v1/apps/{id}/appAvailabilityV2", "territoryAvailabilities", true),
    ("/v2/appAvailabilities/{id}", "territoryAvailabilities", true),
    ("/v2/appAvailabilities/{id}/territoryAvailabilities", "territory", false),
    ("/v1/apps/{id}/webhooks", "app", false),
    ("/v1/webhooks/{id}", "app", false),
    ("/v1/webhooks/{id}/deliveries", "event", false),
];

/// The simulator, with a delivery of its webhook that found nobody.
pub(crate) async fn start() -> Simulator {
    still(Scenario::from_toml(EVERYTHING).unwrap()).await
}

pub(crate) async fn still(scenario: Scenario) -> Simulator {
    Simulator::start(scenario, Options { speed: Some(0.0), ..Options::default() }).await.unwrap()
}

/// The address of a path with one more parameter.
pub(crate) fn with(path: &str, parameter: &str) -> String {
    let glue = if path.contains('?') { '&' } else { '?' };
    format!("{path}{glue}{parameter}")
}

pub(crate) async fn ask(simulator: &Simulator, path: &str) -> Response {
    ask_as(simulator, "Studio", path).await
}

pub(crate) async fn ask_as(simulator: &Simulator, team: &str, path: &str) -> Response {
    let key = simulator.app_store_key(team).unwrap();
    get_with(simulator, path, &sign(&key, &claims(&key))).await
}

pub(crate) async fn read(simulator: &Simulator, path: &str) -> Value {
    let response = ask(simulator, path).await;
    let status = response.status();
    let body = response.json().await.unwrap();
    assert_eq!(status, StatusCode::OK, "{path}: {body}");
    body
}

/// The ids in the list of an answer.
pub(crate) fn ids(body: &Value) -> Vec<String> {
    body["data"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
}

pub(crate) fn state(resource: &str, id: &str, state: &str) -> Step {
    Step::State { resource: resource.to_owned(), id: id.to_owned(), state: state.to_owned() }
}

pub(crate) async fn play_token(simulator: &Simulator, account: &str) -> String {
    access_token(simulator, account, &format!("{PUBLISHER} {REPORTING}")).await
}
