//! A read-only client of App Store Connect. [`Request`] is everything it can ask.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use reqwest::{Client, Method};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use time::OffsetDateTime;
use url::Url;

pub use super::answer::{App, Build, PhasedRelease, Version};
use super::answer::{Document, Page, Related, app, build, version};
use super::token::{AppStoreKey, AppStoreTokens};
use crate::source::budget::{RateBudget, RateLimit};
use crate::source::fetch::{
    Contact, Failure, FetchOptions, Fetched, ForbiddenCause, Listing, StoreError, account, below, clean_code,
    fetch, is_same_place,
};

/// Where App Store Connect is.
pub const BASE_URL: &str = "https://api.appstoreconnect.apple.com";

/// Every request that this client can make. Each is a GET; the pages behind the first are asked at the
/// address that the store gives, which has to be the same path of the same host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// The apps that the key sees.
    Apps,
    /// An app's versions, with their builds and phased releases.
    Versions {
        /// The app's id.
        app_id: &'a str,
    },
    /// An app's builds, with the versions they were uploaded for and their TestFlight states.
    Builds {
        /// The app's id.
        app_id: &'a str,
    },
}

/// How many resources a page has: the most that the store gives.
const PAGE: &str = "200";

/// After how many pages a walk is given up: 200,000 resources.
const MAX_PAGES: u32 = 1000;

impl Request<'_> {
    /// The method, which is GET.
    pub fn method(&self) -> Method {
        Method::GET
    }

    /// The path, in segments.
    fn path(&self) -> Vec<&str> {
        match self {
            Self::Apps => vec!["v1", "apps"],
            Self::Versions { app_id } => vec!["v1", "apps", app_id, "appStoreVersions"],
            Self::Builds { .. } => vec!["v1", "builds"],
        }
    }

    /// The query: only the fields that are read.
    fn query(&self) -> Vec<(&'static str, &str)> {
        let mut query = match *self {
            Self::Apps => vec![("fields[apps]", "name,bundleId,sku,primaryLocale")],
            Self::Versions { .. } => vec![
                (
                    "fields[appStoreVersions]",
                    "platform,versionString,appVersionState,appStoreState,releaseType,createdDate,build,appStoreVersionPhasedRelease",
                ),
                ("fields[builds]", "version"),
                ("fields[appStoreVersionPhasedReleases]", "phasedReleaseState,currentDayNumber"),
                ("include", "build,appStoreVersionPhasedRelease"),
            ],
            // The app is included so that a filter which the store ignores is noticed.
            Self::Builds { app_id } => vec![
                ("filter[app]", app_id),
                (
                    "fields[builds]",
                    "version,uploadedDate,expired,processingState,preReleaseVersion,buildBetaDetail,app",
                ),
                ("fields[preReleaseVersions]", "version,platform"),
                ("fields[buildBetaDetails]", "internalBuildState,externalBuildState"),
                ("fields[apps]", "bundleId"),
                ("include", "preReleaseVersion,buildBetaDetail,app"),
            ],
        };
        query.push(("limit", PAGE));
        query
    }
}

/// A client for one API key. All that it shares between requests is the token, the budget and the last
/// contact.
pub struct AppStoreClient {
    base: Url,
    http: Client,
    options: FetchOptions,
    tokens: AppStoreTokens,
    budget: Mutex<RateBudget>,
    contact: Mutex<Contact>,
}

impl AppStoreClient {
    /// A client of the store at this address, [`BASE_URL`] or the simulator's.
    pub fn new(base_url: &str, key: AppStoreKey, options: FetchOptions) -> Result<Self, StoreError> {
        let base = options.base(base_url)?;
        Ok(Self {
            http: options.client(&base)?,
            base,
            options,
            tokens: AppStoreTokens::new(key),
            budget: Mutex::new(RateBudget::app_store()),
            contact: Mutex::new(Contact::default()),
        })
    }

    /// The apps that the key sees.
    pub async fn apps(&self) -> Result<Listing<App>, StoreError> {
        self.walk(Request::Apps, |found, _| app(found)).await
    }

    /// The versions of an app, on all platforms.
    pub async fn versions(&self, app_id: &str) -> Result<Listing<Version>, StoreError> {
        self.walk(Request::Versions { app_id }, version).await
    }

    /// The builds of an app, on all platforms.
    pub async fn builds(&self, app_id: &str) -> Result<Listing<Build>, StoreError> {
        self.walk(Request::Builds { app_id }, |found, related| {
            build(found, related).filter(|build| build.app_id.as_deref().is_none_or(|id| id == app_id))
        })
        .await
    }

    /// What the last answer's headers said, whatever its status.
    pub fn contact(&self) -> Contact {
        *self.contact.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key's limit and what is left of it.
    pub fn rate(&self) -> RateLimit {
        self.budget().rate(Instant::now())
    }

    /// How many requests this client may still spend.
    pub fn requests_left(&self) -> u32 {
        self.budget().left(Instant::now())
    }

    /// Walks a list to its end. An item that cannot be read, or that `read` refuses, makes the list
    /// incomplete, not an error: the others are true all the same.
    async fn walk<A: DeserializeOwned, T>(
        &self,
        request: Request<'_>,
        read: impl Fn(Page<A>, &Related) -> Option<T>,
    ) -> Result<Listing<T>, StoreError> {
        let mut address = below(&self.base, request.path());
        address.query_pairs_mut().extend_pairs(request.query());
        let first = address.clone();
        let mut listing = Listing { items: Vec::new(), complete: true, pages: 0, server_date: None };
        let mut asked = HashSet::from([address.clone()]);
        let mut seen = HashSet::new();
        let mut total = None;
        loop {
            let fetched = self.get(request.method(), &address).await?;
            listing.pages += 1;
            listing.server_date = fetched.contact.server_date;
            let document = Document::parse(&fetched.body)?;
            total = document.total().or(total);
            let related = Related::of(&document.included);
            let before = seen.len();
            let items = document.data.len();
            for found in document.data {
                let Ok(page) = Page::<A>::deserialize(found) else {
                    listing.complete = false;
                    continue;
                };
                if !seen.insert(page.id.clone()) {
                    continue;
                }
                match read(page, &related) {
                    Some(item) => listing.items.push(item),
                    None => listing.complete = false,
                }
            }
            let Some(next) = document.links.next else { break };
            // Relative addresses are allowed by the description.
            let next = address.join(&next).map_err(|_| StoreError::Malformed { what: "links.next" })?;
            if !is_same_place(&first, &next) {
                return Err(StoreError::ForeignPage);
            }
            let repeats = items > 0 && listing.complete && seen.len() == before;
            if repeats || listing.pages >= MAX_PAGES || !asked.insert(next.clone()) {
                return Err(StoreError::EndlessPages);
            }
            address = next;
        }
        listing.complete &= total.is_none_or(|total| seen.len() as u64 >= total);
        Ok(listing)
    }

    /// One GET within the budget. A 401 is answered with a new token once: the store gives it to good keys,
    /// too.
    async fn get(&self, method: Method, address: &Url) -> Result<Fetched, StoreError> {
        let mut renewed = false;
        loop {
            let spent = self.budget().try_spend(Instant::now());
            spent.map_err(|retry_after| StoreError::BudgetSpent { retry_after })?;
            let token = self.tokens.bearer(OffsetDateTime::now_utc())?;
            let request = self.http.request(method.clone(), address.clone()).bearer_auth(token.as_str());
            let (contact, answer) = fetch(request, self.options.max_body).await?;
            *self.contact.lock().unwrap_or_else(PoisonError::into_inner) = contact;
            let answer = answer.map_err(error);
            account(&mut self.budget(), &contact, answer.as_ref().err());
            match answer {
                Err(StoreError::Unauthorized { .. }) if !renewed => {
                    self.tokens.invalidate(&token);
                    renewed = true;
                }
                answer => return answer,
            }
        }
    }

    fn budget(&self) -> MutexGuard<'_, RateBudget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a failure means. Codes are dotted, and matched by their beginning; 406 and 502 may come without any.
fn error(failure: Failure) -> StoreError {
    let code = code(&failure.body).unwrap_or_default();
    let is =
        |prefix: &str| code.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    match failure.status.as_u16() {
        401 => StoreError::Unauthorized { code },
        403 if is("FORBIDDEN.REQUIRED_AGREEMENTS_MISSING_OR_EXPIRED") => {
            StoreError::Forbidden { cause: ForbiddenCause::Agreements, code }
        }
        403 if is("FORBIDDEN_ERROR") || code == "FORBIDDEN" => {
            StoreError::Forbidden { cause: ForbiddenCause::Role, code }
        }
        403 => StoreError::Forbidden { cause: ForbiddenCause::Other, code },
        404 | 410 => StoreError::NotFound { code },
        429 => StoreError::RateLimited { retry_after: failure.retry_after },
        status @ 500..=599 => StoreError::Server { status, retry_after: failure.retry_after },
        status => StoreError::Refused { status, code },
    }
}

/// The code of the first error of a body.
fn code(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    body.pointer("/errors/0/code")?.as_str().map(clean_code)
}
