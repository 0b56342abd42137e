#![allow(clippy::unwrap_used)]

use super::super::answer::LIFECYCLE_PREFIX;
use super::super::client::tests::description;
use super::*;

/// The values of a property in the description of the publisher API; none where that is not at hand.
fn described(schema: &str, property: &str) -> Option<Vec<String>> {
    let document = description("google-androidpublisher-v3.json")?;
    let values = document.pointer(&format!("/schemas/{schema}/properties/{property}/enum"));
    let values = values.unwrap_or_else(|| panic!("{schema}.{property} is no enumeration any more"));
    Some(values.as_array().unwrap().iter().map(|value| value.as_str().unwrap().to_owned()).collect())
}

/// Compares both ways what is known of a kind with what Google describes.
fn compare(kind: Kind, schema: &str, property: &str, prefix: &str) {
    let Some(described) = described(schema, property) else { return };
    let known: Vec<String> = known_values(kind).iter().map(|value| format!("{prefix}{value}")).collect();
    for value in &described {
        assert!(known.contains(value), "{schema}.{property} has {value}, which is not known");
    }
    for value in &known {
        assert!(described.contains(value), "{schema}.{property} has no {value} (any more)");
    }
}

#[test]
fn every_lifecycle_state_of_googles_description_is_known() {
    compare(Kind::Release, "ReleaseSummary", "releaseLifecycleState", LIFECYCLE_PREFIX);
}

#[test]
fn every_rollout_status_of_googles_description_is_known() {
    compare(Kind::Rollout, "TrackRelease", "status", "");
}

#[test]
fn no_other_state_is_described_of_what_is_read() {
    // A property with values of its own that one day joins what is read here should be looked at.
    let Some(document) = description("google-androidpublisher-v3.json") else { return };
    let mut found = Vec::new();
    for schema in ["AppEdit", "ArtifactSummary", "ReleaseSummary", "Track", "TrackRelease"] {
        for (name, property) in document["schemas"][schema]["properties"].as_object().unwrap() {
            if property.get("enum").is_some() {
                found.push(format!("{schema}.{name}"));
            }
        }
    }
    assert_eq!(found, ["ReleaseSummary.releaseLifecycleState", "TrackRelease.status"]);
    let Some(document) = description("google-playdeveloperreporting-v1beta1.json") else { return };
    for schema in ["App", "Release", "ReleaseFilterOptions", "Track"] {
        let name = format!("GooglePlayDeveloperReportingV1beta1{schema}");
        let properties = document["schemas"][&name]["properties"].as_object().unwrap();
        assert!(properties.values().all(|property| property.get("enum").is_none()), "{schema}");
    }
}

#[test]
fn every_state_is_documented() {
    let document = include_str!("../../../docs/states-google.md");
    for (kind, heading) in
        [(Kind::App, "## App"), (Kind::Release, "## Release"), (Kind::Rollout, "## Rollout")]
    {
        let section = document.split(heading).nth(1).unwrap_or_else(|| panic!("no {heading}"));
        let section = section.split("\n## ").next().unwrap();
        let rows: Vec<&str> = section
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once('`').map(|(value, _)| value))
            .collect();
        assert_eq!(rows, known_values(kind), "{heading}");
    }
}

#[test]
fn what_google_acts_on_next_and_what_nobody_knows_is_watched() {
    let hot = |kind| -> Vec<&str> {
        known_values(kind).iter().copied().filter(|state| heat(kind, state) == Heat::Hot).collect()
    };
    assert_eq!(hot(Kind::Release), ["UNSPECIFIED", "IN_REVIEW"]);
    assert_eq!(hot(Kind::Rollout), ["statusUnspecified", "inProgress"]);
    assert_eq!(hot(Kind::App), [""; 0]);
    for kind in [Kind::App, Kind::Release, Kind::Rollout] {
        assert_eq!(heat(kind, "SOMETHING_NEW"), Heat::Hot);
    }
    assert_eq!(known_values(Kind::Version), [""; 0]);
}
