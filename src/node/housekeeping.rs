//! What is looked after from time to time: what has expired is removed, keys are rotated when they are due.

use super::watch_over::{Watched, remember_acknowledged};
use crate::access::ended;
use crate::audit::Act;
use crate::delivery::queue;
use statusledger_keys::ring::{DueWork, Rotation};
use statusledger_keys::signing::KeyPurpose;
use statusledger_verify::time::Timestamp;

pub(super) async fn housekeeping(watched: &Watched) {
    remember_acknowledged(&watched.writer, &watched.seen_heads).await;
    let expired = sqlx::query!("DELETE FROM idempotency_keys WHERE expires_at < now()")
        .execute(&watched.database.worker)
        .await;
    if let Err(e) = expired {
        tracing::debug!(error = %e, "expired idempotency keys stay for now");
    }
    let expired = sqlx::query!("DELETE FROM request_keys WHERE expires_at < now()")
        .execute(&watched.database.worker)
        .await;
    if let Err(e) = expired {
        tracing::debug!(error = %e, "expired answers to idempotency keys stay for now");
    }
    // Longer than a store goes on repeating an event.
    let old = sqlx::query!("DELETE FROM store_events WHERE received_at < now() - interval '90 days'")
        .execute(&watched.database.worker)
        .await;
    if let Err(e) = old {
        tracing::debug!(error = %e, "old events of the stores stay for now");
    }
    let stale =
        sqlx::query!("DELETE FROM sign_ins WHERE expires_at < now()").execute(&watched.database.worker).await;
    if let Err(e) = stale {
        tracing::debug!(error = %e, "sign-ins that were not finished stay for now");
    }
    if let Err(e) = ended::remove(&watched.database).await {
        tracing::debug!(error = %e, "sessions, links and invitations that ended long ago stay for now");
    }
    if let Err(e) = watched.keyring.reload().await {
        tracing::warn!(error = %e, "the key ring cannot be read again");
        return;
    }
    let now = Timestamp::now();
    for due in watched.keyring.current().ring().due(now) {
        if due.root_is_offline {
            tracing::warn!(at = %due.at, work = ?due.work, "the keys need the offline root: `statusledger keys rotate --root FILE`");
            continue;
        }
        if !due.now {
            continue;
        }
        let done = watched
            .keyring
            .change(&watched.writer, &Act::system(), watched.instance.workspace, |ring, now| {
                // Another node may have done it meanwhile.
                let still = ring.due(now).iter().any(|d| d.work == due.work && d.now);
                let change = match due.work {
                    _ if !still => ring.republish(now)?,
                    DueWork::Rotate(KeyPurpose::Checkpoint) => ring.rotate(Rotation::Checkpoint, now)?,
                    DueWork::Rotate(_) => ring.rotate(Rotation::Receipt, now)?,
                    DueWork::Republish => ring.republish(now)?,
                };
                Ok((change, ()))
            })
            .await;
        match done {
            Ok(()) => tracing::info!(work = ?due.work, "the keys were renewed"),
            Err(e) => tracing::error!(error = %e, work = ?due.work, "the keys could not be renewed"),
        }
    }
    if let Err(e) = queue::destroy_retired(&watched.keyring, &watched.writer, &watched.instance).await {
        tracing::warn!(error = %e, "retired keys are not destroyed yet");
    }
}
