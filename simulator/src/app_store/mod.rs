//! App Store Connect: the lists of apps, app store versions and builds.

pub(crate) mod errors;
pub(crate) mod fields;
pub(crate) mod jsonapi;
pub(crate) mod resources;
pub(crate) mod token;

use serde_json::Value;

use crate::app_store::errors::ApiError;
use crate::app_store::jsonapi::{Listing, Query, page};
use crate::scenario::AppStoreTeam;

/// What can be asked of App Store Connect here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Apps,
    Versions { app: String },
    Builds,
}

/// `GET /v1/apps`.
const APPS: Listing = Listing {
    kind: "apps",
    includes: &[
        ("appStoreVersions", "appStoreVersions"),
        ("builds", "builds"),
        ("preReleaseVersions", "preReleaseVersions"),
    ],
    limited: &["appStoreVersions", "builds", "preReleaseVersions"],
    filters: &["id", "bundleId", "name", "sku"],
    sorts: &["name", "bundleId", "sku"],
};

/// `GET /v1/apps/{id}/appStoreVersions`.
const VERSIONS: Listing = Listing {
    kind: "appStoreVersions",
    includes: &[
        ("app", "apps"),
        ("build", "builds"),
        ("appStoreVersionPhasedRelease", "appStoreVersionPhasedReleases"),
    ],
    limited: &[],
    filters: &["id", "platform", "versionString", "appVersionState"],
    sorts: &[],
};

/// `GET /v1/builds`.
const BUILDS: Listing = Listing {
    kind: "builds",
    includes: &[
        ("preReleaseVersion", "preReleaseVersions"),
        ("app", "apps"),
        ("buildBetaDetail", "buildBetaDetails"),
        ("appStoreVersion", "appStoreVersions"),
    ],
    limited: &[],
    filters: &[
        "id",
        "app",
        "version",
        "processingState",
        "preReleaseVersion.platform",
        "preReleaseVersion.version",
    ],
    sorts: &["version", "uploadedDate"],
};

impl Operation {
    /// The operation at a path, given as its decoded segments.
    pub(crate) fn at(segments: &[&str]) -> Option<Self> {
        match segments {
            ["v1", "apps"] => Some(Self::Apps),
            ["v1", "apps", app, "appStoreVersions"] => Some(Self::Versions { app: (*app).to_owned() }),
            ["v1", "builds"] => Some(Self::Builds),
            _ => None,
        }
    }

    /// Its path in Apple's description.
    pub(crate) fn template(&self) -> &'static str {
        match self {
            Self::Apps => "/v1/apps",
            Self::Versions { .. } => "/v1/apps/{id}/appStoreVersions",
            Self::Builds => "/v1/builds",
        }
    }

    /// The answer from what a team's key sees. The newest come first, as the store gives them.
    pub(crate) fn answer(
        &self,
        team: &AppStoreTeam,
        base: &str,
        path: &str,
        query_text: &str,
    ) -> Result<Value, ApiError> {
        let (query, resources) = match self {
            Self::Apps => {
                let query = Query::parse(query_text, &APPS)?;
                let apps = team.apps.iter().filter(|app| {
                    query.passes("id", &app.id)
                        && query.passes("bundleId", &app.bundle_id)
                        && query.passes("name", &app.name)
                        && query.passes("sku", app.sku.as_ref().unwrap_or(&app.bundle_id))
                });
                let resources = apps.map(|app| resources::app(team, app)).collect();
                (query, resources)
            }
            Self::Versions { app } => {
                let query = Query::parse(query_text, &VERSIONS)?;
                if !team.apps.iter().any(|known| known.id == *app) {
                    return Err(ApiError::not_found("apps", app));
                }
                let versions = team.versions.iter().rev().filter(|version| {
                    version.app == *app
                        && query.passes("id", &version.id)
                        && query.passes("platform", &version.platform)
                        && query.passes("versionString", &version.version_string)
                        && query.passes("appVersionState", &version.state)
                });
                let resources = versions.map(resources::version).collect();
                (query, resources)
            }
            Self::Builds => {
                let query = Query::parse(query_text, &BUILDS)?;
                let builds = team.builds.iter().rev().filter(|build| {
                    query.passes("app", &build.app)
                        && query.passes("id", &build.id)
                        && query.passes("version", &build.version)
                        && query.passes("processingState", &build.processing_state)
                        && query.passes("preReleaseVersion.platform", &build.platform)
                        && query.passes("preReleaseVersion.version", &build.pre_release_version)
                });
                let resources = builds.map(|build| resources::build(team, build)).collect();
                (query, resources)
            }
        };
        let lookup = |kind: &str, id: &str| resources::lookup(team, kind, id);
        Ok(page(base, path, query_text, &query, resources, &lookup))
    }
}
