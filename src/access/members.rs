//! Members and invitations of a workspace. Nobody gives more than they have, and a workspace keeps an owner.

use super::people::{self, Profile};
use super::scope::{Permission, Permissions, Role};
use super::{hash_token, secret_text};
use crate::audit::{Act, Action};
use crate::database::WorkspaceTx;
use crate::id::{InvitationId, KeyId, UserId, WorkspaceId};
use crate::ledger::append::{self, Locked};
use crate::ledger::{Writer, draft};
use crate::sealing;
use serde_json::json;
use statusledger_verify::json::Value;
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

/// Checks that an owner is left who can sign in when `user` is one no more. The head's lock makes it so until the commit.
async fn keep_an_owner(tx: &mut WorkspaceTx, user: UserId) -> Result<(), Error> {
    let workspace = tx.workspace;
    let others = sqlx::query_scalar!(
        r#"SELECT count(*) AS "n!" FROM members JOIN users USING (user_id)
            WHERE workspace_id = $1 AND role = 'owner' AND user_id <> $2 AND disabled_at IS NULL"#,
        workspace.uuid(),
        user.uuid()
    )
    .fetch_one(&mut **tx)
    .await?;
    if others == 0 { Err(Error::LastOwner) } else { Ok(()) }
}

/// What lets others in for somebody who is a member no more.
#[derive(Debug)]
pub struct Left {
    /// Their open invitations, which were withdrawn.
    pub invitations: Vec<InvitationId>,
    /// The keys that they made (or keys of theirs made), and that were good: they open nothing until they are a member
    /// again.
    pub keys: Vec<KeyId>,
}

/// Withdraws the open invitations of `user` that give more than `left`, each with its entry.
async fn withdraw_beyond(
    locked: &mut Locked,
    act: &Act,
    user: UserId,
    left: Permissions,
) -> Result<Vec<InvitationId>, Error> {
    let beyond: Vec<String> = Role::ALL
        .into_iter()
        .filter(|role| !left.has(Permission::MembersWrite) || !left.covers(role.grants()))
        .map(|role| role.name().to_owned())
        .collect();
    let workspace = locked.workspace();
    let withdrawn = sqlx::query_scalar!(
        r#"UPDATE invitations SET revoked_at = now()
            WHERE workspace_id = $1 AND invited_by = $2 AND accepted_at IS NULL AND revoked_at IS NULL
              AND expires_at > now() AND role = ANY ($3) RETURNING invitation_id AS "id: InvitationId""#,
        workspace.uuid(),
        user.uuid(),
        &beyond
    )
    .fetch_all(&mut ***locked)
    .await?;
    let mut drafts = Vec::with_capacity(withdrawn.len());
    for id in &withdrawn {
        drafts.push(act.of(Action::InvitationRevoked).target("invitation", id).draft()?);
    }
    locked.append(&drafts).await?;
    Ok(withdrawn)
}

/// Gives a member another role. Their open invitations to roles of more than that are withdrawn.
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
    withdraw_beyond(&mut locked, act, user, role.grants()).await?;
    locked.commit().await?;
    Ok(())
}

/// Removes a member. By [`leave`] one goes oneself, whatever one's role.
///
/// # Errors
/// If they are none, their role is more than `grants`, or nobody would own the workspace.
pub async fn remove(
    writer: &Writer,
    act: &Act,
    grants: Permissions,
    workspace: WorkspaceId,
    user: UserId,
) -> Result<Left, Error> {
    let mut locked = writer.lock(workspace).await?;
    let before = role_of(&mut locked, user).await?;
    if !grants.covers(before.grants()) {
        return Err(Error::TooMuch);
    }
    take_out(locked, act, user, before).await
}

/// Has a member leave, whatever their role.
///
/// # Errors
/// If they are none, or nobody would own the workspace.
pub async fn leave(writer: &Writer, act: &Act, workspace: WorkspaceId, user: UserId) -> Result<Left, Error> {
    // Whoever has no part in it does not take its lock.
    let member = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM members WHERE workspace_id = $1 AND user_id = $2) AS "member!""#,
        workspace.uuid(),
        user.uuid()
    )
    .fetch_one(&writer.database().worker)
    .await?;
    if !member {
        return Err(Error::Missing(user));
    }
    let mut locked = writer.lock(workspace).await?;
    let before = role_of(&mut locked, user).await?;
    take_out(locked, act, user, before).await
}

/// Deletes a member, with the entry that says so; commits. Doors that they left open close with it: their invitations are
/// withdrawn, and keys of theirs rest.
async fn take_out(mut locked: Locked, act: &Act, user: UserId, before: Role) -> Result<Left, Error> {
    let workspace = locked.workspace();
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
    let keys = sqlx::query_scalar!(
        r#"SELECT key_id AS "id: KeyId" FROM api_keys
            WHERE workspace_id = $1 AND person = $2 AND revoked_at IS NULL AND COALESCE(expires_at > now(), true)
            ORDER BY created_at, key_id"#,
        workspace.uuid(),
        user.uuid()
    )
    .fetch_all(&mut **locked)
    .await?;
    let was = json!({ "role": before.name() });
    let mut record = act.of(Action::MemberRemoved).target("user", user).changed("member", Some(&was), None);
    if !keys.is_empty() {
        record = record.detail("keys_at_rest", Value::Int(i64::try_from(keys.len()).unwrap_or(i64::MAX)));
    }
    locked.append(&[record.draft()?]).await?;
    let invitations = withdraw_beyond(&mut locked, act, user, Permissions::default()).await?;
    locked.commit().await?;
    Ok(Left { invitations, keys })
}

/// Invites somebody. Whoever shows the returned text while signed in becomes a member; it is shown this once. While
/// `person`, who is behind it, is disabled, nobody does.
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
    person: Option<UserId>,
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
        "INSERT INTO invitations (workspace_id, invitation_id, role, profile, hash, expires_at, invited_by)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        workspace.uuid(),
        id.uuid(),
        role.name(),
        sealed,
        &hash_token(&token)[..],
        expires_at,
        person.map(UserId::uuid)
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
             FROM invitations LEFT JOIN users ON user_id = invited_by WHERE hash = $1 AND disabled_at IS NULL"#,
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
    if !join(&mut locked, act, user, role, Some(row.id)).await? {
        return Err(Error::Member);
    }
    locked.commit().await?;
    Ok((row.workspace, role))
}

/// Makes somebody a member, by an invitation or otherwise, with the entry that says so; false, and no entry, where they are
/// one.
///
/// # Errors
/// If the database does not confirm.
pub async fn join(
    locked: &mut Locked,
    act: &Act,
    user: UserId,
    role: Role,
    invitation: Option<InvitationId>,
) -> Result<bool, Error> {
    let workspace = locked.workspace();
    let inserted = sqlx::query!(
        "INSERT INTO members (workspace_id, user_id, role) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        workspace.uuid(),
        user.uuid(),
        role.name()
    )
    .execute(&mut ***locked)
    .await?
    .rows_affected();
    if inserted == 0 {
        return Ok(false);
    }
    let is = json!({ "role": role.name() });
    let mut record = act.of(Action::MemberJoined).target("user", user);
    if let Some(invitation) = invitation {
        record = record.target("invitation", invitation);
    }
    locked.append(&[record.changed("member", None, Some(&is)).draft()?]).await?;
    Ok(true)
}
