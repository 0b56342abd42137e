//! The commands of the record: audit entries found and taken away, sealed values opened; and workspaces that change and
//! end, and keys that are replaced.

use super::{Desk, text};
use serde_json::{Value, json};

#[tokio::test]
async fn a_workspace_is_changed_asked_to_end_and_restored() {
    let desk = Desk::new().await;
    let update =
        ["workspaces", "update", "Acme", "--name", "Acme Corp", "--require-passkey", "true", "--json"];
    let changed = desk.said(&update).await.json();
    assert_eq!((&changed["name"], &changed["passkey_required"]), (&json!("Acme Corp"), &json!(true)));
    assert_eq!(
        desk.refused(&["workspaces", "delete", "Acme"]).await,
        (1, "there is no workspace \"Acme\"".into())
    );
    let off = desk.said(&["workspaces", "update", "Acme Corp", "--require-passkey", "false"]).await;
    assert_eq!(off.line(), "the workspace \"Acme Corp\" was changed");
    let asked = desk.said(&["workspaces", "delete", "Acme Corp"]).await;
    assert!(asked.line().starts_with("the workspace \"Acme Corp\" was asked to end: 20"), "{}", asked.out);
    assert!(asked.err.contains("workspaces restore"), "{}", asked.err);
    let list = desk.said(&["workspaces", "list"]).await.out;
    assert!(list.lines().any(|line| line.starts_with("Acme Corp") && line.contains("ends 20")), "{list}");
    let id = desk.workspace.id.to_string();
    desk.said(&["workspaces", "restore", &id]).await;
    let (code, sentence) = desk.refused(&["workspaces", "restore", &id]).await;
    assert!(code == 1 && sentence.contains("409"), "{sentence}");
    assert!(!desk.said(&["workspaces", "list"]).await.out.contains("ends 20"));
    let entries = desk.workspace.entries().await;
    let acts: Vec<(&str, &str)> = entries
        .iter()
        .filter_map(|e| {
            Some((e["type"].as_str()?.strip_prefix("audit.workspace.")?, e["data"]["surface"].as_str()?))
        })
        .collect();
    let by_us = ["updated", "updated", "deletion_requested", "deletion_cancelled"].map(|act| (act, "cli"));
    assert_eq!(acts[1..], by_us);
}

#[tokio::test]
async fn the_record_is_searched_page_by_page_and_taken_away() {
    let desk = Desk::new().await;
    for n in 0..5 {
        desk.workspace.inbound(&format!("source {n}")).await;
    }
    let destination = ["destinations", "add", "--name", "hook", "--to", "http://127.0.0.1:9/"];
    desk.said(&destination).await;
    let found = desk.said(&["audit", "search", "--action", "source.*", "-n", "2"]).await;
    let lines: Vec<&str> = found.out.lines().collect();
    assert!(lines[0].starts_with("WHEN") && lines.len() == 3, "{}", found.out);
    assert!(
        lines[1].contains("source.created") && lines[1].contains("success") && lines[1].contains("  api  ")
    );
    // Who did it, by name too.
    let heading = lines[0].find("NAME").unwrap();
    assert!(lines[1][heading..].starts_with("bootstrap ") && lines[1].contains(" key_"), "{}", found.out);
    let (code, sentence) = desk.refused(&["audit", "search", "--action", "source.create"]).await;
    assert!(
        code == 1 && sentence.contains("there is no action") && sentence.contains("source.created"),
        "{sentence}"
    );
    let before = found.err.split("--before ").nth(1).unwrap().split_whitespace().next().unwrap();
    let all = async |more: &[&str]| -> Vec<Value> {
        let document = desk.said(&[&["audit", "search", "--json"][..], more].concat()).await.json();
        document["items"].as_array().unwrap().clone()
    };
    let sources = ["--action", "source.*"];
    let rest = all(&[&sources[..], &["--before", before]].concat()).await;
    assert_eq!(rest.len(), 3);
    assert_eq!(all(&sources).await[2..], rest, "newest first, none twice, none left out");
    let document = desk.said(&["audit", "search", "--json", "-n", "2"]).await.json();
    assert_eq!(document["next"], document["items"][1]["seq"]);
    let who = document["items"][0]["data"]["actor"]["id"].as_str().unwrap();
    assert_eq!(document["names"][who], "bootstrap");
    assert_eq!(all(&["--target", &desk.workspace.id.to_string(), "--since", "1h"]).await.len(), 1);
    assert_eq!(all(&["--until", "1h"]).await, [Value::Null; 0]);
    assert_eq!(all(&["--outcome", "denied"]).await, [Value::Null; 0]);
    let actor = rest[0]["data"]["actor"]["id"].as_str().unwrap();
    assert_eq!(all(&["--actor", actor]).await, all(&[]).await);
    assert_eq!(all(&["--actor", "system"]).await, [Value::Null; 0]);
    let nothing = desk.said(&["audit", "search", "--actor", "system"]).await;
    assert!(
        nothing.out.is_empty() && nothing.err.contains("nothing of that is on the record"),
        "{}",
        nothing.err
    );

    for format in ["jsonl", "csv", "ocsf", "cef"] {
        let file = format!("audit.{format}");
        let export = ["audit", "export", "--format", format, "--action", "source.created", "--openings"];
        let told = desk.said(&[&export[..], &["--out", &file, "--json"]].concat()).await.json();
        let written = desk.read(&file);
        assert_eq!(told, json!({ "file": file, "bytes": written.len() }));
        assert_eq!(written.lines().count(), 5 + usize::from(format == "csv"), "{written}");
        assert_eq!(
            written.contains("source 0"),
            format == "jsonl",
            "the name is in the form that has openings"
        );
        assert!(written.contains("127.0.0.1"), "{written}");
        if format == "ocsf" {
            let closed =
                ["audit", "export", "--format", format, "--action", "source.created", "--out", "closed.ocsf"];
            desk.said(&closed).await;
            for line in desk.read("closed.ocsf").lines() {
                let event: Value = serde_json::from_str(line).unwrap();
                assert_eq!(event["src_endpoint"], json!({ "uid": "api" }), "what is not opened is not there");
            }
        }
        let piped = desk.said(&[&export[..], &["--out", "-"]].concat()).await;
        assert_eq!(piped.out, written, "and nothing but that");
        let exports = desk.workspace.entries_of("audit.ledger.exported").await;
        let of_it = exports.iter().filter(|e| e["data"]["details"]["format"] == format).count();
        assert_eq!(of_it, 2 + usize::from(format == "ocsf"));
    }
    let again = ["audit", "export", "--format", "csv", "--out", "audit.csv"];
    let exists = "audit.csv exists already; choose another name, or remove it".to_owned();
    assert_eq!(desk.refused(&again).await, (1, exists));
    assert_eq!(desk.workspace.entries_of("audit.ledger.exported").await.len(), 9, "nobody was asked");
}

#[tokio::test]
async fn sealed_values_are_shown_and_that_is_on_the_record() {
    let desk = Desk::new().await;
    let source = desk.workspace.inbound("CI").await;
    let seq = source.event("\u{1b}[31mred").await.to_string();
    let shown = desk.said(&["openings", &seq]).await;
    assert!(shown.out.contains("payload") && shown.out.contains("red"), "{}", shown.out);
    assert!(!shown.out.contains('\u{1b}'), "{}", shown.out);
    let document = desk.said(&["openings", &seq, "--json"]).await.json();
    assert_eq!(document["openings"]["payload"]["value"]["text"], "\u{1b}[31mred");
    let record = desk.workspace.entries_of("audit.openings.shown").await;
    assert_eq!((record.len(), &record[0]["data"]["surface"]), (2, &json!("cli")));
    let nothing = desk.said(&["openings", "0"]).await;
    assert!(nothing.out.is_empty() && nothing.err.contains("nothing sealed"), "{}", nothing.err);
    let (code, sentence) = desk.refused(&["openings", "99999"]).await;
    assert!(code == 1 && sentence.contains("404"), "{sentence}");

    // An instance that shows something else than the entry has sealed is not believed.
    let liar = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", liar.local_addr().unwrap());
    let entry =
        desk.workspace.api.get(&desk.workspace.at(&format!("/entries/{seq}"))).await.expect(200).json();
    let mut lie = document;
    lie["openings"]["payload"]["value"] = json!("green");
    let answers = [entry.to_string(), lie.to_string()];
    let lying = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        for answer in answers {
            let (mut stream, _) = liar.accept().await.unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await.unwrap();
            let head =
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length:";
            stream.write_all(format!("{head} {}\r\n\r\n{answer}", answer.len()).as_bytes()).await.unwrap();
        }
    });
    let id = desk.workspace.id.to_string();
    let refused = desk.refused(&["openings", &seq, "--url", &address, "--workspace", &id]).await;
    lying.await.unwrap();
    assert_eq!(refused, (1, format!("the instance shows another payload than entry {seq} has sealed")));
}

#[tokio::test]
async fn a_key_is_replaced_in_place_by_a_command() {
    let desk = Desk::new().await;
    desk.write("right.p8", &desk.read("AuthKey.p8"));
    desk.write("AuthKey.p8", &rcgen::KeyPair::generate().unwrap().serialize_pem());
    let made = desk.add_app_store().await;
    assert!(!made.err.contains("readable: "), "{}", made.err);
    let key = desk.simulator.app_store_key("Acme").unwrap();
    let replace = ["sources", "replace-key", "Apple", "--key-id", &key.key_id, "--issuer-id", &key.issuer_id];
    let said = desk.said(&[&replace[..], &["--p8", "right.p8"]].concat()).await;
    assert_eq!(said.line(), "the source \"Apple\" was given the key");
    assert!(said.err.contains("readable: ") && said.err.contains("versions"), "{}", said.err);
    assert_eq!(desk.items("sources").await[0]["id"], made.line(), "it is the same source");
    crate::harness::eventually("it knows its apps", || async {
        let subjects = desk.items("subjects").await;
        (!subjects.is_empty()).then_some(())
    })
    .await;
    let individual = ["sources", "replace-key", "Apple", "--key-id", &key.key_id, "--p8", "right.p8"];
    let (code, sentence) = desk.refused(&individual).await;
    assert!(code == 1 && sentence.contains("409") && sentence.contains("other_account"), "{sentence}");
    let meant = desk.said(&[&individual[..], &["--other-account", "--json"]].concat()).await;
    assert_eq!(meant.json()["id"], made.line());
    let wrong = desk.refused(&["sources", "replace-key", "Apple", "--service-account", "account.json"]).await;
    assert!(wrong.0 == 1 && wrong.1.contains("the source is of the kind app_store"), "{}", wrong.1);
    let stdin = desk
        .given(
            &["sources", "replace-key", "Apple", "--key-id", &key.key_id, "--p8", "-", "--other-account"],
            &desk.read("right.p8"),
        )
        .await;
    assert!(stdin.status.success(), "{}", text(&stdin.stderr));
}
