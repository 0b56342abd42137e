//! What a team's key sees, found by id and by what it hangs on. Each request makes its own, and each index
//! in it is made only where the request needs it.

use std::cell::OnceCell;
use std::collections::HashMap;

use crate::scenario::{
    App, AppEvent, AppInfo, AppStoreTeam, Availability, BetaReview, Build, BuildUpload, InAppPurchase, Item,
    ReviewItem, ReviewSubmission, Subscription, SubscriptionGroup, Territory, Version, Webhook,
};
use crate::world::{Deliveries, WebhookDelivery};

/// A team's resources.
pub(crate) struct View<'a> {
    pub(crate) team: &'a AppStoreTeam,
    pub(crate) deliveries: &'a Deliveries,
    pub(crate) versions: Index<'a, Version>,
    pub(crate) builds: Index<'a, Build>,
    pub(crate) beta_reviews: Index<'a, BetaReview>,
    pub(crate) uploads: Index<'a, BuildUpload>,
    pub(crate) submissions: Index<'a, ReviewSubmission>,
    pub(crate) items: Index<'a, ReviewItem>,
    pub(crate) infos: Index<'a, AppInfo>,
    pub(crate) purchases: Index<'a, InAppPurchase>,
    pub(crate) groups: Index<'a, SubscriptionGroup>,
    pub(crate) subscriptions: Index<'a, Subscription>,
    pub(crate) events: Index<'a, AppEvent>,
    pub(crate) availabilities: Index<'a, Availability>,
    pub(crate) webhooks: Index<'a, Webhook>,
    apps: OnceCell<HashMap<&'a str, &'a App>>,
    version_of_build: OnceCell<HashMap<&'a str, &'a Version>>,
    upload_of_build: OnceCell<HashMap<&'a str, &'a BuildUpload>>,
    pre_releases: OnceCell<HashMap<String, Vec<&'a Build>>>,
    territories: OnceCell<HashMap<String, (&'a Availability, &'a Territory)>>,
}

/// One type of resource.
pub(crate) struct Index<'a, T> {
    all: &'a [T],
    by_id: OnceCell<HashMap<&'a str, &'a T>>,
    by_parent: OnceCell<HashMap<&'a str, Vec<&'a T>>>,
}

/// One resource.
#[derive(Clone, Copy)]
pub(crate) enum Node<'a> {
    App(&'a App),
    Version(&'a Version),
    PhasedRelease(&'a Version),
    Build(&'a Build),
    BetaDetail(&'a Build),
    PreRelease(&'a Build),
    BetaReview(&'a BetaReview),
    Upload(&'a BuildUpload),
    Submission(&'a ReviewSubmission),
    Item(&'a ReviewItem),
    Info(&'a AppInfo),
    Purchase(&'a InAppPurchase),
    /// The same as it is described where it is included: as it was before version 2.
    OldPurchase(&'a InAppPurchase),
    Group(&'a SubscriptionGroup),
    Subscription(&'a Subscription),
    Event(&'a AppEvent),
    Availability(&'a Availability),
    TerritoryAvailability(&'a Availability, &'a Territory),
    Territory(&'a Territory),
    /// The one user of a team.
    User(&'a AppStoreTeam),
    Webhook(&'a Webhook),
    Delivery(&'a WebhookDelivery),
    WebhookEvent(&'a WebhookDelivery),
}

impl<'a, T: Item> Index<'a, T> {
    fn new(team: &'a AppStoreTeam) -> Self {
        Self { all: T::list(team), by_id: OnceCell::new(), by_parent: OnceCell::new() }
    }

    /// All, the newest first.
    pub(crate) fn all(&self) -> impl Iterator<Item = &'a T> + use<'a, T> {
        self.all.iter().rev()
    }

    /// The one with an id.
    pub(crate) fn get(&self, id: &str) -> Option<&'a T> {
        self.by_id.get_or_init(|| self.all.iter().map(|item| (item.id(), item)).collect()).get(id).copied()
    }

    /// Those that hang on something, the newest first.
    pub(crate) fn of(&self, parent: &str) -> &[&'a T] {
        let by_parent = self.by_parent.get_or_init(|| {
            let mut by_parent: HashMap<&str, Vec<&T>> = HashMap::new();
            for item in self.all() {
                by_parent.entry(item.parent()).or_default().push(item);
            }
            by_parent
        });
        by_parent.get(parent).map_or(&[], Vec::as_slice)
    }

    /// Their ids.
    pub(crate) fn ids_of(&self, parent: &str) -> Vec<String> {
        self.of(parent).iter().map(|item| item.id().to_owned()).collect()
    }
}

impl<'a> View<'a> {
    pub(crate) fn new(team: &'a AppStoreTeam, deliveries: &'a Deliveries) -> Self {
        Self {
            team,
            deliveries,
            versions: Index::new(team),
            builds: Index::new(team),
            beta_reviews: Index::new(team),
            uploads: Index::new(team),
            submissions: Index::new(team),
            items: Index::new(team),
            infos: Index::new(team),
            purchases: Index::new(team),
            groups: Index::new(team),
            subscriptions: Index::new(team),
            events: Index::new(team),
            availabilities: Index::new(team),
            webhooks: Index::new(team),
            apps: OnceCell::new(),
            version_of_build: OnceCell::new(),
            upload_of_build: OnceCell::new(),
            pre_releases: OnceCell::new(),
            territories: OnceCell::new(),
        }
    }

    pub(crate) fn app(&self, id: &str) -> Option<&'a App> {
        let apps =
            self.apps.get_or_init(|| self.team.apps.iter().map(|app| (app.id.as_str(), app)).collect());
        apps.get(id).copied()
    }

    /// The version that a build was chosen for.
    pub(crate) fn version_of_build(&self, build: &str) -> Option<&'a Version> {
        let versions = self.version_of_build.get_or_init(|| {
            let chosen = |version: &'a Version| Some((version.build.as_deref()?, version));
            self.team.versions.iter().rev().filter_map(chosen).collect()
        });
        versions.get(build).copied()
    }

    /// The upload that became a build.
    pub(crate) fn upload_of_build(&self, build: &str) -> Option<&'a BuildUpload> {
        let uploads = self.upload_of_build.get_or_init(|| {
            let became = |upload: &'a BuildUpload| Some((upload.build.as_deref()?, upload));
            self.team.build_uploads.iter().filter_map(became).collect()
        });
        uploads.get(build).copied()
    }

    /// The builds of a pre-release version, the newest first.
    pub(crate) fn pre_release(&self, id: &str) -> &[&'a Build] {
        let pre_releases = self.pre_releases.get_or_init(|| {
            let mut pre_releases: HashMap<String, Vec<&Build>> = HashMap::new();
            for build in self.builds.all() {
                pre_releases.entry(pre_release_id(build)).or_default().push(build);
            }
            pre_releases
        });
        pre_releases.get(id).map_or(&[], Vec::as_slice)
    }

    fn territory(&self, id: &str) -> Option<(&'a Availability, &'a Territory)> {
        let territories = self.territories.get_or_init(|| {
            let mut territories = HashMap::new();
            for availability in &self.team.availabilities {
                for territory in &availability.territories {
                    territories.insert(territory.id(&availability.app), (availability, territory));
                }
            }
            territories
        });
        territories.get(id).copied()
    }

    /// Finds a resource by type and id; `from` is the type of what includes it.
    pub(crate) fn find(&self, kind: &str, id: &str, from: &str) -> Option<Node<'a>> {
        Some(match kind {
            "apps" => Node::App(self.app(id)?),
            "appStoreVersions" => Node::Version(self.versions.get(id)?),
            "appStoreVersionPhasedReleases" => {
                let version = self.versions.get(id.strip_suffix("-phased")?)?;
                version.phased_release.as_ref().map(|_| Node::PhasedRelease(version))?
            }
            "builds" => Node::Build(self.builds.get(id)?),
            "buildBetaDetails" => Node::BetaDetail(self.builds.get(id)?),
            "preReleaseVersions" => Node::PreRelease(self.pre_release(id).first()?),
            "betaAppReviewSubmissions" => Node::BetaReview(self.beta_reviews.get(id)?),
            "buildUploads" => Node::Upload(self.uploads.get(id)?),
            "reviewSubmissions" => Node::Submission(self.submissions.get(id)?),
            "reviewSubmissionItems" => Node::Item(self.items.get(id)?),
            "appInfos" => Node::Info(self.infos.get(id)?),
            "inAppPurchases" if from == "apps" => Node::OldPurchase(self.purchases.get(id)?),
            "inAppPurchases" => Node::Purchase(self.purchases.get(id)?),
            "subscriptionGroups" => Node::Group(self.groups.get(id)?),
            "subscriptions" => Node::Subscription(self.subscriptions.get(id)?),
            "appEvents" => Node::Event(self.events.get(id)?),
            "appAvailabilities" => Node::Availability(self.availabilities.get(id)?),
            "territoryAvailabilities" => {
                let (availability, territory) = self.territory(id)?;
                Node::TerritoryAvailability(availability, territory)
            }
            "territories" => {
                let mut territories =
                    self.team.availabilities.iter().flat_map(|availability| &availability.territories);
                Node::Territory(territories.find(|territory| territory.territory == id)?)
            }
            "webhooks" => Node::Webhook(self.webhooks.get(id)?),
            "webhookEvents" => {
                Node::WebhookEvent(self.deliveries.all().find(|delivery| delivery.event == id)?)
            }
            _ => return None,
        })
    }
}

/// The id of the version that a build was uploaded for.
pub(crate) fn pre_release_id(build: &Build) -> String {
    format!("{}-{}-{}", build.app, build.platform, build.pre_release_version)
}
