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
    assert_eq!(answer.problem(403), "unknown_passkey");
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
    // Who is neither owner nor administrator is not asked for one; an administrator is.
    let workspace = made["id"].as_str().unwrap().parse().unwrap();
    for (role, allowed) in [(Role::Member, true), (Role::Auditor, true), (Role::Admin, false)] {
        let person = world.person(&format!("{}@example.com", role.name()), &[(workspace, role)]).await;
        let mut browser = Browser::of(&world);
        browser.set_cookie("sl_session", person.cookie.split_once('=').unwrap().1);
        let answer = browser.get(&path).await;
        assert_eq!(answer.status, if allowed { 200 } else { 403 }, "{role:?}");
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
        (count == 6).then_some(())
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
            let of_it = of_it.filter(|e| e["data"]["details"]["route"] == route);
            of_it.map(|e| e["data"]["details"]["count"].as_u64().unwrap()).sum()
        };
        let both = (count("GET /sign-in/callback/{provider}"), count("POST /sign-in/link"));
        (both == (4, 2)).then_some(())
    })
    .await;
}
