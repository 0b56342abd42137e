//! The door before every handler of `/v1`: who asks, and whether they may.
//!
//! * [`caller`]: who asks, once let in · [`extract`]: what a handler takes as proof of it ([`Access`], [`Person`])
//! * `credential`: what a request shows, and the first look, without the database
//! * `admission`: the second look, at the row: how a credential becomes a caller
//! * [`standing`]: the last look, where a change is committed · [`around`]: what the layers around a handler ask of its door
//!
//! What can be refused without the database is refused without it, and before a byte of the body is read: no credential,
//! one that this instance did not make, a key whose scopes do not grant the route or where only a person will do, a
//! session's mutation without its CSRF token. Then the body is read ([`crate::http::arriving`]), and only then the row: what
//! was ended while the body was on its way does not act. Where a change is committed the door looks again ([`standing`]).
//! Whoever may not even know of a workspace is told that there is none. Every refusal is noted ([`super::denial`]).

mod admission;
pub mod around;
pub mod caller;
mod credential;
pub mod extract;
pub mod standing;

pub use caller::Caller;
pub(crate) use credential::bearer;
pub use extract::{Access, Person};

use super::context::RequestContext;
use super::denial::{Denial, Denials, Reason};
use super::scope::Permission;
use super::secret::AccessSecret;
use super::session::SessionSettings;
use crate::audit::Actor;
use crate::database::Database;
use crate::http::problem::Problem;
use crate::id::WorkspaceId;
use std::sync::Arc;

/// What the door needs to know. Cloned freely.
#[derive(Clone, Debug)]
pub struct Gate(Arc<GateParts>);

/// The parts of a [`Gate`].
#[derive(Debug)]
pub struct GateParts {
    /// The database.
    pub database: Database,
    /// What keys and sessions are authenticated with.
    pub secret: AccessSecret,
    /// The workspace of the instance's own events.
    pub instance: WorkspaceId,
    /// Where refusals are noted.
    pub denials: Denials,
    /// How sessions are kept.
    pub sessions: SessionSettings,
    /// How long a workspace's deletion waits.
    pub deletion_waits: time::Duration,
}

impl Gate {
    /// Of its parts.
    #[must_use]
    pub fn new(parts: GateParts) -> Self {
        Self(Arc::new(parts))
    }

    /// Notes that who asked for `asked` was refused.
    fn note(&self, refused: &Refused, asked: Asked, route: String, context: RequestContext) {
        let Refused { actor, about, reason, .. } = *refused;
        self.denials.note(Denial {
            actor,
            workspace: about,
            asked: asked.workspace,
            source: None,
            route,
            reason,
            context,
        });
    }
}

impl std::ops::Deref for Gate {
    type Target = GateParts;
    fn deref(&self) -> &GateParts {
        &self.0
    }
}

/// What a request asks for, as far as it concerns the door.
#[derive(Clone, Copy, Debug)]
struct Asked {
    /// What the route needs.
    permission: Permission,
    /// Whether it goes on the record.
    acts: bool,
    /// Whether it is for people alone, and no key will do.
    of_a_person: bool,
    /// Whether the request's method only reads.
    reads: bool,
    /// In which workspace; none: the path names none, so in the instance.
    workspace: Option<WorkspaceId>,
}

/// A refusal: on the record as this, and answered with the problem.
#[derive(Debug)]
struct Refused {
    /// Who it was, as far as what they showed is authentic.
    actor: Option<Actor>,
    /// Into whose ledger it belongs: a key's own workspace, a member's. None where nobody is known, and of a key or a
    /// session that was not looked up: whoever writes the note does it.
    about: Option<WorkspaceId>,
    reason: Reason,
    problem: Problem,
}

impl Refused {
    /// Of somebody who is not known.
    fn stranger(reason: Reason, problem: Problem) -> Box<Self> {
        Box::new(Self { actor: None, about: None, reason, problem })
    }
}
