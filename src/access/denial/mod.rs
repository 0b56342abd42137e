//! Refusals, on the record without a statement of the database before the answer.
//!
//! A refusal is counted in memory (`gathered`) and the answer goes out. What comes within a second is one entry for each
//! who asks, route and reason (`written`): an `audit.access.denied` in the ledger of the key's or the member's
//! workspace, of the source's at an inbound door, or, where nobody is known, in the instance's. Where nobody is known the
//! routes are counted inside, so that a flood of strangers is an entry a reason and a second. Room is by whom it
//! concerns: who floods one ledger takes no other's place, and what found none is counted and told in the ledger where it
//! belongs. A crash loses the second that was being gathered.
//!
//! A workspace that somebody else's key or member asked for hears nothing of it in its own ledger: whoever knew its id
//! could fill that. The entry in the asker's ledger, or the instance's, names it as target.

mod gathered;
mod written;

pub use gathered::Noted;
pub use written::write_denials;

use super::context::RequestContext;
use super::session::Method;
use crate::audit::Actor;
use crate::id::{KeyId, SessionId, SourceId, WorkspaceId};
use gathered::Gathered;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;

/// Why a request was refused. Its name is stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// No credentials at all.
    NoCredentials,
    /// A key that this instance did not make, or whose text was changed.
    UnknownKey,
    /// A session that this instance did not begin.
    UnknownSession,
    /// A key or a session whose time is over.
    Expired,
    /// A key or a session that was ended, or a person who was.
    Revoked,
    /// A key whose scopes do not grant the route.
    Scope,
    /// A member whose role does not grant the route, or a key whose maker's role does not any more.
    Role,
    /// Another's workspace.
    OtherWorkspace,
    /// A workspace's key, where only the instance's will do.
    NotOfTheInstance,
    /// A change in a session without its CSRF token.
    Csrf,
    /// The workspace asks for a passkey.
    PasskeyRequired,
    /// Too many requests.
    RateLimited,
    /// A key, where only somebody who is signed in will do.
    NotAPerson,
    /// Somebody who may do this, but not so much of it: give more than they have, change who has more.
    Beyond,
    /// At an inbound door: a token that is not this source's.
    UnknownToken,
    /// At a store's door: no valid signature, or none at all.
    Unsigned,
    /// The database did not answer: not a refusal, and not recorded.
    Unanswered,
    /// Who reaches every workspace asked for one that does not exist: not a refusal either.
    Nothing,
}

impl Reason {
    /// Its name in entries.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoCredentials => "no_credentials",
            Self::UnknownKey => "unknown_key",
            Self::UnknownSession => "unknown_session",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Scope => "scope",
            Self::Role => "role",
            Self::OtherWorkspace => "other_workspace",
            Self::NotOfTheInstance => "not_of_the_instance",
            Self::Csrf => "csrf",
            Self::PasskeyRequired => "passkey_required",
            Self::RateLimited => "rate_limited",
            Self::NotAPerson => "not_a_person",
            Self::Beyond => "beyond",
            Self::UnknownToken => "unknown_token",
            Self::Unsigned => "unsigned",
            Self::Unanswered => "unanswered",
            Self::Nothing => "nothing",
        }
    }
}

/// A refusal.
#[derive(Clone, Debug)]
pub struct Denial {
    /// Who asked, where that is known.
    pub actor: Option<Actor>,
    /// Into whose ledger it belongs, where that is known.
    pub workspace: Option<WorkspaceId>,
    /// Which workspace was asked for, where the request named one.
    pub asked: Option<WorkspaceId>,
    /// Which source an event was sent to, where the request named one: the ledger is its workspace's, if it exists.
    pub source: Option<SourceId>,
    /// The method and the route.
    pub route: String,
    /// Why.
    pub reason: Reason,
    /// From where.
    pub context: RequestContext,
}

/// A sign-in that failed.
#[derive(Clone, Debug)]
pub struct FailedSignIn {
    /// How it was tried.
    pub method: Method,
    /// At which identity provider, by its id in the settings.
    pub provider: Option<String>,
    /// Why it failed: a stable name.
    pub reason: &'static str,
    /// From where.
    pub context: RequestContext,
}

/// Where refusals are noted, and that a key or a session was used. Never waits for anything but the gathering itself.
#[derive(Clone, Debug)]
pub struct Denials {
    /// What was noted since it was last written. Locked for a look-up and an addition.
    gathered: Arc<Mutex<Gathered>>,
    /// Wakes whoever writes; with the last clone of this it ends.
    wake: mpsc::Sender<()>,
}

impl Denials {
    /// Both ends.
    #[must_use]
    pub fn new() -> (Self, Noted) {
        let (wake, woken) = mpsc::channel(1);
        let gathered = Arc::new(Mutex::new(Gathered::default()));
        (Self { gathered: Arc::clone(&gathered), wake }, Noted::new(gathered, woken))
    }

    fn add(&self, add: impl FnOnce(&mut Gathered)) {
        add(&mut self.gathered.lock().unwrap_or_else(PoisonError::into_inner));
        // Full: whoever writes is woken already.
        let _ = self.wake.try_send(());
    }

    /// Notes a refusal.
    pub fn note(&self, denial: Denial) {
        if matches!(denial.reason, Reason::Unanswered | Reason::Nothing) {
            return;
        }
        metrics::counter!("statusledger_requests_denied_total", "reason" => denial.reason.name())
            .increment(1);
        self.add(|gathered| gathered.denied(denial));
    }

    /// Notes a sign-in that failed.
    pub fn failed(&self, failed: FailedSignIn) {
        metrics::counter!("statusledger_sign_ins_failed_total", "reason" => failed.reason).increment(1);
        self.add(|gathered| gathered.failed(failed));
    }

    /// Notes that a key was used; nothing is lost if that is not written.
    pub(super) fn used(&self, key: KeyId) {
        self.add(|gathered| gathered.used(key));
    }

    /// Notes that a session was.
    pub(super) fn seen(&self, session: SessionId) {
        self.add(|gathered| gathered.seen(session));
    }
}
