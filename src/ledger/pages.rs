//! `/v1/workspaces/{workspace}/entries`: paging through a ledger, and waiting for what comes next.
//!
//! Entries have no index but their seq (a second one halves the append), so a filtered page is a walk. It is bounded:
//! a page that would have to look at more ends early, maybe empty, and `next` says where to go on.

use super::draft::is_type;
use super::read::{no_ledger, size_of};
use super::waiting::Waiting;
use crate::access::denial::{Denial, Reason};
use crate::access::{Access, Caller, Gate, needs};
use crate::database::Database;
use crate::http::extract::{InPath, InQuery};
use crate::http::problem::Problem;
use crate::id::{LedgerId, WorkspaceId};
use crate::node::Readiness;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use statusledger_verify::json::write_canonical_string;
use std::time::Duration;
use tokio::time::Instant;
use utoipa::{IntoParams, ToSchema};

/// Entries of a page, at most.
const PAGE: i64 = 1000;
/// Entries that a filtered page looks at, at most: some tenths of a second.
const LOOKED_AT: i64 = 100_000;
/// Types, and apps, in a filter, at most.
const FILTER: usize = 100;
/// Seconds that a request may wait, at most: below what proxies give up after.
const WAIT_S: u32 = 30;

/// Which entries.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct EntriesQuery {
    /// Entries from this seq on.
    #[param(minimum = 0)]
    from: Option<u64>,
    /// At most this many (1 to 1000; default 100).
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<i64>,
    /// Only of these types, separated by commas: whole, or a beginning that ends in `.*` (`store.*`).
    #[serde(rename = "type")]
    #[param(example = "store.*")]
    kind: Option<String>,
    /// Only about these apps (bundle ids or package names), separated by commas.
    app: Option<String>,
    /// Newest first, from `from` (or the end) down.
    reverse: Option<bool>,
    /// Where there is nothing yet, wait this many seconds for something (0 to 30; default 0; not with `reverse` or `ledger`). Of one
    /// key or person 64 requests wait at once (429), of a workspace 512 (503).
    #[param(minimum = 0, maximum = 30)]
    wait: Option<u32>,
    /// The ledger's id (default: the one that is written to; another only after an accepted loss).
    #[param(value_type = Option<String>, format = Uuid)]
    ledger: Option<LedgerId>,
}

/// A page of entries.
#[derive(Debug, Serialize, ToSchema)]
pub struct Entries {
    /// The canonical entries: each, byte for byte, is what its leaf hash is of.
    #[schema(value_type = Vec<Object>)]
    items: Vec<Box<RawValue>>,
    /// Where the next page begins; absent at the end. With a filter a page may have few items, or none, and a next.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<u64>,
    /// Entries in the ledger at this moment. Where `next` is absent and `reverse` false, later entries begin here.
    size: u64,
}

/// What of the query concerns single entries.
#[derive(Debug, Default)]
struct Filter {
    /// Whole types and beginnings of types; none means all.
    types: Option<(Vec<String>, Vec<String>)>,
    /// Apps, as they are and as they stand in a canonical entry; none means all.
    apps: Option<(Vec<String>, Vec<String>)>,
}

impl Filter {
    fn of(query: &EntriesQuery) -> Result<Self, Problem> {
        let listed = |given: &Option<String>| -> Result<Option<Vec<String>>, Problem> {
            let Some(given) = given else { return Ok(None) };
            let list: Vec<String> = given.split(',').map(str::to_owned).collect();
            match list.len() > FILTER || list.iter().any(String::is_empty) {
                true => Err(Problem::bad_request("a filter lists 1 to 100 values, separated by commas")),
                false => Ok(Some(list)),
            }
        };
        let mut filter = Self::default();
        if let Some(types) = listed(&query.kind)? {
            let (beginnings, whole): (Vec<_>, Vec<_>) = types.into_iter().partition(|t| t.ends_with(".*"));
            if !whole.iter().chain(&beginnings).all(|t| is_type(t.strip_suffix(".*").unwrap_or(t))) {
                return Err(Problem::bad_request(
                    "type is an entry's type (lower-case words joined by dots), or its beginning and \".*\"",
                ));
            }
            let beginnings = beginnings.iter().map(|t| t.trim_end_matches('*').to_owned()).collect();
            filter.types = Some((whole, beginnings));
        }
        if let Some(apps) = listed(&query.app)? {
            let needle = |app: &String| {
                let mut bytes = b"\"app\":".to_vec();
                write_canonical_string(app, &mut bytes);
                String::from_utf8_lossy(&bytes).into_owned()
            };
            let needles = apps.iter().map(needle).collect();
            filter.apps = Some((apps, needles));
        }
        Ok(filter)
    }

    fn is_some(&self) -> bool {
        self.types.is_some() || self.apps.is_some()
    }

    /// Whether an entry that holds an app's needle somewhere has it in the place that counts.
    fn wants(&self, entry: &str) -> Result<bool, Problem> {
        #[derive(Deserialize)]
        struct Entry {
            data: Data,
        }
        #[derive(Deserialize)]
        struct Data {
            app: Option<serde_json::Value>,
        }
        let Some((apps, _)) = &self.apps else { return Ok(true) };
        let entry: Entry = serde_json::from_str(entry).map_err(Problem::internal)?;
        let app = entry.data.app.as_ref().and_then(serde_json::Value::as_str);
        Ok(app.is_some_and(|app| apps.iter().any(|a| a == app)))
    }
}

/// Pages through a ledger's entries.
#[utoipa::path(get, path = "/v1/workspaces/{workspace}/entries", tag = "ledger", security(("token" = []), ("session" = [])),
    params(("workspace" = String, Path, description = "The workspace's id"), EntriesQuery),
    responses((status = 200, body = Entries),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list_entries(
    access: Access<needs::LedgerRead>,
    State(database): State<Database>,
    State(gate): State<Gate>,
    State(readiness): State<Readiness>,
    State(waiting): State<Waiting>,
    InPath(workspace): InPath<WorkspaceId>,
    InQuery(query): InQuery<EntriesQuery>,
) -> Result<Json<Entries>, Problem> {
    let filter = Filter::of(&query)?;
    let limit = query.limit.unwrap_or(100);
    if !(1..=PAGE).contains(&limit) {
        return Err(Problem::bad_request("limit is 1 to 1000"));
    }
    let (wait, reverse) = (query.wait.unwrap_or(0), query.reverse.unwrap_or(false));
    if wait > WAIT_S || ((reverse || query.ledger.is_some()) && wait > 0) {
        return Err(Problem::bad_request("wait is 0 to 30, and not for pages in reverse or with ledger"));
    }
    let from = query.from.map(|f| i64::try_from(f).unwrap_or(i64::MAX));
    if reverse {
        let page = down(&database, (workspace, query.ledger), &filter, from.unwrap_or(i64::MAX), limit);
        return Ok(Json(page.await?));
    }
    let mut from = from.unwrap_or(0);
    let until = Instant::now() + Duration::from_secs(wait.into());
    let mut place = None;
    loop {
        let page = up(&database, (workspace, query.ledger), &filter, from, limit).await?;
        let done = !page.items.is_empty() || page.next.is_some();
        if done && place.is_some() {
            // It has waited: whoever may not read any more hears nothing of what came meanwhile.
            access.again().await?;
        }
        from = from.max(page.size as i64);
        if done || wait == 0 {
            return Ok(Json(page));
        }
        let place = match &mut place {
            Some(place) => place,
            None => {
                let caller = match access.caller {
                    Caller::Key { id, .. } => id.uuid(),
                    Caller::Session { user, .. } => user.uuid(),
                };
                let found = waiting.place(&database, &readiness, workspace, caller);
                place.insert(found.inspect_err(|problem| crowded(&gate, &access, workspace, problem))?)
            }
        };
        if !place.grown(from, until).await {
            return Ok(Json(page));
        }
    }
}

/// Puts it on the record that somebody lets too many requests wait, as the other limits of requests do.
fn crowded(gate: &Gate, access: &Access<needs::LedgerRead>, workspace: WorkspaceId, problem: &Problem) {
    if problem.status == StatusCode::TOO_MANY_REQUESTS {
        gate.denials.note(Denial {
            actor: Some(access.caller.actor()),
            workspace: None,
            asked: Some(workspace),
            source: None,
            route: "GET /v1/workspaces/{workspace}/entries".to_owned(),
            reason: Reason::RateLimited,
            context: access.context.clone(),
        });
    }
}

type Row = (i64, String);

/// A workspace's ledger; none: the one that is written to.
type Of = (WorkspaceId, Option<LedgerId>);

/// The page of what begins at `from`.
async fn up(
    database: &Database,
    (workspace, of): Of,
    filter: &Filter,
    from: i64,
    limit: i64,
) -> Result<Entries, Problem> {
    let mut tx = database.workspace(workspace).await?;
    let (ledger, size) = size_of(&mut tx, of).await?.ok_or_else(|| no_ledger(workspace, of))?;
    let end = size as i64;
    // What is appended from now on is the next page's.
    let stop = if filter.is_some() { end.min(from.saturating_add(LOOKED_AT)) } else { end };
    let ((types, beginnings), apps) = parts(filter);
    let rows: Vec<Row> = sqlx::query!(
        "SELECT seq, entry FROM entries
          WHERE workspace_id = $1 AND ledger_id = $2 AND seq >= $3 AND seq < $4
            AND ($5::text[] IS NULL OR type = ANY($5) OR type ^@ ANY($6::text[]))
            AND ($7::text[] IS NULL OR EXISTS (SELECT FROM unnest($7) AS n WHERE strpos(entry, n) > 0))
          ORDER BY seq LIMIT $8",
        workspace.uuid(),
        ledger.uuid(),
        from,
        stop,
        types as Option<&[String]>,
        beginnings as Option<&[String]>,
        apps as Option<&[String]>,
        limit + 1
    )
    .fetch_all(&mut *tx)
    .await?
    .into_iter()
    .map(|r| (r.seq, r.entry))
    .collect();
    page(filter, rows, limit, (stop < end).then_some(stop), size)
}

/// The page of what ends at `from`, newest first.
async fn down(
    database: &Database,
    (workspace, of): Of,
    filter: &Filter,
    from: i64,
    limit: i64,
) -> Result<Entries, Problem> {
    let mut tx = database.workspace(workspace).await?;
    let (ledger, size) = size_of(&mut tx, of).await?.ok_or_else(|| no_ledger(workspace, of))?;
    let from = from.min(size as i64 - 1);
    let stop = if filter.is_some() { from.saturating_sub(LOOKED_AT).max(-1) } else { -1 };
    let ((types, beginnings), apps) = parts(filter);
    let rows: Vec<Row> = sqlx::query!(
        "SELECT seq, entry FROM entries
          WHERE workspace_id = $1 AND ledger_id = $2 AND seq <= $3 AND seq > $4
            AND ($5::text[] IS NULL OR type = ANY($5) OR type ^@ ANY($6::text[]))
            AND ($7::text[] IS NULL OR EXISTS (SELECT FROM unnest($7) AS n WHERE strpos(entry, n) > 0))
          ORDER BY seq DESC LIMIT $8",
        workspace.uuid(),
        ledger.uuid(),
        from,
        stop,
        types as Option<&[String]>,
        beginnings as Option<&[String]>,
        apps as Option<&[String]>,
        limit + 1
    )
    .fetch_all(&mut *tx)
    .await?
    .into_iter()
    .map(|r| (r.seq, r.entry))
    .collect();
    page(filter, rows, limit, (stop >= 0).then_some(stop), size)
}

type Lists<'a> = ((Option<&'a [String]>, Option<&'a [String]>), Option<&'a [String]>);

/// A filter as the statements take it.
fn parts(filter: &Filter) -> Lists<'_> {
    let types = filter.types.as_ref();
    let (whole, beginnings) = (types.map(|(w, _)| &w[..]), types.map(|(_, b)| &b[..]));
    ((whole, beginnings), filter.apps.as_ref().map(|(_, needles)| &needles[..]))
}

/// Cuts `rows`, one of which may be too many, to a page. `stopped` is where looking ended early.
fn page(
    filter: &Filter,
    rows: Vec<Row>,
    limit: i64,
    stopped: Option<i64>,
    size: u64,
) -> Result<Entries, Problem> {
    let next = rows.get(limit as usize).map(|(seq, _)| *seq).or(stopped).map(|seq| seq as u64);
    let mut items = Vec::with_capacity(rows.len().min(limit as usize));
    for (_, entry) in rows.into_iter().take(limit as usize) {
        if filter.wants(&entry)? {
            items.push(RawValue::from_string(entry).map_err(Problem::internal)?);
        }
    }
    Ok(Entries { items, next, size })
}
