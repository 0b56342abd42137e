//! Who asks, once the door has let them in.

use crate::access::scope::Permissions;
use crate::audit::Actor;
use crate::http::problem::{Kind, Problem};
use crate::id::{KeyId, SessionId, UserId, WorkspaceId};
use time::OffsetDateTime;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// An API key.
    Key {
        /// Which.
        id: KeyId,
        /// Its workspace.
        workspace: WorkspaceId,
        /// Whether it reaches every workspace.
        instance: bool,
        /// Who made it, or made the key that made it; none where the operator did.
        person: Option<UserId>,
        /// What its scopes grant, as far as the role of that person reaches by now.
        grants: Permissions,
        /// When it ends by itself.
        ends: Option<OffsetDateTime>,
    },
    /// A person, in a session.
    Session {
        /// Who.
        user: UserId,
        /// Which session.
        session: SessionId,
        /// Whether it began with a passkey.
        passkey: bool,
        /// What their role in the workspace of the request grants.
        grants: Permissions,
    },
}

impl Caller {
    /// What they may do in the workspace of the request.
    #[must_use]
    pub const fn grants(&self) -> Permissions {
        match self {
            Self::Key { grants, .. } | Self::Session { grants, .. } => *grants,
        }
    }

    /// The person behind it: who is signed in, or who made the key.
    #[must_use]
    pub const fn person(&self) -> Option<UserId> {
        match self {
            Self::Key { person, .. } => *person,
            Self::Session { user, .. } => Some(*user),
        }
    }

    /// When what they act with ends by itself; none for a session, which makes nothing that is as strong as itself.
    #[must_use]
    pub const fn ends(&self) -> Option<OffsetDateTime> {
        match self {
            Self::Key { ends, .. } => *ends,
            Self::Session { .. } => None,
        }
    }

    /// The refusal of what would take, or give away, more than they have.
    pub fn beyond(&self, detail: impl Into<String>) -> Problem {
        let kind = match self {
            Self::Key { .. } => Kind::Scope,
            Self::Session { .. } => Kind::Role,
        };
        Problem::forbidden(kind, detail)
    }

    /// As entries name them.
    #[must_use]
    pub fn actor(&self) -> Actor {
        match self {
            Self::Key { id, .. } => Actor::Key(*id),
            Self::Session { user, .. } => Actor::User(*user),
        }
    }
}
