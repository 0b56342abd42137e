//! A source's key, replaced in place: at once, by nobody else's, and with nothing recorded that the old one has read.

use crate::harness::{Workspace, World, eventually};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use statusledger::id::SourceId;
use statusledger::observation::record::{Asked, Missed, record};
use statusledger::observation::{Error, Kind, Observation};
use statusledger::source::look::Look;
use statusledger::source::store::Store;
use statusledger_simulator::{Options, Scenario, Simulator};
use statusledger_verify::json::Object;

/// Two teams and two accounts, each with an app.
async fn stores() -> Simulator {
    let scenario = json!({
        "app_store": [
            { "name": "Acme", "apps": [{ "id": "1001", "name": "Acme", "bundle_id": "com.acme.weather" }] },
            { "name": "Other", "apps": [{ "id": "2002", "name": "Other", "bundle_id": "com.other.app" }] },
        ],
        "google_play": [
            { "name": "acme", "apps": [{ "package": "com.acme.weather", "display_name": "Acme", "tracks": ["production"] }] },
            { "name": "other", "apps": [{ "package": "com.other.app", "display_name": "Other", "tracks": ["production"] }] },
        ],
    });
    let scenario: Scenario = serde_json::from_value(scenario).unwrap();
    Simulator::start(scenario, Options { speed: Some(0.0), ..Options::default() }).await.unwrap()
}

/// A team's key, with its own private half or with another.
fn apple(simulator: &Simulator, team: &str, private: Option<&str>) -> Value {
    let key = simulator.app_store_key(team).unwrap();
    let private = private.unwrap_or(key.private_key_pem.as_str());
    json!({ "key_id": key.key_id, "issuer_id": key.issuer_id, "private_key": private })
}

fn google(simulator: &Simulator, account: &str) -> Value {
    serde_json::from_str(&simulator.google_service_account_json(account).unwrap()).unwrap()
}

/// A private key that no store knows.
fn nobodys() -> String {
    rcgen::KeyPair::generate().unwrap().serialize_pem()
}

struct Source {
    workspace: Workspace,
    id: SourceId,
    path: String,
}

impl Source {
    async fn of(world: &World, simulator: &Simulator, credentials: Value) -> Self {
        let base = simulator.app_store_base_url();
        let request =
            json!({ "kind": "app_store", "name": "Apple", "credentials": credentials, "base_url": base });
        Self::made(world, request).await
    }

    async fn made(world: &World, request: Value) -> Self {
        let workspace = world.workspace("keys").await;
        let made = world.api.post(&workspace.at("/sources"), request).await.expect(201).json();
        let id = made["id"].as_str().unwrap();
        Self { path: workspace.at(&format!("/sources/{id}")), id: id.parse().unwrap(), workspace }
    }

    async fn read(&self) -> Value {
        self.workspace.api.get(&self.path).await.expect(200).json()
    }

    async fn put(&self, body: Value) -> crate::harness::Answer {
        let request = self.workspace.api.request("PUT", &format!("{}/key", self.path));
        crate::harness::send(request.json(&body)).await
    }

    async fn give(&self, credentials: Value, other_account: bool) -> crate::harness::Answer {
        let body = json!({ "kind": "app_store", "credentials": credentials, "other_account": other_account });
        self.put(body).await
    }

    async fn is(&self, health: &[&str]) {
        eventually(&format!("the source is {health:?}"), || async {
            let source = self.read().await;
            health.contains(&source["health"].as_str().unwrap()).then_some(())
        })
        .await;
    }

    /// Which apps it knows, and that are not gone.
    async fn knows(&self, app: &str) {
        eventually(&format!("it knows {app} and nothing else"), || async {
            let status =
                self.workspace.api.get(&self.workspace.at("/status?all=true")).await.expect(200).json();
            let apps: Vec<&str> = status["subjects"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|s| s["gone_at"].is_null())
                .map(|s| s["app"].as_str().unwrap())
                .collect();
            (!apps.is_empty() && apps.iter().all(|known| *known == app)).then_some(())
        })
        .await;
    }

    /// What the record says of its keys.
    async fn acts(&self) -> Vec<Value> {
        let entries = self.workspace.entries_of("audit.source.updated").await;
        entries.iter().map(|e| e["data"]["details"].clone()).collect()
    }
}

#[tokio::test]
async fn a_key_that_is_replaced_is_asked_with_at_once_and_the_source_stays_what_it_is() {
    let (world, simulator) = (World::new().await, stores().await);
    let source = Source::of(&world, &simulator, apple(&simulator, "Acme", Some(&nobodys()))).await;
    source.is(&["suspect", "refused"]).await;
    let before = source.read().await;
    let given = source.give(apple(&simulator, "Acme", None), false).await.expect(200).json();
    assert_eq!(given["id"], source.id.to_string());
    assert!(
        given["access"]["reads"].as_array().unwrap().iter().any(|r| r["outcome"] == "readable"),
        "{given}"
    );
    assert_ne!(given["key_fingerprint"], before["key_fingerprint"]);
    assert!(given["key_set_at"].as_str() > before["key_set_at"].as_str());
    source.is(&["ok"]).await;
    source.knows("com.acme.weather").await;

    // The same again changes nothing, and leaves nothing.
    let same = source.give(apple(&simulator, "Acme", None), false).await.expect(200).json();
    assert_eq!(same["key_set_at"], given["key_set_at"]);
    // Nor is either made under a condition: a key cannot be read.
    for private in [None, Some(nobodys())] {
        let credentials = apple(&simulator, "Acme", private.as_deref());
        let request =
            source.workspace.api.request("PUT", &format!("{}/key", source.path)).header("if-match", "*");
        let body = json!({ "kind": "app_store", "credentials": credentials });
        assert_eq!(crate::harness::send(request.json(&body)).await.problem(412), "precondition-failed");
    }
    let replaced = json!({ "key": "replaced", "same_account": true });
    assert_eq!(source.acts().await, std::slice::from_ref(&replaced));
    let told = source.workspace.entries_of("source.changed").await;
    assert_eq!(told[0]["data"], json!({ "key": "replaced", "source": source.id.to_string() }));

    // Another of the same team, which the store does not know: found out without a restart, and mended so.
    let private = nobodys();
    source.give(apple(&simulator, "Acme", Some(&private)), false).await.expect(200);
    source.is(&["suspect", "refused"]).await;
    source.give(apple(&simulator, "Acme", None), false).await.expect(200);
    source.is(&["ok"]).await;
    assert_eq!(source.acts().await, [replaced.clone(), replaced.clone(), replaced]);
    let first_sights = source.workspace.entries_of("store.app.first_seen").await;
    assert_eq!(first_sights.len(), 1, "it knows its apps still");
    let everything = serde_json::to_string(&source.workspace.entries().await).unwrap();
    let middle = private.lines().nth(1).unwrap();
    assert!(!everything.contains(middle) && !source.read().await.to_string().contains(middle));
    world.assert_whole(&[&source.workspace]).await;
}

#[tokio::test]
async fn a_key_of_another_account_is_taken_only_where_that_is_meant() {
    let (world, simulator) = (World::new().await, stores().await);
    let source = Source::of(&world, &simulator, apple(&simulator, "Acme", None)).await;
    source.knows("com.acme.weather").await;
    let before = source.read().await["key_fingerprint"].clone();
    let mut individual = apple(&simulator, "Acme", None);
    individual["issuer_id"] = Value::Null;
    for other in [apple(&simulator, "Other", None), individual] {
        let refused = source.give(other, false).await;
        assert_eq!(refused.problem(409), "conflict");
        assert!(refused.json()["detail"].as_str().unwrap().contains("other_account"), "{}", refused.text());
    }
    for (body, status) in [
        (json!({ "kind": "google_play", "service_account": google(&simulator, "acme") }), 422),
        (json!({ "kind": "app_store", "credentials": apple(&simulator, "Acme", Some("MARK no key")) }), 422),
        (json!({ "kind": "app_store" }), 422),
    ] {
        let refused = source.put(body).await;
        assert_eq!(refused.problem(status), "invalid");
        assert!(!refused.text().contains("MARK"), "{}", refused.text());
    }
    assert_eq!(source.read().await["key_fingerprint"], before);
    assert_eq!(source.acts().await, [Value::Null; 0], "nothing has changed");
    // Meant: what the other account has is seen, and what it has not is found to be gone.
    source.give(apple(&simulator, "Other", None), true).await.expect(200);
    source.knows("com.other.app").await;
    assert_eq!(source.acts().await, [json!({ "key": "replaced", "same_account": false })]);
    assert_eq!(source.workspace.entries_of("store.app.no_longer_visible").await.len(), 1);
    world.assert_whole(&[&source.workspace]).await;
}

#[tokio::test]
async fn a_service_account_is_replaced_by_its_own_next_key_or_by_one_that_is_meant() {
    let (world, simulator) = (World::new().await, stores().await);
    let request = json!({
        "kind": "google_play", "name": "Play", "service_account": google(&simulator, "acme"),
        "publisher_url": simulator.publisher_base_url(), "reporting_url": simulator.reporting_base_url(),
    });
    let source = Source::made(&world, request).await;
    source.knows("com.acme.weather").await;
    let body = |account: Value| json!({ "kind": "google_play", "service_account": account });
    assert_eq!(source.put(body(google(&simulator, "other"))).await.problem(409), "conflict");
    // The same account with a key that the store does not know, and back.
    let mut next = google(&simulator, "acme");
    next["private_key"] = google(&simulator, "other")["private_key"].clone();
    source.put(body(next)).await.expect(200);
    source.is(&["suspect", "refused"]).await;
    source.put(body(google(&simulator, "acme"))).await.expect(200);
    source.is(&["ok"]).await;
    let mut meant = body(google(&simulator, "other"));
    meant["other_account"] = true.into();
    source.put(meant).await.expect(200);
    source.knows("com.other.app").await;
    let same: Vec<Value> = source.acts().await.iter().map(|act| act["same_account"].clone()).collect();
    assert_eq!(same, [json!(true), json!(true), json!(false)]);
}

#[tokio::test]
async fn a_source_that_is_only_told_gets_a_key_and_an_inbound_one_none() {
    let (world, simulator) = (World::new().await, stores().await);
    let told = json!({ "kind": "app_store", "name": "Told", "webhook_secret": "a secret of both sides",
                       "base_url": simulator.app_store_base_url() });
    let source = Source::made(&world, told).await;
    let before = source.read().await;
    assert_eq!((&before["key_fingerprint"], &before["webhook_secret_set"]), (&Value::Null, &json!(true)));
    source.give(apple(&simulator, "Acme", None), false).await.expect(200);
    source.knows("com.acme.weather").await;
    assert_eq!(source.acts().await[0]["key"], "set");
    let inbound = source.workspace.inbound("CI").await;
    let path = source.workspace.at(&format!("/sources/{}/key", inbound.id));
    let body = json!({ "kind": "app_store", "credentials": apple(&simulator, "Acme", None) });
    let request = world.api.request("PUT", &path).json(&body);
    assert_eq!(crate::harness::send(request).await.problem(422), "invalid");
}

#[tokio::test]
async fn nothing_that_the_old_key_has_read_is_recorded_after_the_new_one_is_there() {
    // The node asks nothing by itself in between.
    let world = World::with(|settings| {
        settings.polling.interval_s = 3600.0;
        settings.polling.settled_s = 3600.0;
    })
    .await;
    let simulator = stores().await;
    let source = Source::of(&world, &simulator, apple(&simulator, "Acme", None)).await;
    source.knows("com.acme.weather").await;
    let sealed = || async {
        let sealed: Vec<u8> = sqlx::query_scalar("SELECT secret FROM sources WHERE source_id = $1")
            .bind(source.id.uuid())
            .fetch_one(&mut world.database.superuser().await)
            .await
            .unwrap();
        <[u8; 32]>::from(Sha256::digest(&sealed))
    };
    let old = sealed().await;
    source.give(apple(&simulator, "Acme", Some(&nobodys())), false).await.expect(200);
    let look = || Look {
        observations: vec![Observation {
            kind: Kind::Build,
            key: "late".into(),
            app: "com.acme.weather".into(),
            scope: "1001".into(),
            description: Object::default(),
            state: "VALID".into(),
            facts: Object::default(),
            store_at: None,
        }],
        ..Look::default()
    };
    let late = async |under: [u8; 32]| {
        let at = time::OffsetDateTime::now_utc();
        let (workspace, store) = (source.workspace.id, Store::AppStore);
        let asked = Asked { workspace, source: source.id, store, at, direct: false, under };
        record(&world.node().writer, &asked, &look(), &mut Missed::default()).await
    };
    assert!(matches!(late(old).await, Err(Error::Gone)));
    assert_eq!(source.workspace.entries_of("store.build.first_seen").await.len(), 0);
    assert_eq!(late(sealed().await).await.unwrap().first_seen, 1, "what the new one reads is");
}
