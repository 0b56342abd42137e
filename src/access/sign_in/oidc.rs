//! OpenID Connect Core 1.0: the authorization-code flow with PKCE, `state` and `nonce`, at any issuer.
//!
//! The discovery document and the keys are asked for when they are needed and kept for a while; an ID token by a key
//! that is not among them has them asked for again at once, since providers change keys without a word, but not more
//! often than every few seconds, whatever tokens come. Only signatures by a
//! public key are taken, whatever the document offers: a client's secret signs nothing here. The issuer is compared in
//! the discovery document, in the token, and in the answer (RFC 9207): where it says, and it has to where the document
//! announces that. A token that names for whom it was made (`azp`) is for us, and one is taken when it has been made.

use super::provider::{Client, Outward, Proven};
use super::{Error, Refusal};
use crate::access::people::Profile;
use crate::config::ProviderSettings;
use openidconnect::core::{
    CoreAuthDisplay, CoreAuthenticationFlow, CoreClaimName, CoreClaimType, CoreClient, CoreClientAuthMethod,
    CoreGrantType, CoreIdToken, CoreIdTokenClaims, CoreJsonWebKey, CoreJweContentEncryptionAlgorithm,
    CoreJweKeyManagementAlgorithm, CoreJwsSigningAlgorithm as Algorithm, CoreResponseMode, CoreResponseType,
    CoreSubjectIdentifierType, CoreUserInfoClaims,
};
use openidconnect::{
    AccessToken, AdditionalProviderMetadata, AuthType, AuthorizationCode, ClaimsVerificationError, ClientId,
    ClientSecret, CsrfToken, EndpointMaybeSet, EndpointNotSet, EndpointSet, IssuerUrl, Nonce,
    OAuth2TokenResponse, PkceCodeChallenge, PkceCodeVerifier, ProviderMetadata, RedirectUrl,
    RequestTokenError, Scope, SignatureVerificationError, TokenResponse,
};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use time::OffsetDateTime;
use url::Url;
use zeroize::Zeroizing;

/// How long a discovery document is kept.
const KEPT: Duration = Duration::from_secs(600);
/// How long after an unknown key had it asked for again another one does not.
const RENEWED: Duration = Duration::from_secs(10);
/// How far from now a token may say that it was made, in seconds: clocks differ, and it was asked for just now.
const APART_S: u64 = 300;

/// Signatures that are taken: by a key of the provider's that nobody else has.
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RsaSsaPkcs1V15Sha256,
    Algorithm::RsaSsaPkcs1V15Sha384,
    Algorithm::RsaSsaPkcs1V15Sha512,
    Algorithm::RsaSsaPssSha256,
    Algorithm::RsaSsaPssSha384,
    Algorithm::RsaSsaPssSha512,
    Algorithm::EcdsaP256Sha256,
    Algorithm::EcdsaP384Sha384,
    Algorithm::EdDsa,
];

type Ready = CoreClient<
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointMaybeSet,
    EndpointMaybeSet,
>;

/// What a discovery document says that OpenID Connect does not define.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
struct Announced {
    /// That its answers say whose they are (RFC 9207, section 3).
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

impl AdditionalProviderMetadata for Announced {}

type Metadata = ProviderMetadata<
    Announced,
    CoreAuthDisplay,
    CoreClientAuthMethod,
    CoreClaimName,
    CoreClaimType,
    CoreGrantType,
    CoreJweContentEncryptionAlgorithm,
    CoreJweKeyManagementAlgorithm,
    CoreJsonWebKey,
    CoreResponseMode,
    CoreResponseType,
    CoreSubjectIdentifierType,
>;

#[derive(Clone)]
struct Discovered {
    at: Instant,
    metadata: Arc<Metadata>,
}

/// An issuer.
pub struct Oidc {
    issuer: IssuerUrl,
    client_id: ClientId,
    client_secret: Option<Zeroizing<String>>,
    scopes: Vec<Scope>,
    back: RedirectUrl,
    client: Client,
    /// What the issuer said last. Locked for look-ups only.
    discovered: Mutex<Option<Discovered>>,
    /// When an unknown key last had it asked for. Locked while it is: of many tokens by a new key one asks.
    renewed: tokio::sync::Mutex<Option<Instant>>,
}

impl std::fmt::Debug for Oidc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Oidc").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

impl Oidc {
    /// As the settings say.
    ///
    /// # Errors
    /// If the issuer is no address.
    pub fn new(
        settings: &ProviderSettings,
        secret: Option<Zeroizing<String>>,
        back: Url,
        client: Client,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            issuer: IssuerUrl::new(settings.issuer.clone().unwrap_or_default())?,
            client_id: ClientId::new(settings.client_id.clone()),
            client_secret: secret,
            scopes: settings.scopes.iter().filter(|s| *s != "openid").cloned().map(Scope::new).collect(),
            back: RedirectUrl::from_url(back),
            client,
            discovered: Mutex::new(None),
            renewed: tokio::sync::Mutex::new(None),
        })
    }

    /// The discovery document and the keys.
    async fn metadata(&self) -> Result<Arc<Metadata>, Error> {
        let known = self.discovered.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match known.filter(|known| known.at.elapsed() < KEPT) {
            Some(known) => Ok(known.metadata),
            None => self.discover().await,
        }
    }

    /// The same, newer than `seen`, which lacks a key; `seen` where it was asked for lately.
    async fn renewed(&self, seen: Arc<Metadata>) -> Result<Arc<Metadata>, Error> {
        let mut renewed = self.renewed.lock().await;
        let known = self.metadata().await?;
        if !Arc::ptr_eq(&known, &seen) {
            return Ok(known);
        }
        if renewed.is_some_and(|at| at.elapsed() < RENEWED) {
            return Ok(seen);
        }
        *renewed = Some(Instant::now());
        self.discover().await
    }

    async fn discover(&self) -> Result<Arc<Metadata>, Error> {
        let asked = Metadata::discover_async(self.issuer.clone(), &self.client).await;
        let metadata = Arc::new(asked.map_err(|e| {
            tracing::warn!(issuer = %self.issuer.as_str(), error = ?with_causes(&e), "the discovery document cannot be had");
            Refusal::Unavailable
        })?);
        if self.issuer.url().scheme() == "https" {
            let endpoints = [
                Some(metadata.authorization_endpoint().url()),
                metadata.token_endpoint().map(|u| u.url()),
                metadata.userinfo_endpoint().map(|u| u.url()),
            ];
            if endpoints.into_iter().flatten().any(|url| url.scheme() != "https") {
                tracing::warn!(issuer = %self.issuer.as_str(), "the discovery document names an address without TLS");
                return Err(Refusal::Unavailable.into());
            }
        }
        let discovered = Discovered { at: Instant::now(), metadata: Arc::clone(&metadata) };
        *self.discovered.lock().unwrap_or_else(PoisonError::into_inner) = Some(discovered);
        Ok(metadata)
    }

    fn client(&self, metadata: &Metadata) -> Ready {
        let secret = self.client_secret.as_ref().map(|text| ClientSecret::new(text.as_str().to_owned()));
        let client = CoreClient::from_provider_metadata(metadata.clone(), self.client_id.clone(), secret)
            .set_redirect_uri(self.back.clone());
        // Without a list it is `client_secret_basic` (OpenID Connect Discovery 1.0, section 3).
        match metadata.token_endpoint_auth_methods_supported() {
            Some(methods) if !methods.contains(&CoreClientAuthMethod::ClientSecretBasic) => {
                client.set_auth_type(AuthType::RequestBody)
            }
            _ => client,
        }
    }

    /// Where to send somebody.
    ///
    /// # Errors
    /// If the issuer does not say.
    pub async fn outward(&self, state: String) -> Result<Outward, Error> {
        let metadata = self.metadata().await?;
        let client = self.client(&metadata);
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let (location, _, nonce) = client
            .authorize_url(
                CoreAuthenticationFlow::AuthorizationCode,
                || CsrfToken::new(state),
                Nonce::new_random,
            )
            .add_scopes(self.scopes.iter().cloned())
            .set_pkce_challenge(challenge)
            .url();
        Ok(Outward { location, nonce: nonce.secret().clone(), verifier: verifier.secret().clone() })
    }

    /// Who came back with `code`; `issuer` is who says so, where the answer says.
    ///
    /// # Errors
    /// If the issuer does not take the code, or its ID token does not hold.
    pub async fn prove(
        &self,
        code: String,
        issuer: Option<&str>,
        nonce: String,
        verifier: String,
    ) -> Result<Proven, Error> {
        if issuer.is_some_and(|said| said != self.issuer.as_str()) {
            return Err(Refusal::Issuer.into());
        }
        let metadata = self.metadata().await?;
        if issuer.is_none() && metadata.additional_metadata().authorization_response_iss_parameter_supported {
            return Err(Refusal::Issuer.into());
        }
        let client = self.client(&metadata);
        let asked = client
            .exchange_code(AuthorizationCode::new(code))
            .map_err(|_| Refusal::Unavailable)?
            .set_pkce_verifier(PkceCodeVerifier::new(verifier))
            .request_async(&self.client)
            .await;
        let answer = asked.map_err(|e| match e {
            RequestTokenError::ServerResponse(said) => {
                // Here and below escaped: what others say shall neither break a line of the log nor command a terminal.
                tracing::info!(issuer = %self.issuer.as_str(), error = ?said.error().to_string(), "a code was not taken");
                Refusal::Code
            }
            // What it answered may hold a token: not logged.
            e => {
                tracing::warn!(issuer = %self.issuer.as_str(), error = ?e.to_string(), "the token endpoint does not answer");
                Refusal::Unavailable
            }
        })?;
        let token = answer.id_token().ok_or(Refusal::Signature)?;
        let nonce = Nonce::new(nonce);
        let claims = match verify(&client, token, &nonce) {
            Err(ClaimsVerificationError::SignatureVerification(
                SignatureVerificationError::NoMatchingKey,
            )) => {
                let metadata = self.renewed(metadata).await?;
                verify(&self.client(&metadata), token, &nonce).cloned()
            }
            verified => verified.cloned(),
        };
        let claims = claims.map_err(|e| {
            tracing::warn!(issuer = %self.issuer.as_str(), error = ?e.to_string(), "an ID token does not hold");
            refusal(&e)
        })?;
        // For us alone, where it says for whom (OpenID Connect Core, section 3.1.3.7, step 5).
        if claims.authorized_party().is_some_and(|party| *party != self.client_id) {
            return Err(Refusal::Audience.into());
        }
        let apart = claims.issue_time().timestamp().abs_diff(OffsetDateTime::now_utc().unix_timestamp());
        if apart > APART_S {
            return Err(Refusal::IssuedAt.into());
        }
        let mut profile = Profile {
            email: claims
                .email()
                .filter(|_| claims.email_verified() == Some(true))
                .map(|email| email.as_str().to_owned()),
            name: claims.name().and_then(|name| name.get(None)).map(|name| name.as_str().to_owned()),
        };
        if claims.email().is_none() {
            self.ask_more(&client, answer.access_token(), &claims, &mut profile).await;
        }
        Ok(Proven {
            issuer: self.issuer.as_str().to_owned(),
            subject: claims.subject().as_str().to_owned(),
            profile,
        })
    }

    /// Asks for what the token does not say of the person. Without an answer they have no address and no name here.
    async fn ask_more(
        &self,
        client: &Ready,
        token: &AccessToken,
        claims: &CoreIdTokenClaims,
        profile: &mut Profile,
    ) {
        let Ok(request) = client.user_info(token.clone(), Some(claims.subject().clone())) else { return };
        let said: CoreUserInfoClaims = match request.request_async(&self.client).await {
            Ok(said) => said,
            Err(e) => {
                tracing::warn!(issuer = %self.issuer.as_str(), error = ?e.to_string(), "the userinfo endpoint does not answer");
                return;
            }
        };
        if said.email_verified() == Some(true) {
            profile.email = said.email().map(|email| email.as_str().to_owned());
        }
        if profile.name.is_none() {
            profile.name = said.name().and_then(|name| name.get(None)).map(|name| name.as_str().to_owned());
        }
    }
}

/// An error with what caused it: that a request failed is the least of it.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        // Many say their cause themselves.
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    text
}

fn verify<'a>(
    client: &Ready,
    token: &'a CoreIdToken,
    nonce: &Nonce,
) -> Result<&'a CoreIdTokenClaims, ClaimsVerificationError> {
    token.claims(&client.id_token_verifier().set_allowed_algs(ALGORITHMS), nonce)
}

const fn refusal(error: &ClaimsVerificationError) -> Refusal {
    match error {
        ClaimsVerificationError::Expired(_) => Refusal::Expired,
        ClaimsVerificationError::InvalidAudience(_) => Refusal::Audience,
        ClaimsVerificationError::InvalidIssuer(_) => Refusal::Issuer,
        ClaimsVerificationError::InvalidNonce(_) => Refusal::Nonce,
        _ => Refusal::Signature,
    }
}
