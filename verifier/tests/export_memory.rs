//! However large an export is, and whatever is in it, verifying takes less than 256 MiB. One test, in a process of its
//! own, since what is measured is the process's peak.
#![allow(clippy::unwrap_used)]

mod export_support;

use std::io::Write;
use std::path::Path;

use export_support::zip::{self, Member};
use export_support::*;
use statusledger_verify::Check;
use statusledger_verify::encoding::{base64, hex};
use statusledger_verify::export::{self, Error, Options};
use statusledger_verify::json::Value;

const LIMIT_KIB: u64 = 256 * 1024;

/// Sets the peak back to what is in use now; false where the kernel does not offer it.
fn reset_peak() -> bool {
    std::fs::write("/proc/self/clear_refs", "5").is_ok() && peak_kib().is_some()
}

fn peak_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Verifies a file and answers with the check that failed and the peak meanwhile.
fn measured(file: &Path, signer: &Signer) -> (Option<Check>, u64) {
    assert!(reset_peak());
    let answer = export::verify(file, &signer.pin(), None, &Options::default(), &|_, _| ());
    let peak = peak_kib().unwrap();
    match answer {
        Ok(_) => (None, peak),
        Err(Error::Failed(failure)) => (Some(failure.check), peak),
        Err(Error::Io(error)) => panic!("{error}"),
    }
}

/// A ledger of one entry that seals `values` values, each of 8 MiB of `unit`, and its openings as they are written.
fn large_openings(unit: &str, values: usize, canonical_lines: bool) -> (Ledger, Vec<u8>) {
    let mut ledger = Ledger::default();
    ledger.append("a", &[("v0", int(0))]);
    let length = (8 << 20) - 200;
    let value = format!("[{}{unit}]", format!("{unit},").repeat(length / (unit.len() + 1) - 1));
    let (mut openings, mut sealed) = (Vec::new(), statusledger_verify::json::Object::new());
    for i in 0..values {
        let salt = sha256(&[&i.to_be_bytes()]);
        sealed.insert(format!("v{i}"), text(&hex(&sha256(&[&[2], &salt, value.as_bytes()]))));
        let space = if canonical_lines { "" } else { " " };
        writeln!(openings, r#"{{"name":"v{i}",{space}"salt":"{}","seq":0,"value":{value}}}"#, base64(&salt))
            .unwrap();
    }
    let mut entry = statusledger_verify::json::parse(&ledger.lines[0]).unwrap().as_object().unwrap().clone();
    entry.insert("data".to_owned(), Value::Object(object([("sealed", Value::Object(sealed))])));
    ledger.lines[0] = canonical(&entry);
    (ledger, openings)
}

#[test]
fn no_export_takes_more_than_256_mib() {
    if !reset_peak() {
        let _ = writeln!(std::io::stdout().lock(), "the kernel does not tell the peak here: skipped");
        return;
    }
    let signer = Signer::new(b"memory");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("export.zip");

    // Tens of MiB of entries take no more than a few.
    {
        let ledger = Ledger::of(30_000);
        let export = Export::of(&signer, &ledger, (0, 30_000), None, true);
        drop(ledger);
        std::fs::write(&path, export.zip(&signer)).unwrap();
        assert!(std::fs::metadata(&path).unwrap().len() > 10 << 20);
        drop(export);
        assert!(reset_peak());
        let before = peak_kib().unwrap();
        let (failed, peak) = measured(&path, &signer);
        assert_eq!(failed, None);
        assert!(peak - before < 16 * 1024, "{before} {peak}");
    }

    // Openings as large as they may be, in the shapes that cost a tree the most.
    for (unit, canonical_lines) in [("[1]", true), ("[1]", false), ("{\"\":[1]}", false)] {
        let (ledger, openings) = large_openings(unit, 5, canonical_lines);
        let export = Export::of(&signer, &ledger, (0, 1), None, false);
        let mut members: Vec<Member> =
            export.members(&signer).into_iter().map(|(name, data)| Member::stored(&name, data)).collect();
        members.insert(1, Member::deflated("openings.jsonl", &openings));
        drop(openings);
        std::fs::write(&path, zip::write(&members)).unwrap();
        drop(members);
        let (failed, peak) = measured(&path, &signer);
        assert_eq!(failed, None, "{unit}");
        assert!(peak < LIMIT_KIB, "{unit} {canonical_lines}: {peak} KiB");
    }

    // Much from little.
    for name in ["entries.jsonl", "openings.jsonl", "checkpoint", "keys.json", "manifest.json"] {
        for filling in [b"0", b"\n", b"["] {
            let export = Export::of(&signer, &Ledger::of(3), (0, 3), None, true);
            let members = export.members(&signer).into_iter().map(|(of, data)| {
                if of == name {
                    Member::deflated(&of, &filling.repeat(40 << 20))
                } else {
                    Member::stored(&of, data)
                }
            });
            let zip = zip::write(&members.collect::<Vec<_>>());
            assert!(zip.len() < 200_000);
            std::fs::write(&path, zip).unwrap();
            let (failed, peak) = measured(&path, &signer);
            assert!(failed.is_some(), "{name}");
            assert!(peak < LIMIT_KIB, "{name}: {peak} KiB");
        }
    }
}
