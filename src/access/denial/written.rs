//! Writing what was noted: whose it is is looked up, and each ledger gets its own.

use super::gathered::{Counted, EACH, Gathered, Kind, Noted, Party, REMEMBERED, int, kind};
use super::{Denial, FailedSignIn};
use crate::access::context::Surface;
use crate::audit::{Act, Action, Actor, Outcome, Record};
use crate::database::Database;
use crate::id::{KeyId, SessionId, SourceId, UserId, WorkspaceId};
use crate::ledger::Writer;
use crate::ledger::append::Error as AppendError;
use statusledger_verify::json::Value;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::time::Duration;
use tokio::sync::watch;
use uuid::Uuid;

/// How long is gathered before writing.
const GATHER: Duration = Duration::from_secs(1);
/// Ledgers whose losses are remembered until they can be told; a node has no more that fail at once.
const LOSSES: usize = 4096;

/// What is to be written into one ledger.
#[derive(Default)]
struct Batch {
    kinds: HashMap<Kind, Counted<Denial>>,
    failed: Vec<Counted<FailedSignIn>>,
    /// What found no room, of this ledger's.
    dropped: u64,
    /// The workspaces that have ended whose refusals these are.
    ended: HashMap<Kind, WorkspaceId>,
}

impl Batch {
    fn add(&mut self, counted: Counted<Denial>) {
        self.add_as(kind(&counted.first), counted);
    }

    fn add_as(&mut self, kind: Kind, counted: Counted<Denial>) {
        let room = self.kinds.len() < EACH;
        match self.kinds.entry(kind) {
            Entry::Occupied(mut known) => known.get_mut().add(counted),
            Entry::Vacant(place) if room => drop(place.insert(counted)),
            Entry::Vacant(_) => self.dropped += counted.count,
        }
    }

    fn count(&self) -> u64 {
        let failed: u64 = self.failed.iter().map(|counted| counted.count).sum();
        self.kinds.values().map(|counted| counted.count).sum::<u64>() + failed
    }
}

/// Writes what is noted until the node stops and nobody notes any more.
pub async fn write_denials(
    writer: Writer,
    instance: WorkspaceId,
    mut noted: Noted,
    mut stop: watch::Receiver<bool>,
) {
    // What could not be written, by ledger, until it can be told there.
    let mut lost = HashMap::new();
    // Before anybody knocks: whoever makes sources up takes no place of one that there is.
    know_sources(writer.database(), &noted).await;
    loop {
        let mut last = noted.woken.recv().await.is_none();
        let until = tokio::time::Instant::now() + GATHER;
        while !last {
            tokio::select! {
                woken = noted.woken.recv() => last = woken.is_none(),
                () = tokio::time::sleep_until(until) => break,
                // Written now: the node waits for it.
                Ok(()) = stop.changed() => break,
            }
        }
        let gathered = noted.take();
        if gathered.unknown_left_out {
            know_sources(writer.database(), &noted).await;
        }
        write(&writer, instance, gathered, &noted, &mut lost).await;
        if last {
            return;
        }
    }
}

/// Remembers whose the sources are, the newest first.
async fn know_sources(database: &Database, noted: &Noted) {
    let known = sqlx::query!(
        r#"SELECT source_id AS "source: SourceId", workspace_id AS "workspace: WorkspaceId" FROM sources
            WHERE deleted_at IS NULL ORDER BY source_id DESC LIMIT $1"#,
        // Room is left for those that are made from now on.
        REMEMBERED as i64 / 2
    )
    .fetch_all(&database.worker)
    .await;
    match known {
        Ok(rows) => {
            noted.learn(|known| {
                known.all_sources(rows.iter().map(|row| (row.source, row.workspace)).collect())
            });
        }
        Err(e) => tracing::debug!(error = %e, "which sources there are is not known"),
    }
}

async fn write(
    writer: &Writer,
    instance: WorkspaceId,
    gathered: Gathered,
    noted: &Noted,
    lost: &mut HashMap<WorkspaceId, u64>,
) {
    if let Err(e) = mark_used(writer.database(), &gathered).await {
        tracing::debug!(error = %e, "when keys were last used is not written");
    }
    let found = match Found::of(writer.database(), &gathered).await {
        Ok(found) => found,
        Err(e) => {
            // Whose they are cannot be told, nor could they be written.
            tracing::warn!(error = %e, "whose refusals these are cannot be looked up");
            Found::default()
        }
    };
    noted.learn(|known| {
        found.keys.iter().for_each(|(key, workspace)| known.key(*key, *workspace));
        found.sources.iter().for_each(|(source, workspace)| known.source(*source, *workspace));
    });
    let mut batches = sorted(instance, gathered, &found);
    // The instance's last: what is of a workspace that has ended is told there.
    let mut own = batches.remove(&instance).unwrap_or_default();
    for (workspace, batch) in batches {
        let before = lost.remove(&workspace).unwrap_or_default() + batch.dropped;
        if batch.kinds.is_empty() {
            // Nothing that could tell it: with the next.
            lose(lost, workspace, before);
            continue;
        }
        match record(writer, workspace, &batch, before).await {
            Ok(()) => {}
            Err(Error::Append(AppendError::NoWorkspace(_))) => {
                // One entry for each who asks and reason, as of strangers: nobody shall fill it.
                own.dropped += before;
                for ((actor, _, reason, ..), counted) in batch.kinds {
                    let kind = (actor, None, reason, None, None);
                    own.ended.insert(kind.clone(), workspace);
                    own.add_as(kind, counted);
                }
            }
            Err(e) => unwritten(&e, workspace, &batch, before, lost),
        }
    }
    if own.kinds.is_empty() && own.failed.is_empty() {
        // Nothing that could tell it: with the next.
        return lose(lost, instance, own.dropped);
    }
    let before = lost.remove(&instance).unwrap_or_default() + own.dropped;
    if let Err(e) = record(writer, instance, &own, before).await {
        unwritten(&e, instance, &own, before, lost);
    }
}

fn unwritten(
    error: &Error,
    workspace: WorkspaceId,
    batch: &Batch,
    before: u64,
    lost: &mut HashMap<WorkspaceId, u64>,
) {
    let count = batch.count();
    tracing::error!(error = %error, %workspace, count, "refusals are not on the record");
    metrics::counter!("statusledger_denials_lost_total").increment(count);
    lose(lost, workspace, before + count);
}

/// Keeps a loss until it can be told.
fn lose(lost: &mut HashMap<WorkspaceId, u64>, workspace: WorkspaceId, count: u64) {
    if count > 0 && (lost.len() < LOSSES || lost.contains_key(&workspace)) {
        *lost.entry(workspace).or_default() += count;
    }
}

/// What was gathered, by the ledger that it belongs to.
fn sorted(instance: WorkspaceId, gathered: Gathered, found: &Found) -> HashMap<WorkspaceId, Batch> {
    let mut batches: HashMap<WorkspaceId, Batch> = HashMap::new();
    for (party, share) in gathered.shares {
        let of_the_party = match party {
            Party::Ledger(workspace) => workspace,
            // Its scopes were authentic, so its id is; a row it may have no more.
            Party::Actor(Actor::Key(key)) => found.keys.get(&key).copied().unwrap_or(instance),
            Party::Source(source) => found.sources.get(&source).copied().unwrap_or(instance),
            Party::Actor(_) | Party::Nobody => instance,
        };
        for mut counted in share.kinds.into_values() {
            let mut ledger = of_the_party;
            if let Some(Actor::Session(session)) = counted.first.actor {
                // The session is authentic, so its person is known, and where they are a member.
                let member = found.sessions.get(&session).map(|user| (*user, counted.first.asked));
                if let Some((user, asked)) = member {
                    counted.first.actor = Some(Actor::User(user));
                    ledger = asked.filter(|asked| found.members.contains(&(user, *asked))).unwrap_or(ledger);
                }
            }
            if counted.first.source.is_some() && ledger == instance {
                // There is no such source: nonsense is one aggregate, whatever it names.
                counted.first.source = None;
            }
            batches.entry(ledger).or_default().add(counted);
        }
        if share.dropped > 0 {
            batches.entry(of_the_party).or_default().dropped += share.dropped;
        }
    }
    let failed: Vec<_> = gathered.failed.into_values().collect();
    if !failed.is_empty() {
        batches.entry(instance).or_default().failed = failed;
    }
    batches
}

/// Whose what is.
#[derive(Default)]
struct Found {
    keys: HashMap<KeyId, WorkspaceId>,
    sources: HashMap<SourceId, WorkspaceId>,
    sessions: HashMap<SessionId, UserId>,
    members: HashSet<(UserId, WorkspaceId)>,
}

impl Found {
    async fn of(database: &Database, gathered: &Gathered) -> Result<Self, sqlx::Error> {
        let mut found = Self::default();
        let (mut keys, mut sources, mut sessions) = (Vec::new(), Vec::new(), Vec::new());
        let mut asked: HashMap<SessionId, Vec<Uuid>> = HashMap::new();
        for (party, share) in &gathered.shares {
            match party {
                Party::Actor(Actor::Key(key)) => keys.push(key.uuid()),
                Party::Actor(Actor::Session(session)) => {
                    sessions.push(session.uuid());
                    let of = share.kinds.values().filter_map(|counted| counted.first.asked);
                    asked.insert(*session, of.map(WorkspaceId::uuid).collect());
                }
                Party::Source(source) => sources.push(source.uuid()),
                Party::Ledger(_) | Party::Actor(_) | Party::Nobody => {}
            }
        }
        if !keys.is_empty() {
            let rows = sqlx::query!(
                r#"SELECT key_id AS "key: KeyId", workspace_id AS "workspace: WorkspaceId" FROM api_keys
                    WHERE key_id = ANY($1)"#,
                &keys
            )
            .fetch_all(&database.worker)
            .await?;
            found.keys = rows.into_iter().map(|row| (row.key, row.workspace)).collect();
        }
        if !sources.is_empty() {
            let rows = sqlx::query!(
                r#"SELECT source_id AS "source: SourceId", workspace_id AS "workspace: WorkspaceId" FROM sources
                    WHERE source_id = ANY($1) AND deleted_at IS NULL"#,
                &sources
            )
            .fetch_all(&database.worker)
            .await?;
            found.sources = rows.into_iter().map(|row| (row.source, row.workspace)).collect();
        }
        if !sessions.is_empty() {
            let rows = sqlx::query!(
                r#"SELECT session_id AS "session: SessionId", user_id AS "user: UserId" FROM sessions
                    WHERE session_id = ANY($1)"#,
                &sessions
            )
            .fetch_all(&database.worker)
            .await?;
            found.sessions = rows.into_iter().map(|row| (row.session, row.user)).collect();
            let (mut users, mut workspaces) = (Vec::new(), Vec::new());
            for (session, of) in asked {
                let Some(user) = found.sessions.get(&session) else { continue };
                users.extend(std::iter::repeat_n(user.uuid(), of.len()));
                workspaces.extend(of);
            }
            let rows = sqlx::query!(
                r#"SELECT m.user_id AS "user: UserId", m.workspace_id AS "workspace: WorkspaceId"
                     FROM members m JOIN unnest($1::uuid[], $2::uuid[]) AS w (user_id, workspace_id)
                       USING (user_id, workspace_id)"#,
                &users,
                &workspaces
            )
            .fetch_all(&database.worker)
            .await?;
            found.members = rows.into_iter().map(|row| (row.user, row.workspace)).collect();
        }
        Ok(found)
    }
}

async fn mark_used(database: &Database, gathered: &Gathered) -> Result<(), sqlx::Error> {
    if !gathered.keys.is_empty() {
        let keys: Vec<Uuid> = gathered.keys.iter().map(|key| key.uuid()).collect();
        sqlx::query!("UPDATE api_keys SET last_used_at = now() WHERE key_id = ANY($1)", &keys)
            .execute(&database.worker)
            .await?;
    }
    if !gathered.sessions.is_empty() {
        let sessions: Vec<Uuid> = gathered.sessions.iter().map(|session| session.uuid()).collect();
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
    Append(#[from] AppendError),
    #[error(transparent)]
    Draft(#[from] crate::ledger::draft::Error),
}

async fn record(writer: &Writer, workspace: WorkspaceId, batch: &Batch, before: u64) -> Result<(), Error> {
    let mut drafts = Vec::with_capacity(batch.kinds.len() + batch.failed.len());
    let mut lost = Some(before).filter(|before| *before > 0);
    let mut tell_lost = |record: Record<'_>| match lost.take() {
        Some(lost) => record.detail("not_recorded_before", int(lost)).draft(),
        None => record.draft(),
    };
    for (kind, counted) in &batch.kinds {
        let first = &counted.first;
        let surface = match first.actor {
            Some(Actor::User(_) | Actor::Session(_)) => Surface::Dashboard,
            _ => first.context.surface_of_key(),
        };
        let act = Act::new(first.actor.unwrap_or(Actor::Unknown), surface, first.context.clone());
        let mut record = act.of(Action::AccessDenied).outcome(Outcome::Denied, first.reason.name());
        let asked = counted.asked_first;
        if let Some(asked) = asked {
            record = record.target("workspace", asked);
        }
        if let Some(ended) = batch.ended.get(kind).filter(|ended| asked != Some(**ended)) {
            record = record.target("workspace", ended);
        }
        if let Some(source) = first.source {
            record = record.target("source", source);
        }
        record = match &kind.3 {
            Some(route) => record.detail("route", Value::String(route.clone())),
            None => record.detail("routes", counted.by_route()),
        };
        drafts.push(tell_lost(counted.details(record))?);
    }
    for counted in &batch.failed {
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
