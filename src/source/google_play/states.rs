//! The states that Google's descriptions name, and who acts next in each.

use crate::observation::Kind;
use crate::source::look::Heat;

/// What the state of an app that is listed is called. Google has no name for it: its list says that the account sees
/// the app, and nothing about the store.
pub const VISIBLE: &str = "VISIBLE";

const APP: [(&str, Heat); 1] = [(VISIBLE, Heat::Settled)];

/// `ReleaseSummary.releaseLifecycleState` of the publisher API, without the prefix `RELEASE_LIFECYCLE_STATE_`.
///
/// Google acts next on what is in review alone. A draft, what was not sent, what was rejected and what was approved
/// wait for the team; what is published stays (a rollout grows by the team's hand, and only edits show it).
const RELEASE: [(&str, Heat); 7] = [
    ("UNSPECIFIED", Heat::Hot),
    ("DRAFT", Heat::Settled),
    ("NOT_SENT_FOR_REVIEW", Heat::Settled),
    ("IN_REVIEW", Heat::Hot),
    ("APPROVED_NOT_PUBLISHED", Heat::Settled),
    ("NOT_APPROVED", Heat::Settled),
    ("PUBLISHED", Heat::Settled),
];

/// `TrackRelease.status` of the publisher API. A rollout in progress is what people watch.
const ROLLOUT: [(&str, Heat); 5] = [
    ("statusUnspecified", Heat::Hot),
    ("draft", Heat::Settled),
    ("inProgress", Heat::Hot),
    ("halted", Heat::Settled),
    ("completed", Heat::Settled),
];

const APP_VALUES: [&str; APP.len()] = values(APP);
const RELEASE_VALUES: [&str; RELEASE.len()] = values(RELEASE);
const ROLLOUT_VALUES: [&str; ROLLOUT.len()] = values(ROLLOUT);

const fn values<const N: usize>(states: [(&'static str, Heat); N]) -> [&'static str; N] {
    let mut values = [""; N];
    let mut index = 0;
    while index < N {
        values[index] = states[index].0;
        index += 1;
    }
    values
}

/// The states of subjects of a kind that are known; none for a kind that Google Play has not. Others may come, and are
/// kept as they are.
#[must_use]
pub const fn known_values(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::App => &APP_VALUES,
        Kind::Release => &RELEASE_VALUES,
        Kind::Rollout => &ROLLOUT_VALUES,
        _ => &[],
    }
}

/// How likely it is that a state changes without the team's doing. A state that nobody knows is watched.
#[must_use]
pub fn heat(kind: Kind, state: &str) -> Heat {
    let states: &[(&str, Heat)] = match kind {
        Kind::App => &APP,
        Kind::Release => &RELEASE,
        Kind::Rollout => &ROLLOUT,
        _ => &[],
    };
    states.iter().find(|(known, _)| *known == state).map_or(Heat::Hot, |(_, heat)| *heat)
}

#[cfg(test)]
#[path = "states_tests.rs"]
mod tests;
