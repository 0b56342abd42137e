//! `apply`: a workspace becomes what a file says, and nothing else happens.

use super::Desk;
use serde_json::{Value, json};
use sha2::Digest;
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;

/// Which types of entries a workspace has got, but for what stores say and how sources fare.
async fn acts(desk: &Desk) -> Vec<String> {
    let entries = desk.workspace.entries().await;
    let types = entries.iter().map(|e| e["type"].as_str().unwrap().to_owned());
    types.filter(|t| t.starts_with("audit.")).collect()
}

/// The lines of standard output.
fn lines(out: &str) -> Vec<&str> {
    out.lines().collect()
}

/// A source of each kind and two destinations.
fn full(desk: &Desk) -> String {
    let key = desk.simulator.app_store_key("Acme").unwrap();
    format!(
        r#"
workspace = "Acme"

[[source]]
kind = "app_store"
name = "Apple"
key_id = "{}"
issuer_id = "{}"
private_key_file = "AuthKey.p8"
webhook_secret_file = "apple.secret"
base_url = "{}"

[[source]]
kind = "google_play"
name = "Play"
service_account_env = "PLAY_ACCOUNT"
publisher_url = "{}"
reporting_url = "{}"

[[source]]
kind = "inbound"
name = "CI"
token_file = "ci.token"

[[destination]]
name = "hook"
url = "http://127.0.0.1:9/hook"
filter = {{ types = ["store.*"], sources = ["Apple", "Play"] }}
secret_file = "hook.secret"

[[destination]]
name = "quiet"
url_file = "quiet.url"
enabled = false
max_in_flight = 4
"#,
        key.key_id,
        key.issuer_id,
        desk.simulator.app_store_base_url(),
        desk.simulator.publisher_base_url(),
        desk.simulator.reporting_base_url(),
    )
}

const APPLY: [&str; 3] = ["apply", "-f", "statusledger.toml"];

impl Desk {
    async fn applied(&self, more: &[&str]) -> super::Said {
        let output = self.applying(more).output().await.unwrap();
        let (out, err) = (super::text(&output.stdout), super::text(&output.stderr));
        assert!(output.status.success(), "{out}{err}");
        super::Said { out, err }
    }

    async fn not_applied(&self, more: &[&str]) -> (i32, String, String) {
        let output = self.applying(more).output().await.unwrap();
        let told = super::text(&output.stderr);
        let sentences: Vec<&str> = told.lines().filter_map(|l| l.strip_prefix("statusledger: ")).collect();
        (output.status.code().unwrap(), sentences.join("\n"), super::text(&output.stdout))
    }

    fn applying(&self, more: &[&str]) -> tokio::process::Command {
        let mut command = self.command(&[&APPLY[..], more].concat());
        command.env("PLAY_ACCOUNT", self.read("account.json"));
        command
    }
}

#[tokio::test]
async fn a_workspace_becomes_what_the_file_says_and_stays_so() {
    let desk = Desk::new().await;
    desk.write("statusledger.toml", &full(&desk));
    desk.write("quiet.url", "http://127.0.0.1:9/MARK-token\n");
    let expected = [
        "+ source \"Apple\" (app_store)",
        "+ source \"Play\" (google_play)",
        "+ source \"CI\" (inbound)",
        "+ destination \"hook\" to http://127.0.0.1:9/hook",
        "+ destination \"quiet\"",
    ];
    let before = acts(&desk).await;
    let dry = desk.applied(&["--dry-run"]).await;
    assert_eq!(lines(&dry.out), [&expected[..], &["5 changes to make; nothing was changed"]].concat());
    assert_eq!(acts(&desk).await, before, "a dry run leaves no entry");
    assert!(!desk.directory.join("ci.token").exists() && !desk.directory.join("hook.secret").exists());

    let done = desk.applied(&[]).await;
    assert_eq!(lines(&done.out), [&expected[..], &["5 changes made"]].concat());
    assert_eq!(desk.names("sources").await, ["Apple", "CI", "Play"]);
    let destinations = desk.items("destinations").await;
    let sources: Vec<Value> = desk
        .items("sources")
        .await
        .iter()
        .filter(|s| s["kind"] != "inbound")
        .map(|s| s["id"].clone())
        .collect();
    assert_eq!(destinations[0]["filter"], json!({ "types": ["store.*"], "sources": sources }));
    assert_eq!(destinations[1]["url"], "http://127.0.0.1:9/MARK-token");
    assert_eq!(destinations[1]["max_in_flight"], 4);
    assert!(destinations[0]["disabled_at"].is_null() && destinations[1]["disabled_at"].is_string());
    // What is shown once is in its file, for its owner alone, and nowhere else.
    for (file, start) in [("ci.token", "sl_in_"), ("hook.secret", "whsec_")] {
        let secret = desk.read(file);
        assert!(secret.starts_with(start) && secret.ends_with('\n'), "{file}");
        let mode = std::fs::metadata(desk.directory.join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
        assert!(!done.out.contains(secret.trim()) && !done.err.contains(secret.trim()), "{file}");
    }
    for said in [&dry.out, &dry.err, &done.out, &done.err] {
        assert!(!said.contains("MARK") && !said.contains("PRIVATE KEY"), "{said}");
    }
    let left = std::fs::read_dir(&desk.directory).unwrap();
    assert!(left.into_iter().all(|e| !e.unwrap().file_name().to_str().unwrap().contains(".part")));
    let source = desk.items("sources").await.into_iter().find(|s| s["name"] == "CI").unwrap();
    let posted = desk.world.api.bare("POST", &format!("/in/{}", source["id"].as_str().unwrap()));
    assert_eq!(
        posted.bearer_auth(desk.read("ci.token").trim()).body("x").send().await.unwrap().status(),
        202
    );

    // A second time there is nothing to do, also where the keys are elsewhere by now.
    let before = acts(&desk).await;
    for file in ["AuthKey.p8", "account.json", "apple.secret"] {
        std::fs::rename(desk.directory.join(file), desk.directory.join(format!("{file}.away"))).unwrap();
    }
    let output = desk.command(&APPLY).output().await.unwrap();
    let told = super::text(&output.stderr);
    assert_eq!(super::text(&output.stdout), "nothing to change\n", "{told}");
    assert!(
        told.contains("not compared, since their keys are not where the file says: \"Apple\", \"Play\""),
        "{told}"
    );
    let mut after = before;
    after.push("audit.configuration.applied".to_owned());
    assert_eq!(acts(&desk).await, after, "but that it was applied");
}

#[tokio::test]
async fn only_what_differs_is_changed_and_only_pruning_removes() {
    let desk = Desk::new().await;
    let mut file =
        "workspace = \"Acme\"\n\n[[destination]]\nname = \"hook\"\nurl = \"http://127.0.0.1:9/a\"\n"
            .to_owned();
    desk.write("statusledger.toml", &file);
    desk.workspace.inbound("old").await;
    let first = desk.applied(&[]).await;
    assert!(first.err.contains("rotate-secret"), "{}", first.err);
    assert!(first.err.contains("left alone (--prune removes them): source \"old\""), "{}", first.err);
    let id = desk.items("destinations").await[0]["id"].clone();
    file.push_str("max_in_flight = 4\nopenings = false\nfilter = { types = [\"store.*\", \"event.*\"] }\n");
    desk.write("statusledger.toml", &file);
    let line = "~ destination \"hook\": filter.types all → event.*,store.*, openings true → false, max_in_flight 1 → 4";
    let dry = desk.applied(&["--dry-run", "--prune"]).await;
    assert_eq!(lines(&dry.out), [line, "- source \"old\"", "2 changes to make; nothing was changed"]);
    let changed = desk.applied(&["--json"]).await.json();
    let changes = json!({
        "filter.types": { "from": [], "to": ["event.*", "store.*"] },
        "openings": { "from": true, "to": false },
        "max_in_flight": { "from": 1, "to": 4 },
    });
    let expected = json!({ "action": "change", "kind": "destination", "name": "hook", "changes": changes, "done": true });
    assert_eq!((&changed["changes"], &changed["dry_run"]), (&json!([expected]), &json!(false)));
    assert_eq!(desk.items("destinations").await[0]["id"], id, "the same destination");
    assert_eq!(desk.names("sources").await, ["old"]);
    // What somebody changed by hand is set back; that it was disabled is not, unless the file says so.
    desk.said(&["destinations", "update", "hook", "--max-in-flight", "9", "--disable"]).await;
    let back = desk.applied(&[]).await;
    assert_eq!(lines(&back.out), ["~ destination \"hook\": max_in_flight 9 → 4", "1 change made"]);
    assert!(desk.items("destinations").await[0]["disabled_at"].is_string());
    desk.write(
        "statusledger.toml",
        &format!("{file}enabled = true\n").replace("workspace = \"Acme\"\n", "prune = true\n"),
    );
    let pruned = desk.applied(&[]).await;
    let expected = ["~ destination \"hook\": enabled false → true", "- source \"old\"", "2 changes made"];
    assert_eq!(lines(&pruned.out), expected);
    assert_eq!(desk.names("sources").await, [""; 0]);
    desk.write("statusledger.toml", "prune = true\n");
    assert_eq!(lines(&desk.applied(&[]).await.out), ["- destination \"hook\"", "1 change made"]);
    assert_eq!(desk.applied(&[]).await.line(), "nothing to change");
}

#[tokio::test]
async fn what_is_wrong_is_said_with_its_place_before_anything_is_changed() {
    let desk = Desk::new().await;
    desk.workspace.inbound("taken").await;
    let before = acts(&desk).await;
    let good = "[[destination]]\nname = \"hook\"\nurl = \"http://127.0.0.1:9/\"\n";
    desk.write("no-key.p8", "MARK");
    desk.write("there", "already");
    desk.write("short", "MARK");
    for (more, place) in [
        ("max_inflight = 4\n", "4:1: unknown field `max_inflight`"),
        ("[[source]]\nkind = \"inbound\"\n", "4:1: missing field `name`"),
        ("max_in_flight = \"four\"\n", "4:17: invalid type"),
        ("max_in_flight = 400\n", "4:17: max_in_flight is 1 to 256"),
        ("filter = { typs = [\"x\"] }\n", "4:12: unknown field `typs`"),
        ("filter = { types = [\"store.*\", \"Store\"] }\n", "4:32: filter.types[1]"),
        ("\n[destination.filter]\napps = [\n  \"a\",\n  \"\",\n]\n", "8:3: filter.apps[1]"),
        ("filter = { sources = [\"nobody\"] }\n", "4:23: filter.sources: there is no source \"nobody\""),
        (
            "filter = { sources = [\"\\u001b[2J\"] }\n",
            "4:23: filter.sources: there is no source \"\u{fffd}[2J\"",
        ),
        ("url_file = \"x\"\n", "4:12: a destination has one of"),
        ("secret_file = \"there\"\n", "4:15: there exists already"),
        ("secret_file = \"nowhere/x\"\n", "4:15: cannot write nowhere/x"),
        ("nonsense\n", "4:"),
        (
            "[[destination]]\nname = \"hook\"\nurl = \"http://127.0.0.1:9/\"\n",
            "5:8: two destinations are called",
        ),
        ("[[destination]]\nname = \"other\"\nurl = \"ftp://127.0.0.1\"\n", "6:7: the address is not one"),
        ("[[source]]\nkind = \"play\"\nname = \"x\"\n", "5:8: unknown variant `play`"),
        ("\"x\\u001b]0;P\\u0007\" = 1\n", "4:1: unknown field `x\u{fffd}]0;P\u{fffd}`"),
        ("[[source]]\nkind = \"in\\u001b[2J\"\nname = \"x\"\n", "5:8: unknown variant `in\u{fffd}[2J`"),
        ("[[source]]\nkind = \"inbound\"\nname = \"x\"\n", "6:8: a source of this kind needs token_file"),
        (
            "[[source]]\nkind = \"inbound\"\nname = \"x\"\nkey_id = \"x\"\n",
            "7:10: a source of the kind inbound has no key_id",
        ),
        ("[[source]]\nkind = \"app_store\"\nname = \"x\"\n", "6:8: a source of this kind needs key_id"),
        (
            "[[source]]\nkind = \"app_store\"\nname = \"x\"\nkey_id = \"K\"\nprivate_key_file = \"nowhere.p8\"\n",
            "8:20: cannot read the private key from nowhere.p8",
        ),
        (
            "[[source]]\nkind = \"app_store\"\nname = \"x\"\nkey_id = \"K\"\nprivate_key_file = \"no-key.p8\"\n",
            "8:20: the key is not usable",
        ),
        (
            "[[source]]\nkind = \"app_store\"\nname = \"x\"\nissuer_id = \"I\"\nkey_id = \"K\"\n",
            "8:10: key_id and private_key_file (or private_key_env) go together",
        ),
        (
            "[[source]]\nkind = \"app_store\"\nname = \"x\"\nwebhook_secret_file = \"short\"\n",
            "7:23: a webhook secret has 8 to 255 bytes",
        ),
        (
            "[[source]]\nkind = \"google_play\"\nname = \"x\"\nservice_account_env = \"NOT_THERE\"\n",
            "7:23: the service account is not in the variable NOT_THERE",
        ),
        (
            "[[source]]\nkind = \"app_store\"\nname = \"taken\"\nwebhook_secret_file = \"apple.secret\"\n",
            "6:8: the source \"taken\" is there with the kind inbound",
        ),
    ] {
        desk.write("statusledger.toml", &format!("{good}{more}"));
        let (code, told, _) = desk.not_applied(&[]).await;
        let last = told.lines().last().unwrap_or_default();
        assert!(code == 1 && last.starts_with(&format!("statusledger.toml:{place}")), "{more}: {told}");
        assert!(!told.contains("MARK"), "{told}");
    }
    desk.write("statusledger.toml", good);
    let (code, told, _) = desk.not_applied(&["--replace-keys", "nobody"]).await;
    assert_eq!((code, told.as_str()), (2, "--replace-keys: the file has no source \"nobody\""));
    desk.write("statusledger.toml", &format!("workspace = \"Acme\"\n{good}"));
    let (code, told, _) = desk.not_applied(&["--workspace", "Other"]).await;
    assert_eq!((code, told.as_str()), (2, "the file names another workspace than --workspace"));
    // The service's settings have the same name in many places.
    for (settings, which) in [
        ("instance = \"status.example.com\"\n[delivery]\nallow_http = true\n", "delivery"),
        // Also one that the service would refuse.
        ("[[access.providers]]\nid = \"x\"\n", "access"),
        ("prot = 1\n[access]\nsession_idle_h = \"long\"\n", "access"),
    ] {
        desk.write("statusledger.toml", settings);
        let (code, told, _) = desk.not_applied(&[]).await;
        let expected = format!(
            "statusledger.toml seems to be the service's settings file (`{which}` is a setting), which `--config` takes"
        );
        assert!(code == 1 && told.starts_with(&expected), "{told}");
    }
    // What has something of a workspace's is a file of one, with a member that it has not.
    desk.write("statusledger.toml", &format!("{good}[access]\nsession_idle_h = 1.0\n"));
    let (code, told, _) = desk.not_applied(&[]).await;
    assert!(code == 1 && told.starts_with("statusledger.toml:4:2: unknown field `access`"), "{told}");
    std::fs::remove_file(desk.directory.join("statusledger.toml")).unwrap();
    let (code, told, _) = desk.not_applied(&[]).await;
    assert!(code == 1 && told.starts_with("cannot read statusledger.toml"), "{told}");
    assert_eq!(acts(&desk).await, before);
    assert_eq!(
        (desk.names("sources").await, desk.names("destinations").await.len()),
        (vec!["taken".to_owned()], 0)
    );
}

#[tokio::test]
async fn the_first_refusal_ends_it_and_the_next_time_it_goes_on_from_there() {
    let desk = Desk::new().await;
    let destination =
        |name: &str, url: &str| format!("[[destination]]\nname = \"{name}\"\nurl = \"{url}\"\n");
    let text = destination("a", "http://127.0.0.1:9/")
        + &destination("b", "http://10.1.2.3/")
        + &destination("c", "http://127.0.0.1:9/");
    desk.write("statusledger.toml", &text);
    let (code, told, out) = desk.not_applied(&[]).await;
    assert_eq!(code, 1);
    assert!(out.starts_with("+ destination \"a\" to http://127.0.0.1:9/\n"), "{out}");
    let said: Vec<&str> = told.lines().rev().take(2).collect();
    let not_made = "1 of 3 made; not made: + destination \"b\" to http://10.1.2.3/, + destination \"c\" to http://127.0.0.1:9/";
    assert_eq!(said[1], not_made);
    assert!(said[0].contains("422") && said[0].contains("the address is refused"), "{told}");
    assert_eq!(desk.names("destinations").await, ["a"]);
    desk.write("statusledger.toml", &text.replace("10.1.2.3", "127.0.0.1:9"));
    assert_eq!(desk.applied(&[]).await.out.lines().last(), Some("2 changes made"));
    assert_eq!(desk.names("destinations").await, ["a", "b", "c"]);
}

#[tokio::test]
async fn a_key_that_is_another_is_seen_and_replaced_in_place() {
    let desk = Desk::new().await;
    let right = desk.read("AuthKey.p8");
    desk.write("AuthKey.p8", &rcgen::KeyPair::generate().unwrap().serialize_pem());
    let told =
        "\n[[source]]\nkind = \"app_store\"\nname = \"Told\"\nwebhook_secret_file = \"apple.secret\"\n";
    let text = full(&desk)
        .replace("secret_file = \"hook.secret\"\n", "")
        .replace("webhook_secret_file = \"apple.secret\"\n", "webhook_secret_file = \"new.secret\"\n");
    desk.write("new.secret", "MARK another secret\n");
    desk.write("statusledger.toml", &format!("{text}{told}"));
    desk.write("quiet.url", "http://127.0.0.1:9/");
    desk.applied(&[]).await;
    let ids = async || -> Vec<(String, String)> {
        let of = |s: &Value, name: &str| s[name].as_str().unwrap().to_owned();
        desk.items("sources").await.iter().map(|s| (of(s, "name"), of(s, "id"))).collect()
    };
    let before = ids().await;
    assert_eq!(desk.applied(&[]).await.line(), "nothing to change", "with the keys where the file says");
    // The file's key is another: that is seen, and the source stays what it is.
    desk.write("AuthKey.p8", &right);
    let dry = desk.applied(&["--dry-run"]).await;
    assert_eq!(lines(&dry.out), ["~ source \"Apple\": key", "1 change to make; nothing was changed"]);
    let done = desk.applied(&["--json"]).await;
    let change = json!({ "action": "change", "kind": "source", "name": "Apple", "changes": { "key": null }, "done": true });
    assert_eq!(done.json()["changes"], json!([change]));
    assert!(done.err.contains("readable: "), "{}", done.err);
    assert_eq!(ids().await, before);
    assert_eq!(desk.applied(&[]).await.line(), "nothing to change");
    crate::harness::eventually("the store is asked with it", || async {
        let subjects = desk.items("subjects").await;
        subjects.iter().any(|s| s["app"] == "com.acme.weather").then_some(())
    })
    .await;
    // A webhook secret is not seen, and is given where that is asked for.
    desk.write("new.secret", "MARK a third secret\n");
    assert_eq!(desk.applied(&[]).await.line(), "nothing to change");
    let asked = desk.applied(&["--replace-keys", "Apple", "--replace-keys", "Told"]).await;
    let expected = [
        "~ source \"Apple\": key",
        "~ source \"Apple\": webhook secret",
        "~ source \"Told\": webhook secret",
        "3 changes made",
    ];
    assert_eq!(lines(&asked.out), expected);
    assert_eq!(ids().await, before);
    desk.said(&["sources", "webhook-secret", "Apple", "--none"]).await;
    let gone = desk.applied(&[]).await;
    assert_eq!(
        lines(&gone.out),
        ["~ source \"Apple\": webhook secret", "1 change made"],
        "that there is none is seen"
    );
    for said in [&dry, &done, &asked, &gone] {
        assert!(!format!("{}{}", said.out, said.err).contains("MARK"), "{}", said.err);
    }
    // Another account's is refused by the instance, unless it is meant.
    let individual = format!("{text}{told}")
        .lines()
        .filter(|l| !l.starts_with("issuer_id"))
        .collect::<Vec<_>>()
        .join("\n");
    desk.write("statusledger.toml", &individual);
    let (code, told, _) = desk.not_applied(&[]).await;
    assert!(code == 1 && told.contains("409") && told.contains("other_account"), "{told}");
    let (code, told, _) = desk.not_applied(&["--other-account", "nobody"]).await;
    assert_eq!((code, told.as_str()), (2, "--other-account: the file has no source \"nobody\""));
    assert_eq!(desk.applied(&["--other-account", "Apple"]).await.out.lines().last(), Some("1 change made"));
    // An inbound source has a token, which is another only if the source is.
    let (code, told, _) = desk.not_applied(&["--replace-keys", "CI"]).await;
    assert!(code == 1 && told.contains("ci.token exists already"), "{told}");
    std::fs::remove_file(desk.directory.join("ci.token")).unwrap();
    let replaced = desk.applied(&["--replace-keys", "CI"]).await;
    let line = "~ source \"CI\": token (it is removed, and added anew under another id)";
    assert_eq!(lines(&replaced.out), [line, "1 change made"]);
    let after = ids().await;
    let same = |all: &[(String, String)]| -> BTreeSet<(String, String)> {
        all.iter().filter(|(name, _)| name != "CI").cloned().collect()
    };
    assert_eq!(same(&after), same(&before));
    assert_ne!(after.iter().find(|(name, _)| name == "CI"), before.iter().find(|(name, _)| name == "CI"));
}

#[tokio::test]
async fn each_real_run_is_on_the_record_with_what_the_ledger_knows_of_it() {
    let desk = Desk::new().await;
    let file = "[[source]]\nkind = \"inbound\"\nname = \"CI\"\ntoken_file = \"ci.token\"\n\
                [[destination]]\nname = \"hook\"\nurl = \"http://127.0.0.1:9/\"\nenabled = false\n";
    desk.write("statusledger.toml", file);
    desk.applied(&["--dry-run"]).await;
    let runs = async || desk.workspace.entries_of("audit.configuration.applied").await;
    assert_eq!(runs().await, [Value::Null; 0], "a dry run leaves nothing");
    desk.applied(&[]).await;
    let run = runs().await.remove(0)["data"].clone();
    assert_eq!((&run["surface"], &run["outcome"]), (&json!("cli"), &json!("success")));
    assert_eq!(run["targets"], json!([{ "type": "workspace", "id": desk.workspace.id.to_string() }]));
    let details = &run["details"];
    let sha256: String =
        sha2::Sha256::digest(file.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    let planned = json!({ "add": 2, "change": 0, "remove": 0, "replace": 0 });
    assert_eq!(details["claimed"], json!({ "complete": true, "planned": planned, "sha256": sha256 }));
    // A destination that is made disabled is made and then changed.
    let acts = json!({ "destination.created": 1, "destination.updated": 1, "source.created": 1 });
    assert_eq!((&details["acts"], &details["changes"]), (&acts, &json!(3)));
    let entries = desk.workspace.entries().await;
    let named: Vec<&Value> = details["entries"].as_array().unwrap().iter().collect();
    for seq in &named {
        let entry = entries.iter().find(|e| e["seq"] == **seq).unwrap();
        assert!(entry["type"].as_str().unwrap().starts_with("audit."));
        assert_eq!(entry["data"]["actor"], run["actor"]);
    }
    assert_eq!(named.len(), 3);

    // One that is refused midway says so; what was not done is not among its entries.
    desk.write("statusledger.toml", &format!("{file}[[destination]]\nname = \"b\"\nurl = \"http://127.0.0.1:9/\"\n[[destination]]\nname = \"c\"\nurl = \"http://10.1.2.3/\"\n"));
    assert_eq!(desk.not_applied(&[]).await.0, 1);
    let details = runs().await.remove(1)["data"]["details"].clone();
    assert_eq!((&details["claimed"]["complete"], &details["changes"]), (&json!(false), &json!(1)));
    assert_eq!(details["claimed"]["planned"]["add"], 2);
    // Nobody names what another has done, what was refused, or what there never was.
    let made = desk.workspace.entries_of("audit.destination.created").await.remove(0);
    let path = desk.workspace.at("/configurations");
    let key = json!({ "name": "k", "scopes": ["destinations:write"] });
    let key = desk.world.api.post(&desk.workspace.at("/keys"), key).await.expect(201).json();
    let body = json!({
        "sha256": sha256, "planned": {}, "complete": true,
        "requests": [made["data"]["request"], "0199b1c4-0000-7000-8000-000000000001"],
    });
    let request = desk.world.api.bare("POST", &path).bearer_auth(key["token"].as_str().unwrap());
    let answer = crate::harness::send(request.json(&body)).await.expect(201).json();
    assert_eq!(answer["changes"], 0);
    let lie = runs().await.pop().unwrap();
    assert_eq!((&lie["seq"], &lie["data"]["details"]["entries"]), (&answer["seq"], &json!([])));
    let own = desk.world.api.post(&path, body.clone()).await.expect(201).json();
    assert_eq!(own["changes"], 1, "whose it is names it");
    for (member, wrong) in
        [("sha256", json!("x")), ("requests", json!(vec![sha256.clone()])), ("planned", json!({ "more": 1 }))]
    {
        let mut body = body.clone();
        body[member] = wrong;
        assert_eq!(desk.world.api.post(&path, body).await.problem(422), "invalid", "{member}");
    }
    desk.world.assert_whole(&[&desk.workspace]).await;
}

#[tokio::test]
async fn several_that_apply_at_once_double_nothing() {
    let desk = Desk::new().await;
    let mut text = full(&desk)
        .replace("secret_file = \"hook.secret\"", "")
        .replace("url_file = \"quiet.url\"", "url = \"http://127.0.0.1:9/q\"");
    // Each has a file of its own for what it is shown.
    for n in 0..3 {
        text.push_str(&format!("\n[[destination]]\nname = \"more {n}\"\nurl = \"http://127.0.0.1:9/{n}\"\n"));
    }
    let mut running = Vec::new();
    for n in 0..4 {
        let name = format!("{n}.toml");
        desk.write(&name, &text.replace("ci.token", &format!("ci-{n}.token")));
        let mut command = desk.command(&["apply", "-f", &name]);
        running.push(command.env("PLAY_ACCOUNT", desk.read("account.json")).spawn().unwrap());
    }
    for child in running {
        let output = child.wait_with_output().await.unwrap();
        assert!(output.status.success(), "{}", super::text(&output.stderr));
    }
    assert_eq!(desk.names("sources").await, ["Apple", "CI", "Play"]);
    assert_eq!(desk.names("destinations").await, ["hook", "more 0", "more 1", "more 2", "quiet"]);
    let tokens: BTreeSet<bool> =
        (0..4).map(|n| desk.directory.join(format!("ci-{n}.token")).exists()).collect();
    assert_eq!(tokens.len(), 2, "one of them has the token");
    desk.write("statusledger.toml", &text);
    desk.write("quiet.url", "http://127.0.0.1:9/q");
    assert_eq!(desk.applied(&[]).await.line(), "nothing to change");
}

#[tokio::test]
async fn the_file_in_the_documentation_can_be_applied() {
    let desk = Desk::new().await;
    let documentation = include_str!("../../docs/operations.md");
    let section = documentation.split("\n## Configuration in a file\n").nth(1).unwrap();
    let example = section.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let replaced = |text: String, from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        text.replace(from, to)
    };
    let key = desk.simulator.app_store_key("Acme").unwrap();
    let base = desk.simulator.app_store_base_url();
    // The stores are ours, and so is the receiver.
    let mut text = replaced(example.to_owned(), "keys/AuthKey_2X9R4HXF34.p8", "AuthKey.p8");
    text = replaced(text, "2X9R4HXF34", &key.key_id);
    text = replaced(text, "57246542-96fe-1a63-e053-0824d011072a", &key.issuer_id);
    text =
        replaced(text, "kind = \"app_store\"\n", &format!("kind = \"app_store\"\nbase_url = \"{base}\"\n"));
    let urls = format!(
        "kind = \"google_play\"\npublisher_url = \"{}\"\nreporting_url = \"{}\"\n",
        desk.simulator.publisher_base_url(),
        desk.simulator.reporting_base_url()
    );
    text = replaced(text, "kind = \"google_play\"\n", &urls);
    text = replaced(text, "https://hooks.example.com/", "http://127.0.0.1:9/");
    desk.write("statusledger.toml", &text);
    let done = desk.applied(&[]).await;
    assert!(done.out.ends_with(" changes made\n"), "{}", done.out);
    assert_eq!(desk.applied(&[]).await.line(), "nothing to change");
}

#[tokio::test]
async fn openings_are_what_the_key_may_take_away_unless_the_file_says_so() {
    let desk = Desk::new().await;
    let key = async |scopes: &[&str]| {
        let body = json!({ "name": "applies", "scopes": scopes });
        let made = desk.world.api.post(&desk.workspace.at("/keys"), body).await.expect(201).json();
        made["token"].as_str().unwrap().to_owned()
    };
    let (write, admin) = (key(&["write"]).await, key(&["admin"]).await);
    let apply = async |token: &str| {
        let output = desk.applying(&[]).env("STATUSLEDGER_TOKEN", token).output().await.unwrap();
        (output.status.success(), super::text(&output.stdout), super::text(&output.stderr))
    };
    let openings = async || {
        let all = desk.items("destinations").await;
        all.iter().map(|d| (d["name"].clone(), d["openings"].clone())).collect::<Vec<_>>()
    };
    let hook = "workspace = \"Acme\"\n[[destination]]\nname = \"hook\"\nurl = \"http://127.0.0.1:9/hook\"\n";
    desk.write("statusledger.toml", hook);
    // A key that may not take openings away applies a file that says nothing of them.
    let (done, _, told) = apply(&write).await;
    assert!(done, "{told}");
    assert_eq!(openings().await, [(json!("hook"), json!(false))]);
    // One that may leaves what is there, and gives them to what it makes; then the first leaves that.
    let other = "[[destination]]\nname = \"other\"\nurl = \"http://127.0.0.1:9/other\"\n";
    desk.write("statusledger.toml", &format!("{hook}{other}"));
    assert!(apply(&admin).await.0);
    let expected = [(json!("hook"), json!(false)), (json!("other"), json!(true))];
    assert_eq!(openings().await, expected);
    desk.write("statusledger.toml", &format!("{hook}max_in_flight = 2\n{other}max_in_flight = 2\n"));
    let (done, _, told) = apply(&write).await;
    assert!(done, "{told}");
    assert_eq!(openings().await, expected);
    assert_eq!(apply(&write).await.1, "nothing to change\n");
    // Asked for, they are refused to who may not, in words that say what to do.
    for (file, first) in [
        (
            format!("{hook}openings = true\nmax_in_flight = 2\n"),
            "~ destination \"hook\": openings false → true",
        ),
        (format!("{other}openings = true\n").replace("other", "third"), "+ destination \"third\""),
    ] {
        desk.write(
            "statusledger.toml",
            &file.replace("[[", "workspace = \"Acme\"\n[[").replacen(
                "workspace = \"Acme\"\nworkspace",
                "workspace",
                1,
            ),
        );
        let (done, out, told) = apply(&write).await;
        assert!(!done && out.starts_with(first), "{out}");
        assert!(told.contains("403") && told.contains("openings need ledger:export"), "{told}");
        assert_eq!(openings().await, expected);
    }
}
