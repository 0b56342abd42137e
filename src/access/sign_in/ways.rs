//! The ways in that somebody has, and who changes them.
//!
//! Ways in are guarded by passkeys: whoever has one changes their passkeys and accounts only in a session that began
//! with one, or with a link. Whoever has none yet does so only soon after a sign-in. A session that was stolen must not be
//! made into a lasting way in, nor be used to take the others away; nor, where there is a passkey, an account at an
//! identity provider. And nobody gives up their last way in: only an operator's link
//! would bring them back. All of it under the lock of the instance's ledger, so that of two removals at once one is
//! refused.

use super::arrival::see;
use super::{Error, SignIn, flow};
use crate::access::session::{Held, Method};
use crate::audit::{Act, Action};
use crate::http::problem::{Kind, Problem};
use crate::id::{IdentityId, UserId};
use crate::ledger::append::Locked;
use statusledger_verify::json::Value;
use std::time::Duration;

/// How old the session may be in which somebody without a passkey begins to change their ways in.
pub const RECENT: Duration = Duration::from_secs(600);

/// How far a change of somebody's ways in has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It begins, or is one request.
    Begins,
    /// It was begun in this session, and ends.
    Ends,
}

/// Refuses who may not change their ways in in this session, by whether they have a passkey.
///
/// # Errors
/// If they have one and came neither with one nor with a link; or have none, and came too long ago.
pub fn may_change(held: &Held, has_passkey: bool, stage: Stage) -> Result<(), Error> {
    if has_passkey {
        if [Method::Passkey.name(), Method::Link.name()].contains(&held.method.as_str()) {
            return Ok(());
        }
        let words = "You have a passkey: sign in with it to change your ways to sign in.";
        return Err(Problem::forbidden(Kind::PasskeyRequired, words).into());
    }
    // What was begun in time may take its own time.
    let within = if stage == Stage::Ends { RECENT + flow::LASTS } else { RECENT };
    if held.age <= within {
        return Ok(());
    }
    let words = "You signed in more than ten minutes ago: sign in again to change your ways to sign in.";
    Err(Problem::forbidden(Kind::SignInAgain, words).into())
}

impl SignIn {
    /// Refuses who may not change their ways in in this session, in a transaction that sees them.
    ///
    /// # Errors
    /// As [`may_change`] says.
    pub async fn may_change(&self, locked: &mut Locked, held: &Held, stage: Stage) -> Result<(), Error> {
        let has = sqlx::query_scalar!(
            r#"SELECT EXISTS (SELECT FROM passkeys WHERE user_id = $1) AS "has!""#,
            held.user.uuid()
        )
        .fetch_one(&mut ***locked)
        .await?;
        may_change(held, has, stage)
    }

    /// Refuses to leave somebody without a way in, after one was taken away in this transaction. An account at a
    /// provider that the settings do not have is none, nor is a passkey where passkeys belong to no name.
    ///
    /// # Errors
    /// If none is left.
    pub async fn keep_a_way_in(&self, locked: &mut Locked, user: UserId) -> Result<(), Error> {
        let providers: Vec<String> = self.providers.iter().map(|provider| provider.id.clone()).collect();
        let left = sqlx::query_scalar!(
            r#"SELECT (SELECT count(*) FROM identities WHERE user_id = $1 AND provider = ANY ($2))
                    + (SELECT count(*) FROM passkeys WHERE user_id = $1 AND $3) AS "left!""#,
            user.uuid(),
            &providers,
            self.webauthn.is_some()
        )
        .fetch_one(&mut ***locked)
        .await?;
        if left > 0 {
            return Ok(());
        }
        Err(Problem::conflict("It is your last way to sign in: add another one first.").into())
    }

    /// Disconnects an account at an identity provider.
    ///
    /// # Errors
    /// If they have no such one, may not in this session, or could not sign in any more.
    pub async fn remove_identity(
        &self,
        act: &Act,
        held: &Held,
        provider: &str,
        id: IdentityId,
    ) -> Result<(), Error> {
        let mut locked = self.writer.lock(self.gate.instance).await?;
        see(&mut locked, held.user).await?;
        self.may_change(&mut locked, held, Stage::Begins).await?;
        let removed = sqlx::query!(
            "DELETE FROM identities WHERE identity_id = $1 AND user_id = $2 AND provider = $3",
            id.uuid(),
            held.user.uuid(),
            provider
        )
        .execute(&mut **locked)
        .await?
        .rows_affected();
        if removed == 0 {
            return Err(Problem::not_found(format!("You have no account {id} at {provider}.")).into());
        }
        self.keep_a_way_in(&mut locked, held.user).await?;
        let record = act
            .of(Action::IdentityRemoved)
            .target("user", held.user)
            .target("identity", id)
            .detail("provider", Value::String(provider.into()));
        locked.append(&[record.draft()?]).await?;
        locked.commit().await?;
        Ok(())
    }
}
