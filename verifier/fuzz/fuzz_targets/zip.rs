//! The members of a zip that is accepted do not overlap and lie in the file, in order.
#![no_main]

use std::io::{Seek, Write};

use libfuzzer_sys::fuzz_target;
use statusledger_verify::export::fuzzing::directory;

thread_local! {
    static FILE: std::fs::File = tempfile::tempfile_in("/dev/shm").or_else(|_| tempfile::tempfile()).expect("a file");
}

fuzz_target!(|input: &[u8]| {
    FILE.with(|mut file| {
        file.set_len(0).expect("the file can be emptied");
        file.rewind().expect("the file can be rewound");
        file.write_all(input).expect("the file can be written");
        let Some(members) = directory(file) else { return };
        let mut end = 0;
        for (name, offset, length) in members {
            // A local header and its name stand before the data.
            assert!(offset >= end + 30 + name.len() as u64, "{name}");
            end = offset + length;
            assert!(end < input.len() as u64, "{name}");
        }
    });
});
