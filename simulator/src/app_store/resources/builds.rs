//! Builds, what TestFlight says of them, and uploads.

use serde_json::{Value, json};

use crate::app_store::jsonapi::Resource;
use crate::app_store::resources::{date, elsewhere, many, one, text, unlinked};
use crate::app_store::view::{View, pre_release_id};
use crate::scenario::{BetaReview, Build, BuildUpload, StateDetail};

/// How long TestFlight keeps a build.
const BUILD_LIFE: time::Duration = time::Duration::days(90);

/// A build's relationships to what the simulator does not have.
const BUILD_ELSEWHERE: &[&str] = &[
    "individualTesters",
    "betaBuildLocalizations",
    "appEncryptionDeclaration",
    "icons",
    "diagnosticSignatures",
];

impl View<'_> {
    pub(super) fn build_resource(&self, build: &Build) -> Resource {
        let id = Some(build.id.clone());
        let version = self.version_of_build(&build.id).map(|version| version.id.clone());
        let review = self.beta_reviews.get(&build.id).map(|review| review.build.clone());
        let upload = self.upload_of_build(&build.id).map(|upload| upload.id.clone());
        Resource {
            kind: "builds",
            id: build.id.clone(),
            collection: Some("/v1/builds"),
            attributes: vec![
                ("version", text(&build.version)),
                ("uploadedDate", date(build.uploaded)),
                ("expirationDate", date(build.uploaded.map(|uploaded| uploaded + BUILD_LIFE))),
                ("expired", Some(build.expired.into())),
                ("minOsVersion", text("17.0")),
                ("iconAssetToken", Some(icon())),
                ("processingState", text(&build.processing_state)),
                ("buildAudienceType", text("APP_STORE_ELIGIBLE")),
                ("usesNonExemptEncryption", Some(false.into())),
            ],
            relationships: [
                one("preReleaseVersion", "preReleaseVersions", Some(pre_release_id(build))),
                one("app", "apps", Some(build.app.clone())),
                one("buildBetaDetail", "buildBetaDetails", id),
                one("betaAppReviewSubmission", "betaAppReviewSubmissions", review),
                one("appStoreVersion", "appStoreVersions", version),
                unlinked(one("buildUpload", "buildUploads", upload)),
            ]
            .into_iter()
            .chain(elsewhere(BUILD_ELSEWHERE))
            .collect(),
        }
    }

    /// The version that a build was uploaded for.
    pub(super) fn pre_release_resource(&self, build: &Build) -> Resource {
        let id = pre_release_id(build);
        let builds = self.pre_release(&id).iter().map(|build| build.id.clone()).collect();
        Resource {
            kind: "preReleaseVersions",
            id,
            collection: Some("/v1/preReleaseVersions"),
            attributes: vec![
                ("version", text(&build.pre_release_version)),
                ("platform", text(&build.platform)),
            ],
            relationships: vec![
                one("app", "apps", Some(build.app.clone())),
                many("builds", "builds", builds),
            ],
        }
    }
}

/// What TestFlight says of a build; its id is the build's.
pub(super) fn beta_detail(build: &Build) -> Resource {
    let (internal, external) = build.beta_states();
    Resource {
        kind: "buildBetaDetails",
        id: build.id.clone(),
        collection: Some("/v1/buildBetaDetails"),
        attributes: vec![
            ("autoNotifyEnabled", Some(false.into())),
            ("internalBuildState", text(internal)),
            ("externalBuildState", text(external)),
        ],
        relationships: vec![one("build", "builds", Some(build.id.clone()))],
    }
}

/// The review of a build for external testers; its id is the build's.
pub(super) fn beta_review(review: &BetaReview) -> Resource {
    Resource {
        kind: "betaAppReviewSubmissions",
        id: review.build.clone(),
        collection: Some("/v1/betaAppReviewSubmissions"),
        attributes: vec![("betaReviewState", text(&review.state)), ("submittedDate", date(review.submitted))],
        relationships: vec![one("build", "builds", Some(review.build.clone()))],
    }
}

/// An upload.
pub(super) fn upload(upload: &BuildUpload) -> Resource {
    let details = |details: &[StateDetail]| -> Value {
        let detail = |detail: &StateDetail| json!({ "code": detail.code, "description": detail.description });
        details.iter().map(detail).collect()
    };
    Resource {
        kind: "buildUploads",
        id: upload.id.clone(),
        collection: Some("/v1/buildUploads"),
        attributes: vec![
            ("cfBundleShortVersionString", text(&upload.short_version)),
            ("cfBundleVersion", text(&upload.version)),
            ("createdDate", date(upload.created)),
            (
                "state",
                Some(json!({
                    "errors": details(&upload.errors),
                    "warnings": details(&upload.warnings),
                    "infos": details(&upload.infos),
                    "state": upload.state,
                })),
            ),
            ("platform", text(&upload.platform)),
            ("uploadedDate", date(upload.uploaded)),
        ],
        relationships: [unlinked(one("build", "builds", upload.build.clone()))]
            .into_iter()
            .chain(elsewhere(&["buildUploadFiles"]))
            .collect(),
    }
}

/// An image that is nowhere, in the store's way of writing an address of any size.
fn icon() -> Value {
    json!({ "templateUrl": "https://icons.invalid/{w}x{h}bb.{f}", "width": 1024, "height": 1024 })
}
