//! App Store Connect: what its API says about versions and builds, read and never written.

pub(crate) mod answer;
pub mod client;
pub mod token;

use super::fetch::{FetchOptions, StoreError};
use crate::observation::{Kind, Observation};
use client::AppStoreClient;
use serde::{Deserialize, Serialize};
use statusledger_verify::json::{Object, Value};
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

fn text(value: &str) -> Value {
    Value::String(value.to_owned())
}

/// Asks once for everything: apps, then each one's versions and builds.
///
/// # Errors
/// The first request that failed, with what was seen until then: an observation is true whatever came after it.
pub async fn sweep(client: &AppStoreClient, seen: &mut Vec<Observation>) -> Result<(), StoreError> {
    for app in client.apps().await?.items {
        for version in client.versions(&app.id).await?.items {
            let mut description = Object::default();
            description.insert("name".into(), text(&app.name));
            description.insert("platform".into(), text(&version.platform));
            description.insert("version".into(), text(&version.version_string));
            if let Some(build) = &version.build_version {
                description.insert("build".into(), text(build));
            }
            seen.push(Observation {
                kind: Kind::Version,
                key: version.id,
                app: app.bundle_id.clone(),
                description,
                state: version.app_version_state,
                scope: app.id.clone(),
                facts: Object::default(),
                store_at: None,
            });
        }
        for build in client.builds(&app.id).await?.items {
            let mut description = Object::default();
            description.insert("name".into(), text(&app.name));
            description.insert("build".into(), text(&build.version));
            if let Some(platform) = &build.platform {
                description.insert("platform".into(), text(platform));
            }
            if let Some(version) = &build.pre_release_version {
                description.insert("version".into(), text(version));
            }
            seen.push(Observation {
                kind: Kind::Build,
                key: build.id,
                app: app.bundle_id.clone(),
                description,
                state: build.processing_state,
                scope: app.id.clone(),
                facts: Object::default(),
                store_at: None,
            });
        }
    }
    Ok(())
}
