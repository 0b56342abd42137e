//! `/v1/workspaces/{workspace}/members`.

use crate::access::door::{Access, Gate, Person};
use crate::access::members;
use crate::access::people::{self, Profile};
use crate::access::scope::{Role, needs};
use crate::http::App;
use crate::http::extract::{Body, InPath, InQuery};
use crate::http::page::{Made, Page, PageQuery, made};
use crate::http::problem::{Kind, Problem};
use crate::id::{InvitationId, KeyId, UserId, WorkspaceId};
use crate::ledger::Writer;
use crate::sealing::DataKeys;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// A member.
#[derive(Debug, Serialize, ToSchema)]
pub struct Member {
    /// `usr_` and a UUID.
    #[schema(value_type = String)]
    user: UserId,
    /// What they may do.
    role: Role,
    /// Their address, where an identity provider has verified it.
    email: Option<String>,
    /// The address that they were invited by, which nobody has verified; null where they came otherwise.
    invited_as: Option<String>,
    /// Their name.
    name: Option<String>,
    /// Since when.
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
}

/// A list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Members {
    items: Vec<Member>,
    /// The `cursor` of the next page; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// A member's new role.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RoleChange {
    /// The role.
    role: Role,
}

/// What lets others in for somebody who is a member no more.
#[derive(Debug, Serialize, ToSchema)]
pub struct EndedMembership {
    /// Their open invitations: withdrawn.
    #[schema(value_type = Vec<String>)]
    invitations_withdrawn: Vec<InvitationId>,
    /// API keys that they made, or that such keys made: they open nothing until they are a member again. One that others
    /// need is theirs once they rotate it.
    #[schema(value_type = Vec<String>)]
    keys_at_rest: Vec<KeyId>,
}

impl From<members::Left> for EndedMembership {
    fn from(left: members::Left) -> Self {
        Self { invitations_withdrawn: left.invitations, keys_at_rest: left.keys }
    }
}

impl From<members::Error> for Problem {
    fn from(e: members::Error) -> Self {
        use members::Error;
        match e {
            Error::Missing(_) | Error::NoInvitation => Self::not_found(e.to_string()),
            Error::LastOwner | Error::Member => Self::conflict(e.to_string()),
            Error::Email => Self::invalid(e.to_string()),
            Error::TooMuch => Self::forbidden(Kind::Role, e.to_string()),
            Error::Passkey => Self::forbidden(Kind::PasskeyRequired, e.to_string()),
            Error::Sql(e) => e.into(),
            Error::Sealing(e) => e.into(),
            Error::Append(e) => e.into(),
            Error::Draft(e) => e.into(),
        }
    }
}

/// The routes of members.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_members))
        .routes(routes!(change_member, remove_member))
        .routes(routes!(leave))
}

/// Lists the members.
#[utoipa::path(get, path = "/v1/workspaces/{workspace}/members", tag = "members", security(("token" = []), ("session" = [])),
    params(("workspace" = String, Path, description = "The workspace's id"), PageQuery),
    responses((status = 200, body = Members), (status = 404, body = Problem, content_type = "application/problem+json")))]
async fn list_members(
    _: Access<needs::MembersRead>,
    State(gate): State<Gate>,
    State(data_keys): State<DataKeys>,
    InPath(workspace): InPath<WorkspaceId>,
    InQuery(query): InQuery<PageQuery>,
) -> Result<Json<Members>, Problem> {
    let page: Page<Made> = query.page()?;
    let data_key = data_keys.get(gate.instance).await?;
    let mut tx = gate.database.workspace(workspace).await?;
    let rows = sqlx::query!(
        r#"SELECT m.user_id AS "user: UserId", m.role, m.created_at, m.profile AS invited_as, u.profile
             FROM members m JOIN users u USING (user_id)
            WHERE m.workspace_id = $1
              AND ($2::timestamptz IS NULL OR (m.created_at, m.user_id) > ($2, $3::uuid))
            ORDER BY m.created_at, m.user_id LIMIT $4"#,
        workspace.uuid(),
        page.after_at(),
        page.after_id(),
        page.rows()
    )
    .fetch_all(&mut *tx)
    .await?;
    let mut items = Vec::with_capacity(rows.len());
    for row in rows {
        let Profile { email, name } =
            people::open_profile(&data_key, "users", row.user.uuid(), &row.profile)?;
        let role = Role::from_name(&row.role).ok_or_else(|| Problem::internal("a member has no role"))?;
        let invited_as = match &row.invited_as {
            Some(sealed) => {
                let workspace_key = data_keys.get(workspace).await?;
                people::open_profile(&workspace_key, "members", row.user.uuid(), sealed)?.email
            }
            None => None,
        };
        items.push(Member { user: row.user, role, email, invited_as, name, created_at: row.created_at });
    }
    let next = page.cut(&mut items, |member| made(member.created_at, member.user.uuid()));
    Ok(Json(Members { items, next }))
}

/// Gives a member another role.
#[utoipa::path(patch, path = "/v1/workspaces/{workspace}/members/{user}", tag = "members", security(("token" = []), ("session" = [])),
    params(("workspace" = String, Path, description = "The workspace's id"), ("user" = String, Path)), request_body = RoleChange,
    responses((status = 204),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json")))]
async fn change_member(
    access: Access<needs::MembersWrite>,
    State(writer): State<Writer>,
    InPath((workspace, user)): InPath<(WorkspaceId, UserId)>,
    Body(change): Body<RoleChange>,
) -> Result<StatusCode, Problem> {
    members::set_role(&writer, &access.act(), &access.caller, workspace, user, change.role).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Removes a member, unless nobody would own the workspace. Their open invitations are withdrawn, and API keys that they made
/// open nothing any more until they are a member again. Whoever may not change members leaves by `DELETE …/membership`.
#[utoipa::path(delete, path = "/v1/workspaces/{workspace}/members/{user}", tag = "members", security(("token" = []), ("session" = [])),
    params(("workspace" = String, Path, description = "The workspace's id"), ("user" = String, Path)),
    responses((status = 200, body = EndedMembership),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json")))]
async fn remove_member(
    access: Access<needs::MembersWrite>,
    State(writer): State<Writer>,
    InPath((workspace, user)): InPath<(WorkspaceId, UserId)>,
) -> Result<Json<EndedMembership>, Problem> {
    let left = members::remove(&writer, &access.act(), access.caller.grants(), workspace, user).await?;
    Ok(Json(left.into()))
}

/// Leaves a workspace, in one's own session and whatever one's role there; its last owner stays. Invitations and API keys of
/// one's own end and rest as with a removal.
#[utoipa::path(delete, path = "/v1/workspaces/{workspace}/membership", tag = "members", security(("session" = [])),
    params(("workspace" = String, Path, description = "The workspace's id")),
    responses((status = 200, body = EndedMembership),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json")))]
async fn leave(
    person: Person,
    State(writer): State<Writer>,
    InPath(workspace): InPath<WorkspaceId>,
) -> Result<Json<EndedMembership>, Problem> {
    let left = members::leave(&writer, &person.act(), workspace, person.user).await.map_err(|e| match e {
        // Whoever has no part in a workspace does not hear whether it exists.
        members::Error::Missing(_) => {
            Problem::not_found(format!("The workspace {workspace} does not exist."))
        }
        e => e.into(),
    })?;
    Ok(Json(left.into()))
}
