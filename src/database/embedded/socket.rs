//! Where the Unix socket goes.
//!
//! A socket's path is at most 107 bytes (103 on macOS), the directory's share of it less. Inside the cluster's
//! directory is the best place: nobody else has a say there. Where that path is too long, or has characters
//! that a list of directories would need quoted, a private directory under `/tmp` takes its place, with a
//! random name that `mkdir` makes or fails to make: nothing that somebody prepared is ever used. It is
//! recorded, so that it is found again after a crash, and removed with a clean stop.

use std::path::{Path, PathBuf};

use super::account::Account;
use super::{During, Error, PORT, directory};

/// `sun_path`, less its terminating zero.
const LONGEST: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

const RECORD: &str = "socket-directory";

/// The directory for the socket of the cluster in `parent`: private to the account, made if need be.
pub(super) fn choose(parent: &Path, account: &Account) -> Result<PathBuf, Error> {
    let inside = parent.join("socket");
    if fits(&inside) {
        if !inside.exists() {
            directory::make_private(&inside, account)?;
        }
        return checked(inside, account);
    }
    let record = parent.join(RECORD);
    if let Ok(path) = std::fs::read_to_string(&record) {
        let path = PathBuf::from(path);
        // `/tmp` may have been emptied, and somebody else may have taken the name since.
        if directory::is_private(&path, account) {
            return Ok(path);
        }
    }
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(std::io::Error::other).during("read random bytes for", &record)?;
    let path = PathBuf::from(format!("/tmp/statusledger-{:016x}", u64::from_ne_bytes(random)));
    directory::make_private(&path, account)?;
    // A crash here leaves an empty directory in /tmp.
    directory::write(&record, path.as_os_str().as_encoded_bytes(), &Account::Own)?;
    checked(path, account)
}

/// Removes a directory under `/tmp` that the stopped server has left empty.
pub(super) fn clean_up(parent: &Path, socket_directory: &Path) {
    if !socket_directory.starts_with(parent) && std::fs::remove_dir(socket_directory).is_ok() {
        std::fs::remove_file(parent.join(RECORD)).ok();
    }
}

fn fits(socket_directory: &Path) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    let bytes = socket_directory.as_os_str().as_encoded_bytes();
    bytes.len() + format!("/.s.PGSQL.{PORT}").len() <= LONGEST && bytes.iter().all(|byte| plain(*byte))
}

fn checked(path: PathBuf, account: &Account) -> Result<PathBuf, Error> {
    if directory::is_private(&path, account) {
        return Ok(path);
    }
    let reason = format!(
        "the socket's directory has to be a directory of {} that is closed to everyone else (0700)",
        account.name().unwrap_or("ours")
    );
    Err(Error::Unsafe { path, reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_the_kernels_to_the_byte() {
        let longest = LONGEST - "/.s.PGSQL.5432".len();
        assert!(fits(&PathBuf::from(format!("/{}", "x".repeat(longest - 1)))));
        assert!(!fits(&PathBuf::from(format!("/{}", "x".repeat(longest)))));
        assert!(!fits(Path::new("/data, or not")));
    }
}
