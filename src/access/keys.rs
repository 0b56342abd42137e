//! API keys: made, replaced, ended; each act on the record in its own transaction. A key is shown once and kept as a
//! hash.

use super::door::standing::Standing;
use super::scope::Scopes;
use super::secret::AccessSecret;
use super::{key, members};
use crate::audit::{Act, Action};
use crate::id::{KeyId, UserId, WorkspaceId};
use crate::ledger::append;
use crate::ledger::terms::Terms;
use crate::ledger::{Writer, draft};
use crate::name;
use serde_json::json;
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};
use zeroize::Zeroizing;

/// How long a replaced key lasts at most.
pub const LONGEST_OVERLAP: time::Duration = time::Duration::days(30);

/// How far ahead a key's end lies at most: ten years. A key that has to last longer has no end, and says so.
pub const LONGEST_LIFE: time::Duration = time::Duration::days(3653);

/// A key that cannot be made or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is none of that id in the workspace.
    #[error("the key {0} does not exist")]
    Missing(KeyId),
    /// It was ended before.
    #[error("the key {0} was revoked or has expired")]
    Ended(KeyId),
    /// The name is none.
    #[error("a key's name has {}", name::RULE)]
    Name,
    /// A time that is over, or none that a key needs.
    #[error("expires_at lies in the past, or more than ten years ahead")]
    Expiry,
    /// It would last longer than the key that makes it.
    #[error("a key that ends makes none that lasts longer than itself")]
    Outlives,
    /// An overlap that is none.
    #[error("overlap_s is 0 to 2592000 (30 days)")]
    Overlap,
    /// The database.
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    /// The entry.
    #[error(transparent)]
    Append(#[from] append::Error),
    /// The entry.
    #[error(transparent)]
    Draft(#[from] draft::Error),
}

/// A key to be made.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// What people call it.
    pub name: String,
    /// What it is for.
    pub scopes: Scopes,
    /// Whether it reaches every workspace; only for the instance's own workspace.
    pub instance: bool,
    /// When it ends by itself.
    pub expires_at: Option<OffsetDateTime>,
    /// The person behind whoever makes it ([`super::Caller::person`]): while they are disabled, it opens nothing.
    pub person: Option<UserId>,
}

/// A key as an audit entry shows it.
fn shown(new: &NewKey) -> serde_json::Value {
    json!({
        "name": new.name,
        "scopes": new.scopes.to_string(),
        "instance": new.instance,
        "expires_at": new.expires_at.and_then(|at| at.format(&Rfc3339).ok()),
    })
}

async fn insert(
    locked: &mut append::Locked,
    secret: &AccessSecret,
    act: &Act,
    new: &NewKey,
    replaces: Option<KeyId>,
) -> Result<(KeyId, Zeroizing<String>), Error> {
    let id = KeyId::new();
    let text = key::mint(secret, id, &new.scopes);
    sqlx::query!(
        "INSERT INTO api_keys (workspace_id, key_id, name, scopes, hash, instance, created_by, replaces, expires_at,
                               person)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        locked.workspace().uuid(),
        id.uuid(),
        new.name,
        new.scopes.to_string(),
        &key::hash(&text)[..],
        new.instance,
        act.actor().to_string(),
        replaces.map(KeyId::uuid),
        new.expires_at,
        new.person.map(UserId::uuid)
    )
    .execute(&mut ***locked)
    .await?;
    Ok((id, text))
}

/// The end of a key, in UTC: later than now and not too far ahead.
fn ends(at: OffsetDateTime) -> Result<OffsetDateTime, Error> {
    let now = OffsetDateTime::now_utc();
    // At the end of what can be said the same moment may have no name in UTC.
    let at = at.checked_to_offset(UtcOffset::UTC).ok_or(Error::Expiry)?;
    if at <= now || at - now > LONGEST_LIFE { Err(Error::Expiry) } else { Ok(at) }
}

/// Makes a key, whose text is returned this once. It ends no later than `latest`, where whoever makes it ends then.
///
/// # Errors
/// If the name or the time is out of bounds; then nothing is made.
pub async fn create(
    writer: &Writer,
    secret: &AccessSecret,
    act: &Act,
    workspace: WorkspaceId,
    mut new: NewKey,
    latest: Option<OffsetDateTime>,
) -> Result<(KeyId, Zeroizing<String>), Error> {
    if !name::is_name(&new.name) {
        return Err(Error::Name);
    }
    new.expires_at = new.expires_at.map(ends).transpose()?;
    match (new.expires_at, latest) {
        (Some(at), Some(latest)) if at > latest => return Err(Error::Outlives),
        (None, latest) => new.expires_at = latest,
        _ => {}
    }
    let mut locked = writer.lock(workspace).await?;
    let (id, text) = insert(&mut locked, secret, act, &new, None).await?;
    let record =
        act.of(Action::KeyCreated).target("api_key", id).changed("api_key", None, Some(&shown(&new)));
    locked.append(&[record.draft()?]).await?;
    locked.commit().await?;
    Ok((id, text))
}

/// How a key is replaced.
#[derive(Clone, Copy, Debug)]
pub struct Replacement {
    /// How long the old one still holds, so that whoever uses it can change over.
    pub overlap: time::Duration,
    /// Who is behind the new one: whoever sees its text now.
    pub person: Option<UserId>,
    /// When the new one ends at the latest, where whoever asks ends then: so a key does not lengthen itself.
    pub latest: Option<OffsetDateTime>,
}

/// Replaces a key by a new one of the same name and scopes, whose text is returned this once. It lasts as long as the old
/// one was made for.
///
/// # Errors
/// If there is no such key, or it has ended.
pub async fn rotate(
    writer: &Writer,
    secret: &AccessSecret,
    act: &Act,
    workspace: WorkspaceId,
    id: KeyId,
    how: Replacement,
) -> Result<(KeyId, Zeroizing<String>), Error> {
    let Replacement { overlap, person, latest } = how;
    if overlap.is_negative() || overlap > LONGEST_OVERLAP {
        return Err(Error::Overlap);
    }
    let mut locked = writer.lock(workspace).await?;
    let row = sqlx::query!(
        r#"SELECT name, scopes, instance, expires_at, created_at,
                  (revoked_at IS NOT NULL OR COALESCE(expires_at <= now(), false)) AS "ended!"
             FROM api_keys WHERE workspace_id = $1 AND key_id = $2 FOR UPDATE"#,
        workspace.uuid(),
        id.uuid()
    )
    .fetch_optional(&mut **locked)
    .await?
    .ok_or(Error::Missing(id))?;
    let scopes = row.scopes.parse().map_err(|_| Error::Missing(id))?;
    if row.ended {
        return Err(Error::Ended(id));
    }
    let now = OffsetDateTime::now_utc();
    let life = row.expires_at.map(|at| now + (at - row.created_at).min(LONGEST_LIFE));
    let expires_at = [life, latest].into_iter().flatten().min();
    let new = NewKey { name: row.name, scopes, instance: row.instance, expires_at, person };
    let (new_id, text) = insert(&mut locked, secret, act, &new, Some(id)).await?;
    let ends = row.expires_at.map_or(now + overlap, |at| at.min(now + overlap));
    sqlx::query!(
        "UPDATE api_keys SET expires_at = $3 WHERE workspace_id = $1 AND key_id = $2",
        workspace.uuid(),
        id.uuid(),
        ends
    )
    .execute(&mut **locked)
    .await?;
    // What it has made ends with it.
    sqlx::query!(
        "UPDATE invitations SET expires_at = LEAST(expires_at, $3)
          WHERE workspace_id = $1 AND invited_key = $2 AND accepted_at IS NULL AND revoked_at IS NULL",
        workspace.uuid(),
        id.uuid(),
        ends
    )
    .execute(&mut **locked)
    .await?;
    let before = json!({ "expires_at": row.expires_at.and_then(|at| at.format(&Rfc3339).ok()) });
    let after = json!({ "expires_at": ends.format(&Rfc3339).ok() });
    let record = act.of(Action::KeyRotated).target("api_key", id).target("api_key", new_id).changed(
        "api_key",
        Some(&before),
        Some(&after),
    );
    locked.append(&[record.draft()?]).await?;
    locked.commit().await?;
    Ok((new_id, text))
}

/// Ends a key at once. Open invitations into its workspace that it has made are withdrawn in the same transaction; those into
/// others, of a key of the instance's, are not accepted from then on, and are withdrawn right after it: one transaction does
/// not hold the heads of two ledgers. A crash in between leaves them to [`members::withdraw_of_ended_keys`].
///
/// # Errors
/// If there is no such key, or it was ended before.
pub async fn revoke(writer: &Writer, act: &Act, workspace: WorkspaceId, id: KeyId) -> Result<(), Error> {
    let mut locked = writer.lock(workspace).await?;
    let revoked = sqlx::query_scalar!(
        r#"UPDATE api_keys SET revoked_at = COALESCE(revoked_at, now()) WHERE workspace_id = $1 AND key_id = $2
           RETURNING revoked_at < now() AS "before!""#,
        workspace.uuid(),
        id.uuid()
    )
    .fetch_optional(&mut **locked)
    .await?
    .ok_or(Error::Missing(id))?;
    if revoked {
        return Err(Error::Ended(id));
    }
    let record = act.of(Action::KeyRevoked).target("api_key", id);
    locked.append(&[record.draft()?]).await?;
    members::withdraw_of_key(&mut locked, act, id).await?;
    locked.commit().await?;
    // Whoever has ended it was let in to that; the key may be the one that they did it with.
    let after = act.clone().on(Terms { standing: Standing::Proven, ..Terms::default() });
    if let Err(e) = members::withdraw_elsewhere(writer, &after, id).await {
        tracing::warn!(error = %e, key = %id, "invitations of a key that was ended are not withdrawn yet");
    }
    Ok(())
}

/// Makes a key that reaches the whole instance: for the first administrator's scripts.
///
/// # Errors
/// If the database does not confirm.
pub async fn bootstrap(
    writer: &Writer,
    secret: &AccessSecret,
    instance: WorkspaceId,
) -> Result<Zeroizing<String>, Error> {
    let scopes = Scopes::new(
        super::scope::Scope::all().filter(|(s, _)| s.name() == "admin").map(|(s, _)| s).collect(),
    )
    .map_err(|_| Error::Name)?;
    let new = NewKey { name: "bootstrap".into(), scopes, instance: true, expires_at: None, person: None };
    let (_, text) = create(writer, secret, &Act::operator(), instance, new, None).await?;
    Ok(text)
}

/// Whether `text` is a key that reaches the whole instance and is good.
///
/// # Errors
/// If the database does not answer.
pub async fn is_instance_key(
    writer: &Writer,
    secret: &AccessSecret,
    text: &str,
) -> Result<bool, sqlx::Error> {
    let Some(shown) = key::read(secret, text) else { return Ok(false) };
    sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM api_keys WHERE key_id = $1 AND hash = $2 AND instance AND revoked_at IS NULL
                             AND (expires_at IS NULL OR expires_at > now())) AS "known!""#,
        shown.id.uuid(),
        &shown.hash[..]
    )
    .fetch_one(&writer.database().worker)
    .await
}
