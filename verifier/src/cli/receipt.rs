//! `statusledger-verify receipt`

use std::path::Path;

use statusledger_verify::check::Failure;
use statusledger_verify::manifest::{self, KeyManifest, Pin, Revoked, TrustedKeys};
use statusledger_verify::numbering::{self, Numbered};
use statusledger_verify::receipt::{self, Options, Receipt};
use statusledger_verify::report::Report;

use super::answer::Answers;
use super::arguments::ReceiptArguments;
use super::{Error, Outcome, input};

pub(super) fn run(arguments: &ReceiptArguments, answers: &mut Answers) -> Result<Outcome, Error> {
    let files = arguments.bodies.iter().map(|path| path.as_path()).chain([arguments.keys.as_path()]);
    input::check_stdin_once(files.chain(arguments.judging.policy.as_deref()))?;
    let options = Options {
        ledger: arguments.judging.ledger.clone(),
        destination: arguments.destination.clone(),
        at: arguments.judging.at,
        mode: arguments.mode.into(),
        policy: input::read_policy(arguments.judging.policy.as_deref())?,
        revoked: Revoked::Refused,
        verified_checkpoint: None,
    };
    let manifest = input::read(&arguments.keys, manifest::MAX_BYTES)?;
    let Some(pin) = &arguments.common.pin else {
        for path in &arguments.bodies {
            match input::read(path, receipt::MAX_BYTES) {
                Ok(_) => answers.unpinned(path)?,
                Err(error) => answers.unread(path, &error)?,
            }
        }
        return Ok(answers.outcome());
    };
    let keys = trust(&manifest, pin);
    let results: Vec<Result<Verified, Error>> = arguments
        .bodies
        .iter()
        .map(|path| input::read(path, receipt::MAX_BYTES).map(|body| verify(&body, &keys, &options)))
        .collect();
    answer(&arguments.bodies, results, arguments.complete, answers)?;
    Ok(answers.outcome())
}

type Verified = Result<Report, Failure>;

/// Reads a key manifest and verifies it under a pin.
pub(super) fn trust(manifest: &[u8], pin: &Pin) -> Result<TrustedKeys, Failure> {
    KeyManifest::parse(manifest)?.trust(pin)
}

/// Verifies a body. What is wrong with it alone goes before what is wrong with the key manifest.
pub(super) fn verify(body: &[u8], keys: &Result<TrustedKeys, Failure>, options: &Options) -> Verified {
    let receipt = Receipt::parse(body)?;
    match keys {
        Ok(keys) => receipt.verify(keys, options),
        Err(failure) => Err(failure.clone().with_facts(&receipt.facts())),
    }
}

/// Holds what verified against each other, and answers for every file in the order given.
fn answer(
    files: &[impl AsRef<Path>],
    mut results: Vec<Result<Verified, Error>>,
    complete: bool,
    answers: &mut Answers,
) -> Result<(), Error> {
    let verified = results.iter().enumerate().filter_map(|(index, result)| {
        let report = result.as_ref().ok()?.as_ref().ok()?;
        Some((index, Numbered::of(report)?))
    });
    let (indexes, numbered): (Vec<usize>, Vec<Numbered>) = verified.unzip();
    for (index, failure) in numbering::check(&numbered, complete) {
        let result = &mut results[indexes[index]];
        if let Ok(Ok(report)) = result {
            *result = Ok(Err(failure.with_facts(&report.facts)));
        }
    }
    for (file, result) in files.iter().zip(&results) {
        match result {
            Ok(Ok(report)) => answers.report(file.as_ref(), report)?,
            Ok(Err(failure)) => answers.failure(file.as_ref(), failure)?,
            Err(error) => answers.unread(file.as_ref(), error)?,
        }
    }
    Ok(())
}
