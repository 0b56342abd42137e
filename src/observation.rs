//! Observations: what a source said about its subjects, and whether that is news.
//!
//! An observation that differs from the subject's last known state is a transition, recorded together with the new
//! state or not at all. The first sight of a subject is no transition. What was not said changes nothing: a subject
//! that is missing from an answer stays as it was last seen.

use crate::id::{SourceId, WorkspaceId};
use crate::ledger::append::{self, Locked};
use crate::ledger::{Draft, Writer, draft};
use sqlx::PgConnection;
use statusledger_verify::json::{Object, Value};
use statusledger_verify::time::Timestamp;
use std::collections::HashMap;
use time::OffsetDateTime;

/// What has a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// An app, as far as it is visible.
    App,
    /// A version line of an app: one platform, one version.
    Version,
    /// A phased release of a version.
    PhasedRelease,
    /// A build.
    Build,
    /// A build, as internal testers have it.
    BetaInternal,
    /// A build, as external testers have it.
    BetaExternal,
    /// The beta review of a build.
    BetaReview,
    /// The upload of a build.
    BuildUpload,
    /// A submission to review.
    ReviewSubmission,
    /// A thing that was submitted.
    ReviewItem,
    /// An app's information (name, categories, ratings).
    AppInfo,
    /// An in-app purchase.
    InAppPurchase,
    /// An auto-renewable subscription.
    Subscription,
    /// An in-app event.
    AppEvent,
    /// Where an app can be had.
    Availability,
    /// A release on a track.
    Release,
    /// How far a release on a track is rolled out.
    Rollout,
}

/// Every kind, with its name in types and rows.
pub const KINDS: [(Kind, &str); 17] = [
    (Kind::App, "app"),
    (Kind::Version, "version"),
    (Kind::PhasedRelease, "phased_release"),
    (Kind::Build, "build"),
    (Kind::BetaInternal, "beta_internal"),
    (Kind::BetaExternal, "beta_external"),
    (Kind::BetaReview, "beta_review"),
    (Kind::BuildUpload, "build_upload"),
    (Kind::ReviewSubmission, "review_submission"),
    (Kind::ReviewItem, "review_item"),
    (Kind::AppInfo, "app_info"),
    (Kind::InAppPurchase, "in_app_purchase"),
    (Kind::Subscription, "subscription"),
    (Kind::AppEvent, "app_event"),
    (Kind::Availability, "availability"),
    (Kind::Release, "release"),
    (Kind::Rollout, "rollout"),
];

impl Kind {
    /// Its name in types and rows.
    #[must_use]
    pub const fn name(self) -> &'static str {
        KINDS[self as usize].1
    }

    /// The kind of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        KINDS.iter().find(|(_, n)| *n == name).map(|(kind, _)| *kind)
    }
}

/// What a source said about a subject.
#[derive(Clone, Debug)]
pub struct Observation {
    /// What it is.
    pub kind: Kind,
    /// The store's own id of it.
    pub key: String,
    /// The app: bundle id or package name.
    pub app: String,
    /// The app's id in the store, by which its polls are named: Apple's number, Google's package name.
    pub scope: String,
    /// What a person needs to know it by (platform, version, track, …), and what moves without being a transition
    /// (the day of a phased release).
    pub description: Object,
    /// The state, as the store spells it.
    pub state: String,
    /// What else about it is a status: a change of one of these members is a transition as well. Empty for most.
    pub facts: Object,
    /// When it came to this state, where the store says that.
    pub store_at: Option<OffsetDateTime>,
}

/// Observations that were not recorded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database.
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    /// The entries.
    #[error(transparent)]
    Append(#[from] append::Error),
    /// An entry that cannot be one.
    #[error(transparent)]
    Draft(#[from] draft::Error),
    /// A time that cannot be said.
    #[error("the time of an observation is out of range")]
    Time,
}

/// What came of a sweep's observations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Subjects seen for the first time.
    pub first_seen: usize,
    /// Subjects whose state changed.
    pub transitions: usize,
}

struct Known {
    state: String,
    last_seen_at: OffsetDateTime,
}

async fn known(
    tx: &mut PgConnection,
    workspace: WorkspaceId,
    source: SourceId,
) -> Result<HashMap<(String, String), Known>, sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT kind, subject_key, state, last_seen_at FROM subjects WHERE workspace_id = $1 AND source_id = $2",
        workspace.uuid(),
        source.uuid()
    )
    .fetch_all(tx)
    .await?;
    Ok(rows
        .into_iter()
        .map(|r| ((r.kind, r.subject_key), Known { state: r.state, last_seen_at: r.last_seen_at }))
        .collect())
}

/// Records what `source` said at `at`. Entries, the subjects' new states and the deliveries commit together.
///
/// # Errors
/// If the database does not confirm; then nothing, or (only where the commit's answer was lost) all of it is
/// recorded, and the next sweep finds out which.
pub async fn record(
    writer: &Writer,
    workspace: WorkspaceId,
    source: SourceId,
    observations: &[Observation],
    at: OffsetDateTime,
) -> Result<News, Error> {
    if observations.is_empty() {
        return Ok(News::default());
    }
    let mut tx = writer.database().workspace(workspace).await?;
    let before = known(&mut tx, workspace, source).await?;
    let news = observations.iter().any(|o| is_news(&before, o));
    if !news {
        touch(&mut tx, workspace, source, observations, at).await?;
        tx.commit().await?;
        return Ok(News::default());
    }
    drop(tx);
    // Read again under the head's lock: another node may have seen the same.
    let mut locked = writer.lock(workspace).await?;
    let before = known(&mut locked, workspace, source).await?;
    let mut changed = Vec::new();
    let mut drafts = Vec::new();
    let mut news = News::default();
    let mut seen = std::collections::HashSet::new();
    for observation in observations {
        // A page that repeats says nothing new.
        if !seen.insert((observation.kind, &observation.key)) || !is_news(&before, observation) {
            continue;
        }
        let known = before.get(&(observation.kind.name().to_owned(), observation.key.clone()));
        match known {
            Some(_) => news.transitions += 1,
            None => news.first_seen += 1,
        }
        drafts.push(draft(source, observation, known, at)?);
        changed.push(observation);
    }
    let recorded = locked.append(&drafts).await?;
    for (observation, entry) in changed.iter().zip(&recorded) {
        upsert(&mut locked, source, observation, entry.seq, at).await?;
    }
    touch(&mut locked, workspace, source, observations, at).await?;
    locked.commit().await?;
    Ok(news)
}

fn is_news(before: &HashMap<(String, String), Known>, observation: &Observation) -> bool {
    before
        .get(&(observation.kind.name().to_owned(), observation.key.clone()))
        .is_none_or(|known| known.state != observation.state)
}

fn timestamp(at: OffsetDateTime) -> Result<Value, Error> {
    let micros = i64::try_from(at.unix_timestamp_nanos() / 1000).map_err(|_| Error::Time)?;
    Ok(Value::String(Timestamp::from_unix_micros(micros).ok_or(Error::Time)?.to_string()))
}

fn draft(
    source: SourceId,
    observation: &Observation,
    known: Option<&Known>,
    at: OffsetDateTime,
) -> Result<Draft, Error> {
    let text = |s: &str| Value::String(s.to_owned());
    let mut subject = observation.description.clone();
    subject.insert("id".into(), text(&observation.key));
    subject.insert("kind".into(), text(observation.kind.name()));
    let mut data = Object::default();
    data.insert("app".into(), text(&observation.app));
    data.insert("seen_at".into(), timestamp(at)?);
    data.insert("source".into(), text(&source.to_string()));
    data.insert("subject".into(), Value::Object(subject));
    data.insert("to".into(), text(&observation.state));
    data.insert("via".into(), text("poll"));
    let kind = match known {
        Some(known) => {
            data.insert("from".into(), text(&known.state));
            data.insert("last_seen_before_at".into(), timestamp(known.last_seen_at)?);
            format!("store.{}.transitioned", observation.kind.name())
        }
        None => format!("store.{}.first_seen", observation.kind.name()),
    };
    Ok(Draft::new(kind, data)?.app(observation.app.clone()).source(source))
}

async fn upsert(
    locked: &mut Locked,
    source: SourceId,
    observation: &Observation,
    seq: u64,
    at: OffsetDateTime,
) -> Result<(), Error> {
    let description: serde_json::Value =
        serde_json::from_str(&Value::Object(observation.description.clone()).canonical())
            .map_err(|e| sqlx::Error::Protocol(e.to_string()))?;
    let workspace = locked.workspace();
    sqlx::query!(
        "INSERT INTO subjects (workspace_id, source_id, kind, subject_key, app, description, state, state_since,
                               first_seen_at, last_seen_at, seq)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8, $8, $9)
         ON CONFLICT (workspace_id, source_id, kind, subject_key) DO UPDATE
            SET app = excluded.app, description = excluded.description, state = excluded.state,
                state_since = excluded.state_since, last_seen_at = excluded.last_seen_at, seq = excluded.seq",
        workspace.uuid(),
        source.uuid(),
        observation.kind.name(),
        observation.key,
        observation.app,
        description,
        observation.state,
        at,
        seq as i64
    )
    .execute(&mut ***locked)
    .await?;
    Ok(())
}

async fn touch(
    tx: &mut PgConnection,
    workspace: WorkspaceId,
    source: SourceId,
    observations: &[Observation],
    at: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    let kinds: Vec<&str> = observations.iter().map(|o| o.kind.name()).collect();
    let keys: Vec<&str> = observations.iter().map(|o| o.key.as_str()).collect();
    let states: Vec<&str> = observations.iter().map(|o| o.state.as_str()).collect();
    // Only where the state is still the one that was seen: an older answer does not date a newer state.
    sqlx::query!(
        "UPDATE subjects s SET last_seen_at = GREATEST(s.last_seen_at, $6)
           FROM unnest($3::text[], $4::text[], $5::text[]) AS u (kind, subject_key, state)
          WHERE s.workspace_id = $1 AND s.source_id = $2 AND s.kind = u.kind AND s.subject_key = u.subject_key
            AND s.state = u.state",
        workspace.uuid(),
        source.uuid(),
        &kinds as &[&str],
        &keys as &[&str],
        &states as &[&str],
        at
    )
    .execute(tx)
    .await?;
    Ok(())
}
