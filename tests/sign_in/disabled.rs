//! People who are disabled: what ends, what rests, who may, and what is on the record.

use super::browser::{Browser, location};
use super::issuer::Signed;
use super::ways::invited;
use super::{by_issuer, many, owner, use_link, with_issuer};
use crate::harness::{Person, World, eventually, run, send, temporary};
use serde_json::{Value, json};
use statusledger::access::scope::Role;
use statusledger::access::sign_in::link::Whom;
use statusledger::database::roles;
use statusledger::id::UserId;

/// A browser in which somebody is signed in whom the harness made.
async fn browser_of(world: &World, person: &Person) -> Browser {
    let mut browser = Browser::of(world);
    browser.set_cookie("sl_session", person.cookie.split_once('=').unwrap().1);
    browser.session().await;
    browser
}

fn disabled(yes: bool) -> Value {
    json!({ "disabled": yes })
}

#[tokio::test]
async fn who_is_disabled_is_out_at_once_and_comes_in_no_way() {
    let (world, issuer) = with_issuer().await;
    let mut administrator = owner(&world).await;
    let mut ana = invited(&world, &issuer, "team", "ana").await;
    let user = ana.user().await;
    let mut elsewhere = Browser::of(&world);
    by_issuer(&mut elsewhere, &issuer, "/sign-in/with/issuer", |_| (), Signed::Rightly).await;
    assert_eq!(elsewhere.user().await, user);
    let begun = ana.json("POST", "/v1/identities/issuer", &json!({})).await.expect(200);
    let link = world.link(Whom::User(user.parse().unwrap())).await;

    let address = format!("/v1/people/{user}");
    let seen = administrator.get(&address).await.expect(200).json();
    assert_eq!((&seen["email"], &seen["disabled_at"]), (&json!("ana@example.com"), &Value::Null));
    let out = administrator.json("PATCH", &address, &disabled(true)).await.expect(200).json();
    assert!(out["disabled_at"].is_string());
    // Every session, at once, on pages too.
    for browser in [&mut ana, &mut elsewhere] {
        for path in ["/v1/session", "/v1/workspaces", "/v1/sessions"] {
            assert_eq!(browser.get(path).await.problem(401), "unauthorized", "{path}");
        }
    }
    // Every way in: the account, with and without an invitation; a link; an account that was being connected.
    let invitation = world.invitation("another team").await;
    for start in ["/sign-in/with/issuer".to_owned(), format!("/sign-in/with/issuer?invitation={invitation}")]
    {
        let mut browser = Browser::of(&world);
        let answer = by_issuer(&mut browser, &issuer, &start, |_| (), Signed::Rightly).await;
        assert_eq!(answer.status, 403);
        assert!(answer.text().contains("cannot sign in here any more"), "{}", answer.text());
        assert!(browser.cookie("sl_session").is_none());
    }
    assert_eq!(use_link(&mut Browser::of(&world), &link).await.status, 403);
    let out = begun.json()["location"].as_str().unwrap().to_owned();
    assert_eq!(ana.get(&super::back(&out)).await.status, 403);
    let failed = world.failed("disabled").await;
    assert_eq!(failed["data"]["outcome"], "failure");
    eventually("all three on the record, the sessions too", || async {
        let failed = world.of_the_instance("audit.session.sign_in_failed").await;
        let failed = failed.iter().filter(|e| e["data"]["reason"] == "disabled");
        let failed: u64 = failed.map(|e| e["data"]["details"]["count"].as_u64().unwrap()).sum();
        let denied = world.of_the_instance("audit.access.denied").await;
        let denied = denied.iter().filter(|e| e["data"]["actor"]["id"] == user.as_str());
        let denied: u64 = denied
            .filter(|e| e["data"]["reason"] == "revoked")
            .map(|e| e["data"]["details"]["count"].as_u64().unwrap())
            .sum();
        ((failed, denied) == (3, 6)).then_some(())
    })
    .await;

    // Again is nothing new; enabled, they come in, and what ended stays ended.
    administrator.json("PATCH", &address, &disabled(true)).await.expect(200);
    let again = administrator.json("PATCH", &address, &disabled(false)).await.expect(200).json();
    assert_eq!(again["disabled_at"], Value::Null);
    assert_eq!(ana.get("/v1/session").await.problem(401), "unauthorized");
    assert_eq!(use_link(&mut Browser::of(&world), &link).await.status, 303, "it was not used up");
    let answer =
        by_issuer(&mut Browser::of(&world), &issuer, "/sign-in/with/issuer", |_| (), Signed::Rightly).await;
    assert_eq!(location(&answer), "/account");
    let acts = world.of_the_instance("audit.person.disabled").await;
    assert_eq!(acts.len(), 1);
    assert_eq!(acts[0]["data"]["actor"]["id"], administrator.user().await.as_str());
    assert_eq!(acts[0]["data"]["targets"], json!([{ "type": "user", "id": user }]));
    assert_eq!(acts[0]["data"]["details"], json!({ "sessions_ended": 2 }));
    assert_eq!(world.of_the_instance("audit.person.enabled").await.len(), 1);
    assert!(world.doctor().await.is_empty());
}

#[tokio::test]
async fn what_somebody_made_rests_while_they_are_disabled() {
    let world = World::with(many).await;
    let workspace = world.workspace("team").await;
    let ana = world.person("ana@example.com", &[(workspace.id, Role::Owner)]).await;
    let mut browser = browser_of(&world, &ana).await;
    let keys = workspace.at("/keys");
    let new = |name: &str| json!({ "name": name, "scopes": ["read", "keys:write"] });
    let token = |made: &Value| made["token"].as_str().unwrap().to_owned();
    let own = browser.json("POST", &keys, &new("own")).await.expect(201).json();
    // A key that her key made is hers, and one that replaced it.
    let by_key = send(world.api.bare("POST", &keys).bearer_auth(token(&own)).json(&new("by her key"))).await;
    let by_key = by_key.expect(201).json();
    let rotate = |made: &Value| format!("{keys}/{}/rotate", made["id"].as_str().unwrap());
    let rotated = send(world.api.bare("POST", &rotate(&by_key)).bearer_auth(token(&own)).json(&json!({})));
    let rotated = rotated.await.expect(201).json();
    // One that somebody else rotated is theirs.
    let taken = browser.json("POST", &keys, &new("taken over")).await.expect(201).json();
    let taken_over = world.api.post(&rotate(&taken), json!({})).await.expect(201).json();
    let others = world.api.post(&keys, new("another's")).await.expect(201).json();
    let invite = json!({ "email": "friend@example.com", "role": "viewer" });
    let hers = browser.json("POST", &workspace.at("/invitations"), &invite).await.expect(201).json();

    let address = format!("/v1/people/{}", ana.id);
    assert_eq!(world.api.get(&address).await.expect(200).json()["api_keys"], 4);
    let entries = workspace.at("/entries");
    let opens = async |made: &Value| send(world.api.bare("GET", &entries).bearer_auth(token(made))).await;
    let invitation = format!("/invite/{}", hers["token"].as_str().unwrap());
    for (out, status) in [(true, 401), (false, 200)] {
        world.api.patch(&address, disabled(out)).await.expect(200);
        for made in [&own, &by_key, &rotated, &taken] {
            assert_eq!(opens(made).await.status, status, "{}", made["name"]);
        }
        for made in [&taken_over, &others] {
            assert_eq!(opens(made).await.status, 200, "{}", made["name"]);
        }
        let listed = world.api.get(&keys).await.expect(200).json();
        for key in listed["items"].as_array().unwrap() {
            let of_hers = [&own, &by_key, &rotated, &taken].iter().any(|made| made["id"] == key["id"]);
            assert_eq!(key["suspended"], out && of_hers, "{key}");
        }
        let page = Browser::of(&world).get(&invitation).await;
        assert_eq!(page.status, if out { 403 } else { 200 });
    }
    // Nor does somebody who is signed in accept it.
    world.api.patch(&address, disabled(true)).await.expect(200);
    let ben = world.person("ben@example.com", &[]).await;
    let mut ben = browser_of(&world, &ben).await;
    let accept = json!({ "token": hers["token"] });
    assert_eq!(ben.json("POST", "/v1/invitations/accept", &accept).await.problem(404), "not-found");
    world.api.patch(&address, disabled(false)).await.expect(200);
    ben.json("POST", "/v1/invitations/accept", &accept).await.expect(200);
    // Refused keys are on the record of their workspace.
    eventually("the refusals", || async {
        let denied = workspace.entries_of("audit.access.denied").await;
        denied.into_iter().find(|e| e["data"]["actor"]["id"] == own["id"] && e["data"]["reason"] == "revoked")
    })
    .await;
    world.assert_whole(&[&workspace]).await;
}

#[tokio::test]
async fn nobody_disables_themself_nor_who_is_more_nor_the_last_administrator() {
    let world = World::with(many).await;
    let instance = world.node().instance.workspace;
    let member_of_it = async |name: &str, role| world.person_of(name, instance, role).await;
    let (first, second) =
        (member_of_it("first", Role::Owner).await, member_of_it("second", Role::Owner).await);
    let admin = member_of_it("admin", Role::Admin).await;
    let auditor = member_of_it("auditor", Role::Auditor).await;
    let team = world.workspace("team").await;
    let stranger = world.person("stranger@example.com", &[(team.id, Role::Owner)]).await;
    let at = |person: &Person| format!("/v1/people/{}", person.id);
    let mut one = browser_of(&world, &first).await;
    let mut lesser = browser_of(&world, &admin).await;
    assert_eq!(one.json("PATCH", &at(&first), &disabled(true)).await.problem(409), "conflict", "oneself");
    // Nor by a key of one's own.
    let keys = format!("/v1/workspaces/{instance}/keys");
    let own =
        one.json("POST", &keys, &json!({ "name": "own", "scopes": ["admin"] })).await.expect(201).json();
    let by_key = world.api.bare("PATCH", &at(&first)).bearer_auth(own["token"].as_str().unwrap());
    assert_eq!(send(by_key.json(&disabled(true))).await.problem(403), "instance", "it is a workspace's key");
    assert_eq!(lesser.json("PATCH", &at(&first), &disabled(true)).await.problem(403), "role", "an owner");
    // Who sees everybody: who administers, and the auditor; who owns another workspace does not.
    let mut reader = browser_of(&world, &auditor).await;
    let mut nobody = browser_of(&world, &stranger).await;
    let whole = reader.get("/v1/people").await.expect(200).json();
    assert_eq!(whole["items"].as_array().unwrap().len(), 5);
    assert_eq!(reader.json("PATCH", &at(&stranger), &disabled(true)).await.problem(403), "role");
    for path in ["/v1/people".to_owned(), at(&first)] {
        assert_eq!(nobody.get(&path).await.problem(403), "role", "{path}");
    }
    assert_eq!(nobody.json("PATCH", &at(&first), &disabled(true)).await.problem(403), "role");
    // Page by page it is the same.
    let (mut paged, mut query) = (Vec::new(), "?limit=2".to_owned());
    loop {
        let page = reader.get(&format!("/v1/people{query}")).await.expect(200).json();
        paged.extend(page["items"].as_array().unwrap().clone());
        let Some(next) = page["next"].as_str() else { break };
        query = format!("?limit=2&cursor={next}");
    }
    assert_eq!(Value::from(paged), whole["items"]);

    // The last owner who can sign in stays: by whomever, and by whatever comes first.
    one.json("PATCH", &at(&second), &disabled(true)).await.expect(200);
    assert_eq!(world.api.patch(&at(&first), disabled(true)).await.problem(409), "conflict");
    let member = format!("/v1/workspaces/{instance}/members/{}", first.id);
    let demoted = one.json("PATCH", &member, &json!({ "role": "admin" })).await;
    assert_eq!(demoted.problem(409), "conflict", "an owner who is disabled owns nothing");
    assert_eq!(one.json("DELETE", &member, &json!({})).await.problem(409), "conflict");
    let leave = format!("/v1/workspaces/{instance}/membership");
    assert_eq!(one.json("DELETE", &leave, &json!({})).await.problem(409), "conflict");
    world.api.patch(&at(&second), disabled(false)).await.expect(200);
    // Of two who disable each other at once one stays.
    let mut two = browser_of(&world, &member_of_it("third", Role::Owner).await).await;
    one.json("PATCH", &at(&second), &disabled(true)).await.expect(200);
    let third: String = two.user().await;
    let (third, yes, first_at) = (format!("/v1/people/{third}"), disabled(true), at(&first));
    let (a, b) = tokio::join!(one.json("PATCH", &third, &yes), two.json("PATCH", &first_at, &yes));
    assert!((a.status == 200) != (b.status == 200), "{} {}", a.status, b.status);
    for wrong in [json!({}), json!({ "disabled": "yes" }), json!({ "disabled": true, "name": "x" })] {
        assert_eq!(world.api.patch(&at(&stranger), wrong).await.problem(422), "invalid");
    }
    let nowhere = "/v1/people/usr_0199b1c4-0000-7000-8000-000000000001";
    assert_eq!(world.api.patch(nowhere, disabled(true)).await.problem(404), "not-found");
    assert_eq!(world.api.get(nowhere).await.problem(404), "not-found");
}

#[tokio::test]
async fn an_instance_without_owners_keeps_its_last_administrator() {
    let world = World::with(many).await;
    let instance = world.node().instance.workspace;
    let one = world.person_of("one", instance, Role::Admin).await;
    let two = world.person_of("two", instance, Role::Admin).await;
    let at = |person: &Person| format!("/v1/people/{}", person.id);
    world.api.patch(&at(&one), disabled(true)).await.expect(200);
    assert_eq!(world.api.patch(&at(&two), disabled(true)).await.problem(409), "conflict");
}

#[tokio::test]
async fn no_link_is_made_for_somebody_whom_it_would_not_sign_in() {
    let world = World::new().await;
    let instance = world.node().instance.workspace;
    let ana = world.person("ana@example.com", &[(instance, Role::Owner)]).await;
    world.person("bo@example.com", &[(instance, Role::Owner)]).await;
    let [service, worker] = [roles::SERVICE, roles::WORKER].map(|role| world.database.url(role));
    let data_dir = world.settings.data_dir.to_str().unwrap();
    let place = ["--data-dir", data_dir, "--database-url", &service, "--worker-database-url", &worker];
    let link = async |user: &str| {
        let arguments = [&["sign-in-link", "--user", user][..], &place].concat();
        let output = run(&temporary("link"), &arguments, &[]).await;
        let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        (output.status.code(), out, err.lines().last().unwrap_or_default().to_owned())
    };
    let (id, path) = (ana.id.to_string(), format!("/v1/people/{}", ana.id));
    let made = async || world.of_the_instance("audit.link.created").await.len();
    world.api.patch(&path, disabled(true)).await.expect(200);
    let before = made().await;
    let (code, out, told) = link(&id).await;
    assert_eq!((code, out.as_str()), (Some(1), ""), "{told}");
    assert!(
        told.starts_with(&format!("statusledger: {id} is disabled, and a link would not sign them in")),
        "{told}"
    );
    assert!(told.contains("people enable") && told.contains("--new-owner"), "{told}");
    let stranger = UserId::new().to_string();
    let nobody = format!("statusledger: there is nobody here by the id {stranger}");
    assert_eq!(link(&stranger).await, (Some(1), String::new(), nobody));
    assert_eq!(made().await, before, "and none is on the record");
    world.api.patch(&path, disabled(false)).await.expect(200);
    let (code, out, told) = link(&id).await;
    assert!(code == Some(0) && out.contains("/sign-in/link/sl_link_"), "{told}");
    assert_eq!(made().await, before + 1);
}

#[tokio::test]
async fn ones_sessions_come_in_pages() {
    let world = World::with(many).await;
    let mut browser = owner(&world).await;
    let user = browser.user().await.parse().unwrap();
    for _ in 0..4 {
        assert_eq!(use_link(&mut Browser::of(&world), &world.link(Whom::User(user)).await).await.status, 303);
    }
    let whole = browser.get("/v1/sessions").await.expect(200).json();
    assert_eq!(whole["items"].as_array().unwrap().len(), 5);
    assert!(whole.get("next").is_none());
    let (mut paged, mut query, mut pages) = (Vec::new(), "?limit=2".to_owned(), 0);
    loop {
        let page = browser.get(&format!("/v1/sessions{query}")).await.expect(200).json();
        paged.extend(page["items"].as_array().unwrap().clone());
        pages += 1;
        let Some(next) = page["next"].as_str() else { break };
        // What ends meanwhile hides nothing of the rest.
        if pages == 1 {
            let first = paged[1]["id"].as_str().unwrap();
            browser.json("DELETE", &format!("/v1/sessions/{first}"), &json!({})).await.expect(204);
        }
        query = format!("?limit=2&cursor={next}");
    }
    let ids = |items: &[Value]| items.iter().map(|s| s["id"].clone()).collect::<Vec<_>>();
    assert_eq!((ids(&paged), pages), (ids(whole["items"].as_array().unwrap()), 3));
    assert_eq!(paged.iter().filter(|s| s["current"] == true).count(), 1);
    for wrong in ["limit=0", "limit=1001", "cursor=x", "from=1"] {
        assert_eq!(
            browser.get(&format!("/v1/sessions?{wrong}")).await.problem(400),
            "bad-request",
            "{wrong}"
        );
    }
}
