//! The headers that a tenant may add.

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

/// Headers that a tenant adds to a destination. Their values may be secret; `Debug` leaves them out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CustomHeaders(pub(super) HeaderMap);

/// Headers a destination may have, and their total size, names and values, in bytes.
const HEADERS_LIMIT: usize = 20;
const HEADERS_SIZE_LIMIT: usize = 8 << 10;

/// Headers that say what is sent, by whom it is signed, and where a request ends.
const RESERVED: [&str; 14] = [
    "host",
    "content-length",
    "content-type",
    "content-encoding",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "accept-encoding",
    "http2-settings",
    "user-agent",
];
const RESERVED_PREFIXES: [&str; 2] = ["webhook-", "proxy-"];

/// What is wrong with a destination's headers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHeader {
    /// One that the service sets itself.
    #[error("the header {0} cannot be set on a destination")]
    Reserved(String),
    /// Not the name of a header.
    #[error("{0:?} is not the name of a header")]
    Name(String),
    /// Not the value of a header (line breaks, control characters).
    #[error("the value of the header {0} has characters that a header cannot have")]
    Value(String),
    /// Twice the same.
    #[error("the header {0} is given twice")]
    Twice(String),
    /// Too many or too long.
    #[error("a destination has at most {HEADERS_LIMIT} headers of {HEADERS_SIZE_LIMIT} bytes in all")]
    TooMuch,
}

impl CustomHeaders {
    /// Checks names and values.
    ///
    /// # Errors
    /// The first [`BadHeader`].
    pub fn new<'a>(headers: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, BadHeader> {
        let mut map = HeaderMap::new();
        let mut size = 0;
        for (name, value) in headers {
            size += name.len() + value.len();
            if size > HEADERS_SIZE_LIMIT || map.len() == HEADERS_LIMIT {
                return Err(BadHeader::TooMuch);
            }
            let parsed: HeaderName = name.parse().map_err(|_| BadHeader::Name(name.to_owned()))?;
            let lower = parsed.as_str();
            if RESERVED.contains(&lower) || RESERVED_PREFIXES.iter().any(|prefix| lower.starts_with(prefix)) {
                return Err(BadHeader::Reserved(lower.to_owned()));
            }
            let mut value: HeaderValue = value.parse().map_err(|_| BadHeader::Value(lower.to_owned()))?;
            value.set_sensitive(true);
            if map.insert(parsed.clone(), value).is_some() {
                return Err(BadHeader::Twice(parsed.as_str().to_owned()));
            }
        }
        Ok(Self(map))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_destination_cannot_set_what_signs_or_frames_the_request() {
        for name in ["Webhook-Id", "webhook-signature", "webhook-anything", "Host", "Content-Length"] {
            assert!(matches!(CustomHeaders::new([(name, "x")]), Err(BadHeader::Reserved(_))), "{name}");
        }
        for name in ["transfer-encoding", "CONNECTION", "proxy-authorization", "te", "content-type"] {
            assert!(matches!(CustomHeaders::new([(name, "x")]), Err(BadHeader::Reserved(_))), "{name}");
        }
        assert!(matches!(CustomHeaders::new([("x y", "x")]), Err(BadHeader::Name(_))));
        assert!(matches!(CustomHeaders::new([("x", "a\r\nwebhook-id: b")]), Err(BadHeader::Value(_))));
        assert!(matches!(CustomHeaders::new([("x", "1"), ("X", "2")]), Err(BadHeader::Twice(_))));
        let long = "v".repeat(HEADERS_SIZE_LIMIT);
        assert_eq!(CustomHeaders::new([("x", long.as_str())]), Err(BadHeader::TooMuch));
        let names: Vec<String> = (0..=HEADERS_LIMIT).map(|number| format!("x-{number}")).collect();
        assert_eq!(CustomHeaders::new(names.iter().map(|name| (name.as_str(), ""))), Err(BadHeader::TooMuch));
        let fine = CustomHeaders::new([("Authorization", "Bearer hidden")]).unwrap();
        assert!(!format!("{fine:?}").contains("hidden"));
    }
}
