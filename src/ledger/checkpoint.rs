//! Checkpoints: signed when durable, remembered by this node before anything signed leaves it.
//!
//! A database can be set back (a restored backup, a failover to a standby that was behind). What protects whoever
//! holds a receipt is a memory outside the database: each node keeps, in its own directory, the size and root of
//! the newest checkpoint that it handed out, flushed to disk before the receipt leaves, and does not serve a
//! database that disagrees.

use super::tree::{Range, Stored};
use super::{hex, tree};
use crate::database::Database;
use crate::id::{LedgerId, WorkspaceId};
use sqlx::PgConnection;
use statusledger_verify::Hash;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{mpsc, oneshot};

/// A tree that was signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignedTree {
    /// Entries in it.
    pub size: u64,
    /// Its root.
    pub root: Hash,
}

/// Why a node does not serve, or cannot say.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The history in the database is not the one that was signed.
    #[error("ledger {ledger}: {what}")]
    Disagrees {
        /// Which ledger.
        ledger: LedgerId,
        /// In what.
        what: String,
    },
    /// The node's file of heads.
    #[error("{path}: {source}", path = .path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// The database.
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
}

/// This node's memory of what it handed out: a file of lines `ledger size root`; the largest of a ledger counts.
#[derive(Clone, Debug)]
pub struct SeenHeads {
    /// What is on disk. Locked for look-ups only; written by the file's own thread.
    seen: Arc<Mutex<HashMap<LedgerId, SignedTree>>>,
    writer: mpsc::UnboundedSender<(LedgerId, SignedTree, oneshot::Sender<io::Result<()>>)>,
}

impl SeenHeads {
    /// Opens the file, or makes it, and starts the thread that writes it. A line cut short by a crash was never
    /// relied upon, since nothing left before the flush: it is dropped.
    ///
    /// # Errors
    /// If the file cannot be read or written, or holds what this program never wrote.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let fault = |source| Error::File { path: path.to_owned(), source };
        let seen = read_heads(path).map_err(fault)?;
        // Compacted: written aside, flushed, renamed, so that a crash leaves the old file or the new one.
        let aside = path.with_extension("new");
        let mut file = File::create(&aside).map_err(fault)?;
        for (ledger, tree) in &seen {
            file.write_all(line(*ledger, tree).as_bytes()).map_err(fault)?;
        }
        file.sync_all().map_err(fault)?;
        std::fs::rename(&aside, path).map_err(fault)?;
        if let Some(parent) = path.parent() {
            File::open(parent).and_then(|d| d.sync_all()).map_err(fault)?;
        }
        Self::join(path)
    }

    /// Joins a file that a node may be using: what is remembered here is added at its end.
    ///
    /// # Errors
    /// If the file cannot be read or written.
    pub fn join(path: &Path) -> Result<Self, Error> {
        let fault = |source| Error::File { path: path.to_owned(), source };
        let seen = read_heads(path).map_err(fault)?;
        let mut file = OpenOptions::new().create(true).append(true).open(path).map_err(fault)?;
        if std::fs::read(path).map_err(fault)?.last().is_some_and(|last| *last != b'\n') {
            // A line that a crash cut short must not swallow the next.
            file.write_all(b"\n").map_err(fault)?;
        }
        let seen = Arc::new(Mutex::new(seen));
        let (writer, requests) = mpsc::unbounded_channel();
        let shared = Arc::clone(&seen);
        std::thread::Builder::new()
            .name("heads".into())
            .spawn(move || write_heads(file, &shared, requests))
            .map_err(fault)?;
        Ok(Self { seen, writer })
    }

    /// Remembers that a checkpoint of `tree` is about to leave; returns when that is on disk.
    ///
    /// # Errors
    /// If it cannot be written: then nothing may leave.
    pub async fn remember(&self, ledger: LedgerId, tree: SignedTree) -> io::Result<()> {
        if self.newest(ledger).is_some_and(|seen| seen.size >= tree.size) {
            return Ok(());
        }
        let (done, answer) = oneshot::channel();
        let gone = || io::Error::other("the thread that writes the heads is gone");
        self.writer.send((ledger, tree, done)).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// The newest tree handed out of `ledger`.
    #[must_use]
    pub fn newest(&self, ledger: LedgerId) -> Option<SignedTree> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).get(&ledger).copied()
    }

    fn all(&self) -> HashMap<LedgerId, SignedTree> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The largest tree of each ledger. Bytes that are no line of ours are a write that a crash cut short.
fn read_heads(path: &Path) -> io::Result<HashMap<LedgerId, SignedTree>> {
    let mut seen: HashMap<LedgerId, SignedTree> = HashMap::new();
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(seen),
        Err(e) => return Err(e),
    };
    for line in BufReader::new(file).lines() {
        if let Some((ledger, tree)) = parse_line(&line?) {
            let known = seen.entry(ledger).or_insert(tree);
            if tree.size > known.size {
                *known = tree;
            }
        }
    }
    Ok(seen)
}

fn line(ledger: LedgerId, tree: &SignedTree) -> String {
    format!("{ledger} {} {}\n", tree.size, hex(&tree.root))
}

fn parse_line(line: &str) -> Option<(LedgerId, SignedTree)> {
    let mut words = line.split(' ');
    let (ledger, size, root) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?, words.next()?);
    if root.len() != 64 {
        return None;
    }
    let mut bytes = [0; 32];
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(root.get(i * 2..i * 2 + 2)?, 16).ok()?;
    }
    Some((ledger, SignedTree { size, root: bytes }))
}

type HeadRequest = (LedgerId, SignedTree, oneshot::Sender<io::Result<()>>);

/// Writes what has gathered, flushes once, answers all: one flush for as many receipts as wait.
fn write_heads(
    mut file: File,
    seen: &Mutex<HashMap<LedgerId, SignedTree>>,
    mut requests: mpsc::UnboundedReceiver<HeadRequest>,
) {
    let mut gathered = Vec::new();
    while let Some(first) = requests.blocking_recv() {
        gathered.push(first);
        while let Ok(next) = requests.try_recv() {
            gathered.push(next);
        }
        let mut newest: HashMap<LedgerId, SignedTree> = HashMap::new();
        for (ledger, tree, _) in &gathered {
            let at = newest.entry(*ledger).or_insert(*tree);
            if tree.size > at.size {
                *at = *tree;
            }
        }
        let text: String = newest.iter().map(|(ledger, tree)| line(*ledger, tree)).collect();
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_data());
        if written.is_ok() {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            for (ledger, tree) in newest {
                let at = seen.entry(ledger).or_insert(tree);
                if tree.size > at.size {
                    *at = tree;
                }
            }
        }
        for (_, _, done) in gathered.drain(..) {
            let _ = done.send(written.as_ref().copied().map_err(|e| io::Error::new(e.kind(), e.to_string())));
        }
    }
}

/// Keeps `note` as the ledger's newest checkpoint in the database, unless a newer one is there.
///
/// # Errors
/// If the database does not answer.
pub async fn keep(
    connection: &mut PgConnection,
    workspace: WorkspaceId,
    ledger: LedgerId,
    tree: &SignedTree,
    note: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO checkpoints AS c (workspace_id, ledger_id, size, root, note) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (workspace_id, ledger_id) DO UPDATE
            SET size = excluded.size, root = excluded.root, note = excluded.note, signed_at = now()
          WHERE c.size < excluded.size",
        workspace.uuid(),
        ledger.uuid(),
        tree.size as i64,
        &tree.root[..],
        note
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The root of the ledger's first `size` entries, from the stored nodes.
///
/// # Errors
/// If a node is missing, or the database does not answer.
pub async fn root_at(
    connection: &mut PgConnection,
    workspace: WorkspaceId,
    ledger: LedgerId,
    size: u64,
) -> Result<Hash, tree::Error> {
    let range = Range::prefix(size);
    let stored = Stored::read(connection, workspace, ledger, [range]).await?;
    range.root(|node| stored.find(node))
}

/// Checks every ledger's head against the newest checkpoint in the database and in this node's directory.
///
/// # Errors
/// The first ledger whose history is shorter than, or other than, one that was signed.
pub async fn check_heads(database: &Database, seen: &SeenHeads) -> Result<u64, Error> {
    // Ledgers grow meanwhile: what was signed is read before what there is, never after.
    let mut unseen = seen.all();
    let rows = sqlx::query!(
        r#"SELECT h.workspace_id AS "workspace: WorkspaceId", h.ledger_id AS "ledger: LedgerId",
                  c.size AS "signed_size?", c.root AS "signed_root?"
             FROM heads h LEFT JOIN checkpoints c USING (workspace_id, ledger_id)"#
    )
    .fetch_all(&database.worker)
    .await?;
    let mut checked = 0;
    for row in rows {
        let mut signed: Vec<(&str, SignedTree)> = Vec::new();
        if let (Some(size), Some(root)) = (row.signed_size, row.signed_root)
            && let Ok(root) = root.try_into()
        {
            signed.push(("the newest checkpoint in the database", SignedTree { size: size as u64, root }));
        }
        if let Some(tree) = unseen.remove(&row.ledger) {
            signed.push(("the newest checkpoint that this node handed out", tree));
        }
        check_head(database, row.workspace, row.ledger, &signed).await?;
        checked += 1;
    }
    if let Some((ledger, tree)) = unseen.into_iter().next() {
        return Err(Error::Disagrees {
            ledger,
            what: format!(
                "the database has no such ledger, but this node handed out a checkpoint of {} entries",
                tree.size
            ),
        });
    }
    Ok(checked)
}

/// Checks one ledger's head as [`check_heads`] checks all.
///
/// # Errors
/// If its history is shorter than, or other than, one that was signed.
pub async fn check_ledger(
    database: &Database,
    seen: &SeenHeads,
    workspace: WorkspaceId,
    ledger: LedgerId,
) -> Result<(), Error> {
    // What was signed is read before what there is, as there.
    let mut signed: Vec<(&str, SignedTree)> = Vec::new();
    signed.extend(seen.newest(ledger).map(|tree| ("the newest checkpoint that this node handed out", tree)));
    let row = sqlx::query!(
        "SELECT size, root FROM checkpoints WHERE workspace_id = $1 AND ledger_id = $2",
        workspace.uuid(),
        ledger.uuid()
    )
    .fetch_optional(&database.worker)
    .await?;
    if let Some(row) = row
        && let Ok(root) = row.root.try_into()
    {
        signed.push(("the newest checkpoint in the database", SignedTree { size: row.size as u64, root }));
    }
    check_head(database, workspace, ledger, &signed).await
}

async fn check_head(
    database: &Database,
    workspace: WorkspaceId,
    ledger: LedgerId,
    signed: &[(&str, SignedTree)],
) -> Result<(), Error> {
    let disagrees = |what: String| Err(Error::Disagrees { ledger, what });
    let mut tx = database.workspace(workspace).await?;
    let row = sqlx::query!(
        r#"SELECT h.size, h.leaf AS "leaf!", h.frontier AS "frontier!",
                  (SELECT max(seq) FROM entries e WHERE e.workspace_id = $1 AND e.ledger_id = $2) AS last,
                  (SELECT leaf FROM entries e
                    WHERE e.workspace_id = $1 AND e.ledger_id = $2 AND seq = h.size - 1) AS last_leaf
             FROM heads h WHERE h.workspace_id = $1 AND h.ledger_id = $2"#,
        workspace.uuid(),
        ledger.uuid()
    )
    .fetch_optional(&mut *tx)
    .await?;
    let Some(row) = row else { return disagrees("it has no head".into()) };
    let size = row.size as u64;
    let last = row.last.map_or(0, |seq| seq as u64 + 1);
    if last != size {
        return disagrees(format!("its head says {size} entries, but {last} is one past the last"));
    }
    if size > 0 && row.last_leaf.as_ref() != Some(&row.leaf) {
        return disagrees(format!("its head does not name entry {} as the last", size - 1));
    }
    let frontier =
        statusledger_verify::tree::Frontier::from_parts(size, row.frontier.as_chunks::<32>().0.to_vec());
    let current = match root_at(&mut tx, workspace, ledger, size).await {
        Ok(root) => root,
        Err(tree::Error::Sql(e)) => return Err(e.into()),
        Err(e) => return disagrees(e.to_string()),
    };
    if frontier.map(|f| f.root()) != Some(current) {
        return disagrees("its head's subtrees are not those of its entries".into());
    }
    for (which, tree) in signed {
        if tree.size > size {
            return disagrees(format!(
                "it has {size} entries, but {which} is of {}: the last {} are missing",
                tree.size,
                tree.size - size
            ));
        }
        match root_at(&mut tx, workspace, ledger, tree.size).await {
            Ok(root) if root == tree.root => {}
            Ok(_) => return disagrees(format!("its first {} entries are not those of {which}", tree.size)),
            Err(tree::Error::Sql(e)) => return Err(e.into()),
            Err(e) => return disagrees(e.to_string()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn what_was_handed_out_is_known_after_a_restart_and_a_torn_line_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("heads");
        let (ledger, other) = (LedgerId::new(), LedgerId::new());
        let heads = SeenHeads::open(&path).unwrap();
        heads.remember(ledger, SignedTree { size: 7, root: [7; 32] }).await.unwrap();
        heads.remember(ledger, SignedTree { size: 9, root: [9; 32] }).await.unwrap();
        heads.remember(ledger, SignedTree { size: 8, root: [8; 32] }).await.unwrap();
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(&line(other, &SignedTree { size: 5, root: [5; 32] }).as_bytes()[..60]).unwrap();
        let heads = SeenHeads::open(&path).unwrap();
        assert_eq!(heads.newest(ledger), Some(SignedTree { size: 9, root: [9; 32] }));
        assert_eq!(heads.newest(other), None);
    }
}
