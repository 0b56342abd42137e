//! Stores that say what no store should: what cannot be kept is left out, what cannot be is not believed, and neither
//! keeps anything else from being seen.

use crate::harness::{Liar, Lie, Said, Workspace, World, eventually};
use crate::truth::scene::{
    Scene, a_version, acme, always, apple_request, google_request, on_demand, stores, text, version,
    with_version,
};
use serde_json::{Value, json};
use statusledger::config::Settings;
use statusledger_simulator::Simulator;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// A workspace that watches a lying App Store Connect.
struct Watched {
    world: World,
    simulator: Simulator,
    liar: Liar,
    workspace: Workspace,
    source: String,
}

impl Watched {
    async fn over(
        scenario: Value,
        settings: impl FnOnce(&mut Settings),
        tongue: impl Fn(Said) -> Lie + Send + Sync + 'static,
    ) -> Self {
        let (world, simulator) = (World::with(settings).await, stores(scenario).await);
        let liar = Liar::before(simulator.app_store_base_url()).await;
        liar.says(tongue);
        let workspace = world.workspace("lies").await;
        let made =
            world.api.post(&workspace.at("/sources"), behind(&simulator, &liar, "lies")).await.expect(201);
        let source = text(&made.json(), "id").to_owned();
        Self { world, simulator, liar, workspace, source }
    }

    async fn shown(&self) -> Value {
        self.world.api.get(&self.workspace.at(&format!("/sources/{}", self.source))).await.expect(200).json()
    }

    async fn healthy(&self, health: &str) -> Value {
        eventually(&format!("a source that is {health}"), || async {
            Some(self.shown().await).filter(|s| s["health"] == health)
        })
        .await
    }

    /// Waits until it was asked for this so many times more.
    async fn asks(&self, part: &str, more: usize) {
        let before = self.liar.asked(part);
        eventually(&format!("{more} more of {part}"), || async {
            (self.liar.asked(part) >= before + more).then_some(())
        })
        .await;
    }

    async fn sights(&self, kind: &str, count: usize) -> Vec<Value> {
        eventually(&format!("{count} of {kind}"), || async {
            let seen = self.workspace.entries_of(&format!("store.{kind}.first_seen")).await;
            (seen.len() >= count).then_some(seen)
        })
        .await
    }
}

fn behind(simulator: &Simulator, liar: &Liar, name: &str) -> Value {
    let mut request = apple_request(simulator);
    request["base_url"] = liar.base.as_str().into();
    request["name"] = name.into();
    request
}

/// Does something to every object of an answer.
fn each(value: &mut Value, change: &impl Fn(&mut serde_json::Map<String, Value>)) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(|value| each(value, change)),
        Value::Object(members) => {
            members.values_mut().for_each(|value| each(value, change));
            change(members);
        }
        _ => {}
    }
}

#[tokio::test]
async fn what_no_row_and_no_entry_can_hold_is_left_out_and_the_rest_is_recorded() {
    let mut team = acme();
    team["versions"] = json!([a_version("v1", "IOS", "1.0.0", "IN_REVIEW")]);
    team["builds"] = json!([{ "id": "b1", "app": "1001", "platform": "IOS", "version": "1",
        "pre_release_version": "1.0.0", "processing_state": "PROCESSING" }]);
    team["build_uploads"] = json!([{ "id": "u1", "app": "1001", "platform": "IOS", "version": "2",
        "short_version": "1.0.0", "state": "PROCESSING" }]);
    let watched = Watched::over(json!({ "app_store": [team] }), always, |mut said| {
        each(&mut said.body, &|members| {
            for name in ["name", "versionString", "cfBundleVersion"] {
                if let Some(Value::String(text)) = members.get_mut(name) {
                    text.push('\0');
                }
            }
            if members.contains_key("uploadedDate") {
                members.insert("uploadedDate".into(), "9999-12-31T23:59:59-01:00".into());
            }
            if let Some(Value::Object(state)) = members.get_mut("state") {
                let error = |n: i32| json!({ "code": format!("{n}"), "description": "\u{1}".repeat(300) });
                state.insert("errors".into(), (0..20).map(error).collect());
            }
        });
        Lie::Say(said)
    })
    .await;
    let [app, version, build, upload] = ["app", "version", "build", "build_upload"];
    assert_eq!(watched.sights(app, 1).await[0]["data"]["subject"]["name"], "Acme Weather");
    assert_eq!(watched.sights(version, 1).await[0]["data"]["subject"]["version"], "1.0.0");
    assert!(watched.sights(build, 1).await[0]["data"]["store_at"].is_null());
    let said = watched.sights(upload, 1).await;
    let errors = said[0]["data"]["facts"]["errors"].as_array().unwrap().len();
    assert!((1..20).contains(&errors), "as many as fit: {errors}");
    assert!(said[0]["data"]["store_at"].is_null());
    watched.healthy("ok").await;
    watched.simulator.apply(crate::truth::scene::version("v1", "REJECTED")).unwrap();
    eventually("the transition", || async {
        (watched.workspace.entries_of("store.version.transitioned").await.len() == 1).then_some(())
    })
    .await;
    watched.world.assert_whole(&[&watched.workspace]).await;
}

#[tokio::test]
async fn what_one_list_says_beyond_all_bounds_is_that_lists_trouble() {
    let mut team = acme();
    team["versions"] = json!([a_version("v1", "IOS", "1.0.0", "IN_REVIEW")]);
    team["availabilities"] = json!([{ "app": "1001", "in_new_territories": true,
        "territories": [{ "territory": "NOR", "available": true }] }]);
    let watched = Watched::over(json!({ "app_store": [team] }), always, |mut said| {
        if said.path.contains("/territoryAvailabilities") {
            let place = |n: usize| json!({ "type": "territoryAvailabilities", "id": format!("t{n}"),
                "attributes": { "available": true },
                "relationships": { "territory": { "data": { "type": "territories", "id": format!("{n:0250}") } } } });
            said.body["data"] = (0..400).map(place).collect();
            said.body["meta"] = Value::Null;
        }
        Lie::Say(said)
    })
    .await;
    let source = watched.healthy("degraded").await;
    assert!(text(&source, "health_detail").contains("of availability: "), "{source}");
    watched.sights("version", 1).await;
    watched.asks("/v1/builds", 20).await;
}

#[tokio::test]
async fn googles_names_and_tracks_are_bounded() {
    let (world, simulator) = (World::with(always).await, stores(google()).await);
    let [publisher, reporting] = [
        Liar::before(simulator.publisher_base_url()).await,
        Liar::before(simulator.reporting_base_url()).await,
    ];
    publisher.says(|mut said| {
        if let Some(releases) = said.body["releases"].as_array_mut() {
            let codes = |range: std::ops::Range<i64>| -> Value {
                range.map(|code| json!({ "versionCode": code })).collect()
            };
            releases.push(json!({ "releaseName": "n".repeat(70_000), "activeArtifacts": codes(500..501),
                "releaseLifecycleState": "RELEASE_LIFECYCLE_STATE_DRAFT" }));
            releases.push(json!({ "releaseName": "n".repeat(70_000),
                "releaseLifecycleState": "RELEASE_LIFECYCLE_STATE_DRAFT" }));
            releases.push(json!({ "releaseName": "many", "activeArtifacts": codes(0..20_000),
                "releaseLifecycleState": "RELEASE_LIFECYCLE_STATE_DRAFT" }));
        }
        Lie::Say(said)
    });
    reporting.says(|mut said| {
        each(&mut said.body, &|members| {
            if members.contains_key("packageName") {
                members.insert("displayName".into(), "d".repeat(70_000).into());
            }
        });
        if let Some(tracks) = said.body["tracks"].as_array_mut() {
            tracks.push(json!({ "displayName": "t".repeat(5000) }));
        }
        Lie::Say(said)
    });
    let workspace = world.workspace("google").await;
    let mut request = google_request(&simulator);
    request["publisher_url"] = publisher.base.as_str().into();
    request["reporting_url"] = reporting.base.as_str().into();
    world.api.post(&workspace.at("/sources"), request).await.expect(201);
    let kept = |entry: &Value, name: &str| text(&entry["data"]["subject"], name).len();
    let releases = eventually("the releases that there can be", || async {
        let seen = workspace.entries_of("store.release.first_seen").await;
        (seen.len() >= 2).then_some(seen)
    })
    .await;
    assert!(releases.iter().all(|r| kept(r, "release") <= 300 && kept(r, "name") <= 300));
    let before = publisher.asked("/tracks/production/");
    eventually("that it goes on", || async {
        (publisher.asked("/tracks/production/") >= before + 20).then_some(())
    })
    .await;
    assert_eq!(workspace.entries_of("store.release.first_seen").await.len(), 2);
    world.assert_whole(&[&workspace]).await;
}

fn google() -> Value {
    json!({ "google_play": [{
        "name": "acme", "apps": [{ "package": "com.acme.weather", "display_name": "Acme Weather" }],
        "releases": [{ "package": "com.acme.weather", "track": "production", "name": "1.0.0",
            "version_codes": [100], "state": "PUBLISHED" }],
    }] })
}

fn limited(limit: u32, remaining: u32) -> impl Fn(Said) -> Lie + Send + Sync + 'static {
    move |mut said| {
        said.headers.push(("x-rate-limit", format!("user-hour-lim:{limit};user-hour-rem:{remaining};")));
        Lie::Say(said)
    }
}

#[tokio::test]
async fn a_limit_that_cannot_be_ends_nothing() {
    let mut watched = Watched::over(with_version("IN_REVIEW"), always, limited(0, 0)).await;
    watched.healthy("ok").await;
    for (limit, remaining) in [(0, 0), (1, 0), (u32::MAX, u32::MAX), (0, u32::MAX)] {
        watched.liar.says(limited(limit, remaining));
        watched.asks("/v1/apps", 20).await;
    }
    watched.liar.says(limited(u32::MAX, u32::MAX));
    watched.asks("/v1/apps", 5).await;
    watched.world.stop().await;
    watched.world.start().await.unwrap();
    watched.asks("/v1/apps", 20).await;
}

#[tokio::test]
async fn a_budget_that_others_have_spent_is_said_and_is_no_poll() {
    let watched = Watched::over(with_version("IN_REVIEW"), always, Lie::Say).await;
    watched.healthy("ok").await;
    watched.liar.says(limited(3500, 0));
    let source = watched.healthy("degraded").await;
    assert!(text(&source, "health_detail").contains("the request budget of the key is spent"), "{source}");
    let (polled, asked) = (source["last_polled_at"].clone(), watched.liar.asked("/"));
    let look = watched.workspace.at(&format!("/sources/{}/look", watched.source));
    watched.world.api.post(&look, json!({})).await.expect(202);
    eventually("a round", || async {
        let mut superuser = watched.world.database.superuser().await;
        let at_rest: bool = sqlx::query_scalar(
            "SELECT bool_and(next_poll_at > now() + interval '1 minute' AND leased_until < now()) FROM sources",
        )
        .fetch_one(&mut superuser)
        .await
        .unwrap();
        at_rest.then_some(())
    })
    .await;
    assert_eq!((watched.shown().await["last_polled_at"].clone(), watched.liar.asked("/")), (polled, asked));
}

#[tokio::test]
async fn a_store_that_wants_to_be_left_alone_for_long_is_said_to_at_once() {
    let watched = Watched::over(with_version("IN_REVIEW"), always, |mut said| {
        (said.status, said.body) = (429, json!({}));
        said.headers.push(("retry-after", "Fri, 31 Dec 9999 23:59:59 GMT".into()));
        Lie::Say(said)
    })
    .await;
    let source = watched.healthy("degraded").await;
    let detail = text(&source, "health_detail");
    assert!(detail.contains("asks for fewer requests") && detail.contains("1440 min"), "{source}");
}

#[tokio::test]
async fn stores_that_do_not_answer_hold_up_no_other_key() {
    let (world, simulator) = (World::with(always).await, stores(with_version("IN_REVIEW")).await);
    let [silent, talks] = [
        Liar::before(simulator.app_store_base_url()).await,
        Liar::before(simulator.app_store_base_url()).await,
    ];
    let workspace = world.workspace("keys").await;
    let made = (0..24).map(|n| {
        let request = behind(&simulator, &silent, &format!("silent {n}"));
        let path = workspace.at("/sources");
        let api = world.api.clone();
        async move { api.post(&path, request).await.expect(201) }
    });
    futures_util::future::join_all(made).await;
    world.api.post(&workspace.at("/sources"), behind(&simulator, &talks, "talks")).await.expect(201);
    eventually("all of them asked", || async { (talks.asked("/v1/apps") > 20).then_some(()) }).await;
    let hung = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&hung);
    silent.says(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        Lie::Hang
    });
    eventually("each of them to hang", || async { (hung.load(Ordering::SeqCst) >= 24).then_some(()) }).await;
    let before = talks.asked("/v1/apps");
    eventually("the other", || async { (talks.asked("/v1/apps") >= before + 40).then_some(()) }).await;
}

#[tokio::test]
async fn a_source_that_is_deleted_while_it_is_asked_is_asked_nothing_more() {
    let watched = Watched::over(with_version("IN_REVIEW"), on_demand, Lie::Say).await;
    watched.healthy("ok").await;
    // What is asked for last, and hangs until the source is gone.
    let (held, path) = (Arc::new(AtomicBool::new(false)), "/v1/apps?");
    let holding = Arc::clone(&held);
    watched.liar.says(move |said| {
        if said.path.starts_with(path) && !holding.swap(true, Ordering::SeqCst) {
            return Lie::Hang;
        }
        Lie::Say(said)
    });
    watched.simulator.apply(version("v1", "REJECTED")).unwrap();
    let source = watched.workspace.at(&format!("/sources/{}", watched.source));
    watched.world.api.post(&format!("{source}/look"), json!({})).await.expect(202);
    eventually("a request", || async { held.load(Ordering::SeqCst).then_some(()) }).await;
    let asked = watched.liar.asked("/");
    watched.world.api.delete(&source).await.expect(204);
    // It ends without the answer, and lets the lease run out.
    eventually("the round's end", || async {
        let mut superuser = watched.world.database.superuser().await;
        let over: bool = sqlx::query_scalar("SELECT bool_and(leased_until < now()) FROM sources")
            .fetch_one(&mut superuser)
            .await
            .unwrap();
        over.then_some(())
    })
    .await;
    assert_eq!(watched.liar.asked("/"), asked);
    let last = watched.workspace.entries().await.pop().unwrap();
    assert_eq!(last["type"], "audit.source.deleted");
    // What it said is history.
    let status = watched.world.api.get(&watched.workspace.at("/status?all=true")).await.expect(200).json();
    assert_eq!((&status["subjects"], &status["apps"]), (&json!([]), &json!([])));
}

#[tokio::test]
async fn what_was_told_of_and_is_nowhere_is_not_looked_for_for_ever() {
    let scene = Scene::of(with_version("READY_FOR_DISTRIBUTION"), on_demand).await;
    let now = crate::truth::scene::stamp(time::OffsetDateTime::now_utc());
    let ghost = crate::truth::scene::version_event("e1", "ghost", "WAITING_FOR_REVIEW", "IN_REVIEW", &now);
    assert_eq!(scene.event(&ghost).await, "recorded");
    let hot = async || {
        scene.look().await;
        let mut superuser = scene.world.database.superuser().await;
        let hot: bool = sqlx::query_scalar("SELECT hot FROM polls WHERE poll = 'apps'")
            .fetch_one(&mut superuser)
            .await
            .unwrap();
        let status = scene.api().get(&scene.workspace.at("/status")).await.expect(200).json();
        (hot, status["subjects"].as_array().unwrap().iter().any(|s| s["id"] == "ghost"))
    };
    assert_eq!(hot().await, (true, true));
    sqlx::query(
        "UPDATE subjects SET last_seen_at = now() - interval '61 minutes' WHERE subject_key = 'ghost'",
    )
    .execute(&mut scene.world.database.superuser().await)
    .await
    .unwrap();
    assert_eq!(hot().await, (false, false));
}
