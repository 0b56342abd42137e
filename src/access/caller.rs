//! Who asks, and whether they may: the extractor that stands before every handler of `/v1`.
//!
//! What can be refused without the database is refused without it, and before a byte of the body is read: no credential,
//! one that this instance did not make, a key whose scopes do not grant the route, a session's mutation without its CSRF
//! token. Then the body is read ([`crate::http::arriving`]), and only then the row: what was ended while the body was on
//! its way does not act. Where a change is committed the door looks again ([`super::standing`]).
//! Whoever may not even know of a workspace is told that there is none. Every refusal is noted ([`super::denial`]).

use super::context::{RequestContext, Surface};
use super::denial::{Denial, Denials, Reason};
use super::key::{self, ShownKey};
use super::scope::{Acts, Needs, Permission, Permissions, Role, needs};
use super::secret::AccessSecret;
use super::session::{self, SessionSettings, ShownSession};
use super::standing::{Admitted, AdmittedParts, Standing};
use crate::audit::{Act, Actor};
use crate::database::Database;
use crate::http::arriving::Arriving;
use crate::http::once::Once;
use crate::http::problem::{Kind, Problem};
use crate::id::{KeyId, SessionId, UserId, WorkspaceId};
use crate::ledger::terms::{self, Condition, Terms, Version};
use axum::extract::{FromRef, FromRequestParts, MatchedPath, RawPathParams};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::marker::PhantomData;
use std::sync::{Arc, OnceLock};
use time::OffsetDateTime;

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
}

impl std::ops::Deref for Gate {
    type Target = GateParts;
    fn deref(&self) -> &GateParts {
        &self.0
    }
}

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

/// Who has been let in: left by the door for whoever stands around it.
#[derive(Clone, Debug, Default)]
pub struct Passage(Arc<OnceLock<(Actor, Option<WorkspaceId>)>>);

impl Passage {
    /// Who, and into which workspace; none where nobody was.
    #[must_use]
    pub fn admitted(&self) -> Option<(Actor, Option<WorkspaceId>)> {
        self.0.get().copied()
    }
}

/// Has the door of a request answer instead of letting somebody in: it is asked before what is not the handler's.
#[derive(Clone, Copy, Debug)]
pub struct OnlyTheDoor;

/// In the answer of a door that was asked alone: it would let them in.
#[derive(Clone, Copy, Debug)]
struct Opens;

/// Whether an answer is of a door that was asked alone ([`OnlyTheDoor`]), and would let whoever asks in.
#[must_use]
pub fn opens(response: &Response) -> bool {
    response.extensions().get::<Opens>().is_some()
}

/// A request that we make for a caller ourselves, to compare what it shows: its refusal is not noted, that of the caller's
/// own request is. The door leaves here how far the acts of the ledger had come before anything was read, in which the
/// caller's own request will be recorded.
#[derive(Clone, Debug, Default)]
pub struct Comparing(Arc<OnceLock<(WorkspaceId, Version)>>);

impl Comparing {
    /// That the ledger has come no further than it had; nothing that could hold where nobody was let in.
    #[must_use]
    pub fn condition(&self) -> Condition {
        Condition::new(self.0.get().copied())
    }
}

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

impl<S> FromRequestParts<S> for Person
where
    S: Send + Sync,
    Gate: FromRef<S>,
{
    type Rejection = Response;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        let access = Access::<needs::OneSelf>::from_request_parts(parts, state).await?;
        match access.caller {
            Caller::Session { user, session, passkey, .. } => Ok(Self { user, session, passkey, access }),
            Caller::Key { .. } => {
                let words = "This is for people who are signed in, not for keys.";
                Err(Problem::forbidden(Kind::Session, words).into_response())
            }
        }
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

/// The token of `Authorization: Bearer …`.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// What somebody shows.
#[derive(Clone)]
pub(super) enum Shown {
    Key(ShownKey),
    Session(ShownSession),
}

/// Who is refused, as far as is known, why, and what they are told.
pub(super) type Refused = (Option<Caller>, Reason, Problem);

impl Gate {
    /// Whose request it claims to be, with credentials that this instance has made; whether they still hold is not
    /// known. The database is not asked.
    #[must_use]
    pub fn claims(&self, headers: &HeaderMap) -> Option<Actor> {
        match self.shown(headers).ok()? {
            Shown::Key(shown) => Some(Actor::Key(shown.id)),
            Shown::Session(shown) => Some(Actor::Session(shown.id)),
        }
    }

    /// What the request shows, as far as it can be told without the database.
    fn shown(&self, headers: &HeaderMap) -> Result<Shown, (Reason, Problem)> {
        if headers.contains_key(header::AUTHORIZATION) {
            return bearer(headers)
                .and_then(|text| key::read(&self.secret, text))
                .map(Shown::Key)
                .ok_or_else(|| (Reason::UnknownKey, Problem::unauthorized()));
        }
        match session::cookie(headers, &self.sessions) {
            Some(text) => session::read(&self.secret, text)
                .map(Shown::Session)
                .ok_or_else(|| (Reason::UnknownSession, Problem::unauthorized())),
            None => Err((Reason::NoCredentials, Problem::unauthorized())),
        }
    }

    /// The first look, without the database: whether what the request shows can be let in at all, to do what `asked`
    /// says.
    fn look(&self, parts: &Parts, asked: Asked) -> Result<Shown, Box<Refused>> {
        let shown =
            self.shown(&parts.headers).map_err(|(reason, problem)| Box::new((None, reason, problem)))?;
        match &shown {
            Shown::Key(key) if !key.scopes.grants().has(asked.permission) => {
                let grants = key.scopes.grants();
                let known = Caller::Key {
                    id: key.id,
                    workspace: self.instance,
                    instance: false,
                    person: None,
                    grants,
                    ends: None,
                };
                let problem = Problem::forbidden(
                    Kind::Scope,
                    format!("The key's scopes ({}) do not grant this.", key.scopes),
                );
                Err(Box::new((Some(known), Reason::Scope, problem)))
            }
            Shown::Session(session) => {
                let fault = if !parts.method.is_safe() {
                    (!session::csrf_holds(&self.secret, session, &parts.headers, &self.sessions)).then_some(
                        "A change in a session needs the session's token as `X-CSRF-Token`, from a page of this instance.",
                    )
                } else if asked.acts && session::from_elsewhere(&parts.headers) {
                    // It changes nothing but the record, which would say that the person has done it.
                    Some("What goes on the record is not asked for from another site's page.")
                } else {
                    None
                };
                match fault {
                    Some(words) => Err(Box::new((None, Reason::Csrf, Problem::forbidden(Kind::Csrf, words)))),
                    None => Ok(shown),
                }
            }
            Shown::Key(_) => Ok(shown),
        }
    }

    /// The last look, and each that is taken again: whether the caller may do what `asked` says to `workspace` (none: to the
    /// instance), by a request whose method only `reads` or not.
    pub(super) async fn admit(
        &self,
        shown: Shown,
        asked: Asked,
        workspace: Option<WorkspaceId>,
        reads: bool,
    ) -> Result<Caller, Refused> {
        match shown {
            Shown::Key(shown) => self.admit_key(shown, asked.permission, workspace, reads).await,
            Shown::Session(shown) => self.admit_session(shown, asked, workspace).await,
        }
    }

    /// What somebody stands on who is in a session of theirs, at a page that lets them in by itself.
    #[must_use]
    pub fn standing(&self, headers: &HeaderMap, route: &str, context: &RequestContext) -> Standing {
        let Ok(Shown::Session(shown)) = self.shown(headers) else { return Standing::Unsaid };
        let grants = Permissions::default();
        // Who it is, the door says when it looks.
        let caller = Caller::Session {
            user: UserId::from(uuid::Uuid::nil()),
            session: shown.id,
            passkey: false,
            grants,
        };
        Standing::Admitted(Admitted::new(AdmittedParts {
            gate: self.clone(),
            shown: Shown::Session(shown),
            asked: Asked { permission: Permission::OneSelf, acts: true, to: None },
            workspace: None,
            reads: false,
            caller,
            route: route.to_owned(),
            context: context.clone(),
        }))
    }

    /// Notes a refusal of who asked for `asked`; without a token, of who it `claimed` to be.
    pub(super) fn note(
        &self,
        (caller, reason, _): &Refused,
        claimed: Option<Actor>,
        asked: Option<WorkspaceId>,
        route: String,
        context: RequestContext,
    ) {
        // Into the ledger of whom it concerns: a key's own workspace, a member's. A key that was refused by its scopes
        // was not looked up; whoever writes the note does it.
        let about = match (caller, reason) {
            (Some(Caller::Key { .. }), Reason::Scope) => None,
            (Some(Caller::Key { workspace, .. }), _) => Some(*workspace),
            (Some(Caller::Session { .. }), Reason::Role | Reason::PasskeyRequired) => asked,
            _ => None,
        };
        let actor = match reason {
            Reason::Csrf => claimed,
            _ => caller.as_ref().map(Caller::actor),
        };
        let reason = *reason;
        self.denials.note(Denial { actor, workspace: about, asked, source: None, route, reason, context });
    }

    async fn admit_key(
        &self,
        shown: ShownKey,
        permission: Permission,
        workspace: Option<WorkspaceId>,
        reads: bool,
    ) -> Result<Caller, Refused> {
        let row = sqlx::query!(
            r#"SELECT k.workspace_id AS "workspace: WorkspaceId", k.hash, k.instance, k.expires_at, k.revoked_at,
                      k.person AS "person: UserId", m.role AS "role?",
                      (k.last_used_at IS NULL OR k.last_used_at < now() - interval '1 minute') AS "stale!",
                      (COALESCE(u.disabled_at IS NOT NULL, false)
                       OR k.person IS NOT NULL AND m.user_id IS NULL) AS "rests!",
                      ($2::uuid IS NULL OR EXISTS (SELECT FROM workspaces w WHERE w.workspace_id = $2
                                                      AND (w.deleted_at IS NULL OR $3))) AS "there!"
                 FROM api_keys k LEFT JOIN users u ON u.user_id = k.person
                 LEFT JOIN members m ON m.workspace_id = k.workspace_id AND m.user_id = k.person
                WHERE k.key_id = $1"#,
            shown.id.uuid(),
            workspace.map(WorkspaceId::uuid),
            // Of a workspace that was ended the entries are read; nothing of it changes any more.
            reads
        )
        .fetch_optional(&self.database.worker)
        .await
        .map_err(|e| (None, Reason::Unanswered, e.into()))?;
        let Some(row) =
            row.filter(|row| bool::from(subtle::ConstantTimeEq::ct_eq(&row.hash[..], &shown.hash[..])))
        else {
            return Err((None, Reason::UnknownKey, Problem::unauthorized()));
        };
        let mut grants = shown.scopes.grants();
        // Whoever made it gives no more by it than they have now, whatever they had then.
        let role = row.role.as_deref().and_then(Role::from_name);
        if row.person.is_some() {
            grants = grants.and(role.map(Role::grants).unwrap_or_default());
        }
        // Elsewhere roles have no part in the instance either, and are compared with what a key has as they are.
        if !row.instance && row.workspace == self.instance {
            grants = grants.of_one_workspace();
        }
        let caller = Caller::Key {
            id: shown.id,
            workspace: row.workspace,
            instance: row.instance,
            person: row.person,
            grants,
            ends: row.expires_at,
        };
        if row.rests || row.revoked_at.is_some_and(|at| at <= OffsetDateTime::now_utc()) {
            return Err((Some(caller), Reason::Revoked, Problem::unauthorized()));
        }
        if row.expires_at.is_some_and(|at| at <= OffsetDateTime::now_utc()) {
            return Err((Some(caller), Reason::Expired, Problem::unauthorized()));
        }
        if !row.instance {
            match workspace {
                Some(asked) if asked == row.workspace => {}
                Some(asked) => return Err((Some(caller), Reason::OtherWorkspace, no_workspace(asked))),
                None if permission.of_the_instance() => {
                    let problem =
                        Problem::forbidden(Kind::Instance, "The key is one workspace's, not the instance's.");
                    return Err((Some(caller), Reason::NotOfTheInstance, problem));
                }
                None => {}
            }
        }
        if let (true, Some(asked)) = (!row.there, workspace) {
            return Err((Some(caller), Reason::Nothing, no_workspace(asked)));
        }
        if !grants.has(permission) {
            let held = role.map_or("none", Role::name);
            let words = format!("The role of whoever made the key ({held}) does not grant this any more.");
            return Err((Some(caller), Reason::Role, Problem::forbidden(Kind::Role, words)));
        }
        if row.stale {
            self.denials.used(shown.id);
        }
        Ok(caller)
    }

    async fn admit_session(
        &self,
        shown: ShownSession,
        asked: Asked,
        workspace: Option<WorkspaceId>,
    ) -> Result<Caller, Refused> {
        let about = workspace.unwrap_or(self.instance);
        let row = sqlx::query!(
            r#"SELECT s.user_id AS "user: UserId", s.hash, s.method, s.ended_at IS NOT NULL AS "ended!",
                      (s.expires_at <= now() OR s.last_seen_at < now() - make_interval(secs => $3)) AS "expired!",
                      s.last_seen_at < now() - interval '1 minute' AS "stale!",
                      u.disabled_at IS NOT NULL AS "disabled!", m.role AS "role?",
                      COALESCE(w.passkey_required, false) AS "passkey_required!",
                      COALESCE(p.provider_since IS NULL OR p.provider_since < w.passkey_required_at, false)
                        AND p.passkey_id IS NOT NULL AS "counts!"
                 FROM sessions s
                 JOIN users u USING (user_id)
                 LEFT JOIN workspaces w ON w.workspace_id = $2 AND w.deleted_at IS NULL
                 LEFT JOIN members m ON m.workspace_id = w.workspace_id AND m.user_id = s.user_id
                 LEFT JOIN passkeys p ON p.passkey_id = s.passkey_id AND p.user_id = s.user_id
                WHERE s.session_id = $1"#,
            shown.id.uuid(),
            about.uuid(),
            self.sessions.idle.as_secs_f64()
        )
        .fetch_optional(&self.database.worker)
        .await
        .map_err(|e| (None, Reason::Unanswered, e.into()))?;
        let Some(row) =
            row.filter(|row| bool::from(subtle::ConstantTimeEq::ct_eq(&row.hash[..], &shown.hash[..])))
        else {
            return Err((None, Reason::UnknownSession, Problem::unauthorized()));
        };
        let role = row.role.as_deref().and_then(Role::from_name);
        let passkey = row.method == "passkey";
        let grants = role.map(Role::grants).unwrap_or_default();
        let caller = Caller::Session { user: row.user, session: shown.id, passkey, grants };
        if row.ended || row.expired || row.disabled {
            let reason = if row.ended || row.disabled { Reason::Revoked } else { Reason::Expired };
            return Err((Some(caller), reason, Problem::unauthorized()));
        }
        if row.stale {
            self.denials.seen(shown.id);
        }
        // What one does to oneself in a workspace, leaving it, an owner or administrator does as one.
        if asked.permission == Permission::OneSelf && (workspace.is_none() || role.is_none()) {
            return Ok(caller);
        }
        if role.is_none() && workspace.is_some() {
            return Err((Some(caller), Reason::OtherWorkspace, no_workspace(about)));
        }
        if !grants.has(asked.permission) && asked.to != Some(row.user) {
            let held = role.map_or("none", Role::name);
            let problem =
                Problem::forbidden(Kind::Role, format!("Your role here ({held}) does not grant this."));
            return Err((Some(caller), Reason::Role, problem));
        }
        let powerful = matches!(role, Some(Role::Owner | Role::Admin));
        if row.passkey_required && powerful && !(passkey && row.counts) {
            let words = if passkey {
                "This workspace asks its owners and administrators for a passkey that does not come from an identity \
                 provider: yours was added after that was asked, by way of one. A one-time link of the operator's lets you \
                 add one that counts."
            } else {
                "This workspace asks its owners and administrators to sign in with a passkey."
            };
            let problem = Problem::forbidden(Kind::PasskeyRequired, words);
            return Err((Some(caller), Reason::PasskeyRequired, problem));
        }
        Ok(caller)
    }
}

/// What a route does, as far as it concerns the door.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    pub(super) permission: Permission,
    /// Whether it goes on the record.
    pub(super) acts: bool,
    /// To whom, where a member may do it to themselves.
    pub(super) to: Option<UserId>,
}

fn no_workspace(id: WorkspaceId) -> Problem {
    Problem::not_found(format!("The workspace {id} does not exist."))
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
        // What a GET shows is on the record before it leaves; of HEAD nothing would leave.
        if P::ACTS && parts.method == Method::HEAD {
            return Err(Problem::method_not_allowed().into_response());
        }
        let gate = Gate::from_ref(state);
        let context =
            RequestContext::from_request_parts(parts, state).await.map_err(IntoResponse::into_response)?;
        let path = RawPathParams::from_request_parts(parts, state).await.ok();
        let named = |wanted: &str| {
            path.iter().flatten().find(|(name, _)| *name == wanted).map(|(_, value)| value.to_owned())
        };
        let to = named("user").filter(|_| P::TO_ONESELF).and_then(|user| user.parse().ok());
        let act = Asked { permission: P::PERMISSION, acts: P::ACTS, to };
        let named = named("workspace");
        // A malformed id names nothing; who may not ask is told that first.
        let workspace = named.as_deref().map(|text| text.parse::<WorkspaceId>());
        let asked = match &workspace {
            Some(Ok(id)) => Some(*id),
            Some(Err(_)) => Some(WorkspaceId::from(uuid::Uuid::nil())),
            None => None,
        };
        let route = parts.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
        let route = format!("{} {route}", parts.method);
        let reads = parts.method.is_safe();
        let shown = gate.look(parts, act);
        let body = match (&shown, parts.extensions.get::<Arriving>().cloned()) {
            (Ok(_), Some(arriving)) => arriving.read().await.map(drop),
            _ => Ok(()),
        };
        let admitted = match shown {
            Ok(shown) => gate.admit(shown.clone(), act, asked, reads).await.map(|caller| (shown, caller)),
            Err(refused) => Err(*refused),
        };
        match admitted {
            Ok((shown, caller)) => {
                body.map_err(IntoResponse::into_response)?;
                if let Some(Err(e)) = workspace {
                    return Err(Problem::not_found(e.to_string()).into_response());
                }
                if let Some(passage) = parts.extensions.get::<Passage>() {
                    let about = match &caller {
                        Caller::Key { workspace, .. } => Some(*workspace),
                        Caller::Session { .. } => asked,
                    };
                    // Set once: a handler has one door.
                    let _ = passage.0.set((caller.actor(), about));
                }
                if parts.extensions.get::<OnlyTheDoor>().is_some() {
                    let mut response = StatusCode::NO_CONTENT.into_response();
                    response.extensions_mut().insert(Opens);
                    return Err(response);
                }
                let about = asked.unwrap_or(gate.instance);
                if let Some(Comparing(before)) = parts.extensions.get() {
                    let version = terms::version(&gate.database, about).await;
                    if let Some(version) = version.map_err(|e| Problem::from(e).into_response())? {
                        let _ = before.set((about, version));
                    }
                }
                let condition = parts.extensions.get::<Condition>().cloned();
                let claim = match parts.extensions.get::<Once>() {
                    Some(once) => Some(once.claim(about, &caller).await?),
                    None => None,
                };
                let standing = Standing::Admitted(Admitted::new(AdmittedParts {
                    gate,
                    shown,
                    asked: act,
                    workspace: asked,
                    reads,
                    caller: caller.clone(),
                    route,
                    context: context.clone(),
                }));
                let terms = Terms { standing, condition, claim };
                Ok(Self { caller, context, terms, permission: PhantomData })
            }
            Err(refused) => {
                if parts.extensions.get::<Comparing>().is_none() {
                    // Without its token a change in a session is refused before anybody is looked up; whose session
                    // it is is authentic all the same.
                    let claimed = gate.claims(&parts.headers);
                    gate.note(&refused, claimed, asked, route, context);
                }
                Err(refused.2.into_response())
            }
        }
    }
}
