//! A search among audit entries: what can be asked for, and the statement that finds it.

use super::{Action, Actor};
use crate::database::Database;
use crate::http::problem::Problem;
use crate::id::{
    DestinationId, IdentityId, InvitationId, KeyId, LedgerId, NodeId, PasskeyId, SessionId, SourceId, UserId,
    WorkspaceId,
};
use serde::Deserialize;
use statusledger_verify::json;
use time::OffsetDateTime;
use utoipa::IntoParams;

/// Entries of a page, at most, and of a step of an export.
pub(super) const PAGE: i64 = 1000;

/// Which audit entries.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct AuditQuery {
    /// Only this action: an entry's type, with or without `audit.` (`key.created`), or its beginning and `.*` (`key.*`).
    #[param(example = "key.*")]
    pub(super) action: Option<String>,
    /// Only by this actor: its id (`key_…`, `usr_…`, `operator`, `system`).
    pub(super) actor: Option<String>,
    /// Only with this outcome: `success`, `denied`, `failure`.
    pub(super) outcome: Option<String>,
    /// Only what was done to this: its id.
    pub(super) target: Option<String>,
    /// Only from this time on (RFC 3339).
    #[serde(default, with = "time::serde::rfc3339::option")]
    #[param(value_type = Option<String>, format = DateTime)]
    pub(super) since: Option<OffsetDateTime>,
    /// Only before this time (RFC 3339).
    #[serde(default, with = "time::serde::rfc3339::option")]
    #[param(value_type = Option<String>, format = DateTime)]
    pub(super) until: Option<OffsetDateTime>,
    /// Only entries before this seq: where the next page begins.
    #[param(minimum = 0)]
    pub(super) before: Option<i64>,
    /// Whether the names of those who act come with the entries (default false).
    pub(super) names: Option<bool>,
    /// At most this many (1 to 1000; default 100).
    #[param(minimum = 1, maximum = 1000)]
    pub(super) limit: Option<i64>,
}

/// An entry found.
struct Row {
    seq: i64,
    entry: String,
}

/// Whether it is what an entry can have as the id of its actor.
fn is_actor(text: &str) -> bool {
    [Actor::Operator, Actor::System, Actor::Unknown].iter().any(|actor| actor.to_string() == text)
        || text.parse::<KeyId>().is_ok()
        || text.parse::<UserId>().is_ok()
        || text.parse::<SessionId>().is_ok()
        || text.parse::<SourceId>().is_ok()
}

/// Whether it is what an entry can have as the id of a target; that of an entry is its seq.
fn is_target(text: &str) -> bool {
    is_actor(text)
        || text.parse::<u64>().is_ok()
        || text.parse::<WorkspaceId>().is_ok()
        || text.parse::<DestinationId>().is_ok()
        || text.parse::<PasskeyId>().is_ok()
        || text.parse::<IdentityId>().is_ok()
        || text.parse::<InvitationId>().is_ok()
        || text.parse::<NodeId>().is_ok()
}

/// A search, checked.
#[derive(Clone, Debug)]
pub(super) struct Search {
    /// A whole action, or its beginning (with the dot).
    action: Option<String>,
    beginning: Option<String>,
    actor: Option<String>,
    outcome: Option<String>,
    target: Option<String>,
    since: Option<i64>,
    until: Option<i64>,
}

impl Search {
    /// What `query` asks for.
    ///
    /// # Errors
    /// If nothing can be found by it: an action, an outcome or an id that there cannot be.
    pub(super) fn of(query: AuditQuery) -> Result<Self, Problem> {
        let (mut action, mut beginning) = (None, None);
        if let Some(asked) = &query.action {
            let asked = asked.strip_prefix("audit.").unwrap_or(asked);
            if !crate::ledger::draft::is_type(asked.strip_suffix(".*").unwrap_or(asked)) {
                return Err(Problem::bad_request(
                    "action is an action's code (lower-case words joined by dots), or its beginning and \".*\"",
                ));
            }
            if !Action::is_asked_for(asked) {
                let nearest = Action::nearest(asked).join(", ");
                return Err(Problem::bad_request(format!(
                    "there is no action \"{asked}\"; nearest to it are {nearest} (docs/events.md has all of them)"
                )));
            }
            match asked.strip_suffix('*') {
                Some(start) => beginning = Some(start.to_owned()),
                None => action = Some(asked.to_owned()),
            }
        }
        if query.outcome.as_deref().is_some_and(|o| !["success", "denied", "failure"].contains(&o)) {
            return Err(Problem::bad_request("outcome is success, denied or failure"));
        }
        // An export says for good what was searched for: nothing but ids, which are nobody's name.
        if query.actor.as_deref().is_some_and(|actor| !is_actor(actor))
            || query.target.as_deref().is_some_and(|target| !is_target(target))
        {
            return Err(Problem::bad_request("actor and target are ids, as entries have them"));
        }
        let micros = |at: OffsetDateTime| i64::try_from(at.unix_timestamp_nanos() / 1000).unwrap_or(i64::MAX);
        Ok(Self {
            action,
            beginning,
            actor: query.actor,
            outcome: query.outcome,
            target: query.target,
            since: query.since.map(micros),
            until: query.until.map(micros),
        })
    }

    /// What was asked for, as the entry of an export shows it; none where all was.
    pub(super) fn said(&self) -> Option<json::Value> {
        let text = |value: &Option<String>| value.clone().map(json::Value::String);
        let time = |at: Option<i64>| at.map(json::Value::Int);
        let mut said = json::Object::default();
        for (name, value) in [
            ("action", text(&self.action)),
            ("action_begins", text(&self.beginning)),
            ("actor", text(&self.actor)),
            ("outcome", text(&self.outcome)),
            ("target", text(&self.target)),
            ("since_us", time(self.since)),
            ("until_us", time(self.until)),
        ] {
            if let Some(value) = value {
                said.insert(name.into(), value);
            }
        }
        (!said.is_empty()).then_some(json::Value::Object(said))
    }

    /// Entries before `before`, newest first, or from `from` on, oldest first.
    ///
    /// # Errors
    /// If the database does not answer.
    pub(super) async fn page(
        &self,
        database: &Database,
        workspace: WorkspaceId,
        ledger: LedgerId,
        range: (i64, i64),
        descending: bool,
        limit: i64,
    ) -> Result<Vec<(i64, String)>, sqlx::Error> {
        let mut tx = database.workspace(workspace).await?;
        // The order is part of the text: only then is the index read in it, and no more of it than is asked for.
        macro_rules! rows {
            ($order:literal) => {
                sqlx::query_as!(
                    Row,
                    r#"SELECT e.seq, e.entry
                         FROM audit_index a JOIN entries e USING (workspace_id, ledger_id, seq)
                        WHERE a.workspace_id = $1 AND a.ledger_id = $2 AND a.seq >= $3 AND a.seq < $4
                          AND ($5::text IS NULL OR a.action = $5)
                          AND ($6::text IS NULL OR starts_with(a.action, $6))
                          AND ($7::text IS NULL OR a.actor = $7)
                          AND ($8::text IS NULL OR a.outcome = $8)
                          AND ($9::text IS NULL OR a.targets @> ARRAY[$9])
                          AND ($10::bigint IS NULL OR a.recorded_at >= $10)
                          AND ($11::bigint IS NULL OR a.recorded_at < $11)
                        ORDER BY "# + $order,
                    workspace.uuid(),
                    ledger.uuid(),
                    range.0,
                    range.1,
                    self.action,
                    self.beginning,
                    self.actor,
                    self.outcome,
                    self.target,
                    self.since,
                    self.until,
                    limit
                )
                .fetch_all(&mut *tx)
                .await?
            };
        }
        let rows: Vec<Row> =
            if descending { rows!("a.seq DESC LIMIT $12") } else { rows!("a.seq LIMIT $12") };
        Ok(rows.into_iter().map(|row| (row.seq, row.entry)).collect())
    }
}
