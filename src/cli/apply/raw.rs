//! The file as it is written: what TOML there is, and what of it belongs together.

use super::file::{Destination, Keys, Place, Source};
use super::spots::Spots;
use crate::delivery::routes::{Filter, FilterError};
use crate::source::Kind;
use anyhow::{Context, Result, anyhow};
use serde::Deserialize;
use serde_json::Value;
use std::path::{Path, PathBuf};
use toml::Spanned;

/// The TOML.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    pub(super) workspace: Option<String>,
    #[serde(default)]
    pub(super) prune: bool,
    #[serde(default, rename = "source")]
    pub(super) sources: Vec<RawSource>,
    #[serde(default, rename = "destination")]
    pub(super) destinations: Vec<RawDestination>,
}

/// A source: the members of every kind, so that each error knows its place.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSource {
    pub(super) name: Spanned<String>,
    kind: Kind,
    key_id: Option<String>,
    issuer_id: Option<String>,
    private_key_file: Option<PathBuf>,
    private_key_env: Option<String>,
    webhook_secret_file: Option<PathBuf>,
    webhook_secret_env: Option<String>,
    base_url: Option<String>,
    service_account_file: Option<PathBuf>,
    service_account_env: Option<String>,
    publisher_url: Option<String>,
    reporting_url: Option<String>,
    rollout_by_edits: Option<bool>,
    dedicated_account: Option<String>,
    token_file: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDestination {
    pub(super) name: Spanned<String>,
    url: Option<String>,
    url_file: Option<PathBuf>,
    url_env: Option<String>,
    #[serde(default)]
    filter: RawFilter,
    openings: Option<bool>,
    max_in_flight: Option<i32>,
    enabled: Option<bool>,
    secret_file: Option<PathBuf>,
}

/// What a destination wants; sources by name.
#[derive(Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawFilter {
    types: Vec<String>,
    apps: Vec<String>,
    sources: Vec<String>,
    first_seen: bool,
}

impl RawSource {
    /// Which members are given that are not those of its kind.
    fn strange(&self) -> Option<&'static str> {
        let given = [
            ("key_id", self.key_id.is_some(), Kind::AppStore),
            ("issuer_id", self.issuer_id.is_some(), Kind::AppStore),
            ("private_key_file", self.private_key_file.is_some(), Kind::AppStore),
            ("private_key_env", self.private_key_env.is_some(), Kind::AppStore),
            ("webhook_secret_file", self.webhook_secret_file.is_some(), Kind::AppStore),
            ("webhook_secret_env", self.webhook_secret_env.is_some(), Kind::AppStore),
            ("base_url", self.base_url.is_some(), Kind::AppStore),
            ("service_account_file", self.service_account_file.is_some(), Kind::GooglePlay),
            ("service_account_env", self.service_account_env.is_some(), Kind::GooglePlay),
            ("publisher_url", self.publisher_url.is_some(), Kind::GooglePlay),
            ("reporting_url", self.reporting_url.is_some(), Kind::GooglePlay),
            ("rollout_by_edits", self.rollout_by_edits.is_some(), Kind::GooglePlay),
            ("dedicated_account", self.dedicated_account.is_some(), Kind::GooglePlay),
            ("token_file", self.token_file.is_some(), Kind::Inbound),
        ];
        given.into_iter().find(|(_, given, of)| *given && *of != self.kind).map(|(name, _, _)| name)
    }

    /// It as it is to be.
    pub(super) fn source(self, spots: Spots, beside: &Path) -> Result<Source> {
        if let Some(member) = self.strange() {
            let kind = self.kind.name();
            return Err(anyhow!("a source of the kind {kind} has no {member}")).context(spots.of(member));
        }
        let keys = match self.kind {
            Kind::AppStore => {
                let private =
                    Place::of("private_key", self.private_key_file, self.private_key_env, beside, &spots)?;
                let key = match (private, self.key_id) {
                    (Some(place), Some(id)) => Some((id, self.issuer_id, place)),
                    (None, None) if self.issuer_id.is_none() => None,
                    _ => {
                        let given = ["key_id", "private_key_file", "private_key_env", "issuer_id"];
                        return Err(anyhow!("key_id and private_key_file (or private_key_env) go together"))
                            .context(spots.first_of(&given));
                    }
                };
                let webhook_secret = Place::of(
                    "webhook_secret",
                    self.webhook_secret_file,
                    self.webhook_secret_env,
                    beside,
                    &spots,
                )?;
                if key.is_none() && webhook_secret.is_none() {
                    let needs = "a source of this kind needs key_id and private_key_file, webhook_secret_file, or both";
                    return Err(anyhow!(needs)).context(spots.name());
                }
                Keys::AppStore { key, webhook_secret, base_url: self.base_url }
            }
            Kind::GooglePlay => {
                let account = Place::of(
                    "service_account",
                    self.service_account_file,
                    self.service_account_env,
                    beside,
                    &spots,
                )?
                .context("a source of this kind needs service_account_file or service_account_env")
                .with_context(|| spots.name())?;
                let settings = [
                    ("publisher_url", self.publisher_url.map(Value::from)),
                    ("reporting_url", self.reporting_url.map(Value::from)),
                    ("rollout_by_edits", self.rollout_by_edits.map(Value::from)),
                    ("dedicated_account", self.dedicated_account.map(Value::from)),
                ];
                let settings =
                    settings.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
                Keys::GooglePlay { account, settings }
            }
            Kind::Inbound => {
                let file = self
                    .token_file
                    .context("a source of this kind needs token_file: its token is shown once")
                    .with_context(|| spots.name())?;
                Keys::Inbound { token_file: beside.join(file) }
            }
        };
        Ok(Source { name: self.name.into_inner(), spots, kind: self.kind, keys })
    }
}

impl RawDestination {
    /// It as it is to be.
    pub(super) fn destination(self, spots: Spots, beside: &Path) -> Result<Destination> {
        let elsewhere = Place::of("url", self.url_file, self.url_env, beside, &spots)?;
        let url_is_secret = elsewhere.is_some();
        let of_url = spots.first_of(&["url", "url_file", "url_env"]);
        let url = match (self.url, elsewhere) {
            (Some(url), None) => url,
            // An address is compared each time, and so it is read each time.
            (None, Some(place)) => {
                place.read_line("address").with_context(|| of_url.clone())?.as_str().to_owned()
            }
            (given, _) => {
                // Of two the second, which is one too many.
                let at =
                    if given.is_some() { spots.first_of(&["url_file", "url_env"]) } else { spots.name() };
                return Err(anyhow!("a destination has one of url, url_file and url_env")).context(at);
            }
        };
        // As it is kept: what is the same address is no change.
        let url = match url::Url::parse(&url) {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => String::from(url),
            _ => {
                return Err(anyhow!("the address is not one like https://example.com/hook")).context(of_url);
            }
        };
        let max_in_flight = self.max_in_flight.unwrap_or(1);
        if !(1..=256).contains(&max_in_flight) {
            return Err(anyhow!("max_in_flight is 1 to 256")).context(spots.of("max_in_flight"));
        }
        let RawFilter { types, apps, sources, first_seen } = self.filter;
        let filter = Filter { types, apps, sources: Vec::new(), first_seen };
        if let Err(e) = filter.check() {
            let at = match &e {
                FilterError::Type(i) => spots.of(&format!("filter.types[{i}]")),
                FilterError::App(i) => spots.of(&format!("filter.apps[{i}]")),
                FilterError::TooMany if filter.types.len() > filter.apps.len() => spots.of("filter.types"),
                FilterError::TooMany => spots.of("filter.apps"),
                FilterError::TooLong(_) => spots.of("filter"),
            };
            return Err(e).context(at);
        }
        Ok(Destination {
            name: self.name.into_inner(),
            spots,
            url,
            url_is_secret,
            filter,
            sources,
            openings: self.openings,
            max_in_flight,
            enabled: self.enabled,
            secret_file: self.secret_file.map(|file| beside.join(file)),
        })
    }
}
