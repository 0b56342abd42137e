//! `ETag`, `If-None-Match` and `If-Match` (RFC 9110): what has not changed is not sent again, and what has is not
//! overwritten unseen.
//!
//! The tag of what a GET shows is a hash of it, so it is strong, the same on every node, and needs no column. Where part of
//! an answer moves by itself (a destination's newest delivery), the tag is of the rest ([`configured`]): of what a change
//! can be decided on. Such an answer is never 304.
//!
//! A change under `If-Match` is let in first: its own door is asked, alone, so that who may not make it hears so, and costs
//! what they cost without a condition. Then it is compared with what a GET of the same address by the same caller shows. Before that GET
//! reads anything, the door notes how far the acts of the ledger have come ([`Comparing`]); the change carries it as a
//! [`Condition`] into its own transaction, which under the head's lock looks whether they have come further, and if so is
//! not committed. Then it is compared again. So nothing is overwritten unseen, whoever changes what over whichever node;
//! and neither a lock nor a connection is held while it is compared or while a body arrives.

use super::extract;
use super::problem::Problem;
use crate::access::context::RequestContext;
use crate::access::door::around::{self, Comparing, OnlyTheDoor};
use crate::ledger::terms::{Condition, Verdict};
use axum::body::{Body, Bytes, HttpBody, to_bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::sync::{Arc, OnceLock};
use tower::ServiceExt;

/// The longest answer that is tagged.
const LONGEST: usize = 64 << 20;
/// How often a change is compared anew, where others keep changing something in the workspace, before it is refused.
const TRIES: usize = 8;

/// Of what an answer's tag is made, where it is not all of it.
#[derive(Clone)]
struct Configuration(Bytes);

/// A thing of which parts move by themselves: a tag of all would fail whoever holds a change against it.
pub trait Configured: Serialize {
    /// The members that its tag is made of: which it is, and what a change can change.
    const CONFIGURATION: &'static [&'static str];
}

/// The configuration of what is `shown`, as bytes: the values of those members, in their order.
fn configuration<T: Configured>(shown: &T) -> Result<Vec<u8>, serde_json::Error> {
    let value = serde_json::to_value(shown)?;
    let member =
        |name: &&str| value.get(name).ok_or_else(|| serde::ser::Error::custom(format!("there is no {name}")));
    let members = T::CONFIGURATION.iter().map(member).collect::<Result<Vec<_>, _>>()?;
    serde_json::to_vec(&members)
}

/// Answers with what is `shown`, whose tag is of its configuration alone.
pub fn configured<T: Configured>(shown: &T) -> Response {
    match configuration(shown) {
        Ok(bytes) => {
            let mut response = Json(shown).into_response();
            response.extensions_mut().insert(Configuration(bytes.into()));
            response
        }
        Err(e) => Problem::internal(e).into_response(),
    }
}

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
    let of = parts.extensions.get().map_or(&bytes, |Configuration(configuration)| configuration);
    let tag = format!("\"{}\"", URL_SAFE_NO_PAD.encode(&Sha256::digest(of)[..16]));
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
    let (Some(has), Some(tag), None) = (has, tag, response.extensions().get::<Configuration>()) else {
        return response;
    };
    // Compared weakly, as RFC 9110 has it here.
    let same = has.iter().any(|h| h == "*" || h.strip_prefix("W/").unwrap_or(h).as_bytes() == tag.as_bytes());
    if same { (StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response() } else { response }
}

/// What changes under a condition are held against.
#[derive(Clone)]
pub struct Conditions {
    /// The routes, as they are below whatever asks.
    routes: Arc<OnceLock<Router>>,
    /// Methods and paths of the routes that take a condition.
    takes: Arc<HashSet<String>>,
}

impl std::fmt::Debug for Conditions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conditions").finish_non_exhaustive()
    }
}

impl Conditions {
    /// Of the document of a node's routes; the routes themselves come later, since they stand behind it.
    #[must_use]
    pub fn new(document: &serde_json::Value) -> Self {
        let paths = document["paths"].as_object().into_iter().flatten();
        let takes = paths.flat_map(|(path, methods)| {
            let methods = methods.as_object().into_iter().flatten();
            methods.map(move |(method, _)| format!("{} {path}", method.to_uppercase()))
        });
        Self { routes: Arc::default(), takes: Arc::new(takes.collect()) }
    }

    /// Says what the routes are, once.
    pub fn over(&self, routes: Router) {
        let _ = self.routes.set(routes);
    }

    /// What a GET of the address by the same caller shows; none where there is nothing to ask.
    async fn shown(&self, parts: &Parts, comparing: &Comparing) -> Option<Response> {
        let mut get = Request::get(parts.uri.clone()).body(Body::empty()).ok()?;
        for name in [header::AUTHORIZATION, header::COOKIE] {
            for value in parts.headers.get_all(&name) {
                get.headers_mut().append(name.clone(), value.clone());
            }
        }
        get.extensions_mut().insert(parts.extensions.get::<RequestContext>()?.clone());
        get.extensions_mut().insert(comparing.clone());
        let Ok(response) = self.routes.get()?.clone().oneshot(get).await;
        Some(tagged(response).await)
    }
}

/// A request under `condition`, whose answer is known not to be of a change that did not ask.
async fn run(next: &Next, mut request: Request, condition: &Condition) -> Response {
    request.extensions_mut().insert(condition.clone());
    let response = next.clone().run(request).await;
    if response.status().is_success() && condition.verdict() == Verdict::Unasked {
        return Problem::internal("a change under If-Match did not ask whether it holds").into_response();
    }
    response
}

/// Lets a change under `If-Match` through where nothing has changed since.
pub async fn if_match(State(conditions): State<Conditions>, request: Request, next: Next) -> Response {
    let changes = [Method::PATCH, Method::PUT, Method::DELETE].contains(request.method());
    let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let asked = changes && conditions.takes.contains(&format!("{} {path}", request.method()));
    let Some(wanted) = asked.then(|| listed(request.headers(), &header::IF_MATCH)).flatten() else {
        return next.run(request).await;
    };
    let (parts, body) = request.into_parts();
    let mut door = Request::from_parts(parts.clone(), Body::empty());
    door.extensions_mut().insert(OnlyTheDoor);
    let door = next.clone().run(door).await;
    if !around::opens(&door) {
        return door;
    }
    let (mut unread, mut read) = (Some(body), Bytes::new());
    for _ in 0..TRIES {
        let comparing = Comparing::default();
        let Some(shown) = conditions.shown(&parts, &comparing).await else {
            return Problem::internal("a conditional request has nothing to be held against").into_response();
        };
        // What cannot be read now is not changed.
        if shown.status().is_server_error() {
            return shown;
        }
        if let Some(why) = differs(&shown, &wanted) {
            let body = unread.take().unwrap_or_else(|| read.clone().into());
            return refused(&next, Request::from_parts(parts, body), why).await;
        }
        // Not before: nothing is kept for whoever may not even read what they want to change.
        if let Some(body) = unread.take() {
            match extract::whole(parts.clone(), body).await {
                Ok(bytes) => read = bytes,
                Err(problem) => return problem.into_response(),
            }
        }
        let condition = comparing.condition();
        let request = Request::from_parts(parts.clone(), read.clone().into());
        let response = run(&next, request, &condition).await;
        if condition.verdict() != Verdict::Broken {
            return response;
        }
    }
    Problem::precondition_failed("Others keep changing something in the workspace: read it again.")
        .into_response()
}

/// Why what is shown is not what the caller has; none where it is.
fn differs(shown: &Response, wanted: &[String]) -> Option<&'static str> {
    match (shown.status(), shown.headers().get(header::ETAG)) {
        (StatusCode::OK, Some(tag)) => {
            let same = wanted.iter().any(|w| w == "*" || w.as_bytes() == tag.as_bytes());
            (!same).then_some("It has changed since you read it: read it again.")
        }
        (StatusCode::OK | StatusCode::METHOD_NOT_ALLOWED, _) => {
            Some("It has no ETag: it cannot be read by itself.")
        }
        _ => Some("You cannot read it, so that it cannot be compared."),
    }
}

/// Answers a change whose condition does not hold. Whatever else keeps the caller from it comes first (RFC 9110, section
/// 13.2.1) and is on the record where it is a refusal; so it is tried, under what never holds.
async fn refused(next: &Next, request: Request, why: &'static str) -> Response {
    let never = Condition::new(None);
    let response = run(next, request, &never).await;
    match never.verdict() {
        Verdict::Broken => Problem::precondition_failed(why).into_response(),
        Verdict::Unasked | Verdict::Held => response,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    #[derive(Serialize)]
    struct Thing(Value);

    impl Configured for Thing {
        const CONFIGURATION: &'static [&'static str] = &["id", "name"];
    }

    #[test]
    fn a_tag_by_configuration_is_of_the_members_named_and_of_nothing_else() {
        let of = |thing: Value| configuration(&Thing(thing)).unwrap();
        let one = of(json!({ "id": 1, "name": "a", "used": 7 }));
        assert_eq!(one, of(json!({ "used": 8, "name": "a", "id": 1 })));
        assert_ne!(one, of(json!({ "id": 2, "name": "a", "used": 7 })));
        assert_ne!(one, of(json!({ "id": 1, "name": null, "used": 7 })));
        // A member that was renamed cannot drop out of the tag unseen.
        assert!(configuration(&Thing(json!({ "id": 1, "called": "a" }))).is_err());
    }
}
