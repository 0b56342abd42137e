//! A team's resources as App Store Connect tells them.

mod builds;
mod review;
mod sale;
mod webhooks;

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::app_store::jsonapi::{Relationship, Resource, Target};
use crate::app_store::view::{Node, View, pre_release_id};
use crate::scenario::{App, AppStoreTeam, Version, app_store_state};

/// An app's relationships to what the simulator does not have.
const APP_ELSEWHERE: &[&str] = &[
    "accessibilityDeclarations",
    "appEncryptionDeclarations",
    "ciProduct",
    "betaGroups",
    "betaAppLocalizations",
    "betaLicenseAgreement",
    "betaAppReviewDetail",
    "appClips",
    "endUserLicenseAgreement",
    "appPriceSchedule",
    "appAvailabilityV2",
    "gameCenterEnabledVersions",
    "promotedPurchases",
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

impl View<'_> {
    /// A resource as it is told.
    pub(crate) fn resource(&self, node: Node<'_>) -> Resource {
        match node {
            Node::App(app) => self.app_resource(app),
            Node::Version(version) => self.version_resource(version),
            Node::PhasedRelease(version) => phased_release(version),
            Node::Build(build) => self.build_resource(build),
            Node::BetaDetail(build) => builds::beta_detail(build),
            Node::PreRelease(build) => self.pre_release_resource(build),
            Node::BetaReview(review) => builds::beta_review(review),
            Node::Upload(upload) => builds::upload(upload),
            Node::Submission(submission) => self.submission_resource(submission),
            Node::Item(item) => review::item(item),
            Node::Info(info) => review::info(info),
            Node::Purchase(purchase) => sale::purchase(purchase),
            Node::OldPurchase(purchase) => sale::old_purchase(purchase),
            Node::Group(group) => self.group_resource(group),
            Node::Subscription(subscription) => sale::subscription(subscription),
            Node::Event(event) => sale::event(event),
            Node::Availability(availability) => sale::availability(availability),
            Node::TerritoryAvailability(availability, territory) => {
                sale::territory_availability(availability, territory)
            }
            Node::Territory(territory) => sale::territory(territory),
            Node::User(team) => user(team),
            Node::Webhook(webhook) => webhooks::webhook(webhook),
            Node::Delivery(delivery) => self.delivery_resource(delivery),
            Node::WebhookEvent(delivery) => webhooks::event(delivery),
        }
    }

    fn app_resource(&self, app: &App) -> Resource {
        let mut pre_releases = Vec::new();
        for id in self.builds.of(&app.id).iter().map(|build| pre_release_id(build)) {
            if !pre_releases.contains(&id) {
                pre_releases.push(id);
            }
        }
        Resource {
            kind: "apps",
            id: app.id.clone(),
            collection: Some("/v1/apps"),
            attributes: vec![
                ("name", text(&app.name)),
                ("bundleId", text(&app.bundle_id)),
                ("sku", text(app.sku.as_ref().unwrap_or(&app.bundle_id))),
                ("primaryLocale", text(&app.primary_locale)),
                ("isOrEverWasMadeForKids", Some(false.into())),
                ("contentRightsDeclaration", text("DOES_NOT_USE_THIRD_PARTY_CONTENT")),
            ],
            relationships: vec![
                many("appStoreVersions", "appStoreVersions", self.versions.ids_of(&app.id)),
                many("builds", "builds", self.builds.ids_of(&app.id)),
                many("preReleaseVersions", "preReleaseVersions", pre_releases),
                many("appInfos", "appInfos", self.infos.ids_of(&app.id)),
                many("inAppPurchasesV2", "inAppPurchases", self.purchases.ids_of(&app.id)),
                many("subscriptionGroups", "subscriptionGroups", self.groups.ids_of(&app.id)),
                many("appEvents", "appEvents", self.events.ids_of(&app.id)),
                many("reviewSubmissions", "reviewSubmissions", self.submissions.ids_of(&app.id)),
            ]
            .into_iter()
            .chain(elsewhere(APP_ELSEWHERE))
            .collect(),
        }
    }

    fn version_resource(&self, version: &Version) -> Resource {
        let current = if self.team.old_states { None } else { text(&version.state) };
        let old = app_store_state(&version.state);
        Resource {
            kind: "appStoreVersions",
            id: version.id.clone(),
            collection: Some("/v1/appStoreVersions"),
            attributes: vec![
                ("platform", text(&version.platform)),
                ("versionString", text(&version.version_string)),
                ("appStoreState", text(old)),
                ("appVersionState", current),
                (
                    "copyright",
                    text(version.created.map_or(String::new(), |date| format!("© {}", date.year()))),
                ),
                ("reviewType", text("APP_STORE")),
                ("releaseType", text(&version.release_type)),
                // The store tells null where there is none, which its description does not allow.
                ("earliestReleaseDate", date(version.created)),
                ("usesIdfa", Some(false.into())),
                ("downloadable", Some((old == "READY_FOR_SALE").into())),
                ("createdDate", date(version.created)),
            ],
            relationships: [
                unlinked(one("app", "apps", Some(version.app.clone()))),
                one("build", "builds", version.build.clone()),
                one("appStoreVersionPhasedRelease", "appStoreVersionPhasedReleases", version.phased_id()),
            ]
            .into_iter()
            .chain(elsewhere(VERSION_ELSEWHERE))
            .collect(),
        }
    }
}

/// A version's phased release.
fn phased_release(version: &Version) -> Resource {
    let phased = version.phased_release.as_ref();
    Resource {
        kind: "appStoreVersionPhasedReleases",
        id: version.phased_id().unwrap_or_default(),
        collection: Some("/v1/appStoreVersionPhasedReleases"),
        attributes: vec![
            ("phasedReleaseState", phased.and_then(|phased| text(&phased.state))),
            ("startDate", date(version.created)),
            ("totalPauseDuration", Some(0.into())),
            ("currentDayNumber", phased.and_then(|phased| phased.day).map(Into::into)),
        ],
        relationships: Vec::new(),
    }
}

/// The account holder of a team, which is all its users here.
fn user(team: &AppStoreTeam) -> Resource {
    Resource {
        kind: "users",
        id: "account-holder".to_owned(),
        collection: Some("/v1/users"),
        attributes: vec![
            ("username", text("holder@example.com")),
            ("firstName", text("Account")),
            ("lastName", text(&team.name)),
            ("roles", Some(vec!["ACCOUNT_HOLDER", "ADMIN"].into())),
            ("allAppsVisible", Some(true.into())),
            ("provisioningAllowed", Some(true.into())),
        ],
        relationships: elsewhere(&["visibleApps"]).collect(),
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

/// A relationship that the description gives no links.
fn unlinked(relationship: Relationship) -> Relationship {
    Relationship { linked: false, ..relationship }
}

fn elsewhere(names: &'static [&'static str]) -> impl Iterator<Item = Relationship> {
    names.iter().map(|name| Relationship { name, kind: "", target: Target::Elsewhere, linked: true })
}
