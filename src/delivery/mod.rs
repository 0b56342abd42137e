//! Delivery: from a committed entry to a receiver that has it.
//!
//! An append writes its deliveries in its own transaction and hands them over in memory ([`Outbox`]); the
//! [`dispatcher`] gives each to its destination's lane. A lane is held by one node at a time, by a lease with a
//! fence, so that attempts start in the order of their numbers and no more than `max_in_flight` run at once however
//! many nodes there are. What no node holds, after a crash or a full queue, is claimed by looking for what is due
//! (`FOR UPDATE SKIP LOCKED`). A lane that waits for a slow receiver is a task that waits: it delays no other.
//!
//! [`routes`] decides which entries go where, [`lane`] sends, [`queue`] reads and claims, [`results`] writes
//! outcomes in batches, [`destination`] is what a team configures, [`configuration`] what a node knows of that, [`channels`] how a kind of destination is
//! spoken to, [`guard`] where no request may go.

pub mod channels;
pub mod configuration;
pub mod destination;
pub mod dispatcher;
pub mod guard;
pub mod http;
pub mod lane;
pub mod queue;
pub mod results;
pub mod routes;

use crate::database::server::Server;
use crate::id::{DestinationId, WorkspaceId};
use crate::keyring::Snapshot;
use crate::ledger::batch::Batch;
use crate::ledger::checkpoint::SignedTree;
use crate::ledger::seen_heads::{Intent, Place, SeenHeads};
use crate::room::{self, Room, Taken};
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use tokio::sync::{Notify, mpsc};

/// Batches that may wait for the dispatcher; what does not fit is found in the database.
const HANDOFFS: usize = 1024;

/// A destination, with whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LaneKey {
    /// Whose.
    pub workspace: WorkspaceId,
    /// Which.
    pub destination: DestinationId,
}

/// What the append learned of a destination's lane.
#[derive(Clone, Copy, Debug)]
pub struct Lane {
    /// The last number before the batch's.
    pub before_first: i64,
    /// Whether this node holds it.
    pub held: bool,
    /// Under which fence.
    pub fence: i64,
    /// Every delivery up to this number has had its first attempt.
    pub sent_through: i64,
    /// Since when it has done nothing but fail.
    pub failing_since: Option<time::OffsetDateTime>,
    /// The last number of the ledgers before this one; 0 where it is the first.
    pub base: i64,
}

/// A committed batch, and the lanes that its deliveries joined. Lanes that are unknown (the answer was lost) are
/// found by looking for what is due.
#[derive(Debug)]
pub struct Handoff {
    /// The batch.
    pub batch: Arc<Batch>,
    /// The lanes, by destination.
    pub lanes: HashMap<DestinationId, Lane>,
    /// The keys that its receipts are fixed to.
    pub ring: Arc<Snapshot>,
}

/// A handoff in memory, and the room that it takes.
#[derive(Debug)]
pub(crate) struct InHand {
    pub(crate) handoff: Handoff,
    pub(crate) room: Taken,
}

/// What the dispatcher reads.
#[derive(Debug)]
pub struct Handoffs(mpsc::Receiver<InHand>);

/// The tree that a batch leaves.
fn tree_of(batch: &Batch) -> SignedTree {
    let frontier = &batch.after.frontier;
    SignedTree { size: frontier.size(), root: frontier.root() }
}

/// Where appends put what is to be delivered.
#[derive(Clone, Debug)]
pub struct Outbox {
    batches: mpsc::Sender<InHand>,
    look: Arc<Notify>,
    /// For what is in the queue: a batch can have 4 MiB.
    room: Room,
    /// What this node hands out, once it does: before its history is verified nothing may be added to what that is held
    /// against.
    seen_heads: Arc<OnceLock<SeenHeads>>,
}

impl Outbox {
    /// An outbox, and the end that the dispatcher reads.
    #[must_use]
    pub fn new() -> (Self, Handoffs) {
        let (batches, receiver) = mpsc::channel(HANDOFFS);
        let room = Room::new(room::DELIVERIES);
        (Self { batches, look: Arc::default(), room, seen_heads: Arc::default() }, Handoffs(receiver))
    }

    /// From now on what is handed over leaves, and is remembered.
    pub(crate) fn open(&self, seen_heads: SeenHeads) {
        let _ = self.seen_heads.set(seen_heads);
    }

    /// Hands a committed batch over. Never waits: what does not fit is looked for in the database.
    pub fn hand_over(&self, handoff: Handoff) {
        if handoff.batch.deliveries.is_empty() {
            return;
        }
        let batch = &handoff.batch;
        let bytes = batch.entries.iter().map(|entry| entry.entry.len()).sum::<usize>()
            + batch.openings.iter().flat_map(|of| of.iter()).map(|o| o.canonical.len()).sum::<usize>();
        let room = if handoff.lanes.is_empty() { None } else { self.room.take(bytes) };
        let (ledger, tree) = (batch.after.ledger, tree_of(batch));
        let leaves_here = handoff.lanes.values().any(|lane| lane.held);
        let handed = room.is_some_and(|room| self.batches.try_send(InHand { handoff, room }).is_ok());
        if !handed {
            self.look();
        } else if let (true, Some(seen_heads)) = (leaves_here, self.seen_heads.get()) {
            // What the lanes wait for before anything leaves is on its way while they make their bodies.
            seen_heads.begin(ledger, tree);
        }
    }

    /// Says that `batch` is about to be committed on `server`, and its receipts will leave this node then. Returns whether
    /// that is being written.
    pub(crate) fn intend(&self, batch: &Batch, server: &Server) -> bool {
        match (self.seen_heads.get(), Place::of(server)) {
            (Some(seen_heads), Some(place)) => {
                seen_heads.intend(batch.after.ledger, Intent { tree: tree_of(batch), place })
            }
            _ => false,
        }
    }

    /// Says that nothing of it was handed out (yet).
    pub(crate) fn withdraw(&self, batch: &Batch) {
        if let Some(seen_heads) = self.seen_heads.get() {
            seen_heads.withdraw(batch.after.ledger, tree_of(batch));
        }
    }

    /// Has the dispatcher look for what is due, now.
    pub fn look(&self) {
        self.look.notify_one();
    }

    pub(crate) fn looking(&self) -> Arc<Notify> {
        Arc::clone(&self.look)
    }
}
