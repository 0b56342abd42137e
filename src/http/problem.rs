//! Errors over HTTP: problem details (RFC 9457), one place for all.

pub use super::kind::Kind;
use crate::database::is_passing;
use crate::id::RequestId;
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// A problem: what is wrong, in words for the caller. `type` is stable; programs go by its last segment.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Problem {
    #[serde(skip)]
    kind: Kind,
    /// The address of a page about this kind of problem: `/problems/` and the kind.
    #[serde(rename = "type")]
    #[schema(format = "uri-reference", example = "/problems/not-found")]
    page: String,
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
    /// Whether somebody who had been let in may not go on: on the record already, and of this moment.
    #[serde(skip)]
    pub lapsed: bool,
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
    problem.page.insert_str(0, public_url);
    let (mut parts, _) = response.into_parts();
    // Of the body as it was: an answer of the routes that was asked for inside (`http::etag`) says how long it is.
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, serde_json::to_vec(&problem).unwrap_or_default().into())
}

/// What kind of problem an answer is, where it is one.
#[must_use]
pub fn kind_of(response: &Response) -> Option<Kind> {
    response.extensions().get::<Unfinished>().map(|Unfinished(problem)| problem.kind)
}

/// Whether an answer is of somebody who had been let in and may not go on.
#[must_use]
pub fn is_lapse(response: &Response) -> bool {
    response.extensions().get::<Unfinished>().is_some_and(|Unfinished(problem)| problem.lapsed)
}

impl Problem {
    fn new(kind: Kind, title: &'static str, detail: impl Into<String>) -> Self {
        Self {
            kind,
            page: format!("{PATH}{}", kind.name()),
            title,
            status: kind.status(),
            detail: detail.into(),
            instance: None,
            retry_after: None,
            lapsed: false,
        }
    }

    /// The request is not of the form that the route takes.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(Kind::BadRequest, "The request cannot be read", detail)
    }

    /// The request reads, but asks for what cannot be.
    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, "The request cannot be carried out", detail)
    }

    /// No token, or one that nobody has.
    pub fn unauthorized() -> Self {
        Self::new(
            Kind::Unauthorized,
            "A valid token is needed",
            "Send a token that is known here as `Authorization: Bearer …`.",
        )
    }

    /// The caller is known, and may not; `kind` says why.
    pub fn forbidden(kind: Kind, detail: impl Into<String>) -> Self {
        Self::new(kind, "This is not allowed", detail)
    }

    /// Somebody is not signed in, or what they show of themselves does not hold.
    pub fn refused(kind: Kind, detail: impl Into<String>) -> Self {
        Self::new(kind, "Not signed in", detail)
    }

    /// The same problem in other words.
    #[must_use]
    pub fn saying(self, title: &'static str, detail: impl Into<String>) -> Self {
        Self { title, detail: detail.into(), ..self }
    }

    /// Too much was asked in too short a time.
    pub fn too_many(retry_after: u64) -> Self {
        Self {
            retry_after: Some(retry_after),
            ..Self::new(Kind::TooManyRequests, "Too many requests", format!("Try again in {retry_after} s."))
        }
    }

    /// There is no such thing (or none that the caller may know of).
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, "There is no such thing", detail)
    }

    /// The route takes other methods.
    pub fn method_not_allowed() -> Self {
        Self::new(
            Kind::MethodNotAllowed,
            "The route does not take this method",
            "See /openapi.json for the methods that it takes.",
        )
    }

    /// It collides with what is.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(Kind::Conflict, "It collides with what is there", detail)
    }

    /// The same request is being carried out now.
    pub fn in_progress() -> Self {
        Self {
            retry_after: Some(1),
            ..Self::new(
                Kind::InProgress,
                "The request is being carried out",
                "A request with this Idempotency-Key is being carried out. Try again for its answer.",
            )
        }
    }

    /// The same request was carried out, and nobody knows any more what was answered.
    pub fn answer_lost() -> Self {
        Self::new(
            Kind::AnswerLost,
            "The request was carried out, and its answer is lost",
            "A request with this Idempotency-Key was carried out, and its answer was not kept. Nothing was done again: look \
             at what there is now.",
        )
    }

    /// It is not in the state that the request names.
    pub fn precondition_failed(detail: impl Into<String>) -> Self {
        Self::new(Kind::PreconditionFailed, "It has changed", detail)
    }

    /// The body is too large.
    pub fn too_large(detail: impl Into<String>) -> Self {
        Self::new(Kind::TooLarge, "The body is too large", detail)
    }

    /// The body did not arrive in time.
    pub fn too_slow() -> Self {
        Self::new(Kind::TooSlow, "The body did not arrive in time", "A body has to arrive within 30 seconds.")
    }

    /// The body is of a type that the route does not take.
    pub fn unsupported(detail: impl Into<String>) -> Self {
        Self::new(Kind::UnsupportedMediaType, "The body's type is not taken", detail)
    }

    /// Not now.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self { retry_after: Some(1), ..Self::new(Kind::Unavailable, "The service cannot answer now", detail) }
    }

    /// There is more to do than there is room for; nothing was done of this.
    pub fn overloaded() -> Self {
        metrics::counter!("statusledger_requests_shed_total").increment(1);
        Self::unavailable(
            "The node has as many requests in hand as it has room for. Nothing was done; try again.",
        )
    }

    /// A fault of ours. The cause is logged, not told.
    pub fn internal(error: impl std::fmt::Display) -> Self {
        tracing::error!(error = %error, "a request failed");
        Self::new(Kind::Internal, "The service failed", "The operator's log says why.")
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
            e if is_passing(&e) => {
                tracing::warn!(error = %e, "the database does not answer, or not now");
                Self::unavailable("The database does not answer, or does not take this now.")
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
            e @ (Error::Lost(_) | Error::Uncompared) => {
                tracing::error!(error = %e, "nothing is appended");
                Self::unavailable("Nothing is recorded while the history is not the one that was signed.")
            }
            Error::Sql(e) => match std::sync::Arc::try_unwrap(e) {
                Ok(e) => e.into(),
                Err(e) => Self::internal(e),
            },
            Error::Draft(e) => e.into(),
            Error::Moved => Self::precondition_failed("Something was changed meanwhile: read it again."),
            Error::Outdated => {
                Self::unavailable("Too much is being changed here, and nothing was recorded. Try again.")
            }
            Error::ClaimLost => {
                Self::unavailable("It took too long to begin, and nothing was changed. Try again.")
            }
            Error::Lapsed(lapse) => *lapse.0,
            e @ Error::Terms(_) => Self::internal(e),
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

    #[test]
    fn every_kind_has_a_name_of_its_own_a_status_of_an_error_and_a_page() {
        let names: BTreeSet<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        assert_eq!(names.len(), Kind::ALL.len());
        for kind in Kind::ALL {
            assert!(kind.name().bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{kind:?}");
            let status = StatusCode::from_u16(kind.status()).unwrap();
            assert!(status.is_client_error() || status.is_server_error(), "{kind:?}");
            assert!(kind.means().ends_with('.') && kind.remedy().ends_with('.'), "{kind:?}");
            let response = Problem::new(*kind, "t", "d").into_response();
            assert_eq!((response.status(), kind_of(&response)), (status, Some(*kind)));
        }
        assert!(Kind::ALL.windows(2).all(|pair| pair[0].status() <= pair[1].status()));
    }
}
