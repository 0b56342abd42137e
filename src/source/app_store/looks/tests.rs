#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request as HttpRequest, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use statusledger_simulator::{Options, Scenario, Simulator};
use statusledger_verify::json::{Object, Value as Text};
use time::macros::datetime;
use tokio::net::TcpListener;

use super::super::direct::direct;
use super::super::token::AppStoreKey;
use super::*;
use crate::observation::Doubt;
use crate::source::fetch::{FetchOptions, ForbiddenCause};

/// What a store of one test answers to a path and a query.
type Answer = Arc<dyn Fn(&str, &str) -> (u16, Value) + Send + Sync>;

/// A store that answers as the test says, and what it was asked.
struct Store {
    client: AppStoreClient,
    asked: Arc<Mutex<Vec<(String, String)>>>,
}

impl Store {
    async fn new(answer: impl Fn(&str, &str) -> (u16, Value) + Send + Sync + 'static) -> Self {
        Self::with(FetchOptions::default(), answer).await
    }

    async fn with(
        options: FetchOptions,
        answer: impl Fn(&str, &str) -> (u16, Value) + Send + Sync + 'static,
    ) -> Self {
        type Shared = (Answer, Arc<Mutex<Vec<(String, String)>>>);
        async fn respond(State((answer, asked)): State<Shared>, request: HttpRequest) -> Response {
            let query = request.uri().query().unwrap_or_default();
            let query: Vec<_> = url::form_urlencoded::parse(query.as_bytes()).collect();
            let query = query.iter().map(|(name, value)| format!("{name}={value}&")).collect::<String>();
            let path = request.uri().path().to_owned();
            let (status, body) = answer(&path, &query);
            asked.lock().unwrap().push((path, query));
            (StatusCode::from_u16(status).unwrap(), axum::Json(body)).into_response()
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let state: Shared = (Arc::new(answer), Arc::clone(&asked));
        let router = Router::new().fallback(respond).with_state(state);
        tokio::spawn(async move { axum::serve(listener, router).await });
        let options = FetchOptions { allow_insecure_hosts: true, ..options };
        let client = AppStoreClient::new(&base, key().await, options).unwrap();
        Self { client, asked }
    }

    async fn look(&self, poll: &str, known: &Known) -> (Look, Result<(), StoreError>) {
        let mut seen = Look::default();
        let poll = Poll::parse(poll).unwrap();
        let result = look(&self.client, &poll, known, &mut seen).await;
        (seen, result)
    }

    async fn seen(&self, poll: &str) -> Look {
        let (seen, result) = self.look(poll, &acme()).await;
        result.unwrap();
        seen
    }

    fn paths(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().map(|(path, _)| path.clone()).collect()
    }
}

async fn key() -> AppStoreKey {
    let scenario = Scenario::from_toml("[[app_store]]\nname = \"Acme\"\napps = []").unwrap();
    let options = Options { speed: Some(0.0), ..Options::default() };
    let simulator = Simulator::start(scenario, options).await.unwrap();
    let key = simulator.app_store_key("Acme").unwrap();
    AppStoreKey::team(&key.key_id, &key.issuer_id, &key.private_key_pem).unwrap()
}

fn acme() -> Known {
    Known { apps: vec![known("1001")], ..Known::default() }
}

fn known(id: &str) -> KnownApp {
    KnownApp { id: id.to_owned(), bundle_id: format!("com.acme.{id}"), name: "Acme".to_owned() }
}

fn resource(kind: &str, id: &str, attributes: Value) -> Value {
    json!({ "type": kind, "id": id, "attributes": attributes })
}

/// A resource with relationships to many (an array of ids) and to one (an id).
fn related(kind: &str, id: &str, attributes: Value, relationships: &[(&str, &str, Value)]) -> Value {
    let mut resource = resource(kind, id, attributes);
    let point = |kind: &str, id: &Value| json!({ "type": kind, "id": id });
    for (name, kind, ids) in relationships {
        resource["relationships"][name] = match ids {
            Value::Array(ids) => {
                let data: Vec<_> = ids.iter().map(|id| point(kind, id)).collect();
                json!({ "meta": { "paging": { "total": data.len(), "limit": 50 } }, "data": data })
            }
            Value::Null => json!({ "data": null }),
            id => json!({ "data": point(kind, id) }),
        };
    }
    resource
}

fn list(data: Vec<Value>, included: Vec<Value>) -> (u16, Value) {
    let total = data.len();
    (
        200,
        json!({ "data": data, "included": included, "links": { "self": "x" }, "meta": { "paging": { "total": total, "limit": 200 } } }),
    )
}

fn one(data: Value, included: Vec<Value>) -> (u16, Value) {
    (200, json!({ "data": data, "included": included, "links": { "self": "x" } }))
}

fn error(status: u16, code: &str) -> (u16, Value) {
    (
        status,
        json!({ "errors": [{ "status": status.to_string(), "code": code, "title": "t", "detail": "d" }] }),
    )
}

/// What was seen, as lines.
fn lines(look: &Look) -> BTreeSet<String> {
    let lines =
        look.observations.iter().map(|o| format!("{} {} {} {}", o.kind.name(), o.scope, o.key, o.state));
    lines.collect()
}

fn covers_line(look: &Look) -> BTreeSet<String> {
    let line =
        |covered: &Covered| format!("{} {}", covered.kind.name(), covered.scope.as_deref().unwrap_or("*"));
    look.covered.iter().map(line).collect()
}

fn set(lines: &[&str]) -> BTreeSet<String> {
    lines.iter().map(|line| (*line).to_owned()).collect()
}

fn described<'o>(look: &'o Look, kind: Kind, member: &str) -> Option<&'o str> {
    look.observations.iter().find(|o| o.kind == kind)?.description.get(member)?.as_str()
}

fn app(id: &str, submissions: &[&str], versions: Value) -> Value {
    let mut app = related(
        "apps",
        id,
        json!({ "name": "Acme", "bundleId": format!("com.acme.{id}") }),
        &[
            ("appStoreVersions", "appStoreVersions", versions),
            ("reviewSubmissions", "reviewSubmissions", json!(submissions)),
            ("appInfos", "appInfos", json!(["info"])),
            ("inAppPurchasesV2", "inAppPurchases", json!([])),
            ("subscriptionGroups", "subscriptionGroups", json!([])),
            ("appEvents", "appEvents", json!(["event"])),
        ],
    );
    app["relationships"]["builds"] = json!({ "links": { "related": "x" } });
    app
}

fn included_of_apps() -> Vec<Value> {
    vec![
        resource(
            "appStoreVersions",
            "v1",
            json!({ "platform": "IOS", "versionString": "1.0", "appVersionState": "READY_FOR_DISTRIBUTION" }),
        ),
        resource(
            "appStoreVersions",
            "v2",
            json!({ "platform": "MAC_OS", "versionString": "2.0", "appStoreState": "READY_FOR_SALE" }),
        ),
        resource("reviewSubmissions", "done", json!({ "platform": "IOS", "state": "COMPLETE" })),
        resource(
            "reviewSubmissions",
            "open",
            json!({ "platform": "IOS", "state": "IN_REVIEW", "submittedDate": "2026-01-05T02:20:30-08:00" }),
        ),
        resource("appInfos", "info", json!({ "state": "READY_FOR_DISTRIBUTION" })),
        resource("appEvents", "event", json!({ "referenceName": "Summer", "eventState": "DRAFT" })),
        resource(
            "inAppPurchases",
            "gold",
            json!({ "name": "Gold", "productId": "gold", "inAppPurchaseType": "CONSUMABLE", "state": "IN_REVIEW" }),
        ),
    ]
}

#[tokio::test]
async fn a_list_of_apps_tells_what_it_includes_and_what_there_is_to_ask() {
    let store =
        Store::new(|_, _| list(vec![app("1001", &["done"], json!(["v1", "v2"]))], included_of_apps())).await;
    let look = store.seen("apps").await;
    assert_eq!(
        lines(&look),
        set(&[
            "app 1001 1001 VISIBLE",
            "version 1001 v1 READY_FOR_DISTRIBUTION",
            "version 1001 v2 READY_FOR_DISTRIBUTION",
            "review_submission 1001 done COMPLETE",
            "app_info 1001 info READY_FOR_DISTRIBUTION",
            "app_event 1001 event DRAFT",
        ])
    );
    assert_eq!(
        covers_line(&look),
        set(&[
            "app *",
            "version 1001",
            "review_submission 1001",
            "app_info 1001",
            "in_app_purchase 1001",
            "app_event 1001"
        ])
    );
    let polls =
        ["apps", "builds", "recent_builds", "reviews", "versions:1001", "uploads:1001", "availability:1001"];
    assert_eq!(look.polls, polls);
    assert_eq!(look.unread, 0);
    assert!(look.observations.iter().all(|o| o.app == "com.acme.1001"));
    assert_eq!(described(&look, Kind::App, "name"), Some("Acme"));
    assert_eq!(described(&look, Kind::AppEvent, "event_name"), Some("Summer"));
    assert_eq!(store.paths(), ["/v1/apps"]);
}

#[tokio::test]
async fn what_is_cut_off_open_or_grouped_has_polls_of_its_own_and_is_not_covered() {
    let store = Store::new(|_, _| {
        let mut cut = app("1001", &["done", "open"], json!(["v1"]));
        let relationships = &mut cut["relationships"];
        relationships["appStoreVersions"]["meta"]["paging"]["total"] = 51.into();
        relationships["appInfos"]["meta"]["paging"]["total"] = 2.into();
        relationships["appEvents"] = json!({ "links": { "related": "x" } });
        relationships["inAppPurchasesV2"] =
            json!({ "data": [{ "type": "inAppPurchases", "id": "gold" }], "meta": { "paging": { "total": 9, "limit": 1 } } });
        relationships["subscriptionGroups"] =
            json!({ "data": [{ "type": "subscriptionGroups", "id": "g" }], "meta": { "paging": { "total": 1, "limit": 50 } } });
        list(vec![cut], included_of_apps())
    })
    .await;
    let look = store.seen("apps").await;
    assert_eq!(covers_line(&look), set(&["app *", "review_submission 1001"]));
    assert_eq!(
        look.polls[4..],
        [
            "all_versions:1001",
            "in_app_purchases:1001",
            "app_infos:1001",
            "app_events:1001",
            "reviews:1001",
            "subscriptions:1001",
            "uploads:1001",
            "availability:1001"
        ]
    );
    // What came is true all the same.
    assert!(lines(&look).contains("in_app_purchase 1001 gold IN_REVIEW"));
    assert_eq!(described(&look, Kind::InAppPurchase, "product_id"), Some("gold"));
    let submitted = look.observations.iter().find(|o| o.key == "open").unwrap();
    assert_eq!(submitted.description.get("submitted_at").unwrap().as_str(), Some("2026-01-05T10:20:30Z"));
    assert_eq!(submitted.store_at, None);
}

#[tokio::test]
async fn what_cannot_be_read_is_counted_and_spoils_nothing_else() {
    let store = Store::new(|_, _| {
        let nameless = resource("apps", "1002", json!({ "bundleId": "com.acme.1002" }));
        let odd = related("apps", "10/02", json!({ "name": "x", "bundleId": "y" }), &[]);
        let mut included = included_of_apps();
        included[0]["attributes"]["appVersionState"] = json!({ "not": "a text" });
        included[4]["attributes"]["state"] = json!("S".repeat(300));
        list(vec![nameless, app("1001", &["done"], json!(["v1", "v2"])), json!(7), odd], included)
    })
    .await;
    let look = store.seen("apps").await;
    assert_eq!(look.unread, 5);
    assert!(lines(&look).contains("version 1001 v2 READY_FOR_DISTRIBUTION"));
    assert_eq!(
        covers_line(&look),
        set(&["review_submission 1001", "in_app_purchase 1001", "app_event 1001"])
    );
    assert!(look.polls.contains(&"all_versions:1001".to_owned()));
    assert!(look.polls.iter().all(|poll| Poll::parse(poll).is_some()));
}

#[tokio::test]
async fn a_key_that_sees_no_app_has_nothing_else_to_ask() {
    let store = Store::new(|_, _| list(Vec::new(), Vec::new())).await;
    let look = store.seen("apps").await;
    assert_eq!(
        (look.polls.as_slice(), covers_line(&look)),
        (["apps".to_owned()].as_slice(), set(&["app *"]))
    );
    let (reviews, result) = store.look("reviews", &Known::default()).await;
    assert!(result.is_ok() && reviews.observations.is_empty());
    assert_eq!(store.paths().len(), 1);
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_asked_for_in_smaller_pages() {
    let options = FetchOptions { max_body: 64 << 10, ..FetchOptions::default() };
    let store = Store::with(options, |_, query| {
        if query.contains("&limit=200&") {
            return (200, json!("x".repeat(70 << 10)));
        }
        assert!(query.contains("&limit=40&"), "{query}");
        list(vec![app("1001", &["done"], json!(["v1"]))], included_of_apps())
    })
    .await;
    let look = store.seen("apps").await;
    assert!(covers_line(&look).contains("app *"));
    assert_eq!(store.paths().len(), 2);
}

#[tokio::test]
async fn a_walk_that_fails_half_way_keeps_what_it_saw_and_covers_nothing() {
    let store = Store::new(|_, query| {
        if query.contains("cursor=2") {
            return error(500, "UNEXPECTED_ERROR");
        }
        let (status, mut body) = list(vec![build("b1", "1001", "VALID")], included_of_builds());
        body["links"]["next"] = "/v1/builds?cursor=2".into();
        body["meta"]["paging"]["total"] = 2.into();
        (status, body)
    })
    .await;
    let (look, result) = store.look("builds", &acme()).await;
    assert!(matches!(result, Err(StoreError::Server { status: 500, .. })));
    assert!(lines(&look).contains("build 1001 b1 VALID"));
    assert!(look.covered.is_empty());
}

fn build(id: &str, app: &str, state: &str) -> Value {
    related(
        "builds",
        id,
        json!({ "version": "41", "processingState": state, "expired": false, "uploadedDate": "2026-01-05T10:20:30Z" }),
        &[
            ("app", "apps", json!(app)),
            ("preReleaseVersion", "preReleaseVersions", json!("p")),
            ("buildBetaDetail", "buildBetaDetails", json!("d")),
            ("betaAppReviewSubmission", "betaAppReviewSubmissions", json!("r")),
        ],
    )
}

fn included_of_builds() -> Vec<Value> {
    vec![
        resource("apps", "2002", json!({ "bundleId": "com.other", "name": "Other" })),
        resource("preReleaseVersions", "p", json!({ "version": "2.0", "platform": "IOS" })),
        resource(
            "buildBetaDetails",
            "d",
            json!({ "internalBuildState": "IN_BETA_TESTING", "externalBuildState": "IN_BETA_REVIEW" }),
        ),
        resource(
            "betaAppReviewSubmissions",
            "r",
            json!({ "betaReviewState": "WAITING_FOR_REVIEW", "submittedDate": "2026-01-06T00:00:00Z" }),
        ),
    ]
}

#[tokio::test]
async fn builds_tell_testflights_states_and_belong_to_the_app_that_they_name() {
    let store = Store::new(|_, _| {
        let unowned = build("b3", "3003", "VALID");
        list(
            vec![build("b1", "1001", "PROCESSING"), build("b2", "2002", "VALID"), unowned],
            included_of_builds(),
        )
    })
    .await;
    let look = store.seen("builds").await;
    assert_eq!(
        lines(&look),
        set(&[
            "build 1001 b1 PROCESSING",
            "beta_internal 1001 b1 IN_BETA_TESTING",
            "beta_external 1001 b1 IN_BETA_REVIEW",
            "beta_review 1001 r WAITING_FOR_REVIEW",
            "build 2002 b2 VALID",
            "beta_internal 2002 b2 IN_BETA_TESTING",
            "beta_external 2002 b2 IN_BETA_REVIEW",
            "beta_review 2002 r WAITING_FOR_REVIEW",
        ])
    );
    // The build of an app that nobody knows is not told, so that the list is not whole.
    assert_eq!((look.unread, look.covered.len()), (1, 0));
    let of =
        |key: &str, kind: Kind| look.observations.iter().find(|o| o.key == key && o.kind == kind).unwrap();
    assert_eq!(of("b1", Kind::Build).store_at, Some(datetime!(2026-01-05 10:20:30 UTC)));
    assert_eq!(of("b2", Kind::Build).store_at, None);
    assert_eq!(of("r", Kind::BetaReview).store_at, Some(datetime!(2026-01-06 00:00 UTC)));
    assert_eq!(of("b1", Kind::Build).facts.get("expired").unwrap().as_bool(), Some(false));
    assert_eq!(of("b2", Kind::Build).app, "com.other");
    assert_eq!(described(&look, Kind::BetaExternal, "version"), Some("2.0"));
}

#[tokio::test]
async fn the_newest_builds_are_one_request_and_all_builds_all_pages() {
    let store = Store::new(|_, query| {
        let second = query.contains("cursor=2");
        let (status, mut body) =
            list(vec![build(if second { "b2" } else { "b1" }, "1001", "VALID")], included_of_builds());
        body["meta"]["paging"]["total"] = 2.into();
        if !second {
            body["links"]["next"] = "/v1/builds?cursor=2".into();
        }
        (status, body)
    })
    .await;
    let recent = store.seen("recent_builds").await;
    assert!(recent.covered.is_empty() && lines(&recent).contains("build 1001 b1 VALID"));
    assert_eq!(store.paths().len(), 1);
    let all = store.seen("builds").await;
    assert_eq!(covers_line(&all), set(&["build *", "beta_internal *", "beta_external *", "beta_review *"]));
    assert!(lines(&all).contains("build 1001 b2 VALID"));
    assert_eq!(store.paths().len(), 3);
}

#[tokio::test]
async fn a_hot_build_that_is_not_among_the_newest_is_asked_for_by_name() {
    let store = Store::new(|_, query| {
        let named = query.split('&').find_map(|part| part.strip_prefix("filter[id]="));
        let ids = named.unwrap_or("new");
        let builds = ids.split(',').map(|id| build(id, "1001", "VALID")).collect();
        let (status, mut body) = list(builds, included_of_builds());
        if named.is_none() {
            body["links"]["next"] = "/v1/builds?cursor=2".into();
        }
        (status, body)
    })
    .await;
    let hot = |count: usize| (0..count).map(|n| format!("old{n}")).chain(["new".to_owned()]).collect();
    let asked = |count: usize| Known { hot_builds: hot(count), ..acme() };
    let (seen, result) = store.look("recent_builds", &asked(51)).await;
    result.unwrap();
    assert!(seen.covered.is_empty(), "what is not among these is not missing");
    assert_eq!(lines(&seen).iter().filter(|line| line.starts_with("build 1001 old")).count(), 51);
    assert_eq!(store.paths().len(), 3, "the newest, 50 and one");
    assert!(
        !store
            .asked
            .lock()
            .unwrap()
            .iter()
            .any(|(_, query)| query.contains("=new") || query.contains(",new"))
    );
    // However many there are, it ends: the others have their turn when these were seen.
    store.look("recent_builds", &asked(1000)).await.1.unwrap();
    assert_eq!(store.paths().len(), 3 + 5);
    // All that there is was on the page, or there is nothing hot behind it.
    store.look("recent_builds", &asked(0)).await.1.unwrap();
    assert_eq!(store.paths().len(), 8 + 1);
}

fn version(id: &str, phased: Value) -> Value {
    related(
        "appStoreVersions",
        id,
        json!({ "platform": "IOS", "versionString": "1.0", "appVersionState": "READY_FOR_DISTRIBUTION" }),
        &[
            ("build", "builds", json!("b")),
            ("appStoreVersionPhasedRelease", "appStoreVersionPhasedReleases", phased),
        ],
    )
}

#[tokio::test]
async fn versions_tell_their_builds_and_phased_releases() {
    let included = || {
        vec![
            resource("builds", "b", json!({ "version": "41" })),
            resource(
                "appStoreVersionPhasedReleases",
                "ph",
                json!({ "phasedReleaseState": "ACTIVE", "currentDayNumber": 3 }),
            ),
        ]
    };
    let store = Store::new(move |_, _| {
        list(vec![version("v1", json!("ph")), version("v2", Value::Null)], included())
    })
    .await;
    for poll in ["versions:1001", "all_versions:1001"] {
        let look = store.seen(poll).await;
        let expected = [
            "version 1001 v1 READY_FOR_DISTRIBUTION",
            "version 1001 v2 READY_FOR_DISTRIBUTION",
            "phased_release 1001 ph ACTIVE",
        ];
        assert_eq!(lines(&look), set(&expected));
        assert_eq!(covers_line(&look), set(&["version 1001", "phased_release 1001"]));
        assert_eq!(described(&look, Kind::Version, "build"), Some("41"));
        let phased = look.observations.iter().find(|o| o.kind == Kind::PhasedRelease).unwrap();
        assert_eq!(phased.description.get("day").unwrap().as_int(), Some(3));
        assert!(phased.facts.is_empty());
    }
    assert_eq!(store.paths(), ["/v1/apps/1001/appStoreVersions"; 2]);

    // One that is pointed at and not told is not absent.
    let store = Store::new(|_, _| list(vec![version("v1", json!("ph"))], Vec::new())).await;
    let look = store.seen("versions:1001").await;
    assert_eq!((lines(&look).len(), look.covered.len(), look.unread), (1, 0, 1));
}

fn submission(id: &str, app: &str, items: Value) -> Value {
    related(
        "reviewSubmissions",
        id,
        json!({ "platform": "IOS", "state": "IN_REVIEW" }),
        &[
            ("app", "apps", json!(app)),
            ("items", "reviewSubmissionItems", items),
            ("appStoreVersionForReview", "appStoreVersions", json!("v1")),
        ],
    )
}

fn item(id: &str) -> Value {
    related(
        "reviewSubmissionItems",
        id,
        json!({ "state": "READY_FOR_REVIEW" }),
        &[("appStoreVersion", "appStoreVersions", json!("v1"))],
    )
}

#[tokio::test]
async fn submissions_are_asked_for_fifty_apps_at_once() {
    let known =
        Known { apps: (0..51).map(|number| known(&format!("{number}"))).collect(), ..Known::default() };
    let store = Store::new(|_, query| {
        let asked = query.split('&').find_map(|part| part.strip_prefix("filter[app]=")).unwrap();
        let first = asked.split(',').next().unwrap();
        assert!(asked.split(',').count() <= APPS_A_REQUEST);
        let version = resource("appStoreVersions", "v1", json!({ "versionString": "1.0" }));
        list(
            vec![submission(&format!("s{first}"), first, json!([format!("i{first}")]))],
            vec![item(&format!("i{first}")), version],
        )
    })
    .await;
    let (look, result) = store.look("reviews", &known).await;
    result.unwrap();
    assert_eq!(
        lines(&look),
        set(&[
            "review_submission 0 s0 IN_REVIEW",
            "review_item 0 i0 READY_FOR_REVIEW",
            "review_submission 50 s50 IN_REVIEW",
            "review_item 50 i50 READY_FOR_REVIEW",
        ])
    );
    assert_eq!(look.covered.len(), 102);
    assert_eq!(described(&look, Kind::ReviewItem, "item_type"), Some("appStoreVersion"));
    assert_eq!(described(&look, Kind::ReviewItem, "item_id"), Some("v1"));
    assert_eq!(described(&look, Kind::ReviewSubmission, "version"), Some("1.0"));
    assert_eq!(store.paths(), ["/v1/reviewSubmissions"; 2]);
}

#[tokio::test]
async fn a_submission_with_more_items_than_fit_has_them_listed() {
    let answer = |whole: bool| {
        move |path: &str, _: &str| {
            if path == "/v1/reviewSubmissions/s1/items" {
                let (status, mut body) = list(vec![item("i1"), item("i2")], Vec::new());
                body["meta"]["paging"]["total"] = if whole { 2 } else { 3 }.into();
                return (status, body);
            }
            let mut long = submission("s1", "1001", json!(["i1"]));
            long["relationships"]["items"]["meta"]["paging"]["total"] = 2.into();
            list(vec![long], vec![item("i1")])
        }
    };
    let store = Store::new(answer(true)).await;
    let look = store.seen("reviews:1001").await;
    assert_eq!(
        lines(&look),
        set(&[
            "review_submission 1001 s1 IN_REVIEW",
            "review_item 1001 i1 READY_FOR_REVIEW",
            "review_item 1001 i2 READY_FOR_REVIEW"
        ])
    );
    assert_eq!(look.observations.len(), 3);
    assert_eq!(covers_line(&look), set(&["review_submission 1001", "review_item 1001"]));

    let store = Store::new(answer(false)).await;
    assert_eq!(covers_line(&store.seen("reviews:1001").await), set(&["review_submission 1001"]));

    // Where the rest is not had, what came is kept.
    let store =
        Store::new(
            move |path, query| {
                if path.ends_with("/items") { error(503, "X") } else { answer(true)(path, query) }
            },
        )
        .await;
    let (look, result) = store.look("reviews:1001", &acme()).await;
    assert!(matches!(result, Err(StoreError::Server { .. })));
    assert!(lines(&look).contains("review_item 1001 i1 READY_FOR_REVIEW") && look.covered.is_empty());
}

#[tokio::test]
async fn subscriptions_are_listed_with_their_groups_and_by_group_where_there_are_more() {
    let store = Store::new(|path, _| {
        let sub = |id: &str| {
            resource("subscriptions", id, json!({ "name": "Gold", "productId": id, "state": "APPROVED" }))
        };
        if path == "/v1/subscriptionGroups/long/subscriptions" {
            return list(vec![sub("s2"), sub("s3")], Vec::new());
        }
        let group = |id: &str, subs: Value| {
            related(
                "subscriptionGroups",
                id,
                json!({ "referenceName": id }),
                &[("subscriptions", "subscriptions", subs)],
            )
        };
        let mut long = group("long", json!(["s2"]));
        long["relationships"]["subscriptions"]["meta"]["paging"]["total"] = 2.into();
        list(vec![group("short", json!(["s1"])), long], vec![sub("s1"), sub("s2")])
    })
    .await;
    let look = store.seen("subscriptions:1001").await;
    let expected =
        ["subscription 1001 s1 APPROVED", "subscription 1001 s2 APPROVED", "subscription 1001 s3 APPROVED"];
    assert_eq!(lines(&look), set(&expected));
    assert_eq!(covers_line(&look), set(&["subscription 1001"]));
    assert_eq!(described(&look, Kind::Subscription, "group"), Some("short"));
    assert_eq!(look.observations[2].description.get("group").unwrap().as_str(), Some("long"));
}

fn territory(code: &str, available: bool, statuses: Value) -> Value {
    related(
        "territoryAvailabilities",
        &format!("1001-{code}"),
        json!({ "available": available, "contentStatuses": statuses }),
        &[("territory", "territories", json!(code))],
    )
}

#[tokio::test]
async fn availability_is_told_by_territory_and_only_by_all_of_them() {
    let store = |available: bool, total: usize| {
        Store::new(move |path, _| {
            if path == "/v1/apps/1001/appAvailabilityV2" {
                return one(
                    resource("appAvailabilities", "a1", json!({ "availableInNewTerritories": true })),
                    Vec::new(),
                );
            }
            assert_eq!(path, "/v2/appAvailabilities/a1/territoryAvailabilities");
            let data = vec![
                territory("SWE", available, json!(["AVAILABLE"])),
                territory("NOR", available, json!(["AVAILABLE"])),
                territory("KOR", false, json!(["CANNOT_SELL"])),
            ];
            let (status, mut body) = list(data, Vec::new());
            body["meta"]["paging"]["total"] = total.into();
            (status, body)
        })
    };
    let look = store(true, 3).await.seen("availability:1001").await;
    assert_eq!(lines(&look), set(&["availability 1001 1001 AVAILABLE"]));
    assert_eq!(covers_line(&look), set(&["availability 1001"]));
    let facts = statusledger_verify::json::Value::Object(look.observations[0].facts.clone()).canonical();
    let expected = r#"{"available":2,"available_in_new_territories":true,"content_statuses":{"AVAILABLE":2,"CANNOT_SELL":1},"territories":["NOR","SWE"]}"#;
    assert_eq!(facts, expected);

    let look = store(false, 3).await.seen("availability:1001").await;
    assert_eq!(lines(&look), set(&["availability 1001 1001 REMOVED_FROM_SALE"]));

    // Half of a list would say that the app was withdrawn from the other half.
    let (look, result) = store(true, 4).await.look("availability:1001", &acme()).await;
    assert!(matches!(result, Err(StoreError::Malformed { .. })));
    assert!(look.observations.is_empty() && look.covered.is_empty());

    // An app that was never offered has none.
    let never = Store::new(|_, _| error(404, "NOT_FOUND")).await.seen("availability:1001").await;
    assert_eq!((never.observations.len(), covers_line(&never)), (0, set(&["availability 1001"])));
}

#[tokio::test]
async fn the_lists_of_an_app_are_seen_and_covered() {
    let store = Store::new(|path, _| match path {
        "/v1/apps/1001/inAppPurchasesV2" => {
            let gold = json!({ "name": "Gold", "productId": "gold", "inAppPurchaseType": "CONSUMABLE", "state": "APPROVED" });
            list(vec![resource("inAppPurchases", "p", gold)], Vec::new())
        }
        "/v1/apps/1001/appInfos" => list(vec![resource("appInfos", "i", json!({ "state": "IN_REVIEW" }))], Vec::new()),
        "/v1/apps/1001/appEvents" => list(vec![resource("appEvents", "e", json!({ "eventState": "PAST" }))], Vec::new()),
        "/v1/apps/1001/buildUploads" => {
            let errors: Vec<_> = (0..30).map(|n| json!({ "code": format!("{n:02}"), "description": "x".repeat(1000) })).collect();
            let failed = json!({
                "cfBundleVersion": "41", "platform": "IOS", "createdDate": "2026-01-05T10:20:30Z",
                "state": { "state": "FAILED", "errors": errors, "warnings": [] },
            });
            let waiting = json!({ "createdDate": "2026-01-05T10:20:30Z", "state": { "state": "AWAITING_UPLOAD", "errors": [] } });
            list(vec![resource("buildUploads", "u1", failed), resource("buildUploads", "u2", waiting)], Vec::new())
        }
        _ => error(404, "NOT_FOUND"),
    })
    .await;
    for (poll, line, covered) in [
        ("in_app_purchases:1001", "in_app_purchase 1001 p APPROVED", "in_app_purchase 1001"),
        ("app_infos:1001", "app_info 1001 i IN_REVIEW", "app_info 1001"),
        ("app_events:1001", "app_event 1001 e PAST", "app_event 1001"),
    ] {
        let look = store.seen(poll).await;
        assert_eq!((lines(&look), covers_line(&look)), (set(&[line]), set(&[covered])));
    }
    let look = store.seen("uploads:1001").await;
    assert_eq!(covers_line(&look), set(&["build_upload 1001"]));
    let errors = look.observations[0].facts.get("errors").unwrap().as_array().unwrap();
    assert_eq!(errors.len(), 20);
    let description = errors[0].as_object().unwrap().get("description").unwrap().as_str().unwrap();
    assert_eq!(description.len(), 300);
    assert!(look.observations[1].facts.is_empty());
    assert_eq!(look.observations[0].store_at, None);
    assert_eq!(look.observations[1].store_at, Some(datetime!(2026-01-05 10:20:30 UTC)));
}

#[tokio::test]
async fn an_app_that_is_not_known_yet_is_asked_for_by_itself() {
    let store = Store::new(|path, _| match path {
        "/v1/apps/2002" => {
            one(resource("apps", "2002", json!({ "name": "New", "bundleId": "com.new" })), Vec::new())
        }
        "/v1/apps/2002/appEvents" => {
            list(vec![resource("appEvents", "e", json!({ "eventState": "PAST" }))], Vec::new())
        }
        _ => error(404, "NOT_FOUND"),
    })
    .await;
    let look = store.seen("app_events:2002").await;
    assert_eq!(look.observations[0].app, "com.new");
    let (_, result) = store.look("app_events:3003", &acme()).await;
    assert!(matches!(result, Err(StoreError::NotFound { .. })));
}

#[tokio::test]
async fn what_a_403_says_is_passed_on() {
    let store = Store::new(|path, _| match path {
        "/v1/apps" => error(403, "FORBIDDEN.REQUIRED_AGREEMENTS_MISSING_OR_EXPIRED"),
        _ => error(403, "FORBIDDEN_ERROR"),
    })
    .await;
    let cause = |result| match result {
        Err(StoreError::Forbidden { cause, .. }) => cause,
        other => panic!("{other:?}"),
    };
    assert_eq!(cause(store.look("apps", &acme()).await.1), ForbiddenCause::Agreements);
    assert_eq!(cause(store.look("builds", &acme()).await.1), ForbiddenCause::Role);
    assert_eq!(cause(store.look("availability:1001", &acme()).await.1), ForbiddenCause::Role);
    let direct = direct(&store.client, &doubt(Kind::Build, "b"), &known("1001")).await;
    assert!(matches!(direct, Err(StoreError::Forbidden { cause: ForbiddenCause::Role, .. })));
}

/// A doubt about something of `v1` or of `s1`.
fn doubt(kind: Kind, key: &str) -> Doubt {
    let mut description = Object::default();
    description.insert("version_id".into(), Text::String("v1".into()));
    description.insert("submission".into(), Text::String("s1".into()));
    let (key, scope, app) = (key.to_owned(), "1001".to_owned(), "com.acme".to_owned());
    Doubt { kind, key, scope, app, description, absent: true }
}

#[tokio::test]
async fn each_kind_is_found_by_itself() {
    let store = Store::new(|path, _| match path {
        "/v1/apps/1001" => {
            one(resource("apps", "1001", json!({ "name": "Acme", "bundleId": "com.acme" })), Vec::new())
        }
        "/v1/appStoreVersions/v1" => one(version("v1", Value::Null), Vec::new()),
        "/v1/apps/1001/appStoreVersions" => {
            panic!("a list may have lied")
        }
        "/v1/appStoreVersions/v1/appStoreVersionPhasedRelease" => one(
            resource("appStoreVersionPhasedReleases", "ph", json!({ "phasedReleaseState": "PAUSED" })),
            Vec::new(),
        ),
        "/v1/builds/b1" => one(build("b1", "1001", "VALID"), included_of_builds()),
        "/v1/betaAppReviewSubmissions/r" => one(
            resource("betaAppReviewSubmissions", "r", json!({ "betaReviewState": "APPROVED" })),
            Vec::new(),
        ),
        "/v1/buildUploads/u1" => {
            one(resource("buildUploads", "u1", json!({ "state": { "state": "COMPLETE" } })), Vec::new())
        }
        "/v1/reviewSubmissions" => panic!("a list may have lied"),
        "/v1/reviewSubmissions/s1" => one(submission("s1", "1001", json!(["i1"])), vec![item("i1")]),
        "/v1/appInfos/i" => one(resource("appInfos", "i", json!({ "state": "REJECTED" })), Vec::new()),
        "/v2/inAppPurchases/p" => {
            one(resource("inAppPurchases", "p", json!({ "state": "REJECTED" })), Vec::new())
        }
        "/v1/subscriptions/s" => {
            one(resource("subscriptions", "s", json!({ "state": "REJECTED" })), Vec::new())
        }
        "/v1/appEvents/e" => one(resource("appEvents", "e", json!({ "eventState": "PAST" })), Vec::new()),
        "/v1/apps/1001/appAvailabilityV2" => one(resource("appAvailabilities", "a1", json!({})), Vec::new()),
        "/v2/appAvailabilities/a1/territoryAvailabilities" => {
            list(vec![territory("NOR", true, json!([]))], Vec::new())
        }
        "/v1/appEvents/gone" => error(410, "GONE"),
        _ => error(404, "NOT_FOUND"),
    })
    .await;
    let app = known("1001");
    for (kind, key, state) in [
        (Kind::App, "1001", "VISIBLE"),
        (Kind::Version, "v1", "READY_FOR_DISTRIBUTION"),
        (Kind::PhasedRelease, "ph", "PAUSED"),
        (Kind::Build, "b1", "VALID"),
        (Kind::BetaInternal, "b1", "IN_BETA_TESTING"),
        (Kind::BetaExternal, "b1", "IN_BETA_REVIEW"),
        (Kind::BetaReview, "r", "APPROVED"),
        (Kind::BuildUpload, "u1", "COMPLETE"),
        (Kind::ReviewSubmission, "s1", "IN_REVIEW"),
        (Kind::ReviewItem, "i1", "READY_FOR_REVIEW"),
        (Kind::AppInfo, "i", "REJECTED"),
        (Kind::InAppPurchase, "p", "REJECTED"),
        (Kind::Subscription, "s", "REJECTED"),
        (Kind::AppEvent, "e", "PAST"),
        (Kind::Availability, "1001", "AVAILABLE"),
    ] {
        let found = direct(&store.client, &doubt(kind, key), &app).await.unwrap().unwrap();
        assert_eq!((found.kind, found.key.as_str(), found.state.as_str()), (kind, key, state));
        assert_eq!(found.scope, "1001");
        if !matches!(kind, Kind::Availability) {
            assert!(direct(&store.client, &doubt(kind, "gone"), &app).await.unwrap().is_none(), "{kind:?}");
        }
    }
    assert!(
        direct(&store.client, &doubt(Kind::Availability, "3003"), &known("3003")).await.unwrap().is_none()
    );
    for kind in [Kind::Release, Kind::Rollout] {
        assert!(matches!(
            direct(&store.client, &doubt(kind, "x"), &app).await,
            Err(StoreError::Setup { .. })
        ));
    }
}

#[tokio::test]
async fn nothing_is_called_absent_by_a_list_that_is_not_whole() {
    let store = Store::new(|path, _| match path {
        "/v1/builds/b1" => one(build("b1", "1001", "VALID"), Vec::new()),
        "/v1/reviewSubmissions/s1" => one(submission("s1", "1001", json!(["i2"])), Vec::new()),
        _ => {
            let (status, mut body) = list(vec![item("i2")], Vec::new());
            body["meta"]["paging"]["total"] = 2.into();
            (status, body)
        }
    })
    .await;
    let app = known("1001");
    for (kind, key) in [(Kind::ReviewItem, "i1"), (Kind::BetaExternal, "b1")] {
        let found = direct(&store.client, &doubt(kind, key), &app).await;
        assert!(matches!(found, Err(StoreError::Malformed { .. })), "{kind:?}");
    }
    let of_nothing = Doubt { description: Object::default(), ..doubt(Kind::PhasedRelease, "ph") };
    let found = direct(&store.client, &of_nothing, &app).await;
    assert!(matches!(found, Err(StoreError::Malformed { .. })));
}

#[tokio::test]
async fn webhooks_and_what_they_sent_are_listed() {
    let store = Store::new(|path, query| {
        if path == "/v1/apps/1001/webhooks" {
            let hook = json!({ "name": "ours", "url": "https://example.com/x", "enabled": true, "eventTypes": ["BUILD_UPLOAD_STATE_UPDATED", "NEW"] });
            return list(vec![resource("webhooks", "w1", hook)], Vec::new());
        }
        assert_eq!(path, "/v1/webhooks/w1/deliveries");
        assert!(query.contains("filter[createdDateGreaterThanOrEqualTo]=2026-01-05T10:20:30Z&"), "{query}");
        let delivery = related(
            "webhookDeliveries",
            "d1",
            json!({ "createdDate": "2026-01-06T00:00:00Z", "deliveryState": "FAILED", "redelivery": false }),
            &[("event", "webhookEvents", json!("e1"))],
        );
        let payload = r#"{"data":{"type":"webhookPingCreated","id":"e1"}}"#;
        let event = json!({ "eventType": "BUILD_UPLOAD_STATE_UPDATED", "payload": payload, "ping": true });
        list(vec![delivery], vec![resource("webhookEvents", "e1", event)])
    })
    .await;
    let hooks = store.client.webhooks("1001").await.unwrap().items;
    assert_eq!((hooks[0].id.as_str(), hooks[0].enabled, hooks[0].event_types.len()), ("w1", Some(true), 2));
    let since = datetime!(2026-01-05 10:20:30 UTC);
    let deliveries = store.client.webhook_deliveries("w1", since).await.unwrap();
    assert!(deliveries.complete);
    let delivery = &deliveries.items[0];
    assert_eq!((delivery.state.as_deref(), delivery.ping), (Some("FAILED"), true));
    let event = super::super::webhook::parse_delivery(delivery).unwrap().unwrap();
    assert_eq!(event.id, "e1");
}

/// The poller runs looks as tasks.
#[test]
fn a_look_can_move_between_threads() {
    fn is_send<T: Send>(_: impl FnOnce(AppStoreClient, Poll, Known) -> T) {}
    is_send(|client, poll, known| async move {
        let mut seen = Look::default();
        let looked = look(&client, &poll, &known, &mut seen).await;
        (looked, direct(&client, &doubt(Kind::App, "1"), &known.apps[0]).await.is_ok(), seen)
    });
}
