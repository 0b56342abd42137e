//! A client that knows nothing but HTTP: mints tokens by hand, and asks.

use std::collections::BTreeMap;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use statusledger_simulator::{AppStoreKey, Options, Scenario, Simulator};
use time::OffsetDateTime;

pub(crate) const PUBLISHER: &str = "https://www.googleapis.com/auth/androidpublisher";
pub(crate) const REPORTING: &str = "https://www.googleapis.com/auth/playdeveloperreporting";

/// One team with 120 apps, one of which has versions and builds of every kind; one account with 60 apps.
pub(crate) const SCENARIO: &str = include_str!("scenario.toml");

pub(crate) async fn start() -> Simulator {
    start_with(Scenario::from_toml(SCENARIO).unwrap()).await
}

pub(crate) async fn start_with(mut scenario: Scenario) -> Simulator {
    for number in 0..120 {
        scenario.app_store[0].apps.push(statusledger_simulator::scenario::App {
            id: (9000 + number).to_string(),
            name: format!("Filler {number:03}"),
            bundle_id: format!("com.example.filler{number:03}"),
            sku: None,
            primary_locale: "en-US".to_owned(),
        });
    }
    for number in 0..60 {
        scenario.google_play[0].apps.push(statusledger_simulator::scenario::PlayApp {
            package: format!("com.example.filler{number:03}"),
            display_name: format!("Filler {number:03}"),
            tracks: Vec::new(),
        });
    }
    Simulator::start(scenario, Options { speed: Some(0.0), ..Options::default() }).await.unwrap()
}

/// The claims of a good team token.
pub(crate) fn claims(key: &AppStoreKey) -> Value {
    let now = OffsetDateTime::now_utc().unix_timestamp();
    json!({ "iss": key.issuer_id, "iat": now - 60, "exp": now + 600, "aud": "appstoreconnect-v1" })
}

pub(crate) fn sign(key: &AppStoreKey, claims: &Value) -> String {
    let header = Header { kid: Some(key.key_id.clone()), ..Header::new(Algorithm::ES256) };
    let signing = EncodingKey::from_ec_pem(key.private_key_pem.as_bytes()).unwrap();
    jsonwebtoken::encode(&header, claims, &signing).unwrap()
}

/// Asks App Store Connect as the team named `Acme`.
pub(crate) async fn get(simulator: &Simulator, path_and_query: &str) -> Response {
    let key = simulator.app_store_key("Acme").unwrap();
    get_with(simulator, path_and_query, &sign(&key, &claims(&key))).await
}

pub(crate) async fn get_with(simulator: &Simulator, path_and_query: &str, token: &str) -> Response {
    let address = if path_and_query.starts_with("http") {
        path_and_query.to_owned()
    } else {
        format!("{}{path_and_query}", simulator.app_store_base_url())
    };
    reqwest::Client::new().get(address).bearer_auth(token).send().await.unwrap()
}

pub(crate) async fn get_json(simulator: &Simulator, path_and_query: &str) -> Value {
    let response = get(simulator, path_and_query).await;
    let status = response.status();
    let body = response.json().await.unwrap();
    assert_eq!(status, StatusCode::OK, "{path_and_query}: {body}");
    body
}

/// The claims of a good assertion.
pub(crate) fn assertion_claims(account: &Value, scope: &str) -> Value {
    let now = OffsetDateTime::now_utc().unix_timestamp();
    json!({
        "iss": account["client_email"], "scope": scope, "aud": account["token_uri"],
        "iat": now, "exp": now + 3600,
    })
}

pub(crate) fn account(simulator: &Simulator, name: &str) -> Value {
    serde_json::from_str(&simulator.google_service_account_json(name).unwrap()).unwrap()
}

pub(crate) fn sign_assertion(account: &Value, claims: &Value) -> String {
    let signing = EncodingKey::from_rsa_pem(account["private_key"].as_str().unwrap().as_bytes()).unwrap();
    jsonwebtoken::encode(&Header::new(Algorithm::RS256), claims, &signing).unwrap()
}

/// Exchanges an assertion.
pub(crate) async fn exchange(account: &Value, assertion: &str) -> Response {
    let form = [("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"), ("assertion", assertion)];
    reqwest::Client::new().post(account["token_uri"].as_str().unwrap()).form(&form).send().await.unwrap()
}

/// An access token of the account `acme` with these scopes.
pub(crate) async fn access_token(simulator: &Simulator, name: &str, scope: &str) -> String {
    let account = account(simulator, name);
    let assertion = sign_assertion(&account, &assertion_claims(&account, scope));
    let body: Value = exchange(&account, &assertion).await.json().await.unwrap();
    body["access_token"].as_str().unwrap_or_else(|| panic!("{body}")).to_owned()
}

/// Every version, build and release of every team and account with its state, by id.
pub(crate) async fn snapshot(simulator: &Simulator) -> BTreeMap<String, String> {
    let mut seen = BTreeMap::new();
    for team in simulator.app_store_teams() {
        let key = simulator.app_store_key(&team).unwrap();
        let token = sign(&key, &claims(&key));
        let apps: Value = get_with(simulator, "/v1/apps?limit=200", &token).await.json().await.unwrap();
        for app in apps["data"].as_array().unwrap() {
            let id = app["id"].as_str().unwrap();
            for (path, state) in [
                (format!("/v1/apps/{id}/appStoreVersions?limit=200"), "appVersionState"),
                (format!("/v1/builds?filter[app]={id}&limit=200"), "processingState"),
            ] {
                let body: Value = get_with(simulator, &path, &token).await.json().await.unwrap();
                for found in body["data"].as_array().unwrap() {
                    seen.insert(found["id"].to_string(), found["attributes"][state].to_string());
                }
            }
        }
    }
    for name in simulator.google_play_accounts() {
        let token = access_token(simulator, &name, &format!("{PUBLISHER} {REPORTING}")).await;
        let apps: Value = get_with(simulator, "/v1beta1/apps:search", &token).await.json().await.unwrap();
        for app in apps["apps"].as_array().unwrap() {
            let package = app["packageName"].as_str().unwrap();
            for track in ["production", "beta", "alpha", "internal", "field-test"] {
                let path = format!("/androidpublisher/v3/applications/{package}/tracks/{track}/releases");
                let body: Value = get_with(simulator, &path, &token).await.json().await.unwrap();
                for found in body["releases"].as_array().into_iter().flatten() {
                    let id = format!("{package} {track} {}", found["activeArtifacts"]);
                    seen.insert(id, found["releaseLifecycleState"].to_string());
                }
            }
        }
    }
    seen
}
