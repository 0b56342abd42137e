//! The listener: one address for both stores and the token endpoint, since their paths do not meet.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, DATE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use percent_encoding::percent_decode_str;
use serde_json::Value;
use time::OffsetDateTime;

use crate::app_store::jsonapi::Distortion;
use crate::app_store::view::View;
use crate::distort;
use crate::faults::{Fault, FaultKind, Met, Service};
use crate::google_play::token::Refused;
use crate::record::RecordedRequest;
use crate::simulator::Shared;
use crate::{app_store, google_play};

/// The path of the token endpoint.
pub(crate) const TOKEN_PATH: &str = "/token";

/// The largest request body that is read; an assertion has about a kilobyte.
const MAX_BODY: usize = 64 * 1024;

/// The rate header of App Store Connect.
const RATE_HEADER: &str = "x-rate-limit";

/// How long [`FaultKind::Slow`] holds an answer back that says nothing else.
const SLOW: Duration = Duration::from_secs(5);

/// What a path stands for.
enum Operation {
    AppStore(app_store::Operation),
    GooglePlay(google_play::Operation),
    Token,
}

/// An answer of either store, before it is written.
struct Answer {
    status: StatusCode,
    body: Value,
    retry_after: Option<u64>,
    /// `(limit, remaining)` for the rate header.
    rate: Option<(u32, u32)>,
}

/// Answers a request and remembers it.
pub(crate) async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let at = Instant::now();
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, MAX_BODY).await.unwrap_or_default();
    let operation = operation(&parts.uri);
    let template = operation.as_ref().map(|operation| match operation {
        Operation::AppStore(operation) => operation.template(),
        Operation::GooglePlay(operation) => operation.template(),
        Operation::Token => TOKEN_PATH,
    });
    let (response, cut) = respond(&shared, operation, &parts.method, &parts.uri, &parts.headers, &body).await;
    shared.state().record.push(RecordedRequest {
        at,
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        operation: template,
        key: bearer(&parts.headers).and_then(app_store::token::key_id),
        status: if cut { 0 } else { response.status().as_u16() },
    });
    response
}

/// The response, and whether its connection is cut.
async fn respond(
    shared: &Shared,
    operation: Option<Operation>,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    body: &Bytes,
) -> (Response, bool) {
    let Some(operation) = operation else {
        let error = app_store::errors::ApiError::no_such_path(uri.path());
        return (Answer::new(error.status, error.body()).into_response(), false);
    };
    let met = shared.meet(&operation, bearer(headers), uri);
    if let Some(fault) = met.beside(FaultKind::Slow) {
        tokio::time::sleep(fault.delay_ms.map_or(SLOW, Duration::from_millis)).await;
    }
    let answer = || match &operation {
        Operation::AppStore(asked) => shared.app_store(asked, method, uri, bearer(headers), &met),
        Operation::GooglePlay(asked) => shared.google_play(asked, method, uri, bearer(headers), body, &met),
        Operation::Token => shared.token(method, body),
    };
    let (mut response, cut) = match &met.instead {
        None => (answer().into_response(), false),
        Some(fault) => match fault.kind {
            FaultKind::Cut => (cut(&answer().body), true),
            FaultKind::Truncated => (truncated(&answer().body), false),
            FaultKind::BadGateway => (html(StatusCode::BAD_GATEWAY, "502 Bad Gateway"), false),
            FaultKind::Garbage => (html(StatusCode::OK, "Sign in"), false),
            _ => {
                let rate = shared.faulty_rate(&operation, fault, bearer(headers));
                (Answer { rate, ..faulty(&operation, fault) }.into_response(), false)
            }
        },
    };
    if let Some(fault) = met.beside(FaultKind::ClockSkew)
        && let Ok(date) = HeaderValue::from_str(&skewed_date(fault.skew_seconds.unwrap_or(0)))
    {
        response.headers_mut().insert(DATE, date);
    }
    (response, cut)
}

impl Shared {
    /// The team whose key a token names, whether or not it holds.
    fn team(&self, token: &str) -> Option<usize> {
        self.teams_by_key.get(&app_store::token::key_id(token)?).copied()
    }

    /// The faults that a request meets. Whose request it is is taken from its token unchecked: a fault may
    /// well come before the check.
    fn meet(&self, operation: &Operation, token: Option<&str>, uri: &Uri) -> Met {
        let mut state = self.state();
        let state = &mut *state;
        let (service, account) = match operation {
            Operation::AppStore(_) => {
                let team = token.and_then(|token| self.team(token));
                (Service::AppStore, team.map(|team| state.world.teams[team].name.as_str()))
            }
            Operation::GooglePlay(_) => {
                let grant = token.and_then(|token| state.tokens.grant(token, OffsetDateTime::now_utc()));
                (Service::GooglePlay, grant.map(|grant| state.world.accounts[grant.account].name.as_str()))
            }
            Operation::Token => (Service::GoogleToken, None),
        };
        let query = uri.query().unwrap_or_default();
        let first = !query.contains("cursor=") && !query.contains("pageToken=");
        state.world.faults.meet(service, account, uri.path(), first, self.clock.now())
    }

    /// What the rate header of a fault's answer says: the store counts what it refuses, unless it does not
    /// know whose request it is or fails before it counts.
    fn faulty_rate(&self, operation: &Operation, fault: &Fault, token: Option<&str>) -> Option<(u32, u32)> {
        let counts = matches!(
            fault.kind,
            FaultKind::Agreements | FaultKind::Forbidden | FaultKind::NotFound | FaultKind::RateLimited
        );
        let Operation::AppStore(_) = operation else { return None };
        let team = token.filter(|_| counts).and_then(|token| self.team(token))?;
        let quota = &mut self.state().app_store_quota[team];
        Some((quota.limit(), quota.take(self.clock.now()).unwrap_or(0)))
    }

    fn app_store(
        &self,
        asked: &app_store::Operation,
        method: &Method,
        uri: &Uri,
        token: Option<&str>,
        met: &Met,
    ) -> Answer {
        use app_store::errors::ApiError;
        let refuse = |error: ApiError| Answer {
            retry_after: error.retry_after,
            ..Answer::new(error.status, error.body())
        };
        let now = OffsetDateTime::now_utc();
        let found = token.and_then(|token| self.team(token));
        let Some(team) = found.filter(|team| {
            token.is_some_and(|token| app_store::token::is_good(token, &self.app_store_keys[*team], now))
        }) else {
            return refuse(ApiError::not_authorized());
        };
        let mut state = self.state();
        let quota = &mut state.app_store_quota[team];
        let limit = quota.limit();
        let remaining = match quota.take(self.clock.now()) {
            Ok(remaining) => remaining,
            Err(seconds) => {
                let error = ApiError::rate_limited(Some(self.clock.real_seconds(seconds)));
                return Answer { rate: Some((limit, 0)), ..refuse(error) };
            }
        };
        let rate = Some((limit, remaining));
        if method != Method::GET {
            return Answer { rate, ..refuse(ApiError::method(method.as_str())) };
        }
        let query = uri.query().unwrap_or_default();
        let world = &state.world;
        let view = View::new(&world.teams[team], &world.deliveries);
        let distorted = Distortion {
            unfiltered: met.beside(FaultKind::IgnoredFilters).is_some(),
            shuffled: met.beside(FaultKind::Shuffled).map(|_| met.order),
            repeated: met.beside(FaultKind::RepeatedData).is_some(),
        };
        match asked.answer(&view, &self.base, uri.path(), query, distorted) {
            Ok(mut body) => {
                if !met.beside.is_empty() {
                    distort::app_store(&mut body, met, &world.history);
                }
                Answer { rate, ..Answer::new(StatusCode::OK, body) }
            }
            Err(error) => Answer { rate, ..refuse(error) },
        }
    }

    fn google_play(
        &self,
        asked: &google_play::Operation,
        method: &Method,
        uri: &Uri,
        token: Option<&str>,
        body: &Bytes,
        met: &Met,
    ) -> Answer {
        use google_play::errors::ApiError;
        let query = uri.query().unwrap_or_default();
        let mut state = self.state();
        let state = &mut *state;
        let grant = token.and_then(|token| state.tokens.grant(token, OffsetDateTime::now_utc()));
        let result = match grant {
            None => Err(ApiError::unauthenticated()),
            Some(grant) if !grant.allows(asked.scope()) => Err(ApiError::scope()),
            Some(grant) => match state.google_quota[grant.account].take(self.clock.now()) {
                Err(seconds) => Err(ApiError::quota(Some(self.clock.real_seconds(seconds)))),
                Ok(_) if !asked.methods().contains(method) => Err(ApiError::method()),
                Ok(_) => {
                    let repeated = met.beside(FaultKind::RepeatedData).is_some();
                    asked.answer(&mut state.world, grant.account, method, query, body, repeated)
                }
            },
        };
        match result {
            Ok(Value::Null) => Answer::new(StatusCode::NO_CONTENT, Value::Null),
            Ok(mut body) => {
                if !met.beside.is_empty() {
                    let page = google_play::page_token(query);
                    let package = asked.package().unwrap_or_default();
                    distort::google_play(&mut body, met, &state.world.history, package, &page);
                }
                Answer::new(StatusCode::OK, body)
            }
            Err(error) => {
                Answer { retry_after: error.retry_after, ..Answer::new(error.status, error.body()) }
            }
        }
    }

    fn token(&self, method: &Method, body: &Bytes) -> Answer {
        if method != Method::POST {
            let error = google_play::errors::ApiError::method();
            return Answer::new(error.status, error.body());
        }
        let mut state = self.state();
        let state = &mut *state;
        let accounts = &state.world.accounts;
        let lives = |account: usize| accounts[account].token_seconds;
        let audience = format!("{}{TOKEN_PATH}", self.base);
        let now = OffsetDateTime::now_utc();
        match state.tokens.exchange(body, &audience, &self.service_accounts, lives, now) {
            Ok(token) => Answer::new(StatusCode::OK, token),
            Err(refused) => Answer::new(Refused::STATUS, refused.body()),
        }
    }
}

impl Answer {
    fn new(status: StatusCode, body: Value) -> Self {
        Self { status, body, retry_after: None, rate: None }
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        if self.status == StatusCode::NO_CONTENT {
            return self.status.into_response();
        }
        let mut response = (self.status, axum::Json(self.body)).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some((limit, remaining)) = self.rate
            && let Ok(value) = format!("user-hour-lim:{limit};user-hour-rem:{remaining};").parse()
        {
            headers.insert(RATE_HEADER, value);
        }
        response
    }
}

/// The error that a fault makes a store answer, in that store's shape.
fn faulty(operation: &Operation, fault: &Fault) -> Answer {
    let wait = fault.retry_after.map(u64::from);
    if let Operation::AppStore(_) = operation {
        use app_store::errors::ApiError;
        let error = match fault.kind {
            FaultKind::Unauthorized => ApiError::not_authorized(),
            FaultKind::Agreements => ApiError::agreements(),
            FaultKind::Forbidden => ApiError::forbidden(),
            FaultKind::NotFound => ApiError::not_found("apps", "0"),
            FaultKind::RateLimited => ApiError::rate_limited(wait),
            FaultKind::Unavailable => ApiError::unavailable(wait),
            _ => ApiError::unexpected(),
        };
        return Answer { retry_after: error.retry_after, ..Answer::new(error.status, error.body()) };
    }
    use google_play::errors::ApiError;
    let error = match fault.kind {
        FaultKind::Unauthorized => ApiError::unauthenticated(),
        FaultKind::Agreements | FaultKind::Forbidden => ApiError::permission(),
        FaultKind::NotFound => ApiError::not_found(),
        FaultKind::RateLimited => ApiError::quota(wait),
        FaultKind::Unavailable => ApiError::unavailable(wait),
        _ => ApiError::internal(),
    };
    Answer { retry_after: error.retry_after, ..Answer::new(error.status, error.body()) }
}

/// A page of HTML, as a proxy in front of a store answers it.
fn html(status: StatusCode, title: &str) -> Response {
    let page = format!(
        "<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1></center>\r\n</body>\r\n</html>\r\n"
    );
    (status, [(CONTENT_TYPE, "text/html")], page).into_response()
}

/// An answer that ends in its middle: the length is that of the whole, the body is the first half, and then
/// the connection is closed.
fn cut(body: &Value) -> Response {
    let whole = body.to_string();
    let half = Bytes::copy_from_slice(&whole.as_bytes()[..whole.len() / 2]);
    let parts = [Ok(half), Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset))];
    let body = Body::from_stream(futures_util::stream::iter(parts));
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (CONTENT_LENGTH, HeaderValue::from(whole.len())),
    ];
    (headers, body).into_response()
}

/// An answer whose body is cut, and that does not know it: the length is that of what is there.
fn truncated(body: &Value) -> Response {
    let whole = body.to_string();
    let half = Bytes::copy_from_slice(&whole.as_bytes()[..whole.len() / 2]);
    ([(CONTENT_TYPE, "application/json")], half).into_response()
}

/// The time of a clock that is off.
fn skewed_date(seconds: i64) -> String {
    let off = Duration::from_secs(seconds.unsigned_abs());
    let now = SystemTime::now();
    httpdate::fmt_http_date(if seconds < 0 { now - off } else { now + off })
}

fn operation(uri: &Uri) -> Option<Operation> {
    if uri.path() == TOKEN_PATH {
        return Some(Operation::Token);
    }
    let decoded: Option<Vec<_>> = uri
        .path()
        .trim_start_matches('/')
        .split('/')
        .map(|part| percent_decode_str(part).decode_utf8().ok())
        .collect();
    let decoded = decoded?;
    let segments: Vec<&str> = decoded.iter().map(AsRef::as_ref).collect();
    app_store::Operation::at(&segments)
        .map(Operation::AppStore)
        .or_else(|| google_play::Operation::at(&segments).map(Operation::GooglePlay))
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}
