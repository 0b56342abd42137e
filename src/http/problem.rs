//! Errors over HTTP: problem details (RFC 9457), one place for all.

use crate::id::RequestId;
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// A problem: what is wrong, in words for the caller. `type` is stable; programs go by its last segment.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Problem {
    /// The address of a page about this kind of problem: `/problems/` and the kind.
    #[serde(rename = "type")]
    #[schema(format = "uri-reference", example = "/problems/not-found")]
    pub kind: String,
    /// The kind in words.
    pub title: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong here, and where.
    pub detail: String,
    /// The request: `urn:uuid:` and what stands in `x-request-id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = "uri", example = "urn:uuid:0199b1c4-0000-7000-8000-000000000001")]
    pub instance: Option<String>,
    /// Seconds after which to try again.
    #[serde(skip)]
    pub retry_after: Option<u64>,
}

/// Where the pages about problems are.
pub const PATH: &str = "/problems/";

/// A problem in an answer that does not say yet in which request it came.
#[derive(Clone)]
struct Unfinished(Problem);

/// Completes a problem in an answer with the request's id and the address of its page; anything else stays as it is.
#[must_use]
pub fn finish(mut response: Response, public_url: &str, request: RequestId) -> Response {
    let Some(Unfinished(mut problem)) = response.extensions_mut().remove() else { return response };
    problem.instance = Some(format!("urn:uuid:{request}"));
    problem.kind.insert_str(0, public_url);
    let (parts, _) = response.into_parts();
    Response::from_parts(parts, serde_json::to_vec(&problem).unwrap_or_default().into())
}

/// What kind of problem an answer is, where it is one.
#[must_use]
pub fn kind_of(response: &Response) -> Option<&str> {
    response.extensions().get::<Unfinished>().map(|Unfinished(problem)| &problem.kind[PATH.len()..])
}

/// A kind of problem, as its page tells it.
#[derive(Debug)]
pub struct Kind {
    /// The last segment of `type`.
    pub name: &'static str,
    /// Its HTTP status.
    pub status: u16,
    /// What it means.
    pub means: &'static str,
    /// What to do.
    pub remedy: &'static str,
}

const fn kind(name: &'static str, status: u16, means: &'static str, remedy: &'static str) -> Kind {
    Kind { name, status, means, remedy }
}

/// Every kind of problem.
pub const KINDS: &[Kind] = &[
    kind(
        "bad-request",
        400,
        "The request is not of the form that the route takes: a parameter that is out of bounds or unknown, a header \
         that cannot be read, or a body that is not JSON.",
        "`detail` says which. The route's parameters are in `/docs`.",
    ),
    kind(
        "unauthorized",
        401,
        "The request carries no credentials, or such that this instance does not know, or whose time is over: an API \
         key that was revoked or has expired or whose text was changed, or a session that has ended.",
        "Send a key as `Authorization: Bearer …`, or sign in again. Repeating the request does not help.",
    ),
    kind(
        "scope",
        403,
        "The key's scopes do not grant this, or what is asked for would give more than the key has.",
        "Use a key with a scope that does; the scopes of a key stand in its text.",
    ),
    kind(
        "no-passkeys",
        403,
        "This instance is not reached by a name that passkeys can belong to: its public address is a number, or it has none \
         and was not reached as localhost.",
        "Use the address that the operator has set (`public_url`), or another way to sign in.",
    ),
    kind(
        "role",
        403,
        "Your role in this workspace does not grant this, or what is asked for would give more than you have.",
        "Ask an administrator of the workspace.",
    ),
    kind(
        "instance",
        403,
        "This is for the instance as a whole, and the key is one workspace's.",
        "Use a key that reaches the whole instance.",
    ),
    kind(
        "session",
        403,
        "This is for people who are signed in, and the request carries an API key.",
        "Sign in, and send the session's cookie.",
    ),
    kind(
        "csrf",
        403,
        "A change in a session needs the session's token as `X-CSRF-Token`, from a page of this instance; and nobody else's \
         page asks in a session for what goes on the record.",
        "`GET /v1/session` tells the token to pages of this instance.",
    ),
    kind(
        "passkey-required",
        403,
        "The workspace asks its owners and administrators to act in sessions that began with a passkey.",
        "Sign in with a passkey.",
    ),
    kind(
        "not-found",
        404,
        "There is no such thing, or none that you may know of: another's workspace looks like one that does not exist.",
        "Look at the address, and at whose key or session it is.",
    ),
    kind(
        "method-not-allowed",
        405,
        "The address exists, but does not take this method.",
        "The header `Allow` and `/docs` say which it takes.",
    ),
    kind(
        "too-slow",
        408,
        "The body did not arrive within 30 seconds.",
        "Send it again. Under an `Idempotency-Key` nothing can happen twice.",
    ),
    kind(
        "conflict",
        409,
        "It collides with what is there: a name that is taken, something that has ended already, or an \
         `Idempotency-Key` that was used for another request within 24 hours.",
        "`detail` says with what.",
    ),
    kind(
        "in-progress",
        409,
        "A request with the same `Idempotency-Key` is being carried out.",
        "Send it again after the seconds that `Retry-After` names: then you get its answer.",
    ),
    kind(
        "precondition-failed",
        412,
        "What you want to change is not in the state that `If-Match` names.",
        "Read it again, decide again, and send the change with the new `ETag`.",
    ),
    kind("too-large", 413, "The body is larger than the route takes (1 MiB).", "Send less at once."),
    kind(
        "unsupported-media-type",
        415,
        "The body is of a type that the route does not take.",
        "Send JSON, as `Content-Type: application/json`.",
    ),
    kind(
        "invalid",
        422,
        "The request can be read, but asks for what cannot be: a field that is missing, unknown or out of bounds.",
        "`detail` says which.",
    ),
    kind(
        "too-many-requests",
        429,
        "The key or the session has asked too often, or lets too many requests wait for entries.",
        "Wait the seconds that `Retry-After` names. `RateLimit` in each answer says what remains.",
    ),
    kind(
        "internal",
        500,
        "The service failed.",
        "The operator finds the cause in the log under the id in `instance`.",
    ),
    kind(
        "unavailable",
        503,
        "The service cannot answer now: its database is away, or it is starting or stopping. Where something was to be \
         changed, whether it was is not known.",
        "Try again after the seconds that `Retry-After` names, with the same `Idempotency-Key`.",
    ),
];

impl Problem {
    fn new(status: StatusCode, kind: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        let kind = format!("{PATH}{kind}");
        Self {
            kind,
            title,
            status: status.as_u16(),
            detail: detail.into(),
            instance: None,
            retry_after: None,
        }
    }

    /// The request is not of the form that the route takes.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", "The request cannot be read", detail)
    }

    /// The request reads, but asks for what cannot be.
    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", "The request cannot be carried out", detail)
    }

    /// No token, or one that nobody has.
    pub fn unauthorized() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "A valid token is needed",
            "Send a token that is known here as `Authorization: Bearer …`.",
        )
    }

    /// The caller is known, and may not. `kind` says why, in a word.
    pub fn forbidden(kind: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, kind, "This is not allowed", detail)
    }

    /// Too much was asked in too short a time.
    pub fn too_many(retry_after: u64) -> Self {
        Self {
            retry_after: Some(retry_after),
            ..Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                "too-many-requests",
                "Too many requests",
                format!("Try again in {retry_after} s."),
            )
        }
    }

    /// There is no such thing (or none that the caller may know of).
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "There is no such thing", detail)
    }

    /// The route takes other methods.
    pub fn method_not_allowed() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method-not-allowed",
            "The route does not take this method",
            "See /openapi.json for the methods that it takes.",
        )
    }

    /// It collides with what is.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", "It collides with what is there", detail)
    }

    /// The same request is being carried out now.
    pub fn in_progress() -> Self {
        Self {
            retry_after: Some(1),
            ..Self::new(
                StatusCode::CONFLICT,
                "in-progress",
                "The request is being carried out",
                "A request with this Idempotency-Key is being carried out. Try again for its answer.",
            )
        }
    }

    /// It is not in the state that the request names.
    pub fn precondition_failed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PRECONDITION_FAILED, "precondition-failed", "It has changed", detail)
    }

    /// The body is too large.
    pub fn too_large(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The body is too large", detail)
    }

    /// The body did not arrive in time.
    pub fn too_slow() -> Self {
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            "too-slow",
            "The body did not arrive in time",
            "A body has to arrive within 30 seconds.",
        )
    }

    /// The body is of a type that the route does not take.
    pub fn unsupported(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported-media-type",
            "The body's type is not taken",
            detail,
        )
    }

    /// Not now.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self {
            retry_after: Some(1),
            ..Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "unavailable",
                "The service cannot answer now",
                detail,
            )
        }
    }

    /// A fault of ours. The cause is logged, not told.
    pub fn internal(error: impl std::fmt::Display) -> Self {
        tracing::error!(error = %error, "a request failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "The service failed",
            "The operator's log says why.",
        )
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let retry_after = self.retry_after;
        let mut response = (status, Json(&self)).into_response();
        response.extensions_mut().insert(Unfinished(self));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<sqlx::Error> for Problem {
    fn from(e: sqlx::Error) -> Self {
        match e {
            sqlx::Error::PoolTimedOut | sqlx::Error::Io(_) | sqlx::Error::PoolClosed => {
                tracing::warn!(error = %e, "the database does not answer");
                Self::unavailable("The database does not answer.")
            }
            sqlx::Error::Database(ref d)
                if d.code().is_some_and(|c| c.starts_with("57P") || c.starts_with("53")) =>
            {
                tracing::warn!(error = %e, "the database is not ready");
                Self::unavailable("The database is not ready.")
            }
            // Text that the database cannot hold: NUL, which neither its text nor its JSON takes.
            sqlx::Error::Database(ref d) if matches!(d.code().as_deref(), Some("22021" | "22P05")) => {
                Self::invalid("A text in the request holds the character NUL, which cannot be kept.")
            }
            e => Self::internal(e),
        }
    }
}

impl From<crate::ledger::append::Error> for Problem {
    fn from(e: crate::ledger::append::Error) -> Self {
        use crate::ledger::append::Error;
        match e {
            Error::NoWorkspace(id) => Self::not_found(format!("The workspace {id} does not exist.")),
            Error::KeyTaken(_) => Self::conflict("The idempotency key was used for another body."),
            Error::Unavailable(_) | Error::Stopping => {
                tracing::warn!(error = %e, "an append was not confirmed");
                Self::unavailable("The entry is not confirmed; whether it was recorded is not known.")
            }
            Error::Sql(e) => match std::sync::Arc::try_unwrap(e) {
                Ok(e) => e.into(),
                Err(e) => Self::internal(e),
            },
            Error::Draft(e) => e.into(),
            Error::Sealing(e) => match &*e {
                crate::sealing::Error::Missing(id) => {
                    Self::not_found(format!("The workspace {id} does not exist."))
                }
                e => Self::internal(e),
            },
        }
    }
}

impl From<crate::sealing::Error> for Problem {
    fn from(e: crate::sealing::Error) -> Self {
        match e {
            crate::sealing::Error::Sql(e) => e.into(),
            crate::sealing::Error::Missing(id) => {
                Self::not_found(format!("The workspace {id} does not exist."))
            }
            e @ (crate::sealing::Error::Seal(_) | crate::sealing::Error::KeyEncryption(_)) => {
                Self::internal(e)
            }
        }
    }
}

impl From<crate::ledger::draft::Error> for Problem {
    fn from(e: crate::ledger::draft::Error) -> Self {
        Self::invalid(e.to_string())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::collections::BTreeSet;

    /// The sources below a directory.
    fn sources(directory: &std::path::Path, out: &mut String) {
        for file in std::fs::read_dir(directory).unwrap() {
            let path = file.unwrap().path();
            if path.is_dir() {
                sources(&path, out);
            } else if path.extension().is_some_and(|e| e == "rs") {
                out.push_str(&std::fs::read_to_string(path).unwrap());
            }
        }
    }

    #[test]
    fn every_kind_that_is_told_has_a_page() {
        let listed: BTreeSet<&str> = KINDS.iter().map(|kind| kind.name).collect();
        assert_eq!(listed.len(), KINDS.len());
        let mut text = String::new();
        sources(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut text);
        let mut found = 0;
        for call in text.split("forbidden(").skip(1) {
            let Some(kind) = call.trim_start().strip_prefix('"').and_then(|rest| rest.split('"').next())
            else {
                continue;
            };
            // Calls in the sources, not this test's own words.
            if !kind.bytes().all(|b| b.is_ascii_lowercase() || b == b'-') {
                continue;
            }
            assert!(listed.contains(kind), "{kind} has no page");
            found += 1;
        }
        assert!(found > 5);
        for problem in [
            Problem::bad_request(""),
            Problem::unauthorized(),
            Problem::too_many(1),
            Problem::not_found(""),
            Problem::method_not_allowed(),
            Problem::conflict(""),
            Problem::in_progress(),
            Problem::precondition_failed(""),
            Problem::too_large(""),
            Problem::too_slow(),
            Problem::unsupported(""),
            Problem::invalid(""),
            Problem::unavailable(""),
            Problem::internal("x"),
        ] {
            let kind = KINDS.iter().find(|kind| kind.name == &problem.kind[PATH.len()..]).unwrap();
            assert_eq!(kind.status, problem.status);
        }
    }
}
