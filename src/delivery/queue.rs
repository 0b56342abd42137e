//! The queue in the database: which lanes have something due, who holds them, and what is next in one.

use super::LaneKey;
use crate::audit::Act;
use crate::database::{Database, WorkspaceTx};
use crate::id::{DestinationId, LedgerId, NodeId, ReceiptId, WorkspaceId};
use crate::keyring::{self, Keyring, Snapshot};
use crate::ledger::Writer;
use crate::ledger::append::entry_type;
use crate::ledger::draft::Opening;
use crate::ledger::tree::{self, Range, Stored};
use crate::receipt::{self, Facts, Signatures};
use crate::sealing::{DataKeys, open_opening};
use statusledger_keys::signing::KeyPurpose;
use statusledger_verify::{Hash, Mode};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use time::OffsetDateTime;
use zeroize::Zeroizing;

/// How long a lane is held without being renewed (`migrations/0001_spine.sql` gives it to an appender too).
pub const LEASE: Duration = Duration::from_secs(30);
/// Bytes of openings read at once for a lane, of which a payload can have 1 MiB.
const AT_ONCE: i64 = 4 << 20;
/// Lanes claimed at once.
const CLAIM: i64 = 256;

/// A delivery, ready to be made into a body and sent.
#[derive(Clone, Debug)]
pub struct Job {
    /// What its receipt says.
    pub facts: Facts,
    /// Attempts made before.
    pub attempts: i32,
    /// The canonical entry.
    pub entry: Arc<str>,
    /// The openings of its sealed values.
    pub openings: Arc<[Opening]>,
    /// The inclusion proof in the tree of `facts.tree_size`.
    pub proof: Arc<[Hash]>,
    /// The root of that tree.
    pub root: Hash,
}

/// Jobs that were read of a lane.
#[derive(Debug)]
pub struct Read {
    /// In the order in which they are to start.
    pub jobs: Vec<Job>,
    /// Whether there may be more behind them.
    pub more: bool,
}

impl Job {
    /// Bytes that it takes in memory, about.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.entry.len() + self.openings.iter().map(|opening| opening.canonical.len()).sum::<usize>()
    }

    /// The openings that go with it where its destination may see some: those of what came from outside. The ones of
    /// the workspace's own settings (another destination's address, say) go nowhere.
    #[must_use]
    pub fn openings_for(&self, allowed: bool) -> &[Opening] {
        let told = entry_type(&self.entry).starts_with("event.");
        if allowed && told { &self.openings } else { &[] }
    }
}

/// A lane that this node holds.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    /// Which.
    pub key: LaneKey,
    /// Under which fence.
    pub fence: i64,
    /// Every delivery up to this number has had its first attempt.
    pub sent_through: i64,
    /// Since when it has done nothing but fail.
    pub failing_since: Option<OffsetDateTime>,
    /// Whether there may be first attempts in the database behind `sent_through`.
    pub behind: bool,
    /// Its newest number.
    pub last_number: i64,
    /// Whether a retry's time has come.
    pub retry_due: bool,
}

/// Frees the lanes that this node held in an earlier life, so that it takes them up again at once.
///
/// # Errors
/// If the database does not answer.
pub async fn forget_past(database: &Database, node: NodeId) -> Result<(), sqlx::Error> {
    sqlx::query!("UPDATE lanes SET leased_until = '-infinity' WHERE holder = $1", node.uuid())
        .execute(&database.worker)
        .await?;
    Ok(())
}

/// Claims lanes that have something due and are held by nobody.
///
/// # Errors
/// If the database does not answer.
pub async fn claim(database: &Database, node: NodeId) -> Result<Vec<Held>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"UPDATE lanes l SET holder = $1, fence = l.fence + 1, leased_until = now() + interval '30 seconds'
            -- Where they are, and not by key: a plan that was made while there were few would read all for each.
            WHERE l.ctid = ANY (ARRAY(SELECT ctid FROM lanes
                                       WHERE NOT stopped AND leased_until < now()
                                         AND (last_number > sent_through OR next_retry_at <= now())
                                       LIMIT $2 FOR UPDATE SKIP LOCKED))
           RETURNING l.workspace_id AS "workspace: WorkspaceId", l.destination_id AS "destination: DestinationId",
                     l.fence, l.sent_through, l.failing_since, l.last_number,
                     COALESCE(l.next_retry_at <= now(), false) AS "retry_due!""#,
        node.uuid(),
        CLAIM
    )
    .fetch_all(&database.worker)
    .await?;
    Ok(rows
        .into_iter()
        .map(|r| Held {
            key: LaneKey { workspace: r.workspace, destination: r.destination },
            fence: r.fence,
            sent_through: r.sent_through,
            failing_since: r.failing_since,
            behind: true,
            last_number: r.last_number,
            retry_due: r.retry_due,
        })
        .collect())
}

/// The lanes that this node holds and that have something due: appended by another node, or a retry whose time has
/// come.
///
/// # Errors
/// If the database does not answer.
pub async fn held_and_due(database: &Database, node: NodeId) -> Result<Vec<Held>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT workspace_id AS "workspace: WorkspaceId", destination_id AS "destination: DestinationId",
                  fence, sent_through, failing_since, last_number,
                  COALESCE(next_retry_at <= now(), false) AS "retry_due!"
             FROM lanes
            WHERE holder = $1 AND leased_until >= now() AND NOT stopped
              AND (last_number > sent_through OR next_retry_at <= now())"#,
        node.uuid()
    )
    .fetch_all(&database.worker)
    .await?;
    Ok(rows
        .into_iter()
        .map(|r| Held {
            key: LaneKey { workspace: r.workspace, destination: r.destination },
            fence: r.fence,
            sent_through: r.sent_through,
            failing_since: r.failing_since,
            behind: true,
            last_number: r.last_number,
            retry_due: r.retry_due,
        })
        .collect())
}

/// Renews the leases of `lanes` and says which are still held. Lanes that an append holds locked right now are
/// being renewed by it.
///
/// # Errors
/// If the database does not answer.
pub async fn renew(
    database: &Database,
    node: NodeId,
    lanes: &[LaneKey],
) -> Result<Vec<LaneKey>, sqlx::Error> {
    let (workspaces, destinations) = columns(lanes);
    sqlx::query!("SELECT lanes_renew($1, $2, $3) AS x", node.uuid(), &workspaces, &destinations)
        .execute(&database.worker)
        .await?;
    // A statement of its own, so that nobody waits for it, and after it, so that it sees what whoever held a row locked has done.
    let rows = sqlx::query!(
        r#"SELECT workspace_id AS "workspace!: WorkspaceId", destination_id AS "destination!: DestinationId"
             FROM lanes_held($1, $2, $3)"#,
        node.uuid(),
        &workspaces,
        &destinations
    )
    .fetch_all(&database.worker)
    .await?;
    Ok(rows.into_iter().map(|r| LaneKey { workspace: r.workspace, destination: r.destination }).collect())
}

/// Lets go of a lane.
///
/// # Errors
/// If the database does not answer; then the lease runs out by itself.
pub async fn release(database: &Database, node: NodeId, key: LaneKey, fence: i64) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "SELECT lanes_release($1, $2, $3, $4) AS x",
        key.workspace.uuid(),
        key.destination.uuid(),
        node.uuid(),
        fence
    )
    .execute(&database.worker)
    .await?;
    Ok(())
}

pub(super) fn columns(lanes: &[LaneKey]) -> (Vec<uuid::Uuid>, Vec<uuid::Uuid>) {
    lanes.iter().map(|k| (k.workspace.uuid(), k.destination.uuid())).unzip()
}

/// A delivery's row.
struct Row {
    number: i64,
    ledger_id: LedgerId,
    seq: i64,
    receipt_id: ReceiptId,
    issued_at: i64,
    tree_size: i64,
    receipt_key: Vec<u8>,
    checkpoint_key: Vec<u8>,
    receipt_signature: Option<Vec<u8>>,
    checkpoint_signature: Option<Vec<u8>>,
    attempts: i32,
    base: Option<i64>,
}

/// What of a lane is wanted.
#[derive(Clone, Copy, Debug)]
pub enum Wanted {
    /// First attempts, from this number on.
    First {
        /// The first number wanted.
        from: i64,
    },
    /// Retries whose time has come.
    Retries,
    /// One delivery, whatever its state.
    One {
        /// Its number.
        number: i64,
    },
}

/// A job that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database.
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    /// The tree.
    #[error(transparent)]
    Tree(#[from] tree::Error),
    /// The openings.
    #[error(transparent)]
    Sealing(#[from] crate::sealing::Error),
    /// The keys.
    #[error(transparent)]
    Keyring(#[from] keyring::Error),
    /// A receipt that cannot be made.
    #[error(transparent)]
    Receipt(#[from] receipt::Error),
    /// A row that was tampered with.
    #[error("delivery {0} is damaged: {1}")]
    Damaged(i64, &'static str),
}

/// Reads at most `limit` jobs of a lane, in the order in which they are to start: the first `limit`, or as many of the
/// first as have 4 MiB.
///
/// # Errors
/// If the database does not answer, or what a job needs is missing.
pub async fn read_jobs(
    database: &Database,
    data_keys: &DataKeys,
    key: LaneKey,
    wanted: Wanted,
    limit: i64,
) -> Result<Read, Error> {
    let mut tx = database.workspace(key.workspace).await?;
    let rows = match wanted {
        Wanted::First { from } => {
            sqlx::query_as!(
                Row,
                r#"SELECT number, ledger_id AS "ledger_id: LedgerId", seq, receipt_id AS "receipt_id: ReceiptId",
                          issued_at, tree_size, receipt_key, checkpoint_key, receipt_signature,
                          checkpoint_signature, attempts, base
                     FROM deliveries
                    WHERE workspace_id = $1 AND destination_id = $2 AND number >= $3 AND state = 'pending'
                    ORDER BY number LIMIT $4"#,
                key.workspace.uuid(),
                key.destination.uuid(),
                from,
                limit
            )
            .fetch_all(&mut *tx)
            .await?
        }
        Wanted::Retries => {
            sqlx::query_as!(
                Row,
                r#"SELECT number, ledger_id AS "ledger_id: LedgerId", seq, receipt_id AS "receipt_id: ReceiptId",
                          issued_at, tree_size, receipt_key, checkpoint_key, receipt_signature,
                          checkpoint_signature, attempts, base
                     FROM deliveries
                    WHERE workspace_id = $1 AND destination_id = $2 AND state = 'retry' AND next_attempt_at <= now()
                    ORDER BY next_attempt_at, number LIMIT $3"#,
                key.workspace.uuid(),
                key.destination.uuid(),
                limit
            )
            .fetch_all(&mut *tx)
            .await?
        }
        Wanted::One { number } => {
            sqlx::query_as!(
                Row,
                r#"SELECT number, ledger_id AS "ledger_id: LedgerId", seq, receipt_id AS "receipt_id: ReceiptId",
                          issued_at, tree_size, receipt_key, checkpoint_key, receipt_signature,
                          checkpoint_signature, attempts, base
                     FROM deliveries WHERE workspace_id = $1 AND destination_id = $2 AND number = $3"#,
                key.workspace.uuid(),
                key.destination.uuid(),
                number
            )
            .fetch_all(&mut *tx)
            .await?
        }
    };
    let found = rows.len();
    let rows = at_once(&mut tx, key, rows).await?;
    let more = found as i64 == limit || rows.len() < found;
    Ok(Read { jobs: jobs(&mut tx, data_keys, key, rows).await?, more })
}

/// The first of the rows whose openings have no more than [`AT_ONCE`] bytes together, and at least one.
async fn at_once(tx: &mut WorkspaceTx, key: LaneKey, rows: Vec<Row>) -> Result<Vec<Row>, sqlx::Error> {
    let (ledgers, seqs): (Vec<uuid::Uuid>, Vec<i64>) =
        rows.iter().map(|r| (r.ledger_id.uuid(), r.seq)).unzip();
    // The length of a value stands before it: nothing of it is read.
    let lengths = sqlx::query_scalar!(
        r#"SELECT COALESCE(o.bytes, 0) AS "bytes!"
             FROM unnest($2::uuid[], $3::bigint[]) WITH ORDINALITY AS w (ledger_id, seq, n), LATERAL (
                   SELECT sum(octet_length(sealed)) AS bytes FROM openings
                    WHERE workspace_id = $1 AND ledger_id = w.ledger_id AND seq = w.seq) AS o ORDER BY w.n"#,
        key.workspace.uuid(),
        &ledgers,
        &seqs
    )
    .fetch_all(&mut **tx)
    .await?;
    let mut bytes = 0;
    let fit = lengths
        .iter()
        .take_while(|length| {
            bytes += **length;
            bytes <= AT_ONCE
        })
        .count();
    Ok(rows.into_iter().take(fit.max(1)).collect())
}

/// Reads what belongs to the rows: entries, openings, and the nodes of their proofs; four statements for all.
async fn jobs(
    tx: &mut WorkspaceTx,
    data_keys: &DataKeys,
    key: LaneKey,
    rows: Vec<Row>,
) -> Result<Vec<Job>, Error> {
    let mut by_ledger: BTreeMap<uuid::Uuid, Vec<Row>> = BTreeMap::new();
    for row in rows {
        by_ledger.entry(row.ledger_id.uuid()).or_default().push(row);
    }
    let mut jobs = Vec::new();
    for (ledger, rows) in by_ledger {
        let seqs: Vec<i64> = rows.iter().map(|r| r.seq).collect();
        // One look-up each: with `= ANY` the planner, which takes a ledger for one row, reads all of it and filters.
        let entries: HashMap<i64, Arc<str>> = sqlx::query!(
            r#"SELECT e.seq AS "seq!", e.entry AS "entry!" FROM unnest($3::bigint[]) AS w (seq), LATERAL (
                   SELECT seq, entry FROM entries
                    WHERE workspace_id = $1 AND ledger_id = $2 AND seq = w.seq OFFSET 0) AS e"#,
            key.workspace.uuid(),
            ledger,
            &seqs
        )
        .fetch_all(&mut **tx)
        .await?
        .into_iter()
        .map(|r| (r.seq, r.entry.into()))
        .collect();
        let openings = read_openings(tx, data_keys, key.workspace, LedgerId::from(ledger), &seqs).await?;
        let mut paths = Vec::with_capacity(rows.len());
        for row in &rows {
            paths.push(tree::inclusion(row.seq as u64, row.tree_size as u64)?);
        }
        let wanted =
            paths.iter().flatten().copied().chain(rows.iter().map(|r| Range::prefix(r.tree_size as u64)));
        let stored = Stored::read(&mut *tx, key.workspace, LedgerId::from(ledger), wanted).await?;
        let mut nodes = stored.remembering();
        for (row, path) in rows.into_iter().zip(paths) {
            let damaged = |what| Error::Damaged(row.number, what);
            let size = row.tree_size as u64;
            jobs.push(Job {
                attempts: row.attempts,
                entry: entries.get(&row.seq).cloned().ok_or_else(|| damaged("its entry is missing"))?,
                openings: openings.get(&row.seq).cloned().unwrap_or_default().into(),
                proof: nodes.hashes(&path)?.into(),
                root: nodes.root(Range::prefix(size))?,
                facts: Facts {
                    destination: key.destination,
                    number: row.number,
                    base: row.base.unwrap_or(0),
                    receipt: row.receipt_id,
                    ledger: row.ledger_id,
                    seq: row.seq as u64,
                    issued_at: row.issued_at,
                    tree_size: size,
                    receipt_key: row.receipt_key.as_slice().try_into().map_err(|_| damaged("its key id"))?,
                    checkpoint_key: row
                        .checkpoint_key
                        .as_slice()
                        .try_into()
                        .map_err(|_| damaged("its key id"))?,
                    signatures: match (&row.receipt_signature, &row.checkpoint_signature) {
                        (Some(receipt), Some(checkpoint)) => Some(Signatures {
                            receipt: receipt.as_slice().try_into().map_err(|_| damaged("its signature"))?,
                            checkpoint: checkpoint
                                .as_slice()
                                .try_into()
                                .map_err(|_| damaged("its signature"))?,
                        }),
                        _ => None,
                    },
                },
            });
        }
    }
    jobs.sort_by_key(|job| job.facts.number);
    Ok(jobs)
}

/// The openings of some entries, decrypted, by seq.
///
/// # Errors
/// If one does not open, or the database does not answer.
pub async fn read_openings(
    tx: &mut WorkspaceTx,
    data_keys: &DataKeys,
    workspace: WorkspaceId,
    ledger: LedgerId,
    seqs: &[i64],
) -> Result<HashMap<i64, Vec<Opening>>, crate::sealing::Error> {
    let rows = sqlx::query!(
        r#"SELECT o.seq AS "seq!", o.name AS "name!", o.sealed AS "sealed!"
             FROM unnest($3::bigint[]) AS w (seq), LATERAL (
                   SELECT seq, name, sealed FROM openings
                    WHERE workspace_id = $1 AND ledger_id = $2 AND seq = w.seq OFFSET 0) AS o
            ORDER BY o.seq, o.name"#,
        workspace.uuid(),
        ledger.uuid(),
        seqs
    )
    .fetch_all(&mut **tx)
    .await?;
    let mut openings: HashMap<i64, Vec<Opening>> = HashMap::new();
    if rows.is_empty() {
        return Ok(openings);
    }
    let data_key = data_keys.get(workspace).await?;
    for row in rows {
        let bytes = open_opening(&data_key, ledger, row.seq as u64, &row.name, &row.sealed)?;
        let text = Zeroizing::new(String::from_utf8_lossy(&bytes).into_owned());
        openings.entry(row.seq).or_default().push(Opening { name: row.name, canonical: text });
    }
    Ok(openings)
}

/// Fixes a delivery's receipt anew: another key, another time of issue, the same destination and number. For one
/// whose key was revoked or destroyed before it left.
///
/// # Errors
/// If the database does not answer.
pub async fn reissue(
    database: &Database,
    key: LaneKey,
    number: i64,
    issued_at: i64,
    receipt_key: &Hash,
    checkpoint_key: &Hash,
) -> Result<(), sqlx::Error> {
    let mut tx = database.workspace(key.workspace).await?;
    sqlx::query!(
        "UPDATE deliveries SET issued_at = $4, receipt_key = $5, checkpoint_key = $6,
                receipt_signature = NULL, checkpoint_signature = NULL
          WHERE workspace_id = $1 AND destination_id = $2 AND number = $3",
        key.workspace.uuid(),
        key.destination.uuid(),
        number,
        issued_at,
        &receipt_key[..],
        &checkpoint_key[..]
    )
    .execute(&mut *tx)
    .await?;
    tx.commit().await
}

/// Lanes signed for at once, and deliveries of one.
const UNSIGNED: i64 = 64;

/// Makes and stores the signatures of unsettled deliveries that name a key, so that the key can go. True when none is
/// left. A crash in between leaves some stored and the rest to be done: signing again gives the same bytes.
///
/// # Errors
/// If the database does not answer, or a delivery is damaged.
pub async fn sign_unsigned(
    database: &Database,
    data_keys: &DataKeys,
    ring: &Snapshot,
    key_id: &Hash,
) -> Result<bool, Error> {
    let waiting = sqlx::query!(
        r#"SELECT workspace_id AS "workspace: WorkspaceId", destination_id AS "destination: DestinationId", number
             FROM deliveries
            WHERE state IN ('pending', 'retry') AND receipt_signature IS NULL
              AND (receipt_key = $1 OR checkpoint_key = $1) LIMIT $2"#,
        &key_id[..],
        UNSIGNED
    )
    .fetch_all(&database.worker)
    .await?;
    let done = (waiting.len() as i64) < UNSIGNED;
    for row in waiting {
        let key = LaneKey { workspace: row.workspace, destination: row.destination };
        for job in read_jobs(database, data_keys, key, Wanted::One { number: row.number }, 1).await?.jobs {
            let facts = &job.facts;
            let note = ring
                .sign_checkpoint(&facts.checkpoint_key, facts.ledger, facts.tree_size, job.root)
                .map_err(receipt::Error::from)?;
            let note = receipt::Note::new(note);
            let made = receipt::body(ring, facts, &job.entry, &job.proof, &note, &[], Mode::Evidence)?;
            sqlx::query!(
                "UPDATE deliveries SET receipt_signature = $4, checkpoint_signature = $5
                  WHERE workspace_id = $1 AND destination_id = $2 AND number = $3
                    AND receipt_key = $6 AND checkpoint_key = $7",
                key.workspace.uuid(),
                key.destination.uuid(),
                facts.number,
                &made.signatures.receipt[..],
                &made.signatures.checkpoint[..],
                &facts.receipt_key[..],
                &facts.checkpoint_key[..]
            )
            .execute(&database.worker)
            .await?;
        }
    }
    Ok(done)
}

/// A destination's row, as its lane needs it.
#[derive(Clone, Debug)]
pub struct Configured {
    /// Where to, sealed.
    pub url: Option<Vec<u8>>,
    /// Whether notifications carry openings.
    pub openings: bool,
    /// Attempts at once, at most.
    pub max_in_flight: usize,
    /// The sealed secret in use.
    pub secret: Option<Vec<u8>>,
    /// The sealed one before, while it is still valid.
    pub previous: Option<Previous>,
}

/// A destination's secret that another has replaced.
#[derive(Clone, Debug)]
pub struct Previous {
    /// Sealed.
    pub secret: Vec<u8>,
    /// How long it is still valid, from when it was read.
    pub left: Duration,
}

/// A ledger, and how often its workspace's destinations have changed. None of a workspace that has ended.
pub type RoutesVersion = Option<(LedgerId, i64)>;

/// Reads the destinations of a workspace that take something, and the count of changes at which they were so.
///
/// # Errors
/// If the database does not answer.
pub async fn configured(
    database: &Database,
    workspace: WorkspaceId,
) -> Result<(RoutesVersion, HashMap<DestinationId, Configured>), sqlx::Error> {
    let mut tx = database.workspace(workspace).await?;
    // The count first: what is changed in between is read with the older one, and found the next time it is asked for.
    let version = sqlx::query!(
        r#"SELECT h.ledger_id AS "ledger: LedgerId", h.routes FROM heads h JOIN workspaces w USING (workspace_id, ledger_id)
            WHERE h.workspace_id = $1 AND w.deleted_at IS NULL"#,
        workspace.uuid()
    )
    .fetch_optional(&mut *tx)
    .await?;
    let Some(version) = version else { return Ok((None, HashMap::new())) };
    let rows = sqlx::query!(
        r#"SELECT destination_id AS "destination: DestinationId", url, openings, max_in_flight, secret, previous_secret,
                  extract(epoch FROM previous_secret_until - now())::float8 AS previous_left
             FROM destinations WHERE workspace_id = $1 AND disabled_at IS NULL AND deleted_at IS NULL"#,
        workspace.uuid()
    )
    .fetch_all(&mut *tx)
    .await?;
    let rows = rows.into_iter().map(|r| {
        let left = r.previous_left.and_then(|left| Duration::try_from_secs_f64(left).ok());
        let configured = Configured {
            url: r.url,
            openings: r.openings,
            max_in_flight: r.max_in_flight.max(1) as usize,
            secret: r.secret,
            previous: r.previous_secret.zip(left).map(|(secret, left)| Previous { secret, left }),
        };
        (r.destination, configured)
    });
    Ok((Some((version.ledger, version.routes)), rows.collect()))
}

/// How often the destinations of workspaces have changed. One that has ended is not in it.
///
/// # Errors
/// If the database does not answer.
pub async fn routes_of(
    database: &Database,
    workspaces: &[WorkspaceId],
) -> Result<HashMap<WorkspaceId, (LedgerId, i64)>, sqlx::Error> {
    let ids: Vec<uuid::Uuid> = workspaces.iter().map(|id| id.uuid()).collect();
    let rows = sqlx::query!(
        r#"SELECT h.workspace_id AS "workspace: WorkspaceId", h.ledger_id AS "ledger: LedgerId", h.routes
             FROM heads h JOIN workspaces w USING (workspace_id, ledger_id)
            WHERE h.workspace_id = ANY($1) AND w.deleted_at IS NULL"#,
        &ids
    )
    .fetch_all(&database.worker)
    .await?;
    Ok(rows.into_iter().map(|r| (r.workspace, (r.ledger, r.routes))).collect())
}

/// Destroys retired private keys that nothing needs any more: every delivery that names the key is settled or has its
/// signatures stored, which is seen to here. A crash in between leaves the key until the next time.
///
/// # Errors
/// If the database does not confirm.
pub async fn destroy_retired(
    keyring: &Keyring,
    writer: &Writer,
    instance: &crate::instance::Instance,
) -> Result<(), Error> {
    let snapshot = keyring.current();
    let ring = snapshot.ring();
    let retired: Vec<statusledger_keys::key_id::KeyId> = ring
        .keys()
        .iter()
        .filter(|k| k.purpose != KeyPurpose::Root && k.not_after.is_some() && ring.holds_private(k.key_id))
        .map(|k| k.key_id)
        .collect();
    for key_id in retired {
        if !sign_unsigned(writer.database(), writer.data_keys(), &snapshot, &key_id.0).await? {
            continue;
        }
        keyring
            .change(writer, &Act::system(), instance.workspace, |ring, _| Ok((ring.destroy(key_id)?, ())))
            .await?;
        tracing::info!(key_id = %key_id, "a retired key was destroyed");
    }
    Ok(())
}
