//! Somebody has shown who they are: who is that here, and their session.
//!
//! A session begins in one transaction of the instance's ledger, with the entry that says so, the end of the session
//! that the browser showed (a session is never carried over a sign-in, so none can be planted), and, for somebody new,
//! the person and their first way in. An invitation is another workspace's: it is claimed for the new person in that
//! same transaction, so that of two who come with it one is made, and accepted in the one after. A crash between the
//! two leaves somebody who can sign in again with the invitation, which only they can still accept.

use super::provider::Proven;
use super::ways::Stage;
use super::{Error, Refusal, SignIn, flow, link};
use crate::access::context::{RequestContext, Surface};
use crate::access::members::{self, OpenInvitation};
use crate::access::people::{self, Profile};
use crate::access::scope::Role;
use crate::access::session::{self, Held, Method};
use crate::audit::{Act, Action, Actor};
use crate::id::{IdentityId, PasskeyId, SessionId, UserId, WorkspaceId};
use crate::ledger::append::Locked;
use crate::ledger::terms::Terms;
use crate::redacted::redacted;
use axum::http::{HeaderMap, HeaderValue};
use statusledger_verify::json::Value;
use zeroize::Zeroizing;

redacted!(Arrived);

/// A request that signs somebody in.
#[derive(Clone, Copy, Debug)]
pub struct Arriving<'a> {
    /// Its headers: the session that it shows.
    pub headers: &'a HeaderMap,
    /// From where it comes.
    pub context: &'a RequestContext,
    /// How.
    pub method: Method,
    /// At which identity provider, by its id.
    pub provider: Option<&'a str>,
}

/// Somebody who is signed in now.
pub struct Arrived {
    /// Who.
    pub user: UserId,
    cookie: Zeroizing<String>,
}

impl Arrived {
    /// `Set-Cookie`: the new session, and nothing left of the sign-in.
    #[must_use]
    pub fn cookies(&self, sign_in: &SignIn) -> [HeaderValue; 2] {
        let gate = &sign_in.gate;
        [session::set_cookie(&gate.sessions, Some(&self.cookie)), flow::forget(gate)]
    }
}

impl SignIn {
    /// The invitation of that text, where it can still be accepted.
    ///
    /// # Errors
    /// If it cannot.
    pub async fn invitation(&self, token: &str) -> Result<OpenInvitation, Error> {
        let open = members::open_invitation(&self.gate.database, token).await?;
        Ok(open.ok_or(Refusal::Invitation)?)
    }

    /// Signs in whoever a provider vouches for; somebody new only with an invitation, which is accepted either way.
    ///
    /// # Errors
    /// If nobody here has that identity and there is no invitation, or the invitation does not hold.
    pub async fn by_identity(
        &self,
        arriving: Arriving<'_>,
        proven: &Proven,
        invitation: Option<&str>,
    ) -> Result<Arrived, Error> {
        let index = people::subject_index(&self.gate.secret, &proven.issuer, &proven.subject);
        self.limits.identity(index).map_err(Error::TooMany)?;
        let known = self.owner_of(index).await?;
        let arrived = match (known, invitation) {
            (Some(user), invitation) => {
                // Before a session begins: with an invitation that does not hold nobody wants one.
                if let Some(token) = invitation {
                    self.invitation(token).await?;
                }
                let locked = self.writer.lock(self.gate.instance).await?;
                self.arrive(locked, arriving, user, None, &[]).await?
            }
            (None, None) => return Err(Refusal::UnknownIdentity.into()),
            (None, Some(token)) => {
                let open = self.invitation(token).await?;
                let user = UserId::new();
                let mut locked = self.writer.lock(self.gate.instance).await?;
                self.claim(&mut locked, &open, user).await?;
                self.insert_person(&mut locked, user, &proven.profile).await?;
                insert_identity(&mut locked, index, arriving.provider, user).await?;
                self.arrive(locked, arriving, user, None, &[("invitation", open.id.to_string())]).await?
            }
        };
        if let Some(token) = invitation {
            self.accept(arriving, arrived.user, token).await?;
        }
        Ok(arrived)
    }

    /// Connects an identity with somebody who is signed in.
    ///
    /// # Errors
    /// If it is connected with somebody else, or they may not in this session.
    pub async fn connect(&self, arriving: Arriving<'_>, held: &Held, proven: &Proven) -> Result<(), Error> {
        let user = held.user;
        let index = people::subject_index(&self.gate.secret, &proven.issuer, &proven.subject);
        self.limits.identity(index).map_err(Error::TooMany)?;
        let mut locked = self.writer.lock(self.gate.instance).await?;
        see(&mut locked, user).await?;
        // A passkey may have come since it was begun.
        self.may_change(&mut locked, held, Stage::Ends).await?;
        let id = match self.owner_of(index).await? {
            Some(owner) if owner == user => return Ok(()),
            Some(_) => return Err(Refusal::IdentityTaken.into()),
            None => insert_identity(&mut locked, index, arriving.provider, user).await?,
        };
        let standing =
            self.gate.standing(arriving.headers, "GET /sign-in/callback/{provider}", arriving.context);
        let act = Act::new(Actor::User(user), Surface::Dashboard, arriving.context.clone())
            .on(Terms { standing, ..Terms::default() });
        let mut record = act
            .of(Action::IdentityAdded)
            .target("user", user)
            .target("identity", id)
            .detail("method", Value::String(arriving.method.name().into()));
        if let Some(provider) = arriving.provider {
            record = record.detail("provider", Value::String(provider.into()));
        }
        locked.append(&[record.draft()?]).await?;
        locked.commit().await?;
        Ok(())
    }

    /// Signs in whoever comes by a link.
    ///
    /// # Errors
    /// If the link does not hold.
    pub async fn by_link(&self, arriving: Arriving<'_>, text: &str) -> Result<Arrived, Error> {
        let mut locked = self.writer.lock(self.gate.instance).await?;
        let (user, new) = link::take(&mut locked, text).await?;
        if new {
            self.insert_person(&mut locked, user, &Profile::default()).await?;
            let act = Act::proven(user, arriving.context.clone());
            members::join(&mut locked, &act, user, Role::Owner, None).await?;
        }
        self.arrive(locked, arriving, user, None, &[]).await
    }

    /// Accepts an invitation for somebody who has just signed in; one who is a member already stays one.
    ///
    /// # Errors
    /// If it does not hold.
    pub async fn accept(&self, arriving: Arriving<'_>, user: UserId, token: &str) -> Result<(), Error> {
        let act = Act::proven(user, arriving.context.clone());
        match members::accept(&self.writer, &act, user, token).await {
            Ok(_) | Err(members::Error::Member) => Ok(()),
            Err(members::Error::NoInvitation) => Err(Refusal::Invitation.into()),
            Err(e) => Err(e.into()),
        }
    }

    async fn owner_of(&self, index: [u8; 32]) -> Result<Option<UserId>, sqlx::Error> {
        sqlx::query_scalar!(
            r#"SELECT user_id AS "user: UserId" FROM identities WHERE subject_index = $1"#,
            &index[..]
        )
        .fetch_optional(&self.gate.database.worker)
        .await
    }

    /// Keeps an invitation for `user`, in a transaction of the instance's ledger.
    ///
    /// # Errors
    /// If it does not hold, or is kept for somebody else.
    pub async fn claim(&self, locked: &mut Locked, open: &OpenInvitation, user: UserId) -> Result<(), Error> {
        if open.claimed_by.is_some() {
            return Err(Refusal::Invitation.into());
        }
        // The invitation's workspace is seen for this statement alone.
        look_at(locked, open.workspace).await?;
        let claimed = sqlx::query!(
            "UPDATE invitations SET claimed_by = $3
              WHERE workspace_id = $1 AND invitation_id = $2 AND claimed_by IS NULL AND accepted_at IS NULL
                AND revoked_at IS NULL AND expires_at > now()",
            open.workspace.uuid(),
            open.id.uuid(),
            user.uuid()
        )
        .execute(&mut ***locked)
        .await?
        .rows_affected();
        look_at(locked, self.gate.instance).await?;
        if claimed == 1 { Ok(()) } else { Err(Refusal::Invitation.into()) }
    }

    /// Makes a person.
    ///
    /// # Errors
    /// If their address is another's.
    pub async fn insert_person(
        &self,
        locked: &mut Locked,
        user: UserId,
        profile: &Profile,
    ) -> Result<(), Error> {
        see(locked, user).await?;
        let (gate, data_keys) = (&self.gate, self.writer.data_keys());
        people::insert(&mut *locked, &gate.secret, data_keys, gate.instance, user, profile).await.map_err(
            |e| match e {
                crate::sealing::Error::Sql(sqlx::Error::Database(d))
                    if d.constraint() == Some("users_email_unique") =>
                {
                    Refusal::EmailTaken.into()
                }
                e => e.into(),
            },
        )
    }

    /// Ends the session that the request shows and begins one for `user`, with the `passkey` that they came with, and with the
    /// entry that says so; commits.
    ///
    /// # Errors
    /// If they may not sign in any more.
    pub async fn arrive(
        &self,
        mut locked: Locked,
        arriving: Arriving<'_>,
        user: UserId,
        passkey: Option<PasskeyId>,
        targets: &[(&'static str, String)],
    ) -> Result<Arrived, Error> {
        let replaced = self.end_shown(&mut locked, arriving.headers).await?;
        see(&mut locked, user).await?;
        let disabled = sqlx::query_scalar!(
            r#"SELECT disabled_at IS NOT NULL AS "disabled!" FROM users WHERE user_id = $1"#,
            user.uuid()
        )
        .fetch_optional(&mut **locked)
        .await?;
        if disabled != Some(false) {
            return Err(Refusal::Disabled.into());
        }
        let act = Act::proven(user, arriving.context.clone());
        let data_keys = self.writer.data_keys();
        let (id, cookie) =
            session::begin(&mut locked, &self.gate, data_keys, user, arriving.method, passkey, &act).await?;
        let mut record = act
            .of(Action::SignedIn)
            .target("user", user)
            .target("session", id)
            .detail("method", Value::String(arriving.method.name().into()));
        if let Some(provider) = arriving.provider {
            record = record.detail("provider", Value::String(provider.into()));
        }
        if let Some(passkey) = passkey {
            record = record.target("passkey", passkey);
        }
        for (kind, id) in targets {
            record = record.target(kind, id);
        }
        if let Some(replaced) = replaced {
            record = record.target("session", replaced);
        }
        locked.append(&[record.draft()?]).await?;
        locked.commit().await?;
        metrics::counter!("statusledger_sign_ins_total", "method" => arriving.method.name()).increment(1);
        Ok(Arrived { user, cookie })
    }

    /// Ends the session that a browser shows, whoever's it is.
    async fn end_shown(&self, locked: &mut Locked, headers: &HeaderMap) -> Result<Option<SessionId>, Error> {
        let Some(held) = session::held(&self.gate, headers).await? else { return Ok(None) };
        see(locked, held.user).await?;
        let ended = sqlx::query!(
            "UPDATE sessions SET ended_at = now() WHERE session_id = $1 AND user_id = $2 AND ended_at IS NULL",
            held.id.uuid(),
            held.user.uuid()
        )
        .execute(&mut ***locked)
        .await?
        .rows_affected();
        Ok((ended == 1).then_some(held.id))
    }
}

/// Has the transaction see `user`.
///
/// # Errors
/// If the database does not answer.
pub async fn see(locked: &mut Locked, user: UserId) -> Result<(), sqlx::Error> {
    sqlx::query_scalar!("SELECT set_config('sl.user', $1, true)", user.uuid().to_string())
        .fetch_one(&mut ***locked)
        .await?;
    Ok(())
}

async fn look_at(locked: &mut Locked, workspace: WorkspaceId) -> Result<(), sqlx::Error> {
    sqlx::query_scalar!("SELECT set_config('sl.workspace', $1, true)", workspace.uuid().to_string())
        .fetch_one(&mut ***locked)
        .await?;
    Ok(())
}

async fn insert_identity(
    locked: &mut Locked,
    index: [u8; 32],
    provider: Option<&str>,
    user: UserId,
) -> Result<IdentityId, Error> {
    let id = IdentityId::new();
    let inserted = sqlx::query!(
        "INSERT INTO identities (subject_index, identity_id, provider, user_id) VALUES ($1, $2, $3, $4)
         ON CONFLICT DO NOTHING",
        &index[..],
        id.uuid(),
        provider.unwrap_or_default(),
        user.uuid()
    )
    .execute(&mut ***locked)
    .await?
    .rows_affected();
    if inserted == 1 { Ok(id) } else { Err(Refusal::IdentityTaken.into()) }
}
