//! `/account`, `/v1/passkeys`, `/v1/identities`: the ways in of whoever is signed in.

use super::flow::Goal;
use super::http::{Challenge, Nothing, challenge};
use super::pages::{AccountPage, Way, page, problem};
use super::{Error, SignIn, passkey, ways};
use crate::access::Person;
use crate::access::session::{self, Held};
use crate::http::App;
use crate::http::extract::{Body, InPath};
use crate::http::problem::Problem;
use crate::id::{IdentityId, PasskeyId};
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use webauthn_rs::prelude::RegisterPublicKeyCredential;

/// The routes of one's own ways in.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(account_page))
        .routes(routes!(list_passkeys, add_passkey))
        .routes(routes!(new_passkey_challenge))
        .routes(routes!(remove_passkey))
        .routes(routes!(list_identities))
        .routes(routes!(connect_identity))
        .routes(routes!(remove_identity))
}

/// A passkey.
#[derive(Debug, Serialize, ToSchema)]
struct Passkey {
    /// `pk_` and a UUID.
    #[schema(value_type = String)]
    id: PasskeyId,
    /// What its owner calls it.
    name: String,
    /// Since when.
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    /// When it was last used.
    #[serde(with = "time::serde::rfc3339::option")]
    last_used_at: Option<OffsetDateTime>,
}

/// A list.
#[derive(Debug, Serialize, ToSchema)]
struct Passkeys {
    items: Vec<Passkey>,
}

/// A new passkey.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewPasskey {
    /// The challenge's.
    state: String,
    /// What to call it.
    #[schema(min_length = 1, max_length = 100)]
    name: String,
    /// What `navigator.credentials.create` gave, with buffers as base64url.
    #[schema(value_type = Object)]
    credential: RegisterPublicKeyCredential,
}

/// A passkey that was added.
#[derive(Debug, Serialize, ToSchema)]
struct AddedPasskey {
    /// Which.
    #[schema(value_type = String)]
    id: PasskeyId,
}

/// An account at an identity provider.
#[derive(Debug, Serialize, ToSchema)]
struct Identity {
    /// `idn_` and a UUID.
    #[schema(value_type = String)]
    id: IdentityId,
    /// The provider's id in the settings.
    provider: String,
    /// Since when.
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
}

/// A list.
#[derive(Debug, Serialize, ToSchema)]
struct Identities {
    items: Vec<Identity>,
}

/// Where to go.
#[derive(Debug, Serialize, ToSchema)]
struct Outward {
    /// The provider's page.
    location: String,
}

/// The session that asks.
async fn held(sign_in: &SignIn, headers: &HeaderMap) -> Result<Held, Problem> {
    session::held(&sign_in.gate, headers).await?.ok_or_else(Problem::unauthorized)
}

/// Shows one's passkeys, accounts and sessions.
#[utoipa::path(get, path = "/account", tag = "sign-in",
    responses((status = 200, body = String, content_type = "text/html", description = "The page; its script asks for what is on it")))]
async fn account_page(State(sign_in): State<SignIn>) -> Response {
    let providers = sign_in
        .providers
        .iter()
        .map(|p| Way { href: format!("/v1/identities/{}", p.id), name: p.name.clone() })
        .collect();
    page(StatusCode::OK, &AccountPage { providers })
}

/// Lists one's passkeys.
#[utoipa::path(get, path = "/v1/passkeys", tag = "sign-in", security(("session" = [])),
    responses((status = 200, body = Passkeys), (status = 403, body = Problem, content_type = "application/problem+json")))]
async fn list_passkeys(
    _: Person,
    State(sign_in): State<SignIn>,
    headers: HeaderMap,
) -> Result<Json<Passkeys>, Problem> {
    let held = held(&sign_in, &headers).await?;
    let known = sign_in.passkeys(held.user).await.map_err(problem)?;
    let items = known
        .into_iter()
        .map(|k| Passkey { id: k.id, name: k.name, created_at: k.created_at, last_used_at: k.last_used_at })
        .collect();
    Ok(Json(Passkeys { items }))
}

/// Begins a new passkey. Whoever has one needs a session that began with one, or with a one-time link; whoever has none, one
/// that began in the last ten minutes.
#[utoipa::path(post, path = "/v1/passkeys/challenge", tag = "sign-in", security(("session" = [])), request_body = Nothing,
    responses((status = 200, body = Challenge), (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json")))]
async fn new_passkey_challenge(
    _: Person,
    State(sign_in): State<SignIn>,
    headers: HeaderMap,
    Body(Nothing {}): Body<Nothing>,
) -> Result<Response, Problem> {
    let held = held(&sign_in, &headers).await?;
    let begun = async {
        let (begun, options) = sign_in.register(&held).await?;
        challenge(begun, &options)
    };
    begun.await.map_err(problem)
}

/// Adds a passkey.
#[utoipa::path(post, path = "/v1/passkeys", tag = "sign-in", security(("session" = [])), request_body = NewPasskey,
    responses((status = 201, body = AddedPasskey), (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
async fn add_passkey(
    person: Person,
    State(sign_in): State<SignIn>,
    headers: HeaderMap,
    Body(new): Body<NewPasskey>,
) -> Result<(StatusCode, Json<AddedPasskey>), Problem> {
    let held = held(&sign_in, &headers).await?;
    let name = passkey::name(&new.name)?;
    let id = sign_in
        .registered(&person.act(), &held, &headers, &new.state, name, &new.credential)
        .await
        .map_err(problem)?;
    Ok((StatusCode::CREATED, Json(AddedPasskey { id })))
}

/// Removes a passkey, in a session that began with one, or with a one-time link. Sessions that began with it end, this one
/// too. The last way to sign in stays.
#[utoipa::path(delete, path = "/v1/passkeys/{passkey}", tag = "sign-in", security(("session" = [])),
    params(("passkey" = String, Path)),
    responses((status = 204), (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json")))]
async fn remove_passkey(
    person: Person,
    State(sign_in): State<SignIn>,
    headers: HeaderMap,
    InPath(id): InPath<PasskeyId>,
) -> Result<StatusCode, Problem> {
    let held = held(&sign_in, &headers).await?;
    sign_in.remove_passkey(&person.act(), &held, id).await.map_err(problem)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lists one's accounts at identity providers.
#[utoipa::path(get, path = "/v1/identities", tag = "sign-in", security(("session" = [])),
    responses((status = 200, body = Identities), (status = 403, body = Problem, content_type = "application/problem+json")))]
async fn list_identities(
    _: Person,
    State(sign_in): State<SignIn>,
    headers: HeaderMap,
) -> Result<Json<Identities>, Problem> {
    let held = held(&sign_in, &headers).await?;
    let mut tx = session::person(&sign_in.gate.database, held.user).await?;
    let items = sqlx::query_as!(
        Identity,
        r#"SELECT identity_id AS "id: IdentityId", provider, created_at FROM identities
            WHERE user_id = $1 ORDER BY created_at, identity_id"#,
        held.user.uuid()
    )
    .fetch_all(&mut *tx)
    .await?;
    Ok(Json(Identities { items }))
}

/// Begins to connect an account at an identity provider with oneself. Whoever has a passkey needs a session that began
/// with one, or with a one-time link; whoever has none, one that began in the last ten minutes.
#[utoipa::path(post, path = "/v1/identities/{provider}", tag = "sign-in", security(("session" = [])),
    params(("provider" = String, Path, description = "The provider's id in the settings")), request_body = Nothing,
    responses((status = 200, body = Outward), (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 502, body = Problem, content_type = "application/problem+json")))]
async fn connect_identity(
    _: Person,
    State(sign_in): State<SignIn>,
    headers: HeaderMap,
    InPath(provider): InPath<String>,
    Body(Nothing {}): Body<Nothing>,
) -> Result<Response, Problem> {
    let held = held(&sign_in, &headers).await?;
    let begun = async {
        let provider = sign_in.provider(&provider).map_err(|e| Problem::not_found(e.to_string()))?;
        let has_passkey = !sign_in.passkeys(held.user).await?.is_empty();
        ways::may_change(&held, has_passkey, ways::Stage::Begins)?;
        sign_in.outward(provider, Goal::Connect { user: held.user, session: held.id }).await
    };
    let (location, cookie) = begun.await.map_err(|e: Error| problem(e))?;
    Ok(([(header::SET_COOKIE, cookie)], Json(Outward { location })).into_response())
}

/// Disconnects an account at an identity provider. Whoever has a passkey needs a session that began with one, or with a
/// one-time link; whoever has none, one that began in the last ten minutes. The last way to sign in stays. Sessions that began at the provider go on until they are ended.
#[utoipa::path(delete, path = "/v1/identities/{provider}/{identity}", tag = "sign-in", security(("session" = [])),
    params(("provider" = String, Path, description = "The provider's id in the settings"), ("identity" = String, Path)),
    responses((status = 204), (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json")))]
async fn remove_identity(
    person: Person,
    State(sign_in): State<SignIn>,
    headers: HeaderMap,
    InPath((provider, id)): InPath<(String, IdentityId)>,
) -> Result<StatusCode, Problem> {
    let held = held(&sign_in, &headers).await?;
    sign_in.remove_identity(&person.act(), &held, &provider, id).await.map_err(problem)?;
    Ok(StatusCode::NO_CONTENT)
}
