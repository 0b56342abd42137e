//! `/v1/workspaces/{workspace}/audit`: searching audit entries, and taking them away in the forms of others.

use super::Actor;
use super::format::Format;
use crate::access::{Access, needs};
use crate::database::Database;
use crate::http::App;
use crate::http::extract::{InPath, InQuery};
use crate::http::problem::Problem;
use crate::id::{
    DestinationId, IdentityId, InvitationId, KeyId, LedgerId, NodeId, PasskeyId, SessionId, SourceId, UserId,
    WorkspaceId,
};
use crate::keyring::Keyring;
use crate::ledger::{Writer, export, read};
use crate::sealing;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use statusledger_keys::envelope::DataKey;
use statusledger_verify::json;
use std::collections::HashMap;
use std::sync::Arc;
use time::OffsetDateTime;
use tokio::sync::mpsc;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Entries of a page, at most, and of a step of an export.
const PAGE: i64 = 1000;

/// Which audit entries.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct AuditQuery {
    /// Only this action: an entry's type, with or without `audit.` (`key.created`), or its beginning and `.*` (`key.*`).
    #[param(example = "key.*")]
    action: Option<String>,
    /// Only by this actor: its id (`key_…`, `usr_…`, `operator`, `system`).
    actor: Option<String>,
    /// Only with this outcome: `success`, `denied`, `failure`.
    outcome: Option<String>,
    /// Only what was done to this: its id.
    target: Option<String>,
    /// Only from this time on (RFC 3339).
    #[serde(default, with = "time::serde::rfc3339::option")]
    #[param(value_type = Option<String>, format = DateTime)]
    since: Option<OffsetDateTime>,
    /// Only before this time (RFC 3339).
    #[serde(default, with = "time::serde::rfc3339::option")]
    #[param(value_type = Option<String>, format = DateTime)]
    until: Option<OffsetDateTime>,
    /// Only entries before this seq: where the next page begins.
    #[param(minimum = 0)]
    before: Option<i64>,
    /// At most this many (1 to 1000; default 100).
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<i64>,
}

/// A page of audit entries, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditPage {
    /// The canonical entries, as the ledger has them.
    #[schema(value_type = Vec<Object>)]
    items: Vec<Box<RawValue>>,
    /// What `before` has to be for the next page; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<i64>,
}

/// Which audit entries to take away, and how.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct AuditExportQuery {
    /// `jsonl`, `csv`, `ocsf` or `cef`.
    #[param(value_type = String, example = "csv")]
    format: Format,
    /// Whether sealed values (address, browser, names) are opened (default false).
    openings: Option<bool>,
    /// As in a search.
    action: Option<String>,
    /// As in a search.
    actor: Option<String>,
    /// As in a search.
    outcome: Option<String>,
    /// As in a search.
    target: Option<String>,
    /// As in a search.
    #[serde(default, with = "time::serde::rfc3339::option")]
    #[param(value_type = Option<String>, format = DateTime)]
    since: Option<OffsetDateTime>,
    /// As in a search.
    #[serde(default, with = "time::serde::rfc3339::option")]
    #[param(value_type = Option<String>, format = DateTime)]
    until: Option<OffsetDateTime>,
}

/// The routes of audit.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(search))
        .routes(routes!(take_away))
        .merge(super::configuration::router())
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
struct Search {
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
    fn of(query: AuditQuery) -> Result<Self, Problem> {
        let (mut action, mut beginning) = (None, None);
        if let Some(asked) = &query.action {
            let asked = asked.strip_prefix("audit.").unwrap_or(asked);
            if !crate::ledger::draft::is_type(asked.strip_suffix(".*").unwrap_or(asked)) {
                return Err(Problem::bad_request(
                    "action is an action's code (lower-case words joined by dots), or its beginning and \".*\"",
                ));
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
    fn said(&self) -> Option<json::Value> {
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
    async fn page(
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

/// Searches the audit entries by who, what, to what, when; newest first.
#[utoipa::path(get, path = "/v1/workspaces/{workspace}/audit", tag = "audit", security(("token" = []), ("session" = [])),
    params(("workspace" = String, Path, description = "The workspace's id"), AuditQuery),
    responses((status = 200, body = AuditPage),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
async fn search(
    _: Access<needs::AuditRead>,
    State(database): State<Database>,
    InPath(workspace): InPath<WorkspaceId>,
    InQuery(query): InQuery<AuditQuery>,
) -> Result<Json<AuditPage>, Problem> {
    let limit = query.limit.unwrap_or(100);
    if !(1..=PAGE).contains(&limit) {
        return Err(Problem::bad_request("limit is 1 to 1000"));
    }
    let before = query.before.unwrap_or(i64::MAX);
    let search = Search::of(query)?;
    let mut tx = database.workspace(workspace).await?;
    let (ledger, _) = read::size(&mut tx).await?.ok_or_else(|| read::no_workspace(workspace))?;
    drop(tx);
    let mut found = search.page(&database, workspace, ledger, (0, before), true, limit + 1).await?;
    let more = found.len() > limit as usize;
    found.truncate(limit as usize);
    let next = found.last().map(|(seq, _)| *seq).filter(|_| more);
    let items = found
        .into_iter()
        .map(|(_, entry)| RawValue::from_string(entry))
        .collect::<Result<_, _>>()
        .map_err(Problem::internal)?;
    Ok(Json(AuditPage { items, next }))
}

/// Takes audit entries away as JSON Lines, CSV, OCSF or CEF, oldest first. It proves nothing by itself: each line names
/// its ledger and seq, and the ledger's export is the proof.
#[utoipa::path(get, path = "/v1/workspaces/{workspace}/audit/export", tag = "audit", security(("token" = []), ("session" = [])),
    params(("workspace" = String, Path, description = "The workspace's id"), AuditExportQuery),
    responses((status = 200, description = "In the format asked for", content(
            (String = "application/x-ndjson"), (String = "text/csv"), (String = "text/plain"))),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
async fn take_away(
    access: Access<needs::LedgerExport>,
    State(writer): State<Writer>,
    State(keyring): State<Keyring>,
    InPath(workspace): InPath<WorkspaceId>,
    InQuery(query): InQuery<AuditExportQuery>,
) -> Result<Response, Problem> {
    let format = query.format;
    let openings = query.openings.unwrap_or(false);
    let search = Search::of(AuditQuery {
        action: query.action,
        actor: query.actor,
        outcome: query.outcome,
        target: query.target,
        since: query.since,
        until: query.until,
        ..AuditQuery::default()
    })?;
    let database = writer.database().clone();
    let mut tx = database.workspace(workspace).await?;
    let (ledger, size) = read::size(&mut tx).await?.ok_or_else(|| read::no_workspace(workspace))?;
    drop(tx);
    let data_key = if openings { Some(writer.data_keys().get(workspace).await?) } else { None };
    let (format_name, said) = (Some(format.name()), search.said());
    let of = export::Of {
        openings,
        format: format_name,
        search: said.as_ref(),
        ..export::Of::all(ledger, 0, size)
    };
    export::record(&writer, &access.act(), workspace, of).await?;
    let instance = keyring.current().ring().instance().to_string();
    let (lines, mut taken) = mpsc::channel::<Result<String, std::io::Error>>(4);
    let size = i64::try_from(size).unwrap_or(i64::MAX);
    tokio::spawn(async move {
        let _ = lines.send(Ok(format.heading())).await;
        let mut from = 0;
        loop {
            let page = search.page(&database, workspace, ledger, (from, size), false, PAGE).await;
            let page = match page {
                Ok(page) => page,
                Err(e) => {
                    tracing::warn!(error = %e, "an audit export ended early");
                    let _ = lines.send(Err(std::io::Error::other(e))).await;
                    return;
                }
            };
            let Some((last, _)) = page.last() else { return };
            from = last + 1;
            let text = match written(
                &database,
                workspace,
                ledger,
                data_key.as_ref(),
                format,
                &instance,
                &page,
            )
            .await
            {
                Ok(text) => Ok(text),
                Err(e) => Err(std::io::Error::other(e.detail)),
            };
            let ended = text.is_err();
            // The reader may have gone.
            if lines.send(text).await.is_err() || ended {
                return;
            }
        }
    });
    let stream = futures_util::stream::poll_fn(move |context| taken.poll_recv(context));
    let name = format!("attachment; filename=\"audit-{ledger}.{}\"", format.name());
    Ok((
        [(header::CONTENT_TYPE, format.media_type().to_owned()), (header::CONTENT_DISPOSITION, name)],
        Body::from_stream(stream),
    )
        .into_response())
}

async fn written(
    database: &Database,
    workspace: WorkspaceId,
    ledger: LedgerId,
    data_key: Option<&Arc<DataKey>>,
    format: Format,
    instance: &str,
    page: &[(i64, String)],
) -> Result<String, Problem> {
    let mut opened: HashMap<i64, serde_json::Map<String, serde_json::Value>> = HashMap::new();
    if let Some(key) = data_key {
        let seqs: Vec<i64> = page.iter().map(|(seq, _)| *seq).collect();
        let mut tx = database.workspace(workspace).await?;
        let rows = sqlx::query!(
            r#"SELECT o.seq AS "seq!", o.name AS "name!", o.sealed AS "sealed!"
                 FROM unnest($3::bigint[]) AS w (seq), LATERAL (
                       SELECT seq, name, sealed FROM openings
                        WHERE workspace_id = $1 AND ledger_id = $2 AND seq = w.seq OFFSET 0) AS o"#,
            workspace.uuid(),
            ledger.uuid(),
            &seqs
        )
        .fetch_all(&mut *tx)
        .await?;
        for row in rows {
            let opening = sealing::open_opening(key, ledger, row.seq as u64, &row.name, &row.sealed)
                .map_err(sealing::Error::from)?;
            let opening: serde_json::Value = serde_json::from_slice(&opening).map_err(Problem::internal)?;
            opened.entry(row.seq).or_default().insert(row.name, opening["value"].clone());
        }
    }
    let mut text = String::new();
    for (seq, entry) in page {
        let entry: serde_json::Value = serde_json::from_str(entry).map_err(Problem::internal)?;
        let opened = serde_json::Value::Object(opened.remove(seq).unwrap_or_default());
        text.push_str(&format.line(instance, &entry, &opened));
    }
    Ok(text)
}
