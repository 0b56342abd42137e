//! `up`, `serve`, `migrate`.

use super::{remote, show, sign_in};
use crate::access::{Gate, keys};
use crate::config::Settings;
use crate::database::{self, Database, attach};
use crate::ledger::Writer;
use crate::node::Node;
use anyhow::{Context, Result, bail};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// How long a port that is in use is tried again.
const ENDING_WITHIN: Duration = Duration::from_secs(3);
/// The pause between two tries.
const ENDING_PAUSE: Duration = Duration::from_millis(100);

/// Serves over the embedded cluster.
///
/// # Errors
/// If something is not as it has to be.
pub async fn up(settings: &Settings, name: Option<&str>, token_file: Option<PathBuf>) -> Result<u8> {
    check_listening(settings).await?;
    let attached = attach::start(settings).await?;
    let served = run(settings, name, attached.database, token_file).await;
    attach::stop(attached.cluster).await?;
    served
}

/// Serves over the operator's database.
///
/// # Errors
/// If something is not as it has to be.
pub async fn serve(settings: &Settings, name: Option<&str>, token_file: Option<PathBuf>) -> Result<u8> {
    let Some(url) = &settings.database_url else {
        bail!("`serve` needs --database-url (and --worker-database-url); `up` brings a database of its own");
    };
    check_listening(settings).await?;
    let database = attach::open_external(settings, url).await?;
    run(settings, name, database, token_file).await
}

/// Whether it can be listened where the settings say, before an instance is made that gets its name for ever. Somebody
/// else may take the port before the node does: then that says so.
///
/// # Errors
/// If it cannot; after a wait where a process that is just ending may be what is in the way.
async fn check_listening(settings: &Settings) -> Result<()> {
    let until = tokio::time::Instant::now() + ENDING_WITHIN;
    let mut told = false;
    loop {
        match std::net::TcpListener::bind((settings.listen, settings.port)) {
            Ok(_) => return Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::AddrInUse && tokio::time::Instant::now() < until => {
                if !std::mem::replace(&mut told, true) {
                    let (listen, port, s) = (settings.listen, settings.port, ENDING_WITHIN.as_secs());
                    show::note(format!(
                        "statusledger: {listen}:{port} is in use; waiting up to {s} s for it to be free"
                    ));
                }
                tokio::time::sleep(ENDING_PAUSE).await;
            }
            Err(e) => {
                let (listen, port) = (settings.listen, settings.port);
                let whose = match std::fs::read_to_string(settings.data_dir.join(remote::ADDRESS_FILE)) {
                    Ok(address) if address.trim_end().ends_with(&format!(":{port}")) => {
                        format!("; a node over {} said that it serves there", settings.data_dir.display())
                    }
                    _ => "; nothing was made; another port is taken with --port".to_owned(),
                };
                let why = remote::system(&e);
                bail!("cannot listen on {listen}:{port}: {why}{whose}");
            }
        }
    }
}

/// Migrates, as the owner.
///
/// # Errors
/// If the owner may not, or a migration fails.
pub async fn migrate(settings: &Settings) -> Result<u8> {
    let Some(url) = &settings.owner_database_url else {
        bail!("`migrate` needs --owner-database-url");
    };
    database::migrate(url.parse().context("the owner's database address cannot be read")?).await?;
    show::line("the schema is up to date");
    Ok(0)
}

async fn run(
    settings: &Settings,
    name: Option<&str>,
    database: Database,
    token_file: Option<PathBuf>,
) -> Result<u8> {
    let mut terminated = signal(SignalKind::terminate())?;
    let token_file = token_file.unwrap_or_else(|| settings.data_dir.join(remote::TOKEN_FILE));
    let first = async |writer: &Writer, gate: &Gate| ensure_token(writer, gate, &token_file).await;
    let (mut node, made) = Node::start_with(settings, name, database, first).await?;
    let announced = sign_in::first_owners(&node).await.map(|link| {
        show::line(format!("statusledger {} serves {}", env!("CARGO_PKG_VERSION"), node.instance.name));
        show::line(format!("  address  http://{}", node.address));
        show::line(format!("  pin      {}", node.keyring.current().pin()));
        let how = if made { "written to" } else { "in" };
        if let Some(link) = link {
            show::line(format!("  sign in  {} (once, within an hour: the first owner)", link.as_str()));
        }
        show::line(format!("  token    {how} {}", token_file.display()));
    });
    let address_file = settings.data_dir.join(remote::ADDRESS_FILE);
    // For commands of this machine. Left by a crash it names an address at which nobody is.
    let announced = announced.and_then(|()| leave_address(&node, &address_file));
    let ended = match announced {
        Err(e) => Err(e),
        Ok(()) => tokio::select! {
            refused = node.refused() => refused.map(|()| 0),
            _ = tokio::signal::ctrl_c() => Ok(0),
            _ = terminated.recv() => Ok(0),
        },
    };
    // Only a convenience: who finds it asks nobody.
    let _ = std::fs::remove_file(&address_file);
    node.stop().await;
    ended
}

/// Says in `file` where the node serves.
///
/// # Errors
/// If it cannot be written.
pub fn leave_address(node: &Node, file: &Path) -> Result<()> {
    std::fs::write(file, remote::serving(node.address) + "\n")
        .with_context(|| format!("cannot write {}", file.display()))
}

/// Makes sure that the file holds an administrator's token, before anybody finds the node ready; says whether it made one.
///
/// # Errors
/// If it holds something else, or cannot be written.
pub async fn ensure_token(writer: &Writer, gate: &Gate, file: &Path) -> Result<bool> {
    match std::fs::read_to_string(file) {
        Ok(text) if keys::is_instance_key(writer, &gate.secret, text.trim()).await? => {
            return Ok(false);
        }
        Ok(text) if !text.trim().is_empty() => {
            bail!(
                "{} holds something that is not a token of this instance; remove it or name another",
                file.display()
            );
        }
        Ok(_) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(e).with_context(|| format!("cannot read {}", file.display())),
    }
    let token = keys::bootstrap(writer, &gate.secret, gate.instance).await?;
    let mut out = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(file)
        .with_context(|| format!("cannot write the bootstrap token to {}", file.display()))?;
    nix::sys::stat::fchmod(&out, nix::sys::stat::Mode::from_bits_truncate(0o600))?;
    writeln!(out, "{}", token.as_str())?;
    out.sync_all()?;
    Ok(true)
}
