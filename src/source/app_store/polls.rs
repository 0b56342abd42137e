//! What App Store Connect is asked in one go, by name, and what a sweep costs at least.
//!
//! A list of apps includes most of what an app has, 50 of each kind, so that one request for 200 apps tells the states
//! of their versions, submissions, infos, purchases and events. What it cannot include is asked for per key where the
//! API allows that (builds, and review submissions with their items), and per app where it does not. A kind that an app
//! has more of than fit has a poll of its own for that app.
//!
//! Hot polls are the cheap ones: a version in review makes the list of apps hot, a build in processing the newest page
//! of builds (with the builds that are hot and no longer on it, by name), and neither makes the long lists hot.

use super::document::is_segment;
use crate::observation::Kind;

/// The longest id of an app that a poll is named after, in bytes. Apple's have ten digits.
const MAX_ID: usize = 64;

/// One poll. Its name is a key in rows, and stable.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Poll {
    /// `apps`: the apps, and what a list of them includes.
    Apps,
    /// `builds`: all builds of all apps, with their TestFlight states and reviews.
    Builds,
    /// `recent_builds`: the 200 newest of these, in one request, and those that are hot and older, in one for each 50.
    RecentBuilds,
    /// `reviews`: all review submissions of all apps, with their items.
    Reviews,
    /// `reviews:ID`: those of an app. There is reason for it while one is open, or there are too many to include.
    ReviewsOf(String),
    /// `versions:ID`: an app's versions, for the builds and phased releases that a list of apps does not tell.
    Versions(String),
    /// `all_versions:ID`: the same, of an app that has more versions than a list of apps includes.
    AllVersions(String),
    /// `subscriptions:ID`: an app's subscriptions, where it has groups of them.
    Subscriptions(String),
    /// `in_app_purchases:ID`: an app's in-app purchases, where there are too many to include.
    InAppPurchases(String),
    /// `app_infos:ID`: an app's infos, where there are too many to include.
    AppInfos(String),
    /// `app_events:ID`: an app's events, where there are too many to include.
    AppEvents(String),
    /// `uploads:ID`: an app's uploads of builds.
    Uploads(String),
    /// `availability:ID`: where an app can be had.
    Availability(String),
    /// `webhooks:ID`: what the webhooks set up for an app have sent, or tried to. There is reason for it where this
    /// source is told by webhooks.
    Webhooks(String),
}

impl Poll {
    /// Its name, at most 100 bytes where it was parsed or came from a look.
    #[must_use]
    pub fn name(&self) -> String {
        let (what, id) = self.parts();
        match id {
            Some(id) => format!("{what}:{id}"),
            None => what.to_owned(),
        }
    }

    /// The poll of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let Some((what, id)) = name.split_once(':') else {
            return match name {
                "apps" => Some(Self::Apps),
                "builds" => Some(Self::Builds),
                "recent_builds" => Some(Self::RecentBuilds),
                "reviews" => Some(Self::Reviews),
                _ => None,
            };
        };
        if !names_an_app(id) {
            return None;
        }
        let id = id.to_owned();
        match what {
            "reviews" => Some(Self::ReviewsOf(id)),
            "versions" => Some(Self::Versions(id)),
            "all_versions" => Some(Self::AllVersions(id)),
            "subscriptions" => Some(Self::Subscriptions(id)),
            "in_app_purchases" => Some(Self::InAppPurchases(id)),
            "app_infos" => Some(Self::AppInfos(id)),
            "app_events" => Some(Self::AppEvents(id)),
            "uploads" => Some(Self::Uploads(id)),
            "availability" => Some(Self::Availability(id)),
            "webhooks" => Some(Self::Webhooks(id)),
            _ => None,
        }
    }

    /// The app that it is about; none where it is about all that the key sees.
    #[must_use]
    pub fn scope(&self) -> Option<&str> {
        self.parts().1
    }

    fn parts(&self) -> (&'static str, Option<&str>) {
        match self {
            Self::Apps => ("apps", None),
            Self::Builds => ("builds", None),
            Self::RecentBuilds => ("recent_builds", None),
            Self::Reviews => ("reviews", None),
            Self::ReviewsOf(id) => ("reviews", Some(id)),
            Self::Versions(id) => ("versions", Some(id)),
            Self::AllVersions(id) => ("all_versions", Some(id)),
            Self::Subscriptions(id) => ("subscriptions", Some(id)),
            Self::InAppPurchases(id) => ("in_app_purchases", Some(id)),
            Self::AppInfos(id) => ("app_infos", Some(id)),
            Self::AppEvents(id) => ("app_events", Some(id)),
            Self::Uploads(id) => ("uploads", Some(id)),
            Self::Availability(id) => ("availability", Some(id)),
            Self::Webhooks(id) => ("webhooks", Some(id)),
        }
    }
}

/// Whether polls can be named after an app with this id.
pub(super) fn names_an_app(id: &str) -> bool {
    (1..=MAX_ID).contains(&id.len())
        && is_segment(id)
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// Whether this is the poll to make hot for a subject of this kind and app that is hot: of those that tell its state
/// the cheapest that certainly does, or both where that depends on how much the app has.
#[must_use]
pub fn covers(poll: &Poll, kind: Kind, scope: &str) -> bool {
    let kinds: &[Kind] = match poll {
        Poll::Apps => &[Kind::App, Kind::Version, Kind::AppInfo, Kind::InAppPurchase, Kind::AppEvent],
        Poll::RecentBuilds => &[Kind::Build, Kind::BetaInternal, Kind::BetaExternal, Kind::BetaReview],
        // Their hot part is in `recent_builds` and in `reviews:ID`; what webhooks have sent is looked through at leisure.
        Poll::Builds | Poll::Reviews | Poll::Webhooks(_) => &[],
        Poll::ReviewsOf(_) => &[Kind::ReviewSubmission, Kind::ReviewItem],
        Poll::Versions(_) => &[Kind::PhasedRelease],
        Poll::AllVersions(_) => &[Kind::Version, Kind::PhasedRelease],
        Poll::Subscriptions(_) => &[Kind::Subscription],
        Poll::InAppPurchases(_) => &[Kind::InAppPurchase],
        Poll::AppInfos(_) => &[Kind::AppInfo],
        Poll::AppEvents(_) => &[Kind::AppEvent],
        Poll::Uploads(_) => &[Kind::BuildUpload],
        Poll::Availability(_) => &[Kind::Availability],
    };
    kinds.contains(&kind) && poll.scope().is_none_or(|id| id == scope)
}

/// How much there is behind a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Apps.
    pub apps: u64,
    /// Builds, of all apps.
    pub builds: u64,
    /// Review submissions, of all apps.
    pub review_submissions: u64,
    /// Apps with a subscription group.
    pub apps_with_subscriptions: u64,
}

/// The fewest requests that tell every status behind a key once, as the API's page sizes and includes are:
///
/// | what | requests |
/// |---|---|
/// | apps, with versions, submissions, infos, purchases, events | apps / 200 |
/// | builds, with TestFlight states and reviews | builds / 200 |
/// | submissions with items | apps / 50 or submissions / 200, whichever is more |
/// | versions' builds and phased releases | 1 an app |
/// | uploads | 1 an app |
/// | availability, and its territories | 2 an app |
/// | subscriptions | 1 an app that has groups |
///
/// each rounded up, and one at least. So with 100 submissions and 100 builds an app, subscriptions in half of the apps:
/// 1 app is `1 + 1 + 1 + 4 + 1 = 8`, 20 apps are `1 + 10 + 10 + 80 + 10 = 111`, 200 are
/// `1 + 100 + 100 + 800 + 100 = 1101`. An app with more than 50 of an included kind, or 200 of a listed one, adds the
/// further pages of that list, which are not counted here.
#[must_use]
pub fn minimum_requests(counts: &Counts) -> u64 {
    let pages = |count: u64, page: u64| count.div_ceil(page).max(1);
    if counts.apps == 0 {
        return 1;
    }
    let reviews =
        pages(counts.apps, super::requests::APPS_A_REQUEST as u64).max(pages(counts.review_submissions, 200));
    pages(counts.apps, 200)
        + pages(counts.builds, 200)
        + reviews
        + 4 * counts.apps
        + counts.apps_with_subscriptions
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::observation::KINDS;

    fn polls(id: &str) -> Vec<Poll> {
        let id = || id.to_owned();
        vec![
            Poll::Apps,
            Poll::Builds,
            Poll::RecentBuilds,
            Poll::Reviews,
            Poll::ReviewsOf(id()),
            Poll::Versions(id()),
            Poll::AllVersions(id()),
            Poll::Subscriptions(id()),
            Poll::InAppPurchases(id()),
            Poll::AppInfos(id()),
            Poll::AppEvents(id()),
            Poll::Uploads(id()),
            Poll::Availability(id()),
            Poll::Webhooks(id()),
        ]
    }

    #[test]
    fn a_name_is_its_poll_and_fits_its_column() {
        let longest = "9".repeat(MAX_ID);
        for poll in polls(&longest).into_iter().chain(polls("1001")) {
            assert_eq!(Poll::parse(&poll.name()), Some(poll.clone()), "{poll:?}");
            assert!(poll.name().len() <= 100);
        }
        for name in [
            "",
            "app",
            "apps:1",
            "builds:1",
            "versions",
            "versions:",
            "versions:1:2",
            "versions:a b",
            "x:1",
            "versions:.",
            "versions:..",
        ] {
            assert_eq!(Poll::parse(name), None, "{name}");
        }
        assert_eq!(Poll::parse(&format!("versions:{longest}9")), None);
    }

    #[test]
    fn every_kind_of_apples_has_a_poll_to_make_hot_and_none_of_another_app() {
        for (kind, name) in KINDS {
            let hot: Vec<_> = polls("1001").into_iter().filter(|poll| covers(poll, kind, "1001")).collect();
            let googles = matches!(kind, Kind::Release | Kind::Rollout);
            assert_eq!(hot.is_empty(), googles, "{name}");
            for poll in polls("2002").iter().filter(|poll| poll.scope().is_some()) {
                assert!(!covers(poll, kind, "1001"), "{poll:?} {name}");
            }
        }
    }

    #[test]
    fn the_minimum_is_as_its_arithmetic_says() {
        let with = |apps: u64| Counts {
            apps,
            builds: 100 * apps,
            review_submissions: 100 * apps,
            apps_with_subscriptions: apps.div_ceil(2),
        };
        assert_eq!(minimum_requests(&Counts::default()), 1);
        assert_eq!(minimum_requests(&with(1)), 8);
        assert_eq!(minimum_requests(&with(20)), 111);
        assert_eq!(minimum_requests(&with(200)), 1101);
        let few = Counts { apps: 201, builds: 1, review_submissions: 1, apps_with_subscriptions: 0 };
        assert_eq!(minimum_requests(&few), 2 + 1 + 5 + 4 * 201);
    }
}
