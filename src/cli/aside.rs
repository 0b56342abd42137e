//! A file that is written aside and gets its name when it is whole, and never in the place of another.

use super::remote::system;
use anyhow::{Context, Result, anyhow, bail};
use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// The file, under another name in the same directory. Dropped, it is removed; after a crash it stays, and looks like
/// what it is (`….part`).
#[derive(Debug)]
pub struct Aside {
    file: NamedTempFile,
    out: PathBuf,
}

impl Aside {
    /// Begins the file that shall be called `out`, readable as the umask says, or by its owner alone.
    ///
    /// # Errors
    /// If there is one of that name, or the directory takes none.
    pub fn begin(out: &Path, private: bool) -> Result<Self> {
        if out.symlink_metadata().is_ok() {
            bail!("{} exists already; choose another name, or remove it", out.display());
        }
        let directory = match out.parent() {
            Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
            Some(parent) => parent,
            None => bail!("{} is no name of a file", out.display()),
        };
        let mut name = out.file_name().unwrap_or_default().to_owned();
        name.push(".");
        let mode = if private { 0o600 } else { 0o666 };
        let file = tempfile::Builder::new()
            .prefix(&name)
            .suffix(".part")
            .permissions(Permissions::from_mode(mode))
            .tempfile_in(directory)
            .map_err(|e| anyhow!("cannot write {}: {}", out.display(), system(&e)))?;
        Ok(Self { file, out: out.to_owned() })
    }

    /// What is to be written to.
    pub fn file(&mut self) -> &mut File {
        self.file.as_file_mut()
    }

    /// The same, to be given away.
    ///
    /// # Errors
    /// If the system has no descriptor left.
    pub fn handle(&self) -> Result<File> {
        self.file.as_file().try_clone().with_context(|| format!("cannot write {}", self.out.display()))
    }

    /// Gives it its name. Its bytes are on the disk by then: a crash before leaves the `….part`, one after the file.
    ///
    /// # Errors
    /// If there is one of that name by now; then what was written stays, under the name that the error tells.
    pub fn finish(self) -> Result<()> {
        let out = self.out.display().to_string();
        self.file.as_file().sync_all().with_context(|| format!("cannot write {out}"))?;
        let Err(refused) = self.file.persist_noclobber(&self.out) else { return Ok(()) };
        let why = system(&refused.error);
        let (_, kept) =
            refused.file.keep().map_err(|e| anyhow!("cannot write {out}: {}", system(&e.error)))?;
        bail!("cannot write {out}: {why}; what was written is in {}", kept.display());
    }
}
