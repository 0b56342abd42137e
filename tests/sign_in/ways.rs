//! The ways in that somebody has: what guards them, and that the last one stays.

use super::authenticator::Authenticator;
use super::browser::{Browser, location, query};
use super::issuer::{Issuer, Signed};
use super::{back, by_issuer, many, owner, use_link, with_issuer};
use crate::harness::{World, eventually};
use serde_json::{Value, json};
use statusledger::access::scope::Role;
use statusledger::access::sign_in::link::Whom;

/// Somebody new, invited, whose account at the issuer is `name`.
pub async fn invited(world: &World, issuer: &Issuer, team: &str, name: &str) -> Browser {
    let token = world.invitation(team).await;
    let mut browser = Browser::of(world);
    let start = format!("/sign-in/with/issuer?invitation={token}");
    let named = |c: &mut Value| {
        c["sub"] = name.into();
        c["email"] = format!("{name}@example.com").into();
    };
    assert_eq!(location(&by_issuer(&mut browser, issuer, &start, named, Signed::Rightly).await), "/account");
    browser.session().await;
    browser
}

/// Connects another account at the issuer with whoever is signed in.
async fn connect(browser: &mut Browser, issuer: &Issuer, name: &str) -> crate::harness::Answer {
    let begun = browser.json("POST", "/v1/identities/issuer", &json!({})).await.expect(200).json();
    let out = begun["location"].as_str().unwrap().to_owned();
    let mut claims = issuer.claims(name, &query(&out, "nonce"));
    claims["email_verified"] = false.into();
    issuer.say(&claims, Signed::Rightly);
    browser.get(&back(&out)).await
}

/// The addresses of one's accounts.
async fn accounts(browser: &mut Browser) -> Vec<String> {
    let list = browser.get("/v1/identities").await.expect(200).json();
    let address = |i: &Value| {
        format!("/v1/identities/{}/{}", i["provider"].as_str().unwrap(), i["id"].as_str().unwrap())
    };
    list["items"].as_array().unwrap().iter().map(address).collect()
}

#[tokio::test]
async fn an_account_is_disconnected_but_never_the_last_way_in() {
    let (world, issuer) = with_issuer().await;
    let mut ana = invited(&world, &issuer, "team", "ana").await;
    let first = accounts(&mut ana).await;
    assert_eq!(first.len(), 1);
    let answer = ana.json("DELETE", &first[0], &json!({})).await;
    assert_eq!(answer.problem(409), "conflict", "it is the only way in");
    assert_eq!(accounts(&mut ana).await, first);

    assert_eq!(location(&connect(&mut ana, &issuer, "ana-again").await), "/account");
    // Not somebody else's, not at another provider, not without the session's token.
    let mut ben = invited(&world, &issuer, "team of ben", "ben").await;
    assert_eq!(ben.json("DELETE", &first[0], &json!({})).await.problem(404), "not-found");
    let elsewhere = first[0].replace("/issuer/", "/twin/");
    assert_eq!(ana.json("DELETE", &elsewhere, &json!({})).await.problem(404), "not-found");
    let mut forged = ana.clone();
    forged.headers.clear();
    assert_eq!(forged.json("DELETE", &first[0], &json!({})).await.problem(403), "csrf");

    ana.json("DELETE", &first[0], &json!({})).await.expect(204);
    assert_eq!(ana.json("DELETE", &first[0], &json!({})).await.problem(404), "not-found");
    let left = accounts(&mut ana).await;
    assert_eq!(left.len(), 1);
    // The account signs nobody in any more; the other one does.
    let start = "/sign-in/with/issuer";
    let answer = by_issuer(&mut Browser::of(&world), &issuer, start, |_| (), Signed::Rightly).await;
    assert_eq!(answer.status, 403);
    world.failed("unknown_identity").await;
    let again = |c: &mut Value| c["sub"] = "ana-again".into();
    let mut other = Browser::of(&world);
    assert_eq!(location(&by_issuer(&mut other, &issuer, start, again, Signed::Rightly).await), "/account");

    // Two removals at once leave one way in.
    assert_eq!(location(&connect(&mut ana, &issuer, "ana-thrice").await), "/account");
    let both = accounts(&mut ana).await;
    let (mut one, mut two) = (ana.clone(), ana.clone());
    let nothing = json!({});
    let (a, b) = tokio::join!(one.json("DELETE", &both[0], &nothing), two.json("DELETE", &both[1], &nothing));
    let mut statuses = [a.status, b.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [204, 409]);

    let removed = world.of_the_instance("audit.identity.removed").await;
    assert_eq!(removed.len(), 2);
    let user = ana.user().await;
    let id = first[0].rsplit('/').next().unwrap();
    assert_eq!(removed[0]["data"]["actor"]["id"], user.as_str());
    assert_eq!(removed[0]["data"]["details"], json!({ "provider": "issuer" }));
    assert_eq!(
        removed[0]["data"]["targets"],
        json!([{ "type": "user", "id": user }, { "type": "identity", "id": id }])
    );
    let added = world.of_the_instance("audit.identity.added").await;
    let second = left[0].rsplit('/').next().unwrap();
    assert_eq!(added[0]["data"]["targets"][1], json!({ "type": "identity", "id": second }));
}

#[tokio::test]
async fn ways_in_are_guarded_by_a_passkey_and_a_passkey_is_a_way_in() {
    let (world, issuer) = with_issuer().await;
    let mut ana = invited(&world, &issuer, "team", "ana").await;
    // Begun before there was a passkey, finished after it: the guard looks again.
    let begun = ana.json("POST", "/v1/identities/issuer", &json!({})).await.expect(200).json();
    let mut stolen = ana.clone();
    let mut authenticator = Authenticator::new();
    let passkey = authenticator.add(&mut ana).await;
    let out = begun["location"].as_str().unwrap().to_owned();
    issuer.say(&issuer.claims("mallory", &query(&out, "nonce")), Signed::Rightly);
    assert_eq!(stolen.get(&back(&out)).await.status, 403);
    // A session that began at the provider changes no way in.
    let account = accounts(&mut ana).await[0].clone();
    for (method, address) in [
        ("POST", "/v1/identities/issuer"),
        ("POST", "/v1/passkeys/challenge"),
        ("DELETE", &account),
        ("DELETE", &format!("/v1/passkeys/{passkey}")),
    ] {
        let answer = ana.json(method, address, &json!({})).await;
        assert_eq!(answer.problem(403), "passkey-required", "{method} {address}");
    }
    assert!(world.of_the_instance("audit.identity.added").await.is_empty());

    // One that began with the passkey does; and then the passkey is the last.
    let mut browser = Browser::of(&world);
    assert_eq!(authenticator.sign_in(&mut browser, None).await.expect(200).json()["next"], "/account");
    assert_eq!(browser.session().await["passkey"], true);
    assert_eq!(browser.user().await, ana.user().await);
    browser.json("DELETE", &account, &json!({})).await.expect(204);
    let last = format!("/v1/passkeys/{passkey}");
    assert_eq!(browser.json("DELETE", &last, &json!({})).await.problem(409), "conflict");
    // Another one, and it may go.
    let mut second = Authenticator::new();
    second.add(&mut browser).await;
    browser.json("DELETE", &last, &json!({})).await.expect(204);
    let answer = authenticator.sign_in(&mut Browser::of(&world), None).await;
    assert_eq!(answer.problem(403), "unknown-passkey");
    second.sign_in(&mut Browser::of(&world), None).await.expect(200);
}

#[tokio::test]
async fn a_workspace_that_asks_for_passkeys_takes_its_owner_with_one() {
    let world = World::with(many).await;
    let mut by_link = owner(&world).await;
    let mut authenticator = Authenticator::new();
    authenticator.add(&mut by_link).await;
    let made = by_link.json("POST", "/v1/workspaces", &json!({ "name": "guarded" })).await.expect(201).json();
    let path = format!("/v1/workspaces/{}", made["id"].as_str().unwrap());
    let asked = json!({ "passkey_required": true });
    by_link.json("PATCH", &path, &asked).await.expect(200);

    // The same owner, without and with it.
    let mut with_it = Browser::of(&world);
    authenticator.sign_in(&mut with_it, None).await.expect(200);
    with_it.session().await;
    assert_eq!(with_it.user().await, by_link.user().await);
    for (method, address, body) in [
        ("GET", path.clone(), json!(null)),
        ("GET", format!("{path}/members"), json!(null)),
        ("PATCH", path.clone(), json!({ "name": "guarded still" })),
        ("POST", format!("{path}/sources"), json!({ "kind": "inbound", "name": "events" })),
    ] {
        let refused = by_link.json(method, &address, &body).await;
        assert_eq!(refused.problem(403), "passkey-required", "{method} {address}");
        let taken = with_it.json(method, &address, &body).await;
        assert!((200..=201).contains(&taken.status), "{method} {address}: {}", taken.text());
    }
    // Nor does a session without one end their part in it, and what they have there.
    let leave = by_link.json("DELETE", &format!("{path}/membership"), &json!({})).await;
    assert_eq!(leave.problem(403), "passkey-required");
    // Who is neither owner nor administrator is not asked for one; an administrator is.
    let workspace = made["id"].as_str().unwrap().parse().unwrap();
    for (role, allowed) in [(Role::Member, true), (Role::Auditor, true), (Role::Admin, false)] {
        let person = world.person(&format!("{}@example.com", role.name()), &[(workspace, role)]).await;
        let mut browser = Browser::of(&world);
        browser.set_cookie("sl_session", person.cookie.split_once('=').unwrap().1);
        let answer = browser.get(&path).await;
        assert_eq!(answer.status, if allowed { 200 } else { 403 }, "{role:?}");
        browser.session().await;
        let leave = browser.json("DELETE", &format!("{path}/membership"), &json!({})).await;
        assert_eq!(leave.status, if allowed { 200 } else { 403 }, "{role:?}");
    }
    // A link is no passkey, though it may change passkeys.
    let user = by_link.user().await.parse().unwrap();
    let mut again = Browser::of(&world);
    use_link(&mut again, &world.link(Whom::User(user)).await).await;
    assert_eq!(again.get(&path).await.problem(403), "passkey-required");
    eventually("the refusals on the workspace's record", || async {
        let entries = world.api.get(&format!("{path}/entries?type=audit.access.denied")).await.expect(200);
        let entries = entries.json()["items"].as_array().unwrap().clone();
        let of_them = entries.iter().filter(|e| e["data"]["reason"] == "passkey_required");
        let count: u64 = of_them.map(|e| e["data"]["details"]["count"].as_u64().unwrap()).sum();
        (count == 8).then_some(())
    })
    .await;
}

#[tokio::test]
async fn one_identity_is_limited_from_however_many_addresses_it_comes() {
    let issuer = Issuer::start().await;
    let address = issuer.address.clone();
    let world = World::with(|settings| {
        settings.access.sign_in_requests_per_minute = 10_000;
        settings.access.sign_ins_per_identity_per_minute = 2;
        settings.trusted_proxies = vec!["127.0.0.0/8".into(), "::1/128".into()];
        settings.access.providers = vec![super::provider("issuer", super::ProviderKind::Oidc, &address)];
    })
    .await;
    let from = |n: u8| {
        let mut browser = Browser::of(&world);
        browser.headers = vec![("x-forwarded-for", format!("203.0.113.{n}"))];
        browser
    };
    let start = "/sign-in/with/issuer";
    // Known here or not, and whatever the issuer says of them besides.
    for n in 0..6 {
        let (mut browser, known) = (from(n), |c: &mut Value| c["email"] = format!("{n}@example.com").into());
        let answer = by_issuer(&mut browser, &issuer, start, known, Signed::Rightly).await;
        if n < 2 {
            assert_eq!(answer.status, 403, "{n}");
            assert!(answer.text().contains("You need an invitation"));
        } else {
            assert_eq!(answer.status, 429, "{n}");
            let wait: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
            assert!((1..=30).contains(&wait), "{wait}");
        }
    }
    // Another identity from the same address is not meant.
    let other = |c: &mut Value| c["sub"] = "ben".into();
    let answer = by_issuer(&mut from(5), &issuer, start, other, Signed::Rightly).await;
    assert_eq!(answer.status, 403);
    // A link is one identity too, whoever tries it.
    let link = world.link(Whom::FirstOwner).await;
    let wrong = format!("{}X", &link[..link.len() - 1]);
    let mut statuses = Vec::new();
    for n in 0..4 {
        statuses.push(use_link(&mut from(n), &wrong).await.status);
    }
    assert_eq!(statuses, [403, 403, 429, 429]);
    assert_eq!(use_link(&mut from(9), &link).await.status, 303);
    eventually("the limit on the record", || async {
        let entries = world.of_the_instance("audit.access.denied").await;
        let count = |route: &str| -> u64 {
            let of_it = entries.iter().filter(|e| e["data"]["reason"] == "rate_limited");
            // Where nobody is known, routes are counted inside of one entry.
            of_it.filter_map(|e| e["data"]["details"]["routes"][route].as_u64()).sum()
        };
        let both = (count("GET /sign-in/callback/{provider}"), count("POST /sign-in/link"));
        (both == (4, 2)).then_some(())
    })
    .await;
}

/// Moves the beginning of all sessions back.
async fn age(world: &World, minutes: i32) {
    sqlx::query("UPDATE sessions SET created_at = now() - make_interval(mins => $1)")
        .bind(minutes)
        .execute(&mut world.database.superuser().await)
        .await
        .unwrap();
}

/// What a new passkey is sent with.
async fn begun_passkey(browser: &mut Browser, authenticator: &mut Authenticator) -> Value {
    let begun = browser.json("POST", "/v1/passkeys/challenge", &json!({})).await.expect(200).json();
    let credential = authenticator.create(&begun["options"], browser);
    json!({ "state": begun["state"], "name": "A key", "credential": credential })
}

#[tokio::test]
async fn who_has_no_passkey_changes_their_ways_in_only_soon_after_a_sign_in() {
    let (world, issuer) = with_issuer().await;
    let mut ana = invited(&world, &issuer, "team", "ana").await;
    connect(&mut ana, &issuer, "ana-again").await;
    let account = accounts(&mut ana).await[1].clone();
    let asked =
        [("POST", "/v1/identities/issuer"), ("POST", "/v1/passkeys/challenge"), ("DELETE", account.as_str())];
    age(&world, 11).await;
    for (method, address) in asked {
        let answer = ana.json(method, address, &json!({})).await;
        assert_eq!(answer.problem(403), "sign-in-again", "{method} {address}");
    }
    assert_eq!(accounts(&mut ana).await.len(), 2);
    // What was begun in time is ended in its own time, and not later.
    for (minutes, taken) in [(18, true), (21, false)] {
        age(&world, 5).await;
        let begun = ana.json("POST", "/v1/identities/issuer", &json!({})).await.expect(200).json();
        let out = begun["location"].as_str().unwrap().to_owned();
        issuer.say(&issuer.claims(&format!("ana-{minutes}"), &query(&out, "nonce")), Signed::Rightly);
        age(&world, minutes).await;
        assert_eq!(ana.get(&back(&out)).await.status, if taken { 303 } else { 403 }, "{minutes}");
    }
    age(&world, 5).await;
    let mut authenticator = Authenticator::new();
    let new = begun_passkey(&mut ana, &mut authenticator).await;
    age(&world, 21).await;
    assert_eq!(ana.json("POST", "/v1/passkeys", &new).await.problem(403), "sign-in-again");
    age(&world, 5).await;
    let mut new = begun_passkey(&mut ana, &mut authenticator).await;
    age(&world, 18).await;
    // Called as nothing else here can be called either.
    for hidden in ["a\u{202e}b", "\u{200b}", "a\nb"] {
        let name = std::mem::replace(&mut new["name"], hidden.into());
        assert_eq!(ana.json("POST", "/v1/passkeys", &new).await.problem(422), "invalid", "{hidden:?}");
        new["name"] = name;
    }
    ana.json("POST", "/v1/passkeys", &new).await.expect(201);
    // Signed in with it, it may have been long ago.
    let mut browser = Browser::of(&world);
    authenticator.sign_in(&mut browser, None).await.expect(200);
    browser.session().await;
    age(&world, 60).await;
    browser.json("DELETE", &account, &json!({})).await.expect(204);
}

/// Whether an owner's or administrator's session opens a workspace that asks for passkeys.
async fn opens(browser: &mut Browser, path: &str) -> bool {
    let answer = browser.get(&format!("{path}/members")).await;
    if answer.status != 200 {
        assert_eq!(answer.problem(403), "passkey-required");
    }
    answer.status == 200
}

/// Signs in with it in a new browser.
async fn with_it(world: &World, authenticator: &mut Authenticator) -> Browser {
    let mut browser = Browser::of(world);
    authenticator.sign_in(&mut browser, None).await.expect(200);
    browser.session().await;
    browser
}

#[tokio::test]
async fn a_passkey_that_came_by_way_of_a_provider_after_it_was_asked_for_does_not_count() {
    let (world, issuer) = with_issuer().await;
    let workspace = world.workspace("guarded").await;
    let mut people = Vec::new();
    for name in ["early", "late"] {
        let mut browser = invited(&world, &issuer, name, name).await;
        world.join(workspace.id, browser.user().await.parse().unwrap(), Role::Owner).await;
        people.push(browser);
    }
    let (mut late, mut early) = (people.pop().unwrap(), people.pop().unwrap());
    let mut of_early = Authenticator::new();
    of_early.add(&mut early).await;
    world.api.patch(&workspace.path, json!({ "passkey_required": true })).await.expect(200);

    // One that was there before counts, and so does one that it vouches for.
    let mut early = with_it(&world, &mut of_early).await;
    assert!(opens(&mut early, &workspace.path).await);
    let mut another = Authenticator::new();
    another.add(&mut early).await;
    assert!(opens(&mut with_it(&world, &mut another).await, &workspace.path).await);

    // Whoever has somebody's account has no way in by adding the first, nor by adding more from there.
    assert!(!opens(&mut late, &workspace.path).await);
    let mut of_late = Authenticator::new();
    of_late.add(&mut late).await;
    let mut stolen = with_it(&world, &mut of_late).await;
    assert!(!opens(&mut stolen, &workspace.path).await);
    let told = stolen.get(&workspace.path).await.json()["detail"].as_str().unwrap().to_owned();
    assert!(told.contains("one-time link"), "{told}");
    let mut from_there = Authenticator::new();
    from_there.add(&mut stolen).await;
    assert!(!opens(&mut with_it(&world, &mut from_there).await, &workspace.path).await);
    // Asked for again while it is asked for, nothing begins anew.
    world.api.patch(&workspace.path, json!({ "passkey_required": true })).await.expect(200);
    assert!(!opens(&mut stolen, &workspace.path).await);

    // A link of the operator's lets them add one that counts, and that one others.
    let user = late.user().await.parse().unwrap();
    let mut by_link = Browser::of(&world);
    use_link(&mut by_link, &world.link(Whom::User(user)).await).await;
    by_link.session().await;
    assert!(!opens(&mut by_link, &workspace.path).await);
    let mut good = Authenticator::new();
    good.add(&mut by_link).await;
    let mut late = with_it(&world, &mut good).await;
    assert!(opens(&mut late, &workspace.path).await);
    let mut next = Authenticator::new();
    next.add(&mut late).await;
    assert!(opens(&mut with_it(&world, &mut next).await, &workspace.path).await);

    // So does the first passkey of somebody who comes with an invitation and without a provider.
    let body = json!({ "email": "new@example.com", "role": "admin" });
    let made = world.api.post(&workspace.at("/invitations"), body).await.expect(201).json();
    let (mut new, mut authenticator) = (Browser::of(&world), Authenticator::new());
    let asked = json!({ "invitation": made["token"], "name": "New" });
    let begun = new.json("POST", "/sign-in/invited/challenge", &asked).await.expect(200).json();
    let credential = authenticator.create(&begun["options"], &new);
    let answer = json!({ "state": begun["state"], "credential": credential });
    new.json("POST", "/sign-in/invited", &answer).await.expect(200);
    assert!(opens(&mut new, &workspace.path).await);
}

#[tokio::test]
async fn what_is_asked_of_owners_is_lifted_by_an_owner_with_a_passkey_or_by_the_instance() {
    let world = World::with(many).await;
    let workspace = world.workspace("guarded").await;
    let required = |yes: bool| json!({ "passkey_required": yes });
    let mut by_link = owner(&world).await;
    world.join(workspace.id, by_link.user().await.parse().unwrap(), Role::Owner).await;
    let mut authenticator = Authenticator::new();
    authenticator.add(&mut by_link).await;
    let mut with_passkey = with_it(&world, &mut authenticator).await;
    // Whoever may change the workspace may ask for more.
    let keys = workspace.at("/keys");
    let mut tokens = Vec::new();
    for scope in ["workspace:write", "admin"] {
        let made =
            world.api.post(&keys, json!({ "name": scope, "scopes": [scope] })).await.expect(201).json();
        tokens.push(made["token"].as_str().unwrap().to_owned());
    }
    let patch = |token: String, body: Value| {
        crate::harness::send(world.api.bare("PATCH", &workspace.path).bearer_auth(token).json(&body))
    };
    patch(tokens[0].clone(), required(true)).await.expect(200);
    for token in &tokens {
        assert_eq!(patch(token.clone(), required(false)).await.problem(403), "passkey-required");
        // The rest of it is theirs.
        patch(token.clone(), json!({ "name": "guarded", "passkey_required": true })).await.expect(200);
    }
    let mut administrator = with_passkey.clone();
    let member = workspace.at(&format!("/members/{}", administrator.user().await));
    world.api.patch(&member, json!({ "role": "admin" })).await.problem(409);
    world.person_of("another", workspace.id, Role::Owner).await;
    world.api.patch(&member, json!({ "role": "admin" })).await.expect(204);
    let refused = administrator.json("PATCH", &workspace.path, &required(false)).await;
    assert_eq!(refused.problem(403), "passkey-required");
    assert_eq!(administrator.get(&workspace.path).await.expect(200).json()["passkey_required"], true);
    // What was refused is on the record.
    eventually("the refusals on the record", || async {
        let path = workspace.at("/entries?limit=1000&type=audit.access.denied");
        let entries = world.api.get(&path).await.expect(200).json()["items"].clone();
        let beyond = entries.as_array().unwrap().iter().filter(|e| e["data"]["reason"] == "beyond").count();
        (beyond == 3).then_some(())
    })
    .await;
    world.api.patch(&member, json!({ "role": "owner" })).await.expect(204);
    with_passkey.json("PATCH", &workspace.path, &required(false)).await.expect(200);
    by_link.json("PATCH", &workspace.path, &required(true)).await.expect(200);
    assert_eq!(
        by_link.json("PATCH", &workspace.path, &required(false)).await.problem(403),
        "passkey-required"
    );
    world.api.patch(&workspace.path, required(false)).await.expect(200);
}

#[tokio::test]
async fn sessions_end_with_the_passkey_that_they_began_with() {
    let world = World::with(many).await;
    let mut by_link = owner(&world).await;
    let (mut lost, mut kept) = (Authenticator::new(), Authenticator::new());
    let passkey = lost.add(&mut by_link).await;
    kept.add(&mut by_link).await;
    let mut of_lost = [with_it(&world, &mut lost).await, with_it(&world, &mut lost).await];
    let mut of_kept = with_it(&world, &mut kept).await;
    of_kept.json("DELETE", &format!("/v1/passkeys/{passkey}"), &json!({})).await.expect(204);
    for browser in &mut of_lost {
        assert_eq!(browser.get("/v1/session").await.problem(401), "unauthorized");
    }
    for browser in [&mut of_kept, &mut by_link] {
        browser.get("/v1/session").await.expect(200);
    }
    let removed = world.of_the_instance("audit.passkey.removed").await;
    assert_eq!(removed[0]["data"]["details"], json!({ "sessions_ended": 2 }));
}
