//! The checks of an App Store Connect token: ES256 by a known key, for this audience, at most 20 minutes
//! long, and now.

use jsonwebtoken::{Algorithm, Validation};
use serde::Deserialize;
use serde_json::Value;
use time::OffsetDateTime;

use crate::keys::AppStoreKey;

/// The audience of every App Store Connect token.
pub(crate) const AUDIENCE: &str = "appstoreconnect-v1";

/// The longest life of a token, in seconds.
const MAX_LIFE: i64 = 20 * 60;

#[derive(Deserialize)]
struct Claims {
    iss: Option<String>,
    sub: Option<String>,
    iat: Option<i64>,
    exp: i64,
    aud: Value,
}

/// The key id that a token names, unchecked.
pub(crate) fn key_id(token: &str) -> Option<String> {
    jsonwebtoken::decode_header(token).ok()?.kid
}

/// Whether the token is good now for the team whose key it names. A team key's token carries the issuer, an
/// individual key's `sub: "user"` and no issuer.
pub(crate) fn is_good(token: &str, key: &AppStoreKey, now: OffsetDateTime) -> bool {
    let Ok(header) = jsonwebtoken::decode_header(token) else { return false };
    if header.alg != Algorithm::ES256 || header.kid.as_deref() != Some(&key.key_id) {
        return false;
    }
    let mut validation = Validation::new(Algorithm::ES256);
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    let Ok(token) = jsonwebtoken::decode::<Claims>(token, &key.public_key, &validation) else { return false };
    let claims = token.claims;
    let named = match (&claims.iss, &claims.sub) {
        (Some(issuer), _) => *issuer == key.issuer_id,
        (None, subject) => subject.as_deref() == Some("user"),
    };
    let now = now.unix_timestamp();
    let begins = claims.iat.unwrap_or(now);
    named
        && claims.aud == AUDIENCE
        && begins <= now
        && claims.exp > now
        && claims.exp.saturating_sub(begins) <= MAX_LIFE
}
