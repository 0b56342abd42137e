//! How far somebody's own reach goes, and no further: keys made by keys, destinations, members and invitations; and what
//! numbers, times and names may be.

use crate::harness::{Person, Receiver, Workspace, World, send};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use statusledger::access::people::{self, Profile};
use statusledger::access::scope::Role;
use statusledger::access::session;
use statusledger::id::UserId;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

/// A request within a workspace with a key.
fn with(workspace: &Workspace, token: &str, method: &str, rest: &str) -> reqwest::RequestBuilder {
    workspace.api.bare(method, &workspace.at(rest)).bearer_auth(token)
}

/// The same in a session.
fn by(workspace: &Workspace, person: &Person, method: &str, rest: &str) -> reqwest::RequestBuilder {
    let request = workspace.api.bare(method, &workspace.at(rest)).header("cookie", &person.cookie);
    request.header("x-csrf-token", &person.csrf)
}

async fn key(workspace: &Workspace, scopes: &[&str]) -> String {
    let body = json!({ "name": "reaches", "scopes": scopes });
    let made = workspace.api.post(&workspace.at("/keys"), body).await.expect(201).json();
    made["token"].as_str().unwrap().to_owned()
}

fn time_of(value: &Value) -> OffsetDateTime {
    OffsetDateTime::parse(value.as_str().unwrap(), &Rfc3339).unwrap()
}

#[tokio::test]
async fn a_key_that_ends_makes_none_that_lasts_longer_and_does_not_lengthen_itself() {
    let world = World::new().await;
    let workspace = world.workspace("ending").await;
    let at = |time: OffsetDateTime| json!(time.format(&Rfc3339).unwrap());
    let end = OffsetDateTime::now_utc().replace_nanosecond(0).unwrap() + Duration::hours(1);
    let body = json!({ "name": "maker", "scopes": ["admin"], "expires_at": at(end) });
    let maker = world.api.post(&workspace.at("/keys"), body).await.expect(201).json();
    let (id, token) = (maker["id"].as_str().unwrap(), maker["token"].as_str().unwrap());
    let make = |token: &str, expires_at: Value| {
        let body = json!({ "name": "made", "scopes": ["admin"], "expires_at": expires_at });
        send(with(&workspace, token, "POST", "/keys").json(&body))
    };
    assert_eq!(make(token, at(end + Duration::seconds(1))).await.problem(403), "scope");
    let unsaid = make(token, Value::Null).await.expect(201).json();
    assert_eq!(time_of(&unsaid["expires_at"]), end, "where nothing is said it ends with its maker");
    let sooner = make(token, at(end - Duration::minutes(1))).await.expect(201).json();
    assert_eq!(time_of(&sooner["expires_at"]), end - Duration::minutes(1));
    // The same moment said elsewhere in the world.
    let elsewhere = end.to_offset(time::UtcOffset::from_hms(5, 30, 0).unwrap());
    assert_eq!(time_of(&make(token, at(elsewhere)).await.expect(201).json()["expires_at"]), end);
    // Neither itself nor another is lengthened by it, however often it is replaced; nor one without an end.
    let rotate = |token: &str, id: &str| {
        send(with(&workspace, token, "POST", &format!("/keys/{id}/rotate")).json(&json!({})))
    };
    let forever = make(&world.api.token, Value::Null).await.expect(201).json();
    assert_eq!(forever["expires_at"], Value::Null);
    for id in [forever["id"].as_str().unwrap(), sooner["id"].as_str().unwrap()] {
        let rotated = rotate(token, id).await.expect(201).json();
        assert!(time_of(&rotated["expires_at"]) <= end, "{rotated}");
    }
    let (mut id, mut token) = (id.to_owned(), token.to_owned());
    for _ in 0..3 {
        let rotated = rotate(&token, &id).await.expect(201).json();
        assert_eq!(time_of(&rotated["expires_at"]), end);
        (id, token) =
            (rotated["id"].as_str().unwrap().to_owned(), rotated["token"].as_str().unwrap().to_owned());
    }
    // Whoever does not end gives it another life of the same length.
    let rotated = rotate(&world.api.token, &id).await.expect(201).json();
    assert!(time_of(&rotated["expires_at"]) <= OffsetDateTime::now_utc() + Duration::hours(1));
    world.assert_whole(&[&workspace]).await;
}

#[tokio::test]
async fn no_time_and_no_number_makes_the_service_fail() {
    let world = World::new().await;
    let workspace = world.workspace("numbers").await;
    let receiver = Receiver::of(&world).await;
    let destination = workspace.destination(&receiver, "hook", json!({})).await;
    let soon = (OffsetDateTime::now_utc() + Duration::days(3650)).format(&Rfc3339).unwrap();
    let make = async |at: &str| {
        let body = json!({ "name": "k", "scopes": ["read"], "expires_at": at });
        world.api.post(&workspace.at("/keys"), body).await
    };
    make(&soon).await.expect(201);
    for at in [
        "9999-12-31T23:59:59-23:59",
        "9999-12-31T23:59:59Z",
        "9999-12-31T23:59:59+23:59",
        "0000-01-01T00:00:00+23:59",
        "0000-01-01T00:00:00Z",
        "2100-01-01T00:00:00Z",
        "-0001-01-01T00:00:00Z",
    ] {
        assert_eq!(make(at).await.problem(422), "invalid", "{at}");
    }
    // One that was made when more was allowed is replaced by one that is not so long.
    let old = make(&soon).await.expect(201).json()["id"].as_str().unwrap().to_owned();
    sqlx::query("UPDATE api_keys SET expires_at = '9999-12-31T23:59:59Z' WHERE key_id = $1")
        .bind(old.parse::<statusledger::id::KeyId>().unwrap().uuid())
        .execute(&mut world.database.superuser().await)
        .await
        .unwrap();
    let rotate = workspace.at(&format!("/keys/{old}/rotate"));
    for overlap in [i64::MIN, -1, 2_592_001, i64::MAX] {
        assert_eq!(world.api.post(&rotate, json!({ "overlap_s": overlap })).await.problem(422), "invalid");
    }
    let rotated = world.api.post(&rotate, json!({ "overlap_s": 2_592_000 })).await.expect(201).json();
    assert!(time_of(&rotated["expires_at"]) < OffsetDateTime::now_utc() + Duration::days(3654));
    // Cursors of times that no clock shows, and that the database's calendar has or has not.
    let nil = uuid::Uuid::nil();
    for micros in [i64::MIN, -377_705_116_800_000_000, -210_866_803_200_000_001, -1, 1 << 58, i64::MAX] {
        let cursor = URL_SAFE_NO_PAD.encode(json!([micros, nil]).to_string());
        let lists = ["/keys", "/members", "/invitations", "/sources", "/destinations"];
        for list in lists.iter().map(|list| workspace.at(list)).chain(["/v1/workspaces".to_owned()]) {
            let answer = world.api.get(&format!("{list}?cursor={cursor}")).await;
            assert_eq!(answer.status, 200, "{list} {micros}: {}", answer.text());
        }
    }
    // Everything else that takes a number or a time.
    let far = ["9999-12-31T23:59:59-23:59", "9999-12-31T23:59:59%2B23:59", "0000-01-01T00:00:00%2B23:59"];
    let numbers = [i64::MIN.to_string(), "-1".into(), "0".into(), i64::MAX.to_string(), u64::MAX.to_string()];
    let d = format!("/destinations/{}", destination.id);
    let mut paths = Vec::new();
    for at in far {
        for name in ["since", "until"] {
            paths.push(format!("/audit?{name}={at}"));
            paths.push(format!("/audit/export?format=csv&{name}={at}"));
        }
    }
    for n in &numbers {
        for path in [
            "/audit?before=",
            "/audit?limit=",
            "/entries/",
            "/entries?from=",
            "/entries?reverse=true&from=",
            "/entries?type=event.*&from=",
            "/entries?type=event.*&reverse=true&from=",
            "/entries?limit=",
            "/entries?wait=",
            "/proofs/inclusion?seq=",
            "/proofs/inclusion?seq=0&size=",
            "/proofs/consistency?from=",
            "/proofs/consistency?from=0&to=",
            "/checkpoint?size=",
            "/export?from=",
            "/export?to=",
        ] {
            paths.push(format!("{path}{n}"));
        }
        for path in ["?from=", "?limit=", "/", "/receipt/"] {
            match path {
                "/receipt/" => paths.push(format!("{d}/deliveries/{n}/receipt")),
                path => paths.push(format!("{d}/deliveries{path}{n}")),
            }
        }
    }
    for path in &paths {
        let answer = world.api.get(&workspace.at(path)).await;
        assert!(answer.status < 500, "{path}: {}", answer.text());
    }
    for from in &numbers {
        for to in &numbers {
            let body = format!(r#"{{"from":{from},"to":{to}}}"#);
            let request = world.api.request("POST", &workspace.at(&format!("{d}/redeliver")));
            let answer = send(request.header("content-type", "application/json").body(body.clone())).await;
            assert!(answer.status < 500, "{body}: {}", answer.text());
        }
        let body = format!(r#"{{"max_in_flight":{from}}}"#);
        let request = world.api.request("PATCH", &destination.path);
        let answer = send(request.header("content-type", "application/json").body(body)).await;
        assert_eq!(answer.problem(422), "invalid");
    }
    world.assert_whole(&[&workspace]).await;
}

#[tokio::test]
async fn a_destination_hears_no_more_than_whoever_makes_or_changes_it_may_read() {
    let world = World::new().await;
    let workspace = world.workspace("heard").await;
    let receiver = Receiver::of(&world).await;
    let url = receiver.url("theirs");
    let made = std::cell::Cell::new(0);
    let make = |token: &str, more: Value| {
        made.set(made.get() + 1);
        let mut body = json!({ "name": format!("d{}", made.get()), "url": url });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        send(with(&workspace, token, "POST", "/destinations").json(&body))
    };
    let audit = json!({ "filter": { "types": ["audit.*", "event.*"] }, "openings": false });
    let one = json!({ "filter": { "types": ["store.*", "audit.key.created"] }, "openings": false });
    for (scopes, plain, audited, opened) in [
        (&["destinations:write"][..], 403, 403, 403),
        (&["destinations:write", "ledger:read"], 201, 403, 403),
        (&["audit:read", "destinations:write"], 403, 403, 403),
        (&["audit:read", "destinations:write", "ledger:read"], 201, 201, 403),
        (&["destinations:write", "ledger:export"], 201, 403, 201),
        (&["write"], 201, 403, 403),
        (&["admin"], 201, 201, 201),
    ] {
        let token = key(&workspace, scopes).await;
        assert_eq!(make(&token, json!({ "openings": false })).await.status, plain, "{scopes:?}");
        for audit in [&audit, &one] {
            let answer = make(&token, audit.clone()).await;
            assert_eq!(answer.status, audited, "{scopes:?}");
            if audited == 403 {
                assert_eq!(answer.problem(403), "scope");
            }
        }
        assert_eq!(make(&token, json!({ "openings": true })).await.status, opened, "{scopes:?}");
        // Where nothing is said it is what they may.
        let unsaid = make(&token, json!({})).await;
        assert_eq!(unsaid.status, plain, "{scopes:?}");
        if plain == 201 {
            assert_eq!(unsaid.json()["openings"], opened == 201, "{scopes:?}");
        }
    }
    let member = world.person("member@example.com", &[(workspace.id, Role::Member)]).await;
    let body = json!({ "name": "d", "url": url, "openings": true });
    let refused = send(by(&workspace, &member, "POST", "/destinations").json(&body)).await;
    assert_eq!(refused.problem(403), "role");
    // What somebody else has made is not led to oneself, nor widened; everything else may be changed.
    let made = make(&world.api.token, json!({ "filter": { "types": ["audit.*"] } })).await.expect(201).json();
    assert_eq!(made["openings"], true);
    let path = format!("/destinations/{}", made["id"].as_str().unwrap());
    let write = key(&workspace, &["write"]).await;
    let change = |token: &str, body: Value| send(with(&workspace, token, "PATCH", &path).json(&body));
    let elsewhere = receiver.url("elsewhere");
    for body in [
        json!({ "url": elsewhere }),
        json!({ "url": elsewhere, "openings": false }),
        json!({ "url": elsewhere, "filter": {} }),
        json!({ "filter": { "types": ["audit.*", "event.*"] } }),
    ] {
        assert_eq!(change(&write, body.clone()).await.problem(403), "scope", "{body}");
    }
    for body in [
        json!({ "name": "renamed" }),
        json!({ "enabled": false }),
        json!({ "enabled": true, "url": url, "openings": true, "filter": { "types": ["audit.*"] } }),
        json!({ "openings": false }),
    ] {
        assert_eq!(change(&write, body.clone()).await.status, 200, "{body}");
    }
    assert_eq!(change(&write, json!({ "openings": true })).await.problem(403), "scope");
    // Once nothing is on its way that it may not read.
    crate::harness::eventually("what it may not read is settled", || async {
        // Not by trying: each refusal is one more entry that it hears.
        let deliveries = world.api.get(&workspace.at(&format!("{path}/deliveries"))).await.expect(200).json();
        if deliveries["items"].as_array().unwrap().iter().any(|d| d["settled_at"].is_null()) {
            return None;
        }
        let body = json!({ "url": elsewhere, "filter": { "types": ["store.*"] } });
        (change(&write, body).await.status == 200).then_some(())
    })
    .await;
    change(&key(&workspace, &["admin"]).await, json!({ "openings": true })).await.expect(200);
}

#[tokio::test]
async fn members_go_by_themselves_and_only_as_far_as_one_reaches() {
    let world = World::new().await;
    let workspace = world.workspace("members").await;
    let person = |name: &str, role: Role| {
        let (world, email, id) = (&world, format!("{name}@example.com"), workspace.id);
        async move { world.person(&email, &[(id, role)]).await }
    };
    let owner = person("owner", Role::Owner).await;
    let admin = person("admin", Role::Admin).await;
    let (viewer, other) = (person("viewer", Role::Viewer).await, person("other", Role::Viewer).await);
    let auditor = person("auditor", Role::Auditor).await;
    let at = |person: &Person| format!("/members/{}", person.id);
    // Whoever may not change members removes nobody, not even themselves; anybody leaves.
    for (who, whom) in [(&viewer, &other), (&viewer, &owner), (&auditor, &viewer), (&viewer, &viewer)] {
        let refused = send(by(&workspace, who, "DELETE", &at(whom))).await;
        assert_eq!(refused.problem(403), "role");
    }
    let leave = "/membership";
    for who in [&viewer, &auditor] {
        let bare = workspace.api.bare("DELETE", &workspace.at(leave)).header("cookie", &who.cookie);
        assert_eq!(send(bare).await.problem(403), "csrf");
        send(by(&workspace, who, "DELETE", leave)).await.expect(200);
        assert_eq!(send(by(&workspace, who, "GET", "")).await.problem(404), "not-found");
        assert_eq!(send(by(&workspace, who, "DELETE", leave)).await.problem(404), "not-found");
    }
    for way in [leave, &at(&owner)] {
        assert_eq!(send(by(&workspace, &owner, "DELETE", way)).await.problem(409), "conflict", "{way}");
    }
    // Nobody changes their own role by the same way.
    let up = by(&workspace, &other, "PATCH", &at(&other)).json(&json!({ "role": "admin" }));
    assert_eq!(send(up).await.problem(403), "role");
    // A scope that changes members reaches as far as the scopes beside it.
    let invite = |token: &str, role: &str| {
        let body = json!({ "email": "new@example.com", "role": role });
        send(with(&workspace, token, "POST", "/invitations").json(&body))
    };
    let narrow = key(&workspace, &["members:write"]).await;
    let wider = key(&workspace, &["members:write", "read"]).await;
    assert_eq!(invite(&narrow, "viewer").await.problem(403), "role");
    let invited = invite(&wider, "viewer").await.expect(201).json();
    assert_eq!(invite(&wider, "member").await.problem(403), "role");
    assert_eq!(send(with(&workspace, &narrow, "DELETE", &at(&other))).await.problem(403), "role");
    send(with(&workspace, &wider, "DELETE", &at(&other))).await.expect(200);
    // An invitation to more than one's own role is not one's own to withdraw.
    let body = json!({ "email": "second@example.com", "role": "owner" });
    let owners = send(by(&workspace, &owner, "POST", "/invitations").json(&body)).await.expect(201).json();
    let of = |invited: &Value| format!("/invitations/{}", invited["id"].as_str().unwrap());
    assert_eq!(send(by(&workspace, &admin, "DELETE", &of(&owners))).await.problem(403), "role");
    assert_eq!(send(with(&workspace, &wider, "DELETE", &of(&owners))).await.problem(403), "role");
    assert_eq!(send(with(&workspace, &narrow, "DELETE", &of(&invited))).await.problem(403), "role");
    let open = world.api.get(&workspace.at("/invitations")).await.expect(200).json();
    assert!(open["items"].as_array().unwrap().iter().all(|item| item["revoked_at"].is_null()), "{open}");
    // Nor to replace by a lesser one.
    let lesser = json!({ "email": "second@example.com", "role": "viewer" });
    assert_eq!(send(by(&workspace, &admin, "POST", "/invitations").json(&lesser)).await.problem(403), "role");
    let open = world.api.get(&workspace.at("/invitations")).await.expect(200).json();
    assert!(open["items"].as_array().unwrap().iter().all(|item| item["revoked_at"].is_null()), "{open}");
    send(with(&workspace, &wider, "DELETE", &of(&invited))).await.expect(204);
    send(by(&workspace, &owner, "DELETE", &of(&owners))).await.expect(204);
    let left = workspace.entries_of("audit.member.removed").await;
    assert_eq!(left.len(), 3);
    assert_eq!(left[0]["data"]["actor"]["id"], viewer.id.to_string());
    world.assert_whole(&[&workspace]).await;
}

#[tokio::test]
async fn names_can_be_seen_and_are_read_as_they_stand() {
    let world = World::new().await;
    let workspace = world.workspace("names").await;
    let receiver = Receiver::of(&world).await;
    let destination = workspace.destination(&receiver, "hook", json!({})).await;
    let post = async |path: &str, body: Value| {
        let path = if path.is_empty() { "/v1/workspaces".to_owned() } else { workspace.at(path) };
        world.api.post(&path, body).await
    };
    for name in [
        "",
        " ",
        "\u{a0}\u{3000}",
        "a\u{202e}b",
        "\u{feff}a",
        "a\u{200b}",
        "a\u{2066}b",
        "a\u{1b}[1m",
        "\u{200d}",
    ] {
        for (path, mut body) in [
            ("", json!({})),
            ("/sources", json!({ "kind": "inbound" })),
            ("/destinations", json!({ "url": receiver.url("x") })),
            ("/keys", json!({ "scopes": ["read"] })),
        ] {
            body["name"] = json!(name);
            assert_eq!(post(path, body).await.problem(422), "invalid", "{path} {name:?}");
        }
        for path in [&workspace.path, &destination.path] {
            let answer = world.api.patch(path, json!({ "name": name })).await;
            assert_eq!(answer.problem(422), "invalid", "{path} {name:?}");
        }
    }
    let good = "Käse \u{1f469}\u{200d}\u{1f4bb} 天気";
    post("", json!({ "name": good })).await.expect(201);
    post("/sources", json!({ "kind": "inbound", "name": good })).await.expect(201);
    // What an identity provider calls somebody is shown as far as it can be.
    let node = world.node();
    let (gate, user) = (&node.gate, UserId::new());
    let said = Profile {
        email: Some("ana@example.com".into()),
        name: Some(format!("\u{202e}\u{1b}[31mAna\u{0}{}", "a".repeat(400_000))),
    };
    let mut tx = session::person(&gate.database, user).await.unwrap();
    let data_keys = node.writer.data_keys();
    people::insert(&mut tx, &gate.secret, data_keys, gate.instance, user, &said).await.unwrap();
    tx.commit().await.unwrap();
    world.join(workspace.id, user, Role::Viewer).await;
    let members = world.api.get(&workspace.at("/members")).await.expect(200);
    assert!(members.body.len() < 1000);
    let shown = members.json()["items"][0]["name"].as_str().unwrap().to_owned();
    assert!(shown.starts_with("[31mAnaaa") && shown.len() == 100, "{shown}");
}

#[tokio::test]
async fn a_key_does_no_more_than_the_present_role_of_whoever_made_it() {
    let world = World::new().await;
    let workspace = world.workspace("demoted").await;
    let person = world.person_of("demoted", workspace.id, Role::Owner).await;
    world.person_of("another", workspace.id, Role::Owner).await;
    let made = |scope: &str| {
        let body = json!({ "name": scope, "scopes": [scope] });
        send(by(&workspace, &person, "POST", "/keys").json(&body))
    };
    let token = |made: &Value| made["token"].as_str().unwrap().to_owned();
    let admin = made("admin").await.expect(201).json();
    let (reads, admin_id) = (token(&made("read").await.expect(201).json()), admin["id"].clone());
    let admin = token(&admin);
    let member = format!("/members/{}", person.id);
    let back = |role: &str| with(&workspace, &admin, "PATCH", &member).json(&json!({ "role": role }));
    let status = async |token: &str, rest: &str| send(with(&workspace, token, "GET", rest)).await.status;
    send(back("owner")).await.expect(204);

    for (role, sees_keys) in [("admin", 200), ("auditor", 200), ("member", 403), ("viewer", 403)] {
        world.api.patch(&workspace.at(&member), json!({ "role": role })).await.expect(204);
        let kind = send(back("owner")).await.problem(403);
        assert!(["role", "scope"].contains(&kind.as_str()), "{kind}");
        assert_eq!(status(&admin, "/keys").await, sees_keys, "{role}");
        assert_eq!(
            (status(&admin, "/sources").await, status(&reads, "/sources").await),
            (200, 200),
            "{role}"
        );
        // Nor do others make more of it.
        let rotate = format!("/keys/{}/rotate", admin_id.as_str().unwrap());
        send(with(&workspace, &admin, "POST", &rotate).json(&json!({}))).await.problem(403);
    }
    // Removed, and back with less.
    world.api.delete(&workspace.at(&member)).await.expect(200);
    assert_eq!(send(back("owner")).await.problem(401), "unauthorized");
    world.join(workspace.id, person.id, Role::Viewer).await;
    assert_eq!(send(back("owner")).await.problem(403), "role");
    assert_eq!((status(&admin, "/sources").await, status(&admin, "/members").await), (200, 403));
    crate::harness::eventually("the refusal in the workspace's ledger", || async {
        let denied = workspace.entries_of("audit.access.denied").await;
        let mut data = denied.iter().map(|entry| &entry["data"]);
        data.any(|data| data["reason"] == "role" && data["actor"]["id"] == admin_id).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_key_of_the_instances_workspace_that_is_not_the_instances_makes_nobody_its_administrator() {
    let world = World::new().await;
    let own = world.node().gate.instance;
    let workspace =
        Workspace { id: own, path: format!("/v1/workspaces/{own}"), ..world.workspace("other").await };
    let narrow = key(&workspace, &["admin"]).await;
    let viewer = world.person_of("viewer", own, Role::Viewer).await;
    let owner = world.person_of("owner", own, Role::Owner).await;
    for role in ["owner", "admin", "auditor"] {
        let invite = json!({ "email": "new@example.com", "role": role });
        let invite = send(with(&workspace, &narrow, "POST", "/invitations").json(&invite)).await;
        assert_eq!(invite.problem(403), "role", "{role}");
        let give = with(&workspace, &narrow, "PATCH", &format!("/members/{}", viewer.id));
        assert_eq!(send(give.json(&json!({ "role": role }))).await.problem(403), "role", "{role}");
    }
    let remove = send(with(&workspace, &narrow, "DELETE", &format!("/members/{}", owner.id))).await;
    assert_eq!(remove.problem(403), "role");
    // What it has it gives: keys like itself, roles that do not reach the instance.
    let like_itself = json!({ "name": "like itself", "scopes": ["admin"] });
    let made = send(with(&workspace, &narrow, "POST", "/keys").json(&like_itself)).await.expect(201).json();
    let rotate = format!("/keys/{}/rotate", made["id"].as_str().unwrap());
    send(with(&workspace, &narrow, "POST", &rotate).json(&json!({}))).await.expect(201);
    let member = json!({ "email": "new@example.com", "role": "member" });
    send(with(&workspace, &narrow, "POST", "/invitations").json(&member)).await.expect(201);
    // Elsewhere an administrator's key invites administrators as before.
    let elsewhere = world.workspace("elsewhere").await;
    let admin = key(&elsewhere, &["admin"]).await;
    let owner = json!({ "email": "new@example.com", "role": "owner" });
    send(with(&elsewhere, &admin, "POST", "/invitations").json(&owner)).await.expect(201);
}

/// Accepts an invitation in a session.
async fn accept(workspace: &Workspace, person: &Person, token: &Value) -> crate::harness::Answer {
    let request = workspace.api.bare("POST", "/v1/invitations/accept").header("cookie", &person.cookie);
    send(request.header("x-csrf-token", &person.csrf).json(&json!({ "token": token }))).await
}

#[tokio::test]
async fn an_invitation_lasts_no_longer_than_the_key_that_made_it() {
    let world = World::new().await;
    let workspace = world.workspace("invited").await;
    let guest = world.person("guest@example.com", &[]).await;
    let end = OffsetDateTime::now_utc().replace_nanosecond(0).unwrap() + Duration::hours(1);
    let admin = async |workspace: &Workspace, more: Value| -> (String, String) {
        let mut body = json!({ "name": "inviting", "scopes": ["admin"] });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let made = workspace.api.post(&workspace.at("/keys"), body).await.expect(201).json();
        (made["id"].as_str().unwrap().to_owned(), made["token"].as_str().unwrap().to_owned())
    };
    let invite = async |token: &str| -> Value {
        // Each to another address: a second one to the same would take the place of the first.
        let email = format!("{}@example.com", uuid::Uuid::now_v7());
        let body = json!({ "email": email, "role": "viewer" });
        send(with(&workspace, token, "POST", "/invitations").json(&body)).await.expect(201).json()
    };
    // With a key that ends.
    let ending = admin(&workspace, json!({ "expires_at": end.format(&Rfc3339).unwrap() })).await;
    assert_eq!(time_of(&invite(&ending.1).await["expires_at"]), end);
    // Of a key that is revoked they are withdrawn, and of no other.
    let (revoked, kept) = (admin(&workspace, json!({})).await, admin(&workspace, json!({})).await);
    let open = [invite(&revoked.1).await, invite(&revoked.1).await, invite(&kept.1).await];
    assert!(time_of(&open[0]["expires_at"]) > end);
    world.api.delete(&workspace.at(&format!("/keys/{}", revoked.0))).await.expect(204);
    for invitation in &open[..2] {
        assert_eq!(accept(&workspace, &guest, &invitation["token"]).await.problem(404), "not-found");
    }
    let withdrawn = workspace.entries_of("audit.invitation.revoked").await;
    let ids = |invitations: &[&Value]| {
        let mut ids: Vec<String> = invitations.iter().map(|id| id.as_str().unwrap().to_owned()).collect();
        ids.sort();
        ids
    };
    let targets: Vec<&Value> = withdrawn.iter().map(|entry| &entry["data"]["targets"][0]["id"]).collect();
    assert_eq!(ids(&targets), ids(&[&open[0]["id"], &open[1]["id"]]));
    // Of one that was replaced, with it.
    let replaced = admin(&workspace, json!({})).await;
    let open_of_replaced = invite(&replaced.1).await;
    let rotate = workspace.at(&format!("/keys/{}/rotate", replaced.0));
    world.api.post(&rotate, json!({ "overlap_s": 0 })).await.expect(201);
    let answer = accept(&workspace, &guest, &open_of_replaced["token"]).await;
    assert_eq!(answer.problem(404), "not-found");
    // And of one of the instance's, which ends in another ledger.
    let own = world.node().gate.instance;
    let own = Workspace { id: own, path: format!("/v1/workspaces/{own}"), ..workspace.clone() };
    let everywhere = admin(&own, json!({ "instance": true })).await;
    let by_everywhere = invite(&everywhere.1).await;
    world.api.delete(&own.at(&format!("/keys/{}", everywhere.0))).await.expect(204);
    assert_eq!(accept(&workspace, &guest, &by_everywhere["token"]).await.problem(404), "not-found");
    // It is withdrawn right after that, by whoever ended the key, in the ledger of the workspace that it led into.
    let of = async |invited: &Value| -> (Value, Vec<Value>) {
        let open = world.api.get(&workspace.at("/invitations")).await.expect(200).json();
        let item = open["items"]
            .as_array()
            .unwrap()
            .iter()
            .find(|item| item["id"] == invited["id"])
            .unwrap()
            .clone();
        let entries = workspace.entries_of("audit.invitation.revoked").await;
        let about = |e: &Value| e["data"]["targets"][0]["id"] == invited["id"];
        (item["revoked_at"].clone(), entries.into_iter().filter(about).collect())
    };
    let (revoked_at, entries) = of(&by_everywhere).await;
    assert!(revoked_at.is_string() && entries.len() == 1, "{revoked_at} {entries:?}");
    let revocation = own.entries_of("audit.key.revoked").await.pop().unwrap();
    assert_eq!(entries[0]["data"]["actor"], revocation["data"]["actor"]);
    assert_eq!(entries[0]["data"]["request"], revocation["data"]["request"]);
    // A key may end itself by that; one that ran out, or whose node crashed in between, is seen to by the service.
    let itself = admin(&own, json!({ "instance": true })).await;
    let by_itself = invite(&itself.1).await;
    send(with(&own, &itself.1, "DELETE", &format!("/keys/{}", itself.0))).await.expect(204);
    assert_eq!(of(&by_itself).await.1[0]["data"]["actor"]["id"], itself.0);
    let late = admin(&own, json!({ "instance": true })).await;
    let by_late = invite(&late.1).await;
    let ended = "UPDATE api_keys SET expires_at = now() - interval '1 second' WHERE key_id = $1";
    let late_id = late.0.parse::<statusledger::id::KeyId>().unwrap().uuid();
    sqlx::query(ended).bind(late_id).execute(&mut world.database.superuser().await).await.unwrap();
    for _ in 0..2 {
        statusledger::workspace::end::end_due(&world.node().writer).await.unwrap();
        let (revoked_at, entries) = of(&by_late).await;
        assert!(revoked_at.is_string() && entries.len() == 1, "{entries:?}");
        assert_eq!(entries[0]["data"]["actor"]["type"], "system");
    }
    assert!(of(&open[2]).await.0.is_null(), "and of no other");
    accept(&workspace, &guest, &open[2]["token"]).await.expect(200);
}

#[tokio::test]
async fn where_passkeys_are_required_no_key_of_the_workspace_makes_owners_or_administrators() {
    let world = World::new().await;
    let workspace = world.workspace("guarded").await;
    let admin = key(&workspace, &["admin"]).await;
    let viewer = world.person_of("viewer", workspace.id, Role::Viewer).await;
    let guest = world.person("guest@example.com", &[]).await;
    let invite = async |token: &str, role: &str| {
        let email = format!("{}@example.com", uuid::Uuid::now_v7());
        let body = json!({ "email": email, "role": role });
        send(with(&workspace, token, "POST", "/invitations").json(&body)).await
    };
    let give = async |token: &str, role: &str| {
        let member = with(&workspace, token, "PATCH", &format!("/members/{}", viewer.id));
        send(member.json(&json!({ "role": role }))).await
    };
    let before = invite(&admin, "owner").await.expect(201).json();
    let required = async |yes: bool| {
        world.api.patch(&workspace.path, json!({ "passkey_required": yes })).await.expect(200);
    };
    required(true).await;
    for role in ["owner", "admin"] {
        assert_eq!(invite(&admin, role).await.problem(403), "passkey-required", "{role}");
        assert_eq!(give(&admin, role).await.problem(403), "passkey-required", "{role}");
    }
    assert_eq!(accept(&workspace, &guest, &before["token"]).await.problem(404), "not-found");
    // Other roles are a key's to give, and all of them the instance's.
    invite(&admin, "member").await.expect(201);
    give(&admin, "member").await.expect(204);
    invite(&world.api.token, "owner").await.expect(201);
    give(&world.api.token, "admin").await.expect(204);
    required(false).await;
    accept(&workspace, &guest, &before["token"]).await.expect(200);
}

#[tokio::test]
async fn what_a_destination_heard_before_goes_to_no_new_address_of_somebody_who_may_not_read_it() {
    let world = World::new().await;
    let workspace = world.workspace("redirected").await;
    let receiver = Receiver::of(&world).await;
    let body = json!({ "filter": { "types": ["audit.key.*"] } });
    let destination = workspace.destination(&receiver, "hook", body).await;
    let narrow = key(&workspace, &["destinations:write", "ledger:read"]).await;
    let wide = key(&workspace, &["audit:read", "destinations:write", "ledger:read"]).await;
    destination.settled(2, "delivered").await;
    let rest = format!("/destinations/{}", destination.id);
    let change =
        async |token: &str, change: Value| send(with(&workspace, token, "PATCH", &rest).json(&change)).await;
    let elsewhere =
        json!({ "filter": { "types": ["event.*"] }, "openings": false, "url": receiver.url("mine") });
    // With something on its way that it may not read, nobody leads it elsewhere.
    destination.change(json!({ "enabled": false })).await;
    let range = json!({ "from": 1, "to": 1 });
    world.api.post(&workspace.at(&format!("{rest}/redeliver")), range).await.expect(202);
    assert_eq!(change(&narrow, elsewhere.clone()).await.problem(403), "scope");
    change(&narrow, json!({ "name": "renamed" })).await.expect(200);
    destination.change(json!({ "enabled": true })).await;
    destination.settled(2, "delivered").await;
    // What is settled is made again by whoever may read it, and nobody else.
    change(&narrow, elsewhere).await.expect(200);
    let again = async |token: &str| {
        let range = json!({ "from": 1, "to": 2 });
        send(with(&workspace, token, "POST", &format!("{rest}/redeliver")).json(&range)).await
    };
    assert_eq!(again(&narrow).await.problem(403), "scope");
    again(&wide).await.expect(202);
}

#[tokio::test]
async fn an_address_is_kept_as_it_is_asked_with_nothing_in_it_that_is_not_seen() {
    let world = World::new().await;
    let workspace = world.workspace("addresses").await;
    let url = "http://127.0.0.1:9/a\r\nX: y\u{0}\u{202e}";
    let asked = "http://127.0.0.1:9/aX:%20y%00%E2%80%AE";
    let body = json!({ "name": "hook", "url": url });
    let made = world.api.post(&workspace.at("/destinations"), body).await.expect(201).json();
    assert_eq!(made["url"], asked);
    let path = workspace.at(&format!("/destinations/{}", made["id"].as_str().unwrap()));
    let changed = world.api.patch(&path, json!({ "url": "HTTP://127.0.0.1:9/\tb" })).await.expect(200);
    assert_eq!(changed.json()["url"], "http://127.0.0.1:9/b");
    assert_eq!(world.api.get(&path).await.expect(200).json()["url"], "http://127.0.0.1:9/b");
}
