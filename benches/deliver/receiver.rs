//! The receivers: HTTP/1.1 over loopback, in the bench's process, written by hand so that they take little of the machine
//! that is measured. Each checks the Standard Webhooks HMAC; some check the receipt too, under a manifest read once; one
//! waits before it answers.

use anyhow::{Context, Result, bail};
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
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
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

    fn take(&self, request: &Request<'_>) -> Option<()> {
        let body = request.body;
        let (id, timestamp) = (request.header("webhook-id")?, request.header("webhook-timestamp")?);
        let given = STANDARD.decode(request.header("webhook-signature")?.strip_prefix("v1,")?).ok()?;
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
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let hooks = Hooks::default();
        let known = Arc::clone(&hooks);
        // It ends with the bench.
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&known)));
            }
        });
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

/// A request: its line, its headers, its body.
struct Request<'a> {
    head: &'a str,
    body: &'a [u8],
}

impl<'a> Request<'a> {
    /// The first request of what was read, and its length; none where there is more to come.
    fn parse(read: &'a [u8]) -> Result<Option<(Self, usize)>> {
        let Some(end) = read.windows(4).position(|w| w == b"\r\n\r\n") else { return Ok(None) };
        let head = std::str::from_utf8(&read[..end])?;
        let request = Self { head, body: &[] };
        let length: usize = request.header("content-length").context("a request with its length")?.parse()?;
        let whole = end + 4 + length;
        Ok(read.get(end + 4..whole).map(|body| (Self { head, body }, whole)))
    }

    fn header(&self, wanted: &str) -> Option<&'a str> {
        self.head.split("\r\n").skip(1).find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case(wanted).then(|| value.trim())
        })
    }

    /// The hook's name: `POST /hooks/NAME HTTP/1.1`.
    fn hook(&self) -> Option<&'a str> {
        self.head.split(' ').nth(1)?.strip_prefix("/hooks/")
    }
}

/// Answers the requests of a connection until the sender closes it.
async fn serve(mut stream: TcpStream, hooks: Hooks) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut read = Vec::with_capacity(16 << 10);
    loop {
        let Some((request, whole)) = Request::parse(&read)? else {
            if stream.read_buf(&mut read).await? == 0 {
                return Ok(());
            }
            continue;
        };
        let name = request.hook().context("a hook's name")?;
        let hook = hooks.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        let Some(hook) = hook else { bail!("there is no hook {name}") };
        let status = if receive(&hook, &request).await { "204 No Content" } else { "400 Bad Request" };
        let end = if status.starts_with("204") { "\r\n" } else { "content-length: 0\r\n\r\n" };
        stream.write_all(format!("HTTP/1.1 {status}\r\n{end}").as_bytes()).await?;
        read.drain(..whole);
    }
}

/// Whether the request was what the hook expects.
async fn receive(hook: &Hook, request: &Request<'_>) -> bool {
    hook.waiting.fetch_add(1, Ordering::AcqRel);
    match hook.manner {
        Manner::Slow(wait) | Manner::Never(wait) => {
            let mut open = hook.open.subscribe();
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = open.wait_for(|open| !*open) => {}
            }
        }
        _ if *hook.open.borrow() => {}
        // The hook outlives its requests, so its sender is there.
        _ => drop(hook.open.subscribe().wait_for(|open| *open).await),
    }
    let taken = match hook.manner {
        Manner::Any | Manner::Never(_) => {
            hook.arrived.fetch_add(1, Ordering::AcqRel);
            Some(())
        }
        _ => hook.take(request),
    };
    hook.waiting.fetch_sub(1, Ordering::AcqRel);
    if taken.is_none() {
        hook.refused.fetch_add(1, Ordering::AcqRel);
    }
    taken.is_some()
}
