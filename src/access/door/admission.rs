//! The second look, at the row: whether what somebody showed still holds, and lets them do what they ask. It is taken
//! again where a change is committed ([`super::standing`]).
//!
//! One statement each, of one moment, by the database's clock: nodes may differ about the time.

use super::credential::Shown;
use super::{Asked, Caller, Gate, Refused};
use crate::access::denial::Reason;
use crate::access::key::ShownKey;
use crate::access::scope::{Permission, Role};
use crate::access::secret;
use crate::access::session::ShownSession;
use crate::http::problem::{Kind, Problem};
use crate::id::{UserId, WorkspaceId};

fn no_workspace(id: WorkspaceId) -> Problem {
    Problem::not_found(format!("The workspace {id} does not exist."))
}

/// The refusal of somebody who is known, into the ledger of the workspace that it is `about`.
fn refused(caller: &Caller, about: Option<WorkspaceId>, reason: Reason, problem: Problem) -> Box<Refused> {
    Box::new(Refused { actor: Some(caller.actor()), about, reason, problem })
}

fn unanswered(e: sqlx::Error) -> Box<Refused> {
    Refused::stranger(Reason::Unanswered, e.into())
}

impl Gate {
    /// Whether whoever shows this may do what they ask.
    pub(super) async fn admit(&self, shown: Shown, asked: Asked) -> Result<Caller, Box<Refused>> {
        match shown {
            Shown::Key(shown) => self.admit_key(shown, asked).await,
            Shown::Session(shown) => self.admit_session(shown, asked).await,
        }
    }

    async fn admit_key(&self, shown: ShownKey, asked: Asked) -> Result<Caller, Box<Refused>> {
        let workspace = asked.workspace;
        let row = sqlx::query!(
            r#"SELECT k.workspace_id AS "workspace: WorkspaceId", k.hash, k.instance, k.expires_at,
                      k.person AS "person: UserId", m.role AS "role?",
                      COALESCE(k.revoked_at <= now(), false) AS "revoked!",
                      COALESCE(k.expires_at <= now(), false) AS "expired!",
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
            asked.reads
        )
        .fetch_optional(&self.database.worker)
        .await
        .map_err(unanswered)?;
        let Some(row) = row.filter(|row| secret::is_same(&row.hash, &shown.hash)) else {
            return Err(Refused::stranger(Reason::UnknownKey, Problem::unauthorized()));
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
        // On the record of its own workspace, whichever it asked for.
        let refuse = |reason, problem| Err(refused(&caller, Some(row.workspace), reason, problem));
        if row.rests || row.revoked {
            return refuse(Reason::Revoked, Problem::unauthorized());
        }
        if row.expired {
            return refuse(Reason::Expired, Problem::unauthorized());
        }
        if !row.instance {
            match workspace {
                Some(other) if other != row.workspace => {
                    return refuse(Reason::OtherWorkspace, no_workspace(other));
                }
                None if asked.permission.of_the_instance() => {
                    let words = "The key is one workspace's, not the instance's.";
                    return refuse(Reason::NotOfTheInstance, Problem::forbidden(Kind::Instance, words));
                }
                _ => {}
            }
        }
        if let (true, Some(gone)) = (!row.there, workspace) {
            return refuse(Reason::Nothing, no_workspace(gone));
        }
        if !grants.has(asked.permission) {
            let held = role.map_or("none", Role::name);
            let words = format!("The role of whoever made the key ({held}) does not grant this any more.");
            return refuse(Reason::Role, Problem::forbidden(Kind::Role, words));
        }
        if row.stale {
            self.denials.used(shown.id);
        }
        Ok(caller)
    }

    async fn admit_session(&self, shown: ShownSession, asked: Asked) -> Result<Caller, Box<Refused>> {
        let workspace = asked.workspace;
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
        .map_err(unanswered)?;
        let Some(row) = row.filter(|row| secret::is_same(&row.hash, &shown.hash)) else {
            return Err(Refused::stranger(Reason::UnknownSession, Problem::unauthorized()));
        };
        let role = row.role.as_deref().and_then(Role::from_name);
        let passkey = row.method == "passkey";
        let grants = role.map(Role::grants).unwrap_or_default();
        let caller = Caller::Session { user: row.user, session: shown.id, passkey, grants };
        if row.ended || row.expired || row.disabled {
            let reason = if row.ended || row.disabled { Reason::Revoked } else { Reason::Expired };
            return Err(refused(&caller, None, reason, Problem::unauthorized()));
        }
        if row.stale {
            self.denials.seen(shown.id);
        }
        // What one does to oneself in a workspace, leaving it, an owner or administrator does as one.
        if asked.permission == Permission::OneSelf && (workspace.is_none() || role.is_none()) {
            return Ok(caller);
        }
        if role.is_none() && workspace.is_some() {
            return Err(refused(&caller, None, Reason::OtherWorkspace, no_workspace(about)));
        }
        if !grants.has(asked.permission) {
            let held = role.map_or("none", Role::name);
            let problem =
                Problem::forbidden(Kind::Role, format!("Your role here ({held}) does not grant this."));
            return Err(refused(&caller, workspace, Reason::Role, problem));
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
            return Err(refused(&caller, workspace, Reason::PasskeyRequired, problem));
        }
        Ok(caller)
    }
}
