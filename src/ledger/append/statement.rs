//! The statements: one call of the SQL function for a batch, one for the batches of several ledgers.

use super::shared_commit::{Job, Sender};
use crate::database::server::Server;
use crate::delivery::Lane;
use crate::id::{DestinationId, NodeId};
use crate::keyring::Snapshot;
use crate::ledger::batch::{Batch, Head};
use crate::ledger::draft::IdempotencyKey;
use sqlx::PgConnection;
use std::collections::HashMap;

/// What the SQL function says where an append reaches a server that its node has not compared with what was signed.
pub(super) const UNCOMPARED: &str = "SL005";

/// What an append learned of the lanes that its deliveries joined.
pub(super) type Lanes = HashMap<DestinationId, Lane>;

/// Whether an append was refused since its server's histories are not compared with what was signed.
pub(super) fn is_uncompared(e: &sqlx::Error) -> bool {
    matches!(e, sqlx::Error::Database(d) if d.code().as_deref() == Some(UNCOMPARED))
}

/// Sends a batch to the SQL function. A crash before its commit leaves nothing, after it everything.
pub(super) async fn write(
    connection: &mut PgConnection,
    batch: &Batch,
    keys: &[(usize, IdempotencyKey)],
    ring: &Snapshot,
    node: Option<NodeId>,
    compared: Option<&Server>,
) -> Result<Lanes, sqlx::Error> {
    let (before, after) = (&batch.before, &batch.after);
    let seq = |position: usize| before.frontier.size() as i64 + position as i64;
    let leaves: Vec<&[u8]> = batch.entries.iter().map(|e| e.leaf.as_slice()).collect();
    let types: Vec<&str> = batch.entries.iter().map(|e| entry_type(&e.entry)).collect();
    let entries: Vec<&str> = batch.entries.iter().map(|e| &*e.entry).collect();
    let opening_seqs: Vec<i64> = batch.sealed.iter().map(|(p, _, _)| seq(*p)).collect();
    let opening_names: Vec<&str> = batch.sealed.iter().map(|(_, name, _)| name.as_str()).collect();
    let openings: Vec<&[u8]> = batch.sealed.iter().map(|(_, _, sealed)| sealed.as_slice()).collect();
    let node_hashes: Vec<&[u8]> = batch.nodes.hashes.iter().map(Vec::as_slice).collect();
    let key_sources: Vec<uuid::Uuid> = keys.iter().map(|(_, k)| k.source.uuid()).collect();
    let key_names: Vec<&str> = keys.iter().map(|(_, k)| k.key.as_str()).collect();
    let key_hashes: Vec<&[u8]> = keys.iter().map(|(_, k)| k.body_hash.as_slice()).collect();
    let key_seqs: Vec<i64> = keys.iter().map(|(p, _)| seq(*p)).collect();
    let destinations: Vec<uuid::Uuid> = batch.deliveries.iter().map(|d| d.destination.uuid()).collect();
    let delivery_seqs: Vec<i64> = batch.deliveries.iter().map(|d| seq(d.position)).collect();
    let receipts: Vec<uuid::Uuid> = batch.deliveries.iter().map(|d| d.receipt.uuid()).collect();
    let rows = sqlx::query!(
        r#"SELECT destination_id AS "destination!: DestinationId", before_first AS "before_first!",
                  held AS "held!", fence AS "fence!", sent_through AS "sent_through!", failing_since,
                  base
             FROM ledger_append($1, $2, $3, $4, $5, $6, $7, $8, $9::bytea[], $10::text[], $11::text[],
                  $12::bigint[], $13::text[], $14::bytea[], $15::smallint[], $16::bigint[], $17::bytea[],
                  $18::uuid[], $19::text[], $20::bytea[], $21::bigint[], $22::uuid[], $23::bigint[], $24::uuid[],
                  $25, $26, $27, $28, $29, $30)"#,
        before.workspace.uuid(),
        before.ledger.uuid(),
        before.frontier.size() as i64,
        &before.leaf[..],
        before.routes.version,
        &after.leaf[..],
        after.frontier.hashes().concat(),
        after.recorded_at,
        &leaves as &[&[u8]],
        &types as &[&str],
        &entries as &[&str],
        &opening_seqs,
        &opening_names as &[&str],
        &openings as &[&[u8]],
        &batch.nodes.levels,
        &batch.nodes.tiles,
        &node_hashes as &[&[u8]],
        &key_sources,
        &key_names as &[&str],
        &key_hashes as &[&[u8]],
        &key_seqs,
        &destinations,
        &delivery_seqs,
        &receipts,
        ring.serial(),
        &ring.receipt_key_id()[..],
        &ring.checkpoint_key_id()[..],
        node.map(NodeId::uuid),
        compared.map(|server| server.started_at),
        compared.map(|server| server.tables),
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|r| {
            let lane = Lane {
                before_first: r.before_first,
                held: r.held,
                fence: r.fence,
                sent_through: r.sent_through,
                failing_since: r.failing_since,
                base: r.base.unwrap_or(0),
            };
            (r.destination, lane)
        })
        .collect())
}

/// Sends batches of several ledgers to the SQL function; the lanes of each that was written, in their order. A crash
/// before its commit leaves nothing of any, after it everything.
pub(super) async fn write_several(
    connection: &mut PgConnection,
    jobs: &[&Job],
    by: &Sender,
) -> Result<Vec<Option<Lanes>>, sqlx::Error> {
    let Some(first) = jobs.first() else { return Ok(Vec::new()) };
    let each = |count: fn(&Job) -> usize| jobs.iter().map(|job| count(job) as i32).collect::<Vec<_>>();
    let before: Vec<&Head> = jobs.iter().map(|job| &job.batch.before).collect();
    let after: Vec<&Head> = jobs.iter().map(|job| &job.batch.after).collect();
    let seq = |job: &Job, position: usize| job.batch.before.frontier.size() as i64 + position as i64;
    let joined = |of: for<'a> fn(&'a str) -> &'a str| -> Vec<String> {
        let of_one =
            |job: &&Job| job.batch.entries.iter().map(|e| of(&e.entry)).collect::<Vec<_>>().join("\u{1e}");
        jobs.iter().map(of_one).collect()
    };
    let leaves: Vec<Vec<u8>> =
        jobs.iter().map(|job| job.batch.entries.iter().flat_map(|e| e.leaf).collect()).collect();
    let sealed = || jobs.iter().flat_map(|job| job.batch.sealed.iter().map(move |sealed| (*job, sealed)));
    let nodes = || jobs.iter().map(|job| &job.batch.nodes);
    let keys = || jobs.iter().flat_map(|job| job.keys.iter().map(move |key| (*job, key)));
    let deliveries = || jobs.iter().flat_map(|job| job.batch.deliveries.iter().map(move |d| (*job, d)));
    let rows = sqlx::query!(
        r#"SELECT place AS "place!", destination_id AS "destination_id: DestinationId", before_first, held, fence,
                  sent_through, failing_since, base
             FROM ledger_append_several($1, $2, $3, $4, $5, $6, $7, $8, $9::bytea[], $10::text[], $11::text[],
                  $12, $13, $14::text[], $15::bytea[], $16, $17::smallint[], $18::bigint[], $19::bytea[],
                  $20, $21::uuid[], $22::text[], $23::bytea[], $24::bigint[],
                  $25, $26::uuid[], $27::bigint[], $28::uuid[], $29, $30, $31, $32, $33, $34)"#,
        &before.iter().map(|h| h.workspace.uuid()).collect::<Vec<_>>(),
        &before.iter().map(|h| h.ledger.uuid()).collect::<Vec<_>>(),
        &before.iter().map(|h| h.frontier.size() as i64).collect::<Vec<_>>(),
        &before.iter().map(|h| h.leaf.as_slice()).collect::<Vec<_>>() as &[&[u8]],
        &before.iter().map(|h| h.routes.version).collect::<Vec<_>>(),
        &after.iter().map(|h| h.leaf.as_slice()).collect::<Vec<_>>() as &[&[u8]],
        &after.iter().map(|h| h.frontier.hashes().concat()).collect::<Vec<_>>(),
        &after.iter().map(|h| h.recorded_at).collect::<Vec<_>>(),
        &leaves,
        &joined(entry_type),
        &joined(|entry| entry),
        &each(|job| job.batch.sealed.len()),
        &sealed().map(|(job, (p, _, _))| seq(job, *p)).collect::<Vec<_>>(),
        &sealed().map(|(_, (_, name, _))| name.as_str()).collect::<Vec<_>>() as &[&str],
        &sealed().map(|(_, (_, _, sealed))| sealed.as_slice()).collect::<Vec<_>>() as &[&[u8]],
        &each(|job| job.batch.nodes.levels.len()),
        &nodes().flat_map(|n| &n.levels).copied().collect::<Vec<_>>(),
        &nodes().flat_map(|n| &n.tiles).copied().collect::<Vec<_>>(),
        &nodes().flat_map(|n| &n.hashes).map(Vec::as_slice).collect::<Vec<_>>() as &[&[u8]],
        &each(|job| job.keys.len()),
        &keys().map(|(_, (_, key))| key.source.uuid()).collect::<Vec<_>>(),
        &keys().map(|(_, (_, key))| key.key.as_str()).collect::<Vec<_>>() as &[&str],
        &keys().map(|(_, (_, key))| key.body_hash.as_slice()).collect::<Vec<_>>() as &[&[u8]],
        &keys().map(|(job, (p, _))| seq(job, *p)).collect::<Vec<_>>(),
        &each(|job| job.batch.deliveries.len()),
        &deliveries().map(|(_, d)| d.destination.uuid()).collect::<Vec<_>>(),
        &deliveries().map(|(job, d)| seq(job, d.position)).collect::<Vec<_>>(),
        &deliveries().map(|(_, d)| d.receipt.uuid()).collect::<Vec<_>>(),
        first.ring.serial(),
        &first.ring.receipt_key_id()[..],
        &first.ring.checkpoint_key_id()[..],
        by.node.map(NodeId::uuid),
        by.compared.as_ref().map(|server| server.started_at),
        by.compared.as_ref().map(|server| server.tables),
    )
    .fetch_all(connection)
    .await?;
    let mut written: Vec<Option<Lanes>> = jobs.iter().map(|_| None).collect();
    for row in rows {
        let place = row.place as usize;
        let slot = place.checked_sub(1).and_then(|at| written.get_mut(at));
        let lanes = slot.ok_or_else(|| sqlx::Error::Decode(format!("batch {place} of another").into()))?;
        let lanes = lanes.get_or_insert_default();
        let (Some(destination), Some(before_first), Some(held), Some(fence), Some(sent_through)) =
            (row.destination_id, row.before_first, row.held, row.fence, row.sent_through)
        else {
            continue;
        };
        let (failing_since, base) = (row.failing_since, row.base.unwrap_or(0));
        lanes.insert(destination, Lane { before_first, held, fence, sent_through, failing_since, base });
    }
    Ok(written)
}

/// The type of an entry of ours: it stands between the last `"type":"` and `","v":1}`.
pub(crate) fn entry_type(entry: &str) -> &str {
    let end = entry.len().saturating_sub(r#"","v":1}"#.len());
    let start = entry[..end].rfind('"').map_or(0, |at| at + 1);
    &entry[start..end]
}
