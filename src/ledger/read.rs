//! Reading a ledger: an entry, proofs, checkpoints, and `/v1/workspaces/{workspace}/…` for them.

use super::checkpoint::{self, SignedTree};
use super::seen_heads::SeenHeads;
use super::tree::{self, Stored};
use super::{Writer, base64, export, hex, openings, pages};
use crate::access::{Access, needs};
use crate::database::{Database, WorkspaceTx};
use crate::http::App;
use crate::http::extract::{InPath, InQuery};
use crate::http::problem::Problem;
use crate::id::{LedgerId, WorkspaceId};
use crate::keyring::{self, Keyring};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// A checkpoint that cannot be signed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database.
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    /// The tree.
    #[error(transparent)]
    Tree(#[from] tree::Error),
    /// The keys.
    #[error(transparent)]
    Keyring(#[from] keyring::Error),
    /// This node handed out another history.
    #[error(transparent)]
    Head(#[from] checkpoint::Error),
    /// This node cannot keep its record.
    #[error("this node cannot remember what it hands out: {0}")]
    Remember(std::io::Error),
    /// An export of a history that was not signed, of which no ledger can tell.
    #[error("the history is not the one that was signed, and no ledger is left to tell of an export: {0}")]
    Unrecorded(String),
    /// The entry that tells of an export.
    #[error(transparent)]
    Append(#[from] super::append::Error),
    /// Not a type.
    #[error("\"{0}\" is not an entry's type (lower-case words joined by dots)")]
    Type(String),
    /// A range that ends before it begins.
    #[error("the range from {from} to before {to} ends before it begins")]
    Backwards {
        /// Its beginning.
        from: u64,
        /// Its end.
        to: u64,
    },
    /// Beyond the ledger's end.
    #[error("the ledger has {has} entries, not {asked}")]
    Size {
        /// Entries in it.
        has: u64,
        /// Asked for.
        asked: u64,
    },
}

impl From<Error> for Problem {
    fn from(e: Error) -> Self {
        match e {
            Error::Sql(e) | Error::Tree(tree::Error::Sql(e)) => e.into(),
            Error::Append(e) => e.into(),
            Error::Tree(tree::Error::OutOfRange(what)) => Self::invalid(what),
            e @ (Error::Size { .. } | Error::Backwards { .. } | Error::Type(_)) => {
                Self::invalid(e.to_string())
            }
            e => Self::internal(e),
        }
    }
}

/// A ledger's size, as a transaction sees it.
///
/// # Errors
/// If the database does not answer.
pub async fn size(tx: &mut WorkspaceTx) -> Result<Option<(LedgerId, u64)>, sqlx::Error> {
    let workspace = tx.workspace;
    let row = sqlx::query!(
        r#"SELECT h.ledger_id AS "ledger: LedgerId", h.size
             FROM heads h JOIN workspaces w USING (workspace_id, ledger_id) WHERE h.workspace_id = $1"#,
        workspace.uuid()
    )
    .fetch_optional(&mut **tx)
    .await?;
    Ok(row.map(|r| (r.ledger, r.size as u64)))
}

/// The size of `ledger` (none: the one that is written to), as a transaction sees it: one that was followed by another
/// after an accepted loss can be read still.
///
/// # Errors
/// If the database does not answer.
pub async fn size_of(
    tx: &mut WorkspaceTx,
    ledger: Option<LedgerId>,
) -> Result<Option<(LedgerId, u64)>, sqlx::Error> {
    let Some(ledger) = ledger else { return size(tx).await };
    let workspace = tx.workspace;
    let size = sqlx::query_scalar!(
        "SELECT size FROM heads WHERE workspace_id = $1 AND ledger_id = $2",
        workspace.uuid(),
        ledger.uuid()
    )
    .fetch_optional(&mut **tx)
    .await?;
    Ok(size.map(|size| (ledger, size as u64)))
}

/// How many entries a ledger had whose loss was accepted, and whether what there is of it is of another history.
async fn accepted_loss(tx: &mut WorkspaceTx, ledger: LedgerId) -> Result<Option<(u64, bool)>, sqlx::Error> {
    let workspace = tx.workspace;
    let loss = sqlx::query!(
        "SELECT size, other FROM losses
          WHERE workspace_id = $1 AND ledger_id = $2 AND accepted_at IS NOT NULL",
        workspace.uuid(),
        ledger.uuid()
    )
    .fetch_optional(&mut **tx)
    .await?;
    Ok(loss.map(|loss| (loss.size as u64, loss.other)))
}

/// Signs the first `size` entries (none: all) of `ledger` (none: the one that is written to), which are durable, and remembers it before it leaves.
///
/// # Errors
/// If the ledger is shorter, or is not the one that this node handed out before.
pub async fn checkpoint(
    database: &Database,
    keyring: &Keyring,
    seen: &SeenHeads,
    workspace: WorkspaceId,
    ledger: Option<LedgerId>,
    at: Option<u64>,
) -> Result<Option<(LedgerId, SignedTree, String)>, Error> {
    let mut tx = database.workspace(workspace).await?;
    let named = ledger.is_some();
    let Some((ledger, mut has)) = size_of(&mut tx, ledger).await? else { return Ok(None) };
    let known = seen.newest(ledger);
    if known.is_some_and(|known| known.size > has) {
        // The ledger has grown, and another request has signed that, since its size was read. What was signed is read
        // before what there is, never after.
        has = size_of(&mut tx, Some(ledger)).await?.map_or(has, |(_, has)| has);
    }
    let at = at.unwrap_or(has);
    if at > has {
        return Err(Error::Size { has, asked: at });
    }
    let root = checkpoint::root_at(&mut tx, workspace, ledger, at).await?;
    let disagrees = |what: String| Error::Head(checkpoint::Error::Disagrees { ledger, what });
    // The one that is written to has lost nothing.
    let lost = if named { accepted_loss(&mut tx, ledger).await? } else { None };
    if lost.is_some_and(|(_, other)| other) {
        // Not shorter, but other: no part of it is known to be what was signed.
        return Err(disagrees("it is another history than was signed, and another ledger follows it".into()));
    }
    if let Some(known) = known {
        // What there is of one that lost its end is its beginning, and may be signed still.
        if known.size > has && lost.is_none_or(|(lost, _)| lost < known.size) {
            return Err(disagrees(format!(
                "it has {has} entries, but this node handed out a checkpoint of {}",
                known.size
            )));
        }
        if known.size <= at
            && checkpoint::root_at(&mut tx, workspace, ledger, known.size).await? != known.root
        {
            return Err(disagrees(format!(
                "its first {} entries are not those that this node handed out",
                known.size
            )));
        }
    }
    let ring = keyring.current();
    let note = ring.sign_checkpoint(&ring.checkpoint_key_id(), ledger, at, root)?;
    let tree = SignedTree { size: at, root };
    seen.remember(ledger, tree).await.map_err(Error::Remember)?;
    checkpoint::keep(&mut tx, workspace, ledger, &tree, &note).await?;
    tx.commit().await?;
    Ok(Some((ledger, tree, note)))
}

pub(crate) fn no_workspace(id: WorkspaceId) -> Problem {
    Problem::not_found(format!("The workspace {id} does not exist."))
}

/// There is no such workspace, or it has no such ledger.
pub(crate) fn no_ledger(id: WorkspaceId, ledger: Option<LedgerId>) -> Problem {
    match ledger {
        None => no_workspace(id),
        Some(ledger) => Problem::not_found(format!("The workspace {id} has no ledger {ledger}.")),
    }
}

/// Which of the workspace's ledgers.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct LedgerQuery {
    /// The ledger's id (default: the one that is written to; another only after an accepted loss).
    #[param(value_type = Option<String>, format = Uuid)]
    pub(super) ledger: Option<LedgerId>,
}

/// An inclusion or consistency proof's hashes.
#[derive(Debug, Serialize, ToSchema)]
pub struct InclusionProof {
    /// The entry.
    seq: u64,
    /// The tree.
    size: u64,
    /// The entry's leaf hash, hex.
    leaf: String,
    /// The tree's root, hex.
    root: String,
    /// The audit path, RFC 6962 order, hex.
    hashes: Vec<String>,
    /// The same as a C2SP tlog-proof with a checkpoint of that size, as receipts carry it.
    proof: String,
}

/// A consistency proof, as `statusledger-verify consistency --proof` takes it.
#[derive(Debug, Serialize, ToSchema)]
pub struct ConsistencyProof {
    /// The older size.
    from: u64,
    /// The newer size.
    to: u64,
    /// RFC 6962 order, hex.
    hashes: Vec<String>,
}

/// Which inclusion.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct InclusionQuery {
    /// The entry.
    #[param(minimum = 0)]
    seq: u64,
    /// The tree's size (default: all entries).
    #[param(minimum = 1)]
    size: Option<u64>,
    /// The ledger's id (default: the one that is written to; another only after an accepted loss).
    #[param(value_type = Option<String>, format = Uuid)]
    ledger: Option<LedgerId>,
}

/// Which sizes.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ConsistencyQuery {
    /// The older size.
    #[param(minimum = 0)]
    from: u64,
    /// The newer size (default: all entries).
    #[param(minimum = 0)]
    to: Option<u64>,
    /// The ledger's id (default: the one that is written to; another only after an accepted loss).
    #[param(value_type = Option<String>, format = Uuid)]
    ledger: Option<LedgerId>,
}

/// Which checkpoint.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct CheckpointQuery {
    /// The tree's size (default: all entries).
    #[param(minimum = 0)]
    size: Option<u64>,
    /// The ledger's id (default: the one that is written to; another only after an accepted loss).
    #[param(value_type = Option<String>, format = Uuid)]
    ledger: Option<LedgerId>,
}

/// What to export.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ExportQuery {
    /// From this seq (default 0).
    #[param(minimum = 0)]
    from: Option<u64>,
    /// To before this seq (default: the end).
    #[param(minimum = 0)]
    to: Option<u64>,
    /// Only entries of these types, separated by commas; the others are named by their leaf hash.
    types: Option<String>,
    /// Whether openings of sealed values go with it (default false).
    openings: Option<bool>,
    /// The ledger's id (default: the one that is written to; another only after an accepted loss).
    #[param(value_type = Option<String>, format = Uuid)]
    ledger: Option<LedgerId>,
}

/// The routes of ledgers.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(pages::list_entries))
        .routes(routes!(read_entry))
        .routes(routes!(openings::read_openings))
        .routes(routes!(inclusion))
        .routes(routes!(consistency))
        .routes(routes!(read_checkpoint))
        .routes(routes!(read_export))
}

/// Shows an entry, byte for byte.
#[utoipa::path(get, path = "/v1/workspaces/{workspace}/entries/{seq}", tag = "ledger", security(("token" = []), ("session" = [])),
    params(("workspace" = String, Path, description = "The workspace's id"), ("seq" = u64, Path, minimum = 0), LedgerQuery),
    responses((status = 200, body = Object, description = "The canonical entry"),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
async fn read_entry(
    _: Access<needs::LedgerRead>,
    State(database): State<Database>,
    InPath((workspace, seq)): InPath<(WorkspaceId, u64)>,
    InQuery(of): InQuery<LedgerQuery>,
) -> Result<Response, Problem> {
    let mut tx = database.workspace(workspace).await?;
    let (ledger, _) = size_of(&mut tx, of.ledger).await?.ok_or_else(|| no_ledger(workspace, of.ledger))?;
    let entry = sqlx::query_scalar!(
        "SELECT entry FROM entries WHERE workspace_id = $1 AND ledger_id = $2 AND seq = $3",
        workspace.uuid(),
        ledger.uuid(),
        i64::try_from(seq).unwrap_or(i64::MAX)
    )
    .fetch_optional(&mut *tx)
    .await?
    .ok_or_else(|| Problem::not_found(format!("The ledger has no entry {seq}.")))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], entry).into_response())
}

/// Proves that an entry stands in the ledger.
#[utoipa::path(get, path = "/v1/workspaces/{workspace}/proofs/inclusion", tag = "ledger", security(("token" = []), ("session" = [])),
    params(("workspace" = String, Path, description = "The workspace's id"), InclusionQuery),
    responses((status = 200, body = InclusionProof),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
async fn inclusion(
    _: Access<needs::LedgerRead>,
    State(database): State<Database>,
    State(keyring): State<Keyring>,
    State(seen): State<SeenHeads>,
    InPath(workspace): InPath<WorkspaceId>,
    InQuery(query): InQuery<InclusionQuery>,
) -> Result<Json<InclusionProof>, Problem> {
    let (ledger, tree, note) = checkpoint(&database, &keyring, &seen, workspace, query.ledger, query.size)
        .await?
        .ok_or_else(|| no_ledger(workspace, query.ledger))?;
    let path = tree::inclusion(query.seq, tree.size).map_err(Error::from)?;
    let mut tx = database.workspace(workspace).await?;
    let stored = Stored::read(&mut tx, workspace, ledger, path.iter().copied()).await?;
    let hashes = stored.hashes(&path).map_err(Error::from)?;
    let leaf = sqlx::query_scalar!(
        "SELECT leaf FROM entries WHERE workspace_id = $1 AND ledger_id = $2 AND seq = $3",
        workspace.uuid(),
        ledger.uuid(),
        query.seq as i64
    )
    .fetch_one(&mut *tx)
    .await?;
    let lines: String = hashes.iter().map(|h| base64(h) + "\n").collect();
    Ok(Json(InclusionProof {
        seq: query.seq,
        size: tree.size,
        leaf: hex(&leaf),
        root: hex(&tree.root),
        hashes: hashes.iter().map(|h| hex(h)).collect(),
        proof: format!("c2sp.org/tlog-proof@v1\nindex {}\n{lines}\n{note}", query.seq),
    }))
}

/// Proves that a smaller ledger is the beginning of a larger one.
#[utoipa::path(get, path = "/v1/workspaces/{workspace}/proofs/consistency", tag = "ledger", security(("token" = []), ("session" = [])),
    params(("workspace" = String, Path, description = "The workspace's id"), ConsistencyQuery),
    responses((status = 200, body = ConsistencyProof),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
async fn consistency(
    _: Access<needs::LedgerRead>,
    State(database): State<Database>,
    InPath(workspace): InPath<WorkspaceId>,
    InQuery(query): InQuery<ConsistencyQuery>,
) -> Result<Json<ConsistencyProof>, Problem> {
    let mut tx = database.workspace(workspace).await?;
    let (ledger, has) =
        size_of(&mut tx, query.ledger).await?.ok_or_else(|| no_ledger(workspace, query.ledger))?;
    let to = query.to.unwrap_or(has);
    if to > has {
        return Err(Error::Size { has, asked: to }.into());
    }
    let path = tree::consistency(query.from, to).map_err(Error::from)?;
    let stored = Stored::read(&mut tx, workspace, ledger, path.iter().copied()).await?;
    let hashes = stored.hashes(&path).map_err(Error::from)?;
    Ok(Json(ConsistencyProof { from: query.from, to, hashes: hashes.iter().map(|h| hex(h)).collect() }))
}

/// The signed checkpoint of the ledger (C2SP tlog-checkpoint).
#[utoipa::path(get, path = "/v1/workspaces/{workspace}/checkpoint", tag = "ledger", security(("token" = []), ("session" = [])),
    params(("workspace" = String, Path, description = "The workspace's id"), CheckpointQuery),
    responses((status = 200, body = String, content_type = "text/plain"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
async fn read_checkpoint(
    _: Access<needs::LedgerRead>,
    State(database): State<Database>,
    State(keyring): State<Keyring>,
    State(seen): State<SeenHeads>,
    InPath(workspace): InPath<WorkspaceId>,
    InQuery(query): InQuery<CheckpointQuery>,
) -> Result<String, Problem> {
    let (_, _, note) = checkpoint(&database, &keyring, &seen, workspace, query.ledger, query.size)
        .await?
        .ok_or_else(|| no_ledger(workspace, query.ledger))?;
    Ok(note)
}

/// The ledger as one file that proves itself (docs/receipt.md, "Export"), streamed. Where its history is not the one that was
/// signed, the file shows that, no sealed value is opened, and the entry of the export is in the instance's ledger.
#[utoipa::path(get, path = "/v1/workspaces/{workspace}/export", tag = "ledger", security(("token" = []), ("session" = [])),
    params(("workspace" = String, Path, description = "The workspace's id"), ExportQuery),
    responses((status = 200, body = Vec<u8>, content_type = "application/zip"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
async fn read_export(
    access: Access<needs::LedgerExport>,
    State(writer): State<Writer>,
    State(keyring): State<Keyring>,
    State(seen): State<SeenHeads>,
    InPath(workspace): InPath<WorkspaceId>,
    InQuery(query): InQuery<ExportQuery>,
) -> Result<Response, Problem> {
    let request = export::Request {
        workspace,
        ledger: query.ledger,
        from: query.from.unwrap_or(0),
        to: query.to,
        types: query.types.map(|t| t.split(',').map(str::to_owned).collect()),
        openings: query.openings.unwrap_or(false),
        exported_by: access.caller.actor().to_string(),
    };
    let (database, data_keys) = (writer.database().clone(), writer.data_keys().clone());
    let exporter = export::Exporter { database, keyring, data_keys, seen };
    let prepared = exporter.prepare(request).await?.ok_or_else(|| no_ledger(workspace, query.ledger))?;
    if prepared.openings() {
        // Of a workspace that has ended there are none, and no file is begun that could not be finished.
        writer.data_keys().get(workspace).await?;
    }
    prepared.record(&writer, &access.act()).await?;
    let name = format!("attachment; filename=\"ledger-{}.zip\"", prepared.ledger());
    let stream = exporter.stream(prepared);
    Ok((
        [(header::CONTENT_TYPE, "application/zip".to_owned()), (header::CONTENT_DISPOSITION, name)],
        Body::from_stream(stream),
    )
        .into_response())
}
