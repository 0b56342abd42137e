//! `/v1/people`: everybody on the instance, for whoever administers it.

use crate::access::disable;
use crate::access::door::{Access, Gate};
use crate::access::people::{self, Profile};
use crate::access::scope::{Role, needs};
use crate::http::App;
use crate::http::extract::{Body, InPath, InQuery};
use crate::http::page::{Made, Page, PageQuery, made};
use crate::http::problem::{Kind, Problem};
use crate::id::UserId;
use crate::ledger::Writer;
use crate::sealing::DataKeys;
use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use time::OffsetDateTime;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// A person.
#[derive(Debug, Serialize, ToSchema)]
pub struct Person {
    /// `usr_` and a UUID.
    #[schema(value_type = String)]
    user: UserId,
    /// Their address.
    email: Option<String>,
    /// Their name.
    name: Option<String>,
    /// What they are in the instance's own workspace, where they are a member of it.
    instance_role: Option<Role>,
    /// API keys that they made (or that such keys made) and that have not ended: they rest while the person is disabled.
    api_keys: i64,
    /// Since when they are known.
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    /// Since when they are disabled.
    #[serde(with = "time::serde::rfc3339::option")]
    disabled_at: Option<OffsetDateTime>,
}

/// A list.
#[derive(Debug, Serialize, ToSchema)]
pub struct People {
    items: Vec<Person>,
    /// The `cursor` of the next page; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// What changes of a person.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PersonChange {
    /// Whether they are disabled.
    disabled: bool,
}

impl From<disable::Error> for Problem {
    fn from(e: disable::Error) -> Self {
        use disable::Error;
        match e {
            Error::Missing(_) => Self::not_found(e.to_string()),
            Error::OneSelf | Error::LastAdministrator => Self::conflict(e.to_string()),
            Error::TooMuch => Self::forbidden(Kind::Role, e.to_string()),
            Error::Sql(e) => e.into(),
            Error::Append(e) => e.into(),
            Error::Draft(e) => e.into(),
        }
    }
}

/// The routes of people.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_people)).routes(routes!(read_person, change_person))
}

async fn people_of(
    gate: &Gate,
    data_keys: &DataKeys,
    only: Option<UserId>,
    page: &Page<Made>,
) -> Result<Vec<Person>, Problem> {
    let data_key = data_keys.get(gate.instance).await?;
    let mut tx = gate.database.workspace(gate.instance).await?;
    sqlx::query_scalar!("SELECT set_config('sl.people', 'all', true)").fetch_one(&mut *tx).await?;
    let rows = sqlx::query!(
        r#"SELECT u.user_id AS "user: UserId", u.profile, u.created_at, u.disabled_at, m.role AS "role?"
             FROM users u LEFT JOIN members m ON m.workspace_id = $1 AND m.user_id = u.user_id
            WHERE ($2::uuid IS NULL OR u.user_id = $2)
              AND ($3::timestamptz IS NULL OR (u.created_at, u.user_id) > ($3, $4::uuid))
            ORDER BY u.created_at, u.user_id LIMIT $5"#,
        gate.instance.uuid(),
        only.map(UserId::uuid),
        page.after_at(),
        page.after_id(),
        page.rows()
    )
    .fetch_all(&mut *tx)
    .await?;
    drop(tx);
    let ids: Vec<uuid::Uuid> = rows.iter().map(|row| row.user.uuid()).collect();
    let keys: HashMap<UserId, i64> = sqlx::query!(
        r#"SELECT person AS "person!: UserId", count(*) AS "keys!" FROM api_keys
            WHERE person = ANY ($1) AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
            GROUP BY person"#,
        &ids
    )
    .fetch_all(&gate.database.worker)
    .await?
    .into_iter()
    .map(|row| (row.person, row.keys))
    .collect();
    rows.into_iter()
        .map(|row| {
            let Profile { email, name } =
                people::open_profile(&data_key, "users", row.user.uuid(), &row.profile)?;
            Ok(Person {
                user: row.user,
                email,
                name,
                instance_role: row.role.as_deref().and_then(Role::from_name),
                api_keys: keys.get(&row.user).copied().unwrap_or(0),
                created_at: row.created_at,
                disabled_at: row.disabled_at,
            })
        })
        .collect()
}

async fn one_person(gate: &Gate, data_keys: &DataKeys, user: UserId) -> Result<Person, Problem> {
    people_of(gate, data_keys, Some(user), &Page::one())
        .await?
        .pop()
        .ok_or_else(|| disable::Error::Missing(user).into())
}

/// Lists everybody on the instance.
#[utoipa::path(get, path = "/v1/people", tag = "people", security(("token" = []), ("session" = [])),
    params(PageQuery),
    responses((status = 200, body = People), (status = 403, body = Problem, content_type = "application/problem+json")))]
async fn list_people(
    _: Access<needs::PeopleRead>,
    State(gate): State<Gate>,
    State(data_keys): State<DataKeys>,
    InQuery(query): InQuery<PageQuery>,
) -> Result<Json<People>, Problem> {
    let page = query.page()?;
    let mut items = people_of(&gate, &data_keys, None, &page).await?;
    let next = page.cut(&mut items, |person| made(person.created_at, person.user.uuid()));
    Ok(Json(People { items, next }))
}

/// Shows a person.
#[utoipa::path(get, path = "/v1/people/{user}", tag = "people", security(("token" = []), ("session" = [])),
    params(("user" = String, Path)),
    responses((status = 200, body = Person),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
async fn read_person(
    _: Access<needs::PeopleRead>,
    State(gate): State<Gate>,
    State(data_keys): State<DataKeys>,
    InPath(user): InPath<UserId>,
) -> Result<Json<Person>, Problem> {
    Ok(Json(one_person(&gate, &data_keys, user).await?))
}

/// Disables a person, or enables them again. Who is disabled cannot sign in; their sessions end at once, and their API
/// keys and open invitations rest until they are enabled. Nobody disables themself, and the instance keeps somebody who
/// administers it.
#[utoipa::path(patch, path = "/v1/people/{user}", tag = "people", security(("token" = []), ("session" = [])),
    params(("user" = String, Path)), request_body = PersonChange,
    responses((status = 200, body = Person),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json")))]
async fn change_person(
    access: Access<needs::Instance>,
    State(gate): State<Gate>,
    State(writer): State<Writer>,
    InPath(user): InPath<UserId>,
    Body(change): Body<PersonChange>,
) -> Result<Json<Person>, Problem> {
    disable::set(&writer, &access.act(), &access.caller, gate.instance, user, change.disabled).await?;
    Ok(Json(one_person(&gate, writer.data_keys(), user).await?))
}
