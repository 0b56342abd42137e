//! What a demo makes in its directory, so that one that fails leaves nothing behind; never what was there before it.

use crate::cli::show;
use std::path::{Path, PathBuf};

/// All that a demo leaves, besides exports.
const LEFT: [&str; 11] = [
    "stores",
    "postgres",
    "receipts",
    "pins",
    "keys.json",
    "heads",
    "key-encryption-key",
    "bootstrap-token",
    "node-id",
    "node-lock",
    "address",
];
/// How often a directory in which a key is just being made is tried to be removed.
const REMOVALS: usize = 10;

/// What a demo makes.
#[derive(Debug)]
pub struct Made {
    directory: PathBuf,
    /// Whether the directory is there for this demo.
    is_new: bool,
    /// Whether this demo made `stores`, and no other that was begun at the same time.
    pub stores: bool,
    /// Of what it leaves, what was not there.
    absent: Vec<PathBuf>,
}

impl Made {
    /// As it is before anything is made.
    #[must_use]
    pub fn before(directory: &Path) -> Self {
        let absent =
            LEFT.map(|name| directory.join(name)).into_iter().filter(|path| !path.exists()).collect();
        Self { directory: directory.to_owned(), is_new: !directory.exists(), stores: false, absent }
    }

    /// Removes it again. Where the directory is `in_use` by another process, only what cannot be that one's.
    pub fn remove(self, in_use: bool) {
        let began = self.absent.contains(&self.directory.join("postgres"));
        // Somebody else began there at the same moment, and the stores may be theirs.
        if !self.stores || in_use && began {
            return;
        }
        for path in self.absent.iter().filter(|path| !in_use || path.ends_with("stores")) {
            // A file that comes while the directory is emptied keeps it; one after it finds no directory.
            if !(0..REMOVALS).any(|_| remove(path).is_ok()) {
                show::note(format!("statusledger: {} is left behind", path.display()));
            }
        }
        if began {
            for entry in std::fs::read_dir(&self.directory).into_iter().flatten().flatten() {
                let name = entry.file_name();
                let name = name.to_string_lossy();
                // An export is called after its ledger, which this demo began.
                if name.starts_with("ledger-") && name.ends_with(".zip") {
                    let _ = remove(&entry.path());
                }
            }
        }
        if self.is_new {
            // Where somebody has put something else there meanwhile, it stays.
            let _ = std::fs::remove_dir(&self.directory);
        }
    }
}

/// Removes a file or a directory; one that is absent is removed.
fn remove(path: &Path) -> std::io::Result<()> {
    let removed = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    match removed {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
