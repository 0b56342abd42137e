//! A body is read or refused, and what it says of itself does not depend on how it is serialised.
#![no_main]

use libfuzzer_sys::fuzz_target;
use statusledger_verify::json;
use statusledger_verify::receipt::Receipt;

fuzz_target!(|input: &[u8]| {
    let Ok(receipt) = Receipt::parse(input) else { return };
    let canonical = json::parse(input).expect("it was just read").canonical();
    let again = Receipt::parse(canonical.as_bytes()).expect("it means the same");
    assert_eq!(again.facts(), receipt.facts());
});
