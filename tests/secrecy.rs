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
    // In the address of a destination, in what its receiver answers, in a payload, and in how a store is asked.
    const TOKEN: &str = "marked-token-8d21c4";
    const ANSWERED: &str = "a marked answer 5b7e";
    const PAYLOAD: &str = "a marked payload 91aa";
    const ACCOUNT: &str = "marked-account-77c3";
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
        ("STATUSLEDGER_DELIVERY__ALLOW_HTTP", "true"),
        ("STATUSLEDGER_DELIVERY__ALLOW_NETWORKS", r#"["127.0.0.0/8"]"#),
        ("STATUSLEDGER_POLLING__ALLOW_OTHER_HOSTS", "true"),
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
    // One receiver answers, and one is not there.
    let answering =
        axum::Router::new().fallback(|| async { (axum::http::StatusCode::BAD_GATEWAY, ANSWERED) });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let answers = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, answering).await });
    let closed = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let mut whsecs = Vec::new();
    for (name, receiver) in [("a marked hook", answers), ("another marked hook", closed)] {
        let hook = json!({ "name": name, "url": format!("http://{receiver}/{TOKEN}?token={TOKEN}") });
        let hook = send(ask("POST", &workspace.at("/destinations")).json(&hook)).await.expect(201).json();
        whsecs.push(hook["secret"].as_str().unwrap().to_owned());
        let at = workspace.at(&format!("/destinations/{}", hook["id"].as_str().unwrap()));
        send(ask("POST", &format!("{at}/test"))).await.expect(202);
        eventually("an attempt has failed, and what was answered is seen by who may", || async {
            let delivery = send(ask("GET", &format!("{at}/deliveries/1"))).await.expect(200).json();
            let attempt = delivery["history"].as_array()?.first()?.clone();
            assert_eq!(attempt["answer"], if receiver == answers { json!(ANSWERED) } else { json!(null) });
            Some(())
        })
        .await;
        let shown = send(ask("GET", &at)).await.expect(200).json();
        assert!(shown["url"].as_str().unwrap().contains(TOKEN), "whoever may change it sees it");
    }
    let store = json!({ "kind": "app_store", "name": "a marked source", "webhook_secret": "a marked webhook secret",
        "base_url": format!("http://127.0.0.1:9/{ACCOUNT}") });
    send(ask("POST", &workspace.at("/sources")).json(&store)).await.expect(201);
    let source = json!({ "kind": "inbound", "name": "another marked source" });
    let source = send(ask("POST", &workspace.at("/sources")).json(&source)).await.expect(201).json();
    let source_token = source["token"].as_str().unwrap().to_owned();
    let door = format!("/in/{}", source["id"].as_str().unwrap());
    send(api.bare("POST", &door).bearer_auth(&source_token).body(PAYLOAD)).await.expect(202);
    let forged = api.bare("POST", &door).bearer_auth(format!("{source_token}x")).header("user-agent", AGENT);
    send(forged.header("x-forwarded-for", ADDRESS).body(PAYLOAD)).await.problem(401);
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
    for mark in [AGENT, ADDRESS, "marked.guest@example.com", TOKEN, PAYLOAD, "a marked hook"] {
        assert!(opened.contains(mark), "{mark}");
    }
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
    secrets.extend(
        whsecs.iter().map(|whsec| ("a webhook's secret", whsec.trim_start_matches("whsec_").to_owned())),
    );
    secrets.extend(
        [
            ("an address of a destination", TOKEN),
            ("an answer", ANSWERED),
            ("a payload", PAYLOAD),
            ("how a store is asked", ACCOUNT),
            ("a store's webhook secret", "a marked webhook secret"),
        ]
        .map(|(what, mark)| (what, mark.to_owned())),
    );
    secrets.push(("a source's token", end(&source_token)));
    for (what, secret) in &secrets {
        assert!(secret.len() >= 12, "{what}");
        for form in forms(secret) {
            for (place, text) in &seen {
                assert!(!text.contains(&form), "{what} is in {place}");
            }
        }
    }
    // What people call a key, a destination or a source is kept as it is, each in its own table (docs/security.md), and
    // stands nowhere else.
    for (name, table) in [
        ("a marked name of a key", "api_keys"),
        ("a marked hook", "destinations"),
        ("another marked hook", "destinations"),
        ("a marked source", "sources"),
        ("another marked source", "sources"),
    ] {
        for form in forms(name) {
            for (place, text) in &seen {
                let rest = text.lines().filter(|line| {
                    !(*place == "the dump" && line.starts_with(&format!("INSERT INTO public.{table} ")))
                });
                let found: Vec<&str> = rest.filter(|line| line.contains(&form)).collect();
                assert!(found.is_empty(), "{name} is in {place}: {found:?}");
            }
        }
    }
}
