//! Whether the database holds the history that was signed.
//!
//! Every ledger is compared with the newest checkpoint in the database, with what this node handed out, and with what
//! another node found missing before. What does not agree is marked in the database (`losses`), and the ledger closed:
//! a node that remembers less, and so sees nothing wrong, adds nothing to it either. The mark goes when the history is
//! back; a loss that was accepted (`super::continued`) stays on record.

use super::checkpoint::{Error, SignedTree, root_at};
use super::seen_heads::{Intent, Place, SeenHeads};
use super::tree;
use crate::database::Database;
use crate::database::server::{self, Server};
use crate::id::{LedgerId, WorkspaceId};
use std::collections::HashMap;
use std::fmt;

/// Disagreements that are told; a database that was set back has one a ledger.
const TOLD: usize = 8;

/// In what way a history is not the one that was signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Its last entries are missing.
    Shorter,
    /// It has as many, but others.
    Other,
    /// The ledger is not there.
    Gone,
    /// More is missing than was accepted as lost.
    BeyondAccepted,
    /// Its tables contradict each other.
    Damaged,
}

/// A ledger whose history is not the one that was signed.
#[derive(Clone, Debug)]
pub struct Disagreement {
    /// Whose; none where the ledger is not there.
    pub workspace: Option<WorkspaceId>,
    /// Which.
    pub ledger: LedgerId,
    /// In what way.
    pub kind: Kind,
    /// Entries that there are.
    pub has: u64,
    /// The largest tree that was signed, as far as is known here; none where the tables contradict each other.
    pub signed: Option<SignedTree>,
    /// The same in words.
    pub what: String,
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ledger {}: {}", self.ledger, self.what)
    }
}

/// All that disagree, as one sentence says it.
#[must_use]
pub fn told(found: &[Disagreement]) -> String {
    let mut told: Vec<String> = found.iter().take(TOLD).map(ToString::to_string).collect();
    if found.len() > TOLD {
        told.push(format!("and {} more ledgers", found.len() - TOLD));
    }
    told.join("; ")
}

/// What was compared.
#[derive(Debug, Default)]
pub struct Compared {
    /// How many ledgers.
    pub ledgers: u64,
    /// Those that disagree.
    pub found: Vec<Disagreement>,
}

/// A loss on record.
struct Loss {
    tree: SignedTree,
    accepted: bool,
}

/// Compares every ledger with what was signed, and marks in the database what does not agree.
///
/// # Errors
/// [`Error::Lost`]: the ledgers that do not agree; or the database does not answer.
pub async fn check_heads(database: &Database, seen: &SeenHeads) -> Result<u64, Error> {
    let mut handed_out = seen.all();
    let mut doubtful = Vec::new();
    for (ledger, tree, fate) in fates(database, &seen.left()).await? {
        match fate {
            Fate::Never => {
                tracing::info!(%ledger, size = tree.size, "what was on its way to the database when the node ended did not get there");
                seen.withdraw(ledger, tree);
            }
            Fate::Committed => {
                if let Err(e) = seen.remember(ledger, tree).await {
                    tracing::error!(error = %e, "this node cannot remember what it may have handed out");
                }
                handed_out.insert(ledger, tree);
            }
            Fate::Unknown => doubtful.push(maybe(ledger, tree)),
        }
    }
    let compared = compare(database, &handed_out).await?;
    // Not marked: others, which know no more of it, go on.
    if compared.found.is_empty() && !doubtful.is_empty() {
        return Err(Error::Lost(doubtful.join("; ")));
    }
    if compared.found.is_empty() {
        return Ok(compared.ledgers);
    }
    for found in &compared.found {
        // This node serves nothing whether the others hear of it or not.
        if let Err(e) = mark(database, found).await {
            tracing::warn!(ledger = %found.ledger, error = %e, "what is missing cannot be marked for other nodes");
        }
    }
    Err(Error::Lost(told(&compared.found)))
}

/// What became of a tree that was about to be committed when a node ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is there.
    Committed,
    /// It never was, since what is committed on a timeline stays there; or its loss was accepted.
    Never,
    /// The database goes by another timeline, which may lack it.
    Unknown,
}

/// What is said of a tree whose fate is unknown.
#[must_use]
pub fn maybe(ledger: LedgerId, tree: SignedTree) -> String {
    format!(
        "ledger {ledger}: a checkpoint of {} entries was being committed when this node ended; the database was promoted or \
         restored since, and lacks it: receipts of it may have left",
        tree.size
    )
}

/// What became of each that was about to be committed.
///
/// # Errors
/// If the database does not answer.
pub async fn fates(
    database: &Database,
    intended: &HashMap<LedgerId, Intent>,
) -> Result<Vec<(LedgerId, SignedTree, Fate)>, Error> {
    let mut fates = Vec::with_capacity(intended.len());
    for (ledger, intent) in intended {
        fates.push((*ledger, intent.tree, fate(database, *ledger, intent).await?));
    }
    Ok(fates)
}

/// What became of one. Whether the tree is there and which server lacks it is asked of one connection: the next may lead to
/// another.
async fn fate(database: &Database, ledger: LedgerId, intent: &Intent) -> Result<Fate, Error> {
    let mut tx = database.worker.begin().await?;
    let workspace = sqlx::query_scalar!(
        r#"SELECT workspace_id AS "workspace: WorkspaceId" FROM heads WHERE ledger_id = $1"#,
        ledger.uuid()
    )
    .fetch_optional(&mut *tx)
    .await?;
    let accepted = sqlx::query_scalar!(
        "SELECT 1 AS x FROM losses WHERE ledger_id = $1 AND accepted_at IS NOT NULL AND size >= $2",
        ledger.uuid(),
        intent.tree.size as i64
    )
    .fetch_optional(&mut *tx)
    .await?;
    let lacking = |server: &Server| {
        let never = accepted.is_some() || Place::of(server).as_ref() == Some(&intent.place);
        if never { Fate::Never } else { Fate::Unknown }
    };
    let Some(workspace) = workspace else { return Ok(lacking(&server::identify(&mut *tx).await?)) };
    drop(tx);
    let mut tx = database.workspace(workspace).await?;
    let size = sqlx::query_scalar!(
        "SELECT size FROM heads WHERE workspace_id = $1 AND ledger_id = $2",
        workspace.uuid(),
        ledger.uuid()
    )
    .fetch_optional(&mut *tx)
    .await?;
    if size.is_some_and(|size| size as u64 >= intent.tree.size) {
        match root_at(&mut tx, workspace, ledger, intent.tree.size).await {
            Ok(root) if root == intent.tree.root => return Ok(Fate::Committed),
            Err(tree::Error::Sql(e)) => return Err(e.into()),
            // Another, or damaged: what is held against it says how.
            Ok(_) | Err(_) => {}
        }
    }
    Ok(lacking(&server::identify(&mut *tx).await?))
}

/// Compares every ledger with what was signed: `seen` and what the database says of it.
///
/// # Errors
/// If the database does not answer.
pub async fn compare(database: &Database, seen: &HashMap<LedgerId, SignedTree>) -> Result<Compared, Error> {
    // Ledgers grow meanwhile: what was signed is read before what there is, never after.
    let mut unseen = seen.clone();
    let rows = sqlx::query!(
        r#"SELECT h.workspace_id AS "workspace: WorkspaceId", h.ledger_id AS "ledger: LedgerId",
                  c.size AS "signed_size?", c.root AS "signed_root?",
                  l.size AS "lost_size?", l.root AS "lost_root?", l.accepted_at IS NOT NULL AS "accepted!"
             FROM heads h LEFT JOIN checkpoints c USING (workspace_id, ledger_id)
             LEFT JOIN losses l USING (workspace_id, ledger_id)
            ORDER BY h.workspace_id, h.ledger_id"#
    )
    .fetch_all(&database.worker)
    .await?;
    let tree = |size: Option<i64>, root: Option<Vec<u8>>| {
        Some(SignedTree { size: size? as u64, root: root?.try_into().ok()? })
    };
    let mut compared = Compared::default();
    for row in rows {
        let loss = tree(row.lost_size, row.lost_root).map(|tree| Loss { tree, accepted: row.accepted });
        let handed_out = unseen.remove(&row.ledger);
        let signed = tree(row.signed_size, row.signed_root);
        let (workspace, ledger) = (row.workspace, row.ledger);
        let found = match &loss {
            Some(loss) if loss.accepted => {
                // What there is of it is what there was when the loss was accepted.
                let found = check_head(database, workspace, ledger, &[]).await?;
                found.or_else(|| beyond(Some(workspace), ledger, loss.tree, handed_out))
            }
            _ => {
                let mark = loss.as_ref().map(|loss| loss.tree);
                let trees = [
                    ("the newest checkpoint in the database", signed),
                    ("the newest checkpoint that this node handed out", handed_out),
                    ("the newest checkpoint that a node handed out", mark),
                ];
                let trees: Vec<_> =
                    trees.into_iter().filter_map(|(which, tree)| Some((which, tree?))).collect();
                let found = check_head(database, workspace, ledger, &trees).await?;
                if found.is_none() && mark.is_some() {
                    unmark(database, workspace, ledger).await?;
                }
                found
            }
        };
        compared.found.extend(found);
        compared.ledgers += 1;
    }
    if !unseen.is_empty() {
        let gone: HashMap<LedgerId, SignedTree> = sqlx::query!(
            r#"SELECT ledger_id AS "ledger: LedgerId", size, root FROM losses WHERE accepted_at IS NOT NULL"#
        )
        .fetch_all(&database.worker)
        .await?
        .into_iter()
        .filter_map(|row| Some((row.ledger, tree(Some(row.size), Some(row.root))?)))
        .collect();
        let mut unseen: Vec<_> = unseen.into_iter().collect();
        unseen.sort_unstable_by_key(|(ledger, _)| *ledger);
        for (ledger, tree) in unseen {
            compared.found.extend(match gone.get(&ledger) {
                Some(accepted) => beyond(None, ledger, *accepted, Some(tree)),
                None => Some(Disagreement {
                    workspace: None,
                    ledger,
                    kind: Kind::Gone,
                    has: 0,
                    signed: Some(tree),
                    what: format!(
                        "the database has no such ledger, but this node handed out a checkpoint of {} entries",
                        tree.size
                    ),
                }),
            });
        }
    }
    Ok(compared)
}

/// Compares one ledger as [`compare`] compares all.
///
/// # Errors
/// [`Error::Disagrees`], if its history is shorter than, or other than, one that was signed; or the database does not
/// answer.
pub async fn check_ledger(
    database: &Database,
    seen: &SeenHeads,
    workspace: WorkspaceId,
    ledger: LedgerId,
) -> Result<(), Error> {
    // What was signed is read before what there is, as there.
    let handed_out = seen.newest(ledger);
    let accepted = sqlx::query_scalar!(
        "SELECT 1 AS x FROM losses WHERE workspace_id = $1 AND ledger_id = $2 AND accepted_at IS NOT NULL",
        workspace.uuid(),
        ledger.uuid()
    )
    .fetch_optional(&database.worker)
    .await?;
    let row = sqlx::query!(
        "SELECT size, root FROM checkpoints WHERE workspace_id = $1 AND ledger_id = $2",
        workspace.uuid(),
        ledger.uuid()
    )
    .fetch_optional(&database.worker)
    .await?;
    let mut signed = Vec::new();
    if accepted.is_none() {
        signed.extend(handed_out.map(|tree| ("the newest checkpoint that this node handed out", tree)));
        let kept =
            row.and_then(|row| Some(SignedTree { size: row.size as u64, root: row.root.try_into().ok()? }));
        signed.extend(kept.map(|tree| ("the newest checkpoint in the database", tree)));
    }
    match check_head(database, workspace, ledger, &signed).await? {
        None => Ok(()),
        Some(found) => Err(Error::Disagrees { ledger, what: found.what }),
    }
}

/// Whether more was handed out of a ledger than was accepted as lost.
fn beyond(
    workspace: Option<WorkspaceId>,
    ledger: LedgerId,
    accepted: SignedTree,
    handed_out: Option<SignedTree>,
) -> Option<Disagreement> {
    let tree = handed_out.filter(|tree| tree.size > accepted.size)?;
    Some(Disagreement {
        workspace,
        ledger,
        kind: Kind::BeyondAccepted,
        has: accepted.size,
        signed: Some(tree),
        what: format!(
            "its loss was accepted up to {} entries, but this node handed out a checkpoint of {}",
            accepted.size, tree.size
        ),
    })
}

async fn check_head(
    database: &Database,
    workspace: WorkspaceId,
    ledger: LedgerId,
    signed: &[(&str, SignedTree)],
) -> Result<Option<Disagreement>, Error> {
    let mut tx = database.workspace(workspace).await?;
    let row = sqlx::query!(
        r#"SELECT h.size, h.leaf AS "leaf!", h.frontier AS "frontier!",
                  (SELECT max(seq) FROM entries e WHERE e.workspace_id = $1 AND e.ledger_id = $2) AS last,
                  (SELECT leaf FROM entries e
                    WHERE e.workspace_id = $1 AND e.ledger_id = $2 AND seq = h.size - 1) AS last_leaf
             FROM heads h WHERE h.workspace_id = $1 AND h.ledger_id = $2"#,
        workspace.uuid(),
        ledger.uuid()
    )
    .fetch_optional(&mut *tx)
    .await?;
    let size = row.as_ref().map_or(0, |row| row.size as u64);
    let of = |kind, signed, what| Disagreement {
        workspace: Some(workspace),
        ledger,
        kind,
        has: size,
        signed,
        what,
    };
    let damaged = |what: String| Ok(Some(of(Kind::Damaged, None, what)));
    let Some(row) = row else { return damaged("it has no head".into()) };
    let last = row.last.map_or(0, |seq| seq as u64 + 1);
    if last != size {
        return damaged(format!("its head says {size} entries, but {last} is one past the last"));
    }
    if size > 0 && row.last_leaf.as_ref() != Some(&row.leaf) {
        return damaged(format!("its head does not name entry {} as the last", size - 1));
    }
    let frontier =
        statusledger_verify::tree::Frontier::from_parts(size, row.frontier.as_chunks::<32>().0.to_vec());
    let current = match root_at(&mut tx, workspace, ledger, size).await {
        Ok(root) => root,
        Err(tree::Error::Sql(e)) => return Err(e.into()),
        Err(e) => return damaged(e.to_string()),
    };
    if frontier.map(|f| f.root()) != Some(current) {
        return damaged("its head's subtrees are not those of its entries".into());
    }
    // Of several that disagree the largest is what was lost; one that stands in the place of others is not a beginning.
    let mut other = false;
    let mut found: Option<Disagreement> = None;
    for (which, tree) in signed {
        let (kind, what) = if tree.size > size {
            let (signed, missing) = (tree.size, tree.size - size);
            let what =
                format!("it has {size} entries, but {which} is of {signed}: the last {missing} are missing");
            (Kind::Shorter, what)
        } else {
            match root_at(&mut tx, workspace, ledger, tree.size).await {
                Ok(root) if root == tree.root => continue,
                Ok(_) => (Kind::Other, format!("its first {} entries are not those of {which}", tree.size)),
                Err(tree::Error::Sql(e)) => return Err(e.into()),
                Err(e) => return damaged(e.to_string()),
            }
        };
        other |= kind == Kind::Other;
        let larger = found.as_ref().and_then(|found| found.signed).is_none_or(|found| tree.size > found.size);
        if larger {
            found = Some(of(kind, Some(*tree), what));
        }
    }
    if let Some(found) = found.as_mut().filter(|_| other) {
        found.kind = Kind::Other;
    }
    Ok(found)
}

/// Closes a ledger that lacks what was signed, for every node.
async fn mark(database: &Database, found: &Disagreement) -> Result<(), sqlx::Error> {
    let (Some(workspace), Some(tree), Kind::Shorter | Kind::Other) =
        (found.workspace, found.signed, found.kind)
    else {
        return Ok(());
    };
    let mut tx = database.workspace(workspace).await?;
    sqlx::query!(
        "UPDATE heads SET closed = true WHERE workspace_id = $1 AND ledger_id = $2",
        workspace.uuid(),
        found.ledger.uuid()
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!(
        "INSERT INTO losses AS l (workspace_id, ledger_id, size, root) VALUES ($1, $2, $3, $4)
         ON CONFLICT (workspace_id, ledger_id) DO UPDATE SET size = excluded.size, root = excluded.root
          WHERE l.size < excluded.size",
        workspace.uuid(),
        found.ledger.uuid(),
        tree.size as i64,
        &tree.root[..]
    )
    .execute(&mut *tx)
    .await?;
    tx.commit().await
}

/// Opens a ledger again whose history is back.
async fn unmark(database: &Database, workspace: WorkspaceId, ledger: LedgerId) -> Result<(), sqlx::Error> {
    let mut tx = database.workspace(workspace).await?;
    sqlx::query!(
        "UPDATE heads SET closed = false WHERE workspace_id = $1 AND ledger_id = $2",
        workspace.uuid(),
        ledger.uuid()
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!(
        "DELETE FROM losses WHERE workspace_id = $1 AND ledger_id = $2 AND accepted_at IS NULL",
        workspace.uuid(),
        ledger.uuid()
    )
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    tracing::warn!(%ledger, "a history that was missing is back, and the ledger is written to again");
    Ok(())
}
