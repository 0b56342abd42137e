//! A slice against the tree: its tile, its way up to what was signed, and the tiles above.

use super::slice::{OTHER_LEAF, Slice, Stop, Verdict, found};
use crate::ledger::checkpoint::SignedTree;
use crate::ledger::tree::{self, Stored, TILE};
use statusledger_verify::Hash;
use statusledger_verify::tree::{Frontier, node_hash};
use std::collections::BTreeMap;

impl Slice<'_> {
    /// Checks the slice's tile, and that its leaves make the roots of the head and of what was signed.
    pub(super) async fn roots(&mut self, leaves: &[Hash]) -> Verdict {
        if leaves.is_empty() {
            return Ok(());
        }
        let size = self.head.size;
        if leaves.len() as u64 == TILE {
            self.tile(leaves).await?;
        }
        let hashes = self.head.frontier.as_chunks::<32>().0.to_vec();
        let Some(frontier) = Frontier::from_parts(size, hashes) else {
            return found(None, "its head's subtrees are not as many as its entries ask for");
        };
        if self.end == size && leaves.last().is_some_and(|last| self.head.leaf != last) {
            return found(size - 1, "the head does not name it as the last");
        }
        let mut trees = vec![("its head", SignedTree { size, root: frontier.root() })];
        trees.extend(self.signed.iter().copied().filter(|(_, tree)| tree.size > self.start));
        for (which, tree) in trees {
            let end = self.end.min(tree.size);
            let own = subtree(&leaves[..(end - self.start) as usize]);
            match self.root(own, end, tree.size).await? {
                Some(root) if root == tree.root => {}
                _ => {
                    let what = format!(
                        "the stored tree over its first {} entries is not that of {which}",
                        tree.size
                    );
                    return found(None, what);
                }
            }
        }
        Ok(())
    }

    /// The root of the tree of `size` entries in which the slice up to `end` has the root `own`; none where a stored node
    /// is missing.
    async fn root(&mut self, own: Hash, end: u64, size: u64) -> Result<Option<Hash>, Stop> {
        let Ok(beside) = tree::beside(self.start, end, size) else { return Ok(None) };
        let stored = Stored::read(&mut self.tx, self.workspace, self.ledger, beside.iter().copied()).await?;
        let Ok(hashes) = stored.hashes(&beside) else { return Ok(None) };
        Ok(Some(tree::root_over(own, self.start, &beside, &hashes)))
    }

    /// Compares the slice's tile, and its place in the tile above, with its leaves.
    async fn tile(&mut self, leaves: &[Hash]) -> Verdict {
        let tile = self.start / TILE;
        let stored = self.hashes(0, tile).await?;
        if stored.as_deref() != Some(&leaves.concat()[..]) {
            let stored = stored.unwrap_or_default();
            let same = leaves.iter().zip(stored.as_chunks::<32>().0).take_while(|(a, b)| a == b).count();
            return found(self.start + same as u64, OTHER_LEAF);
        }
        let above = self.hashes(1, tile / TILE).await?.unwrap_or_default();
        if above.as_chunks::<32>().0.get((tile % TILE) as usize) != Some(&subtree(leaves)) {
            return found(
                self.start,
                "the stored tree tile of level 1 does not have the root of the tile that begins here",
            );
        }
        Ok(())
    }

    pub(super) async fn hashes(&mut self, level: i16, tile: u64) -> Result<Option<Vec<u8>>, Stop> {
        Ok(sqlx::query_scalar!(
            "SELECT hashes FROM tiles WHERE workspace_id = $1 AND ledger_id = $2 AND level = $3 AND tile = $4",
            self.workspace.uuid(),
            self.ledger.uuid(),
            level,
            tile as i64
        )
        .fetch_optional(&mut *self.tx)
        .await?)
    }

    /// At the ledger's end: there are as many tiles as there have to be, and those above level 1 are of those beneath.
    pub(super) async fn upper_tiles(&mut self) -> Verdict {
        let full = self.head.size / TILE;
        let bottom = sqlx::query!(
            r#"SELECT count(*) AS "count!", max(tile) AS last FROM tiles
                WHERE workspace_id = $1 AND ledger_id = $2 AND level = 0"#,
            self.workspace.uuid(),
            self.ledger.uuid()
        )
        .fetch_one(&mut *self.tx)
        .await?;
        if bottom.count as u64 != full || bottom.last.map_or(0, |last| last as u64 + 1) != full {
            return found(
                None,
                format!("there are {} stored tree tiles of level 0, not {full}", bottom.count),
            );
        }
        let rows = sqlx::query!(
            "SELECT level, tile, hashes FROM tiles
              WHERE workspace_id = $1 AND ledger_id = $2 AND level > 0 ORDER BY level, tile",
            self.workspace.uuid(),
            self.ledger.uuid()
        )
        .fetch_all(&mut *self.tx)
        .await?;
        let stored: BTreeMap<(i16, i64), Vec<u8>> =
            rows.into_iter().map(|row| ((row.level, row.tile), row.hashes)).collect();
        let (mut expected, mut known) = (full, 0);
        // What the tiles beneath make of each; of level 1 the slices have told.
        let mut beneath: Option<Vec<u8>> = None;
        for level in 1.. {
            let tiles = expected.div_ceil(TILE);
            for tile in 0..tiles {
                let hashes = (expected - tile * TILE).min(TILE) as usize;
                let at = stored.get(&(level, tile as i64));
                let first = tile as usize * 256 * 32;
                let right = at.is_some_and(|at| {
                    let made = beneath.as_ref().map(|made| &made[first..first + hashes * 32]);
                    at.len() == hashes * 32 && made.is_none_or(|made| made == at)
                });
                if !right {
                    let what = format!(
                        "the stored tree tile {tile} of level {level} is not that of the tiles beneath"
                    );
                    return found(None, what);
                }
                known += 1;
            }
            beneath = Some(
                (0..expected / TILE)
                    .filter_map(|tile| stored.get(&(level, tile as i64)))
                    .flat_map(|at| subtree(at.as_chunks::<32>().0))
                    .collect(),
            );
            expected /= TILE;
            if expected == 0 {
                break;
            }
        }
        if known != stored.len() {
            return found(
                None,
                format!("there are {} stored tree tiles above level 0, not {known}", stored.len()),
            );
        }
        Ok(())
    }
}

/// The root over some hashes that stand side by side.
fn subtree(hashes: &[Hash]) -> Hash {
    // Of a whole tile, which they mostly are, without carrying.
    if hashes.len() as u64 == TILE {
        let mut row = hashes.to_vec();
        while row.len() > 1 {
            row = row.as_chunks::<2>().0.iter().map(|[left, right]| node_hash(left, right)).collect();
        }
        return row[0];
    }
    let mut frontier = Frontier::new();
    for hash in hashes {
        frontier.push(*hash);
    }
    frontier.root()
}
