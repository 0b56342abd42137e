//! The key-encryption key: kept by AWS KMS (moto's server plays it), and replaced while nodes serve.

use crate::harness::{
    Api, Moto, Program, Receiver, TestDatabase, Workspace, eventually, run, spawn, temporary, verify_export,
};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection, Row};
use statusledger::database::{self, roles};
use statusledger_keys::key_encryption::KeyEncryptionKey;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const REGION: &str = "eu-central-1";
const INSTANCE: &str = "status.example.com";
/// Marked, so that it is found wherever it should not be.
const SECRET_ACCESS_KEY: &str = "marked-secret-access-key-0123456789";

/// Variables of a process.
#[derive(Clone)]
struct Environment(Vec<(String, String)>);

impl Environment {
    /// One in which the SDK asks nobody but whom it is told to.
    fn new() -> Self {
        let network = r#"["127.0.0.0/8"]"#;
        Self(Vec::new())
            .and("AWS_EC2_METADATA_DISABLED", "true")
            .and("STATUSLEDGER_DELIVERY__ALLOW_HTTP", "true")
            .and("STATUSLEDGER_DELIVERY__ALLOW_NETWORKS", network)
    }

    fn and(mut self, name: &str, value: impl ToString) -> Self {
        self.0.retain(|(known, _)| known != name);
        self.0.push((name.to_owned(), value.to_string()));
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.0.retain(|(known, _)| known != name);
        self
    }

    fn credentials(self, id: &str, secret: &str) -> Self {
        self.and("AWS_ACCESS_KEY_ID", id).and("AWS_SECRET_ACCESS_KEY", secret)
    }

    fn kms(self, moto: &Moto, key: &str) -> Self {
        self.credentials("marked-access-key", SECRET_ACCESS_KEY)
            .and("STATUSLEDGER_KMS__KEY", key)
            .and("STATUSLEDGER_KMS__ENDPOINT", &moto.endpoint)
            .and("STATUSLEDGER_KMS__REGION", REGION)
    }

    fn pairs(&self) -> Vec<(&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }
}

/// A database, a node's directory, and what is run over them.
struct Scene {
    database: TestDatabase,
    directory: PathBuf,
}

impl Scene {
    async fn new() -> Self {
        Self { database: TestDatabase::create().await, directory: temporary("kms") }
    }

    /// The same database seen from another node's directory.
    fn node(&self, name: &str) -> PathBuf {
        let path = self.directory.join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    fn arguments(&self, words: &[&str], node: &str) -> Vec<String> {
        let [service, worker] = [roles::SERVICE, roles::WORKER].map(|role| self.database.url(role));
        let node = self.node(node);
        let place = [
            "--data-dir",
            node.to_str().unwrap(),
            "--database-url",
            &service,
            "--worker-database-url",
            &worker,
        ];
        words.iter().chain(&place).map(ToString::to_string).collect()
    }

    fn serving(&self, node: &str) -> Vec<String> {
        let token = self.directory.join("token");
        self.arguments(
            &[
                "serve",
                "--port",
                "0",
                "--instance",
                INSTANCE,
                "--bootstrap-token-file",
                token.to_str().unwrap(),
            ],
            node,
        )
    }

    async fn serve(&self, node: &str, environment: &Environment) -> Program {
        let arguments = self.serving(node);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        Program::start(&self.directory, &self.log(), &arguments, &environment.pairs()).await
    }

    /// Runs a node that is to refuse; what it says.
    async fn refusal(&self, node: &str, environment: &Environment) -> String {
        let arguments = self.serving(node);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let environment = environment.pairs();
        let running = run(&self.directory, &arguments, &environment);
        let output = tokio::time::timeout(crate::harness::DEADLINE, running).await;
        let output = output.unwrap_or_else(|_| panic!("it does not end by itself: {environment:?}"));
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(!said.contains(SECRET_ACCESS_KEY), "{said}");
        said
    }

    async fn command(&self, words: &[&str], environment: &Environment) -> Output {
        let arguments = self.arguments(words, "node");
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        run(&self.directory, &arguments, &environment.pairs()).await
    }

    async fn done(&self, words: &[&str], environment: &Environment) -> String {
        let output = self.command(words, environment).await;
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn log(&self) -> PathBuf {
        self.directory.join("log")
    }

    fn api(&self, program: &Program) -> Api {
        let token = std::fs::read_to_string(self.directory.join("token")).unwrap();
        Api::new(program.address, token.trim())
    }

    async fn superuser(&self) -> PgConnection {
        self.database.superuser().await
    }

    /// The ids of the keys under which anything stands, each with how much does.
    async fn under(&self) -> Vec<(String, i64)> {
        let rows = sqlx::query(
            "SELECT encode(substring(sealed FROM 2 FOR 8), 'hex') AS id, count(*) AS n
               FROM (SELECT wrapped_key AS sealed FROM data_keys
                     UNION ALL SELECT private_key FROM signing_keys WHERE private_key IS NOT NULL) s
              GROUP BY 1 ORDER BY 2 DESC",
        )
        .fetch_all(&mut self.superuser().await)
        .await
        .unwrap();
        rows.iter().map(|row| (row.get("id"), row.get("n"))).collect()
    }

    /// The entries about re-wrapping, from the instance's ledger.
    async fn rewraps(&self) -> Vec<Value> {
        let rows: Vec<String> = sqlx::query_scalar(
            "SELECT e.entry FROM entries e JOIN instance i USING (workspace_id, ledger_id)
              WHERE e.type = 'key.encryption_rewrapped' ORDER BY e.seq",
        )
        .fetch_all(&mut self.superuser().await)
        .await
        .unwrap();
        rows.iter().map(|entry| serde_json::from_str::<Value>(entry).unwrap()["data"].clone()).collect()
    }

    async fn count(&self, table: &'static str) -> i64 {
        sqlx::query_scalar(sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}")))
            .fetch_one(&mut self.superuser().await)
            .await
            .unwrap()
    }
}

/// A new key in a file; the file and the key's id.
fn key_file(directory: &Path, name: &str) -> (PathBuf, String) {
    let path = directory.join(name);
    let key = KeyEncryptionKey::load_or_create(&path).unwrap();
    (path, key.id().to_string())
}

fn list(paths: &[&Path]) -> String {
    format!(
        "[{}]",
        paths.iter().map(|path| format!("{:?}", path.to_str().unwrap())).collect::<Vec<_>>().join(",")
    )
}

#[tokio::test]
async fn an_instance_whose_key_kms_keeps_needs_nothing_but_the_settings() {
    let moto = Moto::start().await;
    let kms_key = moto.key(REGION).await;
    let scene = Scene::new().await;
    // The region is the ARN's, and the log tells all it can.
    let environment = Environment::new()
        .kms(&moto, &kms_key)
        .without("STATUSLEDGER_KMS__REGION")
        .and("STATUSLEDGER_LOG", "trace");
    let program = scene.serve("node", &environment).await;
    let api = scene.api(&program);
    let workspace = api.workspace("kept by KMS").await;
    let receiver = Receiver::start(program.pin.clone(), &api.base).await;
    workspace.destination(&receiver, "hook", json!({})).await;
    let source = workspace.inbound("events").await;
    source.event("one").await;
    receiver.taken("hook", 1).await;
    assert!(program.terminate().await);
    assert!(!scene.node("node").join("key-encryption-key").exists(), "there is no file");

    // Another node, in an empty directory, opens what the first sealed.
    let program = scene.serve("another", &environment).await;
    let api = scene.api(&program);
    let there = Workspace { api: api.clone(), ..workspace };
    there.inbound("more").await.event("two").await;
    receiver.taken("hook", 2).await;
    receiver.assert_all_verified();
    let export = api.get(&there.at("/export?openings=true")).await.expect(200);
    let file = scene.directory.join("ledger.zip");
    std::fs::write(&file, &export.body).unwrap();
    verify_export(&file, &program.pin).unwrap();
    assert!(program.terminate().await);
    assert!(scene.done(&["doctor"], &environment).await.contains("all as it was written"));

    // What lies in the database opens by KMS alone, for this instance alone, and the key itself is nowhere.
    let row = sqlx::query("SELECT encode(wrapped, 'base64') AS blob, kms_key FROM key_encryption_keys")
        .fetch_one(&mut scene.superuser().await)
        .await
        .unwrap();
    assert_eq!(row.get::<String, _>("kms_key"), kms_key);
    let blob = row.get::<String, _>("blob").replace('\n', "");
    let context = |instance: &str| {
        json!({ "CiphertextBlob": blob, "EncryptionContext": {
            "statusledger:instance": instance, "statusledger:purpose": "key-encryption-key" } })
    };
    let (status, answer) = moto.kms(REGION, "Decrypt", context(INSTANCE)).await;
    assert_eq!(status, 200, "{answer}");
    let plaintext = answer["Plaintext"].as_str().unwrap().to_owned();
    let key = KeyEncryptionKey::from_base64(&plaintext).unwrap();
    assert_eq!(scene.under().await, [(key.id().to_string(), 5)], "two data keys and three signing keys");
    let (status, answer) = moto.kms(REGION, "Decrypt", context("another.example.com")).await;
    assert_eq!((status, answer["__type"].as_str()), (400, Some("InvalidCiphertextException")));
    let log = std::fs::read_to_string(scene.log()).unwrap();
    assert!(log.contains("TRACE") && log.contains("TrentService.Decrypt"), "the SDK tells what it does");
    for (what, secret) in [("the key", plaintext.as_str()), ("the credentials", SECRET_ACCESS_KEY)] {
        assert!(!log.contains(secret), "{what} is in the log");
    }
}

#[tokio::test]
async fn what_kms_refuses_is_said_at_the_start_and_leaves_nothing() {
    let moto = Moto::start().await;
    let (kms_key, other) = (moto.key(REGION).await, moto.key(REGION).await);
    let key_id = kms_key.rsplit_once('/').unwrap().1;
    let scene = Scene::new().await;
    let right = Environment::new().kms(&moto, &kms_key);
    // A port on which nobody listens any more.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let first_runs = [
        (
            "no such key",
            right.clone().and("STATUSLEDGER_KMS__KEY", "11111111-2222-3333-4444-555555555555"),
            "NotFoundException",
        ),
        (
            "the key of another region",
            right.clone().and("STATUSLEDGER_KMS__KEY", key_id).and("STATUSLEDGER_KMS__REGION", "us-east-1"),
            "NotFoundException",
        ),
        (
            "a region that contradicts the ARN",
            right.clone().and("STATUSLEDGER_KMS__REGION", "us-east-1"),
            "another region",
        ),
        (
            "no region",
            right.clone().and("STATUSLEDGER_KMS__KEY", key_id).without("STATUSLEDGER_KMS__REGION"),
            "kms.region",
        ),
        (
            "nobody there",
            right.clone().and("STATUSLEDGER_KMS__ENDPOINT", format!("http://{closed}")),
            "cannot be asked",
        ),
        (
            "an endpoint in clear",
            right.clone().and("STATUSLEDGER_KMS__ENDPOINT", "http://kms.example.com"),
            "kms.endpoint",
        ),
        (
            "no credentials",
            right.clone().without("AWS_ACCESS_KEY_ID").without("AWS_SECRET_ACCESS_KEY"),
            "credentials",
        ),
    ];
    for (what, environment, word) in &first_runs {
        let said = scene.refusal("node", environment).await;
        assert!(said.contains(word), "{what}: {said}");
        assert_eq!(
            (scene.count("instance").await, scene.count("key_encryption_keys").await),
            (0, 0),
            "{what}"
        );
    }
    scene.serve("node", &right).await.kill().await;
    let mut superuser = scene.superuser().await;
    assert_eq!(scene.count("key_encryption_keys").await, 1);
    let before = scene.under().await;

    // Beside an instance: another key, none, and a row that somebody exchanged.
    let said = scene.refusal("node", &right.clone().and("STATUSLEDGER_KMS__KEY", &other)).await;
    assert!(said.contains("AccessDeniedException") && said.contains(&other), "{said}");
    let without = Environment::new();
    let said = scene.refusal("node", &without).await;
    assert!(said.contains("key-encryption-key") && said.contains("cannot be used"), "{said}");
    let (file, _) = key_file(&scene.directory, "no use");
    let said =
        scene.refusal("node", &without.and("STATUSLEDGER_KEY_ENCRYPTION_KEY_FILE", file.display())).await;
    assert!(said.contains(&before[0].0) && said.contains("kms.key") && said.contains(&kms_key), "{said}");
    // Two keys: the one that wrapped it is among them.
    let two = right
        .clone()
        .and("STATUSLEDGER_KMS__KEY", &other)
        .and("STATUSLEDGER_KMS__OTHER_KEYS", format!("[{kms_key:?}]"));
    scene.serve("node", &two).await.kill().await;

    let foreign = Scene::new().await;
    foreign.serve("node", &right).await.kill().await;
    let blob: Vec<u8> = sqlx::query_scalar("SELECT wrapped FROM key_encryption_keys")
        .fetch_one(&mut foreign.superuser().await)
        .await
        .unwrap();
    let own: Vec<u8> = sqlx::query_scalar("UPDATE key_encryption_keys k SET wrapped = $1 FROM key_encryption_keys o WHERE o.key_id = k.key_id RETURNING o.wrapped")
        .bind(&blob)
        .fetch_one(&mut superuser)
        .await
        .unwrap();
    let said = scene.refusal("node", &right).await;
    assert!(said.contains("unwraps to another one"), "{said}");
    sqlx::query("UPDATE key_encryption_keys SET wrapped = $1")
        .bind(own)
        .execute(&mut superuser)
        .await
        .unwrap();

    // Credentials that may not: an own user each, under real policies.
    let (nobody, nobodys) = moto.user("nobody", &[]).await;
    let (reader, readers) = moto.user("reader", &["kms:Decrypt"]).await;
    moto.enforce_policies().await;
    let said = scene.refusal("node", &right.clone().credentials(&nobody, &nobodys)).await;
    // moto refuses as no service of JSON does: in XML, without the name that AWS gives it.
    assert!(said.contains("HTTP 403") && said.contains("need kms:Decrypt"), "{said}");
    let reader = right.clone().credentials(&reader, &readers);
    let fresh = Scene::new().await;
    let said = fresh.refusal("node", &reader).await;
    assert!(said.contains("kms:GenerateDataKey"), "{said}");
    assert_eq!((fresh.count("instance").await, fresh.count("key_encryption_keys").await), (0, 0));
    // Decrypt is all that a node needs once there is an instance.
    scene.serve("node", &reader).await.kill().await;
    assert_eq!(scene.under().await, before, "nothing was sealed anew");
}

/// Waits for nothing but what it looks for: a rewrap that is held up by a lock on one row.
async fn held_up(scene: &Scene, new: &str) -> Vec<(String, i64)> {
    eventually("the rewrap has begun and is held up", || async {
        let waiting: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()
                AND wait_event_type = 'Lock' AND query LIKE '%FROM data_keys%FOR UPDATE%')",
        )
        .fetch_one(&mut scene.superuser().await)
        .await
        .unwrap();
        let under = scene.under().await;
        (waiting && under.iter().any(|(key, n)| key == new && *n > 0)).then_some(under)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rewrap_goes_from_file_to_kms_to_kms_to_file_while_nodes_serve() {
    let moto = Moto::start().await;
    let kms_key = moto.key(REGION).await;
    let scene = Scene::new().await;
    let (old_file, old_id) = key_file(&scene.directory, "old");
    let (new_file, new_id) = key_file(&scene.directory, "new");
    // As an operator prepares the nodes: what they use, and what they will.
    let old = Environment::new().and("STATUSLEDGER_KEY_ENCRYPTION_KEY_FILE", old_file.display());
    let both = old
        .clone()
        .kms(&moto, &kms_key)
        .and("STATUSLEDGER_KEY_ENCRYPTION_KEY_OTHER_FILES", list(&[&new_file]));
    // An installation that began with a file.
    assert!(scene.serve("node", &old).await.terminate().await);
    assert_eq!(scene.under().await, [(old_id.clone(), 4)]);
    let first = scene.serve("node", &both).await;
    let second = scene.serve("another", &both).await;
    let (api, other_api) = (scene.api(&first), scene.api(&second));
    let receiver = Receiver::start(first.pin.clone(), &api.base).await;
    let workspace = api.workspace("loaded").await;
    workspace.destination(&receiver, "hook", json!({ "max_in_flight": 4 })).await;
    let source = workspace.inbound("events").await;

    let stop = Arc::new(AtomicBool::new(false));
    let appending = tokio::spawn({
        let stop = Arc::clone(&stop);
        async move {
            let mut sent = 0;
            while !stop.load(Ordering::Relaxed) {
                source.event(format!("event {sent}")).await;
                sent += 1;
            }
            sent
        }
    });
    // New data keys, made by both nodes in turn, and a secret under each.
    let making = tokio::spawn({
        let (stop, receiver_url) = (Arc::clone(&stop), receiver.url("other"));
        async move {
            let mut made = 0;
            while !stop.load(Ordering::Relaxed) {
                let api = if made % 2 == 0 { &api } else { &other_api };
                let workspace = api.workspace(&format!("made {made}")).await;
                let request = json!({ "name": "hook", "url": receiver_url });
                api.post(&workspace.at("/destinations"), request).await.expect(201);
                made += 1;
            }
            made
        }
    });
    let new_path = new_file.to_str().unwrap();
    let mut used = vec![old_id.clone()];
    for words in [
        &["keys", "rewrap", "--to-kms"][..],
        &["keys", "rewrap", "--to-kms"],
        &["keys", "rewrap", "--to-file", new_path],
    ] {
        let before = receiver.hooks().len();
        receiver.until("deliveries between", |hooks| hooks.len() > before + 5).await;
        let said = scene.done(words, &both).await;
        let under = scene.under().await;
        assert_eq!(under.len(), 1, "{words:?}: all under one key: {under:?}");
        assert!(said.contains(&under[0].0) && said.contains(used.last().unwrap()), "{said}");
        assert!(!used.contains(&under[0].0), "a key of its own: {used:?}");
        used.push(under[0].0.clone());
        // Both nodes go on, under the new key.
        let before = receiver.hooks().len();
        receiver.until("deliveries after", |hooks| hooks.len() > before + 5).await;
    }
    assert_eq!(used.last(), Some(&new_id));
    stop.store(true, Ordering::Relaxed);
    let (sent, made) = (appending.await.unwrap(), making.await.unwrap());
    receiver.taken("hook", sent).await;
    receiver.assert_all_verified();
    assert!(sent > 30 && made > 3, "{sent} events, {made} workspaces: there was a load");
    assert_eq!(scene.under().await, [(new_id.clone(), 3 + 2 + made)]);
    assert_eq!(scene.count("key_encryption_keys").await, 0, "nothing wrapped is left over");

    // Each is on the record, and the record is whole.
    let entries = scene.rewraps().await;
    assert_eq!(entries.len(), 3, "{entries:?}");
    for (n, entry) in entries.iter().enumerate() {
        assert_eq!(entry["old_key_ids"], json!([used[n]]));
        assert_eq!(entry["new_key_id"], json!(used[n + 1]));
        assert_eq!(entry["signing_keys"], json!(3));
        assert!(entry["data_keys"].as_u64().unwrap() >= 2, "{entry}");
        assert_eq!(entry["new_key_kept_by"], json!(if n < 2 { "aws_kms" } else { "operator" }));
    }
    assert!(scene.done(&["doctor"], &both).await.contains("all as it was written"));
    let again = scene.done(&["keys", "rewrap", "--to-file", new_path], &both).await;
    assert!(again.contains("already"), "{again}");
    assert_eq!(scene.rewraps().await.len(), 3, "nothing was done, nothing is recorded");
    assert!(first.terminate().await && second.terminate().await);

    // The new file is all that is needed, and the old one is not enough.
    let alone = Environment::new().and("STATUSLEDGER_KEY_ENCRYPTION_KEY_FILE", new_path);
    let program = scene.serve("node", &alone).await;
    let there = Workspace { api: scene.api(&program), ..workspace };
    there.inbound("more").await.event("the last").await;
    receiver.taken("hook", sent + 1).await;
    receiver.assert_all_verified();
    assert!(program.terminate().await);
    let said = scene.refusal("node", &old).await;
    assert!(said.contains(&new_id) && said.contains(&old_id), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rewrap_that_is_killed_leaves_every_row_openable_and_the_next_one_finishes() {
    const WORKSPACES: i64 = 12;
    let moto = Moto::start().await;
    let kms_key = moto.key(REGION).await;
    let scene = Scene::new().await;
    let (old_file, old_id) = key_file(&scene.directory, "old");
    let file = Environment::new().and("STATUSLEDGER_KEY_ENCRYPTION_KEY_FILE", old_file.display());
    assert!(scene.serve("node", &file).await.terminate().await);
    let both = file.clone().kms(&moto, &kms_key);
    let program = scene.serve("node", &both).await;
    let api = scene.api(&program);
    let receiver = Receiver::start(program.pin.clone(), &api.base).await;
    let mut hooked = Vec::new();
    for n in 0..WORKSPACES {
        let workspace = api.workspace(&format!("workspace {n}")).await;
        let name = format!("hook-{n}");
        workspace.destination(&receiver, &name, json!({})).await;
        hooked.push((workspace.inbound("events").await, workspace, name));
    }
    let total = WORKSPACES + 1 + 3;
    assert_eq!(scene.under().await, [(old_id.clone(), total)]);

    // Held up at a row in the middle, for as long as it takes to kill it there.
    let mut superuser = scene.superuser().await;
    let mut tx = superuser.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM data_keys ORDER BY workspace_id OFFSET 6 LIMIT 1 FOR UPDATE")
        .execute(&mut *tx)
        .await
        .unwrap();
    let arguments = scene.arguments(&["keys", "rewrap", "--to-kms"], "node");
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut child = spawn(&scene.directory, &arguments, &both.pairs());
    let wrapped = eventually("a key that KMS wrapped", || async {
        sqlx::query_scalar::<_, String>("SELECT encode(key_id, 'hex') FROM key_encryption_keys")
            .fetch_optional(&mut scene.superuser().await)
            .await
            .unwrap()
    })
    .await;
    let under = held_up(&scene, &wrapped).await;
    // The lock that is held is not ours alone: a second one is refused, not mixed in.
    let output = scene.command(&["keys", "rewrap", "--to-kms"], &both).await;
    assert!(String::from_utf8_lossy(&output.stderr).contains("another `keys rewrap` is running"));
    child.start_kill().unwrap();
    child.wait().await.unwrap();
    tx.rollback().await.unwrap();
    assert_eq!(under.len(), 2, "some here, some there: {under:?}");
    assert_eq!(under.iter().map(|(_, n)| n).sum::<i64>(), total);

    // The node that serves works on, and one that starts now opens both; neither key alone is enough.
    for (source, _, name) in &hooked {
        source.event("in between").await;
        receiver.taken(name, 1).await;
    }
    let during = api.workspace("made in between").await;
    assert!(program.terminate().await);
    assert!(scene.done(&["doctor"], &both).await.contains("all as it was written"));
    let program = scene.serve("node", &both).await;
    let said = scene.refusal("third", &Environment::new().kms(&moto, &kms_key)).await;
    assert!(said.contains(&old_id), "the old key is still needed: {said}");
    let said = scene.refusal("third", &file).await;
    assert!(said.contains(&wrapped), "the new one is needed too: {said}");
    assert!(scene.rewraps().await.is_empty(), "it is recorded when it is done");

    // The second run goes on with the same key.
    let said = scene.done(&["keys", "rewrap", "--to-kms"], &both).await;
    assert!(said.contains(&wrapped) && said.contains(&old_id), "{said}");
    assert_eq!(scene.under().await, [(wrapped.clone(), total + 1)]);
    let entries = scene.rewraps().await;
    assert_eq!(
        entries,
        [json!({ "old_key_ids": [old_id], "new_key_id": wrapped, "new_key_kept_by": "aws_kms",
                 "data_keys": WORKSPACES + 1, "signing_keys": 3 })],
        "what both runs did, once"
    );
    let api = scene.api(&program);
    for (_, workspace, name) in hooked {
        let there = Workspace { api: api.clone(), ..workspace };
        there.inbound("after").await.event("after it").await;
        receiver.taken(&name, 2).await;
    }
    Workspace { api: api.clone(), ..during }.inbound("events").await.event("it too").await;
    receiver.assert_all_verified();
    assert!(program.terminate().await);
    // The old file has no use any more.
    std::fs::remove_file(&old_file).unwrap();
    scene.serve("node", &Environment::new().kms(&moto, &kms_key)).await.kill().await;
}

#[tokio::test]
async fn a_key_that_a_serving_node_lacks_is_not_changed_over_to() {
    let scene = Scene::new().await;
    let (old_file, old_id) = key_file(&scene.directory, "old");
    let (new_file, _) = key_file(&scene.directory, "new");
    let new_path = new_file.to_str().unwrap();
    let environment = Environment::new().and("STATUSLEDGER_KEY_ENCRYPTION_KEY_FILE", old_file.display());
    let program = scene.serve("node", &environment).await;
    let before = scene.under().await;
    let rewrap = ["keys", "rewrap", "--wait", "0", "--to-file", new_path];
    let output = scene.command(&rewrap, &environment).await;
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said.contains("nothing was changed") && said.contains("key_encryption_key_other_files"),
        "{said}"
    );
    assert_eq!(scene.under().await, before);
    assert_eq!(before[0].0, old_id);
    // Without KMS there is none to change over to, and without a target nothing to do.
    let output = scene.command(&["keys", "rewrap", "--to-kms"], &environment).await;
    assert!(String::from_utf8_lossy(&output.stderr).contains("kms.key"));
    assert_eq!(scene.command(&["keys", "rewrap"], &environment).await.status.code(), Some(2));
    let missing = scene.directory.join("missing");
    let output =
        scene.command(&["keys", "rewrap", "--to-file", missing.to_str().unwrap()], &environment).await;
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(scene.under().await, before);
    // A node that has stopped lacks nothing.
    assert!(program.terminate().await);
    scene.done(&rewrap, &environment).await;
    let said = scene.refusal("node", &environment).await;
    assert!(said.contains("key_encryption_key_file"), "{said}");
    // Nor does one whose key is altered lose it: what does not open stays, and is named.
    let swapped = sqlx::query("UPDATE data_keys SET wrapped_key = wrapped_key || '\\x00'")
        .execute(&mut scene.superuser().await)
        .await
        .unwrap();
    assert_eq!(swapped.rows_affected(), 1);
    let back = Environment::new().and("STATUSLEDGER_KEY_ENCRYPTION_KEY_FILE", new_path);
    let output = scene.command(&["keys", "rewrap", "--to-file", old_file.to_str().unwrap()], &back).await;
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("does not authenticate") && said.contains("data key of"), "{said}");
}

#[tokio::test]
async fn an_instance_from_before_is_named_its_key_by_the_migration() {
    let scene = Scene::new().await;
    let name = format!("{}_before", scene.database.name);
    let mut superuser = scene.superuser().await;
    sqlx::query(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name} TEMPLATE template0")))
        .execute(&mut superuser)
        .await
        .unwrap();
    let before = TestDatabase { name };
    let mut superuser = before.superuser().await;
    sqlx::raw_sql("CREATE TABLE _sqlx_migrations (version bigint)").execute(&mut superuser).await.unwrap();
    for migration in database::MIGRATIONS.iter() {
        if migration.version == 4 {
            sqlx::raw_sql(
                r"INSERT INTO instance (name, workspace_id, ledger_id)
                  VALUES ('a.example', gen_random_uuid(), gen_random_uuid());
                  INSERT INTO signing_keys (key_id, purpose, private_key)
                  VALUES (sha256('1'), 'receipt', '\x010102030405060708ffff'), (sha256('2'), 'root', NULL)",
            )
            .execute(&mut superuser)
            .await
            .unwrap();
        }
        sqlx::raw_sql(migration.sql.clone()).execute(&mut superuser).await.unwrap();
    }
    let key: Vec<u8> = sqlx::query_scalar("SELECT key_encryption_key FROM instance")
        .fetch_one(&mut superuser)
        .await
        .unwrap();
    assert_eq!(key, [1, 2, 3, 4, 5, 6, 7, 8]);
}
