//! The head of a ledger, held.

use sqlx::PgConnection;
use statusledger::id::WorkspaceId;

/// The head of a workspace's ledger, held as by somebody who appends: nothing is recorded there until it is let go.
pub struct Held(PgConnection);

impl Held {
    pub async fn by(mut superuser: PgConnection, workspace: WorkspaceId) -> Self {
        sqlx::query("BEGIN").execute(&mut superuser).await.unwrap();
        sqlx::query("SELECT 1 FROM heads WHERE workspace_id = $1 FOR UPDATE")
            .bind(workspace.uuid())
            .fetch_one(&mut superuser)
            .await
            .unwrap();
        Self(superuser)
    }

    pub async fn release(mut self) {
        sqlx::query("ROLLBACK").execute(&mut self.0).await.unwrap();
    }
}
