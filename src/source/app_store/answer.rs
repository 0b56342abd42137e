//! App Store Connect's answers as types. Unknown members are ignored, unknown values kept as they are.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::source::fetch::StoreError;

/// An app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    /// The store's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its bundle id.
    pub bundle_id: String,
    /// Its SKU.
    pub sku: Option<String>,
    /// Its primary locale.
    pub primary_locale: Option<String>,
}

/// An app store version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The store's id.
    pub id: String,
    /// `IOS`, `MAC_OS`, `TV_OS`, `VISION_OS`, or what the store may say one day.
    pub platform: String,
    /// Such as `2.4.1`.
    pub version_string: String,
    /// `AppVersionState`, as the store says it. Where an answer has only the deprecated `appStoreState`, that,
    /// in the words of this one.
    pub app_version_state: String,
    /// `MANUAL`, `AFTER_APPROVAL`, `SCHEDULED`.
    pub release_type: Option<String>,
    /// When it was made.
    pub created_date: Option<OffsetDateTime>,
    /// The id of the build chosen for it.
    pub build_id: Option<String>,
    /// The number of that build.
    pub build_version: Option<String>,
    /// How far its phased release is.
    pub phased_release: Option<PhasedRelease>,
}

/// A phased release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PhasedRelease {
    /// The store's id.
    pub id: String,
    /// `INACTIVE`, `ACTIVE`, `PAUSED`, `COMPLETE`.
    pub state: String,
    /// The day it is at, 1 to 7.
    pub current_day_number: Option<i64>,
}

/// A build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Build {
    /// The store's id.
    pub id: String,
    /// The build number (`CFBundleVersion`).
    pub version: String,
    /// `PROCESSING`, `FAILED`, `INVALID`, `VALID`.
    pub processing_state: String,
    /// Whether TestFlight has let it expire.
    pub expired: bool,
    /// When it was uploaded.
    pub uploaded_date: Option<OffsetDateTime>,
    /// The id of its app, as the answer says it.
    pub app_id: Option<String>,
    /// The platform of the version that it was uploaded for.
    pub platform: Option<String>,
    /// The version that it was uploaded for (`CFBundleShortVersionString`).
    pub pre_release_version: Option<String>,
    /// `InternalBetaState`.
    pub internal_build_state: Option<String>,
    /// `ExternalBetaState`.
    pub external_build_state: Option<String>,
}

/// A page of a list. Its items are read one by one, so that one bad item spoils none of the others.
#[derive(Deserialize)]
pub(super) struct Document {
    pub(super) data: Vec<Value>,
    #[serde(default)]
    pub(super) included: Vec<Value>,
    #[serde(default)]
    pub(super) links: Links,
    #[serde(default)]
    meta: Value,
}

/// A page's links.
#[derive(Default, Deserialize)]
pub(super) struct Links {
    pub(super) next: Option<String>,
}

/// A resource with its attributes.
#[derive(Deserialize)]
pub(super) struct Page<A> {
    pub(super) id: String,
    attributes: Option<A>,
    #[serde(default)]
    relationships: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AppAttributes {
    name: Option<String>,
    bundle_id: Option<String>,
    sku: Option<String>,
    primary_locale: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct VersionAttributes {
    platform: Option<String>,
    version_string: Option<String>,
    app_version_state: Option<String>,
    app_store_state: Option<String>,
    release_type: Option<String>,
    created_date: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BuildAttributes {
    version: Option<String>,
    processing_state: Option<String>,
    expired: Option<bool>,
    uploaded_date: Option<String>,
}

impl Document {
    pub(super) fn parse(body: &[u8]) -> Result<Self, StoreError> {
        serde_json::from_slice(body).map_err(|error| {
            if error.is_data() {
                StoreError::Malformed { what: "a page of a list" }
            } else {
                StoreError::NotJson
            }
        })
    }

    /// How many resources the whole list has, by the store's count.
    pub(super) fn total(&self) -> Option<u64> {
        self.meta.pointer("/paging/total")?.as_u64()
    }
}

impl<A> Page<A> {
    /// The id that a relationship to one points at.
    fn one(&self, relationship: &str) -> Option<&str> {
        self.relationships.get(relationship)?.get("data")?.get("id")?.as_str()
    }
}

/// The resources that a page includes, by type and id.
pub(super) struct Related<'a>(HashMap<(&'a str, &'a str), &'a Value>);

impl<'a> Related<'a> {
    pub(super) fn of(included: &'a [Value]) -> Self {
        let keyed = included.iter().filter_map(|resource| {
            Some(((resource.get("type")?.as_str()?, resource.get("id")?.as_str()?), resource))
        });
        Self(keyed.collect())
    }

    /// A text attribute of an included resource.
    fn text(&self, kind: &str, id: Option<&str>, attribute: &str) -> Option<String> {
        self.attribute(kind, id?, attribute)?.as_str().map(str::to_owned)
    }

    fn attribute(&self, kind: &str, id: &str, attribute: &str) -> Option<&'a Value> {
        self.0.get(&(kind, id))?.get("attributes")?.get(attribute)
    }
}

pub(super) fn app(page: Page<AppAttributes>) -> Option<App> {
    let attributes = page.attributes?;
    Some(App {
        id: page.id,
        name: attributes.name?,
        bundle_id: attributes.bundle_id?,
        sku: attributes.sku,
        primary_locale: attributes.primary_locale,
    })
}

pub(super) fn version(page: Page<VersionAttributes>, related: &Related) -> Option<Version> {
    let build_id = page.one("build").map(str::to_owned);
    let phased_id = page.one("appStoreVersionPhasedRelease").map(str::to_owned);
    let kind = "appStoreVersionPhasedReleases";
    let phased_release = phased_id.and_then(|id| {
        Some(PhasedRelease {
            state: related.text(kind, Some(&id), "phasedReleaseState")?,
            current_day_number: related.attribute(kind, &id, "currentDayNumber").and_then(Value::as_i64),
            id,
        })
    });
    let attributes = page.attributes?;
    let deprecated = attributes.app_store_state;
    Some(Version {
        id: page.id,
        platform: attributes.platform?,
        version_string: attributes.version_string?,
        app_version_state: attributes.app_version_state.or_else(|| deprecated.map(app_version_state))?,
        release_type: attributes.release_type,
        created_date: attributes.created_date.as_deref().and_then(date),
        build_version: related.text("builds", build_id.as_deref(), "version"),
        build_id,
        phased_release,
    })
}

pub(super) fn build(page: Page<BuildAttributes>, related: &Related) -> Option<Build> {
    let pre_release = page.one("preReleaseVersion");
    let beta = page.one("buildBetaDetail");
    let (platform, pre_release_version) = (
        related.text("preReleaseVersions", pre_release, "platform"),
        related.text("preReleaseVersions", pre_release, "version"),
    );
    let (internal_build_state, external_build_state) = (
        related.text("buildBetaDetails", beta, "internalBuildState"),
        related.text("buildBetaDetails", beta, "externalBuildState"),
    );
    let app_id = page.one("app").map(str::to_owned);
    let attributes = page.attributes?;
    Some(Build {
        id: page.id,
        version: attributes.version?,
        processing_state: attributes.processing_state?,
        expired: attributes.expired.unwrap_or(false),
        uploaded_date: attributes.uploaded_date.as_deref().and_then(date),
        app_id,
        platform,
        pre_release_version,
        internal_build_state,
        external_build_state,
    })
}

/// The two states that the deprecated attribute names otherwise, in today's words.
fn app_version_state(app_store_state: String) -> String {
    match app_store_state.as_str() {
        "READY_FOR_SALE" => "READY_FOR_DISTRIBUTION".to_owned(),
        "PROCESSING_FOR_APP_STORE" => "PROCESSING_FOR_DISTRIBUTION".to_owned(),
        _ => app_store_state,
    }
}

/// Reads a time with an offset and up to nine fraction digits; the store has written offsets without a colon,
/// too.
fn date(text: &str) -> Option<OffsetDateTime> {
    if let Ok(date) = OffsetDateTime::parse(text, &Rfc3339) {
        return Some(date);
    }
    let split = text.len().checked_sub(2).filter(|split| text.is_char_boundary(*split))?;
    let (head, minutes) = text.split_at(split);
    OffsetDateTime::parse(&format!("{head}:{minutes}"), &Rfc3339).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;
    use time::macros::datetime;

    use super::*;

    #[test]
    fn times_are_read_with_every_offset_and_fraction() {
        for text in [
            "2026-01-05T10:20:30Z",
            "2026-01-05T02:20:30-08:00",
            "2026-01-05T10:20:30.000+0000",
            "2026-01-05T02:20:30-0800",
        ] {
            assert_eq!(date(text), Some(datetime!(2026-01-05 10:20:30 UTC)), "{text}");
        }
        assert_eq!(date("2026-01-05T10:20:30.123456Z"), Some(datetime!(2026-01-05 10:20:30.123456 UTC)));
        for wrong in ["", "Z", "2026-01-05", "yesterday", "2026-01-05T10:20:30", "é"] {
            assert_eq!(date(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn nulls_unknown_values_and_unknown_members_are_taken_as_they_are() {
        let page: Page<VersionAttributes> = serde_json::from_value(json!({
            "type": "appStoreVersions", "id": "v1", "new": {"a": 1},
            "attributes": {
                "platform": "WATCH_OS", "versionString": "1.0", "appVersionState": "HELD_BY_THE_MOON",
                "releaseType": null, "createdDate": null, "earliestReleaseDate": null, "rank": 7,
            },
            "relationships": { "build": { "data": null }, "appStoreVersionPhasedRelease": null },
        }))
        .unwrap();
        let version = version(page, &Related::of(&[])).unwrap();
        assert_eq!(version.platform, "WATCH_OS");
        assert_eq!(version.app_version_state, "HELD_BY_THE_MOON");
        assert_eq!((version.release_type, version.build_id, version.phased_release), (None, None, None));
    }

    #[test]
    fn the_deprecated_state_stands_in_only_where_the_other_is_missing() {
        let read = |attributes: Value| {
            let page = json!({ "id": "v", "attributes": attributes });
            version(serde_json::from_value(page).unwrap(), &Related::of(&[]))
        };
        let old = json!({ "platform": "IOS", "versionString": "1", "appStoreState": "READY_FOR_SALE" });
        assert_eq!(read(old).unwrap().app_version_state, "READY_FOR_DISTRIBUTION");
        let both = json!({ "platform": "IOS", "versionString": "1", "appStoreState": "READY_FOR_SALE", "appVersionState": "IN_REVIEW" });
        assert_eq!(read(both).unwrap().app_version_state, "IN_REVIEW");
        assert_eq!(read(json!({ "platform": "IOS", "versionString": "1" })), None);
    }
}
