//! Answers that are right in their form and wrong in what they say.

use serde_json::{Value, json};

use crate::faults::{Fault, FaultKind, Met};
use crate::history::History;
use crate::random::Random;
use crate::scenario::app_store_state;

/// What [`FaultKind::UnknownValue`] serves where the fault does not say.
const SOMETHING_NEW: &str = "SOMETHING_NEW";

/// What Google's lifecycle states begin with on the wire.
const LIFECYCLE: &str = "RELEASE_LIFECYCLE_STATE_";

/// The attributes of App Store Connect that hold a state.
const STATES: &[(&str, &str)] = &[
    ("appStoreVersions", "appVersionState"),
    ("appStoreVersions", "appStoreState"),
    ("appStoreVersionPhasedReleases", "phasedReleaseState"),
    ("builds", "processingState"),
    ("buildBetaDetails", "internalBuildState"),
    ("buildBetaDetails", "externalBuildState"),
    ("betaAppReviewSubmissions", "betaReviewState"),
    ("buildUploads", "state"),
    ("reviewSubmissions", "state"),
    ("reviewSubmissionItems", "state"),
    ("appInfos", "state"),
    ("appInfos", "appStoreState"),
    ("inAppPurchases", "state"),
    ("subscriptions", "state"),
    ("appEvents", "eventState"),
];

/// Distorts an answer of App Store Connect. Order, filters and repeated data are the list's own affair and
/// have been seen to; here is what remains.
pub(crate) fn app_store(body: &mut Value, met: &Met, history: &History) {
    for fault in &met.beside {
        match fault.kind {
            FaultKind::Shuffled => {
                let mut random = Random::new(met.order, "included");
                shuffle(&mut body["included"], &mut random);
                for resource in resources(body) {
                    for (_, related) in resource["relationships"].as_object_mut().into_iter().flatten() {
                        shuffle(&mut related["data"], &mut random);
                    }
                }
            }
            FaultKind::RepeatedPage if body["data"].is_array() => {
                body["links"]["next"] = body["links"]["self"].clone();
            }
            FaultKind::Empty if body["data"].is_array() => empty(body),
            FaultKind::UnknownValue => {
                let value = fault.value.as_deref().unwrap_or(SOMETHING_NEW);
                for resource in resources(body).filter(|resource| touches(fault, &resource["type"])) {
                    for (kind, attribute) in STATES {
                        if resource["type"] == **kind {
                            put(&mut resource["attributes"][*attribute], value);
                        }
                    }
                }
            }
            FaultKind::Stale => {
                for resource in resources(body).filter(|resource| touches(fault, &resource["type"])) {
                    let (kind, id) = (&resource["type"], &resource["id"]);
                    let (Some(kind), Some(id)) = (kind.as_str(), id.as_str()) else { continue };
                    for (attribute, value) in history.previous(kind, id).to_vec() {
                        put(&mut resource["attributes"][attribute], &value);
                        if attribute == "appVersionState" {
                            put(&mut resource["attributes"]["appStoreState"], app_store_state(&value));
                        }
                    }
                }
            }
            _ => {}
        }
    }
    tidy(body);
}

/// Distorts an answer of Google Play about an app. `page` is the token of the page itself.
pub(crate) fn google_play(body: &mut Value, met: &Met, history: &History, package: &str, page: &str) {
    for fault in &met.beside {
        match fault.kind {
            FaultKind::Shuffled => {
                let mut random = Random::new(met.order, "list");
                for list in ["apps", "tracks", "releases"] {
                    shuffle(&mut body[list], &mut random);
                }
            }
            FaultKind::RepeatedPage if body["apps"].is_array() => body["nextPageToken"] = page.into(),
            FaultKind::Empty => {
                for list in ["apps", "tracks", "releases", "nextPageToken"] {
                    body[list] = Value::Null;
                }
            }
            FaultKind::UnknownValue if touches(fault, &"releases".into()) => {
                let value = fault.value.as_deref().unwrap_or(SOMETHING_NEW);
                for (_, release) in releases(body) {
                    put(&mut release["releaseLifecycleState"], &format!("{LIFECYCLE}{value}"));
                    put(&mut release["status"], value);
                }
            }
            FaultKind::Stale if touches(fault, &"releases".into()) => {
                for (track, release) in releases(body) {
                    let id = format!("{package}/{track}/{}", codes(release));
                    for (attribute, value) in history.previous("releases", &id) {
                        match *attribute {
                            "releaseLifecycleState" => {
                                put(&mut release[*attribute], &format!("{LIFECYCLE}{value}"));
                            }
                            other => put(&mut release[other], value),
                        }
                    }
                }
            }
            _ => {}
        }
    }
    tidy(body);
}

/// Whether a fault touches resources of a type.
fn touches(fault: &Fault, kind: &Value) -> bool {
    fault.resource.as_ref().is_none_or(|wanted| kind == wanted.as_str())
}

/// All resources of an answer, those that it lists and those that it includes.
fn resources(body: &mut Value) -> impl Iterator<Item = &mut Value> {
    let (data, included): (Vec<_>, Vec<_>) = body
        .as_object_mut()
        .into_iter()
        .flatten()
        .filter(|(name, _)| matches!(name.as_str(), "data" | "included"))
        .map(|(_, value)| value)
        .partition(|value| value.is_object());
    data.into_iter().chain(included.into_iter().filter_map(Value::as_array_mut).flatten())
}

/// All releases of an answer of Google Play, with their tracks.
fn releases(body: &mut Value) -> Vec<(String, &mut Value)> {
    let own = body["track"].as_str().map(str::to_owned);
    let mut found = Vec::new();
    for (name, value) in body.as_object_mut().into_iter().flatten() {
        let Some(values) = value.as_array_mut() else { continue };
        if name == "releases" {
            found.extend(values.iter_mut().map(|release| {
                let track = release["track"].as_str().map(str::to_owned).or(own.clone());
                (track.unwrap_or_default(), release)
            }));
        } else if name == "tracks" {
            for track in values {
                let name = track["track"].as_str().unwrap_or_default().to_owned();
                let Some(track) = track.as_object_mut() else { continue };
                let releases = track.get_mut("releases").and_then(Value::as_array_mut).into_iter().flatten();
                found.extend(releases.map(|release| (name.clone(), release)));
            }
        }
    }
    found
}

/// The version codes of a release, in either of its shapes.
fn codes(release: &Value) -> String {
    let listed = release["versionCodes"].as_array().into_iter().flatten();
    let active = release["activeArtifacts"].as_array().into_iter().flatten();
    let codes = listed.chain(active.map(|artifact| &artifact["versionCode"]));
    let texts: Vec<_> = codes.map(|code| code.as_str().map_or(code.to_string(), str::to_owned)).collect();
    texts.join(",")
}

/// Puts a value in the place of another, in that one's type; what is not there stays away.
fn put(place: &mut Value, value: &str) {
    match place {
        Value::Null => {}
        Value::Bool(_) => *place = (value == "true").into(),
        Value::Number(_) => {
            if let Ok(number) = value.parse::<serde_json::Number>() {
                *place = number.into();
            }
        }
        Value::Array(_) => *place = value.split(',').filter(|part| !part.is_empty()).collect(),
        Value::Object(state) => {
            state.insert("state".to_owned(), value.into());
        }
        Value::String(_) => *place = value.into(),
    }
}

fn shuffle(list: &mut Value, random: &mut Random) {
    let Some(list) = list.as_array_mut() else { return };
    for last in (1..list.len()).rev() {
        let other = (random.bits() % (last as u64 + 1)) as usize;
        list.swap(last, other);
    }
}

fn empty(body: &mut Value) {
    body["data"] = json!([]);
    body["meta"]["paging"]["total"] = 0.into();
    body["meta"]["paging"]["nextCursor"] = Value::Null;
    body["links"]["next"] = Value::Null;
    if body["included"].is_array() {
        body["included"] = json!([]);
    }
}

/// Takes away the members that indexing has made, and those that were emptied: neither store says null.
fn tidy(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.iter_mut().for_each(|(_, member)| tidy(member));
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}
