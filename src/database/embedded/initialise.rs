//! Making the cluster, once.

use std::path::Path;
use std::process::Stdio;

use super::account::Account;
use super::binaries::Binaries;
use super::{During, Error, SUPERUSER, configuration, directory};

/// How the names of clusters in the making begin.
const UNFINISHED: &str = "initialising-";

/// The major version of the cluster at `data`; none: there is no cluster.
pub(super) fn major(data: &Path) -> Option<u32> {
    std::fs::read_to_string(data.join("PG_VERSION")).ok()?.trim().parse().ok()
}

/// Makes the cluster `directory/data`, ready to start.
///
/// `initdb` leaves nothing synced; one pass over everything before the rename does that for less than half of
/// what `initdb` by itself takes, and is as safe: until the rename is durable, there is no cluster.
pub(super) async fn initialise(
    parent: &Path,
    data: &Path,
    socket_directory: &Path,
    settings: &[(String, String)],
    binaries: &Binaries,
    account: &Account,
) -> Result<(), Error> {
    remove_unfinished(parent)?;
    // A name of its own: an `initdb` whose parent was killed may still be writing under the one before.
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(std::io::Error::other).during("read random bytes for", parent)?;
    let unfinished = parent.join(format!("{UNFINISHED}{:016x}", u64::from_ne_bytes(random)));
    directory::make_private(&unfinished, account)?;
    let initdb = |arguments: &[&str]| {
        let mut command = account.command(&binaries.program("initdb"));
        command.arg("--pgdata").arg(&unfinished).args(arguments);
        command
    };
    let user = format!("--username={SUPERUSER}");
    run(initdb(&[
        "--no-sync",
        &user,
        "--encoding=UTF8",
        "--locale=C",
        "--data-checksums",
        "--auth-local=trust",
        "--auth-host=reject",
        "--no-instructions",
    ]))
    .await?;
    configuration::write(&unfinished, socket_directory, settings, account)?;
    run(initdb(&["--sync-only"])).await?;
    std::fs::rename(&unfinished, data).during("rename", &unfinished)?;
    directory::sync(parent)
}

/// Removes what crashes have left; nothing in it was ever used.
fn remove_unfinished(parent: &Path) -> Result<(), Error> {
    for entry in std::fs::read_dir(parent).during("list", parent)? {
        let entry = entry.during("list", parent)?;
        if !entry.file_name().as_encoded_bytes().starts_with(UNFINISHED.as_bytes()) {
            continue;
        }
        // Whoever still writes there can make this fail; the next start removes the rest.
        if let Err(error) = std::fs::remove_dir_all(entry.path()) {
            tracing::warn!(path = %entry.path().display(), %error, "cannot remove an unfinished cluster");
        }
    }
    Ok(())
}

async fn run(mut command: tokio::process::Command) -> Result<(), Error> {
    let output = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        // A Ctrl-C at the terminal is for us to act on.
        .process_group(0)
        .output()
        .await
        .map_err(|error| Error::Initdb(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::Initdb(format!("{}: {}", output.status, said.trim())))
}
