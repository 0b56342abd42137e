//! The instance: its name, its own workspace and ledger, and how both come to be at the first start.

use crate::audit::{Act, Action};
use crate::database::{Database, WorkspaceTx};
use crate::delivery::Outbox;
use crate::id::{LedgerId, NodeId, WorkspaceId};
use crate::key_encryption::{self, KeyEncryption};
use crate::keyring::{self, Keyring};
use crate::ledger::append::{self, Locked};
use crate::ledger::{Draft, Writer};
use crate::sealing::{self, DataKeys};
use crate::workspace;
use statusledger_keys::ring::Ring;
use statusledger_verify::json::{Object, Value};
use statusledger_verify::time::Timestamp;

/// What an instance is called where nobody gave it a name.
pub const DEFAULT_NAME: &str = "localhost";

/// What an instance is, for good.
#[derive(Clone, Debug)]
pub struct Instance {
    /// Its name: a host name.
    pub name: String,
    /// The workspace of its own events.
    pub workspace: WorkspaceId,
    /// Their ledger.
    pub ledger: LedgerId,
}

/// An instance that cannot be opened or made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database.
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    /// Its key-encryption key.
    #[error(transparent)]
    KeyEncryption(#[from] key_encryption::Error),
    /// Its key ring.
    #[error(transparent)]
    Keyring(#[from] keyring::Error),
    /// Its data key.
    #[error(transparent)]
    Sealing(#[from] sealing::Error),
    /// Its first entries.
    #[error(transparent)]
    Append(#[from] append::Error),
    /// A first entry that cannot be one.
    #[error(transparent)]
    Draft(#[from] crate::ledger::draft::Error),
    /// Another name than it was made with.
    #[error(
        "this database belongs to the instance \"{is}\", not \"{asked}\"; an instance's name never changes"
    )]
    Name {
        /// Its name.
        is: String,
        /// The name that the settings give.
        asked: String,
    },
}

/// Everything that a node needs to append.
#[derive(Debug)]
pub struct Opened {
    /// The instance.
    pub instance: Instance,
    /// Its keys.
    pub keyring: Keyring,
    /// The writer of its ledgers.
    pub writer: Writer,
}

impl Instance {
    /// Reads the instance, if the database has one.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn read(database: &Database) -> Result<Option<Self>, sqlx::Error> {
        let row = sqlx::query!(
            r#"SELECT name, workspace_id AS "workspace: WorkspaceId", ledger_id AS "ledger: LedgerId" FROM instance"#
        )
        .fetch_optional(&database.service)
        .await?;
        Ok(row.map(|r| Self { name: r.name, workspace: r.workspace, ledger: r.ledger }))
    }

    /// Opens the instance, making it (name, keys, workspace, ledger: one transaction) where there is none. `name`
    /// none accepts whatever name it has, and makes one called `localhost`.
    ///
    /// # Errors
    /// If the database has an instance of another name, or its keys do not open.
    pub async fn open(
        database: &Database,
        key_encryption: KeyEncryption,
        name: Option<&str>,
        node: Option<NodeId>,
        outbox: Outbox,
    ) -> Result<Opened, Error> {
        let data_keys = DataKeys::new(database.clone(), key_encryption.clone());
        if Self::read(database).await?.is_none() {
            Self::make(database, &key_encryption, &data_keys, name.unwrap_or(DEFAULT_NAME), node, &outbox)
                .await?;
            // Where another node was quicker, its key is the instance's, and KMS may have it.
            for (key, error) in key_encryption.learn(database, name.unwrap_or(DEFAULT_NAME)).await? {
                tracing::warn!(%key, %error, "a wrapped key-encryption key cannot be unwrapped");
            }
        }
        let instance = Self::read(database).await?.ok_or(keyring::Error::Empty)?;
        if let Some(asked) = name.filter(|asked| *asked != instance.name) {
            return Err(Error::Name { is: instance.name, asked: asked.into() });
        }
        let mut connection = database.service.acquire().await?;
        key_encryption.check(&mut connection).await?;
        drop(connection);
        let keyring = Keyring::load(database.clone(), key_encryption).await?;
        let writer = Writer::new(database.clone(), keyring.clone(), data_keys, node, outbox);
        Ok(Opened { instance, keyring, writer })
    }

    async fn make(
        database: &Database,
        key_encryption: &KeyEncryption,
        data_keys: &DataKeys,
        name: &str,
        node: Option<NodeId>,
        outbox: &Outbox,
    ) -> Result<(), Error> {
        let workspace = WorkspaceId::new();
        let mut tx = database.workspace(workspace).await?;
        // Two nodes that start at once on an empty database: the second waits here, then finds it made.
        keyring::lock(&mut tx).await?;
        let made = sqlx::query_scalar!(r#"SELECT EXISTS (SELECT FROM instance) AS "made!""#)
            .fetch_one(&mut *tx)
            .await?;
        if made {
            return Ok(());
        }
        let ledger = workspace::insert(&mut tx, data_keys, name).await?;
        let key = key_encryption.store_first(&mut tx).await?;
        sqlx::query!(
            "INSERT INTO instance (name, workspace_id, ledger_id, key_encryption_key) VALUES ($1, $2, $3, $4)",
            name,
            workspace.uuid(),
            ledger.uuid(),
            &key.as_bytes()[..]
        )
        .execute(&mut *tx)
        .await?;
        let change =
            Ring::create(name, &ledger.to_string(), Timestamp::now()).map_err(keyring::Error::from)?;
        let stored =
            change.to_stored(&*key_encryption.sealing_key(&mut tx).await?).map_err(keyring::Error::from)?;
        keyring::store(&mut tx, &stored).await?;
        let mut data = Object::default();
        data.insert("instance".into(), Value::String(name.into()));
        data.insert("version".into(), Value::String(env!("CARGO_PKG_VERSION").into()));
        let mut drafts = vec![Draft::new("instance.created", data)?];
        for event in &change.events {
            drafts.push(Draft::new(event.event_type.as_str(), event.data.clone())?);
        }
        let act = Act::system();
        let record = act.of(Action::KeyRingChanged).detail(
            "change",
            Value::Array(change.events.iter().map(|e| Value::String(e.event_type.as_str().into())).collect()),
        );
        drafts.push(record.draft()?);
        let keyring = Keyring::with(database.clone(), key_encryption.clone(), change.ring)?;
        let writer = Writer::new(database.clone(), keyring, data_keys.clone(), node, outbox.clone());
        let data_key = data_keys.within(&mut tx).await?;
        let mut locked = Locked::adopt(writer, tx, workspace, data_key).await?;
        locked.append(&drafts).await?;
        locked.commit().await?;
        Ok(())
    }
}

/// For whoever only reads: the workspace's transaction and ledger.
///
/// # Errors
/// If the database does not answer.
pub async fn ledger_of(tx: &mut WorkspaceTx) -> Result<Option<LedgerId>, sqlx::Error> {
    let workspace = tx.workspace;
    sqlx::query_scalar!(
        r#"SELECT ledger_id AS "ledger: LedgerId" FROM workspaces WHERE workspace_id = $1"#,
        workspace.uuid()
    )
    .fetch_optional(&mut **tx)
    .await
}
