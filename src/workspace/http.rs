//! `/v1/workspaces`.

use super::{Error, end};
use crate::access::{Access, Caller, Gate, needs};
use crate::database::Database;
use crate::http::App;
use crate::http::extract::{Body, InPath};
use crate::http::problem::Problem;
use crate::id::{LedgerId, UserId, WorkspaceId};
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
    /// Whether its owners and administrators have to sign in with a passkey.
    passkey_required: bool,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    /// When everything of it that can be opened is destroyed; `null` while nobody asked for that.
    #[serde(with = "time::serde::rfc3339::option")]
    delete_after: Option<OffsetDateTime>,
    /// When it was.
    #[serde(with = "time::serde::rfc3339::option")]
    deleted_at: Option<OffsetDateTime>,
}

/// What changes of a workspace; what is not named stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WorkspaceChange {
    /// 1 to 100 characters, unique in the instance.
    #[schema(min_length = 1, max_length = 100)]
    name: Option<String>,
    /// Whether its owners and administrators have to sign in with a passkey.
    passkey_required: Option<bool>,
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
            Error::NameTaken(_) | Error::Own | Error::NotEnding => Self::conflict(e.to_string()),
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
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(read, update, remove))
        .routes(routes!(restore))
        .merge(super::status::router())
}

/// Lists the workspaces that whoever asks has a part in.
#[utoipa::path(get, path = "/v1/workspaces", tag = "workspaces", security(("token" = []), ("session" = [])),
    responses((status = 200, body = Workspaces), (status = 401, body = Problem, content_type = "application/problem+json")))]
async fn list(
    access: Access<needs::OneSelf>,
    State(database): State<Database>,
) -> Result<Json<Workspaces>, Problem> {
    let (everywhere, only, member) = match access.caller {
        Caller::Key { instance, workspace, .. } => (instance, Some(workspace), None),
        Caller::Session { user, .. } => (false, None, Some(user)),
    };
    let items = sqlx::query_as!(
        Workspace,
        r#"SELECT workspace_id AS "id: WorkspaceId", name, ledger_id AS "ledger: LedgerId", created_at,
                  passkey_required, delete_after, deleted_at,
                  workspace_id IN (SELECT workspace_id FROM instance) AS "own!"
             FROM workspaces
            WHERE $1 OR workspace_id = $2
               OR workspace_id IN (SELECT workspace_id FROM members WHERE user_id = $3) AND deleted_at IS NULL
            ORDER BY created_at, workspace_id"#,
        everywhere,
        only.map(WorkspaceId::uuid),
        member.map(UserId::uuid)
    )
    .fetch_all(&database.worker)
    .await?;
    Ok(Json(Workspaces { items }))
}

/// Makes a workspace.
#[utoipa::path(post, path = "/v1/workspaces", tag = "workspaces", security(("token" = []), ("session" = [])), request_body = NewWorkspace,
    responses((status = 201, body = Workspace),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
async fn create(
    access: Access<needs::Instance>,
    State(database): State<Database>,
    State(writer): State<Writer>,
    Body(new): Body<NewWorkspace>,
) -> Result<(StatusCode, Json<Workspace>), Problem> {
    // Who makes it owns it; a key owns nothing.
    let owner = match access.caller {
        Caller::Session { user, .. } => Some(user),
        Caller::Key { .. } => None,
    };
    let (id, _) = super::create(&writer, &access.act(), &new.name, owner).await?;
    Ok((StatusCode::CREATED, Json(find(&database, id).await?)))
}

/// Shows a workspace.
#[utoipa::path(get, path = "/v1/workspaces/{workspace}", tag = "workspaces", security(("token" = []), ("session" = [])),
    params(("workspace" = String, Path, description = "The workspace's id")),
    responses((status = 200, body = Workspace), (status = 404, body = Problem, content_type = "application/problem+json")))]
async fn read(
    _: Access<needs::WorkspaceRead>,
    State(database): State<Database>,
    InPath(id): InPath<WorkspaceId>,
) -> Result<Json<Workspace>, Problem> {
    Ok(Json(find(&database, id).await?))
}

/// Changes a workspace.
#[utoipa::path(patch, path = "/v1/workspaces/{workspace}", tag = "workspaces", security(("token" = []), ("session" = [])),
    params(("workspace" = String, Path, description = "The workspace's id")), request_body = WorkspaceChange,
    responses((status = 200, body = Workspace),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
async fn update(
    access: Access<needs::WorkspaceWrite>,
    State(writer): State<Writer>,
    InPath(id): InPath<WorkspaceId>,
    Body(change): Body<WorkspaceChange>,
) -> Result<Json<Workspace>, Problem> {
    let WorkspaceChange { name, passkey_required } = change;
    end::update(&writer, &access.act(), id, end::Change { name, passkey_required }).await?;
    Ok(Json(find(writer.database(), id).await?))
}

/// Asks for a workspace's deletion. After the waiting period (`delete_after`) its data key, secrets and openings are
/// destroyed; its entries stay.
#[utoipa::path(delete, path = "/v1/workspaces/{workspace}", tag = "workspaces", security(("token" = []), ("session" = [])),
    params(("workspace" = String, Path, description = "The workspace's id")),
    responses((status = 202, body = Workspace),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json")))]
async fn remove(
    access: Access<needs::WorkspaceDelete>,
    State(writer): State<Writer>,
    State(gate): State<Gate>,
    InPath(id): InPath<WorkspaceId>,
) -> Result<(StatusCode, Json<Workspace>), Problem> {
    end::request(&writer, &access.act(), id, gate.deletion_waits).await?;
    Ok((StatusCode::ACCEPTED, Json(find(writer.database(), id).await?)))
}

/// Calls a workspace's deletion off.
#[utoipa::path(post, path = "/v1/workspaces/{workspace}/restore", tag = "workspaces", security(("token" = []), ("session" = [])),
    params(("workspace" = String, Path, description = "The workspace's id")),
    responses((status = 200, body = Workspace),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json")))]
async fn restore(
    access: Access<needs::WorkspaceDelete>,
    State(writer): State<Writer>,
    InPath(id): InPath<WorkspaceId>,
) -> Result<Json<Workspace>, Problem> {
    end::cancel(&writer, &access.act(), id).await?;
    Ok(Json(find(writer.database(), id).await?))
}

async fn find(database: &Database, id: WorkspaceId) -> Result<Workspace, Problem> {
    sqlx::query_as!(
        Workspace,
        r#"SELECT workspace_id AS "id: WorkspaceId", name, ledger_id AS "ledger: LedgerId", created_at,
                  passkey_required, delete_after, deleted_at,
                  workspace_id IN (SELECT workspace_id FROM instance) AS "own!"
             FROM workspaces WHERE workspace_id = $1"#,
        id.uuid()
    )
    .fetch_optional(&database.worker)
    .await?
    .ok_or_else(|| Problem::not_found(format!("The workspace {id} does not exist.")))
}
