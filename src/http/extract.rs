//! Extractors that answer with problems.

use super::problem::Problem;
use axum::body::Bytes;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Json, Path, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// How long a body may take to arrive: a sender that drips holds a connection and memory.
const BODY_WITHIN: Duration = Duration::from_secs(30);

/// How long a body that nobody will look at is read.
const DISCARD_WITHIN: Duration = Duration::from_secs(5);

/// Reads a body in time.
///
/// # Errors
/// 408 where it does not arrive in time.
pub async fn within<T>(reading: impl Future<Output = T>) -> Result<T, Problem> {
    tokio::time::timeout(BODY_WITHIN, reading).await.map_err(|_| Problem::too_slow())
}

/// Reads the whole body of a request, within the limit of its route.
///
/// # Errors
/// Where it is too long, too slow, or breaks off.
pub async fn whole(parts: Parts, body: axum::body::Body) -> Result<Bytes, Problem> {
    match within(Bytes::from_request(Request::from_parts(parts, body), &())).await? {
        Ok(bytes) => Ok(bytes),
        Err(e) if e.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            Err(Problem::too_large("A body has at most 1 MiB."))
        }
        Err(e) => Err(Problem::bad_request(e.body_text())),
    }
}

/// Reads a body away that nobody will look at, for a moment and not to any length: whoever is still sending it would find
/// the connection reset instead of the answer.
pub async fn discard(body: axum::body::Body) {
    let mut left = super::MAX_BODY;
    let mut chunks = body.into_data_stream();
    let reading = async {
        while let Some(Ok(chunk)) = chunks.next().await {
            left = left.saturating_sub(chunk.len());
            if left == 0 {
                return;
            }
        }
    };
    // Whoever is slower than that hears nothing.
    let _ = tokio::time::timeout(DISCARD_WITHIN, reading).await;
}

/// A JSON body.
#[derive(Debug)]
pub struct Body<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Problem;
    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        match within(Json::<T>::from_request(request, state)).await? {
            Ok(Json(value)) => Ok(Self(value)),
            Err(JsonRejection::MissingJsonContentType(_)) => {
                Err(Problem::unsupported("Send the body as `Content-Type: application/json`."))
            }
            Err(JsonRejection::JsonDataError(e)) => Err(Problem::invalid(e.body_text())),
            Err(JsonRejection::BytesRejection(e)) if e.status() == 413 => {
                Err(Problem::too_large("A body has at most 1 MiB."))
            }
            Err(e) => Err(Problem::bad_request(e.body_text())),
        }
    }
}

/// What the path names.
#[derive(Debug)]
pub struct InPath<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for InPath<T> {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path: Result<Path<T>, PathRejection> = Path::from_request_parts(parts, state).await;
        match path {
            Ok(Path(value)) => Ok(Self(value)),
            // A malformed id names nothing.
            Err(e) => Err(Problem::not_found(e.body_text())),
        }
    }
}

/// What the query asks.
#[derive(Debug)]
pub struct InQuery<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for InQuery<T> {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let query: Result<Query<T>, QueryRejection> = Query::from_request_parts(parts, state).await;
        match query {
            Ok(Query(value)) => Ok(Self(value)),
            Err(e) => Err(Problem::bad_request(e.body_text())),
        }
    }
}
