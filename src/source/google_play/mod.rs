//! Google Play: what its APIs say about apps, releases and rollouts. Nothing of it is changed.

mod answer;
pub mod client;
pub mod edits;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod looks;
pub mod states;
pub mod token;

use super::fetch::{FetchOptions, StoreError};
use client::{PlayBaseUrls, PlayClient};
use serde::{Deserialize, Serialize};
use token::ServiceAccount;

/// What is no secret about a source of this kind.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreSettings {
    /// The publisher API's address, where it is not Google's.
    pub publisher_url: Option<String>,
    /// The reporting API's address, where it is not Google's.
    pub reporting_url: Option<String>,
    /// Whether rollouts are read, which opens edits: read [`edits::WARNING`] first. Default false.
    pub rollout_by_edits: bool,
    /// With `rollout_by_edits`: the `client_email` of the service account, as a sign that it is given to this source
    /// alone.
    pub dedicated_account: Option<String>,
}

/// A client for this service account (its JSON, as Google gives it).
///
/// # Errors
/// If the account or an address is not usable, or edits are switched on without naming the account.
pub fn client(
    service_account: &str,
    settings: &StoreSettings,
    options: FetchOptions,
) -> Result<PlayClient, StoreError> {
    let own = PlayBaseUrls::default();
    let bases = PlayBaseUrls {
        publisher: settings.publisher_url.clone().unwrap_or(own.publisher),
        reporting: settings.reporting_url.clone().unwrap_or(own.reporting),
    };
    let client = PlayClient::new(&bases, ServiceAccount::from_json(service_account, &options)?, options)?;
    if settings.rollout_by_edits {
        return client.with_edits(settings.dedicated_account.as_deref().unwrap_or_default());
    }
    Ok(client)
}
