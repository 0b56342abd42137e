//! Sessions: somebody signed in, at one browser.
//!
//! The cookie's value is `<id>.<secret>.<mac>`: a UUID without hyphens, 256 random bits and the MAC of both by the
//! instance's key, so that a forged one is refused without the database. The row holds a hash of the secret, and ends
//! the session for good when it says so. A change in a session needs its CSRF token besides, which is derived from it
//! and told only to pages of ours (`GET /v1/session`), in a header that no form can set.

use super::door::Gate;
use super::secret::{self, AccessSecret, Purpose};
use crate::audit::Act;
use crate::database::Database;
use crate::id::{PasskeyId, SessionId, UserId};
use crate::sealing::{self, DataKeys};
use axum::http::{HeaderMap, HeaderValue, header};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use statusledger_keys::envelope::Cell;
use std::time::Duration;
use time::OffsetDateTime;
use zeroize::Zeroizing;

/// The header that carries the CSRF token.
pub const CSRF_HEADER: &str = "x-csrf-token";

/// How sessions are kept.
#[derive(Clone, Debug)]
pub struct SessionSettings {
    /// The address under which people reach the instance, without a slash at its end; none: whatever they use.
    pub public_url: Option<String>,
    /// How long a session lasts that nobody uses.
    pub idle: Duration,
    /// How long one lasts at most.
    pub longest: Duration,
}

impl SessionSettings {
    /// Whether people come by https, so that the cookie is for that alone.
    #[must_use]
    pub fn secure(&self) -> bool {
        self.public_url.as_deref().is_some_and(|url| url.starts_with("https://"))
    }

    /// The cookie's name: with https one that no other host and no path below can set.
    #[must_use]
    pub fn cookie_name(&self) -> &'static str {
        if self.secure() { "__Host-sl_session" } else { "sl_session" }
    }

    /// The name of the cookie that binds a sign-in to the browser that began it.
    #[must_use]
    pub fn sign_in_cookie_name(&self) -> &'static str {
        if self.secure() { "__Host-sl_sign_in" } else { "sl_sign_in" }
    }

    /// `Set-Cookie` for a value of ours (base64 digits and dots) that lasts `age`; zero clears it.
    #[must_use]
    pub fn cookie(&self, name: &str, value: &str, age: Duration) -> HeaderValue {
        let secure = if self.secure() { "; Secure" } else { "" };
        let text =
            format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age={}{secure}", age.as_secs());
        // Made of our own names and base64 digits.
        HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""))
    }
}

/// A session as somebody showed it: made by this instance. Whether it still holds, the database knows.
#[derive(Clone, Debug)]
pub struct ShownSession {
    /// Which.
    pub id: SessionId,
    /// SHA-256 of its secret.
    pub hash: [u8; 32],
    /// The whole value, from which its CSRF token is derived.
    value: Zeroizing<String>,
}

fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

/// The session cookie's value in a request.
#[must_use]
pub fn cookie<'a>(headers: &'a HeaderMap, settings: &SessionSettings) -> Option<&'a str> {
    named_cookie(headers, settings.cookie_name())
}

/// The value of the first cookie of that name.
#[must_use]
pub fn named_cookie<'a>(headers: &'a HeaderMap, wanted: &str) -> Option<&'a str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == wanted)
        .map(|(_, value)| value)
}

/// Reads a cookie's value; none where this instance did not make it.
#[must_use]
pub fn read(secret: &AccessSecret, value: &str) -> Option<ShownSession> {
    if value.len() > 256 {
        return None;
    }
    let (authenticated, mac) = value.rsplit_once('.')?;
    let mac = URL_SAFE_NO_PAD.decode(mac).ok()?;
    if mac.len() != 32 || !secret.verifies(Purpose::Session, authenticated.as_bytes(), &mac) {
        return None;
    }
    let (id, random) = authenticated.split_once('.')?;
    let id = uuid::Uuid::try_parse(id).ok()?;
    Some(ShownSession { id: id.into(), hash: hash(random), value: Zeroizing::new(value.to_owned()) })
}

/// The CSRF token of a session.
#[must_use]
pub fn csrf_token(secret: &AccessSecret, shown: &ShownSession) -> String {
    URL_SAFE_NO_PAD.encode(secret.mac(Purpose::Csrf, shown.value.as_bytes()))
}

/// Whether a browser says that another site's page made it send the request.
#[must_use]
pub fn from_elsewhere(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").map(|value| value.as_bytes());
    site.is_some_and(|site| !matches!(site, b"same-origin" | b"none"))
}

/// Whether a request that changes something carries its session's token, and does not come from another site's page.
#[must_use]
pub fn csrf_holds(
    secret: &AccessSecret,
    shown: &ShownSession,
    headers: &HeaderMap,
    settings: &SessionSettings,
) -> bool {
    let told = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if from_elsewhere(headers) {
        return false;
    }
    // Without an address of our own, whichever they use is ours: then a page of ours is of the host that was asked.
    let ours = |origin: &str| match &settings.public_url {
        Some(ours) => origin == ours,
        None => origin.split_once("://").map(|(_, host)| host) == told("host"),
    };
    if headers.contains_key("origin") && !told("origin").is_some_and(ours) {
        return false;
    }
    told(CSRF_HEADER).and_then(|token| URL_SAFE_NO_PAD.decode(token).ok()).is_some_and(|token| {
        token.len() == 32 && secret.verifies(Purpose::Csrf, shown.value.as_bytes(), &token)
    })
}

/// How somebody signed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// At an OpenID provider.
    Oidc,
    /// At GitHub.
    Github,
    /// With a passkey.
    Passkey,
    /// By a one-time link.
    Link,
}

impl Method {
    /// Its name in rows and entries.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Oidc => "oidc",
            Self::Github => "github",
            Self::Passkey => "passkey",
            Self::Link => "link",
        }
    }
}

/// The cell of a session's sealed context.
#[must_use]
pub fn context_cell<'a>(row: &'a [&'a [u8]; 1]) -> Cell<'a> {
    Cell { table: "sessions", row, column: "context" }
}

/// Begins a session for `user` in a transaction that sees that person (`sl.user`), and returns its cookie value. With the
/// `passkey` that it begins with, where it does with one, it ends.
///
/// # Errors
/// If the database does not confirm.
pub async fn begin(
    tx: &mut sqlx::PgConnection,
    gate: &Gate,
    data_keys: &DataKeys,
    user: UserId,
    method: Method,
    passkey: Option<PasskeyId>,
    act: &Act,
) -> Result<(SessionId, Zeroizing<String>), sealing::Error> {
    let id = SessionId::new();
    let mut random = Zeroizing::new([0_u8; 32]);
    crate::ledger::fill_random(&mut *random);
    let random = Zeroizing::new(URL_SAFE_NO_PAD.encode(*random));
    let authenticated = Zeroizing::new(format!("{}.{}", id.uuid().simple(), random.as_str()));
    let mac = URL_SAFE_NO_PAD.encode(gate.secret.mac(Purpose::Session, authenticated.as_bytes()));
    let context = serde_json::json!({
        "ip": act.context().ip.map(|ip| ip.to_string()),
        "user_agent": act.context().user_agent,
    });
    let data_key = data_keys.get(gate.instance).await?;
    let sealed = data_key.seal(&context_cell(&[id.uuid().as_bytes()]), context.to_string().as_bytes())?;
    sqlx::query!(
        "INSERT INTO sessions (session_id, user_id, hash, method, context, expires_at, passkey_id)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        id.uuid(),
        user.uuid(),
        &hash(&random)[..],
        method.name(),
        sealed,
        OffsetDateTime::now_utc() + gate.sessions.longest,
        passkey.map(PasskeyId::uuid)
    )
    .execute(tx)
    .await?;
    Ok((id, Zeroizing::new(format!("{}.{mac}", authenticated.as_str()))))
}

/// `Set-Cookie` for a session, or with none to clear it.
#[must_use]
pub fn set_cookie(settings: &SessionSettings, value: Option<&str>) -> HeaderValue {
    let age = if value.is_some() { settings.longest } else { Duration::ZERO };
    settings.cookie(settings.cookie_name(), value.unwrap_or_default(), age)
}

/// A session that holds, as the database has it.
#[derive(Clone, Debug)]
pub struct Held {
    /// Which.
    pub id: SessionId,
    /// Whose.
    pub user: UserId,
    /// How it began (the name of a [`Method`]).
    pub method: String,
    /// With which passkey, where it did with one.
    pub passkey: Option<PasskeyId>,
    /// How long ago.
    pub age: Duration,
}

/// The session that a request shows, where it holds. For pages, which have something to say to strangers too; what
/// answers with somebody's own goes through [`super::Access`].
///
/// # Errors
/// If the database does not answer.
pub async fn held(gate: &Gate, headers: &HeaderMap) -> Result<Option<Held>, sqlx::Error> {
    let Some(shown) = cookie(headers, &gate.sessions).and_then(|text| read(&gate.secret, text)) else {
        return Ok(None);
    };
    let row = sqlx::query!(
        r#"SELECT s.user_id AS "user: UserId", s.hash, s.method, s.passkey_id AS "passkey: PasskeyId",
                  GREATEST(extract(epoch FROM now() - s.created_at), 0)::float8 AS "age!"
             FROM sessions s JOIN users u USING (user_id)
            WHERE s.session_id = $1 AND s.ended_at IS NULL AND s.expires_at > now()
              AND s.last_seen_at >= now() - make_interval(secs => $2) AND u.disabled_at IS NULL"#,
        shown.id.uuid(),
        gate.sessions.idle.as_secs_f64()
    )
    .fetch_optional(&gate.database.worker)
    .await?;
    Ok(row.filter(|row| secret::is_same(&row.hash, &shown.hash)).map(|row| Held {
        id: shown.id,
        user: row.user,
        method: row.method,
        passkey: row.passkey,
        age: Duration::try_from_secs_f64(row.age).unwrap_or(Duration::MAX),
    }))
}

/// A transaction that sees one person and nothing of a workspace.
///
/// # Errors
/// If the database does not answer.
pub async fn person(
    database: &Database,
    user: UserId,
) -> Result<sqlx::Transaction<'static, sqlx::Postgres>, sqlx::Error> {
    let mut tx = database.service.begin().await?;
    sqlx::query_scalar!("SELECT set_config('sl.user', $1, true)", user.uuid().to_string())
        .fetch_one(&mut *tx)
        .await?;
    Ok(tx)
}
