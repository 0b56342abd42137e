//! `/v1/workspaces/{workspace}/status`: what a person wants to know, in one answer: how the apps stand, and whether
//! the sources that say so can be believed.
//!
//! Most subjects are history: versions that were replaced, builds of long ago. The view leaves out a subject whose
//! state is one of [`SETTLED`] for its kind. It is a list of what is known to be settled, so a state that nobody knows
//! yet is shown. What a source said that was deleted since is history, too: nobody asks whether it is still so.

use crate::access::{Access, needs};
use crate::database::Database;
use crate::http::App;
use crate::http::extract::{InPath, InQuery};
use crate::http::problem::Problem;
use crate::id::{SourceId, WorkspaceId};
use axum::Json;
use axum::extract::State;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Subjects in an answer, at most.
const PAGE: i64 = 10_000;
/// Patterns in a query, at most.
const PATTERNS: usize = 100;

/// By kind, the states in which a subject is of no interest until somebody does something.
pub const SETTLED: [(&str, &[&str]); 16] = [
    ("app", &["VISIBLE"]),
    ("availability", &["AVAILABLE"]),
    ("version", &["REPLACED_WITH_NEW_VERSION"]),
    ("phased_release", &["INACTIVE", "COMPLETE"]),
    ("build", &["VALID", "INVALID", "FAILED"]),
    (
        "beta_internal",
        &[
            "PROCESSING",
            "PROCESSING_EXCEPTION",
            "MISSING_EXPORT_COMPLIANCE",
            "READY_FOR_BETA_TESTING",
            "IN_BETA_TESTING",
            "EXPIRED",
        ],
    ),
    (
        "beta_external",
        &[
            "PROCESSING",
            "PROCESSING_EXCEPTION",
            "MISSING_EXPORT_COMPLIANCE",
            "READY_FOR_BETA_TESTING",
            "IN_BETA_TESTING",
            "EXPIRED",
            "READY_FOR_BETA_SUBMISSION",
            // The review itself is a subject, and says so.
            "WAITING_FOR_BETA_REVIEW",
            "IN_BETA_REVIEW",
            "BETA_REJECTED",
            "BETA_APPROVED",
            "NOT_APPLICABLE",
        ],
    ),
    ("beta_review", &["REJECTED", "APPROVED"]),
    ("build_upload", &["AWAITING_UPLOAD", "FAILED", "COMPLETE"]),
    ("review_submission", &["READY_FOR_REVIEW", "COMPLETE"]),
    ("review_item", &["READY_FOR_REVIEW", "ACCEPTED", "APPROVED", "REJECTED", "REMOVED"]),
    (
        "app_info",
        &[
            "ACCEPTED",
            "DEVELOPER_REJECTED",
            "IN_REVIEW",
            "PENDING_RELEASE",
            "PREPARE_FOR_SUBMISSION",
            "READY_FOR_DISTRIBUTION",
            "READY_FOR_REVIEW",
            "REPLACED_WITH_NEW_INFO",
            "WAITING_FOR_REVIEW",
        ],
    ),
    (
        "in_app_purchase",
        &[
            "MISSING_METADATA",
            "WAITING_FOR_UPLOAD",
            "PROCESSING_CONTENT",
            "READY_TO_SUBMIT",
            "APPROVED",
            "DEVELOPER_REMOVED_FROM_SALE",
            "REMOVED_FROM_SALE",
        ],
    ),
    (
        "subscription",
        &[
            "MISSING_METADATA",
            "READY_TO_SUBMIT",
            "APPROVED",
            "DEVELOPER_REMOVED_FROM_SALE",
            "REMOVED_FROM_SALE",
        ],
    ),
    ("app_event", &["DRAFT", "READY_FOR_REVIEW", "ACCEPTED", "APPROVED", "PUBLISHED", "PAST", "ARCHIVED"]),
    ("rollout", &["statusUnspecified", "draft", "completed"]),
];

/// What to show.
#[derive(Debug, Default, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct StatusQuery {
    /// Only these apps: bundle id, package name, or what the store calls it, whole, in either case; `*` stands for
    /// anything. May be given several times.
    #[param(example = json!(["com.example.*"]))]
    app: Vec<String>,
    /// Every subject, also what is settled (default false).
    #[param(required = false)]
    all: bool,
    /// The `next` of the page before.
    after: Option<String>,
}

/// A source, and how it fares.
#[derive(Debug, Serialize, ToSchema)]
pub struct SourceStatus {
    /// `src_` and a UUID.
    #[schema(value_type = String)]
    id: SourceId,
    /// `app_store`, `google_play`, `inbound`.
    kind: String,
    /// What people call it.
    name: String,
    /// How it fares (docs/events.md, "source").
    health: String,
    /// Why, in words.
    health_detail: Option<String>,
    /// When it was last asked.
    #[serde(with = "time::serde::rfc3339::option")]
    last_polled_at: Option<OffsetDateTime>,
}

/// An app of which something is known.
#[derive(Debug, Serialize, ToSchema)]
pub struct AppName {
    /// Bundle id or package name.
    app: String,
    /// What the store calls it.
    name: Option<String>,
}

/// A subject, and its state.
#[derive(Debug, Serialize, ToSchema)]
pub struct SubjectStatus {
    /// Bundle id or package name.
    app: String,
    /// What it is: `version`, `build`, `release` and so on.
    kind: String,
    /// The store's id of it.
    id: String,
    /// Who says so.
    #[schema(value_type = String)]
    source: SourceId,
    /// What a person knows it by.
    #[schema(value_type = Object)]
    description: serde_json::Value,
    /// Its state, as the store spells it.
    state: String,
    /// When that was first seen, or, where the store told it by itself, when it was so by the store's clock.
    #[serde(with = "time::serde::rfc3339")]
    since: OffsetDateTime,
    /// When it was last seen.
    #[serde(with = "time::serde::rfc3339")]
    last_seen_at: OffsetDateTime,
    /// The entry that says so.
    seq: i64,
    /// What else is its status (docs/events.md).
    #[schema(value_type = Object)]
    facts: serde_json::Value,
    /// When it was found to be no longer visible.
    #[serde(with = "time::serde::rfc3339::option")]
    gone_at: Option<OffsetDateTime>,
}

/// How a workspace's apps stand, as of one moment.
#[derive(Debug, Serialize, ToSchema)]
pub struct Status {
    /// The workspace.
    #[schema(value_type = String)]
    workspace: WorkspaceId,
    /// Its name.
    name: String,
    /// That moment, by the database's clock.
    #[serde(with = "time::serde::rfc3339")]
    at: OffsetDateTime,
    /// Entries in the ledger then.
    size: i64,
    /// Its sources; only in the first page.
    sources: Vec<SourceStatus>,
    /// The apps that were asked for and are known, also those of which everything is settled; only in the first page.
    apps: Vec<AppName>,
    /// The subjects: by default those that are not settled.
    subjects: Vec<SubjectStatus>,
    /// What to give as `after` for more; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// Where a page ended: app, kind, source, key.
type Place = (String, String, uuid::Uuid, String);

impl StatusQuery {
    fn of(pairs: Vec<(String, String)>) -> Result<Self, Problem> {
        let mut query = Self::default();
        for (name, value) in pairs {
            match (name.as_str(), value.as_str()) {
                ("app", "") => return Err(Problem::bad_request("app is not empty")),
                ("app", _) => query.app.push(value),
                ("all", "true") => query.all = true,
                ("all", "false") => query.all = false,
                ("after", _) if query.after.is_none() => query.after = Some(value),
                _ => {
                    return Err(Problem::bad_request(
                        "this route takes app (several times), all (true or false) and after (once)",
                    ));
                }
            }
        }
        if query.app.len() > PATTERNS {
            return Err(Problem::bad_request("app may be given 100 times"));
        }
        Ok(query)
    }

    /// The patterns as SQL's LIKE has them.
    fn patterns(&self) -> Option<Vec<String>> {
        let like = |pattern: &String| {
            let mut out = String::with_capacity(pattern.len());
            for c in pattern.chars() {
                match c {
                    '*' => out.push('%'),
                    '%' | '_' | '\\' => out.extend(['\\', c]),
                    c => out.push(c),
                }
            }
            out
        };
        (!self.app.is_empty()).then(|| self.app.iter().map(like).collect())
    }

    fn place(&self) -> Result<Option<Place>, Problem> {
        let Some(after) = &self.after else { return Ok(None) };
        let bytes = URL_SAFE_NO_PAD.decode(after).ok();
        let place = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        place.map(Some).ok_or_else(|| Problem::bad_request("after is the next of the page before"))
    }
}

/// The route.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(status))
}

/// Shows how the apps stand: versions, tracks and what is in motion, and the health of the sources.
#[utoipa::path(get, path = "/v1/workspaces/{workspace}/status", tag = "workspaces", security(("token" = []), ("session" = [])),
    params(("workspace" = String, Path, description = "The workspace's id"), StatusQuery),
    responses((status = 200, body = Status),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
async fn status(
    _: Access<needs::SourcesRead>,
    State(database): State<Database>,
    InPath(workspace): InPath<WorkspaceId>,
    InQuery(pairs): InQuery<Vec<(String, String)>>,
) -> Result<Json<Status>, Problem> {
    let query = StatusQuery::of(pairs)?;
    let (patterns, place) = (query.patterns(), query.place()?);
    let mut tx = database.snapshot(workspace).await?;
    let head = sqlx::query!(
        r#"SELECT w.name, h.size, now() AS "at!"
             FROM workspaces w JOIN heads h USING (workspace_id, ledger_id) WHERE w.workspace_id = $1"#,
        workspace.uuid()
    )
    .fetch_optional(&mut *tx)
    .await?
    .ok_or_else(|| Problem::not_found(format!("The workspace {workspace} does not exist.")))?;
    let (mut sources, mut apps) = (Vec::new(), Vec::new());
    if place.is_none() {
        sources = sqlx::query_as!(
            SourceStatus,
            r#"SELECT source_id AS "id: SourceId", kind, name, health, health_detail, last_polled_at
                 FROM sources WHERE workspace_id = $1 AND deleted_at IS NULL ORDER BY created_at, source_id"#,
            workspace.uuid()
        )
        .fetch_all(&mut *tx)
        .await?;
        apps = sqlx::query_as!(
            AppName,
            r#"SELECT app, (array_agg(description->>'name' ORDER BY last_seen_at DESC)
                              FILTER (WHERE description->>'name' IS NOT NULL))[1] AS name
                 FROM subjects JOIN sources USING (workspace_id, source_id)
                WHERE workspace_id = $1 AND deleted_at IS NULL
                  AND ($2::text[] IS NULL OR app ILIKE ANY($2) OR description->>'name' ILIKE ANY($2))
                GROUP BY app ORDER BY app"#,
            workspace.uuid(),
            patterns.as_deref()
        )
        .fetch_all(&mut *tx)
        .await?;
    }
    let (mut settled_kinds, mut settled_states) = (Vec::new(), Vec::new());
    for (kind, states) in SETTLED {
        settled_kinds.extend(states.iter().map(|_| kind.to_owned()));
        settled_states.extend(states.iter().map(|state| (*state).to_owned()));
    }
    let (app, kind, source, key) = place.map_or((None, None, None, None), |(app, kind, source, key)| {
        (Some(app), Some(kind), Some(source), Some(key))
    });
    // Of a track's published releases the newest is what users get.
    let mut subjects = sqlx::query_as!(
        SubjectStatus,
        r#"SELECT app, kind, subject_key AS id, source_id AS "source: SourceId", description, state,
                  state_since AS since, last_seen_at, seq, facts, gone_at
             FROM (SELECT s.*, rank() OVER (PARTITION BY source_id, app, s.kind, description->>'track', state
                                            ORDER BY state_since DESC) AS age
                     FROM subjects s JOIN sources o USING (workspace_id, source_id)
                    WHERE workspace_id = $1 AND o.deleted_at IS NULL AND ($3 OR gone_at IS NULL)
                      -- What was only told of, and turned up in no list of a key, is none of its apps'.
                      AND ($3 OR scope <> '' OR o.secret IS NULL OR s.last_seen_at > now() - interval '1 hour')
                      AND ($2::text[] IS NULL OR app ILIKE ANY($2) OR description->>'name' ILIKE ANY($2))
                      AND ($3 OR (s.kind, state) NOT IN (SELECT * FROM unnest($4::text[], $5::text[])))) AS s
            WHERE ($3 OR kind <> 'release' OR state <> 'PUBLISHED' OR age = 1)
              AND ($6::text IS NULL OR (app, kind, source_id, subject_key) > ($6, $7::text, $8::uuid, $9::text))
            ORDER BY app, kind, source_id, subject_key LIMIT $10"#,
        workspace.uuid(),
        patterns.as_deref(),
        query.all,
        &settled_kinds,
        &settled_states,
        app,
        kind,
        source,
        key,
        PAGE + 1
    )
    .fetch_all(&mut *tx)
    .await?;
    let more = subjects.len() as i64 > PAGE;
    subjects.truncate(PAGE as usize);
    let next = subjects.last().filter(|_| more).map(|s| {
        let place: Place = (s.app.clone(), s.kind.clone(), s.source.uuid(), s.id.clone());
        // Strings and a UUID are always JSON.
        serde_json::to_vec(&place).map(|bytes| URL_SAFE_NO_PAD.encode(bytes))
    });
    let next = next.transpose().map_err(Problem::internal)?;
    Ok(Json(Status {
        workspace,
        name: head.name,
        at: head.at,
        size: head.size,
        sources,
        apps,
        subjects,
        next,
    }))
}
