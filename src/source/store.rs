//! What differs between the stores, where the planner and the recording have to know it.

use super::look::Heat;
use super::{app_store, google_play};
use crate::observation::Kind;
use std::collections::HashSet;

/// A store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// App Store Connect.
    AppStore,
    /// Google Play.
    GooglePlay,
}

impl Store {
    /// How likely a state is to change by the store's doing.
    #[must_use]
    pub fn heat(self, kind: Kind, state: &str) -> Heat {
        match self {
            Self::AppStore => app_store::looks::heat(kind, state),
            Self::GooglePlay => google_play::looks::heat(kind, state),
        }
    }

    /// Whether the store's description has this state. Ours (of apps and availabilities) are known.
    #[must_use]
    pub fn knows(self, kind: Kind, state: &str) -> bool {
        match self {
            Self::AppStore => app_store::states::is_known(kind, state),
            Self::GooglePlay => google_play::states::known_values(kind).contains(&state),
        }
    }

    /// Whether a subject of this kind can be asked for by itself.
    #[must_use]
    pub fn has_address(self, kind: Kind) -> bool {
        match self {
            Self::AppStore => !matches!(kind, Kind::Release | Kind::Rollout),
            Self::GooglePlay => false,
        }
    }

    /// Whether a whole list of apps names every poll that there is reason for, so that others are dropped.
    #[must_use]
    pub fn list_of_apps_is_the_plan(self) -> bool {
        self == Self::AppStore
    }

    /// The poll whose answer tells all that this one's would.
    #[must_use]
    pub fn within(self, poll: &str) -> Option<String> {
        match self {
            Self::AppStore => match app_store::looks::Poll::parse(poll)? {
                app_store::looks::Poll::RecentBuilds => Some(app_store::looks::Poll::Builds.name()),
                _ => None,
            },
            Self::GooglePlay => None,
        }
    }

    /// Whether a poll tells something hot: of these kinds, in these apps.
    #[must_use]
    pub fn is_hot(self, poll: &str, hot: &HashSet<(Kind, String)>) -> bool {
        match self {
            Self::AppStore => app_store::looks::Poll::parse(poll).is_some_and(|poll| {
                hot.iter().any(|(kind, scope)| app_store::looks::covers(&poll, *kind, scope))
            }),
            Self::GooglePlay => google_play::looks::Poll::parse(poll).is_some_and(|poll| {
                hot.iter().any(|(kind, scope)| google_play::looks::covers(&poll, *kind, scope))
            }),
        }
    }

    /// Whether its absence from complete listings, again and again, says that a subject is no longer visible, where it
    /// has no address: Google lists what is on a track, and there is nothing else to ask.
    #[must_use]
    pub fn listing_tells(self, kind: Kind) -> bool {
        self == Self::GooglePlay && matches!(kind, Kind::App | Kind::Release)
    }
}
