//! The values that Apple's description (4.4.1) has for what is read, each list in its order, and how likely each is to
//! change by itself. What each means is in docs/states.md. A value that is in no list is passed on as it is.

use crate::observation::Kind;
use crate::source::look::Heat;

/// `AppStoreVersion.appVersionState`.
pub const APP_VERSION_STATES: &[&str] = &[
    "ACCEPTED",
    "DEVELOPER_REJECTED",
    "IN_REVIEW",
    "INVALID_BINARY",
    "METADATA_REJECTED",
    "PENDING_APPLE_RELEASE",
    "PENDING_DEVELOPER_RELEASE",
    "PREPARE_FOR_SUBMISSION",
    "PROCESSING_FOR_DISTRIBUTION",
    "READY_FOR_DISTRIBUTION",
    "READY_FOR_REVIEW",
    "REJECTED",
    "REPLACED_WITH_NEW_VERSION",
    "WAITING_FOR_EXPORT_COMPLIANCE",
    "WAITING_FOR_REVIEW",
];

/// `AppStoreVersion.appStoreState` and `AppInfo.appStoreState`, deprecated.
pub const APP_STORE_STATES: &[&str] = &[
    "ACCEPTED",
    "DEVELOPER_REMOVED_FROM_SALE",
    "DEVELOPER_REJECTED",
    "IN_REVIEW",
    "INVALID_BINARY",
    "METADATA_REJECTED",
    "PENDING_APPLE_RELEASE",
    "PENDING_CONTRACT",
    "PENDING_DEVELOPER_RELEASE",
    "PREPARE_FOR_SUBMISSION",
    "PREORDER_READY_FOR_SALE",
    "PROCESSING_FOR_APP_STORE",
    "READY_FOR_REVIEW",
    "READY_FOR_SALE",
    "REJECTED",
    "REMOVED_FROM_SALE",
    "WAITING_FOR_EXPORT_COMPLIANCE",
    "WAITING_FOR_REVIEW",
    "REPLACED_WITH_NEW_VERSION",
    "NOT_APPLICABLE",
];

/// `AppStoreVersionPhasedRelease.phasedReleaseState`.
pub const PHASED_RELEASE_STATES: &[&str] = &["INACTIVE", "ACTIVE", "PAUSED", "COMPLETE"];

/// `Build.processingState`.
pub const PROCESSING_STATES: &[&str] = &["PROCESSING", "FAILED", "INVALID", "VALID"];

/// `BuildBetaDetail.internalBuildState`.
pub const INTERNAL_BETA_STATES: &[&str] = &[
    "PROCESSING",
    "PROCESSING_EXCEPTION",
    "MISSING_EXPORT_COMPLIANCE",
    "READY_FOR_BETA_TESTING",
    "IN_BETA_TESTING",
    "EXPIRED",
    "IN_EXPORT_COMPLIANCE_REVIEW",
];

/// `BuildBetaDetail.externalBuildState`.
pub const EXTERNAL_BETA_STATES: &[&str] = &[
    "PROCESSING",
    "PROCESSING_EXCEPTION",
    "MISSING_EXPORT_COMPLIANCE",
    "READY_FOR_BETA_TESTING",
    "IN_BETA_TESTING",
    "EXPIRED",
    "READY_FOR_BETA_SUBMISSION",
    "IN_EXPORT_COMPLIANCE_REVIEW",
    "WAITING_FOR_BETA_REVIEW",
    "IN_BETA_REVIEW",
    "BETA_REJECTED",
    "BETA_APPROVED",
    "NOT_APPLICABLE",
];

/// `BetaAppReviewSubmission.betaReviewState`.
pub const BETA_REVIEW_STATES: &[&str] = &["WAITING_FOR_REVIEW", "IN_REVIEW", "REJECTED", "APPROVED"];

/// `BuildUpload.state.state`.
pub const BUILD_UPLOAD_STATES: &[&str] = &["AWAITING_UPLOAD", "PROCESSING", "FAILED", "COMPLETE"];

/// `ReviewSubmission.state`.
pub const REVIEW_SUBMISSION_STATES: &[&str] = &[
    "READY_FOR_REVIEW",
    "WAITING_FOR_REVIEW",
    "IN_REVIEW",
    "UNRESOLVED_ISSUES",
    "CANCELING",
    "COMPLETING",
    "COMPLETE",
];

/// `ReviewSubmissionItem.state`.
pub const REVIEW_ITEM_STATES: &[&str] = &["READY_FOR_REVIEW", "ACCEPTED", "APPROVED", "REJECTED", "REMOVED"];

/// `AppInfo.state`.
pub const APP_INFO_STATES: &[&str] = &[
    "ACCEPTED",
    "DEVELOPER_REJECTED",
    "IN_REVIEW",
    "PENDING_RELEASE",
    "PREPARE_FOR_SUBMISSION",
    "READY_FOR_DISTRIBUTION",
    "READY_FOR_REVIEW",
    "REJECTED",
    "REPLACED_WITH_NEW_INFO",
    "WAITING_FOR_REVIEW",
];

/// `InAppPurchaseV2.state`.
pub const IN_APP_PURCHASE_STATES: &[&str] = &[
    "MISSING_METADATA",
    "WAITING_FOR_UPLOAD",
    "PROCESSING_CONTENT",
    "READY_TO_SUBMIT",
    "WAITING_FOR_REVIEW",
    "IN_REVIEW",
    "DEVELOPER_ACTION_NEEDED",
    "PENDING_BINARY_APPROVAL",
    "APPROVED",
    "DEVELOPER_REMOVED_FROM_SALE",
    "REMOVED_FROM_SALE",
    "REJECTED",
];

/// `InAppPurchase.state`: what the list of apps is described to include, of the resource's first version.
pub const IN_APP_PURCHASE_V1_STATES: &[&str] = &[
    "CREATED",
    "DEVELOPER_SIGNED_OFF",
    "DEVELOPER_ACTION_NEEDED",
    "DELETION_IN_PROGRESS",
    "APPROVED",
    "DELETED",
    "REMOVED_FROM_SALE",
    "DEVELOPER_REMOVED_FROM_SALE",
    "WAITING_FOR_UPLOAD",
    "PROCESSING_CONTENT",
    "REPLACED",
    "REJECTED",
    "WAITING_FOR_SCREENSHOT",
    "PREPARE_FOR_SUBMISSION",
    "MISSING_METADATA",
    "READY_TO_SUBMIT",
    "WAITING_FOR_REVIEW",
    "IN_REVIEW",
    "PENDING_DEVELOPER_RELEASE",
];

/// `Subscription.state`.
pub const SUBSCRIPTION_STATES: &[&str] = &[
    "MISSING_METADATA",
    "READY_TO_SUBMIT",
    "WAITING_FOR_REVIEW",
    "IN_REVIEW",
    "DEVELOPER_ACTION_NEEDED",
    "PENDING_BINARY_APPROVAL",
    "APPROVED",
    "DEVELOPER_REMOVED_FROM_SALE",
    "REMOVED_FROM_SALE",
    "REJECTED",
];

/// `AppEvent.eventState`.
pub const APP_EVENT_STATES: &[&str] = &[
    "DRAFT",
    "READY_FOR_REVIEW",
    "WAITING_FOR_REVIEW",
    "IN_REVIEW",
    "REJECTED",
    "ACCEPTED",
    "APPROVED",
    "PUBLISHED",
    "PAST",
    "ARCHIVED",
];

/// The one state of an app: the key sees it.
pub const VISIBLE: &str = "VISIBLE";

/// An app that can be had in a territory at least. Ours: the store says it territory by territory.
pub const AVAILABLE: &str = "AVAILABLE";

/// An app that can be had in no territory. Ours, as [`AVAILABLE`].
pub const REMOVED_FROM_SALE: &str = "REMOVED_FROM_SALE";

/// Apple's statuses of a kind, in the order of the description. Of the kinds of Google Play there are none here.
#[must_use]
pub fn known_values(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::App => &[VISIBLE],
        Kind::Version => APP_VERSION_STATES,
        Kind::PhasedRelease => PHASED_RELEASE_STATES,
        Kind::Build => PROCESSING_STATES,
        Kind::BetaInternal => INTERNAL_BETA_STATES,
        Kind::BetaExternal => EXTERNAL_BETA_STATES,
        Kind::BetaReview => BETA_REVIEW_STATES,
        Kind::BuildUpload => BUILD_UPLOAD_STATES,
        Kind::ReviewSubmission => REVIEW_SUBMISSION_STATES,
        Kind::ReviewItem => REVIEW_ITEM_STATES,
        Kind::AppInfo => APP_INFO_STATES,
        Kind::InAppPurchase => IN_APP_PURCHASE_STATES,
        Kind::Subscription => SUBSCRIPTION_STATES,
        Kind::AppEvent => APP_EVENT_STATES,
        Kind::Availability => &[AVAILABLE, REMOVED_FROM_SALE],
        Kind::Release | Kind::Rollout => &[],
    }
}

/// Whether the description knows this value of a kind, under its name of today or an older one.
#[must_use]
pub fn is_known(kind: Kind, state: &str) -> bool {
    let older = match kind {
        Kind::Version | Kind::AppInfo => APP_STORE_STATES,
        Kind::InAppPurchase => IN_APP_PURCHASE_V1_STATES,
        _ => &[],
    };
    known_values(kind).contains(&state) || older.contains(&state)
}

/// A version's `appStoreState` in the words of `appVersionState`. Those that say something about sale, contracts or
/// pre-orders have no counterpart, and stay.
#[must_use]
pub fn version_state_of_deprecated(app_store_state: &str) -> &str {
    match app_store_state {
        "READY_FOR_SALE" => "READY_FOR_DISTRIBUTION",
        "PROCESSING_FOR_APP_STORE" => "PROCESSING_FOR_DISTRIBUTION",
        same => same,
    }
}

/// An info's `appStoreState` in the words of its `state`; what has no counterpart stays.
#[must_use]
pub fn app_info_state_of_deprecated(app_store_state: &str) -> &str {
    match app_store_state {
        "READY_FOR_SALE" => "READY_FOR_DISTRIBUTION",
        "PENDING_APPLE_RELEASE" | "PENDING_DEVELOPER_RELEASE" => "PENDING_RELEASE",
        "REPLACED_WITH_NEW_VERSION" => "REPLACED_WITH_NEW_INFO",
        same => same,
    }
}

/// How likely a subject in this state is to change by the store's doing. A value that nobody knows is taken to.
///
/// `PENDING_DEVELOPER_RELEASE` is hot: of a scheduled release it ends at the store's clock, and the state does not say
/// whether it is one. `AWAITING_UPLOAD` is not: it ends by the uploader's doing, or never.
#[must_use]
pub fn heat(kind: Kind, state: &str) -> Heat {
    let hot: &[&str] = match kind {
        Kind::Version => &[
            "WAITING_FOR_REVIEW",
            "IN_REVIEW",
            "ACCEPTED",
            "PENDING_APPLE_RELEASE",
            "PENDING_DEVELOPER_RELEASE",
            "PROCESSING_FOR_DISTRIBUTION",
            "PROCESSING_FOR_APP_STORE",
            "WAITING_FOR_EXPORT_COMPLIANCE",
        ],
        Kind::PhasedRelease => &["ACTIVE"],
        Kind::Build | Kind::BuildUpload => &["PROCESSING"],
        Kind::BetaInternal => &["PROCESSING", "IN_EXPORT_COMPLIANCE_REVIEW"],
        Kind::BetaExternal => {
            &["PROCESSING", "IN_EXPORT_COMPLIANCE_REVIEW", "WAITING_FOR_BETA_REVIEW", "IN_BETA_REVIEW"]
        }
        Kind::BetaReview => &["WAITING_FOR_REVIEW", "IN_REVIEW"],
        Kind::ReviewSubmission => &["WAITING_FOR_REVIEW", "IN_REVIEW", "CANCELING", "COMPLETING"],
        Kind::ReviewItem => &["ACCEPTED"],
        Kind::AppInfo => &["WAITING_FOR_REVIEW", "IN_REVIEW", "ACCEPTED", "PENDING_RELEASE"],
        Kind::InAppPurchase => &[
            "PROCESSING_CONTENT",
            "WAITING_FOR_REVIEW",
            "IN_REVIEW",
            "PENDING_BINARY_APPROVAL",
            "DELETION_IN_PROGRESS",
        ],
        Kind::Subscription => &["WAITING_FOR_REVIEW", "IN_REVIEW", "PENDING_BINARY_APPROVAL"],
        Kind::AppEvent => &["WAITING_FOR_REVIEW", "IN_REVIEW", "ACCEPTED"],
        Kind::App | Kind::Availability | Kind::Release | Kind::Rollout => &[],
    };
    if hot.contains(&state) || !is_known(kind, state) { Heat::Hot } else { Heat::Settled }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::KINDS;

    #[test]
    fn deprecated_states_map_to_known_ones_or_stay_as_they_are() {
        for state in APP_STORE_STATES {
            let version = version_state_of_deprecated(state);
            assert!(APP_VERSION_STATES.contains(&version) || version == *state, "{state}");
            assert!(is_known(Kind::Version, version), "{state}");
            let info = app_info_state_of_deprecated(state);
            assert!(APP_INFO_STATES.contains(&info) || info == *state, "{state}");
        }
        let stay: Vec<_> = APP_STORE_STATES
            .iter()
            .filter(|state| !APP_VERSION_STATES.contains(&version_state_of_deprecated(state)))
            .collect();
        assert_eq!(
            stay,
            [
                &"DEVELOPER_REMOVED_FROM_SALE",
                &"PENDING_CONTRACT",
                &"PREORDER_READY_FOR_SALE",
                &"REMOVED_FROM_SALE",
                &"NOT_APPLICABLE"
            ]
        );
    }

    #[test]
    fn what_the_store_is_about_to_change_is_hot_and_what_rests_is_not() {
        let hot = |kind: Kind| -> Vec<_> {
            known_values(kind).iter().copied().filter(|state| heat(kind, state) == Heat::Hot).collect()
        };
        assert_eq!(
            hot(Kind::Version),
            [
                "ACCEPTED",
                "IN_REVIEW",
                "PENDING_APPLE_RELEASE",
                "PENDING_DEVELOPER_RELEASE",
                "PROCESSING_FOR_DISTRIBUTION",
                "WAITING_FOR_EXPORT_COMPLIANCE",
                "WAITING_FOR_REVIEW"
            ]
        );
        assert_eq!(hot(Kind::PhasedRelease), ["ACTIVE"]);
        assert_eq!(hot(Kind::Build), ["PROCESSING"]);
        assert_eq!(hot(Kind::BetaInternal), ["PROCESSING", "IN_EXPORT_COMPLIANCE_REVIEW"]);
        assert_eq!(
            hot(Kind::BetaExternal),
            ["PROCESSING", "IN_EXPORT_COMPLIANCE_REVIEW", "WAITING_FOR_BETA_REVIEW", "IN_BETA_REVIEW"]
        );
        assert_eq!(hot(Kind::BetaReview), ["WAITING_FOR_REVIEW", "IN_REVIEW"]);
        assert_eq!(hot(Kind::BuildUpload), ["PROCESSING"]);
        assert_eq!(
            hot(Kind::ReviewSubmission),
            ["WAITING_FOR_REVIEW", "IN_REVIEW", "CANCELING", "COMPLETING"]
        );
        assert_eq!(hot(Kind::ReviewItem), ["ACCEPTED"]);
        assert_eq!(hot(Kind::AppInfo), ["ACCEPTED", "IN_REVIEW", "PENDING_RELEASE", "WAITING_FOR_REVIEW"]);
        let purchase = ["PROCESSING_CONTENT", "WAITING_FOR_REVIEW", "IN_REVIEW", "PENDING_BINARY_APPROVAL"];
        assert_eq!(hot(Kind::InAppPurchase), purchase);
        assert_eq!(hot(Kind::Subscription), purchase[1..]);
        assert_eq!(hot(Kind::AppEvent), ["WAITING_FOR_REVIEW", "IN_REVIEW", "ACCEPTED"]);
        assert!(hot(Kind::App).is_empty() && hot(Kind::Availability).is_empty());
        assert_eq!(heat(Kind::Version, "REMOVED_FROM_SALE"), Heat::Settled);
    }

    #[test]
    fn a_value_that_nobody_knows_is_hot() {
        for (kind, name) in KINDS {
            assert_eq!(heat(kind, "HELD_BY_THE_MOON"), Heat::Hot, "{name}");
        }
    }
}
