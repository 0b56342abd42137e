//! Google Play: what its APIs say about releases, read and never written.

pub mod client;
pub mod token;

use super::fetch::{FetchOptions, StoreError};
use crate::observation::{Kind, Observation};
use client::{PlayBaseUrls, PlayClient};
use serde::{Deserialize, Serialize};
use statusledger_verify::json::{Object, Value};
use token::ServiceAccount;

/// What is no secret about a source of this kind.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreSettings {
    /// The publisher API's address, where it is not Google's.
    pub publisher_url: Option<String>,
    /// The reporting API's address, where it is not Google's.
    pub reporting_url: Option<String>,
}

/// A client for this service account (its JSON, as Google gives it).
///
/// # Errors
/// If the account or an address is not usable.
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
    PlayClient::new(&bases, ServiceAccount::from_json(service_account, &options)?, options)
}

/// Asks once for everything: apps, each one's tracks, each track's releases. A release is known by its package, its
/// track and its version codes: names repeat.
///
/// # Errors
/// The first request that failed, with what was seen until then.
pub async fn sweep(client: &PlayClient, seen: &mut Vec<Observation>) -> Result<(), StoreError> {
    for app in client.apps().await?.items {
        for track in client.tracks(&app.package).await?.items {
            let releases = match client.releases(&app.package, &track).await {
                Ok(listing) => listing.items,
                // A track that was never used.
                Err(StoreError::NotFound { .. }) => continue,
                Err(e) => return Err(e),
            };
            for release in releases {
                let codes: Vec<String> = release.version_codes.iter().map(ToString::to_string).collect();
                let mut description = Object::default();
                description.insert("track".into(), Value::String(release.track.clone()));
                description.insert(
                    "version_codes".into(),
                    Value::Array(
                        release.version_codes.iter().map(|c| Value::String(c.to_string())).collect(),
                    ),
                );
                for (name, value) in [("name", &app.display_name), ("release", &release.name)] {
                    if let Some(value) = value {
                        description.insert(name.into(), Value::String(value.clone()));
                    }
                }
                seen.push(Observation {
                    kind: Kind::Release,
                    key: format!("{}/{}/{}", app.package, release.track, codes.join("+")),
                    app: app.package.clone(),
                    description,
                    state: release.lifecycle_state,
                    scope: app.package.clone(),
                    facts: Object::default(),
                    store_at: None,
                });
            }
        }
    }
    Ok(())
}
