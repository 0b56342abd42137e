//! A sign-in that has begun, and what its answer is held against.
//!
//! Whatever a sign-in has to remember (nonce, PKCE verifier, WebAuthn challenge) is sealed in a row that is taken once:
//! deleted by the statement that reads it, so that of two answers one finds it. The row's id goes out as the `state`,
//! and with it a MAC over the id and a random value that only a cookie of this browser has: an answer that another
//! browser's sign-in was meant for is refused before the database is asked, which is what keeps somebody from being
//! signed in as somebody else (RFC 6749, section 10.12).

use super::{Error, Refusal};
use crate::access::door::Gate;
use crate::access::secret::Purpose;
use crate::access::session;
use crate::id::{SessionId, UserId};
use crate::redacted::redacted;
use crate::sealing::DataKeys;
use axum::http::{HeaderMap, HeaderValue};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use statusledger_keys::envelope::Cell;
use std::time::Duration;
use time::OffsetDateTime;
use uuid::Uuid;
use webauthn_rs::prelude::{DiscoverableAuthentication, PasskeyRegistration};

redacted!(Pending, Goal, Begun);

/// How long a sign-in may take from its beginning: somebody may have to look for their second factor.
pub const LASTS: Duration = Duration::from_secs(600);

/// What somebody came for.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Goal {
    /// To sign in, and to accept this invitation.
    SignIn(Option<String>),
    /// To connect the account with who they are already.
    Connect {
        /// Who.
        user: UserId,
        /// In which session.
        session: SessionId,
    },
}

/// What a sign-in waits for.
#[derive(Serialize, Deserialize)]
pub enum Pending {
    /// The answer of an identity provider.
    Provider {
        /// Which, by its id in the settings.
        provider: String,
        /// What its ID token has to repeat.
        nonce: String,
        /// What shows that the code is ours (RFC 7636).
        verifier: String,
        /// What it is for.
        goal: Goal,
    },
    /// A passkey's answer to a challenge.
    Passkey {
        /// The challenge.
        state: DiscoverableAuthentication,
    },
    /// A new passkey for whoever is signed in.
    Registration {
        /// Who.
        user: UserId,
        /// In which session.
        session: SessionId,
        /// The challenge.
        state: PasskeyRegistration,
    },
    /// A new passkey for somebody new.
    Invited {
        /// Who they will be.
        user: UserId,
        /// What they call themselves.
        name: String,
        /// What they were invited with.
        invitation: String,
        /// The challenge.
        state: PasskeyRegistration,
    },
}

impl Pending {
    const fn kind(&self) -> &'static str {
        match self {
            Self::Provider { .. } => "provider",
            Self::Passkey { .. } => "passkey",
            Self::Registration { .. } => "registration",
            Self::Invited { .. } => "invited",
        }
    }
}

/// What the browser is told.
pub struct Begun {
    /// Comes back with the answer.
    pub state: String,
    /// `Set-Cookie`: binds it to this browser.
    pub cookie: HeaderValue,
}

fn cell<'a>(row: &'a [&'a [u8]; 1]) -> Cell<'a> {
    Cell { table: "sign_ins", row, column: "sealed" }
}

/// Ties `id` to a new value of the browser's cookie.
#[must_use]
pub fn bind(gate: &Gate, id: Uuid) -> Begun {
    let mut random = [0_u8; 32];
    crate::ledger::fill_random(&mut random);
    let browser = URL_SAFE_NO_PAD.encode(random);
    let name = gate.sessions.sign_in_cookie_name();
    Begun { state: state(gate, id, &browser), cookie: gate.sessions.cookie(name, &browser, LASTS) }
}

fn state(gate: &Gate, id: Uuid, browser: &str) -> String {
    let mac = gate.secret.mac(Purpose::SignIn, format!("{}.{browser}", id.simple()).as_bytes());
    format!("{}.{}", id.simple(), URL_SAFE_NO_PAD.encode(mac))
}

/// The id of a `state` that was given to this browser.
///
/// # Errors
/// If it was given to another one, or to nobody.
pub fn bound(gate: &Gate, headers: &HeaderMap, shown: &str) -> Result<Uuid, Error> {
    let browser = session::named_cookie(headers, gate.sessions.sign_in_cookie_name())
        .filter(|value| value.len() == 43)
        .ok_or(Refusal::OtherBrowser)?;
    let (id, mac) = shown.split_once('.').ok_or(Refusal::OtherBrowser)?;
    let id = Uuid::try_parse(id).map_err(|_| Refusal::OtherBrowser)?;
    let mac = URL_SAFE_NO_PAD.decode(mac).map_err(|_| Refusal::OtherBrowser)?;
    let text = format!("{}.{browser}", id.simple());
    if mac.len() == 32 && gate.secret.verifies(Purpose::SignIn, text.as_bytes(), &mac) {
        Ok(id)
    } else {
        Err(Refusal::OtherBrowser.into())
    }
}

/// A new id for a sign-in.
#[must_use]
pub fn new_id() -> Uuid {
    Uuid::now_v7()
}

/// `Set-Cookie` that forgets the browser's value.
#[must_use]
pub fn forget(gate: &Gate) -> HeaderValue {
    gate.sessions.cookie(gate.sessions.sign_in_cookie_name(), "", Duration::ZERO)
}

/// Keeps what a sign-in waits for.
///
/// # Errors
/// If the database does not confirm.
pub async fn keep(gate: &Gate, data_keys: &DataKeys, id: Uuid, pending: &Pending) -> Result<(), Error> {
    let data_key = data_keys.get(gate.instance).await?;
    let text = zeroize::Zeroizing::new(serde_json::to_vec(pending).map_err(Error::fault)?);
    let sealed = data_key.seal(&cell(&[id.as_bytes()]), &text).map_err(crate::sealing::Error::from)?;
    sqlx::query!(
        "INSERT INTO sign_ins (sign_in_id, kind, sealed, expires_at) VALUES ($1, $2, $3, $4)",
        id,
        pending.kind(),
        sealed,
        OffsetDateTime::now_utc() + LASTS
    )
    .execute(&gate.database.service)
    .await?;
    Ok(())
}

/// Takes what a sign-in of this browser waits for: once.
///
/// # Errors
/// If the `state` is another browser's, was answered already, or is too old.
pub async fn take(
    gate: &Gate,
    data_keys: &DataKeys,
    headers: &HeaderMap,
    shown: &str,
) -> Result<Pending, Error> {
    let id = bound(gate, headers, shown)?;
    let row = sqlx::query!(
        r#"DELETE FROM sign_ins WHERE sign_in_id = $1 RETURNING sealed, expires_at > now() AS "holds!""#,
        id
    )
    .fetch_optional(&gate.database.service)
    .await?
    .filter(|row| row.holds)
    .ok_or(Refusal::Answered)?;
    let data_key = data_keys.get(gate.instance).await?;
    let text = data_key.open(&cell(&[id.as_bytes()]), &row.sealed).map_err(crate::sealing::Error::from)?;
    serde_json::from_slice(&text).map_err(Error::fault)
}
