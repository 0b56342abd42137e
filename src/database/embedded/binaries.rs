//! Finding the server's binaries.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::account::Account;
use super::{Error, OLDEST_MAJOR};

/// A version of Postgres, as `postgres --version` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The major version, which decides the format of the data directory.
    pub major: u32,
    /// The minor version; 0 for a development version.
    pub minor: u32,
}

impl std::fmt::Display for Version {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}.{}", self.major, self.minor)
    }
}

/// A directory with `postgres` and `initdb`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries {
    /// The directory.
    pub directory: PathBuf,
    /// What `postgres --version` says there.
    pub version: Version,
}

impl Binaries {
    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

/// What a cluster can be run with: its own major version, or, before there is one, any that is new enough.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// The major version of the cluster that exists.
    pub(super) major: Option<u32>,
}

impl Wanted {
    pub(super) fn accepts(self, version: Version) -> bool {
        self.major.map_or(version.major >= OLDEST_MAJOR, |major| version.major == major)
    }
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.major {
            Some(major) => write!(formatter, "{major} (the cluster's own major version)"),
            None => write!(formatter, "{OLDEST_MAJOR} or newer"),
        }
    }
}

/// The binaries in `directory`, which the operator named.
pub(super) async fn named(directory: &Path, wanted: Wanted, account: &Account) -> Result<Binaries, Error> {
    let unusable = |reason: String| Error::UnusableBinaries {
        path: directory.to_owned(),
        wanted: wanted.to_string(),
        reason,
    };
    let directory = directory.canonicalize().map_err(|error| unusable(error.to_string()))?;
    account.can_reach(&directory.join("postgres"), None)?;
    let version = examine(&directory, account).await.map_err(&unusable)?;
    if !wanted.accepts(version) {
        return Err(unusable(format!("it is {version}")));
    }
    Ok(Binaries { directory, version })
}

/// What installed binaries there are: the first that will do of those in the search path, in the places where
/// packages put them (newest first), where `pg_config` says; or what was found instead.
pub(super) async fn installed(wanted: Wanted, account: &Account) -> Result<Binaries, Vec<String>> {
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    let mut candidates = searched();
    candidates.extend(packaged());
    candidates.extend(told(account).await);
    for candidate in candidates {
        // The programs are often links out of a common directory; their own directory is what counts, since
        // Postgres finds its libraries relative to it.
        let Ok(program) = candidate.join("postgres").canonicalize() else { continue };
        let directory = program.parent().unwrap_or(Path::new("/")).to_owned();
        if !seen.insert(directory.clone()) {
            continue;
        }
        let usable = match account.can_reach(&program, None) {
            Ok(()) => examine(&directory, account).await,
            Err(error) => Err(error.to_string()),
        };
        match usable {
            Ok(version) if wanted.accepts(version) => return Ok(Binaries { directory, version }),
            Ok(version) => found.push(format!("{version} in {}", directory.display())),
            Err(reason) => found.push(format!("{} ({reason})", directory.display())),
        }
    }
    Err(found)
}

fn searched() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // An empty or relative component means the current directory, which is not where a server comes from.
    std::env::split_paths(&path).filter(|directory| directory.is_absolute()).collect()
}

/// Debian and its relatives, Red Hat and its relatives, the source's default, Homebrew, Postgres.app.
const PACKAGED: &[(&str, &str, &str)] = &[
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr", "pgsql-", "bin"),
    ("/usr/local", "pgsql", "bin"),
    ("/opt/homebrew/opt", "postgresql@", "bin"),
    ("/usr/local/opt", "postgresql@", "bin"),
    ("/home/linuxbrew/.linuxbrew/opt", "postgresql@", "bin"),
    ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
];

fn packaged() -> Vec<PathBuf> {
    PACKAGED.iter().flat_map(|(parent, prefix, rest)| versions(Path::new(parent), prefix, rest)).collect()
}

/// The directories `parent/prefixN/rest`, the largest N first.
fn versions(parent: &Path, prefix: &str, rest: &str) -> Vec<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = std::fs::read_dir(parent)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let number = name.strip_prefix(prefix)?;
            let major = if number.is_empty() { 0 } else { number.parse().ok()? };
            Some((major, entry.path().join(rest)))
        })
        .collect();
    found.sort_by(|one, other| other.cmp(one));
    found.into_iter().map(|(_, path)| path).collect()
}

async fn told(account: &Account) -> Option<PathBuf> {
    for directory in searched() {
        let program = directory.join("pg_config");
        if program.is_file()
            && let Ok(text) = output(account.command(&program).arg("--bindir")).await
        {
            return Some(PathBuf::from(text.trim()));
        }
    }
    None
}

async fn examine(directory: &Path, account: &Account) -> Result<Version, String> {
    if !directory.join("initdb").is_file() {
        return Err("without initdb".to_owned());
    }
    let text = output(account.command(&directory.join("postgres")).arg("--version")).await?;
    parse(&text).ok_or_else(|| format!("its version is {:?}", text.trim()))
}

async fn output(command: &mut tokio::process::Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output().await.map_err(|error| error.to_string())?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{}: {}", output.status, said.trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`, `… 18beta1`.
fn parse(text: &str) -> Option<Version> {
    let number = text.split("(PostgreSQL)").nth(1)?.split_whitespace().next()?;
    let digits = |text: &str| -> Option<u32> {
        let end = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
        text[..end].parse().ok()
    };
    let minor = number.split_once('.').and_then(|(_, minor)| digits(minor)).unwrap_or(0);
    Some(Version { major: digits(number)?, minor })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn versions_are_read_as_every_package_writes_them() {
        let version = |text| parse(text).map(|version| version.to_string());
        assert_eq!(version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n").unwrap(), "15.18");
        assert_eq!(version("postgres (PostgreSQL) 17.0\n").unwrap(), "17.0");
        assert_eq!(version("postgres (PostgreSQL) 18beta1\n").unwrap(), "18.0");
        assert_eq!(version("postgres (PostgreSQL) 9.6.24\n").unwrap(), "9.6");
        assert_eq!(version("psql"), None);
        assert_eq!(version("postgres (PostgreSQL) next"), None);
    }

    #[test]
    fn of_installed_versions_the_newest_comes_first_by_number() {
        let parent = tempfile::tempdir().unwrap();
        for name in ["9", "15", "100", "16", "latest"] {
            std::fs::create_dir_all(parent.path().join(name).join("bin")).unwrap();
        }
        let found = versions(parent.path(), "", "bin");
        let expected: Vec<_> =
            ["100", "16", "15", "9"].iter().map(|name| parent.path().join(name).join("bin")).collect();
        assert_eq!(found, expected);
    }
}
