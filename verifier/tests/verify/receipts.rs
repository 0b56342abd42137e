//! Receipts: right ones in all their forms, and every way to be wrong with the check that it fails.

use ed25519_dalek::SigningKey;
use statusledger_verify::check::Check;
use statusledger_verify::encoding::{base64, hex};
use statusledger_verify::json::{self, Object, Value};
use statusledger_verify::manifest::{KeyManifest, TrustedKeys};
use statusledger_verify::receipt::{self, Options};
use statusledger_verify::report::{Mode, Subject, TimeSource, Verdict};
use statusledger_verify::{Failure, Report};

use crate::common::{
    AT, DESTINATION, Draft, INSTANCE, LEDGER, OTHER_LEDGER, RECEIPT_ISSUED_AT, Signer, World, canonical,
    edit, int, key_id, nested, object, remove, sha256, sign, text, time,
};

fn options() -> Options {
    Options { at: Some(time(AT)), ..Options::default() }
}

fn verify(body: &[u8], keys: &TrustedKeys) -> Result<Report, Failure> {
    receipt::verify(body, keys, &options())
}

/// Fails by exactly this check.
#[track_caller]
fn fails(name: &str, body: &[u8], keys: &TrustedKeys, check: Check) {
    match verify(body, keys) {
        Ok(_) => panic!("{name}: verified, should fail by {check}"),
        Err(failure) => assert_eq!(failure.check, check, "{name}: {failure}"),
    }
}

#[test]
fn a_receipt_of_any_entry_in_any_tree_verifies() {
    let world = World::default();
    let keys = world.keys();
    for size in 1..=20 {
        for seq in 0..size {
            let report = verify(&world.body(seq, size), &keys).unwrap();
            assert_eq!(report.verdict, Verdict::Included);
            assert_eq!(report.time, TimeSource::Claimed);
            assert_eq!(report.facts.seq, Some(seq as u64));
            assert_eq!(report.facts.checkpoint_size, Some(size as u64));
        }
    }
}

#[test]
fn the_report_says_what_was_verified() {
    let world = World::default();
    let report = verify(&world.body(10, 20), &world.keys()).unwrap();
    assert_eq!(report.facts.instance.as_deref(), Some(INSTANCE));
    assert_eq!(report.facts.ledger.as_deref(), Some(LEDGER));
    assert_eq!(report.facts.key_id, Some(key_id(&world.signer.receipt)));
    assert_eq!(report.facts.keys_serial, Some(7));
    assert_eq!(report.facts.withheld, None);
    assert_eq!(report.checkpoint.origin, format!("{INSTANCE}/{LEDGER}"));
    let Subject::Receipt { destination, number, issued_at, .. } = report.subject else { panic!() };
    assert_eq!((destination.as_str(), number), (DESTINATION, 11));
    assert_eq!(issued_at, time(RECEIPT_ISSUED_AT));
}

#[test]
fn the_same_document_verifies_however_it_is_written() {
    let world = World::default();
    let keys = world.keys();
    let body = world.body(10, 20);
    let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
    verify(&serde_json::to_vec_pretty(&value).unwrap(), &keys).unwrap();
    let mut reversed = String::from(" {");
    for (name, value) in
        json::parse(&body).unwrap().as_object().unwrap().iter().collect::<Vec<_>>().iter().rev()
    {
        reversed += &format!(
            "\n\t\"\\u{:04x}{}\" : {} ,",
            u32::from(name.as_bytes()[0]),
            &name[1..],
            value.canonical()
        );
    }
    verify(format!("{}}}\r\n", reversed.trim_end_matches(',')).as_bytes(), &keys).unwrap();
}

#[test]
fn openings_and_proof_may_be_dropped_and_replaced() {
    let world = World::default();
    let keys = world.keys();
    let mut body = world.draft(10, 20).finish();
    let openings = body.remove("openings").unwrap();
    verify(&canonical(&body), &keys).unwrap();
    // One of two.
    let mut one = openings.as_object().unwrap().clone();
    one.remove("email").unwrap();
    body.insert("openings".to_owned(), Value::Object(one));
    verify(&canonical(&body), &keys).unwrap();
    // Another proof of the same entry.
    for size in 11..20 {
        edit(&mut body, &["receipt", "proof"], text(&world.draft(10, size).proof()));
        assert_eq!(verify(&canonical(&body), &keys).unwrap().facts.checkpoint_size, Some(size as u64));
    }
}

/// A change before the receipt is signed.
type Before = Box<dyn Fn(&mut Draft)>;
/// A change of the body that was made.
type After = Box<dyn Fn(&mut Object)>;

fn before(edit: impl Fn(&mut Draft) + 'static) -> Before {
    Box::new(edit)
}

fn entry_set(name: &'static str, value: Value) -> Before {
    before(move |draft| drop(draft.entry.insert(name.to_owned(), value.clone())))
}

fn receipt_set(name: &'static str, value: Value) -> Before {
    before(move |draft| drop(draft.receipt.insert(name.to_owned(), value.clone())))
}

fn opening_of(value: &Value) -> (Value, String) {
    let salt = sha256(&[b"a salt"]);
    let hash = sha256(&[&[2], &salt, value.canonical().as_bytes()]);
    (Value::Object(object([("salt", text(&base64(&salt))), ("value", value.clone())])), hex(&hash))
}

/// Seals a value and opens it.
fn sealing(value: &Value) -> Before {
    let (opening, hash) = opening_of(value);
    before(move |draft| {
        edit(&mut draft.entry, &["data", "sealed"], Value::Object(object([("v", text(&hash))])));
        draft.openings = Some(Value::Object(object([("v", opening.clone())])));
    })
}

#[test]
fn what_is_signed_rightly_may_still_be_malformed() {
    use Check::*;
    let zeros = "0".repeat(64);
    let other_id = "rcpt_0190C5A1-0000-7000-8000-000000000010";
    let cases: Vec<(&str, Before, Check)> = vec![
        ("v of the entry", entry_set("v", int(2)), Members),
        ("v as a string", entry_set("v", text("1")), Members),
        ("ledger in capitals", entry_set("ledger", text(&LEDGER.to_uppercase())), Members),
        ("ledger without hyphens", entry_set("ledger", text(&LEDGER.replace('-', ""))), Members),
        ("ledger in braces", entry_set("ledger", text(&format!("{{{LEDGER}}}"))), Members),
        ("seq negative", entry_set("seq", Value::Int(-1)), Members),
        ("seq as a string", entry_set("seq", text("10")), Members),
        ("prev too short", entry_set("prev", text(&zeros[1..])), Members),
        ("prev in capitals", entry_set("prev", text(&"A".repeat(64))), Members),
        ("prev null", entry_set("prev", Value::Null), Members),
        ("timestamp with three digits", entry_set("timestamp", text("2026-11-02T03:00:10.000Z")), Members),
        ("timestamp on 30 February", entry_set("timestamp", text("2026-02-30T03:00:10.000004Z")), Members),
        (
            "timestamp with a leap second",
            entry_set("timestamp", text("2016-12-31T23:59:60.000000Z")),
            Members,
        ),
        ("timestamp with an offset", entry_set("timestamp", text("2026-11-02T03:00:10.000+00")), Members),
        ("nonce of 15 bytes", entry_set("nonce", text(&base64(&[7; 15]))), Members),
        ("nonce of 17 bytes", entry_set("nonce", text(&base64(&[7; 17]))), Members),
        ("nonce without padding", entry_set("nonce", text(base64(&[7; 16]).trim_end_matches('='))), Members),
        ("nonce with trailing bits", entry_set("nonce", text("AAAAAAAAAAAAAAAAAAAAAB==")), Members),
        ("nonce with a line feed", entry_set("nonce", text(&(base64(&[7; 16]) + "\n"))), Members),
        ("nonce in the URL alphabet", entry_set("nonce", text("____________________-w==")), Members),
        ("type empty", entry_set("type", text("")), Members),
        ("type in capitals", entry_set("type", text("Store.x")), Members),
        ("type with an empty part", entry_set("type", text("store..x")), Members),
        ("type ending in a dot", entry_set("type", text("store.")), Members),
        ("type with a hyphen", entry_set("type", text("store-x")), Members),
        ("data as an array", entry_set("data", Value::Array(Vec::new())), Members),
        ("data null", entry_set("data", Value::Null), Members),
        ("sealed null", before(|d| edit(&mut d.entry, &["data", "sealed"], Value::Null)), Members),
        (
            "sealed with a null",
            before(|d| edit(&mut d.entry, &["data", "sealed", "email"], Value::Null)),
            Members,
        ),
        (
            "sealed in capitals",
            before(|d| edit(&mut d.entry, &["data", "sealed", "email"], text(&"A".repeat(64)))),
            Members,
        ),
        (
            "sealed name",
            before(|d| edit(&mut d.entry, &["data", "sealed", "E-mail"], text(&"0".repeat(64)))),
            Members,
        ),
        ("a member that the entry does not have", entry_set("extra", Value::Null), Members),
        ("an entry without nonce", before(|d| drop(d.entry.remove("nonce"))), Members),
        ("v of the receipt", receipt_set("v", int(0)), Members),
        ("instance in capitals", receipt_set("instance", text("Ledger.example.org")), Members),
        ("instance empty", receipt_set("instance", text("")), Members),
        ("instance too long", receipt_set("instance", text(&"a".repeat(254))), Members),
        ("instance with a port", receipt_set("instance", text("ledger.example.org:443")), Members),
        ("id without prefix", receipt_set("id", text("0190c5a1-0000-7000-8000-000000000010")), Members),
        ("id in capitals", receipt_set("id", text(other_id)), Members),
        ("id too long", receipt_set("id", text("rcpt_0190c5a1-0000-7000-8000-0000000000100")), Members),
        ("destination as a number", receipt_set("destination", int(7)), Members),
        ("destination null", receipt_set("destination", Value::Null), Members),
        ("number 0", receipt_set("number", int(0)), Members),
        ("number negative", receipt_set("number", Value::Int(-1)), Members),
        ("number as a string", receipt_set("number", text("11")), Members),
        ("issued_at without Z", receipt_set("issued_at", text("2026-11-20T12:00:00.0000000")), Members),
        ("issued_at as a number", receipt_set("issued_at", int(1_795_309_323)), Members),
        ("key_id in capitals", receipt_set("key_id", text(&"A".repeat(64))), Members),
        ("a member that the receipt does not have", receipt_set("note", text("")), Members),
        ("a receipt without number", before(|d| drop(d.receipt.remove("number"))), Members),
        ("openings empty", before(|d| d.openings = Some(Value::Object(Object::new()))), Members),
        ("openings null", before(|d| d.openings = Some(Value::Null)), Members),
        ("openings as an array", before(|d| d.openings = Some(Value::Array(Vec::new()))), Members),
        (
            "an opening with more",
            before(|d| {
                let (opening, _) = opening_of(&text("x"));
                let mut opening = opening.as_object().unwrap().clone();
                opening.insert("nonce".to_owned(), Value::Null);
                d.openings = Some(Value::Object(object([("email", Value::Object(opening))])));
            }),
            Members,
        ),
        (
            "an opening without value",
            before(|d| {
                let opening = object([("salt", text(&base64(&[0; 32])))]);
                d.openings = Some(Value::Object(object([("email", Value::Object(opening))])));
            }),
            Members,
        ),
        (
            "a salt of 31 bytes",
            before(|d| {
                let opening = object([("salt", text(&base64(&[0; 31]))), ("value", Value::Null)]);
                d.openings = Some(Value::Object(object([("email", Value::Object(opening))])));
            }),
            Members,
        ),
        (
            "an opening that is not sealed",
            before(|d| {
                d.openings = Some(Value::Object(object([("phone", opening_of(&text("x")).0)])));
            }),
            Openings,
        ),
        (
            "an opening of another value",
            before(|d| {
                d.openings = Some(Value::Object(object([("email", opening_of(&text("x")).0)])));
            }),
            Openings,
        ),
        ("a value of 25 levels", sealing(&nested(25)), Json),
        (
            "an entry of too many bytes",
            before(|d| edit(&mut d.entry, &["data", "app"], text(&"x".repeat(65_536)))),
            Json,
        ),
        ("another instance", receipt_set("instance", text("other.example.org")), Instance),
        ("an unknown key", receipt_set("key_id", text(&zeros)), KeyUnknown),
        (
            "issued before the key's window",
            receipt_set("issued_at", text("2026-09-30T23:59:59.999999Z")),
            KeyWindow,
        ),
        ("signed as an export", before(|d| d.kind = "export"), Signature),
        ("signed as a manifest", before(|d| d.kind = "manifest"), Signature),
        ("signed as an endorsement", before(|d| d.kind = "endorsement"), Signature),
        ("signed by another key", before(|d| d.key = SigningKey::from_bytes(&[9; 32])), Signature),
        (
            "a checkpoint of another ledger",
            before(|d| d.origin = format!("{INSTANCE}/{OTHER_LEDGER}")),
            Origin,
        ),
        (
            "a checkpoint of another instance",
            before(|d| d.origin = format!("other.example.org/{LEDGER}")),
            Origin,
        ),
        ("an origin that continues", before(|d| d.origin += "x"), Origin),
        (
            "a checkpoint by another key",
            before(|d| d.checkpoint_key = SigningKey::from_bytes(&[9; 32])),
            CheckpointSignature,
        ),
        (
            "a checkpoint by the receipt key",
            before(|d| d.checkpoint_key = d.key.clone()),
            CheckpointSignature,
        ),
    ];
    let world = World::default();
    let keys = world.keys();
    for (name, change, check) in cases {
        let draft = world.draft(10, 20).with(|draft| change(draft));
        fails(name, &canonical(&draft.finish()), &keys, check);
    }
}

#[test]
fn the_limits_themselves_are_allowed() {
    let world = World::default();
    let keys = world.keys();
    let accepts = |name: &str, seq: usize, change: &dyn Fn(&mut Draft)| {
        let draft = world.draft(seq, 20).with(|draft| change(draft));
        verify(&canonical(&draft.finish()), &keys).unwrap_or_else(|failure| panic!("{name}: {failure}"));
    };
    accepts("a value of 24 levels", 10, &sealing(&nested(24)));
    accepts("a scalar value", 10, &sealing(&Value::Null));
    accepts("an entry of 65,535 bytes", 10, &|draft| {
        edit(&mut draft.entry, &["data", "app"], text(""));
        let room = 65_535 - canonical(&draft.entry).len();
        edit(&mut draft.entry, &["data", "app"], text(&"x".repeat(room)));
    });
    accepts("data of 31 levels", 10, &|draft| edit(&mut draft.entry, &["data", "deep"], nested(30)));
    accepts("an unknown type", 10, &|draft| drop(draft.entry.insert("type".into(), text("a_1.b.c"))));
    accepts("a UUID of no version", 10, &|draft| {
        draft.receipt.insert("id".into(), text("rcpt_ffffffff-ffff-ffff-ffff-ffffffffffff"));
    });
    accepts("empty sealed", 3, &|draft| {
        edit(&mut draft.entry, &["data", "sealed"], Value::Object(Object::new()))
    });
    accepts("sealed beside other things", 3, &|draft| edit(&mut draft.entry, &["data", "x"], nested(3)));
    for window_end in ["2026-10-01T00:00:00.000000Z", "2026-12-31T00:00:00.000000Z"] {
        accepts("issued at the window's start or late", 10, &|draft| {
            draft.receipt.insert("issued_at".into(), text(window_end));
        });
    }
}

#[test]
fn a_body_is_at_most_8_mib() {
    let world = World::default();
    let keys = world.keys();
    let mut body = world.body(10, 20);
    body.resize(8 << 20, b' ');
    verify(&body, &keys).unwrap();
    body.push(b' ');
    fails("8 MiB and a byte", &body, &keys, Check::Json);
}

#[test]
fn seq_0_has_a_prev_of_zeros() {
    let world = World::default();
    let draft =
        world.draft(0, 20).with(|draft| drop(draft.entry.insert("prev".into(), text(&"1".repeat(64)))));
    fails("prev of seq 0", &canonical(&draft.finish()), &world.keys(), Check::Members);
}

#[test]
fn every_change_of_a_body_fails_its_check() {
    use Check::*;
    let set = |path: &'static [&'static str], value: Value| -> After {
        Box::new(move |body| edit(body, path, value.clone()))
    };
    let gone = |path: &'static [&'static str]| -> After { Box::new(move |body| remove(body, path)) };
    let cases: Vec<(&str, After, Check)> = vec![
        ("data", set(&["data", "to"], text("READY")), Signature),
        ("type", set(&["type"], text("build.processed2")), Signature),
        ("seq", set(&["seq"], int(11)), Signature),
        ("timestamp", set(&["timestamp"], text("2026-11-02T03:00:11.000004Z")), Signature),
        ("nonce", set(&["nonce"], text(&base64(&[1; 16]))), Signature),
        ("prev", set(&["prev"], text(&"1".repeat(64))), Signature),
        ("ledger", set(&["ledger"], text(OTHER_LEDGER)), Signature),
        ("sealed", set(&["data", "sealed", "email"], text(&"1".repeat(64))), Signature),
        ("number", set(&["receipt", "number"], int(12)), Signature),
        ("destination", set(&["receipt", "destination"], text("x")), Signature),
        ("id", set(&["receipt", "id"], text(&format!("rcpt_{LEDGER}"))), Signature),
        ("issued_at", set(&["receipt", "issued_at"], text("2026-11-20T12:00:00.000001Z")), Signature),
        ("signature of zeros", set(&["receipt", "signature"], text(&base64(&[0; 64]))), Signature),
        ("signature of 63 bytes", set(&["receipt", "signature"], text(&base64(&[0; 63]))), Members),
        ("signature of 65 bytes", set(&["receipt", "signature"], text(&base64(&[0; 65]))), Members),
        ("signature null", set(&["receipt", "signature"], Value::Null), Members),
        ("proof null", set(&["receipt", "proof"], Value::Null), Members),
        ("proof as an array", set(&["receipt", "proof"], Value::Array(Vec::new())), Members),
        ("proof empty", set(&["receipt", "proof"], text("")), Proof),
        ("receipt null", set(&["receipt"], Value::Null), Members),
        ("no receipt", gone(&["receipt"]), Members),
        ("no signature", gone(&["receipt", "signature"]), Members),
        ("no proof", gone(&["receipt", "proof"]), Members),
        ("no data", gone(&["data"]), Members),
        ("a member more", set(&["signature"], Value::Null), Members),
        ("an opening's value", set(&["openings", "email", "value"], text("a@example.org")), Openings),
        ("an opening's type", set(&["openings", "email", "value"], Value::Null), Openings),
        ("an opening's salt", set(&["openings", "email", "salt"], text(&base64(&[1; 32]))), Openings),
    ];
    let world = World::default();
    let keys = world.keys();
    for (name, change, check) in cases {
        let mut body = world.draft(10, 20).finish();
        change(&mut body);
        fails(name, &canonical(&body), &keys, check);
    }
}

#[test]
fn what_is_not_a_strict_document_fails_first() {
    let world = World::default();
    let keys = world.keys();
    let body = String::from_utf8(world.body(10, 20)).unwrap();
    let cases = [
        ("nothing", String::new()),
        ("a byte order mark", format!("\u{feff}{body}")),
        ("two documents", body.repeat(2)),
        ("cut", body[..body.len() - 1].to_owned()),
        ("2^53", body.replace("\"number\":11", "\"number\":9007199254740992")),
        ("2^53+1", body.replace("\"seq\":10", "\"seq\":9007199254740993")),
        ("a fraction", body.replace("\"seq\":10", "\"seq\":10.0")),
        ("an exponent", body.replace("\"seq\":10", "\"seq\":1e1")),
        ("a negative zero", body.replace("\"v\":1}", "\"v\":-0}")),
        ("a leading zero", body.replace("\"seq\":10", "\"seq\":010")),
        ("seq twice", body.replacen('{', "{\"seq\":10,", 1)),
        ("a member twice in data", body.replace("\"to\":", "\"to\":1,\"to\":")),
        ("a member twice, escaped", body.replacen('{', "{\"s\\u0065q\":10,", 1)),
        ("a member twice in an opening", body.replace("\"salt\":", "\"salt\":null,\"salt\":")),
        ("a lone surrogate", body.replacen("6446048195", "\\ud800", 1)),
        ("10,000 levels", format!("{}{}", "[".repeat(10_000), "]".repeat(10_000))),
        (
            "33 levels",
            body.replacen("\"app\":", &format!("\"a\":{}1{},\"app\":", "[".repeat(31), "]".repeat(31)), 1),
        ),
    ];
    for (name, input) in cases {
        assert_ne!(input, body, "{name}");
        fails(name, input.as_bytes(), &keys, Check::Json);
    }
    fails("invalid UTF-8", &[body.as_bytes(), b"\xff"].concat(), &keys, Check::Json);
    for (name, input) in [("an array", "[]"), ("a string", "\"\""), ("null", "null"), ("nothing in it", "{}")]
    {
        fails(name, input.as_bytes(), &keys, Check::Members);
    }
}

#[test]
fn every_byte_of_a_body_counts() {
    let world = World::default();
    let keys = world.keys();
    let body = world.body(10, 20);
    let original = json::parse(&body).unwrap();
    for at in 0..body.len() {
        for bit in [0x01, 0x04, 0x10, 0x20] {
            let mut changed = body.clone();
            changed[at] ^= bit;
            // A change of spelling changes nothing: 8 of "\u0008" to the same in another case, for example.
            if json::parse(&changed).is_ok_and(|value| value == original) {
                continue;
            }
            let shown = String::from_utf8_lossy(&changed[at.saturating_sub(20)..(at + 20).min(body.len())])
                .into_owned();
            assert!(verify(&changed, &keys).is_err(), "byte {at}, bit {bit:x}: …{shown}…");
        }
    }
}

#[test]
fn a_proof_has_one_form() {
    use Check::*;
    let world = World::default();
    let keys = world.keys();
    let draft = world.draft(10, 20);
    let right = draft.proof();
    let (path, checkpoint) = (draft.path(), draft.checkpoint());
    let lines: Vec<&str> = path.lines().collect();
    let hashes = &lines[2..];
    let with_hashes = |hashes: &[&str]| {
        let hashes: String = hashes.iter().map(|hash| format!("{hash}\n")).collect();
        format!("c2sp.org/tlog-proof@v1\nindex 10\n{hashes}\n{checkpoint}")
    };
    assert_eq!(with_hashes(hashes), right);
    let mut swapped = hashes.to_vec();
    swapped.swap(0, 1);
    let zero = base64(&[0; 32]);
    let mut changed = hashes.to_vec();
    changed[2] = &zero;
    let other_index = world.draft(9, 20);
    let cases = [
        ("another version", right.replace("@v1", "@v2"), Proof),
        ("extra data", right.replace("index", "extra AAAA\nindex"), Proof),
        ("no index", right.replace("index 10\n", ""), Proof),
        ("an index with a zero before", right.replace("index 10", "index 010"), Proof),
        ("an index with a sign", right.replace("index 10", "index +10"), Proof),
        ("an index below 0", right.replace("index 10", "index -10"), Proof),
        ("an index of 2^64", right.replace("index 10", "index 18446744073709551616"), Proof),
        ("an empty index", right.replace("index 10", "index "), Proof),
        ("two spaces", right.replace("index 10", "index  10"), Proof),
        ("a space after the index", right.replace("index 10", "index 10 "), Proof),
        ("carriage returns", right.replace('\n', "\r\n"), Proof),
        ("a hash without padding", right.replacen("=\n", "\n", 1), Proof),
        ("a hash with a space", right.replacen("=\n", "= \n", 1), Proof),
        ("a hash in hex", with_hashes(&[&hex(&[0; 32])]), Proof),
        ("64 hashes", with_hashes(&[zero.as_str(); 64]), Proof),
        ("no empty line", right.replacen("\n\n", "\n", 1), Proof),
        ("no checkpoint", path.clone(), Proof),
        ("an empty checkpoint", format!("{path}\n"), Proof),
        ("two empty lines", right.replacen("\n\n", "\n\n\n", 1), Proof),
        ("a line feed more", format!("{right}\n"), Proof),
        ("a line feed less", right.trim_end().to_owned(), Proof),
        ("something before", format!("\n{right}"), Proof),
        ("63 hashes", with_hashes(&[zero.as_str(); 63]), Inclusion),
        ("no hashes", with_hashes(&[]), Inclusion),
        ("a hash less", with_hashes(&hashes[1..]), Inclusion),
        ("the last hash less", with_hashes(&hashes[..hashes.len() - 1]), Inclusion),
        ("a hash more", with_hashes(&[hashes, &[&zero]].concat()), Inclusion),
        ("a hash more, before", with_hashes(&[&[zero.as_str()], hashes].concat()), Inclusion),
        ("hashes swapped", with_hashes(&swapped), Inclusion),
        ("a hash changed", with_hashes(&changed), Inclusion),
        ("another index", right.replace("index 10", "index 11"), Proof),
        ("an index far out", right.replace("index 10", "index 18446744073709551615"), Proof),
        ("another entry's proof", other_index.proof(), Proof),
        ("another entry's path", other_index.proof().replace("index 9", "index 10"), Inclusion),
        ("another tree's path", format!("{}\n{checkpoint}", world.draft(10, 19).path()), Inclusion),
        ("another tree's checkpoint", format!("{path}\n{}", world.draft(10, 19).checkpoint()), Inclusion),
    ];
    for (name, proof, check) in cases {
        assert_ne!(proof, right, "{name}");
        fails(name, &canonical(&draft.finish_with(&proof)), &keys, check);
    }
    // Among 63 hashes at most, the number is no matter of parsing: a tree of one entry has none.
    verify(&world.body(0, 1), &keys).unwrap();
}

#[test]
fn revoked_and_stale_let_the_other_checks_go_on() {
    let world = World::default();
    let revoke =
        |at: &str| world.signer.keys_json(|keys, _| drop(keys[1].insert("revoked_at".to_owned(), text(at))));
    let body = world.body(10, 20);
    let later = Options { at: Some(time("2027-01-30T00:00:00.000001Z")), ..Options::default() };
    for at in ["2020-01-01T00:00:00.000000Z", "2026-11-20T13:00:00.000000Z", "2099-01-01T00:00:00.000000Z"] {
        let keys = world.trust(&revoke(at));
        let failure = verify(&body, &keys).unwrap_err();
        assert_eq!((failure.check, failure.also.len()), (Check::KeyRevoked, 0), "{at}");
        let failure = receipt::verify(&body, &keys, &later).unwrap_err();
        assert_eq!(failure.check, Check::KeyRevoked);
        assert!(failure.to_string().contains("also stale"), "{failure}");
        let mut spoilt = world.draft(10, 20).finish();
        edit(&mut spoilt, &["data", "to"], text("READY"));
        let failure = receipt::verify(&canonical(&spoilt), &keys, &later).unwrap_err();
        let also: Vec<Check> = failure.also.iter().map(|(check, _)| *check).collect();
        assert_eq!((failure.check, also), (Check::KeyRevoked, vec![Check::Stale, Check::Signature]));
        let evidence = Options { mode: Mode::Evidence, ..Options::default() };
        assert_eq!(receipt::verify(&body, &keys, &evidence).unwrap_err().check, Check::KeyRevoked);
    }
    let keys = world.keys();
    let failure = receipt::verify(&body, &keys, &later).unwrap_err();
    assert_eq!((failure.check, failure.facts.checkpoint_size), (Check::Stale, Some(20)));
    let mut spoilt = world.draft(10, 20).finish();
    edit(&mut spoilt, &["openings", "email", "value"], text("READY"));
    let failure = receipt::verify(&canonical(&spoilt), &keys, &later).unwrap_err();
    assert_eq!(failure.check, Check::Stale);
    assert!(failure.to_string().contains("also openings"), "{failure}");
}

#[test]
fn freshness_ends_with_the_key_or_the_manifest_and_evidence_does_not() {
    let world = World::default();
    let rotated = world.signer.keys_json(|keys, _| {
        keys[1].insert("not_after".to_owned(), text(RECEIPT_ISSUED_AT));
        keys[1].insert("verify_until".to_owned(), text("2027-02-18T12:00:00.000000Z"));
    });
    let short = world.signer.keys_json(|keys, manifest| {
        keys[1].insert("not_after".to_owned(), text("2026-11-20T12:00:00.000000Z"));
        keys[1].insert("verify_until".to_owned(), text("2027-02-18T12:00:00.000000Z"));
        manifest.insert("issued_at".to_owned(), text("2026-12-01T00:00:00.000000Z"));
        manifest.insert("expires".to_owned(), text("2027-03-11T00:00:00.000000Z"));
    });
    let body = world.body(10, 20);
    let judge = |keys: &[u8], at: &str, mode| {
        let options = Options { at: Some(time(at)), mode, ..Options::default() };
        receipt::verify(&body, &world.trust(keys), &options).map_err(|failure| failure.check).map(drop)
    };
    let cases = [
        (&rotated, "2027-01-30T00:00:00.000000Z", Ok(())),
        (&rotated, "2027-01-30T00:00:00.000001Z", Err(Check::Stale)),
        (&short, "2027-02-18T12:00:00.000000Z", Ok(())),
        (&short, "2027-02-18T12:00:00.000001Z", Err(Check::Stale)),
        (&short, "2027-03-11T00:00:00.000001Z", Err(Check::Stale)),
    ];
    for (keys, at, expected) in cases {
        assert_eq!(judge(keys, at, Mode::Fresh), expected, "{at}");
        assert_eq!(judge(keys, at, Mode::Evidence), Ok(()), "{at}");
    }
}

#[test]
fn the_window_includes_both_ends() {
    let world = World::default();
    let end = "2026-11-20T12:00:00.000000Z";
    let keys = world.trust(&world.signer.keys_json(|keys, _| {
        keys[1].insert("not_before".to_owned(), text("2026-11-19T12:00:00.000000Z"));
        keys[1].insert("not_after".to_owned(), text(end));
        keys[1].insert("verify_until".to_owned(), text("2027-02-18T12:00:00.000000Z"));
    }));
    for (issued_at, expected) in [
        ("2026-11-19T11:59:59.999999Z", Some(Check::KeyWindow)),
        ("2026-11-19T12:00:00.000000Z", None),
        (end, None),
        ("2026-11-20T12:00:00.000001Z", Some(Check::KeyWindow)),
    ] {
        let draft = world.draft(10, 20).with(|d| drop(d.receipt.insert("issued_at".into(), text(issued_at))));
        let found = verify(&canonical(&draft.finish()), &keys).err().map(|failure| failure.check);
        assert_eq!(found, expected, "{issued_at}");
    }
}

#[test]
fn the_ledger_and_destination_asked_for_are_checked_in_order() {
    let world = World::default();
    let keys = world.keys();
    let body = world.body(10, 20);
    let judge = |ledger: &str, destination: &str| {
        let (ledger, destination) = (Some(ledger.to_owned()), Some(destination.to_owned()));
        let options = Options { ledger, destination, ..options() };
        receipt::verify(&body, &keys, &options).err().map(|failure| failure.check)
    };
    assert_eq!(judge(LEDGER, DESTINATION), None);
    assert_eq!(judge(OTHER_LEDGER, DESTINATION), Some(Check::Ledger));
    assert_eq!(judge(LEDGER, OTHER_LEDGER), Some(Check::Destination));
    assert_eq!(judge(OTHER_LEDGER, OTHER_LEDGER), Some(Check::Ledger));
    assert_eq!(judge(&LEDGER.to_uppercase(), DESTINATION), Some(Check::Ledger));
}

#[test]
fn keys_of_another_purpose_are_unknown() {
    let world = World::default();
    let keys = world.keys();
    for key in [&world.signer.root, &world.signer.checkpoint] {
        let draft = world.draft(10, 20).with(|draft| {
            draft.key = key.clone();
            draft.receipt.insert("key_id".into(), text(&hex(&key_id(key))));
        });
        fails("a key of another purpose", &canonical(&draft.finish()), &keys, Check::KeyUnknown);
    }
}

#[test]
fn the_first_check_in_the_order_is_the_one_that_is_named() {
    // Everything is wrong at once; what is mended in the order of the checks uncovers the next.
    let world = World::default();
    let mut draft = world.draft(10, 20);
    draft.receipt.insert("instance".into(), text("other.example.org"));
    draft.receipt.insert("key_id".into(), text(&"0".repeat(64)));
    draft.receipt.insert("issued_at".into(), text("2020-01-01T00:00:00.000000Z"));
    draft.kind = "export";
    draft.openings = Some(Value::Object(object([("phone", opening_of(&text("x")).0)])));
    draft.checkpoint_key = SigningKey::from_bytes(&[9; 32]);
    draft.origin = "other".to_owned();
    let keys = world.keys();
    let options =
        Options { ledger: Some(OTHER_LEDGER.to_owned()), destination: Some("x".to_owned()), ..options() };
    let spoil_path =
        |draft: &Draft| draft.proof().replacen("=\n", "=\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n", 1);
    let check = |draft: &Draft, options: &Options, proof: &str| {
        receipt::verify(&canonical(&draft.finish_with(proof)), &keys, options).unwrap_err().check
    };
    assert_eq!(check(&draft, &options, ""), Check::Instance);
    draft.receipt.insert("instance".into(), text(INSTANCE));
    assert_eq!(check(&draft, &options, ""), Check::Ledger);
    let options = Options { ledger: None, ..options };
    assert_eq!(check(&draft, &options, ""), Check::Destination);
    let options = Options { destination: None, ..options };
    assert_eq!(check(&draft, &options, ""), Check::KeyUnknown);
    draft.receipt.insert("key_id".into(), text(&hex(&key_id(&world.signer.receipt))));
    assert_eq!(check(&draft, &options, ""), Check::KeyWindow);
    draft.receipt.insert("issued_at".into(), text(RECEIPT_ISSUED_AT));
    assert_eq!(check(&draft, &options, ""), Check::Signature);
    draft.kind = "receipt";
    assert_eq!(check(&draft, &options, ""), Check::Proof);
    assert_eq!(check(&draft, &options, &spoil_path(&draft)), Check::Origin);
    draft.origin = format!("{INSTANCE}/{LEDGER}");
    assert_eq!(check(&draft, &options, &spoil_path(&draft)), Check::CheckpointSignature);
    draft.checkpoint_key = world.signer.checkpoint.clone();
    assert_eq!(check(&draft, &options, &spoil_path(&draft)), Check::Inclusion);
    assert_eq!(check(&draft, &options, &draft.proof()), Check::Openings);
}

#[test]
fn a_checkpoint_that_the_caller_has_verified_counts_byte_for_byte_and_only_as_a_checkpoint() {
    let world = World::default();
    let keys = world.keys();
    let known = |text: &str| Options { verified_checkpoint: Some(text.into()), ..options() };
    let mut draft = world.draft(10, 20);
    draft.checkpoint_key = SigningKey::from_bytes(&[9; 32]);
    let body = canonical(&draft.finish());
    fails("a signature that nobody has verified", &body, &keys, Check::CheckpointSignature);
    receipt::verify(&body, &keys, &known(&draft.checkpoint())).unwrap();
    let other = world.draft(10, 20).checkpoint();
    let refused = receipt::verify(&body, &keys, &known(&other)).unwrap_err();
    assert_eq!(refused.check, Check::CheckpointSignature);
    // All else is verified as ever.
    draft.origin += "x";
    let refused =
        receipt::verify(&canonical(&draft.finish()), &keys, &known(&draft.checkpoint())).unwrap_err();
    assert_eq!(refused.check, Check::Origin);
    let mut body = world.draft(10, 20).finish();
    edit(&mut body, &["data"], Value::Object(object([])));
    let refused = receipt::verify(&canonical(&body), &keys, &known(&other)).unwrap_err();
    assert_eq!(refused.check, Check::Signature);
}

#[test]
fn a_manifest_of_another_instance_or_pin_verifies_nothing() {
    let world = World::default();
    let stranger = Signer::new(b"a stranger");
    let manifest = KeyManifest::parse(&stranger.keys_json(|_, _| ())).unwrap();
    assert_eq!(manifest.trust(&world.signer.pin()).unwrap_err().check, Check::Manifest);
    // The stranger's own pin and manifest do not make the receipt the stranger's.
    let manifest = KeyManifest::parse(&stranger.keys_json(|_, _| ())).unwrap();
    let keys = manifest.trust(&stranger.pin()).unwrap();
    fails("a stranger's keys", &world.body(10, 20), &keys, Check::KeyUnknown);
    // A signature made under a key that nobody trusts, though the receipt names a trusted one.
    let mut body = world.draft(10, 20).finish();
    edit(&mut body, &["receipt", "signature"], sign(&stranger.receipt, "receipt", b"{}"));
    fails("a stranger's signature", &canonical(&body), &world.keys(), Check::Signature);
}
