//! The command line that manages an instance over its API, and `apply`: the real program against a real node.

mod apply;
mod record;

use crate::harness::{
    Program, Receiver, Workspace, World, eventually_within, run, send, temporary, verify_export,
};
use crate::sources::simulator;
use serde_json::{Value, json};
use statusledger::access::context::RequestContext;
use statusledger::access::scope::Role;
use statusledger::access::{members, people};
use statusledger::audit::Act;
use statusledger::database::roles;
use statusledger::id::{KeyId, UserId};
use statusledger_simulator::Simulator;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// A node with a workspace, a directory to work in, and both stores.
pub struct Desk {
    pub world: World,
    pub workspace: Workspace,
    pub simulator: Simulator,
    pub directory: PathBuf,
}

/// What a command said, which had to succeed.
pub struct Said {
    pub out: String,
    pub err: String,
}

impl Said {
    /// The only line of standard output.
    #[track_caller]
    pub fn line(&self) -> &str {
        let line = self.out.strip_suffix('\n').unwrap();
        assert!(!line.is_empty() && !line.contains('\n'), "{}", self.out);
        line
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap()
    }
}

impl Desk {
    pub async fn new() -> Self {
        let (world, simulator) = (World::new().await, simulator().await);
        let workspace = world.workspace("Acme").await;
        let desk = Self { world, workspace, simulator, directory: temporary("desk") };
        let key = desk.simulator.app_store_key("Acme").unwrap();
        desk.write("AuthKey.p8", key.private_key_pem.as_str());
        desk.write("account.json", &desk.simulator.google_service_account_json("acme").unwrap());
        desk.write("apple.secret", "MARK webhook secret\n");
        desk
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.directory.join(name), text).unwrap();
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.directory.join(name)).unwrap()
    }

    fn environment(&self) -> [(&str, &str); 3] {
        [
            ("STATUSLEDGER_URL", &self.world.api.base),
            ("STATUSLEDGER_TOKEN", &self.world.api.token),
            ("STATUSLEDGER_LOG", "trace"),
        ]
    }

    /// Runs a command, with all that it could log.
    pub async fn run(&self, arguments: &[&str]) -> Output {
        run(&self.directory, arguments, &self.environment()).await
    }

    /// One that has to succeed.
    pub async fn said(&self, arguments: &[&str]) -> Said {
        let output = self.run(arguments).await;
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {out}{err}");
        Said { out, err }
    }

    /// One that has to be refused: its code, and the last line that it says.
    pub async fn refused(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.run(arguments).await;
        let told = text(&output.stderr);
        let told = told.lines().rev().find(|line| line.starts_with("statusledger: ")).unwrap_or_default();
        (output.status.code().unwrap(), told.trim_start_matches("statusledger: ").to_owned())
    }

    /// One that is given `input`.
    async fn given(&self, arguments: &[&str], input: &str) -> Output {
        let mut child = self.command(arguments).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).await.unwrap();
        drop(stdin);
        child.wait_with_output().await.unwrap()
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_statusledger"));
        command
            .env_clear()
            .envs(self.environment())
            .args(arguments)
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// The items of a list of the workspace's.
    pub async fn items(&self, list: &str) -> Vec<Value> {
        let answer = self.world.api.get(&self.workspace.at(&format!("/{list}"))).await.expect(200).json();
        answer["items"].as_array().unwrap().clone()
    }

    pub async fn names(&self, list: &str) -> Vec<String> {
        let mut names: Vec<String> =
            self.items(list).await.iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect();
        names.sort();
        names
    }

    async fn add_app_store(&self) -> Said {
        let key = self.simulator.app_store_key("Acme").unwrap();
        let (key_id, issuer_id) = (key.key_id.clone(), key.issuer_id.clone());
        let base = self.simulator.app_store_base_url();
        let arguments =
            ["sources", "add", "app-store", "--name", "Apple", "--p8", "AuthKey.p8", "--key-id", &key_id];
        let more = ["--issuer-id", &issuer_id, "--webhook-secret", "apple.secret", "--base-url", base];
        self.said(&[&arguments[..], &more].concat()).await
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn sources_are_added_listed_and_removed_and_their_keys_are_told_to_nobody() {
    let desk = Desk::new().await;
    let apple = desk.add_app_store().await;
    let pem = desk.read("AuthKey.p8");
    let secrets: Vec<&str> = pem.lines().filter(|line| line.len() > 30 && !line.starts_with('-')).collect();
    for said in [&apple.out, &apple.err] {
        assert!(secrets.iter().all(|secret| !said.contains(secret)) && !said.contains("MARK"), "{said}");
        assert!(!said.contains(&desk.world.api.token), "{said}");
    }
    assert!(apple.line().starts_with("src_"), "{}", apple.out);
    assert!(apple.err.contains("readable: ") && apple.err.contains("versions"), "{}", apple.err);
    assert!(apple.err.contains(&format!("/in/{}/app-store-connect", apple.line())), "{}", apple.err);
    let base = desk.simulator.publisher_base_url();
    let reporting = desk.simulator.reporting_base_url();
    let arguments = ["sources", "add", "google-play", "--name", "Play", "--service-account", "-", "--json"];
    let urls = ["--publisher-url", base, "--reporting-url", reporting];
    let play = desk.given(&[&arguments[..], &urls].concat(), &desk.read("account.json")).await;
    assert!(play.status.success(), "{}", text(&play.stderr));
    let play: Value = serde_json::from_slice(&play.stdout).unwrap();
    assert_eq!((&play["kind"], &play["name"]), (&json!("google_play"), &json!("Play")));
    assert!(play["access"]["reads"].is_array(), "{play}");
    let ci = desk.said(&["sources", "add", "inbound", "--name", "CI"]).await;
    assert!(ci.line().starts_with("sl_in_") && !ci.err.contains(ci.line()), "{}", ci.err);
    assert!(ci.err.contains("shown this once"), "{}", ci.err);
    let id = desk.items("sources").await[2]["id"].as_str().unwrap().to_owned();
    let posted = desk.world.api.bare("POST", &format!("/in/{id}")).bearer_auth(ci.line()).body("built");
    assert_eq!(posted.send().await.unwrap().status(), 202, "the token is what was printed");

    let list = desk.said(&["sources", "list"]).await.out;
    let lines: Vec<&str> = list.lines().collect();
    assert_eq!(lines[0].split_whitespace().next(), Some("NAME"));
    assert!(
        lines[1].starts_with("Apple") && lines[2].starts_with("Play") && lines[3].starts_with("CI"),
        "{list}"
    );
    let document = desk.said(&["sources", "list", "--json"]).await.json();
    assert_eq!(document["items"][0]["id"], apple.line());

    assert_eq!(
        desk.said(&["sources", "look", "Apple"]).await.line(),
        "the source \"Apple\" was asked for everything now"
    );
    let told = "the source \"CI\" is only told: it has no store key to ask with".to_owned();
    assert_eq!(desk.refused(&["sources", "look", "CI"]).await, (1, told));
    let (code, told) =
        desk.refused(&["workspaces", "update", "team", "--workspace", "x", "--name", "y"]).await;
    assert_eq!(
        (code, told.as_str()),
        (2, "the workspace is the argument WORKSPACE here, and no --workspace")
    );
    desk.said(&["sources", "webhook-secret", "Apple", "apple.secret"]).await;
    let gone = desk.said(&["sources", "webhook-secret", apple.line(), "--none", "--json"]).await.json();
    assert_eq!(gone["id"], apple.line());
    let taken = desk.refused(&["sources", "add", "inbound", "--name", "CI"]).await;
    assert_eq!(taken, (1, format!("{} answers 409: a source called \"CI\" exists", desk.world.api.base)));
    desk.said(&["sources", "remove", "CI"]).await;
    assert_eq!(desk.names("sources").await, ["Apple", "Play"]);
    assert_eq!(desk.refused(&["sources", "remove", "CI"]).await, (1, "there is no source \"CI\"".into()));

    // Each of these acts is on the record as the command line's.
    let entries = desk.workspace.entries().await;
    let acts: Vec<(&str, &str)> = entries
        .iter()
        .filter_map(|e| {
            Some((e["type"].as_str()?.strip_prefix("audit.source.")?, e["data"]["surface"].as_str()?))
        })
        .collect();
    let expected =
        ["created", "created", "created", "looked", "updated", "updated", "deleted"].map(|act| (act, "cli"));
    assert_eq!(acts, expected);
}

#[tokio::test]
async fn a_secret_that_cannot_be_read_or_used_is_refused_before_or_by_the_instance() {
    let desk = Desk::new().await;
    let add = ["sources", "add", "app-store", "--name", "Apple", "--key-id", "K", "--issuer-id", "I"];
    let told = async |more: &[&str]| desk.refused(&[&add[..], more].concat()).await;
    let missing = (1, "cannot read the private key from nowhere.p8: No such file or directory".to_owned());
    assert_eq!(told(&["--p8", "nowhere.p8"]).await, missing);
    desk.write("empty", "\n");
    assert_eq!(told(&["--p8", "empty"]).await, (1, "the private key from empty is empty".into()));
    desk.write("no-key.p8", "MARK no key");
    let (code, sentence) = told(&["--p8", "no-key.p8"]).await;
    assert!(
        code == 1 && sentence.contains("422") && sentence.contains("paste the whole .p8 file"),
        "{sentence}"
    );
    assert!(!sentence.contains("MARK"), "{sentence}");
    let both = told(&["--p8", "-", "--webhook-secret", "-"]).await;
    assert_eq!(both, (2, "standard input can be only one of them".into()));
    desk.write("broken.json", "{\"private_key\": \"MARK\",\n nonsense}");
    let (code, sentence) = desk
        .refused(&["sources", "add", "google-play", "--name", "P", "--service-account", "broken.json"])
        .await;
    assert!(code == 1 && sentence.ends_with("line 2, column 2") && !sentence.contains("MARK"), "{sentence}");
    for usage in [
        &["sources"][..],
        &["sources", "add", "app-store", "--name", "x"],
        &["sources", "add", "app-store", "--name", "x", "--p8", "AuthKey.p8"],
        &["sources", "webhook-secret", "x"],
        &["destinations", "update", "x", "--enable", "--disable"],
        &["destinations", "redeliver", "x", "0"],
        &["destinations", "add", "--name", "x"],
        &["destinations", "update", "x", "--max-in-flight", "0"],
        &["api-keys", "create", "--name", "x", "--scope", "nothing"],
        &["members", "invite", "a@example.com", "--role", "king"],
        &["people"],
        &["people", "disable"],
        &["apply"],
        &["workspaces", "update", "Acme"],
        &["sources", "replace-key", "x"],
        &["sources", "replace-key", "x", "--p8", "AuthKey.p8"],
        &["audit", "search", "--outcome", "maybe"],
        &["audit", "search", "-n", "0"],
        &["audit", "search", "--since", "yesterday"],
        &["audit", "export", "--format", "xml", "--out", "x"],
        &["audit", "export", "--format", "csv"],
        &["openings", "first"],
        &["export", "--url", "http://127.0.0.1:1", "--database-url", "postgres://x", "--out", "x.zip"],
    ] {
        assert_eq!(desk.run(usage).await.status.code(), Some(2), "{usage:?}");
    }
    assert_eq!(desk.names("sources").await, [""; 0]);
}

#[tokio::test]
async fn destinations_are_managed_and_a_secret_is_printed_alone() {
    let desk = Desk::new().await;
    let receiver = Receiver::of(&desk.world).await;
    let url = receiver.url("hook");
    desk.workspace.inbound("CI").await;
    let add = ["destinations", "add", "--name", "hook", "--to", &url, "--type", "event.*", "--source", "CI"];
    let made = desk.said(&add).await;
    assert!(made.line().starts_with("whsec_") && !made.err.contains(made.line()), "{}", made.err);
    let id = desk.items("destinations").await[0]["id"].as_str().unwrap().to_owned();
    assert!(made.err.contains(&id), "{}", made.err);
    receiver.expect("hook", &id, made.line());
    let list = desk.said(&["destinations", "list"]).await.out;
    assert!(list.lines().nth(1).unwrap().contains("event.*; CI"), "{list}");

    let test = desk.said(&["destinations", "test", "hook"]).await;
    assert!(
        test.line().starts_with("the destination \"hook\" was sent a test event: entry "),
        "{}",
        test.out
    );
    crate::harness::eventually("the test arrives, under the secret that was printed", || async {
        let deliveries =
            desk.world.api.get(&desk.workspace.at(&format!("/destinations/{id}/deliveries"))).await.json();
        (deliveries["items"][0]["state"] == "delivered").then_some(())
    })
    .await;
    let again = desk.said(&["destinations", "redeliver", "hook", "1"]).await;
    assert_eq!(again.line(), "the destination \"hook\" was sent 1 delivery again");

    let document = desk
        .said(&[
            "destinations",
            "update",
            "hook",
            "--max-in-flight",
            "4",
            "--app",
            "com.acme.weather",
            "--json",
        ])
        .await
        .json();
    assert_eq!(document["max_in_flight"], 4);
    assert_eq!(document["filter"]["types"], json!(["event.*"]), "what is not given stays");
    assert_eq!(document["filter"]["apps"], json!(["com.acme.weather"]));
    desk.said(&["destinations", "update", "hook", "--no-filter", "--disable", "--openings", "false"]).await;
    let now = desk.items("destinations").await.remove(0);
    assert_eq!((&now["filter"], &now["openings"]), (&json!({}), &json!(false)));
    assert!(now["disabled_at"].is_string());
    let (code, sentence) = desk.refused(&["destinations", "test", "hook"]).await;
    assert!(code == 1 && sentence.contains("409") && sentence.ends_with("is disabled"), "{sentence}");
    desk.said(&["destinations", "update", "hook", "--enable"]).await;
    assert_eq!(desk.refused(&["destinations", "update", "hook"]).await.0, 2);

    let rotated = desk.said(&["destinations", "rotate-secret", "hook"]).await;
    assert!(rotated.line().starts_with("whsec_") && rotated.line() != made.line());
    // An address may hold a token: then it comes from a file.
    desk.write("address", &format!("{}\n", receiver.url("other")));
    let add = |name: &'static str| ["destinations", "add", "--name", name, "--to-file", "address", "--json"];
    let other = desk.said(&add("other")).await.json();
    assert_eq!(other["url"], receiver.url("other"));
    // A name is one destination's, until that is gone.
    let taken = (1, format!("{} answers 409: a destination called \"hook\" exists", desk.world.api.base));
    assert_eq!(desk.refused(&add("hook")).await, taken);
    assert_eq!(desk.refused(&["destinations", "update", "other", "--name", "hook"]).await, taken);
    desk.said(&["destinations", "remove", &id]).await;
    desk.said(&["destinations", "update", "other", "--name", "hook"]).await;
    desk.said(&["destinations", "remove", "hook"]).await;
    assert_eq!(desk.names("destinations").await, [""; 0]);
}

#[tokio::test]
async fn workspaces_and_api_keys_are_made_used_and_ended() {
    let desk = Desk::new().await;
    let made = desk.said(&["workspaces", "create", "Tidepool"]).await;
    assert!(made.line().starts_with("ws_"), "{}", made.out);
    // A name is nobody's alone; whoever goes by it is told, and gives the id.
    let second = desk.said(&["workspaces", "create", "Tidepool"]).await;
    let ids = format!("{}, {}", made.line(), second.line());
    let several = format!("several are called \"Tidepool\": give the id of a workspace: {ids}");
    for command in [
        &["sources", "list", "--workspace", "Tidepool"][..],
        &["workspaces", "update", "Tidepool", "--name", "x"],
    ] {
        assert_eq!(desk.refused(command).await, (2, several.clone()));
    }
    desk.write("statusledger.toml", "workspace = \"Tidepool\"\n");
    let (code, sentence) = desk.refused(&["apply", "-f", "statusledger.toml"]).await;
    assert!(code == 2 && sentence.ends_with(&ids), "{sentence}");
    desk.said(&["sources", "list", "--workspace", second.line()]).await;
    desk.said(&["workspaces", "update", second.line(), "--name", "Another"]).await;
    desk.said(&["sources", "list", "--workspace", "Tidepool"]).await;
    let list = desk.said(&["workspaces", "list"]).await.out;
    assert!(["Acme", "Tidepool", "the instance's own"].iter().all(|name| list.contains(name)), "{list}");
    let (code, sentence) = desk.refused(&["sources", "list"]).await;
    assert!(code == 2 && sentence.starts_with("name one of these with --workspace"), "{sentence}");

    let acme = ["--workspace", "Acme"];
    let create =
        ["api-keys", "create", "--name", "CI", "--scope", "ledger:read,sources:read", "--expires", "1d"];
    let key = desk.said(&[&create[..], &acme].concat()).await;
    assert!(
        key.line().starts_with("sl_ledger:read.sources:read_") && !key.err.contains(key.line()),
        "{}",
        key.err
    );
    desk.write("key", key.line());
    let with_key = async |arguments: &[&str], file: &str| {
        let mut arguments = arguments.to_vec();
        arguments.extend(["--token-file", file]);
        run(&desk.directory, &arguments, &[("STATUSLEDGER_URL", &desk.world.api.base)]).await
    };
    assert!(with_key(&["sources", "list"], "key").await.status.success());
    let more = with_key(&["api-keys", "create", "--name", "x", "--scope", "read"], "key").await;
    assert_eq!(more.status.code(), Some(1));
    let words = "403: This needs keys:write; the key has ledger:read, sources:read";
    assert!(text(&more.stderr).contains(words), "{}", text(&more.stderr));

    let new = desk.said(&[&["api-keys", "rotate", "CI", "--overlap", "1h"][..], &acme].concat()).await;
    assert_ne!(new.line(), key.line());
    desk.write("new", new.line());
    for file in ["key", "new"] {
        assert!(with_key(&["sources", "list"], file).await.status.success(), "both hold");
    }
    // Both are called so, and both hold.
    assert_eq!(desk.refused(&[&["api-keys", "revoke", "CI"][..], &acme].concat()).await.0, 2);
    let keys = desk.said(&[&["api-keys", "list", "--json"][..], &acme].concat()).await.json();
    for key in keys["items"].as_array().unwrap() {
        let id = key["id"].as_str().unwrap();
        desk.said(&[&["api-keys", "revoke", id][..], &acme].concat()).await;
    }
    assert_eq!(with_key(&["sources", "list"], "new").await.status.code(), Some(1));
    let list = desk.said(&[&["api-keys", "list"][..], &acme].concat()).await.out;
    assert_eq!(list.lines().skip(1).filter(|line| line.contains("revoked")).count(), 2, "{list}");
    // The administrator's own is one of the instance's workspace.
    let all = desk.said(&["workspaces", "list", "--json"]).await.json();
    let own = all["items"].as_array().unwrap().iter().find(|w| w["own"] == true).unwrap()["id"].clone();
    let own = ["--workspace", own.as_str().unwrap()];
    let keys = desk.said(&[&["api-keys", "list", "--json"][..], &own].concat()).await.json();
    let id = keys["items"][0]["id"].as_str().unwrap();
    desk.said(&[&["api-keys", "revoke", id][..], &own].concat()).await;
    let unknown = format!("{} does not know the token in STATUSLEDGER_TOKEN", desk.world.api.base);
    assert_eq!(desk.refused(&["workspaces", "list"]).await, (1, unknown));
}

#[tokio::test]
async fn members_are_invited_and_given_roles() {
    let desk = Desk::new().await;
    let invited = desk.said(&["members", "invite", "ana@example.com", "--role", "member"]).await;
    assert!(!invited.err.contains(invited.line()), "{}", invited.err);
    let list = desk.said(&["members", "list"]).await.out;
    assert!(list.contains("ana@example.com") && list.contains("invited, until "), "{list}");
    // Ana opens what was printed.
    let node = desk.world.node();
    let (base, token) = invited.line().split_once("/invite/").unwrap();
    assert_eq!(base, node.base.as_str().trim_end_matches('/'));
    send(desk.world.api.bare("GET", &format!("/invite/{token}"))).await.expect(200);
    let ana = UserId::new();
    let mut superuser = desk.world.database.superuser().await;
    let profile = people::Profile { email: Some("ana@example.com".into()), name: Some("Ana".into()) };
    let data_keys = node.writer.data_keys();
    people::insert(&mut superuser, &node.gate.secret, data_keys, node.gate.instance, ana, &profile)
        .await
        .unwrap();
    members::accept(&node.writer, &Act::operator(), ana, token).await.unwrap();
    assert_eq!(
        desk.said(&["members", "role", "ana@example.com", "auditor"]).await.line(),
        "ana@example.com is auditor now"
    );
    let document = desk.said(&["members", "list", "--json"]).await.json();
    assert_eq!(document["members"][0]["role"], "auditor");
    assert!(document["invitations"][0]["accepted_at"].is_string());
    desk.said(&["members", "remove", &ana.to_string()]).await;
    let nobody = (1, "there is no member \"ana@example.com\"".to_owned());
    assert_eq!(desk.refused(&["members", "remove", "ana@example.com"]).await, nobody);
    // A second one to the same address takes the place of the first, however it is written.
    let first = desk.said(&["members", "invite", "bo@example.com", "--role", "owner", "--json"]).await.json();
    assert_eq!(first["invitations_withdrawn"], json!([]));
    let second = desk.said(&["members", "invite", "Bo@Example.com", "--role", "viewer"]).await;
    let id = first["id"].as_str().unwrap();
    let told = format!("it takes the place of an earlier one, which was withdrawn: {id}");
    assert!(second.err.contains(&told), "{}", second.err);
    let list = desk.said(&["members", "list"]).await.out;
    assert_eq!(list.lines().skip(1).count(), 1, "{list}");
    assert!(list.contains("viewer") && !list.contains("owner"), "{list}");
    let token = first["token"].as_str().unwrap();
    send(desk.world.api.bare("GET", &format!("/invite/{token}"))).await.expect(403);
    desk.said(&["members", "withdraw", "Bo@Example.com"]).await;
    assert_eq!(desk.said(&["members", "list"]).await.out, "");
}

#[tokio::test]
async fn who_came_by_an_invitation_is_known_by_the_address_that_it_was_for() {
    let desk = Desk::new().await;
    let node = desk.world.node();
    // Somebody of whom no provider has said anything.
    let nobody = UserId::new();
    let mut superuser = desk.world.database.superuser().await;
    let (data_keys, instance) = (node.writer.data_keys(), node.gate.instance);
    people::insert(
        &mut superuser,
        &node.gate.secret,
        data_keys,
        instance,
        nobody,
        &people::Profile::default(),
    )
    .await
    .unwrap();
    let invited =
        desk.said(&["members", "invite", "marked.cy@example.com", "--role", "admin", "--json"]).await;
    let act = Act::proven(nobody, RequestContext::none());
    let token = invited.json()["token"].as_str().unwrap().to_owned();
    members::accept(&node.writer, &act, nobody, &token).await.unwrap();

    let member = &desk.items("members").await[0];
    assert_eq!((&member["email"], &member["name"]), (&Value::Null, &Value::Null), "nobody has verified it");
    assert_eq!(member["invited_as"], "marked.cy@example.com");
    let list = desk.said(&["members", "list"]).await.out;
    assert!(list.lines().nth(1).unwrap().starts_with("marked.cy@example.com (not verified) "), "{list}");
    // So is what they do, sealed in the entry, and by name in a search.
    let joined = &desk.workspace.entries_of("audit.member.joined").await[0];
    let opened = desk.said(&["openings", &joined["seq"].to_string(), "--json"]).await.json();
    assert_eq!(opened["openings"]["actor_display"]["value"], "invited as marked.cy@example.com");
    assert!(!joined.to_string().contains("marked.cy"), "{joined}");
    let found = desk.said(&["audit", "search", "--action", "member.joined"]).await.out;
    assert!(found.lines().nth(1).unwrap().contains(" invited as marked.cy@example.com "), "{found}");
    // Sealed in the row, which the invitation's end does not take with it.
    let row: String = sqlx::query_scalar("SELECT encode(profile, 'escape') FROM members WHERE user_id = $1")
        .bind(nobody.uuid())
        .fetch_one(&mut superuser)
        .await
        .unwrap();
    assert!(!row.contains("marked"), "{row}");
    sqlx::query("DELETE FROM invitations").execute(&mut superuser).await.unwrap();
    // An address that nobody has verified picks nobody, and says who it may be.
    let id = nobody.to_string();
    let told =
        format!("nobody has verified the address \"Marked.Cy@example.com\": give the member's id: {id}");
    assert_eq!(desk.refused(&["members", "role", "Marked.Cy@example.com", "viewer"]).await, (2, told));
    desk.said(&["members", "role", &id, "viewer"]).await;
    desk.said(&["members", "remove", &id]).await;
    assert_eq!(desk.said(&["members", "list"]).await.out, "");
}

#[tokio::test]
async fn people_are_kept_out_and_let_in_again() {
    let desk = Desk::new().await;
    assert_eq!(desk.said(&["people", "list"]).await.out, "");
    let ana = desk.world.person("ana@example.com", &[(desk.workspace.id, Role::Admin)]).await;
    desk.world.person("bo@example.com", &[]).await;
    let by_ana = |method: &str, path: &str| {
        let request = desk.world.api.bare(method, path).header("cookie", &ana.cookie);
        request.header("x-csrf-token", &ana.csrf)
    };
    let body = json!({ "name": "ana's", "scopes": ["read"] });
    let made = send(by_ana("POST", &desk.workspace.at("/keys")).json(&body)).await.expect(201).json();
    let key = |path: &str| desk.world.api.bare("GET", path).bearer_auth(made["token"].as_str().unwrap());
    let list = desk.said(&["people", "list"]).await.out;
    let line = list.lines().find(|line| line.starts_with("ana@example.com")).unwrap();
    assert!(line.contains(" 1 ") && line.contains("since ") && line.contains(&ana.id.to_string()), "{list}");

    let disabled = desk.said(&["people", "disable", "ana@example.com"]).await.out;
    let expected = "ana@example.com is disabled: they are signed out everywhere, and cannot sign in\n\
                    API keys of theirs that open nothing meanwhile: 1 (`api-keys rotate` what others need)\n";
    assert_eq!(disabled, expected);
    assert_eq!(send(by_ana("GET", "/v1/session")).await.problem(401), "unauthorized");
    assert_eq!(send(key(&desk.workspace.path)).await.problem(401), "unauthorized");
    let document = desk.said(&["people", "list", "--json"]).await.json();
    let disabled: Vec<bool> = document["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|person| person["disabled_at"].is_string())
        .collect();
    assert_eq!(disabled, [true, false]);
    assert!(desk.said(&["people", "list"]).await.out.contains("disabled 20"));
    // It is seen where keys are looked at: which open nothing, and whose they are.
    let keys = desk.said(&["api-keys", "list"]).await.out;
    let line = keys.lines().find(|line| line.starts_with("ana's")).unwrap();
    assert!(line.contains(" suspended ") && !line.contains("holds"), "{keys}");
    assert!(keys.contains("MADE BY") && line.contains(&ana.id.to_string()), "{keys}");

    let enabled = desk.said(&["people", "enable", &ana.id.to_string()]).await;
    assert_eq!(enabled.line(), format!("{} is enabled: they can sign in again", ana.id));
    send(key(&desk.workspace.path)).await.expect(200);
    assert_eq!(send(by_ana("GET", "/v1/session")).await.problem(401), "unauthorized", "sessions stay ended");
    let nobody = (1, "there is no person \"cy@example.com\"".to_owned());
    assert_eq!(desk.refused(&["people", "disable", "cy@example.com"]).await, nobody);
    // On the record, by whom and from where; and a workspace's key is refused.
    let own = format!("/v1/workspaces/{}", desk.world.node().gate.instance);
    let acts = desk.world.api.get(&format!("{own}/audit?action=person.*")).await.expect(200).json();
    let of: Vec<(&str, &str)> = acts["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| (e["type"].as_str().unwrap(), e["data"]["surface"].as_str().unwrap()))
        .collect();
    assert_eq!(of, [("audit.person.enabled", "cli"), ("audit.person.disabled", "cli")]);
    let admin = json!({ "name": "admin", "scopes": ["admin"] });
    let admin = desk.world.api.post(&desk.workspace.at("/keys"), admin).await.expect(201).json();
    let mut command = desk.command(&["people", "disable", "bo@example.com"]);
    let output = command.env("STATUSLEDGER_TOKEN", admin["token"].as_str().unwrap()).output().await.unwrap();
    assert!(text(&output.stderr).contains("403"), "{}", text(&output.stderr));
}

#[tokio::test]
async fn a_list_that_has_several_pages_is_listed_whole() {
    let desk = Desk::new().await;
    let made = json!({ "name": "first", "scopes": ["read"] });
    let made = desk.world.api.post(&desk.workspace.at("/keys"), made).await.expect(201).json();
    sqlx::query(
        "INSERT INTO api_keys SELECT (jsonb_populate_record(k, jsonb_build_object('key_id', gen_random_uuid(),
                'name', 'copy ' || n, 'created_at', k.created_at + n * interval '1 millisecond'))).*
           FROM api_keys k, generate_series(1, 1500) n WHERE k.key_id = $1",
    )
    .bind(made["id"].as_str().unwrap().parse::<KeyId>().unwrap().uuid())
    .execute(&mut desk.world.database.superuser().await)
    .await
    .unwrap();
    let listed = desk.said(&["api-keys", "list", "--json"]).await.json();
    let names: BTreeSet<&str> =
        listed["items"].as_array().unwrap().iter().map(|key| key["name"].as_str().unwrap()).collect();
    assert_eq!(names.len(), 1501);
    // What stands on the second page is found by its name.
    desk.said(&["api-keys", "revoke", "copy 1500"]).await;
}

#[tokio::test]
async fn a_closed_pipe_is_no_fault_unless_it_swallows_a_secret() {
    let desk = Desk::new().await;
    let closed = async |arguments: &[&str]| {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let child = desk.command(arguments).stdout(writer).env("STATUSLEDGER_LOG", "off").spawn().unwrap();
        let output = child.wait_with_output().await.unwrap();
        (output.status.code(), text(&output.stderr))
    };
    assert_eq!(closed(&["workspaces", "list"]).await, (Some(0), String::new()));
    assert_eq!(closed(&["workspaces", "list", "--json"]).await, (Some(0), String::new()));
    let (code, told) = closed(&["sources", "add", "inbound", "--name", "CI"]).await;
    assert!(code == Some(1) && told.contains("nobody took what was printed"), "{told}");
}

#[tokio::test]
async fn an_export_comes_over_the_api_into_a_new_file_or_into_none() {
    let desk = Desk::new().await;
    let source = desk.workspace.inbound("CI").await;
    for n in 0..40 {
        source.event(format!("event {n}")).await;
    }
    let said = desk.said(&["export", "--out", "acme.zip", "--openings", "--json"]).await.json();
    let file = desk.directory.join("acme.zip");
    assert_eq!(said["bytes"], std::fs::metadata(&file).unwrap().len());
    verify_export(&file, &desk.world.pin()).unwrap();
    let before = std::fs::read(&file).unwrap();
    let again = desk.refused(&["export", "--out", "acme.zip"]).await;
    assert_eq!(again, (1, "acme.zip exists already; choose another name, or remove it".into()));
    assert_eq!(std::fs::read(&file).unwrap(), before);
    desk.said(&["export", "--out", "range.zip", "--from", "5", "--to", "9", "--types", "event.received"])
        .await;
    verify_export(&desk.directory.join("range.zip"), &desk.world.pin()).unwrap();
    let (code, sentence) = desk.refused(&["export", "--out", "no.zip", "--from", "900"]).await;
    assert!(code == 1 && sentence.contains("422"), "{sentence}");
    assert_eq!(desk.refused(&["export", "--out", "nowhere/no.zip"]).await.0, 1);

    // An instance that goes away in the middle leaves nothing.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let id = desk.workspace.id.to_string();
    let cut = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut request).await.unwrap();
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/zip\r\ntransfer-encoding: chunked\r\n\r\n4\r\nPK\x03\x04\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
    });
    let (code, sentence) =
        desk.refused(&["export", "--url", &address, "--workspace", &id, "--out", "cut.zip"]).await;
    cut.await.unwrap();
    assert!(code == 1 && sentence.starts_with("cannot reach"), "{sentence}");
    let mut left: Vec<String> = std::fs::read_dir(&desk.directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("zip"))
        .collect();
    left.sort();
    assert_eq!(left, ["acme.zip", "range.zip"]);
}

#[tokio::test]
async fn beside_a_node_an_export_goes_through_it_and_without_one_a_named_directory_is_nobody() {
    let world = World::new().await;
    let workspace = world.workspace("Acme").await;
    let directory = temporary("beside");
    let [service, worker] = [roles::SERVICE, roles::WORKER].map(|role| world.database.url(role));
    let key = world.settings.key_encryption_key_path();
    let environment = [("STATUSLEDGER_KEY_ENCRYPTION_KEY_FILE", key.to_str().unwrap())];
    let serve = ["serve", "--data-dir", "node", "--port", "0", "--instance", "status.example.com"];
    let databases = ["--database-url", &service, "--worker-database-url", &worker];
    let log = directory.join("log");
    let program = Program::start(&directory, &log, &[&serve[..], &databases].concat(), &environment).await;
    crate::harness::eventually("the address is left", || async {
        directory.join("node/address").exists().then_some(())
    })
    .await;
    let export = |out: &'static str| ["export", "--data-dir", "node", "--workspace", "Acme", "--out", out];
    let output = run(&directory, &export("remote.zip"), &[]).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    verify_export(&directory.join("remote.zip"), &world.pin()).unwrap();
    let exported = workspace.entries_of("audit.ledger.exported").await;
    assert_eq!((exported.len(), &exported[0]["data"]["surface"]), (1, &json!("cli")));
    assert_eq!(exported[0]["data"]["actor"]["type"], "api_key", "{}", exported[0]);
    let there = [
        environment[0],
        ("STATUSLEDGER_DATABASE_URL", service.as_str()),
        ("STATUSLEDGER_WORKER_DATABASE_URL", worker.as_str()),
    ];
    // A node that was killed leaves its address, at which nobody is: then the database is read.
    program.kill().await;
    assert!(directory.join("node/address").exists());
    let output = run(&directory, &export("local.zip"), &there).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    verify_export(&directory.join("local.zip"), &world.pin()).unwrap();
    let status = async || text(&run(&directory, &["status", "--data-dir", "node"], &[]).await.stderr);
    assert!(status().await.starts_with("statusledger: cannot reach http://127.0.0.1:"), "{}", status().await);
    std::fs::remove_file(directory.join("node/address")).unwrap();
    let expected = "statusledger: no node is running over node; start `statusledger up --data-dir node`, or give --url\n";
    assert_eq!(status().await, expected);
}

#[tokio::test]
async fn a_new_instance_says_what_to_do_next_and_tail_names_what_it_is_about() {
    let desk = Desk::new().await;
    let status = desk.said(&["status"]).await;
    assert!(
        status.out.is_empty() && status.err.contains("statusledger sources add app-store --help"),
        "{}",
        status.err
    );
    desk.workspace.inbound("Nightly builds").await;
    let mut child = desk.command(&["tail", "-n", "20", "--type", "source.*,workspace.*"]).spawn().unwrap();
    let mut lines =
        tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(child.stdout.take().unwrap()));
    let first = lines.next_line().await.unwrap().unwrap();
    let second = lines.next_line().await.unwrap().unwrap();
    assert_eq!(&first[19..], "  -               workspace created", "{first}");
    assert_eq!(&second[19..], "  Nightly builds  source created", "{second}");
}

#[tokio::test]
async fn status_says_what_to_do_about_a_source_and_which_are_only_told() {
    let desk = Desk::new().await;
    desk.said(&["sources", "add", "app-store", "--name", "Told", "--webhook-secret", "apple.secret"]).await;
    let key = desk.simulator.app_store_key("Acme").unwrap();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let add =
        ["sources", "add", "app-store", "--name", "Away", "--p8", "AuthKey.p8", "--key-id", &key.key_id];
    let base = format!("http://{nobody}");
    desk.said(&[&add[..], &["--issuer-id", &key.issuer_id, "--base-url", &base]].concat()).await;
    crate::harness::eventually("the store is found to be away", || async {
        desk.items("sources").await.iter().any(|s| s["health"] == "degraded").then_some(())
    })
    .await;
    let status = desk.said(&["status"]).await.out;
    let lines: Vec<&str> = status.lines().collect();
    let told = lines.iter().find(|line| line.starts_with("Told")).unwrap();
    assert!(told.contains("only told"), "{status}");
    let away = lines.iter().position(|line| line.starts_with("Away") && line.contains("degraded")).unwrap();
    assert!(lines[away + 1].starts_with("    Nothing to do: the store is asked again"), "{status}");
    let document = desk.said(&["status", "--json"]).await.json();
    assert_eq!(document["sources"][0]["advice"], Value::Null);
    assert!(document["sources"][1]["advice"].as_str().unwrap().starts_with("Nothing to do"));
}

#[tokio::test]
async fn a_demo_that_runs_can_be_asked() {
    let directory = temporary("demo");
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let port = address.port().to_string();
    let arguments = ["demo", "--data-dir", "demo", "--port", &port];
    let mut demo = Command::new(env!("CARGO_BIN_EXE_statusledger"));
    let mut demo = demo
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .args(arguments)
        .current_dir(&directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(demo.stdout.take().unwrap()));
    // Whoever finds it serving finds the token.
    eventually_within(Duration::from_secs(90), "the demo serves", || async {
        tokio::net::TcpStream::connect(address).await.is_ok().then_some(())
    })
    .await;
    assert!(directory.join("demo/bootstrap-token").exists(), "it serves before there is a token");
    let suggested = loop {
        let line = lines.next_line().await.unwrap().expect("it says how it can be asked");
        if let Some(suggested) = line.trim().strip_prefix("try       ") {
            break suggested.to_owned();
        }
    };
    // It is read to its end, so that it does not wait for its reader.
    let read = tokio::spawn(async move { while lines.next_line().await.unwrap().is_some() {} });
    // As whoever started it would paste it, with nothing of it in the PATH.
    assert!(suggested.starts_with(env!("CARGO_BIN_EXE_statusledger")), "{suggested}");
    let mut shell = Command::new("/bin/sh");
    let output = shell.args(["-c", &suggested]).current_dir(&directory).output().await.unwrap();
    assert!(output.status.success(), "{suggested}: {}", text(&output.stderr));
    let pid = i32::try_from(demo.id().unwrap()).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(demo.wait().await.unwrap().success());
    read.await.unwrap();
    assert!(!directory.join("demo/address").exists() && directory.join("demo/bootstrap-token").exists());
}

#[tokio::test]
async fn a_demo_without_a_directory_says_that_it_keeps_nothing() {
    let directory = temporary("demo");
    let output = run(&directory, &["demo", "--events", "1"], &[]).await;
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}{}", text(&output.stderr));
    let place = said.lines().find_map(|line| line.trim().strip_prefix("data ")).unwrap().trim();
    assert!(!std::path::Path::new(place).exists(), "{place}");
    let last = said.lines().last().unwrap().trim();
    assert!(last.starts_with(&format!("removed   {place}; ")) && last.contains("--data-dir DIR"), "{last}");
}

#[tokio::test]
async fn a_demo_that_fails_removes_what_it_made_and_nothing_else() {
    let directory = temporary("demo");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let fails = async |data: &str, more: &[&str]| {
        let output = run(&directory, &[&["demo", "--data-dir", data][..], more].concat(), &[]).await;
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
        text(&output.stderr)
    };
    let said = fails("new", &["--port", &port]).await;
    assert!(said.contains("cannot listen on"), "{said}");
    assert!(!directory.join("new").exists(), "{said}");
    std::fs::create_dir(directory.join("old")).unwrap();
    std::fs::write(directory.join("old/heads"), "").unwrap();
    std::fs::write(directory.join("old/notes"), "mine").unwrap();
    fails("old", &["--port", &port]).await;
    let mut left: Vec<_> =
        std::fs::read_dir(directory.join("old")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["heads", "notes"], "what was there before");
    // Of a node that serves there it takes nothing.
    let up = ["up", "--data-dir", "data", "--port", "0"];
    let program = Program::start(&directory, &directory.join("log"), &up, &[]).await;
    let said = fails("data", &[]).await;
    assert!(said.contains("in use by another process"), "{said}");
    assert!(!directory.join("data/stores").exists() && directory.join("data/address").exists());
    assert!(program.terminate().await);
    let program = Program::start(&directory, &directory.join("log"), &up, &[]).await;
    assert!(program.terminate().await);
}

#[tokio::test]
async fn a_start_that_cannot_be_says_why_at_once_and_makes_nothing() {
    let directory = temporary("starts");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = run(&directory, &["up", "--data-dir", "data", "--port", &port], &[]).await;
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(
        lines[0],
        format!("statusledger: 127.0.0.1:{port} is in use; waiting up to 3 s for it to be free")
    );
    assert!(lines[1].starts_with(&format!("statusledger: cannot listen on 127.0.0.1:{port}: ")), "{said}");
    assert!(lines.len() == 2 && !directory.join("data").exists(), "{said}");
    drop(taken);

    let log = directory.join("log");
    let up = ["up", "--data-dir", "data", "--port", "0"];
    let program = Program::start(&directory, &log, &up, &[]).await;
    let output = run(&directory, &up, &[]).await;
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let (first, last) = (said.lines().next().unwrap(), said.lines().last().unwrap());
    assert!(first.contains("in use by another process") && first.contains("waiting up to 3 s"), "{said}");
    assert!(last.contains("in use by another process"), "{said}");
    assert!(program.terminate().await);

    // Who misnames a workspace hears that, whatever else is missing.
    std::fs::rename(directory.join("data/key-encryption-key"), directory.join("kept")).unwrap();
    let export = |workspace: &'static str| {
        let directory = &directory;
        async move {
            let arguments =
                ["export", "--data-dir", "data", "--workspace", workspace, "--out", "x.zip", "--json"];
            let output = run(directory, &arguments, &[]).await;
            assert_eq!(output.status.code(), Some(1));
            text(&output.stderr).lines().last().unwrap().to_owned()
        }
    };
    assert_eq!(export("Nope").await, "statusledger: there is no workspace \"Nope\"");
    let own = export("localhost").await;
    assert!(own.contains("data/key-encryption-key"), "{own}");
}
