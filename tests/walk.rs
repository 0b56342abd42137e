//! A walk over every route of the document with every credential that must not pass there. Nothing changes, nothing is
//! told, and each refusal is on the record: in the right ledger, with its reason and its count.

use crate::harness::{Answer, Person, Receiver, Workspace, World, eventually, send};
use serde_json::{Value, json};
use statusledger::access::scope::{Permission as P, Permissions, Role, Scope};
use statusledger::http::needs::NEEDS;
use statusledger::id::{KeyId, WorkspaceId};
use std::collections::{BTreeMap, BTreeSet};

/// What stands before a route.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Door {
    /// Anybody may ask.
    Open,
    /// A source's own credentials (tests/http.rs, tests/store_webhooks.rs).
    Source,
    /// This permission.
    Needs(P),
    /// Whoever is signed in; no key.
    Person,
}
use Door::{Needs, Open, Person as OnlyAPerson, Source};

/// Every route, what it needs, and a body with which it would do something. One that is not here fails the walk.
const ROUTES: &[(&str, Door, &str)] = &[
    ("GET /healthz", Open, ""),
    ("GET /readyz", Open, ""),
    ("GET /metrics", Open, ""),
    ("GET /.well-known/statusledger-keys.json", Open, ""),
    ("POST /in/{source}", Source, ""),
    ("POST /in/{source}/app-store-connect", Source, ""),
    ("GET /v1/workspaces", Needs(P::OneSelf), ""),
    ("POST /v1/workspaces", Needs(P::Instance), r#"{"name":"walked"}"#),
    ("GET /v1/workspaces/{workspace}", Needs(P::WorkspaceRead), ""),
    ("PATCH /v1/workspaces/{workspace}", Needs(P::WorkspaceWrite), r#"{"name":"walked"}"#),
    ("DELETE /v1/workspaces/{workspace}", Needs(P::WorkspaceDelete), ""),
    ("POST /v1/workspaces/{workspace}/restore", Needs(P::WorkspaceDelete), ""),
    ("GET /v1/workspaces/{workspace}/audit", Needs(P::AuditRead), ""),
    ("GET /v1/workspaces/{workspace}/audit/export", Needs(P::LedgerExport), "?format=csv"),
    (
        "POST /v1/workspaces/{workspace}/configurations",
        Needs(P::Configure),
        r#"{"sha256":"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08","planned":{},"complete":true,"requests":[]}"#,
    ),
    ("GET /v1/workspaces/{workspace}/keys", Needs(P::KeysRead), ""),
    ("POST /v1/workspaces/{workspace}/keys", Needs(P::KeysWrite), r#"{"name":"walked","scopes":["read"]}"#),
    ("GET /v1/workspaces/{workspace}/keys/{key}", Needs(P::KeysRead), ""),
    ("DELETE /v1/workspaces/{workspace}/keys/{key}", Needs(P::KeysWrite), ""),
    ("POST /v1/workspaces/{workspace}/keys/{key}/rotate", Needs(P::KeysWrite), "{}"),
    ("GET /v1/workspaces/{workspace}/members", Needs(P::MembersRead), ""),
    ("PATCH /v1/workspaces/{workspace}/members/{user}", Needs(P::MembersWrite), r#"{"role":"admin"}"#),
    ("DELETE /v1/workspaces/{workspace}/members/{user}", Needs(P::MembersWrite), ""),
    ("DELETE /v1/workspaces/{workspace}/membership", OnlyAPerson, ""),
    ("GET /v1/workspaces/{workspace}/invitations", Needs(P::MembersRead), ""),
    (
        "POST /v1/workspaces/{workspace}/invitations",
        Needs(P::MembersWrite),
        r#"{"email":"walked@example.com","role":"viewer"}"#,
    ),
    ("DELETE /v1/workspaces/{workspace}/invitations/{invitation}", Needs(P::MembersWrite), ""),
    ("POST /v1/invitations/accept", OnlyAPerson, r#"{"token":"none"}"#),
    ("GET /v1/passkeys", OnlyAPerson, ""),
    ("POST /v1/passkeys/challenge", OnlyAPerson, "{}"),
    (
        "POST /v1/passkeys",
        OnlyAPerson,
        r#"{"state":"x","name":"walked","credential":{"id":"AA","rawId":"AA","type":"public-key",
            "response":{"attestationObject":"AA","clientDataJSON":"AA"}}}"#,
    ),
    ("DELETE /v1/passkeys/{passkey}", OnlyAPerson, ""),
    ("GET /v1/identities", OnlyAPerson, ""),
    ("POST /v1/identities/{provider}", OnlyAPerson, "{}"),
    ("DELETE /v1/identities/{provider}/{identity}", OnlyAPerson, ""),
    ("GET /v1/people", Needs(P::PeopleRead), ""),
    ("GET /v1/people/{user}", Needs(P::PeopleRead), ""),
    ("PATCH /v1/people/{user}", Needs(P::Instance), r#"{"disabled":true}"#),
    ("GET /sign-in", Open, ""),
    ("GET /sign-in/with/{provider}", Open, ""),
    ("GET /sign-in/callback/{provider}", Open, ""),
    ("GET /sign-in/link/{link}", Open, ""),
    ("POST /sign-in/link", Open, ""),
    ("POST /sign-in/passkey/challenge", Open, ""),
    ("POST /sign-in/passkey", Open, ""),
    ("GET /invite/{invitation}", Open, ""),
    ("POST /sign-in/invited/challenge", Open, ""),
    ("POST /sign-in/invited", Open, ""),
    ("GET /static/sign-in.js", Open, ""),
    ("GET /static/sign-in.css", Open, ""),
    ("GET /account", Open, ""),
    ("GET /v1/session", OnlyAPerson, ""),
    ("DELETE /v1/session", OnlyAPerson, ""),
    ("GET /v1/sessions", OnlyAPerson, ""),
    ("DELETE /v1/sessions/{session}", OnlyAPerson, ""),
    ("GET /v1/workspaces/{workspace}/status", Needs(P::SourcesRead), ""),
    ("GET /v1/workspaces/{workspace}/sources", Needs(P::SourcesRead), ""),
    (
        "POST /v1/workspaces/{workspace}/sources",
        Needs(P::SourcesWrite),
        r#"{"kind":"inbound","name":"walked"}"#,
    ),
    ("GET /v1/workspaces/{workspace}/sources/{source}", Needs(P::SourcesRead), ""),
    ("DELETE /v1/workspaces/{workspace}/sources/{source}", Needs(P::SourcesWrite), ""),
    (
        "PUT /v1/workspaces/{workspace}/sources/{source}/webhook-secret",
        Needs(P::SourcesWrite),
        r#"{"secret":"12345678"}"#,
    ),
    (
        "PUT /v1/workspaces/{workspace}/sources/{source}/key",
        Needs(P::SourcesWrite),
        r#"{"kind":"google_play","service_account":{}}"#,
    ),
    ("POST /v1/workspaces/{workspace}/sources/{source}/look", Needs(P::SourcesWrite), ""),
    ("GET /v1/workspaces/{workspace}/subjects", Needs(P::SourcesRead), ""),
    ("GET /v1/workspaces/{workspace}/destinations", Needs(P::DestinationsRead), ""),
    (
        "POST /v1/workspaces/{workspace}/destinations",
        Needs(P::DestinationsWrite),
        r#"{"name":"walked","url":"https://example.com/"}"#,
    ),
    ("GET /v1/workspaces/{workspace}/destinations/{destination}", Needs(P::DestinationsRead), ""),
    (
        "PATCH /v1/workspaces/{workspace}/destinations/{destination}",
        Needs(P::DestinationsWrite),
        r#"{"enabled":false}"#,
    ),
    ("DELETE /v1/workspaces/{workspace}/destinations/{destination}", Needs(P::DestinationsWrite), ""),
    ("POST /v1/workspaces/{workspace}/destinations/{destination}/test", Needs(P::DestinationsWrite), ""),
    (
        "POST /v1/workspaces/{workspace}/destinations/{destination}/rotate-secret",
        Needs(P::DestinationsWrite),
        "",
    ),
    ("GET /v1/workspaces/{workspace}/destinations/{destination}/deliveries", Needs(P::DestinationsRead), ""),
    (
        "GET /v1/workspaces/{workspace}/destinations/{destination}/deliveries/{number}",
        Needs(P::DestinationsRead),
        "",
    ),
    (
        "GET /v1/workspaces/{workspace}/destinations/{destination}/deliveries/{number}/receipt",
        Needs(P::LedgerExport),
        "",
    ),
    (
        "POST /v1/workspaces/{workspace}/destinations/{destination}/redeliver",
        Needs(P::DestinationsWrite),
        r#"{"from":1,"to":1}"#,
    ),
    ("GET /v1/workspaces/{workspace}/entries", Needs(P::LedgerRead), ""),
    ("GET /v1/workspaces/{workspace}/entries/{seq}", Needs(P::LedgerRead), ""),
    ("GET /v1/workspaces/{workspace}/entries/{seq}/openings", Needs(P::LedgerExport), ""),
    ("GET /v1/workspaces/{workspace}/proofs/inclusion", Needs(P::LedgerRead), "?seq=0"),
    ("GET /v1/workspaces/{workspace}/proofs/consistency", Needs(P::LedgerRead), "?from=1"),
    ("GET /v1/workspaces/{workspace}/checkpoint", Needs(P::LedgerRead), ""),
    ("GET /v1/workspaces/{workspace}/export", Needs(P::LedgerExport), ""),
];

struct Route {
    method: &'static str,
    path: &'static str,
    door: Door,
    extra: &'static str,
}

impl Route {
    fn all() -> impl Iterator<Item = Self> {
        ROUTES.iter().map(|(name, door, extra)| {
            let (method, path) = name.split_once(' ').unwrap();
            Self { method, path, door: *door, extra }
        })
    }

    /// Those behind the door of access.
    fn guarded() -> Vec<Self> {
        Self::all().filter(|r| matches!(r.door, Needs(_) | OnlyAPerson)).collect()
    }

    fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    fn permission(&self) -> P {
        match self.door {
            Needs(permission) => permission,
            _ => P::OneSelf,
        }
    }

    fn of_a_workspace(&self) -> bool {
        self.path.contains("{workspace}")
    }
}

/// Somebody who asks.
#[derive(Clone)]
enum Who {
    /// Without credentials.
    Nobody,
    /// With what is no credential of this instance.
    Unknown { token: String },
    /// With a session that this instance did not begin.
    UnknownSession { cookie: String },
    /// With a key.
    Key {
        token: String,
        id: String,
        workspace: WorkspaceId,
        grants: Permissions,
        ended: Option<&'static str>,
    },
    /// In a session.
    Session {
        cookie: String,
        csrf: Option<String>,
        csrf_holds: bool,
        user: String,
        /// What they are in the workspace of the walk.
        role: Option<Role>,
        ended: Option<&'static str>,
    },
}

/// How a request has to be refused.
struct Refusal {
    status: u16,
    kind: &'static str,
    reason: &'static str,
    actor: String,
    ledger: WorkspaceId,
}

/// Two workspaces full of things, and the ids of one.
struct Scene {
    world: World,
    receiver: Receiver,
    ours: Workspace,
    theirs: Workspace,
    instance: Workspace,
    ids: BTreeMap<&'static str, String>,
    viewer: Person,
}

async fn scene() -> Scene {
    let world = World::new().await;
    let receiver = Receiver::of(&world).await;
    let (ours, theirs) = (world.workspace("ours").await, world.workspace("theirs, marked").await);
    let id = world.node().gate.instance;
    let instance =
        Workspace { id, ledger: String::new(), path: format!("/v1/workspaces/{id}"), api: world.api.clone() };
    let source = theirs.inbound("source, marked").await;
    let destination = theirs.destination(&receiver, "hook", json!({})).await;
    source.event("event, marked").await;
    receiver.taken("hook", 1).await;
    destination.settled(1, "delivered").await;
    let viewer = world.person("viewer@example.com", &[(theirs.id, Role::Viewer)]).await;
    let bystander = world.person("bystander@example.com", &[(theirs.id, Role::Viewer)]).await;
    let made = |path: &str, body: Value| {
        let (api, path) = (world.api.clone(), theirs.at(path));
        async move { api.post(&path, body).await.expect(201).json()["id"].as_str().unwrap().to_owned() }
    };
    let key = made("/keys", json!({ "name": "key, marked", "scopes": ["read"] })).await;
    let invitation = made("/invitations", json!({ "email": "marked@example.com", "role": "viewer" })).await;
    let ids = BTreeMap::from([
        ("{source}", source.id.to_string()),
        ("{destination}", destination.id.to_string()),
        ("{key}", key),
        ("{invitation}", invitation),
        ("{user}", bystander.id.to_string()),
        ("{session}", viewer.session.to_string()),
        ("{passkey}", "pk_0199b1c4-0000-7000-8000-000000000001".to_owned()),
        ("{identity}", "idn_0199b1c4-0000-7000-8000-000000000001".to_owned()),
        ("{provider}", "acme".to_owned()),
        ("{number}", "1".to_owned()),
        ("{seq}", "2".to_owned()),
    ]);
    Scene { world, receiver, ours, theirs, instance, ids, viewer }
}

impl Scene {
    /// Asks for a route of `workspace` with the ids of theirs.
    async fn ask(&self, route: &Route, who: &Who, workspace: &str) -> Answer {
        let mut path = route.path.replace("{workspace}", workspace);
        for (place, id) in &self.ids {
            path = path.replace(place, id);
        }
        assert!(!path.contains('{'), "{path} has a place that the walk does not know");
        let (query, body) = if route.extra.starts_with('?') { (route.extra, "") } else { ("", route.extra) };
        let mut request = self.world.api.bare(route.method, &format!("{path}{query}"));
        if !body.is_empty() {
            request = request.header("content-type", "application/json").body(body);
        }
        request = match who {
            Who::Nobody => request,
            Who::Unknown { token } | Who::Key { token, .. } => request.bearer_auth(token),
            Who::UnknownSession { cookie } => request.header("cookie", cookie),
            Who::Session { cookie, csrf, .. } => {
                let request = request.header("cookie", cookie);
                match csrf {
                    Some(csrf) => request.header("x-csrf-token", csrf),
                    None => request,
                }
            }
        };
        send(request).await
    }

    /// How `who` has to be refused; none where they may.
    fn refusal(&self, route: &Route, who: &Who) -> Option<Refusal> {
        let refuse = |status, kind, reason, actor: &str, ledger| {
            Some(Refusal { status, kind, reason, actor: actor.to_owned(), ledger })
        };
        let instance = self.instance.id;
        match who {
            Who::Nobody => refuse(401, "unauthorized", "no_credentials", "unknown", instance),
            Who::Unknown { .. } => refuse(401, "unauthorized", "unknown_key", "unknown", instance),
            Who::UnknownSession { .. } => refuse(401, "unauthorized", "unknown_session", "unknown", instance),
            Who::Key { id, workspace, grants, ended, .. } => {
                if !grants.has(route.permission()) {
                    refuse(403, "scope", "scope", id, *workspace)
                } else if route.door == OnlyAPerson {
                    // Before the database is asked whether it holds.
                    refuse(403, "session", "not_a_person", id, *workspace)
                } else if let Some(ended) = ended {
                    refuse(401, "unauthorized", ended, id, *workspace)
                } else if route.of_a_workspace() && *workspace != self.theirs.id {
                    refuse(404, "not-found", "other_workspace", id, *workspace)
                } else if route.permission().of_the_instance() {
                    refuse(403, "instance", "not_of_the_instance", id, *workspace)
                } else {
                    None
                }
            }
            Who::Session { csrf_holds, user, role, ended, .. } => {
                let role = role.filter(|_| route.of_a_workspace());
                if route.method != "GET" && !csrf_holds {
                    // Whose session it is is authentic all the same.
                    let ledger = if role.is_some() { self.theirs.id } else { instance };
                    refuse(403, "csrf", "csrf", user, ledger)
                } else if let Some(ended) = ended {
                    refuse(401, "unauthorized", ended, user, instance)
                } else if route.permission() == P::OneSelf {
                    None
                } else if role.is_none() && route.of_a_workspace() {
                    refuse(404, "not-found", "other_workspace", user, instance)
                } else if !role.map(Role::grants).unwrap_or_default().has(route.permission()) {
                    let ledger = if route.of_a_workspace() { self.theirs.id } else { instance };
                    refuse(403, "role", "role", user, ledger)
                } else {
                    None
                }
            }
        }
    }

    async fn key(&self, of: &Workspace, scopes: &[&str]) -> Who {
        let body = json!({ "name": "walker", "scopes": scopes });
        let made = self.world.api.post(&of.at("/keys"), body).await.expect(201).json();
        let grants = scopes
            .iter()
            .map(|s| s.parse::<Scope>().unwrap().grants())
            .fold(Permissions::default(), Permissions::or);
        Who::Key {
            token: made["token"].as_str().unwrap().to_owned(),
            id: made["id"].as_str().unwrap().to_owned(),
            workspace: of.id,
            grants,
            ended: None,
        }
    }

    /// Everything that may not change, as the database has it.
    async fn state(&self) -> BTreeMap<String, String> {
        let mut superuser = self.world.database.superuser().await;
        let tables: Vec<String> = sqlx::query_scalar(
            "SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
              WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p')",
        )
        .fetch_all(&mut superuser)
        .await
        .unwrap();
        let mut state = BTreeMap::new();
        for table in tables {
            // The entries of refusals are the only ones that may be added; and when somebody was last seen may change.
            let rows = match table.as_str() {
                "entries" => {
                    "SELECT workspace_id, type, count(*) FROM entries WHERE type <> 'audit.access.denied'
                              GROUP BY 1, 2"
                }
                "openings" => {
                    "SELECT count(*) FROM openings o JOIN entries e USING (workspace_id, ledger_id, seq)
                                WHERE e.type <> 'audit.access.denied'"
                }
                "audit_index" => "SELECT * FROM audit_index WHERE action <> 'access.denied'",
                // The last says every few seconds that the node is there.
                "heads" | "tiles" | "key_encryption_holders" | "nodes" => continue,
                // How far the dispatcher is, and for how long it holds the lane, it writes when it likes.
                "lanes" => {
                    "SELECT to_jsonb(t) - ARRAY['leased_until', 'sent_through', 'fence', 'holder'] FROM lanes t"
                }
                _ => &format!("SELECT to_jsonb(t) - 'last_used_at' - 'last_seen_at' FROM {table} t"),
            };
            let digest =
                format!("SELECT COALESCE(string_agg(r::text, chr(10) ORDER BY r::text), '') FROM ({rows}) r");
            let text: String =
                sqlx::query_scalar(sqlx::AssertSqlSafe(digest)).fetch_one(&mut superuser).await.unwrap();
            state.insert(table, text);
        }
        for table in ["sources", "destinations", "api_keys", "members", "invitations", "sessions", "entries"]
        {
            assert!(state[table].len() > 20, "{table} is empty, so that nothing could change in it");
        }
        state
    }
}

/// What is to be on the record: ledger, actor, route, reason, and how many times.
type Expected = BTreeMap<(String, String, String, String), u64>;

/// What is on the record.
async fn recorded(scene: &Scene) -> Expected {
    let mut found = Expected::new();
    for workspace in [&scene.ours, &scene.theirs, &scene.instance] {
        for entry in workspace.entries_of("audit.access.denied").await {
            let data = &entry["data"];
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            assert_eq!(data["outcome"], "denied");
            assert_eq!(data["details"].get("not_recorded_before"), None, "none was dropped");
            let key = (workspace.id.to_string(), text(&data["actor"]["id"]), text(&data["reason"]));
            // Of strangers an entry counts the routes, of others it is of one.
            let details = &data["details"];
            let routes: BTreeMap<String, u64> = match details.get("routes") {
                Some(routes) => serde_json::from_value(routes.clone()).unwrap(),
                None => BTreeMap::from([(text(&details["route"]), details["count"].as_u64().unwrap())]),
            };
            assert_eq!(details.get("routes").is_some(), key.1 == "unknown");
            assert_eq!(routes.values().sum::<u64>(), details["count"].as_u64().unwrap());
            if routes.keys().all(|route| route.contains("{workspace}")) {
                assert_eq!(data["targets"][0]["type"], "workspace", "what was asked for: {entry}");
            }
            for (route, count) in routes {
                let key = (key.0.clone(), key.1.clone(), route, key.2.clone());
                *found.entry(key).or_default() += count;
            }
        }
    }
    found
}

/// A walk, and what it left to be recorded.
struct Walk<'a> {
    scene: &'a Scene,
    expected: Expected,
    unwritten: usize,
}

impl Walk<'_> {
    /// Refuses, as has to be, with an answer that tells nothing; false where `who` may.
    async fn refused(&mut self, route: &Route, who: &Who) -> bool {
        let Some(refusal) = self.scene.refusal(route, who) else { return false };
        let name = route.name();
        let theirs = self.scene.theirs.id.to_string();
        let answer = self.scene.ask(route, who, &theirs).await;
        assert_eq!((answer.problem(refusal.status), &*name), (refusal.kind.to_owned(), &*name));
        let mut times = 1;
        if refusal.status == 404 {
            // As if there were no such workspace: the same, byte for byte, up to the ids of workspace and request.
            let nowhere = WorkspaceId::new().to_string();
            let other = self.scene.ask(route, who, &nowhere).await;
            times += 1;
            let text = |answer: &Answer, id: &str| {
                let mut problem = answer.json();
                problem["instance"] = Value::Null;
                problem.to_string().replace(id, "ws")
            };
            assert_eq!(text(&answer, &theirs), text(&other, &nowhere), "{name}");
            let headers = |answer: &Answer| -> BTreeSet<String> {
                answer.headers.keys().map(ToString::to_string).collect()
            };
            assert_eq!(headers(&answer), headers(&other), "{name}");
        }
        let told = answer.text().replace(&theirs, "");
        for marked in ["marked", "hook", "viewer@example.com", "bystander@example.com"] {
            assert!(!told.contains(marked), "{name} tells {marked}: {told}");
        }
        let key = (refusal.ledger.to_string(), refusal.actor, name, refusal.reason.to_owned());
        *self.expected.entry(key).or_default() += times;
        self.unwritten += 1;
        // A batch takes 256 different refusals; more would be counted as dropped.
        if self.unwritten > 200 {
            self.written().await;
        }
        true
    }

    async fn everywhere(&mut self, who: &Who) -> usize {
        let mut refused = 0;
        for route in Route::guarded() {
            refused += usize::from(self.refused(&route, who).await);
        }
        refused
    }

    /// Waits until all is on the record, and nothing else.
    async fn written(&mut self) {
        let (scene, expected) = (self.scene, &self.expected);
        let total: u64 = expected.values().sum();
        let found = eventually("the refusals are on the record", || async {
            let found = recorded(scene).await;
            (found.values().sum::<u64>() >= total).then_some(found)
        })
        .await;
        for (key, count) in expected {
            assert_eq!(found.get(key), Some(count), "{key:?}");
        }
        assert_eq!(found.len(), expected.len());
        self.unwritten = 0;
    }

    /// Ends the walk: all is on the record, and nothing else has happened.
    async fn ends(mut self, before: &BTreeMap<String, String>) {
        self.written().await;
        let after = self.scene.state().await;
        for (table, rows) in before {
            assert_eq!(&after[table], rows, "{table} has changed");
        }
        self.scene.world.assert_whole(&[&self.scene.ours, &self.scene.theirs]).await;
    }
}

impl Scene {
    fn walk(&self) -> Walk<'_> {
        Walk { scene: self, expected: Expected::new(), unwritten: 0 }
    }
}

#[tokio::test]
async fn every_route_is_listed_with_what_it_needs() {
    let world = World::new().await;
    let document = world.api.get("/openapi.json").await.expect(200).json();
    let served: BTreeSet<String> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, of)| {
            of.as_object().unwrap().keys().map(move |m| format!("{} {path}", m.to_uppercase()))
        })
        .collect();
    let listed: BTreeSet<String> = Route::all().map(|route| route.name()).collect();
    assert_eq!(listed.len(), ROUTES.len(), "each once");
    assert_eq!(served, listed, "a route of the document that is not in the walk, or the other way round");
    // The document says of each what a key needs, or that no key opens it.
    for route in Route::all() {
        let operation = &document["paths"][route.path][route.method.to_lowercase()];
        let said: Vec<&str> = operation["security"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|way| way["token"].as_array())
            .flat_map(|scopes| scopes.iter().map(|scope| scope.as_str().unwrap()))
            .collect();
        let (scopes, description): (Vec<&str>, Option<String>) = match route.door {
            Needs(permission) => {
                let scopes = permission.scopes();
                let words = operation["description"].as_str().unwrap_or_default().to_owned();
                (scopes.into_iter().map(Scope::name).collect(), Some(words))
            }
            _ => (Vec::new(), None),
        };
        assert_eq!(said, scopes, "{}", route.name());
        if let Some(description) = description {
            let named = scopes.iter().all(|scope| description.contains(&format!("`{scope}`")));
            assert!(named && description.contains("A key "), "{}: {description}", route.name());
        }
    }
    let needs = NEEDS.iter().map(|(route, permission)| ((*route).to_owned(), *permission));
    let walked = Route::all().filter_map(|route| match route.door {
        Needs(permission) => Some((route.name(), permission)),
        _ => None,
    });
    assert_eq!(needs.collect::<BTreeMap<_, _>>(), walked.collect::<BTreeMap<_, _>>());
}

#[test]
fn an_auditor_reads_and_exports_everything_and_changes_nothing() {
    let auditor = Role::Auditor.grants();
    let mut read = 0;
    for route in Route::guarded() {
        if let Needs(permission) = route.door
            && permission != P::OneSelf
        {
            assert_eq!(auditor.has(permission), route.method == "GET", "{}", route.name());
            read += usize::from(route.method == "GET");
        }
    }
    assert!(read > 20, "{read}");
}

#[tokio::test]
async fn keys_that_are_none_open_nothing() {
    let scene = scene().await;
    let admin = scene.key(&scene.theirs, &["admin"]).await;
    let read = scene.key(&scene.theirs, &["read"]).await;
    let (Who::Key { token: admin, .. }, Who::Key { token: read, .. }) = (admin, read) else { unreachable!() };
    let before = scene.state().await;
    let mut walk = scene.walk();
    let routes = Route::guarded();
    assert_eq!(walk.everywhere(&Who::Nobody).await, routes.len());
    for token in ["wrong", "sl_admin_0_wrong", "", &read.replace("sl_read_", "sl_admin_")] {
        assert_eq!(walk.everywhere(&Who::Unknown { token: token.to_owned() }).await, routes.len());
    }
    let cookie = format!("{}x", scene.viewer.cookie);
    assert_eq!(walk.everywhere(&Who::UnknownSession { cookie }).await, routes.len());
    // Each character of a key, each at some route, so that every route sees some.
    for (at, character) in admin.char_indices() {
        let flipped = char::from(character as u8 ^ if character.is_ascii_alphabetic() { 0x20 } else { 1 });
        let mut token = admin.clone();
        token.replace_range(at..=at, &flipped.to_string());
        assert!(walk.refused(&routes[at % routes.len()], &Who::Unknown { token }).await);
    }
    assert!(admin.len() > routes.len(), "every route saw one");
    walk.ends(&before).await;
}

#[tokio::test]
async fn keys_open_what_their_scopes_say_in_their_own_workspace_and_nothing_else() {
    let scene = scene().await;
    let mut narrow = Vec::new();
    for (scope, _) in Scope::all() {
        narrow.push((scope.name(), scene.key(&scene.theirs, &[scope.name()]).await));
    }
    let other = scene.key(&scene.ours, &["admin"]).await;
    let mut ended = Vec::new();
    for reason in ["revoked", "expired"] {
        let mut who = scene.key(&scene.theirs, &["admin"]).await;
        let Who::Key { id, ended: of, .. } = &mut who else { unreachable!() };
        *of = Some(reason);
        let column = if reason == "revoked" { "revoked_at" } else { "expires_at" };
        let statement = format!("UPDATE api_keys SET {column} = now() WHERE key_id = $1");
        sqlx::query(sqlx::AssertSqlSafe(statement))
            .bind(id.parse::<KeyId>().unwrap().uuid())
            .execute(&mut scene.world.database.superuser().await)
            .await
            .unwrap();
        ended.push(who);
    }
    let before = scene.state().await;
    let mut walk = scene.walk();
    let all = Route::guarded();
    for (name, who) in &narrow {
        let refused = walk.everywhere(who).await;
        let fewest = if *name == "admin" { 6 } else { 15 };
        assert!(refused >= fewest && refused < all.len(), "{name} is refused {refused} times");
    }
    // Another workspace's administrator finds nothing; what names no workspace shows its own.
    let in_a_workspace = all.iter().filter(|route| route.of_a_workspace()).count();
    assert!(walk.everywhere(&other).await >= in_a_workspace);
    for who in &ended {
        assert_eq!(walk.everywhere(who).await, all.len());
    }
    walk.ends(&before).await;
    // And what they may read they can read.
    for (name, who) in narrow.iter().chain([&("another's", other)]) {
        for route in all.iter().filter(|r| r.method == "GET" && scene.refusal(r, who).is_none()) {
            let answer = scene.ask(route, who, &scene.theirs.id.to_string()).await;
            assert_eq!(answer.status, 200, "{name} {}: {:?}", route.name(), answer.body);
            if *name == "another's" {
                assert!(!answer.text().contains("marked") && answer.text().contains("ours"));
            }
        }
    }
    drop(scene.receiver);
}

/// A person's session, as the walk uses it.
fn session(person: &Person, role: Option<Role>, csrf: Option<&str>) -> Who {
    Who::Session {
        cookie: person.cookie.clone(),
        csrf: csrf.map(str::to_owned),
        csrf_holds: csrf == Some(&person.csrf),
        user: person.id.to_string(),
        role,
        ended: None,
    }
}

#[tokio::test]
async fn sessions_open_what_their_roles_say_where_they_have_one() {
    let scene = scene().await;
    let (world, theirs) = (&scene.world, scene.theirs.id);
    let mut people = Vec::new();
    for role in [Role::Member, Role::Auditor, Role::Admin, Role::Owner] {
        let email = format!("{}@example.com", role.name());
        people.push((world.person(&email, &[(theirs, role)]).await, role));
    }
    let elsewhere = world.person("elsewhere@example.com", &[(scene.ours.id, Role::Owner)]).await;
    let mut ended = Vec::new();
    for (reason, change) in [
        ("revoked", "UPDATE sessions SET ended_at = now() WHERE session_id = $1"),
        ("expired", "UPDATE sessions SET expires_at = now() WHERE session_id = $1"),
        ("expired", "UPDATE sessions SET last_seen_at = now() - interval '1 year' WHERE session_id = $1"),
        (
            "revoked",
            "UPDATE users SET disabled_at = now()
              WHERE user_id = (SELECT user_id FROM sessions WHERE session_id = $1)",
        ),
    ] {
        let email = format!("{}@example.com", ended.len());
        let person = world.person(&email, &[(theirs, Role::Owner)]).await;
        sqlx::query(change)
            .bind(person.session.uuid())
            .execute(&mut world.database.superuser().await)
            .await
            .unwrap();
        let mut who = session(&person, Some(Role::Owner), Some(&person.csrf));
        let Who::Session { ended: of, .. } = &mut who else { unreachable!() };
        *of = Some(reason);
        ended.push(who);
    }
    let before = scene.state().await;
    let mut walk = scene.walk();
    let all = Route::guarded();
    let viewer = session(&scene.viewer, Some(Role::Viewer), Some(&scene.viewer.csrf));
    let mut allowed = vec![viewer.clone()];
    let mut last = walk.everywhere(&viewer).await;
    assert!(last > 20);
    let changes = all.iter().filter(|route| route.method != "GET").count();
    // What is read of the instance is refused to a workspace's owner, whatever the token.
    let of_the_instance =
        all.iter().filter(|r| r.method == "GET" && r.permission().of_the_instance()).count();
    for (person, role) in &people {
        let who = session(person, Some(*role), Some(&person.csrf));
        let refused = walk.everywhere(&who).await;
        if *role != Role::Auditor {
            assert!(refused <= last, "{role:?} may no less than the one before");
            last = refused;
        }
        allowed.push(who);
    }
    // An owner's session, but with no token, a forged one, somebody else's; or from another site's page.
    let (owner, _) = people.last().unwrap();
    let forged = if owner.csrf.starts_with('A') { "B" } else { "A" }.to_owned() + &owner.csrf[1..];
    for csrf in [None, Some("x"), Some(&*forged), Some(&*scene.viewer.csrf)] {
        let who = session(owner, Some(Role::Owner), csrf);
        assert_eq!(walk.everywhere(&who).await, changes + of_the_instance);
    }
    let other = session(&elsewhere, None, Some(&elsewhere.csrf));
    assert!(walk.everywhere(&other).await >= all.iter().filter(|route| route.of_a_workspace()).count());
    for who in &ended {
        assert_eq!(walk.everywhere(who).await, all.len());
    }
    walk.ends(&before).await;
    for who in &allowed {
        for route in all.iter().filter(|r| r.method == "GET" && scene.refusal(r, who).is_none()) {
            let answer = scene.ask(route, who, &theirs.to_string()).await;
            assert_eq!(answer.status, 200, "{}: {:?}", route.name(), answer.body);
        }
    }
    drop(scene.receiver);
}

#[tokio::test]
async fn nobody_gives_more_than_they_have_and_trying_is_on_the_record() {
    let scene = scene().await;
    let who = scene.key(&scene.theirs, &["keys:write"]).await;
    let Who::Key { token, id, .. } = &who else { unreachable!() };
    let path = scene.theirs.at("/keys");
    let before = scene.state().await;
    let mut walk = scene.walk();
    for scope in ["admin", "write", "ledger:read"] {
        let request = scene.world.api.bare("POST", &path).bearer_auth(token);
        let answer = send(request.json(&json!({ "name": "more", "scopes": [scope] }))).await;
        assert_eq!(answer.problem(403), "scope");
    }
    let route = "POST /v1/workspaces/{workspace}/keys".to_owned();
    walk.expected.insert((scene.theirs.id.to_string(), id.clone(), route, "beyond".to_owned()), 3);
    walk.ends(&before).await;
}
