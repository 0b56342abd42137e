//! `ETag`, `If-None-Match` and `If-Match` (RFC 9110): what has not changed is not sent again, and what has is not
//! overwritten unseen.
//!
//! The tag of what a GET shows is a hash of it, so it is strong, the same on every node, and needs no column. A change
//! under `If-Match` is compared with what a GET of the same address by the same caller shows at that moment; on one node
//! such changes of one address take their turns, so of two that were made of the same state one is refused.

use super::problem::Problem;
use crate::access::Gate;
use crate::access::caller::Unnoted;
use crate::access::context::RequestContext;
use axum::Router;
use axum::body::{Body, HttpBody, to_bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, OnceLock};
use tokio::sync::Mutex;
use tower::ServiceExt;

/// The longest answer that is tagged.
const LONGEST: usize = 64 << 20;
/// Locks that changes under `If-Match` take by their address.
const TURNS: usize = 64;

/// The tags that a header lists.
fn listed(headers: &HeaderMap, name: &HeaderName) -> Option<Vec<String>> {
    headers.contains_key(name).then(|| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(|tag| tag.trim().to_owned())
            .collect()
    })
}

/// Tags an answer that has all its bytes already; a stream it leaves alone.
async fn tagged(response: Response) -> Response {
    let content_type = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let whole = response.status() == StatusCode::OK
        && content_type
            .is_some_and(|kind| kind.starts_with("application/json") || kind.starts_with("text/plain"))
        && response.body().size_hint().exact().is_some_and(|size| size <= LONGEST as u64)
        && !response.headers().contains_key(header::ETAG);
    if !whole {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let bytes = match to_bytes(body, LONGEST).await {
        Ok(bytes) => bytes,
        Err(e) => return Problem::internal(e).into_response(),
    };
    let tag = format!("\"{}\"", URL_SAFE_NO_PAD.encode(&Sha256::digest(&bytes)[..16]));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        parts.headers.insert(header::ETAG, tag);
    }
    Response::from_parts(parts, Body::from(bytes))
}

/// Tags what is read, and says where it is what the client has.
pub async fn tag(request: Request, next: Next) -> Response {
    if request.method() != Method::GET || !request.uri().path().starts_with("/v1/") {
        return next.run(request).await;
    }
    let has = listed(request.headers(), &header::IF_NONE_MATCH);
    let response = tagged(next.run(request).await).await;
    let tag = response.headers().get(header::ETAG).cloned();
    let (Some(has), Some(tag)) = (has, tag) else { return response };
    // Compared weakly, as RFC 9110 has it here.
    let same = has.iter().any(|h| h == "*" || h.strip_prefix("W/").unwrap_or(h).as_bytes() == tag.as_bytes());
    if same { (StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response() } else { response }
}

/// What changes under a condition are held against.
#[derive(Clone)]
pub struct Conditions {
    /// The routes, as they are below whatever asks.
    routes: Arc<OnceLock<Router>>,
    turns: Arc<[Mutex<()>; TURNS]>,
    hash: RandomState,
    gate: Gate,
    /// Methods and paths of the routes that take a condition.
    takes: Arc<HashSet<String>>,
}

impl std::fmt::Debug for Conditions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conditions").finish_non_exhaustive()
    }
}

impl Conditions {
    /// Of a node's door and the document of its routes; the routes themselves come later, since they stand behind it.
    #[must_use]
    pub fn new(gate: Gate, document: &serde_json::Value) -> Self {
        let paths = document["paths"].as_object().into_iter().flatten();
        let takes = paths.flat_map(|(path, methods)| {
            let methods = methods.as_object().into_iter().flatten();
            methods.map(move |(method, _)| format!("{} {path}", method.to_uppercase()))
        });
        let turns = std::array::from_fn(|_| Mutex::new(()));
        Self {
            routes: Arc::default(),
            turns: Arc::new(turns),
            hash: RandomState::new(),
            gate,
            takes: Arc::new(takes.collect()),
        }
    }

    /// Says what the routes are, once.
    pub fn over(&self, routes: Router) {
        let _ = self.routes.set(routes);
    }

    /// A GET of the address by the same caller.
    fn reading(request: &Request) -> Option<Request> {
        let mut get = Request::get(request.uri().clone()).body(Body::empty()).ok()?;
        for name in [header::AUTHORIZATION, header::COOKIE] {
            for value in request.headers().get_all(&name) {
                get.headers_mut().append(name.clone(), value.clone());
            }
        }
        get.extensions_mut().insert(request.extensions().get::<RequestContext>()?.clone());
        get.extensions_mut().insert(Unnoted);
        Some(get)
    }

    /// What it answers.
    async fn shown(&self, get: Option<Request>) -> Option<Response> {
        let Ok(response) = self.routes.get()?.clone().oneshot(get?).await;
        Some(tagged(response).await)
    }
}

/// Lets a change under `If-Match` through where nothing has changed since.
pub async fn if_match(State(conditions): State<Conditions>, request: Request, next: Next) -> Response {
    let changes = [Method::PATCH, Method::PUT, Method::DELETE].contains(request.method());
    let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let asked = changes && conditions.takes.contains(&format!("{} {path}", request.method()));
    let Some(wanted) = asked.then(|| listed(request.headers(), &header::IF_MATCH)).flatten() else {
        return next.run(request).await;
    };
    // Whoever shows nothing that is of this instance is refused by the door.
    if conditions.gate.claims(request.headers()).is_none() {
        return next.run(request).await;
    }
    let turn = conditions.hash.hash_one(request.uri().path()) as usize % TURNS;
    let _turn = conditions.turns[turn].lock().await;
    let Some(shown) = conditions.shown(Conditions::reading(&request)).await else {
        return Problem::internal("a conditional request has nothing to be held against").into_response();
    };
    let tag = shown.headers().get(header::ETAG).cloned();
    match (shown.status(), tag) {
        (StatusCode::OK, Some(tag)) => {
            if wanted.iter().any(|w| w == "*" || w.as_bytes() == tag.as_bytes()) {
                next.run(request).await
            } else {
                Problem::precondition_failed("It has changed since you read it: read it again.")
                    .into_response()
            }
        }
        (StatusCode::METHOD_NOT_ALLOWED, _) => {
            Problem::precondition_failed("It has no ETag: it cannot be read by itself.").into_response()
        }
        // Refused, missing: the change hears that itself.
        _ => next.run(request).await,
    }
}
