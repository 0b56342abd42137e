//! Refusals that a handler makes after the door has let somebody in: they may do this, but not so much of it. They are on
//! the record like those of the door.

use super::context::RequestContext;
use super::denial::{Denial, Reason};
use super::door::Gate;
use super::door::around::Passage;
use crate::http::problem;
use axum::extract::{MatchedPath, Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;

/// Notes what a handler refuses.
pub async fn note(State(gate): State<Gate>, mut request: Request, next: Next) -> Response {
    let passage = Passage::default();
    request.extensions_mut().insert(passage.clone());
    let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let route = format!("{} {path}", request.method());
    let context = request.extensions().get::<RequestContext>().cloned();
    let response = next.run(request).await;
    if response.status() == StatusCode::FORBIDDEN
        && !problem::is_lapse(&response)
        && let (Some((actor, workspace)), Some(context)) = (passage.admitted(), context)
    {
        gate.denials.note(Denial {
            actor: Some(actor),
            workspace,
            asked: workspace,
            source: None,
            route,
            reason: Reason::Beyond,
            context,
        });
    }
    response
}
