//! What an attempt's end changes: the delivery's row, the lane's pauses, the destination.

use super::send::not_made;
use super::{Done, LaneTask};
use crate::delivery::channels::webhook;
use crate::delivery::destination;
use crate::delivery::queue::{self, Job, Wanted};
use crate::delivery::results::{Outcome, Progress, Report, State};
use crate::ledger::append;
use crate::ledger::unix_micros;
use crate::receipt::{self, Signatures};
use crate::sealing;
use std::sync::Arc;
use std::time::{Duration, Instant};
use time::OffsetDateTime;
use tokio::sync::oneshot;

/// The longest pause between two probes of a destination that only fails.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

impl LaneTask {
    /// A body that was not made: fixed anew where another key mends it, else a failed attempt.
    pub(super) async fn mend(&mut self, job: Box<Job>, started_at: OffsetDateTime, error: receipt::Error) {
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

    pub(super) async fn record(
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
                let mine = confirmed.await.unwrap_or(true);
                Done::Written { number, mine }
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
                        // It stays among the unsettled, so that no progress is reported beyond it.
                        self.left_unwritten = true;
                        return;
                    }
                }
            }
        }
        let number = failed.number;
        self.is_written(number);
        self.unsettled.remove(&number);
        self.shared.configurations.forget(self.key.workspace);
        self.report_progress().await;
    }

    pub(super) async fn report_progress(&self) {
        let sent_through = self.unsettled.first().map_or(self.next, |lowest| *lowest) - 1;
        let progress =
            Progress { key: self.key, fence: self.fence, sent_through, failing_since: self.failing_since };
        // The writer of results outlives the lanes.
        let _ = self.shared.reports.send(Report::Progress(progress)).await;
    }
}

/// A number drawn from 0 to 1.
pub(super) fn fraction() -> f64 {
    let mut bytes = [0; 4];
    crate::ledger::fill_random(&mut bytes);
    f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
}
