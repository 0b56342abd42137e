//! The record of Google Play's edits that may be open, so that one is discarded even after a crash.

use super::client::Client;
use super::{Due, Poller};
use crate::database::Database;
use crate::id::{SourceId, WorkspaceId};
use crate::source::google_play::edits::{EditLog, EditLogError, delete_leftover};
use futures_util::future::BoxFuture;

/// A source's record.
#[derive(Clone, Debug)]
pub(super) struct OpenEdits {
    pub(super) database: Database,
    pub(super) workspace: WorkspaceId,
    pub(super) source: SourceId,
}

fn failed(e: sqlx::Error) -> EditLogError {
    EditLogError(e.to_string())
}

impl OpenEdits {
    async fn note(&self, package: &str, edit: &str) -> Result<(), sqlx::Error> {
        let mut tx = self.database.workspace(self.workspace).await?;
        sqlx::query!(
            "INSERT INTO play_edits (workspace_id, source_id, package, edit_id) VALUES ($1, $2, $3, $4)
             ON CONFLICT DO NOTHING",
            self.workspace.uuid(),
            self.source.uuid(),
            package,
            edit
        )
        .execute(&mut *tx)
        .await?;
        tx.commit().await
    }

    async fn strike(&self, package: &str, edit: &str) -> Result<(), sqlx::Error> {
        let mut tx = self.database.workspace(self.workspace).await?;
        sqlx::query!(
            "DELETE FROM play_edits WHERE workspace_id = $1 AND source_id = $2 AND package = $3 AND edit_id = $4",
            self.workspace.uuid(),
            self.source.uuid(),
            package,
            edit
        )
        .execute(&mut *tx)
        .await?;
        tx.commit().await
    }

    /// What is in the record, of one app or of all: package and edit.
    async fn all(&self, package: Option<&str>) -> Result<Vec<(String, String)>, sqlx::Error> {
        let mut tx = self.database.workspace(self.workspace).await?;
        let rows = sqlx::query!(
            "SELECT package, edit_id FROM play_edits
              WHERE workspace_id = $1 AND source_id = $2 AND ($3::text IS NULL OR package = $3) ORDER BY opened_at",
            self.workspace.uuid(),
            self.source.uuid(),
            package
        )
        .fetch_all(&mut *tx)
        .await?;
        Ok(rows.into_iter().map(|r| (r.package, r.edit_id)).collect())
    }
}

impl EditLog for OpenEdits {
    fn opened<'a>(&'a self, package: &'a str, edit: &'a str) -> BoxFuture<'a, Result<(), EditLogError>> {
        Box::pin(async move { self.note(package, edit).await.map_err(failed) })
    }

    fn closed<'a>(&'a self, package: &'a str, edit: &'a str) -> BoxFuture<'a, Result<(), EditLogError>> {
        Box::pin(async move { self.strike(package, edit).await.map_err(failed) })
    }

    fn left_open<'a>(&'a self, package: &'a str) -> BoxFuture<'a, Result<Vec<String>, EditLogError>> {
        Box::pin(async move {
            let left = self.all(Some(package)).await.map_err(failed)?;
            Ok(left.into_iter().map(|(_, edit)| edit).collect())
        })
    }
}

impl Poller {
    /// Discards the edits that a crash left open, before this node reads anything.
    pub(super) async fn discard_leftovers(&self, due: &Due, client: &Client) -> Result<(), sqlx::Error> {
        let Client::GooglePlay { client, .. } = client else { return Ok(()) };
        let edits = self.edits(due);
        for (package, edit) in edits.all(None).await? {
            match delete_leftover(client, &package, &edit).await {
                Ok(()) => edits.strike(&package, &edit).await?,
                // It stays in the record, and is tried again.
                Err(e) => tracing::warn!(source = %due.source, error = %e, "an edit is still open"),
            }
        }
        Ok(())
    }
}
