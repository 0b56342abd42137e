//! `/v1/workspaces/{workspace}/entries/{seq}/openings`: what the sealed values of one entry are.
//!
//! Whoever asks is put on the record in the transaction that reads, and nothing is shown before that is durable. So a GET
//! that shows something appends an entry, as an export does. What was destroyed is named, so that nobody takes it for
//! never sealed.

use super::append;
use super::read::{LedgerQuery, no_ledger, size_of};
use super::{Writer, hex};
use crate::access::{Access, needs};
use crate::audit::Action;
use crate::database::{Database, WorkspaceTx};
use crate::http::extract::{InPath, InQuery};
use crate::http::problem::Problem;
use crate::id::{LedgerId, WorkspaceId};
use crate::sealing;
use axum::Json;
use axum::extract::State;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::value::RawValue;
use statusledger_keys::envelope::DataKey;
use statusledger_verify::entry::sealed_hash;
use statusledger_verify::json::{self, Value};
use std::collections::{BTreeMap, BTreeSet};
use utoipa::ToSchema;

/// The openings of an entry's sealed values.
#[derive(Debug, Serialize, ToSchema)]
pub struct Openings {
    /// The entry.
    seq: u64,
    /// By the names of `data.sealed`: `salt` and `value`, with which each verifies against the entry (docs/receipt.md, "Sealed
    /// values").
    #[schema(value_type = Object)]
    openings: BTreeMap<String, Box<RawValue>>,
    /// The names of those that were destroyed: nobody can tell any more what they were.
    destroyed: BTreeSet<String>,
}

/// What an entry seals: hashes by name.
fn sealed_in(entry: &str) -> Result<BTreeMap<String, String>, Problem> {
    let entry: serde_json::Value = serde_json::from_str(entry).map_err(Problem::internal)?;
    let sealed = entry["data"]["sealed"].as_object();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    Ok(sealed.into_iter().flatten().map(|(name, hash)| (name.clone(), text(hash))).collect())
}

/// Whether an opening is the one that the entry has the hash of.
fn is_of(opening: &[u8], hash: &str) -> bool {
    let Ok(opening) = json::parse(opening) else { return false };
    let Some(object) = opening.as_object() else { return false };
    let salt = object.get("salt").and_then(Value::as_str).and_then(|salt| STANDARD.decode(salt).ok());
    let Some(salt) = salt.and_then(|salt| <[u8; 32]>::try_from(salt).ok()) else { return false };
    object.get("value").is_some_and(|value| hex(&sealed_hash(&salt, value.canonical().as_bytes())) == hash)
}

async fn entry(tx: &mut WorkspaceTx, ledger: LedgerId, seq: u64) -> Result<String, Problem> {
    let workspace = tx.workspace;
    sqlx::query_scalar!(
        "SELECT entry FROM entries WHERE workspace_id = $1 AND ledger_id = $2 AND seq = $3",
        workspace.uuid(),
        ledger.uuid(),
        i64::try_from(seq).unwrap_or(i64::MAX)
    )
    .fetch_optional(&mut **tx)
    .await?
    .ok_or_else(|| Problem::not_found(format!("The ledger has no entry {seq}.")))
}

/// Opens the sealed values of an entry. That they were shown is on the record (`audit.openings.shown`) before they leave.
#[utoipa::path(get, path = "/v1/workspaces/{workspace}/entries/{seq}/openings", tag = "ledger", security(("token" = []), ("session" = [])),
    params(("workspace" = String, Path, description = "The workspace's id"), ("seq" = u64, Path, minimum = 0), LedgerQuery),
    responses((status = 200, body = Openings),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(super) async fn read_openings(
    access: Access<needs::LedgerExport>,
    State(writer): State<Writer>,
    InPath((workspace, seq)): InPath<(WorkspaceId, u64)>,
    InQuery(LedgerQuery { ledger: of }): InQuery<LedgerQuery>,
) -> Result<Json<Openings>, Problem> {
    let mut locked = match writer.lock(workspace).await {
        // Its data key is destroyed, and the openings with it: there is nothing to show, and nothing to record.
        Err(append::Error::NoWorkspace(_)) => {
            return nothing(writer.database(), workspace, of, seq).await.map(Json);
        }
        locked => locked?,
    };
    let data_key = writer.data_keys().within(&mut locked).await?;
    let (ledger, _) = size_of(&mut locked, of).await?.ok_or_else(|| no_ledger(workspace, of))?;
    let sealed = sealed_in(&entry(&mut locked, ledger, seq).await?)?;
    let openings = opened(&mut locked, &data_key, ledger, seq, &sealed).await?;
    let destroyed = sealed.into_keys().filter(|name| !openings.contains_key(name)).collect();
    if openings.is_empty() {
        return Ok(Json(Openings { seq, openings, destroyed }));
    }
    let names = openings.keys().cloned().map(Value::String).collect();
    let act = access.act();
    let record = act
        .of(Action::OpeningsShown)
        .target("entry", seq)
        .detail("names", Value::Array(names))
        .detail("seq", Value::Int(i64::try_from(seq).unwrap_or(i64::MAX)));
    locked.append(&[record.draft()?]).await?;
    locked.commit().await?;
    Ok(Json(Openings { seq, openings, destroyed }))
}

async fn nothing(
    database: &Database,
    workspace: WorkspaceId,
    of: Option<LedgerId>,
    seq: u64,
) -> Result<Openings, Problem> {
    let mut tx = database.workspace(workspace).await?;
    let (ledger, _) = size_of(&mut tx, of).await?.ok_or_else(|| no_ledger(workspace, of))?;
    let sealed = sealed_in(&entry(&mut tx, ledger, seq).await?)?;
    Ok(Openings { seq, openings: BTreeMap::new(), destroyed: sealed.into_keys().collect() })
}

/// The openings that there still are. One that is not the entry's own is not shown.
async fn opened(
    tx: &mut WorkspaceTx,
    data_key: &DataKey,
    ledger: LedgerId,
    seq: u64,
    sealed: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, Box<RawValue>>, Problem> {
    let workspace = tx.workspace;
    let rows = sqlx::query!(
        "SELECT name, sealed FROM openings WHERE workspace_id = $1 AND ledger_id = $2 AND seq = $3",
        workspace.uuid(),
        ledger.uuid(),
        i64::try_from(seq).unwrap_or(i64::MAX)
    )
    .fetch_all(&mut **tx)
    .await?;
    let mut openings = BTreeMap::new();
    for row in rows {
        let opening = sealing::open_opening(data_key, ledger, seq, &row.name, &row.sealed)
            .map_err(sealing::Error::from)?;
        if !sealed.get(&row.name).is_some_and(|hash| is_of(&opening, hash)) {
            return Err(Problem::internal(format!("opening {seq}/{} is not the entry's", row.name)));
        }
        let text = String::from_utf8(opening.to_vec()).map_err(Problem::internal)?;
        openings.insert(row.name, RawValue::from_string(text).map_err(Problem::internal)?);
    }
    Ok(openings)
}
