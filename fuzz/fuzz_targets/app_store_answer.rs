//! Whatever App Store Connect answers: what is taken of it can be kept, and says the same when it is read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use statusledger::source::app_store::fuzzing::answer;

#[path = "../kept.rs"]
mod kept;

fuzz_target!(|body: &[u8]| {
    let look = answer(body);
    kept::check(&look);
    kept::same(&look, &answer(body));
});
