//! Sign-in behind a reverse proxy: a hop of its own over real connections, at an address that is trusted or is not.
//! What is audited, the cookies and the redirects hold to the settings, whatever the client and the hop say.

use super::browser::{Browser, location, query};
use super::issuer::{Issuer, Signed};
use super::{ProviderKind, back, many, provider, state_of};
use crate::harness::{Answer, World};
use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::http::{HeaderValue, Uri};
use axum::response::Response;
use serde_json::Value;
use statusledger::access::sign_in::link::Whom;
use std::net::{IpAddr, SocketAddr};

/// The hop that the settings trust, and one that they do not.
const TRUSTED: &str = "127.0.0.2";
const UNTRUSTED: &str = "127.0.0.3";
/// Where the client is, as the hop sees it.
const CLIENT: &str = "127.0.0.9";

/// A reverse proxy that asks `upstream` from `from`: it appends whom it asks for, and says that they came by https.
async fn proxy(upstream: SocketAddr, from: &str) -> SocketAddr {
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .local_address(from.parse::<IpAddr>().unwrap())
        .build()
        .unwrap();
    let pass_on = move |ConnectInfo(peer): ConnectInfo<SocketAddr>, mut request: Request| {
        let client = client.clone();
        async move {
            let path = request.uri().path_and_query().unwrap().as_str();
            *request.uri_mut() = format!("http://{upstream}{path}").parse::<Uri>().unwrap();
            let headers = request.headers_mut();
            let said = headers.get_all("x-forwarded-for").iter().map(|v| v.to_str().unwrap().to_owned());
            let said: Vec<String> = said.chain([peer.ip().to_string()]).collect();
            headers.insert("x-forwarded-for", HeaderValue::from_str(&said.join(", ")).unwrap());
            if !headers.contains_key("x-forwarded-proto") {
                headers.insert("x-forwarded-proto", HeaderValue::from_static("https"));
            }
            let (parts, body) = request.into_parts();
            let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
            let mut asked = client.request(parts.method, parts.uri.to_string());
            for (name, value) in &parts.headers {
                if name != "content-length" {
                    asked = asked.header(name, value);
                }
            }
            let answer = asked.body(body).send().await.unwrap();
            let mut response = Response::new(Body::empty());
            *response.status_mut() = answer.status();
            let hop_by_hop = ["content-length", "transfer-encoding", "connection"];
            for (name, value) in answer.headers() {
                if !hop_by_hop.contains(&name.as_str()) {
                    response.headers_mut().append(name, value.clone());
                }
            }
            *response.body_mut() = Body::from(answer.bytes().await.unwrap());
            response
        }
    };
    let router = Router::new().fallback(pass_on).into_make_service_with_connect_info::<SocketAddr>();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

/// A world that trusts [`TRUSTED`], reached by that public address, with an issuer.
async fn world(public_url: Option<&str>) -> (World, Issuer) {
    let issuer = Issuer::start().await;
    let address = issuer.address.clone();
    let world = World::with(|settings| {
        many(settings);
        settings.public_url = public_url.map(str::to_owned);
        settings.trusted_proxies = vec![format!("{TRUSTED}/32")];
        settings.access.providers = vec![provider("issuer", ProviderKind::Oidc, &address)];
    })
    .await;
    (world, issuer)
}

/// A browser at [`CLIENT`] that comes by the hop, and says what it likes of itself.
fn browser_by(hop: SocketAddr, said: &[(&'static str, &str)]) -> Browser {
    let mut browser = Browser::from(CLIENT.parse().unwrap(), format!("http://{hop}"));
    browser.headers = said.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    browser
}

fn cookies(answer: &Answer) -> Vec<String> {
    let all = answer.headers.get_all("set-cookie").iter();
    all.map(|value| value.to_str().unwrap().to_owned()).filter(|c| !c.contains("Max-Age=0")).collect()
}

impl World {
    /// The addresses that the sign-ins came from, as the record has them when it is opened.
    async fn audited_addresses(&self, action: &str) -> Vec<String> {
        let instance = self.node().instance.workspace;
        let path =
            format!("/v1/workspaces/{instance}/audit/export?format=jsonl&openings=true&action={action}");
        let lines = self.api.get(&path).await.expect(200);
        let opened = |line: &str| {
            let entry: Value = serde_json::from_str(line).unwrap();
            entry["opened"]["ip"].as_str().unwrap().to_owned()
        };
        lines.text().lines().map(opened).collect()
    }
}

#[tokio::test]
async fn the_audited_address_is_the_clients_by_a_trusted_hop_and_the_hops_by_another() {
    let (world, _issuer) = world(Some("https://status.example.com")).await;
    let node = world.node().address;
    let (trusted, untrusted) = (proxy(node, TRUSTED).await, proxy(node, UNTRUSTED).await);
    // Whatever the client wrote in front of it.
    let lies = [("x-forwarded-for", "203.0.113.66"), ("forwarded", "for=203.0.113.67")];
    let mut expected = Vec::new();
    for (hop, address) in [(trusted, CLIENT), (untrusted, UNTRUSTED)] {
        for said in [&lies[..], &[]] {
            let mut browser = browser_by(hop, said);
            let link = world.link(Whom::NewOwner).await;
            let page = browser.get(&format!("/sign-in/link/{link}")).await.expect(200);
            let state = state_of(page.text());
            let answer = browser.form("/sign-in/link", &[("state", &state), ("link", &link)]).await;
            assert_eq!(location(&answer), "/account");
            expected.push(address.to_owned());
            // Its owner reads the same.
            let sessions = browser.get("/v1/sessions").await.expect(200).json();
            assert_eq!(sessions["items"][0]["ip"], address);
        }
    }
    assert_eq!(world.audited_addresses("session.signed_in").await, expected);
}

#[tokio::test]
async fn cookies_and_redirects_behind_a_hop_are_those_of_the_public_address() {
    for (public_url, base, secure) in [
        (Some("https://status.example.com"), "https://status.example.com", true),
        (None, "http://localhost", false),
    ] {
        let (world, issuer) = world(public_url).await;
        let node = world.node().address;
        let base = if secure { base.to_owned() } else { format!("{base}:{}", node.port()) };
        let (prefix, name) = if secure { ("__Host-", "; Secure") } else { ("", "") };
        for from in [TRUSTED, UNTRUSTED] {
            let hop = proxy(node, from).await;
            // Neither hop nor client has a word in it: what they say of scheme and host is nobody's business.
            for said in [
                &[][..],
                &[("x-forwarded-proto", "http"), ("x-forwarded-host", "evil.example")],
                &[("x-forwarded-proto", "https"), ("forwarded", "proto=https;host=evil.example")],
                &[("host", "evil.example"), ("x-forwarded-port", "8443")],
            ] {
                let mut browser = browser_by(hop, said);
                let token = world.invitation(&uuid::Uuid::new_v4().to_string()).await;
                let sent = browser.get(&format!("/sign-in/with/issuer?invitation={token}")).await;
                let out = location(&sent);
                assert!(out.starts_with(&format!("{}/auth?", issuer.address)));
                assert_eq!(query(&out, "redirect_uri"), format!("{base}/sign-in/callback/issuer"));
                let mut claims = issuer.claims("ana", &query(&out, "nonce"));
                claims["sub"] = token.as_str().into();
                claims["email_verified"] = false.into();
                issuer.say(&claims, Signed::Rightly);
                let came = browser.get(&back(&out)).await;
                assert_eq!(location(&came), "/account", "{from} {said:?}");
                assert_eq!(issuer.asked()["redirect_uri"], query(&out, "redirect_uri"));
                for (answer, cookie) in [(&sent, "sl_sign_in"), (&came, "sl_session")] {
                    let set = cookies(answer);
                    assert_eq!(set.len(), 1, "{set:?}");
                    assert!(set[0].starts_with(&format!("{prefix}{cookie}=")), "{set:?}");
                    assert_eq!(set[0].ends_with("; Secure"), secure, "{set:?}");
                    assert!(set[0].ends_with(name) && set[0].contains("; HttpOnly; SameSite=Lax"), "{set:?}");
                }
                // The session holds behind the hop, and its change needs its token there too.
                browser.get("/v1/session").await.expect(200);
                let signed_out = browser.json("DELETE", "/v1/session", &Value::Null).await;
                assert_eq!(signed_out.problem(403), "csrf");
            }
        }
    }
}
