//! A superuser who rewrites the database is found: by doctor, by verifying an export, by the node's own start, and,
//! where the whole chain was made anew, by anybody who holds an older receipt.

use crate::harness::{
    Destination, Inbound, Receiver, Reply, Workspace, World, eventually, run, verify_export,
};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgConnection};
use statusledger::config::SelfAuditSettings;
use statusledger::database::roles;
use statusledger::ledger::export::{Exporter, Request};
use statusledger::ledger::seen_heads::{self, read_heads};
use statusledger_verify::checkpoint::SignedCheckpoint;
use statusledger_verify::consistency::{self, ConsistencyProof, Evidence};
use statusledger_verify::proof::Proof;
use statusledger_verify::tree::{Frontier, leaf_hash};

/// Behind the head, no export holds it; doctor and the next start see it.
const BEHIND: &str = "a row more at the end";
/// A whole export is made of the texts; one that withholds the entry names its leaf.
const LEAF: &str = "an edited leaf";

/// Events of the ledger under attack: more than a tile.
const EVENTS: usize = 300;

struct Scene {
    world: World,
    workspace: Workspace,
    source: Inbound,
    receiver: Receiver,
    destination: Destination,
    superuser: PgConnection,
}

/// A ledger that was read, delivered and proven, and somebody with the superuser's password.
async fn scene() -> Scene {
    let world = World::new().await;
    let workspace = world.workspace("under attack").await;
    let source = workspace.inbound("events").await;
    let receiver = Receiver::of(&world).await;
    let destination = workspace.destination(&receiver, "hook", json!({})).await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..EVENTS {
        let source = source.clone();
        tasks.spawn(async move { source.event(format!("event {n}")).await });
    }
    tasks.join_all().await;
    receiver.taken("hook", EVENTS).await;
    destination.settled(EVENTS, "delivered").await;
    world.assert_whole(&[&workspace]).await;
    let mut superuser = world.database.superuser().await;
    // No trigger fires in this role of replication, and no policy binds a superuser.
    sqlx::query("SET session_replication_role = replica").execute(&mut superuser).await.unwrap();
    Scene { world, workspace, source, receiver, destination, superuser }
}

impl Scene {
    async fn execute(&mut self, statement: &str) -> u64 {
        let statement = statement.replace("$W", &format!("workspace_id = '{}'", self.workspace.id.uuid()));
        sqlx::query(AssertSqlSafe(statement)).execute(&mut self.superuser).await.unwrap().rows_affected()
    }

    /// Whether an export proves itself; one that the service does not give does not.
    ///
    /// Made as the command makes it, without the entry that says so: the rows are put back as they were afterwards.
    async fn export_verifies(&self, types: Option<&str>) -> bool {
        let node = self.world.node();
        let exporter = Exporter {
            database: node.database.clone(),
            keyring: node.keyring.clone(),
            data_keys: node.writer.data_keys().clone(),
            seen: node.seen_heads.clone(),
        };
        let request = Request {
            workspace: self.workspace.id,
            ledger: None,
            from: 0,
            to: None,
            types: types.map(|t| vec![t.to_owned()]),
            openings: types.is_none(),
            exported_by: "operator".into(),
        };
        let Ok(prepared) = exporter.prepare(request).await else { return false };
        let prepared = prepared.expect("the workspace is there");
        let file = crate::harness::temporary("export").join("ledger.zip");
        let out = std::fs::File::create(&file).unwrap();
        exporter.write(&prepared, out, |_| {}).await.is_ok()
            && verify_export(&file, &self.world.pin()).is_ok()
    }

    /// That both find it, however often they are asked.
    async fn assert_found(&self, what: &str) {
        let findings = self.world.doctor().await;
        assert!(!findings.is_empty(), "{what}: doctor finds nothing");
        for _ in 0..2 {
            assert!(!self.export_verifies(None).await, "{what}: the export verifies");
        }
    }
}

#[tokio::test]
async fn edited_deleted_inserted_reordered_and_truncated_rows_are_found() {
    let mut scene = scene().await;
    scene.execute("CREATE TABLE kept AS SELECT * FROM entries").await;
    let leaf = "sha256('\\x00'::bytea || convert_to(entry, 'UTF8'))";
    let edited = "entry = replace(entry, '\"type\":\"', '\"type\":\"not.')";
    let attacks = [
        ("an edited text", vec![format!("UPDATE entries SET {edited} WHERE $W AND seq = 100")]),
        (
            "an edited text with its leaf",
            vec![
                format!("UPDATE entries SET {edited} WHERE $W AND seq = 100"),
                format!("UPDATE entries SET leaf = {leaf} WHERE $W AND seq = 100"),
            ],
        ),
        (LEAF, vec!["UPDATE entries SET leaf = sha256(leaf) WHERE $W AND seq = 100".into()]),
        ("an edited last entry", vec![format!("UPDATE entries SET {edited} WHERE $W AND seq = 306")]),
        ("a deleted row", vec!["DELETE FROM entries WHERE $W AND seq = 100".into()]),
        ("a deleted last row", vec!["DELETE FROM entries WHERE $W AND seq = 306".into()]),
        ("a deleted first row", vec!["DELETE FROM entries WHERE $W AND seq = 0".into()]),
        (
            "a row deleted and the others moved up",
            vec![
                "DELETE FROM entries WHERE $W AND seq = 100".into(),
                "UPDATE entries SET seq = seq + 999 WHERE $W AND seq > 100".into(),
                "UPDATE entries SET seq = seq - 1000 WHERE $W AND seq > 999".into(),
            ],
        ),
        (
            "an inserted row",
            vec![
                "UPDATE entries SET seq = seq + 1000 WHERE $W AND seq > 100".into(),
                "INSERT INTO entries SELECT workspace_id, ledger_id, 101, leaf, type, entry FROM entries WHERE $W AND seq = 50".into(),
                "UPDATE entries SET seq = seq - 999 WHERE $W AND seq > 1000".into(),
            ],
        ),
        (
            BEHIND,
            vec!["INSERT INTO entries SELECT workspace_id, ledger_id, 307, leaf, type, entry FROM entries WHERE $W AND seq = 306".into()],
        ),
        (
            "two rows that changed places",
            vec![
                "UPDATE entries SET seq = -1 WHERE $W AND seq = 100".into(),
                "UPDATE entries SET seq = 100 WHERE $W AND seq = 101".into(),
                "UPDATE entries SET seq = 101 WHERE $W AND seq = -1".into(),
            ],
        ),
        ("no rows any more", vec!["TRUNCATE entries".into()]),
    ];
    for (what, statements) in attacks {
        for statement in statements {
            assert!(scene.execute(&statement).await > 0 || statement.starts_with("TRUNCATE"), "{statement}");
        }
        match what {
            BEHIND => assert!(!scene.world.doctor().await.is_empty(), "{what}"),
            LEAF => {
                assert!(!scene.world.doctor().await.is_empty(), "{what}");
                assert!(!scene.export_verifies(Some("source.created")).await, "{what}: it is withheld");
            }
            _ => scene.assert_found(what).await,
        }
        scene.execute("TRUNCATE entries").await;
        scene.execute("INSERT INTO entries SELECT * FROM kept").await;
        let findings = scene.world.doctor().await;
        assert!(findings.is_empty(), "after {what} was mended: {findings:?}");
        assert!(scene.export_verifies(None).await, "after {what} was mended");
    }
}

#[tokio::test]
async fn changed_tiles_heads_openings_and_deliveries_are_found() {
    let mut scene = scene().await;
    for table in ["tiles", "heads", "openings", "deliveries", "entries"] {
        scene.execute(&format!("CREATE TABLE kept_{table} AS SELECT * FROM {table}")).await;
    }
    for (table, statement) in [
        (
            "tiles",
            "UPDATE tiles SET hashes = overlay(hashes PLACING sha256('') FROM 33) WHERE $W AND level = 0",
        ),
        ("tiles", "DELETE FROM tiles WHERE $W AND level = 0"),
        ("heads", "UPDATE heads SET leaf = sha256(leaf) WHERE $W"),
        ("heads", "UPDATE heads SET frontier = overlay(frontier PLACING sha256('') FROM 1) WHERE $W"),
        (
            "openings",
            "UPDATE openings SET sealed = set_byte(sealed, 19, get_byte(sealed, 19) # 1) WHERE $W AND seq = 50",
        ),
        (
            "openings",
            "UPDATE openings o SET sealed = p.sealed FROM openings p WHERE o.workspace_id = p.workspace_id
                AND o.seq = 50 AND p.seq = 51 AND o.name = 'payload' AND p.name = 'payload'",
        ),
        ("deliveries", "DELETE FROM deliveries WHERE $W AND number = 7"),
        ("deliveries", "UPDATE deliveries SET seq = 3 WHERE $W AND number = 7"),
        ("entries", "UPDATE entries SET type = 'event.other' WHERE $W AND seq = 50"),
    ] {
        assert!(scene.execute(statement).await > 0, "{statement}");
        let findings = scene.world.doctor().await;
        assert!(!findings.is_empty(), "doctor finds nothing: {statement}");
        scene.execute(&format!("TRUNCATE {table}")).await;
        scene.execute(&format!("INSERT INTO {table} SELECT * FROM kept_{table}")).await;
        let findings = scene.world.doctor().await;
        assert!(findings.is_empty(), "after {statement} was mended: {findings:?}");
    }
}

/// Makes the whole ledger anew with another entry 100: every hash, tile and head as if it had always been so.
async fn rewrite(scene: &mut Scene) {
    let id = scene.workspace.id.uuid();
    let rows: Vec<(i64, String)> =
        sqlx::query_as("SELECT seq, entry FROM entries WHERE workspace_id = $1 ORDER BY seq")
            .bind(id)
            .fetch_all(&mut scene.superuser)
            .await
            .unwrap();
    let (mut previous, mut frontier, mut tile) = ([0_u8; 32], Frontier::new(), Vec::new());
    for (seq, text) in rows {
        let mut entry: Value = serde_json::from_str(&text).unwrap();
        let hex: String = previous.iter().map(|b| format!("{b:02x}")).collect();
        entry["prev"] = hex.into();
        if seq == 100 {
            entry["data"]["size"] = 1.into();
        }
        // Sorted, and no character here that canonical JSON writes otherwise.
        let text = entry.to_string();
        previous = leaf_hash(text.as_bytes());
        frontier.push(previous);
        tile.extend_from_slice(&previous);
        sqlx::query("UPDATE entries SET entry = $3, leaf = $4 WHERE workspace_id = $1 AND seq = $2")
            .bind(id)
            .bind(seq)
            .bind(text)
            .bind(&previous[..])
            .execute(&mut scene.superuser)
            .await
            .unwrap();
    }
    sqlx::query("UPDATE tiles SET hashes = $2 WHERE workspace_id = $1 AND level = 0")
        .bind(id)
        .bind(&tile[..8192])
        .execute(&mut scene.superuser)
        .await
        .unwrap();
    let mut whole = Frontier::new();
    for leaf in tile[..8192].as_chunks::<32>().0 {
        whole.push(*leaf);
    }
    sqlx::query("UPDATE tiles SET hashes = $2 WHERE workspace_id = $1 AND level = 1")
        .bind(id)
        .bind(&whole.root()[..])
        .execute(&mut scene.superuser)
        .await
        .unwrap();
    sqlx::query("UPDATE heads SET leaf = $2, frontier = $3 WHERE workspace_id = $1")
        .bind(id)
        .bind(&previous[..])
        .bind(frontier.hashes().concat())
        .execute(&mut scene.superuser)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_rewritten_chain_is_found_by_doctor_by_its_export_and_by_the_start() {
    let mut scene = scene().await;
    rewrite(&mut scene).await;
    scene.assert_found("a chain made anew").await;
    scene.world.stop().await;
    let refused = format!("{:#}", scene.world.start().await.unwrap_err());
    assert!(refused.contains("are not those of"), "{refused}");
    // Without the checkpoints of the database, the node's own memory tells.
    scene.execute("DELETE FROM checkpoints").await;
    let refused = format!("{:#}", scene.world.start().await.unwrap_err());
    assert!(refused.contains("that this node handed out"), "{refused}");
}

#[tokio::test]
async fn a_rewritten_chain_is_inconsistent_with_every_receipt_handed_out_before() {
    let mut scene = scene().await;
    let receipts = scene.receiver.hooks();
    rewrite(&mut scene).await;
    // The attacker has all of it: the checkpoints are gone, and so is the node's memory.
    scene.world.stop().await;
    scene.execute("DELETE FROM checkpoints").await;
    std::fs::remove_file(scene.world.settings.data_dir.join("heads")).unwrap();
    scene.world.start().await.unwrap();
    assert!(scene.export_verifies(None).await, "the new history is whole by itself");
    let newer = scene.world.api.get(&scene.workspace.at("/checkpoint")).await.expect(200);
    let newer = SignedCheckpoint::parse(&newer.body).unwrap();
    let mut compared = 0;
    for receipt in receipts {
        let proof = Proof::parse(receipt.value["receipt"]["proof"].as_str().unwrap()).unwrap();
        let older = SignedCheckpoint::parse(proof.checkpoint.as_bytes()).unwrap();
        let from = older.checkpoint().size;
        if from <= 100 {
            continue;
        }
        let path = scene.workspace.at(&format!("/proofs/consistency?from={from}"));
        let offered = scene.world.api.get(&path).await.expect(200);
        let offered = ConsistencyProof::parse(&offered.body).unwrap();
        let evidence = Evidence { proof: Some(&offered), recomputed_root: None };
        let verdict = consistency::verify(older.checkpoint(), newer.checkpoint(), evidence);
        assert!(
            matches!(&verdict, Err(consistency::Error::Failed(f)) if f.check == statusledger_verify::Check::Inconsistent),
            "{from}: {verdict:?}"
        );
        compared += 1;
    }
    assert!(compared > 10, "{compared} receipts compared");
}

#[tokio::test]
async fn a_history_that_is_another_is_gone_on_from_in_a_new_ledger_and_not_signed_any_more() {
    let mut scene = scene().await;
    // One that waits for its next attempt: of which history it is, nobody can tell afterwards.
    scene.receiver.behave(|_| Reply::RetryAfter(503, 3600));
    scene.source.event("waits").await;
    let destination = scene.destination.clone();
    let waiting = |state: &'static str| {
        let destination = destination.clone();
        async move {
            eventually(state, || async {
                (destination.delivery(EVENTS as u64 + 1).await["state"] == state).then_some(())
            })
            .await;
        }
    };
    waiting("retry").await;
    scene.world.stop().await;
    rewrite(&mut scene).await;
    let refused = format!("{:#}", scene.world.start().await.unwrap_err());
    assert!(refused.contains("are not those of"), "{refused}");
    let directory = scene.world.settings.data_dir.clone();
    let heads = read_heads(&directory.join("heads")).unwrap();
    let old = scene.workspace.ledger.clone();
    let signed = heads[&old.parse().unwrap()];
    let (service, worker) =
        (scene.world.database.url(roles::SERVICE), scene.world.database.url(roles::WORKER));
    let lost = format!("{old}:{}", signed.size);
    let arguments = [
        "doctor",
        "--data-dir",
        ".",
        "--database-url",
        &service,
        "--worker-database-url",
        &worker,
        "--accept-loss",
        "--lost",
        &lost,
    ];
    let done = run(&directory, &arguments, &[]).await;
    let told = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success() && told.contains("1 deliveries of its other history"), "{told} {done:?}");
    scene.receiver.behave(|_| Reply::Status(200));
    scene.world.start().await.unwrap();
    waiting("given_up").await;
    // What stands there can be read, but not signed: neither as it is nor any part of it.
    let entries = scene.workspace.at(&format!("/entries?ledger={old}&limit=1000"));
    let entries = scene.world.api.get(&entries).await.expect(200).json();
    assert_eq!(entries["size"].as_u64().unwrap(), signed.size);
    for query in [format!("ledger={old}"), format!("ledger={old}&size=150")] {
        let path = scene.workspace.at(&format!("/checkpoint?{query}"));
        assert!(scene.world.api.get(&path).await.status >= 500, "{query}");
    }
    let first = scene.workspace.entries().await.remove(0);
    assert_eq!(first["data"]["origin"], format!("{}/{old}", scene.world.settings.instance));
    assert_eq!(first["data"]["size"].as_u64().unwrap(), signed.size);
    scene.receiver.taken("hook", EVENTS + 1).await;
    scene.world.assert_whole(&[&scene.workspace]).await;
}

/// Cuts the newest entries off and sets everything back as it was then.
async fn set_back(scene: &mut Scene, size: usize) {
    let id = scene.workspace.id.uuid();
    let leaves: Vec<Vec<u8>> =
        sqlx::query_scalar("SELECT leaf FROM entries WHERE workspace_id = $1 AND seq < $2 ORDER BY seq")
            .bind(id)
            .bind(size as i64)
            .fetch_all(&mut scene.superuser)
            .await
            .unwrap();
    let mut frontier = Frontier::new();
    for leaf in &leaves {
        frontier.push(leaf.as_slice().try_into().unwrap());
    }
    for table in ["entries", "openings", "deliveries"] {
        scene.execute(&format!("DELETE FROM {table} WHERE $W AND seq >= {size}")).await;
    }
    scene
        .execute(
            "UPDATE lanes l SET last_number = n, sent_through = n
               FROM (SELECT coalesce(max(number), 0) AS n FROM deliveries WHERE $W) m WHERE l.$W",
        )
        .await;
    if size < 256 {
        scene.execute("DELETE FROM tiles WHERE $W").await;
    }
    sqlx::query("UPDATE heads SET size = $2, leaf = $3, frontier = $4 WHERE workspace_id = $1")
        .bind(id)
        .bind(size as i64)
        .bind(leaves.last().unwrap())
        .bind(frontier.hashes().concat())
        .execute(&mut scene.superuser)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_node_refuses_a_history_that_was_set_back() {
    let mut scene = scene().await;
    scene.world.stop().await;
    set_back(&mut scene, 200).await;
    // Somebody has signed in the database what the receiver got; it says that there was more.
    let id = scene.workspace.id.uuid();
    sqlx::query(
        "INSERT INTO checkpoints (workspace_id, ledger_id, size, root, note)
         SELECT $1, ledger_id, 307, sha256(''), '' FROM heads WHERE workspace_id = $1
         ON CONFLICT (workspace_id, ledger_id) DO UPDATE SET size = 307",
    )
    .bind(id)
    .execute(&mut scene.superuser)
    .await
    .unwrap();
    let heads = scene.world.settings.data_dir.join("heads");
    let remembered = std::fs::read(&heads).unwrap();
    std::fs::remove_file(&heads).unwrap();
    let refused = format!("{:#}", scene.world.start().await.unwrap_err());
    assert!(refused.contains("the newest checkpoint in the database is of 307"), "{refused}");
    // The checkpoint set back too: now only the node's own file knows.
    scene.execute("DELETE FROM checkpoints WHERE $W").await;
    std::fs::write(&heads, &remembered).unwrap();
    let refused = format!("{:#}", scene.world.start().await.unwrap_err());
    assert!(refused.contains("that this node handed out"), "{refused}");
    assert!(refused.contains("are missing"), "{refused}");
    // A node that remembers nothing is told by the mark that the first one left.
    std::fs::remove_file(&heads).unwrap();
    let refused = format!("{:#}", scene.world.start().await.unwrap_err());
    assert!(refused.contains("the newest checkpoint that a node handed out is of 307"), "{refused}");
    // And without that nothing does, but whoever holds a receipt.
    scene.execute("DELETE FROM losses WHERE $W").await;
    scene.execute("UPDATE heads SET closed = false WHERE $W").await;
    scene.world.start().await.unwrap();
    assert_eq!(scene.source.event("another").await, 200);
    assert_eq!(scene.destination.deliveries().await.len(), 195);
}

#[tokio::test]
async fn what_may_have_been_handed_out_is_held_against_a_database_that_goes_by_another_timeline() {
    let mut scene = scene().await;
    let file = scene.world.settings.data_dir.join("heads");
    let ledger = scene.workspace.ledger.clone();
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains(&format!("? {ledger} ")), "what was about to be committed: {text}");
    scene.world.stop().await;
    assert!(
        seen_heads::read(&file).unwrap().intended.is_empty(),
        "a node that stops in order leaves nothing open"
    );
    let signed = read_heads(&file).unwrap()[&ledger.parse().unwrap()];
    let (timeline, tables): (String, i64) = sqlx::query_as(
        "SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8), 'public.heads'::regclass::oid::bigint",
    )
    .fetch_one(&mut scene.superuser)
    .await
    .unwrap();
    // As a machine leaves it that went down before it was on disk that the last tree was handed out.
    let root: String = signed.root.iter().map(|byte| format!("{byte:02x}")).collect();
    let left = |timeline: &str| format!("? {ledger} {} {timeline} {tables} {root}\n", signed.size);
    // It is there: then it may have left.
    std::fs::write(&file, left(&timeline)).unwrap();
    scene.world.start().await.unwrap();
    assert_eq!(read_heads(&file).unwrap()[&ledger.parse().unwrap()], signed);
    scene.world.stop().await;
    set_back(&mut scene, 200).await;
    scene.execute("DELETE FROM checkpoints WHERE $W").await;
    // It is not, and the database was promoted since: it may have been there. Nor is that forgotten.
    std::fs::write(&file, left("000000FF")).unwrap();
    let told = format!("ledger {ledger}: a checkpoint of {} entries was being committed", signed.size);
    for _ in 0..2 {
        let refused = format!("{:#}", scene.world.start().await.unwrap_err());
        assert!(refused.contains(&told), "{refused}");
    }
    // Of others it says nothing: they know no more of it.
    let marked = "SELECT (SELECT count(*) FROM losses) + (SELECT count(*) FROM heads WHERE closed)";
    assert_eq!(sqlx::query_scalar::<_, i64>(marked).fetch_one(&mut scene.superuser).await.unwrap(), 0);
    // Commands say so, too.
    let (service, worker) =
        (scene.world.database.url(roles::SERVICE), scene.world.database.url(roles::WORKER));
    let at = ["--data-dir", ".", "--database-url", &service, "--worker-database-url", &worker];
    let directory = scene.world.settings.data_dir.clone();
    let id = scene.workspace.id.to_string();
    for words in [&["doctor"][..], &["export", "--workspace", &id, "--out", "file.zip"]] {
        let done = run(&directory, &[words, &at].concat(), &[]).await;
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(!done.status.success() && said.contains(&told), "{words:?}: {said}");
    }
    // It is not, and nothing became of the database: it never was.
    std::fs::write(&file, left(&timeline)).unwrap();
    scene.world.start().await.unwrap();
    assert_eq!(scene.source.event("another").await, 200);
    assert!(seen_heads::read(&file).unwrap().intended.is_empty());
}

#[tokio::test]
async fn an_export_of_a_history_that_was_not_signed_opens_nothing_and_is_on_the_record_of_the_instance() {
    let world = World::new().await;
    let workspace = world.workspace("under attack").await;
    workspace.inbound("events").await.event("what was sealed").await;
    let own = world.node().gate.instance;
    let own = Workspace { id: own, path: format!("/v1/workspaces/{own}"), ..workspace.clone() };
    let mut superuser = world.database.superuser().await;
    sqlx::query("SET session_replication_role = replica").execute(&mut superuser).await.unwrap();
    let members = |body: &[u8]| {
        let zip = zip::ZipArchive::new(std::io::Cursor::new(body.to_vec())).unwrap();
        zip.file_names().any(|name| name.unwrap() == "openings.jsonl")
    };
    let export = async |of: &Workspace, query: &str| world.api.get(&of.at(&format!("/export{query}"))).await;
    assert!(members(&export(&workspace, "?openings=true").await.expect(200).body));
    let before = workspace.entries().await.len();
    // A checkpoint of each has left.
    for of in [&workspace, &own] {
        world.api.get(&of.at("/checkpoint")).await.expect(200);
    }
    let edit = "UPDATE entries SET leaf = sha256(leaf) WHERE workspace_id = $1 AND seq = 1";
    sqlx::query(edit).bind(workspace.id.uuid()).execute(&mut superuser).await.unwrap();
    for query in ["?openings=true", ""] {
        let file = export(&workspace, query).await.expect(200).body;
        assert!(!members(&file), "{query}: sealed values left");
    }
    assert_eq!(workspace.entries().await.len(), before, "nothing is added to what was not signed");
    let told = own.entries_of("audit.ledger.exported").await;
    let target = json!([{ "type": "workspace", "id": workspace.id.to_string() }]);
    assert_eq!(told.len(), 2);
    for entry in &told {
        assert_eq!(entry["data"]["targets"], target);
        let details = &entry["data"]["details"];
        assert_eq!((&details["as_signed"], &details["openings"]), (&json!(false), &json!(false)));
    }
    // Of the instance's own there is no ledger to tell it.
    sqlx::query(edit).bind(own.id.uuid()).execute(&mut superuser).await.unwrap();
    let entries = own.entries().await.len();
    for query in ["?openings=true", ""] {
        assert_eq!(export(&own, query).await.problem(500), "internal");
    }
    assert_eq!(own.entries().await.len(), entries);
}

#[tokio::test]
async fn a_node_refuses_another_database_than_its_own() {
    let mut scene = scene().await;
    scene.world.stop().await;
    let mut other = World::new().await;
    other.stop().await;
    // Even where it has the key to it.
    scene.world.settings.key_encryption_key_file = Some(other.settings.key_encryption_key_path());
    scene.world.database = other.database;
    let refused = format!("{:#}", scene.world.start().await.unwrap_err());
    assert!(refused.contains("does not follow the one that this node used before"), "{refused}");
    std::fs::remove_file(scene.world.settings.data_dir.join("keys.json")).unwrap();
    let refused = format!("{:#}", scene.world.start().await.unwrap_err());
    assert!(refused.contains("the database has no such ledger"), "{refused}");
}

#[tokio::test]
async fn beside_a_node_that_appends_doctor_finds_nothing() {
    let world = World::new().await;
    let workspace = world.workspace("busy").await;
    let source = workspace.inbound("events").await;
    let sending = tokio::spawn(async move {
        for n in 0..300 {
            source.event(format!("event {n}")).await;
        }
    });
    // Each entry has an opening: what doctor reads of the two is of one moment.
    let mut looks = 0;
    while looks < 5 || !sending.is_finished() {
        world.assert_whole(&[&workspace]).await;
        looks += 1;
    }
    sending.await.unwrap();
}

#[tokio::test]
async fn a_chain_rewritten_under_a_running_node_is_found_by_the_self_audit() {
    let mut scene = scene().await;
    rewrite(&mut scene).await;
    let settings = SelfAuditSettings { entries_per_second: 1, interval_s: 0.01 };
    let audit = crate::self_audit::by_hand(scene.world.node(), settings);
    let ledger = scene.workspace.ledger.clone();
    let next = async || loop {
        let finding = audit.turn().await.unwrap().and_then(|turn| turn.finding);
        if let Some(finding) = finding.filter(|finding| finding.ledger.to_string() == ledger) {
            return finding;
        }
    };
    // Every row fits every other: only what was signed tells, and no single row is wrong by itself.
    let finding = next().await;
    assert_eq!(finding.seq, None);
    assert!(finding.what.contains("is not that of the newest checkpoint"), "{finding}");
    // A checkpoint that fits is none that the instance signed.
    scene
        .execute(
            "UPDATE checkpoints SET root = sha256(''), note = replace(note, E'\\n\\n', E'\\nother\\n\\n') WHERE $W",
        )
        .await;
    let finding = next().await;
    assert!(finding.what.contains("none that this instance signed"), "{finding}");
}
