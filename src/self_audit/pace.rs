//! How fast rows are verified: a bound, whatever the machine could do.

use std::time::{Duration, Instant};

/// The fewest entries that a slice counts as: one of a ledger with a single entry costs as many statements as another.
const LEAST: u64 = 32;

/// A bound on entries a second. What was verified is paid for before the next slice begins, so that in any time no more
/// is verified than the rate times it, and one slice.
#[derive(Debug)]
pub struct Pace {
    per_second: f64,
    next: Instant,
}

impl Pace {
    /// At most `per_second` entries a second, from `now` on.
    #[must_use]
    pub fn new(per_second: u32, now: Instant) -> Self {
        Self { per_second: f64::from(per_second.max(1)), next: now }
    }

    /// When the next slice may begin.
    #[must_use]
    pub const fn next(&self) -> Instant {
        self.next
    }

    /// A slice that began at `now` had so many entries.
    pub fn spend(&mut self, now: Instant, entries: u64) {
        let cost = Duration::from_secs_f64(entries.max(LEAST) as f64 / self.per_second);
        // What was not used while there was nothing to do is not kept for later.
        self.next = self.next.max(now) + cost;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Entries verified within `time` where each slice has `entries` and begins as soon as it may.
    fn verified(pace: &mut Pace, from: Instant, time: Duration, entries: u64) -> u64 {
        let (mut now, mut total) = (from, 0);
        loop {
            now = now.max(pace.next());
            if now >= from + time {
                return total;
            }
            pace.spend(now, entries);
            total += entries;
        }
    }

    #[test]
    fn no_more_is_verified_than_the_rate_and_one_slice() {
        let start = Instant::now();
        let hour = Duration::from_secs(3600);
        for rate in [1, 100, 500, 1_000_000] {
            let total = verified(&mut Pace::new(rate, start), start, hour, 256);
            let bound = u64::from(rate) * 3600;
            assert!((bound - bound / 100..=bound + 256).contains(&total), "{rate}: {total}");
        }
        // A pause does not pay for a rush.
        let mut pace = Pace::new(500, start);
        pace.spend(start, 256);
        let later = start + 24 * hour;
        assert!(verified(&mut pace, later, Duration::from_secs(10), 256) <= 5000 + 256);
        // Ledgers with hardly an entry are not looked at all the time.
        let slices = verified(&mut Pace::new(500, start), start, Duration::from_secs(60), 1);
        assert!(slices <= 500 * 60 / LEAST + 1, "{slices}");
    }
}
