//! The ledger's RFC 6962 tree: which nodes a proof needs, and where they are kept.
//!
//! A proof is a list of subtree roots. Each subtree is covered by perfect subtrees (nodes), and a node is kept in
//! one of three places: a tile of 256 hashes of its level, the leaf column of the entries that do not fill a tile
//! yet, or, for a batch just built, in memory. So a proof costs O(log n) reads and hashes wherever it is made.

use sqlx::PgConnection;
use statusledger_verify::Hash;
use statusledger_verify::tree::{Frontier, empty_root, node_hash};
use std::collections::{BTreeSet, HashMap};

use crate::id::{LedgerId, WorkspaceId};

/// Hashes in a tile.
pub const TILE: u64 = 256;
/// Levels of the tree in a tile: 2^8 = 256.
const TILE_HEIGHT: u32 = 8;

/// Leaves `start <= i < end` whose subtree stands in a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    start: u64,
    end: u64,
}

/// A perfect subtree: the `index`th of `2^height` leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Node {
    /// 0 for a leaf.
    pub height: u32,
    /// Counted from the left among the nodes of that height.
    pub index: u64,
}

/// A proof that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The leaf or the smaller size does not lie in the tree.
    #[error("{0}")]
    OutOfRange(String),
    /// A node that the tree must have is not stored: the tables were tampered with.
    #[error("the tree's node of height {} and index {} is missing or cut short", .0.height, .0.index)]
    Missing(Node),
    /// The database.
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
}

/// Largest power of two smaller than `n` (RFC 6962, section 2.1), for `n` > 1.
fn split(n: u64) -> u64 {
    1 << (63 - (n - 1).leading_zeros())
}

/// The audit path of leaf `index` in the tree of `size` leaves (RFC 6962, section 2.1.1), from the leaf up.
///
/// # Errors
/// If the leaf is not in the tree.
pub fn inclusion(index: u64, size: u64) -> Result<Vec<Range>, Error> {
    if index >= size {
        return Err(Error::OutOfRange(format!("entry {index} is not among the first {size}")));
    }
    let mut path = Vec::new();
    let (mut start, mut end) = (0, size);
    while end - start > 1 {
        let middle = start + split(end - start);
        if index < middle {
            path.push(Range { start: middle, end });
            end = middle;
        } else {
            path.push(Range { start, end: middle });
            start = middle;
        }
    }
    path.reverse();
    Ok(path)
}

/// The subtrees beside the way from the leaves `start <= i < end` up to the root of the tree of `size` leaves, from the
/// leaves up. The leaves are a full tile, or all that the tree has behind its last full one.
///
/// # Errors
/// If they do not lie in the tree.
pub fn beside(start: u64, end: u64, size: u64) -> Result<Vec<Range>, Error> {
    let mut path = inclusion(start, size)?;
    path.retain(|range| range.end <= start || range.start >= end);
    Ok(path)
}

/// The root of the tree in which `subtree` stands at leaf `start`, `beside` being what stands beside the way up and
/// `hashes` its roots.
#[must_use]
pub fn root_over(subtree: Hash, start: u64, beside: &[Range], hashes: &[Hash]) -> Hash {
    beside.iter().zip(hashes).fold(subtree, |below, (range, hash)| {
        if range.start > start { node_hash(&below, hash) } else { node_hash(hash, &below) }
    })
}

/// The consistency proof between the trees of `from` and `to` leaves (RFC 6962, section 2.1.2). Empty where they
/// are equal or the older is empty.
///
/// # Errors
/// If `from` is larger than `to`.
pub fn consistency(from: u64, to: u64) -> Result<Vec<Range>, Error> {
    if from > to {
        return Err(Error::OutOfRange(format!("size {from} is larger than size {to}")));
    }
    let mut path = Vec::new();
    if from == 0 || from == to {
        return Ok(path);
    }
    let (mut start, mut end) = (0, to);
    // Whether the subtree at hand is the whole older tree, whose root the verifier has.
    let mut known = true;
    while from != end {
        let middle = start + split(end - start);
        if from <= middle {
            path.push(Range { start: middle, end });
            end = middle;
        } else {
            path.push(Range { start, end: middle });
            start = middle;
            known = false;
        }
    }
    if !known {
        path.push(Range { start, end });
    }
    path.reverse();
    Ok(path)
}

impl Range {
    /// The first `size` leaves.
    #[must_use]
    pub const fn prefix(size: u64) -> Self {
        Self { start: 0, end: size }
    }

    /// The perfect subtrees that cover it, from the left; sound because a range of a proof starts at a multiple of
    /// a power of two that is at least its length.
    pub fn nodes(self) -> impl Iterator<Item = Node> {
        let mut at = self.start;
        std::iter::from_fn(move || {
            let left = self.end.checked_sub(at).filter(|n| *n > 0)?;
            let height = (63 - left.leading_zeros()).min(at.trailing_zeros());
            let node = Node { height, index: at >> height };
            at += 1 << height;
            Some(node)
        })
    }

    /// Its root, from the hashes of its nodes.
    ///
    /// # Errors
    /// The node that `find` has not.
    pub fn root(self, mut find: impl FnMut(Node) -> Option<Hash>) -> Result<Hash, Error> {
        let mut right: Option<Hash> = None;
        let nodes: Vec<Node> = self.nodes().collect();
        for node in nodes.into_iter().rev() {
            let hash = find(node).ok_or(Error::Missing(node))?;
            right = Some(right.map_or(hash, |r| node_hash(&hash, &r)));
        }
        Ok(right.unwrap_or_else(empty_root))
    }
}

/// The tree after a batch, in memory: the perfect subtrees before it and its leaves.
#[derive(Debug)]
pub struct Grown<'a> {
    before: &'a Frontier,
    leaves: &'a [Hash],
    known: HashMap<Node, Hash>,
}

impl<'a> Grown<'a> {
    /// The tree of `before` with `leaves` behind it.
    #[must_use]
    pub fn new(before: &'a Frontier, leaves: &'a [Hash]) -> Self {
        let mut known = HashMap::with_capacity(before.hashes().len());
        for (node, hash) in Range::prefix(before.size()).nodes().zip(before.hashes()) {
            known.insert(node, *hash);
        }
        Self { before, leaves, known }
    }

    /// The inclusion proof of the batch's leaf `index` (counted in the ledger).
    ///
    /// # Errors
    /// If the leaf is not of the batch.
    pub fn inclusion(&mut self, index: u64) -> Result<Vec<Hash>, Error> {
        let size = self.before.size() + self.leaves.len() as u64;
        let path = inclusion(index, size)?;
        path.into_iter().map(|range| range.root(|node| self.node(node))).collect()
    }

    /// A node that ends after the old tree, or that its frontier has. A left sibling on the path of a new leaf is
    /// always one of the two: were it whole in the old tree and not of the frontier, its parent would be whole too.
    fn node(&mut self, node: Node) -> Option<Hash> {
        if let Some(hash) = self.known.get(&node) {
            return Some(*hash);
        }
        let hash = if node.height == 0 {
            let at = usize::try_from(node.index.checked_sub(self.before.size())?).ok()?;
            *self.leaves.get(at)?
        } else {
            let below = |side| Node { height: node.height - 1, index: node.index * 2 + side };
            node_hash(&self.node(below(0))?, &self.node(below(1))?)
        };
        self.known.insert(node, hash);
        Some(hash)
    }
}

/// Nodes read from the database.
#[derive(Debug, Default)]
pub struct Stored {
    tiles: HashMap<(u32, u64), Vec<u8>>,
}

impl Stored {
    /// Reads what `ranges` need, in at most two statements.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn read(
        connection: &mut PgConnection,
        workspace: WorkspaceId,
        ledger: LedgerId,
        ranges: impl IntoIterator<Item = Range>,
    ) -> Result<Self, sqlx::Error> {
        let mut stored = Self::default();
        stored.add(connection, workspace, ledger, ranges).await?;
        Ok(stored)
    }

    /// Reads what `ranges` need besides what is here already.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn add(
        &mut self,
        connection: &mut PgConnection,
        workspace: WorkspaceId,
        ledger: LedgerId,
        ranges: impl IntoIterator<Item = Range>,
    ) -> Result<(), sqlx::Error> {
        let wanted: BTreeSet<(u32, u64)> = ranges
            .into_iter()
            .flat_map(Range::nodes)
            .map(place)
            .map(|(level, tile, _, _)| (level, tile))
            .filter(|at| !self.tiles.contains_key(at))
            .collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let levels: Vec<i16> = wanted.iter().map(|(level, _)| *level as i16).collect();
        let tiles: Vec<i64> = wanted.iter().map(|(_, tile)| *tile as i64).collect();
        let rows = sqlx::query!(
            r#"SELECT t.level AS "level!", t.tile AS "tile!", t.hashes AS "hashes!"
                 FROM unnest($3::smallint[], $4::bigint[]) AS w (level, tile), LATERAL (
                       SELECT level, tile, hashes FROM tiles
                        WHERE workspace_id = $1 AND ledger_id = $2 AND level = w.level AND tile = w.tile
                       OFFSET 0) AS t"#,
            workspace.uuid(),
            ledger.uuid(),
            &levels,
            &tiles
        )
        .fetch_all(&mut *connection)
        .await?;
        for row in rows {
            self.tiles.insert((row.level as u32, row.tile as u64), row.hashes);
        }
        // Leaves that do not fill a tile yet stand with their entries; there is at most one such tile.
        for (level, tile) in wanted {
            if level != 0 || self.tiles.contains_key(&(level, tile)) {
                continue;
            }
            let leaves = sqlx::query_scalar!(
                "SELECT leaf FROM entries
                  WHERE workspace_id = $1 AND ledger_id = $2 AND seq >= $3 AND seq < $4 ORDER BY seq",
                workspace.uuid(),
                ledger.uuid(),
                (tile * TILE) as i64,
                ((tile + 1) * TILE) as i64
            )
            .fetch_all(&mut *connection)
            .await?;
            self.tiles.insert((0, tile), leaves.concat());
        }
        Ok(())
    }

    /// A node's hash, if its tile was read and holds it.
    #[must_use]
    pub fn find(&self, node: Node) -> Option<Hash> {
        let (level, tile, first, count) = place(node);
        let bytes = self.tiles.get(&(level, tile))?.get(first * 32..(first + count) * 32)?;
        let mut row: Vec<Hash> = bytes.as_chunks::<32>().0.to_vec();
        while row.len() > 1 {
            row = row.as_chunks::<2>().0.iter().map(|[l, r]| node_hash(l, r)).collect();
        }
        row.first().copied()
    }

    /// The hashes of a proof.
    ///
    /// # Errors
    /// If a node is missing.
    pub fn hashes(&self, ranges: &[Range]) -> Result<Vec<Hash>, Error> {
        ranges.iter().map(|range| range.root(|node| self.find(node))).collect()
    }
}

/// Stored nodes, of which those between the stored levels are hashed once for many proofs.
#[derive(Debug)]
pub struct Remembered<'a> {
    stored: &'a Stored,
    known: HashMap<Node, Hash>,
}

impl Stored {
    /// For many proofs in the same trees.
    #[must_use]
    pub fn remembering(&self) -> Remembered<'_> {
        Remembered { stored: self, known: HashMap::new() }
    }
}

impl Remembered<'_> {
    fn find(&mut self, node: Node) -> Option<Hash> {
        if node.height.is_multiple_of(TILE_HEIGHT) {
            return self.stored.find(node);
        }
        if let Some(hash) = self.known.get(&node) {
            return Some(*hash);
        }
        let below = |side| Node { height: node.height - 1, index: node.index * 2 + side };
        let hash = node_hash(&self.find(below(0))?, &self.find(below(1))?);
        self.known.insert(node, hash);
        Some(hash)
    }

    /// The root of a range.
    ///
    /// # Errors
    /// If a node is missing.
    pub fn root(&mut self, range: Range) -> Result<Hash, Error> {
        range.root(|node| self.find(node))
    }

    /// The hashes of a proof.
    ///
    /// # Errors
    /// If a node is missing.
    pub fn hashes(&mut self, ranges: &[Range]) -> Result<Vec<Hash>, Error> {
        ranges.iter().map(|range| self.root(*range)).collect()
    }
}

/// Where a node is kept: level, tile, and the hashes of that tile under it (the first, and how many).
fn place(node: Node) -> (u32, u64, usize, usize) {
    let (level, rise) = (node.height / TILE_HEIGHT, node.height % TILE_HEIGHT);
    let first = node.index << rise;
    (level, first / TILE, (first % TILE) as usize, 1 << rise)
}

/// What growing a tree adds to the tiles above level 0.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct NewNodes {
    /// The level of each.
    pub levels: Vec<i16>,
    /// The tile it is appended to.
    pub tiles: Vec<i64>,
    /// Its hash.
    pub hashes: Vec<Vec<u8>>,
}

/// The frontier behind `leaves`, and the roots of the tiles that became full on the way.
#[must_use]
pub fn grow(frontier: &Frontier, leaves: &[Hash]) -> (Frontier, NewNodes) {
    let mut new = NewNodes::default();
    let mut size = frontier.size();
    let mut hashes = frontier.hashes().to_vec();
    for leaf in leaves {
        let mut carry = *leaf;
        let mut height = 0;
        // A frontier has a hash for each bit of its size: adding a leaf is binary addition.
        while size >> height & 1 == 1 {
            let Some(left) = hashes.pop() else { break };
            carry = node_hash(&left, &carry);
            height += 1;
            if height % TILE_HEIGHT == 0 {
                new.levels.push((height / TILE_HEIGHT) as i16);
                new.tiles.push(((size >> height) / TILE) as i64);
                new.hashes.push(carry.to_vec());
            }
        }
        hashes.push(carry);
        size += 1;
    }
    (Frontier::from_parts(size, hashes).expect("a hash for each bit of the size"), new)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use statusledger_verify::tree::{leaf_hash, verify_consistency, verify_inclusion};

    fn leaves(n: u64) -> Vec<Hash> {
        (0..n).map(|i| leaf_hash(&i.to_be_bytes())).collect()
    }

    fn whole(leaves: &[Hash]) -> Frontier {
        grow(&Frontier::new(), leaves).0
    }

    /// The tiles as the database would have them after `leaves` came in batches of `step`.
    fn tiles(leaves: &[Hash], step: usize) -> Stored {
        let mut stored = Stored::default();
        let mut frontier = Frontier::new();
        for batch in leaves.chunks(step) {
            let (grown, new) = grow(&frontier, batch);
            for ((level, tile), hash) in new.levels.iter().zip(&new.tiles).zip(&new.hashes) {
                stored.tiles.entry((*level as u32, *tile as u64)).or_default().extend_from_slice(hash);
            }
            frontier = grown;
        }
        for (tile, chunk) in leaves.chunks(TILE as usize).enumerate() {
            stored.tiles.insert((0, tile as u64), chunk.concat());
        }
        stored
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn proofs_from_tiles_verify(size in 1u64..70_000, a in any::<u64>(), b in any::<u64>(), step in 1usize..5000) {
            let leaves = leaves(size);
            let stored = tiles(&leaves, step);
            let at = a % size + 1;
            let index = b % at;
            let root = Range::prefix(at).root(|n| stored.find(n)).unwrap();
            prop_assert_eq!(root, whole(&leaves[..at as usize]).root());
            let hashes = stored.hashes(&inclusion(index, at).unwrap()).unwrap();
            verify_inclusion(index, at, &leaves[index as usize], &hashes, &root).unwrap();
            // Whatever was asked for before.
            let mut nodes = stored.remembering();
            for index in [at - 1, index, index / 2, index] {
                let path = inclusion(index, at).unwrap();
                prop_assert_eq!(nodes.hashes(&path).unwrap(), stored.hashes(&path).unwrap());
            }
            prop_assert_eq!(nodes.root(Range::prefix(at)).unwrap(), root);
            let from = b % at + 1;
            let older = Range::prefix(from).root(|n| stored.find(n)).unwrap();
            let hashes = stored.hashes(&consistency(from, at).unwrap()).unwrap();
            verify_consistency(from, at, &older, &root, &hashes).unwrap();
            // A tile, or what is behind the last one, and what stands beside it make the root.
            let start = index / TILE * TILE;
            let end = (start + TILE).min(at);
            let beside = beside(start, end, at).unwrap();
            let hashes = stored.hashes(&beside).unwrap();
            let own = whole(&leaves[start as usize..end as usize]).root();
            prop_assert_eq!(root_over(own, start, &beside, &hashes), root);
        }

        #[test]
        fn proofs_of_a_batch_in_memory_verify(before in 0u64..2000, count in 1u64..600) {
            let leaves = leaves(before + count);
            let (old, new) = leaves.split_at(before as usize);
            let before = whole(old);
            let root = grow(&before, new).0.root();
            let mut grown = Grown::new(&before, new);
            for (index, leaf) in leaves.iter().enumerate().skip(old.len()) {
                let hashes = grown.inclusion(index as u64).unwrap();
                verify_inclusion(index as u64, leaves.len() as u64, leaf, &hashes, &root).unwrap();
            }
        }
    }

    #[test]
    fn a_proof_outside_the_tree_is_refused() {
        assert!(inclusion(5, 5).is_err());
        assert!(consistency(6, 5).is_err());
    }
}
