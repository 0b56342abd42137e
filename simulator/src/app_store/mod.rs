//! App Store Connect: the reads of what has a status, and of what was sent to webhooks.

pub(crate) mod errors;
pub(crate) mod fields;
pub(crate) mod jsonapi;
pub(crate) mod resources;
mod routes;
pub(crate) mod token;
pub(crate) mod view;

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::app_store::errors::ApiError;
use crate::app_store::jsonapi::{Asked, Distortion, Query};
use crate::app_store::routes::{ROUTES, Route};
use crate::app_store::view::{Node, View};
use crate::scenario::{Build, Item, Version, app_store_state};

/// What is asked of App Store Connect: a path, and the id in it.
pub(crate) struct Operation {
    route: &'static Route,
    id: String,
}

/// What an operation finds.
enum Found<'a> {
    One(Node<'a>),
    Many(Vec<Node<'a>>),
}

impl Operation {
    /// The operation at a path, given as its decoded segments.
    pub(crate) fn at(segments: &[&str]) -> Option<Self> {
        ROUTES.iter().find_map(|route| {
            let mut id = String::new();
            let mut wanted = route.template.split('/').skip(1);
            for segment in segments {
                match wanted.next()? {
                    "{id}" if !segment.is_empty() => (*segment).clone_into(&mut id),
                    literal if literal == *segment => {}
                    _ => return None,
                }
            }
            wanted.next().is_none().then_some(Self { route, id })
        })
    }

    /// Its path in Apple's description.
    pub(crate) fn template(&self) -> &'static str {
        self.route.template
    }

    /// The answer from what a team's key sees. The newest come first, as the store gives them.
    pub(crate) fn answer(
        &self,
        view: &View<'_>,
        base: &str,
        path: &str,
        query_text: &str,
        distorted: Distortion,
    ) -> Result<Value, ApiError> {
        let query = &Query::parse(query_text, &self.route.listing, distorted)?;
        let found = self.find(view, query)?;
        let asked = Asked { base, path, query_text, query, kind: self.route.listing.kind, view };
        Ok(match found {
            Found::One(node) => asked.one(node),
            Found::Many(nodes) => asked.page(nodes),
        })
    }

    fn find<'a>(&self, view: &View<'a>, query: &Query) -> Result<Found<'a>, ApiError> {
        let id = self.id.as_str();
        let kind = self.route.listing.kind;
        if self.template().matches('/').count() == 3 && !self.route.listing.paged {
            let found = view.find(kind, id, kind);
            return found.map(Found::One).ok_or_else(|| ApiError::not_found(kind, id));
        }
        if self.template().starts_with("/v1/apps/") && view.app(id).is_none() {
            return Err(ApiError::not_found("apps", id));
        }
        let there = |known: bool, kind: &str| if known { Ok(()) } else { Err(ApiError::not_found(kind, id)) };
        Ok(Found::Many(match self.template() {
            "/v1/apps" => apps(view, query),
            "/v1/users" if view.team.admin => vec![Node::User(view.team)],
            "/v1/users" => return Err(ApiError::forbidden()),
            "/v1/apps/{id}/appStoreVersions" => versions(view, query, id),
            "/v1/builds" => builds(view, query),
            "/v1/buildBetaDetails" => {
                let passes =
                    |build: &&Build| query.passes("id", &build.id) && query.passes("build", &build.id);
                view.builds.all().filter(passes).map(Node::BetaDetail).collect()
            }
            "/v1/betaAppReviewSubmissions" => view
                .beta_reviews
                .all()
                .filter(|review| {
                    query.passes("build", &review.build) && query.passes("betaReviewState", &review.state)
                })
                .map(Node::BetaReview)
                .collect(),
            "/v1/reviewSubmissions" => view
                .submissions
                .all()
                .filter(|submission| {
                    query.passes("app", &submission.app)
                        && query.passes("platform", &submission.platform)
                        && query.passes("state", &submission.state)
                })
                .map(Node::Submission)
                .collect(),
            "/v1/reviewSubmissions/{id}/items" => {
                there(view.submissions.get(id).is_some(), "reviewSubmissions")?;
                all(view.items.of(id), Node::Item, |_| true)
            }
            "/v1/apps/{id}/appInfos" => all(view.infos.of(id), Node::Info, |_| true),
            "/v1/apps/{id}/inAppPurchasesV2" => all(view.purchases.of(id), Node::Purchase, |purchase| {
                query.passes("productId", &purchase.product_id)
                    && query.passes("name", &purchase.name)
                    && query.passes("state", &purchase.state)
                    && query.passes("inAppPurchaseType", &purchase.kind)
            }),
            "/v1/apps/{id}/subscriptionGroups" => all(view.groups.of(id), Node::Group, |group| {
                let mut subscriptions = view.subscriptions.of(&group.id).iter();
                query.passes("referenceName", &group.reference_name)
                    && (query.filter("subscriptions.state").is_none()
                        || subscriptions.any(|known| query.passes("subscriptions.state", &known.state)))
            }),
            "/v1/subscriptionGroups/{id}/subscriptions" => {
                there(view.groups.get(id).is_some(), "subscriptionGroups")?;
                all(view.subscriptions.of(id), Node::Subscription, |subscription| {
                    query.passes("productId", &subscription.product_id)
                        && query.passes("name", &subscription.name)
                        && query.passes("state", &subscription.state)
                })
            }
            "/v1/apps/{id}/appEvents" => all(view.events.of(id), Node::Event, |event| {
                query.passes("id", &event.id) && query.passes("eventState", &event.state)
            }),
            "/v1/apps/{id}/buildUploads" => all(view.uploads.of(id), Node::Upload, |upload| {
                query.passes("cfBundleShortVersionString", &upload.short_version)
                    && query.passes("cfBundleVersion", &upload.version)
                    && query.passes("platform", &upload.platform)
                    && query.passes("state", &upload.state)
            }),
            "/v2/appAvailabilities/{id}/territoryAvailabilities" => {
                let found = view.availabilities.get(id);
                let availability = found.ok_or_else(|| ApiError::not_found("appAvailabilities", id))?;
                let node = |territory| Node::TerritoryAvailability(availability, territory);
                availability.territories.iter().map(node).collect()
            }
            "/v1/apps/{id}/webhooks" => all(view.webhooks.of(id), Node::Webhook, |_| true),
            "/v1/webhooks/{id}/deliveries" => {
                there(view.webhooks.get(id).is_some(), "webhooks")?;
                deliveries(view, query, id)?
            }
            "/v1/apps/{id}/appAvailabilityV2" => {
                let found = view.availabilities.get(id).map(|known| Found::One(Node::Availability(known)));
                return found.ok_or_else(|| ApiError::not_found("appAvailabilities", id));
            }
            // The phased release of a version, the only read that is left.
            _ => {
                let version = view.versions.get(id).filter(|version| version.phased_release.is_some());
                let found = version.map(|version| Found::One(Node::PhasedRelease(version)));
                return found.ok_or_else(|| ApiError::not_found("appStoreVersionPhasedReleases", id));
            }
        }))
    }
}

/// What hangs on something and passes.
fn all<'a, T: Item>(
    items: &[&'a T],
    node: fn(&'a T) -> Node<'a>,
    passes: impl Fn(&T) -> bool,
) -> Vec<Node<'a>> {
    items.iter().filter(|item| passes(item)).map(|item| node(item)).collect()
}

fn apps<'a>(view: &View<'a>, query: &Query) -> Vec<Node<'a>> {
    let apps = view.team.apps.iter().filter(|app| {
        query.passes("id", &app.id)
            && query.passes("bundleId", &app.bundle_id)
            && query.passes("name", &app.name)
            && query.passes("sku", app.sku.as_ref().unwrap_or(&app.bundle_id))
    });
    apps.map(Node::App).collect()
}

fn versions<'a>(view: &View<'a>, query: &Query, app: &str) -> Vec<Node<'a>> {
    all(view.versions.of(app), Node::Version, |version: &Version| {
        query.passes("id", &version.id)
            && query.passes("platform", &version.platform)
            && query.passes("versionString", &version.version_string)
            && query.passes("appVersionState", &version.state)
            && query.passes("appStoreState", app_store_state(&version.state))
    })
}

fn builds<'a>(view: &View<'a>, query: &Query) -> Vec<Node<'a>> {
    const REVIEW: &str = "betaAppReviewSubmission.betaReviewState";
    let builds = view.builds.all().filter(|build| {
        query.passes("app", &build.app)
            && query.passes("id", &build.id)
            && query.passes("version", &build.version)
            && query.passes("expired", if build.expired { "true" } else { "false" })
            && query.passes("processingState", &build.processing_state)
            && query.passes("preReleaseVersion.platform", &build.platform)
            && query.passes("preReleaseVersion.version", &build.pre_release_version)
            && (query.filter(REVIEW).is_none()
                || view.beta_reviews.get(&build.id).is_some_and(|review| query.passes(REVIEW, &review.state)))
    });
    builds.map(Node::Build).collect()
}

/// The deliveries of a webhook from a time on or before one, the newest first. The store wants exactly one of
/// the two, though its description does not say so.
fn deliveries<'a>(view: &View<'a>, query: &Query, webhook: &str) -> Result<Vec<Node<'a>>, ApiError> {
    const FROM: &str = "createdDateGreaterThanOrEqualTo";
    const BEFORE: &str = "createdDateLessThan";
    let (name, values, from) = match (query.filter(FROM), query.filter(BEFORE)) {
        (Some(values), None) => (FROM, values, true),
        (None, Some(values)) => (BEFORE, values, false),
        _ => {
            let detail = format!("Exactly one of 'filter[{FROM}]' and 'filter[{BEFORE}]' has to be given");
            return Err(ApiError::parameter(&format!("filter[{FROM}]"), detail));
        }
    };
    let time = values.first().filter(|_| values.len() == 1);
    let time = time.and_then(|time| OffsetDateTime::parse(time, &Rfc3339).ok());
    let time =
        time.ok_or_else(|| ApiError::parameter(&format!("filter[{name}]"), "This is not a date and time"))?;
    let deliveries = view.deliveries.all().rev().filter(|delivery| {
        delivery.webhook == webhook
            && (delivery.created >= time) == from
            && query.passes("deliveryState", delivery.state)
    });
    Ok(deliveries.map(Node::Delivery).collect())
}
