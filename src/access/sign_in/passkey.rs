//! Passkeys: WebAuthn credentials that the authenticator finds by itself (discoverable), so that nobody types a name.
//!
//! User verification is required at both ends, so a passkey is two factors in one. No attestation is asked for: who made
//! an authenticator is nobody's business here, and a list of good makers would lock out the others. A signature counter
//! that does not go up is a copy, and is refused; authenticators that keep none say 0 for ever.
//!
//! Whoever has a passkey adds and removes others only in a session that began with one, or with a link ([`super::ways`]).
//! Whoever has none adds the first in a session that is minutes old, which may have begun at an identity provider. Such a
//! passkey, and each that is added in a session that began with it, says since when it comes from there: where passkeys are
//! asked for to keep identity providers out, it counts only if it was there before.

use super::arrival::{Arrived, Arriving, see};
use super::flow::{self, Begun, Pending};
use super::ways::{Stage, may_change};
use super::{Error, Refusal, SignIn};
use crate::access::people::{self, Profile};
use crate::access::secret::Purpose;
use crate::access::session::{self, Held, Method};
use crate::audit::{Act, Action};
use crate::http::problem::Problem;
use crate::id::{PasskeyId, UserId};
use crate::ledger::append::Locked;
use crate::sealing;
use serde::{Deserialize, Serialize};
use statusledger_keys::envelope::{Cell, DataKey};
use statusledger_verify::json::Value;
use time::OffsetDateTime;
use webauthn_rs::prelude::{
    CreationChallengeResponse, Passkey, PublicKeyCredential, RegisterPublicKeyCredential,
    RequestChallengeResponse,
};
use webauthn_rs_proto::{AuthenticatorSelectionCriteria, ResidentKeyRequirement, UserVerificationPolicy};

/// Passkeys that one person may have.
pub const MOST: usize = 20;

/// What is sealed of a passkey.
#[derive(Debug, Serialize, Deserialize)]
struct Sealed {
    name: String,
    passkey: Passkey,
}

/// A passkey as its owner sees it.
#[derive(Debug)]
pub struct Known {
    /// Which.
    pub id: PasskeyId,
    /// What they call it.
    pub name: String,
    /// Since when.
    pub created_at: OffsetDateTime,
    /// When it was last used.
    pub last_used_at: Option<OffsetDateTime>,
    credential: Vec<u8>,
}

fn cell<'a>(row: &'a [&'a [u8]; 1]) -> Cell<'a> {
    Cell { table: "passkeys", row, column: "sealed" }
}

fn seal(key: &DataKey, id: PasskeyId, sealed: &Sealed) -> Result<Vec<u8>, Error> {
    let text = serde_json::to_vec(sealed).map_err(Error::fault)?;
    Ok(key.seal(&cell(&[id.uuid().as_bytes()]), &text).map_err(sealing::Error::from)?)
}

fn open(key: &DataKey, id: PasskeyId, sealed: &[u8]) -> Result<Sealed, Error> {
    let text = key.open(&cell(&[id.uuid().as_bytes()]), sealed).map_err(sealing::Error::from)?;
    serde_json::from_slice(&text).map_err(Error::fault)
}

/// What a passkey or a person is called.
///
/// # Errors
/// If it is none ([`name::RULE`](crate::name::RULE)).
pub fn name(text: &str) -> Result<String, Problem> {
    let text = text.trim();
    if crate::name::is_name(text) {
        Ok(text.to_owned())
    } else {
        Err(Problem::invalid(format!("name has {}", crate::name::RULE)))
    }
}

/// Asks for a credential that is found without a name, of whoever has shown that they are there.
fn discoverable(mut options: CreationChallengeResponse) -> CreationChallengeResponse {
    options.public_key.authenticator_selection = Some(AuthenticatorSelectionCriteria {
        authenticator_attachment: None,
        resident_key: Some(ResidentKeyRequirement::Required),
        require_resident_key: true,
        user_verification: UserVerificationPolicy::Required,
    });
    options
}

impl SignIn {
    /// The passkeys of a person.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn passkeys(&self, user: UserId) -> Result<Vec<Known>, Error> {
        let data_key = self.writer.data_keys().get(self.gate.instance).await?;
        let mut tx = session::person(&self.gate.database, user).await?;
        let rows = sqlx::query!(
            r#"SELECT passkey_id AS "id: PasskeyId", sealed, created_at, last_used_at FROM passkeys
                WHERE user_id = $1 ORDER BY created_at, passkey_id"#,
            user.uuid()
        )
        .fetch_all(&mut *tx)
        .await?;
        let mut known = Vec::with_capacity(rows.len());
        for row in rows {
            let sealed = open(&data_key, row.id, &row.sealed)?;
            known.push(Known {
                id: row.id,
                name: sealed.name,
                created_at: row.created_at,
                last_used_at: row.last_used_at,
                credential: sealed.passkey.cred_id().to_vec(),
            });
        }
        Ok(known)
    }

    /// Begins a sign-in with whichever passkey.
    ///
    /// # Errors
    /// If the database does not confirm.
    pub async fn challenge(&self) -> Result<(Begun, RequestChallengeResponse), Error> {
        let (mut options, state) =
            self.webauthn()?.start_discoverable_authentication().map_err(Error::fault)?;
        // A button asks for it, not the browser's list under a field.
        options.mediation = None;
        let begun = self.begin(&Pending::Passkey { state }).await?;
        Ok((begun, options))
    }

    /// Signs in whoever answers the challenge of `state`.
    ///
    /// # Errors
    /// If nobody has that passkey, or its answer does not hold.
    pub async fn by_passkey(
        &self,
        arriving: Arriving<'_>,
        state: &str,
        answer: &PublicKeyCredential,
    ) -> Result<Arrived, Error> {
        let data_keys = self.writer.data_keys();
        let Pending::Passkey { state } = flow::take(&self.gate, data_keys, arriving.headers, state).await?
        else {
            return Err(Refusal::Answered.into());
        };
        let (user, credential) = self
            .webauthn()?
            .identify_discoverable_authentication(answer)
            .map_err(|_| Refusal::UnknownPasskey)?;
        let index = self.gate.secret.mac(Purpose::Credential, credential);
        self.limits.identity(index).map_err(Error::TooMany)?;
        let row = sqlx::query!(
            r#"SELECT passkey_id AS "id: PasskeyId", user_id AS "user: UserId" FROM passkeys
                WHERE credential_index = $1"#,
            &index[..]
        )
        .fetch_optional(&self.gate.database.worker)
        .await?
        .filter(|row| row.user.uuid() == user)
        .ok_or(Refusal::UnknownPasskey)?;
        let mut locked = self.writer.lock(self.gate.instance).await?;
        see(&mut locked, row.user).await?;
        let kept = sqlx::query_scalar!("SELECT sealed FROM passkeys WHERE passkey_id = $1", row.id.uuid())
            .fetch_optional(&mut **locked)
            .await?
            .ok_or(Refusal::UnknownPasskey)?;
        let data_key = data_keys.get(self.gate.instance).await?;
        let mut sealed = open(&data_key, row.id, &kept)?;
        let verified = self
            .webauthn()?
            .finish_discoverable_authentication_v2(answer, state, &sealed.passkey)
            .map_err(|e| {
                tracing::warn!(passkey = %row.id, error = ?e.to_string(), "a passkey's answer does not hold");
                Refusal::Passkey
            })?;
        if !verified.user_verified() {
            return Err(Refusal::Passkey.into());
        }
        sealed.passkey.update_credential(&verified);
        sqlx::query!(
            "UPDATE passkeys SET sealed = $2, last_used_at = now() WHERE passkey_id = $1",
            row.id.uuid(),
            seal(&data_key, row.id, &sealed)?
        )
        .execute(&mut **locked)
        .await?;
        self.arrive(locked, arriving, row.user, Some(row.id), &[]).await
    }

    /// Begins a passkey for somebody who is signed in.
    ///
    /// # Errors
    /// If they may not in this session, or have too many.
    pub async fn register(&self, held: &Held) -> Result<(Begun, CreationChallengeResponse), Error> {
        let known = self.passkeys(held.user).await?;
        may_change(held, !known.is_empty(), Stage::Begins)?;
        if known.len() >= MOST {
            return Err(Problem::conflict(format!("{MOST} passkeys are enough; remove one first.")).into());
        }
        let data_key = self.writer.data_keys().get(self.gate.instance).await?;
        let mut tx = session::person(&self.gate.database, held.user).await?;
        let profile = sqlx::query_scalar!("SELECT profile FROM users WHERE user_id = $1", held.user.uuid())
            .fetch_one(&mut *tx)
            .await?;
        let profile = people::open_profile(&data_key, "users", held.user.uuid(), &profile)?;
        let shown = profile.name.clone().or_else(|| profile.email.clone()).unwrap_or_else(|| "owner".into());
        let account = profile.email.unwrap_or_else(|| shown.clone());
        let exclude = known.into_iter().map(|k| k.credential).collect();
        let (options, state) = self
            .webauthn()?
            .start_passkey_registration(held.user.uuid(), &account, &shown, Some(exclude))
            .map_err(Error::fault)?;
        let begun = self.begin(&Pending::Registration { user: held.user, session: held.id, state }).await?;
        Ok((begun, discoverable(options)))
    }

    /// Keeps the passkey that answers the challenge of `state`.
    ///
    /// # Errors
    /// If the answer does not hold, or was somebody else's to give.
    pub async fn registered(
        &self,
        act: &Act,
        held: &Held,
        headers: &axum::http::HeaderMap,
        state: &str,
        name: String,
        answer: &RegisterPublicKeyCredential,
    ) -> Result<PasskeyId, Error> {
        let data_keys = self.writer.data_keys();
        let state = match flow::take(&self.gate, data_keys, headers, state).await? {
            Pending::Registration { user, session, state } if (user, session) == (held.user, held.id) => {
                state
            }
            _ => return Err(Refusal::Answered.into()),
        };
        let passkey = self.webauthn()?.finish_passkey_registration(answer, &state).map_err(not_registered)?;
        let mut locked = self.writer.lock(self.gate.instance).await?;
        see(&mut locked, held.user).await?;
        // Another one may have come since it was begun.
        self.may_change(&mut locked, held, Stage::Ends).await?;
        let since = provider_since(&mut locked, held).await?;
        let id = self.insert_passkey(&mut locked, held.user, name, passkey, since).await?;
        let record = act.of(Action::PasskeyAdded).target("user", held.user).target("passkey", id);
        locked.append(&[record.draft()?]).await?;
        locked.commit().await?;
        Ok(id)
    }

    /// Removes a passkey, and ends the sessions that began with it.
    ///
    /// # Errors
    /// If they have no such one, may not in this session, or could not sign in any more.
    pub async fn remove_passkey(&self, act: &Act, held: &Held, id: PasskeyId) -> Result<(), Error> {
        let mut locked = self.writer.lock(self.gate.instance).await?;
        see(&mut locked, held.user).await?;
        self.may_change(&mut locked, held, Stage::Begins).await?;
        let removed = sqlx::query!(
            "DELETE FROM passkeys WHERE passkey_id = $1 AND user_id = $2",
            id.uuid(),
            held.user.uuid()
        )
        .execute(&mut **locked)
        .await?
        .rows_affected();
        if removed == 0 {
            return Err(Problem::not_found(format!("You have no passkey {id}.")).into());
        }
        self.keep_a_way_in(&mut locked, held.user).await?;
        let ended = sqlx::query!(
            "UPDATE sessions SET ended_at = now()
              WHERE user_id = $1 AND passkey_id = $2 AND ended_at IS NULL AND expires_at > now()",
            held.user.uuid(),
            id.uuid()
        )
        .execute(&mut **locked)
        .await?
        .rows_affected();
        let record = act
            .of(Action::PasskeyRemoved)
            .target("user", held.user)
            .target("passkey", id)
            .detail("sessions_ended", Value::Int(i64::try_from(ended).unwrap_or(i64::MAX)));
        locked.append(&[record.draft()?]).await?;
        locked.commit().await?;
        Ok(())
    }

    /// Begins a passkey for somebody new, who was invited.
    ///
    /// # Errors
    /// If the invitation does not hold.
    pub async fn invite_passkey(
        &self,
        invitation: String,
        name: String,
    ) -> Result<(Begun, CreationChallengeResponse), Error> {
        self.invitation(&invitation).await?;
        let user = UserId::new();
        let (options, state) = self
            .webauthn()?
            .start_passkey_registration(user.uuid(), &name, &name, None)
            .map_err(Error::fault)?;
        let begun = self.begin(&Pending::Invited { user, name, invitation, state }).await?;
        Ok((begun, discoverable(options)))
    }

    /// Makes somebody new of whoever answers the challenge of `state`, and signs them in.
    ///
    /// # Errors
    /// If the answer or the invitation does not hold.
    pub async fn by_invitation(
        &self,
        arriving: Arriving<'_>,
        state: &str,
        answer: &RegisterPublicKeyCredential,
    ) -> Result<Arrived, Error> {
        let data_keys = self.writer.data_keys();
        let pending = flow::take(&self.gate, data_keys, arriving.headers, state).await?;
        let Pending::Invited { user, name, invitation, state } = pending else {
            return Err(Refusal::Answered.into());
        };
        let passkey = self.webauthn()?.finish_passkey_registration(answer, &state).map_err(not_registered)?;
        let open = self.invitation(&invitation).await?;
        let mut locked = self.writer.lock(self.gate.instance).await?;
        self.claim(&mut locked, &open, user).await?;
        // The address of the invitation is whoever invited's word, not theirs: they have none here.
        let profile = Profile { email: None, name: Some(name) };
        self.insert_person(&mut locked, user, &profile).await?;
        // No provider had a part in it.
        let id = self.insert_passkey(&mut locked, user, "First passkey".into(), passkey, None).await?;
        let targets = [("invitation", open.id.to_string())];
        let arrived = self.arrive(locked, arriving, user, Some(id), &targets).await?;
        self.accept(arriving, user, &invitation).await?;
        Ok(arrived)
    }

    async fn insert_passkey(
        &self,
        locked: &mut Locked,
        user: UserId,
        name: String,
        passkey: Passkey,
        provider_since: Option<OffsetDateTime>,
    ) -> Result<PasskeyId, Error> {
        let id = PasskeyId::new();
        let index = self.gate.secret.mac(Purpose::Credential, passkey.cred_id());
        let data_key = self.writer.data_keys().get(self.gate.instance).await?;
        let sealed = seal(&data_key, id, &Sealed { name, passkey })?;
        // A credential belongs to one person (WebAuthn Level 3, section 7.1, step 26).
        let inserted = sqlx::query!(
            "INSERT INTO passkeys (passkey_id, credential_index, user_id, sealed, provider_since)
             VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
            id.uuid(),
            &index[..],
            user.uuid(),
            sealed,
            provider_since
        )
        .execute(&mut ***locked)
        .await?
        .rows_affected();
        if inserted == 1 { Ok(id) } else { Err(Refusal::Passkey.into()) }
    }

    async fn begin(&self, pending: &Pending) -> Result<Begun, Error> {
        let id = flow::new_id();
        flow::keep(&self.gate, self.writer.data_keys(), id, pending).await?;
        Ok(flow::bind(&self.gate, id))
    }
}

/// Since when a passkey that is added in this session comes from an identity provider; none where it does not.
async fn provider_since(locked: &mut Locked, held: &Held) -> Result<Option<OffsetDateTime>, Error> {
    if held.method == Method::Link.name() {
        return Ok(None);
    }
    if held.method != Method::Passkey.name() {
        // By the clock that the requirement is dated by.
        let now = sqlx::query_scalar!(r#"SELECT now() AS "now!""#).fetch_one(&mut ***locked).await?;
        return Ok(Some(now));
    }
    // Like the one that the session began with; without that one there is no session any more.
    let of = sqlx::query_scalar!(
        "SELECT provider_since FROM passkeys WHERE passkey_id = $1 AND user_id = $2",
        held.passkey.map(PasskeyId::uuid),
        held.user.uuid()
    )
    .fetch_optional(&mut ***locked)
    .await?;
    of.ok_or_else(|| Problem::unauthorized().into())
}

fn not_registered(error: webauthn_rs::prelude::WebauthnError) -> Refusal {
    tracing::warn!(error = ?error.to_string(), "a new passkey does not hold");
    Refusal::Passkey
}
