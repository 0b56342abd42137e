//! Rollouts, which Google shows in an edit alone.
//!
//! An edit is a draft of changes to an app. Opening one changes nothing that users see, but it ends the edit that the
//! same account has open for the same app: an upload that is in it is lost. So edits are off unless a source switches
//! them on, naming the account that it gives up for this ([`WARNING`]). An edit of ours is opened, read once and
//! discarded; it is never written to and never committed.
//!
//! A crash leaves an edit open. So its id is kept before it is used ([`EditLog`]) and an edit that is found there
//! later is discarded. One whose id was never heard (the answer was lost) cannot be: the next edit of the app ends
//! it, or the store's own expiry, a matter of hours.
//!
//! Whether somebody else uses the account cannot be asked. What can be seen is that an edit of ours ended under our
//! hands: another edit by the same account does that, and so do a change in the Play Console and another account's
//! commit. The first is the one that breaks uploads, so that edits stop at the first such sign, and a person decides
//! ([`TAKEN_OVER_ADVICE`]).

use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;

use super::answer::{EditTracks, is_edit_id, is_package};
use super::client::PlayClient;
use crate::source::fetch::{ForbiddenCause, StoreError};

/// What whoever switches edits on has to read.
pub const WARNING: &str = "Reading rollouts opens an edit of each app, again and again, and discards it. Google lets an \
    account have one open edit an app: a new one ends the one before. With the service account that your CI uploads \
    with, uploads will fail. Use a service account that nothing else uses, and repeat its client_email as \
    dedicated_account. The edits are never written to and never committed.";

/// The code of [`StoreError::Forbidden`] where an edit of ours was ended by somebody else. Until a person has looked
/// into it, this client opens no other.
pub const TAKEN_OVER: &str = "editTakenOver";

/// What to do about [`TAKEN_OVER`].
pub const TAKEN_OVER_ADVICE: &str = "An edit that reads rollouts was ended by somebody else while it was open. Most \
    likely something else uses the same service account; its uploads fail while rollouts are read. Give this source a \
    service account of its own, or switch rollout_by_edits off. If the app was being changed in the Play Console at \
    that moment, or another account published, this was harmless: switch \
    rollout_by_edits off and on again.";

/// The code of [`StoreError::Forbidden`] where edits are asked for that nobody switched on.
pub const NOT_SWITCHED_ON: &str = "editsNotSwitchedOn";

/// The code of [`StoreError::Refused`] where an edit of ours was ended by another node of ours, or has expired: the next
/// look opens another.
pub const REPLACED: &str = "editReplaced";

/// For how long an edit that is gone cannot just have expired. Google's last for hours.
const FRESH: Duration = Duration::from_secs(300);

/// How many requests an edit may take: open, read, read again, discard, and one again with a new token.
const REQUESTS: u32 = 5;

/// Why the record of open edits failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the record of open edits failed: {0}")]
pub struct EditLogError(
    /// What the record said.
    pub String,
);

/// The record of the edits that one source has open, durable and shared by all nodes.
pub trait EditLog: Send + Sync {
    /// Records that an edit is open. It is durable when this returns, and used only then.
    fn opened<'a>(&'a self, package: &'a str, edit: &'a str) -> BoxFuture<'a, Result<(), EditLogError>>;

    /// Records that an edit is gone. One that is not in the record is no error.
    fn closed<'a>(&'a self, package: &'a str, edit: &'a str) -> BoxFuture<'a, Result<(), EditLogError>>;

    /// The edits of an app that are in the record: of this node, of others, of one that died.
    fn left_open<'a>(&'a self, package: &'a str) -> BoxFuture<'a, Result<Vec<String>, EditLogError>>;
}

/// Whether rollouts are read.
#[derive(Clone, Copy)]
pub enum EditsMode<'a> {
    /// They are not: no edit is opened.
    Off,
    /// They are, and what is open is recorded here.
    On(&'a dyn EditLog),
}

impl EditsMode<'_> {
    /// Whether edits are opened.
    pub fn is_on(&self) -> bool {
        matches!(self, Self::On(_))
    }
}

/// Discards an edit that was left open. One that is gone already is discarded. (A client that may open no edits may
/// still do this: edits may have been switched off since.)
///
/// # Errors
/// If the store does not confirm; the edit is to be kept in the record and tried again. [`StoreError::Malformed`]
/// where the id cannot be Google's; nothing was sent.
pub async fn delete_leftover(client: &PlayClient, package: &str, edit: &str) -> Result<(), StoreError> {
    if !is_package(package) || !is_edit_id(edit) {
        return Err(StoreError::Malformed { what: "the edit to discard" });
    }
    match client.delete_edit(package, edit).await {
        Err(e) if !is_gone(&e) => Err(e),
        _ => Ok(()),
    }
}

/// What an edit shows of an app. The edit is discarded before this returns; where that fails it stays in the record,
/// and what was read is returned with the failure.
pub(super) async fn read(
    client: &PlayClient,
    log: &dyn EditLog,
    package: &str,
) -> Result<(EditTracks, Result<(), StoreError>), StoreError> {
    if !client.may_edit() {
        return Err(not_switched_on());
    }
    if !is_package(package) {
        return Err(StoreError::Malformed { what: "the package to open an edit of" });
    }
    let _turn = client.edit_turn.lock().await;
    if client.edit_was_taken_over() {
        return Err(forbidden(TAKEN_OVER));
    }
    for left in log.left_open(package).await.map_err(unrecorded)? {
        discard(client, log, package, &left).await?;
    }
    client.afford(REQUESTS)?;
    let edit = client.insert_edit(package).await?;
    let begun = Instant::now();
    if let Err(e) = log.opened(package, &edit).await {
        // Not recorded: now or never. What was not recorded is what is reported.
        let _ = delete_leftover(client, package, &edit).await;
        return Err(unrecorded(e));
    }
    let mut tracks = client.edit_tracks(package, &edit).await;
    if tracks.as_ref().is_err_and(is_gone) {
        // A store that says once that something is gone may be wrong.
        tracks = client.edit_tracks(package, &edit).await;
    }
    if tracks.as_ref().is_err_and(is_gone) && begun.elapsed() < FRESH {
        let recorded = log.left_open(package).await.map_err(unrecorded)?;
        log.closed(package, &edit).await.map_err(unrecorded)?;
        if recorded != [edit] {
            // Another node opened one, or found ours and discarded it: nobody but us.
            return Err(StoreError::Refused { status: 404, code: REPLACED.to_owned() });
        }
        client.note_edit_taken_over();
        return Err(forbidden(TAKEN_OVER));
    }
    let discarded = discard(client, log, package, &edit).await;
    match tracks {
        Err(e) if is_gone(&e) => Err(StoreError::Refused { status: 404, code: REPLACED.to_owned() }),
        tracks => Ok((tracks?, discarded)),
    }
}

async fn discard(
    client: &PlayClient,
    log: &dyn EditLog,
    package: &str,
    edit: &str,
) -> Result<(), StoreError> {
    delete_leftover(client, package, edit).await?;
    log.closed(package, edit).await.map_err(unrecorded)
}

/// Whether an answer about an edit says that it is no more. Google says so with 404, with 410, and with 400 where the
/// edit was deleted or has expired; a 404 for the app is another thing.
fn is_gone(error: &StoreError) -> bool {
    match error {
        StoreError::NotFound { code } => code != "applicationNotFound",
        StoreError::Refused { status, .. } => *status == 400,
        _ => false,
    }
}

/// What is said where an edit is asked for that nobody switched on.
pub(super) fn not_switched_on() -> StoreError {
    forbidden(NOT_SWITCHED_ON)
}

fn forbidden(code: &str) -> StoreError {
    StoreError::Forbidden { cause: ForbiddenCause::Other, code: code.to_owned() }
}

fn unrecorded(error: EditLogError) -> StoreError {
    StoreError::Setup { reason: error.to_string() }
}

#[cfg(test)]
#[path = "edits_tests.rs"]
mod tests;
