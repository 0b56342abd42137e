//! A ledger that signs what it has committed needs a server that keeps what it has committed.

use sqlx::{PgConnection, Row};

/// Why a server is not one to keep a ledger on.
#[derive(Debug, thiserror::Error)]
pub enum NotDurable {
    /// A setting that lets a crash take back a commit, or tear a page.
    #[error(
        "the Postgres server runs with {setting} = {value}: a crash could lose or damage entries whose \
         receipts are out. Set it to on (postgresql.conf, ALTER SYSTEM, ALTER ROLE or ALTER DATABASE)"
    )]
    Setting {
        /// The setting's name.
        setting: String,
        /// Its value, for this session.
        value: String,
    },
    /// The server could not be asked, or did not say.
    #[error("cannot read the durability settings of the Postgres server: {0}")]
    Unknown(#[from] sqlx::Error),
}

/// Refuses a server with `fsync`, `full_page_writes` or `synchronous_commit` off, as this session sees them
/// (a role or a database can have its own `synchronous_commit`). All three can be changed while the server
/// runs: ask after every reconnect, as the role that appends.
///
/// # Errors
/// [`NotDurable`]; not being able to ask counts.
pub async fn check_durability(connection: &mut PgConnection) -> Result<(), NotDurable> {
    let row = sqlx::query(
        "SELECT current_setting('fsync'), current_setting('full_page_writes'), \
                current_setting('synchronous_commit')",
    )
    .fetch_one(connection)
    .await?;
    for (index, setting) in ["fsync", "full_page_writes", "synchronous_commit"].into_iter().enumerate() {
        let value: String = row.try_get(index)?;
        if value == "off" {
            return Err(NotDurable::Setting { setting: setting.to_owned(), value });
        }
    }
    Ok(())
}
