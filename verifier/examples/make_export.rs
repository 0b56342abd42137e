//! Writes an export of many entries, signed with fresh keys, to measure the verifier with.
//!
//!     cargo run --release -p statusledger-verify --example make_export -- FILE ENTRIES [--deflate] [--openings]
//!
//! prints the pin. `--openings` seals a value in every tenth entry and opens it.
#![allow(clippy::unwrap_used)]

#[path = "../tests/export_support/mod.rs"]
mod export_support;

use std::hash::{BuildHasher, RandomState};
use std::io::Write;

use export_support::zip::{self, Member};
use export_support::{EXPORTED_AT, LEDGER, Signer, canonical, int, key_id, leaf, object, sha256, sign, text};
use statusledger_verify::encoding::{base64, hex};
use statusledger_verify::json::Value;
use statusledger_verify::tree::Frontier;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let [file, entries, ..] = &arguments[..] else {
        return Err("usage: make_export FILE ENTRIES [--deflate] [--openings]".into());
    };
    let count: u64 = entries.parse()?;
    let seed: [u64; 4] = std::array::from_fn(|i| RandomState::new().hash_one(i));
    let signer = Signer::new(&seed.map(u64::to_le_bytes).concat());

    let mut lines = Vec::new();
    let mut openings = Vec::new();
    let mut frontier = Frontier::new();
    let mut prev = [0; 32];
    for seq in 0..count {
        let nonce = sha256(&[&seed[0].to_le_bytes(), &seq.to_le_bytes()]);
        let mut sealed = String::new();
        if has("--openings") && seq % 10 == 0 {
            let salt = sha256(&[b"salt", &nonce]);
            let value = format!("\"person{seq}@example.org\"");
            sealed =
                format!("\"sealed\":{{\"email\":\"{}\"}},", hex(&sha256(&[&[2], &salt, value.as_bytes()])));
            writeln!(
                openings,
                r#"{{"name":"email","salt":"{}","seq":{seq},"value":{value}}}"#,
                base64(&salt)
            )?;
        }
        let (minute, second) = (seq / 1_000_000 / 60 % 60, seq / 1_000_000 % 60);
        let entry = format!(
            concat!(
                r#"{{"data":{{"app":{{"id":"6446048195","name":"Ledger für alle"}},"from":"WAITING_FOR_REVIEW","#,
                r#""observed":{{"after":"2026-11-02T03:00:00.000001Z","before":"2026-11-02T03:04:00.000001Z"}},"#,
                r#""platform":"IOS",{}"to":"IN_REVIEW","version":"4.{}.{}"}},"ledger":"{}","nonce":"{}","prev":"{}","#,
                r#""seq":{},"timestamp":"2026-11-02T03:{:02}:{:02}.{:06}Z","type":"store.version.transitioned","v":1}}"#
            ),
            sealed,
            seq % 100,
            seq % 7,
            LEDGER,
            base64(&nonce[..16]),
            hex(&prev),
            seq,
            minute,
            second,
            seq % 1_000_000,
        );
        prev = leaf(entry.as_bytes());
        frontier.push(prev);
        lines.extend_from_slice(entry.as_bytes());
        lines.push(b'\n');
    }
    let root = frontier.root();
    let mut manifest = object([
        ("v", int(1)),
        ("instance", text(&signer.instance)),
        ("ledger", text(LEDGER)),
        ("from", int(0)),
        ("to", int(count)),
        ("root", text(&hex(&root))),
        ("count", int(count)),
        ("filter", Value::Null),
        ("left", Value::Array(Vec::new())),
        ("exported_at", text(EXPORTED_AT)),
        ("exported_by", text("usr_1")),
        ("key_id", text(&hex(&key_id(&signer.receipt)))),
    ]);
    let signature = sign(&signer.receipt, "export", &canonical(&manifest));
    manifest.insert("signature".to_owned(), signature);

    let deflate = has("--deflate");
    let member = |name: &str, data: Vec<u8>| {
        if deflate { Member::deflated(name, &data) } else { Member::stored(name, data) }
    };
    let mut members = vec![member("entries.jsonl", lines)];
    if has("--openings") {
        members.push(member("openings.jsonl", openings));
    }
    members.push(member("checkpoint", signer.checkpoint(LEDGER, count, &root)));
    members.push(member("keys.json", signer.keys_json(|_, _| ())));
    members.push(member("manifest.json", canonical(&manifest)));
    std::fs::write(file, zip::write(&members))?;
    writeln!(std::io::stdout().lock(), "{}", signer.pin())?;
    Ok(())
}
