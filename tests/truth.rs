//! The ten points of what goes wrong between the stores and whoever watches them: a scenario each, over real HTTP.
//! None loses, doubles or invents a transition.

pub mod scene;

use crate::harness::{Receiver, Reply, eventually};
use scene::{
    Scene, a_version, acme, always, on_demand, stamp, step, time as time_of, version, version_event,
    with_version, with_versions,
};
use serde_json::{Value, json};
use statusledger_simulator::{Fault, FaultKind, Service, Step};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use time::{Duration, OffsetDateTime};

/// Steps that take place at once when the time comes.
fn at_one(steps: Vec<Value>) -> Value {
    let timed = |mut step: Value| {
        step["at"] = 1.0.into();
        step
    };
    steps.into_iter().map(timed).collect()
}

fn version_step(id: &str, state: &str) -> Value {
    json!({ "do": "version_state", "id": id, "state": state })
}

/// A webhook of the team's app that tells the scene's source.
fn webhook(scene: &Scene) -> Step {
    step(json!({
        "do": "add_webhook", "id": "w1", "app": "1001", "secret": scene::SECRET,
        "url": format!("{}{}", scene.api().base, scene.door()),
    }))
}

#[tokio::test]
async fn point_1_a_poll_that_missed_states_says_from_to_and_the_two_times() {
    let mut scenario = with_version("IN_REVIEW");
    let live = ["PENDING_DEVELOPER_RELEASE", "PROCESSING_FOR_DISTRIBUTION", "READY_FOR_DISTRIBUTION"];
    scenario["step"] = at_one(live.iter().map(|state| version_step("v1", state)).collect());
    let scene = Scene::of(scenario, on_demand).await;
    let before = OffsetDateTime::now_utc();
    scene.simulator.advance(1.0);
    let after = OffsetDateTime::now_utc();
    scene.look().await;
    scene.says(&["version.transitioned v1 IN_REVIEW>READY_FOR_DISTRIBUTION poll"]).await;
    let news = scene.news().await;
    let data = &news[0]["data"];
    // It happened between the two, and that is all that is claimed.
    assert!(time_of(data, "last_seen_before_at") < before && after < time_of(data, "seen_at"), "{data}");
    assert!(data["store_at"].is_null());
}

#[tokio::test]
async fn point_1_what_polls_missed_is_filled_from_the_stores_own_list_and_says_so() {
    let mut scenario = with_version("IN_REVIEW");
    let live = ["PENDING_DEVELOPER_RELEASE", "PROCESSING_FOR_DISTRIBUTION", "READY_FOR_DISTRIBUTION"];
    scenario["step"] = at_one(live.iter().map(|state| version_step("v1", state)).collect());
    let scene = Scene::of(scenario, on_demand).await;
    scene.apply(webhook(&scene));
    scene.simulator.withhold_webhooks(true);
    scene.simulator.advance(1.0);
    scene.look().await;
    scene
        .says(&[
            "version.transitioned v1 IN_REVIEW>READY_FOR_DISTRIBUTION poll",
            "version.transitioned v1 IN_REVIEW>PENDING_DEVELOPER_RELEASE backfill late",
            "version.transitioned v1 PENDING_DEVELOPER_RELEASE>PROCESSING_FOR_DISTRIBUTION backfill late",
            "version.transitioned v1 PROCESSING_FOR_DISTRIBUTION>READY_FOR_DISTRIBUTION backfill late",
        ])
        .await;
    assert_eq!(scene.state_of("version", "v1").await, "READY_FOR_DISTRIBUTION");
    for entry in &scene.news().await[1..] {
        assert!(
            entry["data"]["store_at"].is_string() && entry["data"]["app"] == "com.acme.weather",
            "{entry}"
        );
    }
}

/// Two apps with more than a page of builds, versions of several platforms and submissions.
fn many() -> Value {
    let mut team = acme();
    team["apps"]
        .as_array_mut()
        .unwrap()
        .push(json!({ "id": "1002", "name": "Acme Maps", "bundle_id": "com.acme.maps" }));
    let app = |n: usize| if n.is_multiple_of(2) { "1001" } else { "1002" };
    let platform = |n: usize| ["IOS", "MAC_OS", "TV_OS", "VISION_OS"][n % 4];
    team["builds"] = (0..210)
        .map(|n| {
            json!({ "id": format!("b{n}"), "app": app(n), "platform": "IOS", "version": format!("{n}"),
                "pre_release_version": "1.0.0", "processing_state": "VALID", "expired": n % 3 == 0 })
        })
        .collect();
    team["versions"] = (0..12)
        .map(|n| {
            json!({ "id": format!("v{n}"), "app": app(n), "platform": platform(n / 2),
                "version_string": format!("1.{n}.0"),
                "state": if n < 4 { "IN_REVIEW" } else { "READY_FOR_DISTRIBUTION" } })
        })
        .collect();
    team["review_submissions"] = (0..4)
        .map(|n| {
            json!({ "id": format!("s{n}"), "app": app(n), "platform": platform(n / 2), "state": "IN_REVIEW" })
        })
        .collect();
    let releases: Value = (0..6)
        .map(|n| {
            json!({ "package": "com.acme.weather", "track": if n < 3 { "production" } else { "beta" },
                "name": "1.0.0", "version_codes": [100 + n], "state": "PUBLISHED" })
        })
        .collect();
    json!({ "app_store": [team], "google_play": [{
        "name": "acme", "apps": [{ "package": "com.acme.weather", "display_name": "Acme Weather" }],
        "releases": releases,
    }] })
}

#[tokio::test]
async fn point_2_neither_order_nor_filters_nor_pages_that_repeat_are_transitions() {
    let scene = Scene::of(many(), always).await;
    let first = scene.first_sights().await;
    let counts = [("app", 3), ("version", 12), ("build", 210), ("review_submission", 4), ("release", 6)];
    for (kind, count) in counts {
        assert_eq!(first.get(kind), Some(&count), "{first:?}");
    }
    let builds = |scene: &Scene| {
        scene.simulator.requests().iter().filter(|r| r.path == "/v1/builds" && r.status == 200).count()
    };
    for kind in
        [FaultKind::Shuffled, FaultKind::IgnoredFilters, FaultKind::RepeatedData, FaultKind::RepeatedPage]
    {
        let before = builds(&scene);
        scene.fault(Fault::new(kind));
        // Polls fail where pages have no end, so it is the requests that tell that they were made.
        eventually("requests under the fault", || async { (builds(&scene) >= before + 6).then_some(()) })
            .await;
        scene.end_faults();
        scene.looks(2).await;
        assert_eq!(scene.lines().await, Vec::<String>::new(), "{kind:?}");
    }
    assert_eq!(scene.first_sights().await, first, "nothing was invented");
    // All of it is still watched, each by its own id.
    scene.fault(Fault::new(FaultKind::Shuffled));
    scene.apply(version("v7", "DEVELOPER_REJECTED"));
    scene.says(&["version.transitioned v7 READY_FOR_DISTRIBUTION>DEVELOPER_REJECTED poll"]).await;
}

#[tokio::test]
async fn point_3_what_a_listing_left_out_is_not_gone() {
    let mut scenario = with_versions(vec![
        a_version("v1", "IOS", "1.0.0", "READY_FOR_DISTRIBUTION"),
        a_version("v2", "IOS", "1.1.0", "PREPARE_FOR_SUBMISSION"),
    ]);
    scenario["app_store"][0]["builds"] = json!([{ "id": "b1", "app": "1001", "platform": "IOS", "version": "1",
        "pre_release_version": "1.0.0", "processing_state": "VALID" }]);
    let scene = Scene::of(scenario, on_demand).await;
    // Once, and then again and again: whatever is asked for by itself is there.
    let everywhere = || Fault::new(FaultKind::Empty);
    for (fault, times) in [(everywhere(), 1), (everywhere(), 3), (everywhere().at("/v1/builds"), 3)] {
        scene.fault(fault);
        scene.looks(times).await;
        scene.end_faults();
        scene.look().await;
        assert_eq!(scene.lines().await, Vec::<String>::new());
    }
    let asked = scene.simulator.requests();
    for path in ["/v1/apps/1001", "/v1/builds/b1"] {
        assert!(
            asked.iter().any(|r| r.path == path && r.status == 200),
            "{path} was not asked for by itself"
        );
    }
    // What then is gone for real is told once.
    scene.apply(Step::RemoveVersion { id: "v2".into() });
    scene.looks(2).await;
    scene.says(&["version.no_longer_visible v2 PREPARE_FOR_SUBMISSION> poll"]).await;
}

#[tokio::test]
async fn point_3_two_lists_of_one_round_confirm_no_absence() {
    let scene = Scene::of(
        with_versions(vec![
            a_version("v1", "IOS", "1.0.0", "READY_FOR_DISTRIBUTION"),
            a_version("v2", "IOS", "1.1.0", "PREPARE_FOR_SUBMISSION"),
        ]),
        on_demand,
    )
    .await;
    let asked = |path: &str| scene.simulator.requests().iter().filter(|r| r.path == path).count();
    scene.apply(Step::RemoveVersion { id: "v2".into() });
    let (apps, versions) = (asked("/v1/apps"), asked("/v1/apps/1001/appStoreVersions"));
    scene.look().await;
    // Both lists tell versions, and neither has it.
    assert_eq!((asked("/v1/apps"), asked("/v1/apps/1001/appStoreVersions")), (apps + 1, versions + 1));
    assert_eq!(asked("/v1/appStoreVersions/v2"), 0, "it is not asked for after one round");
    assert_eq!(scene.lines().await, Vec::<String>::new());
    scene.look().await;
    assert_eq!(asked("/v1/appStoreVersions/v2"), 1);
    scene.says(&["version.no_longer_visible v2 PREPARE_FOR_SUBMISSION> poll"]).await;
}

#[tokio::test]
async fn point_3_an_app_that_was_transferred_is_no_longer_visible_until_it_returns() {
    let mut scenario = with_versions(vec![
        a_version("v1", "IOS", "1.0.0", "READY_FOR_DISTRIBUTION"),
        a_version("v2", "MAC_OS", "1.1.0", "IN_REVIEW"),
    ]);
    let other = json!({ "id": "1002", "name": "Acme Maps", "bundle_id": "com.acme.maps" });
    scenario["app_store"][0]["apps"].as_array_mut().unwrap().push(other);
    let scene = Scene::of(scenario, always).await;
    scene.apply(Step::TransferApp { id: "1001".into(), to: None });
    let gone = "app.no_longer_visible 1001 VISIBLE> poll";
    scene.says(&[gone]).await;
    scene.looks(3).await;
    scene.says(&[gone]).await;
    scene.apply(Step::ReturnApp { id: "1001".into() });
    eventually("its return", || async { (scene.lines().await.len() >= 4).then_some(()) }).await;
    scene.looks(2).await;
    let mut told = scene.lines().await.split_off(1);
    told.sort();
    assert_eq!(
        told,
        [
            "app.visible_again 1001 VISIBLE>VISIBLE poll",
            "version.visible_again v1 READY_FOR_DISTRIBUTION>READY_FOR_DISTRIBUTION poll",
            "version.visible_again v2 IN_REVIEW>IN_REVIEW poll",
        ]
    );
    assert_eq!(scene.first_sights().await["version"], 2, "they are the versions that were known");
    // And they go on from where they were.
    scene.apply(version("v2", "REJECTED"));
    let last = "version.transitioned v2 IN_REVIEW>REJECTED poll";
    eventually("its next state", || async { scene.lines().await.iter().any(|l| l == last).then_some(()) })
        .await;
    scene.world.assert_whole(&[&scene.workspace]).await;
}

#[tokio::test]
async fn point_3_google_says_only_by_its_lists_that_something_is_gone() {
    let releases: Value = (0..2)
        .map(|n| {
            json!({ "package": "com.acme.weather", "track": "production", "name": "1.0.0",
                "version_codes": [100 + n], "state": "PUBLISHED" })
        })
        .collect();
    let scenario = json!({ "google_play": [{
        "name": "acme", "apps": [{ "package": "com.acme.weather", "display_name": "Acme Weather" }],
        "releases": releases,
    }] });
    let scene = Scene::of(scenario, on_demand).await;
    let listing = || Fault::new(FaultKind::Empty).at("/tracks/");
    scene.fault(listing());
    scene.looks(3).await;
    scene.end_faults();
    scene.look().await;
    assert_eq!(
        scene.lines().await,
        Vec::<String>::new(),
        "three lists that left all out, and one that did not"
    );
    scene.apply(Step::RemoveRelease {
        package: "com.acme.weather".into(),
        track: "production".into(),
        version_codes: [100].into(),
    });
    scene.looks(3).await;
    assert_eq!(scene.lines().await, Vec::<String>::new());
    scene.look().await;
    scene.says(&["release.no_longer_visible com.acme.weather/production/100 PUBLISHED> poll"]).await;
}

/// A scene with one version, told of by events that the test makes itself.
async fn told_by_hand(state: &str) -> Scene {
    Scene::of(with_version(state), on_demand).await
}

/// A moment as the store writes it, so many milliseconds after now.
fn in_ms(ms: i64) -> String {
    stamp(OffsetDateTime::now_utc() + Duration::milliseconds(ms))
}

#[tokio::test]
async fn point_4_what_the_webhook_told_first_the_poll_does_not_tell_again() {
    let scene = told_by_hand("PREPARE_FOR_SUBMISSION").await;
    scene.apply(webhook(&scene));
    let mut expected = Vec::new();
    for (from, to) in [
        ("PREPARE_FOR_SUBMISSION", "WAITING_FOR_REVIEW"),
        ("WAITING_FOR_REVIEW", "IN_REVIEW"),
        ("IN_REVIEW", "REJECTED"),
    ] {
        scene.apply(version("v1", to));
        scene.simulator.webhooks_settled().await;
        expected.push(format!("version.transitioned v1 {from}>{to} webhook"));
        assert_eq!(scene.lines().await, expected, "it is durable when it is answered");
        scene.look().await;
    }
    // Each delivery again, and the list of them, add nothing either.
    for delivery in scene.simulator.webhook_deliveries() {
        scene.simulator.redeliver_webhook(&delivery.id).unwrap();
    }
    scene.simulator.webhooks_settled().await;
    let deliveries = scene.simulator.webhook_deliveries();
    assert!(deliveries.len() == 6 && deliveries.iter().all(|d| d.state == "SUCCEEDED"), "{deliveries:?}");
    scene.says(&expected.iter().map(String::as_str).collect::<Vec<_>>()).await;
}

#[tokio::test]
async fn point_4_what_the_poll_saw_first_the_webhook_does_not_tell_again() {
    let scene = told_by_hand("WAITING_FOR_REVIEW").await;
    let at = in_ms(0);
    scene.apply(version("v1", "IN_REVIEW"));
    scene.look().await;
    let event = version_event("e1", "v1", "WAITING_FOR_REVIEW", "IN_REVIEW", &at);
    assert_eq!(scene.event(&event).await, "known");
    assert_eq!(scene.event(&event).await, "known", "and again");
    // Another event of the same is another transition, and the entry stands for one.
    scene.says(&["version.transitioned v1 WAITING_FOR_REVIEW>IN_REVIEW poll"]).await;
}

#[tokio::test]
async fn point_4_a_late_event_fills_the_record_and_turns_no_state_back() {
    let scene = told_by_hand("PREPARE_FOR_SUBMISSION").await;
    let at = in_ms(0);
    scene.apply(version("v1", "WAITING_FOR_REVIEW"));
    scene.apply(version("v1", "IN_REVIEW"));
    scene.look().await;
    let polled = "version.transitioned v1 PREPARE_FOR_SUBMISSION>IN_REVIEW poll";
    scene.told(&[polled]).await;
    let event = version_event("e1", "v1", "PREPARE_FOR_SUBMISSION", "WAITING_FOR_REVIEW", &at);
    assert_eq!(scene.event(&event).await, "recorded");
    assert_eq!(scene.state_of("version", "v1").await, "IN_REVIEW");
    scene
        .says(&[polled, "version.transitioned v1 PREPARE_FOR_SUBMISSION>WAITING_FOR_REVIEW webhook late"])
        .await;
    assert_eq!(scene.state_of("version", "v1").await, "IN_REVIEW");
}

#[tokio::test]
async fn point_4_a_second_rejection_is_a_second_transition() {
    let scene = told_by_hand("IN_REVIEW").await;
    scene.apply(version("v1", "REJECTED"));
    let first = version_event("e1", "v1", "IN_REVIEW", "REJECTED", &in_ms(0));
    assert_eq!(scene.event(&first).await, "recorded");
    scene.look().await;
    // Submitted and rejected again between two polls.
    let second = version_event("e2", "v1", "IN_REVIEW", "REJECTED", &in_ms(1));
    assert_eq!(scene.event(&second).await, "recorded");
    scene
        .says(&[
            "version.transitioned v1 IN_REVIEW>REJECTED webhook",
            "version.transitioned v1 REJECTED>REJECTED webhook store_from=IN_REVIEW",
        ])
        .await;
}

#[tokio::test]
async fn point_4_events_in_the_wrong_order_end_where_the_store_is() {
    let scene = told_by_hand("WAITING_FOR_REVIEW").await;
    let (first, second) = (in_ms(0), in_ms(1));
    scene.apply(version("v1", "IN_REVIEW"));
    scene.apply(version("v1", "REJECTED"));
    assert_eq!(scene.event(&version_event("e2", "v1", "IN_REVIEW", "REJECTED", &second)).await, "recorded");
    assert_eq!(
        scene.event(&version_event("e1", "v1", "WAITING_FOR_REVIEW", "IN_REVIEW", &first)).await,
        "recorded"
    );
    assert_eq!(scene.state_of("version", "v1").await, "REJECTED");
    scene.looks(2).await;
    let lines = scene.lines().await;
    let rejections = lines.iter().filter(|line| line.contains(">REJECTED")).count();
    assert_eq!((lines.len(), rejections), (2, 1), "{lines:?}");
    scene.assert_sound().await;
}

#[tokio::test]
async fn point_5_rejected_and_submitted_again_is_a_loop_that_is_told() {
    let mut scenario = with_version("IN_REVIEW");
    let release = |state: &str| {
        json!({ "package": "com.acme.weather", "track": "production", "name": "1.0.0",
            "version_codes": [100], "state": state })
    };
    scenario["google_play"] = json!([{
        "name": "acme", "apps": [{ "package": "com.acme.weather", "display_name": "Acme Weather" }],
        "releases": [release("IN_REVIEW")],
    }]);
    let scene = Scene::of(scenario, always).await;
    let (mut apple, mut google) = (Vec::new(), Vec::new());
    let mut before = ("IN_REVIEW", "IN_REVIEW");
    for now in [("REJECTED", "NOT_APPROVED"), ("IN_REVIEW", "IN_REVIEW")].into_iter().cycle().take(4) {
        scene.apply(version("v1", now.0));
        let mut changed = release(now.1);
        changed["do"] = "release".into();
        scene.apply(step(changed));
        apple.push(format!("version.transitioned v1 {}>{} poll", before.0, now.0));
        google.push(format!(
            "release.transitioned com.acme.weather/production/100 {}>{} poll",
            before.1, now.1
        ));
        before = now;
        eventually("both transitions", || async {
            (scene.lines().await.len() >= 2 * apple.len()).then_some(())
        })
        .await;
    }
    scene.looks(2).await;
    let (versions, releases): (Vec<_>, Vec<_>) =
        scene.lines().await.into_iter().partition(|line| line.starts_with("version"));
    assert_eq!((versions, releases), (apple, google));
    scene.assert_sound().await;
    scene.world.assert_whole(&[&scene.workspace]).await;
}

#[tokio::test]
async fn point_5_an_old_answer_after_a_new_one_is_no_loop() {
    let mut scenario = with_version("IN_REVIEW");
    let release = |state: &str| {
        json!({ "do": "release", "package": "com.acme.weather", "track": "production", "name": "1.0.0",
            "version_codes": [100], "state": state })
    };
    let mut first = release("IN_REVIEW");
    first.as_object_mut().unwrap().remove("do");
    scenario["google_play"] = json!([{
        "name": "acme", "apps": [{ "package": "com.acme.weather", "display_name": "Acme Weather" }],
        "releases": [first],
    }]);
    let scene = Scene::of(scenario, on_demand).await;
    scene.apply(version("v1", "REJECTED"));
    scene.apply(step(release("PUBLISHED")));
    scene.look().await;
    let told = scene.lines().await;
    assert_eq!(told.len(), 2, "{told:?}");
    for _ in 0..3 {
        // Apple's lists stay behind for long, what is asked for by itself does not; Google's list errs once.
        scene.fault(Fault {
            resource: Some("appStoreVersions".into()),
            ..Fault::new(FaultKind::Stale).at("/v1/apps")
        });
        scene.fault(Fault {
            resource: Some("releases".into()),
            ..Fault::new(FaultKind::Stale).times(6).of(Service::GooglePlay)
        });
        scene.look().await;
        scene.end_faults();
        scene.look().await;
    }
    assert_eq!(scene.lines().await, told);
    let asked = |path: &str| scene.simulator.requests().iter().filter(|r| r.path == path).count();
    assert!(asked("/v1/appStoreVersions/v1") >= 3, "the version was asked for by itself");
    assert_eq!(scene.state_of("version", "v1").await, "REJECTED");
    scene.assert_sound().await;
}

#[tokio::test]
async fn point_6_a_value_that_nobody_knows_is_told_as_it_is() {
    let mut scenario = with_version("IN_REVIEW");
    scenario["google_play"] = json!([{
        "name": "acme", "apps": [{ "package": "com.acme.weather", "display_name": "Acme Weather" }],
        "releases": [{ "package": "com.acme.weather", "track": "production", "name": "1.0.0",
            "version_codes": [100], "state": "IN_REVIEW" }],
    }]);
    let scene = Scene::of(scenario, always).await;
    let receiver = Receiver::of(&scene.world).await;
    scene.workspace.destination(&receiver, "hook", json!({ "filter": { "types": ["store.*"] } })).await;
    let unknown = |resource: &str, value: &str| Fault {
        resource: Some(resource.into()),
        value: Some(value.into()),
        ..Fault::new(FaultKind::UnknownValue)
    };
    scene.fault(unknown("appStoreVersions", "IN_LEGAL_REVIEW"));
    let first = "version.transitioned v1 IN_REVIEW>IN_LEGAL_REVIEW poll unknown";
    scene.says(&[first]).await;
    scene.fault(unknown("releases", "ON_HOLD"));
    let release = "release.transitioned com.acme.weather/production/100 IN_REVIEW>ON_HOLD poll unknown";
    scene.says(&[first, release]).await;
    let hooks = receiver.taken("hook", 2).await;
    assert!(hooks.iter().all(|hook| hook.value["data"]["unknown"] == true), "who is notified is told so");
    // What follows is known again, and says nothing of it.
    scene.end_faults();
    scene.apply(version("v1", "REJECTED"));
    let known = "version.transitioned v1 IN_LEGAL_REVIEW>REJECTED poll";
    let back = "release.transitioned com.acme.weather/production/100 ON_HOLD>IN_REVIEW poll";
    eventually("both known again", || async { (scene.lines().await.len() == 4).then_some(()) }).await;
    let mut last = scene.lines().await.split_off(2);
    last.sort();
    assert!(
        last[0] == back && last[1].starts_with("version.transitioned v1") && last[1].ends_with("poll"),
        "{last:?}"
    );
    assert!(last[1] == known || last[1].ends_with(">IN_REVIEW poll"), "{last:?}");
}

#[tokio::test]
async fn point_7_each_platform_is_a_line_of_its_own_and_a_day_is_no_transition() {
    let platforms = ["IOS", "MAC_OS", "TV_OS", "VISION_OS"];
    let versions = platforms.map(|p| a_version(&format!("v-{p}"), p, "1.0.0", "WAITING_FOR_REVIEW"));
    let scene = Scene::of(with_versions(versions.to_vec()), always).await;
    assert_eq!(scene.first_sights().await["version"], 4);
    let mut expected = Vec::new();
    for platform in ["TV_OS", "IOS"] {
        scene.apply(version(&format!("v-{platform}"), "IN_REVIEW"));
        expected.push(format!("version.transitioned v-{platform} WAITING_FOR_REVIEW>IN_REVIEW poll"));
        scene.told(&expected.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }
    for (entry, platform) in scene.news().await.iter().zip(["TV_OS", "IOS"]) {
        assert_eq!(entry["data"]["subject"]["platform"], platform);
    }
    let phased = |state: &str, day: u8| {
        step(json!({ "do": "phased_release", "id": "v-IOS", "state": state, "day": day }))
    };
    scene.apply(phased("ACTIVE", 1));
    eventually("the phased release", || async {
        scene.first_sights().await.get("phased_release").map(|_| ())
    })
    .await;
    for day in 2..5 {
        scene.apply(Step::PhasedDay { id: "v-IOS".into(), day });
        eventually("the day", || async {
            let subjects = scene.subjects().await;
            let phased = subjects.iter().find(|s| s["kind"] == "phased_release")?;
            (phased["description"]["day"] == day).then_some(())
        })
        .await;
    }
    let mut from = "ACTIVE";
    for to in ["PAUSED", "ACTIVE", "COMPLETE"] {
        scene.apply(phased(to, 5));
        expected.push(format!("phased_release.transitioned v-IOS-phased {from}>{to} poll"));
        scene.told(&expected.iter().map(String::as_str).collect::<Vec<_>>()).await;
        from = to;
    }
    scene.says(&expected.iter().map(String::as_str).collect::<Vec<_>>()).await;
}

#[tokio::test]
async fn point_8_googles_releases_are_known_by_track_and_codes_whatever_they_are_called() {
    let release = |track: &str, codes: &[u32], state: &str| {
        json!({ "package": "com.acme.weather", "track": track, "name": "1.0.0", "version_codes": codes,
            "state": state })
    };
    // Several are live at once, all called the same; one has another's code among its own.
    let releases = [
        release("production", &[100], "PUBLISHED"),
        release("production", &[101], "PUBLISHED"),
        release("production", &[100, 101], "IN_REVIEW"),
        release("beta", &[100], "PUBLISHED"),
        release("qa", &[100], "PUBLISHED"),
    ];
    let scenario = json!({ "google_play": [{
        "name": "acme",
        "apps": [{ "package": "com.acme.weather", "display_name": "Acme Weather", "tracks": ["qa"] }],
        "releases": releases,
    }] });
    let scene = Scene::of(scenario, always).await;
    eventually("all releases", || async {
        (scene.first_sights().await.get("release") == Some(&5)).then_some(())
    })
    .await;
    let change = |mut release: Value| {
        release["do"] = "release".into();
        step(release)
    };
    scene.apply(change(release("production", &[101, 100], "PUBLISHED")));
    let first = "release.transitioned com.acme.weather/production/100+101 IN_REVIEW>PUBLISHED poll";
    scene.told(&[first]).await;
    scene.apply(change(release("qa", &[100], "IN_REVIEW")));
    let second = "release.transitioned com.acme.weather/qa/100 PUBLISHED>IN_REVIEW poll";
    scene.told(&[first, second]).await;
    // A new one of that name is a new one, and ends no other.
    scene.apply(change(release("production", &[102], "PUBLISHED")));
    eventually("the new release", || async {
        (scene.first_sights().await.get("release") == Some(&6)).then_some(())
    })
    .await;
    scene.says(&[first, second]).await;
    let subject = &scene.news().await[0]["data"]["subject"];
    assert_eq!(subject["version_codes"], json!(["100", "101"]));
    assert_eq!((&subject["release"], &subject["track"]), (&json!("1.0.0"), &json!("production")));
}

#[tokio::test]
async fn point_9_times_are_read_with_any_offset_and_fraction() {
    let scene = told_by_hand("PREPARE_FOR_SUBMISSION").await;
    let times = [
        ("2026-03-01T12:00:00Z", "2026-03-01T12:00:00Z"),
        ("2026-03-01T05:00:00-07:00", "2026-03-01T12:00:00Z"),
        ("2026-03-01T17:45:00.5+05:45", "2026-03-01T12:00:00.5Z"),
        ("2026-03-01T12:00:00.12Z", "2026-03-01T12:00:00.12Z"),
        ("2026-03-01T12:00:00.123+00:00", "2026-03-01T12:00:00.123Z"),
        ("2026-03-01T12:00:00.1234Z", "2026-03-01T12:00:00.1234Z"),
        ("2026-03-01T12:00:00.12345Z", "2026-03-01T12:00:00.12345Z"),
        ("2026-03-02T00:00:00.123456+12:00", "2026-03-01T12:00:00.123456Z"),
    ];
    let parse = |t: &str| OffsetDateTime::parse(t, &time::format_description::well_known::Rfc3339).unwrap();
    for (n, (written, meant)) in times.iter().enumerate() {
        let (id, of) = (format!("e{n}"), format!("other-{n}"));
        assert_eq!(scene.event(&version_event(&id, &of, "IN_REVIEW", "REJECTED", written)).await, "recorded");
        let news = scene.news().await;
        assert_eq!(time_of(&news[n]["data"], "store_at"), parse(meant), "{written}");
    }
    // A time that is none dates nothing, and loses nothing.
    assert_eq!(
        scene.event(&version_event("e", "other", "IN_REVIEW", "REJECTED", "yesterday")).await,
        "recorded"
    );
    assert!(scene.news().await.last().unwrap()["data"]["store_at"].is_null());
    // An event of the future is told, with its time, and does not make later ones old.
    let [future, now] = [in_ms(3_600_000), in_ms(0)];
    scene.event(&version_event("f1", "v1", "PREPARE_FOR_SUBMISSION", "WAITING_FOR_REVIEW", &future)).await;
    scene.event(&version_event("f2", "v1", "WAITING_FOR_REVIEW", "IN_REVIEW", &now)).await;
    let lines = scene.lines().await;
    assert_eq!(lines.iter().filter(|l| l.contains(" v1 ")).count(), 2, "{lines:?}");
    scene.assert_sound().await;
    scene.world.assert_whole(&[&scene.workspace]).await;
}

#[tokio::test]
async fn point_9_clocks_that_are_apart_are_the_sources_trouble_and_told() {
    let scene = Scene::of(with_version("IN_REVIEW"), always).await;
    scene.healthy(&scene.apple, "ok").await;
    let apart = |seconds: i64| Fault { skew_seconds: Some(seconds), ..Fault::new(FaultKind::ClockSkew) };
    for seconds in [120, -120] {
        scene.fault(apart(seconds));
        let source = scene.healthy(&scene.apple, "clock_skewed").await;
        assert!(source["health_detail"].as_str().unwrap().contains('1'), "{source}");
        scene.end_faults();
        scene.healthy(&scene.apple, "ok").await;
    }
    // What tokens bear is no trouble.
    scene.fault(apart(20));
    scene.looks(2).await;
    assert_eq!(scene.source(&scene.apple).await["health"], "ok");
    scene.says(&[]).await;
}

#[tokio::test]
async fn point_10_a_state_is_kept_with_its_entry_and_its_deliveries_or_not_at_all() {
    let scene = Scene::of(with_version("IN_REVIEW"), always).await;
    let receiver = Receiver::of(&scene.world).await;
    scene.workspace.destination(&receiver, "hook", json!({ "filter": { "types": ["store.*"] } })).await;
    // Each of the three cannot be written for a while: then none of them is.
    let mut superuser = scene.world.database.superuser().await;
    // A sequence counts what is refused: it is not rolled back.
    sqlx::raw_sql(
        "CREATE SEQUENCE refused;
         CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
         $$ BEGIN PERFORM nextval('public.refused'); RAISE 'refused'; END $$",
    )
    .execute(&mut superuser)
    .await
    .unwrap();
    let mut expected: Vec<String> = Vec::new();
    let mut from = "IN_REVIEW";
    for (table, state) in [
        ("deliveries", "REJECTED"),
        ("subjects", "PREPARE_FOR_SUBMISSION"),
        ("entries", "WAITING_FOR_REVIEW"),
    ] {
        // What only dates a subject is written all the same.
        let of = if table == "subjects" { "INSERT OR UPDATE OF state" } else { "INSERT" };
        let trigger = format!("CREATE TRIGGER refuse BEFORE {of} ON {table} EXECUTE FUNCTION refuse()");
        sqlx::raw_sql(sqlx::AssertSqlSafe(trigger)).execute(&mut superuser).await.unwrap();
        sqlx::raw_sql("ALTER SEQUENCE refused RESTART").execute(&mut superuser).await.unwrap();
        scene.apply(version("v1", state));
        eventually("writes that are refused", || async {
            let mut connection = scene.world.database.superuser().await;
            let refused: i64 = sqlx::query_scalar("SELECT last_value FROM refused")
                .fetch_one(&mut connection)
                .await
                .unwrap();
            (refused >= 2).then_some(())
        })
        .await;
        let lines = scene.lines().await;
        assert_eq!(lines, expected, "{table}");
        assert_eq!(scene.state_of("version", "v1").await, from, "{table}");
        assert_eq!(receiver.hooks().len(), expected.len(), "{table}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!("DROP TRIGGER refuse ON {table}")))
            .execute(&mut superuser)
            .await
            .unwrap();
        expected.push(format!("version.transitioned v1 {from}>{state} poll"));
        from = state;
        receiver.taken("hook", expected.len()).await;
    }
    scene.says(&expected.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert_eq!(receiver.hooks_of("hook").len(), 3, "each was sent once");
    receiver.assert_all_verified();
}

#[tokio::test]
async fn point_10_no_notification_is_lost_to_a_receiver_that_fails_or_a_node_that_stops() {
    let mut scene = Scene::of(with_version("IN_REVIEW"), always).await;
    let receiver = Receiver::of(&scene.world).await;
    receiver.learn_keys().await;
    let up = Arc::new(AtomicUsize::new(0));
    let answers = Arc::clone(&up);
    receiver.behave(move |_| Reply::Status(if answers.load(Ordering::Relaxed) == 1 { 200 } else { 500 }));
    let more = json!({ "filter": { "types": ["store.*"] } });
    let destination = scene.workspace.destination(&receiver, "hook", more).await;
    scene.apply(version("v1", "REJECTED"));
    let rejected = "version.transitioned v1 IN_REVIEW>REJECTED poll";
    scene.told(&[rejected]).await;
    receiver.until("an attempt", |hooks| !hooks.is_empty()).await;
    scene.world.stop().await;
    // While it is away the store goes on.
    scene.apply(version("v1", "WAITING_FOR_REVIEW"));
    up.store(1, Ordering::Relaxed);
    scene.world.start().await.unwrap();
    let waiting = "version.transitioned v1 REJECTED>WAITING_FOR_REVIEW poll";
    scene.told(&[rejected, waiting]).await;
    let hooks = receiver.taken("hook", 2).await;
    let mut ids: Vec<&str> = hooks.iter().filter(|h| h.taken()).map(|h| h.id.as_str()).collect();
    ids.dedup();
    assert_eq!(ids.len(), 2);
    // Retries end: after the last attempt there is an entry that says so.
    up.store(0, Ordering::Relaxed);
    scene.apply(version("v1", "IN_REVIEW"));
    let given_up = eventually("an end of the attempts", || async {
        scene.workspace.entries_of("delivery.given_up").await.pop()
    })
    .await;
    let attempts = scene.world.settings.delivery.schedule_s.len();
    assert_eq!(given_up["data"]["attempts"], attempts);
    let number = given_up["data"]["number"].as_u64().unwrap();
    let made = receiver.hooks_of("hook").iter().filter(|h| h.number == number).count();
    assert_eq!(made, attempts);
    assert_eq!(destination.delivery(number).await["state"], "given_up");
}

#[tokio::test]
async fn point_10_the_first_sight_is_told_and_a_new_version_is_none_of_the_old_one() {
    let scene = Scene::of(with_version("READY_FOR_DISTRIBUTION"), always).await;
    let seen = scene.workspace.entries_of("store.version.first_seen").await;
    assert_eq!(seen.len(), 1, "what was there when the watch began is on record");
    assert_eq!(seen[0]["data"]["to"], "READY_FOR_DISTRIBUTION");
    scene.apply(step(json!({ "do": "add_version", "id": "v2", "app": "1001", "platform": "IOS",
        "version_string": "1.1.0", "state": "PREPARE_FOR_SUBMISSION" })));
    eventually("the new version", || async {
        (scene.workspace.entries_of("store.version.first_seen").await.len() == 2).then_some(())
    })
    .await;
    scene.apply(version("v2", "WAITING_FOR_REVIEW"));
    scene.says(&["version.transitioned v2 PREPARE_FOR_SUBMISSION>WAITING_FOR_REVIEW poll"]).await;
    // After a restart nothing is new that was known.
    let Scene { mut world, simulator, workspace, apple, google } = scene;
    world.stop().await;
    world.start().await.unwrap();
    let scene = Scene { world, simulator, workspace, apple, google };
    scene.says(&["version.transitioned v2 PREPARE_FOR_SUBMISSION>WAITING_FOR_REVIEW poll"]).await;
    assert_eq!(scene.first_sights().await["version"], 2);
}
