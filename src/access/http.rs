//! `/v1/workspaces/{workspace}/keys`, `…/members`, `…/invitations`, and `/v1/session`.

use super::caller::{Access, Caller, Gate};
use super::keys::{self, NewKey};
use super::people::{self, Profile};
use super::scope::{Role, Scope, Scopes, needs};
use super::{members, session};
use crate::audit::{Act, Action, Actor};
use crate::database::Database;
use crate::http::App;
use crate::http::extract::{Body, InPath, InQuery};
use crate::http::page::{Made, Page, PageQuery, made};
use crate::http::problem::Problem;
use crate::id::{InvitationId, KeyId, SessionId, UserId, WorkspaceId};
use crate::ledger::Writer;
use crate::sealing::DataKeys;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// How long a replaced key lasts where nothing else is asked for, in seconds.
const OVERLAP_S: i64 = 86_400;

/// An API key. Its text is shown when it is made, and never again.
#[derive(Debug, Serialize, ToSchema)]
pub struct ApiKey {
    /// `key_` and a UUID.
    #[schema(value_type = String, example = "key_0199b1c4-0000-7000-8000-000000000001")]
    id: KeyId,
    /// What people call it.
    name: String,
    /// What it is for.
    #[schema(value_type = Vec<String>, example = json!(["read"]))]
    scopes: Vec<String>,
    /// Whether it reaches every workspace of the instance.
    instance: bool,
    /// Who made it: the id of a key or a user, or `operator`.
    created_by: String,
    /// The key that it replaces.
    #[schema(value_type = Option<String>)]
    replaces: Option<KeyId>,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    /// When it was last used, to the minute.
    #[serde(with = "time::serde::rfc3339::option")]
    last_used_at: Option<OffsetDateTime>,
    /// When it ends by itself.
    #[serde(with = "time::serde::rfc3339::option")]
    expires_at: Option<OffsetDateTime>,
    /// When it was ended.
    #[serde(with = "time::serde::rfc3339::option")]
    revoked_at: Option<OffsetDateTime>,
}

/// A list.
#[derive(Debug, Serialize, ToSchema)]
pub struct ApiKeys {
    items: Vec<ApiKey>,
    /// The `cursor` of the next page; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// A key to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewApiKey {
    /// 1 to 100 characters.
    #[schema(min_length = 1, max_length = 100)]
    name: String,
    /// What it is for: `read`, `write`, `admin`, or narrower ones (`ledger:export`, `sources:write`, …). None of more
    /// than whoever asks has.
    #[schema(value_type = Vec<String>, min_items = 1, example = json!(["sources:write", "ledger:read"]))]
    scopes: Vec<Scope>,
    /// When it ends by itself: within ten years. Made by a key that ends, it ends no later, and then if nothing is said.
    #[serde(default, with = "time::serde::rfc3339::option")]
    expires_at: Option<OffsetDateTime>,
    /// Whether it reaches every workspace; only in the instance's own workspace, and by one that does so too.
    #[serde(default)]
    instance: bool,
}

/// A key that was made.
#[derive(Debug, Serialize, ToSchema)]
pub struct CreatedApiKey {
    /// The key.
    #[serde(flatten)]
    key: ApiKey,
    /// Its text, shown this once.
    #[schema(example = "sl_read_0199b1c40000700080000000000000a1_…")]
    token: String,
}

/// How a key is replaced.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rotation {
    /// Seconds for which the old one still holds. Default a day.
    #[schema(minimum = 0, maximum = 2_592_000)]
    overlap_s: Option<i64>,
}

/// A member.
#[derive(Debug, Serialize, ToSchema)]
pub struct Member {
    /// `usr_` and a UUID.
    #[schema(value_type = String)]
    user: UserId,
    /// What they may do.
    role: Role,
    /// Their address.
    email: Option<String>,
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
    /// Until when.
    #[serde(with = "time::serde::rfc3339")]
    expires_at: OffsetDateTime,
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

/// Who is signed in.
#[derive(Debug, Serialize, ToSchema)]
pub struct CurrentSession {
    /// Who.
    #[schema(value_type = String)]
    user: UserId,
    /// Which session.
    #[schema(value_type = String)]
    session: SessionId,
    /// Their address and name.
    #[serde(flatten)]
    profile: Profile,
    /// Whether it began with a passkey.
    passkey: bool,
    /// To be sent as `X-CSRF-Token` with every change in this session.
    csrf_token: String,
}

/// A session of whoever asks.
#[derive(Debug, Serialize, ToSchema)]
pub struct Session {
    /// `ses_` and a UUID.
    #[schema(value_type = String)]
    id: SessionId,
    /// How it began: `oidc`, `github`, `passkey`, `link`.
    method: String,
    /// From which address.
    ip: Option<String>,
    /// In which browser.
    user_agent: Option<String>,
    /// When it began.
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    /// When it was last used, to the minute.
    #[serde(with = "time::serde::rfc3339")]
    last_seen_at: OffsetDateTime,
    /// When it ends by itself.
    #[serde(with = "time::serde::rfc3339")]
    expires_at: OffsetDateTime,
    /// Whether it is the one that asks.
    current: bool,
}

/// A list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Sessions {
    items: Vec<Session>,
}

impl From<keys::Error> for Problem {
    fn from(e: keys::Error) -> Self {
        use keys::Error;
        match e {
            Error::Missing(_) => Self::not_found(e.to_string()),
            Error::Ended(_) => Self::conflict(e.to_string()),
            Error::Name | Error::Expiry | Error::Overlap => Self::invalid(e.to_string()),
            Error::Outlives => Self::forbidden("scope", e.to_string()),
            Error::Sql(e) => e.into(),
            Error::Append(e) => e.into(),
            Error::Draft(e) => e.into(),
        }
    }
}

impl From<members::Error> for Problem {
    fn from(e: members::Error) -> Self {
        use members::Error;
        match e {
            Error::Missing(_) | Error::NoInvitation => Self::not_found(e.to_string()),
            Error::LastOwner | Error::Member => Self::conflict(e.to_string()),
            Error::Email => Self::invalid(e.to_string()),
            Error::TooMuch => Self::forbidden("role", e.to_string()),
            Error::Sql(e) => e.into(),
            Error::Sealing(e) => e.into(),
            Error::Append(e) => e.into(),
            Error::Draft(e) => e.into(),
        }
    }
}

/// The routes of access.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_keys, create_key))
        .routes(routes!(read_key, revoke_key))
        .routes(routes!(rotate_key))
        .routes(routes!(list_members))
        .routes(routes!(change_member, remove_member))
        .routes(routes!(list_invitations, invite))
        .routes(routes!(withdraw_invitation))
        .routes(routes!(accept_invitation))
        .routes(routes!(current_session, sign_out))
        .routes(routes!(list_sessions))
        .routes(routes!(end_session))
}

async fn keys_of(
    database: &Database,
    workspace: WorkspaceId,
    only: Option<KeyId>,
    page: &Page<Made>,
) -> Result<Vec<ApiKey>, Problem> {
    let mut tx = database.workspace(workspace).await?;
    let rows = sqlx::query!(
        r#"SELECT key_id AS "id: KeyId", name, scopes, instance, created_by, replaces AS "replaces: KeyId", created_at,
                  last_used_at, expires_at, revoked_at
             FROM api_keys
            WHERE workspace_id = $1 AND ($2::uuid IS NULL OR key_id = $2)
              AND ($3::timestamptz IS NULL OR (created_at, key_id) > ($3, $4::uuid))
            ORDER BY created_at, key_id LIMIT $5"#,
        workspace.uuid(),
        only.map(KeyId::uuid),
        page.after_at(),
        page.after_id(),
        page.rows()
    )
    .fetch_all(&mut *tx)
    .await?;
    Ok(rows
        .into_iter()
        .map(|r| ApiKey {
            id: r.id,
            name: r.name,
            scopes: r.scopes.split('.').map(str::to_owned).collect(),
            instance: r.instance,
            created_by: r.created_by,
            replaces: r.replaces,
            created_at: r.created_at,
            last_used_at: r.last_used_at,
            expires_at: r.expires_at,
            revoked_at: r.revoked_at,
        })
        .collect())
}

async fn one_key(database: &Database, workspace: WorkspaceId, id: KeyId) -> Result<ApiKey, Problem> {
    keys_of(database, workspace, Some(id), &Page::one())
        .await?
        .pop()
        .ok_or_else(|| keys::Error::Missing(id).into())
}

/// Lists the API keys, ended ones too.
#[utoipa::path(get, path = "/v1/workspaces/{workspace}/keys", tag = "keys", security(("token" = []), ("session" = [])),
    params(("workspace" = String, Path, description = "The workspace's id"), PageQuery),
    responses((status = 200, body = ApiKeys), (status = 404, body = Problem, content_type = "application/problem+json")))]
async fn list_keys(
    _: Access<needs::KeysRead>,
    State(database): State<Database>,
    InPath(workspace): InPath<WorkspaceId>,
    InQuery(query): InQuery<PageQuery>,
) -> Result<Json<ApiKeys>, Problem> {
    let page = query.page()?;
    let mut items = keys_of(&database, workspace, None, &page).await?;
    let next = page.cut(&mut items, |key| made(key.created_at, key.id.uuid()));
    Ok(Json(ApiKeys { items, next }))
}

/// Shows an API key, without its text.
#[utoipa::path(get, path = "/v1/workspaces/{workspace}/keys/{key}", tag = "keys", security(("token" = []), ("session" = [])),
    params(("workspace" = String, Path, description = "The workspace's id"), ("key" = String, Path)),
    responses((status = 200, body = ApiKey), (status = 404, body = Problem, content_type = "application/problem+json")))]
async fn read_key(
    _: Access<needs::KeysRead>,
    State(database): State<Database>,
    InPath((workspace, id)): InPath<(WorkspaceId, KeyId)>,
) -> Result<Json<ApiKey>, Problem> {
    Ok(Json(one_key(&database, workspace, id).await?))
}

/// Makes an API key. Its text is shown this once; only a hash is kept. A key grants no more than whoever makes it has, and
/// lasts no longer than the key that makes it.
#[utoipa::path(post, path = "/v1/workspaces/{workspace}/keys", tag = "keys", security(("token" = []), ("session" = [])),
    params(("workspace" = String, Path, description = "The workspace's id")), request_body = NewApiKey,
    responses((status = 201, body = CreatedApiKey),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
async fn create_key(
    access: Access<needs::KeysWrite>,
    State(gate): State<Gate>,
    State(writer): State<Writer>,
    InPath(workspace): InPath<WorkspaceId>,
    Body(new): Body<NewApiKey>,
) -> Result<(StatusCode, Json<CreatedApiKey>), Problem> {
    let scopes = Scopes::new(new.scopes).map_err(|e| Problem::invalid(e.to_string()))?;
    if !access.caller.grants().covers(scopes.grants()) {
        return Err(Problem::forbidden("scope", "A key cannot be given more than whoever makes it has."));
    }
    if new.instance {
        let reaches = matches!(access.caller, Caller::Key { instance: true, .. });
        if !reaches || workspace != gate.instance {
            return Err(Problem::forbidden(
                "instance",
                "A key that reaches every workspace is made in the instance's own workspace, by one that does so too.",
            ));
        }
    }
    let new = NewKey { name: new.name, scopes, instance: new.instance, expires_at: new.expires_at };
    let (id, token) =
        keys::create(&writer, &gate.secret, &access.act(), workspace, new, access.caller.ends()).await?;
    let key = one_key(writer.database(), workspace, id).await?;
    Ok((StatusCode::CREATED, Json(CreatedApiKey { key, token: token.as_str().to_owned() })))
}

/// Checks that whoever changes a key has all that it grants.
async fn check_reach(
    caller: &Caller,
    database: &Database,
    workspace: WorkspaceId,
    id: KeyId,
) -> Result<(), Problem> {
    let key = one_key(database, workspace, id).await?;
    let reaches = matches!(caller, Caller::Key { instance: true, .. });
    let covered = key.scopes.join(".").parse::<Scopes>().is_ok_and(|s| caller.grants().covers(s.grants()));
    if covered && (reaches || !key.instance) {
        Ok(())
    } else {
        Err(Problem::forbidden("scope", "The key has more than you have."))
    }
}

/// Replaces an API key by a new one of the same name and scopes, whose text is shown this once. The old one holds until
/// the overlap is over. The new one lasts as long as the old one was made for, but no longer than the key that asks.
#[utoipa::path(post, path = "/v1/workspaces/{workspace}/keys/{key}/rotate", tag = "keys", security(("token" = []), ("session" = [])),
    params(("workspace" = String, Path, description = "The workspace's id"), ("key" = String, Path)), request_body = Rotation,
    responses((status = 201, body = CreatedApiKey),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
async fn rotate_key(
    access: Access<needs::KeysWrite>,
    State(gate): State<Gate>,
    State(writer): State<Writer>,
    InPath((workspace, id)): InPath<(WorkspaceId, KeyId)>,
    Body(rotation): Body<Rotation>,
) -> Result<(StatusCode, Json<CreatedApiKey>), Problem> {
    check_reach(&access.caller, writer.database(), workspace, id).await?;
    let overlap = rotation.overlap_s.unwrap_or(OVERLAP_S);
    // Out of any bound is out of ours.
    let overlap = time::Duration::seconds(overlap.clamp(-1, keys::LONGEST_OVERLAP.whole_seconds() + 1));
    let (act, latest) = (access.act(), access.caller.ends());
    let (new, token) = keys::rotate(&writer, &gate.secret, &act, workspace, id, overlap, latest).await?;
    let key = one_key(writer.database(), workspace, new).await?;
    Ok((StatusCode::CREATED, Json(CreatedApiKey { key, token: token.as_str().to_owned() })))
}

/// Ends an API key at once.
#[utoipa::path(delete, path = "/v1/workspaces/{workspace}/keys/{key}", tag = "keys", security(("token" = []), ("session" = [])),
    params(("workspace" = String, Path, description = "The workspace's id"), ("key" = String, Path)),
    responses((status = 204),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json")))]
async fn revoke_key(
    access: Access<needs::KeysWrite>,
    State(writer): State<Writer>,
    InPath((workspace, id)): InPath<(WorkspaceId, KeyId)>,
) -> Result<StatusCode, Problem> {
    check_reach(&access.caller, writer.database(), workspace, id).await?;
    keys::revoke(&writer, &access.act(), workspace, id).await?;
    Ok(StatusCode::NO_CONTENT)
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
        r#"SELECT m.user_id AS "user: UserId", m.role, m.created_at, u.profile
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
        items.push(Member { user: row.user, role, email, name, created_at: row.created_at });
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
    members::set_role(&writer, &access.act(), access.caller.grants(), workspace, user, change.role).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Removes a member. Oneself anybody may remove, whatever their role, unless nobody would own the workspace.
#[utoipa::path(delete, path = "/v1/workspaces/{workspace}/members/{user}", tag = "members", security(("token" = []), ("session" = [])),
    params(("workspace" = String, Path, description = "The workspace's id"), ("user" = String, Path)),
    responses((status = 204),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json")))]
async fn remove_member(
    access: Access<needs::MembersRemove>,
    State(writer): State<Writer>,
    InPath((workspace, user)): InPath<(WorkspaceId, UserId)>,
) -> Result<StatusCode, Problem> {
    members::remove(&writer, &access.act(), access.caller.grants(), workspace, user).await?;
    Ok(StatusCode::NO_CONTENT)
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

/// Invites somebody. The answer's `token` is shown this once: hand it to them.
#[utoipa::path(post, path = "/v1/workspaces/{workspace}/invitations", tag = "members", security(("token" = []), ("session" = [])),
    params(("workspace" = String, Path, description = "The workspace's id")), request_body = NewInvitation,
    responses((status = 201, body = CreatedInvitation),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
async fn invite(
    access: Access<needs::MembersWrite>,
    State(writer): State<Writer>,
    InPath(workspace): InPath<WorkspaceId>,
    Body(new): Body<NewInvitation>,
) -> Result<(StatusCode, Json<CreatedInvitation>), Problem> {
    let grants = access.caller.grants();
    let (id, token, expires_at) =
        members::invite(&writer, &access.act(), grants, workspace, &new.email, new.role).await?;
    Ok((StatusCode::CREATED, Json(CreatedInvitation { id, token: token.as_str().to_owned(), expires_at })))
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

/// Who is signed in; keys are refused.
fn person(access: &Access<needs::OneSelf>) -> Result<(UserId, SessionId, bool), Problem> {
    match access.caller {
        Caller::Session { user, session, passkey, .. } => Ok((user, session, passkey)),
        Caller::Key { .. } => {
            Err(Problem::forbidden("session", "This is for people who are signed in, not for keys."))
        }
    }
}

fn act_of(access: &Access<needs::OneSelf>, user: UserId) -> Act {
    Act::new(Actor::User(user), super::context::Surface::Dashboard, access.context.clone())
}

/// Accepts an invitation, for whoever is signed in.
#[utoipa::path(post, path = "/v1/invitations/accept", tag = "session", security(("session" = [])), request_body = Acceptance,
    responses((status = 200, body = Joined),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json")))]
async fn accept_invitation(
    access: Access<needs::OneSelf>,
    State(writer): State<Writer>,
    Body(acceptance): Body<Acceptance>,
) -> Result<Json<Joined>, Problem> {
    let (user, _, _) = person(&access)?;
    let (workspace, role) = members::accept(&writer, &act_of(&access, user), user, &acceptance.token).await?;
    Ok(Json(Joined { workspace, role }))
}

/// Shows who is signed in, and the token that changes need.
#[utoipa::path(get, path = "/v1/session", tag = "session", security(("session" = [])),
    responses((status = 200, body = CurrentSession), (status = 403, body = Problem, content_type = "application/problem+json")))]
async fn current_session(
    access: Access<needs::OneSelf>,
    State(gate): State<Gate>,
    State(data_keys): State<DataKeys>,
    headers: HeaderMap,
) -> Result<Json<CurrentSession>, Problem> {
    let (user, id, passkey) = person(&access)?;
    let shown = session::cookie(&headers, &gate.sessions).and_then(|text| session::read(&gate.secret, text));
    let csrf_token =
        shown.map(|s| session::csrf_token(&gate.secret, &s)).ok_or_else(Problem::unauthorized)?;
    let data_key = data_keys.get(gate.instance).await?;
    let mut tx = session::person(&gate.database, user).await?;
    let sealed = sqlx::query_scalar!("SELECT profile FROM users WHERE user_id = $1", user.uuid())
        .fetch_one(&mut *tx)
        .await?;
    let profile = people::open_profile(&data_key, "users", user.uuid(), &sealed)?;
    Ok(Json(CurrentSession { user, session: id, profile, passkey, csrf_token }))
}

/// Ends sessions of one person, with an entry in the instance's ledger.
async fn end(
    writer: &Writer,
    gate: &Gate,
    act: &Act,
    user: UserId,
    id: SessionId,
    action: Action,
) -> Result<(), Problem> {
    let mut locked = writer.lock(gate.instance).await?;
    sqlx::query_scalar!("SELECT set_config('sl.user', $1, true)", user.uuid().to_string())
        .fetch_one(&mut **locked)
        .await?;
    let ended = sqlx::query!(
        "UPDATE sessions SET ended_at = now() WHERE session_id = $1 AND user_id = $2 AND ended_at IS NULL",
        id.uuid(),
        user.uuid()
    )
    .execute(&mut **locked)
    .await?
    .rows_affected();
    if ended == 0 {
        return Err(Problem::not_found(format!("You have no session {id}.")));
    }
    locked.append(&[act.of(action).target("session", id).draft()?]).await?;
    locked.commit().await?;
    Ok(())
}

/// Signs out: ends the session, on every node, and clears the cookie.
#[utoipa::path(delete, path = "/v1/session", tag = "session", security(("session" = [])),
    responses((status = 204), (status = 403, body = Problem, content_type = "application/problem+json")))]
async fn sign_out(
    access: Access<needs::OneSelf>,
    State(gate): State<Gate>,
    State(writer): State<Writer>,
) -> Result<Response, Problem> {
    let (user, id, _) = person(&access)?;
    end(&writer, &gate, &act_of(&access, user), user, id, Action::SignedOut).await?;
    let cookie = session::set_cookie(&gate.sessions, None);
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)]).into_response())
}

/// Lists the sessions of whoever is signed in.
#[utoipa::path(get, path = "/v1/sessions", tag = "session", security(("session" = [])),
    responses((status = 200, body = Sessions), (status = 403, body = Problem, content_type = "application/problem+json")))]
async fn list_sessions(
    access: Access<needs::OneSelf>,
    State(gate): State<Gate>,
    State(data_keys): State<DataKeys>,
) -> Result<Json<Sessions>, Problem> {
    let (user, current, _) = person(&access)?;
    let data_key = data_keys.get(gate.instance).await?;
    let mut tx = session::person(&gate.database, user).await?;
    let rows = sqlx::query!(
        r#"SELECT session_id AS "id: SessionId", method, context, created_at, last_seen_at, expires_at
             FROM sessions WHERE user_id = $1 AND ended_at IS NULL AND expires_at > now() ORDER BY created_at, session_id"#,
        user.uuid()
    )
    .fetch_all(&mut *tx)
    .await?;
    let mut items = Vec::with_capacity(rows.len());
    for row in rows {
        let context = data_key
            .open(&session::context_cell(&[row.id.uuid().as_bytes()]), &row.context)
            .map_err(crate::sealing::Error::from)?;
        let context: serde_json::Value = serde_json::from_slice(&context).unwrap_or_default();
        let said = |name: &str| context[name].as_str().map(str::to_owned);
        items.push(Session {
            id: row.id,
            method: row.method,
            ip: said("ip"),
            user_agent: said("user_agent"),
            created_at: row.created_at,
            last_seen_at: row.last_seen_at,
            expires_at: row.expires_at,
            current: row.id == current,
        });
    }
    Ok(Json(Sessions { items }))
}

/// Ends a session of whoever is signed in.
#[utoipa::path(delete, path = "/v1/sessions/{session}", tag = "session", security(("session" = [])),
    params(("session" = String, Path)),
    responses((status = 204),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
async fn end_session(
    access: Access<needs::OneSelf>,
    State(gate): State<Gate>,
    State(writer): State<Writer>,
    InPath(id): InPath<SessionId>,
) -> Result<StatusCode, Problem> {
    let (user, _, _) = person(&access)?;
    end(&writer, &gate, &act_of(&access, user), user, id, Action::SessionRevoked).await?;
    Ok(StatusCode::NO_CONTENT)
}
