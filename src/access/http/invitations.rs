//! `/v1/workspaces/{workspace}/invitations`, and how they are accepted.

use crate::access::door::{Access, Gate, Person};
use crate::access::members::Invited;
use crate::access::scope::{Role, needs};
use crate::access::sign_in::SignIn;
use crate::access::{members, people};
use crate::http::App;
use crate::http::extract::{Body, InPath, InQuery};
use crate::http::page::{Made, Page, PageQuery, made};
use crate::http::problem::Problem;
use crate::id::{InvitationId, WorkspaceId};
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

/// An invitation.
#[derive(Debug, Serialize, ToSchema)]
pub struct Invitation {
    /// `inv_` and a UUID.
    #[schema(value_type = String)]
    id: InvitationId,
    /// Who was invited.
    email: Option<String>,
    /// As what.
    role: Role,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    /// Until when it can be accepted.
    #[serde(with = "time::serde::rfc3339")]
    expires_at: OffsetDateTime,
    /// When it was.
    #[serde(with = "time::serde::rfc3339::option")]
    accepted_at: Option<OffsetDateTime>,
    /// When it was withdrawn.
    #[serde(with = "time::serde::rfc3339::option")]
    revoked_at: Option<OffsetDateTime>,
}

/// A list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Invitations {
    items: Vec<Invitation>,
    /// The `cursor` of the next page; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// Whom to invite.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewInvitation {
    /// Their address.
    #[schema(example = "ana@example.com")]
    email: String,
    /// As what: not more than whoever invites.
    role: Role,
}

/// An invitation that was made.
#[derive(Debug, Serialize, ToSchema)]
pub struct CreatedInvitation {
    /// Which.
    #[schema(value_type = String)]
    id: InvitationId,
    /// What the invited shows, signed in, to `POST /v1/invitations/accept`; shown this once.
    token: String,
    /// What to hand to them: the page on which they accept it, signed in or as somebody new. Has the token in it.
    #[schema(format = "uri")]
    link: String,
    /// Until when.
    #[serde(with = "time::serde::rfc3339")]
    expires_at: OffsetDateTime,
    /// Invitations to the same address that were open until now: withdrawn, since this one takes their place.
    #[schema(value_type = Vec<String>)]
    invitations_withdrawn: Vec<InvitationId>,
}

/// What the invited shows.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Acceptance {
    /// The invitation's text.
    token: String,
}

/// A membership that began.
#[derive(Debug, Serialize, ToSchema)]
pub struct Joined {
    /// The workspace.
    #[schema(value_type = String)]
    workspace: WorkspaceId,
    /// As what.
    role: Role,
}

/// The routes of invitations.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_invitations, invite))
        .routes(routes!(withdraw_invitation))
        .routes(routes!(accept_invitation))
}

/// Lists the invitations.
#[utoipa::path(get, path = "/v1/workspaces/{workspace}/invitations", tag = "members", security(("token" = []), ("session" = [])),
    params(("workspace" = String, Path, description = "The workspace's id"), PageQuery),
    responses((status = 200, body = Invitations), (status = 404, body = Problem, content_type = "application/problem+json")))]
async fn list_invitations(
    _: Access<needs::MembersRead>,
    State(gate): State<Gate>,
    State(data_keys): State<DataKeys>,
    InPath(workspace): InPath<WorkspaceId>,
    InQuery(query): InQuery<PageQuery>,
) -> Result<Json<Invitations>, Problem> {
    let page: Page<Made> = query.page()?;
    let data_key = data_keys.get(workspace).await?;
    let mut tx = gate.database.workspace(workspace).await?;
    let rows = sqlx::query!(
        r#"SELECT invitation_id AS "id: InvitationId", role, profile, created_at, expires_at, accepted_at, revoked_at
             FROM invitations
            WHERE workspace_id = $1
              AND ($2::timestamptz IS NULL OR (created_at, invitation_id) > ($2, $3::uuid))
            ORDER BY created_at, invitation_id LIMIT $4"#,
        workspace.uuid(),
        page.after_at(),
        page.after_id(),
        page.rows()
    )
    .fetch_all(&mut *tx)
    .await?;
    let mut items = Vec::with_capacity(rows.len());
    for row in rows {
        let profile = people::open_profile(&data_key, "invitations", row.id.uuid(), &row.profile)?;
        let role =
            Role::from_name(&row.role).ok_or_else(|| Problem::internal("an invitation has no role"))?;
        items.push(Invitation {
            id: row.id,
            email: profile.email,
            role,
            created_at: row.created_at,
            expires_at: row.expires_at,
            accepted_at: row.accepted_at,
            revoked_at: row.revoked_at,
        });
    }
    let next = page.cut(&mut items, |invitation| made(invitation.created_at, invitation.id.uuid()));
    Ok(Json(Invitations { items, next }))
}

/// Invites somebody, for a week; by a key that ends sooner, until then. The answer's `link` is shown this once: hand it to
/// them. Where the key that made it is revoked, the invitation is withdrawn. One that is still open to the same address is
/// withdrawn too: this one takes its place, if its role is no more than one's own.
#[utoipa::path(post, path = "/v1/workspaces/{workspace}/invitations", tag = "members", security(("token" = []), ("session" = [])),
    params(("workspace" = String, Path, description = "The workspace's id")), request_body = NewInvitation,
    responses((status = 201, body = CreatedInvitation),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
async fn invite(
    access: Access<needs::MembersWrite>,
    State(writer): State<Writer>,
    State(sign_in): State<SignIn>,
    InPath(workspace): InPath<WorkspaceId>,
    Body(new): Body<NewInvitation>,
) -> Result<(StatusCode, Json<CreatedInvitation>), Problem> {
    let (act, secret) = (access.act(), &sign_in.gate.secret);
    let Invited { id, token, expires_at, withdrawn } =
        members::invite(&writer, secret, &act, &access.caller, workspace, &new.email, new.role).await?;
    let token = token.as_str().to_owned();
    let link = format!("{}/invite/{token}", sign_in.base.as_str().trim_end_matches('/'));
    let made = CreatedInvitation { id, token, link, expires_at, invitations_withdrawn: withdrawn };
    Ok((StatusCode::CREATED, Json(made)))
}

/// Withdraws an invitation, to a role of no more than one's own.
#[utoipa::path(delete, path = "/v1/workspaces/{workspace}/invitations/{invitation}", tag = "members", security(("token" = []), ("session" = [])),
    params(("workspace" = String, Path, description = "The workspace's id"), ("invitation" = String, Path)),
    responses((status = 204), (status = 403, body = Problem, content_type = "application/problem+json"), (status = 404, body = Problem, content_type = "application/problem+json")))]
async fn withdraw_invitation(
    access: Access<needs::MembersWrite>,
    State(writer): State<Writer>,
    InPath((workspace, id)): InPath<(WorkspaceId, InvitationId)>,
) -> Result<StatusCode, Problem> {
    members::withdraw(&writer, &access.act(), access.caller.grants(), workspace, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Accepts an invitation, for whoever is signed in.
#[utoipa::path(post, path = "/v1/invitations/accept", tag = "session", security(("session" = [])), request_body = Acceptance,
    responses((status = 200, body = Joined),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json")))]
async fn accept_invitation(
    person: Person,
    State(writer): State<Writer>,
    Body(acceptance): Body<Acceptance>,
) -> Result<Json<Joined>, Problem> {
    let (workspace, role) = members::accept(&writer, &person.act(), person.user, &acceptance.token).await?;
    Ok(Json(Joined { workspace, role }))
}
