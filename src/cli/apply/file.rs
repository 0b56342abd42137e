//! The file that `apply` reads: what a workspace's sources and destinations are to be. It holds no secret, only where
//! each lies.
//!
//! Read in two steps: the TOML as it stands, where an unknown member is refused at its place, and then [`Wanted`],
//! where what belongs together is together. Nothing that it names is read before it is needed: who changes a
//! destination need not have the store's key.

use super::raw::Raw;
use super::spots::{Spots, line_and_column};
use crate::cli::manage::secret;
use crate::cli::terminal::clean;
use crate::config::Settings;
use crate::delivery::routes::Filter;
use crate::id::SourceId;
use crate::name;
use crate::source::Kind;
use crate::source::fetch::FetchOptions;
use crate::source::key::StoreKey;
use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use toml::Spanned;
use zeroize::Zeroizing;

/// Where a secret lies.
#[derive(Clone, Debug)]
pub enum Place {
    /// In a file.
    File(PathBuf),
    /// In a variable of the environment.
    Variable(String),
}

impl Place {
    /// One of two members, or none.
    pub(super) fn of(
        what: &str,
        file: Option<PathBuf>,
        variable: Option<String>,
        beside: &Path,
        spots: &Spots,
    ) -> Result<Option<Self>> {
        match (file, variable) {
            (Some(_), Some(_)) => Err(anyhow!("{what}_file and {what}_env are both given"))
                .with_context(|| spots.of(&format!("{what}_env"))),
            (Some(file), None) => Ok(Some(Self::File(beside.join(file)))),
            (None, variable) => Ok(variable.map(Self::Variable)),
        }
    }

    /// Whether anything lies there.
    fn is_there(&self) -> bool {
        match self {
            Self::File(file) => !matches!(file.try_exists(), Ok(false)),
            Self::Variable(name) => std::env::var_os(name).is_some_and(|text| !text.is_empty()),
        }
    }

    /// The text that lies there.
    fn read(&self, what: &str) -> Result<Zeroizing<String>> {
        match self {
            Self::File(file) => secret::read(what, file),
            Self::Variable(name) => std::env::var(name)
                .ok()
                .filter(|text| !text.trim().is_empty())
                .map(Zeroizing::new)
                .ok_or_else(|| anyhow!("the {what} is not in the variable {name}")),
        }
    }

    /// The same, for what is one line.
    pub(super) fn read_line(&self, what: &str) -> Result<Zeroizing<String>> {
        let text = self.read(what)?;
        Ok(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned()))
    }
}

/// What makes a source of its kind.
#[derive(Clone, Debug)]
pub enum Keys {
    /// App Store Connect.
    AppStore {
        /// The key's id, the team's issuer id and the private key; none where the store only tells.
        key: Option<(String, Option<String>, Place)>,
        /// What its webhooks are signed with.
        webhook_secret: Option<Place>,
        /// Another address of the store.
        base_url: Option<String>,
    },
    /// Google Play.
    GooglePlay {
        /// The service account.
        account: Place,
        /// What else the API takes of it.
        settings: Vec<(&'static str, Value)>,
    },
    /// Inbound.
    Inbound {
        /// Where its token goes.
        token_file: PathBuf,
    },
}

/// A source as it is to be.
#[derive(Clone, Debug)]
pub struct Source {
    /// What it is called.
    pub name: String,
    /// Where the file says so.
    pub spots: Spots,
    /// What it is.
    pub kind: Kind,
    /// What makes it one.
    pub keys: Keys,
}

/// A destination as it is to be.
#[derive(Clone, Debug)]
pub struct Destination {
    /// What it is called.
    pub name: String,
    /// Where the file says so.
    pub spots: Spots,
    /// Where to.
    pub url: String,
    /// Whether the address came from elsewhere and is not to be shown.
    pub url_is_secret: bool,
    /// What it wants, but for the sources.
    pub filter: Filter,
    /// The sources that it wants, by name.
    pub sources: Vec<String>,
    /// Whether notifications carry openings; none leaves that as it is, and where it is made, to the API: whether whoever
    /// applies it may take openings away.
    pub openings: Option<bool>,
    /// Attempts at once.
    pub max_in_flight: i32,
    /// Whether it takes notifications; none leaves that as it is.
    pub enabled: Option<bool>,
    /// Where its secret goes.
    pub secret_file: Option<PathBuf>,
}

/// What a workspace is to be.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// SHA-256 of the file's bytes, hexadecimal.
    pub sha256: String,
    /// Which workspace.
    pub workspace: Option<String>,
    /// Whether what is not named goes.
    pub prune: bool,
    /// Its sources.
    pub sources: Vec<Source>,
    /// Its destinations.
    pub destinations: Vec<Destination>,
}

/// Reads `file`.
///
/// # Errors
/// With the place in the file where it is wrong.
pub fn read(file: &Path) -> Result<Wanted> {
    let shown = file.display();
    let text = std::fs::read_to_string(file)
        .map_err(|e| anyhow!("cannot read {shown}: {}", crate::cli::remote::system(&e)))?;
    let raw: Raw = toml::from_str(&text).map_err(|e| {
        if let Some(setting) = setting(&text) {
            return anyhow!(
                "{shown} seems to be the service's settings file (`{setting}` is a setting), which `--config` takes; \
                 `apply` takes a file of a workspace's sources and destinations (docs/operations.md, \"Configuration in \
                 a file\")"
            );
        }
        let (line, column) = line_and_column(&text, e.span().map_or(0, |span| span.start));
        // It has words of the file in it, which somebody else may have written.
        anyhow!("{shown}:{line}:{column}: {}", clean(&e.message().trim().replace('\n', "; ")))
    })?;
    let beside = file.parent().unwrap_or(Path::new("")).to_owned();
    let spots =
        |list: &str, index: usize, name: &Spanned<String>| Spots::new(file, &text, list, index, name.span());
    let mut wanted = Wanted {
        sha256: crate::ledger::hex(&Sha256::digest(text.as_bytes())),
        workspace: raw.workspace,
        prune: raw.prune,
        sources: Vec::with_capacity(raw.sources.len()),
        destinations: Vec::with_capacity(raw.destinations.len()),
    };
    let mut names = HashSet::new();
    for (i, raw) in raw.sources.into_iter().enumerate() {
        let spots = spots("source", i, &raw.name)?;
        let at = spots.name();
        let source = raw.source(spots, &beside)?;
        check_name(&source.name).with_context(|| at.clone())?;
        if !names.insert(source.name.clone()) {
            bail!("{at}: two sources are called \"{}\"", source.name);
        }
        wanted.sources.push(source);
    }
    names.clear();
    for (i, raw) in raw.destinations.into_iter().enumerate() {
        let spots = spots("destination", i, &raw.name)?;
        let at = spots.name();
        let destination = raw.destination(spots, &beside)?;
        check_name(&destination.name).with_context(|| at.clone())?;
        if !names.insert(destination.name.clone()) {
            bail!("{at}: two destinations are called \"{}\"", destination.name);
        }
        wanted.destinations.push(destination);
    }
    Ok(wanted)
}

/// A setting of the service that the text has, where it has nothing of a workspace's.
fn setting(text: &str) -> Option<String> {
    let has: toml::Table = toml::from_str(text).ok()?;
    if ["workspace", "prune", "source", "destination"].iter().any(|member| has.contains_key(*member)) {
        return None;
    }
    let settings = serde_json::to_value(Settings::default()).ok()?;
    has.into_iter().map(|(name, _)| name).find(|name| settings.get(name).is_some())
}

fn check_name(name: &str) -> Result<()> {
    if !name::is_name(name) {
        bail!("a name has {}", name::RULE);
    }
    Ok(())
}

impl Source {
    /// Whether the file names a store's key for it.
    #[must_use]
    pub const fn has_key(&self) -> bool {
        matches!(self.keys, Keys::AppStore { key: Some(_), .. } | Keys::GooglePlay { .. })
    }

    /// Whether the file names what its webhooks are signed with.
    #[must_use]
    pub const fn has_webhook_secret(&self) -> bool {
        matches!(self.keys, Keys::AppStore { webhook_secret: Some(_), .. })
    }

    /// Reads its secrets and makes the request that adds it; a key that cannot be one is refused here.
    ///
    /// # Errors
    /// If a secret cannot be read or used.
    pub fn request(&self) -> Result<Value> {
        let mut request = json!({ "kind": self.kind.name(), "name": self.name });
        match &self.keys {
            Keys::AppStore { key, base_url, .. } => {
                if let Some(key) = key {
                    request["credentials"] = self.credentials(key, base_url.as_ref())?;
                }
                if let Some(secret) = self.webhook_secret()? {
                    request["webhook_secret"] = secret.as_str().into();
                }
                if let Some(url) = base_url {
                    request["base_url"] = url.clone().into();
                }
            }
            Keys::GooglePlay { account, settings } => {
                request["service_account"] = self.service_account(account, settings)?;
                for (name, value) in settings {
                    request[*name] = value.clone();
                }
            }
            Keys::Inbound { .. } => {}
        }
        Ok(request)
    }

    /// Reads its key and makes the request that gives it to the source in the place of another; a key that cannot be
    /// one is refused here. None: the file names no key.
    ///
    /// # Errors
    /// If it cannot be read or used.
    pub fn key_request(&self, other_account: bool) -> Result<Option<Value>> {
        let mut request = match &self.keys {
            Keys::AppStore { key: Some(key), base_url, .. } => {
                json!({ "kind": "app_store", "credentials": self.credentials(key, base_url.as_ref())? })
            }
            Keys::GooglePlay { account, settings } => {
                let account = self.service_account(account, settings)?;
                let dedicated = settings.iter().find(|(name, _)| *name == "dedicated_account");
                json!({
                    "kind": "google_play",
                    "service_account": account,
                    "dedicated_account": dedicated.map(|(_, email)| email),
                })
            }
            Keys::AppStore { key: None, .. } | Keys::Inbound { .. } => return Ok(None),
        };
        request["other_account"] = other_account.into();
        Ok(Some(request))
    }

    /// The fingerprint that the source would have with the file's key. None: there is no key where the file says, and
    /// nothing to compare.
    ///
    /// # Errors
    /// If what is there cannot be read or used.
    pub fn fingerprint(&self, id: SourceId) -> Result<Option<String>> {
        let place = match &self.keys {
            Keys::AppStore { key: Some((_, _, place)), .. } => place,
            Keys::GooglePlay { account, .. } => account,
            Keys::AppStore { key: None, .. } | Keys::Inbound { .. } => return Ok(None),
        };
        if !place.is_there() {
            return Ok(None);
        }
        let Some(request) = self.key_request(false)? else { return Ok(None) };
        let member = if self.kind == Kind::AppStore { "credentials" } else { "service_account" };
        let secret = Zeroizing::new(serde_json::to_vec(&request[member])?);
        Ok(Some(crate::ledger::hex(&StoreKey::read(self.kind, &secret)?.fingerprint(id))))
    }

    /// What its webhooks are signed with, if the file names it.
    ///
    /// # Errors
    /// If it cannot be read, or is out of bounds.
    pub fn webhook_secret(&self) -> Result<Option<Zeroizing<String>>> {
        let Keys::AppStore { webhook_secret: Some(place), .. } = &self.keys else { return Ok(None) };
        let at = || self.spots.first_of(&["webhook_secret_file", "webhook_secret_env"]);
        let secret = place.read_line("webhook secret").with_context(at)?;
        if !(8..=255).contains(&secret.len()) {
            return Err(anyhow!("a webhook secret has 8 to 255 bytes")).with_context(at);
        }
        Ok(Some(secret))
    }

    /// Credentials as the API takes them.
    fn credentials(&self, key: &(String, Option<String>, Place), base_url: Option<&String>) -> Result<Value> {
        credentials(key, base_url)
            .with_context(|| self.spots.first_of(&["private_key_file", "private_key_env"]))
    }

    /// A service account as the API takes it.
    fn service_account(&self, place: &Place, settings: &[(&'static str, Value)]) -> Result<Value> {
        service_account(place, settings)
            .with_context(|| self.spots.first_of(&["service_account_file", "service_account_env"]))
    }
}

/// Credentials as the API takes them.
fn credentials(key: &(String, Option<String>, Place), base_url: Option<&String>) -> Result<Value> {
    let (key_id, issuer_id, place) = key;
    let private_key = place.read("private key")?;
    let credentials =
        json!({ "key_id": key_id, "issuer_id": issuer_id, "private_key": private_key.as_str() });
    check_app_store(&credentials, base_url.cloned())?;
    Ok(credentials)
}

/// A service account as the API takes it.
fn service_account(place: &Place, settings: &[(&'static str, Value)]) -> Result<Value> {
    let text = place.read("service account")?;
    // What the parser found there may be a part of the key: only where it is, is told.
    let account: Value = serde_json::from_str(&text)
        .map_err(|e| anyhow!("line {}, column {}", e.line(), e.column()))
        .context("the service account is not the JSON that Google gave")?;
    check_google_play(&text, settings)?;
    Ok(account)
}

/// Refuses a key that the instance would refuse.
fn check_app_store(credentials: &Value, base_url: Option<String>) -> Result<()> {
    use crate::source::app_store;
    let credentials = app_store::Credentials::deserialize(credentials)?;
    let settings = app_store::StoreSettings { base_url };
    app_store::client(&credentials, &settings, options())
        .map_err(|e| anyhow!("the key is not usable: {e}"))?;
    Ok(())
}

/// The same for a service account.
fn check_google_play(account: &str, settings: &[(&'static str, Value)]) -> Result<()> {
    use crate::source::google_play;
    let settings: Map<String, Value> =
        settings.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    let settings = google_play::StoreSettings::deserialize(Value::Object(settings))?;
    google_play::client(account, &settings, options()).map_err(|e| anyhow!("the key is not usable: {e}"))?;
    Ok(())
}

/// Which addresses are allowed is the instance's to say.
fn options() -> FetchOptions {
    FetchOptions { allow_insecure_hosts: true, ..FetchOptions::default() }
}
