//! The server's log: a file that the postmaster appends to, also while there is no supervisor, and that is
//! kept short from outside. Postgres's own collector bounds the number of its files, not their size.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;

/// The size, in bytes, at which the log becomes `postgres.log.1`.
const LIMIT: u64 = 8 << 20;

/// How much of the log's end an error shows, in bytes.
const TAIL: usize = 2048;

/// Open for appending, so that shortening the file under a running server is sound.
pub(super) fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(OFlag::O_NOFOLLOW.bits()).open(path)
}

/// Moves a log over the limit aside; lines written between the copy and the cut are lost.
pub(super) fn shorten(path: &Path) -> std::io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.len() > LIMIT => {
            std::fs::copy(path, path.with_extension("log.1"))?;
            open(path)?.set_len(0)
        }
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

pub(super) fn tail(path: &Path) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let from = text.len().saturating_sub(TAIL);
    String::from_utf8_lossy(&text[from..]).trim().to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write;

    use super::*;

    #[test]
    fn the_log_is_cut_under_the_server_that_writes_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("postgres.log");
        shorten(&path).unwrap();
        let mut server = open(&path).unwrap();
        server.write_all(b"first\n").unwrap();
        shorten(&path).unwrap();
        assert_eq!(tail(&path), "first");

        server.set_len(LIMIT + 1).unwrap();
        shorten(&path).unwrap();
        assert_eq!(std::fs::metadata(directory.path().join("postgres.log.1")).unwrap().len(), LIMIT + 1);
        server.write_all(b"second\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "second\n");
    }

    #[test]
    fn a_link_in_place_of_the_log_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("postgres.log");
        std::os::unix::fs::symlink("elsewhere", &path).unwrap();
        assert!(open(&path).is_err());
        assert!(!directory.path().join("elsewhere").exists());
    }
}
