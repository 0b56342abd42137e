//! Members and invitations of a workspace. Nobody gives more than they have, and a workspace keeps an owner.

use super::door::Caller;
use super::people::{self, Profile};
use super::scope::{Permission, Permissions, Role};
use super::secret::AccessSecret;
use super::{hash_token, secret_text};
use crate::audit::{Act, Action};
use crate::database::{Database, WorkspaceTx};
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
    /// By a key, in a workspace that asks its owners and administrators for passkeys.
    #[error(
        "while a workspace asks its owners and administrators for a passkey, people make more of them, or a key that \
         reaches the whole instance"
    )]
    Passkey,
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

/// Checks that whoever asks may give `role` as far as passkeys go: whom a key makes an owner, that one takes back what a
/// key may not.
async fn check_passkeys(tx: &mut WorkspaceTx, caller: &Caller, role: Role) -> Result<(), Error> {
    let by_a_key = matches!(caller, Caller::Key { instance: false, .. });
    if !by_a_key || !matches!(role, Role::Owner | Role::Admin) {
        return Ok(());
    }
    let workspace = tx.workspace;
    let asked = sqlx::query_scalar!(
        "SELECT passkey_required FROM workspaces WHERE workspace_id = $1",
        workspace.uuid()
    )
    .fetch_one(&mut **tx)
    .await?;
    if asked { Err(Error::Passkey) } else { Ok(()) }
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
    tell_withdrawn(locked, act, &withdrawn).await?;
    Ok(withdrawn)
}

/// Withdraws the open invitations that a key of the workspace has made, each with its entry.
///
/// # Errors
/// If the database does not confirm.
pub async fn withdraw_of_key(locked: &mut Locked, act: &Act, key: KeyId) -> Result<(), append::Error> {
    let workspace = locked.workspace();
    let withdrawn = sqlx::query_scalar!(
        r#"UPDATE invitations SET revoked_at = now()
            WHERE workspace_id = $1 AND invited_key = $2 AND accepted_at IS NULL AND revoked_at IS NULL
              AND expires_at > now() RETURNING invitation_id AS "id: InvitationId""#,
        workspace.uuid(),
        key.uuid()
    )
    .fetch_all(&mut ***locked)
    .await?;
    tell_withdrawn(locked, act, &withdrawn).await
}

/// Withdraws the open invitations that a key of the instance's, which has ended, has made into other workspaces, each in that
/// one's own transaction and with its entry there. None of them is accepted any more since the key ended: this only says so. A
/// workspace in which it cannot be said keeps it from no other.
///
/// # Errors
/// The last, if a workspace did not confirm; what was withdrawn stays so, and [`withdraw_of_ended_keys`] does the rest.
pub async fn withdraw_elsewhere(writer: &Writer, act: &Act, key: KeyId) -> Result<(), append::Error> {
    let workspaces = sqlx::query_scalar!(
        r#"SELECT DISTINCT i.workspace_id AS "workspace: WorkspaceId" FROM invitations i JOIN api_keys k
               ON k.key_id = i.invited_key
            WHERE i.invited_key = $1 AND i.accepted_at IS NULL AND i.revoked_at IS NULL AND i.expires_at > now()
              AND (k.revoked_at IS NOT NULL OR k.expires_at <= now())"#,
        key.uuid()
    )
    .fetch_all(&writer.database().worker)
    .await?;
    let mut withdrawn = Ok(());
    for workspace in workspaces {
        match withdraw_there(writer, act, workspace, key).await {
            // Of a workspace that has ended meanwhile the invitations have too.
            Ok(()) | Err(append::Error::NoWorkspace(_)) => {}
            e => withdrawn = e,
        }
    }
    withdrawn
}

async fn withdraw_there(
    writer: &Writer,
    act: &Act,
    workspace: WorkspaceId,
    key: KeyId,
) -> Result<(), append::Error> {
    let mut locked = writer.lock(workspace).await?;
    withdraw_of_key(&mut locked, act, key).await?;
    locked.commit().await
}

/// Withdraws what keys that have ended, by themselves or while a node crashed, have left open: the service's own act.
///
/// # Errors
/// The last, if the database did not confirm one; the next time does the rest.
pub async fn withdraw_of_ended_keys(writer: &Writer) -> Result<(), append::Error> {
    let keys = sqlx::query_scalar!(
        r#"SELECT DISTINCT k.key_id AS "key: KeyId" FROM invitations i JOIN api_keys k ON k.key_id = i.invited_key
            WHERE i.accepted_at IS NULL AND i.revoked_at IS NULL AND i.expires_at > now()
              AND (k.revoked_at IS NOT NULL OR k.expires_at <= now())"#
    )
    .fetch_all(&writer.database().worker)
    .await?;
    let mut withdrawn = Ok(());
    for key in keys {
        withdrawn = withdraw_elsewhere(writer, &Act::system(), key).await.and(withdrawn);
    }
    withdrawn
}

async fn tell_withdrawn(
    locked: &mut Locked,
    act: &Act,
    withdrawn: &[InvitationId],
) -> Result<(), append::Error> {
    let mut drafts = Vec::with_capacity(withdrawn.len());
    for id in withdrawn {
        drafts.push(act.of(Action::InvitationRevoked).target("invitation", id).draft()?);
    }
    locked.append(&drafts).await?;
    Ok(())
}

/// Gives a member another role. Their open invitations to roles of more than that are withdrawn. The role that they have
/// leaves no entry.
///
/// # Errors
/// If they are none, the role (old or new) is more than `caller` has, or not a key's to give, or nobody would own the
/// workspace.
pub async fn set_role(
    writer: &Writer,
    act: &Act,
    caller: &Caller,
    workspace: WorkspaceId,
    user: UserId,
    role: Role,
) -> Result<(), Error> {
    let mut locked = writer.lock(workspace).await?;
    let before = role_of(&mut locked, user).await?;
    let grants = caller.grants();
    if !grants.covers(before.grants()) || !grants.covers(role.grants()) {
        return Err(Error::TooMuch);
    }
    if role == before {
        locked.check(act.terms()).await?;
        return Ok(());
    }
    check_passkeys(&mut locked, caller, role).await?;
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

/// An invitation that was made.
#[derive(Debug)]
pub struct Invited {
    /// Which.
    pub id: InvitationId,
    /// Its text, shown this once.
    pub token: Zeroizing<String>,
    /// Until when it can be accepted.
    pub expires_at: OffsetDateTime,
    /// Those to the same address that were open until then: withdrawn.
    pub withdrawn: Vec<InvitationId>,
}

/// Withdraws the open invitations to an address, each with its entry: the next one is made in this transaction.
async fn withdraw_to(
    locked: &mut Locked,
    act: &Act,
    grants: Permissions,
    email_index: &[u8; 32],
) -> Result<Vec<InvitationId>, Error> {
    let workspace = locked.workspace();
    let open = sqlx::query!(
        r#"UPDATE invitations SET revoked_at = now()
            WHERE workspace_id = $1 AND email_index = $2 AND accepted_at IS NULL AND revoked_at IS NULL
              AND expires_at > now() RETURNING invitation_id AS "id: InvitationId", role"#,
        workspace.uuid(),
        &email_index[..]
    )
    .fetch_all(&mut ***locked)
    .await?;
    // Without a commit they stay open.
    if !open.iter().all(|row| Role::from_name(&row.role).is_some_and(|role| grants.covers(role.grants()))) {
        return Err(Error::TooMuch);
    }
    let withdrawn: Vec<InvitationId> = open.into_iter().map(|row| row.id).collect();
    tell_withdrawn(locked, act, &withdrawn).await?;
    Ok(withdrawn)
}

/// Invites somebody. Whoever shows the returned text while signed in becomes a member; it is shown this once. While the
/// person behind it is disabled, nobody does; where a key made it, it ends with that key at the latest. Of one address there
/// is one open invitation: those before it are withdrawn.
///
/// # Errors
/// If it is no address, or the role is more than `caller` has, or not a key's to give; or that of an open invitation to the
/// same address is more than `caller` has.
pub async fn invite(
    writer: &Writer,
    secret: &AccessSecret,
    act: &Act,
    caller: &Caller,
    workspace: WorkspaceId,
    email: &str,
    role: Role,
) -> Result<Invited, Error> {
    if !people::is_email(email.trim()) {
        return Err(Error::Email);
    }
    if !caller.grants().covers(role.grants()) {
        return Err(Error::TooMuch);
    }
    let key = match caller {
        Caller::Key { id, .. } => Some(*id),
        Caller::Session { .. } => None,
    };
    let id = InvitationId::new();
    let token = Zeroizing::new(format!("sl_invite_{}_{}", id.uuid().simple(), secret_text().as_str()));
    let lasts = OffsetDateTime::now_utc() + INVITATION_LASTS;
    let expires_at = caller.ends().map_or(lasts, |end| end.min(lasts));
    let data_key = writer.data_keys().get(workspace).await?;
    let profile = Profile { email: Some(email.trim().to_owned()), name: None };
    let sealed = people::seal_profile(&data_key, "invitations", id.uuid(), &profile)?;
    let email_index = people::email_index(secret, email);
    let mut locked = writer.lock(workspace).await?;
    check_passkeys(&mut locked, caller, role).await?;
    let withdrawn = withdraw_to(&mut locked, act, caller.grants(), &email_index).await?;
    sqlx::query!(
        "INSERT INTO invitations (workspace_id, invitation_id, role, profile, hash, expires_at, invited_by, invited_key,
                                  email_index)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        workspace.uuid(),
        id.uuid(),
        role.name(),
        sealed,
        &hash_token(&token)[..],
        expires_at,
        caller.person().map(UserId::uuid),
        key.map(KeyId::uuid),
        &email_index[..]
    )
    .execute(&mut **locked)
    .await?;
    let is = json!({ "role": role.name(), "email": email.trim() });
    let record = act.of(Action::MemberInvited).target("invitation", id).changed("member", None, Some(&is));
    locked.append(&[record.draft()?]).await?;
    locked.commit().await?;
    Ok(Invited { id, token, expires_at, withdrawn })
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

/// An invitation that can be accepted.
#[derive(Clone, Copy, Debug)]
pub struct OpenInvitation {
    /// Into which workspace.
    pub workspace: WorkspaceId,
    /// Which.
    pub id: InvitationId,
    /// As what.
    pub role: Role,
    /// The person who was made for it, if one was.
    pub claimed_by: Option<UserId>,
}

/// The invitation of that text, where it can still be accepted: it is open, and what it was made with holds.
///
/// # Errors
/// If the database does not answer.
pub async fn open_invitation(
    database: &Database,
    token: &str,
) -> Result<Option<OpenInvitation>, sqlx::Error> {
    let row = sqlx::query!(
        r#"SELECT i.workspace_id AS "workspace: WorkspaceId", i.invitation_id AS "id: InvitationId", i.role,
                  i.claimed_by AS "claimed_by: UserId"
             FROM invitations i JOIN workspaces w USING (workspace_id)
             LEFT JOIN users u ON u.user_id = i.invited_by
             LEFT JOIN api_keys k ON k.key_id = i.invited_key
            WHERE i.hash = $1 AND i.accepted_at IS NULL AND i.revoked_at IS NULL AND i.expires_at > now()
              AND u.disabled_at IS NULL
              AND (i.invited_key IS NULL
                   OR k.key_id IS NOT NULL AND k.revoked_at IS NULL AND COALESCE(k.expires_at > now(), true)
                      AND (k.instance OR NOT w.passkey_required OR i.role NOT IN ('owner', 'admin')))"#,
        &hash_token(token)[..]
    )
    .fetch_optional(&database.worker)
    .await?;
    Ok(row.and_then(|row| {
        let role = Role::from_name(&row.role)?;
        Some(OpenInvitation { workspace: row.workspace, id: row.id, role, claimed_by: row.claimed_by })
    }))
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
    let database = writer.database();
    let row = open_invitation(database, token).await?.ok_or(Error::NoInvitation)?;
    let mut locked = writer.lock(row.workspace).await?;
    // Under the lock that the end of a key and a workspace's rules take.
    open_invitation(database, token).await?.ok_or(Error::NoInvitation)?;
    let taken = sqlx::query!(
        "UPDATE invitations SET accepted_at = now()
          WHERE workspace_id = $1 AND invitation_id = $2 AND accepted_at IS NULL AND revoked_at IS NULL
            AND expires_at > now() AND COALESCE(claimed_by, $3) = $3 RETURNING role, profile",
        row.workspace.uuid(),
        row.id.uuid(),
        user.uuid()
    )
    .fetch_optional(&mut **locked)
    .await?
    .ok_or(Error::NoInvitation)?;
    let role = Role::from_name(&taken.role).ok_or(Error::NoInvitation)?;
    // Sealed anew: each value is bound to its row, and the invitation's goes after a month.
    let data_key = writer.data_keys().get(row.workspace).await?;
    let profile = people::open_profile(&data_key, "invitations", row.id.uuid(), &taken.profile)?;
    let profile = people::seal_profile(&data_key, "members", user.uuid(), &profile)?;
    if !join(&mut locked, act, user, role, Some(Accepted { id: row.id, profile })).await? {
        return Err(Error::Member);
    }
    locked.commit().await?;
    Ok((row.workspace, role))
}

/// An invitation that somebody comes by.
#[derive(Debug)]
pub struct Accepted {
    /// Which.
    pub id: InvitationId,
    /// The address that it was for, sealed for the member's row.
    pub profile: Vec<u8>,
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
    invitation: Option<Accepted>,
) -> Result<bool, Error> {
    let workspace = locked.workspace();
    let inserted = sqlx::query!(
        "INSERT INTO members (workspace_id, user_id, role, profile) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
        workspace.uuid(),
        user.uuid(),
        role.name(),
        invitation.as_ref().map(|by| &by.profile[..])
    )
    .execute(&mut ***locked)
    .await?
    .rows_affected();
    if inserted == 0 {
        return Ok(false);
    }
    let is = json!({ "role": role.name() });
    let mut record = act.of(Action::MemberJoined).target("user", user);
    if let Some(by) = invitation {
        record = record.target("invitation", by.id);
    }
    locked.append(&[record.changed("member", None, Some(&is)).draft()?]).await?;
    Ok(true)
}
