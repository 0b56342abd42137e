//! How many requests a store key may spend, and how long to wait after a failure.
//!
//! Apple counts a key's requests over a rolling hour and says in each answer how many are left; whoever else
//! uses the key spends from the same hour. So the store's own count goes before ours, and nothing is spent
//! past [`SHARE_PERCENT`] of the limit: the rest belongs to the team's other tools.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

/// How much of a key's limit is ours to spend, in percent.
pub const SHARE_PERCENT: u32 = 80;

/// Apple's limit, until an answer says another: requests a rolling hour.
const APP_STORE_LIMIT: u32 = 3500;

/// Apple's window.
const APP_STORE_WINDOW: Duration = Duration::from_secs(3600);

/// Google's limit, which no answer tells: requests a minute.
const GOOGLE_PLAY_LIMIT: u32 = 3000;

/// Google's window.
const GOOGLE_PLAY_WINDOW: Duration = Duration::from_secs(60);

/// The longest `Retry-After` that is obeyed; a longer one is taken for a mistake.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(24 * 3600);

/// What an answer says about the key's limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Requests a window.
    pub limit: u32,
    /// How many of them are left.
    pub remaining: u32,
}

/// Reads `X-Rate-Limit: user-hour-lim:3500;user-hour-rem:500;`. `None` where either number is missing.
pub fn parse_rate_limit(value: &str) -> Option<RateLimit> {
    let number = |name: &str| {
        value.split(';').find_map(|part| {
            let (key, number) = part.split_once(':')?;
            (key.trim() == name).then(|| number.trim().parse().ok())?
        })
    };
    Some(RateLimit { limit: number("user-hour-lim")?, remaining: number("user-hour-rem")? })
}

/// Reads `Retry-After` (RFC 9110, section 10.2.3): seconds, or a date, of which `now` is subtracted. At most
/// a day.
pub fn parse_retry_after(value: &str, now: OffsetDateTime) -> Option<Duration> {
    let value = value.trim();
    let wait = match value.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => Duration::try_from(parse_http_date(value)? - now).unwrap_or(Duration::ZERO),
    };
    Some(wait.min(LONGEST_RETRY_AFTER))
}

/// Reads an HTTP date (RFC 9110, section 5.6.7) in the one form that servers may send.
pub fn parse_http_date(value: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(value, &Rfc2822).ok()
}

/// What a key has spent and may spend.
///
/// Time is a parameter, so that an hour can be tested in none.
#[derive(Debug)]
pub struct RateBudget {
    /// The limit as the store said it last, or as it is by default.
    limit: u32,
    /// The limit where the store has said nothing within the window.
    default_limit: u32,
    window: Duration,
    /// Our own requests of the last window, the oldest first.
    spent: VecDeque<Instant>,
    observed: Option<Observation>,
    held_until: Option<Instant>,
    /// How many requests were spent ever.
    made: u64,
}

/// What the store said last.
#[derive(Debug)]
struct Observation {
    at: Instant,
    /// How many requests the store counted then.
    used: u32,
    /// How many of ours among them have left the window since.
    aged: u32,
    /// How many we have made since.
    since: u32,
}

impl RateBudget {
    /// The budget of an App Store Connect key: 3,500 a rolling hour, until an answer says another number.
    pub fn app_store() -> Self {
        Self::new(APP_STORE_LIMIT, APP_STORE_WINDOW)
    }

    /// The budget of a Google service account: 3,000 a minute.
    pub fn google_play() -> Self {
        Self::new(GOOGLE_PLAY_LIMIT, GOOGLE_PLAY_WINDOW)
    }

    /// A budget of `limit` requests in any `window`.
    pub fn new(limit: u32, window: Duration) -> Self {
        Self {
            limit,
            default_limit: limit,
            window,
            spent: VecDeque::new(),
            observed: None,
            held_until: None,
            made: 0,
        }
    }

    /// The same for a store whose clock runs `factor` times as fast as ours; what is not above 1 is 1.
    #[must_use]
    pub fn faster(mut self, factor: f64) -> Self {
        if factor > 1.0 {
            self.window = self.window.div_f64(factor);
        }
        self
    }

    /// Spends one request, or says after how long to ask again.
    pub fn try_spend(&mut self, now: Instant) -> Result<(), Duration> {
        self.age(now);
        if let Some(until) = self.held_until.filter(|until| *until > now) {
            return Err(until - now);
        }
        if self.used() >= self.spendable() {
            return Err(self.relief(now));
        }
        self.spent.push_back(now);
        self.made += 1;
        if let Some(observed) = &mut self.observed {
            observed.since += 1;
        }
        Ok(())
    }

    /// Takes over what an answer says. It counts what others spent with the same key, too. A limit that leaves nothing to
    /// spend is none: whoever believed it would never ask again, and so never hear another.
    pub fn observe(&mut self, said: RateLimit, now: Instant) {
        self.age(now);
        if share(said.limit) == 0 {
            return;
        }
        self.limit = said.limit;
        let used = said.limit.saturating_sub(said.remaining);
        self.observed = Some(Observation { at: now, used, aged: 0, since: 0 });
    }

    /// The window that the limit is about.
    pub fn window(&self) -> Duration {
        self.window
    }

    /// Spends nothing until then: what a 429 asks for.
    pub fn hold(&mut self, wait: Duration, now: Instant) {
        let until = now + wait;
        self.held_until = Some(self.held_until.map_or(until, |held| held.max(until)));
    }

    /// The limit and what is left of it now, as far as is known, the share of others included.
    pub fn rate(&mut self, now: Instant) -> RateLimit {
        self.age(now);
        RateLimit { limit: self.limit, remaining: self.limit.saturating_sub(self.used()) }
    }

    /// How many requests may be spent before [`SHARE_PERCENT`] is reached.
    pub fn left(&mut self, now: Instant) -> u32 {
        self.age(now);
        self.spendable().saturating_sub(self.used())
    }

    /// How many requests were ever spent here: what one thing cost is the difference. What is left of the window tells
    /// that no more: others spend from it, and what is old leaves it, while it is made.
    pub fn made(&self) -> u64 {
        self.made
    }

    fn spendable(&self) -> u32 {
        share(self.limit)
    }

    /// The store's count at its last word, corrected by what we know to have happened since.
    fn used(&self) -> u32 {
        match &self.observed {
            Some(observed) => observed.used.saturating_sub(observed.aged).saturating_add(observed.since),
            None => u32::try_from(self.spent.len()).unwrap_or(u32::MAX),
        }
    }

    /// Forgets what has left the window.
    fn age(&mut self, now: Instant) {
        while let Some(spent) = self.spent.pop_front_if(|spent| *spent + self.window <= now) {
            if let Some(observed) = &mut self.observed {
                if spent <= observed.at {
                    observed.aged += 1;
                } else {
                    observed.since = observed.since.saturating_sub(1);
                }
            }
        }
        // A window later, nothing that the store said then need still be so.
        if self.observed.take_if(|observed| observed.at + self.window <= now).is_some() {
            self.limit = self.default_limit;
        }
    }

    /// How long until something of what is spent is known to leave the window.
    fn relief(&self, now: Instant) -> Duration {
        let own = self.spent.front().map(|spent| *spent + self.window);
        let told = self.observed.as_ref().map(|observed| observed.at + self.window);
        let earliest = own.into_iter().chain(told).min().unwrap_or(now + self.window);
        earliest.saturating_duration_since(now)
    }
}

/// What of a limit is ours.
fn share(limit: u32) -> u32 {
    u32::try_from(u64::from(limit) * u64::from(SHARE_PERCENT) / 100).unwrap_or(u32::MAX)
}

/// Exponential back-off with full jitter: after the n-th failure in a row, a time drawn evenly from nothing to
/// `base * 2^(n-1)`, at most `cap`; never less than what the store asks for.
#[derive(Clone, Debug)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    failures: u32,
}

impl Backoff {
    /// A back-off that has seen no failure.
    pub fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap, failures: 0 }
    }

    /// Counts a failure and says how long to wait. `floor` is the store's `Retry-After`.
    pub fn fail(&mut self, floor: Option<Duration>) -> Duration {
        // Without randomness the whole span is waited, which errs on the store's side.
        let drawn = getrandom::u32().unwrap_or(u32::MAX);
        self.fail_with(floor, f64::from(drawn) / f64::from(u32::MAX))
    }

    /// The same with a given draw, from 0 to 1.
    pub fn fail_with(&mut self, floor: Option<Duration>, draw: f64) -> Duration {
        let doublings = self.failures.min(31);
        self.failures = self.failures.saturating_add(1);
        let span = self.base.saturating_mul(1 << doublings).min(self.cap);
        span.mul_f64(draw.clamp(0.0, 1.0)).max(floor.unwrap_or_default())
    }

    /// How many failures there were in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Begins anew after a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn the_rate_header_is_read_in_any_order_and_nothing_is_made_up() {
        let read = parse_rate_limit("user-hour-lim:3500;user-hour-rem:500;");
        assert_eq!(read, Some(RateLimit { limit: 3500, remaining: 500 }));
        let read = parse_rate_limit(" user-hour-rem: 7 ; other:1; user-hour-lim:10");
        assert_eq!(read, Some(RateLimit { limit: 10, remaining: 7 }));
        for wrong in ["", "user-hour-lim:3500", "user-hour-lim:3500;user-hour-rem:-1", "lim:1;rem:1", ";;:"] {
            assert_eq!(parse_rate_limit(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn retry_after_is_read_as_seconds_and_as_a_date_and_never_past_a_day() {
        let now = OffsetDateTime::from_unix_timestamp(784_111_777).unwrap();
        assert_eq!(parse_retry_after("120", now), Some(Duration::from_secs(120)));
        assert_eq!(parse_retry_after("Sun, 06 Nov 1994 08:50:37 GMT", now), Some(MINUTE));
        assert_eq!(parse_retry_after("Sun, 06 Nov 1994 08:00:00 GMT", now), Some(Duration::ZERO));
        assert_eq!(parse_retry_after("99999999999", now), Some(LONGEST_RETRY_AFTER));
        assert_eq!(parse_retry_after("soon", now), None);
        assert_eq!(parse_retry_after("-3", now), None);
    }

    #[test]
    fn nothing_is_spent_past_the_share() {
        let start = Instant::now();
        let mut budget = RateBudget::new(10, HOUR);
        for _ in 0..8 {
            assert_eq!(budget.try_spend(start), Ok(()));
        }
        assert_eq!(budget.try_spend(start), Err(HOUR));
        assert_eq!(budget.left(start), 0);
        assert_eq!(budget.try_spend(start + HOUR - MINUTE), Err(MINUTE));
        assert_eq!(budget.try_spend(start + HOUR), Ok(()));
    }

    #[test]
    fn a_faster_clock_has_a_shorter_window_and_a_slower_one_is_not_believed() {
        let start = Instant::now();
        let mut budget = RateBudget::app_store().faster(60.0);
        assert_eq!(budget.window(), MINUTE);
        for _ in 0..2800 {
            assert_eq!(budget.try_spend(start), Ok(()));
        }
        assert_eq!(budget.try_spend(start), Err(MINUTE));
        assert_eq!(budget.try_spend(start + MINUTE), Ok(()));
        assert_eq!(budget.made(), 2801, "what has left the window was made all the same");
        for factor in [0.0, -1.0, 0.5, f64::NAN] {
            assert_eq!(RateBudget::app_store().faster(factor).window(), HOUR);
        }
    }

    #[test]
    fn what_others_spend_with_the_key_counts() {
        let start = Instant::now();
        let mut budget = RateBudget::new(100, HOUR);
        assert_eq!(budget.try_spend(start), Ok(()));
        budget.observe(RateLimit { limit: 100, remaining: 22 }, start);
        assert_eq!(budget.left(start), 2);
        assert_eq!(budget.try_spend(start + MINUTE), Ok(()));
        assert_eq!(budget.try_spend(start + MINUTE), Ok(()));
        assert!(budget.try_spend(start + MINUTE).is_err());
        // The first of ours has left the window, so one more fits; all of it is forgotten a window after the
        // observation.
        assert_eq!(budget.left(start + HOUR), 78);
        assert_eq!(budget.left(start + HOUR + MINUTE), 80);
    }

    #[test]
    fn what_we_spent_before_the_stores_word_leaves_the_window_before_it() {
        let start = Instant::now();
        let mut budget = RateBudget::new(100, HOUR);
        for _ in 0..3 {
            assert_eq!(budget.try_spend(start), Ok(()));
        }
        budget.observe(RateLimit { limit: 100, remaining: 22 }, start + MINUTE);
        assert_eq!(budget.left(start + HOUR - MINUTE), 2);
        assert_eq!(budget.left(start + HOUR), 5);
        assert_eq!(budget.left(start + HOUR + MINUTE), 80);
    }

    #[test]
    fn the_stores_own_count_goes_before_ours() {
        let start = Instant::now();
        let mut budget = RateBudget::new(10, HOUR);
        for _ in 0..8 {
            assert_eq!(budget.try_spend(start), Ok(()));
        }
        budget.observe(RateLimit { limit: 3500, remaining: 3499 }, start);
        assert_eq!(budget.left(start), 2799);
        assert_eq!(budget.rate(start), RateLimit { limit: 3500, remaining: 3499 });
    }

    #[test]
    fn a_limit_of_nothing_is_not_believed_and_any_other_for_a_window() {
        let start = Instant::now();
        let mut budget = RateBudget::new(100, HOUR);
        for limit in [0, 1] {
            budget.observe(RateLimit { limit, remaining: 0 }, start);
            assert_eq!(budget.left(start), 80);
        }
        budget.observe(RateLimit { limit: 2, remaining: 0 }, start);
        assert!(budget.try_spend(start + MINUTE).is_err());
        assert_eq!(budget.try_spend(start + HOUR), Ok(()), "to hear whether it is still so");
        assert_eq!(budget.left(start + HOUR), 79);
        budget.observe(RateLimit { limit: u32::MAX, remaining: u32::MAX }, start + HOUR);
        assert_eq!(budget.left(start + HOUR), 3_435_973_836);
    }

    #[test]
    fn a_hold_stops_everything_until_it_is_over_and_is_never_shortened() {
        let start = Instant::now();
        let mut budget = RateBudget::app_store();
        budget.hold(HOUR, start);
        budget.hold(MINUTE, start);
        assert_eq!(budget.try_spend(start + MINUTE), Err(HOUR - MINUTE));
        assert_eq!(budget.try_spend(start + HOUR), Ok(()));
    }

    #[test]
    fn the_back_off_doubles_up_to_its_cap_and_obeys_the_floor() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        let whole: Vec<_> = (0..8).map(|_| backoff.fail_with(None, 1.0).as_secs()).collect();
        assert_eq!(whole, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(backoff.fail_with(None, 0.0), Duration::ZERO);
        assert_eq!(backoff.fail_with(Some(MINUTE), 0.5), MINUTE);
        for _ in 0..100 {
            assert!(backoff.fail(None) <= Duration::from_secs(60));
        }
        backoff.reset();
        assert_eq!(backoff.fail_with(None, 1.0), Duration::from_secs(1));
    }
}
