//! Refusals on the record: whose ledger, what it says, and that nobody fills another's.

use crate::harness::{Held, Workspace, World, eventually, send};
use serde_json::{Value, json};
use statusledger::access::scope::Role;
use statusledger::id::{SourceId, WorkspaceId};
use statusledger::workspace::end;
use std::collections::BTreeMap;

/// The instance's own workspace.
fn instance(world: &World) -> Workspace {
    let id = world.node().gate.instance;
    let path = format!("/v1/workspaces/{id}");
    Workspace { id, ledger: String::new(), path, api: world.api.clone() }
}

/// Waits until refusals for `reason` are on the record of `workspace`, so many in all.
async fn told(workspace: &Workspace, reason: &str, times: u64) -> Vec<Value> {
    eventually(&format!("{times} refusals for {reason}"), || async {
        let entries = workspace.entries_of("audit.access.denied").await;
        let of: Vec<Value> = entries.into_iter().filter(|e| e["data"]["reason"] == reason).collect();
        let count: u64 = of.iter().map(|e| e["data"]["details"]["count"].as_u64().unwrap()).sum();
        (count == times).then_some(of)
    })
    .await
}

async fn key(of: &Workspace, scope: &str) -> (String, String) {
    let asked = json!({ "name": "k", "scopes": [scope] });
    let made = of.api.post(&of.at("/keys"), asked).await.expect(201).json();
    (made["id"].as_str().unwrap().to_owned(), made["token"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn strangers_are_an_entry_a_reason_and_a_second_whatever_they_ask_for() {
    let world = World::new().await;
    let own = instance(&world);
    let routes = ["/v1/workspaces", "/v1/session", "/v1/passkeys", "/v1/identities", "/v1/sessions"];
    // While the ledger is held nothing can be written: what comes meanwhile is gathered.
    let held = Held::by(world.database.superuser().await, own.id).await;
    for _ in 0..20 {
        for route in routes {
            send(world.api.bare("GET", route)).await.problem(401);
        }
    }
    held.release().await;
    let entries = told(&own, "no_credentials", 100).await;
    // What was being written already, and one of all the rest.
    assert!(entries.len() <= 2, "{} entries", entries.len());
    let mut counted = BTreeMap::new();
    for entry in &entries {
        assert_eq!(entry["data"]["actor"], json!({ "type": "unknown", "id": "unknown" }));
        for (route, count) in entry["data"]["details"]["routes"].as_object().unwrap() {
            *counted.entry(route.clone()).or_insert(0) += count.as_u64().unwrap();
        }
    }
    assert_eq!(counted, routes.map(|route| (format!("GET {route}"), 20)).into());
}

#[tokio::test]
async fn who_asks_for_another_workspace_is_recorded_with_it_where_they_are_and_it_hears_nothing() {
    let world = World::new().await;
    let (ours, theirs) = (world.workspace("ours").await, world.workspace("theirs").await);
    let (id, token) = key(&ours, "read").await;
    let nowhere = format!("/v1/workspaces/{}/sources", WorkspaceId::new());
    for path in [theirs.at("/sources"), theirs.at("/sources"), nowhere] {
        send(world.api.bare("GET", &path).bearer_auth(&token)).await.problem(404);
    }
    let entries = told(&ours, "other_workspace", 3).await;
    let data = &entries[0]["data"];
    assert_eq!(data["actor"]["id"], id);
    assert_eq!(data["targets"], json!([{ "type": "workspace", "id": theirs.id.to_string() }]));
    let asked: u64 = entries.iter().map(|e| e["data"]["details"]["workspaces"].as_u64().unwrap()).sum();
    assert!(asked >= 2, "both are counted: {entries:?}");
    assert_eq!(theirs.entries_of("audit.access.denied").await, Vec::<Value>::new());
    // It is found by what was asked for.
    let found = world.api.get(&ours.at(&format!("/audit?target={}", theirs.id))).await.expect(200).json();
    assert!(!found["items"].as_array().unwrap().is_empty());
}

#[tokio::test]
async fn a_change_without_the_sessions_token_names_the_person_and_their_workspace_hears_it() {
    let world = World::new().await;
    let workspace = world.workspace("theirs").await;
    let person = world.person("ana@example.com", &[(workspace.id, Role::Admin)]).await;
    let change = |path: String| {
        let request = world.api.bare("POST", &path).header("cookie", person.cookie.as_str());
        send(request.json(&json!({ "name": "never", "scopes": ["read"] })))
    };
    assert_eq!(change(workspace.at("/keys")).await.problem(403), "csrf");
    let entries = told(&workspace, "csrf", 1).await;
    let data = &entries[0]["data"];
    assert_eq!(data["actor"], json!({ "type": "user", "id": person.id.to_string() }));
    assert!(data["sealed"]["actor_display"].is_string(), "{data}");
    assert_eq!(data["targets"], json!([{ "type": "workspace", "id": workspace.id.to_string() }]));
    // Where they are no member nobody hears it but the instance.
    let other = world.workspace("another").await;
    assert_eq!(change(other.at("/keys")).await.problem(403), "csrf");
    let entries = told(&instance(&world), "csrf", 1).await;
    assert_eq!(entries[0]["data"]["actor"]["id"], person.id.to_string());
    assert_eq!(other.entries_of("audit.access.denied").await, Vec::<Value>::new());
}

#[tokio::test]
async fn refusals_of_a_deleted_workspaces_key_are_in_the_instances_ledger() {
    let world = World::with(|settings| settings.access.deletion_waits_h = 0.0).await;
    let (workspace, bystander) = (world.workspace("ended").await, world.workspace("bystander").await);
    let (id, token) = key(&workspace, "read").await;
    world.api.delete(&workspace.path).await.expect(202);
    assert_eq!(end::end_due(&world.node().writer).await.unwrap(), 1);
    for path in ["/sources", "/destinations", "/entries", "/sources", "/subjects"] {
        send(world.api.bare("GET", &workspace.at(path)).bearer_auth(&token)).await.problem(401);
    }
    let entries = told(&instance(&world), "revoked", 5).await;
    for entry in &entries {
        assert_eq!(entry["data"]["actor"]["id"], id);
        assert_eq!(entry["data"]["targets"][0]["id"], workspace.id.to_string());
        assert_eq!(entry["data"]["details"].get("not_recorded_before"), None, "none was lost");
    }
    // Refused by its scope it is not looked up before; it belongs there all the same.
    send(world.api.bare("POST", &workspace.at("/sources")).bearer_auth(&token)).await.problem(403);
    assert_eq!(told(&instance(&world), "scope", 1).await[0]["data"]["actor"]["id"], id);
    assert_eq!(bystander.entries_of("audit.access.denied").await, Vec::<Value>::new());
}

#[tokio::test]
async fn what_is_refused_at_an_inbound_door_is_on_the_record_of_the_sources_workspace() {
    let world = World::new().await;
    let workspace = world.workspace("inbound").await;
    let (source, other) = (workspace.inbound("one").await, workspace.inbound("two").await);
    let apple = json!({ "kind": "app_store", "name": "store", "webhook_secret": "12345678" });
    let apple = world.api.post(&workspace.at("/sources"), apple).await.expect(201).json();
    let apple = apple["id"].as_str().unwrap().to_owned();
    let door = format!("/in/{}", source.id);
    let post = |path: String, token: Option<String>| {
        let request = world.api.bare("POST", &path).body("an event");
        send(token.iter().fold(request, |request, token| request.bearer_auth(token)))
    };
    assert_eq!(post(door.clone(), None).await.problem(401), "unauthorized");
    for token in [format!("{}x", source.token), other.token.clone(), "nonsense".to_owned()] {
        assert_eq!(post(door.clone(), Some(token)).await.problem(401), "unauthorized");
    }
    let signed = format!("/in/{apple}/app-store-connect");
    assert_eq!(post(signed.clone(), None).await.problem(401), "unauthorized");
    let forged = world.api.bare("POST", &signed).header("x-apple-signature", "hmacsha256=00").body("{}");
    assert_eq!(send(forged).await.problem(401), "unauthorized");
    for (reason, times, source) in [
        ("no_credentials", 1, source.id.to_string()),
        ("unknown_token", 3, source.id.to_string()),
        ("unsigned", 2, apple.clone()),
    ] {
        for entry in told(&workspace, reason, times).await {
            let data = &entry["data"];
            assert_eq!(data["targets"], json!([{ "type": "source", "id": source }]));
            assert_eq!(data["actor"]["type"], "unknown");
            let mut routes = data["details"]["routes"].as_object().unwrap().keys();
            assert!(routes.all(|route| route.starts_with("POST /in/{source}")), "{data}");
        }
    }
    // A source that there is not is the instance's business, and one aggregate.
    for _ in 0..3 {
        post(format!("/in/{}", SourceId::new()), Some(source.token.clone())).await.problem(401);
    }
    for entry in told(&instance(&world), "unknown_token", 3).await {
        assert_eq!(entry["data"]["targets"], json!([]));
    }
    assert_eq!(source.post("and who has the token is heard").await.status, 202);
    world.assert_whole(&[&workspace]).await;
}

#[tokio::test]
async fn an_aggregate_says_from_how_many_addresses_it_came_and_none_of_them_in_clear() {
    let world = World::with(|settings| settings.trusted_proxies = vec!["127.0.0.0/8".into()]).await;
    let own = instance(&world);
    let held = Held::by(world.database.superuser().await, own.id).await;
    for n in 0..60 {
        let request = world.api.bare("GET", "/v1/workspaces");
        send(request.header("x-forwarded-for", format!("203.0.113.{}", n % 30))).await.problem(401);
    }
    held.release().await;
    let entries = told(&own, "no_credentials", 60).await;
    let most = entries.iter().map(|e| e["data"]["details"]["addresses"].as_u64().unwrap_or(1)).max().unwrap();
    // Wherever they were cut in two (what was being written already, and the rest), one part has them all.
    assert!(entries.len() <= 2 && most == 30, "{entries:?}");
    assert!(entries.iter().all(|entry| !entry.to_string().contains("203.0.113.")), "{entries:?}");
}

#[tokio::test]
async fn what_a_session_is_refused_in_one_workspace_is_told_there_whatever_else_it_asked_for() {
    let world = World::new().await;
    let (one, other) = (world.workspace("one").await, world.workspace("other").await);
    let person = world.person("v@example.com", &[(one.id, Role::Admin), (other.id, Role::Admin)]).await;
    let forged = |workspace: &str| {
        send(
            world.api.bare("PATCH", workspace).header("cookie", &person.cookie).json(&json!({ "name": "x" })),
        )
    };
    // Nobody's first, so that what follows would be counted with it.
    let nobodys = format!("/v1/workspaces/{}", WorkspaceId::new());
    for (workspace, times) in [(&nobodys, 1), (&other.path, 2), (&one.path, 10)] {
        for _ in 0..times {
            assert_eq!(forged(workspace).await.problem(403), "csrf");
        }
    }
    for (workspace, times) in [(&one, 10), (&other, 2)] {
        for entry in told(workspace, "csrf", times).await {
            let target = json!([{ "type": "workspace", "id": workspace.id.to_string() }]);
            assert_eq!(entry["data"]["targets"], target);
            assert_eq!(entry["data"]["details"]["workspaces"], 1);
        }
    }
    told(&instance(&world), "csrf", 1).await;
}

#[tokio::test]
async fn sources_that_somebody_makes_up_take_no_place_of_one_that_there_is() {
    let mut world = World::new().await;
    let workspace = world.workspace("guessed").await;
    let source = workspace.inbound("events").await;
    // A node that has not met it yet.
    world.stop().await;
    world.start().await.unwrap();
    let knock = |source: SourceId| {
        send(
            world
                .api
                .bare("POST", &format!("/in/{source}"))
                .bearer_auth(format!("sl_in_{}_x", source.uuid())),
        )
    };
    let flood = futures_util::future::join_all((0..600).map(|_| knock(SourceId::new()))).await;
    assert!(flood.iter().all(|answer| answer.status == 401));
    for _ in 0..5 {
        knock(source.id).await.problem(401);
    }
    for entry in told(&workspace, "unknown_token", 5).await {
        assert_eq!(entry["data"]["targets"], json!([{ "type": "source", "id": source.id.to_string() }]));
    }
}
