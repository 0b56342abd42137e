//! Error answers in Apple's shape: `{"errors": [{"id", "status", "code", "title", "detail", "source"}]}`.

use axum::http::StatusCode;
use serde_json::{Value, json};

/// One error of App Store Connect.
#[derive(Debug)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    code: &'static str,
    title: &'static str,
    detail: String,
    parameter: Option<String>,
    /// In real seconds.
    pub(crate) retry_after: Option<u64>,
}

impl ApiError {
    fn new(status: StatusCode, code: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, title, detail: detail.into(), parameter: None, retry_after: None }
    }

    pub(crate) fn not_authorized() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "NOT_AUTHORIZED",
            "Authentication credentials are missing or invalid.",
            "Provide a properly configured and signed bearer token, and make sure that it has not expired.",
        )
    }

    pub(crate) fn agreements() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "FORBIDDEN.REQUIRED_AGREEMENTS_MISSING_OR_EXPIRED",
            "A required agreement is missing or has expired.",
            "This request requires an in-effect agreement that has not been signed or has expired.",
        )
    }

    pub(crate) fn forbidden() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "FORBIDDEN_ERROR",
            "This request is forbidden for security reasons",
            "The API key in use does not allow this request",
        )
    }

    pub(crate) fn not_found(kind: &str, id: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "NOT_FOUND",
            "The specified resource does not exist",
            format!("There is no resource of type '{kind}' with id '{id}'"),
        )
    }

    pub(crate) fn no_such_path(path: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "PATH_ERROR",
            "The URL path is not valid",
            format!("The relationship or resource at '{path}' does not exist"),
        )
    }

    pub(crate) fn method(method: &str) -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "METHOD_NOT_ALLOWED",
            "The HTTP method is not allowed for this path",
            format!("'{method}' is not allowed here"),
        )
    }

    pub(crate) fn rate_limited(retry_after: Option<u64>) -> Self {
        Self {
            retry_after,
            ..Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                "RATE_LIMIT_EXCEEDED",
                "The request rate limit has been reached.",
                "We've received too many requests for this API. Please wait and try again or slow down your request rate.",
            )
        }
    }

    pub(crate) fn unexpected() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "UNEXPECTED_ERROR",
            "An unexpected error occurred.",
            "An unexpected error occurred on the server side. If this issue continues, contact us at https://developer.apple.com/contact/.",
        )
    }

    pub(crate) fn unavailable(retry_after: Option<u64>) -> Self {
        Self {
            retry_after,
            ..Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "SERVICE_UNAVAILABLE",
                "The service is unavailable.",
                "The service is temporarily unavailable. Please try again later.",
            )
        }
    }

    /// A parameter that the description does not have, or whose value it does not allow.
    pub(crate) fn parameter(name: &str, detail: impl Into<String>) -> Self {
        Self {
            parameter: Some(name.to_owned()),
            ..Self::new(
                StatusCode::BAD_REQUEST,
                "PARAMETER_ERROR.INVALID",
                "A parameter has an invalid value",
                detail,
            )
        }
    }

    /// A parameter that has to be there.
    pub(crate) fn missing_parameter(name: &str) -> Self {
        Self {
            parameter: Some(name.to_owned()),
            ..Self::new(
                StatusCode::BAD_REQUEST,
                "PARAMETER_ERROR.REQUIRED",
                "A required parameter is missing",
                format!("The parameter '{name}' is required for this request"),
            )
        }
    }

    /// The body.
    pub(crate) fn body(&self) -> Value {
        let mut error = json!({
            "id": uuid::Uuid::new_v4().to_string(),
            "status": self.status.as_u16().to_string(),
            "code": self.code,
            "title": self.title,
            "detail": self.detail,
        });
        if let Some(parameter) = &self.parameter {
            error["source"] = json!({ "parameter": parameter });
        }
        json!({ "errors": [error] })
    }
}
