//! Who may not any more when their change is committed: it is not made. Every change here was let in by the door, waits
//! for the head of a ledger, and meanwhile what it was let in with ends.

use crate::conditions::{in_order, waiting};
use crate::harness::{Answer, Api, DEADLINE, Held, Person, Workspace, World, eventually, send};
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use statusledger::access::context::{RequestContext, Surface};
use statusledger::access::scope::Role;
use statusledger::audit::{Act, Action, Actor, Outcome};
use statusledger::id::WorkspaceId;
use statusledger::ledger::append;
use std::time::Instant;

/// A request in somebody's session.
fn by(world: &World, person: &Person, method: &str, path: &str) -> RequestBuilder {
    let request = world.api.bare(method, path).header("cookie", &person.cookie);
    request.header("x-csrf-token", &person.csrf)
}

fn key(name: &str) -> Value {
    json!({ "name": name, "scopes": ["ledger:read"] })
}

/// Makes a key; its path and a client with it.
async fn client(world: &World, workspace: &str, body: Value) -> (String, Api) {
    let made = world.api.post(&format!("{workspace}/keys"), body).await.expect(201).json();
    let path = format!("{workspace}/keys/{}", made["id"].as_str().unwrap());
    (path, Api::new(world.node().address, made["token"].as_str().unwrap()))
}

/// Sends a change to a ledger whose head somebody holds, does `meanwhile` once it waits there, and lets it go.
async fn while_it_waits(
    world: &World,
    of: WorkspaceId,
    change: RequestBuilder,
    meanwhile: impl Future<Output = ()>,
) -> Answer {
    let mut watcher = world.database.superuser().await;
    let held = Held::by(world.database.superuser().await, of).await;
    let before = waiting(&mut watcher).await;
    let answer = tokio::spawn(send(change));
    let end = Instant::now() + DEADLINE;
    while waiting(&mut watcher).await <= before {
        tokio::task::yield_now().await;
        assert!(Instant::now() < end, "it never waits for the head");
        assert!(!answer.is_finished(), "it does not wait for the head");
    }
    meanwhile.await;
    held.release().await;
    answer.await.unwrap()
}

async fn keys_of(world: &World, workspace: &Workspace) -> Vec<String> {
    let listed = world.api.get(&workspace.at("/keys")).await.expect(200).json();
    listed["items"].as_array().unwrap().iter().map(|k| k["name"].as_str().unwrap().to_owned()).collect()
}

/// Waits for a refusal on the record of a workspace, by reason and route.
async fn on_the_record(world: &World, workspace: &str, reason: &str, route: &str) -> Value {
    let path = format!("{workspace}/entries?limit=1000&type=audit.access.denied");
    eventually(&format!("{reason} of {route} on the record"), || async {
        let entries = world.api.get(&path).await.expect(200).json()["items"].clone();
        entries.as_array().unwrap().iter().map(|e| e["data"].clone()).find(|data| {
            data["reason"] == reason && data["details"]["route"] == route && data["details"]["count"] == 1
        })
    })
    .await
}

#[tokio::test]
async fn a_key_that_ends_while_its_change_waits_changes_nothing() {
    let world = World::new().await;
    let workspace = world.workspace("keys").await;
    let keys = workspace.at("/keys");
    let admin = json!({ "name": "admin", "scopes": ["admin"] });

    // Revoked, and replaced at once: in the same ledger, so one comes after the other.
    let (path, thief) = client(&world, &workspace.path, admin.clone()).await;
    let requests =
        vec![world.api.request("DELETE", &path), thief.request("POST", &keys).json(&key("after revocation"))];
    let answers = in_order(&world, workspace.id, requests).await;
    assert_eq!((answers[0].status, answers[1].problem(401).as_str()), (204, "unauthorized"));
    let denied =
        on_the_record(&world, &workspace.path, "revoked", "POST /v1/workspaces/{workspace}/keys").await;
    assert_eq!(denied["outcome"], "denied");
    assert_eq!(denied["actor"]["id"], path.rsplit('/').next().unwrap());
    let (path, thief) = client(&world, &workspace.path, admin.clone()).await;
    let rotate = world.api.request("POST", &format!("{path}/rotate")).json(&json!({ "overlap_s": 0 }));
    let requests = vec![rotate, thief.request("POST", &keys).json(&key("after rotation"))];
    let answers = in_order(&world, workspace.id, requests).await;
    assert_eq!((answers[0].status, answers[1].problem(401).as_str()), (201, "unauthorized"));

    // Its time is over.
    let (_, thief) = client(&world, &workspace.path, admin.clone()).await;
    let change = thief.request("POST", &keys).json(&key("after its end"));
    let answer = while_it_waits(&world, workspace.id, change, async {
        sqlx::query("UPDATE api_keys SET expires_at = now() WHERE workspace_id = $1")
            .bind(workspace.id.uuid())
            .execute(&mut world.database.superuser().await)
            .await
            .unwrap();
    })
    .await;
    assert_eq!(answer.problem(401), "unauthorized");
    on_the_record(&world, &workspace.path, "expired", "POST /v1/workspaces/{workspace}/keys").await;

    // One of the instance's, which is revoked in another ledger.
    let instance = format!("/v1/workspaces/{}", world.node().gate.instance);
    let mut everywhere = admin.clone();
    everywhere["instance"] = true.into();
    let (path, thief) = client(&world, &instance, everywhere.clone()).await;
    let change = thief.request("POST", &keys).json(&key("after the end of one of the instance's"));
    let answer = while_it_waits(&world, workspace.id, change, async {
        world.api.delete(&path).await.expect(204);
    })
    .await;
    assert_eq!(answer.problem(401), "unauthorized");
    // Under a condition it is the same.
    let (path, thief) = client(&world, &instance, everywhere).await;
    let change =
        thief.request("PATCH", &workspace.path).header("if-match", "*").json(&json!({ "name": "late" }));
    let answer = while_it_waits(&world, workspace.id, change, async {
        world.api.delete(&path).await.expect(204);
    })
    .await;
    assert_eq!(answer.problem(401), "unauthorized");
    assert_eq!(world.api.get(&workspace.path).await.expect(200).json()["name"], "keys");

    // And a key that is good changes what it did.
    let (_, good) = client(&world, &workspace.path, admin).await;
    let answer =
        while_it_waits(&world, workspace.id, good.request("POST", &keys).json(&key("in time")), async {})
            .await;
    assert_eq!(answer.status, 201);
    let made = keys_of(&world, &workspace).await;
    assert!(
        !made.iter().any(|name| name.starts_with("after")) && made.contains(&"in time".to_owned()),
        "{made:?}"
    );
    world.assert_whole(&[&workspace]).await;
}

#[tokio::test]
async fn a_change_that_waits_for_a_workspace_that_ends_is_not_made() {
    let world = World::new().await;
    let workspace = world.workspace("ending").await;
    let change = world.api.request("POST", &workspace.at("/keys")).json(&key("late"));
    let answer = while_it_waits(&world, workspace.id, change, async {
        // As another node ends it: this one still has the data key.
        sqlx::query("UPDATE workspaces SET deleted_at = now() WHERE workspace_id = $1")
            .bind(workspace.id.uuid())
            .execute(&mut world.database.superuser().await)
            .await
            .unwrap();
    })
    .await;
    assert_eq!(answer.problem(404), "not-found");
    assert!(keys_of(&world, &workspace).await.is_empty());
}

#[tokio::test]
async fn a_person_who_may_not_any_more_when_their_change_is_made_does_not_make_it() {
    let world = World::new().await;
    let workspace = world.workspace("people").await;
    let keys = workspace.at("/keys");
    let route = "POST /v1/workspaces/{workspace}/keys";
    let instance = format!("/v1/workspaces/{}", world.node().gate.instance);
    let owner = |name: &'static str| world.person_of(name, workspace.id, Role::Owner);
    owner("who stays").await;

    // Removed.
    let person = owner("removed").await;
    let requests = vec![
        world.api.request("DELETE", &workspace.at(&format!("/members/{}", person.id))),
        by(&world, &person, "POST", &keys).json(&key("after removal")),
    ];
    let answers = in_order(&world, workspace.id, requests).await;
    assert_eq!((answers[0].status, answers[1].problem(404).as_str()), (200, "not-found"));
    on_the_record(&world, &instance, "other_workspace", route).await;

    // Another role.
    let person = owner("demoted").await;
    let demote = json!({ "role": "viewer" });
    let requests = vec![
        world.api.request("PATCH", &workspace.at(&format!("/members/{}", person.id))).json(&demote),
        by(&world, &person, "POST", &keys).json(&key("after demotion")),
    ];
    let answers = in_order(&world, workspace.id, requests).await;
    assert_eq!((answers[0].status, answers[1].problem(403).as_str()), (204, "role"));
    let denied = on_the_record(&world, &workspace.path, "role", route).await;
    assert_eq!(denied["actor"]["id"], person.id.to_string());

    // Signed out, and kept out: in the instance's ledger.
    let person = owner("signed out").await;
    let change = by(&world, &person, "POST", &keys).json(&key("after sign-out"));
    let answer = while_it_waits(&world, workspace.id, change, async {
        send(by(&world, &person, "DELETE", "/v1/session")).await.expect(204);
    })
    .await;
    assert_eq!(answer.problem(401), "unauthorized");
    let person = owner("disabled").await;
    let change = by(&world, &person, "POST", &keys).json(&key("after that"));
    let answer = while_it_waits(&world, workspace.id, change, async {
        let path = format!("/v1/people/{}", person.id);
        world.api.patch(&path, json!({ "disabled": true })).await.expect(200);
    })
    .await;
    assert_eq!(answer.problem(401), "unauthorized");
    // A change of one's own: a session that has ended ends no other.
    let person = owner("own").await;
    let path = format!("/v1/sessions/{}", person.session);
    let requests = vec![by(&world, &person, "DELETE", "/v1/session"), by(&world, &person, "DELETE", &path)];
    let answers = in_order(&world, world.node().gate.instance, requests).await;
    assert_eq!(answers[0].status, 204);
    assert!([401, 404].contains(&answers[1].status), "{:?}", answers[1]);

    // Passkeys are asked for.
    let person = owner("without a passkey").await;
    let requests = vec![
        world.api.request("PATCH", &workspace.path).json(&json!({ "passkey_required": true })),
        by(&world, &person, "PATCH", &workspace.path).json(&json!({ "name": "after that" })),
    ];
    let answers = in_order(&world, workspace.id, requests).await;
    assert_eq!((answers[0].status, answers[1].problem(403).as_str()), (200, "passkey-required"));
    assert!(keys_of(&world, &workspace).await.is_empty());
    assert_eq!(world.api.get(&workspace.path).await.expect(200).json()["name"], "people");
}

#[tokio::test]
async fn of_two_owners_who_demote_each_other_at_once_one_stays() {
    let world = World::new().await;
    let workspace = world.workspace("owners").await;
    let [a, b] =
        [world.person_of("a", workspace.id, Role::Owner), world.person_of("b", workspace.id, Role::Owner)];
    let (a, b) = (a.await, b.await);
    world.person_of("c", workspace.id, Role::Owner).await;
    let member = |person: &Person| workspace.at(&format!("/members/{}", person.id));
    let admin = json!({ "role": "admin" });
    let requests = vec![
        by(&world, &a, "PATCH", &member(&b)).json(&admin),
        by(&world, &b, "PATCH", &member(&a)).json(&admin),
    ];
    let answers = in_order(&world, workspace.id, requests).await;
    assert_eq!((answers[0].status, answers[1].problem(403).as_str()), (204, "role"));
    let roles = || async {
        let listed = world.api.get(&workspace.at("/members")).await.expect(200).json();
        let role = |person: &Person| {
            let mut all = listed["items"].as_array().unwrap().iter();
            all.find(|m| m["user"] == person.id.to_string()).map(|m| m["role"].as_str().unwrap().to_owned())
        };
        (role(&a), role(&b))
    };
    assert_eq!(roles().await, (Some("owner".into()), Some("admin".into())));
    // Likewise removals, of two administrators.
    let path = member(&a);
    world.api.patch(&path, admin).await.expect(204);
    let requests = vec![by(&world, &b, "DELETE", &member(&a)), by(&world, &a, "DELETE", &member(&b))];
    let answers = in_order(&world, workspace.id, requests).await;
    assert_eq!((answers[0].status, answers[1].status), (200, 404));
    assert_eq!(roles().await, (None, Some("admin".into())));
}

#[tokio::test]
async fn an_answer_is_heard_again_only_by_who_may_still_do_as_much() {
    let world = World::new().await;
    let workspace = world.workspace("heard").await;
    let person = world.person_of("ana", workspace.id, Role::Owner).await;
    world.person_of("ben", workspace.id, Role::Owner).await;
    let make = || {
        let request = by(&world, &person, "POST", &workspace.at("/keys")).header("idempotency-key", "once");
        request.json(&json!({ "name": "all", "scopes": ["admin"] }))
    };
    let first = send(make()).await.expect(201);
    let role = |role: &'static str| {
        let path = workspace.at(&format!("/members/{}", person.id));
        let api = &world.api;
        async move { api.patch(&path, json!({ "role": role })).await.expect(204) }
    };
    // Afresh they could not make it, and an administrator passes the door.
    role("admin").await;
    let again = send(make()).await;
    assert_eq!(again.problem(403), "role");
    assert!(!again.text().contains("sl_admin"));
    on_the_record(&world, &workspace.path, "beyond", "POST /v1/workspaces/{workspace}/keys").await;
    role("owner").await;
    let again = send(make()).await.expect(201);
    assert_eq!(again.body, first.body);
    assert_eq!(again.headers["idempotency-replayed"], "true");

    // Whoever lost their role in between is told so, and may try again under the same key once they have it.
    let late = || {
        let request = by(&world, &person, "POST", &workspace.at("/keys")).header("idempotency-key", "late");
        request.json(&key("late"))
    };
    let path = workspace.at(&format!("/members/{}", person.id));
    let requests = vec![world.api.request("PATCH", &path).json(&json!({ "role": "admin" })), late()];
    let answers = in_order(&world, workspace.id, requests).await;
    assert_eq!((answers[0].status, answers[1].problem(403).as_str()), (204, "role"));
    role("owner").await;
    let made = send(late()).await.expect(201);
    assert!(!made.headers.contains_key("idempotency-replayed"));
}

#[tokio::test]
async fn what_somebody_does_whom_nobody_let_in_is_not_recorded() {
    let world = World::new().await;
    let workspace = world.workspace("unsaid").await;
    let person = world.person_of("ana", workspace.id, Role::Owner).await;
    let writer = &world.node().writer;
    for actor in [
        Actor::User(person.id),
        Actor::Session(person.session),
        Actor::Key("key_0199b1c4-0000-7000-8000-000000000001".parse().unwrap()),
    ] {
        let act = Act::new(actor, Surface::Api, RequestContext::none());
        let changed = act.of(Action::KeyRevoked).draft().unwrap();
        let mut locked = writer.lock(workspace.id).await.unwrap();
        let refused = locked.append(std::slice::from_ref(&changed)).await.unwrap_err();
        assert!(matches!(refused, append::Error::Terms(_)), "{actor}: {refused}");
        drop(locked);
        // Nor without the lock.
        let refused = writer.append(workspace.id, changed).await.unwrap_err();
        assert!(matches!(refused, append::Error::Terms(_)), "{actor}: {refused}");
        // That they were refused is recorded.
        let denied = act.of(Action::AccessDenied).outcome(Outcome::Denied, "scope").draft().unwrap();
        let mut locked = writer.lock(workspace.id).await.unwrap();
        locked.append(&[denied]).await.unwrap();
        locked.commit().await.unwrap();
    }
    assert_eq!(workspace.entries_of("audit.key.revoked").await.len(), 0);
    assert_eq!(workspace.entries_of("audit.access.denied").await.len(), 3);
}
