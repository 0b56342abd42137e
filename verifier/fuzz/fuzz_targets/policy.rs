//! A policy is read or refused; nobody meets one whose quorum is somebody.
#![no_main]

use libfuzzer_sys::fuzz_target;
use statusledger_verify::policy::Policy;

fuzz_target!(|input: &[u8]| {
    let Ok(policy) = Policy::parse(input) else { return };
    assert_eq!(policy.is_met_by([]), policy.is_quorum_none());
});
