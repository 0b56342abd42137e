//! App Store Connect's tokens: ES256 JWTs that we mint ourselves, at most 20 minutes long.

use std::sync::{Mutex, PoisonError};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::source::fetch::StoreError;

/// The audience of every App Store Connect token.
const AUDIENCE: &str = "appstoreconnect-v1";

/// How far back a token begins, in seconds: the store refuses one from its future, and clocks differ.
const BACKDATED: i64 = 60;

/// How long a token lasts from now, in seconds. With [`BACKDATED`] it makes the 20 minutes that the store
/// allows between `iat` and `exp`.
const LIFE: i64 = 1140;

/// How long before its end a token is no longer used, in seconds: more than a request may take.
const MARGIN: i64 = 90;

/// An App Store Connect API key. It signs, and shows itself to nobody.
pub struct AppStoreKey {
    key_id: String,
    /// The issuer of a team key; an individual key has none.
    issuer_id: Option<String>,
    signing: EncodingKey,
}

#[derive(Serialize)]
struct Claims<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<&'static str>,
    iat: i64,
    exp: i64,
    aud: &'static str,
}

impl AppStoreKey {
    /// A team key: the `.p8` file's contents (PKCS #8 in PEM), its key id and the team's issuer id.
    pub fn team(key_id: &str, issuer_id: &str, private_key_pem: &str) -> Result<Self, StoreError> {
        Self::new(key_id, Some(issuer_id), private_key_pem)
    }

    /// An individual key, whose tokens carry no issuer.
    pub fn individual(key_id: &str, private_key_pem: &str) -> Result<Self, StoreError> {
        Self::new(key_id, None, private_key_pem)
    }

    fn new(key_id: &str, issuer_id: Option<&str>, private_key_pem: &str) -> Result<Self, StoreError> {
        let refused = |reason| StoreError::Credential { reason };
        if key_id.is_empty() || issuer_id == Some("") {
            return Err(refused("the key id or issuer id is empty"));
        }
        let signing = EncodingKey::from_ec_pem(private_key_pem.trim().as_bytes()).map_err(|_| {
            refused(
                "the private key is no EC key in PKCS #8 PEM: paste the whole .p8 file, with its BEGIN line",
            )
        })?;
        let key = Self { key_id: key_id.to_owned(), issuer_id: issuer_id.map(str::to_owned), signing };
        // A P-384 key reads as well; only signing tells.
        key.mint(OffsetDateTime::UNIX_EPOCH).map_err(|_| refused("the private key is no P-256 key"))?;
        Ok(key)
    }

    /// The key id, which is no secret.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    fn mint(&self, now: OffsetDateTime) -> Result<Zeroizing<String>, StoreError> {
        let header = Header { kid: Some(self.key_id.clone()), ..Header::new(Algorithm::ES256) };
        let now = now.unix_timestamp();
        let claims = Claims {
            iss: self.issuer_id.as_deref(),
            sub: self.issuer_id.is_none().then_some("user"),
            iat: now - BACKDATED,
            exp: now + LIFE,
            aud: AUDIENCE,
        };
        jsonwebtoken::encode(&header, &claims, &self.signing)
            .map(Zeroizing::new)
            .map_err(|_| StoreError::Credential { reason: "the private key does not sign" })
    }
}

/// A key's current token, used again until near its end: the store takes new tokens amiss.
pub struct AppStoreTokens {
    key: AppStoreKey,
    current: Mutex<Option<Token>>,
}

struct Token {
    text: Zeroizing<String>,
    expires: OffsetDateTime,
}

impl AppStoreTokens {
    /// No token yet.
    pub fn new(key: AppStoreKey) -> Self {
        Self { key, current: Mutex::new(None) }
    }

    /// The token to use now.
    pub fn bearer(&self, now: OffsetDateTime) -> Result<Zeroizing<String>, StoreError> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        // A clock that was set back would keep a token that the store finds too long.
        let usable = |token: &&Token| {
            let left = (token.expires - now).whole_seconds();
            (MARGIN..=LIFE).contains(&left)
        };
        if let Some(token) = current.as_ref().filter(usable) {
            return Ok(token.text.clone());
        }
        let text = self.key.mint(now)?;
        *current = Some(Token { text: text.clone(), expires: now + time::Duration::seconds(LIFE) });
        Ok(text)
    }

    /// Forgets a token that the store refused. Another one, minted since, is kept.
    pub fn invalidate(&self, refused: &str) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.take_if(|token| token.text.as_str() == refused);
    }
}
