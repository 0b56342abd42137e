//! The baseline: the same key asked app by app, list by list, round and round, without includes and without a plan, as
//! fast as 80 % of the limit allows.

use crate::changes::Found;
use crate::world::{Subject, TEAM, TERRITORIES, World};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use statusledger::source::app_store::token::{AppStoreKey, AppStoreTokens};
use statusledger_simulator::Simulator;
use std::collections::HashMap;
use std::time::{Duration, Instant};
use time::OffsetDateTime;

/// Requests an hour: 80 % of Apple's limit.
const REQUESTS_AN_HOUR: f64 = 2800.0;

/// The plain client, and what it knows.
pub struct Plain {
    base: String,
    http: reqwest::Client,
    tokens: AppStoreTokens,
    /// Between two requests.
    pace: Duration,
    next: Instant,
    known: HashMap<(&'static str, String), String>,
    found: Found,
    requests: u64,
}

impl Plain {
    /// A client that knows the states that the world begins with.
    pub fn new(simulator: &Simulator, world: &World, factor: f64) -> Result<Self> {
        let key = simulator.app_store_key(TEAM).context("the team has a key")?;
        let key = AppStoreKey::team(&key.key_id, &key.issuer_id, &key.private_key_pem)?;
        let mut known = HashMap::new();
        for Subject { kind, id, state, .. } in &world.subjects {
            let mut know = |kind: &'static str, state: &str| {
                known.insert((kind, id.clone()), state.to_owned());
            };
            match *kind {
                "availability" => know(kind, &TERRITORIES.to_string()),
                "build" => {
                    let beta = if *state == "VALID" { "READY_FOR_BETA_TESTING" } else { "PROCESSING" };
                    know("beta_internal", beta);
                    know("beta_external", beta);
                    know(kind, state);
                }
                _ => know(kind, state),
            }
        }
        // Where TestFlight's review has a build, that is what is said to external testers.
        for subject in world.subjects.iter().filter(|s| s.kind == "beta_external") {
            known.insert((subject.kind, subject.id.clone()), subject.state.to_owned());
        }
        Ok(Self {
            base: simulator.app_store_base_url().to_owned(),
            http: reqwest::Client::builder().no_proxy().build()?,
            tokens: AppStoreTokens::new(key),
            pace: Duration::from_secs_f64(3600.0 / REQUESTS_AN_HOUR / factor),
            next: Instant::now(),
            known,
            found: Found::new(),
            requests: 0,
        })
    }

    /// Sweeps until the time is over; gives what was found, and how many requests a whole sweep took.
    pub async fn run(mut self, until: Instant) -> Result<(Found, u64)> {
        let mut whole = None;
        while Instant::now() < until {
            let before = self.requests;
            if self.sweep(until).await? {
                whole = Some(self.requests - before);
            }
        }
        Ok((self.found, whole.context("no sweep came to its end")?))
    }

    /// One sweep; whether it came to its end.
    async fn sweep(&mut self, until: Instant) -> Result<bool> {
        for app in self.list("/v1/apps?limit=200").await? {
            if Instant::now() >= until {
                return Ok(false);
            }
            self.app(id(&app)).await?;
        }
        Ok(true)
    }

    async fn app(&mut self, app: &str) -> Result<()> {
        let of = |what: &str| format!("/v1/apps/{app}/{what}?limit=200");
        for version in self.take(&of("appStoreVersions"), &[("version", "/appVersionState")]).await? {
            // Only what is live can be rolled out by phases.
            if version.pointer("/attributes/appVersionState") == Some(&"READY_FOR_DISTRIBUTION".into()) {
                let path = format!("/v1/appStoreVersions/{}/appStoreVersionPhasedRelease", id(&version));
                self.take(&path, &[("phased_release", "/phasedReleaseState")]).await?;
            }
        }
        let builds = format!("/v1/builds?filter[app]={app}&limit=200");
        let builds = self.take(&builds, &[("build", "/processingState")]).await?;
        let builds = builds.iter().map(|build| id(build).to_owned()).collect::<Vec<_>>().join(",");
        let states = [("beta_internal", "/internalBuildState"), ("beta_external", "/externalBuildState")];
        self.take(&format!("/v1/buildBetaDetails?filter[build]={builds}&limit=200"), &states).await?;
        let reviews = format!("/v1/betaAppReviewSubmissions?filter[build]={builds}&limit=200");
        self.take(&reviews, &[("beta_review", "/betaReviewState")]).await?;
        let submissions = format!("/v1/reviewSubmissions?filter[app]={app}&limit=200");
        for submission in self.take(&submissions, &[("review_submission", "/state")]).await? {
            let items = format!("/v1/reviewSubmissions/{}/items?limit=200", id(&submission));
            self.take(&items, &[("review_item", "/state")]).await?;
        }
        self.take(&of("appInfos"), &[("app_info", "/state")]).await?;
        self.take(&of("inAppPurchasesV2"), &[("in_app_purchase", "/state")]).await?;
        for group in self.list(&of("subscriptionGroups")).await? {
            let path = format!("/v1/subscriptionGroups/{}/subscriptions?limit=200", id(&group));
            self.take(&path, &[("subscription", "/state")]).await?;
        }
        self.take(&of("appEvents"), &[("app_event", "/eventState")]).await?;
        self.take(&of("buildUploads"), &[("build_upload", "/state/state")]).await?;
        for availability in self.list(&format!("/v1/apps/{app}/appAvailabilityV2")).await? {
            let path =
                format!("/v2/appAvailabilities/{}/territoryAvailabilities?limit=200", id(&availability));
            let available =
                |territory: &&Value| territory.pointer("/attributes/available") == Some(&true.into());
            let count = self.list(&path).await?.iter().filter(available).count();
            self.seen("availability", app, count.to_string());
        }
        Ok(())
    }

    /// Lists, and takes note of these states of each resource.
    async fn take(&mut self, path: &str, states: &[(&'static str, &str)]) -> Result<Vec<Value>> {
        let items = self.list(path).await?;
        for item in &items {
            for (kind, attribute) in states {
                let state = item.pointer(&format!("/attributes{attribute}")).and_then(Value::as_str);
                self.seen(kind, id(item), state.context("a resource has a state")?.to_owned());
            }
        }
        Ok(items)
    }

    fn seen(&mut self, kind: &'static str, id: &str, state: String) {
        let before = self.known.insert((kind, id.to_owned()), state.clone());
        if before.is_some_and(|before| before != state) {
            let found = self.found.entry((kind.to_owned(), id.to_owned())).or_default();
            found.push((OffsetDateTime::now_utc(), state));
        }
    }

    /// One request, at its time. Everything in this world fits into one page.
    async fn list(&mut self, path: &str) -> Result<Vec<Value>> {
        self.next = (self.next + self.pace).max(Instant::now() - self.pace);
        tokio::time::sleep_until(self.next.into()).await;
        self.requests += 1;
        let token = self.tokens.bearer(OffsetDateTime::now_utc())?;
        let url = format!("{}{path}", self.base);
        let answer = self.http.get(url).bearer_auth(token.as_str()).send().await?.error_for_status()?;
        let mut body: Value = answer.json().await?;
        ensure!(body.pointer("/links/next").is_none(), "{path} has a second page");
        Ok(match body["data"].take() {
            Value::Array(items) => items,
            Value::Null => Vec::new(),
            one => vec![one],
        })
    }
}

fn id(resource: &Value) -> &str {
    resource["id"].as_str().unwrap_or_default()
}
