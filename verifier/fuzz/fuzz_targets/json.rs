//! The strict parser, the canonical writer and the scanner answer alike on any bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use statusledger_verify::{json, scan};

fuzz_target!(|input: &[u8]| {
    let parsed = json::parse(input);
    let is_canonical = parsed.as_ref().is_ok_and(|value| value.canonical().as_bytes() == input);
    assert_eq!(scan::canonical(input).is_ok(), is_canonical);
    assert_eq!(json::is_canonical(input), is_canonical);
    let mut members = 0;
    let is_object = scan::members(input, "sealed", |_, _, _| members += 1);
    assert_eq!(is_object.is_ok(), is_canonical);
    let Ok(value) = parsed else { return };
    let canonical = value.canonical();
    assert_eq!(json::parse(canonical.as_bytes()).as_ref(), Ok(&value));
    assert_eq!(scan::canonical(canonical.as_bytes()), Ok(()));
    assert!(value.depth() <= json::MAX_DEPTH);
    let shallow = json::parse_with_depth(input, json::MAX_SEALED_DEPTH).is_ok();
    assert_eq!(shallow, value.depth() <= json::MAX_SEALED_DEPTH);
    if is_canonical {
        let by_scan = scan::canonical_with_levels(input, json::MAX_SEALED_DEPTH).is_ok();
        assert_eq!(by_scan, shallow);
        assert_eq!(is_object, Ok(value.as_object().is_some()));
        assert_eq!(members, value.as_object().map_or(0, json::Object::len));
    }
});
