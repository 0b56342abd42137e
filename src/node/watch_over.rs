//! Watches the database: whether it is still the server whose histories were compared with what was signed.

use super::housekeeping::housekeeping;
use super::readiness::{Readiness, Reason, look_at_clock};
use crate::database::server::Server;
use crate::database::{self, Database};
use crate::id::NodeId;
use crate::instance::Instance;
use crate::keyring::Keyring;
use crate::ledger::checkpoint;
use crate::ledger::seen_heads::{Place, SeenHeads};
use crate::ledger::{Writer, history};
use crate::{peers, workspace};
use anyhow::{Result, bail};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How often the database is asked whether it is still the same one.
const WATCH_EVERY: Duration = Duration::from_secs(2);
/// How often the keys are looked at for what is due, and expired idempotency keys are removed.
const HOUSEKEEPING_EVERY: Duration = Duration::from_secs(60);

pub(super) struct Watched {
    pub database: Database,
    pub keyring: Keyring,
    pub writer: Writer,
    pub seen_heads: SeenHeads,
    pub instance: Instance,
    pub node: NodeId,
    pub readiness: Readiness,
    pub stop: watch::Receiver<bool>,
}

/// Watches the database, and beside that keeps house. Ends when the node stops, or must not serve any more.
pub(super) async fn watch_over(watched: Watched) -> Result<()> {
    tokio::select! {
        ended = watch_database(&watched) => ended,
        () = keep_house(&watched) => Ok(()),
    }
}

/// Looks after what has to be looked after, until the node stops.
async fn keep_house(watched: &Watched) {
    let mut stop = watched.stop.clone();
    let mut tick = tokio::time::interval(HOUSEKEEPING_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = stop.changed() => return,
            _ = tick.tick() => {}
        }
        // What was not done is done the next time.
        if tokio::time::timeout(HOUSEKEEPING_EVERY, housekeeping(watched)).await.is_err() {
            tracing::warn!("the database does not answer what has to be looked after");
        }
        // By itself: it may be much, and what else there is to do is done before.
        match tokio::time::timeout(HOUSEKEEPING_EVERY, workspace::end::end_due(&watched.writer)).await {
            Ok(Ok(_)) => {}
            Ok(Err(e)) => tracing::error!(error = %e, "a workspace whose time has come is not ended yet"),
            Err(_) => tracing::warn!("what ended is not all put away yet; the rest has its turn in a minute"),
        }
    }
}

/// After every reconnect to a server that is not the same as before, the heads are compared again before anything is
/// served; until then appends are refused by the database itself.
async fn watch_database(watched: &Watched) -> Result<()> {
    let mut stop = watched.stop.clone();
    let mut known = watched.database.compared.server();
    // The server that was met last, and since when.
    let mut met = None;
    let mut tick = tokio::time::interval(WATCH_EVERY);
    loop {
        tokio::select! {
            _ = stop.changed() => return Ok(()),
            _ = tick.tick() => {}
            () = watched.database.compared.doubted() => known = None,
        }
        match database::in_time(watched.database.identify()).await.and_then(|server| server) {
            Ok(now) if known.as_ref() == Some(&now) => {
                if let Err(e) = peers::tell(&watched.database, watched.node, &now).await {
                    tracing::debug!(error = %e, "other nodes do not hear of this one for a moment");
                }
            }
            Ok(now) if now.timeline.is_none() => {
                known = None;
                watched
                    .readiness
                    .set(Reason::History, Err("the database is a standby, which takes no entries".into()));
            }
            Ok(now) => {
                watched.readiness.set(
                    Reason::History,
                    Err("the database was restarted; the heads are being verified".into()),
                );
                remember_acknowledged(&watched.writer, &watched.seen_heads).await;
                let since = match &met {
                    Some((server, since)) if *server == now => *since,
                    _ => met.insert((now.clone(), Instant::now())).1,
                };
                if compare_again(watched, &now, since).await? {
                    if let Some(place) = Place::of(&now) {
                        watched.seen_heads.settle(place);
                    }
                    watched.database.compared.trust(now.clone());
                    watched.readiness.set(Reason::History, Ok(()));
                    known = Some(now);
                } else {
                    known = None;
                }
            }
            Err(e) => {
                tracing::debug!(error = %e, "the database does not answer");
                known = None;
                continue;
            }
        }
        let looking = look_at_clock(&watched.database, &watched.readiness);
        if let Err(e) = database::in_time(looking).await.and_then(|looked| looked) {
            tracing::debug!(error = %e, "the clock cannot be compared with the heads");
        }
    }
}

/// Keeps what this node has acknowledged beside what it has signed: a database that lacks it was set back all the same.
/// A crash in between forgets the last minute of it, and nothing that was signed.
pub(super) async fn remember_acknowledged(writer: &Writer, seen: &SeenHeads) {
    let remembered = writer.acknowledged().into_iter().map(|(ledger, tree)| {
        let seen = seen.clone();
        async move { seen.remember(ledger, tree).await }
    });
    // All at once: they are written with one flush.
    for kept in futures_util::future::join_all(remembered).await {
        if let Err(e) = kept {
            tracing::error!(error = %e, "this node cannot remember what it acknowledged");
        }
    }
}

/// Whether a database that came back holds what was signed; false where it cannot say yet.
///
/// # Errors
/// If it is not to be trusted, or holds another history: then the node ends.
async fn compare_again(watched: &Watched, server: &Server, since: Instant) -> Result<bool> {
    if let Err(e @ database::Error::Refused(_)) =
        database::roles::check_server(&watched.database.service).await
    {
        watched.readiness.set(Reason::History, Err(e.to_string()));
        bail!("the database came back as one that cannot be trusted: {e}");
    }
    match history::check_heads(&watched.database, &watched.seen_heads).await {
        Ok(ledgers) => match others_behind(watched, server, since).await {
            Ok(behind) if behind.is_empty() => {
                tracing::info!(ledgers, "the database came back, and the heads agree with what was signed");
                Ok(true)
            }
            Ok(behind) => {
                let why =
                    format!("the database was promoted; {} nodes have not compared it yet", behind.len());
                watched.readiness.set(Reason::History, Err(why));
                Ok(false)
            }
            Err(e) => {
                tracing::warn!(error = %e, "the database went away again");
                Ok(false)
            }
        },
        Err(e @ checkpoint::Error::Lost(_)) => {
            watched
                .readiness
                .set(Reason::History, Err(format!("the database came back with another history: {e}")));
            bail!("the database came back with another history than was signed: {e}");
        }
        Err(e) => {
            tracing::warn!(error = %e, "the heads cannot be verified yet");
            Ok(false)
        }
    }
}

/// The other nodes that served before the server was promoted and are waited for.
async fn others_behind(
    watched: &Watched,
    server: &Server,
    since: Instant,
) -> Result<Vec<NodeId>, sqlx::Error> {
    peers::tell(&watched.database, watched.node, server).await?;
    if since.elapsed() >= peers::PATIENCE {
        return Ok(Vec::new());
    }
    peers::behind(&watched.database, watched.node, server).await
}
