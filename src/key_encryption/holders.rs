//! Which node holds which key-encryption keys.
//!
//! A node says so before it reads which key is in use, and again every few seconds while it serves. A change of the key
//! looks at what was said, in the transaction of the change: either it sees the node, or the node waits for the change
//! and sees that.

use super::{Error, KeyEncryption};
use crate::database::Database;
use crate::id::NodeId;
use sqlx::PgConnection;
use statusledger_keys::sealing::SealingKeyId;
use std::time::Duration;
use tokio::sync::watch;

/// How often a node looks whether there is a new wrapped key, and says what it holds.
const TELL_EVERY: Duration = Duration::from_secs(2);
/// After how long in silence a node counts as gone, in seconds: many times [`TELL_EVERY`], for a database that does not
/// answer at once.
const GONE_AFTER_S: f64 = 30.0;

/// Says what the node holds.
///
/// # Errors
/// If the database does not answer.
pub async fn tell(database: &Database, node: NodeId, keys: &KeyEncryption) -> Result<(), sqlx::Error> {
    let held: Vec<Vec<u8>> = keys.held().ids().iter().map(|id| id.as_bytes().to_vec()).collect();
    sqlx::query!(
        "INSERT INTO key_encryption_holders (node_id, key_ids, seen_at) VALUES ($1, $2, now())
         ON CONFLICT (node_id) DO UPDATE SET key_ids = excluded.key_ids, seen_at = excluded.seen_at",
        node.uuid(),
        &held[..]
    )
    .execute(&database.service)
    .await?;
    Ok(())
}

/// Forgets nodes that have not been heard of for a day.
///
/// # Errors
/// If the database does not answer.
pub async fn forget_gone(database: &Database) -> Result<(), sqlx::Error> {
    sqlx::query!("DELETE FROM key_encryption_holders WHERE seen_at < now() - interval '1 day'")
        .execute(&database.service)
        .await?;
    Ok(())
}

/// Says that the node holds nothing any more: it has stopped.
///
/// # Errors
/// If the database does not answer.
pub async fn leave(database: &Database, node: NodeId) -> Result<(), sqlx::Error> {
    sqlx::query!("DELETE FROM key_encryption_holders WHERE node_id = $1", node.uuid())
        .execute(&database.service)
        .await?;
    Ok(())
}

/// The serving nodes that do not hold `key`.
///
/// # Errors
/// If the database does not answer.
pub async fn without(connection: &mut PgConnection, key: SealingKeyId) -> Result<Vec<NodeId>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT node_id AS "node: NodeId" FROM key_encryption_holders
            WHERE seen_at > now() - make_interval(secs => $2) AND NOT ($1 = ANY (key_ids)) ORDER BY 1"#,
        &key.as_bytes()[..],
        GONE_AFTER_S
    )
    .fetch_all(connection)
    .await
}

/// Learns of wrapped keys and says what the node holds, until it stops.
pub async fn keep(
    database: Database,
    node: NodeId,
    instance: String,
    keys: KeyEncryption,
    mut stop: watch::Receiver<bool>,
) {
    let mut tick = tokio::time::interval(TELL_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // What was said last of the keys that do not unwrap, so that it is not said every time.
    let mut told = String::new();
    loop {
        tokio::select! {
            _ = stop.changed() => break,
            _ = tick.tick() => {}
        }
        let learnt: Result<_, Error> = async {
            let failed = keys.learn(&database, &instance).await?;
            tell(&database, node, &keys).await?;
            Ok(failed)
        }
        .await;
        let now = match learnt {
            Ok(failed) => failed.iter().map(|(key, e)| format!("{key}: {e}")).collect::<Vec<_>>().join("; "),
            Err(e) => {
                tracing::debug!(error = %e, "the key-encryption keys cannot be looked at");
                continue;
            }
        };
        if now != told && !now.is_empty() {
            tracing::warn!(error = %now, "wrapped key-encryption keys cannot be unwrapped");
        }
        told = now;
    }
    if let Err(e) = leave(&database, node).await {
        tracing::debug!(error = %e, "the node counts as serving for a little longer");
    }
}
