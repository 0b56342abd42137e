//! Checkpoints, cosignatures and policies.

use ed25519_dalek::Signer as _;
use proptest::prelude::*;
use statusledger_verify::check::Check;
use statusledger_verify::checkpoint::{ParseError, SignedCheckpoint, note_key_id, signature_line};
use statusledger_verify::encoding::base64;
use statusledger_verify::policy::Policy;
use statusledger_verify::receipt::{self, Options};
use statusledger_verify::report::{Mode, TimeSource, Verdict};

use crate::common::{AT, Draft, Witness, World, canonical, log_line, note_text, policy, text, time};

/// 2026-11-20T13:00:00Z
const COSIGNED: u64 = 1_795_179_600;

fn verify(
    world: &World,
    draft: &Draft,
    checkpoint: &str,
    options: &Options,
) -> Result<(Verdict, TimeSource), Check> {
    let proof = format!("{}\n{checkpoint}", draft.path());
    receipt::verify(&canonical(&draft.finish_with(&proof)), &world.keys(), options)
        .map(|report| (report.verdict, report.time))
        .map_err(|failure| failure.check)
}

fn options(policy: Option<&str>) -> Options {
    let policy = policy.map(|policy| Policy::parse(policy.as_bytes()).unwrap());
    Options { at: Some(time(AT)), policy, ..Options::default() }
}

const INCLUDED: Result<(Verdict, TimeSource), Check> = Ok((Verdict::Included, TimeSource::Claimed));
const WITNESSED: Result<(Verdict, TimeSource), Check> = Ok((Verdict::Witnessed, TimeSource::Witnessed));

#[test]
fn a_checkpoint_has_one_form() {
    let world = World::default();
    let draft = world.draft(10, 20);
    let right = draft.checkpoint();
    let (body, line) = right.split_once("\n\n").unwrap();
    let root = body.lines().nth(2).unwrap();
    let parse = |text: &str| SignedCheckpoint::parse(text.as_bytes()).err();
    assert_eq!(parse(&right), None);
    let stranger = log_line(&world.signer.root, "stranger", note_text(&right));
    assert_eq!(parse(&format!("{right}{}", stranger.repeat(63))), None);
    let cases = [
        (String::new(), ParseError::Origin),
        (right.replacen(&draft.origin, "", 1), ParseError::Origin),
        (right.replace("\n20\n", "\n020\n"), ParseError::Size),
        (right.replace("\n20\n", "\n-20\n"), ParseError::Size),
        (right.replace("\n20\n", "\n+20\n"), ParseError::Size),
        (right.replace("\n20\n", "\n20 \n"), ParseError::Size),
        (right.replace("\n20\n", "\n\n"), ParseError::Size),
        (right.replace("\n20\n", "\n18446744073709551616\n"), ParseError::Size),
        (right.replace("\n20\n", "\n２０\n"), ParseError::Size),
        (right.replace(root, root.trim_end_matches('=')), ParseError::Root),
        (right.replace(root, &base64(&[0; 31])), ParseError::Root),
        (right.replace(root, &base64(&[0; 33])), ParseError::Root),
        (right.replace(root, &format!("{}B=", &root[..42])), ParseError::Root),
        (right.replace(root, &format!(" {root}")), ParseError::Root),
        (right.replacen("\n\n", "\nextension\n\n", 1), ParseError::Extension),
        (right.replacen("\n\n", "\n", 1), ParseError::Extension),
        (body.to_owned() + "\n", ParseError::Extension),
        (body.to_owned() + "\n\n", ParseError::SignatureCount),
        (format!("{right}{}", stranger.repeat(64)), ParseError::SignatureCount),
        (format!("{right}\n"), ParseError::Signature { line: 6 }),
        (format!("{right}x"), ParseError::Signature { line: 6 }),
        (right.trim_end().to_owned(), ParseError::Signature { line: 5 }),
        (right.replace('\u{2014}', "-"), ParseError::Signature { line: 5 }),
        (right.replace('\u{2014}', "\u{2013}"), ParseError::Signature { line: 5 }),
        (right.replace("\u{2014} ", "\u{2014}\u{a0}"), ParseError::Signature { line: 5 }),
        (right.replace("\u{2014} ", "\u{2014}  "), ParseError::Signature { line: 5 }),
        (right.replace("\u{2014} ", "\u{2014} a+"), ParseError::Signature { line: 5 }),
        (right.replace("\u{2014} ", "\u{2014} a\u{2003}"), ParseError::Signature { line: 5 }),
        (right.replace("\u{2014} ", "\u{2014}\t"), ParseError::NotText),
        (right.replace('\n', "\r\n"), ParseError::NotText),
        (format!("{right}\u{2014} name AAAA\n"), ParseError::Signature { line: 6 }),
        (format!("{right}\u{2014} name {}\n", base64(&[0; 4])), ParseError::Signature { line: 6 }),
        (format!("{right}\u{2014} name\n"), ParseError::Signature { line: 6 }),
        (format!("{body}\n\n{}", line.replacen(' ', "", 1)), ParseError::Signature { line: 5 }),
    ];
    for (text, error) in cases {
        assert_ne!(text, right);
        assert_eq!(parse(&text), Some(error), "{text:?}");
        assert_eq!(verify(&world, &draft, &text, &options(None)), Err(Check::Proof), "{text:?}");
    }
    assert_eq!(SignedCheckpoint::parse(b"\xff").err(), Some(ParseError::NotText));
    assert_eq!(parse(&right.replace("\n20\n", "\n18446744073709551615\n")), None);
}

#[test]
fn lines_by_strangers_are_ignored_and_those_by_known_keys_must_verify() {
    let world = World::default();
    let draft = world.draft(10, 20);
    let right = draft.checkpoint();
    let text = note_text(&right);
    let own = &right[text.len() + 1..];
    let none = options(None);
    let key = world.signer.checkpoint.verifying_key();
    let bad = signature_line(&draft.origin, note_key_id(&draft.origin, key.as_bytes()), &[7; 64]);
    let over_another = log_line(&world.signer.checkpoint, &draft.origin, &text.replace("20", "21"));
    let other_name = log_line(&world.signer.checkpoint, "other", text);
    let stranger = log_line(&world.signer.root, &draft.origin, text);
    let key_id = note_key_id(&draft.origin, key.as_bytes());
    let short = format!("\u{2014} {} {}\n", draft.origin, base64(&[&key_id[..], &[7; 63]].concat()));
    // A stranger's id under the log's name, and the log's id under a stranger's name.
    let half_known =
        signature_line(&draft.origin, [0; 4], &[7; 64]) + &signature_line("other", key_id, &[7; 64]);
    let witness = Witness::new("witness.example.com/w");
    let mut unknown_bad = witness.line(&right, COSIGNED);
    unknown_bad = unknown_bad.replacen("AAA", "AAB", 1);
    for (name, lines, expected) in [
        ("its own", own.to_owned(), INCLUDED),
        ("its own twice", own.repeat(2), INCLUDED),
        ("its own 64 times", own.repeat(64), INCLUDED),
        ("a stranger's before and after", format!("{stranger}{own}{half_known}"), INCLUDED),
        ("an unknown witness' that does not verify", format!("{unknown_bad}{own}"), INCLUDED),
        ("none of its own", stranger, Err(Check::CheckpointSignature)),
        ("its own key under another name", other_name, Err(Check::CheckpointSignature)),
        ("one that does not verify", bad.clone(), Err(Check::CheckpointSignature)),
        ("one that verifies and one that does not", format!("{own}{bad}"), Err(Check::CheckpointSignature)),
        ("the other way round", format!("{bad}{own}"), Err(Check::CheckpointSignature)),
        ("one over another size", format!("{own}{over_another}"), Err(Check::CheckpointSignature)),
        ("one of 63 bytes", format!("{own}{short}"), Err(Check::CheckpointSignature)),
    ] {
        let checkpoint = format!("{text}\n{lines}");
        assert_eq!(verify(&world, &draft, &checkpoint, &none), expected, "{name}");
    }
}

#[test]
fn revoked_checkpoint_keys_are_not_known_and_their_windows_are_not_judged() {
    let world = World::default();
    let draft = world.draft(10, 20);
    let body = canonical(&draft.finish());
    let judge = |edit: &dyn Fn(&mut statusledger_verify::json::Object)| {
        let keys = world.trust(&world.signer.keys_json(|keys, _| edit(&mut keys[2])));
        receipt::verify(&body, &keys, &options(None)).err().map(|failure| failure.check)
    };
    let revoked = judge(&|key| drop(key.insert("revoked_at".into(), text("2026-11-20T13:00:00.000000Z"))));
    assert_eq!(revoked, Some(Check::CheckpointSignature));
    let old = judge(&|key| {
        key.insert("not_after".into(), text("2026-10-02T00:00:00.000000Z"));
        key.insert("verify_until".into(), text("2026-12-31T00:00:00.000000Z"));
    });
    assert_eq!(old, None);
}

#[test]
fn a_policy_is_met_by_its_witnesses_alone() {
    let world = World::default();
    let draft = world.draft(10, 20);
    let right = draft.checkpoint();
    let witnesses = ["x1.example/w", "x2.example/w", "x3.example/w", "y1.example/w"].map(Witness::new);
    let [x1, x2, x3, y1] = &witnesses;
    let all: Vec<&Witness> = witnesses.iter().collect();
    let x = "group X 2 x1.example/w x2.example/w x3.example/w\n";
    let both = policy(&all, &format!("{x}group Both all X y1.example/w\nquorum Both\n"));
    let line = |witness: &Witness| witness.line(&right, COSIGNED);
    let judge = |policy: &str, lines: &[String]| {
        verify(&world, &draft, &format!("{right}{}", lines.concat()), &options(Some(policy)))
    };
    assert_eq!(judge(&both, &[line(x1), line(x3), line(y1)]), WITNESSED);
    assert_eq!(judge(&both, &[line(y1), line(x2), line(x1), line(x3)]), WITNESSED);
    for lines in [
        vec![],
        vec![line(x1), line(x2), line(x3)],
        vec![line(x1), line(y1)],
        vec![line(x1), line(x1), line(y1)],
        vec![line(x1), x1.line(&right, COSIGNED + 1), line(y1)],
        vec![line(x1), line(y1), line(&Witness::new("stranger"))],
    ] {
        assert_eq!(judge(&both, &lines), Err(Check::Policy), "{lines:?}");
    }
    for (rest, lines, expected) in [
        ("quorum x1.example/w\n".to_owned(), vec![line(x1)], WITNESSED),
        ("quorum x1.example/w\n".to_owned(), vec![line(x2)], Err(Check::Policy)),
        (format!("{x}quorum X\n"), vec![line(x1), line(x2)], WITNESSED),
        ("group A any x1.example/w y1.example/w\nquorum A\n".to_owned(), vec![line(y1)], WITNESSED),
        ("group A all x1.example/w y1.example/w\nquorum A\n".to_owned(), vec![line(y1)], Err(Check::Policy)),
        ("quorum none\n".to_owned(), vec![line(y1)], WITNESSED),
        ("quorum none\n".to_owned(), vec![], Ok((Verdict::Witnessed, TimeSource::Claimed))),
    ] {
        assert_eq!(judge(&policy(&all, &rest), &lines), expected, "{rest}");
    }
}

#[test]
fn a_cosignature_of_a_witness_that_does_not_verify_rejects_the_checkpoint() {
    let world = World::default();
    let draft = world.draft(10, 20);
    let right = draft.checkpoint();
    let (first, second) = (Witness::new("first.example"), Witness::new("second.example"));
    let one = policy(&[&first, &second], "group A any first.example second.example\nquorum A\n");
    let good = first.line(&right, COSIGNED);
    let other = Witness { name: second.name.clone(), key: first.key.clone() };
    let elsewhere = second.line(&world.draft(10, 19).checkpoint(), COSIGNED);
    // The time is part of what is signed.
    let redated = {
        let signature =
            second.key.sign(&[b"cosignature/v1\ntime 5\n", note_text(&right).as_bytes()].concat()).to_bytes();
        statusledger_verify::checkpoint::cosignature_line("second.example", second.key_id(), 6, &signature)
    };
    // As a log's signature, of type 0x01, it is over another message and has no time.
    let plain = signature_line(
        "second.example",
        second.key_id(),
        &second.key.sign(note_text(&right).as_bytes()).to_bytes(),
    );
    let too_late = second.line(&right, 1 << 63);
    for (name, line, expected) in [
        ("none", String::new(), WITNESSED),
        ("a witness' name and another's key", other.line(&right, COSIGNED), WITNESSED),
        ("over another checkpoint", elsewhere, Err(Check::CheckpointSignature)),
        ("redated", redated, Err(Check::CheckpointSignature)),
        ("a plain signature", plain, Err(Check::CheckpointSignature)),
        ("a time of 2^63", too_late, Err(Check::CheckpointSignature)),
    ] {
        assert_eq!(
            verify(&world, &draft, &format!("{right}{line}{good}"), &options(Some(&one))),
            expected,
            "{name}"
        );
        // Without the policy the witness is not known.
        assert_eq!(
            verify(&world, &draft, &format!("{right}{line}{good}"), &options(None)),
            INCLUDED,
            "{name}"
        );
    }
}

#[test]
fn a_receipt_that_was_witnessed_before_its_key_was_revoked_stays_evidence() {
    let world = World::default();
    let draft = world.draft(10, 20);
    let right = draft.checkpoint();
    let (first, second) = (Witness::new("first.example"), Witness::new("second.example"));
    let both = policy(&[&first, &second], "group A all first.example second.example\nquorum A\n");
    let revoked_at = "2026-11-20T13:00:00.000000Z";
    let keys = world.trust(
        &world.signer.keys_json(|keys, _| drop(keys[1].insert("revoked_at".into(), text(revoked_at)))),
    );
    let judge = |draft: &Draft, policy: Option<&str>, mode, times: [u64; 2]| {
        let lines = first.line(&right, times[0]) + &second.line(&right, times[1]);
        let proof = format!("{}\n{right}{lines}", draft.path());
        let options = Options { mode, ..options(policy) };
        let result = receipt::verify(&canonical(&draft.finish_with(&proof)), &keys, &options);
        result.map(|report| report.verdict).map_err(|failure| failure.check)
    };
    let before = [COSIGNED - 1, COSIGNED - 7];
    let evidence = Mode::Evidence;
    assert_eq!(judge(&draft, Some(&both), evidence, before), Ok(Verdict::Witnessed));
    assert_eq!(judge(&draft, Some(&both), evidence, [COSIGNED - 1, COSIGNED]), Err(Check::KeyRevoked));
    assert_eq!(judge(&draft, Some(&both), Mode::Fresh, before), Err(Check::KeyRevoked));
    assert_eq!(judge(&draft, None, evidence, before), Err(Check::KeyRevoked));
    let nobody = policy(&[&first, &second], "quorum none\n");
    assert_eq!(judge(&draft, Some(&nobody), evidence, before), Err(Check::KeyRevoked));
    // Issued after the revocation: older cosignatures of the same log do not help.
    let late = draft.clone().with(|draft| drop(draft.receipt.insert("issued_at".into(), text(revoked_at))));
    assert_eq!(judge(&late, Some(&both), evidence, before), Err(Check::KeyRevoked));
}

#[test]
fn a_policy_has_one_meaning() {
    let (first, second) = (Witness::new("first.example"), Witness::new("second.example"));
    let (one, two) = (first.verifier_key(), second.verifier_key());
    let good = [
        format!("witness a {one}\nquorum a\n"),
        format!("# comment\n\n  \t# another\n\twitness\ta  {one}\thttps://first.example/ \n quorum  a"),
        format!("log example.org+00000000+AAAA https://example.org\nwitness a {one}\nquorum a\n"),
        format!("witness a {one}\nwitness \u{212a} {two}\ngroup g 2 a \u{212a}\nquorum g\n"),
        "quorum none\n".to_owned(),
        format!("quorum none\nwitness none2 {one}\n"),
    ];
    for text in good {
        assert!(Policy::parse(text.as_bytes()).is_ok(), "{text}");
    }
    let weak = |kind: u8, key: [u8; 32]| base64(&[&[kind], &key[..]].concat());
    let small_order = {
        let mut key = [0; 32];
        key[0] = 1;
        let id = u32::from_be_bytes(statusledger_verify::checkpoint::cosignature_key_id("w", &key));
        format!("w+{id:08x}+{}", weak(4, key))
    };
    let log_type = format!("first.example+00000000+{}", weak(1, *first.key.verifying_key().as_bytes()));
    let bad = [
        String::new(),
        format!("witness a {one}\n"),
        format!("witness a {one}\nquorum b\n"),
        format!("quorum a\nwitness a {one}\n"),
        format!("witness a {one}\nquorum a\nquorum a\n"),
        format!("witness a {one}\nquorum a b\n"),
        format!("witness a {one}\nwitness a {two}\nquorum a\n"),
        format!("witness a {one}\nwitness b {one}\nquorum a\n"),
        format!("witness none {one}\nquorum none\n"),
        format!("witness a {one}\ngroup a any a\nquorum a\n"),
        format!("witness a {one}\ngroup g any\nquorum a\n"),
        format!("witness a {one}\ngroup g 0 a\nquorum a\n"),
        format!("witness a {one}\ngroup g 2 a\nquorum a\n"),
        format!("witness a {one}\ngroup g 01 a\nquorum a\n"),
        format!("witness a {one}\ngroup g some a\nquorum a\n"),
        format!("witness a {one}\ngroup g any none\nquorum a\n"),
        format!("witness a {one}\ngroup g any g\nquorum g\n"),
        format!("witness a {one}\ngroup g 2 a a\nquorum g\n"),
        format!("witness a {one}\ngroup g any a\ngroup h any a\nquorum g\n"),
        format!("witness a {one}\ngroup g any b\nwitness b {two}\nquorum g\n"),
        format!("witness a {one} https://a https://b\nquorum a\n"),
        format!("witness {one}\nquorum none\n"),
        format!("witness a {one}\nquorum a\r\n"),
        format!("witness a {one}\n\u{0}\nquorum a\n"),
        format!("monitor a {one}\nquorum none\n"),
        format!("witness a {}\nquorum a\n", one.replacen("first", "fir5t", 1)),
        format!("witness a {}\nquorum a\n", &one[..one.len() - 1]),
        format!("witness a {small_order}\nquorum a\n"),
        format!("witness a {log_type}\nquorum a\n"),
        "witness a first.example\nquorum a\n".to_owned(),
        "log\nquorum none\n".to_owned(),
    ];
    for text in bad {
        assert!(Policy::parse(text.as_bytes()).is_err(), "{text}");
    }
}

proptest! {
    #[test]
    fn whatever_the_bytes_nothing_panics(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 0..6),
    ) {
        let world = World::default();
        let draft = world.draft(10, 20);
        let witness = Witness::new("witness.example/w");
        let checkpoint = draft.checkpoint() + &witness.line(&draft.checkpoint(), COSIGNED);
        let policy = policy(&[&witness], "group g any witness.example/w\nquorum g\n");
        let spoil = |text: &str| {
            let mut bytes = text.as_bytes().to_vec();
            for (at, byte, inserts) in &changes {
                let at = at.index(bytes.len());
                if *inserts { bytes.insert(at, *byte) } else { bytes[at] = *byte }
            }
            bytes
        };
        let _ = Policy::parse(&spoil(&policy));
        let spoilt = spoil(&checkpoint);
        if let Ok(parsed) = SignedCheckpoint::parse(&spoilt) {
            // What parses is written back as it was, up to its signatures.
            let text = parsed.checkpoint().text();
            prop_assert_eq!(note_text(std::str::from_utf8(&spoilt).unwrap()), text);
        }
        let proof = String::from_utf8_lossy(&spoil(&draft.proof())).into_owned();
        if let Ok(parsed) = statusledger_verify::proof::Proof::parse(&proof) {
            prop_assert_eq!(parsed.to_string(), proof);
        }
    }
}

#[test]
fn groups_of_groups_of_any_depth_are_decided_in_order() {
    let witness = Witness::new("w");
    let mut text = format!("witness g0 {}\n", witness.verifier_key());
    for depth in 1..50_000 {
        text += &format!("group g{depth} all g{}\n", depth - 1);
    }
    let policy = Policy::parse((text + "quorum g49999\n").as_bytes()).unwrap();
    let cosignature = statusledger_verify::checkpoint::Cosignature { witness: 0, unix_seconds: 1 };
    assert!(policy.is_met_by([&cosignature]));
    assert!(!policy.is_met_by([]));
}
