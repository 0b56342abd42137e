//! What people see: small pages without a build, each value escaped where it is put, no script or style inline.
//!
//! The content security policy lets a page load its one script and style from here and speak with nobody else, and lets
//! nobody frame it. The referrer stays at home, since some of these addresses have a token in them.

use super::Error;
use super::provider::Provider;
use crate::http::problem::Problem;
use askama::Template;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
     form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// The script of the pages.
pub const SCRIPT: &str = include_str!("static/sign-in.js");
/// Their style.
pub const STYLE: &str = include_str!("static/sign-in.css");

/// A provider on a page.
#[derive(Debug)]
pub struct Way {
    /// Where its button leads.
    pub href: String,
    /// What people call it.
    pub name: String,
}

/// The buttons of the providers, with an invitation to be accepted on the way.
#[must_use]
pub fn ways(providers: &[Provider], invitation: Option<&str>) -> Vec<Way> {
    let query = invitation.map_or_else(String::new, |token| {
        let pair =
            url::form_urlencoded::Serializer::new(String::new()).append_pair("invitation", token).finish();
        format!("?{pair}")
    });
    providers
        .iter()
        .map(|p| Way { href: format!("/sign-in/with/{}{query}", p.id), name: p.name.clone() })
        .collect()
}

/// The sign-in.
#[derive(Debug, Template)]
#[template(path = "sign_in/sign_in.html")]
pub struct SignInPage<'a> {
    /// Identity providers.
    pub ways: Vec<Way>,
    /// None here: the buttons are shared with the page of an invitation.
    pub invitation: Option<&'a str>,
}

/// A one-time link's page.
#[derive(Debug, Template)]
#[template(path = "sign_in/link.html")]
pub struct LinkPage<'a> {
    /// Ties the form to the browser.
    pub state: &'a str,
    /// The link's text.
    pub link: &'a str,
}

/// An invitation's page.
#[derive(Debug, Template)]
#[template(path = "sign_in/invite.html")]
pub struct InvitePage<'a> {
    /// The workspace's name.
    pub workspace: &'a str,
    /// The role.
    pub role: &'a str,
    /// The invitation's text.
    pub token: &'a str,
    /// The same, for the buttons.
    pub invitation: Option<&'a str>,
    /// Whether the browser shows a session.
    pub signed_in: bool,
    /// Identity providers.
    pub ways: Vec<Way>,
}

/// One's own page.
#[derive(Debug, Template)]
#[template(path = "sign_in/account.html")]
pub struct AccountPage {
    /// Identity providers that can be connected.
    pub providers: Vec<Way>,
}

#[derive(Debug, Template)]
#[template(path = "sign_in/refused.html")]
struct RefusedPage<'a> {
    title: &'a str,
    words: &'a str,
}

/// Sends a page.
pub fn page(status: StatusCode, template: &impl Template) -> Response {
    let text = match template.render() {
        Ok(text) => text,
        Err(e) => return Problem::internal(e).into_response(),
    };
    let mut response = (status, text).into_response();
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "same-origin"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// What a person is told who was not signed in.
pub fn refused(error: &Error) -> Response {
    let (status, title, wait) = match error {
        Error::Refused(refusal) => (
            StatusCode::from_u16(refusal.kind().status()).unwrap_or(StatusCode::FORBIDDEN),
            "Not signed in",
            None,
        ),
        Error::TooMany(wait) => (StatusCode::TOO_MANY_REQUESTS, "Too many tries", Some(*wait)),
        Error::Problem(problem) => (
            StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            problem.title,
            problem.retry_after,
        ),
    };
    let words = match error {
        Error::TooMany(wait) => format!("Try again in {wait} seconds."),
        e => e.to_string(),
    };
    let mut response = page(status, &RefusedPage { title, words: &words });
    if let Some(wait) = wait {
        response.headers_mut().insert(header::RETRY_AFTER, wait.into());
    }
    response
}

/// The same for a program.
#[must_use]
pub fn problem(error: Error) -> Problem {
    match error {
        Error::Refused(refusal) => Problem::refused(refusal.kind(), refusal.to_string()),
        Error::TooMany(wait) => Problem::too_many(wait),
        Error::Problem(problem) => problem,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_put_into_a_page_is_escaped() {
        let evil = "\"><script>alert(1)</script>";
        let page = InvitePage {
            workspace: evil,
            role: "member",
            token: evil,
            invitation: Some(evil),
            signed_in: true,
            ways: vec![Way { href: "/x".into(), name: evil.into() }],
        };
        let text = page.render().unwrap();
        assert!(!text.contains("<script>") && !text.contains("\"><script"), "{text}");
        assert!(text.contains("&#60;script&#62;alert(1)"), "{text}");
        assert_eq!(text.matches("<script").count(), 1);
    }

    #[test]
    fn no_page_has_a_script_or_a_style_of_its_own() {
        for template in [
            include_str!("../../../templates/sign_in/layout.html"),
            include_str!("../../../templates/sign_in/ways.html"),
            include_str!("../../../templates/sign_in/sign_in.html"),
            include_str!("../../../templates/sign_in/link.html"),
            include_str!("../../../templates/sign_in/invite.html"),
            include_str!("../../../templates/sign_in/account.html"),
            include_str!("../../../templates/sign_in/refused.html"),
        ] {
            assert!(!template.contains("<style") && !template.contains("style="), "{template}");
            assert!(!template.contains(" on") || !template.contains("onclick"), "{template}");
            assert!(!template.contains("|safe"), "{template}");
        }
    }
}
