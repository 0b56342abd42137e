//! Workspaces change and end; API keys are made, replaced and ended; each act is on the record.

use crate::harness::{Api, Person, Receiver, World, send, verify_export};
use serde_json::{Value, json};
use statusledger::access::people::{self, Profile};
use statusledger::access::scope::Role;
use statusledger::access::session;
use statusledger::id::UserId;
use statusledger::workspace::end;

/// Audit entries of a workspace, oldest first.
async fn audit(world: &World, path: &str, query: &str) -> Vec<Value> {
    let page = world.api.get(&format!("{path}/audit?limit=1000{query}")).await.expect(200).json();
    let mut items = page["items"].as_array().unwrap().clone();
    items.reverse();
    items
}

fn kinds(entries: &[Value]) -> Vec<&str> {
    entries.iter().map(|entry| entry["type"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_workspace_is_renamed_and_the_record_says_from_what_to_what() {
    let world = World::new().await;
    let workspace = world.workspace("before").await;
    let other = world.workspace("another's").await;
    let renamed = world.api.patch(&workspace.path, json!({ "name": "after" })).await.expect(200).json();
    assert_eq!(renamed["name"], "after");
    assert_eq!(world.api.patch(&workspace.path, json!({ "name": "" })).await.problem(422), "invalid");
    assert_eq!(world.api.patch(&workspace.path, json!({ "nam": "x" })).await.problem(422), "invalid");
    let entries = audit(&world, &workspace.path, "&action=workspace.*").await;
    assert_eq!(kinds(&entries), ["audit.workspace.created", "audit.workspace.updated"]);
    assert_eq!(entries[1]["data"]["changes"], json!({ "name": { "before": "before", "after": "after" } }));
    assert_eq!(entries[1]["data"]["actor"]["type"], "api_key");
    assert_eq!(audit(&world, &other.path, "").await.len(), 1, "nothing of it stands in another's ledger");
    world.assert_whole(&[&workspace, &other]).await;
}

#[tokio::test]
async fn a_workspace_ends_after_its_time_and_leaves_nothing_but_entries() {
    let mut world = World::with(|settings| settings.access.deletion_waits_h = 0.0).await;
    let workspace = world.workspace("to be ended").await;
    let source = workspace.inbound("events").await;
    let receiver = Receiver::of(&world).await;
    workspace.destination(&receiver, "hook", json!({})).await;
    source.event("sealed for ever").await;
    receiver.taken("hook", 1).await;
    receiver.assert_all_verified();
    let key = world.api.post(&workspace.at("/keys"), json!({ "name": "k", "scopes": ["read"] })).await;
    let key = key.expect(201).json()["token"].as_str().unwrap().to_owned();

    // Called off in time, it was as if nobody had asked.
    let asked = world.api.delete(&workspace.path).await.expect(202).json();
    assert!(asked["delete_after"].is_string());
    world.api.post(&workspace.at("/restore"), json!({})).await.expect(200);
    assert_eq!(world.api.post(&workspace.at("/restore"), json!({})).await.problem(409), "conflict");
    assert_eq!(end::end_due(&world.node().writer).await.unwrap(), 0);
    source.event("and heard").await;

    world.api.delete(&workspace.path).await.expect(202);
    let (second, _) = world.another().await;
    second.writer.data_keys().get(workspace.id).await.unwrap();
    // Two nodes that find it due at once end it once.
    let (one, two) = tokio::join!(end::end_due(&world.node().writer), end::end_due(&second.writer));
    assert!(one.unwrap() + two.unwrap() >= 1);
    assert!(second.writer.data_keys().get(workspace.id).await.is_err(), "no node knows the key any more");
    second.stop().await;

    let seen = world.api.get(&workspace.path).await.expect(200).json();
    assert!(seen["deleted_at"].is_string() && seen["name"] != "to be ended");
    let answer = send(world.api.bare("GET", &workspace.path).bearer_auth(&key)).await;
    assert_eq!(answer.problem(401), "unauthorized");
    // Its token may be known to the node for some seconds more; there is nothing any more that it could write to.
    assert!([401, 404].contains(&source.post_once("again", "an event").await.status));
    let mut superuser = world.database.superuser().await;
    for table in ["data_keys", "openings", "members", "invitations", "request_keys"] {
        let text = format!("SELECT count(*) FROM {table} WHERE workspace_id = $1");
        let left: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(text))
            .bind(workspace.id.uuid())
            .fetch_one(&mut superuser)
            .await
            .unwrap();
        assert_eq!(left, 0, "{table}");
    }
    // What whoever made something called it is gone with it.
    let named = "SELECT string_agg(name, ' ') FROM (SELECT name FROM api_keys WHERE workspace_id = $1
                     UNION ALL SELECT name FROM sources WHERE workspace_id = $1
                     UNION ALL SELECT name FROM destinations WHERE workspace_id = $1) n";
    let named: String =
        sqlx::query_scalar(named).bind(workspace.id.uuid()).fetch_one(&mut superuser).await.unwrap();
    assert!(named.split(' ').all(|word| word == "deleted" || word.parse::<uuid::Uuid>().is_ok()), "{named}");
    // Nothing of it changes any more, even for whoever reaches every workspace.
    let nothing = json!({});
    for (method, rest, body) in [
        ("PATCH", "", json!({ "name": "again" })),
        ("DELETE", "", nothing.clone()),
        ("POST", "/restore", nothing.clone()),
        ("POST", "/keys", json!({ "name": "late", "scopes": ["read"] })),
        ("POST", "/invitations", json!({ "email": "late@example.com", "role": "owner" })),
        ("POST", "/sources", json!({ "kind": "inbound", "name": "late" })),
    ] {
        let answer = send(world.api.request(method, &workspace.at(rest)).json(&body)).await;
        assert_eq!(answer.problem(404), "not-found", "{method} {rest}");
    }
    // And what people had called things, or where they led, is gone with them.
    let left: String = sqlx::query_scalar(
        "SELECT string_agg(t::text, ' ') FROM (
             SELECT to_jsonb(d)::text AS t FROM destinations d UNION ALL SELECT to_jsonb(s)::text FROM sources s
             UNION ALL SELECT to_jsonb(k)::text FROM api_keys k WHERE k.workspace_id = $1) x",
    )
    .bind(workspace.id.uuid())
    .fetch_one(&mut superuser)
    .await
    .unwrap();
    for name in ["\"hook\"", "\"events\"", "\"k\"", "127.0.0.1"] {
        assert!(!left.contains(name), "{name} is left: {left}");
    }
    assert!(left.contains("\"url\": null") && left.contains("\"settings\": null"), "{left}");
    // With openings there is nothing to take away, and nothing says that it was.
    let own = format!("/v1/workspaces/{}", world.node().instance.workspace);
    let exports = audit(&world, &own, "&action=ledger.exported").await.len();
    let path = workspace.at("/export?openings=true");
    assert_eq!(world.api.get(&path).await.problem(404), "not-found");
    assert_eq!(audit(&world, &own, "&action=ledger.exported").await.len(), exports);
    // The entries are whole, and can still be taken away: that stands in the instance's ledger.
    let entries = audit(&world, &workspace.path, "&action=workspace.*").await;
    assert_eq!(kinds(&entries).last(), Some(&"audit.workspace.deleted"));
    assert_eq!(entries.last().unwrap()["data"]["actor"]["id"], "system");
    let before = workspace.entries().await.len();
    let file = world.export(&workspace, "").await;
    verify_export(&file, &world.pin()).unwrap();
    assert_eq!(workspace.entries().await.len(), before);
    assert!(world.doctor().await.is_empty());
    world.stop().await;
    world.start().await.unwrap();
    assert_eq!(workspace.entries().await.len(), before);
}

#[tokio::test]
async fn the_instances_own_workspace_stays() {
    let world = World::new().await;
    let own = format!("/v1/workspaces/{}", world.node().instance.workspace);
    assert_eq!(world.api.delete(&own).await.problem(409), "conflict");
}

#[tokio::test]
async fn keys_are_shown_once_do_what_they_are_for_and_end() {
    let world = World::new().await;
    let workspace = world.workspace("keys").await;
    let asked = json!({ "name": "ci", "scopes": ["sources:write", "ledger:read"] });
    let made = world.api.post(&workspace.at("/keys"), asked).await.expect(201).json();
    let (id, token) = (made["id"].as_str().unwrap(), made["token"].as_str().unwrap().to_owned());
    assert!(token.starts_with("sl_ledger:read.sources:write_"), "{token}");
    let listed = world.api.get(&workspace.at("/keys")).await.expect(200);
    assert!(!listed.text().contains(&token) && !listed.text().contains("token"));
    let with = |token: &str, method: &str, rest: &str| {
        world.api.bare(method, &workspace.at(rest)).bearer_auth(token.to_owned())
    };
    assert_eq!(send(with(&token, "GET", "/entries")).await.status, 200);
    let source = json!({ "kind": "inbound", "name": "by a key" });
    assert_eq!(send(with(&token, "POST", "/sources").json(&source)).await.status, 201);
    for (method, rest) in [("GET", "/export"), ("GET", "/keys"), ("GET", "/destinations"), ("DELETE", "")] {
        assert_eq!(send(with(&token, method, rest)).await.problem(403), "scope", "{method} {rest}");
    }
    // It cannot make a key that has more than itself, nor one for the instance.
    let asked = json!({ "name": "k", "scopes": ["keys:write"] });
    let maker = world.api.post(&workspace.at("/keys"), asked).await.expect(201).json();
    let maker = maker["token"].as_str().unwrap();
    let more = json!({ "name": "more", "scopes": ["admin"] });
    assert_eq!(send(with(maker, "POST", "/keys").json(&more)).await.problem(403), "scope");
    assert_eq!(send(with(maker, "DELETE", &format!("/keys/{id}"))).await.problem(403), "scope");
    let everywhere = json!({ "name": "k", "scopes": ["read"], "instance": true });
    assert_eq!(world.api.post(&workspace.at("/keys"), everywhere).await.problem(403), "instance");

    // Replaced: both hold, then only the new one.
    let rotated =
        world.api.post(&workspace.at(&format!("/keys/{id}/rotate")), json!({ "overlap_s": 3600 })).await;
    let rotated = rotated.expect(201).json();
    let second = rotated["token"].as_str().unwrap();
    assert_eq!(rotated["replaces"], id);
    for token in [&token, second] {
        assert_eq!(send(with(token, "GET", "/entries")).await.status, 200);
    }
    let id = rotated["id"].as_str().unwrap();
    let third = world.api.post(&workspace.at(&format!("/keys/{id}/rotate")), json!({ "overlap_s": 0 })).await;
    let third = third.expect(201).json();
    assert_eq!(send(with(second, "GET", "/entries")).await.problem(401), "unauthorized");
    let (id, third) = (third["id"].as_str().unwrap(), third["token"].as_str().unwrap());
    world.api.delete(&workspace.at(&format!("/keys/{id}"))).await.expect(204);
    assert_eq!(world.api.delete(&workspace.at(&format!("/keys/{id}"))).await.problem(409), "conflict");
    assert_eq!(send(with(third, "GET", "/entries")).await.problem(401), "unauthorized");
    for wrong in [
        json!({ "name": "", "scopes": ["read"] }),
        json!({ "name": "k", "scopes": [] }),
        json!({ "name": "k", "scopes": ["everything"] }),
        json!({ "name": "k", "scopes": ["read"], "expires_at": "2020-01-01T00:00:00Z" }),
    ] {
        assert_eq!(world.api.post(&workspace.at("/keys"), wrong).await.problem(422), "invalid");
    }
    let entries = audit(&world, &workspace.path, "&action=key.*").await;
    assert_eq!(kinds(&entries)[..2], ["audit.key.created"; 2]);
    assert_eq!(kinds(&entries)[2..], ["audit.key.rotated", "audit.key.rotated", "audit.key.revoked"]);
    assert!(entries.iter().all(|entry| !entry.to_string().contains(&token[..40])));
    world.assert_whole(&[&workspace]).await;
}

#[tokio::test]
async fn a_workspace_keeps_an_owner_and_nobody_gives_more_than_they_have() {
    let world = World::new().await;
    let workspace = world.workspace("people").await;
    let node = world.node();
    let act = statusledger::audit::Act::operator();
    let mut users = Vec::new();
    for (name, role) in [("owner", Role::Owner), ("admin", Role::Admin), ("viewer", Role::Viewer)] {
        let user = UserId::new();
        let mut tx = session::person(&node.database, user).await.unwrap();
        let profile = Profile { email: Some(format!("{name}@example.com")), name: Some(name.into()) };
        let data_keys = node.writer.data_keys();
        people::insert(&mut tx, &node.gate.secret, data_keys, node.gate.instance, user, &profile)
            .await
            .unwrap();
        let (_, cookie) =
            session::begin(&mut tx, &node.gate, data_keys, user, session::Method::Oidc, None, &act)
                .await
                .unwrap();
        tx.commit().await.unwrap();
        world.join(workspace.id, user, role).await;
        users.push((user, cookie));
    }
    let listed = world.api.get(&workspace.at("/members")).await.expect(200).json();
    assert_eq!(listed["items"].as_array().unwrap().len(), 3);
    assert_eq!(listed["items"][0]["email"], "owner@example.com");
    // As the person whose cookie it is.
    let session = |n: usize, method: &str, path: &str| {
        world.api.bare(method, path).header("cookie", format!("sl_session={}", users[n].1.as_str()))
    };
    let mut csrf = Vec::new();
    for (n, (user, _)) in users.iter().enumerate() {
        let mine = send(session(n, "GET", "/v1/session")).await.expect(200).json();
        assert_eq!(mine["user"], user.to_string());
        csrf.push(mine["csrf_token"].as_str().unwrap().to_owned());
    }
    let member = |n: usize| workspace.at(&format!("/members/{}", users[n].0));
    let change = |n: usize, whom: usize, role: &str| {
        session(n, "PATCH", &member(whom)).header("x-csrf-token", &csrf[n]).json(&json!({ "role": role }))
    };
    // Without the token, or with another session's, nothing is changed.
    let bare = session(1, "PATCH", &member(2)).json(&json!({ "role": "member" }));
    assert_eq!(send(bare).await.problem(403), "csrf");
    let other =
        session(1, "PATCH", &member(2)).header("x-csrf-token", &csrf[0]).json(&json!({ "role": "member" }));
    assert_eq!(send(other).await.problem(403), "csrf");
    assert_eq!(send(change(2, 2, "owner")).await.problem(403), "role", "a viewer changes nobody");
    assert_eq!(send(change(1, 1, "owner")).await.problem(403), "role", "an administrator makes no owner");
    assert_eq!(send(change(1, 0, "viewer")).await.problem(403), "role", "nor unmakes one");
    assert_eq!(send(change(0, 0, "admin")).await.problem(409), "conflict", "the last owner stays");
    assert_eq!(send(change(1, 2, "member")).await.status, 204);
    assert_eq!(send(change(0, 1, "owner")).await.status, 204);
    assert_eq!(send(change(0, 0, "admin")).await.status, 204);
    // Invitations: taken once, by who is signed in.
    let invite = session(0, "POST", &workspace.at("/invitations"))
        .header("x-csrf-token", &csrf[0])
        .json(&json!({ "email": "new@example.com", "role": "auditor" }));
    let invited = send(invite).await.expect(201).json();
    let accept = |n: usize, token: &str| {
        session(n, "POST", "/v1/invitations/accept")
            .header("x-csrf-token", &csrf[n])
            .json(&json!({ "token": token }))
    };
    assert_eq!(send(accept(2, "sl_invite_nonsense")).await.problem(404), "not-found");
    assert_eq!(
        send(accept(2, invited["token"].as_str().unwrap())).await.problem(409),
        "conflict",
        "a member already"
    );
    let gone = workspace.at(&format!("/invitations/{}", invited["id"].as_str().unwrap()));
    assert_eq!(world.api.delete(&gone).await.status, 204);
    assert_eq!(world.api.delete(&gone).await.problem(404), "not-found");
    // A removed member's session sees nothing of the workspace; whoever leaves, neither, and the last owner cannot.
    let leaves = |n: usize, at: &str| {
        send(session(n, "DELETE", &format!("{at}/membership")).header("x-csrf-token", &csrf[n]))
    };
    let elsewhere = world.workspace("elsewhere").await;
    let nowhere = "/v1/workspaces/ws_0199b1c4-0000-7000-8000-000000000001";
    assert_eq!(leaves(1, &workspace.path).await.problem(409), "conflict");
    for at in [elsewhere.path.as_str(), nowhere] {
        let answer = leaves(0, at).await;
        assert_eq!(answer.problem(404), "not-found");
        let id = at.rsplit('/').next().unwrap();
        assert_eq!(answer.json()["detail"], format!("The workspace {id} does not exist."));
    }
    assert_eq!(leaves(0, &workspace.path).await.status, 200);
    assert_eq!(leaves(0, &workspace.path).await.problem(404), "not-found");
    assert_eq!(send(session(0, "GET", &workspace.path)).await.problem(404), "not-found");
    assert_eq!(send(session(2, "GET", &workspace.path)).await.status, 200);
    assert_eq!(world.api.delete(&member(2)).await.status, 200);
    assert_eq!(send(session(2, "GET", &workspace.path)).await.problem(404), "not-found");
    // Signed out, the cookie opens nothing more.
    let out = session(1, "DELETE", "/v1/session").header("x-csrf-token", &csrf[1]);
    let out = send(out).await.expect(204);
    assert!(out.headers["set-cookie"].to_str().unwrap().contains("Max-Age=0"));
    assert_eq!(send(session(1, "GET", "/v1/session")).await.problem(401), "unauthorized");
    let entries = audit(&world, &workspace.path, "&action=member.*").await;
    let of = |kind: &str| kinds(&entries).iter().filter(|k| **k == kind).count();
    assert_eq!(
        (of("audit.member.role_changed"), of("audit.member.removed"), of("audit.member.invited")),
        (3, 2, 1)
    );
    // No address of anybody in clear, in the ledger or in the database's tables.
    let whole = workspace.entries().await;
    assert!(whole.iter().all(|entry| !entry.to_string().contains("example.com\"")), "{whole:?}");
    world.assert_whole(&[&workspace]).await;
}

#[tokio::test]
async fn the_doors_that_somebody_left_open_close_when_they_leave() {
    let world = World::new().await;
    let workspace = world.workspace("left").await;
    let by = |person: &Person, method: &str, path: &str| {
        let request = world.api.bare(method, path).header("cookie", &person.cookie);
        request.header("x-csrf-token", &person.csrf)
    };
    let admin = world.person_of("admin", workspace.id, Role::Admin).await;
    let (keys, invitations) = (workspace.at("/keys"), workspace.at("/invitations"));
    let new = |name: &str| json!({ "name": name, "scopes": ["keys:write", "ledger:read", "members:write"] });
    let made = send(by(&admin, "POST", &keys).json(&new("theirs"))).await.expect(201).json();
    let theirs = Api::new(world.node().address, made["token"].as_str().unwrap());
    // A key makes another, and invites.
    let narrower = json!({ "name": "of theirs", "scopes": ["ledger:read"] });
    let second = theirs.post(&keys, narrower).await.expect(201).json();
    let second = Api::new(world.node().address, second["token"].as_str().unwrap());
    let mut open = Vec::new();
    for role in ["admin", "viewer"] {
        let body = json!({ "email": format!("{role}@example.com"), "role": role });
        open.push(send(by(&admin, "POST", &invitations).json(&body)).await.expect(201).json());
    }
    let others =
        world.api.post(&invitations, json!({ "email": "other@example.com", "role": "viewer" })).await;
    let others = others.expect(201).json();
    world.api.post(&keys, new("another's")).await.expect(201);

    // With less of a role they hand out less.
    let member = workspace.at(&format!("/members/{}", admin.id));
    world.api.patch(&member, json!({ "role": "admin" })).await.expect(204);
    let changed = workspace.entries_of("audit.member.role_changed").await;
    assert!(changed.is_empty(), "the role that they have: {changed:?}");
    let accept = |person: &Person, token: &Value| {
        send(by(person, "POST", "/v1/invitations/accept").json(&json!({ "token": token })))
    };
    let guest = world.person("guest@example.com", &[]).await;
    world.api.patch(&member, json!({ "role": "viewer" })).await.expect(204);
    assert_eq!(accept(&guest, &open[0]["token"]).await.problem(404), "not-found");
    assert_eq!(accept(&guest, &open[1]["token"]).await.problem(404), "not-found");
    world.api.patch(&member, json!({ "role": "admin" })).await.expect(204);
    let body = json!({ "email": "again@example.com", "role": "admin" });
    let again = send(by(&admin, "POST", &invitations).json(&body)).await.expect(201).json();

    let left = world.api.delete(&member).await.expect(200).json();
    assert_eq!(left["invitations_withdrawn"], json!([again["id"]]));
    assert_eq!(left["keys_at_rest"].as_array().unwrap().len(), 2);
    assert_eq!(left["keys_at_rest"][0], made["id"]);
    assert_eq!(accept(&admin, &again["token"]).await.problem(404), "not-found");
    for key in [&theirs, &second] {
        assert_eq!(key.get(&workspace.at("/entries")).await.problem(401), "unauthorized");
    }
    let listed = world.api.get(&keys).await.expect(200).json();
    let resting = |name: &str| {
        let mut all = listed["items"].as_array().unwrap().iter();
        all.find(|k| k["name"] == name).unwrap()["suspended"].as_bool().unwrap()
    };
    assert_eq!([resting("theirs"), resting("of theirs"), resting("another's")], [true, true, false]);
    // Whoever needs one makes it theirs.
    let path = format!("{keys}/{}/rotate", made["id"].as_str().unwrap());
    let rotated = world.api.post(&path, json!({})).await.expect(201).json();
    let rotated = Api::new(world.node().address, rotated["token"].as_str().unwrap());
    rotated.get(&workspace.at("/entries")).await.expect(200);
    // A member again, by somebody else's invitation: they hold again.
    accept(&admin, &others["token"]).await.expect(200);
    second.get(&workspace.at("/entries")).await.expect(200);
    let leave = send(by(&admin, "DELETE", &workspace.at("/membership"))).await.expect(200).json();
    assert_eq!(leave["invitations_withdrawn"], json!([]));

    let withdrawn = workspace.entries_of("audit.invitation.revoked").await;
    assert_eq!(withdrawn.len(), 3);
    let removed = workspace.entries_of("audit.member.removed").await;
    assert_eq!(removed[0]["data"]["details"], json!({ "keys_at_rest": 2 }));
    world.assert_whole(&[&workspace]).await;
}
