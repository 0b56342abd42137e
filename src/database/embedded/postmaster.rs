//! The postmaster as it is seen from outside: its pid file and its process.
//!
//! `postmaster.pid` says who serves a data directory: 1 process id, 2 the directory, 3 when it started, 4 the
//! port, 5 the socket's directory, 6 the first TCP address, 7 the shared memory, 8 what it is at. It outlives
//! a postmaster that was killed.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::account::Account;
use super::{Error, PORT, directory};

/// What `postmaster.pid` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PidFile {
    pub(super) pid: u32,
    pub(super) started: u64,
    pub(super) socket_directory: Option<PathBuf>,
    /// `starting`, `ready`, `stopping` or `standby`; nothing in the first moments.
    pub(super) state: String,
}

fn path(data: &Path) -> PathBuf {
    data.join("postmaster.pid")
}

/// The pid file of the cluster at `data`; none: there is none, or it is being written.
pub(super) fn read(data: &Path) -> Option<PidFile> {
    parse(&std::fs::read_to_string(path(data)).ok()?)
}

/// Whether a pid file is there at all: a postmaster removes its own when it stops in good order.
pub(super) fn left_pid_file(data: &Path) -> bool {
    path(data).exists()
}

fn parse(text: &str) -> Option<PidFile> {
    let lines: Vec<&str> = text.lines().collect();
    let line = |number: usize| lines.get(number - 1).copied().unwrap_or("").trim();
    // A stand-alone backend writes its number negated.
    let pid: u32 = line(1).parse().ok().filter(|pid| *pid > 1)?;
    Some(PidFile {
        pid,
        started: line(3).parse().unwrap_or(0),
        socket_directory: Some(line(5)).filter(|path| !path.is_empty()).map(PathBuf::from),
        state: line(8).to_owned(),
    })
}

/// The pid file of `data`, if the process it names is alive and is a postmaster of that directory.
pub(super) fn live(data: &Path) -> Option<PidFile> {
    read(data).filter(|file| is_alive(file.pid, data))
}

/// Whether process `pid` is alive, not a zombie, and serves `data`: every process of a Postgres server works
/// in its data directory. Where there is no `/proc`, being alive has to do, as it does for Postgres.
pub(super) fn is_alive(pid: u32, data: &Path) -> bool {
    if cfg!(target_os = "linux") {
        // A zombie has no working directory any more. Compared by inode: a mount can give it another name.
        let identity = |path: &Path| std::fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
        let works_in = identity(Path::new(&format!("/proc/{pid}/cwd")));
        return works_in.is_some() && works_in == identity(data);
    }
    kill(as_pid(pid), None).is_ok()
}

fn as_pid(pid: u32) -> Pid {
    Pid::from_raw(pid.try_into().unwrap_or(i32::MAX))
}

/// Sends `signal` to a postmaster just found alive. It may have ended in between, which is what was wanted.
pub(super) fn signal(pid: u32, signal: Signal) {
    kill(as_pid(pid), signal).ok();
}

/// Makes lock files whose process is provably not a postmaster of `data` ones that Postgres takes for stale:
/// `postmaster.pid`, and the one beside the socket.
///
/// Postgres refuses to start while the process that a lock file names is there, whatever it is by now: after
/// a reboot, or in a container where numbers are few, that can be anything, and a killed postmaster is there
/// for as long as nobody reaps it. Removing `postmaster.pid` would also remove what Postgres checks next, the
/// shared memory of backends that may have outlived their postmaster. A lock file that names the parent of
/// the process that finds it is stale to Postgres; we are the parent.
pub(super) fn disown_stale(data: &Path, socket_directory: &Path, account: &Account) -> Result<(), Error> {
    for lock in [path(data), socket_directory.join(format!(".s.PGSQL.{PORT}.lock"))] {
        let Ok(text) = std::fs::read_to_string(&lock) else { continue };
        let Some(file) = parse(&text) else { continue };
        let there = kill(as_pid(file.pid), None).is_ok();
        if !there || is_alive(file.pid, data) || !cfg!(target_os = "linux") {
            continue;
        }
        let (pid, path) = (file.pid, lock.display());
        tracing::warn!(pid, %path, "the lock file names a process that is not this Postgres; taking it for stale");
        let rest = text.split_once('\n').map_or("", |(_, rest)| rest);
        directory::write(&lock, format!("{}\n{rest}", std::process::id()).as_bytes(), account)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_pid_file_is_read_at_every_stage_of_its_writing() {
        let whole = "4242\n/d/data\n1700000000\n5432\n/d/socket\n\n  0  0\nready   \n";
        let file = parse(whole).unwrap();
        assert_eq!(file.pid, 4242);
        assert_eq!(file.started, 1_700_000_000);
        assert_eq!(file.socket_directory, Some(PathBuf::from("/d/socket")));
        assert_eq!(file.state, "ready");
        let early = parse("4242\n/d/data\n1700000000\n5432\n\n").unwrap();
        assert_eq!((early.socket_directory, early.state.as_str()), (None, ""));
        assert_eq!(parse(""), None);
        assert_eq!(parse("-4242\n"), None);
        assert_eq!(parse("1\n"), None);
        assert_eq!(parse("0\n"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_process_that_works_elsewhere_is_no_postmaster_of_a_directory() {
        let own = std::env::current_dir().unwrap();
        assert!(is_alive(std::process::id(), &own));
        assert!(!is_alive(std::process::id(), Path::new("/nowhere")));
    }
}
