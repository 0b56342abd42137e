//! One change through each surface that there is, and the entry that it left: as whoever takes the ledger away finds it,
//! in an export that verifies.

use crate::harness::{World, run, send, temporary, verify_export, verify_export_with_python};
use serde_json::{Value, json};
use statusledger::access::scope::Role;
use statusledger::workspace::end;
use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;

/// The entries of an export.
fn entries(file: &Path) -> Vec<Value> {
    let mut archive = zip::ZipArchive::new(std::fs::File::open(file).unwrap()).unwrap();
    let mut text = String::new();
    archive.by_name("entries.jsonl").unwrap().read_to_string(&mut text).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn a_change_through_each_surface_is_found_in_an_export_that_verifies() {
    let world = World::with(|settings| settings.access.deletion_waits_h = 0.0).await;
    let workspace = world.workspace("changed").await;

    // A person, in a session.
    let owner = world.person("owner@example.com", &[(workspace.id, Role::Owner)]).await;
    let rename = world.api.bare("PATCH", &workspace.path).header("cookie", &owner.cookie);
    let rename = rename.header("x-csrf-token", &owner.csrf).json(&json!({ "name": "renamed" }));
    let dashboard = send(rename).await.expect(200);
    // A program, with a key.
    let key = json!({ "name": "CI", "scopes": ["sources:write"] });
    let key = world.api.post(&workspace.at("/keys"), key).await.expect(201).json();
    let source = world.api.bare("POST", &workspace.at("/sources"));
    let source = source.bearer_auth(key["token"].as_str().unwrap());
    let api = send(source.json(&json!({ "kind": "inbound", "name": "by a key" }))).await.expect(201);
    // Our command line, with the same key.
    let environment = [
        ("STATUSLEDGER_URL", world.api.base.as_str()),
        ("STATUSLEDGER_TOKEN", key["token"].as_str().unwrap()),
    ];
    let arguments = ["sources", "add", "inbound", "--name", "by a command", "--json"];
    let output = run(&temporary("surfaces"), &arguments, &environment).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let cli: Value = serde_json::from_slice(&output.stdout).unwrap();
    // The service by itself, when the time has come that somebody asked for.
    world.api.delete(&workspace.path).await.expect(202);
    end::end_due(&world.node().writer).await.unwrap();

    let file = world.export(&workspace, "").await;
    let report = verify_export(&file, &world.pin()).unwrap();
    assert_eq!(report.facts.ledger.as_deref(), Some(workspace.ledger.as_str()));
    if let Some(code) = verify_export_with_python(&file, &world.pin()) {
        assert_eq!(code, 0);
    }
    let entries = entries(&file);
    let audited: Vec<&Value> = entries.iter().filter(|e| e["data"]["surface"].is_string()).collect();
    let surfaces: BTreeSet<&str> = audited.iter().map(|e| e["data"]["surface"].as_str().unwrap()).collect();
    assert_eq!(surfaces, BTreeSet::from(["api", "cli", "dashboard", "system"]), "each that there is");
    let found = |action: &str, surface: &str, target: &Value| -> &Value {
        let is = |e: &&&Value| {
            e["type"] == action && e["data"]["surface"] == surface && e["data"]["targets"][0]["id"] == *target
        };
        let all: Vec<&&Value> = audited.iter().filter(is).collect();
        assert_eq!(all.len(), 1, "{action} through {surface}");
        &all[0]["data"]
    };
    let id = json!(workspace.id.to_string());
    let renamed = found("audit.workspace.updated", "dashboard", &id);
    assert_eq!(renamed["actor"], json!({ "type": "user", "id": owner.id.to_string() }));
    assert_eq!(renamed["changes"]["name"], json!({ "before": "changed", "after": "renamed" }));
    assert_eq!(renamed["request"], dashboard.headers["x-request-id"].to_str().unwrap());
    let made = found("audit.source.created", "api", &api.json()["id"]);
    assert_eq!(made["actor"], json!({ "type": "api_key", "id": key["id"] }));
    assert_eq!(made["request"], api.headers["x-request-id"].to_str().unwrap());
    let made = found("audit.source.created", "cli", &cli["id"]);
    assert_eq!(made["actor"], json!({ "type": "api_key", "id": key["id"] }));
    let ended = found("audit.workspace.deleted", "system", &id);
    assert_eq!(ended["actor"], json!({ "type": "system", "id": "system" }));
    assert!(audited.iter().all(|e| e["data"]["outcome"] == "success"));
}
