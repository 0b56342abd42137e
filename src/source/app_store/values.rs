//! Values of what is read beside the states, and where the description has each list.

use super::states;

/// The platforms, each a version line of its own: `Platform`.
pub const PLATFORMS: &[&str] = &["IOS", "MAC_OS", "TV_OS", "VISION_OS"];

/// `AppStoreVersion.releaseType`.
pub const RELEASE_TYPES: &[&str] = &["MANUAL", "AFTER_APPROVAL", "SCHEDULED"];

/// `InAppPurchaseType`.
pub const IN_APP_PURCHASE_TYPES: &[&str] = &["CONSUMABLE", "NON_CONSUMABLE", "NON_RENEWING_SUBSCRIPTION"];

/// `InAppPurchase.inAppPurchaseType`, of the resource's first version.
pub const IN_APP_PURCHASE_V1_TYPES: &[&str] = &[
    "AUTOMATICALLY_RENEWABLE_SUBSCRIPTION",
    "NON_CONSUMABLE",
    "CONSUMABLE",
    "NON_RENEWING_SUBSCRIPTION",
    "FREE_SUBSCRIPTION",
];

/// `WebhookDelivery.deliveryState`.
pub const WEBHOOK_DELIVERY_STATES: &[&str] = &["SUCCEEDED", "FAILED", "PENDING"];

/// `WebhookEventType`.
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

/// `TerritoryAvailability.contentStatuses`.
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

/// A member of the description with a closed list of values.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// The schema's name.
    pub schema: &'static str,
    /// The attribute's name; of an attribute that is an object, with the member's, as `state.state`.
    pub attribute: &'static str,
    /// Its values, in the description's order.
    pub values: &'static [&'static str],
}

const fn member(schema: &'static str, attribute: &'static str, values: &'static [&'static str]) -> Member {
    Member { schema, attribute, values }
}

/// Every member that is read and has a closed list of values. docs/states.md has a section for each, under the
/// heading `Schema.attribute`.
pub const MEMBERS: &[Member] = &[
    member("AppStoreVersion", "appVersionState", states::APP_VERSION_STATES),
    member("AppStoreVersion", "appStoreState", states::APP_STORE_STATES),
    member("AppStoreVersion", "platform", PLATFORMS),
    member("AppStoreVersion", "releaseType", RELEASE_TYPES),
    member("AppStoreVersionPhasedRelease", "phasedReleaseState", states::PHASED_RELEASE_STATES),
    member("Build", "processingState", states::PROCESSING_STATES),
    member("BuildBetaDetail", "internalBuildState", states::INTERNAL_BETA_STATES),
    member("BuildBetaDetail", "externalBuildState", states::EXTERNAL_BETA_STATES),
    member("BetaAppReviewSubmission", "betaReviewState", states::BETA_REVIEW_STATES),
    member("PrereleaseVersion", "platform", PLATFORMS),
    member("BuildUpload", "state.state", states::BUILD_UPLOAD_STATES),
    member("BuildUpload", "platform", PLATFORMS),
    member("ReviewSubmission", "state", states::REVIEW_SUBMISSION_STATES),
    member("ReviewSubmission", "platform", PLATFORMS),
    member("ReviewSubmissionItem", "state", states::REVIEW_ITEM_STATES),
    member("AppInfo", "state", states::APP_INFO_STATES),
    member("AppInfo", "appStoreState", states::APP_STORE_STATES),
    member("InAppPurchaseV2", "state", states::IN_APP_PURCHASE_STATES),
    member("InAppPurchaseV2", "inAppPurchaseType", IN_APP_PURCHASE_TYPES),
    member("InAppPurchase", "state", states::IN_APP_PURCHASE_V1_STATES),
    member("InAppPurchase", "inAppPurchaseType", IN_APP_PURCHASE_V1_TYPES),
    member("Subscription", "state", states::SUBSCRIPTION_STATES),
    member("AppEvent", "eventState", states::APP_EVENT_STATES),
    member("TerritoryAvailability", "contentStatuses", CONTENT_STATUSES),
    member("Webhook", "eventTypes", WEBHOOK_EVENT_TYPES),
    member("WebhookEvent", "eventType", WEBHOOK_EVENT_TYPES),
    member("WebhookDelivery", "deliveryState", WEBHOOK_DELIVERY_STATES),
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;

    use super::super::spec::Description;
    use super::*;
    use crate::observation::{KINDS, Kind};
    use crate::source::look::Heat;

    #[test]
    fn every_value_is_the_descriptions_and_every_one_of_those_is_here() {
        let Some(description) = Description::load() else { return };
        for Member { schema, attribute, values } in MEMBERS {
            assert_eq!(description.values(schema, attribute).unwrap(), *values, "{schema}.{attribute}");
        }
        assert_eq!(
            description.values_of(description.schema("WebhookEventType")).unwrap(),
            WEBHOOK_EVENT_TYPES
        );
    }

    #[test]
    fn every_kind_of_apples_has_its_values_in_a_member() {
        for (kind, name) in KINDS {
            let values = states::known_values(kind);
            let ours = matches!(kind, Kind::App | Kind::Availability);
            let googles = matches!(kind, Kind::Release | Kind::Rollout);
            assert_eq!(values.is_empty(), googles, "{name}");
            assert!(ours || googles || MEMBERS.iter().any(|member| member.values == values), "{name}");
        }
    }

    /// The values that docs/states.md has a line for, by the heading that they stand under.
    fn documented() -> BTreeMap<String, Vec<String>> {
        let text = include_str!("../../../docs/states.md");
        let mut sections: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut heading = None;
        for line in text.lines() {
            if let Some(title) = line.strip_prefix("### ") {
                heading = Some(title.replace('`', ""));
            } else if line.starts_with('#') {
                heading = None;
            } else if let (Some(heading), Some(row)) = (&heading, line.strip_prefix("| `")) {
                let (value, meaning) = row.split_once("` | ").unwrap();
                assert!(meaning.trim_end_matches('|').trim().len() > 3, "{value} has no meaning");
                sections.entry(heading.clone()).or_default().push(value.to_owned());
            }
        }
        sections
    }

    /// What the document marks as hot is what is polled as such, of every kind whose states the store has.
    #[test]
    fn the_document_says_what_is_hot() {
        let text = include_str!("../../../docs/states.md");
        let hot = |heading: &str| -> Vec<&str> {
            let (_, section) = text.split_once(&format!("### `{heading}`")).unwrap();
            let section = section.split("\n#").next().unwrap();
            let marked = section.lines().filter(|line| line.contains("` | **hot** "));
            marked.map(|line| line.split('`').nth(1).unwrap()).collect()
        };
        for (kind, _) in KINDS {
            let values = states::known_values(kind);
            let Some(member) = MEMBERS.iter().find(|member| member.values == values) else { continue };
            let expected: Vec<_> =
                values.iter().filter(|state| states::heat(kind, state) == Heat::Hot).copied().collect();
            assert_eq!(hot(&format!("{}.{}", member.schema, member.attribute)), expected, "{kind:?}");
        }
    }

    #[test]
    fn every_value_has_a_line_in_the_document_and_no_line_is_of_none() {
        let documented = documented();
        let empty = Vec::new();
        for Member { schema, attribute, values } in MEMBERS {
            // A list that several members share stands under the first of them.
            let first = MEMBERS.iter().find(|member| member.values == *values).unwrap();
            let heading = format!("{}.{}", first.schema, first.attribute);
            assert_eq!(documented.get(&heading).unwrap_or(&empty), values, "{schema}.{attribute}");
        }
        for (heading, values) in [
            ("App", [states::VISIBLE].as_slice()),
            ("Availability", &[states::AVAILABLE, states::REMOVED_FROM_SALE]),
        ] {
            assert_eq!(documented.get(heading).unwrap_or(&empty), values, "{heading}");
        }
    }
}
