//! `/v1/workspaces/{workspace}/destinations` and `…/deliveries`.

use super::LaneKey;
use super::destination::{self, Change, Error, NewDestination};
use super::dispatcher::Shared;
use super::guard::Policy;
use super::queue::{self, Wanted};
use super::routes::Filter;
use crate::access::scope::Permission;
use crate::access::{Access, Caller, needs};
use crate::audit::Action;
use crate::http::App;
use crate::http::etag;
use crate::http::extract::{Body, InPath, InQuery};
use crate::http::page::{Made, Page, PageQuery, made};
use crate::http::problem::{Kind, Problem};
use crate::id::{DestinationId, LedgerId, ReceiptId, WorkspaceId};
use crate::ledger::Writer;
use crate::ledger::checkpoint::SignedTree;
use crate::receipt;
use crate::redacted::redacted;
use crate::sealing;
use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use statusledger_verify::Mode;
use statusledger_verify::json::Value;
use std::sync::Arc;
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

redacted!(DestinationRequest, DestinationChange, CreatedDestination, NewSecret, Destination);

/// A destination. Its secret is shown when it is made or rotated, and never again.
#[derive(Serialize, ToSchema)]
pub struct Destination {
    /// `ep_` and a UUID.
    #[schema(value_type = String, example = "ep_0199b1c4-0000-7000-8000-000000000001")]
    id: DestinationId,
    /// `webhook`.
    kind: String,
    /// What people call it.
    name: String,
    /// Where to.
    url: String,
    /// What it wants.
    #[schema(value_type = Filter)]
    filter: sqlx::types::Json<Filter>,
    /// Whether notifications carry the openings of sealed values.
    openings: bool,
    /// Attempts at once, at most.
    max_in_flight: i32,
    /// Since when it takes nothing any more.
    #[serde(with = "time::serde::rfc3339::option")]
    disabled_at: Option<OffsetDateTime>,
    /// Why.
    disabled_reason: Option<String>,
    /// The number of its newest delivery.
    last_number: i64,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
}

impl etag::Configured for Destination {
    // Deliveries move the rest. `disabled_at` says whether it is enabled.
    const CONFIGURATION: &'static [&'static str] =
        &["id", "kind", "name", "url", "filter", "openings", "max_in_flight", "disabled_at"];
}

/// A list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Destinations {
    items: Vec<Destination>,
    /// The `cursor` of the next page; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// A destination to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DestinationRequest {
    /// 1 to 100 characters, unique in the workspace.
    name: String,
    /// Where to: https, and a public address, unless the operator allows more.
    url: String,
    /// What it wants (default: everything but first sights).
    #[serde(default)]
    filter: Filter,
    /// Whether notifications carry the openings of sealed values (default: whether whoever makes it may take them away,
    /// `ledger:export`).
    openings: Option<bool>,
    /// Attempts at once, at most (1 to 256, default 1: strictly in order).
    max_in_flight: Option<i32>,
}

/// What changes of a destination; what is absent stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DestinationChange {
    /// 1 to 100 characters, unique in the workspace.
    name: Option<String>,
    /// Where to.
    url: Option<String>,
    /// What it wants.
    filter: Option<Filter>,
    /// Whether notifications carry the openings of sealed values.
    openings: Option<bool>,
    /// Attempts at once, at most.
    max_in_flight: Option<i32>,
    /// Whether it takes notifications.
    enabled: Option<bool>,
}

/// A destination that was made.
#[derive(Serialize, ToSchema)]
pub struct CreatedDestination {
    /// The destination.
    #[serde(flatten)]
    destination: Destination,
    /// Its `whsec_` secret (Standard Webhooks), shown this once.
    secret: String,
}

/// A new secret, shown this once.
#[derive(Serialize, ToSchema)]
pub struct NewSecret {
    /// The `whsec_` secret. The one before stays valid for 24 hours.
    secret: String,
}

/// The entry of a test event.
#[derive(Debug, Serialize, ToSchema)]
pub struct Tested {
    /// Its place in the ledger.
    seq: u64,
}

/// A delivery: an entry on its way to a destination.
#[derive(Debug, Serialize, ToSchema)]
pub struct Delivery {
    /// Where to.
    #[schema(value_type = String)]
    destination: DestinationId,
    /// Which of the destination's deliveries it is, from 1. The number in its receipt is counted within the ledger: it
    /// starts again with another ledger, after an accepted loss.
    number: i64,
    /// The ledger.
    #[schema(value_type = String)]
    ledger: LedgerId,
    /// The entry.
    seq: i64,
    /// The receipt's id, also `webhook-id`.
    #[schema(value_type = String)]
    receipt: ReceiptId,
    /// `pending`, `retry`, `delivered`, `given_up`.
    state: String,
    /// Attempts made.
    attempts: i32,
    /// When the next attempt is due.
    #[serde(with = "time::serde::rfc3339::option")]
    next_attempt_at: Option<OffsetDateTime>,
    /// When it was delivered or given up.
    #[serde(with = "time::serde::rfc3339::option")]
    settled_at: Option<OffsetDateTime>,
}

/// A page of deliveries.
#[derive(Debug, Serialize, ToSchema)]
pub struct Deliveries {
    items: Vec<Delivery>,
    /// Where the next page begins; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<i64>,
}

/// An attempt.
#[derive(Debug, Serialize, ToSchema)]
pub struct Attempt {
    /// Which, from 1.
    attempt: i32,
    /// When it began.
    #[serde(with = "time::serde::rfc3339")]
    started_at: OffsetDateTime,
    /// How long it took, in microseconds.
    duration_us: i64,
    /// The answer's status.
    status: Option<i32>,
    /// What went wrong.
    error: Option<String>,
    /// The first KiB of the answer of an attempt that failed.
    answer: Option<String>,
}

/// A delivery with its attempts.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeliveryDetail {
    /// The delivery.
    #[serde(flatten)]
    delivery: Delivery,
    /// Its attempts (named `history`, since `attempts` counts them).
    history: Vec<Attempt>,
}

/// Which deliveries.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct DeliveriesQuery {
    /// From this number on (default 1).
    #[param(minimum = 1)]
    from: Option<i64>,
    /// At most this many (1 to 1000, default 100).
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<i64>,
    /// Only in this state.
    state: Option<String>,
}

/// Which deliveries to make again.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Redelivery {
    /// The first number.
    #[schema(minimum = 1)]
    from: i64,
    /// The last number.
    #[schema(minimum = 1)]
    to: i64,
}

/// How many are made again.
#[derive(Debug, Serialize, ToSchema)]
pub struct Redelivered {
    count: u64,
}

impl From<Error> for Problem {
    fn from(e: Error) -> Self {
        match e {
            Error::Missing(_) | Error::NoDelivery(..) => Self::not_found(e.to_string()),
            Error::Disabled(_) | Error::NameTaken(_) => Self::conflict(e.to_string()),
            Error::Beyond(_) => Self::forbidden(Kind::Scope, e.to_string()),
            Error::Name | Error::Url(_) | Error::Refused(_) | Error::Filter(_) | Error::MaxInFlight => {
                Self::invalid(e.to_string())
            }
            Error::Sql(e) => e.into(),
            Error::Sealing(e) => e.into(),
            Error::Append(e) => e.into(),
            Error::Draft(e) => e.into(),
            e @ (Error::Seal(_) | Error::Secret | Error::Emptied | Error::Random) => Self::internal(e),
        }
    }
}

/// What whoever asks is told of it.
fn refused(caller: &Caller, e: Error) -> Problem {
    match e {
        Error::Beyond(_) => caller.beyond(e.to_string()),
        e => e.into(),
    }
}

/// The routes of destinations and deliveries.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(read, update, remove))
        .routes(routes!(test))
        .routes(routes!(rotate_secret))
        .routes(routes!(deliveries))
        .routes(routes!(delivery))
        .routes(routes!(delivery_receipt))
        .routes(routes!(redeliver))
}

async fn all(
    writer: &Writer,
    workspace: WorkspaceId,
    only: Option<DestinationId>,
    page: &Page<Made>,
) -> Result<Vec<Destination>, Problem> {
    let mut tx = writer.database().workspace(workspace).await?;
    if crate::instance::ledger_of(&mut tx).await?.is_none() {
        return Err(Problem::not_found(format!("The workspace {workspace} does not exist.")));
    }
    let rows = sqlx::query!(
        r#"SELECT d.destination_id AS "id: DestinationId", d.kind, d.name, d.url,
                  d.filter AS "filter: sqlx::types::Json<Filter>", d.openings, d.max_in_flight, d.disabled_at,
                  d.disabled_reason, l.last_number, d.created_at
             FROM destinations d JOIN lanes l USING (workspace_id, destination_id)
            WHERE d.workspace_id = $1 AND d.deleted_at IS NULL AND ($2::uuid IS NULL OR d.destination_id = $2)
              AND ($3::timestamptz IS NULL OR (d.created_at, d.destination_id) > ($3, $4::uuid))
            ORDER BY d.created_at, d.destination_id LIMIT $5"#,
        workspace.uuid(),
        only.map(DestinationId::uuid),
        page.after_at(),
        page.after_id(),
        page.rows()
    )
    .fetch_all(&mut *tx)
    .await?;
    drop(tx);
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let data_key = writer.data_keys().get(workspace).await?;
    rows.into_iter()
        .map(|row| {
            Ok(Destination {
                id: row.id,
                kind: row.kind,
                name: row.name,
                url: destination::open_url(&data_key, row.id, row.url.as_deref())?,
                filter: row.filter,
                openings: row.openings,
                max_in_flight: row.max_in_flight,
                disabled_at: row.disabled_at,
                disabled_reason: row.disabled_reason,
                last_number: row.last_number,
                created_at: row.created_at,
            })
        })
        .collect()
}

async fn one(writer: &Writer, workspace: WorkspaceId, id: DestinationId) -> Result<Destination, Problem> {
    all(writer, workspace, Some(id), &Page::one()).await?.pop().ok_or_else(|| Error::Missing(id).into())
}

/// Lists the destinations.
#[utoipa::path(get, path = "/v1/workspaces/{workspace}/destinations", tag = "destinations", security(("token" = []), ("session" = [])),
    params(("workspace" = String, Path, description = "The workspace's id"), PageQuery),
    responses((status = 200, body = Destinations), (status = 404, body = Problem, content_type = "application/problem+json")))]
async fn list(
    _: Access<needs::DestinationsRead>,
    State(writer): State<Writer>,
    InPath(workspace): InPath<WorkspaceId>,
    InQuery(query): InQuery<PageQuery>,
) -> Result<Json<Destinations>, Problem> {
    let page = query.page()?;
    let mut items = all(&writer, workspace, None, &page).await?;
    let next = page.cut(&mut items, |d| made(d.created_at, d.id.uuid()));
    Ok(Json(Destinations { items, next }))
}

/// Makes a destination; its secret is shown this once. It is sent no more than whoever makes it may read: entries need
/// `ledger:read`, audit entries `audit:read`, openings `ledger:export`.
#[utoipa::path(post, path = "/v1/workspaces/{workspace}/destinations", tag = "destinations", security(("token" = []), ("session" = [])),
    params(("workspace" = String, Path, description = "The workspace's id")), request_body = DestinationRequest,
    responses((status = 201, body = CreatedDestination),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
async fn create(
    access: Access<needs::DestinationsWrite>,
    State(writer): State<Writer>,
    State(policy): State<Policy>,
    State(shared): State<Arc<Shared>>,
    InPath(workspace): InPath<WorkspaceId>,
    Body(request): Body<DestinationRequest>,
) -> Result<(StatusCode, Json<CreatedDestination>), Problem> {
    let grants = access.caller.grants();
    let new = NewDestination {
        name: request.name,
        url: request.url,
        filter: request.filter,
        openings: request.openings.unwrap_or(grants.has(Permission::LedgerExport)),
        max_in_flight: request.max_in_flight.unwrap_or(1),
    };
    let (id, secret) = destination::create(&writer, &access.act(), grants, &policy, workspace, new)
        .await
        .map_err(|e| refused(&access.caller, e))?;
    shared.changed(LaneKey { workspace, destination: id });
    let destination = one(&writer, workspace, id).await?;
    let secret = secret.expose().as_str().to_owned();
    Ok((StatusCode::CREATED, Json(CreatedDestination { destination, secret })))
}

/// Shows a destination.
#[utoipa::path(get, path = "/v1/workspaces/{workspace}/destinations/{destination}", tag = "destinations", security(("token" = []), ("session" = [])),
    params(("workspace" = String, Path, description = "The workspace's id"), ("destination" = String, Path)),
    responses((status = 200, body = Destination,
        headers(("ETag" = String, description = "A tag of its configuration, for `If-Match`: what moves by itself does not change it"))), (status = 404, body = Problem, content_type = "application/problem+json")))]
async fn read(
    _: Access<needs::DestinationsRead>,
    State(writer): State<Writer>,
    InPath((workspace, id)): InPath<(WorkspaceId, DestinationId)>,
) -> Result<Response, Problem> {
    let destination = one(&writer, workspace, id).await?;
    Ok(etag::configured(&destination))
}

/// A change of a destination, after which its lane is told: also where its answer is not waited for any more, or where it is
/// not known whether it was committed.
struct Changing<'a>(&'a Shared, LaneKey);

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        self.0.changed(self.1);
        self.0.look();
    }
}

/// Changes a destination. Its address, its filter and its openings change only to what whoever asks may read.
#[utoipa::path(patch, path = "/v1/workspaces/{workspace}/destinations/{destination}", tag = "destinations", security(("token" = []), ("session" = [])),
    params(("workspace" = String, Path, description = "The workspace's id"), ("destination" = String, Path)),
    request_body = DestinationChange,
    responses((status = 200, body = Destination),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
async fn update(
    access: Access<needs::DestinationsWrite>,
    State(writer): State<Writer>,
    State(policy): State<Policy>,
    State(shared): State<Arc<Shared>>,
    InPath((workspace, id)): InPath<(WorkspaceId, DestinationId)>,
    Body(request): Body<DestinationChange>,
) -> Result<Json<Destination>, Problem> {
    let _changed = Changing(&shared, LaneKey { workspace, destination: id });
    let change = Change {
        name: request.name,
        url: request.url,
        filter: request.filter,
        openings: request.openings,
        max_in_flight: request.max_in_flight,
        enabled: request.enabled,
    };
    let grants = access.caller.grants();
    destination::update(&writer, &access.act(), grants, &policy, workspace, id, change)
        .await
        .map_err(|e| refused(&access.caller, e))?;
    shared.look();
    Ok(Json(one(&writer, workspace, id).await?))
}

/// Removes a destination. Its deliveries and attempts stay.
#[utoipa::path(delete, path = "/v1/workspaces/{workspace}/destinations/{destination}", tag = "destinations", security(("token" = []), ("session" = [])),
    params(("workspace" = String, Path, description = "The workspace's id"), ("destination" = String, Path)),
    responses((status = 204), (status = 404, body = Problem, content_type = "application/problem+json")))]
async fn remove(
    access: Access<needs::DestinationsWrite>,
    State(writer): State<Writer>,
    State(shared): State<Arc<Shared>>,
    InPath((workspace, id)): InPath<(WorkspaceId, DestinationId)>,
) -> Result<StatusCode, Problem> {
    let _changed = Changing(&shared, LaneKey { workspace, destination: id });
    destination::delete(&writer, &access.act(), workspace, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Sends a test event to this destination alone.
#[utoipa::path(post, path = "/v1/workspaces/{workspace}/destinations/{destination}/test", tag = "destinations", security(("token" = []), ("session" = [])),
    params(("workspace" = String, Path, description = "The workspace's id"), ("destination" = String, Path)),
    responses((status = 202, body = Tested), (status = 409, body = Problem, content_type = "application/problem+json"), (status = 404, body = Problem, content_type = "application/problem+json")))]
async fn test(
    access: Access<needs::DestinationsWrite>,
    State(writer): State<Writer>,
    InPath((workspace, id)): InPath<(WorkspaceId, DestinationId)>,
) -> Result<(StatusCode, Json<Tested>), Problem> {
    let recorded = destination::test(&writer, &access.act(), workspace, id).await?;
    Ok((StatusCode::ACCEPTED, Json(Tested { seq: recorded.seq })))
}

/// Gives a destination a new secret, shown this once. The one before stays valid for 24 hours.
#[utoipa::path(post, path = "/v1/workspaces/{workspace}/destinations/{destination}/rotate-secret", tag = "destinations", security(("token" = []), ("session" = [])),
    params(("workspace" = String, Path, description = "The workspace's id"), ("destination" = String, Path)),
    responses((status = 200, body = NewSecret), (status = 404, body = Problem, content_type = "application/problem+json")))]
async fn rotate_secret(
    access: Access<needs::DestinationsWrite>,
    State(writer): State<Writer>,
    State(shared): State<Arc<Shared>>,
    InPath((workspace, id)): InPath<(WorkspaceId, DestinationId)>,
) -> Result<Json<NewSecret>, Problem> {
    let _changed = Changing(&shared, LaneKey { workspace, destination: id });
    let secret = destination::rotate_secret(&writer, &access.act(), workspace, id).await?;
    Ok(Json(NewSecret { secret: secret.expose().as_str().to_owned() }))
}

/// Pages through a destination's deliveries.
#[utoipa::path(get, path = "/v1/workspaces/{workspace}/destinations/{destination}/deliveries", tag = "deliveries", security(("token" = []), ("session" = [])),
    params(("workspace" = String, Path, description = "The workspace's id"), ("destination" = String, Path), DeliveriesQuery),
    responses((status = 200, body = Deliveries),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
async fn deliveries(
    _: Access<needs::DestinationsRead>,
    State(writer): State<Writer>,
    InPath((workspace, id)): InPath<(WorkspaceId, DestinationId)>,
    InQuery(query): InQuery<DeliveriesQuery>,
) -> Result<Json<Deliveries>, Problem> {
    let database = writer.database();
    let limit = query.limit.unwrap_or(100);
    if !(1..=1000).contains(&limit) {
        return Err(Problem::bad_request("limit is 1 to 1000"));
    }
    let states = ["pending", "retry", "delivered", "given_up"];
    if query.state.as_ref().is_some_and(|state| !states.contains(&state.as_str())) {
        return Err(Problem::bad_request("state is one of pending, retry, delivered, given_up"));
    }
    one(&writer, workspace, id).await?;
    let mut tx = database.workspace(workspace).await?;
    let mut items = sqlx::query_as!(
        Delivery,
        r#"SELECT destination_id AS "destination: DestinationId", number, ledger_id AS "ledger: LedgerId", seq,
                  receipt_id AS "receipt: ReceiptId", state, attempts, next_attempt_at, settled_at
             FROM deliveries
            WHERE workspace_id = $1 AND destination_id = $2 AND number >= $3 AND ($4::text IS NULL OR state = $4)
            ORDER BY number LIMIT $5"#,
        workspace.uuid(),
        id.uuid(),
        query.from.unwrap_or(1),
        query.state,
        limit + 1
    )
    .fetch_all(&mut *tx)
    .await?;
    let next = items.get(limit as usize).map(|d| d.number);
    items.truncate(limit as usize);
    Ok(Json(Deliveries { items, next }))
}

/// Shows a delivery with its attempts.
#[utoipa::path(get, path = "/v1/workspaces/{workspace}/destinations/{destination}/deliveries/{number}", tag = "deliveries", security(("token" = []), ("session" = [])),
    params(("workspace" = String, Path, description = "The workspace's id"), ("destination" = String, Path), ("number" = i64, Path)),
    responses((status = 200, body = DeliveryDetail), (status = 404, body = Problem, content_type = "application/problem+json")))]
async fn delivery(
    _: Access<needs::DestinationsRead>,
    State(writer): State<Writer>,
    InPath((workspace, id, number)): InPath<(WorkspaceId, DestinationId, i64)>,
) -> Result<Json<DeliveryDetail>, Problem> {
    let database = writer.database();
    let mut tx = database.workspace(workspace).await?;
    let delivery = sqlx::query_as!(
        Delivery,
        r#"SELECT destination_id AS "destination: DestinationId", number, ledger_id AS "ledger: LedgerId", seq,
                  receipt_id AS "receipt: ReceiptId", state, attempts, next_attempt_at, settled_at
             FROM deliveries WHERE workspace_id = $1 AND destination_id = $2 AND number = $3"#,
        workspace.uuid(),
        id.uuid(),
        number
    )
    .fetch_optional(&mut *tx)
    .await?
    .ok_or(Error::NoDelivery(id, number))?;
    let rows = sqlx::query!(
        "SELECT attempt, started_at, duration_us, status, error, answer FROM attempts
          WHERE workspace_id = $1 AND destination_id = $2 AND number = $3 ORDER BY attempt",
        workspace.uuid(),
        id.uuid(),
        number
    )
    .fetch_all(&mut *tx)
    .await?;
    drop(tx);
    let mut history = Vec::with_capacity(rows.len());
    for row in rows {
        let answer = match row.answer {
            Some(sealed) => {
                let data_key = writer.data_keys().get(workspace).await?;
                let opened = sealing::open_answer(&data_key, (id, number, row.attempt), &sealed);
                Some(opened.map_err(sealing::Error::from)?)
            }
            None => None,
        };
        history.push(Attempt {
            attempt: row.attempt,
            started_at: row.started_at,
            duration_us: row.duration_us,
            status: row.status,
            error: row.error,
            answer,
        });
    }
    Ok(Json(DeliveryDetail { delivery, history }))
}

/// The body of a delivery: the notification as it was (or will be) sent.
#[utoipa::path(get, path = "/v1/workspaces/{workspace}/destinations/{destination}/deliveries/{number}/receipt", tag = "deliveries", security(("token" = []), ("session" = [])),
    params(("workspace" = String, Path, description = "The workspace's id"), ("destination" = String, Path), ("number" = i64, Path)),
    responses((status = 200, body = Object, description = "A receipt (docs/receipt.md, \"Receipt\")"), (status = 404, body = Problem, content_type = "application/problem+json")))]
async fn delivery_receipt(
    access: Access<needs::LedgerExport>,
    State(writer): State<Writer>,
    State(shared): State<Arc<Shared>>,
    InPath((workspace, id, number)): InPath<(WorkspaceId, DestinationId, i64)>,
) -> Result<Response, Problem> {
    let database = writer.database();
    let destination = one(&writer, workspace, id).await?;
    let key = LaneKey { workspace, destination: id };
    let job = queue::read_jobs(database, &shared.data_keys, key, Wanted::One { number }, 1)
        .await
        .map_err(Problem::internal)?
        .jobs
        .pop()
        .ok_or(Error::NoDelivery(id, number))?;
    let ring = shared.keyring.current();
    let note = shared.note(&ring, &job.facts, job.root).map_err(Problem::internal)?;
    let openings = job.openings_for(destination.openings);
    let made_with_openings = !openings.is_empty();
    let (facts, evidence) = (&job.facts, Mode::Evidence);
    let made = receipt::body(&ring, facts, &job.entry, &job.proof, &note, openings, evidence)
        .map_err(Problem::internal)?;
    let act = access.act();
    let record = act
        .of(Action::ReceiptDownloaded)
        .target("destination", id)
        .detail("number", Value::Int(number))
        .detail("openings", Value::Bool(made_with_openings));
    let mut locked = writer.lock(workspace).await?;
    locked.append(&[record.draft()?.about(id)]).await?;
    locked.commit().await?;
    let tree = SignedTree { size: job.facts.tree_size, root: job.root };
    shared.seen_heads.remember(job.facts.ledger, tree).await.map_err(Problem::internal)?;
    Ok(([(header::CONTENT_TYPE, "application/json")], made.body).into_response())
}

/// Makes deliveries again, settled or not, under the same numbers and ids; those of audit entries for whoever may read these
/// (`audit:read`).
#[utoipa::path(post, path = "/v1/workspaces/{workspace}/destinations/{destination}/redeliver", tag = "deliveries", security(("token" = []), ("session" = [])),
    params(("workspace" = String, Path, description = "The workspace's id"), ("destination" = String, Path)),
    request_body = Redelivery,
    responses((status = 202, body = Redelivered),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
async fn redeliver(
    access: Access<needs::DestinationsWrite>,
    State(writer): State<Writer>,
    State(shared): State<Arc<Shared>>,
    InPath((workspace, id)): InPath<(WorkspaceId, DestinationId)>,
    Body(range): Body<Redelivery>,
) -> Result<(StatusCode, Json<Redelivered>), Problem> {
    if range.from > range.to {
        return Err(Problem::invalid(format!(
            "The range ends ({}) before it begins ({}).",
            range.to, range.from
        )));
    }
    let count = destination::redeliver(
        &writer,
        &access.act(),
        access.caller.grants(),
        workspace,
        id,
        range.from,
        range.to,
    )
    .await?;
    shared.look();
    Ok((StatusCode::ACCEPTED, Json(Redelivered { count })))
}
