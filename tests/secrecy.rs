//! What is personal, and what opens doors, after people have worked with an instance: looked for in its database, its
//! log at the most talkative, its answers and what is taken away.

use crate::harness::{Answer, Api, Program, World, eventually, send, temporary};
use serde_json::json;
use statusledger::access::scope::Role;
use std::io::Read;
use std::process::Command;

/// As it is, and as the hex in which a dump shows bytes.
fn forms(secret: &str) -> [String; 2] {
    [secret.to_owned(), secret.bytes().map(|b| format!("{b:02x}")).collect()]
}

/// The text of every member of an export.
fn members(zip: &Answer) -> String {
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(zip.body.to_vec())).unwrap();
    let mut text = String::new();
    for n in 0..archive.len() {
        archive.by_index(n).unwrap().read_to_string(&mut text).unwrap();
    }
    text
}

#[tokio::test]
async fn nothing_personal_and_nothing_that_opens_a_door_is_in_the_database_the_log_or_what_is_taken_away() {
    const AGENT: &str = "marked-browser/1.0 (of a person)";
    const ADDRESS: &str = "203.0.113.77";
    let directory = temporary("secrecy");
    let log = directory.join("log");
    let world = World::new().await;
    let token_file = directory.join("token");
    std::fs::write(&token_file, &world.api.token).unwrap();
    let other = directory.join("node");
    std::fs::create_dir(&other).unwrap();
    let [service, worker] =
        ["statusledger_service", "statusledger_worker"].map(|role| world.database.url(role));
    let arguments = [
        "serve",
        "--port",
        "0",
        "--instance",
        "status.example.com",
        "--bootstrap-token-file",
        token_file.to_str().unwrap(),
        "--data-dir",
        other.to_str().unwrap(),
        "--database-url",
        &service,
        "--worker-database-url",
        &worker,
    ];
    let key = world.settings.key_encryption_key_path();
    let environment = [
        ("STATUSLEDGER_LOG", "trace"),
        ("STATUSLEDGER_KEY_ENCRYPTION_KEY_FILE", key.to_str().unwrap()),
        ("STATUSLEDGER_TRUSTED_PROXIES", r#"["127.0.0.0/8"]"#),
    ];
    let program = Program::start(&directory, &log, &arguments, &environment).await;
    let api = Api::new(program.address, &world.api.token);
    let workspace = world.workspace("secrecy").await;
    let person = world.person("marked.person@example.com", &[(workspace.id, Role::Owner)]).await;
    // As the person's browser would ask, through a proxy.
    let ask = |method: &str, path: &str| {
        api.bare(method, path)
            .header("cookie", person.cookie.as_str())
            .header("x-csrf-token", person.csrf.as_str())
            .header("user-agent", AGENT)
            .header("x-forwarded-for", ADDRESS)
    };
    let mine = send(ask("GET", "/v1/session")).await.expect(200).json();
    assert_eq!(mine["email"], "marked.person@example.com", "whoever it is sees it");
    let new_key = json!({ "name": "a marked name of a key", "scopes": ["read"] });
    let made = send(ask("POST", &workspace.at("/keys")).json(&new_key)).await.expect(201).json();
    let key_token = made["token"].as_str().unwrap().to_owned();
    let invite = json!({ "email": "marked.guest@example.com", "role": "viewer" });
    let invited = send(ask("POST", &workspace.at("/invitations")).json(&invite)).await.expect(201).json();
    let invitation = invited["token"].as_str().unwrap().to_owned();
    let hook = json!({ "name": "a marked hook", "url": "https://example.com/marked-path?token=abc" });
    let hook = send(ask("POST", &workspace.at("/destinations")).json(&hook)).await;
    let whsec =
        if hook.status == 201 { hook.json()["secret"].as_str().unwrap().to_owned() } else { String::new() };
    // Refused, with the same marks.
    let refused = api.bare("GET", &workspace.at("/keys")).bearer_auth(&key_token);
    let refused = refused.header("user-agent", AGENT).header("x-forwarded-for", ADDRESS);
    assert_eq!(send(refused).await.problem(403), "scope");
    let unknown = api.bare("GET", "/v1/workspaces").bearer_auth(key_token.replace("sl_read", "sl_admin"));
    assert_eq!(send(unknown.header("user-agent", AGENT)).await.problem(401), "unauthorized");
    let taken = send(ask("GET", &workspace.at("/export"))).await.expect(200);
    let opened = send(ask("GET", &workspace.at("/export?openings=true"))).await.expect(200);
    eventually("the refusals are on the record", || async {
        let found = api.get(&workspace.at("/audit?action=access.denied")).await.expect(200).json();
        (!found["items"].as_array()?.is_empty()).then_some(())
    })
    .await;
    let mut seen = vec![("the export", members(&taken))];
    for format in ["jsonl", "csv", "ocsf", "cef"] {
        let path = workspace.at(&format!("/audit/export?format={format}"));
        seen.push(("an audit export", send(ask("GET", &path)).await.expect(200).text().to_owned()));
    }
    for path in ["/audit?limit=1000", "/entries?limit=1000"] {
        seen.push(("a list of entries", api.get(&workspace.at(path)).await.expect(200).text().to_owned()));
    }
    seen.push(("the metrics", api.get("/metrics").await.expect(200).text().to_owned()));
    // With the openings it is there: what is looked for can be found.
    let opened = members(&opened);
    assert!(
        opened.contains(AGENT) && opened.contains(ADDRESS) && opened.contains("marked.guest@example.com")
    );
    assert!(program.terminate().await);
    let dump =
        Command::new("pg_dump").args(["--inserts", "-d", &world.database.url("postgres")]).output().unwrap();
    assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
    seen.push(("the dump", String::from_utf8(dump.stdout).unwrap()));
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(text.contains("TRACE"), "the log is at its most talkative");
    seen.push(("the log", text));

    // The secret part of each: the id may be seen.
    let end = |token: &str| token.rsplit('_').next().unwrap().to_owned();
    let mut secrets = vec![
        ("an address", "marked.person@example.com".to_owned()),
        ("a guest's address", "marked.guest@example.com".to_owned()),
        ("a browser", AGENT.to_owned()),
        ("an IP address", ADDRESS.to_owned()),
        ("a key", end(&key_token)),
        ("an invitation", end(&invitation)),
        ("the administrator's key", end(&world.api.token)),
        ("a session", person.cookie.split('.').nth(1).unwrap().to_owned()),
        ("a session's token", person.csrf.as_str().to_owned()),
    ];
    if !whsec.is_empty() {
        secrets.push(("a webhook's secret", whsec.trim_start_matches("whsec_").to_owned()));
    }
    for (what, secret) in &secrets {
        assert!(secret.len() >= 12, "{what}");
        for form in forms(secret) {
            for (place, text) in &seen {
                assert!(!text.contains(&form), "{what} is in {place}");
            }
        }
    }
}
