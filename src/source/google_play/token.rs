//! Google's access tokens: a signed assertion of the service account, exchanged at its token endpoint
//! (RFC 7523).

use std::time::{Duration, Instant};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::{Client, RequestBuilder};
use serde::{Deserialize, Deserializer, Serialize};
use time::OffsetDateTime;
use tokio::sync::Mutex;
use url::Url;
use zeroize::Zeroizing;

use super::client::Request;
use crate::source::fetch::{Failure, FetchOptions, StoreError, clean_code, fetch};

/// What is asked for: there is no read-only scope of the publisher API.
pub(super) const SCOPES: &str =
    "https://www.googleapis.com/auth/androidpublisher https://www.googleapis.com/auth/playdeveloperreporting";

/// The grant type of RFC 7523.
const GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// How long an assertion lasts, in seconds: the most that Google allows.
const ASSERTION_LIFE: i64 = 3600;

/// How long before its end an access token is no longer used: more than a request may take.
const MARGIN: Duration = Duration::from_secs(90);

/// The shortest time that a token is used for, so that one with a short life does not cost an exchange a
/// request.
const SHORTEST_USE: Duration = Duration::from_secs(5);

/// The largest answer of the token endpoint that is read, in bytes.
const MAX_ANSWER: usize = 64 << 10;

/// The hosts that the token endpoint of a service account file may have, with all below them.
const TOKEN_HOSTS: [&str; 2] = ["googleapis.com", "accounts.google.com"];

/// A Google service account. It signs, and shows itself to nobody.
pub struct ServiceAccount {
    email: String,
    key_id: Option<String>,
    token_uri: Url,
    signing: EncodingKey,
}

/// The members of a service account file that are read.
#[derive(Deserialize)]
struct File {
    client_email: String,
    private_key_id: Option<String>,
    #[serde(deserialize_with = "secret")]
    private_key: Zeroizing<String>,
    token_uri: String,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    scope: &'static str,
    aud: &'a str,
    iat: i64,
    exp: i64,
}

impl ServiceAccount {
    /// Reads a service account file. Its `token_uri` has to be Google's, over https, unless insecure hosts
    /// are allowed: the file comes from a tenant, and the assertion goes there.
    pub fn from_json(text: &str, options: &FetchOptions) -> Result<Self, StoreError> {
        let refused = |reason| StoreError::Credential { reason };
        let file: File = serde_json::from_str(text).map_err(|_| refused("it is no service account file"))?;
        let token_uri = Url::parse(&file.token_uri).map_err(|_| refused("token_uri is no URL"))?;
        let is_google = token_uri.host_str().is_some_and(|host| {
            TOKEN_HOSTS.iter().any(|known| {
                host.strip_suffix(known).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            })
        });
        let safe = token_uri.scheme() == "https" && is_google && token_uri.port().is_none();
        if !safe && !options.allow_insecure_hosts {
            return Err(refused("token_uri is not an https address of Google's"));
        }
        let signing = EncodingKey::from_rsa_pem(file.private_key.as_bytes())
            .map_err(|_| refused("private_key is no RSA key in PEM"))?;
        Ok(Self { email: file.client_email, key_id: file.private_key_id, token_uri, signing })
    }

    /// The account's address, which is no secret.
    pub fn email(&self) -> &str {
        &self.email
    }

    fn assertion(&self, now: OffsetDateTime) -> Result<Zeroizing<String>, StoreError> {
        let header = Header { kid: self.key_id.clone(), ..Header::new(Algorithm::RS256) };
        let now = now.unix_timestamp();
        let claims = Claims {
            iss: &self.email,
            scope: SCOPES,
            aud: self.token_uri.as_str(),
            iat: now,
            exp: now + ASSERTION_LIFE,
        };
        jsonwebtoken::encode(&header, &claims, &self.signing)
            .map(Zeroizing::new)
            .map_err(|_| StoreError::Credential { reason: "the private key does not sign" })
    }
}

/// A service account's current access token. One exchange at a time: whoever comes meanwhile waits for it.
pub struct GoogleTokens {
    account: ServiceAccount,
    current: Mutex<Option<Token>>,
}

struct Token {
    text: Zeroizing<String>,
    until: Instant,
}

#[derive(Deserialize)]
struct Granted {
    #[serde(deserialize_with = "secret")]
    access_token: Zeroizing<String>,
    expires_in: u64,
}

impl GoogleTokens {
    /// No token yet.
    pub fn new(account: ServiceAccount) -> Self {
        Self { account, current: Mutex::new(None) }
    }

    /// The account's address, which is no secret.
    pub fn email(&self) -> &str {
        self.account.email()
    }

    /// The token to use now, exchanged anew where there is none.
    pub async fn bearer(&self, http: &Client) -> Result<Zeroizing<String>, StoreError> {
        let mut current = self.current.lock().await;
        if let Some(token) = current.as_ref().filter(|token| Instant::now() < token.until) {
            return Ok(token.text.clone());
        }
        *current = None;
        let begun = Instant::now();
        let granted = self.exchange(http).await?;
        let life = Duration::from_secs(granted.expires_in.min(ASSERTION_LIFE.unsigned_abs()));
        let until = begun + life.saturating_sub(MARGIN).max(SHORTEST_USE);
        *current = Some(Token { text: granted.access_token.clone(), until });
        Ok(granted.access_token)
    }

    /// Forgets a token that the store refused. Another one, granted since, is kept.
    pub async fn invalidate(&self, refused: &str) {
        self.current.lock().await.take_if(|token| token.text.as_str() == refused);
    }

    async fn exchange(&self, http: &Client) -> Result<Granted, StoreError> {
        let assertion = self.account.assertion(OffsetDateTime::now_utc())?;
        let (_, answer) = fetch(self.request(http, &assertion), MAX_ANSWER).await?;
        let body = Zeroizing::new(answer.map_err(error)?.body);
        serde_json::from_slice(&body).map_err(|error| {
            if error.is_data() {
                StoreError::Malformed { what: "an access token" }
            } else {
                StoreError::NotJson
            }
        })
    }

    fn request(&self, http: &Client, assertion: &str) -> RequestBuilder {
        http.request(Request::Token.method(), self.account.token_uri.clone())
            .form(&[("grant_type", GRANT), ("assertion", assertion)])
    }
}

/// Reads a text that is wiped when it is dropped.
fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Zeroizing<String>, D::Error> {
    String::deserialize(deserializer).map(Zeroizing::new)
}

/// What a refusal of the token endpoint means (RFC 6749, section 5.2).
fn error(failure: Failure) -> StoreError {
    #[derive(Deserialize)]
    struct Refusal {
        error: String,
    }
    let refusal: Option<Refusal> = serde_json::from_slice(&failure.body).ok();
    let code = refusal.map(|refusal| clean_code(&refusal.error)).unwrap_or_default();
    match failure.status.as_u16() {
        429 => StoreError::RateLimited { retry_after: failure.retry_after },
        status @ 500..=599 => StoreError::Server { status, retry_after: failure.retry_after },
        400 | 401 | 403
            if ["invalid_grant", "invalid_client", "unauthorized_client"].contains(&code.as_str()) =>
        {
            StoreError::Unauthorized { code }
        }
        401 => StoreError::Unauthorized { code },
        status => StoreError::Refused { status, code },
    }
}
