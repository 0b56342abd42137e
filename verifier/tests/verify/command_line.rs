//! The command line: exit status, standard output, standard error, and that of all hostile input nothing panics.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use statusledger_verify::encoding::hex;
use statusledger_verify::json::Value;

use crate::common::{
    AT, DESTINATION, Export, INSTANCE, LEDGER, Ledger, OTHER_LEDGER, Signer, Witness, World, canonical,
    consistency_path, edit, int, log_line, note_text, object, policy, text,
};

/// A directory with what the commands read.
struct Files {
    directory: tempfile::TempDir,
    world: World,
    pin: String,
}

impl Files {
    fn new() -> Self {
        let world = World::default();
        let pin = world.signer.pin().to_string();
        let files = Self { directory: tempfile::tempdir().unwrap(), world, pin };
        files.write("keys.json", &files.world.keys_json());
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.path(name), bytes).unwrap();
    }

    fn body(&self, name: &str, seq: usize, size: usize) {
        self.write(name, &self.world.body(seq, size));
    }

    fn run(&self, arguments: &[&str]) -> Answer {
        self.run_with(arguments, b"")
    }

    fn run_with(&self, arguments: &[&str], input: &[u8]) -> Answer {
        let mut child = Command::new(env!("CARGO_BIN_EXE_statusledger-verify"))
            .args(arguments)
            .current_dir(self.directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that does not read its input may have ended already.
        let _ = child.stdin.take().unwrap().write_all(input);
        Answer::of(child.wait_with_output().unwrap())
    }

    /// With the pin, the keys and a time at which all is fresh.
    fn receipt(&self, arguments: &[&str]) -> Answer {
        let common = ["receipt", "--keys", "keys.json", "--pin", &self.pin, "--at", AT];
        self.run(&[&common[..], arguments].concat())
    }

    fn consistency(&self, arguments: &[&str]) -> Answer {
        self.run(&[&["consistency", "--keys", "keys.json", "--pin", &self.pin][..], arguments].concat())
    }
}

#[derive(Debug)]
struct Answer {
    status: i32,
    out: String,
    err: String,
}

impl Answer {
    fn of(output: Output) -> Self {
        Self {
            status: output.status.code().expect("no signal ended it"),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// The objects of `--json`.
    fn objects(&self) -> Vec<serde_json::Value> {
        self.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[track_caller]
    fn is(&self, status: i32) -> &Self {
        assert_eq!(self.status, status, "{self:#?}");
        self
    }

    /// Exit status 1, and standard error names the file and the check.
    #[track_caller]
    fn fails(&self, file: &str, check: &str) -> &Self {
        self.is(1);
        let start = format!("{file}: {check}: ");
        assert!(self.err.lines().any(|line| line.starts_with(&start)), "no {start:?} in {self:#?}");
        self
    }
}

#[test]
fn a_receipt_that_verifies_is_a_line_that_says_what_was_proven() {
    let files = Files::new();
    files.body("receipt.json", 10, 20);
    let answer = files.receipt(&["receipt.json"]);
    answer.is(0);
    let key = hex(&crate::common::key_id(&files.world.signer.receipt));
    let expected = format!(
        "receipt.json: included (time: claimed): build.processed, entry 10 of ledger {LEDGER} of {INSTANCE}, \
         recorded 2026-11-02T03:00:10.000004Z; rcpt_0190c5a1-0000-7000-8000-000000000010, number 11 for \
         {DESTINATION}, issued 2026-11-20T12:00:00.000000Z under key {key}; checkpoint of size 20; revocations \
         known as of manifest serial 7, issued 2026-11-01T00:00:00.000000Z\n"
    );
    assert_eq!((answer.out.as_str(), answer.err.as_str()), (expected.as_str(), ""));
}

#[test]
fn json_has_exactly_the_listed_members() {
    let files = Files::new();
    files.body("good.json", 10, 20);
    let mut spoilt = files.world.draft(10, 20).finish();
    edit(&mut spoilt, &["data", "to"], text("READY"));
    files.write("bad.json", &canonical(&spoilt));
    files.write("garbage.json", b"{");
    let answer = files.receipt(&["--json", "good.json", "bad.json", "garbage.json"]);
    answer.is(1);
    let key = hex(&crate::common::key_id(&files.world.signer.receipt));
    let expected = [
        serde_json::json!({
            "file": "good.json", "ok": true, "verdict": "included", "time": "claimed", "failed_check": null,
            "seq": 10, "instance": INSTANCE, "ledger": LEDGER, "key_id": key, "checkpoint_size": 20,
            "withheld": null, "keys_serial": 7,
        }),
        serde_json::json!({
            "file": "bad.json", "ok": false, "verdict": null, "time": null, "failed_check": "signature",
            "seq": 10, "instance": INSTANCE, "ledger": LEDGER, "key_id": key, "checkpoint_size": null,
            "withheld": null, "keys_serial": 7,
        }),
        serde_json::json!({
            "file": "garbage.json", "ok": false, "verdict": null, "time": null, "failed_check": "json",
            "seq": null, "instance": null, "ledger": null, "key_id": null, "checkpoint_size": null,
            "withheld": null, "keys_serial": null,
        }),
    ];
    assert_eq!(answer.objects(), expected);
    answer.fails("bad.json", "signature").fails("garbage.json", "json");
}

#[test]
fn without_a_pin_nothing_verifies_and_half_a_pin_is_usage() {
    let files = Files::new();
    files.body("receipt.json", 10, 20);
    files.write("ledger.zip", &export(&files.world.signer, &files.world.ledger, 20).zip(&files.world.signer));
    let receipt = ["receipt", "receipt.json", "--keys", "keys.json"];
    files.run(&receipt).fails("receipt.json", "unpinned");
    files.run(&["export", "ledger.zip"]).fails("ledger.zip", "unpinned");
    files.run(&["keys", "keys.json"]).fails("keys.json", "unpinned");
    let consistency = ["consistency", "receipt.json", "ledger.zip", "--keys", "keys.json"];
    files.run(&consistency).fails("receipt.json", "unpinned").fails("ledger.zip", "unpinned");
    let answer = files.run(&[&receipt[..], &["--json"]].concat());
    assert_eq!(answer.is(1).objects()[0]["failed_check"], "unpinned");
    let (key_id, _) = files.pin.split_once('@').unwrap();
    for pin in [key_id, &format!("{key_id}@"), &format!("@{INSTANCE}"), "x@y", &format!("{key_id}@A")] {
        for command in [&receipt[..], &["export", "ledger.zip"], &["keys", "keys.json"], &consistency] {
            files.run(&[command, &["--pin", pin]].concat()).is(2);
        }
    }
}

#[test]
fn usage_and_unreadable_files_have_a_status_of_their_own() {
    let files = Files::new();
    files.body("receipt.json", 10, 20);
    files.write("policy", b"quorum nobody\n");
    let pin = ["--pin", &files.pin];
    for arguments in [
        &[][..],
        &["receipts"],
        &["receipt", "--keys", "keys.json"],
        &["receipt", "receipt.json"],
        &["receipt", "receipt.json", "--keys", "absent.json"],
        &["receipt", "receipt.json", "--keys", "keys.json", "--at", "yesterday"],
        &["receipt", "receipt.json", "--keys", "keys.json", "--at", "2026-11-21T00:00:00Z"],
        &["receipt", "receipt.json", "--keys", "keys.json", "--as", "new"],
        &["receipt", "receipt.json", "--keys", "keys.json", "--policy", "absent"],
        &["receipt", "receipt.json", "--keys", "keys.json", "--policy", "policy"],
        &["receipt", "absent.json", "--keys", "keys.json"],
        &["receipt", ".", "--keys", "keys.json"],
        &["receipt", "-", "-", "--keys", "keys.json"],
        &["receipt", "-", "--keys", "-"],
        &["export", "-"],
        &["export", "absent.zip"],
        &["keys", "absent.json"],
        &["keys", "keys.json", "--since", "absent.json"],
        &["consistency", "receipt.json", "--keys", "keys.json"],
        &["consistency", "receipt.json", "absent", "--keys", "keys.json"],
        &["consistency", "receipt.json", "receipt.json", "--keys", "keys.json", "--proof", "absent"],
    ] {
        let answer = files.run(&[arguments, &pin].concat());
        assert_eq!((answer.status, answer.err.is_empty()), (2, false), "{arguments:?}: {answer:#?}");
    }
    // One file that cannot be read does not keep the others from an answer.
    let answer = files.receipt(&["--json", "absent.json", "receipt.json"]);
    answer.is(2);
    let objects = answer.objects();
    assert_eq!((&objects[0]["ok"], &objects[1]["ok"]), (&false.into(), &true.into()));
    files.run(&["--help"]).is(0);
    files.run(&["--version"]).is(0);
}

#[test]
fn a_dash_is_standard_input() {
    let files = Files::new();
    let body = files.world.body(10, 20);
    let arguments = ["receipt", "-", "--keys", "keys.json", "--pin", &files.pin, "--at", AT];
    assert!(files.run_with(&arguments, &body).is(0).out.starts_with("-: included"));
    files.run_with(&arguments, &body[1..]).fails("-", "json");
    assert!(
        files
            .run_with(&["keys", "-", "--pin", &files.pin], &files.world.keys_json())
            .is(0)
            .out
            .starts_with("-: ")
    );
}

#[test]
fn what_is_wrong_with_the_body_goes_before_what_is_wrong_with_the_manifest() {
    let files = Files::new();
    files.body("good.json", 10, 20);
    files.write("garbage.json", b"[1.5]");
    files.write("members.json", b"{}");
    files.write("keys.json", b"{}");
    let answer = files.receipt(&["good.json", "garbage.json", "members.json"]);
    answer.fails("good.json", "manifest").fails("garbage.json", "json").fails("members.json", "members");
    files.write("keys.json", &files.world.keys_json());
    let (key_id, _) = files.pin.split_once('@').unwrap();
    let elsewhere = format!("{key_id}@other.example.org");
    let arguments = ["receipt", "good.json", "--keys", "keys.json", "--pin", &elsewhere];
    files.run(&arguments).fails("good.json", "instance");
    let stranger = Signer::new(b"a stranger").pin().to_string();
    files
        .run(&["receipt", "good.json", "--keys", "keys.json", "--pin", &stranger])
        .fails("good.json", "manifest");
}

#[test]
fn the_options_of_a_receipt_reach_its_checks() {
    let files = Files::new();
    files.body("receipt.json", 10, 20);
    files.receipt(&["receipt.json", "--ledger", LEDGER, "--destination", DESTINATION]).is(0);
    files.receipt(&["receipt.json", "--ledger", OTHER_LEDGER]).fails("receipt.json", "ledger");
    files.receipt(&["receipt.json", "--destination", "x"]).fails("receipt.json", "destination");
    let stale = ["receipt", "receipt.json", "--keys", "keys.json", "--pin", &files.pin, "--at"];
    let late = [&stale[..], &["2030-01-01T00:00:00.000000Z"]].concat();
    files.run(&late).fails("receipt.json", "stale");
    files.run(&[&late[..], &["--as", "evidence"]].concat()).is(0);
    files.run(&[&late[..], &["--as", "fresh"]].concat()).fails("receipt.json", "stale");
    let witness = Witness::new("witness.example/w");
    files.write("policy", policy(&[&witness], "quorum witness.example/w\n").as_bytes());
    files.receipt(&["receipt.json", "--policy", "policy"]).fails("receipt.json", "policy");
    let draft = files.world.draft(10, 20);
    let proof = draft.proof() + &witness.line(&draft.checkpoint(), 1_795_179_600);
    files.write("witnessed.json", &canonical(&draft.finish_with(&proof)));
    let answer = files.receipt(&["witnessed.json", "--policy", "policy"]);
    assert!(answer.is(0).out.starts_with("witnessed.json: witnessed (time: witnessed): "), "{answer:#?}");
    let answer = files.receipt(&["witnessed.json"]);
    assert!(answer.is(0).out.starts_with("witnessed.json: included (time: claimed): "), "{answer:#?}");
}

#[test]
fn gaps_fail_where_completeness_is_asked_for_and_conflicts_always() {
    let files = Files::new();
    for seq in 0..6 {
        files.body(&format!("{seq}.json"), seq, 20);
    }
    files.receipt(&["5.json", "0.json", "1.json", "4.json", "2.json", "3.json", "--complete"]).is(0);
    files.receipt(&["0.json", "2.json"]).is(0);
    let answer = files.receipt(&["0.json", "2.json", "3.json", "5.json", "--complete", "--json"]);
    answer.fails("2.json", "number_gap").fails("5.json", "number_gap");
    let failed: Vec<_> = answer.objects().iter().map(|object| object["failed_check"].clone()).collect();
    assert_eq!(
        failed,
        [Value::Null.canonical(), "number_gap".into(), Value::Null.canonical(), "number_gap".into()]
            .map(|name| if name == "null" { serde_json::Value::Null } else { name.into() })
    );
    let twice = files.world.draft(4, 20).with(|draft| drop(draft.receipt.insert("number".into(), int(4))));
    files.write("twice.json", &canonical(&twice.finish()));
    files
        .receipt(&["3.json", "twice.json"])
        .fails("3.json", "number_conflict")
        .fails("twice.json", "number_conflict");
    let back = files.world.draft(1, 20).with(|draft| drop(draft.receipt.insert("number".into(), int(9))));
    files.write("back.json", &canonical(&back.finish()));
    files.receipt(&["3.json", "back.json"]).fails("back.json", "number_conflict");
    // Another destination's numbers are its own.
    let other = files.world.draft(1, 20).with(|draft| {
        draft.receipt.insert("number".into(), int(9));
        draft.receipt.insert("destination".into(), text("another"));
    });
    files.write("other.json", &canonical(&other.finish()));
    files.receipt(&["3.json", "other.json", "--complete"]).is(0);
}

fn export(signer: &Signer, ledger: &Ledger, to: usize) -> Export {
    Export::of(signer, ledger, (0, to), None, true)
}

#[test]
fn an_export_is_a_line_too() {
    let files = Files::new();
    files.write("ledger.zip", &export(&files.world.signer, &files.world.ledger, 20).zip(&files.world.signer));
    let answer = files.run(&["export", "ledger.zip", "--pin", &files.pin]);
    assert!(
        answer
            .is(0)
            .out
            .starts_with("ledger.zip: included (time: claimed): entries 0 to before 20 of ledger"),
        "{answer:#?}"
    );
    let answer = files.run(&["export", "ledger.zip", "--pin", &files.pin, "--json"]);
    let object = &answer.is(0).objects()[0];
    assert_eq!((&object["checkpoint_size"], &object["withheld"]), (&20.into(), &0.into()));
    files
        .run(&["export", "ledger.zip", "--pin", &files.pin, "--ledger", OTHER_LEDGER])
        .fails("ledger.zip", "ledger");
    let late = ["--at", "2030-01-01T00:00:00.000000Z"];
    let late = [&["export", "ledger.zip", "--pin", &files.pin][..], &late].concat();
    files.run(&late).is(0);
    files.run(&[&late[..], &["--as", "fresh"]].concat()).fails("ledger.zip", "stale");
    files.write("ledger.zip", b"PK");
    files.run(&["export", "ledger.zip", "--pin", &files.pin]).fails("ledger.zip", "zip");
    files.write(
        "revoked.json",
        &files.world.signer.keys_json(|keys, _| drop(keys[1].insert("revoked_at".into(), text(AT)))),
    );
    files.write("ledger.zip", &export(&files.world.signer, &files.world.ledger, 20).zip(&files.world.signer));
    let revoked = ["export", "ledger.zip", "--pin", &files.pin, "--keys", "revoked.json"];
    files.run(&revoked).fails("ledger.zip", "key_revoked");
}

/// A ledger that begins as the world's and goes on otherwise.
fn rewritten(size: usize) -> World {
    let mut world = World::default();
    let mut ledger = Ledger::of(5);
    while ledger.lines.len() < size {
        ledger.append("history.rewritten", &[]);
    }
    world.ledger = ledger;
    world
}

fn proof(world: &World, from: usize, to: usize) -> Vec<u8> {
    let hashes = consistency_path(from, &world.ledger.leaves()[..to]);
    let hashes = hashes.iter().map(|hash| text(&hex(hash))).collect();
    canonical(&object([("from", int(from as u64)), ("to", int(to as u64)), ("hashes", Value::Array(hashes))]))
}

#[test]
fn histories_are_compared_over_bodies_checkpoints_and_exports() {
    let files = Files::new();
    let signer = &files.world.signer;
    files.body("older.json", 6, 9);
    files.body("newer.json", 12, 20);
    files.write("older.txt", files.world.draft(6, 9).checkpoint().as_bytes());
    files.write("newer.txt", files.world.draft(12, 20).checkpoint().as_bytes());
    files.write("newer.zip", &export(signer, &files.world.ledger, 20).zip(signer));
    files.write("part.zip", &Export::of(signer, &files.world.ledger, (4, 20), None, false).zip(signer));
    files.write("proof.json", &proof(&files.world, 9, 20));
    for older in ["older.json", "older.txt"] {
        for newer in ["newer.json", "newer.txt", "newer.zip", "part.zip"] {
            let answer = files.consistency(&[older, newer, "--proof", "proof.json"]);
            assert!(answer.is(0).out.lines().count() == 2, "{answer:#?}");
            let needs_proof = newer != "newer.zip";
            files.consistency(&[older, newer]).is(if needs_proof { 2 } else { 0 });
        }
        files.consistency(&[older, older]).is(0);
        files.consistency(&[older, "older.txt"]).is(0);
        // The wrong way round; the export shows that it is only that.
        files.consistency(&["newer.zip", older]).is(0);
        files.consistency(&["newer.txt", older]).fails(older, "inconsistent");
    }
    let answer = files.consistency(&["older.json", "newer.zip", "--json"]);
    let objects = answer.is(0).objects();
    assert_eq!(objects.len(), 2);
    assert_eq!((&objects[0]["file"], &objects[0]["checkpoint_size"]), (&"older.json".into(), &9.into()));
    assert_eq!((&objects[1]["ok"], &objects[1]["verdict"]), (&true.into(), &serde_json::Value::Null));
    // A proof of something else.
    files.write("proof.json", &proof(&files.world, 8, 20));
    files.consistency(&["older.json", "newer.json", "--proof", "proof.json"]).fails("newer.json", "proof");
    files.write("proof.json", b"{}");
    files.consistency(&["older.json", "newer.json", "--proof", "proof.json"]).fails("newer.json", "proof");
}

#[test]
fn a_rewritten_history_is_found_even_under_a_revoked_key() {
    let files = Files::new();
    let other = rewritten(25);
    files.body("older.json", 6, 9);
    files.write("older.zip", &export(&files.world.signer, &files.world.ledger, 20).zip(&files.world.signer));
    files.write("rewritten.zip", &export(&other.signer, &other.ledger, 25).zip(&other.signer));
    files.write("short.zip", &export(&other.signer, &other.ledger, 7).zip(&other.signer));
    files.write("rewritten.json", &other.body(6, 9));
    files.write("same.json", &other.body(2, 5));
    files.write("proof.json", &proof(&other, 9, 25));
    files.write("later.json", &other.body(20, 25));
    let everything = |files: &Files| {
        files.consistency(&["older.json", "rewritten.zip"]).fails("rewritten.zip", "inconsistent");
        files.consistency(&["older.zip", "rewritten.zip"]).fails("rewritten.zip", "inconsistent");
        files.consistency(&["older.json", "rewritten.json"]).fails("rewritten.json", "inconsistent");
        files.consistency(&["older.json", "short.zip"]).fails("short.zip", "inconsistent");
        files
            .consistency(&["older.json", "later.json", "--proof", "proof.json"])
            .fails("later.json", "inconsistent");
        // Up to where the two part, they are one history.
        files.consistency(&["same.json", "older.zip"]).is(0);
        files.consistency(&["same.json", "rewritten.zip"]).is(0);
    };
    everything(&files);
    let revoked = files.world.signer.keys_json(|keys, _| {
        keys[1].insert("revoked_at".into(), text(AT));
        keys[2].insert("revoked_at".into(), text(AT));
    });
    files.write("keys.json", &revoked);
    everything(&files);
    files.receipt(&["older.json"]).fails("older.json", "key_revoked");
}

#[test]
fn what_is_compared_has_to_verify_itself() {
    let files = Files::new();
    files.body("older.json", 6, 9);
    let draft = files.world.draft(12, 20);
    let elsewhere = draft.clone().with(|draft| draft.origin = format!("{INSTANCE}/{OTHER_LEDGER}"));
    files.write("elsewhere.txt", elsewhere.checkpoint().as_bytes());
    let stranger = draft.clone().with(|draft| draft.origin = format!("other.example.org/{LEDGER}"));
    files.write("stranger.txt", stranger.checkpoint().as_bytes());
    let checkpoint = draft.checkpoint();
    let unsigned = log_line(&files.world.signer.root, &draft.origin, note_text(&checkpoint));
    files.write("unsigned.txt", format!("{}\n{unsigned}", note_text(&checkpoint)).as_bytes());
    files.write("garbage.txt", b"garbage");
    files.write("garbage.json", b"{\"v\":1e0}");
    files.write("garbage.zip", b"PK\x03\x04");
    files.write("before.zip", b"xPK\x03\x04");
    files.write("mark.json", b"\xef\xbb\xbf{}");
    for (file, check) in [
        ("elsewhere.txt", "origin"),
        ("stranger.txt", "origin"),
        ("unsigned.txt", "checkpoint_signature"),
        ("garbage.txt", "proof"),
        ("garbage.json", "json"),
        ("garbage.zip", "zip"),
        ("before.zip", "zip"),
        ("mark.json", "json"),
    ] {
        files.consistency(&["older.json", file]).fails(file, check);
    }
    files
        .consistency(&["garbage.txt", "garbage.json"])
        .fails("garbage.txt", "proof")
        .fails("garbage.json", "json");
    files.write("keys.json", b"{}");
    files
        .consistency(&["older.json", "elsewhere.txt"])
        .fails("older.json", "manifest")
        .fails("elsewhere.txt", "manifest");
}

#[test]
fn an_older_key_manifest_is_found() {
    let files = Files::new();
    let of_serial = |serial: u64| {
        files.world.signer.keys_json(move |_, manifest| drop(manifest.insert("serial".into(), int(serial))))
    };
    files.write("6.json", &of_serial(6));
    files.write("8.json", &of_serial(8));
    files.write("garbage.json", b"{}");
    let keys = |arguments: &[&str]| files.run(&[&["keys", "--pin", &files.pin][..], arguments].concat());
    let answer = keys(&["keys.json"]);
    assert!(answer.is(0).out.contains("; revocations known as of manifest serial 7, issued "), "{answer:#?}");
    keys(&["keys.json", "--since", "6.json"]).is(0);
    keys(&["keys.json", "--since", "keys.json"]).is(0);
    keys(&["keys.json", "--since", "8.json"]).fails("keys.json", "rollback");
    keys(&["keys.json", "--since", "garbage.json"]).fails("garbage.json", "manifest");
    keys(&["garbage.json", "--since", "keys.json"]).fails("garbage.json", "manifest");
    let stranger = Signer::new(b"a stranger");
    files.write("stranger.json", &stranger.keys_json(|_, _| ()));
    keys(&["stranger.json"]).fails("stranger.json", "manifest");
    keys(&["keys.json", "--since", "stranger.json"]).fails("stranger.json", "manifest");
    let answer = keys(&["keys.json", "--since", "8.json", "--json"]);
    let object = &answer.is(1).objects()[0];
    assert_eq!((&object["failed_check"], &object["keys_serial"]), (&"rollback".into(), &7.into()));
    let (key_id, _) = files.pin.split_once('@').unwrap();
    let elsewhere = format!("{key_id}@other.example.org");
    files.run(&["keys", "keys.json", "--pin", &elsewhere]).fails("keys.json", "instance");
}

#[test]
fn what_a_stranger_wrote_does_not_reach_the_terminal_as_it_is() {
    let files = Files::new();
    let draft = files.world.draft(10, 20).with(|draft| {
        draft.receipt.insert("destination".into(), text("\u{1b}[2J\u{202e}x\n"));
    });
    files.write("receipt.json", &canonical(&draft.finish()));
    let answer = files.receipt(&["receipt.json"]);
    assert!(answer.is(0).out.contains("for \\u{1b}[2J\\u{202e}x\\u{a}, issued"), "{answer:#?}");
    let mut body = draft.finish();
    body.insert("\u{1b}]0;x".to_owned(), Value::Null);
    files.write("receipt.json", &canonical(&body));
    let answer = files.receipt(&["receipt.json"]);
    assert!(!answer.fails("receipt.json", "members").err.contains('\u{1b}'), "{answer:#?}");
}

/// Runs the command with an address space of 256 MiB; where that is too little, it is aborted.
#[cfg(target_os = "linux")]
fn run_in_256_mib(files: &Files, arguments: &[&str]) -> Answer {
    let output = Command::new("sh")
        .args(["-c", "ulimit -v 262144 && exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_statusledger-verify")])
        .args(arguments)
        .current_dir(files.directory.path())
        .output()
        .unwrap();
    Answer::of(output)
}

#[cfg(target_os = "linux")]
#[test]
fn hostile_bodies_of_8_mib_take_less_than_256_mib() {
    let files = Files::new();
    let fill = |start: &str, unit: &str, end: &str| {
        let count = ((8 << 20) - start.len() - end.len()) / unit.len();
        format!("{start}{}{end}", unit.repeat(count))
    };
    let numbered = {
        let mut text = String::from("{");
        let mut index = 0u32;
        while text.len() < (8 << 20) - 16 {
            text += &format!("\"{index:x}\":0,");
            index += 1;
        }
        text + "\"\":0}"
    };
    let cases = [
        fill("[0", ",0", "]"),
        fill("[[]", ",[]", "]"),
        fill("[{}", ",{}", "]"),
        fill("[\"\"", ",\"\"", "]"),
        fill("{\"openings\":{\"v\":{\"value\":[0", ",0", "]}}}"),
        fill("[[[0]]", ",[[0]]", "]"),
        fill("[0", &format!(",{}0{}", "[".repeat(31), "]".repeat(31)), "]"),
        fill("[0", &format!(",{}\"a\"{}", "[".repeat(8), "]".repeat(8)), "]"),
        fill("[0", ",{\"a\":{\"a\":[\"a\"]}}", "]"),
        fill("{\"openings\":{\"v\":{\"value\":[0", ",[[[[0]]]]", "]}}}"),
        fill("{\"\":0", ",\"\":0", "}"),
        fill("\"", "\\u0000", "\""),
        fill("", "[", ""),
        numbered,
    ];
    for case in cases {
        assert!(case.len() <= 8 << 20);
        files.write("hostile.json", case.as_bytes());
        let arguments = ["receipt", "hostile.json", "--keys", "keys.json", "--pin", &files.pin];
        let answer = run_in_256_mib(&files, &arguments);
        assert!(
            answer.status == 1 && answer.err.starts_with("hostile.json: "),
            "{}: {}",
            &case[..40],
            answer.err
        );
    }
}
