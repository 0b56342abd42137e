//! Who stands before the door: connections and how many there may be, bodies that take their time, whose address it is,
//! other sites' pages; and that nobody finds it open before it is.

use crate::harness::{Person, TestDatabase, Workspace, World, eventually, quick, send, temporary};
use serde_json::{Value, json};
use statusledger::access::scope::Role;
use statusledger::config::Settings;
use statusledger::node::Node;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A connection that is written to by hand.
struct Wire(TcpStream);

impl Wire {
    async fn open(address: SocketAddr) -> Self {
        Self(TcpStream::connect(address).await.unwrap())
    }

    async fn say(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    /// What is answered up to a text, or up to the connection's end.
    async fn hear(&mut self, until: &str) -> String {
        let mut heard = Vec::new();
        let hear = async {
            let mut byte = [0];
            while until.is_empty() || !heard.ends_with(until.as_bytes()) {
                // A connection that is hung up on with something unread is reset.
                match self.0.read(&mut byte).await {
                    Ok(1) => heard.push(byte[0]),
                    _ => break,
                }
            }
        };
        tokio::time::timeout(crate::harness::DEADLINE, hear).await.expect("nothing is answered");
        String::from_utf8(heard).unwrap()
    }

    /// Whether anything was answered by now.
    fn is_silent(&self) -> bool {
        self.0.try_read(&mut [0; 1]).is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock)
    }
}

/// The head of a POST whose body is only sent when it is asked for.
fn head(path: &str, credentials: &str, length: usize) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\n{credentials}\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
    )
}

async fn key(workspace: &Workspace, scopes: &[&str]) -> (String, String) {
    let body = json!({ "name": "at the door", "scopes": scopes });
    let made = workspace.api.post(&workspace.at("/keys"), body).await.expect(201).json();
    let text = |name: &str| made[name].as_str().unwrap().to_owned();
    (text("id"), text("token"))
}

fn in_session(person: &Person) -> String {
    format!("Cookie: {}\r\nX-CSRF-Token: {}", person.cookie, person.csrf)
}

#[tokio::test]
async fn whoever_is_sent_away_while_the_body_is_on_its_way_does_not_act() {
    let world = World::new().await;
    let workspace = world.workspace("dripping").await;
    let (path, address) = (workspace.at("/keys"), world.node().address);
    let body = json!({ "name": "late", "scopes": ["read"] }).to_string();
    let made = || async {
        let keys = world.api.get(&workspace.at("/keys")).await.expect(200).json();
        keys["items"].as_array().unwrap().iter().filter(|key| key["name"] == "late").count()
    };
    // The node asks for the body: it has looked at the head, and let it in so far.
    let begin = |credentials: String| {
        let (head, address) = (head(&path, &credentials, body.len()), address);
        async move {
            let mut wire = Wire::open(address).await;
            wire.say(&head).await;
            assert!(wire.hear("\r\n\r\n").await.starts_with("HTTP/1.1 100 "));
            wire
        }
    };
    let (id, token) = key(&workspace, &["admin"]).await;
    let credentials = format!("Authorization: Bearer {token}");
    let mut holds = begin(credentials.clone()).await;
    holds.say(&body).await;
    assert!(holds.hear("").await.starts_with("HTTP/1.1 201 "));
    assert_eq!(made().await, 1);

    let mut revoked = begin(credentials).await;
    world.api.delete(&workspace.at(&format!("/keys/{id}"))).await.expect(204);
    revoked.say(&body).await;
    assert!(revoked.hear("").await.starts_with("HTTP/1.1 401 "));

    let owner = world.person("owner@example.com", &[(workspace.id, Role::Owner)]).await;
    let other = world.person("other@example.com", &[(workspace.id, Role::Owner)]).await;
    for (whom, change, status) in [
        (&owner, Some(json!({ "role": "viewer" })), 403),
        (&owner, None, 404),
        (&other, Some(json!({ "role": "admin" })), 201),
    ] {
        let mut wire = begin(in_session(whom)).await;
        let member = workspace.at(&format!("/members/{}", whom.id));
        // A last owner stays; here is always one more, or nobody is demoted.
        match change {
            Some(role) if status == 201 => drop(world.api.patch(&member, role).await.problem(409)),
            Some(role) => drop(world.api.patch(&member, role).await.expect(204)),
            None => drop(world.api.delete(&member).await.expect(200)),
        }
        wire.say(&body).await;
        let answer = wire.hear("").await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
    assert_eq!(made().await, 2);
    world.assert_whole(&[&workspace]).await;
}

#[tokio::test]
async fn of_whom_is_refused_without_the_database_no_body_is_asked_for() {
    let world = World::new().await;
    let workspace = world.workspace("unread").await;
    let viewer = world.person("viewer@example.com", &[(workspace.id, Role::Viewer)]).await;
    let (_, read) = key(&workspace, &["read"]).await;
    for (credentials, status) in [
        (format!("Authorization: Bearer {read}"), 403),
        ("Authorization: Bearer sl_admin_0_wrong".to_owned(), 401),
        ("X-Nobody: at all".to_owned(), 401),
        (format!("Cookie: {}", viewer.cookie), 403),
        (format!("Cookie: {}x", viewer.cookie), 401),
    ] {
        let mut wire = Wire::open(world.node().address).await;
        wire.say(&head(&workspace.at("/keys"), &credentials, 1000)).await;
        let answer = wire.hear("\r\n").await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
    // Nor of whoever would repeat it; one that holds no more among them.
    let (id, revoked) = key(&workspace, &["admin"]).await;
    world.api.delete(&workspace.at(&format!("/keys/{id}"))).await.expect(204);
    for (token, status) in [(&read, 403), (&revoked, 401)] {
        let credentials = format!("Authorization: Bearer {token}\r\nIdempotency-Key: once");
        let mut wire = Wire::open(world.node().address).await;
        wire.say(&head(&workspace.at("/keys"), &credentials, 1000)).await;
        let answer = wire.hear("\r\n").await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
}

#[tokio::test]
async fn whoever_waits_for_entries_hears_nothing_that_came_after_they_were_sent_away() {
    let world = World::new().await;
    let workspace = world.workspace("waiting").await;
    let (id, token) = key(&workspace, &["ledger:read"]).await;
    let person = world.person_of("reader", workspace.id, Role::Viewer).await;
    let size = workspace.entries().await.len();
    let wait = || world.api.bare("GET", &workspace.at(&format!("/entries?from={size}&wait=30")));
    let by_key = tokio::spawn(send(wait().bearer_auth(token)));
    let in_session = tokio::spawn(send(wait().header("cookie", &person.cookie)));
    // The door has let them in: it says so of the key, and saw the session.
    eventually("both are let in", || async {
        let key = world.api.get(&workspace.at(&format!("/keys/{id}"))).await.expect(200).json();
        (key["last_used_at"].is_string()).then_some(())
    })
    .await;
    world.api.delete(&workspace.at(&format!("/members/{}", person.id))).await.expect(200);
    assert_eq!(in_session.await.unwrap().problem(404), "not-found");
    world.api.delete(&workspace.at(&format!("/keys/{id}"))).await.expect(204);
    let answer = by_key.await.unwrap();
    // The first of the two entries may have found it still let in.
    if answer.status == 200 {
        let entries = answer.json()["items"].as_array().unwrap().clone();
        assert!(entries.iter().all(|entry| entry["type"] != "audit.key.revoked"), "{entries:?}");
    } else {
        assert_eq!(answer.problem(401), "unauthorized");
    }
}

#[tokio::test]
async fn a_head_leaves_no_entry_of_what_it_does_not_show() {
    let world = World::new().await;
    let workspace = world.workspace("head").await;
    let seq = workspace.inbound("events").await.event("sealed").await;
    let before = workspace.entries().await.len();
    let routes = [format!("/entries/{seq}/openings"), "/export".into(), "/audit/export?format=csv".into()];
    for rest in routes {
        assert_eq!(send(world.api.request("HEAD", &workspace.at(&rest))).await.status, 405, "{rest}");
    }
    assert_eq!(send(world.api.request("HEAD", &workspace.at("/entries"))).await.status, 200);
    assert_eq!(workspace.entries().await.len(), before);
}

#[tokio::test]
async fn without_an_address_of_its_own_an_instance_takes_changes_from_pages_of_the_host_that_was_asked() {
    let world = World::new().await;
    let workspace = world.workspace("no address").await;
    let person = world.person_of("owner", workspace.id, Role::Owner).await;
    let host = world.api.base.trim_start_matches("http://").to_owned();
    let make = async |origin: Option<&str>| {
        let mut request = world.api.bare("POST", &workspace.at("/keys")).header("cookie", &person.cookie);
        request = request.header("x-csrf-token", &person.csrf);
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        send(request.json(&json!({ "name": "k", "scopes": ["read"] }))).await
    };
    for origin in ["http://evil.example", "null", "", &format!("http://{host}.evil.example"), &host] {
        assert_eq!(make(Some(origin)).await.problem(403), "csrf", "{origin}");
    }
    for origin in [None, Some(format!("http://{host}")), Some(format!("https://{host}"))] {
        make(origin.as_deref()).await.expect(201);
    }
}

#[tokio::test]
async fn a_body_is_bounded_before_the_database_is_asked() {
    let world = World::new().await;
    let workspace = world.workspace("bounded").await;
    let (_, token) = key(&workspace, &["admin"]).await;
    let credentials = format!("Authorization: Bearer {token}");
    let mut wire = Wire::open(world.node().address).await;
    wire.say(&head(&workspace.at("/keys"), &credentials, (1 << 20) + 1)).await;
    assert!(wire.hear("\r\n").await.starts_with("HTTP/1.1 413 "));
    // Without a length it is cut off where it is too long.
    let mut wire = Wire::open(world.node().address).await;
    wire.say(&format!(
        "POST {} HTTP/1.1\r\nHost: localhost\r\n{credentials}\r\nContent-Type: application/json\r\n\
         Transfer-Encoding: chunked\r\n\r\n100001\r\n",
        workspace.at("/keys")
    ))
    .await;
    let long = format!("{}\r\n0\r\n\r\n", "x".repeat((1 << 20) + 1));
    // The node may have hung up before it is all sent.
    let _ = wire.0.write_all(long.as_bytes()).await;
    assert!(wire.hear("\r\n").await.starts_with("HTTP/1.1 413 "));
    // What comes in pieces is what it would be whole.
    let body = json!({ "name": "in pieces", "scopes": ["read"] }).to_string();
    let mut wire = Wire::open(world.node().address).await;
    wire.say(&head(&workspace.at("/keys"), &credentials, body.len())).await;
    wire.hear("\r\n\r\n").await;
    for piece in body.as_bytes().chunks(7) {
        wire.say(std::str::from_utf8(piece).unwrap()).await;
    }
    assert!(wire.hear("").await.starts_with("HTTP/1.1 201 "));
}

#[tokio::test]
async fn behind_a_proxy_nobody_chooses_the_address_that_is_recorded_or_limited() {
    let world = World::with(|settings| {
        settings.trusted_proxies = vec!["127.0.0.0/8".into(), "::1/128".into()];
        settings.access.sign_in_requests_per_minute = 5;
    })
    .await;
    let workspace = world.workspace("proxied").await;
    let post = |forwarded: &str| {
        let request = world.api.request("POST", &workspace.at("/keys")).header("x-forwarded-for", forwarded);
        send(request.json(&json!({ "name": "k", "scopes": ["read"] })))
    };
    for forwarded in [
        "6.6.6.6, x, 198.51.100.7",
        "6.6.6.6, , 198.51.100.7",
        "garbage, 198.51.100.7",
        "198.51.100.7:4711",
        "6.6.6.6, 198.51.100.7:4711",
    ] {
        post(forwarded).await.expect(201);
        let path = workspace.at("/audit/export?format=jsonl&openings=true&action=key.created");
        let audit = world.api.get(&path).await.expect(200);
        let last = audit.text().lines().last().unwrap();
        assert!(last.contains("198.51.100.7") && !last.contains("6.6.6.6"), "{forwarded}: {last}");
        assert!(!last.contains("127.0.0.1"), "{forwarded}: {last}");
    }
    let mut refused = 0;
    for n in 0..20 {
        let request = world.api.bare("POST", "/sign-in/passkey/challenge").json(&json!({}));
        let answer = send(request.header("x-forwarded-for", format!("1.2.3.{n}, x, 198.51.100.7"))).await;
        refused += usize::from(answer.status == 429);
    }
    assert!(refused >= 14, "{refused} of 20, where 5 a minute are allowed");
}

#[tokio::test]
async fn another_sites_page_takes_nothing_away_in_somebodys_name() {
    let world = World::new().await;
    let workspace = world.workspace("exported").await;
    let auditor = world.person("auditor@example.com", &[(workspace.id, Role::Auditor)]).await;
    let from = |site: Option<&str>, rest: &str| {
        let request = world.api.bare("GET", &workspace.at(rest)).header("cookie", &auditor.cookie);
        send(match site {
            Some(site) => request.header("sec-fetch-site", site),
            None => request,
        })
    };
    let exported = || async { workspace.entries_of("audit.ledger.exported").await.len() };
    for rest in ["/export?openings=true", "/audit/export?format=csv"] {
        let before = exported().await;
        for site in ["cross-site", "same-site", "nonsense"] {
            assert_eq!(from(Some(site), rest).await.problem(403), "csrf", "{rest} {site}");
        }
        assert_eq!(exported().await, before, "nothing is taken, and nothing said of it");
        for site in [None, Some("same-origin"), Some("none")] {
            from(site, rest).await.expect(200);
        }
        assert_eq!(exported().await, before + 3);
    }
    // What leaves no trace can be looked at from anywhere: another site's page does not see it.
    from(Some("cross-site"), "/entries").await.expect(200);
    // A key is no cookie: nobody else's page sends it.
    let (_, token) = key(&workspace, &["admin"]).await;
    let request = world.api.bare("GET", &workspace.at("/export")).bearer_auth(token);
    send(request.header("sec-fetch-site", "cross-site")).await.expect(200);
}

#[tokio::test]
async fn whoever_says_nothing_or_half_of_it_is_hung_up_on() {
    let world = World::with(|settings| settings.http.head_timeout_s = 0.5).await;
    let address = world.node().address;
    let said = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: ";
    for beginning in ["", "G", said, &format!("{said}x\r\n\r\n{said}")] {
        let mut wire = Wire::open(address).await;
        wire.say(beginning).await;
        let heard = wire.hear("").await;
        assert_eq!(heard.matches("HTTP/1.1 200 ").count(), usize::from(beginning.len() > 100), "{heard}");
    }
    // An answer has its own time: whoever waits for news since before somebody else began, who is hung up on, waits on.
    let workspace = world.workspace("slow").await;
    let source = workspace.inbound("events").await;
    let path =
        workspace.at(&format!("/entries?from={}&wait=30&type=event.*", workspace.entries().await.len()));
    let mut waiting = Wire::open(address).await;
    waiting
        .say(&format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\r\n",
            world.api.token
        ))
        .await;
    for _ in 0..2 {
        let mut wire = Wire::open(address).await;
        wire.say(said).await;
        assert_eq!(wire.hear("").await, "");
    }
    assert!(waiting.is_silent(), "it waits still");
    let seq = source.event("news").await;
    let news = waiting.hear("").await;
    assert!(news.starts_with("HTTP/1.1 200 ") && news.contains(&format!("\"seq\":{seq},")), "{news}");
}

#[tokio::test]
async fn connections_are_bounded_and_the_next_waits_for_its_turn() {
    const BOUND: u32 = 3;
    let world = World::with(|settings| {
        settings.http.connections = BOUND;
        settings.http.head_timeout_s = 600.0;
    })
    .await;
    let address = world.node().address;
    let ask = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut taken = Vec::new();
    for _ in 0..BOUND {
        let mut wire = Wire::open(address).await;
        wire.say(ask).await;
        assert!(wire.hear("ok\n").await.starts_with("HTTP/1.1 200 "));
        taken.push(wire);
    }
    let mut next = Wire::open(address).await;
    next.say(ask).await;
    for wire in &mut taken {
        for _ in 0..20 {
            wire.say(ask).await;
            wire.hear("ok\n").await;
        }
        assert!(next.is_silent(), "it has to wait");
    }
    drop(taken.pop());
    assert!(next.hear("ok\n").await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_node_that_stops_answers_what_it_has_begun_and_waits_for_nobody_else() {
    let mut world = World::with(|settings| settings.http.head_timeout_s = 3.0).await;
    let workspace = world.workspace("stopping").await;
    let address = world.node().address;
    let (_, token) = key(&workspace, &["admin"]).await;
    let body = json!({ "name": "begun", "scopes": ["read"] }).to_string();
    let mut begun = Wire::open(address).await;
    let head = head(&workspace.at("/keys"), &format!("Authorization: Bearer {token}"), body.len());
    begun.say(&head.replace("Connection: close\r\n", "")).await;
    begun.hear("\r\n\r\n").await;
    let (id, reader) = key(&workspace, &["ledger:read"]).await;
    let path = workspace.at(&format!("/entries?from={}&wait=30", workspace.entries().await.len()));
    let mut waiting = Wire::open(address).await;
    waiting
        .say(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {reader}\r\n\r\n"))
        .await;
    eventually("the request that waits is past the door", || async {
        let key = world.api.get(&workspace.at(&format!("/keys/{id}"))).await.expect(200).json();
        key["last_used_at"].is_string().then_some(())
    })
    .await;
    let mut idle = Wire::open(address).await;
    idle.say("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    idle.hear("ok\n").await;
    let mut half = Wire::open(address).await;
    half.say("GET /healthz HTTP/1.1\r\n").await;
    let silent = Wire::open(address).await;
    // A like question at a node that does not stop, asked last: it is answered when its time is over.
    let (other, _) = world.another().await;
    let mut patient = Wire::open(other.address).await;
    patient
        .say(&format!(
            "GET {path}&type=event.* HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {reader}\r\n\r\n"
        ))
        .await;
    let finish = async {
        // The idle one is hung up on: the node stops.
        assert_eq!(idle.hear("").await, "");
        begun.say(&body).await;
        begun.hear("").await
    };
    let (answer, ()) = tokio::join!(finish, world.stop());
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    assert!(answer.to_lowercase().contains("connection: close"), "{answer}");
    let waited = waiting.hear("").await;
    assert!(waited.starts_with("HTTP/1.1 200 ") && waited.contains("\"items\":[]"), "{waited}");
    assert!(patient.is_silent(), "nobody's time was waited for");
    drop((silent, half, patient));
    other.stop().await;
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn what_has_to_be_there_at_first_is_there_before_anybody_is_served() {
    let database = TestDatabase::create().await;
    let mut settings: Settings = quick(&temporary("first"));
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    settings.port = free.local_addr().unwrap().port();
    drop(free);
    let address = SocketAddr::from(([127, 0, 0, 1], settings.port));
    let file = temporary("first").join("token");
    let open = database.open().await;
    let started = Node::start_with(&settings, Some("first.example.com"), open, async |writer, gate| {
        assert!(TcpStream::connect(address).await.is_err(), "nobody is served yet");
        statusledger::cli::serve::ensure_token(writer, gate, &file).await
    })
    .await;
    let (node, made) = started.unwrap();
    assert!(made && node.address == address);
    let api = crate::harness::Api::new(address, std::fs::read_to_string(&file).unwrap().trim());
    api.get("/readyz").await.expect(200);
    api.get("/v1/workspaces").await.expect(200);
    node.stop().await;
    // Where the file cannot be written nobody is ever served.
    let open = database.open().await;
    let nowhere = temporary("first").join("no directory").join("token");
    let refused = Node::start_with(&settings, Some("first.example.com"), open, async |writer, gate| {
        statusledger::cli::serve::ensure_token(writer, gate, &nowhere).await
    })
    .await;
    assert!(refused.is_err_and(|e| format!("{e:#}").contains("cannot write the bootstrap token")));
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn too_many_who_wait_for_news_are_sent_away_and_the_others_wait_on() {
    use statusledger::ledger::waiting::{OF_A_WORKSPACE, OF_ONE};
    let world = World::new().await;
    let (workspace, other) = (world.workspace("crowded").await, world.workspace("calm").await);
    let source = workspace.inbound("events").await;
    let mut keys = Vec::new();
    for _ in 0..=OF_A_WORKSPACE / OF_ONE {
        keys.push(key(&workspace, &["ledger:read"]).await.1);
    }
    let size = workspace.entries().await.len();
    // For events: who is sent away is an entry, too.
    let path = workspace.at(&format!("/entries?from={size}&wait=30&type=event.*"));
    // Whoever has waited for nothing waits again, as a client does, until there is news.
    let mut waiting = tokio::task::JoinSet::new();
    for key in &keys[..keys.len() - 1] {
        for _ in 0..OF_ONE {
            let (api, path, key) = (world.api.clone(), path.clone(), key.clone());
            waiting.spawn(async move {
                loop {
                    let answer = send(api.bare("GET", &path).bearer_auth(&key)).await;
                    match answer.status {
                        200 if answer.json()["items"].as_array().is_some_and(|e| !e.is_empty()) => {
                            return answer.json();
                        }
                        200 | 429 | 503 => tokio::time::sleep(std::time::Duration::from_millis(500)).await,
                        other => panic!("{other}"),
                    }
                }
            });
        }
    }
    let asked = |key: &str, wait: u8| {
        let path = workspace.at(&format!("/entries?from={size}&wait={wait}&type=event.*"));
        send(world.api.bare("GET", &path).bearer_auth(key))
    };
    // Who looks has waited in the place of one of them, which asks again only after half a second.
    let make_room = |has_waited: bool| async move {
        if has_waited {
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
    };
    let crowded = eventually("all of the first wait", || async {
        let answer = asked(&keys[0], 1).await;
        let crowded = (answer.status == 429).then_some(answer);
        make_room(crowded.is_none()).await;
        crowded
    })
    .await;
    assert_eq!(crowded.problem(429), "too-many-requests");
    assert_eq!(crowded.headers["retry-after"], "5");
    let full = eventually("all of the workspace wait", || async {
        let answer = asked(keys.last().unwrap(), 1).await;
        let full = (answer.status == 503).then_some(answer);
        make_room(full.is_none()).await;
        full
    })
    .await;
    assert_eq!(full.problem(503), "unavailable");
    assert_eq!(full.headers["retry-after"], "5");
    // Who does not wait is answered, and another workspace has room.
    asked(&keys[0], 0).await.expect(200);
    let elsewhere = other.entries().await.len();
    world.api.get(&other.at(&format!("/entries?from={elsewhere}&wait=1"))).await.expect(200);
    // All hear the news, and then there is room again.
    let seq = source.event("news").await;
    while let Some(heard) = waiting.join_next().await {
        assert_eq!(heard.unwrap()["items"][0]["seq"], seq);
    }
    let again = workspace.at(&format!("/entries?from={}&wait=1", seq + 1));
    eventually("there is room again", || async {
        let answer = send(world.api.bare("GET", &again).bearer_auth(&keys[0])).await;
        (answer.status == 200).then_some(())
    })
    .await;
    let denied = eventually("the crowd is on the record", || async {
        let entries = workspace.entries_of("audit.access.denied").await;
        entries.into_iter().find(|entry| entry["data"]["reason"] == "rate_limited")
    })
    .await;
    let route: &Value = &denied["data"]["details"]["route"];
    assert_eq!(route, "GET /v1/workspaces/{workspace}/entries");
}
