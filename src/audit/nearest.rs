//! Actions that are asked for by name, and what may have been meant by one that does not exist.

use super::Action;

impl Action {
    /// Whether `asked` is the code of an action, or the beginning of one where `.*` stands at its end.
    #[must_use]
    pub fn is_asked_for(asked: &str) -> bool {
        match asked.strip_suffix('*') {
            Some(start) => Self::ALL.iter().any(|action| action.code().starts_with(start)),
            None => Self::ALL.iter().any(|action| action.code() == asked),
        }
    }

    /// The codes that come nearest to `asked`, which is none: at most three.
    #[must_use]
    pub fn nearest(asked: &str) -> Vec<&'static str> {
        let asked = asked.trim_end_matches('*').trim_end_matches('.');
        // Half of what was meant is often right: each half counts as well as the whole.
        let distance = |code: &'static str| {
            let (of, what) = code.split_once('.').unwrap_or((code, code));
            let half = match asked.split_once('.') {
                Some((before, after)) => edits(before, of).min(edits(after, what)),
                None => edits(asked, of).min(edits(asked, what)),
            };
            edits(asked, code).min(half + 1)
        };
        let mut codes: Vec<_> = Self::ALL.iter().map(|action| action.code()).collect();
        codes.sort_by_key(|code| (distance(code), edits(asked, code)));
        codes.truncate(3);
        codes
    }
}

/// How many characters have to be put in, taken out or replaced to make `b` of `a` (Levenshtein).
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut above_left = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let replaced = above_left + usize::from(x != y);
            above_left = row[j + 1];
            row[j + 1] = replaced.min(above_left + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_that_is_none_has_others_near_it() {
        for asked in ["key.created", "key.*", "session.*", "session.sign*"] {
            assert!(Action::is_asked_for(asked), "{asked}");
        }
        for (asked, near) in [
            ("nonsense", None),
            ("key.create", Some("key.created")),
            ("keys.*", Some("key.created")),
            ("keys.revoked", Some("key.revoked")),
            ("member.demoted", Some("member.removed")),
            ("signed_in", Some("session.signed_in")),
        ] {
            assert!(!Action::is_asked_for(asked), "{asked}");
            let nearest = Action::nearest(asked);
            assert_eq!(nearest.len(), 3);
            assert!(near.is_none_or(|near| nearest.contains(&near)), "{asked}: {nearest:?}");
        }
        assert_eq!((edits("", "abc"), edits("kitten", "sitting"), edits("a", "a")), (3, 3, 0));
    }
}
