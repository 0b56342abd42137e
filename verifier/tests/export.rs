//! Exports as the formats allow them, and what makes each check fail.
#![allow(clippy::unwrap_used)]

mod export_support;

use std::io::Write;

use export_support::zip::{self, Member};
use export_support::*;
use statusledger_verify::encoding::{base64, hex};
use statusledger_verify::export::{self, Error, Options};
use statusledger_verify::json::{self, Value};
use statusledger_verify::manifest::Revoked;
use statusledger_verify::policy::Policy;
use statusledger_verify::{Check, Failure, Hash, Mode, Report, Subject, TimeSource, Verdict, checkpoint};

fn verify_with(
    bytes: &[u8],
    signer: &Signer,
    keys: Option<&[u8]>,
    options: &Options,
) -> Result<Report, Failure> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    match export::verify(file.path(), &signer.pin(), keys, options, &|_, _| ()) {
        Ok(report) => Ok(report),
        Err(Error::Failed(failure)) => Err(failure),
        Err(Error::Io(error)) => panic!("{error}"),
    }
}

fn verify(bytes: &[u8], signer: &Signer) -> Result<Report, Failure> {
    verify_with(bytes, signer, None, &Options::default())
}

fn signer() -> Signer {
    Signer::new(b"export tests")
}

#[track_caller]
fn fails(export: &Export, check: Check, seq: Option<u64>) -> Failure {
    let failure = verify(&export.zip(&signer()), &signer()).unwrap_err();
    assert_eq!((failure.check, failure.seq), (check, seq), "{failure}");
    failure
}

fn whole(count: u64) -> Export {
    let count = usize::try_from(count).unwrap();
    Export::of(&signer(), &Ledger::of(count as u64), (0, count), None, true)
}

fn parsed(line: &[u8]) -> json::Object {
    json::parse(line).unwrap().as_object().unwrap().clone()
}

/// Puts a member into a line; nothing is chained anew.
fn set(line: &mut Vec<u8>, name: &str, value: Value) {
    let mut entry = parsed(line);
    entry.insert(name.to_owned(), value);
    *line = canonical(&entry);
}

/// Links the lines from `start` on to what stands before them, and makes root, checkpoint and count fit. Only for
/// whole exports.
fn chained(mut export: Export, start: usize) -> Export {
    for i in start..export.lines.len() {
        let prev = if i == 0 { [0; 32] } else { leaf(&export.lines[i - 1]) };
        set(&mut export.lines[i], "prev", text(&hex(&prev)));
    }
    rooted(export)
}

fn rooted(mut export: Export) -> Export {
    let leaves: Vec<Hash> = export.lines.iter().map(|line| leaf(line)).collect();
    let root = tree_root(&leaves);
    export.checkpoint = signer().checkpoint(LEDGER, leaves.len() as u64, &root);
    for name in ["to", "count"] {
        export.set(name, int(leaves.len() as u64));
    }
    export.set("root", text(&hex(&root)));
    export
}

#[test]
fn every_range_of_a_ledger_verifies_with_and_without_filter_and_openings() {
    let (signer, ledger) = (signer(), Ledger::of(19));
    let filter: &[&str] = &["audit.login", "never.seen"];
    for to in 0..=19 {
        for from in 0..=to {
            for (filter, openings) in
                [(None, true), (None, false), (Some(filter), true), (Some(&[][..]), false)]
            {
                let export = Export::of(&signer, &ledger, (from, to), filter, openings);
                let report = verify(&export.zip(&signer), &signer).unwrap();
                let count = export.manifest.get("count").unwrap().as_u64().unwrap();
                assert_eq!(report.verdict, Verdict::Included);
                assert_eq!(report.time, TimeSource::Claimed);
                assert_eq!(
                    report.subject,
                    Subject::Export {
                        from: from as u64,
                        to: to as u64,
                        count,
                        exported_at: EXPORTED_AT.parse().unwrap()
                    }
                );
                assert_eq!(report.facts.withheld, Some((to - from) as u64 - count));
                assert_eq!(report.facts.checkpoint_size, Some(to as u64));
                assert_eq!(report.facts.keys_serial, Some(7));
                assert_eq!(report.facts.ledger.as_deref(), Some(LEDGER));
                assert_eq!(report.facts.instance.as_deref(), Some(INSTANCE));
                assert_eq!(report.facts.key_id, Some(key_id(&signer.receipt)));
                assert_eq!(report.facts.seq, None);
                assert_eq!(report.checkpoint.size, to as u64);
            }
        }
    }
}

#[test]
fn exports_of_many_chunks_verify_however_they_are_compressed() {
    let (signer, ledger) = (signer(), Ledger::of(5000));
    for filter in [None, Some(&["audit.login", "build.processed"][..])] {
        let export = Export::of(&signer, &ledger, (0, 5000), filter, true);
        let members = export.members(&signer);
        assert!(members[0].1.len() > 3 * 256 * 1024);
        for deflated in 0..1 << members.len() {
            if ![0, 1, 2, 3, 31].contains(&deflated) {
                continue;
            }
            let member = |(i, (name, data)): (usize, &(String, Vec<u8>))| {
                if deflated >> i & 1 == 1 {
                    Member::deflated(name, data)
                } else {
                    Member::stored(name, data.clone())
                }
            };
            let members: Vec<Member> = members.iter().enumerate().map(member).collect();
            verify(&zip::write(&members), &signer).unwrap();
        }
    }
}

#[test]
fn progress_rises_to_the_bytes_of_the_lines() {
    let export = Export::of(&signer(), &Ledger::of(2000), (0, 2000), None, true);
    let total: usize = export.members(&signer()).iter().take(2).map(|(_, data)| data.len()).sum();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&export.zip(&signer())).unwrap();
    let seen = std::sync::Mutex::new(vec![0]);
    let progress = |done: u64, all: u64| {
        assert_eq!(all, total as u64);
        let mut seen = seen.lock().unwrap();
        assert!(done > *seen.last().unwrap());
        seen.push(done);
    };
    export::verify(file.path(), &signer().pin(), None, &Options::default(), &progress).unwrap();
    assert_eq!(*seen.lock().unwrap().last().unwrap(), total as u64);
}

#[test]
fn the_root_at_every_size_is_that_of_the_entries_before_it() {
    let (signer, ledger) = (signer(), Ledger::of(23));
    let leaves = ledger.leaves();
    for from in [0, 1, 6, 23] {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let export = Export::of(&signer, &ledger, (from, 23), Some(&["audit.login"]), false);
        file.write_all(&export.zip(&signer)).unwrap();
        for size in 0..=24 {
            let options = Options::default();
            let answer = export::verify_with_root_at(
                file.path(),
                &signer.pin(),
                None,
                &options,
                size as u64,
                &|_, _| (),
            );
            let expected = (from..=23).contains(&size).then(|| tree_root(&leaves[..size]));
            assert_eq!(answer.unwrap().1, expected, "{from} {size}");
        }
    }
}

#[test]
fn a_file_that_cannot_be_read_is_not_a_failed_check() {
    let missing = std::path::Path::new("/nonexistent/export.zip");
    let answer = export::verify(missing, &signer().pin(), None, &Options::default(), &|_, _| ());
    assert!(matches!(answer, Err(Error::Io(error)) if error.kind() == std::io::ErrorKind::NotFound));
    let folder = tempfile::tempdir().unwrap();
    let answer = export::verify(folder.path(), &signer().pin(), None, &Options::default(), &|_, _| ());
    assert!(matches!(answer, Err(Error::Io(_))));
}

// --- the documents beside the lines, E2 to E12 ---

#[test]
fn a_manifest_with_anything_else_than_its_members_fails_members() {
    let cases: &[(&str, Value)] = &[
        ("v", int(2)),
        ("v", text("1")),
        ("instance", text("Example.org")),
        ("ledger", text(&LEDGER.to_uppercase())),
        ("from", Value::Int(-1)),
        ("from", int(13)),
        ("to", Value::Null),
        ("root", text(&"A".repeat(64))),
        ("root", text("")),
        ("count", text("12")),
        ("filter", text("audit.login")),
        ("filter", Value::Array(vec![int(1)])),
        ("filter", Value::Array(vec![text("Audit.*")])),
        ("left", Value::Null),
        ("left", Value::Array(vec![text("00")])),
        ("exported_at", text("2026-11-20T12:00:00Z")),
        ("exported_by", int(1)),
        ("key_id", text("")),
        ("more", Value::Null),
    ];
    for (name, value) in cases {
        let mut export = whole(12);
        export.set(name, value.clone());
        let failure = fails(&export, Check::Members, None);
        assert!(failure.detail.starts_with("manifest.json"), "{failure}");
    }
    for name in ["v", "instance", "ledger", "from", "to", "root", "count", "filter", "left", "key_id"] {
        let mut export = whole(12);
        export.manifest.remove(name);
        fails(&export, Check::Members, None);
    }
}

/// The members of an export, one of them replaced.
fn with_member(export: &Export, name: &str, data: Vec<u8>) -> Vec<u8> {
    let mut members = export.members(&signer());
    members.iter_mut().find(|(of, _)| of == name).unwrap().1 = data;
    zip::write(&members.into_iter().map(|(name, data)| Member::stored(&name, data)).collect::<Vec<_>>())
}

#[test]
fn a_manifest_is_read_however_it_is_serialised_but_only_by_the_ground_rules() {
    let export = whole(3);
    let json = String::from_utf8(export.manifest_json(&signer())).unwrap();
    let spaced = format!(" {}\n", json.replace(",\"", ",\r\n\t\"").replace("usr_1", "\\u0075sr_1"));
    verify(&with_member(&export, "manifest.json", spaced.into_bytes()), &signer()).unwrap();
    for wrong in [
        "".to_owned(),
        "[]".to_owned(),
        format!("\u{feff}{json}"),
        format!("{json}{json}"),
        json.replace("\"v\":1", "\"v\":1.0"),
        json.replace("\"v\":1", "\"v\":1e0"),
        json.replace("\"v\":1", "\"v\":1,\"v\":1"),
        json.replace("\"from\":0", "\"from\":-0"),
        json.replace("\"from\":0", "\"from\":9007199254740992"),
        json.replace("usr_1", "\\ud800"),
        json.replace("\"usr_1\"", &format!("{}{}", "[".repeat(10_000), "]".repeat(10_000))),
        json.replace("usr_1", &"u".repeat(1 << 20)),
    ] {
        let failure =
            verify(&with_member(&export, "manifest.json", wrong.into_bytes()), &signer()).unwrap_err();
        assert_eq!(failure.check, Check::Members, "{failure}");
    }
}

#[test]
fn any_change_to_the_manifest_that_keeps_its_shape_is_found() {
    let export = Export::of(&signer(), &Ledger::of(12), (5, 12), Some(&["audit.login"]), true);
    let json = export.manifest_json(&signer());
    let mut found = std::collections::HashSet::new();
    for place in 0..json.len() {
        for flip in [1, 2, 0x20] {
            let mut changed = json.clone();
            changed[place] ^= flip;
            let failure = verify(&with_member(&export, "manifest.json", changed), &signer()).unwrap_err();
            found.insert(failure.check);
            let expected =
                [Check::Members, Check::Instance, Check::KeyUnknown, Check::KeyWindow, Check::Signature];
            assert!(expected.contains(&failure.check), "byte {place}: {failure}");
        }
    }
    assert_eq!(found.len(), 5, "{found:?}");
}

#[test]
fn any_change_to_the_checkpoint_is_found() {
    let export = whole(5);
    for place in 0..export.checkpoint.len() {
        let mut changed = export.checkpoint.clone();
        changed[place] ^= 1;
        let failure = verify(&with_member(&export, "checkpoint", changed), &signer()).unwrap_err();
        let expected = [Check::Origin, Check::CheckpointSignature];
        assert!(expected.contains(&failure.check), "byte {place}: {failure}");
    }
}

#[test]
fn keys_that_the_pin_does_not_lead_to_fail_manifest() {
    let export = whole(3);
    let zip = export.zip(&signer());
    assert_eq!(verify(&zip, &Signer::new(b"another")).unwrap_err().check, Check::Manifest);
    for keys in [Vec::new(), vec![b' '; (1 << 20) + 1], Signer::new(b"another").keys_json(|_, _| ())] {
        let failure = verify(&with_member(&export, "keys.json", keys), &signer()).unwrap_err();
        assert_eq!(failure.check, Check::Manifest, "{failure}");
    }
}

#[test]
fn keys_given_beside_the_export_replace_its_own() {
    let export = whole(3);
    let newer = signer().keys_json(|keys, manifest| {
        keys[1].insert("revoked_at".to_owned(), text("2026-11-21T00:00:00.000000Z"));
        manifest.insert("serial".to_owned(), int(8));
    });
    let without_own = with_member(&export, "keys.json", b"gone".to_vec());
    let options = Options::default();
    verify_with(&without_own, &signer(), Some(&signer().keys_json(|_, _| ())), &options).unwrap();
    let failure = verify_with(&export.zip(&signer()), &signer(), Some(&newer), &options).unwrap_err();
    assert_eq!((failure.check, failure.facts.keys_serial), (Check::KeyRevoked, Some(8)));
    assert_eq!(failure.also, []);
    let counted = Options { revoked: Revoked::Counted, ..Options::default() };
    verify_with(&export.zip(&signer()), &signer(), Some(&newer), &counted).unwrap();
}

#[test]
fn the_export_of_another_instance_or_ledger_is_refused() {
    let mut export = whole(3);
    export.set("instance", text("other.example.org"));
    fails(&export, Check::Instance, None);

    let mut pin = signer();
    pin.instance = "other.example.org".to_owned();
    assert_eq!(verify(&whole(3).zip(&signer()), &pin).unwrap_err().check, Check::Instance);

    let asked = |ledger: &str| Options { ledger: Some(ledger.to_owned()), ..Options::default() };
    let zip = whole(3).zip(&signer());
    verify_with(&zip, &signer(), None, &asked(LEDGER)).unwrap();
    let other = asked("0190c5a1-0000-7000-8000-000000000000");
    assert_eq!(verify_with(&zip, &signer(), None, &other).unwrap_err().check, Check::Ledger);
}

#[test]
fn a_key_of_another_purpose_or_window_is_refused() {
    for key in [signer().root, signer().checkpoint, Signer::new(b"another").receipt] {
        let mut export = whole(3);
        export.set("key_id", text(&hex(&key_id(&key))));
        fails(&export, Check::KeyUnknown, None);
    }
    for (time, fails_at) in [
        ("2026-09-30T23:59:59.999999Z", true),
        ("2026-10-01T00:00:00.000000Z", false),
        ("2026-11-20T12:00:00.000000Z", false),
        ("2026-11-20T12:00:00.000001Z", true),
    ] {
        let mut export = whole(3);
        export.keys = signer().keys_json(|keys, _| {
            keys[1].insert("not_after".to_owned(), text("2026-11-20T12:00:00.000000Z"));
            keys[1].insert("verify_until".to_owned(), text("2027-02-18T12:00:00.000000Z"));
        });
        export.set("exported_at", text(time));
        let answer = verify(&export.zip(&signer()), &signer());
        assert_eq!(answer.err().map(|failure| failure.check), fails_at.then_some(Check::KeyWindow), "{time}");
    }
}

#[test]
fn freshness_is_judged_only_where_asked_for() {
    let mut export = whole(3);
    export.keys = signer().keys_json(|keys, _| {
        keys[1].insert("not_after".to_owned(), text("2026-11-20T12:00:00.000000Z"));
        keys[1].insert("verify_until".to_owned(), text("2027-02-18T12:00:00.000000Z"));
    });
    let zip = export.zip(&signer());
    let judged = |at: &str, mode| {
        let options = Options { at: Some(at.parse().unwrap()), mode, ..Options::default() };
        verify_with(&zip, &signer(), None, &options).err().map(|failure| failure.check)
    };
    assert_eq!(judged("2027-01-30T00:00:00.000000Z", Mode::Fresh), None);
    assert_eq!(judged("2027-01-30T00:00:00.000001Z", Mode::Fresh), Some(Check::Stale));
    assert_eq!(judged("2027-02-18T12:00:00.000001Z", Mode::Fresh), Some(Check::Stale));
    assert_eq!(judged("2099-01-01T00:00:00.000000Z", Mode::Evidence), None);
}

#[test]
fn revocation_and_staleness_are_reported_with_what_else_fails() {
    let mut export = whole(3);
    export.keys = signer().keys_json(|keys, _| {
        keys[1].insert("revoked_at".to_owned(), text("2026-11-01T00:00:00.000000Z"));
    });
    export.lines[1].push(b' ');
    let at = Some("2030-01-01T00:00:00.000000Z".parse().unwrap());
    let options = Options { at, mode: Mode::Fresh, ..Options::default() };
    let failure = verify_with(&export.zip(&signer()), &signer(), None, &options).unwrap_err();
    assert_eq!((failure.check, failure.seq), (Check::KeyRevoked, Some(1)));
    let also: Vec<Check> = failure.also.iter().map(|(check, _)| *check).collect();
    assert_eq!(also, [Check::Stale, Check::NotCanonical]);
}

#[test]
fn a_signature_of_another_kind_or_key_is_refused() {
    for (key, kind) in
        [(signer().receipt, "receipt"), (signer().receipt, "manifest"), (signer().root, "export")]
    {
        let export = whole(3);
        let mut manifest = export.manifest.clone();
        manifest.insert("signature".to_owned(), sign(&key, kind, &canonical(&manifest)));
        let failure =
            verify(&with_member(&export, "manifest.json", canonical(&manifest)), &signer()).unwrap_err();
        assert_eq!(failure.check, Check::Signature, "{kind}");
    }
}

#[test]
fn a_checkpoint_of_another_log_key_size_or_root_is_refused() {
    let leaves = Ledger::of(6).leaves();
    let checked = |checkpoint: Vec<u8>, check: Check| {
        fails(&Export { checkpoint, ..whole(5) }, check, None);
    };
    let root = tree_root(&leaves[..5]);
    checked(signer().checkpoint("0190c5a1-0000-7000-8000-000000000000", 5, &root), Check::Origin);
    let other = Signer { instance: "other.example.org".to_owned(), ..signer() };
    checked(other.checkpoint(LEDGER, 5, &root), Check::Origin);
    checked(Vec::new(), Check::Origin);
    checked(vec![b'\n'; 100_000], Check::Origin);
    checked([signer().checkpoint(LEDGER, 5, &root), b"\n".to_vec()].concat(), Check::Origin);
    let other = Signer { checkpoint: signer().receipt, ..signer() };
    checked(other.checkpoint(LEDGER, 5, &root), Check::CheckpointSignature);
    checked(signer().checkpoint(LEDGER, 4, &tree_root(&leaves[..4])), Check::Root);
    checked(signer().checkpoint(LEDGER, 6, &tree_root(&leaves)), Check::Root);
    checked(signer().checkpoint(LEDGER, 4, &root), Check::Root);
    checked(signer().checkpoint(LEDGER, 5, &[7; 32]), Check::Root);

    let mut export = whole(5);
    export.keys = signer().keys_json(|keys, _| {
        keys[2].insert("revoked_at".to_owned(), text("2026-11-01T00:00:00.000000Z"));
    });
    fails(&export, Check::CheckpointSignature, None);
}

#[test]
fn a_policy_is_met_by_its_witnesses_or_fails() {
    use ed25519_dalek::{Signer as _, SigningKey};
    let witness = SigningKey::from_bytes(&[9; 32]);
    let (name, public) = ("witness.example", witness.verifying_key().to_bytes());
    let id = checkpoint::cosignature_key_id(name, &public);
    let vkey = format!("{name}+{}+{}", hex_of(&id), base64(&[&[4], &public[..]].concat()));
    let policy = Policy::parse(format!("witness w {vkey}\nquorum w\n").as_bytes()).unwrap();
    let options = Options { policy: Some(policy), ..Options::default() };

    let plain = whole(5);
    let failure = verify_with(&plain.zip(&signer()), &signer(), None, &options).unwrap_err();
    assert_eq!(failure.check, Check::Policy);

    let mut cosigned = plain.clone();
    let checkpoint = String::from_utf8(plain.checkpoint.clone()).unwrap();
    let body = checkpoint.split_inclusive("\n\n").next().unwrap().trim_end_matches('\n').to_owned() + "\n";
    let signature = witness.sign(&checkpoint::cosignature_message(1_795_000_000, &body)).to_bytes();
    cosigned
        .checkpoint
        .extend(checkpoint::cosignature_line(name, id, 1_795_000_000, &signature).into_bytes());
    let report = verify_with(&cosigned.zip(&signer()), &signer(), None, &options).unwrap();
    assert_eq!((report.verdict, report.time), (Verdict::Witnessed, TimeSource::Witnessed));
    assert_eq!(verify(&cosigned.zip(&signer()), &signer()).unwrap().verdict, Verdict::Included);

    // Everything else goes before the policy.
    let mut wrong = plain;
    wrong.set("count", int(4));
    let failure = verify_with(&wrong.zip(&signer()), &signer(), None, &options).unwrap_err();
    assert_eq!(failure.check, Check::Count);
}

fn hex_of(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

// --- the lines, E13 to E19 ---

#[test]
fn a_line_that_is_not_canonical_is_refused() {
    let entry = String::from_utf8(Ledger::of(6).lines[3].clone()).unwrap();
    let padded = |length: usize| {
        let mut line = entry.clone().into_bytes();
        let padding = "x".repeat(length - line.len() - r#","padding":"""#.len());
        let mut data = parsed(&line).get("data").unwrap().as_object().unwrap().clone();
        data.insert("padding".to_owned(), text(&padding));
        set(&mut line, "data", Value::Object(data));
        assert_eq!(line.len(), length);
        line
    };
    let cases: Vec<Vec<u8>> = vec![
        Vec::new(),
        entry.replace(",\"", ", \"").into_bytes(),
        format!("{entry}\r").into_bytes(),
        format!(" {entry}").into_bytes(),
        format!("\u{feff}{entry}").into_bytes(),
        format!("{entry}{entry}").into_bytes(),
        entry.replace("\"v\":1", "\"v\":1.0").into_bytes(),
        entry.replace("\"v\":1", "\"v\":1e0").into_bytes(),
        entry.replace("\"v\":1", "\"v\":1,\"v\":1").into_bytes(),
        entry.replace("\"seq\":3", "\"seq\":-0").into_bytes(),
        entry.replace("\"seq\":3", "\"seq\":9007199254740993").into_bytes(),
        entry.replace("6446048195", "\\ud800").into_bytes(),
        entry.replace("6446048195", "\\u0036").into_bytes(),
        entry.replace("\"6446048195\"", &format!("{}{}", "[".repeat(31), "]".repeat(31))).into_bytes(),
        entry.replace("\"6446048195\"", &"[".repeat(10_000)).into_bytes(),
        [&entry.as_bytes()[..9], b"\xff", &entry.as_bytes()[9..]].concat(),
        entry
            .replacen("\"app\":\"6446048195\",", "", 1)
            .replacen("\"to\":", "\"app\":0,\"app\":", 1)
            .into_bytes(),
        padded(65_536),
        padded(70_000),
        padded(1_000_000),
    ];
    for line in cases {
        let mut export = whole(6);
        export.lines[3] = line;
        fails(&export, Check::NotCanonical, Some(3));
    }
    let mut export = whole(4);
    export.lines[3] = padded(65_535);
    verify(&chained(export, 3).zip(&signer()), &signer()).unwrap();
    // The entry is the first level, its data the second.
    let mut export = whole(4);
    let nested = format!("{}{}", "[".repeat(30), "]".repeat(30));
    export.lines[3] = entry.replace("\"6446048195\"", &nested).into_bytes();
    verify(&chained(export, 3).zip(&signer()), &signer()).unwrap();
}

#[test]
fn a_last_line_without_its_line_feed_is_refused() {
    for count in [1, 6] {
        let export = whole(count);
        let mut entries = export.members(&signer())[0].1.clone();
        entries.pop();
        let failure = verify(&with_member(&export, "entries.jsonl", entries), &signer()).unwrap_err();
        assert_eq!((failure.check, failure.seq), (Check::NotCanonical, Some(count - 1)));
    }
}

#[test]
fn a_line_with_other_members_or_values_than_an_entrys_is_refused() {
    let sealed = |value: Value| Value::Object(object([("sealed", value)]));
    let cases: Vec<(&str, Value)> = vec![
        ("v", int(2)),
        ("v", text("1")),
        ("ledger", text("0190C5A1-7c3e-7b1a-9d55-0a6d5e2f4b10")),
        ("ledger", text("0190c5a17c3e7b1a9d550a6d5e2f4b10")),
        ("seq", text("3")),
        ("seq", Value::Int(-3)),
        ("prev", text(&"A".repeat(64))),
        ("prev", text(&"0".repeat(63))),
        ("prev", Value::Null),
        ("timestamp", text("2026-11-02T03:00:03Z")),
        ("timestamp", text("2026-02-29T03:00:03.000004Z")),
        ("timestamp", text("2026-11-02T03:00:60.000004Z")),
        ("nonce", text("AAAAAAAAAAAAAAAAAAAAAA")),
        ("nonce", text("AAAAAAAAAAAAAAAAAAAAAB==")),
        ("nonce", text("AAAAAAAAAAAAAAAAAAAAA===")),
        ("nonce", text("AAAAAAAAAAAAAAAAAAAA-A==")),
        ("nonce", text("AAAAAAAAAAAAAAAAAAAAAAA=")),
        ("nonce", int(0)),
        ("type", text("")),
        ("type", text("a..b")),
        ("type", text("A.b")),
        ("type", text(".a")),
        ("type", text("a\"b")),
        ("data", Value::Array(Vec::new())),
        ("data", Value::Null),
        ("data", sealed(Value::Null)),
        ("data", sealed(text(&"0".repeat(64)))),
        ("data", sealed(Value::Object(object([("a", Value::Null)])))),
        ("data", sealed(Value::Object(object([("a", text("00"))])))),
        ("data", sealed(Value::Object(object([("A", text(&"0".repeat(64)))])))),
        ("data", sealed(Value::Object(object([("", text(&"0".repeat(64)))])))),
        ("data", sealed(Value::Object(object([("a", text(&"0".repeat(64))), ("b", int(1))])))),
        ("more", Value::Null),
    ];
    for (name, value) in cases {
        let mut export = whole(6);
        set(&mut export.lines[3], name, value);
        fails(&export, Check::Members, Some(3));
    }
    for name in ["data", "ledger", "nonce", "prev", "seq", "timestamp", "type", "v"] {
        let mut export = whole(6);
        let mut entry = parsed(&export.lines[3]);
        entry.remove(name);
        export.lines[3] = canonical(&entry);
        fails(&export, Check::Members, Some(3));
    }
    let hash = "0".repeat(64);
    for line in [
        "1".to_owned(),
        "[]".to_owned(),
        "{}".to_owned(),
        "null".to_owned(),
        "\"\"".to_owned(),
        r#"{"leaf":"00","seq":3}"#.to_owned(),
        r#"{"seq":3}"#.to_owned(),
        format!(r#"{{"leaf":"{hash}"}}"#),
        format!(r#"{{"leaf":"{hash}","seq":"3"}}"#),
        format!(r#"{{"leaf":"{hash}","seq":3,"type":"a"}}"#),
        format!(r#"{{"leaf":"{}","seq":3}}"#, "A".repeat(64)),
    ] {
        let mut export = Export::of(&signer(), &Ledger::of(6), (0, 6), Some(&["audit.login"]), false);
        export.lines[3] = line.into_bytes();
        fails(&export, Check::Members, Some(3));
    }
}

#[test]
fn a_line_in_the_wrong_place_is_refused() {
    let mut export = whole(6);
    export.lines.swap(2, 3);
    fails(&export, Check::Seq, Some(2));
    let mut export = whole(6);
    export.lines.remove(3);
    fails(&export, Check::Seq, Some(3));
    let mut export = whole(6);
    export.lines.remove(0);
    fails(&export, Check::Seq, Some(0));
    let mut export = whole(6);
    export.lines.insert(3, export.lines[2].clone());
    fails(&export, Check::Seq, Some(3));
    let mut export = whole(6);
    export.lines.push(export.lines[5].clone());
    fails(&export, Check::Seq, Some(6));
    let mut export = Export::of(&signer(), &Ledger::of(9), (4, 9), Some(&["audit.login"]), false);
    export.lines.swap(0, 2);
    fails(&export, Check::Seq, Some(4));
}

#[test]
fn an_entry_of_another_ledger_is_refused() {
    for at in [0, 3, 5] {
        let mut export = whole(6);
        set(&mut export.lines[at], "ledger", text("0190c5a1-0000-7000-8000-000000000000"));
        fails(&chained(export, at + 1), Check::Ledger, Some(at as u64));
    }
}

#[test]
fn a_broken_link_is_refused() {
    for at in 0..5 {
        let mut export = whole(6);
        set(&mut export.lines[at], "data", Value::Object(json::Object::new()));
        fails(&rooted(export), Check::Link, Some(at as u64 + 1));
    }
    for at in 0..6 {
        let mut export = whole(6);
        set(&mut export.lines[at], "prev", text(&"1".repeat(64)));
        fails(&rooted(export), Check::Link, Some(at as u64));
    }
    // A left-out line's leaf is what the next entry has to name.
    let mut export = Export::of(&signer(), &Ledger::of(9), (0, 9), Some(&["audit.login"]), false);
    export.lines[1] = canonical(&object([("leaf", text(&"1".repeat(64))), ("seq", int(1))]));
    fails(&export, Check::Link, Some(2));
    // The first line of a range names an entry that is not there.
    let mut export = Export::of(&signer(), &Ledger::of(9), (4, 5), None, false);
    set(&mut export.lines[0], "prev", text(&"1".repeat(64)));
    fails(&export, Check::Root, None);
}

#[test]
fn an_entry_earlier_than_the_one_before_is_refused() {
    for at in [1, 3, 5] {
        let mut export = whole(6);
        set(&mut export.lines[at], "timestamp", text("2026-11-02T02:59:59.999999Z"));
        fails(&chained(export, at + 1), Check::Time, Some(at as u64));
        let mut export = whole(6);
        let before = parsed(&export.lines[at - 1]).get("timestamp").unwrap().clone();
        set(&mut export.lines[at], "timestamp", before);
        verify(&chained(export, at + 1).zip(&signer()), &signer()).unwrap();
    }
    // Across lines that were left out, too.
    let mut ledger = Ledger::of(9);
    set(&mut ledger.lines[5], "timestamp", text("2026-11-02T03:00:01.000004Z"));
    for i in 6..9 {
        let prev = hex(&leaf(&ledger.lines[i - 1]));
        set(&mut ledger.lines[i], "prev", text(&prev));
    }
    let export = Export::of(&signer(), &ledger, (0, 9), Some(&["audit.login"]), false);
    fails(&export, Check::Time, Some(5));
    verify(&Export::of(&signer(), &ledger, (3, 9), Some(&["audit.login"]), false).zip(&signer()), &signer())
        .unwrap();
}

#[test]
fn what_the_filter_does_not_allow_is_refused() {
    let mut export = Export::of(&signer(), &Ledger::of(9), (0, 9), Some(&["audit.login"]), false);
    export.set("filter", Value::Null);
    fails(&export, Check::Filter, Some(0));
    let mut export = whole(9);
    export.set("filter", Value::Array(vec![text("audit.login"), text("store.version.transitioned")]));
    fails(&export, Check::Filter, Some(1));
    export.set("filter", Value::Array(Vec::new()));
    fails(&export, Check::Filter, Some(0));
}

// --- what the lines come to, E20 ---

#[test]
fn lines_and_entries_are_counted() {
    let mut export = whole(6);
    export.lines.pop();
    fails(&export, Check::Count, None);
    let mut export = whole(6);
    export.lines.push(Ledger::of(7).lines[6].clone());
    fails(&export, Check::Seq, Some(6));
    export.lines.push("{}".into());
    fails(&export, Check::Seq, Some(6));
    let mut export = whole(6);
    export.lines.clear();
    fails(&export, Check::Count, None);
    for filter in [None, Some(&["audit.login"][..])] {
        let export = Export::of(&signer(), &Ledger::of(9), (2, 9), filter, false);
        let count = export.manifest.get("count").unwrap().as_u64().unwrap();
        for wrong in [0, count - 1, count + 1, 1 << 53] {
            let mut export = export.clone();
            export.set("count", int(wrong.min((1 << 53) - 1)));
            fails(&export, Check::Count, None);
        }
    }
}

#[test]
fn every_hash_that_the_root_is_made_of_matters() {
    let export = Export::of(&signer(), &Ledger::of(30), (23, 30), None, false);
    let left = export.manifest.get("left").unwrap().as_array().unwrap().to_vec();
    assert_eq!(left.len(), 4);
    let with = |left: Vec<Value>| {
        let mut export = export.clone();
        export.set("left", Value::Array(left));
        export
    };
    for i in 0..4 {
        let mut other = left.clone();
        other[i] = text(&"5".repeat(64));
        fails(&with(other), Check::Root, None);
        let mut fewer = left.clone();
        fewer.remove(i);
        fails(&with(fewer), Check::Root, None);
        let mut more = left.clone();
        more.insert(i, left[i].clone());
        fails(&with(more), Check::Root, None);
    }
    fails(&with(left.iter().rev().cloned().collect()), Check::Root, None);
    fails(&with(Vec::new()), Check::Root, None);
    let mut changed = export.clone();
    changed.set("root", text(&"5".repeat(64)));
    fails(&changed, Check::Root, None);

    // The last entry has none after it to name its leaf.
    let mut last = whole(6);
    set(&mut last.lines[5], "data", Value::Object(json::Object::new()));
    fails(&last, Check::Root, None);
    // Nor does any left-out line before another.
    let mut hidden = Export::of(&signer(), &Ledger::of(9), (0, 9), Some(&["audit.login"]), false);
    hidden.lines[0] = canonical(&object([("leaf", text(&"1".repeat(64))), ("seq", int(0))]));
    fails(&hidden, Check::Root, None);
    let mut empty = whole(0);
    empty.set("root", text(&"0".repeat(64)));
    fails(&empty, Check::Root, None);
}

#[test]
fn the_lowest_line_and_its_first_check_are_named_whatever_else_fails() {
    let other = text("0190c5a1-0000-7000-8000-000000000000");
    let mut export = whole(9);
    export.lines[7].push(b' ');
    set(&mut export.lines[6], "v", int(2));
    set(&mut export.lines[5], "seq", int(9));
    set(&mut export.lines[4], "ledger", other.clone());
    set(&mut export.lines[3], "prev", text(&"1".repeat(64)));
    fails(&export, Check::Link, Some(3));

    // One line with everything wrong, mended check by check.
    let filter = Value::Array(vec![text("store.version.transitioned"), text("build.processed")]);
    let mut export = whole(9);
    export.set("filter", filter);
    let right = parsed(&export.lines[2]);
    for (name, value) in [
        ("timestamp", text("2026-11-01T00:00:00.000000Z")),
        ("prev", text(&"1".repeat(64))),
        ("ledger", other),
        ("seq", int(5)),
        ("v", int(2)),
    ] {
        set(&mut export.lines[2], name, value);
    }
    export.lines[2].push(b' ');
    fails(&export, Check::NotCanonical, Some(2));
    export.lines[2].pop();
    for (name, check) in [
        ("v", Check::Members),
        ("seq", Check::Seq),
        ("ledger", Check::Ledger),
        ("prev", Check::Link),
        ("timestamp", Check::Time),
    ] {
        fails(&export, check, Some(2));
        set(&mut export.lines[2], name, right.get(name).unwrap().clone());
    }
    fails(&export, Check::Filter, Some(2));
}

// --- openings, E21 ---

#[test]
fn openings_that_do_not_match_are_refused() {
    let right = whole(12);
    let openings = right.openings.clone().unwrap();
    assert_eq!(openings.len(), 6);
    let with = |openings: Vec<Vec<u8>>| Export { openings: Some(openings), ..right.clone() };
    let edited = |i: usize, name: &str, value: Value| {
        let mut openings = openings.clone();
        set(&mut openings[i], name, value);
        with(openings)
    };
    let salt = parsed(&openings[3]).get("salt").unwrap().clone();
    for (i, name, value) in [
        (0, "value", text("someone.else@example.org")),
        (5, "value", Value::Null),
        (2, "salt", salt),
        (2, "salt", text("AA==")),
        (2, "salt", int(1)),
        (2, "name", text("other")),
        (2, "name", text("payload")),
        (2, "name", int(1)),
        (2, "seq", int(4)),
        (2, "seq", int(6)),
        (5, "seq", int(11)),
        (5, "seq", int(12)),
        (5, "seq", int(1 << 52)),
        (5, "seq", Value::Int(-1)),
        (5, "seq", text("10")),
        (1, "more", Value::Null),
    ] {
        let failure = verify(&edited(i, name, value).zip(&signer()), &signer()).unwrap_err();
        assert_eq!(failure.check, Check::Openings, "{name}: {failure}");
        assert!(failure.detail.contains(&format!("line {} ", i + 1)), "{failure}");
    }
    for name in ["name", "salt", "seq", "value"] {
        let mut openings = openings.clone();
        let mut opening = parsed(&openings[2]);
        opening.remove(name);
        openings[2] = canonical(&opening);
        assert_eq!(verify(&with(openings).zip(&signer()), &signer()).unwrap_err().check, Check::Openings);
    }
    for i in 0..6 {
        let mut twice = openings.clone();
        twice.insert(i, openings[i].clone());
        assert_eq!(verify(&with(twice).zip(&signer()), &signer()).unwrap_err().check, Check::Openings);
        let mut fewer = openings.clone();
        fewer.remove(i);
        verify(&with(fewer).zip(&signer()), &signer()).unwrap();
    }
    for i in 0..5 {
        let mut swapped = openings.clone();
        swapped.swap(i, i + 1);
        assert_eq!(verify(&with(swapped).zip(&signer()), &signer()).unwrap_err().check, Check::Openings);
    }
    for wrong in [&b""[..], b" ", b"1", b"{}", b"[]", b"\xff", b"{"] {
        let mut openings = openings.clone();
        openings.insert(3, wrong.to_vec());
        assert_eq!(verify(&with(openings).zip(&signer()), &signer()).unwrap_err().check, Check::Openings);
    }
    verify(&with(Vec::new()).zip(&signer()), &signer()).unwrap();
    let mut without_end = right.members(&signer())[1].1.clone();
    without_end.pop();
    let zip = with_member(&right, "openings.jsonl", without_end);
    assert_eq!(verify(&zip, &signer()).unwrap_err().check, Check::Openings);
}

#[test]
fn an_opening_of_an_entry_that_was_left_out_is_refused() {
    let all = whole(12);
    let filter: &[&str] = &["audit.login"];
    let mut export = Export::of(&signer(), &Ledger::of(12), (0, 12), Some(filter), true);
    assert_eq!(export.openings.as_ref().unwrap().len(), 2);
    export.openings = all.openings;
    fails(&export, Check::Openings, Some(0));
}

#[test]
fn openings_mean_the_same_however_they_are_serialised() {
    let mut export = whole(12);
    for opening in export.openings.as_mut().unwrap() {
        let spaced =
            String::from_utf8(opening.clone()).unwrap().replace(",\"", " ,\t\"").replace("@", "\\u0040");
        *opening = spaced.into_bytes();
    }
    verify(&export.zip(&signer()), &signer()).unwrap();
    let last = export.openings.as_mut().unwrap().last_mut().unwrap();
    *last = String::from_utf8(last.clone()).unwrap().replace("\"a\":1", "\"a\":1 ,\"a\":1").into_bytes();
    fails(&export, Check::Openings, None);
}

#[test]
fn an_opened_value_has_at_most_24_levels() {
    for levels in [1, 24, 25, 31] {
        let value = (1..levels).fold(Value::Array(Vec::new()), |inner, _| Value::Array(vec![inner]));
        let mut ledger = Ledger::of(3);
        ledger.append("audit.login", &[("deep", value)]);
        let mut export = Export::of(&signer(), &ledger, (0, 4), None, true);
        for spaced in [false, true] {
            if spaced {
                export.openings.as_mut().unwrap().last_mut().unwrap().push(b' ');
            }
            let answer = verify(&export.zip(&signer()), &signer());
            assert_eq!(answer.err().map(|failure| failure.check), (levels > 24).then_some(Check::Openings));
        }
    }
}

#[test]
fn an_openings_line_has_at_most_8_mib() {
    let rest = {
        let mut ledger = Ledger::default();
        ledger.append("audit.login", &[("big", text(""))]);
        canonical(&ledger.openings[0]).len()
    };
    for (length, check) in [(8 << 20, None), ((8 << 20) + 1, Some(Check::Openings))] {
        let mut ledger = Ledger::default();
        ledger.append("audit.login", &[("big", text(&"x".repeat(length - rest)))]);
        ledger.append("audit.login", &[("small", int(1))]);
        let export = Export::of(&signer(), &ledger, (0, 2), None, true);
        assert_eq!(export.openings.as_ref().unwrap()[0].len(), length);
        let answer = verify(&export.zip(&signer()), &signer());
        assert_eq!(answer.err().map(|failure| failure.check), check, "{length}");
    }
}

#[test]
fn every_line_of_an_export_matters_to_the_byte() {
    // Each byte of each line, changed with the zip's sums made to fit: no change goes unnoticed.
    let export =
        Export::of(&signer(), &Ledger::of(4), (0, 4), Some(&["audit.login", "build.processed"]), true);
    let entries = export.members(&signer())[0].1.clone();
    for place in 0..entries.len() {
        for flip in [1, 0x10, 0x80] {
            let mut changed = entries.clone();
            changed[place] ^= flip;
            let failure = verify(&with_member(&export, "entries.jsonl", changed), &signer()).unwrap_err();
            assert!(failure.check != Check::Zip, "byte {place}: {failure}");
        }
    }
    let openings = export.members(&signer())[1].1.clone();
    for place in 0..openings.len() {
        let mut changed = openings.clone();
        changed[place] ^= 1;
        let failure = verify(&with_member(&export, "openings.jsonl", changed), &signer()).unwrap_err();
        assert_eq!(failure.check, Check::Openings, "byte {place}: {failure}");
    }
}
