//! What stands around a handler (`crate::http::etag`, [`crate::access::beyond`]) asks of its door, and hears from it.

use crate::audit::Actor;
use crate::database::Database;
use crate::id::WorkspaceId;
use crate::ledger::terms::{self, Condition, Version};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use std::sync::{Arc, OnceLock};

/// Who has been let in: left by the door for whoever stands around it.
#[derive(Clone, Debug, Default)]
pub struct Passage(Arc<OnceLock<(Actor, Option<WorkspaceId>)>>);

impl Passage {
    /// Who, and into which workspace; none where nobody was.
    #[must_use]
    pub fn admitted(&self) -> Option<(Actor, Option<WorkspaceId>)> {
        self.0.get().copied()
    }

    /// Leaves who, and into which workspace.
    pub(super) fn admit(&self, actor: Actor, workspace: Option<WorkspaceId>) {
        // Set once: a handler has one door.
        let _ = self.0.set((actor, workspace));
    }
}

/// Has the door of a request answer instead of letting somebody in: it is asked before what is not the handler's.
#[derive(Clone, Copy, Debug)]
pub struct OnlyTheDoor;

/// In the answer of a door that was asked alone: it would let them in.
#[derive(Clone, Copy, Debug)]
struct Opens;

/// The answer of a door that was asked alone, and would let whoever asks in.
pub(super) fn would_open() -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    response.extensions_mut().insert(Opens);
    response
}

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

    /// Leaves how far the acts of `workspace` have come.
    pub(super) async fn begin(&self, database: &Database, workspace: WorkspaceId) -> Result<(), sqlx::Error> {
        if let Some(version) = terms::version(database, workspace).await? {
            // Set once, before anything is read.
            let _ = self.0.set((workspace, version));
        }
        Ok(())
    }
}
