//! `/v1/workspaces/{workspace}/audit`: searching audit entries, and taking them away in the forms of others.

use super::format::Format;
use super::names;
use super::search::{AuditQuery, PAGE, Search};
use crate::access::{Access, Gate, needs};
use crate::database::Database;
use crate::http::App;
use crate::http::extract::{InPath, InQuery};
use crate::http::problem::Problem;
use crate::id::{LedgerId, WorkspaceId};
use crate::keyring::Keyring;
use crate::ledger::{Writer, export, read};
use crate::sealing::{self, DataKeys};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use statusledger_keys::envelope::DataKey;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use time::OffsetDateTime;
use tokio::sync::mpsc;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// A page of audit entries, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditPage {
    /// The canonical entries, as the ledger has them.
    #[schema(value_type = Vec<Object>)]
    items: Vec<Box<RawValue>>,
    /// Where they were asked for: what those who act in them are called now, by id: API keys, for whoever may list them
    /// (`keys:read`), and people, by name and address, for whoever may list members (`members:read`). Whoever is gone, or
    /// has no name, is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    names: Option<BTreeMap<String, String>>,
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

/// The id of who did what an entry says.
fn actor_of(entry: &str) -> Result<String, serde_json::Error> {
    #[derive(Deserialize)]
    struct Entry {
        data: Data,
    }
    #[derive(Deserialize)]
    struct Data {
        actor: Id,
    }
    #[derive(Deserialize)]
    struct Id {
        id: String,
    }
    Ok(serde_json::from_str::<Entry>(entry)?.data.actor.id)
}

/// Searches the audit entries by who, what, to what, when; newest first. With `names`, whoever may list keys and
/// members is told what those who act are called.
#[utoipa::path(get, path = "/v1/workspaces/{workspace}/audit", tag = "audit", security(("token" = []), ("session" = [])),
    params(("workspace" = String, Path, description = "The workspace's id"), AuditQuery),
    responses((status = 200, body = AuditPage),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
async fn search(
    access: Access<needs::AuditRead>,
    State(gate): State<Gate>,
    State(data_keys): State<DataKeys>,
    InPath(workspace): InPath<WorkspaceId>,
    InQuery(query): InQuery<AuditQuery>,
) -> Result<Json<AuditPage>, Problem> {
    let limit = query.limit.unwrap_or(100);
    if !(1..=PAGE).contains(&limit) {
        return Err(Problem::bad_request("limit is 1 to 1000"));
    }
    let before = query.before.unwrap_or(i64::MAX);
    let with_names = query.names.unwrap_or(false);
    let search = Search::of(query)?;
    let database = &gate.database;
    let mut tx = database.workspace(workspace).await?;
    let (ledger, _) = read::size(&mut tx).await?.ok_or_else(|| read::no_workspace(workspace))?;
    drop(tx);
    let mut found = search.page(database, workspace, ledger, (0, before), true, limit + 1).await?;
    let more = found.len() > limit as usize;
    found.truncate(limit as usize);
    let next = found.last().map(|(seq, _)| *seq).filter(|_| more);
    let names = if with_names {
        let actors = found
            .iter()
            .map(|(_, entry)| actor_of(entry))
            .collect::<Result<_, _>>()
            .map_err(Problem::internal)?;
        Some(names::of(&gate, &data_keys, &access.caller, workspace, &actors).await?)
    } else {
        None
    };
    let items = found
        .into_iter()
        .map(|(_, entry)| RawValue::from_string(entry))
        .collect::<Result<_, _>>()
        .map_err(Problem::internal)?;
    Ok(Json(AuditPage { items, names, next }))
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
