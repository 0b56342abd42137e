//! Whether whoever was let in would be let in still, asked where the change is committed.
//!
//! The door looks before the body is there and before anything is locked. By the time of the commit the key can be
//! revoked, the session over, the role another: a request that was kept waiting would act for somebody who may not any
//! more, and make itself a key that lasts. So what somebody was let in with goes with the [`Act`] into the change's own
//! transaction, which has the door look once more, under the head's lock, before it writes the entry
//! ([`Locked::append`]). Nothing has to be remembered for that: an act has its [`Standing`] from the door, and the entry
//! of one that has none is not written.
//!
//! The door asks by a connection of its own, one statement, and sees what is committed. What ends roles, and keys of the
//! workspace itself, takes the same head's lock, so that it comes wholly before a change or wholly after it. The end of a
//! session, and of a key of the instance's, is another ledger's: it can pass a change that has been looked at and is being
//! written.
//!
//! [`Act`]: crate::audit::Act
//! [`Locked::append`]: crate::ledger::append::Locked::append

use super::credential::Shown;
use super::{Asked, Gate, Refused};
use crate::access::context::RequestContext;
use crate::access::denial::Reason;
use crate::access::scope::{Permission, Permissions};
use crate::http::problem::{Kind, Problem};
use axum::http::HeaderMap;
use std::fmt;
use std::sync::Arc;

/// With what somebody acts.
#[derive(Clone, Debug, Default)]
pub enum Standing {
    /// With nothing, since nobody was let in: the service, and whoever runs commands on its machine.
    #[default]
    Own,
    /// With nothing that is known, although it is somebody who has to be let in: what they change is not recorded.
    Unsaid,
    /// With what they have just shown, in a transaction that the entry stands in or that came right before.
    Proven,
    /// With what the door let them in with.
    Admitted(Admitted),
}

/// What somebody was let in with, and to do what. Clones are the same.
#[derive(Clone)]
pub struct Admitted(Arc<AdmittedParts>);

/// The parts of an [`Admitted`].
pub(super) struct AdmittedParts {
    pub(super) gate: Gate,
    pub(super) shown: Shown,
    pub(super) asked: Asked,
    /// What they might do then.
    pub(super) grants: Permissions,
    /// The method and the route.
    pub(super) route: String,
    pub(super) context: RequestContext,
}

impl fmt::Debug for Admitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admitted").field("asked", &self.0.asked).finish_non_exhaustive()
    }
}

/// A standing that does not hold any more: what its owner is told.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}", .0.detail)]
pub struct Lapse(pub Box<Problem>);

impl Admitted {
    pub(super) fn new(parts: AdmittedParts) -> Self {
        Self(Arc::new(parts))
    }

    /// Whether it is the same, not only alike.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Has the door look again: whether they would be let in to the same, with no less than then. A refusal is noted.
    ///
    /// # Errors
    /// What they are told, where they would not; or where the database does not answer.
    pub async fn again(&self) -> Result<(), Lapse> {
        let AdmittedParts { gate, shown, asked, grants, route, context } = &*self.0;
        let refused = match gate.admit(shown.clone(), *asked).await {
            // What one does to oneself asks for no role.
            Ok(now) if asked.permission == Permission::OneSelf || now.grants().covers(*grants) => {
                return Ok(());
            }
            Ok(now) => {
                let words = "Your role here was changed while this was being carried out: look at what you may do now.";
                let problem = Problem::forbidden(Kind::Role, words);
                let actor = Some(now.actor());
                Box::new(Refused { actor, about: asked.workspace, reason: Reason::Role, problem })
            }
            Err(refused) => refused,
        };
        gate.note(&refused, *asked, route.clone(), context.clone());
        let mut problem = refused.problem;
        problem.lapsed = true;
        Err(Lapse(Box::new(problem)))
    }
}

impl Gate {
    /// What somebody stands on who is in a session of theirs, at a page that lets them in by itself.
    #[must_use]
    pub fn standing(&self, headers: &HeaderMap, route: &str, context: &RequestContext) -> Standing {
        let Ok(shown @ Shown::Session(_)) = self.shown(headers) else { return Standing::Unsaid };
        let permission = Permission::OneSelf;
        let asked = Asked { permission, acts: true, of_a_person: true, reads: false, workspace: None };
        Standing::Admitted(Admitted::new(AdmittedParts {
            gate: self.clone(),
            shown,
            asked,
            grants: Permissions::default(),
            route: route.to_owned(),
            context: context.clone(),
        }))
    }
}
