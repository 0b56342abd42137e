//! The canonical form of a document, from text to text.
//!
//! A tree takes up to twenty times the bytes of its text, which is too much where lines of 8 MiB are read by several
//! threads at once. Here only the members of the objects around the current place are remembered, as positions in
//! what was already written. Tokens are left to [`crate::json`], so that there is one reading of strings and numbers.

use std::cmp::Ordering;

use super::Units;
use crate::json;

/// The canonical form of a document of at most `levels` levels; `None` for what [`json::parse_with_depth`] rejects.
pub(crate) fn rewrite(input: &[u8], levels: usize) -> Option<Vec<u8>> {
    let mut reader = Reader { input, at: 0, out: Vec::with_capacity(input.len()) };
    reader.value(levels)?;
    reader.skip_space();
    (reader.at == input.len()).then_some(reader.out)
}

struct Reader<'a> {
    input: &'a [u8],
    at: usize,
    out: Vec<u8>,
}

/// A member in the output: `"name":value`.
#[derive(Clone, Copy)]
struct Member {
    start: usize,
    /// The end of the name, after its closing quote.
    name_end: usize,
    end: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.input.get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    /// Steps over a byte if it comes next, after white space.
    fn eat(&mut self, byte: u8) -> bool {
        self.skip_space();
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    fn value(&mut self, levels: usize) -> Option<()> {
        self.skip_space();
        match self.peek()? {
            b'{' => self.object(levels.checked_sub(1)?),
            b'[' => self.array(levels.checked_sub(1)?),
            b'"' => self.string(),
            _ => {
                let rest = &self.input[self.at..];
                let is_end = |byte: &u8| matches!(byte, b',' | b']' | b'}' | b' ' | b'\t' | b'\n' | b'\r');
                self.token(rest.iter().position(is_end).unwrap_or(rest.len()))
            }
        }
    }

    /// A string; stands at its opening quote.
    fn string(&mut self) -> Option<()> {
        let mut length = 1;
        loop {
            match self.input.get(self.at + length)? {
                b'"' => return self.token(length + 1),
                b'\\' => length += 2,
                _ => length += 1,
            }
        }
    }

    /// A scalar of so many bytes.
    fn token(&mut self, length: usize) -> Option<()> {
        let token = json::parse_with_depth(&self.input[self.at..self.at + length], 0).ok()?;
        token.write_canonical(&mut self.out);
        self.at += length;
        Some(())
    }

    fn array(&mut self, levels: usize) -> Option<()> {
        self.at += 1;
        self.out.push(b'[');
        if !self.eat(b']') {
            loop {
                self.value(levels)?;
                if self.eat(b']') {
                    break;
                }
                self.eat(b',').then(|| self.out.push(b','))?;
            }
        }
        self.out.push(b']');
        Some(())
    }

    fn object(&mut self, levels: usize) -> Option<()> {
        self.at += 1;
        self.out.push(b'{');
        let first = self.out.len();
        let mut members: Vec<Member> = Vec::new();
        if !self.eat(b'}') {
            loop {
                self.skip_space();
                let start = self.out.len();
                (self.peek() == Some(b'"')).then(|| self.string())??;
                let name_end = self.out.len();
                self.eat(b':').then(|| self.out.push(b':'))?;
                self.value(levels)?;
                members.push(Member { start, name_end, end: self.out.len() });
                if self.eat(b'}') {
                    break;
                }
                self.eat(b',').then(|| self.out.push(b','))?;
            }
        }
        if members.windows(2).any(|pair| self.compare(pair[0], pair[1]) != Ordering::Less) {
            members.sort_unstable_by(|a, b| self.compare(*a, *b));
            if members.windows(2).any(|pair| self.compare(pair[0], pair[1]) == Ordering::Equal) {
                return None;
            }
            let mut sorted = Vec::with_capacity(self.out.len() - first);
            for member in &members {
                if !sorted.is_empty() {
                    sorted.push(b',');
                }
                sorted.extend_from_slice(&self.out[member.start..member.end]);
            }
            self.out[first..].copy_from_slice(&sorted);
        }
        self.out.push(b'}');
        Some(())
    }

    /// The order of two members by the UTF-16 code units of their names.
    fn compare(&self, a: Member, b: Member) -> Ordering {
        let name = |member: Member| {
            let literal = &self.out[member.start + 1..member.name_end - 1];
            std::str::from_utf8(literal).expect("a canonical literal is made of whole characters")
        };
        Units::new(name(a)).cmp(Units::new(name(b)))
    }
}
