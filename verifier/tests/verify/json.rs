//! Strict JSON: the published vectors, two other implementations as oracles, and what must be refused.

use proptest::prelude::*;
use statusledger_verify::json::{self, ErrorKind, MAX_INTEGER, Object, Value};
use statusledger_verify::scan;

use crate::common::{nested, shared};

#[test]
fn the_published_vectors_match_or_are_refused_for_their_fractions() {
    let Some(directory) = shared("vectors/jcs") else { return };
    let mut seen = 0;
    for entry in std::fs::read_dir(directory.join("input")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let input = std::fs::read(directory.join("input").join(&name)).unwrap();
        let output = std::fs::read(directory.join("output").join(&name)).unwrap();
        let hex =
            std::fs::read_to_string(directory.join("outhex").join(name.replace(".json", ".txt"))).unwrap();
        let bytes: Vec<u8> =
            hex.split_whitespace().map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect();
        assert_eq!(bytes, output, "{name}");
        seen += 1;
        if ["structures.json", "values.json"].contains(&name.as_str()) {
            assert_eq!(*json::parse(&input).unwrap_err().kind(), ErrorKind::NotAnInteger, "{name}");
            continue;
        }
        let value = json::parse(&input).unwrap();
        assert_eq!(value.canonical().as_bytes(), output, "{name}");
        assert_eq!(json::parse(&output).unwrap(), value);
        assert!(json::is_canonical(&output) && scan::canonical(&output).is_ok());
        assert!(!json::is_canonical(&input) && scan::canonical(&input).is_err());
    }
    assert_eq!(seen, 6);
}

#[test]
fn what_cannot_be_carried_without_loss_is_refused() {
    use ErrorKind::*;
    let deep = "[".repeat(10_000) + &"]".repeat(10_000);
    let objects = "{\"a\":".repeat(10_000) + "1" + &"}".repeat(10_000);
    let cases: Vec<(Vec<u8>, ErrorKind)> = [
        ("", UnexpectedEnd),
        (" ", UnexpectedEnd),
        ("\u{feff}{}", ByteOrderMark),
        ("{} {}", TrailingData),
        ("{}x", TrailingData),
        ("{}\0", TrailingData),
        ("1e2", NotAnInteger),
        ("1E2", NotAnInteger),
        ("1.0", NotAnInteger),
        ("-1.5", NotAnInteger),
        ("0.0", NotAnInteger),
        ("0e0", NotAnInteger),
        ("-0", NegativeZero),
        ("-0.0", NotAnInteger),
        ("[-0]", NegativeZero),
        ("01", LeadingZero),
        ("00", LeadingZero),
        ("-01", LeadingZero),
        ("9007199254740992", IntegerTooLarge),
        ("-9007199254740992", IntegerTooLarge),
        ("99999999999999999999999999999999999999", IntegerTooLarge),
        ("-", UnexpectedEnd),
        ("+1", UnexpectedByte(b'+')),
        (".5", UnexpectedByte(b'.')),
        ("-a", UnexpectedByte(b'a')),
        ("NaN", UnexpectedByte(b'N')),
        ("nul", UnexpectedEnd),
        ("nulL", UnexpectedByte(b'L')),
        ("True", UnexpectedByte(b'T')),
        ("'a'", UnexpectedByte(b'\'')),
        ("{a:1}", UnexpectedByte(b'a')),
        ("{\"a\" 1}", UnexpectedByte(b'1')),
        ("{\"a\":1,}", UnexpectedByte(b'}')),
        ("{,}", UnexpectedByte(b',')),
        ("[1,]", UnexpectedByte(b']')),
        ("[1 2]", UnexpectedByte(b'2')),
        ("[1}", UnexpectedByte(b'}')),
        ("{\"a\":1]", UnexpectedByte(b']')),
        ("[", UnexpectedEnd),
        ("{\"a\":", UnexpectedEnd),
        ("/**/1", UnexpectedByte(b'/')),
        ("\u{a0}1", UnexpectedByte(0xC2)),
        ("\u{c}1", UnexpectedByte(0xC)),
        ("\"a", UnexpectedEnd),
        ("\"\n\"", ControlCharacter),
        ("\"\u{1f}\"", ControlCharacter),
        ("\"\0\"", ControlCharacter),
        ("\"\\x41\"", InvalidEscape),
        ("\"\\u12g4\"", InvalidEscape),
        ("\"\\u+123\"", InvalidEscape),
        ("\"\\U0041\"", InvalidEscape),
        ("\"\\ud800\"", LoneSurrogate),
        ("\"\\udc00\"", LoneSurrogate),
        ("\"\\ud800\\u0041\"", LoneSurrogate),
        ("\"\\ud800\\ud800\"", LoneSurrogate),
        ("\"\\udc00\\ud800\"", LoneSurrogate),
        ("\"\\ud800x\"", LoneSurrogate),
        ("{\"\\ud834\":1}", LoneSurrogate),
        ("{\"a\":1,\"a\":1}", DuplicateMember("a".into())),
        ("{\"a\":1,\"b\":2,\"a\":3}", DuplicateMember("a".into())),
        ("{\"a\":1,\"\\u0061\":2}", DuplicateMember("a".into())),
        ("[{\"x\":{\"\":1,\"\":1}}]", DuplicateMember(String::new())),
        ("{\"\\ud83d\\ude02\":1,\"😂\":2}", DuplicateMember("😂".into())),
        (deep.as_str(), TooDeep(32)),
        (objects.as_str(), TooDeep(32)),
    ]
    .into_iter()
    .map(|(input, kind)| (input.as_bytes().to_vec(), kind))
    .chain([
        (b"\"\xff\"".to_vec(), InvalidUtf8),
        (b"\"\xc0\x80\"".to_vec(), InvalidUtf8),
        (b"\"\xed\xa0\x80\"".to_vec(), InvalidUtf8),
        (b"\"\xf4\x90\x80\x80\"".to_vec(), InvalidUtf8),
        (b"{}\xff".to_vec(), InvalidUtf8),
        (b"\xff\xfe{\0}\0".to_vec(), InvalidUtf8),
    ])
    .collect();
    for (input, kind) in cases {
        let shown = String::from_utf8_lossy(&input[..input.len().min(40)]).into_owned();
        assert_eq!(*json::parse(&input).unwrap_err().kind(), kind, "{shown}");
        assert!(!json::is_canonical(&input), "{shown}");
        assert!(scan::canonical(&input).is_err(), "{shown}");
    }
}

#[test]
fn the_largest_numbers_and_the_deepest_documents_are_read() {
    for integer in [0, -1, MAX_INTEGER, -MAX_INTEGER] {
        let text = integer.to_string();
        assert_eq!(json::parse(text.as_bytes()).unwrap(), Value::Int(integer));
        assert!(json::is_canonical(text.as_bytes()));
    }
    for (depth, allowed) in [(32, true), (33, false)] {
        let text = nested(depth).canonical();
        assert_eq!(nested(depth).depth(), depth);
        assert_eq!(json::parse(text.as_bytes()).is_ok(), allowed);
        assert_eq!(json::is_canonical(text.as_bytes()), allowed);
        assert_eq!(json::parse_with_depth(text.as_bytes(), 24).is_ok(), depth <= 24);
    }
    // Scalars and empty brackets: the brackets are a level, the scalars none.
    let inner = "[".repeat(31) + "{}" + &"]".repeat(31);
    assert!(json::parse(inner.as_bytes()).is_ok());
    let inner = "[".repeat(32) + "{}" + &"]".repeat(32);
    assert!(json::parse(inner.as_bytes()).is_err());
}

#[test]
fn objects_of_many_members_take_time_in_proportion() {
    // 400,000 members in falling order, and then one twice: quadratic work would take minutes.
    let mut text = String::from("{");
    for member in (0..400_000).rev() {
        text += &format!("\"{member:06}\":0,");
    }
    let whole = format!("{}}}", text.trim_end_matches(','));
    assert_eq!(json::parse(whole.as_bytes()).unwrap().as_object().unwrap().len(), 400_000);
    let twice = format!("{text}\"123456\":1}}");
    let error = json::parse(twice.as_bytes()).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::DuplicateMember("123456".to_owned()));
}

#[test]
fn members_come_in_the_order_of_their_utf_16_units() {
    // U+10000 and above have surrogates, which come before U+E000 and above.
    let names =
        ["\u{e000}", "\u{10000}", "\u{ffff}", "\u{d7ff}", "a", "", "\u{10ffff}", "\u{fb33}", "a\u{e000}"];
    let mut by_units = names;
    by_units.sort_by_key(|name| name.encode_utf16().collect::<Vec<_>>());
    let mut object = Object::new();
    for name in names {
        assert_eq!(object.insert(name.to_owned(), Value::Null), None);
    }
    assert!(object.iter().map(|(name, _)| name).eq(by_units));
    assert_eq!(object.insert("a".to_owned(), Value::Int(1)), Some(Value::Null));
    assert_eq!(object.remove("a"), Some(Value::Int(1)));
    assert_eq!(object.get("a"), None);
}

/// Values of the restricted kind.
fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        (-MAX_INTEGER..=MAX_INTEGER).prop_map(Value::Int),
        strings().prop_map(Value::String),
    ];
    leaf.prop_recursive(6, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::Array),
            prop::collection::vec((strings(), inner), 0..8).prop_map(|members| {
                let mut object = Object::new();
                for (name, value) in members {
                    object.insert(name, value);
                }
                Value::Object(object)
            }),
        ]
    })
}

/// Strings where the orders by bytes and by UTF-16 units differ, and escapes are needed.
fn strings() -> impl Strategy<Value = String> {
    let characters = prop_oneof![
        any::<char>(),
        prop::char::range('\0', '\u{7f}'),
        prop::char::range('\u{d000}', '\u{d7ff}'),
        prop::char::range('\u{e000}', '\u{ffff}'),
        prop::char::range('\u{10000}', '\u{10ffff}'),
    ];
    prop::collection::vec(characters, 0..6).prop_map(|characters| characters.into_iter().collect())
}

proptest! {
    #[test]
    fn what_is_written_is_canonical_and_reads_back(value in values()) {
        let text = value.canonical();
        prop_assert_eq!(json::parse(text.as_bytes()).unwrap(), value);
        prop_assert!(json::is_canonical(text.as_bytes()));
        prop_assert!(scan::canonical(text.as_bytes()).is_ok());
    }

    #[test]
    fn two_other_implementations_write_the_same(value in values()) {
        let text = value.canonical();
        let other: serde_json::Value = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(serde_jcs::to_string(&other).unwrap(), text.clone());
        prop_assert_eq!(serde_json_canonicalizer::to_string(&other).unwrap(), text);
    }

    #[test]
    fn white_space_and_escapes_change_nothing(value in values()) {
        let other: serde_json::Value = serde_json::from_str(&value.canonical()).unwrap();
        let pretty = serde_json::to_string_pretty(&other).unwrap();
        prop_assert_eq!(&json::parse(pretty.as_bytes()).unwrap(), &value);
        let mut ascii = String::new();
        for unit in value.canonical().encode_utf16() {
            match u8::try_from(unit) {
                Ok(byte) if byte < 0x7f => ascii.push(char::from(byte)),
                _ => ascii += &format!("\\u{unit:04X}"),
            }
        }
        prop_assert_eq!(json::parse(ascii.as_bytes()).unwrap(), value);
    }

    #[test]
    fn whatever_the_bytes_nothing_panics_and_canonical_means_canonical(
        mut input in values().prop_map(|value| value.canonical().into_bytes()),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
    ) {
        for (index, byte) in changes {
            let index = index.index(input.len());
            input[index] = byte;
        }
        let parsed = json::parse(&input);
        let is_canonical = parsed.is_ok_and(|value| value.canonical().as_bytes() == input);
        prop_assert_eq!(json::is_canonical(&input), is_canonical);
        prop_assert_eq!(scan::canonical(&input).is_ok(), is_canonical);
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(input in prop::collection::vec(any::<u8>(), 0..64)) {
        let is_canonical = json::parse(&input).is_ok_and(|value| value.canonical().as_bytes() == input);
        prop_assert_eq!(json::is_canonical(&input), is_canonical);
    }

    #[test]
    fn whatever_is_accepted_serde_reads_alike(input in "[\\[\\]{}:,\"0-9eE.a\\\\u +-]{0,24}") {
        // The oracle keeps the last of duplicate members and rounds; what we accept it must accept with one meaning.
        if let Ok(value) = json::parse(input.as_bytes()) {
            let other: serde_json::Value = serde_json::from_str(&input).unwrap();
            prop_assert_eq!(serde_jcs::to_string(&other).unwrap(), value.canonical());
        }
    }
}
