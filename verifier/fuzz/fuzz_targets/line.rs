//! A line of `entries.jsonl` that is accepted is canonical, small and has an entry's members, and no others are.
#![no_main]

use libfuzzer_sys::fuzz_target;
use statusledger_verify::{export, json};

fuzz_target!(|input: &[u8]| {
    if !export::fuzzing::line(input) {
        return;
    }
    assert!(input.len() <= 65_535);
    let value = json::parse(input).expect("a line that is accepted is JSON");
    assert_eq!(value.canonical().as_bytes(), input);
    let object = value.as_object().expect("a line that is accepted is an object");
    let names: Vec<&str> = object.iter().map(|(name, _)| name).collect();
    let entry = ["data", "ledger", "nonce", "prev", "seq", "timestamp", "type", "v"];
    assert!(names == entry || names == ["leaf", "seq"], "{names:?}");
    assert!(object.get("seq").and_then(json::Value::as_u64).is_some());
});
