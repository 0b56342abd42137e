//! HTTP: problems, routes, tenants, the document, and the instance's own pages.

use crate::harness::{Receiver, World, eventually, send};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The document, and each route of it with its methods.
async fn routes(world: &World) -> (Value, BTreeMap<String, Vec<String>>) {
    let document = world.api.get("/openapi.json").await.expect(200).json();
    let paths = document["paths"].as_object().unwrap();
    let methods = |of: &Value| of.as_object().unwrap().keys().map(|m| m.to_uppercase()).collect();
    let routes = paths.iter().map(|(path, of)| (path.clone(), methods(of))).collect();
    (document, routes)
}

/// A path of the document with something in its places.
fn filled(path: &str, workspace: &str) -> String {
    path.replace("{workspace}", workspace)
        .replace("{destination}", "ep_0199b1c4-0000-7000-8000-000000000001")
        .replace("{source}", "src_0199b1c4-0000-7000-8000-000000000001")
        .replace("{key}", "key_0199b1c4-0000-7000-8000-000000000001")
        .replace("{user}", "usr_0199b1c4-0000-7000-8000-000000000001")
        .replace("{invitation}", "inv_0199b1c4-0000-7000-8000-000000000001")
        .replace("{session}", "ses_0199b1c4-0000-7000-8000-000000000001")
        .replace("{passkey}", "pk_0199b1c4-0000-7000-8000-000000000001")
        .replace("{identity}", "idn_0199b1c4-0000-7000-8000-000000000001")
        .replace("{provider}", "somewhere")
        .replace("{number}", "1")
        .replace("{seq}", "0")
}

#[tokio::test]
async fn the_document_lists_every_route_and_nothing_else() {
    let world = World::new().await;
    let (document, routes) = routes(&world).await;
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let listed: Vec<String> = routes
        .iter()
        .flat_map(|(path, methods)| methods.iter().map(move |m| format!("{m} {path}")))
        .collect();
    let mut expected: Vec<&str> = "
        GET /healthz
        GET /readyz
        GET /metrics
        GET /.well-known/statusledger-keys.json
        POST /in/{source}
        POST /in/{source}/app-store-connect
        GET /v1/workspaces
        POST /v1/workspaces
        GET /v1/workspaces/{workspace}
        PATCH /v1/workspaces/{workspace}
        DELETE /v1/workspaces/{workspace}
        POST /v1/workspaces/{workspace}/restore
        GET /v1/workspaces/{workspace}/audit
        GET /v1/workspaces/{workspace}/audit/export
        POST /v1/workspaces/{workspace}/configurations
        GET /v1/workspaces/{workspace}/keys
        POST /v1/workspaces/{workspace}/keys
        GET /v1/workspaces/{workspace}/keys/{key}
        DELETE /v1/workspaces/{workspace}/keys/{key}
        POST /v1/workspaces/{workspace}/keys/{key}/rotate
        GET /v1/workspaces/{workspace}/members
        PATCH /v1/workspaces/{workspace}/members/{user}
        DELETE /v1/workspaces/{workspace}/members/{user}
        DELETE /v1/workspaces/{workspace}/membership
        GET /v1/workspaces/{workspace}/invitations
        POST /v1/workspaces/{workspace}/invitations
        DELETE /v1/workspaces/{workspace}/invitations/{invitation}
        POST /v1/invitations/accept
        GET /v1/session
        DELETE /v1/session
        GET /v1/sessions
        DELETE /v1/sessions/{session}
        GET /sign-in
        GET /sign-in/with/{provider}
        GET /sign-in/callback/{provider}
        GET /sign-in/link/{link}
        POST /sign-in/link
        POST /sign-in/passkey/challenge
        POST /sign-in/passkey
        POST /sign-in/invited/challenge
        POST /sign-in/invited
        GET /invite/{invitation}
        GET /account
        GET /static/sign-in.js
        GET /static/sign-in.css
        GET /v1/passkeys
        POST /v1/passkeys
        POST /v1/passkeys/challenge
        DELETE /v1/passkeys/{passkey}
        GET /v1/identities
        POST /v1/identities/{provider}
        DELETE /v1/identities/{provider}/{identity}
        GET /v1/people
        GET /v1/people/{user}
        PATCH /v1/people/{user}
        GET /v1/workspaces/{workspace}/status
        GET /v1/workspaces/{workspace}/sources
        POST /v1/workspaces/{workspace}/sources
        GET /v1/workspaces/{workspace}/sources/{source}
        DELETE /v1/workspaces/{workspace}/sources/{source}
        PUT /v1/workspaces/{workspace}/sources/{source}/webhook-secret
        PUT /v1/workspaces/{workspace}/sources/{source}/key
        POST /v1/workspaces/{workspace}/sources/{source}/look
        GET /v1/workspaces/{workspace}/subjects
        GET /v1/workspaces/{workspace}/destinations
        POST /v1/workspaces/{workspace}/destinations
        GET /v1/workspaces/{workspace}/destinations/{destination}
        PATCH /v1/workspaces/{workspace}/destinations/{destination}
        DELETE /v1/workspaces/{workspace}/destinations/{destination}
        POST /v1/workspaces/{workspace}/destinations/{destination}/test
        POST /v1/workspaces/{workspace}/destinations/{destination}/rotate-secret
        GET /v1/workspaces/{workspace}/destinations/{destination}/deliveries
        GET /v1/workspaces/{workspace}/destinations/{destination}/deliveries/{number}
        GET /v1/workspaces/{workspace}/destinations/{destination}/deliveries/{number}/receipt
        POST /v1/workspaces/{workspace}/destinations/{destination}/redeliver
        GET /v1/workspaces/{workspace}/entries
        GET /v1/workspaces/{workspace}/entries/{seq}
        GET /v1/workspaces/{workspace}/entries/{seq}/openings
        GET /v1/workspaces/{workspace}/proofs/inclusion
        GET /v1/workspaces/{workspace}/proofs/consistency
        GET /v1/workspaces/{workspace}/checkpoint
        GET /v1/workspaces/{workspace}/export"
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .collect();
    let mut listed: Vec<&str> = listed.iter().map(String::as_str).collect();
    listed.sort_unstable();
    expected.sort_unstable();
    assert_eq!(listed, expected);
    for (path, of) in document["paths"].as_object().unwrap() {
        for (method, operation) in of.as_object().unwrap() {
            assert!(operation["responses"].as_object().is_some_and(|r| !r.is_empty()), "{method} {path}");
            assert!(operation["summary"].as_str().is_some_and(|s| !s.is_empty()), "{method} {path}");
            // What somebody meets who is not signed in yet: nothing else is open but the instance's own pages.
            let signs_in =
                ["/sign-in", "/invite/", "/account", "/static/"].iter().any(|p| path.starts_with(p));
            let own = ["/healthz", "/readyz", "/metrics"].contains(&path.as_str())
                || path.starts_with("/.well-known/");
            let inside = path.starts_with("/v1/") || path.starts_with("/in/");
            assert!(signs_in || own || inside, "{method} {path}");
            if signs_in {
                assert_eq!(operation["tags"], json!(["sign-in"]), "{method} {path}");
            }
            let secured = operation["security"].as_array().is_some_and(|s| !s.is_empty());
            assert_eq!(secured, inside, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn every_protected_route_refuses_who_has_no_token_before_it_looks_at_anything() {
    let world = World::new().await;
    let (_, routes) = routes(&world).await;
    let mut refused = 0;
    for (path, methods) in routes {
        if !path.starts_with("/v1/") && !path.starts_with("/in/") {
            continue;
        }
        // A workspace that does not exist, and no id at all: the answer is the same.
        for workspace in ["ws_0199b1c4-0000-7000-8000-000000000001", "nonsense"] {
            for method in &methods {
                let path = filled(&path, workspace);
                for token in [None, Some("sl_admin_0_wrong"), Some("wrong")] {
                    let request = world.api.bare(method, &path).header("content-type", "application/json");
                    let request = match token {
                        Some(token) => request.bearer_auth(token),
                        None => request,
                    };
                    let answer = send(request.body("{ not json")).await;
                    assert_eq!(answer.problem(401), "unauthorized", "{method} {path}");
                    let signed = path.ends_with("/app-store-connect");
                    let scheme = if signed { "X-Apple-Signature" } else { "Bearer" };
                    assert_eq!(answer.headers["www-authenticate"], scheme);
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > 100);
}

#[tokio::test]
async fn every_error_is_a_problem() {
    let world = World::new().await;
    let workspace = world.workspace("problems").await;
    let api = &world.api;
    for path in [
        "/docs/nothing",
        "/v1",
        "/v1/nothing",
        "/V1/workspaces",
        "/v1/workspaces/",
        "//",
        "/in",
        "/in/",
        "/../etc/passwd",
    ] {
        assert_eq!(api.get(path).await.problem(404), "not-found", "{path}");
    }
    for (method, path) in [
        ("DELETE", "/v1/workspaces".to_owned()),
        ("PUT", workspace.path.clone()),
        ("POST", "/healthz".to_owned()),
        ("GET", "/in/src_0199b1c4-0000-7000-8000-000000000001".to_owned()),
        ("PATCH", workspace.at("/entries/0")),
        ("DELETE", workspace.at("/entries/0")),
        ("PUT", workspace.at("/entries/0")),
        ("POST", workspace.at("/checkpoint")),
    ] {
        assert_eq!(
            send(api.request(method, &path)).await.problem(405),
            "method-not-allowed",
            "{method} {path}"
        );
    }
    let post = |path: &str, kind: &str, body: &str| {
        api.request("POST", path).header("content-type", kind).body(body.to_owned())
    };
    let json = "application/json";
    for (body, kind, status, problem) in [
        ("{}", "text/plain", 415, "unsupported-media-type"),
        ("{", json, 400, "bad-request"),
        ("{}", json, 422, "invalid"),
        ("[]", json, 422, "invalid"),
        (r#"{"name":7}"#, json, 422, "invalid"),
        (r#"{"name":""}"#, json, 422, "invalid"),
        (r#"{"name":"a\u0000b"}"#, json, 422, "invalid"),
        (r#"{"name":"x","more":1}"#, json, 422, "invalid"),
    ] {
        assert_eq!(send(post("/v1/workspaces", kind, body)).await.problem(status), problem, "{body}");
    }
    let large = format!(r#"{{"name":"{}"}}"#, "x".repeat(2 << 20));
    assert_eq!(send(post("/v1/workspaces", json, &large)).await.problem(413), "too-large");
    let long = format!(r#"{{"name":"{}"}}"#, "é".repeat(101));
    assert_eq!(send(post("/v1/workspaces", json, &long)).await.problem(422), "invalid");
    for query in ["limit=0", "limit=1001", "limit=x", "from=-1", "unknown=1", "from=1&from=2", "reverse=7"] {
        let answer = api.get(&workspace.at(&format!("/entries?{query}"))).await;
        assert_eq!(answer.problem(400), "bad-request", "{query}");
    }
    for seq in ["2", "99", "-1", "x", "18446744073709551615", "18446744073709551616", "00"] {
        let answer = api.get(&workspace.at(&format!("/entries/{seq}"))).await;
        let there = seq == "00" && answer.status == 200;
        assert!(there || answer.problem(404) == "not-found", "{seq}");
    }
    // Each answer says that it is nobody's to keep or to guess at.
    let answer = api.get("/v1/workspaces").await.expect(200);
    assert_eq!(
        (&answer.headers["cache-control"], &answer.headers["x-content-type-options"]),
        (&"no-store".parse().unwrap(), &"nosniff".parse().unwrap())
    );
    assert!(answer.headers.contains_key("x-request-id"));
}

#[tokio::test]
async fn ids_of_another_workspace_name_nothing_in_this_one() {
    let world = World::new().await;
    let (mine, theirs) = (world.workspace("mine").await, world.workspace("theirs").await);
    let receiver = Receiver::of(&world).await;
    let source = theirs.inbound("events").await;
    let destination = theirs.destination(&receiver, "hook", json!({})).await;
    source.event("an event").await;
    receiver.taken("hook", 1).await;
    let d = format!("/destinations/{}", destination.id);
    let gets = [
        format!("/sources/{}", source.id),
        d.clone(),
        format!("{d}/deliveries"),
        format!("{d}/deliveries/1"),
        format!("{d}/deliveries/1/receipt"),
    ];
    for rest in &gets {
        world.api.get(&theirs.at(rest)).await.expect(200);
        assert_eq!(world.api.get(&mine.at(rest)).await.problem(404), "not-found", "{rest}");
    }
    let redelivery = json!({ "from": 1, "to": 1 });
    for (method, rest, body) in [
        ("DELETE", format!("/sources/{}", source.id), json!({})),
        ("DELETE", d.clone(), json!({})),
        ("PATCH", d.clone(), json!({ "enabled": false })),
        ("POST", format!("{d}/test"), json!({})),
        ("POST", format!("{d}/rotate-secret"), json!({})),
        ("POST", format!("{d}/redeliver"), redelivery),
    ] {
        let answer = send(world.api.request(method, &mine.at(&rest)).json(&body)).await;
        assert_eq!(answer.problem(404), "not-found", "{method} {rest}");
    }
    assert_eq!(mine.entries().await.len(), 2, "and nothing of it is recorded");
    assert_eq!(destination.read().await["disabled_at"], Value::Null);
    source.event("still heard").await;
    let nowhere = "/v1/workspaces/ws_0199b1c4-0000-7000-8000-000000000001";
    for rest in [
        "",
        "/sources",
        "/destinations",
        "/subjects",
        "/keys",
        "/members",
        "/invitations",
        "/status",
        "/entries",
        "/entries/0",
        "/checkpoint",
        "/export",
        "/proofs/inclusion?seq=0",
        "/proofs/consistency?from=0",
    ] {
        assert_eq!(world.api.get(&format!("{nowhere}{rest}")).await.problem(404), "not-found", "{rest}");
    }
}

#[tokio::test]
async fn pages_of_entries_join_into_the_ledger_in_both_directions() {
    let world = World::new().await;
    let workspace = world.workspace("pages").await;
    let source = workspace.inbound("events").await;
    for n in 0..21 {
        source.event(format!("event {n}")).await;
    }
    for (query, expected) in [
        ("limit=5", (0..25).collect::<Vec<u64>>()),
        ("limit=5&reverse=true", (0..25).rev().collect()),
        ("limit=4&type=event.received", (4..25).collect()),
        ("limit=1000&type=source.created", vec![2]),
        ("limit=1&type=nothing.here", vec![]),
    ] {
        let (mut seqs, mut path) = (Vec::new(), workspace.at(&format!("/entries?{query}")));
        loop {
            let page = world.api.get(&path).await.expect(200).json();
            seqs.extend(page["items"].as_array().unwrap().iter().map(|e| e["seq"].as_u64().unwrap()));
            let Some(next) = page["next"].as_u64() else { break };
            path = workspace.at(&format!("/entries?{query}&from={next}"));
        }
        assert_eq!(seqs, expected, "{query}");
    }
}

#[tokio::test]
async fn the_instances_own_pages_say_how_it_is() {
    let world = World::new().await;
    let workspace = world.workspace("pages").await;
    workspace.inbound("events").await.event("an event").await;
    let open = |path: &str| send(world.api.bare("GET", path));
    assert_eq!(open("/healthz").await.expect(200).text(), "ok\n");
    assert_eq!(open("/readyz").await.expect(200).text(), "ready\n");
    let metrics = open("/metrics").await.expect(200);
    for name in ["statusledger_events_received_total", "statusledger_sweeps_total"] {
        let found = metrics.text().lines().any(|l| l.starts_with(name));
        assert!(found || name.contains("sweeps"), "{name} is not in {}", metrics.text());
    }
    for line in metrics.text().lines().filter(|l| !l.starts_with('#') && !l.is_empty()) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(name.starts_with("statusledger_"), "{line}");
        value.parse::<f64>().unwrap();
    }
}

#[tokio::test]
async fn a_node_whose_database_came_back_with_another_history_serves_nothing() {
    let mut world = World::new().await;
    let workspace = world.workspace("another").await;
    let source = workspace.inbound("events").await;
    source.event("an event").await;
    world.api.get(&workspace.at("/checkpoint")).await.expect(200);
    // The node is stopped, and started over a database in which the newest entry is gone.
    world.stop().await;
    let mut superuser = world.database.superuser().await;
    for statement in ["SET session_replication_role = replica", "DELETE FROM entries WHERE seq = 2"] {
        sqlx::query(statement).execute(&mut superuser).await.unwrap();
    }
    let refused = format!("{:#}", world.start().await.unwrap_err());
    assert!(refused.contains("does not hold the history that was signed"), "{refused}");
    let deaf = eventually("nobody listens", || async {
        crate::harness::try_send(world.api.bare("GET", "/readyz")).await.err()
    })
    .await;
    assert!(deaf.is_connect());
}
