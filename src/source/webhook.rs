//! App Store Connect's own webhooks: `POST /in/{source}/app-store-connect`.
//!
//! The signature is over the body as it came, under the secret that the team gave to both sides. An event is durable
//! when it is answered; one that was taken before, or that a poll has already recorded, is answered the same.
//!
//! Which sources exist is nobody's business. So a source that there is not is met with the same patience as one that
//! there is: the body is read, a signature is computed, and whatever is wrong before one was found right is 401.

use super::app_store::webhook::{Event, EventKind, SIGNATURE_HEADER, parse, verify};
use super::inbound::{Door, Payload};
use super::store::Store;
use crate::access::Gate;
use crate::access::denial::Reason;
use crate::database::Database;
use crate::http::extract::InPath;
use crate::http::problem::Problem;
use crate::id::{SourceId, WorkspaceId};
use crate::ledger::Writer;
use crate::observation::event::{self, Outcome, StateEvent, Told, Under};
use crate::observation::{self, Via};
use crate::sealing::SecretColumn;
use axum::Json;
use axum::extract::{FromRef, FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use sha2::{Digest, Sha256};
use statusledger_verify::json::{Object, Value};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use time::OffsetDateTime;
use utoipa::ToSchema;
use zeroize::Zeroizing;

/// How long a secret is taken for known without asking again, and a source without one for being without.
const KNOWN_FOR: Duration = Duration::from_secs(10);
/// How old what is known may be where it would refuse: a new secret counts on every node about at once, and whoever signs
/// nonsense costs a look-up in that time.
const REFUSES_FOR: Duration = Duration::from_secs(1);
/// Sources remembered at most.
const KNOWN: usize = 10_000;

/// What a body of a source that there is not is compared with. Nobody is let in with it: see [`Claim::holds`].
const NO_SECRET: &[u8] = b"the secret of a source that there is not";

/// A source's secret.
#[derive(Clone)]
struct Shared {
    workspace: WorkspaceId,
    secret: Arc<Zeroizing<Vec<u8>>>,
    /// The SHA-256 of the secret as it is kept, by which it is known to be the one of today.
    sealed: [u8; 32],
}

type Secret = Option<Shared>;

/// The webhook secrets of sources, as far as was asked lately. Locked for look-ups only.
#[derive(Clone, Default)]
pub struct WebhookSecrets(Arc<Mutex<HashMap<SourceId, (Secret, Instant)>>>);

impl std::fmt::Debug for WebhookSecrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebhookSecrets").finish_non_exhaustive()
    }
}

impl WebhookSecrets {
    /// The secret of a source, known for no longer than `within`.
    async fn find(
        &self,
        database: &Database,
        writer: &Writer,
        source: SourceId,
        within: Duration,
    ) -> Result<Secret, Problem> {
        {
            let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((secret, at)) = known.get_mut(&source) {
                if at.elapsed() < within {
                    return Ok(secret.clone());
                }
                // Whoever comes meanwhile does not look too.
                *at = Instant::now();
            }
        }
        let workspace = sqlx::query_scalar!(
            r#"SELECT workspace_id AS "workspace: WorkspaceId" FROM sources
                WHERE source_id = $1 AND kind = 'app_store' AND deleted_at IS NULL"#,
            source.uuid()
        )
        .fetch_optional(&database.worker)
        .await?;
        let secret = match workspace {
            Some(workspace) => Self::read(database, writer, workspace, source).await?,
            None => None,
        };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN {
            known.clear();
        }
        known.insert(source, (secret.clone(), Instant::now()));
        Ok(secret)
    }

    async fn read(
        database: &Database,
        writer: &Writer,
        workspace: WorkspaceId,
        source: SourceId,
    ) -> Result<Secret, Problem> {
        let mut tx = database.workspace(workspace).await?;
        let sealed = sqlx::query_scalar!(
            "SELECT webhook_secret FROM sources WHERE workspace_id = $1 AND source_id = $2 AND deleted_at IS NULL",
            workspace.uuid(),
            source.uuid()
        )
        .fetch_optional(&mut *tx)
        .await?
        .flatten();
        drop(tx);
        let Some(sealed) = sealed else { return Ok(None) };
        let data_key = writer.data_keys().get(workspace).await?;
        let secret =
            SecretColumn::SourceWebhookSecret(source).open(&data_key, &sealed).map_err(Problem::internal)?;
        Ok(Some(Shared { workspace, secret: Arc::new(secret), sealed: Sha256::digest(&sealed).into() }))
    }

    /// Forgets a source's secret at once on this node.
    pub fn forget(&self, source: SourceId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&source);
    }
}

/// A source, and the signature that is claimed: known before a byte of the body is read.
pub struct Claim {
    source: SourceId,
    /// None where there is no such source, or it has no secret.
    shared: Secret,
    signature: String,
    /// Where it is noted that nobody is let in.
    door: Door,
}

impl std::fmt::Debug for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Claim").field("source", &self.source).finish_non_exhaustive()
    }
}

impl Claim {
    /// Whether a body is signed with the source's secret. It takes as long where there is none.
    fn holds(&self, body: &[u8]) -> Option<&Shared> {
        let secret = self.shared.as_ref().map_or(NO_SECRET, |shared| &shared.secret);
        let signed = verify(secret, body, &self.signature);
        self.shared.as_ref().filter(|_| signed)
    }
}

impl<S> FromRequestParts<S> for Claim
where
    S: Send + Sync,
    Database: FromRef<S>,
    Writer: FromRef<S>,
    WebhookSecrets: FromRef<S>,
    Gate: FromRef<S>,
{
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let InPath(named) = InPath::<String>::from_request_parts(parts, state).await?;
        let mut signatures = parts.headers.get_all(SIGNATURE_HEADER).iter();
        let signature = signatures.next().and_then(|s| s.to_str().ok()).map(str::to_owned);
        let signature = signature.filter(|_| signatures.next().is_none());
        let named = named.parse::<SourceId>().ok();
        let door = Door::of(Gate::from_ref(state), parts);
        // What no source can be called is nobody's.
        let (Some(signature), Some(source)) = (signature, named) else {
            door.refused(named, Reason::Unsigned);
            return Err(Refusal::unsigned());
        };
        let (database, writer) = (Database::from_ref(state), Writer::from_ref(state));
        let shared = WebhookSecrets::from_ref(state).find(&database, &writer, source, KNOWN_FOR).await?;
        Ok(Self { source, shared, signature, door })
    }
}

/// What is answered to an event that is not taken: a problem, which where it is 401 asks for a signature.
#[derive(Debug)]
pub struct Refusal(Problem);

impl Refusal {
    /// Whatever is wrong before a signature was found right.
    fn unsigned() -> Self {
        Self(Problem::unauthorized().saying(
            "A valid signature is needed",
            "Sign the body with the source's webhook secret and send `X-Apple-Signature: hmacsha256=…`, once.",
        ))
    }
}

impl<P: Into<Problem>> From<P> for Refusal {
    fn from(problem: P) -> Self {
        Self(problem.into())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = self.0.into_response();
        if response.status() == StatusCode::UNAUTHORIZED {
            // No token opens this door.
            let scheme = HeaderValue::from_static("X-Apple-Signature");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
        }
        response
    }
}

/// What became of an event.
#[derive(Debug, Serialize, ToSchema)]
pub struct Taken {
    /// `recorded`, `known` (a poll or the same event has recorded it), or `ping`.
    pub outcome: &'static str,
    /// The entry, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
}

/// Takes an event of App Store Connect. It is durable when 200 is answered.
#[utoipa::path(post, path = "/in/{source}/app-store-connect", tag = "inbound", security(("store_signature" = [])),
    params(("source" = String, Path, description = "The source's id"),
        ("x-apple-signature" = String, Header, description = "`hmacsha256=` and the HMAC of the body, lower-case hexadecimal")),
    request_body(content = Object, content_type = "application/json", description = "An event, as App Store Connect sends it"),
    responses((status = 200, body = Taken),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json")))]
pub async fn receive(
    State(database): State<Database>,
    State(writer): State<Writer>,
    State(secrets): State<WebhookSecrets>,
    mut claim: Claim,
    body: Result<Payload, Problem>,
) -> Result<Json<Taken>, Refusal> {
    let answer = answered(&database, &writer, &secrets, &mut claim, body).await;
    if matches!(&answer, Err(Refusal(problem)) if problem.status == StatusCode::UNAUTHORIZED.as_u16()) {
        claim.door.refused(Some(claim.source), Reason::Unsigned);
    }
    answer
}

async fn answered(
    database: &Database,
    writer: &Writer,
    secrets: &WebhookSecrets,
    claim: &mut Claim,
    body: Result<Payload, Problem>,
) -> Result<Json<Taken>, Refusal> {
    // What was too long, too slow or broken has no signature that could be right.
    let body = body.map_err(|problem| match problem.retry_after {
        // Nobody has looked at it.
        Some(_) => Refusal(problem),
        None => Refusal::unsigned(),
    })?;
    let body = body.bytes();
    // What is kept now decides where what is known may have been changed, here or on another node: where the append finds
    // that it was, where it would refuse, and where nothing is appended that could find it.
    let mut outcome = taken(writer, claim, body).await;
    let within = match &outcome {
        Err(Failure::Gone) | Ok(None) => Some(Duration::ZERO),
        Err(Failure::Unsigned) => Some(REFUSES_FOR),
        Ok(Some(_)) | Err(Failure::Other(_)) => None,
    };
    if let Some(within) = within {
        claim.shared = secrets.find(database, writer, claim.source, within).await?;
        outcome = taken(writer, claim, body).await;
    }
    let taken = match outcome.map_err(Refusal::from)? {
        None => Taken { outcome: "ping", seq: None },
        Some(Outcome::Repeated) => Taken { outcome: "known", seq: None },
        Some(Outcome::Known(seq)) => Taken { outcome: "known", seq: Some(seq) },
        Some(Outcome::Moved(seq) | Outcome::Filled(seq)) => Taken { outcome: "recorded", seq: Some(seq) },
    };
    Ok(Json(taken))
}

/// Why an event is not taken.
enum Failure {
    /// It is not signed with the secret that was known.
    Unsigned,
    /// It is, and that is no longer the source's.
    Gone,
    /// It is, and cannot be taken.
    Other(Problem),
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unsigned | Failure::Gone => Self::unsigned(),
            Failure::Other(problem) => Self(problem),
        }
    }
}

async fn taken(writer: &Writer, claim: &Claim, body: &[u8]) -> Result<Option<Outcome>, Failure> {
    let Shared { workspace, sealed, .. } = claim.holds(body).ok_or(Failure::Unsigned)?;
    let event = parse(body).map_err(|e| {
        Failure::Other(Problem::invalid(format!("This is no event of App Store Connect: {e}.")))
    })?;
    let told = Told {
        workspace: *workspace,
        source: claim.source,
        store: Store::AppStore,
        via: Via::Webhook,
        received_at: OffsetDateTime::now_utc(),
        under: Under::WebhookSecret(*sealed),
    };
    metrics::counter!("statusledger_store_events_total").increment(1);
    take(writer, &told, event).await.map_err(|e| match e {
        observation::Error::Gone => Failure::Gone,
        e => Failure::Other(problem(e)),
    })
}

/// Records an event; nothing for a ping.
///
/// # Errors
/// If the database does not confirm.
pub async fn take(writer: &Writer, told: &Told, event: Event) -> Result<Option<Outcome>, observation::Error> {
    match event.kind {
        EventKind::Ping => Ok(None),
        EventKind::State { kind, key, from, to, at } => {
            let event = StateEvent { id: event.id, kind, key, from, to, at };
            event::record(writer, told, &event).await.map(Some)
        }
        EventKind::Other { event_type, about } => {
            let mut data = Object::default();
            if let Some(about) = about {
                data.insert("about".into(), Value::String(about));
            }
            event::record_notice(writer, told, &event.id, &event_type, data).await.map(Some)
        }
    }
}

fn problem(e: observation::Error) -> Problem {
    match e {
        observation::Error::Sql(e) => e.into(),
        observation::Error::Append(e) => e.into(),
        e @ (observation::Error::Draft(_) | observation::Error::Time) => Problem::invalid(e.to_string()),
        observation::Error::Gone => Problem::unauthorized(),
    }
}
