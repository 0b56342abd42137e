//! Workspaces: the tenants. Each has a data key, one ledger, and sees nothing of another.

pub mod end;
pub mod http;
pub mod status;

use crate::access::members;
use crate::access::scope::Role;
use crate::audit::{Act, Action};
use crate::database::WorkspaceTx;
use crate::id::{LedgerId, UserId, WorkspaceId};
use crate::ledger::append::{self, Locked};
use crate::ledger::{Draft, Writer, draft};
use crate::name;
use crate::sealing::{self, DataKeys};
use statusledger_verify::json::{Object, Value};

/// A workspace that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name is none.
    #[error("a workspace's name has {}", name::RULE)]
    Name,
    /// The instance's own.
    #[error("the instance's own workspace cannot be deleted")]
    Own,
    /// Whoever asks may not take back that passkeys are required.
    #[error(
        "that passkeys are required is taken back by an owner, in a session that began with one, or by a key that reaches \
         the whole instance"
    )]
    Lift,
    /// Nobody asked for its end.
    #[error("the workspace's deletion was not asked for")]
    NotEnding,
    /// The database.
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    /// Its data key.
    #[error(transparent)]
    Sealing(#[from] sealing::Error),
    /// Its first entry.
    #[error(transparent)]
    Append(#[from] append::Error),
    /// Its first entry.
    #[error(transparent)]
    Draft(#[from] draft::Error),
    /// Its first member.
    #[error(transparent)]
    Member(#[from] members::Error),
}

fn check_name(name: &str) -> Result<(), Error> {
    if name::is_name(name) { Ok(()) } else { Err(Error::Name) }
}

/// Makes a workspace and its first entry, in one transaction; `owner` becomes its owner.
///
/// # Errors
/// If the name is out of bounds, or the database does not confirm.
pub async fn create(
    writer: &Writer,
    act: &Act,
    name: &str,
    owner: Option<UserId>,
) -> Result<(WorkspaceId, LedgerId), Error> {
    check_name(name)?;
    let workspace = WorkspaceId::new();
    let mut tx = writer.database().workspace(workspace).await?;
    let ledger = insert(&mut tx, writer.data_keys(), name).await?;
    let data_key = writer.data_keys().within(&mut tx).await?;
    let mut locked = Locked::adopt(writer.clone(), tx, workspace, data_key).await?;
    let mut data = Object::default();
    data.insert("name".into(), Value::String(name.into()));
    data.insert("workspace".into(), Value::String(workspace.to_string()));
    let made = serde_json::json!({ "name": name });
    let record = act.of(Action::WorkspaceCreated).target("workspace", workspace).changed(
        "workspace",
        None,
        Some(&made),
    );
    locked.append(&[Draft::new("workspace.created", data)?, record.draft()?]).await?;
    if let Some(owner) = owner {
        members::join(&mut locked, act, owner, Role::Owner, None).await?;
    }
    locked.commit().await?;
    Ok((workspace, ledger))
}

/// Inserts the workspace that `tx` sees, with its data key and an empty ledger.
///
/// # Errors
/// If the database refuses.
pub async fn insert(
    tx: &mut WorkspaceTx,
    data_keys: &DataKeys,
    name: &str,
) -> Result<LedgerId, sealing::Error> {
    let (workspace, ledger) = (tx.workspace, LedgerId::new());
    sqlx::query!(
        "INSERT INTO workspaces (workspace_id, name, ledger_id) VALUES ($1, $2, $3)",
        workspace.uuid(),
        name,
        ledger.uuid()
    )
    .execute(&mut **tx)
    .await?;
    data_keys.create(tx).await?;
    sqlx::query!(
        "INSERT INTO heads (workspace_id, ledger_id, leaf, frontier) VALUES ($1, $2, $3, '')",
        workspace.uuid(),
        ledger.uuid(),
        &[0_u8; 32][..]
    )
    .execute(&mut **tx)
    .await?;
    Ok(ledger)
}
