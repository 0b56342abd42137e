//! `statusledger-verify keys`

use statusledger_verify::check::Facts;
use statusledger_verify::manifest::{self, KeyManifest, Purpose, TrustedKeys};

use super::answer::{Answers, known_as_of};
use super::arguments::KeysArguments;
use super::receipt::trust;
use super::{Error, Outcome, input};

pub(super) fn run(arguments: &KeysArguments, answers: &mut Answers) -> Result<Outcome, Error> {
    input::check_stdin_once([arguments.file.as_path()].into_iter().chain(arguments.since.as_deref()))?;
    let newer = input::read(&arguments.file, manifest::MAX_BYTES)?;
    let since = arguments.since.as_deref();
    let older = since.map(|path| input::read(path, manifest::MAX_BYTES)).transpose()?;
    let Some(pin) = &arguments.common.pin else {
        answers.unpinned(&arguments.file)?;
        return Ok(answers.outcome());
    };
    let newer = trust(&newer, pin);
    let older = older.map(|older| trust(&older, pin)).transpose();
    let result = newer.and_then(|newer| {
        if let Ok(Some(older)) = &older {
            manifest::compare(older.manifest(), newer.manifest())
                .map_err(|failure| failure.with_facts(&facts(newer.manifest())))?;
        }
        Ok(newer)
    });
    match &result {
        Ok(keys) => {
            let facts = facts(keys.manifest());
            let line = format!("{}{}", describe(keys), known_as_of(&facts));
            answers.verified(&arguments.file, &facts, &line)?;
        }
        Err(failure) => answers.failure(&arguments.file, failure)?,
    }
    if let (Some(path), Err(failure)) = (since, &older) {
        answers.failure(path, failure)?;
    }
    Ok(answers.outcome())
}

fn facts(manifest: &KeyManifest) -> Facts {
    Facts {
        instance: Some(manifest.instance.clone()),
        ledger: Some(manifest.ledger.clone()),
        key_id: Some(manifest.key_id),
        keys_serial: Some(manifest.serial),
        keys_issued_at: Some(manifest.issued_at),
        ..Facts::default()
    }
}

fn describe(keys: &TrustedKeys) -> String {
    let manifest = keys.manifest();
    let count = |purpose| manifest.keys.iter().filter(|key| key.purpose == purpose).count();
    let revoked = manifest.keys.iter().filter(|key| key.revoked_at.is_some()).count();
    format!(
        "key manifest of {}, signed by root {}; {} root, {} receipt and {} checkpoint keys, {revoked} revoked; \
         expires {}",
        manifest.instance,
        statusledger_verify::encoding::hex(&manifest.key_id),
        count(Purpose::Root),
        count(Purpose::Receipt),
        count(Purpose::Checkpoint),
        manifest.expires,
    )
}
