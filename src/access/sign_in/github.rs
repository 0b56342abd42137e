//! GitHub, which has OAuth 2.0 but no OpenID Connect: the code flow with PKCE, then its API for who that is.
//!
//! The person is their numeric id: a login can be given up and taken by somebody else. The address is the one that is
//! marked primary and verified, else none.

use super::provider::{Client, Outward, Proven};
use super::{Error, Refusal};
use crate::access::people::Profile;
use crate::config::ProviderSettings;
use anyhow::Context;
use openidconnect::http::{Request, StatusCode, header};
use openidconnect::{HttpRequest, PkceCodeChallenge};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::Url;
use zeroize::Zeroizing;

/// What is asked for: who they are, and their addresses.
const SCOPE: &str = "read:user user:email";

/// A GitHub.
pub struct Github {
    server: String,
    api: String,
    client_id: String,
    client_secret: Zeroizing<String>,
    back: Url,
    client: Client,
}

impl std::fmt::Debug for Github {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Github").field("server", &self.server).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Token {
    access_token: Option<Zeroizing<String>>,
}

#[derive(Deserialize)]
struct User {
    id: u64,
    login: String,
    name: Option<String>,
}

#[derive(Deserialize)]
struct Address {
    email: String,
    primary: bool,
    verified: bool,
}

impl Github {
    /// As the settings say.
    ///
    /// # Errors
    /// If the client's secret is missing.
    pub fn new(
        settings: &ProviderSettings,
        secret: Option<Zeroizing<String>>,
        back: Url,
        client: Client,
    ) -> anyhow::Result<Self> {
        let address = |given: &Option<String>, default: &str| {
            given.as_deref().unwrap_or(default).trim_end_matches('/').to_owned()
        };
        Ok(Self {
            server: address(&settings.url, "https://github.com"),
            api: address(&settings.api_url, "https://api.github.com"),
            client_id: settings.client_id.clone(),
            client_secret: secret.context("client_secret_file is missing")?,
            back,
            client,
        })
    }

    /// Where to send somebody.
    #[must_use]
    pub fn outward(&self, state: &str) -> Outward {
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let query = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("client_id", &self.client_id)
            .append_pair("redirect_uri", self.back.as_str())
            .append_pair("scope", SCOPE)
            .append_pair("state", state)
            .append_pair("code_challenge", challenge.as_str())
            .append_pair("code_challenge_method", "S256")
            .finish();
        // The server's address was checked with the settings.
        let mut location = self.back.clone();
        if let Ok(at) = Url::parse(&format!("{}/login/oauth/authorize?{query}", self.server)) {
            location = at;
        }
        Outward { location, nonce: String::new(), verifier: verifier.secret().clone() }
    }

    /// Who came back with `code`.
    ///
    /// # Errors
    /// If GitHub does not take the code, or does not say who that is.
    pub async fn prove(&self, code: &str, verifier: &str) -> Result<Proven, Error> {
        let form = Zeroizing::new(
            url::form_urlencoded::Serializer::new(String::new())
                .append_pair("client_id", &self.client_id)
                .append_pair("client_secret", &self.client_secret)
                .append_pair("code", code)
                .append_pair("redirect_uri", self.back.as_str())
                .append_pair("code_verifier", verifier)
                .finish(),
        );
        let request = Request::post(format!("{}/login/oauth/access_token", self.server))
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form.as_bytes().to_vec())
            .map_err(Error::fault)?;
        // A code that is not taken is answered with 200 and an `error` instead of a token.
        let token: Token = self.ask(request).await?;
        let token = token.access_token.ok_or(Refusal::Code)?;
        let user: User = self.api(&token, "/user").await?;
        let addresses: Vec<Address> = self.api(&token, "/user/emails").await?;
        let email = addresses.into_iter().find(|a| a.primary && a.verified).map(|a| a.email);
        let name = user.name.filter(|name| !name.trim().is_empty()).unwrap_or(user.login);
        Ok(Proven {
            issuer: self.server.clone(),
            subject: user.id.to_string(),
            profile: Profile { email, name: Some(name) },
        })
    }

    async fn api<T: DeserializeOwned>(&self, token: &str, path: &str) -> Result<T, Error> {
        let request = Request::get(format!("{}{path}", self.api))
            .header(header::ACCEPT, "application/vnd.github+json")
            .header("x-github-api-version", "2022-11-28")
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .body(Vec::new())
            .map_err(Error::fault)?;
        self.ask(request).await
    }

    async fn ask<T: DeserializeOwned>(&self, request: HttpRequest) -> Result<T, Error> {
        let answer = self.client.send(request).await?;
        if answer.status() != StatusCode::OK {
            tracing::warn!(status = answer.status().as_u16(), "GitHub refused a request of the sign-in");
            return Err(Refusal::Unavailable.into());
        }
        serde_json::from_slice(answer.body()).map_err(|_| {
            tracing::warn!("GitHub's answer to a request of the sign-in is not what it documents");
            Refusal::Unavailable.into()
        })
    }
}
