//! `POST /v1/workspaces/{workspace}/configurations`: `apply` says that it has applied a file.
//!
//! The service has not seen the file, nor who computed what from it, and signs nothing that it only heard: what stands
//! under `claimed` is the client's word. What stands beside it is looked up here: of the requests that the client says
//! were its changes, the entries that they left, if they are of this ledger and of the very same actor. Requests are
//! numbered by the service, so nobody can name an entry of another's. docs/decisions/0019-applied-configurations.md
//! says why so.

use super::{Act, Action};
use crate::access::{Access, needs};
use crate::http::App;
use crate::http::extract::{Body, InPath};
use crate::http::problem::Problem;
use crate::id::WorkspaceId;
use crate::ledger::{Writer, read};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use statusledger_verify::json::{Object, Value};
use std::collections::BTreeMap;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Requests of one configuration, at most: their entries' seqs have to fit the entry.
const REQUESTS: usize = 1000;
/// Among how many of the newest entries of the actor they are looked for.
const LOOKED_AT: i64 = 10_000;

/// How many acts a plan had, by what they do.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Planned {
    /// Things to be added.
    #[serde(default)]
    add: u16,
    /// To be changed.
    #[serde(default)]
    change: u16,
    /// To be replaced by others of the name.
    #[serde(default)]
    replace: u16,
    /// To be removed.
    #[serde(default)]
    remove: u16,
}

/// A configuration that was applied.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfigurationRequest {
    /// SHA-256 of the file: 64 lower-case hexadecimal digits. Kept as your word: the file is not seen here.
    #[schema(min_length = 64, max_length = 64, pattern = "^[0-9a-f]{64}$")]
    sha256: String,
    /// What there was to do. Likewise your word.
    planned: Planned,
    /// Whether all of it was done. Likewise.
    complete: bool,
    /// The `x-request-id` of each change that was made (at most 1000). What they did is looked up.
    #[schema(max_items = 1000)]
    requests: Vec<uuid::Uuid>,
}

/// The entry that says so.
#[derive(Debug, Serialize, ToSchema)]
pub struct ConfigurationApplied {
    /// Its place in the ledger.
    seq: u64,
    /// How many entries of your changes were found.
    changes: usize,
}

/// The route.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(applied))
}

/// Puts on the record that a configuration was applied (`audit.configuration.applied`): what you say of the file and its
/// plan, as your word, and the entries that your changes have left, as they are found in the ledger.
#[utoipa::path(post, path = "/v1/workspaces/{workspace}/configurations", tag = "audit", security(("token" = []), ("session" = [])),
    params(("workspace" = String, Path, description = "The workspace's id")), request_body = ConfigurationRequest,
    responses((status = 201, body = ConfigurationApplied),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
async fn applied(
    access: Access<needs::Configure>,
    State(writer): State<Writer>,
    InPath(workspace): InPath<WorkspaceId>,
    Body(request): Body<ConfigurationRequest>,
) -> Result<(StatusCode, Json<ConfigurationApplied>), Problem> {
    let is_hash = request.sha256.len() == 64
        && request.sha256.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if !is_hash {
        return Err(Problem::invalid("sha256 is 64 lower-case hexadecimal digits"));
    }
    if request.requests.len() > REQUESTS {
        return Err(Problem::invalid("requests has at most 1000 items"));
    }
    let act = access.act();
    let left = left_by(&writer, &act, workspace, &request.requests).await?;
    let seq = record(&writer, &act, workspace, &request, &left).await?;
    Ok((StatusCode::CREATED, Json(ConfigurationApplied { seq, changes: left.len() })))
}

/// The entries that these requests of the actor have left in the workspace's ledger: seq and action.
async fn left_by(
    writer: &Writer,
    act: &Act,
    workspace: WorkspaceId,
    requests: &[uuid::Uuid],
) -> Result<Vec<(i64, String)>, Problem> {
    let mut tx = writer.database().workspace(workspace).await?;
    let (ledger, _) = read::size(&mut tx).await?.ok_or_else(|| read::no_workspace(workspace))?;
    let requests: Vec<String> = requests.iter().map(ToString::to_string).collect();
    let rows = sqlx::query!(
        "SELECT a.seq, a.action
           FROM (SELECT workspace_id, ledger_id, seq, action FROM audit_index
                  WHERE workspace_id = $1 AND ledger_id = $2 AND actor = $3 AND outcome = 'success'
                  ORDER BY seq DESC LIMIT $5) a
           JOIN entries e USING (workspace_id, ledger_id, seq)
          WHERE a.action <> 'configuration.applied' AND e.entry::json #>> '{data,request}' = ANY ($4)
          ORDER BY a.seq LIMIT $6",
        workspace.uuid(),
        ledger.uuid(),
        act.actor().to_string(),
        &requests,
        LOOKED_AT,
        REQUESTS as i64
    )
    .fetch_all(&mut *tx)
    .await?;
    Ok(rows.into_iter().map(|row| (row.seq, row.action)).collect())
}

async fn record(
    writer: &Writer,
    act: &Act,
    workspace: WorkspaceId,
    request: &ConfigurationRequest,
    left: &[(i64, String)],
) -> Result<u64, Problem> {
    let int = |n: usize| Value::Int(i64::try_from(n).unwrap_or(i64::MAX));
    let mut planned = Object::default();
    let Planned { add, change, replace, remove } = request.planned;
    for (name, count) in [("add", add), ("change", change), ("replace", replace), ("remove", remove)] {
        planned.insert(name.into(), Value::Int(count.into()));
    }
    let mut claimed = Object::default();
    claimed.insert("complete".into(), Value::Bool(request.complete));
    claimed.insert("planned".into(), Value::Object(planned));
    claimed.insert("sha256".into(), Value::String(request.sha256.clone()));
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, action) in left {
        *counts.entry(action).or_default() += 1;
    }
    let mut acts = Object::default();
    for (action, count) in counts {
        acts.insert(action.to_owned(), int(count));
    }
    let record = act
        .of(Action::ConfigurationApplied)
        .target("workspace", workspace)
        .detail("acts", Value::Object(acts))
        .detail("changes", int(left.len()))
        .detail("claimed", Value::Object(claimed))
        .detail("entries", Value::Array(left.iter().map(|(seq, _)| Value::Int(*seq)).collect()));
    let mut locked = writer.lock(workspace).await?;
    let recorded = locked.append(&[record.draft()?]).await?;
    locked.commit().await?;
    Ok(recorded.first().map_or(0, |entry| entry.seq))
}
