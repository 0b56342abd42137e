//! Delivery: at least once, in order, under one id, to whom it is meant and no other.

use crate::harness::{Destination, Hook, Inbound, Receiver, Reply, Workspace, World, eventually};
use serde_json::{Value, json};
use standardwebhooks::Webhook;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// A world with a workspace, an inbound source and a receiver.
async fn scene_with(
    change: impl FnOnce(&mut statusledger::config::Settings),
) -> (World, Workspace, Inbound, Receiver) {
    let world = World::with(change).await;
    let workspace = world.workspace("deliveries").await;
    let source = workspace.inbound("events").await;
    let receiver = Receiver::of(&world).await;
    (world, workspace, source, receiver)
}

async fn scene() -> (World, Workspace, Inbound, Receiver) {
    scene_with(|_| {}).await
}

/// A destination's members: only inbound events.
fn events() -> Value {
    json!({ "filter": { "types": ["event.*"] } })
}

/// The first attempt of each delivery, in the order in which they came.
fn firsts(hooks: &[Hook]) -> Vec<u64> {
    let mut seen = HashSet::new();
    hooks.iter().filter(|h| seen.insert(h.number)).map(|h| h.number).collect()
}

/// That numbers run from 1 without a gap and rise as seq does, and that each has one id and one body.
fn assert_sound(hooks: &[Hook]) {
    let mut of_number: HashMap<u64, &Hook> = HashMap::new();
    for hook in hooks {
        assert_eq!(hook.verified, Ok(()));
        let first = of_number.entry(hook.number).or_insert(hook);
        assert_eq!((&first.id, &first.body), (&hook.id, &hook.body), "number {}", hook.number);
    }
    let numbers: BTreeSet<u64> = of_number.keys().copied().collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect());
    let seqs: Vec<u64> = numbers.iter().map(|n| of_number[n].seq).collect();
    assert!(seqs.is_sorted_by(|a, b| a < b), "{seqs:?}");
    let ids: HashSet<&str> = of_number.values().map(|h| h.id.as_str()).collect();
    assert_eq!(ids.len(), numbers.len(), "two deliveries have one id");
}

#[tokio::test]
async fn first_attempts_start_in_the_order_of_their_numbers_though_a_third_fails() {
    let (world, workspace, source, receiver) = scene().await;
    let destination = workspace.destination(&receiver, "hook", json!({})).await;
    let mut count = 0;
    receiver.behave(move |_| {
        count += 1;
        Reply::Status(if count % 3 == 0 { 503 } else { 200 })
    });
    for n in 0..60 {
        source.event(format!("event {n}")).await;
    }
    let hooks = receiver.taken("hook", 60).await;
    assert_sound(&hooks);
    assert!(firsts(&hooks).is_sorted(), "{:?}", firsts(&hooks));
    assert!(hooks.len() > 80, "a third was tried again");
    destination.settled(60, "delivered").await;
    for number in [1, 2, 3, 30] {
        let delivery = destination.delivery(number).await;
        let history = delivery["history"].as_array().unwrap();
        let attempts: Vec<&Hook> = hooks.iter().filter(|h| h.number == number).collect();
        assert_eq!(history.len(), attempts.len());
        for (n, (kept, hook)) in history.iter().zip(&attempts).enumerate() {
            let Reply::Status(status) = hook.reply else { panic!() };
            assert_eq!((&kept["attempt"], &kept["status"]), (&json!(n + 1), &json!(status)));
            // Of what was taken nothing is kept.
            let answer = if status == 200 { serde_json::Value::Null } else { json!("an answer") };
            assert_eq!(kept["answer"], answer);
            assert!(kept["duration_us"].as_i64().unwrap() > 0);
        }
        assert_eq!(
            delivery["receipt"].as_str().unwrap().trim_start_matches("rcpt_"),
            attempts[0].id.trim_start_matches("rcpt_")
        );
        // The body on request is the one that was sent.
        let path = format!("{}/deliveries/{number}/receipt", destination.path);
        assert_eq!(world.api.get(&path).await.expect(200).body, attempts[0].body);
    }
    world.assert_whole(&[&workspace]).await;
}

#[tokio::test]
async fn no_more_than_max_in_flight_attempts_run_at_once() {
    let (_world, workspace, source, receiver) = scene().await;
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    // A receiver of its own, which holds each answer until three are there or no more come.
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let app = axum::Router::new().route(
        "/",
        axum::routing::post({
            let (running, most, gate) = (Arc::clone(&running), Arc::clone(&most), Arc::clone(&gate));
            move || async move {
                let now = running.fetch_add(1, Ordering::SeqCst) + 1;
                most.fetch_max(now, Ordering::SeqCst);
                gate.acquire().await.unwrap().forget();
                running.fetch_sub(1, Ordering::SeqCst);
            }
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    let destination =
        workspace.destination(&receiver, "slow", json!({ "url": url, "max_in_flight": 3 })).await;
    for n in 0..20 {
        source.event(format!("event {n}")).await;
    }
    eventually("three attempts at once", || async { (running.load(Ordering::SeqCst) == 3).then_some(()) })
        .await;
    for _ in 0..20 {
        gate.add_permits(1);
    }
    destination.settled(20, "delivered").await;
    assert_eq!(most.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn attempts_follow_the_schedule_and_end_with_an_entry_that_others_hear_of() {
    let steps = [0.0, 0.3, 0.6];
    let (world, workspace, source, receiver) = scene_with(|s| s.delivery.schedule_s = steps.to_vec()).await;
    let destination = workspace.destination(&receiver, "down", events()).await;
    let witness =
        workspace.destination(&receiver, "witness", json!({ "filter": { "types": ["delivery.*"] } })).await;
    receiver.behave(|hook| Reply::Status(if hook.name == "down" { 500 } else { 200 }));
    let seq = source.event("an event").await;
    let told = receiver.taken("witness", 1).await;
    assert_eq!(told[0].kind, "delivery.given_up");
    let data = &told[0].value["data"];
    assert_eq!(
        (&data["destination"], &data["number"], &data["seq"], &data["attempts"], &data["status"]),
        (&json!(destination.id.to_string()), &json!(1), &json!(seq), &json!(3), &json!(500))
    );
    let attempts = receiver.hooks_of("down");
    assert_sound(&attempts);
    assert_eq!(attempts.len(), 3, "and none of what happened to itself");
    for (n, pair) in attempts.windows(2).enumerate() {
        let waited = (pair[1].at - pair[0].at).as_secs_f64();
        let step = steps[n + 1];
        assert!(waited >= step * 0.99 && waited < step + 1.5, "step {n}: {waited} s");
    }
    destination.settled(1, "given_up").await;
    assert_eq!(workspace.entries_of("delivery.given_up").await.len(), 1);
    assert_eq!(witness.deliveries().await.len(), 1);
    assert_eq!(destination.read().await["disabled_at"], Value::Null);
    world.assert_whole(&[&workspace]).await;
}

#[tokio::test]
async fn retry_after_is_a_floor() {
    let (_world, workspace, source, receiver) = scene().await;
    workspace.destination(&receiver, "hook", json!({})).await;
    let mut first = true;
    receiver.behave(
        move |_| {
            if std::mem::take(&mut first) { Reply::RetryAfter(429, 2) } else { Reply::Status(200) }
        },
    );
    source.event("an event").await;
    let hooks = receiver.taken("hook", 1).await;
    let waited = hooks[1].at - hooks[0].at;
    assert!(waited >= Duration::from_millis(1990), "{waited:?}");
    assert_sound(&hooks);
}

#[tokio::test]
async fn gone_disables_the_destination_with_an_entry_and_enabling_takes_up_what_waited() {
    let (world, workspace, source, receiver) = scene().await;
    let destination = workspace.destination(&receiver, "gone", events()).await;
    let witness = workspace
        .destination(&receiver, "witness", json!({ "filter": { "types": ["destination.*"] } }))
        .await;
    receiver.behave(|hook| Reply::Status(if hook.name == "gone" { 410 } else { 200 }));
    source.event("an event").await;
    let told =
        receiver.until("the disabling", |hooks| hooks.iter().any(|h| h.kind == "destination.disabled")).await;
    let told = told.iter().find(|h| h.kind == "destination.disabled").unwrap();
    assert_eq!(told.name, "witness");
    assert_eq!(told.value["data"]["destination"], destination.id.to_string());
    assert_eq!(destination.read().await["disabled_reason"], "the receiver answered 410 Gone");
    // While it is disabled, it gets nothing, and nothing is written for it.
    source.event("unheard").await;
    assert_eq!(
        world.api.post(&format!("{}/test", destination.path), json!({})).await.problem(409),
        "conflict"
    );
    receiver.behave(|_| Reply::Status(200));
    destination.change(json!({ "enabled": true })).await;
    source.event("heard").await;
    let hooks = receiver.taken("gone", 2).await;
    assert_sound(&hooks);
    assert_eq!(hooks.iter().filter(|h| h.number == 1).count(), 2, "what was on its way is tried again");
    destination.settled(2, "delivered").await;
    assert_eq!(destination.read().await["disabled_at"], Value::Null);
    drop(witness);
    world.assert_whole(&[&workspace]).await;
}

#[tokio::test]
async fn a_destination_that_only_fails_for_too_long_is_disabled() {
    let (_world, workspace, source, receiver) = scene_with(|s| s.delivery.disable_after_s = 0.2).await;
    let destination = workspace.destination(&receiver, "down", json!({})).await;
    receiver.behave(|_| Reply::Status(500));
    source.event("an event").await;
    let disabled = eventually("the disabling", || async {
        workspace.entries_of("destination.disabled").await.into_iter().next()
    })
    .await;
    assert_eq!(disabled["data"]["reason"], "every attempt failed for too long");
    assert!(destination.read().await["disabled_at"].is_string());
    assert!(receiver.hooks().len() < 10, "before the schedule has ended");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (_world, workspace, source, receiver) = scene().await;
    let destination = workspace.destination(&receiver, "hook", json!({})).await;
    let elsewhere = receiver.url("elsewhere");
    let mut first = true;
    receiver.behave(move |_| {
        if std::mem::take(&mut first) { Reply::Redirect(elsewhere.clone()) } else { Reply::Status(200) }
    });
    source.event("an event").await;
    receiver.taken("hook", 1).await;
    assert_eq!(receiver.hooks_of("elsewhere").len(), 0);
    destination.settled(1, "delivered").await;
    let kept = destination.delivery(1).await;
    assert_eq!(kept["history"][0]["status"], 302);
}

#[tokio::test]
async fn a_destination_that_hangs_delays_no_other() {
    // It hangs until it is told not to.
    let (_world, workspace, source, receiver) = scene_with(|s| s.delivery.deadline_s = 300.0).await;
    let hanging = workspace.destination(&receiver, "hangs", json!({ "max_in_flight": 4 })).await;
    workspace.destination(&receiver, "quick", json!({})).await;
    receiver.behave(|hook| if hook.name == "hangs" { Reply::Hold } else { Reply::Status(200) });
    for n in 0..100 {
        source.event(format!("event {n}")).await;
    }
    receiver.taken("quick", 100).await;
    let hangs = |hooks: &[Hook]| hooks.iter().filter(|hook| hook.reply == Reply::Hold).count();
    receiver.until("four that hang", move |hooks| hangs(hooks) == 4).await;
    assert_eq!(hangs(&receiver.hooks_of("hangs")), 4, "and no more than may");
    receiver.behave(|_| Reply::Status(200));
    receiver.taken("hangs", 100).await;
    hanging.settled(100, "delivered").await;
    assert_sound(&receiver.hooks_of("hangs"));
}

#[tokio::test]
async fn an_attempt_that_is_not_answered_in_time_has_failed_and_is_made_again() {
    let (_world, workspace, source, receiver) = scene_with(|s| s.delivery.deadline_s = 1.0).await;
    let destination = workspace.destination(&receiver, "hook", json!({})).await;
    let mut first = true;
    receiver.behave(move |_| if std::mem::take(&mut first) { Reply::Hang } else { Reply::Status(200) });
    source.event("an event").await;
    receiver.taken("hook", 1).await;
    destination.settled(1, "delivered").await;
    let kept = destination.delivery(1).await;
    assert_eq!(kept["attempts"], 2);
    assert_eq!(kept["history"][0]["status"], Value::Null);
    assert!(kept["history"][0]["error"].is_string());
    assert_sound(&receiver.hooks_of("hook"));
}

#[tokio::test]
async fn redelivery_repeats_the_same_bodies_under_the_same_ids() {
    let (world, workspace, source, receiver) = scene().await;
    let destination = workspace.destination(&receiver, "hook", json!({})).await;
    for n in 0..6 {
        source.event(format!("event {n}")).await;
    }
    receiver.taken("hook", 6).await;
    destination.settled(6, "delivered").await;
    let again = |from: u64, to: u64| {
        let (api, path) = (world.api.clone(), format!("{}/redeliver", destination.path));
        async move { api.post(&path, json!({ "from": from, "to": to })).await }
    };
    assert_eq!(again(2, 4).await.expect(202).json()["count"], 3);
    let repeated = |hooks: &[Hook]| (2..=4).all(|n| hooks.iter().filter(|h| h.number == n).count() == 2);
    let hooks = receiver.until("the range again", repeated).await;
    assert_sound(&hooks);
    destination.settled(6, "delivered").await;
    assert_eq!(again(5, 5).await.expect(202).json()["count"], 1);
    let hooks =
        receiver.until("one by hand", |hooks| hooks.iter().filter(|h| h.number == 5).count() == 2).await;
    assert_sound(&hooks);
    assert_eq!(hooks.len(), 6 + 3 + 1);
    let entries = workspace.entries_of("delivery.redelivered").await;
    assert_eq!(entries.len(), 2);
    assert_eq!((&entries[0]["data"]["from"], &entries[0]["data"]["to"]), (&json!(2), &json!(4)));
    for (from, to) in [(0, 1), (7, 9)] {
        assert_eq!(again(from, to).await.problem(404), "not-found", "{from} to {to}");
    }
    assert_eq!(again(3, 2).await.problem(422), "invalid");
    world.assert_whole(&[&workspace]).await;
}

#[tokio::test]
async fn what_was_given_up_can_be_delivered_by_hand() {
    let (world, workspace, source, receiver) = scene_with(|s| s.delivery.schedule_s = vec![0.0, 0.05]).await;
    let destination = workspace.destination(&receiver, "hook", json!({})).await;
    receiver.behave(|_| Reply::Status(500));
    source.event("an event").await;
    destination.settled(1, "given_up").await;
    receiver.behave(|_| Reply::Status(200));
    let path = format!("{}/redeliver", destination.path);
    world.api.post(&path, json!({ "from": 1, "to": 1 })).await.expect(202);
    let hooks = receiver.taken("hook", 1).await;
    assert_sound(&hooks);
    destination.settled(1, "delivered").await;
}

#[tokio::test]
async fn a_retry_that_waits_is_made_at_once_when_it_is_asked_for_by_hand() {
    let later = 9.0;
    let (world, workspace, source, receiver) = scene_with(|s| s.delivery.schedule_s = vec![0.0, later]).await;
    let destination = workspace.destination(&receiver, "hook", json!({})).await;
    let mut first = true;
    receiver.behave(move |_| Reply::Status(if std::mem::take(&mut first) { 503 } else { 200 }));
    source.event("an event").await;
    destination.settled(1, "retry").await;
    let path = format!("{}/redeliver", destination.path);
    world.api.post(&path, json!({ "from": 1, "to": 1 })).await.expect(202);
    let hooks = receiver.taken("hook", 1).await;
    let waited = hooks[1].at - hooks[0].at;
    assert!(waited < Duration::from_secs_f64(later), "{waited:?}");
    assert_sound(&hooks);
    destination.settled(1, "delivered").await;
}

#[tokio::test]
async fn a_rotated_secret_and_the_one_before_both_sign_until_its_time_is_up() {
    let (world, workspace, source, receiver) = scene().await;
    let destination = workspace.destination(&receiver, "hook", json!({})).await;
    let old = destination.secret.clone();
    let path = format!("{}/rotate-secret", destination.path);
    let answer = world.api.post(&path, json!({})).await.expect(200).json();
    let new = answer["secret"].as_str().unwrap().to_owned();
    assert_ne!(old, new);
    source.event("an event").await;
    let hooks = receiver.taken("hook", 1).await;
    for secret in [&old, &new] {
        Webhook::new(secret).unwrap().verify(&hooks[0].body, &hooks[0].headers).unwrap();
    }
    assert_eq!(hooks[0].headers["webhook-signature"].to_str().unwrap().split(' ').count(), 2);
    let mut superuser = world.database.superuser().await;
    let left: f64 = sqlx::query_scalar(
        "SELECT extract(epoch FROM previous_secret_until - now())::float8 FROM destinations",
    )
    .fetch_one(&mut superuser)
    .await
    .unwrap();
    assert!((86_300.0..=86_400.0).contains(&left), "{left} seconds");
    // A day later only the new one does.
    sqlx::query("UPDATE destinations SET previous_secret_until = now()")
        .execute(&mut superuser)
        .await
        .unwrap();
    destination.change(json!({ "name": "read again" })).await;
    receiver.expect("hook", &destination.id.to_string(), &new);
    source.event("another").await;
    let hooks = receiver.taken("hook", 2).await;
    let last = hooks.last().unwrap();
    assert_eq!(last.headers["webhook-signature"].to_str().unwrap().split(' ').count(), 1);
    Webhook::new(&old).unwrap().verify(&last.body, &last.headers).unwrap_err();
    assert_eq!(workspace.entries_of("destination.secret_rotated").await.len(), 1);
}

#[tokio::test]
async fn each_filter_lets_through_what_it_says() {
    let (_world, workspace, source, receiver) = scene().await;
    let other = workspace.inbound("others").await;
    for (name, filter) in [
        ("all", json!({})),
        ("events", json!({ "types": ["event.received"] })),
        ("beginning", json!({ "types": ["event.*"] })),
        ("stores", json!({ "types": ["store.*"] })),
        ("one source", json!({ "sources": [other.id.to_string()] })),
        ("an app", json!({ "apps": ["com.acme.weather"] })),
    ] {
        workspace.destination(&receiver, &name.replace(' ', "-"), json!({ "filter": filter })).await;
    }
    // What was configured is for the destinations that were there before: only events from here on.
    let from = source.event("one").await;
    other.event("two").await;
    receiver.taken("beginning", 2).await;
    receiver.taken("events", 2).await;
    receiver.taken("one-source", 1).await;
    let heard = |name: &str| receiver.hooks_of(name).iter().filter(|h| h.seq >= from).count();
    receiver
        .until("all that is for all", |hooks| {
            hooks.iter().filter(|h| h.name == "all" && h.seq >= from).count() == 2
        })
        .await;
    assert_eq!((heard("events"), heard("beginning"), heard("one-source")), (2, 2, 1));
    assert_eq!((receiver.hooks_of("stores").len(), receiver.hooks_of("an-app").len()), (0, 0));
    receiver.assert_all_verified();
}

#[tokio::test]
async fn a_changed_filter_is_an_entry_and_counts_from_there_on() {
    let (world, workspace, source, receiver) = scene().await;
    let destination =
        workspace.destination(&receiver, "hook", json!({ "filter": { "types": ["store.*"] } })).await;
    source.event("unheard").await;
    destination.change(json!({ "filter": { "types": ["event.*"] } })).await;
    let seq = source.event("heard").await;
    destination.change(json!({ "filter": { "types": ["store.*"] } })).await;
    source.event("unheard").await;
    let hooks = receiver.taken("hook", 1).await;
    assert_eq!(hooks.iter().map(|h| h.seq).collect::<Vec<_>>(), [seq]);
    assert_eq!(destination.deliveries().await.len(), 1);
    let changes = workspace.entries_of("destination.updated").await;
    assert_eq!(changes.len(), 2);
    assert_eq!(changes[0]["data"]["filter"]["types"], json!(["event.*"]));
    assert_eq!(workspace.entries_of("destination.created").await.len(), 1);
    for bad in [
        json!({ "filter": { "types": ["Store"] } }),
        json!({ "max_in_flight": 0 }),
        json!({ "max_in_flight": 257 }),
        json!({ "name": "" }),
        json!({ "url": "http://10.0.0.1/" }),
        json!({ "url": "ftp://example.com/" }),
    ] {
        let answer = world.api.patch(&destination.path, bad.clone()).await;
        assert_eq!(answer.problem(422), "invalid", "{bad}");
    }
    assert_eq!(workspace.entries_of("destination.updated").await.len(), 2);
}

#[tokio::test]
async fn openings_travel_only_where_they_are_allowed() {
    let (_world, workspace, source, receiver) = scene().await;
    workspace.destination(&receiver, "open", json!({})).await;
    workspace.destination(&receiver, "closed", json!({ "openings": false })).await;
    source.event("the payload").await;
    let open = receiver.taken("open", 2).await;
    let closed = receiver.taken("closed", 1).await;
    let event = open.iter().find(|h| h.kind == "event.received").unwrap();
    assert_eq!(event.value["openings"]["payload"]["value"]["text"], "the payload");
    assert_eq!(closed[0].value["openings"], Value::Null);
    assert!(!String::from_utf8_lossy(&closed[0].body).contains("the payload"));
    receiver.assert_all_verified();
}

#[tokio::test]
async fn a_test_event_goes_to_its_destination_alone() {
    let (world, workspace, _source, receiver) = scene().await;
    let one = workspace.destination(&receiver, "one", json!({ "filter": { "types": ["store.*"] } })).await;
    let two = workspace.destination(&receiver, "two", json!({})).await;
    world.api.post(&format!("{}/test", one.path), json!({})).await.expect(202);
    let hooks = receiver.taken("one", 1).await;
    assert_eq!(hooks[0].kind, "destination.tested");
    assert_eq!(two.deliveries().await.len(), 0);
}

#[tokio::test]
async fn a_deleted_destination_gets_nothing_more() {
    let (world, workspace, source, receiver) = scene().await;
    let destination = workspace.destination(&receiver, "hook", json!({})).await;
    let other =
        workspace.destination(&receiver, "other", json!({ "filter": { "types": ["event.*"] } })).await;
    source.event("one").await;
    receiver.taken("hook", 2).await;
    world.api.delete(&destination.path).await.expect(204);
    source.event("two").await;
    receiver.taken("other", 2).await;
    other.settled(2, "delivered").await;
    assert!(receiver.hooks_of("hook").iter().all(|h| h.kind != "destination.deleted"));
    assert_eq!(receiver.hooks_of("hook").iter().filter(|h| h.kind == "event.received").count(), 1);
    assert_eq!(world.api.get(&destination.path).await.problem(404), "not-found");
    assert_eq!(world.api.delete(&destination.path).await.problem(404), "not-found");
    world.assert_whole(&[&workspace]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_deliver_each_at_least_once_and_without_a_gap() {
    let (world, workspace, source, receiver) = scene().await;
    let (second, api) = world.another().await;
    let there = Inbound { api, ..source.clone() };
    let destinations: Vec<Destination> = {
        let mut made = Vec::new();
        for name in ["a", "b", "c"] {
            let filter = json!({ "filter": { "types": ["event.*"] } });
            made.push(workspace.destination(&receiver, name, filter).await);
        }
        made
    };
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..80 {
        let source = if n % 2 == 0 { source.clone() } else { there.clone() };
        tasks.spawn(async move { source.event(format!("event {n}")).await });
    }
    tasks.join_all().await;
    for destination in &destinations {
        let hooks = receiver.taken(&destination.name, 80).await;
        assert_sound(&hooks);
        assert!(firsts(&hooks).is_sorted(), "{}: {:?}", destination.name, firsts(&hooks));
        destination.settled(80, "delivered").await;
    }
    // One node goes; the other takes its lanes over and goes on.
    second.stop().await;
    for n in 0..10 {
        source.event(format!("later {n}")).await;
    }
    for destination in &destinations {
        let hooks = receiver.taken(&destination.name, 90).await;
        assert_sound(&hooks);
        assert!(firsts(&hooks).is_sorted());
    }
    world.assert_whole(&[&workspace]).await;
}

#[tokio::test]
async fn what_was_not_delivered_before_a_restart_is_delivered_after_it() {
    let (mut world, workspace, source, receiver) = scene().await;
    let destination = workspace.destination(&receiver, "hook", json!({})).await;
    receiver.behave(|_| Reply::Status(503));
    for n in 0..20 {
        source.event(format!("event {n}")).await;
    }
    receiver.until("a first attempt", |hooks| !hooks.is_empty()).await;
    world.stop().await;
    receiver.behave(|_| Reply::Status(200));
    world.start().await.unwrap();
    let hooks = receiver.taken("hook", 20).await;
    assert_sound(&hooks);
    destination.settled(20, "delivered").await;
    world.assert_whole(&[&workspace]).await;
}
