//! HTTP: the domains' routers under one roof, and what is the instance's own.

pub mod arriving;
pub mod document;
pub mod etag;
pub mod extract;
pub mod kind;
pub mod limit;
pub mod needs;
pub mod once;
pub mod page;
pub mod pages;
pub mod problem;
pub mod serve;

use crate::access::context::{RequestContext, TrustedProxies};
use crate::access::sign_in::SignIn;
use crate::access::{Gate, beyond};
use crate::config::PollingSettings;
use crate::database::{Database, server};
use crate::delivery::dispatcher::Shared;
use crate::delivery::guard::Policy;
use crate::keyring::Keyring;
use crate::ledger::Writer;
use crate::ledger::seen_heads::SeenHeads;
use crate::ledger::waiting::Waiting;
use crate::node::Readiness;
use crate::room::Room;
use crate::sealing::DataKeys;
use crate::source::inbound::SourceTokens;
use crate::source::webhook::WebhookSecrets;
use axum::extract::{DefaultBodyLimit, FromRef, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use etag::Conditions;
use limit::RateLimits;
use metrics_exporter_prometheus::PrometheusHandle;
use once::Keeper;
use problem::Problem;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The largest body of a request to the API (inbound events have their own limit).
const MAX_BODY: usize = 1 << 20;

/// How long a request may take until its answer begins: the longest that one waits for by itself (a body and entries, 30 s
/// each; an append, 25 s), and more. Beyond that somebody does not answer who should, and what waits costs memory.
const ANSWER_WITHIN: Duration = Duration::from_secs(100);

/// What handlers may ask for. Each takes the parts it needs, never the whole. Cloned with every layer that a request passes.
#[derive(Clone)]
pub struct App(Arc<Parts>);

impl App {
    /// Of its parts.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }
}

impl Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// Has a handler take each part by its type.
macro_rules! parts {
    ($($name:ident: $part:ty),* $(,)?) => {
        $(impl FromRef<App> for $part {
            fn from_ref(app: &App) -> Self {
                app.$name.clone()
            }
        })*
    };
}

parts! {
    database: Database,
    keyring: Keyring,
    data_keys: DataKeys,
    writer: Writer,
    seen_heads: SeenHeads,
    shared: Arc<Shared>,
    policy: Policy,
    polling: PollingSettings,
    gate: Gate,
    limits: RateLimits,
    sign_in: SignIn,
    proxies: TrustedProxies,
    source_tokens: SourceTokens,
    webhook_secrets: WebhookSecrets,
    waiting: Waiting,
    room: Room,
    readiness: Readiness,
    metrics: PrometheusHandle,
}

/// The parts of a node that handlers ask for.
pub struct Parts {
    /// The database.
    pub database: Database,
    /// The signing keys.
    pub keyring: Keyring,
    /// The data keys.
    pub data_keys: DataKeys,
    /// The writer of ledgers.
    pub writer: Writer,
    /// What this node handed out.
    pub seen_heads: SeenHeads,
    /// The lanes.
    pub shared: Arc<Shared>,
    /// Where notifications may go.
    pub policy: Policy,
    /// How stores are polled.
    pub polling: PollingSettings,
    /// The door.
    pub gate: Gate,
    /// How often who may ask.
    pub limits: RateLimits,
    /// The ways in.
    pub sign_in: SignIn,
    /// Which peers are believed about whom they ask for.
    pub proxies: TrustedProxies,
    /// Sources' tokens seen lately.
    pub source_tokens: SourceTokens,
    /// Which secret the stores sign their webhooks with.
    pub webhook_secrets: WebhookSecrets,
    /// Who waits for entries.
    pub waiting: Waiting,
    /// Room for the bodies of requests.
    pub room: Room,
    /// Whether this node may serve.
    pub readiness: Readiness,
    /// The metrics.
    pub metrics: PrometheusHandle,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "statusledger",
        description = "App store status as a verifiable ledger. Errors are problem details (RFC 9457).",
        license(name = "Apache-2.0 OR MIT", identifier = "Apache-2.0 OR MIT")
    ),
    modifiers(&Tokens)
)]
struct Document;

struct Tokens;

impl Modify for Tokens {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let components = openapi.components.get_or_insert_with(Default::default);
        let bearer = || SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        components.add_security_scheme("token", bearer());
        components.add_security_scheme("source_token", bearer());
        let cookie = ApiKey::Cookie(ApiKeyValue::new("sl_session"));
        components.add_security_scheme("session", SecurityScheme::ApiKey(cookie));
        let signature = ApiKey::Header(ApiKeyValue::new(crate::source::app_store::webhook::SIGNATURE_HEADER));
        components.add_security_scheme("store_signature", SecurityScheme::ApiKey(signature));
    }
}

/// The routes of people and keys, and the instance's own.
fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(Document::openapi())
        .merge(crate::access::http::router())
        .merge(crate::audit::http::router())
        .merge(crate::access::sign_in::http::router())
        .merge(crate::access::sign_in::own::router())
        .merge(crate::workspace::http::router())
        .merge(crate::source::http::router())
        .merge(crate::delivery::http::router())
        .merge(crate::ledger::read::router())
        .routes(routes!(healthz))
        .routes(routes!(readyz))
        .routes(routes!(metrics))
        .routes(routes!(keys))
}

/// The OpenAPI document, written from the code.
#[must_use]
pub fn openapi() -> serde_json::Value {
    document::complete(routes().merge(crate::source::http::inbound()).split_for_parts().1)
}

/// Everything that this node answers.
pub fn router(app: App) -> Router {
    let document = openapi();
    let routes = Router::from(routes());
    let docs: Arc<str> = pages::docs(&document).into();
    let public_url: Arc<str> = app.gate.sessions.public_url.clone().unwrap_or_default().into();
    let conditions = Conditions::new(&document);
    conditions.over(routes.clone().method_not_allowed_fallback(method_not_allowed).with_state(app.clone()));
    let keeper = Keeper {
        database: app.database.clone(),
        data_keys: app.data_keys.clone(),
        gate: app.gate.clone(),
        public_url: Arc::clone(&public_url),
    };
    // What comes last stands outermost.
    routes
        .route("/", get(pages::root))
        .route("/openapi.json", get(move || async move { Json(document) }))
        .route("/docs", get(move || pages::show_docs(docs)))
        .route("/docs/style.css", get(pages::style))
        .route("/problems/", get(pages::problems))
        .route("/problems/{kind}", get(pages::problem))
        .fallback(|| async { Problem::not_found("No route has this path; see /docs, or /openapi.json.") })
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(app.room.clone(), arriving::hold))
        .layer(from_fn(etag::tag))
        .layer(from_fn_with_state(app.gate.clone(), beyond::note))
        .layer(from_fn_with_state(conditions, etag::if_match))
        .layer(from_fn_with_state(keeper, once::once))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(from_fn_with_state((app.limits.clone(), app.gate.clone()), limit::limit))
        // What is told to a source knows neither conditions nor keys, and each layer costs every event.
        .merge(Router::from(crate::source::http::inbound()).method_not_allowed_fallback(method_not_allowed))
        .layer(from_fn_with_state((app.readiness.clone(), app.proxies.clone(), public_url), guard))
        .with_state(app)
}

async fn method_not_allowed() -> Problem {
    Problem::method_not_allowed()
}

/// Gives each request an id, which its answer says, says that nothing may be cached or sniffed, and lets nothing but the
/// instance's own pages through while the history is unverified.
async fn guard(
    State((readiness, proxies, public_url)): State<(Readiness, TrustedProxies, Arc<str>)>,
    mut request: Request,
    next: Next,
) -> Response {
    let context = RequestContext::of(&request, &proxies);
    let id = context.id;
    request.extensions_mut().insert(context);
    let path = request.uri().path();
    let always = [
        "/",
        "/healthz",
        "/readyz",
        "/metrics",
        "/openapi.json",
        "/.well-known/statusledger-keys.json",
        "/docs",
    ];
    let own = always.contains(&path) || path.starts_with("/docs/") || path.starts_with(problem::PATH);
    let response = if own || readiness.is_ready() {
        let late =
            |_| Problem::unavailable("The answer takes too long; whether anything was done is not known.");
        tokio::time::timeout(ANSWER_WITHIN, next.run(request))
            .await
            .unwrap_or_else(|e| late(e).into_response())
    } else {
        Problem::unavailable(readiness.words()).into_response()
    };
    let mut response = problem::finish(response, &public_url, id);
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id.to_string()) {
        headers.insert(HeaderName::from_static("x-request-id"), id);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Whether the process lives.
#[utoipa::path(get, path = "/healthz", tag = "instance", responses((status = 200, body = String, content_type = "text/plain")))]
async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether this node may serve: its database answers, and the history in it is the one that was signed.
#[utoipa::path(get, path = "/readyz", tag = "instance",
    responses((status = 200, body = String, content_type = "text/plain"),
        (status = 503, body = Problem, content_type = "application/problem+json")))]
async fn readyz(
    State(readiness): State<Readiness>,
    State(database): State<Database>,
) -> Result<&'static str, Problem> {
    if !readiness.is_ready() {
        return Err(Problem::unavailable(readiness.words()));
    }
    // One that came back a moment ago may not be the one that was compared, and the node may not have seen it yet.
    let server = server::identify(&database.service).await?;
    if database.compared.server().is_some_and(|compared| compared != server) {
        database.compared.doubt();
        return Err(Problem::unavailable("the database was restarted; the heads are being verified"));
    }
    Ok("ready\n")
}

/// Metrics for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "instance", responses((status = 200, body = String, content_type = "text/plain")))]
async fn metrics(State(handle): State<PrometheusHandle>) -> String {
    handle.run_upkeep();
    handle.render()
}

/// The key manifest (docs/receipt.md, "Key manifest").
#[utoipa::path(get, path = "/.well-known/statusledger-keys.json", tag = "instance",
    responses((status = 200, body = Object, description = "The key manifest")))]
async fn keys(State(keyring): State<Keyring>) -> Response {
    let manifest = keyring.current().manifest().to_string();
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "public, max-age=60")];
    (StatusCode::OK, headers, manifest).into_response()
}
