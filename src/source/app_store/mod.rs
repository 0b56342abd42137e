//! App Store Connect: what its API says about everything that has a status, read and never written.
//!
//! [`mod@client`] asks, and [`client::Request`] is all that it can ask; [`looks`] makes observations of the answers, a poll
//! at a time; [`mod@direct`] asks for one subject by itself; [`webhook`] reads what the store sends by itself; [`states`]
//! and [`values`] are what the description knows.

pub mod answer;
pub mod client;
pub mod direct;
mod document;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod looks;
mod observe;
mod polls;
mod products;
pub mod requests;
#[cfg(test)]
mod spec;
pub mod states;
pub mod token;
pub mod values;
pub mod webhook;

use super::fetch::{FetchOptions, StoreError};
use client::AppStoreClient;
use serde::{Deserialize, Serialize};
use token::AppStoreKey;
use zeroize::Zeroize;

/// A store key as it is given and kept (sealed).
#[derive(Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    /// The key's id.
    #[schema(example = "2X9R4HXF34")]
    pub key_id: String,
    /// The team's issuer id; none for an individual key.
    pub issuer_id: Option<String>,
    /// The private key, PEM (the `.p8` file).
    pub private_key: String,
}

impl Drop for Credentials {
    fn drop(&mut self) {
        self.private_key.zeroize();
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

/// What is no secret about a source of this kind.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreSettings {
    /// The store's address, where it is not the store's own.
    pub base_url: Option<String>,
}

/// A client for these credentials.
///
/// # Errors
/// If the key or the address is not usable.
pub fn client(
    credentials: &Credentials,
    settings: &StoreSettings,
    options: FetchOptions,
) -> Result<AppStoreClient, StoreError> {
    let key = match &credentials.issuer_id {
        Some(issuer) => AppStoreKey::team(&credentials.key_id, issuer, &credentials.private_key)?,
        None => AppStoreKey::individual(&credentials.key_id, &credentials.private_key)?,
    };
    AppStoreClient::new(settings.base_url.as_deref().unwrap_or(client::BASE_URL), key, options)
}
