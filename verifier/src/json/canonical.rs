//! RFC 8785 output, and the check that bytes already are it.

use std::cmp::Ordering;

use super::{MAX_DEPTH, MAX_INTEGER, Value, order_of_byte};

const HEX: &[u8; 16] = b"0123456789abcdef";

pub(super) fn write_value(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Int(integer) => write_integer(*integer, out),
        Value::String(string) => write_canonical_string(string, out),
        Value::Array(array) => {
            out.push(b'[');
            for (index, element) in array.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_value(element, out);
            }
            out.push(b']');
        }
        Value::Object(object) => write_members(object.iter(), out),
    }
}

/// Writes an object of these members, which come in canonical order.
pub(super) fn write_members<'a>(members: impl Iterator<Item = (&'a str, &'a Value)>, out: &mut Vec<u8>) {
    out.push(b'{');
    for (index, (name, value)) in members.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_canonical_string(name, out);
        out.push(b':');
        write_value(value, out);
    }
    out.push(b'}');
}

fn write_integer(integer: i64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    let mut rest = integer.unsigned_abs();
    loop {
        start -= 1;
        digits[start] = b'0' + u8::try_from(rest % 10).expect("a digit is below ten");
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if integer < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&digits[start..]);
}

/// Appends a string as a JSON string literal the way RFC 8785, section 3.2.2.2 writes it.
pub fn write_canonical_string(string: &str, out: &mut Vec<u8>) {
    let bytes = string.as_bytes();
    out.push(b'"');
    let mut start = 0;
    for (index, byte) in bytes.iter().enumerate() {
        if *byte >= 0x20 && *byte != b'"' && *byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[start..index]);
        start = index + 1;
        match short_escape(*byte) {
            Some(letter) => out.extend_from_slice(&[b'\\', letter]),
            None => {
                let [high, low] = [byte >> 4, byte & 15].map(|digit| HEX[usize::from(digit)]);
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
            }
        }
    }
    out.extend_from_slice(&bytes[start..]);
    out.push(b'"');
}

/// The letter of a two-character escape.
fn short_escape(byte: u8) -> Option<u8> {
    Some(match byte {
        b'"' | b'\\' => byte,
        0x08 => b'b',
        0x09 => b't',
        0x0A => b'n',
        0x0C => b'f',
        0x0D => b'r',
        _ => return None,
    })
}

/// Whether the bytes are exactly the canonical form of a document that [`parse`](super::parse) accepts. One pass,
/// no allocation.
pub fn is_canonical(input: &[u8]) -> bool {
    if std::str::from_utf8(input).is_err() {
        return false;
    }
    let mut scanner = Scanner { input, at: 0 };
    scanner.value(0).is_some() && scanner.at == input.len()
}

/// Walks over canonical bytes; `None` is where they are not.
struct Scanner<'a> {
    input: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    fn value(&mut self, depth: usize) -> Option<()> {
        match self.input.get(self.at)? {
            b'{' => self.object(depth + 1),
            b'[' => self.array(depth + 1),
            b'"' => self.string().map(drop),
            b'-' | b'0'..=b'9' => self.integer(),
            b't' => self.literal(b"true"),
            b'f' => self.literal(b"false"),
            b'n' => self.literal(b"null"),
            _ => None,
        }
    }

    fn object(&mut self, depth: usize) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        self.at += 1;
        if self.eat(b'}') {
            return Some(());
        }
        let mut previous: Option<&[u8]> = None;
        loop {
            let name = self.string()?;
            if previous.is_some_and(|previous| !compare_literals(previous, name).is_lt()) {
                return None;
            }
            previous = Some(name);
            if !self.eat(b':') {
                return None;
            }
            self.value(depth)?;
            if self.eat(b'}') {
                return Some(());
            }
            if !self.eat(b',') {
                return None;
            }
        }
    }

    fn array(&mut self, depth: usize) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        self.at += 1;
        if self.eat(b']') {
            return Some(());
        }
        loop {
            self.value(depth)?;
            if self.eat(b']') {
                return Some(());
            }
            if !self.eat(b',') {
                return None;
            }
        }
    }

    /// A string literal in its only canonical spelling; what stands between its quotes.
    fn string(&mut self) -> Option<&'a [u8]> {
        if !self.eat(b'"') {
            return None;
        }
        let start = self.at;
        loop {
            match self.input.get(self.at)? {
                b'"' => {
                    self.at += 1;
                    return Some(&self.input[start..self.at - 1]);
                }
                b'\\' => {
                    let (_, length) = unescape(&self.input[self.at..])?;
                    self.at += length;
                }
                0..=0x1F => return None,
                _ => self.at += 1,
            }
        }
    }

    fn integer(&mut self) -> Option<()> {
        let negative = self.eat(b'-');
        let start = self.at;
        let mut magnitude: i64 = 0;
        while let Some(digit @ b'0'..=b'9') = self.input.get(self.at) {
            magnitude = magnitude * 10 + i64::from(digit - b'0');
            if magnitude > MAX_INTEGER {
                return None;
            }
            self.at += 1;
        }
        let zero_first = *self.input.get(start)? == b'0';
        let length = self.at - start;
        (length > 0 && (!zero_first || (length == 1 && !negative))).then_some(())
    }

    fn literal(&mut self, word: &[u8]) -> Option<()> {
        self.input[self.at..].starts_with(word).then(|| self.at += word.len())
    }

    fn eat(&mut self, byte: u8) -> bool {
        let eaten = self.input.get(self.at) == Some(&byte);
        self.at += usize::from(eaten);
        eaten
    }
}

/// The byte that a canonical escape at the start of `input` stands for, and how long the escape is.
fn unescape(input: &[u8]) -> Option<(u8, usize)> {
    match *input.get(1)? {
        b'u' => {
            let [b'0', b'0', high @ (b'0' | b'1'), low] = *input.get(2..6)? else { return None };
            let low_digit = HEX.iter().position(|digit| *digit == low)?;
            let byte = (high - b'0') << 4 | u8::try_from(low_digit).ok()?;
            short_escape(byte).is_none().then_some((byte, 6))
        }
        letter => (0..0x80u8).find(|byte| short_escape(*byte) == Some(letter)).map(|byte| (byte, 2)),
    }
}

/// The order of two names by what their canonical literals stand for.
fn compare_literals(left: &[u8], right: &[u8]) -> Ordering {
    let (mut left, mut right) = (left, right);
    loop {
        let (first, second) = match (next_byte(&mut left), next_byte(&mut right)) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(first), Some(second)) => (first, second),
        };
        if first != second {
            return order_of_byte(first).cmp(&order_of_byte(second));
        }
    }
}

fn next_byte(literal: &mut &[u8]) -> Option<u8> {
    let (byte, length) = match *literal.first()? {
        b'\\' => unescape(literal)?,
        byte => (byte, 1),
    };
    *literal = &literal[length..];
    Some(byte)
}
