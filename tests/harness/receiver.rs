//! A receiver on loopback that does what a careful customer does: the HMAC with the standard's own implementation,
//! then the receipt, under a pin that it was given once and keys that it fetches.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use serde_json::Value;
use standardwebhooks::Webhook;
use statusledger_verify::manifest::{KeyManifest, Pin, TrustedKeys};
use statusledger_verify::receipt;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;
use tokio::sync::watch;

/// What a receiver answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Status(u16),
    RetryAfter(u16, u64),
    Redirect(String),
    /// Nothing, until the peer gives up.
    Hang,
    /// Nothing, until the receiver is told to behave otherwise: then what that says.
    Hold,
}

/// A request that came.
#[derive(Clone, Debug)]
pub struct Hook {
    /// Which of the receiver's addresses.
    pub name: String,
    pub at: Instant,
    /// `webhook-id`.
    pub id: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// The body, parsed.
    pub value: Value,
    pub number: u64,
    pub seq: u64,
    pub kind: String,
    /// Whether HMAC and receipt verified; if not, what did not.
    pub verified: Result<(), String>,
    /// What was answered.
    pub reply: Reply,
}

impl Hook {
    /// Whether it was taken.
    pub fn taken(&self) -> bool {
        matches!(self.reply, Reply::Status(200..=299))
    }
}

type Behaviour = Box<dyn FnMut(&Hook) -> Reply + Send>;

struct Shared {
    /// Secret and destination by name.
    endpoints: Mutex<HashMap<String, (String, String)>>,
    /// Where the keys are, and under which pin they count.
    trust: Mutex<Option<(Pin, String)>>,
    keys: Mutex<Option<TrustedKeys>>,
    behaviour: Mutex<Behaviour>,
    /// Counts its changes.
    behaves: watch::Sender<usize>,
    hooks: Mutex<Vec<Hook>>,
    changed: watch::Sender<usize>,
    client: reqwest::Client,
}

/// A receiver. It ends with the test's runtime.
#[derive(Clone)]
pub struct Receiver {
    address: SocketAddr,
    shared: Arc<Shared>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Receiver {
    /// A receiver that answers 200 to what verifies and 400 to what does not.
    pub async fn start(pin: Pin, service: &str) -> Self {
        let shared = Arc::new(Shared {
            endpoints: Mutex::default(),
            trust: Mutex::new(Some((pin, format!("{service}/.well-known/statusledger-keys.json")))),
            keys: Mutex::default(),
            behaviour: Mutex::new(Box::new(|_| Reply::Status(200))),
            behaves: watch::Sender::new(0),
            hooks: Mutex::default(),
            changed: watch::Sender::new(0),
            client: reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap(),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/hooks/{name}", any(receive)).with_state(Arc::clone(&shared));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, shared }
    }

    /// A receiver for what `world` sends.
    pub async fn of(world: &super::World) -> Self {
        Self::start(world.pin(), &world.api.base).await
    }

    /// Its address of that name.
    pub fn url(&self, name: &str) -> String {
        format!("http://{}/hooks/{name}", self.address)
    }

    /// Expects what is for `destination`, signed with `secret`, under `name`.
    pub fn expect(&self, name: &str, destination: &str, secret: &str) {
        lock(&self.shared.endpoints).insert(name.into(), (secret.into(), destination.into()));
    }

    /// Fetches the keys now, so that the service may be away when the first body comes.
    pub async fn learn_keys(&self) {
        self.shared.fetch().await.unwrap();
    }

    /// Answers so from now on. Who is asked sees whether the body verified.
    pub fn behave(&self, behaviour: impl FnMut(&Hook) -> Reply + Send + 'static) {
        *lock(&self.shared.behaviour) = Box::new(behaviour);
        self.shared.behaves.send_modify(|n| *n += 1);
    }

    /// What came so far.
    pub fn hooks(&self) -> Vec<Hook> {
        lock(&self.shared.hooks).clone()
    }

    /// What came so far under `name`.
    pub fn hooks_of(&self, name: &str) -> Vec<Hook> {
        lock(&self.shared.hooks).iter().filter(|h| h.name == name).cloned().collect()
    }

    /// Waits until `enough` of what came.
    #[track_caller]
    pub fn until<F: Fn(&[Hook]) -> bool>(
        &self,
        what: &str,
        enough: F,
    ) -> impl Future<Output = Vec<Hook>> + use<F> {
        let (what, caller) = (what.to_owned(), std::panic::Location::caller());
        let shared = Arc::clone(&self.shared);
        let mut changed = self.shared.changed.subscribe();
        async move {
            let waiting = async {
                loop {
                    changed.borrow_and_update();
                    {
                        let hooks = lock(&shared.hooks);
                        if enough(&hooks) {
                            return hooks.clone();
                        }
                    }
                    changed.changed().await.unwrap();
                }
            };
            match tokio::time::timeout(super::DEADLINE, waiting).await {
                Ok(hooks) => hooks,
                Err(_) => {
                    let came: Vec<_> = lock(&shared.hooks)
                        .iter()
                        .map(|h| (h.number, h.kind.clone(), h.reply.clone()))
                        .collect();
                    panic!("at {caller}: waited in vain for {what}; came: {came:?}")
                }
            }
        }
    }

    /// Waits until `count` deliveries (not attempts) were taken under `name`; answers every attempt under it.
    #[track_caller]
    pub fn taken(&self, name: &str, count: usize) -> impl Future<Output = Vec<Hook>> + use<> {
        let name = name.to_owned();
        let told = format!("{count} deliveries to {name}");
        let all = self.until(&told, {
            let name = name.clone();
            move |hooks| {
                let mut ids: Vec<&str> =
                    hooks.iter().filter(|h| h.name == name && h.taken()).map(|h| h.id.as_str()).collect();
                ids.sort_unstable();
                ids.dedup();
                ids.len() >= count
            }
        });
        async move { all.await.into_iter().filter(|h| h.name == name).collect() }
    }

    /// That everything that came verified.
    #[track_caller]
    pub fn assert_all_verified(&self) {
        for hook in lock(&self.shared.hooks).iter() {
            assert_eq!(hook.verified, Ok(()), "{} {}", hook.name, hook.number);
        }
    }
}

impl Shared {
    async fn fetch(&self) -> Result<(), String> {
        let (pin, url) = lock(&self.trust).clone().ok_or("nobody is trusted")?;
        let fetched = self.client.get(url).send().await.map_err(|e| e.to_string())?;
        let bytes = fetched.bytes().await.map_err(|e| e.to_string())?;
        let keys = KeyManifest::parse(&bytes).and_then(|m| m.trust(&pin)).map_err(|e| e.to_string())?;
        *lock(&self.keys) = Some(keys);
        Ok(())
    }

    fn check(&self, body: &[u8], destination: &str) -> Result<(), String> {
        let keys = lock(&self.keys);
        let keys = keys.as_ref().ok_or("there are no keys yet")?;
        let options =
            receipt::Options { destination: Some(destination.to_owned()), ..receipt::Options::default() };
        receipt::verify(body, keys, &options).map(drop).map_err(|f| format!("{}: {}", f.check, f.detail))
    }

    async fn verify(&self, name: &str, headers: &HeaderMap, body: &[u8]) -> Result<(), String> {
        let (secret, destination) =
            lock(&self.endpoints).get(name).cloned().ok_or("nobody is expected here")?;
        let webhook = Webhook::new(&secret).map_err(|e| e.to_string())?;
        webhook.verify(body, headers).map_err(|e| format!("HMAC: {e}"))?;
        if self.check(body, &destination).is_ok() {
            return Ok(());
        }
        // Keys that it does not know yet are looked up once.
        self.fetch().await?;
        self.check(body, &destination)
    }
}

async fn receive(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let verified = shared.verify(&name, &headers, &body).await;
    let value: Value = serde_json::from_slice(&body).unwrap_or_default();
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    let mut hook = Hook {
        name,
        at: Instant::now(),
        id: text("webhook-id"),
        number: value["receipt"]["number"].as_u64().unwrap_or_default(),
        seq: value["seq"].as_u64().unwrap_or_default(),
        kind: value["type"].as_str().unwrap_or_default().to_owned(),
        headers,
        body,
        value,
        verified,
        reply: Reply::Status(400),
    };
    let mut behaves = shared.behaves.subscribe();
    if hook.verified.is_ok() {
        hook.reply = lock(&shared.behaviour)(&hook);
    }
    let mut reply = hook.reply.clone();
    let place = {
        let mut hooks = lock(&shared.hooks);
        hooks.push(hook);
        hooks.len() - 1
    };
    shared.changed.send_modify(|n| *n += 1);
    while reply == Reply::Hold {
        behaves.changed().await.unwrap();
        let hook = lock(&shared.hooks)[place].clone();
        reply = lock(&shared.behaviour)(&hook);
        lock(&shared.hooks)[place].reply = reply.clone();
        shared.changed.send_modify(|n| *n += 1);
    }
    let status = |code: u16| StatusCode::from_u16(code).unwrap();
    match reply {
        Reply::Status(code) => (status(code), "an answer").into_response(),
        Reply::RetryAfter(code, seconds) => {
            (status(code), [("retry-after", seconds.to_string())]).into_response()
        }
        Reply::Redirect(to) => (StatusCode::FOUND, [("location", to)]).into_response(),
        Reply::Hang | Reply::Hold => std::future::pending().await,
    }
}
