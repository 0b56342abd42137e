//! Google Play: the search for apps and the release filter options of the reporting API, and the list of
//! releases of the publisher API.

pub(crate) mod errors;
pub(crate) mod token;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use url::form_urlencoded;

use crate::google_play::errors::ApiError;
use crate::google_play::token::{PUBLISHER_SCOPE, REPORTING_SCOPE};
use crate::scenario::{PlayAccount, PlayApp, Release};
use crate::values::WELL_KNOWN_TRACKS;
use crate::world::has_track;

/// How many apps a page holds that no `pageSize` asks for, and how many it holds at most.
const PAGE: (usize, usize) = (50, 1000);

/// How many releases of a track are listed at most.
const MAX_RELEASES: usize = 20;

/// What can be asked of Google Play here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    SearchApps,
    ReleaseFilterOptions { app: String },
    Releases { package: String, track: String },
}

impl Operation {
    /// The operation at a path, given as its decoded segments.
    pub(crate) fn at(segments: &[&str]) -> Option<Self> {
        match segments {
            ["v1beta1", "apps:search"] => Some(Self::SearchApps),
            ["v1beta1", "apps", name] => {
                let app = name.strip_suffix(":fetchReleaseFilterOptions")?.to_owned();
                Some(Self::ReleaseFilterOptions { app })
            }
            ["androidpublisher", "v3", "applications", package, "tracks", track, "releases"] => {
                Some(Self::Releases { package: (*package).to_owned(), track: (*track).to_owned() })
            }
            _ => None,
        }
    }

    /// Its `flatPath` in Google's discovery documents.
    pub(crate) fn template(&self) -> &'static str {
        match self {
            Self::SearchApps => "v1beta1/apps:search",
            Self::ReleaseFilterOptions { .. } => "v1beta1/apps/{appsId}:fetchReleaseFilterOptions",
            Self::Releases { .. } => {
                "androidpublisher/v3/applications/{applicationsId}/tracks/{tracksId}/releases"
            }
        }
    }

    /// The scope that it needs.
    pub(crate) fn scope(&self) -> &'static str {
        match self {
            Self::SearchApps | Self::ReleaseFilterOptions { .. } => REPORTING_SCOPE,
            Self::Releases { .. } => PUBLISHER_SCOPE,
        }
    }

    /// The answer from what an account sees.
    pub(crate) fn answer(&self, account: &PlayAccount, query: &str) -> Result<Value, ApiError> {
        let query = Parameters::parse(query, matches!(self, Self::SearchApps))?;
        match self {
            Self::SearchApps => search(account, &query),
            Self::ReleaseFilterOptions { app } => Ok(filter_options(account, find(account, app)?)),
            Self::Releases { package, track } => releases(account, find(account, package)?, track),
        }
    }
}

/// The query parameters that the simulator knows.
#[derive(Default)]
struct Parameters {
    size: Option<i64>,
    token: Option<String>,
}

impl Parameters {
    fn parse(query: &str, paged: bool) -> Result<Self, ApiError> {
        let mut parsed = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match name.as_ref() {
                "alt" if value == "json" => {}
                "prettyPrint" | "quotaUser" => {}
                "pageSize" if paged => {
                    let invalid = || ApiError::argument(format!("Invalid value at 'page_size' ({value})"));
                    parsed.size = Some(value.parse().map_err(|_| invalid())?);
                }
                "pageToken" if paged => parsed.token = Some(value.into_owned()),
                _ => {
                    return Err(ApiError::argument(format!(
                        "Unknown name \"{name}\": Cannot bind query parameter."
                    )));
                }
            }
        }
        Ok(parsed)
    }
}

fn find<'a>(account: &'a PlayAccount, package: &str) -> Result<&'a PlayApp, ApiError> {
    account.apps.iter().find(|app| app.package == package).ok_or_else(|| ApiError::no_such_app(package))
}

fn search(account: &PlayAccount, query: &Parameters) -> Result<Value, ApiError> {
    let size = match query.size {
        Some(size) if size < 0 => return Err(ApiError::argument("page_size must not be negative")),
        Some(0) | None => PAGE.0,
        Some(size) => usize::try_from(size).unwrap_or(PAGE.1).min(PAGE.1),
    };
    let start = match &query.token {
        None => 0,
        Some(token) => read_token(token).ok_or_else(|| ApiError::argument("Invalid page token"))?,
    };
    let apps: Vec<_> = account
        .apps
        .iter()
        .skip(start)
        .take(size)
        .map(|app| {
            json!({
                "name": format!("apps/{}", app.package),
                "packageName": app.package,
                "displayName": app.display_name,
            })
        })
        .collect();
    let mut body = json!({});
    if start + apps.len() < account.apps.len() {
        body["nextPageToken"] = write_token(start + apps.len()).into();
    }
    if !apps.is_empty() {
        body["apps"] = apps.into();
    }
    Ok(body)
}

/// Only tracks with a release that is out, and only those releases: what the reporting API filters by.
fn filter_options(account: &PlayAccount, app: &PlayApp) -> Value {
    let own = app.tracks.iter().map(String::as_str);
    let mut tracks = Vec::new();
    for track in WELL_KNOWN_TRACKS.iter().copied().chain(own) {
        let releases: Vec<_> = on_track(account, app, track)
            .filter(|release| release.state == "PUBLISHED")
            .map(|release| {
                let codes: Vec<_> = release.version_codes.iter().map(i32::to_string).collect();
                json!({ "displayName": release.name, "versionCodes": codes })
            })
            .collect();
        if !releases.is_empty() {
            let (display_name, kind) = track_names(track);
            tracks.push(json!({ "displayName": display_name, "type": kind, "servingReleases": releases }));
        }
    }
    if tracks.is_empty() { json!({}) } else { json!({ "tracks": tracks }) }
}

fn releases(account: &PlayAccount, app: &PlayApp, track: &str) -> Result<Value, ApiError> {
    if !has_track(app, track) {
        return Err(ApiError::no_such_track(track));
    }
    let releases: Vec<_> = on_track(account, app, track)
        .take(MAX_RELEASES)
        .map(|release| {
            let artifacts: Vec<_> =
                release.version_codes.iter().map(|code| json!({ "versionCode": code })).collect();
            json!({
                "releaseName": release.name,
                "track": release.track,
                "releaseLifecycleState": format!("RELEASE_LIFECYCLE_STATE_{}", release.state),
                "activeArtifacts": artifacts,
            })
        })
        .collect();
    if releases.is_empty() { Err(ApiError::track_empty()) } else { Ok(json!({ "releases": releases })) }
}

/// The releases of a track, the newest first.
fn on_track<'a>(
    account: &'a PlayAccount,
    app: &'a PlayApp,
    track: &'a str,
) -> impl Iterator<Item = &'a Release> {
    account
        .releases
        .iter()
        .rev()
        .filter(move |release| release.package == app.package && release.track == track)
}

/// A track's name in the console and its type.
fn track_names(track: &str) -> (&str, &'static str) {
    match track {
        "production" => ("Production", "Production"),
        "beta" => ("Open testing", "Open testing"),
        "alpha" => ("Closed testing", "Closed testing"),
        "internal" => ("Internal testing", "Internal testing"),
        own => (own, "Closed testing"),
    }
}

fn write_token(offset: usize) -> String {
    URL_SAFE_NO_PAD.encode(format!("start:{offset}"))
}

fn read_token(token: &str) -> Option<usize> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
    text.strip_prefix("start:")?.parse().ok()
}
