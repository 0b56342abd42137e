#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use statusledger_simulator::scenario::{PlayAccount, Scenario};
use statusledger_simulator::{Options, Simulator};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::*;
use crate::observation::Kind;
use crate::source::fetch::FetchOptions;
use crate::source::google_play::looks::{Poll, look};
use crate::source::google_play::{self, StoreSettings};
use crate::source::look::Look;

const APP: &str = "com.example";

/// What somebody else does.
type Meanwhile = Box<dyn FnOnce(&mut Store) + Send>;

/// A publisher API that has edits alone, as Google has them: an account has one open edit an app.
#[derive(Default)]
struct Store {
    open: HashMap<String, String>,
    opened: u32,
    asked: Vec<String>,
    tracks: Value,
    /// Status and reason of the next answers to a method, the last one first.
    faults: Vec<(Method, u16, &'static str)>,
    /// Does something before the tracks are read.
    meanwhile: Option<Meanwhile>,
    /// Never answers a GET.
    hangs: bool,
}

impl Store {
    fn open(&mut self, package: &str) -> String {
        self.opened += 1;
        let edit = format!("{:020}", self.opened);
        self.open.insert(package.to_owned(), edit.clone());
        edit
    }

    fn answer(&mut self, method: &Method, path: &str) -> Response {
        self.asked.push(format!("{method} {path}"));
        let refusal = |status: u16, reason: &str| {
            let body =
                json!({ "error": { "code": status, "message": "", "errors": [{ "reason": reason }] } });
            (StatusCode::from_u16(status).unwrap(), axum::Json(body)).into_response()
        };
        if self.faults.last().is_some_and(|(of, _, _)| of == method) {
            let (_, status, reason) = self.faults.pop().unwrap();
            return refusal(status, reason);
        }
        let rest = path.strip_prefix("/androidpublisher/v3/applications/").unwrap();
        let segments: Vec<&str> = rest.split('/').collect();
        match (method.as_str(), &segments[..]) {
            ("POST", [package, "edits"]) => {
                let edit = self.open(package);
                axum::Json(json!({ "id": edit, "expiryTimeSeconds": "2000000000" })).into_response()
            }
            ("GET", [package, "edits", edit, "tracks"]) => {
                if let Some(meanwhile) = self.meanwhile.take() {
                    meanwhile(self);
                }
                match self.open.get(*package) {
                    Some(open) if open == edit => axum::Json(self.tracks.clone()).into_response(),
                    _ => refusal(400, "badRequest"),
                }
            }
            ("DELETE", [package, "edits", edit]) => match self.open.get(*package) {
                Some(open) if open == edit => {
                    self.open.remove(*package);
                    StatusCode::NO_CONTENT.into_response()
                }
                _ => refusal(404, "editDeleted"),
            },
            _ => panic!("{method} {path}"),
        }
    }
}

/// The record, for as long as a test.
#[derive(Default)]
struct Record {
    open: Mutex<Vec<(String, String)>>,
    fails: bool,
}

impl Record {
    fn is_empty(&self) -> bool {
        self.open.lock().unwrap().is_empty()
    }
}

impl EditLog for Record {
    fn opened<'a>(&'a self, package: &'a str, edit: &'a str) -> BoxFuture<'a, Result<(), EditLogError>> {
        Box::pin(async move {
            if self.fails {
                return Err(EditLogError("the disk is full".to_owned()));
            }
            self.open.lock().unwrap().push((package.to_owned(), edit.to_owned()));
            Ok(())
        })
    }

    fn closed<'a>(&'a self, package: &'a str, edit: &'a str) -> BoxFuture<'a, Result<(), EditLogError>> {
        Box::pin(async move {
            self.open.lock().unwrap().retain(|open| *open != (package.to_owned(), edit.to_owned()));
            Ok(())
        })
    }

    fn left_open<'a>(&'a self, package: &'a str) -> BoxFuture<'a, Result<Vec<String>, EditLogError>> {
        Box::pin(async move {
            let open = self.open.lock().unwrap();
            Ok(open.iter().filter(|open| open.0 == package).map(|open| open.1.clone()).collect())
        })
    }
}

/// A store, and an account that it knows.
struct World {
    store: Arc<Mutex<Store>>,
    base: String,
    hanging: watch::Receiver<bool>,
    account: String,
    email: String,
    _simulator: Simulator,
}

type Shared = (Arc<Mutex<Store>>, Arc<watch::Sender<bool>>);

async fn respond(State((store, hanging)): State<Shared>, request: Request) -> Response {
    let hangs = store.lock().unwrap().hangs && request.method() == Method::GET;
    if hangs {
        hanging.send_replace(true);
        return std::future::pending().await;
    }
    store.lock().unwrap().answer(request.method(), request.uri().path())
}

impl World {
    async fn new() -> Self {
        let scenario = Scenario {
            google_play: vec![PlayAccount {
                name: "acme".to_owned(),
                minute_limit: 3000,
                token_seconds: 3599,
                ..PlayAccount::default()
            }],
            ..Scenario::default()
        };
        let simulator = Simulator::start(scenario, Options::default()).await.unwrap();
        let account = simulator.google_service_account_json("acme").unwrap().to_string();
        let email: Value = serde_json::from_str(&account).unwrap();
        let tracks = json!({ "kind": "androidpublisher#tracksListResponse", "tracks": [
            { "track": "production", "releases": [
                { "name": "2.1", "versionCodes": ["211", "210"], "status": "inProgress", "userFraction": 0.05,
                  "inAppUpdatePriority": 3 },
                { "name": "2.0", "versionCodes": ["200"], "status": "completed" },
            ] },
            { "track": "wear:production" },
        ] });
        let store = Arc::new(Mutex::new(Store { tracks, ..Store::default() }));
        let (sender, hanging) = watch::channel(false);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let state: Shared = (Arc::clone(&store), Arc::new(sender));
        tokio::spawn(async move {
            axum::serve(listener, Router::new().fallback(respond).with_state(state)).await
        });
        let email = email["client_email"].as_str().unwrap().to_owned();
        Self { store, base, hanging, account, email, _simulator: simulator }
    }

    fn settings(&self) -> StoreSettings {
        StoreSettings {
            publisher_url: Some(self.base.clone()),
            reporting_url: Some(self.base.clone()),
            rollout_by_edits: true,
            dedicated_account: Some(self.email.clone()),
        }
    }

    fn client_with(&self, settings: &StoreSettings) -> Result<PlayClient, StoreError> {
        let options = FetchOptions { allow_insecure_hosts: true, ..FetchOptions::default() };
        google_play::client(&self.account, settings, options)
    }

    fn client(&self) -> PlayClient {
        self.client_with(&self.settings()).unwrap()
    }

    fn fault(&self, method: Method, status: u16, reason: &'static str) {
        self.store.lock().unwrap().faults.insert(0, (method, status, reason));
    }

    /// What was asked since the last time, without the part that all addresses share.
    fn asked(&self) -> Vec<String> {
        let asked = std::mem::take(&mut self.store.lock().unwrap().asked);
        asked.into_iter().map(|line| line.replace("/androidpublisher/v3/applications/", "")).collect()
    }

    fn open(&self) -> usize {
        self.store.lock().unwrap().open.len()
    }
}

async fn rollouts(client: &PlayClient, log: &dyn EditLog) -> (Look, Result<(), StoreError>) {
    let mut brought = Look::default();
    let poll = Poll::Rollouts(APP.to_owned());
    let result = look(client, &poll, EditsMode::On(log), &mut brought).await;
    (brought, result)
}

#[tokio::test]
async fn an_edit_is_opened_read_once_and_discarded() {
    let world = World::new().await;
    let log = Record::default();
    let (brought, result) = rollouts(&world.client(), &log).await;
    result.unwrap();
    let first = "00000000000000000001";
    assert_eq!(
        world.asked(),
        [
            format!("POST {APP}/edits"),
            format!("GET {APP}/edits/{first}/tracks"),
            format!("DELETE {APP}/edits/{first}"),
        ]
    );
    assert!(world.open() == 0 && log.is_empty());

    let said: Vec<_> = brought
        .observations
        .iter()
        .map(|o| (o.kind, o.key.as_str(), o.scope.as_str(), o.state.as_str()))
        .collect();
    assert_eq!(
        said,
        [
            (Kind::Rollout, "com.example/production/210+211", APP, "inProgress"),
            (Kind::Rollout, "com.example/production/200", APP, "completed"),
        ]
    );
    let facts: Vec<_> = brought
        .observations
        .iter()
        .map(|o| statusledger_verify::json::Value::Object(o.facts.clone()).canonical())
        .collect();
    assert_eq!(
        facts,
        [r#"{"in_app_update_priority":3,"user_fraction":"0.05"}"#, r#"{"in_app_update_priority":0}"#]
    );
    assert_eq!(brought.polls, ["releases:com.example/production", "releases:com.example/wear:production"]);
    let covered = brought.covered.iter().map(|covered| (covered.kind, covered.scope.as_deref()));
    assert_eq!(covered.collect::<Vec<_>>(), [(Kind::Rollout, Some(APP))]);
}

#[tokio::test]
async fn edits_are_off_unless_the_account_is_named() {
    let world = World::new().await;
    for (named, reads) in [
        (None, false),
        (Some(""), false),
        (Some("ci@acme.iam.gserviceaccount.com"), false),
        (Some(&*world.email), true),
    ] {
        let settings = StoreSettings { dedicated_account: named.map(str::to_owned), ..world.settings() };
        let client = world.client_with(&settings);
        assert_eq!(client.as_ref().is_ok_and(PlayClient::may_edit), reads, "{named:?}");
        assert!(reads || matches!(client, Err(StoreError::Credential { .. })), "{named:?}");
    }
    let off = world.client_with(&StoreSettings { rollout_by_edits: false, ..world.settings() }).unwrap();
    let log = Record::default();
    for mode in [EditsMode::On(&log), EditsMode::Off] {
        let poll = Poll::Rollouts(APP.to_owned());
        let refused = look(&off, &poll, mode, &mut Look::default()).await.unwrap_err();
        assert_eq!(refused, not_switched_on());
    }
    let refused =
        look(&world.client(), &Poll::Rollouts(APP.to_owned()), EditsMode::Off, &mut Look::default()).await;
    assert_eq!(refused.unwrap_err(), not_switched_on());
    assert_eq!(world.asked(), [""; 0]);
}

#[tokio::test]
async fn an_edit_that_a_crash_left_is_discarded() {
    let mut world = World::new().await;
    let log = Record::default();
    world.store.lock().unwrap().hangs = true;
    let client = world.client();
    tokio::select! {
        _ = rollouts(&client, &log) => panic!("the store does not answer"),
        hangs = world.hanging.wait_for(|hangs| *hangs) => drop(hangs.unwrap()),
    }
    drop(client);
    // Here the process died.
    assert!(world.open() == 1 && !log.is_empty());
    world.asked();

    world.store.lock().unwrap().hangs = false;
    let (brought, result) = rollouts(&world.client(), &log).await;
    result.unwrap();
    assert_eq!(brought.observations.len(), 2);
    let (first, second) = ("00000000000000000001", "00000000000000000002");
    assert_eq!(
        world.asked(),
        [
            format!("DELETE {APP}/edits/{first}"),
            format!("POST {APP}/edits"),
            format!("GET {APP}/edits/{second}/tracks"),
            format!("DELETE {APP}/edits/{second}"),
        ]
    );
    assert!(world.open() == 0 && log.is_empty());
}

#[tokio::test]
async fn an_edit_is_discarded_also_where_it_could_not_be_read() {
    let world = World::new().await;
    let log = Record::default();
    world.fault(Method::GET, 503, "backendError");
    let (brought, result) = rollouts(&world.client(), &log).await;
    assert_eq!(result.unwrap_err(), StoreError::Server { status: 503, retry_after: None });
    assert!(brought.observations.is_empty() && brought.covered.is_empty());
    assert!(world.open() == 0 && log.is_empty());
}

#[tokio::test]
async fn an_edit_that_could_not_be_discarded_is_kept_for_the_next_time() {
    let world = World::new().await;
    let (log, client) = (Record::default(), world.client());
    world.fault(Method::DELETE, 503, "backendError");
    let (brought, result) = rollouts(&client, &log).await;
    assert_eq!(result.unwrap_err(), StoreError::Server { status: 503, retry_after: None });
    // What was read is true all the same.
    assert_eq!(brought.observations.len(), 2);
    assert!(world.open() == 1 && !log.is_empty());
    rollouts(&client, &log).await.1.unwrap();
    assert!(world.open() == 0 && log.is_empty());
}

#[tokio::test]
async fn an_edit_that_cannot_be_recorded_is_not_used() {
    let world = World::new().await;
    let log = Record { fails: true, ..Record::default() };
    let (_, result) = rollouts(&world.client(), &log).await;
    assert!(matches!(result, Err(StoreError::Setup { .. })), "{result:?}");
    let asked = world.asked();
    assert_eq!((asked.len(), world.open()), (2, 0), "{asked:?}");
    assert!(asked[1].starts_with("DELETE "), "{asked:?}");
}

#[tokio::test]
async fn an_account_that_somebody_else_uses_gets_no_further_edit() {
    let world = World::new().await;
    let (log, client) = (Record::default(), world.client());
    world.store.lock().unwrap().meanwhile = Some(Box::new(|store| {
        store.open(APP);
    }));
    let (brought, result) = rollouts(&client, &log).await;
    assert_eq!(result.unwrap_err(), forbidden(TAKEN_OVER));
    assert!(brought.observations.is_empty() && log.is_empty());
    // The other's edit is left alone.
    assert_eq!(world.open(), 1);
    assert!(!world.asked().iter().any(|line| line.starts_with("DELETE ")));
    for _ in 0..2 {
        assert_eq!(rollouts(&client, &log).await.1.unwrap_err(), forbidden(TAKEN_OVER));
    }
    assert!(client.edit_was_taken_over());
    assert_eq!(world.asked(), [""; 0]);
}

#[tokio::test]
async fn another_node_of_ours_is_not_taken_for_somebody_else() {
    let world = World::new().await;
    let log = Arc::new(Record::default());
    let client = world.client();
    let other = Arc::clone(&log);
    world.store.lock().unwrap().meanwhile = Some(Box::new(move |store| {
        let edit = store.open(APP);
        other.open.lock().unwrap().push((APP.to_owned(), edit));
    }));
    let replaced = StoreError::Refused { status: 404, code: REPLACED.to_owned() };
    assert_eq!(rollouts(&client, &*log).await.1.unwrap_err(), replaced);
    assert!(!client.edit_was_taken_over());
    rollouts(&client, &*log).await.1.unwrap();
    assert!(world.open() == 0 && log.is_empty());
}

#[tokio::test]
async fn a_store_that_lies_once_about_an_edit_is_asked_again() {
    let world = World::new().await;
    let (log, client) = (Record::default(), world.client());
    world.fault(Method::GET, 404, "notFound");
    rollouts(&client, &log).await.1.unwrap();
    assert!(!client.edit_was_taken_over() && world.open() == 0 && log.is_empty());
}

#[tokio::test]
async fn an_app_that_is_gone_is_no_sign_of_somebody_else() {
    let world = World::new().await;
    let (log, client) = (Record::default(), world.client());
    world.fault(Method::POST, 404, "applicationNotFound");
    let gone = StoreError::NotFound { code: "applicationNotFound".to_owned() };
    assert_eq!(rollouts(&client, &log).await.1.unwrap_err(), gone);
    world.fault(Method::GET, 404, "applicationNotFound");
    assert_eq!(rollouts(&client, &log).await.1.unwrap_err(), gone);
    assert!(!client.edit_was_taken_over() && log.is_empty());
}

#[tokio::test]
async fn looks_at_once_do_not_end_each_others_edits() {
    let world = World::new().await;
    let (log, client) = (Record::default(), world.client());
    let looks = (0..5).map(|_| rollouts(&client, &log));
    for (brought, result) in futures_util::future::join_all(looks).await {
        result.unwrap();
        assert_eq!(brought.observations.len(), 2);
    }
    assert!(world.open() == 0 && log.is_empty());
}

#[tokio::test]
async fn a_leftover_is_gone_when_the_store_says_so_and_only_then() {
    let world = World::new().await;
    // Edits may have been switched off since.
    let settings = StoreSettings { rollout_by_edits: false, ..world.settings() };
    let client = world.client_with(&settings).unwrap();
    let edit = world.store.lock().unwrap().open(APP);
    world.fault(Method::DELETE, 500, "backendError");
    let failed = delete_leftover(&client, APP, &edit).await.unwrap_err();
    assert_eq!(failed, StoreError::Server { status: 500, retry_after: None });
    assert_eq!(world.open(), 1);
    for _ in 0..2 {
        delete_leftover(&client, APP, &edit).await.unwrap();
        assert_eq!(world.open(), 0);
    }
    world.asked();
    for (package, edit) in
        [(APP, ".."), (APP, ""), (APP, "1:commit"), (APP, "1/2"), ("..", "1"), ("a/b", "1")]
    {
        let refused = delete_leftover(&client, package, edit).await;
        assert!(matches!(refused, Err(StoreError::Malformed { .. })), "{package} {edit}");
    }
    assert_eq!(world.asked(), [""; 0]);
}

#[test]
fn whoever_switches_edits_on_is_told_what_breaks() {
    for word in ["CI", "uploads will fail", "dedicated_account", "never committed"] {
        assert!(WARNING.contains(word), "{word}");
    }
}
