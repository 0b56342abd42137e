//! A line of `entries.jsonl` or `openings.jsonl`, taken apart without copying it.

use crate::Hash;
use crate::entry;
use crate::members::{is_entry_type, is_sealed_name, is_uuid};
use crate::scan::{self, Fault};
use crate::time::Timestamp;

/// How many members an entry has.
const MEMBERS: usize = entry::MEMBERS.len();

/// The members of what stands for an entry that was left out, in canonical order.
const LEFT_OUT: [&str; 2] = ["leaf", "seq"];

/// A line of `entries.jsonl`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line<'a> {
    Present(Entry<'a>),
    LeftOut { leaf: Hash, seq: u64 },
}

/// An entry whose members each are what they have to be on their own.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    pub(crate) ledger: &'a str,
    pub(crate) prev: Hash,
    pub(crate) seq: u64,
    pub(crate) timestamp: &'a str,
    pub(crate) kind: &'a str,
    /// `data.sealed` as written, without its braces.
    pub(crate) sealed: &'a str,
}

/// Why a line is neither.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Rejected {
    NotCanonical(Fault),
    Members(&'static str),
}

impl<'a> Line<'a> {
    /// Takes a line apart; `line` is without its line feed.
    pub(crate) fn parse(line: &'a [u8]) -> Result<Self, Rejected> {
        if line.len() > entry::MAX_BYTES {
            return Err(Rejected::NotCanonical(Fault {
                what: "more than 65,535 bytes",
                offset: entry::MAX_BYTES,
            }));
        }
        let mut names = [""; MEMBERS];
        let mut values = [""; MEMBERS];
        let mut sealed = None;
        let mut count = 0;
        let object = scan::members(line, "sealed", |name, value, inner| {
            if count < MEMBERS {
                (names[count], values[count]) = (name, value);
            }
            if name == "data" {
                sealed = inner;
            }
            count += 1;
        })
        .map_err(Rejected::NotCanonical)?;
        if !object {
            return Err(Rejected::Members("not an object"));
        }
        if count == MEMBERS && names == entry::MEMBERS {
            Entry::from_values(values, sealed).map(Self::Present)
        } else if count == LEFT_OUT.len() && names[..LEFT_OUT.len()] == LEFT_OUT {
            let leaf = text(values[0]).and_then(hash).ok_or(Rejected::Members("leaf is not a hash"))?;
            let seq = number(values[1]).ok_or(Rejected::Members("seq is not a number from 0 on"))?;
            Ok(Self::LeftOut { leaf, seq })
        } else {
            Err(Rejected::Members("neither the members of an entry nor those of one left out"))
        }
    }
}

impl<'a> Entry<'a> {
    fn from_values(values: [&'a str; MEMBERS], sealed: Option<&'a str>) -> Result<Self, Rejected> {
        let [data, ledger, nonce, prev, seq, timestamp, kind, v] = values;
        let or = |what| Rejected::Members(what);
        if v != "1" {
            return Err(or("v is not 1"));
        }
        if !data.starts_with('{') {
            return Err(or("data is not an object"));
        }
        if !text(nonce).is_some_and(is_nonce) {
            return Err(or("nonce is not 16 bytes in base64"));
        }
        let sealed = match sealed {
            None => "",
            Some(value) => sealed_members(value).ok_or(or("data.sealed does not map names to hashes"))?,
        };
        Ok(Self {
            ledger: text(ledger).filter(|l| is_uuid(l)).ok_or(or("ledger is not a UUID"))?,
            prev: text(prev).and_then(hash).ok_or(or("prev is not a hash"))?,
            seq: number(seq).ok_or(or("seq is not a number from 0 on"))?,
            timestamp: text(timestamp).filter(|t| is_time(t)).ok_or(or("timestamp is not a time"))?,
            kind: text(kind).filter(|k| is_entry_type(k)).ok_or(or("type is not a type"))?,
            sealed,
        })
    }

    /// The names in `data.sealed` with their hashes, in order.
    pub(crate) fn commitments(&self) -> impl Iterator<Item = (&'a str, Hash)> {
        sealed_pairs(self.sealed)
    }
}

/// What stands between the braces of `data.sealed`, if all of it is as it has to be.
fn sealed_members(value: &str) -> Option<&str> {
    let inner = value.strip_prefix('{')?.strip_suffix('}')?;
    // Each `"name":"64 digits"` is recognised by its ends; the whole is canonical already.
    let mut rest = inner;
    while !rest.is_empty() {
        let (name, after) = rest.strip_prefix('"')?.split_once('"')?;
        let (hex, after) = after.strip_prefix(":\"")?.split_once('"')?;
        if !is_sealed_name(name) || hash(hex).is_none() {
            return None;
        }
        rest = after.strip_prefix(',').unwrap_or(after);
    }
    Some(inner)
}

/// The pairs of what [`sealed_members`] accepted.
fn sealed_pairs(mut rest: &str) -> impl Iterator<Item = (&str, Hash)> {
    std::iter::from_fn(move || {
        let (name, after) = rest.strip_prefix('"')?.split_once('"')?;
        let (hex, after) = after.strip_prefix(":\"")?.split_once('"')?;
        rest = after.strip_prefix(',').unwrap_or(after);
        Some((name, hash(hex)?))
    })
}

/// What stands between the quotes of a string, as written: whatever is looked for in it has no escapes.
fn text(value: &str) -> Option<&str> {
    value.strip_prefix('"')?.strip_suffix('"')
}

fn number(value: &str) -> Option<u64> {
    if value.as_bytes().first()?.is_ascii_digit() { value.parse().ok() } else { None }
}

/// The value of each hex digit as the formats write them; 255 for any other byte.
const DIGITS: [u8; 256] = {
    let mut digits = [255; 256];
    let mut value = 0;
    while value < 16 {
        digits[b"0123456789abcdef"[value as usize] as usize] = value;
        value += 1;
    }
    digits
};

/// What [`crate::encoding::parse_hex`] answers, without a branch a digit: an export has two of them a line.
fn hash(text: &str) -> Option<Hash> {
    let pairs: &[u8; 64] = text.as_bytes().try_into().ok()?;
    let mut hash = [0; 32];
    let mut wrong = 0;
    for (byte, pair) in hash.iter_mut().zip(pairs.as_chunks::<2>().0) {
        let (high, low) = (DIGITS[usize::from(pair[0])], DIGITS[usize::from(pair[1])]);
        wrong |= high | low;
        *byte = high << 4 | low & 15;
    }
    (wrong < 16).then_some(hash)
}

/// 16 bytes in base64: 21 characters of six bits, one of two, padding.
fn is_nonce(text: &str) -> bool {
    let Some(([head @ .., last], _)) =
        text.as_bytes().split_last_chunk::<2>().filter(|(_, pad)| *pad == b"==")
    else {
        return false;
    };
    head.len() == 21
        && head.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'))
        && matches!(last, b'A' | b'Q' | b'g' | b'w')
}

fn is_time(text: &str) -> bool {
    text.parse::<Timestamp>().is_ok()
}
