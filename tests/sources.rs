//! Sources: what is sent to us, taken byte for byte; and what the stores say, seen once and never answered back.

use crate::harness::{Receiver, Workspace, World, eventually, send};
use crate::truth::scene::{self, Scene};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use statusledger::id::SourceId;
use statusledger::observation::record::{Asked, Missed, record};
use statusledger::observation::{Kind, Observation};
use statusledger::source::inbound::MAX_PAYLOAD;
use statusledger::source::look::{Covered, Look};
use statusledger::source::store::Store;
use statusledger_simulator::{Fault, FaultKind, Options, Scenario, Service, Simulator, Step};
use statusledger_verify::json::Object;
use std::collections::BTreeSet;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SCENARIO: &str = r#"
[[app_store]]
name = "Acme"
apps = [{ id = "1001", name = "Acme Weather", bundle_id = "com.acme.weather" }]

[[app_store.builds]]
id = "b42"
app = "1001"
platform = "IOS"
version = "42"
pre_release_version = "1.0.0"
processing_state = "PROCESSING"

[[app_store.versions]]
id = "v100"
app = "1001"
platform = "IOS"
version_string = "1.0.0"
state = "PREPARE_FOR_SUBMISSION"

[[google_play]]
name = "acme"
apps = [{ package = "com.acme.weather", display_name = "Acme Weather", tracks = ["production"] }]

[[google_play.releases]]
package = "com.acme.weather"
track = "production"
name = "1.0.0"
version_codes = [100]
state = "IN_REVIEW"
"#;

/// Both stores, standing still until they are told to move.
pub async fn simulator() -> Simulator {
    let options = Options { speed: Some(0.0), ..Options::default() };
    Simulator::start(Scenario::from_toml(SCENARIO).unwrap(), options).await.unwrap()
}

/// Requests for a source of each store.
pub fn requests(simulator: &Simulator) -> [Value; 2] {
    let key = simulator.app_store_key("Acme").unwrap();
    let account = simulator.google_service_account_json("acme").unwrap();
    [
        json!({
            "kind": "app_store",
            "name": "App Store Connect",
            "credentials": {
                "key_id": key.key_id,
                "issuer_id": key.issuer_id,
                "private_key": key.private_key_pem.as_str(),
            },
            "base_url": simulator.app_store_base_url(),
        }),
        json!({
            "kind": "google_play",
            "name": "Google Play",
            "service_account": serde_json::from_str::<Value>(&account).unwrap(),
            "publisher_url": simulator.publisher_base_url(),
            "reporting_url": simulator.reporting_base_url(),
        }),
    ]
}

fn version(state: &str) -> Step {
    Step::VersionState { id: "v100".into(), state: state.into() }
}

fn build(state: &str) -> Step {
    Step::BuildState {
        id: "b42".into(),
        processing_state: Some(state.into()),
        expired: None,
        internal_state: None,
        external_state: None,
    }
}

fn release(state: &str) -> Step {
    let release = json!({
        "do": "release", "package": "com.acme.weather", "track": "production",
        "name": "1.0.0", "version_codes": [100], "state": state,
    });
    serde_json::from_value(release).unwrap()
}

/// Waits until each source's health is that.
async fn healthy(workspace: &Workspace, health: &str) -> Vec<Value> {
    eventually(&format!("sources that are {health}"), || async {
        let listed = workspace.api.get(&workspace.at("/sources")).await.expect(200).json();
        let items = listed["items"].as_array()?.clone();
        items.iter().all(|s| s["health"] == health).then_some(items)
    })
    .await
}

/// Waits until every source was swept from its beginning after now.
async fn swept(workspace: &Workspace) {
    let polled = || async {
        let listed = workspace.api.get(&workspace.at("/sources")).await.expect(200).json();
        let items = listed["items"].as_array().unwrap().clone();
        items.iter().map(|s| s["last_polled_at"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    // Two sweeps on: the first may have begun before.
    for _ in 0..2 {
        let before = polled().await;
        eventually("another sweep", || async {
            polled().await.iter().zip(&before).all(|(now, before)| now > before).then_some(())
        })
        .await;
    }
}

async fn states(workspace: &Workspace) -> BTreeSet<(String, String)> {
    let listed = workspace.api.get(&workspace.at("/subjects")).await.expect(200).json();
    let items = listed["items"].as_array().unwrap();
    items.iter().map(|s| (s["kind"].as_str().unwrap().into(), s["state"].as_str().unwrap().into())).collect()
}

fn of(states: &[(&str, &str)]) -> BTreeSet<(String, String)> {
    states.iter().map(|(kind, state)| ((*kind).to_owned(), (*state).to_owned())).collect()
}

async fn watching(world: &World, simulator: &Simulator) -> Workspace {
    let workspace = world.workspace("stores").await;
    for request in requests(simulator) {
        world.api.post(&workspace.at("/sources"), request).await.expect(201);
    }
    healthy(&workspace, "ok").await;
    workspace
}

#[tokio::test]
async fn each_scripted_transition_is_told_once_and_first_sights_are_not() {
    let (world, simulator) = (World::new().await, simulator().await);
    let receiver = Receiver::of(&world).await;
    let workspace = world.workspace("stores").await;
    workspace.destination(&receiver, "hook", json!({ "filter": { "types": ["store.*"] } })).await;
    let seen = json!({ "filter": { "types": ["store.*"], "first_seen": true } });
    workspace.destination(&receiver, "first", seen).await;
    for request in requests(&simulator) {
        world.api.post(&workspace.at("/sources"), request).await.expect(201);
    }
    healthy(&workspace, "ok").await;
    swept(&workspace).await;
    // An app of each store, a version, a build with its two beta states, a release.
    let sights = receiver.taken("first", 7).await;
    assert!(sights.iter().all(|h| h.kind.ends_with(".first_seen")));
    let first = of(&[
        ("app", "VISIBLE"),
        ("version", "PREPARE_FOR_SUBMISSION"),
        ("build", "PROCESSING"),
        ("beta_internal", "PROCESSING"),
        ("beta_external", "PROCESSING"),
        ("release", "IN_REVIEW"),
    ]);
    assert_eq!(states(&workspace).await, first);

    let mut expected = Vec::new();
    let script = [
        (build("VALID"), "build", "PROCESSING", "VALID"),
        (version("WAITING_FOR_REVIEW"), "version", "PREPARE_FOR_SUBMISSION", "WAITING_FOR_REVIEW"),
        (release("PUBLISHED"), "release", "IN_REVIEW", "PUBLISHED"),
        (version("IN_REVIEW"), "version", "WAITING_FOR_REVIEW", "IN_REVIEW"),
        (version("REJECTED"), "version", "IN_REVIEW", "REJECTED"),
        (version("WAITING_FOR_REVIEW"), "version", "REJECTED", "WAITING_FOR_REVIEW"),
    ];
    for (step, kind, from, to) in script {
        simulator.apply(step).unwrap();
        let mut told = |kind: &str, from: &str, to: &str| {
            expected.push((format!("store.{kind}.transitioned"), from.to_owned(), to.to_owned()));
        };
        told(kind, from, to);
        if kind == "build" {
            // What is processed is ready for its testers.
            told("beta_internal", "PROCESSING", "READY_FOR_BETA_TESTING");
            told("beta_external", "PROCESSING", "READY_FOR_BETA_TESTING");
        }
        receiver.taken("hook", expected.len()).await;
        swept(&workspace).await;
    }
    let hooks = receiver.hooks_of("hook");
    let told: Vec<_> = hooks
        .iter()
        .map(|h| {
            let text = |name: &str| h.value["data"][name].as_str().unwrap().to_owned();
            (h.kind.clone(), text("from"), text("to"))
        })
        .collect();
    assert_eq!(told, expected);
    for hook in &hooks {
        let data = &hook.value["data"];
        assert_eq!(data["app"], "com.acme.weather");
        assert!(data["subject"].is_object() && data["seen_at"].is_string());
    }
    assert_eq!(workspace.entries_of("store.version.first_seen").await.len(), 1);
    receiver.assert_all_verified();
    world.assert_whole(&[&workspace]).await;
}

#[tokio::test]
async fn a_store_is_only_ever_read() {
    let (world, simulator) = (World::new().await, simulator().await);
    let workspace = watching(&world, &simulator).await;
    simulator.apply(version("WAITING_FOR_REVIEW")).unwrap();
    swept(&workspace).await;
    let requests = simulator.requests();
    assert!(requests.len() > 10);
    for request in &requests {
        let token = request.method == "POST" && request.path == "/token";
        assert!(request.method == "GET" || token, "{} {}", request.method, request.path);
        assert!(!request.path.contains("/edits"), "{}", request.path);
        assert!(request.operation.is_some() || token, "{} {}", request.method, request.path);
    }
    assert!(requests.iter().any(|r| r.method == "POST"));
}

#[tokio::test]
async fn a_stores_failure_is_the_sources_health_and_never_an_apps_state() {
    let (world, simulator) = (World::new().await, simulator().await);
    let workspace = watching(&world, &simulator).await;
    swept(&workspace).await;
    let before = states(&workspace).await;
    let entries = workspace.entries().await.len();
    for (kind, health) in [
        (FaultKind::Unauthorized, "refused"),
        (FaultKind::ServerError, "degraded"),
        (FaultKind::RateLimited, "degraded"),
        (FaultKind::Unavailable, "degraded"),
        (FaultKind::Garbage, "degraded"),
        (FaultKind::Cut, "degraded"),
    ] {
        let named = |service| Fault {
            name: Some("test".into()),
            retry_after: Some(1),
            ..Fault::new(kind).of(service)
        };
        simulator.apply(Step::Fault(named(Service::AppStore))).unwrap();
        simulator.apply(Step::Fault(named(Service::GooglePlay))).unwrap();
        healthy(&workspace, health).await;
        assert_eq!(states(&workspace).await, before, "{kind:?}");
        simulator.apply(Step::EndFault { name: None }).unwrap();
        healthy(&workspace, "ok").await;
    }
    assert_eq!(states(&workspace).await, before);
    let new: BTreeSet<String> =
        workspace.entries().await[entries..].iter().map(|e| e["type"].as_str().unwrap().to_owned()).collect();
    assert_eq!(new, BTreeSet::from(["source.health_changed".to_owned()]));
    world.assert_whole(&[&workspace]).await;
}

#[tokio::test]
async fn missing_agreements_and_a_role_too_small_are_told_apart() {
    let (world, simulator) = (World::new().await, simulator().await);
    let workspace = world.workspace("apple").await;
    let [apple, _] = requests(&simulator);
    world.api.post(&workspace.at("/sources"), apple).await.expect(201);
    healthy(&workspace, "ok").await;
    for (kind, health) in
        [(FaultKind::Agreements, "agreements_missing"), (FaultKind::Forbidden, "role_too_small")]
    {
        simulator.apply(Step::Fault(Fault::new(kind))).unwrap();
        let sources = healthy(&workspace, health).await;
        assert!(sources[0]["health_detail"].is_string());
        simulator.apply(Step::EndFault { name: None }).unwrap();
        healthy(&workspace, "ok").await;
    }
}

#[tokio::test]
async fn what_is_gone_is_told_once_and_its_last_state_stays_as_it_was() {
    let (world, simulator) = (World::new().await, simulator().await);
    let workspace = watching(&world, &simulator).await;
    swept(&workspace).await;
    let before = states(&workspace).await;
    let entries = workspace.entries().await.len();
    simulator.apply(Step::RemoveBuild { id: "b42".into() }).unwrap();
    simulator.apply(Step::RemoveVersion { id: "v100".into() }).unwrap();
    let codes = [100].into();
    let gone = Step::RemoveRelease {
        package: "com.acme.weather".into(),
        track: "production".into(),
        version_codes: codes,
    };
    simulator.apply(gone).unwrap();
    let told = || async {
        let new = workspace.entries().await.split_off(entries);
        let told: BTreeSet<String> = new.iter().map(|e| e["type"].as_str().unwrap().to_owned()).collect();
        (told.len(), new.len(), told)
    };
    let wanted =
        BTreeSet::from(["version", "build", "release"].map(|k| format!("store.{k}.no_longer_visible")));
    eventually("all that is gone", || async { told().await.2.is_superset(&wanted).then_some(()) }).await;
    swept(&workspace).await;
    let (kinds, count, told) = told().await;
    assert_eq!(kinds, count, "each once: {told:?}");
    assert!(told.iter().all(|kind| kind.ends_with(".no_longer_visible")), "{told:?}");
    assert_eq!(states(&workspace).await, before);
    world.assert_whole(&[&workspace]).await;
}

#[tokio::test]
async fn two_nodes_see_a_transition_once() {
    let (world, simulator) = (World::new().await, simulator().await);
    let (second, _) = world.another().await;
    let workspace = watching(&world, &simulator).await;
    for state in ["WAITING_FOR_REVIEW", "IN_REVIEW", "REJECTED"] {
        simulator.apply(version(state)).unwrap();
        swept(&workspace).await;
    }
    let told = workspace.entries_of("store.version.transitioned").await;
    let to: Vec<&str> = told.iter().map(|e| e["data"]["to"].as_str().unwrap()).collect();
    assert_eq!(to, ["WAITING_FOR_REVIEW", "IN_REVIEW", "REJECTED"]);
    second.stop().await;
    world.assert_whole(&[&workspace]).await;
}

#[tokio::test]
async fn a_store_key_that_cannot_be_used_is_refused_when_it_is_given() {
    let (world, simulator) = (World::new().await, simulator().await);
    let workspace = world.workspace("keys").await;
    let [apple, google] = requests(&simulator);
    let path = workspace.at("/sources");
    let mut wrong = apple.clone();
    wrong["credentials"]["private_key"] = "not a key".into();
    assert_eq!(world.api.post(&path, wrong).await.problem(422), "invalid");
    let mut wrong = google.clone();
    wrong["service_account"] = json!({ "type": "service_account" });
    assert_eq!(world.api.post(&path, wrong).await.problem(422), "invalid");
    let made = world.api.post(&path, apple.clone()).await.expect(201).json();
    assert_eq!(world.api.post(&path, apple).await.problem(409), "conflict");
    let one = format!("{path}/{}", made["id"].as_str().unwrap());
    let listed = world.api.get(&path).await.expect(200).json();
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    world.api.delete(&one).await.expect(204);
    assert_eq!(world.api.get(&one).await.problem(404), "not-found");
    let secrets: i64 = sqlx::query_scalar("SELECT count(*) FROM sources WHERE secret IS NOT NULL")
        .fetch_one(&mut world.database.superuser().await)
        .await
        .unwrap();
    assert_eq!(secrets, 0, "the key is destroyed with its source");
}

#[tokio::test]
async fn another_host_for_a_store_is_refused_where_the_operator_does_not_allow_it() {
    let world = World::with(|s| s.polling.allow_other_hosts = false).await;
    let simulator = simulator().await;
    let workspace = world.workspace("hosts").await;
    for request in requests(&simulator) {
        let answer = world.api.post(&workspace.at("/sources"), request).await;
        assert_eq!(answer.problem(422), "invalid");
        assert!(answer.text().contains("does not allow other addresses"));
    }
    assert!(simulator.requests().is_empty());
}

#[tokio::test]
async fn an_event_is_durable_when_it_is_accepted() {
    let mut world = World::new().await;
    let workspace = world.workspace("inbound").await;
    let source = workspace.inbound("events").await;
    let answer = source.post("an event").await.expect(202).json();
    let seq = answer["seq"].as_u64().unwrap();
    world.stop().await;
    world.start().await.unwrap();
    let entry = world.api.get(&workspace.at(&format!("/entries/{seq}"))).await.expect(200).json();
    assert_eq!((&entry["type"], &entry["timestamp"]), (&json!("event.received"), &answer["timestamp"]));
    assert_eq!(entry["data"]["source"], source.id.to_string());
    assert_eq!(entry["data"]["size"], 8);
}

#[tokio::test]
async fn an_event_needs_its_own_sources_token() {
    let world = World::new().await;
    let workspace = world.workspace("inbound").await;
    let (source, other) = (workspace.inbound("one").await, workspace.inbound("two").await);
    let path = format!("/in/{}", source.id);
    let with = |token: &str| world.api.bare("POST", &path).bearer_auth(token).body("x");
    let damaged = format!("{}x", source.token);
    for token in [other.token.as_str(), &world.api.token, &damaged, "", "sl_in_"] {
        let answer = send(with(token)).await;
        assert_eq!(answer.problem(401), "unauthorized", "{token}");
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
    }
    assert_eq!(send(world.api.bare("POST", &path).body("x")).await.problem(401), "unauthorized");
    let basic = world.api.bare("POST", &path).basic_auth("x", Some(&source.token)).body("x");
    assert_eq!(send(basic).await.problem(401), "unauthorized");
    // A source's token opens nothing else.
    let api = world.api.bare("GET", "/v1/workspaces").bearer_auth(&source.token);
    assert_eq!(send(api).await.problem(401), "unauthorized");
    world.api.delete(&workspace.at(&format!("/sources/{}", source.id))).await.expect(204);
    assert_eq!(send(with(&source.token)).await.problem(401), "unauthorized");
    assert_eq!(workspace.entries_of("event.received").await.len(), 0);
}

#[tokio::test]
async fn a_payload_has_a_mebibyte_and_not_a_byte_more() {
    let world = World::new().await;
    let workspace = world.workspace("inbound").await;
    let source = workspace.inbound("events").await;
    source.post(vec![b'x'; MAX_PAYLOAD]).await.expect(202);
    for more in [1, 2, MAX_PAYLOAD] {
        assert_eq!(source.post(vec![b'x'; MAX_PAYLOAD + more]).await.problem(413), "too-large");
    }
    // Also where the sender does not say how much it will be.
    let chunks = (0..17).map(|_| Ok::<_, std::io::Error>(vec![b'x'; 65_536]));
    let body = reqwest::Body::wrap_stream(futures_util::stream::iter(chunks));
    let request = world.api.bare("POST", &format!("/in/{}", source.id)).bearer_auth(&source.token).body(body);
    assert_eq!(send(request).await.problem(413), "too-large");
    assert_eq!(workspace.entries_of("event.received").await.len(), 1);
}

#[tokio::test]
async fn every_payload_comes_out_of_its_opening_byte_for_byte() {
    let world = World::new().await;
    let workspace = world.workspace("inbound").await;
    let source = workspace.inbound("events").await;
    let receiver = Receiver::of(&world).await;
    workspace.destination(&receiver, "hook", json!({})).await;
    let payloads: [&[u8]; 12] = [
        b"",
        b"plain",
        br#"{"a":1.0,"a":2,"big":9007199254740993,"e":1e2,"z":-0}"#,
        b"{\"unended\": [1, 2",
        b"  \r\n\t spaces \x00 and \x1f controls \x7f",
        "é ü \u{1F600} \u{2028} \u{FEFF} e\u{301}".as_bytes(),
        br#"{"lone":"\ud800"}"#,
        b"\xff\xfe not text",
        b"\xed\xa0\x80",
        b"\xc0\xaf",
        &[0, 159, 146, 150],
        b"</script>\"'\\",
    ];
    for (n, payload) in payloads.iter().enumerate() {
        let request = source.request(*payload).header("content-type", "application/x-test; charset=odd");
        send(request).await.expect(202);
        let hooks = receiver.taken("hook", n + 1).await;
        let value = &hooks[n].value["openings"]["payload"]["value"];
        assert_eq!(value["content_type"], "application/x-test; charset=odd");
        let out = match std::str::from_utf8(payload) {
            Ok(_) => value["text"].as_str().unwrap().as_bytes().to_vec(),
            Err(_) => STANDARD.decode(value["base64"].as_str().unwrap()).unwrap(),
        };
        assert_eq!(out, *payload, "payload {n}");
        assert_eq!(hooks[n].value["data"]["size"], payload.len());
    }
    receiver.assert_all_verified();
    world.assert_whole(&[&workspace]).await;
}

#[tokio::test]
async fn a_build_in_processing_is_asked_for_however_many_are_newer() {
    let mut team = scene::acme();
    team["builds"] = (0..205)
        .map(|n| {
            json!({ "id": format!("b{n}"), "app": "1001", "platform": "IOS", "version": format!("{n}"),
                "pre_release_version": "1.0.0",
                "processing_state": if n == 0 { "PROCESSING" } else { "VALID" },
                "internal_state": "IN_BETA_TESTING", "external_state": "READY_FOR_BETA_SUBMISSION",
                "uploaded": if n == 0 { "2026-01-01T00:00:00Z" } else { "2026-01-05T00:00:00Z" } })
        })
        .collect();
    let scene =
        Scene::of(json!({ "app_store": [team] }), |settings| settings.polling.settled_s = 3600.0).await;
    let whole_lists = || {
        let second = |r: &&statusledger_simulator::RecordedRequest| {
            r.path == "/v1/builds" && r.query.contains("cursor")
        };
        scene.simulator.requests().iter().filter(second).count()
    };
    let before = whole_lists();
    assert!(before > 0, "there is more than a page");
    let requests = scene.simulator.requests();
    let last_page =
        requests.iter().position(|r| r.path == "/v1/builds" && r.query.contains("cursor")).unwrap();
    assert_ne!(requests[last_page + 1].path, "/v1/builds", "a first look asks for no build again");
    scene.apply(Step::BuildState {
        id: "b0".into(),
        processing_state: Some("VALID".into()),
        expired: None,
        internal_state: None,
        external_state: None,
    });
    scene.told(&["build.transitioned b0 PROCESSING>VALID poll"]).await;
    assert_eq!(whole_lists(), before, "it was not the hourly list that told it");
    scene.says(&["build.transitioned b0 PROCESSING>VALID poll"]).await;
}

/// The statements over subjects, named by lists, that change them.
fn updates_of_many() -> Vec<String> {
    let statements = concat!(env!("CARGO_MANIFEST_DIR"), "/.sqlx");
    let read = |file: std::io::Result<std::fs::DirEntry>| {
        let statement: Value = serde_json::from_slice(&std::fs::read(file.unwrap().path()).unwrap()).unwrap();
        statement["query"].as_str().unwrap().to_owned()
    };
    let of_many = |query: &String| query.starts_with("UPDATE subjects") && query.contains("unnest(");
    std::fs::read_dir(statements).unwrap().map(read).filter(of_many).collect()
}

#[tokio::test]
async fn what_changes_many_subjects_compares_none_with_each_before_postgres_has_counted_them() {
    let world = World::new().await;
    let workspace = world.workspace("many").await;
    let made = world.api.post(&workspace.at("/sources"), json!({ "kind": "inbound", "name": "ci" })).await;
    let source = made.expect(201).json()["id"].as_str().unwrap().parse::<SourceId>().unwrap().uuid();
    let mut superuser = world.database.superuser().await;
    for statement in [
        "ALTER TABLE subjects SET (autovacuum_enabled = false)",
        "INSERT INTO subjects (workspace_id, source_id, kind, subject_key, app, description, state, state_since,
                               first_seen_at, last_seen_at, seq)
         SELECT workspace_id, source_id, 'build', n, 'com.acme', '{}', 'VALID', now(), now(), now(), n
           FROM sources, generate_series(1, 20000) AS n",
    ] {
        sqlx::query(statement).execute(&mut superuser).await.unwrap();
    }
    // As the service does it, and as Postgres plans a statement that a connection has made a few times.
    let workspace_id: uuid::Uuid =
        sqlx::query_scalar("SELECT workspace_id FROM sources").fetch_one(&mut superuser).await.unwrap();
    for statement in [
        "SET ROLE statusledger_service".to_owned(),
        format!("SET sl.workspace = '{workspace_id}'"),
        "SET plan_cache_mode = force_generic_plan".to_owned(),
    ] {
        sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut superuser).await.unwrap();
    }
    let updates = updates_of_many();
    assert_eq!(updates.len(), 2, "what was seen as it was, and what was missing");
    for (n, update) in updates.into_iter().enumerate() {
        let at = if update.contains("$5") { ", now()" } else { "" };
        let types = if at.is_empty() { "" } else { ", timestamptz" };
        let prepare = format!("PREPARE u{n} (uuid, uuid, text[], text[]{types}) AS {update}");
        let explain = format!(
            "EXPLAIN EXECUTE u{n} ('{workspace_id}', '{source}', ARRAY['build', 'build'], ARRAY['1', '2']{at})"
        );
        sqlx::query(sqlx::AssertSqlSafe(prepare)).execute(&mut superuser).await.unwrap();
        let plan: Vec<String> =
            sqlx::query_scalar(sqlx::AssertSqlSafe(explain)).fetch_all(&mut superuser).await.unwrap();
        let plan = plan.join("\n");
        assert!(plan.contains("hashed SubPlan") && !plan.contains("Nested Loop"), "{update}\n{plan}");
    }
}

#[tokio::test]
async fn a_look_at_very_many_subjects_is_recorded_in_time_that_grows_with_their_number() {
    const SUBJECTS: usize = 150_000;
    let world = World::new().await;
    let workspace = world.workspace("many").await;
    // One that is only told: no round of the node's own comes in between.
    let told = json!({ "kind": "app_store", "name": "told", "webhook_secret": "a secret of some length" });
    let made = world.api.post(&workspace.at("/sources"), told).await.expect(201).json();
    let source: SourceId = made["id"].as_str().unwrap().parse().unwrap();
    sqlx::query(
        "INSERT INTO subjects (workspace_id, source_id, kind, subject_key, app, scope, description, state, state_since,
                               first_seen_at, last_seen_at, seq)
         SELECT $1, $2, 'build', 'many' || n, 'com.acme.weather', '1001', '{}', 'VALID', now(), now(), now(), 1
           FROM generate_series(1, $3) AS n",
    )
    .bind(workspace.id.uuid())
    .bind(source.uuid())
    .bind(SUBJECTS as i32)
    .execute(&mut world.database.superuser().await)
    .await
    .unwrap();
    let observation = |n: usize| Observation {
        kind: Kind::Build,
        key: format!("many{n}"),
        app: "com.acme.weather".into(),
        scope: "1001".into(),
        description: Object::default(),
        state: "VALID".into(),
        facts: Object::default(),
        store_at: None,
    };
    // The last of them is missing, and each app's list was read to its end.
    let look = Look {
        observations: (1..SUBJECTS).map(observation).collect(),
        covered: (0..SUBJECTS)
            .map(|n| Covered { kind: Kind::Build, scope: Some((1001 + n).to_string()) })
            .collect(),
        ..Look::default()
    };
    let at = time::OffsetDateTime::now_utc();
    // It has no key, and nothing of this is news that would be recorded under one.
    let (store, under) = (Store::AppStore, [0; 32]);
    let asked = Asked { workspace: workspace.id, source, store, at, direct: false, under };
    let mut missed = Missed::default();
    let recorded = record(&world.node().writer, &asked, &look, &mut missed);
    let news = tokio::time::timeout(2 * crate::harness::DEADLINE, recorded).await.unwrap().unwrap();
    assert_eq!((news.first_seen, news.transitions, news.left_out), (0, 0, 0));
    let (seen, missing): (i64, i64) = sqlx::query_as(
        "SELECT count(*) FILTER (WHERE last_seen_at = $1), count(*) FILTER (WHERE missing = 1) FROM subjects
          WHERE subject_key LIKE 'many%'",
    )
    .bind(at)
    .fetch_one(&mut world.database.superuser().await)
    .await
    .unwrap();
    assert_eq!((seen, missing), (SUBJECTS as i64 - 1, 1));
}

#[tokio::test]
async fn no_event_is_recorded_after_its_source_was_removed_whenever_and_wherever_it_was_sent() {
    let world = World::new().await;
    let (second, elsewhere) = world.another().await;
    let workspace = world.workspace("removed").await;
    let (slow, source) = (workspace.inbound("slow").await, workspace.inbound("events").await);
    let repeated = source.post_once("once", "what was sent").await.expect(202).json();

    // Half a body, and the rest of it after the removal.
    let host = world.api.base.trim_start_matches("http://").to_owned();
    let mut stream = tokio::net::TcpStream::connect(&host).await.unwrap();
    let (id, token) = (slow.id, &slow.token);
    let head = format!(
        "POST /in/{id} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nExpect: 100-continue\r\nContent-Length: 4\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 1024];
    let read = stream.read(&mut answer).await.unwrap();
    // It was let in: its body is asked for.
    assert!(answer[..read].starts_with(b"HTTP/1.1 100"), "{}", String::from_utf8_lossy(&answer[..read]));
    stream.write_all(b"ha").await.unwrap();
    elsewhere.delete(&workspace.at(&format!("/sources/{id}"))).await.expect(204);
    stream.write_all(b"lf").await.unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert!(rest.starts_with("HTTP/1.1 401"), "{rest}");

    // What else is changed here, on whichever node, refuses nobody else.
    source.event("after the removal of another").await;
    let receiver = Receiver::of(&world).await;
    workspace.destination(&receiver, "hook", json!({})).await;
    source.event("after a destination was made").await;

    // Known here, and removed there: refused at once, a repetition too.
    elsewhere.delete(&workspace.at(&format!("/sources/{}", source.id))).await.expect(204);
    assert_eq!(source.post_once("once", "what was sent").await.problem(401), "unauthorized");
    assert_eq!(source.post("too late").await.problem(401), "unauthorized");
    let entries = workspace.entries().await;
    let removed = |entry: &&Value| entry["type"] == "source.deleted";
    let end = entries.iter().rfind(removed).unwrap()["seq"].as_u64().unwrap();
    let events: Vec<u64> = entries
        .iter()
        .filter(|entry| entry["type"] == "event.received")
        .map(|entry| entry["seq"].as_u64().unwrap())
        .collect();
    assert_eq!((events.len(), events[0]), (3, repeated["seq"].as_u64().unwrap()));
    assert!(events.iter().all(|seq| *seq < end), "{events:?} {end}");
    second.stop().await;
}
