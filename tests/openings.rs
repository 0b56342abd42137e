//! The openings of one entry: shown to who may, and only with it on the record.

use crate::harness::World;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use statusledger_verify::entry::sealed_hash;

/// Hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[tokio::test]
async fn each_opening_verifies_against_its_entry_and_that_it_was_shown_is_on_the_record() {
    let world = World::new().await;
    let workspace = world.workspace("opened").await;
    let source = workspace.inbound("a marked name").await;
    let seq = source.event("{\"marked\":\"payload\"}").await;
    let created = workspace.entries_of("audit.source.created").await.remove(0);
    for (seq, names) in [(seq, vec!["payload"]), (created["seq"].as_u64().unwrap(), vec!["ip", "name_after"])]
    {
        let shown =
            world.api.get(&workspace.at(&format!("/entries/{seq}/openings"))).await.expect(200).json();
        let entry = world.api.get(&workspace.at(&format!("/entries/{seq}"))).await.expect(200).json();
        assert_eq!((&shown["seq"], &shown["destroyed"]), (&json!(seq), &json!([])));
        let openings = shown["openings"].as_object().unwrap();
        assert!(names.iter().all(|name| openings.contains_key(*name)), "{shown}");
        assert_eq!(openings.len(), entry["data"]["sealed"].as_object().unwrap().len());
        for (name, opening) in openings {
            let salt = STANDARD.decode(opening["salt"].as_str().unwrap()).unwrap().try_into().unwrap();
            let value = statusledger_verify::json::parse(opening["value"].to_string().as_bytes()).unwrap();
            let hash = sealed_hash(&salt, value.canonical().as_bytes());
            assert_eq!(entry["data"]["sealed"][name], hex(&hash), "{name}");
        }
        let record = workspace.entries_of("audit.openings.shown").await.pop().unwrap();
        let mut expected: Vec<&String> = openings.keys().collect();
        expected.sort();
        assert_eq!(record["data"]["details"], json!({ "names": expected, "seq": seq }));
        assert_eq!(record["data"]["targets"], json!([{ "type": "entry", "id": seq.to_string() }]));
        assert_eq!(record["data"]["actor"]["type"], "api_key");
        assert!(!record.to_string().contains("marked"), "{record}");
    }
    let found = world.api.get(&workspace.at(&format!("/audit?action=openings.shown&target={seq}"))).await;
    assert_eq!(found.expect(200).json()["items"].as_array().unwrap().len(), 1);
    world.assert_whole(&[&workspace]).await;
}

#[tokio::test]
async fn what_cannot_be_put_on_the_record_is_not_shown_and_what_is_gone_is_named() {
    let world = World::new().await;
    let workspace = world.workspace("kept").await;
    let source = workspace.inbound("CI").await;
    let seq = source.event("a marked payload").await;
    let path = workspace.at(&format!("/entries/{seq}/openings"));
    let mut superuser = world.database.superuser().await;
    let run = async |statement: &'static str| {
        sqlx::query(statement).execute(&mut world.database.superuser().await).await.unwrap();
    };
    run("REVOKE INSERT ON audit_index FROM statusledger_service").await;
    let refused = world.api.get(&path).await;
    assert_eq!(refused.problem(500), "internal");
    assert!(!refused.text().contains("marked"));
    run("GRANT INSERT ON audit_index TO statusledger_service").await;
    assert!(workspace.entries_of("audit.openings.shown").await.is_empty());
    assert_eq!(world.api.get(&workspace.at("/entries/9999/openings")).await.problem(404), "not-found");

    // Of entry 0 nothing is sealed: nothing is shown, and nothing recorded.
    let nothing = world.api.get(&workspace.at("/entries/0/openings")).await.expect(200).json();
    assert_eq!(nothing, json!({ "seq": 0, "openings": {}, "destroyed": [] }));
    // One that somebody put in another's place opens nowhere, and tells nothing.
    let other = source.event("another payload").await;
    let swap = "UPDATE openings o SET sealed = b.sealed FROM openings b
                 WHERE o.seq = $1 AND b.seq = $2 AND o.name = 'payload' AND b.name = 'payload'";
    let swapped =
        sqlx::query(swap).bind(other as i64).bind(seq as i64).execute(&mut superuser).await.unwrap();
    assert_eq!(swapped.rows_affected(), 1);
    let refused = world.api.get(&workspace.at(&format!("/entries/{other}/openings"))).await;
    assert_eq!(refused.problem(500), "internal");
    assert!(workspace.entries_of("audit.openings.shown").await.is_empty());

    sqlx::query("DELETE FROM openings WHERE seq = $1")
        .bind(seq as i64)
        .execute(&mut superuser)
        .await
        .unwrap();
    let gone = world.api.get(&path).await.expect(200).json();
    assert_eq!((&gone["openings"], &gone["destroyed"]), (&json!({}), &json!(["payload"])));
    assert!(workspace.entries_of("audit.openings.shown").await.is_empty());
}

#[tokio::test]
async fn of_a_workspace_that_has_ended_nothing_can_be_opened_any_more() {
    let world = World::with(|settings| settings.access.deletion_waits_h = 0.0).await;
    let workspace = world.workspace("ending").await;
    let source = workspace.inbound("CI").await;
    let seq = source.event("a marked payload").await;
    world.api.delete(&workspace.path).await.expect(202);
    statusledger::workspace::end::end_due(&world.node().writer).await.unwrap();
    let path = workspace.at(&format!("/entries/{seq}/openings"));
    let gone = world.api.get(&path).await.expect(200).json();
    assert_eq!(gone, json!({ "seq": seq, "openings": {}, "destroyed": ["payload"] }));
}
