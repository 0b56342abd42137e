//! Each route that changes something leaves an audit entry: every one of the document is asked for once, validly, and
//! what it left is looked for. One that is neither asked here nor named with a reason fails.

use crate::harness::{Answer, Person, Receiver, Workspace, World, send};
use serde_json::{Value, json};
use statusledger::access::scope::Role;
use statusledger::id::WorkspaceId;
use std::collections::{BTreeMap, BTreeSet};

/// Routes that are not asked for here, each with the reason.
const ELSEWHERE: &[(&str, &str)] = &[
    ("POST /in/{source}", "what is sent is itself the entry, `event.received`: tests/sources.rs"),
    ("POST /in/{source}/app-store-connect", "likewise, signed by the store: tests/store_webhooks.rs"),
    ("POST /v1/passkeys/challenge", "changes nothing that lasts: a challenge is kept for ten minutes"),
    ("POST /v1/passkeys", "needs an authenticator: tests/sign_in/browser.rs"),
    ("DELETE /v1/passkeys/{passkey}", "needs a passkey: tests/sign_in/browser.rs"),
    ("DELETE /v1/identities/{provider}/{identity}", "needs an account at a provider: tests/sign_in/ways.rs"),
    ("PATCH /v1/people/{user}", "whoever administers the instance: tests/sign_in/disabled.rs"),
    ("PUT /v1/workspaces/{workspace}/sources/{source}/key", "needs a store: tests/source_keys.rs"),
    ("POST /v1/workspaces/{workspace}/configurations", "names changes of before: tests/manage.rs"),
    ("POST /v1/identities/{provider}", "begins what the provider's answer records: tests/sign_in.rs"),
    ("POST /sign-in/link", "signs somebody in: tests/sign_in.rs"),
    ("POST /sign-in/passkey/challenge", "changes nothing that lasts"),
    ("POST /sign-in/passkey", "needs an authenticator: tests/sign_in/browser.rs"),
    ("POST /sign-in/invited/challenge", "changes nothing that lasts"),
    ("POST /sign-in/invited", "needs an authenticator: tests/sign_in/browser.rs"),
];

/// Who asks.
enum By<'a> {
    Key,
    Person(&'a Person),
}

/// The walk over what changes something.
struct Scene {
    world: World,
    /// Where entries are looked for: of the workspace, and of the instance.
    ledgers: Vec<Workspace>,
    asked: BTreeSet<String>,
}

impl Scene {
    async fn entries(&self) -> BTreeMap<String, Value> {
        let mut found = BTreeMap::new();
        for ledger in &self.ledgers {
            for entry in ledger.entries().await {
                if entry["type"].as_str().unwrap().starts_with("audit.") {
                    found.insert(format!("{}/{}", ledger.id, entry["seq"]), entry);
                }
            }
        }
        found
    }

    /// Asks for a route; it has to be done, and to leave an entry of that action by whoever asked.
    async fn leaves(&mut self, action: &str, route: &str, path: &str, body: Value, by: By<'_>) -> Answer {
        let (method, _) = route.split_once(' ').unwrap();
        let before = self.entries().await;
        let mut request = match by {
            By::Key => self.world.api.request(method, path),
            By::Person(person) => self
                .world
                .api
                .bare(method, path)
                .header("cookie", person.cookie.as_str())
                .header("x-csrf-token", person.csrf.as_str()),
        };
        if !body.is_null() {
            request = request.json(&body);
        }
        let answer = send(request).await;
        assert!((200..300).contains(&answer.status), "{route}: {} {:?}", answer.status, answer.body);
        let after = self.entries().await;
        let added: Vec<&Value> =
            after.iter().filter(|(at, _)| !before.contains_key(*at)).map(|(_, e)| e).collect();
        let kind = format!("audit.{action}");
        let entry = added.iter().find(|entry| entry["type"] == kind);
        let entry = entry.unwrap_or_else(|| panic!("{route} left no {kind}: {added:?}"));
        let data = &entry["data"];
        assert_eq!(data["outcome"], "success", "{route}");
        if let By::Person(person) = by {
            assert_eq!(data["actor"], json!({ "type": "user", "id": person.id.to_string() }), "{route}");
            assert!(data["sealed"]["actor_display"].is_string(), "{route} seals what they are called");
        } else {
            assert_eq!(data["actor"]["type"], "api_key", "{route}");
        }
        self.asked.insert(route.to_owned());
        answer
    }
}

fn id(answer: &Answer) -> String {
    answer.json()["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn every_route_that_changes_something_leaves_an_entry() {
    const W: &str = "/v1/workspaces/{workspace}";
    let world = World::new().await;
    let receiver = Receiver::of(&world).await;
    let workspace = world.workspace("recorded").await;
    let own = world.node().gate.instance;
    let instance = Workspace {
        id: own,
        ledger: String::new(),
        path: format!("/v1/workspaces/{own}"),
        api: world.api.clone(),
    };
    let roles = |role| [(workspace.id, role)];
    let owner = world.person("owner@example.com", &roles(Role::Owner)).await;
    let member = world.person("member@example.com", &roles(Role::Member)).await;
    let invited = world.person("invited@example.com", &[]).await;
    let leaving = world.person("leaving@example.com", &[]).await;
    let at = |rest: &str| workspace.at(rest);
    let mut scene = Scene { world, ledgers: vec![workspace.clone(), instance], asked: BTreeSet::new() };
    let none = || Value::Null;

    let made = json!({ "name": "made" });
    let answer = scene.world.api.post("/v1/workspaces", made).await.expect(201);
    let made = Workspace {
        id: id(&answer).parse::<WorkspaceId>().unwrap(),
        ledger: String::new(),
        path: format!("/v1/workspaces/{}", id(&answer)),
        api: scene.world.api.clone(),
    };
    assert_eq!(made.entries_of("audit.workspace.created").await.len(), 1, "in its own ledger");
    scene.asked.insert("POST /v1/workspaces".into());

    let who = By::Person(&owner);
    scene
        .leaves(
            "workspace.updated",
            &format!("PATCH {W}"),
            &workspace.path,
            json!({ "name": "renamed" }),
            who,
        )
        .await;
    let deleted = "workspace.deletion_requested";
    scene.leaves(deleted, &format!("DELETE {W}"), &workspace.path, none(), By::Person(&owner)).await;
    let restored = "workspace.deletion_cancelled";
    scene
        .leaves(restored, &format!("POST {W}/restore"), &at("/restore"), json!({}), By::Person(&owner))
        .await;

    let key = json!({ "name": "k", "scopes": ["read"] });
    let answer =
        scene.leaves("key.created", &format!("POST {W}/keys"), &at("/keys"), key, By::Person(&owner)).await;
    let path = at(&format!("/keys/{}", id(&answer)));
    let rotate = format!("POST {W}/keys/{{key}}/rotate");
    scene.leaves("key.rotated", &rotate, &format!("{path}/rotate"), json!({}), By::Key).await;
    scene.leaves("key.revoked", &format!("DELETE {W}/keys/{{key}}"), &path, none(), By::Person(&owner)).await;

    let invite = json!({ "email": "invited@example.com", "role": "viewer" });
    let route = format!("POST {W}/invitations");
    let answer =
        scene.leaves("member.invited", &route, &at("/invitations"), invite.clone(), By::Person(&owner)).await;
    let token = json!({ "token": answer.json()["token"] });
    let accept = "POST /v1/invitations/accept";
    scene.leaves("member.joined", accept, "/v1/invitations/accept", token, By::Person(&invited)).await;
    let answer = scene.world.api.post(&at("/invitations"), invite).await.expect(201);
    let path = at(&format!("/invitations/{}", id(&answer)));
    let route = format!("DELETE {W}/invitations/{{invitation}}");
    scene.leaves("invitation.revoked", &route, &path, none(), By::Key).await;
    let route = format!("DELETE {W}/membership");
    scene.leaves("member.removed", &route, &at("/membership"), none(), By::Person(&invited)).await;
    let path = at(&format!("/members/{}", member.id));
    let route = format!("PATCH {W}/members/{{user}}");
    scene.leaves("member.role_changed", &route, &path, json!({ "role": "viewer" }), By::Person(&owner)).await;
    let route = format!("DELETE {W}/members/{{user}}");
    scene.leaves("member.removed", &route, &path, none(), By::Person(&owner)).await;

    let source = json!({ "kind": "app_store", "name": "s", "webhook_secret": "12345678" });
    let route = format!("POST {W}/sources");
    let answer = scene.leaves("source.created", &route, &at("/sources"), source, By::Person(&owner)).await;
    let path = at(&format!("/sources/{}", id(&answer)));
    let route = format!("PUT {W}/sources/{{source}}/webhook-secret");
    let secret = json!({ "secret": "87654321" });
    scene.leaves("source.updated", &route, &format!("{path}/webhook-secret"), secret, By::Key).await;
    let route = format!("POST {W}/sources/{{source}}/look");
    scene.leaves("source.looked", &route, &format!("{path}/look"), json!({}), By::Key).await;
    scene.leaves("source.deleted", &format!("DELETE {W}/sources/{{source}}"), &path, none(), By::Key).await;

    let hook = json!({ "name": "hook", "url": receiver.url("hook") });
    let route = format!("POST {W}/destinations");
    let answer =
        scene.leaves("destination.created", &route, &at("/destinations"), hook, By::Person(&owner)).await;
    let secret = answer.json()["secret"].as_str().unwrap().to_owned();
    receiver.expect("hook", &id(&answer), &secret);
    let path = at(&format!("/destinations/{}", id(&answer)));
    let one = format!("{W}/destinations/{{destination}}");
    scene
        .leaves("destination.tested", &format!("POST {one}/test"), &format!("{path}/test"), none(), By::Key)
        .await;
    receiver.taken("hook", 1).await;
    let again = json!({ "from": 1, "to": 1 });
    let redeliver = format!("{path}/redeliver");
    scene.leaves("delivery.redelivered", &format!("POST {one}/redeliver"), &redeliver, again, By::Key).await;
    let rotate = format!("{path}/rotate-secret");
    let route = format!("POST {one}/rotate-secret");
    scene.leaves("destination.secret_rotated", &route, &rotate, none(), By::Person(&owner)).await;
    let change = json!({ "enabled": false });
    scene.leaves("destination.updated", &format!("PATCH {one}"), &path, change, By::Person(&owner)).await;
    scene.leaves("destination.deleted", &format!("DELETE {one}"), &path, none(), By::Person(&owner)).await;

    let path = format!("/v1/sessions/{}", invited.session);
    let route = "DELETE /v1/sessions/{session}";
    scene.leaves("session.revoked", route, &path, none(), By::Person(&invited)).await;
    scene
        .leaves("session.signed_out", "DELETE /v1/session", "/v1/session", none(), By::Person(&leaving))
        .await;

    // Nothing of the document is left out.
    let document = scene.world.api.get("/openapi.json").await.expect(200).json();
    let changing: BTreeSet<String> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, of)| of.as_object().unwrap().keys().map(move |m| (m.to_uppercase(), path)))
        .filter(|(method, _)| !["GET", "HEAD", "OPTIONS"].contains(&method.as_str()))
        .map(|(method, path)| format!("{method} {path}"))
        .collect();
    let mut covered = scene.asked.clone();
    for (route, why) in ELSEWHERE {
        assert!(!why.is_empty() && covered.insert((*route).to_owned()), "{route} is asked for here");
    }
    assert_eq!(
        changing, covered,
        "a route that changes something and is not asked for, or the other way round"
    );
    let workspace = scene.ledgers.remove(0);
    scene.world.assert_whole(&[&workspace, &made]).await;
}
