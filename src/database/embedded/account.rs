//! The account that the child processes run as, and what it can reach.

use std::ffi::OsStr;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid, User};

use super::{During, Error};

/// Accounts to run as, the first that exists. `nobody` is the poorer one: whatever else on the machine runs
/// as `nobody` can reach the cluster too.
const CANDIDATES: [&str; 2] = ["postgres", "nobody"];

/// Whom the children run as.
#[derive(Clone, Debug)]
pub(super) enum Account {
    /// As we do: an ordinary user.
    Own,
    /// We are root; they are not.
    Other { name: String, uid: Uid, gid: Gid },
}

impl Account {
    /// Decides by the effective user; `wanted` is only asked for as root.
    pub(super) fn choose(wanted: Option<&str>) -> Result<Self, Error> {
        if !Uid::effective().is_root() {
            return Ok(Self::Own);
        }
        let names = wanted.map_or(CANDIDATES.to_vec(), |name| vec![name]);
        for name in &names {
            let found = User::from_name(name).during("look up the account", Path::new(name))?;
            if let Some(user) = found.filter(|user| !user.uid.is_root()) {
                return Ok(Self::Other { name: user.name, uid: user.uid, gid: user.gid });
            }
        }
        Err(Error::NoAccount(names.join(" or ")))
    }

    pub(super) fn name(&self) -> Option<&str> {
        match self {
            Self::Own => None,
            Self::Other { name, .. } => Some(name),
        }
    }

    /// Who has to own what the server writes.
    pub(super) fn uid(&self) -> Uid {
        match self {
            Self::Own => Uid::effective(),
            Self::Other { uid, .. } => *uid,
        }
    }

    /// The mode of a directory of ours that the server has to pass through but not read.
    pub(super) fn passage_mode(&self) -> u32 {
        match self {
            Self::Own => 0o700,
            Self::Other { .. } => 0o711,
        }
    }

    /// Gives an open file or directory to the account.
    pub(super) fn own(&self, file: &std::fs::File, path: &Path) -> Result<(), Error> {
        match self {
            Self::Own => Ok(()),
            Self::Other { uid, gid, .. } => {
                std::os::unix::fs::fchown(file, Some(uid.as_raw()), Some(gid.as_raw()))
                    .during("change the owner of", path)
            }
        }
    }

    /// A child of ours: as the account, with no environment but the search path, so that no `PG*` variable
    /// of the operator's shell reaches it.
    ///
    /// The standard library clears the supplementary groups when it changes the user as root.
    pub(super) fn command(&self, program: &Path) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(program);
        command.env_clear().env("LC_ALL", "C").env("TZ", "UTC").current_dir("/");
        for name in ["PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        if let Self::Other { uid, gid, .. } = self {
            command.uid(uid.as_raw()).gid(gid.as_raw());
        }
        command
    }

    /// Whether the account can reach `target` (which may not exist yet), by the mode bits of what stands
    /// above it. Opens `openable`, the directory right above the cluster's, to search if that is all that is
    /// missing, it is ours and nothing in it becomes readable by that.
    pub(super) fn can_reach(&self, target: &Path, openable: Option<&Path>) -> Result<(), Error> {
        let Self::Other { name, uid, gid } = self else { return Ok(()) };
        let mut above: Vec<&Path> = target.ancestors().skip(1).collect();
        above.reverse();
        let mut to_open = None;
        for component in above {
            let Ok(metadata) = std::fs::metadata(component) else { continue };
            if searchable(&metadata, *uid, *gid) {
                continue;
            }
            let refuse = |hint: String| Error::Unreachable {
                account: name.clone(),
                target: target.to_owned(),
                component: component.to_owned(),
                hint,
            };
            if openable != Some(component) {
                return Err(refuse(String::new()));
            }
            if let Some(reason) = reason_not_to_open(component)? {
                return Err(refuse(format!(" (it was not opened because {reason})")));
            }
            to_open = Some(component);
        }
        if let Some(directory) = to_open {
            let handle = super::directory::open(directory)?;
            let mode = handle.metadata().during("read the mode of", directory)?.mode() & 0o7777;
            super::directory::set_mode(&handle, directory, mode | 0o011)?;
            tracing::info!(directory = %directory.display(), account = %name,
                "opened the data directory to search (not to reading), so that Postgres can reach its own");
        }
        Ok(())
    }
}

fn searchable(metadata: &Metadata, uid: Uid, gid: Gid) -> bool {
    let mode = metadata.mode();
    if metadata.uid() == uid.as_raw() {
        mode & 0o100 != 0
    } else if metadata.gid() == gid.as_raw() {
        mode & 0o010 != 0
    } else {
        mode & 0o001 != 0
    }
}

/// Search permission lets others open by name whatever their own mode lets them; so everything in the
/// directory has to be closed by its own mode. A home directory never passes this.
fn reason_not_to_open(directory: &Path) -> Result<Option<String>, Error> {
    let own = Uid::effective().as_raw();
    let metadata = std::fs::symlink_metadata(directory).during("look at", directory)?;
    if !metadata.is_dir() || metadata.uid() != own {
        return Ok(Some("it is not a directory of ours".to_owned()));
    }
    for entry in std::fs::read_dir(directory).during("list", directory)? {
        let entry = entry.during("list", directory)?;
        let path: PathBuf = entry.path();
        let metadata = std::fs::symlink_metadata(&path).during("look at", &path)?;
        // The cluster's own directory is 0711 and closed inside; a link has no mode of its own and what it
        // leads to is no more reachable than before.
        let passage = metadata.is_dir() && metadata.mode() & 0o066 == 0 && metadata.uid() == own;
        if !metadata.is_symlink() && !passage && metadata.mode() & 0o077 != 0 {
            return Ok(Some(format!("others could then open {}", quoted(path.file_name()))));
        }
    }
    Ok(None)
}

fn quoted(name: Option<&OsStr>) -> String {
    format!("{:?}", name.unwrap_or_default())
}
