//! What happens, and when.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::faults::Fault;
use crate::scenario::{
    App, AppEvent, AppInfo, Availability, BetaReview, Build, BuildUpload, InAppPurchase, PingShape, PlayApp,
    Release, ReviewItem, ReviewSubmission, StateDetail, Subscription, SubscriptionGroup, Version, Webhook,
};
#[cfg(doc)]
use crate::values::{
    APP_VERSION_STATES, CONTENT_STATUSES, EXTERNAL_BETA_STATES, INTERNAL_BETA_STATES, PHASED_RELEASE_STATES,
    PROCESSING_STATES, UPLOAD_STATES,
};

/// A step and when it happens.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct TimedStep {
    /// Scenario seconds from the start.
    pub at: f64,
    /// What happens.
    #[serde(flatten)]
    pub step: Step,
}

/// One change in what the stores hold, or in how they answer.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Step {
    /// A team gets an app.
    AddApp {
        /// The team's name.
        team: String,
        /// The app.
        app: App,
    },
    /// An app leaves its team, with all that hangs on it: everything of it is in no listing and answers 404.
    /// It is kept aside for [`Step::ReturnApp`].
    RemoveApp {
        /// The app's id.
        id: String,
    },
    /// An app is transferred to another team, with all that hangs on it; its old team sees it no more.
    TransferApp {
        /// The app's id.
        id: String,
        /// The name of the team that gets it; absent is one that the simulator does not have.
        to: Option<String>,
    },
    /// An app that was removed or transferred is back in the team that it left, as it left or, where another
    /// team has had it, as it is there.
    ReturnApp {
        /// The app's id.
        id: String,
    },
    /// A resource appears: the review of a build for external testers.
    AddBetaReview(BetaReview),
    /// An upload is begun.
    AddBuildUpload(BuildUpload),
    /// Something is handed in for review, or about to be.
    AddReviewSubmission(ReviewSubmission),
    /// A submission gets an item.
    AddReviewItem(ReviewItem),
    /// An app gets metadata for a review of its own.
    AddAppInfo(AppInfo),
    /// An app gets an in-app purchase.
    AddInAppPurchase(InAppPurchase),
    /// An app gets a group of subscriptions.
    AddSubscriptionGroup(SubscriptionGroup),
    /// A group gets a subscription.
    AddSubscription(Subscription),
    /// An app gets an event.
    AddAppEvent(AppEvent),
    /// It is said where an app is on sale.
    AddAvailability(Availability),
    /// A webhook is set up.
    AddWebhook(Webhook),
    /// The main state of a resource changes.
    State {
        /// The JSON:API type: `appStoreVersions`, `builds` (their `processingState`), `buildBetaDetails`
        /// (their `externalBuildState`), `betaAppReviewSubmissions`, `buildUploads`, `reviewSubmissions`,
        /// `reviewSubmissionItems`, `appInfos`, `inAppPurchases`, `subscriptions`, `appEvents` or
        /// `appStoreVersionPhasedReleases`.
        resource: String,
        /// Its id.
        id: String,
        /// The new state.
        state: String,
    },
    /// An upload changes; what is absent stays.
    UploadState {
        /// The upload's id.
        id: String,
        /// One of [`UPLOAD_STATES`].
        state: Option<String>,
        /// What is wrong with it.
        errors: Option<Vec<StateDetail>>,
        /// What may be wrong with it.
        warnings: Option<Vec<StateDetail>>,
        /// What is said of it beside.
        infos: Option<Vec<StateDetail>>,
        /// The id of the build that it became.
        build: Option<String>,
    },
    /// A phased release is at another day.
    PhasedDay {
        /// The id of its version.
        id: String,
        /// The day, 1 to 7.
        day: u8,
    },
    /// An app goes on or off sale in a territory, which is added where it is not known; what is absent
    /// stays. The app's availability has to be there.
    TerritoryAvailability {
        /// The app's id.
        app: String,
        /// Three letters, such as `USA`.
        territory: String,
        /// Whether it is meant to be on sale there.
        available: Option<bool>,
        /// Each one of [`CONTENT_STATUSES`].
        content_statuses: Option<Vec<String>>,
    },
    /// A resource is gone, with all that hangs on it.
    Remove {
        /// Its JSON:API type: one of those of [`Step::State`] but the beta details, or `subscriptionGroups`,
        /// `appAvailabilities` (by the app's id), `webhooks`.
        resource: String,
        /// Its id.
        id: String,
    },
    /// From now on webhooks are recorded as failed and not sent, or are sent again.
    WithholdWebhooks {
        /// Which of the two.
        withhold: bool,
    },
    /// A webhook is sent a ping.
    PingWebhook {
        /// The webhook's id.
        webhook: String,
        /// The shape of the ping.
        shape: PingShape,
    },
    /// An app gets a version.
    AddVersion(Version),
    /// A version changes its state.
    VersionState {
        /// The version's id.
        id: String,
        /// One of [`APP_VERSION_STATES`].
        state: String,
    },
    /// A build is chosen for a version, or taken away from it.
    VersionBuild {
        /// The version's id.
        id: String,
        /// The build's id.
        build: Option<String>,
    },
    /// A version's phased release moves.
    PhasedRelease {
        /// The version's id.
        id: String,
        /// One of [`PHASED_RELEASE_STATES`].
        state: String,
        /// The day it is at, 1 to 7.
        day: Option<u8>,
    },
    /// A version is gone.
    RemoveVersion {
        /// The version's id.
        id: String,
    },
    /// A build is uploaded.
    AddBuild(Build),
    /// A build changes; what is absent stays.
    BuildState {
        /// The build's id.
        id: String,
        /// One of [`PROCESSING_STATES`].
        processing_state: Option<String>,
        /// Whether TestFlight has let it expire.
        expired: Option<bool>,
        /// One of [`INTERNAL_BETA_STATES`].
        internal_state: Option<String>,
        /// One of [`EXTERNAL_BETA_STATES`].
        external_state: Option<String>,
    },
    /// A build is gone.
    RemoveBuild {
        /// The build's id.
        id: String,
    },
    /// An account gets a Play app.
    AddPlayApp {
        /// The account's name.
        account: String,
        /// The app.
        app: PlayApp,
    },
    /// A Play app leaves its account, with its releases.
    RemovePlayApp {
        /// Its package name.
        package: String,
    },
    /// A release appears or, where package, track and version codes are known, changes.
    Release(Release),
    /// A release is obsolete and no longer listed.
    RemoveRelease {
        /// The app's package name.
        package: String,
        /// The track.
        track: String,
        /// Its version codes.
        version_codes: BTreeSet<i32>,
    },
    /// The stores begin to answer wrongly.
    Fault(Fault),
    /// They stop: the fault of that name, or all of them.
    EndFault {
        /// The fault's name.
        name: Option<String>,
    },
}
