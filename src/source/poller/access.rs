//! What a new store key may read: every read is tried once, at once, so that nobody finds out days later.

use super::client::Client;
use super::{Due, Poller, fetch_options};
use crate::config::PollingSettings;
use crate::database::Database;
use crate::id::{SourceId, WorkspaceId};
use crate::ledger::Writer;
use crate::observation::Kind as Subject;
use crate::sealing::SecretColumn;
use crate::source::fetch::StoreError;
use crate::source::look::Look;
use crate::source::{Error, Kind, google_play};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use time::OffsetDateTime;
use utoipa::ToSchema;

/// How long all of it may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// What a key may read.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Access {
    /// When it was tried.
    #[serde(with = "time::serde::rfc3339")]
    pub tried_at: OffsetDateTime,
    /// Each read.
    pub reads: Vec<Read>,
    /// What whoever gave the key should know: what else it can do, and what reading with it does.
    pub warnings: Vec<String>,
}

/// A read that was tried.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Read {
    /// What was asked: `apps`, `builds`, `versions`, …
    #[schema(example = "versions")]
    pub what: String,
    /// What came of it.
    pub outcome: Outcome,
    /// The store's words, where it did not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// What came of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was answered.
    Readable,
    /// The key may not.
    Refused,
    /// The store could not be asked, or gave no answer that can be read.
    Failed,
    /// The key sees no app that it could be tried with.
    NothingToTry,
}

/// Which reads there are, with the app that they are tried with.
fn reads(kind: Kind, edits: bool) -> &'static [&'static str] {
    match (kind, edits) {
        (Kind::AppStore, _) => &[
            "builds",
            "reviews",
            "versions:",
            "app_infos:",
            "in_app_purchases:",
            "subscriptions:",
            "app_events:",
            "uploads:",
            "availability:",
            "webhooks:",
        ],
        (Kind::GooglePlay, false) => &["tracks:", "releases:"],
        (Kind::GooglePlay, true) => &["tracks:", "releases:", "rollouts:"],
        (Kind::Inbound, _) => &[],
    }
}

/// Tries every read of a source, and keeps what came of it with the source.
///
/// # Errors
/// If the source cannot be read or written; that a store refuses is no error.
pub async fn try_reads(
    database: &Database,
    writer: &Writer,
    settings: &PollingSettings,
    workspace: WorkspaceId,
    source: SourceId,
) -> Result<Option<Access>, Error> {
    let mut tx = database.workspace(workspace).await?;
    let row = sqlx::query!(
        "SELECT kind, settings, secret FROM sources
          WHERE workspace_id = $1 AND source_id = $2 AND deleted_at IS NULL",
        workspace.uuid(),
        source.uuid()
    )
    .fetch_optional(&mut *tx)
    .await?
    .ok_or(Error::Missing(source))?;
    drop(tx);
    let (Some(kind), Some(sealed)) = (Kind::from_name(&row.kind), row.secret) else { return Ok(None) };
    let data_key = writer.data_keys().get(workspace).await?;
    let secret = SecretColumn::SourceSecret(source).open(&data_key, &sealed)?;
    let due = Due { workspace, source, at: None };
    let edits = Poller::edits_of(database, &due);
    let own = crate::source::open_settings(&data_key, source, row.settings.as_deref())?;
    let client = Client::new(kind, &secret, own, fetch_options(settings), edits)
        .map_err(|e| Error::Key(format!("the key is not usable: {e}")))?;
    let access = tried(kind, client).await;
    let kept = serde_json::to_value(&access).map_err(|e| Error::Key(e.to_string()))?;
    let mut tx = database.workspace(workspace).await?;
    sqlx::query!(
        // Of a key that was replaced meanwhile it says nothing any more.
        "UPDATE sources SET access = $3 WHERE workspace_id = $1 AND source_id = $2 AND secret = $4",
        workspace.uuid(),
        source.uuid(),
        kept,
        sealed
    )
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(Some(access))
}

async fn tried(kind: Kind, mut client: Client) -> Access {
    let tried_at = OffsetDateTime::now_utc();
    let deadline = tokio::time::Instant::now() + DEADLINE;
    let mut access = Access { tried_at, reads: Vec::new(), warnings: Vec::new() };
    let mut look = Look::default();
    let apps = within(deadline, client.look("apps", &mut look)).await;
    let usable = matches!(apps, Ok(()));
    access.reads.push(read("apps", apps));
    let app = look.observations.iter().find(|o| o.kind == Subject::App).map(|o| o.scope.clone());
    client.learn(super::round::apps(&look), true);
    for what in reads(kind, client.edits_are_on()) {
        let name = what.trim_end_matches(':');
        if !usable {
            break;
        }
        let poll = match (&app, what.ends_with(':')) {
            (Some(app), true) if name == "releases" => format!("{what}{app}/production"),
            (Some(app), true) => format!("{what}{app}"),
            (None, true) => {
                access.reads.push(Read { what: name.into(), outcome: Outcome::NothingToTry, detail: None });
                continue;
            }
            (_, false) => (*what).to_owned(),
        };
        let answer = within(deadline, client.look(&poll, &mut Look::default())).await;
        access.reads.push(read(name, answer));
    }
    match kind {
        Kind::AppStore if usable && within(deadline, client.reads_users()).await.unwrap_or(false) => {
            access.warnings.push(
                "This key can administer the team (it may list its users). Reading needs the role Developer; make a key \
                 with that role, so that what is stored here can change nothing."
                    .into(),
            );
        }
        Kind::GooglePlay => {
            access.warnings.push(
                "Google has no read-only scope: what this account can do is what it was granted in the Play Console. \
                 Grant \"View app information (read-only)\" alone."
                    .into(),
            );
            if client.edits_are_on() {
                access.warnings.push(google_play::edits::WARNING.into());
            }
        }
        _ => {}
    }
    access
}

async fn within<T>(
    deadline: tokio::time::Instant,
    answer: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    tokio::time::timeout_at(deadline, answer).await.unwrap_or(Err(StoreError::Timeout))
}

fn read(what: &str, answer: Result<(), StoreError>) -> Read {
    let (outcome, detail) = match answer {
        // That this app has none of it is an answer.
        Ok(()) | Err(StoreError::NotFound { .. }) => (Outcome::Readable, None),
        Err(e @ (StoreError::Unauthorized { .. } | StoreError::Forbidden { .. })) => {
            (Outcome::Refused, Some(e.to_string()))
        }
        Err(e) => (Outcome::Failed, Some(e.to_string())),
    };
    Read { what: what.into(), outcome, detail }
}
