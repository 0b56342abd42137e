//! The key of a store's source: of which account it is, by what it is told from another, and how it is replaced in
//! place (`PUT …/sources/{source}/key`).
//!
//! What a source has said stays its own when its key is replaced, so the new key has to be of the same account: the same
//! issuer of App Store Connect, the same service account of Google's. Where it is not, or where the keys do not tell (an
//! individual key names nobody), the source keeps its key, unless it knows of nothing yet or whoever asks says that they
//! mean it. The key is read from the row under the head's lock by whoever records what it said, so that nothing that
//! was read with the old key is recorded after the entry that says that it was replaced.

use super::fetch::FetchOptions;
use super::poller::{access, fetch_options};
use super::{Error, Kind, app_store, google_play, http, open_settings, seal_settings};
use crate::access::{Access, needs};
use crate::audit::{Act, Action};
use crate::config::PollingSettings;
use crate::http::extract::{Body, InPath};
use crate::http::problem::Problem;
use crate::id::{SourceId, WorkspaceId};
use crate::ledger::append::{self, Locked};
use crate::ledger::{Draft, Writer};
use crate::sealing::{self, SecretColumn};
use axum::Json;
use axum::extract::State;
use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use sha2::Sha256;
use statusledger_keys::envelope::DataKey;
use statusledger_verify::json::{Object, Value};
use utoipa::ToSchema;
use zeroize::Zeroizing;

/// What a fingerprint is over, before the source and the key's names.
const FINGERPRINT: &[u8] = b"statusledger/v1/source-key";

/// Whose a key is, as far as the key itself says.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Account {
    /// A team of App Store Connect, by its issuer id.
    Issuer(String),
    /// Whoever an individual key belongs to: only the key's own id is known.
    Individual(String),
    /// A service account, by its address.
    Service(String),
}

/// A store key, read as far as it tells of itself.
pub struct StoreKey {
    account: Account,
    /// The key's own id, where it has one.
    id: String,
    /// Without white space: how a file's lines end makes no other key.
    private: Zeroizing<String>,
}

impl std::fmt::Debug for StoreKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreKey").field("account", &self.account).finish_non_exhaustive()
    }
}

impl StoreKey {
    /// Reads a key as it is kept: credentials of App Store Connect, or a service account file of Google's. Whether it
    /// can sign is not looked at.
    ///
    /// # Errors
    /// If it is neither.
    pub fn read(kind: Kind, secret: &[u8]) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Service {
            client_email: String,
            private_key_id: Option<String>,
            private_key: String,
        }
        // What the parser found there may be a part of the key.
        let damaged = |_: serde_json::Error| Error::Key("this is no key of the source's kind".into());
        let bare = |text: Zeroizing<String>| {
            Zeroizing::new(text.chars().filter(|c| !c.is_ascii_whitespace()).collect::<String>())
        };
        match kind {
            Kind::AppStore => {
                let credentials: app_store::Credentials = serde_json::from_slice(secret).map_err(damaged)?;
                let account = match &credentials.issuer_id {
                    Some(issuer) => Account::Issuer(issuer.to_ascii_lowercase()),
                    None => Account::Individual(credentials.key_id.clone()),
                };
                let private = bare(Zeroizing::new(credentials.private_key.clone()));
                Ok(Self { account, id: credentials.key_id.clone(), private })
            }
            Kind::GooglePlay => {
                let file: Service = serde_json::from_slice(secret).map_err(damaged)?;
                Ok(Self {
                    account: Account::Service(file.client_email.to_ascii_lowercase()),
                    id: file.private_key_id.unwrap_or_default(),
                    private: bare(Zeroizing::new(file.private_key)),
                })
            }
            Kind::Inbound => Err(Error::Key("an inbound source has a token and no key".into())),
        }
    }

    /// By what it is told from another of the same source: HMAC-SHA-256, keyed by the private key itself, over the
    /// source, the account and the key's id. Whoever has the key can make it, and nobody else can try: what it is keyed
    /// by are the 256 random bits, or more, of the key.
    #[must_use]
    pub fn fingerprint(&self, source: SourceId) -> [u8; 32] {
        let (kind, account) = match &self.account {
            Account::Issuer(issuer) => ("issuer", issuer),
            Account::Individual(key) => ("individual", key),
            Account::Service(email) => ("service", email),
        };
        let mut mac =
            Hmac::<Sha256>::new_from_slice(self.private.as_bytes()).expect("HMAC takes a key of any length");
        mac.update(FINGERPRINT);
        mac.update(source.uuid().as_bytes());
        for part in [kind, account, &self.id] {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part.as_bytes());
        }
        mac.finalize().into_bytes().into()
    }

    /// Whether both say that they are of one account.
    #[must_use]
    pub fn is_of_the_account_of(&self, other: &Self) -> bool {
        self.account == other.account
    }
}

/// A key in the place of the one before.
#[derive(Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum KeyRequest {
    /// An App Store Connect API key.
    AppStore {
        /// The key.
        credentials: app_store::Credentials,
        /// Takes it also where it is not of the account whose apps the source knows, or where that cannot be told.
        /// Default false.
        #[serde(default)]
        other_account: bool,
    },
    /// A Google Play service account.
    GooglePlay {
        /// The service account, as Google's JSON file has it.
        #[schema(value_type = Object)]
        service_account: serde_json::Value,
        /// Where the source reads rollouts: the account's `client_email`, as a sign that nothing else uses it. Without
        /// it the one of before stays.
        dedicated_account: Option<String>,
        /// As above.
        #[serde(default)]
        other_account: bool,
    },
}

/// A key that was given for a source.
pub struct GivenKey {
    kind: Kind,
    secret: Zeroizing<Vec<u8>>,
    dedicated_account: Option<String>,
    other_account: bool,
}

impl std::fmt::Debug for GivenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GivenKey").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl TryFrom<KeyRequest> for GivenKey {
    type Error = Error;
    fn try_from(request: KeyRequest) -> Result<Self, Error> {
        match request {
            KeyRequest::AppStore { credentials, other_account } => {
                let secret = serde_json::to_vec(&credentials).map_err(|e| Error::Key(e.to_string()))?;
                let secret = Zeroizing::new(secret);
                Ok(Self { kind: Kind::AppStore, secret, dedicated_account: None, other_account })
            }
            KeyRequest::GooglePlay { service_account, dedicated_account, other_account } => {
                let secret = Zeroizing::new(service_account.to_string().into_bytes());
                Ok(Self { kind: Kind::GooglePlay, secret, dedicated_account, other_account })
            }
        }
    }
}

impl GivenKey {
    /// Checks that a client can be made of it with the source's settings, as when a source is made.
    fn check(&self, settings: &serde_json::Value, options: FetchOptions) -> Result<(), Error> {
        let unusable = |e: super::fetch::StoreError| Error::Key(format!("the key is not usable: {e}"));
        let json = |e: serde_json::Error| Error::Key(e.to_string());
        match self.kind {
            Kind::AppStore => {
                let credentials = serde_json::from_slice(&self.secret).map_err(json)?;
                let settings = serde_json::from_value(settings.clone()).map_err(json)?;
                app_store::client(&credentials, &settings, options).map_err(unusable)?;
            }
            Kind::GooglePlay => {
                let account = std::str::from_utf8(&self.secret).map_err(|e| Error::Key(e.to_string()))?;
                let settings = serde_json::from_value(settings.clone()).map_err(json)?;
                google_play::client(account, &settings, options).map_err(unusable)?;
            }
            Kind::Inbound => return Err(Error::Key("an inbound source has a token and no key".into())),
        }
        Ok(())
    }
}

/// Gives a source another key. Its polls are due at once under the new key, whatever the old one was refused. The key
/// that it has already changes nothing, and false is given.
///
/// # Errors
/// If there is no such source, the key is not usable, or of another account than the one before and nobody said that it
/// may be; then nothing is changed.
pub async fn replace(
    writer: &Writer,
    act: &Act,
    workspace: WorkspaceId,
    id: SourceId,
    given: &GivenKey,
    options: FetchOptions,
) -> Result<bool, Error> {
    let data_key = writer.data_keys().get(workspace).await.map_err(|e| match e {
        sealing::Error::Missing(w) => Error::Append(append::Error::NoWorkspace(w)),
        e => e.into(),
    })?;
    let mut locked = writer.lock(workspace).await?;
    let row = sqlx::query!(
        r#"SELECT kind, settings, secret,
                  EXISTS (SELECT FROM subjects s WHERE s.workspace_id = $1 AND s.source_id = $2) AS "knows!"
             FROM sources WHERE workspace_id = $1 AND source_id = $2 AND deleted_at IS NULL FOR UPDATE"#,
        workspace.uuid(),
        id.uuid()
    )
    .fetch_optional(&mut **locked)
    .await?
    .ok_or(Error::Missing(id))?;
    if row.kind != given.kind.name() {
        return Err(Error::Key(format!("the source is of the kind {}", row.kind)));
    }
    let known = open_settings(&data_key, id, row.settings.as_deref())?;
    let mut settings = known.clone();
    if let Some(dedicated) = &given.dedicated_account {
        settings["dedicated_account"] = dedicated.clone().into();
    }
    given.check(&settings, options)?;
    let new = StoreKey::read(given.kind, &given.secret)?;
    let before = row.secret.as_ref().map(|sealed| opened(&data_key, given.kind, id, sealed)).transpose()?;
    let fingerprint = new.fingerprint(id);
    if before.as_ref().is_some_and(|before| before.fingerprint(id) == fingerprint) && settings == known {
        locked.check(act.terms()).await?;
        return Ok(false);
    }
    let same = before.as_ref().is_some_and(|before| new.is_of_the_account_of(before));
    if row.knows && !same && !given.other_account {
        return Err(Error::OtherAccount);
    }
    sqlx::query!(
        "UPDATE sources SET secret = $3, settings = $4, key_fingerprint = $5, key_set_at = now(), next_poll_at = now(),
                access = NULL, rate_limit = NULL, rate_remaining = NULL, rate_at = NULL,
                health = CASE WHEN secret IS NULL THEN 'new' ELSE health END
          WHERE workspace_id = $1 AND source_id = $2",
        workspace.uuid(),
        id.uuid(),
        SecretColumn::SourceSecret(id).seal(&data_key, &given.secret)?,
        seal_settings(&data_key, id, &settings)?,
        &fingerprint
    )
    .execute(&mut **locked)
    .await?;
    plan_anew(&mut locked, id, same).await?;
    let how = if before.is_some() { "replaced" } else { "set" };
    let mut data = Object::default();
    data.insert("key".into(), Value::String(how.into()));
    data.insert("source".into(), Value::String(id.to_string()));
    let record = act
        .of(Action::SourceUpdated)
        .target("source", id)
        .detail("key", Value::String(how.into()))
        .detail("same_account", Value::Bool(same));
    locked.append(&[Draft::new("source.changed", data)?.source(id), record.draft()?]).await?;
    locked.commit().await?;
    Ok(true)
}

fn opened(data_key: &DataKey, kind: Kind, id: SourceId, sealed: &[u8]) -> Result<StoreKey, Error> {
    StoreKey::read(kind, &SecretColumn::SourceSecret(id).open(data_key, sealed)?)
}

/// What the old key was refused, the new one may be granted; and what another account has is asked for from the beginning.
async fn plan_anew(locked: &mut Locked, id: SourceId, same: bool) -> Result<(), Error> {
    let workspace = locked.workspace().uuid();
    if same {
        sqlx::query!(
            "UPDATE polls SET due_at = now(), refused = NULL, failures = 0
              WHERE workspace_id = $1 AND source_id = $2",
            workspace,
            id.uuid()
        )
        .execute(&mut ***locked)
        .await?;
    } else {
        sqlx::query!("DELETE FROM polls WHERE workspace_id = $1 AND source_id = $2", workspace, id.uuid())
            .execute(&mut ***locked)
            .await?;
    }
    Ok(())
}

/// Gives a source of a store another key in the place of the one that it has, or its first. It is checked as when a source
/// is made, kept encrypted and never shown; the store is asked with it from then on. A key of another account than the
/// one whose apps the source knows is refused (409), unless `other_account` says that it is meant.
#[utoipa::path(put, path = "/v1/workspaces/{workspace}/sources/{source}/key", tag = "sources",
    security(("token" = []), ("session" = [])),
    params(("workspace" = String, Path, description = "The workspace's id"), ("source" = String, Path)),
    request_body = KeyRequest,
    responses((status = 200, body = http::Source),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
pub async fn set_key(
    access: Access<needs::SourcesWrite>,
    State(writer): State<Writer>,
    State(polling): State<PollingSettings>,
    InPath((workspace, id)): InPath<(WorkspaceId, SourceId)>,
    Body(request): Body<KeyRequest>,
) -> Result<Json<http::Source>, Problem> {
    let given = GivenKey::try_from(request)?;
    let changed = replace(&writer, &access.act(), workspace, id, &given, fetch_options(&polling)).await?;
    // The key is kept; what the store says to it now is a report and no condition.
    if changed && let Err(e) = access::try_reads(writer.database(), &writer, &polling, workspace, id).await {
        tracing::warn!(source = %id, error = %e, "the reads of a new key could not be tried");
    }
    Ok(Json(http::one(writer.database(), workspace, id).await?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn apple(key_id: &str, issuer: Option<&str>, private: &str) -> StoreKey {
        let credentials =
            serde_json::json!({ "key_id": key_id, "issuer_id": issuer, "private_key": private });
        StoreKey::read(Kind::AppStore, credentials.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_fingerprint_is_of_this_key_for_this_source() {
        let (one, two) = (SourceId::new(), SourceId::new());
        let key = apple("K1", Some("team"), "BEGIN\nabc\nEND\n");
        let same = apple("K1", Some("team"), "BEGIN\r\nabc\r\nEND");
        assert_eq!(key.fingerprint(one), same.fingerprint(one), "line ends are not the key's");
        assert_ne!(key.fingerprint(one), key.fingerprint(two));
        for other in [
            apple("K2", Some("team"), "BEGIN\nabc\nEND\n"),
            apple("K1", Some("other"), "BEGIN\nabc\nEND\n"),
            apple("K1", None, "BEGIN\nabc\nEND\n"),
            apple("K1", Some("team"), "BEGIN\nabd\nEND\n"),
        ] {
            assert_ne!(key.fingerprint(one), other.fingerprint(one));
        }
    }

    #[test]
    fn keys_are_of_one_account_where_both_say_so() {
        let team = apple("K1", Some("57246542-AAAA"), "a");
        assert!(team.is_of_the_account_of(&apple("K2", Some("57246542-aaaa"), "b")));
        assert!(!team.is_of_the_account_of(&apple("K1", Some("other"), "a")));
        let individual = apple("K1", None, "a");
        assert!(individual.is_of_the_account_of(&apple("K1", None, "b")));
        assert!(
            !individual.is_of_the_account_of(&apple("K2", None, "a"))
                && !team.is_of_the_account_of(&individual)
        );
        let google = |email: &str| {
            let file = serde_json::json!({ "client_email": email, "private_key": "a", "token_uri": "x" });
            StoreKey::read(Kind::GooglePlay, file.to_string().as_bytes()).unwrap()
        };
        assert!(google("a@x").is_of_the_account_of(&google("A@x")));
        assert!(!google("a@x").is_of_the_account_of(&google("b@x")));
        assert!(
            StoreKey::read(Kind::GooglePlay, b"{\"private_key\":\"MARK\"")
                .is_err_and(|e| !e.to_string().contains("MARK"))
        );
    }
}
