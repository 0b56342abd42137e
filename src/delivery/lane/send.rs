//! One attempt: how its destination is set, what its body is, and the sending of it.

use super::Done;
use crate::delivery::channels::webhook;
use crate::delivery::configuration::Settings;
use crate::delivery::dispatcher::Shared;
use crate::delivery::queue::Job;
use crate::ledger::checkpoint::SignedTree;
use crate::receipt;
use statusledger_verify::Mode;
use std::sync::Arc;
use std::time::Duration;
use time::OffsetDateTime;

/// Makes the body and sends it. The checkpoint in it is on this node's disk before it leaves.
pub(super) async fn send(shared: Arc<Shared>, settings: Arc<Settings>, job: Job) -> Done {
    let started_at = OffsetDateTime::now_utc();
    let made = match make_body(&shared, &settings, &job) {
        Ok(made) => made,
        Err(error) => return Done::Unmade { job: Box::new(job), started_at, error },
    };
    let tree = SignedTree { size: job.facts.tree_size, root: job.root };
    if let Err(e) = shared.seen_heads.remember(job.facts.ledger, tree).await {
        tracing::error!(error = %e, "this node cannot remember what it hands out; nothing leaves");
        let attempt = not_made("the service cannot keep its own record; the operator's log says why");
        return Done::Sent { job: Box::new(job), started_at, attempt, signatures: None };
    }
    let id = job.facts.receipt.to_string();
    let attempt = shared
        .sender
        .send(webhook::Message {
            url: &settings.url,
            id: &id,
            timestamp: OffsetDateTime::now_utc().unix_timestamp(),
            secrets: settings.secrets(),
            headers: &webhook::CustomHeaders::default(),
            body: made.body.into(),
        })
        .await;
    if let Some(detail) = &attempt.detail {
        // Scheme and host only: the rest of an address can hold a token.
        let to = settings.url.origin().ascii_serialization();
        tracing::debug!(destination = %job.facts.destination, number = job.facts.number, to, detail, "an attempt failed");
    }
    Done::Sent { job: Box::new(job), started_at, attempt, signatures: Some(made.signatures) }
}

/// An attempt that ended before anything was sent.
pub(super) fn not_made(error: &'static str) -> webhook::Attempt {
    webhook::Attempt {
        outcome: webhook::Outcome::Failed,
        status: None,
        duration: Duration::ZERO,
        answer: String::new(),
        error: Some(error),
        detail: None,
    }
}

fn make_body(shared: &Shared, settings: &Settings, job: &Job) -> Result<receipt::Made, receipt::Error> {
    let ring = shared.keyring.current();
    let note = shared.note(&ring, &job.facts, job.root)?;
    let openings = job.openings_for(settings.openings);
    receipt::body(&ring, &job.facts, &job.entry, &job.proof, &note, openings, Mode::Fresh)
}
