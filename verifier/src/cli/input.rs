//! Reading files, and no more of them than the formats allow.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use statusledger_verify::policy::Policy;

use super::Error;

/// The largest policy, in bytes; C2SP tlog-policy leaves the limit to us.
const MAX_POLICY_BYTES: usize = 1 << 20;

/// Whether a path means standard input.
pub(super) fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Standard input can be read once.
pub(super) fn check_stdin_once<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Result<(), Error> {
    if paths.into_iter().filter(|path| is_stdin(path)).count() > 1 {
        return Err(Error::Usage("standard input (-) is given more than once".to_owned()));
    }
    Ok(())
}

/// Reads a file up to one byte past `limit`: whoever checks the size sees that it is too large, and nothing larger
/// is ever held.
pub(super) fn read(path: &Path, limit: usize) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(limit).expect("a limit is some MiB") + 1;
    let result = if is_stdin(path) {
        io::stdin().lock().take(limit).read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes))
    };
    result.map_err(|source| Error::Read { path: path.to_owned(), source })?;
    Ok(bytes)
}

/// Reads the customer's policy, if there is one. One that is malformed is the customer's own mistake: usage.
pub(super) fn read_policy(path: Option<&Path>) -> Result<Option<Policy>, Error> {
    let Some(path) = path else { return Ok(None) };
    let bytes = read(path, MAX_POLICY_BYTES)?;
    let usage = |why: &str| Error::Usage(format!("{}: not a tlog-policy: {why}", path.display()));
    if bytes.len() > MAX_POLICY_BYTES {
        return Err(usage("it has more than 1 MiB"));
    }
    Policy::parse(&bytes).map(Some).map_err(|error| usage(&error.to_string()))
}
