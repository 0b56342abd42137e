//! Sign-in, without passwords: identity providers (OpenID Connect, GitHub), passkeys, one-time links.
//!
//! Whoever shows who they are, in whichever way, comes to the same place ([`arrival`]): somebody known gets a session,
//! somebody new only with an invitation or a first owner's link, and everybody else is told so and is on the record.
//! Nothing that a request says decides where anybody is sent: identity providers come from the settings, and after a
//! sign-in there is one page to go to. Addresses are compared, never searched: an account is not found by its e-mail
//! address, since whoever runs another identity provider could claim it.
//!
//! * [`flow`]: what a sign-in that has begun remembers · [`limit`]: how often somebody may try
//! * [`provider`]: identity providers, [`oidc`] and [`github`] · [`passkey`] · [`link`]
//! * [`arrival`]: who that is, and their session · [`ways`]: the ways in that somebody has
//! * [`http`], [`own`]: the routes · [`pages`]: what people see

pub mod arrival;
pub mod flow;
pub mod github;
pub mod http;
pub mod limit;
pub mod link;
pub mod oidc;
pub mod own;
pub mod pages;
pub mod passkey;
pub mod provider;
pub mod ways;

use super::door::Gate;
use super::members;
use crate::config::AccessSettings;
use crate::http::problem::{Kind, Problem};
use crate::ledger::{Writer, append, draft};
use crate::sealing;
use limit::Limits;
use provider::Provider;
use std::sync::Arc;
use url::Url;
use webauthn_rs::{Webauthn, WebauthnBuilder};

/// Where people are after they have signed in.
pub const HOME: &str = "/account";

/// Why somebody was not signed in. Its name is stable and in the audit entry; its words are what they are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The answer belongs to a sign-in that another browser began, or nobody.
    #[error("This sign-in was not begun in this browser, or too long ago.")]
    OtherBrowser,
    /// It was answered already, or is too old.
    #[error("This sign-in was finished already, or begun too long ago.")]
    Answered,
    /// A page of another site sent it.
    #[error("This came from a page of another site.")]
    OtherSite,
    /// There is no such identity provider.
    #[error("There is no such way to sign in here.")]
    UnknownProvider,
    /// The provider said no, or the person did there.
    #[error("The identity provider did not sign you in.")]
    Declined,
    /// The provider cannot be asked.
    #[error("The identity provider does not answer as it should. Try again, or ask the operator.")]
    Unavailable,
    /// The code was not taken.
    #[error("The identity provider did not accept the sign-in's code.")]
    Code,
    /// The ID token is of another issuer.
    #[error("The answer is another identity provider's.")]
    Issuer,
    /// The ID token is for another client.
    #[error("The identity provider's answer is for somebody else.")]
    Audience,
    /// The ID token is not this sign-in's.
    #[error("The identity provider's answer belongs to another sign-in.")]
    Nonce,
    /// The ID token is too old.
    #[error("The identity provider's answer is too old.")]
    Expired,
    /// The ID token was not made now, as far as the clock here says.
    #[error("The identity provider's answer was not made now: its clock is wrong, or the one here is.")]
    IssuedAt,
    /// The ID token's signature does not hold, or is of a kind that is not taken.
    #[error("The identity provider's answer is not signed as it should be.")]
    Signature,
    /// Nobody here is known by this identity.
    #[error(
        "Nobody is known here by this account. You need an invitation: ask an owner of the workspace for one."
    )]
    UnknownIdentity,
    /// Connected with somebody else.
    #[error("This account belongs to somebody else here.")]
    IdentityTaken,
    /// Somebody has this address.
    #[error(
        "Somebody with your e-mail address is known here already. Sign in as you did before; then you can connect this \
         account on your page."
    )]
    EmailTaken,
    /// The person may not sign in any more.
    #[error("This person cannot sign in here any more.")]
    Disabled,
    /// The invitation does not hold.
    #[error("The invitation does not exist, or was used or withdrawn, or has expired.")]
    Invitation,
    /// The link does not hold.
    #[error("The link does not exist, or was used already, or has expired.")]
    Link,
    /// No such passkey.
    #[error("This passkey is not known here, or was removed.")]
    UnknownPasskey,
    /// The passkey's answer does not hold.
    #[error("The passkey's answer does not hold.")]
    Passkey,
}

impl Refusal {
    /// Its name in entries.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::OtherBrowser => "other_browser",
            Self::Answered => "answered",
            Self::OtherSite => "other_site",
            Self::UnknownProvider => "unknown_provider",
            Self::Declined => "declined",
            Self::Unavailable => "provider_unavailable",
            Self::Code => "code",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::Nonce => "nonce",
            Self::Expired => "expired",
            Self::IssuedAt => "issued_at",
            Self::Signature => "signature",
            Self::UnknownIdentity => "unknown_identity",
            Self::IdentityTaken => "identity_taken",
            Self::EmailTaken => "email_taken",
            Self::Disabled => "disabled",
            Self::Invitation => "invitation",
            Self::Link => "link",
            Self::UnknownPasskey => "unknown_passkey",
            Self::Passkey => "passkey",
        }
    }

    /// The kind of problem that a program is told.
    #[must_use]
    pub const fn kind(self) -> Kind {
        match self {
            Self::OtherBrowser => Kind::OtherBrowser,
            Self::Answered => Kind::Answered,
            Self::OtherSite => Kind::OtherSite,
            Self::UnknownProvider => Kind::UnknownProvider,
            Self::Declined => Kind::Declined,
            Self::Unavailable => Kind::ProviderUnavailable,
            Self::Code
            | Self::Issuer
            | Self::Audience
            | Self::Nonce
            | Self::Expired
            | Self::IssuedAt
            | Self::Signature => Kind::ProviderAnswer,
            Self::UnknownIdentity => Kind::UnknownIdentity,
            Self::IdentityTaken => Kind::IdentityTaken,
            Self::EmailTaken => Kind::EmailTaken,
            Self::Disabled => Kind::Disabled,
            Self::Invitation => Kind::Invitation,
            Self::Link => Kind::Link,
            Self::UnknownPasskey => Kind::UnknownPasskey,
            Self::Passkey => Kind::Passkey,
        }
    }
}

/// A sign-in that does not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It was refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Too many were tried.
    #[error("too many tries; try again in {0} s")]
    TooMany(u64),
    /// Something else is in the way, ours or the request's.
    #[error("{}", .0.detail)]
    Problem(Problem),
}

impl Error {
    /// A fault of ours.
    pub fn fault(error: impl std::fmt::Display) -> Self {
        Self::Problem(Problem::internal(error))
    }
}

macro_rules! problems {
    ($($from:ty),*) => {$(
        impl From<$from> for Error {
            fn from(e: $from) -> Self {
                Self::Problem(e.into())
            }
        }
    )*};
}

problems!(sqlx::Error, sealing::Error, append::Error, draft::Error, members::Error);

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

/// Everything that sign-in needs. Cloned freely.
#[derive(Clone, Debug)]
pub struct SignIn(Arc<SignInParts>);

/// The parts of a [`SignIn`].
#[derive(Debug)]
pub struct SignInParts {
    /// The door, whose sessions it begins.
    pub gate: Gate,
    /// The writer of ledgers.
    pub writer: Writer,
    /// The address under which people reach the instance.
    pub base: Url,
    /// Where people sign in.
    pub providers: Vec<Provider>,
    /// The relying party of passkeys; none where people reach the instance by a number.
    pub webauthn: Option<Webauthn>,
    /// How often somebody may try.
    pub limits: Limits,
}

impl std::ops::Deref for SignIn {
    type Target = SignInParts;
    fn deref(&self) -> &SignInParts {
        &self.0
    }
}

/// The address under which people reach the instance: the setting, or this machine by its name (passkeys belong to a
/// name, never to a number).
///
/// # Errors
/// If it is no address.
pub fn base(public_url: Option<&str>, port: u16) -> anyhow::Result<Url> {
    let address = public_url.map_or_else(|| format!("http://localhost:{port}"), str::to_owned);
    Ok(Url::parse(&address)?)
}

impl SignIn {
    /// As the settings say, for people who reach the instance at `base`.
    ///
    /// # Errors
    /// If a client's secret cannot be read, or `base` cannot have passkeys.
    pub fn new(gate: Gate, writer: Writer, settings: &AccessSettings, base: Url) -> anyhow::Result<Self> {
        let client = provider::Client::new()?;
        let providers = settings
            .providers
            .iter()
            .map(|settings| Provider::new(settings, &base, &client))
            .collect::<anyhow::Result<_>>()?;
        let webauthn = match base.domain() {
            None => None,
            Some(name) => Some(
                WebauthnBuilder::new(name, &base)
                    .and_then(|builder| builder.rp_name("statusledger").build())
                    .map_err(|e| {
                        anyhow::anyhow!("the setting public_url: {base} cannot have passkeys: {e}")
                    })?,
            ),
        };
        let limits =
            Limits::new(settings.sign_in_requests_per_minute, settings.sign_ins_per_identity_per_minute);
        Ok(Self(Arc::new(SignInParts { gate, writer, base, providers, webauthn, limits })))
    }

    /// The relying party of passkeys.
    ///
    /// # Errors
    /// If there cannot be one.
    pub fn webauthn(&self) -> Result<&Webauthn, Error> {
        self.webauthn.as_ref().ok_or_else(|| {
            let words = "Passkeys belong to a name: the operator has to set public_url to one.";
            Error::Problem(Problem::forbidden(Kind::NoPasskeys, words))
        })
    }

    /// The provider of that id.
    ///
    /// # Errors
    /// If the settings have none.
    pub fn provider(&self, id: &str) -> Result<&Provider, Refusal> {
        self.providers.iter().find(|provider| provider.id == id).ok_or(Refusal::UnknownProvider)
    }
}
