//! The self-audit: a running node finds what a superuser did to its database, names the first row, tells it once, and
//! finds nothing where nothing was done.

use crate::harness::{Receiver, Workspace, World, eventually, send};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgConnection};
use statusledger::config::{RetentionSettings, SelfAuditSettings};
use statusledger::id::NodeId;
use statusledger::node::Node;
use statusledger::retention;
use statusledger::self_audit::SelfAudit;
use statusledger::self_audit::slice::{Audited, Auditor};
use std::collections::BTreeSet;
use time::OffsetDateTime;

/// Events of the ledger under attack: a full tile, and some behind it.
const EVENTS: usize = 300;
/// Its entries: with the source, `workspace.created` and what the audit says of both.
const ENTRIES: i64 = EVENTS as i64 + 4;

/// The settings of an audit that never rests.
fn busy() -> SelfAuditSettings {
    SelfAuditSettings { entries_per_second: 1_000_000, interval_s: 0.01 }
}

/// The audit of a node, carried out by hand: one slice at a time.
pub fn by_hand(node: &Node, settings: SelfAuditSettings) -> SelfAudit {
    SelfAudit {
        auditor: Auditor {
            database: node.database.clone(),
            data_keys: node.writer.data_keys().clone(),
            keyring: node.keyring.clone(),
            seen: node.seen_heads.clone(),
        },
        writer: node.writer.clone(),
        instance: node.instance.workspace,
        node: NodeId::new(),
        settings,
    }
}

/// A workspace with so many events.
async fn filled(world: &World, events: usize) -> Workspace {
    let workspace = world.workspace("under attack").await;
    let source = workspace.inbound("events").await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..events {
        let source = source.clone();
        tasks.spawn(async move { source.event(format!("event {n}")).await });
    }
    tasks.join_all().await;
    workspace
}

/// What the instance's ledger says that the self-audit found: type, seq (none: no row can be named), reason, workspace.
async fn told(world: &World, superuser: &mut PgConnection) -> Vec<(String, Option<i64>, String, String)> {
    let entries: Vec<String> = sqlx::query_scalar(
        "SELECT entry FROM entries WHERE workspace_id = $1 AND type LIKE 'audit.ledger.%agrees' ORDER BY seq",
    )
    .bind(world.node().instance.workspace.uuid())
    .fetch_all(superuser)
    .await
    .unwrap();
    entries
        .iter()
        .map(|entry| {
            let data: Value = serde_json::from_str::<Value>(entry).unwrap();
            let (kind, data) = (data["type"].as_str().unwrap().to_owned(), data["data"].clone());
            let reason = data["reason"].as_str().unwrap_or_default().to_owned();
            let target = data["targets"][0]["id"].as_str().unwrap().to_owned();
            (kind, data["details"]["seq"].as_i64(), reason, target)
        })
        .collect()
}

/// A metric's value of a ledger.
async fn first_row(world: &World, workspace: &Workspace) -> Option<f64> {
    let name = format!("statusledger_self_audit_first_row{{ledger=\"{}\"}} ", workspace.ledger);
    let metrics = world.api.get("/metrics").await.expect(200);
    metrics.text().lines().find_map(|line| line.strip_prefix(&name).map(|value| value.parse().unwrap()))
}

/// Waits until the ledger was looked at again, to the end of what was begun.
async fn another_look(world: &World, workspace: &Workspace) {
    let mut superuser = world.database.superuser().await;
    let at = "SELECT looked_at::text FROM self_audits WHERE workspace_id = $1";
    let before: String =
        sqlx::query_scalar(at).bind(workspace.id.uuid()).fetch_one(&mut superuser).await.unwrap();
    eventually("another look", || async {
        let mut superuser = world.database.superuser().await;
        let now: String =
            sqlx::query_scalar(at).bind(workspace.id.uuid()).fetch_one(&mut superuser).await.unwrap();
        (now != before).then_some(())
    })
    .await;
}

/// Makes all of the statements' changes at one moment.
async fn at_once(superuser: &mut PgConnection, workspace: &Workspace, statements: &[String]) {
    let of = format!("workspace_id = '{}'", workspace.id.uuid());
    let all = format!("BEGIN; {}; COMMIT", statements.join(";")).replace("$W", &of);
    sqlx::raw_sql(AssertSqlSafe(all)).execute(superuser).await.unwrap();
}

/// What is done, the first row that does not agree then, and some words of what is wrong with it.
type Attack = (&'static [&'static str], Option<i64>, &'static str);

const LEAF: &str = "leaf = sha256('\\x00'::bytea || convert_to(entry, 'UTF8'))";
const EDITED: &str = "entry = replace(entry, '\"size\":', '\"size\":1')";

/// Attacks on a ledger of [`ENTRIES`] entries. `$E` is an edit of a text, `$L` a leaf made to fit.
const ATTACKS: [Attack; 25] = [
    (&["UPDATE entries SET $E WHERE $W AND seq = 100"], Some(100), "leaf column"),
    (
        &["UPDATE entries SET $E WHERE $W AND seq = 100", "UPDATE entries SET $L WHERE $W AND seq = 100"],
        Some(100),
        "tree tile does not have its leaf",
    ),
    (&["UPDATE entries SET leaf = sha256(leaf) WHERE $W AND seq = 100"], Some(100), "leaf column"),
    (&["UPDATE entries SET type = 'event.other' WHERE $W AND seq = 50"], Some(50), "type column"),
    // Behind the last full tile.
    (&["UPDATE entries SET $E WHERE $W AND seq = 280"], Some(280), "leaf column"),
    (
        &["UPDATE entries SET $E WHERE $W AND seq = 303", "UPDATE entries SET $L WHERE $W AND seq = 303"],
        Some(303),
        "does not name it as the last",
    ),
    (&["DELETE FROM entries WHERE $W AND seq = 0"], Some(0), "is missing"),
    (&["DELETE FROM entries WHERE $W AND seq = 100"], Some(100), "is missing"),
    (&["DELETE FROM entries WHERE $W AND seq = 303"], Some(303), "is missing"),
    (
        &[
            "UPDATE entries SET seq = seq + 1000 WHERE $W AND seq > 100",
            "INSERT INTO entries SELECT workspace_id, ledger_id, 101, leaf, type, entry FROM entries WHERE $W AND seq = 50",
            "UPDATE entries SET seq = seq - 999 WHERE $W AND seq > 1000",
        ],
        Some(101),
        "another seq",
    ),
    (
        &[
            "INSERT INTO entries SELECT workspace_id, ledger_id, 304, leaf, type, entry FROM entries WHERE $W AND seq = 303",
        ],
        Some(304),
        "behind the head",
    ),
    (
        &[
            "UPDATE entries SET seq = 5000 WHERE $W AND seq = 100",
            "UPDATE entries SET seq = 100 WHERE $W AND seq = 101",
            "UPDATE entries SET seq = 101 WHERE $W AND seq = 5000",
        ],
        Some(100),
        "another seq",
    ),
    (
        &["UPDATE tiles SET hashes = overlay(hashes PLACING sha256('') FROM 33) WHERE $W AND level = 0"],
        Some(1),
        "tree tile does not have its leaf",
    ),
    (&["DELETE FROM tiles WHERE $W AND level = 0"], Some(0), "tree tile does not have its leaf"),
    (&["UPDATE tiles SET hashes = sha256('') WHERE $W AND level = 1"], Some(0), "level 1"),
    (
        &["INSERT INTO tiles SELECT workspace_id, ledger_id, 0, 1, hashes FROM tiles WHERE $W AND level = 0"],
        None,
        // One too many, or it stands in the way up from the first tile: whichever is looked at first.
        "stored tree",
    ),
    (
        &["INSERT INTO tiles SELECT workspace_id, ledger_id, 2, 0, hashes FROM tiles WHERE $W AND level = 1"],
        None,
        "2 stored tree tiles above level 0",
    ),
    (&["UPDATE heads SET leaf = sha256(leaf) WHERE $W"], Some(303), "does not name it as the last"),
    (
        &["UPDATE heads SET frontier = overlay(frontier PLACING sha256('') FROM 1) WHERE $W"],
        None,
        "is not that of its head",
    ),
    (&["DELETE FROM heads WHERE $W"], None, "no head"),
    (&["UPDATE checkpoints SET root = sha256('') WHERE $W"], None, "none that this instance signed"),
    (
        &[
            "UPDATE openings SET sealed = set_byte(sealed, 19, get_byte(sealed, 19) # 1) WHERE $W AND seq = 50",
        ],
        Some(50),
        "does not decrypt",
    ),
    (&["DELETE FROM openings WHERE $W AND seq = 50"], Some(50), "opening of \"payload\" is missing"),
    (
        &[
            "INSERT INTO openings SELECT workspace_id, ledger_id, seq, 'other', sealed FROM openings WHERE $W AND seq = 50",
        ],
        Some(50),
        "opening of \"other\" is not",
    ),
    (&["UPDATE audit_index SET actor = 'nobody' WHERE $W AND seq = 1"], Some(1), "index of audit entries"),
];

#[tokio::test]
async fn a_running_node_finds_each_change_names_the_first_row_and_tells_it_once() {
    let world = World::with(|settings| settings.self_audit = busy()).await;
    let workspace = filled(&world, EVENTS).await;
    let mut superuser = world.database.superuser().await;
    // Nobody asked for a checkpoint: the audit signs what it has verified, so that the next pass has it.
    eventually("a checkpoint of the whole ledger", || async {
        let mut superuser = world.database.superuser().await;
        let size: Option<i64> = sqlx::query_scalar("SELECT size FROM checkpoints WHERE workspace_id = $1")
            .bind(workspace.id.uuid())
            .fetch_optional(&mut superuser)
            .await
            .unwrap();
        (size == Some(ENTRIES)).then_some(())
    })
    .await;
    sqlx::query("SET session_replication_role = replica").execute(&mut superuser).await.unwrap();
    let tables = ["entries", "tiles", "heads", "checkpoints", "openings", "audit_index"];
    let kept: Vec<String> =
        tables.iter().map(|t| format!("CREATE TABLE kept_{t} AS SELECT * FROM {t} WHERE $W")).collect();
    at_once(&mut superuser, &workspace, &kept).await;
    let mending: Vec<String> = tables
        .iter()
        .map(|t| format!("DELETE FROM {t} WHERE $W; INSERT INTO {t} SELECT * FROM kept_{t}"))
        .collect();

    for (statements, seq, words) in ATTACKS {
        let statements: Vec<String> =
            statements.iter().map(|s| s.replace("$E", EDITED).replace("$L", LEAF)).collect();
        at_once(&mut superuser, &workspace, &statements).await;
        // In the middle of a pass a later row may be met before the first one.
        let what = format!("{statements:?}: {seq:?} {words}");
        eventually(&what, || async {
            let mut superuser = world.database.superuser().await;
            let told = told(&world, &mut superuser).await;
            let (kind, named, reason, target) = told.last()?;
            assert_eq!(*target, workspace.id.to_string());
            (kind == "audit.ledger.disagrees" && *named == seq && reason.contains(words)).then_some(())
        })
        .await;
        // Once, however often it is found.
        let now = told(&world, &mut superuser).await.len();
        for _ in 0..4 {
            another_look(&world, &workspace).await;
        }
        assert_eq!(told(&world, &mut superuser).await.len(), now, "{what} was told more than once");
        let shown = first_row(&world, &workspace).await;
        assert_eq!(shown, Some(seq.map_or(-1.0, |seq| seq as f64)), "{what}");
        // What a start would refuse is refused while the node runs, too; what is wrong with some row is not.
        if statements[0].contains("heads") {
            eventually("the node refuses", || async {
                let answer = world.api.get("/readyz").await;
                (answer.status == 503 && answer.json()["detail"].as_str().unwrap().contains("was signed"))
                    .then_some(())
            })
            .await;
        }
        at_once(&mut superuser, &workspace, &mending).await;
        eventually(&format!("nothing after {statements:?} was mended"), || async {
            let mut superuser = world.database.superuser().await;
            let now = told(&world, &mut superuser).await;
            (now.last().unwrap().0 == "audit.ledger.agrees").then_some(())
        })
        .await;
        eventually("the node is ready", || async {
            (world.api.get("/readyz").await.status == 200).then_some(())
        })
        .await;
    }
    let metrics = world.api.get("/metrics").await.expect(200).text().to_owned();
    for name in ["entries_total", "passes_total", "findings", "oldest_pass_timestamp_seconds"] {
        assert!(metrics.contains(&format!("\nstatusledger_self_audit_{name} ")), "{name}");
    }
    sqlx::query("SET session_replication_role = origin").execute(&mut superuser).await.unwrap();
    world.assert_whole(&[&workspace]).await;
}

#[tokio::test]
async fn beside_nodes_that_append_rotate_and_forget_the_self_audit_finds_nothing() {
    let world = World::with(|settings| settings.self_audit = busy()).await;
    let (other, _) = world.another().await;
    let workspace = world.workspace("busy").await;
    let source = workspace.inbound("events").await;
    let receiver = Receiver::of(&world).await;
    let hears = json!({ "filter": { "types": ["event.*"] }, "max_in_flight": 8 });
    let destination = workspace.destination(&receiver, "hook", hears).await;
    let elsewhere = world.api.at(other.address);
    let sending: Vec<_> = [source.api.clone(), elsewhere]
        .into_iter()
        .map(|api| {
            let source = crate::harness::Inbound { api, ..source.clone() };
            tokio::spawn(async move {
                for n in 0..400 {
                    source.event(format!("event {n}")).await;
                }
            })
        })
        .collect();
    // Keys change while checkpoints are signed by either node, and openings go by the operator's policy.
    let keys = &world.node().keyring;
    for _ in 0..3 {
        destination.change(json!({ "max_in_flight": 4 })).await;
        keys.change(
            &world.node().writer,
            &statusledger::audit::Act::system(),
            world.node().instance.workspace,
            |ring, now| Ok((ring.rotate(statusledger_keys::ring::Rotation::Checkpoint, now)?, ())),
        )
        .await
        .unwrap();
        another_look(&world, &workspace).await;
    }
    for task in sending {
        task.await.unwrap();
    }
    receiver.taken("hook", 800).await;
    let policy = RetentionSettings { openings_days: Some(30), ..RetentionSettings::default() };
    let later = OffsetDateTime::now_utc() + time::Duration::days(31);
    retention::apply(&world.node().writer, &policy, later).await.unwrap();
    source.event("after that").await;
    // Each look is of a slice; of these there are four.
    for _ in 0..10 {
        another_look(&world, &workspace).await;
    }
    let mut superuser = world.database.superuser().await;
    assert_eq!(told(&world, &mut superuser).await, []);
    let (passes, findings): (i64, i64) =
        sqlx::query_as("SELECT count(ended_at), count(finding) FROM self_audits")
            .fetch_one(&mut superuser)
            .await
            .unwrap();
    assert_eq!((passes, findings), (2, 0), "both ledgers were gone through, and nothing was found");
    world.assert_whole(&[&workspace]).await;
    other.stop().await;
}

/// Takes turns until one is of the workspace's ledger.
async fn turn_of(audit: &SelfAudit, size: i64) -> Audited {
    loop {
        // Between two passes there is a moment in which nothing is due.
        let turn = audit.turn().await.unwrap();
        if let Some(turn) = turn.filter(|turn| turn.size as i64 == size) {
            return turn;
        }
    }
}

async fn next_seq(superuser: &mut PgConnection, workspace: &Workspace) -> i64 {
    sqlx::query_scalar("SELECT next_seq FROM self_audits WHERE workspace_id = $1")
        .bind(workspace.id.uuid())
        .fetch_one(superuser)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_pass_goes_on_where_it_stopped_on_any_node_and_trusts_nobody_who_says_where() {
    let world = World::new().await;
    let workspace = filled(&world, 600).await;
    let size = 604;
    let mut superuser = world.database.superuser().await;
    sqlx::query("SET session_replication_role = replica").execute(&mut superuser).await.unwrap();
    let rested = SelfAuditSettings { interval_s: 0.01, ..busy() };
    let first = by_hand(world.node(), rested.clone());
    // Never more than a tile at once.
    assert_eq!(turn_of(&first, size).await.entries, 256);
    assert_eq!(next_seq(&mut superuser, &workspace).await, 256);
    // That node is gone; another goes on there, and ends the pass.
    drop(first);
    let second = by_hand(world.node(), rested);
    let turn = turn_of(&second, size).await;
    assert_eq!((turn.entries, turn.next), (256, Some(512)));
    let turn = turn_of(&second, size).await;
    assert_eq!((turn.entries, turn.next), (92, None));
    // Whoever says that a pass has come farther than there is anything has it begin anew.
    let lie = "UPDATE self_audits SET next_seq = 1000000000, began_at = now() WHERE $W".to_owned();
    at_once(&mut superuser, &workspace, &[lie]).await;
    let turn = turn_of(&second, size).await;
    assert_eq!((turn.entries, turn.next), (256, Some(256)));
    // And whoever has it go past a row that they changed has it found in the next one.
    let lie = [
        "UPDATE entries SET leaf = sha256(leaf) WHERE $W AND seq = 100".to_owned(),
        "UPDATE self_audits SET next_seq = 512 WHERE $W".to_owned(),
    ];
    at_once(&mut superuser, &workspace, &lie).await;
    assert_eq!(turn_of(&second, size).await.next, None);
    let found = turn_of(&second, size).await.finding.unwrap();
    assert_eq!(found.seq, Some(100));
}

#[tokio::test]
async fn one_node_at_a_time_audits_a_ledger() {
    let world = World::new().await;
    filled(&world, 10).await;
    let audit = by_hand(world.node(), busy());
    while audit.turn().await.unwrap().is_some_and(|turn| turn.entries > 0 && turn.size != 14) {}
    let mut superuser = world.database.superuser().await;
    let lease = |until: &'static str| {
        let until = format!(
            "UPDATE self_audits SET began_at = now(), holder = gen_random_uuid(), leased_until = now() {until}"
        );
        AssertSqlSafe(until)
    };
    sqlx::query(lease("+ interval '1 minute'")).execute(&mut superuser).await.unwrap();
    assert_eq!(audit.turn().await.unwrap(), None, "all ledgers are others'");
    sqlx::query(lease("- interval '1 second'")).execute(&mut superuser).await.unwrap();
    // Two that ask at once get two different ledgers, and the third nothing.
    let another = by_hand(world.node(), SelfAuditSettings { interval_s: 3600.0, ..busy() });
    let (one, two) = tokio::join!(audit.turn(), another.turn());
    let sizes: BTreeSet<u64> = [one, two].into_iter().map(|turn| turn.unwrap().unwrap().size).collect();
    assert_eq!(sizes.len(), 2);
    assert_eq!(another.turn().await.unwrap(), None, "nothing is due for an hour");
}

#[tokio::test]
async fn a_node_that_audits_nothing_still_refuses_what_another_found() {
    let world = World::new().await;
    let workspace = filled(&world, 10).await;
    let mut superuser = world.database.superuser().await;
    let audit = by_hand(world.node(), busy());
    assert_eq!(turn_of(&audit, 14).await.finding, None);
    let change = "UPDATE heads SET frontier = sha256('') || substr(frontier, 33) WHERE $W".to_owned();
    at_once(&mut superuser, &workspace, &[change]).await;
    assert!(turn_of(&audit, 14).await.finding.is_some());
    eventually("the node refuses", || async {
        let answer = send(world.api.request("GET", &workspace.at("/status"))).await;
        (answer.status == 503).then(|| assert_eq!(answer.problem(503), "unavailable"))
    })
    .await;
}
