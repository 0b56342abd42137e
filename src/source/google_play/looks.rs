//! One poll of Google Play at a time, and what it brings.
//!
//! | poll | requests | brings |
//! |---|---|---|
//! | `apps` | 1 for 1000 apps | the apps that the account sees, and the polls of each |
//! | `tracks:PACKAGE` | 1 | the polls of the tracks of its own |
//! | `releases:PACKAGE/TRACK` | 1 | the releases on the track, with their lifecycle states |
//! | `rollouts:PACKAGE` | 3 | how far each release is rolled out; only where edits are on ([`super::edits`]) |
//!
//! Releases are listed track by track, so that the scope of a release, and of the listing that covers it, is
//! `PACKAGE/TRACK`: a walk over one track says nothing about what is missing from another. Rollouts come for all
//! tracks at once; their scope is the package.

use std::collections::{BTreeSet, HashMap};

use statusledger_verify::json::{Object, Value};

use super::answer::{App, Listed, Release, Rollout, is_package, is_track};
use super::client::{PAGE, PlayClient, WELL_KNOWN_TRACKS};
use super::edits::{self, EditsMode};
use super::states::VISIBLE;
pub use super::states::heat;
use crate::observation::{Kind, Observation};
use crate::source::fetch::StoreError;
use crate::source::look::{Covered, Look, MAX_POLL, kept};

/// Something that can be asked of Google Play at once.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Poll {
    /// The apps.
    Apps,
    /// The tracks of an app, by its package name.
    Tracks(String),
    /// The releases on a track.
    Releases {
        /// The app's package name.
        package: String,
        /// The track.
        track: String,
    },
    /// The rollouts of an app, by its package name.
    Rollouts(String),
}

impl Poll {
    /// Its name: `apps`, `tracks:com.example`, `releases:com.example/production`, `rollouts:com.example`.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Apps => "apps".to_owned(),
            Self::Tracks(package) => format!("tracks:{package}"),
            Self::Releases { package, track } => format!("releases:{}", track_scope(package, track)),
            Self::Rollouts(package) => format!("rollouts:{package}"),
        }
    }

    /// The poll of that name; none where the name is none that [`Poll::name`] gives.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let app = |package: &str| is_package(package).then(|| package.to_owned());
        match name.split_once(':') {
            None => (name == "apps").then_some(Self::Apps),
            Some(("tracks", package)) => app(package).map(Self::Tracks),
            Some(("rollouts", package)) => app(package).map(Self::Rollouts),
            Some(("releases", scope)) => {
                // A package has no slash, and a track may have one.
                let (package, track) = scope.split_once('/')?;
                let track = is_track(track).then(|| track.to_owned())?;
                app(package).map(|package| Self::Releases { package, track })
            }
            Some(_) => None,
        }
    }
}

/// The scope of what is on one track.
fn track_scope(package: &str, track: &str) -> String {
    format!("{package}/{track}")
}

/// Whether a poll brings the subjects of a kind and scope (of [`Observation::scope`]): the one to make when such a
/// subject is to be seen again.
#[must_use]
pub fn covers(poll: &Poll, kind: Kind, scope: &str) -> bool {
    match (poll, kind) {
        (Poll::Apps, Kind::App) => true,
        (Poll::Releases { package, track }, Kind::Release) => scope == track_scope(package, track),
        (Poll::Rollouts(package), Kind::Rollout) => scope == package,
        _ => false,
    }
}

/// The fewest requests that read everything once: of `apps` apps with `tracks` tracks together (each app has four, and
/// those of its own), with their rollouts where `edits` are on. An access token, one request an hour, is not counted.
///
/// Each track has to be asked for: the filter options name only tracks on which a release is out, and no state.
#[must_use]
pub const fn minimum_requests(apps: u64, tracks: u64, edits: bool) -> u64 {
    let pages = apps.div_ceil(PAGE as u64);
    let pages = if pages == 0 { 1 } else { pages };
    pages + apps + tracks + if edits { 3 * apps } else { 0 }
}

/// Makes a poll. What it brought is in `look` also where it fails.
///
/// # Errors
/// What the store said. [`StoreError::NotFound`] means that the app, or the track of a `releases` poll, is not there
/// (any more), and is no trouble of the source. For what edits can be refused with see [`super::edits`].
pub async fn look(
    client: &PlayClient,
    poll: &Poll,
    edits: EditsMode<'_>,
    look: &mut Look,
) -> Result<(), StoreError> {
    match poll {
        Poll::Apps => apps(client, edits, look).await,
        Poll::Tracks(package) => {
            let listed = client.tracks(package).await?;
            look.unread += listed.unread;
            plan(package, listed.items, look);
            Ok(())
        }
        Poll::Releases { package, track } => {
            let listed = client.releases(package, track).await?;
            releases(package, track, client.title(package).as_deref(), listed, look);
            Ok(())
        }
        Poll::Rollouts(package) => match edits {
            EditsMode::Off => Err(edits::not_switched_on()),
            EditsMode::On(log) => {
                let (tracks, discarded) = edits::read(client, log, package).await?;
                // Here a track of the app's own is called as the API calls it.
                plan(package, tracks.tracks, look);
                rollouts(package, client.title(package).as_deref(), tracks.rollouts, look);
                discarded
            }
        },
    }
}

fn releases_poll(package: &str, track: String) -> String {
    Poll::Releases { package: package.to_owned(), track }.name()
}

/// Takes the polls of these tracks into a look. One whose name is too long for a poll is unread.
pub(super) fn plan(package: &str, tracks: Vec<String>, look: &mut Look) {
    for track in tracks {
        let poll = releases_poll(package, track);
        if poll.chars().count() <= MAX_POLL {
            look.polls.push(poll);
        } else {
            look.unread += 1;
        }
    }
}

async fn apps(client: &PlayClient, edits: EditsMode<'_>, look: &mut Look) -> Result<(), StoreError> {
    listed_apps(client.apps().await?, edits.is_on(), look);
    Ok(())
}

/// Takes a list of apps into a look, with the polls that there is reason for.
pub(super) fn listed_apps(listed: Listed<App>, edits: bool, look: &mut Look) {
    look.unread += listed.unread;
    if listed.complete {
        look.covered.push(Covered { kind: Kind::App, scope: None });
    }
    for app in listed.items {
        let package = app.package;
        look.polls.extend(WELL_KNOWN_TRACKS.map(|track| releases_poll(&package, track.to_owned())));
        look.polls.push(Poll::Tracks(package.clone()).name());
        if edits {
            look.polls.push(Poll::Rollouts(package.clone()).name());
        }
        let mut description = Object::new();
        if let Some(title) = app.display_name {
            description.insert("name".into(), Value::String(kept(&title)));
        }
        look.observations.push(Observation {
            kind: Kind::App,
            key: package.clone(),
            app: package.clone(),
            scope: package,
            description,
            state: VISIBLE.to_owned(),
            facts: Object::new(),
            store_at: None,
        });
    }
}

/// What a release is known by, and its rollout: package, track and version codes, since names repeat. A release without
/// artifacts has no codes and is known by its name, which is marked as one: no number begins with a letter. In each
/// part `%` and `/` are escaped, so that there are three for sure.
fn release_key(package: &str, track: &str, codes: &BTreeSet<i64>, name: Option<&str>) -> String {
    let escape = |text: &str| text.replace('%', "%25").replace('/', "%2F");
    let last = match (codes.is_empty(), name) {
        (true, Some(name)) => format!("name:{}", escape(name)),
        (true, None) => "unnamed".to_owned(),
        (false, _) => codes.iter().map(ToString::to_string).collect::<Vec<_>>().join("+"),
    };
    format!("{package}/{}/{last}", escape(track))
}

/// The longest key that is kept, in bytes. A release has a handful of artifacts.
const MAX_KEY: usize = 1000;

/// What people know a release by.
fn description(title: Option<&str>, track: &str, codes: &BTreeSet<i64>, name: Option<&str>) -> Object {
    let text = |text: &str| Value::String(kept(text));
    let mut description = Object::new();
    description.insert("track".into(), text(track));
    let codes = codes.iter().map(|code| Value::String(code.to_string())).collect();
    description.insert("version_codes".into(), Value::Array(codes));
    for (member, value) in [("name", title), ("release", name)] {
        if let Some(value) = value {
            description.insert(member.into(), text(value));
        }
    }
    description
}

/// Takes what a listing of a track said into a look.
pub(super) fn releases(
    package: &str,
    track: &str,
    title: Option<&str>,
    listed: Listed<Release>,
    look: &mut Look,
) {
    let scope = track_scope(package, track);
    let said = listed.items.into_iter().map(|release| Observation {
        kind: Kind::Release,
        key: release_key(package, track, &release.version_codes, release.name.as_deref()),
        app: package.to_owned(),
        scope: scope.clone(),
        description: description(title, track, &release.version_codes, release.name.as_deref()),
        state: release.lifecycle_state,
        facts: Object::new(),
        store_at: None,
    });
    let ambiguous = take(said.collect(), look);
    look.unread += listed.unread;
    if listed.complete && !ambiguous {
        look.covered.push(Covered { kind: Kind::Release, scope: Some(scope) });
    }
}

pub(super) fn rollouts(package: &str, title: Option<&str>, listed: Listed<Rollout>, look: &mut Look) {
    let said = listed.items.into_iter().map(|rollout| {
        let mut facts = Object::new();
        facts.insert("in_app_update_priority".into(), Value::Int(rollout.in_app_update_priority.into()));
        if let Some(fraction) = rollout.user_fraction {
            facts.insert("user_fraction".into(), Value::String(fraction));
        }
        let (codes, name) = (&rollout.version_codes, rollout.name.as_deref());
        Observation {
            kind: Kind::Rollout,
            key: release_key(package, &rollout.track, codes, name),
            app: package.to_owned(),
            scope: package.to_owned(),
            description: description(title, &rollout.track, codes, name),
            state: rollout.status,
            facts,
            store_at: None,
        }
    });
    let ambiguous = take(said.collect(), look);
    look.unread += listed.unread;
    if listed.complete && !ambiguous {
        look.covered.push(Covered { kind: Kind::Rollout, scope: Some(package.to_owned()) });
    }
}

/// Takes observations of one listing, each subject once. Where a listing says two things of a subject (two releases
/// with the same codes on a track, or without codes under one name), neither is taken: which of them comes first would
/// make a transition of every shuffle. What has too many artifacts or too long a name to be known by is not taken, either.
/// Says whether there was any.
fn take(said: Vec<Observation>, look: &mut Look) -> bool {
    let mut states: HashMap<String, BTreeSet<String>> = HashMap::new();
    for observation in &said {
        let all = format!("{} {}", observation.state, Value::Object(observation.facts.clone()).canonical());
        states.entry(observation.key.clone()).or_default().insert(all);
    }
    let mut ambiguous = false;
    for observation in said {
        if observation.key.len() > MAX_KEY {
            ambiguous = true;
            look.unread += 1;
            continue;
        }
        match states.get_mut(&observation.key) {
            Some(states) if states.len() == 1 => {
                // Said; what repeats it is not another.
                states.clear();
                look.observations.push(observation);
            }
            Some(states) if states.is_empty() => {}
            _ => {
                ambiguous = true;
                look.unread += 1;
            }
        }
    }
    ambiguous
}

#[cfg(test)]
#[path = "looks_tests.rs"]
mod tests;
