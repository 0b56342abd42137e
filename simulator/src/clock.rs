//! Scenario time: real time, faster or slower, and pushed on by hand.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// A clock that runs from 0 scenario seconds at `speed` scenario seconds a real second; 0 stands still.
#[derive(Debug)]
pub(crate) struct Clock {
    speed: f64,
    start: Instant,
    pushed: Mutex<f64>,
}

impl Clock {
    pub(crate) fn new(speed: f64) -> Self {
        Self { speed, start: Instant::now(), pushed: Mutex::new(0.0) }
    }

    /// Scenario seconds since the start.
    pub(crate) fn now(&self) -> f64 {
        let pushed = *self.pushed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.start.elapsed().as_secs_f64() * self.speed + pushed
    }

    /// Moves the clock on by so many scenario seconds.
    pub(crate) fn push(&self, seconds: f64) {
        *self.pushed.lock().unwrap_or_else(std::sync::PoisonError::into_inner) += seconds;
    }

    /// How long in real time until that scenario time; `None` on a clock that stands still.
    pub(crate) fn until(&self, scenario: f64) -> Option<Duration> {
        let seconds = scenario - self.now();
        if seconds <= 0.0 {
            return Some(Duration::ZERO);
        }
        (self.speed > 0.0).then(|| Duration::from_secs_f64((seconds / self.speed).min(3600.0)))
    }

    /// Scenario seconds as real ones, as `Retry-After` gives them; a clock that stands still gives them as
    /// they are.
    pub(crate) fn real_seconds(&self, scenario: f64) -> u64 {
        let seconds = if self.speed > 0.0 { scenario / self.speed } else { scenario };
        seconds.ceil().max(1.0) as u64
    }
}
