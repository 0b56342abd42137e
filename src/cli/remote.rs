//! The way to an instance: requests, answers and refusals.

pub use super::connection::{ADDRESS_FILE, Connection, TOKEN_FILE, serving};
use super::connection::{address, token, variable};
use super::terminal::clean;
use crate::config::Settings;
use crate::id::WorkspaceId;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use url::Host;
use zeroize::Zeroizing;

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
    /// The ids of the requests that have changed something. Locked to add one, and to read them.
    changed: Mutex<Vec<String>>,
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
        let workspace =
            connection.workspace().map(str::to_owned).or_else(|| variable("STATUSLEDGER_WORKSPACE"));
        Ok(Self { client, base, token_from, workspace, changed: Mutex::default() })
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
        let id = response.headers().get("x-request-id").and_then(|id| id.to_str().ok());
        if let Some(id) = id {
            self.changed.lock().unwrap_or_else(PoisonError::into_inner).push(id.to_owned());
        }
        if response.status() == StatusCode::NO_CONTENT || response.content_length() == Some(0) {
            return Ok(Value::Null);
        }
        self.read(response).await
    }

    /// The ids of the requests that have changed something, in their order.
    #[must_use]
    pub fn changed(&self) -> Vec<String> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
            let mut called: Vec<Workspace> = all.into_iter().filter(|w| w.name == *name).collect();
            return match called.len() {
                0 => {
                    Err(Error::Unusable(format!("{} has no workspace called \"{}\"", self.base, clean(name))))
                }
                1 => Ok(called.remove(0).id),
                _ => Err(Error::Usage(ambiguous(name, called.into_iter().map(|w| w.id)))),
            };
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

/// Says that several workspaces have a name.
#[must_use]
pub fn ambiguous(name: &str, ids: impl Iterator<Item = String>) -> String {
    let ids: Vec<String> = ids.collect();
    format!("several are called \"{}\": give the id of a workspace: {}", clean(name), ids.join(", "))
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
