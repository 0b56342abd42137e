//! Retries that are due soon and stay in memory: a receiver that fails for a moment has nothing read again.

use crate::delivery::queue::Job;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

/// The longest wait that is spent in memory: what is forgotten meanwhile still goes out. One that had to wait for so long
/// beyond its time is read again.
pub(super) const SOON: Duration = Duration::from_secs(10);
/// Retries of a lane that stay in memory.
pub(super) const MOST: usize = 8;
/// Bytes of their entries and openings together.
const BYTES: usize = 64 << 10;

/// The failed attempts of a lane whose jobs stay in memory.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Whose outcome is on its way to the database, and when they are due.
    unwritten: HashMap<i64, (Instant, Job)>,
    /// Whose outcome is written, in the order in which they are due.
    waiting: BTreeMap<(Instant, i64), Job>,
    bytes: usize,
}

impl Kept {
    /// Keeps a job whose attempt has failed; no where it is due late or there is no room.
    pub(super) fn keep(&mut self, due: Instant, job: Job) -> bool {
        let late = due.saturating_duration_since(Instant::now()) > SOON;
        let weight = job.weight();
        if late || self.unwritten.len() + self.waiting.len() >= MOST || self.bytes + weight > BYTES {
            return false;
        }
        self.bytes += weight;
        self.unwritten.insert(job.facts.number, (due, job));
        true
    }

    /// The outcome of an attempt is in the database: its job now waits for its time. No where it is not kept.
    pub(super) fn is_written(&mut self, number: i64) -> bool {
        let Some((due, job)) = self.unwritten.remove(&number) else { return false };
        self.waiting.insert((due, number), job);
        true
    }

    /// When the next one is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.waiting.keys().next().map(|(due, _)| *due)
    }

    /// The next one whose time has come, and when that was.
    pub(super) fn due(&mut self, now: Instant) -> Option<(Instant, Job)> {
        let first = self.waiting.first_entry().filter(|first| first.key().0 <= now)?;
        let ((due, _), job) = first.remove_entry();
        self.bytes -= job.weight();
        Some((due, job))
    }

    /// Leaves those that wait to the database; their numbers.
    pub(super) fn forget(&mut self) -> Vec<i64> {
        let forgotten = std::mem::take(&mut self.waiting);
        self.bytes -= forgotten.values().map(Job::weight).sum::<usize>();
        forgotten.into_keys().map(|(_, number)| number).collect()
    }

    /// Whether that number waits, which it then does no more.
    pub(super) fn remove(&mut self, number: i64) -> bool {
        let Some(key) = self.waiting.keys().find(|(_, waiting)| *waiting == number).copied() else {
            return false;
        };
        if let Some(job) = self.waiting.remove(&key) {
            self.bytes -= job.weight();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{DestinationId, LedgerId, ReceiptId};
    use crate::receipt::Facts;
    use std::sync::Arc;

    fn job(number: i64, bytes: usize) -> Job {
        let facts = Facts {
            destination: DestinationId::new(),
            number,
            base: 0,
            receipt: ReceiptId::new(),
            ledger: LedgerId::new(),
            seq: 0,
            issued_at: 0,
            tree_size: 1,
            receipt_key: [0; 32],
            checkpoint_key: [0; 32],
            signatures: None,
        };
        let entry = "e".repeat(bytes).into();
        let (openings, proof) = (Arc::from([]), Arc::from([]));
        Job { facts, attempts: 1, entry, openings, proof, root: [0; 32] }
    }

    #[test]
    fn a_job_waits_until_its_outcome_is_written_and_then_for_its_time() {
        let (mut kept, now) = (Kept::default(), Instant::now());
        let due = now + Duration::from_secs(5);
        assert!(kept.keep(due, job(7, 10)) && kept.keep(now, job(8, 10)));
        assert!(kept.due(due).is_none(), "what is not written is not begun");
        assert!(kept.is_written(7) && kept.is_written(8) && !kept.is_written(9));
        assert_eq!(kept.next(), Some(now));
        assert_eq!(kept.due(now).map(|(due, job)| (due, job.facts.number)), Some((now, 8)));
        assert!(kept.due(now).is_none());
        assert_eq!(kept.due(due + SOON).map(|(due, job)| (due, job.facts.number)), Some((due, 7)));
        assert!(kept.next().is_none() && kept.bytes == 0);
    }

    #[test]
    fn what_is_late_large_or_one_too_many_is_left_to_the_database() {
        let (mut kept, now) = (Kept::default(), Instant::now());
        assert!(!kept.keep(now + SOON + Duration::from_secs(60), job(1, 10)));
        assert!(!kept.keep(now, job(1, BYTES + 1)));
        for number in 1..=MOST as i64 {
            assert!(kept.keep(now, job(number, 10)));
            assert!(kept.is_written(number));
        }
        assert!(!kept.keep(now, job(100, 10)));
        assert!(kept.remove(3) && !kept.remove(3));
        assert!(kept.keep(now, job(100, 10)));
        let mut left: Vec<i64> = (1..=MOST as i64).filter(|number| *number != 3).collect();
        assert_eq!(kept.forget(), left);
        assert!(kept.is_written(100), "what is not written yet is told when it is");
        left = kept.forget();
        assert!(left == [100] && kept.bytes == 0);
    }
}
