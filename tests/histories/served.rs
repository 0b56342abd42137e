//! What the simulator truly answered: its history folded to what each resource said at a request, with what the fault
//! of that look made of it.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde_json::{Value, json};
use statusledger_simulator::values::OLD_IN_APP_PURCHASE_STATES;
use statusledger_simulator::{Fault, FaultKind, RecordedRequest, Service, StateChange};

use super::oracle::{Sight, Subject};

/// An attribute's value, and the one before its last change.
type Attribute = (String, Option<String>);

/// Each resource by its type and id, with its attributes.
#[derive(Default)]
struct Resources(BTreeMap<(&'static str, String), BTreeMap<&'static str, Attribute>>);

impl Resources {
    fn of(history: &[StateChange]) -> Self {
        let mut all = Self::default();
        for change in history {
            let resource = all.0.entry((change.resource, change.id.clone())).or_default();
            match &change.to {
                Some(to) => {
                    let before = resource.get(change.attribute).and_then(|(_, before)| before.clone());
                    let before = change.from.clone().or(before);
                    resource.insert(change.attribute, (to.clone(), before));
                }
                None => drop(resource.remove(change.attribute)),
            }
        }
        all.0.retain(|_, attributes| !attributes.is_empty());
        all
    }
}

/// What is no state and stands in no history.
#[derive(Clone, Default)]
pub struct Registry {
    /// Apps that are there: the store's id, by the store.
    pub apps: BTreeSet<(bool, String)>,
    /// Whose each resource is, by its id; of a release the package and track are in its id.
    pub app_of: BTreeMap<String, String>,
    /// The submission of each item.
    pub parent: BTreeMap<String, String>,
    /// The errors of each upload.
    pub errors: BTreeMap<String, Vec<(String, String)>>,
    /// Whether each app's availability takes in new territories.
    pub in_new_territories: BTreeMap<String, bool>,
    /// Tracks of each package.
    pub tracks: BTreeMap<String, Vec<String>>,
}

/// The stores at one moment.
pub struct Store<'a> {
    resources: Resources,
    registry: &'a Registry,
}

/// A fault as it met one request.
#[derive(Clone, Copy)]
pub enum Met<'a> {
    Nothing,
    /// Another answer than that.
    Instead,
    Distorted(&'a Fault),
}

impl Met<'_> {
    fn kind(&self) -> Option<FaultKind> {
        if let Met::Distorted(fault) = self { Some(fault.kind) } else { None }
    }
}

/// What an answer told.
#[derive(Default)]
pub struct Told {
    pub sights: Vec<Sight>,
    /// What it listed whole: the kind, and of which app or track.
    pub listed: Vec<(&'static str, Option<String>)>,
    /// What was asked for by itself was not there.
    pub not_there: bool,
    /// The webhook whose deliveries it listed.
    pub deliveries: Option<String>,
}

const STATES: &[(&str, &str, &str)] = &[
    ("appStoreVersions", "appVersionState", "version"),
    ("appStoreVersionPhasedReleases", "phasedReleaseState", "phased_release"),
    ("builds", "processingState", "build"),
    ("buildBetaDetails", "internalBuildState", "beta_internal"),
    ("buildBetaDetails", "externalBuildState", "beta_external"),
    ("betaAppReviewSubmissions", "betaReviewState", "beta_review"),
    ("buildUploads", "state", "build_upload"),
    ("reviewSubmissions", "state", "review_submission"),
    ("reviewSubmissionItems", "state", "review_item"),
    ("appInfos", "state", "app_info"),
    ("inAppPurchases", "state", "in_app_purchase"),
    ("subscriptions", "state", "subscription"),
    ("appEvents", "eventState", "app_event"),
    ("releases", "releaseLifecycleState", "release"),
];

impl<'a> Store<'a> {
    pub fn new(history: &[StateChange], registry: &'a Registry) -> Self {
        Self { resources: Resources::of(history), registry }
    }

    /// Everything that is there, as it truly is.
    pub fn truth(&self) -> Vec<Sight> {
        let mut all: Vec<Sight> =
            STATES.iter().flat_map(|(_, _, kind)| self.all(kind, None, Met::Nothing)).collect();
        for (_, app) in &self.registry.apps {
            all.push(self.app(app));
            all.extend(self.availability(app, Met::Nothing));
        }
        all
    }

    fn is_there(&self, app: &str) -> bool {
        self.registry.apps.iter().any(|(_, there)| there == app)
    }

    fn app(&self, app: &str) -> Sight {
        let (subject, state) = (("app", app.to_owned()), "VISIBLE".to_owned());
        Sight { subject, app: app.to_owned(), state, facts: json!({}) }
    }

    /// An attribute as it is served.
    fn served(
        &self,
        resource: &'static str,
        id: &str,
        attribute: &'static str,
        met: Met<'_>,
    ) -> Option<String> {
        let (now, before) = self.resources.0.get(&(resource, id.to_owned()))?.get(attribute)?;
        let Met::Distorted(fault) = met else { return Some(now.clone()) };
        let touched = fault.resource.as_ref().is_none_or(|wanted| wanted == resource);
        let is_state = STATES.iter().any(|(r, a, _)| (*r, *a) == (resource, attribute));
        Some(match fault.kind {
            FaultKind::Stale if touched => before.as_ref().unwrap_or(now).clone(),
            FaultKind::UnknownValue if touched && is_state => {
                fault.value.clone().unwrap_or_else(|| "SOMETHING_NEW".to_owned())
            }
            _ => now.clone(),
        })
    }

    /// One subject, if it is there.
    fn one(&self, kind: &'static str, id: &str, met: Met<'_>) -> Option<Sight> {
        let (resource, attribute, _) = STATES.iter().find(|(_, _, k)| *k == kind)?;
        let state = self.served(resource, id, attribute, met)?;
        let mut facts = json!({});
        if kind == "build" {
            facts["expired"] = (self.served(resource, id, "expired", met)? == "true").into();
        }
        if let Some(errors) = self.registry.errors.get(id).filter(|e| kind == "build_upload" && !e.is_empty())
        {
            let errors = errors.iter().map(|(code, text)| json!({ "code": code, "description": text }));
            facts["errors"] = errors.collect();
        }
        let app = match kind {
            "release" => id.rsplit_once('/')?.0.to_owned(),
            "phased_release" => self.registry.app_of.get(id.strip_suffix("-phased")?)?.clone(),
            _ => self.registry.app_of.get(id)?.clone(),
        };
        let key = if kind == "release" { id.replace(',', "+") } else { id.to_owned() };
        Some(Sight { subject: (kind, key), app, state, facts })
    }

    /// All of a kind, of an app or track or of all.
    fn all(&self, kind: &'static str, app: Option<&str>, met: Met<'_>) -> Vec<Sight> {
        let Some((resource, _, _)) = STATES.iter().find(|(_, _, k)| *k == kind) else { return Vec::new() };
        let ids = self.resources.0.keys().filter(|(of, _)| of == resource);
        let sights = ids.filter_map(|(_, id)| self.one(kind, id, met));
        sights.filter(|sight| app.is_none_or(|app| sight.app == app)).collect()
    }

    fn availability(&self, app: &str, met: Met<'_>) -> Option<Sight> {
        let mut territories = Vec::new();
        let mut statuses: BTreeMap<String, i64> = BTreeMap::new();
        let mut any = false;
        for (resource, id) in self.resources.0.keys().filter(|(of, _)| *of == "territoryAvailabilities") {
            let named: Value = serde_json::from_slice(&STANDARD_NO_PAD.decode(id).unwrap()).unwrap();
            if named["s"] != app {
                continue;
            }
            any = true;
            if self.served(resource, id, "available", met)? == "true" {
                territories.push(named["t"].as_str().unwrap().to_owned());
            }
            for status in
                self.served(resource, id, "contentStatuses", met)?.split(',').filter(|s| !s.is_empty())
            {
                *statuses.entry(status.to_owned()).or_default() += 1;
            }
        }
        territories.sort();
        let state = if territories.is_empty() { "REMOVED_FROM_SALE" } else { "AVAILABLE" };
        let facts = json!({
            "available": territories.len(),
            "territories": territories,
            "content_statuses": statuses,
            "available_in_new_territories": self.registry.in_new_territories.get(app)?,
        });
        let subject = ("availability", app.to_owned());
        any.then(|| Sight { subject, app: app.to_owned(), state: state.to_owned(), facts })
    }

    /// What an answer of App Store Connect told. `before` is the request before it.
    pub fn apple(&self, request: &RecordedRequest, before: Option<&RecordedRequest>, met: Met<'_>) -> Told {
        let mut told = Told::default();
        let path: Vec<&str> = request.path.trim_start_matches('/').split('/').collect();
        let missing = request.status == 404;
        if matches!(met, Met::Instead) || !(missing || request.status == 200) {
            return told;
        }
        if missing {
            // That an app has no availability is an answer of its own.
            told.not_there = true;
            if let ["v1", "apps", app, "appAvailabilityV2"] = path[..]
                && self.is_there(app)
            {
                told.listed.push(("availability", Some(app.to_owned())));
            }
            return told;
        }
        let (empty, endless) =
            (met.kind() == Some(FaultKind::Empty), met.kind() == Some(FaultKind::RepeatedPage));
        let app = |app: &str| Some(app.to_owned());
        match path[..] {
            ["v1", "apps"] => {
                told.listed.push(("app", None));
                for (_, id) in self.registry.apps.iter().filter(|(apple, _)| *apple) {
                    told.sights.push(self.app(id));
                    for kind in ["version", "review_submission", "app_info", "in_app_purchase", "app_event"] {
                        let all = self.all(kind, Some(id), met);
                        let truly = self.all(kind, Some(id), Met::Nothing);
                        // The deprecated resource that apps include does not know every state.
                        let known =
                            |s: &str| kind != "in_app_purchase" || OLD_IN_APP_PURCHASE_STATES.contains(&s);
                        let unknown_to_it: BTreeSet<Subject> = truly
                            .iter()
                            .filter(|sight| !known(&sight.state))
                            .map(|sight| sight.subject.clone())
                            .collect();
                        if unknown_to_it.is_empty() {
                            told.listed.push((kind, app(id)));
                        }
                        told.sights.extend(all.into_iter().filter(|s| !unknown_to_it.contains(&s.subject)));
                    }
                }
            }
            ["v1", "apps", id] => told.sights.push(self.app(id)),
            ["v1", "apps", id, "appStoreVersions"] => {
                for kind in ["version", "phased_release"] {
                    told.sights.extend(self.all(kind, Some(id), met));
                    told.listed.push((kind, app(id)));
                }
            }
            ["v1", "apps", id, list @ ("buildUploads" | "inAppPurchasesV2" | "subscriptionGroups")] => {
                let kind = match list {
                    "buildUploads" => "build_upload",
                    "inAppPurchasesV2" => "in_app_purchase",
                    _ => "subscription",
                };
                told.sights.extend(self.all(kind, Some(id), met));
                told.listed.push((kind, app(id)));
            }
            ["v1", "builds"] => {
                let named = named_builds(request);
                let unfiltered = named.is_none() || met.kind() == Some(FaultKind::IgnoredFilters);
                for kind in ["build", "beta_internal", "beta_external", "beta_review"] {
                    let all = self.all(kind, None, met).into_iter();
                    let is_named = |id: &String| named.as_ref().is_some_and(|named| named.contains(id));
                    told.sights.extend(all.filter(|sight| unfiltered || is_named(&sight.subject.1)));
                    told.listed.extend(named.is_none().then_some((kind, None)));
                }
                if empty {
                    told.sights.clear();
                }
            }
            ["v1", "reviewSubmissions"] => {
                let asked: Vec<String> = url::form_urlencoded::parse(request.query.as_bytes())
                    .find(|(name, _)| name == "filter[app]")
                    .map(|(_, ids)| ids.split(',').map(str::to_owned).collect())
                    .unwrap();
                let unfiltered = met.kind() == Some(FaultKind::IgnoredFilters);
                for kind in ["review_submission", "review_item"] {
                    let all = self.all(kind, None, met).into_iter();
                    told.sights.extend(all.filter(|sight| unfiltered || asked.contains(&sight.app)));
                    told.listed.extend(asked.iter().map(|id| (kind, app(id))));
                }
            }
            ["v2", "appAvailabilities", id, "territoryAvailabilities"] => {
                // An availability of no territory at all says nothing about any, and half a list less.
                let whole = before.is_some_and(|b| b.path.ends_with("/appAvailabilityV2") && b.status == 200);
                if whole && !empty && !endless {
                    told.sights.extend(self.availability(id, met));
                    told.listed.push(("availability", app(id)));
                }
                return told;
            }
            ["v1", "webhooks", id, "deliveries"] if !empty && !endless => {
                told.deliveries = Some(id.to_owned());
            }
            _ => told = self.by_itself(&path, met),
        }
        if empty && !told.listed.is_empty() {
            told.sights.clear();
            // Of no app it is said that it has none of something.
            told.listed.retain(|(kind, _)| path[..] != ["v1", "apps"] || *kind == "app");
        }
        if endless {
            told.listed.retain(|(kind, _)| path[..] == ["v1", "apps"] && *kind != "app");
        }
        told
    }

    /// A resource that was asked for by itself.
    fn by_itself(&self, path: &[&str], met: Met<'_>) -> Told {
        let mut told = Told::default();
        let mut see = |kinds: &[&'static str], id: &str| {
            told.sights.extend(kinds.iter().filter_map(|kind| self.one(kind, id, met)));
        };
        match path[..] {
            ["v1", "appStoreVersions", id] => see(&["version"], id),
            ["v1", "appStoreVersions", id, "appStoreVersionPhasedRelease"] => {
                see(&["phased_release"], &format!("{id}-phased"));
            }
            ["v1", "builds", id] => see(&["build", "beta_internal", "beta_external"], id),
            ["v1", "betaAppReviewSubmissions", id] => see(&["beta_review"], id),
            ["v1", "buildUploads", id] => see(&["build_upload"], id),
            ["v1", "reviewSubmissions", id] => {
                see(&["review_submission"], id);
                let items = self.registry.parent.iter().filter(|(_, of)| *of == id);
                items.for_each(|(item, _)| see(&["review_item"], item));
            }
            ["v1", "appInfos", id] => see(&["app_info"], id),
            ["v2", "inAppPurchases", id] => see(&["in_app_purchase"], id),
            ["v1", "subscriptions", id] => see(&["subscription"], id),
            ["v1", "appEvents", id] => see(&["app_event"], id),
            _ => {}
        }
        told
    }

    /// What an answer of Google Play told.
    pub fn google(&self, request: &RecordedRequest, met: Met<'_>) -> Told {
        let mut told = Told::default();
        let path: Vec<&str> = request.path.trim_start_matches('/').split('/').collect();
        if matches!(met, Met::Instead) {
            return told;
        }
        let empty = met.kind() == Some(FaultKind::Empty);
        let endless = met.kind() == Some(FaultKind::RepeatedPage);
        match path[..] {
            ["v1beta1", "apps:search"] if request.status == 200 => {
                let apps: Vec<_> = self.registry.apps.iter().filter(|(apple, _)| !apple).collect();
                // Of nothing there is no page to repeat. A search that does not end tells nothing.
                if endless && !apps.is_empty() {
                    return told;
                }
                if !empty {
                    told.sights.extend(apps.iter().map(|(_, id)| self.app(id)));
                }
                told.listed.push(("app", None));
            }
            ["androidpublisher", "v3", "applications", package, "tracks", track, "releases"] => {
                let scope = format!("{package}/{track}");
                let on_it = self.all("release", Some(&scope), met);
                let tracks = self.registry.tracks.get(package).filter(|_| self.is_there(package));
                let is_track = tracks.is_some_and(|tracks| tracks.iter().any(|known| known == track));
                if request.status == 200 || (request.status == 404 && is_track && on_it.is_empty()) {
                    if !empty {
                        told.sights = on_it;
                    }
                    told.listed.push(("release", Some(scope)));
                }
            }
            _ => {}
        }
        told
    }
}

/// The builds that a list of builds was asked for by name.
pub fn named_builds(request: &RecordedRequest) -> Option<Vec<String>> {
    let mut query = url::form_urlencoded::parse(request.query.as_bytes());
    let (_, ids) = query.find(|(name, _)| name == "filter[id]")?;
    Some(ids.split(',').map(str::to_owned).collect())
}

/// Which service a request was for.
pub fn service(request: &RecordedRequest) -> Service {
    if request.path.starts_with("/v1/") || request.path.starts_with("/v2/") {
        Service::AppStore
    } else if request.path == "/token" {
        Service::GoogleToken
    } else {
        Service::GooglePlay
    }
}
