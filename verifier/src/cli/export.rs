//! `statusledger-verify export`

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use statusledger_verify::export::{self, Options};
use statusledger_verify::manifest::{self, Revoked};

use super::answer::Answers;
use super::arguments::ExportArguments;
use super::{Error, Outcome, input};

pub(super) fn run(arguments: &ExportArguments, answers: &mut Answers) -> Result<Outcome, Error> {
    if input::is_stdin(&arguments.file) {
        return Err(Error::Usage("an export cannot be read from standard input".to_owned()));
    }
    let files = [arguments.keys.as_deref(), arguments.judging.policy.as_deref()];
    input::check_stdin_once(files.into_iter().flatten())?;
    let options = Options {
        ledger: arguments.judging.ledger.clone(),
        at: arguments.judging.at,
        mode: arguments.mode.into(),
        policy: input::read_policy(arguments.judging.policy.as_deref())?,
        revoked: Revoked::Refused,
    };
    let keys = arguments.keys.as_deref().map(|path| input::read(path, manifest::MAX_BYTES)).transpose()?;
    let Some(pin) = &arguments.common.pin else {
        match std::fs::File::open(&arguments.file) {
            Ok(_) => answers.unpinned(&arguments.file)?,
            Err(source) => return Err(Error::Read { path: arguments.file.clone(), source }),
        }
        return Ok(answers.outcome());
    };
    let result =
        with_progress(|progress| export::verify(&arguments.file, pin, keys.as_deref(), &options, progress));
    match result {
        Ok(report) => answers.report(&arguments.file, &report)?,
        Err(export::Error::Failed(failure)) => answers.failure(&arguments.file, &failure)?,
        Err(export::Error::Io(source)) => {
            answers.unread(&arguments.file, &Error::Read { path: arguments.file.clone(), source })?;
        }
    }
    Ok(answers.outcome())
}

/// Runs a verification with a bar on standard error, where that is a terminal.
pub(super) fn with_progress<T>(verify: impl FnOnce(&(dyn Fn(u64, u64) + Sync)) -> T) -> T {
    let target = if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(None, target);
    let style = "{bar:40} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}, {eta} to go";
    bar.set_style(ProgressStyle::with_template(style).expect("the template is well formed"));
    let result = verify(&|done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    result
}
