//! Which server this is, and whether its histories were compared with what was signed.
//!
//! An address can lead to another server from one connection to the next: a standby was promoted, a backup was put in
//! place. Every append says which server its caller has compared, and the database refuses one that is meant for
//! another; so nothing is added to a history that nobody has looked at, not even in the moment before the node notices.

use super::Database;
use sqlx::PgExecutor;
use std::sync::{Arc, PoisonError, RwLock};
use time::OffsetDateTime;
use tokio::sync::Notify;

/// A server, as one connection sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// When its postmaster was started.
    pub started_at: OffsetDateTime,
    /// The object id of the table of heads: a database that was restored on the same server has another.
    pub tables: i64,
    /// Its timeline, eight hexadecimal digits, which a promotion changes; none while it is a standby.
    pub timeline: Option<String>,
}

/// What a node has compared. Cloned freely; clones share it. Locked for look-ups only.
#[derive(Clone, Debug, Default)]
pub struct Compared {
    server: Arc<RwLock<Option<Server>>>,
    doubted: Arc<Notify>,
}

impl Compared {
    /// The server that was compared last; none: nothing was, and an append asks for nothing.
    #[must_use]
    pub fn server(&self) -> Option<Server> {
        self.server.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says that every ledger on `server` holds what was signed.
    pub fn trust(&self, server: Server) {
        *self.server.write().unwrap_or_else(PoisonError::into_inner) = Some(server);
    }

    /// Says that an append met another server: it is to be looked at now.
    pub fn doubt(&self) {
        self.doubted.notify_one();
    }

    /// Waits until somebody doubts.
    pub async fn doubted(&self) {
        self.doubted.notified().await;
    }
}

/// Asks which server a connection leads to.
///
/// # Errors
/// If the database does not answer.
pub async fn identify(connection: impl PgExecutor<'_>) -> Result<Server, sqlx::Error> {
    sqlx::query_as!(
        Server,
        r#"SELECT pg_postmaster_start_time() AS "started_at!", 'public.heads'::regclass::oid::bigint AS "tables!",
                  CASE WHEN NOT pg_is_in_recovery() THEN substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END
                      AS timeline"#
    )
    .fetch_one(connection)
    .await
}

impl Database {
    /// Asks which server this is.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn identify(&self) -> Result<Server, sqlx::Error> {
        identify(&self.worker).await
    }
}
