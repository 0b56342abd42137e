//! The checks of an export's lines as the formats list them, one line after the other, by trees and maps: slow, plain
//! and written apart from the verifier, which has to answer the same.

use std::collections::HashMap;

use statusledger_verify::encoding::{hex, parse_base64_array, parse_hex};
use statusledger_verify::json::{self, Object, Value};
use statusledger_verify::time::Timestamp;
use statusledger_verify::{Check, Hash};

use super::{leaf, sha256, tree_root};

/// What the manifest says, of an export from 0.
pub struct Asked<'a> {
    pub ledger: &'a str,
    pub to: u64,
    pub count: u64,
    pub root: Hash,
    pub filter: Option<&'a [&'a str]>,
}

/// The check that fails first, with the line's seq where it is one by line.
pub fn first_failure(
    entries: &[u8],
    openings: Option<&[u8]>,
    asked: &Asked<'_>,
) -> Option<(Check, Option<u64>)> {
    let (mut leaves, mut present, mut last_time) = (Vec::new(), 0, String::new());
    let mut sealed = HashMap::new();
    for (i, line) in entries.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let seq = i as u64;
        let failed = |check| Some((check, Some(seq)));
        let Some(line) = line.strip_suffix(b"\n").filter(|line| line.len() <= 65_535) else {
            return failed(Check::NotCanonical);
        };
        let Some(value) = json::parse(line).ok().filter(|value| value.canonical().as_bytes() == line) else {
            return failed(Check::NotCanonical);
        };
        let Some(object) = value.as_object() else { return failed(Check::Members) };
        let names: Vec<&str> = object.iter().map(|(name, _)| name).collect();
        let is_entry = names == ["data", "ledger", "nonce", "prev", "seq", "timestamp", "type", "v"];
        let shape = if is_entry { entry_shape(object) } else { left_out_shape(object, &names) };
        if shape.is_none() {
            return failed(Check::Members);
        }
        // Nor is there a place for a line of `to` or later.
        if object.get("seq").and_then(Value::as_u64) != Some(seq) || seq >= asked.to {
            return failed(Check::Seq);
        }
        if !is_entry {
            if asked.filter.is_none() {
                return failed(Check::Filter);
            }
            leaves.push(parse_hex(member(object, "leaf")?).unwrap());
            continue;
        }
        if member(object, "ledger")? != asked.ledger {
            return failed(Check::Ledger);
        }
        if member(object, "prev")? != hex(leaves.last().unwrap_or(&[0; 32])) {
            return failed(Check::Link);
        }
        let time = member(object, "timestamp")?;
        if time < last_time.as_str() {
            return failed(Check::Time);
        }
        last_time = time.to_owned();
        if asked.filter.is_some_and(|types| !types.contains(&member(object, "type").unwrap())) {
            return failed(Check::Filter);
        }
        let data = object.get("data").and_then(Value::as_object)?;
        if let Some(hashes) = data.get("sealed").and_then(Value::as_object) {
            for (name, hash) in hashes.iter() {
                sealed.insert((seq, name.to_owned()), parse_hex(hash.as_str()?)?);
            }
        }
        present += 1;
        leaves.push(leaf(line));
    }
    if leaves.len() as u64 != asked.to || present != asked.count {
        return Some((Check::Count, None));
    }
    if tree_root(&leaves) != asked.root {
        return Some((Check::Root, None));
    }
    let openings = openings.unwrap_or_default();
    let mut last = None;
    for line in openings.split_inclusive(|byte| *byte == b'\n') {
        let opened = open(line);
        let matches = opened.as_ref().is_some_and(|(at, hash)| sealed.get(at) == Some(hash));
        let at = opened.map(|(at, _)| at);
        if !matches || at <= last {
            return Some((Check::Openings, None));
        }
        last = at;
    }
    None
}

fn member<'a>(object: &'a Object, name: &str) -> Option<&'a str> {
    object.get(name)?.as_str()
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

fn entry_shape(entry: &Object) -> Option<()> {
    let uuid = member(entry, "ledger")?;
    let groups: Vec<usize> = uuid.split('-').map(str::len).collect();
    let is_uuid = groups == [8, 4, 4, 4, 12]
        && uuid.chars().all(|c| c == '-' || c.is_ascii_digit() || ('a'..='f').contains(&c));
    let is_type = member(entry, "type")?.split('.').all(is_name);
    let is_one = entry.get("v")?.as_int() == Some(1);
    entry.get("seq")?.as_u64()?;
    parse_hex(member(entry, "prev")?)?;
    parse_base64_array::<16>(member(entry, "nonce")?)?;
    member(entry, "timestamp")?.parse::<Timestamp>().ok()?;
    if let Some(sealed) = entry.get("data")?.as_object()?.get("sealed") {
        for (name, hash) in sealed.as_object()?.iter() {
            is_name(name).then_some(())?;
            parse_hex(hash.as_str()?)?;
        }
    }
    (is_uuid && is_type && is_one).then_some(())
}

fn left_out_shape(line: &Object, names: &[&str]) -> Option<()> {
    parse_hex(member(line, "leaf")?)?;
    line.get("seq")?.as_u64()?;
    (names == ["leaf", "seq"]).then_some(())
}

fn open(line: &[u8]) -> Option<((u64, String), Hash)> {
    let line = line.strip_suffix(b"\n").filter(|line| line.len() <= 8 << 20)?;
    let value = json::parse(line).ok()?;
    let object = value.as_object()?;
    let names: Vec<&str> = object.iter().map(|(name, _)| name).collect();
    let value = object.get("value").filter(|value| value.depth() <= 24)?;
    let salt = parse_base64_array::<32>(member(object, "salt")?)?;
    let at = (object.get("seq")?.as_u64()?, member(object, "name")?.to_owned());
    (names == ["name", "salt", "seq", "value"]).then_some(())?;
    Some((at, sha256(&[&[2], &salt, value.canonical().as_bytes()])))
}
