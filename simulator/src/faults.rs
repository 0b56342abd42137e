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
    /// What [`FaultKind::UnknownValue`] serves instead of each state; absent is `SOMETHING_NEW`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The only type of resource whose states [`FaultKind::UnknownValue`] and [`FaultKind::Stale`] touch: a
    /// JSON:API type, or `releases` of Google Play.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// By how many seconds [`FaultKind::ClockSkew`] moves the `Date` of an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skew_seconds: Option<i64>,
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
    /// 200 whose body is the first half of the right one, and whose length is that of the half.
    Truncated,
    /// The right answer in another order: of the list, of what is included, of what is related. The walk
    /// through the pages of one order is whole; each first page draws a new one.
    Shuffled,
    /// Filters are read and checked, and let everything through.
    IgnoredFilters,
    /// The way on leads from each page to itself.
    RepeatedPage,
    /// Each page has the data of the first; the way on ends where it should.
    RepeatedData,
    /// Each state is served as one that no description has.
    UnknownValue,
    /// The `Date` of the answer is off, whatever else the answer is.
    ClockSkew,
    /// 200 with nothing in the list.
    Empty,
    /// Each attribute is served as it was before its last change.
    Stale,
}

impl FaultKind {
    /// Whether the store answers in its own way still, only not rightly; such faults go together.
    fn distorts(self) -> bool {
        matches!(
            self,
            Self::Slow
                | Self::Shuffled
                | Self::IgnoredFilters
                | Self::RepeatedPage
                | Self::RepeatedData
                | Self::UnknownValue
                | Self::ClockSkew
                | Self::Empty
                | Self::Stale
        )
    }
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
            value: None,
            resource: None,
            skew_seconds: None,
        }
    }

    /// Ended by a [`crate::Step::EndFault`] of this name.
    pub fn named(self, name: &str) -> Self {
        Self { name: Some(name.to_owned()), ..self }
    }

    /// Only requests of this team or account.
    pub fn by(self, account: &str) -> Self {
        Self { account: Some(account.to_owned()), ..self }
    }

    /// Over after so many scenario seconds.
    pub fn seconds(self, seconds: f64) -> Self {
        Self { seconds: Some(seconds), ..self }
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
    orders: u64,
}

/// The faults that a request meets.
#[derive(Debug, Default)]
pub(crate) struct Met {
    /// What is answered instead.
    pub(crate) instead: Option<Fault>,
    /// What is wrong with the answer beside.
    pub(crate) beside: Vec<Fault>,
    /// The order that a shuffled list has now.
    pub(crate) order: u64,
}

impl Met {
    /// The distorting fault of this kind.
    pub(crate) fn beside(&self, kind: FaultKind) -> Option<&Fault> {
        self.beside.iter().find(|fault| fault.kind == kind)
    }
}

impl FaultBoard {
    pub(crate) fn begin(&mut self, fault: Fault, now: f64) {
        let until = fault.seconds.map(|seconds| now + seconds);
        self.on.push((fault, until));
    }

    pub(crate) fn end(&mut self, name: Option<&str>) {
        self.on.retain(|(fault, _)| name.is_some() && fault.name.as_deref() != name);
    }

    /// The faults that a request meets: all that distort, and the first of those that answer instead. Uses
    /// each up by one. `first` is whether the request is for a first page.
    pub(crate) fn meet(
        &mut self,
        service: Service,
        account: Option<&str>,
        path: &str,
        first: bool,
        now: f64,
    ) -> Met {
        self.on.retain(|(fault, until)| until.is_none_or(|until| now < until) && fault.times != Some(0));
        let mut met = Met::default();
        for (fault, _) in &mut self.on {
            let meets = fault.service.is_none_or(|wanted| wanted == service)
                && (fault.account.is_none() || fault.account.as_deref() == account)
                && fault.path.as_deref().is_none_or(|part| path.contains(part));
            if !meets || (met.instead.is_some() && !fault.kind.distorts()) {
                continue;
            }
            if let Some(times) = &mut fault.times {
                *times -= 1;
            }
            if fault.kind.distorts() {
                met.beside.push(fault.clone());
            } else {
                met.instead = Some(fault.clone());
            }
        }
        if first && met.beside(FaultKind::Shuffled).is_some() {
            self.orders += 1;
        }
        met.order = self.orders;
        met
    }
}
