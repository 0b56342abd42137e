//! The record of who did what: found, taken away, and telling nothing that is sealed.

use crate::harness::{World, eventually, send};
use serde_json::{Value, json};
use statusledger::access::scope::Role;

#[tokio::test]
async fn audit_entries_are_found_by_actor_action_target_outcome_and_time() {
    let world = World::new().await;
    let workspace = world.workspace("searched").await;
    let source = workspace.inbound("events").await;
    let key =
        world.api.post(&workspace.at("/keys"), json!({ "name": "k", "scopes": ["sources:write"] })).await;
    let key = key.expect(201).json();
    let token = key["token"].as_str().unwrap();
    let look = |rest: &str| world.api.bare("POST", &workspace.at(rest)).bearer_auth(token);
    send(look(&format!("/sources/{}/look", source.id))).await.expect(202);
    assert_eq!(send(look("/destinations").json(&json!({}))).await.problem(403), "scope");
    assert_eq!(send(look("/destinations").json(&json!({}))).await.problem(403), "scope");
    let found = async |query: &str| -> Vec<Value> {
        let page = world.api.get(&workspace.at(&format!("/audit?{query}"))).await.expect(200).json();
        page["items"].as_array().unwrap().clone()
    };
    let denied = eventually("the refusals are on the record", || async {
        let denied = found("outcome=denied").await;
        let count: i64 = denied.iter().map(|e| e["data"]["details"]["count"].as_i64().unwrap()).sum();
        (count == 2).then_some(denied)
    })
    .await;
    let data = &denied[0]["data"];
    assert_eq!(data["reason"], "scope");
    assert_eq!(data["actor"], json!({ "type": "api_key", "id": key["id"] }));
    assert_eq!(data["details"]["route"], "POST /v1/workspaces/{workspace}/destinations");
    let by_key = found(&format!("actor={}", key["id"].as_str().unwrap())).await;
    assert!(by_key.len() >= 2 && by_key.iter().any(|e| e["type"] == "audit.source.looked"));
    let to_source = found(&format!("target={}", source.id)).await;
    let kinds: Vec<_> = to_source.iter().map(|e| e["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["audit.source.looked", "audit.source.created"], "newest first");
    assert_eq!(found("action=audit.source.created").await.len(), 1);
    assert_eq!(found("action=source.*").await.len(), 2);
    let at = to_source[0]["timestamp"].as_str().unwrap();
    assert!(found(&format!("since={at}")).await.iter().any(|e| e["seq"] == to_source[0]["seq"]));
    assert!(found(&format!("until={at}")).await.iter().all(|e| e["seq"] != to_source[0]["seq"]));
    // Page by page it is the same.
    let whole = found("limit=1000").await;
    let (mut paged, mut query) = (Vec::new(), "limit=2".to_owned());
    loop {
        let page = world.api.get(&workspace.at(&format!("/audit?{query}"))).await.expect(200).json();
        paged.extend(page["items"].as_array().unwrap().clone());
        let Some(next) = page["next"].as_i64() else { break };
        query = format!("limit=2&before={next}");
    }
    assert_eq!(paged, whole);
    // An action that is none is not one that nobody has done; a beginning of several is looked for as it is.
    for (asked, near) in
        [("nonsense", ""), ("audit.key.create", "key.created"), ("sources.*", "source.created")]
    {
        for path in [format!("/audit?action={asked}"), format!("/audit/export?format=csv&action={asked}")] {
            let answer = world.api.get(&workspace.at(&path)).await;
            let detail = answer.json()["detail"].as_str().unwrap().to_owned();
            assert_eq!(answer.problem(400), "bad-request", "{path}");
            let said = format!("there is no action \"{}\"", asked.trim_start_matches("audit."));
            assert!(detail.starts_with(&said) && detail.contains(near), "{detail}");
        }
    }
    assert_eq!(found("action=audit.source.*").await.len(), 2);
    assert_eq!(found("action=passkey.*").await, [Value::Null; 0]);
    for wrong in ["action=Key", "outcome=maybe", "since=yesterday", "limit=0", "actor=", "who=me"]
        .into_iter()
        .chain(["actor=ana@example.com", "target=ana@example.com", "actor=key_1", "actor=Operator"])
    {
        let answer = world.api.get(&workspace.at(&format!("/audit?{wrong}"))).await;
        assert_eq!(answer.problem(400), "bad-request", "{wrong}");
    }
    for known in ["actor=operator", "actor=system", "target=7"] {
        found(known).await;
    }
    // What is no id is not asked for by an export either, whose entry would say it for good.
    let path = workspace.at("/audit/export?format=csv&actor=ana@example.com");
    assert_eq!(world.api.get(&path).await.problem(400), "bad-request");
    assert!(workspace.entries_of("audit.ledger.exported").await.is_empty());
    world.assert_whole(&[&workspace]).await;
}

#[tokio::test]
async fn audit_entries_are_taken_away_in_four_forms_and_that_is_on_the_record() {
    let world = World::new().await;
    let workspace = world.workspace("taken away").await;
    workspace.inbound("=a formula?").await;
    let mut taken = 0;
    for (format, media) in [
        ("jsonl", "application/x-ndjson"),
        ("csv", "text/csv; charset=utf-8"),
        ("ocsf", "application/x-ndjson"),
        ("cef", "text/plain; charset=utf-8"),
    ] {
        for openings in [false, true] {
            let path = workspace.at(&format!("/audit/export?format={format}&openings={openings}"));
            let answer = world.api.get(&path).await.expect(200);
            assert_eq!(answer.headers["content-type"], media);
            let lines = answer.text().lines().count();
            // Of what was there when it was asked for: the workspace, the source, and the exports before it.
            assert_eq!(lines, 2 + taken + usize::from(format == "csv"), "{format}");
            assert_eq!(answer.text().contains("127.0.0.1"), openings, "{format}: the address is sealed");
            taken += 1;
        }
    }
    let path = workspace.at("/audit/export?format=jsonl&action=source.created&openings=true");
    let line: Value = serde_json::from_str(world.api.get(&path).await.expect(200).text()).unwrap();
    assert_eq!(line["opened"]["name_after"], "=a formula?");
    assert_eq!(line["type"], "audit.source.created");
    let page = world.api.get(&workspace.at("/audit?action=ledger.exported")).await.expect(200).json();
    let exports = page["items"].as_array().unwrap();
    assert_eq!(exports.len(), taken + 1);
    assert_eq!(exports[0]["data"]["details"]["format"], "jsonl");
    assert_eq!(world.api.get(&workspace.at("/audit/export?format=xml")).await.problem(400), "bad-request");
    assert_eq!(world.api.get(&workspace.at("/audit/export")).await.problem(400), "bad-request");
}

#[tokio::test]
async fn an_act_that_cannot_be_put_on_the_record_does_not_happen() {
    let world = World::new().await;
    let workspace = world.workspace("recorded").await;
    let mut superuser = world.database.superuser().await;
    // The index of audit entries refuses: the transaction it stands in must go with it.
    sqlx::query("REVOKE INSERT ON audit_index FROM statusledger_service")
        .execute(&mut superuser)
        .await
        .unwrap();
    let before = workspace.entries().await.len();
    let source = json!({ "kind": "inbound", "name": "never" });
    assert_eq!(world.api.post(&workspace.at("/sources"), source).await.problem(500), "internal");
    assert_eq!(world.api.patch(&workspace.path, json!({ "name": "never" })).await.problem(500), "internal");
    assert_eq!(world.api.delete(&workspace.path).await.problem(500), "internal");
    assert_eq!(
        world.api.get(&workspace.at("/export")).await.problem(500),
        "internal",
        "nor does anything leave"
    );
    sqlx::query("GRANT INSERT ON audit_index TO statusledger_service").execute(&mut superuser).await.unwrap();
    assert_eq!(workspace.entries().await.len(), before);
    let sources = world.api.get(&workspace.at("/sources")).await.expect(200).json();
    assert_eq!(sources["items"], json!([]));
    let seen = world.api.get(&workspace.path).await.expect(200).json();
    assert_eq!((&seen["name"], &seen["delete_after"]), (&json!("recorded"), &Value::Null));
}

#[tokio::test]
async fn a_superuser_who_changes_the_index_of_audit_entries_is_found() {
    let world = World::new().await;
    let workspace = world.workspace("indexed").await;
    workspace.inbound("events").await;
    let mut superuser = world.database.superuser().await;
    let id = workspace.id.uuid();
    assert!(world.doctor().await.is_empty());
    for change in [
        "UPDATE audit_index SET actor = 'somebody else' WHERE workspace_id = $1 AND seq = 3",
        "DELETE FROM audit_index WHERE workspace_id = $1 AND seq = 3",
        "UPDATE audit_index SET seq = 2 WHERE workspace_id = $1 AND seq = 3",
        "UPDATE audit_index SET seq = 999 WHERE workspace_id = $1 AND seq = 3",
        "UPDATE audit_index SET targets = '{}' WHERE workspace_id = $1 AND seq = 3",
    ] {
        sqlx::query("CREATE TEMP TABLE kept AS SELECT * FROM audit_index")
            .execute(&mut superuser)
            .await
            .unwrap();
        let changed = sqlx::query(change).bind(id).execute(&mut superuser).await.unwrap();
        assert_eq!(changed.rows_affected(), 1, "{change}");
        assert!(!world.doctor().await.is_empty(), "{change}");
        for statement in
            ["TRUNCATE audit_index", "INSERT INTO audit_index SELECT * FROM kept", "DROP TABLE kept"]
        {
            sqlx::query(statement).execute(&mut superuser).await.unwrap();
        }
        assert!(world.doctor().await.is_empty(), "after {change}");
    }
}

#[tokio::test]
async fn a_change_of_settings_and_of_the_schema_is_on_the_record() {
    let mut world = World::new().await;
    let own = format!("/v1/workspaces/{}", world.node().instance.workspace);
    world.stop().await;
    world.settings.delivery.deadline_s = 7.0;
    let mut superuser = world.database.superuser().await;
    sqlx::query("UPDATE instance_facts SET value = '2' WHERE name = 'schema'")
        .execute(&mut superuser)
        .await
        .unwrap();
    world.start().await.unwrap();
    let page = world.api.get(&format!("{own}/audit?actor=operator")).await.expect(200).json();
    let entries = page["items"].as_array().unwrap();
    let of = |kind: &str| entries.iter().find(|e| e["type"] == kind).unwrap_or_else(|| panic!("no {kind}"));
    let settings = &of("audit.settings.changed")["data"]["changes"];
    assert_eq!(settings["delivery.deadline_s"], json!({ "before": "20.0", "after": "7.0" }));
    assert_eq!(of("audit.instance.migrated")["data"]["details"]["from"], 2);
}

#[tokio::test]
async fn every_change_of_settings_leaves_an_entry_that_says_as_much_as_it_may() {
    let mut world = World::new().await;
    let own = format!("/v1/workspaces/{}", world.node().instance.workspace);
    let secret = world.settings.data_dir.join("client-secret");
    std::fs::write(&secret, "the secret itself").unwrap();
    let mut provider = statusledger::config::ProviderSettings {
        id: "one".into(),
        kind: statusledger::config::ProviderKind::Oidc,
        name: "One".into(),
        issuer: Some("http://127.0.0.1:9".into()),
        client_id: "the client".into(),
        client_secret_file: Some(secret),
        scopes: vec!["email".into()],
        url: None,
        api_url: None,
    };
    let latest = async |world: &mut World| -> Value {
        world.stop().await;
        world.start().await.unwrap();
        let page = world.api.get(&format!("{own}/audit?action=settings.changed")).await.expect(200).json();
        page["items"][0]["data"].clone()
    };
    world.settings.access.providers = vec![provider.clone()];
    world.settings.api.requests_per_minute = 999_999;
    world.settings.access.sign_in_requests_per_minute = 31;
    let said = latest(&mut world).await;
    let changes = &said["changes"];
    assert_eq!(changes["access.providers"]["before"], json!([]));
    let of = json!({ "id": "one", "kind": "oidc", "issuer": "http://127.0.0.1:9", "client_id": "the client",
        "scopes": ["email"] });
    assert_eq!(changes["access.providers"]["after"], json!([of]));
    assert_eq!(changes["api.requests_per_minute"], json!({ "before": 1_000_000, "after": 999_999 }));
    assert_eq!(changes["access.sign_in_requests_per_minute"], json!({ "before": 30, "after": 31 }));
    assert!(!said.to_string().contains("secret"), "{said}");
    // What is not shown differs: that much is told.
    provider.name = "Another name".into();
    world.settings.access.providers = vec![provider];
    let said = latest(&mut world).await;
    assert_eq!((said.get("changes"), &said["details"]), (None, &json!({ "others_changed": true })));
}

#[tokio::test]
async fn what_a_person_is_called_is_sealed_with_what_they_did_and_opened_for_who_may() {
    let world = World::new().await;
    let workspace = world.workspace("named").await;
    let person = world.person("ana@example.com", &[(workspace.id, Role::Owner)]).await;
    let admin = world.person("bo@example.com", &[(workspace.id, Role::Owner)]).await;
    let ask = |method: &str, path: String| {
        let request = world.api.bare(method, &path).header("cookie", person.cookie.as_str());
        request.header("x-csrf-token", person.csrf.as_str())
    };
    let key = json!({ "name": "k", "scopes": ["read"] });
    send(ask("POST", workspace.at("/keys")).json(&key)).await.expect(201);
    // Who has gone is still who did it, and who takes themselves out is named too.
    send(ask("DELETE", workspace.at(&format!("/members/{}", admin.id)))).await.expect(200);
    let path = workspace.at("/audit/export?format=jsonl&openings=true");
    let text = world.api.get(&path).await.expect(200);
    let mut named = 0;
    for line in text.text().lines() {
        let entry: Value = serde_json::from_str(line).unwrap();
        assert!(!entry["data"].to_string().contains("ana@example.com"), "sealed in the entry");
        if entry["data"]["actor"]["id"] == person.id.to_string() {
            assert_eq!(entry["opened"]["actor_display"], "ana@example.com");
            named += 1;
        } else {
            assert_eq!(entry["data"]["sealed"].get("actor_display"), None);
        }
    }
    assert_eq!(named, 2);
    let path = workspace.at("/audit/export?format=csv&openings=true&action=key.created");
    let csv = world.api.get(&path).await.expect(200);
    assert!(csv.text().contains(&format!("user,{},ana@example.com,", person.id)), "{}", csv.text());
    let page = world.api.get(&workspace.at("/audit?action=ledger.exported")).await.expect(200).json();
    assert_eq!(page["items"][0]["data"]["details"]["search"], json!({ "action": "key.created" }));
    assert_eq!(page["items"][1]["data"]["details"].get("search"), None);
    world.assert_whole(&[&workspace]).await;
}

#[tokio::test]
async fn a_receipt_of_one_instance_never_verifies_in_another() {
    let (one, two) = (World::new().await, World::new().await);
    let workspace = one.workspace("here").await;
    let source = workspace.inbound("events").await;
    let receiver = crate::harness::Receiver::of(&one).await;
    let destination = workspace.destination(&receiver, "hook", json!({})).await;
    source.event("one").await;
    receiver.taken("hook", 1).await;
    let number = destination.deliveries().await[0]["number"].as_i64().unwrap();
    let path = workspace.at(&format!("/destinations/{}/deliveries/{number}/receipt", destination.id));
    let body = one.api.get(&path).await.expect(200).body;
    let verify = |manifest: &[u8], pin: &statusledger_verify::manifest::Pin| {
        let manifest = statusledger_verify::manifest::KeyManifest::parse(manifest).unwrap();
        let trusted = manifest.trust(pin).map_err(|f| f.check.to_string())?;
        statusledger_verify::receipt::verify(
            &body,
            &trusted,
            &statusledger_verify::receipt::Options::default(),
        )
        .map(|_| ())
        .map_err(|e| e.to_string())
    };
    verify(&one.manifest().await, &one.pin()).unwrap();
    // The same name, other keys: neither its manifest nor its pin says anything for the other's.
    verify(&two.manifest().await, &two.pin()).unwrap_err();
    verify(&two.manifest().await, &one.pin()).unwrap_err();
    verify(&one.manifest().await, &two.pin()).unwrap_err();
}

#[tokio::test]
async fn who_acted_is_told_by_name_to_whoever_may_list_them() {
    let world = World::new().await;
    let workspace = world.workspace("named").await;
    let key = async |name: &str, scopes: &[&str]| {
        let body = json!({ "name": name, "scopes": scopes });
        world.api.post(&workspace.at("/keys"), body).await.expect(201).json()
    };
    let making = key("making", &["keys:write"]).await;
    let body = json!({ "name": "made", "scopes": ["keys:read"] });
    let bearer = |key: &Value, method: &str, path: &str| {
        world.api.bare(method, &workspace.at(path)).bearer_auth(key["token"].as_str().unwrap())
    };
    send(bearer(&making, "POST", "/keys").json(&body)).await.expect(201);
    let ana = world.person("ana@example.com", &[(workspace.id, Role::Admin)]).await;
    let by_ana = world.api.bare("POST", &workspace.at("/keys")).header("cookie", &ana.cookie);
    send(by_ana.header("x-csrf-token", &ana.csrf).json(&body)).await.expect(201);

    let names = async |request: reqwest::RequestBuilder| -> Value {
        let page = send(request).await.expect(200).json();
        let mut actors: Vec<&str> = page["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|e| e["data"]["actor"]["id"].as_str().unwrap())
            .collect();
        actors.dedup();
        assert!(page["names"].as_object().unwrap().keys().all(|id| actors.contains(&id.as_str())), "{page}");
        page["names"].clone()
    };
    let path = workspace.at("/audit?action=key.created");
    let unasked = world.api.get(&path).await.expect(200).json();
    assert!(unasked.get("names").is_none(), "only where they are asked for: {unasked}");
    let path = format!("{path}&names=true");
    let (making_id, ana_id) = (making["id"].as_str().unwrap(), ana.id.to_string());
    // A key of the whole instance: the workspace's and its own.
    let all = names(world.api.bare("GET", &path).bearer_auth(&world.api.token)).await;
    assert_eq!((&all[making_id], &all[&ana_id]), (&json!("making"), &json!("ana@example.com")));
    assert_eq!(all.as_object().unwrap().len(), 3, "{all}");
    assert!(all.as_object().unwrap().values().any(|name| name == "bootstrap"), "{all}");
    // A person of the workspace: no key of the instance's.
    let hers = names(world.api.bare("GET", &path).header("cookie", &ana.cookie)).await;
    assert_eq!(hers, json!({ making_id: "making", &ana_id: "ana@example.com" }));
    // The search alone names nobody; beside it the one scope names keys, the other people.
    let of = async |scopes: &[&str]| {
        let key = key("looking", scopes).await;
        names(bearer(&key, "GET", "/audit?action=key.created&names=true")).await
    };
    assert_eq!(of(&["audit:read"]).await, json!({}));
    assert_eq!(of(&["audit:read", "keys:read"]).await, json!({ making_id: "making" }));
    assert_eq!(of(&["audit:read", "members:read"]).await, json!({ &ana_id: "ana@example.com" }));
    // Whoever is a member no more is not listed, and not named.
    world.api.delete(&workspace.at(&format!("/members/{ana_id}"))).await.expect(200);
    let left = names(world.api.bare("GET", &path).bearer_auth(&world.api.token)).await;
    assert!(left.get(&ana_id).is_none() && left[making_id] == "making", "{left}");
}
