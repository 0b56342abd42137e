//! What several receipts say together: no number is missing, and none stands for two entries.
//!
//! Numbers count 1, 2, 3, … per destination and rise as `seq` does, so whoever holds n and n + 2 knows that one was
//! lost on the way, and whoever holds one number twice that somebody was told something else. Only receipts that
//! verified belong here.

use std::collections::BTreeMap;

use crate::check::{Check, Failure};
use crate::report::{Report, Subject};

/// The place of a verified receipt among its destination's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Numbered {
    /// The entry's ledger.
    pub ledger: String,
    /// The destination that the receipt was made for.
    pub destination: String,
    /// Its number there.
    pub number: u64,
    /// The entry's `seq`.
    pub seq: u64,
}

impl Numbered {
    /// Of a receipt's report; none of an export's.
    pub fn of(report: &Report) -> Option<Self> {
        let Subject::Receipt { destination, number, .. } = &report.subject else { return None };
        Some(Self {
            ledger: report.facts.ledger.clone()?,
            destination: destination.clone(),
            number: *number,
            seq: report.facts.seq?,
        })
    }
}

/// Checks receipts against each other (N1, N2), each ledger and destination for itself.
///
/// Answers the failures by the index of the receipt that each is about, in rising order, at most one a receipt. A
/// conflict is about all receipts that take part in it, since nothing says which is right; a gap is about the first
/// receipt after it. A receipt that is there more than once (a re-issue keeps its number) is no conflict.
/// Gaps are looked for only where `complete` is set.
pub fn check(receipts: &[Numbered], complete: bool) -> Vec<(usize, Failure)> {
    let mut groups: BTreeMap<(&str, &str), Vec<usize>> = BTreeMap::new();
    for (index, receipt) in receipts.iter().enumerate() {
        groups.entry((&receipt.ledger, &receipt.destination)).or_default().push(index);
    }
    let mut failures: BTreeMap<usize, Failure> = BTreeMap::new();
    for mut group in groups.into_values() {
        group.sort_by_key(|index| (receipts[*index].number, receipts[*index].seq, *index));
        for pair in group.windows(2) {
            let (before, after) = (&receipts[pair[0]], &receipts[pair[1]]);
            if let Some(detail) = conflict(before, after) {
                for index in pair {
                    let failure = Failure::new(Check::NumberConflict, &detail).at_seq(receipts[*index].seq);
                    failures.insert(*index, failure);
                }
            } else if complete && after.number > before.number + 1 {
                let detail = format!(
                    "the numbers from {} to {} are missing before number {}",
                    before.number + 1,
                    after.number - 1,
                    after.number
                );
                let failure = Failure::new(Check::NumberGap, detail).at_seq(after.seq);
                failures.entry(pair[1]).or_insert(failure);
            }
        }
    }
    failures.into_iter().collect()
}

fn conflict(before: &Numbered, after: &Numbered) -> Option<String> {
    let (number, seq) = (after.number, after.seq);
    if before.number == number {
        (before.seq != seq)
            .then(|| format!("the number {number} stands for the seqs {} and {seq}", before.seq))
    } else {
        (before.seq >= seq).then(|| {
            format!("number {} is of seq {}, number {number} of seq {seq}", before.number, before.seq)
        })
    }
}
