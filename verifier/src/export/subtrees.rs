//! Parts of an RFC 6962 tree that are hashed apart and then joined.
//!
//! A run of leaves from anywhere in the tree is covered by perfect subtrees: growing ones up to the first large
//! boundary, then shrinking ones. Each is a node of every tree that holds the run, so threads compute them for their
//! chunks without knowing what stands before, and joining two runs costs some ten hashes.

use crate::Hash;
use crate::tree::{empty_root, node_hash};

/// The perfect subtrees that cover the leaves `start..end`, from left to right.
#[derive(Clone, Debug, Default)]
pub(crate) struct Subtrees {
    start: u64,
    end: u64,
    /// Height and hash; a leaf has height 0.
    nodes: Vec<(u32, Hash)>,
}

impl Subtrees {
    /// The empty run at `start`.
    pub(crate) fn at(start: u64) -> Self {
        Self { start, end: start, nodes: Vec::new() }
    }

    /// The run of the first `size` leaves, from its subtrees, largest first; `None` if that is not their number.
    pub(crate) fn before(size: u64, left: &[Hash]) -> Option<Self> {
        if size.count_ones() as usize != left.len() {
            return None;
        }
        let heights = (0..u64::BITS).rev().filter(|height| size >> height & 1 == 1);
        Some(Self { start: 0, end: size, nodes: heights.zip(left.iter().copied()).collect() })
    }

    /// Adds the leaf that follows.
    pub(crate) fn push(&mut self, leaf: Hash) {
        self.push_node(0, leaf);
    }

    /// Adds the run that follows; `false`, and nothing is added, if it is another.
    #[must_use]
    pub(crate) fn append(&mut self, next: &Self) -> bool {
        if next.start != self.end {
            return false;
        }
        for &(height, hash) in &next.nodes {
            self.push_node(height, hash);
        }
        true
    }

    fn push_node(&mut self, mut height: u32, mut hash: Hash) {
        self.end += 1 << height;
        // Two neighbours of one height are the children of a node if they end where such a node ends.
        while let Some(&(_, left)) = self.nodes.last().filter(|(of_left, _)| *of_left == height) {
            if self.end.trailing_zeros() <= height {
                break;
            }
            self.nodes.pop();
            hash = node_hash(&left, &hash);
            height += 1;
        }
        self.nodes.push((height, hash));
    }

    /// The root of the tree of all leaves up to here; `None` if the run does not start at leaf 0.
    pub(crate) fn root(&self) -> Option<Hash> {
        if self.start != 0 {
            return None;
        }
        let hashes = self.nodes.iter().rev().map(|(_, hash)| *hash);
        Some(hashes.reduce(|right, left| node_hash(&left, &right)).unwrap_or_else(empty_root))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::tree::{Frontier, leaf_hash};

    #[test]
    fn every_split_of_a_tree_into_three_runs_has_its_root() {
        let leaves: Vec<Hash> = (0u8..40).map(|i| leaf_hash(&[i])).collect();
        let mut frontiers = vec![Frontier::new()];
        for leaf in &leaves {
            let mut next = frontiers.last().unwrap().clone();
            next.push(*leaf);
            frontiers.push(next);
        }
        let run = |from: usize, to: usize| {
            let mut run = Subtrees::at(from as u64);
            leaves[from..to].iter().for_each(|leaf| run.push(*leaf));
            run
        };
        for to in 0..=leaves.len() {
            for from in 0..=to {
                for middle in from..=to {
                    let mut all = Subtrees::before(from as u64, frontiers[from].hashes()).unwrap();
                    assert!(all.append(&run(from, middle)) && all.append(&run(middle, to)));
                    assert_eq!(all.root().unwrap(), frontiers[to].root(), "{from} {middle} {to}");
                }
            }
        }
    }

    #[test]
    fn a_run_that_does_not_follow_is_not_added() {
        let mut all = Subtrees::before(2, &[[1; 32]]).unwrap();
        assert!(!all.append(&Subtrees::at(3)));
        assert!(Subtrees::before(2, &[]).is_none());
        assert!(Subtrees::before(2, &[[1; 32]; 2]).is_none());
        assert_eq!(Subtrees::at(1).root(), None);
        assert_eq!(Subtrees::at(0).root(), Some(empty_root()));
    }
}
