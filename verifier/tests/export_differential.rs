//! Whatever is changed in an export's lines, threads and chunks find what a plain reading from the start finds.
#![allow(clippy::unwrap_used)]

mod export_support;

use std::io::Write;

use export_support::reference::{Asked, first_failure};
use export_support::*;
use proptest::prelude::*;
use statusledger_verify::encoding::{hex, parse_hex};
use statusledger_verify::export::{self, Error, Options};
use statusledger_verify::json::{Object, Value, parse};
use statusledger_verify::{Check, Hash};

const KEPT: [&str; 2] = ["audit.login", "build.processed"];

/// A ledger whose entries are so large that few of them fill a chunk, sealed values in every other.
fn large_ledger(sizes: &[usize]) -> Ledger {
    let mut ledger = Ledger::default();
    for (i, size) in sizes.iter().enumerate() {
        let kind = ["store.version.transitioned", KEPT[0], KEPT[1]][i % 3];
        let sealed = [("a", text("x")), ("b", int(i as u64))];
        ledger.append(kind, if i % 2 == 0 { &sealed } else { &[] });
        let line = ledger.lines.last_mut().unwrap();
        let mut entry = parse(line).unwrap().as_object().unwrap().clone();
        let mut data = entry.get("data").unwrap().as_object().unwrap().clone();
        data.insert("filler".to_owned(), text(&"f".repeat(*size)));
        entry.insert("data".to_owned(), Value::Object(data));
        *line = canonical(&entry);
    }
    ledger
}

fn changed(line: &[u8], change: impl FnOnce(&mut Object)) -> Vec<u8> {
    let Some(mut object) = parse(line).ok().and_then(|value| value.as_object().cloned()) else {
        return line.to_vec();
    };
    change(&mut object);
    canonical(&object)
}

/// One of many ways to spoil a list of lines at a place.
fn spoil(lines: &mut Vec<Vec<u8>>, at: usize, how: u8) {
    let set =
        |name: &'static str, value: Value| move |line: &mut Object| drop(line.insert(name.to_owned(), value));
    let line = lines[at].clone();
    lines[at] = match how {
        0 => [&line[..], b" "].concat(),
        1 => changed(&line, set("v", int(2))),
        2 => changed(&line, set("seq", int(7))),
        3 => changed(&line, set("ledger", text("0190c5a1-0000-7000-8000-000000000000"))),
        4 => changed(&line, set("prev", text(&"1".repeat(64)))),
        5 => changed(&line, set("timestamp", text("2026-11-02T02:00:00.000004Z"))),
        6 => changed(&line, set("timestamp", text("2026-11-02T09:00:00.000004Z"))),
        7 => changed(&line, set("type", text("never.seen"))),
        8 => canonical(&object([("leaf", text(&hex(&leaf(&line)))), ("seq", int(at as u64))])),
        9 => canonical(&object([("leaf", text(&"2".repeat(64))), ("seq", int(at as u64))])),
        10 => vec![b'['; 70_000],
        11 => vec![b'x'; 600_000],
        12 => Vec::new(),
        13 => {
            lines.insert(at, line.clone());
            line
        }
        14 => {
            lines.remove(at);
            return;
        }
        15 => {
            let other = (at + 1) % lines.len();
            lines.swap(at, other);
            return;
        }
        16 => changed(&line, set("data", Value::Object(Object::new()))),
        // From here on the following lines are chained to the change, so that it is the only one.
        17 => changed(&line, set("timestamp", text("2026-11-02T02:00:00.000004Z"))),
        _ => changed(&line, set("timestamp", text("2026-11-02T09:00:00.000004Z"))),
    };
    if how >= 17 {
        for i in at + 1..lines.len() {
            let prev = text(&hex(&leaf(&lines[i - 1])));
            lines[i] = changed(&lines[i], |line| {
                if line.get("prev").is_some() {
                    line.insert("prev".to_owned(), prev);
                }
            });
        }
    }
}

/// What the verifier answers, in the shape of the reference's.
fn verified(export: &Export, signer: &Signer) -> Option<(Check, Option<u64>)> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&export.zip(signer)).unwrap();
    match export::verify(file.path(), &signer.pin(), None, &Options::default(), &|_, _| ()) {
        Ok(_) => None,
        Err(Error::Failed(failure)) if failure.check == Check::Openings => Some((Check::Openings, None)),
        Err(Error::Failed(failure)) => Some((failure.check, failure.seq)),
        Err(Error::Io(error)) => panic!("{error}"),
    }
}

fn referred(export: &Export) -> Option<(Check, Option<u64>)> {
    let lines = |lines: &[Vec<u8>]| -> Vec<u8> {
        lines.iter().flat_map(|line| [line, &b"\n"[..]].concat()).collect()
    };
    let manifest = |name: &str| export.manifest.get(name).unwrap();
    let filter: Option<Vec<&str>> =
        manifest("filter").as_array().map(|kinds| kinds.iter().map(|kind| kind.as_str().unwrap()).collect());
    let asked = Asked {
        ledger: LEDGER,
        to: manifest("to").as_u64().unwrap(),
        count: manifest("count").as_u64().unwrap(),
        root: parse_hex(manifest("root").as_str().unwrap()).unwrap(),
        filter: filter.as_deref(),
    };
    let openings = export.openings.as_ref().map(|openings| lines(openings));
    first_failure(&lines(&export.lines), openings.as_deref(), &asked)
}

/// Root, count and checkpoint of the lines as they are, so that nothing at the end fails before its time.
fn rooted(export: &mut Export, signer: &Signer) {
    let leaf_of = |line: &Vec<u8>| -> Hash {
        let object = parse(line).ok().and_then(|value| value.as_object().cloned());
        let left_out = object.and_then(|object| parse_hex(object.get("leaf")?.as_str()?));
        left_out.unwrap_or_else(|| leaf(line))
    };
    let leaves: Vec<Hash> = export.lines.iter().map(leaf_of).collect();
    let present = export.lines.iter().filter(|line| !line.starts_with(b"{\"leaf\"")).count();
    let root = tree_root(&leaves);
    export.checkpoint = signer.checkpoint(LEDGER, leaves.len() as u64, &root);
    export.set("to", int(leaves.len() as u64));
    export.set("count", int(present as u64));
    export.set("root", text(&hex(&root)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn threads_and_chunks_find_what_a_plain_reading_finds(
        sizes in prop::collection::vec(prop_oneof![1 => 0usize..300, 2 => 50_000usize..64_000], 10..28),
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0u8..19), 0..4),
        opening_changes in prop::collection::vec((any::<prop::sample::Index>(), 0u8..19), 0..2),
        filtered in any::<bool>(),
        mended in prop::bool::weighted(0.8),
    ) {
        let signer = Signer::new(b"differential");
        let ledger = large_ledger(&sizes);
        // The lines were changed after they were chained.
        let mut chained = ledger.clone();
        for i in 1..chained.lines.len() {
            let prev = text(&hex(&leaf(&chained.lines[i - 1])));
            chained.lines[i] = changed(&chained.lines[i], |line| drop(line.insert("prev".to_owned(), prev)));
        }
        let filter = filtered.then_some(&KEPT[..]);
        let mut export = Export::of(&signer, &chained, (0, sizes.len()), filter, true);
        prop_assert_eq!(verified(&export, &signer), None);
        prop_assert_eq!(referred(&export), None);
        for (at, how) in changes {
            let at = at.index(export.lines.len());
            spoil(&mut export.lines, at, how);
        }
        let openings = export.openings.as_mut().unwrap();
        for (at, how) in opening_changes {
            if !openings.is_empty() {
                let at = at.index(openings.len());
                spoil(openings, at, how);
            }
        }
        if mended {
            rooted(&mut export, &signer);
        }
        prop_assert_eq!(verified(&export, &signer), referred(&export));
    }
}
