//! Building a batch: what follows from a head and some drafts, without a database.
//!
//! Nothing here waits or fails for an outside reason, so a batch whose head has moved is simply built again.

use super::draft::{Draft, Opening};
use super::tree::{self, NewNodes};
use super::{base64, fill_random, hex};
use crate::delivery::routes::Routes;
use crate::id::{DestinationId, LedgerId, ReceiptId, WorkspaceId};
use crate::sealing::seal_opening;
use statusledger_keys::envelope::DataKey;
use statusledger_keys::sealing::SealError;
use statusledger_verify::Hash;
use statusledger_verify::time::Timestamp;
use statusledger_verify::tree::{Frontier, leaf_hash};
use std::borrow::Borrow;
use std::sync::Arc;

/// A ledger's head, and the destinations that an entry behind it goes to.
#[derive(Clone, Debug)]
pub struct Head {
    /// Whose it is.
    pub workspace: WorkspaceId,
    /// Which ledger.
    pub ledger: LedgerId,
    /// The last entry's leaf hash; zeros while there is none.
    pub leaf: Hash,
    /// The perfect subtrees of all entries; its size is the ledger's.
    pub frontier: Frontier,
    /// The last entry's timestamp, in microseconds since 1970.
    pub recorded_at: i64,
    /// The workspace's destinations at that head.
    pub routes: Arc<Routes>,
}

/// An entry in its place.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Its place, from 0.
    pub seq: u64,
    /// When it was recorded.
    pub timestamp: Timestamp,
    /// Its leaf hash.
    pub leaf: Hash,
    /// Its canonical JSON.
    pub entry: Arc<str>,
}

/// A delivery that a batch causes, before its number is known.
#[derive(Clone, Debug)]
pub struct Planned {
    /// Where to.
    pub destination: DestinationId,
    /// The receipt's id.
    pub receipt: ReceiptId,
    /// Which of the batch's entries.
    pub position: usize,
}

/// Drafts in their places, with all that is written for them.
#[derive(Debug)]
pub struct Batch {
    /// The head it was built on.
    pub before: Head,
    /// The head once it is written.
    pub after: Head,
    /// The entries, in order.
    pub entries: Vec<Recorded>,
    /// The entries' openings, in order.
    pub openings: Vec<Arc<[Opening]>>,
    /// `(position, name, ciphertext)` of each opening.
    pub sealed: Vec<(usize, String, Vec<u8>)>,
    /// What is added to the tiles above level 0.
    pub nodes: NewNodes,
    /// The deliveries, by entry.
    pub deliveries: Vec<Planned>,
}

/// Puts `drafts` behind `head` at `now` (microseconds since 1970; never before the head's time).
///
/// # Errors
/// If an opening cannot be encrypted.
///
/// # Panics
/// If the clock stands outside the years that a timestamp can say.
pub fn build<D: Borrow<Draft>>(
    head: &Head,
    drafts: &[D],
    data_key: &DataKey,
    now: i64,
) -> Result<Batch, SealError> {
    let recorded_at = now.max(head.recorded_at);
    let timestamp =
        Timestamp::from_unix_micros(recorded_at).expect("the clock stands between the years 0 and 9999");
    let mut nonces = vec![0_u8; drafts.len() * 16];
    fill_random(&mut nonces);
    let mut prev = head.leaf;
    let mut entries = Vec::with_capacity(drafts.len());
    let mut deliveries = Vec::new();
    let mut sealed = Vec::new();
    for (position, (draft, nonce)) in drafts.iter().zip(nonces.chunks(16)).enumerate() {
        let draft = draft.borrow();
        let seq = head.frontier.size() + position as u64;
        let entry = format!(
            "{{\"data\":{},\"ledger\":\"{}\",\"nonce\":\"{}\",\"prev\":\"{}\",\"seq\":{seq},\"timestamp\":\"{timestamp}\",\"type\":\"{}\",\"v\":1}}",
            draft.data(),
            head.ledger,
            base64(nonce),
            hex(&prev),
            draft.kind(),
        );
        let leaf = leaf_hash(entry.as_bytes());
        for opening in draft.openings() {
            let ciphertext =
                seal_opening(data_key, head.ledger, seq, &opening.name, opening.canonical.as_bytes())?;
            sealed.push((position, opening.name.clone(), ciphertext));
        }
        deliveries.extend(head.routes.matching(draft).map(|destination| Planned {
            destination,
            receipt: ReceiptId::new(),
            position,
        }));
        entries.push(Recorded { seq, timestamp, leaf, entry: entry.into() });
        prev = leaf;
    }
    let leaves: Vec<Hash> = entries.iter().map(|e| e.leaf).collect();
    let (frontier, nodes) = tree::grow(&head.frontier, &leaves);
    Ok(Batch {
        before: head.clone(),
        after: Head { leaf: prev, frontier, recorded_at, ..head.clone() },
        openings: drafts.iter().map(|d| d.borrow().openings().into()).collect(),
        entries,
        sealed,
        nodes,
        deliveries,
    })
}
