//! Batches of several workspaces in one commit: each stays what it would be by itself.

use crate::harness::{Receiver, Workspace, World};
use serde_json::json;
use statusledger::id::WorkspaceId;
use statusledger::ledger::append::Error;
use statusledger::ledger::{Draft, Writer};
use statusledger_verify::json::{Object, Value as Json};

fn note(n: i64) -> Draft {
    let mut data = Object::default();
    data.insert("n".into(), Json::Int(n));
    Draft::new("test.noted", data).unwrap()
}

async fn workspaces(world: &World, n: usize) -> Vec<Workspace> {
    let mut made = Vec::new();
    for i in 0..n {
        made.push(world.workspace(&format!("team {i}")).await);
    }
    made
}

/// Appends `each` notes, one after the other, to every one of `workspaces` at once.
async fn append_to_all(writer: &Writer, workspaces: &[Workspace], each: i64) {
    let append = |id: WorkspaceId| {
        let writer = writer.clone();
        tokio::spawn(async move {
            for n in 0..each {
                writer.append(id, note(n)).await?;
            }
            Ok::<_, Error>(())
        })
    };
    let tasks: Vec<_> = workspaces.iter().map(|workspace| append(workspace.id)).collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_workspaces_share_commits_and_each_is_whole() {
    let world = World::new().await;
    let workspaces = workspaces(&world, 24).await;
    let receiver = Receiver::of(&world).await;
    // Every third has a destination, every second is told by its own source, with openings and idempotency keys.
    for (n, workspace) in workspaces.iter().enumerate() {
        if n % 3 == 0 {
            workspace.destination(&receiver, &format!("hook{n}"), json!({})).await;
        }
    }
    let mut inbound = Vec::new();
    for workspace in workspaces.iter().step_by(2) {
        inbound.push(workspace.inbound("events").await);
    }
    let events: Vec<_> = inbound
        .into_iter()
        .map(|source| {
            tokio::spawn(async move {
                for n in 0..12 {
                    source.post_once(&format!("key {n}"), format!("payload {n}")).await.expect(202);
                }
            })
        })
        .collect();
    append_to_all(&world.node().writer, &workspaces, 24).await;
    for task in events {
        task.await.unwrap();
    }
    // What a transaction wrote bears its number: with several ledgers' in one there are fewer than there were batches.
    let mut superuser = world.database.superuser().await;
    let (ledgers, commits): (i64, i64) = sqlx::query_as(
        "SELECT count(*), count(DISTINCT x) FROM (
             SELECT DISTINCT ledger_id, xmin::text AS x FROM entries WHERE type IN ('test.noted', 'event.received')) AS b",
    )
    .fetch_one(&mut superuser)
    .await
    .unwrap();
    assert!(commits < ledgers, "{ledgers} batches in {commits} commits");
    for (n, workspace) in workspaces.iter().enumerate() {
        assert_eq!(workspace.entries_of("test.noted").await.len(), 24);
        let told = if n % 2 == 0 { 12 } else { 0 };
        assert_eq!(workspace.entries_of("event.received").await.len(), told);
        if n % 3 == 0 {
            receiver.taken(&format!("hook{n}"), 24 + told).await;
        }
    }
    receiver.assert_all_verified();
    world.assert_whole(&workspaces.iter().collect::<Vec<_>>()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_holds_one_ledger_holds_up_no_other() {
    let world = World::new().await;
    let workspaces = workspaces(&world, 12).await;
    let writer = world.node().writer.clone();
    let mut locked = writer.lock(workspaces[0].id).await.unwrap();
    let held = tokio::spawn({
        let (writer, id) = (writer.clone(), workspaces[0].id);
        async move { writer.append(id, note(0)).await }
    });
    append_to_all(&writer, &workspaces[1..], 8).await;
    assert!(!held.is_finished(), "its head is locked");
    let first = locked.append(&[note(-1)]).await.unwrap()[0].seq;
    locked.commit().await.unwrap();
    assert_eq!(held.await.unwrap().unwrap().seq, first + 1);
    world.assert_whole(&workspaces.iter().collect::<Vec<_>>()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_node_appends_is_found_by_each_ledger_alone() {
    let world = World::new().await;
    let (second, _) = world.another().await;
    let workspaces = workspaces(&world, 12).await;
    // Both know the heads, and each moves them under the other.
    tokio::join!(
        append_to_all(&world.node().writer, &workspaces, 20),
        append_to_all(&second.writer, &workspaces, 20)
    );
    for workspace in &workspaces {
        assert_eq!(workspace.entries_of("test.noted").await.len(), 40);
    }
    world.assert_whole(&workspaces.iter().collect::<Vec<_>>()).await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_taken_is_refused_to_its_workspace_alone() {
    let world = World::new().await;
    let workspaces = workspaces(&world, 8).await;
    let mut sources = Vec::new();
    for workspace in &workspaces {
        let source = workspace.inbound("events").await;
        source.post_once("taken", "first").await.expect(202);
        sources.push(source);
    }
    let sent: Vec<_> = (0..10)
        .flat_map(|n| sources.iter().cloned().enumerate().map(move |(i, source)| (n, i, source)))
        .map(|(n, i, source)| {
            tokio::spawn(async move {
                if i == 0 {
                    assert_eq!(source.post_once("taken", "another").await.problem(409), "conflict");
                } else {
                    source.post_once(&format!("free {n}"), "body").await.expect(202);
                }
            })
        })
        .collect();
    for task in sent {
        task.await.unwrap();
    }
    for (n, workspace) in workspaces.iter().enumerate() {
        let told = if n == 0 { 1 } else { 11 };
        assert_eq!(workspace.entries_of("event.received").await.len(), told);
    }
    world.assert_whole(&workspaces.iter().collect::<Vec<_>>()).await;
}
