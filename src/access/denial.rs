//! Refusals, on the record without a statement of the database before the answer.
//!
//! A refusal is put into a bounded queue and the answer goes out. A task gathers what comes within a second, counts
//! repeats (one who asks with, one route, one reason), and writes an `audit.access.denied` entry each: into the ledger
//! of the key's or the member's workspace, or, where nobody is known, into the instance's. What does not fit is counted
//! and told with the next entry. A crash loses the second that was being gathered.

use super::context::{RequestContext, Surface};
use super::session::Method;
use crate::audit::{Act, Action, Actor, Outcome, Record};
use crate::database::Database;
use crate::id::{KeyId, SessionId, WorkspaceId};
use crate::ledger::Writer;
use statusledger_verify::json::Value;
use statusledger_verify::time::Timestamp;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Refusals that may wait to be written; more are counted as dropped.
const QUEUE: usize = 4096;
/// How long is gathered before writing.
const GATHER: Duration = Duration::from_secs(1);
/// Different refusals in one batch; beyond that they are counted as dropped.
const KINDS: usize = 256;

/// Why a request was refused. Its name is stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// No credentials at all.
    NoCredentials,
    /// A key that this instance did not make, or whose text was changed.
    UnknownKey,
    /// A session that this instance did not begin.
    UnknownSession,
    /// A key or a session whose time is over.
    Expired,
    /// A key or a session that was ended, or a person who was.
    Revoked,
    /// A key whose scopes do not grant the route.
    Scope,
    /// A member whose role does not grant the route.
    Role,
    /// Another's workspace.
    OtherWorkspace,
    /// A workspace's key, where only the instance's will do.
    NotOfTheInstance,
    /// A change in a session without its CSRF token.
    Csrf,
    /// The workspace asks for a passkey.
    PasskeyRequired,
    /// Too many requests.
    RateLimited,
    /// A key, where only somebody who is signed in will do.
    NotAPerson,
    /// Somebody who may do this, but not so much of it: give more than they have, change who has more.
    Beyond,
    /// The database did not answer: not a refusal, and not recorded.
    Unanswered,
    /// Who reaches every workspace asked for one that does not exist: not a refusal either.
    Nothing,
}

impl Reason {
    /// Its name in entries.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoCredentials => "no_credentials",
            Self::UnknownKey => "unknown_key",
            Self::UnknownSession => "unknown_session",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Scope => "scope",
            Self::Role => "role",
            Self::OtherWorkspace => "other_workspace",
            Self::NotOfTheInstance => "not_of_the_instance",
            Self::Csrf => "csrf",
            Self::PasskeyRequired => "passkey_required",
            Self::RateLimited => "rate_limited",
            Self::NotAPerson => "not_a_person",
            Self::Beyond => "beyond",
            Self::Unanswered => "unanswered",
            Self::Nothing => "nothing",
        }
    }
}

/// A refusal.
#[derive(Clone, Debug)]
pub struct Denial {
    /// Who asked, where that is known.
    pub actor: Option<Actor>,
    /// Into whose ledger it belongs, where that is known.
    pub workspace: Option<WorkspaceId>,
    /// The method and the route.
    pub route: String,
    /// Why.
    pub reason: Reason,
    /// From where.
    pub context: RequestContext,
}

/// A sign-in that failed.
#[derive(Clone, Debug)]
pub struct FailedSignIn {
    /// How it was tried.
    pub method: Method,
    /// At which identity provider, by its id in the settings.
    pub provider: Option<String>,
    /// Why it failed: a stable name.
    pub reason: &'static str,
    /// From where.
    pub context: RequestContext,
}

#[derive(Debug)]
enum Note {
    Denied(Box<Denial>),
    Failed(Box<FailedSignIn>),
    Used(KeyId),
    Seen(SessionId),
}

/// Where refusals are noted, and that a key or a session was used. Never waits.
#[derive(Clone, Debug)]
pub struct Denials {
    notes: mpsc::Sender<Note>,
    dropped: Arc<AtomicU64>,
}

/// What the writing task takes.
#[derive(Debug)]
pub struct Noted {
    notes: mpsc::Receiver<Note>,
    dropped: Arc<AtomicU64>,
}

impl Denials {
    /// Both ends.
    #[must_use]
    pub fn new() -> (Self, Noted) {
        let (notes, noted) = mpsc::channel(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        (Self { notes, dropped: Arc::clone(&dropped) }, Noted { notes: noted, dropped })
    }

    /// Notes a refusal.
    pub fn note(&self, denial: Denial) {
        if matches!(denial.reason, Reason::Unanswered | Reason::Nothing) {
            return;
        }
        metrics::counter!("statusledger_requests_denied_total", "reason" => denial.reason.name())
            .increment(1);
        if self.notes.try_send(Note::Denied(Box::new(denial))).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Notes a sign-in that failed.
    pub fn failed(&self, failed: FailedSignIn) {
        metrics::counter!("statusledger_sign_ins_failed_total", "reason" => failed.reason).increment(1);
        if self.notes.try_send(Note::Failed(Box::new(failed))).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Notes that a key was used; nothing is lost if that is not written.
    pub(super) fn used(&self, key: KeyId) {
        let _ = self.notes.try_send(Note::Used(key));
    }

    /// Notes that a session was.
    pub(super) fn seen(&self, session: SessionId) {
        let _ = self.notes.try_send(Note::Seen(session));
    }
}

/// What is one entry: the same asked by the same, refused for the same.
type Kind = (Option<Actor>, Option<WorkspaceId>, String, Reason);

/// Likewise of sign-ins: one way of signing in, one reason. A flood is one entry a second, whoever sends it.
type FailedKind = (&'static str, Option<String>, &'static str);

struct Counted<T> {
    first: T,
    count: u64,
    first_at: Timestamp,
    last_at: Timestamp,
}

impl<T> Counted<T> {
    /// The same, with what each aggregate says.
    fn details<'a>(&self, record: Record<'a>) -> Record<'a> {
        record
            .detail("count", int(self.count))
            .detail("first_at", Value::String(self.first_at.to_string()))
            .detail("last_at", Value::String(self.last_at.to_string()))
    }
}

fn int(n: u64) -> Value {
    Value::Int(i64::try_from(n).unwrap_or(i64::MAX))
}

/// Counts what is there already, or takes the first of its kind while there is room.
fn count<K: std::hash::Hash + Eq, T>(into: &mut HashMap<K, Counted<T>>, kind: K, first: T) -> bool {
    let now = Timestamp::now();
    if let Some(counted) = into.get_mut(&kind) {
        counted.count += 1;
        counted.last_at = now;
    } else if into.len() < KINDS {
        into.insert(kind, Counted { first, count: 1, first_at: now, last_at: now });
    } else {
        return false;
    }
    true
}

#[derive(Default)]
struct Gathered {
    denied: HashMap<Kind, Counted<Denial>>,
    failed: HashMap<FailedKind, Counted<FailedSignIn>>,
    keys: HashSet<KeyId>,
    sessions: HashSet<SessionId>,
}

impl Gathered {
    /// Adds a note; false where it has no place.
    fn add(&mut self, note: Note) -> bool {
        match note {
            Note::Used(key) => drop(self.keys.insert(key)),
            Note::Seen(session) => drop(self.sessions.insert(session)),
            Note::Denied(denial) => {
                let kind = (denial.actor, denial.workspace, denial.route.clone(), denial.reason);
                return count(&mut self.denied, kind, *denial);
            }
            Note::Failed(failed) => {
                let kind = (failed.method.name(), failed.provider.clone(), failed.reason);
                return count(&mut self.failed, kind, *failed);
            }
        }
        true
    }
}

/// Writes what is noted until the node stops and nobody notes any more.
pub async fn write_denials(
    writer: Writer,
    instance: WorkspaceId,
    mut noted: Noted,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let Some(first) = noted.notes.recv().await else { return };
        let mut gathered = Gathered::default();
        gathered.add(first);
        let until = tokio::time::Instant::now() + GATHER;
        loop {
            tokio::select! {
                note = noted.notes.recv() => match note {
                    Some(note) => if !gathered.add(note) {
                        noted.dropped.fetch_add(1, Ordering::Relaxed);
                    },
                    None => break,
                },
                () = tokio::time::sleep_until(until) => break,
                // Written now: the node waits for it.
                Ok(()) = stop.changed() => break,
            }
        }
        write(&writer, instance, gathered, &noted.dropped).await;
    }
}

async fn write(writer: &Writer, instance: WorkspaceId, gathered: Gathered, dropped: &AtomicU64) {
    if let Err(e) = mark_used(writer.database(), &gathered).await {
        tracing::debug!(error = %e, "when keys were last used is not written");
    }
    let mut by_ledger: HashMap<WorkspaceId, Vec<Counted<Denial>>> = HashMap::new();
    for (_, counted) in gathered.denied {
        let ledger = match (counted.first.workspace, counted.first.actor) {
            (Some(workspace), _) => workspace,
            // Its scopes were authentic, so its id is; a row it may have no more.
            (None, Some(Actor::Key(key))) => {
                workspace_of(writer.database(), key).await.ok().flatten().unwrap_or(instance)
            }
            (None, _) => instance,
        };
        by_ledger.entry(ledger).or_default().push(counted);
    }
    let mut failed: Vec<_> = gathered.failed.into_values().collect();
    if !failed.is_empty() {
        by_ledger.entry(instance).or_default();
    }
    for (workspace, counted) in by_ledger {
        let failed = if workspace == instance { std::mem::take(&mut failed) } else { Vec::new() };
        let lost = dropped.swap(0, Ordering::Relaxed);
        let count: u64 =
            counted.iter().map(|c| c.count).sum::<u64>() + failed.iter().map(|c| c.count).sum::<u64>();
        if let Err(e) = record(writer, workspace, counted, failed, lost).await {
            tracing::error!(error = %e, count, "refusals are not on the record");
            metrics::counter!("statusledger_denials_lost_total").increment(count);
            dropped.fetch_add(lost + count, Ordering::Relaxed);
        }
    }
}

async fn workspace_of(database: &Database, key: KeyId) -> Result<Option<WorkspaceId>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT workspace_id AS "workspace: WorkspaceId" FROM api_keys WHERE key_id = $1"#,
        key.uuid()
    )
    .fetch_optional(&database.worker)
    .await
}

async fn mark_used(database: &Database, gathered: &Gathered) -> Result<(), sqlx::Error> {
    if !gathered.keys.is_empty() {
        let keys: Vec<uuid::Uuid> = gathered.keys.iter().map(|key| key.uuid()).collect();
        sqlx::query!("UPDATE api_keys SET last_used_at = now() WHERE key_id = ANY($1)", &keys)
            .execute(&database.worker)
            .await?;
    }
    if !gathered.sessions.is_empty() {
        let sessions: Vec<uuid::Uuid> = gathered.sessions.iter().map(|session| session.uuid()).collect();
        sqlx::query!("UPDATE sessions SET last_seen_at = now() WHERE session_id = ANY($1)", &sessions)
            .execute(&database.worker)
            .await?;
    }
    Ok(())
}

/// A refusal that could not be recorded.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Append(#[from] crate::ledger::append::Error),
    #[error(transparent)]
    Draft(#[from] crate::ledger::draft::Error),
}

async fn record(
    writer: &Writer,
    workspace: WorkspaceId,
    denied: Vec<Counted<Denial>>,
    failed: Vec<Counted<FailedSignIn>>,
    lost: u64,
) -> Result<(), Error> {
    let mut drafts = Vec::with_capacity(denied.len() + failed.len());
    let mut lost = Some(lost).filter(|lost| *lost > 0);
    let mut tell_lost = |record: Record<'_>| match lost.take() {
        Some(lost) => record.detail("not_recorded_before", int(lost)).draft(),
        None => record.draft(),
    };
    for counted in denied {
        let first = &counted.first;
        let surface = match first.actor {
            Some(Actor::User(_) | Actor::Session(_)) => Surface::Dashboard,
            _ => first.context.surface_of_key(),
        };
        let act = Act::new(first.actor.unwrap_or(Actor::Unknown), surface, first.context.clone());
        let record = act
            .of(Action::AccessDenied)
            .outcome(Outcome::Denied, first.reason.name())
            .detail("route", Value::String(first.route.clone()));
        drafts.push(tell_lost(counted.details(record))?);
    }
    for counted in failed {
        let first = &counted.first;
        let act = Act::new(Actor::Unknown, Surface::Dashboard, first.context.clone());
        let mut record = act
            .of(Action::SignInFailed)
            .outcome(Outcome::Failure, first.reason)
            .detail("method", Value::String(first.method.name().into()));
        if let Some(provider) = &first.provider {
            record = record.detail("provider", Value::String(provider.clone()));
        }
        drafts.push(tell_lost(counted.details(record))?);
    }
    let mut locked = writer.lock(workspace).await?;
    locked.append(&drafts).await?;
    locked.commit().await?;
    Ok(())
}
