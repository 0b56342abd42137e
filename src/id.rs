//! Identifiers: parsed once, typed from then on.
//!
//! Everything that has an id has a UUID; where a person meets one it carries a prefix that says what it names
//! (`ws_…`, `src_…`, `ep_…`). Ledger ids have none: docs/receipt.md writes them bare.

use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

/// An identifier that is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{given}\" is not {expected}")]
pub struct ParseIdError {
    given: String,
    expected: &'static str,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $expected:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, sqlx::Type)]
        #[sqlx(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// A new one (UUIDv7, RFC 9562: rows made together lie together).
            #[must_use]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }

            /// The bare UUID, as the database has it.
            #[must_use]
            pub const fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::new()
            }
        }

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(s: &str) -> Result<Self, ParseIdError> {
                let wrong = || ParseIdError { given: s.chars().take(80).collect(), expected: $expected };
                let bare = s.strip_prefix($prefix).ok_or_else(wrong)?;
                let id = Uuid::try_parse(bare).map_err(|_| wrong())?;
                // One spelling each: lower case, with hyphens.
                if id.hyphenated().to_string() == bare { Ok(Self(id)) } else { Err(wrong()) }
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id!(
    /// A workspace: the tenant, the unit of isolation.
    WorkspaceId, "ws_", "a workspace's id (ws_ and a UUID)"
);
id!(
    /// A ledger: a workspace's log.
    LedgerId, "", "a ledger's id (a UUID)"
);
id!(
    /// A source: where observations come from.
    SourceId, "src_", "a source's id (src_ and a UUID)"
);
id!(
    /// A destination (endpoint): where notifications go.
    DestinationId, "ep_", "a destination's id (ep_ and a UUID)"
);
id!(
    /// A receipt; also the `webhook-id` of every attempt to deliver it.
    ReceiptId, "rcpt_", "a receipt's id (rcpt_ and a UUID)"
);
id!(
    /// A node: one data directory, used by one process at a time.
    NodeId, "node_", "a node's id (node_ and a UUID)"
);
id!(
    /// An API key (its id, not its secret).
    KeyId, "key_", "a key's id (key_ and a UUID)"
);
id!(
    /// A person.
    UserId, "usr_", "a user's id (usr_ and a UUID)"
);
id!(
    /// A session: somebody signed in, at one browser.
    SessionId, "ses_", "a session's id (ses_ and a UUID)"
);
id!(
    /// A passkey of a person's.
    PasskeyId, "pk_", "a passkey's id (pk_ and a UUID)"
);
id!(
    /// An account at an identity provider that a person has connected.
    IdentityId, "idn_", "an identity's id (idn_ and a UUID)"
);
id!(
    /// An invitation to a workspace.
    InvitationId, "inv_", "an invitation's id (inv_ and a UUID)"
);
id!(
    /// One request to the API; stands in its answer (`x-request-id`) and in the audit entry.
    RequestId, "", "a request's id (a UUID)"
);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_id_reads_back_as_it_was_written() {
        let id = DestinationId::new();
        assert_eq!(id.to_string().parse::<DestinationId>().unwrap(), id);
        assert!(id.to_string().starts_with("ep_"));
    }

    #[test]
    fn an_id_of_another_thing_or_spelling_is_refused() {
        let id = SourceId::new();
        assert!(id.to_string().parse::<DestinationId>().is_err());
        assert!(id.to_string().to_uppercase().parse::<SourceId>().is_err());
        assert!(format!("src_{}", id.uuid().simple()).parse::<SourceId>().is_err());
    }
}
