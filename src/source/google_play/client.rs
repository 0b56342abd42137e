//! A read-only client of Google Play. [`Request`] is everything it can ask.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use reqwest::{Client, Method};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use url::Url;

use super::token::{GoogleTokens, ServiceAccount};
use crate::source::budget::RateBudget;
use crate::source::fetch::{
    Contact, Failure, FetchOptions, Fetched, ForbiddenCause, Listing, StoreError, account, below, clean_code,
    fetch,
};

/// Every request that this client can make: each a GET, but for the exchange of an assertion for a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// The token endpoint, which the service account file names.
    Token,
    /// The apps that the account sees.
    SearchApps {
        /// The page behind the first.
        page_token: Option<&'a str>,
    },
    /// The tracks of an app on which a release is out.
    ReleaseFilterOptions {
        /// The app.
        package: &'a str,
    },
    /// The releases on a track of an app.
    Releases {
        /// The app.
        package: &'a str,
        /// The track.
        track: &'a str,
    },
}

/// The tracks that every app has.
pub const WELL_KNOWN_TRACKS: [&str; 4] = ["production", "beta", "alpha", "internal"];

/// How the console calls tracks that have another name in the API; what else is called so is no track.
const CONSOLE_NAMES: [&str; 6] = [
    "production",
    "open testing",
    "closed testing",
    "internal testing",
    "internal app sharing",
    "pre-registration",
];

/// How many apps a page has: the most that the store gives.
const PAGE: &str = "1000";

/// After how many pages a walk is given up: 100,000 apps.
const MAX_PAGES: u32 = 100;

/// What the names of lifecycle states begin with on the wire.
const LIFECYCLE_PREFIX: &str = "RELEASE_LIFECYCLE_STATE_";

impl Request<'_> {
    /// The method.
    pub fn method(&self) -> Method {
        match self {
            Self::Token => Method::POST,
            Self::SearchApps { .. } | Self::ReleaseFilterOptions { .. } | Self::Releases { .. } => {
                Method::GET
            }
        }
    }

    /// The address; the token endpoint's is the service account's.
    fn address(&self, bases: &Bases) -> Option<Url> {
        match self {
            Self::Token => None,
            Self::SearchApps { page_token } => {
                let mut url = below(&bases.reporting, ["v1beta1", "apps:search"]);
                url.query_pairs_mut().append_pair("pageSize", PAGE);
                if let Some(token) = page_token {
                    url.query_pairs_mut().append_pair("pageToken", token);
                }
                Some(url)
            }
            Self::ReleaseFilterOptions { package } => {
                let name = format!("{package}:fetchReleaseFilterOptions");
                Some(below(&bases.reporting, ["v1beta1", "apps", &name]))
            }
            Self::Releases { package, track } => {
                let path = ["androidpublisher", "v3", "applications", package, "tracks", track, "releases"];
                Some(below(&bases.publisher, path))
            }
        }
    }
}

/// Where Google Play's two APIs are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlayBaseUrls {
    /// The publisher API, which lists releases.
    pub publisher: String,
    /// The reporting API, which lists apps and tracks.
    pub reporting: String,
}

impl Default for PlayBaseUrls {
    fn default() -> Self {
        Self {
            publisher: "https://androidpublisher.googleapis.com".to_owned(),
            reporting: "https://playdeveloperreporting.googleapis.com".to_owned(),
        }
    }
}

struct Bases {
    publisher: Url,
    reporting: Url,
}

/// An app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    /// Its package name.
    pub package: String,
    /// Its title.
    pub display_name: Option<String>,
}

/// A release on a track.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// Its name, which is not unique.
    pub name: Option<String>,
    /// The track.
    pub track: String,
    /// Its version codes, which with package and track are its identity.
    pub version_codes: BTreeSet<i64>,
    /// `ReleaseLifecycleState` without the prefix that all its names have on the wire: `DRAFT`,
    /// `NOT_SENT_FOR_REVIEW`, `IN_REVIEW`, `APPROVED_NOT_PUBLISHED`, `NOT_APPROVED`, `PUBLISHED`, or what the
    /// store may say one day.
    pub lifecycle_state: String,
}

/// A client for one service account. All that it shares between requests is the token, the budget and the
/// last contact.
pub struct PlayClient {
    bases: Bases,
    http: Client,
    options: FetchOptions,
    tokens: GoogleTokens,
    budget: Mutex<RateBudget>,
    contact: Mutex<Contact>,
}

impl PlayClient {
    /// A client of the store at these addresses, Google's or the simulator's.
    pub fn new(
        base_urls: &PlayBaseUrls,
        account: ServiceAccount,
        options: FetchOptions,
    ) -> Result<Self, StoreError> {
        let bases = Bases {
            publisher: options.base(&base_urls.publisher)?,
            reporting: options.base(&base_urls.reporting)?,
        };
        Ok(Self {
            http: options.client(&bases.publisher)?,
            bases,
            options,
            tokens: GoogleTokens::new(account),
            budget: Mutex::new(RateBudget::google_play()),
            contact: Mutex::new(Contact::default()),
        })
    }

    /// The apps that the account sees.
    pub async fn apps(&self) -> Result<Listing<App>, StoreError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Answer {
            #[serde(default)]
            apps: Vec<Found>,
            next_page_token: Option<String>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Found {
            package_name: Option<String>,
            display_name: Option<String>,
        }
        let mut listing = Listing { items: Vec::new(), complete: true, pages: 0, server_date: None };
        let mut asked = HashSet::new();
        let mut seen = HashSet::new();
        let mut page_token: Option<String> = None;
        loop {
            let request = Request::SearchApps { page_token: page_token.as_deref() };
            let (answer, contact): (Answer, _) = self.get(request).await?;
            listing.pages += 1;
            listing.server_date = contact.server_date;
            for app in answer.apps {
                let Some(package) = app.package_name else {
                    listing.complete = false;
                    continue;
                };
                if seen.insert(package.clone()) {
                    listing.items.push(App { package, display_name: app.display_name });
                }
            }
            let Some(next) = answer.next_page_token.filter(|next| !next.is_empty()) else { break };
            if listing.pages >= MAX_PAGES || !asked.insert(next.clone()) {
                return Err(StoreError::EndlessPages);
            }
            page_token = Some(next);
        }
        Ok(listing)
    }

    /// The tracks of an app: those that every app has, then those of its own on which a release is out. The
    /// reporting API names a track as the console does, so that an own track with another title is missing
    /// here; [`Listing::complete`] is therefore always false.
    pub async fn tracks(&self, package: &str) -> Result<Listing<String>, StoreError> {
        #[derive(Deserialize)]
        struct Answer {
            #[serde(default)]
            tracks: Vec<Found>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Found {
            display_name: Option<String>,
        }
        let (answer, contact): (Answer, _) = self.get(Request::ReleaseFilterOptions { package }).await?;
        let mut items: Vec<String> = WELL_KNOWN_TRACKS.map(str::to_owned).to_vec();
        for name in answer.tracks.into_iter().filter_map(|track| track.display_name) {
            let is_console_name = CONSOLE_NAMES.contains(&name.to_lowercase().as_str());
            if !name.is_empty() && !is_console_name && !items.contains(&name) {
                items.push(name);
            }
        }
        Ok(Listing { items, complete: false, pages: 1, server_date: contact.server_date })
    }

    /// The releases on a track that are not obsolete. A track without any is an empty list; a track that there
    /// is not, [`StoreError::NotFound`].
    pub async fn releases(&self, package: &str, track: &str) -> Result<Listing<Release>, StoreError> {
        #[derive(Deserialize)]
        struct Answer {
            #[serde(default)]
            releases: Vec<Found>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Found {
            release_name: Option<String>,
            release_lifecycle_state: Option<String>,
            #[serde(default)]
            active_artifacts: Vec<Artifact>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Artifact {
            version_code: i64,
        }
        let mut listing = Listing { items: Vec::new(), complete: true, pages: 1, server_date: None };
        let (answer, contact): (Answer, _) = match self.get(Request::Releases { package, track }).await {
            Err(StoreError::NotFound { code }) if code == "trackEmpty" => {
                listing.server_date = self.contact().server_date;
                return Ok(listing);
            }
            answer => answer?,
        };
        listing.server_date = contact.server_date;
        // The store gives no more and has no pages: what is behind them is not known.
        listing.complete = answer.releases.len() < MAX_RELEASES;
        for release in answer.releases {
            let Some(state) = release.release_lifecycle_state else {
                listing.complete = false;
                continue;
            };
            listing.items.push(Release {
                name: release.release_name,
                track: track.to_owned(),
                version_codes: release
                    .active_artifacts
                    .iter()
                    .map(|artifact| artifact.version_code)
                    .collect(),
                lifecycle_state: state.strip_prefix(LIFECYCLE_PREFIX).unwrap_or(&state).to_owned(),
            });
        }
        Ok(listing)
    }

    /// What the last answer's headers said, whatever its status.
    pub fn contact(&self) -> Contact {
        *self.contact.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many requests this client may still spend in this minute.
    pub fn requests_left(&self) -> u32 {
        self.budget().left(Instant::now())
    }

    /// One GET within the budget. A 401 is answered with a new token once.
    async fn get<T: DeserializeOwned>(&self, request: Request<'_>) -> Result<(T, Contact), StoreError> {
        let fetched = self.fetch(request).await?;
        let answer = serde_json::from_slice(&fetched.body).map_err(|error| {
            if error.is_data() {
                StoreError::Malformed { what: "an answer of Google Play" }
            } else {
                StoreError::NotJson
            }
        })?;
        Ok((answer, fetched.contact))
    }

    async fn fetch(&self, request: Request<'_>) -> Result<Fetched, StoreError> {
        let address = request.address(&self.bases).ok_or(StoreError::Setup {
            reason: "the token endpoint is asked by the token exchange alone".to_owned(),
        })?;
        let mut renewed = false;
        loop {
            let spent = self.budget().try_spend(Instant::now());
            spent.map_err(|retry_after| StoreError::BudgetSpent { retry_after })?;
            let token = self.tokens.bearer(&self.http).await?;
            let sent = self.http.request(request.method(), address.clone()).bearer_auth(token.as_str());
            let (contact, answer) = fetch(sent, self.options.max_body).await?;
            *self.contact.lock().unwrap_or_else(PoisonError::into_inner) = contact;
            let answer = answer.map_err(error);
            account(&mut self.budget(), &contact, answer.as_ref().err());
            match answer {
                Err(StoreError::Unauthorized { .. }) if !renewed => {
                    self.tokens.invalidate(&token).await;
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

/// How many releases of a track the store lists at most.
const MAX_RELEASES: usize = 20;

/// What a failure means, by status and by the reason that Google gives. Its older APIs answer 403 where they
/// mean 429.
fn error(failure: Failure) -> StoreError {
    let code = reason(&failure.body).unwrap_or_default();
    let retry_after = failure.retry_after;
    match failure.status.as_u16() {
        401 => StoreError::Unauthorized { code },
        403 => match code.as_str() {
            "rateLimitExceeded" | "userRateLimitExceeded" | "quotaExceeded" | "dailyLimitExceeded" => {
                StoreError::RateLimited { retry_after }
            }
            "permissionDenied" | "insufficientPermissions" | "forbidden" | "PERMISSION_DENIED" => {
                StoreError::Forbidden { cause: ForbiddenCause::Role, code }
            }
            _ => StoreError::Forbidden { cause: ForbiddenCause::Other, code },
        },
        404 | 410 => StoreError::NotFound { code },
        429 => StoreError::RateLimited { retry_after },
        status @ 500..=599 => StoreError::Server { status, retry_after },
        status => StoreError::Refused { status, code },
    }
}

/// The reason of the first error of a body, else the status's name.
fn reason(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let error = body.get("error")?;
    let reason = error.pointer("/errors/0/reason").or_else(|| error.get("status"))?;
    reason.as_str().map(clean_code)
}
