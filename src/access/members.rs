//! Members and invitations of a workspace. Nobody gives more than they have, and a workspace keeps an owner.

use super::people::{self, Profile};
use super::scope::{Permission, Permissions, Role};
use super::{hash_token, secret_text};
use crate::audit::{Act, Action, Actor};
use crate::database::WorkspaceTx;
use crate::id::{InvitationId, UserId, WorkspaceId};
use crate::ledger::append;
use crate::ledger::{Writer, draft};
use crate::sealing;
use serde_json::json;
use time::OffsetDateTime;
use zeroize::Zeroizing;

/// How long an invitation can be accepted.
pub const INVITATION_LASTS: time::Duration = time::Duration::days(7);

/// What cannot be done with members.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not a member.
    #[error("{0} is not a member of this workspace")]
    Missing(UserId),
    /// No such invitation, or not any more.
    #[error("the invitation does not exist, or was accepted, withdrawn, or has expired")]
    NoInvitation,
    /// Not an address.
    #[error("email is not an address")]
    Email,
    /// More than the caller has.
    #[error("a role of more than your own cannot be given, changed or taken away by you")]
    TooMuch,
    /// The last owner.
    #[error("a workspace keeps at least one owner")]
    LastOwner,
    /// A member already.
    #[error("they are a member already")]
    Member,
    /// The database.
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    /// The data key.
    #[error(transparent)]
    Sealing(#[from] sealing::Error),
    /// The entry.
    #[error(transparent)]
    Append(#[from] append::Error),
    /// The entry.
    #[error(transparent)]
    Draft(#[from] draft::Error),
}

async fn role_of(tx: &mut WorkspaceTx, user: UserId) -> Result<Role, Error> {
    let workspace = tx.workspace;
    sqlx::query_scalar!(
        "SELECT role FROM members WHERE workspace_id = $1 AND user_id = $2 FOR UPDATE",
        workspace.uuid(),
        user.uuid()
    )
    .fetch_optional(&mut **tx)
    .await?
    .and_then(|role| Role::from_name(&role))
    .ok_or(Error::Missing(user))
}

/// Checks that an owner is left when `user` is one no more. The head's lock makes it so until the commit.
async fn keep_an_owner(tx: &mut WorkspaceTx, user: UserId) -> Result<(), Error> {
    let workspace = tx.workspace;
    let others = sqlx::query_scalar!(
        r#"SELECT count(*) AS "n!" FROM members WHERE workspace_id = $1 AND role = 'owner' AND user_id <> $2"#,
        workspace.uuid(),
        user.uuid()
    )
    .fetch_one(&mut **tx)
    .await?;
    if others == 0 { Err(Error::LastOwner) } else { Ok(()) }
}

/// Gives a member another role.
///
/// # Errors
/// If they are none, the role (old or new) is more than `grants`, or nobody would own the workspace.
pub async fn set_role(
    writer: &Writer,
    act: &Act,
    grants: Permissions,
    workspace: WorkspaceId,
    user: UserId,
    role: Role,
) -> Result<(), Error> {
    let mut locked = writer.lock(workspace).await?;
    let before = role_of(&mut locked, user).await?;
    if !grants.covers(before.grants()) || !grants.covers(role.grants()) {
        return Err(Error::TooMuch);
    }
    if before == Role::Owner && role != Role::Owner {
        keep_an_owner(&mut locked, user).await?;
    }
    sqlx::query!(
        "UPDATE members SET role = $3 WHERE workspace_id = $1 AND user_id = $2",
        workspace.uuid(),
        user.uuid(),
        role.name()
    )
    .execute(&mut **locked)
    .await?;
    let (was, is) = (json!({ "role": before.name() }), json!({ "role": role.name() }));
    let record =
        act.of(Action::MemberRoleChanged).target("user", user).changed("member", Some(&was), Some(&is));
    locked.append(&[record.draft()?]).await?;
    locked.commit().await?;
    Ok(())
}

/// Removes a member; themselves anybody may.
///
/// # Errors
/// If they are none, their role is more than `grants`, or nobody would own the workspace.
pub async fn remove(
    writer: &Writer,
    act: &Act,
    grants: Permissions,
    workspace: WorkspaceId,
    user: UserId,
) -> Result<(), Error> {
    let mut locked = writer.lock(workspace).await?;
    let before = role_of(&mut locked, user).await?;
    let leaves = act.actor() == Actor::User(user);
    let may = leaves || (grants.has(Permission::MembersWrite) && grants.covers(before.grants()));
    if !may {
        return Err(Error::TooMuch);
    }
    if before == Role::Owner {
        keep_an_owner(&mut locked, user).await?;
    }
    sqlx::query!(
        "DELETE FROM members WHERE workspace_id = $1 AND user_id = $2",
        workspace.uuid(),
        user.uuid()
    )
    .execute(&mut **locked)
    .await?;
    let was = json!({ "role": before.name() });
    let record = act.of(Action::MemberRemoved).target("user", user).changed("member", Some(&was), None);
    locked.append(&[record.draft()?]).await?;
    locked.commit().await?;
    Ok(())
}

/// Invites somebody. Whoever shows the returned text while signed in becomes a member; it is shown this once.
///
/// # Errors
/// If it is no address, or the role is more than `grants`.
pub async fn invite(
    writer: &Writer,
    act: &Act,
    grants: Permissions,
    workspace: WorkspaceId,
    email: &str,
    role: Role,
) -> Result<(InvitationId, Zeroizing<String>, OffsetDateTime), Error> {
    if !people::is_email(email.trim()) {
        return Err(Error::Email);
    }
    if !grants.covers(role.grants()) {
        return Err(Error::TooMuch);
    }
    let id = InvitationId::new();
    let token = Zeroizing::new(format!("sl_invite_{}_{}", id.uuid().simple(), secret_text().as_str()));
    let expires_at = OffsetDateTime::now_utc() + INVITATION_LASTS;
    let data_key = writer.data_keys().get(workspace).await?;
    let profile = Profile { email: Some(email.trim().to_owned()), name: None };
    let sealed = people::seal_profile(&data_key, "invitations", id.uuid(), &profile)?;
    let mut locked = writer.lock(workspace).await?;
    sqlx::query!(
        "INSERT INTO invitations (workspace_id, invitation_id, role, profile, hash, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6)",
        workspace.uuid(),
        id.uuid(),
        role.name(),
        sealed,
        &hash_token(&token)[..],
        expires_at
    )
    .execute(&mut **locked)
    .await?;
    let is = json!({ "role": role.name(), "email": email.trim() });
    let record = act.of(Action::MemberInvited).target("invitation", id).changed("member", None, Some(&is));
    locked.append(&[record.draft()?]).await?;
    locked.commit().await?;
    Ok((id, token, expires_at))
}

/// Withdraws an invitation.
///
/// # Errors
/// If there is none that is still open, or its role is more than `grants`.
pub async fn withdraw(
    writer: &Writer,
    act: &Act,
    grants: Permissions,
    workspace: WorkspaceId,
    id: InvitationId,
) -> Result<(), Error> {
    let mut locked = writer.lock(workspace).await?;
    let role = sqlx::query_scalar!(
        "UPDATE invitations SET revoked_at = now()
          WHERE workspace_id = $1 AND invitation_id = $2 AND accepted_at IS NULL AND revoked_at IS NULL
         RETURNING role",
        workspace.uuid(),
        id.uuid()
    )
    .fetch_optional(&mut **locked)
    .await?
    .and_then(|role| Role::from_name(&role))
    .ok_or(Error::NoInvitation)?;
    // Without a commit it stays open.
    if !grants.covers(role.grants()) {
        return Err(Error::TooMuch);
    }
    let record = act.of(Action::InvitationRevoked).target("invitation", id);
    locked.append(&[record.draft()?]).await?;
    locked.commit().await?;
    Ok(())
}

/// Makes `user` a member by an invitation's text.
///
/// # Errors
/// If the invitation is not open, or they are a member already.
pub async fn accept(
    writer: &Writer,
    act: &Act,
    user: UserId,
    token: &str,
) -> Result<(WorkspaceId, Role), Error> {
    let hash = hash_token(token);
    let row = sqlx::query!(
        r#"SELECT workspace_id AS "workspace: WorkspaceId", invitation_id AS "id: InvitationId"
             FROM invitations WHERE hash = $1"#,
        &hash[..]
    )
    .fetch_optional(&writer.database().worker)
    .await?
    .ok_or(Error::NoInvitation)?;
    let mut locked = writer.lock(row.workspace).await?;
    let role = sqlx::query_scalar!(
        "UPDATE invitations SET accepted_at = now()
          WHERE workspace_id = $1 AND invitation_id = $2 AND accepted_at IS NULL AND revoked_at IS NULL
            AND expires_at > now() AND COALESCE(claimed_by, $3) = $3 RETURNING role",
        row.workspace.uuid(),
        row.id.uuid(),
        user.uuid()
    )
    .fetch_optional(&mut **locked)
    .await?
    .and_then(|role| Role::from_name(&role))
    .ok_or(Error::NoInvitation)?;
    let joined = join(&mut locked, user, role).await?;
    if !joined {
        return Err(Error::Member);
    }
    let is = json!({ "role": role.name() });
    let record = act.of(Action::MemberJoined).target("user", user).target("invitation", row.id).changed(
        "member",
        None,
        Some(&is),
    );
    locked.append(&[record.draft()?]).await?;
    locked.commit().await?;
    Ok((row.workspace, role))
}

/// Inserts a member; false where they are one.
///
/// # Errors
/// If the database does not confirm.
pub async fn join(tx: &mut WorkspaceTx, user: UserId, role: Role) -> Result<bool, sqlx::Error> {
    let workspace = tx.workspace;
    Ok(sqlx::query!(
        "INSERT INTO members (workspace_id, user_id, role) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        workspace.uuid(),
        user.uuid(),
        role.name()
    )
    .execute(&mut **tx)
    .await?
    .rows_affected()
        == 1)
}
