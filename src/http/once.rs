//! `Idempotency-Key`: a POST that may be repeated. Within 24 hours the same key with the same request gets the answer that
//! the first got, byte for byte, and nothing is done again.
//!
//! A key belongs to who sends it, in the workspace of the path (or the instance). It is claimed after the door and
//! before the handler, so that nobody hears an answer who could not ask for it now; nor does who may do less by now than
//! when it was given. The claim is a row with a lease that
//! is renewed while the request runs, in a task of its own that goes on when the client hangs up. The change itself says
//! in its transaction that the claim is carried out ([`Claim::carry_out`]), and is not committed where the claim is
//! another's by now: so it is carried out once whoever dies when. Then the answer is sealed into the row: it may show a
//! new secret.
//!
//! A node that dies before the change is committed leaves a lease that ends, and the key is free within a minute; a
//! failure of ours (5xx) frees it at once. After the commit neither does: a repetition then hears that the request was
//! carried out and that its answer is lost, and nothing is done again.

use super::extract;
use super::problem::{self, Kind, Problem};
use crate::access::context::RequestContext;
use crate::access::door::around::{OnlyTheDoor, opens};
use crate::access::scope::Permissions;
use crate::access::{Caller, Gate};
use crate::database::Database;
use crate::id::WorkspaceId;
use crate::ledger::terms::{Claim, ClaimParts, KEPT_H, LEASE_S};
use crate::sealing::{self, DataKeys};
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use statusledger_keys::envelope::Cell;
use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::time::MissedTickBehavior;

/// How often a claim's lease is renewed.
const RENEWED_EVERY: Duration = Duration::from_secs(15);
/// The longest answer that is kept.
const LONGEST: usize = 4 << 20;

/// The header that carries the key.
pub const HEADER: &str = "idempotency-key";
static REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// What a repeatable request needs to be kept: a part of the application.
#[derive(Clone, Debug)]
pub struct Keeper {
    /// The database.
    pub database: Database,
    /// The data keys.
    pub data_keys: DataKeys,
    /// The door.
    pub gate: Gate,
    /// Before the problem types' paths.
    pub public_url: Arc<str>,
}

/// A request that may be repeated, from before the door to its answer.
#[derive(Clone, Debug)]
pub struct Once(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    keeper: Keeper,
    key: String,
    hash: [u8; 32],
    claim: OnceLock<Claim>,
}

/// The key of a request.
fn key_of(headers: &HeaderMap) -> Result<String, Problem> {
    let mut values = headers.get_all(HEADER).iter();
    let key = values.next().and_then(|value| value.to_str().ok()).filter(|k| (1..=255).contains(&k.len()));
    match (key, values.next()) {
        (Some(key), None) => Ok(key.to_owned()),
        (_, Some(_)) => Err(Problem::bad_request("There is more than one Idempotency-Key.")),
        (None, None) => Err(Problem::bad_request("An Idempotency-Key has 1 to 255 bytes of visible ASCII.")),
    }
}

/// Runs a POST of the API that carries a key once.
pub async fn once(State(keeper): State<Keeper>, request: Request, next: Next) -> Response {
    let may_repeat = request.method() == Method::POST
        && request.uri().path().starts_with("/v1/")
        && request.headers().contains_key(HEADER);
    // Of whom shows nothing that is of this instance not a byte is read: the door refuses.
    if !may_repeat || keeper.gate.claims(request.headers()).is_none() {
        return next.run(request).await;
    }
    let key = match key_of(request.headers()) {
        Ok(key) => key,
        Err(problem) => return problem.into_response(),
    };
    let (parts, body) = request.into_parts();
    // Nor of whoever the door would refuse.
    let mut door = Request::from_parts(parts.clone(), Body::empty());
    door.extensions_mut().insert(OnlyTheDoor);
    let door = next.clone().run(door).await;
    if !opens(&door) {
        return door;
    }
    let again = parts.clone();
    let body = match extract::whole(parts, body).await {
        Ok(body) => body,
        Err(problem) => return problem.into_response(),
    };
    let mut hash = Sha256::new();
    let content_type = again.headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    for part in [again.uri.to_string().as_bytes(), content_type, &body[..]] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let once = Once(Arc::new(Parts { keeper, key, hash: hash.finalize().into(), claim: OnceLock::new() }));
    let mut request = Request::from_parts(again, Body::from(body));
    request.extensions_mut().insert(once.clone());
    // It goes on when the client hangs up: what was begun is done, and its answer kept.
    match tokio::spawn(once.run(request, next)).await {
        Ok(response) => response,
        Err(e) => Problem::internal(e).into_response(),
    }
}

/// What a key was used for before.
struct Prior {
    request_hash: Vec<u8>,
    status: Option<i16>,
    answer: Option<Vec<u8>>,
    /// What whoever got the answer might do.
    grants: i64,
    /// The change is committed, and nobody is at work on its answer any more.
    lost: bool,
}

impl Once {
    async fn run(self, request: Request, next: Next) -> Response {
        let id = request.extensions().get::<RequestContext>().map(|context| context.id);
        // Side by side: a renewal can wait for the very transaction that the request is in.
        let response = tokio::select! {
            response = next.run(request) => response,
            never = self.go_on_renewing() => match never {},
        };
        if self.0.claim.get().is_none() {
            return response;
        }
        // Whoever may not go on now may later.
        if problem::is_lapse(&response) {
            self.give_up().await;
            return response;
        }
        let response = match id {
            Some(id) => problem::finish(response, &self.0.keeper.public_url, id),
            None => response,
        };
        self.keep(response).await
    }

    /// Claims the key for whoever has been let in; or says what to answer instead.
    ///
    /// # Errors
    /// The answer: the one that was given before, or a problem.
    pub async fn claim(&self, workspace: WorkspaceId, caller: &Caller) -> Result<Claim, Response> {
        let (name, key, grants) = (caller.actor().to_string(), self.0.key.clone(), caller.grants());
        let claim = Claim::new(ClaimParts { workspace, caller: name, key, id: uuid::Uuid::now_v7() });
        match self.try_claim(&claim, grants).await.map_err(IntoResponse::into_response)? {
            None => {
                // Set once: a handler has one door.
                let _ = self.0.claim.set(claim.clone());
                Ok(claim)
            }
            Some(prior) if prior.request_hash != self.0.hash => {
                Err(Problem::conflict("The Idempotency-Key was used within 24 hours for another request.")
                    .into_response())
            }
            // It may show what they could not make now.
            Some(Prior { answer: Some(_), grants: then, .. })
                if !grants.covers(Permissions::from_bits(then)) =>
            {
                let kind = match caller {
                    Caller::Key { .. } => Kind::Scope,
                    Caller::Session { .. } => Kind::Role,
                };
                let words =
                    "This was answered when you might do more than you may now: it is not told again.";
                Err(Problem::forbidden(kind, words).into_response())
            }
            Some(Prior { status: Some(status), answer: Some(answer), .. }) => {
                let answer = self.replay(&claim, status, &answer).await;
                Err(answer.unwrap_or_else(|e| Problem::from(e).into_response()))
            }
            Some(Prior { lost: true, .. }) => Err(Problem::answer_lost().into_response()),
            Some(_) => Err(Problem::in_progress().into_response()),
        }
    }

    async fn try_claim(&self, claim: &Claim, grants: Permissions) -> Result<Option<Prior>, Problem> {
        let mut tx = self.0.keeper.database.workspace(claim.workspace).await?;
        // A claim whose lease is over, and an answer whose time is, are as if they were not there.
        let claimed = sqlx::query!(
            "INSERT INTO request_keys (workspace_id, caller, key, request_hash, claim, grants, leased_until, expires_at)
             VALUES ($1, $2, $3, $4, $5, $7, now() + make_interval(secs => $6), now() + make_interval(secs => $6))
             ON CONFLICT (workspace_id, caller, key) DO UPDATE
                SET request_hash = EXCLUDED.request_hash, claim = EXCLUDED.claim, grants = EXCLUDED.grants,
                    carried_out = false, status = NULL, answer = NULL, leased_until = EXCLUDED.leased_until, expires_at = EXCLUDED.expires_at
              WHERE request_keys.expires_at <= now()",
            claim.workspace.uuid(),
            claim.caller,
            claim.key,
            &self.0.hash[..],
            claim.id,
            f64::from(LEASE_S),
            grants.bits()
        )
        .execute(&mut *tx)
        .await?
        .rows_affected();
        if claimed == 1 {
            tx.commit().await?;
            return Ok(None);
        }
        let prior = sqlx::query_as!(
            Prior,
            r#"SELECT request_hash, status, answer, grants, (carried_out AND leased_until <= now()) AS "lost!"
                 FROM request_keys WHERE workspace_id = $1 AND caller = $2 AND key = $3"#,
            claim.workspace.uuid(),
            claim.caller,
            claim.key
        )
        .fetch_optional(&mut *tx)
        .await?;
        // Freed at this very moment: the client tries again.
        let freed = || {
            let request_hash = self.0.hash.to_vec();
            Prior { request_hash, status: None, answer: None, grants: 0, lost: false }
        };
        Ok(Some(prior.unwrap_or_else(freed)))
    }

    async fn replay(&self, claim: &Claim, status: i16, sealed: &[u8]) -> Result<Response, sealing::Error> {
        let data_key = self.0.keeper.data_keys.get(claim.workspace).await?;
        let row: [&[u8]; 2] = [claim.caller.as_bytes(), claim.key.as_bytes()];
        let opened = data_key.open(&Cell { table: "request_keys", row: &row, column: "answer" }, sealed)?;
        let end = opened.iter().position(|byte| *byte == b'\n').unwrap_or(0);
        let (content_type, body) = (&opened[..end], &opened[(end + 1).min(opened.len())..]);
        let status = u16::try_from(status).ok().and_then(|status| StatusCode::from_u16(status).ok());
        let mut response = (status.unwrap_or(StatusCode::OK), body.to_vec()).into_response();
        let headers = response.headers_mut();
        headers.remove(header::CONTENT_TYPE);
        if let (false, Ok(value)) = (content_type.is_empty(), HeaderValue::from_bytes(content_type)) {
            headers.insert(header::CONTENT_TYPE, value);
        }
        headers.insert(REPLAYED.clone(), HeaderValue::from_static("true"));
        Ok(response)
    }

    /// Renews the claim's lease from time to time.
    async fn go_on_renewing(&self) -> Infallible {
        let mut renewal = tokio::time::interval(RENEWED_EVERY);
        renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            renewal.tick().await;
            if let Err(e) = self.renew().await {
                tracing::warn!(error = %e, "the claim of an idempotency key is not renewed");
            }
        }
    }

    async fn renew(&self) -> Result<(), sqlx::Error> {
        let Some(claim) = self.0.claim.get() else { return Ok(()) };
        let mut tx = self.0.keeper.database.workspace(claim.workspace).await?;
        sqlx::query!(
            "UPDATE request_keys SET leased_until = now() + make_interval(secs => $5),
                    expires_at = CASE WHEN carried_out THEN expires_at ELSE now() + make_interval(secs => $5) END
              WHERE workspace_id = $1 AND caller = $2 AND key = $3 AND claim = $4 AND status IS NULL",
            claim.workspace.uuid(),
            claim.caller,
            claim.key,
            claim.id,
            f64::from(LEASE_S)
        )
        .execute(&mut *tx)
        .await?;
        tx.commit().await
    }

    /// Keeps an answer; gives the key up where there is none worth keeping.
    async fn keep(&self, response: Response) -> Response {
        let status = response.status();
        let passing = status.is_server_error()
            || matches!(
                status,
                StatusCode::REQUEST_TIMEOUT | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::TOO_MANY_REQUESTS
            )
            || response.headers().contains_key(header::SET_COOKIE);
        if passing {
            self.give_up().await;
            return response;
        }
        let (parts, body) = response.into_parts();
        let body = match to_bytes(body, LONGEST).await {
            Ok(body) => body,
            Err(e) => {
                self.give_up().await;
                return Problem::internal(e).into_response();
            }
        };
        let mut answer = zeroize::Zeroizing::new(Vec::with_capacity(body.len() + 64));
        answer.extend(parts.headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default());
        answer.push(b'\n');
        answer.extend(&body);
        if let Err(e) = self.store(status, &answer).await {
            tracing::warn!(error = %e, "the answer to an idempotency key is not kept");
            self.give_up().await;
        }
        Response::from_parts(parts, Body::from(body))
    }

    async fn store(&self, status: StatusCode, answer: &[u8]) -> Result<(), sealing::Error> {
        let Some(claim) = self.0.claim.get() else { return Ok(()) };
        let data_key = self.0.keeper.data_keys.get(claim.workspace).await?;
        let row: [&[u8]; 2] = [claim.caller.as_bytes(), claim.key.as_bytes()];
        let sealed = data_key.seal(&Cell { table: "request_keys", row: &row, column: "answer" }, answer)?;
        let mut tx = self.0.keeper.database.workspace(claim.workspace).await?;
        sqlx::query!(
            "UPDATE request_keys SET status = $5, answer = $6, expires_at = now() + make_interval(hours => $7)
              WHERE workspace_id = $1 AND caller = $2 AND key = $3 AND claim = $4 AND status IS NULL",
            claim.workspace.uuid(),
            claim.caller,
            claim.key,
            claim.id,
            // Three digits.
            status.as_u16() as i16,
            sealed,
            KEPT_H
        )
        .execute(&mut *tx)
        .await?;
        Ok(tx.commit().await?)
    }

    /// Frees the key where nothing was carried out; where something was, says that nobody will bring its answer. Whether
    /// it was, the row knows, even where the change's own commit was not confirmed: the database lets nobody at the row
    /// before that is settled.
    async fn give_up(&self) {
        let Some(claim) = self.0.claim.get() else { return };
        let given_up = async {
            let mut tx = self.0.keeper.database.workspace(claim.workspace).await?;
            sqlx::query!(
                "DELETE FROM request_keys
                  WHERE workspace_id = $1 AND caller = $2 AND key = $3 AND claim = $4 AND status IS NULL
                    AND NOT carried_out",
                claim.workspace.uuid(),
                claim.caller,
                claim.key,
                claim.id
            )
            .execute(&mut *tx)
            .await?;
            sqlx::query!(
                "UPDATE request_keys SET leased_until = now()
                  WHERE workspace_id = $1 AND caller = $2 AND key = $3 AND claim = $4 AND status IS NULL",
                claim.workspace.uuid(),
                claim.caller,
                claim.key,
                claim.id
            )
            .execute(&mut *tx)
            .await?;
            tx.commit().await
        };
        // It ends by itself, with its lease.
        if let Err(e) = given_up.await {
            tracing::debug!(error = %e, "an idempotency key is not given up");
        }
    }
}
