//! The Merkle tree of RFC 6962, section 2.1, over SHA-256.

use sha2::{Digest, Sha256};

use crate::Hash;

/// The most hashes that a proof can have: a tree of 2^64-1 leaves has 64 levels of nodes above them.
pub const MAX_HEIGHT: usize = 64;

/// The root of the tree without leaves: `SHA-256("")`.
pub fn empty_root() -> Hash {
    Sha256::digest([]).into()
}

/// The hash of a leaf: `SHA-256(0x00 || canonical entry)`.
pub fn leaf_hash(canonical_entry: &[u8]) -> Hash {
    Sha256::new().chain_update([0]).chain_update(canonical_entry).finalize().into()
}

/// The hash of an inner node: `SHA-256(0x01 || left || right)`.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut input = [1; 65];
    input[1..33].copy_from_slice(left);
    input[33..].copy_from_slice(right);
    Sha256::digest(input).into()
}

/// A proof does not prove.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no such leaf in a tree of that size.
    #[error("index {index} is not in a tree of size {size}")]
    IndexOutOfTree {
        /// The leaf's index.
        index: u64,
        /// The tree's size.
        size: u64,
    },
    /// A tree does not shrink.
    #[error("a tree of size {to} cannot extend one of size {from}")]
    Shrinks {
        /// The older size.
        from: u64,
        /// The newer size.
        to: u64,
    },
    /// The proof has another length than the sizes ask for.
    #[error("the proof has {found} hashes where {expected} are needed")]
    ProofLength {
        /// How many hashes the sizes ask for.
        expected: usize,
        /// How many there are.
        found: usize,
    },
    /// The hashes lead to another root.
    #[error("the proof leads to another root than the checkpoint's")]
    RootMismatch,
    /// The hashes lead to another root of the older tree.
    #[error("the proof leads to another root of the older tree")]
    OlderRootMismatch,
}

/// A prefix of a log, as the roots of the perfect subtrees that cover it, largest first. Appending to it needs
/// nothing else, and it has at most 64 hashes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    /// One hash for each bit that is set in `size`, from the highest.
    hashes: Vec<Hash>,
}

impl Frontier {
    /// The empty prefix.
    pub fn new() -> Self {
        Self::default()
    }

    /// The prefix of that size with those subtrees, largest first; `None` where their number is not the number of
    /// bits set in `size`.
    pub fn from_parts(size: u64, hashes: Vec<Hash>) -> Option<Self> {
        (usize::try_from(size.count_ones()) == Ok(hashes.len())).then_some(Self { size, hashes })
    }

    /// Appends a leaf hash.
    ///
    /// # Panics
    /// Where the tree already has 2^64-1 leaves.
    pub fn push(&mut self, leaf: Hash) {
        let mut node = leaf;
        // Each trailing one-bit of the size is a subtree that the new leaf completes a larger one with.
        for _ in 0..self.size.trailing_ones() {
            let left = self.hashes.pop().expect("there is a subtree for each bit set in the size");
            node = node_hash(&left, &node);
        }
        self.hashes.push(node);
        self.size = self.size.checked_add(1).expect("a log has fewer than 2^64 entries");
    }

    /// How many leaves the prefix has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The subtrees, largest first.
    pub fn hashes(&self) -> &[Hash] {
        &self.hashes
    }

    /// The root of the tree over the prefix.
    pub fn root(&self) -> Hash {
        let mut subtrees = self.hashes.iter().rev();
        match subtrees.next() {
            None => empty_root(),
            Some(smallest) => subtrees.fold(*smallest, |right, left| node_hash(left, &right)),
        }
    }
}

/// How many hashes an inclusion proof has: one for each level below the point where the paths of the leaf and of
/// the last leaf meet, and above it one for each left sibling.
fn inclusion_length(index: u64, size: u64) -> (u32, u32) {
    let inner = 64 - (index ^ (size - 1)).leading_zeros();
    let border = index.checked_shr(inner).unwrap_or(0).count_ones();
    (inner, border)
}

/// Verifies that a leaf stands at `index` in the tree of that size and root (RFC 6962, section 2.1.1). The hashes
/// go from the leaf's sibling up.
///
/// # Errors
/// Where the index is not in the tree, or the number of hashes is not the one that the sizes ask for, or they lead
/// to another root.
pub fn verify_inclusion(
    index: u64,
    size: u64,
    leaf: &Hash,
    hashes: &[Hash],
    root: &Hash,
) -> Result<(), Error> {
    if index >= size {
        return Err(Error::IndexOutOfTree { index, size });
    }
    let (inner, border) = inclusion_length(index, size);
    check_length(inner + border, hashes)?;
    let (below, above) = hashes.split_at(usize::try_from(inner).expect("at most 64 levels"));
    let node = fold_inner(*leaf, index, below);
    let node = above.iter().fold(node, |right, left| node_hash(left, &right));
    if node == *root { Ok(()) } else { Err(Error::RootMismatch) }
}

/// Verifies that the tree of size `to` extends the one of size `from` (RFC 6962, section 2.1.2).
///
/// Between equal sizes the roots must be equal and the proof empty; the empty tree is extended by every tree, with
/// an empty proof.
///
/// # Errors
/// Where a tree would shrink, or the number of hashes is not the one that the sizes ask for, or they lead to
/// another root of either tree.
pub fn verify_consistency(
    from: u64,
    to: u64,
    from_root: &Hash,
    to_root: &Hash,
    hashes: &[Hash],
) -> Result<(), Error> {
    if from > to {
        return Err(Error::Shrinks { from, to });
    }
    if from == 0 && *from_root != empty_root() {
        return Err(Error::OlderRootMismatch);
    }
    if from == to {
        check_length(0, hashes)?;
        return if from_root == to_root { Ok(()) } else { Err(Error::RootMismatch) };
    }
    if from == 0 {
        return check_length(0, hashes);
    }
    // The proof is an inclusion proof of the older tree's smallest perfect subtree: it starts at that subtree's
    // level, and with its hash unless the older tree is that subtree (then its hash is the older root).
    let level = from.trailing_zeros();
    let (inner, border) = inclusion_length(from - 1, to);
    let inner = inner - level;
    let is_perfect = from.is_power_of_two();
    check_length(inner + border + u32::from(!is_perfect), hashes)?;
    let (seed, path) =
        if is_perfect { (from_root, hashes) } else { hashes.split_first().expect("the length was checked") };
    let (below, above) = path.split_at(usize::try_from(inner).expect("at most 64 levels"));
    let index = (from - 1) >> level;
    // The older root takes only the left siblings.
    let lefts = below.iter().enumerate().filter(|(step, _)| index >> step & 1 == 1).map(|(_, hash)| hash);
    let older = lefts.chain(above).fold(*seed, |right, left| node_hash(left, &right));
    if older != *from_root {
        return Err(Error::OlderRootMismatch);
    }
    let newer = above.iter().fold(fold_inner(*seed, index, below), |right, left| node_hash(left, &right));
    if newer == *to_root { Ok(()) } else { Err(Error::RootMismatch) }
}

fn check_length(expected: u32, hashes: &[Hash]) -> Result<(), Error> {
    let expected = usize::try_from(expected).expect("at most 128 hashes");
    if hashes.len() == expected { Ok(()) } else { Err(Error::ProofLength { expected, found: hashes.len() }) }
}

/// Climbs from a node along siblings: a set bit of the index says that the sibling is on the left.
fn fold_inner(node: Hash, index: u64, siblings: &[Hash]) -> Hash {
    siblings.iter().enumerate().fold(node, |node, (step, sibling)| {
        if index >> step & 1 == 1 { node_hash(sibling, &node) } else { node_hash(&node, sibling) }
    })
}
