//! The ways in which a store answers other than it should.

use serde::{Deserialize, Serialize};

/// A fault, on from the step that names it until it has been used up, has run out or is ended by name.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// What goes wrong.
    pub kind: FaultKind,
    /// By which [`crate::Step::EndFault`] ends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Which service answers so; absent is all three.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Service>,
    /// Only requests of this team or account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// Only paths in which this stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Scenario seconds after which it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// Requests after which it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
    /// `Retry-After` of a 429 or 503, in real seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u32>,
    /// How long [`FaultKind::Slow`] holds the answer back, in real milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// 401, whatever the token.
    Unauthorized,
    /// 403 because an agreement is missing or has expired.
    Agreements,
    /// 403 because the key's role is too small.
    Forbidden,
    /// 404.
    NotFound,
    /// 429 with quota left.
    RateLimited,
    /// 500 with a JSON body.
    ServerError,
    /// 502 with an HTML body.
    BadGateway,
    /// 503 with a JSON body.
    Unavailable,
    /// 200 whose body is no JSON.
    Garbage,
    /// The right answer, late.
    Slow,
    /// The connection is cut in the middle of the answer.
    Cut,
}

/// The services behind the one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Service {
    /// App Store Connect.
    AppStore,
    /// Google Play's two APIs.
    GooglePlay,
    /// Google's token endpoint.
    GoogleToken,
}

impl Fault {
    /// A fault of this kind everywhere, until it is ended.
    pub fn new(kind: FaultKind) -> Self {
        Self {
            kind,
            name: None,
            service: None,
            account: None,
            path: None,
            seconds: None,
            times: None,
            retry_after: None,
            delay_ms: None,
        }
    }

    /// Only answers of this service.
    pub fn of(self, service: Service) -> Self {
        Self { service: Some(service), ..self }
    }

    /// Only paths in which this stands.
    pub fn at(self, path: &str) -> Self {
        Self { path: Some(path.to_owned()), ..self }
    }

    /// Over after this many requests.
    pub fn times(self, times: u32) -> Self {
        Self { times: Some(times), ..self }
    }
}

/// The faults that are on.
#[derive(Debug, Default)]
pub(crate) struct FaultBoard {
    on: Vec<(Fault, Option<f64>)>,
}

impl FaultBoard {
    pub(crate) fn begin(&mut self, fault: Fault, now: f64) {
        let until = fault.seconds.map(|seconds| now + seconds);
        self.on.push((fault, until));
    }

    pub(crate) fn end(&mut self, name: Option<&str>) {
        self.on.retain(|(fault, _)| name.is_some() && fault.name.as_deref() != name);
    }

    /// The first fault that a request meets; uses it up by one.
    pub(crate) fn meet(
        &mut self,
        service: Service,
        account: Option<&str>,
        path: &str,
        now: f64,
    ) -> Option<Fault> {
        self.on.retain(|(fault, until)| until.is_none_or(|until| now < until) && fault.times != Some(0));
        let (fault, _) = self.on.iter_mut().find(|(fault, _)| {
            fault.service.is_none_or(|wanted| wanted == service)
                && (fault.account.is_none() || fault.account.as_deref() == account)
                && fault.path.as_deref().is_none_or(|part| path.contains(part))
        })?;
        if let Some(times) = &mut fault.times {
            *times -= 1;
        }
        Some(fault.clone())
    }
}
