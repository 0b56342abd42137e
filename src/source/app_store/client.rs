//! A read-only client of App Store Connect. [`Request`] is everything it can ask.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use reqwest::{Client, Method};
use serde::Deserialize;
use serde_json::Value;
use time::OffsetDateTime;
use url::Url;

pub use super::answer::{App, Build, PhasedRelease, Version, Webhook, WebhookDelivery};
use super::answer::{app, build, version, webhook, webhook_delivery};
use super::document::{Document, Related, Resource, Single, is_segment};
pub use super::requests::Request;
use super::token::{AppStoreKey, AppStoreTokens};
use crate::source::budget::{RateBudget, RateLimit};
use crate::source::fetch::{
    Contact, Failure, FetchOptions, Fetched, ForbiddenCause, Listing, StoreError, account, below, clean_code,
    fetch, is_same_place,
};

/// Where App Store Connect is.
pub const BASE_URL: &str = "https://api.appstoreconnect.apple.com";

/// After how many pages a walk is given up: 200,000 resources.
const MAX_PAGES: u32 = 1000;

/// After how many pages in a row with nothing new a walk is given up: a page may be empty, a list of empty pages is none.
const MAX_BARREN: u32 = 5;

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

/// How a walk over a list's pages ended.
pub(super) struct Walk {
    /// See [`Listing::complete`].
    pub(super) complete: bool,
    pub(super) pages: u32,
    /// How many resources could not be read.
    pub(super) unread: u32,
    pub(super) server_date: Option<OffsetDateTime>,
}

impl AppStoreClient {
    /// A client of the store at this address, [`BASE_URL`] or the simulator's.
    ///
    /// # Errors
    /// If the address is none, or not one that is allowed.
    pub fn new(base_url: &str, key: AppStoreKey, options: FetchOptions) -> Result<Self, StoreError> {
        let base = options.base(base_url)?;
        Ok(Self {
            http: options.client(&base)?,
            budget: Mutex::new(RateBudget::app_store().faster(options.time_scale_of(&base))),
            base,
            tokens: AppStoreTokens::new(key),
            options,
            contact: Mutex::new(Contact::default()),
        })
    }

    /// The apps that the key sees.
    ///
    /// # Errors
    /// The first request that failed.
    pub async fn apps(&self) -> Result<Listing<App>, StoreError> {
        self.listing(Request::AppNames, |found, _| app(found)).await
    }

    /// The versions of an app, on all platforms.
    ///
    /// # Errors
    /// The first request that failed.
    pub async fn versions(&self, app_id: &str) -> Result<Listing<Version>, StoreError> {
        self.listing(Request::Versions { app_id }, version).await
    }

    /// The builds of an app, on all platforms.
    ///
    /// # Errors
    /// The first request that failed.
    pub async fn builds(&self, app_id: &str) -> Result<Listing<Build>, StoreError> {
        self.listing(Request::BuildsOf { app_ids: app_id }, |found, related| {
            build(found, related).filter(|build| build.app_id.as_deref().is_none_or(|id| id == app_id))
        })
        .await
    }

    /// The webhooks that are set up for an app.
    ///
    /// # Errors
    /// The first request that failed; a key that may not see webhooks is forbidden.
    pub async fn webhooks(&self, app_id: &str) -> Result<Listing<Webhook>, StoreError> {
        self.listing(Request::Webhooks { app_id }, |found, _| webhook(found)).await
    }

    /// What a webhook has sent, or tried to, since a time.
    ///
    /// # Errors
    /// The first request that failed; a key that may not see webhooks is forbidden.
    pub async fn webhook_deliveries(
        &self,
        webhook_id: &str,
        since: OffsetDateTime,
    ) -> Result<Listing<WebhookDelivery>, StoreError> {
        self.listing(Request::WebhookDeliveries { webhook_id, since }, webhook_delivery).await
    }

    /// What the last answer's headers said, whatever its status.
    pub fn contact(&self) -> Contact {
        *self.contact.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key's limit and what is left of it.
    pub fn rate(&self) -> RateLimit {
        self.budget().rate(Instant::now())
    }

    /// The window that the limit is about.
    pub fn window(&self) -> std::time::Duration {
        self.budget().window()
    }

    /// Goes on from the store's word of so long ago.
    pub fn resume(&self, said: RateLimit, age: std::time::Duration) {
        if let Some(at) = Instant::now().checked_sub(age) {
            self.budget().observe(said, at);
        }
    }

    /// Whether the key may list the team's users, which only an administrator's may.
    ///
    /// # Errors
    /// The request that failed; that it is forbidden is an answer.
    pub async fn reads_users(&self) -> Result<bool, StoreError> {
        match self.first_page(Request::Users, |_, _| true).await {
            Ok(_) => Ok(true),
            Err(StoreError::Forbidden { .. }) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// How many requests this client has made.
    pub fn requests_made(&self) -> u64 {
        self.budget().made()
    }

    /// How many requests this client may still spend.
    pub fn requests_left(&self) -> u32 {
        self.budget().left(Instant::now())
    }

    /// All of a list.
    async fn listing<T>(
        &self,
        request: Request<'_>,
        read: impl Fn(&Resource, &Related<'_>) -> Option<T>,
    ) -> Result<Listing<T>, StoreError> {
        let mut items = Vec::new();
        let walk = self.walk(request, |found, related| match read(found, related) {
            Some(item) => {
                items.push(item);
                true
            }
            None => false,
        });
        let Walk { complete, pages, server_date, .. } = walk.await?;
        Ok(Listing { items, complete, pages, server_date })
    }

    /// Walks a list to its end. `read` is given each resource once, and says whether it could be read and belongs
    /// there: one that does not makes the list incomplete, not an error; the others are true all the same. What was
    /// read stays read where a later page fails.
    pub(super) async fn walk(
        &self,
        request: Request<'_>,
        read: impl FnMut(&Resource, &Related<'_>) -> bool,
    ) -> Result<Walk, StoreError> {
        self.walk_pages(request, MAX_PAGES, read).await
    }

    /// The first page of a list.
    pub(super) async fn first_page(
        &self,
        request: Request<'_>,
        read: impl FnMut(&Resource, &Related<'_>) -> bool,
    ) -> Result<Walk, StoreError> {
        self.walk_pages(request, 1, read).await
    }

    async fn walk_pages(
        &self,
        request: Request<'_>,
        most: u32,
        mut read: impl FnMut(&Resource, &Related<'_>) -> bool,
    ) -> Result<Walk, StoreError> {
        let mut address = self.address(request);
        let first = address.clone();
        let mut walk = Walk { complete: true, pages: 0, unread: 0, server_date: None };
        let mut asked = HashSet::from([address.clone()]);
        let mut seen = HashSet::new();
        let mut total = None;
        let mut barren = 0;
        loop {
            let fetched = self.get(request.method(), &address).await?;
            walk.pages += 1;
            walk.server_date = fetched.contact.server_date;
            let document = Document::parse(&fetched.body)?;
            total = document.total().or(total);
            let related = Related::of(&document.included);
            let before = seen.len();
            let items = document.data.len();
            let mut unread = 0;
            for found in document.data {
                let resource = Resource::deserialize(found).ok().filter(|found| is_segment(&found.id));
                let Some(resource) = resource else {
                    unread += 1;
                    continue;
                };
                if !seen.contains(&resource.id) {
                    unread += u32::from(!read(&resource, &related));
                    seen.insert(resource.id);
                }
            }
            walk.unread += unread;
            walk.complete &= unread == 0;
            let Some(next) = document.links.next else { break };
            // Relative addresses are allowed by the description.
            let next = address.join(&next).map_err(|_| StoreError::Malformed { what: "links.next" })?;
            if !is_same_place(&first, &next) {
                return Err(StoreError::ForeignPage);
            }
            if walk.pages >= most && most < MAX_PAGES {
                walk.complete = false;
                return Ok(walk);
            }
            let is_new = seen.len() > before;
            barren = if is_new { 0 } else { barren + 1 };
            let repeats = items > 0 && walk.complete && !is_new;
            if repeats || barren >= MAX_BARREN || walk.pages >= MAX_PAGES || !asked.insert(next.clone()) {
                return Err(StoreError::EndlessPages);
            }
            address = next;
        }
        walk.complete &= total.is_none_or(|total| seen.len() as u64 >= total);
        Ok(walk)
    }

    /// One resource, read; none where the store says that a relationship points at nothing.
    pub(super) async fn one<T>(
        &self,
        request: Request<'_>,
        read: impl FnOnce(&Resource, &Related<'_>) -> Option<T>,
    ) -> Result<Option<T>, StoreError> {
        let fetched = self.get(request.method(), &self.address(request)).await?;
        let Single { data, included } = Single::parse(&fetched.body)?;
        let Some(found) = data else { return Ok(None) };
        if !is_segment(&found.id) {
            return Err(StoreError::Malformed { what: "a resource's id" });
        }
        let read = read(&found, &Related::of(&included));
        read.map(Some).ok_or(StoreError::Malformed { what: "a resource without its state" })
    }

    fn address(&self, request: Request<'_>) -> Url {
        let mut address = below(&self.base, request.path());
        address.query_pairs_mut().extend_pairs(request.query());
        address
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
