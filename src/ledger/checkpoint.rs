//! Checkpoints: signed when durable, remembered by this node before anything signed leaves it.
//!
//! A database can be set back (a restored backup, a failover to a standby that was behind). What protects whoever
//! holds a receipt is a memory outside the database: each node keeps, in its own directory, the size and root of
//! the newest checkpoint that it handed out (`super::seen_heads`), and does not serve a database that disagrees
//! (`super::history`).

use super::tree;
use super::tree::{Range, Stored};
use crate::id::{LedgerId, WorkspaceId};
use sqlx::PgConnection;
use statusledger_verify::Hash;
use std::io;
use std::path::PathBuf;

/// A tree that was signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignedTree {
    /// Entries in it.
    pub size: u64,
    /// Its root.
    pub root: Hash,
}

/// Why a node does not serve, or cannot say.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The history in the database is not the one that was signed.
    #[error("ledger {ledger}: {what}")]
    Disagrees {
        /// Which ledger.
        ledger: LedgerId,
        /// In what.
        what: String,
    },
    /// The history in the database is not the one that was signed; which ledgers, and in what.
    #[error("{0}")]
    Lost(String),
    /// The node's file of heads.
    #[error("{path}: {source}", path = .path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// The database.
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
}

/// Keeps `note` as the ledger's newest checkpoint in the database, unless a newer one is there.
///
/// # Errors
/// If the database does not answer.
pub async fn keep(
    connection: &mut PgConnection,
    workspace: WorkspaceId,
    ledger: LedgerId,
    tree: &SignedTree,
    note: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO checkpoints AS c (workspace_id, ledger_id, size, root, note) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (workspace_id, ledger_id) DO UPDATE
            SET size = excluded.size, root = excluded.root, note = excluded.note, signed_at = now()
          WHERE c.size < excluded.size",
        workspace.uuid(),
        ledger.uuid(),
        tree.size as i64,
        &tree.root[..],
        note
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The root of the ledger's first `size` entries, from the stored nodes.
///
/// # Errors
/// If a node is missing, or the database does not answer.
pub async fn root_at(
    connection: &mut PgConnection,
    workspace: WorkspaceId,
    ledger: LedgerId,
    size: u64,
) -> Result<Hash, tree::Error> {
    let range = Range::prefix(size);
    let stored = Stored::read(connection, workspace, ledger, [range]).await?;
    range.root(|node| stored.find(node))
}
