//! Writes inputs for the fuzz targets to start from: one or a few of each format, right in themselves.
//!
//!     cargo run -p statusledger-verify --example fuzz_seeds
//!
//! fills `verifier/fuzz/corpus/TARGET/`, which is not kept in the repository.
#![allow(clippy::unwrap_used)]

#[path = "../tests/export_support/mod.rs"]
mod export_support;

use std::path::Path;

use export_support::{
    EXPORTED_AT, Export, INSTANCE, LEDGER, Ledger, Signer, canonical, int, key_id, object, text, zip,
};
use statusledger_verify::checkpoint::{cosignature_key_id, cosignature_line};
use statusledger_verify::encoding::{base64, hex};
use statusledger_verify::json::{self, Value};
use statusledger_verify::proof::Proof;

fn main() -> std::io::Result<()> {
    let signer = Signer::new(b"fuzz");
    let mut ledger = Ledger::default();
    ledger.append("a", &[("email", text("someone@example.org")), ("more", Value::Array(vec![Value::Null]))]);
    ledger.append("b.c", &[]);
    ledger.append("d", &[("n", int(1))]);
    ledger.append("a", &[]);
    let whole = Export::of(&signer, &ledger, (0, 4), None, true);
    let part = Export::of(&signer, &ledger, (0, 4), Some(&["a", "b.c"]), true);
    let members = whole.members(&signer);

    let mut seeds: Vec<(&str, Vec<u8>)> = Vec::new();
    let lines = part.lines.iter().chain(whole.openings.iter().flatten());
    seeds.extend(lines.clone().map(|line| ("json", line.clone())));
    seeds.push(("json", whole.keys.clone()));
    seeds.push((
        "json",
        "{\"\\n\":[-1,{}],\"\u{1f600}\":\"\\u0001\\\\\",\"\u{fb33}\":9007199254740991}".into(),
    ));
    seeds.extend(part.lines.iter().map(|line| ("line", line.clone())));
    seeds.extend(whole.openings.iter().flatten().map(|line| ("opening", line.clone())));
    seeds.push(("manifest", whole.keys.clone()));
    seeds.push(("manifest", signer.pin().to_string().into_bytes()));

    let (witness, key) = ("witness.example", signer.root.verifying_key().to_bytes());
    let id = cosignature_key_id(witness, &key);
    let mut cosigned = whole.checkpoint.clone();
    cosigned.extend(cosignature_line(witness, id, 1_795_000_000, &[7; 64]).into_bytes());
    seeds.push(("checkpoint", whole.checkpoint.clone()));
    let vkey = format!("{witness}+{:08x}+{}", u32::from_be_bytes(id), base64(&[&[4], &key[..]].concat()));
    let policy = format!(
        "# two of them\nlog x\nwitness w1 {vkey} https://w.example\ngroup g 1 w1\ngroup h any g\nquorum h\n"
    );
    seeds.push(("policy", policy.into_bytes()));
    seeds.push(("policy", b"quorum none\n".to_vec()));
    let checkpoint = String::from_utf8(cosigned.clone()).unwrap();
    let proof = Proof { index: 1, hashes: ledger.leaves(), checkpoint }.to_string();
    seeds.push(("proof", proof.clone().into_bytes()));
    let hashes = Value::Array(ledger.leaves().iter().map(|leaf| text(&hex(leaf))).collect());
    seeds.push(("proof", canonical(&object([("from", int(2)), ("to", int(4)), ("hashes", hashes)]))));
    seeds.push(("checkpoint", cosigned));

    let mut body = json::parse(&ledger.lines[2]).unwrap().as_object().unwrap().clone();
    let receipt = object([
        ("v", int(1)),
        ("instance", text(INSTANCE)),
        ("id", text(&format!("rcpt_{LEDGER}"))),
        ("destination", text("dst_1")),
        ("number", int(1)),
        ("issued_at", text(EXPORTED_AT)),
        ("key_id", text(&hex(&key_id(&signer.receipt)))),
        ("signature", text(&base64(&[7; 64]))),
        ("proof", text(&proof)),
    ]);
    body.insert("receipt".to_owned(), Value::Object(receipt));
    seeds.push(("receipt", canonical(&body)));
    let opening = object([("salt", text(&base64(&[1; 32]))), ("value", int(1))]);
    body.insert("openings".to_owned(), Value::Object(object([("n", Value::Object(opening))])));
    seeds.push(("receipt", canonical(&body)));

    let stored = || members.iter().map(|(name, data)| zip::Member::stored(name, data.clone()));
    let deflated = || members.iter().map(|(name, data)| zip::Member::deflated(name, data));
    for zip in [
        zip::write(&stored().collect::<Vec<_>>()),
        zip::write(&deflated().map(|member| member.streamed(true, false)).collect::<Vec<_>>()),
        zip::write(&stored().map(|member| member.streamed(false, true).wide(false)).collect::<Vec<_>>()),
        zip::write(&deflated().map(|member| member.wide(true)).collect::<Vec<_>>()),
    ] {
        seeds.push(("zip", zip));
    }
    for (flags, export) in [(0, &whole), (2, &whole), (1, &part), (3, &part)] {
        let members = export.members(&signer);
        seeds.push(("export", [&[flags], &members[0].1[..], &[0], &members[1].1].concat()));
    }

    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (number, (target, seed)) in seeds.iter().enumerate() {
        std::fs::create_dir_all(corpus.join(target))?;
        std::fs::write(corpus.join(target).join(format!("seed{number:02}")), seed)?;
    }
    Ok(())
}
