//! Google Play's edits over the wire.

use reqwest::Method;
use serde_json::{Value, json};
use statusledger_simulator::{Fault, FaultKind, Simulator, Step};

use crate::shapes::Description;
use crate::studio::{play_token, start};

const EDITS: &str = "/androidpublisher/v3/applications/com.studio.paint/edits";

/// Asks as an account does; gives the status and the body, null where there is none.
async fn call(simulator: &Simulator, token: &str, method: Method, path: &str) -> (u16, Value) {
    let address = format!("{}{path}", simulator.publisher_base_url());
    let response = reqwest::Client::new().request(method, address).bearer_auth(token).send().await.unwrap();
    let status = response.status().as_u16();
    (status, serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or_default())
}

async fn open(simulator: &Simulator, token: &str) -> String {
    let (status, edit) = call(simulator, token, Method::POST, EDITS).await;
    assert_eq!(status, 200, "{edit}");
    edit["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_edit_is_opened_read_and_deleted_as_described() {
    let Some(description) = Description::publisher() else { return };
    let simulator = start().await;
    let token = play_token(&simulator, "studio").await;
    let id = open(&simulator, &token).await;
    assert_eq!(simulator.open_edits(), 1);
    let edit = format!("{EDITS}/{id}");
    for (method, path, status) in [
        (Method::GET, edit.clone(), 200),
        (Method::GET, format!("{edit}/tracks?alt=json"), 200),
        (Method::GET, format!("{edit}/tracks/production"), 200),
        (Method::GET, format!("{edit}/tracks/wear%3Aproduction"), 200),
        (Method::DELETE, edit.clone(), 204),
    ] {
        let (told, body) = call(&simulator, &token, method.clone(), &path).await;
        assert_eq!(told, status, "{method} {path}: {body}");
        let recorded = simulator.requests().pop().unwrap();
        let described = description.method_of(recorded.operation.unwrap(), method.as_str()).unwrap();
        match described["response"]["$ref"].as_str() {
            Some(schema) => description.check_google(schema, &body),
            None => assert_eq!(body, Value::Null),
        }
    }
    assert_eq!(simulator.open_edits(), 0);
    assert_eq!(simulator.committed_edits(), 0);
}

#[tokio::test]
async fn an_edit_shows_how_far_a_release_is_when_it_was_opened() {
    let simulator = start().await;
    let token = play_token(&simulator, "studio").await;
    let track = async |id: &str, name: &str| {
        call(&simulator, &token, Method::GET, &format!("{EDITS}/{id}/tracks/{name}")).await.1
    };
    let id = open(&simulator, &token).await;
    let rollout = json!({
        "name": "1.1.0", "versionCodes": ["110", "111"], "status": "inProgress",
        "userFraction": 0.25, "inAppUpdatePriority": 3,
    });
    let live = json!({ "name": "1.0.0", "versionCodes": ["100"], "status": "completed" });
    let before = json!({ "track": "production", "releases": [rollout, live] });
    assert_eq!(track(&id, "production").await, before);
    assert_eq!(track(&id, "beta").await, json!({ "track": "beta" }));
    let halt: Step = serde_json::from_value(json!({
        "do": "release", "package": "com.studio.paint", "track": "production", "name": "1.1.0",
        "version_codes": [110, 111], "state": "PUBLISHED", "status": "halted", "user_fraction": 0.5,
    }))
    .unwrap();
    simulator.apply(halt).unwrap();
    assert_eq!(track(&id, "production").await, before, "an edit is a copy");
    let id = open(&simulator, &token).await;
    let now = track(&id, "production").await;
    assert_eq!(
        (&now["releases"][0]["status"], &now["releases"][0]["userFraction"]),
        (&json!("halted"), &json!(0.5))
    );
    let changed: Vec<_> = simulator
        .history()
        .into_iter()
        .filter(|change| {
            change.at > -1.0 && change.id == "com.studio.paint/production/110,111" && change.from.is_some()
        })
        .map(|change| (change.attribute, change.to))
        .collect();
    assert_eq!(
        changed,
        [
            ("status", Some("halted".to_owned())),
            ("userFraction", Some("0.5".to_owned())),
            ("inAppUpdatePriority", None),
        ]
    );
    for (status, fraction) in [("completed", 0.5), ("inProgress", 1.0), ("inProgress", 0.0)] {
        let wrong: Step = serde_json::from_value(json!({
            "do": "release", "package": "com.studio.paint", "track": "beta", "name": "2",
            "version_codes": [200], "state": "PUBLISHED", "status": status, "user_fraction": fraction,
        }))
        .unwrap();
        assert!(simulator.apply(wrong).is_err(), "{status} {fraction}");
    }
}

#[tokio::test]
async fn a_new_edit_ends_the_one_before_of_the_same_account() {
    let simulator = start().await;
    let token = play_token(&simulator, "studio").await;
    let first = open(&simulator, &token).await;
    let second = open(&simulator, &token).await;
    assert_eq!(simulator.open_edits(), 1);
    let get = async |id: &str| call(&simulator, &token, Method::GET, &format!("{EDITS}/{id}/tracks")).await;
    let (status, body) = get(&first).await;
    assert_eq!(status, 400, "{body}");
    assert_eq!(body["error"]["message"], "This Edit has been deleted.");
    assert_eq!(body["error"]["errors"][0]["reason"], "badRequest");
    assert_eq!(get(&second).await.0, 200);
    assert_eq!(get("12345").await.0, 404);
    let delete = async |id: &str| call(&simulator, &token, Method::DELETE, &format!("{EDITS}/{id}")).await.0;
    assert_eq!(delete(&first).await, 400);
    assert_eq!(delete(&second).await, 204);
    assert_eq!(delete(&second).await, 400);
    let other = play_token(&simulator, "other").await;
    assert_eq!(call(&simulator, &other, Method::POST, EDITS).await.0, 404);
}

#[tokio::test]
async fn a_commit_is_answered_and_counted() {
    let Some(description) = Description::publisher() else { return };
    let simulator = start().await;
    let token = play_token(&simulator, "studio").await;
    let id = open(&simulator, &token).await;
    let (status, body) = call(&simulator, &token, Method::POST, &format!("{EDITS}/{id}:commit")).await;
    assert_eq!(status, 200);
    description.check_google("AppEdit", &body);
    assert_eq!((simulator.committed_edits(), simulator.open_edits()), (1, 0));
    assert!(simulator.requests().iter().any(|request| request.path.ends_with(":commit")));
    assert_eq!(call(&simulator, &token, Method::GET, &format!("{EDITS}/{id}")).await.0, 400);
    for method in [Method::PUT, Method::PATCH] {
        let path = format!("{EDITS}/{id}/tracks/production");
        assert_eq!(call(&simulator, &token, method, &path).await.0, 405);
    }
}

#[tokio::test]
async fn an_edit_meets_faults_and_lies_like_every_answer() {
    let simulator = start().await;
    let token = play_token(&simulator, "studio").await;
    let id = open(&simulator, &token).await;
    let path = format!("{EDITS}/{id}/tracks/production");
    let fault = Fault { value: Some("paused".to_owned()), ..Fault::new(FaultKind::UnknownValue).times(1) };
    simulator.apply(Step::Fault(fault)).unwrap();
    let (_, body) = call(&simulator, &token, Method::GET, &path).await;
    assert_eq!(body["releases"][0]["status"], "paused");
    simulator.apply(Step::Fault(Fault::new(FaultKind::ServerError).at(&id).times(1))).unwrap();
    assert_eq!(call(&simulator, &token, Method::GET, &path).await.0, 500);
    assert_eq!(call(&simulator, &token, Method::GET, &path).await.0, 200);
}
