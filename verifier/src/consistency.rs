//! Two checkpoints of one log: is the newer tree an extension of the older?

use crate::Hash;
use crate::check::{Check, Failure};
use crate::checkpoint::Checkpoint;
use crate::encoding::parse_hex;
use crate::json;
use crate::members::{Malformed, Members};
use crate::tree;

/// The largest proof, in bytes: far more than 128 hashes take.
pub const MAX_BYTES: usize = 64 << 10;

/// A consistency proof as the API gives it: `{"from","to","hashes":[hex]}`, in the order of RFC 6962.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsistencyProof {
    /// The older size.
    pub from: u64,
    /// The newer size.
    pub to: u64,
    /// The hashes.
    pub hashes: Vec<Hash>,
}

impl ConsistencyProof {
    /// Reads a proof.
    ///
    /// # Errors
    /// [`Check::Proof`] where it is none.
    pub fn parse(input: &[u8]) -> Result<Self, Failure> {
        Self::read(input).map_err(|Malformed(detail)| {
            Failure::new(Check::Proof, format!("the consistency proof is not one: {detail}"))
        })
    }

    fn read(input: &[u8]) -> Result<Self, Malformed> {
        if input.len() > MAX_BYTES {
            return Err(Malformed(format!("more than {MAX_BYTES} bytes")));
        }
        let document = json::parse(input).map_err(|error| Malformed(error.to_string()))?;
        let members = Members::of(&document, "", &["from", "hashes", "to"], &[])?;
        let read_hash = |(index, value): (usize, &json::Value)| {
            let hash = value.as_str().and_then(parse_hex);
            hash.ok_or_else(|| Malformed(format!("hashes[{index}] is not 64 lowercase hex digits")))
        };
        let hashes = members.array("hashes")?.iter().enumerate().map(read_hash).collect::<Result<_, _>>()?;
        Ok(Self { from: members.integer("from", 0)?, to: members.integer("to", 0)?, hashes })
    }
}

/// Why two checkpoints are not shown to be of one history.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// They are not.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// Nothing says so far that they are: a proof is needed.
    #[error("a consistency proof from {from} to {to} is needed (--proof)")]
    ProofNeeded {
        /// The older size.
        from: u64,
        /// The newer size.
        to: u64,
    },
}

/// What is there to compare two checkpoints by.
#[derive(Clone, Copy, Debug, Default)]
pub struct Evidence<'a> {
    /// A consistency proof.
    pub proof: Option<&'a ConsistencyProof>,
    /// The root that the larger tree has at the smaller's size, computed from its entries.
    pub recomputed_root: Option<Hash>,
}

/// Verifies that the newer checkpoint's tree is an extension of the older's. Both checkpoints' signatures are to be
/// verified first. All the evidence that is there has to agree.
///
/// A newer tree that is smaller is inconsistent (a log does not shrink) unless its entries are there to show that it
/// is a prefix: then the two were only given the wrong way round.
///
/// # Errors
/// [`Check::Origin`] where the checkpoints are of two logs, [`Check::Inconsistent`] where they are of two
/// histories; [`Error::ProofNeeded`] where the sizes differ and there is no evidence.
pub fn verify(older: &Checkpoint, newer: &Checkpoint, evidence: Evidence<'_>) -> Result<(), Error> {
    if older.origin != newer.origin {
        let detail = format!("the checkpoints are of two logs, {} and {}", older.origin, newer.origin);
        return Err(Failure::new(Check::Origin, detail).into());
    }
    let inconsistent = |detail: String| Error::Failed(Failure::new(Check::Inconsistent, detail));
    let (small, large) = if older.size <= newer.size { (older, newer) } else { (newer, older) };
    if small.size == large.size && small.root != large.root {
        return Err(inconsistent(format!("at size {} there are two roots", small.size)));
    }
    if evidence.recomputed_root.is_some_and(|root| root != small.root) {
        let detail = format!("the entries hash to another root at size {} than the checkpoint's", small.size);
        return Err(inconsistent(detail));
    }
    // Two equal trees need no proof, and one that was given for others accuses nobody.
    if let Some(proof) = evidence.proof.filter(|_| small.size != large.size) {
        if (proof.from, proof.to) != (small.size, large.size) {
            let detail = format!(
                "the proof is from {} to {}, the checkpoints are of {} and {}",
                proof.from, proof.to, small.size, large.size
            );
            return Err(Failure::new(Check::Proof, detail).into());
        }
        tree::verify_consistency(small.size, large.size, &small.root, &large.root, &proof.hashes)
            .map_err(|error| inconsistent(error.to_string()))?;
    }
    if small.size == large.size || evidence.recomputed_root.is_some() || evidence.proof.is_some() {
        return Ok(());
    }
    if newer.size < older.size {
        return Err(inconsistent(format!(
            "the newer tree has {} entries, the older {}: a log does not shrink",
            newer.size, older.size
        )));
    }
    Err(Error::ProofNeeded { from: small.size, to: large.size })
}
