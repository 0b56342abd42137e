//! Google Play: the search for apps and the release filter options of the reporting API, and the list of
//! releases and the edits of the publisher API.

mod edits;
pub(crate) mod errors;
pub(crate) mod token;

use axum::http::Method;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use url::form_urlencoded;

use crate::google_play::errors::ApiError;
use crate::google_play::token::{PUBLISHER_SCOPE, REPORTING_SCOPE};
use crate::scenario::{PlayAccount, PlayApp, Release};
use crate::values::WELL_KNOWN_TRACKS;
use crate::world::{World, has_track};

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
    Edits { package: String },
    Edit { package: String, edit: String },
    CommitEdit { package: String, edit: String },
    EditTracks { package: String, edit: String },
    EditTrack { package: String, edit: String, track: String },
}

impl Operation {
    /// The operation at a path, given as its decoded segments.
    pub(crate) fn at(segments: &[&str]) -> Option<Self> {
        let text = |part: &str| part.to_owned();
        if let ["androidpublisher", "v3", "applications", package, "edits", rest @ ..] = segments {
            let package = text(package);
            return match rest {
                [] => Some(Self::Edits { package }),
                [edit] => Some(match edit.strip_suffix(":commit") {
                    Some(edit) => Self::CommitEdit { package, edit: text(edit) },
                    None => Self::Edit { package, edit: text(edit) },
                }),
                [edit, "tracks"] => Some(Self::EditTracks { package, edit: text(edit) }),
                [edit, "tracks", track] => {
                    Some(Self::EditTrack { package, edit: text(edit), track: text(track) })
                }
                _ => None,
            };
        }
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
            Self::Edits { .. } => "androidpublisher/v3/applications/{packageName}/edits",
            Self::Edit { .. } => "androidpublisher/v3/applications/{packageName}/edits/{editId}",
            Self::CommitEdit { .. } => "androidpublisher/v3/applications/{packageName}/edits/{editId}:commit",
            Self::EditTracks { .. } => "androidpublisher/v3/applications/{packageName}/edits/{editId}/tracks",
            Self::EditTrack { .. } => {
                "androidpublisher/v3/applications/{packageName}/edits/{editId}/tracks/{track}"
            }
        }
    }

    /// The methods that it takes.
    pub(crate) fn methods(&self) -> &'static [Method] {
        match self {
            Self::Edits { .. } | Self::CommitEdit { .. } => &[Method::POST],
            Self::Edit { .. } => &[Method::GET, Method::DELETE],
            _ => &[Method::GET],
        }
    }

    /// The package that it is about.
    pub(crate) fn package(&self) -> Option<&str> {
        match self {
            Self::SearchApps => None,
            Self::ReleaseFilterOptions { app: package }
            | Self::Releases { package, .. }
            | Self::Edits { package }
            | Self::Edit { package, .. }
            | Self::CommitEdit { package, .. }
            | Self::EditTracks { package, .. }
            | Self::EditTrack { package, .. } => Some(package),
        }
    }

    /// The scope that it needs.
    pub(crate) fn scope(&self) -> &'static str {
        match self {
            Self::SearchApps | Self::ReleaseFilterOptions { .. } => REPORTING_SCOPE,
            _ => PUBLISHER_SCOPE,
        }
    }

    /// The answer from what an account sees; null is one without a body. `repeated` gives each page of the
    /// search the data of the first.
    pub(crate) fn answer(
        &self,
        world: &mut World,
        place: usize,
        method: &Method,
        query: &str,
        body: &[u8],
        repeated: bool,
    ) -> Result<Value, ApiError> {
        let commits = matches!(self, Self::CommitEdit { .. });
        let query = Parameters::parse(query, matches!(self, Self::SearchApps), commits)?;
        let account = &world.accounts[place];
        match self {
            Self::SearchApps => search(account, &query, repeated),
            Self::ReleaseFilterOptions { app } => Ok(filter_options(account, find(account, app)?)),
            Self::Releases { package, track } => releases(account, find(account, package)?, track),
            _ => edits::answer(self, world, place, method, body),
        }
    }
}

/// The token of the page that a search asks for.
pub(crate) fn page_token(query: &str) -> String {
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    let asked = pairs.find(|(name, _)| name == "pageToken").map(|(_, token)| token.into_owned());
    asked.unwrap_or_else(|| write_token(0))
}

/// The query parameters that the simulator knows.
#[derive(Default)]
struct Parameters {
    size: Option<i64>,
    token: Option<String>,
}

impl Parameters {
    fn parse(query: &str, paged: bool, commits: bool) -> Result<Self, ApiError> {
        let mut parsed = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match name.as_ref() {
                "alt" if value == "json" => {}
                "prettyPrint" | "quotaUser" => {}
                "changesNotSentForReview" | "changesInReviewBehavior" if commits => {}
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

fn search(account: &PlayAccount, query: &Parameters, repeated: bool) -> Result<Value, ApiError> {
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
        .skip(if repeated { 0 } else { start })
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
