//! A key manifest is read or refused, and no made-up one is trusted under another's pin.
#![no_main]

use libfuzzer_sys::fuzz_target;
use statusledger_verify::manifest::{KeyManifest, MAX_KEYS, Pin, compare};

fuzz_target!(|input: &[u8]| {
    if let Ok(text) = std::str::from_utf8(input)
        && let Ok(pin) = text.parse::<Pin>()
    {
        assert_eq!(pin.to_string(), text);
    }
    let Ok(manifest) = KeyManifest::parse(input) else { return };
    assert!(manifest.serial >= 1 && manifest.keys.len() <= MAX_KEYS);
    assert!(compare(&manifest, &manifest).is_ok());
    let pin = Pin { key_id: [0; 32], instance: manifest.instance.clone() };
    assert!(manifest.trust(&pin).is_err());
});
