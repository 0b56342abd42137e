//! The API as a client sees it.

use super::receiver::Receiver;
use axum::body::Bytes;
use axum::http::HeaderMap;
use serde_json::{Value, json};
use statusledger::id::{DestinationId, SourceId, WorkspaceId};

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&self.body)))
    }

    /// The body as text.
    #[track_caller]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The answer, if its status is that.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        self
    }

    /// The problem's kind, if the answer is a problem of that status in every respect.
    #[track_caller]
    pub fn problem(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        assert_eq!(self.headers["content-type"], "application/problem+json");
        let problem = self.json();
        assert_eq!(problem["status"], status);
        assert!(!problem["title"].as_str().unwrap().is_empty());
        assert!(!problem["detail"].as_str().unwrap().is_empty());
        let request = self.headers["x-request-id"].to_str().unwrap();
        let instance = problem["instance"].as_str().unwrap();
        assert!(
            instance == format!("urn:uuid:{request}") || self.headers.contains_key("idempotency-replayed")
        );
        let (page, kind) = problem["type"].as_str().unwrap().rsplit_once('/').unwrap();
        assert!(page.ends_with("/problems"), "{page}");
        kind.to_owned()
    }
}

/// A client with a token.
#[derive(Clone)]
pub struct Api {
    pub base: String,
    pub token: String,
    client: reqwest::Client,
}

impl Api {
    pub fn new(address: std::net::SocketAddr, token: &str) -> Self {
        // A connection each: one that was kept may end at a node that has been stopped meanwhile.
        let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap();
        Self { base: format!("http://{address}"), token: token.to_owned(), client }
    }

    /// The same, at another address.
    pub fn at(&self, address: std::net::SocketAddr) -> Self {
        Self { base: format!("http://{address}"), ..self.clone() }
    }

    /// A request with the token, to be filled in.
    pub fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        self.bare(method, path).bearer_auth(&self.token)
    }

    /// A request without one.
    pub fn bare(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method.parse().unwrap(), format!("{}{path}", self.base))
    }

    pub async fn get(&self, path: &str) -> Answer {
        send(self.request("GET", path)).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        send(self.request("POST", path).json(&body)).await
    }

    pub async fn patch(&self, path: &str, body: Value) -> Answer {
        send(self.request("PATCH", path).json(&body)).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        send(self.request("DELETE", path)).await
    }

    /// Makes a workspace.
    pub async fn workspace(&self, name: &str) -> Workspace {
        let made = self.post("/v1/workspaces", json!({ "name": name })).await.expect(201).json();
        Workspace {
            id: made["id"].as_str().unwrap().parse().unwrap(),
            ledger: made["ledger"].as_str().unwrap().to_owned(),
            path: format!("/v1/workspaces/{}", made["id"].as_str().unwrap()),
            api: self.clone(),
        }
    }
}

/// Sends a request and reads the answer.
pub async fn send(request: reqwest::RequestBuilder) -> Answer {
    try_send(request).await.unwrap()
}

/// The same, where the service may be away.
pub async fn try_send(request: reqwest::RequestBuilder) -> Result<Answer, reqwest::Error> {
    let response = request.send().await?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Ok(Answer { status, headers, body: response.bytes().await? })
}

/// A workspace, and the way to it.
#[derive(Clone)]
pub struct Workspace {
    pub id: WorkspaceId,
    pub ledger: String,
    pub path: String,
    pub api: Api,
}

impl Workspace {
    /// A path within it.
    pub fn at(&self, rest: &str) -> String {
        format!("{}{rest}", self.path)
    }

    /// Makes an inbound source.
    pub async fn inbound(&self, name: &str) -> Inbound {
        let request = json!({ "kind": "inbound", "name": name });
        let made = self.api.post(&self.at("/sources"), request).await.expect(201).json();
        Inbound {
            id: made["id"].as_str().unwrap().parse().unwrap(),
            token: made["token"].as_str().unwrap().to_owned(),
            api: self.api.clone(),
        }
    }

    /// Makes a destination at `receiver`, under `name`, with `more` of the request's members.
    pub async fn destination(&self, receiver: &Receiver, name: &str, more: Value) -> Destination {
        let mut request = json!({ "name": name, "url": receiver.url(name) });
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let made = self.api.post(&self.at("/destinations"), request).await.expect(201).json();
        let id = made["id"].as_str().unwrap().to_owned();
        let secret = made["secret"].as_str().unwrap().to_owned();
        receiver.expect(name, &id, &secret);
        Destination {
            path: self.at(&format!("/destinations/{id}")),
            id: id.parse().unwrap(),
            name: name.to_owned(),
            secret,
            api: self.api.clone(),
        }
    }

    /// All entries, parsed.
    pub async fn entries(&self) -> Vec<Value> {
        let mut entries = Vec::new();
        let mut from = 0;
        loop {
            let path = self.at(&format!("/entries?from={from}&limit=1000"));
            let page = self.api.get(&path).await.expect(200).json();
            entries.extend(page["items"].as_array().unwrap().iter().cloned());
            match page["next"].as_u64() {
                Some(next) => from = next,
                None => return entries,
            }
        }
    }

    /// The entries of a type.
    pub async fn entries_of(&self, kind: &str) -> Vec<Value> {
        self.entries().await.into_iter().filter(|e| e["type"] == kind).collect()
    }
}

/// An inbound source, and its token.
#[derive(Clone)]
pub struct Inbound {
    pub id: SourceId,
    pub token: String,
    pub api: Api,
}

impl Inbound {
    /// A request with an event, to be sent.
    pub fn request(&self, body: impl Into<Vec<u8>>) -> reqwest::RequestBuilder {
        let path = format!("/in/{}", self.id);
        self.api.bare("POST", &path).bearer_auth(&self.token).body(body.into())
    }

    /// Sends an event.
    pub async fn post(&self, body: impl Into<Vec<u8>>) -> Answer {
        send(self.request(body)).await
    }

    /// Sends an event that has to be taken; answers its seq.
    pub async fn event(&self, body: impl Into<Vec<u8>>) -> u64 {
        self.post(body).await.expect(202).json()["seq"].as_u64().unwrap()
    }

    /// Sends an event under an idempotency key.
    pub async fn post_once(&self, key: &str, body: impl Into<Vec<u8>>) -> Answer {
        send(self.request(body).header("idempotency-key", key)).await
    }
}

/// A destination, and the way to it.
#[derive(Clone)]
pub struct Destination {
    pub id: DestinationId,
    pub path: String,
    pub name: String,
    pub secret: String,
    api: Api,
}

impl Destination {
    /// What the service says of it.
    pub async fn read(&self) -> Value {
        self.api.get(&self.path).await.expect(200).json()
    }

    /// A delivery with its history.
    pub async fn delivery(&self, number: u64) -> Value {
        self.api.get(&format!("{}/deliveries/{number}", self.path)).await.expect(200).json()
    }

    /// Its deliveries, up to 1000.
    pub async fn deliveries(&self) -> Vec<Value> {
        let path = format!("{}/deliveries?limit=1000", self.path);
        self.api.get(&path).await.expect(200).json()["items"].as_array().unwrap().clone()
    }

    /// Changes it.
    pub async fn change(&self, change: Value) {
        self.api.patch(&self.path, change).await.expect(200);
    }

    /// Waits until every delivery up to `number` is settled as `state`.
    pub async fn settled(&self, number: usize, state: &str) {
        let what = format!("{number} deliveries of {} {state}", self.name);
        super::eventually(&what, || async {
            let all = self.deliveries().await;
            (all.len() >= number && all.iter().all(|d| d["state"] == state)).then_some(())
        })
        .await;
    }
}
