//! Errors over HTTP: problem details (RFC 9457), one place for all.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// A problem: what is wrong, in words for the caller. `type` is stable; programs go by it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Problem {
    /// `urn:statusledger:problem:` and the kind.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in words.
    pub title: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong here, and where.
    pub detail: String,
    /// Seconds after which to try again.
    #[serde(skip)]
    pub retry_after: Option<u64>,
}

impl Problem {
    fn new(status: StatusCode, kind: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        let kind = format!("urn:statusledger:problem:{kind}");
        Self { kind, title, status: status.as_u16(), detail: detail.into(), retry_after: None }
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
        let mut response = (status, Json(self)).into_response();
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
