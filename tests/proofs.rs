//! Proofs and exports over HTTP, verified by whoever would get them.

use crate::harness::{Inbound, Workspace, World, run, temporary, verify_export, verify_export_with_python};
use serde_json::Value;
use statusledger_verify::checkpoint::SignedCheckpoint;
use statusledger_verify::consistency::{self, ConsistencyProof, Evidence};
use statusledger_verify::export;
use statusledger_verify::manifest::Revoked;
use statusledger_verify::tree::verify_inclusion;
use std::io::Read;
use std::path::Path;

/// The text of a member of an export.
pub fn member(file: &Path, name: &str) -> Option<String> {
    let mut archive = zip::ZipArchive::new(std::fs::File::open(file).unwrap()).unwrap();
    let mut member = archive.by_name(name).ok()?;
    let mut text = String::new();
    member.read_to_string(&mut text).unwrap();
    Some(text)
}

fn hash(hex: &Value) -> [u8; 32] {
    let hex = hex.as_str().unwrap();
    std::array::from_fn(|i| u8::from_str_radix(&hex[i * 2..i * 2 + 2], 16).unwrap())
}

/// A workspace with `count` entries in all, more than a tile of them; its own and the source's, each with the audit
/// entry, are four.
async fn ledger(world: &World, count: usize) -> (Workspace, Inbound) {
    let workspace = world.workspace("proofs").await;
    let source = workspace.inbound("events").await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 4..count {
        let source = source.clone();
        tasks.spawn(async move { source.event(format!("event {n}")).await });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    (workspace, source)
}

async fn checkpoint(world: &World, workspace: &Workspace, size: usize) -> SignedCheckpoint {
    let note = world.api.get(&workspace.at(&format!("/checkpoint?size={size}"))).await.expect(200);
    let signed = SignedCheckpoint::parse(&note.body).unwrap();
    signed.verify(&world.trusted().await, None, Revoked::Refused).unwrap();
    assert_eq!(signed.checkpoint().size, size as u64);
    let origin = format!("{}/{}", world.settings.instance, workspace.ledger);
    assert_eq!(signed.checkpoint().origin, origin);
    signed
}

#[tokio::test]
async fn checkpoints_inclusion_and_consistency_verify_at_every_kind_of_size() {
    let world = World::new().await;
    let (workspace, _) = ledger(&world, 600).await;
    let sizes = [1, 2, 3, 255, 256, 257, 511, 512, 513, 600];
    let mut older: Option<SignedCheckpoint> = None;
    for size in sizes {
        let newer = checkpoint(&world, &workspace, size).await;
        for seq in [0, size / 2, size - 1] {
            let path = workspace.at(&format!("/proofs/inclusion?seq={seq}&size={size}"));
            let proof = world.api.get(&path).await.expect(200).json();
            let hashes: Vec<_> = proof["hashes"].as_array().unwrap().iter().map(hash).collect();
            assert_eq!(hash(&proof["root"]), newer.checkpoint().root);
            verify_inclusion(
                seq as u64,
                size as u64,
                &hash(&proof["leaf"]),
                &hashes,
                &newer.checkpoint().root,
            )
            .unwrap();
        }
        if let Some(older) = &older {
            let path =
                workspace.at(&format!("/proofs/consistency?from={}&to={size}", older.checkpoint().size));
            let proof = world.api.get(&path).await.expect(200);
            let proof = ConsistencyProof::parse(&proof.body).unwrap();
            let evidence = Evidence { proof: Some(&proof), recomputed_root: None };
            consistency::verify(older.checkpoint(), newer.checkpoint(), evidence).unwrap();
        }
        older = Some(newer);
    }
}

#[tokio::test]
async fn what_lies_outside_the_ledger_is_not_proven() {
    let world = World::new().await;
    let (workspace, _) = ledger(&world, 5).await;
    for path in [
        "/proofs/inclusion?seq=5",
        "/proofs/inclusion?seq=0&size=6",
        "/proofs/inclusion?seq=2&size=2",
        "/proofs/consistency?from=3&to=2",
        "/proofs/consistency?from=0&to=6",
        "/checkpoint?size=6",
        "/export?to=6",
        "/export?from=6",
        "/export?from=2&to=1",
    ] {
        assert_eq!(world.api.get(&workspace.at(path)).await.problem(422), "invalid", "{path}");
    }
    for path in ["/proofs/inclusion", "/proofs/inclusion?seq=-1", "/checkpoint?size=x", "/checkpoint?sise=1"]
    {
        assert_eq!(world.api.get(&workspace.at(path)).await.problem(400), "bad-request", "{path}");
    }
}

#[tokio::test]
async fn exports_of_every_kind_verify_here_and_with_the_independent_implementation() {
    let world = World::new().await;
    let (workspace, _) = ledger(&world, 530).await;
    for (query, withheld) in [
        ("", 0),
        ("?openings=true", 0),
        ("?from=100&to=400", 0),
        ("?from=256&openings=true", 0),
        ("?from=0&to=1", 0),
        ("?from=530&to=530", 0),
        // The six exports before it are on the record too.
        ("?types=workspace.created", 535),
        // The audit entry of the workspace and that of the source are of another type.
        ("?types=event.received,source.created&from=1&to=300&openings=true", 2),
    ] {
        let file = world.export(&workspace, query).await;
        let report = verify_export(&file, &world.pin()).unwrap_or_else(|e| panic!("{query}: {e}"));
        assert_eq!(report.facts.withheld.unwrap_or(0), withheld, "{query}");
        if let Some(code) = verify_export_with_python(&file, &world.pin()) {
            assert_eq!(code, 0, "{query}");
        }
    }
}

#[tokio::test]
async fn the_command_writes_the_same_export_beside_a_running_node() {
    let world = World::new().await;
    let (workspace, _) = ledger(&world, 40).await;
    let directory = temporary("cli");
    let [service, worker] =
        ["statusledger_service", "statusledger_worker"].map(|role| world.database.url(role));
    let data_dir = world.settings.data_dir.to_str().unwrap();
    let place = ["--data-dir", data_dir, "--database-url", &service, "--worker-database-url", &worker];
    for (name, more) in [
        ("whole.zip", &["--workspace", "proofs", "--openings"][..]),
        ("range.zip", &["--workspace", &workspace.id.to_string(), "--from", "5", "--to", "33"]),
        ("filtered.zip", &["--workspace", "proofs", "--types", "source.created,workspace.created"]),
    ] {
        let out = directory.join(name);
        let mut arguments = vec!["export", "--out", out.to_str().unwrap()];
        arguments.extend(place);
        arguments.extend(more);
        let output = run(&directory, &arguments, &[]).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        verify_export(&out, &world.pin()).unwrap_or_else(|e| panic!("{name}: {e}"));
        if let Some(code) = verify_export_with_python(&out, &world.pin()) {
            assert_eq!(code, 0, "{name}");
        }
        // It writes over nothing.
        let output = run(&directory, &arguments, &[]).await;
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains("exists already"));
    }
    let mut arguments = vec!["doctor"];
    arguments.extend(place);
    let output = run(&directory, &arguments, &[]).await;
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && told.contains("all as it was written"), "{told}");
}

#[tokio::test]
async fn a_receipt_is_consistent_with_every_later_export() {
    let world = World::new().await;
    let (workspace, source) = ledger(&world, 20).await;
    let old = checkpoint(&world, &workspace, 20).await;
    for n in 0..300 {
        source.event(format!("later {n}")).await;
    }
    let file = world.export(&workspace, "").await;
    let options = export::Options::default();
    let (_, root) =
        export::verify_with_root_at(&file, &world.pin(), None, &options, old.checkpoint().size, &|_, _| {})
            .unwrap();
    assert_eq!(root, Some(old.checkpoint().root));
}
