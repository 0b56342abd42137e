//! App Store Connect's own webhooks, as the store sends them: taken once, from whoever has the secret and nobody else.

use crate::harness::{Answer, eventually, send};
use crate::truth::scene::{
    SECRET, Scene, acme, apple_request, on_demand, signature, stamp, step, text, version, version_event,
    with_version,
};
use serde_json::{Value, json};
use statusledger::source::inbound::MAX_PAYLOAD;
use statusledger_simulator::PingShape;
use std::time::{Duration, Instant};
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A scene whose app has a webhook of the store's at the scene's source.
async fn told(state: &str) -> Scene {
    let mut scenario = with_version(state);
    scenario["app_store"][0]["builds"] = json!([{ "id": "b1", "app": "1001", "platform": "IOS", "version": "1",
        "pre_release_version": "1.0.0", "processing_state": "VALID", "external_state": "READY_FOR_BETA_SUBMISSION" }]);
    scenario["app_store"][0]["build_uploads"] = json!([{ "id": "u1", "app": "1001", "platform": "IOS",
        "version": "2", "short_version": "1.0.0", "state": "AWAITING_UPLOAD" }]);
    let scene = Scene::of(scenario, on_demand).await;
    scene.apply(hook(&scene, SECRET));
    scene
}

fn hook(scene: &Scene, secret: &str) -> statusledger_simulator::Step {
    step(json!({ "do": "add_webhook", "id": "w1", "app": "1001", "secret": secret,
        "url": format!("{}{}", scene.api().base, scene.door()) }))
}

/// What the last delivery was answered.
fn answered(scene: &Scene) -> (u16, Value) {
    let (status, body) = scene.simulator.webhook_deliveries().last().unwrap().response.clone().unwrap();
    (status, serde_json::from_str(&body).unwrap_or(Value::String(body)))
}

fn now() -> String {
    stamp(OffsetDateTime::now_utc())
}

fn an_event(id: &str) -> String {
    version_event(id, "v1", "IN_REVIEW", "REJECTED", &now()).to_string()
}

#[tokio::test]
async fn every_state_that_the_store_tells_is_recorded_once_and_polls_add_nothing() {
    let scene = told("WAITING_FOR_REVIEW").await;
    scene.apply(version("v1", "IN_REVIEW"));
    scene
        .apply(step(json!({ "do": "build_state", "id": "b1", "external_state": "WAITING_FOR_BETA_REVIEW" })));
    scene.apply(step(json!({ "do": "upload_state", "id": "u1", "state": "PROCESSING" })));
    scene.simulator.webhooks_settled().await;
    assert_eq!(answered(&scene).0, 200);
    scene
        .says(&[
            "version.transitioned v1 WAITING_FOR_REVIEW>IN_REVIEW webhook",
            "beta_external.transitioned b1 READY_FOR_BETA_SUBMISSION>WAITING_FOR_BETA_REVIEW webhook",
            "build_upload.transitioned u1 AWAITING_UPLOAD>PROCESSING webhook",
        ])
        .await;
    for entry in scene.news().await {
        let data = &entry["data"];
        assert!(data["store_at"].is_string() && data["event_id"].is_string(), "{data}");
        assert_eq!(
            (&data["app"], &data["subject"]["name"]),
            (&json!("com.acme.weather"), &json!("Acme Weather"))
        );
    }
}

#[tokio::test]
async fn whoever_has_not_the_secret_is_refused_whatever_is_wrong() {
    let scene = told("IN_REVIEW").await;
    let body = an_event("e1");
    let good = signature(SECRET, body.as_bytes());
    let of_another = signature("another secret", body.as_bytes());
    let of_other_body = signature(SECRET, b"{}");
    let upper = good.to_uppercase();
    let bare = good.trim_start_matches("hmacsha256=");
    let inbound = scene.workspace.inbound("inbound").await;
    let unset = {
        let mut request = apple_request(&scene.simulator);
        request["name"] = "without".into();
        request.as_object_mut().unwrap().remove("webhook_secret");
        let made = scene.api().post(&scene.workspace.at("/sources"), request).await.expect(201).json();
        text(&made, "id").to_owned()
    };
    let at = |source: &str| {
        let request = scene.api().bare("POST", &format!("/in/{source}/app-store-connect"));
        send(request.header("x-apple-signature", &good).body(body.clone()))
    };
    let unknown = scene.apple.replace(&scene.apple[scene.apple.len() - 4..], "0000");
    let refused: Vec<Answer> = vec![
        scene.knock(body.as_bytes(), &[]).await,
        scene.knock(body.as_bytes(), &[&of_another]).await,
        scene.knock(body.as_bytes(), &[&of_other_body]).await,
        scene.knock(body.as_bytes(), &[&upper]).await,
        scene.knock(body.as_bytes(), &[bare]).await,
        scene.knock(body.as_bytes(), &[&good, &good]).await,
        scene.knock(body.as_bytes(), &[&of_another, &good]).await,
        scene.knock(b"not an event".to_vec(), &[&good]).await,
        at(&unknown).await,
        at("src_nonsense").await,
        at(&inbound.id.to_string()).await,
        at(&unset).await,
    ];
    let problem = |answer: &Answer| {
        assert_eq!(answer.problem(401), "unauthorized");
        let mut problem = answer.json();
        // What names the one request.
        problem.as_object_mut().unwrap().remove("instance");
        problem
    };
    for answer in &refused {
        assert_eq!(problem(answer), problem(&refused[0]), "which it is is not said");
    }
    assert_eq!(scene.lines().await, Vec::<String>::new());
    assert_eq!(scene.state_of("version", "v1").await, "IN_REVIEW");
    // The same body with its signature is taken.
    assert_eq!(scene.knock(body.as_bytes(), &[&good]).await.expect(200).json()["outcome"], "recorded");
}

#[tokio::test]
async fn what_is_too_large_and_what_is_no_event_is_refused_and_not_recorded() {
    let scene = told("IN_REVIEW").await;
    let signed = async |body: Vec<u8>| {
        let signature = signature(SECRET, &body);
        scene.knock(body, &[&signature]).await
    };
    // Nobody can tell whether what was not read was signed.
    assert_eq!(signed(vec![b' '; MAX_PAYLOAD + 1]).await.problem(401), "unauthorized");
    let mut instanceless = version_event("e1", "v1", "A", "B", &now());
    instanceless["data"]["relationships"] = json!({});
    let mut stateless = version_event("e1", "v1", "A", "B", &now());
    stateless["data"]["attributes"] = json!({});
    for body in [
        b"".to_vec(),
        b"{".to_vec(),
        b"[]".to_vec(),
        b"{}".to_vec(),
        b"\xff".to_vec(),
        json!({ "data": { "type": "appStoreVersionAppVersionStateUpdated" } }).to_string().into_bytes(),
        instanceless.to_string().into_bytes(),
        stateless.to_string().into_bytes(),
    ] {
        assert_eq!(signed(body.clone()).await.problem(422), "invalid", "{}", String::from_utf8_lossy(&body));
    }
    // A body of the very size that may be is looked into.
    let mut full = an_event("e2").into_bytes();
    full.resize(MAX_PAYLOAD, b' ');
    signed(full).await.expect(200);
    scene.told(&["version.transitioned v1 IN_REVIEW>REJECTED webhook"]).await;
}

#[tokio::test]
async fn a_ping_is_answered_and_no_entry() {
    let scene = told("IN_REVIEW").await;
    for shape in [PingShape::Timestamp, PingShape::Minimal, PingShape::Resource] {
        scene.simulator.ping_webhook("w1", shape).unwrap();
        scene.simulator.webhooks_settled().await;
        assert_eq!(answered(&scene), (200, json!({ "outcome": "ping" })), "{shape:?}");
    }
    assert_eq!(scene.lines().await, Vec::<String>::new());
}

#[tokio::test]
async fn what_is_told_beside_the_states_is_a_notice() {
    let scene = told("IN_REVIEW").await;
    let event = |id: &str, kind: &str| {
        json!({ "data": { "type": kind, "id": id, "version": 1, "attributes": { "timestamp": now() },
            "relationships": { "instance": { "data": { "type": "betaFeedbackScreenshotSubmissions", "id": "f1" } } } } })
    };
    assert_eq!(scene.event(&event("n1", "betaFeedbackScreenshotSubmissionCreated")).await, "recorded");
    assert_eq!(scene.event(&event("n1", "betaFeedbackScreenshotSubmissionCreated")).await, "known");
    assert_eq!(scene.event(&event("n2", "somethingThatNobodyHasHeardOf")).await, "recorded");
    let news = scene.news().await;
    assert_eq!(news.len(), 2);
    for (entry, (id, kind)) in news
        .iter()
        .zip([("n1", "betaFeedbackScreenshotSubmissionCreated"), ("n2", "somethingThatNobodyHasHeardOf")])
    {
        let data = &entry["data"];
        assert_eq!(entry["type"], "store.notice.received");
        assert_eq!((text(data, "event_id"), text(data, "event_type"), text(data, "about")), (id, kind, "f1"));
        assert_eq!((text(data, "source"), text(data, "via")), (scene.apple.as_str(), "webhook"));
    }
    scene.assert_sound().await;
}

#[tokio::test]
async fn a_delivery_that_comes_again_is_known() {
    let scene = told("IN_REVIEW").await;
    scene.apply(version("v1", "REJECTED"));
    scene.simulator.webhooks_settled().await;
    let (status, first) = answered(&scene);
    assert_eq!((status, &first["outcome"]), (200, &json!("recorded")));
    let entry = scene.api().get(&scene.workspace.at(&format!("/entries/{}", first["seq"]))).await.expect(200);
    assert_eq!(entry.json()["type"], "store.version.transitioned");
    let delivery = scene.simulator.webhook_deliveries().last().unwrap().id.clone();
    for _ in 0..3 {
        scene.simulator.redeliver_webhook(&delivery).unwrap();
        scene.simulator.webhooks_settled().await;
        assert_eq!(answered(&scene).1["outcome"], "known");
    }
    // Many at once are one, too.
    let body = an_event("e9");
    let signed = signature(SECRET, body.as_bytes());
    let signatures = [signed.as_str()];
    let answers =
        futures_util::future::join_all((0..8).map(|_| scene.knock(body.clone(), &signatures))).await;
    let outcomes: Vec<_> = answers.iter().map(|a| text(&a.json(), "outcome").to_owned()).collect();
    assert_eq!(outcomes.iter().filter(|o| *o == "recorded").count(), 1, "{outcomes:?}");
    assert_eq!(scene.lines().await.len(), 2);
    scene.world.assert_whole(&[&scene.workspace]).await;
}

#[tokio::test]
async fn a_secret_is_changed_at_once_and_stands_nowhere_in_clear() {
    const NEW: &str = "quite another secret of both";
    let scene = told("IN_REVIEW").await;
    let path = scene.workspace.at(&format!("/sources/{}/webhook-secret", scene.apple));
    let put = |secret: Value| send(scene.api().request("PUT", &path).json(&json!({ "secret": secret })));
    let with = async |secret: &str, id: &str| {
        let body = an_event(id);
        scene.knock(body.as_bytes(), &[&signature(secret, body.as_bytes())]).await.status
    };
    assert_eq!(with(SECRET, "e1").await, 200);
    put(NEW.into()).await.expect(204);
    assert_eq!((with(SECRET, "e2").await, with(NEW, "e3").await), (401, 200));
    put(Value::Null).await.expect(204);
    assert_eq!((with(NEW, "e4").await, with("", "e5").await), (401, 401));
    assert_eq!(put("short".into()).await.problem(422), "invalid");
    // To say nothing is not to say that there is none.
    for nothing in [json!({}), json!({ "secrets": null })] {
        let answer = send(scene.api().request("PUT", &path).json(&nothing)).await;
        assert_eq!(answer.problem(422), "invalid");
    }
    let changed = scene.workspace.entries_of("source.changed").await;
    let said: Vec<&str> = changed.iter().map(|e| text(&e["data"], "webhook_secret")).collect();
    assert_eq!(said, ["set", "removed"]);
    put(NEW.into()).await.expect(204);
    // No answer shows it, and no table has it, nor as bytes.
    let shown = scene.source(&scene.apple).await.to_string();
    let entries = Value::Array(scene.workspace.entries().await).to_string();
    for secret in [SECRET, NEW] {
        assert!(!shown.contains(secret) && !entries.contains(secret));
        let mut superuser = scene.world.database.superuser().await;
        let tables: Vec<String> =
            sqlx::query_scalar("SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'")
                .fetch_all(&mut superuser)
                .await
                .unwrap();
        assert!(tables.len() > 15);
        let hex: String = secret.bytes().map(|b| format!("{b:02x}")).collect();
        for table in tables {
            let query = format!(
                "SELECT count(*) FROM \"{table}\" t WHERE strpos(t::text, $1) > 0 OR strpos(t::text, $2) > 0"
            );
            let found: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(query))
                .bind(secret)
                .bind(&hex)
                .fetch_one(&mut superuser)
                .await
                .unwrap();
            assert_eq!(found, 0, "{table}");
        }
    }
    // A source that goes takes its secret along.
    scene.api().delete(&scene.workspace.at(&format!("/sources/{}", scene.apple))).await.expect(204);
    assert_eq!(with(NEW, "e6").await, 401);
}

#[tokio::test]
async fn what_was_withheld_is_found_in_the_stores_list_also_where_polls_missed_it() {
    let scene = told("WAITING_FOR_REVIEW").await;
    scene.simulator.withhold_webhooks(true);
    scene.apply(version("v1", "IN_REVIEW"));
    scene.apply(version("v1", "WAITING_FOR_REVIEW"));
    scene.simulator.webhooks_settled().await;
    assert_eq!(scene.lines().await, Vec::<String>::new(), "nothing was told");
    scene.look().await;
    // Polls see the state that they knew: both steps are known from the list alone.
    scene
        .says(&[
            "version.transitioned v1 WAITING_FOR_REVIEW>IN_REVIEW backfill",
            "version.transitioned v1 IN_REVIEW>WAITING_FOR_REVIEW backfill",
        ])
        .await;
    // Delivered after all, they are known.
    scene.simulator.withhold_webhooks(false);
    for delivery in scene.simulator.webhook_deliveries() {
        scene.simulator.redeliver_webhook(&delivery.id).unwrap();
    }
    scene.simulator.webhooks_settled().await;
    assert_eq!(answered(&scene).1["outcome"], "known");
    assert_eq!(scene.lines().await.len(), 2);
}

#[tokio::test]
async fn a_source_without_a_key_is_told_and_never_asked() {
    let mut team = acme();
    team["apps"] = json!([]);
    let scene = Scene::of(json!({ "app_store": [team] }), on_demand).await;
    let request = json!({ "kind": "app_store", "name": "told", "webhook_secret": SECRET,
        "base_url": scene.simulator.app_store_base_url() });
    let made = scene.api().post(&scene.workspace.at("/sources"), request).await.expect(201).json();
    let source = text(&made, "id").to_owned();
    assert_eq!(made["health"], "ok");
    let asked = scene.simulator.request_count();
    let path = format!("/in/{source}/app-store-connect");
    let post = async |event: Value| {
        let body = event.to_string();
        let signed = signature(SECRET, body.as_bytes());
        let request = scene.api().bare("POST", &path).header("x-apple-signature", signed).body(body);
        text(&send(request).await.expect(200).json(), "outcome").to_owned()
    };
    let [first, second] = [now(), now()];
    assert_eq!(post(version_event("e1", "v1", "IN_REVIEW", "REJECTED", &first)).await, "recorded");
    assert_eq!(post(version_event("e2", "v1", "REJECTED", "WAITING_FOR_REVIEW", &second)).await, "recorded");
    assert_eq!(
        scene.lines().await,
        [
            "version.transitioned v1 IN_REVIEW>REJECTED webhook",
            "version.transitioned v1 REJECTED>WAITING_FOR_REVIEW webhook",
        ]
    );
    let news = scene.news().await;
    assert!(news[0]["data"]["app"].is_null() && news[0]["data"]["last_seen_before_at"].is_null());
    // Asked to look, it has nobody to ask; the other source is asked meanwhile.
    scene.api().post(&scene.workspace.at(&format!("/sources/{source}/look")), json!({})).await.expect(202);
    scene.look().await;
    let of_the_other = ["/v1/apps", "/v1/users"];
    for request in scene.simulator.requests().iter().skip(usize::try_from(asked).unwrap()) {
        assert!(of_the_other.contains(&request.path.as_str()), "{}", request.path);
    }
    let polled = || async {
        let shown =
            scene.api().get(&scene.workspace.at(&format!("/sources/{source}"))).await.expect(200).json();
        shown["last_polled_at"].is_null().then_some(())
    };
    eventually("a source that was never polled", polled).await;
    // Without either there is no source.
    let neither = json!({ "kind": "app_store", "name": "neither" });
    assert_eq!(scene.api().post(&scene.workspace.at("/sources"), neither).await.problem(422), "invalid");
}

/// What the door answers to bytes as they are, as far as it has said anything within a second after them: whoever waits for
/// a body says nothing.
async fn raw(scene: &Scene, source: &str, headers: &str, body: &[u8]) -> String {
    let mut stream = at_the_door(scene, source, headers).await;
    stream.write_all(body).await.unwrap();
    first_line(&mut stream).await
}

async fn at_the_door(scene: &Scene, source: &str, headers: &str) -> TcpStream {
    let host = scene.api().base.trim_start_matches("http://").to_owned();
    let mut stream = TcpStream::connect(&host).await.unwrap();
    let head = format!("POST /in/{source}/app-store-connect HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

async fn first_line(stream: &mut TcpStream) -> String {
    let mut answer = vec![0; 1024];
    let read = tokio::time::timeout(Duration::from_secs(1), stream.read(&mut answer)).await;
    let read = read.map_or(0, Result::unwrap);
    String::from_utf8_lossy(&answer[..read]).lines().next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn the_door_does_not_tell_which_sources_there_are() {
    let scene = told("IN_REVIEW").await;
    let unknown = scene.apple.replace(&scene.apple[scene.apple.len() - 4..], "0000");
    let signed = format!("x-apple-signature: {}\r\n", signature("another secret", b"{}"));
    let chunked = format!("{signed}transfer-encoding: chunked\r\n");
    let large: Vec<u8> =
        std::iter::repeat_n([b"10000\r\n".to_vec(), vec![b'x'; 65_536], b"\r\n".to_vec()].concat(), 17)
            .flatten()
            .collect();
    for (headers, body, expected) in [
        (format!("{signed}expect: 100-continue\r\ncontent-length: 2\r\n"), &b""[..], "HTTP/1.1 100 Continue"),
        (format!("{signed}content-length: 2\r\n"), b"", ""),
        (format!("{signed}content-length: 2\r\n"), b"{}", "HTTP/1.1 401 Unauthorized"),
        (chunked.clone(), b"nonsense\r\n", "HTTP/1.1 401 Unauthorized"),
        (chunked.clone(), &large, "HTTP/1.1 401 Unauthorized"),
        (format!("{signed}content-length: 2000000\r\n"), b"", ""),
    ] {
        for source in [&scene.apple, &unknown] {
            assert_eq!(raw(&scene, source, &headers, body).await, expected, "{source} {headers}");
        }
    }
    // What it asks for is what opens it.
    let refused = scene.knock("{}", &[]).await;
    assert_eq!(refused.headers["www-authenticate"], "X-Apple-Signature");
    assert!(refused.text().contains("X-Apple-Signature") && !refused.text().contains("Bearer"));
}

#[tokio::test]
async fn a_time_that_cannot_be_said_or_have_been_dates_nothing_and_hides_nothing() {
    let scene = told("IN_REVIEW").await;
    let states = ["REJECTED", "WAITING_FOR_REVIEW", "IN_REVIEW", "REJECTED", "WAITING_FOR_REVIEW"];
    let times = ["9999-12-31T23:59:59-01:00", "0000-01-01T00:00:00+01:00", "1969-12-31T23:59:59Z", "now", ""];
    let mut from = "IN_REVIEW";
    let before = OffsetDateTime::now_utc();
    for (n, (to, at)) in states.into_iter().zip(times).enumerate() {
        assert_eq!(
            scene.event(&version_event(&format!("e{n}"), "v1", from, to, at)).await,
            "recorded",
            "{at}"
        );
        from = to;
    }
    let news = scene.news().await;
    assert_eq!(news.len(), 5);
    assert!(news.iter().all(|entry| entry["data"]["store_at"].is_null()), "{news:?}");
    let subject = scene.subjects().await.into_iter().find(|s| s["key"] == "v1").unwrap();
    assert!(crate::truth::scene::time(&subject, "state_since") > before, "{subject}");
}

#[tokio::test]
async fn a_body_that_comes_after_its_secret_was_changed_is_not_taken() {
    let scene = told("IN_REVIEW").await;
    let source = scene.workspace.at(&format!("/sources/{}", scene.apple));
    let body = an_event("e1");
    let (first, rest) = body.split_at(10);
    let headers = format!(
        "x-apple-signature: {}\r\ncontent-length: {}\r\n",
        signature(SECRET, body.as_bytes()),
        body.len()
    );
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut stream = at_the_door(&scene, &scene.apple, &headers).await;
        stream.write_all(first.as_bytes()).await.unwrap();
        // It waits for the rest: the secret was looked up.
        assert_eq!(first_line(&mut stream).await, "");
        open.push(stream);
    }
    let put = scene.api().request("PUT", &format!("{source}/webhook-secret"));
    send(put.json(&json!({ "secret": "quite another secret" }))).await.expect(204);
    let mut changed = open.pop().unwrap();
    changed.write_all(rest.as_bytes()).await.unwrap();
    assert_eq!(first_line(&mut changed).await, "HTTP/1.1 401 Unauthorized");
    scene.api().delete(&source).await.expect(204);
    let mut deleted = open.pop().unwrap();
    deleted.write_all(rest.as_bytes()).await.unwrap();
    assert_eq!(first_line(&mut deleted).await, "HTTP/1.1 401 Unauthorized");
    assert_eq!(scene.lines().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_secret_that_another_node_has_changed_counts_at_once() {
    let scene = told("IN_REVIEW").await;
    let (second, elsewhere) = scene.world.another().await;
    let body = an_event("e1");
    let of_old = signature(SECRET, body.as_bytes());
    // Known here; sealed anew there it is the same secret, and changed there another.
    assert_eq!(scene.knock("{}", &[&signature(SECRET, b"{}")]).await.problem(422), "invalid");
    let path = scene.workspace.at(&format!("/sources/{}/webhook-secret", scene.apple));
    let put = |secret: &str| send(elsewhere.request("PUT", &path).json(&json!({ "secret": secret })));
    put(SECRET).await.expect(204);
    assert_eq!(scene.knock(body.as_bytes(), &[&of_old]).await.expect(200).json()["outcome"], "recorded");
    put("quite another secret").await.expect(204);
    let body = an_event("e2");
    let of_old = signature(SECRET, body.as_bytes());
    assert_eq!(scene.knock(body.as_bytes(), &[&of_old]).await.problem(401), "unauthorized");
    // Nor is what leaves no entry taken under the one before.
    let ping = json!({ "data": { "type": "webhookPingCreated", "id": "p" } }).to_string();
    let pinged =
        async |secret: &str| scene.knock(ping.as_bytes(), &[&signature(secret, ping.as_bytes())]).await;
    pinged("quite another secret").await.expect(200);
    put("the third").await.expect(204);
    assert_eq!(pinged("quite another secret").await.problem(401), "unauthorized");
    // And what is signed with a new one is not turned away for as long as the old one was known.
    pinged("the third").await.expect(200);
    let learned = Instant::now();
    put("the fourth").await.expect(204);
    eventually("the new secret counts here", || async {
        let known_for = learned.elapsed();
        let taken = pinged("the fourth").await.status == 200;
        // However long it takes until one is sent: what was learned a second ago refuses nobody.
        assert!(taken || known_for < Duration::from_secs(1), "refused by what was known for {known_for:?}");
        taken.then_some(())
    })
    .await;
    second.stop().await;
}
