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
