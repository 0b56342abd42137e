//! The way to an instance, on this machine or another: its address, a token, a workspace.
//!
//! What the command line says wins over the environment, and that over what a node of this machine left in its data
//! directory. The token of that directory goes to an instance of this machine only, unless the directory was named.

use super::terminal::clean;
use crate::config::Settings;
use crate::id::WorkspaceId;
use clap::Args;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
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
/// How long a change may take: when a source is made, its store is asked first.
const CHANGE_WITHIN: Duration = Duration::from_secs(150);
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
            .user_agent(concat!("statusledger-cli/", env!("CARGO_PKG_VERSION")))
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
        let request = self.client.get(format!("{}{path}", self.base)).query(query);
        self.read(self.send(request.timeout(ANSWER_WITHIN + wait)).await?).await
    }

    /// Changes something: sends `body` to `path` and reads the answer; `null` where it is empty.
    ///
    /// # Errors
    /// If there is no answer, or a refusal.
    pub async fn change(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Error> {
        let mut request = self.client.request(method, format!("{}{path}", self.base)).timeout(CHANGE_WITHIN);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = self.send(request).await?;
        if response.status() == StatusCode::NO_CONTENT || response.content_length() == Some(0) {
            return Ok(Value::Null);
        }
        self.read(response).await
    }

    /// Asks for a file, to be read as it comes, however long that takes.
    ///
    /// # Errors
    /// If there is no answer, or a refusal.
    pub async fn file(&self, path: &str, query: &[(&str, &str)]) -> Result<File, Error> {
        let request = self.client.get(format!("{}{path}", self.base)).query(query);
        Ok(File { response: self.send(request).await?, base: self.base.clone() })
    }

    fn unreachable(&self, e: &reqwest::Error) -> Error {
        Error::Unreachable { base: self.base.clone(), why: innermost(e) }
    }

    /// Sends a request; what is answered is what was hoped for, or an error that says what else.
    async fn send(&self, request: RequestBuilder) -> Result<Response, Error> {
        let response = request.send().await.map_err(|e| self.unreachable(&e))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let base = self.base.clone();
        if status == StatusCode::UNAUTHORIZED {
            return Err(Error::Unauthorized { base, from: self.token_from.clone() });
        }
        #[derive(Deserialize)]
        struct Problem {
            detail: String,
        }
        let body = self.body(response).await?;
        let detail = serde_json::from_slice::<Problem>(&body).map(|p| p.detail).unwrap_or_else(|_| {
            status.canonical_reason().unwrap_or("nothing that a statusledger answers").to_owned()
        });
        let detail = clean(detail.trim_end_matches('.')).chars().take(MAX_DETAIL).collect();
        Err(Error::Refused { base, status: status.as_u16(), detail })
    }

    /// An answer as JSON.
    async fn read<T: DeserializeOwned>(&self, response: Response) -> Result<T, Error> {
        let body = self.body(response).await?;
        serde_json::from_slice(&body).map_err(|e| self.unreadable(clean(&e.to_string()).into_owned()))
    }

    /// An answer's bytes. They may hold a secret that is shown once.
    async fn body(&self, mut response: Response) -> Result<Zeroizing<Vec<u8>>, Error> {
        let mut body = Zeroizing::new(Vec::new());
        while let Some(chunk) = response.chunk().await.map_err(|e| self.unreachable(&e))? {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(self.unreadable("the answer does not end"));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// An error that says how the instance answered otherwise than a statusledger does.
    #[must_use]
    pub fn unreadable(&self, why: impl Into<String>) -> Error {
        Error::Unreadable { base: self.base.clone(), why: why.into() }
    }

    /// The workspaces that the token has a part in.
    ///
    /// # Errors
    /// If they are not told.
    pub async fn workspaces(&self) -> Result<Vec<Workspace>, Error> {
        let listed: Listed<Workspace> = self.get("/v1/workspaces", &[], Duration::ZERO).await?;
        // An id goes into paths: it has to be one.
        Ok(listed.items.into_iter().filter(|w| w.id.parse::<WorkspaceId>().is_ok()).collect())
    }

    /// The workspace that is asked about: the one named, or the only one. An id is taken as it is.
    ///
    /// # Errors
    /// If it does not exist, or none was named and there are several.
    pub async fn workspace(&self) -> Result<String, Error> {
        if let Some(id) = self.workspace.as_ref().filter(|w| w.parse::<WorkspaceId>().is_ok()) {
            return Ok(id.clone());
        }
        let all = self.workspaces().await?;
        if let Some(name) = &self.workspace {
            return all.into_iter().find(|w| w.name == *name).map(|w| w.id).ok_or_else(|| {
                Error::Unusable(format!("{} has no workspace called \"{}\"", self.base, clean(name)))
            });
        }
        let mut teams: Vec<Workspace> = all.into_iter().filter(|w| !w.own).collect();
        match teams.len() {
            0 => Err(Error::Unusable(format!(
                "{} has no workspace yet that the token has a part in; `statusledger workspaces create NAME` makes one",
                self.base
            ))),
            1 => Ok(teams.remove(0).id),
            _ => {
                let names: Vec<String> = teams.iter().map(|w| format!("\"{}\"", clean(&w.name))).collect();
                Err(Error::Usage(format!("name one of these with --workspace: {}", names.join(", "))))
            }
        }
    }
}

/// A file on its way.
#[derive(Debug)]
pub struct File {
    response: Response,
    base: String,
}

impl File {
    /// The next bytes; none at the end.
    ///
    /// # Errors
    /// If the connection breaks before it.
    pub async fn chunk(&mut self) -> Result<Option<bytes::Bytes>, Error> {
        let cut = |e: reqwest::Error| Error::Unreachable { base: self.base.clone(), why: innermost(&e) };
        self.response.chunk().await.map_err(cut)
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
fn token(
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

/// What an error is in the end: the layers above it say that a request failed, which is known.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    system(cause)
}

/// An error without the operating system's number for it, which is for nobody who reads a sentence.
pub fn system(error: &(impl std::fmt::Display + ?Sized)) -> String {
    let text = error.to_string();
    clean(text.split(" (os error").next().unwrap_or_default()).into_owned()
}
