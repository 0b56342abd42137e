//! Google's token endpoint (RFC 7523): a signed assertion in exchange for an access token.

use std::collections::HashMap;

use axum::http::StatusCode;
use jsonwebtoken::{Algorithm, Validation};
use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use url::form_urlencoded;

use crate::keys::ServiceAccount;

/// The grant that the endpoint gives tokens for.
const GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// Google's own endpoint. Its libraries make assertions out for it, wherever they post them.
const GOOGLE: &str = "https://oauth2.googleapis.com/token";

/// The longest life of an assertion, in seconds.
const MAX_LIFE: i64 = 3600;

/// How far an assertion may come from the future, in seconds.
const SKEW: i64 = 60;

/// The scope of the publisher API.
pub(crate) const PUBLISHER_SCOPE: &str = "https://www.googleapis.com/auth/androidpublisher";

/// The scope of the reporting API.
pub(crate) const REPORTING_SCOPE: &str = "https://www.googleapis.com/auth/playdeveloperreporting";

#[derive(Deserialize)]
struct Claims {
    iss: String,
    scope: Option<String>,
    aud: String,
    iat: i64,
    exp: i64,
}

/// The access tokens that were given out.
#[derive(Debug, Default)]
pub(crate) struct AccessTokens(HashMap<String, Grant>);

/// What an access token allows.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    /// The place of its account among the accounts.
    pub(crate) account: usize,
    scopes: Vec<String>,
    expires: OffsetDateTime,
}

/// Why no token is given: an error of RFC 6749, section 5.2.
#[derive(Debug)]
pub(crate) struct Refused(&'static str, &'static str);

impl Refused {
    /// The status of every refusal here.
    pub(crate) const STATUS: StatusCode = StatusCode::BAD_REQUEST;

    /// The body.
    pub(crate) fn body(&self) -> Value {
        json!({ "error": self.0, "error_description": self.1 })
    }
}

impl Grant {
    pub(crate) fn allows(&self, scope: &str) -> bool {
        self.scopes.iter().any(|granted| granted == scope)
    }
}

impl AccessTokens {
    /// Exchanges the assertion of a form for a token. `lives` gives the seconds that a token of an account
    /// lives; `audience` is the endpoint's own address.
    pub(crate) fn exchange(
        &mut self,
        form: &[u8],
        audience: &str,
        accounts: &[ServiceAccount],
        lives: impl Fn(usize) -> u32,
        now: OffsetDateTime,
    ) -> Result<Value, Refused> {
        let form: HashMap<_, _> = form_urlencoded::parse(form).into_owned().collect();
        if form.get("grant_type").map(String::as_str) != Some(GRANT) {
            return Err(Refused("unsupported_grant_type", "Invalid grant_type."));
        }
        let assertion =
            form.get("assertion").ok_or(Refused("invalid_request", "Missing parameter: assertion"))?;
        let malformed = Refused("invalid_grant", "Bad JWT");
        let issuer = issuer(assertion).ok_or(malformed)?;
        let found = accounts.iter().position(|account| account.email == issuer);
        let account = found.ok_or(Refused("invalid_grant", "Invalid grant: account not found"))?;
        let mut validation = Validation::new(Algorithm::RS256);
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        let signed = jsonwebtoken::decode::<Claims>(assertion, &accounts[account].public_key, &validation);
        let claims = signed.map_err(|_| Refused("invalid_grant", "Invalid JWT Signature."))?.claims;
        if ![audience, GOOGLE].contains(&claims.aud.as_str()) {
            return Err(Refused("invalid_grant", "Invalid JWT: Failed audience check."));
        }
        let clock = now.unix_timestamp();
        let life = claims.exp.saturating_sub(claims.iat);
        if claims.iss.is_empty()
            || claims.exp <= clock
            || claims.iat > clock + SKEW
            || !(0..=MAX_LIFE).contains(&life)
        {
            return Err(Refused(
                "invalid_grant",
                "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. Check your iat and exp values in the JWT claim.",
            ));
        }
        let scopes: Vec<_> = claims.scope.unwrap_or_default().split_whitespace().map(str::to_owned).collect();
        if scopes.is_empty()
            || scopes.iter().any(|scope| ![PUBLISHER_SCOPE, REPORTING_SCOPE].contains(&scope.as_str()))
        {
            return Err(Refused("invalid_scope", "Invalid OAuth scope or ID token audience provided."));
        }
        let seconds = lives(account);
        let token = format!("ya29.c.{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
        let expires = now + time::Duration::seconds(i64::from(seconds));
        self.0.retain(|_, grant| grant.expires > now);
        self.0.insert(token.clone(), Grant { account, scopes, expires });
        Ok(json!({ "access_token": token, "expires_in": seconds, "token_type": "Bearer" }))
    }

    /// What a token allows now.
    pub(crate) fn grant(&self, token: &str, now: OffsetDateTime) -> Option<Grant> {
        self.0.get(token).filter(|grant| grant.expires > now).cloned()
    }
}

/// The issuer that an assertion names, unchecked.
fn issuer(assertion: &str) -> Option<String> {
    let claims = jsonwebtoken::dangerous::insecure_decode::<Claims>(assertion).ok()?.claims;
    Some(claims.iss)
}
