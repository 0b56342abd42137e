//! Far more than is taken: what has no room is refused at once with when to come again, what was accepted is kept, and
//! memory stays below what docs/operations.md says ("Under load").

use crate::harness::{
    Api, Held, Inbound, Program, Receiver, Reply, TestDatabase, Workspace, eventually_within, run, temporary,
};
use serde_json::json;
use statusledger::database::roles;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Small requests that a node has in hand at once (`statusledger::room`).
const IN_HAND: usize = 2048;
/// As many more are offered at the same moment.
const OFFERED: usize = IN_HAND + 600;
/// What docs/operations.md says that a node takes at most here: 60 MiB idle, 2,048 small requests and their connections, 32
/// of 1 MiB in hand (5 times that in the making of their entries), and one destination with a backlog of large payloads.
const BOUND_MIB: u64 = 400;

/// What came of an event that was offered.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Accepted(u64),
    /// 503 before anything was done of it.
    Refused,
    /// 503 after it was in hand: whether it was recorded is not known.
    Unknown,
}

/// Sends an event as plainly as can be: some thousand clients fit beside the node.
async fn offer(address: SocketAddr, source: &Inbound, body: &[u8]) -> Outcome {
    // The system queues only so many connections that nobody has taken yet.
    static CONNECTING: Semaphore = Semaphore::const_new(100);
    let connecting = CONNECTING.acquire().await.unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /in/{} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        source.id,
        source.token,
        body.len()
    );
    // Whoever is refused is so before the body is read, and may find the door closed while it sends.
    let sent = async {
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body).await
    };
    let _ = sent.await;
    drop(connecting);
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{read:?}: {answer}"));
    if head.starts_with("HTTP/1.1 202") {
        return Outcome::Accepted(
            serde_json::from_str::<serde_json::Value>(body).unwrap()["seq"].as_u64().unwrap(),
        );
    }
    assert!(head.starts_with("HTTP/1.1 503"), "{head}");
    assert!(head.contains("\r\nretry-after: 1"), "{head}");
    assert!(head.contains("\r\ncontent-type: application/problem+json"), "{head}");
    if body.contains("Nothing was done") { Outcome::Refused } else { Outcome::Unknown }
}

/// The most memory that a process ever had, in MiB.
fn peak_mib(program: &Program) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", program.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() / 1024
}

struct Scene {
    database: TestDatabase,
    directory: std::path::PathBuf,
    program: Program,
    api: Api,
    workspace: Workspace,
    source: Inbound,
}

fn arguments(database: &TestDatabase, words: &[&str]) -> Vec<String> {
    let [service, worker] = [roles::SERVICE, roles::WORKER].map(|role| database.url(role));
    words
        .iter()
        .copied()
        .chain(["--data-dir", ".", "--database-url", &service, "--worker-database-url", &worker])
        .map(str::to_owned)
        .collect()
}

async fn scene() -> Scene {
    let (database, directory) = (TestDatabase::create().await, temporary("overload"));
    let words = arguments(&database, &["serve", "--port", "0", "--instance", "status.example.com"]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let environment = [
        ("STATUSLEDGER_DELIVERY__ALLOW_HTTP", "true"),
        ("STATUSLEDGER_DELIVERY__ALLOW_NETWORKS", r#"["127.0.0.0/8"]"#),
    ];
    let program = Program::start(&directory, &directory.join("log"), &words, &environment).await;
    let token = std::fs::read_to_string(directory.join("bootstrap-token")).unwrap();
    let api = Api::new(program.address, token.trim());
    let workspace = api.workspace("overload").await;
    let source = workspace.inbound("events").await;
    Scene { database, directory, program, api, workspace, source }
}

impl Scene {
    /// Offers all at once while nothing is taken, since somebody holds the ledger, until `enough` were refused.
    async fn flood(&self, bodies: Vec<Vec<u8>>, enough: usize) -> Vec<Outcome> {
        let held = Held::by(self.database.superuser().await, self.workspace.id).await;
        let mut offers = JoinSet::new();
        for body in bodies {
            let (address, source) = (self.program.address, self.source.clone());
            offers.spawn(async move { offer(address, &source, &body).await });
        }
        let mut outcomes = Vec::new();
        while outcomes.len() < enough {
            let outcome = offers.join_next().await.unwrap().unwrap();
            assert_eq!(outcome, Outcome::Refused, "while nothing is taken, all that is answered is refused");
            outcomes.push(outcome);
        }
        held.release().await;
        outcomes.extend(offers.join_all().await);
        outcomes
    }

    async fn events(&self) -> BTreeSet<u64> {
        let seqs: Vec<i64> =
            sqlx::query_scalar("SELECT seq FROM entries WHERE workspace_id = $1 AND type = 'event.received'")
                .bind(self.workspace.id.uuid())
                .fetch_all(&mut self.database.superuser().await)
                .await
                .unwrap();
        seqs.into_iter().map(|seq| seq as u64).collect()
    }
}

/// Accepted, refused and unknown ones; no two of the first have the same place.
fn counted(outcomes: &[Outcome]) -> (BTreeSet<u64>, usize, usize) {
    let accepted: Vec<u64> = outcomes
        .iter()
        .filter_map(|o| if let Outcome::Accepted(seq) = o { Some(*seq) } else { None })
        .collect();
    let distinct: BTreeSet<u64> = accepted.iter().copied().collect();
    assert_eq!(distinct.len(), accepted.len());
    let count = |of: &Outcome| outcomes.iter().filter(|o| *o == of).count();
    (distinct, count(&Outcome::Refused), count(&Outcome::Unknown))
}

#[tokio::test(flavor = "multi_thread")]
async fn past_saturation_what_has_no_room_is_refused_what_was_accepted_is_kept_and_memory_is_bounded() {
    // A file for each end of each connection.
    let files = nix::sys::resource::Resource::RLIMIT_NOFILE;
    let (_, hard) = nix::sys::resource::getrlimit(files).unwrap();
    nix::sys::resource::setrlimit(files, hard, hard).unwrap();
    let scene = scene().await;
    let receiver = Receiver::start(scene.program.pin.clone(), &scene.api.base).await;
    receiver.learn_keys().await;
    // A destination that takes nothing: its queue grows all the time.
    receiver.behave(|_| Reply::Hold);
    let hears = json!({ "filter": { "types": ["event.*"] } });
    scene.workspace.destination(&receiver, "hook", hears).await;

    // Many small ones.
    let small: Vec<Vec<u8>> =
        (0..OFFERED).map(|n| format!("{n} {}", "x".repeat(1000)).into_bytes()).collect();
    let outcomes = scene.flood(small, OFFERED - IN_HAND).await;
    let (mut accepted, refused, unknown) = counted(&outcomes);
    assert_eq!((refused, unknown), (OFFERED - IN_HAND, 0));
    assert_eq!(accepted.len(), IN_HAND);
    assert_eq!(scene.events().await, accepted, "what was refused is not in the ledger");
    let after_small = peak_mib(&scene.program);

    // Large ones, of which few have room.
    let large: Vec<Vec<u8>> = (0..100).map(|_| vec![b'y'; 1 << 20]).collect();
    let outcomes = scene.flood(large, 68).await;
    let (more, refused, unknown) = counted(&outcomes);
    assert_eq!((more.len(), refused, unknown), (32, 68, 0));
    accepted.extend(more);

    // And as fast as it can be, for thousands: all is accepted that has room.
    let mut clients = JoinSet::new();
    for client in 0..200 {
        let (address, source) = (scene.program.address, scene.source.clone());
        clients.spawn(async move {
            let mut outcomes = Vec::new();
            for n in 0..20 {
                outcomes.push(offer(address, &source, format!("{client}/{n}").as_bytes()).await);
            }
            outcomes
        });
    }
    let outcomes: Vec<Outcome> = clients.join_all().await.into_iter().flatten().collect();
    let (more, refused, unknown) = counted(&outcomes);
    assert_eq!((more.len(), refused, unknown), (4000, 0, 0));
    accepted.extend(more);
    assert_eq!(scene.events().await, accepted);

    let peak = peak_mib(&scene.program);
    eprintln!(
        "resident at most: {after_small} MiB after {OFFERED} small ones, {peak} MiB in all (bound {BOUND_MIB})"
    );
    assert!(peak < BOUND_MIB, "{peak} MiB");
    let metrics = scene.api.get("/metrics").await.expect(200);
    let shed =
        metrics.text().lines().find_map(|l| l.strip_prefix("statusledger_requests_shed_total ")).unwrap();
    assert_eq!(shed, (OFFERED - IN_HAND + 68).to_string());

    // What waits for the destination is all there: it takes it when it does again.
    receiver.behave(|_| Reply::Status(200));
    eventually_within(Duration::from_secs(90), "the backlog", || async {
        let left: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM deliveries WHERE workspace_id = $1 AND state <> 'delivered'",
        )
        .bind(scene.workspace.id.uuid())
        .fetch_one(&mut scene.database.superuser().await)
        .await
        .unwrap();
        (left == 0).then_some(())
    })
    .await;
    receiver.assert_all_verified();
    let peak = peak_mib(&scene.program);
    assert!(peak < BOUND_MIB, "{peak} MiB with the backlog sent");
    let words = arguments(&scene.database, &["doctor"]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let examined = run(&scene.directory, &words, &[]).await;
    let told = String::from_utf8_lossy(&examined.stdout).into_owned();
    assert!(told.contains("all as it was written"), "{told} {examined:?}");
    assert!(scene.program.terminate().await);
}
