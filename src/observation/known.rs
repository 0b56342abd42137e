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

/// The rows of these subjects, and of everything that these listings cover.
pub(super) async fn read(
    tx: &mut PgConnection,
    workspace: WorkspaceId,
    source: SourceId,
    subjects: &[(Kind, &str)],
    covered: &[Covered],
) -> Result<Subjects, sqlx::Error> {
    let kinds: Vec<&str> = subjects.iter().map(|(kind, _)| kind.name()).collect();
    let keys: Vec<&str> = subjects.iter().map(|(_, key)| *key).collect();
    let whole: Vec<&str> = covered.iter().filter(|c| c.scope.is_none()).map(|c| c.kind.name()).collect();
    let scoped = || covered.iter().filter_map(|c| Some((c.kind.name(), c.scope.as_deref()?)));
    let (scoped_kinds, scopes): (Vec<&str>, Vec<&str>) = scoped().unzip();
    let rows = sqlx::query!(
        r#"SELECT kind, subject_key, app, scope, description, state, facts, previous_state, pending_state, pending_since,
                  state_since, last_seen_at, state_store_at, missing, gone_at IS NOT NULL AS "gone!"
             FROM subjects
            WHERE workspace_id = $1 AND source_id = $2
              AND ((kind, subject_key) IN (SELECT * FROM unnest($3::text[], $4::text[]))
                   OR (gone_at IS NULL AND (kind = ANY($5)
                       OR (kind, scope) IN (SELECT * FROM unnest($6::text[], $7::text[])))))"#,
        workspace.uuid(),
        source.uuid(),
        &kinds as &[&str],
        &keys as &[&str],
        &whole as &[&str],
        &scoped_kinds as &[&str],
        &scopes as &[&str]
    )
    .fetch_all(tx)
    .await?;
    Ok(rows
        .into_iter()
        .filter_map(|r| {
            let known = Known {
                app: r.app,
                scope: r.scope,
                description: r.description,
                state: r.state,
                facts: r.facts,
                previous_state: r.previous_state,
                pending_state: r.pending_state,
                pending_since: r.pending_since,
                state_since: r.state_since,
                last_seen_at: r.last_seen_at,
                state_store_at: r.state_store_at,
                missing: r.missing,
                gone: r.gone,
            };
            // A kind that this version does not know was written by a newer one.
            Some(((Kind::from_name(&r.kind)?, r.subject_key), known))
        })
        .collect())
}
