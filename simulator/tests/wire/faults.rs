//! Answers that are right in their form and wrong in what they say.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use statusledger_simulator::{Fault, FaultKind, Service, Simulator, Step};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use crate::shapes::Description;
use crate::studio::{ask, ids, play_token, read, start, state};
use crate::support::{get_json, get_with};

fn fault(simulator: &Simulator, fault: Fault) {
    simulator.apply(Step::Fault(fault)).unwrap();
}

fn end(simulator: &Simulator) {
    simulator.apply(Step::EndFault { name: None }).unwrap();
}

#[tokio::test]
async fn a_truncated_body_has_the_length_that_it_says() {
    let simulator = start().await;
    fault(&simulator, Fault::new(FaultKind::Truncated).times(1));
    let response = ask(&simulator, "/v1/apps").await;
    assert_eq!(response.status(), 200);
    let length = response.content_length().unwrap();
    let body = response.bytes().await.unwrap();
    assert_eq!(body.len() as u64, length);
    assert!(serde_json::from_slice::<Value>(&body).is_err());
    read(&simulator, "/v1/apps").await;
}

#[tokio::test]
async fn a_shuffled_listing_is_whole_and_in_another_order_each_time() {
    let simulator = crate::support::start().await;
    let walk = async || {
        let mut address = "/v1/apps?limit=50&fields[apps]=name".to_owned();
        let mut seen = Vec::new();
        loop {
            let body = get_json(&simulator, &address).await;
            seen.extend(ids(&body));
            match body["links"]["next"].as_str() {
                Some(next) => next.clone_into(&mut address),
                None => return seen,
            }
        }
    };
    let right = walk().await;
    fault(&simulator, Fault::new(FaultKind::Shuffled).of(Service::AppStore));
    let (one, other) = (walk().await, walk().await);
    assert_ne!(one, right);
    assert_ne!(one, other);
    let all = |walk: Vec<String>| walk.into_iter().collect::<BTreeSet<_>>();
    assert_eq!(all(one), all(right.clone()));
    assert_eq!(all(other), all(right));
}

#[tokio::test]
async fn ignored_filters_let_everything_through() {
    let simulator = start().await;
    let path = "/v1/reviewSubmissions?filter[app]=3002&filter[state]=CANCELING";
    assert_eq!(ids(&read(&simulator, path).await).len(), 0);
    fault(&simulator, Fault::new(FaultKind::IgnoredFilters));
    assert_eq!(ids(&read(&simulator, path).await).len(), 2);
    assert_eq!(ask(&simulator, "/v1/reviewSubmissions").await.status(), 400);
}

#[tokio::test]
async fn a_page_repeats_by_its_way_on_or_by_its_data() {
    let simulator = crate::support::start().await;
    fault(&simulator, Fault::new(FaultKind::RepeatedPage));
    let body = get_json(&simulator, "/v1/apps?limit=50").await;
    assert_eq!(body["links"]["next"], body["links"]["self"]);
    end(&simulator);
    let first = get_json(&simulator, "/v1/apps?limit=50").await;
    fault(&simulator, Fault::new(FaultKind::RepeatedData));
    let second = get_json(&simulator, first["links"]["next"].as_str().unwrap()).await;
    assert_eq!(second["data"], first["data"]);
    assert_ne!(second["links"]["next"], first["links"]["next"]);
    let third = get_json(&simulator, second["links"]["next"].as_str().unwrap()).await;
    assert_eq!(third["data"], first["data"]);
    assert!(third["links"].get("next").is_none());

    end(&simulator);
    let token = play_token(&simulator, "acme").await;
    fault(&simulator, Fault::new(FaultKind::RepeatedPage));
    let search =
        async |path: &str| -> Value { get_with(&simulator, path, &token).await.json().await.unwrap() };
    let one = search("/v1beta1/apps:search").await;
    let next = format!("/v1beta1/apps:search?pageToken={}", one["nextPageToken"].as_str().unwrap());
    assert_eq!(search(&next).await, one);
}

#[tokio::test]
async fn a_value_never_seen_is_served_for_every_state_or_those_of_one_type() {
    let Some(description) = Description::apple() else { return };
    let simulator = start().await;
    let path = "/v1/builds?filter[id]=b-1&include=buildBetaDetail,betaAppReviewSubmission,buildUpload";
    let states = |body: &Value| {
        let included = &body["included"];
        [
            body["data"][0]["attributes"]["processingState"].clone(),
            included[0]["attributes"]["externalBuildState"].clone(),
            included[1]["attributes"]["betaReviewState"].clone(),
            included[2]["attributes"]["state"]["state"].clone(),
        ]
    };
    let right = states(&read(&simulator, path).await);
    assert_eq!(right, ["VALID", "WAITING_FOR_BETA_REVIEW", "WAITING_FOR_REVIEW", "COMPLETE"]);
    fault(&simulator, Fault { value: Some("HELD".to_owned()), ..Fault::new(FaultKind::UnknownValue) });
    assert_eq!(states(&read(&simulator, path).await), ["HELD"; 4]);
    end(&simulator);
    let one = Fault { resource: Some("buildBetaDetails".to_owned()), ..Fault::new(FaultKind::UnknownValue) };
    fault(&simulator, one);
    let mut wanted = right.clone();
    wanted[1] = json!("SOMETHING_NEW");
    assert_eq!(states(&read(&simulator, path).await), wanted);
    end(&simulator);
    description.check_apple("/v1/builds", 200, &read(&simulator, path).await);

    let token = play_token(&simulator, "studio").await;
    fault(&simulator, Fault::new(FaultKind::UnknownValue).of(Service::GooglePlay));
    let path = "/androidpublisher/v3/applications/com.studio.paint/tracks/production/releases";
    let body: Value = get_with(&simulator, path, &token).await.json().await.unwrap();
    let told = &body["releases"][0]["releaseLifecycleState"];
    assert_eq!(told, "RELEASE_LIFECYCLE_STATE_SOMETHING_NEW");
}

#[tokio::test]
async fn a_stale_answer_says_what_was_before_the_last_change() {
    let Some(description) = Description::apple() else { return };
    let simulator = start().await;
    simulator.apply(state("appStoreVersions", "v-1", "REJECTED")).unwrap();
    simulator.apply(state("appStoreVersions", "v-1", "WAITING_FOR_REVIEW")).unwrap();
    simulator.apply(state("buildUploads", "u-2", "PROCESSING")).unwrap();
    simulator.apply(Step::PhasedDay { id: "v-1".to_owned(), day: 5 }).unwrap();
    let sale = Step::TerritoryAvailability {
        app: "3001".to_owned(),
        territory: "USA".to_owned(),
        available: Some(false),
        content_statuses: None,
    };
    simulator.apply(sale).unwrap();
    fault(&simulator, Fault::new(FaultKind::Stale));
    let path = "/v1/apps/3001/appStoreVersions?include=appStoreVersionPhasedRelease";
    let body = read(&simulator, path).await;
    description.check_apple("/v1/apps/{id}/appStoreVersions", 200, &body);
    assert_eq!(body["data"][1]["attributes"]["appVersionState"], "REJECTED");
    assert_eq!(body["data"][1]["attributes"]["appStoreState"], "REJECTED");
    assert_eq!(body["data"][0]["attributes"]["appVersionState"], "READY_FOR_DISTRIBUTION");
    assert_eq!(body["included"][0]["attributes"]["currentDayNumber"], 2);
    let upload = read(&simulator, "/v1/buildUploads/u-2").await;
    assert_eq!(upload["data"]["attributes"]["state"]["state"], "FAILED");
    assert_eq!(upload["data"]["attributes"]["state"]["errors"][0]["code"], "90683");
    let sold = read(&simulator, "/v2/appAvailabilities/3001/territoryAvailabilities").await;
    assert_eq!(sold["data"][0]["attributes"]["available"], true);
    end(&simulator);
    let body = read(&simulator, path).await;
    assert_eq!(body["data"][1]["attributes"]["appVersionState"], "WAITING_FOR_REVIEW");

    let release: Step = serde_json::from_value(json!({
        "do": "release", "package": "com.studio.paint", "track": "production", "name": "1.0.0",
        "version_codes": [100], "state": "NOT_APPROVED",
    }))
    .unwrap();
    simulator.apply(release).unwrap();
    fault(&simulator, Fault::new(FaultKind::Stale).by("studio"));
    let token = play_token(&simulator, "studio").await;
    let path = "/androidpublisher/v3/applications/com.studio.paint/tracks/production/releases";
    let body: Value = get_with(&simulator, path, &token).await.json().await.unwrap();
    assert_eq!(body["releases"][1]["releaseLifecycleState"], "RELEASE_LIFECYCLE_STATE_PUBLISHED");
}

#[tokio::test]
async fn an_empty_listing_has_nothing_and_a_total_of_none() {
    let Some(description) = Description::apple() else { return };
    let simulator = crate::support::start().await;
    fault(&simulator, Fault::new(FaultKind::Empty));
    let body = get_json(&simulator, "/v1/apps?limit=1&include=builds").await;
    description.check_apple("/v1/apps", 200, &body);
    assert_eq!((&body["data"], &body["included"]), (&json!([]), &json!([])));
    assert_eq!(body["meta"]["paging"], json!({ "total": 0, "limit": 1 }));
    assert!(body["links"].get("next").is_none());
    let token = play_token(&simulator, "acme").await;
    let path = "/androidpublisher/v3/applications/com.acme.weather/tracks/production/releases";
    for path in ["/v1beta1/apps:search?pageSize=1", path] {
        let response = get_with(&simulator, path, &token).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.json::<Value>().await.unwrap(), json!({}));
    }
}

#[tokio::test]
async fn a_skewed_clock_shows_in_the_date_of_every_answer() {
    let simulator = start().await;
    let off = async || {
        let response = ask(&simulator, "/v1/apps").await;
        let date = response.headers()["date"].to_str().unwrap().replace("GMT", "+0000");
        (OffsetDateTime::parse(&date, &Rfc2822).unwrap() - OffsetDateTime::now_utc()).whole_seconds()
    };
    assert!(off().await.abs() < 60);
    for seconds in [7200, -7200] {
        fault(&simulator, Fault { skew_seconds: Some(seconds), ..Fault::new(FaultKind::ClockSkew) });
        assert!((off().await - seconds).abs() < 60);
        fault(&simulator, Fault::new(FaultKind::Unauthorized).times(1));
        assert!((off().await - seconds).abs() < 60, "with another fault");
        end(&simulator);
    }
}

#[tokio::test]
async fn one_resource_only_is_refused_and_the_rest_goes_on() {
    let simulator = start().await;
    fault(&simulator, Fault::new(FaultKind::Forbidden).at("/subscriptionGroups").by("Studio").named("role"));
    let response = ask(&simulator, "/v1/apps/3001/subscriptionGroups").await;
    assert_eq!(response.status(), 403);
    assert_eq!(response.json::<Value>().await.unwrap()["errors"][0]["code"], "FORBIDDEN_ERROR");
    read(&simulator, "/v1/apps/3001/inAppPurchasesV2").await;
    simulator.apply(Step::EndFault { name: Some("role".to_owned()) }).unwrap();
    read(&simulator, "/v1/apps/3001/subscriptionGroups").await;
}

#[tokio::test]
async fn a_429_comes_with_quota_left_and_an_unauthorized_storm_ends() {
    let simulator = start().await;
    fault(&simulator, Fault { retry_after: Some(30), ..Fault::new(FaultKind::RateLimited).times(1) });
    let response = ask(&simulator, "/v1/apps").await;
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()["retry-after"], "30");
    assert_eq!(response.headers()["x-rate-limit"], "user-hour-lim:3500;user-hour-rem:3499;");
    fault(&simulator, Fault::new(FaultKind::Unauthorized).seconds(10.0));
    for _ in 0..3 {
        assert_eq!(ask(&simulator, "/v1/apps").await.status(), 401);
    }
    simulator.advance(10.0);
    assert_eq!(ask(&simulator, "/v1/apps").await.status(), 200);
}

#[tokio::test]
async fn the_history_has_every_change_in_order() {
    let simulator = start().await;
    let before = simulator.history();
    assert!(before.iter().all(|change| change.at == 0.0 && change.from.is_none()));
    assert!(before.iter().any(|change| change.id == "s-1" && change.to.as_deref() == Some("IN_REVIEW")));
    simulator.advance(5.0);
    simulator.apply(state("subscriptions", "m-2", "APPROVED")).unwrap();
    simulator.apply(state("subscriptions", "m-2", "APPROVED")).unwrap();
    simulator.advance(2.0);
    simulator.apply(state("builds", "b-2", "INVALID")).unwrap();
    let transitions = simulator.transitions();
    let told: Vec<_> = simulator.history()[before.len()..]
        .iter()
        .map(|change| {
            (change.at, change.resource, change.id.clone(), change.attribute, change.to.clone().unwrap())
        })
        .collect();
    let text = str::to_owned;
    assert_eq!(
        told,
        [
            (5.0, "subscriptions", text("m-2"), "state", text("APPROVED")),
            (7.0, "builds", text("b-2"), "processingState", text("INVALID")),
        ]
    );
    assert_eq!(transitions, 2);
}
