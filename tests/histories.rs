//! A thousand random histories of both stores, with faults: the ledger holds exactly the transitions that were
//! observable. What was observable is worked out from the documentation and from what the simulator truly served
//! ([`served`], [`oracle`]), for stores and events drawn from a seed ([`generator`]).
//!
//! `STATUSLEDGER_HISTORY=seed` repeats one history alone, `STATUSLEDGER_HISTORIES=n` runs as many, and
//! `STATUSLEDGER_HISTORIES_FROM=seed` begins there.

#[path = "histories/generator.rs"]
mod generator;
#[path = "histories/oracle.rs"]
mod oracle;
#[path = "histories/served.rs"]
mod served;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::StreamExt;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use statusledger::id::{NodeId, SourceId};
use statusledger::source::poller::Poller;
use statusledger::source::{Kind, NewSource};
use statusledger_simulator::{Fault, FaultKind, Options, RecordedRequest, Service, Simulator, Step};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::harness::{Workspace, World, eventually, send, temporary};
use generator::{Generator, SECRET, Webhooks};
use oracle::{Doubt, Expected, Oracle, Subject, Told, Window};
use served::{Met, Store};

/// How many histories there are, and how many run at once.
const HISTORIES: u64 = 1000;
const AT_ONCE: usize = 8;
const DAY: f64 = 86_400.0;

/// A source, and how far what was asked for it is worked out.
struct Watched {
    source: SourceId,
    service: Service,
    seen: usize,
    oracle: Oracle,
}

struct History<'w> {
    seed: u64,
    world: &'w World,
    workspace: Workspace,
    simulator: Simulator,
    generator: Generator,
    poller: Arc<Poller>,
    watched: Vec<Watched>,
    /// Events that were not told yet, and those that were.
    untold: Vec<(Told, String)>,
    told: Vec<(Told, String)>,
    /// How many changes the events were made of.
    changes: usize,
    /// What was done, for the words of a failure.
    log: Vec<String>,
    failures: Vec<String>,
}

fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

impl<'w> History<'w> {
    async fn begin(seed: u64, world: &'w World, keys: &Path) -> Self {
        let mut generator = Generator::new(seed);
        let scenario = generator.scenario();
        let options = Options { speed: Some(0.0), keys: Some(keys.to_owned()), ..Options::default() };
        let simulator = Simulator::start(scenario, options).await.unwrap();
        simulator.withhold_webhooks(true);
        let workspace = world.workspace(&format!("history {seed}")).await;
        let poller = poller(world);
        let changes = simulator.history().len();
        Self {
            seed,
            world,
            workspace,
            simulator,
            generator,
            poller,
            watched: Vec::new(),
            untold: Vec::new(),
            told: Vec::new(),
            changes,
            log: Vec::new(),
            failures: Vec::new(),
        }
    }

    async fn add_sources(&mut self) {
        if self.generator.apple {
            let key = self.simulator.app_store_key("Acme").unwrap();
            let credentials = json!({
                "key_id": key.key_id, "issuer_id": key.issuer_id, "private_key": key.private_key_pem.as_str(),
            });
            let settings = json!({ "base_url": self.simulator.app_store_base_url() });
            let secret =
                (self.generator.webhooks != Webhooks::None).then(|| SECRET.as_bytes().to_vec().into());
            let new = NewSource {
                kind: Kind::AppStore,
                name: "apple".into(),
                settings,
                secret: Some(credentials.to_string().into_bytes().into()),
                webhook_secret: secret,
            };
            self.watch(new, Service::AppStore).await;
        }
        if self.generator.google {
            let account = self.simulator.google_service_account_json("acme").unwrap();
            let settings = json!({
                "publisher_url": self.simulator.publisher_base_url(),
                "reporting_url": self.simulator.reporting_base_url(),
                "rollout_by_edits": false,
                "dedicated_account": null,
            });
            let new = NewSource {
                kind: Kind::GooglePlay,
                name: "google".into(),
                settings,
                secret: Some(account.as_bytes().to_vec().into()),
                webhook_secret: None,
            };
            self.watch(new, Service::GooglePlay).await;
        }
    }

    /// Makes a source, and takes its lease for ever, so that the node leaves it to this history's own poller. Where the
    /// node was quicker, its first look is the first.
    async fn watch(&mut self, new: NewSource, service: Service) {
        let node = self.world.node();
        let from = now();
        let (source, _) = statusledger::source::create(
            &node.writer,
            &statusledger::audit::Act::operator(),
            self.workspace.id,
            new,
        )
        .await
        .unwrap();
        eventually("the source's lease", || async {
            let taken = sqlx::query(
                "UPDATE sources SET leased_until = 'infinity' WHERE source_id = $1 AND leased_until < now()",
            )
            .bind(source.uuid())
            .execute(&node.database.worker)
            .await
            .unwrap();
            (taken.rows_affected() == 1).then_some(())
        })
        .await;
        self.watched.push(Watched { source, service, seen: 0, oracle: Oracle::default() });
        let last = self.watched.len() - 1;
        self.work_out(last, None, Window { from, to: now() });
    }

    /// Looks at a source, with a fault or without, and works out what that look had to see.
    async fn look(&mut self, place: usize, fault: Option<Fault>) {
        let source = self.watched[place].source;
        self.log.push(format!("look at {:?}, {fault:?}", self.watched[place].service));
        if let Some(fault) = &fault {
            self.simulator.apply(Step::Fault(fault.clone())).unwrap();
        }
        let from = now();
        self.poller.look_now(self.workspace.id, source).await.unwrap();
        let window = Window { from, to: now() };
        self.simulator.apply(Step::EndFault { name: None }).unwrap();
        self.work_out(place, fault.as_ref(), window);
        if fault.is_some_and(|fault| fault.retry_after.is_some()) {
            // Another node takes over, which has not been told to wait.
            self.poller = poller(self.world);
        }
    }

    /// What the requests since the last look had to bring.
    fn work_out(&mut self, place: usize, fault: Option<&Fault>, seen: Window) {
        let watched = &mut self.watched[place];
        let mine = |request: &RecordedRequest| served::service(request) == watched.service;
        let requests: Vec<_> = self.simulator.requests().into_iter().filter(mine).collect();
        let new = requests[watched.seen..].to_vec();
        watched.seen = requests.len();
        let history = self.simulator.history();
        let store = Store::new(&history, &self.generator.registry);
        let mut left = fault.and_then(|fault| fault.times);
        let mut asked: Vec<(RecordedRequest, Met<'_>)> = Vec::new();
        for request in new {
            let meets =
                fault.filter(|f| f.path.as_ref().is_none_or(|part| request.path.contains(part.as_str())));
            let met = match meets.filter(|_| left != Some(0)) {
                Some(fault) => {
                    left = left.map(|left| left - 1);
                    if distorts(fault.kind) { Met::Distorted(fault) } else { Met::Instead }
                }
                None => Met::Nothing,
            };
            asked.push((request, met));
        }
        for (request, met) in &asked {
            self.log.push(format!(
                "    {} {} {}",
                request.status,
                request.path,
                if matches!(met, Met::Nothing) { "" } else { "!" }
            ));
        }
        let deliveries = self.simulator.webhook_deliveries();
        let google = watched.service == Service::GooglePlay;
        let oracle = &mut watched.oracle;
        let is_list_of_builds = |request: &RecordedRequest| {
            request.path == "/v1/builds" && served::named_builds(request).is_none()
        };
        let lists_of_builds = asked.iter().filter(|(request, _)| is_list_of_builds(request)).count();
        let mut whole_list_of_builds = false;
        let mut missed = BTreeSet::new();
        let mut at = 0;
        while at < asked.len() {
            let (request, met) = &asked[at];
            at += 1;
            let mut told = match google {
                true => store.google(request, *met),
                false => store.apple(request, at.checked_sub(2).map(|before| &asked[before].0), *met),
            };
            if is_list_of_builds(request) {
                // One of two is the newest page, and not all there is. Which of them makes no difference but to what is
                // asked for next: the one after which something that was not in it is asked for by itself is the whole,
                // else the last. One alone is the newest page of a team that had no apps.
                let in_it: BTreeSet<String> = told
                    .sights
                    .iter()
                    .map(|sight| address(&sight.subject, &self.generator.registry.parent))
                    .collect();
                let by_itself = asked[at..]
                    .iter()
                    .map(|(next, _)| next.path.as_str())
                    .take_while(|path| {
                        path.starts_with("/v1/builds/") || path.starts_with("/v1/betaAppReviewSubmissions/")
                    })
                    .any(|path| !in_it.contains(path));
                let last =
                    lists_of_builds > 1 && !asked[at..].iter().any(|(next, _)| is_list_of_builds(next));
                if whole_list_of_builds || !(by_itself || last) {
                    told.listed.clear();
                }
                whole_list_of_builds |= by_itself || last;
            }
            if let Some(webhook) = told.deliveries.take() {
                let all = deliveries.iter().filter(|delivery| delivery.webhook == webhook);
                let mut all: Vec<Told> = all.map(|delivery| event_of(&delivery.payload).0).collect();
                all.sort_by_key(|told| told.at);
                all.iter().for_each(|told| oracle.told(told, "backfill", seen));
            }
            let mut doubts: Vec<Doubt> = Vec::new();
            for sight in &told.sights {
                if oracle.sight(sight, false, seen) {
                    doubts.push(Doubt { subject: sight.subject.clone(), absent: false });
                }
            }
            let there: BTreeSet<Subject> = told.sights.iter().map(|sight| sight.subject.clone()).collect();
            for (kind, app) in &told.listed {
                let enough = if google { 4 } else { 2 };
                doubts.extend(oracle.listed(kind, app.as_deref(), &there, enough, &mut missed));
            }
            if google {
                for doubt in doubts.iter().filter(|doubt| doubt.absent) {
                    oracle.gone(&doubt.subject, seen);
                }
                continue;
            }
            // What is in doubt is asked for by itself, at once.
            let parents = &self.generator.registry.parent;
            while let Some((request, met)) = asked.get(at) {
                let place = doubts.iter().position(|doubt| address(&doubt.subject, parents) == request.path);
                let Some(place) = place else { break };
                at += 1;
                let mut answer = store.apple(request, None, *met);
                if matches!(met, Met::Instead) {
                    continue;
                }
                let doubt = doubts.swap_remove(place);
                if let ("availability", 200, Some((next, met))) =
                    (doubt.subject.0, request.status, asked.get(at))
                {
                    at += 1;
                    answer = store.apple(next, Some(request), *met);
                    answer.not_there = false;
                }
                match answer.sights.iter().find(|sight| sight.subject == doubt.subject) {
                    Some(sight) => drop(oracle.sight(sight, true, seen)),
                    None if doubt.absent && (answer.not_there || doubt.subject.0 == "review_item") => {
                        oracle.gone(&doubt.subject, seen);
                    }
                    None => {}
                }
            }
            // Of what was only told of it is not known whose it is.
            doubts.retain(|doubt| oracle.known.get(&doubt.subject).is_some_and(oracle::Known::was_seen));
            let broken = fault.is_some_and(|f| !distorts(f.kind)) || asked.get(at).is_none();
            if !broken && !doubts.is_empty() {
                let next = &asked[at].0.path;
                self.failures.push(format!("{doubts:?} was not asked for by itself; next was {next}"));
            }
        }
    }

    /// The store goes on.
    async fn step(&mut self) {
        let history = self.simulator.history();
        let store = Store::new(&history, &self.generator.registry);
        let truth = store.truth();
        let steps = self.generator.step(&truth, |sight| {
            let attribute = |id: &str| {
                let changes = history.iter().rev();
                changes
                    .clone()
                    .find(|c| c.id == id && c.to.as_ref() == Some(&sight.state))
                    .and_then(|c| c.from.clone())
            };
            attribute(&sight.subject.1.replace('+', ","))
        });
        for step in steps {
            self.log.push(format!("{step:?}"));
            self.simulator.apply(step).unwrap();
        }
        self.collect_events();
        if self.generator.webhooks != Webhooks::None {
            self.tell().await;
        }
    }

    /// The events of what has changed since.
    fn collect_events(&mut self) {
        match self.generator.webhooks {
            Webhooks::None => {}
            Webhooks::Listed => {
                let all = self.simulator.webhook_deliveries();
                let new = all.iter().skip(self.changes_told()).map(|delivery| event_of(&delivery.payload));
                let new: Vec<_> = new.collect();
                self.untold.extend(new);
            }
            Webhooks::Unlisted => {
                let history = self.simulator.history();
                for change in &history[self.changes..] {
                    let (Some(from), Some(to)) = (&change.from, &change.to) else { continue };
                    let (event, old, new) = match (change.resource, change.attribute) {
                        ("appStoreVersions", "appVersionState") => {
                            ("appStoreVersionAppVersionStateUpdated", "oldValue", "newValue")
                        }
                        ("buildBetaDetails", "externalBuildState") => (
                            "buildBetaDetailExternalBuildStateUpdated",
                            "oldExternalBuildState",
                            "newExternalBuildState",
                        ),
                        ("buildUploads", "state") => ("buildUploadStateUpdated", "oldState", "newState"),
                        _ => continue,
                    };
                    let mut attributes = json!({ new: to, "timestamp": now().format(&Rfc3339).unwrap() });
                    if change.resource != "buildUploads" || self.generator.random.percent(50) {
                        attributes[old] = from.as_str().into();
                    }
                    let id = format!("event-{:016x}", self.generator.random.bits());
                    let payload = json!({ "data": {
                        "type": event, "id": id, "version": 1, "attributes": attributes,
                        "relationships": { "instance": { "data": { "type": change.resource, "id": change.id } } },
                    } });
                    self.untold.push(event_of(&payload.to_string()));
                }
                self.changes = history.len();
            }
        }
    }

    fn changes_told(&self) -> usize {
        self.untold.len() + self.told.len()
    }

    /// Some events are told: at once, late, out of order, or again.
    async fn tell(&mut self) {
        for _ in 0..2 {
            let random = &mut self.generator.random;
            let again = random.percent(15) && !self.told.is_empty();
            if !again && (self.untold.is_empty() || random.percent(40)) {
                continue;
            }
            let (told, payload) = if again {
                random.of(&self.told).clone()
            } else {
                let place = if random.percent(70) { 0 } else { random.below(self.untold.len()) };
                self.untold[place].clone()
            };
            // Nothing is told of what has left.
            let history = self.simulator.history();
            let truth = Store::new(&history, &self.generator.registry).truth();
            let there = truth.iter().any(|sight| sight.subject == told.subject);
            if !there || self.watched[0].oracle.known.get(&told.subject).is_some_and(|known| known.gone) {
                continue;
            }
            if !again {
                // It stays in the order of the store's list.
                let place = self.untold.iter().position(|(t, _)| t.id == told.id).unwrap();
                let moved = self.untold.remove(place);
                self.told.push(moved);
            }
            self.post(&told, payload).await;
        }
    }

    async fn post(&mut self, told: &Told, payload: String) {
        self.log.push(format!("told {told:?}"));
        let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
        mac.update(payload.as_bytes());
        let hex: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        let path = format!("/in/{}/app-store-connect", self.watched[0].source);
        let from = now();
        let request =
            self.workspace.api.bare("POST", &path).header("x-apple-signature", format!("hmacsha256={hex}"));
        send(request.body(payload)).await.expect(200);
        self.watched[0].oracle.told(told, "webhook", Window { from, to: now() });
    }

    /// What goes wrong in a look.
    fn fault(&mut self, place: usize) -> Option<Fault> {
        let service = self.watched[place].service;
        let history = self.simulator.history();
        let truth = Store::new(&history, &self.generator.registry).truth();
        let there: BTreeSet<&Subject> = truth.iter().map(|sight| &sight.subject).collect();
        // Where a build is missing, both lists of builds have to come, or none of those that look the same says which
        // it was.
        let builds = ["build", "beta_internal", "beta_external", "beta_review"];
        let a_build_is_missing =
            self.watched[place].oracle.known.iter().any(|(subject, known)| {
                builds.contains(&subject.0) && !known.gone && !there.contains(subject)
            });
        let random = &mut self.generator.random;
        if random.percent(50) {
            return None;
        }
        let distorting = [
            FaultKind::Shuffled,
            FaultKind::IgnoredFilters,
            FaultKind::RepeatedPage,
            FaultKind::RepeatedData,
            FaultKind::Empty,
            FaultKind::Stale,
            FaultKind::UnknownValue,
        ];
        let breaking = [
            FaultKind::ServerError,
            FaultKind::BadGateway,
            FaultKind::Unavailable,
            FaultKind::RateLimited,
            FaultKind::Cut,
            FaultKind::Truncated,
            FaultKind::Garbage,
            FaultKind::Unauthorized,
        ];
        let kind = *if random.percent(50) || a_build_is_missing {
            random.of(&distorting)
        } else {
            random.of(&breaking)
        };
        let mut fault = Fault::new(kind).of(service);
        let apple =
            ["/v1/apps", "/v1/builds", "/v1/reviewSubmissions", "appStoreVersions", "/v1/appStoreVersions/"];
        let google = ["apps:search", "/releases", "production"];
        let paths: &[&str] = if service == Service::AppStore { &apple } else { &google };
        if random.percent(60) {
            let path = paths[random.below(paths.len())];
            fault = fault.at(path);
        }
        if !distorts(kind) {
            fault = fault.times(1 + random.below(3) as u32);
        }
        if matches!(kind, FaultKind::RateLimited | FaultKind::Unavailable) && random.percent(50) {
            fault.retry_after = Some(60);
        }
        if matches!(kind, FaultKind::UnknownValue | FaultKind::Stale) && random.percent(60) {
            let apple =
                ["appStoreVersions", "builds", "buildBetaDetails", "reviewSubmissions", "inAppPurchases"];
            fault.resource = Some(if service == Service::AppStore {
                (*random.of(&apple)).to_owned()
            } else {
                "releases".to_owned()
            });
        }
        if kind == FaultKind::UnknownValue {
            fault.value = Some(format!("NEVER_SEEN_{}", random.below(3)));
        }
        if kind == FaultKind::Shuffled && self.generator.webhooks == Webhooks::Listed {
            // In which order past events are read is the list's affair.
            return None;
        }
        Some(fault)
    }

    async fn live(&mut self) {
        self.add_sources().await;
        for place in 0..self.watched.len() {
            if self.generator.random.percent(90) {
                self.look(place, None).await;
            }
        }
        let looks = 2 + self.generator.random.below(3);
        for _ in 0..looks {
            for _ in 0..1 + self.generator.random.below(4) {
                self.step().await;
            }
            for place in 0..self.watched.len() {
                let fault = self.fault(place);
                self.look(place, fault).await;
            }
        }
        for _ in 0..2 {
            for place in 0..self.watched.len() {
                self.look(place, None).await;
            }
        }
    }

    /// Holds the ledger against the oracle, and the record against the stores.
    /// All the traffic there was: reads, and the exchange for a token.
    fn only_read(&self) {
        for request in self.simulator.requests() {
            let token = request.method == "POST" && request.path == "/token";
            let read = request.method == "GET" && request.operation.is_some();
            assert!(read || token, "history {}: {} {}", self.seed, request.method, request.path);
        }
    }

    async fn compare(&mut self) {
        self.only_read();
        let entries = self.workspace.entries().await;
        let mut recorded: BTreeMap<(String, String), Vec<&Value>> = BTreeMap::new();
        for entry in entries.iter().filter(|entry| entry["type"].as_str().unwrap().starts_with("store.")) {
            let subject = &entry["data"]["subject"];
            let text = |name: &str| subject[name].as_str().unwrap_or_default().to_owned();
            recorded.entry((text("kind"), text("id"))).or_default().push(entry);
        }
        let mut failures = std::mem::take(&mut self.failures);
        let expected = self.watched.iter().flat_map(|watched| &watched.oracle.expected);
        let mut expected: BTreeMap<(String, String), &Vec<Expected>> =
            expected.map(|(subject, all)| ((subject.0.to_owned(), subject.1.clone()), all)).collect();
        for (subject, entries) in &recorded {
            let none = Vec::new();
            let wanted = expected.remove(subject).unwrap_or(&none);
            if let Err(why) = self.same(wanted, entries) {
                let entries: Vec<String> = entries.iter().map(|e| brief(e)).collect();
                let wanted: Vec<String> = wanted.iter().map(brief_of).collect();
                failures.push(format!("{subject:?}: {why}\n  expected {wanted:#?}\n  recorded {entries:#?}"));
            }
        }
        for (subject, wanted) in expected {
            let wanted: Vec<String> = wanted.iter().map(brief_of).collect();
            failures.push(format!("{subject:?}: nothing is recorded of {wanted:#?}"));
        }
        let history = self.simulator.history();
        let truth = Store::new(&history, &self.generator.registry).truth();
        let listed = self.workspace.api.get(&self.workspace.at("/subjects")).await.expect(200).json();
        let states: BTreeMap<(String, String), String> = listed["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|subject| {
                let text = |name: &str| subject[name].as_str().unwrap().to_owned();
                ((text("kind"), text("key")), text("state"))
            })
            .collect();
        let there: BTreeSet<&Subject> = truth.iter().map(|sight| &sight.subject).collect();
        for (subject, known) in self.watched.iter().flat_map(|watched| &watched.oracle.known) {
            let apples = !matches!(subject.0, "release") && !subject.1.starts_with("com.");
            if apples && known.was_seen() && !known.gone && !there.contains(subject) {
                failures.push(format!("{subject:?} is not there, and was not asked for by itself"));
            }
        }
        for sight in &truth {
            let key = (sight.subject.0.to_owned(), sight.subject.1.clone());
            // A track of the app's own is known where something is out on it.
            let unseen = sight.app.ends_with("/qa") && !states.contains_key(&key);
            if !unseen && states.get(&key) != Some(&sight.state) {
                failures.push(format!("{key:?} is {} and recorded as {:?}", sight.state, states.get(&key)));
            }
        }
        if failures.is_empty() {
            return;
        }
        panic!(
            "history {}, again with STATUSLEDGER_HISTORY={}:\n{}\n{}",
            self.seed,
            self.seed,
            self.log.join("\n"),
            failures.join("\n")
        );
    }

    fn same(&self, wanted: &[Expected], entries: &[&Value]) -> Result<(), String> {
        let late = |entry: &Value| entry["data"]["late"] == true;
        // What fills the record stands where it came; of the rest each goes on where the one before ended.
        let mut state: Option<&str> = None;
        let mut filled: Vec<(&str, &str, &str)> = Vec::new();
        for entry in entries {
            let data = &entry["data"];
            let time =
                |name: &str| data[name].as_str().map(|at| OffsetDateTime::parse(at, &Rfc3339).unwrap());
            let seen = time("seen_at").ok_or("no seen_at")?;
            if time("last_seen_before_at").is_some_and(|before| before >= seen) {
                return Err(format!("seen before it was seen: {data}"));
            }
            if !late(entry) {
                if state.is_some() && data["from"].as_str() != state {
                    return Err(format!("it does not begin where it was: {data}"));
                }
                state = data["to"].as_str().or(state);
                // Events that had come before the one that led to what they leave are followed.
                let mut at = data["store_at"].as_str().filter(|_| data["event_id"].is_string());
                let mut left = filled.clone();
                left.sort_by_key(|late| late.2);
                while let (Some(of), Some(from)) = (state, at)
                    && let Some(next) = left.iter().position(|late| late.0 == of && late.2 >= from)
                {
                    let next = left.remove(next);
                    (state, at) = (Some(next.1), Some(next.2));
                }
            } else if let (Some(from), Some(to), Some(at)) =
                (data["from"].as_str(), data["to"].as_str(), data["store_at"].as_str())
            {
                filled.push((from, to, at));
            }
            let value = data["to"].as_str().unwrap_or_default();
            if (data["unknown"] == true) != value.starts_with("NEVER_SEEN") && value != "UNSPECIFIED" {
                return Err(format!("an unknown value is told as such, and no other: {data}"));
            }
        }
        if wanted.len() != entries.len() {
            return Err("not as many".into());
        }
        for (wanted, entry) in wanted.iter().zip(entries) {
            let data = &entry["data"];
            let text = |name: &str| data[name].as_str().map(str::to_owned);
            let what = entry["type"].as_str().unwrap().rsplit('.').next().unwrap();
            let changed: BTreeSet<String> = data["changed"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|n| n.as_str().unwrap().to_owned())
                .collect();
            let seen = OffsetDateTime::parse(data["seen_at"].as_str().unwrap(), &Rfc3339).unwrap();
            let same = what == wanted.what
                && text("from") == wanted.from
                && text("to") == wanted.to
                && text("via").as_deref() == Some(wanted.via)
                && text("event_id") == wanted.event
                && late(entry) == wanted.late
                && changed == wanted.changed;
            if !same {
                return Err(format!("{data} is not {}", brief_of(wanted)));
            }
            if !wanted.seen.holds(seen) {
                return Err(format!("{data} was seen in {:?}", wanted.seen));
            }
        }
        Ok(())
    }
}

fn brief(entry: &Value) -> String {
    let data = &entry["data"];
    let late = if data["late"] == true { "late" } else { "" };
    format!(
        "{} {} -> {} {} {late} {} {}",
        entry["type"], data["from"], data["to"], data["via"], data["changed"], data["seen_at"]
    )
}

fn brief_of(wanted: &Expected) -> String {
    let late = if wanted.late { "late" } else { "" };
    format!(
        "{} {:?} -> {:?} {} {late} {:?} {}",
        wanted.what, wanted.from, wanted.to, wanted.via, wanted.changed, wanted.seen.from
    )
}

/// Where a subject is asked for by itself.
fn address(subject: &Subject, parents: &BTreeMap<String, String>) -> String {
    let (kind, id) = (subject.0, subject.1.as_str());
    match kind {
        "app" => format!("/v1/apps/{id}"),
        "version" => format!("/v1/appStoreVersions/{id}"),
        "phased_release" => {
            format!("/v1/appStoreVersions/{}/appStoreVersionPhasedRelease", id.trim_end_matches("-phased"))
        }
        "build" | "beta_internal" | "beta_external" => format!("/v1/builds/{id}"),
        "beta_review" => format!("/v1/betaAppReviewSubmissions/{id}"),
        "build_upload" => format!("/v1/buildUploads/{id}"),
        "review_submission" => format!("/v1/reviewSubmissions/{id}"),
        "review_item" => format!("/v1/reviewSubmissions/{}", parents[id]),
        "app_info" => format!("/v1/appInfos/{id}"),
        "in_app_purchase" => format!("/v2/inAppPurchases/{id}"),
        "subscription" => format!("/v1/subscriptions/{id}"),
        "app_event" => format!("/v1/appEvents/{id}"),
        "availability" => format!("/v1/apps/{id}/appAvailabilityV2"),
        other => unreachable!("{other}"),
    }
}

/// What a body tells, and the body.
fn event_of(payload: &str) -> (Told, String) {
    let body: Value = serde_json::from_str(payload).unwrap();
    let data = &body["data"];
    let (kind, state) = match data["type"].as_str().unwrap() {
        "appStoreVersionAppVersionStateUpdated" => ("version", "Value"),
        "buildBetaDetailExternalBuildStateUpdated" => ("beta_external", "ExternalBuildState"),
        "buildUploadStateUpdated" => ("build_upload", "State"),
        other => unreachable!("{other}"),
    };
    let text = |name: &str| data["attributes"][name].as_str().map(str::to_owned);
    let id = data["relationships"]["instance"]["data"]["id"].as_str().unwrap().to_owned();
    let told = Told {
        id: data["id"].as_str().unwrap().to_owned(),
        subject: (kind, id),
        from: text(&format!("old{state}")),
        to: text(&format!("new{state}")).unwrap(),
        at: OffsetDateTime::parse(&text("timestamp").unwrap(), &Rfc3339).unwrap(),
    };
    (told, payload.to_owned())
}

/// Whether the store answers in its own way still.
fn distorts(kind: FaultKind) -> bool {
    use FaultKind::{Empty, IgnoredFilters, RepeatedData, RepeatedPage, Shuffled, Stale, UnknownValue};
    matches!(kind, Empty | IgnoredFilters | RepeatedData | RepeatedPage | Shuffled | Stale | UnknownValue)
}

fn poller(world: &World) -> Arc<Poller> {
    let node = world.node();
    let settings = world.settings.polling.clone();
    Poller::new(node.database.clone(), node.writer.clone(), NodeId::new(), settings)
}

async fn run(seed: u64, world: &World, keys: &Path) {
    let mut history = History::begin(seed, world, keys).await;
    history.live().await;
    history.compare().await;
    history.simulator.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_random_histories_leave_exactly_the_transitions_that_were_observable() {
    let number = |name: &str| std::env::var(name).ok().map(|value| value.parse::<u64>().unwrap());
    let seeds: Vec<u64> = match number("STATUSLEDGER_HISTORY") {
        Some(seed) => vec![seed],
        None => {
            let from = number("STATUSLEDGER_HISTORIES_FROM").unwrap_or(0);
            (from..from + number("STATUSLEDGER_HISTORIES").unwrap_or(HISTORIES)).collect()
        }
    };
    let world = World::with(|settings| {
        settings.polling.interval_s = DAY;
        settings.polling.settled_s = DAY;
    })
    .await;
    let keys = temporary("store-keys");
    let (world, keys) = (Arc::new(world), Arc::new(keys));
    let wrong = AtomicUsize::new(0);
    let all = seeds.len();
    futures_util::stream::iter(seeds)
        .for_each_concurrent(AT_ONCE, |seed| {
            let (world, keys, wrong) = (Arc::clone(&world), Arc::clone(&keys), &wrong);
            async move {
                let done = tokio::spawn(async move { run(seed, &world, &keys).await }).await;
                if done.is_err() {
                    wrong.fetch_add(1, Ordering::Relaxed);
                }
            }
        })
        .await;
    let wrong = wrong.into_inner();
    assert_eq!(wrong, 0, "of {all} histories, each told of above with its seed");
    assert!(world.doctor().await.is_empty());
}
