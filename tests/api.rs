//! What holds for every route of the API: limits, idempotency keys, conditions, pages of lists, and the pages for people.

use crate::harness::{Answer, World, eventually, run, send, temporary};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// A header as text.
fn header<'a>(answer: &'a Answer, name: &str) -> &'a str {
    answer.headers.get(name).unwrap_or_else(|| panic!("{name} is missing")).to_str().unwrap()
}

#[tokio::test]
async fn a_key_that_asks_too_often_is_told_when_to_ask_again_and_no_other_is() {
    let world = World::with(|settings| {
        settings.api.requests_per_minute = 1;
        settings.api.burst = 5;
    })
    .await;
    // Before the limit of the administrator's key is used up.
    let workspace = world.workspace("limited").await;
    let source = workspace.inbound("events").await;
    let body = json!({ "name": "patient", "scopes": ["read"] });
    let made = world.api.post(&workspace.at("/keys"), body).await.expect(201).json();
    let patient = made["token"].as_str().unwrap().to_owned();
    let hasty = world.node().bootstrap_key().await.unwrap();
    let ask = |token: &str| send(world.api.bare("GET", &workspace.at("/sources")).bearer_auth(token));
    for remaining in (0..5).rev() {
        let answer = ask(&hasty).await.expect(200);
        assert_eq!(header(&answer, "ratelimit-policy"), "\"requests\";q=5;w=300");
        let expected = format!("\"requests\";r={remaining};t=");
        assert!(header(&answer, "ratelimit").starts_with(&expected), "{:?}", answer.headers);
    }
    let refused = ask(&hasty).await;
    assert_eq!(refused.problem(429), "too-many-requests");
    let wait: u64 = header(&refused, "retry-after").parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    assert!(header(&refused, "ratelimit").starts_with("\"requests\";r=0;t="));
    // Neither another key, nor who has none, nor a source is held back by it.
    ask(&patient).await.expect(200);
    for _ in 0..10 {
        send(world.api.bare("GET", &workspace.at("/sources"))).await.problem(401);
        source.event("an event").await;
    }
    assert_eq!(ask(&hasty).await.problem(429), "too-many-requests");
    eventually("both refusals are on the record", || async {
        let reasons: Vec<Option<i64>> = sqlx::query_scalar(
            "SELECT (entry::jsonb #>> '{data,details,count}')::bigint FROM entries
              WHERE type = 'audit.access.denied' AND entry::jsonb #>> '{data,reason}' = 'rate_limited'",
        )
        .fetch_all(&mut world.database.superuser().await)
        .await
        .unwrap();
        (reasons.into_iter().flatten().sum::<i64>() == 2).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_post_under_an_idempotency_key_happens_once() {
    let world = World::new().await;
    let workspace = world.workspace("once").await;
    let path = workspace.at("/keys");
    let post = |key: &str, body: &Value| {
        send(world.api.request("POST", &path).header("idempotency-key", key).json(body))
    };
    let body = json!({ "name": "made once", "scopes": ["read"] });
    let first = post("a", &body).await.expect(201);
    assert!(!first.headers.contains_key("idempotency-replayed"));
    let again = post("a", &body).await.expect(201);
    assert_eq!((&again.body, header(&again, "idempotency-replayed")), (&first.body, "true"));
    assert_eq!(header(&again, "content-type"), "application/json");
    // A refusal of what was asked is an answer too.
    let wrong = json!({ "name": "", "scopes": ["read"] });
    let (refused, repeated) = (post("b", &wrong).await, post("b", &wrong).await);
    assert_eq!(refused.problem(422), "invalid");
    assert_eq!(refused.body, repeated.body);
    // Another request under the key is refused: another body, another route.
    assert_eq!(post("a", &wrong).await.problem(409), "conflict");
    let elsewhere = world.api.request("POST", &workspace.at("/sources")).header("idempotency-key", "a");
    assert_eq!(send(elsewhere.json(&body)).await.problem(409), "conflict");
    // The key is one caller's: another's is another.
    let other =
        world.api.post(&path, json!({ "name": "other", "scopes": ["admin"] })).await.expect(201).json();
    let by_other = world.api.bare("POST", &path).bearer_auth(other["token"].as_str().unwrap());
    let theirs = send(by_other.header("idempotency-key", "a").json(&body)).await.expect(201);
    assert_ne!(theirs.body, first.body);
    // Whoever may not ask any more hears no answer of before.
    world.api.delete(&format!("{path}/{}", other["id"].as_str().unwrap())).await.expect(204);
    let by_other = world.api.bare("POST", &path).bearer_auth(other["token"].as_str().unwrap());
    send(by_other.header("idempotency-key", "a").json(&body)).await.problem(401);
    // What names no workspace is kept for the instance.
    let make = || world.api.request("POST", "/v1/workspaces").header("idempotency-key", "a");
    let made = send(make().json(&json!({ "name": "twice" }))).await.expect(201);
    assert_eq!(send(make().json(&json!({ "name": "twice" }))).await.expect(201).body, made.body);
    for wrong in ["", &"x".repeat(256)] {
        assert_eq!(post(wrong, &body).await.problem(400), "bad-request");
    }
    let listed = world.api.get(&path).await.expect(200).json();
    let named = listed["items"].as_array().unwrap().iter().filter(|k| k["name"] == "made once").count();
    assert_eq!(named, 2);
    // What is kept of the answer is sealed: it shows a key's text.
    let secret = first.json()["token"].as_str().unwrap().to_owned();
    let kept: Vec<Vec<u8>> = sqlx::query_scalar("SELECT answer FROM request_keys WHERE answer IS NOT NULL")
        .fetch_all(&mut world.database.superuser().await)
        .await
        .unwrap();
    assert!(kept.len() >= 4);
    assert!(kept.iter().all(|a| !String::from_utf8_lossy(a).contains(&secret[..40])));
    world.assert_whole(&[&workspace]).await;
}

#[tokio::test]
async fn of_many_at_once_under_one_key_one_is_carried_out() {
    let world = World::new().await;
    let workspace = world.workspace("at once").await;
    let (other, api) = world.another().await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..24 {
        let api = if n % 2 == 0 { world.api.clone() } else { api.clone() };
        let path = workspace.at("/keys");
        tasks.spawn(async move {
            let body = json!({ "name": "one of many", "scopes": ["read"] });
            send(api.request("POST", &path).header("idempotency-key", "k").json(&body)).await
        });
    }
    let mut made = BTreeSet::new();
    for answer in tasks.join_all().await {
        if answer.status == 409 {
            assert_eq!((answer.problem(409).as_str(), header(&answer, "retry-after")), ("in-progress", "1"));
        } else {
            made.insert(answer.expect(201).body);
        }
    }
    assert_eq!(made.len(), 1);
    let listed = world.api.get(&workspace.at("/keys")).await.expect(200).json();
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    other.stop().await;
}

#[tokio::test]
async fn a_node_that_dies_over_a_request_does_not_lock_its_key_for_ever() {
    let world = World::new().await;
    let workspace = world.workspace("dead").await;
    let post = || {
        let body = json!({ "name": "made", "scopes": ["read"] });
        send(world.api.request("POST", &workspace.at("/keys")).header("idempotency-key", "k").json(&body))
    };
    post().await.expect(201);
    // As a node leaves it that dies before it has changed anything.
    let mut superuser = world.database.superuser().await;
    sqlx::query(
        "UPDATE request_keys SET status = NULL, answer = NULL, carried_out = false,
                expires_at = now() + interval '1 minute'",
    )
    .execute(&mut superuser)
    .await
    .unwrap();
    assert_eq!(post().await.problem(409), "in-progress");
    // Its lease is over.
    sqlx::query("UPDATE request_keys SET expires_at = now()").execute(&mut superuser).await.unwrap();
    post().await.expect(201);
    post().await.expect(201);
    let listed = world.api.get(&workspace.at("/keys")).await.expect(200).json();
    assert_eq!(listed["items"].as_array().unwrap().len(), 2);
    // And a failure of ours frees it at once: the append is refused by the database, then not any more.
    sqlx::query("DELETE FROM request_keys").execute(&mut superuser).await.unwrap();
    for statement in [
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not now'; END $$",
        "CREATE TRIGGER fail BEFORE INSERT ON api_keys FOR EACH ROW EXECUTE FUNCTION fail()",
    ] {
        sqlx::query(statement).execute(&mut superuser).await.unwrap();
    }
    assert_eq!(post().await.problem(500), "internal");
    sqlx::query("DROP TRIGGER fail ON api_keys").execute(&mut superuser).await.unwrap();
    post().await.expect(201);
}

#[tokio::test]
async fn what_has_not_changed_is_not_sent_and_what_has_is_not_overwritten_unseen() {
    let world = World::new().await;
    let workspace = world.workspace("tagged").await;
    let receiver = crate::harness::Receiver::of(&world).await;
    let destination = workspace.destination(&receiver, "hook", json!({})).await;
    let paths = [&*workspace.path, &workspace.at("/destinations"), &workspace.at("/entries/0")];
    for path in paths {
        let read = world.api.get(path).await.expect(200);
        let tag = header(&read, "etag").to_owned();
        assert!(tag.starts_with('"') && tag.len() > 20);
        for same in [tag.clone(), format!("W/{tag}"), format!("\"x\", {tag}"), "*".into()] {
            let unchanged = send(world.api.request("GET", path).header("if-none-match", &same)).await;
            assert_eq!((unchanged.status, unchanged.body.len()), (304, 0), "{path} {same}");
            assert_eq!(header(&unchanged, "etag"), tag);
        }
        send(world.api.request("GET", path).header("if-none-match", "\"x\"")).await.expect(200);
    }
    let tag = |answer: &Answer| header(answer, "etag").to_owned();
    let change = |tag: String, name: &str| {
        let request = world.api.request("PATCH", &destination.path).header("if-match", tag);
        send(request.json(&json!({ "name": name })))
    };
    let before = tag(&world.api.get(&destination.path).await);
    change(before.clone(), "first").await.expect(200);
    assert_eq!(change(before.clone(), "second").await.problem(412), "precondition-failed");
    assert_eq!(change("\"x\"".into(), "second").await.problem(412), "precondition-failed");
    assert_eq!(destination.read().await["name"], "first");
    change("*".into(), "third").await.expect(200);
    // Of many who decided on the same state, one wins.
    let now = tag(&world.api.get(&destination.path).await);
    let answers =
        futures_util::future::join_all((0..8).map(|n| change(now.clone(), ["a", "b"][n % 2]))).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 1);
    assert!(answers.iter().all(|answer| [200, 412].contains(&answer.status)));
    // Whoever may not is told that, whatever the condition.
    let request = world.api.bare("DELETE", &destination.path).header("if-match", "\"x\"");
    assert_eq!(send(request).await.problem(401), "unauthorized");
    let request =
        world.api.request("DELETE", &workspace.at("/destinations/ep_0199b1c4-0000-7000-8000-000000000001"));
    assert_eq!(send(request.header("if-match", "\"x\"")).await.problem(404), "not-found");
    let request = world.api.request("DELETE", &destination.path).header("if-match", &now);
    assert_eq!(send(request).await.problem(412), "precondition-failed");
    let now = tag(&world.api.get(&destination.path).await);
    send(world.api.request("DELETE", &destination.path).header("if-match", now)).await.expect(204);
}

#[tokio::test]
async fn pages_of_every_list_join_into_the_list() {
    let world = World::new().await;
    let workspace = world.workspace("paged").await;
    let receiver = crate::harness::Receiver::of(&world).await;
    for n in 0..5 {
        workspace.inbound(&format!("source {n}")).await;
        workspace.destination(&receiver, &format!("d{n}"), json!({})).await;
        world.workspace(&format!("workspace {n}")).await;
        for (path, body) in [
            ("/keys", json!({ "name": n.to_string(), "scopes": ["read"] })),
            ("/invitations", json!({ "email": format!("{n}@example.com"), "role": "viewer" })),
        ] {
            world.api.post(&workspace.at(path), body).await.expect(201);
        }
        let role = statusledger::access::scope::Role::Viewer;
        world.person(&format!("{n}@example.com"), &[(workspace.id, role)]).await;
    }
    sqlx::query(
        "INSERT INTO subjects SELECT $1, source_id, 'build', k::text, 'a', '{}', 's', now(), now(), now(), 1
           FROM sources, generate_series(1, 2) k WHERE workspace_id = $1",
    )
    .bind(workspace.id.uuid())
    .execute(&mut world.database.superuser().await)
    .await
    .unwrap();
    let lists = ["/keys", "/members", "/invitations", "/sources", "/destinations", "/subjects"];
    let paths = lists.iter().map(|list| workspace.at(list)).chain(["/v1/workspaces".to_owned()]);
    for path in paths {
        let whole = world.api.get(&path).await.expect(200).json();
        assert_eq!(whole.get("next"), None);
        let whole = whole["items"].as_array().unwrap().clone();
        assert!(whole.len() >= 5, "{path}");
        for limit in [1, 2, whole.len() - 1, whole.len(), whole.len() + 1] {
            let (mut items, mut cursor) = (Vec::new(), String::new());
            loop {
                let page = world.api.get(&format!("{path}?limit={limit}{cursor}")).await.expect(200).json();
                let page_items = page["items"].as_array().unwrap();
                assert!(page_items.len() <= limit && !page_items.is_empty());
                items.extend(page_items.iter().cloned());
                let Some(next) = page["next"].as_str() else { break };
                cursor = format!("&cursor={next}");
            }
            assert_eq!(items, whole, "{path} by {limit}");
        }
        for wrong in ["limit=0", "limit=1001", "cursor=x", "cursor=", "cursor=W10", "other=1"] {
            assert_eq!(
                world.api.get(&format!("{path}?{wrong}")).await.problem(400),
                "bad-request",
                "{wrong}"
            );
        }
    }
}

#[tokio::test]
async fn the_program_explains_its_api_and_its_problems_to_people() {
    let world = World::with(|settings| settings.public_url = Some("https://status.example.com".into())).await;
    let docs = send(world.api.bare("GET", "/docs")).await.expect(200);
    let document = world.api.get("/openapi.json").await.expect(200).json();
    for path in document["paths"].as_object().unwrap().keys() {
        assert!(docs.text().contains(path.as_str()), "{path}");
    }
    let policy = header(&docs, "content-security-policy");
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    // Nothing is fetched from elsewhere, and nothing runs.
    for foreign in ["<script", "src=", "style=", "onclick"] {
        assert!(!docs.text().contains(foreign), "{foreign}");
    }
    assert_eq!(docs.text().matches("href=\"").count(), docs.text().matches("href=\"/").count());
    send(world.api.bare("GET", "/docs/style.css")).await.expect(200);
    // Whoever opens the address finds where everything is.
    let root = send(world.api.bare("GET", "/")).await.expect(200);
    assert!(header(&root, "content-type").starts_with("text/html"));
    for link in
        ["/docs", "/openapi.json", "/.well-known/statusledger-keys.json", "/sign-in", "/account", "/readyz"]
    {
        assert!(root.text().contains(&format!("href=\"{link}\"")), "{link}");
    }
    // The files that it names are there.
    let named = document.to_string();
    for file in named.split("docs/").skip(1).filter_map(|rest| Some(rest.split_once(".md")?.0)) {
        let path = format!("{}/docs/{file}.md", env!("CARGO_MANIFEST_DIR"));
        assert!(std::path::Path::new(&path).exists(), "{path}");
    }
    assert!(named.contains("docs/receipt.md") && !named.contains("formats.md"));
    // Where a problem's type leads there is a page.
    let refused = send(world.api.bare("GET", "/v1/workspaces")).await;
    refused.problem(401);
    let kind = refused.json()["type"].as_str().unwrap().to_owned();
    assert_eq!(kind, "https://status.example.com/problems/unauthorized");
    let page = kind.replace("https://status.example.com", "");
    let page = send(world.api.bare("GET", &page)).await.expect(200);
    assert!(page.text().contains("unauthorized") && header(&page, "content-type").starts_with("text/html"));
    let all = send(world.api.bare("GET", "/problems/")).await.expect(200);
    for link in all.text().split("href=\"").skip(1).filter_map(|rest| rest.split('"').next()) {
        send(world.api.bare("GET", link)).await.expect(200);
    }
    assert_eq!(send(world.api.bare("GET", "/problems/none")).await.problem(404), "not-found");
}

#[tokio::test]
async fn limits_that_are_none_are_refused_at_the_start() {
    for setting in ["REQUESTS_PER_MINUTE", "BURST"] {
        let name = format!("STATUSLEDGER_API__{setting}");
        let output = run(&temporary("limits"), &["up", "--data-dir", "."], &[(&name, "0")]).await;
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("requests_per_minute"), "{output:?}");
    }
}
