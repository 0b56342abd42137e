//! One attempt to deliver to a webhook, as Standard Webhooks 1.0.0 has it.
//!
//! The receiver is not trusted with anything of ours: one deadline covers the connection, TLS, the headers and
//! the body; of the body at most [`ANSWER_READ`] bytes are read, then the connection is closed; nothing is
//! decompressed, no redirect followed, no proxy of the environment used. Where a connection may lead is
//! [`guard`](crate::delivery::guard)'s.
//!
//! The status alone decides: 2xx means that the receiver has taken the notification, whatever becomes of the
//! rest of its answer. Taking a truncated 2xx for a failure would send again what was acknowledged.
//!
//! What a tenant may see of a failure ([`Attempt::error`]) is one of a few fixed texts; what exactly happened
//! ([`Attempt::detail`]) can name addresses of the operator's network and is for the log.

mod headers;
mod secret;

use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use reqwest::dns::Resolve;
use reqwest::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use reqwest::{Certificate, Client, StatusCode};
use url::Url;

use crate::delivery::guard::{Guarded, Policy, Refusal, System, check_url};

pub use headers::{BadHeader, CustomHeaders};
pub use secret::{BadSecret, WebhookSecret};

/// After how much of an answer's body reading stops, in bytes. One that is longer costs its connection.
pub const ANSWER_READ: usize = 16 << 10;

/// How much of an answer's body is kept, in bytes.
pub const ANSWER_KEPT: usize = 1 << 10;

/// The default of [`Settings::deadline`]; Standard Webhooks asks for 15 to 30 s.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// The longest `Retry-After` that is heeded: the schedule's own longest wait.
pub const RETRY_AFTER_LIMIT: Duration = Duration::from_secs(24 * 60 * 60);

/// How long an unused connection is kept. Node's servers close theirs after 5 s; a request on a connection
/// that is just being closed is a failed attempt.
const IDLE: Duration = Duration::from_secs(4);

/// Unused connections kept per destination.
const IDLE_CONNECTIONS: usize = 64;

/// One notification on its way to one destination.
pub struct Message<'a> {
    /// Where to.
    pub url: &'a Url,
    /// `webhook-id`, the same for every attempt.
    pub id: &'a str,
    /// `webhook-timestamp`, the time of this attempt, in Unix seconds.
    pub timestamp: i64,
    /// The secrets to sign with: one, or during a rotation the new and the old.
    pub secrets: &'a [WebhookSecret],
    /// The destination's own headers.
    pub headers: &'a CustomHeaders,
    /// The body, JSON.
    pub body: Bytes,
}

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// 2xx: the receiver has it.
    Delivered,
    /// 410: the receiver wants no more; the destination is to be disabled.
    Disabled,
    /// 429, 502, 503 or 504: the receiver has too much to do.
    Throttled {
        /// How long it asks to be left alone, at most [`RETRY_AFTER_LIMIT`]; none: it does not say.
        retry_after: Option<Duration>,
    },
    /// Anything else, 3xx included.
    Failed,
}

/// The record of one attempt.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// What follows from it.
    pub outcome: Outcome,
    /// The HTTP status, if the receiver got as far.
    pub status: Option<u16>,
    /// From the start of the attempt to its end.
    pub duration: Duration,
    /// The beginning of the answer's body as text, at most [`ANSWER_KEPT`] bytes; what is not UTF-8, or NUL
    /// (which Postgres cannot store), is replaced by U+FFFD. Empty if there was none.
    pub answer: String,
    /// Why there is no whole answer, for the tenant: a fixed text without addresses.
    pub error: Option<&'static str>,
    /// The same for the log, in detail. Not for tenants.
    pub detail: Option<String>,
}

/// How to send.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What one attempt may take: connecting, TLS, sending, headers and body.
    pub deadline: Duration,
    /// Certificates (PEM, any number in each) of authorities beyond the system's.
    pub extra_roots: Vec<Vec<u8>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { deadline: DEADLINE, extra_roots: Vec::new() }
    }
}

/// Why there is no sender.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// TLS cannot be set up, or an extra root is damaged.
    #[error("cannot set up the client that sends webhooks: {0}")]
    Client(#[from] reqwest::Error),
    /// An extra root has no certificate in it.
    #[error("there is no PEM certificate in the extra root given for webhooks")]
    NoCertificate,
}

/// Sends webhooks. One for the whole process: it keeps connections open between attempts. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Sender {
    client: Client,
    policy: std::sync::Arc<Policy>,
    deadline: Duration,
}

impl Sender {
    /// A sender through the system's resolver.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn new(policy: Policy, settings: &Settings) -> Result<Self, Error> {
        Self::with_resolver(Guarded::new(policy, System), settings)
    }

    /// A sender through `resolver`.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn with_resolver<R>(resolver: Guarded<R>, settings: &Settings) -> Result<Self, Error>
    where
        R: Resolve + 'static,
    {
        let mut roots = Vec::new();
        for pem in &settings.extra_roots {
            let certificates = Certificate::from_pem_bundle(pem)?;
            if certificates.is_empty() {
                return Err(Error::NoCertificate);
            }
            roots.extend(certificates);
        }
        let policy = std::sync::Arc::new(resolver.policy().clone());
        let client = Client::builder()
            .dns_resolver(resolver)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .referer(false)
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate()
            // An answer that is cut off costs an HTTP/1.1 connection; with HTTP/2 it would cost the others'.
            .http1_only()
            .https_only(!policy.allow_http)
            .tls_certs_merge(roots)
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .user_agent(concat!("statusledger/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self { client, policy, deadline: settings.deadline })
    }

    /// Makes one attempt. Never fails by itself: what went wrong is in the record.
    pub async fn send(&self, message: Message<'_>) -> Attempt {
        let started = Instant::now();
        let mut answer = Answer::default();
        let result = tokio::time::timeout(self.deadline, self.exchange(message, &mut answer)).await;
        let failure = match result {
            Ok(Ok(())) => None,
            Ok(Err(failure)) => Some(failure),
            Err(_) => Some(Failure {
                error: "the receiver did not answer in time",
                detail: format!("deadline of {} ms", self.deadline.as_millis()),
            }),
        };
        let (error, detail) = failure.map(|failure| (failure.error, failure.detail)).unzip();
        Attempt {
            outcome: answer.outcome(),
            status: answer.status.map(|status| status.as_u16()),
            duration: started.elapsed(),
            answer: text(&answer.body),
            error,
            detail,
        }
    }

    /// The request and as much of the answer as comes; what has come stays in `answer` when it is cut off.
    async fn exchange(&self, message: Message<'_>, answer: &mut Answer) -> Result<(), Failure> {
        // A literal address never reaches the resolver.
        check_url(message.url, &self.policy).map_err(|refusal| Failure::refused(&refusal))?;
        let unsendable = |detail: String| Failure { error: "the notification could not be sent", detail };
        let tokens: Vec<String> = message
            .secrets
            .iter()
            .map(|secret| secret.sign(message.id, message.timestamp, &message.body))
            .collect();
        if tokens.is_empty() {
            return Err(unsendable("the destination has no secret".to_owned()));
        }
        let id = HeaderValue::from_str(message.id).map_err(|error| unsendable(error.to_string()))?;
        let signature =
            HeaderValue::from_str(&tokens.join(" ")).map_err(|error| unsendable(error.to_string()))?;
        let mut response = self
            .client
            .post(message.url.clone())
            .headers(message.headers.0.clone())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header("webhook-id", id)
            .header("webhook-timestamp", HeaderValue::from(message.timestamp))
            .header("webhook-signature", signature)
            .body(message.body)
            .send()
            .await
            .map_err(Failure::of)?;
        answer.status = Some(response.status());
        answer.retry_after =
            response.headers().get(RETRY_AFTER).and_then(|value| retry_after(value, SystemTime::now()));
        let mut read = 0;
        while let Some(part) = response.chunk().await.map_err(Failure::of)? {
            read += part.len();
            let room = ANSWER_KEPT - answer.body.len();
            answer.body.extend_from_slice(&part[..part.len().min(room)]);
            if read >= ANSWER_READ {
                // Dropping the response with its body unread closes the connection.
                break;
            }
        }
        Ok(())
    }
}

#[derive(Default)]
struct Answer {
    status: Option<StatusCode>,
    retry_after: Option<Duration>,
    body: Vec<u8>,
}

impl Answer {
    fn outcome(&self) -> Outcome {
        match self.status.map(|status| status.as_u16()) {
            Some(200..=299) => Outcome::Delivered,
            Some(410) => Outcome::Disabled,
            Some(429 | 502 | 503 | 504) => Outcome::Throttled { retry_after: self.retry_after },
            _ => Outcome::Failed,
        }
    }
}

struct Failure {
    error: &'static str,
    detail: String,
}

impl Failure {
    fn refused(refusal: &Refusal) -> Self {
        let error = match refusal {
            Refusal::Scheme { .. } | Refusal::UserInfo | Refusal::NoHost => {
                "the destination's URL is not allowed"
            }
            Refusal::Address(_) | Refusal::Resolved(_) | Refusal::Unresolved(_) => {
                "the destination has no address that is allowed"
            }
        };
        Self { error, detail: format!("{refusal:?}") }
    }

    fn of(error: reqwest::Error) -> Self {
        // An address can hold a token: it stands in no log.
        let error = error.without_url();
        let mut detail = String::new();
        let mut said = String::new();
        let mut handshake = false;
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        while let Some(current) = cause {
            if let Some(refusal) = current.downcast_ref::<Refusal>() {
                return Self::refused(refusal);
            }
            let io = current.downcast_ref::<std::io::Error>();
            // rustls reports what it refuses of the peer as invalid data.
            handshake |= io.is_some_and(|error| error.kind() == std::io::ErrorKind::InvalidData);
            // An error of the system that only wraps another speaks with the other's voice.
            let text = current.to_string();
            if text != said {
                detail.push_str(if said.is_empty() { "" } else { ": " });
                detail.push_str(&text);
                said = text;
            }
            // `source` of a wrapping one skips what it wraps.
            cause = match io.and_then(std::io::Error::get_ref) {
                Some(inner) => Some(inner),
                None => current.source(),
            };
        }
        let error = if error.is_connect() && handshake {
            "the receiver's TLS certificate or handshake was not accepted"
        } else if error.is_connect() {
            "no connection to the receiver"
        } else if error.is_body() || error.is_decode() {
            "the receiver's answer was cut off"
        } else {
            "the receiver closed the connection, or its answer was not HTTP"
        };
        Self { error, detail }
    }
}

/// `Retry-After`: seconds, or a date (RFC 9110, section 10.2.3). What is neither is no wish.
fn retry_after(value: &HeaderValue, now: SystemTime) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    let wish = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit is a long time.
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default()
    };
    Some(wish.min(RETRY_AFTER_LIMIT))
}

/// What is kept of a body, as text that Postgres can store.
fn text(body: &[u8]) -> String {
    let kept = &body[..body.len().min(ANSWER_KEPT)];
    // A character that the cut has split is left out; other damage is shown.
    let whole = match std::str::from_utf8(kept) {
        Err(error) if error.error_len().is_none() => &kept[..error.valid_up_to()],
        _ => kept,
    };
    let mut text = String::from_utf8_lossy(whole).replace('\0', "\u{fffd}");
    if text.len() > ANSWER_KEPT {
        text.truncate(text.floor_char_boundary(ANSWER_KEPT));
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn wish(text: &str) -> Option<u64> {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        retry_after(&HeaderValue::from_str(text).unwrap(), now).map(|wish| wish.as_secs())
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_has_a_cap() {
        assert_eq!(wish("120"), Some(120));
        assert_eq!(wish(" 0 "), Some(0));
        assert_eq!(wish("Sun, 06 Nov 1994 08:50:37 GMT"), Some(60));
        assert_eq!(wish("Sunday, 06-Nov-94 08:50:37 GMT"), Some(60));
        assert_eq!(wish("Sun Nov  6 08:50:37 1994"), Some(60));
        assert_eq!(wish("Sun, 06 Nov 1994 08:49:36 GMT"), Some(0));
        assert_eq!(wish("86401"), Some(86400));
        assert_eq!(wish("99999999999999999999999"), Some(86400));
        assert_eq!(wish("Fri, 31 Dec 9999 23:59:59 GMT"), Some(86400));
        for nonsense in ["", "-1", "1.5", "soon", "1e3", "+5"] {
            assert_eq!(wish(nonsense), None, "{nonsense:?}");
        }
    }

    #[test]
    fn the_kept_answer_is_storable_text_of_at_most_a_kibibyte() {
        assert_eq!(text(b"ok"), "ok");
        assert_eq!(text(b"a\0b"), "a\u{fffd}b");
        assert_eq!(text(b"a\xffb"), "a\u{fffd}b");
        let mut split = vec![b'x'; ANSWER_KEPT - 1];
        split.extend_from_slice("é".as_bytes());
        assert_eq!(text(&split), "x".repeat(ANSWER_KEPT - 1));
        assert!(text(&vec![0; 5000]).len() <= ANSWER_KEPT);
    }
}
