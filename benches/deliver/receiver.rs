//! The receivers: axum over loopback, in the bench's process. Each checks the Standard Webhooks HMAC; some check the
//! receipt too, under a manifest read once; one waits before it answers.

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use statusledger_verify::manifest::TrustedKeys;
use statusledger_verify::receipt;
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Stands before an event's number in its payload.
pub const MARK: &str = "bench-event-";
/// Digits of the number.
pub const DIGITS: usize = 8;
/// Events a hook can count.
pub const EVENTS: usize = 2_000_000;

/// How a hook behaves.
#[derive(Clone)]
pub enum Manner {
    /// Checks the HMAC.
    Hmac,
    /// Checks the HMAC and the receipt.
    Receipt(Arc<TrustedKeys>),
    /// Checks the HMAC and answers after this long.
    Slow(Duration),
    /// Counts what comes, for whomever; answers at once.
    Any,
    /// Answers anybody after this long.
    Never(Duration),
}

/// One hook: what it knows and what has come.
pub struct Hook {
    secret: Vec<u8>,
    destination: String,
    manner: Manner,
    base: Instant,
    /// When each event first came and was checked, in nanoseconds since `base`; 0: not yet.
    arrivals: Vec<AtomicU64>,
    arrived: AtomicUsize,
    /// Requests being answered.
    waiting: AtomicUsize,
    refused: AtomicUsize,
    /// Requests wait until it is open; a slow hook answers at once when it is closed.
    open: watch::Sender<bool>,
}

impl Hook {
    /// Different events that have come.
    pub fn arrived(&self) -> usize {
        self.arrived.load(Ordering::Acquire)
    }

    /// Requests that are being answered.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    /// Requests that did not verify.
    pub fn refused(&self) -> usize {
        self.refused.load(Ordering::Acquire)
    }

    /// When event `n` first came and was checked.
    pub fn arrival(&self, n: usize) -> Option<Instant> {
        match self.arrivals[n].load(Ordering::Acquire) {
            0 => None,
            nanos => Some(self.base + Duration::from_nanos(nanos)),
        }
    }

    /// Lets requests through, or holds them (a slow hook: answers all at once).
    pub fn set_open(&self, open: bool) {
        self.open.send_replace(open);
    }

    /// Waits until `count` different events have come; says when.
    pub async fn reached(&self, count: usize, patience: Duration) -> Result<Instant> {
        let deadline = Instant::now() + patience;
        while self.arrived() < count {
            anyhow::ensure!(
                Instant::now() < deadline,
                "only {} of {count} events came in {patience:?} ({} refused)",
                self.arrived(),
                self.refused()
            );
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(Instant::now())
    }

    /// Waits until `count` requests are being answered at once.
    pub async fn holds(&self, count: usize, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        while self.waiting() < count {
            anyhow::ensure!(Instant::now() < deadline, "only {} of {count} requests wait", self.waiting());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    async fn take(&self, headers: &HeaderMap, body: &[u8]) -> Option<()> {
        let header = |name: &str| headers.get(name)?.to_str().ok();
        let (id, timestamp) = (header("webhook-id")?, header("webhook-timestamp")?);
        let given = STANDARD.decode(header("webhook-signature")?.strip_prefix("v1,")?).ok()?;
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.secret).ok()?;
        for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
            mac.update(part);
        }
        mac.verify_slice(&given).ok()?;
        if let Manner::Receipt(keys) = &self.manner {
            let options = receipt::Options {
                destination: Some(self.destination.clone()),
                ..receipt::Options::default()
            };
            receipt::verify(body, keys, &options).ok()?;
        }
        let at = body.windows(MARK.len()).position(|w| w == MARK.as_bytes())? + MARK.len();
        let n: usize = std::str::from_utf8(body.get(at..at + DIGITS)?).ok()?.parse().ok()?;
        let now = u64::try_from(self.base.elapsed().as_nanos()).ok()?.max(1);
        if self.arrivals.get(n)?.compare_exchange(0, now, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            self.arrived.fetch_add(1, Ordering::AcqRel);
        }
        Some(())
    }
}

type Hooks = Arc<RwLock<HashMap<String, Arc<Hook>>>>;

/// A server with hooks.
pub struct Receiver {
    address: SocketAddr,
    hooks: Hooks,
}

impl Receiver {
    /// Starts it.
    pub async fn start() -> Result<Self> {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let hooks = Hooks::default();
        let router = Router::new().route("/hooks/{name}", post(receive)).with_state(Arc::clone(&hooks));
        // It ends with the bench.
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Self { address, hooks })
    }

    /// Where a hook will be.
    pub fn url(&self, name: &str) -> String {
        format!("http://{}/hooks/{name}", self.address)
    }

    /// Expects notifications for `destination` at `name`.
    pub fn expect(&self, name: &str, secret: &str, destination: &str, manner: Manner) -> Result<Arc<Hook>> {
        let secret = STANDARD.decode(secret.strip_prefix("whsec_").context("a whsec_ secret")?)?;
        let hook = Arc::new(Hook {
            secret,
            destination: destination.to_owned(),
            manner,
            base: Instant::now(),
            arrivals: std::iter::repeat_with(AtomicU64::default).take(EVENTS).collect(),
            arrived: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            open: watch::Sender::new(true),
        });
        let mut hooks = self.hooks.write().unwrap_or_else(PoisonError::into_inner);
        hooks.insert(name.to_owned(), Arc::clone(&hook));
        Ok(hook)
    }
}

async fn receive(
    State(hooks): State<Hooks>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let hook = hooks.read().unwrap_or_else(PoisonError::into_inner).get(&name).cloned();
    let Some(hook) = hook else { return StatusCode::NOT_FOUND };
    hook.waiting.fetch_add(1, Ordering::AcqRel);
    let mut open = hook.open.subscribe();
    // The hook outlives its requests, so its sender is there.
    match hook.manner {
        Manner::Slow(wait) | Manner::Never(wait) => tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = open.wait_for(|open| !*open) => {}
        },
        _ => drop(open.wait_for(|open| *open).await),
    }
    let taken = match hook.manner {
        Manner::Any | Manner::Never(_) => {
            hook.arrived.fetch_add(1, Ordering::AcqRel);
            Some(())
        }
        _ => hook.take(&headers, &body).await,
    };
    hook.waiting.fetch_sub(1, Ordering::AcqRel);
    if taken.is_some() {
        StatusCode::NO_CONTENT
    } else {
        hook.refused.fetch_add(1, Ordering::AcqRel);
        StatusCode::BAD_REQUEST
    }
}
