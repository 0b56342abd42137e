//! Which permission each operation of the document takes, for whoever reads it: the document names the scopes, docs/access.md
//! has them as a table.
//!
//! What lets a request in is the handler's own [`Access`](crate::access::door::Access); `tests/walk.rs` asks every route
//! with keys that lack what stands here, and with keys that have it, so that the two cannot come apart.

use crate::access::scope::Permission::{self, *};

/// By method and path. What is for people who are signed in, and for nobody's keys, is not here; nor is what is open.
pub const NEEDS: &[(&str, Permission)] = &[
    ("GET /v1/workspaces", OneSelf),
    ("POST /v1/workspaces", Instance),
    ("GET /v1/workspaces/{workspace}", WorkspaceRead),
    ("PATCH /v1/workspaces/{workspace}", WorkspaceWrite),
    ("DELETE /v1/workspaces/{workspace}", WorkspaceDelete),
    ("POST /v1/workspaces/{workspace}/restore", WorkspaceDelete),
    ("GET /v1/workspaces/{workspace}/audit", AuditRead),
    ("GET /v1/workspaces/{workspace}/audit/export", LedgerExport),
    ("POST /v1/workspaces/{workspace}/configurations", Configure),
    ("GET /v1/workspaces/{workspace}/keys", KeysRead),
    ("POST /v1/workspaces/{workspace}/keys", KeysWrite),
    ("GET /v1/workspaces/{workspace}/keys/{key}", KeysRead),
    ("DELETE /v1/workspaces/{workspace}/keys/{key}", KeysWrite),
    ("POST /v1/workspaces/{workspace}/keys/{key}/rotate", KeysWrite),
    ("GET /v1/workspaces/{workspace}/members", MembersRead),
    ("PATCH /v1/workspaces/{workspace}/members/{user}", MembersWrite),
    ("DELETE /v1/workspaces/{workspace}/members/{user}", MembersWrite),
    ("GET /v1/workspaces/{workspace}/invitations", MembersRead),
    ("POST /v1/workspaces/{workspace}/invitations", MembersWrite),
    ("DELETE /v1/workspaces/{workspace}/invitations/{invitation}", MembersWrite),
    ("GET /v1/people", PeopleRead),
    ("GET /v1/people/{user}", PeopleRead),
    ("PATCH /v1/people/{user}", Instance),
    ("GET /v1/workspaces/{workspace}/status", SourcesRead),
    ("GET /v1/workspaces/{workspace}/sources", SourcesRead),
    ("POST /v1/workspaces/{workspace}/sources", SourcesWrite),
    ("GET /v1/workspaces/{workspace}/sources/{source}", SourcesRead),
    ("DELETE /v1/workspaces/{workspace}/sources/{source}", SourcesWrite),
    ("PUT /v1/workspaces/{workspace}/sources/{source}/webhook-secret", SourcesWrite),
    ("PUT /v1/workspaces/{workspace}/sources/{source}/key", SourcesWrite),
    ("POST /v1/workspaces/{workspace}/sources/{source}/look", SourcesWrite),
    ("GET /v1/workspaces/{workspace}/subjects", SourcesRead),
    ("GET /v1/workspaces/{workspace}/destinations", DestinationsRead),
    ("POST /v1/workspaces/{workspace}/destinations", DestinationsWrite),
    ("GET /v1/workspaces/{workspace}/destinations/{destination}", DestinationsRead),
    ("PATCH /v1/workspaces/{workspace}/destinations/{destination}", DestinationsWrite),
    ("DELETE /v1/workspaces/{workspace}/destinations/{destination}", DestinationsWrite),
    ("POST /v1/workspaces/{workspace}/destinations/{destination}/test", DestinationsWrite),
    ("POST /v1/workspaces/{workspace}/destinations/{destination}/rotate-secret", DestinationsWrite),
    ("GET /v1/workspaces/{workspace}/destinations/{destination}/deliveries", DestinationsRead),
    ("GET /v1/workspaces/{workspace}/destinations/{destination}/deliveries/{number}", DestinationsRead),
    ("GET /v1/workspaces/{workspace}/destinations/{destination}/deliveries/{number}/receipt", LedgerExport),
    ("POST /v1/workspaces/{workspace}/destinations/{destination}/redeliver", DestinationsWrite),
    ("GET /v1/workspaces/{workspace}/entries", LedgerRead),
    ("GET /v1/workspaces/{workspace}/entries/{seq}", LedgerRead),
    ("GET /v1/workspaces/{workspace}/entries/{seq}/openings", LedgerExport),
    ("GET /v1/workspaces/{workspace}/proofs/inclusion", LedgerRead),
    ("GET /v1/workspaces/{workspace}/proofs/consistency", LedgerRead),
    ("GET /v1/workspaces/{workspace}/checkpoint", LedgerRead),
    ("GET /v1/workspaces/{workspace}/export", LedgerExport),
];

/// What `method` (in whichever case) of `path` needs.
#[must_use]
pub fn needs(method: &str, path: &str) -> Option<Permission> {
    let found = NEEDS.iter().find(|(route, _)| {
        route.split_once(' ').is_some_and(|(of, at)| of.eq_ignore_ascii_case(method) && at == path)
    });
    found.map(|(_, permission)| *permission)
}
