//! `openings.jsonl` (E21): each line has to match what its entry seals.
//!
//! Both members are in the order of `seq` and name, so they are merged as they stream by, and neither is kept. The
//! hash over a value is computed where the line is parsed, in parallel; what is left to the merge is comparing.

use std::cmp::Ordering;
use std::sync::{Mutex, PoisonError};

use super::entries::Commitment;
use super::zip;
use crate::encoding::parse_base64_array;
use crate::entry::sealed_hash;
use crate::json::{self, MAX_SEALED_DEPTH};
use crate::scan;
use crate::{Check, Failure};

/// Bytes that an openings line may have (formats, ground rules), without the line feed.
pub(crate) const LONGEST: usize = 8 << 20;

/// The members of a line, in canonical order.
const MEMBERS: [&str; 4] = ["name", "salt", "seq", "value"];

const MISPLACED: &str = "not of a sealed value of an entry that is present, or not in its place";

/// The openings of a chunk, up to the first line that is none.
#[derive(Default)]
pub(crate) struct Found {
    openings: Vec<Commitment>,
    /// What is wrong with the line after them.
    fault: Option<&'static str>,
}

/// Parses a chunk of whole lines.
pub(crate) fn check(chunk: &[u8]) -> Found {
    let mut found = Found::default();
    for line in chunk.split_inclusive(|byte| *byte == b'\n') {
        match parse(line) {
            Ok(opening) => found.openings.push(opening),
            Err(what) => {
                found.fault = Some(what);
                break;
            }
        }
    }
    found
}

/// The commitment that a line opens.
pub(crate) fn parse(line: &[u8]) -> Result<Commitment, &'static str> {
    let line = match line.strip_suffix(b"\n") {
        _ if line.len() > LONGEST + 1 => return Err("more than 8 MiB"),
        Some(line) if line.len() <= LONGEST => line,
        Some(_) => return Err("more than 8 MiB"),
        None => return Err("no line feed after it"),
    };
    let mut names = [""; MEMBERS.len()];
    let mut values = [""; MEMBERS.len()];
    let mut count = 0;
    let scanned = scan::members(line, "", |name, value, _| {
        if count < MEMBERS.len() {
            (names[count], values[count]) = (name, value);
        }
        count += 1;
    });
    match scanned {
        // Exporters write canonical lines; others of the same meaning are as good, and rare.
        Err(_) => parse_as_tree(line),
        Ok(true) if count == MEMBERS.len() && names == MEMBERS => {
            let [name, salt, seq, value] = values;
            if scan::canonical_with_levels(value.as_bytes(), MAX_SEALED_DEPTH).is_err() {
                return Err("a value of more than 24 levels");
            }
            let text = |value: &str| Some(value.strip_prefix('"')?.strip_suffix('"')?.to_owned());
            let seq = seq.parse().ok();
            commitment(text(name), text(salt), seq, value.as_bytes())
        }
        Ok(_) => Err("other members than name, salt, seq and value"),
    }
}

/// The same for a line that is not canonical. A tree takes many times the bytes of its text, so only one is built
/// at a time, in whatever number of threads.
fn parse_as_tree(line: &[u8]) -> Result<Commitment, &'static str> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let document = json::parse(line).map_err(|_| "not JSON of the restricted kind")?;
    let object = document.as_object().ok_or("not an object")?;
    if !object.iter().map(|(name, _)| name).eq(MEMBERS) {
        return Err("other members than name, salt, seq and value");
    }
    let text = |name| object.get(name)?.as_str().map(str::to_owned);
    let value = object.get("value").ok_or("no value")?;
    if value.depth() > MAX_SEALED_DEPTH {
        return Err("a value of more than 24 levels");
    }
    let mut canonical = Vec::new();
    value.write_canonical(&mut canonical);
    commitment(text("name"), text("salt"), object.get("seq").and_then(json::Value::as_u64), &canonical)
}

fn commitment(
    name: Option<String>,
    salt: Option<String>,
    seq: Option<u64>,
    value: &[u8],
) -> Result<Commitment, &'static str> {
    let salt =
        salt.and_then(|salt| parse_base64_array::<32>(&salt)).ok_or("salt is not 32 bytes in base64")?;
    let hash = sealed_hash(&salt, value);
    Ok(Commitment {
        seq: seq.ok_or("seq is not a number from 0 on")?,
        name: name.ok_or("name is not a name")?,
        hash,
    })
}

/// Why a merge does not go on.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The member cannot be read.
    Read(zip::Error),
    /// An opening does not match.
    Failed(Box<Failure>),
}

impl From<zip::Error> for Stop {
    fn from(error: zip::Error) -> Self {
        Self::Read(error)
    }
}

/// Openings as they come, to be held against commitments as they come.
#[derive(Default)]
pub(crate) struct Merge {
    /// The opening that was not reached yet.
    next: Option<Commitment>,
    /// Those of its chunk after it.
    waiting: std::vec::IntoIter<Commitment>,
    /// What is wrong with the line after them.
    fault: Option<&'static str>,
    /// Lines up to `next`.
    lines: u64,
}

impl Merge {
    /// Holds the openings up to the last of these commitments against them; asks `more` for the next chunk.
    pub(crate) fn advance(
        &mut self,
        commitments: &[Commitment],
        mut more: impl FnMut() -> Result<Option<Found>, zip::Error>,
    ) -> Result<(), Stop> {
        for commitment in commitments {
            let Some(opening) = self.peek(&mut more)? else { break };
            match (opening.seq, &opening.name).cmp(&(commitment.seq, &commitment.name)) {
                Ordering::Greater => {}
                Ordering::Equal if opening.hash == commitment.hash => self.next = None,
                Ordering::Equal => return Err(self.failed("does not hash to what its entry seals")),
                Ordering::Less => return Err(self.failed(MISPLACED)),
            }
        }
        Ok(())
    }

    /// After the last commitment no opening may be left.
    pub(crate) fn finish(
        &mut self,
        mut more: impl FnMut() -> Result<Option<Found>, zip::Error>,
    ) -> Result<(), Stop> {
        if self.peek(&mut more)?.is_some() { Err(self.failed(MISPLACED)) } else { Ok(()) }
    }

    fn peek(
        &mut self,
        more: &mut impl FnMut() -> Result<Option<Found>, zip::Error>,
    ) -> Result<Option<&Commitment>, Stop> {
        while self.next.is_none() {
            self.next = self.waiting.next();
            if self.next.is_some() {
                self.lines += 1;
            } else if let Some(what) = self.fault {
                self.lines += 1;
                return Err(self.failed(what));
            } else if let Some(found) = more()? {
                self.waiting = found.openings.into_iter();
                self.fault = found.fault;
            } else {
                break;
            }
        }
        Ok(self.next.as_ref())
    }

    fn failed(&self, what: &str) -> Stop {
        let failure = Failure::new(Check::Openings, format!("line {} of openings.jsonl: {what}", self.lines));
        Stop::Failed(Box::new(match &self.next {
            Some(opening) => failure.at_seq(opening.seq),
            None => failure,
        }))
    }
}
