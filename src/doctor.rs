//! Doctor: everything stored, verified again, row by row.
//!
//! It trusts no column that another could have been computed from: every entry is parsed and hashed again, the chain
//! and the tree are built anew, and compared with the head, the tiles, the newest signed checkpoint, what this node
//! remembers, the openings and the deliveries. It changes nothing.

use crate::database::{Database, WorkspaceTx};
use crate::id::{DestinationId, LedgerId, WorkspaceId};
use crate::ledger::check::{self, AuditFacts, Before, Row};
use crate::ledger::checkpoint::SignedTree;
use crate::ledger::seen_heads::SeenHeads;
use crate::ledger::tree::TILE;
use crate::ledger::{read, tree};
use crate::sealing::DataKeys;
use statusledger_verify::tree::Frontier;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Entries read at once.
const PAGE: i64 = 2048;
/// Findings of one ledger that are kept; a rewritten ledger has one a row.
const KEPT: usize = 20;

/// Something that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where.
    pub ledger: LedgerId,
    /// The entry, where it is one.
    pub seq: Option<u64>,
    /// What is wrong with it.
    pub what: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.seq {
            Some(seq) => write!(f, "ledger {} entry {seq}: {}", self.ledger, self.what),
            None => write!(f, "ledger {}: {}", self.ledger, self.what),
        }
    }
}

/// What was looked at.
#[derive(Debug, Default)]
pub struct Examined {
    /// Ledgers.
    pub ledgers: u64,
    /// Entries.
    pub entries: u64,
    /// Openings.
    pub openings: u64,
    /// Deliveries.
    pub deliveries: u64,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

/// An examination that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database.
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    /// The data keys.
    #[error(transparent)]
    Sealing(#[from] crate::sealing::Error),
}

/// A workspace's examination.
struct Ward<'a> {
    database: &'a Database,
    workspace: WorkspaceId,
    ledger: LedgerId,
    findings: Vec<Finding>,
    unkept: u64,
}

/// Examines every ledger. `progress` is told how many entries are done, of how many.
///
/// # Errors
/// If the database does not answer.
pub async fn examine(
    database: &Database,
    data_keys: &DataKeys,
    seen: &SeenHeads,
    progress: impl Fn(u64, u64),
) -> Result<Examined, Error> {
    let workspaces = sqlx::query!(
        r#"SELECT w.workspace_id AS "workspace: WorkspaceId", COALESCE(h.ledger_id, w.ledger_id) AS "ledger!: LedgerId",
                  h.size AS "size?", h.ledger_id IS DISTINCT FROM w.ledger_id AND h.ledger_id IS NOT NULL AS "older!"
             FROM workspaces w LEFT JOIN heads h USING (workspace_id) ORDER BY w.created_at, 4 DESC, h.ledger_id"#
    )
    .fetch_all(&database.worker)
    .await?;
    let total = workspaces.iter().filter_map(|w| w.size).map(|size| size as u64).sum();
    let mut examined = Examined::default();
    for row in workspaces {
        let mut ward =
            Ward { database, workspace: row.workspace, ledger: row.ledger, findings: Vec::new(), unkept: 0 };
        let before = examined.entries;
        // One moment for both: an entry that comes meanwhile has openings that would otherwise be found without it.
        let mut tx = database.snapshot(row.workspace).await?;
        let progress = |done| progress(before + done, total);
        let sealed = ward.entries(&mut tx, seen, progress, &mut examined).await?;
        ward.openings(&mut tx, data_keys, sealed, &mut examined).await?;
        drop(tx);
        // A workspace's deliveries are those of all its ledgers.
        if !row.older {
            ward.deliveries(&mut examined).await?;
        }
        examined.ledgers += 1;
        if ward.unkept > 0 {
            let more = format!("and {} more findings", ward.unkept);
            ward.findings.push(Finding { ledger: ward.ledger, seq: None, what: more });
        }
        examined.findings.append(&mut ward.findings);
    }
    Ok(examined)
}

/// The sealed hashes of an entry, by name.
type Sealed = HashMap<u64, HashMap<String, String>>;

impl Ward<'_> {
    fn find(&mut self, seq: Option<u64>, what: impl Into<String>) {
        if self.findings.len() < KEPT {
            self.findings.push(Finding { ledger: self.ledger, seq, what: what.into() });
        } else {
            self.unkept += 1;
        }
    }

    /// Walks the entries, building chain and tree anew. Returns the hashes of sealed values.
    async fn entries(
        &mut self,
        tx: &mut WorkspaceTx,
        seen: &SeenHeads,
        progress: impl Fn(u64),
        examined: &mut Examined,
    ) -> Result<Sealed, Error> {
        let (workspace, ledger) = (self.workspace.uuid(), self.ledger.uuid());
        let Some((_, size)) = read::size_of(tx, Some(self.ledger)).await? else {
            self.find(None, "it has no head");
            return Ok(Sealed::new());
        };
        let signed = sqlx::query!(
            "SELECT size, root FROM checkpoints WHERE workspace_id = $1 AND ledger_id = $2",
            workspace,
            ledger
        )
        .fetch_optional(&mut **tx)
        .await?
        .and_then(|c| Some(SignedTree { size: c.size as u64, root: c.root.try_into().ok()? }));
        let loss = sqlx::query!(
            r#"SELECT size, root, accepted_at IS NOT NULL AS "accepted!" FROM losses
                WHERE workspace_id = $1 AND ledger_id = $2"#,
            workspace,
            ledger
        )
        .fetch_optional(&mut **tx)
        .await?;
        let accepted = loss.as_ref().is_some_and(|loss| loss.accepted);
        let mark = loss.and_then(|l| Some(SignedTree { size: l.size as u64, root: l.root.try_into().ok()? }));
        let mut trees: Vec<(&str, SignedTree)> = Vec::new();
        trees.extend(signed.map(|t| ("the newest checkpoint in the database", t)));
        trees
            .extend(seen.newest(self.ledger).map(|t| ("the newest checkpoint that this node handed out", t)));
        trees.extend(mark.map(|t| ("the newest checkpoint that a node handed out", t)));
        if accepted {
            // What is missing of it is on record; what there is, is examined all the same.
            trees.clear();
        }
        for (which, tree) in &trees {
            if tree.size > size {
                let missing = tree.size - size;
                self.find(
                    None,
                    format!(
                        "{which} is of {} entries, but there are {size}: {missing} are missing",
                        tree.size
                    ),
                );
            }
        }
        let mut frontier = Frontier::new();
        let mut before = Before::default();
        let mut sealed = Sealed::new();
        let mut tile: Vec<u8> = Vec::with_capacity(8192);
        let mut upper: BTreeMap<(i16, i64), Vec<u8>> = BTreeMap::new();
        let mut at = -1_i64;
        loop {
            let rows = sqlx::query_as!(
                Row,
                "SELECT seq, leaf, type AS kind, entry FROM entries
                  WHERE workspace_id = $1 AND ledger_id = $2 AND seq > $3 ORDER BY seq LIMIT $4",
                workspace,
                ledger,
                at,
                PAGE
            )
            .fetch_all(&mut **tx)
            .await?;
            let (Some(first), Some(last)) = (rows.first(), rows.last()) else { break };
            let mut indexed = self.indexed(tx, first.seq, last.seq).await?;
            at = last.seq;
            for row in rows {
                let seq = row.seq as u64;
                if seq != frontier.size() {
                    self.find(
                        Some(seq),
                        format!("entries {} to {} are missing", frontier.size(), seq.wrapping_sub(1)),
                    );
                    return Ok(sealed);
                }
                let checked = check::entry(self.ledger, &row, &before);
                if checked.audit.is_some() && indexed.remove(&seq) != checked.audit {
                    self.find(Some(seq), "the index of audit entries does not have it as it is");
                }
                before = checked.before_next(before);
                let leaf = checked.leaf;
                for what in checked.wrong {
                    self.find(Some(seq), what);
                }
                if !checked.sealed.is_empty() {
                    sealed.insert(seq, checked.sealed);
                }
                let (grown, nodes) = tree::grow(&frontier, &[leaf]);
                frontier = grown;
                for ((level, tile), hash) in nodes.levels.iter().zip(&nodes.tiles).zip(&nodes.hashes) {
                    upper.entry((*level, *tile)).or_default().extend_from_slice(hash);
                }
                tile.extend_from_slice(&leaf);
                if tile.len() as u64 == TILE * 32 {
                    self.tile(tx, seq / TILE, &tile).await?;
                    tile.clear();
                }
                for (which, tree) in &trees {
                    if tree.size == frontier.size() && tree.root != frontier.root() {
                        self.find(Some(seq), format!("the entries up to here are not those of {which}"));
                    }
                }
                examined.entries += 1;
                if examined.entries.is_multiple_of(1024) {
                    progress(frontier.size());
                }
            }
            for seq in indexed.into_keys() {
                self.find(Some(seq), "the index of audit entries has it, but it is none");
            }
        }
        let (from, to) = (i64::try_from(frontier.size()).unwrap_or(i64::MAX), i64::MAX);
        for seq in self.indexed(tx, from, to).await?.into_keys() {
            self.find(Some(seq), "the index of audit entries has it, but there is no such entry");
        }
        let head = sqlx::query!(
            "SELECT leaf, frontier FROM heads WHERE workspace_id = $1 AND ledger_id = $2",
            workspace,
            ledger
        )
        .fetch_one(&mut **tx)
        .await?;
        if frontier.size() != size {
            self.find(None, format!("its head says {size} entries, but there are {}", frontier.size()));
        } else if head.leaf != before.leaf || head.frontier != frontier.hashes().concat() {
            self.find(None, "its head is not that of its entries");
        }
        let stored = sqlx::query!(
            "SELECT level, tile, hashes FROM tiles WHERE workspace_id = $1 AND ledger_id = $2 AND level > 0",
            workspace,
            ledger
        )
        .fetch_all(&mut **tx)
        .await?;
        let stored: BTreeMap<(i16, i64), Vec<u8>> =
            stored.into_iter().map(|t| ((t.level, t.tile), t.hashes)).collect();
        for at in stored.keys().chain(upper.keys()).collect::<BTreeSet<_>>() {
            if stored.get(at) != upper.get(at) {
                self.find(
                    None,
                    format!("the stored tree tile {} of level {} is not that of the entries", at.1, at.0),
                );
            }
        }
        progress(frontier.size());
        Ok(sealed)
    }

    /// What the index of audit entries says of the entries from `first` to `last`.
    async fn indexed(
        &mut self,
        tx: &mut sqlx::PgConnection,
        first: i64,
        last: i64,
    ) -> Result<BTreeMap<u64, AuditFacts>, Error> {
        let rows = sqlx::query!(
            "SELECT seq, action, actor, outcome, targets FROM audit_index
              WHERE workspace_id = $1 AND ledger_id = $2 AND seq BETWEEN $3 AND $4",
            self.workspace.uuid(),
            self.ledger.uuid(),
            first,
            last
        )
        .fetch_all(tx)
        .await?;
        Ok(rows.into_iter().map(|r| (r.seq as u64, (r.action, r.actor, r.outcome, r.targets))).collect())
    }

    async fn tile(&mut self, tx: &mut sqlx::PgConnection, tile: u64, expected: &[u8]) -> Result<(), Error> {
        let stored = sqlx::query_scalar!(
            "SELECT hashes FROM tiles WHERE workspace_id = $1 AND ledger_id = $2 AND level = 0 AND tile = $3",
            self.workspace.uuid(),
            self.ledger.uuid(),
            tile as i64
        )
        .fetch_optional(tx)
        .await?;
        if stored.as_deref() != Some(expected) {
            self.find(Some(tile * TILE), "the stored tree tile that begins here is not that of the entries");
        }
        Ok(())
    }

    /// Opens every opening and compares it with its entry.
    async fn openings(
        &mut self,
        tx: &mut WorkspaceTx,
        data_keys: &DataKeys,
        sealed: Sealed,
        examined: &mut Examined,
    ) -> Result<(), Error> {
        let (mut seq, mut name) = (-1_i64, String::new());
        loop {
            let rows = sqlx::query!(
                "SELECT seq, name, sealed FROM openings
                  WHERE workspace_id = $1 AND ledger_id = $2 AND (seq, name) > ($3, $4) ORDER BY seq, name LIMIT 256",
                self.workspace.uuid(),
                self.ledger.uuid(),
                seq,
                name
            )
            .fetch_all(&mut **tx)
            .await?;
            let Some(last) = rows.last() else { return Ok(()) };
            (seq, name) = (last.seq, last.name.clone());
            let key = data_keys.get(self.workspace).await?;
            for row in rows {
                examined.openings += 1;
                let at = row.seq as u64;
                let hash = sealed.get(&at).and_then(|of| of.get(&row.name)).map(String::as_str);
                if let Some(what) = check::opening(&key, self.ledger, at, &row.name, &row.sealed, hash) {
                    self.find(Some(at), what);
                }
            }
        }
    }

    /// Checks that each destination's numbers are dense and rise as seq does.
    async fn deliveries(&mut self, examined: &mut Examined) -> Result<(), Error> {
        let mut tx = self.database.workspace(self.workspace).await?;
        let rows = sqlx::query!(
            r#"SELECT l.destination_id AS "destination: DestinationId", l.last_number, l.forgotten,
                      count(d.number) AS "count!", COALESCE(max(d.number), 0) AS "highest!",
                      COALESCE(bool_and(d.rises), true) AS "rises!"
                 FROM lanes l
                 LEFT JOIN (SELECT destination_id, number,
                                   seq > lag(seq, 1, -1) OVER (PARTITION BY destination_id, ledger_id ORDER BY number)
                                       AS rises
                              FROM deliveries WHERE workspace_id = $1) d USING (destination_id)
                WHERE l.workspace_id = $1 GROUP BY l.destination_id, l.last_number, l.forgotten"#,
            self.workspace.uuid()
        )
        .fetch_all(&mut *tx)
        .await?;
        for row in rows {
            examined.deliveries += row.count as u64;
            // Deliveries that the operator keeps no longer are counted by their lane.
            let dense = if row.forgotten == 0 {
                row.count == row.highest && row.highest == row.last_number
            } else {
                row.count + row.forgotten == row.last_number && row.highest <= row.last_number
            };
            if !dense {
                self.find(
                    None,
                    format!(
                        "destination {} was given {} numbers, but has {} deliveries up to {}",
                        row.destination, row.last_number, row.count, row.highest
                    ),
                );
            } else if !row.rises {
                self.find(None, format!("destination {}: numbers do not rise as seq does", row.destination));
            }
        }
        Ok(())
    }
}
