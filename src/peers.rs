//! The nodes over one database, at a failover.
//!
//! Each node remembers what *it* handed out. After a failover to a standby that lacks entries, one node may find nothing
//! missing and go on, before another, which handed out more, has looked: then two histories are signed under one name.
//! So every node says which timeline of the server it has compared, and after a promotion none goes on before all that
//! were serving have said so, or were silent for so long that they count as gone. One that finds something missing
//! marks it in the database (`ledger::history`), and the others find the mark.

use crate::database::Database;
use crate::database::server::Server;
use crate::id::NodeId;
use std::time::Duration;

/// How long nodes that were serving before a promotion are waited for: many times the two seconds in which each looks.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How often a node that starts looks whether the others are done.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Says that the node serves over `server`, having compared it with what it handed out.
///
/// # Errors
/// If the database does not answer.
pub async fn tell(database: &Database, node: NodeId, server: &Server) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO nodes (node_id, timeline, seen_at) VALUES ($1, $2, now())
         ON CONFLICT (node_id) DO UPDATE SET timeline = excluded.timeline, seen_at = excluded.seen_at",
        node.uuid(),
        server.timeline.as_deref().unwrap_or_default()
    )
    .execute(&database.service)
    .await?;
    Ok(())
}

/// The other nodes that served before `server` was promoted, as it knows, and have not compared it yet.
///
/// # Errors
/// If the database does not answer.
pub async fn behind(database: &Database, node: NodeId, server: &Server) -> Result<Vec<NodeId>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT node_id AS "node: NodeId" FROM nodes
            WHERE node_id <> $1 AND timeline <> $2
              AND seen_at > (SELECT max(seen_at) FROM nodes WHERE timeline <> $2) - make_interval(secs => $3)
            ORDER BY 1"#,
        node.uuid(),
        server.timeline.as_deref().unwrap_or_default(),
        PATIENCE.as_secs_f64()
    )
    .fetch_all(&database.service)
    .await
}

/// Says that the node has compared `server`, and waits for those that served before it was promoted.
///
/// # Errors
/// If the database does not answer.
pub async fn compared(database: &Database, node: NodeId, server: &Server) -> Result<(), sqlx::Error> {
    tell(database, node, server).await?;
    let until = tokio::time::Instant::now() + PATIENCE;
    let mut told = false;
    loop {
        let behind = behind(database, node, server).await?;
        if behind.is_empty() || tokio::time::Instant::now() >= until {
            return Ok(());
        }
        if !told {
            tracing::info!(?behind, "the server was promoted: waiting until other nodes have compared it");
            told = true;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Says that the node has stopped, and forgets those that have not been heard of for a day.
///
/// # Errors
/// If the database does not answer.
pub async fn leave(database: &Database, node: NodeId) -> Result<(), sqlx::Error> {
    sqlx::query!("DELETE FROM nodes WHERE node_id = $1 OR seen_at < now() - interval '1 day'", node.uuid())
        .execute(&database.service)
        .await?;
    Ok(())
}
