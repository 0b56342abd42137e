//! What a request shows, and the first look at it: what can be told without the database.

use super::{Asked, Gate, Refused};
use crate::access::denial::Reason;
use crate::access::key::{self, ShownKey};
use crate::access::session::{self, ShownSession};
use crate::audit::Actor;
use crate::http::problem::{Kind, Problem};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};

/// The token of `Authorization: Bearer …`.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// What somebody shows: made by this instance. Whether it still holds, the database knows.
#[derive(Clone)]
pub(super) enum Shown {
    Key(ShownKey),
    Session(ShownSession),
}

impl Shown {
    /// Whose it is: authentic, though not looked up.
    fn actor(&self) -> Actor {
        match self {
            Self::Key(key) => Actor::Key(key.id),
            Self::Session(session) => Actor::Session(session.id),
        }
    }
}

impl Gate {
    /// Whose request it claims to be, with credentials that this instance has made; whether they still hold is not
    /// known. The database is not asked.
    #[must_use]
    pub fn claims(&self, headers: &HeaderMap) -> Option<Actor> {
        self.shown(headers).ok().map(|shown| shown.actor())
    }

    /// What the request shows, or why that is nothing of ours. A key is looked at before a session is.
    pub(super) fn shown(&self, headers: &HeaderMap) -> Result<Shown, Reason> {
        if headers.contains_key(header::AUTHORIZATION) {
            let key = bearer(headers).and_then(|text| key::read(&self.secret, text));
            return key.map(Shown::Key).ok_or(Reason::UnknownKey);
        }
        let text = session::cookie(headers, &self.sessions).ok_or(Reason::NoCredentials)?;
        session::read(&self.secret, text).map(Shown::Session).ok_or(Reason::UnknownSession)
    }

    /// The first look, without the database: whether what the request shows can be let in at all.
    pub(super) fn look(&self, parts: &Parts, asked: Asked) -> Result<Shown, Box<Refused>> {
        let shown = self
            .shown(&parts.headers)
            .map_err(|reason| Refused::stranger(reason, Problem::unauthorized()))?;
        let fault = match &shown {
            Shown::Key(key) if !key.scopes.grants().has(asked.permission) => {
                let held: Vec<&str> = key.scopes.list().iter().map(|scope| scope.name()).collect();
                let needed = asked.permission.scopes_in_words();
                let words = format!("This needs {needed}; the key has {}.", held.join(", "));
                Some((Reason::Scope, Kind::Scope, words))
            }
            Shown::Key(_) if asked.of_a_person => {
                let words = "This is for people who are signed in, not for keys.".to_owned();
                Some((Reason::NotAPerson, Kind::Session, words))
            }
            Shown::Key(_) => None,
            Shown::Session(session) => {
                self.forged(parts, session, asked).map(|words| (Reason::Csrf, Kind::Csrf, words.to_owned()))
            }
        };
        match fault {
            None => Ok(shown),
            Some((reason, kind, words)) => {
                let problem = Problem::forbidden(kind, words);
                Err(Box::new(Refused { actor: Some(shown.actor()), about: None, reason, problem }))
            }
        }
    }

    /// Why a request in a session may be another site's doing.
    fn forged(&self, parts: &Parts, session: &ShownSession, asked: Asked) -> Option<&'static str> {
        if !asked.reads && !session::csrf_holds(&self.secret, session, &parts.headers, &self.sessions) {
            return Some(
                "A change in a session needs the session's token as `X-CSRF-Token`, from a page of this instance.",
            );
        }
        // It changes nothing but the record, which would say that the person has done it.
        (asked.reads && asked.acts && session::from_elsewhere(&parts.headers))
            .then_some("What goes on the record is not asked for from another site's page.")
    }
}
