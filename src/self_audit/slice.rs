//! One slice of a ledger, verified by itself.
//!
//! A slice is a tile's 256 entries, or what is behind the last full tile. Everything that is looked at is of one moment,
//! and nothing is taken over from the slice before: the slice's own leaves, with what is stored beside the way up, have to
//! make the root that was signed. So it does not matter who says where to go on.

use crate::database::{Database, WorkspaceTx};
use crate::doctor::Finding;
use crate::id::{LedgerId, WorkspaceId};
use crate::keyring::Keyring;
use crate::ledger::check::{self, AuditFacts, Before, Row};
use crate::ledger::checkpoint::SignedTree;
use crate::ledger::seen_heads::SeenHeads;
use crate::ledger::tree::TILE;
use crate::sealing::{self, DataKeys};
use statusledger_verify::Hash;
use statusledger_verify::checkpoint::{SignedCheckpoint, origin};
use statusledger_verify::manifest::Revoked;
use std::collections::{BTreeMap, HashMap};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A slice that could not be verified.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database.
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    /// The data keys.
    #[error(transparent)]
    Sealing(#[from] sealing::Error),
    /// The signing keys.
    #[error(transparent)]
    Keyring(#[from] crate::keyring::Error),
}

/// What became of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audited {
    /// Entries that were read.
    pub entries: u64,
    /// Where the next slice begins; none where the ledger ends here.
    pub next: Option<u64>,
    /// Entries of the ledger.
    pub size: u64,
    /// Entries under the newest checkpoint that it was compared with; 0 where there is none.
    pub signed: u64,
    /// The first that does not agree.
    pub finding: Option<Finding>,
}

/// Whoever verifies slices.
#[derive(Clone, Debug)]
pub struct Auditor {
    /// The database.
    pub database: Database,
    /// The data keys, for openings.
    pub data_keys: DataKeys,
    /// The signing keys, for checkpoints.
    pub keyring: Keyring,
    /// What this node handed out.
    pub seen: SeenHeads,
}

/// A ledger's head, as it is stored.
pub(super) struct Head {
    pub(super) size: u64,
    pub(super) leaf: Vec<u8>,
    pub(super) frontier: Vec<u8>,
}

/// What is wrong with an entry whose leaf a tile has otherwise.
pub(super) const OTHER_LEAF: &str = "the stored tree tile does not have its leaf";

/// What is found ends a slice: it is the first.
pub(super) type Verdict = Result<(), Stop>;

/// Why a slice is not verified to its end.
pub(super) enum Stop {
    Found(Option<u64>, String),
    Failed(Error),
}

impl<E: Into<Error>> From<E> for Stop {
    fn from(e: E) -> Self {
        Self::Failed(e.into())
    }
}

pub(super) fn found<T>(seq: impl Into<Option<u64>>, what: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Found(seq.into(), what.into()))
}

/// A slice at one moment.
pub(super) struct Slice<'a> {
    auditor: &'a Auditor,
    pub(super) tx: WorkspaceTx,
    pub(super) workspace: WorkspaceId,
    pub(super) ledger: LedgerId,
    /// Its first entry.
    pub(super) start: u64,
    /// One behind its last.
    pub(super) end: u64,
    pub(super) head: Head,
    /// Trees that were signed, the newest of each kind.
    pub(super) signed: Vec<(&'static str, SignedTree)>,
}

impl Auditor {
    /// Verifies the slice of `ledger` in which entry `from` lies; the first one where there is no such entry.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn slice(&self, workspace: WorkspaceId, ledger: LedgerId, from: u64) -> Result<Audited, Error> {
        // Ledgers grow: what was signed is read before what there is, never after.
        let seen = self.seen.newest(ledger);
        let mut tx = self.database.snapshot(workspace).await?;
        let head = sqlx::query!(
            "SELECT size, leaf, frontier FROM heads WHERE workspace_id = $1 AND ledger_id = $2",
            workspace.uuid(),
            ledger.uuid()
        )
        .fetch_optional(&mut *tx)
        .await?;
        let Some(head) = head else {
            let finding = Some(Finding { ledger, seq: None, what: "it has no head".into() });
            return Ok(Audited { entries: 0, next: None, size: 0, signed: 0, finding });
        };
        let head = Head { size: head.size as u64, leaf: head.leaf, frontier: head.frontier };
        let start = if from < head.size { from / TILE * TILE } else { 0 };
        let end = (start + TILE).min(head.size);
        let size = head.size;
        let mut signed = Vec::new();
        signed.extend(seen.map(|tree| ("the newest checkpoint that this node handed out", tree)));
        let mut slice = Slice { auditor: self, tx, workspace, ledger, start, end, head, signed };
        let finding = match slice.verify().await {
            Ok(()) => None,
            Err(Stop::Found(seq, what)) => Some(Finding { ledger, seq, what }),
            Err(Stop::Failed(e)) => return Err(e),
        };
        let signed = slice.signed.iter().map(|(_, tree)| tree.size).max().unwrap_or(0);
        Ok(Audited { entries: end - start, next: (end < size).then_some(end), size, signed, finding })
    }
}

impl Slice<'_> {
    async fn verify(&mut self) -> Verdict {
        let forged = self.checkpoint().await?;
        let leaves = self.entries().await?;
        if self.end == self.head.size {
            self.nothing_behind().await?;
        }
        // With the rows as they should be, what is left concerns no single one.
        if let Some(what) = forged {
            return found(None, what);
        }
        self.roots(&leaves).await?;
        if self.end == self.head.size { self.upper_tiles().await } else { Ok(()) }
    }

    /// Reads the newest checkpoint in the database; says what is wrong with it.
    async fn checkpoint(&mut self) -> Result<Option<String>, Stop> {
        let row = sqlx::query!(
            "SELECT size, root, note FROM checkpoints WHERE workspace_id = $1 AND ledger_id = $2",
            self.workspace.uuid(),
            self.ledger.uuid()
        )
        .fetch_optional(&mut *self.tx)
        .await?;
        if let Some(row) = row {
            let which = "the newest checkpoint in the database";
            let Ok(root) = <Hash>::try_from(row.root) else {
                return Ok(Some(format!("{which} has no root")));
            };
            let tree = SignedTree { size: row.size as u64, root };
            if !self.is_signed(&tree, &row.note).await? {
                return Ok(Some(format!("{which} is none that this instance signed")));
            }
            self.signed.push((which, tree));
        }
        let size = self.head.size;
        Ok(self.signed.iter().find(|(_, tree)| tree.size > size).map(|(which, tree)| {
            format!(
                "{which} is of {} entries, but there are {size}: {} are missing",
                tree.size,
                tree.size - size
            )
        }))
    }

    async fn is_signed(&self, tree: &SignedTree, note: &str) -> Result<bool, Error> {
        let Ok(note) = SignedCheckpoint::parse(note.as_bytes()) else { return Ok(false) };
        let said = note.checkpoint();
        let keyring = &self.auditor.keyring;
        let name = origin(keyring.current().instance(), &self.ledger.to_string());
        if said.origin != name || said.size != tree.size || said.root != tree.root {
            return Ok(false);
        }
        let by_us = || note.verify(keyring.current().trusted(), None, Revoked::Counted).is_ok();
        if by_us() {
            return Ok(true);
        }
        // A key of another node's making that this one has not heard of yet.
        keyring.reload().await?;
        Ok(by_us())
    }

    /// Checks the entries; answers the leaf hashes of their texts.
    async fn entries(&mut self) -> Result<Vec<Hash>, Stop> {
        let mut leaves = Vec::with_capacity((self.end - self.start) as usize);
        let Err(stop) = self.rows(&mut leaves).await else { return Ok(leaves) };
        // An entry whose text and leaf were both changed is only noticed at the one behind it, but the tile tells.
        let tile = self.hashes(0, self.start / TILE).await?.unwrap_or_default();
        let same = leaves.iter().zip(tile.as_chunks::<32>().0).take_while(|(a, b)| a == b).count();
        let first = self.start + same as u64;
        match stop {
            Stop::Found(Some(seq), _) if !tile.is_empty() && first < seq => found(first, OTHER_LEAF),
            stop => Err(stop),
        }
    }

    /// Checks each entry with its index and its openings, and adds the leaf hash of its text to `leaves`.
    async fn rows(&mut self, leaves: &mut Vec<Hash>) -> Verdict {
        let (workspace, ledger) = (self.workspace.uuid(), self.ledger.uuid());
        let (start, end) = (self.start as i64, self.end as i64);
        let rows = sqlx::query_as!(
            Row,
            "SELECT seq, leaf, type AS kind, entry FROM entries
              WHERE workspace_id = $1 AND ledger_id = $2 AND seq >= $3 AND seq < $4 ORDER BY seq",
            workspace,
            ledger,
            start - 1,
            end
        )
        .fetch_all(&mut *self.tx)
        .await?;
        let mut rows = rows.into_iter().peekable();
        let mut before = Before::default();
        if let Some(row) = rows.next_if(|row| row.seq == start - 1) {
            // It was checked with its own slice; here only what the next has to say of it counts.
            before = check::entry(self.ledger, &row, &Before::default()).before_next(before);
        }
        let mut indexed = self.index().await?;
        let mut openings = self.openings().await?;
        let deleted = sqlx::query_scalar!(
            r#"SELECT deleted_at IS NOT NULL AS "deleted!" FROM workspaces WHERE workspace_id = $1"#,
            workspace
        )
        .fetch_optional(&mut *self.tx)
        .await?
        .unwrap_or(false);
        let key =
            if openings.is_empty() { None } else { Some(self.auditor.data_keys.get(self.workspace).await?) };
        let mut gone_before = None;
        for seq in self.start..self.end {
            let Some(row) = rows.next_if(|row| row.seq as u64 == seq) else {
                return found(seq, "the entry is missing");
            };
            let checked = check::entry(self.ledger, &row, &before);
            leaves.push(checked.leaf);
            before = checked.before_next(before);
            if let Some(what) = checked.wrong.into_iter().next() {
                return found(seq, what);
            }
            if checked.audit != indexed.remove(&seq) {
                return found(seq, "the index of audit entries does not have it as it is");
            }
            let mut opened = openings.remove(&seq).unwrap_or_default();
            for (name, hash) in &checked.sealed {
                let Some(sealed) = opened.remove(name) else {
                    if gone_before.is_none() {
                        gone_before = Some(self.gone_before().await?);
                    }
                    let recorded = OffsetDateTime::parse(&before.time, &Rfc3339).ok();
                    let may_be_gone =
                        gone_before.flatten().zip(recorded).is_some_and(|(until, recorded)| recorded < until);
                    if !deleted && !may_be_gone {
                        return found(seq, format!("the opening of \"{name}\" is missing"));
                    }
                    continue;
                };
                let wrong = key
                    .as_ref()
                    .and_then(|key| check::opening(key, self.ledger, seq, name, &sealed, Some(hash)));
                if let Some(what) = wrong {
                    return found(seq, what);
                }
            }
            if let Some(name) = opened.into_keys().next() {
                return found(seq, format!("the opening of \"{name}\" is not that of the entry"));
            }
        }
        Ok(())
    }

    /// Up to when the operator's retention policy has destroyed openings: it says so in the ledger.
    async fn gone_before(&mut self) -> Result<Option<OffsetDateTime>, Stop> {
        Ok(sqlx::query_scalar!(
            "SELECT max((e.entry::jsonb #>> '{data,details,openings_before}')::timestamptz)
               FROM audit_index i JOIN entries e USING (workspace_id, ledger_id, seq)
              WHERE i.workspace_id = $1 AND i.ledger_id = $2 AND i.action = 'retention.applied'",
            self.workspace.uuid(),
            self.ledger.uuid()
        )
        .fetch_one(&mut *self.tx)
        .await?)
    }

    async fn index(&mut self) -> Result<BTreeMap<u64, AuditFacts>, Stop> {
        let rows = sqlx::query!(
            "SELECT seq, action, actor, outcome, targets FROM audit_index
              WHERE workspace_id = $1 AND ledger_id = $2 AND seq >= $3 AND seq < $4",
            self.workspace.uuid(),
            self.ledger.uuid(),
            self.start as i64,
            self.end as i64
        )
        .fetch_all(&mut *self.tx)
        .await?;
        Ok(rows.into_iter().map(|r| (r.seq as u64, (r.action, r.actor, r.outcome, r.targets))).collect())
    }

    async fn openings(&mut self) -> Result<HashMap<u64, HashMap<String, Vec<u8>>>, Stop> {
        let rows = sqlx::query!(
            "SELECT seq, name, sealed FROM openings
              WHERE workspace_id = $1 AND ledger_id = $2 AND seq >= $3 AND seq < $4",
            self.workspace.uuid(),
            self.ledger.uuid(),
            self.start as i64,
            self.end as i64
        )
        .fetch_all(&mut *self.tx)
        .await?;
        let mut openings: HashMap<u64, HashMap<String, Vec<u8>>> = HashMap::new();
        for row in rows {
            openings.entry(row.seq as u64).or_default().insert(row.name, row.sealed);
        }
        Ok(openings)
    }

    /// Checks that no row stands behind the head.
    async fn nothing_behind(&mut self) -> Verdict {
        let row = sqlx::query!(
            "SELECT (SELECT min(seq) FROM entries
                      WHERE workspace_id = $1 AND ledger_id = $2 AND seq >= $3) AS entry,
                    (SELECT min(seq) FROM openings
                      WHERE workspace_id = $1 AND ledger_id = $2 AND seq >= $3) AS opening,
                    (SELECT min(seq) FROM audit_index
                      WHERE workspace_id = $1 AND ledger_id = $2 AND seq >= $3) AS indexed",
            self.workspace.uuid(),
            self.ledger.uuid(),
            self.head.size as i64
        )
        .fetch_one(&mut *self.tx)
        .await?;
        let size = self.head.size;
        if let Some(seq) = row.entry {
            return found(seq as u64, format!("it stands behind the head, which says {size} entries"));
        }
        if let Some(seq) = row.opening {
            return found(seq as u64, "it has an opening, but there is no such entry");
        }
        if let Some(seq) = row.indexed {
            return found(seq as u64, "the index of audit entries has it, but there is no such entry");
        }
        Ok(())
    }
}
