//! Keys: rotated, revoked, taken offline and destroyed while deliveries go on; and secrets, which nobody sees again.

use crate::harness::{Hook, Program, Receiver, Reply, Workspace, World, eventually, run, temporary};
use serde_json::{Value, json};
use statusledger::database::roles;
use statusledger::delivery::queue;
use statusledger_keys::key_id::KeyId;
use statusledger_keys::ring::{Change, Ring, RingError, RootFile, Rotation};
use statusledger_verify::manifest::{KeyManifest, compare};
use statusledger_verify::receipt;
use statusledger_verify::time::Timestamp;
use std::process::Command;

/// Changes the ring as the command does.
async fn change(world: &World, make: impl FnOnce(&Ring, Timestamp) -> Result<Change, RingError>) {
    let node = world.node();
    node.keyring
        .change(&node.writer, &statusledger::audit::Act::operator(), node.instance.workspace, |ring, now| {
            Ok((make(ring, now)?, ()))
        })
        .await
        .unwrap();
}

fn key_of(hook: &Hook) -> String {
    hook.value["receipt"]["key_id"].as_str().unwrap().to_owned()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The address of a database for a command line, with the node's own directory and its key.
fn place(world: &World) -> Vec<String> {
    let [service, worker] = [roles::SERVICE, roles::WORKER].map(|role| world.database.url(role));
    let data_dir = world.settings.data_dir.to_str().unwrap().to_owned();
    ["--data-dir", &data_dir, "--database-url", &service, "--worker-database-url", &worker]
        .map(str::to_owned)
        .to_vec()
}

/// Runs `statusledger keys …` beside the node.
async fn keys(world: &World, arguments: &[&str]) -> std::process::Output {
    let place = place(world);
    let mut all = vec!["keys"];
    all.extend(arguments);
    all.extend(place.iter().map(String::as_str));
    run(&temporary("keys"), &all, &[]).await
}

async fn keys_done(world: &World, arguments: &[&str]) -> String {
    let output = keys(world, arguments).await;
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn rotations_in_the_middle_of_deliveries_fail_no_verification() {
    let world = World::new().await;
    let workspace = world.workspace("rotating").await;
    let source = workspace.inbound("events").await;
    let receiver = Receiver::of(&world).await;
    let destination = workspace.destination(&receiver, "hook", json!({ "max_in_flight": 4 })).await;
    let first_pin = world.pin();
    let first_manifest = KeyManifest::parse(&world.manifest().await).unwrap();
    let sending = tokio::spawn({
        let source = source.clone();
        async move {
            for n in 0..120 {
                source.event(format!("event {n}")).await;
            }
        }
    });
    for round in 1..=4 {
        receiver.taken("hook", round * 15).await;
        match round {
            // By the node itself, by the command beside it (which the node learns of), and with another root.
            1 | 3 => change(&world, |ring, now| ring.rotate(Rotation::Both, now)).await,
            2 => drop(keys_done(&world, &["rotate"]).await),
            _ => change(&world, Ring::rotate_root).await,
        }
    }
    sending.await.unwrap();
    receiver.taken("hook", 120).await;
    receiver.assert_all_verified();
    destination.settled(120, "delivered").await;
    let signers: std::collections::BTreeSet<String> = receiver.hooks().iter().map(key_of).collect();
    assert!(signers.len() >= 3, "{} keys signed", signers.len());
    // The first pin still leads to everything, after a new root too.
    let manifest = KeyManifest::parse(&world.manifest().await).unwrap();
    compare(&first_manifest, &manifest).unwrap();
    let trusted = manifest.trust(&first_pin).unwrap();
    for hook in receiver.hooks() {
        receipt::verify(&hook.body, &trusted, &receipt::Options::default()).unwrap();
    }
    world.assert_whole(&[&workspace]).await;
}

#[tokio::test]
async fn the_published_manifest_verifies_under_the_pin_and_nothing_private_is_in_it() {
    let world = World::new().await;
    let answer = world.api.get("/.well-known/statusledger-keys.json").await.expect(200);
    assert_eq!(answer.headers["content-type"], "application/json");
    let manifest = KeyManifest::parse(&answer.body).unwrap();
    assert_eq!((manifest.serial, manifest.instance.as_str()), (1, "status.example.com"));
    assert_eq!(manifest.keys.len(), 3);
    let pin = world.pin();
    manifest.trust(&pin).unwrap();
    assert_eq!(keys_done(&world, &["pin"]).await.trim(), pin.to_string());
    assert_eq!(keys_done(&world, &["export"]).await.trim().as_bytes(), &answer.body[..]);
    let listed = keys_done(&world, &["list"]).await;
    for key in ["root", "receipt", "checkpoint"] {
        assert!(listed.contains(key), "{listed}");
    }
}

#[tokio::test]
async fn a_revoked_key_takes_nothing_with_it_that_is_still_to_be_delivered() {
    let world = World::new().await;
    let workspace = world.workspace("revoked").await;
    let source = workspace.inbound("events").await;
    let receiver = Receiver::of(&world).await;
    let destination = workspace.destination(&receiver, "hook", json!({})).await;
    receiver.behave(|_| Reply::Status(503));
    for n in 0..3 {
        source.event(format!("event {n}")).await;
    }
    let before = receiver
        .until("a first attempt of each", |hooks| (1..=3).all(|n| hooks.iter().any(|h| h.number == n)))
        .await;
    let revoked = key_of(&before[0]);
    let key_id: KeyId = revoked.parse().unwrap();
    change(&world, |ring, now| ring.revoke(key_id, now)).await;
    receiver.behave(|hook| Reply::Status(if hook.verified.is_ok() { 200 } else { 400 }));
    let hooks = receiver.taken("hook", 3).await;
    for number in 1..=3 {
        let of: Vec<&Hook> = hooks.iter().filter(|h| h.number == number).collect();
        let (first, last) = (of[0], of.last().unwrap());
        assert_eq!(key_of(first), revoked);
        assert_ne!(key_of(last), revoked, "issued again under another key");
        assert_eq!((first.seq, &first.value["data"]), (last.seq, &last.value["data"]));
        assert!(last.taken());
    }
    destination.settled(3, "delivered").await;
    assert!(hooks.iter().filter(|h| h.taken()).all(|h| h.verified == Ok(())));
    world.assert_whole(&[&workspace]).await;
}

#[tokio::test]
async fn the_root_goes_offline_and_rotations_need_its_file_from_then_on() {
    let world = World::new().await;
    let pin = world.pin();
    let file = temporary("root").join("root.key");
    let file = file.to_str().unwrap();
    keys_done(&world, &["root", "export", file]).await;
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    RootFile::read(file.as_ref()).unwrap();
    assert!(!keys(&world, &["root", "export", file]).await.status.success(), "it writes over nothing");
    let refused = keys(&world, &["rotate"]).await;
    assert_eq!(refused.status.code(), Some(1));
    let private: Option<Vec<u8>> =
        sqlx::query_scalar("SELECT private_key FROM signing_keys WHERE purpose = 'root'")
            .fetch_one(&mut world.database.superuser().await)
            .await
            .unwrap();
    assert_eq!(private, None);
    keys_done(&world, &["rotate", "--root", file]).await;
    let private: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM signing_keys WHERE purpose = 'root' AND private_key IS NOT NULL",
    )
    .fetch_one(&mut world.database.superuser().await)
    .await
    .unwrap();
    assert_eq!(private, 0, "the lent root is not kept");
    let receipt_key = world.node().keyring.current().receipt_key_id();
    let retired = hex(&receipt_key);
    keys_done(&world, &["revoke", &retired, "--root", file]).await;
    // The node hears of it by its next append with a delivery.
    let workspace = world.workspace("offline").await;
    let source = workspace.inbound("events").await;
    let receiver = Receiver::of(&world).await;
    workspace.destination(&receiver, "hook", json!({})).await;
    source.event("an event").await;
    let hooks = receiver.taken("hook", 1).await;
    assert_ne!(key_of(&hooks[0]), retired);
    receiver.assert_all_verified();
    KeyManifest::parse(&world.manifest().await).unwrap().trust(&pin).unwrap();
}

#[tokio::test]
async fn a_retired_key_is_destroyed_once_what_names_it_is_signed_or_settled() {
    let world = World::new().await;
    let workspace = world.workspace("retired").await;
    let source = workspace.inbound("events").await;
    let receiver = Receiver::of(&world).await;
    let destination = workspace.destination(&receiver, "hook", json!({})).await;
    receiver.behave(|_| Reply::Status(503));
    source.event("an event").await;
    receiver.until("an attempt", |hooks| !hooks.is_empty()).await;
    let node = world.node();
    let old = KeyId(node.keyring.current().receipt_key_id());
    let tidy = || queue::destroy_retired(&node.keyring, &node.writer, &node.instance);
    let held = || node.keyring.current().ring().holds_private(old);
    tidy().await.unwrap();
    assert!(held(), "a current key is never destroyed");
    change(&world, |ring, now| ring.rotate(Rotation::Both, now)).await;
    tidy().await.unwrap();
    assert!(!held());
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM signing_keys WHERE private_key IS NOT NULL")
        .fetch_one(&mut world.database.superuser().await)
        .await
        .unwrap();
    assert_eq!(left, 3);
    // What was on its way goes out as it was, though nobody can sign so any more.
    let attempts = receiver.hooks().len();
    receiver.until("an attempt without the key", |hooks| hooks.len() > attempts + 1).await;
    receiver.behave(|_| Reply::Status(200));
    let hooks = receiver.taken("hook", 1).await;
    assert!(hooks.iter().all(|h| h.body == hooks[0].body && h.id == hooks[0].id));
    assert_eq!(key_of(&hooks[0]), old.to_string());
    destination.settled(1, "delivered").await;
    // What was settled is made again all the same.
    let path = format!("{}/redeliver", destination.path);
    world.api.post(&path, json!({ "from": 1, "to": 1 })).await.expect(202);
    let again =
        receiver.until("the redelivery", |hooks| hooks.iter().filter(|h| h.taken()).count() == 2).await;
    assert_eq!(again.last().unwrap().number, 1);
    receiver.assert_all_verified();
    world.assert_whole(&[&workspace]).await;
}

#[tokio::test]
async fn a_settled_delivery_whose_key_is_gone_is_made_again_under_one_of_today() {
    let world = World::new().await;
    let workspace = world.workspace("settled").await;
    let source = workspace.inbound("events").await;
    let receiver = Receiver::of(&world).await;
    let destination = workspace.destination(&receiver, "hook", json!({})).await;
    source.event("an event").await;
    let first = receiver.taken("hook", 1).await;
    destination.settled(1, "delivered").await;
    change(&world, |ring, now| ring.rotate(Rotation::Both, now)).await;
    let node = world.node();
    queue::destroy_retired(&node.keyring, &node.writer, &node.instance).await.unwrap();
    let path = format!("{}/redeliver", destination.path);
    world.api.post(&path, json!({ "from": 1, "to": 1 })).await.expect(202);
    let hooks =
        receiver.until("the redelivery", |hooks| hooks.iter().filter(|h| h.taken()).count() == 2).await;
    assert_eq!((hooks[1].number, hooks[1].seq), (first[0].number, first[0].seq));
    receiver.assert_all_verified();
}

#[tokio::test]
async fn two_rotations_at_once_leave_one_ring_that_verifies() {
    let world = World::new().await;
    let (second, _) = world.another().await;
    let rotate = |node: &statusledger::node::Node| {
        let (keyring, writer, workspace) =
            (node.keyring.clone(), node.writer.clone(), node.instance.workspace);
        tokio::spawn(async move {
            for _ in 0..3 {
                keyring
                    .change(&writer, &statusledger::audit::Act::operator(), workspace, |ring, now| {
                        Ok((ring.rotate(Rotation::Both, now)?, ()))
                    })
                    .await
                    .unwrap();
            }
        })
    };
    let (here, there) = (rotate(world.node()), rotate(&second));
    here.await.unwrap();
    there.await.unwrap();
    world.node().keyring.reload().await.unwrap();
    let manifest = KeyManifest::parse(&world.manifest().await).unwrap();
    assert_eq!((manifest.serial, manifest.keys.len()), (7, 1 + 2 * 7));
    manifest.trust(&world.pin()).unwrap();
    second.stop().await;
}

/// Secrets of a kind that only its holder should have, and who might show them.
#[tokio::test]
async fn no_secret_is_in_the_database_the_api_or_the_log() {
    let directory = temporary("secrets");
    let log = directory.join("log");
    let token_file = directory.join("token");
    let world = World::new().await;
    let place = place(&world);
    let mut arguments = vec!["serve", "--port", "0", "--bootstrap-token-file", token_file.to_str().unwrap()];
    // A node of its own over the world's database, so that its log can be read.
    let other = directory.join("node");
    std::fs::create_dir(&other).unwrap();
    let other = other.to_str().unwrap();
    arguments.extend(["--data-dir", other, "--instance", "status.example.com"]);
    arguments.extend(place[2..].iter().map(String::as_str));
    let key = world.settings.key_encryption_key_path();
    let environment = [
        ("STATUSLEDGER_LOG", "trace"),
        ("STATUSLEDGER_KEY_ENCRYPTION_KEY_FILE", key.to_str().unwrap()),
        ("STATUSLEDGER_DELIVERY__ALLOW_HTTP", "true"),
        ("STATUSLEDGER_DELIVERY__ALLOW_NETWORKS", r#"["127.0.0.0/8"]"#),
        ("STATUSLEDGER_POLLING__ALLOW_OTHER_HOSTS", "true"),
        ("STATUSLEDGER_POLLING__INTERVAL_S", "0.1"),
    ];
    let program = Program::start(&directory, &log, &arguments, &environment).await;
    let token = std::fs::read_to_string(&token_file).unwrap().trim().to_owned();
    let api = crate::harness::Api::new(program.address, &token);
    let workspace: Workspace = api.workspace("secrets").await;
    let source = workspace.inbound("events").await;
    let receiver = Receiver::start(program.pin.clone(), &api.base).await;
    let destination = workspace.destination(&receiver, "hook", json!({})).await;
    let rotated =
        api.post(&format!("{}/rotate-secret", destination.path), json!({})).await.expect(200).json();
    let simulator = crate::sources::simulator().await;
    let apple = simulator.app_store_key("Acme").unwrap();
    let google = simulator.google_service_account_json("acme").unwrap();
    let [apple_source, google_source] = crate::sources::requests(&simulator);
    for request in [apple_source, google_source] {
        api.post(&workspace.at("/sources"), request).await.expect(201);
    }
    source.event("a marked payload").await;
    receiver.taken("hook", 1).await;
    eventually("a sweep of both", || async {
        let listed = api.get(&workspace.at("/sources")).await.expect(200).json();
        let ok = listed["items"].as_array()?.iter().filter(|s| s["health"] == "ok").count();
        (ok >= 2).then_some(())
    })
    .await;
    // A key that cannot be used is refused, and not repeated either.
    let mut broken = crate::sources::requests(&simulator)[0].clone();
    broken["name"] = "broken".into();
    broken["credentials"]["private_key"] = apple.private_key_pem.replace("MIG", "BROKEN").into();
    let mut seen = vec![api.post(&workspace.at("/sources"), broken).await.text().to_owned()];
    assert!(seen[0].contains("urn:statusledger:problem:invalid"), "{}", seen[0]);

    let google: Value = serde_json::from_str(&google).unwrap();
    let lines = |pem: &str| pem.lines().nth(1).unwrap().to_owned();
    let secrets = [
        ("the administrator's token", token.clone()),
        ("the source's token", source.token.clone()),
        ("the webhook's secret", destination.secret.trim_start_matches("whsec_").to_owned()),
        (
            "the new webhook's secret",
            rotated["secret"].as_str().unwrap().trim_start_matches("whsec_").to_owned(),
        ),
        ("the App Store key", lines(&apple.private_key_pem)),
        ("the Google key", lines(google["private_key"].as_str().unwrap())),
        ("the key-encryption key", std::fs::read_to_string(&key).unwrap().trim().to_owned()),
        ("the payload", "a marked payload".to_owned()),
    ];
    for path in ["/sources", "/destinations", "/entries?limit=1000", "/subjects"] {
        seen.push(api.get(&workspace.at(path)).await.expect(200).text().to_owned());
    }
    seen.push(destination.delivery(1).await.to_string());
    seen.push(api.get("/metrics").await.expect(200).text().to_owned());
    seen.push(api.get("/v1/workspaces").await.expect(200).text().to_owned());
    assert!(program.terminate().await);
    let dump =
        Command::new("pg_dump").args(["--inserts", "-d", &world.database.url("postgres")]).output().unwrap();
    assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
    let dump = String::from_utf8(dump.stdout).unwrap();
    assert!(dump.contains("INSERT INTO public.destinations"), "the dump has its rows");
    let log = std::fs::read_to_string(&log).unwrap();
    assert!(log.contains("TRACE"), "the log is at its most talkative");
    for (what, secret) in &secrets {
        assert!(secret.len() > 12, "{what}");
        // As text, and as the hex in which a dump shows bytes.
        for form in [secret.clone(), hex(secret.as_bytes())] {
            assert!(!dump.contains(&form), "{what} is in the dump");
            assert!(!log.contains(&form), "{what} is in the log");
            for answer in &seen {
                assert!(!answer.contains(&form), "{what} is in {answer}");
            }
        }
    }
    // Not even as bytes: the private halves of the signing keys.
    let exported = temporary("root").join("root.key");
    keys_done(&world, &["root", "export", exported.to_str().unwrap()]).await;
    let root = std::fs::read_to_string(&exported).unwrap();
    for word in
        root.split(|c: char| !c.is_ascii_alphanumeric() && !"+/=-_".contains(c)).filter(|w| w.len() >= 40)
    {
        // What is public about it may be there.
        let public = String::from_utf8(world.manifest().await).unwrap();
        if !public.contains(word) {
            assert!(!dump.contains(word) && !log.contains(word), "the root is told");
        }
    }
}
