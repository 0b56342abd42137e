//! `openings.jsonl` (E21): each line has to match what its entry seals.
//!
//! Both members are in the order of `seq` and name, so they are merged as they stream by, and neither is kept. The
//! hash over a value is computed where the line is parsed, in parallel; what is left to the merge is comparing.

use std::cmp::Ordering;

use super::entries::Commitment;
use super::zip;
use crate::encoding::parse_base64_array;
use crate::entry::sealed_hash;
use crate::json::{MAX_DEPTH, MAX_SEALED_DEPTH};
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
    // Whatever its end, a line beyond the limit is too long.
    let content = line.strip_suffix(b"\n").unwrap_or(line);
    if content.len() > LONGEST {
        return Err("more than 8 MiB");
    }
    if content.len() == line.len() {
        return Err("no line feed after it");
    }
    // Exporters write canonical lines; others of the same meaning are as good, and rare.
    match parse_canonical(content) {
        Some(parsed) => parsed,
        None => {
            let canonical = scan::rewrite(content, MAX_DEPTH).ok_or("not JSON of the restricted kind")?;
            parse_canonical(&canonical).expect("what was rewritten is canonical")
        }
    }
}

/// The same for a line without its end; `None` if it is not canonical.
fn parse_canonical(line: &[u8]) -> Option<Result<Commitment, &'static str>> {
    let mut names = [""; MEMBERS.len()];
    let mut values = [""; MEMBERS.len()];
    let mut count = 0;
    scan::members(line, "", |name, value, _| {
        if count < MEMBERS.len() {
            (names[count], values[count]) = (name, value);
        }
        count += 1;
    })
    .ok()?;
    if count != MEMBERS.len() || names != MEMBERS {
        return Some(Err("other members than name, salt, seq and value"));
    }
    Some(commitment(values))
}

fn commitment([name, salt, seq, value]: [&str; 4]) -> Result<Commitment, &'static str> {
    // As written: a name or salt that needs an escape is none.
    let text = |value: &'_ str| Some(value.strip_prefix('"')?.strip_suffix('"')?.to_owned());
    let salt =
        text(salt).and_then(|salt| parse_base64_array(&salt)).ok_or("salt is not 32 bytes in base64")?;
    if scan::canonical_with_levels(value.as_bytes(), MAX_SEALED_DEPTH).is_err() {
        return Err("a value of more than 24 levels");
    }
    Ok(Commitment {
        seq: seq.parse().map_err(|_| "seq is not a number from 0 on")?,
        name: text(name).ok_or("name is not a name")?,
        hash: sealed_hash(&salt, value.as_bytes()),
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
