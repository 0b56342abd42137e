//! The file as it is written: what TOML there is, and what of it belongs together.

use super::file::{Destination, Keys, Place, Source};
use crate::delivery::routes::Filter;
use crate::source::Kind;
use anyhow::{Context, Result, bail};
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
    pub(super) fn source(self, at: String, beside: &Path) -> Result<Source> {
        if let Some(member) = self.strange() {
            bail!("a source of the kind {} has no {member}", self.kind.name());
        }
        let keys = match self.kind {
            Kind::AppStore => {
                let private = Place::of("private_key", self.private_key_file, self.private_key_env, beside)?;
                let key = match (private, self.key_id) {
                    (Some(place), Some(id)) => Some((id, self.issuer_id, place)),
                    (None, None) if self.issuer_id.is_none() => None,
                    _ => bail!("key_id and private_key_file (or private_key_env) go together"),
                };
                let webhook_secret =
                    Place::of("webhook_secret", self.webhook_secret_file, self.webhook_secret_env, beside)?;
                if key.is_none() && webhook_secret.is_none() {
                    bail!(
                        "a source of this kind needs key_id and private_key_file, webhook_secret_file, or both"
                    );
                }
                Keys::AppStore { key, webhook_secret, base_url: self.base_url }
            }
            Kind::GooglePlay => {
                let account = Place::of(
                    "service_account",
                    self.service_account_file,
                    self.service_account_env,
                    beside,
                )?
                .context("a source of this kind needs service_account_file or service_account_env")?;
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
                    .context("a source of this kind needs token_file: its token is shown once")?;
                Keys::Inbound { token_file: beside.join(file) }
            }
        };
        Ok(Source { name: self.name.into_inner(), at, kind: self.kind, keys })
    }
}

impl RawDestination {
    /// It as it is to be.
    pub(super) fn destination(self, at: String, beside: &Path) -> Result<Destination> {
        let elsewhere = Place::of("url", self.url_file, self.url_env, beside)?;
        let url_is_secret = elsewhere.is_some();
        let url = match (self.url, elsewhere) {
            (Some(url), None) => url,
            // An address is compared each time, and so it is read each time.
            (None, Some(place)) => place.read_line("address")?.as_str().to_owned(),
            _ => bail!("a destination has one of url, url_file and url_env"),
        };
        // As it is kept: what is the same address is no change.
        let url = match url::Url::parse(&url) {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => String::from(url),
            _ => bail!("the address is not one like https://example.com/hook"),
        };
        let max_in_flight = self.max_in_flight.unwrap_or(1);
        if !(1..=256).contains(&max_in_flight) {
            bail!("max_in_flight is 1 to 256");
        }
        let RawFilter { types, apps, sources, first_seen } = self.filter;
        let filter = Filter { types, apps, sources: Vec::new(), first_seen };
        filter.check()?;
        Ok(Destination {
            name: self.name.into_inner(),
            at,
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
