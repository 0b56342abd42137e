//! What is known of subjects: their rows.

use super::{Doubt, Kind, text};
use crate::id::{SourceId, WorkspaceId};
use crate::source::look::Covered;
use sqlx::PgConnection;
use statusledger_verify::json::{self, Object, Value};
use std::collections::HashMap;
use time::OffsetDateTime;

/// A subject's row.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) app: String,
    pub(super) scope: String,
    pub(super) description: serde_json::Value,
    pub(super) state: String,
    pub(super) facts: serde_json::Value,
    pub(super) previous_state: Option<String>,
    pub(super) pending_state: Option<String>,
    pub(super) pending_since: Option<OffsetDateTime>,
    pub(super) state_since: OffsetDateTime,
    pub(super) last_seen_at: OffsetDateTime,
    pub(super) state_store_at: Option<OffsetDateTime>,
    pub(super) missing: i16,
    pub(super) gone: bool,
}

impl Known {
    /// Whether an answer had it: what was only told of has no app, and no facts.
    pub(super) fn was_polled(&self) -> bool {
        !self.scope.is_empty()
    }

    /// That it may be gone, with what is needed to ask for it by itself.
    pub(super) fn absence(&self, kind: Kind, key: &str) -> Doubt {
        Doubt {
            kind,
            key: key.to_owned(),
            scope: self.scope.clone(),
            app: self.app.clone(),
            description: self.described(&Object::default()),
            absent: true,
        }
    }

    /// What it is known by, with what was said now going before: one poll tells more of it than another.
    pub(super) fn described(&self, now: &Object) -> Object {
        let mut description = match json::parse(self.description.to_string().as_bytes()) {
            Ok(Value::Object(description)) => description,
            _ => Object::default(),
        };
        for (name, value) in now.iter() {
            description.insert(name.to_owned(), value.clone());
        }
        description
    }

    /// The `subject` member of an entry about it.
    pub(super) fn subject(&self, kind: Kind, key: &str) -> Object {
        let mut subject = self.described(&Object::default());
        subject.insert("id".into(), text(key));
        subject.insert("kind".into(), text(kind.name()));
        subject
    }
}

/// Rows by kind and key.
pub(super) type Subjects = HashMap<(Kind, String), Known>;

/// How many subjects one statement names. Postgres looks many up in a table of its memory as long as that holds them
/// (`work_mem`), and compares each with each beyond that.
pub(super) const AT_ONCE: usize = 10_000;

/// The rows of these subjects, and of everything that these listings cover.
pub(super) async fn read(
    tx: &mut PgConnection,
    workspace: WorkspaceId,
    source: SourceId,
    subjects: &[(Kind, &str)],
    covered: &[Covered],
) -> Result<Subjects, sqlx::Error> {
    let scoped: Vec<(Kind, &str)> =
        covered.iter().filter_map(|c| Some((c.kind, c.scope.as_deref()?))).collect();
    let whole: Vec<&str> = covered.iter().filter(|c| c.scope.is_none()).map(|c| c.kind.name()).collect();
    let mut found = Subjects::new();
    for subjects in subjects.chunks(AT_ONCE) {
        let (kinds, keys) = names(subjects);
        let rows = sqlx::query_as!(
            Row,
            r#"SELECT kind, subject_key, app, scope, description, state, facts, previous_state, pending_state,
                      pending_since, state_since, last_seen_at, state_store_at, missing, gone_at IS NOT NULL AS "gone!"
                 FROM subjects
                WHERE workspace_id = $1 AND source_id = $2
                  AND ((kind, subject_key) IN (SELECT * FROM unnest($3::text[], $4::text[]))) IS TRUE"#,
            workspace.uuid(),
            source.uuid(),
            &kinds as &[&str],
            &keys as &[&str]
        )
        .fetch_all(&mut *tx)
        .await?;
        found.extend(rows.into_iter().filter_map(Row::subject));
    }
    // One of no scopes is for what is covered whole.
    let none: &[(Kind, &str)] = &[];
    let chunks = scoped.chunks(AT_ONCE).chain((scoped.is_empty() && !whole.is_empty()).then_some(none));
    for (n, scoped) in chunks.enumerate() {
        let (kinds, scopes) = names(scoped);
        let rows = sqlx::query_as!(
            Row,
            r#"SELECT kind, subject_key, app, scope, description, state, facts, previous_state, pending_state,
                      pending_since, state_since, last_seen_at, state_store_at, missing, gone_at IS NOT NULL AS "gone!"
                 FROM subjects
                WHERE workspace_id = $1 AND source_id = $2 AND gone_at IS NULL
                  AND (kind = ANY($3)
                       OR ((kind, scope) IN (SELECT * FROM unnest($4::text[], $5::text[]))) IS TRUE)"#,
            workspace.uuid(),
            source.uuid(),
            (if n == 0 { &whole[..] } else { &[] }) as &[&str],
            &kinds as &[&str],
            &scopes as &[&str]
        )
        .fetch_all(&mut *tx)
        .await?;
        found.extend(rows.into_iter().filter_map(Row::subject));
    }
    Ok(found)
}

/// Kinds and keys as the database takes them: the names of the ones beside the others.
pub(super) fn names<'a>(of: &[(Kind, &'a str)]) -> (Vec<&'static str>, Vec<&'a str>) {
    of.iter().map(|(kind, key)| (kind.name(), *key)).unzip()
}

/// A row as it comes.
struct Row {
    kind: String,
    subject_key: String,
    app: String,
    scope: String,
    description: serde_json::Value,
    state: String,
    facts: serde_json::Value,
    previous_state: Option<String>,
    pending_state: Option<String>,
    pending_since: Option<OffsetDateTime>,
    state_since: OffsetDateTime,
    last_seen_at: OffsetDateTime,
    state_store_at: Option<OffsetDateTime>,
    missing: i16,
    gone: bool,
}

impl Row {
    fn subject(self) -> Option<((Kind, String), Known)> {
        let known = Known {
            app: self.app,
            scope: self.scope,
            description: self.description,
            state: self.state,
            facts: self.facts,
            previous_state: self.previous_state,
            pending_state: self.pending_state,
            pending_since: self.pending_since,
            state_since: self.state_since,
            last_seen_at: self.last_seen_at,
            state_store_at: self.state_store_at,
            missing: self.missing,
            gone: self.gone,
        };
        // A kind that this version does not know was written by a newer one.
        Some(((Kind::from_name(&self.kind)?, self.subject_key), known))
    }
}
