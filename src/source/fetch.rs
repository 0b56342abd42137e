//! One request to a store: bounded in time and size, without redirects, its failures told apart.
//!
//! Nothing here ends up in an error but statuses, the stores' own error codes and what the network said:
//! never a token, a key or a body.

use std::time::{Duration, Instant};

use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};
use reqwest::{Client, RequestBuilder, StatusCode, redirect};
use time::OffsetDateTime;
use url::{Host, Url};

use super::budget::{RateBudget, RateLimit, parse_http_date, parse_rate_limit, parse_retry_after};

/// The largest answer that is read, in bytes. A page of 200 apps with all they include has about 2 MiB.
pub const MAX_BODY: usize = 32 << 20;

/// How long connecting may take.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// The longest error code that is taken over from an answer, in bytes.
const MAX_CODE: usize = 100;

/// How a store is reached.
#[derive(Clone, Debug)]
pub struct FetchOptions {
    /// How long a request may take in all, from connecting to the last byte.
    pub deadline: Duration,
    /// The largest answer that is read, in bytes.
    pub max_body: usize,
    /// Lets `http` and any host stand for a store and its token endpoint: for the simulator, and for tests.
    pub allow_insecure_hosts: bool,
    /// How many times as fast as ours the store's clock runs: the window of its limit is so much shorter. For simulators:
    /// it counts only together with `allow_insecure_hosts`, and only for a store on this machine.
    pub time_scale: f64,
}

impl Default for FetchOptions {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(30),
            max_body: MAX_BODY,
            allow_insecure_hosts: false,
            time_scale: 1.0,
        }
    }
}

/// Why a store did not give what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// 401, and again with a new token.
    #[error("the store does not accept the credential ({code})")]
    Unauthorized {
        /// The store's code.
        code: String,
    },
    /// 403. Which of its meanings it has is in `cause`.
    #[error("the store forbids this ({code})")]
    Forbidden {
        /// What is missing.
        cause: ForbiddenCause,
        /// The store's code.
        code: String,
    },
    /// 404 or 410.
    #[error("the store has no such resource ({code})")]
    NotFound {
        /// The store's code.
        code: String,
    },
    /// 429, or a 403 that means the same.
    #[error("the store asks for fewer requests")]
    RateLimited {
        /// How long it asks to wait.
        retry_after: Option<Duration>,
    },
    /// Any 5xx, whatever its body.
    #[error("the store failed with status {status}")]
    Server {
        /// The status.
        status: u16,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
    },
    /// Any other status: a request that the store does not understand, or a redirect.
    #[error("the store refused the request with status {status} ({code})")]
    Refused {
        /// The status.
        status: u16,
        /// The store's code.
        code: String,
    },
    /// The answer is no JSON.
    #[error("the store's answer is no JSON")]
    NotJson,
    /// The answer is JSON, but not what the store's description says.
    #[error("the store's answer is not as described: {what}")]
    Malformed {
        /// What is wrong with it.
        what: &'static str,
    },
    /// The answer is larger than is read.
    #[error("the store's answer is larger than {limit} bytes")]
    TooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The address of the next page leaves the host or the path that was asked.
    #[error("the store's next page is elsewhere")]
    ForeignPage,
    /// The pages repeat or do not end.
    #[error("the store's pages repeat or do not end")]
    EndlessPages,
    /// The request or its answer took too long.
    #[error("the store did not answer in time")]
    Timeout,
    /// There is no connection, or it was cut.
    #[error("the store cannot be reached: {reason}")]
    Network {
        /// What the network said.
        reason: String,
    },
    /// The key's budget is spent; nothing was sent.
    #[error("the request budget of the key is spent")]
    BudgetSpent {
        /// How long until something may be spent again.
        retry_after: Duration,
    },
    /// The credential cannot be used at all: no key, a key of another kind, an address that is not allowed.
    #[error("the credential cannot be used: {reason}")]
    Credential {
        /// Why.
        reason: &'static str,
    },
    /// The HTTP client cannot be made, or the base address is none.
    #[error("the store client cannot be set up: {reason}")]
    Setup {
        /// Why.
        reason: String,
    },
}

/// What a 403 is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForbiddenCause {
    /// An agreement has to be signed anew.
    Agreements,
    /// The key's role or scope is too small, or the membership has ended.
    Role,
    /// Something else that the code names, such as an API that is not switched on.
    Other,
}

impl StoreError {
    /// How long the store, or the budget, asks to wait before the next request.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after } | Self::Server { retry_after, .. } => *retry_after,
            Self::BudgetSpent { retry_after } => Some(*retry_after),
            _ => None,
        }
    }

    /// Whether it is about one request, and says nothing about the next one. That a store did not answer at all may be.
    pub fn is_of_one_request(&self) -> bool {
        match self {
            Self::Malformed { .. }
            | Self::NotJson
            | Self::ForeignPage
            | Self::EndlessPages
            | Self::TooLarge { .. }
            | Self::Refused { .. }
            | Self::NotFound { .. }
            | Self::Timeout
            | Self::Network { .. } => true,
            // A store that says when to come again means everything.
            Self::Server { retry_after, .. } => retry_after.is_none(),
            Self::Unauthorized { .. }
            | Self::Forbidden { .. }
            | Self::RateLimited { .. }
            | Self::BudgetSpent { .. }
            | Self::Credential { .. }
            | Self::Setup { .. } => false,
        }
    }

    /// Whether the same request may succeed later without anyone doing anything.
    pub fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::RateLimited { .. }
                | Self::Server { .. }
                | Self::NotJson
                | Self::Timeout
                | Self::Network { .. }
                | Self::BudgetSpent { .. }
                | Self::EndlessPages
        )
    }
}

/// What an answer's headers say beside its body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contact {
    /// The server's `Date`.
    pub server_date: Option<OffsetDateTime>,
    /// How far the server's clock is before ours, by that date; negative where it is behind.
    pub skew: Option<time::Duration>,
    /// The key's limit.
    pub rate: Option<RateLimit>,
}

/// All of a list, gathered over its pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing<T> {
    /// The items, each once, in the order in which they came.
    pub items: Vec<T>,
    /// Whether this is all there is: the walk ended as it should, every item could be read and belongs here,
    /// and there are as many as the store says. Only from such a list may anything be concluded about what
    /// is not in it.
    pub complete: bool,
    /// How many requests it took.
    pub pages: u32,
    /// The server's `Date` of the last page.
    pub server_date: Option<OffsetDateTime>,
}

/// An answer with status 200.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) body: Vec<u8>,
    pub(crate) contact: Contact,
}

/// An answer with any other status.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: StatusCode,
    pub(crate) body: Vec<u8>,
    pub(crate) retry_after: Option<Duration>,
}

impl FetchOptions {
    /// The HTTP client for these addresses: no redirects, one deadline over all, no proxy to this machine.
    pub(crate) fn client(&self, base: &Url) -> Result<Client, StoreError> {
        let mut builder = Client::builder()
            .user_agent(concat!("statusledger/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_DEADLINE.min(self.deadline))
            .timeout(self.deadline);
        if is_loopback(base) {
            builder = builder.no_proxy();
        }
        builder.build().map_err(|error| StoreError::Setup { reason: chain(&error.without_url()) })
    }

    /// How fast the clock of the store at this address runs: the time scale is for this machine's simulators, and no
    /// other store's limit is ever taken for one of a shorter time.
    pub(crate) fn time_scale_of(&self, base: &Url) -> f64 {
        if self.allow_insecure_hosts && is_loopback(base) { self.time_scale } else { 1.0 }
    }

    /// Reads a base address. It has to be `https`, unless insecure hosts are allowed.
    pub(crate) fn base(&self, address: &str) -> Result<Url, StoreError> {
        let setup = |reason: &str| StoreError::Setup { reason: reason.to_owned() };
        let url = Url::parse(address).map_err(|_| setup("the base address is no URL"))?;
        let secure = url.scheme() == "https" || (self.allow_insecure_hosts && url.scheme() == "http");
        if !secure || url.host().is_none() {
            return Err(setup("the base address is not https"));
        }
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
            return Err(setup("the base address has more than scheme, host, port and path"));
        }
        Ok(url)
    }
}

/// Sends a request and reads its answer to the end. `Ok(Err(_))` is an answer whose status is not 200.
pub(crate) async fn fetch(
    request: RequestBuilder,
    max_body: usize,
) -> Result<(Contact, Result<Fetched, Failure>), StoreError> {
    let mut response = request.send().await.map_err(network)?;
    let status = response.status();
    let now = OffsetDateTime::now_utc();
    let contact = contact(response.headers(), now);
    let retry_after = header(response.headers(), RETRY_AFTER.as_str())
        .and_then(|value| parse_retry_after(value, contact.server_date.unwrap_or(now)));
    let too_large = StoreError::TooLarge { limit: max_body };
    if response.content_length().is_some_and(|length| length > max_body as u64) {
        return Err(too_large);
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(network)? {
        if body.len() + chunk.len() > max_body {
            return Err(too_large);
        }
        body.extend_from_slice(&chunk);
    }
    let answer = match status {
        StatusCode::OK => Ok(Fetched { body, contact }),
        _ => Err(Failure { status, body, retry_after }),
    };
    Ok((contact, answer))
}

/// Lets a budget know what an answer said.
pub(crate) fn account(budget: &mut RateBudget, contact: &Contact, error: Option<&StoreError>) {
    let now = Instant::now();
    if let Some(rate) = contact.rate {
        budget.observe(rate, now);
    }
    if let Some(wait) = error.and_then(StoreError::retry_after) {
        budget.hold(wait, now);
    }
}

/// The address of a path below a base; each segment is escaped.
pub(crate) fn below<'s>(base: &Url, segments: impl IntoIterator<Item = &'s str>) -> Url {
    let mut url = base.clone();
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(segments);
    }
    url
}

/// Whether two addresses have scheme, host, port and path in common, and the second carries no user.
pub(crate) fn is_same_place(one: &Url, other: &Url) -> bool {
    one.scheme() == other.scheme()
        && one.host() == other.host()
        && one.port_or_known_default() == other.port_or_known_default()
        && one.path() == other.path()
        && other.username().is_empty()
        && other.password().is_none()
}

/// What of a store's error code may stand in an error of ours.
pub(crate) fn clean_code(code: &str) -> String {
    code.chars()
        .filter(|character| character.is_ascii_alphanumeric() || "._-".contains(*character))
        .take(MAX_CODE)
        .collect()
}

fn contact(headers: &HeaderMap, now: OffsetDateTime) -> Contact {
    let server_date = header(headers, DATE.as_str()).and_then(parse_http_date);
    Contact {
        server_date,
        skew: server_date.map(|date| date - now),
        rate: header(headers, "x-rate-limit").and_then(parse_rate_limit),
    }
}

fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

fn network(error: reqwest::Error) -> StoreError {
    if error.is_timeout() {
        return StoreError::Timeout;
    }
    StoreError::Network { reason: chain(&error.without_url()) }
}

/// An error with all that caused it, since reqwest's own text says only that sending failed.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_place_is_the_same_only_in_scheme_host_port_and_path() {
        let place = Url::parse("https://api.example:443/v1/apps?limit=2").unwrap();
        let same = |other: &str| is_same_place(&place, &Url::parse(other).unwrap());
        assert!(same("https://api.example/v1/apps"));
        assert!(same("https://API.example/v1/apps?cursor=3#x"));
        for other in [
            "http://api.example:443/v1/apps",
            "https://api.example:444/v1/apps",
            "https://api.example.net/v1/apps",
            "https://api.example/v1/apps/",
            "https://api.example/v1/users",
            "https://user@api.example/v1/apps",
            "https://:secret@api.example/v1/apps",
        ] {
            assert!(!same(other), "{other}");
        }
    }

    #[test]
    fn only_a_store_on_this_machine_has_a_clock_of_its_own() {
        let mut options = FetchOptions { time_scale: 60.0, ..FetchOptions::default() };
        let here = Url::parse("http://127.0.0.1:8080").unwrap();
        assert_eq!(options.time_scale_of(&here), 1.0);
        options.allow_insecure_hosts = true;
        assert_eq!(options.time_scale_of(&here), 60.0);
        assert_eq!(options.time_scale_of(&Url::parse("https://api.appstoreconnect.apple.com").unwrap()), 1.0);
    }

    #[test]
    fn a_segment_cannot_leave_its_place_in_a_path() {
        let base = Url::parse("https://api.example/prefix/").unwrap();
        let url = below(&base, ["v1", "apps", "a/../b?c#d%2f é", "builds"]);
        assert_eq!(
            url.as_str(),
            "https://api.example/prefix/v1/apps/a%2F..%2Fb%3Fc%23d%252f%20%C3%A9/builds"
        );
        assert_eq!(
            below(&Url::parse("https://api.example").unwrap(), ["v1"]).as_str(),
            "https://api.example/v1"
        );
    }

    #[test]
    fn a_code_of_the_store_carries_nothing_but_a_code() {
        assert_eq!(clean_code("FORBIDDEN.REQUIRED_AGREEMENTS-1"), "FORBIDDEN.REQUIRED_AGREEMENTS-1");
        assert_eq!(clean_code("a b\n\u{1b}[31m<script>é"), "ab31mscript");
        assert_eq!(clean_code(&"A".repeat(5000)).len(), MAX_CODE);
    }
}
