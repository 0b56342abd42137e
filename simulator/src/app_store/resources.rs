//! A team's apps, versions and builds as App Store Connect's resources.

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::app_store::jsonapi::{Relationship, Resource, Target};
use crate::scenario::{App, AppStoreTeam, Build, Version};

/// How long TestFlight keeps a build.
const BUILD_LIFE: time::Duration = time::Duration::days(90);

/// An app's relationships to what the simulator does not have.
const APP_ELSEWHERE: &[&str] = &[
    "accessibilityDeclarations",
    "appEncryptionDeclarations",
    "ciProduct",
    "betaGroups",
    "betaAppLocalizations",
    "betaLicenseAgreement",
    "betaAppReviewDetail",
    "appInfos",
    "appClips",
    "endUserLicenseAgreement",
    "appPriceSchedule",
    "appAvailabilityV2",
    "subscriptionGroups",
    "gameCenterEnabledVersions",
    "inAppPurchasesV2",
    "promotedPurchases",
    "appEvents",
    "reviewSubmissions",
    "customerReviews",
    "gameCenterDetail",
    "buildUploads",
    "webhooks",
];

/// A version's relationships to what the simulator does not have.
const VERSION_ELSEWHERE: &[&str] = &[
    "appStoreVersionLocalizations",
    "routingAppCoverage",
    "appStoreReviewDetail",
    "appStoreVersionSubmission",
    "appClipDefaultExperience",
    "appStoreVersionExperiments",
    "customerReviews",
];

/// A build's relationships to what the simulator does not have.
const BUILD_ELSEWHERE: &[&str] = &[
    "individualTesters",
    "betaBuildLocalizations",
    "appEncryptionDeclaration",
    "betaAppReviewSubmission",
    "icons",
    "diagnosticSignatures",
];

/// Finds a resource of a team by type and id.
pub(crate) fn lookup(team: &AppStoreTeam, kind: &str, id: &str) -> Option<Resource> {
    match kind {
        "apps" => team.apps.iter().find(|app| app.id == id).map(|found| app(team, found)),
        "appStoreVersions" => team.versions.iter().find(|known| known.id == id).map(version),
        "builds" => team.builds.iter().find(|known| known.id == id).map(|found| build(team, found)),
        "buildBetaDetails" => team.builds.iter().find(|known| known.id == id).map(beta_detail),
        "preReleaseVersions" => {
            team.builds.iter().find(|known| pre_release_id(known) == id).map(pre_release_version)
        }
        "appStoreVersionPhasedReleases" => {
            team.versions.iter().find(|known| phased_id(known).as_deref() == Some(id)).map(phased_release)
        }
        _ => None,
    }
}

/// An app.
pub(crate) fn app(team: &AppStoreTeam, app: &App) -> Resource {
    let versions = team.versions.iter().rev().filter(|version| version.app == app.id);
    let builds = || team.builds.iter().rev().filter(|build| build.app == app.id);
    let mut pre_releases = Vec::new();
    for id in builds().map(pre_release_id) {
        if !pre_releases.contains(&id) {
            pre_releases.push(id);
        }
    }
    Resource {
        kind: "apps",
        id: app.id.clone(),
        attributes: vec![
            ("name", text(&app.name)),
            ("bundleId", text(&app.bundle_id)),
            ("sku", text(app.sku.as_ref().unwrap_or(&app.bundle_id))),
            ("primaryLocale", text(&app.primary_locale)),
            ("isOrEverWasMadeForKids", Some(false.into())),
            ("contentRightsDeclaration", text("DOES_NOT_USE_THIRD_PARTY_CONTENT")),
        ],
        relationships: vec![
            many(
                "appStoreVersions",
                "appStoreVersions",
                versions.map(|version| version.id.clone()).collect(),
            ),
            many("builds", "builds", builds().map(|build| build.id.clone()).collect()),
            many("preReleaseVersions", "preReleaseVersions", pre_releases),
        ]
        .into_iter()
        .chain(elsewhere(APP_ELSEWHERE))
        .collect(),
    }
}

/// An app store version.
pub(crate) fn version(version: &Version) -> Resource {
    Resource {
        kind: "appStoreVersions",
        id: version.id.clone(),
        attributes: vec![
            ("platform", text(&version.platform)),
            ("versionString", text(&version.version_string)),
            ("appStoreState", text(app_store_state(&version.state))),
            ("appVersionState", text(&version.state)),
            ("copyright", text(version.created.map_or(String::new(), |date| format!("© {}", date.year())))),
            ("reviewType", text("APP_STORE")),
            ("releaseType", text(&version.release_type)),
            // The store tells null where there is none, which its description does not allow.
            ("earliestReleaseDate", date(version.created)),
            ("usesIdfa", Some(false.into())),
            ("downloadable", Some((version.state == "READY_FOR_DISTRIBUTION").into())),
            ("createdDate", date(version.created)),
        ],
        relationships: [
            Relationship { linked: false, ..one("app", "apps", Some(version.app.clone())) },
            one("build", "builds", version.build.clone()),
            one("appStoreVersionPhasedRelease", "appStoreVersionPhasedReleases", phased_id(version)),
        ]
        .into_iter()
        .chain(elsewhere(VERSION_ELSEWHERE))
        .collect(),
    }
}

/// A build.
pub(crate) fn build(team: &AppStoreTeam, build: &Build) -> Resource {
    let version = team.versions.iter().find(|version| version.build.as_ref() == Some(&build.id));
    Resource {
        kind: "builds",
        id: build.id.clone(),
        attributes: vec![
            ("version", text(&build.version)),
            ("uploadedDate", date(build.uploaded)),
            ("expirationDate", date(build.uploaded.map(|uploaded| uploaded + BUILD_LIFE))),
            ("expired", Some(build.expired.into())),
            ("minOsVersion", text("17.0")),
            ("iconAssetToken", Some(icon())),
            ("processingState", text(&build.processing_state)),
            ("buildAudienceType", text("APP_STORE_ELIGIBLE")),
            ("usesNonExemptEncryption", Some(false.into())),
        ],
        relationships: [
            one("preReleaseVersion", "preReleaseVersions", Some(pre_release_id(build))),
            one("app", "apps", Some(build.app.clone())),
            one("buildBetaDetail", "buildBetaDetails", Some(build.id.clone())),
            one("appStoreVersion", "appStoreVersions", version.map(|version| version.id.clone())),
        ]
        .into_iter()
        .chain(elsewhere(BUILD_ELSEWHERE))
        .collect(),
    }
}

/// What TestFlight says of a build; its id is the build's.
fn beta_detail(build: &Build) -> Resource {
    let follows = match (build.expired, build.processing_state.as_str()) {
        (true, _) => "EXPIRED",
        (_, "PROCESSING") => "PROCESSING",
        (_, "VALID") => "READY_FOR_BETA_TESTING",
        _ => "PROCESSING_EXCEPTION",
    };
    Resource {
        kind: "buildBetaDetails",
        id: build.id.clone(),
        attributes: vec![
            ("autoNotifyEnabled", Some(false.into())),
            ("internalBuildState", text(build.internal_state.as_deref().unwrap_or(follows))),
            ("externalBuildState", text(build.external_state.as_deref().unwrap_or(follows))),
        ],
        relationships: vec![one("build", "builds", Some(build.id.clone()))],
    }
}

/// The version that a build was uploaded for.
fn pre_release_version(build: &Build) -> Resource {
    Resource {
        kind: "preReleaseVersions",
        id: pre_release_id(build),
        attributes: vec![("version", text(&build.pre_release_version)), ("platform", text(&build.platform))],
        relationships: vec![one("app", "apps", Some(build.app.clone()))],
    }
}

/// A version's phased release.
fn phased_release(version: &Version) -> Resource {
    let phased = version.phased_release.as_ref();
    Resource {
        kind: "appStoreVersionPhasedReleases",
        id: phased_id(version).unwrap_or_default(),
        attributes: vec![
            ("phasedReleaseState", phased.and_then(|phased| text(&phased.state))),
            ("totalPauseDuration", Some(0.into())),
            ("currentDayNumber", phased.and_then(|phased| phased.day).map(Into::into)),
        ],
        relationships: Vec::new(),
    }
}

fn phased_id(version: &Version) -> Option<String> {
    version.phased_release.as_ref().map(|_| format!("{}-phased", version.id))
}

fn pre_release_id(build: &Build) -> String {
    format!("{}-{}-{}", build.app, build.platform, build.pre_release_version)
}

/// The deprecated attribute has other names for the states around the release.
fn app_store_state(state: &str) -> &str {
    match state {
        "READY_FOR_DISTRIBUTION" => "READY_FOR_SALE",
        "PROCESSING_FOR_DISTRIBUTION" => "PROCESSING_FOR_APP_STORE",
        other => other,
    }
}

fn text(value: impl AsRef<str>) -> Option<Value> {
    Some(value.as_ref().into())
}

/// Apple writes times without fractions.
fn date(value: Option<OffsetDateTime>) -> Option<Value> {
    let value = value?.replace_nanosecond(0).ok()?;
    value.format(&Rfc3339).ok().map(Into::into)
}

fn one(name: &'static str, kind: &'static str, id: Option<String>) -> Relationship {
    Relationship { name, kind, target: Target::One(id), linked: true }
}

fn many(name: &'static str, kind: &'static str, ids: Vec<String>) -> Relationship {
    Relationship { name, kind, target: Target::Many(ids), linked: true }
}

/// An image that is nowhere, in the store's way of writing an address of any size.
fn icon() -> Value {
    json!({ "templateUrl": "https://icons.invalid/{w}x{h}bb.{f}", "width": 1024, "height": 1024 })
}

fn elsewhere(names: &'static [&'static str]) -> impl Iterator<Item = Relationship> {
    names.iter().map(|name| Relationship { name, kind: "", target: Target::Elsewhere, linked: true })
}
