//! The routes of access: `/v1/workspaces/{workspace}/keys`, `…/members`, `…/invitations`, one's own
//! session, and everybody on the instance.

mod invitations;
mod keys;
mod members;
mod people;
mod sessions;

use super::caller::{Access, Caller};
use super::context::Surface;
use super::scope::needs;
use crate::audit::{Act, Actor};
use crate::http::App;
use crate::http::problem::Problem;
use crate::id::{SessionId, UserId};
use utoipa_axum::router::OpenApiRouter;

/// The routes of access.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .merge(keys::router())
        .merge(members::router())
        .merge(invitations::router())
        .merge(sessions::router())
        .merge(people::router())
}

/// Who is signed in; keys are refused.
fn person(access: &Access<needs::OneSelf>) -> Result<(UserId, SessionId, bool), Problem> {
    match access.caller {
        Caller::Session { user, session, passkey, .. } => Ok((user, session, passkey)),
        Caller::Key { .. } => {
            Err(Problem::forbidden("session", "This is for people who are signed in, not for keys."))
        }
    }
}
fn act_of(access: &Access<needs::OneSelf>, user: UserId) -> Act {
    Act::new(Actor::User(user), Surface::Dashboard, access.context.clone())
}
