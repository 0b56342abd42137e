//! A signed checkpoint that parses has one spelling.
#![no_main]

use libfuzzer_sys::fuzz_target;
use statusledger_verify::checkpoint::SignedCheckpoint;

fuzz_target!(|input: &[u8]| {
    let Ok(signed) = SignedCheckpoint::parse(input) else { return };
    let text = signed.checkpoint().text();
    assert!(input.starts_with(text.as_bytes()));
    assert!(input[text.len()..].starts_with("\n\u{2014} ".as_bytes()));
    assert_eq!(input.last(), Some(&b'\n'));
});
