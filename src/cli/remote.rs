//! The way to an instance, on this machine or another: its address, a token, a workspace.
//!
//! What the command line says wins over the environment, and that over what a node of this machine left in its data
//! directory. The token of that directory goes to an instance of this machine only, unless the directory was named.

use super::terminal::clean;
use crate::config::Settings;
use crate::id::WorkspaceId;
use clap::Args;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;
use url::{Host, Url};
use zeroize::Zeroizing;

/// The file in a data directory that says where its node serves, while it does.
pub const ADDRESS_FILE: &str = "address";
/// The file in a data directory with the administrator's token, where no other was named.
pub const TOKEN_FILE: &str = "bootstrap-token";

/// How long a connection may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// How long an answer may take, besides what it was asked to wait for.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// The largest answer taken: pages are of 10,000 subjects or 1,000 entries, at most.
const MAX_ANSWER: usize = 128 << 20;
/// Bytes of an error's text that are shown.
const MAX_DETAIL: usize = 1000;

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

/// A request that was not answered as hoped, in one sentence.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Used in a way that cannot be meant.
    #[error("{0}")]
    Usage(String),
    /// A file, an address or a token that cannot be used.
    #[error("{0}")]
    Unusable(String),
    /// Nobody is there.
    #[error("cannot reach {base}: {why}")]
    Unreachable {
        /// The address.
        base: String,
        /// The innermost cause.
        why: String,
    },
    /// The token is nobody's.
    #[error("{base} does not know the token {from}")]
    Unauthorized {
        /// The address.
        base: String,
        /// Where the token came from.
        from: String,
    },
    /// Another refusal.
    #[error("{base} answers {status}: {detail}")]
    Refused {
        /// The address.
        base: String,
        /// The HTTP status.
        status: u16,
        /// The problem's detail.
        detail: String,
    },
    /// An answer that is none of a statusledger.
    #[error("{base} does not answer as a statusledger does: {why}")]
    Unreadable {
        /// The address.
        base: String,
        /// What is wrong with it.
        why: String,
    },
}

impl Error {
    /// Whether the same request may be answered later.
    #[must_use]
    pub const fn passes(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Unreadable { .. } => true,
            Self::Refused { status, .. } => *status >= 500 || matches!(*status, 408 | 429),
            Self::Usage(_) | Self::Unusable(_) | Self::Unauthorized { .. } => false,
        }
    }
}

/// A workspace.
#[derive(Clone, Debug, Deserialize)]
pub struct Workspace {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Whether it is the instance's own.
    own: bool,
}

#[derive(Deserialize)]
struct Listed<T> {
    items: Vec<T>,
}

/// An instance that can be asked.
#[derive(Debug)]
pub struct Remote {
    client: reqwest::Client,
    base: String,
    token_from: String,
    workspace: Option<String>,
}

impl Remote {
    /// Finds out where and with which token, and asks nothing yet.
    ///
    /// # Errors
    /// If the address is none, or there is no token.
    pub fn new(connection: &Connection, settings: &Settings) -> Result<Self, Error> {
        let (url, of_this_node) = address(connection, settings)?;
        let loopback = match url.host() {
            Some(Host::Ipv4(ip)) => ip.is_loopback(),
            Some(Host::Ipv6(ip)) => ip.is_loopback(),
            Some(Host::Domain(name)) => name == "localhost",
            None => false,
        };
        let (token, token_from) = token(connection, settings, of_this_node || loopback)?;
        let mut authorization = HeaderValue::from_str(&Zeroizing::new(format!("Bearer {}", token.as_str())))
            .map_err(|_| Error::Unusable(format!("the token {token_from} is not one")))?;
        authorization.set_sensitive(true);
        if url.scheme() == "http" && !loopback && !of_this_node {
            super::show::note(format!("statusledger: the token travels unencrypted to {url}"));
        }
        let mut client = reqwest::Client::builder()
            .user_agent(concat!("statusledger/", env!("CARGO_PKG_VERSION")))
            .default_headers(HeaderMap::from_iter([(AUTHORIZATION, authorization)]))
            .connect_timeout(CONNECT_WITHIN)
            // A token is for one address, not for where that points.
            .redirect(reqwest::redirect::Policy::none());
        if loopback {
            client = client.no_proxy();
        }
        let client = client.build().map_err(|e| Error::Unusable(innermost(&e)))?;
        let base = url.as_str().trim_end_matches('/').to_owned();
        let workspace = connection.workspace.clone().or_else(|| variable("STATUSLEDGER_WORKSPACE"));
        Ok(Self { client, base, token_from, workspace })
    }

    /// Asks for `path` and `query`, and gives the answer `wait` more time than usual.
    ///
    /// # Errors
    /// If there is no answer, or another one than was asked for.
    pub async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
        wait: Duration,
    ) -> Result<T, Error> {
        let base = self.base.clone();
        let unreachable =
            |e: reqwest::Error| Error::Unreachable { base: self.base.clone(), why: innermost(&e) };
        let mut response = self
            .client
            .get(format!("{base}{path}"))
            .query(query)
            .timeout(ANSWER_WITHIN + wait)
            .send()
            .await
            .map_err(unreachable)?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(Error::Unreadable { base, why: "the answer does not end".into() });
            }
            body.extend_from_slice(&chunk);
        }
        if status.is_success() {
            return serde_json::from_slice(&body)
                .map_err(|e| Error::Unreadable { base, why: clean(&e.to_string()).into_owned() });
        }
        #[derive(Deserialize)]
        struct Problem {
            detail: String,
        }
        if status.as_u16() == 401 {
            return Err(Error::Unauthorized { base, from: self.token_from.clone() });
        }
        let detail = serde_json::from_slice::<Problem>(&body).map(|p| p.detail).unwrap_or_else(|_| {
            status.canonical_reason().unwrap_or("nothing that a statusledger answers").to_owned()
        });
        let detail = clean(detail.trim_end_matches('.')).chars().take(MAX_DETAIL).collect();
        Err(Error::Refused { base, status: status.as_u16(), detail })
    }

    /// The workspace that is asked about: the one named, or the only one. An id is taken as it is.
    ///
    /// # Errors
    /// If it does not exist, or none was named and there are several.
    pub async fn workspace(&self) -> Result<String, Error> {
        if let Some(id) = self.workspace.as_ref().filter(|w| w.parse::<WorkspaceId>().is_ok()) {
            return Ok(id.clone());
        }
        let listed: Listed<Workspace> = self.get("/v1/workspaces", &[], Duration::ZERO).await?;
        // An id goes into paths: it has to be one.
        let known = |w: &Workspace| w.id.parse::<WorkspaceId>().is_ok();
        let all: Vec<Workspace> = listed.items.into_iter().filter(known).collect();
        if let Some(name) = &self.workspace {
            return all.into_iter().find(|w| w.name == *name).map(|w| w.id).ok_or_else(|| {
                Error::Unusable(format!("{} has no workspace called \"{}\"", self.base, clean(name)))
            });
        }
        let mut teams: Vec<Workspace> = all.into_iter().filter(|w| !w.own).collect();
        match teams.len() {
            0 => Err(Error::Unusable(format!("{} has no workspace yet", self.base))),
            1 => Ok(teams.remove(0).id),
            _ => {
                let names: Vec<String> = teams.iter().map(|w| format!("\"{}\"", clean(&w.name))).collect();
                Err(Error::Usage(format!("name one of these with --workspace: {}", names.join(", "))))
            }
        }
    }
}

/// A variable of the environment, if it says something.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The address, and whether it is that of a node whose data directory this is.
fn address(connection: &Connection, settings: &Settings) -> Result<(Url, bool), Error> {
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
fn token(
    connection: &Connection,
    settings: &Settings,
    local: bool,
) -> Result<(Zeroizing<String>, String), Error> {
    let of_file = |file: &Path| {
        let text = std::fs::read_to_string(file).map(Zeroizing::new);
        let text =
            text.map_err(|e| Error::Unusable(format!("cannot read the token in {}: {e}", file.display())))?;
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

/// What an error is in the end: the layers above it say that a request failed, which is known.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    let text = cause.to_string();
    // The number of an operating system's error is for nobody who reads a sentence.
    let text = text.split(" (os error").next().unwrap_or_default();
    clean(text).into_owned()
}
