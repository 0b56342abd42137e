//! How many requests a key may make in a rolling window.

use std::collections::VecDeque;

/// Counts what was let through in the last `window` scenario seconds.
#[derive(Debug)]
pub(crate) struct RollingQuota {
    limit: u32,
    window: f64,
    spent: VecDeque<f64>,
}

impl RollingQuota {
    pub(crate) fn new(limit: u32, window: f64) -> Self {
        Self { limit, window, spent: VecDeque::new() }
    }

    /// Lets a request through and says how many are left, or says after how many scenario seconds the next
    /// one would be let through. What is refused does not count.
    pub(crate) fn take(&mut self, now: f64) -> Result<u32, f64> {
        let left = self.remaining(now);
        if left == 0 {
            let oldest = self.spent.front().copied().unwrap_or(now);
            return Err(oldest + self.window - now);
        }
        self.spent.push_back(now);
        Ok(left - 1)
    }

    /// How many requests are left now.
    pub(crate) fn remaining(&mut self, now: f64) -> u32 {
        while self.spent.front().is_some_and(|at| *at + self.window <= now) {
            self.spent.pop_front();
        }
        self.limit.saturating_sub(u32::try_from(self.spent.len()).unwrap_or(u32::MAX))
    }

    /// The limit.
    pub(crate) fn limit(&self) -> u32 {
        self.limit
    }
}
