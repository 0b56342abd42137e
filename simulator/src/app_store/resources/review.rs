//! Submissions for review, their items, and the metadata of apps.

use crate::app_store::jsonapi::Resource;
use crate::app_store::resources::{date, elsewhere, many, one, text, unlinked};
use crate::app_store::view::View;
use crate::scenario::{AppInfo, ReviewItem, ReviewSubmission, app_store_state};

/// The relationships of an app's metadata to what the simulator does not have.
const INFO_ELSEWHERE: &[&str] = &[
    "ageRatingDeclaration",
    "appInfoLocalizations",
    "primaryCategory",
    "primarySubcategoryOne",
    "primarySubcategoryTwo",
    "secondaryCategory",
    "secondarySubcategoryOne",
    "secondarySubcategoryTwo",
    "territoryAgeRatings",
];

impl View<'_> {
    pub(super) fn submission_resource(&self, submission: &ReviewSubmission) -> Resource {
        Resource {
            kind: "reviewSubmissions",
            id: submission.id.clone(),
            collection: Some("/v1/reviewSubmissions"),
            attributes: vec![
                ("platform", text(&submission.platform)),
                ("submittedDate", date(submission.submitted)),
                ("state", text(&submission.state)),
            ],
            relationships: vec![
                unlinked(one("app", "apps", Some(submission.app.clone()))),
                many("items", "reviewSubmissionItems", self.items.ids_of(&submission.id)),
                unlinked(one("appStoreVersionForReview", "appStoreVersions", submission.version.clone())),
            ],
        }
    }
}

/// An item of a submission.
pub(super) fn item(item: &ReviewItem) -> Resource {
    Resource {
        kind: "reviewSubmissionItems",
        id: item.id.clone(),
        collection: Some("/v1/reviewSubmissionItems"),
        attributes: vec![("state", text(&item.state))],
        relationships: vec![
            unlinked(one("appStoreVersion", "appStoreVersions", item.version.clone())),
            unlinked(one("appEvent", "appEvents", item.event.clone())),
        ],
    }
}

/// An app's metadata.
pub(super) fn info(info: &AppInfo) -> Resource {
    Resource {
        kind: "appInfos",
        id: info.id.clone(),
        collection: Some("/v1/appInfos"),
        attributes: vec![("appStoreState", text(old_state(&info.state))), ("state", text(&info.state))],
        relationships: [unlinked(one("app", "apps", Some(info.app.clone())))]
            .into_iter()
            .chain(elsewhere(INFO_ELSEWHERE))
            .collect(),
    }
}

/// The deprecated attribute knows the states of versions only.
fn old_state(state: &str) -> &str {
    match state {
        "PENDING_RELEASE" => "PENDING_DEVELOPER_RELEASE",
        "REPLACED_WITH_NEW_INFO" => "REPLACED_WITH_NEW_VERSION",
        other => app_store_state(other),
    }
}
