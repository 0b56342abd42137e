//! A lane: one destination's deliveries, in order, on the node that holds it.
//!
//! First attempts start in the order of their numbers; one that fails moves to the retries, which take every other
//! turn when both wait, so neither starves the other. At most `max_in_flight` attempts run at once, both together.
//! After a run of failures the lane only probes: one attempt, then a pause that grows. All waiting is this task's
//! own; other lanes do not notice.
//!
//! Memory holds a bounded part of the queue. What is not in memory is in the database and is read when its turn
//! comes, so a lane that was handed too much, or has just changed hands, goes on from `sent_through`.

use super::channels::webhook;
use super::dispatcher::Shared;
use super::queue::{self, Configured, Held, Job, LEASE, Wanted};
use super::results::{Outcome, Progress, Report, State};
use super::{LaneKey, destination};
use crate::database::in_time;
use crate::ledger::append::{self, unix_micros};
use crate::ledger::checkpoint::SignedTree;
use crate::receipt::{self, Signatures};
use crate::sealing;
use statusledger_verify::Mode;
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
/// A lane with nothing to do is let go after this.
const IDLE: Duration = Duration::from_secs(60);
/// How old a destination's settings may be; a change on this node is seen at once.
const SETTINGS_AGE: Duration = Duration::from_secs(5);
/// The longest pause between two probes of a destination that only fails.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

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
    /// An outcome was written; with `all`, so was each that was written with it. If not, somebody's lane was lost or stopped.
    Written { number: i64, all: bool },
    /// Jobs were read.
    Read { retries: bool, jobs: Result<queue::Read, queue::Error> },
    /// The settings were read, asked for at that moment.
    Configured { settings: Result<Option<Arc<Settings>>, queue::Error>, asked: Instant },
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
    /// What was read last: none where the destination takes nothing any more.
    settings: Option<(Option<Arc<Settings>>, Instant)>,
    /// Whether they are being read again.
    refreshing: bool,
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
    /// Retries in memory.
    retries: VecDeque<Job>,
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
    last_work: Instant,
}

/// A destination's settings, opened.
pub struct Settings {
    url: url::Url,
    openings: bool,
    max_in_flight: usize,
    secrets: Vec<webhook::WebhookSecret>,
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
            settings: None,
            refreshing: false,
            next: held.sent_through + 1,
            first: VecDeque::new(),
            first_bytes: 0,
            behind: held.behind,
            gap: None,
            retries: VecDeque::new(),
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
            last_work: now,
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
            if idle && self.running.is_empty() && self.last_work.elapsed() >= IDLE {
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
                    self.retry_at = Some(Instant::now());
                }
            }
            Message::Changed => self.settings = None,
            Message::Renewed(at) => self.lease_until = at + LEASE,
            Message::Lost => {}
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
            let Some(settings) = self.settings().await? else {
                self.first.clear();
                self.first_bytes = 0;
                self.retries.clear();
                return Ok(());
            };
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
            let shared = Arc::clone(&self.shared);
            self.running.spawn(send(shared, settings, job));
        }
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
            if !written_meanwhile.contains(&job.facts.number) && self.busy.insert(job.facts.number) {
                if retries {
                    self.retries.push_back(job);
                } else {
                    self.first_bytes += job.weight();
                    self.first.push_back(job);
                }
            }
        }
    }

    /// How the destination is set; none where it takes nothing any more. Of one that was deleted, or whose workspace has
    /// ended, there is nothing left to be opened.
    async fn settings(&mut self) -> Result<Option<Arc<Settings>>, queue::Error> {
        if let Some((settings, read)) = &self.settings
            && read.elapsed() < SETTINGS_AGE
        {
            let settings = settings.clone();
            if read.elapsed() > SETTINGS_AGE / 2 && !self.refreshing {
                // Read again while the old ones still hold: nothing waits for the database behind thousands of lanes.
                self.refreshing = true;
                let (shared, key, asked) = (Arc::clone(&self.shared), self.key, Instant::now());
                self.running.spawn(async move {
                    Done::Configured { settings: read_settings(&shared, key).await, asked }
                });
            }
            return Ok(settings);
        }
        let asked = Instant::now();
        let settings = read_settings(&self.shared, self.key).await?;
        self.settings = Some((settings.clone(), asked));
        Ok(settings)
    }

    async fn finished(&mut self, done: Done) {
        match done {
            Done::Written { number, all } => {
                if !all {
                    // It may be this one: a destination that was disabled or deleted, or whose workspace has ended, over
                    // another node is sent nothing more.
                    self.settings = None;
                }
                self.is_written(number);
                if self.unsettled.remove(&number) || self.unsettled.is_empty() {
                    self.report_progress().await;
                }
            }
            Done::Read { retries, jobs } => self.has_read(retries, jobs),
            Done::Configured { settings, asked } => {
                self.refreshing = false;
                // Where something was changed meanwhile they were emptied, and perhaps read since: this may be what was before.
                if let (Some(known), Ok(settings)) = (&mut self.settings, settings)
                    && known.1 < asked
                {
                    *known = (settings, asked);
                }
            }
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

    /// A body that was not made: fixed anew where another key mends it, else a failed attempt.
    async fn mend(&mut self, job: Box<Job>, started_at: OffsetDateTime, error: receipt::Error) {
        let number = job.facts.number;
        if error.wants_reissue() {
            let ring = self.shared.keyring.current();
            let (key, size) = (self.key, unix_micros());
            let again = queue::reissue(
                &self.shared.database,
                key,
                number,
                size,
                &ring.receipt_key_id(),
                &ring.checkpoint_key_id(),
            )
            .await;
            if again.is_ok() {
                metrics::counter!("statusledger_receipts_reissued_total").increment(1);
                let wanted = Wanted::One { number };
                let shared = &self.shared;
                if let Ok(mut read) =
                    queue::read_jobs(&shared.database, &shared.data_keys, key, wanted, 1).await
                    && let Some(job) = read.jobs.pop()
                {
                    self.retries.push_front(job);
                    self.paused_until = None;
                    return;
                }
            }
        }
        tracing::error!(destination = %self.key.destination, number, error = %error, "a receipt cannot be made");
        metrics::counter!("statusledger_receipts_refused_total").increment(1);
        let attempt = not_made("the receipt could not be made; the operator's log says why");
        self.record(job, started_at, attempt, None).await;
    }

    async fn record(
        &mut self,
        job: Box<Job>,
        started_at: OffsetDateTime,
        attempt: webhook::Attempt,
        signatures: Option<Signatures>,
    ) {
        let number = job.facts.number;
        let made = job.attempts + 1;
        let shared = Arc::clone(&self.shared);
        metrics::histogram!("statusledger_attempt_duration_seconds").record(attempt.duration.as_secs_f64());
        let delivered = matches!(attempt.outcome, webhook::Outcome::Delivered);
        metrics::counter!("statusledger_attempts_total", "outcome" => if delivered { "delivered" } else { "failed" })
            .increment(1);
        let state = if delivered {
            self.failures = 0;
            self.failing_since = None;
            State::Delivered
        } else {
            self.failures = self.failures.saturating_add(1);
            let since = *self.failing_since.get_or_insert(started_at);
            let settings = &shared.settings;
            let floor = match attempt.outcome {
                webhook::Outcome::Throttled { retry_after } => {
                    retry_after.unwrap_or_default().min(Duration::from_secs_f64(settings.retry_after_cap_s))
                }
                _ => Duration::ZERO,
            };
            let gone = matches!(attempt.outcome, webhook::Outcome::Disabled);
            let too_long = (OffsetDateTime::now_utc() - since).as_seconds_f64() > settings.disable_after_s;
            let wait = u32::try_from(made).ok().and_then(|n| settings.wait_before(n + 1));
            if gone || too_long || wait.is_none() {
                let why = if gone {
                    Some("the receiver answered 410 Gone")
                } else if too_long {
                    Some("every attempt failed for too long")
                } else {
                    None
                };
                self.conclude(job, started_at, attempt, why, wait.is_none()).await;
                return;
            }
            if self.failures >= settings.breaker_failures.max(1) {
                let step = settings.wait_before(2).unwrap_or(LONGEST_PAUSE).max(Duration::from_millis(1));
                let doublings = (self.failures - settings.breaker_failures.max(1)).min(10);
                let pause = (step * 2_u32.pow(doublings)).min(LONGEST_PAUSE);
                self.paused_until = Some(Instant::now() + pause);
            }
            let wait = wait.unwrap_or_default().max(floor).mul_f64(1.0 + settings.jitter * fraction());
            let due = Instant::now() + wait;
            self.retry_at = Some(self.retry_at.map_or(due, |at| at.min(due)));
            State::Retry(OffsetDateTime::now_utc() + wait)
        };
        let (written, confirmed) = oneshot::channel();
        let outcome = Outcome {
            key: self.key,
            fence: self.fence,
            number,
            attempt: made,
            started_at,
            duration: attempt.duration,
            status: attempt.status.map(i32::from),
            error: attempt.error.map(str::to_owned),
            answer: self.kept(number, made, &attempt, delivered).await,
            state,
            signatures,
            written,
        };
        if self.shared.reports.send(Report::Outcome(Box::new(outcome))).await.is_ok() {
            self.running.spawn(async move {
                // Gone without an answer only when the node stops.
                let all = confirmed.await.unwrap_or(true);
                Done::Written { number, all }
            });
        }
    }

    /// What is kept of an answer, sealed: of one that took the notification, nothing.
    async fn kept(
        &self,
        number: i64,
        made: i32,
        attempt: &webhook::Attempt,
        delivered: bool,
    ) -> Option<Vec<u8>> {
        if delivered || attempt.answer.is_empty() {
            return None;
        }
        // A workspace that has just ended has no key any more, and its answers are nobody's.
        let data_key = self.shared.data_keys.get(self.key.workspace).await.ok()?;
        sealing::seal_answer(&data_key, (self.key.destination, number, made), &attempt.answer).ok()
    }

    /// The end of a delivery, or of the destination, which is an entry: in one transaction with the rows it is about.
    async fn conclude(
        &mut self,
        job: Box<Job>,
        started_at: OffsetDateTime,
        attempt: webhook::Attempt,
        disable: Option<&'static str>,
        given_up: bool,
    ) {
        let failed = destination::Failed {
            key: self.key,
            fence: self.fence,
            number: job.facts.number,
            seq: job.facts.seq,
            attempt: job.attempts + 1,
            started_at,
            sent: attempt,
        };
        loop {
            match destination::conclude(&self.shared.writer, self.shared.node, &failed, disable, given_up)
                .await
            {
                Ok(()) => break,
                // The workspace has ended, and with it every delivery.
                Err(destination::Error::Append(append::Error::NoWorkspace(_))) => break,
                Err(e) => {
                    tracing::warn!(destination = %self.key.destination, error = %e, "the end of a delivery waits");
                    tokio::time::sleep(Duration::from_millis(500)).await;
                    if !self.may_send() {
                        break;
                    }
                }
            }
        }
        let number = failed.number;
        self.is_written(number);
        self.unsettled.remove(&number);
        self.settings = None;
        self.report_progress().await;
    }

    async fn report_progress(&self) {
        let sent_through = self.unsettled.first().map_or(self.next, |lowest| *lowest) - 1;
        let progress =
            Progress { key: self.key, fence: self.fence, sent_through, failing_since: self.failing_since };
        // The writer of results outlives the lanes.
        let _ = self.shared.reports.send(Report::Progress(progress)).await;
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

/// A number drawn from 0 to 1.
fn fraction() -> f64 {
    let mut bytes = [0; 4];
    crate::ledger::fill_random(&mut bytes);
    f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
}

/// How a destination is set.
async fn read_settings(shared: &Shared, key: LaneKey) -> Result<Option<Arc<Settings>>, queue::Error> {
    let row = in_time(queue::configured(&shared.database, key)).await??.filter(|row| !row.disabled);
    let Some(row) = row else { return Ok(None) };
    let data_key = shared.data_keys.get(key.workspace).await?;
    let opened = open_settings(&row, &data_key, key).map_err(|e| {
        tracing::error!(destination = %key.destination, error = %e, "a destination's settings do not open");
        queue::Error::Damaged(0, "the destination's settings do not open")
    })?;
    Ok(Some(Arc::new(opened)))
}

fn open_settings(
    row: &Configured,
    key: &statusledger_keys::envelope::DataKey,
    lane: LaneKey,
) -> Result<Settings, destination::Error> {
    let secret = row.secrets.0.as_deref().ok_or(destination::Error::Emptied)?;
    let mut secrets = vec![destination::open_secret(key, lane.destination, secret, false)?];
    if let Some(previous) = &row.secrets.1 {
        secrets.push(destination::open_secret(key, lane.destination, previous, true)?);
    }
    let url = destination::open_url(key, lane.destination, row.url.as_deref())?;
    let url = url::Url::parse(&url).map_err(|e| destination::Error::Url(e.to_string()))?;
    Ok(Settings { url, openings: row.openings, max_in_flight: row.max_in_flight, secrets })
}

/// Makes the body and sends it. The checkpoint in it is on this node's disk before it leaves.
async fn send(shared: Arc<Shared>, settings: Arc<Settings>, job: Job) -> Done {
    let started_at = OffsetDateTime::now_utc();
    let made = match make_body(&shared, &settings, &job) {
        Ok(made) => made,
        Err(error) => return Done::Unmade { job: Box::new(job), started_at, error },
    };
    let tree = SignedTree { size: job.facts.tree_size, root: job.root };
    if let Err(e) = shared.seen_heads.remember(job.facts.ledger, tree).await {
        tracing::error!(error = %e, "this node cannot remember what it hands out; nothing leaves");
        let attempt = not_made("the service cannot keep its own record; the operator's log says why");
        return Done::Sent { job: Box::new(job), started_at, attempt, signatures: None };
    }
    let id = job.facts.receipt.to_string();
    let attempt = shared
        .sender
        .send(webhook::Message {
            url: &settings.url,
            id: &id,
            timestamp: OffsetDateTime::now_utc().unix_timestamp(),
            secrets: &settings.secrets,
            headers: &webhook::CustomHeaders::default(),
            body: made.body.into(),
        })
        .await;
    if let Some(detail) = &attempt.detail {
        // Scheme and host only: the rest of an address can hold a token.
        let to = settings.url.origin().ascii_serialization();
        tracing::debug!(destination = %job.facts.destination, number = job.facts.number, to, detail, "an attempt failed");
    }
    Done::Sent { job: Box::new(job), started_at, attempt, signatures: Some(made.signatures) }
}

/// An attempt that ended before anything was sent.
fn not_made(error: &'static str) -> webhook::Attempt {
    webhook::Attempt {
        outcome: webhook::Outcome::Failed,
        status: None,
        duration: Duration::ZERO,
        answer: String::new(),
        error: Some(error),
        detail: None,
    }
}

fn make_body(shared: &Shared, settings: &Settings, job: &Job) -> Result<receipt::Made, receipt::Error> {
    let ring = shared.keyring.current();
    let note = shared.note(&ring, &job.facts, job.root)?;
    let openings = job.openings_for(settings.openings);
    receipt::body(&ring, &job.facts, &job.entry, &job.proof, &note, openings, Mode::Fresh)
}
