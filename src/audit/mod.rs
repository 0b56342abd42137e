//! Audit: who did what, from where, and what came of it; an entry of the ledger that it concerns.
//!
//! A change and its audit entry are one transaction: whoever changes something is handed an [`Act`] and puts what it
//! says beside the change, or the change does not happen. Refusals come another way ([`crate::access::denial`]).
//! Of what changed, only fields that are listed here are recorded: a new one is not, until somebody lists it.

pub mod configuration;
pub mod display;
pub mod fields;
pub mod format;
pub mod http;
pub mod names;
mod nearest;
pub mod search;
pub mod startup;

use crate::access::context::{RequestContext, Surface};
use crate::access::door::standing::Standing;
use crate::id::{KeyId, SessionId, SourceId, UserId};
use crate::ledger::terms::Terms;
use crate::ledger::{Draft, draft};
use statusledger_verify::json::{Object, Value};
use std::fmt;

/// Who did it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Actor {
    /// An API key.
    Key(KeyId),
    /// A person.
    User(UserId),
    /// Somebody in a session that was not looked up.
    Session(SessionId),
    /// A source, by its token.
    Source(SourceId),
    /// Whoever runs commands on the instance's own machine.
    Operator,
    /// The service by itself.
    System,
    /// Nobody that is known here.
    Unknown,
}

impl Actor {
    /// What kind of actor it is, by its name in entries.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Key(_) => "api_key",
            Self::User(_) => "user",
            Self::Session(_) => "session",
            Self::Source(_) => "source",
            Self::Operator => "operator",
            Self::System => "system",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Actor {
    /// Its id; an operator and the system have none but their name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(id) => id.fmt(f),
            Self::User(id) => id.fmt(f),
            Self::Session(id) => id.fmt(f),
            Self::Source(id) => id.fmt(f),
            Self::Operator => f.write_str("operator"),
            Self::System => f.write_str("system"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

macro_rules! actions {
    ($($(#[$doc:meta])* $name:ident = $code:literal),* $(,)?) => {
        /// What was done. Its code is stable: the entry's type is `audit.` and the code.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Action { $($(#[$doc])* $name),* }

        impl Action {
            /// Each.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The entry's type.
            #[must_use]
            pub const fn kind(self) -> &'static str {
                match self { $(Self::$name => concat!("audit.", $code)),* }
            }
        }
    };
}

actions! {
    /// A workspace was made.
    WorkspaceCreated = "workspace.created",
    /// Its name or its rules were changed.
    WorkspaceUpdated = "workspace.updated",
    /// Its deletion was asked for, and will take place after the waiting period.
    WorkspaceDeletionRequested = "workspace.deletion_requested",
    /// The deletion was called off.
    WorkspaceDeletionCancelled = "workspace.deletion_cancelled",
    /// Its keys, secrets and openings were destroyed.
    WorkspaceDeleted = "workspace.deleted",
    /// A source was made.
    SourceCreated = "source.created",
    /// A source was changed.
    SourceUpdated = "source.updated",
    /// A source was removed.
    SourceDeleted = "source.deleted",
    /// A source was asked for everything at once.
    SourceLooked = "source.looked",
    /// A destination was made.
    DestinationCreated = "destination.created",
    /// A destination was changed.
    DestinationUpdated = "destination.updated",
    /// A destination was removed.
    DestinationDeleted = "destination.deleted",
    /// A destination got a new secret.
    DestinationSecretRotated = "destination.secret_rotated",
    /// A test event was sent.
    DestinationTested = "destination.tested",
    /// Deliveries were put back into the queue.
    DeliveryRedelivered = "delivery.redelivered",
    /// A receipt was taken away.
    ReceiptDownloaded = "receipt.downloaded",
    /// The ledger was exported.
    LedgerExported = "ledger.exported",
    /// Sealed values were shown.
    OpeningsShown = "openings.shown",
    /// An API key was made.
    KeyCreated = "key.created",
    /// An API key was replaced; the old one ends after the overlap.
    KeyRotated = "key.rotated",
    /// An API key was ended.
    KeyRevoked = "key.revoked",
    /// Somebody was invited.
    MemberInvited = "member.invited",
    /// An invitation was withdrawn.
    InvitationRevoked = "invitation.revoked",
    /// Somebody accepted an invitation.
    MemberJoined = "member.joined",
    /// A member got another role.
    MemberRoleChanged = "member.role_changed",
    /// A member was removed, or left.
    MemberRemoved = "member.removed",
    /// Somebody signed in.
    SignedIn = "session.signed_in",
    /// Somebody failed to.
    SignInFailed = "session.sign_in_failed",
    /// Somebody signed out.
    SignedOut = "session.signed_out",
    /// A session was ended from elsewhere.
    SessionRevoked = "session.revoked",
    /// A person connected an account at an identity provider.
    IdentityAdded = "identity.added",
    /// A person gave such an account up.
    IdentityRemoved = "identity.removed",
    /// A person was kept from signing in, and their sessions were ended.
    PersonDisabled = "person.disabled",
    /// A person may sign in again.
    PersonEnabled = "person.enabled",
    /// A passkey was added to a person.
    PasskeyAdded = "passkey.added",
    /// A passkey was removed.
    PasskeyRemoved = "passkey.removed",
    /// A one-time link for signing in was made.
    LinkCreated = "link.created",
    /// Requests were refused.
    AccessDenied = "access.denied",
    /// The instance's signing keys were changed.
    KeyRingChanged = "key_ring.changed",
    /// A node started with other settings than the one before.
    SettingsChanged = "settings.changed",
    /// The schema was brought up to another version.
    Migrated = "instance.migrated",
    /// The loss of entries that were signed was accepted; another ledger follows.
    LossAccepted = "ledger.loss_accepted",
    /// What was older than the operator keeps was deleted beside the ledger.
    RetentionApplied = "retention.applied",
    /// The self-audit found a row that does not agree with the others, or with what was signed.
    LedgerDisagrees = "ledger.disagrees",
    /// A whole pass of the self-audit found nothing any more in a ledger where something had been found.
    LedgerAgrees = "ledger.agrees",
    /// The configuration in a file was applied.
    ConfigurationApplied = "configuration.applied",
}

impl Action {
    /// Its code: the entry's type without `audit.`.
    #[must_use]
    pub fn code(self) -> &'static str {
        &self.kind()["audit.".len()..]
    }
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Success,
    /// It was refused.
    Denied,
    /// It was tried and failed.
    Failure,
}

impl Outcome {
    /// Its name in entries.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Denied => "denied",
            Self::Failure => "failure",
        }
    }
}

/// Somebody doing something: who, through what, from where. Handed to whatever changes anything.
#[derive(Clone, Debug)]
pub struct Act {
    actor: Actor,
    surface: Surface,
    context: RequestContext,
    terms: Terms,
}

/// How an audit entry is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its code, without `audit.`.
    pub action: &'static str,
    /// Who: the actor's id.
    pub actor: String,
    /// What came of it.
    pub outcome: &'static str,
    /// What it was done to: ids.
    pub targets: Vec<String>,
}

impl Act {
    /// Of its parts, on no terms. Somebody who has to be let in changes nothing with it as it is: the door's acts
    /// ([`crate::access::Access::act`]) say with what they were.
    #[must_use]
    pub const fn new(actor: Actor, surface: Surface, context: RequestContext) -> Self {
        let standing = match actor {
            Actor::Key(_) | Actor::User(_) | Actor::Session(_) => Standing::Unsaid,
            Actor::Source(_) | Actor::Operator | Actor::System | Actor::Unknown => Standing::Own,
        };
        Self { actor, surface, context, terms: Terms { standing, condition: None, claim: None } }
    }

    /// By somebody who shows who they are in the transaction that records it, or has in the one right before.
    #[must_use]
    pub fn proven(user: UserId, context: RequestContext) -> Self {
        let act = Self::new(Actor::User(user), Surface::Dashboard, context);
        act.on(Terms { standing: Standing::Proven, ..Terms::default() })
    }

    /// The same, on the terms of a request: whatever records it keeps them, or does not record it.
    #[must_use]
    pub fn on(mut self, terms: Terms) -> Self {
        self.terms = terms;
        self
    }

    /// By the service itself.
    #[must_use]
    pub fn system() -> Self {
        Self::new(Actor::System, Surface::System, RequestContext::none())
    }

    /// By a command on the instance's own machine.
    #[must_use]
    pub fn operator() -> Self {
        Self::new(Actor::Operator, Surface::Cli, RequestContext::none())
    }

    /// Who.
    #[must_use]
    pub const fn actor(&self) -> Actor {
        self.actor
    }

    /// From where.
    #[must_use]
    pub const fn context(&self) -> &RequestContext {
        &self.context
    }

    /// On what terms.
    #[must_use]
    pub const fn terms(&self) -> &Terms {
        &self.terms
    }

    /// The entry for something done.
    #[must_use]
    pub fn of(&self, action: Action) -> Record<'_> {
        Record {
            act: self,
            action,
            outcome: Outcome::Success,
            reason: None,
            targets: Vec::new(),
            changes: Object::default(),
            details: Object::default(),
            sealed: Vec::new(),
        }
    }
}

/// An audit entry in the making.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    act: &'a Act,
    action: Action,
    outcome: Outcome,
    reason: Option<String>,
    targets: Vec<(&'static str, String)>,
    changes: Object,
    details: Object,
    sealed: Vec<(&'static str, Value)>,
}

impl Record<'_> {
    /// The same, with another outcome, and why.
    #[must_use]
    pub fn outcome(mut self, outcome: Outcome, reason: impl Into<String>) -> Self {
        self.outcome = outcome;
        self.reason = Some(reason.into());
        self
    }

    /// The same, done to this too.
    #[must_use]
    pub fn target(mut self, kind: &'static str, id: impl fmt::Display) -> Self {
        self.targets.push((kind, id.to_string()));
        self
    }

    /// The same, with what else there is to say. Never anything personal or secret: that is `sealed`.
    #[must_use]
    pub fn detail(mut self, name: &str, value: Value) -> Self {
        self.details.insert(name.into(), value);
        self
    }

    /// The same, with a value that may have to be erased some day.
    #[must_use]
    pub fn sealed(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.sealed.push((name, Value::String(value.into())));
        self
    }

    /// The same, with what differs between `before` and `after` of the fields that are listed for this kind of thing
    /// ([`fields`]); none is what was not there.
    #[must_use]
    pub fn changed(
        mut self,
        of: &'static str,
        before: Option<&serde_json::Value>,
        after: Option<&serde_json::Value>,
    ) -> Self {
        let (changes, sealed) = fields::differences(of, before, after);
        self.changes = changes;
        self.sealed.extend(sealed);
        self
    }

    /// Whether it shows a change.
    #[must_use]
    pub fn says_changes(&self) -> bool {
        !self.changes.is_empty()
    }

    /// The entry.
    ///
    /// # Errors
    /// If it is too long for one.
    pub fn draft(self) -> Result<Draft, draft::Error> {
        let text = |s: &str| Value::String(s.to_owned());
        let mut actor = Object::default();
        actor.insert("type".into(), text(self.act.actor.kind()));
        actor.insert("id".into(), text(&self.act.actor.to_string()));
        let targets = self
            .targets
            .iter()
            .map(|(kind, id)| {
                let mut target = Object::default();
                target.insert("type".into(), text(kind));
                target.insert("id".into(), text(id));
                Value::Object(target)
            })
            .collect();
        let mut data = Object::default();
        data.insert("actor".into(), Value::Object(actor));
        data.insert("surface".into(), text(self.act.surface.name()));
        data.insert("outcome".into(), text(self.outcome.name()));
        data.insert("targets".into(), Value::Array(targets));
        data.insert("request".into(), text(&self.act.context.id.to_string()));
        if let Some(reason) = &self.reason {
            data.insert("reason".into(), text(reason));
        }
        if !self.changes.is_empty() {
            data.insert("changes".into(), Value::Object(self.changes));
        }
        if !self.details.is_empty() {
            data.insert("details".into(), Value::Object(self.details));
        }
        let mut sealed = self.sealed;
        if let Some(ip) = self.act.context.ip {
            sealed.push(("ip", Value::String(ip.to_string())));
        }
        if let Some(agent) = &self.act.context.user_agent {
            sealed.push(("user_agent", Value::String(agent.clone())));
        }
        let found = Found {
            action: self.action.code(),
            actor: self.act.actor.to_string(),
            outcome: self.outcome.name(),
            targets: self.targets.into_iter().map(|(_, id)| id).collect(),
        };
        let mut terms = self.act.terms.clone();
        // A refusal, or a failure, changes nothing: for that nobody has to have been let in.
        if self.outcome != Outcome::Success && matches!(terms.standing, Standing::Unsaid) {
            terms.standing = Standing::Own;
        }
        let draft = Draft::sealing(self.action.kind(), data, sealed)?.audit(found).on(terms);
        Ok(if let Actor::User(person) = self.act.actor { draft.by(person) } else { draft })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::ledger::draft::is_type;

    #[test]
    fn every_action_is_a_type_and_documented() {
        let documented = include_str!("../../docs/events.md");
        for action in Action::ALL {
            assert!(is_type(action.kind()));
            assert!(
                documented.contains(&format!("`{}`", action.kind())),
                "{} is not in events.md",
                action.kind()
            );
        }
    }

    #[test]
    fn an_entry_says_who_and_what_and_seals_from_where() {
        let mut context = RequestContext::none();
        context.ip = Some("192.0.2.7".parse().unwrap());
        context.user_agent = Some("a browser".into());
        let act = Act::new(Actor::Operator, Surface::Cli, context);
        let draft = act.of(Action::KeyRevoked).target("api_key", "key_1").draft().unwrap();
        assert_eq!(draft.kind(), "audit.key.revoked");
        assert!(!draft.data().contains("192.0.2.7") && !draft.data().contains("browser"));
        let names: Vec<_> = draft.openings().iter().map(|o| o.name.as_str()).collect();
        assert_eq!(names, ["ip", "user_agent"]);
    }
}
