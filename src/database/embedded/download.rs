//! Downloading the server's binaries where none are installed.
//!
//! The archives are those of the `theseus-rs/postgresql-binaries` project: a `.tar.gz` a platform and version,
//! with its SHA-256 in a file beside it. That file comes from the same host, so it shows that the archive is
//! whole, not whose it is; [`Download::sha256`] pins it. The archive is written to a file, its checksum
//! compared before a byte of it is unpacked, then unpacked into a directory that is renamed into place: a
//! crash leaves a directory that is never used. Nothing in it may lead outside of it.
//!
//! Tested against a server of our own; the real host was never asked.

use std::collections::BTreeSet;
use std::fs::{File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::binaries::Version;
use super::{During, Error, directory};

/// The default of [`Download::base`].
const DEFAULT_BASE: &str = "https://github.com/theseus-rs/postgresql-binaries/releases/download";

/// The default of [`Download::version`].
const DEFAULT_VERSION: &str = "17.10.0";

/// The largest archive, and the largest tree that it may unpack to, in bytes: some ten times what they are.
const ARCHIVE_LIMIT: u64 = 256 << 20;
const UNPACKED_LIMIT: u64 = 2 << 30;

/// The largest number of files.
const FILES_LIMIT: usize = 50_000;

/// A connection that brings nothing for this long is given up.
const STALL: Duration = Duration::from_secs(30);

/// Redirects followed; the default host hands its files out from another.
const REDIRECTS: usize = 5;

/// What to download.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Download {
    /// The address under which `VERSION/postgresql-VERSION-TARGET.tar.gz` and `….tar.gz.sha256` are.
    pub base: String,
    /// The version, as the archives are named: `MAJOR.MINOR.0`.
    pub version: String,
    /// The SHA-256 of the archive, in hex; none: what the `.sha256` file says.
    pub sha256: Option<String>,
}

impl Default for Download {
    fn default() -> Self {
        Self { base: DEFAULT_BASE.to_owned(), version: DEFAULT_VERSION.to_owned(), sha256: None }
    }
}

impl Download {
    /// The directory with the programs below `parent`, fetched if it is not there yet. `parent` is made if
    /// absent; it must not be writable for others.
    ///
    /// # Errors
    /// [`Error::Download`], [`Error::Checksum`], [`Error::Archive`] or [`Error::Io`]; nothing is left behind.
    pub async fn provide(&self, parent: &Path) -> Result<PathBuf, Error> {
        provide(self, parent).await
    }

    /// The version as the server will say it.
    pub(super) fn version(&self) -> Result<Version, Error> {
        let mut parts = self.version.split('.').map(|part| part.parse::<u32>().ok());
        let plain = self.version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        match (plain, parts.next().flatten(), parts.next().flatten()) {
            (true, Some(major), Some(minor)) => Ok(Version { major, minor }),
            _ => Err(self.failed(&self.version, "that is not a version like 17.10.0".to_owned())),
        }
    }

    fn name(&self) -> String {
        format!("postgresql-{}-{}", self.version, target())
    }

    fn url(&self) -> String {
        format!("{}/{}/{}.tar.gz", self.base.trim_end_matches('/'), self.version, self.name())
    }

    fn failed(&self, url: &str, reason: String) -> Error {
        Error::Download { url: url.to_owned(), reason }
    }
}

/// The platform, as the archives are named.
fn target() -> String {
    let system = match std::env::consts::OS {
        "macos" => "apple-darwin",
        "linux" if cfg!(target_env = "musl") => "unknown-linux-musl",
        _ => "unknown-linux-gnu",
    };
    format!("{}-{system}", std::env::consts::ARCH)
}

pub(super) async fn provide(download: &Download, parent: &Path) -> Result<PathBuf, Error> {
    download.version()?;
    let place = parent.join(download.name());
    if place.exists() {
        return Ok(place.join("bin"));
    }
    match std::fs::create_dir(parent) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(error).during("create", parent);
        }
        _ => {}
    }
    // Others may run what we have downloaded; they may not change it.
    directory::set_mode(&directory::open(parent)?, parent, 0o755)?;
    let unpacking =
        tempfile::Builder::new().prefix(".unpacking-").tempdir_in(parent).during("create", parent)?;
    let url = download.url();
    let archive = unpacking.path().join("archive.tar.gz");
    fetch(download, &url, &archive).await?;

    let tree = unpacking.path().join("tree");
    let unpacked = {
        let (archive, tree, url) = (archive.clone(), tree.clone(), url.clone());
        tokio::task::spawn_blocking(move || unpack(&archive, &tree, &url))
    };
    unpacked.await.map_err(|error| download.failed(&url, error.to_string()))??;
    std::fs::rename(&tree, &place).during("rename", &tree)?;
    directory::sync(parent)?;
    Ok(place.join("bin"))
}

/// Writes the archive to `path`, and compares its checksum.
async fn fetch(download: &Download, url: &str, path: &Path) -> Result<(), Error> {
    let secure = url.starts_with("https://");
    let redirects = reqwest::redirect::Policy::custom(move |attempt| {
        if attempt.previous().len() > REDIRECTS {
            attempt.error("too many redirects")
        } else if secure && attempt.url().scheme() != "https" {
            attempt.error("a redirect away from https")
        } else {
            attempt.follow()
        }
    });
    let client = reqwest::Client::builder()
        .redirect(redirects)
        .connect_timeout(STALL)
        .read_timeout(STALL)
        .user_agent(concat!("statusledger/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| download.failed(url, reason(&error)))?;

    let expected = match &download.sha256 {
        Some(pinned) => pinned.trim().to_ascii_lowercase(),
        None => {
            let url = format!("{url}.sha256");
            let failed = |error: reqwest::Error| download.failed(&url, reason(&error));
            let mut answer =
                client.get(&url).send().await.and_then(|answer| answer.error_for_status()).map_err(failed)?;
            let mut text = Vec::new();
            while let Some(part) = answer.chunk().await.map_err(failed)? {
                text.extend_from_slice(&part);
                if text.len() > 4096 {
                    return Err(download.failed(&url, "that is no checksum".to_owned()));
                }
            }
            // `sha256sum`'s form, or the number alone.
            let text = String::from_utf8_lossy(&text);
            text.split_whitespace().next().unwrap_or("").to_ascii_lowercase()
        }
    };
    if expected.len() != 64 || !expected.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(download.failed(url, format!("{expected:?} is not a SHA-256 in hex")));
    }

    let failed = |error: reqwest::Error| download.failed(url, reason(&error));
    let mut answer =
        client.get(url).send().await.and_then(|answer| answer.error_for_status()).map_err(failed)?;
    let mut file = File::create_new(path).during("create", path)?;
    let mut hash = Sha256::new();
    let mut size = 0;
    while let Some(part) = answer.chunk().await.map_err(failed)? {
        size += part.len() as u64;
        if size > ARCHIVE_LIMIT {
            return Err(download.failed(url, format!("it is larger than {ARCHIVE_LIMIT} bytes")));
        }
        hash.update(&part);
        file.write_all(&part).during("write", path)?;
    }
    let found: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    if found == expected {
        return Ok(());
    }
    Err(Error::Checksum { url: url.to_owned(), expected, found })
}

/// An error with what caused it; reqwest's own text stops at "error sending request".
fn reason(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

/// Unpacks what is below the archive's one top directory to `tree`, synced.
fn unpack(archive: &Path, tree: &Path, url: &str) -> Result<(), Error> {
    let refuse = |reason: String| Error::Archive { url: url.to_owned(), reason };
    let bad = |error: std::io::Error| refuse(error.to_string());
    make_directory(tree)?;
    let file = File::open(archive).during("open", archive)?;
    let mut contents = tar::Archive::new(flate2::read::GzDecoder::new(std::io::BufReader::new(file)));
    let mut size = 0;
    let mut directories = BTreeSet::from([tree.to_owned()]);
    for (number, entry) in contents.entries().map_err(bad)?.enumerate() {
        let mut entry = entry.map_err(bad)?;
        size += entry.size();
        if number >= FILES_LIMIT || size > UNPACKED_LIMIT {
            return Err(refuse("it is too large".to_owned()));
        }
        let name = entry.path().map_err(bad)?.into_owned();
        let Some(below) = below_top(&name) else {
            return Err(refuse(format!("{name:?} leads outside")));
        };
        if below.as_os_str().is_empty() {
            continue;
        }
        let path = tree.join(&below);
        if !parents_are_directories(tree, &below) {
            return Err(refuse(format!("{name:?} leads through a link")));
        }
        let is_directory = entry.header().entry_type() == tar::EntryType::Directory;
        let parents = if is_directory { below.as_path() } else { below.parent().unwrap_or(Path::new("")) };
        make_directories(tree, parents, &mut directories)?;
        match entry.header().entry_type() {
            tar::EntryType::Directory => {}
            tar::EntryType::Regular | tar::EntryType::Continuous => {
                let executable = entry.header().mode().map_err(bad)? & 0o111 != 0;
                let mut file = File::create_new(&path).during("create", &path)?;
                std::io::copy(&mut entry, &mut file).map_err(bad)?;
                let mode = if executable { 0o755 } else { 0o644 };
                file.set_permissions(Permissions::from_mode(mode)).during("change the mode of", &path)?;
                file.sync_all().during("sync", &path)?;
            }
            tar::EntryType::Symlink => {
                let target = entry.link_name().map_err(bad)?.unwrap_or_default().into_owned();
                if !stays_inside(&below, &target) {
                    return Err(refuse(format!("the link {name:?} leads to {target:?}, outside")));
                }
                std::os::unix::fs::symlink(&target, &path).during("create", &path)?;
            }
            // Metadata of the format itself, which the library has applied.
            tar::EntryType::XGlobalHeader => {}
            kind => return Err(refuse(format!("{name:?} is a {kind:?}"))),
        }
    }
    for path in &directories {
        directory::sync(path)?;
    }
    for program in ["postgres", "initdb"] {
        if !tree.join("bin").join(program).is_file() {
            return Err(refuse(format!("it has no bin/{program}")));
        }
    }
    Ok(())
}

fn make_directory(path: &Path) -> Result<(), Error> {
    match std::fs::create_dir(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(error).during("create", path);
        }
        _ => {}
    }
    directory::set_mode(&directory::open(path)?, path, 0o755)
}

fn make_directories(tree: &Path, below: &Path, made: &mut BTreeSet<PathBuf>) -> Result<(), Error> {
    let mut path = tree.to_owned();
    for component in below.components() {
        path.push(component);
        if made.insert(path.clone()) {
            make_directory(&path)?;
        }
    }
    Ok(())
}

/// `top/bin/postgres` as `bin/postgres`; none where a component is not plainly a name.
fn below_top(name: &Path) -> Option<PathBuf> {
    let mut names = Vec::new();
    for component in name.components() {
        match component {
            Component::Normal(name) => names.push(name),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(names.into_iter().skip(1).collect())
}

/// Whether nothing above `below` in the tree is a link.
fn parents_are_directories(tree: &Path, below: &Path) -> bool {
    below
        .ancestors()
        .skip(1)
        .all(|parent| std::fs::symlink_metadata(tree.join(parent)).map_or(true, |metadata| metadata.is_dir()))
}

/// Whether a link at `below` to `target` stays in the tree. It may go up only at its beginning, where it
/// passes real directories; after that, names lead down, or through links that stay inside themselves.
fn stays_inside(below: &Path, target: &Path) -> bool {
    let mut above = below.components().count() - 1;
    let mut descending = false;
    for component in target.components() {
        match component {
            Component::Normal(_) => descending = true,
            Component::CurDir => {}
            Component::ParentDir if above > 0 && !descending => above -= 1,
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return false,
        }
    }
    true
}
