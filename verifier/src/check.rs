//! The checks of formats.md, "Checks and answers", numbered in their order, and the failure that names one.
//!
//! What each check covers is written at its variant of [`Check`]. A receipt goes through R1 to R17, an export
//! through E1 to E22, both in that order; the first check that fails is the `failed_check` of the answer. Two of
//! them, `key_revoked` and `stale`, do not end the verification: the others go on, and what they find is in
//! [`Failure::also`].

use std::fmt;

use crate::Hash;
use crate::time::Timestamp;

/// A check, by the name that answers give it.
///
/// `R` numbers the checks of a receipt, `E` those of an export, `N` those between several bodies, `C` that of two
/// histories, `K` that of two key manifests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Check {
    /// R1. The body is one document of canonical JSON's restricted kind: at most 8 MiB; UTF-8 without a byte
    /// order mark; nothing after the document; no duplicate member at any place; every number an integer with
    /// |n| <= 2^53-1, without fraction, exponent, leading zero or `-0`; no lone surrogate; at most 32 levels, 24
    /// in an opening's value; the entry in it at most 65,535 canonical bytes.
    Json,
    /// R2, E2. Every object has exactly its listed members, and each is what the table says: hashes and key ids
    /// 64 lowercase hex digits, binary in strict base64 of the right length, times, UUIDs, instance names and
    /// types well formed, versions `1`, `number` at least 1, `prev` of seq 0 zeros, `data.sealed` names to hashes,
    /// `openings` absent rather than empty. In an export: `manifest.json` (E2), and each line (E14).
    Members,
    /// R3, E3. The key manifest under the pin: it is read like a body (1 MiB, 1,024 keys); its members; unique
    /// ids, each the hash of its key; no weak or malformed key; `expires` at most 100 days after `issued_at`;
    /// windows and `verify_until` as the table says; every endorsement verifies, by a root that stands before and
    /// was in its window; the pinned root is in it; its signature verifies under a root that is trusted and
    /// current.
    Manifest,
    /// R4, E4. Receipt or export, key manifest and pin name the same instance.
    Instance,
    /// R5, E5. The ledger is the one asked for. In an export also: `manifest.json` and, by line (E16), each entry
    /// name the same ledger.
    Ledger,
    /// R6. The destination is the one asked for.
    Destination,
    /// R7, E6. The manifest has a key of purpose `receipt` with this `key_id`.
    KeyUnknown,
    /// R8, E7. That key is not revoked, whatever the date. (As evidence, a receipt whose policy is met by
    /// cosignatures dated before `revoked_at` stands all the same.) The checks go on.
    KeyRevoked,
    /// R9, E8. `issued_at` (`exported_at`) lies in the key's window, both ends included.
    KeyWindow,
    /// R10, E9. Fresh only: neither the key's `verify_until` nor the manifest's `expires` is past. The checks go
    /// on.
    Stale,
    /// R11, E10. The Ed25519 signature verifies: canonical S and R, R not of small order, cofactorless equation.
    Signature,
    /// R12. The proof, and the checkpoint in it, parse as the formats say: `index <seq>` with the entry's own `seq`, at
    /// most 63 hashes, no `extra` line, 1 to 64 signature lines.
    Proof,
    /// R13, E11. The checkpoint's origin is `<instance>/<ledger>`. In an export also: the checkpoint parses.
    Origin,
    /// R14, E12. The checkpoint has the log's own line by a trusted, unrevoked checkpoint key, and no line by a
    /// known key fails to verify.
    CheckpointSignature,
    /// R15. The proof's hashes lead from the entry's leaf hash at `seq` to the checkpoint's root.
    Inclusion,
    /// R16, E21. Each opening is named in its entry's `data.sealed` and hashes to what stands there.
    Openings,
    /// R17, E22. The policy is met by cosignatures of the checkpoint.
    Policy,
    /// E1. The file is a zip of exactly the formats' shape.
    Zip,
    /// E13. The line is canonical, at most 65,535 bytes, and ends in a line feed.
    NotCanonical,
    /// E15. The line's `seq` is the next.
    Seq,
    /// E17. `prev` is the leaf hash of the line before (64 zeros for seq 0).
    Link,
    /// E18. `timestamp` is not earlier than that of the entry before.
    Time,
    /// E19. Without a filter no line is left out; with one, every entry present is of a type that it lists.
    Filter,
    /// E20. The lines cover `from` to `to`, and `count` of them are entries.
    Count,
    /// E20. `left` and the leaves hash to `root`, and the checkpoint is of this root and of size `to`.
    Root,
    /// N1. With `--complete`: no number is missing between the lowest and the highest of a ledger and destination.
    NumberGap,
    /// N2. No number has two seqs, and numbers rise as seq does, within a ledger and destination.
    NumberConflict,
    /// C1. The newer tree is an extension of the older.
    Inconsistent,
    /// K1. The newer manifest's serial is not lower, no key disappeared, and no `not_after`, `verify_until` or
    /// `revoked_at` that was set is another.
    Rollback,
    /// Nothing was verified, for there was no pin to verify it under.
    Unpinned,
}

impl Check {
    /// The name in answers, as formats.md writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Members => "members",
            Self::Manifest => "manifest",
            Self::Instance => "instance",
            Self::Ledger => "ledger",
            Self::Destination => "destination",
            Self::KeyUnknown => "key_unknown",
            Self::KeyRevoked => "key_revoked",
            Self::KeyWindow => "key_window",
            Self::Stale => "stale",
            Self::Signature => "signature",
            Self::Proof => "proof",
            Self::Origin => "origin",
            Self::CheckpointSignature => "checkpoint_signature",
            Self::Inclusion => "inclusion",
            Self::Openings => "openings",
            Self::Policy => "policy",
            Self::Zip => "zip",
            Self::NotCanonical => "not_canonical",
            Self::Seq => "seq",
            Self::Link => "link",
            Self::Time => "time",
            Self::Filter => "filter",
            Self::Count => "count",
            Self::Root => "root",
            Self::NumberGap => "number_gap",
            Self::NumberConflict => "number_conflict",
            Self::Inconsistent => "inconsistent",
            Self::Rollback => "rollback",
            Self::Unpinned => "unpinned",
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// What a verification has learnt about a file, whether or not it succeeded: the columns of an answer.
///
/// In a [`Failure`] these are what the file says of itself as far as it was read; they are proven only in a
/// [`Report`](crate::Report).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The entry's `seq`; in an export's failure the line at fault.
    pub seq: Option<u64>,
    /// The instance that signed.
    pub instance: Option<String>,
    /// The ledger's UUID.
    pub ledger: Option<String>,
    /// The key that signed.
    pub key_id: Option<Hash>,
    /// The size of the tree that the checkpoint names.
    pub checkpoint_size: Option<u64>,
    /// How many entries an export leaves out.
    pub withheld: Option<u64>,
    /// The key manifest's serial: revocations are known as far as it goes.
    pub keys_serial: Option<u64>,
    /// When that manifest was issued.
    pub keys_issued_at: Option<Timestamp>,
}

/// A file did not verify.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{check}: {detail}{}", Also(.also))]
pub struct Failure {
    /// The first check, in the order of formats.md, that failed.
    pub check: Check,
    /// What is wrong, and where.
    pub detail: String,
    /// The entry that is concerned, where it is one.
    pub seq: Option<u64>,
    /// What failed after `check`, where that one let the others go on.
    pub also: Vec<(Check, String)>,
    /// What the file says of itself.
    pub facts: Box<Facts>,
}

/// Writes the later findings behind the first.
struct Also<'a>(&'a [(Check, String)]);

impl fmt::Display for Also<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(check, detail)| write!(formatter, "; also {check}: {detail}"))
    }
}

impl Failure {
    /// A failed check, with what is wrong and where.
    pub fn new(check: Check, detail: impl Into<String>) -> Self {
        Self { check, detail: detail.into(), seq: None, also: Vec::new(), facts: Box::default() }
    }

    /// The same, about the entry of this `seq`.
    #[must_use]
    pub fn at_seq(mut self, seq: u64) -> Self {
        self.seq = Some(seq);
        self.facts.seq = Some(seq);
        self
    }

    /// The same, with what is known of the file. A `seq` that the failure already names stays.
    #[must_use]
    pub fn with_facts(mut self, facts: &Facts) -> Self {
        let seq = self.seq.or(facts.seq);
        *self.facts = facts.clone();
        self.facts.seq = seq;
        self
    }
}

/// The checks that failed so far without ending the verification (`key_revoked`, `stale`), in their order.
#[derive(Debug, Default)]
pub struct Findings(Vec<(Check, String)>);

impl Findings {
    /// Nothing failed yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes a failure that lets the other checks go on.
    pub fn note(&mut self, check: Check, detail: impl Into<String>) {
        self.0.push((check, detail.into()));
    }

    /// Takes back what was noted of a check: something found later excuses it.
    pub fn withdraw(&mut self, check: Check) {
        self.0.retain(|(noted, _)| *noted != check);
    }

    /// The end of the verification: fails where something was noted.
    ///
    /// # Errors
    /// The first finding, with the later ones in [`Failure::also`].
    pub fn finish(self) -> Result<(), Failure> {
        let mut findings = self.0.into_iter();
        match findings.next() {
            None => Ok(()),
            Some((check, detail)) => Err(Failure { also: findings.collect(), ..Failure::new(check, detail) }),
        }
    }

    /// A check failed that ends the verification: what was noted before it goes first.
    pub fn end_with(self, failure: Failure) -> Failure {
        let mut findings = self.0.into_iter();
        match findings.next() {
            None => failure,
            Some((check, detail)) => {
                let mut also: Vec<_> = findings.collect();
                also.push((failure.check, failure.detail));
                also.extend(failure.also);
                Failure { check, detail, seq: failure.seq, also, facts: failure.facts }
            }
        }
    }
}
