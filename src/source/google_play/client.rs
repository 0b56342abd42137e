//! A client of Google Play that changes nothing. [`Request`] is everything it can ask.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use url::Url;

use super::answer;
pub use super::answer::{App, EditTracks, Listed, Release, Rollout, WELL_KNOWN_TRACKS};
use super::token::{GoogleTokens, ServiceAccount};
use crate::source::budget::{RateBudget, RateLimit};
use crate::source::fetch::{Contact, FetchOptions, Fetched, StoreError, account, below, fetch};

/// Every request that this client can make. Each is a GET, but for the exchange of an assertion for a token, and for
/// opening and discarding an edit, without which the store shows no rollout. An edit is a draft of changes; nothing
/// here puts a change into one, and nothing here can commit one.
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
    /// Opens an edit of an app: only where that is switched on (see [`super::edits`]).
    InsertEdit {
        /// The app.
        package: &'a str,
    },
    /// The tracks in an edit, with how far their releases are rolled out.
    EditTracks {
        /// The app.
        package: &'a str,
        /// The edit, one of our own.
        edit: &'a str,
    },
    /// Discards an edit.
    DeleteEdit {
        /// The app.
        package: &'a str,
        /// The edit, one of our own.
        edit: &'a str,
    },
}

/// How many apps a page has: the most that the store gives.
pub(super) const PAGE: u32 = 1000;

/// After how many pages a walk is given up: 100,000 apps.
const MAX_PAGES: u32 = 100;

/// After how many pages in a row with nothing on them a walk is given up.
const MAX_BARREN: u32 = 5;

impl Request<'_> {
    /// The method.
    pub fn method(&self) -> Method {
        match self {
            Self::Token | Self::InsertEdit { .. } => Method::POST,
            Self::DeleteEdit { .. } => Method::DELETE,
            Self::SearchApps { .. }
            | Self::ReleaseFilterOptions { .. }
            | Self::Releases { .. }
            | Self::EditTracks { .. } => Method::GET,
        }
    }

    /// The body: none, but for an edit to be opened, which is described by nothing.
    fn body(&self) -> Option<Value> {
        matches!(self, Self::InsertEdit { .. }).then(|| json!({}))
    }

    /// The address; the token endpoint's is the service account's.
    fn address(&self, bases: &Bases) -> Option<Url> {
        let edits = |package, rest: &[&str]| {
            let path = ["androidpublisher", "v3", "applications", package, "edits"];
            below(&bases.publisher, path.into_iter().chain(rest.iter().copied()))
        };
        match *self {
            Self::Token => None,
            Self::SearchApps { page_token } => {
                let mut url = below(&bases.reporting, ["v1beta1", "apps:search"]);
                url.query_pairs_mut().append_pair("pageSize", &PAGE.to_string());
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
            Self::InsertEdit { package } => Some(edits(package, &[])),
            Self::EditTracks { package, edit } => Some(edits(package, &[edit, "tracks"])),
            Self::DeleteEdit { package, edit } => Some(edits(package, &[edit])),
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

/// A client for one service account. All that it shares between requests is the token, the budget, the last contact,
/// the apps' titles, and what [`super::edits`] has to know.
pub struct PlayClient {
    bases: Bases,
    http: Client,
    options: FetchOptions,
    tokens: GoogleTokens,
    budget: Mutex<RateBudget>,
    contact: Mutex<Contact>,
    /// Titles by package, of the last listing of apps that each was in.
    titles: Mutex<HashMap<String, String>>,
    /// Whether somebody switched edits on and named the account for it.
    edits_allowed: bool,
    /// Whether an edit of ours was ended by somebody else.
    edit_taken_over: AtomicBool,
    /// Held from opening an edit until it is discarded: the next one would end it.
    pub(super) edit_turn: tokio::sync::Mutex<()>,
}

impl PlayClient {
    /// A client of the store at these addresses, Google's or the simulator's. It opens no edits.
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
            budget: Mutex::new(RateBudget::google_play().faster(options.time_scale_of(&bases.publisher))),
            bases,
            tokens: GoogleTokens::new(account),
            options,
            contact: Mutex::new(Contact::default()),
            titles: Mutex::default(),
            edits_allowed: false,
            edit_taken_over: AtomicBool::new(false),
            edit_turn: tokio::sync::Mutex::new(()),
        })
    }

    /// The same client, which may open edits (see [`super::edits::WARNING`]). Whoever wants that has to name the
    /// account, so that nobody does it by leaving a box ticked.
    ///
    /// # Errors
    /// [`StoreError::Credential`] where `dedicated_account` is not the `client_email` of the account.
    pub fn with_edits(mut self, dedicated_account: &str) -> Result<Self, StoreError> {
        if dedicated_account.is_empty() || self.tokens.email() != dedicated_account {
            return Err(StoreError::Credential {
                reason: "rollout_by_edits needs dedicated_account, which repeats the client_email of the service account",
            });
        }
        self.edits_allowed = true;
        Ok(self)
    }

    /// Whether this client may open edits.
    pub fn may_edit(&self) -> bool {
        self.edits_allowed
    }

    /// The apps that the account sees.
    pub async fn apps(&self) -> Result<Listed<App>, StoreError> {
        let mut listed = Listed::new();
        let mut asked = HashSet::new();
        let mut page_token: Option<String> = None;
        let mut barren = 0;
        loop {
            let fetched = self.fetch(Request::SearchApps { page_token: page_token.as_deref() }).await?;
            listed.server_date = fetched.contact.server_date;
            let before = listed.items.len();
            let Some(next) = answer::apps(&fetched.body, &mut listed)? else { break };
            barren = if listed.items.len() > before { 0 } else { barren + 1 };
            if listed.pages >= MAX_PAGES || barren >= MAX_BARREN || !asked.insert(next.clone()) {
                return Err(StoreError::EndlessPages);
            }
            page_token = Some(next);
        }
        let mut seen = HashSet::new();
        listed.items.retain(|app| seen.insert(app.package.clone()));
        let mut titles = self.titles.lock().unwrap_or_else(PoisonError::into_inner);
        for app in &listed.items {
            if let Some(title) = &app.display_name {
                titles.insert(app.package.clone(), title.clone());
            }
        }
        drop(titles);
        Ok(listed)
    }

    /// The title of an app, as the last listing of apps had it.
    pub(super) fn title(&self, package: &str) -> Option<String> {
        self.titles.lock().unwrap_or_else(PoisonError::into_inner).get(package).cloned()
    }

    /// The tracks of an app: those that every app has, then those of its own on which a release is out. The
    /// reporting API names a track as the console does, so that an own track with another title is missing
    /// here; [`Listed::complete`] is therefore always false.
    pub async fn tracks(&self, package: &str) -> Result<Listed<String>, StoreError> {
        let fetched = self.fetch(Request::ReleaseFilterOptions { package }).await?;
        let listed = answer::tracks(&fetched.body)?;
        Ok(Listed { server_date: fetched.contact.server_date, ..listed })
    }

    /// The releases on a track that are not obsolete. A track without any is an empty list; a track that there
    /// is not, [`StoreError::NotFound`].
    pub async fn releases(&self, package: &str, track: &str) -> Result<Listed<Release>, StoreError> {
        match self.fetch(Request::Releases { package, track }).await {
            Err(StoreError::NotFound { code }) if code == "trackEmpty" => {
                Ok(Listed { pages: 1, server_date: self.contact().server_date, ..Listed::new() })
            }
            fetched => {
                let fetched = fetched?;
                let listed = answer::releases(&fetched.body, track)?;
                Ok(Listed { server_date: fetched.contact.server_date, ..listed })
            }
        }
    }

    /// Opens an edit; returns its id. Only [`super::edits`] may, which discards it.
    pub(super) async fn insert_edit(&self, package: &str) -> Result<String, StoreError> {
        answer::edit(&self.fetch(Request::InsertEdit { package }).await?.body)
    }

    /// The tracks in an edit.
    pub(super) async fn edit_tracks(&self, package: &str, edit: &str) -> Result<EditTracks, StoreError> {
        answer::edit_tracks(&self.fetch(Request::EditTracks { package, edit }).await?.body)
    }

    /// Discards an edit.
    pub(super) async fn delete_edit(&self, package: &str, edit: &str) -> Result<(), StoreError> {
        self.fetch(Request::DeleteEdit { package, edit }).await.map(drop)
    }

    /// Whether an edit of ours was ended by somebody else since this client was made.
    pub fn edit_was_taken_over(&self) -> bool {
        self.edit_taken_over.load(Ordering::Relaxed)
    }

    /// Notes that an edit of ours was ended by somebody else.
    pub(super) fn note_edit_taken_over(&self) {
        self.edit_taken_over.store(true, Ordering::Relaxed);
    }

    /// What the last answer's headers said, whatever its status.
    pub fn contact(&self) -> Contact {
        *self.contact.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The account's limit and what is left of it.
    pub fn rate(&self) -> RateLimit {
        self.budget().rate(Instant::now())
    }

    /// The window that the limit is about.
    pub fn window(&self) -> Duration {
        self.budget().window()
    }

    /// How many requests this client has made.
    pub fn requests_made(&self) -> u64 {
        self.budget().made()
    }

    /// How many requests this client may still spend in this minute.
    pub fn requests_left(&self) -> u32 {
        self.budget().left(Instant::now())
    }

    /// Whether several requests can be spent, so that what is begun is also ended.
    pub(super) fn afford(&self, requests: u32) -> Result<(), StoreError> {
        /// The window of Google's quota, after which there is room for sure.
        const WINDOW: Duration = Duration::from_secs(60);
        if self.requests_left() < requests {
            return Err(StoreError::BudgetSpent { retry_after: WINDOW });
        }
        Ok(())
    }

    /// One request within the budget. A 401 is answered with a new token once.
    async fn fetch(&self, request: Request<'_>) -> Result<Fetched, StoreError> {
        let address = request.address(&self.bases).ok_or(StoreError::Setup {
            reason: "the token endpoint is asked by the token exchange alone".to_owned(),
        })?;
        let mut renewed = false;
        loop {
            let spent = self.budget().try_spend(Instant::now());
            spent.map_err(|retry_after| StoreError::BudgetSpent { retry_after })?;
            let token = self.tokens.bearer(&self.http).await?;
            let mut sent = self.http.request(request.method(), address.clone()).bearer_auth(token.as_str());
            if let Some(body) = request.body() {
                sent = sent.json(&body);
            }
            let (contact, answer) = fetch(sent, self.options.max_body).await?;
            *self.contact.lock().unwrap_or_else(PoisonError::into_inner) = contact;
            let answer = match answer {
                // What a DELETE is answered with.
                Err(failure) if failure.status == StatusCode::NO_CONTENT => {
                    Ok(Fetched { body: Vec::new(), contact })
                }
                answer => answer.map_err(answer::error),
            };
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

#[cfg(test)]
#[path = "client_tests.rs"]
pub(super) mod tests;
