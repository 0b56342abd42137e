//! Answers as observations.

use std::collections::BTreeMap;

use statusledger_verify::json::{Object, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::answer::{
    AppEvent, AppInfo, Availability, BetaReview, Build, BuildUpload, InAppPurchase, PhasedRelease,
    ReviewItem, ReviewSubmission, Subscription, Territory, Version,
};
use super::document::is_segment;
use super::states;
use crate::observation::{Kind, Observation};
use crate::source::look::{Look, kept};

/// The longest id and the longest state that are taken over, in bytes. Apple's are below 70.
const MAX_KEY: usize = 200;

/// How many errors of an upload are taken over.
const MAX_ERRORS: usize = 20;

/// How long they may be together, in bytes of canonical JSON: an entry has to hold them, and a control character is six.
const MAX_ERRORS_LENGTH: usize = 16 << 10;

/// An app, as its subjects are known by it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownApp {
    /// The store's id: the scope of the app's subjects.
    pub id: String,
    /// Its bundle id.
    pub bundle_id: String,
    /// Its name.
    pub name: String,
}

/// An observation in the making.
struct Draft<'a> {
    kind: Kind,
    key: &'a str,
    app: &'a KnownApp,
    state: &'a str,
    description: Object,
}

impl<'a> Draft<'a> {
    fn new(kind: Kind, key: &'a str, app: &'a KnownApp, state: &'a str) -> Self {
        let draft = Self { kind, key, app, state, description: Object::default() };
        draft.told("name", Some(&app.name))
    }

    /// Describes it, where the answer tells that.
    fn told(mut self, name: &str, value: Option<&str>) -> Self {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            self.description.insert(name.to_owned(), text(value));
        }
        self
    }

    fn number(mut self, name: &str, value: Option<i64>) -> Self {
        if let Some(value) = value {
            self.description.insert(name.to_owned(), Value::Int(value));
        }
        self
    }

    fn date(self, name: &str, value: Option<OffsetDateTime>) -> Self {
        let date = value.and_then(|date| date.to_offset(time::UtcOffset::UTC).format(&Rfc3339).ok());
        self.told(name, date.as_deref())
    }

    fn seen(self) -> Observation {
        self.seen_with(Object::default(), None)
    }

    fn seen_with(self, facts: Object, store_at: Option<OffsetDateTime>) -> Observation {
        Observation {
            kind: self.kind,
            key: self.key.to_owned(),
            app: self.app.bundle_id.clone(),
            scope: self.app.id.clone(),
            description: self.description,
            state: self.state.to_owned(),
            facts,
            store_at,
        }
    }
}

fn text(value: &str) -> Value {
    Value::String(kept(value))
}

/// Takes an observation into a look. One whose id or state is none that could be kept is unread.
pub(super) fn take(look: &mut Look, observation: Observation) -> bool {
    let fits = |text: &String| (1..=MAX_KEY).contains(&text.len()) && !text.contains('\0');
    let Observation { key, state, app, scope, .. } = &observation;
    if ![key, state, app, scope].into_iter().all(fits) || ![key, scope].into_iter().all(|id| is_segment(id)) {
        return false;
    }
    look.observations.push(observation);
    true
}

pub(super) fn app(app: &KnownApp) -> Observation {
    Draft::new(Kind::App, &app.id, app, states::VISIBLE).seen()
}

pub(super) fn version(app: &KnownApp, of: &Version) -> Observation {
    Draft::new(Kind::Version, &of.id, app, &of.app_version_state)
        .told("platform", Some(&of.platform))
        .told("version", Some(&of.version_string))
        .told("build", of.build_version.as_deref())
        .seen()
}

pub(super) fn phased_release(app: &KnownApp, version: &Version, of: &PhasedRelease) -> Observation {
    phased_release_of(app, &version.id, Some(&version.platform), Some(&version.version_string), of)
}

/// The day moves without being a transition.
pub(super) fn phased_release_of(
    app: &KnownApp,
    version_id: &str,
    platform: Option<&str>,
    version: Option<&str>,
    of: &PhasedRelease,
) -> Observation {
    Draft::new(Kind::PhasedRelease, &of.id, app, &of.state)
        .told("platform", platform)
        .told("version", version)
        .told("version_id", Some(version_id))
        .number("day", of.current_day_number)
        .seen()
}

/// A build, and what TestFlight says about it.
pub(super) fn build(app: &KnownApp, of: &Build) -> Vec<Observation> {
    let draft = |kind: Kind, key: &str, state: &str, facts: Object, store_at: Option<OffsetDateTime>| {
        Draft::new(kind, key, app, state)
            .told("build", Some(&of.version))
            .told("platform", of.platform.as_deref())
            .told("version", of.pre_release_version.as_deref())
            .seen_with(facts, store_at)
    };
    let mut expired = Object::default();
    expired.insert("expired".into(), Value::Bool(of.expired));
    // A build is there, and processed, from when it has arrived.
    let arrived = of.uploaded_date.filter(|_| of.processing_state == "PROCESSING");
    let mut seen = vec![draft(Kind::Build, &of.id, &of.processing_state, expired, arrived)];
    if let Some(state) = &of.internal_build_state {
        seen.push(draft(Kind::BetaInternal, &of.id, state, Object::default(), None));
    }
    if let Some(state) = &of.external_build_state {
        seen.push(draft(Kind::BetaExternal, &of.id, state, Object::default(), None));
    }
    if let Some(review) = &of.beta_review {
        seen.push(draft(
            Kind::BetaReview,
            &review.id,
            &review.state,
            Object::default(),
            waiting_since(review),
        ));
    }
    seen
}

/// A TestFlight review that was asked for by itself.
pub(super) fn beta_review(app: &KnownApp, of: &BetaReview) -> Observation {
    Draft::new(Kind::BetaReview, &of.id, app, &of.state)
        .told("build", of.build_version.as_deref())
        .seen_with(Object::default(), waiting_since(of))
}

/// A build is submitted to TestFlight's review once, so that this is when it began to wait.
fn waiting_since(of: &BetaReview) -> Option<OffsetDateTime> {
    of.submitted_date.filter(|_| of.state == "WAITING_FOR_REVIEW")
}

pub(super) fn build_upload(app: &KnownApp, of: &BuildUpload) -> Observation {
    let store_at = match of.state.as_str() {
        "AWAITING_UPLOAD" => of.created_date,
        "PROCESSING" => of.uploaded_date,
        _ => None,
    };
    let mut facts = Object::default();
    if !of.errors.is_empty() {
        let mut length = 0;
        let errors = of.errors.iter().take(MAX_ERRORS).map(|error| {
            let mut members = Object::default();
            members.insert("code".into(), text(&error.code));
            members.insert("description".into(), text(&error.description));
            Value::Object(members)
        });
        let errors = errors.take_while(|error| {
            length += error.canonical().len();
            length <= MAX_ERRORS_LENGTH
        });
        facts.insert("errors".into(), Value::Array(errors.collect()));
    }
    Draft::new(Kind::BuildUpload, &of.id, app, &of.state)
        .told("build", of.build_version.as_deref())
        .told("platform", of.platform.as_deref())
        .told("version", of.version_string.as_deref())
        .seen_with(facts, store_at)
}

/// The date of its submission describes it and does not date its state: a submission that was sent back with issues is
/// submitted again, and the store does not say which of the times it tells.
pub(super) fn review_submission(app: &KnownApp, of: &ReviewSubmission) -> Observation {
    Draft::new(Kind::ReviewSubmission, &of.id, app, &of.state)
        .told("platform", of.platform.as_deref())
        .told("version", of.version_string.as_deref())
        .date("submitted_at", of.submitted_date)
        .seen()
}

pub(super) fn review_item(app: &KnownApp, submission: &ReviewSubmission, of: &ReviewItem) -> Observation {
    let what = of.of.as_ref();
    Draft::new(Kind::ReviewItem, &of.id, app, &of.state)
        .told("platform", submission.platform.as_deref())
        .told("submission", Some(&submission.id))
        .told("item_type", what.map(|(kind, _)| kind.as_str()))
        .told("item_id", what.map(|(_, id)| id.as_str()))
        .seen()
}

pub(super) fn app_info(app: &KnownApp, of: &AppInfo) -> Observation {
    Draft::new(Kind::AppInfo, &of.id, app, &of.state).seen()
}

pub(super) fn in_app_purchase(app: &KnownApp, of: &InAppPurchase) -> Observation {
    Draft::new(Kind::InAppPurchase, &of.id, app, &of.state)
        .told("product_id", of.product_id.as_deref())
        .told("product_name", of.name.as_deref())
        .told("product_type", of.purchase_type.as_deref())
        .seen()
}

pub(super) fn subscription(app: &KnownApp, of: &Subscription) -> Observation {
    Draft::new(Kind::Subscription, &of.id, app, &of.state)
        .told("group", of.group.as_deref())
        .told("product_id", of.product_id.as_deref())
        .told("product_name", of.name.as_deref())
        .seen()
}

pub(super) fn app_event(app: &KnownApp, of: &AppEvent) -> Observation {
    Draft::new(Kind::AppEvent, &of.id, app, &of.state).told("event_name", of.name.as_deref()).seen()
}

/// An app has one availability, so the app's id is its key: a new one in its place is a change of it. `territories` has
/// to be all of them, since half of a list would say that the app was withdrawn from the rest.
pub(super) fn availability(app: &KnownApp, of: &Availability, territories: &[Territory]) -> Observation {
    let mut available: Vec<_> =
        territories.iter().filter(|place| place.available).map(|place| place.code.as_str()).collect();
    available.sort_unstable();
    available.dedup();
    let mut statuses: BTreeMap<&str, i64> = BTreeMap::new();
    for status in territories.iter().flat_map(|place| &place.content_statuses) {
        if status.len() <= MAX_KEY && !status.contains('\0') {
            *statuses.entry(status).or_default() += 1;
        }
    }
    let state = if available.is_empty() { states::REMOVED_FROM_SALE } else { states::AVAILABLE };
    let mut facts = Object::default();
    facts.insert("available".into(), Value::Int(available.len() as i64));
    facts.insert("territories".into(), Value::Array(available.into_iter().map(text).collect()));
    let mut counted = Object::default();
    for (status, count) in statuses {
        counted.insert(status.to_owned(), Value::Int(count));
    }
    facts.insert("content_statuses".into(), Value::Object(counted));
    if let Some(new) = of.available_in_new_territories {
        facts.insert("available_in_new_territories".into(), Value::Bool(new));
    }
    Draft::new(Kind::Availability, &app.id, app, state).seen_with(facts, None)
}
