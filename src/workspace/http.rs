//! `/v1/workspaces`.

use super::{Error, end};
use crate::access::scope::Role;
use crate::access::{Access, Caller, Gate, needs};
use crate::database::{Database, Seen};
use crate::http::App;
use crate::http::extract::{Body, InPath, InQuery};
use crate::http::page::{Made, Page, PageQuery, made};
use crate::http::problem::{Kind, Problem};
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
    /// What the person who asks is in it; in the list that a session asks for, and nowhere else.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Role>)]
    role: Option<String>,
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
    /// 1 to 100 characters. Others may be called the same.
    #[schema(min_length = 1, max_length = 100)]
    name: Option<String>,
    /// Whether its owners and administrators have to sign in with a passkey. An owner takes it back, in a session that
    /// began with one, or a key that reaches the whole instance.
    passkey_required: Option<bool>,
}

/// What a new workspace is called.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewWorkspace {
    /// 1 to 100 characters. Others may be called the same.
    #[schema(min_length = 1, max_length = 100)]
    name: String,
}

/// A list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Workspaces {
    items: Vec<Workspace>,
    /// The `cursor` of the next page; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

impl From<Error> for Problem {
    fn from(e: Error) -> Self {
        match e {
            Error::Own | Error::NotEnding => Self::conflict(e.to_string()),
            Error::Name => Self::invalid(e.to_string()),
            Error::Lift => Self::forbidden(Kind::PasskeyRequired, e.to_string()),
            Error::Member(e) => e.into(),
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
    params(PageQuery),
    responses((status = 200, body = Workspaces), (status = 401, body = Problem, content_type = "application/problem+json")))]
async fn list(
    access: Access<needs::OneSelf>,
    State(database): State<Database>,
    InQuery(query): InQuery<PageQuery>,
) -> Result<Json<Workspaces>, Problem> {
    let page: Page<Made> = query.page()?;
    let (seen, only, member) = match access.caller {
        Caller::Key { instance: true, .. } => (Seen::All, None, None),
        Caller::Key { workspace, .. } => (Seen::One(workspace), Some(workspace), None),
        Caller::Session { user, .. } => (Seen::Of(user), None, Some(user)),
    };
    let everywhere = matches!(seen, Seen::All);
    let mut tx = database.workspaces(seen).await?;
    let mut items = sqlx::query_as!(
        Workspace,
        r#"SELECT workspace_id AS "id: WorkspaceId", name, ledger_id AS "ledger: LedgerId", created_at,
                  passkey_required, delete_after, deleted_at,
                  workspace_id IN (SELECT workspace_id FROM instance) AS "own!",
                  (SELECT role FROM members m WHERE m.workspace_id = workspaces.workspace_id AND user_id = $3) AS role
             FROM workspaces
            WHERE ($1 OR workspace_id = $2
               OR workspace_id IN (SELECT workspace_id FROM members WHERE user_id = $3) AND deleted_at IS NULL)
              AND ($4::timestamptz IS NULL OR (created_at, workspace_id) > ($4, $5::uuid))
            ORDER BY created_at, workspace_id LIMIT $6"#,
        everywhere,
        only.map(WorkspaceId::uuid),
        member.map(UserId::uuid),
        page.after_at(),
        page.after_id(),
        page.rows()
    )
    .fetch_all(&mut *tx)
    .await?;
    let next = page.cut(&mut items, |workspace| made(workspace.created_at, workspace.id.uuid()));
    Ok(Json(Workspaces { items, next }))
}

/// Makes a workspace.
#[utoipa::path(post, path = "/v1/workspaces", tag = "workspaces", security(("token" = []), ("session" = [])), request_body = NewWorkspace,
    responses((status = 201, body = Workspace),
        (status = 401, body = Problem, content_type = "application/problem+json"),
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
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
async fn update(
    access: Access<needs::WorkspaceWrite>,
    State(writer): State<Writer>,
    InPath(id): InPath<WorkspaceId>,
    Body(change): Body<WorkspaceChange>,
) -> Result<Json<Workspace>, Problem> {
    let WorkspaceChange { name, passkey_required } = change;
    // What a key, or whoever has another's account, could lift would keep nobody out.
    let may_lift = access.caller.grants().covers(Role::Owner.grants())
        && match access.caller {
            Caller::Key { instance, .. } => instance,
            Caller::Session { passkey, .. } => passkey,
        };
    end::update(&writer, &access.act(), id, end::Change { name, passkey_required, may_lift }).await?;
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
    let mut tx = database.workspace(id).await?;
    sqlx::query_as!(
        Workspace,
        r#"SELECT workspace_id AS "id: WorkspaceId", name, ledger_id AS "ledger: LedgerId", created_at,
                  passkey_required, delete_after, deleted_at,
                  workspace_id IN (SELECT workspace_id FROM instance) AS "own!", NULL::text AS role
             FROM workspaces WHERE workspace_id = $1"#,
        id.uuid()
    )
    .fetch_optional(&mut *tx)
    .await?
    .ok_or_else(|| Problem::not_found(format!("The workspace {id} does not exist.")))
}
