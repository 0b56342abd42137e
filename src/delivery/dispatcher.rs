//! The dispatcher: gives each delivery to its lane, and finds what nobody holds.

use super::channels::webhook;
use super::configuration::{self, Configurations};
use super::lane::{LaneTask, Message};
use super::queue::{self, Held, Job};
use super::results::Report;
use super::{Handoff, Handoffs, InHand, LaneKey, Outbox};
use crate::config::DeliverySettings;
use crate::database::{Database, in_time};
use crate::id::{LedgerId, NodeId};
use crate::keyring::{self, Keyring, Snapshot};
use crate::ledger::Writer;
use crate::ledger::checkpoint::{self, SignedTree};
use crate::ledger::seen_heads::SeenHeads;
use crate::ledger::tree::Grown;
use crate::receipt::{Facts, Note};
use crate::sealing::DataKeys;
use statusledger_verify::Hash;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc, watch};

/// How often the database is asked for what is due and held by nobody.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often leases are renewed; a third of their length, so that two may fail.
const RENEW_EVERY: Duration = Duration::from_secs(10);
/// Leases that are renewed in one statement.
const RENEW_AT_ONCE: usize = 128;
/// Messages that may wait for a lane; beyond that it is told to look.
const LANE_QUEUE: usize = 256;
/// Signed checkpoints kept for receipts of the same tree.
const NOTES: usize = 1024;

/// What the lanes of a node share.
pub struct Shared {
    /// The database.
    pub database: Database,
    /// The data keys, for openings and secrets.
    pub data_keys: DataKeys,
    /// The signing keys.
    pub keyring: Keyring,
    /// The writer, for what ends as an entry.
    pub writer: Writer,
    /// This node.
    pub node: NodeId,
    /// What this node has handed out.
    pub seen_heads: SeenHeads,
    /// How to send.
    pub sender: webhook::Sender,
    /// When to try again.
    pub settings: DeliverySettings,
    /// How destinations are set.
    pub configurations: Configurations,
    /// Where outcomes go.
    pub reports: mpsc::Sender<Report>,
    outbox: Outbox,
    lanes: Mutex<HashMap<LaneKey, (i64, mpsc::Sender<Message>)>>,
    notes: Mutex<HashMap<(LedgerId, u64, Hash), Arc<Note>>>,
    stop: watch::Receiver<bool>,
    wake_others: Notify,
}

impl Shared {
    /// Becomes true when the node stops.
    pub fn stopping(&self) -> watch::Receiver<bool> {
        self.stop.clone()
    }

    /// Looks for what is due, soon.
    pub fn look(&self) {
        self.outbox.look();
    }

    /// A lane's task has ended.
    pub fn forget_lane(&self, key: LaneKey, fence: i64) {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if lanes.get(&key).is_some_and(|(held, _)| *held == fence) {
            lanes.remove(&key);
        }
    }

    /// The checkpoint of a receipt, signed once for all receipts of one tree. Signing again gives the same bytes.
    ///
    /// # Errors
    /// If its key has been destroyed.
    pub fn note(&self, ring: &Snapshot, facts: &Facts, root: Hash) -> Result<Arc<Note>, keyring::Error> {
        let key = (facts.ledger, facts.tree_size, facts.checkpoint_key);
        if let Some(note) = self.notes.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(Arc::clone(note));
        }
        let text = match &facts.signatures {
            Some(made) => ring.checkpoint_note(
                &facts.checkpoint_key,
                facts.ledger,
                facts.tree_size,
                root,
                &made.checkpoint,
            )?,
            None => ring.sign_checkpoint(&facts.checkpoint_key, facts.ledger, facts.tree_size, root)?,
        };
        let note = Arc::new(Note::new(text));
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        if notes.len() >= NOTES {
            notes.clear();
        }
        notes.insert(key, Arc::clone(&note));
        Ok(note)
    }

    /// The door of a lane that this node holds under `held.fence`, its task started where there is none.
    fn lane(self: &Arc<Self>, held: Held) -> mpsc::Sender<Message> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((fence, door)) = lanes.get(&held.key) {
            if *fence == held.fence && !door.is_closed() {
                return door.clone();
            }
            // An older hold of the same lane: it must not go on.
            let _ = door.try_send(Message::Lost);
        }
        let (door, messages) = mpsc::channel(LANE_QUEUE);
        lanes.insert(held.key, (held.fence, door.clone()));
        tokio::spawn(LaneTask::new(Arc::clone(self), held).run(messages));
        door
    }

    fn tell(&self, key: LaneKey, message: Message) {
        let lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, door)) = lanes.get(&key) {
            let _ = door.try_send(message);
        }
    }

    /// A destination's settings have changed.
    pub fn changed(&self, key: LaneKey) {
        self.configurations.forget(key.workspace);
        self.tell(key, Message::Changed);
    }
}

/// The parts of a dispatcher.
pub struct Parts {
    /// The database.
    pub database: Database,
    /// The data keys.
    pub data_keys: DataKeys,
    /// The signing keys.
    pub keyring: Keyring,
    /// The writer.
    pub writer: Writer,
    /// This node.
    pub node: NodeId,
    /// What this node has handed out.
    pub seen_heads: SeenHeads,
    /// How to send.
    pub sender: webhook::Sender,
    /// When to try again.
    pub settings: DeliverySettings,
    /// Where outcomes go.
    pub reports: mpsc::Sender<Report>,
    /// Where appends put what is to be delivered.
    pub outbox: Outbox,
    /// Becomes true when the node stops.
    pub stop: watch::Receiver<bool>,
}

/// A dispatcher's shared state.
#[must_use]
pub fn shared(parts: Parts) -> Arc<Shared> {
    Arc::new(Shared {
        database: parts.database,
        data_keys: parts.data_keys,
        keyring: parts.keyring,
        writer: parts.writer,
        node: parts.node,
        seen_heads: parts.seen_heads,
        sender: parts.sender,
        settings: parts.settings,
        configurations: Configurations::default(),
        reports: parts.reports,
        outbox: parts.outbox,
        lanes: Mutex::default(),
        notes: Mutex::default(),
        stop: parts.stop,
        wake_others: Notify::new(),
    })
}

/// Dispatches until the node stops.
pub async fn dispatch(shared: Arc<Shared>, mut handoffs: Handoffs) {
    shared.outbox.open(shared.seen_heads.clone());
    let listening = tokio::spawn(listen(Arc::clone(&shared)));
    let mut stop = shared.stopping();
    let handing_out = async {
        loop {
            tokio::select! {
                biased;
                _ = stop.changed() => break,
                handoff = handoffs.0.recv() => match handoff {
                    Some(handoff) => hand_out(&shared, handoff).await,
                    None => break,
                },
            }
        }
    };
    // Beside it: what was just committed does not wait for questions about all lanes.
    tokio::join!(handing_out, keep_lanes(&shared), keep_configurations(&shared));
    listening.abort();
    // The lanes end by themselves; what they report is written until the last has gone.
    loop {
        let doors: Vec<_> = {
            let lanes = shared.lanes.lock().unwrap_or_else(PoisonError::into_inner);
            lanes.values().map(|(_, door)| door.clone()).collect()
        };
        let Some(door) = doors.into_iter().find(|d| !d.is_closed()) else { break };
        door.closed().await;
    }
}

/// Renews leases and looks for what is due, until the node stops.
async fn keep_lanes(shared: &Arc<Shared>) {
    let looking = shared.outbox.looking();
    let mut stop = shared.stopping();
    let mut look = tokio::time::interval(LOOK_EVERY);
    let mut renew = tokio::time::interval(RENEW_EVERY);
    for interval in [&mut look, &mut renew] {
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    }
    loop {
        tokio::select! {
            biased;
            _ = stop.changed() => break,
            _ = renew.tick() => renew_leases(shared).await,
            _ = look.tick() => look_for_due(shared).await,
            () = looking.notified() => look_for_due(shared).await,
        }
    }
}

/// Asks whether destinations have changed, until the node stops.
async fn keep_configurations(shared: &Arc<Shared>) {
    let mut stop = shared.stopping();
    let mut ask = tokio::time::interval(configuration::ASK_EVERY);
    ask.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            _ = stop.changed() => break,
            _ = ask.tick() => if let Err(e) = shared.configurations.confirm(&shared.database).await {
                tracing::warn!(error = %e, "whether destinations have changed cannot be asked");
            }
        }
    }
}

/// Makes jobs of a committed batch and gives them to their lanes.
async fn hand_out(shared: &Arc<Shared>, in_hand: InHand) {
    // The room is given back when all lanes have what is theirs: they have bounds of their own.
    let InHand { handoff: Handoff { batch, lanes, ring }, room: _room } = in_hand;
    let (workspace, ledger) = (batch.after.workspace, batch.after.ledger);
    let leaves: Vec<Hash> = batch.entries.iter().map(|e| e.leaf).collect();
    let mut grown = Grown::new(&batch.before.frontier, &leaves);
    let (size, root) = (batch.after.frontier.size(), batch.after.frontier.root());
    let mut numbers: HashMap<_, i64> = HashMap::new();
    let mut jobs: HashMap<_, Vec<Job>> = HashMap::new();
    let mut proofs: HashMap<usize, Arc<[Hash]>> = HashMap::new();
    let mut elsewhere = false;
    for planned in &batch.deliveries {
        let Some(lane) = lanes.get(&planned.destination) else { continue };
        let number = numbers.entry(planned.destination).or_insert(lane.before_first);
        *number += 1;
        if !lane.held {
            elsewhere = true;
            continue;
        }
        let entry = &batch.entries[planned.position];
        let proof = match proofs.get(&planned.position) {
            Some(proof) => Arc::clone(proof),
            None => {
                let Ok(proof) = grown.inclusion(entry.seq) else { continue };
                let proof: Arc<[Hash]> = proof.into();
                proofs.insert(planned.position, Arc::clone(&proof));
                proof
            }
        };
        jobs.entry(planned.destination).or_default().push(Job {
            attempts: 0,
            entry: Arc::clone(&entry.entry),
            openings: Arc::clone(&batch.openings[planned.position]),
            proof,
            root,
            facts: Facts {
                destination: planned.destination,
                number: *number,
                base: lane.base,
                receipt: planned.receipt,
                ledger,
                seq: entry.seq,
                issued_at: batch.after.recorded_at,
                tree_size: size,
                receipt_key: ring.receipt_key_id(),
                checkpoint_key: ring.checkpoint_key_id(),
                signatures: None,
            },
        });
    }
    for (destination, jobs) in jobs {
        let lane = lanes[&destination];
        let key = LaneKey { workspace, destination };
        let door = shared.lane(Held {
            key,
            fence: lane.fence,
            sent_through: lane.sent_through,
            failing_since: lane.failing_since,
            behind: lane.sent_through != lane.before_first,
            last_number: numbers.get(&destination).copied().unwrap_or(lane.before_first),
            retry_due: false,
        });
        if door.try_send(Message::Jobs(jobs)).is_err() {
            // Its queue is full: the numbers it will not see make it read them.
            shared.look();
        }
    }
    if elsewhere {
        shared.wake_others.notify_one();
    }
    // Each 64 entries or so: a row that is written with every batch would double the commits.
    if size / 64 != batch.before.frontier.size() / 64 || size <= 8 {
        keep_checkpoint(shared, &ring, &batch.after, SignedTree { size, root });
    }
}

/// Keeps the newest checkpoint of a ledger in the database, beside the sending and not before it: what is promised
/// rests on this node's own file.
fn keep_checkpoint(
    shared: &Arc<Shared>,
    ring: &Arc<Snapshot>,
    head: &crate::ledger::batch::Head,
    tree: SignedTree,
) {
    let (shared, ring, workspace, ledger) =
        (Arc::clone(shared), Arc::clone(ring), head.workspace, head.ledger);
    tokio::spawn(async move {
        let kept = async {
            let note = ring
                .sign_checkpoint(&ring.checkpoint_key_id(), ledger, tree.size, tree.root)
                .map_err(|e| sqlx::Error::Protocol(e.to_string()))?;
            let mut tx = shared.database.workspace(workspace).await?;
            checkpoint::keep(&mut tx, workspace, ledger, &tree, &note).await?;
            tx.commit().await
        };
        if let Err(e) = kept.await {
            tracing::debug!(error = %e, "a checkpoint is not kept in the database this time");
        }
    });
}

async fn look_for_due(shared: &Arc<Shared>) {
    let held = async {
        let mut due = queue::held_and_due(&shared.database, shared.node).await?;
        loop {
            let claimed = queue::claim(&shared.database, shared.node).await?;
            let all = claimed.is_empty();
            due.extend(claimed);
            if all {
                return Ok::<_, sqlx::Error>(due);
            }
        }
    };
    match in_time(held).await.and_then(|held| held) {
        Ok(due) => {
            for held in due {
                let look = Message::Look { last_number: held.last_number, retry_due: held.retry_due };
                let _ = shared.lane(held).try_send(look);
            }
        }
        Err(e) => tracing::warn!(error = %e, "what is due cannot be looked for"),
    }
}

async fn renew_leases(shared: &Arc<Shared>) {
    let mine: Vec<LaneKey> = {
        let lanes = shared.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.keys().copied().collect()
    };
    if mine.is_empty() {
        return;
    }
    // An append to a lane waits while its row is being renewed: not for thousands of others with it.
    for some in mine.chunks(RENEW_AT_ONCE) {
        let asked = Instant::now();
        match in_time(queue::renew(&shared.database, shared.node, some)).await.and_then(|renewed| renewed) {
            Ok(renewed) => {
                let renewed: HashSet<LaneKey> = renewed.into_iter().collect();
                for key in some {
                    let held = renewed.contains(key);
                    shared.tell(*key, if held { Message::Renewed(asked) } else { Message::Lost });
                }
            }
            // Lanes stop sending by themselves when their time is up.
            Err(e) => {
                tracing::warn!(error = %e, "leases cannot be renewed");
                return;
            }
        }
    }
}

/// Tells other nodes that there is something for a lane that they hold, and hears it from them. Outside the
/// appending transaction, and not more often than [`WAKE_EVERY`]: a notification in each commit would cap them.
async fn listen(shared: Arc<Shared>) {
    const CHANNEL: &str = "statusledger_lanes";
    const WAKE_EVERY: Duration = Duration::from_millis(20);
    let telling = async {
        loop {
            shared.wake_others.notified().await;
            if let Err(e) = sqlx::query!("SELECT pg_notify($1, '') AS x", CHANNEL)
                .fetch_one(&shared.database.worker)
                .await
            {
                tracing::debug!(error = %e, "other nodes will find out by looking");
            }
            tokio::time::sleep(WAKE_EVERY).await;
        }
    };
    let hearing = async {
        if shared.database.is_pooled() {
            // Nobody hears through a pooler: looking is all there is.
            return;
        }
        loop {
            let heard = async {
                let mut listener = sqlx::postgres::PgListener::connect_with(&shared.database.worker).await?;
                listener.listen_all([CHANNEL, keyring::CHANGED]).await?;
                loop {
                    if listener.recv().await?.channel() == keyring::CHANGED {
                        if let Err(e) = shared.keyring.reload().await {
                            tracing::warn!(error = %e, "the key ring cannot be read again");
                        }
                    } else {
                        shared.look();
                    }
                }
            };
            let heard: Result<(), sqlx::Error> = heard.await;
            if let Err(e) = heard {
                tracing::debug!(error = %e, "notifications of other nodes are not heard; looking goes on");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    tokio::join!(telling, hearing);
}
