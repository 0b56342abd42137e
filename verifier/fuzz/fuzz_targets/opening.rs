//! A line of `openings.jsonl` means the same by the way of the scanner and by the way of the tree.
#![no_main]

use libfuzzer_sys::fuzz_target;
use statusledger_verify::{export::fuzzing::opening, json};

fuzz_target!(|input: &[u8]| {
    let line = [input, b"\n"].concat();
    let found = opening(&line);
    assert_eq!(opening(input).is_some(), input.ends_with(b"\n") && opening(input).is_some());
    if input.contains(&b'\n') {
        return;
    }
    let Ok(value) = json::parse(input) else {
        assert_eq!(found, None);
        return;
    };
    // White space before the document is not canonical, so this goes by the tree, the canonical form by the scanner.
    let by_tree = opening(&[b" ", input, b"\n"].concat());
    let by_scanner = opening(format!("{}\n", value.canonical()).as_bytes());
    assert_eq!(by_tree, by_scanner.clone());
    assert_eq!(found, by_scanner);
});
