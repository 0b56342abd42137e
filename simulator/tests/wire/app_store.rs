//! App Store Connect over the wire.

use std::collections::BTreeSet;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use statusledger_simulator::{Scenario, Step, values};
use time::OffsetDateTime;

use crate::shapes::Description;
use crate::support::{SCENARIO, claims, get, get_json, get_with, sign, start, start_with};

/// Each list, as a path of its own and as the description has it.
const LISTS: [(&str, &str); 3] = [
    ("/v1/apps", "/v1/apps"),
    ("/v1/apps/1001/appStoreVersions", "/v1/apps/{id}/appStoreVersions"),
    ("/v1/builds", "/v1/builds"),
];

/// Queries that use everything that the simulator knows.
const QUERIES: [(usize, &str); 20] = [
    (0, ""),
    (0, "limit=200"),
    (
        0,
        "limit=1&include=appStoreVersions,builds,preReleaseVersions&limit[appStoreVersions]=2&limit[builds]=1&limit[preReleaseVersions]=50",
    ),
    (0, "fields[apps]=name,bundleId&sort=-name"),
    (0, "fields[apps]=appStoreVersions&include=appStoreVersions&fields[appStoreVersions]=appVersionState"),
    (0, "filter[bundleId]=com.acme.weather,com.example.filler001&filter[name]=Acme Weather"),
    (0, "filter[sku]=com.acme.weather&filter[id]=1001&sort=bundleId"),
    (1, ""),
    (1, "include=app,build,appStoreVersionPhasedRelease"),
    (
        1,
        "include=build,appStoreVersionPhasedRelease&fields[appStoreVersions]=platform,versionString,appVersionState,createdDate,build,appStoreVersionPhasedRelease&fields[builds]=version&fields[appStoreVersionPhasedReleases]=phasedReleaseState,currentDayNumber",
    ),
    (1, "filter[platform]=IOS,TV_OS&filter[appVersionState]=READY_FOR_DISTRIBUTION"),
    (1, "filter[versionString]=2.0.0&filter[id]=v-ios-200"),
    (2, ""),
    (2, "filter[app]=1001&include=preReleaseVersion,app,buildBetaDetail,appStoreVersion"),
    (
        2,
        "filter[app]=1001&fields[builds]=version,processingState,buildBetaDetail&fields[buildBetaDetails]=externalBuildState&include=buildBetaDetail",
    ),
    (2, "filter[processingState]=PROCESSING&sort=-uploadedDate"),
    (2, "filter[preReleaseVersion.platform]=IOS&filter[preReleaseVersion.version]=2.0.0"),
    (2, "filter[version]=41&sort=version&filter[id]=b-ios-41"),
    (
        2,
        "fields[apps]=name&fields[preReleaseVersions]=version,platform&include=app,preReleaseVersion&fields[builds]=app,preReleaseVersion",
    ),
    (2, "limit=1"),
];

/// Every path in an answer, with ids replaced as the description does.
pub(crate) fn linked_paths(base: &str, value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::String(text) if text.starts_with(base) => {
            let path = text[base.len()..].split('?').next().unwrap();
            let mut segments: Vec<_> = path.split('/').collect();
            if segments.len() > 3 {
                segments[3] = "{id}";
            }
            into.insert(segments.join("/"));
        }
        Value::Array(items) => items.iter().for_each(|item| linked_paths(base, item, into)),
        Value::Object(members) => members.values().for_each(|member| linked_paths(base, member, into)),
        _ => {}
    }
}

#[tokio::test]
async fn every_answer_and_every_link_in_it_stands_in_apples_description() {
    let Some(description) = Description::apple() else { return };
    let simulator = start().await;
    let mut links = BTreeSet::new();
    for (list, query) in QUERIES {
        let (path, template) = LISTS[list];
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, asked) = pair.split_once('=').unwrap();
            let schema = description.parameter(template, name).unwrap_or_else(|| panic!("{template} {name}"));
            let known = schema["items"]["enum"].as_array();
            for value in asked.split(',') {
                assert!(known.is_none_or(|known| known.contains(&value.into())), "{template} {name}={value}");
            }
        }
        let body = get_json(&simulator, &format!("{path}?{query}")).await;
        assert!(!body["data"].as_array().unwrap().is_empty(), "{path}?{query}");
        description.check_apple(template, 200, &body);
        linked_paths(simulator.app_store_base_url(), &body, &mut links);
    }
    for link in links {
        assert!(description.has_path(&link), "{link}");
    }
}

#[tokio::test]
async fn every_known_value_can_be_told_and_is_told_as_described() {
    let Some(description) = Description::apple() else { return };
    let schema = |name: &str| description.values(&format!("/components/schemas/{name}"));
    assert_eq!(values::APP_VERSION_STATES, schema("AppVersionState"));
    assert_eq!(values::PLATFORMS, schema("Platform"));
    assert_eq!(values::INTERNAL_BETA_STATES, schema("InternalBetaState"));
    assert_eq!(values::EXTERNAL_BETA_STATES, schema("ExternalBetaState"));
    assert_eq!(values::PHASED_RELEASE_STATES, schema("PhasedReleaseState"));
    let attribute = |kind: &str, name: &str| {
        let pointer = format!("/components/schemas/{kind}/properties/attributes/properties/{name}");
        description.values(&pointer)
    };
    assert_eq!(values::PROCESSING_STATES, attribute("Build", "processingState"));
    assert_eq!(values::RELEASE_TYPES, attribute("AppStoreVersion", "releaseType"));

    let mut scenario = Scenario::from_toml(SCENARIO).unwrap();
    scenario.app_store[0].hourly_limit = 3500;
    let simulator = start_with(scenario).await;
    for state in values::APP_VERSION_STATES {
        simulator
            .apply(Step::VersionState { id: "v-mac-100".to_owned(), state: (*state).to_owned() })
            .unwrap();
        let body = get_json(&simulator, "/v1/apps/1001/appStoreVersions?filter[id]=v-mac-100").await;
        assert_eq!(body["data"][0]["attributes"]["appVersionState"], *state);
        description.check_apple("/v1/apps/{id}/appStoreVersions", 200, &body);
    }
    for state in values::PROCESSING_STATES {
        simulator
            .apply(Step::BuildState {
                id: "b-ios-42".to_owned(),
                processing_state: Some((*state).to_owned()),
                expired: Some(true),
                internal_state: None,
                external_state: None,
            })
            .unwrap();
        let body = get_json(&simulator, "/v1/builds?filter[id]=b-ios-42&include=buildBetaDetail").await;
        assert_eq!(body["data"][0]["attributes"]["processingState"], *state);
        assert_eq!(body["included"][0]["attributes"]["internalBuildState"], "EXPIRED");
        description.check_apple("/v1/builds", 200, &body);
    }
}

#[tokio::test]
async fn every_field_that_apple_lists_can_be_asked_for_and_no_other() {
    let Some(description) = Description::apple() else { return };
    let simulator = start().await;
    for (list, kinds) in [
        (0, vec!["apps", "appStoreVersions", "builds", "preReleaseVersions"]),
        (1, vec!["appStoreVersions", "apps", "builds", "appStoreVersionPhasedReleases"]),
        (2, vec!["builds", "apps", "preReleaseVersions", "buildBetaDetails", "appStoreVersions"]),
    ] {
        let (path, template) = LISTS[list];
        for kind in kinds {
            let name = format!("fields[{kind}]");
            let schema = description.parameter(template, &name).unwrap();
            let fields = schema["items"]["enum"].as_array().unwrap();
            let fields: Vec<_> = fields.iter().map(|field| field.as_str().unwrap()).collect();
            get_json(&simulator, &format!("{path}?{name}={}", fields.join(","))).await;
            let refused = get(&simulator, &format!("{path}?{name}={},shoeSize", fields[0])).await;
            assert_eq!(refused.status(), 400, "{path} {name}");
        }
    }
}

#[tokio::test]
async fn sparse_fields_leave_out_the_rest_and_a_relationship_shows_only_where_asked() {
    let simulator = start().await;
    let path = "/v1/apps/1001/appStoreVersions?filter[id]=v-ios-200";
    let body = get_json(&simulator, &format!("{path}&fields[appStoreVersions]=appVersionState")).await;
    let version = &body["data"][0];
    assert_eq!(version["attributes"], json!({ "appVersionState": "READY_FOR_DISTRIBUTION" }));
    assert!(version.get("relationships").is_none());
    assert!(body.get("included").is_none());

    let body = get_json(&simulator, &format!("{path}&include=build")).await;
    assert_eq!(
        body["data"][0]["relationships"]["build"]["data"],
        json!({ "type": "builds", "id": "b-ios-41" })
    );
    assert!(body["data"][0]["relationships"]["appStoreVersionPhasedRelease"].get("data").is_none());
    assert_eq!(body["included"].as_array().unwrap().len(), 1);
    assert_eq!(body["included"][0]["id"], "b-ios-41");

    // The trap of the real store: included, but not shown, where `fields` does not name the relationship.
    let body =
        get_json(&simulator, &format!("{path}&include=build&fields[appStoreVersions]=versionString")).await;
    assert!(body["data"][0].get("relationships").is_none());
    assert_eq!(body["included"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn pages_lead_to_the_end_without_gap_or_repetition() {
    let simulator = start().await;
    let mut address = "/v1/apps?limit=50&fields[apps]=name".to_owned();
    let mut sizes = Vec::new();
    let mut ids = BTreeSet::new();
    loop {
        let body = get_json(&simulator, &address).await;
        let data = body["data"].as_array().unwrap();
        sizes.push(data.len());
        ids.extend(data.iter().map(|app| app["id"].to_string()));
        assert_eq!(body["meta"]["paging"]["total"], 121);
        assert_eq!(body["meta"]["paging"]["limit"], 50);
        assert_eq!(body["meta"]["paging"]["nextCursor"].is_string(), body["links"]["next"].is_string());
        assert!(data.iter().all(|app| app["attributes"].as_object().unwrap().len() == 1));
        match body["links"]["next"].as_str() {
            Some(next) => next.clone_into(&mut address),
            None => break,
        }
    }
    assert_eq!(sizes, [50, 50, 21]);
    assert_eq!(ids.len(), 121);
}

#[tokio::test]
async fn a_team_sees_only_what_is_its_own() {
    let simulator = start().await;
    let key = simulator.app_store_key("Other").unwrap();
    let token = sign(&key, &claims(&key));
    let apps: Value = get_with(&simulator, "/v1/apps", &token).await.json().await.unwrap();
    assert_eq!(apps["data"].as_array().unwrap().len(), 1);
    assert_eq!(apps["data"][0]["id"], "2001");
    let versions = get_with(&simulator, "/v1/apps/1001/appStoreVersions", &token).await;
    assert_eq!(versions.status(), 404);
    let builds: Value =
        get_with(&simulator, "/v1/builds?filter[app]=1001", &token).await.json().await.unwrap();
    assert_eq!(builds["data"], json!([]));
}

#[tokio::test]
async fn what_the_description_does_not_allow_is_a_400_that_names_the_parameter() {
    let Some(description) = Description::apple() else { return };
    let simulator = start().await;
    for (list, name, value) in [
        (0, "limit", "0"),
        (0, "limit", "201"),
        (0, "limit", "many"),
        (0, "limit[builds]", "51"),
        (0, "limit[shoes]", "5"),
        (0, "sort", "size"),
        (0, "include", "shoes"),
        (0, "cursor", "made-up"),
        (0, "filter[shoes]", "1"),
        (0, "page", "2"),
        (0, "fields[shoes]", "size"),
        (1, "sort", "createdDate"),
        (1, "fields[buildBetaDetails]", "externalBuildState"),
        (2, "filter[expired]", "perhaps"),
        (2, "filter[betaGroups]", "1"),
        (1, "filter[appVersionState]", "HELD"),
    ] {
        let (path, template) = LISTS[list];
        let response = get(&simulator, &format!("{path}?{name}={value}")).await;
        assert_eq!(response.status(), 400, "{path}?{name}={value}");
        let body: Value = response.json().await.unwrap();
        description.check_apple(template, 400, &body);
        assert_eq!(body["errors"][0]["source"]["parameter"], name);
        assert!(body["errors"][0]["code"].as_str().unwrap().starts_with("PARAMETER_ERROR"));
    }
}

#[tokio::test]
async fn every_flaw_of_a_token_is_a_401() {
    let Some(description) = Description::apple() else { return };
    let simulator = start().await;
    let key = simulator.app_store_key("Acme").unwrap();
    let other = simulator.app_store_key("Other").unwrap();
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let good = claims(&key);
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        sign(&key, &claims)
    };
    let without = |name: &str| {
        let mut claims = good.clone();
        claims.as_object_mut().unwrap().remove(name);
        sign(&key, &claims)
    };
    let signing = EncodingKey::from_ec_pem(key.private_key_pem.as_bytes()).unwrap();
    let headed = |header: Header| jsonwebtoken::encode(&header, &good, &signing).unwrap();
    let mut foreign = other.clone();
    foreign.key_id.clone_from(&key.key_id);
    let signed = sign(&key, &good);
    let (rest, signature) = signed.rsplit_once('.').unwrap();
    let tampered =
        format!("{rest}.{}{}", if signature.starts_with('A') { 'B' } else { 'A' }, &signature[1..]);
    let unsigned_header = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0";
    let unsigned = format!("{unsigned_header}.{}.", rest.split_once('.').unwrap().1);
    let hs256 = jsonwebtoken::encode(
        &Header { kid: Some(key.key_id.clone()), ..Header::new(Algorithm::HS256) },
        &good,
        &EncodingKey::from_secret(key.private_key_pem.as_bytes()),
    )
    .unwrap();
    let bad = [
        ("no token", String::new()),
        ("no JWT", "letmein".to_owned()),
        ("no kid", headed(Header::new(Algorithm::ES256))),
        (
            "unknown kid",
            headed(Header { kid: Some("AAAAAAAAAA".to_owned()), ..Header::new(Algorithm::ES256) }),
        ),
        ("another key", sign(&foreign, &good)),
        ("tampered", tampered),
        ("unsigned", unsigned),
        ("HS256", hs256),
        ("another team's issuer", with("iss", other.issuer_id.as_str().into())),
        ("no issuer", without("iss")),
        ("another audience", with("aud", "appstoreconnect-v2".into())),
        ("no audience", without("aud")),
        ("no expiry", without("exp")),
        ("expired", with("exp", (now - 1).into())),
        ("from the future", with("iat", (now + 300).into())),
        ("longer than 20 minutes", with("exp", (now - 60 + 1201).into())),
        ("longer than 20 minutes, no iat", {
            let mut claims = good.clone();
            claims.as_object_mut().unwrap().remove("iat");
            claims["exp"] = (now + 1300).into();
            sign(&key, &claims)
        }),
    ];
    for (flaw, token) in bad {
        let response = get_with(&simulator, "/v1/apps", &token).await;
        assert_eq!(response.status(), 401, "{flaw}");
        assert!(response.headers().get("x-rate-limit").is_none());
        let body: Value = response.json().await.unwrap();
        description.check_apple("/v1/apps", 401, &body);
        assert_eq!(body["errors"][0]["code"], "NOT_AUTHORIZED");
    }
    let longest = with("exp", (now - 60 + 1200).into());
    let individual =
        sign(&key, &json!({ "sub": "user", "iat": now, "exp": now + 60, "aud": "appstoreconnect-v1" }));
    for token in [signed, longest, individual] {
        assert_eq!(get_with(&simulator, "/v1/apps", &token).await.status(), 200);
    }
}

#[tokio::test]
async fn the_quota_is_told_in_each_answer_and_holds_over_a_rolling_hour() {
    let Some(description) = Description::apple() else { return };
    let simulator = start().await;
    let rate = |response: &reqwest::Response| response.headers()["x-rate-limit"].to_str().unwrap().to_owned();
    for used in 1..=20 {
        let response = get(&simulator, "/v1/apps?limit=1").await;
        assert_eq!(response.status(), 200);
        assert_eq!(rate(&response), format!("user-hour-lim:40;user-hour-rem:{};", 40 - used));
    }
    simulator.advance(1800.0);
    // A 404 and a 400 cost as much as a 200.
    for _ in 0..10 {
        assert_eq!(get(&simulator, "/v1/apps/0/appStoreVersions").await.status(), 404);
        assert_eq!(get(&simulator, "/v1/apps?limit=0").await.status(), 400);
    }
    let response = get(&simulator, "/v1/apps").await;
    assert_eq!(response.status(), 429);
    assert_eq!(rate(&response), "user-hour-lim:40;user-hour-rem:0;");
    assert_eq!(response.headers()["retry-after"], "1800");
    let body: Value = response.json().await.unwrap();
    description.check_apple("/v1/apps", 429, &body);
    assert_eq!(body["errors"][0]["code"], "RATE_LIMIT_EXCEEDED");
    simulator.advance(1799.0);
    assert_eq!(get(&simulator, "/v1/apps").await.status(), 429);
    simulator.advance(1.0);
    let response = get(&simulator, "/v1/apps").await;
    assert_eq!(
        (response.status().as_u16(), rate(&response).as_str()),
        (200, "user-hour-lim:40;user-hour-rem:19;")
    );

    let other = simulator.app_store_key("Other").unwrap();
    let response = get_with(&simulator, "/v1/apps", &sign(&other, &claims(&other))).await;
    assert_eq!(rate(&response), "user-hour-lim:3500;user-hour-rem:3499;");
}

#[tokio::test]
async fn a_path_or_method_that_is_not_there_is_an_error_and_is_recorded() {
    let simulator = start().await;
    assert_eq!(get(&simulator, "/v1/actors?limit=5").await.status(), 404);
    let key = simulator.app_store_key("Acme").unwrap();
    let address = format!("{}/v1/apps", simulator.app_store_base_url());
    let token = sign(&key, &claims(&key));
    let response = reqwest::Client::new().delete(address).bearer_auth(token).send().await.unwrap();
    assert_eq!(response.status(), 405);
    let seen: Vec<_> = simulator
        .requests()
        .into_iter()
        .map(|request| (request.method, request.path, request.query, request.operation, request.status))
        .collect();
    let text = str::to_owned;
    assert_eq!(
        seen,
        [
            (text("GET"), text("/v1/actors"), text("limit=5"), None, 404),
            (text("DELETE"), text("/v1/apps"), text(""), Some("/v1/apps"), 405),
        ]
    );
    assert_eq!(simulator.request_count(), 2);
}
