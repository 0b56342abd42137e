//! `/v1/session`, `/v1/sessions`: one's own.

use crate::access::door::{Gate, Person};
use crate::access::people::{self, Profile};
use crate::access::session;
use crate::audit::{Act, Action};
use crate::http::App;
use crate::http::extract::{InPath, InQuery};
use crate::http::page::{Made, Page, PageQuery, made};
use crate::http::problem::Problem;
use crate::id::{SessionId, UserId};
use crate::ledger::Writer;
use crate::sealing::DataKeys;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

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
    /// The `cursor` of the next page; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// The routes of sessions.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(current_session, sign_out))
        .routes(routes!(list_sessions))
        .routes(routes!(end_session))
}

/// Shows who is signed in, and the token that changes need.
#[utoipa::path(get, path = "/v1/session", tag = "session", security(("session" = [])),
    responses((status = 200, body = CurrentSession), (status = 403, body = Problem, content_type = "application/problem+json")))]
async fn current_session(
    person: Person,
    State(gate): State<Gate>,
    State(data_keys): State<DataKeys>,
    headers: HeaderMap,
) -> Result<Json<CurrentSession>, Problem> {
    let Person { user, session: id, passkey, .. } = person;
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
    person: Person,
    State(gate): State<Gate>,
    State(writer): State<Writer>,
) -> Result<Response, Problem> {
    end(&writer, &gate, &person.act(), person.user, person.session, Action::SignedOut).await?;
    let cookie = session::set_cookie(&gate.sessions, None);
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)]).into_response())
}

/// Lists the sessions of whoever is signed in.
#[utoipa::path(get, path = "/v1/sessions", tag = "session", security(("session" = [])), params(PageQuery),
    responses((status = 200, body = Sessions), (status = 403, body = Problem, content_type = "application/problem+json")))]
async fn list_sessions(
    person: Person,
    State(gate): State<Gate>,
    State(data_keys): State<DataKeys>,
    InQuery(query): InQuery<PageQuery>,
) -> Result<Json<Sessions>, Problem> {
    let Person { user, session: current, .. } = person;
    let page: Page<Made> = query.page()?;
    let data_key = data_keys.get(gate.instance).await?;
    let mut tx = session::person(&gate.database, user).await?;
    let rows = sqlx::query!(
        r#"SELECT session_id AS "id: SessionId", method, context, created_at, last_seen_at, expires_at
             FROM sessions
            WHERE user_id = $1 AND ended_at IS NULL AND expires_at > now()
              AND ($2::timestamptz IS NULL OR (created_at, session_id) > ($2, $3::uuid))
            ORDER BY created_at, session_id LIMIT $4"#,
        user.uuid(),
        page.after_at(),
        page.after_id(),
        page.rows()
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
    let next = page.cut(&mut items, |session| made(session.created_at, session.id.uuid()));
    Ok(Json(Sessions { items, next }))
}

/// Ends a session of whoever is signed in.
#[utoipa::path(delete, path = "/v1/sessions/{session}", tag = "session", security(("session" = [])),
    params(("session" = String, Path)),
    responses((status = 204),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
async fn end_session(
    person: Person,
    State(gate): State<Gate>,
    State(writer): State<Writer>,
    InPath(id): InPath<SessionId>,
) -> Result<StatusCode, Problem> {
    end(&writer, &gate, &person.act(), person.user, id, Action::SessionRevoked).await?;
    Ok(StatusCode::NO_CONTENT)
}
