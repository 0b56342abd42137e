//! Connections: HTTP/1.1 over TCP, so many at once, each with so much time for the head of a request.
//!
//! A connection costs a file and memory from its first byte on, before anybody is known: so both are bounded here, where
//! no limit by key reaches. Beyond the bound newcomers wait in the system's queue until a connection ends. Whoever takes
//! too long over a request's head, or says nothing between two requests, is hung up on. What all this does not do is tell
//! one sender from another; a proxy in front can.

use axum::Router;
use axum::extract::ConnectInfo;
use axum::serve::Listener;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tower::ServiceExt;

/// Files that a node opens for other things than requests: databases, destinations, stores, its directory.
const OTHER_FILES: u64 = 256;
/// Connections that there are in any case, however few files the system allows.
const FEWEST: u32 = 64;

/// What connections are bounded by.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Connections at once.
    pub connections: u32,
    /// How long the head of a request may take, from the end of the one before (or from the connection's beginning).
    pub head_within: Duration,
}

/// As many connections of those as the system's limit of open files has room for, which is raised as far as it may be.
#[must_use]
pub fn fitting(connections: u32) -> u32 {
    let wanted = u64::from(connections) + OTHER_FILES;
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return connections };
    let mut files = soft;
    if soft < wanted && setrlimit(Resource::RLIMIT_NOFILE, wanted.min(hard), hard).is_ok() {
        files = wanted.min(hard);
    }
    let fit = u32::try_from(files.saturating_sub(OTHER_FILES)).unwrap_or(u32::MAX);
    if fit < connections {
        tracing::warn!(
            files,
            connections = fit.max(FEWEST),
            "the limit of open files (ulimit -n) has no room for http.connections"
        );
    }
    connections.min(fit.max(FEWEST))
}

/// Serves until `stopping` says so; then no new connection is taken, `stopped` is called, and requests in flight are
/// answered.
pub async fn serve(
    mut listener: TcpListener,
    router: Router,
    bounds: Bounds,
    stopping: watch::Receiver<bool>,
    stopped: impl FnOnce(),
) {
    let open = Arc::new(Semaphore::new(bounds.connections as usize));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(bounds.head_within);
    let mut stop = stopping.clone();
    loop {
        // Either way the node stops.
        let (permit, stream, peer) = tokio::select! {
            _ = stop.changed() => break,
            accepted = accept(&mut listener, &open) => accepted,
        };
        tokio::spawn(connection(http.clone(), stream, peer, router.clone(), stopping.clone(), permit));
    }
    drop(listener);
    stopped();
    // All places are free when all connections have ended.
    let _ = open.acquire_many(bounds.connections).await;
}

/// The next connection, when there is a place for it.
async fn accept(
    listener: &mut TcpListener,
    open: &Arc<Semaphore>,
) -> (OwnedSemaphorePermit, TcpStream, SocketAddr) {
    if open.available_permits() == 0 {
        metrics::counter!("statusledger_connections_exhausted_total").increment(1);
        tracing::debug!(
            "all connections are in use (http.connections); whoever comes now waits until one ends"
        );
    }
    let permit =
        Arc::clone(open).acquire_owned().await.expect("the semaphore of connections is never closed");
    let (stream, peer) = Listener::accept(listener).await;
    (permit, stream, peer)
}

async fn connection(
    http: http1::Builder,
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    mut stopping: watch::Receiver<bool>,
    _permit: OwnedSemaphorePermit,
) {
    let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        router.clone().oneshot(request)
    });
    let serving = http.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        _ = stopping.changed() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    // Mostly somebody who has gone.
    if let Err(e) = ended {
        tracing::debug!(error = %e, "a connection ended early");
    }
}
