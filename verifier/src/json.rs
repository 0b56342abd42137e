//! Strict JSON in, canonical JSON (RFC 8785) out.
//!
//! RFC 8785 leaves to the parser what happens to documents that it cannot carry without loss; libraries then keep
//! the last of duplicate members or round an integer. Whoever verifies must not repair, so this parser is our own:
//! it rejects a document with a duplicate member (compared after unescaping), a number that is not written as an
//! integer with |n| <= 2^53-1 (no fraction, no exponent, no leading zero, no `-0`), a lone surrogate, invalid
//! UTF-8, a byte order mark, anything after the document, or too many levels. What is left needs no floating
//! point, so the output side of RFC 8785 is: no white space, members in the order of their UTF-16 code units, the
//! shortest escapes.
//!
//! Levels are arrays and objects; the outermost is level 1 and scalars add none. Recursion is bounded by them.

mod canonical;
mod parse;

pub use canonical::{is_canonical, write_canonical_string};
pub use parse::{parse, parse_with_depth};

use std::cmp::Ordering;
use std::fmt;

/// The most levels that a document may have.
pub const MAX_DEPTH: usize = 32;

/// The most levels that a sealed value may have: in a body or an openings line it stands below others.
pub const MAX_SEALED_DEPTH: usize = 24;

/// The largest magnitude of a number: 2^53-1, beyond which a double no longer tells integers apart.
pub const MAX_INTEGER: i64 = 9_007_199_254_740_991;

/// A JSON value of the restricted kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// An integer with |n| <= [`MAX_INTEGER`] where it was parsed.
    Int(i64),
    /// A string, unescaped.
    String(String),
    /// An array.
    Array(Vec<Value>),
    /// An object.
    Object(Object),
}

impl Value {
    /// The canonical form (RFC 8785).
    pub fn canonical(&self) -> String {
        let mut out = Vec::new();
        self.write_canonical(&mut out);
        String::from_utf8(out).expect("canonical JSON is made of whole strings")
    }

    /// Appends the canonical form (RFC 8785).
    pub fn write_canonical(&self, out: &mut Vec<u8>) {
        canonical::write_value(self, out);
    }

    /// The string, where it is one.
    pub fn as_str(&self) -> Option<&str> {
        if let Self::String(string) = self { Some(string) } else { None }
    }

    /// The integer, where it is one.
    pub fn as_int(&self) -> Option<i64> {
        if let Self::Int(integer) = self { Some(*integer) } else { None }
    }

    /// The integer, where it is one that is not negative.
    pub fn as_u64(&self) -> Option<u64> {
        self.as_int().and_then(|integer| u64::try_from(integer).ok())
    }

    /// The truth value, where it is one.
    pub fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(bool) = self { Some(*bool) } else { None }
    }

    /// The elements, where it is an array.
    pub fn as_array(&self) -> Option<&[Value]> {
        if let Self::Array(array) = self { Some(array) } else { None }
    }

    /// The object, where it is one.
    pub fn as_object(&self) -> Option<&Object> {
        if let Self::Object(object) = self { Some(object) } else { None }
    }

    /// How many levels the value has: 0 for a scalar, 1 for an array or object of scalars.
    pub fn depth(&self) -> usize {
        let below = |deepest: Option<usize>| 1 + deepest.unwrap_or(0);
        match self {
            Self::Array(array) => below(array.iter().map(Self::depth).max()),
            Self::Object(object) => below(object.iter().map(|(_, value)| value.depth()).max()),
            Self::Null | Self::Bool(_) | Self::Int(_) | Self::String(_) => 0,
        }
    }
}

/// An object: its members in canonical order, each name once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Object {
    /// Sorted by [`compare_names`], without duplicates.
    members: Vec<(String, Value)>,
}

impl Object {
    /// An object without members.
    pub fn new() -> Self {
        Self::default()
    }

    /// The member of that name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.position(name).ok().map(|index| &self.members[index].1)
    }

    /// Sets a member; the value that it had is returned.
    pub fn insert(&mut self, name: String, value: Value) -> Option<Value> {
        match self.position(&name) {
            Ok(index) => Some(std::mem::replace(&mut self.members[index].1, value)),
            Err(index) => {
                self.members.insert(index, (name, value));
                None
            }
        }
    }

    /// Takes a member out.
    pub fn remove(&mut self, name: &str) -> Option<Value> {
        self.position(name).ok().map(|index| self.members.remove(index).1)
    }

    /// The members in canonical order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.members.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there is no member.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Appends the canonical form of the object without the named members. So a receipt's leaf and signed bytes
    /// are written without a copy of the tree.
    pub fn write_canonical_without(&self, names: &[&str], out: &mut Vec<u8>) {
        canonical::write_members(self.iter().filter(|(name, _)| !names.contains(name)), out);
    }

    fn position(&self, name: &str) -> Result<usize, usize> {
        self.members.binary_search_by(|(member, _)| compare_names(member.as_bytes(), name.as_bytes()))
    }
}

/// The order of member names: by UTF-16 code units (RFC 8785, section 3.2.3), told from the UTF-8 bytes.
///
/// Both orders agree except that characters beyond U+FFFF, whose UTF-16 form begins with a surrogate (D800 to
/// DFFF), come before U+E000 to U+FFFF. Where two strings first differ, the bytes are either both continuation
/// bytes of characters of equal lead (same plane, no surrogate on one side only) or lead bytes: it is enough to
/// move the leads EE and EF behind F0 to F4.
pub(crate) fn compare_names(left: &[u8], right: &[u8]) -> Ordering {
    let common = left.iter().zip(right).position(|(left, right)| left != right);
    match common {
        None => left.len().cmp(&right.len()),
        Some(index) => order_of_byte(left[index]).cmp(&order_of_byte(right[index])),
    }
}

pub(crate) fn order_of_byte(byte: u8) -> u8 {
    if byte == 0xEE || byte == 0xEF { byte + 0x10 } else { byte }
}

/// Why a document is rejected, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} at byte {offset}")]
pub struct Error {
    kind: ErrorKind,
    offset: usize,
}

impl Error {
    /// What is wrong.
    pub fn kind(&self) -> &ErrorKind {
        &self.kind
    }

    /// Where, in bytes from the start of the input. For a duplicate member: the end of its object.
    pub fn offset(&self) -> usize {
        self.offset
    }
}

/// What is wrong with a document.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The document begins with U+FEFF.
    ByteOrderMark,
    /// The bytes are not UTF-8.
    InvalidUtf8,
    /// The document ends too early.
    UnexpectedEnd,
    /// Not what the grammar (RFC 8259) has here.
    UnexpectedByte(u8),
    /// Something stands after the document.
    TrailingData,
    /// More levels than allowed; the number is the limit.
    TooDeep(usize),
    /// A member name stands twice in an object.
    DuplicateMember(String),
    /// A number with a fraction or an exponent.
    NotAnInteger,
    /// A number that begins with a needless zero.
    LeadingZero,
    /// `-0`, which has no canonical form.
    NegativeZero,
    /// |n| > 2^53-1.
    IntegerTooLarge,
    /// A byte below 0x20 in a string.
    ControlCharacter,
    /// A backslash sequence that JSON does not have.
    InvalidEscape,
    /// A surrogate without its other half.
    LoneSurrogate,
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ByteOrderMark => formatter.write_str("byte order mark"),
            Self::InvalidUtf8 => formatter.write_str("invalid UTF-8"),
            Self::UnexpectedEnd => formatter.write_str("unexpected end"),
            Self::UnexpectedByte(byte) => write!(formatter, "unexpected {:?}", char::from(*byte)),
            Self::TrailingData => formatter.write_str("data after the document"),
            Self::TooDeep(limit) => write!(formatter, "more than {limit} levels"),
            Self::DuplicateMember(name) => {
                // A hostile name may be megabytes long, and hold control characters.
                let shown: String = name.chars().take(64).collect();
                write!(formatter, "duplicate member {shown:?}")
            }
            Self::NotAnInteger => formatter.write_str("a number that is not written as an integer"),
            Self::LeadingZero => formatter.write_str("a number with a leading zero"),
            Self::NegativeZero => formatter.write_str("-0"),
            Self::IntegerTooLarge => formatter.write_str("an integer beyond 2^53-1"),
            Self::ControlCharacter => formatter.write_str("a control character in a string"),
            Self::InvalidEscape => formatter.write_str("an invalid escape"),
            Self::LoneSurrogate => formatter.write_str("a lone surrogate"),
        }
    }
}
