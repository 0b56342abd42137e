//! A node's memory, outside the database, of what it handed out.
//!
//! A file of lines that are only ever added, of which a crash leaves each whole or not at all:
//!
//! | line | says |
//! |---|---|
//! | `ledger size root` | this tree was handed out; the largest of a ledger counts |
//! | `? ledger size timeline tables root` | this tree is about to be committed there, and may be handed out; the last of a ledger counts |
//! | `- ledger size root` | of that nothing was handed out |
//!
//! The second is written while the batch is on its way to the database, so that its flush is not in the way of the receipts:
//! that the tree was handed out is then written without one, before anything leaves, and a process that is killed leaves it.
//! Only a machine that goes down takes it along. What it leaves is a tree that was about to be committed, and the next start
//! asks the database ([`super::history`]).
//!
//! Whoever withdraws costs nobody anything but a flush: without the second line, the first is written with one.

use super::checkpoint::{Error, SignedTree};
use super::hex;
use crate::database::server::Server;
use crate::id::LedgerId;
use nix::fcntl::{Flock, FlockArg};
use statusledger_verify::Hash;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{mpsc, oneshot};

/// Which history of a database: what is committed in one is there as long as it is that one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its timeline, which a promotion or a recovery to a point in time changes.
    timeline: String,
    /// The object id of the table of heads: a database that was restored has another.
    tables: i64,
}

impl Place {
    /// Of a server; none of a standby.
    #[must_use]
    pub fn of(server: &Server) -> Option<Self> {
        Some(Self { timeline: server.timeline.clone()?, tables: server.tables })
    }
}

/// A tree that was about to be committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
    /// The tree.
    pub tree: SignedTree,
    /// Where.
    pub place: Place,
}

/// What a file of heads says.
#[derive(Debug, Default)]
pub struct Remembered {
    /// The largest tree of each ledger that was handed out.
    pub seen: HashMap<LedgerId, SignedTree>,
    /// The newest of each that may have been, beyond those.
    pub intended: HashMap<LedgerId, Intent>,
}

/// This node's memory of what it handed out.
#[derive(Clone, Debug)]
pub struct SeenHeads {
    /// What was handed out, as the file says it. Locked for look-ups only; written by the file's own thread.
    seen: Arc<Mutex<HashMap<LedgerId, SignedTree>>>,
    /// What a process before this one may have handed out, until that is known. Locked for look-ups only.
    left: Arc<Mutex<HashMap<LedgerId, Intent>>>,
    writer: mpsc::UnboundedSender<Request>,
    /// How many of those for which nobody waits are still to be written.
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
        let remembered = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(_locked) => {
                let remembered = read(path).map_err(fault)?;
                compact(path, &remembered).map_err(fault)?;
                remembered
            }
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
                // A command is adding to it: it stays as it is, whatever it ends in.
                flush_name(path).map_err(fault)?;
                let remembered = read(path).map_err(fault)?;
                File::open(path).and_then(|file| file.sync_data()).map_err(fault)?;
                remembered
            }
            Err((_, e)) => return Err(fault(e.into())),
        };
        Self::start(remembered, heads).map_err(fault)
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
        let Remembered { seen, .. } = read(path).map_err(fault)?;
        if std::fs::read(path).map_err(fault)?.last().is_some_and(|last| *last != b'\n') {
            // A line that a crash cut short must not swallow the next.
            file.write_all(b"\n").map_err(fault)?;
        }
        file.sync_data().map_err(fault)?;
        flush_name(path).map_err(fault)?;
        // What the node intends is the node's.
        let remembered = Remembered { seen, intended: HashMap::new() };
        Self::start(remembered, Heads::new(Open::Joined(file))).map_err(fault)
    }

    fn start(remembered: Remembered, heads: Heads) -> io::Result<Self> {
        let Remembered { seen, intended } = remembered;
        let (writer, requests) = mpsc::unbounded_channel();
        let (seen, begun) = (Arc::new(Mutex::new(seen)), Arc::<AtomicUsize>::default());
        let left = Arc::new(Mutex::new(intended));
        let intended = HashMap::new();
        let mut scribe =
            Scribe { heads, seen: Arc::clone(&seen), begun: Arc::clone(&begun), intended, doubted: false };
        std::thread::Builder::new().name("heads".into()).spawn(move || scribe.write(requests))?;
        Ok(Self { seen, left, writer, begun })
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
        self.writer.send(Request::Remember(ledger, tree, Some(done))).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Says that a tree is about to be committed, and will be handed out then. Returns whether that is being written.
    pub fn intend(&self, ledger: LedgerId, intent: Intent) -> bool {
        self.ask(ledger, intent.tree, |ledger, _| Request::Intend(ledger, intent))
    }

    /// Says that of `tree`, which was to be committed, nothing was handed out. It may be yet: that is written then.
    pub fn withdraw(&self, ledger: LedgerId, tree: SignedTree) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.retain(|of, intent| *of != ledger || intent.tree != tree);
        drop(left);
        let _ = self.writer.send(Request::Withdraw(ledger, tree));
    }

    /// Says that what this process meant to commit elsewhere than at `place`, and did not hand out, never will be.
    pub fn settle(&self, place: Place) {
        let _ = self.writer.send(Request::Settle(place));
    }

    /// Says the same of all that it meant to commit; returns when that is on disk.
    ///
    /// # Errors
    /// If it cannot be written: then the next start asks the database.
    pub async fn close(&self) -> io::Result<()> {
        let (done, answer) = oneshot::channel();
        let gone = || io::Error::other("the thread that writes the heads is gone");
        self.writer.send(Request::Close(done)).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// What a process before this one was about to commit when it ended, until it is remembered or withdrawn.
    #[must_use]
    pub fn left(&self) -> HashMap<LedgerId, Intent> {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.retain(|ledger, intent| self.newest(*ledger).is_none_or(|seen| seen.size < intent.tree.size));
        left.clone()
    }

    /// Begins to remember it, for whoever will have to wait for that soon.
    pub fn begin(&self, ledger: LedgerId, tree: SignedTree) {
        self.ask(ledger, tree, |ledger, tree| Request::Remember(ledger, tree, None));
    }

    /// Asks for what nobody waits for; returns whether it did.
    fn ask(
        &self,
        ledger: LedgerId,
        tree: SignedTree,
        request: impl FnOnce(LedgerId, SignedTree) -> Request,
    ) -> bool {
        let wanted = self.newest(ledger).is_none_or(|seen| seen.size < tree.size);
        // Where the disk hangs, those who wait for it are enough.
        let asks = wanted && self.begun.load(Ordering::Acquire) < BEGUN;
        if asks {
            self.begun.fetch_add(1, Ordering::AcqRel);
            // Without the thread that writes, `remember` says so.
            let _ = self.writer.send(request(ledger, tree));
            // That thread is wanted at the disk, not behind this one: it may have been woken to wait for this processor,
            // and is back from it in some microseconds.
            std::thread::yield_now();
        }
        asks
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

/// Reads a file of heads. Bytes that are no line of ours are a write that a crash cut short.
///
/// # Errors
/// If it cannot be read; one that is not there has nothing in it.
pub fn read(path: &Path) -> io::Result<Remembered> {
    let mut remembered = Remembered::default();
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(remembered),
        Err(e) => return Err(e),
    };
    let Remembered { seen, intended } = &mut remembered;
    for line in BufReader::new(file).lines() {
        match Line::parse(&line?) {
            Some(Line::Seen(ledger, tree)) => {
                let known = seen.entry(ledger).or_insert(tree);
                if tree.size > known.size {
                    *known = tree;
                }
            }
            Some(Line::Intended(ledger, intent)) => drop(intended.insert(ledger, intent)),
            Some(Line::Withdrawn(ledger, tree)) => {
                intended.retain(|of, intent| *of != ledger || intent.tree != tree);
            }
            None => {}
        }
    }
    intended.retain(|ledger, intent| seen.get(ledger).is_none_or(|seen| seen.size < intent.tree.size));
    Ok(remembered)
}

/// The largest tree of each ledger that a file of heads says was handed out.
///
/// # Errors
/// If it cannot be read; one that is not there has nothing in it.
pub fn read_heads(path: &Path) -> io::Result<HashMap<LedgerId, SignedTree>> {
    Ok(read(path)?.seen)
}

/// A line of the file.
#[derive(Debug)]
enum Line {
    Seen(LedgerId, SignedTree),
    Intended(LedgerId, Intent),
    Withdrawn(LedgerId, SignedTree),
}

impl Line {
    fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split(' ').collect();
        Some(match words[..] {
            [ledger, size, root] => Self::Seen(ledger.parse().ok()?, tree(size, root)?),
            ["-", ledger, size, root] => Self::Withdrawn(ledger.parse().ok()?, tree(size, root)?),
            ["?", ledger, size, timeline, tables, root] => {
                let place = Place { timeline: timeline.to_owned(), tables: tables.parse().ok()? };
                Self::Intended(ledger.parse().ok()?, Intent { tree: tree(size, root)?, place })
            }
            _ => return None,
        })
    }
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let of = |ledger: &LedgerId, tree: &SignedTree| format!("{ledger} {} {}", tree.size, hex(&tree.root));
        match self {
            Self::Seen(ledger, tree) => writeln!(f, "{}", of(ledger, tree)),
            Self::Withdrawn(ledger, tree) => writeln!(f, "- {}", of(ledger, tree)),
            Self::Intended(ledger, Intent { tree, place: Place { timeline, tables } }) => {
                // What is cut short anywhere is no line.
                writeln!(f, "? {ledger} {} {timeline} {tables} {}", tree.size, hex(&tree.root))
            }
        }
    }
}

fn tree(size: &str, root: &str) -> Option<SignedTree> {
    if root.len() != 64 {
        return None;
    }
    let mut bytes: Hash = [0; 32];
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(root.get(i * 2..i * 2 + 2)?, 16).ok()?;
    }
    Some(SignedTree { size: size.parse().ok()?, root: bytes })
}

/// What the file is to say.
#[derive(Debug)]
enum Request {
    /// It was handed out; and who waits for that.
    Remember(LedgerId, SignedTree, Option<oneshot::Sender<io::Result<()>>>),
    Intend(LedgerId, Intent),
    Withdraw(LedgerId, SignedTree),
    Settle(Place),
    Close(oneshot::Sender<io::Result<()>>),
}

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

    /// Adds lines; `flush`: and returns when they are on disk.
    fn add(&mut self, text: &str, flush: bool) -> io::Result<()> {
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
        // Where the name is not known to be on disk, nothing is.
        if flush || self.unnamed {
            file.sync_data()?;
        }
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
        match read(path).and_then(|all| compact(path, &all)) {
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
fn compact(path: &Path, remembered: &Remembered) -> io::Result<()> {
    let aside = path.with_extension("new");
    let mut file = File::create(&aside)?;
    let seen = remembered.seen.iter().map(|(ledger, tree)| Line::Seen(*ledger, *tree));
    let intended = remembered.intended.iter().map(|(ledger, intent)| Line::Intended(*ledger, intent.clone()));
    let text: String = seen.chain(intended).map(|line| line.to_string()).collect();
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&aside, path)?;
    flush_name(path)
}

/// The file's own thread.
struct Scribe {
    heads: Heads,
    seen: Arc<Mutex<HashMap<LedgerId, SignedTree>>>,
    begun: Arc<AtomicUsize>,
    /// What is on disk as about to be committed by this process.
    intended: HashMap<LedgerId, Intent>,
    /// A write or a flush failed, and may have taken along what was written before it.
    doubted: bool,
}

impl Scribe {
    /// Writes what has gathered, flushes once, answers all: one flush for as many receipts as wait. What is on disk already
    /// is not written again.
    fn write(&mut self, mut requests: mpsc::UnboundedReceiver<Request>) {
        let mut gathered = Vec::new();
        while let Some(first) = requests.blocking_recv() {
            gathered.push(first);
            while let Ok(next) = requests.try_recv() {
                gathered.push(next);
            }
            self.add(&mut gathered);
            self.heads.keep_small();
        }
    }

    fn add(&mut self, gathered: &mut Vec<Request>) {
        let mut waiting = Vec::new();
        let mut newest: HashMap<LedgerId, SignedTree> = HashMap::new();
        let mut intended: HashMap<LedgerId, Intent> = HashMap::new();
        let mut text = String::new();
        let mut withdrawn = Vec::new();
        let mut closing = false;
        for request in gathered.drain(..) {
            match request {
                Request::Remember(ledger, tree, done) => {
                    let at = newest.entry(ledger).or_insert(tree);
                    if tree.size > at.size {
                        *at = tree;
                    }
                    match done {
                        Some(done) => waiting.push(done),
                        None => drop(self.begun.fetch_sub(1, Ordering::AcqRel)),
                    }
                }
                Request::Intend(ledger, intent) => {
                    intended.insert(ledger, intent);
                    self.begun.fetch_sub(1, Ordering::AcqRel);
                }
                Request::Withdraw(ledger, tree) => {
                    intended.retain(|of, intent| *of != ledger || intent.tree != tree);
                    self.intended.retain(|of, intent| *of != ledger || intent.tree != tree);
                    withdrawn.push((ledger, tree));
                }
                Request::Settle(place) => {
                    intended.retain(|_, intent| intent.place == place);
                    text += &self.withdraw(|intent| intent.place != place);
                }
                Request::Close(done) => {
                    intended.clear();
                    text += &self.withdraw(|_| true);
                    closing = true;
                    waiting.push(done);
                }
            }
        }
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let beyond = |ledger: &LedgerId, size| seen.get(ledger).is_none_or(|seen| seen.size < size);
        newest.retain(|ledger, tree| beyond(ledger, tree.size));
        intended.retain(|ledger, intent| {
            let size = intent.tree.size;
            beyond(ledger, size) && newest.get(ledger).is_none_or(|tree| tree.size < size)
        });
        for (ledger, tree) in withdrawn {
            if beyond(&ledger, tree.size) {
                text += &Line::Withdrawn(ledger, tree).to_string();
            }
        }
        if self.doubted {
            text.extend(seen.iter().map(|(ledger, tree)| Line::Seen(*ledger, *tree).to_string()));
        }
        drop(seen);
        // That it may be handed out is on disk: that it is need not be, before it is.
        let known = newest.iter().all(|(of, tree)| self.intended.get(of).is_some_and(|i| i.tree == *tree));
        let flush = !known || !intended.is_empty() || closing || self.doubted;
        for (ledger, intent) in &intended {
            text += &Line::Intended(*ledger, intent.clone()).to_string();
        }
        for (ledger, tree) in &newest {
            text += &Line::Seen(*ledger, *tree).to_string();
        }
        let written = if text.is_empty() { Ok(()) } else { self.heads.add(&text, flush) };
        self.doubted = written.is_err() || self.doubted && text.is_empty();
        if written.is_err() {
            self.intended.clear();
        } else {
            self.intended.extend(intended);
            self.intended.retain(|of, intent| newest.get(of).is_none_or(|tree| tree.size < intent.tree.size));
            self.seen.lock().unwrap_or_else(PoisonError::into_inner).extend(newest);
        }
        for done in waiting {
            let _ = done.send(written.as_ref().copied().map_err(|e| io::Error::new(e.kind(), e.to_string())));
        }
    }

    /// Forgets what was about to be committed and is `such`; returns the lines that say so.
    fn withdraw(&mut self, such: impl Fn(&Intent) -> bool) -> String {
        self.intended
            .extract_if(|_, intent| such(intent))
            .map(|(ledger, intent)| Line::Withdrawn(ledger, intent.tree).to_string())
            .collect()
    }
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
        file.write_all(
            &Line::Seen(other, SignedTree { size: 5, root: [5; 32] }).to_string().as_bytes()[..60],
        )
        .unwrap();
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
            node.add(&Line::Seen(ledger, tree(size)).to_string(), true).unwrap();
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

    fn place(timeline: &str) -> Place {
        Place { timeline: timeline.into(), tables: 16_385 }
    }

    fn intent(size: u64, timeline: &str) -> Intent {
        Intent { tree: SignedTree { size, root: [7; 32] }, place: place(timeline) }
    }

    /// Returns when all that was asked of it is in the file.
    async fn done(heads: &SeenHeads) {
        heads.remember(LedgerId::new(), SignedTree { size: 1, root: [1; 32] }).await.unwrap();
    }

    #[tokio::test]
    async fn what_was_about_to_be_committed_is_known_until_it_was_handed_out_or_was_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("heads");
        let heads = SeenHeads::open(&path).unwrap();
        let [handed_out, withdrawn, settled, open] = [(); 4].map(|()| LedgerId::new());
        heads.intend(handed_out, intent(3, "00000001"));
        heads.intend(withdrawn, intent(4, "00000001"));
        heads.intend(settled, intent(5, "00000001"));
        heads.intend(open, intent(6, "00000002"));
        done(&heads).await;
        let left = |path: &Path| read(path).unwrap().intended;
        assert_eq!(left(&path).len(), 4);
        assert_eq!(left(&path)[&open], intent(6, "00000002"));
        assert!(heads.newest(handed_out).is_none() && heads.left().is_empty());
        heads.begin(handed_out, intent(3, "").tree);
        heads.withdraw(withdrawn, intent(4, "").tree);
        heads.withdraw(open, intent(5, "").tree);
        heads.settle(place("00000002"));
        done(&heads).await;
        assert_eq!(heads.newest(handed_out), Some(intent(3, "").tree));
        assert_eq!(left(&path), HashMap::from([(open, intent(6, "00000002"))]));

        // A machine that goes down leaves what is open to the next start, which keeps it until it is told.
        let crashed = dir.path().join("crashed");
        std::fs::copy(&path, &crashed).unwrap();
        for _ in 0..2 {
            let next = SeenHeads::open(&crashed).unwrap();
            assert_eq!(next.left(), HashMap::from([(open, intent(6, "00000002"))]));
            assert_eq!(next.newest(handed_out), Some(intent(3, "").tree));
            next.settle(place("00000003"));
            done(&next).await;
        }
        let next = SeenHeads::open(&crashed).unwrap();
        next.remember(open, intent(6, "").tree).await.unwrap();
        assert!(next.left().is_empty() && left(&crashed).is_empty());

        // One that stops in order leaves nothing open.
        heads.close().await.unwrap();
        assert!(left(&path).is_empty());
        assert!(std::fs::read_to_string(&path).unwrap().contains(&format!("- {open} 6 ")));
    }
}
