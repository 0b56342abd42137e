//! What has to hold of everything that is taken from a store.

use statusledger::source::look::{Look, MAX_POLL};

/// The most that an entry's subject, description and facts may take together of its 64 KiB, in bytes of canonical JSON:
/// the envelope and the other state have the rest.
const ROOM: usize = 60 << 10;

/// Every observation can be a row and an entry; every poll a row.
pub fn check(look: &Look) {
    for seen in &look.observations {
        for text in [&seen.key, &seen.state, &seen.app, &seen.scope] {
            assert!((1..=1000).contains(&text.len()), "{} bytes", text.len());
            assert!(!text.contains('\0'));
        }
        let described = seen.description.iter().map(|(name, value)| name.len() + value.canonical().len() + 4);
        let facts = seen.facts.iter().map(|(name, value)| name.len() + value.canonical().len() + 4);
        let whole: usize = described.chain(facts).sum();
        assert!(whole <= ROOM, "{whole} bytes of {:?}", seen.kind);
    }
    for poll in &look.polls {
        assert!(poll.chars().count() <= MAX_POLL && !poll.contains('\0'));
    }
}

/// Two looks at one answer agree.
pub fn same(one: &Look, other: &Look) {
    assert_eq!(format!("{one:?}"), format!("{other:?}"));
}
