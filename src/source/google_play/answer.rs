//! What Google Play's answers say, read item by item: one that cannot be read is counted and left out, and spoils
//! none of the others.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use time::OffsetDateTime;

use crate::source::fetch::{Failure, ForbiddenCause, StoreError, clean_code};

/// What the names of lifecycle states begin with on the wire.
pub(super) const LIFECYCLE_PREFIX: &str = "RELEASE_LIFECYCLE_STATE_";

/// How many releases of a track the store lists at most.
const MAX_RELEASES: usize = 20;

/// The longest edit id, in bytes. Google's have about twenty digits.
const MAX_EDIT_ID: usize = 100;

/// The longest name of a track that is taken over, in bytes. The console allows fifty characters.
const MAX_TRACK: usize = 200;

/// The longest state that is taken over, in bytes. Google's are below 70.
const MAX_STATE: usize = 200;

/// The tracks that every app has.
pub const WELL_KNOWN_TRACKS: [&str; 4] = ["production", "beta", "alpha", "internal"];

/// How the console calls tracks that have another name in the API; what else is called so is no track.
const CONSOLE_NAMES: [&str; 6] = [
    "production",
    "open testing",
    "closed testing",
    "internal testing",
    "internal app sharing",
    "pre-registration",
];

/// All of a list, gathered over its pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed<T> {
    /// The items, each once, in the order in which they came.
    pub items: Vec<T>,
    /// Items that could not be read, and were left out.
    pub unread: u32,
    /// Whether this is all there is: the walk ended as it should, every item could be read, and the store left out
    /// none. Only from such a list may anything be concluded about what is not in it.
    pub complete: bool,
    /// How many requests it took.
    pub pages: u32,
    /// The server's `Date` of the last page.
    pub server_date: Option<OffsetDateTime>,
}

impl<T> Listed<T> {
    /// Nothing yet.
    pub(super) fn new() -> Self {
        Self { items: Vec::new(), unread: 0, complete: true, pages: 0, server_date: None }
    }

    fn miss(&mut self) {
        self.unread += 1;
        self.complete = false;
    }
}

/// An app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    /// Its package name.
    pub package: String,
    /// Its title.
    pub display_name: Option<String>,
}

/// A release on a track.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// Its name, which is not unique.
    pub name: Option<String>,
    /// The track.
    pub track: String,
    /// Its version codes, which with package and track are its identity.
    pub version_codes: BTreeSet<i64>,
    /// `ReleaseLifecycleState` without the prefix that all its names have on the wire: `DRAFT`,
    /// `NOT_SENT_FOR_REVIEW`, `IN_REVIEW`, `APPROVED_NOT_PUBLISHED`, `NOT_APPROVED`, `PUBLISHED`, or what the
    /// store may say one day.
    pub lifecycle_state: String,
}

/// How far a release on a track is rolled out, as an edit shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollout {
    /// The release's name, which is not unique.
    pub name: Option<String>,
    /// The track.
    pub track: String,
    /// The release's version codes.
    pub version_codes: BTreeSet<i64>,
    /// `status`: `draft`, `inProgress`, `halted`, `completed`, or what the store may say one day.
    pub status: String,
    /// The part of the users that may have it, between 0 and 1: the shortest decimal that is the store's double, so
    /// that `0.05`, `0.050` and `5e-2` are one.
    pub user_fraction: Option<String>,
    /// How urgent the update is in the app, 0 to 5; 0 where the store names none, as its description has it.
    pub in_app_update_priority: i32,
}

/// The tracks of an app in an edit, also those without a release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EditTracks {
    /// The names of the tracks.
    pub tracks: Vec<String>,
    /// What is on them.
    pub rollouts: Listed<Rollout>,
}

/// Whether a text is a package name: segments of letters, digits and underscores, with dots between. Nothing else is
/// made part of an address.
pub(super) fn is_package(text: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty()
            && part.chars().all(|character| character.is_ascii_alphanumeric() || character == '_')
    };
    text.len() <= 255 && text.split('.').all(is_part)
}

/// Whether a text may be a track's name: any that stays a segment of a path, and that a database keeps.
pub(super) fn is_track(text: &str) -> bool {
    (1..=MAX_TRACK).contains(&text.len())
        && text != "."
        && text != ".."
        && !text.chars().any(char::is_control)
}

/// Whether a text is an edit's id. It becomes part of the address of a DELETE.
pub(super) fn is_edit_id(text: &str) -> bool {
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "-_".contains(character);
    !text.is_empty() && text.len() <= MAX_EDIT_ID && text.chars().all(is_plain)
}

/// A body as what it should be.
fn body<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(bytes).map_err(|error| {
        if error.is_data() {
            StoreError::Malformed { what: "an answer of Google Play" }
        } else {
            StoreError::NotJson
        }
    })
}

/// An item as what it should be.
fn item<T: DeserializeOwned>(value: Value) -> Option<T> {
    serde_json::from_value(value).ok()
}

/// A name for people; what a database cannot keep is taken out.
fn name(text: Option<String>) -> Option<String> {
    text.map(|text| text.replace('\0', "")).filter(|text| !text.is_empty())
}

/// A state as the store spells it, where it is one that can be kept.
fn state(text: Option<String>) -> Option<String> {
    text.filter(|text| (1..=MAX_STATE).contains(&text.len()) && !text.chars().any(char::is_control))
}

/// A page of apps; returns the token of the next one.
pub(super) fn apps(bytes: &[u8], into: &mut Listed<App>) -> Result<Option<String>, StoreError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Answer {
        #[serde(default)]
        apps: Vec<Value>,
        next_page_token: Option<String>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Found {
        package_name: String,
        display_name: Option<String>,
    }
    let answer: Answer = body(bytes)?;
    into.pages += 1;
    for found in answer.apps {
        match item::<Found>(found).filter(|found| is_package(&found.package_name)) {
            Some(found) => {
                into.items.push(App { package: found.package_name, display_name: name(found.display_name) })
            }
            None => into.miss(),
        }
    }
    Ok(answer.next_page_token.filter(|next| !next.is_empty()))
}

/// The tracks in the release filter options: those that every app has, then those of its own.
pub(super) fn tracks(bytes: &[u8]) -> Result<Listed<String>, StoreError> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        tracks: Vec<Value>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Found {
        display_name: String,
    }
    let answer: Answer = body(bytes)?;
    // Never complete: only tracks with a release that is out are told, and by the name that the console has for them.
    let items = WELL_KNOWN_TRACKS.map(str::to_owned).to_vec();
    let mut listed = Listed { items, complete: false, pages: 1, ..Listed::new() };
    for found in answer.tracks {
        let Some(Found { display_name }) = item(found).filter(|found: &Found| is_track(&found.display_name))
        else {
            listed.miss();
            continue;
        };
        let is_console_name = CONSOLE_NAMES.contains(&display_name.to_lowercase().as_str());
        if !is_console_name && !listed.items.contains(&display_name) {
            listed.items.push(display_name);
        }
    }
    Ok(listed)
}

/// The releases on a track. One that says it is on another is left out.
pub(super) fn releases(bytes: &[u8], track: &str) -> Result<Listed<Release>, StoreError> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        releases: Vec<Value>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Found {
        release_name: Option<String>,
        track: Option<String>,
        release_lifecycle_state: Option<String>,
        #[serde(default)]
        active_artifacts: Vec<Artifact>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Artifact {
        version_code: i64,
    }
    let answer: Answer = body(bytes)?;
    let mut listed = Listed { pages: 1, ..Listed::new() };
    // The store gives no more and has no pages: what is behind them is not known.
    listed.complete = answer.releases.len() < MAX_RELEASES;
    for found in answer.releases {
        let read =
            item::<Found>(found).filter(|found| found.track.as_deref().is_none_or(|said| said == track));
        let read = read.and_then(|found| {
            let said = state(found.release_lifecycle_state)?;
            Some(Release {
                name: name(found.release_name),
                track: track.to_owned(),
                version_codes: found.active_artifacts.iter().map(|artifact| artifact.version_code).collect(),
                lifecycle_state: match said.strip_prefix(LIFECYCLE_PREFIX) {
                    Some(rest) if !rest.is_empty() => rest.to_owned(),
                    _ => said,
                },
            })
        });
        match read {
            Some(release) => listed.items.push(release),
            None => listed.miss(),
        }
    }
    Ok(listed)
}

/// The id of an edit that was opened.
pub(super) fn edit(bytes: &[u8]) -> Result<String, StoreError> {
    #[derive(Deserialize)]
    struct Answer {
        id: String,
    }
    let answer: Answer = body(bytes)?;
    if !is_edit_id(&answer.id) {
        return Err(StoreError::Malformed { what: "an edit's id" });
    }
    Ok(answer.id)
}

/// The tracks in an edit, with how far their releases are rolled out.
pub(super) fn edit_tracks(bytes: &[u8]) -> Result<EditTracks, StoreError> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        tracks: Vec<Value>,
    }
    #[derive(Deserialize)]
    struct Found {
        track: String,
        #[serde(default)]
        releases: Vec<Value>,
    }
    let answer: Answer = body(bytes)?;
    let mut rollouts = Listed { pages: 1, ..Listed::new() };
    let mut tracks = BTreeSet::new();
    for found in answer.tracks {
        let Some(found) = item(found).filter(|found: &Found| is_track(&found.track)) else {
            rollouts.miss();
            continue;
        };
        for release in found.releases {
            match rollout(release, &found.track) {
                Some(rollout) => rollouts.items.push(rollout),
                None => rollouts.miss(),
            }
        }
        tracks.insert(found.track);
    }
    Ok(EditTracks { tracks: tracks.into_iter().collect(), rollouts })
}

fn rollout(value: Value, track: &str) -> Option<Rollout> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Found {
        name: Option<String>,
        #[serde(default)]
        version_codes: Vec<String>,
        status: Option<String>,
        user_fraction: Option<f64>,
        #[serde(default)]
        in_app_update_priority: i32,
    }
    let found: Found = item(value)?;
    let codes: Result<BTreeSet<i64>, _> = found.version_codes.iter().map(|code| code.parse()).collect();
    Some(Rollout {
        name: name(found.name),
        track: track.to_owned(),
        version_codes: codes.ok()?,
        status: state(found.status)?,
        // Rust writes the shortest decimal that reads back as the same double, without an exponent.
        user_fraction: found.user_fraction.map(|fraction| fraction.to_string()),
        in_app_update_priority: found.in_app_update_priority,
    })
}

/// What a failure means, by status and by the reason that Google gives. Its older APIs answer 403 where they
/// mean 429.
pub(super) fn error(failure: Failure) -> StoreError {
    let code = reason(&failure.body).unwrap_or_default();
    let retry_after = failure.retry_after;
    match failure.status.as_u16() {
        401 => StoreError::Unauthorized { code },
        403 => match code.as_str() {
            "rateLimitExceeded" | "userRateLimitExceeded" | "quotaExceeded" | "dailyLimitExceeded" => {
                StoreError::RateLimited { retry_after }
            }
            "permissionDenied" | "insufficientPermissions" | "forbidden" | "PERMISSION_DENIED" => {
                StoreError::Forbidden { cause: ForbiddenCause::Role, code }
            }
            _ => StoreError::Forbidden { cause: ForbiddenCause::Other, code },
        },
        404 | 410 => StoreError::NotFound { code },
        429 => StoreError::RateLimited { retry_after },
        status @ 500..=599 => StoreError::Server { status, retry_after },
        status => StoreError::Refused { status, code },
    }
}

/// The reason of the first error of a body, else the status's name.
fn reason(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let error = body.get("error")?;
    let reason = error.pointer("/errors/0/reason").or_else(|| error.get("status"))?;
    reason.as_str().map(clean_code)
}
