//! Secrets that are given: from files or standard input, and from nowhere else.

use super::super::remote::{Error, system};
use anyhow::{Result, anyhow, bail};
use std::io::Read;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The largest secret taken: service accounts are of a few KiB.
const LARGEST: u64 = 1 << 18;

/// Reads the text in `file`, or standard input where that is `-`.
///
/// # Errors
/// If it cannot be read, is empty, too large, or no text.
pub fn read(what: &str, file: &Path) -> Result<Zeroizing<String>> {
    let from = if file == Path::new("-") { "standard input".to_owned() } else { file.display().to_string() };
    let mut text = Zeroizing::new(String::new());
    let read = if file == Path::new("-") {
        std::io::stdin().lock().take(LARGEST + 1).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(LARGEST + 1).read_to_string(&mut text))
    };
    read.map_err(|e| anyhow!("cannot read the {what} from {from}: {}", system(&e)))?;
    if text.len() as u64 > LARGEST {
        bail!("the {what} from {from} is larger than {LARGEST} bytes");
    }
    if text.trim().is_empty() {
        bail!("the {what} from {from} is empty");
    }
    Ok(text)
}

/// The same for a secret of one line: a line break at its end is the editor's.
///
/// # Errors
/// As [`read`].
pub fn read_line(what: &str, file: &Path) -> Result<Zeroizing<String>> {
    let text = read(what, file)?;
    Ok(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned()))
}

/// Refuses two secrets from standard input.
///
/// # Errors
/// If it is named twice.
pub fn once_from_stdin(files: &[Option<&PathBuf>]) -> Result<(), Error> {
    let named = files.iter().flatten().filter(|file| file.as_path() == Path::new("-")).count();
    if named > 1 {
        return Err(Error::Usage("standard input can be only one of them".into()));
    }
    Ok(())
}
