//! What polls have seen, recorded.

use super::known::{self, Known, Subjects};
use super::{Doubt, Error, Kind, News, Observation, Via, dated, row, still_there, text, timestamp};
use crate::id::{SourceId, WorkspaceId};
use crate::ledger::append::Locked;
use crate::ledger::{Draft, Writer};
use crate::source::look::{Covered, Heat, Look};
use crate::source::store::Store;
use sqlx::PgConnection;
use statusledger_verify::json::{Object, Value};
use std::collections::{HashMap, HashSet};
use time::OffsetDateTime;

/// Rounds in a row in which a complete listing has to be without a subject before its absence is looked into.
const MISSING: i16 = 2;
/// The same where a subject has no address of its own and the listing has the last word.
const MISSING_FOR_GOOD: i16 = 4;

/// The longest key, app, scope and state that are kept, in bytes: a key has to fit a page of an index.
const MAX_NAME: usize = 1000;
/// The longest description that is kept, in bytes of canonical JSON. With [`MAX_FACTS`] and four names it leaves room in an
/// entry for what was known before.
const MAX_DESCRIPTION: usize = 12 << 10;
/// The longest facts that are kept, in bytes of canonical JSON.
const MAX_FACTS: usize = 32 << 10;

/// Whose observations these are, and when the store was asked for them: what changed since then is newer.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// The workspace.
    pub workspace: WorkspaceId,
    /// The source.
    pub source: SourceId,
    /// The store.
    pub store: Store,
    /// When the first request was sent.
    pub at: OffsetDateTime,
    /// Whether each subject was asked for by itself: such an answer is believed at once.
    pub direct: bool,
    /// The SHA-256 of the sealed key that it was asked with. Nothing is recorded where the source has another by then.
    pub under: [u8; 32],
}

/// What was missing in a round so far. Two of its listings may have one and the same old answer behind them: an absence
/// counts once a round.
#[derive(Debug, Default)]
pub struct Missed(HashSet<(Kind, String)>);

/// What an observation means.
#[derive(Clone, Debug, PartialEq)]
enum Verdict {
    /// As it was known.
    Same,
    /// Older than what is known.
    Stale,
    /// Back to the state before: believed when it is said again, or by the subject itself.
    Doubtful,
    /// Never seen before.
    FirstSeen,
    /// Seen again, after it was found gone.
    VisibleAgain,
    /// Another state, first seen then.
    Transition(OffsetDateTime),
}

fn judge(
    asked: &Asked,
    known: Option<&Known>,
    observation: &Observation,
    facts: &serde_json::Value,
) -> Verdict {
    let Some(known) = known else { return Verdict::FirstSeen };
    if asked.at < known.state_since {
        return Verdict::Stale;
    }
    if known.gone {
        return Verdict::VisibleAgain;
    }
    if known.state == observation.state {
        // What was only told of has no facts yet: the first are not others than before.
        let same = known.facts == *facts || !known.was_polled();
        return if same { Verdict::Same } else { Verdict::Transition(asked.at) };
    }
    let back = known.previous_state.as_deref() == Some(&observation.state);
    match (&known.pending_state, known.pending_since) {
        (Some(pending), Some(since)) if *pending == observation.state && since < asked.at => {
            Verdict::Transition(since)
        }
        _ if back && !asked.direct => Verdict::Doubtful,
        _ => Verdict::Transition(asked.at),
    }
}

/// Records a look. Entries, the subjects' new states and the deliveries commit together. `missed` is the round's.
///
/// # Errors
/// If the database does not confirm; then nothing, or (only where the commit's answer was lost) all of it is
/// recorded, and the next look finds out which.
pub async fn record(writer: &Writer, asked: &Asked, look: &Look, missed: &mut Missed) -> Result<News, Error> {
    // Of a page that repeats, the later word.
    let mut last: HashMap<(Kind, &str), &Observation> = HashMap::new();
    for observation in &look.observations {
        last.insert((observation.kind, &observation.key), observation);
    }
    let mut order: HashSet<(Kind, &str)> = HashSet::new();
    let mut observations = Vec::with_capacity(last.len());
    // What cannot be kept was seen all the same, and is not missing.
    let mut left_out: HashSet<(Kind, &str)> = HashSet::new();
    for observation in &look.observations {
        let key = (observation.kind, observation.key.as_str());
        if !order.insert(key) {
            continue;
        }
        let Some(observation) = last.get(&key) else { continue };
        if can_be_kept(observation) {
            observations.push((*observation, row(&observation.facts)?));
        } else {
            left_out.insert(key);
        }
    }
    let mut news = News { left_out: left_out.len(), ..News::default() };
    if observations.is_empty() && look.covered.is_empty() {
        return Ok(news);
    }
    let subjects: Vec<(Kind, &str)> = observations.iter().map(|(o, _)| (o.kind, o.key.as_str())).collect();
    let mut tx = writer.database().workspace(asked.workspace).await?;
    let before = known::read(&mut tx, asked.workspace, asked.source, &subjects, &look.covered).await?;
    let is_news = |before: &Subjects| {
        observations.iter().any(|(o, facts)| {
            !matches!(
                judge(asked, before.get(&(o.kind, o.key.clone())), o, facts),
                Verdict::Same | Verdict::Stale | Verdict::Doubtful
            )
        })
    };
    if !is_news(&before) {
        let seen = Seen { observations: &observations, left_out: &left_out, covered: &look.covered };
        news.doubtful = unremarkable(&mut tx, asked, &before, &seen, missed).await?;
        tx.commit().await?;
        return Ok(news);
    }
    drop(tx);
    // Read again under the head's lock: another node may have seen the same.
    let mut locked = writer.lock(asked.workspace).await?;
    still_there(&mut locked, asked.source, asked.under).await?;
    let before = known::read(&mut locked, asked.workspace, asked.source, &subjects, &look.covered).await?;
    let (mut drafts, mut changed) = (Vec::new(), Vec::new());
    for (observation, facts) in &observations {
        let known = before.get(&(observation.kind, observation.key.clone()));
        let verdict = judge(asked, known, observation, facts);
        if matches!(verdict, Verdict::Same | Verdict::Stale | Verdict::Doubtful) {
            continue;
        }
        // Together with what is known of it, it may be more than an entry holds.
        let Ok(draft) = draft(asked, observation, facts, known, &verdict) else {
            news.left_out += 1;
            continue;
        };
        match verdict {
            Verdict::FirstSeen => news.first_seen += 1,
            Verdict::Transition(_) => news.transitions += 1,
            _ => {}
        }
        drafts.push(draft);
        changed.push((*observation, facts, known, verdict));
    }
    let recorded = locked.append(&drafts).await?;
    let seqs: Vec<i64> = recorded.iter().map(|entry| entry.seq as i64).collect();
    write(&mut locked, asked, &changed, &seqs).await?;
    let seen = Seen { observations: &observations, left_out: &left_out, covered: &look.covered };
    news.doubtful = unremarkable(&mut locked, asked, &before, &seen, missed).await?;
    locked.commit().await?;
    Ok(news)
}

/// What a look saw.
struct Seen<'a> {
    observations: &'a [(&'a Observation, serde_json::Value)],
    /// What was there and cannot be kept.
    left_out: &'a HashSet<(Kind, &'a str)>,
    covered: &'a [Covered],
}

/// Whether rows and entries can hold an observation: no text of it has the character NUL, which the database takes in
/// none, and it is not so large that no entry holds it. Whoever reads a store's answers keeps them within that; this
/// is so that nothing that slips through keeps anything else from being recorded.
fn can_be_kept(observation: &Observation) -> bool {
    let Observation { key, app, scope, description, state, facts, .. } = observation;
    let names = [key, app, scope, state];
    names.iter().all(|name| name.len() <= MAX_NAME && !name.contains('\0'))
        && !has_nul(description)
        && !has_nul(facts)
        && Value::Object(description.clone()).canonical().len() <= MAX_DESCRIPTION
        && Value::Object(facts.clone()).canonical().len() <= MAX_FACTS
}

fn has_nul(object: &Object) -> bool {
    fn inside(value: &Value) -> bool {
        match value {
            Value::String(text) => text.contains('\0'),
            Value::Array(values) => values.iter().any(inside),
            Value::Object(object) => has_nul(object),
            _ => false,
        }
    }
    object.iter().any(|(name, value)| name.contains('\0') || inside(value))
}

/// The entry of an observation.
fn draft(
    asked: &Asked,
    observation: &Observation,
    facts: &serde_json::Value,
    known: Option<&Known>,
    verdict: &Verdict,
) -> Result<Draft, Error> {
    let mut subject = described(observation, known);
    subject.insert("id".into(), text(&observation.key));
    subject.insert("kind".into(), text(observation.kind.name()));
    let mut data = Object::default();
    data.insert("app".into(), text(&observation.app));
    data.insert("source".into(), text(&asked.source.to_string()));
    data.insert("subject".into(), Value::Object(subject));
    data.insert("to".into(), text(&observation.state));
    data.insert("via".into(), text(Via::Poll.name()));
    let seen_at = if let Verdict::Transition(seen_at) = verdict { *seen_at } else { asked.at };
    data.insert("seen_at".into(), timestamp(seen_at)?);
    if let Some(at) = dated(observation.store_at) {
        data.insert("store_at".into(), timestamp(at)?);
    }
    if !asked.store.knows(observation.kind, &observation.state) {
        data.insert("unknown".into(), Value::Bool(true));
    }
    if !observation.facts.is_empty() {
        data.insert("facts".into(), Value::Object(observation.facts.clone()));
    }
    if let Some(known) = known {
        data.insert("from".into(), text(&known.state));
        data.insert("last_seen_before_at".into(), timestamp(known.last_seen_at)?);
        let changed = changed(&known.facts, facts);
        if *verdict != Verdict::VisibleAgain && !changed.is_empty() {
            let names = changed.into_iter().map(|name| text(&name)).collect();
            data.insert("changed".into(), Value::Array(names));
        }
    }
    let what = match verdict {
        Verdict::FirstSeen => "first_seen",
        Verdict::VisibleAgain => "visible_again",
        _ => "transitioned",
    };
    let kind = format!("store.{}.{what}", observation.kind.name());
    Ok(Draft::new(kind, data)?.app(observation.app.clone()).source(asked.source))
}

fn described(observation: &Observation, known: Option<&Known>) -> Object {
    known.map_or_else(|| observation.description.clone(), |known| known.described(&observation.description))
}

/// The names of the facts that differ.
fn changed(before: &serde_json::Value, after: &serde_json::Value) -> Vec<String> {
    let empty = serde_json::Map::new();
    let (before, after) = (before.as_object().unwrap_or(&empty), after.as_object().unwrap_or(&empty));
    let names: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    names.into_iter().filter(|name| before.get(*name) != after.get(*name)).cloned().collect()
}

type Changed<'a> = (&'a Observation, &'a serde_json::Value, Option<&'a Known>, Verdict);

async fn write(
    locked: &mut Locked,
    asked: &Asked,
    changed: &[Changed<'_>],
    seqs: &[i64],
) -> Result<(), Error> {
    let column = |f: &dyn Fn(&Observation) -> String| changed.iter().map(|c| f(c.0)).collect::<Vec<_>>();
    let kinds = column(&|o| o.kind.name().to_owned());
    let keys = column(&|o| o.key.clone());
    let states = column(&|o| o.state.clone());
    let descriptions: Vec<_> = changed.iter().map(|c| row(&described(c.0, c.2))).collect::<Result<_, _>>()?;
    let facts: Vec<_> = changed.iter().map(|c| c.1.clone()).collect();
    let since = |c: &Changed<'_>| if let Verdict::Transition(at) = c.3 { at } else { asked.at };
    let seen: Vec<OffsetDateTime> = changed.iter().map(since).collect();
    let hot: Vec<bool> =
        changed.iter().map(|c| asked.store.heat(c.0.kind, &c.0.state) == Heat::Hot).collect();
    let workspace = locked.workspace().uuid();
    sqlx::query!(
        "INSERT INTO subjects AS s (workspace_id, source_id, kind, subject_key, app, scope, description, state, facts,
                                    state_since, first_seen_at, last_seen_at, hot, seq)
         SELECT $1, $2, u.kind, u.key, u.app, u.scope, u.description, u.state, u.facts, u.seen, u.seen, $12, u.hot, u.seq
           FROM unnest($3::text[], $4::text[], $5::text[], $6::text[], $7::jsonb[], $8::text[], $9::jsonb[],
                       $10::timestamptz[], $11::bool[], $13::int8[])
                AS u (kind, key, app, scope, description, state, facts, seen, hot, seq)
         ON CONFLICT (workspace_id, source_id, kind, subject_key) DO UPDATE
            SET app = excluded.app, scope = excluded.scope, description = excluded.description,
                previous_state = CASE WHEN s.state = excluded.state THEN s.previous_state ELSE s.state END,
                state = excluded.state, facts = excluded.facts, state_since = excluded.state_since, state_store_at = NULL,
                last_seen_at = excluded.last_seen_at, hot = excluded.hot, seq = excluded.seq,
                pending_state = NULL, pending_since = NULL, missing = 0, gone_at = NULL",
        workspace,
        asked.source.uuid(),
        &kinds,
        &keys,
        &column(&|o| o.app.clone()),
        &column(&|o| o.scope.clone()),
        &descriptions,
        &states,
        &facts,
        &seen,
        &hot,
        asked.at,
        seqs
    )
    .execute(&mut ***locked)
    .await?;
    let moved = |c: &Changed<'_>| c.2.map(|known| known.state.clone());
    let after = |c: &Changed<'_>| c.2.map(|known| known.last_seen_at);
    let transitions: Vec<usize> =
        (0..changed.len()).filter(|n| matches!(changed[*n].3, Verdict::Transition(_))).collect();
    let pick = |all: &[String]| transitions.iter().map(|n| all[*n].clone()).collect::<Vec<_>>();
    sqlx::query!(
        "INSERT INTO transitions (workspace_id, source_id, kind, subject_key, seq, from_state, to_state, after_at, seen_at)
         SELECT $1, $2, * FROM unnest($3::text[], $4::text[], $5::int8[], $6::text[], $7::text[],
                                      $8::timestamptz[], $9::timestamptz[])",
        workspace,
        asked.source.uuid(),
        &pick(&kinds),
        &pick(&keys),
        &transitions.iter().map(|n| seqs[*n]).collect::<Vec<_>>(),
        &transitions.iter().map(|n| moved(&changed[*n])).collect::<Vec<_>>() as &[Option<String>],
        &pick(&states),
        &transitions.iter().map(|n| after(&changed[*n])).collect::<Vec<_>>() as &[Option<OffsetDateTime>],
        &transitions.iter().map(|n| seen[*n]).collect::<Vec<_>>()
    )
    .execute(&mut ***locked)
    .await?;
    Ok(())
}

/// Writes down what is no news: what was seen as it was, what is in doubt, what was missing.
async fn unremarkable(
    tx: &mut PgConnection,
    asked: &Asked,
    before: &Subjects,
    look: &Seen<'_>,
    missed: &mut Missed,
) -> Result<Vec<Doubt>, Error> {
    let Seen { observations, left_out, covered } = look;
    let (mut same, mut doubtful, mut redescribed) = (Vec::new(), Vec::new(), Vec::new());
    let mut doubts = Vec::new();
    let mut seen: HashSet<(Kind, &str)> = (*left_out).clone();
    for (observation, facts) in *observations {
        seen.insert((observation.kind, &observation.key));
        let Some(known) = before.get(&(observation.kind, observation.key.clone())) else { continue };
        match judge(asked, Some(known), observation, facts) {
            Verdict::Same => {
                same.push((observation.kind, observation.key.as_str()));
                let description = row(&described(observation, Some(known)))?;
                if description != known.description || known.scope != observation.scope {
                    redescribed.push((*observation, description, facts));
                }
            }
            Verdict::Doubtful => {
                // Of what was only told of, the answer alone says whose it is.
                doubts.push(Doubt {
                    kind: observation.kind,
                    key: observation.key.clone(),
                    scope: observation.scope.clone(),
                    app: observation.app.clone(),
                    description: described(observation, Some(known)),
                    absent: false,
                });
                doubtful.push(*observation);
            }
            _ => {}
        }
    }
    touch(tx, asked, &same).await?;
    for (observation, description, facts) in redescribed {
        sqlx::query!(
            "UPDATE subjects SET description = $5, app = $6, scope = $7, facts = $8
              WHERE workspace_id = $1 AND source_id = $2 AND kind = $3 AND subject_key = $4",
            asked.workspace.uuid(),
            asked.source.uuid(),
            observation.kind.name(),
            observation.key,
            description,
            observation.app,
            observation.scope,
            facts
        )
        .execute(&mut *tx)
        .await?;
    }
    for observation in doubtful {
        sqlx::query!(
            "UPDATE subjects SET pending_state = $5, pending_since = $6
              WHERE workspace_id = $1 AND source_id = $2 AND kind = $3 AND subject_key = $4
                AND pending_state IS DISTINCT FROM $5",
            asked.workspace.uuid(),
            asked.source.uuid(),
            observation.kind.name(),
            observation.key,
            observation.state,
            asked.at
        )
        .execute(&mut *tx)
        .await?;
    }
    // Only what was listed to the end is missing, and only what was known when it was asked. Where this is not recorded,
    // it counts when it is missing from another round.
    let listed: HashSet<(Kind, Option<&str>)> =
        covered.iter().map(|c| (c.kind, c.scope.as_deref())).collect();
    let missing: Vec<(&(Kind, String), &Known)> = before
        .iter()
        .filter(|((kind, key), known)| {
            !known.gone && known.last_seen_at < asked.at && !seen.contains(&(*kind, key.as_str()))
        })
        .filter(|((kind, _), known)| {
            listed.contains(&(*kind, None)) || listed.contains(&(*kind, Some(&known.scope)))
        })
        .filter(|(subject, _)| missed.0.insert((*subject).clone()))
        .collect();
    for ((kind, key), known) in &missing {
        let enough = if asked.store.has_address(*kind) { MISSING } else { MISSING_FOR_GOOD };
        if known.missing + 1 >= enough {
            doubts.push(known.absence(*kind, key));
        }
    }
    let missing: Vec<(Kind, &str)> = missing.iter().map(|((kind, key), _)| (*kind, key.as_str())).collect();
    for missing in missing.chunks(known::AT_ONCE) {
        let (kinds, keys) = known::names(missing);
        sqlx::query!(
            "UPDATE subjects SET missing = LEAST(missing + 1, 1000)
              WHERE workspace_id = $1 AND source_id = $2
                AND ((kind, subject_key) IN (SELECT * FROM unnest($3::text[], $4::text[]))) IS TRUE",
            asked.workspace.uuid(),
            asked.source.uuid(),
            &kinds as &[&str],
            &keys as &[&str]
        )
        .execute(&mut *tx)
        .await?;
    }
    Ok(doubts)
}

/// Dates what was seen as it was known. An older answer dates nothing back.
async fn touch(tx: &mut PgConnection, asked: &Asked, same: &[(Kind, &str)]) -> Result<(), sqlx::Error> {
    for same in same.chunks(known::AT_ONCE) {
        let (kinds, keys) = known::names(same);
        // `IS TRUE` keeps the planner from making a join of it: while Postgres has not counted the rows of a new key, it
        // takes them for one and compares each with each.
        sqlx::query!(
            "UPDATE subjects
                SET last_seen_at = GREATEST(last_seen_at, $5), missing = 0, pending_state = NULL, pending_since = NULL
              WHERE workspace_id = $1 AND source_id = $2
                AND ((kind, subject_key) IN (SELECT * FROM unnest($3::text[], $4::text[]))) IS TRUE",
            asked.workspace.uuid(),
            asked.source.uuid(),
            &kinds as &[&str],
            &keys as &[&str],
            asked.at
        )
        .execute(&mut *tx)
        .await?;
    }
    Ok(())
}

/// Records that a subject is no longer visible: missing from complete listings again and again, and gone when it was
/// asked for by itself. An app takes all that belongs to it along, in the one entry.
///
/// # Errors
/// If the database does not confirm.
pub async fn record_gone(writer: &Writer, asked: &Asked, kind: Kind, key: &str) -> Result<bool, Error> {
    let mut locked = writer.lock(asked.workspace).await?;
    still_there(&mut locked, asked.source, asked.under).await?;
    let found = known::read(&mut locked, asked.workspace, asked.source, &[(kind, key)], &[])
        .await?
        .into_values()
        .next();
    // Seen or told of since it was asked for, or found gone by another node.
    let Some(known) = found.filter(|k| !k.gone && k.last_seen_at < asked.at && k.state_since < asked.at)
    else {
        return Ok(false);
    };
    let subject = known.subject(kind, key);
    let mut data = Object::default();
    data.insert("app".into(), text(&known.app));
    data.insert("from".into(), text(&known.state));
    data.insert("last_seen_before_at".into(), timestamp(known.last_seen_at)?);
    data.insert("seen_at".into(), timestamp(asked.at)?);
    data.insert("source".into(), text(&asked.source.to_string()));
    data.insert("subject".into(), Value::Object(subject));
    data.insert("via".into(), text(Via::Poll.name()));
    let entry = format!("store.{}.no_longer_visible", kind.name());
    let draft = Draft::new(entry, data)?.app(known.app.clone()).source(asked.source);
    let recorded = locked.append(&[draft]).await?;
    let seq = recorded.first().map_or(0, |entry| entry.seq as i64);
    let scope = (kind == Kind::App).then_some(known.scope.as_str());
    sqlx::query!(
        "UPDATE subjects SET gone_at = $5, missing = 0, pending_state = NULL, pending_since = NULL,
                seq = CASE WHEN kind = $3 AND subject_key = $4 THEN $7 ELSE seq END
          WHERE workspace_id = $1 AND source_id = $2 AND gone_at IS NULL
            AND ((kind = $3 AND subject_key = $4) OR scope = $6
                 OR starts_with(scope, $6 || '/'))",
        asked.workspace.uuid(),
        asked.source.uuid(),
        kind.name(),
        key,
        asked.at,
        scope,
        seq
    )
    .execute(&mut **locked)
    .await?;
    locked.commit().await?;
    Ok(true)
}
