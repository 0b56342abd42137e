//! Files that hold a secret: created whole or not at all, and refused where others could have read or
//! replaced them.
//!
//! A file is written beside its place under a random name with mode 0600, synced, then linked to its name
//! only if nothing has that name yet, and the directory is synced. So two processes that start at once agree
//! on one file (the second finds the first's), a crash leaves either no file or a whole one, and no symbolic
//! link is ever followed.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use zeroize::Zeroizing;

/// Why a file with a secret was not read or not written. Never holds anything of its contents.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretFileError {
    /// The operating system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The path's last component is a symbolic link: whoever can change the link chooses the secret.
    #[error("{} is a symbolic link; name the file itself", path.display())]
    Symlink {
        /// The path given.
        path: PathBuf,
    },
    /// A directory, a pipe, a device.
    #[error("{} is not a regular file", path.display())]
    NotAFile {
        /// The path given.
        path: PathBuf,
    },
    /// The file's mode grants something to its group or to everyone.
    #[error("{} has mode {mode:04o}: others than its owner can use it (chmod 600 it, and replace the secret if they may have)", path.display())]
    Permissions {
        /// The path given.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file belongs to another account, which can read and replace it.
    #[error("{} belongs to user {owner}, and this process runs as user {user}", path.display())]
    Owner {
        /// The path given.
        path: PathBuf,
        /// The user id of the file's owner.
        owner: u32,
        /// The effective user id of this process.
        user: u32,
    },
    /// Longer than any file of its kind.
    #[error("{} is longer than {limit} bytes", path.display())]
    TooLong {
        /// The path given.
        path: PathBuf,
        /// The most that such a file has.
        limit: usize,
    },
    /// A file of that name is already there; it was left as it is.
    #[error("{} already exists", path.display())]
    Exists {
        /// The path given.
        path: PathBuf,
    },
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> SecretFileError {
    let path = path.to_owned();
    move |source| SecretFileError::Io { action, path, source }
}

/// Reads a whole file of at most `limit` bytes that only its owner, this process's user or root, can use.
pub(crate) fn read(path: &Path, limit: usize) -> Result<Zeroizing<Vec<u8>>, SecretFileError> {
    // Non-blocking, so that a pipe put in the file's place is refused below instead of waited for.
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let mut file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path).map_err(|source| {
        if source.raw_os_error() == Some(nix::errno::Errno::ELOOP as i32) {
            SecretFileError::Symlink { path: path.to_owned() }
        } else {
            io("open", path)(source)
        }
    })?;
    // Of the open file, not of the name, which may have changed hands since.
    let metadata = file.metadata().map_err(io("inspect", path))?;
    if !metadata.is_file() {
        return Err(SecretFileError::NotAFile { path: path.to_owned() });
    }
    let user = nix::unistd::geteuid().as_raw();
    if metadata.uid() != user && metadata.uid() != 0 {
        return Err(SecretFileError::Owner { path: path.to_owned(), owner: metadata.uid(), user });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(SecretFileError::Permissions { path: path.to_owned(), mode });
    }
    // One allocation of full size: a growing vector would leave copies of the secret behind.
    let mut contents = Zeroizing::new(vec![0; limit + 1]);
    let mut length = 0;
    while length < contents.len() {
        match file.read(&mut contents[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(io("read", path)(error)),
        }
    }
    if length > limit {
        return Err(SecretFileError::TooLong { path: path.to_owned(), limit });
    }
    contents.truncate(length);
    Ok(contents)
}

/// Creates the file with mode 0600 and these contents, durably; an existing one is left as it is and is
/// [`SecretFileError::Exists`].
pub(crate) fn create(path: &Path, contents: &[u8]) -> Result<(), SecretFileError> {
    let directory = directory_of(path);
    let mut file = tempfile::Builder::new()
        .prefix(".new-secret-")
        .permissions(Permissions::from_mode(0o600))
        .tempfile_in(directory)
        .map_err(io("create a file in", directory))?;
    file.write_all(contents).map_err(io("write", path))?;
    file.as_file().sync_all().map_err(io("sync", path))?;
    // A crash before this line leaves at most a file of another name that nothing reads.
    let linked = file.persist_noclobber(path);
    // Also where another process was first: its file must not vanish by a power cut after this process has
    // encrypted something under the secret in it.
    sync_directory(path)?;
    match linked {
        Ok(_) => Ok(()),
        Err(error) if error.error.kind() == ErrorKind::AlreadyExists => {
            Err(SecretFileError::Exists { path: path.to_owned() })
        }
        Err(error) => Err(io("create", path)(error.error)),
    }
}

/// Makes the directory entry of `path` durable.
pub(crate) fn sync_directory(path: &Path) -> Result<(), SecretFileError> {
    let directory = directory_of(path);
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(io("sync directory", directory))
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_created_file_has_mode_0600_and_its_contents_and_leaves_nothing_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        create(&path, b"contents").unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o600);
        assert_eq!(*read(&path, 8).unwrap(), b"contents");
        assert_eq!(directory.path().read_dir().unwrap().count(), 1);
    }

    #[test]
    fn an_existing_file_is_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        create(&path, b"first").unwrap();
        assert!(matches!(create(&path, b"second"), Err(SecretFileError::Exists { .. })));
        assert_eq!(*read(&path, 8).unwrap(), b"first");
        assert_eq!(directory.path().read_dir().unwrap().count(), 1);
    }

    #[test]
    fn a_symbolic_link_is_neither_read_nor_written_through() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("target");
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&target, &link).unwrap();
        // Dangling: whoever planted it wants the secret written to a place of theirs.
        assert!(matches!(create(&link, b"secret"), Err(SecretFileError::Exists { .. })));
        assert!(!target.exists());
        create(&target, b"secret").unwrap();
        assert!(matches!(read(&link, 8), Err(SecretFileError::Symlink { .. })));
    }

    #[test]
    fn what_is_not_a_regular_file_is_refused_without_waiting() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert!(matches!(read(&pipe, 8), Err(SecretFileError::NotAFile { .. })));
        assert!(matches!(read(directory.path(), 8), Err(SecretFileError::NotAFile { .. })));
    }

    #[test]
    fn each_bit_for_others_is_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        create(&path, b"secret").unwrap();
        for bit in [0o040, 0o020, 0o010, 0o004, 0o002, 0o001] {
            std::fs::set_permissions(&path, Permissions::from_mode(0o600 | bit)).unwrap();
            let error = read(&path, 8).unwrap_err();
            assert!(
                matches!(error, SecretFileError::Permissions { mode, .. } if mode == 0o600 | bit),
                "{error}"
            );
            assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        }
        std::fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
        assert_eq!(*read(&path, 8).unwrap(), b"secret");
    }

    #[test]
    fn a_file_of_another_account_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        create(&path, b"secret").unwrap();
        let other = nix::unistd::Uid::from_raw(12_345);
        match nix::unistd::chown(&path, Some(other), None) {
            Ok(()) => assert!(matches!(read(&path, 8), Err(SecretFileError::Owner { owner: 12_345, .. }))),
            // Only root can give a file away; every other account is refused by the open itself.
            Err(errno) => assert_eq!(errno, nix::errno::Errno::EPERM),
        }
    }

    #[test]
    fn a_longer_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        create(&path, b"123456789").unwrap();
        assert_eq!(read(&path, 9).unwrap().len(), 9);
        assert!(matches!(read(&path, 8), Err(SecretFileError::TooLong { limit: 8, .. })));
    }
}
