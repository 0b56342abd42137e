//! Whatever is sent to a source's webhook address: a body that is taken says something that can be kept, and no signature
//! is accepted but the one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use statusledger::source::app_store::webhook::{EventKind, parse, verify};

fuzz_target!(|body: &[u8]| {
    let (header, rest) = body.split_at(body.len().min(75));
    // Of two secrets at most one has made it.
    if let Ok(header) = std::str::from_utf8(header) {
        assert!(!(verify(b"one", rest, header) && verify(b"other", rest, header)));
    }
    let Ok(event) = parse(body) else { return };
    assert_eq!(parse(body).as_ref(), Ok(&event));
    assert!(event.id.len() <= 200 && !event.id.contains('\0'));
    match event.kind {
        EventKind::State { key, from, to, .. } => {
            for text in [Some(&key), from.as_ref(), Some(&to)].into_iter().flatten() {
                assert!((1..=200).contains(&text.len()) && !text.contains('\0'));
            }
        }
        EventKind::Other { event_type, about } => {
            assert!((1..=200).contains(&event_type.len()) && !event_type.contains('\0'));
            assert!(about.is_none_or(|about| about.len() <= 200 && !about.contains('\0')));
        }
        EventKind::Ping => {}
    }
});
