//! The values that the stores' descriptions allow, for the fields that a scenario sets.

use crate::scenario::ScenarioError;

/// `AppVersionState` of Apple's description.
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

/// `Platform` of Apple's description.
pub const PLATFORMS: &[&str] = &["IOS", "MAC_OS", "TV_OS", "VISION_OS"];

/// `Build.attributes.processingState` of Apple's description.
pub const PROCESSING_STATES: &[&str] = &["PROCESSING", "FAILED", "INVALID", "VALID"];

/// `InternalBetaState` of Apple's description.
pub const INTERNAL_BETA_STATES: &[&str] = &[
    "PROCESSING",
    "PROCESSING_EXCEPTION",
    "MISSING_EXPORT_COMPLIANCE",
    "READY_FOR_BETA_TESTING",
    "IN_BETA_TESTING",
    "EXPIRED",
    "IN_EXPORT_COMPLIANCE_REVIEW",
];

/// `ExternalBetaState` of Apple's description.
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

/// `PhasedReleaseState` of Apple's description.
pub const PHASED_RELEASE_STATES: &[&str] = &["INACTIVE", "ACTIVE", "PAUSED", "COMPLETE"];

/// `AppStoreVersion.attributes.releaseType` of Apple's description.
pub const RELEASE_TYPES: &[&str] = &["MANUAL", "AFTER_APPROVAL", "SCHEDULED"];

/// `AppStoreVersionState` of Apple's description, the deprecated one.
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

/// `BetaReviewState` of Apple's description.
pub const BETA_REVIEW_STATES: &[&str] = &["WAITING_FOR_REVIEW", "IN_REVIEW", "REJECTED", "APPROVED"];

/// `BuildUploadState` of Apple's description.
pub const UPLOAD_STATES: &[&str] = &["AWAITING_UPLOAD", "PROCESSING", "FAILED", "COMPLETE"];

/// `ReviewSubmission.attributes.state` of Apple's description.
pub const REVIEW_SUBMISSION_STATES: &[&str] = &[
    "READY_FOR_REVIEW",
    "WAITING_FOR_REVIEW",
    "IN_REVIEW",
    "UNRESOLVED_ISSUES",
    "CANCELING",
    "COMPLETING",
    "COMPLETE",
];

/// `ReviewSubmissionItem.attributes.state` of Apple's description.
pub const REVIEW_ITEM_STATES: &[&str] = &["READY_FOR_REVIEW", "ACCEPTED", "APPROVED", "REJECTED", "REMOVED"];

/// `AppInfo.attributes.state` of Apple's description.
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

/// `InAppPurchaseType` of Apple's description.
pub const IN_APP_PURCHASE_TYPES: &[&str] = &["CONSUMABLE", "NON_CONSUMABLE", "NON_RENEWING_SUBSCRIPTION"];

/// `InAppPurchaseState` of Apple's description.
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

/// `InAppPurchase.attributes.state` of Apple's description: what an included purchase may say.
pub const OLD_IN_APP_PURCHASE_STATES: &[&str] = &[
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

/// `Subscription.attributes.state` of Apple's description.
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

/// `Subscription.attributes.subscriptionPeriod` of Apple's description.
pub const SUBSCRIPTION_PERIODS: &[&str] =
    &["ONE_WEEK", "ONE_MONTH", "TWO_MONTHS", "THREE_MONTHS", "SIX_MONTHS", "ONE_YEAR"];

/// `AppEvent.attributes.eventState` of Apple's description.
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

/// `TerritoryAvailability.attributes.contentStatuses` of Apple's description.
pub const CONTENT_STATUSES: &[&str] = &[
    "AVAILABLE",
    "AVAILABLE_FOR_PREORDER_ON_DATE",
    "PROCESSING_TO_NOT_AVAILABLE",
    "PROCESSING_TO_AVAILABLE",
    "PROCESSING_TO_PRE_ORDER",
    "AVAILABLE_FOR_SALE_UNRELEASED_APP",
    "PREORDER_ON_UNRELEASED_APP",
    "AVAILABLE_FOR_PREORDER",
    "MISSING_RATING",
    "CANNOT_SELL_RESTRICTED_RATING",
    "BRAZIL_REQUIRED_TAX_ID",
    "BRAZIL_GAMBLING_NOT_VERIFIED",
    "MISSING_GRN",
    "UNVERIFIED_GRN",
    "ICP_NUMBER_INVALID",
    "ICP_NUMBER_MISSING",
    "TRADER_STATUS_NOT_PROVIDED",
    "TRADER_STATUS_VERIFICATION_FAILED",
    "TRADER_STATUS_VERIFICATION_STATUS_MISSING",
    "CANNOT_SELL_SEVENTEEN_PLUS_APPS",
    "CANNOT_SELL_SEXUALLY_EXPLICIT",
    "CANNOT_SELL_NON_IOS_GAMES",
    "CANNOT_SELL_SEVENTEEN_PLUS_GAMES",
    "CANNOT_SELL_CASINO",
    "CANNOT_SELL_CASINO_WITHOUT_GRAC",
    "CANNOT_SELL_CASINO_WITHOUT_AGE_VERIFICATION",
    "CANNOT_SELL_ADULT_ONLY",
    "CANNOT_SELL_GAMBLING_CONTESTS",
    "CANNOT_SELL_GAMBLING",
    "CANNOT_SELL_CONTESTS",
    "CANNOT_SELL_NINETEEN_PLUS_WITHOUT_GRAC",
    "CANNOT_SELL",
    "CANNOT_SELL_FREQUENT_INTENSE_GAMBLING",
    "CANNOT_SELL_FREQUENT_INTENSE_ALCOHOL_TOBACCO_DRUGS",
    "CANNOT_SELL_FREQUENT_INTENSE_VIOLENCE",
    "CANNOT_SELL_FREQUENT_INTENSE_SEXUAL_CONTENT_NUDITY",
    "CANNOT_SELL_INFREQUENT_MILD_ALCOHOL_TOBACCO_DRUGS",
    "CANNOT_SELL_INFREQUENT_MILD_SEXUAL_CONTENT_NUDITY",
    "CANNOT_SELL_FREQUENT_INTENSE",
    "CANNOT_SELL_FREQUENT_INTENSE_WITHOUT_GRAC",
    "CANNOT_SELL_FREQUENT_GAMBLING",
    "CANNOT_SELL_FREQUENT_ALCOHOL_TOBACCO_DRUGS",
    "CANNOT_SELL_FREQUENT_VIOLENCE",
    "CANNOT_SELL_FREQUENT_SEXUAL_CONTENT_NUDITY",
    "CANNOT_SELL_INFREQUENT_ALCOHOL_TOBACCO_DRUGS",
    "CANNOT_SELL_INFREQUENT_SEXUAL_CONTENT_NUDITY",
    "CANNOT_SELL_FREQUENT",
    "CANNOT_SELL_FREQUENT_WITHOUT_GRAC",
];

/// `WebhookEventType` of Apple's description.
pub const WEBHOOK_EVENT_TYPES: &[&str] = &[
    "ALTERNATIVE_DISTRIBUTION_PACKAGE_AVAILABLE_UPDATED",
    "ALTERNATIVE_DISTRIBUTION_PACKAGE_VERSION_CREATED",
    "ALTERNATIVE_DISTRIBUTION_TERRITORY_AVAILABILITY_UPDATED",
    "APP_STORE_VERSION_APP_VERSION_STATE_UPDATED",
    "BACKGROUND_ASSET_VERSION_APP_STORE_RELEASE_STATE_UPDATED",
    "BACKGROUND_ASSET_VERSION_EXTERNAL_BETA_RELEASE_STATE_UPDATED",
    "BACKGROUND_ASSET_VERSION_INTERNAL_BETA_RELEASE_CREATED",
    "BACKGROUND_ASSET_VERSION_STATE_UPDATED",
    "BETA_FEEDBACK_CRASH_SUBMISSION_CREATED",
    "BETA_FEEDBACK_SCREENSHOT_SUBMISSION_CREATED",
    "BUILD_BETA_DETAIL_EXTERNAL_BUILD_STATE_UPDATED",
    "BUILD_UPLOAD_STATE_UPDATED",
];

/// `WebhookDelivery.attributes.deliveryState` of Apple's description.
pub const DELIVERY_STATES: &[&str] = &["SUCCEEDED", "FAILED", "PENDING"];

/// `TrackRelease.status` of Google's description, without the unspecified one.
pub const RELEASE_STATUSES: &[&str] = &["draft", "inProgress", "halted", "completed"];

/// `ReleaseSummary.releaseLifecycleState` of Google's description, without the common prefix
/// `RELEASE_LIFECYCLE_STATE_` that the wire carries.
pub const RELEASE_LIFECYCLE_STATES: &[&str] = &[
    "UNSPECIFIED",
    "DRAFT",
    "NOT_SENT_FOR_REVIEW",
    "IN_REVIEW",
    "APPROVED_NOT_PUBLISHED",
    "NOT_APPROVED",
    "PUBLISHED",
];

/// The tracks that every Play app has.
pub const WELL_KNOWN_TRACKS: &[&str] = &["production", "beta", "alpha", "internal"];

/// Checks a value against the list of those that a store gives.
pub(crate) fn known(kind: &'static str, value: &str, values: &[&str]) -> Result<(), ScenarioError> {
    if values.contains(&value) {
        return Ok(());
    }
    Err(ScenarioError::UnknownValue { kind, value: value.to_owned() })
}
