//! The end of a workspace: asked for, waited for, and then everything that can be opened is destroyed.
//!
//! Its data key goes, and with it whatever was sealed under it: store keys, webhook secrets, openings, the addresses of
//! the invited. Its API keys and its sources' tokens end, its destinations stop. Entries, tiles and checkpoints stay:
//! receipts that were handed out verify as before, and nobody can tell any more what the sealed values were.

use crate::access::members;
use crate::audit::{Act, Action};
use crate::id::WorkspaceId;
use crate::ledger::{Draft, Writer, append};
use serde_json::json;
use statusledger_verify::json::{Object, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Error;

fn said(at: OffsetDateTime) -> Value {
    at.format(&Rfc3339).map_or(Value::Null, Value::String)
}

/// Asks for a workspace's end after `wait`. Asked again, the first time counts.
///
/// # Errors
/// If there is none, or it is the instance's own.
pub async fn request(
    writer: &Writer,
    act: &Act,
    workspace: WorkspaceId,
    wait: time::Duration,
) -> Result<OffsetDateTime, Error> {
    let mut locked = writer.lock(workspace).await?;
    let row = sqlx::query!(
        r#"SELECT w.delete_after, EXISTS (SELECT FROM instance i WHERE i.workspace_id = w.workspace_id) AS "own!"
             FROM workspaces w WHERE w.workspace_id = $1"#,
        workspace.uuid()
    )
    .fetch_one(&mut **locked)
    .await?;
    if row.own {
        return Err(Error::Own);
    }
    if let Some(at) = row.delete_after {
        locked.check(act.terms()).await?;
        return Ok(at);
    }
    let at = OffsetDateTime::now_utc() + wait;
    sqlx::query!("UPDATE workspaces SET delete_after = $2 WHERE workspace_id = $1", workspace.uuid(), at)
        .execute(&mut **locked)
        .await?;
    let record = act
        .of(Action::WorkspaceDeletionRequested)
        .target("workspace", workspace)
        .detail("delete_after", said(at));
    locked.append(&[record.draft()?]).await?;
    locked.commit().await?;
    Ok(at)
}

/// Calls it off.
///
/// # Errors
/// If nobody had asked for it.
pub async fn cancel(writer: &Writer, act: &Act, workspace: WorkspaceId) -> Result<(), Error> {
    let mut locked = writer.lock(workspace).await?;
    let found = sqlx::query!(
        "UPDATE workspaces SET delete_after = NULL WHERE workspace_id = $1 AND delete_after IS NOT NULL AND deleted_at IS NULL",
        workspace.uuid()
    )
    .execute(&mut **locked)
    .await?
    .rows_affected();
    if found == 0 {
        return Err(Error::NotEnding);
    }
    locked
        .append(&[act.of(Action::WorkspaceDeletionCancelled).target("workspace", workspace).draft()?])
        .await?;
    locked.commit().await?;
    Ok(())
}

/// Ends the workspaces whose time has come, and forgets the keys of those that another node has ended; and withdraws from
/// every workspace the invitations of keys that have ended elsewhere. A crash leaves each whole or ended.
///
/// # Errors
/// If the database does not confirm; those that were ended stay ended.
pub async fn end_due(writer: &Writer) -> Result<usize, Error> {
    let database = writer.database();
    let due = sqlx::query_scalar!(
        r#"SELECT workspace_id AS "workspace: WorkspaceId" FROM workspaces
            WHERE delete_after <= now() AND deleted_at IS NULL"#
    )
    .fetch_all(&database.worker)
    .await?;
    for workspace in &due {
        end(writer, *workspace).await?;
    }
    let known: Vec<uuid::Uuid> = writer.data_keys().known().iter().map(|id| id.uuid()).collect();
    let ended = sqlx::query_scalar!(
        r#"SELECT workspace_id AS "workspace: WorkspaceId" FROM workspaces
            WHERE deleted_at IS NOT NULL AND workspace_id = ANY ($1)"#,
        &known
    )
    .fetch_all(&database.worker)
    .await?;
    for workspace in ended {
        writer.data_keys().forget(workspace);
    }
    // Nobody accepts them any more, so nothing depends on when it is said.
    if let Err(e) = members::withdraw_of_ended_keys(writer).await {
        tracing::warn!(error = %e, "invitations of a key that has ended are not withdrawn yet");
    }
    Ok(due.len())
}

async fn end(writer: &Writer, workspace: WorkspaceId) -> Result<(), Error> {
    let id = workspace.uuid();
    let mut locked = match writer.lock(workspace).await {
        Ok(locked) => locked,
        // Ended by another node, while this one waited for the lock.
        Err(append::Error::NoWorkspace(_)) => return Ok(()),
        Err(e) => return Err(e.into()),
    };
    // Called off meanwhile.
    let still = sqlx::query_scalar!(
        r#"SELECT COALESCE(delete_after <= now() AND deleted_at IS NULL, false) AS "still!" FROM workspaces
            WHERE workspace_id = $1"#,
        id
    )
    .fetch_one(&mut **locked)
    .await?;
    if !still {
        return Ok(());
    }
    // The last entry, while there is a key to seal with.
    let mut data = Object::default();
    data.insert("workspace".into(), Value::String(workspace.to_string()));
    let record = Act::system().of(Action::WorkspaceDeleted).target("workspace", workspace).draft()?;
    locked.append(&[Draft::new("workspace.deleted", data)?, record]).await?;
    sqlx::query!(
        "UPDATE sources SET deleted_at = COALESCE(deleted_at, now()), secret = NULL, webhook_secret = NULL,
                token_hash = NULL, key_fingerprint = NULL, next_poll_at = NULL, settings = NULL, access = NULL,
                health_detail = NULL, name = 'deleted ' || source_id
          WHERE workspace_id = $1",
        id
    )
    .execute(&mut **locked)
    .await?;
    sqlx::query!(
        "UPDATE destinations SET deleted_at = COALESCE(deleted_at, now()), secret = NULL, previous_secret = NULL,
                name = 'deleted', url = NULL
          WHERE workspace_id = $1",
        id
    )
    .execute(&mut **locked)
    .await?;
    sqlx::query!(
        "UPDATE lanes SET stopped = true, holder = NULL, fence = fence + 1, leased_until = '-infinity'
          WHERE workspace_id = $1",
        id
    )
    .execute(&mut **locked)
    .await?;
    locked.routes_changed().await?;
    sqlx::query!("UPDATE attempts SET answer = NULL WHERE workspace_id = $1", id)
        .execute(&mut **locked)
        .await?;
    sqlx::query!(
        "UPDATE api_keys SET revoked_at = COALESCE(revoked_at, now()), name = 'deleted' WHERE workspace_id = $1",
        id
    )
    .execute(&mut **locked)
    .await?;
    sqlx::query!("DELETE FROM openings WHERE workspace_id = $1", id).execute(&mut **locked).await?;
    sqlx::query!("DELETE FROM invitations WHERE workspace_id = $1", id).execute(&mut **locked).await?;
    sqlx::query!("DELETE FROM members WHERE workspace_id = $1", id).execute(&mut **locked).await?;
    sqlx::query!("DELETE FROM request_keys WHERE workspace_id = $1", id).execute(&mut **locked).await?;
    sqlx::query!("DELETE FROM data_keys WHERE workspace_id = $1", id).execute(&mut **locked).await?;
    sqlx::query!(
        "UPDATE workspaces SET deleted_at = now(), name = 'deleted ' || workspace_id WHERE workspace_id = $1",
        id
    )
    .execute(&mut **locked)
    .await?;
    locked.commit().await?;
    writer.data_keys().forget(workspace);
    tracing::info!(%workspace, "a workspace was ended as it was asked for");
    Ok(())
}

/// What changes of a workspace; none leaves it.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// What people call it.
    pub name: Option<String>,
    /// Whether its owners and administrators have to sign in with a passkey.
    pub passkey_required: Option<bool>,
    /// Whether whoever asks may take that back.
    pub may_lift: bool,
}

/// Changes a workspace.
///
/// # Errors
/// If the name is out of bounds, or what is asked of owners and administrators is not theirs to take back.
pub async fn update(writer: &Writer, act: &Act, workspace: WorkspaceId, change: Change) -> Result<(), Error> {
    if let Some(name) = &change.name {
        super::check_name(name)?;
    }
    let mut locked = writer.lock(workspace).await?;
    let before = sqlx::query!(
        "SELECT name, passkey_required FROM workspaces WHERE workspace_id = $1 AND deleted_at IS NULL FOR UPDATE",
        workspace.uuid()
    )
    .fetch_one(&mut **locked)
    .await?;
    let name = change.name.unwrap_or_else(|| before.name.clone());
    let passkey_required = change.passkey_required.unwrap_or(before.passkey_required);
    if before.passkey_required && !passkey_required && !change.may_lift {
        return Err(Error::Lift);
    }
    // Asked for again, what counts since the first time counts on.
    sqlx::query!(
        "UPDATE workspaces SET name = $2, passkey_required = $3,
                passkey_required_at = CASE WHEN $3 AND NOT passkey_required THEN now() ELSE passkey_required_at END
          WHERE workspace_id = $1",
        workspace.uuid(),
        name,
        passkey_required
    )
    .execute(&mut **locked)
    .await?;
    let was = json!({ "name": before.name, "passkey_required": before.passkey_required });
    let is = json!({ "name": name, "passkey_required": passkey_required });
    let record = act.of(Action::WorkspaceUpdated).target("workspace", workspace).changed(
        "workspace",
        Some(&was),
        Some(&is),
    );
    locked.append(&[record.draft()?]).await?;
    locked.commit().await?;
    Ok(())
}
