//! Access: administrators' tokens.
//!
//! One kind for now: the bootstrap administrator's, made by `up`, stored as a hash, shown once (in the file that the
//! operator names). Its text is `sl_admin_<id>_<secret>`, so that a leak scanner knows it and a narrower scope can
//! stand in its second place.

use crate::database::Database;
use crate::http::problem::Problem;
use crate::id::TokenId;
use axum::extract::{FromRef, FromRequestParts};
use axum::http::header;
use axum::http::request::Parts;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// How long a token that was found is taken for known without asking again.
const KNOWN_FOR: Duration = Duration::from_secs(30);
/// Tokens remembered at most.
const KNOWN: usize = 10_000;

/// SHA-256 of a token: it has 256 random bits, so a slow hash would add nothing.
#[must_use]
pub fn hash_token(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// 32 random bytes as URL-safe text without the separators of a token.
fn secret() -> Zeroizing<String> {
    loop {
        let mut bytes = Zeroizing::new([0_u8; 32]);
        crate::ledger::fill_random(&mut *bytes);
        let text = Zeroizing::new(URL_SAFE_NO_PAD.encode(*bytes));
        if !text.contains('_') {
            return text;
        }
    }
}

/// A new token of `prefix` (`sl_admin`, `sl_in`): `<prefix>_<id>_<secret>`.
#[must_use]
pub fn new_token(prefix: &str, id: uuid::Uuid) -> Zeroizing<String> {
    Zeroizing::new(format!("{prefix}_{}_{}", id.simple(), secret().as_str()))
}

/// Makes an administrator's token; only its hash is kept.
///
/// # Errors
/// If the database does not confirm.
pub async fn create_admin_token(database: &Database) -> Result<Zeroizing<String>, sqlx::Error> {
    let id = TokenId::new();
    let token = new_token("sl_admin", id.uuid());
    sqlx::query!(
        "INSERT INTO api_tokens (token_id, hash) VALUES ($1, $2)",
        id.uuid(),
        &hash_token(&token)[..]
    )
    .execute(&database.service)
    .await?;
    Ok(token)
}

/// Whether `token` is an administrator's.
///
/// # Errors
/// If the database does not answer.
pub async fn is_admin_token(database: &Database, token: &str) -> Result<bool, sqlx::Error> {
    if !token.starts_with("sl_admin_") {
        return Ok(false);
    }
    sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM api_tokens WHERE hash = $1) AS "known!""#,
        &hash_token(token)[..]
    )
    .fetch_one(&database.worker)
    .await
}

/// Tokens found lately. Holds hashes only; locked for look-ups alone.
#[derive(Clone, Debug, Default)]
pub struct KnownTokens(Arc<Mutex<HashMap<[u8; 32], Instant>>>);

impl KnownTokens {
    fn knows(&self, hash: &[u8; 32]) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(hash).is_some_and(|at| at.elapsed() < KNOWN_FOR)
    }

    fn learn(&self, hash: [u8; 32]) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN {
            known.clear();
        }
        known.insert(hash, Instant::now());
    }
}

/// The token of `Authorization: Bearer …`.
pub(crate) fn bearer(parts: &axum::http::HeaderMap) -> Option<&str> {
    let value = parts.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The administrator: a handler that takes one is reached with an administrator's token only.
#[derive(Clone, Copy, Debug)]
pub struct Admin(());

impl<S> FromRequestParts<S> for Admin
where
    S: Send + Sync,
    Database: FromRef<S>,
    KnownTokens: FromRef<S>,
{
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let token = bearer(&parts.headers).ok_or_else(Problem::unauthorized)?;
        let known = KnownTokens::from_ref(state);
        let hash = hash_token(token);
        if known.knows(&hash) {
            return Ok(Self(()));
        }
        if is_admin_token(&Database::from_ref(state), token).await? {
            known.learn(hash);
            return Ok(Self(()));
        }
        Err(Problem::unauthorized())
    }
}
