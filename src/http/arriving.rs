//! Bodies of changes, read between the door's two looks.
//!
//! Whoever drips a body may not act on what was true when its first byte was sent: a key that is revoked meanwhile is
//! revoked, and a member who is removed is none. So the door ([`crate::access::Access`]) refuses what it can without the
//! database before a byte of the body is read, then has the body read, within its bounds of size and time, and asks the
//! database last. A handler finds the body as if it had just come.

use super::MAX_BODY;
use super::extract::{discard, within};
use super::problem::Problem;
use crate::room::{Room, Taken};
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{DefaultBodyLimit, FromRequest, Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;
use futures_util::stream;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::OnceCell;

/// A body that may still be on its way. Cloned freely; it is read once.
#[derive(Clone, Debug)]
pub struct Arriving(Arc<Held>);

#[derive(Debug)]
struct Held {
    /// The body, until somebody has it read. Locked for taking it only.
    waiting: Mutex<Option<Body>>,
    arrived: OnceCell<Result<(Bytes, Taken), Problem>>,
    room: Room,
}

impl Arriving {
    fn of(body: Body, room: Room) -> Self {
        Self(Arc::new(Held { waiting: Mutex::new(Some(body)), arrived: OnceCell::new(), room }))
    }

    /// Has the body read to its end, if it was not.
    ///
    /// # Errors
    /// If it is too long (1 MiB), too slow, or breaks off, or there is no room for it; each time the same.
    pub async fn read(&self) -> Result<Bytes, Problem> {
        let arrived = self.0.arrived.get_or_init(|| self.take()).await;
        arrived.as_ref().map(|(body, _)| body.clone()).map_err(Clone::clone)
    }

    async fn take(&self) -> Result<(Bytes, Taken), Problem> {
        let waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Nothing where whoever had it read has gone, and with them the request.
        let body = waiting.unwrap_or_default();
        if body.size_hint().lower() > MAX_BODY as u64 {
            return Err(too_large());
        }
        let bytes = body.size_hint().upper().unwrap_or(u64::MAX).min(MAX_BODY as u64);
        let Some(room) = self.0.room.take(bytes as usize) else {
            discard(body).await;
            return Err(Problem::overloaded());
        };
        let mut request = Request::new(body);
        DefaultBodyLimit::max(MAX_BODY).apply(&mut request);
        let body = within(Bytes::from_request(request, &())).await?.map_err(|e| match e.status() {
            StatusCode::PAYLOAD_TOO_LARGE => too_large(),
            _ => Problem::bad_request(e.body_text()),
        })?;
        Ok((body, room))
    }
}

fn too_large() -> Problem {
    Problem::too_large("A body has at most 1 MiB.")
}

/// Keeps the body of a change for the door.
pub async fn hold(State(room): State<Room>, mut request: Request, next: Next) -> Response {
    let changes = !request.method().is_safe() && request.uri().path().starts_with("/v1/");
    if changes && !request.body().is_end_stream() {
        let (mut parts, body) = request.into_parts();
        let arriving = Arriving::of(body, room);
        parts.extensions.insert(arriving.clone());
        let body = stream::once(async move { arriving.read().await.map_err(|problem| problem.detail) });
        request = Request::from_parts(parts, Body::from_stream(body));
    }
    next.run(request).await
}
