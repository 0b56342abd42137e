//! How a source fares: what a key may read, what is wrong with it, and what there is to do about it; and that the log
//! tells no secret of it.

use crate::harness::{Api, Program, World, eventually, send, temporary};
use crate::truth::scene::{
    SECRET, Scene, always, apple_request, google_request, on_demand, signature, step, stores, text, version,
    version_event, with_version,
};
use axum::Router;
use axum::extract::{Request as HttpRequest, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde_json::{Value, json};
use sqlx::Connection;
use statusledger::database::roles;
use statusledger_simulator::{Fault, FaultKind, Simulator, Step};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use time::OffsetDateTime;
use tokio::net::TcpListener;

/// What adding a key reported: each read's outcome, and the warnings.
async fn reported(world: &World, request: Value) -> (BTreeMap<String, String>, Vec<String>, Value) {
    let workspace = world.workspace(text(&request, "name")).await;
    let made = world.api.post(&workspace.at("/sources"), request).await.expect(201).json();
    let access = &made["access"];
    let reads = access["reads"].as_array().unwrap_or_else(|| panic!("{made}"));
    let reads = reads.iter().map(|r| (text(r, "what").to_owned(), text(r, "outcome").to_owned())).collect();
    let warnings = access["warnings"].as_array().unwrap();
    (reads, warnings.iter().map(|w| w.as_str().unwrap().to_owned()).collect(), made)
}

fn both(apple: &str) -> Value {
    let mut scenario = with_version(apple);
    scenario["google_play"] = json!([{
        "name": "acme", "apps": [{ "package": "com.acme.weather", "display_name": "Acme Weather" }],
        "releases": [{ "package": "com.acme.weather", "track": "production", "name": "1.0.0",
            "version_codes": [100], "state": "PUBLISHED", "status": "inProgress", "user_fraction": 0.1,
            "in_app_update_priority": 2 }],
    }]);
    scenario
}

#[tokio::test]
async fn adding_a_key_says_what_it_may_read_and_what_not() {
    let world = World::with(on_demand).await;
    let simulator = stores(both("IN_REVIEW")).await;
    let named = |mut request: Value, name: &str| {
        request["name"] = name.into();
        request
    };
    let (reads, warnings, made) = reported(&world, named(apple_request(&simulator), "good")).await;
    let all = [
        "app_events",
        "app_infos",
        "apps",
        "availability",
        "builds",
        "in_app_purchases",
        "reviews",
        "subscriptions",
        "uploads",
        "versions",
        "webhooks",
    ];
    assert_eq!(reads.keys().collect::<Vec<_>>(), all);
    assert!(reads.values().all(|outcome| outcome == "readable"), "{reads:?}");
    assert_eq!(warnings, Vec::<String>::new());
    assert!(!made.to_string().contains("PRIVATE KEY"));
    // It is kept, and shown again.
    let fault = |kind, path: &str| simulator.apply(Step::Fault(Fault::new(kind).at(path))).unwrap();
    fault(FaultKind::Forbidden, "/v1/builds");
    fault(FaultKind::ServerError, "/appInfos");
    let (reads, _, _) = reported(&world, named(apple_request(&simulator), "some")).await;
    let not: Vec<_> = reads.iter().filter(|(_, outcome)| *outcome != "readable").collect();
    let of = |what: &str, outcome: &str| (what.to_owned(), outcome.to_owned());
    let expected = [of("app_infos", "failed"), of("builds", "refused")];
    assert_eq!(not, expected.iter().map(|(what, outcome)| (what, outcome)).collect::<Vec<_>>());
    simulator.apply(Step::EndFault { name: None }).unwrap();
    fault(FaultKind::Unauthorized, "/v1/apps");
    let (reads, _, made) = reported(&world, named(apple_request(&simulator), "none")).await;
    assert_eq!(reads, BTreeMap::from([of("apps", "refused")]), "a refused key is not tried further");
    assert!(made["access"]["reads"][0]["detail"].is_string());
    simulator.apply(Step::EndFault { name: None }).unwrap();
    let (reads, warnings, _) = reported(&world, named(google_request(&simulator), "play")).await;
    assert_eq!(reads.keys().collect::<Vec<_>>(), ["apps", "releases", "tracks"]);
    assert!(reads.values().all(|outcome| outcome == "readable"), "{reads:?}");
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains("no read-only scope"), "{warnings:?}");
}

#[tokio::test]
async fn a_key_that_can_do_more_than_read_is_warned_of() {
    let world = World::with(on_demand).await;
    for (admin, warned) in [(true, 1), (false, 0)] {
        let mut scenario = with_version("IN_REVIEW");
        scenario["app_store"][0]["admin"] = admin.into();
        let simulator = stores(scenario).await;
        let mut request = apple_request(&simulator);
        request["name"] = format!("admin {admin}").into();
        let (reads, warnings, _) = reported(&world, request).await;
        assert!(reads.values().all(|outcome| outcome == "readable"), "{reads:?}");
        assert_eq!(warnings.iter().filter(|w| w.contains("administer")).count(), warned, "{warnings:?}");
        // Whether it may is asked once and by listing, whose answer is not kept.
        let asked: Vec<_> =
            simulator.requests().into_iter().filter(|r| r.path == "/v1/users").map(|r| r.status).collect();
        assert_eq!(asked, [if admin { 200 } else { 403 }]);
    }
}

/// The changes of health in the ledger, each from and to; that each says what to do is asserted.
async fn changes(scene: &Scene) -> Vec<(String, String)> {
    let entries = scene.workspace.entries_of("source.health_changed").await;
    let told = |entry: &Value| {
        let data = &entry["data"];
        let well = data["to"] == "ok";
        assert_eq!(data["advice"].is_string(), !well, "{data}");
        assert_eq!(data["detail"].is_string(), !well, "{data}");
        (text(data, "from").to_owned(), text(data, "to").to_owned())
    };
    entries.iter().map(told).collect()
}

fn of(changes: &[(&str, &str)]) -> Vec<(String, String)> {
    changes.iter().map(|(from, to)| ((*from).to_owned(), (*to).to_owned())).collect()
}

#[tokio::test]
async fn one_refusal_is_nothing_lasting_ones_are_suspect_and_then_refused() {
    let scene = Scene::of(with_version("IN_REVIEW"), always).await;
    scene.healthy(&scene.apple, "ok").await;
    scene.fault(Fault::new(FaultKind::Unauthorized).times(1));
    scene.looks(2).await;
    assert_eq!(changes(&scene).await, [], "a new token was enough");
    scene.fault(Fault::new(FaultKind::Unauthorized));
    scene.healthy(&scene.apple, "refused").await;
    scene.end_faults();
    scene.healthy(&scene.apple, "ok").await;
    let expected = of(&[("ok", "suspect"), ("suspect", "refused"), ("refused", "ok")]);
    assert_eq!(changes(&scene).await, expected);
    scene.apply(version("v1", "REJECTED"));
    scene.says(&["version.transitioned v1 IN_REVIEW>REJECTED poll"]).await;
}

#[tokio::test]
async fn a_key_that_never_worked_is_suspect_then_refused_and_stays_so_until_it_is_taken() {
    let world = World::with(always).await;
    let simulator = stores(with_version("IN_REVIEW")).await;
    let workspace = world.workspace("stores").await;
    let right = apple_request(&simulator);
    let mut wrong = right.clone();
    wrong["credentials"]["key_id"] = "ZMJUM7ZV4M".into();
    let made = world.api.post(&workspace.at("/sources"), wrong).await.expect(201).json();
    let apple = text(&made, "id").to_owned();
    let scene = Scene { world, simulator, workspace, apple, google: String::new() };
    let source = scene.healthy(&scene.apple, "refused").await;
    assert!(text(&source, "health_detail").contains("has not accepted it yet"), "{source}");
    // A round asks for the one list that there is, and once more with another token; it came to `refused` in three.
    let asked = || scene.simulator.request_count();
    let before = asked();
    eventually("six rounds more", || async { (asked() >= before + 12).then_some(()) }).await;
    let mut expected = vec![("new", "suspect"), ("suspect", "refused")];
    assert_eq!(changes(&scene).await, of(&expected), "and no entry a round");
    for entry in scene.workspace.entries_of("source.health_changed").await {
        let words = entry["data"].to_string();
        assert!(!words.contains("key that worked") && !words.contains("Nothing to do"), "{words}");
    }
    // A store that fails for a round or two keeps what is known of the key.
    scene.fault(Fault::new(FaultKind::ServerError).times(1));
    eventually("a failure", || async {
        scene.simulator.requests().iter().any(|request| request.status == 500).then_some(())
    })
    .await;
    let before = asked();
    eventually("another round", || async { (asked() >= before + 4).then_some(()) }).await;
    assert_eq!(changes(&scene).await, of(&expected));
    let path = scene.workspace.at(&format!("/sources/{}/key", scene.apple));
    let key = json!({ "kind": "app_store", "credentials": right["credentials"] });
    send(scene.api().request("PUT", &path).json(&key)).await.expect(200);
    scene.healthy(&scene.apple, "ok").await;
    expected.push(("refused", "ok"));
    assert_eq!(changes(&scene).await, of(&expected));
}

#[tokio::test]
async fn a_list_that_answers_401_alone_does_not_make_the_key_suspect() {
    let scene = Scene::of(with_version("IN_REVIEW"), always).await;
    scene.healthy(&scene.apple, "ok").await;
    scene.fault(Fault::new(FaultKind::Unauthorized).at("/buildUploads"));
    let source = scene.healthy(&scene.apple, "degraded").await;
    assert!(text(&source, "health_detail").contains("of uploads: "), "{source}");
    let before = asked(&scene.simulator, "/appStoreVersions");
    eventually("thirty more of another list", || async {
        (asked(&scene.simulator, "/appStoreVersions") >= before + 30).then_some(())
    })
    .await;
    assert_eq!(changes(&scene).await, of(&[("ok", "degraded")]));
}

#[tokio::test]
async fn what_one_poll_may_not_read_is_named_and_the_others_go_on() {
    let scene = Scene::of(with_version("IN_REVIEW"), always).await;
    scene.healthy(&scene.apple, "ok").await;
    scene.fault(Fault::new(FaultKind::Forbidden).at("/buildUploads"));
    let source = scene.healthy(&scene.apple, "role_too_small").await;
    assert!(text(&source, "health_detail").contains("uploads"), "{source}");
    assert_eq!(changes(&scene).await, of(&[("ok", "role_too_small")]));
    scene.apply(version("v1", "REJECTED"));
    scene.told(&["version.transitioned v1 IN_REVIEW>REJECTED poll"]).await;
    let uploads = || scene.simulator.requests().iter().filter(|r| r.path.ends_with("/buildUploads")).count();
    let asked = uploads();
    scene.apply(version("v1", "WAITING_FOR_REVIEW"));
    scene
        .told(&[
            "version.transitioned v1 IN_REVIEW>REJECTED poll",
            "version.transitioned v1 REJECTED>WAITING_FOR_REVIEW poll",
        ])
        .await;
    assert_eq!(uploads(), asked, "what is refused is left alone");
    scene.look().await;
    // A look waits for what is answered; this is not.
    eventually("a poll for whoever asks to look now", || async { (uploads() > asked).then_some(()) }).await;
    assert_eq!(changes(&scene).await.len(), 1);
    scene
        .says(&[
            "version.transitioned v1 IN_REVIEW>REJECTED poll",
            "version.transitioned v1 REJECTED>WAITING_FOR_REVIEW poll",
        ])
        .await;
}

/// How often a store was asked for what has this in its path.
fn asked(simulator: &Simulator, part: &str) -> usize {
    simulator.requests().iter().filter(|r| r.path.contains(part)).count()
}

#[tokio::test]
async fn a_list_that_does_not_answer_delays_itself_alone() {
    let scene = Scene::of(with_version("IN_REVIEW"), always).await;
    scene.healthy(&scene.apple, "ok").await;
    scene.fault(Fault::new(FaultKind::ServerError).at("/buildUploads"));
    let source = scene.healthy(&scene.apple, "degraded").await;
    assert!(text(&source, "health_detail").contains("uploads: the store failed with status 500"), "{source}");
    // Every 0.1 s as before: one that waits for the list waits twice as long each time.
    let others = ["/appStoreVersions", "/appAvailabilityV2", "/v1/reviewSubmissions", "/v1/builds"];
    let before: Vec<usize> = others.iter().map(|part| asked(&scene.simulator, part)).collect();
    eventually("thirty more of every other list", || async {
        let more = |(part, before): (&&str, &usize)| asked(&scene.simulator, part) >= before + 30;
        others.iter().zip(&before).all(more).then_some(())
    })
    .await;
    scene.apply(version("v1", "REJECTED"));
    scene.told(&["version.transitioned v1 IN_REVIEW>REJECTED poll"]).await;
    scene.end_faults();
    scene.healthy(&scene.apple, "ok").await;
    assert_eq!(changes(&scene).await, of(&[("ok", "degraded"), ("degraded", "ok")]));
}

#[tokio::test]
async fn a_new_key_is_read_but_for_the_list_that_does_not_answer() {
    let world = World::with(always).await;
    let simulator = stores(both("IN_REVIEW")).await;
    for path in ["/buildUploads", "/tracks/beta/", "/tracks/alpha/"] {
        simulator.apply(Step::Fault(Fault::new(FaultKind::ServerError).at(path))).unwrap();
    }
    let workspace = world.workspace("stores").await;
    for request in [apple_request(&simulator), google_request(&simulator)] {
        world.api.post(&workspace.at("/sources"), request).await.expect(201);
    }
    eventually("the rest of both stores", || async {
        let seen = workspace.entries_of("store.version.first_seen").await.len()
            + workspace.entries_of("store.release.first_seen").await.len();
        let again =
            ["/v1/apps", "/appAvailabilityV2", "apps:search", "/tracks/production/", "/tracks/internal/"];
        (seen == 2 && again.iter().all(|part| asked(&simulator, part) > 20)).then_some(())
    })
    .await;
    let listed = world.api.get(&workspace.at("/sources")).await.expect(200).json();
    let details: Vec<&str> =
        listed["items"].as_array().unwrap().iter().map(|s| text(s, "health_detail")).collect();
    assert!(details[0].contains("of uploads: ") && details[1].contains("of releases: "), "{details:?}");
}

#[tokio::test]
async fn what_cannot_be_asked_for_by_itself_keeps_nothing_else_waiting() {
    let scene = Scene::of(with_version("IN_REVIEW"), always).await;
    scene.healthy(&scene.apple, "ok").await;
    scene.fault(Fault::new(FaultKind::ServerError).at("/v1/appStoreVersions/"));
    // What is missing is asked for by itself, in vain, each time that it is missing.
    scene.apply(Step::RemoveVersion { id: "v1".into() });
    eventually("a question in vain", || async {
        (asked(&scene.simulator, "/v1/appStoreVersions/") > 0).then_some(())
    })
    .await;
    let before = asked(&scene.simulator, "/appAvailabilityV2");
    eventually("thirty more of another list", || async {
        (asked(&scene.simulator, "/appAvailabilityV2") >= before + 30).then_some(())
    })
    .await;
}

#[tokio::test]
async fn agreements_clocks_and_answers_that_are_none_are_told_apart() {
    let scene = Scene::of(with_version("IN_REVIEW"), always).await;
    scene.healthy(&scene.apple, "ok").await;
    let skewed = Fault { skew_seconds: Some(600), ..Fault::new(FaultKind::ClockSkew) };
    let mut expected = Vec::new();
    for (fault, health, advice) in [
        (Fault::new(FaultKind::Agreements), "agreements_missing", "agreement"),
        (Fault::new(FaultKind::Garbage), "degraded", "asked again by itself"),
        (Fault::new(FaultKind::BadGateway), "degraded", "asked again by itself"),
        (skewed, "clock_skewed", "clock"),
    ] {
        scene.fault(fault);
        scene.healthy(&scene.apple, health).await;
        let entries = scene.workspace.entries_of("source.health_changed").await;
        let last = &entries.last().unwrap()["data"];
        assert!(text(last, "advice").contains(advice), "{last}");
        scene.end_faults();
        scene.healthy(&scene.apple, "ok").await;
        expected.extend([("ok", health), (health, "ok")]);
    }
    assert_eq!(changes(&scene).await, of(&expected));
    scene.says(&[]).await;
}

#[tokio::test]
async fn a_store_that_says_when_to_come_again_is_not_asked_before() {
    let scene = Scene::of(with_version("IN_REVIEW"), always).await;
    scene.healthy(&scene.apple, "ok").await;
    scene.fault(Fault { retry_after: Some(3), ..Fault::new(FaultKind::RateLimited) });
    let limited = || scene.simulator.requests().iter().filter(|r| r.status == 429).count();
    eventually("a refusal", || async { (limited() > 0).then_some(()) }).await;
    scene.end_faults();
    scene.apply(version("v1", "REJECTED"));
    let refused = scene.simulator.requests().into_iter().find(|r| r.status == 429).unwrap().at;
    // It is asked every 0.1 s otherwise.
    let next = eventually("another request", || async {
        scene.simulator.requests().iter().map(|r| r.at).find(|at| *at > refused)
    })
    .await;
    assert!(next - refused >= Duration::from_secs(3), "{:?}", next - refused);
    assert_eq!(limited(), 1);
    scene.says(&["version.transitioned v1 IN_REVIEW>REJECTED poll"]).await;
}

#[tokio::test]
async fn a_look_that_is_asked_for_during_a_round_is_another_round() {
    let scene = Scene::of(with_version("IN_REVIEW"), on_demand).await;
    let look = || async {
        let path = scene.workspace.at(&format!("/sources/{}/look", scene.apple));
        scene.api().post(&path, json!({})).await.expect(202);
    };
    let lists = || scene.simulator.requests().iter().filter(|r| r.path == "/v1/apps").count();
    let mut superuser = scene.world.database.superuser().await;
    let news = [
        "version.transitioned v1 IN_REVIEW>REJECTED poll",
        "version.transitioned v1 REJECTED>WAITING_FOR_REVIEW poll",
    ];
    // In any round, and in the first of a source, which has no plan yet.
    for (n, state) in ["REJECTED", "WAITING_FOR_REVIEW"].into_iter().enumerate() {
        if n == 1 {
            sqlx::query("DELETE FROM polls").execute(&mut superuser).await.unwrap();
        }
        // The round's first answer cannot be recorded before this is over.
        let mut held = superuser.begin().await.unwrap();
        sqlx::query("LOCK TABLE subjects IN ACCESS EXCLUSIVE MODE").execute(&mut *held).await.unwrap();
        let before = lists();
        look().await;
        eventually("a round", || async { (lists() > before).then_some(()) }).await;
        scene.apply(version("v1", state));
        let since = OffsetDateTime::now_utc();
        look().await;
        held.commit().await.unwrap();
        scene.looked_since(since).await;
        scene.told(&news[..=n]).await;
        assert_eq!(lists(), before + 2, "one round more, and no third");
    }
    scene.says(&news).await;
}

fn release(status: &str, fraction: Option<f64>) -> Step {
    let mut release = json!({ "do": "release", "package": "com.acme.weather", "track": "production",
        "name": "1.0.0", "version_codes": [100], "state": "PUBLISHED", "status": status,
        "in_app_update_priority": 2 });
    if let Some(fraction) = fraction {
        release["user_fraction"] = fraction.into();
    }
    step(release)
}

/// The account that gives itself up for edits.
fn with_edits(simulator: &Simulator) -> Value {
    let email = google_request(simulator)["service_account"]["client_email"].clone();
    json!({ "rollout_by_edits": true, "dedicated_account": email })
}

fn play_only() -> Value {
    json!({ "google_play": both("IN_REVIEW")["google_play"] })
}

#[tokio::test]
async fn rollouts_are_off_until_an_account_is_given_up_for_them() {
    let scene = Scene::of(play_only(), always).await;
    scene.apply(release("inProgress", Some(0.5)));
    scene.says(&[]).await;
    assert!(scene.simulator.requests().iter().all(|r| !r.path.contains("/edits")));
    for more in [
        json!({ "rollout_by_edits": true }),
        json!({ "rollout_by_edits": true, "dedicated_account": "somebody@else.example" }),
    ] {
        let mut request = google_request(&scene.simulator);
        request["name"] = "edits".into();
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = scene.api().post(&scene.workspace.at("/sources"), request).await;
        assert_eq!(answer.problem(422), "invalid");
    }
}

#[tokio::test]
async fn rollouts_are_told_with_their_facts_and_no_edit_stays_or_is_committed() {
    let simulator = stores(play_only()).await;
    let edits = with_edits(&simulator);
    let scene = Scene::over(simulator, always, edits).await;
    let warnings = scene.source(&scene.google).await["access"]["warnings"].to_string();
    assert!(warnings.contains("ends the one before"), "{warnings}");
    let id = "rollout.transitioned com.acme.weather/production/100";
    let mut expected: Vec<String> = Vec::new();
    for (status, fraction, line) in [
        ("inProgress", Some(0.5), "inProgress>inProgress poll changed=user_fraction"),
        ("halted", Some(0.5), "inProgress>halted poll"),
        ("inProgress", Some(0.5), "halted>inProgress poll"),
        ("completed", None, "inProgress>completed poll changed=user_fraction"),
    ] {
        scene.apply(release(status, fraction));
        expected.push(format!("{id} {line}"));
        scene.told(&expected.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }
    let news = scene.news().await;
    assert_eq!(news[0]["data"]["facts"]["in_app_update_priority"], 2);
    scene.says(&expected.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let requests = scene.simulator.requests();
    assert!(requests.iter().any(|r| r.method == "DELETE"));
    for request in requests.iter().filter(|r| r.path.contains("/edits")) {
        let opens = request.method == "POST" && request.path.ends_with("/edits");
        assert!(opens || ["GET", "DELETE"].contains(&request.method.as_str()), "{request:?}");
    }
    assert_eq!(scene.simulator.committed_edits(), 0);
    eventually("no open edit", || async { (scene.simulator.open_edits() == 0).then_some(()) }).await;
}

async fn recorded_edits(scene: &Scene) -> i64 {
    let mut superuser = scene.world.database.superuser().await;
    sqlx::query_scalar("SELECT count(*) FROM play_edits").fetch_one(&mut superuser).await.unwrap()
}

#[tokio::test]
async fn an_edit_that_was_left_open_is_discarded_when_the_node_is_back() {
    let simulator = stores(play_only()).await;
    let edits = with_edits(&simulator);
    let mut scene = Scene::over(simulator, on_demand, edits).await;
    assert_eq!((recorded_edits(&scene).await, scene.simulator.open_edits()), (0, 0));
    // It is opened, and then the store answers nothing about it any more.
    scene.fault(Fault::new(FaultKind::ServerError).at("/edits/"));
    scene
        .api()
        .post(&scene.workspace.at(&format!("/sources/{}/look", scene.google)), json!({}))
        .await
        .expect(202);
    eventually("an edit that stays", || async { (recorded_edits(&scene).await == 1).then_some(()) }).await;
    scene.world.stop().await;
    assert_eq!((recorded_edits(&scene).await, scene.simulator.open_edits()), (1, 1));
    scene.end_faults();
    scene.world.start().await.unwrap();
    let source = format!("/sources/{}/look", scene.google);
    eventually("no edit", || async {
        scene.api().post(&scene.workspace.at(&source), json!({})).await.expect(202);
        (recorded_edits(&scene).await == 0 && scene.simulator.open_edits() == 0).then_some(())
    })
    .await;
    assert_eq!(scene.simulator.committed_edits(), 0);
}

/// In front of a simulator: passes everything on, and keeps what authorized it.
async fn listening(to: &Simulator) -> (String, Arc<Mutex<BTreeSet<String>>>) {
    type Shared = (reqwest::Client, String, Arc<Mutex<BTreeSet<String>>>);
    async fn pass(State((client, base, heard)): State<Shared>, request: HttpRequest) -> Response {
        let authorization = request.headers()["authorization"].to_str().unwrap().to_owned();
        heard.lock().unwrap().insert(authorization.clone());
        let answer = client
            .get(format!("{base}{}", request.uri().path_and_query().unwrap()))
            .header("authorization", authorization)
            .send()
            .await
            .unwrap();
        let status = StatusCode::from_u16(answer.status().as_u16()).unwrap();
        (status, answer.bytes().await.unwrap()).into_response()
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let heard = Arc::new(Mutex::new(BTreeSet::new()));
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let state: Shared = (client, to.app_store_base_url().to_owned(), Arc::clone(&heard));
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(pass).with_state(state)).await });
    (base, heard)
}

/// The forms in which a log could show bytes: text, hex, base64, and Rust's list of numbers.
fn forms(secret: &[u8]) -> Vec<String> {
    let mut forms = vec![
        secret.iter().map(|byte| format!("{byte:02x}")).collect(),
        STANDARD_NO_PAD.encode(&secret[..secret.len() / 3 * 3]),
        secret.iter().map(u8::to_string).collect::<Vec<_>>().join(", "),
    ];
    forms.extend(std::str::from_utf8(secret).map(str::to_owned));
    forms
}

#[tokio::test]
async fn the_log_has_no_webhook_secret_private_key_or_bearer_token_at_any_level() {
    let (world, directory) = (World::new().await, temporary("talkative"));
    let (log, token_file, data) = (directory.join("log"), directory.join("token"), directory.join("node"));
    std::fs::create_dir(&data).unwrap();
    let (service, worker) = (world.database.url(roles::SERVICE), world.database.url(roles::WORKER));
    let key = world.settings.key_encryption_key_path();
    let arguments = [
        "serve",
        "--port",
        "0",
        "--instance",
        "status.example.com",
        "--bootstrap-token-file",
        token_file.to_str().unwrap(),
        "--data-dir",
        data.to_str().unwrap(),
        "--database-url",
        &service,
        "--worker-database-url",
        &worker,
    ];
    let environment = [
        ("STATUSLEDGER_LOG", "trace"),
        ("STATUSLEDGER_KEY_ENCRYPTION_KEY_FILE", key.to_str().unwrap()),
        ("STATUSLEDGER_POLLING__ALLOW_OTHER_HOSTS", "true"),
        ("STATUSLEDGER_POLLING__INTERVAL_S", "0.1"),
        ("STATUSLEDGER_POLLING__SETTLED_S", "0.1"),
    ];
    let program = Program::start(&directory, &log, &arguments, &environment).await;
    let token = std::fs::read_to_string(&token_file).unwrap().trim().to_owned();
    let api = Api::new(program.address, &token);
    let workspace = api.workspace("secrets").await;

    let simulator = stores(both("IN_REVIEW")).await;
    let (base, heard) = listening(&simulator).await;
    let (mut apple, mut google) = (apple_request(&simulator), google_request(&simulator));
    apple["base_url"] = base.as_str().into();
    (google["publisher_url"], google["reporting_url"]) = (base.as_str().into(), base.as_str().into());
    let apple_id = api.post(&workspace.at("/sources"), apple.clone()).await.expect(201).json()["id"].clone();
    api.post(&workspace.at("/sources"), google.clone()).await.expect(201);
    let are = |health: &'static str| {
        let (api, workspace) = (&api, &workspace);
        eventually("both sources' health", move || async move {
            let listed = api.get(&workspace.at("/sources")).await.expect(200).json();
            listed["items"].as_array()?.iter().all(|s| s["health"] == health).then_some(())
        })
    };
    are("ok").await;
    // An event that is signed rightly, and one that is not.
    let door = format!("/in/{}/app-store-connect", apple_id.as_str().unwrap());
    let event = version_event("e1", "v1", "IN_REVIEW", "REJECTED", "2026-01-05T10:20:30Z").to_string();
    let wrong = signature("another secret", event.as_bytes());
    for (signed, status) in [(signature(SECRET, event.as_bytes()), 200), (wrong.clone(), 401)] {
        let request = api.bare("POST", &door).header("x-apple-signature", signed).body(event.clone());
        send(request).await.expect(status);
    }
    // What is refused is told, with the store's words.
    simulator.apply(Step::Fault(Fault::new(FaultKind::Unauthorized))).unwrap();
    are("refused").await;
    // Another secret, and a key that is none.
    let renewed = "a secret of later days";
    let path = workspace.at(&format!("/sources/{}/webhook-secret", apple_id.as_str().unwrap()));
    send(api.request("PUT", &path).json(&json!({ "secret": renewed }))).await.expect(204);
    let pem = apple["credentials"]["private_key"].as_str().unwrap().to_owned();
    apple["name"] = "broken".into();
    apple["credentials"]["private_key"] = pem.replace("-----END", "~~~~~END").into();
    api.post(&workspace.at("/sources"), apple).await.expect(422);
    assert!(program.terminate().await);

    let log = std::fs::read_to_string(&log).unwrap();
    let store = base.trim_start_matches("http://");
    assert!(log.contains("TRACE") && log.contains(store), "it tells of the requests to the stores");
    let mut secrets = vec![("a webhook secret", SECRET.as_bytes().to_vec())];
    secrets.push(("a renewed webhook secret", renewed.as_bytes().to_vec()));
    let google = google["service_account"]["private_key"].as_str().unwrap().to_owned();
    for (what, pem) in [("App Store Connect's key", pem), ("Google's key", google)] {
        let lines: Vec<&str> = pem.lines().filter(|line| !line.contains("-----")).collect();
        assert!(lines.len() > 1, "{what}");
        secrets.extend(lines.iter().map(|line| (what, line.as_bytes().to_vec())));
        // Its beginning says which kind of key it is, and is no secret.
        let der = STANDARD.decode(lines.concat()).unwrap();
        secrets.extend(der[36..].chunks_exact(12).map(|part| (what, part.to_vec())));
    }
    let heard = heard.lock().unwrap().clone();
    assert!(heard.len() >= 2, "one token of each store at least");
    for authorization in heard {
        let token = authorization.strip_prefix("Bearer ").unwrap();
        secrets.push(("a bearer token", token.as_bytes().to_vec()));
        // Nor its signature alone.
        secrets.extend(token.rsplit('.').next().map(|part| ("a bearer token", part.as_bytes().to_vec())));
    }
    for (what, secret) in secrets {
        for form in forms(&secret) {
            assert!(form.len() >= 8 && !log.contains(&form), "{what} is in the log: {form}");
        }
    }
}
