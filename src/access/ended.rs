//! What has ended long ago is removed: sessions with the address and browser that they began with, used links, invitations
//! with the address that was invited. That each was is in the ledger.

use crate::database::Database;

/// Removes what ended, was used up or ran out more than 30 days ago; so long it is kept for whoever looks at the lists.
///
/// # Errors
/// If the database does not confirm; what is left goes with the next time.
pub async fn remove(database: &Database) -> Result<u64, sqlx::Error> {
    let sessions =
        sqlx::query!("DELETE FROM sessions WHERE LEAST(ended_at, expires_at) < now() - interval '30 days'")
            .execute(&database.worker)
            .await?;
    let links = sqlx::query!(
        "DELETE FROM sign_in_links WHERE LEAST(used_at, expires_at) < now() - interval '30 days'"
    )
    .execute(&database.worker)
    .await?;
    let invitations = sqlx::query!(
        "DELETE FROM invitations
          WHERE LEAST(accepted_at, revoked_at, expires_at) < now() - interval '30 days'"
    )
    .execute(&database.worker)
    .await?;
    Ok([sessions, links, invitations].iter().map(sqlx::postgres::PgQueryResult::rows_affected).sum())
}
