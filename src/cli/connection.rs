//! Where an instance is, on this machine or another, and with which token it is asked.
//!
//! What the command line says wins over the environment, and that over what a node of this machine left in its data
//! directory. The token of that directory goes to an instance of this machine only, unless the directory was named.

use super::remote::{Error, system};
use crate::config::Settings;
use clap::Args;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use url::Url;
use zeroize::Zeroizing;

/// The file in a data directory that says where its node serves, while it does.
pub const ADDRESS_FILE: &str = "address";
/// The file in a data directory with the administrator's token, where no other was named.
pub const TOKEN_FILE: &str = "bootstrap-token";

/// Where the instance is, and who asks.
#[derive(Debug, Args, Clone, Default)]
pub struct Connection {
    /// The instance's address [env: STATUSLEDGER_URL] [default: the node of the data directory]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// The file with the token [env: STATUSLEDGER_TOKEN_FILE, or the token itself in STATUSLEDGER_TOKEN]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The data directory of a node of this machine, with its address and token
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The workspace, by name or id [env: STATUSLEDGER_WORKSPACE] [default: the only one]
    #[arg(long, value_name = "WORKSPACE")]
    workspace: Option<String>,
}

impl Connection {
    /// A connection to the address `url`, or the node of `data_dir`, with the token in `token_file`.
    #[must_use]
    pub const fn to(
        url: Option<String>,
        token_file: Option<PathBuf>,
        data_dir: Option<PathBuf>,
        workspace: Option<String>,
    ) -> Self {
        Self { url, token_file, data_dir, workspace }
    }

    /// Refuses `--workspace` where the workspace is an argument by itself.
    ///
    /// # Errors
    /// If it was given.
    pub fn of_no_workspace(&self) -> Result<(), Error> {
        match &self.workspace {
            Some(_) => {
                Err(Error::Usage("the workspace is the argument WORKSPACE here, and no --workspace".into()))
            }
            None => Ok(()),
        }
    }

    /// The workspace that the command line names.
    #[must_use]
    pub fn workspace(&self) -> Option<&str> {
        self.workspace.as_deref()
    }

    /// The same connection, to `workspace`.
    #[must_use]
    pub fn in_workspace(&self, workspace: &str) -> Self {
        Self { workspace: Some(workspace.to_owned()), ..self.clone() }
    }
}

/// A variable of the environment, if it says something.
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The address, and whether it is that of a node whose data directory this is.
pub(super) fn address(connection: &Connection, settings: &Settings) -> Result<(Url, bool), Error> {
    let parse = |text: &str, what: &str| {
        let url = Url::parse(text.trim()).ok().filter(|url| {
            matches!(url.scheme(), "http" | "https")
                && url.has_host()
                && url.username().is_empty()
                && url.password().is_none()
                && url.query().is_none()
                && url.fragment().is_none()
        });
        url.ok_or_else(|| format!("{what} is not an address like https://status.example.com"))
    };
    if let Some(url) = &connection.url {
        return parse(url, "--url").map(|url| (url, false)).map_err(Error::Usage);
    }
    if connection.data_dir.is_none()
        && let Some(url) = variable("STATUSLEDGER_URL")
    {
        return parse(&url, "STATUSLEDGER_URL").map(|url| (url, false)).map_err(Error::Unusable);
    }
    let directory = connection.data_dir.as_ref().unwrap_or(&settings.data_dir);
    let file = directory.join(ADDRESS_FILE);
    match std::fs::read_to_string(&file) {
        Ok(text) => parse(&text, &file.display().to_string()).map(|url| (url, true)).map_err(Error::Unusable),
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            // Whoever names a directory means the node over it, and no other one with that directory's token.
            if let Some(directory) = &connection.data_dir {
                let directory = directory.display();
                return Err(Error::Unusable(format!(
                    "no node is running over {directory}; start `statusledger up --data-dir {directory}`, or give --url"
                )));
            }
            let url = serving(std::net::SocketAddr::new(settings.listen, settings.port));
            parse(&url, "the setting listen").map(|url| (url, true)).map_err(Error::Unusable)
        }
        Err(e) => Err(Error::Unusable(format!("cannot read {}: {e}", file.display()))),
    }
}

/// The address by which a node that listens there is reached from this machine.
#[must_use]
pub fn serving(mut listening: std::net::SocketAddr) -> String {
    use std::net::{Ipv4Addr, Ipv6Addr};
    if listening.ip().is_unspecified() {
        let loopback =
            if listening.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
        listening.set_ip(loopback);
    }
    format!("http://{listening}")
}

/// The token, and where it came from. `local` says whether that of the local data directory may be sent.
pub(super) fn token(
    connection: &Connection,
    settings: &Settings,
    local: bool,
) -> Result<(Zeroizing<String>, String), Error> {
    let of_file = |file: &Path| {
        let text = std::fs::read_to_string(file).map(Zeroizing::new);
        let text = text.map_err(|e| {
            let (file, why) = (file.display(), system(&e));
            Error::Unusable(format!(
                "cannot read the token in {file}: {why}; name its file with --token-file"
            ))
        })?;
        checked(&text, format!("in {}", file.display()))
    };
    if let Some(file) = &connection.token_file {
        return of_file(file);
    }
    if let Some(directory) = &connection.data_dir {
        return of_file(&directory.join(TOKEN_FILE));
    }
    if let Some(token) = variable("STATUSLEDGER_TOKEN") {
        return checked(&Zeroizing::new(token), "in STATUSLEDGER_TOKEN".into());
    }
    if let Some(file) = variable("STATUSLEDGER_TOKEN_FILE") {
        return of_file(Path::new(&file));
    }
    let file = settings.data_dir.join(TOKEN_FILE);
    if local && file.exists() {
        return of_file(&file);
    }
    Err(Error::Usage(
        "there is no token: name its file with --token-file, or a local node's directory with --data-dir"
            .into(),
    ))
}

fn checked(text: &Zeroizing<String>, from: String) -> Result<(Zeroizing<String>, String), Error> {
    let token = Zeroizing::new(text.trim().to_owned());
    if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Error::Unusable(format!("what is {from} is not a token")));
    }
    Ok((token, from))
}
