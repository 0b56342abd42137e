//! What a round has to know of its source's rows.

use super::{Due, Poller, Unusable};
use crate::id::{SourceId, WorkspaceId};
use crate::observation::{self, Kind};
use std::collections::HashSet;
use time::OffsetDateTime;

/// How long what the store has told of, and lists nowhere, is looked for as what is hot: until everything was listed.
const TOLD_ONLY_FOR: time::Duration = time::Duration::hours(1);

impl Poller {
    /// Whether the store's own webhooks come to this source.
    ///
    /// # Errors
    /// [`observation::Error::Gone`] if it was deleted or given another key than the one `under` is of: that is asked nothing
    /// any more.
    pub(super) async fn is_told(
        &self,
        workspace: WorkspaceId,
        source: SourceId,
        under: [u8; 32],
    ) -> Result<bool, Unusable> {
        let mut tx = self.database.workspace(workspace).await?;
        let told = sqlx::query_scalar!(
            r#"SELECT webhook_secret IS NOT NULL AS "told!" FROM sources
                WHERE workspace_id = $1 AND source_id = $2 AND deleted_at IS NULL AND sha256(secret) = $3"#,
            workspace.uuid(),
            source.uuid(),
            &under
        )
        .fetch_optional(&mut *tx)
        .await?;
        told.ok_or(Unusable::Observation(observation::Error::Gone))
    }

    /// What is hot, by kind and app. What was only told of has no app, and is looked for wherever it may be; where it does
    /// not turn up, that ends.
    pub(super) async fn hot(&self, due: &Due) -> Result<HashSet<(Kind, String)>, sqlx::Error> {
        let mut tx = self.database.workspace(due.workspace).await?;
        let rows = sqlx::query!(
            "SELECT DISTINCT kind, scope FROM subjects
              WHERE workspace_id = $1 AND source_id = $2 AND (hot OR pending_state IS NOT NULL) AND gone_at IS NULL
                AND (scope <> '' OR last_seen_at > $3)",
            due.workspace.uuid(),
            due.source.uuid(),
            OffsetDateTime::now_utc() - TOLD_ONLY_FOR
        )
        .fetch_all(&mut *tx)
        .await?;
        Ok(rows.into_iter().filter_map(|r| Some((Kind::from_name(&r.kind)?, r.scope))).collect())
    }

    /// The ids of builds that are hot themselves or in TestFlight, whose states go by the ids of their builds.
    pub(super) async fn hot_builds(&self, due: &Due) -> Result<Vec<String>, sqlx::Error> {
        let mut tx = self.database.workspace(due.workspace).await?;
        sqlx::query_scalar!(
            "SELECT subject_key FROM subjects
              WHERE workspace_id = $1 AND source_id = $2 AND (hot OR pending_state IS NOT NULL) AND gone_at IS NULL
                AND (scope <> '' OR last_seen_at > $3)
                AND kind IN ('build', 'beta_internal', 'beta_external', 'beta_review')
              GROUP BY subject_key ORDER BY min(last_seen_at), subject_key",
            due.workspace.uuid(),
            due.source.uuid(),
            OffsetDateTime::now_utc() - TOLD_ONLY_FOR
        )
        .fetch_all(&mut *tx)
        .await
    }
}
