//! Three nodes over one Postgres, killed and started at random while clients send and an auditor watches.
//!
//! `STATUSLEDGER_CHAOS_S` says for how many seconds (20), `STATUSLEDGER_CHAOS_SEED` repeats the choices of a run, which a
//! failure prints. Choices follow the progress of the clients, not a clock.

use crate::crash::{ENVIRONMENT, accepted};
use crate::harness::{
    Api, Inbound, Place, Receiver, Reply, TestDatabase, Workspace, eventually, eventually_within, run,
    temporary, try_send, verify_export,
};
use serde_json::{Value, json};
use statusledger::database::roles;
use statusledger_verify::checkpoint::{Checkpoint, SignedCheckpoint};
use statusledger_verify::consistency::{self, ConsistencyProof, Evidence};
use statusledger_verify::manifest::{KeyManifest, Pin, Revoked};
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

const NODES: usize = 3;
/// The same for all: as an operator gives it to each node.
const KEY: (&str, &str) = ("STATUSLEDGER_KEY_ENCRYPTION_KEY", "sBnXcXBZlzoFsh2o3cMjDwJQpwFv2oNS4kTZlRz1mM0=");
/// Clients that send at once.
const CLIENTS: usize = 6;
/// Events between two misfortunes, at most.
const BETWEEN: u64 = 60;
/// How long an event may take while nodes come and go.
const PATIENCE: Duration = Duration::from_secs(90);

/// Numbers that follow from a seed (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % bound
    }
}

/// Prints what repeats the choices, where the test fails.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("STATUSLEDGER_CHAOS_SEED={} repeats these choices", self.0);
        }
    }
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|e| panic!("{name}={text}: {e}")))
}

async fn start(place: &mut Place, database: &TestDatabase) {
    let (service, worker) = (database.url(roles::SERVICE), database.url(roles::WORKER));
    let more = ["--database-url", &service, "--worker-database-url", &worker];
    let mut environment = ENVIRONMENT.to_vec();
    environment.push(KEY);
    environment.push(("STATUSLEDGER_DATABASE_CONNECTIONS", "6"));
    place.start("serve", &more, &environment).await;
}

/// Follows the signed checkpoints of every node: each verifies, and is of the same history as the largest before it.
async fn audit(apis: Vec<Api>, workspace: Workspace, pin: Pin, until: Arc<AtomicBool>) -> (usize, usize) {
    let (mut largest, mut seen, mut grown): (Option<Checkpoint>, usize, usize) = (None, 0, 0);
    while !until.load(Ordering::Relaxed) {
        for api in &apis {
            let Some(newer) = checkpoint(api, &workspace, &pin).await else { continue };
            seen += 1;
            let Some(older) = &largest else {
                largest = Some(newer);
                continue;
            };
            let (small, large) = if newer.size < older.size { (&newer, older) } else { (older, &newer) };
            let Some(proof) = proof(&apis, &workspace, small.size, large.size).await else { continue };
            let evidence = Evidence { proof: Some(&proof), recomputed_root: None };
            consistency::verify(small, large, evidence)
                .unwrap_or_else(|e| panic!("{small:?} and {large:?} are of two histories: {e}"));
            if newer.size > older.size {
                grown += 1;
                largest = Some(newer);
            }
        }
    }
    (seen, grown)
}

/// A node's newest checkpoint, if it serves just now.
async fn checkpoint(api: &Api, workspace: &Workspace, pin: &Pin) -> Option<Checkpoint> {
    let short = Duration::from_secs(5);
    let keys = try_send(api.bare("GET", "/.well-known/statusledger-keys.json").timeout(short)).await.ok()?;
    let note = try_send(api.request("GET", &workspace.at("/checkpoint")).timeout(short)).await.ok()?;
    if keys.status != 200 || note.status != 200 {
        return None;
    }
    let trusted = KeyManifest::parse(&keys.body).unwrap().trust(pin).unwrap();
    let signed = SignedCheckpoint::parse(&note.body).unwrap();
    signed.verify(&trusted, None, Revoked::Refused).unwrap();
    Some(signed.checkpoint().clone())
}

/// The proof between two sizes, from whichever node serves.
async fn proof(apis: &[Api], workspace: &Workspace, from: u64, to: u64) -> Option<ConsistencyProof> {
    for api in apis {
        let path = workspace.at(&format!("/proofs/consistency?from={from}&to={to}"));
        let request = api.request("GET", &path).timeout(Duration::from_secs(5));
        if let Ok(answer) = try_send(request).await
            && answer.status == 200
        {
            return Some(ConsistencyProof::parse(&answer.body).unwrap());
        }
    }
    None
}

/// Sends an event to one node after another until it is accepted.
async fn send_anywhere(sources: &[Inbound], n: usize, refused: &AtomicUsize) -> u64 {
    let tries = AtomicUsize::new(n);
    eventually_within(PATIENCE, "an accepted event", || async {
        let source = &sources[tries.fetch_add(1, Ordering::Relaxed) % sources.len()];
        let seq = accepted(source, n).await;
        refused.fetch_add(usize::from(seq.is_none()), Ordering::Relaxed);
        seq
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_killed_and_started_at_random_lose_and_double_nothing() {
    let seconds = from_environment("STATUSLEDGER_CHAOS_S").unwrap_or(20);
    let drawn =
        || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed = Seed(from_environment("STATUSLEDGER_CHAOS_SEED").unwrap_or_else(drawn) | 1);
    let mut random = Random(seed.0);
    let database = TestDatabase::create().await;
    let mut places: Vec<Place> = (0..NODES).map(|_| Place::new("node")).collect();
    for place in &mut places {
        start(place, &database).await;
    }
    let pin = places[0].program.as_ref().unwrap().pin.clone();
    let token = std::fs::read_to_string(places[0].directory.join("bootstrap-token")).unwrap();
    let addresses: Vec<SocketAddr> = places.iter().map(|p| p.program.as_ref().unwrap().address).collect();
    let apis: Vec<Api> = addresses.iter().map(|address| Api::new(*address, token.trim())).collect();
    let receiver = Receiver::start(pin.clone(), &apis[0].base).await;
    receiver.learn_keys().await;
    let mut count = 0;
    receiver.behave(move |_| {
        count += 1;
        Reply::Status(if count % 7 == 0 { 500 } else { 200 })
    });
    let workspace = apis[0].workspace("chaos").await;
    let source = workspace.inbound("events").await;
    let filter = json!({ "filter": { "types": ["event.*"] }, "max_in_flight": 8 });
    let destination = workspace.destination(&receiver, "hook", filter).await;
    let sources: Vec<Inbound> =
        apis.iter().map(|api| Inbound { api: api.clone(), ..source.clone() }).collect();

    let over = Arc::new(AtomicBool::new(false));
    let audited = Arc::new(AtomicBool::new(false));
    let auditor = tokio::spawn(audit(apis.clone(), workspace.clone(), pin.clone(), Arc::clone(&audited)));
    let accepted: Arc<Mutex<BTreeMap<usize, u64>>> = Arc::default();
    let (done, next, refused) =
        (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        let (sources, accepted, over) = (sources.clone(), Arc::clone(&accepted), Arc::clone(&over));
        let (done, next, refused) = (Arc::clone(&done), Arc::clone(&next), Arc::clone(&refused));
        clients.spawn(async move {
            while !over.load(Ordering::Relaxed) {
                let n = next.fetch_add(1, Ordering::Relaxed);
                let seq = send_anywhere(&sources, n, &refused).await;
                accepted.lock().await.insert(n, seq);
                done.fetch_add(1, Ordering::Relaxed);
            }
        });
    }

    let end = Instant::now() + Duration::from_secs(seconds);
    let (mut kills, mut starts) = (0, 0);
    while Instant::now() < end {
        // With no node up nothing would go on.
        let running = places.iter().filter(|place| place.program.is_some()).count();
        if running > 0 {
            let when = done.load(Ordering::Relaxed) + random.below(BETWEEN) as usize;
            eventually_within(PATIENCE, "events", || async {
                (done.load(Ordering::Relaxed) >= when).then_some(())
            })
            .await;
        }
        let place = &mut places[random.below(NODES as u64) as usize];
        match place.program.take() {
            Some(program) => {
                program.kill().await;
                kills += 1;
            }
            None => {
                start(place, &database).await;
                starts += 1;
            }
        }
    }
    for place in places.iter_mut().filter(|place| place.program.is_none()) {
        start(place, &database).await;
    }
    over.store(true, Ordering::Relaxed);
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
    let accepted = accepted.lock().await.clone();
    let events = accepted.len();
    let hooks = eventually_within(PATIENCE, "every delivery", || async {
        let taken: std::collections::BTreeSet<u64> =
            receiver.hooks_of("hook").iter().filter(|h| h.taken()).map(|h| h.number).collect();
        (taken.len() >= events).then(|| receiver.hooks_of("hook"))
    })
    .await;
    audited.store(true, Ordering::Relaxed);
    let (checkpoints, grown) = auditor.await.unwrap();
    eprintln!(
        "seed {}: {kills} kills, {starts} starts, {events} events ({} times refused), {} attempts, {checkpoints} checkpoints ({grown} larger than all before)",
        seed.0,
        refused.load(Ordering::Relaxed),
        hooks.len()
    );
    assert!(kills > 2 && starts > 0 && events > 50, "nothing happened");
    assert!(grown > 5, "the auditor saw next to nothing");

    // Each event stands in the ledger once, at the place that its sender was told.
    let entries = workspace.entries().await;
    assert!(entries.iter().enumerate().all(|(n, e)| e["seq"] == n), "seq is dense");
    let stand: Vec<u64> = entries
        .iter()
        .filter(|e| e["type"] == "event.received")
        .map(|e| e["seq"].as_u64().unwrap())
        .collect();
    let mut told: Vec<u64> = accepted.values().copied().collect();
    told.sort_unstable();
    assert_eq!(told, stand);
    // Each was delivered under one id with one body, its opening is what was sent, and no number is missing.
    receiver.assert_all_verified();
    let mut of_number: HashMap<u64, (&str, u64, &[u8])> = HashMap::new();
    for hook in &hooks {
        let first = of_number.entry(hook.number).or_insert((&hook.id, hook.seq, &hook.body));
        assert_eq!(*first, (hook.id.as_str(), hook.seq, &hook.body[..]), "number {}", hook.number);
    }
    assert!((1..=events as u64).all(|n| of_number.contains_key(&n)) && of_number.len() == events);
    let by_seq: HashMap<u64, &Value> = hooks.iter().map(|h| (h.seq, &h.value)).collect();
    for (n, seq) in &accepted {
        let text = by_seq[seq]["openings"]["payload"]["value"]["text"].as_str().unwrap();
        assert_eq!(text, format!("{{\"n\":{n}}}"));
    }
    eventually("each delivery is settled", || async {
        let settled = destination.deliveries().await.iter().filter(|d| d["state"] == "delivered").count();
        (settled == events.min(1000)).then_some(())
    })
    .await;
    // And all is as it was written.
    let (service, worker) = (database.url(roles::SERVICE), database.url(roles::WORKER));
    let arguments =
        ["doctor", "--data-dir", ".", "--database-url", &service, "--worker-database-url", &worker];
    for place in &places {
        let examined = run(&place.directory, &arguments, &[KEY]).await;
        let told = String::from_utf8_lossy(&examined.stdout).into_owned();
        assert!(examined.status.success() && told.contains("all as it was written"), "{told} {examined:?}");
    }
    let answer = apis[0].get(&workspace.at("/export?openings=true")).await.expect(200);
    let file = temporary("export").join("ledger.zip");
    std::fs::write(&file, &answer.body).unwrap();
    verify_export(&file, &pin).unwrap();
    for place in &mut places {
        assert!(place.program.take().unwrap().terminate().await, "it stops in good order");
    }
}
