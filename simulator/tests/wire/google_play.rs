//! Google Play and Google's token endpoint over the wire.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use statusledger_simulator::values::{RELEASE_LIFECYCLE_STATES, WELL_KNOWN_TRACKS};
use statusledger_simulator::{Simulator, Step};
use time::OffsetDateTime;

use crate::shapes::Description;
use crate::support::{
    PUBLISHER, REPORTING, access_token, account, assertion_claims, exchange, get_with, sign_assertion, start,
};

const PRODUCTION: &str = "/androidpublisher/v3/applications/com.acme.weather/tracks/production/releases";

async fn token(simulator: &Simulator) -> String {
    access_token(simulator, "acme", &format!("{PUBLISHER} {REPORTING}")).await
}

async fn body(simulator: &Simulator, path: &str, token: &str) -> Value {
    let response = get_with(simulator, path, token).await;
    let status = response.status();
    let body = response.json().await.unwrap();
    assert_eq!(status, 200, "{path}: {body}");
    body
}

#[tokio::test]
async fn every_answer_stands_in_googles_descriptions() {
    let (Some(publisher), Some(reporting)) = (Description::publisher(), Description::reporting()) else {
        return;
    };
    let simulator = start().await;
    let token = token(&simulator).await;
    let reads = [
        (&reporting, "v1beta1/apps:search", "/v1beta1/apps:search?pageSize=10&alt=json"),
        (
            &reporting,
            "v1beta1/apps/{appsId}:fetchReleaseFilterOptions",
            "/v1beta1/apps/com.acme.weather:fetchReleaseFilterOptions",
        ),
        (
            &reporting,
            "v1beta1/apps/{appsId}:fetchReleaseFilterOptions",
            "/v1beta1/apps/com.example.filler001:fetchReleaseFilterOptions",
        ),
        (
            &publisher,
            "androidpublisher/v3/applications/{applicationsId}/tracks/{tracksId}/releases",
            PRODUCTION,
        ),
    ];
    for (description, template, path) in reads {
        let method = description.method(template).unwrap_or_else(|| panic!("{template}"));
        assert_eq!(method["httpMethod"], "GET");
        let answer = body(&simulator, path, &token).await;
        description.check_google(method["response"]["$ref"].as_str().unwrap(), &answer);
        let recorded = simulator.requests().pop().unwrap();
        assert_eq!(recorded.operation, Some(template));
    }
    let states = publisher.values("/schemas/ReleaseSummary/properties/releaseLifecycleState");
    let ours: Vec<_> =
        RELEASE_LIFECYCLE_STATES.iter().map(|state| format!("RELEASE_LIFECYCLE_STATE_{state}")).collect();
    assert_eq!(ours, states);
}

#[tokio::test]
async fn releases_tell_their_state_and_version_codes() {
    let simulator = start().await;
    let token = token(&simulator).await;
    let answer = body(&simulator, PRODUCTION, &token).await;
    assert_eq!(
        answer,
        json!({ "releases": [
            {
                "releaseName": "2.1.0", "track": "production",
                "releaseLifecycleState": "RELEASE_LIFECYCLE_STATE_IN_REVIEW",
                "activeArtifacts": [{ "versionCode": 210 }],
            },
            {
                "releaseName": "2.0.0", "track": "production",
                "releaseLifecycleState": "RELEASE_LIFECYCLE_STATE_PUBLISHED",
                "activeArtifacts": [{ "versionCode": 200 }, { "versionCode": 201 }],
            },
        ] })
    );
    // A form factor's track has a colon in its name, which clients may escape.
    for track in ["wear:production", "wear%3Aproduction"] {
        let path = format!("/androidpublisher/v3/applications/com.acme.weather/tracks/{track}/releases");
        assert_eq!(body(&simulator, &path, &token).await["releases"][0]["releaseName"], "1.0.0");
    }
}

#[tokio::test]
async fn no_more_than_twenty_releases_are_listed() {
    let simulator = start().await;
    for code in 1..=25 {
        simulator
            .apply(Step::Release(statusledger_simulator::scenario::Release {
                package: "com.acme.weather".to_owned(),
                track: "beta".to_owned(),
                name: "beta".to_owned(),
                version_codes: BTreeSet::from([code]),
                state: "DRAFT".to_owned(),
                ..Default::default()
            }))
            .unwrap();
    }
    let token = token(&simulator).await;
    let path = "/androidpublisher/v3/applications/com.acme.weather/tracks/beta/releases";
    assert_eq!(body(&simulator, path, &token).await["releases"].as_array().unwrap().len(), 20);
}

#[tokio::test]
async fn the_search_leads_through_all_pages() {
    let simulator = start().await;
    let token = token(&simulator).await;
    let mut packages = BTreeSet::new();
    let mut sizes = Vec::new();
    let mut path = "/v1beta1/apps:search?pageSize=25".to_owned();
    loop {
        let answer = body(&simulator, &path, &token).await;
        let apps = answer["apps"].as_array().unwrap();
        sizes.push(apps.len());
        packages.extend(apps.iter().map(|app| app["packageName"].to_string()));
        let Some(next) = answer["nextPageToken"].as_str() else { break };
        path = format!("/v1beta1/apps:search?pageSize=25&pageToken={next}");
    }
    assert_eq!((sizes, packages.len()), (vec![25, 25, 11], 61));
    let all = body(&simulator, "/v1beta1/apps:search?pageSize=5000", &token).await;
    assert_eq!(all["apps"].as_array().unwrap().len(), 61);
    let default = body(&simulator, "/v1beta1/apps:search", &token).await;
    assert_eq!(default["apps"].as_array().unwrap().len(), 50);
}

#[tokio::test]
async fn the_filter_options_name_the_tracks_on_which_something_is_out() {
    let simulator = start().await;
    let token = token(&simulator).await;
    let answer = body(&simulator, "/v1beta1/apps/com.acme.weather:fetchReleaseFilterOptions", &token).await;
    let tracks = answer["tracks"].as_array().unwrap();
    let names: Vec<_> = tracks.iter().map(|track| track["displayName"].as_str().unwrap()).collect();
    assert_eq!(names, ["Production", "qa"]);
    assert_eq!(
        tracks[0]["servingReleases"],
        json!([{ "displayName": "2.0.0", "versionCodes": ["200", "201"] }])
    );
}

#[tokio::test]
async fn what_is_not_there_and_what_is_not_allowed_are_told_apart() {
    let simulator = start().await;
    let both = token(&simulator).await;
    let (publisher, reporting) = (
        access_token(&simulator, "acme", PUBLISHER).await,
        access_token(&simulator, "acme", REPORTING).await,
    );
    let track = |package: &str, track: &str| {
        format!("/androidpublisher/v3/applications/{package}/tracks/{track}/releases")
    };
    assert!(WELL_KNOWN_TRACKS.contains(&"alpha"));
    let cases = [
        (track("com.acme.weather", "alpha"), both.as_str(), 404, "NOT_FOUND", "trackEmpty"),
        (track("com.acme.weather", "nowhere"), &both, 404, "NOT_FOUND", "notFound"),
        (track("com.other", "alpha"), &both, 404, "NOT_FOUND", "applicationNotFound"),
        (PRODUCTION.to_owned(), &reporting, 403, "PERMISSION_DENIED", "insufficientPermissions"),
        ("/v1beta1/apps:search".to_owned(), &publisher, 403, "PERMISSION_DENIED", "insufficientPermissions"),
        (PRODUCTION.to_owned(), "ya29.made-up", 401, "UNAUTHENTICATED", "authError"),
        (PRODUCTION.to_owned(), "", 401, "UNAUTHENTICATED", "authError"),
        ("/v1beta1/apps:search?pageToken=x".to_owned(), &both, 400, "INVALID_ARGUMENT", "badRequest"),
        ("/v1beta1/apps:search?pageSize=-1".to_owned(), &both, 400, "INVALID_ARGUMENT", "badRequest"),
        (format!("{PRODUCTION}?pageSize=2"), &both, 400, "INVALID_ARGUMENT", "badRequest"),
    ];
    for (path, token, code, status, reason) in cases {
        let response = get_with(&simulator, &path, token).await;
        assert_eq!(response.status(), code, "{path}");
        let error = response.json::<Value>().await.unwrap()["error"].clone();
        assert_eq!((&error["code"], &error["status"]), (&json!(code), &json!(status)), "{path}");
        assert_eq!(error["errors"][0]["reason"], reason, "{path}");
        assert!(error["message"].is_string() && error["errors"][0]["message"].is_string());
    }
}

#[tokio::test]
async fn the_quota_holds_over_a_rolling_minute() {
    let simulator = start().await;
    let token = token(&simulator).await;
    for _ in 0..40 {
        body(&simulator, PRODUCTION, &token).await;
    }
    let response = get_with(&simulator, PRODUCTION, &token).await;
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()["retry-after"], "60");
    let answer: Value = response.json().await.unwrap();
    assert_eq!(answer["error"]["status"], "RESOURCE_EXHAUSTED");
    simulator.advance(60.0);
    body(&simulator, PRODUCTION, &token).await;
}

#[tokio::test]
async fn every_flaw_of_an_assertion_is_refused() {
    let simulator = start().await;
    let account = account(&simulator, "acme");
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let good = assertion_claims(&account, PUBLISHER);
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        sign_assertion(&account, &claims)
    };
    let signed = sign_assertion(&account, &good);
    let (rest, signature) = signed.rsplit_once('.').unwrap();
    let tampered =
        format!("{rest}.{}{}", if signature.starts_with('A') { 'B' } else { 'A' }, &signature[1..]);
    for (flaw, assertion, error) in [
        ("no JWT", "letmein".to_owned(), "invalid_grant"),
        ("tampered", tampered, "invalid_grant"),
        ("unknown account", with("iss", "nobody@example.com".into()), "invalid_grant"),
        ("another audience", with("aud", "https://oauth2.example.com/token".into()), "invalid_grant"),
        ("expired", with("exp", (now - 1).into()), "invalid_grant"),
        ("longer than an hour", with("exp", (now + 3700).into()), "invalid_grant"),
        ("from the future", with("iat", (now + 600).into()), "invalid_grant"),
        ("no scope", with("scope", "".into()), "invalid_scope"),
        ("another scope", with("scope", format!("{PUBLISHER} openid").into()), "invalid_scope"),
    ] {
        let response = exchange(&account, &assertion).await;
        assert_eq!(response.status(), 400, "{flaw}");
        assert_eq!(response.json::<Value>().await.unwrap()["error"], error, "{flaw}");
    }
    let address = account["token_uri"].as_str().unwrap();
    let password =
        reqwest::Client::new().post(address).form(&[("grant_type", "password")]).send().await.unwrap();
    assert_eq!(password.json::<Value>().await.unwrap()["error"], "unsupported_grant_type");
    assert_eq!(reqwest::get(address).await.unwrap().status(), 405);

    let made_out_for_google = with("aud", "https://oauth2.googleapis.com/token".into());
    assert_eq!(exchange(&account, &made_out_for_google).await.status(), 200);
    let granted: Value = exchange(&account, &signed).await.json().await.unwrap();
    assert_eq!((&granted["token_type"], &granted["expires_in"]), (&json!("Bearer"), &json!(3599)));
    assert_eq!(
        get_with(&simulator, PRODUCTION, granted["access_token"].as_str().unwrap()).await.status(),
        200
    );
}
