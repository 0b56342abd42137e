//! Where a request comes from: what the audit entry of an act says besides who and what.

use crate::http::problem::Problem;
use crate::id::RequestId;
use crate::name;
use axum::extract::{ConnectInfo, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// A user agent is kept up to here.
const LONGEST_USER_AGENT: usize = 256;

/// Through what somebody acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Surface {
    /// A page of ours, in a session.
    Dashboard,
    /// The API, with a key.
    Api,
    /// The command line: over the API by its own word, or on the machine itself.
    Cli,
    /// The service by itself.
    System,
}

impl Surface {
    /// Its name in entries.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dashboard => "dashboard",
            Self::Api => "api",
            Self::Cli => "cli",
            Self::System => "system",
        }
    }
}

/// A request's id and origin.
#[derive(Clone)]
pub struct RequestContext {
    /// Its id.
    pub id: RequestId,
    /// The address it came from: the peer's, or what a trusted proxy says.
    pub ip: Option<IpAddr>,
    /// What it calls itself.
    pub user_agent: Option<String>,
}

/// Which peers are believed when they say for whom they ask.
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies(pub Arc<Vec<IpNet>>);

impl TrustedProxies {
    fn trusts(&self, ip: IpAddr) -> bool {
        self.0.iter().any(|net| net.contains(&ip))
    }

    /// The address of whom `peer` asks for. `X-Forwarded-For` is read from its end: each trusted proxy vouches for the
    /// part before it, and the first that is none of ours is the client, whatever it wrote in front. A part that is no
    /// address ends it: then the client is not known, and the last proxy that is stands for it.
    #[must_use]
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        let values: Vec<_> = headers.get_all("x-forwarded-for").iter().collect();
        let parts = values.iter().rev().flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b','));
        for part in parts {
            if !self.trusts(client) {
                break;
            }
            let Some(said) = std::str::from_utf8(part).ok().and_then(address) else { break };
            client = said;
        }
        client
    }
}

/// An address as proxies write it: alone, with its port, or, of version 6, in brackets.
fn address(part: &str) -> Option<IpAddr> {
    let part = part.trim();
    let alone = part.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(part);
    let ip = alone.parse::<IpAddr>().or_else(|_| part.parse::<SocketAddr>().map(|with_port| with_port.ip()));
    ip.ok().map(|ip| ip.to_canonical())
}

impl std::fmt::Debug for RequestContext {
    /// The id alone: address and browser are a person's.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RequestContext").field("id", &self.id).finish_non_exhaustive()
    }
}

impl RequestContext {
    /// Of a request, under a new id.
    #[must_use]
    pub fn of(request: &Request, proxies: &TrustedProxies) -> Self {
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
        let user_agent = request
            .headers()
            .get(header::USER_AGENT)
            .map(|value| String::from_utf8_lossy(value.as_bytes()))
            .map(|value| value.chars().filter(|c| !name::is_hidden(*c)).take(LONGEST_USER_AGENT).collect());
        Self {
            id: RequestId::new(),
            ip: peer.map(|peer| proxies.client(peer, request.headers())),
            user_agent,
        }
    }

    /// Of what is not a request.
    #[must_use]
    pub fn none() -> Self {
        Self { id: RequestId::new(), ip: None, user_agent: None }
    }

    /// Through what it came, for whoever holds a key: our command line says so.
    #[must_use]
    pub fn surface_of_key(&self) -> Surface {
        let ours = self.user_agent.as_deref().is_some_and(|agent| agent.starts_with("statusledger-cli/"));
        if ours { Surface::Cli } else { Surface::Api }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for RequestContext {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts
            .extensions
            .get::<Self>()
            .cloned()
            .ok_or_else(|| Problem::internal("a request came without its context"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn client(trusted: &[&str], peer: &str, said: &[&str]) -> String {
        let proxies = TrustedProxies(Arc::new(trusted.iter().map(|net| net.parse().unwrap()).collect()));
        let mut headers = HeaderMap::new();
        for value in said {
            let value = axum::http::HeaderValue::from_bytes(value.as_bytes()).unwrap();
            headers.append("x-forwarded-for", value);
        }
        proxies.client(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn nobody_is_believed_who_is_not_a_trusted_proxy() {
        assert_eq!(client(&[], "192.0.2.1", &["198.51.100.7"]), "192.0.2.1");
        assert_eq!(client(&["10.0.0.0/8"], "10.1.1.1", &["198.51.100.7"]), "198.51.100.7");
        // What the client wrote in front is not believed.
        assert_eq!(client(&["10.0.0.0/8"], "10.1.1.1", &["6.6.6.6, 198.51.100.7"]), "198.51.100.7");
        assert_eq!(
            client(&["10.0.0.0/8"], "10.1.1.1", &["6.6.6.6", "198.51.100.7, 10.2.2.2"]),
            "198.51.100.7"
        );
        assert_eq!(client(&["10.0.0.0/8"], "10.1.1.1", &[]), "10.1.1.1");
        assert_eq!(client(&["10.0.0.0/8"], "::ffff:10.1.1.1", &["198.51.100.7"]), "198.51.100.7");
    }

    #[test]
    fn what_is_no_address_hides_nothing_that_a_proxy_wrote_behind_it() {
        let proxies = ["10.0.0.0/8"];
        for forged in ["6.6.6.6, x", "6.6.6.6, ", "garbage", "6.6.6.6, 1.2.3.4.5", "\u{e9}, 6.6.6.6"] {
            let said = format!("{forged}, 198.51.100.7");
            assert_eq!(client(&proxies, "10.1.1.1", &[&said]), "198.51.100.7", "{said}");
            assert_eq!(client(&proxies, "10.1.1.1", &[forged, "198.51.100.7"]), "198.51.100.7", "{forged}");
            let two = format!("{said}, 10.2.2.2");
            assert_eq!(client(&proxies, "10.1.1.1", &[&two]), "198.51.100.7", "{two}");
        }
        // Behind a proxy of ours that says nothing that can be read, nobody is known but the proxy.
        assert_eq!(client(&proxies, "10.1.1.1", &["6.6.6.6, unknown"]), "10.1.1.1");
        assert_eq!(client(&proxies, "10.1.1.1", &["6.6.6.6, _hidden, 10.2.2.2"]), "10.2.2.2");
    }

    #[test]
    fn proxies_may_write_ports_and_brackets() {
        for (said, meant) in [
            ("198.51.100.7:4711", "198.51.100.7"),
            ("[2001:db8::7]:4711", "2001:db8::7"),
            ("[2001:db8::7]", "2001:db8::7"),
            ("2001:db8::7", "2001:db8::7"),
            ("[::ffff:198.51.100.7]:80", "198.51.100.7"),
            ("6.6.6.6, 198.51.100.7:1, 10.2.2.2:2", "198.51.100.7"),
        ] {
            assert_eq!(client(&["10.0.0.0/8"], "10.1.1.1", &[said]), meant, "{said}");
        }
    }

    #[test]
    fn a_browser_whose_name_is_not_ascii_is_recorded_all_the_same() {
        let agent = |bytes: &[u8]| {
            let mut request = Request::new(axum::body::Body::empty());
            let value = axum::http::HeaderValue::from_bytes(bytes).unwrap();
            request.headers_mut().insert(header::USER_AGENT, value);
            RequestContext::of(&request, &TrustedProxies::default()).user_agent.unwrap()
        };
        assert_eq!(agent("Br\u{f6}wser/1".as_bytes()), "Br\u{f6}wser/1");
        assert_eq!(agent(b"curl/8 \xe9"), "curl/8 \u{fffd}");
        assert_eq!(agent("a\u{202e}b".as_bytes()), "ab");
        assert_eq!(agent("\u{e9}".repeat(300).as_bytes()).chars().count(), LONGEST_USER_AGENT);
    }
}
