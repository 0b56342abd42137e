//! A failover to a streaming replica: with synchronous replication nothing is lost; with asynchronous replication what
//! was lost is noticed, told, and gone on from in a new ledger once the operator has accepted it.

use crate::crash::send_until_accepted;
use crate::harness::{
    Address, Api, Destination, Hook, Inbound, Receiver, Server, Workspace, eventually, eventually_within,
    quick, run, send, temporary, try_send, verify_export,
};
use serde_json::{Value, json};
use statusledger::config::Settings;
use statusledger::database::roles;
use statusledger::doctor;
use statusledger::ledger::seen_heads::read_heads;
use statusledger::node::Node;
use statusledger_verify::checkpoint::SignedCheckpoint;
use statusledger_verify::consistency::{self, ConsistencyProof, Evidence};
use statusledger_verify::manifest::{KeyManifest, Pin, Revoked, TrustedKeys};
use statusledger_verify::proof::Proof;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Mutex;

/// Clients that send at once.
const CLIENTS: usize = 8;

/// A node over a primary that has a replica.
struct Scene {
    primary: Server,
    replica: Server,
    address: Address,
    settings: Settings,
    node: Option<Node>,
    api: Api,
    workspace: Workspace,
    source: Inbound,
    receiver: Receiver,
    destination: Destination,
}

impl Scene {
    async fn new() -> Self {
        let primary = Server::primary().await;
        let replica = primary.replica().await;
        let address = Address::of(&primary);
        let mut settings = quick(&temporary("node"));
        let node = Node::start(&settings, Some(&settings.instance), address.open().await).await.unwrap();
        settings.port = node.address.port();
        let token = node.bootstrap_key().await.unwrap();
        let api = Api::new(node.address, &token);
        let receiver = Receiver::start(node.keyring.current().pin(), &api.base).await;
        receiver.learn_keys().await;
        let workspace = api.workspace("replicated").await;
        let source = workspace.inbound("events").await;
        let destination = workspace.destination(&receiver, "hook", json!({ "max_in_flight": 8 })).await;
        let node = Some(node);
        Self { primary, replica, address, settings, node, api, workspace, source, receiver, destination }
    }

    fn node(&self) -> &Node {
        self.node.as_ref().unwrap()
    }

    fn pin(&self) -> Pin {
        self.node().keyring.current().pin()
    }

    async fn start(&mut self) -> anyhow::Result<()> {
        let database = self.address.open().await;
        self.node = Some(Node::start(&self.settings, Some(&self.settings.instance), database).await?);
        Ok(())
    }

    /// Kills the primary and turns the address to the replica, promoted.
    async fn fail_over(&mut self) {
        self.primary.kill().await;
        self.replica.promote().await;
        self.address.turn_to(&self.replica);
    }

    async fn trusted(&self) -> TrustedKeys {
        let manifest = self.api.get("/.well-known/statusledger-keys.json").await.expect(200).body;
        KeyManifest::parse(&manifest).unwrap().trust(&self.pin()).unwrap()
    }

    /// That doctor finds nothing, and that an export of `query` verifies.
    async fn assert_whole(&self, query: &str) {
        let node = self.node();
        let examined = doctor::examine(&node.database, node.writer.data_keys(), &node.seen_heads, |_, _| {});
        assert_eq!(examined.await.unwrap().findings, []);
        let answer = self.api.get(&self.workspace.at(&format!("/export{query}"))).await.expect(200);
        let file = temporary("export").join("ledger.zip");
        std::fs::write(&file, &answer.body).unwrap();
        verify_export(&file, &self.pin()).unwrap();
    }

    /// Runs `doctor` over the address.
    async fn doctor(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let (service, worker) = (self.address.url(roles::SERVICE), self.address.url(roles::WORKER));
        let mut all = vec!["doctor", "--data-dir", ".", "--database-url", &service];
        all.extend(["--worker-database-url", &worker]);
        all.extend(arguments);
        let output = run(&self.settings.data_dir, &all, &[]).await;
        let told = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(told).unwrap())
    }
}

/// That each delivery came under one id and number with one body, and that none of `1..=count` is missing.
fn assert_numbers(hooks: &[Hook], ledger: &str, count: usize) {
    let mut of_number: BTreeMap<u64, &Hook> = BTreeMap::new();
    for hook in hooks.iter().filter(|hook| hook.value["ledger"] == ledger) {
        let first = of_number.entry(hook.number).or_insert(hook);
        assert_eq!((&first.id, first.seq, &first.body), (&hook.id, hook.seq, &hook.body));
    }
    assert_eq!(of_number.keys().copied().collect::<Vec<_>>(), (1..=count as u64).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failover_to_a_synchronous_replica_nothing_acknowledged_is_missing() {
    const EVENTS: usize = 600;
    let mut scene = Scene::new().await;
    scene.primary.synchronous().await;
    let before = scene.workspace.entries().await.len();
    let accepted: Arc<Mutex<BTreeMap<usize, u64>>> = Arc::default();
    let (done, refused) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..CLIENTS {
        let (source, accepted, done, refused) =
            (scene.source.clone(), Arc::clone(&accepted), Arc::clone(&done), Arc::clone(&refused));
        clients.spawn(async move {
            for n in (client..EVENTS).step_by(CLIENTS) {
                let seq = send_until_accepted(&source, n, &refused).await;
                accepted.lock().await.insert(n, seq);
                done.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    eventually("a third of the events", || async {
        (done.load(Ordering::Relaxed) > EVENTS / 3).then_some(())
    })
    .await;
    scene.fail_over().await;
    assert!(done.load(Ordering::Relaxed) < EVENTS, "the failover came too late");
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
    // The node went on by itself, over the server that was its replica.
    assert!(scene.node().database.identify().await.unwrap().timeline.is_some_and(|t| t != "00000001"));
    let entries = scene.workspace.entries().await;
    assert!(entries.iter().enumerate().all(|(n, e)| e["seq"] == n), "seq is dense");
    let events: Vec<u64> = entries[before..]
        .iter()
        .filter(|e| e["type"] == "event.received")
        .map(|e| e["seq"].as_u64().unwrap())
        .collect();
    let mut seqs: Vec<u64> = accepted.lock().await.values().copied().collect();
    seqs.sort_unstable();
    assert_eq!(seqs, events, "each event stands there once, where its sender was told");
    // Each was delivered, and what was delivered before the failover is proven by what there is after it.
    let ledger = scene.workspace.ledger.clone();
    let mut receiver = scene.receiver.taken("hook", EVENTS).await;
    receiver.retain(|hook| hook.kind == "event.received");
    scene.receiver.assert_all_verified();
    let all = scene.destination.deliveries().await.len();
    assert_numbers(&scene.receiver.hooks_of("hook"), &ledger, all);
    assert_consistent(&scene, &scene.receiver.hooks_of("hook"), &ledger).await;
    scene.assert_whole("").await;
    scene.node.take().unwrap().stop().await;
}

/// That the checkpoint in every body of `ledger` is of a beginning of what the service shows of it.
async fn assert_consistent(scene: &Scene, hooks: &[Hook], ledger: &str) {
    let note = scene.api.get(&scene.workspace.at(&format!("/checkpoint?ledger={ledger}"))).await.expect(200);
    let newest = SignedCheckpoint::parse(&note.body).unwrap();
    newest.verify(&scene.trusted().await, None, Revoked::Refused).unwrap();
    let mut compared = 0;
    for hook in hooks.iter().filter(|hook| hook.value["ledger"] == ledger) {
        let proof = Proof::parse(hook.value["receipt"]["proof"].as_str().unwrap()).unwrap();
        let older = SignedCheckpoint::parse(proof.checkpoint.as_bytes()).unwrap();
        if older.checkpoint().size > newest.checkpoint().size {
            continue;
        }
        let query = format!(
            "/proofs/consistency?ledger={ledger}&from={}&to={}",
            older.checkpoint().size,
            newest.checkpoint().size
        );
        let proof = scene.api.get(&scene.workspace.at(&query)).await.expect(200);
        let proof = ConsistencyProof::parse(&proof.body).unwrap();
        let evidence = Evidence { proof: Some(&proof), recomputed_root: None };
        consistency::verify(older.checkpoint(), newest.checkpoint(), evidence).unwrap();
        compared += 1;
    }
    assert!(compared > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_remembers_less_adds_nothing_before_one_that_remembers_more_has_looked() {
    let mut scene = Scene::new().await;
    let quiet = scene.api.workspace("never signed").await;
    let source = quiet.inbound("events").await;
    let mut settings = quick(&temporary("node"));
    settings.key_encryption_key_file = Some(scene.settings.key_encryption_key_path());
    let mut other =
        Node::start(&settings, Some(&settings.instance), scene.address.open().await).await.unwrap();
    scene.primary.synchronous().await;
    source.event("the last that both servers have").await;
    scene.primary.asynchronous().await;
    scene.replica.stop_receiving().await;
    // Only the other node knows of these, and nobody has signed them.
    let there = Inbound { api: scene.api.at(other.address), ..source.clone() };
    for n in 0..5 {
        there.event(format!("lost {n}")).await;
    }
    let has = other.writer.acknowledged();
    let had = has.iter().find(|(ledger, _)| ledger.to_string() == quiet.ledger).unwrap().1.size;
    scene.fail_over().await;
    let mut node = scene.node.take().unwrap();
    let sending = tokio::spawn({
        let source = source.clone();
        async move {
            while let Ok(answer) = try_send(source.request("too early")).await {
                assert_eq!(answer.problem(503), "unavailable");
            }
        }
    });
    let why = format!("{:#}", other.refused().await.unwrap_err());
    let remains = stored(&scene, &quiet.ledger).await;
    let what = format!("ledger {}: it has {remains} entries, but", quiet.ledger);
    assert!(why.contains(&what) && why.contains(&format!("is of {had}")), "{why}");
    // The first finds nothing missing by itself, and hears of it all the same.
    let why = format!("{:#}", node.refused().await.unwrap_err());
    assert!(why.contains(&what) && why.contains("that a node handed out"), "{why}");
    node.stop().await;
    other.stop().await;
    sending.await.unwrap();
    assert_eq!(stored(&scene, &quiet.ledger).await, remains);

    // The loss is accepted with what the other remembers; then both serve.
    let heads = settings.data_dir.join("heads");
    let heads = heads.to_str().unwrap();
    let lost = format!("{}:{had}", quiet.ledger);
    let (code, told) = scene.doctor(&["--accept-loss", "--heads", heads, "--lost", &lost]).await;
    assert_eq!(code, Some(0), "{told}");
    scene.start().await.unwrap();
    let other = Node::start(&settings, Some(&settings.instance), scene.address.open().await).await.unwrap();
    source.event("after").await;
    assert_eq!(quiet.entries().await[0]["type"], "ledger.continued");
    other.stop().await;
    scene.node.take().unwrap().stop().await;
    // One that remembers still more says so, until that is accepted too.
    let more = format!("{} {} {}\n", quiet.ledger, had + 1, "7".repeat(64));
    let own = scene.settings.data_dir.join("heads");
    let mut file = std::fs::OpenOptions::new().append(true).open(own).unwrap();
    std::io::Write::write_all(&mut file, more.as_bytes()).unwrap();
    let refused = format!("{:#}", scene.start().await.unwrap_err());
    assert!(refused.contains(&format!("its loss was accepted up to {had} entries")), "{refused}");
    let lost = format!("{}:{}", quiet.ledger, had + 1);
    let (code, told) = scene.doctor(&["--accept-loss", "--lost", &lost]).await;
    assert!(code == Some(0) && told.contains("its loss is on record"), "{told}");
    scene.start().await.unwrap();
    assert_eq!(quiet.entries_of("ledger.continued").await.len(), 1);
    scene.node.take().unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_promotion_a_node_that_died_is_waited_for_and_then_not_any_more() {
    let mut scene = Scene::new().await;
    scene.primary.synchronous().await;
    // It served a moment ago, and never says what it remembers.
    let mut superuser = scene.primary.within().await;
    sqlx::query("INSERT INTO nodes VALUES (gen_random_uuid(), '00000001', now())")
        .execute(&mut superuser)
        .await
        .unwrap();
    scene.fail_over().await;
    eventually("the node waits for the other", || async {
        let readiness = send(scene.api.bare("GET", "/readyz")).await;
        readiness.text().contains("1 nodes have not compared it yet").then_some(())
    })
    .await;
    let early = tokio::spawn({
        let source = scene.source.clone();
        async move { source.post("too early").await }
    });
    let superuser = Mutex::new(scene.replica.within().await);
    let looks = Mutex::new(BTreeSet::new());
    eventually_within(Duration::from_secs(60), "it goes on", || async {
        let look: Vec<String> =
            sqlx::query_scalar("SELECT seen_at::text FROM nodes WHERE timeline <> '00000001'")
                .fetch_all(&mut *superuser.lock().await)
                .await
                .unwrap();
        looks.lock().await.extend(look);
        (send(scene.api.bare("GET", "/readyz")).await.status == 200).then_some(())
    })
    .await;
    // Another that lived would have looked as often as this one has, which says so each time.
    let looks = looks.into_inner();
    assert!(looks.len() >= 5, "{looks:?}");
    assert!(early.is_finished(), "it serves before it goes on");
    assert_eq!(early.await.unwrap().problem(503), "unavailable");
    let silent: i64 = sqlx::query_scalar("SELECT count(*) FROM nodes WHERE timeline = '00000001'")
        .fetch_one(&mut *superuser.lock().await)
        .await
        .unwrap();
    assert_eq!(silent, 1, "the other has said something after all");
    scene.source.event("after").await;
    scene.assert_whole("").await;
    scene.node.take().unwrap().stop().await;
}

/// How many entries a ledger has in the database that the address leads to.
async fn stored(scene: &Scene, ledger: &str) -> i64 {
    let mut superuser = scene.replica.within().await;
    sqlx::query_scalar("SELECT size FROM heads WHERE ledger_id = $1::text::uuid")
        .bind(ledger)
        .fetch_one(&mut superuser)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_that_an_asynchronous_replica_lacks_are_told_and_gone_on_from_once_accepted() {
    const KEPT: usize = 40;
    const LOST: usize = 25;
    let mut scene = Scene::new().await;
    let (old, instance) = (scene.workspace.ledger.clone(), scene.node().instance.clone());
    for n in 0..KEPT {
        scene.source.event(format!("kept {n}")).await;
    }
    let first = scene.destination.read().await["last_number"].as_u64().unwrap();
    scene.receiver.taken("hook", usize::try_from(first).unwrap()).await;
    scene.destination.settled(KEPT, "delivered").await;
    scene.primary.synchronous().await;
    scene.source.event("the last that both have").await;
    // The replica has that one; it gets nothing from here on.
    scene.primary.asynchronous().await;
    scene.replica.stop_receiving().await;
    for n in 0..LOST {
        scene.source.event(format!("lost {n}")).await;
    }
    // A workspace that is lost as a whole, and entries of the instance's own ledger; both signed.
    let gone = scene.api.workspace("gone").await;
    scene.api.get(&gone.at("/checkpoint")).await.expect(200);
    let own = format!("/v1/workspaces/{}", instance.workspace);
    let key = json!({ "name": "lost", "scopes": ["ledger:read"] });
    scene.api.post(&format!("{own}/keys"), key).await.expect(201);
    scene.api.get(&format!("{own}/checkpoint")).await.expect(200);
    let total = scene.destination.read().await["last_number"].as_u64().unwrap();
    scene.receiver.taken("hook", usize::try_from(total).unwrap()).await;
    let signed = read_heads(&scene.settings.data_dir.join("heads")).unwrap();
    let tree = signed[&old.parse().unwrap()];

    scene.fail_over().await;
    // Whoever sends meanwhile is refused, and nothing is added to the shorter history.
    let mut node = scene.node.take().unwrap();
    let sending = tokio::spawn({
        let source = scene.source.clone();
        async move {
            let mut refused = 0;
            while let Ok(answer) = try_send(source.request("too early")).await {
                assert_eq!(answer.problem(503), "unavailable");
                refused += 1;
            }
            refused
        }
    });
    let why = format!("{:#}", node.refused().await.unwrap_err());
    let remains = stored(&scene, &old).await;
    let missing = tree.size - remains as u64;
    assert!(missing >= LOST as u64, "{missing}");
    for part in [
        format!("ledger {old}: it has {remains} entries"),
        format!("is of {}: the last {missing} are missing", tree.size),
        format!("ledger {}: the database has no such ledger", gone.ledger),
        format!("ledger {}: it has ", instance.ledger),
    ] {
        assert!(why.contains(&part), "{part}: {why}");
    }
    let readiness = send(scene.api.bare("GET", "/readyz")).await;
    assert_eq!(readiness.status, 503);
    assert_eq!(scene.api.get(&scene.workspace.at("/checkpoint")).await.status, 503);
    node.stop().await;
    assert!(sending.await.unwrap() > 0);
    assert_eq!(stored(&scene, &old).await, remains);

    // It does not start either, nor does a node that remembers nothing: the loss is marked in the database.
    let refused = format!("{:#}", scene.start().await.unwrap_err());
    assert!(refused.contains(&format!("the last {missing} are missing")), "{refused}");
    let mut forgetful = quick(&temporary("node"));
    forgetful.key_encryption_key_file = Some(scene.settings.key_encryption_key_path());
    let database = scene.address.open().await;
    let refused = Node::start(&forgetful, Some(&forgetful.instance), database).await.err().unwrap();
    assert!(format!("{refused:#}").contains("that a node handed out"), "{refused:#}");

    // Without a confirmation nothing is done, nor with one that names something else.
    let (code, told) = scene.doctor(&["--accept-loss"]).await;
    assert_eq!(code, Some(1), "{told}");
    let confirmations: Vec<String> = signed
        .iter()
        .filter(|(ledger, _)| {
            [old.as_str(), &gone.ledger, &instance.ledger.to_string()].contains(&&*ledger.to_string())
        })
        .map(|(ledger, tree)| format!("{ledger}:{}", tree.size))
        .collect();
    assert_eq!(confirmations.len(), 3);
    for confirmation in &confirmations {
        assert!(told.contains(&format!(" --lost {confirmation}")), "{told}");
    }
    let (code, told) = scene.doctor(&["--accept-loss", "--lost", &confirmations[0]]).await;
    assert!(code == Some(1) && told.contains("nothing is done"), "{told}");
    assert!(scene.start().await.is_err());

    let mut arguments = vec!["--accept-loss"];
    for confirmation in &confirmations {
        arguments.extend(["--lost", confirmation]);
    }
    let (code, told) = scene.doctor(&arguments).await;
    assert_eq!(code, Some(0), "{told}");
    let (code, told) = scene.doctor(&["--accept-loss"]).await;
    assert!(code == Some(0) && told.contains("nothing that was signed is missing"), "{told}");
    goes_on(
        &mut scene,
        &old,
        remains as usize,
        json!({
            "origin": format!("{}/{old}", instance.name),
            "size": tree.size,
            "root": tree.root.iter().map(|b| format!("{b:02x}")).collect::<String>(),
            "remains": remains,
        }),
    )
    .await;
    // The instance's own events go on in another ledger too, which the key manifest names.
    let manifest = scene.api.get("/.well-known/statusledger-keys.json").await.expect(200).json();
    assert_ne!(manifest["ledger"], instance.ledger.to_string());
    assert_eq!(scene.node().instance.ledger.to_string(), manifest["ledger"]);
    let own = scene.api.get(&format!("{own}/entries?limit=1000")).await.expect(200).json();
    let of_gone =
        own["items"].as_array().unwrap().iter().find(|e| {
            e["type"] == "audit.ledger.loss_accepted" && e["data"]["targets"][0]["id"] == gone.ledger
        });
    assert!(of_gone.is_some(), "{own}");
    scene.node.take().unwrap().stop().await;
}

/// That the ledger which follows `old` names it, and that both are whole under their own names.
async fn goes_on(scene: &mut Scene, old: &str, remains: usize, named: Value) {
    scene.start().await.unwrap();
    let new = scene.api.get(&scene.workspace.path).await.expect(200).json()["ledger"].clone();
    let new = new.as_str().unwrap().to_owned();
    assert_ne!(new, old);
    let entries = scene.workspace.entries().await;
    assert_eq!(entries[0]["type"], "ledger.continued");
    assert_eq!(entries[0]["data"], named);
    assert_eq!(entries[1]["type"], "audit.ledger.loss_accepted");
    assert_eq!(entries[1]["data"]["actor"]["type"], "operator");

    // Receipt numbers start again, and deliveries go on.
    for n in 0..5 {
        scene.source.event(format!("after {n}")).await;
    }
    let came = scene
        .receiver
        .until("what the new ledger has", {
            let new = new.clone();
            move |hooks| hooks.iter().filter(|h| h.value["ledger"] == new && h.taken()).count() >= 6
        })
        .await;
    scene.receiver.assert_all_verified();
    assert_numbers(&came, &new, 6);
    let continued = came.iter().find(|h| h.value["ledger"] == new && h.number == 1).unwrap();
    assert_eq!(continued.kind, "ledger.continued");
    let deliveries = scene.destination.deliveries().await;
    assert!(deliveries.iter().all(|d| d["ledger"] == new || d["ledger"] == old), "{deliveries:?}");

    // What remains of the old one can be read, proven and exported under its own origin; its receipts verify.
    let page = scene.api.get(&scene.workspace.at(&format!("/entries?ledger={old}&limit=1000"))).await;
    assert_eq!(page.expect(200).json()["items"].as_array().unwrap().len(), remains);
    let path = scene.workspace.at(&format!("/entries/0?ledger={old}"));
    assert_eq!(scene.api.get(&path).await.expect(200).json()["ledger"], old);
    assert_consistent(scene, &came, old).await;
    assert_consistent(scene, &came, &new).await;
    scene.assert_whole(&format!("?ledger={old}&openings=true")).await;
    scene.assert_whole("?openings=true").await;
    // And all of it outlasts another start.
    scene.node.take().unwrap().stop().await;
    scene.start().await.unwrap();
    assert_eq!(scene.workspace.entries().await[0]["data"], named);
}
