//! Error answers in Google's shape: `{"error": {"code", "message", "status", "errors": [{"reason", …}]}}`.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::world::EditRefused;

/// One error of a Google API.
#[derive(Debug)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    name: &'static str,
    reason: &'static str,
    message: String,
    /// In real seconds.
    pub(crate) retry_after: Option<u64>,
}

impl ApiError {
    fn new(status: StatusCode, name: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { status, name, reason, message: message.into(), retry_after: None }
    }

    pub(crate) fn unauthenticated() -> Self {
        let message = "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other valid authentication credential.";
        Self::new(StatusCode::UNAUTHORIZED, "UNAUTHENTICATED", "authError", message)
    }

    pub(crate) fn scope() -> Self {
        let message = "Request had insufficient authentication scopes.";
        Self::new(StatusCode::FORBIDDEN, "PERMISSION_DENIED", "insufficientPermissions", message)
    }

    pub(crate) fn permission() -> Self {
        let message = "The caller does not have permission";
        Self::new(StatusCode::FORBIDDEN, "PERMISSION_DENIED", "permissionDenied", message)
    }

    pub(crate) fn no_such_app(package: &str) -> Self {
        let message = format!("Package not found: {package}.");
        Self::new(StatusCode::NOT_FOUND, "NOT_FOUND", "applicationNotFound", message)
    }

    pub(crate) fn no_such_track(track: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "NOT_FOUND", "notFound", format!("Track not found: {track}."))
    }

    pub(crate) fn track_empty() -> Self {
        let message = "The track specified in the request has no releases.";
        Self::new(StatusCode::NOT_FOUND, "NOT_FOUND", "trackEmpty", message)
    }

    pub(crate) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "NOT_FOUND", "notFound", "Requested entity was not found.")
    }

    pub(crate) fn method() -> Self {
        let message = "The request method is not supported here.";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "UNIMPLEMENTED", "httpMethodNotAllowed", message)
    }

    pub(crate) fn argument(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", "badRequest", message)
    }

    pub(crate) fn edit(refused: EditRefused) -> Self {
        let gone = |name, message| Self::new(StatusCode::BAD_REQUEST, name, "badRequest", message);
        match refused {
            EditRefused::Unknown => Self::not_found(),
            EditRefused::Deleted => gone("INVALID_ARGUMENT", "This Edit has been deleted."),
            EditRefused::Committed => gone(
                "FAILED_PRECONDITION",
                "This edit has already been successfully committed, please create a new Edit.",
            ),
            EditRefused::Expired => {
                gone("FAILED_PRECONDITION", "This edit has expired, please create a new Edit.")
            }
        }
    }

    pub(crate) fn quota(retry_after: Option<u64>) -> Self {
        let message = "Quota exceeded for quota metric 'Queries' and limit 'Queries per minute'.";
        Self {
            retry_after,
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, "RESOURCE_EXHAUSTED", "rateLimitExceeded", message)
        }
    }

    pub(crate) fn internal() -> Self {
        let message = "Internal error encountered.";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL", "backendError", message)
    }

    pub(crate) fn unavailable(retry_after: Option<u64>) -> Self {
        let message = "The service is currently unavailable.";
        Self {
            retry_after,
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", "backendError", message)
        }
    }

    /// The body.
    pub(crate) fn body(&self) -> Value {
        json!({
            "error": {
                "code": self.status.as_u16(),
                "message": self.message,
                "status": self.name,
                "errors": [{ "message": self.message, "domain": "global", "reason": self.reason }],
            }
        })
    }
}
