//! Inbound events: `POST /in/{source}` with the source's token takes any payload.
//!
//! The payload is committed as a sealed member of an `event.received` entry before the sender hears 202, and goes out
//! like a transition. It is never parsed: it travels as text (base64 where it is not UTF-8), so nothing in it is
//! rounded or reordered.
//!
//! Whose a token is is remembered, with the count of the workspace's routes at which it was looked up (`heads.routes`). The
//! removal of a source moves that count, and an event is appended at the count of its token's look-up or not at all: so
//! none is recorded after the entry that says that its source was removed, however long its body was on its way, and
//! whichever node took it.

use super::Error;
use crate::access::context::RequestContext;
use crate::access::denial::{Denial, Reason};
use crate::access::{Gate, bearer, hash_token};
use crate::database::{Database, in_time};
use crate::http::extract::{InPath, discard, within};
use crate::http::problem::Problem;
use crate::id::{SourceId, WorkspaceId};
use crate::ledger::append::{self, Prior};
use crate::ledger::draft::IdempotencyKey;
use crate::ledger::{Draft, Writer, base64};
use crate::room::{Room, Taken};
use axum::Json;
use axum::body::{Bytes, HttpBody};
use axum::extract::{FromRef, FromRequest, FromRequestParts, MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use sha2::{Digest, Sha256};
use statusledger_verify::json::{Object, Value};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use utoipa::ToSchema;
use uuid::Uuid;

/// The largest payload.
pub const MAX_PAYLOAD: usize = 1 << 20;
/// How long a source's token is taken for known without asking again. What was changed meanwhile is found at the append.
const KNOWN_FOR: Duration = Duration::from_secs(10);
/// How a source's token begins.
const PREFIX: &str = "sl_in_";
/// Tokens remembered at most.
const KNOWN: usize = 10_000;
/// How long a token is looked up anew for one event whose workspace goes on changing.
const PATIENCE: Duration = Duration::from_secs(15);

/// Where a token leads.
#[derive(Clone, Copy, Debug)]
struct Owner {
    workspace: WorkspaceId,
    source: SourceId,
    /// The count of the workspace's routes at which that was so.
    at: i64,
}

/// Where tokens lead, and when that was looked up.
type Known = HashMap<[u8; 32], (Owner, Instant)>;

/// Which token is whose, as far as was asked lately. Locked for look-ups only.
#[derive(Clone, Debug, Default)]
pub struct SourceTokens(Arc<Mutex<Known>>);

impl SourceTokens {
    async fn find(&self, database: &Database, hash: &[u8; 32]) -> Result<Option<Owner>, sqlx::Error> {
        {
            let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((owner, looked_up)) = known.get(hash)
                && looked_up.elapsed() < KNOWN_FOR
            {
                return Ok(Some(*owner));
            }
        }
        self.look_up(database, hash).await
    }

    /// Asks the database, whatever is remembered.
    async fn look_up(&self, database: &Database, hash: &[u8; 32]) -> Result<Option<Owner>, sqlx::Error> {
        let owner = sqlx::query_as!(
            Owner,
            r#"SELECT s.workspace_id AS "workspace: WorkspaceId", s.source_id AS "source: SourceId", h.routes AS at
                 FROM sources s JOIN workspaces w USING (workspace_id) JOIN heads h USING (workspace_id, ledger_id)
                WHERE s.token_hash = $1 AND s.deleted_at IS NULL"#,
            &hash[..]
        )
        .fetch_optional(&database.worker)
        .await?;
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match owner {
            Some(owner) => {
                if known.len() >= KNOWN {
                    known.clear();
                }
                known.insert(*hash, (owner, Instant::now()));
            }
            None => drop(known.remove(hash)),
        }
        Ok(owner)
    }

    /// Forgets a source's token at once on this node.
    pub fn forget(&self, source: SourceId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, (owner, _)| owner.source != source);
    }
}

/// What an accepted event became.
#[derive(Debug, Serialize, ToSchema)]
pub struct Accepted {
    /// The entry's place in the ledger.
    pub seq: u64,
    /// When it was recorded.
    pub timestamp: String,
}

/// Who sends: the source whose token it is. It is known before a byte of the body is read, and holds where the event is
/// appended.
pub struct Sender {
    owner: Owner,
    token: [u8; 32],
    /// Where it is noted that nobody is let in.
    door: Door,
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender").field("owner", &self.owner).finish_non_exhaustive()
    }
}

impl Sender {
    /// Looks the token up again.
    async fn again(&mut self, database: &Database, tokens: &SourceTokens) -> Result<(), Problem> {
        match tokens.look_up(database, &self.token).await? {
            Some(owner) if owner.source == self.owner.source => {
                self.owner = owner;
                Ok(())
            }
            _ => {
                self.door.refused(Some(self.owner.source), Reason::UnknownToken);
                Err(Problem::unauthorized())
            }
        }
    }
}

impl<S> FromRequestParts<S> for Sender
where
    S: Send + Sync,
    Database: FromRef<S>,
    SourceTokens: FromRef<S>,
    Gate: FromRef<S>,
{
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let InPath(named) = InPath::<String>::from_request_parts(parts, state).await?;
        let named = named.parse::<SourceId>().ok();
        let door = Door::of(Gate::from_ref(state), parts);
        let Some(token) = bearer(&parts.headers) else {
            door.refused(named, Reason::NoCredentials);
            return Err(Problem::unauthorized());
        };
        // A token opens its own source only; which others exist is nobody else's business. A token says whose it is, so
        // that one which is not even meant for this source costs no statement.
        let hash = hash_token(token);
        let found = match named {
            Some(named) if meant_for(token) == Some(named) => {
                let database = Database::from_ref(state);
                in_time(SourceTokens::from_ref(state).find(&database, &hash)).await??
            }
            _ => None,
        };
        match found {
            Some(owner) if Some(owner.source) == named => Ok(Self { owner, token: hash, door }),
            _ => {
                door.refused(named, Reason::UnknownToken);
                Err(Problem::unauthorized())
            }
        }
    }
}

/// The source that a token says it is for (`sl_in_<id>_<secret>`). Whether it is, is not known.
fn meant_for(token: &str) -> Option<SourceId> {
    let (id, _) = token.strip_prefix(PREFIX)?.split_once('_')?;
    Uuid::try_parse(id).ok().map(SourceId::from)
}

/// An inbound door that a request stands before.
pub(super) struct Door {
    gate: Gate,
    route: String,
    context: Option<RequestContext>,
}

impl Door {
    pub(super) fn of(gate: Gate, parts: &Parts) -> Self {
        let path = parts.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
        let route = format!("{} {path}", parts.method);
        Self { gate, route, context: parts.extensions.get().cloned() }
    }

    /// Notes a refusal, in the ledger of the source's workspace if there is such a source. Whether there is, is looked up
    /// when that is written, so that no answer tells it.
    pub(super) fn refused(&self, source: Option<SourceId>, reason: Reason) {
        let Some(context) = self.context.clone() else { return };
        let route = self.route.clone();
        let (actor, workspace, asked) = (None, None, None);
        self.gate.denials.note(Denial { actor, workspace, asked, source, route, reason, context });
    }
}

/// A payload, read within a bounded time, and the room that it and what is made of it take until the answer.
#[derive(Debug)]
pub struct Payload(Bytes, Taken);

impl<S> FromRequest<S> for Payload
where
    S: Send + Sync,
    Room: FromRef<S>,
{
    type Rejection = Problem;
    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let bytes = request.body().size_hint().upper().unwrap_or(u64::MAX).min(MAX_PAYLOAD as u64);
        let Some(room) = Room::from_ref(state).take(bytes as usize) else {
            discard(request.into_body()).await;
            return Err(Problem::overloaded());
        };
        let body = within(Bytes::from_request(request, state)).await?;
        let body = body.map_err(|e| match e.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Problem::too_large(TOO_LARGE),
            _ => Problem::bad_request(e.body_text()),
        })?;
        if body.len() > MAX_PAYLOAD { Err(Problem::too_large(TOO_LARGE)) } else { Ok(Self(body, room)) }
    }
}

impl Payload {
    /// The bytes, as they came.
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        &self.0
    }
}

const TOO_LARGE: &str = "A payload has at most 1 MiB (1,048,576 bytes).";

/// Takes an event. It is durable when 202 is answered.
#[utoipa::path(post, path = "/in/{source}", tag = "inbound", security(("source_token" = [])),
    params(("source" = String, Path, description = "The source's id"),
        ("Idempotency-Key" = Option<String>, Header, description = "Kept for 24 hours: the same body gets the first answer, another body 409")),
    request_body(content = Vec<u8>, content_type = "application/octet-stream", description = "Any payload up to 1 MiB"),
    responses((status = 202, body = Accepted),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json"),
        (status = 413, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json")))]
pub async fn receive(
    State(database): State<Database>,
    State(writer): State<Writer>,
    State(tokens): State<SourceTokens>,
    mut sender: Sender,
    headers: HeaderMap,
    body: Payload,
) -> Result<Response, Problem> {
    let Payload(body, _room) = body;
    let Owner { workspace, source: owner, .. } = sender.owner;
    let content_type = match headers.get(header::CONTENT_TYPE) {
        None => None,
        Some(value) => Some(value.to_str().ok().filter(|v| v.len() <= 255).ok_or_else(|| {
            Problem::bad_request("The Content-Type has at most 255 bytes of visible ASCII.")
        })?),
    };
    if headers.get_all("idempotency-key").iter().count() > 1 {
        return Err(Problem::bad_request("There is more than one Idempotency-Key."));
    }
    let idempotency = match headers.get("idempotency-key") {
        None => None,
        Some(value) => {
            let key = value.to_str().ok().filter(|k| (1..=255).contains(&k.len())).ok_or_else(|| {
                Problem::bad_request("An Idempotency-Key has 1 to 255 bytes of visible ASCII.")
            })?;
            // The type is part of what was sent: the same bytes as another type are another event.
            let mut hash = Sha256::new();
            hash.update(content_type.unwrap_or_default().as_bytes());
            hash.update([0]);
            hash.update(&body);
            Some(IdempotencyKey { source: owner, key: key.to_owned(), body_hash: hash.finalize().into() })
        }
    };
    if let Some(key) = &idempotency {
        let prior = async { append::read_prior(&mut database.workspace(workspace).await?, key).await };
        if let Some(prior) = in_time(prior).await?? {
            // Nothing is appended, so nothing else would tell that the source was removed.
            sender.again(&database, &tokens).await?;
            return again(prior, key);
        }
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut draft = draft(owner, &body, content_type)?;
        draft.idempotency.clone_from(&idempotency);
        draft.allowed_at = Some(sender.owner.at);
        match writer.append(workspace, draft).await {
            Ok(recorded) => {
                metrics::counter!("statusledger_events_received_total").increment(1);
                return Ok(accepted(recorded.seq, recorded.timestamp.to_string()));
            }
            Err(append::Error::Outdated) if Instant::now() < deadline => {
                sender.again(&database, &tokens).await?;
            }
            Err(append::Error::KeyTaken(prior)) => {
                return match &idempotency {
                    Some(key) => again(prior, key),
                    None => Err(append::Error::KeyTaken(prior).into()),
                };
            }
            Err(e) => return Err(e.into()),
        }
    }
}

fn accepted(seq: u64, timestamp: String) -> Response {
    (StatusCode::ACCEPTED, Json(Accepted { seq, timestamp })).into_response()
}

/// The answer to a key that was used before: the first one, or a refusal where the body is another.
fn again(prior: Prior, key: &IdempotencyKey) -> Result<Response, Problem> {
    if prior.body_hash == key.body_hash {
        Ok(accepted(prior.seq, prior.timestamp.to_string()))
    } else {
        Err(Problem::conflict(format!(
            "The Idempotency-Key was used within 24 hours for another body (entry {}).",
            prior.seq
        )))
    }
}

/// The entry of a received event.
fn draft(source: SourceId, body: &[u8], content_type: Option<&str>) -> Result<Draft, Problem> {
    let mut data = Object::default();
    data.insert("size".into(), Value::Int(body.len() as i64));
    data.insert("source".into(), Value::String(source.to_string()));
    let mut payload = Object::default();
    if let Some(content_type) = content_type {
        payload.insert("content_type".into(), Value::String(content_type.into()));
    }
    match std::str::from_utf8(body) {
        Ok(text) => payload.insert("text".into(), Value::String(text.into())),
        Err(_) => payload.insert("base64".into(), Value::String(base64(body))),
    };
    let draft = Draft::sealing("event.received", data, vec![("payload", Value::Object(payload))])
        .map_err(|e| Problem::from(Error::from(e)))?;
    Ok(draft.source(source))
}
