//! `/v1/workspaces/{workspace}/keys`.

use crate::access::door::{Access, Caller, Gate};
use crate::access::keys::{self, NewKey};
use crate::access::scope::{Permissions, Scope, Scopes, needs};
use crate::database::Database;
use crate::http::App;
use crate::http::etag;
use crate::http::extract::{Body, InPath, InQuery};
use crate::http::page::{Made, Page, PageQuery, made};
use crate::http::problem::{Kind, Problem};
use crate::id::{KeyId, WorkspaceId};
use crate::ledger::Writer;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
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
    /// Whether it opens nothing for now, because the person who made it (or the key that made it) is disabled, or no
    /// member of the workspace.
    suspended: bool,
}

impl etag::Configured for ApiKey {
    // Its use moves the rest.
    const CONFIGURATION: &'static [&'static str] =
        &["id", "name", "scopes", "instance", "expires_at", "revoked_at"];
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

impl From<keys::Error> for Problem {
    fn from(e: keys::Error) -> Self {
        use keys::Error;
        match e {
            Error::Missing(_) => Self::not_found(e.to_string()),
            Error::Ended(_) => Self::conflict(e.to_string()),
            Error::Name | Error::Expiry | Error::Overlap => Self::invalid(e.to_string()),
            Error::Outlives => Self::forbidden(Kind::Scope, e.to_string()),
            Error::Sql(e) => e.into(),
            Error::Append(e) => e.into(),
            Error::Draft(e) => e.into(),
        }
    }
}

/// The routes of keys.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_keys, create_key))
        .routes(routes!(read_key, revoke_key))
        .routes(routes!(rotate_key))
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
    drop(tx);
    // Who is disabled is known across workspaces.
    let suspended = sqlx::query_scalar!(
        r#"SELECT k.key_id AS "id: KeyId" FROM api_keys k LEFT JOIN users u ON u.user_id = k.person
            WHERE k.workspace_id = $1 AND k.person IS NOT NULL
              AND (u.disabled_at IS NOT NULL OR NOT EXISTS (SELECT FROM members m
                    WHERE m.workspace_id = k.workspace_id AND m.user_id = k.person))"#,
        workspace.uuid()
    )
    .fetch_all(&database.worker)
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
            suspended: suspended.contains(&r.id),
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
    responses((status = 200, body = ApiKey,
        headers(("ETag" = String, description = "A tag of its configuration, for `If-Match`: what moves by itself does not change it"))), (status = 404, body = Problem, content_type = "application/problem+json")))]
async fn read_key(
    _: Access<needs::KeysRead>,
    State(database): State<Database>,
    InPath((workspace, id)): InPath<(WorkspaceId, KeyId)>,
) -> Result<Response, Problem> {
    let key = one_key(&database, workspace, id).await?;
    Ok(etag::configured(&key))
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
    if !access.caller.grants().covers(granted(&scopes, new.instance)) {
        return Err(Problem::forbidden(Kind::Scope, "A key cannot be given more than whoever makes it has."));
    }
    if new.instance {
        let reaches = matches!(access.caller, Caller::Key { instance: true, .. });
        if !reaches || workspace != gate.instance {
            return Err(Problem::forbidden(
                Kind::Instance,
                "A key that reaches every workspace is made in the instance's own workspace, by one that does so too.",
            ));
        }
    }
    let (person, expires_at) = (access.caller.person(), new.expires_at);
    let new = NewKey { name: new.name, scopes, instance: new.instance, expires_at, person };
    let (id, token) =
        keys::create(&writer, &gate.secret, &access.act(), workspace, new, access.caller.ends()).await?;
    let key = one_key(writer.database(), workspace, id).await?;
    Ok((StatusCode::CREATED, Json(CreatedApiKey { key, token: token.as_str().to_owned() })))
}

/// What a key of these scopes grants at most.
fn granted(scopes: &Scopes, instance: bool) -> Permissions {
    if instance { scopes.grants() } else { scopes.grants().of_one_workspace() }
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
    let scopes = key.scopes.join(".").parse::<Scopes>();
    let covered = scopes.is_ok_and(|scopes| caller.grants().covers(granted(&scopes, key.instance)));
    if covered && (reaches || !key.instance) {
        Ok(())
    } else {
        Err(Problem::forbidden(Kind::Scope, "The key has more than you have."))
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
    let how = keys::Replacement { overlap, person: access.caller.person(), latest: access.caller.ends() };
    let (new, token) = keys::rotate(&writer, &gate.secret, &access.act(), workspace, id, how).await?;
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
