//! Key manifests: chains of trust from a pin, every rule of the table, and what a newer one may not take back.

use ed25519_dalek::SigningKey;
use statusledger_verify::check::Check;
use statusledger_verify::encoding::{base64, hex};
use statusledger_verify::json::{Object, Value};
use statusledger_verify::manifest::{KeyManifest, Pin, PinError, compare};

use crate::common::{INSTANCE, LEDGER, canonical, edit, int, key_id, object, sha256, sign, text};

const START: &str = "2026-01-01T00:00:00.000000Z";
const TURN: &str = "2026-04-01T00:00:00.000000Z";
const NOW: &str = "2026-07-01T00:00:00.000000Z";

fn key(name: &str) -> SigningKey {
    SigningKey::from_bytes(&sha256(&[b"manifests", name.as_bytes()]))
}

fn pin(name: &str) -> Pin {
    Pin { key_id: key_id(&key(name)), instance: INSTANCE.to_owned() }
}

fn public(key: &SigningKey, purpose: &str, not_before: &str) -> Object {
    object([
        ("key_id", text(&hex(&key_id(key)))),
        ("public_key", text(&base64(key.verifying_key().as_bytes()))),
        ("purpose", text(purpose)),
        ("not_before", text(not_before)),
        ("not_after", Value::Null),
        ("verify_until", Value::Null),
        ("revoked_at", Value::Null),
    ])
}

/// Endorses a key as it stands.
fn endorse(by: &str, mut endorsed: Object, kind: &str, instance: &str) -> Object {
    let member = |name: &str| endorsed.get(name).unwrap().clone();
    let statement = object([
        ("instance", text(instance)),
        ("key_id", member("key_id")),
        ("not_before", member("not_before")),
        ("public_key", member("public_key")),
        ("purpose", member("purpose")),
    ]);
    let signature = sign(&key(by), kind, &canonical(&statement));
    endorsed.insert("endorsed_by".to_owned(), text(&hex(&key_id(&key(by)))));
    endorsed.insert("endorsement".to_owned(), signature);
    endorsed
}

fn root(name: &str, by: &str, not_before: &str) -> Object {
    endorse(by, public(&key(name), "root", not_before), "endorsement", INSTANCE)
}

fn with(mut object: Object, members: &[(&str, &str)]) -> Object {
    for (name, value) in members {
        object.insert((*name).to_owned(), text(value));
    }
    object
}

fn receipt_key() -> Object {
    public(&key("receipt"), "receipt", START)
}

fn checkpoint_key() -> Object {
    public(&key("checkpoint"), "checkpoint", START)
}

/// The manifest without its signature.
fn unsigned(keys: Vec<Object>, signer: &str) -> Object {
    object([
        ("v", int(1)),
        ("instance", text(INSTANCE)),
        ("ledger", text(LEDGER)),
        ("serial", int(5)),
        ("issued_at", text(NOW)),
        ("expires", text("2026-10-09T00:00:00.000000Z")),
        ("keys", Value::Array(keys.into_iter().map(Value::Object).collect())),
        ("key_id", text(&hex(&key_id(&key(signer))))),
    ])
}

fn signed(mut manifest: Object, signer: &str, kind: &str) -> Vec<u8> {
    let signature = sign(&key(signer), kind, &canonical(&manifest));
    manifest.insert("signature".to_owned(), signature);
    canonical(&manifest)
}

fn manifest(keys: Vec<Object>, signer: &str) -> Vec<u8> {
    signed(unsigned(keys, signer), signer, "manifest")
}

fn trust(bytes: &[u8], pin: &Pin) -> Result<(), Check> {
    let trusted = KeyManifest::parse(bytes).and_then(|manifest| manifest.trust(pin));
    trusted.map(drop).map_err(|failure| failure.check)
}

const REFUSED: Result<(), Check> = Err(Check::Manifest);

#[test]
fn trust_follows_the_endorsements_from_the_pin() {
    let retired = [("not_after", TURN)];
    let revoked = [("revoked_at", NOW)];
    let gone = [("not_after", TURN), ("revoked_at", NOW)];
    let chain = |first: &[(&str, &str)], second: &[(&str, &str)], third: &[(&str, &str)]| {
        vec![
            with(root("a", "a", START), first),
            with(root("b", "a", TURN), second),
            with(root("c", "b", TURN), third),
            receipt_key(),
            checkpoint_key(),
        ]
    };
    let none: &[(&str, &str)] = &[];
    let cases = [
        ("the pinned root signs", chain(none, none, none), "a", "a", Ok(())),
        ("one that it endorsed signs", chain(&retired, none, none), "b", "a", Ok(())),
        ("one further on signs", chain(&retired, &retired, none), "c", "a", Ok(())),
        ("a later root is pinned", chain(&retired, &retired, none), "c", "b", Ok(())),
        ("the last root is pinned", chain(&retired, &retired, none), "c", "c", Ok(())),
        ("an earlier root signs", chain(none, none, none), "a", "b", REFUSED),
        ("a retired root signs", chain(&retired, none, none), "a", "a", REFUSED),
        ("a revoked root signs", chain(&revoked, none, none), "a", "a", REFUSED),
        ("the pinned root is revoked", chain(&gone, none, none), "b", "a", REFUSED),
        ("the root between is revoked", chain(&retired, &gone, none), "c", "a", REFUSED),
        ("a revoked root is beside the chain", chain(none, &revoked, none), "a", "a", Ok(())),
        ("the root before the pin is revoked", chain(&gone, &retired, none), "c", "b", Ok(())),
        ("the pin is not there", chain(none, none, none), "a", "d", REFUSED),
        ("the pin is no root", chain(none, none, none), "a", "receipt", REFUSED),
        ("a receipt key signs", chain(none, none, none), "receipt", "a", REFUSED),
        ("a stranger signs", chain(none, none, none), "d", "a", REFUSED),
    ];
    for (name, keys, signer, pinned, expected) in cases {
        assert_eq!(trust(&manifest(keys, signer), &pin(pinned)), expected, "{name}");
    }
}

#[test]
fn an_endorsement_has_to_be_right_in_itself() {
    let first = || root("a", "a", START);
    let retired = || with(first(), &[("not_after", TURN)]);
    let late = "2026-04-01T00:00:00.000001Z";
    let second = public(&key("b"), "root", TURN);
    let spoilt = {
        let mut root = root("b", "a", TURN);
        root.insert("endorsement".to_owned(), text(&base64(&[1; 64])));
        root
    };
    let cases = [
        ("right", vec![first(), root("b", "a", TURN)], Ok(())),
        ("at the end of the endorser's window", vec![retired(), root("b", "a", TURN)], Ok(())),
        ("after the endorser's window", vec![retired(), root("b", "a", late)], REFUSED),
        (
            "before the endorser's window",
            vec![first(), root("b", "a", "2025-12-31T00:00:00.000000Z")],
            REFUSED,
        ),
        ("the first endorsed by the second", vec![root("a", "b", START), root("b", "a", START)], REFUSED),
        ("two that endorse each other", vec![first(), root("b", "c", TURN), root("c", "b", TURN)], REFUSED),
        ("a second that endorses itself", vec![first(), root("b", "b", TURN)], REFUSED),
        ("by one that stands after", vec![first(), root("b", "c", TURN), root("c", "a", TURN)], REFUSED),
        ("by one that is not there", vec![first(), root("b", "d", TURN)], REFUSED),
        ("by a receipt key", vec![receipt_key(), first(), root("b", "receipt", TURN)], REFUSED),
        ("of another kind", vec![first(), endorse("a", second.clone(), "manifest", INSTANCE)], REFUSED),
        (
            "for another instance",
            vec![first(), endorse("a", second.clone(), "endorsement", "x.org")],
            REFUSED,
        ),
        ("with another start", vec![first(), with(root("b", "a", TURN), &[("not_before", NOW)])], REFUSED),
        (
            "with another's signature",
            vec![first(), with(root("b", "c", TURN), &[("endorsed_by", &hex(&key_id(&key("a"))))])],
            REFUSED,
        ),
        ("with a spoilt signature", vec![first(), spoilt], REFUSED),
    ];
    for (name, mut keys, expected) in cases {
        keys.push(checkpoint_key());
        let signer = if keys[0].get("not_after") == Some(&Value::Null) { "a" } else { "b" };
        assert_eq!(trust(&manifest(keys.clone(), signer), &pin("a")), expected, "{name}");
    }
}

#[test]
fn every_rule_of_the_table_is_checked() {
    type Edit = Box<dyn Fn(&mut Object)>;
    let of_key = |index: usize, edit: fn(&mut Object)| -> Edit {
        Box::new(move |manifest: &mut Object| {
            let Some(Value::Array(mut keys)) = manifest.remove("keys") else { unreachable!() };
            let Value::Object(key) = &mut keys[index] else { unreachable!() };
            edit(key);
            manifest.insert("keys".to_owned(), Value::Array(keys));
        })
    };
    let set = |name: &'static str, value: Value| -> Edit {
        Box::new(move |manifest: &mut Object| drop(manifest.insert(name.to_owned(), value.clone())))
    };
    let cases: Vec<(&str, Edit, Result<(), Check>)> = vec![
        ("as it is", Box::new(|_| ()), Ok(())),
        ("v", set("v", int(2)), REFUSED),
        ("instance in capitals", set("instance", text("Ledger.example.org")), REFUSED),
        ("ledger", set("ledger", text("x")), REFUSED),
        ("serial 0", set("serial", int(0)), REFUSED),
        ("serial as a string", set("serial", text("5")), REFUSED),
        ("issued_at", set("issued_at", text("2026-07-01")), REFUSED),
        ("expires before issued_at", set("expires", text("2026-06-30T23:59:59.999999Z")), REFUSED),
        ("expires after 100 days", set("expires", text("2026-10-09T00:00:00.000000Z")), Ok(())),
        ("expires after 100 days and more", set("expires", text("2026-10-09T00:00:00.000001Z")), REFUSED),
        ("keys as an object", set("keys", Value::Object(Object::new())), REFUSED),
        ("no keys", set("keys", Value::Array(Vec::new())), REFUSED),
        ("key_id in capitals", set("key_id", text(&"A".repeat(64))), REFUSED),
        ("key_id of nobody", set("key_id", text(&"0".repeat(64))), REFUSED),
        ("a member more", set("note", Value::Null), REFUSED),
        ("a member less", Box::new(|manifest| drop(manifest.remove("ledger"))), REFUSED),
        ("a key's member more", of_key(1, |key| drop(key.insert("note".into(), Value::Null))), REFUSED),
        ("a key's member less", of_key(1, |key| drop(key.remove("revoked_at"))), REFUSED),
        ("an unknown purpose", of_key(1, |key| drop(key.insert("purpose".into(), text("witness")))), REFUSED),
        (
            "two purposes",
            of_key(1, |key| drop(key.insert("purpose".into(), Value::Array(vec![text("receipt")])))),
            REFUSED,
        ),
        (
            "another key's id",
            of_key(1, |key| drop(key.insert("key_id".into(), text(&"0".repeat(64))))),
            REFUSED,
        ),
        (
            "a key of 31 bytes",
            of_key(1, |key| drop(key.insert("public_key".into(), text(&base64(&[9; 31]))))),
            REFUSED,
        ),
        (
            "a key without padding",
            of_key(1, |key| {
                let public_key =
                    key.get("public_key").unwrap().as_str().unwrap().trim_end_matches('=').to_owned();
                key.insert("public_key".into(), text(&public_key));
            }),
            REFUSED,
        ),
        ("not_before null", of_key(1, |key| drop(key.insert("not_before".into(), Value::Null))), REFUSED),
        (
            "not_after before not_before",
            of_key(1, |key| {
                key.insert("not_after".into(), text("2025-12-31T00:00:00.000000Z"));
                key.insert("verify_until".into(), text("2026-03-31T00:00:00.000000Z"));
            }),
            REFUSED,
        ),
        (
            "rotated, for 90 days",
            of_key(1, |key| {
                key.insert("not_after".into(), text(TURN));
                key.insert("verify_until".into(), text("2026-06-30T00:00:00.000000Z"));
            }),
            Ok(()),
        ),
        (
            "rotated, and for how long is the signer's to say",
            of_key(1, |key| {
                key.insert("not_after".into(), text(TURN));
                key.insert("verify_until".into(), text("2026-06-30T00:00:00.000001Z"));
            }),
            Ok(()),
        ),
        (
            "rotated, for less",
            of_key(1, |key| {
                key.insert("not_after".into(), text(TURN));
                key.insert("verify_until".into(), text("2026-06-29T00:00:00.000000Z"));
            }),
            Ok(()),
        ),
        ("rotated, for ever", of_key(1, |key| drop(key.insert("not_after".into(), text(TURN)))), REFUSED),
        (
            "current, with an end",
            of_key(1, |key| {
                key.insert("verify_until".into(), text("2026-06-30T00:00:00.000000Z"));
            }),
            REFUSED,
        ),
        (
            "a root with an end",
            of_key(0, |key| {
                key.insert("verify_until".into(), text("2026-06-30T00:00:00.000000Z"));
            }),
            REFUSED,
        ),
        (
            "revoked_at as a truth value",
            of_key(1, |key| drop(key.insert("revoked_at".into(), Value::Bool(true)))),
            REFUSED,
        ),
        ("revoked", of_key(1, |key| drop(key.insert("revoked_at".into(), text(NOW)))), Ok(())),
        (
            "a receipt key that is endorsed",
            of_key(1, |key| {
                key.insert("endorsed_by".into(), text(&"0".repeat(64)));
                key.insert("endorsement".into(), text(&base64(&[0; 64])));
            }),
            REFUSED,
        ),
        (
            "a root that is not endorsed",
            of_key(0, |key| {
                key.remove("endorsed_by");
                key.remove("endorsement");
            }),
            REFUSED,
        ),
        (
            "a root with an endorsement of nobody",
            of_key(0, |key| drop(key.insert("endorsed_by".into(), Value::Null))),
            REFUSED,
        ),
        (
            "a root that is not yet current",
            Box::new(|manifest| {
                let late = root("a", "a", "2026-07-01T00:00:00.000001Z");
                edit(manifest, &["keys"], Value::Array(vec![Value::Object(late)]));
            }),
            REFUSED,
        ),
        (
            "a key twice",
            Box::new(|manifest| {
                let Some(Value::Array(mut keys)) = manifest.remove("keys") else { unreachable!() };
                keys.push(keys[1].clone());
                manifest.insert("keys".into(), Value::Array(keys));
            }),
            REFUSED,
        ),
        (
            "a key of two purposes",
            Box::new(|manifest| {
                let Some(Value::Array(mut keys)) = manifest.remove("keys") else { unreachable!() };
                keys.push(Value::Object(public(&key("receipt"), "checkpoint", START)));
                manifest.insert("keys".into(), Value::Array(keys));
            }),
            REFUSED,
        ),
    ];
    for (name, change, expected) in cases {
        let mut manifest = unsigned(vec![root("a", "a", START), receipt_key(), checkpoint_key()], "a");
        change(&mut manifest);
        assert_eq!(trust(&signed(manifest, "a", "manifest"), &pin("a")), expected, "{name}");
    }
}

#[test]
fn weak_and_malformed_keys_reject_the_manifest() {
    let hostile: [[u8; 32]; 5] = [
        [0; 32],
        std::array::from_fn(|index| u8::from(index == 0)),
        [0xFF; 32],
        std::array::from_fn(|index| {
            if index == 0 {
                0xED
            } else if index == 31 {
                0x7F
            } else {
                0xFF
            }
        }),
        std::array::from_fn(|index| if index == 0 { 2 } else { 0 }),
    ];
    for bytes in hostile {
        let mut weak = receipt_key();
        weak.insert("public_key".to_owned(), text(&base64(&bytes)));
        weak.insert("key_id".to_owned(), text(&hex(&sha256(&[&bytes]))));
        let keys = vec![root("a", "a", START), receipt_key(), checkpoint_key(), weak];
        assert_eq!(trust(&manifest(keys, "a"), &pin("a")), REFUSED, "{bytes:x?}");
    }
}

#[test]
fn a_manifest_is_at_most_1_mib_and_1024_keys() {
    let with_keys = |count: usize| {
        let mut keys = vec![root("a", "a", START)];
        keys.extend((1..count).map(|index| public(&key(&index.to_string()), "receipt", START)));
        manifest(keys, "a")
    };
    let largest = with_keys(1024);
    assert_eq!(trust(&largest, &pin("a")), Ok(()));
    assert_eq!(trust(&with_keys(1025), &pin("a")), REFUSED);
    let mut padded = largest;
    padded.resize(1 << 20, b' ');
    assert_eq!(trust(&padded, &pin("a")), Ok(()));
    padded.push(b' ');
    assert_eq!(trust(&padded, &pin("a")), REFUSED);
}

#[test]
fn the_signature_is_over_the_manifest_as_one_and_by_its_signer() {
    let right = unsigned(vec![root("a", "a", START), receipt_key()], "a");
    for kind in ["receipt", "export", "endorsement"] {
        assert_eq!(trust(&signed(right.clone(), "a", kind), &pin("a")), REFUSED, "{kind}");
    }
    assert_eq!(trust(&signed(right.clone(), "b", "manifest"), &pin("a")), REFUSED);
    let bytes = String::from_utf8(signed(right, "a", "manifest")).unwrap();
    assert_eq!(trust(bytes.replace("\"serial\":5", "\"serial\":6").as_bytes(), &pin("a")), REFUSED);
    for hostile in [
        bytes.replace("\"serial\":5", "\"serial\":5.0"),
        bytes.replace("\"serial\":5", "\"serial\":5,\"serial\":5"),
        bytes.clone() + "x",
        format!("\u{feff}{bytes}"),
        "{}".to_owned(),
        "[]".to_owned(),
        String::new(),
    ] {
        assert_eq!(trust(hostile.as_bytes(), &pin("a")), REFUSED, "{hostile}");
    }
    let elsewhere = Pin { instance: "other.example.org".to_owned(), ..pin("a") };
    assert_eq!(trust(bytes.as_bytes(), &elsewhere), Err(Check::Instance));
}

#[test]
fn every_byte_of_a_manifest_counts() {
    let keys = vec![with(root("a", "a", START), &[("not_after", TURN)]), root("b", "a", TURN), receipt_key()];
    let bytes = manifest(keys, "b");
    let original = statusledger_verify::json::parse(&bytes).unwrap();
    assert_eq!(trust(&bytes, &pin("a")), Ok(()));
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        assert_ne!(statusledger_verify::json::parse(&changed).ok().as_ref(), Some(&original));
        assert_eq!(trust(&changed, &pin("a")), REFUSED, "byte {at}");
    }
}

#[test]
fn a_pin_is_a_key_id_and_an_instance() {
    let id = "0".repeat(64);
    assert_eq!(format!("{id}@a.example").parse::<Pin>().unwrap().to_string(), format!("{id}@a.example"));
    for (text, error) in [
        (id.clone(), PinError::MissingInstance),
        (format!("{id}@"), PinError::MissingInstance),
        (String::new(), PinError::MissingInstance),
        (format!("{id}@A.example"), PinError::Instance),
        (format!("{id}@a@b"), PinError::Instance),
        (format!("{id}@a.example "), PinError::Instance),
        ("@a.example".to_owned(), PinError::KeyId),
        (format!("{}@a.example", "A".repeat(64)), PinError::KeyId),
        (format!("{}@a.example", &id[1..]), PinError::KeyId),
    ] {
        assert_eq!(text.parse::<Pin>(), Err(error), "{text}");
    }
}

#[test]
fn a_newer_manifest_takes_nothing_back() {
    let parse = |manifest: Object| KeyManifest::parse(&signed(manifest, "a", "manifest")).unwrap();
    let rotated = [("not_after", TURN), ("verify_until", "2026-06-30T00:00:00.000000Z")];
    let late = [("not_after", NOW), ("verify_until", "2026-09-29T00:00:00.000000Z")];
    let of = |keys: Vec<Object>| parse(unsigned([vec![root("a", "a", START)], keys].concat(), "a"));
    let old = of(vec![with(receipt_key(), &rotated), checkpoint_key()]);
    let extra = public(&key("new"), "receipt", TURN);
    let revoked_late = [("revoked_at", "2026-07-02T00:00:00.000000Z")];
    let with_serial = |serial: u64| {
        let mut manifest =
            unsigned(vec![root("a", "a", START), with(receipt_key(), &rotated), checkpoint_key()], "a");
        manifest.insert("serial".to_owned(), int(serial));
        parse(manifest)
    };
    let other_purpose = with(public(&key("checkpoint"), "receipt", START), &[]);
    let other_start = with(checkpoint_key(), &[("not_before", "2025-12-31T00:00:00.000000Z")]);
    for (name, new, expected) in [
        ("the same", old.clone(), true),
        ("a higher serial", with_serial(6), true),
        ("a lower serial", with_serial(4), false),
        ("a key more", of(vec![with(receipt_key(), &rotated), checkpoint_key(), extra.clone()]), true),
        ("another order", of(vec![checkpoint_key(), with(receipt_key(), &rotated)]), true),
        ("a key less", of(vec![with(receipt_key(), &rotated)]), false),
        ("a key for another", of(vec![with(receipt_key(), &rotated), extra]), false),
        ("a key retired", of(vec![with(receipt_key(), &rotated), with(checkpoint_key(), &late)]), true),
        (
            "a key revoked",
            of(vec![with(with(receipt_key(), &rotated), &revoked_late), checkpoint_key()]),
            true,
        ),
        ("a key current again", of(vec![receipt_key(), checkpoint_key()]), false),
        ("a later not_after", of(vec![with(receipt_key(), &late), checkpoint_key()]), false),
        ("another purpose", of(vec![with(receipt_key(), &rotated), other_purpose]), false),
        ("another start", of(vec![with(receipt_key(), &rotated), other_start]), false),
    ] {
        let result = compare(&old, &new).map_err(|failure| failure.check);
        assert_eq!(result, if expected { Ok(()) } else { Err(Check::Rollback) }, "{name}");
    }
    let revoked = of(vec![with(receipt_key(), &[("revoked_at", NOW)])]);
    for (name, keys) in
        [("not revoked", receipt_key()), ("revoked later", with(receipt_key(), &revoked_late))]
    {
        assert_eq!(compare(&revoked, &of(vec![keys])).unwrap_err().check, Check::Rollback, "{name}");
    }
    // Of a revoked key, verify_until may be null; once set it may not be taken away either.
    let dated = of(vec![with(with(receipt_key(), &rotated), &[("revoked_at", NOW)])]);
    let undated = of(vec![with(receipt_key(), &[("not_after", TURN), ("revoked_at", NOW)])]);
    assert!(compare(&undated, &dated).is_ok());
    assert_eq!(compare(&dated, &undated).unwrap_err().check, Check::Rollback);
}
