//! What App Store Connect sends to a team's webhook: whether it is the store's, and what it says.
//!
//! A body is `{"data": {type, id, version, attributes, relationships}}`. Three types tell the state of something that is
//! watched; the others are told by their type alone. An event's id is the same however often it is delivered, and in the
//! list of deliveries.

use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;
use time::OffsetDateTime;

use super::answer::WebhookDelivery;
use super::document::{date, is_segment};
use crate::observation::Kind;

/// The header that a delivery is signed in.
pub const SIGNATURE_HEADER: &str = "x-apple-signature";

/// What stands before the hash in it.
const SCHEME: &str = "hmacsha256=";

/// The longest id, type and state that are taken over, in bytes. Apple's are below 100.
const MAX_TEXT: usize = 200;

/// The types of tests that a person sends from App Store Connect or by the API.
const PINGS: [&str; 3] = ["webhookPingCreated", "webhookPings", "webhookPing"];

/// What a webhook was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The event's id, by which it is told once. Empty only of a ping that has none.
    pub id: String,
    /// What it says.
    pub kind: EventKind,
}

impl Event {
    /// When it happened by the store's clock, where it says that.
    #[must_use]
    pub const fn at(&self) -> Option<OffsetDateTime> {
        match &self.kind {
            EventKind::State { at, .. } => *at,
            EventKind::Ping | EventKind::Other { .. } => None,
        }
    }
}

/// What an event says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// Something that is watched has come to a state.
    State {
        /// What it is.
        kind: Kind,
        /// The store's id of it. The one of TestFlight's external state is the id of the build's beta detail, which the
        /// store gives the build's own id.
        key: String,
        /// The state before, where the event says it.
        from: Option<String>,
        /// The state, as the store spells it.
        to: String,
        /// When, where the event says it.
        at: Option<OffsetDateTime>,
    },
    /// A test.
    Ping,
    /// Something that is not watched, or that nobody knows yet.
    Other {
        /// The event's type, as the body spells it.
        event_type: String,
        /// The store's id of what it is about, where it says that.
        about: Option<String>,
    },
}

/// Why a body is not an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAnEvent {
    /// It is no JSON.
    #[error("the body is no JSON")]
    NotJson,
    /// It has no `data` object.
    #[error("the body has no data")]
    NoData,
    /// It has no `data.type`, or one that is too long.
    #[error("the event has no type")]
    NoType,
    /// It has no `data.id`, or one that is too long.
    #[error("the event has no id")]
    NoId,
    /// It tells a state and not whose.
    #[error("the event does not say what it is about")]
    NoInstance,
    /// It is about a state and does not tell it.
    #[error("the event does not say the state")]
    NoState,
}

/// Whether `header` signs `body` with `secret`: `hmacsha256=` and the HMAC-SHA256 of the raw body in lower-case
/// hexadecimal. The time it takes does not depend on where two hashes differ.
#[must_use]
pub fn verify(secret: &[u8], body: &[u8], header: &str) -> bool {
    let Some(told) = header.strip_prefix(SCHEME).and_then(hash) else { return false };
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes a key of any size");
    mac.update(body);
    mac.verify_slice(&told).is_ok()
}

fn hash(hex: &str) -> Option<[u8; 32]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut hash = [0; 32];
    let hex: &[u8; 64] = hex.as_bytes().try_into().ok()?;
    for (byte, pair) in hash.iter_mut().zip(hex.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(hash)
}

/// Reads a body.
///
/// # Errors
/// If it is no event. A type that nobody knows is one ([`EventKind::Other`]).
pub fn parse(body: &[u8]) -> Result<Event, NotAnEvent> {
    let body: Value = serde_json::from_slice(body).map_err(|_| NotAnEvent::NotJson)?;
    let data = body.get("data").filter(|data| data.is_object()).ok_or(NotAnEvent::NoData)?;
    let id = text(data, "id");
    let event_type = text(data, "type");
    let attributes = data.get("attributes").filter(|attributes| !attributes.is_null());
    // A test may be as little as an id: what says neither a type nor anything else has nothing else to be.
    let bare = data.get("type").is_none() && attributes.is_none() && id.is_some();
    if bare || event_type.is_some_and(|event_type| PINGS.contains(&event_type)) {
        return Ok(Event { id: id.unwrap_or_default().to_owned(), kind: EventKind::Ping });
    }
    let event_type = event_type.ok_or(NotAnEvent::NoType)?;
    let id = id.ok_or(NotAnEvent::NoId)?.to_owned();
    let (kind, state) = match event_type {
        "appStoreVersionAppVersionStateUpdated" => (Kind::Version, "Value"),
        "buildBetaDetailExternalBuildStateUpdated" => (Kind::BetaExternal, "ExternalBuildState"),
        "buildUploadStateUpdated" => (Kind::BuildUpload, "State"),
        _ => {
            return Ok(Event {
                id,
                kind: EventKind::Other {
                    event_type: event_type.to_owned(),
                    about: instance(data).map(str::to_owned),
                },
            });
        }
    };
    let attribute = |name: &str| attributes.and_then(|attributes| text(attributes, name));
    let kind = EventKind::State {
        kind,
        key: instance(data).filter(|id| is_segment(id)).ok_or(NotAnEvent::NoInstance)?.to_owned(),
        from: attribute(&format!("old{state}")).map(str::to_owned),
        to: attribute(&format!("new{state}")).ok_or(NotAnEvent::NoState)?.to_owned(),
        at: attribute("timestamp").and_then(date),
    };
    Ok(Event { id, kind })
}

/// Reads the body that a delivery in the store's list was sent with. None where the store keeps it no longer.
///
/// # Errors
/// As [`parse`].
pub fn parse_delivery(delivery: &WebhookDelivery) -> Option<Result<Event, NotAnEvent>> {
    delivery.payload.as_deref().map(|payload| parse(payload.as_bytes()))
}

fn text<'v>(of: &'v Value, name: &str) -> Option<&'v str> {
    of.get(name)?.as_str().filter(|text| (1..=MAX_TEXT).contains(&text.len()) && !text.contains('\0'))
}

/// The id of what an event is about. Some events have it in the relationship's `data`, some in the relationship itself.
fn instance(data: &Value) -> Option<&str> {
    let instance = data.pointer("/relationships/instance")?;
    instance.get("data").and_then(|data| text(data, "id")).or_else(|| text(instance, "id"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;
    use time::macros::datetime;

    use super::super::values::WEBHOOK_EVENT_TYPES;
    use super::*;

    const SECRET: &[u8] = b"This is my secret";
    const BODY: &[u8] = b"Hello, World!";
    const HASH: &str = "7f062172b01cb00b53ca068614674a3d982a34062a0f5d37687d5e3377e54657";

    fn read(body: Value) -> Result<Event, NotAnEvent> {
        parse(body.to_string().as_bytes())
    }

    /// A type in a body, of its name in the description.
    fn type_of(name: &str) -> String {
        let mut words = name.split('_').map(str::to_ascii_lowercase);
        let first = words.next().unwrap();
        words.fold(first, |name, word| name + &word[..1].to_ascii_uppercase() + &word[1..])
    }

    #[test]
    fn apples_own_example_of_a_signature_is_right() {
        assert!(verify(SECRET, BODY, &format!("hmacsha256={HASH}")));
    }

    #[test]
    fn any_other_header_secret_or_body_is_wrong() {
        let good = format!("hmacsha256={HASH}");
        assert!(!verify(b"This is my Secret", BODY, &good));
        assert!(!verify(b"", BODY, &good));
        assert!(!verify(SECRET, b"Hello, World", &good));
        let mut last = HASH.to_owned();
        last.replace_range(63.., "6");
        for header in [
            "".to_owned(),
            HASH.to_owned(),
            format!("sha256={HASH}"),
            format!("HMACSHA256={HASH}"),
            format!("hmacsha256={}", HASH.to_uppercase()),
            format!("hmacsha256= {HASH}"),
            format!("hmacsha256={HASH} "),
            format!("hmacsha256={HASH}00"),
            format!("hmacsha256={}", &HASH[..62]),
            format!("hmacsha256={last}"),
            format!("hmacsha256={}", "é".repeat(32)),
            "hmacsha256=".to_owned(),
        ] {
            assert!(!verify(SECRET, BODY, &header), "{header}");
        }
    }

    #[test]
    fn a_version_tells_both_its_states_and_when() {
        let event = read(json!({ "data": {
            "type": "appStoreVersionAppVersionStateUpdated", "id": "e1", "version": 1,
            "attributes": { "newValue": "IN_REVIEW", "oldValue": "WAITING_FOR_REVIEW", "timestamp": "2026-04-16T05:00:52.745Z" },
            "relationships": { "instance": { "data": { "type": "appStoreVersions", "id": "v1" } } },
        } }));
        let kind = EventKind::State {
            kind: Kind::Version,
            key: "v1".to_owned(),
            from: Some("WAITING_FOR_REVIEW".to_owned()),
            to: "IN_REVIEW".to_owned(),
            at: Some(datetime!(2026-04-16 05:00:52.745 UTC)),
        };
        assert_eq!(event, Ok(Event { id: "e1".to_owned(), kind }));
    }

    #[test]
    fn a_build_and_an_upload_name_their_states_otherwise() {
        let state = |event_type: &str, attributes: Value| {
            let event = read(json!({ "data": {
                "type": event_type, "id": "e", "version": 1, "attributes": attributes,
                "relationships": { "instance": { "data": { "type": "x", "id": "i" } } },
            } }));
            match event.unwrap().kind {
                EventKind::State { kind, key, from, to, at } => (kind, key, from, to, at),
                other => panic!("{other:?}"),
            }
        };
        let build = state(
            "buildBetaDetailExternalBuildStateUpdated",
            json!({ "newExternalBuildState": "NEVER_SEEN", "oldExternalBuildState": "IN_BETA_REVIEW", "timestamp": "nonsense" }),
        );
        let from = Some("IN_BETA_REVIEW".to_owned());
        assert_eq!(build, (Kind::BetaExternal, "i".to_owned(), from, "NEVER_SEEN".to_owned(), None));
        let upload = state("buildUploadStateUpdated", json!({ "newState": "COMPLETE" }));
        assert_eq!(upload, (Kind::BuildUpload, "i".to_owned(), None, "COMPLETE".to_owned(), None));
    }

    #[test]
    fn every_type_of_the_description_is_an_event() {
        let states = [
            "APP_STORE_VERSION_APP_VERSION_STATE_UPDATED",
            "BUILD_BETA_DETAIL_EXTERNAL_BUILD_STATE_UPDATED",
            "BUILD_UPLOAD_STATE_UPDATED",
        ];
        for name in WEBHOOK_EVENT_TYPES {
            let event_type = type_of(name);
            // Those about background assets have the instance without a `data` around it.
            let event = read(json!({ "data": {
                "type": event_type, "id": "e",
                "attributes": {
                    "timestamp": "2026-04-16T05:00:52Z", "newState": "A", "oldState": "B", "newValue": "A",
                    "newExternalBuildState": "A", "appId": "1001", "available": true, "territories": ["NOR"],
                },
                "relationships": { "instance": { "id": "i", "type": "t", "links": { "self": "x" } } },
            } }));
            match event.unwrap().kind {
                EventKind::State { key, to, .. } => {
                    assert!(states.contains(name), "{name}");
                    assert_eq!((key.as_str(), to.as_str()), ("i", "A"));
                }
                EventKind::Other { event_type: told, about } => {
                    assert!(!states.contains(name), "{name}");
                    assert_eq!(told, event_type);
                    assert_eq!(about.as_deref(), Some("i"));
                }
                EventKind::Ping => panic!("{name}"),
            }
        }
        let unknown = read(json!({ "data": { "type": "moonLanded", "id": "e" } })).unwrap();
        assert_eq!(unknown.kind, EventKind::Other { event_type: "moonLanded".to_owned(), about: None });
    }

    #[test]
    fn a_ping_is_one_in_each_of_its_shapes() {
        for (body, id) in [
            (
                json!({ "type": "webhookPingCreated", "id": "p", "version": 1, "attributes": { "timestamp": "2026-04-16T05:00:52Z" } }),
                "p",
            ),
            (json!({ "type": "webhookPingCreated", "id": "p", "version": 1 }), "p"),
            (json!({ "id": "p", "version": 1 }), "p"),
            (json!({ "type": "webhookPings", "id": "p", "links": { "self": "x" } }), "p"),
            (
                json!({ "type": "webhookPings", "relationships": { "webhook": { "data": { "type": "webhooks", "id": "w" } } } }),
                "",
            ),
        ] {
            assert_eq!(read(json!({ "data": body })), Ok(Event { id: id.to_owned(), kind: EventKind::Ping }));
        }
    }

    #[test]
    fn what_is_no_event_says_why() {
        let state = |id: Value, attributes: Value, relationships: Value| {
            read(json!({ "data": {
                "type": "appStoreVersionAppVersionStateUpdated", "id": id, "attributes": attributes, "relationships": relationships,
            } }))
        };
        let told = json!({ "newValue": "IN_REVIEW" });
        let instance = json!({ "instance": { "data": { "type": "appStoreVersions", "id": "v" } } });
        assert!(state(json!("e"), told.clone(), instance.clone()).is_ok());
        assert_eq!(state(Value::Null, told.clone(), instance.clone()), Err(NotAnEvent::NoId));
        assert_eq!(state(json!(""), told.clone(), instance.clone()), Err(NotAnEvent::NoId));
        assert_eq!(state(json!("e".repeat(201)), told.clone(), instance.clone()), Err(NotAnEvent::NoId));
        assert_eq!(state(json!("e"), told.clone(), json!({})), Err(NotAnEvent::NoInstance));
        assert_eq!(
            state(json!("e"), told, json!({ "instance": { "data": null } })),
            Err(NotAnEvent::NoInstance)
        );
        assert_eq!(state(json!("e"), json!({ "oldValue": "X" }), instance.clone()), Err(NotAnEvent::NoState));
        assert_eq!(state(json!("e"), json!({ "newValue": 7 }), instance.clone()), Err(NotAnEvent::NoState));
        assert_eq!(state(json!("e"), Value::Null, instance), Err(NotAnEvent::NoState));
        assert_eq!(read(json!({ "data": { "id": "e", "attributes": {} } })), Err(NotAnEvent::NoType));
        assert_eq!(read(json!({ "data": {} })), Err(NotAnEvent::NoType));
        assert_eq!(read(json!({ "data": [] })), Err(NotAnEvent::NoData));
        assert_eq!(read(json!({})), Err(NotAnEvent::NoData));
        assert_eq!(read(json!(7)), Err(NotAnEvent::NoData));
        assert_eq!(parse(b"{"), Err(NotAnEvent::NotJson));
        assert_eq!(parse(b"\xff"), Err(NotAnEvent::NotJson));
    }

    #[test]
    fn a_delivery_is_read_from_the_body_that_it_was_sent_with() {
        let delivery = |payload: Option<&str>| WebhookDelivery {
            id: "d".to_owned(),
            state: Some("FAILED".to_owned()),
            created_date: None,
            redelivery: true,
            event_type: Some("APP_STORE_VERSION_APP_VERSION_STATE_UPDATED".to_owned()),
            ping: false,
            payload: payload.map(str::to_owned),
        };
        let ping = r#"{"data":{"type":"webhookPingCreated","id":"p"}}"#;
        let event = Event { id: "p".to_owned(), kind: EventKind::Ping };
        assert_eq!(parse_delivery(&delivery(Some(ping))), Some(Ok(event)));
        assert_eq!(parse_delivery(&delivery(Some("no"))), Some(Err(NotAnEvent::NotJson)));
        assert_eq!(parse_delivery(&delivery(None)), None);
    }
}
