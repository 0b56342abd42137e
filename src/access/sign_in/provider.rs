//! Identity providers, and the client that asks them.

use super::github::Github;
use super::oidc::Oidc;
use super::{Error, Refusal};
use crate::access::people::Profile;
use crate::access::session::Method;
use crate::config::{ProviderKind, ProviderSettings};
use crate::redacted::redacted;
use anyhow::Context;
use futures_util::StreamExt;
use openidconnect::{AsyncHttpClient, HttpRequest, HttpResponse};
use std::pin::Pin;
use std::time::Duration;
use url::Url;
use zeroize::Zeroizing;

redacted!(Proven);

/// How long a provider may take to answer a request.
const WITHIN: Duration = Duration::from_secs(10);
/// The largest answer that is read: discovery documents and key sets have a few KiB.
const LARGEST: usize = 1 << 20;

/// Somebody, as a provider vouches for them.
pub struct Proven {
    /// Who says so: an address that no other provider has.
    pub issuer: String,
    /// Who, there.
    pub subject: String,
    /// What else it says of them: the address only where it was verified.
    pub profile: Profile,
}

/// Where somebody is sent, and what the answer is held against.
#[derive(Debug)]
pub struct Outward {
    /// Where.
    pub location: Url,
    /// What the ID token has to repeat; empty where there is none.
    pub nonce: String,
    /// The PKCE verifier.
    pub verifier: String,
}

/// A provider of the settings.
#[derive(Debug)]
pub struct Provider {
    /// Its id.
    pub id: String,
    /// What people call it.
    pub name: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Oidc(Oidc),
    Github(Github),
}

impl Provider {
    /// As the settings say, with people sent back to a path below `base`.
    ///
    /// # Errors
    /// If its client's secret cannot be read, or an address is none.
    pub fn new(settings: &ProviderSettings, base: &Url, client: &Client) -> anyhow::Result<Self> {
        let place = || format!("the identity provider {}", settings.id);
        let back = base.join(&format!("/sign-in/callback/{}", settings.id)).with_context(place)?;
        let secret = match &settings.client_secret_file {
            None => None,
            Some(path) => {
                let text = std::fs::read_to_string(path).map(Zeroizing::new).with_context(|| {
                    format!("{}: the client's secret cannot be read from {}", place(), path.display())
                })?;
                Some(Zeroizing::new(text.trim().to_owned()))
            }
        };
        let kind = match settings.kind {
            ProviderKind::Oidc => {
                Kind::Oidc(Oidc::new(settings, secret, back, client.clone()).with_context(place)?)
            }
            ProviderKind::Github => {
                Kind::Github(Github::new(settings, secret, back, client.clone()).with_context(place)?)
            }
        };
        Ok(Self { id: settings.id.clone(), name: settings.name.clone(), kind })
    }

    /// How a sign-in there is named in entries.
    #[must_use]
    pub const fn method(&self) -> Method {
        match self.kind {
            Kind::Oidc(_) => Method::Oidc,
            Kind::Github(_) => Method::Github,
        }
    }

    /// Where to send somebody, with `state`.
    ///
    /// # Errors
    /// If the provider does not say where that is.
    pub async fn outward(&self, state: String) -> Result<Outward, Error> {
        match &self.kind {
            Kind::Oidc(oidc) => oidc.outward(state).await,
            Kind::Github(github) => Ok(github.outward(&state)),
        }
    }

    /// Who came back with `code`.
    ///
    /// # Errors
    /// If the provider does not vouch for anybody, or what it says does not hold.
    pub async fn prove(
        &self,
        code: String,
        issuer: Option<&str>,
        nonce: String,
        verifier: String,
    ) -> Result<Proven, Error> {
        match &self.kind {
            Kind::Oidc(oidc) => oidc.prove(code, issuer, nonce, verifier).await,
            Kind::Github(github) => github.prove(&code, &verifier).await,
        }
    }
}

/// A request to a provider that came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// It cannot be reached, or does not answer in time.
    #[error("the identity provider cannot be asked: {0}")]
    Unreachable(#[from] reqwest::Error),
    /// Its answer is too large.
    #[error("the identity provider's answer has more than {LARGEST} bytes")]
    TooLarge,
    /// Its answer is no answer.
    #[error("the identity provider's answer cannot be read: {0}")]
    Unreadable(#[from] openidconnect::http::Error),
}

impl From<ClientError> for Error {
    fn from(e: ClientError) -> Self {
        tracing::warn!(error = ?e.to_string(), "an identity provider was asked in vain");
        Refusal::Unavailable.into()
    }
}

/// The client. It follows no redirects: a provider answers itself, or not at all.
#[derive(Clone, Debug)]
pub struct Client(reqwest::Client);

impl Client {
    /// A new one.
    ///
    /// # Errors
    /// If there is no TLS to be had.
    pub fn new() -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(WITHIN)
            .timeout(WITHIN)
            .user_agent(concat!("statusledger/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self(client))
    }

    /// Sends a request.
    ///
    /// # Errors
    /// If there is no answer in time, or it is too large.
    pub async fn send(&self, request: HttpRequest) -> Result<HttpResponse, ClientError> {
        let answer = self.0.execute(request.try_into()?).await?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let mut body = Vec::new();
        let mut chunks = answer.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk?;
            if body.len() + chunk.len() > LARGEST {
                return Err(ClientError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        let mut response = HttpResponse::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    }
}

impl<'c> AsyncHttpClient<'c> for Client {
    type Error = ClientError;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, ClientError>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(self.send(request))
    }
}
