//! Connections that only append.
//!
//! A pool asks a connection whether it lives before it is used and again when it comes back: two round trips around
//! each of the committer's one. Here nobody asks. A connection that was lost is noticed by the append itself, which
//! finds out whether it was written and is sent again (`super::append`), and is then dropped.

use sqlx::ConnectOptions;
use sqlx::PgConnection;
use sqlx::postgres::PgConnectOptions;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, SemaphorePermit};

/// How long to wait for a free one.
const WAIT: Duration = Duration::from_secs(10);
/// A connection is replaced when it is so old: what a server keeps for it (cached plans) starts anew.
const OLDEST: Duration = Duration::from_secs(30 * 60);

/// A connection, and when it was made.
type Made = (PgConnection, Instant);

/// At most so many connections, made when they are wanted.
#[derive(Debug)]
pub(super) struct Connections {
    options: PgConnectOptions,
    free: Mutex<Vec<Made>>,
    slots: Semaphore,
}

/// A connection in use. Dropped without [`Lent::give_back`] it is closed.
#[derive(Debug)]
pub(super) struct Lent<'a> {
    made: Made,
    of: &'a Connections,
    _slot: SemaphorePermit<'a>,
}

impl Connections {
    /// At most `most` connections as `options` say.
    pub(super) fn new(options: PgConnectOptions, most: usize) -> Self {
        Self {
            options: options.application_name("statusledger append"),
            free: Mutex::default(),
            slots: Semaphore::new(most),
        }
    }

    /// Drops those that are free: where one was lost, the others mostly are too, and each would take its time to say so.
    pub(super) fn drop_free(&self) {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// A connection, once one is free.
    ///
    /// # Errors
    /// If none is free in time, or the server cannot be reached.
    pub(super) async fn lend(&self) -> Result<Lent<'_>, sqlx::Error> {
        let slot = tokio::time::timeout(WAIT, self.slots.acquire())
            .await
            .map_err(|_| sqlx::Error::PoolTimedOut)?
            .map_err(|_| sqlx::Error::PoolClosed)?;
        let free = || self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        while let Some(made) = free() {
            if made.1.elapsed() < OLDEST {
                return Ok(Lent { made, of: self, _slot: slot });
            }
        }
        let connecting = tokio::time::timeout(WAIT, self.options.connect());
        let made = (connecting.await.map_err(|_| sqlx::Error::PoolTimedOut)??, Instant::now());
        Ok(Lent { made, of: self, _slot: slot })
    }
}

impl Lent<'_> {
    /// The connection.
    pub(super) fn connection(&mut self) -> &mut PgConnection {
        &mut self.made.0
    }

    /// It may be used again: its last statement has ended, and well.
    pub(super) fn give_back(self) {
        self.of.free.lock().unwrap_or_else(PoisonError::into_inner).push(self.made);
    }
}
