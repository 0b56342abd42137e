//! The checks by line (E13 to E19) of `entries.jsonl`.
//!
//! A chunk of lines is checked against itself alone ([`check`]): its first line is taken at its word, the others
//! are held against it. Chunks are then joined in order ([`Chain`]), where each first line is held against the line
//! before it. The lowest failing line, and on it the first failing check, is the same as if one thread had read from
//! the start: what a chunk finds wrong below its first line does not depend on what stands before the chunk unless
//! its first line is wrong already.

use std::collections::HashSet;

use super::line::{Entry, Line, Rejected};
use super::subtrees::Subtrees;
use crate::tree::leaf_hash;
use crate::{Check, Failure, Hash};

/// The checks of a line, in the order of the formats.
const ORDER: [Check; 7] =
    [Check::NotCanonical, Check::Members, Check::Seq, Check::Ledger, Check::Link, Check::Time, Check::Filter];

/// What the manifest says about every line.
pub(crate) struct Rules {
    pub(crate) ledger: String,
    /// The types kept; none means that no entry is left out.
    pub(crate) types: Option<HashSet<String>>,
    /// Whether [`Found::commitments`] are wanted.
    pub(crate) with_commitments: bool,
    /// A size of the tree at which the root is wanted as well.
    pub(crate) root_at: Option<u64>,
}

/// A time as written: of one length, so compared as it is.
type Time = [u8; 27];

/// What an entry seals under a name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Commitment {
    pub(crate) seq: u64,
    pub(crate) name: String,
    pub(crate) hash: Hash,
}

/// What is wrong with a line, counted from the start of its chunk.
#[derive(Debug)]
struct Fault {
    line: u64,
    check: Check,
    detail: String,
}

/// What is known of a chunk.
#[derive(Default)]
pub(crate) struct Found {
    lines: u64,
    withheld: u64,
    /// `seq` of the first line, if it has one.
    first_seq: Option<u64>,
    /// `prev` of the first line, if it is an entry.
    first_prev: Option<Hash>,
    /// The first entry's line and time.
    first_time: Option<(u64, Time)>,
    last_leaf: Option<Hash>,
    last_time: Option<Time>,
    subtrees: Subtrees,
    /// `subtrees` before the leaf at which the tree has the size wanted.
    wanted: Option<Subtrees>,
    commitments: Vec<Commitment>,
    /// The lowest line that fails if the first is right; nothing is known of those after it.
    fault: Option<Fault>,
}

/// Checks a chunk of whole lines against itself.
pub(crate) fn check(chunk: &[u8], rules: &Rules) -> Found {
    let mut found = Found::default();
    let mut rest = chunk;
    while !rest.is_empty() {
        let (line, ended) = match memchr::memchr(b'\n', rest) {
            Some(end) => {
                let line = &rest[..end];
                rest = &rest[end + 1..];
                (line, true)
            }
            None => (std::mem::take(&mut rest), false),
        };
        if let Err((check, detail)) = found.add(line, ended, rules) {
            found.fault = Some(Fault { line: found.lines, check, detail });
            break;
        }
        found.lines += 1;
    }
    found
}

impl Found {
    fn add(&mut self, line: &[u8], ended: bool, rules: &Rules) -> Result<(), (Check, String)> {
        if !ended {
            return Err((Check::NotCanonical, "no line feed after it".to_owned()));
        }
        let parsed = Line::parse(line).map_err(|rejected| match rejected {
            Rejected::NotCanonical(fault) => (Check::NotCanonical, fault.to_string()),
            Rejected::Members(what) => (Check::Members, what.to_owned()),
        })?;
        let seq = match &parsed {
            Line::Present(entry) => entry.seq,
            Line::LeftOut { seq, .. } => *seq,
        };
        match self.first_seq {
            None => {
                self.first_seq = Some(seq);
                self.subtrees = Subtrees::at(seq);
            }
            Some(first) if seq == first + self.lines => {}
            Some(first) => return Err(wrong_seq(seq, first + self.lines)),
        }
        let leaf = match parsed {
            Line::LeftOut { leaf, .. } => {
                if rules.types.is_none() {
                    return Err((Check::Filter, "left out, though the export has no filter".to_owned()));
                }
                self.withheld += 1;
                leaf
            }
            Line::Present(entry) => {
                self.add_entry(&entry, rules)?;
                leaf_hash(line)
            }
        };
        self.last_leaf = Some(leaf);
        if rules.root_at == Some(seq) {
            self.wanted = Some(self.subtrees.clone());
        }
        self.subtrees.push(leaf);
        Ok(())
    }

    fn add_entry(&mut self, entry: &Entry<'_>, rules: &Rules) -> Result<(), (Check, String)> {
        if self.lines == 0 {
            self.first_prev = Some(entry.prev);
        }
        let time: Time = entry.timestamp.as_bytes().try_into().expect("a time has 27 characters");
        if self.first_time.is_none() {
            self.first_time = Some((self.lines, time));
        }
        if entry.ledger != rules.ledger {
            return Err((Check::Ledger, format!("of ledger {}, not {}", entry.ledger, rules.ledger)));
        }
        if self.last_leaf.is_some_and(|leaf| leaf != entry.prev) {
            return Err(wrong_link());
        }
        if self.last_time.is_some_and(|last| time < last) {
            return Err(wrong_time());
        }
        self.last_time = Some(time);
        if rules.types.as_ref().is_some_and(|types| !types.contains(entry.kind)) {
            return Err((Check::Filter, format!("of type {}, which the filter does not list", entry.kind)));
        }
        if rules.with_commitments {
            let sealed = entry.commitments();
            self.commitments.extend(sealed.map(|(name, hash)| Commitment {
                seq: entry.seq,
                name: name.to_owned(),
                hash,
            }));
        }
        Ok(())
    }
}

fn wrong_seq(seq: u64, expected: u64) -> (Check, String) {
    (Check::Seq, format!("seq {seq} where {expected} has to be"))
}

fn wrong_link() -> (Check, String) {
    (Check::Link, "prev is not the leaf hash of the line before".to_owned())
}

fn wrong_time() -> (Check, String) {
    (Check::Time, "earlier than the entry before".to_owned())
}

/// The lines read so far.
pub(crate) struct Chain {
    from: u64,
    /// Lines, and how many of them stand for an entry that was left out.
    pub(crate) lines: u64,
    pub(crate) withheld: u64,
    /// The leaf that the next entry has to name, where it is known.
    last_leaf: Option<Hash>,
    last_time: Option<Time>,
    subtrees: Subtrees,
    /// `subtrees` at the size wanted.
    wanted: Option<Subtrees>,
}

impl Chain {
    /// A chain whose first line is `from`. The entry before 0 has a leaf of zeros; of any other start it is unknown.
    pub(crate) fn new(from: u64) -> Self {
        let last_leaf = (from == 0).then_some([0; 32]);
        Self {
            from,
            lines: 0,
            withheld: 0,
            last_leaf,
            last_time: None,
            subtrees: Subtrees::at(from),
            wanted: None,
        }
    }

    /// Adds the chunk that follows and hands out its commitments.
    ///
    /// # Errors
    /// The lowest line that fails, with the first check that fails on it.
    pub(crate) fn join(&mut self, found: Found) -> Result<Vec<Commitment>, Failure> {
        let next = self.from + self.lines;
        let mut faults = Vec::from_iter(found.fault);
        let mut add = |line, (check, detail)| faults.push(Fault { line, check, detail });
        if let Some(seq) = found.first_seq.filter(|seq| *seq != next) {
            add(0, wrong_seq(seq, next));
        }
        if let (Some(leaf), Some(prev)) = (self.last_leaf, found.first_prev)
            && leaf != prev
        {
            add(0, wrong_link());
        }
        if let (Some(last), Some((line, time))) = (self.last_time, found.first_time)
            && time < last
        {
            add(line, wrong_time());
        }
        let rank = |fault: &Fault| (fault.line, ORDER.iter().position(|check| *check == fault.check));
        if let Some(fault) = faults.into_iter().min_by_key(rank) {
            let seq = next + fault.line;
            return Err(Failure::new(fault.check, format!("entry {seq}: {}", fault.detail)).at_seq(seq));
        }
        self.lines += found.lines;
        self.withheld += found.withheld;
        self.last_leaf = found.last_leaf.or(self.last_leaf);
        self.last_time = found.last_time.or(self.last_time);
        if let Some(wanted) = found.wanted {
            let mut all = self.subtrees.clone();
            self.wanted = all.append(&wanted).then_some(all);
        }
        let follows = found.lines == 0 || self.subtrees.append(&found.subtrees);
        debug_assert!(follows, "the first seq of the chunk was just compared");
        Ok(found.commitments)
    }

    /// The root of the tree of what stands before the first line, given by its subtrees, and of all lines; `None`
    /// if there are more or fewer subtrees than the start has.
    pub(crate) fn root(&self, left: &[Hash]) -> Option<Hash> {
        self.root_of(left, &self.subtrees)
    }

    /// The same at the size that [`Rules::root_at`] asks for; `None` also if that is outside of the export.
    pub(crate) fn wanted_root(&self, left: &[Hash], size: u64) -> Option<Hash> {
        if size == self.from + self.lines {
            self.root(left)
        } else {
            self.root_of(left, self.wanted.as_ref()?)
        }
    }

    fn root_of(&self, left: &[Hash], subtrees: &Subtrees) -> Option<Hash> {
        let mut all = Subtrees::before(self.from, left)?;
        if all.append(subtrees) { all.root() } else { None }
    }
}
