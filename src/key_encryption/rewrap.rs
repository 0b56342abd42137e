//! Replacing the key-encryption key while nodes serve.
//!
//! 1. The new key is read, or made by KMS and stored wrapped; then it is waited for until every serving node holds it.
//! 2. **The change**: one transaction names it in `instance`. Whoever seals reads that under a lock, so from its commit
//!    on nothing is written under the old key, by any node.
//! 3. Each private signing key and each data key that stands under another key is sealed anew, one transaction each,
//!    written only over the very ciphertext that was read: one that was destroyed meanwhile stays destroyed.
//! 4. **The end**: one transaction in which the entry is recorded and the old wrapped keys are deleted.
//!
//! A crash before 2 leaves everything under the old key, and at most a wrapped key that nothing stands under, which the
//! next run deletes. One after it leaves each row under one key or the other, and nodes hold both; the next run does
//! the rest, and its entry counts what all runs did. Values (store keys, webhook secrets, openings) are sealed under
//! data keys and are not touched.
//!
//! KMS is asked in step 1 alone, while no transaction is open. One rewrap runs at a time (an advisory lock of the
//! session); one that lost its session and was overtaken by another is stopped by the check in each transaction.

use super::{Error as KeyError, KeyEncryption, holders, id, store};
use crate::audit::{Act, Action};
use crate::database::Database;
use crate::id::{NodeId, WorkspaceId};
use crate::instance::Opened;
use crate::ledger::{self, Draft};
use sqlx::{Connection, PgConnection};
use statusledger_keys::envelope::DataKey;
use statusledger_keys::held_keys::HeldKeys;
use statusledger_keys::key_encryption::KeyEncryptionKey;
use statusledger_keys::key_id::KeyId;
use statusledger_keys::ring::StoredKey;
use statusledger_keys::sealing::{SealError, SealingKeyId};
use statusledger_keys::signing::parse_purpose;
use statusledger_verify::json::{Object, Value};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Held by the session that rewraps.
const REWRAP_LOCK: i64 = 1_397_489_666;
/// How often it is looked whether they have.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// A rewrap that is not finished.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database.
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    /// A key-encryption key cannot be had.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The new key's file.
    #[error("the new key-encryption key cannot be used: {0}")]
    File(statusledger_keys::key_encryption::KeyEncryptionError),
    /// KMS is not set.
    #[error("no KMS key is set: set kms.key for this command and for every node")]
    NoKms,
    /// A pooler stands in between, and the lock that keeps another one off is a session's.
    #[error("`keys rewrap` holds a session: run it over the server's own address, without database_pooled")]
    Pooled,
    /// Another one runs.
    #[error("another `keys rewrap` is running")]
    Running,
    /// Another one has changed over to another key.
    #[error("another `keys rewrap` has taken over")]
    Overtaken,
    /// Nodes that serve do not hold the new key. Nothing was changed.
    #[error(
        "{} of the serving nodes, {}, do not hold the new key {key}; {advice}; nothing was changed",
        nodes.len(),
        nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    )]
    NotEverywhere {
        /// The new key.
        key: SealingKeyId,
        /// The nodes without it.
        nodes: Vec<NodeId>,
        /// What to do.
        advice: &'static str,
    },
    /// Some keys do not open. They stay as they are, and the old key is still needed.
    #[error("{} keys could not be re-wrapped and stay under the old key: {}", .0.len(), .0.join("; "))]
    Left(Vec<String>),
    /// A row that is none of ours.
    #[error("a row of signing_keys has a wrong {0}")]
    Row(&'static str),
    /// The entry.
    #[error("the entry cannot be recorded: {0}")]
    Append(#[from] ledger::append::Error),
    /// The entry's contents.
    #[error("the entry cannot be recorded: {0}")]
    Draft(#[from] ledger::draft::Error),
}

/// What to change over to.
#[derive(Clone, Debug)]
pub enum Target {
    /// The key in this file, which every node holds already.
    File(PathBuf),
    /// A new key, wrapped by the KMS key of the settings.
    Kms,
}

/// How far it is.
#[derive(Clone, Copy, Debug)]
pub enum Progress {
    /// So many nodes do not hold the new key yet.
    Waiting(usize),
    /// So many keys of so many have been looked at.
    Rewrapping(u64, u64),
}

/// What was done.
#[derive(Clone, Debug)]
pub struct Done {
    /// The key that everything stands under now.
    pub key: SealingKeyId,
    /// Those that nothing stands under any more; none where there was nothing to do.
    pub old: Vec<SealingKeyId>,
    /// Data keys that were re-wrapped, by this run and unfinished ones before it.
    pub data_keys: u64,
    /// The same for private signing keys.
    pub signing_keys: u64,
}

/// Brings everything under the new key; serving nodes get `wait` to hold it. Run again after a crash, with the same target, it does the rest.
///
/// # Errors
/// See [`Error`]; whatever it is, every key stays openable by the old key-encryption key or the new one.
pub async fn rewrap(
    opened: &Opened,
    keys: &KeyEncryption,
    target: &Target,
    wait: Duration,
    mut progress: impl FnMut(Progress),
) -> Result<Done, Error> {
    let database = opened.writer.database().clone();
    if database.is_pooled() {
        return Err(Error::Pooled);
    }
    // A connection of its own: the lock ends with it, however this process ends.
    let mut session = database.service.acquire().await?.detach();
    let alone = sqlx::query_scalar!(r#"SELECT pg_try_advisory_lock($1) AS "alone!""#, REWRAP_LOCK)
        .fetch_one(&mut session)
        .await?;
    if !alone {
        return Err(Error::Running);
    }
    holders::forget_gone(&database).await?;
    let done =
        Rewrap { opened, keys, database, wait, progress: &mut progress }.run(&mut session, target).await;
    session.close().await?;
    done
}

struct Rewrap<'a> {
    opened: &'a Opened,
    keys: &'a KeyEncryption,
    database: Database,
    wait: Duration,
    progress: &'a mut dyn FnMut(Progress),
}

impl Rewrap<'_> {
    async fn run(mut self, session: &mut PgConnection, target: &Target) -> Result<Done, Error> {
        let current = current(session).await?;
        let (to, made) = self.target(session, target, current).await?;
        // This process seals and opens too: the entry at the end.
        self.keys.hold(Arc::clone(&to));
        if to.id() != current {
            let new = to.id();
            let changed = self.change(session, current, new, made).await;
            if changed.is_err() && made {
                // A crash here leaves it to the next run. A change that was made all the same, its confirmation being
                // lost, keeps it.
                sqlx::query!(
                    "DELETE FROM key_encryption_keys
                      WHERE key_id = $1 AND key_id NOT IN (SELECT key_encryption_key FROM instance)",
                    &new.as_bytes()[..]
                )
                .execute(&mut *session)
                .await?;
            }
            changed?;
        }
        let held = self.keys.held();
        let mut left = Vec::new();
        let workspaces = self.workspaces().await?;
        let signing = self.signing_keys(to.id()).await?;
        let total = (workspaces.len() + signing.len()) as u64;
        let mut looked_at = 0;
        (self.progress)(Progress::Rewrapping(looked_at, total));
        for key in &signing {
            if let Err(e) = self.signing_key(key, &held, &to).await? {
                left.push(format!("signing key {}: {e}", key.key_id));
            }
            looked_at += 1;
            (self.progress)(Progress::Rewrapping(looked_at, total));
        }
        for workspace in workspaces {
            if let Err(e) = self.data_key(workspace, &held, &to).await? {
                left.push(format!("data key of {workspace}: {e}"));
            }
            looked_at += 1;
            (self.progress)(Progress::Rewrapping(looked_at, total));
        }
        if left.is_empty() { self.finish(to.id()).await } else { Err(Error::Left(left)) }
    }

    /// The key to change over to; whether it was made just now. An unfinished change to a key of KMS goes on with that
    /// key; a key that was made and never changed over to is deleted.
    async fn target(
        &self,
        session: &mut PgConnection,
        target: &Target,
        current: SealingKeyId,
    ) -> Result<(Arc<KeyEncryptionKey>, bool), Error> {
        let path = match target {
            Target::File(path) => path,
            Target::Kms => {
                let kms = self.keys.kms().ok_or(Error::NoKms)?;
                let unfinished = sqlx::query_scalar!(
                    r#"SELECT EXISTS (SELECT FROM key_encryption_rewraps r JOIN key_encryption_keys k ON k.key_id = r.new_key
                                       WHERE r.finished_at IS NULL AND r.new_key = $1) AS "unfinished!""#,
                    &current.as_bytes()[..]
                )
                .fetch_one(&mut *session)
                .await?;
                if let (true, Some(key)) = (unfinished, self.keys.held().get(current)) {
                    return Ok((Arc::clone(key), false));
                }
                sqlx::query!(
                    "DELETE FROM key_encryption_keys WHERE key_id <> $1 AND key_id NOT IN
                         (SELECT old_key FROM key_encryption_rewraps WHERE finished_at IS NULL)",
                    &current.as_bytes()[..]
                )
                .execute(&mut *session)
                .await?;
                let made = kms.generate(&self.opened.instance.name).await?;
                store(session, made.key.id(), &made.kms_key, &made.blob).await?;
                return Ok((Arc::new(made.key), true));
            }
        };
        Ok((Arc::new(KeyEncryptionKey::load(path).map_err(Error::File)?), false))
    }

    /// Waits until every serving node holds the new key, then names it in the database: from the commit on, everything
    /// is sealed under it.
    async fn change(
        &mut self,
        session: &mut PgConnection,
        old: SealingKeyId,
        new: SealingKeyId,
        made: bool,
    ) -> Result<(), Error> {
        let advice = if made {
            "each needs kms.key (or kms.other_keys), a region and kms:Decrypt on it: see its log"
        } else {
            "add its file to key_encryption_key_other_files of each and restart it"
        };
        let end = Instant::now() + self.wait;
        loop {
            let nodes = holders::without(session, new).await?;
            if nodes.is_empty() {
                let mut tx = session.begin().await?;
                let changed = sqlx::query!(
                    "UPDATE instance SET key_encryption_key = $2 WHERE key_encryption_key = $1",
                    &old.as_bytes()[..],
                    &new.as_bytes()[..]
                )
                .execute(&mut *tx)
                .await?;
                if changed.rows_affected() != 1 {
                    return Err(Error::Overtaken);
                }
                // A node that starts now has said what it holds, or waits for this transaction.
                if holders::without(&mut tx, new).await?.is_empty() {
                    sqlx::query!(
                        "INSERT INTO key_encryption_rewraps (old_key, new_key) VALUES ($1, $2)",
                        &old.as_bytes()[..],
                        &new.as_bytes()[..]
                    )
                    .execute(&mut *tx)
                    .await?;
                    tx.commit().await?;
                    return Ok(());
                }
                tx.rollback().await?;
                continue;
            }
            if Instant::now() >= end {
                return Err(Error::NotEverywhere { key: new, nodes, advice });
            }
            (self.progress)(Progress::Waiting(nodes.len()));
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn workspaces(&self) -> Result<Vec<WorkspaceId>, sqlx::Error> {
        sqlx::query_scalar!(
            r#"SELECT workspace_id AS "id: WorkspaceId" FROM workspaces ORDER BY workspace_id"#
        )
        .fetch_all(&self.database.worker)
        .await
    }

    /// The private signing keys that stand under another key.
    async fn signing_keys(&self, new: SealingKeyId) -> Result<Vec<StoredKey>, Error> {
        let rows = sqlx::query!(
            r#"SELECT key_id, purpose, private_key FROM signing_keys
                WHERE private_key IS NOT NULL AND substring(private_key FROM 2 FOR 8) <> $1"#,
            &new.as_bytes()[..]
        )
        .fetch_all(&self.database.service)
        .await?;
        rows.into_iter()
            .map(|row| {
                Ok(StoredKey {
                    key_id: KeyId(row.key_id.try_into().map_err(|_| Error::Row("key_id"))?),
                    purpose: parse_purpose(&row.purpose).map_err(|_| Error::Row("purpose"))?,
                    ciphertext: row.private_key,
                })
            })
            .collect()
    }

    async fn signing_key(
        &self,
        key: &StoredKey,
        held: &HeldKeys,
        to: &KeyEncryptionKey,
    ) -> Result<Result<(), SealError>, Error> {
        let new = to.id();
        let again = match key.rewrap(&self.opened.instance.name, held, to) {
            Ok(again) => again,
            Err(e) => return Ok(Err(e)),
        };
        let mut tx = self.database.service.begin().await?;
        still(&mut tx, new).await?;
        let written = sqlx::query!(
            "UPDATE signing_keys SET private_key = $3 WHERE key_id = $1 AND private_key = $2",
            &key.key_id.0[..],
            key.ciphertext,
            again
        )
        .execute(&mut *tx)
        .await?
        .rows_affected();
        if written == 1 {
            sqlx::query!(
                "UPDATE key_encryption_rewraps SET signing_keys = signing_keys + 1
                  WHERE finished_at IS NULL AND new_key = $1",
                &new.as_bytes()[..]
            )
            .execute(&mut *tx)
            .await?;
        }
        tx.commit().await?;
        Ok(Ok(()))
    }

    async fn data_key(
        &self,
        workspace: WorkspaceId,
        held: &HeldKeys,
        to: &KeyEncryptionKey,
    ) -> Result<Result<(), SealError>, Error> {
        let new = to.id();
        let mut tx = self.database.workspace(workspace).await?;
        still(&mut tx, new).await?;
        let row = sqlx::query_scalar!(
            "SELECT wrapped_key FROM data_keys WHERE workspace_id = $1 FOR UPDATE",
            workspace.uuid()
        )
        .fetch_optional(&mut *tx)
        .await?;
        // Without a data key the workspace's data was destroyed.
        let Some(wrapped) = row else { return Ok(Ok(())) };
        let again = match SealingKeyId::of_ciphertext(&wrapped) {
            Ok(under) if under == new => return Ok(Ok(())),
            _ => DataKey::rewrap(held, to, *workspace.uuid().as_bytes(), &wrapped),
        };
        let again = match again {
            Ok(again) => again,
            Err(e) => return Ok(Err(e)),
        };
        sqlx::query!(
            "UPDATE data_keys SET wrapped_key = $2 WHERE workspace_id = $1",
            workspace.uuid(),
            again
        )
        .execute(&mut *tx)
        .await?;
        sqlx::query!(
            "UPDATE key_encryption_rewraps SET data_keys = data_keys + 1
              WHERE finished_at IS NULL AND new_key = $1",
            &new.as_bytes()[..]
        )
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(Ok(()))
    }

    /// Records what was done, and deletes the old wrapped keys.
    async fn finish(&self, new: SealingKeyId) -> Result<Done, Error> {
        let mut locked = self.opened.writer.lock(self.opened.instance.workspace).await?;
        still(&mut locked, new).await?;
        let rows = sqlx::query!(
            "UPDATE key_encryption_rewraps SET finished_at = now() WHERE finished_at IS NULL
             RETURNING old_key, new_key, data_keys, signing_keys"
        )
        .fetch_all(&mut **locked)
        .await?;
        let mut done = Done { key: new, old: Vec::new(), data_keys: 0, signing_keys: 0 };
        let mut old = BTreeSet::new();
        for row in rows {
            old.extend([id(&row.old_key)?, id(&row.new_key)?]);
            done.data_keys += row.data_keys.unsigned_abs();
            done.signing_keys += row.signing_keys.unsigned_abs();
        }
        old.remove(&new);
        done.old = old.into_iter().collect();
        if done.old.is_empty() {
            return Ok(done);
        }
        let ids: Vec<Vec<u8>> = done.old.iter().map(|id| id.as_bytes().to_vec()).collect();
        sqlx::query!("DELETE FROM key_encryption_keys WHERE key_id = ANY ($1)", &ids[..])
            .execute(&mut **locked)
            .await?;
        let kms = sqlx::query_scalar!(
            r#"SELECT EXISTS (SELECT FROM key_encryption_keys WHERE key_id = $1) AS "kms!""#,
            &new.as_bytes()[..]
        )
        .fetch_one(&mut **locked)
        .await?;
        let act = Act::operator();
        let what = vec![Value::String("key.encryption_rewrapped".into())];
        let record = act.of(Action::KeyRingChanged).detail("change", Value::Array(what));
        locked.append(&[entry(&done, kms)?, record.draft()?]).await?;
        locked.commit().await?;
        Ok(done)
    }
}

fn entry(done: &Done, kms: bool) -> Result<Draft, ledger::draft::Error> {
    let text = |id: &SealingKeyId| Value::String(id.to_string());
    let count = |n: u64| Value::Int(i64::try_from(n).unwrap_or(i64::MAX));
    let mut data = Object::default();
    data.insert("old_key_ids".into(), Value::Array(done.old.iter().map(text).collect()));
    data.insert("new_key_id".into(), text(&done.key));
    data.insert("new_key_kept_by".into(), Value::String(if kms { "aws_kms" } else { "operator" }.into()));
    data.insert("data_keys".into(), count(done.data_keys));
    data.insert("signing_keys".into(), count(done.signing_keys));
    Draft::new("key.encryption_rewrapped", data)
}

/// The key in use.
async fn current(connection: &mut PgConnection) -> Result<SealingKeyId, Error> {
    let current =
        sqlx::query_scalar!("SELECT key_encryption_key FROM instance").fetch_one(connection).await?;
    Ok(id(&current)?)
}

/// Keeps the key in use from changing until the transaction ends, and checks that it is `key`.
async fn still(connection: &mut PgConnection, key: SealingKeyId) -> Result<(), Error> {
    match super::current(connection).await? {
        Some(current) if current == key => Ok(()),
        _ => Err(Error::Overtaken),
    }
}
