//! Destinations: made, changed, tested, disabled; each act an entry in its own transaction.

use super::LaneKey;
use super::channels::webhook::{self, WebhookSecret};
use super::guard;
use super::routes::{Filter, FilterError};
use crate::access::scope::{Permission, Permissions};
use crate::audit::{Act, Action};
use crate::id::{DestinationId, NodeId, WorkspaceId};
use crate::ledger::append::{self, Locked};
use crate::ledger::batch::Recorded;
use crate::ledger::{Draft, Writer, draft};
use crate::name;
use crate::redacted::redacted;
use crate::sealing::{self, SecretColumn};
use statusledger_keys::envelope::DataKey;
use statusledger_keys::sealing::SealError;
use statusledger_verify::json::{Object, Value};
use time::OffsetDateTime;

redacted!(NewDestination, Change);

/// How long the secret before stays valid after a rotation.
pub const SECRET_OVERLAP: time::Duration = time::Duration::hours(24);

/// How long a name may take to resolve when a destination is registered.
const RESOLVE_WITHIN: std::time::Duration = std::time::Duration::from_secs(5);

/// A destination that cannot be made or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is none of that id in the workspace.
    #[error("the destination {0} does not exist")]
    Missing(DestinationId),
    /// It takes nothing at present.
    #[error("the destination {0} is disabled")]
    Disabled(DestinationId),
    /// The name is none.
    #[error("a destination's name has {}", name::RULE)]
    Name,
    /// Another destination of the workspace is called so.
    #[error("a destination called \"{0}\" exists")]
    NameTaken(String),
    /// The address is not one.
    #[error("the address is not a URL: {0}")]
    Url(String),
    /// The address leads where no request may go.
    #[error("the address is refused: {0}")]
    Refused(#[from] guard::Refusal),
    /// The filter can match nothing.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// More than whoever asks may read.
    #[error("a destination hears no more than whoever makes or changes it may read: {0}")]
    Beyond(&'static str),
    /// Out of bounds.
    #[error("max_in_flight is 1 to 256")]
    MaxInFlight,
    /// A delivery that does not exist.
    #[error("the destination {0} has no delivery {1}")]
    NoDelivery(DestinationId, i64),
    /// The secret does not open.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The secret is none.
    #[error("the stored secret is not one")]
    Secret,
    /// The row has no address or no secret, though it was not deleted.
    #[error("the destination's address or secret is missing")]
    Emptied,
    /// The operating system gives no random bytes.
    #[error("the operating system gives no random bytes")]
    Random,
    /// The database.
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    /// The data key.
    #[error(transparent)]
    Sealing(#[from] sealing::Error),
    /// The entry.
    #[error(transparent)]
    Append(#[from] append::Error),
    /// The entry.
    #[error(transparent)]
    Draft(#[from] draft::Error),
}

/// Deliveries of audit entries, where whoever asks may not read those.
const AUDIT: Error = Error::Beyond("deliveries of audit entries need audit:read");

/// What a destination is made of.
#[derive(Clone)]
pub struct NewDestination {
    /// What people call it; unique in the workspace.
    pub name: String,
    /// Where to.
    pub url: String,
    /// What it wants.
    pub filter: Filter,
    /// Whether notifications carry the openings of sealed values.
    pub openings: bool,
    /// Attempts at once, at most.
    pub max_in_flight: i32,
}

/// What changes of a destination; none leaves it.
#[derive(Clone, Default)]
pub struct Change {
    /// What people call it.
    pub name: Option<String>,
    /// Where to.
    pub url: Option<String>,
    /// What it wants.
    pub filter: Option<Filter>,
    /// Whether notifications carry the openings of sealed values.
    pub openings: Option<bool>,
    /// Attempts at once, at most.
    pub max_in_flight: Option<i32>,
    /// Whether it takes notifications; `true` takes up what has waited.
    pub enabled: Option<bool>,
}

fn check_name(name: &str) -> Result<(), Error> {
    if name::is_name(name) { Ok(()) } else { Err(Error::Name) }
}

fn name_taken(e: sqlx::Error, name: &str) -> Error {
    match &e {
        sqlx::Error::Database(d) if d.constraint() == Some("destinations_name_unique") => {
            Error::NameTaken(name.to_owned())
        }
        _ => e.into(),
    }
}

fn check_max_in_flight(n: i32) -> Result<(), Error> {
    if (1..=256).contains(&n) { Ok(()) } else { Err(Error::MaxInFlight) }
}

/// Checks that whoever has `grants` could read what a destination would be sent. A destination stays what it is when its
/// maker may less, or has gone: it is the workspace's.
fn check_reach(grants: Permissions, filter: &Filter, openings: bool) -> Result<(), Error> {
    if !grants.has(Permission::LedgerRead) {
        return Err(Error::Beyond("entries need ledger:read"));
    }
    if filter.wants_audit() && !grants.has(Permission::AuditRead) {
        return Err(Error::Beyond("audit entries need audit:read"));
    }
    if openings && !grants.has(Permission::LedgerExport) {
        return Err(Error::Beyond("openings need ledger:export (without them: `openings` false)"));
    }
    Ok(())
}

/// Checks an address at registration: its form, and where its name leads now. The same is checked again at every
/// connect, since names change their minds.
///
/// # Errors
/// If it is no URL, or refused.
pub async fn check_url(url: &str, policy: &guard::Policy) -> Result<url::Url, Error> {
    let parsed = url::Url::parse(url).map_err(|e| Error::Url(e.to_string()))?;
    // It is kept as it was read: what is asked is what is shown, without what nobody sees.
    if url.len().max(parsed.as_str().len()) > 2048 {
        return Err(Error::Url("it is longer than 2048 bytes".into()));
    }
    let resolver = guard::Guarded::system(policy.clone());
    tokio::time::timeout(RESOLVE_WITHIN, guard::check_destination(&parsed, &resolver))
        .await
        .unwrap_or_else(|_| Err(guard::Refusal::Unresolved("no answer in time".into())))?;
    Ok(parsed)
}

fn text(value: impl Into<String>) -> Value {
    Value::String(value.into())
}

/// A filter as an entry's data shows it.
fn filter_value(filter: &Filter) -> Value {
    let list = |items: Vec<String>| Value::Array(items.into_iter().map(Value::String).collect());
    let mut object = Object::default();
    object.insert("apps".into(), list(filter.apps.clone()));
    object.insert("first_seen".into(), Value::Bool(filter.first_seen));
    object.insert("sources".into(), list(filter.sources.iter().map(ToString::to_string).collect()));
    object.insert("types".into(), list(filter.types.clone()));
    Value::Object(object)
}

fn seal_secret(key: &DataKey, id: DestinationId, secret: &WebhookSecret) -> Result<Vec<u8>, SealError> {
    SecretColumn::DestinationSecret(id).seal(key, secret.expose().as_bytes())
}

fn seal_url(key: &DataKey, id: DestinationId, url: &str) -> Result<Vec<u8>, SealError> {
    SecretColumn::DestinationUrl(id).seal(key, url.as_bytes())
}

/// Opens a destination's address; one that was deleted has none.
///
/// # Errors
/// If it does not open, or is missing.
pub fn open_url(key: &DataKey, id: DestinationId, sealed: Option<&[u8]>) -> Result<String, Error> {
    let opened = SecretColumn::DestinationUrl(id).open(key, sealed.ok_or(Error::Emptied)?)?;
    Ok(String::from_utf8_lossy(&opened).into_owned())
}

/// Opens a stored `whsec_` secret; `previous` names the column of the one before.
///
/// # Errors
/// If it does not open, or is no secret.
pub fn open_secret(
    key: &DataKey,
    id: DestinationId,
    sealed: &[u8],
    previous: bool,
) -> Result<WebhookSecret, Error> {
    let column = if previous {
        SecretColumn::DestinationPreviousSecret(id)
    } else {
        SecretColumn::DestinationSecret(id)
    };
    let opened = column.open(key, sealed)?;
    std::str::from_utf8(&opened).ok().and_then(|s| s.parse().ok()).ok_or(Error::Secret)
}

/// Makes a destination and returns its id and its secret, which is shown this once.
///
/// # Errors
/// If something is out of bounds, the name is taken, the address is refused, or it would be sent what `grants` do not let its
/// maker read; then nothing is made.
pub async fn create(
    writer: &Writer,
    act: &Act,
    grants: Permissions,
    policy: &guard::Policy,
    workspace: WorkspaceId,
    mut new: NewDestination,
) -> Result<(DestinationId, WebhookSecret), Error> {
    check_name(&new.name)?;
    check_max_in_flight(new.max_in_flight)?;
    new.filter.check()?;
    check_reach(grants, &new.filter, new.openings)?;
    new.url = check_url(&new.url, policy).await?.into();
    let (id, secret) = (DestinationId::new(), WebhookSecret::generate().map_err(|_| Error::Random)?);
    let mut locked = writer.lock(workspace).await?;
    let data_key = writer.data_keys().get(workspace).await?;
    sqlx::query!(
        "INSERT INTO destinations (workspace_id, destination_id, kind, name, url, filter, openings, max_in_flight,
                                   secret)
         VALUES ($1, $2, 'webhook', $3, $4, $5, $6, $7, $8)",
        workspace.uuid(),
        id.uuid(),
        new.name,
        seal_url(&data_key, id, &new.url)?,
        sqlx::types::Json(&new.filter) as _,
        new.openings,
        new.max_in_flight,
        seal_secret(&data_key, id, &secret)?
    )
    .execute(&mut **locked)
    .await
    .map_err(|e| name_taken(e, &new.name))?;
    sqlx::query!(
        "INSERT INTO lanes (workspace_id, destination_id) VALUES ($1, $2)",
        workspace.uuid(),
        id.uuid()
    )
    .execute(&mut **locked)
    .await?;
    locked.routes_changed().await?;
    let mut data = Object::default();
    data.insert("destination".into(), text(id.to_string()));
    data.insert("filter".into(), filter_value(&new.filter));
    data.insert("kind".into(), text("webhook"));
    data.insert("max_in_flight".into(), Value::Int(new.max_in_flight.into()));
    data.insert("openings".into(), Value::Bool(new.openings));
    // The address can hold a token, and the name a person's: both are sealed.
    let made = serde_json::json!({
        "kind": "webhook",
        "name": new.name,
        "url": new.url,
        "filter": new.filter,
        "openings": new.openings,
        "max_in_flight": new.max_in_flight,
        "enabled": true,
    });
    let record = act.of(Action::DestinationCreated).target("destination", id).changed(
        "destination",
        None,
        Some(&made),
    );
    let sealed = vec![("name", text(new.name)), ("url", text(new.url))];
    let created = Draft::sealing("destination.created", data, sealed)?.about(id);
    locked.append(&[created, record.draft()?.about(id)]).await?;
    locked.commit().await?;
    Ok((id, secret))
}

/// Changes a destination. Where it leads, what it wants and that it is sent openings change only to what whoever asks may
/// read (`grants`).
///
/// # Errors
/// If something is out of bounds, the name is taken, the address is refused, or it would be sent more; then nothing is changed.
pub async fn update(
    writer: &Writer,
    act: &Act,
    grants: Permissions,
    policy: &guard::Policy,
    workspace: WorkspaceId,
    id: DestinationId,
    mut change: Change,
) -> Result<(), Error> {
    if let Some(name) = &change.name {
        check_name(name)?;
    }
    if let Some(n) = change.max_in_flight {
        check_max_in_flight(n)?;
    }
    if let Some(filter) = &change.filter {
        filter.check()?;
    }
    if let Some(url) = &mut change.url {
        *url = check_url(url, policy).await?.into();
    }
    let mut locked = writer.lock(workspace).await?;
    let data_key = writer.data_keys().get(workspace).await?;
    let before = shown(&mut locked, &data_key, id).await?;
    let url = change.url.as_deref().map(|url| seal_url(&data_key, id, url)).transpose()?;
    sqlx::query!(
        "UPDATE destinations SET name = COALESCE($3, name), url = COALESCE($4, url), filter = COALESCE($5, filter),
                openings = COALESCE($6, openings), max_in_flight = COALESCE($7, max_in_flight),
                disabled_at = CASE $8::boolean WHEN true THEN NULL WHEN false THEN COALESCE(disabled_at, now())
                                      ELSE disabled_at END,
                disabled_reason = CASE $8::boolean WHEN true THEN NULL WHEN false THEN COALESCE(disabled_reason, 'by hand')
                                          ELSE disabled_reason END
          WHERE workspace_id = $1 AND destination_id = $2 AND deleted_at IS NULL",
        workspace.uuid(),
        id.uuid(),
        change.name,
        url,
        change.filter.as_ref().map(sqlx::types::Json) as _,
        change.openings,
        change.max_in_flight,
        change.enabled
    )
    .execute(&mut **locked)
    .await
    .map_err(|e| name_taken(e, change.name.as_deref().unwrap_or_default()))?;
    let after = shown(&mut locked, &data_key, id).await?;
    let differs = |member: &str| before[member] != after[member];
    if differs("url") || differs("filter") || (differs("openings") && after["openings"] == true) {
        let filter = serde_json::from_value(after["filter"].clone());
        let filter: Filter = filter.map_err(|e| sqlx::Error::Decode(e.into()))?;
        check_reach(grants, &filter, after["openings"] == true)?;
    }
    if differs("url") && !grants.has(Permission::AuditRead) {
        // What the destination heard before, and has not got yet, goes to the new address.
        check_open(&mut locked, id).await?;
    }
    if let Some(enabled) = change.enabled
        && differs("enabled")
    {
        set_stopped(&mut locked, id, !enabled).await?;
    }
    locked.routes_changed().await?;
    let mut data = Object::default();
    data.insert("destination".into(), text(id.to_string()));
    let mut sealed = Vec::new();
    if let Some(name) = change.name {
        sealed.push(("name", text(name)));
    }
    if let Some(url) = change.url {
        sealed.push(("url", text(url)));
    }
    if let Some(filter) = &change.filter {
        data.insert("filter".into(), filter_value(filter));
    }
    if let Some(openings) = change.openings {
        data.insert("openings".into(), Value::Bool(openings));
    }
    if let Some(n) = change.max_in_flight {
        data.insert("max_in_flight".into(), Value::Int(n.into()));
    }
    if let Some(enabled) = change.enabled {
        data.insert("enabled".into(), Value::Bool(enabled));
    }
    let record = act.of(Action::DestinationUpdated).target("destination", id).changed(
        "destination",
        Some(&before),
        Some(&after),
    );
    let updated = Draft::sealing("destination.updated", data, sealed)?.about(id);
    locked.append(&[updated, record.draft()?.about(id)]).await?;
    locked.commit().await?;
    Ok(())
}

/// Checks that no delivery on its way is of an audit entry, which whoever asks may not read. First attempts that have not
/// begun are beyond the lane's `sent_through`, the others among the retries: settled deliveries are not looked at.
async fn check_open(locked: &mut Locked, id: DestinationId) -> Result<(), Error> {
    let some = sqlx::query_scalar!(
        r#"SELECT (EXISTS (SELECT FROM deliveries d JOIN entries e USING (workspace_id, ledger_id, seq)
                           WHERE d.workspace_id = $1 AND d.destination_id = $2 AND d.next_attempt_at IS NOT NULL
                             AND e.type ^@ 'audit.')
                   OR EXISTS (SELECT FROM lanes l
                                JOIN deliveries d ON d.workspace_id = l.workspace_id
                                 AND d.destination_id = l.destination_id AND d.number > l.sent_through
                                JOIN entries e ON e.workspace_id = d.workspace_id AND e.ledger_id = d.ledger_id
                                 AND e.seq = d.seq
                               WHERE l.workspace_id = $1 AND l.destination_id = $2 AND d.state = 'pending'
                                 AND e.type ^@ 'audit.')) AS "some!""#,
        locked.workspace().uuid(),
        id.uuid()
    )
    .fetch_one(&mut ***locked)
    .await?;
    if some { Err(AUDIT) } else { Ok(()) }
}

/// Checks that none of the deliveries `from..=to` is of an audit entry.
async fn check_range(locked: &mut Locked, id: DestinationId, from: i64, to: i64) -> Result<(), Error> {
    let some = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM deliveries d JOIN entries e USING (workspace_id, ledger_id, seq)
                   WHERE d.workspace_id = $1 AND d.destination_id = $2 AND d.number BETWEEN $3 AND $4
                     AND e.type ^@ 'audit.') AS "some!""#,
        locked.workspace().uuid(),
        id.uuid(),
        from,
        to
    )
    .fetch_one(&mut ***locked)
    .await?;
    if some { Err(AUDIT) } else { Ok(()) }
}

/// A destination as audit entries show it.
async fn shown(
    locked: &mut Locked,
    data_key: &DataKey,
    id: DestinationId,
) -> Result<serde_json::Value, Error> {
    let row = sqlx::query!(
        "SELECT kind, name, url, filter, openings, max_in_flight, disabled_at FROM destinations
          WHERE workspace_id = $1 AND destination_id = $2 AND deleted_at IS NULL",
        locked.workspace().uuid(),
        id.uuid()
    )
    .fetch_optional(&mut ***locked)
    .await?
    .ok_or(Error::Missing(id))?;
    Ok(serde_json::json!({
        "kind": row.kind,
        "name": row.name,
        "url": open_url(data_key, id, row.url.as_deref())?,
        "filter": row.filter,
        "openings": row.openings,
        "max_in_flight": row.max_in_flight,
        "enabled": row.disabled_at.is_none(),
    }))
}

async fn set_stopped(locked: &mut Locked, id: DestinationId, stopped: bool) -> Result<(), sqlx::Error> {
    // Whoever holds the lane loses it, with its fence: nothing more is sent under it.
    sqlx::query!(
        "UPDATE lanes SET stopped = $3, failing_since = NULL, holder = NULL, fence = fence + 1,
                leased_until = '-infinity'
          WHERE workspace_id = $1 AND destination_id = $2",
        locked.workspace().uuid(),
        id.uuid(),
        stopped
    )
    .execute(&mut ***locked)
    .await?;
    Ok(())
}

/// Deletes a destination: it gets nothing more, and its address and secrets are destroyed. Its deliveries and attempts stay.
///
/// # Errors
/// If there is none.
pub async fn delete(
    writer: &Writer,
    act: &Act,
    workspace: WorkspaceId,
    id: DestinationId,
) -> Result<(), Error> {
    let mut locked = writer.lock(workspace).await?;
    let found = sqlx::query!(
        "UPDATE destinations SET deleted_at = now(), url = NULL, secret = NULL, previous_secret = NULL
          WHERE workspace_id = $1 AND destination_id = $2 AND deleted_at IS NULL",
        workspace.uuid(),
        id.uuid()
    )
    .execute(&mut **locked)
    .await?
    .rows_affected();
    if found == 0 {
        return Err(Error::Missing(id));
    }
    set_stopped(&mut locked, id, true).await?;
    locked.routes_changed().await?;
    let mut data = Object::default();
    data.insert("destination".into(), text(id.to_string()));
    let record = act.of(Action::DestinationDeleted).target("destination", id).draft()?.about(id);
    locked.append(&[Draft::new("destination.deleted", data)?.about(id), record]).await?;
    locked.commit().await?;
    Ok(())
}

/// Gives a destination a new secret, returned this once; the one before stays valid for [`SECRET_OVERLAP`], and
/// meanwhile each request is signed with both.
///
/// # Errors
/// If there is no such destination.
pub async fn rotate_secret(
    writer: &Writer,
    act: &Act,
    workspace: WorkspaceId,
    id: DestinationId,
) -> Result<WebhookSecret, Error> {
    let secret = WebhookSecret::generate().map_err(|_| Error::Random)?;
    let data_key = writer.data_keys().get(workspace).await.map_err(|e| match e {
        sealing::Error::Missing(w) => Error::Append(append::Error::NoWorkspace(w)),
        e => e.into(),
    })?;
    let mut locked = writer.lock(workspace).await?;
    let old = sqlx::query_scalar!(
        "SELECT secret FROM destinations WHERE workspace_id = $1 AND destination_id = $2 AND deleted_at IS NULL",
        workspace.uuid(),
        id.uuid()
    )
    .fetch_optional(&mut **locked)
    .await?
    .ok_or(Error::Missing(id))?
    .ok_or(Error::Emptied)?;
    // Bound to its column, so it is sealed anew for the other.
    let opened = SecretColumn::DestinationSecret(id).open(&data_key, &old)?;
    let previous = SecretColumn::DestinationPreviousSecret(id).seal(&data_key, &opened)?;
    let until = OffsetDateTime::now_utc() + SECRET_OVERLAP;
    sqlx::query!(
        "UPDATE destinations SET secret = $3, previous_secret = $4, previous_secret_until = $5
          WHERE workspace_id = $1 AND destination_id = $2",
        workspace.uuid(),
        id.uuid(),
        seal_secret(&data_key, id, &secret)?,
        previous,
        until
    )
    .execute(&mut **locked)
    .await?;
    locked.routes_changed().await?;
    let mut data = Object::default();
    data.insert("destination".into(), text(id.to_string()));
    let record = act.of(Action::DestinationSecretRotated).target("destination", id).draft()?.about(id);
    locked.append(&[Draft::new("destination.secret_rotated", data)?.about(id), record]).await?;
    locked.commit().await?;
    Ok(secret)
}

/// Records a test event for one destination alone.
///
/// # Errors
/// If there is no such destination.
pub async fn test(
    writer: &Writer,
    act: &Act,
    workspace: WorkspaceId,
    id: DestinationId,
) -> Result<Recorded, Error> {
    let mut locked = writer.lock(workspace).await?;
    let enabled = sqlx::query_scalar!(
        r#"SELECT disabled_at IS NULL AS "enabled!" FROM destinations
            WHERE workspace_id = $1 AND destination_id = $2 AND deleted_at IS NULL"#,
        workspace.uuid(),
        id.uuid()
    )
    .fetch_optional(&mut **locked)
    .await?;
    match enabled {
        Some(true) => {}
        Some(false) => return Err(Error::Disabled(id)),
        None => return Err(Error::Missing(id)),
    }
    let mut data = Object::default();
    data.insert("destination".into(), text(id.to_string()));
    let record = act.of(Action::DestinationTested).target("destination", id).draft()?.about(id);
    let recorded = locked.append(&[Draft::new("destination.tested", data)?.only(id), record]).await?;
    locked.commit().await?;
    recorded.into_iter().next().ok_or(Error::Missing(id))
}

/// Puts deliveries `from..=to` back into the queue, settled or not. Returns how many.
///
/// # Errors
/// If there is no such destination, or one of them is of an entry that `grants` do not let whoever asks read: the address
/// may be theirs by now.
pub async fn redeliver(
    writer: &Writer,
    act: &Act,
    grants: Permissions,
    workspace: WorkspaceId,
    id: DestinationId,
    from: i64,
    to: i64,
) -> Result<u64, Error> {
    let mut locked = writer.lock(workspace).await?;
    let known = sqlx::query_scalar!(
        "SELECT l.last_number FROM lanes l JOIN destinations d USING (workspace_id, destination_id)
          WHERE l.workspace_id = $1 AND l.destination_id = $2 AND d.deleted_at IS NULL",
        workspace.uuid(),
        id.uuid()
    )
    .fetch_optional(&mut **locked)
    .await?
    .ok_or(Error::Missing(id))?;
    if from < 1 || from > to || from > known {
        return Err(Error::NoDelivery(id, from));
    }
    if !grants.has(Permission::AuditRead) {
        check_range(&mut locked, id, from, to).await?;
    }
    let count = sqlx::query!(
        "UPDATE deliveries SET state = 'retry', next_attempt_at = now(), settled_at = NULL
          WHERE workspace_id = $1 AND destination_id = $2 AND number BETWEEN $3 AND $4 AND state <> 'pending'",
        workspace.uuid(),
        id.uuid(),
        from,
        to
    )
    .execute(&mut **locked)
    .await?
    .rows_affected();
    sqlx::query!(
        "UPDATE lanes SET next_retry_at = now() WHERE workspace_id = $1 AND destination_id = $2",
        workspace.uuid(),
        id.uuid()
    )
    .execute(&mut **locked)
    .await?;
    let mut data = Object::default();
    data.insert("count".into(), Value::Int(count as i64));
    data.insert("destination".into(), text(id.to_string()));
    data.insert("from".into(), Value::Int(from));
    data.insert("to".into(), Value::Int(to.min(known)));
    let record = act
        .of(Action::DeliveryRedelivered)
        .target("destination", id)
        .detail("from", Value::Int(from))
        .detail("to", Value::Int(to.min(known)))
        .detail("count", Value::Int(count as i64))
        .draft()?
        .about(id);
    locked.append(&[Draft::new("delivery.redelivered", data)?.about(id), record]).await?;
    locked.commit().await?;
    Ok(count)
}

/// A delivery whose attempt was the last, or ended its destination.
#[derive(Debug)]
pub struct Failed {
    /// Its lane.
    pub key: LaneKey,
    /// The fence under which it was sent.
    pub fence: i64,
    /// Its number.
    pub number: i64,
    /// Its entry.
    pub seq: u64,
    /// Which attempt.
    pub attempt: i32,
    /// When that began.
    pub started_at: OffsetDateTime,
    /// What came of it.
    pub sent: webhook::Attempt,
}

/// Writes the last attempt, gives the delivery up, disables the destination, and records what was done; all or
/// nothing, and nothing where another node holds the lane by now.
///
/// # Errors
/// If the database does not confirm.
pub async fn conclude(
    writer: &Writer,
    node: NodeId,
    failed: &Failed,
    disable: Option<&'static str>,
    given_up: bool,
) -> Result<(), Error> {
    let LaneKey { workspace, destination } = failed.key;
    let mut locked = writer.lock(workspace).await?;
    let held = sqlx::query_scalar!(
        r#"SELECT COALESCE(holder = $3 AND fence = $4, false) AS "held!" FROM lanes
            WHERE workspace_id = $1 AND destination_id = $2 FOR UPDATE"#,
        workspace.uuid(),
        destination.uuid(),
        node.uuid(),
        failed.fence
    )
    .fetch_optional(&mut **locked)
    .await?;
    if held != Some(true) {
        return Ok(());
    }
    let sent = &failed.sent;
    let data_key = writer.data_keys().get(workspace).await?;
    let answer = Some(sent.answer.as_str()).filter(|answer| !answer.is_empty());
    let at = (destination, failed.number, failed.attempt);
    let answer = answer.map(|answer| sealing::seal_answer(&data_key, at, answer)).transpose()?;
    sqlx::query!(
        "INSERT INTO attempts (workspace_id, destination_id, number, attempt, started_at, duration_us, status, error,
                               answer)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING",
        workspace.uuid(),
        destination.uuid(),
        failed.number,
        failed.attempt,
        failed.started_at,
        i64::try_from(sent.duration.as_micros()).unwrap_or(i64::MAX),
        sent.status.map(i32::from),
        sent.error,
        answer
    )
    .execute(&mut **locked)
    .await?;
    sqlx::query!(
        "UPDATE deliveries SET state = CASE WHEN $5 THEN 'given_up' ELSE 'retry' END, attempts = $4,
                next_attempt_at = CASE WHEN $5 THEN NULL ELSE now() END,
                first_attempt_at = COALESCE(first_attempt_at, $6), settled_at = CASE WHEN $5 THEN now() END
          WHERE workspace_id = $1 AND destination_id = $2 AND number = $3",
        workspace.uuid(),
        destination.uuid(),
        failed.number,
        failed.attempt,
        given_up,
        failed.started_at
    )
    .execute(&mut **locked)
    .await?;
    let mut drafts = Vec::new();
    if given_up {
        let mut data = Object::default();
        data.insert("attempts".into(), Value::Int(failed.attempt.into()));
        data.insert("destination".into(), text(destination.to_string()));
        data.insert("number".into(), Value::Int(failed.number));
        data.insert("seq".into(), Value::Int(failed.seq as i64));
        data.insert("status".into(), sent.status.map_or(Value::Null, |s| Value::Int(s.into())));
        drafts.push(Draft::new("delivery.given_up", data)?.about(destination));
    }
    if let Some(reason) = disable {
        sqlx::query!(
            "UPDATE destinations SET disabled_at = now(), disabled_reason = $3
              WHERE workspace_id = $1 AND destination_id = $2 AND disabled_at IS NULL",
            workspace.uuid(),
            destination.uuid(),
            reason
        )
        .execute(&mut **locked)
        .await?;
        set_stopped(&mut locked, destination, true).await?;
        locked.routes_changed().await?;
        let mut data = Object::default();
        data.insert("destination".into(), text(destination.to_string()));
        data.insert("reason".into(), text(reason));
        drafts.push(Draft::new("destination.disabled", data)?.about(destination));
    }
    locked.append(&drafts).await?;
    locked.commit().await?;
    metrics::counter!("statusledger_deliveries_given_up_total").increment(u64::from(given_up));
    Ok(())
}
