//! What a handler takes: proof that the door has let somebody in to do what it does.

use super::around::{Comparing, OnlyTheDoor, Passage, would_open};
use super::standing::{Admitted, AdmittedParts, Standing};
use super::{Asked, Caller, Gate};
use crate::access::context::{RequestContext, Surface};
use crate::access::denial::Reason;
use crate::access::scope::{Acts, Needs, needs};
use crate::audit::{Act, Actor};
use crate::http::arriving::Arriving;
use crate::http::once::Once;
use crate::http::problem::Problem;
use crate::id::{SessionId, UserId, WorkspaceId};
use crate::ledger::terms::{Condition, Terms};
use axum::extract::{FromRef, FromRequestParts, MatchedPath, RawPathParams};
use axum::http::Method;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use std::marker::PhantomData;

/// Proof that the caller may do what `P` says, in the workspace that the path names (or, where it names none, in the
/// instance).
#[derive(Clone, Debug)]
pub struct Access<P> {
    /// Who.
    pub caller: Caller,
    /// From where.
    pub context: RequestContext,
    /// What the request asks of the transaction that carries it out.
    terms: Terms,
    permission: PhantomData<fn() -> P>,
}

/// Proof that somebody who is signed in asks, for themselves. Keys are refused, before a body is read.
#[derive(Clone, Debug)]
pub struct Person {
    /// Who.
    pub user: UserId,
    /// In which session.
    pub session: SessionId,
    /// Whether it began with a passkey.
    pub passkey: bool,
    access: Access<needs::OneSelf>,
}

impl Person {
    /// What they do now, to be put on the record with it.
    #[must_use]
    pub fn act(&self) -> Act {
        let Access { context, terms, .. } = &self.access;
        Act::new(Actor::User(self.user), Surface::Dashboard, context.clone()).on(terms.clone())
    }
}

impl<P> Access<P> {
    /// Has the door look again, for whoever has waited since it let them in.
    ///
    /// # Errors
    /// What they are told, where it would not any more.
    pub async fn again(&self) -> Result<(), Problem> {
        match &self.terms.standing {
            Standing::Admitted(admitted) => admitted.again().await.map_err(|lapse| *lapse.0),
            Standing::Own | Standing::Unsaid | Standing::Proven => Ok(()),
        }
    }
}

impl<P: Acts> Access<P> {
    /// What is done now, to be put on the record with it. Nothing that changes anything can be called without one.
    #[must_use]
    pub fn act(&self) -> Act {
        let surface = match self.caller {
            Caller::Key { .. } => self.context.surface_of_key(),
            Caller::Session { .. } => Surface::Dashboard,
        };
        Act::new(self.caller.actor(), surface, self.context.clone()).on(self.terms.clone())
    }
}

impl<S> FromRequestParts<S> for Person
where
    S: Send + Sync,
    Gate: FromRef<S>,
{
    type Rejection = Response;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        let access: Access<needs::OneSelf> = enter(parts, state, true).await?;
        match access.caller {
            Caller::Session { user, session, passkey, .. } => Ok(Self { user, session, passkey, access }),
            Caller::Key { .. } => {
                Err(Problem::internal("a key was let in where only people are").into_response())
            }
        }
    }
}

impl<S, P> FromRequestParts<S> for Access<P>
where
    S: Send + Sync,
    P: Needs,
    Gate: FromRef<S>,
{
    // A problem, or what was answered to the same request before.
    type Rejection = Response;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        enter(parts, state, false).await
    }
}

/// Lets whoever asks in, or answers: with a problem, or with what was answered to the same request before.
async fn enter<S, P>(parts: &mut Parts, state: &S, of_a_person: bool) -> Result<Access<P>, Response>
where
    S: Send + Sync,
    P: Needs,
    Gate: FromRef<S>,
{
    // What a GET shows is on the record before it leaves; of HEAD nothing would leave.
    if P::ACTS && parts.method == Method::HEAD {
        return Err(Problem::method_not_allowed().into_response());
    }
    let gate = Gate::from_ref(state);
    let context =
        RequestContext::from_request_parts(parts, state).await.map_err(IntoResponse::into_response)?;
    let path = RawPathParams::from_request_parts(parts, state).await.ok();
    let named = path.iter().flatten().find(|(name, _)| *name == "workspace").map(|(_, value)| value);
    let (workspace, malformed) = match named.map(str::parse::<WorkspaceId>) {
        Some(Ok(id)) => (Some(id), None),
        // It names nothing, but who may not ask is told that first.
        Some(Err(e)) => (Some(WorkspaceId::from(uuid::Uuid::nil())), Some(Problem::not_found(e.to_string()))),
        None => (None, None),
    };
    let (permission, acts, reads) = (P::PERMISSION, P::ACTS, parts.method.is_safe());
    let asked = Asked { permission, acts, of_a_person, reads, workspace };
    let route = parts.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let route = format!("{} {route}", parts.method);
    let looked = gate.look(parts, asked);
    let body = match (&looked, parts.extensions.get::<Arriving>().cloned()) {
        (Ok(_), Some(arriving)) => arriving.read().await.map(drop),
        _ => Ok(()),
    };
    let admitted = match looked {
        Ok(shown) => gate.admit(shown.clone(), asked).await.map(|caller| (shown, caller)),
        Err(refused) => Err(refused),
    };
    let (shown, caller) = match admitted {
        Ok(admitted) => admitted,
        Err(refused) => {
            if parts.extensions.get::<Comparing>().is_none() {
                gate.note(&refused, asked, route, context);
            }
            let nowhere = matches!(refused.reason, Reason::OtherWorkspace | Reason::Nothing);
            let told = malformed.filter(|_| nowhere).unwrap_or(refused.problem);
            return Err(told.into_response());
        }
    };
    body.map_err(IntoResponse::into_response)?;
    if let Some(problem) = malformed {
        return Err(problem.into_response());
    }
    if let Some(passage) = parts.extensions.get::<Passage>() {
        let about = match &caller {
            Caller::Key { workspace, .. } => Some(*workspace),
            Caller::Session { .. } => workspace,
        };
        passage.admit(caller.actor(), about);
    }
    if parts.extensions.get::<OnlyTheDoor>().is_some() {
        return Err(would_open());
    }
    let about = workspace.unwrap_or(gate.instance);
    if let Some(comparing) = parts.extensions.get::<Comparing>() {
        comparing.begin(&gate.database, about).await.map_err(|e| Problem::from(e).into_response())?;
    }
    let condition = parts.extensions.get::<Condition>().cloned();
    let claim = match parts.extensions.get::<Once>() {
        Some(once) => Some(once.claim(about, &caller).await?),
        None => None,
    };
    let (grants, context_of) = (caller.grants(), context.clone());
    let standing = Admitted::new(AdmittedParts { gate, shown, asked, grants, route, context: context_of });
    let terms = Terms { standing: Standing::Admitted(standing), condition, claim };
    Ok(Access { caller, context, terms, permission: PhantomData })
}
