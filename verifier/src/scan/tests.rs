#![allow(clippy::unwrap_used)]
use proptest::prelude::*;

use super::*;
use crate::json::{self, Object, Value};

/// What the scanner decides, by building a tree and writing it again.
fn is_canonical_by_tree(input: &[u8], levels: usize) -> bool {
    json::parse_with_depth(input, levels).is_ok_and(|value| value.canonical().as_bytes() == input)
}

fn agree(input: &[u8]) {
    let shown = String::from_utf8_lossy(input);
    for levels in [MAX_LEVELS, 24, 3] {
        let by_scan = canonical_with_levels(input, levels);
        assert_eq!(by_scan.is_ok(), is_canonical_by_tree(input, levels), "{levels} {shown} {by_scan:?}");
    }
    assert_eq!(canonical(input).is_ok(), json::is_canonical(input), "{shown}");
    for levels in [MAX_LEVELS, 3] {
        let by_tree = json::parse_with_depth(input, levels).ok().map(|value| value.canonical().into_bytes());
        assert_eq!(rewrite(input, levels), by_tree, "{levels} {shown}");
    }
    let mut seen = Vec::new();
    let by_members = members(input, "a", |name, value, inner| seen.push((name, value, inner)));
    assert_eq!(by_members.is_ok(), canonical(input).is_ok(), "{shown}");
    let Ok(is_object) = by_members else { return };
    let tree = json::parse(input).unwrap();
    assert_eq!(is_object, tree.as_object().is_some(), "{shown}");
    let literal = |name: &str| Value::String(name.to_owned()).canonical();
    let expected: Vec<_> = tree.as_object().map_or(Vec::new(), |object| {
        let inner = |value: &Value| value.as_object()?.get("a").map(Value::canonical);
        object.iter().map(|(name, value)| (literal(name), value.canonical(), inner(value))).collect()
    });
    let seen: Vec<_> = seen
        .into_iter()
        .map(|(name, value, inner)| (format!("\"{name}\""), value.to_owned(), inner.map(str::to_owned)))
        .collect();
    assert_eq!(seen, expected, "{shown}");
}

/// Characters around every boundary of UTF-8, of UTF-16 order and of the escapes.
fn character() -> impl Strategy<Value = char> {
    prop_oneof![
        4 => prop::char::range('a', 'd'),
        1 => prop::char::range('\0', '\u{22}'),
        1 => prop::sample::select(vec!['"', '\\', '/', '\u{7f}', '\u{80}', '\u{7ff}', '\u{800}', '\u{2028}']),
        1 => prop::sample::select(vec!['\u{d7ff}', '\u{e000}', '\u{fb33}', '\u{ffff}', '\u{10000}', '\u{10ffff}']),
    ]
}

fn text() -> impl Strategy<Value = String> {
    prop::collection::vec(character(), 0..20).prop_map(String::from_iter)
}

fn value() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        (-1000i64..1000).prop_map(Value::Int),
        (-json::MAX_INTEGER..=json::MAX_INTEGER).prop_map(Value::Int),
        text().prop_map(Value::String),
    ];
    scalar.prop_recursive(5, 40, 6, |inner| {
        let object = prop::collection::vec((text(), inner.clone()), 0..6).prop_map(|members| {
            let mut object = Object::new();
            for (name, value) in members {
                object.insert(name, value);
            }
            Value::Object(object)
        });
        prop_oneof![prop::collection::vec(inner, 0..6).prop_map(Value::Array), object]
    })
}

/// A change to a few bytes, which mostly ends in something that is not canonical.
fn edits() -> impl Strategy<Value = Vec<(prop::sample::Index, u8, u8)>> {
    let byte = prop_oneof![
        any::<u8>(),
        prop::sample::select(b"{}[],:\"\\0123456789-.eE ntfub/abcdefr\n\t".to_vec())
    ];
    prop::collection::vec((any::<prop::sample::Index>(), 0u8..3, byte), 1..4)
}

fn edited(mut bytes: Vec<u8>, edits: &[(prop::sample::Index, u8, u8)]) -> Vec<u8> {
    for (place, kind, byte) in edits {
        if bytes.is_empty() {
            break;
        }
        let place = place.index(bytes.len());
        match kind {
            0 => bytes[place] = *byte,
            1 => bytes.insert(place, *byte),
            _ => drop(bytes.remove(place)),
        }
    }
    bytes
}

/// A spelling of a value with white space, escapes and members in any order.
fn spread(value: &Value, seed: &mut u64) -> String {
    let mut next = |below: u64| {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*seed >> 33) % below
    };
    let space = [" ", "", "\n", "\t\r", "", ""][next(6) as usize];
    let escape = next(3) == 0;
    let literal = |text: &str| {
        if !escape {
            return Value::String(text.to_owned()).canonical();
        }
        let units: String = text.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect();
        format!("\"{units}\"")
    };
    match value {
        Value::String(text) => format!("{space}{}{space}", literal(text)),
        Value::Array(values) => {
            let values: Vec<String> = values.iter().map(|value| spread(value, seed)).collect();
            format!("{space}[{space}{}{space}]", values.join(","))
        }
        Value::Object(object) => {
            let turned = next(2) == 0;
            let mut members: Vec<String> = object
                .iter()
                .map(|(name, value)| format!("{space}{}{space}:{}", literal(name), spread(value, seed)))
                .collect();
            if turned {
                members.reverse();
            }
            format!("{space}{{{}{space}}}{space}", members.join(","))
        }
        scalar => format!("{space}{}{space}", scalar.canonical()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn whatever_a_tree_writes_is_canonical(value in value()) {
        canonical(value.canonical().as_bytes()).unwrap();
        agree(value.canonical().as_bytes());
    }

    #[test]
    fn scanner_and_tree_agree_on_documents_with_a_few_wrong_bytes(value in value(), edits in edits()) {
        agree(&edited(value.canonical().into_bytes(), &edits));
    }

    #[test]
    fn scanner_and_tree_agree_on_heaps_of_tokens(tokens in prop::collection::vec(prop::sample::select(vec![
        "{", "}", "[", "]", ",", ":", "\"\"", "\"a\"", "\"b\"", "\"\\u0001\"", "\"\u{10000}\"", "\"\u{e000}\"", "0", "-0",
        "-1", "10", "01", "9007199254740991", "9007199254740992", "1.0", "1e2", "true", "false", "null", " ", "\\",
    ]), 0..12)) {
        agree(tokens.concat().as_bytes());
    }

    #[test]
    fn a_document_is_rewritten_as_the_tree_would_be(value in value(), seed in any::<u64>()) {
        agree(spread(&value, &mut { seed }).as_bytes());
    }

    #[test]
    fn scanner_and_tree_agree_on_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        agree(&bytes);
    }
}

#[test]
fn what_stops_a_string_is_found_at_every_place_beside_every_byte() {
    for place in 0..8 {
        for byte in 0..=255u8 {
            for around in [b'!', b'#', b'a', 0x7f, 0x80, 0xff, b'[', b']'] {
                let mut eight = [around; 8];
                eight[place] = byte;
                let expected = eight.iter().position(|b| matches!(b, b'"' | b'\\' | 0..=0x1f));
                let found = stops(u64::from_le_bytes(eight));
                let first = (found != 0).then(|| found.trailing_zeros() as usize / 8);
                assert_eq!(first, expected, "{eight:?}");
            }
        }
    }
}

#[test]
fn canonical_documents_are_accepted() {
    for document in [
        "0",
        "-1",
        "9007199254740991",
        "-9007199254740991",
        "\"\"",
        "true",
        "[]",
        "{}",
        "[1,\"a\",null,{\"a\":[false]}]",
        "\"\\u0000\\u000b\\u001f\\b\\t\\n\\f\\r\\\"\\\\/\u{7f}\u{2028}\"",
        "{\"\":0,\"a\":1,\"aa\":2,\"b\":3}",
        "{\"\u{10000}\":0,\"\u{e000}\":1}",
        "{\"\\n\":0,\"\\r\":0,\"1\":0,\"\\\\\":0,\"\u{80}\":0,\"\u{f6}\":0,\"\u{20ac}\":0,\"\u{1f600}\":0,\"\u{fb33}\":0}",
    ] {
        assert_eq!(canonical(document.as_bytes()), Ok(()), "{document}");
        agree(document.as_bytes());
    }
}

#[test]
fn documents_that_are_not_canonical_are_refused_with_their_place() {
    let refused = |document: &str, offset: usize, what: &str| {
        let fault = canonical(document.as_bytes()).unwrap_err();
        assert_eq!((fault.offset, fault.what), (offset, what), "{document}");
        agree(document.as_bytes());
    };
    refused("", 0, "the document ends early");
    refused(" 1", 0, "not a value in canonical form");
    refused("1 ", 1, "something after the document");
    refused("\u{feff}1", 0, "not a value in canonical form");
    refused("-0", 0, "a negative zero");
    refused("-", 0, "a number without digits");
    refused("1.0", 0, "a number that is not written as an integer");
    refused("1e2", 0, "a number that is not written as an integer");
    refused("[01]", 1, "a number with a leading zero");
    refused("9007199254740992", 0, "an integer beyond 2^53-1");
    refused("-9007199254740992", 0, "an integer beyond 2^53-1");
    refused(&"9".repeat(400), 0, "an integer beyond 2^53-1");
    refused("{\"a\":1,\"a\":1}", 7, "a duplicate member");
    refused("{\"b\":1,\"a\":1}", 7, "members out of order");
    refused("{\"\u{e000}\":0,\"\u{10000}\":1}", 9, "members out of order");
    refused("\"\\ud800\"", 1, "an escape that is not in canonical form");
    refused("\"\\u0061\"", 1, "an escape that is not in canonical form");
    refused("\"\\u001F\"", 1, "an escape that is not in canonical form");
    refused("\"\\u0008\"", 1, "an escape that is not in canonical form");
    refused("\"\\/\"", 1, "an escape that is not in canonical form");
    refused("\"\\", 1, "an escape that is not in canonical form");
    refused("\"a\nb\"", 2, "a control character that is not escaped");
    refused("\"abcdefghijk", 12, "a string without an end");
    refused("[1,]", 3, "not a value in canonical form");
    refused("[1", 2, "neither comma nor end of array");
    refused("{\"a\"}", 4, "no colon after a member name");
    refused("{1:2}", 1, "not a member name");
    refused("nul", 0, "not a value in canonical form");
    assert_eq!(canonical(b"\"\xed\xa0\x80\"").unwrap_err().what, "invalid UTF-8");
    assert_eq!(canonical(b"\"\xc0\x80\"").unwrap_err().what, "invalid UTF-8");
}

#[test]
fn levels_are_counted_from_the_outermost_container() {
    let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels)).into_bytes();
    assert_eq!(canonical(&nested(32)), Ok(()));
    assert_eq!(canonical(&nested(33)).unwrap_err(), Fault { what: "too many levels", offset: 32 });
    assert_eq!(canonical(&nested(10_000)).unwrap_err().what, "too many levels");
    assert_eq!(canonical_with_levels(b"1", 0), Ok(()));
    assert!(canonical_with_levels(b"[]", 0).is_err());
    // Both objects that `members` walks itself count as well.
    let below = |levels: usize| [b"{\"a\":{\"b\":", &*nested(levels), b"}}"].concat();
    assert_eq!(members(&below(30), "b", |_, _, _| ()), Ok(true));
    assert_eq!(members(&below(31), "b", |_, _, _| ()).unwrap_err().what, "too many levels");
    agree(&below(30));
    agree(&below(31));
}
