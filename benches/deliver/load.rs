//! The sender of events: HTTP/1.1 over kept connections, written by hand so that it takes little of the machine that
//! it measures.

use crate::receiver::{DIGITS, MARK};
use crate::service::{Line, Service};
use anyhow::{Context, Result, bail};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

/// Bytes of a payload, as in the published measurement of Svix's server.
pub const PAYLOAD: usize = 446;

/// A payload with its number in it.
fn payload(n: usize) -> Vec<u8> {
    let mut body = format!(
        "{{\"id\":\"{MARK}{n:0DIGITS$}\",\"type\":\"invoice.paid\",\"amount\":1250,\"currency\":\"EUR\",\"note\":\""
    );
    while body.len() < PAYLOAD - 2 {
        body.push('x');
    }
    body.push_str("\"}");
    body.into_bytes()
}

/// A kept connection to a source.
pub struct Poster {
    stream: TcpStream,
    head: String,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Poster {
    async fn connect(address: SocketAddr, line: &Line) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let head = format!(
            "POST {} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\ncontent-length: {PAYLOAD}\r\n\r\n",
            line.path, line.token
        );
        Ok(Self { stream, head, request: Vec::new(), answer: Vec::new() })
    }

    /// Posts event `n`; 202 or an error.
    async fn post(&mut self, n: usize) -> Result<()> {
        self.request.clear();
        self.request.extend(self.head.as_bytes());
        self.request.extend(payload(n));
        self.stream.write_all(&self.request).await?;
        self.answer.clear();
        let (mut whole, mut status) = (None, 0);
        while whole.is_none_or(|whole| self.answer.len() < whole) {
            if self.stream.read_buf(&mut self.answer).await? == 0 {
                bail!("the service closed the connection");
            }
            let Some(end) = self.answer.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
            if whole.is_none() {
                let head = std::str::from_utf8(&self.answer[..end])?;
                status = head.split(' ').nth(1).context("a status")?.parse()?;
                let length = head.lines().find_map(|line| {
                    let (name, value) = line.split_once(':')?;
                    name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
                });
                whole = Some(end + 4 + length.context("an answer with its length")?);
            }
        }
        anyhow::ensure!(status == 202, "an event was answered {status}");
        Ok(())
    }
}

/// An event that was posted at its time.
pub struct Posted {
    /// Its number.
    pub n: usize,
    /// When its request was begun.
    pub due: Instant,
    /// When the request was answered.
    pub answered: Instant,
}

/// Where events go, and the number of the next.
pub struct Load {
    address: SocketAddr,
    line: Arc<Line>,
    next: Arc<AtomicUsize>,
}

impl Load {
    /// A load for `line`.
    pub fn new(service: &Service, line: Arc<Line>) -> Self {
        Self { address: service.address, line, next: Arc::default() }
    }

    /// Events posted so far.
    pub fn posted(&self) -> usize {
        self.next.load(Ordering::Acquire)
    }

    /// Posts `events`, `concurrent` at a time, each as soon as one was answered, or fewer when `time` is over. Says
    /// how many.
    pub async fn closed(&self, events: usize, concurrent: usize, time: Duration) -> Result<usize> {
        let first = self.posted();
        let mut posters = Vec::new();
        for _ in 0..concurrent {
            posters.push(Poster::connect(self.address, &self.line).await?);
        }
        let deadline = Instant::now() + time;
        let left = Arc::new(AtomicUsize::new(events));
        let mut tasks = tokio::task::JoinSet::new();
        for mut poster in posters {
            let (next, left) = (Arc::clone(&self.next), Arc::clone(&left));
            tasks.spawn(async move {
                while Instant::now() < deadline
                    && left.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| n.checked_sub(1)).is_ok()
                {
                    poster.post(next.fetch_add(1, Ordering::AcqRel)).await?;
                }
                Ok::<_, anyhow::Error>(())
            });
        }
        while let Some(done) = tasks.join_next().await {
            done??;
        }
        Ok(self.posted() - first)
    }

    /// Posts `rate` events a second for `time`, whatever the answers. Says of each its number, when it was due and when it
    /// was answered.
    pub async fn open(&self, rate: f64, time: Duration) -> Result<Vec<Posted>> {
        let mut posters = Vec::new();
        for _ in 0..16 {
            posters.push(Poster::connect(self.address, &self.line).await?);
        }
        let free = Arc::new(Mutex::new(posters));
        let mut tasks = tokio::task::JoinSet::new();
        let mut posted = Vec::new();
        let started = Instant::now();
        let count = (rate * time.as_secs_f64()) as usize;
        for i in 0..count {
            let at = started + Duration::from_secs_f64(i as f64 / rate);
            tokio::time::sleep_until(at.into()).await;
            let n = self.next.fetch_add(1, Ordering::AcqRel);
            // The timer's own lateness (up to a millisecond) is not the service's.
            let due = Instant::now();
            let (free, address, line) = (Arc::clone(&free), self.address, Arc::clone(&self.line));
            tasks.spawn(async move {
                let poster = free.lock().await.pop();
                let mut poster = match poster {
                    Some(poster) => poster,
                    None => Poster::connect(address, &line).await?,
                };
                poster.post(n).await?;
                let answered = Instant::now();
                free.lock().await.push(poster);
                Ok::<_, anyhow::Error>(Posted { n, due, answered })
            });
        }
        while let Some(done) = tasks.join_next().await {
            posted.push(done??);
        }
        Ok(posted)
    }
}
