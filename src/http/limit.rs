//! Rate limits: so many requests a minute for each key and each session, on each node.
//!
//! Whose request it is, is known from what it shows, which this instance has authenticated; so a limit costs no
//! statement of the database, and nobody can use up another's. Answers say how it stands (`RateLimit-Policy`,
//! `RateLimit`: draft-ietf-httpapi-ratelimit-headers); beyond the limit stands 429 with `Retry-After`, and a refusal on
//! the record. Inbound sources have no such limit: an event that is turned away is lost to some senders.

use super::problem::Problem;
use crate::access::Gate;
use crate::access::context::RequestContext;
use crate::access::denial::{Denial, Reason};
use crate::audit::Actor;
use crate::config::ApiSettings;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use governor::clock::{Clock, MonotonicClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Keys and sessions that are remembered before those are forgotten that have asked nothing lately; more, where more have.
const REMEMBERED: usize = 10_000;

static POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
static LIMIT: HeaderName = HeaderName::from_static("ratelimit");

type Limiter =
    RateLimiter<uuid::Uuid, HashMapStateStore<uuid::Uuid>, MonotonicClock, StateInformationMiddleware>;

/// How often who may ask. Shared by all requests of a node.
#[derive(Clone)]
pub struct RateLimits(Arc<Limits>);

struct Limits {
    limiter: Limiter,
    clock: MonotonicClock,
    /// How many are remembered until the next look at all of them: twice as many as the last one left, so that a look at
    /// each costs a request little, however many ask.
    look_at: AtomicUsize,
    /// What one request more needs to be allowed again.
    each: Duration,
    burst: u32,
    policy: HeaderValue,
}

impl std::fmt::Debug for RateLimits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RateLimits").finish_non_exhaustive()
    }
}

/// Whole seconds, rounded up.
fn seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

impl RateLimits {
    /// As the settings say.
    #[must_use]
    pub fn new(settings: &ApiSettings) -> Self {
        let burst = NonZeroU32::new(settings.burst).unwrap_or(NonZeroU32::MIN);
        let each = Duration::from_secs(60) / settings.requests_per_minute.max(1);
        let quota = Quota::with_period(each.max(Duration::from_nanos(1)))
            .unwrap_or_else(|| Quota::per_minute(burst))
            .allow_burst(burst);
        let window = seconds(each * burst.get()).max(1);
        // Digits and our own words.
        let policy = HeaderValue::from_str(&format!("\"requests\";q={burst};w={window}"))
            .unwrap_or(HeaderValue::from_static(""));
        let clock = MonotonicClock;
        let limiter = RateLimiter::hashmap_with_clock(quota, clock.clone()).with_middleware();
        let look_at = AtomicUsize::new(REMEMBERED);
        Self(Arc::new(Limits { limiter, clock, look_at, each, burst: burst.get(), policy }))
    }

    /// Whether one more of `who` is allowed: how many more then are; or after how many seconds it will be.
    fn check(&self, who: uuid::Uuid) -> Result<u32, u64> {
        let Limits { limiter, clock, look_at, .. } = &*self.0;
        if limiter.len() > look_at.load(Ordering::Relaxed) {
            limiter.retain_recent();
            look_at.store(REMEMBERED.max(2 * limiter.len()), Ordering::Relaxed);
        }
        match limiter.check_key(&who) {
            Ok(state) => Ok(state.remaining_burst_capacity()),
            Err(until) => Err(seconds(until.wait_time_from(clock.now())).max(1)),
        }
    }

    /// How it stands, for the answer: what remains, and in how many seconds all of it is there again.
    fn tell(&self, response: &mut Response, remaining: u32) {
        let full = seconds(self.0.each * self.0.burst.saturating_sub(remaining));
        let headers = response.headers_mut();
        headers.insert(POLICY.clone(), self.0.policy.clone());
        if let Ok(value) = HeaderValue::from_str(&format!("\"requests\";r={remaining};t={full}")) {
            headers.insert(LIMIT.clone(), value);
        }
    }
}

/// Lets a request of the API through within its key's or session's limit.
pub async fn limit(
    State((limits, gate)): State<(RateLimits, Gate)>,
    request: Request,
    next: Next,
) -> Response {
    let asked = request.uri().path().starts_with("/v1/");
    let Some(actor) = asked.then(|| gate.claims(request.headers())).flatten() else {
        return next.run(request).await;
    };
    let who = match actor {
        Actor::Key(id) => id.uuid(),
        Actor::Session(id) => id.uuid(),
        _ => return next.run(request).await,
    };
    match limits.check(who) {
        Ok(remaining) => {
            let mut response = next.run(request).await;
            limits.tell(&mut response, remaining);
            response
        }
        Err(retry_after) => {
            let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
            if let Some(context) = request.extensions().get::<RequestContext>() {
                gate.denials.note(Denial {
                    actor: Some(actor),
                    workspace: None,
                    asked: None,
                    source: None,
                    route: format!("{} {route}", request.method()),
                    reason: Reason::RateLimited,
                    context: context.clone(),
                });
            }
            let mut response = Problem::too_many(retry_after).into_response();
            limits.tell(&mut response, 0);
            response
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_allowed_and_then_the_rate_and_each_has_its_own() {
        let limits = RateLimits::new(&ApiSettings { requests_per_minute: 60, burst: 3 });
        let (one, other) = (uuid::Uuid::now_v7(), uuid::Uuid::now_v7());
        assert_eq!([limits.check(one), limits.check(one), limits.check(one)], [Ok(2), Ok(1), Ok(0)]);
        assert_eq!(limits.check(one), Err(1));
        assert_eq!(limits.check(other), Ok(2));
    }

    #[test]
    fn however_many_ask_all_are_looked_at_seldom() {
        let limits = RateLimits::new(&ApiSettings { requests_per_minute: 1, burst: 1 });
        for _ in 0..=REMEMBERED + 1 {
            assert_eq!(limits.check(uuid::Uuid::now_v7()), Ok(0));
        }
        // Nobody could be forgotten; the next look is when there are twice as many.
        let look_at = limits.0.look_at.load(Ordering::Relaxed);
        assert!(look_at >= 2 * REMEMBERED && limits.0.limiter.len() < look_at);
    }
}
