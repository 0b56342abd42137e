//! What a power cut leaves: the program killed and the database restarted in the middle of its work.

use crate::harness::{
    Api, Program, Receiver, Reply, eventually_within, run, temporary, try_send, verify_export,
};
use serde_json::json;
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Events sent, each under an idempotency key.
const EVENTS: usize = 1000;
/// Senders at once.
const SENDERS: usize = 8;
/// How long all of it may take on a busy machine.
const LONG: Duration = Duration::from_secs(150);

/// A port that was free just now: the same for every life of the program, as its senders know no other.
fn free_port() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port().to_string()
}

/// Ends the postmaster of a data directory as a crash of it would.
fn kill_postmaster(data: &Path) {
    use nix::sys::signal::{Signal, kill};
    let note = std::fs::read_to_string(data.join("postgres/data/postmaster.pid")).unwrap();
    let pid: i32 = note.lines().next().unwrap().trim().parse().unwrap();
    kill(nix::unistd::Pid::from_raw(pid), Signal::SIGQUIT).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_events_survive_five_kills_and_two_restarts_of_the_database() {
    let directory = temporary("crash");
    let (data, token_file, log) = (directory.join("data"), directory.join("token"), directory.join("log"));
    let port = free_port();
    let arguments = [
        "up",
        "--data-dir",
        data.to_str().unwrap(),
        "--port",
        &port,
        "--bootstrap-token-file",
        token_file.to_str().unwrap(),
    ];
    let schedule = format!("[0.0{}]", ", 0.1".repeat(60));
    let environment = [
        ("STATUSLEDGER_DELIVERY__ALLOW_HTTP", "true"),
        ("STATUSLEDGER_DELIVERY__ALLOW_NETWORKS", r#"["127.0.0.0/8"]"#),
        ("STATUSLEDGER_DELIVERY__SCHEDULE_S", schedule.as_str()),
        ("STATUSLEDGER_LOG", "warn"),
    ];
    let mut program = Program::start(&directory, &log, &arguments, &environment).await;
    let pin = program.pin.clone();
    let token = std::fs::read_to_string(&token_file).unwrap().trim().to_owned();
    let api = Api::new(program.address, &token);
    let workspace = api.workspace("crash").await;
    let source = workspace.inbound("events").await;
    let receiver = Receiver::start(program.pin.clone(), &api.base).await;
    workspace
        .destination(&receiver, "hook", json!({ "filter": { "types": ["event.*"] }, "max_in_flight": 4 }))
        .await;
    let mut asked = 0_usize;
    receiver.behave(move |_| {
        asked += 1;
        Reply::Status(if asked.is_multiple_of(3) { 500 } else { 200 })
    });

    let accepted = Arc::new(AtomicUsize::new(0));
    let mut senders = Vec::new();
    for sender in 0..SENDERS {
        let (source, accepted) = (source.clone(), Arc::clone(&accepted));
        senders.push(tokio::spawn(async move {
            for event in (sender..EVENTS).step_by(SENDERS) {
                let body = format!("{{\"event\":{event}}}");
                eventually_within(LONG, "an event is taken", || async {
                    let request =
                        source.request(body.clone()).header("idempotency-key", format!("event-{event}"));
                    // Nobody answers, or not yes: the sender tries again, under the same key.
                    try_send(request).await.ok().filter(|answer| answer.status == 202)
                })
                .await;
                accepted.fetch_add(1, Ordering::SeqCst);
            }
        }));
    }
    for (step, at) in [60, 200, 300, 450, 600, 750, 900].into_iter().enumerate() {
        eventually_within(LONG, "so many events are taken", || async {
            (accepted.load(Ordering::SeqCst) >= at).then_some(())
        })
        .await;
        if step == 2 || step == 4 {
            kill_postmaster(&data);
        } else {
            program.kill().await;
            program = Program::start(&directory, &log, &arguments, &environment).await;
        }
    }
    for sender in senders {
        sender.await.unwrap();
    }

    // Each recorded once.
    let entries = workspace.entries_of("event.received").await;
    assert_eq!(entries.len(), EVENTS);
    let seqs: HashSet<u64> = entries.iter().map(|e| e["seq"].as_u64().unwrap()).collect();
    // Each delivered, under one id.
    eventually_within(LONG, "everything is delivered", || async {
        let taken: HashSet<u64> = receiver.hooks().iter().filter(|h| h.taken()).map(|h| h.seq).collect();
        seqs.is_subset(&taken).then_some(())
    })
    .await;
    let mut ids: HashMap<u64, (String, Vec<u8>)> = HashMap::new();
    for hook in receiver.hooks() {
        let first = ids.entry(hook.seq).or_insert_with(|| (hook.id.clone(), hook.body.to_vec()));
        assert_eq!((&first.0, &first.1[..]), (&hook.id, &hook.body[..]), "entry {}", hook.seq);
    }
    receiver.assert_all_verified();
    assert!(program.terminate().await);

    // The ledger whole.
    let place = ["--data-dir", data.to_str().unwrap()];
    let doctor = run(&directory, &["doctor", place[0], place[1]], &environment).await;
    let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(doctor.status.success(), "{said}{}", String::from_utf8_lossy(&doctor.stderr));
    let out = directory.join("crash.zip");
    let export = ["export", place[0], place[1], "--workspace", "crash", "--out", out.to_str().unwrap()];
    assert!(run(&directory, &export, &environment).await.status.success());
    verify_export(&out, &pin).unwrap();
}
