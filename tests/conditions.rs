//! `If-Match` and `Idempotency-Key`, held where the change is committed: between nodes, against changes without a
//! condition, and over what goes wrong in between.

use crate::harness::{Answer, Held, Receiver, Workspace, World, eventually, send};
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use statusledger::access::scope::Role;
use statusledger::id::WorkspaceId;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Longer than anything here takes.
const DEADLINE: Duration = Duration::from_secs(60);

/// The tag of what is at `path`.
async fn tag(world: &World, path: &str) -> String {
    world.api.get(path).await.expect(200).headers["etag"].to_str().unwrap().to_owned()
}

/// How many wait for a lock in this database.
pub async fn waiting(watcher: &mut PgConnection) -> i64 {
    sqlx::query_scalar(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
    )
    .fetch_one(watcher)
    .await
    .unwrap()
}

/// Waits until so many wait for a lock.
async fn until_waiting(watcher: &mut PgConnection, least: i64) {
    let end = Instant::now() + DEADLINE;
    while waiting(watcher).await < least {
        assert!(Instant::now() < end, "fewer than {least} wait for a lock");
        tokio::task::yield_now().await;
    }
}

/// Sends the requests one after another to a ledger whose head somebody holds, each as soon as the one before waits for
/// it, then lets them go: what each changes is committed in this order, and each has compared before the first was.
pub async fn in_order(world: &World, of: WorkspaceId, requests: Vec<RequestBuilder>) -> Vec<Answer> {
    let mut watcher = world.database.superuser().await;
    let held = Held::by(world.database.superuser().await, of).await;
    let mut answers = Vec::new();
    for request in requests {
        let before = waiting(&mut watcher).await;
        answers.push(tokio::spawn(send(request)));
        until_waiting(&mut watcher, before + 1).await;
    }
    held.release().await;
    let mut out = Vec::new();
    for answer in answers {
        out.push(answer.await.unwrap());
    }
    out
}

#[tokio::test]
async fn a_change_that_nobody_saw_is_not_overwritten_whichever_node_took_it() {
    let world = World::new().await;
    let (other, elsewhere) = world.another().await;
    let workspace = world.workspace("between").await;
    let receiver = Receiver::of(&world).await;
    let destination = workspace.destination(&receiver, "hook", json!({})).await;
    let seen = tag(&world, &destination.path).await;
    let named = |name: &str| json!({ "name": name });
    // Another node changes it without a condition, after the comparison and before the change.
    let requests = vec![
        elsewhere.request("PATCH", &destination.path).json(&named("theirs")),
        world.api.request("PATCH", &destination.path).header("if-match", &seen).json(&named("ours")),
    ];
    let answers = in_order(&world, workspace.id, requests).await;
    assert_eq!(answers[0].status, 200);
    assert_eq!(answers[1].problem(412), "precondition-failed");
    assert_eq!(destination.read().await["name"], "theirs");
    // Both under a condition, each on its own node.
    let seen = tag(&world, &destination.path).await;
    let requests = vec![
        elsewhere.request("PATCH", &destination.path).header("if-match", &seen).json(&named("first")),
        world.api.request("PATCH", &destination.path).header("if-match", &seen).json(&named("second")),
    ];
    let answers = in_order(&world, workspace.id, requests).await;
    assert_eq!((answers[0].status, answers[1].status), (200, 412));
    assert_eq!(destination.read().await["name"], "first");
    // What another changes elsewhere in the workspace is compared again, and keeps nobody back.
    let seen = tag(&world, &destination.path).await;
    let key = json!({ "name": "unrelated", "scopes": ["read"] });
    let requests = vec![
        elsewhere.request("POST", &workspace.at("/keys")).json(&key),
        world.api.request("PATCH", &destination.path).header("if-match", &seen).json(&named("ours")),
    ];
    let answers = in_order(&world, workspace.id, requests).await;
    assert_eq!((answers[0].status, answers[1].status), (201, 200));
    assert_eq!(destination.read().await["name"], "ours");
    world.assert_whole(&[&workspace]).await;
    other.stop().await;
}

#[tokio::test]
async fn a_destination_that_the_service_disables_meanwhile_is_not_enabled_unseen() {
    let world = World::new().await;
    let workspace = world.workspace("disabled").await;
    let receiver = Receiver::of(&world).await;
    let destination = workspace.destination(&receiver, "hook", json!({})).await;
    let seen = tag(&world, &destination.path).await;
    // As the dispatcher does it: under the head's lock, with the routes counted up and an entry that is no act.
    let mut holder = world.database.superuser().await;
    let mut watcher = world.database.superuser().await;
    let mut held = holder.begin().await.unwrap();
    for statement in [
        "UPDATE heads SET routes = routes + 1 WHERE workspace_id = $1",
        "UPDATE destinations SET disabled_at = now(), disabled_reason = 'gone' WHERE workspace_id = $1",
    ] {
        sqlx::query(statement).bind(workspace.id.uuid()).execute(&mut *held).await.unwrap();
    }
    let change = world.api.request("PATCH", &destination.path).header("if-match", &seen);
    let answer = tokio::spawn(send(change.json(&json!({ "enabled": true }))));
    until_waiting(&mut watcher, 1).await;
    held.commit().await.unwrap();
    assert_eq!(answer.await.unwrap().problem(412), "precondition-failed");
    assert_eq!(destination.read().await["disabled_reason"], "gone");
}

/// A change under a condition, and another that is committed between its comparison and itself.
struct Between {
    /// Whose head both take.
    ledger: WorkspaceId,
    meanwhile: RequestBuilder,
    change: RequestBuilder,
    /// What of the change has to come.
    verdict: u16,
}

struct Scene {
    world: World,
    receiver: Receiver,
}

impl Scene {
    /// For a route whose address can be read; none for another.
    async fn between(&self, route: &str) -> Option<Between> {
        let (world, api) = (&self.world, &self.world.api);
        let workspace: Workspace = world.workspace(&uuid::Uuid::now_v7().to_string()).await;
        let (method, _) = route.split_once(' ').unwrap();
        let change = |path: &str, tag: String| api.request(method, path).header("if-match", tag);
        let ledger = workspace.id;
        Some(match route {
            "PATCH /v1/workspaces/{workspace}" | "DELETE /v1/workspaces/{workspace}" => {
                let tag = tag(world, &workspace.path).await;
                let name = || uuid::Uuid::now_v7().to_string();
                let meanwhile = api.request("PATCH", &workspace.path).json(&json!({ "name": name() }));
                let change = change(&workspace.path, tag).json(&json!({ "name": name() }));
                Between { ledger, meanwhile, change, verdict: 412 }
            }
            "DELETE /v1/workspaces/{workspace}/keys/{key}" => {
                let body = json!({ "name": "k", "scopes": ["read"] });
                let made = api.post(&workspace.at("/keys"), body).await.expect(201).json();
                let path = workspace.at(&format!("/keys/{}", made["id"].as_str().unwrap()));
                let meanwhile = api.request("POST", &format!("{path}/rotate")).json(&json!({}));
                Between { ledger, meanwhile, change: change(&path, tag(world, &path).await), verdict: 412 }
            }
            // Nothing of a source's configuration can be changed: an act that changes nothing that is shown.
            "DELETE /v1/workspaces/{workspace}/sources/{source}" => {
                let source = workspace.inbound("s").await;
                let path = workspace.at(&format!("/sources/{}", source.id));
                let meanwhile = api.request("POST", &format!("{path}/look"));
                Between { ledger, meanwhile, change: change(&path, tag(world, &path).await), verdict: 204 }
            }
            "PATCH /v1/workspaces/{workspace}/destinations/{destination}"
            | "DELETE /v1/workspaces/{workspace}/destinations/{destination}" => {
                let path = workspace.destination(&self.receiver, "d", json!({})).await.path;
                let meanwhile = api.request("PATCH", &path).json(&json!({ "openings": false }));
                let change = change(&path, tag(world, &path).await).json(&json!({ "name": "changed" }));
                Between { ledger, meanwhile, change, verdict: 412 }
            }
            "PATCH /v1/people/{user}" => {
                let person = world.person(&format!("{}@example.com", uuid::Uuid::now_v7()), &[]).await;
                let path = format!("/v1/people/{}", person.id);
                let disable = || api.request(method, &path).json(&json!({ "disabled": true }));
                let change = disable().header("if-match", tag(world, &path).await);
                // What is so already is no change, and is compared all the same.
                Between { ledger: world.node().gate.instance, meanwhile: disable(), change, verdict: 412 }
            }
            "DELETE /v1/session" => {
                let person = world.person(&format!("{}@example.com", uuid::Uuid::now_v7()), &[]).await;
                let asks = |method: &str, path: &str| {
                    let request = api.bare(method, path).header("cookie", &person.cookie);
                    request.header("x-csrf-token", &person.csrf)
                };
                let shown = send(asks("GET", "/v1/session")).await.expect(200);
                let change =
                    asks("DELETE", "/v1/session").header("if-match", shown.headers["etag"].to_str().unwrap());
                // Nothing that a session shows is changed while it lasts: an act of the instance's ledger.
                let ledger = world.node().gate.instance;
                let meanwhile = api.request("POST", &format!("/v1/workspaces/{ledger}/keys"));
                let meanwhile = meanwhile.json(&json!({ "name": "k", "scopes": ["read"] }));
                Between { ledger, meanwhile, change, verdict: 204 }
            }
            _ => return None,
        })
    }

    /// For the others: a change that would be carried out without a condition, and what comes of it with one.
    async fn unreadable(&self, route: &str) -> Option<(RequestBuilder, u16)> {
        let (world, api) = (&self.world, &self.world.api);
        let workspace = world.workspace(&uuid::Uuid::now_v7().to_string()).await;
        let email = format!("{}@example.com", uuid::Uuid::now_v7());
        let person = world.person(&email, &[(workspace.id, Role::Viewer)]).await;
        let (method, _) = route.split_once(' ').unwrap();
        let signed_in = |path: &str| {
            let request = api.bare(method, path).header("cookie", &person.cookie);
            request.header("x-csrf-token", &person.csrf)
        };
        Some(match route {
            "PATCH /v1/workspaces/{workspace}/members/{user}"
            | "DELETE /v1/workspaces/{workspace}/members/{user}" => {
                let path = workspace.at(&format!("/members/{}", person.id));
                (api.request(method, &path).json(&json!({ "role": "admin" })), 412)
            }
            "DELETE /v1/workspaces/{workspace}/invitations/{invitation}" => {
                let body = json!({ "email": "x@example.com", "role": "viewer" });
                let made = api.post(&workspace.at("/invitations"), body).await.expect(201).json();
                let path = workspace.at(&format!("/invitations/{}", made["id"].as_str().unwrap()));
                (api.request(method, &path), 412)
            }
            "PUT /v1/workspaces/{workspace}/sources/{source}/webhook-secret" => {
                let body = json!({ "kind": "app_store", "name": "told", "webhook_secret": "12345678" });
                let made = api.post(&workspace.at("/sources"), body).await.expect(201).json();
                let path = workspace.at(&format!("/sources/{}/webhook-secret", made["id"].as_str().unwrap()));
                (api.request(method, &path).json(&json!({ "secret": null })), 412)
            }
            // That it is compared where there is one: tests/source_keys.rs has the stores for it.
            "PUT /v1/workspaces/{workspace}/sources/{source}/key" => {
                let path = workspace.at("/sources/src_0199b1c4-0000-7000-8000-000000000001/key");
                let private_key = rcgen::KeyPair::generate().unwrap().serialize_pem();
                let issuer = uuid::Uuid::now_v7();
                let credentials =
                    json!({ "key_id": "ABCDEF1234", "issuer_id": issuer, "private_key": private_key });
                let body = json!({ "kind": "app_store", "credentials": credentials });
                (api.request(method, &path).json(&body), 404)
            }
            "DELETE /v1/sessions/{session}" => (signed_in(&format!("/v1/sessions/{}", person.session)), 412),
            "DELETE /v1/identities/{provider}/{identity}" => {
                (signed_in("/v1/identities/x/idn_0199b1c4-0000-7000-8000-000000000001"), 404)
            }
            // A viewer leaves.
            "DELETE /v1/workspaces/{workspace}/membership" => (signed_in(&workspace.at("/membership")), 412),
            // They have none, and hear that.
            "DELETE /v1/passkeys/{passkey}" => {
                (signed_in("/v1/passkeys/pk_0199b1c4-0000-7000-8000-000000000001"), 404)
            }
            _ => return None,
        })
    }

    /// Everything that an act writes.
    async fn acts(&self) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM audit_index WHERE action <> 'access.denied'")
            .fetch_one(&mut self.world.database.superuser().await)
            .await
            .unwrap()
    }
}

#[tokio::test]
async fn no_route_that_takes_a_condition_changes_anything_that_it_did_not_compare() {
    let world = World::new().await;
    let receiver = Receiver::of(&world).await;
    let document = world.api.get("/openapi.json").await.expect(200).json();
    let takes = |operation: &Value| {
        let mut parameters = operation["parameters"].as_array().into_iter().flatten();
        parameters.any(|parameter| parameter["name"] == "If-Match")
    };
    let mut routes = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let changes = ["patch", "put", "delete"].contains(&method.as_str());
            assert_eq!(takes(operation), changes, "{method} {path}");
            if changes {
                routes.insert(format!("{} {path}", method.to_uppercase()));
            }
        }
    }
    assert!(routes.len() > 10);
    let scene = Scene { world, receiver };
    for route in routes {
        if let Some(Between { ledger, meanwhile, change, verdict }) = scene.between(&route).await {
            let answers = in_order(&scene.world, ledger, vec![meanwhile, change]).await;
            assert!((200..300).contains(&answers[0].status), "{route}: {:?}", answers[0]);
            assert_eq!(answers[1].status, verdict, "{route}: {:?}", answers[1]);
            // And what is as it was read is changed.
            let undisturbed = scene.between(&route).await.unwrap().change;
            let answer = send(undisturbed).await;
            assert!((200..300).contains(&answer.status), "{route}: {answer:?}");
            continue;
        }
        let (change, verdict) =
            scene.unreadable(&route).await.unwrap_or_else(|| panic!("{route} is not tried"));
        let before = scene.acts().await;
        let answer = send(change.header("if-match", "*")).await;
        assert_eq!(answer.status, verdict, "{route}: {answer:?}");
        assert_eq!(scene.acts().await, before, "{route}");
    }
}

#[tokio::test]
async fn an_end_that_was_asked_for_before_is_compared_too() {
    let world = World::new().await;
    let workspace = world.workspace("ending").await;
    let seen = tag(&world, &workspace.path).await;
    world.api.delete(&workspace.path).await.expect(202);
    let again = |tag: String| send(world.api.request("DELETE", &workspace.path).header("if-match", tag));
    assert_eq!(again(seen).await.problem(412), "precondition-failed");
    again(tag(&world, &workspace.path).await).await.expect(202);
}

#[tokio::test]
async fn whoever_may_not_change_it_is_told_that_whatever_the_condition() {
    let world = World::new().await;
    let workspace = world.workspace("read only").await;
    let receiver = Receiver::of(&world).await;
    let destination = workspace.destination(&receiver, "hook", json!({})).await;
    let viewer = world.person("ana@example.com", &[(workspace.id, Role::Viewer)]).await;
    for tag in ["\"x\"".to_owned(), tag(&world, &destination.path).await] {
        let request = world.api.bare("PATCH", &destination.path).header("cookie", &viewer.cookie);
        let request = request.header("x-csrf-token", &viewer.csrf).header("if-match", &tag);
        assert_eq!(send(request.json(&json!({ "name": "theirs" }))).await.problem(403), "role", "{tag}");
        // Nor does a condition hide what is wrong with a change.
        let request = world.api.request("PATCH", &destination.path).header("if-match", &tag);
        assert_eq!(send(request.json(&json!({ "max_in_flight": 0 }))).await.problem(422), "invalid", "{tag}");
    }
    eventually("both refusals are on the record", || async {
        let counts: Vec<Option<i64>> = sqlx::query_scalar(
            "SELECT (entry::jsonb #>> '{data,details,count}')::bigint FROM entries
              WHERE workspace_id = $1 AND type = 'audit.access.denied'",
        )
        .bind(workspace.id.uuid())
        .fetch_all(&mut world.database.superuser().await)
        .await
        .unwrap();
        (counts.into_iter().flatten().sum::<i64>() == 2).then_some(())
    })
    .await;
    assert_eq!(destination.read().await["name"], "hook");
}

#[tokio::test]
async fn what_cannot_be_compared_is_not_changed() {
    let world = World::new().await;
    let workspace = world.workspace("unread").await;
    let receiver = Receiver::of(&world).await;
    let destination = workspace.destination(&receiver, "hook", json!({})).await;
    let seen = tag(&world, &destination.path).await;
    // No clock of ours shows that, and no answer can.
    let mut superuser = world.database.superuser().await;
    sqlx::query("UPDATE destinations SET created_at = '4000-01-01 BC'")
        .execute(&mut superuser)
        .await
        .unwrap();
    let change = world.api.request("PATCH", &destination.path).header("if-match", &seen);
    let answer = send(change.json(&json!({ "name": "changed" }))).await;
    assert_eq!(answer.problem(500), "internal");
    let name: String =
        sqlx::query_scalar("SELECT name FROM destinations").fetch_one(&mut superuser).await.unwrap();
    assert_eq!(name, "hook");
}

#[tokio::test]
async fn a_body_that_does_not_arrive_keeps_no_other_change_waiting() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let world = World::new().await;
    let workspace = world.workspace("slow").await;
    let receiver = Receiver::of(&world).await;
    let destination = workspace.destination(&receiver, "hook", json!({})).await;
    let seen = tag(&world, &destination.path).await;
    let host = world.api.base.strip_prefix("http://").unwrap();
    let mut slow = tokio::net::TcpStream::connect(host).await.unwrap();
    let body = r#"{"name":"slow"}"#;
    let head = format!(
        "PATCH {} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {}\r\nif-match: {seen}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{{",
        destination.path,
        world.api.token,
        body.len()
    );
    slow.write_all(head.as_bytes()).await.unwrap();
    // The slow one has begun, and is waited for no longer than its own body takes.
    for name in ["quick", "quicker"] {
        let seen = tag(&world, &destination.path).await;
        let change = world.api.request("PATCH", &destination.path).header("if-match", seen);
        send(change.json(&json!({ "name": name }))).await.expect(200);
    }
    slow.write_all(&body.as_bytes()[1..]).await.unwrap();
    let mut answer = String::new();
    slow.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 412 "), "{answer}");
    assert_eq!(destination.read().await["name"], "quicker");
}

#[tokio::test]
async fn one_tenants_bodies_that_never_come_keep_nobody_of_another_waiting() {
    use tokio::io::AsyncWriteExt;
    let world = World::new().await;
    let (ours, theirs) = (world.workspace("ours").await, world.workspace("theirs").await);
    let receiver = Receiver::of(&world).await;
    let destination = ours.destination(&receiver, "hook", json!({})).await;
    let there = theirs.destination(&receiver, "there", json!({})).await;
    let body = json!({ "name": "k", "scopes": ["destinations:write"] });
    let key = world.api.post(&theirs.at("/keys"), body).await.expect(201).json();
    let host = world.api.base.strip_prefix("http://").unwrap();
    // On what there is, and on what there is not: each is past the door of its change, and waits for its body alone.
    let mut slow = Vec::new();
    for n in 0..128 {
        let path = match n % 2 {
            0 => there.path.clone(),
            _ => theirs.at(&format!("/destinations/ep_{}", uuid::Uuid::now_v7())),
        };
        let mut wire = tokio::net::TcpStream::connect(host).await.unwrap();
        let head = format!(
            "PATCH {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {}\r\nif-match: *\r\n\
             content-type: application/json\r\ncontent-length: 10\r\n\r\n{{",
            key["token"].as_str().unwrap()
        );
        wire.write_all(head.as_bytes()).await.unwrap();
        slow.push(wire);
    }
    for name in ["one", "two", "three"] {
        let seen = tag(&world, &destination.path).await;
        let change = world.api.request("PATCH", &destination.path).header("if-match", seen);
        let change = tokio::time::timeout(DEADLINE / 3, send(change.json(&json!({ "name": name }))));
        change.await.expect("it waits for nobody").expect(200);
    }
    // None of them was answered meanwhile, for want of anything but its body.
    for wire in &slow {
        let answered = wire.try_read(&mut [0_u8; 1]);
        assert!(answered.is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock));
    }
}

#[tokio::test]
async fn what_moves_by_itself_changes_no_tag_and_what_is_decided_on_does() {
    let world = World::new().await;
    let workspace = world.workspace("moving").await;
    let receiver = Receiver::of(&world).await;
    let source = workspace.inbound("events").await;
    let destination = workspace.destination(&receiver, "hook", json!({})).await;
    let body = json!({ "name": "k", "scopes": ["sources:read"] });
    let key = world.api.post(&workspace.at("/keys"), body).await.expect(201).json();
    let source_path = workspace.at(&format!("/sources/{}", source.id));
    let key_path = workspace.at(&format!("/keys/{}", key["id"].as_str().unwrap()));
    let paths = [&destination.path, &source_path, &key_path];
    let mut before = Vec::new();
    for path in paths {
        before.push((world.api.get(path).await.expect(200).json(), tag(&world, path).await));
    }
    // A delivery, a round of polls and how it went, a request with the key.
    source.event("an event").await;
    destination.settled(1, "delivered").await;
    let mut superuser = world.database.superuser().await;
    sqlx::query("UPDATE sources SET last_polled_at = now(), health = 'degraded', health_detail = 'x'")
        .execute(&mut superuser)
        .await
        .unwrap();
    sqlx::query("UPDATE api_keys SET last_used_at = now() WHERE name = 'k'")
        .execute(&mut superuser)
        .await
        .unwrap();
    for (path, (shown, seen)) in paths.into_iter().zip(&before) {
        let request = world.api.request("GET", path).header("if-none-match", seen);
        // The tag is the same, and what is shown is not: it is sent.
        let answer = send(request).await.expect(200);
        assert_ne!(&answer.json(), shown, "{path}");
        assert_eq!(answer.headers["etag"].to_str().unwrap(), seen, "{path}");
        let any = send(world.api.request("GET", path).header("if-none-match", "*")).await;
        assert_eq!(any.status, 200, "{path}");
    }
    let change = |change: Value| {
        let request = world.api.request("PATCH", &destination.path).header("if-match", &before[0].1);
        send(request.json(&change))
    };
    change(json!({ "max_in_flight": 2 })).await.expect(200);
    assert_eq!(change(json!({ "max_in_flight": 3 })).await.problem(412), "precondition-failed");
    // Everything that a change can change is in it.
    let mut seen = BTreeSet::from([before[0].1.clone()]);
    for change in [
        json!({ "max_in_flight": 4 }),
        json!({ "name": "other" }),
        json!({ "url": receiver.url("other") }),
        json!({ "openings": false }),
        json!({ "filter": { "types": ["inbound.*"] } }),
        json!({ "enabled": false }),
    ] {
        destination.change(change.clone()).await;
        assert!(seen.insert(tag(&world, &destination.path).await), "{change}");
    }
    // The document says so.
    let document = world.api.get("/openapi.json").await.expect(200).json();
    for path in ["destinations/{destination}", "sources/{source}", "keys/{key}", ""] {
        let path = format!("/v1/workspaces/{{workspace}}/{path}");
        let of = &document["paths"][path.trim_end_matches('/')]["get"];
        let whole = path.ends_with("{workspace}/");
        assert_eq!(of["responses"]["304"].is_object(), whole, "{path}");
        let parameters = of["parameters"].to_string();
        assert_eq!(parameters.contains("If-None-Match"), whole, "{path}");
        assert!(of["responses"]["200"]["headers"]["ETag"].is_object(), "{path}");
    }
}

/// Makes a key of that name under an idempotency key.
fn make(world: &World, workspace: &Workspace, key: &str) -> RequestBuilder {
    let body = json!({ "name": key, "scopes": ["read"] });
    world.api.request("POST", &workspace.at("/keys")).header("idempotency-key", key).json(&body)
}

/// How many keys of that name there are.
async fn made(world: &World, name: &str) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM api_keys WHERE name = $1")
        .bind(name)
        .fetch_one(&mut world.database.superuser().await)
        .await
        .unwrap()
}

/// Makes whatever keeps an answer fail, from now on.
async fn no_answer_is_kept(world: &World, how: &str) {
    let mut superuser = world.database.superuser().await;
    for statement in [
        format!("CREATE FUNCTION keeps_none() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {how} END $$"),
        "CREATE TRIGGER keeps_none BEFORE UPDATE ON request_keys FOR EACH ROW
         WHEN (NEW.status IS NOT NULL) EXECUTE FUNCTION keeps_none()"
            .to_owned(),
    ] {
        sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut superuser).await.unwrap();
    }
}

#[tokio::test]
async fn what_was_carried_out_is_not_done_again_though_its_answer_is_lost() {
    let world = World::new().await;
    let workspace = world.workspace("lost").await;
    no_answer_is_kept(&world, "RAISE 'not now';").await;
    send(make(&world, &workspace, "a")).await.expect(201);
    for _ in 0..2 {
        assert_eq!(send(make(&world, &workspace, "a")).await.problem(409), "answer-lost");
    }
    assert_eq!(made(&world, "a").await, 1);
    // Another request under the key is another request, and a refusal of what was asked did nothing: it is tried anew.
    let path = workspace.at("/sources");
    let other = world.api.request("POST", &path).header("idempotency-key", "a");
    assert_eq!(send(other.json(&json!({}))).await.problem(409), "conflict");
    let wrong = || {
        let body = json!({ "name": "", "scopes": ["read"] });
        world.api.request("POST", &workspace.at("/keys")).header("idempotency-key", "b").json(&body)
    };
    for _ in 0..2 {
        assert_eq!(send(wrong()).await.problem(422), "invalid");
    }
    // A change whose place is not where its key was sent to: a new workspace, a membership.
    let workspace_of = |name: &str| {
        let request = world.api.request("POST", "/v1/workspaces").header("idempotency-key", "c");
        request.json(&json!({ "name": name }))
    };
    send(workspace_of("made once")).await.expect(201);
    assert_eq!(send(workspace_of("made once")).await.problem(409), "answer-lost");
    let body = json!({ "email": "ben@example.com", "role": "viewer" });
    let invited = world.api.post(&workspace.at("/invitations"), body).await.expect(201).json();
    let person = world.person("ben@example.com", &[]).await;
    let accept = || {
        let request = world.api.bare("POST", "/v1/invitations/accept").header("cookie", &person.cookie);
        let request = request.header("x-csrf-token", &person.csrf).header("idempotency-key", "d");
        send(request.json(&json!({ "token": invited["token"] })))
    };
    accept().await.expect(200);
    assert_eq!(accept().await.problem(409), "answer-lost");
    // It is kept as long as an answer, and after that the key is free.
    let mut superuser = world.database.superuser().await;
    let kept: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM request_keys WHERE carried_out AND status IS NULL
            AND expires_at BETWEEN now() + interval '23 hours' AND now() + interval '24 hours'",
    )
    .fetch_one(&mut superuser)
    .await
    .unwrap();
    assert_eq!(kept, 3);
    sqlx::query("UPDATE request_keys SET expires_at = now()").execute(&mut superuser).await.unwrap();
    send(make(&world, &workspace, "a")).await.expect(201);
    assert_eq!(made(&world, "a").await, 2);
    world.assert_whole(&[&workspace]).await;
}

#[tokio::test]
async fn a_failure_after_the_commit_frees_no_key() {
    let world = World::new().await;
    let workspace = world.workspace("failed").await;
    world.api.delete(&workspace.path).await.expect(202);
    // What is changed cannot be shown: no answer can say that time.
    let mut superuser = world.database.superuser().await;
    for statement in [
        "CREATE FUNCTION ancient() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN NEW.created_at := '4000-01-01 BC'; RETURN NEW; END $$",
        "CREATE TRIGGER ancient BEFORE UPDATE ON workspaces FOR EACH ROW EXECUTE FUNCTION ancient()",
    ] {
        sqlx::query(statement).execute(&mut superuser).await.unwrap();
    }
    let restore = || {
        let request = world.api.request("POST", &workspace.at("/restore")).header("idempotency-key", "k");
        send(request)
    };
    let failed = restore().await;
    assert_eq!(failed.status, 500, "{failed:?}");
    // Whoever asks for its end again, does: the repetition does not call that off.
    world.api.delete(&workspace.path).await.expect(202);
    assert_eq!(restore().await.problem(409), "answer-lost");
    let ends: bool =
        sqlx::query_scalar("SELECT delete_after IS NOT NULL FROM workspaces WHERE workspace_id = $1")
            .bind(workspace.id.uuid())
            .fetch_one(&mut superuser)
            .await
            .unwrap();
    assert!(ends);
}

#[tokio::test]
async fn while_an_answer_is_being_kept_it_is_not_lost_yet() {
    let world = World::new().await;
    let workspace = world.workspace("keeping").await;
    let mut holder = world.database.superuser().await;
    sqlx::query("SELECT pg_advisory_lock(7)").execute(&mut holder).await.unwrap();
    no_answer_is_kept(&world, "PERFORM pg_advisory_xact_lock(7); RETURN NEW;").await;
    let first = tokio::spawn(send(make(&world, &workspace, "a")));
    eventually("the answer is on its way", || async { (made(&world, "a").await == 1).then_some(()) }).await;
    let mut watcher = world.database.superuser().await;
    until_waiting(&mut watcher, 1).await;
    // The row is held by whoever keeps the answer: a repetition waits for it, and then hears the answer.
    let second = tokio::spawn(send(make(&world, &workspace, "a")));
    until_waiting(&mut watcher, 2).await;
    sqlx::query("SELECT pg_advisory_unlock(7)").execute(&mut holder).await.unwrap();
    let (first, second) = (first.await.unwrap().expect(201), second.await.unwrap().expect(201));
    assert_eq!(first.body, second.body);
    assert_eq!(made(&world, "a").await, 1);
    // Its connection is cut instead: the change is made, and nobody will say what was answered.
    sqlx::query("SELECT pg_advisory_lock(7)").execute(&mut holder).await.unwrap();
    let first = tokio::spawn(send(make(&world, &workspace, "b")));
    until_waiting(&mut watcher, 1).await;
    sqlx::query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
          WHERE datname = current_database() AND wait_event_type = 'Lock'",
    )
    .execute(&mut watcher)
    .await
    .unwrap();
    first.await.unwrap().expect(201);
    assert_eq!(send(make(&world, &workspace, "b")).await.problem(409), "answer-lost");
    assert_eq!(made(&world, "b").await, 1);
    // A node that dies there leaves its lease: until that is over, the answer may still come.
    sqlx::query("SELECT pg_advisory_unlock(7)").execute(&mut holder).await.unwrap();
    let lease = "UPDATE request_keys SET leased_until = now() + $1::interval WHERE key = 'b'";
    for (leased, kind) in [("1 minute", "in-progress"), ("0", "answer-lost")] {
        sqlx::query(lease).bind(leased).execute(&mut watcher).await.unwrap();
        assert_eq!(send(make(&world, &workspace, "b")).await.problem(409), kind);
    }
}

#[tokio::test]
async fn a_request_whose_key_another_has_taken_over_is_not_carried_out() {
    let world = World::new().await;
    let (other, elsewhere) = world.another().await;
    let workspace = world.workspace("taken").await;
    let mut watcher = world.database.superuser().await;
    let held = Held::by(world.database.superuser().await, workspace.id).await;
    let first = tokio::spawn(send(make(&world, &workspace, "k")));
    until_waiting(&mut watcher, 1).await;
    // It takes longer than its lease, which it could not renew.
    sqlx::query("UPDATE request_keys SET expires_at = now(), leased_until = now()")
        .execute(&mut watcher)
        .await
        .unwrap();
    let body = json!({ "name": "k", "scopes": ["read"] });
    let request = elsewhere.request("POST", &workspace.at("/keys")).header("idempotency-key", "k");
    let second = tokio::spawn(send(request.json(&body)));
    until_waiting(&mut watcher, 2).await;
    held.release().await;
    assert_eq!(first.await.unwrap().problem(503), "unavailable");
    let second = second.await.unwrap().expect(201);
    assert_eq!(made(&world, "k").await, 1);
    assert_eq!(send(make(&world, &workspace, "k")).await.expect(201).body, second.body);
    world.assert_whole(&[&workspace]).await;
    other.stop().await;
}

#[tokio::test]
async fn a_key_is_told_that_it_is_no_person_before_its_body_is_looked_at() {
    let world = World::new().await;
    for path in ["/v1/passkeys", "/v1/passkeys/challenge", "/v1/identities/x", "/v1/invitations/accept"] {
        let request = world.api.request("POST", path).header("content-type", "text/plain").body("{");
        assert_eq!(send(request).await.problem(403), "session", "{path}");
    }
}

#[tokio::test]
async fn every_refusal_of_a_sign_in_leads_to_a_page() {
    let world = World::new().await;
    let pages = send(world.api.bare("GET", "/problems/")).await.expect(200);
    let from_elsewhere = |path: &str, body: Value| {
        send(world.api.bare("POST", path).header("sec-fetch-site", "cross-site").json(&body))
    };
    let answer = from_elsewhere("/sign-in/passkey/challenge", json!({})).await;
    let kind = answer.problem(403);
    assert_eq!(kind, "other-site");
    for kind in
        [&*kind, "passkey", "answered", "other-browser", "unknown-passkey", "invitation", "answer-lost"]
    {
        assert!(pages.text().contains(&format!("/problems/{kind}\"")), "{kind}");
        send(world.api.bare("GET", &format!("/problems/{kind}"))).await.expect(200);
    }
}
