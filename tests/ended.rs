//! A workspace that has ended, on nodes that did not end it: nothing of it goes on, and nothing of it can be changed.

use crate::harness::{Receiver, Reply, World, send};
use serde_json::{Value, json};
use sqlx::PgConnection;
use statusledger::access::scope::Role;
use statusledger::id::WorkspaceId;
use statusledger::workspace::end;
use std::collections::BTreeMap;

/// Every row of a workspace, as the database has it, by table.
async fn rows(superuser: &mut PgConnection, workspace: WorkspaceId) -> BTreeMap<String, String> {
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
          WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p') AND EXISTS
                (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'workspace_id')",
    )
    .fetch_all(&mut *superuser)
    .await
    .unwrap();
    let mut rows = BTreeMap::new();
    for table in tables {
        let all = format!(
            "SELECT COALESCE(string_agg(to_jsonb(t)::text, chr(10) ORDER BY to_jsonb(t)::text), '')
               FROM {table} t WHERE workspace_id = $1"
        );
        let all: String = sqlx::query_scalar(sqlx::AssertSqlSafe(all))
            .bind(workspace.uuid())
            .fetch_one(&mut *superuser)
            .await
            .unwrap();
        rows.insert(table, all);
    }
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn lanes_fall_silent_on_every_node_when_their_workspace_ends() {
    // What is refused is tried again and again, so that there is always something that could go on.
    let world = World::with(|settings| {
        settings.access.deletion_waits_h = 0.0;
        settings.delivery.schedule_s = std::iter::once(0.0).chain([0.05; 99]).collect();
    })
    .await;
    let (second, elsewhere) = world.another().await;
    let receiver = Receiver::of(&world).await;
    receiver.behave(|_| Reply::Status(503));
    let (ending, other) = (world.workspace("ending").await, world.workspace("goes on").await);
    for (workspace, names) in [(&ending, ["ending a", "ending b"]), (&other, ["other a", "other b"])] {
        let source = workspace.inbound("events").await;
        for name in names {
            let events = json!({ "filter": { "types": ["event.*"] }, "max_in_flight": 2 });
            workspace.destination(&receiver, name, events).await;
        }
        for n in 0..3 {
            let there = crate::harness::Inbound { api: elsewhere.clone(), ..source.clone() };
            if n % 2 == 0 {
                source.event("an event").await
            } else {
                there.event("an event").await
            };
        }
    }
    let of = |hooks: &[crate::harness::Hook], whose: &str| {
        hooks.iter().filter(|hook| hook.name.starts_with(whose)).count()
    };
    let more_of_the_other = async |more: usize| {
        let before = of(&receiver.hooks(), "other");
        receiver.until("the other workspace goes on", |hooks| of(hooks, "other") >= before + more).await;
    };
    receiver.until("both are tried again", |hooks| of(hooks, "ending") > 12 && of(hooks, "other") > 12).await;

    world.api.delete(&ending.path).await.expect(202);
    assert_eq!(end::end_due(&world.node().writer).await.unwrap(), 1);
    // What was on its way when it ended arrives; after that there is nothing more, while the other's go on.
    more_of_the_other(40).await;
    let mut superuser = world.database.superuser().await;
    let (heard, before) = (of(&receiver.hooks(), "ending"), rows(&mut superuser, ending.id).await);
    more_of_the_other(80).await;
    assert_eq!(of(&receiver.hooks(), "ending"), heard, "nothing is sent any more");
    assert_eq!(rows(&mut superuser, ending.id).await, before, "nor is anything written of it");
    let lanes: Vec<Value> = before["lanes"].lines().map(|row| serde_json::from_str(row).unwrap()).collect();
    assert_eq!(lanes.len(), 2);
    for lane in lanes {
        assert_eq!((&lane["stopped"], &lane["holder"]), (&json!(true), &Value::Null), "{lane}");
    }
    let last = ending.entries().await.pop().unwrap();
    assert_eq!(last["type"], "audit.workspace.deleted", "no delivery's outcome comes after it");
    second.stop().await;
    world.assert_whole(&[&other]).await;
}

#[tokio::test]
async fn on_a_node_that_has_its_key_still_nothing_of_an_ended_workspace_is_changed() {
    let world = World::with(|settings| settings.access.deletion_waits_h = 0.0).await;
    let (second, elsewhere) = world.another().await;
    let receiver = Receiver::of(&world).await;
    let workspace = world.workspace("ending").await;
    let source = workspace.inbound("events").await;
    let destination = workspace.destination(&receiver, "hook", json!({})).await;
    let made = world.api.post(&workspace.at("/keys"), json!({ "name": "k", "scopes": ["admin"] })).await;
    let made = made.expect(201).json();
    let (key, token) = (made["id"].as_str().unwrap(), made["token"].as_str().unwrap());
    let body = json!({ "email": "open@example.com", "role": "viewer" });
    let invited = world.api.post(&workspace.at("/invitations"), body.clone()).await.expect(201).json();
    let owner = world.person("owner@example.com", &[(workspace.id, Role::Owner)]).await;
    // The second node has used all of it: it knows the source's token, the destinations, and the data key.
    let there = crate::harness::Inbound { api: elsewhere.clone(), ..source.clone() };
    there.event("heard").await;
    receiver.taken("hook", 1).await;
    destination.settled(1, "delivered").await;
    second.writer.data_keys().get(workspace.id).await.unwrap();
    let session = |method: &str, path: &str| {
        let request = elsewhere.bare(method, path).header("cookie", &owner.cookie);
        request.header("x-csrf-token", &owner.csrf)
    };
    send(session("GET", &workspace.path)).await.expect(200);

    world.api.delete(&workspace.path).await.expect(202);
    assert_eq!(end::end_due(&world.node().writer).await.unwrap(), 1);
    let mut superuser = world.database.superuser().await;
    let before = rows(&mut superuser, workspace.id).await;
    let (nothing, invitation) = (json!({}), invited["id"].as_str().unwrap());
    let of_source = format!("/sources/{}", source.id);
    let of_destination = format!("/destinations/{}", destination.id);
    let hash = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    let changes = [
        ("PATCH", String::new(), json!({ "name": "again" })),
        ("DELETE", String::new(), nothing.clone()),
        ("POST", "/restore".into(), nothing.clone()),
        ("POST", "/keys".into(), json!({ "name": "late", "scopes": ["read"] })),
        ("POST", format!("/keys/{key}/rotate"), nothing.clone()),
        ("DELETE", format!("/keys/{key}"), nothing.clone()),
        ("POST", "/invitations".into(), body),
        ("DELETE", format!("/invitations/{invitation}"), nothing.clone()),
        ("PATCH", format!("/members/{}", owner.id), json!({ "role": "admin" })),
        ("DELETE", format!("/members/{}", owner.id), nothing.clone()),
        ("POST", "/sources".into(), json!({ "kind": "inbound", "name": "late" })),
        ("DELETE", of_source.clone(), nothing.clone()),
        ("PUT", format!("{of_source}/webhook-secret"), json!({ "secret": "12345678" })),
        ("POST", format!("{of_source}/look"), nothing.clone()),
        ("POST", "/destinations".into(), json!({ "name": "late", "url": receiver.url("late") })),
        ("PATCH", of_destination.clone(), json!({ "enabled": true, "url": receiver.url("late") })),
        ("DELETE", of_destination.clone(), nothing.clone()),
        ("POST", format!("{of_destination}/test"), nothing.clone()),
        ("POST", format!("{of_destination}/rotate-secret"), nothing.clone()),
        ("POST", format!("{of_destination}/redeliver"), json!({ "from": 1, "to": 1 })),
        (
            "POST",
            "/configurations".into(),
            json!({ "sha256": hash, "planned": {}, "complete": true, "requests": [] }),
        ),
    ];
    for (method, rest, body) in &changes {
        let path = workspace.at(rest);
        let of_the_instance = send(elsewhere.request(method, &path).json(body)).await;
        assert_eq!(of_the_instance.problem(404), "not-found", "{method} {rest}");
        let of_its_own = send(elsewhere.bare(method, &path).bearer_auth(token).json(body)).await;
        assert_eq!(of_its_own.problem(401), "unauthorized", "{method} {rest}");
        assert_eq!(
            send(session(method, &path).json(body)).await.problem(404),
            "not-found",
            "{method} {rest}"
        );
    }
    assert_eq!(send(session("DELETE", &workspace.at("/membership"))).await.problem(404), "not-found");
    // Its token is known to the node for some seconds more, and there is nothing that it could write to.
    let late = there.post_once("late", "an event").await;
    assert!([401, 404].contains(&late.status), "{}", late.status);
    let after = rows(&mut superuser, workspace.id).await;
    for (table, rows) in &before {
        assert_eq!(&after[table], rows, "{table} has changed");
    }
    assert!(before["entries"].lines().count() > 5 && before["members"].is_empty());
    assert_eq!(receiver.hooks_of("late").len(), 0);
    second.stop().await;
}
