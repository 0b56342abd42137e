//! Keeping a person out, and letting them in again: for whoever administers the instance.
//!
//! A disabled person signs in no more, and their sessions end in the same transaction. What could let them in through
//! another door rests as long: the API keys that they made (and those that such keys made), and the invitations that
//! they wrote. It rests and does not end, so that a mistake can be undone; a key that others need is rotated by one of
//! them, after which it is theirs. What a source or a receiver holds (tokens, webhook secrets) stays: it opens nothing
//! of the API, and is rotated where it is used.
//!
//! Everything here takes the lock of the instance's ledger, as signing in does: whoever is disabled while they sign in
//! is either refused, or has the session that is ended.

use super::door::Caller;
use super::scope::Role;
use crate::audit::{Act, Action};
use crate::id::{UserId, WorkspaceId};
use crate::ledger::append::{self, Locked};
use crate::ledger::{Writer, draft};
use statusledger_verify::json::Value;

/// Why a person is not disabled, or not enabled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such person.
    #[error("{0} is nobody here")]
    Missing(UserId),
    /// Oneself, in person or by a key of one's own.
    #[error("nobody disables themself")]
    OneSelf,
    /// They are more in the instance's own workspace than whoever asks.
    #[error(
        "a person whose role in the instance's workspace is more than yours is not disabled or enabled by you"
    )]
    TooMuch,
    /// Nobody would be left to administer the instance.
    #[error("an instance keeps somebody who can sign in and administer it")]
    LastAdministrator,
    /// The database.
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    /// The entry.
    #[error(transparent)]
    Append(#[from] append::Error),
    /// The entry.
    #[error(transparent)]
    Draft(#[from] draft::Error),
}

/// Disables a person and ends their sessions, or enables them again. What is so already stays, without an entry.
///
/// # Errors
/// If there is no such person, or they are to stay.
pub async fn set(
    writer: &Writer,
    act: &Act,
    caller: &Caller,
    instance: WorkspaceId,
    user: UserId,
    disabled: bool,
) -> Result<(), Error> {
    let mut locked = writer.lock(instance).await?;
    sqlx::query_scalar!("SELECT set_config('sl.user', $1, true)", user.uuid().to_string())
        .fetch_one(&mut **locked)
        .await?;
    let row = sqlx::query!(
        r#"SELECT u.disabled_at IS NOT NULL AS "disabled!", m.role AS "role?"
             FROM users u LEFT JOIN members m ON m.workspace_id = $2 AND m.user_id = u.user_id
            WHERE u.user_id = $1"#,
        user.uuid(),
        instance.uuid()
    )
    .fetch_optional(&mut **locked)
    .await?
    .ok_or(Error::Missing(user))?;
    let role = row.role.as_deref().and_then(Role::from_name);
    if role.is_some_and(|role| !caller.grants().covers(role.grants())) {
        return Err(Error::TooMuch);
    }
    if row.disabled == disabled {
        locked.check(act.terms()).await?;
        return Ok(());
    }
    if disabled {
        if caller.person() == Some(user) {
            return Err(Error::OneSelf);
        }
        keep_an_administrator(&mut locked, user, role).await?;
    }
    sqlx::query!(
        "UPDATE users SET disabled_at = CASE WHEN $2 THEN now() END WHERE user_id = $1",
        user.uuid(),
        disabled
    )
    .execute(&mut **locked)
    .await?;
    let mut record = act.of(if disabled { Action::PersonDisabled } else { Action::PersonEnabled });
    if disabled {
        let ended = sqlx::query!(
            "UPDATE sessions SET ended_at = now() WHERE user_id = $1 AND ended_at IS NULL AND expires_at > now()",
            user.uuid()
        )
        .execute(&mut **locked)
        .await?
        .rows_affected();
        record = record.detail("sessions_ended", Value::Int(i64::try_from(ended).unwrap_or(i64::MAX)));
    }
    locked.append(&[record.target("user", user).draft()?]).await?;
    locked.commit().await?;
    Ok(())
}

/// Checks that the instance keeps an owner who can sign in when `user` is one, and an administrator when they are that.
/// The head's lock makes it so until the commit.
async fn keep_an_administrator(locked: &mut Locked, user: UserId, role: Option<Role>) -> Result<(), Error> {
    let roles: &[String] = match role {
        Some(Role::Owner) => &[Role::Owner.name().to_owned()],
        Some(Role::Admin) => &[Role::Owner.name().to_owned(), Role::Admin.name().to_owned()],
        _ => return Ok(()),
    };
    let instance = locked.workspace();
    let others = sqlx::query_scalar!(
        r#"SELECT count(*) AS "n!" FROM members JOIN users USING (user_id)
            WHERE workspace_id = $1 AND role = ANY ($2) AND user_id <> $3 AND disabled_at IS NULL"#,
        instance.uuid(),
        roles,
        user.uuid()
    )
    .fetch_one(&mut ***locked)
    .await?;
    if others == 0 { Err(Error::LastAdministrator) } else { Ok(()) }
}
