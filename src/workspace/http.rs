//! `/v1/workspaces`.

use super::Error;
use crate::access::Admin;
use crate::database::Database;
use crate::http::App;
use crate::http::extract::{Body, InPath};
use crate::http::problem::Problem;
use crate::id::{LedgerId, WorkspaceId};
use crate::ledger::Writer;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// A workspace: a team's apps, sources, destinations and its ledger.
#[derive(Debug, Serialize, ToSchema)]
pub struct Workspace {
    /// `ws_` and a UUID.
    #[schema(value_type = String, example = "ws_0199b1c4-0000-7000-8000-000000000001")]
    id: WorkspaceId,
    /// What people call it.
    name: String,
    /// Whether it is the instance's own: of its keys and its administration, without apps.
    own: bool,
    /// Its ledger.
    #[schema(value_type = String)]
    ledger: LedgerId,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
}

/// What a new workspace is called.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewWorkspace {
    /// 1 to 100 characters, unique in the instance.
    #[schema(min_length = 1, max_length = 100)]
    name: String,
}

/// A list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Workspaces {
    items: Vec<Workspace>,
}

impl From<Error> for Problem {
    fn from(e: Error) -> Self {
        match e {
            Error::NameTaken(_) => Self::conflict(e.to_string()),
            Error::Name => Self::invalid(e.to_string()),
            Error::Sql(e) => e.into(),
            Error::Sealing(e) => e.into(),
            Error::Append(e) => e.into(),
            Error::Draft(e) => e.into(),
        }
    }
}

/// The routes of workspaces.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(read)).merge(super::status::router())
}

/// Lists the workspaces.
#[utoipa::path(get, path = "/v1/workspaces", tag = "workspaces", security(("token" = [])),
    responses((status = 200, body = Workspaces), (status = 401, body = Problem, content_type = "application/problem+json")))]
async fn list(_: Admin, State(database): State<Database>) -> Result<Json<Workspaces>, Problem> {
    let items = sqlx::query_as!(
        Workspace,
        r#"SELECT workspace_id AS "id: WorkspaceId", name, ledger_id AS "ledger: LedgerId", created_at,
                  workspace_id IN (SELECT workspace_id FROM instance) AS "own!"
             FROM workspaces ORDER BY created_at, workspace_id"#
    )
    .fetch_all(&database.worker)
    .await?;
    Ok(Json(Workspaces { items }))
}

/// Makes a workspace.
#[utoipa::path(post, path = "/v1/workspaces", tag = "workspaces", security(("token" = [])), request_body = NewWorkspace,
    responses((status = 201, body = Workspace),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
async fn create(
    _: Admin,
    State(database): State<Database>,
    State(writer): State<Writer>,
    Body(new): Body<NewWorkspace>,
) -> Result<(StatusCode, Json<Workspace>), Problem> {
    let (id, _) = super::create(&writer, &new.name).await?;
    Ok((StatusCode::CREATED, Json(find(&database, id).await?)))
}

/// Shows a workspace.
#[utoipa::path(get, path = "/v1/workspaces/{workspace}", tag = "workspaces", security(("token" = [])),
    params(("workspace" = String, Path, description = "The workspace's id")),
    responses((status = 200, body = Workspace), (status = 404, body = Problem, content_type = "application/problem+json")))]
async fn read(
    _: Admin,
    State(database): State<Database>,
    InPath(id): InPath<WorkspaceId>,
) -> Result<Json<Workspace>, Problem> {
    Ok(Json(find(&database, id).await?))
}

async fn find(database: &Database, id: WorkspaceId) -> Result<Workspace, Problem> {
    sqlx::query_as!(
        Workspace,
        r#"SELECT workspace_id AS "id: WorkspaceId", name, ledger_id AS "ledger: LedgerId", created_at,
                  workspace_id IN (SELECT workspace_id FROM instance) AS "own!"
             FROM workspaces WHERE workspace_id = $1"#,
        id.uuid()
    )
    .fetch_optional(&database.worker)
    .await?
    .ok_or_else(|| Problem::not_found(format!("The workspace {id} does not exist.")))
}
