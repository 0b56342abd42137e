//! Which addresses a notification may be sent to.
//!
//! A destination's URL comes from a tenant, and the service stands where tenants do not: beside the database,
//! the cloud's metadata server, the operator's network. So a URL is checked when it is registered, and again at
//! every connect, against the address that is then dialled: a name can resolve to a public address first and
//! to 127.0.0.1 next. [`Guarded`] filters what a resolver answers; an address written in the URL never
//! reaches a resolver, so [`check_url`] comes before every attempt as well.
//!
//! What a [`Refusal`] says to a tenant does not tell an address, nor whether a name exists that is not allowed.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// Not the public internet (IANA's special-purpose registries, RFC 6890 and after), IPv4.
const DENIED_V4: [Ipv4Net; 15] = [
    v4(0, 0, 0, 0, 8),       // this network (RFC 791)
    v4(10, 0, 0, 0, 8),      // private (RFC 1918)
    v4(100, 64, 0, 0, 10),   // carrier-grade NAT (RFC 6598)
    v4(127, 0, 0, 0, 8),     // loopback (RFC 1122)
    v4(169, 254, 0, 0, 16),  // link-local, cloud metadata (RFC 3927)
    v4(172, 16, 0, 0, 12),   // private (RFC 1918)
    v4(192, 0, 0, 0, 24),    // protocol assignments (RFC 6890)
    v4(192, 0, 2, 0, 24),    // documentation (RFC 5737)
    v4(192, 88, 99, 0, 24),  // 6to4 relays (RFC 7526)
    v4(192, 168, 0, 0, 16),  // private (RFC 1918)
    v4(198, 18, 0, 0, 15),   // benchmarking (RFC 2544)
    v4(198, 51, 100, 0, 24), // documentation (RFC 5737)
    v4(203, 0, 113, 0, 24),  // documentation (RFC 5737)
    v4(224, 0, 0, 0, 4),     // multicast (RFC 5771)
    v4(240, 0, 0, 0, 4),     // reserved, broadcast (RFC 1112)
];

/// Not the public internet, IPv6; and whatever carries an IPv4 address to somewhere we do not see. Only 2000::/3 is
/// global unicast (RFC 4291, section 2.4); what is outside of it (loopback, NAT64, unique local, link-local, multicast,
/// segment routing, …) is denied as a whole.
const DENIED_V6: [Ipv6Net; 7] = [
    v6([0, 0, 0, 0], 3),
    v6([0x2001, 0, 0, 0], 23), // protocol assignments, Teredo (RFC 2928, RFC 4380)
    v6([0x2001, 0xdb8, 0, 0], 32), // documentation (RFC 3849)
    v6([0x2002, 0, 0, 0], 16), // 6to4 (RFC 3056)
    v6([0x3fff, 0, 0, 0], 20), // documentation (RFC 9637)
    v6([0x4000, 0, 0, 0], 2),
    v6([0x8000, 0, 0, 0], 1),
];

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(std::net::Ipv4Addr::new(a, b, c, d), prefix)
}

/// The network of the first four groups.
const fn v6(groups: [u16; 4], prefix: u8) -> Ipv6Net {
    let [a, b, c, d] = groups;
    Ipv6Net::new_assert(std::net::Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0), prefix)
}

/// What the operator allows beyond https to the public internet; by default, nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Whether plain http may be used.
    pub allow_http: bool,
    /// Networks that may be reached although they are not public.
    pub allowed_networks: Vec<IpNet>,
}

impl Policy {
    /// Whether `address` may be dialled. An IPv4 address in IPv6 clothes (`::ffff:a.b.c.d`) is taken as what
    /// it is.
    pub fn allows(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let denied = match address {
            IpAddr::V4(address) => DENIED_V4.iter().any(|network| network.contains(&address)),
            IpAddr::V6(address) => DENIED_V6.iter().any(|network| network.contains(&address)),
        };
        !denied || self.allowed_networks.iter().any(|network| network.contains(&address))
    }
}

/// Why a URL is not one to send to. Its text is for the tenant; `Debug` has the address, for the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Neither https, nor http where that is allowed.
    #[error("the URL has to begin with {}", if *allow_http {
        "https:// or http://"
    } else {
        "https:// (http:// only where whoever runs the instance sets delivery.allow_http)"
    })]
    Scheme {
        /// Whether http would have done.
        allow_http: bool,
    },
    /// `user:password@`, which would be sent to whatever answers there.
    #[error("the URL must not contain a user name or password")]
    UserInfo,
    /// No host, or port 0.
    #[error("the URL has no host and port that can be reached")]
    NoHost,
    /// The URL names an address that is not allowed.
    #[error(
        "the URL's address is not a public one; others are allowed by whoever runs the instance, with the setting \
             delivery.allow_networks"
    )]
    Address(IpAddr),
    /// The name has only addresses that are not allowed.
    #[error(
        "the URL's host has no public address; others are allowed by whoever runs the instance, with the setting \
             delivery.allow_networks"
    )]
    Resolved(Vec<IpAddr>),
    /// The name has no address, or the resolver failed. The text is that of [`Refusal::Resolved`]: which
    /// private names exist is not a tenant's business.
    #[error(
        "the URL's host has no public address; others are allowed by whoever runs the instance, with the setting \
             delivery.allow_networks"
    )]
    Unresolved(String),
}

/// Checks what can be seen of `url` by itself: scheme, user information, and an address in place of a name.
///
/// # Errors
/// The first [`Refusal`].
pub fn check_url(url: &Url, policy: &Policy) -> Result<(), Refusal> {
    match url.scheme() {
        "https" => {}
        "http" if policy.allow_http => {}
        _ => return Err(Refusal::Scheme { allow_http: policy.allow_http }),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Refusal::UserInfo);
    }
    if url.port() == Some(0) {
        return Err(Refusal::NoHost);
    }
    // The parser has already turned every spelling of an address (0x7f.1, 2130706433, …) into one.
    let address = match url.host() {
        Some(Host::Domain(_)) => return Ok(()),
        Some(Host::Ipv4(address)) => IpAddr::V4(address),
        Some(Host::Ipv6(address)) => IpAddr::V6(address),
        None => return Err(Refusal::NoHost),
    };
    if policy.allows(address) { Ok(()) } else { Err(Refusal::Address(address)) }
}

/// [`check_url`], then resolves the name: what is asked when a destination is registered. Bound it in time:
/// the resolver is the system's.
///
/// # Errors
/// The first [`Refusal`].
pub async fn check_destination<R: Resolve>(url: &Url, resolver: &Guarded<R>) -> Result<(), Refusal> {
    check_url(url, &resolver.policy)?;
    let Some(Host::Domain(name)) = url.host() else { return Ok(()) };
    let name: Name = name.parse().map_err(|_| Refusal::Unresolved("not a name".to_owned()))?;
    resolver.addresses(name).await.map(drop)
}

/// The operating system's resolver.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

impl Resolve for System {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            // Port 0 stands for the URL's.
            let addresses: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// A resolver of whose answers only those remain that `policy` allows.
#[derive(Debug)]
pub struct Guarded<R = System> {
    policy: Arc<Policy>,
    resolver: Arc<R>,
}

impl<R> Clone for Guarded<R> {
    fn clone(&self) -> Self {
        Self { policy: self.policy.clone(), resolver: self.resolver.clone() }
    }
}

impl Guarded<System> {
    /// The system's resolver under `policy`.
    pub fn system(policy: Policy) -> Self {
        Self::new(policy, System)
    }
}

impl<R: Resolve> Guarded<R> {
    /// `resolver` under `policy`.
    pub fn new(policy: Policy, resolver: R) -> Self {
        Self { policy: Arc::new(policy), resolver: Arc::new(resolver) }
    }

    /// What is allowed.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    async fn addresses(&self, name: Name) -> Result<Vec<SocketAddr>, Refusal> {
        let answers =
            self.resolver.resolve(name).await.map_err(|error| Refusal::Unresolved(error.to_string()))?;
        let (allowed, denied): (Vec<_>, Vec<_>) =
            answers.partition(|address| self.policy.allows(address.ip()));
        if !allowed.is_empty() {
            return Ok(allowed);
        }
        if denied.is_empty() {
            return Err(Refusal::Unresolved("no address".to_owned()));
        }
        Err(Refusal::Resolved(denied.iter().map(SocketAddr::ip).collect()))
    }
}

impl<R: Resolve + 'static> Resolve for Guarded<R> {
    fn resolve(&self, name: Name) -> Resolving {
        let guarded = self.clone();
        Box::pin(async move {
            let addresses = guarded.addresses(name).await?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// First and last address of each denied network; the neighbours are public unless marked `true`.
    const EDGES: &[(&str, &str, bool, bool)] = &[
        ("0.0.0.0", "0.255.255.255", true, false),
        ("10.0.0.0", "10.255.255.255", false, false),
        ("100.64.0.0", "100.127.255.255", false, false),
        ("127.0.0.0", "127.255.255.255", false, false),
        ("169.254.0.0", "169.254.255.255", false, false),
        ("172.16.0.0", "172.31.255.255", false, false),
        ("192.0.0.0", "192.0.0.255", false, false),
        ("192.0.2.0", "192.0.2.255", false, false),
        ("192.88.99.0", "192.88.99.255", false, false),
        ("192.168.0.0", "192.168.255.255", false, false),
        ("198.18.0.0", "198.19.255.255", false, false),
        ("198.51.100.0", "198.51.100.255", false, false),
        ("203.0.113.0", "203.0.113.255", false, false),
        ("224.0.0.0", "239.255.255.255", false, true),
        ("240.0.0.0", "255.255.255.255", true, true),
        ("::", "1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", true, false),
        ("2001::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", false, false),
        ("2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", false, false),
        ("2002::", "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff", false, false),
        ("3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff", false, false),
        ("4000::", "7fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", false, true),
        ("8000::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", true, true),
    ];

    /// The addresses just outside; none where there is none.
    fn neighbours(first: IpAddr, last: IpAddr) -> (Option<IpAddr>, Option<IpAddr>) {
        match (first, last) {
            (IpAddr::V4(first), IpAddr::V4(last)) => (
                u32::from(first).checked_sub(1).map(|bits| Ipv4Addr::from(bits).into()),
                u32::from(last).checked_add(1).map(|bits| Ipv4Addr::from(bits).into()),
            ),
            (IpAddr::V6(first), IpAddr::V6(last)) => (
                u128::from(first).checked_sub(1).map(|bits| Ipv6Addr::from(bits).into()),
                u128::from(last).checked_add(1).map(|bits| Ipv6Addr::from(bits).into()),
            ),
            _ => unreachable!("a network is of one family"),
        }
    }

    #[test]
    fn every_denied_network_is_denied_from_its_first_to_its_last_address() {
        let policy = Policy::default();
        assert_eq!(EDGES.len(), DENIED_V4.len() + DENIED_V6.len());
        for (first, last, denied_before, denied_after) in EDGES {
            let (first, last) = (address(first), address(last));
            assert!(!policy.allows(first), "{first}");
            assert!(!policy.allows(last), "{last}");
            let (before, after) = neighbours(first, last);
            for (neighbour, denied) in [(before, denied_before), (after, denied_after)] {
                if let Some(neighbour) = neighbour {
                    assert_eq!(policy.allows(neighbour), !denied, "{neighbour} beside {first} to {last}");
                }
            }
        }
    }

    #[test]
    fn what_special_networks_there_are_is_denied() {
        let special = [
            "::",
            "::1",
            "::10.0.0.1",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "100::1",
            "5f00::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ];
        for special in special {
            assert!(!Policy::default().allows(address(special)), "{special}");
        }
    }

    #[test]
    fn the_public_internet_is_allowed() {
        let public = ["1.1.1.1", "9.9.9.9", "93.184.216.34", "2606:4700::1111", "2a00:1450:4001::8a"];
        for public in public {
            assert!(Policy::default().allows(address(public)), "{public}");
        }
    }

    fn check(url: &str, policy: &Policy) -> Result<(), Refusal> {
        check_url(&url.parse().unwrap(), policy)
    }

    #[test]
    fn no_spelling_of_an_address_gets_past() {
        let policy = Policy::default();
        for host in [
            "127.0.0.1",
            "127.1",
            "127.0.0.1.",
            "2130706433",
            "0x7f.1",
            "0x7f000001",
            "0177.0.0.1",
            "017700000001",
            "%31%32%37.0.0.1",
            "\u{ff11}\u{ff12}\u{ff17}.0.0.1",
            "127\u{3002}0\u{3002}0\u{3002}1",
            "0",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[::127.0.0.1]",
            "[64:ff9b::7f00:1]",
            "[2002:7f00:1::]",
            "[0:0:0:0:0:ffff:a9fe:a9fe]",
            "169.254.169.254",
            "[fd00:ec2::254]",
            "[fe80::1]",
        ] {
            let result = check(&format!("https://{host}/hook"), &policy);
            assert!(matches!(result, Err(Refusal::Address(_))), "{host}: {result:?}");
        }
        assert_eq!(check("https://93.184.216.34/", &policy), Ok(()));
        assert_eq!(check("https://[2606:4700::1111]:8443/", &policy), Ok(()));
    }

    #[test]
    fn https_without_user_information_only() {
        let strict = Policy::default();
        let lax = Policy { allow_http: true, ..Policy::default() };
        assert_eq!(check("https://example.com/hook?x=1", &strict), Ok(()));
        assert_eq!(check("http://example.com/", &strict), Err(Refusal::Scheme { allow_http: false }));
        assert_eq!(check("http://example.com/", &lax), Ok(()));
        for url in
            ["ftp://example.com/", "file:///etc/passwd", "gopher://example.com/", "data:,x", "ws://e.com/"]
        {
            assert_eq!(check(url, &lax), Err(Refusal::Scheme { allow_http: true }), "{url}");
        }
        for url in
            ["https://user@example.com/", "https://user:pass@example.com/", "https://:pass@example.com/"]
        {
            assert_eq!(check(url, &lax), Err(Refusal::UserInfo), "{url}");
        }
        assert_eq!(check("https://example.com:0/", &strict), Err(Refusal::NoHost));
    }

    #[test]
    fn an_allowed_network_opens_that_network_and_no_other() {
        let allowed_networks = vec!["10.1.0.0/16".parse().unwrap(), "fd12::/16".parse().unwrap()];
        let policy = Policy { allow_http: false, allowed_networks };
        for allowed in ["10.1.0.0", "10.1.255.255", "::ffff:10.1.2.3", "fd12::1", "1.1.1.1"] {
            assert!(policy.allows(address(allowed)), "{allowed}");
        }
        for denied in ["10.0.255.255", "10.2.0.0", "::ffff:10.2.0.0", "::10.1.2.3", "fd13::", "127.0.0.1"] {
            assert!(!policy.allows(address(denied)), "{denied}");
        }
    }

    #[test]
    fn a_refusal_tells_a_tenant_no_address_and_not_whether_a_name_exists() {
        let exists = Refusal::Resolved(vec![address("10.20.30.40")]);
        let does_not = Refusal::Unresolved("no record of db.internal at 10.0.0.2".to_owned());
        assert_eq!(exists.to_string(), does_not.to_string());
        assert!(!exists.to_string().contains("10."));
        assert!(format!("{exists:?}").contains("10.20.30.40"));
    }

    proptest! {
        #[test]
        fn a_mapped_address_is_judged_as_the_address_it_maps(bits: u32) {
            let policy = Policy::default();
            let plain = Ipv4Addr::from(bits);
            prop_assert_eq!(policy.allows(plain.into()), policy.allows(plain.to_ipv6_mapped().into()));
        }

        #[test]
        fn an_address_in_a_url_is_judged_as_the_address(bits: u128, four: u32) {
            let policy = Policy::default();
            let six = Ipv6Addr::from(bits);
            prop_assert_eq!(check(&format!("https://[{six}]/"), &policy).is_ok(), policy.allows(six.into()));
            let four = Ipv4Addr::from(four);
            prop_assert_eq!(check(&format!("https://{four}/"), &policy).is_ok(), policy.allows(four.into()));
            let number = u32::from(four);
            prop_assert_eq!(check(&format!("https://{number}/"), &policy).is_ok(), policy.allows(four.into()));
        }

        #[test]
        fn what_the_standard_library_calls_not_public_is_denied(bits: u32) {
            let four = Ipv4Addr::from(bits);
            let special = four.is_private() || four.is_loopback() || four.is_link_local() || four.is_multicast()
                || four.is_broadcast() || four.is_documentation() || four.is_unspecified();
            prop_assert!(!special || !Policy::default().allows(four.into()));
        }

        #[test]
        fn any_network_an_operator_allows_is_reachable_whole(bits: u32, prefix in 0_u8..=32, inside: u32) {
            let network = Ipv4Net::new(bits.into(), prefix).unwrap().trunc();
            let mask = u32::from(network.hostmask());
            let address = Ipv4Addr::from(u32::from(network.network()) | (inside & mask));
            let policy = Policy { allow_http: false, allowed_networks: vec![network.into()] };
            prop_assert!(policy.allows(address.into()));
        }
    }
}
