//! The parser: one pass over bytes, recursion bounded by the allowed levels.

use super::{Error, ErrorKind, MAX_DEPTH, MAX_INTEGER, Object, Value, compare_names};

/// Above this many elements, an array or object grows by a quarter rather than by doubling.
const LARGE: usize = 64 * 1024;

/// Parses a document of at most [`MAX_DEPTH`] levels.
///
/// # Errors
/// What is wrong with it and where; the module says what is rejected.
pub fn parse(input: &[u8]) -> Result<Value, Error> {
    parse_with_depth(input, MAX_DEPTH)
}

/// Parses a document of at most `max_depth` levels.
///
/// # Errors
/// Like [`parse`].
pub fn parse_with_depth(input: &[u8], max_depth: usize) -> Result<Value, Error> {
    if input.starts_with(b"\xEF\xBB\xBF") {
        return Err(Error { kind: ErrorKind::ByteOrderMark, offset: 0 });
    }
    let text = std::str::from_utf8(input)
        .map_err(|error| Error { kind: ErrorKind::InvalidUtf8, offset: error.valid_up_to() })?;
    let mut parser = Parser { text, bytes: input, at: 0, max_depth };
    parser.skip_space();
    let value = parser.value(0)?;
    parser.skip_space();
    if parser.at < input.len() { Err(parser.error(ErrorKind::TrailingData)) } else { Ok(value) }
}

struct Parser<'a> {
    /// The input as checked UTF-8, and the same as bytes.
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    max_depth: usize,
}

impl Parser<'_> {
    /// The value at the position, which stands `depth` levels deep.
    fn value(&mut self, depth: usize) -> Result<Value, Error> {
        match self.peek()? {
            b'{' => self.object(depth + 1),
            b'[' => self.array(depth + 1),
            b'"' => self.string().map(Value::String),
            b'-' | b'0'..=b'9' => self.integer().map(Value::Int),
            b't' => self.literal(b"true", Value::Bool(true)),
            b'f' => self.literal(b"false", Value::Bool(false)),
            b'n' => self.literal(b"null", Value::Null),
            other => Err(self.error(ErrorKind::UnexpectedByte(other))),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Value, Error> {
        self.enter(depth)?;
        let mut members: Vec<(String, Value)> = Vec::new();
        let mut sorted = true;
        if self.peek()? == b'}' {
            self.at += 1;
            return Ok(Value::Object(Object { members }));
        }
        loop {
            if self.peek()? != b'"' {
                return Err(self.unexpected());
            }
            let name = self.string()?;
            self.skip_space();
            self.expect(b':')?;
            self.skip_space();
            let value = self.value(depth)?;
            if let Some((last, _)) = members.last() {
                sorted &= compare_names(last.as_bytes(), name.as_bytes()).is_lt();
            }
            make_room(&mut members);
            members.push((name, value));
            if self.next_or_close(b'}')? {
                break;
            }
        }
        if !sorted {
            members
                .sort_unstable_by(|(left, _), (right, _)| compare_names(left.as_bytes(), right.as_bytes()));
            if let Some(index) = members.windows(2).position(|pair| pair[0].0 == pair[1].0) {
                let name = members.swap_remove(index).0;
                return Err(self.error(ErrorKind::DuplicateMember(name)));
            }
        }
        Ok(Value::Object(Object { members }))
    }

    fn array(&mut self, depth: usize) -> Result<Value, Error> {
        self.enter(depth)?;
        let mut elements = Vec::new();
        if self.peek()? == b']' {
            self.at += 1;
            return Ok(Value::Array(elements));
        }
        loop {
            let element = self.value(depth)?;
            make_room(&mut elements);
            elements.push(element);
            if self.next_or_close(b']')? {
                return Ok(Value::Array(elements));
            }
        }
    }

    /// Steps into an array or object at `depth`.
    fn enter(&mut self, depth: usize) -> Result<(), Error> {
        if depth > self.max_depth {
            return Err(self.error(ErrorKind::TooDeep(self.max_depth)));
        }
        self.at += 1;
        self.skip_space();
        Ok(())
    }

    /// After an element: steps over a comma, or over the closing bracket, and says which it was.
    fn next_or_close(&mut self, close: u8) -> Result<bool, Error> {
        self.skip_space();
        match self.peek()? {
            b',' => {
                self.at += 1;
                self.skip_space();
                Ok(false)
            }
            byte if byte == close => {
                self.at += 1;
                Ok(true)
            }
            _ => Err(self.unexpected()),
        }
    }

    fn integer(&mut self) -> Result<i64, Error> {
        let start = self.at;
        let negative = self.bytes[self.at] == b'-';
        self.at += usize::from(negative);
        let digits = self.at;
        let mut magnitude: i64 = 0;
        while let Some(digit @ b'0'..=b'9') = self.bytes.get(self.at) {
            // Stays far below overflow: past the limit the value no longer grows.
            if magnitude <= MAX_INTEGER {
                magnitude = magnitude * 10 + i64::from(digit - b'0');
            }
            self.at += 1;
        }
        let at_start = |kind| Error { kind, offset: start };
        match self.bytes.get(self.at) {
            Some(b'.' | b'e' | b'E') if self.at > digits => return Err(at_start(ErrorKind::NotAnInteger)),
            _ if self.at == digits => {
                self.peek()?;
                return Err(self.unexpected());
            }
            _ => {}
        }
        if self.bytes[digits] == b'0' && self.at > digits + 1 {
            return Err(at_start(ErrorKind::LeadingZero));
        }
        if negative && magnitude == 0 {
            return Err(at_start(ErrorKind::NegativeZero));
        }
        if magnitude > MAX_INTEGER {
            return Err(at_start(ErrorKind::IntegerTooLarge));
        }
        Ok(if negative { -magnitude } else { magnitude })
    }

    /// A string, whose opening quote stands at the position.
    fn string(&mut self) -> Result<String, Error> {
        self.at += 1;
        let mut string = String::new();
        loop {
            let start = self.at;
            while !matches!(self.peek()?, b'"' | b'\\' | 0..=0x1F) {
                self.at += 1;
            }
            // The run ends before an ASCII byte, hence at a character boundary.
            let run = &self.text[start..self.at];
            match self.bytes[self.at] {
                b'"' => {
                    self.at += 1;
                    if string.is_empty() {
                        return Ok(run.to_owned());
                    }
                    string.push_str(run);
                    return Ok(string);
                }
                b'\\' => {
                    string.push_str(run);
                    let character = self.escape()?;
                    string.push(character);
                }
                _ => return Err(self.error(ErrorKind::ControlCharacter)),
            }
        }
    }

    fn escape(&mut self) -> Result<char, Error> {
        let start = self.at;
        self.at += 1;
        let letter = self.peek()?;
        self.at += 1;
        Ok(match letter {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let lone = Error { kind: ErrorKind::LoneSurrogate, offset: start };
                let unit = self.four_hex(start)?;
                let code = match unit {
                    0xD800..=0xDBFF => {
                        if self.bytes.get(self.at..self.at + 2) != Some(b"\\u") {
                            return Err(lone);
                        }
                        self.at += 2;
                        let low = self.four_hex(start)?;
                        if !(0xDC00..=0xDFFF).contains(&low) {
                            return Err(lone);
                        }
                        0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00)
                    }
                    other => other,
                };
                char::from_u32(code).ok_or(lone)?
            }
            _ => return Err(Error { kind: ErrorKind::InvalidEscape, offset: start }),
        })
    }

    fn four_hex(&mut self, start: usize) -> Result<u32, Error> {
        let mut unit = 0;
        for _ in 0..4 {
            let digit = char::from(self.peek()?).to_digit(16);
            unit = unit * 16 + digit.ok_or(Error { kind: ErrorKind::InvalidEscape, offset: start })?;
            self.at += 1;
        }
        Ok(unit)
    }

    fn literal(&mut self, word: &[u8], value: Value) -> Result<Value, Error> {
        for byte in word {
            if self.peek()? != *byte {
                return Err(self.unexpected());
            }
            self.at += 1;
        }
        Ok(value)
    }

    fn skip_space(&mut self) {
        while matches!(self.bytes.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), Error> {
        if self.peek()? != byte {
            return Err(self.unexpected());
        }
        self.at += 1;
        Ok(())
    }

    fn peek(&self) -> Result<u8, Error> {
        self.bytes.get(self.at).copied().ok_or_else(|| self.error(ErrorKind::UnexpectedEnd))
    }

    fn unexpected(&self) -> Error {
        self.error(
            self.bytes.get(self.at).map_or(ErrorKind::UnexpectedEnd, |byte| ErrorKind::UnexpectedByte(*byte)),
        )
    }

    fn error(&self, kind: ErrorKind) -> Error {
        Error { kind, offset: self.at }
    }
}

/// Makes room for one more. A vector of the standard library starts with room for four, which a document of many
/// small arrays would pay for fifty times over, and doubles, which one of a large array would pay for.
fn make_room<T>(elements: &mut Vec<T>) {
    if elements.len() == elements.capacity() {
        let growth = if elements.len() < LARGE { elements.len().max(1) } else { elements.len() / 4 };
        elements.reserve_exact(growth);
    }
}
