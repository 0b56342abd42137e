//! What the fuzz targets reach into; built for them alone.

use super::answer;
use super::document::{Document, Related, Resource, Single};
use super::looks::known_app;
use super::observe::{self, KnownApp, take};
use super::products;
use crate::observation::Observation;
use crate::source::look::Look;
use serde::Deserialize;

/// Takes out of an answer what any poll would: of each resource everything that it may be.
#[must_use]
pub fn answer(body: &[u8]) -> Look {
    let mut look = Look::default();
    if let Ok(Single { data: Some(of), included }) = Single::parse(body) {
        resource(&of, &Related::of(&included), &mut look);
    }
    let Ok(document) = Document::parse(body) else { return look };
    let related = Related::of(&document.included);
    let mut territories = Vec::new();
    for found in &document.data {
        match Resource::deserialize(found) {
            Ok(of) => {
                territories.extend(products::territory(&of));
                resource(&of, &related, &mut look);
            }
            Err(_) => look.unread += 1,
        }
    }
    let availability = products::Availability {
        id: "7".into(),
        available_in_new_territories: document.total().map(|n| n > 1),
    };
    seen(&mut look, Some(observe::availability(&app(), &availability, &territories)));
    look
}

fn app() -> KnownApp {
    KnownApp { id: "1".into(), bundle_id: "com.example.app".into(), name: "Example".into() }
}

fn seen(look: &mut Look, said: impl IntoIterator<Item = Observation>) {
    for observation in said {
        look.unread += u32::from(!take(look, observation));
    }
}

fn resource(of: &Resource, related: &Related<'_>, look: &mut Look) {
    let app = app();
    if let Some(found) = answer::app(of).map(known_app) {
        seen(look, Some(observe::app(&found)));
    }
    if let Some(version) = answer::version(of, related) {
        let phased = version.phased_release.as_ref();
        seen(look, phased.map(|phased| observe::phased_release(&app, &version, phased)));
        seen(look, Some(observe::version(&app, &version)));
    }
    if let Some(build) = answer::build(of, related) {
        seen(look, observe::build(&app, &build));
    }
    seen(look, answer::beta_review(of, related).map(|review| observe::beta_review(&app, &review)));
    seen(look, answer::build_upload(of).map(|upload| observe::build_upload(&app, &upload)));
    if let Some(submission) = answer::review_submission(of, related) {
        seen(look, submission.items.iter().map(|item| observe::review_item(&app, &submission, item)));
        seen(look, Some(observe::review_submission(&app, &submission)));
    }
    seen(look, products::app_info(of).map(|info| observe::app_info(&app, &info)));
    seen(look, products::in_app_purchase(of).map(|bought| observe::in_app_purchase(&app, &bought)));
    seen(look, products::subscription(of, related, None).map(|taken| observe::subscription(&app, &taken)));
    seen(look, products::app_event(of).map(|event| observe::app_event(&app, &event)));
    if let Some(delivery) = answer::webhook_delivery(of, related)
        && let Some(Ok(event)) = super::webhook::parse_delivery(&delivery)
    {
        look.told.push(event);
    }
    drop(answer::webhook(of));
}
