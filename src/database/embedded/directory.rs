//! Making directories and files that nobody else can have prepared for us.
//!
//! Every check is made on an open handle (`O_NOFOLLOW`), never on a path that could be swapped in between.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::unistd::Uid;

use super::account::Account;
use super::{During, Error};

/// The cluster's directory, locked for as long as this lives. The lock is the kernel's (`flock`): it dies
/// with the process, however that dies, and no child inherits it.
#[derive(Debug)]
pub(super) struct Locked {
    pub(super) path: PathBuf,
    _lock: File,
}

impl Locked {
    /// Makes the directory if it is absent, checks that it is ours alone, and takes its lock.
    pub(super) fn open(wanted: &Path, account: &Account) -> Result<Self, Error> {
        let absolute = std::path::absolute(wanted).during("resolve", wanted)?;
        // Links above are the operator's business and are resolved once, so that what is checked here is
        // what Postgres gets to see.
        let existing = absolute.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
        let resolved = existing.canonicalize().during("resolve", existing)?;
        let rest = absolute.strip_prefix(existing).unwrap_or(Path::new(""));
        let path = if rest.as_os_str().is_empty() { resolved } else { resolved.join(rest) };
        account.can_reach(&path, path.parent())?;

        for directory in path.ancestors().skip(1).collect::<Vec<_>>().into_iter().rev() {
            make(directory, account.passage_mode())?;
        }
        make(&path, account.passage_mode())?;
        let handle = open(&path)?;
        let owner = handle.metadata().during("look at", &path)?.uid();
        if owner != Uid::effective().as_raw() {
            let reason = format!("it belongs to user {owner}, not to us ({})", Uid::effective());
            return Err(Error::Unsafe { path, reason });
        }
        set_mode(&handle, &path, account.passage_mode())?;
        let lock = lock(&path)?;
        Ok(Self { path, _lock: lock })
    }
}

/// `mkdir` with `mode`, whatever the umask; one that exists is left as it is.
fn make(path: &Path, mode: u32) -> Result<(), Error> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => set_mode(&open(path)?, path, mode),
        // The kernel may say that it is read-only, or not ours to write in, before that it exists.
        Err(_) if path.is_dir() => Ok(()),
        result => result.during("create", path),
    }
}

/// A new directory for the account alone (0700). Fails if anything of that name exists.
pub(super) fn make_private(path: &Path, account: &Account) -> Result<(), Error> {
    DirBuilder::new().mode(0o700).create(path).during("create", path)?;
    let handle = open(path)?;
    set_mode(&handle, path, 0o700)?;
    account.own(&handle, path)
}

/// Whether `path` is a directory (not a link) of the account, closed to everyone else.
pub(super) fn is_private(path: &Path, account: &Account) -> bool {
    open(path).and_then(|handle| handle.metadata().during("look at", path)).is_ok_and(|metadata| {
        metadata.is_dir() && metadata.uid() == account.uid().as_raw() && metadata.mode() & 0o077 == 0
    })
}

pub(super) fn open(path: &Path) -> Result<File, Error> {
    OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW).bits())
        .open(path)
        .during("open the directory", path)
}

pub(super) fn set_mode(handle: &File, path: &Path, mode: u32) -> Result<(), Error> {
    handle.set_permissions(Permissions::from_mode(mode)).during("change the mode of", path)
}

/// Makes the names in `path` durable.
pub(super) fn sync(path: &Path) -> Result<(), Error> {
    open(path)?.sync_all().during("sync", path)
}

/// Replaces `path` as one step: a crash leaves the old content or the new, durable.
pub(super) fn write(path: &Path, content: &[u8], account: &Account) -> Result<(), Error> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).during("remove", &new);
        }
        _ => {}
    }
    // `create_new` follows no link: the directory may belong to the account.
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).during("create", &new)?;
    file.write_all(content).during("write", &new)?;
    account.own(&file, &new)?;
    file.sync_all().during("sync", &new)?;
    std::fs::rename(&new, path).during("rename", &new)?;
    sync(path.parent().unwrap_or(Path::new("/")))
}

/// How long a lock may be held by nobody in earnest.
const MOMENT: Duration = Duration::from_millis(500);

fn lock(directory: &Path) -> Result<File, Error> {
    let path = directory.join("lock");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(OFlag::O_NOFOLLOW.bits())
        .open(&path)
        .during("open", &path)?;
    // A child that another thread of the last holder is just starting shares the lock until it runs its program: such
    // a hold is over in a moment.
    let until = Instant::now() + MOMENT;
    let mut tried = file.try_lock();
    while matches!(tried, Err(std::fs::TryLockError::WouldBlock)) && Instant::now() < until {
        std::thread::sleep(MOMENT / 50);
        tried = file.try_lock();
    }
    match tried {
        Ok(()) => {}
        Err(std::fs::TryLockError::WouldBlock) => {
            let mut holder = String::new();
            file.read_to_string(&mut holder).during("read", &path)?;
            return Err(Error::InUse { directory: directory.to_owned(), pid: holder.trim().parse().ok() });
        }
        Err(std::fs::TryLockError::Error(error)) => return Err(error).during("lock", &path),
    }
    // Only for the message of whoever finds it locked.
    file.set_len(0).during("write", &path)?;
    file.seek(SeekFrom::Start(0)).during("write", &path)?;
    writeln!(file, "{}", std::process::id()).during("write", &path)?;
    Ok(file)
}
