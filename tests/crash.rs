//! The whole of it under everything that can go wrong at once: the service killed, Postgres restarted, a receiver
//! that fails. Each transition is recorded once, each is delivered at least once under one id, the ledger is whole.

use crate::harness::{
    Api, Inbound, Place, Receiver, Reply, Workspace, eventually, eventually_within, run, verify_export,
    verify_export_with_python,
};
use serde_json::{Value, json};
use statusledger_simulator::Step;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Mutex;

/// Events sent; the transitions of the store come on top.
const EVENTS: usize = 990;
/// States that the store's version goes through.
const STATES: [&str; 10] = [
    "WAITING_FOR_REVIEW",
    "IN_REVIEW",
    "REJECTED",
    "PREPARE_FOR_SUBMISSION",
    "READY_FOR_REVIEW",
    "WAITING_FOR_REVIEW",
    "IN_REVIEW",
    "PENDING_DEVELOPER_RELEASE",
    "PROCESSING_FOR_DISTRIBUTION",
    "READY_FOR_DISTRIBUTION",
];
/// Clients that send at once.
const CLIENTS: usize = 8;

pub const ENVIRONMENT: [(&str, &str); 8] = [
    // Plenty of quick attempts: what is tested is that none is lost, not when it comes.
    ("STATUSLEDGER_DELIVERY__SCHEDULE_S", "[0.0,0.05,0.05,0.1,0.1,0.2,0.2,0.5,0.5,1.0,1.0,1.0,2.0,2.0,2.0]"),
    ("STATUSLEDGER_DELIVERY__JITTER", "0.1"),
    ("STATUSLEDGER_DELIVERY__BREAKER_FAILURES", "1000"),
    ("STATUSLEDGER_DELIVERY__ALLOW_HTTP", "true"),
    ("STATUSLEDGER_DELIVERY__ALLOW_NETWORKS", r#"["127.0.0.0/8"]"#),
    ("STATUSLEDGER_POLLING__ALLOW_OTHER_HOSTS", "true"),
    ("STATUSLEDGER_POLLING__INTERVAL_S", "0.1"),
    ("STATUSLEDGER_POLLING__SETTLED_S", "0.1"),
];

/// The postmaster of the data directory, and when it was started.
fn postmaster(directory: &Path) -> Option<(i32, String)> {
    let file = std::fs::read_to_string(directory.join("postgres/data/postmaster.pid")).ok()?;
    let mut lines = file.lines();
    let pid = lines.next()?.trim().parse().ok()?;
    let started = lines.nth(1)?.trim().to_owned();
    (lines.last()?.trim() == "ready").then_some((pid, started))
}

/// Ends the postmaster by `signal` and waits until another serves.
async fn restart_postgres(directory: &Path, signal: nix::sys::signal::Signal) {
    let before = eventually("a postmaster", || async { postmaster(directory) }).await;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(before.0), signal).unwrap();
    eventually("another postmaster", || async { postmaster(directory).filter(|now| *now != before) }).await;
}

/// Sends event `n` once; its seq if it is accepted.
pub async fn accepted(source: &Inbound, n: usize) -> Option<u64> {
    let request = source
        .request(format!("{{\"n\":{n}}}"))
        .header("idempotency-key", format!("event-{n}"))
        .timeout(Duration::from_secs(20));
    match crate::harness::try_send(request).await {
        Ok(answer) if answer.status == 202 => return answer.json()["seq"].as_u64(),
        // Nothing but "not now" is an answer to a good request.
        Ok(answer) => assert_eq!(answer.problem(503), "unavailable"),
        Err(e) => assert!(!e.is_builder() && !e.is_redirect(), "{e}"),
    }
    None
}

/// Sends event `n` until it is accepted: as a client does that does not know whether it was heard.
pub async fn send_until_accepted(source: &Inbound, n: usize, refused: &AtomicUsize) -> u64 {
    eventually_within(Duration::from_secs(60), "an accepted event", || async {
        let seq = accepted(source, n).await;
        refused.fetch_add(usize::from(seq.is_none()), Ordering::Relaxed);
        seq
    })
    .await
}

async fn set_up(
    api: &Api,
    receiver: &Receiver,
    simulator: &statusledger_simulator::Simulator,
) -> (Workspace, Inbound) {
    let workspace = api.workspace("crashes").await;
    let source = workspace.inbound("events").await;
    let filter = json!({ "filter": { "types": ["event.*", "store.*"] }, "max_in_flight": 8 });
    workspace.destination(receiver, "hook", filter).await;
    let [apple, _] = crate::sources::requests(simulator);
    api.post(&workspace.at("/sources"), apple).await.expect(201);
    eventually("the first sight", || async {
        (workspace.entries_of("store.version.first_seen").await.len() == 1).then_some(())
    })
    .await;
    (workspace, source)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_transitions_survive_five_kills_and_two_restarts_of_postgres() {
    let mut service = Place::new("crash");
    let directory = service.directory.clone();
    service.start("up", &[], &ENVIRONMENT).await;
    let program = service.program.as_ref().unwrap();
    let (pin, address) = (program.pin.clone(), program.address);
    let token = std::fs::read_to_string(directory.join("bootstrap-token")).unwrap();
    let api = Api::new(address, token.trim());
    let receiver = Receiver::start(pin.clone(), &api.base).await;
    receiver.learn_keys().await;
    let mut count = 0;
    receiver.behave(move |_| {
        count += 1;
        Reply::Status(if count % 3 == 0 { 500 } else { 200 })
    });
    let simulator = crate::sources::simulator().await;
    let (workspace, source) = set_up(&api, &receiver, &simulator).await;

    let accepted: Arc<Mutex<BTreeMap<usize, u64>>> = Arc::default();
    let (done, refused) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..CLIENTS {
        let (source, accepted, done, refused) =
            (source.clone(), Arc::clone(&accepted), Arc::clone(&done), Arc::clone(&refused));
        clients.spawn(async move {
            for n in (client..EVENTS).step_by(CLIENTS) {
                let seq = send_until_accepted(&source, n, &refused).await;
                accepted.lock().await.insert(n, seq);
                done.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    // The store moves when the ledger has seen where it stood: a state that nobody looked at is no transition.
    let store = tokio::spawn({
        let workspace = workspace.clone();
        async move {
            for (n, state) in STATES.iter().enumerate() {
                simulator.apply(Step::VersionState { id: "v100".into(), state: (*state).into() }).unwrap();
                eventually_within(Duration::from_secs(60), "a transition of the store", || async {
                    let path = workspace.at("/entries?type=store.version.transitioned&limit=1000");
                    let answer = crate::harness::try_send(workspace.api.request("GET", &path)).await.ok()?;
                    let known =
                        (answer.status == 200).then(|| answer.json()["items"].as_array().unwrap().len())?;
                    (known == n + 1).then_some(())
                })
                .await;
            }
        }
    });

    // Seven misfortunes, spread over the events.
    let misfortunes = ["kill", "stop", "kill", "kill", "crash", "kill", "kill"];
    for (n, misfortune) in misfortunes.iter().enumerate() {
        let when = (n + 1) * EVENTS / (misfortunes.len() + 1);
        eventually_within(Duration::from_secs(90), "events", || async {
            (done.load(Ordering::Relaxed) >= when).then_some(())
        })
        .await;
        match *misfortune {
            "kill" => {
                service.program.take().unwrap().kill().await;
                service.start("up", &[], &ENVIRONMENT).await;
            }
            // In good order, and as a power cut would end it.
            "stop" => restart_postgres(&directory, nix::sys::signal::Signal::SIGINT).await,
            _ => restart_postgres(&directory, nix::sys::signal::Signal::SIGKILL).await,
        }
    }
    while let Some(done) = clients.join_next().await {
        done.unwrap();
    }
    store.await.unwrap();
    assert!(refused.load(Ordering::Relaxed) > 0, "no client noticed anything");

    // Each was recorded once.
    let total = EVENTS + STATES.len();
    let entries = workspace.entries().await;
    let events: Vec<&Value> = entries.iter().filter(|e| e["type"] == "event.received").collect();
    assert_eq!(events.len(), EVENTS);
    let mut seqs: Vec<u64> = accepted.lock().await.values().copied().collect();
    seqs.sort_unstable();
    assert_eq!(seqs, events.iter().map(|e| e["seq"].as_u64().unwrap()).collect::<Vec<_>>());
    let moved: Vec<&str> = entries
        .iter()
        .filter(|e| e["type"] == "store.version.transitioned")
        .map(|e| e["data"]["to"].as_str().unwrap())
        .collect();
    assert_eq!(moved, STATES);
    assert!(entries.iter().enumerate().all(|(n, e)| e["seq"] == n), "seq is dense");

    // Each was delivered at least once under one id, with one body, and numbers without a gap.
    let hooks = receiver.taken("hook", total).await;
    receiver.assert_all_verified();
    let mut of_number: HashMap<u64, (&str, u64)> = HashMap::new();
    for hook in &hooks {
        let first = of_number.entry(hook.number).or_insert((&hook.id, hook.seq));
        assert_eq!(*first, (hook.id.as_str(), hook.seq), "number {}", hook.number);
    }
    let first_bodies: HashMap<&str, &[u8]> =
        hooks.iter().rev().map(|h| (h.id.as_str(), &h.body[..])).collect();
    assert!(hooks.iter().all(|h| first_bodies[h.id.as_str()] == h.body), "an attempt had another body");
    assert_eq!(of_number.len(), total);
    assert!((1..=total as u64).all(|n| of_number.contains_key(&n)));
    for (n, seq) in accepted.lock().await.iter() {
        let hook = hooks.iter().find(|h| h.seq == *seq && h.taken()).unwrap_or_else(|| panic!("event {n}"));
        let text = hook.value["openings"]["payload"]["value"]["text"].as_str().unwrap();
        assert_eq!(text, format!("{{\"n\":{n}}}"));
    }

    // And the ledger is whole: to doctor beside the node, and to whoever gets the export.
    let examined = run(&directory, &["doctor", "--data-dir", "."], &[]).await;
    let told = String::from_utf8_lossy(&examined.stdout).into_owned();
    assert!(examined.status.success() && told.contains("all as it was written"), "{told} {examined:?}");
    let answer = api.get(&workspace.at("/export?openings=true")).await.expect(200);
    let file = directory.join("ledger.zip");
    std::fs::write(&file, &answer.body).unwrap();
    verify_export(&file, &pin).unwrap();
    if let Some(code) = verify_export_with_python(&file, &pin) {
        assert_eq!(code, 0);
    }
    // It stops well, and its Postgres with it.
    assert!(service.program.take().unwrap().terminate().await, "it stops in good order");
    assert_eq!(postmaster(&directory), None);
}
