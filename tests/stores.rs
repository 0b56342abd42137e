//! The store clients against the simulator, and against servers that lie.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request as HttpRequest, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use statusledger::source::app_store::client::AppStoreClient;
use statusledger::source::app_store::token::{AppStoreKey, AppStoreTokens};
use statusledger::source::fetch::{FetchOptions, ForbiddenCause, StoreError};
use statusledger::source::google_play::client::{PlayBaseUrls, PlayClient};
use statusledger::source::google_play::token::ServiceAccount;
use statusledger_simulator::scenario::{App, AppStoreTeam, PlayAccount, PlayApp};
use statusledger_simulator::{Fault, FaultKind, Options, Scenario, Service, Simulator, Step};
use time::OffsetDateTime;
use tokio::net::TcpListener;

/// Two teams' worth of everything that the clients read.
const SCENARIO: &str = r#"
[[app_store]]
name = "Acme"
apps = [{ id = "1001", name = "Acme Weather", bundle_id = "com.acme.weather" }]

[[app_store.builds]]
id = "b41"
app = "1001"
platform = "IOS"
version = "41"
pre_release_version = "2.0.0"
uploaded = "2026-01-05T10:20:30Z"

[[app_store.builds]]
id = "b42"
app = "1001"
platform = "MAC_OS"
version = "42"
pre_release_version = "1.0.0"
processing_state = "PROCESSING"

[[app_store.versions]]
id = "v200"
app = "1001"
platform = "IOS"
version_string = "2.0.0"
state = "READY_FOR_DISTRIBUTION"
build = "b41"
created = "2026-01-04T00:00:00Z"
phased_release = { state = "ACTIVE", day = 3 }

[[app_store.versions]]
id = "v100"
app = "1001"
platform = "MAC_OS"
version_string = "1.0.0"
state = "IN_REVIEW"

[[google_play]]
name = "acme"
apps = [{ package = "com.acme.weather", display_name = "Acme Weather", tracks = ["qa"] }]

[[google_play.releases]]
package = "com.acme.weather"
track = "production"
name = "2.0.0"
version_codes = [201, 200]
state = "PUBLISHED"

[[google_play.releases]]
package = "com.acme.weather"
track = "production"
name = "2.0.0"
version_codes = [210]
state = "IN_REVIEW"

[[google_play.releases]]
package = "com.acme.weather"
track = "qa"
name = "2.1.0"
version_codes = [210]
state = "PUBLISHED"
"#;

fn scenario() -> Scenario {
    Scenario::from_toml(SCENARIO).unwrap()
}

/// A simulator whose time stands still.
async fn simulate(scenario: Scenario) -> Simulator {
    Simulator::start(scenario, Options { speed: Some(0.0), ..Options::default() }).await.unwrap()
}

fn insecure() -> FetchOptions {
    FetchOptions { allow_insecure_hosts: true, ..FetchOptions::default() }
}

fn key(simulator: &Simulator) -> AppStoreKey {
    let key = simulator.app_store_key("Acme").unwrap();
    AppStoreKey::team(&key.key_id, &key.issuer_id, &key.private_key_pem).unwrap()
}

fn app_store(simulator: &Simulator) -> AppStoreClient {
    AppStoreClient::new(simulator.app_store_base_url(), key(simulator), insecure()).unwrap()
}

fn play_with(simulator: &Simulator, options: FetchOptions) -> PlayClient {
    let json = simulator.google_service_account_json("acme").unwrap();
    let account = ServiceAccount::from_json(&json, &options).unwrap();
    let bases = PlayBaseUrls {
        publisher: simulator.publisher_base_url().to_owned(),
        reporting: simulator.reporting_base_url().to_owned(),
    };
    PlayClient::new(&bases, account, options).unwrap()
}

fn play(simulator: &Simulator) -> PlayClient {
    play_with(simulator, insecure())
}

/// How many requests of that path there were.
fn asked(simulator: &Simulator, path: &str) -> usize {
    simulator.requests().iter().filter(|request| request.path == path).count()
}

#[tokio::test]
async fn the_app_store_client_reads_apps_versions_and_builds() {
    let simulator = simulate(scenario()).await;
    let client = app_store(&simulator);

    let apps = client.apps().await.unwrap();
    assert!(apps.complete);
    assert_eq!(apps.items.len(), 1);
    assert_eq!(apps.items[0].bundle_id, "com.acme.weather");

    let versions = client.versions("1001").await.unwrap();
    assert!(versions.complete);
    let version = versions.items.iter().find(|version| version.id == "v200").unwrap();
    assert_eq!(version.platform, "IOS");
    assert_eq!(version.version_string, "2.0.0");
    assert_eq!(version.app_version_state, "READY_FOR_DISTRIBUTION");
    assert_eq!(version.created_date.unwrap().unix_timestamp(), 1_767_484_800);
    assert_eq!(version.build_id.as_deref(), Some("b41"));
    assert_eq!(version.build_version.as_deref(), Some("41"));
    let phased = version.phased_release.as_ref().unwrap();
    assert_eq!((phased.state.as_str(), phased.current_day_number), ("ACTIVE", Some(3)));
    let other = versions.items.iter().find(|version| version.id == "v100").unwrap();
    assert_eq!(other.app_version_state, "IN_REVIEW");
    assert_eq!((&other.build_id, &other.phased_release), (&None, &None));

    let builds = client.builds("1001").await.unwrap();
    assert!(builds.complete);
    let build = builds.items.iter().find(|build| build.id == "b42").unwrap();
    assert_eq!((build.version.as_str(), build.processing_state.as_str()), ("42", "PROCESSING"));
    assert_eq!(build.platform.as_deref(), Some("MAC_OS"));
    assert_eq!(build.pre_release_version.as_deref(), Some("1.0.0"));
    assert_eq!(build.internal_build_state.as_deref(), Some("PROCESSING"));
    assert_eq!(build.app_id.as_deref(), Some("1001"));
    assert!(!build.expired);
}

#[tokio::test]
async fn the_play_client_reads_apps_tracks_and_releases() {
    let simulator = simulate(scenario()).await;
    let client = play(&simulator);

    let apps = client.apps().await.unwrap();
    assert!(apps.complete);
    assert_eq!(apps.items[0].package, "com.acme.weather");

    let tracks = client.tracks("com.acme.weather").await.unwrap();
    assert_eq!(tracks.items, ["production", "beta", "alpha", "internal", "qa"]);

    let releases = client.releases("com.acme.weather", "production").await.unwrap();
    assert!(releases.complete);
    let states: BTreeSet<_> = releases
        .items
        .iter()
        .map(|release| (release.version_codes.clone(), release.lifecycle_state.as_str()))
        .collect();
    let expected = [(BTreeSet::from([200, 201]), "PUBLISHED"), (BTreeSet::from([210]), "IN_REVIEW")];
    assert_eq!(states, BTreeSet::from(expected));

    let empty = client.releases("com.acme.weather", "alpha").await.unwrap();
    assert!(empty.complete && empty.items.is_empty());
    let missing = client.releases("com.acme.weather", "nowhere").await.unwrap_err();
    assert_eq!(missing, StoreError::NotFound { code: "notFound".to_owned() });
    let missing = client.releases("com.acme.other", "production").await.unwrap_err();
    assert_eq!(missing, StoreError::NotFound { code: "applicationNotFound".to_owned() });
}

#[tokio::test]
async fn a_walk_reads_every_page() {
    let mut scenario = scenario();
    for number in 0..450 {
        scenario.app_store[0].apps.push(App {
            id: number.to_string(),
            name: format!("App {number}"),
            bundle_id: format!("com.acme.app{number}"),
            sku: None,
            primary_locale: "en-US".to_owned(),
        });
    }
    for number in 0..2_100 {
        scenario.google_play[0].apps.push(PlayApp {
            package: format!("com.acme.app{number}"),
            display_name: format!("App {number}"),
            tracks: Vec::new(),
        });
    }
    let simulator = simulate(scenario).await;
    let apps = app_store(&simulator).apps().await.unwrap();
    assert_eq!((apps.items.len(), apps.pages, apps.complete), (451, 3, true));
    let ids: BTreeSet<_> = apps.items.iter().map(|app| &app.id).collect();
    assert_eq!(ids.len(), 451);

    let apps = play(&simulator).apps().await.unwrap();
    assert_eq!((apps.items.len(), apps.pages, apps.complete), (2_101, 3, true));
    let packages: BTreeSet<_> = apps.items.iter().map(|app| &app.package).collect();
    assert_eq!(packages.len(), 2_101);
}

#[tokio::test]
async fn the_clients_send_nothing_but_gets_and_the_token_exchange() {
    let simulator = simulate(scenario()).await;
    let (app_store, play) = (app_store(&simulator), play(&simulator));
    for kind in [FaultKind::Unauthorized, FaultKind::ServerError, FaultKind::Forbidden] {
        simulator.apply(Step::Fault(Fault::new(kind).times(1))).unwrap();
        for _ in 0..2 {
            // Some of these meet the fault; what matters is what was asked.
            let _ = app_store.apps().await;
            let _ = app_store.versions("1001").await;
            let _ = app_store.builds("1001").await;
            let _ = play.apps().await;
            let _ = play.tracks("com.acme.weather").await;
            let _ = play.releases("com.acme.weather", "production").await;
        }
    }
    let asked: BTreeSet<_> = simulator
        .requests()
        .into_iter()
        .map(|request| (request.method, request.operation.unwrap_or("unknown")))
        .collect();
    let expected = [
        ("GET", "/v1/apps"),
        ("GET", "/v1/apps/{id}/appStoreVersions"),
        ("GET", "/v1/builds"),
        ("GET", "androidpublisher/v3/applications/{applicationsId}/tracks/{tracksId}/releases"),
        ("GET", "v1beta1/apps/{appsId}:fetchReleaseFilterOptions"),
        ("GET", "v1beta1/apps:search"),
        ("POST", "/token"),
    ];
    assert_eq!(asked, expected.map(|(method, path)| (method.to_owned(), path)).into());
}

#[tokio::test]
async fn a_401_is_met_with_one_new_token_and_one_that_lasts_is_an_error() {
    let simulator = simulate(scenario()).await;
    let (app_store, play) = (app_store(&simulator), play(&simulator));
    for service in [Service::AppStore, Service::GooglePlay] {
        simulator.apply(Step::Fault(Fault::new(FaultKind::Unauthorized).of(service).times(1))).unwrap();
    }
    assert_eq!(app_store.apps().await.unwrap().items.len(), 1);
    assert_eq!(asked(&simulator, "/v1/apps"), 2);
    assert_eq!(play.apps().await.unwrap().items.len(), 1);
    assert_eq!(asked(&simulator, "/v1beta1/apps:search"), 2);
    assert_eq!(asked(&simulator, "/token"), 2);

    simulator.apply(Step::Fault(Fault::new(FaultKind::Unauthorized))).unwrap();
    let error = app_store.apps().await.unwrap_err();
    assert_eq!(error, StoreError::Unauthorized { code: "NOT_AUTHORIZED".to_owned() });
    assert_eq!(asked(&simulator, "/v1/apps"), 4);
    let error = play.apps().await.unwrap_err();
    assert!(matches!(error, StoreError::Unauthorized { .. }), "{error}");
}

#[tokio::test]
async fn one_token_serves_many_requests() {
    let simulator = simulate(scenario()).await;
    let client = play(&simulator);
    let all = (0..20).map(|_| client.releases("com.acme.weather", "production"));
    for result in futures_util::future::join_all(all).await {
        assert_eq!(result.unwrap().items.len(), 2);
    }
    assert_eq!(asked(&simulator, "/token"), 1);
}

#[tokio::test]
async fn an_individual_key_is_accepted_and_a_wrong_one_is_not() {
    let simulator = simulate(scenario()).await;
    let good = simulator.app_store_key("Acme").unwrap();
    let pem = good.private_key_pem.as_str();
    let client = |key| AppStoreClient::new(simulator.app_store_base_url(), key, insecure()).unwrap();

    let individual = AppStoreKey::individual(&good.key_id, pem).unwrap();
    assert_eq!(client(individual).apps().await.unwrap().items.len(), 1);
    let foreign = AppStoreKey::team(&good.key_id, "57246542-96fe-1a63-e053-0824d011072a", pem).unwrap();
    let error = client(foreign).apps().await.unwrap_err();
    assert!(matches!(error, StoreError::Unauthorized { .. }), "{error}");
    let unknown = AppStoreKey::team("ABCDEFGHIJ", &good.issuer_id, pem).unwrap();
    let error = client(unknown).apps().await.unwrap_err();
    assert!(matches!(error, StoreError::Unauthorized { .. }), "{error}");

    let json = simulator.google_service_account_json("acme").unwrap();
    let mut file: Value = serde_json::from_str(&json).unwrap();
    let rsa = file["private_key"].as_str().unwrap().to_owned();
    for (id, issuer, pem) in [("", "x", pem), ("x", "", pem), ("x", "x", ""), ("x", "x", &rsa)] {
        assert!(matches!(AppStoreKey::team(id, issuer, pem), Err(StoreError::Credential { .. })));
    }
    file["client_email"] = "nobody@nowhere.iam.gserviceaccount.com".into();
    let account = ServiceAccount::from_json(&file.to_string(), &insecure()).unwrap();
    let base = simulator.publisher_base_url().to_owned();
    let bases = PlayBaseUrls { publisher: base.clone(), reporting: base };
    let error = PlayClient::new(&bases, account, insecure()).unwrap().apps().await.unwrap_err();
    assert_eq!(error, StoreError::Unauthorized { code: "invalid_grant".to_owned() });
}

#[tokio::test]
async fn an_address_that_is_not_the_stores_is_refused_unless_allowed() {
    let simulator = simulate(scenario()).await;
    let json = simulator.google_service_account_json("acme").unwrap();
    let strict = FetchOptions::default();
    let file = |token_uri: &str| {
        let mut file: Value = serde_json::from_str(&json).unwrap();
        file["token_uri"] = token_uri.into();
        file.to_string()
    };
    for good in ["https://oauth2.googleapis.com/token", "https://accounts.google.com/o/oauth2/token"] {
        assert!(ServiceAccount::from_json(&file(good), &strict).is_ok(), "{good}");
    }
    for bad in [
        "http://oauth2.googleapis.com/token",
        "https://oauth2.googleapis.com.evil.example/token",
        "https://evilgoogleapis.com/token",
        "https://oauth2.googleapis.com:8443/token",
        "https://169.254.169.254/token",
        "file:///etc/passwd",
        "token",
    ] {
        let refused = ServiceAccount::from_json(&file(bad), &strict);
        assert!(matches!(refused, Err(StoreError::Credential { .. })), "{bad}");
    }
    for bad in ["http://api.appstoreconnect.apple.com", "ftp://a.b", "https://u:p@a.b", "nothing"] {
        let refused = AppStoreClient::new(bad, key(&simulator), strict.clone());
        assert!(matches!(refused, Err(StoreError::Setup { .. })), "{bad}");
    }
}

#[tokio::test]
async fn each_failure_is_told_apart_and_tells_no_secret() {
    let simulator = simulate(scenario()).await;
    type Is = fn(&StoreError) -> bool;
    let is: [(FaultKind, Is); 9] = [
        (FaultKind::Agreements, |error| matches!(error, StoreError::Forbidden { .. })),
        (FaultKind::Forbidden, |error| {
            matches!(error, StoreError::Forbidden { cause: ForbiddenCause::Role, .. })
        }),
        (FaultKind::NotFound, |error| matches!(error, StoreError::NotFound { .. })),
        (FaultKind::ServerError, |error| matches!(error, StoreError::Server { status: 500, .. })),
        (FaultKind::BadGateway, |error| matches!(error, StoreError::Server { status: 502, .. })),
        (FaultKind::Unavailable, |error| matches!(error, StoreError::Server { status: 503, .. })),
        (FaultKind::Garbage, |error| matches!(error, StoreError::NotJson)),
        (FaultKind::Cut, |error| matches!(error, StoreError::Network { .. })),
        (FaultKind::RateLimited, |error| matches!(error, StoreError::RateLimited { retry_after: None })),
    ];
    let (app_store, play) = (app_store(&simulator), play(&simulator));
    // Both have their tokens, so that the faults below meet the reads.
    app_store.apps().await.unwrap();
    play.apps().await.unwrap();
    for (kind, is) in is {
        for service in [Service::AppStore, Service::GooglePlay] {
            simulator.apply(Step::Fault(Fault::new(kind).of(service).times(1))).unwrap();
        }
        let errors = [app_store.apps().await.unwrap_err(), play.apps().await.unwrap_err()];
        for error in errors {
            assert!(is(&error), "{kind:?}: {error:?}");
            let text = format!("{error} {error:?}");
            assert!(!["eyJ", "ya29", "PRIVATE"].iter().any(|secret| text.contains(secret)), "{text}");
        }
        assert_eq!(app_store.apps().await.unwrap().items.len(), 1, "after {kind:?}");
        assert_eq!(play.apps().await.unwrap().items.len(), 1, "after {kind:?}");
    }
    simulator.apply(Step::Fault(Fault::new(FaultKind::Agreements).of(Service::AppStore))).unwrap();
    let error = app_store.versions("1001").await.unwrap_err();
    let code = "FORBIDDEN.REQUIRED_AGREEMENTS_MISSING_OR_EXPIRED".to_owned();
    assert_eq!(error, StoreError::Forbidden { cause: ForbiddenCause::Agreements, code });
}

#[tokio::test]
async fn an_answer_that_does_not_come_ends_at_the_deadline() {
    let simulator = simulate(scenario()).await;
    let options = FetchOptions { deadline: Duration::from_millis(200), ..insecure() };
    let client = AppStoreClient::new(simulator.app_store_base_url(), key(&simulator), options).unwrap();
    let slow = Fault { delay_ms: Some(60_000), ..Fault::new(FaultKind::Slow) };
    simulator.apply(Step::Fault(slow)).unwrap();
    assert_eq!(client.apps().await.unwrap_err(), StoreError::Timeout);
}

#[tokio::test]
async fn after_a_429_nothing_is_sent_until_the_store_wants_it() {
    let simulator = simulate(scenario()).await;
    let (app_store, play) = (app_store(&simulator), play(&simulator));
    play.apps().await.unwrap();
    for service in [Service::AppStore, Service::GooglePlay] {
        let fault =
            Fault { retry_after: Some(600), ..Fault::new(FaultKind::RateLimited).of(service).times(1) };
        simulator.apply(Step::Fault(fault)).unwrap();
    }
    let asked_for = Some(Duration::from_secs(600));
    assert_eq!(app_store.apps().await.unwrap_err(), StoreError::RateLimited { retry_after: asked_for });
    assert_eq!(play.apps().await.unwrap_err(), StoreError::RateLimited { retry_after: asked_for });
    let before = simulator.request_count();
    for error in [app_store.apps().await.unwrap_err(), play.apps().await.unwrap_err()] {
        let StoreError::BudgetSpent { retry_after } = error else { panic!("{error:?}") };
        assert!(retry_after > Duration::from_secs(500) && retry_after <= Duration::from_secs(600));
    }
    assert_eq!(simulator.request_count(), before);
}

#[tokio::test]
async fn nothing_is_spent_past_four_fifths_of_the_limit_that_the_headers_tell() {
    let mut scenario = scenario();
    scenario.app_store[0].hourly_limit = 50;
    let simulator = simulate(scenario).await;
    let client = app_store(&simulator);
    for _ in 0..40 {
        client.apps().await.unwrap();
    }
    assert_eq!(client.requests_left(), 0);
    assert_eq!((client.rate().limit, client.rate().remaining), (50, 10));
    let error = client.apps().await.unwrap_err();
    assert!(matches!(error, StoreError::BudgetSpent { .. }), "{error:?}");
    assert_eq!(simulator.request_count(), 40);
    assert!(simulator.requests().iter().all(|request| request.status == 200));
}

#[tokio::test]
async fn the_stores_clock_and_rate_are_noted() {
    let simulator = simulate(scenario()).await;
    let client = app_store(&simulator);
    let listing = client.apps().await.unwrap();
    let contact = client.contact();
    assert_eq!(listing.server_date, contact.server_date);
    assert!(contact.skew.unwrap().abs() < time::Duration::seconds(60));
    assert_eq!(contact.rate.unwrap().remaining, 3499);
}

/// The header and the claims of a token.
fn parts(token: &str) -> (Value, Value) {
    let mut parts = token
        .split('.')
        .map(|part| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap_or_default()));
    (parts.next().unwrap().unwrap(), parts.next().unwrap().unwrap())
}

#[tokio::test]
async fn an_app_store_token_says_what_apple_asks_for() {
    let simulator = simulate(scenario()).await;
    let key = simulator.app_store_key("Acme").unwrap();
    let now = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
    let team = AppStoreKey::team(&key.key_id, &key.issuer_id, &key.private_key_pem).unwrap();
    let (header, claims) = parts(&AppStoreTokens::new(team).bearer(now).unwrap());
    assert_eq!(header, json!({ "typ": "JWT", "alg": "ES256", "kid": key.key_id }));
    let expected = json!({
        "iss": key.issuer_id, "iat": 1_799_999_940, "exp": 1_800_001_140, "aud": "appstoreconnect-v1",
    });
    assert_eq!(claims, expected);
    let individual = AppStoreKey::individual(&key.key_id, &key.private_key_pem).unwrap();
    let (_, claims) = parts(&AppStoreTokens::new(individual).bearer(now).unwrap());
    assert_eq!((&claims["sub"], claims.get("iss")), (&json!("user"), None));
}

#[tokio::test]
async fn an_app_store_token_is_used_again_until_near_its_end_or_refused() {
    let simulator = simulate(scenario()).await;
    let tokens = AppStoreTokens::new(key(&simulator));
    let start = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
    let at = |seconds: i64| tokens.bearer(start + time::Duration::seconds(seconds)).unwrap();
    let first = at(0);
    assert_eq!(at(1050), first);
    let second = at(1051);
    assert_ne!(second, first);
    // Somebody else's refusal of an older token does not cost the newer one.
    tokens.invalidate(&first);
    assert_eq!(at(1052), second);
    tokens.invalidate(&second);
    let third = at(1052);
    assert_ne!(third, second);
    // A clock that was set back by an hour would leave a token that lasts too long for the store.
    assert_ne!(at(1052 - 3600), third);
}

/// A server of canned answers, by how many requests there were before.
type Canned = Arc<dyn Fn(&HttpRequest, usize) -> Response + Send + Sync>;

async fn canned(answer: impl Fn(&HttpRequest, usize) -> Response + Send + Sync + 'static) -> String {
    async fn respond(
        State((answer, count)): State<(Canned, Arc<Mutex<usize>>)>,
        request: HttpRequest,
    ) -> Response {
        let number = {
            let mut count = count.lock().unwrap();
            *count += 1;
            *count - 1
        };
        answer(&request, number)
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let state: (Canned, _) = (Arc::new(answer), Arc::new(Mutex::new(0)));
    let router = Router::new().fallback(respond).with_state(state);
    tokio::spawn(async move { axum::serve(listener, router).await });
    base
}

fn page(ids: &[&str], next: Option<String>, total: usize) -> Response {
    let data: Vec<_> = ids
        .iter()
        .map(|id| json!({ "type": "apps", "id": id, "attributes": { "name": id, "bundleId": id } }))
        .collect();
    let links = json!({ "self": "x", "next": next });
    axum::Json(json!({ "data": data, "links": links, "meta": { "paging": { "total": total, "limit": 1 } } }))
        .into_response()
}

async fn client_of(base: &str) -> AppStoreClient {
    let simulator = simulate(scenario()).await;
    AppStoreClient::new(base, key(&simulator), insecure()).unwrap()
}

#[tokio::test]
async fn a_next_page_elsewhere_is_not_followed() {
    let elsewhere = canned(|_, _| page(&["stolen"], None, 1)).await;
    let places = [
        format!("{elsewhere}/v1/apps?cursor=2"),
        "https://127.0.0.1/v1/apps?cursor=2".to_owned(),
        "//evil.example/v1/apps".to_owned(),
        "/v1/users?cursor=2".to_owned(),
        "http://user@127.0.0.1/v1/apps".to_owned(),
        "file:///etc/passwd".to_owned(),
    ];
    for place in places {
        let next = place.clone();
        let base = canned(move |_, _| page(&["1"], Some(next.clone()), 2)).await;
        let error = client_of(&base).await.apps().await.unwrap_err();
        assert_eq!(error, StoreError::ForeignPage, "{place}");
    }
}

#[tokio::test]
async fn after_a_401_another_token_is_sent() {
    let sent = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&sent);
    let base = canned(move |request, number| {
        log.lock().unwrap().push(request.headers()[header::AUTHORIZATION].clone());
        if number == 0 { StatusCode::UNAUTHORIZED.into_response() } else { page(&["1"], None, 1) }
    })
    .await;
    let client = client_of(&base).await;
    client.apps().await.unwrap();
    client.apps().await.unwrap();
    let sent = sent.lock().unwrap();
    assert_eq!(sent.len(), 3);
    assert_ne!(sent[0], sent[1]);
    assert_eq!(sent[1], sent[2]);
}

#[tokio::test]
async fn pages_that_repeat_or_do_not_end_are_an_error() {
    let same = canned(|_, _| page(&["1"], Some("/v1/apps?cursor=2".to_owned()), 9)).await;
    assert_eq!(client_of(&same).await.apps().await.unwrap_err(), StoreError::EndlessPages);
    let repeats = canned(|_, number| page(&["1"], Some(format!("/v1/apps?cursor={number}")), 9)).await;
    assert_eq!(client_of(&repeats).await.apps().await.unwrap_err(), StoreError::EndlessPages);
    let endless = canned(|_, number| page(&[], Some(format!("/v1/apps?cursor={number}")), 9)).await;
    let client = client_of(&endless).await;
    assert_eq!(client.apps().await.unwrap_err(), StoreError::EndlessPages);
    assert!(client.requests_made() <= 5, "{}", client.requests_made());
    // An empty page among others is one.
    let thin = canned(|_, number| {
        let id = format!("{}", number / 4);
        let ids: &[&str] = if number % 4 == 0 { &[&id] } else { &[] };
        page(ids, (number < 8).then(|| format!("/v1/apps?cursor={number}")), 3)
    })
    .await;
    let listing = client_of(&thin).await.apps().await.unwrap();
    assert_eq!((listing.items.len(), listing.complete), (3, true));
}

#[tokio::test]
async fn a_walk_that_missed_something_does_not_call_itself_complete() {
    let fewer = canned(|_, _| page(&["1"], None, 2)).await;
    let listing = client_of(&fewer).await.apps().await.unwrap();
    assert_eq!((listing.items.len(), listing.complete), (1, false));

    let shifted = canned(|_, number| match number {
        0 => page(&["1", "2"], Some("/v1/apps?cursor=2".to_owned()), 3),
        _ => page(&["2", "3"], None, 3),
    })
    .await;
    let listing = client_of(&shifted).await.apps().await.unwrap();
    assert_eq!((listing.items.len(), listing.complete), (3, true));

    // What is no segment of an address is not asked for by it.
    let dots = canned(|_, _| page(&["1", "..", "."], None, 3)).await;
    let listing = client_of(&dots).await.apps().await.unwrap();
    assert_eq!((listing.items.len(), listing.complete), (1, false));

    let broken = canned(|_, _| {
        let good = json!({ "id": "1", "attributes": { "name": "a", "bundleId": "b" } });
        let bad = json!({ "id": "2", "attributes": { "name": 7, "bundleId": "b" } });
        axum::Json(json!({ "data": [bad, good, 3], "links": { "self": "x" } })).into_response()
    })
    .await;
    let listing = client_of(&broken).await.apps().await.unwrap();
    assert_eq!((listing.items.len(), listing.complete), (1, false));
}

#[tokio::test]
async fn builds_of_another_app_are_dropped_where_the_filter_is_ignored() {
    let base = canned(|_, _| {
        let build = |id: &str, app: &str| {
            json!({
                "type": "builds", "id": id, "attributes": { "version": "1", "processingState": "VALID" },
                "relationships": { "app": { "data": { "type": "apps", "id": app } } },
            })
        };
        let data = [build("mine", "1001"), build("theirs", "2002")];
        axum::Json(json!({ "data": data, "links": { "self": "x" } })).into_response()
    })
    .await;
    let listing = client_of(&base).await.builds("1001").await.unwrap();
    assert_eq!(listing.items.len(), 1);
    assert_eq!(listing.items[0].id, "mine");
    assert!(!listing.complete);
}

#[tokio::test]
async fn redirects_are_not_followed_and_large_answers_not_read() {
    let target = canned(|_, _| page(&["stolen"], None, 1)).await;
    let redirect = canned(move |request, _| {
        (StatusCode::FOUND, [(header::LOCATION, format!("{target}{}", request.uri()))]).into_response()
    })
    .await;
    let error = client_of(&redirect).await.apps().await.unwrap_err();
    assert_eq!(error, StoreError::Refused { status: 302, code: String::new() });

    let simulator = simulate(scenario()).await;
    let limit = 64 << 10;
    let options = FetchOptions { max_body: limit, ..insecure() };
    let announced = canned(move |_, _| "x".repeat(limit + 1).into_response()).await;
    let streamed = canned(move |_, _| {
        let chunk = axum::body::Bytes::from(vec![b' '; 4096]);
        let chunks = (0..1000).map(move |_| Ok::<_, std::io::Error>(chunk.clone()));
        axum::body::Body::from_stream(futures_util::stream::iter(chunks)).into_response()
    })
    .await;
    for base in [announced, streamed] {
        let client = AppStoreClient::new(&base, key(&simulator), options.clone()).unwrap();
        assert_eq!(client.apps().await.unwrap_err(), StoreError::TooLarge { limit });
    }
}

#[tokio::test]
async fn a_hostile_id_stays_one_segment_of_the_path() {
    let simulator = simulate(Scenario {
        app_store: vec![AppStoreTeam {
            name: "Acme".to_owned(),
            hourly_limit: 3500,
            ..AppStoreTeam::default()
        }],
        google_play: vec![PlayAccount {
            name: "acme".to_owned(),
            minute_limit: 3000,
            token_seconds: 3599,
            ..PlayAccount::default()
        }],
        ..Scenario::default()
    })
    .await;
    let (app_store, play) = (app_store(&simulator), play(&simulator));
    for id in ["../users", "1?include=x", "a/b", "a%2Fb", "1#x", "é", ".."] {
        assert!(app_store.versions(id).await.is_err(), "{id}");
        assert!(play.releases(id, id).await.is_err(), "{id}");
        app_store.builds(id).await.unwrap();
    }
    for request in simulator.requests() {
        let known = request.operation.is_some() || request.path.contains("/v1/apps/");
        assert!(known || request.path.starts_with("/androidpublisher/v3/applications/"), "{request:?}");
        assert!(!request.query.contains("include=x"), "{request:?}");
    }
}
