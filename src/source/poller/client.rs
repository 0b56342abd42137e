//! A store's client, whichever store it is.

use super::Unusable;
use super::edits::OpenEdits;
use super::plan::Allowance;
use crate::observation::{Doubt, Observation};
use crate::source::budget::{RateLimit, SHARE_PERCENT};
use crate::source::fetch::{Contact, FetchOptions, StoreError};
use crate::source::google_play::edits::EditsMode;
use crate::source::look::Look;
use crate::source::store::Store;
use crate::source::{Kind, app_store, google_play};
use std::time::Duration;
use time::OffsetDateTime;

pub(super) use crate::source::app_store::looks::KnownApp;

/// A client of one key.
pub(super) enum Client {
    AppStore { client: Box<app_store::client::AppStoreClient>, known: app_store::looks::Known },
    GooglePlay { client: Box<google_play::client::PlayClient>, edits: Option<OpenEdits> },
}

impl Client {
    pub(super) fn new(
        kind: Kind,
        secret: &[u8],
        settings: serde_json::Value,
        options: FetchOptions,
        edits: OpenEdits,
    ) -> Result<Self, Unusable> {
        let damaged = |e: serde_json::Error| Unusable::Damaged(e.to_string());
        match kind {
            Kind::AppStore => {
                let credentials: app_store::Credentials = serde_json::from_slice(secret).map_err(damaged)?;
                let settings = serde_json::from_value(settings).map_err(damaged)?;
                Ok(Self::AppStore {
                    client: Box::new(app_store::client(&credentials, &settings, options)?),
                    known: app_store::looks::Known::default(),
                })
            }
            Kind::GooglePlay => {
                let settings: google_play::StoreSettings =
                    serde_json::from_value(settings).map_err(damaged)?;
                let account = std::str::from_utf8(secret).map_err(|e| Unusable::Damaged(e.to_string()))?;
                let client = Box::new(google_play::client(account, &settings, options)?);
                Ok(Self::GooglePlay { client, edits: settings.rollout_by_edits.then_some(edits) })
            }
            Kind::Inbound => Err(Unusable::Damaged("an inbound source is not polled".into())),
        }
    }

    pub(super) const fn store(&self) -> Store {
        match self {
            Self::AppStore { .. } => Store::AppStore,
            Self::GooglePlay { .. } => Store::GooglePlay,
        }
    }

    /// Requests that may be made now.
    pub(super) fn requests_left(&self) -> u32 {
        match self {
            Self::AppStore { client, .. } => client.requests_left(),
            Self::GooglePlay { client, .. } => client.requests_left(),
        }
    }

    pub(super) fn requests_made(&self) -> u64 {
        match self {
            Self::AppStore { client, .. } => client.requests_made(),
            Self::GooglePlay { client, .. } => client.requests_made(),
        }
    }

    /// What may be spent in a window, by the store's own word where it gives one.
    pub(super) fn allowance(&self) -> Allowance {
        let (limit, window) = match self {
            Self::AppStore { client, .. } => (client.rate().limit, client.window()),
            Self::GooglePlay { client, .. } => (client.rate().limit, client.window()),
        };
        let requests = u64::from(limit) * u64::from(SHARE_PERCENT) / 100;
        Allowance { requests: u32::try_from(requests).unwrap_or(u32::MAX), window }
    }

    /// The store's word on the key's limit.
    pub(super) fn rate(&self) -> Option<RateLimit> {
        match self {
            Self::AppStore { client, .. } => client.contact().rate,
            Self::GooglePlay { .. } => None,
        }
    }

    pub(super) fn contact(&self) -> Contact {
        match self {
            Self::AppStore { client, .. } => client.contact(),
            Self::GooglePlay { client, .. } => client.contact(),
        }
    }

    /// Goes on from what the store said before a restart.
    pub(super) fn resume(&mut self, limit: i32, remaining: i32, at: OffsetDateTime) {
        let (Ok(limit), Ok(remaining)) = (u32::try_from(limit), u32::try_from(remaining)) else { return };
        let age = Duration::try_from(OffsetDateTime::now_utc() - at).unwrap_or_default();
        if let Self::AppStore { client, .. } = self {
            client.resume(RateLimit { limit, remaining }, age);
        }
    }

    /// Takes over which apps there are: all of them, or some.
    pub(super) fn learn(&mut self, apps: Vec<KnownApp>, whole: bool) {
        let Self::AppStore { known, .. } = self else { return };
        let mut known_before = std::mem::replace(&mut known.apps, apps);
        if !whole {
            known_before.retain(|app| known.apps.iter().all(|new| new.id != app.id));
            known.apps.append(&mut known_before);
        }
    }

    /// Since when what the store's own webhooks have sent is to be read, where they come to this source.
    pub(super) fn look_for_what_was_told(&mut self, since: Option<OffsetDateTime>) {
        if let Self::AppStore { known, .. } = self {
            known.told_since = since;
        }
    }

    /// Whether a poll has to know which builds are hot.
    pub(super) fn needs_hot_builds(&self, poll: &str) -> bool {
        matches!(self, Self::AppStore { .. })
            && app_store::looks::Poll::parse(poll) == Some(app_store::looks::Poll::RecentBuilds)
    }

    /// Which builds are hot, the longest unseen first.
    pub(super) fn look_for_hot_builds(&mut self, ids: Vec<String>) {
        if let Self::AppStore { known, .. } = self {
            known.hot_builds = ids;
        }
    }

    /// Asks one poll.
    pub(super) async fn look(&self, poll: &str, look: &mut Look) -> Result<(), StoreError> {
        match self {
            Self::AppStore { client, known } => match app_store::looks::Poll::parse(poll) {
                Some(poll) => app_store::looks::look(client, &poll, known, look).await,
                None => Ok(()),
            },
            Self::GooglePlay { client, edits } => match google_play::looks::Poll::parse(poll) {
                Some(poll) => {
                    let edits = edits.as_ref().map_or(EditsMode::Off, |log| EditsMode::On(log));
                    google_play::looks::look(client, &poll, edits, look).await
                }
                None => Ok(()),
            },
        }
    }

    /// Asks for one subject by itself: none where the store has it no more.
    pub(super) async fn direct(&self, doubt: &Doubt) -> Result<Option<Observation>, StoreError> {
        match self {
            Self::AppStore { client, known } => {
                let app = known.apps.iter().find(|app| app.id == doubt.scope).cloned();
                // The app that is missing from the last list of apps is the very one that is to be asked for.
                let app = app.unwrap_or_else(|| KnownApp {
                    id: doubt.scope.clone(),
                    bundle_id: doubt.app.clone(),
                    name: doubt.said("name").unwrap_or_default().to_owned(),
                });
                if app.id.is_empty() {
                    // What was only told of, and never listed, belongs to an app that is not known.
                    return Err(StoreError::Malformed { what: "an app that is not known" });
                }
                app_store::direct::direct(client, doubt, &app).await
            }
            Self::GooglePlay { .. } => Ok(None),
        }
    }

    /// Whether rollouts are read.
    pub(super) const fn edits_are_on(&self) -> bool {
        matches!(self, Self::GooglePlay { edits: Some(_), .. })
    }

    /// Whether the key can do what only an administrator's can.
    pub(super) async fn reads_users(&self) -> Result<bool, StoreError> {
        match self {
            Self::AppStore { client, .. } => client.reads_users().await,
            Self::GooglePlay { .. } => Ok(false),
        }
    }
}
