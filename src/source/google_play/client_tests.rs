#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::*;

const PUBLISHER: &str = "google-androidpublisher-v3.json";
const REPORTING: &str = "google-playdeveloperreporting-v1beta1.json";

/// Google's description of an API; none where it is not at hand.
pub(in super::super) fn description(name: &str) -> Option<Value> {
    let own = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared");
    let path = std::env::var_os("STATUSLEDGER_SHARED").map_or_else(own, PathBuf::from);
    let path = path.join("specs").join(name);
    if !path.exists() {
        eprintln!("skipped: {} is not there", path.display());
        return None;
    }
    Some(serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap())
}

/// What the description of an API calls a request, and what stands in its `flatPath` for the values of ours. A
/// variant that is added has to be named here.
fn described(request: &Request<'_>) -> Option<(&'static str, &'static [&'static str], Vec<&'static str>)> {
    let (document, path): (_, &[&str]) = match request {
        Request::Token => return None,
        Request::SearchApps { .. } => (REPORTING, &["apps", "search"]),
        Request::ReleaseFilterOptions { .. } => (REPORTING, &["apps", "fetchReleaseFilterOptions"]),
        Request::Releases { .. } => (PUBLISHER, &["applications", "tracks", "releases", "list"]),
        Request::InsertEdit { .. } => (PUBLISHER, &["edits", "insert"]),
        Request::EditTracks { .. } => (PUBLISHER, &["edits", "tracks", "list"]),
        Request::DeleteEdit { .. } => (PUBLISHER, &["edits", "delete"]),
    };
    let values = match request {
        Request::Token | Request::SearchApps { .. } => vec![],
        Request::ReleaseFilterOptions { .. } | Request::InsertEdit { .. } => vec!["com.example"],
        Request::Releases { .. } => vec!["com.example", "wear:production"],
        Request::EditTracks { .. } | Request::DeleteEdit { .. } => vec!["com.example", "0123"],
    };
    Some((document, path, values))
}

fn every_request() -> [Request<'static>; 8] {
    let (package, track, edit) = ("com.example", "wear:production", "0123");
    [
        Request::Token,
        Request::SearchApps { page_token: None },
        Request::SearchApps { page_token: Some("next&pageSize=1") },
        Request::ReleaseFilterOptions { package },
        Request::Releases { package, track },
        Request::InsertEdit { package },
        Request::EditTracks { package, edit },
        Request::DeleteEdit { package, edit },
    ]
}

fn bases() -> Bases {
    let own = PlayBaseUrls::default();
    Bases { publisher: own.publisher.parse().unwrap(), reporting: own.reporting.parse().unwrap() }
}

#[test]
fn every_variant_is_among_the_requests_that_are_checked() {
    let kinds: HashSet<_> = every_request().iter().map(std::mem::discriminant).collect();
    // The variants of the match above, each once.
    assert_eq!(kinds.len(), 7);
}

#[test]
fn nothing_but_the_token_and_the_edit_is_asked_by_another_method_than_get() {
    for request in every_request() {
        let allowed = match request {
            Request::Token | Request::InsertEdit { .. } => Method::POST,
            Request::DeleteEdit { .. } => Method::DELETE,
            _ => Method::GET,
        };
        assert_eq!(request.method(), allowed, "{request:?}");
        // What is sent describes no change.
        assert!(request.body().is_none_or(|body| body == json!({})), "{request:?}");
        let address = request.address(&bases()).map(String::from).unwrap_or_default();
        assert!(!address.contains("commit") && !address.contains("validate"), "{address}");
    }
}

#[test]
fn every_request_is_one_that_google_describes() {
    for request in every_request() {
        let Some((document, names, values)) = described(&request) else { continue };
        let Some(document) = description(document) else { return };
        let (method, resources) = names.split_last().unwrap();
        let pointer: String = resources.iter().map(|name| format!("/resources/{name}")).collect();
        let told = document.pointer(&format!("{pointer}/methods/{method}")).unwrap();

        assert_eq!(told["httpMethod"], request.method().as_str(), "{request:?}");
        let mut path = document["rootUrl"].as_str().unwrap().to_owned();
        path += document["servicePath"].as_str().unwrap();
        let mut rest = told["flatPath"].as_str().unwrap();
        let mut values = values.into_iter();
        while let Some((before, placeholder)) = rest.split_once('{') {
            path += before;
            path += values.next().unwrap();
            rest = placeholder.split_once('}').unwrap().1;
        }
        path += rest;
        assert_eq!(values.next(), None, "{request:?}");

        let mut address = request.address(&bases()).unwrap();
        let asked: BTreeSet<String> = address.query_pairs().map(|(name, _)| name.into_owned()).collect();
        for name in asked {
            assert_eq!(told["parameters"][&name]["location"], "query", "{request:?}: {name}");
        }
        address.set_query(None);
        assert_eq!(address.as_str(), path, "{request:?}");
    }
}

#[test]
fn the_scopes_of_every_request_are_asked_for() {
    for request in every_request() {
        let Some((document, names, _)) = described(&request) else { continue };
        let Some(document) = description(document) else { return };
        let (method, resources) = names.split_last().unwrap();
        let pointer: String = resources.iter().map(|name| format!("/resources/{name}")).collect();
        let scopes = document.pointer(&format!("{pointer}/methods/{method}/scopes")).unwrap();
        let ours: Vec<&str> = super::super::token::SCOPES.split(' ').collect();
        let needed = scopes.as_array().unwrap();
        assert!(needed.iter().any(|scope| ours.contains(&scope.as_str().unwrap())), "{request:?}: {scopes}");
    }
}

#[test]
fn what_a_store_names_stays_where_it_is_put() {
    let next = Request::SearchApps { page_token: Some("a&pageSize=1#x") }.address(&bases()).unwrap();
    assert_eq!(next.query(), Some("pageSize=1000&pageToken=a%26pageSize%3D1%23x"));
    let request = Request::Releases { package: "com.example", track: "a/../b?c" };
    let path = "/androidpublisher/v3/applications/com.example/tracks/a%2F..%2Fb%3Fc/releases";
    assert_eq!(request.address(&bases()).unwrap().path(), path);
}
