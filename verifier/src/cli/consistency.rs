//! `statusledger-verify consistency`

use std::fs::File;
use std::io::Read;
use std::path::Path;

use statusledger_verify::check::{Check, Facts, Failure};
use statusledger_verify::checkpoint::{Checkpoint, SignedCheckpoint};
use statusledger_verify::consistency::{self, ConsistencyProof, Evidence};
use statusledger_verify::encoding::hex;
use statusledger_verify::manifest::{self, Pin, Revoked, TrustedKeys};
use statusledger_verify::report::{Mode, Report, Subject};
use statusledger_verify::{Hash, export, receipt};

use super::answer::{Answers, known_as_of};
use super::arguments::ConsistencyArguments;
use super::export::with_progress;
use super::{Error, Outcome, input};

/// The bytes that a zip starts with.
const ZIP: &[u8] = b"PK";

pub(super) fn run(arguments: &ConsistencyArguments, answers: &mut Answers) -> Result<Outcome, Error> {
    let ConsistencyArguments { older, newer, keys, proof, common } = arguments;
    let files = [older.as_path(), newer.as_path(), keys.as_path()].into_iter();
    input::check_stdin_once(files.chain(proof.as_deref()))?;
    let manifest = input::read(keys, manifest::MAX_BYTES)?;
    let proof = proof.as_deref().map(|path| input::read(path, consistency::MAX_BYTES)).transpose()?;
    let (older_source, newer_source) = (Source::read(older)?, Source::read(newer)?);
    let Some(pin) = &common.pin else {
        answers.unpinned(older)?;
        answers.unpinned(newer)?;
        return Ok(answers.outcome());
    };
    let trust = Trust { pin, manifest: &manifest, keys: super::receipt::trust(&manifest, pin) };
    let older_history = older_source.verify(&trust, None)?;
    let size = older_history.as_ref().ok().map(|history| history.checkpoint.size);
    let newer_history = newer_source.verify(&trust, size)?;
    let (older_history, newer_history) = match (older_history, newer_history) {
        (Ok(older_history), Ok(newer_history)) => (older_history, newer_history),
        (older_result, newer_result) => {
            for (file, result) in [(older, older_result), (newer, newer_result)] {
                match result {
                    Ok(history) => answers.verified(file, &history.facts, &history.describe())?,
                    Err(failure) => answers.failure(file, &failure)?,
                }
            }
            return Ok(answers.outcome());
        }
    };
    let recomputed_root = match newer_history.recomputed_root {
        None if newer_history.checkpoint.size < older_history.checkpoint.size => {
            let again = older_source.verify(&trust, Some(newer_history.checkpoint.size))?;
            again.ok().and_then(|history| history.recomputed_root)
        }
        root => root,
    };
    let proof = proof.as_deref().map(ConsistencyProof::parse).transpose();
    let result = proof.map_err(consistency::Error::from).and_then(|proof| {
        let evidence = Evidence { proof: proof.as_ref(), recomputed_root };
        consistency::verify(&older_history.checkpoint, &newer_history.checkpoint, evidence)
    });
    let failure = match result {
        Ok(()) => None,
        Err(consistency::Error::Failed(failure)) => Some(failure.with_facts(&newer_history.facts)),
        Err(needed @ consistency::Error::ProofNeeded { .. }) => return Err(Error::Usage(needed.to_string())),
    };
    answers.verified(older, &older_history.facts, &older_history.describe())?;
    match failure {
        Some(failure) => answers.failure(newer, &failure)?,
        None => {
            let what = format!("{}, consistent with the older", newer_history.describe());
            answers.verified(newer, &newer_history.facts, &what)?;
        }
    }
    Ok(answers.outcome())
}

/// What the sources are verified under.
struct Trust<'a> {
    pin: &'a Pin,
    manifest: &'a [u8],
    keys: Result<TrustedKeys, Failure>,
}

/// A file that has a checkpoint.
enum Source<'a> {
    Body(Vec<u8>),
    Checkpoint(Vec<u8>),
    Export(&'a Path),
}

/// What a source says about its log, verified.
struct History {
    checkpoint: Checkpoint,
    facts: Facts,
    /// The root at the size that was asked for, where the source has all entries up to there.
    recomputed_root: Option<Hash>,
}

impl History {
    fn describe(&self) -> String {
        let Checkpoint { origin, size, root } = &self.checkpoint;
        format!("log {origin}, size {size}, root {}{}", hex(root), known_as_of(&self.facts))
    }
}

impl<'a> Source<'a> {
    /// Tells by the first bytes what a file is (a zip, a JSON object, or else a checkpoint), and by its name where
    /// they say nothing: damage should be found by the checks of what the file is meant to be.
    fn read(path: &'a Path) -> Result<Self, Error> {
        let is_named =
            |extension: &str| path.extension().is_some_and(|found| found.eq_ignore_ascii_case(extension));
        if !input::is_stdin(path) {
            let mut start = Vec::new();
            File::open(path)
                .and_then(|file| file.take(2).read_to_end(&mut start))
                .map_err(|source| Error::Read { path: path.to_owned(), source })?;
            if start == ZIP || is_named("zip") {
                return Ok(Self::Export(path));
            }
        }
        let bytes = input::read(path, receipt::MAX_BYTES)?;
        if bytes.starts_with(ZIP) {
            return Err(Error::Usage("an export cannot be read from standard input".to_owned()));
        }
        let is_body = bytes.trim_ascii_start().starts_with(b"{") || is_named("json");
        Ok(if is_body { Self::Body(bytes) } else { Self::Checkpoint(bytes) })
    }

    /// Verifies the source; what revoked keys signed counts, for two histories under one key are the finding. An
    /// export from 0 also answers the root that it had at `size`.
    fn verify(&self, trust: &Trust<'_>, size: Option<u64>) -> Result<Result<History, Failure>, Error> {
        match self {
            Self::Body(body) => {
                let options = receipt::Options {
                    mode: Mode::Evidence,
                    revoked: Revoked::Counted,
                    ..receipt::Options::default()
                };
                Ok(super::receipt::verify(body, &trust.keys, &options)
                    .map(|report| History::of(report, None)))
            }
            Self::Checkpoint(bytes) => Ok(verify_checkpoint(bytes, trust)),
            Self::Export(path) => match verify_export(path, trust, size) {
                Ok((report, root)) => Ok(Ok(History::of(report, root))),
                Err(export::Error::Failed(failure)) => Ok(Err(failure)),
                Err(export::Error::Io(source)) => Err(Error::Read { path: path.to_path_buf(), source }),
            },
        }
    }
}

impl History {
    fn of(report: Report, root: Option<Hash>) -> Self {
        let is_whole = matches!(report.subject, Subject::Export { from: 0, .. });
        let recomputed_root = root.filter(|_| is_whole);
        Self { checkpoint: report.checkpoint, facts: report.facts, recomputed_root }
    }
}

fn verify_export(
    path: &Path,
    trust: &Trust<'_>,
    size: Option<u64>,
) -> Result<(Report, Option<Hash>), export::Error> {
    let options =
        export::Options { mode: Mode::Evidence, revoked: Revoked::Counted, ..export::Options::default() };
    let (pin, keys) = (trust.pin, Some(trust.manifest));
    with_progress(|progress| match size {
        Some(size) => export::verify_with_root_at(path, pin, keys, &options, size, progress),
        None => export::verify(path, pin, keys, &options, progress).map(|report| (report, None)),
    })
}

/// A checkpoint by itself: it parses, is of a ledger of the pinned instance, and the log signed it.
fn verify_checkpoint(bytes: &[u8], trust: &Trust<'_>) -> Result<History, Failure> {
    let keys = trust.keys.as_ref().map_err(Failure::clone)?;
    let mut facts = Facts {
        keys_serial: Some(keys.manifest().serial),
        keys_issued_at: Some(keys.manifest().issued_at),
        ..Facts::default()
    };
    let signed =
        SignedCheckpoint::parse(bytes).map_err(|error| Failure::new(Check::Proof, error.to_string()))?;
    let checkpoint = signed.checkpoint();
    facts.checkpoint_size = Some(checkpoint.size);
    let instance = &keys.manifest().instance;
    let ledger =
        checkpoint.origin.split_once('/').filter(|(name, _)| name == instance).map(|(_, ledger)| ledger);
    let Some(ledger) = ledger else {
        let detail = format!("the checkpoint is not of a ledger of {instance}");
        return Err(Failure::new(Check::Origin, detail).with_facts(&facts));
    };
    facts.instance = Some(instance.clone());
    facts.ledger = Some(ledger.to_owned());
    let signatures = signed
        .verify(keys, None, Revoked::Counted)
        .map_err(|error| Failure::new(Check::CheckpointSignature, error.to_string()).with_facts(&facts))?;
    facts.key_id = Some(signatures.key_id);
    Ok(History { checkpoint: checkpoint.clone(), facts, recomputed_root: None })
}
