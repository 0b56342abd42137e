//! Several nodes over one database, killed, stopped and started while people act: each act is done once, and whoever is
//! signed in is so on whichever node.

use crate::harness::{Api, Person, Program, World, eventually_within, send, temporary, try_send};
use serde_json::json;
use statusledger::access::scope::Role;
use statusledger::database::roles;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Nodes that serve at once.
const NODES: usize = 3;
/// How many times one of them goes and comes back.
const ROUNDS: usize = 6;
/// People who act at once.
const PEOPLE: usize = 4;
/// How long an act may take, tried at each node in turn.
const PATIENCE: Duration = Duration::from_secs(90);

/// Where the nodes serve. Locked to read or to write one.
type Addresses = Arc<Mutex<Vec<SocketAddr>>>;

/// A node as it is started, again and again.
struct Place {
    directory: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(&'static str, String)>,
}

impl Place {
    fn new(world: &World) -> Self {
        let [service, worker] = [roles::SERVICE, roles::WORKER].map(|role| world.database.url(role));
        let arguments =
            ["serve", "--data-dir", "node", "--port", "0", "--instance", &world.settings.instance];
        let databases = ["--database-url", &service, "--worker-database-url", &worker];
        let key = world.settings.key_encryption_key_path();
        Self {
            directory: temporary("node"),
            arguments: arguments.iter().chain(&databases).map(|&text| text.to_owned()).collect(),
            environment: vec![
                ("STATUSLEDGER_KEY_ENCRYPTION_KEY_FILE", key.to_str().unwrap().to_owned()),
                ("STATUSLEDGER_DATABASE_CONNECTIONS", "6".to_owned()),
            ],
        }
    }

    async fn start(&self) -> Program {
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        let environment: Vec<_> = self.environment.iter().map(|(name, value)| (*name, &**value)).collect();
        Program::start(&self.directory, &self.directory.join("log"), &arguments, &environment).await
    }
}

/// Makes a key called `name` at whichever node answers, as a client does that does not know whether it was heard: under one
/// idempotency key, until it is told that it was done.
async fn act(api: &Api, person: &Person, path: &str, name: &str, nodes: &Addresses, tried: &AtomicUsize) {
    eventually_within(PATIENCE, name, || async {
        let at = tried.fetch_add(1, Ordering::Relaxed);
        let address = nodes.lock().unwrap()[at % NODES];
        let request = api.at(address).bare("POST", path).header("cookie", &person.cookie);
        let request = request.header("x-csrf-token", &person.csrf).header("idempotency-key", name);
        let body = json!({ "name": name, "scopes": ["ledger:read"] });
        match try_send(request.timeout(Duration::from_secs(20)).json(&body)).await {
            Ok(answer) if answer.status == 201 => Some(()),
            // It was done by a node that died before its answer was kept; or it is being done.
            Ok(answer) if answer.status == 409 => match answer.problem(409).as_str() {
                "answer-lost" => Some(()),
                kind => {
                    assert_eq!(kind, "in-progress");
                    None
                }
            },
            // A session that is good is never refused: nothing but "not now" is another answer.
            Ok(answer) => {
                assert_eq!(answer.problem(503), "unavailable", "{}", answer.text());
                None
            }
            Err(e) => {
                assert!(!e.is_builder() && !e.is_redirect(), "{e}");
                None
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_come_and_go_while_people_act_and_no_act_is_lost_or_done_twice() {
    let world = World::new().await;
    let workspace = world.workspace("busy").await;
    let places: Vec<Place> = (0..NODES).map(|_| Place::new(&world)).collect();
    let mut programs = Vec::new();
    for place in &places {
        programs.push(Some(place.start().await));
    }
    let addresses = programs.iter().map(|program| program.as_ref().unwrap().address).collect();
    let nodes: Addresses = Arc::new(Mutex::new(addresses));
    let (over, tried) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let done = Arc::new(Mutex::new(BTreeMap::new()));
    let mut people = Vec::new();
    let mut acting = tokio::task::JoinSet::new();
    for n in 0..PEOPLE {
        let person = world.person(&format!("{n}@example.com"), &[(workspace.id, Role::Admin)]).await;
        let person = Arc::new(person);
        people.push(Arc::clone(&person));
        let (api, path) = (world.api.clone(), workspace.at("/keys"));
        let (nodes, over, tried, done) =
            (Arc::clone(&nodes), Arc::clone(&over), Arc::clone(&tried), Arc::clone(&done));
        acting.spawn(async move {
            let mut acts = 0;
            while !over.load(Ordering::Relaxed) {
                let name = format!("{n}-{acts}");
                act(&api, &person, &path, &name, &nodes, &tried).await;
                done.lock().unwrap().insert(name, person.id.to_string());
                acts += 1;
            }
        });
    }
    let mut superuser = world.database.superuser().await;
    for round in 0..ROUNDS {
        // Each goes in the middle of acts: some have been done since the last came back.
        let before = done.lock().unwrap().len();
        eventually_within(PATIENCE, "people act", || async {
            (done.lock().unwrap().len() >= before + 2 * PEOPLE).then_some(())
        })
        .await;
        let node = round % NODES;
        let program = programs[node].take().unwrap();
        if round % 2 == 0 {
            program.kill().await;
            // What it was at is free within a minute: that minute is over. What others are at is taken from them, too.
            sqlx::query(
                "UPDATE request_keys SET leased_until = now(),
                        expires_at = CASE WHEN carried_out THEN expires_at ELSE now() END
                  WHERE status IS NULL",
            )
            .execute(&mut superuser)
            .await
            .unwrap();
        } else {
            assert!(program.terminate().await, "a node that is stopped ends well");
        }
        let program = places[node].start().await;
        nodes.lock().unwrap()[node] = program.address;
        programs[node] = Some(program);
    }
    over.store(true, Ordering::Relaxed);
    while let Some(ended) = acting.join_next().await {
        ended.unwrap();
    }
    // Each act once, by whom it was, and on the record once.
    let done = std::mem::take(&mut *done.lock().unwrap());
    assert!(done.len() >= 2 * PEOPLE * ROUNDS);
    let made: Vec<(String, String)> =
        sqlx::query_as("SELECT name, created_by FROM api_keys WHERE workspace_id = $1 ORDER BY name")
            .bind(workspace.id.uuid())
            .fetch_all(&mut superuser)
            .await
            .unwrap();
    assert_eq!(made, done.iter().map(|(name, who)| (name.clone(), who.clone())).collect::<Vec<_>>());
    let recorded = workspace.entries_of("audit.key.created").await;
    assert_eq!(recorded.len(), done.len());
    let names: BTreeMap<String, String> = recorded
        .iter()
        .map(|entry| {
            let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
            (text(&entry["data"]["targets"][0]["id"]), text(&entry["data"]["actor"]["id"]))
        })
        .collect();
    assert_eq!(names.len(), done.len(), "each entry is of another key");
    // Whoever is signed in is so everywhere.
    for person in &people {
        for program in programs.iter().flatten() {
            let session = world.api.at(program.address).bare("GET", "/v1/session");
            let session = send(session.header("cookie", &person.cookie)).await.expect(200).json();
            assert!(session.to_string().contains(&person.id.to_string()), "{session}");
        }
    }
    for program in programs.into_iter().flatten() {
        assert!(program.terminate().await);
    }
    world.assert_whole(&[&workspace]).await;
}
