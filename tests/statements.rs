//! What the database is asked before a request is answered: nothing, where the key itself says that it may not.
//!
//! A proxy of Postgres's protocol stands between a node and its database and notes every statement that passes, by its
//! text. What a node asks by itself (is it the same server? is there work?) is learned first and left out.

use crate::harness::{Answer, Api, Requests, TestDatabase, World, eventually, proxy, quick, send, temporary};
use serde_json::{Value, json};
use statusledger::access::scope::Role;
use statusledger::database::{Database, roles};
use statusledger::id::KeyId;
use statusledger::node::Node;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::net::UnixStream;

/// The statements that passed, in their order.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn note(&self, statement: &str) {
        self.0.lock().unwrap().push(statement.to_owned());
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

/// Passes one connection on, noting what is executed.
async fn pass_on(mut client: UnixStream, mut server: UnixStream, log: Log) -> std::io::Result<()> {
    let (client_read, mut client_write) = client.split();
    let (mut server_read, mut server_write) = server.split();
    let answers = tokio::io::copy(&mut server_read, &mut client_write);
    let requests = async {
        let mut requests = Requests::new(client_read);
        loop {
            let message = requests.next().await?;
            if let Some(statement) = &message.statement {
                log.note(statement);
            }
            message.pass_on(&mut server_write).await?;
        }
    };
    tokio::select! {
        ended = answers => ended.map(drop),
        ended = requests => ended,
    }
}

async fn open(database: &TestDatabase, socket: &Path) -> Database {
    let through = |role| database.options(role).socket(socket);
    Database::open(through(roles::SERVICE), through(roles::WORKER), 6).await.unwrap()
}

/// Refusals of the instance's ledger, as its ledger has them.
async fn refusals(api: &Api, workspace: &str) -> usize {
    let path = format!("{workspace}/entries?limit=1000&type=audit.access.denied");
    api.get(&path).await.expect(200).json()["items"].as_array().unwrap().len()
}

/// A node whose statements are noted.
struct Listened {
    node: Node,
    log: Log,
    /// What it asks by itself.
    known: BTreeSet<String>,
}

impl Listened {
    /// Over the database of `world`. Whoever looks after the record goes another way than through the proxy. Its ordinary
    /// work is learned first: how a node starts, watches over its database, and puts a refusal on the record.
    async fn over(world: &World) -> Self {
        let instance = format!("/v1/workspaces/{}", world.node().gate.instance);
        let log = Log::default();
        let socket = proxy(&world.database.options(roles::SERVICE), {
            let log = log.clone();
            move |client, server| pass_on(client, server, log.clone())
        });
        let mut settings = quick(&temporary("node"));
        settings.key_encryption_key_file = Some(world.settings.key_encryption_key_path());
        let node =
            Node::start(&settings, Some(&settings.instance), open(&world.database, &socket).await).await;
        let node = node.unwrap();
        send(world.api.at(node.address).bare("GET", "/v1/workspaces")).await.problem(401);
        eventually("a refusal without a key is on the record", || async {
            (refusals(&world.api, &instance).await > 0).then_some(())
        })
        .await;
        let watches = |log: &Log| log.all().iter().filter(|s| s.contains("pg_postmaster_start_time")).count();
        let begun = watches(&log);
        eventually("the node has looked after its database", || async {
            (watches(&log) > begun + 1).then_some(())
        })
        .await;
        let known: BTreeSet<String> = log.all().into_iter().collect();
        assert!(known.len() > 10, "the proxy hears the node");
        Self { node, log, known }
    }

    /// Sends a request; with its answer, what the database was asked for it.
    async fn counted(&self, request: reqwest::RequestBuilder) -> (Answer, Vec<String>) {
        let from = self.log.len();
        let answer = send(request).await;
        let asked = self.log.all().split_off(from).into_iter();
        (answer, asked.filter(|statement| !self.known.contains(statement)).collect())
    }
}

#[tokio::test]
async fn a_request_that_a_keys_scope_refuses_asks_the_database_nothing() {
    let world = World::new().await;
    let workspace = world.workspace("counted").await;
    let instance = format!("/v1/workspaces/{}", world.node().gate.instance);
    let body = json!({ "name": "reader", "scopes": ["ledger:read"] });
    let made = world.api.post(&workspace.at("/keys"), body).await.expect(201).json();
    let listened = Listened::over(&world).await;
    let api = Api::new(listened.node.address, made["token"].as_str().unwrap());
    let refused: [(&str, String, Value); 9] = [
        ("GET", workspace.at("/sources"), Value::Null),
        ("POST", workspace.at("/sources"), json!({ "kind": "inbound", "name": "never" })),
        ("DELETE", workspace.at("/keys/key_0199b1c4-0000-7000-8000-000000000001"), Value::Null),
        ("POST", "/v1/workspaces".to_owned(), json!({ "name": "never" })),
        ("GET", workspace.at("/export"), Value::Null),
        ("PATCH", workspace.path.clone(), json!({ "name": "never" })),
        ("DELETE", workspace.at("/destinations/ep_0199b1c4-0000-7000-8000-000000000001"), Value::Null),
        // What is for people is for no key, whatever its scopes.
        ("DELETE", workspace.at("/membership"), Value::Null),
        ("POST", "/v1/passkeys/challenge".to_owned(), json!({})),
    ];
    for (number, (method, path, body)) in refused.iter().enumerate() {
        let mut request =
            api.request(method, path).header("idempotency-key", "a key").header("if-match", "*");
        if !body.is_null() {
            request = request.json(body);
        }
        let (answer, asked) = listened.counted(request).await;
        assert_eq!(asked, Vec::<String>::new(), "{method} {path}");
        let kind = answer.problem(403);
        assert_eq!(
            kind,
            if path.ends_with("/membership") || path.contains("passkeys") { "session" } else { "scope" }
        );
        // It is put on the record afterwards; the next is asked when that has been done.
        eventually("the refusal is on the record", || async {
            (refusals(&world.api, &workspace.path).await > number).then_some(())
        })
        .await;
    }
    // The same means count what a request asks that is let in, and one whose key has to be looked up.
    let (answer, allowed) = listened.counted(api.request("GET", &workspace.at("/entries/0"))).await;
    answer.expect(200);
    assert!(allowed.iter().any(|s| s.contains("FROM api_keys")), "{allowed:?}");
    assert!(allowed.iter().any(|s| s.contains("FROM entries")), "{allowed:?}");
    let (answer, asked) = listened.counted(api.request("GET", &format!("{instance}/entries/0"))).await;
    assert_eq!(answer.problem(404), "not-found");
    assert!(!asked.is_empty());
    listened.node.stop().await;
}

#[tokio::test]
async fn what_another_instance_has_made_is_refused_before_the_database_is_asked_and_on_the_record() {
    let (production, staging) = (World::new().await, World::new().await);
    let (theirs, ours) = (production.workspace("theirs").await, staging.workspace("ours").await);
    let body = json!({ "name": "theirs", "scopes": ["admin"], "instance": true });
    let own = format!("/v1/workspaces/{}/keys", production.node().gate.instance);
    let made = production.api.post(&own, body).await.expect(201).json();
    let token = made["token"].as_str().unwrap();
    let person = production.person("ana@example.com", &[(theirs.id, Role::Owner)]).await;
    // Both are good where they were made.
    send(production.api.bare("GET", &theirs.path).bearer_auth(token)).await.expect(200);
    send(production.api.bare("GET", &theirs.path).header("cookie", &person.cookie)).await.expect(200);

    // Somebody who writes their rows into the other instance's database too has still no key of it, nor a session.
    let (mut from, mut into) = (production.database.superuser().await, staging.database.superuser().await);
    let instance = staging.node().gate.instance;
    for (table, id) in [("api_keys", "key_id"), ("users", "user_id"), ("sessions", "session_id")] {
        let ids = [
            made["id"].as_str().unwrap().parse::<KeyId>().unwrap().uuid(),
            person.id.uuid(),
            person.session.uuid(),
        ];
        let all = format!("SELECT to_jsonb(t)::text FROM {table} t WHERE {id} = ANY ($1)");
        let row: String =
            sqlx::query_scalar(sqlx::AssertSqlSafe(all)).bind(&ids[..]).fetch_one(&mut from).await.unwrap();
        let mut row: Value = serde_json::from_str(&row).unwrap();
        if table == "api_keys" {
            row["workspace_id"] = json!(instance.uuid());
        }
        let insert =
            format!("INSERT INTO {table} SELECT * FROM jsonb_populate_record(NULL::{table}, $1::jsonb)");
        sqlx::query(sqlx::AssertSqlSafe(insert)).bind(row.to_string()).execute(&mut into).await.unwrap();
    }
    staging.join(ours.id, person.id, Role::Owner).await;

    let listened = Listened::over(&staging).await;
    let api = staging.api.at(listened.node.address);
    let with_key = |method: &str, path: &str| api.bare(method, path).bearer_auth(token);
    let in_session = |method: &str, path: &str| {
        api.bare(method, path).header("cookie", &person.cookie).header("x-csrf-token", &person.csrf)
    };
    let name = json!({ "name": "never" });
    let mut times = 0;
    for path in [ours.path.clone(), theirs.path.clone(), "/v1/workspaces".to_owned()] {
        for (method, body) in [("GET", None), ("PATCH", Some(&name)), ("POST", Some(&name))] {
            let wrong = (method == "POST") != path.ends_with("/workspaces");
            if method != "GET" && wrong {
                continue;
            }
            for request in [with_key(method, &path), in_session(method, &path)] {
                let request = match body {
                    Some(body) => request.header("idempotency-key", "a key").json(body),
                    None => request,
                };
                let (answer, asked) = listened.counted(request).await;
                assert_eq!(asked, Vec::<String>::new(), "{method} {path}");
                assert_eq!(answer.problem(401), "unauthorized", "{method} {path}");
            }
            times += 1;
        }
    }
    let entries = format!("/v1/workspaces/{instance}/entries?limit=1000&type=audit.access.denied");
    for reason in ["unknown_key", "unknown_session"] {
        eventually(&format!("{times} refusals for {reason} on the record"), || async {
            let entries = staging.api.get(&entries).await.expect(200).json()["items"].clone();
            let of = entries.as_array().unwrap().iter().map(|e| &e["data"]).filter(|d| d["reason"] == reason);
            let count: u64 = of
                .inspect(|data| assert_eq!(data["actor"]["type"], "unknown"))
                .map(|data| data["details"]["count"].as_u64().unwrap())
                .sum();
            (count == times).then_some(())
        })
        .await;
    }
    assert_eq!(staging.api.get(&ours.path).await.expect(200).json()["name"], "ours");
    listened.node.stop().await;
}
