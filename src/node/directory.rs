//! A node's directory: its identity, and the newest key manifest that it has used.

use crate::id::NodeId;
use crate::keyring::Keyring;
use anyhow::{Context, Result, anyhow};
use nix::fcntl::{Flock, FlockArg};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

/// A node's directory: used by one process at a time.
#[derive(Debug)]
pub struct NodeDirectory {
    /// Which node this directory makes of the process.
    pub node: NodeId,
    _lock: Flock<File>,
}

impl NodeDirectory {
    /// Opens the directory, or makes it, and takes it for this process. The lock ends with the process, however it
    /// ends.
    ///
    /// # Errors
    /// If it cannot be made or written, or another process has it.
    pub fn open(path: &Path) -> Result<Self> {
        std::fs::create_dir_all(path)
            .with_context(|| format!("cannot make the data directory {}", path.display()))?;
        let lock_path = path.join("node-lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .with_context(|| format!("cannot write in the data directory {}", path.display()))?;
        let lock = take_lock(file).ok_or_else(|| {
            anyhow!("the data directory {} is used by another statusledger process", path.display())
        })?;
        let id_path = path.join("node-id");
        let node = match std::fs::read_to_string(&id_path) {
            Ok(text) => text.trim().parse().with_context(|| format!("{} is damaged", id_path.display()))?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let node = NodeId::new();
                let aside = path.join("node-id.new");
                let mut file = File::create(&aside)?;
                writeln!(file, "{node}")?;
                file.sync_all()?;
                std::fs::rename(&aside, &id_path)?;
                node
            }
            Err(e) => return Err(e).with_context(|| format!("cannot read {}", id_path.display())),
        };
        Ok(Self { node, _lock: lock })
    }
}

/// Takes the lock, waiting a moment for a process that is just being ended.
fn take_lock(mut file: File) -> Option<Flock<File>> {
    const TRIES: u32 = 30;
    const PAUSE: Duration = Duration::from_millis(100);
    for _ in 0..TRIES {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Some(lock),
            Err((back, _)) => file = back,
        }
        std::thread::sleep(PAUSE);
    }
    None
}

/// Keeps the newest key manifest in the node's directory, and refuses a database with an older one or another:
/// a ring that was set back could sign under keys that were already destroyed.
pub(super) fn remember_manifest(directory: &Path, keyring: &Keyring) -> Result<()> {
    use statusledger_verify::manifest::{self, KeyManifest};
    let path = directory.join("keys.json");
    let current = keyring.current();
    let read = |bytes: &[u8]| KeyManifest::parse(bytes).map_err(|f| anyhow!("{}: {}", f.check, f.detail));
    match std::fs::read(&path) {
        Ok(bytes) => {
            let (old, new) = (read(&bytes)?, read(current.manifest().as_bytes())?);
            manifest::compare(&old, &new).map_err(|f| {
                anyhow!(
                    "the key manifest in the database does not follow the one that this node used before ({}): {}",
                    path.display(),
                    f.detail
                )
            })?;
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
    }
    let aside = directory.join("keys.json.new");
    std::fs::write(&aside, current.manifest().as_bytes())?;
    File::open(&aside)?.sync_all()?;
    std::fs::rename(&aside, &path)?;
    Ok(())
}
