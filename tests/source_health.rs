//! How a source fares: what a key may read, what is wrong with it, and what there is to do about it.

use crate::harness::{World, eventually};
use crate::truth::scene::{
    Scene, always, apple_request, google_request, on_demand, step, stores, text, version, with_version,
};
use serde_json::{Value, json};
use sqlx::Connection;
use statusledger_simulator::{Fault, FaultKind, Simulator, Step};
use std::collections::BTreeMap;
use std::time::Instant;
use time::OffsetDateTime;

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
    assert!(uploads() > asked, "but for whoever asks to look now");
    assert_eq!(changes(&scene).await.len(), 1);
    scene
        .says(&[
            "version.transitioned v1 IN_REVIEW>REJECTED poll",
            "version.transitioned v1 REJECTED>WAITING_FOR_REVIEW poll",
        ])
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
    let (noticed, asked) = (Instant::now(), scene.simulator.request_count());
    scene.end_faults();
    scene.apply(version("v1", "REJECTED"));
    eventually("another request", || async { (scene.simulator.request_count() > asked).then_some(()) }).await;
    // Less what it took to notice: it is asked every 0.1 s otherwise.
    assert!(noticed.elapsed().as_secs_f64() > 2.5, "{:?}", noticed.elapsed());
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
