//! Sources: where observations come from.
//!
//! Two kinds are polled ([`app_store`], [`google_play`], by the [`poller`]); one is told ([`inbound`]). A store key is
//! kept encrypted and never shown again. Trouble with it is a state of the source, never of an app.

pub mod app_store;
pub mod budget;
pub mod fetch;
pub mod google_play;
pub mod http;
pub mod inbound;
pub mod key;
pub mod look;
pub mod poller;
pub mod store;
pub mod webhook;

use crate::access::{hash_token, new_token};
use crate::audit::{Act, Action};
use crate::id::{SourceId, WorkspaceId};
use crate::ledger::append;
use crate::ledger::{Draft, Writer, draft};
use crate::name;
use crate::redacted::redacted;
use crate::sealing::{self, SecretColumn};
use serde::{Deserialize, Serialize};
use statusledger_keys::envelope::DataKey;
use statusledger_keys::sealing::SealError;
use statusledger_verify::json::{Object, Value};
use zeroize::Zeroizing;

redacted!(NewSource);

/// What a source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// An App Store Connect API key.
    AppStore,
    /// A Google Play service account.
    GooglePlay,
    /// Events posted to `/in/{source}`.
    Inbound,
}

impl Kind {
    /// Its name in rows.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AppStore => "app_store",
            Self::GooglePlay => "google_play",
            Self::Inbound => "inbound",
        }
    }

    /// The kind of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::AppStore, Self::GooglePlay, Self::Inbound].into_iter().find(|k| k.name() == name)
    }
}

/// How a source fares. Its name is stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Nothing was heard yet.
    New,
    /// The last sweep was whole.
    Ok,
    /// The store is not answering, or not well.
    Degraded,
    /// The key is refused: the store's fault, or the key's.
    Suspect,
    /// The key is refused, and keeps being refused.
    Refused,
    /// The account holder has an agreement to accept.
    AgreementsMissing,
    /// The key may not read what is asked.
    RoleTooSmall,
    /// The store's clock and this machine's are too far apart for tokens to be safe.
    ClockSkewed,
}

impl Health {
    /// Its name in rows and entries.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Suspect => "suspect",
            Self::Refused => "refused",
            Self::AgreementsMissing => "agreements_missing",
            Self::RoleTooSmall => "role_too_small",
            Self::ClockSkewed => "clock_skewed",
        }
    }

    /// What there is to do about it, in words; none where there is nothing.
    #[must_use]
    pub const fn advice(self) -> Option<&'static str> {
        match self {
            Self::New | Self::Ok => None,
            Self::Degraded => {
                Some("Nothing to do: the store is asked again by itself, and what it says then is recorded.")
            }
            Self::Suspect => Some(
                "The store refuses the key. If it worked before, wait some minutes before you make a new one: that has \
                 happened to good keys. If it never did, compare its id and its issuer with the store's console.",
            ),
            Self::Refused => Some(
                "The store keeps refusing the key. Look in the store's console whether it was revoked or has expired, \
                 and whether its id and issuer are those given here; then give this source the right one, or a new one \
                 (`sources replace-key`).",
            ),
            Self::AgreementsMissing => Some(
                "The account holder has to accept an agreement in App Store Connect (Business). Until then the store \
                 answers no question.",
            ),
            Self::RoleTooSmall => Some(
                "Give the key a role that may read what is named (App Store Connect: Developer or App Manager; Google \
                 Play: \"View app information\"). A grant of Google's takes up to 24 hours.",
            ),
            Self::ClockSkewed => {
                Some("Set this machine's clock (NTP). The stores refuse tokens from the future or the past.")
            }
        }
    }
}

/// A source that cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is none of that id in the workspace.
    #[error("the source {0} does not exist")]
    Missing(SourceId),
    /// The name is empty, too long, or taken.
    #[error("{0}")]
    Name(String),
    /// The key or its settings are not usable.
    #[error("{0}")]
    Key(String),
    /// The key is of another account than the one before, or nobody can tell.
    #[error(
        "the key is not of the account whose apps this source knows, or does not tell: add it as a source of its own, \
         or say that it is meant (other_account)"
    )]
    OtherAccount,
    /// The secret cannot be sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
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

/// A source to be made: its secret (a store key, as the store gives it), and the settings that are no secret.
pub struct NewSource {
    /// What it is.
    pub kind: Kind,
    /// What people call it; unique in the workspace.
    pub name: String,
    /// Settings without secrets; sealed all the same, since an account's address is a person's at times.
    pub settings: serde_json::Value,
    /// The store key; none for a source that is only told.
    pub secret: Option<Zeroizing<Vec<u8>>>,
    /// What the store signs its own webhooks with.
    pub webhook_secret: Option<Zeroizing<Vec<u8>>>,
}

/// Seals a source's settings.
///
/// # Errors
/// If they are too long for a message of the cipher.
pub fn seal_settings(
    data_key: &DataKey,
    id: SourceId,
    settings: &serde_json::Value,
) -> Result<Vec<u8>, SealError> {
    SecretColumn::SourceSettings(id).seal(data_key, settings.to_string().as_bytes())
}

/// Opens a source's settings; of a deleted source there are none.
///
/// # Errors
/// If they were sealed for another source, or changed.
pub fn open_settings(
    data_key: &DataKey,
    id: SourceId,
    sealed: Option<&[u8]>,
) -> Result<serde_json::Value, SealError> {
    let Some(sealed) = sealed else { return Ok(serde_json::Value::Null) };
    let opened = SecretColumn::SourceSettings(id).open(data_key, sealed)?;
    Ok(serde_json::from_slice(&opened).unwrap_or_default())
}

/// Makes a source. An inbound one gets a token, returned this once and kept as a hash.
///
/// # Errors
/// If the name is out of bounds or taken; then nothing is made.
pub async fn create(
    writer: &Writer,
    act: &Act,
    workspace: WorkspaceId,
    new: NewSource,
) -> Result<(SourceId, Option<Zeroizing<String>>), Error> {
    let name = &new.name;
    if !name::is_name(name) {
        return Err(Error::Name(format!("a source's name has {}", name::RULE)));
    }
    let id = SourceId::new();
    let data_key = writer.data_keys().get(workspace).await.map_err(|e| match e {
        sealing::Error::Missing(w) => Error::Append(append::Error::NoWorkspace(w)),
        e => e.into(),
    })?;
    let sealed = match &new.secret {
        Some(secret) => Some(SecretColumn::SourceSecret(id).seal(&data_key, secret)?),
        None => None,
    };
    let fingerprint = match &new.secret {
        Some(secret) => Some(key::StoreKey::read(new.kind, secret)?.fingerprint(id)),
        None => None,
    };
    let sealed_webhook = match &new.webhook_secret {
        Some(secret) => Some(SecretColumn::SourceWebhookSecret(id).seal(&data_key, secret)?),
        None => None,
    };
    let sealed_settings = seal_settings(&data_key, id, &new.settings)?;
    let token = (new.kind == Kind::Inbound).then(|| new_token("sl_in", id.uuid()));
    let token_hash = token.as_ref().map(|t| hash_token(t));
    let polled = new.kind != Kind::Inbound && new.secret.is_some();
    let mut locked = writer.lock(workspace).await?;
    sqlx::query!(
        "INSERT INTO sources (workspace_id, source_id, kind, name, settings, secret, token_hash, next_poll_at, health,
                              webhook_secret, key_fingerprint, key_set_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, CASE WHEN $8 THEN now() END, CASE WHEN $8 THEN 'new' ELSE 'ok' END,
                 $9, $10, CASE WHEN $6::bytea IS NOT NULL THEN now() END)",
        workspace.uuid(),
        id.uuid(),
        new.kind.name(),
        name,
        sealed_settings,
        sealed,
        token_hash.as_ref().map(|h| &h[..]),
        polled,
        sealed_webhook,
        fingerprint.as_ref().map(|f| &f[..])
    )
    .execute(&mut **locked)
    .await
    .map_err(|e| match &e {
        sqlx::Error::Database(d) if d.constraint() == Some("sources_name_unique") => {
            Error::Name(format!("a source called \"{name}\" exists"))
        }
        _ => e.into(),
    })?;
    let mut data = Object::default();
    data.insert("kind".into(), Value::String(new.kind.name().into()));
    data.insert("source".into(), Value::String(id.to_string()));
    let made = serde_json::json!({
        "kind": new.kind.name(),
        "name": new.name,
        "webhook_secret_set": new.webhook_secret.is_some(),
        "rollout_by_edits": new.settings.get("rollout_by_edits"),
    });
    let record = act.of(Action::SourceCreated).target("source", id).changed("source", None, Some(&made));
    let sealed = vec![("name", Value::String(new.name))];
    let created = Draft::sealing("source.created", data, sealed)?.source(id);
    locked.append(&[created, record.draft()?]).await?;
    locked.commit().await?;
    Ok((id, token))
}

/// Removes a source: it is polled no more, its token is refused, its key is destroyed. What it said stays.
///
/// # Errors
/// If there is none.
pub async fn delete(writer: &Writer, act: &Act, workspace: WorkspaceId, id: SourceId) -> Result<(), Error> {
    let mut locked = writer.lock(workspace).await?;
    let found = sqlx::query!(
        "UPDATE sources SET deleted_at = now(), secret = NULL, webhook_secret = NULL, token_hash = NULL,
                key_fingerprint = NULL, next_poll_at = NULL, settings = NULL, access = NULL, health_detail = NULL,
                name = name || ' ' || source_id
          WHERE workspace_id = $1 AND source_id = $2 AND deleted_at IS NULL",
        workspace.uuid(),
        id.uuid()
    )
    .execute(&mut **locked)
    .await?
    .rows_affected();
    if found == 0 {
        return Err(Error::Missing(id));
    }
    // No node takes an event after this whose sender it knew before.
    locked.routes_changed().await?;
    let mut data = Object::default();
    data.insert("source".into(), Value::String(id.to_string()));
    let record = act.of(Action::SourceDeleted).target("source", id);
    locked.append(&[Draft::new("source.deleted", data)?.source(id), record.draft()?]).await?;
    locked.commit().await?;
    Ok(())
}

/// Sets, or with `None` destroys, what the store signs its own webhooks with.
///
/// # Errors
/// If there is no such source, or it is none of a store that has webhooks.
pub async fn set_webhook_secret(
    writer: &Writer,
    act: &Act,
    workspace: WorkspaceId,
    id: SourceId,
    secret: Option<&[u8]>,
) -> Result<(), Error> {
    let data_key = writer.data_keys().get(workspace).await.map_err(|e| match e {
        sealing::Error::Missing(w) => Error::Append(append::Error::NoWorkspace(w)),
        e => e.into(),
    })?;
    let sealed = match secret {
        Some(secret) => Some(SecretColumn::SourceWebhookSecret(id).seal(&data_key, secret)?),
        None => None,
    };
    let mut locked = writer.lock(workspace).await?;
    let before = sqlx::query!(
        r#"SELECT kind, webhook_secret IS NOT NULL AS "set!" FROM sources
            WHERE workspace_id = $1 AND source_id = $2 AND deleted_at IS NULL"#,
        workspace.uuid(),
        id.uuid()
    )
    .fetch_optional(&mut **locked)
    .await?
    .ok_or(Error::Missing(id))?;
    sqlx::query!(
        "UPDATE sources SET webhook_secret = $3 WHERE workspace_id = $1 AND source_id = $2",
        workspace.uuid(),
        id.uuid(),
        sealed
    )
    .execute(&mut **locked)
    .await?;
    if before.kind != Kind::AppStore.name() {
        return Err(Error::Key("only a source of kind app_store has webhooks of the store's own".into()));
    }
    let mut data = Object::default();
    data.insert("source".into(), Value::String(id.to_string()));
    data.insert(
        "webhook_secret".into(),
        Value::String(if secret.is_some() { "set" } else { "removed" }.into()),
    );
    let was = serde_json::json!({ "webhook_secret_set": before.set });
    let is = serde_json::json!({ "webhook_secret_set": secret.is_some() });
    // Another secret for the one before is a change that no field shows.
    let record = act.of(Action::SourceUpdated).target("source", id).changed("source", Some(&was), Some(&is));
    locked.append(&[Draft::new("source.changed", data)?.source(id), record.draft()?]).await?;
    locked.commit().await?;
    Ok(())
}

/// Records that somebody asked for a look at once.
///
/// # Errors
/// If the database does not confirm.
pub async fn record_look(
    writer: &Writer,
    act: &Act,
    workspace: WorkspaceId,
    id: SourceId,
) -> Result<(), Error> {
    let mut locked = writer.lock(workspace).await?;
    locked.append(&[act.of(Action::SourceLooked).target("source", id).draft()?.source(id)]).await?;
    locked.commit().await?;
    Ok(())
}

/// Sets how a source fares, with an entry where that is a change. `under` is the SHA-256 of the sealed key of which it
/// was found; none where it is not of one.
///
/// # Errors
/// If the database does not confirm; [`Error::Missing`] also where the source has another key by now.
pub async fn set_health(
    writer: &Writer,
    workspace: WorkspaceId,
    id: SourceId,
    health: Health,
    detail: Option<&str>,
    under: Option<[u8; 32]>,
) -> Result<bool, Error> {
    let mut locked = writer.lock(workspace).await?;
    let before = sqlx::query_scalar!(
        "SELECT health FROM sources
          WHERE workspace_id = $1 AND source_id = $2 AND deleted_at IS NULL
            AND ($3::bytea IS NULL OR sha256(secret) = $3) FOR UPDATE",
        workspace.uuid(),
        id.uuid(),
        under.as_ref().map(|u| &u[..])
    )
    .fetch_optional(&mut **locked)
    .await?
    .ok_or(Error::Missing(id))?;
    let same = before == health.name();
    sqlx::query!(
        "UPDATE sources SET health = $3, health_detail = $4 WHERE workspace_id = $1 AND source_id = $2",
        workspace.uuid(),
        id.uuid(),
        health.name(),
        detail
    )
    .execute(&mut **locked)
    .await?;
    // Other words to the same are kept and not told; and the first good round is what everybody expects.
    if same || (before == Health::New.name() && health == Health::Ok) {
        locked.commit().await?;
        return Ok(false);
    }
    let text = |s: &str| Value::String(s.to_owned());
    let mut data = Object::default();
    data.insert("advice".into(), health.advice().map_or(Value::Null, text));
    data.insert("detail".into(), detail.map_or(Value::Null, text));
    data.insert("from".into(), text(&before));
    data.insert("source".into(), text(&id.to_string()));
    data.insert("to".into(), text(health.name()));
    locked.append(&[Draft::new("source.health_changed", data)?.source(id)]).await?;
    locked.commit().await?;
    Ok(true)
}
