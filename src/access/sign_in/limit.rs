//! How often somebody may try.
//!
//! Two buckets stand before every sign-in: one of the address that it comes from, taken before anything else is done,
//! and one of the identity that it names, so that many addresses together gain nothing. Both are this node's alone:
//! behind several nodes the limit is so many times as high. An IPv6 network of 64 bits counts as one address, since
//! whoever has one has all of it.

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;

/// Above so many known addresses or identities, those that have been quiet are forgotten.
const MANY: usize = 10_000;

/// The buckets of a node.
#[derive(Debug)]
pub struct Limits {
    addresses: DefaultKeyedRateLimiter<Option<IpAddr>>,
    identities: DefaultKeyedRateLimiter<[u8; 32]>,
    clock: DefaultClock,
}

/// An address as it is counted.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

impl Limits {
    /// So many a minute from one address, and of one identity.
    #[must_use]
    pub fn new(by_address: u32, by_identity: u32) -> Self {
        let quota = |n: u32| Quota::per_minute(NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN));
        Self {
            addresses: RateLimiter::keyed(quota(by_address)),
            identities: RateLimiter::keyed(quota(by_identity)),
            clock: DefaultClock::default(),
        }
    }

    /// Counts a request from that address. Those whose address is not known share one bucket.
    ///
    /// # Errors
    /// The seconds to wait, where there were too many.
    pub fn address(&self, ip: Option<IpAddr>) -> Result<(), u64> {
        self.count(&self.addresses, &ip.map(network))
    }

    /// Counts a sign-in of an identity, by its keyed hash.
    ///
    /// # Errors
    /// The seconds to wait, where there were too many.
    pub fn identity(&self, identity: [u8; 32]) -> Result<(), u64> {
        self.count(&self.identities, &identity)
    }

    fn count<K: std::hash::Hash + Eq + Clone>(
        &self,
        buckets: &DefaultKeyedRateLimiter<K>,
        key: &K,
    ) -> Result<(), u64> {
        if buckets.len() > MANY {
            buckets.retain_recent();
        }
        buckets.check_key(key).map_err(|until| {
            let wait = until.wait_time_from(self.clock.now());
            wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_address_runs_out_and_another_does_not() {
        let limits = Limits::new(2, 100);
        let ip = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        for (address, allowed) in [
            ("192.0.2.1", true),
            ("192.0.2.1", true),
            ("192.0.2.1", false),
            ("::ffff:192.0.2.1", false),
            ("192.0.2.2", true),
            ("2001:db8:0:1::1", true),
            ("2001:db8:0:1::2", true),
            ("2001:db8:0:1:ffff::3", false),
            ("2001:db8:0:2::1", true),
        ] {
            assert_eq!(limits.address(ip(address)).is_ok(), allowed, "{address}");
        }
        let wait = limits.address(ip("192.0.2.1")).unwrap_err();
        assert!((1..=30).contains(&wait), "{wait}");
    }
}
