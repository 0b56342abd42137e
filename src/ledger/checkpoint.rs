//! Checkpoints: signed when durable, remembered by this node before anything signed leaves it.
//!
//! A database can be set back (a restored backup, a failover to a standby that was behind). What protects whoever
//! holds a receipt is a memory outside the database: each node keeps, in its own directory, the size and root of
//! the newest checkpoint that it handed out, flushed to disk before the receipt leaves, and does not serve a
//! database that disagrees (`super::history`).

use super::tree::{Range, Stored};
use super::{hex, tree};
use crate::id::{LedgerId, WorkspaceId};
use nix::fcntl::{Flock, FlockArg};
use sqlx::PgConnection;
use statusledger_verify::Hash;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
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
    /// The history in the database is not the one that was signed; which ledgers, and in what.
    #[error("{0}")]
    Lost(String),
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
    writer: mpsc::UnboundedSender<HeadRequest>,
    /// How many of those that were begun wait to be written.
    begun: Arc<AtomicUsize>,
}

impl SeenHeads {
    /// Opens the file, or makes it, and starts the thread that writes it. A line cut short by a crash was never
    /// relied upon, since nothing left before the flush: it is dropped.
    ///
    /// # Errors
    /// If the file cannot be read or written, or holds what this program never wrote.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let fault = |source| Error::File { path: path.to_owned(), source };
        let heads = Heads::new(Open::Own { file: None, path: path.to_owned(), added: 0 });
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(fault)?;
        let seen = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(_locked) => {
                let seen = read_heads(path).map_err(fault)?;
                compact(path, &seen).map_err(fault)?;
                seen
            }
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
                // A command is adding to it: it stays as it is, whatever it ends in.
                flush_name(path).map_err(fault)?;
                read_heads(path).map_err(fault)?
            }
            Err((_, e)) => return Err(fault(e.into())),
        };
        Self::start(seen, heads).map_err(fault)
    }

    /// Joins a file that a node may be using: what is remembered here is added at its end.
    ///
    /// # Errors
    /// If the file cannot be read or written.
    pub fn join(path: &Path) -> Result<Self, Error> {
        let fault = |source| Error::File { path: path.to_owned(), source };
        let mut file = loop {
            let file = OpenOptions::new().create(true).append(true).open(path).map_err(fault)?;
            let file = Flock::lock(file, FlockArg::LockShared).map_err(|(_, e)| fault(e.into()))?;
            // One that was being compacted meanwhile is another file by now.
            let (ours, there) = (file.metadata().map_err(fault)?, std::fs::metadata(path).map_err(fault)?);
            if (ours.dev(), ours.ino()) == (there.dev(), there.ino()) {
                break file;
            }
        };
        let seen = read_heads(path).map_err(fault)?;
        if std::fs::read(path).map_err(fault)?.last().is_some_and(|last| *last != b'\n') {
            // A line that a crash cut short must not swallow the next.
            file.write_all(b"\n").map_err(fault)?;
        }
        flush_name(path).map_err(fault)?;
        Self::start(seen, Heads::new(Open::Joined(file))).map_err(fault)
    }

    fn start(seen: HashMap<LedgerId, SignedTree>, heads: Heads) -> io::Result<Self> {
        let seen = Arc::new(Mutex::new(seen));
        let (writer, requests) = mpsc::unbounded_channel();
        let begun = Arc::<AtomicUsize>::default();
        let (shared, waiting) = (Arc::clone(&seen), Arc::clone(&begun));
        std::thread::Builder::new()
            .name("heads".into())
            .spawn(move || write_heads(heads, &shared, &waiting, requests))?;
        Ok(Self { seen, writer, begun })
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
        self.writer.send((ledger, tree, Some(done))).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Begins to remember it, for whoever will have to wait for that soon.
    pub fn begin(&self, ledger: LedgerId, tree: SignedTree) {
        let wanted = self.newest(ledger).is_none_or(|seen| seen.size < tree.size);
        // Where the disk hangs, those who wait for it are enough.
        if wanted && self.begun.load(Ordering::Acquire) < BEGUN {
            self.begun.fetch_add(1, Ordering::AcqRel);
            // Without the thread that writes, `remember` says so.
            let _ = self.writer.send((ledger, tree, None));
            // That thread is wanted at the disk, not behind this one: it may have been woken to wait for this processor,
            // and is back from it in some microseconds.
            std::thread::yield_now();
        }
    }

    /// The newest tree handed out of `ledger`.
    #[must_use]
    pub fn newest(&self, ledger: LedgerId) -> Option<SignedTree> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).get(&ledger).copied()
    }

    /// The newest trees handed out, of all ledgers.
    #[must_use]
    pub fn all(&self) -> HashMap<LedgerId, SignedTree> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Reads a file of heads: the largest tree of each ledger. Bytes that are no line of ours are a write that a crash cut short.
///
/// # Errors
/// If it cannot be read; one that is not there has nothing in it.
pub fn read_heads(path: &Path) -> io::Result<HashMap<LedgerId, SignedTree>> {
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

/// What is to be remembered, and who waits for that.
type HeadRequest = (LedgerId, SignedTree, Option<oneshot::Sender<io::Result<()>>>);

/// Begun ones that may wait to be written.
const BEGUN: usize = 256;
/// How much is added to the file before it is written anew with one line a ledger, in bytes.
const COMPACT_AFTER: u64 = 16 << 20;

/// The file, whose lines are only ever added to.
#[derive(Debug)]
struct Heads {
    file: Open,
    /// The name may be another file's after a crash: nothing is remembered before the directory is flushed.
    unnamed: bool,
}

#[derive(Debug)]
enum Open {
    /// The node's, which it compacts; opened when something is added.
    Own { file: Option<File>, path: PathBuf, added: u64 },
    /// Of a command beside the node. While the lock is held nobody compacts: what is added would be lost with the old file.
    Joined(Flock<File>),
}

impl Heads {
    const fn new(file: Open) -> Self {
        Self { file, unnamed: false }
    }

    fn add(&mut self, text: &str) -> io::Result<()> {
        // A write that failed, ours or that of a command beside us, may have left half a line, which must not swallow this.
        let line = format!("\n{text}");
        let path = match &mut self.file {
            Open::Own { file, path, added } => {
                *added += line.len() as u64;
                if file.is_none() {
                    *file = Some(OpenOptions::new().create(true).append(true).open(&*path)?);
                }
                Some(path.clone())
            }
            Open::Joined(_) => None,
        };
        let file: &mut File = match &mut self.file {
            Open::Own { file: Some(file), .. } => file,
            Open::Joined(file) => file,
            Open::Own { file: None, .. } => return Err(io::Error::other("the file of heads is not open")),
        };
        file.write_all(line.as_bytes())?;
        file.sync_data()?;
        if let (true, Some(path)) = (self.unnamed, path) {
            flush_name(&path)?;
            self.unnamed = false;
        }
        Ok(())
    }

    /// Compacts the file where it has grown and nobody else has it open. Whatever becomes of that, what is added next is
    /// added to the file that has the name then.
    fn keep_small(&mut self) {
        let Open::Own { file, path, added } = &mut self.file else { return };
        if *added < COMPACT_AFTER {
            return;
        }
        *added = 0;
        let Some(Ok(_locked)) = file.take().map(|file| Flock::lock(file, FlockArg::LockExclusiveNonblock))
        else {
            return;
        };
        self.unnamed = true;
        // As it is read, and not as it is known here: a command may have added to it.
        match read_heads(path).and_then(|all| compact(path, &all)) {
            Ok(()) => self.unnamed = false,
            Err(e) => tracing::warn!(error = %e, "the node's memory of heads is not compacted"),
        }
    }
}

/// Flushes the directory that a file's name stands in.
fn flush_name(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// Writes a file of heads anew: aside, flushed, renamed, so that a crash leaves the old file or the new one.
fn compact(path: &Path, seen: &HashMap<LedgerId, SignedTree>) -> io::Result<()> {
    let aside = path.with_extension("new");
    let mut file = File::create(&aside)?;
    let text: String = seen.iter().map(|(ledger, tree)| line(*ledger, tree)).collect();
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&aside, path)?;
    flush_name(path)
}

/// Writes what has gathered, flushes once, answers all: one flush for as many receipts as wait. What is on disk already is
/// not written again.
fn write_heads(
    mut heads: Heads,
    seen: &Mutex<HashMap<LedgerId, SignedTree>>,
    begun: &AtomicUsize,
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
        {
            let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            newest.retain(|ledger, tree| seen.get(ledger).is_none_or(|seen| seen.size < tree.size));
        }
        let text: String = newest.iter().map(|(ledger, tree)| line(*ledger, tree)).collect();
        let written = if text.is_empty() { Ok(()) } else { heads.add(&text) };
        if written.is_ok() {
            seen.lock().unwrap_or_else(PoisonError::into_inner).extend(newest);
        }
        for (_, _, done) in gathered.drain(..) {
            let Some(done) = done else {
                begun.fetch_sub(1, Ordering::AcqRel);
                continue;
            };
            let _ = done.send(written.as_ref().copied().map_err(|e| io::Error::new(e.kind(), e.to_string())));
        }
        heads.keep_small();
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

    #[tokio::test]
    async fn the_file_stays_small_and_loses_nothing_that_a_command_beside_the_node_adds() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("heads");
        let (ledger, other) = (LedgerId::new(), LedgerId::new());
        let tree = |size: u64| SignedTree { size, root: [u8::try_from(size % 251).unwrap(); 32] };
        let mut node = Heads::new(Open::Own { file: None, path: path.clone(), added: 0 });
        let grow = |node: &mut Heads, size: u64| {
            node.add(&line(ledger, &tree(size))).unwrap();
            if let Open::Own { added, .. } = &mut node.file {
                *added = COMPACT_AFTER;
            }
            node.keep_small();
        };
        for size in 1..=5 {
            grow(&mut node, size);
        }
        let lines =
            || std::fs::read_to_string(&path).unwrap().lines().filter(|line| !line.is_empty()).count();
        assert_eq!(lines(), 1);
        let command = SeenHeads::join(&path).unwrap();
        grow(&mut node, 6);
        assert_eq!(lines(), 2, "not while a command has it open");
        command.remember(other, tree(3)).await.unwrap();
        grow(&mut node, 7);
        assert_eq!(lines(), 4);
        drop(command);
        // Its thread lets go of the file.
        while Flock::lock(File::open(&path).unwrap(), FlockArg::LockExclusiveNonblock).is_err() {
            tokio::task::yield_now().await;
        }
        grow(&mut node, 8);
        assert_eq!(read_heads(&path).unwrap(), HashMap::from([(ledger, tree(8)), (other, tree(3))]));
        assert_eq!(lines(), 2);
    }

    #[tokio::test]
    async fn a_node_that_starts_beside_a_command_leaves_it_its_file_and_half_a_line_swallows_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("heads");
        let (ledger, other) = (LedgerId::new(), LedgerId::new());
        let tree = |size: u64| SignedTree { size, root: [7; 32] };
        let command = SeenHeads::join(&path).unwrap();
        let node = SeenHeads::open(&path).unwrap();
        command.remember(ledger, tree(3)).await.unwrap();
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"half a line").unwrap();
        node.remember(other, tree(5)).await.unwrap();
        // As a write that failed leaves it, ours or that of a command that was killed.
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"another half").unwrap();
        node.remember(ledger, tree(4)).await.unwrap();
        let heads = read_heads(&path).unwrap();
        assert_eq!(heads.get(&ledger), Some(&tree(4)));
        assert_eq!(heads.get(&other), Some(&tree(5)));
    }
}
