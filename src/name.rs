//! Names that people give and read: of workspaces, sources, destinations, keys, and of themselves.
//!
//! A name is shown next to others, in pages, terminals and mails. So it has something to be seen in it, nothing that is
//! not seen, and nothing that turns round how its neighbours are read (Unicode's bidirectional controls). Joiners are
//! kept where scripts and emoji need them: between two characters that are not ASCII.

/// Characters of a name, at most.
pub const LONGEST: usize = 100;

/// What is wrong with a name that is none, in words that follow the name of what it is a name of.
pub const RULE: &str = "1 to 100 characters, none of them invisible, and not blanks alone";

/// Whether it joins what stands around it (ZERO WIDTH NON-JOINER and JOINER), and is seen by that.
const fn joins(c: char) -> bool {
    matches!(c, '\u{200c}' | '\u{200d}')
}

/// Whether nothing is seen of it, or it changes how others are seen: controls, format characters, fillers, tags.
#[must_use]
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// Whether it leaves a gap and nothing else: white space, BRAILLE PATTERN BLANK.
fn is_blank(c: char) -> bool {
    c.is_whitespace() || c == '\u{2800}'
}

/// Whether `name` is one.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let characters: Vec<char> = name.chars().take(LONGEST + 1).collect();
    let foreign = |at: Option<usize>| {
        at.and_then(|at| characters.get(at)).is_some_and(|c| !c.is_ascii() && !is_blank(*c) && !joins(*c))
    };
    characters.len() <= LONGEST
        && characters.iter().any(|c| !is_blank(*c) && !joins(*c))
        && characters.iter().enumerate().all(|(at, c)| {
            if joins(*c) { foreign(at.checked_sub(1)) && foreign(Some(at + 1)) } else { !is_hidden(*c) }
        })
}

/// A name that somebody else gave, as far as it can be shown: without what is hidden, cut; none where nothing is left.
#[must_use]
pub fn cleaned(name: &str) -> Option<String> {
    let shown: String = name.trim().chars().filter(|c| !is_hidden(*c) && !joins(*c)).take(LONGEST).collect();
    let shown = shown.trim();
    is_name(shown).then(|| shown.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_seen_as_they_are() {
        for good in [
            "a",
            "Acme Weather",
            "  padded",
            "\u{30a2}\u{30af}\u{30e1}",
            "caf\u{e9}",
            "a\u{a0}b",
            "\u{1f469}\u{200d}\u{1f4bb}",
            "\u{646}\u{645}\u{6cc}\u{200c}\u{62e}\u{648}\u{627}\u{647}\u{645}",
            "\u{2764}\u{fe0f}",
        ] {
            assert!(is_name(good), "{good:?}");
        }
        assert!(is_name(&"\u{e9}".repeat(100)) && !is_name(&"a".repeat(101)));
        for bad in [
            "",
            " ",
            "\u{a0}\u{3000}",
            "\u{2800}",
            "a\nb",
            "a\u{0}",
            "\u{1b}[31mred",
            "a\u{202e}b",
            "\u{2066}a",
            "\u{feff}a",
            "a\u{200b}",
            "\u{200d}",
            "a\u{200d}b",
            "\u{e9}\u{200d}",
            "\u{200c}\u{e9}",
            "\u{1f469}\u{200d}\u{200d}\u{1f4bb}",
            "a\u{ad}b",
            "\u{3164}",
            "a\u{2028}b",
            "a\u{e0041}",
        ] {
            assert!(!is_name(bad), "{bad:?}");
        }
    }

    #[test]
    fn what_others_call_somebody_is_cleaned_and_cut() {
        assert_eq!(
            cleaned(" Ana \u{202e}\u{1b}[0m\u{0}Mart\u{ed}n\u{200b} ").as_deref(),
            Some("Ana [0mMart\u{ed}n")
        );
        assert_eq!(cleaned(&"x".repeat(400_000)).map(|name| name.len()), Some(LONGEST));
        for nothing in ["", " \u{200b} ", "\u{feff}", "\u{2800}"] {
            assert_eq!(cleaned(nothing), None, "{nothing:?}");
        }
    }
}
