//! `/sign-in`, `/invite`: the routes of whoever is not signed in yet.
//!
//! What begins or ends a sign-in counts against the limits and has to come from a page of ours, or from an address that
//! somebody typed; only an identity provider's answer comes from another site, and is bound to the browser by its
//! `state`. Each failure is on the record ([`crate::access::denial`]), with its reason.

use super::arrival::{Arrived, Arriving};
use super::flow::{self, Goal, Pending};
use super::pages::{self, InvitePage, LinkPage, SignInPage, page, problem, refused, ways};
use super::{Error, HOME, Refusal, SignIn, passkey};
use crate::access::context::RequestContext;
use crate::access::denial::{Denial, FailedSignIn, Reason};
use crate::access::hash_token;
use crate::access::session::{self, Method};
use crate::http::App;
use crate::http::extract::{Body, InPath, InQuery};
use crate::http::problem::Problem;
use crate::id::WorkspaceId;
use axum::extract::State;
use axum::extract::rejection::FormRejection;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::{Form, Json};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use webauthn_rs::prelude::{PublicKeyCredential, RegisterPublicKeyCredential};

/// The routes of the sign-in.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(sign_in_page))
        .routes(routes!(go_to_provider))
        .routes(routes!(come_from_provider))
        .routes(routes!(link_page))
        .routes(routes!(use_link))
        .routes(routes!(passkey_challenge))
        .routes(routes!(use_passkey))
        .routes(routes!(invitation_page))
        .routes(routes!(invited_challenge))
        .routes(routes!(come_invited))
        .routes(routes!(script))
        .routes(routes!(style))
}

/// What a sign-in at an identity provider is to do besides.
#[derive(Debug, Deserialize)]
struct Wish {
    invitation: Option<String>,
}

/// An identity provider's answer.
#[derive(Debug, Deserialize)]
struct Answer {
    state: Option<String>,
    code: Option<String>,
    iss: Option<String>,
    error: Option<String>,
}

/// The form of a link's page.
#[derive(Debug, Deserialize, ToSchema)]
struct LinkForm {
    /// What the page was given for this browser.
    state: String,
    /// The link's text.
    link: String,
}

/// Nothing needs to be said.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

/// A challenge for an authenticator.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Challenge {
    /// To be sent back with the answer.
    pub(super) state: String,
    /// The argument of `navigator.credentials.create` or `.get`, with buffers as base64url.
    #[schema(value_type = Object)]
    pub(super) options: serde_json::Value,
}

/// A passkey's answer.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PasskeyAnswer {
    /// The challenge's.
    state: String,
    /// What `navigator.credentials.get` gave, with buffers as base64url.
    #[schema(value_type = Object)]
    credential: PublicKeyCredential,
    /// An invitation that is to be accepted too.
    invitation: Option<String>,
}

/// Somebody new.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Newcomer {
    /// The invitation's text.
    invitation: String,
    /// What they call themselves.
    #[schema(min_length = 1, max_length = 100)]
    name: String,
}

/// Their first passkey.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewcomersPasskey {
    /// The challenge's.
    state: String,
    /// What `navigator.credentials.create` gave, with buffers as base64url.
    #[schema(value_type = Object)]
    credential: RegisterPublicKeyCredential,
}

/// Somebody is signed in.
#[derive(Debug, Serialize, ToSchema)]
struct Done {
    /// Where to go.
    #[schema(example = "/account")]
    next: &'static str,
}

/// One try to sign in: what is noted when it fails.
struct Try<'a> {
    sign_in: &'a SignIn,
    context: &'a RequestContext,
    route: &'static str,
    method: Method,
    provider: Option<&'a str>,
}

impl Try<'_> {
    /// Counts it against the address it comes from.
    fn counted(&self) -> Result<(), Error> {
        self.sign_in.limits.address(self.context.ip).map_err(Error::TooMany)
    }

    /// Puts a failure on the record.
    fn note(&self, error: &Error) {
        let denials = &self.sign_in.gate.denials;
        match error {
            Error::Refused(refusal) => denials.failed(FailedSignIn {
                method: self.method,
                provider: self.provider.map(str::to_owned),
                reason: refusal.name(),
                context: self.context.clone(),
            }),
            Error::TooMany(_) => denials.note(Denial {
                actor: None,
                workspace: None,
                asked: None,
                source: None,
                route: self.route.to_owned(),
                reason: Reason::RateLimited,
                context: self.context.clone(),
            }),
            Error::Problem(_) => {}
        }
    }

    /// The page that a person gets.
    fn page(&self, tried: Result<Response, Error>) -> Response {
        tried.unwrap_or_else(|error| {
            self.note(&error);
            refused(&error)
        })
    }

    /// The answer that our script gets.
    fn answer(&self, tried: Result<Response, Error>) -> Result<Response, Problem> {
        tried.map_err(|error| {
            self.note(&error);
            problem(error)
        })
    }
}

/// Refuses what a page of another site sent. A browser says so (`Sec-Fetch-Site`); one that does not, says `Origin` with
/// what is posted.
fn from_here(sign_in: &SignIn, headers: &HeaderMap) -> Result<(), Refusal> {
    let told = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let site = told("sec-fetch-site").is_none_or(|site| matches!(site, "same-origin" | "none"));
    let ours = sign_in.base.origin().ascii_serialization();
    let origin = told("origin").is_none_or(|origin| origin == ours);
    if site && origin { Ok(()) } else { Err(Refusal::OtherSite) }
}

/// For whoever came to this machine by its number: the same page by its name, to which cookies and passkeys belong.
fn by_name(sign_in: &SignIn, headers: &HeaderMap, uri: &Uri) -> Option<Response> {
    let host = headers.get(header::HOST)?.to_str().ok()?;
    let port = sign_in.base.port()?;
    let number = [format!("127.0.0.1:{port}"), format!("[::1]:{port}")].iter().any(|n| n == host);
    (number && sign_in.base.host_str() == Some("localhost")).then(|| {
        let rest = uri.path_and_query().map_or("/", |rest| rest.as_str());
        see_other(&format!("http://localhost:{port}{rest}"))
    })
}

pub(super) fn see_other(location: &str) -> Response {
    match HeaderValue::from_str(location) {
        Ok(location) => (StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response(),
        Err(e) => Problem::internal(e).into_response(),
    }
}

/// Sets the cookies of somebody who is signed in now.
fn arrived(sign_in: &SignIn, arrived: &Arrived, mut response: Response) -> Response {
    for cookie in arrived.cookies(sign_in) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

/// Sends a challenge.
pub(super) fn challenge(begun: flow::Begun, options: &impl Serialize) -> Result<Response, Error> {
    let options = serde_json::to_value(options).map_err(Error::fault)?;
    let body = Json(Challenge { state: begun.state, options });
    Ok(([(header::SET_COOKIE, begun.cookie)], body).into_response())
}

/// Shows the ways to sign in.
#[utoipa::path(get, path = "/sign-in", tag = "sign-in",
    responses((status = 200, body = String, content_type = "text/html", description = "The page"),
        (status = 303, description = "The same page under the instance's name")))]
async fn sign_in_page(State(sign_in): State<SignIn>, headers: HeaderMap, uri: Uri) -> Response {
    by_name(&sign_in, &headers, &uri).unwrap_or_else(|| {
        let ways = ways(&sign_in.providers, None);
        page(StatusCode::OK, &SignInPage { ways, invitation: None })
    })
}

/// Sends somebody to an identity provider.
#[utoipa::path(get, path = "/sign-in/with/{provider}", tag = "sign-in",
    params(("provider" = String, Path, description = "The provider's id in the settings"),
        ("invitation" = Option<String>, Query, description = "An invitation that is to be accepted too")),
    responses((status = 303, description = "To the provider"),
        (status = 403, body = String, content_type = "text/html"), (status = 404, body = String, content_type = "text/html"),
        (status = 429, body = String, content_type = "text/html"), (status = 502, body = String, content_type = "text/html")))]
async fn go_to_provider(
    State(sign_in): State<SignIn>,
    context: RequestContext,
    headers: HeaderMap,
    InPath(id): InPath<String>,
    InQuery(wish): InQuery<Wish>,
) -> Response {
    let provider = sign_in.provider(&id);
    let tried = Try {
        sign_in: &sign_in,
        context: &context,
        route: "GET /sign-in/with/{provider}",
        method: provider.map_or(Method::Oidc, super::provider::Provider::method),
        provider: provider.ok().map(|p| p.id.as_str()),
    };
    let sent = async {
        tried.counted()?;
        from_here(&sign_in, &headers)?;
        if let Some(token) = &wish.invitation {
            sign_in.invitation(token).await?;
        }
        let (location, cookie) = sign_in.outward(provider?, Goal::SignIn(wish.invitation.clone())).await?;
        let mut response = see_other(&location);
        response.headers_mut().append(header::SET_COOKIE, cookie);
        Ok(response)
    };
    tried.page(sent.await)
}

impl SignIn {
    /// Where to send somebody for `goal`, and the cookie that binds them to the answer.
    ///
    /// # Errors
    /// If the provider does not say, or the database does not confirm.
    pub(super) async fn outward(
        &self,
        provider: &super::provider::Provider,
        goal: Goal,
    ) -> Result<(String, HeaderValue), Error> {
        let id = flow::new_id();
        let begun = flow::bind(&self.gate, id);
        let outward = provider.outward(begun.state).await?;
        let pending = Pending::Provider {
            provider: provider.id.clone(),
            nonce: outward.nonce,
            verifier: outward.verifier,
            goal,
        };
        flow::keep(&self.gate, self.writer.data_keys(), id, &pending).await?;
        Ok((outward.location.into(), begun.cookie))
    }
}

/// Takes an identity provider's answer.
#[utoipa::path(get, path = "/sign-in/callback/{provider}", tag = "sign-in",
    params(("provider" = String, Path, description = "The provider's id in the settings"),
        ("state" = Option<String>, Query, description = "As it was sent"), ("code" = Option<String>, Query),
        ("iss" = Option<String>, Query, description = "The issuer (RFC 9207)"), ("error" = Option<String>, Query)),
    responses((status = 303, description = "Signed in"),
        (status = 403, body = String, content_type = "text/html"), (status = 404, body = String, content_type = "text/html"),
        (status = 429, body = String, content_type = "text/html"), (status = 502, body = String, content_type = "text/html")))]
async fn come_from_provider(
    State(sign_in): State<SignIn>,
    context: RequestContext,
    headers: HeaderMap,
    InPath(id): InPath<String>,
    InQuery(answer): InQuery<Answer>,
) -> Response {
    let provider = sign_in.provider(&id);
    let method = provider.map_or(Method::Oidc, super::provider::Provider::method);
    let known = provider.ok().map(|p| p.id.as_str());
    let route = "GET /sign-in/callback/{provider}";
    let tried = Try { sign_in: &sign_in, context: &context, route, method, provider: known };
    let come = async {
        tried.counted()?;
        let provider = provider?;
        let state = answer.state.as_deref().ok_or(Refusal::OtherBrowser)?;
        let pending = flow::take(&sign_in.gate, sign_in.writer.data_keys(), &headers, state).await?;
        let Pending::Provider { provider: of, nonce, verifier, goal } = pending else {
            return Err(Refusal::Answered.into());
        };
        // Another provider's answer, brought here (RFC 9700, section 4.4).
        if of != provider.id {
            return Err(Refusal::Issuer.into());
        }
        if answer.error.is_some() {
            return Err(Refusal::Declined.into());
        }
        let code = answer.code.ok_or(Refusal::Declined)?;
        let proven = provider.prove(code, answer.iss.as_deref(), nonce, verifier).await?;
        let arriving = Arriving { headers: &headers, context: &context, method, provider: known };
        match goal {
            Goal::SignIn(invitation) => {
                let who = sign_in.by_identity(arriving, &proven, invitation.as_deref()).await?;
                Ok(arrived(&sign_in, &who, see_other(HOME)))
            }
            Goal::Connect { user, session } => {
                let held = session::held(&sign_in.gate, &headers).await?;
                let held = held
                    .filter(|held| (held.user, held.id) == (user, session))
                    .ok_or(Refusal::OtherBrowser)?;
                sign_in.connect(arriving, &held, &proven).await?;
                let mut response = see_other(HOME);
                response.headers_mut().append(header::SET_COOKIE, flow::forget(&sign_in.gate));
                Ok(response)
            }
        }
    };
    tried.page(come.await)
}

/// Shows a one-time link's button. Opening it changes nothing.
#[utoipa::path(get, path = "/sign-in/link/{link}", tag = "sign-in",
    params(("link" = String, Path, description = "The link's text")),
    responses((status = 200, body = String, content_type = "text/html", description = "The page"),
        (status = 303, description = "The same page under the instance's name")))]
async fn link_page(
    State(sign_in): State<SignIn>,
    headers: HeaderMap,
    uri: Uri,
    InPath(link): InPath<String>,
) -> Response {
    if let Some(elsewhere) = by_name(&sign_in, &headers, &uri) {
        return elsewhere;
    }
    let begun = flow::bind(&sign_in.gate, flow::new_id());
    let mut response = page(StatusCode::OK, &LinkPage { state: &begun.state, link: &link });
    response.headers_mut().append(header::SET_COOKIE, begun.cookie);
    response
}

/// Signs in by a one-time link.
#[utoipa::path(post, path = "/sign-in/link", tag = "sign-in",
    request_body(content = LinkForm, content_type = "application/x-www-form-urlencoded"),
    responses((status = 303, description = "Signed in"), (status = 403, body = String, content_type = "text/html"),
        (status = 422, body = String, content_type = "text/html"), (status = 429, body = String, content_type = "text/html")))]
async fn use_link(
    State(sign_in): State<SignIn>,
    context: RequestContext,
    headers: HeaderMap,
    form: Result<Form<LinkForm>, FormRejection>,
) -> Response {
    let (route, method) = ("POST /sign-in/link", Method::Link);
    let tried = Try { sign_in: &sign_in, context: &context, route, method, provider: None };
    let come = async {
        tried.counted()?;
        from_here(&sign_in, &headers)?;
        let Form(form) = form.map_err(|e| Problem::invalid(e.body_text()))?;
        flow::bound(&sign_in.gate, &headers, &form.state)?;
        sign_in.limits.identity(hash_token(&form.link)).map_err(Error::TooMany)?;
        let arriving = Arriving { headers: &headers, context: &context, method, provider: None };
        let who = sign_in.by_link(arriving, &form.link).await?;
        Ok(arrived(&sign_in, &who, see_other(HOME)))
    };
    tried.page(come.await)
}

/// Begins a sign-in with a passkey.
#[utoipa::path(post, path = "/sign-in/passkey/challenge", tag = "sign-in", request_body = Nothing,
    responses((status = 200, body = Challenge), (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 429, body = Problem, content_type = "application/problem+json")))]
async fn passkey_challenge(
    State(sign_in): State<SignIn>,
    context: RequestContext,
    headers: HeaderMap,
    Body(Nothing {}): Body<Nothing>,
) -> Result<Response, Problem> {
    let (route, method) = ("POST /sign-in/passkey/challenge", Method::Passkey);
    let tried = Try { sign_in: &sign_in, context: &context, route, method, provider: None };
    let begun = async {
        tried.counted()?;
        from_here(&sign_in, &headers)?;
        let (begun, options) = sign_in.challenge().await?;
        challenge(begun, &options)
    };
    tried.answer(begun.await)
}

/// Signs in with a passkey.
#[utoipa::path(post, path = "/sign-in/passkey", tag = "sign-in", request_body = PasskeyAnswer,
    responses((status = 200, body = Done), (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 429, body = Problem, content_type = "application/problem+json")))]
async fn use_passkey(
    State(sign_in): State<SignIn>,
    context: RequestContext,
    headers: HeaderMap,
    Body(answer): Body<PasskeyAnswer>,
) -> Result<Response, Problem> {
    let (route, method) = ("POST /sign-in/passkey", Method::Passkey);
    let tried = Try { sign_in: &sign_in, context: &context, route, method, provider: None };
    let come = async {
        tried.counted()?;
        from_here(&sign_in, &headers)?;
        let arriving = Arriving { headers: &headers, context: &context, method, provider: None };
        if let Some(invitation) = &answer.invitation {
            sign_in.invitation(invitation).await?;
        }
        let who = sign_in.by_passkey(arriving, &answer.state, &answer.credential).await?;
        if let Some(invitation) = &answer.invitation {
            sign_in.accept(arriving, who.user, invitation).await?;
        }
        Ok(arrived(&sign_in, &who, Json(Done { next: HOME }).into_response()))
    };
    tried.answer(come.await)
}

/// Shows an invitation, and the ways to accept it.
#[utoipa::path(get, path = "/invite/{invitation}", tag = "sign-in",
    params(("invitation" = String, Path, description = "The invitation's text")),
    responses((status = 200, body = String, content_type = "text/html", description = "The page"),
        (status = 303, description = "The same page under the instance's name"),
        (status = 403, body = String, content_type = "text/html"), (status = 429, body = String, content_type = "text/html")))]
async fn invitation_page(
    State(sign_in): State<SignIn>,
    context: RequestContext,
    headers: HeaderMap,
    uri: Uri,
    InPath(token): InPath<String>,
) -> Response {
    if let Some(elsewhere) = by_name(&sign_in, &headers, &uri) {
        return elsewhere;
    }
    let (route, method) = ("GET /invite/{invitation}", Method::Link);
    let tried = Try { sign_in: &sign_in, context: &context, route, method, provider: None };
    let shown = async {
        tried.counted()?;
        let open = sign_in.invitation(&token).await?;
        let workspace = workspace_name(&sign_in, open.workspace).await?;
        let signed_in = session::held(&sign_in.gate, &headers).await?.is_some();
        let ways = ways(&sign_in.providers, Some(&token));
        let invite = InvitePage {
            workspace: &workspace,
            role: open.role.name(),
            token: &token,
            invitation: Some(&token),
            signed_in,
            ways,
        };
        Ok(page(StatusCode::OK, &invite))
    };
    tried.page(shown.await)
}

async fn workspace_name(sign_in: &SignIn, workspace: WorkspaceId) -> Result<String, Error> {
    let mut tx = sign_in.gate.database.workspace(workspace).await?;
    let name = sqlx::query_scalar!("SELECT name FROM workspaces WHERE workspace_id = $1", workspace.uuid())
        .fetch_optional(&mut *tx)
        .await?;
    Ok(name.ok_or(Refusal::Invitation)?)
}

/// Begins the first passkey of somebody who was invited.
#[utoipa::path(post, path = "/sign-in/invited/challenge", tag = "sign-in", request_body = Newcomer,
    responses((status = 200, body = Challenge), (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
        (status = 429, body = Problem, content_type = "application/problem+json")))]
async fn invited_challenge(
    State(sign_in): State<SignIn>,
    context: RequestContext,
    headers: HeaderMap,
    Body(newcomer): Body<Newcomer>,
) -> Result<Response, Problem> {
    let (route, method) = ("POST /sign-in/invited/challenge", Method::Passkey);
    let tried = Try { sign_in: &sign_in, context: &context, route, method, provider: None };
    let begun = async {
        tried.counted()?;
        from_here(&sign_in, &headers)?;
        let name = passkey::name(&newcomer.name)?;
        let (begun, options) = sign_in.invite_passkey(newcomer.invitation, name).await?;
        challenge(begun, &options)
    };
    tried.answer(begun.await)
}

/// Signs in somebody new with their first passkey, and accepts their invitation.
#[utoipa::path(post, path = "/sign-in/invited", tag = "sign-in", request_body = NewcomersPasskey,
    responses((status = 200, body = Done), (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 429, body = Problem, content_type = "application/problem+json")))]
async fn come_invited(
    State(sign_in): State<SignIn>,
    context: RequestContext,
    headers: HeaderMap,
    Body(answer): Body<NewcomersPasskey>,
) -> Result<Response, Problem> {
    let (route, method) = ("POST /sign-in/invited", Method::Passkey);
    let tried = Try { sign_in: &sign_in, context: &context, route, method, provider: None };
    let come = async {
        tried.counted()?;
        from_here(&sign_in, &headers)?;
        let arriving = Arriving { headers: &headers, context: &context, method, provider: None };
        let who = sign_in.by_invitation(arriving, &answer.state, &answer.credential).await?;
        Ok(arrived(&sign_in, &who, Json(Done { next: HOME }).into_response()))
    };
    tried.answer(come.await)
}

/// The script of the pages.
#[utoipa::path(get, path = "/static/sign-in.js", tag = "sign-in",
    responses((status = 200, body = String, content_type = "text/javascript")))]
async fn script() -> Response {
    fixed("text/javascript; charset=utf-8", pages::SCRIPT)
}

/// The style of the pages.
#[utoipa::path(get, path = "/static/sign-in.css", tag = "sign-in",
    responses((status = 200, body = String, content_type = "text/css")))]
async fn style() -> Response {
    fixed("text/css; charset=utf-8", pages::STYLE)
}

/// Kept for a few minutes: after an upgrade a page must not run with the script of the one before for long.
fn fixed(kind: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "public, max-age=300")], text).into_response()
}
