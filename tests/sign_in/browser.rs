//! A browser, as far as signing in needs one: cookies by host and path, redirects one at a time, forms.

use crate::harness::{Answer, World, send};
use serde_json::Value;
use std::collections::HashMap;
use std::net::IpAddr;
use url::Url;

/// A browser of one person's.
#[derive(Clone, Default)]
pub struct Browser {
    client: reqwest::Client,
    /// By host, path and name.
    pub cookies: HashMap<(String, String, String), String>,
    /// What each request says besides.
    pub headers: Vec<(&'static str, String)>,
    home: String,
}

impl Browser {
    /// One whose relative addresses are the world's.
    pub fn of(world: &World) -> Self {
        Self::at(None, format!("http://localhost:{}", world.node().address.port()))
    }

    /// One at that address, whose relative addresses are those of `home`.
    pub fn from(address: IpAddr, home: String) -> Self {
        Self::at(Some(address), home)
    }

    fn at(address: Option<IpAddr>, home: String) -> Self {
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(0)
            .local_address(address)
            .build()
            .unwrap();
        Self { client, home, ..Self::default() }
    }

    pub fn url(&self, address: &str) -> Url {
        Url::parse(&self.home).unwrap().join(address).unwrap()
    }

    /// An address that a page at `at` names.
    pub fn url_from(&self, at: &str, address: &str) -> String {
        self.url(at).join(address).unwrap().into()
    }

    /// The value of a cookie of ours.
    pub fn cookie(&self, name: &str) -> Option<String> {
        self.cookies.get(&("localhost".into(), "/".into(), name.into())).cloned()
    }

    pub fn set_cookie(&mut self, name: &str, value: impl Into<String>) {
        self.cookies.insert(("localhost".into(), "/".into(), name.into()), value.into());
    }

    async fn send(&mut self, method: &str, address: &str, body: Option<(&str, String)>) -> Answer {
        let url = self.url(address);
        let mut request = self.client.request(method.parse().unwrap(), url.clone());
        let sent: Vec<String> = self
            .cookies
            .iter()
            .filter(|((host, path, _), _)| {
                Some(host.as_str()) == url.host_str() && url.path().starts_with(path.as_str())
            })
            .map(|((_, _, name), value)| format!("{name}={value}"))
            .collect();
        if !sent.is_empty() {
            request = request.header("cookie", sent.join("; "));
        }
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        if let Some((kind, body)) = body {
            request = request.header("content-type", kind).body(body);
        }
        let answer = send(request).await;
        for value in answer.headers.get_all("set-cookie") {
            let mut parts = value.to_str().unwrap().split(';').map(str::trim);
            let (name, value) = parts.next().unwrap().split_once('=').unwrap();
            let path = parts.find_map(|a| {
                let (name, value) = a.split_once('=')?;
                name.eq_ignore_ascii_case("path").then(|| value.to_owned())
            });
            let key = (url.host_str().unwrap().to_owned(), path.unwrap_or("/".into()), name.to_owned());
            if value.is_empty() {
                self.cookies.remove(&key);
            } else {
                self.cookies.insert(key, value.to_owned());
            }
        }
        answer
    }

    pub async fn get(&mut self, address: &str) -> Answer {
        self.send("GET", address, None).await
    }

    pub async fn form(&mut self, address: &str, fields: &[(&str, &str)]) -> Answer {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        self.send("POST", address, Some(("application/x-www-form-urlencoded", body))).await
    }

    pub async fn json(&mut self, method: &str, address: &str, body: &Value) -> Answer {
        self.send(method, address, Some(("application/json", body.to_string()))).await
    }

    /// Signs in to the service's JSON routes: remembers the session's CSRF token.
    pub async fn session(&mut self) -> Value {
        let session = self.get("/v1/session").await.expect(200).json();
        self.headers.retain(|(name, _)| *name != "x-csrf-token");
        self.headers.push(("x-csrf-token", session["csrf_token"].as_str().unwrap().to_owned()));
        session
    }

    /// Who is signed in.
    pub async fn user(&mut self) -> String {
        self.get("/v1/session").await.expect(200).json()["user"].as_str().unwrap().to_owned()
    }
}

/// Where an answer sends the browser.
#[track_caller]
pub fn location(answer: &Answer) -> String {
    assert!(
        (302..=303).contains(&answer.status),
        "{} {}",
        answer.status,
        String::from_utf8_lossy(&answer.body)
    );
    answer.headers["location"].to_str().unwrap().to_owned()
}

/// A member of an address's query.
#[track_caller]
pub fn query(address: &str, name: &str) -> String {
    let url = Url::parse(address).unwrap();
    let found = url.query_pairs().find(|(n, _)| n == name).map(|(_, value)| value.into_owned());
    found.unwrap_or_else(|| panic!("{address} has no {name}"))
}
