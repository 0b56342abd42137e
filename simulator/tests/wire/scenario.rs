//! Scenarios, steps and faults.

use reqwest::StatusCode;
use serde_json::Value;
use statusledger_simulator::{
    Fault, FaultKind, Options, Scenario, ScenarioError, Service, Simulator, SimulatorError, Step,
};

use crate::shapes::Description;
use crate::support::{
    PUBLISHER, REPORTING, SCENARIO, access_token, account, claims, exchange, get, get_json, get_with, sign,
    snapshot, start, start_with,
};

#[tokio::test]
async fn steps_happen_at_their_times() {
    let scenario = Scenario::from_toml(SCENARIO).unwrap();
    let simulator =
        Simulator::start(scenario, Options { speed: Some(0.0), ..Options::default() }).await.unwrap();
    let state = async |id: &str| snapshot(&simulator).await[id].clone();
    let production = "com.acme.weather production [{\"versionCode\":210}]";
    assert_eq!(state("\"v-mac-100\"").await, "\"IN_REVIEW\"");
    simulator.advance(9.0);
    assert_eq!(simulator.transitions(), 0);
    simulator.advance(1.0);
    assert_eq!(state("\"v-mac-100\"").await, "\"REJECTED\"");
    simulator.advance(20.0);
    assert_eq!(state("\"b-ios-42\"").await, "\"VALID\"");
    assert_eq!(state(production).await, "\"RELEASE_LIFECYCLE_STATE_PUBLISHED\"");
    assert_eq!(simulator.transitions(), 3);
    simulator.advance(10.0);
    assert_eq!(get(&simulator, "/v1/apps").await.status(), 403);
    simulator.advance(5.0);
    assert_eq!(get(&simulator, "/v1/apps").await.status(), 200);
}

#[tokio::test]
async fn what_is_taken_away_is_gone_with_all_that_hangs_on_it() {
    let simulator = start().await;
    simulator.apply(Step::RemoveBuild { id: "b-ios-41".to_owned() }).unwrap();
    let body = get_json(&simulator, "/v1/apps/1001/appStoreVersions?include=build").await;
    assert_eq!(body["included"], Value::Array(Vec::new()));
    simulator.apply(Step::RemoveApp { id: "1001".to_owned() }).unwrap();
    assert_eq!(get(&simulator, "/v1/apps/1001/appStoreVersions").await.status(), 404);
    assert_eq!(get_json(&simulator, "/v1/builds").await["data"], Value::Array(Vec::new()));
    let remove = || Step::RemovePlayApp { package: "com.acme.weather".to_owned() };
    simulator.apply(remove()).unwrap();
    assert!(matches!(simulator.apply(remove()), Err(ScenarioError::Missing { .. })));
}

#[tokio::test]
async fn a_scenario_that_makes_no_sense_is_refused() {
    let wrong = [
        ("state = \"IN_REVIEW\"", "state = \"HELD\""),
        ("platform = \"MAC_OS\"", "platform = \"WATCH_OS\""),
        ("processing_state = \"PROCESSING\"", "processing_state = \"COOKING\""),
        ("build = \"b-ios-41\"", "build = \"b-0\""),
        ("id = \"v-ios-210\"", "id = \"v-ios-200\""),
        ("track = \"qa\"", "track = \"nowhere\""),
        ("at = 10", "at = -10"),
    ];
    for (good, bad) in wrong {
        assert!(SCENARIO.contains(good), "{good}");
        let scenario = Scenario::from_toml(&SCENARIO.replacen(good, bad, 1)).unwrap();
        let refused = Simulator::start(scenario, Options::default()).await;
        assert!(matches!(refused, Err(SimulatorError::Scenario(_))), "{bad}");
    }
    for bad in [
        "colour = \"red\"",
        "[[step]]\nat = 1\ndo = \"dance\"",
        "[[step]]\ndo = \"end_fault\"",
        "{",
        "[[step]]\nat = 1\ndo = \"version_state\"\nid = \"v\"\nstate = \"IN_REVIEW\"\ncolour = 1",
    ] {
        assert!(matches!(Scenario::from_toml(bad), Err(ScenarioError::Syntax(_))), "{bad}");
    }
    let simulator = start().await;
    let held = || Step::VersionState { id: "v-mac-100".to_owned(), state: "HELD".to_owned() };
    assert!(matches!(simulator.apply(held()), Err(ScenarioError::UnknownValue { .. })));

    let scenario = Scenario { unknown_values: true, ..Scenario::from_toml(SCENARIO).unwrap() };
    let simulator = Simulator::start(scenario, Options::default()).await.unwrap();
    simulator.apply(held()).unwrap();
}

#[tokio::test]
async fn a_scenario_is_the_same_in_json_and_in_toml() {
    let scenario = Scenario::from_toml(SCENARIO).unwrap();
    let json = serde_json::to_string(&scenario).unwrap();
    let again = Scenario::from_json(&json).unwrap();
    assert_eq!(serde_json::to_value(&again).unwrap(), serde_json::to_value(&scenario).unwrap());
    assert_eq!(again.steps.len(), 4);
    let demo = serde_json::to_string(&Scenario::demo()).unwrap();
    Simulator::start(Scenario::from_json(&demo).unwrap(), Options::default()).await.unwrap();
}

#[tokio::test]
async fn each_fault_answers_as_the_store_would() {
    let Some(description) = Description::apple() else { return };
    let simulator = start().await;
    let token = access_token(&simulator, "acme", &format!("{PUBLISHER} {REPORTING}")).await;
    for (kind, status, apple, google) in [
        (FaultKind::Unauthorized, 401, "NOT_AUTHORIZED", "UNAUTHENTICATED"),
        (FaultKind::Agreements, 403, "FORBIDDEN.REQUIRED_AGREEMENTS_MISSING_OR_EXPIRED", "PERMISSION_DENIED"),
        (FaultKind::Forbidden, 403, "FORBIDDEN_ERROR", "PERMISSION_DENIED"),
        (FaultKind::NotFound, 404, "NOT_FOUND", "NOT_FOUND"),
        (FaultKind::RateLimited, 429, "RATE_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED"),
        (FaultKind::ServerError, 500, "UNEXPECTED_ERROR", "INTERNAL"),
        (FaultKind::Unavailable, 503, "SERVICE_UNAVAILABLE", "UNAVAILABLE"),
    ] {
        let fault = Fault { retry_after: Some(7), ..Fault::new(kind).times(2) };
        simulator.apply(Step::Fault(fault)).unwrap();
        let response = get(&simulator, "/v1/apps").await;
        assert_eq!(response.status(), status, "{kind:?}");
        let waits = [FaultKind::RateLimited, FaultKind::Unavailable].contains(&kind);
        assert_eq!(response.headers().contains_key("retry-after"), waits, "{kind:?}");
        let tells_rate = response.headers().contains_key("x-rate-limit");
        assert_eq!(tells_rate, [403, 404, 429].contains(&status), "{kind:?}");
        let body: Value = response.json().await.unwrap();
        description.check_apple("/v1/apps", status, &body);
        assert_eq!(body["errors"][0]["code"], apple);
        let response = get_with(&simulator, "/v1beta1/apps:search", &token).await;
        assert_eq!(response.status(), status, "{kind:?}");
        assert_eq!(response.json::<Value>().await.unwrap()["error"]["status"], google);
        assert_eq!(get(&simulator, "/v1/apps").await.status(), 200, "after {kind:?}");
    }
}

#[tokio::test]
async fn html_garbage_and_cut_connections_come_over_the_wire() {
    let simulator = start().await;
    let fault = |kind| simulator.apply(Step::Fault(Fault::new(kind).times(1))).unwrap();
    fault(FaultKind::BadGateway);
    let response = get(&simulator, "/v1/apps").await;
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    assert_eq!(response.headers()["content-type"], "text/html");
    assert!(response.text().await.unwrap().starts_with("<html>"));
    fault(FaultKind::Garbage);
    let response = get(&simulator, "/v1/apps").await;
    assert_eq!(response.status(), StatusCode::OK);
    assert!(response.json::<Value>().await.is_err());
    fault(FaultKind::Cut);
    let key = simulator.app_store_key("Acme").unwrap();
    let address = format!("{}/v1/apps", simulator.app_store_base_url());
    let token = sign(&key, &claims(&key));
    let asked = reqwest::Client::new().get(address).bearer_auth(token).send();
    let whole = async { asked.await?.bytes().await };
    let error = whole.await.unwrap_err();
    assert!(!error.is_timeout() && !error.is_connect(), "{error:?}");
    assert_eq!(simulator.requests().last().unwrap().status, 0);
}

#[tokio::test]
async fn a_fault_meets_only_what_it_names_and_ends_by_name() {
    let simulator = start().await;
    let token = access_token(&simulator, "acme", REPORTING).await;
    let builds =
        Fault { name: Some("builds".to_owned()), ..Fault::new(FaultKind::Forbidden).at("/v1/builds") };
    let other = Fault { account: Some("Other".to_owned()), ..Fault::new(FaultKind::Unauthorized) };
    let tokens = Fault::new(FaultKind::ServerError).of(Service::GoogleToken);
    for fault in [builds, other, tokens] {
        simulator.apply(Step::Fault(fault)).unwrap();
    }
    assert_eq!(get(&simulator, "/v1/apps").await.status(), 200);
    assert_eq!(get(&simulator, "/v1/builds").await.status(), 403);
    let key = simulator.app_store_key("Other").unwrap();
    let theirs = sign(&key, &claims(&key));
    assert_eq!(get_with(&simulator, "/v1/apps", &theirs).await.status(), 401);
    assert_eq!(get_with(&simulator, "/v1beta1/apps:search", &token).await.status(), 200);
    assert_eq!(exchange(&account(&simulator, "acme"), "x").await.status(), 500);
    simulator.apply(Step::EndFault { name: Some("builds".to_owned()) }).unwrap();
    assert_eq!(get(&simulator, "/v1/builds").await.status(), 200);
    assert_eq!(get_with(&simulator, "/v1/apps", &theirs).await.status(), 401);
    simulator.apply(Step::EndFault { name: None }).unwrap();
    assert_eq!(get_with(&simulator, "/v1/apps", &theirs).await.status(), 200);
}

#[tokio::test]
async fn keys_are_kept_where_they_are_asked_to_be() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let start = async || {
        let scenario = Scenario::from_toml(SCENARIO).unwrap();
        let keys = Some(directory.path().to_owned());
        Simulator::start(scenario, Options { keys, ..Options::default() }).await.unwrap()
    };
    let first = start().await;
    let second = start().await;
    let (one, other) = (first.app_store_key("Acme").unwrap(), second.app_store_key("Acme").unwrap());
    assert_eq!((&one.key_id, &one.private_key_pem), (&other.key_id, &other.private_key_pem));
    let (one, other) = (account(&first, "acme"), account(&second, "acme"));
    assert_eq!(
        (&one["private_key"], &one["private_key_id"]),
        (&other["private_key"], &other["private_key_id"])
    );
    assert_ne!(one["token_uri"], other["token_uri"]);
    let files: Vec<_> = std::fs::read_dir(directory.path()).unwrap().map(Result::unwrap).collect();
    assert_eq!(files.len(), 3);
    for file in files {
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", file.path());
    }
}

#[tokio::test]
async fn a_simulator_that_is_shut_down_no_longer_listens() {
    let simulator = start().await;
    let address = simulator.address();
    simulator.shutdown().await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_simulator_that_is_dropped_stops_listening() {
    let simulator = start().await;
    let address = simulator.address();
    drop(simulator);
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    while tokio::net::TcpStream::connect(address).await.is_ok() {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn every_kind_of_step_can_be_written_down() {
    const STEPS: &str = r#"
        [[step]]
        at = 1
        do = "add_app"
        team = "Acme"
        app = { id = "1002", name = "Acme Maps", bundle_id = "com.acme.maps" }
        [[step]]
        at = 2
        do = "add_build"
        id = "b-1"
        app = "1002"
        platform = "IOS"
        version = "1"
        pre_release_version = "0.1.0"
        [[step]]
        at = 3
        do = "add_version"
        id = "v-1"
        app = "1002"
        platform = "IOS"
        version_string = "0.1.0"
        [[step]]
        at = 4
        do = "version_build"
        id = "v-1"
        build = "b-1"
        [[step]]
        at = 5
        do = "phased_release"
        id = "v-1"
        state = "PAUSED"
        day = 2
        [[step]]
        at = 6
        do = "remove_build"
        id = "b-ios-42"
        [[step]]
        at = 7
        do = "remove_version"
        id = "v-mac-100"
        [[step]]
        at = 8
        do = "remove_app"
        id = "2001"
        [[step]]
        at = 9
        do = "add_play_app"
        account = "acme"
        app = { package = "com.acme.maps", display_name = "Acme Maps" }
        [[step]]
        at = 10
        do = "remove_release"
        package = "com.acme.weather"
        track = "qa"
        version_codes = [210]
        [[step]]
        at = 11
        do = "remove_play_app"
        package = "com.acme.weather"
        [[step]]
        at = 12
        do = "fault"
        kind = "bad_gateway"
        name = "proxy"
        [[step]]
        at = 13
        do = "end_fault"
        name = "proxy"
    "#;
    let (start, _) = SCENARIO.split_once("[[step]]").unwrap();
    let scenario = Scenario::from_toml(&format!("{start}{STEPS}")).unwrap();
    let count = scenario.steps.len();
    assert_eq!(count, 13);
    let simulator = start_with(scenario.clone()).await;
    for step in scenario.steps {
        // Each is good in its order.
        simulator.apply(step.step).unwrap();
    }
    let body =
        get_json(&simulator, "/v1/apps/1002/appStoreVersions?include=build,appStoreVersionPhasedRelease")
            .await;
    assert_eq!(body["included"].as_array().unwrap().len(), 2);
    assert_eq!(body["included"][1]["attributes"]["phasedReleaseState"], "PAUSED");
    let builds = get_json(&simulator, "/v1/builds").await;
    assert_eq!(builds["meta"]["paging"]["total"], 2);
}

#[tokio::test]
async fn each_new_kind_of_step_can_be_written_in_a_scenario_and_is_good_in_its_order() {
    let steps = [
        r#"do = "add_app_event", id = "e-9", app = "3001", reference_name = "Autumn", state = "DRAFT""#,
        r#"do = "add_build", id = "b-9", app = "3001", platform = "IOS", version = "9", pre_release_version = "9""#,
        r#"do = "add_beta_review", build = "b-9", state = "WAITING_FOR_REVIEW""#,
        r#"do = "add_build_upload", id = "u-9", app = "3001", platform = "IOS", version = "9", short_version = "9", state = "PROCESSING""#,
        r#"do = "upload_state", id = "u-9", state = "COMPLETE", build = "b-9", errors = [], infos = [{ code = "1", description = "Done" }]"#,
        r#"do = "add_review_submission", id = "s-9", app = "3001", platform = "IOS", state = "READY_FOR_REVIEW", version = "v-2""#,
        r#"do = "add_review_item", id = "i-9", submission = "s-9", state = "READY_FOR_REVIEW", event = "e-9""#,
        r#"do = "add_app_info", id = "f-9", app = "3002", state = "IN_REVIEW""#,
        r#"do = "add_in_app_purchase", id = "p-9", app = "3002", name = "Nine", product_id = "nine", state = "APPROVED""#,
        r#"do = "add_subscription_group", id = "g-9", app = "3002", reference_name = "Nine""#,
        r#"do = "add_subscription", id = "m-9", group = "g-9", name = "Nine", product_id = "nine.monthly", state = "APPROVED""#,
        r#"do = "add_availability", app = "3002""#,
        r#"do = "territory_availability", app = "3002", territory = "JPN", available = true, content_statuses = ["AVAILABLE"]"#,
        r#"do = "add_webhook", id = "w-9", app = "3002", url = "http://127.0.0.1:9/", secret = "s", event_types = ["BUILD_UPLOAD_STATE_UPDATED"]"#,
        r#"do = "withhold_webhooks", withhold = true"#,
        r#"do = "ping_webhook", webhook = "w-9", shape = "minimal""#,
        r#"do = "phased_day", id = "v-1", day = 4"#,
        r#"do = "state", resource = "appStoreVersionPhasedReleases", id = "v-1-phased", state = "PAUSED""#,
        r#"do = "transfer_app", id = "3002", to = "Museum""#,
        r#"do = "return_app", id = "3002""#,
        r#"do = "transfer_app", id = "3002""#,
        r#"do = "remove", resource = "webhooks", id = "w-1""#,
        r#"do = "fault", kind = "unknown_value", value = "HELD", resource = "builds", service = "app_store""#,
        r#"do = "fault", kind = "clock_skew", skew_seconds = -90"#,
        r#"do = "end_fault""#,
    ];
    let lines: Vec<_> =
        steps.iter().enumerate().map(|(at, step)| format!("    {{ at = {at}, {step} }},")).collect();
    let text = format!("step = [\n{}\n]\n{}", lines.join("\n"), crate::studio::EVERYTHING);
    let scenario = Scenario::from_toml(&text).unwrap();
    assert_eq!(scenario.steps.len(), steps.len());
    let simulator = crate::studio::still(Scenario { steps: Vec::new(), ..scenario.clone() }).await;
    for step in scenario.steps {
        let said = format!("{step:?}");
        simulator.apply(step.step).unwrap_or_else(|error| panic!("{said}: {error}"));
    }
    for wrong in [
        r#"do = "add_review_item", id = "i-8", submission = "s-8", state = "READY_FOR_REVIEW""#,
        r#"do = "add_review_item", id = "i-8", submission = "s-1", state = "READY_FOR_REVIEW", version = "v-8""#,
        r#"do = "add_subscription", id = "m-8", group = "g-1", name = "8", product_id = "8", state = "HELD""#,
        r#"do = "add_app_info", id = "f-1", app = "3001", state = "IN_REVIEW""#,
        r#"do = "add_beta_review", build = "b-8", state = "WAITING_FOR_REVIEW""#,
        r#"do = "territory_availability", app = "3002", territory = "JPN""#,
        r#"do = "phased_day", id = "v-2", day = 1"#,
        r#"do = "state", resource = "shoes", id = "1", state = "IN_REVIEW""#,
    ] {
        let scenario = Scenario::from_toml(&format!("step = [{{ at = 0, {wrong} }}]")).unwrap();
        let step = scenario.steps[0].step.clone();
        assert!(simulator.apply(step).is_err(), "{wrong}");
    }
}
