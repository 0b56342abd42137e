//! Everything in App Store Connect that has a status, over the wire and against Apple's description.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use statusledger_simulator::{PingShape, ScenarioError, Step, values};

use crate::app_store::linked_paths;
use crate::shapes::Description;
use crate::studio::{INCLUDES, READS, ask, ask_as, ids, read, start, state, with};

#[tokio::test]
async fn every_read_stands_in_the_description_with_each_include_limit_and_choice_of_fields() {
    let Some(description) = Description::apple() else { return };
    let simulator = start().await;
    simulator.apply(state("appStoreVersions", "v-1", "REJECTED")).unwrap();
    simulator.ping_webhook("w-1", PingShape::Minimal).unwrap();
    simulator.webhooks_settled().await;
    let mut links = BTreeSet::new();
    let mut asked = 0;
    for (path, template) in READS {
        let plain = read(&simulator, path).await;
        assert!(plain["data"].as_array().is_none_or(|data| !data.is_empty()), "{path} shows nothing");
        description.check_apple(template, 200, &plain);
        linked_paths(simulator.app_store_base_url(), &plain, &mut links);
        let mut kinds = BTreeSet::from([kind_of(&plain)]);
        for (_, include, limited) in INCLUDES.iter().filter(|(of, ..)| of == template) {
            let known = description.parameter(template, "include").unwrap();
            assert!(
                known["items"]["enum"].as_array().unwrap().contains(&json!(include)),
                "{template} {include}"
            );
            let path = with(path, &format!("include={include}"));
            let body = read(&simulator, &path).await;
            let included = body["included"].as_array().unwrap();
            assert!(!included.is_empty(), "{path} includes nothing");
            description.check_apple(template, 200, &body);
            linked_paths(simulator.app_store_base_url(), &body, &mut links);
            kinds.extend(included.iter().map(|one| one["type"].as_str().unwrap().to_owned()));
            let limit = |limit: u32| with(&path, &format!("limit[{include}]={limit}"));
            if *limited {
                description.check_apple(template, 200, &read(&simulator, &limit(50)).await);
                assert_eq!(ask(&simulator, &limit(51)).await.status(), 400, "{path}");
            } else {
                assert_eq!(ask(&simulator, &limit(1)).await.status(), 400, "{path}");
            }
            asked += 1;
        }
        for kind in kinds {
            let name = format!("fields[{kind}]");
            let schema =
                description.parameter(template, &name).unwrap_or_else(|| panic!("{template} {name}"));
            let all = schema["items"]["enum"].as_array().unwrap();
            let all: Vec<_> = all.iter().map(|field| field.as_str().unwrap()).collect();
            for fields in [all.join(","), all[0].to_owned()] {
                let body = read(&simulator, &with(path, &format!("{name}={fields}"))).await;
                description.check_apple(template, 200, &body);
            }
            let refused = ask(&simulator, &with(path, &format!("{name}=shoeSize"))).await;
            assert_eq!(refused.status(), 400, "{path} {name}");
        }
        for (parameter, why) in [
            ("include=shoes", "an unknown include"),
            ("shoes=1", "an unknown parameter"),
            ("filter[shoes]=1", "an unknown filter"),
            ("limit=201", "a limit that is too large, or where there is none"),
        ] {
            let response = ask(&simulator, &with(path, parameter)).await;
            assert_eq!(response.status(), 400, "{path}: {why}");
            description.check_apple(template, 400, &response.json().await.unwrap());
        }
    }
    assert_eq!(asked, INCLUDES.len());
    for link in links {
        assert!(description.has_path(&link), "{link}");
    }
}

fn kind_of(body: &Value) -> String {
    let one = body["data"].get(0).unwrap_or(&body["data"]);
    one["type"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn the_known_values_are_those_of_the_description() {
    let Some(description) = Description::apple() else { return };
    let schema = |name: &str| description.values(&format!("/components/schemas/{name}"));
    let attribute = |kind: &str, name: &str| {
        description.values(&format!("/components/schemas/{kind}/properties/attributes/properties/{name}"))
    };
    assert_eq!(values::APP_STORE_STATES, schema("AppStoreVersionState"));
    assert_eq!(values::BETA_REVIEW_STATES, schema("BetaReviewState"));
    assert_eq!(values::UPLOAD_STATES, schema("BuildUploadState"));
    assert_eq!(values::REVIEW_SUBMISSION_STATES, attribute("ReviewSubmission", "state"));
    assert_eq!(values::REVIEW_ITEM_STATES, attribute("ReviewSubmissionItem", "state"));
    assert_eq!(values::APP_INFO_STATES, attribute("AppInfo", "state"));
    assert_eq!(values::IN_APP_PURCHASE_TYPES, schema("InAppPurchaseType"));
    assert_eq!(values::IN_APP_PURCHASE_STATES, schema("InAppPurchaseState"));
    assert_eq!(values::OLD_IN_APP_PURCHASE_STATES, attribute("InAppPurchase", "state"));
    assert_eq!(values::SUBSCRIPTION_STATES, attribute("Subscription", "state"));
    assert_eq!(values::SUBSCRIPTION_PERIODS, attribute("Subscription", "subscriptionPeriod"));
    assert_eq!(values::APP_EVENT_STATES, attribute("AppEvent", "eventState"));
    assert_eq!(values::CONTENT_STATUSES, attribute("TerritoryAvailability", "contentStatuses/items"));
    assert_eq!(values::WEBHOOK_EVENT_TYPES, schema("WebhookEventType"));
    assert_eq!(values::DELIVERY_STATES, attribute("WebhookDelivery", "deliveryState"));
}

#[tokio::test]
async fn each_state_of_each_resource_can_be_told_and_is_told_as_described() {
    let Some(description) = Description::apple() else { return };
    let simulator = start().await;
    for (resource, id, known, path, template, pointer) in [
        (
            "betaAppReviewSubmissions",
            "b-1",
            values::BETA_REVIEW_STATES,
            "/v1/betaAppReviewSubmissions?filter[build]=b-1",
            "/v1/betaAppReviewSubmissions",
            "/data/0/attributes/betaReviewState",
        ),
        (
            "buildUploads",
            "u-1",
            values::UPLOAD_STATES,
            "/v1/buildUploads/u-1",
            "/v1/buildUploads/{id}",
            "/data/attributes/state/state",
        ),
        (
            "reviewSubmissions",
            "s-1",
            values::REVIEW_SUBMISSION_STATES,
            "/v1/reviewSubmissions/s-1",
            "/v1/reviewSubmissions/{id}",
            "/data/attributes/state",
        ),
        (
            "reviewSubmissionItems",
            "i-1",
            values::REVIEW_ITEM_STATES,
            "/v1/reviewSubmissions/s-1?include=items&limit[items]=50&fields[reviewSubmissionItems]=state",
            "/v1/reviewSubmissions/{id}",
            "/included/1/attributes/state",
        ),
        (
            "appInfos",
            "f-1",
            values::APP_INFO_STATES,
            "/v1/appInfos/f-1",
            "/v1/appInfos/{id}",
            "/data/attributes/state",
        ),
        (
            "inAppPurchases",
            "p-1",
            values::IN_APP_PURCHASE_STATES,
            "/v2/inAppPurchases/p-1",
            "/v2/inAppPurchases/{id}",
            "/data/attributes/state",
        ),
        (
            "subscriptions",
            "m-1",
            values::SUBSCRIPTION_STATES,
            "/v1/subscriptions/m-1",
            "/v1/subscriptions/{id}",
            "/data/attributes/state",
        ),
        (
            "appEvents",
            "e-1",
            values::APP_EVENT_STATES,
            "/v1/appEvents/e-1",
            "/v1/appEvents/{id}",
            "/data/attributes/eventState",
        ),
        (
            "appStoreVersionPhasedReleases",
            "v-1-phased",
            values::PHASED_RELEASE_STATES,
            "/v1/appStoreVersions/v-1/appStoreVersionPhasedRelease",
            "/v1/appStoreVersions/{id}/appStoreVersionPhasedRelease",
            "/data/attributes/phasedReleaseState",
        ),
        (
            "buildBetaDetails",
            "b-1",
            values::EXTERNAL_BETA_STATES,
            "/v1/buildBetaDetails?filter[build]=b-1",
            "/v1/buildBetaDetails",
            "/data/0/attributes/externalBuildState",
        ),
        (
            "builds",
            "b-1",
            values::PROCESSING_STATES,
            "/v1/builds/b-1",
            "/v1/builds/{id}",
            "/data/attributes/processingState",
        ),
    ] {
        for value in known {
            simulator.apply(state(resource, id, value)).unwrap();
            let body = read(&simulator, path).await;
            assert_eq!(body.pointer(pointer), Some(&json!(value)), "{resource}: {body:#}");
            description.check_apple(template, 200, &body);
        }
        let refused = simulator.apply(state(resource, id, "HELD"));
        assert!(matches!(refused, Err(ScenarioError::UnknownValue { .. })), "{resource}");
        let missing = simulator.apply(state(resource, "nobody", known[0]));
        assert!(matches!(missing, Err(ScenarioError::Missing { .. })), "{resource}");
    }
    // The purchase that apps include is the deprecated one, which does not know every state.
    for value in values::IN_APP_PURCHASE_STATES {
        simulator.apply(state("inAppPurchases", "p-1", value)).unwrap();
        let body = read(&simulator, "/v1/apps/3001?include=inAppPurchasesV2").await;
        description.check_apple("/v1/apps/{id}", 200, &body);
    }
}

#[tokio::test]
async fn lists_filter_sort_and_ask_for_what_they_need() {
    let simulator = start().await;
    let shown = async |path: &str| ids(&read(&simulator, path).await);
    assert_eq!(shown("/v1/builds?filter[app]=3001,3002&sort=uploadedDate").await, ["b-1", "b-2"]);
    assert_eq!(shown("/v1/builds?filter[app]=3001,3002&sort=-uploadedDate").await, ["b-2", "b-1"]);
    assert_eq!(shown("/v1/builds?filter[expired]=true").await, ["b-2"]);
    assert_eq!(shown("/v1/builds?filter[id]=b-1&filter[processingState]=VALID").await, ["b-1"]);
    assert_eq!(
        shown("/v1/builds?filter[betaAppReviewSubmission.betaReviewState]=WAITING_FOR_REVIEW").await,
        ["b-1"]
    );
    assert_eq!(shown("/v1/apps?filter[bundleId]=com.studio.draw").await, ["3002"]);
    assert_eq!(shown("/v1/reviewSubmissions?filter[app]=3001,3002").await, ["s-2", "s-1"]);
    assert_eq!(shown("/v1/reviewSubmissions?filter[app]=3001,3002&filter[state]=IN_REVIEW").await, ["s-1"]);
    assert_eq!(shown("/v1/apps/3001/inAppPurchasesV2?filter[state]=WAITING_FOR_REVIEW").await, ["p-1"]);
    assert_eq!(shown("/v1/apps/3001/inAppPurchasesV2?sort=-name").await, ["p-2", "p-1"]);
    assert_eq!(shown("/v1/apps/3001/buildUploads?filter[state]=FAILED").await, ["u-2"]);
    assert_eq!(shown("/v1/apps/3001/appEvents?filter[eventState]=PAST").await, [""; 0]);
    assert_eq!(shown("/v1/apps/3001/subscriptionGroups?filter[subscriptions.state]=REJECTED").await, [""; 0]);
    assert_eq!(shown("/v1/buildBetaDetails?filter[build]=b-2").await, ["b-2"]);
    for (path, code) in [
        ("/v1/reviewSubmissions", "PARAMETER_ERROR.REQUIRED"),
        ("/v1/betaAppReviewSubmissions", "PARAMETER_ERROR.REQUIRED"),
        ("/v1/reviewSubmissions?filter[app]=3001&filter[state]=HELD", "PARAMETER_ERROR.INVALID"),
        ("/v1/builds?filter[expired]=perhaps", "PARAMETER_ERROR.INVALID"),
        ("/v1/webhooks/w-1/deliveries", "PARAMETER_ERROR.INVALID"),
        (
            "/v1/webhooks/w-1/deliveries?filter[createdDateLessThan]=2026-01-01T00:00:00Z&filter[createdDateGreaterThanOrEqualTo]=2026-01-01T00:00:00Z",
            "PARAMETER_ERROR.INVALID",
        ),
        ("/v1/webhooks/w-1/deliveries?filter[createdDateLessThan]=today", "PARAMETER_ERROR.INVALID"),
    ] {
        let response = ask(&simulator, path).await;
        assert_eq!(response.status(), 400, "{path}");
        assert_eq!(response.json::<Value>().await.unwrap()["errors"][0]["code"], code, "{path}");
    }
    for path in [
        "/v1/apps/9",
        "/v1/apps/9/appInfos",
        "/v1/apps/3002/appAvailabilityV2",
        "/v1/appStoreVersions/v-2/appStoreVersionPhasedRelease",
        "/v1/reviewSubmissions/9/items",
        "/v2/appAvailabilities/3002/territoryAvailabilities",
        "/v1/apps/4001",
        "/v1/appStoreVersions/v-old",
    ] {
        assert_eq!(ask(&simulator, path).await.status(), 404, "{path}");
    }
}

#[tokio::test]
async fn what_is_included_is_limited_and_the_whole_is_counted() {
    let simulator = start().await;
    for number in 0..60 {
        let version: Step = serde_json::from_value(json!({
            "do": "add_version", "id": format!("v-more-{number}"), "app": "3002", "platform": "IOS",
            "version_string": format!("2.{number}"),
        }))
        .unwrap();
        simulator.apply(version).unwrap();
    }
    for (limit, shown) in [("", 10), ("&limit[appStoreVersions]=50", 50), ("&limit[appStoreVersions]=3", 3)] {
        let body =
            read(&simulator, &format!("/v1/apps?filter[id]=3002&include=appStoreVersions{limit}")).await;
        let related = &body["data"][0]["relationships"]["appStoreVersions"];
        assert_eq!(related["meta"]["paging"], json!({ "total": 60, "limit": shown }));
        assert_eq!(related["data"].as_array().unwrap().len(), shown);
        assert_eq!(related["data"][0]["id"], "v-more-59");
        assert_eq!(body["included"].as_array().unwrap().len(), shown);
    }
}

#[tokio::test]
async fn a_team_with_old_states_has_no_other() {
    let Some(description) = Description::apple() else { return };
    let simulator = start().await;
    let told = async || {
        let response = ask_as(&simulator, "Museum", "/v1/apps/4001/appStoreVersions").await;
        let body: Value = response.json().await.unwrap();
        description.check_apple("/v1/apps/{id}/appStoreVersions", 200, &body);
        body["data"][0]["attributes"].clone()
    };
    assert_eq!(told().await["appStoreState"], "READY_FOR_SALE");
    assert!(told().await.get("appVersionState").is_none());
    simulator.apply(state("appStoreVersions", "v-old", "REMOVED_FROM_SALE")).unwrap();
    assert_eq!(told().await["appStoreState"], "REMOVED_FROM_SALE");
    let refused = simulator.apply(state("appStoreVersions", "v-1", "REMOVED_FROM_SALE"));
    assert!(matches!(refused, Err(ScenarioError::UnknownValue { .. })));
    let both = read(&simulator, "/v1/appStoreVersions/v-2").await;
    assert_eq!(both["data"]["attributes"]["appStoreState"], "READY_FOR_SALE");
    assert_eq!(both["data"]["attributes"]["appVersionState"], "READY_FOR_DISTRIBUTION");
    let last = simulator.history().pop().unwrap();
    assert_eq!((last.attribute, last.to.as_deref()), ("appStoreState", Some("REMOVED_FROM_SALE")));
}

#[tokio::test]
async fn sale_ends_and_begins_in_a_territory() {
    let simulator = start().await;
    let sell = |territory: &str, available: bool, status: &str| Step::TerritoryAvailability {
        app: "3001".to_owned(),
        territory: territory.to_owned(),
        available: Some(available),
        content_statuses: Some(vec![status.to_owned()]),
    };
    simulator.apply(sell("USA", false, "CANNOT_SELL")).unwrap();
    simulator.apply(sell("JPN", true, "AVAILABLE")).unwrap();
    let path = "/v2/appAvailabilities/3001/territoryAvailabilities?include=territory&limit=200";
    let body = read(&simulator, path).await;
    let told: Vec<_> = body["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            (one["relationships"]["territory"]["data"]["id"].clone(), one["attributes"]["available"].clone())
        })
        .collect();
    assert_eq!(
        told,
        [(json!("USA"), json!(false)), (json!("FRA"), json!(false)), (json!("JPN"), json!(true))]
    );
    assert!(simulator.apply(sell("USA", true, "HELD")).is_err());
    let changed = simulator
        .history()
        .into_iter()
        .filter(|change| change.resource == "territoryAvailabilities" && change.from.is_some());
    let changed: Vec<_> = changed.map(|change| (change.attribute, change.to.unwrap())).collect();
    assert_eq!(changed, [("available", "false".to_owned()), ("contentStatuses", "CANNOT_SELL".to_owned())]);
}

#[tokio::test]
async fn a_transferred_app_is_nowhere_until_it_returns() {
    let simulator = start().await;
    let id = || "3001".to_owned();
    let before: Vec<Value> = {
        let mut before = Vec::new();
        for (path, _) in READS {
            before.push(read(&simulator, path).await);
        }
        before
    };
    let gone = async |simulator: &statusledger_simulator::Simulator| {
        assert_eq!(ids(&read(simulator, "/v1/apps").await), ["3002"]);
        assert_eq!(ids(&read(simulator, "/v1/builds").await), ["b-2"]);
        assert_eq!(ids(&read(simulator, "/v1/reviewSubmissions?filter[app]=3001,3002").await), ["s-2"]);
        let direct = READS.iter().filter(|(_, template)| template.contains("{id}"));
        for (path, _) in direct {
            assert_eq!(ask(simulator, path).await.status(), 404, "{path}");
        }
    };
    for step in [
        Step::TransferApp { id: id(), to: None },
        Step::TransferApp { id: id(), to: Some("Museum".to_owned()) },
        Step::RemoveApp { id: id() },
    ] {
        let museum = matches!(&step, Step::TransferApp { to: Some(_), .. });
        simulator.apply(step).unwrap();
        gone(&simulator).await;
        let there = ask_as(&simulator, "Museum", "/v1/subscriptions/m-1").await.status();
        assert_eq!(there, if museum { 200 } else { 404 });
        simulator.apply(Step::ReturnApp { id: id() }).unwrap();
        assert!(simulator.apply(Step::ReturnApp { id: id() }).is_err());
        for ((path, template), before) in READS.iter().zip(&before) {
            if template.contains("{id}") {
                assert_eq!(&read(&simulator, path).await, before, "{path}");
            }
        }
    }
    let unknown = Step::TransferApp { id: id(), to: Some("Nobody".to_owned()) };
    assert!(matches!(simulator.apply(unknown), Err(ScenarioError::Missing { .. })));
    assert_eq!(ids(&read(&simulator, "/v1/apps").await).len(), 2);
}

#[tokio::test]
async fn what_is_removed_takes_along_what_hangs_on_it() {
    let simulator = start().await;
    let remove = |resource: &str, id: &str| {
        simulator.apply(Step::Remove { resource: resource.to_owned(), id: id.to_owned() })
    };
    remove("subscriptionGroups", "g-1").unwrap();
    assert_eq!(ask(&simulator, "/v1/subscriptions/m-1").await.status(), 404);
    remove("appEvents", "e-1").unwrap();
    assert_eq!(ids(&read(&simulator, "/v1/reviewSubmissions/s-1/items").await), ["i-1"]);
    remove("appStoreVersionPhasedReleases", "v-1-phased").unwrap();
    assert_eq!(ask(&simulator, "/v1/appStoreVersions/v-1/appStoreVersionPhasedRelease").await.status(), 404);
    remove("builds", "b-1").unwrap();
    let reviews = read(&simulator, "/v1/betaAppReviewSubmissions?filter[build]=b-1").await;
    assert_eq!(reviews["data"], json!([]));
    remove("appStoreVersions", "v-1").unwrap();
    assert_eq!(ids(&read(&simulator, "/v1/reviewSubmissions/s-1/items").await), [""; 0]);
    for (resource, id, path) in [
        ("reviewSubmissions", "s-1", "/v1/reviewSubmissions/s-1"),
        ("appInfos", "f-1", "/v1/appInfos/f-1"),
        ("inAppPurchases", "p-1", "/v2/inAppPurchases/p-1"),
        ("buildUploads", "u-1", "/v1/buildUploads/u-1"),
        ("appAvailabilities", "3001", "/v2/appAvailabilities/3001"),
        ("webhooks", "w-1", "/v1/webhooks/w-1"),
    ] {
        remove(resource, id).unwrap();
        assert_eq!(ask(&simulator, path).await.status(), 404, "{path}");
        assert!(remove(resource, id).is_err(), "{resource} is removed twice");
    }
    assert!(remove("shoes", "1").is_err());
    let removed = simulator.history().into_iter().filter(|change| change.to.is_none());
    let removed: BTreeSet<_> = removed.map(|change| change.id).collect();
    assert!(["m-1", "m-2", "i-2", "b-1", "v-1", "p-1"].iter().all(|id| removed.contains(*id)), "{removed:?}");
}
