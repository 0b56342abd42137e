//! Exports: a ledger, or a part of it, in one file that proves itself.
//!
//! The order of the work is not the order of the file. The small documents stand behind the entries but are checked
//! first (E2 to E12), because what they say decides what a line has to be. Then entries and openings are streamed
//! once, in constant memory, on all cores (E13 to E21). The zip itself is E1 and its check sums are known last, so a
//! check that fails earlier in time still waits for them.
//!
//! - `zip`: where the members are; `member`: their bytes; `parallel`: their lines, in order, on all cores
//! - `manifest`: `manifest.json`; `line`: a line of the others
//! - `entries` and `subtrees`: the chain and the tree; `openings`: the sealed values; `stream`: all in one pass

mod entries;
mod line;
mod manifest;
mod member;
mod openings;
mod parallel;
mod stream;
mod subtrees;
mod zip;

use std::fs::File;
use std::io;
use std::path::Path;

use self::entries::Rules;
use self::manifest::Manifest;
use self::stream::Streamed;
use crate::Hash;
use crate::check::{Check, Facts, Failure, Findings};
use crate::checkpoint::{Signatures, SignedCheckpoint, origin};
use crate::encoding::hex;
use crate::manifest::{KeyManifest, Pin, Revoked, TrustedKeys};
use crate::policy::Policy;
use crate::report::{Mode, Report, Subject, TimeSource, Verdict};
use crate::signature::{Kind, message};
use crate::time::Timestamp;

/// Bytes that a checkpoint may have: 64 signature lines with room to spare.
const MAX_CHECKPOINT_BYTES: u64 = 64 << 10;
/// Bytes that a key manifest may have.
const MAX_KEYS_BYTES: u64 = crate::manifest::MAX_BYTES as u64;

/// What is asked of an export.
#[derive(Clone, Debug)]
pub struct Options {
    /// The ledger that it has to be of.
    pub ledger: Option<String>,
    /// When it is judged; now if not given. Only freshness depends on it.
    pub at: Option<Timestamp>,
    /// How fresh it has to be; evidence by default.
    pub mode: Mode,
    /// Whose cosignatures the checkpoint has to have.
    pub policy: Option<Policy>,
    /// Whether revoked keys count.
    pub revoked: Revoked,
}

impl Default for Options {
    /// Evidence, of any ledger, without witnesses.
    fn default() -> Self {
        Self { ledger: None, at: None, mode: Mode::Evidence, policy: None, revoked: Revoked::Refused }
    }
}

/// An export did not verify.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It was read, and a check failed.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// It could not be read. Nothing is known about it.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<zip::Error> for Error {
    fn from(error: zip::Error) -> Self {
        match error {
            zip::Error::Zip(detail) => Self::Failed(Failure::new(Check::Zip, detail)),
            zip::Error::Io(error) => Self::Io(error),
        }
    }
}

/// Verifies an export under a pin.
///
/// `keys` are the bytes of a key manifest that is trusted in place of the export's own `keys.json`, which may be
/// older. `progress` is called with the bytes of lines that are done and those that there are, in rising order, on
/// the calling thread.
///
/// Reads the file once, from any number of threads, in constant memory (some MiB, and up to 8 MiB a thread for
/// large openings). The file must not change meanwhile.
///
/// # Errors
/// [`Error::Failed`] with the first check that fails; [`Error::Io`] where the file cannot be read.
pub fn verify(
    path: &Path,
    pin: &Pin,
    keys: Option<&[u8]>,
    options: &Options,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<Report, Error> {
    verify_with_root(path, pin, keys, options, None, progress).map(|(report, _)| report)
}

/// Verifies an export like [`verify`], and computes the root that its ledger's tree had at `size`: what an older
/// checkpoint of the same history has to say. `None` where `size` is outside of the export.
///
/// # Errors
/// As [`verify`].
pub fn verify_with_root_at(
    path: &Path,
    pin: &Pin,
    keys: Option<&[u8]>,
    options: &Options,
    size: u64,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<(Report, Option<Hash>), Error> {
    verify_with_root(path, pin, keys, options, Some(size), progress)
}

fn verify_with_root(
    path: &Path,
    pin: &Pin,
    keys: Option<&[u8]>,
    options: &Options,
    root_at: Option<u64>,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<(Report, Option<Hash>), Error> {
    let file = File::open(path)?;
    if !file.metadata()?.is_file() {
        let what = "an export is read from several places at once, so it has to be a regular file";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what).into());
    }
    let directory = zip::read_directory(&file)?;
    let documents = Documents {
        checkpoint: member::read_small(&file, &directory.checkpoint, MAX_CHECKPOINT_BYTES)?,
        keys: member::read_small(&file, &directory.keys, MAX_KEYS_BYTES)?,
        manifest: member::read_small(&file, &directory.manifest, manifest::MAX_BYTES)?,
    };
    let mut facts = Facts::default();
    let mut findings = Findings::new();
    let head = match documents.check(pin, keys, options, &mut facts, &mut findings) {
        Ok(head) => head,
        Err(failure) => {
            stream::read_only(&file, &directory, progress)?;
            return Err(findings.end_with(failure).with_facts(&facts).into());
        }
    };
    let rules = Rules {
        ledger: head.manifest.ledger.clone(),
        types: head.manifest.filter.as_ref().map(|types| types.iter().cloned().collect()),
        with_commitments: directory.openings.is_some(),
        root_at,
    };
    let streamed = match stream::stream(&file, &directory, head.manifest.from, &rules, progress) {
        Ok(streamed) => streamed,
        Err(zip::Error::Io(error)) => return Err(error.into()),
        Err(zip::Error::Zip(detail)) => {
            return Err(Failure::new(Check::Zip, detail).with_facts(&facts).into());
        }
    };
    match head.finish(streamed, options, root_at, &mut facts) {
        Ok(root) => {
            findings.finish().map_err(|failure| failure.with_facts(&facts))?;
            Ok((head.report(options, facts), root))
        }
        Err(failure) => Err(findings.end_with(failure).with_facts(&facts).into()),
    }
}

/// The members beside the lines, as read; none of one that is too large.
struct Documents {
    checkpoint: Option<Vec<u8>>,
    keys: Option<Vec<u8>>,
    manifest: Option<Vec<u8>>,
}

/// The documents, checked.
struct Head {
    manifest: Manifest,
    checkpoint: SignedCheckpoint,
    signatures: Signatures,
}

impl Documents {
    /// E2 to E12.
    fn check(
        &self,
        pin: &Pin,
        keys: Option<&[u8]>,
        options: &Options,
        facts: &mut Facts,
        findings: &mut Findings,
    ) -> Result<Head, Failure> {
        let manifest = Manifest::parse(self.manifest.as_deref())?;
        *facts = manifest.facts();
        let keys = self.trust(pin, keys, facts)?;
        check_names(&manifest, &keys, options)?;
        check_key(&manifest, &keys, options, findings)?;
        let checkpoint = self.read_checkpoint(&manifest, facts)?;
        let signatures = checkpoint
            .verify(&keys, options.policy.as_ref(), options.revoked)
            .map_err(|error| Failure::new(Check::CheckpointSignature, error.to_string()))?;
        Ok(Head { manifest, checkpoint, signatures })
    }

    /// E3.
    fn trust(&self, pin: &Pin, keys: Option<&[u8]>, facts: &mut Facts) -> Result<TrustedKeys, Failure> {
        let Some(keys) = keys.or(self.keys.as_deref()) else {
            return Err(Failure::new(
                Check::Manifest,
                format!("keys.json has more than {MAX_KEYS_BYTES} bytes"),
            ));
        };
        let keys = KeyManifest::parse(keys)?;
        facts.keys_serial = Some(keys.serial);
        facts.keys_issued_at = Some(keys.issued_at);
        keys.trust(pin)
    }

    /// E11.
    fn read_checkpoint(&self, manifest: &Manifest, facts: &mut Facts) -> Result<SignedCheckpoint, Failure> {
        let failure = |detail: String| Failure::new(Check::Origin, detail);
        let bytes = self
            .checkpoint
            .as_deref()
            .ok_or_else(|| failure(format!("the checkpoint has more than {MAX_CHECKPOINT_BYTES} bytes")))?;
        let signed = SignedCheckpoint::parse(bytes).map_err(|error| failure(error.to_string()))?;
        let checkpoint = signed.checkpoint();
        facts.checkpoint_size = Some(checkpoint.size);
        let expected = origin(&manifest.instance, &manifest.ledger);
        if checkpoint.origin != expected {
            return Err(failure(format!("the checkpoint is of another log than {expected}")));
        }
        Ok(signed)
    }
}

/// E4 and E5.
fn check_names(manifest: &Manifest, keys: &TrustedKeys, options: &Options) -> Result<(), Failure> {
    let of_keys = &keys.manifest().instance;
    if manifest.instance != *of_keys {
        let detail = format!("the export is of {}, the key manifest of {of_keys}", manifest.instance);
        return Err(Failure::new(Check::Instance, detail));
    }
    match &options.ledger {
        Some(asked) if *asked != manifest.ledger => {
            let detail = format!("the export is of ledger {}, not {asked}", manifest.ledger);
            Err(Failure::new(Check::Ledger, detail))
        }
        _ => Ok(()),
    }
}

/// E6 to E10.
fn check_key(
    manifest: &Manifest,
    keys: &TrustedKeys,
    options: &Options,
    findings: &mut Findings,
) -> Result<(), Failure> {
    let named = hex(&manifest.key_id);
    let key = keys.receipt_key(&manifest.key_id).ok_or_else(|| {
        Failure::new(Check::KeyUnknown, format!("the key manifest has no receipt key {named}"))
    })?;
    if let Some(revoked_at) = key.revoked_at.filter(|_| options.revoked == Revoked::Refused) {
        findings.note(Check::KeyRevoked, format!("the receipt key {named} was revoked at {revoked_at}"));
    }
    if !key.window_contains(manifest.exported_at) {
        let detail =
            format!("exported at {}, outside of the window of the key {named}", manifest.exported_at);
        return Err(Failure::new(Check::KeyWindow, detail));
    }
    if options.mode == Mode::Fresh {
        let at = options.at.unwrap_or_else(Timestamp::now);
        let expires = keys.manifest().expires;
        if let Some(until) = key.verify_until.filter(|until| *until < at) {
            findings.note(Check::Stale, format!("what the key {named} signed is fresh until {until}"));
        } else if expires < at {
            findings.note(Check::Stale, format!("the key manifest expired at {expires}"));
        }
    }
    key.public_key.verify(&message(Kind::Export, &manifest.signed), &manifest.signature).map_err(|error| {
        Failure::new(Check::Signature, format!("manifest.json, by the key {named}: {error}"))
    })
}

impl Head {
    /// E20 to E22, after what the lines came to. Answers with the root at the size wanted.
    fn finish(
        &self,
        streamed: Streamed,
        options: &Options,
        root_at: Option<u64>,
        facts: &mut Facts,
    ) -> Result<Option<Hash>, Failure> {
        let Manifest { from, to, count, root, left, .. } = &self.manifest;
        let beyond =
            || Failure::new(Check::Seq, format!("seq {to} where the export ends before {to}")).at_seq(*to);
        let chain = streamed.chain.map_err(|failure| match failure.seq {
            // The first line too many is wrong by its seq, whatever is wrong with it or those behind it later on.
            Some(seq) if seq > *to => beyond(),
            Some(seq)
                if seq == *to
                    && !matches!(failure.check, Check::NotCanonical | Check::Members | Check::Seq) =>
            {
                beyond()
            }
            _ => failure,
        })?;
        facts.withheld = Some(chain.withheld);
        let (lines, present) = (chain.lines, chain.lines - chain.withheld);
        if lines > to - from {
            return Err(beyond());
        }
        if lines != to - from {
            let detail = format!("{lines} lines for the entries from {from} to before {to}");
            return Err(Failure::new(Check::Count, detail));
        }
        if present != *count {
            let detail = format!("{present} entries, where the manifest counts {count}");
            return Err(Failure::new(Check::Count, detail));
        }
        let failure = |what: &str| Failure::new(Check::Root, what);
        let computed = chain
            .root(left)
            .ok_or_else(|| failure("the hashes in left are more or fewer than from has subtrees"))?;
        if computed != *root {
            return Err(failure("left and the entries hash to another root than the manifest's"));
        }
        let checkpoint = self.checkpoint.checkpoint();
        if (checkpoint.size, checkpoint.root) != (*to, *root) {
            return Err(failure("the checkpoint is not of the tree that the export ends with"));
        }
        streamed.openings?;
        let cosignatures = &self.signatures.cosignatures;
        if options.policy.as_ref().is_some_and(|policy| !policy.is_met_by(cosignatures)) {
            let detail = format!("{} of its witnesses cosigned, no quorum", cosignatures.len());
            return Err(Failure::new(Check::Policy, detail));
        }
        Ok(root_at.and_then(|size| chain.wanted_root(left, size)))
    }

    fn report(self, options: &Options, facts: Facts) -> Report {
        let cosignatures = &self.signatures.cosignatures;
        Report {
            verdict: if options.policy.is_some() { Verdict::Witnessed } else { Verdict::Included },
            time: if cosignatures.is_empty() { TimeSource::Claimed } else { TimeSource::Witnessed },
            facts,
            checkpoint: self.checkpoint.checkpoint().clone(),
            subject: Subject::Export {
                from: self.manifest.from,
                to: self.manifest.to,
                count: self.manifest.count,
                exported_at: self.manifest.exported_at,
            },
        }
    }
}

/// What the fuzz targets reach into; built for them alone.
#[cfg(fuzzing)]
pub mod fuzzing {
    use super::{line, openings, zip};

    /// Takes a line of `entries.jsonl` apart; whether it is an entry or stands for one.
    pub fn line(input: &[u8]) -> bool {
        line::Line::parse(input).is_ok()
    }

    /// Takes a line of `openings.jsonl` apart; its seq, name and hash.
    pub fn opening(input: &[u8]) -> Option<(u64, String, crate::Hash)> {
        openings::parse(input).ok().map(|opening| (opening.seq, opening.name, opening.hash))
    }

    /// Reads the directory of a zip: names, offsets and lengths of the members' data.
    pub fn directory(file: &std::fs::File) -> Option<Vec<(&'static str, u64, u64)>> {
        let found = zip::read_directory(file).ok()?;
        let members = [&found.entries].into_iter().chain(&found.openings);
        let members = members.chain([&found.checkpoint, &found.keys, &found.manifest]);
        Some(members.map(|member| (member.name, member.offset, member.compressed)).collect())
    }
}
