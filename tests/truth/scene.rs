//! A scene: stores that say what a test has them say, a node that watches them, and what it made of that.

use crate::harness::{Answer, Api, Workspace, World, eventually, send};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use statusledger::config::Settings;
use statusledger_simulator::{Fault, Options, Scenario, Simulator, Step};
use std::collections::BTreeMap;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// What the scenes' App Store Connect webhooks are signed with.
pub const SECRET: &str = "the secret of both sides";

/// Stores, a node that watches them from one workspace, and the sources there.
pub struct Scene {
    pub world: World,
    pub simulator: Simulator,
    pub workspace: Workspace,
    /// App Store Connect's source.
    pub apple: String,
    /// Google Play's.
    pub google: String,
}

/// A node that asks only when it is told to.
pub fn on_demand(settings: &mut Settings) {
    settings.polling.interval_s = 3600.0;
    settings.polling.settled_s = 3600.0;
}

/// A node that asks without a break.
pub fn always(_: &mut Settings) {}

/// A team of App Store Connect, of which nobody counts the requests.
pub fn acme() -> Value {
    json!({ "name": "Acme", "hourly_limit": 1_000_000_000, "apps": [weather()] })
}

pub fn weather() -> Value {
    json!({ "id": "1001", "name": "Acme Weather", "bundle_id": "com.acme.weather" })
}

pub fn a_version(id: &str, platform: &str, number: &str, state: &str) -> Value {
    json!({ "id": id, "app": "1001", "platform": platform, "version_string": number, "state": state })
}

/// The team with these versions.
pub fn with_versions(versions: Vec<Value>) -> Value {
    let mut team = acme();
    team["versions"] = versions.into();
    json!({ "app_store": [team] })
}

/// The team with one version, `v1`.
pub fn with_version(state: &str) -> Value {
    with_versions(vec![a_version("v1", "IOS", "1.0.0", state)])
}

/// A step, as a scenario writes it.
pub fn step(step: Value) -> Step {
    serde_json::from_value(step).unwrap()
}

/// That a version is in a state.
pub fn version(id: &str, state: &str) -> Step {
    Step::VersionState { id: id.into(), state: state.into() }
}

/// A request for a source of a store of `simulator`.
pub fn apple_request(simulator: &Simulator) -> Value {
    let team = simulator.app_store_teams().first().cloned().unwrap();
    let key = simulator.app_store_key(&team).unwrap();
    json!({
        "kind": "app_store", "name": "App Store Connect", "base_url": simulator.app_store_base_url(),
        "webhook_secret": SECRET,
        "credentials": {
            "key_id": key.key_id, "issuer_id": key.issuer_id, "private_key": key.private_key_pem.as_str(),
        },
    })
}

pub fn google_request(simulator: &Simulator) -> Value {
    let name = simulator.google_play_accounts().first().cloned().unwrap();
    let account = simulator.google_service_account_json(&name).unwrap();
    json!({
        "kind": "google_play", "name": "Google Play",
        "service_account": serde_json::from_str::<Value>(&account).unwrap(),
        "publisher_url": simulator.publisher_base_url(), "reporting_url": simulator.reporting_base_url(),
    })
}

/// The stores of a scenario, standing still until they are told to move.
pub async fn stores(scenario: Value) -> Simulator {
    let options = Options { speed: Some(0.0), ..Options::default() };
    Simulator::start(Scenario::from_json(&scenario.to_string()).unwrap(), options).await.unwrap()
}

/// A text of an entry's data, empty where there is none.
pub fn text<'v>(data: &'v Value, name: &str) -> &'v str {
    data[name].as_str().unwrap_or_default()
}

/// A time of an entry.
#[track_caller]
pub fn time(data: &Value, name: &str) -> OffsetDateTime {
    OffsetDateTime::parse(text(data, name), &Rfc3339).unwrap_or_else(|e| panic!("{name}: {e}: {data}"))
}

/// An entry in a line: `version.transitioned v1 A>B poll`, with what is remarkable behind it.
fn line(entry: &Value) -> String {
    let data = &entry["data"];
    let kind = text(entry, "type").trim_start_matches("store.").to_owned();
    if kind == "notice.received" {
        return format!("{kind} {} {}", text(data, "event_type"), text(data, "via"));
    }
    let id = text(&data["subject"], "id");
    let mut line = format!("{kind} {id} {}>{} {}", text(data, "from"), text(data, "to"), text(data, "via"));
    for flag in ["late", "unknown"] {
        if data[flag] == true {
            line.push(' ');
            line.push_str(flag);
        }
    }
    if let Some(from) = data["store_from"].as_str() {
        line.push_str(&format!(" store_from={from}"));
    }
    for name in data["changed"].as_array().into_iter().flatten() {
        line.push_str(&format!(" changed={}", name.as_str().unwrap_or_default()));
    }
    line
}

impl Scene {
    /// The scenario's stores, watched, and looked at once.
    pub async fn of(scenario: Value, settings: impl FnOnce(&mut Settings)) -> Self {
        Self::over(stores(scenario).await, settings, json!({})).await
    }

    /// The same of stores that are there, with more in the request for Google Play's source.
    pub async fn over(simulator: Simulator, settings: impl FnOnce(&mut Settings), play: Value) -> Self {
        let world = World::with(settings).await;
        let workspace = world.workspace("stores").await;
        let mut ids = [String::new(), String::new()];
        let mut requests = Vec::new();
        if !simulator.app_store_teams().is_empty() {
            requests.push((0, apple_request(&simulator)));
        }
        if !simulator.google_play_accounts().is_empty() {
            let mut request = google_request(&simulator);
            request.as_object_mut().unwrap().extend(play.as_object().unwrap().clone());
            requests.push((1, request));
        }
        for (place, request) in requests {
            let made = world.api.post(&workspace.at("/sources"), request).await.expect(201).json();
            ids[place] = text(&made, "id").to_owned();
        }
        let [apple, google] = ids;
        let scene = Self { world, simulator, workspace, apple, google };
        scene.looked_since(OffsetDateTime::now_utc() - time::Duration::minutes(1)).await;
        scene
    }

    pub fn api(&self) -> &Api {
        &self.world.api
    }

    pub fn apply(&self, step: Step) {
        self.simulator.apply(step).unwrap();
    }

    /// Begins a fault.
    pub fn fault(&self, fault: Fault) {
        self.apply(Step::Fault(fault));
    }

    pub fn end_faults(&self) {
        self.apply(Step::EndFault { name: None });
    }

    fn asks_always(&self) -> bool {
        self.world.settings.polling.interval_s < 60.0
    }

    /// The sources of stores that are polled.
    fn polled(&self) -> Vec<String> {
        [&self.apple, &self.google].into_iter().filter(|id| !id.is_empty()).cloned().collect()
    }

    /// Waits until everything that is asked of the stores was asked after `since`, and nothing is being asked.
    pub async fn looked_since(&self, since: OffsetDateTime) {
        let uuids: Vec<uuid::Uuid> =
            self.polled().iter().map(|id| id.parse::<statusledger::id::SourceId>().unwrap().uuid()).collect();
        eventually("a look at everything", || async {
            let mut connection = self.world.database.superuser().await;
            let (done, of): (i64, i64) = sqlx::query_as(
                "SELECT (SELECT count(*) FROM sources s WHERE s.source_id = ANY($1)
                            AND (s.leased_until < now() OR $3)
                            AND EXISTS (SELECT FROM polls p WHERE p.source_id = s.source_id)
                            AND NOT EXISTS (SELECT FROM polls p WHERE p.source_id = s.source_id AND p.refused IS NULL
                                             AND (p.answered_at IS NULL OR p.answered_at <= $2))),
                        cardinality($1::uuid[])::int8",
            )
            .bind(&uuids)
            .bind(since)
            .bind(self.asks_always())
            .fetch_one(&mut connection)
            .await
            .unwrap();
            (done == of).then_some(())
        })
        .await;
    }

    /// Has everything asked, from its beginning, and waits for what comes of it.
    pub async fn look(&self) {
        let since = OffsetDateTime::now_utc();
        for id in self.polled() {
            self.api().post(&self.workspace.at(&format!("/sources/{id}/look")), json!({})).await.expect(202);
        }
        self.looked_since(since).await;
    }

    /// Several looks, one after the other.
    pub async fn looks(&self, count: usize) {
        for _ in 0..count {
            self.look().await;
        }
    }

    /// The entries of stores but for first sights.
    pub async fn news(&self) -> Vec<Value> {
        let entries = self.workspace.entries().await;
        let of_stores = |kind: &str| kind.starts_with("store.") && !kind.ends_with(".first_seen");
        entries.into_iter().filter(|e| of_stores(text(e, "type"))).collect()
    }

    /// The same, a line each.
    pub async fn lines(&self) -> Vec<String> {
        self.news().await.iter().map(line).collect()
    }

    /// First sights by kind.
    pub async fn first_sights(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for entry in self.workspace.entries().await {
            if let Some(kind) =
                text(&entry, "type").strip_prefix("store.").and_then(|k| k.strip_suffix(".first_seen"))
            {
                *counts.entry(kind.to_owned()).or_default() += 1;
            }
        }
        counts
    }

    /// Waits until these lines are there; that no other is, is asserted by [`Scene::says`].
    #[track_caller]
    pub fn told(&self, lines: &[&str]) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        let expected: Vec<String> = lines.iter().map(|l| (*l).to_owned()).collect();
        async move {
            let end = std::time::Instant::now() + crate::harness::DEADLINE;
            loop {
                let lines = self.lines().await;
                // What is there stays, so that waiting helps only where there is too little.
                if lines.len() >= expected.len() || std::time::Instant::now() > end {
                    assert_eq!(lines, expected, "at {caller}");
                    return;
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        }
    }

    /// That these lines are what the ledger has, in this order, after everything was asked once more; that each
    /// entry is sound, each subject is as its entry says, and the ledger is whole.
    #[track_caller]
    pub fn says(&self, lines: &[&str]) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        let expected: Vec<String> = lines.iter().map(|l| (*l).to_owned()).collect();
        async move {
            let wanted: Vec<&str> = expected.iter().map(String::as_str).collect();
            self.told(&wanted).await;
            // Without a break a look may have been under way; on demand it begins now.
            self.looks(if self.asks_always() { 2 } else { 1 }).await;
            let lines = self.lines().await;
            assert_eq!(lines, expected, "at {caller}");
            self.assert_sound().await;
            self.world.assert_whole(&[&self.workspace]).await;
        }
    }

    /// That the members of every entry are as docs/events.md says, and each subject is where its entry left it.
    pub async fn assert_sound(&self) {
        let entries = self.workspace.entries().await;
        for entry in entries.iter().filter(|e| text(e, "type").starts_with("store.")) {
            let (kind, data) = (text(entry, "type"), &entry["data"]);
            assert!(["poll", "webhook", "backfill"].contains(&text(data, "via")), "{entry}");
            assert!([&self.apple, &self.google].contains(&&text(data, "source").to_owned()), "{entry}");
            let seen_at = time(data, "seen_at");
            if kind == "store.notice.received" {
                continue;
            }
            assert!(data["subject"]["id"].is_string() && data["subject"]["kind"].is_string(), "{entry}");
            assert_eq!(data["to"].is_string(), !kind.ends_with(".no_longer_visible"), "{entry}");
            let first = kind.ends_with(".first_seen");
            assert!(
                !(first && (data["from"].is_string() || data["last_seen_before_at"].is_string())),
                "{entry}"
            );
            if data["last_seen_before_at"].is_string() {
                assert!(data["from"].is_string() && time(data, "last_seen_before_at") < seen_at, "{entry}");
            }
            assert_eq!(data["event_id"].is_string(), text(data, "via") != "poll", "{entry}");
        }
        for subject in self.subjects().await {
            let seq = subject["seq"].as_u64().unwrap();
            let said = &entries[usize::try_from(seq).unwrap()];
            assert_eq!(said["seq"], seq);
            if said["data"]["to"].is_string() {
                assert_eq!(said["data"]["to"], subject["state"], "{subject}");
            }
        }
    }

    pub async fn subjects(&self) -> Vec<Value> {
        let listed = self.api().get(&self.workspace.at("/subjects")).await.expect(200).json();
        listed["items"].as_array().unwrap().clone()
    }

    /// The state of a subject.
    pub async fn state_of(&self, kind: &str, key: &str) -> String {
        let found = self.subjects().await.into_iter().find(|s| s["kind"] == kind && s["key"] == key);
        text(&found.unwrap_or_else(|| panic!("no {kind} {key}")), "state").to_owned()
    }

    /// A source as the API shows it.
    pub async fn source(&self, id: &str) -> Value {
        self.api().get(&self.workspace.at(&format!("/sources/{id}"))).await.expect(200).json()
    }

    /// Waits until a source's health is that.
    pub async fn healthy(&self, id: &str, health: &str) -> Value {
        eventually(&format!("a source that is {health}"), || async {
            Some(self.source(id).await).filter(|s| s["health"] == health)
        })
        .await
    }

    /// Where App Store Connect's events go.
    pub fn door(&self) -> String {
        format!("/in/{}/app-store-connect", self.apple)
    }

    /// Posts a body to that with headers of one's own.
    pub async fn knock(&self, body: impl Into<Vec<u8>>, signatures: &[&str]) -> Answer {
        let mut request = self.api().bare("POST", &self.door()).body(body.into());
        for signature in signatures {
            request = request.header("x-apple-signature", *signature);
        }
        send(request).await
    }

    /// Posts an event, signed as it should be; gives what became of it.
    pub async fn event(&self, event: &Value) -> String {
        let body = event.to_string();
        let answer = self.knock(body.as_bytes(), &[&signature(SECRET, body.as_bytes())]).await;
        text(&answer.expect(200).json(), "outcome").to_owned()
    }
}

/// The signature of a body, as App Store Connect makes it.
pub fn signature(secret: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(body);
    let hex: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("hmacsha256={hex}")
}

/// The event of a version's state, as App Store Connect sends it.
pub fn version_event(id: &str, version: &str, from: &str, to: &str, at: &str) -> Value {
    json!({ "data": {
        "type": "appStoreVersionAppVersionStateUpdated", "id": id, "version": 1,
        "attributes": { "oldValue": from, "newValue": to, "timestamp": at },
        "relationships": { "instance": { "data": { "type": "appStoreVersions", "id": version } } },
    } })
}

/// A time as the store writes it.
pub fn stamp(at: OffsetDateTime) -> String {
    at.format(&Rfc3339).unwrap()
}
