//! Decides in one pass, without allocation, whether bytes are canonical JSON (RFC 8785 within the ground rules
//! of the formats), and hands out the members of the top object as slices of the input.
//!
//! Exports hold millions of entries, and each has to be *exactly* the bytes that were hashed. Building a tree,
//! writing it again and comparing answers that too, at several times the cost of the hashing itself; but canonical
//! bytes are a regular thing to recognise: no white space, members in rising UTF-16 order, one spelling for each
//! string and number. So this module recognises (and, for the rare line that may be written otherwise, rewrites
//! without a tree). It must agree with
//! [`crate::json`] on every input, which a property test and a fuzz target hold.

mod rewrite;

pub(crate) use rewrite::rewrite;

use std::fmt;

/// Levels that a document may have; the top object is level 1.
const MAX_LEVELS: usize = 32;
/// The largest magnitude of an integer: 2^53-1, the last that every JSON reader holds exactly.
const MAX_INTEGER: u64 = 9_007_199_254_740_991;

/// Why, and where, an input is not canonical JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What is wrong.
    pub what: &'static str,
    /// The byte offset at which it was noticed.
    pub offset: usize,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.what, self.offset)
    }
}

impl std::error::Error for Fault {}

/// Checks that `input` is one canonical JSON document of at most 32 levels.
///
/// # Errors
/// The first [`Fault`] from the left (invalid UTF-8 anywhere comes first).
pub fn canonical(input: &[u8]) -> Result<(), Fault> {
    canonical_with_levels(input, MAX_LEVELS)
}

/// Like [`canonical`], with at most `levels` levels (a scalar has none).
///
/// # Errors
/// As [`canonical`].
pub fn canonical_with_levels(input: &[u8], levels: usize) -> Result<(), Fault> {
    let mut scanner = Scanner::new(input)?;
    scanner.value(levels)?;
    scanner.end()
}

/// Scans a canonical JSON object of at most 32 levels and calls `each` with every member of it, in order: its name
/// as written between the quotes, its value as written, and, where the value is an object, the value as written of
/// its member `inner`, if it has one.
///
/// # Errors
/// As [`canonical`]; a canonical document that is no object is `Ok(false)`, without a call.
pub fn members<'a>(
    input: &'a [u8],
    inner: &str,
    mut each: impl FnMut(&'a str, &'a str, Option<&'a str>),
) -> Result<bool, Fault> {
    let mut scanner = Scanner::new(input)?;
    if scanner.peek() != Some(b'{') {
        scanner.value(MAX_LEVELS)?;
        scanner.end()?;
        return Ok(false);
    }
    scanner.object(MAX_LEVELS, |scanner, name| {
        let from = scanner.at;
        let mut found = None;
        if scanner.peek() == Some(b'{') {
            scanner.object(MAX_LEVELS - 1, |scanner, name| {
                let from = scanner.at;
                scanner.value(MAX_LEVELS - 2)?;
                if name.text == inner {
                    found = Some(&scanner.text[from..scanner.at]);
                }
                Ok(())
            })?;
        } else {
            scanner.value(MAX_LEVELS - 1)?;
        }
        each(name.text, &scanner.text[from..scanner.at], found);
        Ok(())
    })?;
    scanner.end()?;
    Ok(true)
}

/// A string literal as written, without its quotes.
#[derive(Clone, Copy)]
struct Literal<'a> {
    text: &'a str,
    /// Whether it is ASCII without escapes, so that byte order is UTF-16 order.
    plain: bool,
}

struct Scanner<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    fn new(input: &'a [u8]) -> Result<Self, Fault> {
        match std::str::from_utf8(input) {
            Ok(text) => Ok(Self { text, bytes: input, at: 0 }),
            Err(e) => Err(Fault { what: "invalid UTF-8", offset: e.valid_up_to() }),
        }
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    #[cold]
    fn fault<T>(&self, what: &'static str) -> Result<T, Fault> {
        Err(Fault { what, offset: self.at })
    }

    fn end(&self) -> Result<(), Fault> {
        if self.at == self.bytes.len() { Ok(()) } else { self.fault("something after the document") }
    }

    fn value(&mut self, levels: usize) -> Result<(), Fault> {
        match self.peek() {
            Some(b'"') => self.string().map(drop),
            Some(b'{') => self.object(levels, |scanner, _| scanner.value(levels - 1)),
            Some(b'[') => self.array(levels),
            Some(b'-' | b'0'..=b'9') => self.integer(),
            Some(b't') => self.word(b"true"),
            Some(b'f') => self.word(b"false"),
            Some(b'n') => self.word(b"null"),
            Some(_) => self.fault("not a value in canonical form"),
            None => self.fault("the document ends early"),
        }
    }

    fn word(&mut self, word: &'static [u8]) -> Result<(), Fault> {
        if self.bytes[self.at..].starts_with(word) {
            self.at += word.len();
            Ok(())
        } else {
            self.fault("not a value in canonical form")
        }
    }

    fn integer(&mut self) -> Result<(), Fault> {
        let negative = self.peek() == Some(b'-');
        let from = self.at + usize::from(negative);
        let mut at = from;
        // 16 digits hold 2^53-1, and 17 cannot overflow what is gathered here.
        let mut magnitude: u64 = 0;
        while let Some(digit @ b'0'..=b'9') = self.bytes.get(at) {
            if at - from == 17 {
                return self.fault("an integer beyond 2^53-1");
            }
            magnitude = magnitude * 10 + u64::from(digit - b'0');
            at += 1;
        }
        if at == from {
            return self.fault("a number without digits");
        }
        if self.bytes[from] == b'0' && at - from > 1 {
            return self.fault("a number with a leading zero");
        }
        if negative && magnitude == 0 {
            return self.fault("a negative zero");
        }
        if magnitude > MAX_INTEGER {
            return self.fault("an integer beyond 2^53-1");
        }
        if let Some(b'.' | b'e' | b'E') = self.bytes.get(at) {
            return self.fault("a number that is not written as an integer");
        }
        self.at = at;
        Ok(())
    }

    fn array(&mut self, levels: usize) -> Result<(), Fault> {
        if levels == 0 {
            return self.fault("too many levels");
        }
        self.at += 1;
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.value(levels - 1)?;
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return self.fault("neither comma nor end of array"),
            }
        }
    }

    /// An object whose member values are scanned by `value`.
    #[inline]
    fn object(
        &mut self,
        levels: usize,
        mut value: impl FnMut(&mut Self, Literal<'a>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        if levels == 0 {
            return self.fault("too many levels");
        }
        self.at += 1;
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        let mut previous: Option<Literal<'a>> = None;
        loop {
            if self.peek() != Some(b'"') {
                return self.fault("not a member name");
            }
            let from = self.at;
            let name = self.string()?;
            if let Some(previous) = previous
                && !precedes(previous, name)
            {
                self.at = from;
                return self.fault(if previous.text == name.text {
                    "a duplicate member"
                } else {
                    "members out of order"
                });
            }
            previous = Some(name);
            if self.peek() != Some(b':') {
                return self.fault("no colon after a member name");
            }
            self.at += 1;
            value(self, name)?;
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return self.fault("neither comma nor end of object"),
            }
        }
    }

    /// A string; stands at its opening quote.
    #[inline]
    fn string(&mut self) -> Result<Literal<'a>, Fault> {
        let from = self.at + 1;
        let mut at = from;
        let mut plain = true;
        loop {
            // Eight bytes at a time up to the first that ends the string, starts an escape or is forbidden.
            let stop = loop {
                let Some(eight) = self.bytes.get(at..at + 8) else {
                    match self.bytes.get(at) {
                        None => {
                            self.at = at;
                            return self.fault("a string without an end");
                        }
                        Some(&byte) => {
                            if byte == b'"' || byte == b'\\' || byte < 0x20 {
                                break byte;
                            }
                            plain &= byte < 0x80;
                            at += 1;
                            continue;
                        }
                    }
                };
                let word = u64::from_le_bytes(eight.try_into().expect("the slice is eight bytes long"));
                let stops = stops(word);
                if stops == 0 {
                    plain &= word & HIGH == 0;
                    at += 8;
                    continue;
                }
                let skipped = stops.trailing_zeros() / 8;
                // The bytes before the stop; a shift by 0 must leave none of them.
                plain &= word & HIGH & ((1u64 << (skipped * 8)) - 1) == 0;
                at += skipped as usize;
                break self.bytes[at];
            };
            match stop {
                b'"' => {
                    self.at = at + 1;
                    return Ok(Literal { text: &self.text[from..at], plain });
                }
                b'\\' => {
                    plain = false;
                    self.at = at;
                    at += self.escape()?;
                }
                _ => {
                    self.at = at;
                    return self.fault("a control character that is not escaped");
                }
            }
        }
    }

    /// The length of the escape sequence at the current byte, if it is the one that RFC 8785 writes.
    fn escape(&self) -> Result<usize, Fault> {
        match self.bytes[self.at + 1..] {
            [b'"' | b'\\' | b'b' | b't' | b'n' | b'f' | b'r', ..] => Ok(2),
            [b'u', b'0', b'0', b'1', b'0'..=b'9' | b'a'..=b'f', ..] => Ok(6),
            [b'u', b'0', b'0', b'0', b'0'..=b'7' | b'b' | b'e' | b'f', ..] => Ok(6),
            _ => self.fault("an escape that is not in canonical form"),
        }
    }
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// The high bit of each byte of `word` that is a quote, a backslash or a control character. Bytes above the first
/// such one (little end first) may be marked without being one; the first is exact.
#[inline]
fn stops(word: u64) -> u64 {
    let quote = word ^ (ONES * b'"' as u64);
    let backslash = word ^ (ONES * b'\\' as u64);
    let quotes = quote.wrapping_sub(ONES) & !quote;
    let backslashes = backslash.wrapping_sub(ONES) & !backslash;
    let controls = word.wrapping_sub(ONES * 0x20) & !word;
    (quotes | backslashes | controls) & HIGH
}

/// Whether name `a` sorts before name `b` by UTF-16 code units.
#[inline]
fn precedes(a: Literal<'_>, b: Literal<'_>) -> bool {
    if a.plain && b.plain { a.text < b.text } else { Units::new(a.text).lt(Units::new(b.text)) }
}

/// The UTF-16 code units that a literal in canonical form stands for.
struct Units<'a> {
    chars: std::str::Chars<'a>,
    /// The low surrogate that follows the high one just given.
    pending: Option<u16>,
}

impl<'a> Units<'a> {
    fn new(text: &'a str) -> Self {
        Self { chars: text.chars(), pending: None }
    }
}

impl Iterator for Units<'_> {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        if let Some(low) = self.pending.take() {
            return Some(low);
        }
        let c = match self.chars.next()? {
            '\\' => match self.chars.next()? {
                'b' => '\u{8}',
                't' => '\t',
                'n' => '\n',
                'f' => '\u{c}',
                'r' => '\r',
                'u' => {
                    let digits = self.chars.as_str().get(..4)?;
                    let unit = u16::from_str_radix(digits, 16).ok()?;
                    self.chars = self.chars.as_str()[4..].chars();
                    return Some(unit);
                }
                other => other,
            },
            c => c,
        };
        let mut units = [0; 2];
        if let [high, low] = c.encode_utf16(&mut units) {
            self.pending = Some(*low);
            return Some(*high);
        }
        Some(units[0])
    }
}

#[cfg(test)]
mod tests;
