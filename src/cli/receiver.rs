//! The demo's receiver: what a customer would run. It checks the webhook's HMAC, then the receipt, offline, under a
//! pin that it was given once; what does not verify it refuses.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path as UrlPath, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use statusledger_verify::json::{self, Value};
use statusledger_verify::manifest::{KeyManifest, Pin};
use statusledger_verify::receipt;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;
use zeroize::Zeroizing;

/// A receipt that verified.
#[derive(Debug)]
pub struct Proven {
    /// Whose.
    pub workspace: String,
    /// The body, parsed.
    pub body: Value,
    /// The size of the tree that it was proven in.
    pub checkpoint_size: u64,
}

/// What the receiver knows of a sender.
struct Endpoint {
    workspace: String,
    /// The `whsec_` secret's bytes.
    secret: Zeroizing<Vec<u8>>,
    destination: String,
}

/// A receiver's state: shared by its handlers; the maps are locked for look-ups only.
pub struct Receiver {
    endpoints: Mutex<HashMap<String, Endpoint>>,
    seen: Mutex<HashMap<String, ()>>,
    /// Where the instance publishes its keys.
    keys_url: Mutex<Option<String>>,
    pin: Mutex<Option<Pin>>,
    directory: PathBuf,
    /// Bodies that are taken still; the rest is refused, so that exactly so many are kept.
    left: Mutex<Option<u64>>,
    proven: mpsc::UnboundedSender<Proven>,
    client: reqwest::Client,
}

impl Receiver {
    /// Starts a receiver that keeps bodies in `directory`, at most `limit` of them.
    ///
    /// # Errors
    /// If it cannot listen.
    pub async fn start(
        directory: PathBuf,
        limit: Option<u64>,
    ) -> std::io::Result<(Arc<Self>, SocketAddr, mpsc::UnboundedReceiver<Proven>)> {
        std::fs::create_dir_all(&directory)?;
        let (proven, receiver) = mpsc::unbounded_channel();
        let this = Arc::new(Self {
            endpoints: Mutex::default(),
            seen: Mutex::default(),
            keys_url: Mutex::default(),
            pin: Mutex::default(),
            directory,
            left: Mutex::new(limit),
            proven,
            client: reqwest::Client::builder().no_proxy().build().map_err(std::io::Error::other)?,
        });
        let listener = tokio::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let router = Router::new().route("/hooks/{name}", post(receive)).with_state(Arc::clone(&this));
        tokio::spawn(async move {
            if let Err(e) = axum::serve(listener, router).await {
                tracing::warn!(error = %e, "the demo's receiver ended");
            }
        });
        Ok((this, address, receiver))
    }

    /// Trusts an instance: its pin, once, and where its keys are.
    pub fn trust(&self, pin: Pin, keys_url: String) {
        *self.pin.lock().unwrap_or_else(PoisonError::into_inner) = Some(pin);
        *self.keys_url.lock().unwrap_or_else(PoisonError::into_inner) = Some(keys_url);
    }

    /// Expects notifications at `/hooks/<name>`.
    pub fn expect(&self, name: &str, workspace: &str, destination: &str, secret: &str) {
        let bytes = secret.strip_prefix("whsec_").and_then(|s| STANDARD.decode(s).ok()).unwrap_or_default();
        let endpoint = Endpoint {
            workspace: workspace.into(),
            secret: Zeroizing::new(bytes),
            destination: destination.into(),
        };
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner).insert(name.into(), endpoint);
    }

    async fn check(&self, name: &str, headers: &HeaderMap, body: &[u8]) -> Result<Option<Proven>, Refused> {
        let header = |n: &str| headers.get(n).and_then(|v| v.to_str().ok()).ok_or(Refused::Headers);
        let (id, timestamp, signatures) =
            (header("webhook-id")?, header("webhook-timestamp")?, header("webhook-signature")?);
        let (workspace, destination) = {
            let endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
            let endpoint = endpoints.get(name).ok_or(Refused::Unknown)?;
            let verified = signatures.split(' ').any(|signature| {
                let Some(given) = signature.strip_prefix("v1,").and_then(|s| STANDARD.decode(s).ok()) else {
                    return false;
                };
                let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&endpoint.secret) else { return false };
                mac.update(format!("{id}.{timestamp}.").as_bytes());
                mac.update(body);
                mac.verify_slice(&given).is_ok()
            });
            if !verified {
                return Err(Refused::Hmac);
            }
            (endpoint.workspace.clone(), endpoint.destination.clone())
        };
        let (pin, url) = {
            let pin = self.pin.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let url = self.keys_url.lock().unwrap_or_else(PoisonError::into_inner).clone();
            (pin.ok_or(Refused::Unknown)?, url.ok_or(Refused::Unknown)?)
        };
        let manifest = self.client.get(url).send().await.map_err(|_| Refused::Keys)?;
        let manifest = manifest.bytes().await.map_err(|_| Refused::Keys)?;
        let failed = |f: statusledger_verify::Failure| Refused::Receipt(format!("{}: {}", f.check, f.detail));
        let keys = KeyManifest::parse(&manifest).and_then(|m| m.trust(&pin)).map_err(failed)?;
        let options = receipt::Options { destination: Some(destination), ..receipt::Options::default() };
        let report = receipt::verify(body, &keys, &options).map_err(failed)?;
        // At least once: the second time it is known already.
        if self.seen.lock().unwrap_or_else(PoisonError::into_inner).contains_key(id) {
            return Ok(None);
        }
        {
            let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
            match left.as_mut() {
                Some(0) => return Err(Refused::Enough),
                Some(n) => *n -= 1,
                None => {}
            }
        }
        let value = json::parse(body).map_err(|e| Refused::Receipt(e.to_string()))?;
        let number = value
            .as_object()
            .and_then(|o| o.get("receipt"))
            .and_then(Value::as_object)
            .and_then(|r| r.get("number"))
            .and_then(Value::as_int)
            .unwrap_or_default();
        let path = self.directory.join(format!("{name}-{number:06}.json"));
        std::fs::write(path, body).map_err(|e| Refused::Keep(e.to_string()))?;
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(id.into(), ());
        Ok(Some(Proven { workspace, body: value, checkpoint_size: report.checkpoint.size }))
    }
}

/// Why a notification is refused.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("the Standard Webhooks headers are missing")]
    Headers,
    #[error("nobody is expected here")]
    Unknown,
    #[error("the webhook's signature does not verify")]
    Hmac,
    #[error("the instance's keys cannot be had")]
    Keys,
    #[error("the receipt does not verify: {0}")]
    Receipt(String),
    #[error("the demo has seen enough")]
    Enough,
    #[error("the body cannot be kept: {0}")]
    Keep(String),
}

async fn receive(
    State(receiver): State<Arc<Receiver>>,
    UrlPath(name): UrlPath<String>,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, String) {
    match receiver.check(&name, &headers, &body).await {
        Ok(Some(proven)) => {
            let _ = receiver.proven.send(proven);
            (StatusCode::OK, "verified\n".into())
        }
        Ok(None) => (StatusCode::OK, "known\n".into()),
        Err(e @ (Refused::Enough | Refused::Keys)) => (StatusCode::SERVICE_UNAVAILABLE, e.to_string()),
        Err(e) => {
            tracing::warn!(error = %e, "the demo's receiver refuses a notification");
            (StatusCode::BAD_REQUEST, e.to_string())
        }
    }
}
