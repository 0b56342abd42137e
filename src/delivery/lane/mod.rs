//! A lane: one destination's deliveries, in order, on the node that holds it.
//!
//! First attempts start in the order of their numbers; one that fails moves to the retries, which take every other
//! turn when both wait, so neither starves the other. At most `max_in_flight` attempts run at once, both together.
//! After a run of failures the lane only probes: one attempt, then a pause that grows. All waiting is this task's
//! own; other lanes do not notice.
//!
//! Memory holds a bounded part of the queue. What is not in memory is in the database and is read when its turn
//! comes, so a lane that was handed too much, or has just changed hands, goes on from `sent_through`.

mod outcome;
mod send;

use super::LaneKey;
use super::channels::webhook;
use super::configuration;
use super::dispatcher::Shared;
use super::queue::{self, Held, Job, LEASE, Wanted};
use super::results::Report;
use crate::database::in_time;
use crate::receipt::{self, Signatures};
use outcome::fraction;
use send::send;
use std::collections::{BTreeSet, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use time::OffsetDateTime;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

/// Jobs in memory, at most; each holds its entry (up to 64 KiB, mostly below 1).
const IN_MEMORY: usize = 512;
/// Bytes of entries and openings that wait in memory for their first attempt; what comes then is left to the database.
const BYTES_IN_MEMORY: usize = 4 << 20;
/// Jobs read from the database at once.
const READ: i64 = 256;
/// How long a number that the database has may be on its way through memory.
const ON_ITS_WAY: Duration = Duration::from_millis(50);
/// A retry that is under way stands in the database as due until its outcome is written. How long after the last
/// reading others are looked for beside it.
const RETRIES_AGAIN: Duration = Duration::from_secs(5);
/// A lane with nothing to do is let go after this and up to half as long again: thousands that became idle together do not
/// end together.
const IDLE: Duration = Duration::from_secs(60);

/// What a lane is told.
#[derive(Debug)]
pub enum Message {
    /// Deliveries that were just committed, numbered without a gap from the first on.
    Jobs(Vec<Job>),
    /// What the database says of the lane: its newest number, and whether a retry's time has come.
    Look {
        /// The newest number.
        last_number: i64,
        /// Whether a retry is due.
        retry_due: bool,
    },
    /// The destination's settings have changed.
    Changed,
    /// The lease was renewed at that moment.
    Renewed(Instant),
    /// Another node holds the lane, or the destination was disabled: send nothing more.
    Lost,
}

/// An attempt that has come back, or could not be made.
enum Done {
    /// It was made.
    Sent {
        job: Box<Job>,
        started_at: OffsetDateTime,
        attempt: webhook::Attempt,
        signatures: Option<Signatures>,
    },
    /// The body could not be made.
    Unmade { job: Box<Job>, started_at: OffsetDateTime, error: receipt::Error },
    /// An outcome was written, or was not this node's (`mine`) to write: the lane was lost or stopped.
    Written { number: i64, mine: bool },
    /// Jobs were read.
    Read { retries: bool, jobs: Result<queue::Read, queue::Error> },
}

/// Whether something was left to the database that a read which is on its way may not have seen.
#[derive(Clone, Copy, Default)]
struct Missed(bool);

/// The task of a lane.
pub struct LaneTask {
    shared: Arc<Shared>,
    key: LaneKey,
    fence: i64,
    lease_until: Instant,
    /// The next number whose first attempt is to start.
    next: i64,
    /// First attempts in memory, in order; the first is `next` unless there is a gap to read.
    first: VecDeque<Job>,
    /// Their bytes.
    first_bytes: usize,
    /// Whether the database may hold first attempts that are not in memory.
    behind: bool,
    /// A number that the database has and memory has not, and when that is no longer taken for a handover that is
    /// still on its way.
    gap: Option<(i64, Instant)>,
    /// Retries in memory whose time has come.
    retries: VecDeque<Job>,
    /// Numbers of retries whose time has come and whose outcome is not written yet.
    retrying: HashSet<i64>,
    /// When such were last looked for.
    retries_seen: Option<Instant>,
    /// Whether first attempts are being read, and whether any came meanwhile that had to be left to the database.
    reading: Option<Missed>,
    /// When the database may hold retries that are due.
    retry_at: Option<Instant>,
    /// Whether retries are being read.
    reading_retries: bool,
    /// Numbers whose outcome was written since that began: the read may have seen them as they were before.
    written_meanwhile: HashSet<i64>,
    retry_turn: bool,
    running: JoinSet<Done>,
    in_flight: usize,
    /// First attempts whose outcome is not written yet: `sent_through` stands before the lowest.
    unsettled: BTreeSet<i64>,
    /// Numbers in memory, in flight, or with an outcome on its way to the database.
    busy: HashSet<i64>,
    failures: u32,
    failing_since: Option<OffsetDateTime>,
    paused_until: Option<Instant>,
    /// What became of an attempt could not be written in time: the lane is to be taken up anew, from what is.
    left_unwritten: bool,
    last_work: Instant,
    /// After how long without work it is let go.
    idle: Duration,
}

impl LaneTask {
    /// A lane that this node has just got hold of.
    pub fn new(shared: Arc<Shared>, held: Held) -> Self {
        let now = Instant::now();
        Self {
            shared,
            key: held.key,
            fence: held.fence,
            lease_until: now + LEASE,
            next: held.sent_through + 1,
            first: VecDeque::new(),
            first_bytes: 0,
            behind: held.behind,
            gap: None,
            retries: VecDeque::new(),
            retrying: HashSet::new(),
            retries_seen: None,
            reading: None,
            reading_retries: false,
            written_meanwhile: HashSet::new(),
            retry_at: Some(now),
            retry_turn: false,
            running: JoinSet::new(),
            in_flight: 0,
            unsettled: BTreeSet::new(),
            busy: HashSet::new(),
            failures: 0,
            failing_since: held.failing_since,
            paused_until: None,
            left_unwritten: false,
            last_work: now,
            idle: IDLE + (IDLE / 2).mul_f64(fraction()),
        }
    }

    /// Works until the lane is lost, idle, or the node stops.
    pub async fn run(mut self, mut messages: mpsc::Receiver<Message>) {
        let mut stopping = self.shared.stopping();
        loop {
            if let Err(e) = self.start_what_may_start().await {
                tracing::warn!(destination = %self.key.destination, error = %e, "a lane waits");
                self.paused_until = Some(Instant::now() + Duration::from_millis(500));
            }
            let idle =
                self.in_flight == 0 && self.first.is_empty() && self.retries.is_empty() && !self.behind;
            let unused = idle && self.running.is_empty() && self.last_work.elapsed() >= self.idle;
            if unused || self.left_unwritten {
                break;
            }
            let wake = self.next_wake();
            tokio::select! {
                biased;
                Some(done) = self.running.join_next(), if !self.running.is_empty() => match done {
                    Ok(done) => self.finished(done).await,
                    Err(e) => {
                        tracing::error!(error = %e, "an attempt panicked");
                        break;
                    }
                },
                message = messages.recv() => match message {
                    Some(Message::Lost) | None => break,
                    Some(message) => self.told(message),
                },
                () = tokio::time::sleep_until(wake.into()) => {}
                _ = stopping.changed() => break,
            }
        }
        self.wind_down().await;
    }

    fn told(&mut self, message: Message) {
        match message {
            Message::Jobs(jobs) => {
                self.last_work = Instant::now();
                for job in jobs {
                    let expected = self.first.back().map_or(self.next, |last| last.facts.number + 1);
                    if job.facts.number < expected {
                        continue;
                    }
                    let full = self.first.len() >= IN_MEMORY || self.first_bytes >= BYTES_IN_MEMORY;
                    if self.behind || job.facts.number != expected || full {
                        self.behind = true;
                        if let Some(missed) = &mut self.reading {
                            missed.0 = true;
                        }
                    } else {
                        self.busy.insert(job.facts.number);
                        self.first_bytes += job.weight();
                        self.first.push_back(job);
                    }
                }
            }
            Message::Look { last_number, retry_due } => {
                self.last_work = Instant::now();
                if last_number > self.newest() && self.gap.is_none() {
                    self.gap = Some((last_number, Instant::now() + ON_ITS_WAY));
                }
                if retry_due {
                    let now = Instant::now();
                    let seen = self.retries_seen.filter(|_| !self.retrying.is_empty());
                    let at = seen.map_or(now, |seen| now.max(seen + RETRIES_AGAIN));
                    self.retry_at = Some(self.retry_at.map_or(at, |known| known.min(at)));
                }
            }
            Message::Renewed(at) => self.lease_until = at + LEASE,
            Message::Changed | Message::Lost => {}
        }
    }

    /// The newest number that is in memory or was.
    fn newest(&self) -> i64 {
        self.first.back().map_or(self.next - 1, |last| last.facts.number)
    }

    fn next_wake(&self) -> Instant {
        let now = Instant::now();
        let mut wake = now + Duration::from_secs(5);
        for at in [self.retry_at, self.paused_until, self.gap.map(|(_, at)| at)].into_iter().flatten() {
            if at > now {
                wake = wake.min(at);
            }
        }
        wake
    }

    /// Whether the lease is surely ours for one more attempt's start.
    fn may_send(&self) -> bool {
        Instant::now() + Duration::from_secs(2) < self.lease_until
    }

    async fn start_what_may_start(&mut self) -> Result<(), queue::Error> {
        let now = Instant::now();
        if self.paused_until.is_some_and(|until| until > now) {
            return Ok(());
        }
        self.paused_until = None;
        if let Some((number, at)) = self.gap
            && at <= now
        {
            self.behind |= number > self.newest();
            self.gap = None;
        }
        loop {
            let waiting = !self.first.is_empty() || !self.retries.is_empty();
            let unread = self.behind && self.reading.is_none() || self.retry_at.is_some_and(|at| at <= now);
            if !self.may_send() || !(waiting || unread) {
                return Ok(());
            }
            let shared = Arc::clone(&self.shared);
            let Some(settings) =
                shared.configurations.get(&shared.database, &shared.data_keys, self.key).await?
            else {
                self.set_aside(now);
                return Ok(());
            };
            // That may have taken longer than the lease.
            if !self.may_send() {
                return Ok(());
            }
            self.read_ahead();
            if self.first.is_empty() && self.retries.is_empty() {
                return Ok(());
            }
            let probing = self.failures >= self.shared.settings.breaker_failures.max(1);
            let room = if probing { 1 } else { settings.max_in_flight };
            if self.in_flight >= room {
                return Ok(());
            }
            let take_retry = !self.retries.is_empty() && (self.retry_turn || self.first.is_empty());
            self.retry_turn = !take_retry;
            let job = if take_retry { self.retries.pop_front() } else { self.first.pop_front() };
            let Some(job) = job else { return Ok(()) };
            if !take_retry {
                self.first_bytes -= job.weight();
                self.next = job.facts.number + 1;
                self.unsettled.insert(job.facts.number);
            }
            self.in_flight += 1;
            self.last_work = now;
            self.running.spawn(send(shared, settings, job));
        }
    }

    /// Leaves everything to the database: the destination takes nothing, and the lane will be lost, or it was made after
    /// its workspace's were read, which is known in a moment.
    fn set_aside(&mut self, now: Instant) {
        for job in self.first.drain(..) {
            self.busy.remove(&job.facts.number);
            self.behind = true;
        }
        self.first_bytes = 0;
        for job in self.retries.drain(..) {
            self.busy.remove(&job.facts.number);
            self.retrying.remove(&job.facts.number);
            self.retry_at = Some(now);
        }
        self.paused_until = Some(now + configuration::ABSENT);
    }

    /// Has what memory lacks read from the database, while what it has is being sent.
    fn read_ahead(&mut self) {
        let room = self.first.len() < READ as usize && self.first_bytes < BYTES_IN_MEMORY;
        if self.behind && self.reading.is_none() && room {
            self.reading = Some(Missed::default());
            self.read(Wanted::First { from: self.newest() + 1 });
        }
        let due = self.retry_at.is_some_and(|at| at <= Instant::now());
        if due && !self.reading_retries && self.retries.is_empty() {
            self.retry_at = None;
            self.retries_seen = Some(Instant::now());
            self.reading_retries = true;
            self.read(Wanted::Retries);
        }
    }

    fn read(&mut self, wanted: Wanted) {
        let (shared, key) = (Arc::clone(&self.shared), self.key);
        self.running.spawn(async move {
            let reading = queue::read_jobs(&shared.database, &shared.data_keys, key, wanted, READ);
            let jobs = in_time(reading).await.unwrap_or_else(|e| Err(e.into()));
            Done::Read { retries: matches!(wanted, Wanted::Retries), jobs }
        });
    }

    /// What became of an attempt is in the database.
    fn is_written(&mut self, number: i64) {
        self.retrying.remove(&number);
        self.busy.remove(&number);
        if self.reading_retries {
            self.written_meanwhile.insert(number);
        }
    }

    /// Takes what was read.
    fn has_read(&mut self, retries: bool, jobs: Result<queue::Read, queue::Error>) {
        let mut written_meanwhile = HashSet::new();
        let missed = if retries {
            self.reading_retries = false;
            written_meanwhile = std::mem::take(&mut self.written_meanwhile);
            false
        } else {
            self.reading.take().is_some_and(|missed| missed.0)
        };
        let queue::Read { jobs, more } = match jobs {
            Ok(read) => read,
            Err(e) => {
                tracing::warn!(destination = %self.key.destination, error = %e, "a lane waits");
                let again = Instant::now() + Duration::from_millis(500);
                self.paused_until = Some(again);
                if retries {
                    self.retry_at = Some(self.retry_at.map_or(again, |at| at.min(again)));
                }
                return;
            }
        };
        if !retries {
            self.behind = more || missed;
        } else if more {
            self.retry_at = Some(Instant::now());
        }
        for job in jobs {
            let number = job.facts.number;
            if !written_meanwhile.contains(&number) && self.busy.insert(number) {
                if retries {
                    self.retrying.insert(number);
                    self.retries.push_back(job);
                } else {
                    self.first_bytes += job.weight();
                    self.first.push_back(job);
                }
            }
        }
    }

    async fn finished(&mut self, done: Done) {
        match done {
            Done::Written { number, mine } => {
                if !mine {
                    // A destination that was disabled or deleted, or whose workspace has ended, over another node is sent
                    // nothing more.
                    self.shared.configurations.forget(self.key.workspace);
                }
                self.is_written(number);
                if self.unsettled.remove(&number) || self.unsettled.is_empty() {
                    self.report_progress().await;
                }
            }
            Done::Read { retries, jobs } => self.has_read(retries, jobs),
            Done::Sent { job, started_at, attempt, signatures } => {
                self.in_flight -= 1;
                self.record(job, started_at, attempt, signatures).await;
            }
            Done::Unmade { job, started_at, error } => {
                self.in_flight -= 1;
                self.mend(job, started_at, error).await;
            }
        }
    }

    /// Waits for what is in flight, reports, and lets go.
    async fn wind_down(mut self) {
        let deadline = Instant::now() + Duration::from_secs(25);
        while !self.running.is_empty() {
            match tokio::time::timeout_at(deadline.into(), self.running.join_next()).await {
                Ok(Some(Ok(done))) => self.finished(done).await,
                Ok(Some(Err(_))) => {}
                Ok(None) | Err(_) => break,
            }
        }
        self.shared.forget_lane(self.key, self.fence);
        let (done, flushed) = oneshot::channel();
        if self.shared.reports.send(Report::Flush(done)).await.is_ok() {
            let _ = flushed.await;
        }
        if let Err(e) = queue::release(&self.shared.database, self.shared.node, self.key, self.fence).await {
            tracing::debug!(error = %e, "a lane's lease is left to run out");
        }
        // Something may have come between the last look and letting go.
        self.shared.look();
    }
}
