//! Lines and openings of any bytes in an export that is right around them: chunks and threads have to find what a plain
//! reading from the start finds. (With `--cfg fuzzing` a chunk has 64 bytes, so that small inputs have many.)
//!
//! The input is a byte for the filter and the openings, then `entries.jsonl`, `\\0`, `openings.jsonl`.
#![no_main]

#[path = "../../tests/export_support/mod.rs"]
mod export_support;

use std::io::Write;
use std::sync::LazyLock;

use export_support::reference::{Asked, first_failure};
use export_support::{
    EXPORTED_AT, LEDGER, Signer, canonical, int, key_id, leaf, object, sign, text, tree_root, zip,
};
use libfuzzer_sys::fuzz_target;
use statusledger_verify::encoding::{hex, parse_hex};
use statusledger_verify::export::{self, Error, Options};
use statusledger_verify::json::{self, Value};
use statusledger_verify::{Check, Hash};

const KEPT: [&str; 2] = ["a", "b.c"];

static SIGNER: LazyLock<Signer> = LazyLock::new(|| Signer::new(b"fuzz"));
static KEYS: LazyLock<Vec<u8>> = LazyLock::new(|| SIGNER.keys_json(|_, _| ()));

/// The leaf that a line stands for; of one that is wrong anything.
fn leaf_of(line: &[u8]) -> Hash {
    let named = json::parse(line).ok().and_then(|line| parse_hex(line.as_object()?.get("leaf")?.as_str()?));
    named.unwrap_or_else(|| leaf(line))
}

fuzz_target!(|input: &[u8]| {
    let Some((flags, input)) = input.split_first() else { return };
    let (filtered, opened) = (flags & 1 == 1, flags & 2 == 2);
    let end = input.iter().position(|byte| *byte == 0).unwrap_or(input.len());
    let (entries, openings) = (&input[..end], input.get(end + 1..).unwrap_or_default());

    let lines: Vec<&[u8]> = entries.split_inclusive(|byte| *byte == b'\n').collect();
    let leaves: Vec<Hash> =
        lines.iter().map(|line| leaf_of(line.strip_suffix(b"\n").unwrap_or(line))).collect();
    let asked = Asked {
        ledger: LEDGER,
        to: lines.len() as u64,
        count: lines.iter().filter(|line| !line.starts_with(b"{\"leaf\"")).count() as u64,
        root: tree_root(&leaves),
        filter: filtered.then_some(&KEPT[..]),
    };
    let expected = first_failure(entries, opened.then_some(openings), &asked);

    let kept = Value::Array(KEPT.map(text).to_vec());
    let mut manifest = object([
        ("v", int(1)),
        ("instance", text(&SIGNER.instance)),
        ("ledger", text(LEDGER)),
        ("from", int(0)),
        ("to", int(asked.to)),
        ("root", text(&hex(&asked.root))),
        ("count", int(asked.count)),
        ("filter", if filtered { kept } else { Value::Null }),
        ("left", Value::Array(Vec::new())),
        ("exported_at", text(EXPORTED_AT)),
        ("exported_by", text("usr_1")),
        ("key_id", text(&hex(&key_id(&SIGNER.receipt)))),
    ]);
    let signature = sign(&SIGNER.receipt, "export", &canonical(&manifest));
    manifest.insert("signature".to_owned(), signature);
    let mut members = vec![zip::Member::stored("entries.jsonl", entries.to_vec())];
    if opened {
        members.push(zip::Member::stored("openings.jsonl", openings.to_vec()));
    }
    members.push(zip::Member::stored("checkpoint", SIGNER.checkpoint(LEDGER, asked.to, &asked.root)));
    members.push(zip::Member::stored("keys.json", KEYS.clone()));
    members.push(zip::Member::stored("manifest.json", canonical(&manifest)));

    let folder =
        if std::path::Path::new("/dev/shm").is_dir() { "/dev/shm".into() } else { std::env::temp_dir() };
    let mut file = tempfile::NamedTempFile::new_in(folder).expect("a file");
    file.write_all(&zip::write(&members)).expect("the file can be written");
    let found = match export::verify(file.path(), &SIGNER.pin(), None, &Options::default(), &|_, _| ()) {
        Ok(_) => None,
        Err(Error::Failed(failure)) if failure.check == Check::Openings => Some((Check::Openings, None)),
        Err(Error::Failed(failure)) => Some((failure.check, failure.seq)),
        Err(Error::Io(error)) => panic!("{error}"),
    };
    assert_eq!(found, expected);
});
