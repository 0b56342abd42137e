//! Observations: what a source said about its subjects, and whether that is news.
//!
//! An observation that differs from the subject's last known state is a transition, recorded together with the new
//! state or not at all ([`record`]). The first sight of a subject is no transition. What was not said changes nothing:
//! a subject that is missing from an answer stays as it was last seen, until its absence is confirmed. What a store
//! tells by itself is compared with what polls have seen ([`event`]).

pub mod event;
mod known;
pub mod record;

use crate::id::SourceId;
use crate::ledger::append::{self, Locked};
use crate::ledger::draft;
use statusledger_verify::json::{Object, Value};
use statusledger_verify::time::Timestamp;
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

/// How an observation came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// The store was asked.
    Poll,
    /// The store told.
    Webhook,
    /// The store's list of what it has told was read afterwards.
    Backfill,
}

impl Via {
    /// Its name in entries.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Poll => "poll",
            Self::Webhook => "webhook",
            Self::Backfill => "backfill",
        }
    }
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
    /// The source was deleted, or what it said came under a secret that is no longer its own.
    #[error("the source is no longer there")]
    Gone,
}

impl Error {
    /// Whether it is about what was said: the same will not be recorded the next time either.
    #[must_use]
    pub fn is_of_what_was_said(&self) -> bool {
        match self {
            Self::Draft(_) | Self::Time => true,
            Self::Sql(e) => refuses_data(e),
            Self::Append(append::Error::Sql(e)) => refuses_data(e),
            Self::Append(_) | Self::Gone => false,
        }
    }
}

/// Whether the database refuses a value (classes 22, 23 and 54 of its codes), and not the moment.
fn refuses_data(e: &sqlx::Error) -> bool {
    let code = e.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| ["22", "23", "54"].iter().any(|class| code.starts_with(class)))
}

/// What came of a look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Subjects seen for the first time.
    pub first_seen: usize,
    /// Subjects whose state changed.
    pub transitions: usize,
    /// Observations that no entry or row can hold, and that were left out.
    pub left_out: usize,
    /// Subjects whose state went back to the one before, or that were missing from complete listings: to be asked for
    /// by themselves before it is believed.
    pub doubtful: Vec<Doubt>,
}

/// A subject of which an answer said what needs a second one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// What it is.
    pub kind: Kind,
    /// The store's id of it.
    pub key: String,
    /// Its app's id in the store.
    pub scope: String,
    /// The app: bundle id or package name. Empty of what was only told of, and never seen.
    pub app: String,
    /// What it is known by (see [`Observation::description`]).
    pub description: Object,
    /// Whether it is its absence that is in doubt.
    pub absent: bool,
}

impl Doubt {
    /// A member of what it is known by, where that is text.
    #[must_use]
    pub fn said(&self, name: &str) -> Option<&str> {
        match self.description.get(name) {
            Some(Value::String(said)) => Some(said),
            _ => None,
        }
    }
}

fn text(s: &str) -> Value {
    Value::String(s.to_owned())
}

/// When App Store and Play Store were not there yet: what a store dates before is not dated.
const NO_STORE: OffsetDateTime = time::macros::datetime!(2008-01-01 0:00 UTC);

/// A time that a store says, where it is one that can have been and that can be said.
fn dated(at: Option<OffsetDateTime>) -> Option<OffsetDateTime> {
    at.filter(|at| *at >= NO_STORE && timestamp(*at).is_ok())
}

/// That a source is still there, under the head's lock, which its deletion takes as well.
async fn still_there(locked: &mut Locked, source: SourceId, under: [u8; 32]) -> Result<(), Error> {
    let workspace = locked.workspace().uuid();
    let there = sqlx::query_scalar!(
        r#"SELECT true AS "there!" FROM sources WHERE workspace_id = $1 AND source_id = $2
            AND deleted_at IS NULL AND sha256(secret) = $3"#,
        workspace,
        source.uuid(),
        &under
    )
    .fetch_optional(&mut ***locked)
    .await?;
    there.map(drop).ok_or(Error::Gone)
}

fn timestamp(at: OffsetDateTime) -> Result<Value, Error> {
    let micros = i64::try_from(at.unix_timestamp_nanos() / 1000).map_err(|_| Error::Time)?;
    Ok(Value::String(Timestamp::from_unix_micros(micros).ok_or(Error::Time)?.to_string()))
}

/// An object as the database keeps it.
fn row(object: &Object) -> Result<serde_json::Value, Error> {
    serde_json::from_str(&Value::Object(object.clone()).canonical())
        .map_err(|e| Error::Sql(sqlx::Error::Protocol(e.to_string())))
}
