//! `/v1/workspaces/{workspace}/sources`, and the subjects they speak of.

use super::inbound::{self, SourceTokens};
use super::key;
use super::poller::access::{self, Access as Reach};
use super::poller::fetch_options;
use super::webhook::{self, WebhookSecrets};
use super::{Error, Kind, NewSource, app_store, google_play};
use crate::access::{Access, needs};
use crate::config::PollingSettings;
use crate::database::Database;
use crate::http::App;
use crate::http::etag;
use crate::http::extract::{Body, InPath, InQuery};
use crate::http::page::{Made, Page, PageQuery, made};
use crate::http::problem::Problem;
use crate::id::{SourceId, WorkspaceId};
use crate::ledger::Writer;
use crate::redacted::redacted;
use axum::Json;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use zeroize::Zeroizing;

redacted!(SourceRequest, CreatedSource, WebhookSecretRequest);

/// A source. Its key is never shown.
#[derive(Debug, Serialize, ToSchema)]
pub struct Source {
    /// `src_` and a UUID.
    #[schema(value_type = String, example = "src_0199b1c4-0000-7000-8000-000000000001")]
    id: SourceId,
    /// What it is: `app_store`, `google_play`, `inbound`.
    kind: String,
    /// What people call it.
    name: String,
    /// How it fares: `new`, `ok`, `degraded`, `suspect`, `refused`, `agreements_missing`, `role_too_small`,
    /// `clock_skewed`.
    health: String,
    /// Why, in words.
    health_detail: Option<String>,
    /// A store key: hexadecimal digits by which it is told from another, and that tell nothing of it; none where there is no
    /// key. docs/operations.md says how they are made.
    key_fingerprint: Option<String>,
    /// When the key was given.
    #[serde(with = "time::serde::rfc3339::option")]
    key_set_at: Option<OffsetDateTime>,
    /// Whether the store's own webhooks are taken.
    webhook_secret_set: bool,
    /// A store key: what it could read when it was given, each read tried.
    #[schema(value_type = Option<Reach>)]
    access: Option<serde_json::Value>,
    /// When it was last swept.
    #[serde(with = "time::serde::rfc3339::option")]
    last_polled_at: Option<OffsetDateTime>,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
}

impl etag::Configured for Source {
    // Polls move the rest.
    const CONFIGURATION: &'static [&'static str] = &["id", "kind", "name"];
}

/// A list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Sources {
    items: Vec<Source>,
    /// The `cursor` of the next page; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// A source to be made.
#[derive(Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum SourceRequest {
    /// An App Store Connect API key.
    AppStore {
        /// 1 to 100 characters, unique in the workspace.
        name: String,
        /// The key. Without one the source is only told, by the store's own webhooks.
        credentials: Option<app_store::Credentials>,
        /// What the store's own webhooks are signed with: 8 to 255 characters, as given to App Store Connect.
        webhook_secret: Option<String>,
        /// The store's address, where the operator allows another.
        base_url: Option<String>,
    },
    /// A Google Play service account.
    GooglePlay {
        /// 1 to 100 characters, unique in the workspace.
        name: String,
        /// The service account, as Google's JSON file has it.
        #[schema(value_type = Object)]
        service_account: serde_json::Value,
        /// The publisher API's address, where the operator allows another.
        publisher_url: Option<String>,
        /// The reporting API's address, where the operator allows another.
        reporting_url: Option<String>,
        /// Whether rollouts (status, fraction, priority) are read, which opens and discards edits: a new edit ends the
        /// account's open one, so that a CI's uploads with the same account fail. Default false.
        #[serde(default)]
        rollout_by_edits: bool,
        /// With `rollout_by_edits`: the account's `client_email`, as a sign that nothing else uses it.
        dedicated_account: Option<String>,
    },
    /// Events posted to `/in/{source}`.
    Inbound {
        /// 1 to 100 characters, unique in the workspace.
        name: String,
    },
}

/// A source that was made.
#[derive(Serialize, ToSchema)]
pub struct CreatedSource {
    /// The source.
    #[serde(flatten)]
    source: Source,
    /// An inbound source's token, shown this once.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

/// A subject: what has a status.
#[derive(Debug, Serialize, ToSchema)]
pub struct Subject {
    /// Its source.
    #[schema(value_type = String)]
    source: SourceId,
    /// `version`, `build`, `release`.
    kind: String,
    /// The store's id of it.
    key: String,
    /// The app: bundle id or package name.
    app: String,
    /// What a person knows it by.
    #[schema(value_type = Object)]
    description: serde_json::Value,
    /// Its state, as the store spells it.
    state: String,
    /// When that was first seen, or, where the store told it by itself, when it was so by the store's clock.
    #[serde(with = "time::serde::rfc3339")]
    state_since: OffsetDateTime,
    /// When it was last seen.
    #[serde(with = "time::serde::rfc3339")]
    last_seen_at: OffsetDateTime,
    /// The entry that says so.
    seq: i64,
}

/// A list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Subjects {
    items: Vec<Subject>,
    /// The `cursor` of the next page; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

impl From<Error> for Problem {
    fn from(e: Error) -> Self {
        match e {
            Error::Missing(_) => Self::not_found(e.to_string()),
            Error::Name(ref what) if what.ends_with("exists") => Self::conflict(what.clone()),
            e @ Error::OtherAccount => Self::conflict(e.to_string()),
            Error::Name(what) | Error::Key(what) => Self::invalid(what),
            Error::Sql(e) => e.into(),
            Error::Sealing(e) => e.into(),
            Error::Append(e) => e.into(),
            Error::Draft(e) => e.into(),
            e @ Error::Seal(_) => Self::internal(e),
        }
    }
}

/// The routes of sources.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(read, remove))
        .routes(routes!(set_webhook_secret))
        .routes(routes!(key::set_key))
        .routes(routes!(look))
        .routes(routes!(subjects))
}

/// The routes at which sources are told something, each with a token or a signature of its own.
pub fn inbound() -> OpenApiRouter<App> {
    // One byte more than a payload may have, so that the refusal is ours and says so.
    OpenApiRouter::new()
        .routes(routes!(inbound::receive))
        .routes(routes!(webhook::receive))
        .layer(DefaultBodyLimit::max(inbound::MAX_PAYLOAD + 1))
}

async fn all(
    database: &Database,
    workspace: WorkspaceId,
    only: Option<SourceId>,
    page: &Page<Made>,
) -> Result<Vec<Source>, Problem> {
    let mut tx = database.workspace(workspace).await?;
    if crate::instance::ledger_of(&mut tx).await?.is_none() {
        return Err(Problem::not_found(format!("The workspace {workspace} does not exist.")));
    }
    Ok(sqlx::query_as!(
        Source,
        r#"SELECT source_id AS "id: SourceId", kind, name, health, health_detail, access, last_polled_at,
                  created_at, encode(key_fingerprint, 'hex') AS key_fingerprint, key_set_at,
                  webhook_secret IS NOT NULL AS "webhook_secret_set!"
             FROM sources
            WHERE workspace_id = $1 AND deleted_at IS NULL AND ($2::uuid IS NULL OR source_id = $2)
              AND ($3::timestamptz IS NULL OR (created_at, source_id) > ($3, $4::uuid))
            ORDER BY created_at, source_id LIMIT $5"#,
        workspace.uuid(),
        only.map(SourceId::uuid),
        page.after_at(),
        page.after_id(),
        page.rows()
    )
    .fetch_all(&mut *tx)
    .await?)
}

pub(super) async fn one(
    database: &Database,
    workspace: WorkspaceId,
    id: SourceId,
) -> Result<Source, Problem> {
    all(database, workspace, Some(id), &Page::one()).await?.pop().ok_or_else(|| Error::Missing(id).into())
}

/// Lists the sources.
#[utoipa::path(get, path = "/v1/workspaces/{workspace}/sources", tag = "sources", security(("token" = []), ("session" = [])),
    params(("workspace" = String, Path, description = "The workspace's id"), PageQuery),
    responses((status = 200, body = Sources), (status = 404, body = Problem, content_type = "application/problem+json")))]
async fn list(
    _: Access<needs::SourcesRead>,
    State(database): State<Database>,
    InPath(workspace): InPath<WorkspaceId>,
    InQuery(query): InQuery<PageQuery>,
) -> Result<Json<Sources>, Problem> {
    let page = query.page()?;
    let mut items = all(&database, workspace, None, &page).await?;
    let next = page.cut(&mut items, |source| made(source.created_at, source.id.uuid()));
    Ok(Json(Sources { items, next }))
}

/// Makes a source. Keys are kept encrypted and never shown; an inbound source's token is shown this once.
#[utoipa::path(post, path = "/v1/workspaces/{workspace}/sources", tag = "sources", security(("token" = []), ("session" = [])),
    params(("workspace" = String, Path, description = "The workspace's id")), request_body = SourceRequest,
    responses((status = 201, body = CreatedSource),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
async fn create(
    access: Access<needs::SourcesWrite>,
    State(database): State<Database>,
    State(writer): State<Writer>,
    State(polling): State<PollingSettings>,
    InPath(workspace): InPath<WorkspaceId>,
    Body(request): Body<SourceRequest>,
) -> Result<(StatusCode, Json<CreatedSource>), Problem> {
    let new = check(request, &polling)?;
    let (id, token) = super::create(&writer, &access.act(), workspace, new).await?;
    // The source is made; what the store says to its key now is a report and no condition.
    if let Err(e) = access::try_reads(&database, &writer, &polling, workspace, id).await {
        tracing::warn!(source = %id, error = %e, "the reads of a new key could not be tried");
    }
    let source = one(&database, workspace, id).await?;
    let token = token.map(|t| t.as_str().to_owned());
    Ok((StatusCode::CREATED, Json(CreatedSource { source, token })))
}

/// Checks that a client can be made of what was given, so that a wrong key is refused now and here.
fn check(request: SourceRequest, polling: &PollingSettings) -> Result<NewSource, Error> {
    let other_host = |given: bool| {
        if given && !polling.allow_other_hosts {
            return Err(Error::Key("this instance does not allow other addresses for the stores".into()));
        }
        Ok(())
    };
    let unusable = |e: super::fetch::StoreError| Error::Key(format!("the key is not usable: {e}"));
    let json = |e: serde_json::Error| Error::Key(e.to_string());
    let options = fetch_options(polling);
    match request {
        SourceRequest::AppStore { name, credentials, webhook_secret, base_url } => {
            other_host(base_url.is_some())?;
            let webhook_secret = webhook_secret.map(checked_secret).transpose()?;
            if credentials.is_none() && webhook_secret.is_none() {
                return Err(Error::Key(
                    "a source of this kind needs credentials, a webhook_secret, or both".into(),
                ));
            }
            let settings = app_store::StoreSettings { base_url };
            let secret = match credentials {
                Some(credentials) => {
                    app_store::client(&credentials, &settings, options).map_err(unusable)?;
                    Some(Zeroizing::new(serde_json::to_vec(&credentials).map_err(json)?))
                }
                None => None,
            };
            let settings = serde_json::to_value(settings).map_err(json)?;
            Ok(NewSource { kind: Kind::AppStore, name, settings, secret, webhook_secret })
        }
        SourceRequest::GooglePlay {
            name,
            service_account,
            publisher_url,
            reporting_url,
            rollout_by_edits,
            dedicated_account,
        } => {
            other_host(publisher_url.is_some() || reporting_url.is_some())?;
            let settings = google_play::StoreSettings {
                publisher_url,
                reporting_url,
                rollout_by_edits,
                dedicated_account,
            };
            let account = Zeroizing::new(service_account.to_string());
            google_play::client(&account, &settings, options).map_err(unusable)?;
            let secret = Zeroizing::new(account.as_bytes().to_vec());
            let settings = serde_json::to_value(settings).map_err(json)?;
            Ok(NewSource {
                kind: Kind::GooglePlay,
                name,
                settings,
                secret: Some(secret),
                webhook_secret: None,
            })
        }
        SourceRequest::Inbound { name } => {
            let settings = serde_json::json!({});
            Ok(NewSource { kind: Kind::Inbound, name, settings, secret: None, webhook_secret: None })
        }
    }
}

/// A webhook secret, as both sides have it.
fn checked_secret(secret: String) -> Result<Zeroizing<Vec<u8>>, Error> {
    let secret = Zeroizing::new(secret.into_bytes());
    if (8..=255).contains(&secret.len()) {
        Ok(secret)
    } else {
        Err(Error::Key("a webhook_secret has 8 to 255 bytes".into()))
    }
}

/// Asks a store for everything now, whatever is planned: for whoever has just done something there.
#[utoipa::path(post, path = "/v1/workspaces/{workspace}/sources/{source}/look", tag = "sources", security(("token" = []), ("session" = [])),
    params(("workspace" = String, Path, description = "The workspace's id"), ("source" = String, Path)),
    responses((status = 202), (status = 404, body = Problem, content_type = "application/problem+json")))]
async fn look(
    access: Access<needs::SourcesWrite>,
    State(writer): State<Writer>,
    InPath((workspace, id)): InPath<(WorkspaceId, SourceId)>,
) -> Result<StatusCode, Problem> {
    one(writer.database(), workspace, id).await?;
    super::record_look(&writer, &access.act(), workspace, id).await?;
    super::poller::make_due(writer.database(), workspace, id).await?;
    Ok(StatusCode::ACCEPTED)
}

/// What the store's own webhooks are signed with.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WebhookSecretRequest {
    /// 8 to 255 characters, as given to App Store Connect; `null`, which has to be said, refuses its webhooks from now on.
    #[serde(deserialize_with = "Option::deserialize")]
    #[schema(required)]
    secret: Option<String>,
}

/// Sets what App Store Connect's own webhooks are signed with. It is kept encrypted and never shown. The webhook's
/// address is `/in/{source}/app-store-connect` of this instance.
#[utoipa::path(put, path = "/v1/workspaces/{workspace}/sources/{source}/webhook-secret", tag = "sources",
    security(("token" = []), ("session" = [])),
    params(("workspace" = String, Path, description = "The workspace's id"), ("source" = String, Path)),
    request_body = WebhookSecretRequest,
    responses((status = 204),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
async fn set_webhook_secret(
    access: Access<needs::SourcesWrite>,
    State(writer): State<Writer>,
    State(secrets): State<WebhookSecrets>,
    InPath((workspace, id)): InPath<(WorkspaceId, SourceId)>,
    Body(request): Body<WebhookSecretRequest>,
) -> Result<StatusCode, Problem> {
    let secret = request.secret.map(checked_secret).transpose()?;
    super::set_webhook_secret(&writer, &access.act(), workspace, id, secret.as_ref().map(|s| &s[..])).await?;
    secrets.forget(id);
    Ok(StatusCode::NO_CONTENT)
}

/// Shows a source.
#[utoipa::path(get, path = "/v1/workspaces/{workspace}/sources/{source}", tag = "sources", security(("token" = []), ("session" = [])),
    params(("workspace" = String, Path, description = "The workspace's id"), ("source" = String, Path)),
    responses((status = 200, body = Source,
        headers(("ETag" = String, description = "A tag of its configuration, for `If-Match`: what moves by itself does not change it"))), (status = 404, body = Problem, content_type = "application/problem+json")))]
async fn read(
    _: Access<needs::SourcesRead>,
    State(database): State<Database>,
    InPath((workspace, id)): InPath<(WorkspaceId, SourceId)>,
) -> Result<Response, Problem> {
    let source = one(&database, workspace, id).await?;
    Ok(etag::configured(&source))
}

/// Removes a source and destroys its key. What it said stays.
#[utoipa::path(delete, path = "/v1/workspaces/{workspace}/sources/{source}", tag = "sources", security(("token" = []), ("session" = [])),
    params(("workspace" = String, Path, description = "The workspace's id"), ("source" = String, Path)),
    responses((status = 204), (status = 404, body = Problem, content_type = "application/problem+json")))]
async fn remove(
    access: Access<needs::SourcesWrite>,
    State(writer): State<Writer>,
    State(tokens): State<SourceTokens>,
    State(secrets): State<WebhookSecrets>,
    InPath((workspace, id)): InPath<(WorkspaceId, SourceId)>,
) -> Result<StatusCode, Problem> {
    super::delete(&writer, &access.act(), workspace, id).await?;
    tokens.forget(id);
    secrets.forget(id);
    Ok(StatusCode::NO_CONTENT)
}

/// Lists what has a status, and which.
#[utoipa::path(get, path = "/v1/workspaces/{workspace}/subjects", tag = "sources", security(("token" = []), ("session" = [])),
    params(("workspace" = String, Path, description = "The workspace's id"), PageQuery),
    responses((status = 200, body = Subjects), (status = 404, body = Problem, content_type = "application/problem+json")))]
async fn subjects(
    _: Access<needs::SourcesRead>,
    State(database): State<Database>,
    InPath(workspace): InPath<WorkspaceId>,
    InQuery(query): InQuery<PageQuery>,
) -> Result<Json<Subjects>, Problem> {
    let page: Page<(String, String, String, uuid::Uuid)> = query.page()?;
    let (app, kind, key, source) = match page.after.clone() {
        Some((app, kind, key, source)) => (Some(app), Some(kind), Some(key), Some(source)),
        None => Default::default(),
    };
    let mut tx = database.workspace(workspace).await?;
    if crate::instance::ledger_of(&mut tx).await?.is_none() {
        return Err(Problem::not_found(format!("The workspace {workspace} does not exist.")));
    }
    let mut items = sqlx::query_as!(
        Subject,
        r#"SELECT source_id AS "source: SourceId", kind, subject_key AS key, app, description, state, state_since,
                  last_seen_at, seq
             FROM subjects
            WHERE workspace_id = $1
              AND ($2::text IS NULL OR (app, kind, subject_key, source_id) > ($2, $3::text, $4::text, $5::uuid))
            ORDER BY app, kind, subject_key, source_id LIMIT $6"#,
        workspace.uuid(),
        app,
        kind,
        key,
        source,
        page.rows()
    )
    .fetch_all(&mut *tx)
    .await?;
    let next = page.cut(&mut items, |s| (s.app.clone(), s.kind.clone(), s.key.clone(), s.source.uuid()));
    Ok(Json(Subjects { items, next }))
}
