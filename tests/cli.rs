//! What a person sees on the command line, over the API: `status`, `tail`, `history`.

use crate::harness::{DEADLINE, Program, Workspace, World, eventually, run, temporary};
use serde_json::{Value, json};
use statusledger::database::roles;
use statusledger_simulator::{Options, Scenario, Simulator, Step};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// What a store may call an app: it rings, paints, reverses, and clears the screen in C0 and in C1.
const HOSTILE: &str = "Evil\u{1b}[31m\u{7}\u{202e}\u{1b}]0;title\u{7}\u{9b}2JApp";

const SCENARIO: &str = r#"
[[app_store]]
name = "Acme"
apps = [
    { id = "1001", name = "Acme Weather", bundle_id = "com.acme.weather" },
    { id = "1002", name = "Evil\u001b[31m\u0007\u202e\u001b]0;title\u0007\u009b2JApp", bundle_id = "com.evil.app" },
]

[[app_store.builds]]
id = "b42"
app = "1001"
platform = "IOS"
version = "42"
pre_release_version = "1.10.0"
processing_state = "PROCESSING"

[[app_store.versions]]
id = "v180"
app = "1001"
platform = "IOS"
version_string = "1.8.0"
state = "REPLACED_WITH_NEW_VERSION"

[[app_store.versions]]
id = "v190"
app = "1001"
platform = "IOS"
version_string = "1.9.0"
state = "READY_FOR_DISTRIBUTION"

[[app_store.versions]]
id = "v1100"
app = "1001"
platform = "IOS"
version_string = "1.10.0"
state = "PREPARE_FOR_SUBMISSION"

[[app_store.versions]]
id = "m110"
app = "1001"
platform = "MAC_OS"
version_string = "1.1.0"
state = "READY_FOR_DISTRIBUTION"

[[app_store.versions]]
id = "e100"
app = "1002"
platform = "TV_OS"
version_string = "1.0.0"
state = "IN_REVIEW"

[[google_play]]
name = "acme"
apps = [{ package = "com.acme.weather.play", display_name = "Acme Weather", tracks = ["production"] }]

[[google_play.releases]]
package = "com.acme.weather.play"
track = "production"
name = "3.0.0"
version_codes = [300]
state = "IN_REVIEW"
"#;

/// The subjects of the scenario.
const SUBJECTS: usize = 12;
/// Below the 30 seconds that requests here are willing to wait: whoever is back sooner was not left to wait them out.
const WAIT: Duration = Duration::from_secs(25);
/// Those of them that are settled: the apps themselves, an old version, a build for its testers.
const SETTLED: usize = 6;

fn version(id: &str, state: &str) -> Step {
    Step::VersionState { id: id.into(), state: state.into() }
}

/// A node whose workspace has seen what both stores have.
struct Scene {
    world: World,
    simulator: Simulator,
    workspace: Workspace,
    directory: PathBuf,
}

impl Scene {
    async fn new() -> Self {
        let options = Options { speed: Some(0.0), ..Options::default() };
        let scenario = Scenario::from_toml(SCENARIO).unwrap();
        let (world, simulator) = (World::new().await, Simulator::start(scenario, options).await.unwrap());
        let workspace = world.workspace("Acme").await;
        for request in crate::sources::requests(&simulator) {
            world.api.post(&workspace.at("/sources"), request).await.expect(201);
        }
        let scene = Self { world, simulator, workspace, directory: temporary("person") };
        scene.told("store.version.first_seen", 5).await;
        scene.told("store.build.first_seen", 1).await;
        scene.told("store.release.first_seen", 1).await;
        eventually("sources that are ok", || async {
            let sources = scene.world.api.get(&scene.workspace.at("/sources")).await.expect(200).json();
            sources["items"].as_array()?.iter().all(|s| s["health"] == "ok").then_some(())
        })
        .await;
        scene
    }

    /// Waits until so many entries of a type are recorded.
    async fn told(&self, kind: &str, count: usize) -> Vec<Value> {
        eventually(&format!("{count} {kind}"), || async {
            Some(self.workspace.entries_of(kind).await).filter(|found| found.len() >= count)
        })
        .await
    }

    /// Moves version `id` through `states`, one after the other as polls see them.
    async fn through(&self, id: &str, states: &[&str]) {
        for state in states {
            let before = self.workspace.entries_of("store.version.transitioned").await.len();
            self.simulator.apply(version(id, state)).unwrap();
            self.told("store.version.transitioned", before + 1).await;
        }
    }

    fn environment(&self) -> [(&str, &str); 2] {
        [("STATUSLEDGER_URL", &self.world.api.base), ("STATUSLEDGER_TOKEN", &self.world.api.token)]
    }

    /// Runs a command that has to succeed; answers its lines.
    async fn lines(&self, arguments: &[&str]) -> Vec<String> {
        lines(&run(&self.directory, arguments, &self.environment()).await)
    }

    /// The same for a command that gives one JSON document.
    async fn document(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.lines(arguments).await.join("\n")).unwrap()
    }
}

fn lines(output: &Output) -> Vec<String> {
    assert!(output.status.success(), "{output:?}");
    std::str::from_utf8(&output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// The lines of a table as cells: columns are two spaces apart.
fn cells(lines: &[String]) -> Vec<Vec<&str>> {
    lines.iter().map(|line| line.split("  ").map(str::trim).filter(|c| !c.is_empty()).collect()).collect()
}

/// The one sentence and the code that a command ends with.
fn refusal(output: &Output) -> (i32, String) {
    assert!(output.stdout.is_empty(), "{output:?}");
    let told = std::str::from_utf8(&output.stderr).unwrap();
    assert_eq!(told.lines().count(), 1, "{told}");
    let sentence = told.trim_end().strip_prefix("statusledger: ").unwrap_or_else(|| panic!("{told}"));
    (output.status.code().unwrap(), sentence.to_owned())
}

/// A `tail` that runs, and what it says.
struct Tail {
    child: Child,
    lines: Option<Lines<BufReader<ChildStdout>>>,
    log: PathBuf,
}

impl Tail {
    fn start(scene: &Scene, arguments: &[&str]) -> Self {
        let log = temporary("tail").join("log");
        let mut child = Command::new(env!("CARGO_BIN_EXE_statusledger"))
            .env_clear()
            .envs(scene.environment())
            .arg("tail")
            .args(arguments)
            .current_dir(&scene.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&log).unwrap())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = Some(BufReader::new(child.stdout.take().unwrap()).lines());
        Self { child, lines, log }
    }

    /// The next line.
    async fn line(&mut self) -> String {
        let next = self.lines.as_mut().unwrap().next_line();
        let line = tokio::time::timeout(DEADLINE, next).await.expect("a line in time").unwrap();
        line.unwrap_or_else(|| panic!("it ended: {}", self.said()))
    }

    async fn entry(&mut self) -> Value {
        serde_json::from_str(&self.line().await).unwrap()
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Its exit code, once it has ended.
    async fn ended(&mut self) -> Option<i32> {
        tokio::time::timeout(DEADLINE, self.child.wait()).await.expect("an end in time").unwrap().code()
    }

    fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();
    }
}

#[tokio::test]
async fn status_shows_each_app_platform_version_and_state_and_whom_to_believe() {
    let scene = Scene::new().await;
    let lines = scene.lines(&["status"]).await;
    let rows = cells(&lines);
    assert_eq!(rows[0], ["APP", "NAME", "PLATFORM", "VERSION", "STATE", "SINCE"]);
    let weather = ["com.acme.weather", "Acme Weather"];
    let expected = [
        (weather, ["iOS", "1.10.0", "PREPARE_FOR_SUBMISSION"]),
        (weather, ["iOS", "1.10.0 build 42", "PROCESSING"]),
        (weather, ["iOS", "1.9.0", "READY_FOR_DISTRIBUTION"]),
        (weather, ["macOS", "1.1.0", "READY_FOR_DISTRIBUTION"]),
        (["com.acme.weather.play", "Acme Weather"], ["Play production", "3.0.0 (300)", "IN_REVIEW"]),
    ];
    for (row, (app, state)) in rows[1..].iter().zip(&expected) {
        assert_eq!(row[..5], [&app[..], &state[..]].concat(), "{lines:#?}");
        assert!(row[5] == "now" || row[5].ends_with(" ago"), "{lines:#?}");
    }
    assert_eq!(rows[6][0], "com.evil.app");
    assert_eq!(rows[6][2..5], ["tvOS", "1.0.0", "IN_REVIEW"]);
    assert_eq!(rows[7], [""; 0]);
    assert_eq!(rows[8], ["SOURCE", "HEALTH", "LAST ASKED"]);
    assert_eq!((rows[9][0], rows[9][1]), ("App Store Connect", "ok"));
    assert_eq!((rows[10][0], rows[10][1]), ("Google Play", "ok"));
    assert_eq!(rows.len(), 11);
    // Columns stand below each other.
    let state = lines[0].find("STATE").unwrap();
    assert!(lines[1..6].iter().all(|line| line[..state].ends_with("  ")), "{lines:#?}");

    let apps = |lines: &[String]| -> Vec<String> {
        let rows = cells(lines);
        // Without an app there is the table of sources alone.
        let shown = rows.iter().skip_while(|row| row[0] != "APP").skip(1).take_while(|row| !row.is_empty());
        shown.map(|row| format!("{} {}", row[0], row[3])).collect()
    };
    assert_eq!(apps(&scene.lines(&["status", "com.acme.weather.play"]).await).len(), 1);
    assert_eq!(apps(&scene.lines(&["status", "acme weather"]).await).len(), 5, "by name, in either case");
    assert_eq!(apps(&scene.lines(&["status", "com.acme.*", "com.evil.app"]).await).len(), 6);
    let has = "it has com.acme.weather, com.acme.weather.play, com.evil.app";
    for pattern in ["com_acme_weather", "com.acme.wether"] {
        let nothing = refusal(&run(&scene.directory, &["status", pattern], &scene.environment()).await);
        let sentence = format!("no app of the workspace \"Acme\" is called \"{pattern}\"; {has}");
        assert_eq!(nothing, (1, sentence), "_ stands for itself");
    }
    let some =
        run(&scene.directory, &["status", "com.nobody", "com.acme.weather"], &scene.environment()).await;
    assert_eq!(some.status.code(), Some(1), "one of them is not known");
    assert!(String::from_utf8_lossy(&some.stdout).contains("1.10.0 build 42"), "{some:?}");
    assert!(String::from_utf8_lossy(&some.stderr).contains("is called \"com.nobody\"; it has"), "{some:?}");
    let all = apps(&scene.lines(&["status", "--all", "com.acme.weather"]).await);
    assert!(all.contains(&"com.acme.weather 1.1.0".to_owned()), "{all:?}");
    assert!(all.contains(&"com.acme.weather 1.8.0".to_owned()), "{all:?}");
    // Nothing but the store tells Apple's app from Google's.
    let all = scene.lines(&["status", "--all", "acme weather"]).await;
    let stores: Vec<&str> = cells(&all)
        .iter()
        .filter(|row| row.last() != Some(&"") && row.contains(&"app"))
        .map(|row| row[2])
        .collect();
    assert_eq!(stores, ["App Store", "Google Play"], "{all:#?}");
}

#[tokio::test]
async fn status_as_json_is_one_document_of_one_shape() {
    let scene = Scene::new().await;
    let document = scene.document(&["status", "--json"]).await;
    let names = |of: &Value| of.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&document), ["apps", "at", "entries", "sources", "subjects", "workspace"]);
    let id = scene.workspace.id.to_string();
    assert_eq!(document["workspace"], json!({ "id": id, "name": "Acme" }));
    assert_eq!(document["apps"][0], json!({ "app": "com.acme.weather", "name": "Acme Weather" }));
    let subjects = document["subjects"].as_array().unwrap();
    assert_eq!(subjects.len(), SUBJECTS - SETTLED);
    let members = "app build description facts gone_at id kind last_seen_at name platform release seq since source state track version";
    for subject in subjects {
        assert_eq!(names(subject).join(" "), members);
    }
    let first = &subjects[0];
    assert_eq!(
        (&first["kind"], &first["id"], &first["version"]),
        (&json!("version"), &json!("v1100"), &json!("1.10.0"))
    );
    assert_eq!((&first["track"], &first["release"]), (&Value::Null, &Value::Null));
    // What it says is what the entry says that it names.
    let seq = first["seq"].as_u64().unwrap();
    let entry = scene.world.api.get(&scene.workspace.at(&format!("/entries/{seq}"))).await.expect(200).json();
    assert_eq!((&entry["data"]["to"], &entry["data"]["subject"]["id"]), (&first["state"], &first["id"]));
    let health: Vec<&Value> = document["sources"].as_array().unwrap().iter().map(|s| &s["health"]).collect();
    assert_eq!(health, ["ok", "ok"]);
    let all = scene.document(&["status", "--json", "--all"]).await;
    assert_eq!(all["subjects"].as_array().unwrap().len(), SUBJECTS);
}

#[tokio::test]
async fn status_fits_a_narrow_terminal_and_paints_nothing_in_a_pipe() {
    let scene = Scene::new().await;
    let mut environment = scene.environment().to_vec();
    environment.push(("COLUMNS", "60"));
    environment.push(("TERM", "xterm-256color"));
    let lines = lines(&run(&scene.directory, &["status"], &environment).await);
    assert!(lines.iter().all(|line| line.chars().count() <= 60 && !line.contains('\u{1b}')), "{lines:#?}");
    assert!(!lines[0].contains("NAME") && lines[0].contains("SINCE"), "{lines:#?}");
}

#[tokio::test]
async fn nothing_that_a_store_says_reaches_the_terminal_as_a_command() {
    let scene = Scene::new().await;
    scene.through("e100", &["REJECTED"]).await;
    let commands: [&[&str]; 5] = [
        &["status"],
        &["status", "--json"],
        &["history", "com.evil.app"],
        &["history", "com.evil.app", "--json"],
        &["status", "com.nobody\u{1b}[2J"],
    ];
    for arguments in commands {
        let output = run(&scene.directory, arguments, &scene.environment()).await;
        for text in [&output.stdout, &output.stderr] {
            harmless(std::str::from_utf8(text).unwrap());
        }
    }
    let document = scene.document(&["status", "--json", "com.evil.app"]).await;
    assert_eq!(document["subjects"][0]["name"], HOSTILE, "as JSON nothing is lost");
    let shown = scene.lines(&["status", "com.evil.app"]).await;
    assert!(shown[1].contains("Evil\u{fffd}[31m"), "{shown:?}");
    let entries = scene.workspace.entries().await;
    let count = entries.len().to_string();
    for json in [&["--json"][..], &[]] {
        let mut tail = Tail::start(&scene, &[&["-n", &count], json].concat());
        for _ in 0..entries.len() {
            harmless(&tail.line().await);
        }
    }
}

/// That `text` has no character but line breaks that a terminal obeys.
fn harmless(text: &str) {
    let obeyed = |c: char| (c.is_control() && c != '\n') || ('\u{202a}'..='\u{202e}').contains(&c);
    assert!(!text.contains(obeyed), "{text:?}");
}

#[tokio::test]
async fn tail_begins_with_the_last_entries_and_goes_on_with_each_new_one() {
    let scene = Scene::new().await;
    scene.through("v1100", &["WAITING_FOR_REVIEW"]).await;
    let mut tail =
        Tail::start(&scene, &["-n", "1", "--type", "store.version.*", "--app", "com.acme.weather"]);
    let first = tail.line().await;
    assert!(
        first.contains("com.acme.weather  iOS 1.10.0  PREPARE_FOR_SUBMISSION → WAITING_FOR_REVIEW  poll"),
        "{first}"
    );
    // Of another app, of another type, and then what it waits for.
    scene.through("e100", &["REJECTED"]).await;
    scene.workspace.inbound("events").await.event("an event").await;
    scene.through("v1100", &["IN_REVIEW"]).await;
    let next = tail.line().await;
    assert!(next.contains("iOS 1.10.0  WAITING_FOR_REVIEW → IN_REVIEW"), "{next}");
    assert!(next[..19].bytes().all(|b| b.is_ascii_digit() || b"-: ".contains(&b)), "{next}");
    tail.signal(nix::sys::signal::Signal::SIGINT);
    assert_eq!(tail.ended().await, Some(0));
    assert_eq!(tail.said(), "");
}

#[tokio::test]
async fn tail_goes_on_after_a_restart_without_a_gap_or_a_repetition() {
    let mut scene = Scene::new().await;
    let mut tail = Tail::start(&scene, &["--json", "-n", "2"]);
    let mut seqs = Vec::new();
    let number = |entry: Value| entry["seq"].as_u64().unwrap();
    for _ in 0..2 {
        seqs.push(number(tail.entry().await));
    }
    let states = ["WAITING_FOR_REVIEW", "IN_REVIEW", "REJECTED"];
    for state in states {
        let begun = Instant::now();
        scene.world.stop().await;
        assert!(begun.elapsed() < WAIT, "a node does not wait for who waits for news");
        scene.simulator.apply(version("v1100", state)).unwrap();
        eventually("tail says that the service is away", || async {
            tail.said().contains("trying again").then_some(())
        })
        .await;
        std::fs::write(&tail.log, "").unwrap();
        scene.world.start().await.unwrap();
        loop {
            let entry = tail.entry().await;
            seqs.push(number(entry.clone()));
            if entry["data"]["to"] == state {
                break;
            }
        }
    }
    let expected: Vec<u64> = (seqs[0]..=*seqs.last().unwrap()).collect();
    assert_eq!(seqs, expected);
    let recorded = scene.told("store.version.transitioned", states.len()).await;
    assert_eq!(recorded.last().unwrap()["seq"], *seqs.last().unwrap());
}

#[tokio::test]
async fn tail_ends_when_nobody_reads_any_more() {
    let scene = Scene::new().await;
    let mut tail = Tail::start(&scene, &["-n", "1"]);
    tail.line().await;
    // Nothing more happens, so it cannot notice by writing.
    tail.lines = None;
    assert_eq!(tail.ended().await, Some(0));
    assert_eq!(tail.said(), "");
}

#[tokio::test]
async fn history_is_an_apps_transitions_oldest_first_by_version_line() {
    let scene = Scene::new().await;
    let path = ["WAITING_FOR_REVIEW", "IN_REVIEW", "REJECTED", "WAITING_FOR_REVIEW"];
    scene.through("v1100", &path).await;
    scene.through("m110", &["DEVELOPER_REJECTED"]).await;
    let lines = scene.lines(&["history", "com.acme.weather"]).await;
    assert_eq!(lines[0], "com.acme.weather  Acme Weather");
    let start = lines.iter().position(|l| l == "iOS 1.10.0").unwrap();
    let rows = cells(&lines[start + 1..]);
    assert_eq!(rows[0], ["NOT YET AT", "SEEN AT", "OF", "CHANGE", "VIA", "STORE SAYS", "ENTRY"]);
    let rows: Vec<&Vec<&str>> = rows[1..].iter().take_while(|row| !row.is_empty()).collect();
    let of_version = rows.iter().filter(|row| row.contains(&"version"));
    let changes: Vec<&str> = of_version.map(|row| row[row.len() - 3]).collect();
    let expected = [
        "first seen: PREPARE_FOR_SUBMISSION",
        "PREPARE_FOR_SUBMISSION → WAITING_FOR_REVIEW",
        "WAITING_FOR_REVIEW → IN_REVIEW",
        "IN_REVIEW → REJECTED",
        "REJECTED → WAITING_FOR_REVIEW",
    ];
    assert_eq!(changes, expected);
    assert!(rows.iter().any(|row| row.contains(&"build 42")), "the build belongs to its version: {lines:#?}");
    assert!(lines.iter().any(|l| l == "macOS 1.1.0") && !lines.iter().any(|l| l.contains("tvOS")));

    let document = scene.document(&["history", "com.acme.weather", "--json", "--kind", "version"]).await;
    let of = |name: &str| {
        let lines = document["lines"].as_array().unwrap();
        lines.iter().find(|line| line["line"] == name).unwrap()["entries"].as_array().unwrap().clone()
    };
    let entries = of("iOS 1.10.0");
    assert_eq!(entries.len(), 5);
    assert!(entries.is_sorted_by_key(|e| e["seq"].as_u64().unwrap()));
    for (entry, to) in entries[1..].iter().zip(path) {
        let time = |name: &str| entry[name].as_str().unwrap().to_owned();
        assert_eq!(
            (&entry["to"], &entry["what"], &entry["via"]),
            (&json!(to), &json!("transitioned"), &json!("poll"))
        );
        assert!(time("last_seen_before_at") < time("seen_at"));
    }
    assert_eq!(entries[0]["last_seen_before_at"], Value::Null);
    assert_eq!(of("macOS 1.1.0")[1]["to"], "DEVELOPER_REJECTED");
    // Since the third transition was recorded.
    let since = entries[3]["recorded_at"].as_str().unwrap();
    let later = scene.document(&["history", "acme weather", "--json", "--since", since]).await;
    let apps: Vec<&Value> = later["apps"].as_array().unwrap().iter().map(|a| &a["app"]).collect();
    assert_eq!(apps, ["com.acme.weather", "com.acme.weather.play"], "a name can be that of several");
    let seqs: Vec<&Value> = later["lines"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|l| l["entries"].as_array().unwrap())
        .map(|e| &e["seq"])
        .collect();
    assert_eq!(seqs[..2], [&entries[3]["seq"], &entries[4]["seq"]]);
    assert_eq!(seqs.len(), 3);
}

#[tokio::test]
async fn a_command_that_cannot_do_it_says_so_in_a_sentence() {
    let scene = Scene::new().await;
    let (base, token) = (scene.world.api.base.clone(), scene.world.api.token.clone());
    let told = async |arguments: &[&str], environment: &[(&str, &str)]| {
        refusal(&run(&scene.directory, arguments, environment).await)
    };
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody = format!("http://{nobody}");
    for command in [&["status"][..], &["tail"], &["history", "com.acme.weather"]] {
        let environment = [("STATUSLEDGER_URL", nobody.as_str()), ("STATUSLEDGER_TOKEN", &token)];
        assert_eq!(
            told(command, &environment).await,
            (1, format!("cannot reach {nobody}: Connection refused"))
        );
        let environment = [("STATUSLEDGER_URL", base.as_str()), ("STATUSLEDGER_TOKEN", "sl_admin_0_wrong")];
        let unknown = format!("{base} does not know the token in STATUSLEDGER_TOKEN");
        assert_eq!(told(command, &environment).await, (1, unknown));
        let (code, sentence) = told(command, &[("STATUSLEDGER_URL", &base)]).await;
        assert_eq!(code, 2);
        assert!(sentence.starts_with("there is no token: name its file with --token-file"), "{sentence}");
    }
    let environment = scene.environment();
    let unknown = "no app of the workspace \"Acme\" is called \"com.nobody\"; it has com.acme.weather, \
                   com.acme.weather.play, com.evil.app"
        .to_owned();
    assert_eq!(told(&["history", "com.nobody"], &environment).await, (1, unknown));
    let none = format!("{base} has no workspace called \"nothing\"");
    assert_eq!(told(&["status", "--workspace", "nothing"], &environment).await, (1, none));
    let absent = "ws_0199b1c4-0000-7000-8000-000000000001";
    let (code, sentence) = told(&["status", "--workspace", absent], &environment).await;
    assert!(
        code == 1 && sentence.ends_with(&format!("404: The workspace {absent} does not exist")),
        "{sentence}"
    );
    let (code, sentence) = told(&["status", "--url", "ftp://example.com"], &environment).await;
    assert!(code == 2 && sentence.starts_with("--url is not an address"), "{sentence}");
    let (code, sentence) = told(&["status", "--token-file", "missing"], &environment).await;
    assert!(code == 1 && sentence.starts_with("cannot read the token in missing"), "{sentence}");
    for usage in
        [&["history"][..], &["history", "a", "--kind", "nothing"], &["history", "a", "--since", "soon"]]
    {
        let output = run(&scene.directory, usage, &environment).await;
        assert_eq!(output.status.code(), Some(2), "{output:?}");
    }
    // Whoever answers has to be a statusledger.
    let other = format!("{}/statusledger", scene.simulator.app_store_base_url());
    let (code, sentence) = told(&["status", "--url", &other], &environment).await;
    assert!(code == 1 && sentence.contains(&other), "{sentence}");
    // With a second team it has to be said which.
    scene.world.workspace("Tidepool").await;
    let which = (2, "name one of these with --workspace: \"Acme\", \"Tidepool\"".to_owned());
    assert_eq!(told(&["status"], &environment).await, which);
    assert_eq!(scene.document(&["status", "--json", "--workspace", "Tidepool"]).await["subjects"], json!([]));
    let id = scene.workspace.id.to_string();
    assert_eq!(scene.document(&["status", "--json", "--workspace", &id]).await["workspace"]["name"], "Acme");
}

#[tokio::test]
async fn beside_a_node_its_data_directory_says_where_it_is_and_who_may_ask() {
    let world = World::new().await;
    world.workspace("Acme").await;
    let directory = temporary("beside");
    let node = directory.join("node");
    let [service, worker] = [roles::SERVICE, roles::WORKER].map(|role| world.database.url(role));
    let key = world.settings.key_encryption_key_path();
    let key = [("STATUSLEDGER_KEY_ENCRYPTION_KEY_FILE", key.to_str().unwrap())];
    let arguments = ["serve", "--data-dir", "node", "--port", "0", "--instance", "status.example.com"];
    let databases = ["--database-url", &service, "--worker-database-url", &worker];
    let log = directory.join("log");
    let program = Program::start(&directory, &log, &[&arguments[..], &databases].concat(), &key).await;
    // The token is written before the line that names it.
    let address = format!("http://{}", program.address);
    eventually("the address is left", || async {
        std::fs::read_to_string(node.join("address")).ok().filter(|text| text.trim() == address)
    })
    .await;
    let status = async |arguments: &[&str], environment: &[(&str, &str)]| {
        run(&directory, &[&["status", "--json"], arguments].concat(), environment).await
    };
    let elsewhere = [("STATUSLEDGER_URL", "http://127.0.0.1:1"), ("STATUSLEDGER_TOKEN", "wrong")];
    let named: Value =
        serde_json::from_slice(&status(&["--data-dir", "node"], &elsewhere).await.stdout).unwrap();
    assert_eq!(named["workspace"]["name"], "Acme", "a directory that is named is the one that is meant");
    let usual = [("STATUSLEDGER_DATA_DIR", "node")];
    let found: Value = serde_json::from_slice(&status(&[], &usual).await.stdout).unwrap();
    assert_eq!(found["workspace"]["name"], "Acme");
    // Its token is for it, and for no other machine.
    let (code, sentence) = refusal(&status(&["--url", "https://status.example.invalid"], &usual).await);
    assert!(code == 2 && sentence.starts_with("there is no token"), "{sentence}");
    assert!(program.terminate().await);
    assert!(!node.join("address").exists());
}

/// Entries as a page has them: their seqs.
async fn page(workspace: &Workspace, query: &str) -> (Vec<u64>, Value) {
    let page = workspace.api.get(&workspace.at(&format!("/entries?{query}"))).await.expect(200).json();
    (page["items"].as_array().unwrap().iter().map(|e| e["seq"].as_u64().unwrap()).collect(), page)
}

#[tokio::test]
async fn entries_are_found_by_app_and_by_the_beginning_of_their_type() {
    let scene = Scene::new().await;
    let entries = scene.workspace.entries().await;
    let expected = |wanted: &dyn Fn(&Value) -> bool| -> Vec<u64> {
        entries.iter().filter(|e| wanted(e)).map(|e| e["seq"].as_u64().unwrap()).collect()
    };
    let of = |kind: &'static str| move |e: &Value| e["type"].as_str().unwrap().starts_with(kind);
    for (query, wanted) in [
        ("type=store.*", expected(&of("store."))),
        (
            "type=store.build.*,workspace.created",
            expected(&|e| of("store.build.")(e) || of("workspace.created")(e)),
        ),
        ("app=com.acme.weather", expected(&|e| e["data"]["app"] == "com.acme.weather")),
        (
            "app=com.evil.app,com.acme.weather.play",
            expected(&|e| e["data"]["app"] == "com.evil.app" || e["data"]["app"] == "com.acme.weather.play"),
        ),
        ("app=com.acme.weather&type=store.build.first_seen", expected(&of("store.build."))),
        ("app=com.acme", vec![]),
        ("app=com.acme.weather%22,%22", vec![]),
    ] {
        assert!(
            query.contains("com.acme%")
                || query == "app=com.acme"
                || query.contains("%22")
                || !wanted.is_empty()
        );
        let (seqs, whole) = page(&scene.workspace, query).await;
        assert_eq!((seqs, &whole["size"]), (wanted.clone(), &json!(entries.len())), "{query}");
        let (mut seqs, _) = page(&scene.workspace, &format!("{query}&reverse=true")).await;
        seqs.reverse();
        assert_eq!(seqs, wanted, "{query}");
    }
    for query in
        ["type=store*", "type=.*", "type=*", "type=a,,b", "app=", "wait=31", "wait=1&reverse=true", "wait=x"]
    {
        let answer = scene.world.api.get(&scene.workspace.at(&format!("/entries?{query}"))).await;
        assert_eq!(answer.problem(400), "bad-request", "{query}");
    }
    for query in ["app=", "all=yes", "after=nonsense", "unknown=1"] {
        let answer = scene.world.api.get(&scene.workspace.at(&format!("/status?{query}"))).await;
        assert_eq!(answer.problem(400), "bad-request", "{query}");
    }
}

#[tokio::test]
async fn a_request_waits_for_news_that_it_wants_and_no_longer_than_it_says() {
    let world = World::new().await;
    let workspace = world.workspace("news").await;
    let (source, other) = (workspace.inbound("events").await, world.workspace("other").await);
    let size = workspace.entries().await.len() as u64;
    let begun = Instant::now();
    let (seqs, whole) = page(&workspace, &format!("from={size}&wait=1")).await;
    assert_eq!((seqs, &whole["size"], &whole["next"]), (vec![], &json!(size), &Value::Null));
    assert!(begun.elapsed() >= Duration::from_secs(1));
    let asked = format!("from={size}&wait=30&type=event.*");
    let waiting = tokio::spawn({
        let workspace = workspace.clone();
        async move { page(&workspace, &asked).await.0 }
    });
    // Neither another workspace's news nor another type's is what it waits for.
    other.inbound("events").await.event("an event").await;
    workspace.inbound("more").await;
    assert!(!waiting.is_finished());
    let seq = source.event("an event").await;
    // One whose time has run out would answer with what there was before: nothing.
    assert_eq!(waiting.await.unwrap(), [seq]);
}

#[tokio::test]
async fn a_filtered_page_of_a_long_ledger_ends_early_and_says_where_to_go_on() {
    const LENGTH: u64 = 250_000;
    let world = World::new().await;
    let workspace = world.workspace("long").await;
    let first = workspace.inbound("events").await.event("an event").await;
    let mut superuser = world.database.superuser().await;
    let id = workspace.id.uuid();
    // No ledger of ours (its leaves are of nothing), but as long as one.
    let filled = "INSERT INTO entries SELECT workspace_id, ledger_id, n, leaf, 'event.received', entry
                    FROM entries, generate_series($2::bigint, $3::bigint) AS n WHERE workspace_id = $1 AND seq = $4";
    let (first, last) = (first as i64, LENGTH as i64 - 1);
    sqlx::query(filled)
        .bind(id)
        .bind(first + 1)
        .bind(last)
        .bind(first)
        .execute(&mut superuser)
        .await
        .unwrap();
    let head = "UPDATE heads SET size = $2 WHERE workspace_id = $1";
    sqlx::query(head).bind(id).bind(last + 1).execute(&mut superuser).await.unwrap();
    for (query, expected) in [
        ("type=source.created", [vec![], vec![], vec![2_u64]]),
        ("app=com.acme.weather&wait=30", [vec![], vec![], vec![]]),
    ] {
        let reverse = !query.contains("wait");
        let (mut from, mut pages) = (if reverse { LENGTH } else { 0 }, Vec::new());
        loop {
            let reverse = if reverse { "&reverse=true" } else { "" };
            let begun = Instant::now();
            // At the end there would be something to wait for.
            let query = if pages.len() == 2 { query.replace("wait=30", "wait=0") } else { query.to_owned() };
            let (seqs, whole) = page(&workspace, &format!("{query}&from={from}{reverse}")).await;
            assert!(begun.elapsed() < WAIT);
            pages.push(seqs);
            let Some(next) = whole["next"].as_u64() else { break };
            from = next;
        }
        assert_eq!(pages, expected, "{query}");
    }
}

#[tokio::test]
async fn a_status_of_more_subjects_than_one_answer_holds_is_whole() {
    const MORE: usize = 10_500;
    let scene = Scene::new().await;
    let copied = "INSERT INTO subjects (workspace_id, source_id, kind, subject_key, app, description, state, state_since,
                                       first_seen_at, last_seen_at, seq)
                  SELECT workspace_id, source_id, kind, 'x' || n, app, description, state, state_since, first_seen_at,
                         last_seen_at, seq
                    FROM subjects, generate_series(1, $2) AS n WHERE workspace_id = $1 AND subject_key = 'v190'";
    let mut superuser = scene.world.database.superuser().await;
    let count = i32::try_from(MORE).unwrap();
    sqlx::query(copied).bind(scene.workspace.id.uuid()).bind(count).execute(&mut superuser).await.unwrap();
    let document = scene.document(&["status", "--json", "--all"]).await;
    let subjects = document["subjects"].as_array().unwrap();
    let ids: std::collections::BTreeSet<(&str, &str)> =
        subjects.iter().map(|s| (s["kind"].as_str().unwrap(), s["id"].as_str().unwrap())).collect();
    assert_eq!((ids.len(), subjects.len()), (MORE + SUBJECTS, MORE + SUBJECTS));
}

#[test]
fn what_is_settled_is_a_state_that_the_store_has() {
    let shared = std::env::var("STATUSLEDGER_SHARED").unwrap_or_else(|_| "../shared".into());
    let file = Path::new(&shared).join("specs/app-store-connect-openapi-4.4.1.json");
    let Ok(text) = std::fs::read_to_string(&file) else {
        eprintln!("skipped: {} is not there", file.display());
        return;
    };
    let document: Value = serde_json::from_str(&text).unwrap();
    let schemas = &document["components"]["schemas"];
    let attribute =
        |schema: &str, name: &str| schemas[schema]["properties"]["attributes"]["properties"][name].clone();
    let of = |kind: &str| match kind {
        "version" => schemas["AppVersionState"].clone(),
        "phased_release" => schemas["PhasedReleaseState"].clone(),
        "build" => attribute("Build", "processingState"),
        "beta_internal" => schemas["InternalBetaState"].clone(),
        "beta_external" => schemas["ExternalBetaState"].clone(),
        "beta_review" => schemas["BetaReviewState"].clone(),
        "build_upload" => schemas["BuildUploadState"].clone(),
        "review_submission" => attribute("ReviewSubmission", "state"),
        "review_item" => attribute("ReviewSubmissionItem", "state"),
        "app_info" => attribute("AppInfo", "state"),
        "in_app_purchase" => schemas["InAppPurchaseState"].clone(),
        "subscription" => attribute("Subscription", "state"),
        "app_event" => attribute("AppEvent", "eventState"),
        _ => Value::Null,
    };
    let mut compared = 0;
    for (kind, states) in statusledger::workspace::status::SETTLED {
        assert!(statusledger::observation::Kind::from_name(kind).is_some(), "{kind}");
        if let Some(known) = of(kind)["enum"].as_array() {
            assert!(states.iter().all(|s| known.contains(&json!(s))), "{kind}");
            compared += 1;
        }
    }
    assert_eq!(
        compared,
        statusledger::workspace::status::SETTLED.len() - 3,
        "all of Apple's; an app's and an availability's are ours"
    );
}
