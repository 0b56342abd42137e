//! Killed right before and right after each durable write, deterministically: a proxy before the database holds the process
//! at the commit, it is killed there, another one starts, and the oracle is asked: `doctor`, the verifier on a whole
//! export, and whoever was told something.

use crate::harness::{
    Answer, Api, Between, Destination, Inbound, Moment, Program, Receiver, TestDatabase, Workspace, run,
    spawn, temporary, try_send, verify_export,
};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use statusledger::database::roles;
use statusledger_keys::key_encryption::KeyEncryptionKey;
use std::path::{Path, PathBuf};

const MOMENTS: [Moment; 2] = [Moment::Before, Moment::After];

/// A node behind a proxy, with a workspace that has an inbound source and a destination.
struct Scene {
    database: TestDatabase,
    directory: PathBuf,
    between: Between,
    environment: Vec<(String, String)>,
    program: Option<Program>,
    hits: usize,
    api: Api,
    workspace: Workspace,
    source: Inbound,
    receiver: Receiver,
    destination: Destination,
}

fn place(database: &TestDatabase, directory: &Path, socket: Option<&Path>) -> Vec<String> {
    let url = |role| match socket {
        Some(socket) => {
            let socket = socket.to_str().unwrap();
            format!("postgres:///{}?host={socket}&user={role}&sslmode=disable", database.name)
        }
        None => database.url(role),
    };
    let data = directory.join("node");
    [
        "--data-dir",
        data.to_str().unwrap(),
        "--database-url",
        &url(roles::SERVICE),
        "--worker-database-url",
        &url(roles::WORKER),
    ]
    .map(str::to_owned)
    .into()
}

async fn serve(
    database: &TestDatabase,
    directory: &Path,
    between: &Between,
    environment: &[(String, String)],
    port: u16,
) -> Program {
    let port = port.to_string();
    let mut arguments =
        ["serve", "--port", &port, "--instance", "status.example.com"].map(str::to_owned).to_vec();
    arguments.extend(place(database, directory, Some(&between.directory)));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let environment: Vec<(&str, &str)> = environment.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    Program::start(directory, &directory.join("log"), &arguments, &environment).await
}

impl Scene {
    async fn new() -> Self {
        let (database, directory) = (TestDatabase::create().await, temporary("points"));
        let between = Between::new(&database).await;
        let (other_key, data) = (directory.join("other-key"), directory.join("node"));
        std::fs::create_dir(&data).unwrap();
        KeyEncryptionKey::load_or_create(&other_key).unwrap();
        let environment: Vec<(String, String)> = [
            ("STATUSLEDGER_DELIVERY__ALLOW_HTTP", "true".to_owned()),
            ("STATUSLEDGER_DELIVERY__ALLOW_NETWORKS", r#"["127.0.0.0/8"]"#.to_owned()),
            ("STATUSLEDGER_DELIVERY__SCHEDULE_S", "[0.0,0.1,0.1,0.1,0.1,0.1]".to_owned()),
            ("STATUSLEDGER_KEY_ENCRYPTION_KEY_OTHER_FILES", format!("[{:?}]", other_key.to_str().unwrap())),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        let program = serve(&database, &directory, &between, &environment, 0).await;
        let token = std::fs::read_to_string(data.join("bootstrap-token")).unwrap();
        let api = Api::new(program.address, token.trim());
        let receiver = Receiver::start(program.pin.clone(), &api.base).await;
        receiver.learn_keys().await;
        let workspace = api.workspace("points").await;
        let source = workspace.inbound("events").await;
        let hears = json!({ "filter": { "types": ["event.*"] } });
        let destination = workspace.destination(&receiver, "hook", hears).await;
        source.event("the first").await;
        receiver.taken("hook", 1).await;
        destination.settled(1, "delivered").await;
        let program = Some(program);
        Self {
            database,
            directory,
            between,
            environment,
            program,
            hits: 0,
            api,
            workspace,
            source,
            receiver,
            destination,
        }
    }

    /// The node is held at the commit of that statement while it does what is asked of it, killed there, and started anew.
    /// What was answered, if anything was.
    async fn killed_at(
        &mut self,
        statement: &str,
        moment: Moment,
        request: reqwest::RequestBuilder,
    ) -> Option<Answer> {
        self.between.trap(statement, moment);
        let asked = tokio::spawn(async move { try_send(request).await.ok() });
        self.hits += 1;
        self.between.hit(self.hits).await;
        self.restart().await;
        asked.await.unwrap()
    }

    async fn restart(&mut self) {
        let program = self.program.take().unwrap();
        let port = program.address.port();
        program.kill().await;
        self.program =
            Some(serve(&self.database, &self.directory, &self.between, &self.environment, port).await);
    }

    async fn count(&self, of: &str) -> i64 {
        let statement = format!("SELECT count(*) FROM {of}")
            .replace("$W", &format!("workspace_id = '{}'", self.workspace.id.uuid()));
        let mut superuser = self.database.superuser().await;
        sqlx::query_scalar(AssertSqlSafe(statement)).fetch_one(&mut superuser).await.unwrap()
    }

    async fn entries_of(&self, kind: &str) -> i64 {
        self.count(&format!("entries WHERE type = '{kind}' AND ($W OR type LIKE 'audit.key%')")).await
    }

    /// Waits until each event was delivered, under one id each, and asks the oracle.
    async fn assert_whole(&self, events: usize) {
        let hooks = self.receiver.taken("hook", events).await;
        self.receiver.assert_all_verified();
        self.destination.settled(events, "delivered").await;
        for hook in &hooks {
            let same = hooks.iter().find(|other| other.number == hook.number).unwrap();
            assert_eq!((&same.id, &same.body), (&hook.id, &hook.body), "number {}", hook.number);
        }
        let numbers: std::collections::BTreeSet<u64> = hooks.iter().map(|hook| hook.number).collect();
        assert!(numbers.into_iter().eq(1..=events as u64));
        let mut arguments = vec!["doctor".to_owned()];
        arguments.extend(place(&self.database, &self.directory, None));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let environment: Vec<(&str, &str)> =
            self.environment.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let examined = run(&self.directory, &arguments, &environment).await;
        let told = String::from_utf8_lossy(&examined.stdout).into_owned();
        assert!(told.contains("all as it was written"), "{told} {examined:?}");
        let answer = self.api.get(&self.workspace.at("/export?openings=true")).await.expect(200);
        let file = temporary("export").join("ledger.zip");
        std::fs::write(&file, &answer.body).unwrap();
        verify_export(&file, &self.program.as_ref().unwrap().pin).unwrap();
    }

    /// Runs a command behind the proxy that is held at the commit of that statement, and kills it there.
    async fn command_killed_at(&mut self, words: &[&str], statement: &str, moment: Moment) {
        self.between.trap(statement, moment);
        let mut arguments: Vec<String> = words.iter().map(ToString::to_string).collect();
        arguments.extend(place(&self.database, &self.directory, Some(&self.between.directory)));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let environment: Vec<(&str, &str)> =
            self.environment.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let mut child = spawn(&self.directory, &arguments, &environment);
        self.hits += 1;
        self.between.hit(self.hits).await;
        child.start_kill().unwrap();
        child.wait().await.unwrap();
    }

    /// Runs a command that has to end well.
    async fn command(&self, words: &[&str]) {
        let mut arguments: Vec<String> = words.iter().map(ToString::to_string).collect();
        arguments.extend(place(&self.database, &self.directory, None));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let environment: Vec<(&str, &str)> =
            self.environment.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let output = run(&self.directory, &arguments, &environment).await;
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[tokio::test]
async fn killed_before_or_after_an_append_is_durable_the_event_is_there_once() {
    let mut scene = Scene::new().await;
    for (n, moment) in MOMENTS.into_iter().enumerate() {
        let key = format!("event-{n}");
        let before = scene.entries_of("event.received").await;
        let request = scene.source.request("an event").header("idempotency-key", &key);
        let answer = scene.killed_at("ledger_append", moment, request).await;
        assert!(answer.is_none(), "nothing was acknowledged: {answer:?}");
        let there = i64::from(moment == Moment::After);
        assert_eq!(scene.entries_of("event.received").await, before + there, "{moment:?}");
        // Whoever did not hear an answer asks again, and it is there once.
        let again = scene.source.post_once(&key, "an event").await.expect(202).json();
        assert_eq!(scene.entries_of("event.received").await, before + 1, "{moment:?}");
        let same = scene.source.post_once(&key, "an event").await.expect(202).json();
        assert_eq!(again, same);
        scene.assert_whole(before as usize + 1).await;
    }
}

#[tokio::test]
async fn killed_before_or_after_a_mutation_is_durable_it_and_its_audit_entry_are_there_or_neither() {
    let mut scene = Scene::new().await;
    for (n, moment) in MOMENTS.into_iter().enumerate() {
        let (sources, entries) =
            (scene.count("sources WHERE $W").await, scene.entries_of("audit.source.created").await);
        let made = json!({ "kind": "inbound", "name": format!("another {n}") });
        let request = scene.api.request("POST", &scene.workspace.at("/sources")).json(&made);
        let answer = scene.killed_at("ledger_append", moment, request).await;
        assert!(answer.is_none(), "{answer:?}");
        let there = i64::from(moment == Moment::After);
        assert_eq!(scene.count("sources WHERE $W").await, sources + there, "{moment:?}");
        assert_eq!(scene.entries_of("audit.source.created").await, entries + there, "{moment:?}");
    }
    scene.assert_whole(1).await;
}

#[tokio::test]
async fn killed_before_or_after_a_checkpoint_is_kept_the_same_one_is_signed_again() {
    let mut scene = Scene::new().await;
    for moment in MOMENTS {
        scene.source.event("something new").await;
        let path = scene.workspace.at("/checkpoint");
        let kept = "checkpoints WHERE $W AND size = (SELECT size FROM heads WHERE $W)";
        let answer =
            scene.killed_at("INSERT INTO checkpoints", moment, scene.api.request("GET", &path)).await;
        assert!(answer.is_none(), "{answer:?}");
        assert_eq!(scene.count(kept).await, i64::from(moment == Moment::After), "{moment:?}");
        let [one, two] = [scene.api.get(&path).await, scene.api.get(&path).await];
        assert_eq!(one.expect(200).body, two.expect(200).body);
        assert_eq!(scene.count(kept).await, 1, "{moment:?}");
    }
    scene.assert_whole(3).await;
}

#[tokio::test]
async fn killed_before_or_after_an_outcome_is_durable_the_delivery_is_repeated_under_its_id_or_done() {
    let mut scene = Scene::new().await;
    for (n, moment) in MOMENTS.into_iter().enumerate() {
        let answer =
            scene.killed_at("attempts_record(", moment, scene.source.request(format!("event {n}"))).await;
        assert!(answer.is_none_or(|answer| answer.status == 202));
        let number = n as u64 + 2;
        scene.assert_whole(number as usize).await;
        let came = scene.receiver.hooks().iter().filter(|hook| hook.number == number).count();
        // What was written is not made again.
        assert_eq!(came, if moment == Moment::Before { 2 } else { 1 }, "{moment:?}");
        let kept = format!("attempts WHERE $W AND number = {number}");
        assert_eq!(scene.count(&kept).await, 1, "{moment:?}");
    }
}

#[tokio::test]
async fn killed_before_or_after_a_rotation_is_durable_there_is_one_ring_that_verifies() {
    let mut scene = Scene::new().await;
    for (n, moment) in MOMENTS.into_iter().enumerate() {
        let (manifests, told) =
            (scene.count("key_manifests").await, scene.entries_of("audit.key_ring.changed").await);
        scene.command_killed_at(&["keys", "rotate"], "INSERT INTO key_manifests", moment).await;
        let there = i64::from(moment == Moment::After);
        assert_eq!(scene.count("key_manifests").await, manifests + there, "{moment:?}");
        assert_eq!(scene.entries_of("audit.key_ring.changed").await, told + there, "{moment:?}");
        scene.source.event("under whichever key").await;
        scene.command(&["keys", "rotate"]).await;
        assert_eq!(scene.count("key_manifests").await, manifests + there + 1, "{moment:?}");
        scene.source.event("under the next").await;
        scene.assert_whole(3 + 2 * n).await;
    }
}

#[tokio::test]
async fn killed_before_or_after_a_row_is_rewrapped_each_row_opens_and_the_next_run_finishes() {
    for (statement, moment) in [
        ("UPDATE instance SET key_encryption_key", Moment::Before),
        ("UPDATE instance SET key_encryption_key", Moment::After),
        ("UPDATE data_keys SET wrapped_key", Moment::Before),
        ("UPDATE data_keys SET wrapped_key", Moment::After),
        ("UPDATE signing_keys SET private_key", Moment::After),
    ] {
        let mut scene = Scene::new().await;
        let other = scene.directory.join("other-key");
        let words = ["keys", "rewrap", "--to-file", other.to_str().unwrap()];
        scene.command_killed_at(&words, statement, moment).await;
        scene.source.event("in between").await;
        scene.assert_whole(2).await;
        // A node that starts now opens whatever stands under either.
        scene.restart().await;
        scene.source.event("after a start").await;
        scene.command(&words).await;
        let under = "(SELECT substring(sealed FROM 2 FOR 8) FROM (SELECT wrapped_key AS sealed FROM data_keys
            UNION ALL SELECT private_key FROM signing_keys WHERE private_key IS NOT NULL) s GROUP BY 1) u";
        assert_eq!(scene.count(under).await, 1, "{statement} {moment:?}");
        scene.restart().await;
        scene.assert_whole(3).await;
    }
}

#[tokio::test]
async fn killed_before_or_after_an_export_is_on_the_record_nothing_of_it_has_left() {
    let mut scene = Scene::new().await;
    for moment in MOMENTS {
        let told = scene.entries_of("audit.ledger.exported").await;
        let path = scene.workspace.at("/export");
        let answer = scene.killed_at("ledger_append", moment, scene.api.request("GET", &path)).await;
        assert!(answer.is_none(), "{answer:?}");
        let there = i64::from(moment == Moment::After);
        assert_eq!(scene.entries_of("audit.ledger.exported").await, told + there, "{moment:?}");
    }
    scene.assert_whole(1).await;
    let entries: Vec<Value> = scene.workspace.entries().await;
    assert!(entries.iter().enumerate().all(|(n, entry)| entry["seq"] == n), "seq is dense");
}
