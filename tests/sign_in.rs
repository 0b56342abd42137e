//! Sign-in: at a real OpenID provider, at one that lies, at GitHub, by links; who comes in, who does not, and the record
//! of both. Passkeys need a browser: tests/sign_in/run.sh.

mod authenticator;
mod browser;
mod cut_off;
mod disabled;
mod issuer;
mod proxy;
mod ways;

use crate::harness::{World, eventually, send, temporary};
use browser::{Browser, location, query};
use issuer::{Github, Issuer, SECRET, Signed};
use serde_json::{Value, json};
use statusledger::access::sign_in::link::{self, Whom};
use statusledger::audit::Act;
use statusledger::config::{ProviderKind, ProviderSettings, Settings};
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

fn provider(id: &str, kind: ProviderKind, address: &str) -> ProviderSettings {
    let secret = temporary("client").join("secret");
    std::fs::write(&secret, format!("{SECRET}\n")).unwrap();
    ProviderSettings {
        id: id.into(),
        kind,
        name: format!("The {id}"),
        issuer: Some(address.into()),
        client_id: "statusledger".into(),
        client_secret_file: Some(secret),
        scopes: vec!["email".into(), "profile".into()],
        url: Some(address.into()),
        api_url: Some(address.into()),
    }
}

fn many(settings: &mut Settings) {
    settings.access.sign_in_requests_per_minute = 10_000;
    settings.access.sign_ins_per_identity_per_minute = 1000;
}

/// A world with an issuer.
async fn with_issuer() -> (World, Issuer) {
    let issuer = Issuer::start().await;
    let address = issuer.address.clone();
    let world = World::with(|settings| {
        many(settings);
        settings.access.providers = vec![
            provider("issuer", ProviderKind::Oidc, &address),
            provider("twin", ProviderKind::Oidc, &address),
        ];
    })
    .await;
    (world, issuer)
}

impl World {
    /// The entries of a type in the instance's own ledger.
    async fn of_the_instance(&self, kind: &str) -> Vec<Value> {
        let instance = self.node().instance.workspace;
        let path = format!("/v1/workspaces/{instance}/entries?limit=1000&type={kind}");
        self.api.get(&path).await.expect(200).json()["items"].as_array().unwrap().clone()
    }

    /// Waits for a failed sign-in with that reason on the record.
    async fn failed(&self, reason: &str) -> Value {
        eventually(&format!("a failed sign-in for {reason}"), || async {
            let entries = self.of_the_instance("audit.session.sign_in_failed").await;
            entries.into_iter().find(|e| e["data"]["reason"] == reason)
        })
        .await
    }

    /// An invitation into a workspace of that name.
    async fn invitation(&self, name: &str) -> String {
        let workspace = self.workspace(name).await;
        let invited = json!({ "email": "somebody@example.com", "role": "member" });
        let made = self.api.post(&workspace.at("/invitations"), invited).await.expect(201).json();
        made["token"].as_str().unwrap().to_owned()
    }

    /// A one-time link's text.
    async fn link(&self, whom: Whom) -> String {
        let node = self.node();
        link::make(&node.writer, &Act::operator(), node.instance.workspace, whom).await.unwrap().to_string()
    }
}

/// What the link's page has to be sent with.
fn state_of(page: &str) -> String {
    page.split("name=\"state\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned()
}

async fn use_link(browser: &mut Browser, link: &str) -> crate::harness::Answer {
    let page = browser.get(&format!("/sign-in/link/{link}")).await.expect(200);
    let state = state_of(page.text());
    browser.form("/sign-in/link", &[("state", &state), ("link", link)]).await
}

/// A browser in which the first owner is signed in.
async fn owner(world: &World) -> Browser {
    let mut browser = Browser::of(world);
    let link = world.link(Whom::FirstOwner).await;
    assert_eq!(location(&use_link(&mut browser, &link).await), "/account");
    browser.session().await;
    browser
}

/// Goes to the issuer and comes back with a token of these claims.
async fn by_issuer(
    browser: &mut Browser,
    issuer: &Issuer,
    start: &str,
    change: impl FnOnce(&mut Value),
    signed: Signed,
) -> crate::harness::Answer {
    let out = location(&browser.get(start).await);
    let mut claims = issuer.claims("ana", &query(&out, "nonce"));
    change(&mut claims);
    issuer.say(&claims, signed);
    browser.get(&back(&out)).await
}

/// The way back from the provider.
fn back(out: &str) -> String {
    format!("/sign-in/callback/issuer?code=c&state={}", query(out, "state"))
}

#[tokio::test]
async fn at_a_real_openid_provider_with_an_invitation_and_without_one_again() {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sign_in");
    if !directory.join("node_modules/oidc-provider").exists() {
        assert!(
            std::env::var_os("STATUSLEDGER_SIGN_IN_REQUIRED").is_none(),
            "npm's oidc-provider is not installed"
        );
        eprintln!("skipped: `npm ci` in tests/sign_in installs an OpenID provider");
        return;
    }
    let mut node = tokio::process::Command::new("node")
        .arg("provider.mjs")
        .current_dir(&directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(node.stdout.take().unwrap()).lines();
    let issuer = lines.next_line().await.unwrap().unwrap();
    let world = World::with(|settings| {
        many(settings);
        settings.access.providers = vec![provider("real", ProviderKind::Oidc, &issuer)];
    })
    .await;
    let mut browser = Browser::of(&world);
    let to = browser.url("/sign-in/callback/real");
    let mut input = node.stdin.take().unwrap();
    input.write_all(format!("{to}\n").as_bytes()).await.unwrap();
    assert_eq!(lines.next_line().await.unwrap().unwrap(), "ready");

    // Without an invitation nobody new comes in.
    let refused = at_real(&mut browser, "/sign-in/with/real", "eve").await;
    assert_eq!(refused.status, 403);
    assert!(refused.text().contains("You need an invitation"));
    assert!(browser.cookie("sl_session").is_none());
    let entry = world.failed("unknown_identity").await;
    assert_eq!(entry["data"]["details"]["method"], "oidc");
    assert_eq!(entry["data"]["details"]["provider"], "real");

    let token = world.invitation("team").await;
    let mut ana = Browser::of(&world);
    let page = ana.get(&format!("/invite/{token}")).await.expect(200);
    assert!(page.text().contains("<strong>team</strong>") && page.text().contains("<strong>member</strong>"));
    let start = format!("/sign-in/with/real?invitation={token}");
    assert!(page.text().contains(&start));
    assert_eq!(location(&at_real(&mut ana, &start, "ana").await), "/account");
    let session = ana.session().await;
    assert_eq!(session["name"], "ana at the provider");
    assert_eq!(session["email"], "ana@example.com");
    let mine = ana.get("/v1/workspaces").await.expect(200).json();
    assert_eq!(mine["items"][0]["name"], "team");

    // From then on they are known, wherever they come from.
    let mut again = Browser::of(&world);
    assert_eq!(location(&at_real(&mut again, "/sign-in/with/real", "ana").await), "/account");
    assert_eq!(again.user().await, session["user"].as_str().unwrap());
    let entries = world.of_the_instance("audit.session.signed_in").await;
    assert_eq!(entries.len(), 2);
    for entry in &entries {
        assert_eq!(entry["data"]["actor"]["id"], session["user"]);
        assert_eq!(entry["data"]["details"], json!({ "method": "oidc", "provider": "real" }));
        assert!(!entry.to_string().contains("ana@example.com") && !entry.to_string().contains("127.0.0.1"));
    }
    // The invitation is used up.
    assert_eq!(Browser::of(&world).get(&format!("/invite/{token}")).await.status, 403);
}

/// Signs in as `name` at npm's oidc-provider: its login form, then its consent form.
async fn at_real(browser: &mut Browser, start: &str, name: &str) -> crate::harness::Answer {
    let mut answer = browser.get(start).await;
    let mut at = start.to_owned();
    for _ in 0..12 {
        if answer.status == 200 && at.contains("/interaction/") {
            let fields: Vec<(&str, &str)> = if answer.text().contains("name=\"login\"") {
                vec![("prompt", "login"), ("login", name), ("password", "x")]
            } else {
                vec![("prompt", "consent")]
            };
            answer = browser.form(&at, &fields).await;
            continue;
        }
        if at.contains("/sign-in/callback/") {
            return answer;
        }
        at = browser.url_from(&at, &location(&answer));
        answer = browser.get(&at).await;
    }
    panic!("the provider goes round in circles at {at}");
}

#[tokio::test]
async fn an_id_token_that_does_not_hold_signs_nobody_in() {
    let (world, issuer) = with_issuer().await;
    let token = world.invitation("team").await;
    let start = format!("/sign-in/with/issuer?invitation={token}");
    type Change = fn(&mut Value);
    let past: Change = |c| {
        c["iat"] = (c["iat"].as_i64().unwrap() - 7200).into();
        c["exp"] = (c["exp"].as_i64().unwrap() - 7200).into();
    };
    let cases: [(&str, Change, Signed); 13] = [
        ("nonce", |c| c["nonce"] = "another".into(), Signed::Rightly),
        ("nonce", |c| drop(c.as_object_mut().unwrap().remove("nonce")), Signed::Rightly),
        ("audience", |c| c["aud"] = "somebody else".into(), Signed::Rightly),
        ("audience", |c| c["aud"] = json!(["statusledger", "somebody else"]), Signed::Rightly),
        ("audience", |c| c["azp"] = "another client".into(), Signed::Rightly),
        ("issued_at", |c| c["iat"] = (c["iat"].as_i64().unwrap() + 86_400).into(), Signed::Rightly),
        ("issued_at", |c| c["iat"] = (c["iat"].as_i64().unwrap() - 3600).into(), Signed::Rightly),
        ("issuer", |c| c["iss"] = "https://accounts.example.com".into(), Signed::Rightly),
        ("expired", past, Signed::Rightly),
        ("signature", |_| (), Signed::Not),
        ("signature", |_| (), Signed::ByTheSecret),
        ("signature", |_| (), Signed::ByThePublicKey),
        ("signature", |_| (), Signed::ByAnother),
    ];
    for (reason, change, signed) in cases {
        let mut browser = Browser::of(&world);
        let answer = by_issuer(&mut browser, &issuer, &start, change, signed).await;
        assert_eq!(answer.status, 403, "{reason} {signed:?}");
        assert!(browser.cookie("sl_session").is_none(), "{reason} {signed:?}");
        world.failed(reason).await;
    }
    assert!(world.of_the_instance("audit.session.signed_in").await.is_empty());
    // And one that holds does, with a verifier that matches the challenge.
    let mut browser = Browser::of(&world);
    let out = location(&browser.get(&start).await);
    assert_eq!(query(&out, "code_challenge_method"), "S256");
    let mut claims = issuer.claims("ana", &query(&out, "nonce"));
    claims["azp"] = "statusledger".into();
    issuer.say(&claims, Signed::Rightly);
    assert_eq!(location(&browser.get(&back(&out)).await), "/account");
    let verifier = issuer.asked()["code_verifier"].clone();
    assert_eq!(query(&out, "code_challenge"), issuer::challenge_of(&verifier));
    assert_eq!(issuer.asked()["redirect_uri"], browser.url("/sign-in/callback/issuer").as_str());
}

#[tokio::test]
async fn an_answer_says_whose_it_is_where_its_issuer_announces_that() {
    let issuer = Issuer::announcing().await;
    let address = issuer.address.clone();
    let world = World::with(|settings| {
        many(settings);
        settings.access.providers = vec![provider("issuer", ProviderKind::Oidc, &address)];
    })
    .await;
    let token = world.invitation("team").await;
    let start = format!("/sign-in/with/issuer?invitation={token}");
    for (said, taken) in
        [(None, false), (Some("https://another.example.com"), false), (Some(address.as_str()), true)]
    {
        let mut browser = Browser::of(&world);
        let out = location(&browser.get(&start).await);
        issuer.say(&issuer.claims("ana", &query(&out, "nonce")), Signed::Rightly);
        let mut back = back(&out);
        if let Some(said) = said {
            back.push_str(
                &url::form_urlencoded::Serializer::new("&".to_owned()).append_pair("iss", said).finish(),
            );
        }
        let answer = browser.get(&back).await;
        assert_eq!(answer.status, if taken { 303 } else { 403 }, "{said:?}");
    }
    let entry = world.failed("issuer").await;
    assert_eq!(entry["data"]["details"]["provider"], "issuer");
    // The code was not shown to anybody before.
    assert_eq!(issuer.times_asked(), 1);
}

#[tokio::test]
async fn a_key_that_the_issuer_changed_to_is_asked_for_at_once_but_not_for_every_token() {
    let (world, issuer) = with_issuer().await;
    let token = world.invitation("team").await;
    let start = "/sign-in/with/issuer";
    let arrives = async |start: &str, signed| {
        let mut browser = Browser::of(&world);
        by_issuer(&mut browser, &issuer, start, |_| (), signed).await
    };
    let first = format!("{start}?invitation={token}");
    assert_eq!(location(&arrives(&first, Signed::Rightly).await), "/account");
    assert_eq!(issuer.keys_asked(), 1);
    // The same key id with another key is a signature that does not hold, and no reason to ask again.
    issuer.rotate("k");
    assert_eq!(arrives(start, Signed::Rightly).await.status, 403);
    world.failed("signature").await;
    assert_eq!(issuer.keys_asked(), 1);
    // A new key under its own id is, however young what is known is.
    issuer.rotate("k2");
    assert_eq!(location(&arrives(start, Signed::Rightly).await), "/account");
    assert_eq!(issuer.keys_asked(), 2);
    assert_eq!(location(&arrives(start, Signed::Rightly).await), "/account");
    assert_eq!(issuer.keys_asked(), 2);
    // Tokens by keys that the issuer does not have cannot make us ask it each time: once in ten seconds.
    let began = std::time::Instant::now();
    for _ in 0..20 {
        assert_eq!(arrives(start, Signed::ByAKeyThatIsNotListed).await.status, 403);
    }
    let most = 2 + 1 + usize::try_from(began.elapsed().as_secs() / 10).unwrap();
    assert!(issuer.keys_asked() <= most && most < 22, "{} times", issuer.keys_asked());
    // Who has a good one comes in meanwhile.
    assert_eq!(location(&arrives(start, Signed::Rightly).await), "/account");
}

#[tokio::test]
async fn an_answer_belongs_to_one_browser_one_provider_and_one_time() {
    let (world, issuer) = with_issuer().await;
    let token = world.invitation("team").await;
    let start = format!("/sign-in/with/issuer?invitation={token}");
    let mut ana = Browser::of(&world);
    let out = location(&ana.get(&start).await);
    issuer.say(&issuer.claims("ana", &query(&out, "nonce")), Signed::Rightly);
    let back = back(&out);

    // Another browser: without any sign-in, and with one of its own.
    let mut mallory = Browser::of(&world);
    assert_eq!(mallory.get(&back).await.status, 403);
    mallory.get("/sign-in/with/issuer").await;
    assert_eq!(mallory.get(&back).await.status, 403);
    world.failed("other_browser").await;
    // A state that was changed, or is missing.
    let state = query(&out, "state");
    let last = if state.ends_with('A') { 'B' } else { 'A' };
    for state in
        ["", "x", "0199b1c400007000800000000000000a.x", &format!("{}{last}", &state[..state.len() - 2])]
    {
        assert_eq!(
            ana.get(&format!("/sign-in/callback/issuer?code=c&state={state}")).await.status,
            403,
            "{state}"
        );
    }
    assert_eq!(ana.get("/sign-in/callback/issuer?code=c").await.status, 403);
    assert_eq!(issuer.times_asked(), 0, "no code was handed on");

    // It is still Ana's, once.
    assert_eq!(location(&ana.clone().get(&back).await), "/account");
    assert_eq!(ana.get(&back).await.status, 403);
    world.failed("answered").await;
    assert_eq!(issuer.times_asked(), 1);

    // Of two at once one finds it.
    let out = location(&ana.get("/sign-in/with/issuer").await);
    issuer.say(&issuer.claims("ana", &query(&out, "nonce")), Signed::Rightly);
    let (mut one, mut other, back) = (ana.clone(), ana.clone(), self::back(&out));
    let (a, b) = tokio::join!(one.get(&back), other.get(&back));
    let mut both = [a.status, b.status];
    both.sort_unstable();
    assert_eq!(both, [303, 403]);

    // Brought to another provider's address, or said to be another issuer's, or a refusal.
    for (path, reason) in [
        ("/sign-in/callback/twin?code=c&state=", "issuer"),
        ("/sign-in/callback/issuer?code=c&iss=https%3A%2F%2Fother.example&state=", "issuer"),
        ("/sign-in/callback/issuer?error=access_denied&state=", "declined"),
    ] {
        let mut browser = Browser::of(&world);
        let out = location(&browser.get("/sign-in/with/issuer").await);
        let answer = browser.get(&format!("{path}{}", query(&out, "state"))).await;
        assert_eq!(answer.status, 403, "{path}");
        world.failed(reason).await;
    }
    assert_eq!(issuer.times_asked(), 2);
    assert_eq!(Browser::of(&world).get("/sign-in/with/nobody").await.status, 404);
    world.failed("unknown_provider").await;
}

#[tokio::test]
async fn an_account_is_not_found_by_its_address_and_is_connected_only_by_its_owner() {
    let (world, issuer) = with_issuer().await;
    let (first, second) = (world.invitation("one").await, world.invitation("two").await);
    let start = |token: &str| format!("/sign-in/with/issuer?invitation={token}");
    let mut ana = Browser::of(&world);
    by_issuer(&mut ana, &issuer, &start(&first), |_| (), Signed::Rightly).await;
    let user = ana.session().await["user"].clone();
    // Somebody else whose provider says that they have Ana's address.
    let mut mallory = Browser::of(&world);
    let way = start(&second);
    let answer =
        by_issuer(&mut mallory, &issuer, &way, |c| c["sub"] = "mallory".into(), Signed::Rightly).await;
    assert_eq!(answer.status, 403);
    assert!(answer.text().contains("known here already"));
    world.failed("email_taken").await;
    // The invitation was not used by that.
    assert_eq!(mallory.get(&format!("/invite/{second}")).await.status, 200);

    // Ana connects the other account, from her page: with the session's token, and in that session.
    let mut other = ana.clone();
    other.headers.clear();
    assert_eq!(other.json("POST", "/v1/identities/issuer", &json!({})).await.problem(403), "csrf");
    let begun = ana.json("POST", "/v1/identities/issuer", &json!({})).await.expect(200).json();
    let out = begun["location"].as_str().unwrap().to_owned();
    let mut claims = issuer.claims("ana-again", &query(&out, "nonce"));
    claims["email"] = "else@example.com".into();
    issuer.say(&claims, Signed::Rightly);
    assert_eq!(location(&ana.get(&back(&out)).await), "/account");
    let identities = ana.get("/v1/identities").await.expect(200).json();
    assert_eq!(identities["items"].as_array().unwrap().len(), 2);
    let mut elsewhere = Browser::of(&world);
    let answer = by_issuer(
        &mut elsewhere,
        &issuer,
        "/sign-in/with/issuer",
        |c| c["sub"] = "ana-again".into(),
        Signed::Rightly,
    );
    assert_eq!(location(&answer.await), "/account");
    assert_eq!(elsewhere.user().await, user.as_str().unwrap());
    assert_eq!(world.of_the_instance("audit.identity.added").await.len(), 1);
    // One that is somebody else's is not connected.
    let mut owner = owner(&world).await;
    let begun = owner.json("POST", "/v1/identities/issuer", &json!({})).await.expect(200).json();
    let out = begun["location"].as_str().unwrap().to_owned();
    issuer.say(&issuer.claims("ana", &query(&out, "nonce")), Signed::Rightly);
    assert_eq!(owner.get(&back(&out)).await.status, 403);
    world.failed("identity_taken").await;
}

#[tokio::test]
async fn github_signs_in_by_number_with_a_verified_primary_address() {
    let github = Github::start().await;
    let address = github.address.clone();
    let world = World::with(|settings| {
        many(settings);
        settings.access.providers = vec![provider("github", ProviderKind::Github, &address)];
    })
    .await;
    for (id, email) in [(42_u64, json!("42@example.com")), (43, Value::Null)] {
        let token = world.invitation(&format!("team-{id}")).await;
        let mut browser = Browser::of(&world);
        let out = location(&browser.get(&format!("/sign-in/with/github?invitation={token}")).await);
        assert!(out.starts_with(&format!("{address}/login/oauth/authorize?client_id=statusledger&")));
        assert_eq!(query(&out, "redirect_uri"), browser.url("/sign-in/callback/github").as_str());
        github.authorized(query(&out, "code_challenge"));
        let back = format!("/sign-in/callback/github?code={id}&state={}", query(&out, "state"));
        assert_eq!(location(&browser.get(&back).await), "/account");
        let session = browser.session().await;
        assert_eq!((&session["name"], &session["email"]), (&json!("octocat"), &email));
        assert_eq!(browser.get("/v1/sessions").await.json()["items"][0]["method"], "github");
    }
    // A code that was begun with another verifier.
    let mut browser = Browser::of(&world);
    let out = location(&browser.get("/sign-in/with/github").await);
    github.authorized("another".into());
    let back = format!("/sign-in/callback/github?code=42&state={}", query(&out, "state"));
    assert_eq!(browser.get(&back).await.status, 403);
    world.failed("code").await;
}

#[tokio::test]
async fn a_provider_that_is_away_or_sends_elsewhere_is_said_to_be() {
    let elsewhere =
        axum::Router::new().fallback(|| async { axum::response::Redirect::to("http://127.0.0.1:1/") });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, elsewhere).await.unwrap() });
    let world = World::with(|settings| {
        settings.access.providers = vec![
            provider("away", ProviderKind::Oidc, "http://127.0.0.1:1"),
            provider("elsewhere", ProviderKind::Oidc, &address),
        ];
    })
    .await;
    for id in ["away", "elsewhere"] {
        let answer = Browser::of(&world).get(&format!("/sign-in/with/{id}")).await;
        assert_eq!(answer.status, 502, "{id}");
    }
    let entry = world.failed("provider_unavailable").await;
    assert_eq!(entry["data"]["outcome"], "failure");
}

#[tokio::test]
async fn the_first_owner_comes_by_a_link_once() {
    let world = World::with(many).await;
    let link = world.link(Whom::FirstOwner).await;
    // Looking at it does not use it, as often as one likes; it says nothing of whether it holds either.
    for _ in 0..3 {
        let page = Browser::of(&world).get(&format!("/sign-in/link/{link}")).await.expect(200);
        assert_eq!(page.headers["cache-control"], "no-store");
        assert!(page.headers["content-security-policy"].to_str().unwrap().starts_with("default-src 'none'"));
    }
    // Two come with it at once.
    let (mut one, mut other) = (Browser::of(&world), Browser::of(&world));
    let (a, b) = tokio::join!(use_link(&mut one, &link), use_link(&mut other, &link));
    let mut both = [a.status, b.status];
    both.sort_unstable();
    assert_eq!(both, [303, 403]);
    let mut owner = if a.status == 303 { one } else { other };
    let session = owner.session().await;
    let instance = world.node().instance.workspace;
    let mine = owner.get("/v1/workspaces").await.expect(200).json();
    assert_eq!(mine["items"][0]["id"], instance.to_string());
    let members = owner.get(&format!("/v1/workspaces/{instance}/members")).await.expect(200).json();
    assert_eq!(
        (&members["items"][0]["user"], &members["items"][0]["role"]),
        (&session["user"], &json!("owner"))
    );
    // That they are an owner now is on the record, as of whoever becomes one.
    let joined = world.of_the_instance("audit.member.joined").await;
    assert_eq!(joined.len(), 1);
    assert_eq!(joined[0]["data"]["actor"]["id"], session["user"]);
    assert_eq!(joined[0]["data"]["targets"], json!([{ "type": "user", "id": session["user"] }]));
    assert_eq!(joined[0]["data"]["changes"]["role"]["after"], "owner");
    world.failed("link").await;
    // A first owner's link that was made before holds no more; one for an owner does, and for another owner.
    let user = session["user"].as_str().unwrap().parse().unwrap();
    let late = world.link(Whom::FirstOwner).await;
    assert_eq!(use_link(&mut Browser::of(&world), &late).await.status, 403);
    let mut again = Browser::of(&world);
    assert_eq!(use_link(&mut again, &world.link(Whom::User(user)).await).await.status, 303);
    assert_eq!(again.user().await, session["user"].as_str().unwrap());
    let mut another = Browser::of(&world);
    assert_eq!(use_link(&mut another, &world.link(Whom::NewOwner).await).await.status, 303);
    assert_ne!(another.user().await, session["user"].as_str().unwrap());
    // Changed, made up, or with another's secret.
    let (made, other) = (world.link(Whom::NewOwner).await, world.link(Whom::NewOwner).await);
    let id = made.rsplit_once('_').unwrap().0;
    for wrong in
        [format!("{id}_x"), format!("{id}_{}", other.rsplit_once('_').unwrap().1), "x".into(), String::new()]
    {
        let mut browser = Browser::of(&world);
        let state = state_of(browser.get("/sign-in/link/x").await.text());
        let answer = browser.form("/sign-in/link", &[("state", &state), ("link", &wrong)]).await;
        assert_eq!(answer.status, 403, "{wrong}");
    }
    assert_eq!(world.of_the_instance("audit.link.created").await.len(), 6);
    // A first owner's link ends those before it, and one lasts an hour.
    let mut superuser = world.database.superuser().await;
    sqlx::query("UPDATE sign_in_links SET expires_at = now() WHERE used_at IS NULL")
        .execute(&mut superuser)
        .await
        .unwrap();
    assert_eq!(use_link(&mut Browser::of(&world), &made).await.status, 403);
}

#[tokio::test]
async fn another_sites_page_signs_nobody_in() {
    let (world, _issuer) = with_issuer().await;
    let link = world.link(Whom::FirstOwner).await;
    // The attacker's own link, sent by a form of theirs: with the victim's cookie of another page, or none.
    let mut mallory = Browser::of(&world);
    let theirs = state_of(mallory.get(&format!("/sign-in/link/{link}")).await.text());
    let mut victim = Browser::of(&world);
    victim.get("/sign-in/link/x").await;
    for state in [theirs.as_str(), "", "x"] {
        let answer = victim.form("/sign-in/link", &[("state", state), ("link", &link)]).await;
        assert_eq!(answer.status, 403, "{state}");
        assert!(victim.cookie("sl_session").is_none());
    }
    let state = state_of(victim.get(&format!("/sign-in/link/{link}")).await.text());
    for header in [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("origin", "https://evil.example"),
        ("origin", "null"),
    ] {
        victim.headers = vec![(header.0, header.1.into())];
        let answer = victim.form("/sign-in/link", &[("state", &state), ("link", &link)]).await;
        assert_eq!(answer.status, 403, "{header:?}");
        assert_eq!(victim.get("/sign-in/with/issuer").await.status, 403, "{header:?}");
        let answer = victim.json("POST", "/sign-in/passkey/challenge", &json!({})).await;
        assert_eq!(answer.problem(403), "other-site", "{header:?}");
    }
    world.failed("other_site").await;
    // A form cannot send what the script sends.
    victim.headers.clear();
    let answer = victim.form("/sign-in/passkey/challenge", &[("a", "b")]).await;
    assert_eq!(answer.problem(415), "unsupported-media-type");
    // From a page of ours it works.
    victim.headers = vec![("sec-fetch-site", "same-origin".into())];
    let answer = victim.form("/sign-in/link", &[("state", &state), ("link", &link)]).await;
    assert_eq!(location(&answer), "/account");
}

#[tokio::test]
async fn a_session_is_new_with_every_sign_in_and_cannot_be_planted_or_changed() {
    let (world, issuer) = with_issuer().await;
    let mut browser = owner(&world).await;
    let old = browser.cookie("sl_session").unwrap();
    let before = browser.session().await;
    // Whoever signs in gets another, and the one that was shown has ended: whoever planted it has nothing.
    let token = world.invitation("team").await;
    let start = format!("/sign-in/with/issuer?invitation={token}");
    assert_eq!(
        location(&by_issuer(&mut browser, &issuer, &start, |_| (), Signed::Rightly).await),
        "/account"
    );
    let new = browser.cookie("sl_session").unwrap();
    assert_ne!(old, new);
    let mut planted = Browser::of(&world);
    planted.set_cookie("sl_session", &old);
    assert_eq!(planted.get("/v1/session").await.problem(401), "unauthorized");
    let entries = world.of_the_instance("audit.session.signed_in").await;
    let targets = &entries.last().unwrap()["data"]["targets"];
    assert!(targets.as_array().unwrap().contains(&json!({ "type": "session", "id": before["session"] })));
    // One that nobody here made, or that was changed anywhere, is none.
    for n in 0..new.len() {
        let mut changed = new.clone().into_bytes();
        changed[n] = if changed[n] == b'A' { b'B' } else { b'A' };
        let mut other = Browser::of(&world);
        other.set_cookie("sl_session", String::from_utf8(changed).unwrap());
        let answer = other.get("/v1/session").await;
        // The last digit of base64 has bits that say nothing.
        assert!(answer.status == 401 || n == new.len() - 1, "{n}");
    }
    // The cookie is nobody's but the browser's.
    let answer = use_link(&mut Browser::of(&world), &world.link(Whom::NewOwner).await).await;
    let cookie =
        answer.headers.get_all("set-cookie").iter().find(|c| c.to_str().unwrap().starts_with("sl_session="));
    let cookie = cookie.unwrap().to_str().unwrap();
    assert!(cookie.contains("; HttpOnly; SameSite=Lax;") && cookie.contains("Path=/;"), "{cookie}");
    // Nothing that a request says decides where it goes.
    for path in [
        "/sign-in/with/issuer?next=https://evil.example",
        "/sign-in/with/issuer?redirect_uri=https://evil.example",
    ] {
        assert!(location(&browser.get(path).await).starts_with(&format!("{}/auth?", issuer.address)));
    }
}

#[tokio::test]
async fn cookies_and_the_way_back_depend_on_the_public_address_alone() {
    let issuer = Issuer::start().await;
    let address = issuer.address.clone();
    let world = World::with(|settings| {
        settings.public_url = Some("https://status.example.com".into());
        settings.access.providers = vec![provider("issuer", ProviderKind::Oidc, &address)];
    })
    .await;
    let mut browser = Browser::of(&world);
    browser.headers = vec![
        ("host", "evil.example".into()),
        ("x-forwarded-host", "evil.example".into()),
        ("forwarded", "host=evil.example".into()),
    ];
    let answer = browser.get("/sign-in/with/issuer").await;
    let out = location(&answer);
    assert_eq!(query(&out, "redirect_uri"), "https://status.example.com/sign-in/callback/issuer");
    let cookie = answer.headers["set-cookie"].to_str().unwrap();
    assert!(cookie.starts_with("__Host-sl_sign_in=") && cookie.ends_with("; Secure"), "{cookie}");
    // This machine by its number is this machine by its name, where nothing else is said.
    let world = World::new().await;
    let answer = send(world.api.bare("GET", "/sign-in")).await;
    assert_eq!(answer.status, 200, "the client followed it to the name");
    let client =
        reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy().build().unwrap();
    let answer = send(client.get(format!("{}/sign-in", world.api.base))).await;
    assert_eq!(location(&answer), format!("http://localhost:{}/sign-in", world.node().address.port()));
}

#[tokio::test]
async fn who_tries_too_often_waits_and_is_on_the_record_once() {
    let world = World::with(|settings| {
        settings.access.sign_in_requests_per_minute = 3;
        settings.trusted_proxies = vec!["127.0.0.0/8".into(), "::1/128".into()];
    })
    .await;
    let mut flood = Browser::of(&world);
    flood.headers = vec![("x-forwarded-for", "203.0.113.9".into())];
    let mut statuses = Vec::new();
    for _ in 0..20 {
        let answer = flood.json("POST", "/sign-in/passkey/challenge", &json!({})).await;
        if answer.status == 429 {
            assert_eq!(answer.problem(429), "too-many-requests");
            let wait: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
            assert!((1..=20).contains(&wait), "{wait}");
        }
        statuses.push(answer.status);
    }
    assert_eq!(statuses[..3], [200; 3]);
    assert_eq!(statuses[3..], [429; 17]);
    assert_eq!(flood.get("/invite/x").await.status, 429, "a page too");
    // Another address is not meant, and who is not trusted does not choose one.
    let mut other = Browser::of(&world);
    other.headers = vec![("x-forwarded-for", "203.0.113.10".into())];
    other.json("POST", "/sign-in/passkey/challenge", &json!({})).await.expect(200);
    let mut chosen = Browser::of(&world);
    chosen.headers = vec![("x-forwarded-for", "198.51.100.1, 203.0.113.9".into())];
    assert_eq!(chosen.json("POST", "/sign-in/passkey/challenge", &json!({})).await.status, 429);
    let counted = eventually("the limit on the record", || async {
        let entries = world.of_the_instance("audit.access.denied").await;
        let of_the_limit: Vec<_> =
            entries.into_iter().filter(|e| e["data"]["reason"] == "rate_limited").collect();
        let of_the_route =
            |e: &Value| e["data"]["details"]["routes"]["POST /sign-in/passkey/challenge"].as_u64();
        let count: u64 = of_the_limit.iter().filter_map(of_the_route).sum();
        (count == 18).then_some(of_the_limit)
    })
    .await;
    assert!(counted.len() < 18, "a flood is a few entries");
}

#[tokio::test]
async fn failures_are_gathered_and_hold_no_secret() {
    let world = World::with(many).await;
    let link = world.link(Whom::NewOwner).await;
    let wrong = format!("{}X", &link[..link.len() - 1]);
    for _ in 0..30 {
        assert_eq!(use_link(&mut Browser::of(&world), &wrong).await.status, 403);
    }
    let entries = eventually("thirty failures", || async {
        let entries = world.of_the_instance("audit.session.sign_in_failed").await;
        let count: u64 = entries.iter().map(|e| e["data"]["details"]["count"].as_u64().unwrap()).sum();
        (count == 30).then_some(entries)
    })
    .await;
    assert!(entries.len() < 30, "{}", entries.len());
    for entry in entries {
        assert_eq!(entry["data"]["details"]["method"], "link");
        assert_eq!(entry["data"]["actor"]["type"], "unknown");
        assert!(!entry.to_string().contains("sl_link_") && !entry.to_string().contains("127.0.0.1"));
        let sealed: Vec<_> = entry["data"]["sealed"].as_object().unwrap().keys().collect();
        assert!(sealed.iter().any(|name| *name == "ip"), "{sealed:?}");
    }
}

#[tokio::test]
async fn a_workspace_that_asks_for_passkeys_refuses_its_owner_without_one() {
    let world = World::with(many).await;
    let mut browser = owner(&world).await;
    let instance = world.node().instance.workspace;
    let path = format!("/v1/workspaces/{instance}");
    browser.get(&path).await.expect(200);
    let mut superuser = world.database.superuser().await;
    sqlx::query(
        "UPDATE workspaces SET passkey_required = true, passkey_required_at = now() WHERE workspace_id = $1",
    )
    .bind(instance.uuid())
    .execute(&mut superuser)
    .await
    .unwrap();
    assert_eq!(browser.get(&path).await.problem(403), "passkey-required");
    // What is their own stays theirs: they have to be able to add one.
    browser.get("/v1/passkeys").await.expect(200);
    browser.json("POST", "/v1/passkeys/challenge", &json!({})).await.expect(200);
    eventually("the refusal on the record", || async {
        let entries = world.of_the_instance("audit.access.denied").await;
        entries.into_iter().find(|e| e["data"]["reason"] == "passkey_required")
    })
    .await;
}

#[tokio::test]
async fn an_answer_to_a_passkeys_challenge_is_held_against_the_session_that_asked() {
    let world = World::with(many).await;
    let mut browser = owner(&world).await;
    let begun = browser.json("POST", "/v1/passkeys/challenge", &json!({})).await.expect(200).json();
    let options = &begun["options"]["publicKey"];
    assert_eq!(options["authenticatorSelection"]["userVerification"], "required");
    assert_eq!(options["authenticatorSelection"]["residentKey"], "required");
    assert_eq!(options["rp"]["id"], "localhost");
    // The same browser with another session of the same person: the challenge is not that session's.
    let user = browser.user().await.parse().unwrap();
    let mut other = browser.clone();
    assert_eq!(use_link(&mut other, &world.link(Whom::User(user)).await).await.status, 303);
    other.session().await;
    other.set_cookie("sl_sign_in", browser.cookie("sl_sign_in").unwrap());
    let made = json!({ "state": begun["state"], "name": "x", "credential": {
        "id": "AAAA", "rawId": "AAAA", "type": "public-key", "extensions": {},
        "response": { "attestationObject": "AAAA", "clientDataJSON": "AAAA" },
    } });
    assert_eq!(other.json("POST", "/v1/passkeys", &made).await.problem(403), "answered");
    // Nobody without a session asks at all, nor a key.
    assert_eq!(Browser::of(&world).json("POST", "/v1/passkeys/challenge", &json!({})).await.status, 401);
    assert_eq!(world.api.post("/v1/passkeys/challenge", json!({})).await.problem(403), "session");
}

/// What is logged in this thread, in which a test's node runs.
#[derive(Clone, Default)]
struct Logged(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn what_a_provider_says_breaks_no_line_of_the_log_and_commands_no_terminal() {
    let logged = Logged::default();
    let writer = logged.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let (world, issuer) = with_issuer().await;
    let said = |mark: &str| format!("x\n2026-11-22T00:00:00Z  INFO {mark}\u{1b}[2J\u{202e}");
    let start = "/sign-in/with/issuer";
    for member in ["aud", "iss"] {
        let claim = |c: &mut Value| c[member] = said(member).into();
        let answer = by_issuer(&mut Browser::of(&world), &issuer, start, claim, Signed::Rightly).await;
        assert_eq!(answer.status, 403, "{member}");
    }
    issuer.refuse(&said("refused"));
    by_issuer(&mut Browser::of(&world), &issuer, start, |_| (), Signed::Rightly).await;
    let log = String::from_utf8(logged.0.lock().unwrap().clone()).unwrap();
    for mark in ["INFO aud", "INFO iss", "INFO refused"] {
        let line = log.lines().find(|line| line.contains(mark)).unwrap_or_else(|| panic!("{mark}: {log}"));
        assert!(line.contains("statusledger::access") && !line.starts_with("2026-11-22T00:00:00Z"), "{line}");
    }
    assert!(!log.contains(['\u{1b}', '\u{202e}']), "{log}");
}
