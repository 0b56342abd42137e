//! A member's lines, worked on by many threads and handed back in order.
//!
//! There is no reading thread and no queue of buffers: whoever is free takes the reader's lock, fills its own buffer
//! with the next chunk of whole lines (still warm in its cache when it then works on it) and lets go. What comes out
//! is put into a slot by number. A chunk is only taken while there is room between it and the one that the consumer
//! waits for, so memory is bounded by `workers` buffers and the results of `WINDOW` chunks for each, however uneven
//! the chunks are; and since chunks are numbered under the reader's lock, the one waited for is always in work.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, Scope};

use super::member::Reader;
use super::zip::Error;

/// Bytes of a chunk, where lines are no longer: small enough to stay in a core's cache. (Fuzzing wants many chunks of
/// small inputs.)
const CHUNK: usize = if cfg!(fuzzing) { 64 } else { 256 * 1024 };
/// Chunks for each worker that may be done and not yet consumed.
const WINDOW: usize = 4;

/// Splits a member into chunks of whole lines.
pub(crate) struct Lines<'f> {
    reader: Reader<'f>,
    /// The start of a line whose end is in the next chunk.
    carry: Vec<u8>,
    /// Bytes after which a line without an end is not gathered any further.
    longest: usize,
}

impl<'f> Lines<'f> {
    /// `longest` is in bytes, without the line feed.
    pub(crate) fn new(reader: Reader<'f>, longest: usize) -> Self {
        Self { reader, carry: Vec::new(), longest }
    }

    /// Fills `buffer` with the next chunk; it is empty at the end. It ends with a line feed unless the member does
    /// not, or the line is longer than may be: then what follows is in chunks that end anywhere.
    fn next(&mut self, buffer: &mut Vec<u8>) -> Result<(), Error> {
        buffer.clear();
        buffer.append(&mut self.carry);
        loop {
            let searched = buffer.len();
            if self.reader.read(buffer, CHUNK)? == 0 {
                return Ok(());
            }
            if let Some(end) = memchr::memrchr(b'\n', &buffer[searched..]) {
                let end = searched + end + 1;
                self.carry.extend_from_slice(&buffer[end..]);
                buffer.truncate(end);
                return Ok(());
            }
            if buffer.len() > self.longest {
                return Ok(());
            }
        }
    }
}

/// What came of a chunk.
pub(crate) struct Piece<T> {
    /// What the work made of it; `None` once the work was called off.
    pub(crate) found: Option<T>,
    /// Bytes of the chunk.
    pub(crate) length: u64,
    crc: crc32fast::Hasher,
}

struct State<T> {
    /// Chunks taken by workers.
    taken: u64,
    /// Those of them that the consumer does not have yet, the oldest first.
    slots: VecDeque<Option<Result<Piece<T>, Error>>>,
    /// There is no chunk beyond `taken`.
    ended: bool,
    /// The consumer is gone, or a worker panicked.
    cancelled: bool,
}

struct Shared<'f, T> {
    /// Taken before `state`, never after it.
    lines: Mutex<Lines<'f>>,
    state: Mutex<State<T>>,
    /// The oldest slot was filled, or the end was reached.
    filled: Condvar,
    /// There is room for another chunk.
    room: Condvar,
    window: usize,
    called_off: AtomicBool,
}

/// The results of the work on a member, in the order of its chunks.
pub(crate) struct Ordered<'f, T> {
    shared: Arc<Shared<'f, T>>,
    crc: crc32fast::Hasher,
    expected_crc: u32,
    name: &'static str,
    /// Bytes that are still read after the work was called off.
    left: Option<u64>,
}

/// Starts `workers` threads that do `work` on each chunk of `lines`.
///
/// # Errors
/// Where not even one thread can be started.
pub(crate) fn ordered<'scope, 'f: 'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    lines: Lines<'f>,
    workers: usize,
    work: impl Fn(&[u8]) -> T + Send + Sync + 'scope,
) -> Result<Ordered<'f, T>, Error> {
    let member = lines.reader.member();
    let (expected_crc, name) = (member.crc, member.name);
    let shared = Arc::new(Shared {
        lines: Mutex::new(lines),
        state: Mutex::new(State { taken: 0, slots: VecDeque::new(), ended: false, cancelled: false }),
        filled: Condvar::new(),
        room: Condvar::new(),
        window: workers * WINDOW,
        called_off: AtomicBool::new(false),
    });
    let ordered = Ordered {
        shared: Arc::clone(&shared),
        crc: crc32fast::Hasher::new(),
        expected_crc,
        name,
        left: None,
    };
    let work = Arc::new(work);
    for started in 0..workers {
        let (shared, work) = (Arc::clone(&shared), Arc::clone(&work));
        let thread = Builder::new().name(format!("verify {name}"));
        match thread.spawn_scoped(scope, move || shared.run(&*work)) {
            Err(e) if started == 0 => return Err(e.into()),
            Err(_) => break,
            Ok(_) => {}
        }
    }
    Ok(ordered)
}

impl<T> Shared<'_, T> {
    fn run(&self, work: &impl Fn(&[u8]) -> T) {
        let _guard = CancelOnPanic(self);
        let mut buffer = Vec::new();
        while let Some(number) = self.take(&mut buffer) {
            let mut crc = crc32fast::Hasher::new();
            crc.update(&buffer);
            let found = (!self.called_off.load(Ordering::Relaxed)).then(|| work(&buffer));
            self.put(number, Ok(Piece { found, length: buffer.len() as u64, crc }));
        }
    }

    /// Fills `buffer` with the next chunk and answers with its number.
    fn take(&self, buffer: &mut Vec<u8>) -> Option<u64> {
        let mut lines = lock(&self.lines);
        let mut state = lock(&self.state);
        while state.slots.len() >= self.window && !state.cancelled {
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.ended || state.cancelled {
            return None;
        }
        drop(state);
        let read = lines.next(buffer);
        let mut state = lock(&self.state);
        let number = state.taken;
        match read {
            Ok(()) if buffer.is_empty() => {
                state.ended = true;
                self.filled.notify_all();
                return None;
            }
            Ok(()) => state.slots.push_back(None),
            Err(e) => {
                state.ended = true;
                state.slots.push_back(Some(Err(e)));
                self.filled.notify_all();
            }
        }
        state.taken += 1;
        (!state.ended).then_some(number)
    }

    fn put(&self, number: u64, piece: Result<Piece<T>, Error>) {
        let mut state = lock(&self.state);
        let consumed = state.taken - state.slots.len() as u64;
        if let Some(slot) = usize::try_from(number - consumed).ok().and_then(|i| state.slots.get_mut(i)) {
            *slot = Some(piece);
        }
        if number == consumed {
            self.filled.notify_all();
        }
    }

    fn cancel(&self) {
        lock(&self.state).cancelled = true;
        self.filled.notify_all();
        self.room.notify_all();
    }
}

impl<T> Ordered<'_, T> {
    /// The next result; `None` after the last, when the member is known to be whole.
    pub(crate) fn next(&mut self) -> Result<Option<Piece<T>>, Error> {
        if self.left == Some(0) {
            return Ok(None);
        }
        let shared = &*self.shared;
        let mut state = lock(&shared.state);
        loop {
            if let Some(Some(_)) = state.slots.front() {
                let piece =
                    state.slots.pop_front().flatten().expect("the oldest slot was just seen to be filled")?;
                shared.room.notify_one();
                self.crc.combine(&piece.crc);
                self.left = self.left.map(|left| left.saturating_sub(piece.length));
                return Ok(Some(piece));
            }
            if state.ended && state.slots.is_empty() {
                return if self.crc.clone().finalize() == self.expected_crc {
                    Ok(None)
                } else {
                    Err(Error::Zip(format!("{} does not match its check sum", self.name)))
                };
            }
            if state.cancelled {
                return Err(Error::Io(std::io::Error::other("a verifying thread died")));
            }
            state = shared.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// No further work is done: what is still to come is only read and held to the check sum, and of that no more
    /// than `most` bytes, beyond which the member counts as whole.
    pub(crate) fn call_off(&mut self, most: u64) {
        self.shared.called_off.store(true, Ordering::Relaxed);
        self.left = Some(most);
    }
}

impl<T> Drop for Ordered<'_, T> {
    fn drop(&mut self) {
        self.shared.cancel();
    }
}

struct CancelOnPanic<'a, 'f, T>(&'a Shared<'f, T>);

impl<T> Drop for CancelOnPanic<'_, '_, T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.cancel();
        }
    }
}

/// A panic elsewhere leaves nothing half done behind these locks, and ends the scope anyway.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
