//! The ledger: dense and chained under any concurrency, whole under any input.

use crate::harness::{Inbound, Workspace, World, eventually};
use serde_json::{Value, json};
use statusledger::delivery::Outbox;
use statusledger::id::NodeId;
use statusledger::ledger::append::unix_micros;
use statusledger::ledger::draft::{self, IdempotencyKey, MAX_DATA};
use statusledger::ledger::{Draft, Writer};
use statusledger::source::inbound::MAX_PAYLOAD;
use statusledger_verify::json::{Object, Value as Json};
use statusledger_verify::tree::leaf_hash;
use std::collections::{BTreeSet, HashSet};

/// An entry of a type of ours with one member.
fn note(n: i64) -> Draft {
    let mut data = Object::default();
    data.insert("n".into(), Json::Int(n));
    Draft::new("test.noted", data).unwrap()
}

/// The same, under an idempotency key.
fn keyed(n: i64, idempotency: Option<IdempotencyKey>) -> Draft {
    let mut draft = note(n);
    draft.idempotency = idempotency;
    draft
}

/// A writer beside the node's, as another process has one.
fn writer(world: &World) -> Writer {
    let node = world.node();
    let (outbox, _) = Outbox::new();
    let data_keys = node.writer.data_keys().clone();
    Writer::new(node.database.clone(), node.keyring.clone(), data_keys, Some(NodeId::new()), outbox)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// That the entries, byte for byte as the API gives them, are dense and chained; answers how many.
async fn assert_chained(workspace: &Workspace) -> usize {
    let (mut previous, mut seq) = ("0".repeat(64), 0);
    loop {
        let answer = workspace.api.get(&workspace.at(&format!("/entries/{seq}"))).await;
        if answer.status == 404 {
            return seq;
        }
        let entry = answer.json();
        assert_eq!(entry["seq"], seq);
        assert_eq!(entry["prev"], previous, "entry {seq}");
        previous = hex(&leaf_hash(&answer.body));
        seq += 1;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_appends_of_many_tasks_and_two_writers_stay_dense() {
    let world = World::new().await;
    let workspace = world.workspace("dense").await;
    let writers = [world.node().writer.clone(), writer(&world)];
    let tasks: Vec<_> = (0..32)
        .map(|task| {
            let (writer, workspace) = (writers[task % 2].clone(), workspace.id);
            tokio::spawn(async move {
                let mut seqs = Vec::new();
                for n in 0..20 {
                    seqs.push(writer.append(workspace, note(n)).await.unwrap().seq);
                }
                assert!(seqs.is_sorted(), "a caller's own appends are in its order");
                seqs
            })
        })
        .collect();
    let mut seqs = BTreeSet::new();
    for task in tasks {
        for seq in task.await.unwrap() {
            assert!(seqs.insert(seq), "{seq} was given twice");
        }
    }
    // The first two entries are the workspace's own: that it was made, and by whom.
    assert_eq!(seqs, (2..=641).collect());
    assert_eq!(assert_chained(&workspace).await, 642);
    world.assert_whole(&[&workspace]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_over_one_workspace_append_densely() {
    let world = World::new().await;
    let (second, api) = world.another().await;
    let workspace = world.workspace("two nodes").await;
    let here = workspace.inbound("events").await;
    let there = Inbound { api, ..here.clone() };
    let tasks: Vec<_> = (0..16)
        .map(|task| {
            let source = if task % 2 == 0 { here.clone() } else { there.clone() };
            tokio::spawn(async move {
                let mut seqs = Vec::new();
                for n in 0..12 {
                    seqs.push(source.event(format!("event {task}/{n}")).await);
                }
                seqs
            })
        })
        .collect();
    let mut seqs = HashSet::new();
    for task in tasks {
        seqs.extend(task.await.unwrap());
    }
    assert_eq!(seqs.len(), 16 * 12);
    assert_eq!(assert_chained(&workspace).await, 4 + 16 * 12);
    world.assert_whole(&[&workspace]).await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn appends_never_deadlock_with_mutations_or_rotations() {
    let world = World::new().await;
    let workspace = world.workspace("busy").await;
    let inbound = workspace.inbound("events").await;
    let receiver = crate::harness::Receiver::of(&world).await;
    let destination = workspace.destination(&receiver, "hook", json!({})).await;
    let appends = (0..6).map(|task| {
        let inbound = inbound.clone();
        tokio::spawn(async move {
            for n in 0..25 {
                inbound.event(format!("{task} {n}")).await;
            }
        })
    });
    let mutations = (0..3_i32).map(|task| {
        let destination = destination.clone();
        tokio::spawn(async move {
            for n in 0..8 {
                destination.change(json!({ "max_in_flight": 1 + (task + n) % 3 })).await;
            }
        })
    });
    let tasks: Vec<_> = appends.chain(mutations).collect();
    let node = world.node();
    for _ in 0..3 {
        node.keyring
            .change(
                &node.writer,
                &statusledger::audit::Act::operator(),
                node.instance.workspace,
                |ring, now| Ok((ring.rotate(statusledger_keys::ring::Rotation::Both, now)?, ())),
            )
            .await
            .unwrap();
    }
    for task in tasks {
        task.await.unwrap();
    }
    // created, source, destination, and then what the tasks did; each act with its audit entry.
    assert_eq!(workspace.entries().await.len(), 2 * 3 + 150 + 2 * 24);
    // Every one of them is delivered, each change of a destination to others than itself.
    receiver.taken("hook", 150).await;
    receiver.assert_all_verified();
    world.assert_whole(&[&workspace]).await;
}

#[tokio::test]
async fn the_same_key_and_body_get_the_first_answer_and_another_body_a_conflict() {
    let world = World::new().await;
    let workspace = world.workspace("keys").await;
    let (source, other) = (workspace.inbound("one").await, workspace.inbound("two").await);
    let first = source.post_once("k", "body").await.expect(202).json();
    assert_eq!(source.post_once("k", "body").await.expect(202).json(), first);
    assert_eq!(source.post_once("k", "another").await.problem(409), "conflict");
    let other_type =
        source.request("body").header("idempotency-key", "k").header("content-type", "text/plain");
    assert_eq!(crate::harness::send(other_type).await.problem(409), "conflict");
    // A key belongs to its source.
    let elsewhere = other.post_once("k", "another").await.expect(202).json();
    assert_ne!(elsewhere["seq"], first["seq"]);
    assert_eq!(workspace.entries_of("event.received").await.len(), 2);
    for bad in ["", &"x".repeat(256)] {
        assert_eq!(source.post_once(bad, "body").await.problem(400), "bad-request");
    }
    source.post_once(&"x".repeat(255), "body").await.expect(202);
}

#[tokio::test]
async fn a_key_is_free_again_after_a_day() {
    let world = World::new().await;
    let workspace = world.workspace("keys").await;
    let source = workspace.inbound("events").await;
    let first = source.post_once("k", "body").await.expect(202).json();
    let mut superuser = world.database.superuser().await;
    let kept: f64 = sqlx::query_scalar(
        "SELECT extract(epoch FROM expires_at - to_timestamp(recorded_at / 1e6))::float8 FROM idempotency_keys",
    )
    .fetch_one(&mut superuser)
    .await
    .unwrap();
    assert!((kept - 86_400.0).abs() < 5.0, "{kept} seconds");
    sqlx::query("UPDATE idempotency_keys SET expires_at = now() - interval '1 second'")
        .execute(&mut superuser)
        .await
        .unwrap();
    let second = source.post_once("k", "another body").await.expect(202).json();
    assert!(second["seq"].as_u64() > first["seq"].as_u64());
    assert_eq!(source.post_once("k", "another body").await.expect(202).json(), second);
    assert_eq!(source.post_once("k", "body").await.problem(409), "conflict");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_key_sent_many_times_at_once_is_recorded_once() {
    let world = World::new().await;
    let (second, api) = world.another().await;
    let workspace = world.workspace("keys").await;
    let here = workspace.inbound("events").await;
    let there = Inbound { api, ..here.clone() };
    let sent: Vec<_> = (0..40)
        .map(|n| {
            let source = if n % 2 == 0 { here.clone() } else { there.clone() };
            tokio::spawn(async move { source.post_once("the key", "the body").await.expect(202).json() })
        })
        .collect();
    let mut answers = HashSet::new();
    for sent in sent {
        answers.insert(sent.await.unwrap().to_string());
    }
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert_eq!(workspace.entries_of("event.received").await.len(), 1);
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_item_never_fails_its_batch() {
    let world = World::new().await;
    let workspace = world.workspace("batch").await;
    let source = workspace.inbound("events").await;
    let writer = &world.node().writer;
    let key = |hash: u8| IdempotencyKey { source: source.id, key: "taken".into(), body_hash: [hash; 32] };
    writer.append(workspace.id, keyed(0, Some(key(1)))).await.unwrap();
    // A row that the database refuses: a key longer than the table takes.
    let long = IdempotencyKey { source: source.id, key: "x".repeat(300), body_hash: [3; 32] };
    let mut results = Vec::new();
    for n in 0..60 {
        let idempotency = match n % 20 {
            5 => Some(key(2)),
            11 => Some(long.clone()),
            _ => None,
        };
        let (writer, workspace) = (writer.clone(), workspace.id);
        let sent = tokio::spawn(async move { writer.append(workspace, keyed(n, idempotency)).await });
        results.push((n, sent));
    }
    for (n, sent) in results {
        let recorded = sent.await.unwrap();
        assert_eq!(recorded.is_err(), matches!(n % 20, 5 | 11), "{n}: {recorded:?}");
    }
    assert_eq!(workspace.entries_of("test.noted").await.len(), 1 + 54);
    world.assert_whole(&[&workspace]).await;
}

#[tokio::test]
async fn a_clock_that_goes_back_never_makes_a_timestamp_fall() {
    let world = World::new().await;
    let workspace = world.workspace("clock").await;
    let writer = &world.node().writer;
    let now = unix_micros();
    // Not so far that the node would wait for its clock.
    let ahead = now + 4_900_000;
    for at in [now, ahead, now - 5_000_000, now] {
        let mut locked = writer.lock(workspace.id).await.unwrap();
        locked.append_at(&[note(at)], at).await.unwrap();
        locked.commit().await.unwrap();
    }
    // And the group commit, whose clock is the real one.
    writer.append(workspace.id, note(0)).await.unwrap();
    let entries = workspace.entries_of("test.noted").await;
    let times: Vec<&str> = entries.iter().map(|e| e["timestamp"].as_str().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
    assert_eq!(times[1], times[4]);
    world.assert_whole(&[&workspace]).await;
}

#[tokio::test]
async fn a_node_whose_ledger_is_ahead_of_its_clock_waits_until_the_clock_has_caught_up() {
    let world = World::new().await;
    let workspace = world.workspace("clock").await;
    let writer = &world.node().writer;
    // Its clock jumped ahead, and an entry was made meanwhile; then it was set right.
    let ahead = unix_micros() + 9_000_000;
    let mut locked = writer.lock(workspace.id).await.unwrap();
    locked.append_at(&[note(1)], ahead).await.unwrap();
    locked.commit().await.unwrap();
    let told = eventually("the node is not ready", || async {
        let answer = world.api.get("/readyz").await;
        (answer.status == 503).then_some(answer)
    })
    .await;
    assert_eq!(told.problem(503), "unavailable");
    let words = told.json()["detail"].as_str().unwrap().to_owned();
    assert!(words.contains(&workspace.ledger) && words.contains("s ahead of this node's clock"), "{words}");
    assert!(told.headers.contains_key("retry-after"));
    let refused = world.api.get(&workspace.at("/entries")).await;
    assert_eq!(refused.problem(503), "unavailable");
    // It is back by itself, with the clock at most five seconds behind.
    eventually("the clock has caught up", || async {
        (world.api.get("/readyz").await.status == 200).then_some(())
    })
    .await;
    assert!(unix_micros() >= ahead - 5_000_000);
    // What is recorded until then has the time of what was recorded last.
    writer.append(workspace.id, note(2)).await.unwrap();
    let entries = workspace.entries_of("test.noted").await;
    let times: Vec<&str> = entries.iter().map(|e| e["timestamp"].as_str().unwrap()).collect();
    assert!(times[0] <= times[1], "{times:?}");
    world.assert_whole(&[&workspace]).await;
}

#[tokio::test]
async fn an_entry_is_as_long_as_the_format_lets_it_be_and_no_longer() {
    let world = World::new().await;
    let workspace = world.workspace("long").await;
    let text = |n: usize| {
        let mut data = Object::default();
        data.insert("text".into(), Json::String("x".repeat(n)));
        Draft::new("test.noted", data)
    };
    // {"text":"…"} around it.
    let room = MAX_DATA - 11;
    let recorded = world.node().writer.append(workspace.id, text(room).unwrap()).await.unwrap();
    assert!(recorded.entry.len() <= draft::MAX_ENTRY);
    assert_eq!(text(room + 1).unwrap_err(), draft::Error::TooLong(MAX_DATA + 1));
    let mut deep = Json::Int(1);
    for _ in 0..32 {
        deep = Json::Array(vec![deep]);
    }
    let mut data = Object::default();
    data.insert("deep".into(), deep);
    assert!(matches!(Draft::new("test.noted", data), Err(draft::Error::Value(_))));
    for kind in ["", "Test", "test..x", "test.", "tést", "a b"] {
        assert!(
            matches!(Draft::new(kind.to_owned(), Object::default()), Err(draft::Error::Type(_))),
            "{kind}"
        );
    }
    world.assert_whole(&[&workspace]).await;
}

#[tokio::test]
async fn a_sealed_value_is_not_in_its_entry_and_its_opening_opens_it() {
    let world = World::new().await;
    let workspace = world.workspace("sealed").await;
    let source = workspace.inbound("events").await;
    let seq = source.event("a marked payload").await;
    let entry = world.api.get(&workspace.at(&format!("/entries/{seq}"))).await.expect(200);
    assert!(!entry.text().contains("marked"));
    assert_eq!(entry.json()["data"]["sealed"]["payload"].as_str().unwrap().len(), 64);
    let file = world.export(&workspace, "?openings=true").await;
    crate::harness::verify_export(&file, &world.pin()).unwrap();
    let openings = crate::proofs::member(&file, "openings.jsonl").unwrap();
    let line = openings.lines().find(|l| l.contains("marked")).unwrap();
    let opening: Value = serde_json::from_str(line).unwrap();
    assert_eq!((&opening["seq"], &opening["name"]), (&json!(seq), &json!("payload")));
    // Without being asked for, it stays here.
    let file = world.export(&workspace, "").await;
    assert_eq!(crate::proofs::member(&file, "openings.jsonl"), None);
    // Destroyed, the entry still verifies.
    sqlx::query("DELETE FROM openings").execute(&mut world.database.superuser().await).await.unwrap();
    world.assert_whole(&[&workspace]).await;
}

#[tokio::test]
async fn the_largest_payload_is_taken_whole() {
    let world = World::new().await;
    let workspace = world.workspace("large").await;
    let source = workspace.inbound("events").await;
    let body: Vec<u8> = (0..MAX_PAYLOAD).map(|i| (i % 251) as u8).collect();
    source.post(body).await.expect(202);
    source.post("é".repeat(MAX_PAYLOAD / 2)).await.expect(202);
    world.assert_whole(&[&workspace]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_of_a_ledger_that_grows_never_seem_to_be_of_another() {
    let world = World::new().await;
    let workspace = world.workspace("growing").await;
    let (node, id) = (world.node(), workspace.id);
    let grow = {
        let writer = node.writer.clone();
        tokio::spawn(async move {
            for n in 0..400 {
                writer.append(id, note(n)).await.unwrap();
            }
        })
    };
    // Each is signed between two appends, while others are: what this node handed out is soon newer than what a request
    // has read.
    let sign = (0..6).map(|_| {
        let (database, keyring, seen) =
            (node.database.clone(), node.keyring.clone(), node.seen_heads.clone());
        tokio::spawn(async move {
            for _ in 0..200 {
                statusledger::ledger::read::checkpoint(&database, &keyring, &seen, id, None, None)
                    .await
                    .unwrap();
            }
        })
    });
    for task in sign.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    grow.await.unwrap();
    world.assert_whole(&[&workspace]).await;
}
