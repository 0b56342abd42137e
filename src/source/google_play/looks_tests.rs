#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::json;
use statusledger_simulator::{Fault, FaultKind, Options, Scenario, Simulator, Step};

use super::super::answer;
use super::*;
use crate::source::fetch::FetchOptions;
use crate::source::google_play::{self, StoreSettings};

const SCENARIO: &str = r#"
[[google_play]]
name = "acme"
apps = [
    { package = "com.acme.weather", display_name = "Acme Weather", tracks = ["qa", "team a/b 100%"] },
    { package = "com.acme.notes", display_name = "Acme Notes" },
]

[[google_play.releases]]
package = "com.acme.weather"
track = "production"
name = "2.0.0"
version_codes = [1000, 200]
state = "PUBLISHED"

[[google_play.releases]]
package = "com.acme.weather"
track = "production"
name = "2.0.0"
version_codes = [210]
state = "IN_REVIEW"

[[google_play.releases]]
package = "com.acme.weather"
track = "team a/b 100%"
name = "2.1.0"
version_codes = [210]
state = "PUBLISHED"
"#;

async fn world() -> (Simulator, PlayClient) {
    let scenario = Scenario::from_toml(SCENARIO).unwrap();
    let options = Options { speed: Some(0.0), ..Options::default() };
    let simulator = Simulator::start(scenario, options).await.unwrap();
    let settings = StoreSettings {
        publisher_url: Some(simulator.publisher_base_url().to_owned()),
        reporting_url: Some(simulator.reporting_base_url().to_owned()),
        ..StoreSettings::default()
    };
    let account = simulator.google_service_account_json("acme").unwrap();
    let options = FetchOptions { allow_insecure_hosts: true, ..FetchOptions::default() };
    let client = google_play::client(&account, &settings, options).unwrap();
    (simulator, client)
}

async fn poll(client: &PlayClient, name: &str) -> (Look, Result<(), StoreError>) {
    let mut brought = Look::default();
    let result = look(client, &Poll::parse(name).unwrap(), EditsMode::Off, &mut brought).await;
    (brought, result)
}

fn said(brought: &Look) -> Vec<(Kind, &str, &str, &str)> {
    let said = brought.observations.iter();
    said.map(|o| (o.kind, o.key.as_str(), o.scope.as_str(), o.state.as_str())).collect()
}

fn covered(brought: &Look) -> Vec<(Kind, Option<&str>)> {
    brought.covered.iter().map(|covered| (covered.kind, covered.scope.as_deref())).collect()
}

#[tokio::test]
async fn the_apps_bring_themselves_and_what_to_ask_of_each() {
    let (simulator, client) = world().await;
    let (brought, result) = poll(&client, "apps").await;
    result.unwrap();
    assert_eq!(
        said(&brought),
        [
            (Kind::App, "com.acme.weather", "com.acme.weather", "VISIBLE"),
            (Kind::App, "com.acme.notes", "com.acme.notes", "VISIBLE"),
        ]
    );
    assert_eq!(covered(&brought), [(Kind::App, None)]);
    let of_weather: Vec<&str> =
        brought.polls.iter().map(String::as_str).filter(|name| name.contains("weather")).collect();
    assert_eq!(
        of_weather,
        [
            "releases:com.acme.weather/production",
            "releases:com.acme.weather/beta",
            "releases:com.acme.weather/alpha",
            "releases:com.acme.weather/internal",
            "tracks:com.acme.weather",
        ]
    );
    assert_eq!(brought.polls.len(), 10);
    assert!(brought.polls.iter().all(|name| Poll::parse(name).is_some_and(|poll| poll.name() == *name)));

    let mut with_edits = Look::default();
    let log = NoEdits;
    look(&client, &Poll::Apps, EditsMode::On(&log), &mut with_edits).await.unwrap();
    let rollouts = with_edits.polls.iter().filter(|name| name.starts_with("rollouts:")).count();
    assert_eq!((rollouts, with_edits.polls.len()), (2, 12));
    assert!(simulator.requests().iter().all(|request| request.method == "GET" || request.path == "/token"));
}

/// A record that nothing may be written to.
struct NoEdits;

impl edits::EditLog for NoEdits {
    fn opened<'a>(&'a self, _: &'a str, _: &'a str) -> futures_util::future::BoxFuture<'a, Recorded<()>> {
        panic!("no edit is opened here")
    }

    fn closed<'a>(&'a self, _: &'a str, _: &'a str) -> futures_util::future::BoxFuture<'a, Recorded<()>> {
        panic!("no edit is closed here")
    }

    fn left_open<'a>(&'a self, _: &'a str) -> futures_util::future::BoxFuture<'a, Recorded<Vec<String>>> {
        panic!("no edit is looked for here")
    }
}

type Recorded<T> = Result<T, edits::EditLogError>;

#[tokio::test]
async fn a_track_brings_its_releases_by_their_codes_and_covers_itself_alone() {
    let (_simulator, client) = world().await;
    let (brought, result) = poll(&client, "releases:com.acme.weather/production").await;
    result.unwrap();
    let scope = "com.acme.weather/production";
    let mut releases = said(&brought);
    releases.sort_unstable();
    assert_eq!(
        releases,
        [
            (Kind::Release, "com.acme.weather/production/200+1000", scope, "PUBLISHED"),
            (Kind::Release, "com.acme.weather/production/210", scope, "IN_REVIEW"),
        ]
    );
    assert_eq!(covered(&brought), [(Kind::Release, Some(scope))]);
    assert_eq!(brought.observations[0].app, "com.acme.weather");

    // The title is known once the apps were listed.
    let title = |brought: &Look| brought.observations[0].description.get("name").cloned();
    assert_eq!(title(&brought), None);
    poll(&client, "apps").await.1.unwrap();
    let (brought, _) = poll(&client, "releases:com.acme.weather/production").await;
    assert_eq!(title(&brought), Some(Value::String("Acme Weather".to_owned())));
}

#[tokio::test]
async fn an_empty_track_is_covered_and_one_that_is_not_there_is_not() {
    let (_simulator, client) = world().await;
    let (brought, result) = poll(&client, "releases:com.acme.weather/alpha").await;
    result.unwrap();
    assert!(brought.observations.is_empty());
    assert_eq!(covered(&brought), [(Kind::Release, Some("com.acme.weather/alpha"))]);
    for gone in
        ["releases:com.acme.weather/nowhere", "releases:com.acme.other/production", "tracks:com.acme.other"]
    {
        let (brought, result) = poll(&client, gone).await;
        assert!(matches!(result, Err(StoreError::NotFound { .. })), "{gone}: {result:?}");
        assert!(brought.observations.is_empty() && brought.covered.is_empty(), "{gone}");
    }
}

#[tokio::test]
async fn a_track_of_the_apps_own_is_found_and_polled_whatever_its_name() {
    let (_simulator, client) = world().await;
    let (brought, result) = poll(&client, "tracks:com.acme.weather").await;
    result.unwrap();
    assert!(brought.observations.is_empty() && brought.covered.is_empty());
    let own = "releases:com.acme.weather/team a/b 100%";
    assert_eq!(brought.polls.last().map(String::as_str), Some(own));
    let (brought, result) = poll(&client, own).await;
    result.unwrap();
    let (key, scope) = ("com.acme.weather/team a%2Fb 100%25/210", "com.acme.weather/team a/b 100%");
    assert_eq!(said(&brought), [(Kind::Release, key, scope, "PUBLISHED")]);
}

#[tokio::test]
async fn a_store_that_fails_says_nothing() {
    let (simulator, client) = world().await;
    poll(&client, "apps").await.1.unwrap();
    for kind in [FaultKind::ServerError, FaultKind::Garbage, FaultKind::Cut, FaultKind::NotFound] {
        for name in ["apps", "tracks:com.acme.weather", "releases:com.acme.weather/production"] {
            simulator.apply(Step::Fault(Fault::new(kind).times(1))).unwrap();
            let (brought, result) = poll(&client, name).await;
            assert!(result.is_err(), "{kind:?} {name}");
            assert!(brought.observations.is_empty() && brought.covered.is_empty(), "{kind:?} {name}");
        }
    }
}

#[tokio::test]
async fn every_poll_once_costs_the_minimum_and_brings_all_releases() {
    let (simulator, client) = world().await;
    let (mut keys, mut polled) = (Vec::new(), std::collections::BTreeSet::new());
    let mut wanted = vec!["apps".to_owned()];
    while let Some(name) = wanted.pop() {
        if !polled.insert(name.clone()) {
            continue;
        }
        let (brought, result) = poll(&client, &name).await;
        // A track of another name in the API is not there.
        assert!(matches!(result, Ok(()) | Err(StoreError::NotFound { .. })), "{name}");
        keys.extend(brought.observations.into_iter().filter(|o| o.kind == Kind::Release).map(|o| o.key));
        wanted.extend(brought.polls);
    }
    keys.sort_unstable();
    let own = "com.acme.weather/team a%2Fb 100%25/210";
    assert_eq!(keys, ["com.acme.weather/production/200+1000", "com.acme.weather/production/210", own]);
    // Two apps, nine tracks that are known of (the one without a release is not), and the token.
    assert_eq!(simulator.request_count(), minimum_requests(2, 9, false) + 1);
}

/// What a listing of the production track brings.
fn listed(releases: &serde_json::Value) -> Look {
    let body = json!({ "releases": releases }).to_string();
    let listed = answer::releases(body.as_bytes(), "production").unwrap();
    let mut brought = Look::default();
    super::releases("com.a", "production", None, listed, &mut brought);
    brought
}

fn release(name: &str, state: &str, codes: &[i32]) -> serde_json::Value {
    let artifacts: Vec<_> = codes.iter().map(|code| json!({ "versionCode": code })).collect();
    json!({ "releaseName": name, "track": "production", "activeArtifacts": artifacts,
            "releaseLifecycleState": format!("RELEASE_LIFECYCLE_STATE_{state}") })
}

#[test]
fn a_release_without_codes_is_known_by_its_name_and_taken_for_no_other() {
    let brought = listed(&json!([
        release("210", "DRAFT", &[]),
        release("210", "PUBLISHED", &[210]),
        release("a/b", "DRAFT", &[]),
        release("a%2Fb", "DRAFT", &[]),
        { "releaseLifecycleState": "RELEASE_LIFECYCLE_STATE_DRAFT" },
    ]));
    let keys: Vec<&str> = brought.observations.iter().map(|o| o.key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "com.a/production/name:210",
            "com.a/production/210",
            "com.a/production/name:a%2Fb",
            "com.a/production/name:a%252Fb",
            "com.a/production/unnamed",
        ]
    );
    assert_eq!((brought.unread, covered(&brought).len()), (0, 1));
}

#[test]
fn two_things_said_of_one_release_are_none() {
    let brought = listed(&json!([
        release("1", "PUBLISHED", &[1, 2]),
        release("1", "DRAFT", &[2, 1]),
        release("2", "IN_REVIEW", &[3]),
        release("2", "IN_REVIEW", &[3]),
    ]));
    assert_eq!(said(&brought), [(Kind::Release, "com.a/production/3", "com.a/production", "IN_REVIEW")]);
    assert_eq!((brought.unread, covered(&brought).len()), (2, 0));
}

#[test]
fn what_cannot_be_read_is_counted_and_nothing_is_concluded_from_its_absence() {
    let mut elsewhere = release("1", "DRAFT", &[4]);
    elsewhere["track"] = "beta".into();
    let mut stateless = release("1", "DRAFT", &[5]);
    stateless.as_object_mut().unwrap().remove("releaseLifecycleState");
    let mut codeless = release("1", "DRAFT", &[6]);
    codeless["activeArtifacts"] = json!([{}]);
    let kept = release("1", "DRAFT", &[7]);
    let brought = listed(&json!([elsewhere, stateless, codeless, 7, release("1", "a\u{0}b", &[8]), kept]));
    assert_eq!(said(&brought).len(), 1);
    assert_eq!((brought.unread, covered(&brought).len()), (5, 0));

    let full: Vec<_> = (0..20).map(|code| release("1", "DRAFT", &[code])).collect();
    let brought = listed(&full.into());
    assert_eq!((brought.observations.len(), brought.unread, covered(&brought).len()), (20, 0, 0));
}

#[test]
fn what_is_too_long_to_be_known_by_is_left_out_and_what_is_only_said_is_cut() {
    let codes: Vec<i32> = (0..20_000).collect();
    let long = "n".repeat(70_000);
    let mut endless = release("1", "", &[9]);
    endless["releaseLifecycleState"] = "S".repeat(201).into();
    let brought = listed(&json!([
        release(&long, "DRAFT", &[1]),
        release(&long, "DRAFT", &[]),
        release("many", "DRAFT", &codes),
        endless,
    ]));
    assert_eq!(said(&brought), [(Kind::Release, "com.a/production/1", "com.a/production", "DRAFT")]);
    assert_eq!((brought.unread, covered(&brought).len()), (3, 0));
    assert_eq!(brought.observations[0].description.get("release"), Some(&Value::String("n".repeat(300))));
    let mut planned = Look::default();
    plan(&format!("com.{}", "a".repeat(200)), vec!["t".repeat(100), "t".repeat(50)], &mut planned);
    assert_eq!((planned.polls.len(), planned.unread), (1, 1));
    assert!(!is_track(&"t".repeat(201)) && is_track(&"t".repeat(200)));
}

#[test]
fn a_state_that_nobody_knows_is_passed_on_as_it_is() {
    let mut bare = release("1", "", &[2]);
    bare["releaseLifecycleState"] = "HELD_BACK".into();
    let brought = listed(&json!([release("1", "WITHDRAWN", &[1]), bare, release("1", "", &[3])]));
    let states: Vec<&str> = brought.observations.iter().map(|o| o.state.as_str()).collect();
    assert_eq!(states, ["WITHDRAWN", "HELD_BACK", "RELEASE_LIFECYCLE_STATE_"]);
}

#[test]
fn a_fraction_is_the_same_however_it_is_written() {
    let fraction = |written: &str| {
        let release = format!(r#"{{"versionCodes":["1"],"status":"halted","userFraction":{written}}}"#);
        let body = format!(r#"{{"tracks":[{{"track":"production","releases":[{release}]}}]}}"#);
        answer::edit_tracks(body.as_bytes()).unwrap().rollouts.items.pop().map(|one| one.user_fraction)
    };
    for (written, text) in [
        ("0.05", "0.05"),
        ("5e-2", "0.05"),
        ("0.050", "0.05"),
        ("1e-7", "0.0000001"),
        ("0.333333343", "0.333333343"),
    ] {
        assert_eq!(fraction(written), Some(Some(text.to_owned())));
    }
    assert_eq!(fraction("null"), Some(None));
    assert_eq!(fraction("\"0.05\""), None);
}

#[test]
fn a_poll_covers_what_it_brings_and_nothing_else() {
    let polls =
        ["apps", "tracks:a.b", "releases:a.b/beta", "releases:a.b/qa", "rollouts:a.b", "rollouts:a.c"];
    let by = |kind, scope| -> Vec<&str> {
        polls.into_iter().filter(|name| covers(&Poll::parse(name).unwrap(), kind, scope)).collect()
    };
    assert_eq!(by(Kind::App, "a.b"), ["apps"]);
    assert_eq!(by(Kind::Release, "a.b/qa"), ["releases:a.b/qa"]);
    assert_eq!(by(Kind::Rollout, "a.b"), ["rollouts:a.b"]);
    assert_eq!(by(Kind::Version, "a.b"), [""; 0]);
}

#[test]
fn the_fewest_requests_are_counted() {
    assert_eq!(minimum_requests(0, 0, false), 1);
    assert_eq!(minimum_requests(1, 4, false), 6);
    assert_eq!(minimum_requests(1, 4, true), 9);
    assert_eq!(minimum_requests(1001, 4004, false), 2 + 1001 + 4004);
}

#[test]
fn what_is_no_name_of_a_poll_is_none() {
    for name in [
        "",
        "Apps",
        "apps:",
        "apps:x",
        "tracks",
        "tracks:",
        "tracks:..",
        "tracks:a/b",
        "rollouts:a b",
        "releases:a.b",
        "releases:a.b/",
        "releases:/x",
        "releases:a.b/..",
        "releases:a.b/a\n",
        "edits:a.b",
    ] {
        assert_eq!(Poll::parse(name), None, "{name:?}");
    }
}

proptest! {
    #[test]
    fn keys_differ_where_releases_do(
        one in parts(),
        other in parts(),
    ) {
        let key = |(track, codes, name): &Parts| release_key("a.b", track, codes, name.as_deref());
        // With codes, the name is no part of the identity.
        let identity = |(track, codes, name): &Parts| {
            (track.clone(), codes.clone(), if codes.is_empty() { name.clone() } else { None })
        };
        prop_assert_eq!(key(&one) == key(&other), identity(&one) == identity(&other));
    }

    #[test]
    fn a_name_of_a_poll_is_read_back(track in "[a-c/:% ]{1,6}") {
        let poll = Poll::Releases { package: "a.b".to_owned(), track };
        prop_assert_eq!(Poll::parse(&poll.name()), Some(poll));
    }
}

type Parts = (String, BTreeSet<i64>, Option<String>);

/// Parts of a key from few letters, so that they come near each other.
fn parts() -> impl Strategy<Value = Parts> {
    let text = "(name:|unnamed|[12/%+F]){0,3}";
    (text, proptest::collection::btree_set(1..3_i64, 0..3), proptest::option::of(text))
}
