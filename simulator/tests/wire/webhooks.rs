//! App Store Connect's webhooks, received by a real listener.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use statusledger_simulator::{PingShape, Scenario, ScenarioError, Simulator, Step};

use crate::shapes::Description;
use crate::studio::{EVERYTHING, ask, read, state, still};

type Received = Arc<Mutex<Vec<(String, Bytes)>>>;

/// Keeps what it gets; answers 503 to what it is told to refuse.
async fn receive(
    State((received, refuse)): State<(Received, bool)>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let signature = headers["x-apple-signature"].to_str().unwrap().to_owned();
    received.lock().unwrap().push((signature, body));
    if refuse { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }
}

/// A listener, and the simulator whose webhook leads to it.
async fn listen(refuse: bool, old_upload_state: bool) -> (Simulator, Received) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/in", listener.local_addr().unwrap());
    let received = Received::default();
    let router = Router::new().fallback(receive).with_state((Arc::clone(&received), refuse));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let mut scenario = Scenario::from_toml(EVERYTHING).unwrap();
    scenario.app_store[0].webhooks[0].url = url;
    scenario.app_store[0].webhooks[0].tells_old_upload_state = old_upload_state;
    (still(scenario).await, received)
}

/// What was received, each signature checked over the raw body.
fn taken(received: &Received) -> Vec<Value> {
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, b"This is my secret");
    let check = |(signature, body): (String, Bytes)| {
        let hex = signature.strip_prefix("hmacsha256=").unwrap();
        assert_eq!(hex, hex.to_lowercase());
        let tag: Vec<u8> =
            (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect();
        aws_lc_rs::hmac::verify(&key, &body, &tag).unwrap();
        serde_json::from_slice(&body).unwrap()
    };
    std::mem::take(&mut *received.lock().unwrap()).into_iter().map(check).collect()
}

const DELIVERIES: &str =
    "/v1/webhooks/w-1/deliveries?filter[createdDateGreaterThanOrEqualTo]=2026-01-01T00:00:00Z&include=event";

#[tokio::test]
async fn a_change_of_a_version_a_build_or_an_upload_is_told_signed_and_in_order() {
    let (simulator, received) = listen(false, false).await;
    simulator.apply(state("appStoreVersions", "v-1", "REJECTED")).unwrap();
    simulator.apply(Step::VersionState { id: "v-1".into(), state: "WAITING_FOR_REVIEW".into() }).unwrap();
    simulator.apply(state("buildBetaDetails", "b-1", "IN_BETA_REVIEW")).unwrap();
    simulator.apply(state("buildUploads", "u-2", "PROCESSING")).unwrap();
    // What does not change, is of another app or is nothing that a webhook hears of, is not told.
    simulator.apply(state("appStoreVersions", "v-2", "READY_FOR_DISTRIBUTION")).unwrap();
    simulator.apply(state("builds", "b-2", "INVALID")).unwrap();
    simulator.apply(state("inAppPurchases", "p-1", "APPROVED")).unwrap();
    simulator.webhooks_settled().await;
    let told = taken(&received);
    let shape = |body: &Value| {
        let data = &body["data"];
        let mut attributes = data["attributes"].clone();
        assert!(attributes.as_object_mut().unwrap().remove("timestamp").unwrap().is_string());
        let instance = data["relationships"]["instance"].clone();
        let link = instance["links"]["self"].as_str().unwrap().to_owned();
        assert!(link.starts_with(simulator.app_store_base_url()));
        assert_eq!(data["version"], 1);
        (data["type"].as_str().unwrap().to_owned(), attributes, instance["data"].clone())
    };
    let of = |kind: &str, id: &str| json!({ "type": kind, "id": id });
    let version = "appStoreVersionAppVersionStateUpdated".to_owned();
    assert_eq!(
        told.iter().map(shape).collect::<Vec<_>>(),
        [
            (
                version.clone(),
                json!({ "oldValue": "IN_REVIEW", "newValue": "REJECTED" }),
                of("appStoreVersions", "v-1")
            ),
            (
                version,
                json!({ "oldValue": "REJECTED", "newValue": "WAITING_FOR_REVIEW" }),
                of("appStoreVersions", "v-1")
            ),
            (
                "buildBetaDetailExternalBuildStateUpdated".to_owned(),
                json!({
                    "oldExternalBuildState": "WAITING_FOR_BETA_REVIEW",
                    "newExternalBuildState": "IN_BETA_REVIEW",
                }),
                of("buildBetaDetails", "b-1")
            ),
            (
                "buildUploadStateUpdated".to_owned(),
                json!({ "newState": "PROCESSING" }),
                of("buildUploads", "u-2")
            ),
        ]
    );
    let link = told[2]["data"]["relationships"]["instance"]["links"]["self"].as_str().unwrap();
    assert!(link.ends_with("/v1/buildBetaDetails/b-1"));

    let Some(description) = Description::apple() else { return };
    let body = read(&simulator, DELIVERIES).await;
    description.check_apple("/v1/webhooks/{id}/deliveries", 200, &body);
    let states: Vec<_> =
        body["data"].as_array().unwrap().iter().map(|one| &one["attributes"]["deliveryState"]).collect();
    assert_eq!(states, ["SUCCEEDED"; 4]);
    let payload: Value =
        serde_json::from_str(body["included"][0]["attributes"]["payload"].as_str().unwrap()).unwrap();
    assert_eq!(&payload, told.last().unwrap(), "the newest is first");
    assert_eq!(body["included"][0]["id"], payload["data"]["id"]);
}

#[tokio::test]
async fn an_upload_tells_its_old_state_where_the_webhook_says_so() {
    let (simulator, received) = listen(false, true).await;
    simulator.apply(state("buildUploads", "u-2", "PROCESSING")).unwrap();
    simulator.webhooks_settled().await;
    let told = taken(&received);
    assert_eq!(told[0]["data"]["attributes"]["oldState"], "FAILED");
}

#[tokio::test]
async fn a_ping_has_three_shapes() {
    let (simulator, received) = listen(false, false).await;
    for shape in [PingShape::Timestamp, PingShape::Minimal] {
        simulator.ping_webhook("w-1", shape).unwrap();
    }
    simulator.apply(Step::PingWebhook { webhook: "w-1".to_owned(), shape: PingShape::Resource }).unwrap();
    simulator.webhooks_settled().await;
    let told = taken(&received);
    let kinds: Vec<_> = told.iter().map(|body| body["data"]["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["webhookPingCreated", "webhookPingCreated", "webhookPings"]);
    assert!(told[0]["data"]["attributes"]["timestamp"].is_string());
    assert!(told[1]["data"].get("attributes").is_none());
    assert!(matches!(
        simulator.ping_webhook("nobody", PingShape::Minimal),
        Err(ScenarioError::Missing { .. })
    ));
    let body = read(&simulator, DELIVERIES).await;
    assert!(body["included"].as_array().unwrap().iter().all(|event| event["attributes"]["ping"] == true));
}

#[tokio::test]
async fn a_delivery_is_sent_again_with_the_same_event() {
    let (simulator, received) = listen(false, false).await;
    simulator.apply(state("appStoreVersions", "v-1", "REJECTED")).unwrap();
    let first = simulator.webhook_deliveries()[0].id.clone();
    let second = simulator.redeliver_webhook(&first).unwrap();
    simulator.webhooks_settled().await;
    let told = taken(&received);
    assert_eq!(told.len(), 2);
    assert_eq!(told[0], told[1]);
    let deliveries = simulator.webhook_deliveries();
    assert_ne!(first, second);
    assert_eq!(deliveries[1].id, second);
    assert_eq!((deliveries[0].redelivery, deliveries[1].redelivery), (false, true));
    assert_eq!(deliveries[0].event, deliveries[1].event);
    assert!(simulator.redeliver_webhook("nobody").is_err());
}

#[tokio::test]
async fn what_is_withheld_is_known_to_the_list_of_deliveries_only() {
    let (simulator, received) = listen(false, false).await;
    simulator.withhold_webhooks(true);
    simulator.apply(state("appStoreVersions", "v-1", "REJECTED")).unwrap();
    simulator.apply(Step::WithholdWebhooks { withhold: false }).unwrap();
    simulator.apply(state("appStoreVersions", "v-1", "WAITING_FOR_REVIEW")).unwrap();
    simulator.webhooks_settled().await;
    let told = taken(&received);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0]["data"]["attributes"]["newValue"], "WAITING_FOR_REVIEW");
    let body = read(&simulator, &format!("{DELIVERIES}&filter[deliveryState]=FAILED")).await;
    assert_eq!(body["data"].as_array().unwrap().len(), 1);
    assert!(body["included"][0]["attributes"]["payload"].as_str().unwrap().contains("\"REJECTED\""));
}

#[tokio::test]
async fn a_delivery_that_fails_is_not_tried_again() {
    let (simulator, received) = listen(true, false).await;
    simulator.apply(state("appStoreVersions", "v-1", "REJECTED")).unwrap();
    simulator.webhooks_settled().await;
    assert_eq!(taken(&received).len(), 1);
    let delivery = &simulator.webhook_deliveries()[0];
    assert_eq!((delivery.state, delivery.response.as_ref().unwrap().0), ("FAILED", 503));

    // Nobody listens there: the reason is told instead of an answer.
    let deaf = crate::studio::start().await;
    deaf.apply(state("appStoreVersions", "v-1", "REJECTED")).unwrap();
    deaf.webhooks_settled().await;
    let delivery = &deaf.webhook_deliveries()[0];
    assert_eq!(
        (delivery.state, delivery.response.is_none(), delivery.error.is_some()),
        ("FAILED", true, true)
    );
}

#[tokio::test]
async fn deliveries_are_asked_for_from_a_time_on_or_before_it() {
    let (simulator, _received) = listen(false, false).await;
    simulator.apply(state("appStoreVersions", "v-1", "REJECTED")).unwrap();
    simulator.webhooks_settled().await;
    for (filter, shown) in [
        ("createdDateGreaterThanOrEqualTo]=2026-01-01T00:00:00Z", 1),
        ("createdDateGreaterThanOrEqualTo]=2126-01-01T00:00:00Z", 0),
        ("createdDateLessThan]=2026-01-01T00:00:00Z", 0),
        ("createdDateLessThan]=2126-01-01T00:00:00Z", 1),
    ] {
        let body = read(&simulator, &format!("/v1/webhooks/w-1/deliveries?filter[{filter}")).await;
        assert_eq!(body["meta"]["paging"]["total"], shown, "{filter}");
    }
    assert_eq!(ask(&simulator, "/v1/webhooks/nobody/deliveries").await.status(), 404);
}
