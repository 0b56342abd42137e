//! What a Postgres can do to a node, each with a real one: gone, restarting, full of others' connections, out of disk,
//! read-only, slow, silent, a lock that somebody holds. What was acknowledged is kept, what was not is a clear 503 that says
//! when to come again, and the node recovers by itself.

use crate::conditions::waiting;
use crate::harness::{
    Answer, Api, Between, CONNECTIONS, Destination, Held, Hook, Inbound, Receiver, Reply, Workspace, World,
    eventually, eventually_within, prepare, quick, temporary, try_send, verify_export,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use sqlx::{ConnectOptions, PgConnection};
use statusledger::config::Settings;
use statusledger::database::embedded::{Cluster, Options, Status};
use statusledger::database::{Database, roles};
use statusledger::delivery::queue::LEASE;
use statusledger::doctor;
use statusledger::node::Node;
use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Mutex;

/// How long a node may take until it accepts again, once it could: connections that say nothing are given up one by one.
const RECOVERY: Duration = Duration::from_secs(120);
const DATABASE: &str = "statusledger";

/// A Postgres of the test's own, and a node over it.
struct Ground {
    options: Options,
    cluster: Option<Cluster>,
    settings: Settings,
    node: Node,
    api: Api,
    workspace: Workspace,
    source: Inbound,
    receiver: Receiver,
    destination: Destination,
}

impl Ground {
    async fn new(directory: &Path, settings: &[(&str, &str)]) -> Self {
        Self::behind(directory, settings, |_| None).await.0
    }

    /// One whose node may go through a proxy.
    async fn behind(
        directory: &Path,
        settings: &[(&str, &str)],
        proxy: impl FnOnce(&Cluster) -> Option<Between>,
    ) -> (Self, Option<Between>) {
        let mut options = Options::new(directory.join("postgres"));
        options.settings = settings.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let cluster = Cluster::start(options.clone()).await.unwrap();
        prepare(&cluster, DATABASE).await;
        let between = proxy(&cluster);
        let as_role = |role| {
            let options = cluster.connect_options(role, DATABASE).disable_statement_logging();
            match &between {
                Some(between) => options.socket(&between.directory),
                None => options,
            }
        };
        let database =
            Database::open(as_role(roles::SERVICE), as_role(roles::WORKER), CONNECTIONS).await.unwrap();
        let settings = quick(&temporary("node"));
        let node = Node::start(&settings, Some(&settings.instance), database).await.unwrap();
        let token = node.bootstrap_key().await.unwrap();
        let api = Api::new(node.address, &token);
        let receiver = Receiver::start(node.keyring.current().pin(), &api.base).await;
        receiver.learn_keys().await;
        let workspace = api.workspace("outage").await;
        let source = workspace.inbound("events").await;
        let hears = json!({ "filter": { "types": ["event.*"] }, "max_in_flight": 8 });
        let destination = workspace.destination(&receiver, "hook", hears).await;
        let ground = Self {
            options,
            cluster: Some(cluster),
            settings,
            node,
            api,
            workspace,
            source,
            receiver,
            destination,
        };
        (ground, between)
    }

    async fn behind_a_proxy() -> (Self, Between) {
        let (ground, between) = Self::behind(&temporary("outage"), &[], |cluster| {
            Some(Between::before(&cluster.connect_options(roles::SERVICE, DATABASE)))
        })
        .await;
        (ground, between.unwrap())
    }

    fn cluster(&self) -> &Cluster {
        self.cluster.as_ref().unwrap()
    }

    async fn superuser(&self) -> PgConnection {
        let cluster = self.cluster();
        cluster.connect_options(cluster.superuser(), DATABASE).connect().await.unwrap()
    }

    fn postmaster(&self) -> u32 {
        match *self.cluster().status().borrow() {
            Status::Running { pid } => pid,
            ref other => panic!("{other:?}"),
        }
    }

    /// Clients that send events of so many bytes, each until it is accepted, for as long as this lives.
    fn load(&self, bytes: usize) -> Load {
        let load = Load::default();
        for client in 0..4 {
            let (source, load) = (self.source.clone(), load.clone());
            tokio::spawn(async move {
                let mut n = client;
                while !load.ending.load(Ordering::Relaxed) {
                    load.running.fetch_add(1, Ordering::Relaxed);
                    load.send(&source, n, bytes).await;
                    load.running.fetch_sub(1, Ordering::Relaxed);
                    n += 4;
                }
            });
        }
        load
    }

    /// That what was accepted, and nothing else, is in the ledger, and was delivered; and that the oracle finds nothing.
    async fn assert_whole(&self, load: &Load) {
        load.end().await;
        let accepted = load.accepted.lock().await.clone();
        let entries = self.workspace.entries_of("event.received").await;
        let mut seqs: Vec<u64> = accepted.values().copied().collect();
        seqs.sort_unstable();
        assert_eq!(seqs, entries.iter().map(|e| e["seq"].as_u64().unwrap()).collect::<Vec<_>>());
        let hooks = self.receiver.taken("hook", accepted.len()).await;
        self.receiver.assert_all_verified();
        for (n, seq) in &accepted {
            let hook = hooks.iter().find(|hook| hook.seq == *seq).unwrap_or_else(|| panic!("event {n}"));
            assert!(
                hook.value["openings"]["payload"]["value"]["text"]
                    .as_str()
                    .unwrap()
                    .starts_with(&format!("{n} "))
            );
        }
        self.destination.settled(accepted.len().min(1000), "delivered").await;
        let node = &self.node;
        let examined =
            doctor::examine(&node.database, node.writer.data_keys(), &node.seen_heads, |_, _| {}).await;
        assert_eq!(examined.unwrap().findings, []);
        let answer = self.api.get(&self.workspace.at("/export?openings=true")).await.expect(200);
        let file = temporary("export").join("ledger.zip");
        std::fs::write(&file, &answer.body).unwrap();
        verify_export(&file, &node.keyring.current().pin()).unwrap();
        assert_eq!(self.api.get("/readyz").await.status, 200);
        assert!(self.settings.data_dir.join("heads").is_file());
    }

    async fn stop(mut self) {
        self.node.stop().await;
        if let Some(cluster) = self.cluster.take() {
            cluster.stop().await.unwrap();
        }
    }
}

/// That an answer is "not now": a problem of its kind, with when to come again.
#[track_caller]
fn assert_not_now(answer: &Answer) {
    assert_eq!(answer.problem(503), "unavailable");
    let after: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&after));
}

#[derive(Clone, Default)]
struct Load {
    /// Event and seq of what was acknowledged.
    accepted: Arc<Mutex<BTreeMap<usize, u64>>>,
    refused: Arc<AtomicUsize>,
    running: Arc<AtomicUsize>,
    ending: Arc<AtomicBool>,
}

impl Load {
    async fn send(&self, source: &Inbound, n: usize, bytes: usize) {
        let seq = eventually_within(RECOVERY, "an accepted event", || async {
            let body = format!("{n} {}", "x".repeat(bytes));
            let request = source
                .request(body)
                .header("idempotency-key", format!("event-{n}"))
                .timeout(Duration::from_secs(110));
            let answer = try_send(request).await.expect("the node itself is always there");
            if answer.status == 202 {
                return answer.json()["seq"].as_u64();
            }
            assert_not_now(&answer);
            self.refused.fetch_add(1, Ordering::Relaxed);
            None
        })
        .await;
        self.accepted.lock().await.insert(n, seq);
    }

    /// Waits until so many more were accepted.
    async fn more(&self, count: usize) {
        let before = self.accepted.lock().await.len();
        eventually_within(RECOVERY, "accepted events", || async {
            (self.accepted.lock().await.len() >= before + count).then_some(())
        })
        .await;
    }

    /// Waits until somebody more was told "not now".
    async fn refusal(&self) {
        let before = self.refused.load(Ordering::Relaxed);
        eventually_within(RECOVERY, "a refused event", || async {
            (self.refused.load(Ordering::Relaxed) > before).then_some(())
        })
        .await;
    }

    async fn end(&self) {
        self.ending.store(true, Ordering::Relaxed);
        eventually_within(RECOVERY, "the last event", || async {
            (self.running.load(Ordering::Relaxed) == 0).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_gone_and_back_loses_nothing_and_is_a_503_meanwhile() {
    let mut ground = Ground::new(&temporary("outage"), &[]).await;
    let load = ground.load(100);
    load.more(40).await;
    ground.cluster.take().unwrap().stop().await.unwrap();
    load.refusal().await;
    assert_not_now(&ground.api.get("/readyz").await);
    assert_not_now(&ground.api.get(&ground.workspace.at("/entries")).await);
    ground.cluster = Some(Cluster::start(ground.options.clone()).await.unwrap());
    load.more(40).await;
    ground.assert_whole(&load).await;
    ground.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_ends_in_an_outage_longer_than_the_lease_is_not_forgotten() {
    let mut ground = Ground::new(&temporary("outage"), &[]).await;
    let held = |hooks: &[Hook]| hooks.iter().any(|hook| hook.reply == Reply::Hold);
    ground.receiver.behave(|_| Reply::Hold);
    ground.source.event("0 an event").await;
    ground.receiver.until("an attempt", held).await;
    ground.cluster.take().unwrap().stop().await.unwrap();
    // The answer ends the destination, which cannot be written; nor can anything else of the lane's while it is this node's.
    ground.receiver.behave(|_| Reply::Status(410));
    tokio::time::sleep(LEASE + Duration::from_secs(1)).await;
    ground.cluster = Some(Cluster::start(ground.options.clone()).await.unwrap());
    eventually_within(RECOVERY, "a ready node", || async {
        (ground.api.get("/readyz").await.status == 200).then_some(())
    })
    .await;
    // Nothing else happens by which it would be found again.
    let told = eventually_within(RECOVERY, "the end of the destination", || async {
        ground.workspace.entries_of("destination.disabled").await.pop()
    })
    .await;
    assert_eq!(told["data"]["reason"], "the receiver answered 410 Gone");
    ground.receiver.behave(|_| Reply::Status(200));
    ground.destination.change(json!({ "enabled": true })).await;
    ground.destination.settled(1, "delivered").await;
    let load = Load::default();
    load.accepted.lock().await.insert(0, ground.receiver.hooks_of("hook")[0].seq);
    ground.assert_whole(&load).await;
    ground.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_restarting_again_and_again_costs_nobody_more_than_time() {
    let ground = Ground::new(&temporary("outage"), &[]).await;
    let load = ground.load(100);
    for signal in [Signal::SIGKILL, Signal::SIGINT, Signal::SIGKILL] {
        load.more(40).await;
        let before = ground.postmaster();
        kill(Pid::from_raw(before.try_into().unwrap()), signal).unwrap();
        let mut status = ground.cluster().status();
        status.wait_for(|s| matches!(s, Status::Running { pid } if *pid != before)).await.unwrap();
    }
    load.more(40).await;
    ground.assert_whole(&load).await;
    ground.stop().await;
}

/// Connects as somebody else until nobody but a superuser is let in.
async fn crowd(ground: &Ground, others: &mut Vec<PgConnection>) {
    let mut refused = 0;
    while refused < 20 {
        let connecting = ground.cluster().connect_options(roles::OWNER, DATABASE).connect().await;
        match connecting {
            Ok(connection) => others.push(connection),
            Err(e) => {
                assert_eq!(e.as_database_error().and_then(|e| e.code()).as_deref(), Some("53300"), "{e}");
                refused += 1;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_out_of_connections_is_a_503_until_there_are_some() {
    let ground = Ground::new(&temporary("outage"), &[("max_connections", "26")]).await;
    let load = ground.load(100);
    load.more(40).await;
    let mut others = Vec::new();
    let mut superuser = ground.superuser().await;
    let own = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE usename IN ('statusledger_service', 'statusledger_worker')";
    // Three are reserved for superusers, of whom one is here. To count the node's connections would not do: one that begins or
    // ends is in no view, and yet has a place.
    let places = 26 - 3 - 1;
    loop {
        crowd(&ground, &mut others).await;
        if others.len() == places {
            break;
        }
        let _: i64 = sqlx::query_scalar(own).fetch_one(&mut superuser).await.unwrap();
    }
    load.refusal().await;
    assert_not_now(&ground.api.get(&ground.workspace.at("/entries")).await);
    assert_not_now(&ground.api.get("/readyz").await);
    drop(others);
    load.more(40).await;
    ground.assert_whole(&load).await;
    ground.stop().await;
}

/// A small file system of the test's own, gone with it.
struct Disk(PathBuf);

impl Disk {
    /// None, said loudly, where nothing can be mounted.
    fn new(directory: &Path, mib: u32) -> Option<Self> {
        let path = directory.join("disk");
        std::fs::create_dir(&path).unwrap();
        let size = format!("size={mib}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&path).output();
        if !mounted.as_ref().is_ok_and(|mounted| mounted.status.success()) {
            eprintln!(
                "SKIPPED: a full disk cannot be tried, since nothing can be mounted here; run it as root: {mounted:?}"
            );
            return None;
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o711)).unwrap();
        Some(Self(path))
    }

    /// Fills it to its last byte.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("ballast");
        let mut file = std::fs::File::create(&path).unwrap();
        for chunk in [1 << 20, 4096, 1] {
            while file.write_all(&vec![0; chunk]).is_ok() {}
        }
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whatever still runs there keeps it until its end.
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_out_of_disk_is_a_503_until_there_is_room() {
    let directory = temporary("full");
    let Some(disk) = Disk::new(&directory, 256) else { return };
    let ground = Ground::new(&disk.0, &[("max_wal_size", "64MB")]).await;
    let load = ground.load(60_000);
    load.more(40).await;
    let ballast = disk.fill();
    load.refusal().await;
    load.refusal().await;
    std::fs::remove_file(ballast).unwrap();
    load.more(40).await;
    ground.assert_whole(&load).await;
    ground.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_read_only_is_a_503_for_what_writes_and_is_read_meanwhile() {
    let ground = Ground::new(&temporary("outage"), &[]).await;
    let load = ground.load(100);
    load.more(40).await;
    let mut superuser = ground.superuser().await;
    for statement in ["ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()"] {
        sqlx::query(statement).execute(&mut superuser).await.unwrap();
    }
    load.refusal().await;
    let made = json!({ "kind": "inbound", "name": "not now" });
    assert_not_now(&ground.api.post(&ground.workspace.at("/sources"), made).await);
    ground.api.get(&ground.workspace.at("/entries/0")).await.expect(200);
    for statement in [
        "SET default_transaction_read_only = off",
        "ALTER SYSTEM RESET default_transaction_read_only",
        "SELECT pg_reload_conf()",
    ] {
        sqlx::query(statement).execute(&mut superuser).await.unwrap();
    }
    load.more(40).await;
    ground.assert_whole(&load).await;
    ground.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_slow_is_slow_and_silent_is_a_503_until_it_speaks() {
    let (ground, between) = Ground::behind_a_proxy().await;
    let load = ground.load(100);
    load.more(40).await;
    // Each message a twentieth of a second late, each way: nobody is refused.
    between.delay(Duration::from_millis(50));
    load.more(20).await;
    assert_eq!(load.refused.load(Ordering::Relaxed), 0);
    between.delay(Duration::ZERO);
    // Connections that stay open, and on which nothing comes for as long as the network is away.
    between.swallow(true);
    load.refusal().await;
    between.swallow(false);
    load.more(40).await;
    eventually_within(RECOVERY, "the node is ready", || async {
        (ground.api.get("/readyz").await.status == 200).then_some(())
    })
    .await;
    ground.assert_whole(&load).await;
    ground.stop().await;
}

/// An append that waits for the head at the server.
#[derive(Debug, sqlx::FromRow)]
struct Appending {
    pid: i32,
    /// Its transaction.
    xid: String,
    /// Those it waits for.
    behind: Vec<i32>,
}

/// Waits until so many appends wait for the head at the server; in the order in which they came.
async fn appending(watcher: &Mutex<PgConnection>, count: usize) -> Vec<Appending> {
    eventually(&format!("{count} appends that wait for the head"), || async {
        let waiting: Vec<Appending> = sqlx::query_as(
            "SELECT pid, backend_xid::text AS xid, pg_blocking_pids(pid) AS behind FROM pg_stat_activity
              WHERE application_name = 'statusledger append' AND wait_event_type = 'Lock'
                AND backend_xid IS NOT NULL
              ORDER BY query_start",
        )
        .fetch_all(&mut *watcher.lock().await)
        .await
        .unwrap();
        (waiting.len() == count).then_some(waiting)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_that_the_server_goes_on_with_after_its_client_has_looked_for_it_is_recorded_once() {
    let (ground, between) = Ground::behind_a_proxy().await;
    let watcher = Mutex::new(ground.superuser().await);
    let held = Held::by(ground.superuser().await, ground.workspace.id).await;
    // Without an idempotency key: that would find the first by itself.
    let event = tokio::spawn({
        let source = ground.source.clone();
        async move { source.post("0 an event").await }
    });
    let first = appending(&watcher, 1).await.remove(0);
    between.cut("ledger_append(");
    // The node has lost it, has looked in vain whether it is written, and sends it again, behind the first, which the
    // server still has.
    let both = appending(&watcher, 2).await;
    assert_eq!(both[0].pid, first.pid);
    assert!(both[1].behind.contains(&first.pid), "{both:?}");
    held.release().await;
    let answer = event.await.unwrap().expect(202).json();
    let seq = answer["seq"].as_u64().unwrap();
    let written: Vec<(i64, String)> = sqlx::query_as(
        "SELECT seq, xmin::text FROM entries WHERE workspace_id = $1 AND type = 'event.received'",
    )
    .bind(ground.workspace.id.uuid())
    .fetch_all(&mut *watcher.lock().await)
    .await
    .unwrap();
    // By the one that nobody heard of any more.
    assert_eq!(written, [(seq as i64, first.xid)]);
    let load = Load::default();
    load.accepted.lock().await.insert(0, seq);
    ground.assert_whole(&load).await;
    ground.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_somebody_holds_is_a_503_there_and_nowhere_else_and_leaves_nobody_waiting() {
    let world = World::new().await;
    let (held, free) = (world.workspace("held").await, world.workspace("free").await);
    let (source, other) = (held.inbound("events").await, free.inbound("events").await);
    let holder = Held::by(world.database.superuser().await, held.id).await;
    let event = tokio::spawn({
        let source = source.clone();
        async move { source.post_once("once", "an event").await }
    });
    let made = tokio::spawn({
        let (api, path) = (world.api.clone(), held.at("/sources"));
        async move { api.post(&path, json!({ "kind": "inbound", "name": "later" })).await }
    });
    // Others are not held up, for as long as it takes.
    let mut n = 0;
    while !event.is_finished() || !made.is_finished() {
        other.event(format!("event {n}")).await;
        n += 1;
    }
    assert_not_now(&event.await.unwrap());
    assert_not_now(&made.await.unwrap());
    // The server gave up too: no backend waits for a lock on behalf of nobody.
    eventually("nobody waits any more", || async {
        (waiting(&mut world.database.superuser().await).await == 0).then_some(())
    })
    .await;
    holder.release().await;
    let first = source.post_once("once", "an event").await.expect(202).json();
    assert_eq!(source.post_once("once", "an event").await.expect(202).json(), first);
    assert_eq!(held.entries_of("event.received").await.len(), 1);
    assert_eq!(held.entries_of("source.created").await.len(), 1);
    assert_eq!(free.entries_of("event.received").await.len(), n);
    world.assert_whole(&[&held, &free]).await;
}
