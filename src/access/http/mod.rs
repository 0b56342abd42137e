//! The routes of access: `/v1/workspaces/{workspace}/keys`, `…/members`, `…/invitations`, one's own
//! session, and everybody on the instance.

mod invitations;
mod keys;
mod members;
mod people;
mod sessions;

use crate::http::App;
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
