//! One-time links: the first owner's way in, and of whoever has lost every other.
//!
//! Only somebody with a shell on the instance's machine makes them. What is kept is a hash; the statement that finds a
//! link unused marks it used, so that of two who come with it one comes in. Opening the link changes nothing, since
//! mail programs and chats open links by themselves: a button on the page does.

use super::arrival::see;
use super::{Error, Refusal};
use crate::access::{hash_token, new_token};
use crate::audit::{Act, Action};
use crate::id::{UserId, WorkspaceId};
use crate::ledger::append::Locked;
use crate::ledger::{Writer, append, draft};
use statusledger_verify::json::Value;
use time::OffsetDateTime;
use uuid::Uuid;
use zeroize::Zeroizing;

/// How long a link can be used.
pub const LASTS: time::Duration = time::Duration::hours(1);
/// How a link's text begins.
const PREFIX: &str = "sl_link";

/// Whom a link signs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// The instance's first owner. The link holds only while there is none.
    FirstOwner,
    /// Somebody new, who becomes an owner of the instance.
    NewOwner,
    /// Somebody who is known.
    User(UserId),
}

/// A link that was not made.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// There is nobody of that id.
    #[error("there is nobody here by the id {0}")]
    Unknown(UserId),
    /// A link would not sign them in.
    #[error(
        "{0} is disabled, and a link would not sign them in: enable them first (`statusledger people enable {0}`), or make \
         another owner (--new-owner)"
    )]
    Disabled(UserId),
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

/// The owners of the instance.
///
/// # Errors
/// If the database does not answer.
pub async fn owners(writer: &Writer, instance: WorkspaceId) -> Result<Vec<UserId>, sqlx::Error> {
    let mut tx = writer.database().workspace(instance).await?;
    sqlx::query_scalar!(
        r#"SELECT user_id AS "user: UserId" FROM members WHERE workspace_id = $1 AND role = 'owner'
            ORDER BY created_at, user_id"#,
        instance.uuid()
    )
    .fetch_all(&mut *tx)
    .await
}

/// Makes a link's text. A first owner's ends those before it.
///
/// # Errors
/// If there is nobody of that id, or they are disabled; or the database does not confirm.
pub async fn make(
    writer: &Writer,
    act: &Act,
    instance: WorkspaceId,
    whom: Whom,
) -> Result<Zeroizing<String>, MakeError> {
    let id = Uuid::now_v7();
    let text = new_token(PREFIX, id);
    let first = whom == Whom::FirstOwner;
    let user = if let Whom::User(user) = whom { Some(user) } else { None };
    let mut locked = writer.lock(instance).await?;
    if first {
        sqlx::query!("UPDATE sign_in_links SET expires_at = now() WHERE first AND used_at IS NULL")
            .execute(&mut **locked)
            .await?;
    }
    if let Some(user) = user {
        see(&mut locked, user).await?;
        // Whoever is disabled is so in this ledger, under its lock.
        let disabled = sqlx::query_scalar!(
            r#"SELECT disabled_at IS NOT NULL AS "disabled!" FROM users WHERE user_id = $1"#,
            user.uuid()
        )
        .fetch_optional(&mut **locked)
        .await?;
        match disabled {
            None => return Err(MakeError::Unknown(user)),
            Some(true) => return Err(MakeError::Disabled(user)),
            Some(false) => {}
        }
    }
    sqlx::query!(
        "INSERT INTO sign_in_links (link_id, hash, user_id, first, expires_at) VALUES ($1, $2, $3, $4, $5)",
        id,
        &hash_token(&text)[..],
        user.map(UserId::uuid),
        first,
        OffsetDateTime::now_utc() + LASTS
    )
    .execute(&mut **locked)
    .await?;
    let mut record = act.of(Action::LinkCreated).detail("first", Value::Bool(first));
    if let Some(user) = user {
        record = record.target("user", user);
    }
    locked.append(&[record.draft()?]).await?;
    locked.commit().await?;
    Ok(text)
}

/// The id in a link's text.
fn id(text: &str) -> Option<Uuid> {
    let rest = text.strip_prefix(PREFIX)?.strip_prefix('_')?;
    Uuid::try_parse(rest.split_once('_')?.0).ok()
}

/// Uses a link, in a transaction that has the head of the instance's ledger; who comes by it, and whether that is
/// somebody new, to be made an owner of the instance in this transaction.
///
/// # Errors
/// If the link does not hold, or does not any more.
pub async fn take(locked: &mut Locked, text: &str) -> Result<(UserId, bool), Error> {
    let id = id(text).ok_or(Refusal::Link)?;
    let link = sqlx::query!(
        r#"UPDATE sign_in_links SET used_at = now()
            WHERE link_id = $1 AND hash = $2 AND used_at IS NULL AND expires_at > now()
            RETURNING user_id AS "user: UserId", first"#,
        id,
        &hash_token(text)[..]
    )
    .fetch_optional(&mut ***locked)
    .await?
    .ok_or(Refusal::Link)?;
    if let Some(user) = link.user {
        return Ok((user, false));
    }
    if link.first {
        let workspace = locked.workspace();
        let owned = sqlx::query_scalar!(
            r#"SELECT EXISTS (SELECT FROM members WHERE workspace_id = $1 AND role = 'owner') AS "owned!""#,
            workspace.uuid()
        )
        .fetch_one(&mut ***locked)
        .await?;
        if owned {
            return Err(Refusal::Link.into());
        }
    }
    Ok((UserId::new(), true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_says_which_it_is() {
        let which = Uuid::now_v7();
        assert_eq!(id(&new_token(PREFIX, which)), Some(which));
        for text in ["", "sl_link", "sl_link_x_y", "sl_invite_0199b1c4000070008000000000000001_x"] {
            assert_eq!(id(text), None, "{text}");
        }
    }
}
