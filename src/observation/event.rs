//! What a store told by itself, compared with what polls have seen.
//!
//! An event is taken once, by its id. One that says what a poll has already recorded (the same step, within the
//! window in which it happened) adds nothing. One that says what polls missed is recorded; where the subject has moved
//! on since, it fills the record and turns no state back.

use super::known::{self, Known};
use super::{Error, Kind, Via, dated, text, timestamp};
use crate::id::{SourceId, WorkspaceId};
use crate::ledger::append::Locked;
use crate::ledger::{Draft, Writer};
use crate::source::look::Heat;
use crate::source::store::Store;
use statusledger_verify::json::{Object, Value};
use time::OffsetDateTime;

/// How far the store's clock may be from ours where an event is compared with a window.
const CLOCKS: time::Duration = time::Duration::seconds(10);

/// An event of a subject's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateEvent {
    /// The store's id of the event.
    pub id: String,
    /// What it is about.
    pub kind: Kind,
    /// The store's id of that.
    pub key: String,
    /// The state before, where the store says it.
    pub from: Option<String>,
    /// The state.
    pub to: String,
    /// When, by the store's clock, where it says that.
    pub at: Option<OffsetDateTime>,
}

/// Whose event it is, and how it came.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    /// The workspace.
    pub workspace: WorkspaceId,
    /// The source.
    pub source: SourceId,
    /// The store.
    pub store: Store,
    /// Told at once, or read afterwards.
    pub via: Via,
    /// When it came.
    pub received_at: OffsetDateTime,
    /// By what it is believed.
    pub under: Under,
}

/// By what an event is believed: the SHA-256 of a secret of the source's, as it is kept. What is believed by a secret that
/// the source has no longer is not recorded.
#[derive(Clone, Copy, Debug)]
pub enum Under {
    /// It came signed with the webhook secret.
    WebhookSecret([u8; 32]),
    /// It was read with the store's key.
    Key([u8; 32]),
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was taken before.
    Repeated,
    /// A poll has recorded the same, as this entry.
    Known(u64),
    /// It is this entry, and the subject's state is now the event's.
    Moved(u64),
    /// It is this entry; the subject had moved on before it came.
    Filled(u64),
}

/// Records an event. It is durable when this returns.
///
/// # Errors
/// If the database does not confirm.
pub async fn record(writer: &Writer, told: &Told, event: &StateEvent) -> Result<Outcome, Error> {
    // One that is dated as it cannot be is taken for undated: what it says of the state is no less true.
    let event = &StateEvent { at: dated(event.at), ..event.clone() };
    let mut locked = writer.lock(told.workspace).await?;
    may_tell(&mut locked, told).await?;
    if !take(&mut locked, told, &event.id).await? {
        return Ok(Outcome::Repeated);
    }
    let subjects = [(event.kind, event.key.as_str())];
    let known =
        known::read(&mut locked, told.workspace, told.source, &subjects, &[]).await?.into_values().next();
    // An event of the future is the store's clock, not the state's.
    let at = event.at.unwrap_or(told.received_at).min(told.received_at);
    if let Some(seq) = same(&mut locked, told, event, at).await? {
        settle(&mut locked, told, &event.id, seq).await?;
        locked.commit().await?;
        return Ok(Outcome::Known(seq as u64));
    }
    let moved_on = known.as_ref().is_some_and(|known| moved_on(known, event, at));
    let draft = draft(told, event, known.as_ref(), moved_on)?;
    let recorded = locked.append(&[draft]).await?;
    let seq = recorded.first().map_or(0, |entry| entry.seq as i64);
    transition(&mut locked, told, event, known.as_ref(), seq, at, moved_on).await?;
    if !moved_on {
        advance(&mut locked, told, event, at, seq).await?;
        follow(&mut locked, told, event, at).await?;
    }
    settle(&mut locked, told, &event.id, seq).await?;
    locked.commit().await?;
    Ok(if moved_on { Outcome::Filled(seq as u64) } else { Outcome::Moved(seq as u64) })
}

/// Records that the store told something that is no subject's state.
///
/// # Errors
/// If the database does not confirm.
pub async fn record_notice(
    writer: &Writer,
    told: &Told,
    id: &str,
    event_type: &str,
    data: Object,
) -> Result<Outcome, Error> {
    let mut locked = writer.lock(told.workspace).await?;
    may_tell(&mut locked, told).await?;
    if !take(&mut locked, told, id).await? {
        return Ok(Outcome::Repeated);
    }
    let mut data = data;
    data.insert("event_id".into(), text(id));
    data.insert("event_type".into(), text(event_type));
    data.insert("seen_at".into(), timestamp(told.received_at)?);
    data.insert("source".into(), text(&told.source.to_string()));
    data.insert("via".into(), text(told.via.name()));
    let recorded = locked.append(&[Draft::new("store.notice.received", data)?.source(told.source)]).await?;
    let seq = recorded.first().map_or(0, |entry| entry.seq as i64);
    settle(&mut locked, told, id, seq).await?;
    locked.commit().await?;
    Ok(Outcome::Moved(seq as u64))
}

/// That the source is still there, and what was verified or read with its secret was so with the one that it has. Both
/// change under the head's lock: nothing is taken after the entry that says so.
async fn may_tell(locked: &mut Locked, told: &Told) -> Result<(), Error> {
    let (webhook_secret, key) = match told.under {
        Under::WebhookSecret(hash) => (Some(hash), None),
        Under::Key(hash) => (None, Some(hash)),
    };
    let may = sqlx::query_scalar!(
        r#"SELECT true AS "may!" FROM sources
            WHERE workspace_id = $1 AND source_id = $2 AND deleted_at IS NULL
              AND (sha256(webhook_secret) = $3 OR sha256(secret) = $4)"#,
        told.workspace.uuid(),
        told.source.uuid(),
        webhook_secret.as_ref().map(|hash| &hash[..]),
        key.as_ref().map(|hash| &hash[..])
    )
    .fetch_optional(&mut ***locked)
    .await?;
    may.map(drop).ok_or(Error::Gone)
}

async fn take(locked: &mut Locked, told: &Told, id: &str) -> Result<bool, Error> {
    let taken = sqlx::query!(
        "INSERT INTO store_events (workspace_id, source_id, event_id) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        told.workspace.uuid(),
        told.source.uuid(),
        id
    )
    .execute(&mut ***locked)
    .await?;
    Ok(taken.rows_affected() == 1)
}

async fn settle(locked: &mut Locked, told: &Told, id: &str, seq: i64) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE store_events SET seq = $4 WHERE workspace_id = $1 AND source_id = $2 AND event_id = $3",
        told.workspace.uuid(),
        told.source.uuid(),
        id,
        seq
    )
    .execute(&mut ***locked)
    .await?;
    Ok(())
}

/// Whether the subject had gone on when the event happened, at `at` by the store's clock: then its state is not the
/// event's. A late or repeated event turns no state back.
fn moved_on(known: &Known, event: &StateEvent, at: OffsetDateTime) -> bool {
    // Of two in one millisecond, that follows which leaves where the other led to.
    let leaves = event.from.as_ref() == Some(&known.state);
    if known.state_store_at.is_some_and(|told| at < told || (at == told && !leaves)) {
        return true;
    }
    if at > known.last_seen_at + CLOCKS {
        return false;
    }
    // By the store's own clock it follows the event that brought the state. A sight of that about then denies nothing.
    if known.state_store_at.is_some() && at + CLOCKS > known.last_seen_at {
        return false;
    }
    match &event.from {
        // It leaves the very state that is known. An answer that a poll got may be older than it looks.
        Some(from) if *from == known.state => at + CLOCKS < known.state_since,
        // It leaves a state that was not seen. If it is no older than the one that is known, polls missed a step.
        Some(_) => at <= known.last_seen_at || at <= known.state_since + CLOCKS,
        None => at <= known.last_seen_at || event.to == known.state,
    }
}

/// The entry of a poll that recorded this step, if the event falls into the window in which it happened. Each entry
/// stands for one event: a second rejection is a second transition.
async fn same(
    locked: &mut Locked,
    told: &Told,
    event: &StateEvent,
    at: OffsetDateTime,
) -> Result<Option<i64>, Error> {
    Ok(sqlx::query_scalar!(
        "UPDATE transitions t SET event_id = $8
          WHERE t.workspace_id = $1 AND t.source_id = $2 AND t.kind = $3 AND t.subject_key = $4
            AND t.seq = (SELECT seq FROM transitions
                          WHERE workspace_id = $1 AND source_id = $2 AND kind = $3 AND subject_key = $4
                            AND event_id IS NULL AND to_state = $5 AND ($6::text IS NULL OR from_state = $6)
                            AND (after_at IS NULL OR after_at - $9::float8 * interval '1 second' <= $7)
                            AND $7 <= seen_at + $9::float8 * interval '1 second'
                          ORDER BY seq LIMIT 1)
         RETURNING t.seq",
        told.workspace.uuid(),
        told.source.uuid(),
        event.kind.name(),
        event.key,
        event.to,
        event.from,
        at,
        event.id,
        CLOCKS.as_seconds_f64()
    )
    .fetch_optional(&mut ***locked)
    .await?)
}

fn draft(told: &Told, event: &StateEvent, known: Option<&Known>, moved_on: bool) -> Result<Draft, Error> {
    let mut subject = known.map_or_else(Object::default, |k| k.subject(event.kind, &event.key));
    subject.insert("id".into(), text(&event.key));
    subject.insert("kind".into(), text(event.kind.name()));
    let mut data = Object::default();
    data.insert("event_id".into(), text(&event.id));
    data.insert("seen_at".into(), timestamp(told.received_at)?);
    data.insert("source".into(), text(&told.source.to_string()));
    data.insert("subject".into(), Value::Object(subject));
    data.insert("to".into(), text(&event.to));
    data.insert("via".into(), text(told.via.name()));
    if let Some(at) = event.at {
        data.insert("store_at".into(), timestamp(at)?);
    }
    if !told.store.knows(event.kind, &event.to) {
        data.insert("unknown".into(), Value::Bool(true));
    }
    match (known, moved_on) {
        // What happened before the state that is known: between which sights is not known, only what the store says.
        (Some(_), true) => {
            data.insert("late".into(), Value::Bool(true));
            if let Some(from) = &event.from {
                data.insert("from".into(), text(from));
            }
        }
        (Some(known), false) => {
            data.insert("from".into(), text(&known.state));
            data.insert("last_seen_before_at".into(), timestamp(known.last_seen_at)?);
            if let Some(from) = event.from.as_ref().filter(|from| **from != known.state) {
                data.insert("store_from".into(), text(from));
            }
        }
        (None, _) => {
            if let Some(from) = &event.from {
                data.insert("from".into(), text(from));
            }
        }
    }
    let app = known.map(|k| k.app.clone()).filter(|app| !app.is_empty());
    if let Some(app) = &app {
        data.insert("app".into(), text(app));
    }
    let kind = format!("store.{}.transitioned", event.kind.name());
    let draft = Draft::new(kind, data)?.source(told.source);
    Ok(match app {
        Some(app) => draft.app(app),
        None => draft,
    })
}

async fn transition(
    locked: &mut Locked,
    told: &Told,
    event: &StateEvent,
    known: Option<&Known>,
    seq: i64,
    at: OffsetDateTime,
    moved_on: bool,
) -> Result<(), Error> {
    let from = match known {
        Some(known) if !moved_on => Some(known.state.clone()),
        _ => event.from.clone(),
    };
    let after = if moved_on { Some(at) } else { known.map(|k| k.last_seen_at) };
    sqlx::query!(
        "INSERT INTO transitions (workspace_id, source_id, kind, subject_key, seq, from_state, to_state, after_at,
                                  seen_at, event_id)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        told.workspace.uuid(),
        told.source.uuid(),
        event.kind.name(),
        event.key,
        seq,
        from,
        event.to,
        after,
        told.received_at,
        event.id
    )
    .execute(&mut ***locked)
    .await?;
    Ok(())
}

/// Makes the event's state the subject's. A subject that was never seen is known by its id alone until it is.
async fn advance(
    locked: &mut Locked,
    told: &Told,
    event: &StateEvent,
    at: OffsetDateTime,
    seq: i64,
) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO subjects AS s (workspace_id, source_id, kind, subject_key, app, description, state, previous_state,
                                    state_since, first_seen_at, last_seen_at, state_store_at, hot, seq)
         VALUES ($1, $2, $3, $4, '', '{}', $5, $6, $7, $7, $7, $7, $8, $9)
         ON CONFLICT (workspace_id, source_id, kind, subject_key) DO UPDATE
            SET previous_state = CASE WHEN s.state = excluded.state THEN s.previous_state ELSE s.state END,
                state = excluded.state, state_since = excluded.state_since,
                last_seen_at = GREATEST(s.last_seen_at, excluded.last_seen_at),
                state_store_at = excluded.state_store_at, hot = excluded.hot, seq = excluded.seq, pending_state = NULL,
                pending_since = NULL, missing = 0, gone_at = NULL",
        told.workspace.uuid(),
        told.source.uuid(),
        event.kind.name(),
        event.key,
        event.to,
        event.from,
        at,
        told.store.heat(event.kind, &event.to) == Heat::Hot,
        seq
    )
    .execute(&mut ***locked)
    .await?;
    Ok(())
}

/// Goes on from a state by the events that leave it and came before the one that led to it: they are entries already.
async fn follow(
    locked: &mut Locked,
    told: &Told,
    event: &StateEvent,
    at: OffsetDateTime,
) -> Result<(), Error> {
    let (mut event, mut at) = (event.clone(), at);
    let mut followed: Vec<i64> = Vec::new();
    // What fills the record is after the moment that it tells itself, by the store's clock.
    while let Some(next) = sqlx::query!(
        r#"SELECT seq, to_state, after_at AS "at!" FROM transitions
            WHERE workspace_id = $1 AND source_id = $2 AND kind = $3 AND subject_key = $4
              AND event_id IS NOT NULL AND from_state = $5 AND after_at >= $6 AND seq <> ALL($7)
            ORDER BY after_at, seq LIMIT 1"#,
        told.workspace.uuid(),
        told.source.uuid(),
        event.kind.name(),
        event.key,
        event.to,
        at,
        &followed
    )
    .fetch_optional(&mut ***locked)
    .await?
    {
        followed.push(next.seq);
        (event.from, event.to, at) = (Some(event.to), next.to_state, next.at);
        advance(locked, told, &event, at, next.seq).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    /// A subject that was seen as IN_REVIEW from 12:00 to 12:10 by our clock.
    fn known() -> Known {
        Known {
            app: "com.example".into(),
            scope: "1".into(),
            description: serde_json::json!({}),
            state: "IN_REVIEW".into(),
            facts: serde_json::json!({}),
            previous_state: Some("WAITING_FOR_REVIEW".into()),
            pending_state: None,
            pending_since: None,
            state_since: datetime!(2026-01-01 12:00 UTC),
            last_seen_at: datetime!(2026-01-01 12:10 UTC),
            state_store_at: None,
            missing: 0,
            gone: false,
        }
    }

    fn says(from: Option<&str>, to: &str, at: OffsetDateTime) -> (StateEvent, OffsetDateTime) {
        let event = StateEvent {
            id: "e".into(),
            kind: Kind::Version,
            key: "v".into(),
            from: from.map(Into::into),
            to: to.into(),
            at: Some(at),
        };
        (event, at)
    }

    fn had_moved_on(known: &Known, (event, at): (StateEvent, OffsetDateTime)) -> bool {
        moved_on(known, &event, at)
    }

    #[test]
    fn an_event_after_the_last_sight_moves_the_state_whatever_it_says_was_before() {
        let at = datetime!(2026-01-01 12:11 UTC);
        for from in [Some("IN_REVIEW"), Some("WAITING_FOR_REVIEW"), None] {
            assert!(!had_moved_on(&known(), says(from, "REJECTED", at)), "{from:?}");
        }
        // A second rejection, of which the resubmission between was missed.
        let rejected = Known { state: "REJECTED".into(), ..known() };
        assert!(!had_moved_on(&rejected, says(Some("IN_REVIEW"), "REJECTED", at)));
    }

    #[test]
    fn an_event_from_before_the_state_that_is_known_turns_nothing_back() {
        let before = datetime!(2026-01-01 11:30 UTC);
        for from in [Some("IN_REVIEW"), Some("READY_FOR_REVIEW"), None] {
            assert!(had_moved_on(&known(), says(from, "WAITING_FOR_REVIEW", before)), "{from:?}");
        }
        let within = datetime!(2026-01-01 12:05 UTC);
        assert!(had_moved_on(&known(), says(Some("READY_FOR_REVIEW"), "WAITING_FOR_REVIEW", within)));
        assert!(had_moved_on(&known(), says(None, "WAITING_FOR_REVIEW", within)));
    }

    #[test]
    fn a_step_that_polls_missed_is_none_of_before_because_it_was_told_soon_after_a_sight() {
        let soon = datetime!(2026-01-01 12:10:03 UTC);
        assert!(!had_moved_on(&known(), says(Some("WAITING_FOR_REVIEW"), "REJECTED", soon)));
        let fresh = Known { state_since: datetime!(2026-01-01 12:09:57 UTC), ..known() };
        assert!(had_moved_on(&fresh, says(Some("WAITING_FOR_REVIEW"), "REJECTED", soon)));
        // Where the state was told itself, the store's clock decides.
        let told = Known { state_store_at: Some(datetime!(2026-01-01 12:09:57 UTC)), ..fresh };
        assert!(!had_moved_on(&told, says(Some("WAITING_FOR_REVIEW"), "REJECTED", soon)));
        assert!(!had_moved_on(&told, says(None, "REJECTED", soon)));
    }

    #[test]
    fn an_event_that_leaves_the_known_state_is_believed_over_an_answer_that_may_have_been_old() {
        let within = datetime!(2026-01-01 12:05 UTC);
        assert!(!had_moved_on(&known(), says(Some("IN_REVIEW"), "REJECTED", within)));
    }

    #[test]
    fn events_that_come_in_the_wrong_order_are_told_apart_by_the_stores_clock() {
        let told = datetime!(2026-01-01 12:20 UTC);
        let known = Known { state_store_at: Some(told), state_since: told, last_seen_at: told, ..known() };
        let earlier = datetime!(2026-01-01 12:19:59 UTC);
        assert!(had_moved_on(&known, says(Some("WAITING_FOR_REVIEW"), "IN_REVIEW", earlier)));
        assert!(had_moved_on(&known, says(Some("WAITING_FOR_REVIEW"), "IN_REVIEW", told)), "told before");
        assert!(!had_moved_on(&known, says(Some("IN_REVIEW"), "REJECTED", told)), "at once after");
        let later = datetime!(2026-01-01 12:20:01 UTC);
        assert!(!had_moved_on(&known, says(Some("IN_REVIEW"), "REJECTED", later)));
    }
}
