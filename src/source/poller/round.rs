//! A round: what is due of one key, asked and recorded.

use super::client::{Client, KnownApp};
use super::plan::Plan;
use super::{Due, LONGEST_WAIT, Poller, REFUSALS, Station, Unusable, draw};
use crate::observation::event::Told;
use crate::observation::record::{self, Asked, Missed};
use crate::observation::{Doubt, Kind, News, Via};
use crate::source::app_store::webhook::Event;
use crate::source::fetch::{ForbiddenCause, StoreError};
use crate::source::google_play::edits::{TAKEN_OVER, TAKEN_OVER_ADVICE};
use crate::source::look::Look;
use crate::source::store::Store;
use crate::source::{self, Health, webhook};
use std::collections::HashSet;
use std::time::{Duration, Instant};
use time::OffsetDateTime;

/// The longest that a key is attended to before the others have their turn.
const LONGEST_ROUND: Duration = Duration::from_secs(20);
/// Settled polls that a round asks before hot ones that fell due meanwhile end it: where the hot ones alone take as long
/// as their interval, the settled ones go on, if slowly.
const SETTLED_IN_ANY_CASE: usize = 2;
/// The longest that one poll may take, all its pages.
const LONGEST_POLL: Duration = Duration::from_secs(90);
/// Subjects that are asked for by themselves after one poll; the others have their turn after the next.
const DIRECT_AT_ONCE: usize = 20;
/// How soon a doubtful state without an address of its own is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// The share of what is left of the budget that settled polls leave to the hot ones, and to others, in percent.
const RESERVE_PERCENT: u32 = 5;
/// How far back what the store has told is read again: its list may be behind, and ids make the overlap harmless.
const TOLD_AGAIN: time::Duration = time::Duration::minutes(15);
/// How far the clocks may be apart before that is told: what tokens can bear.
const MOST_SKEW: time::Duration = time::Duration::seconds(45);

/// What came of a round.
#[derive(Default)]
struct Outcome {
    answered: HashSet<String>,
    gone: Vec<String>,
    /// A failure that ended it: of the key or of the store, not of one poll.
    ended: Option<StoreError>,
    /// The last failure of one poll.
    failed: Option<StoreError>,
    news: News,
    /// What was missing from its listings.
    missed: Missed,
    /// There is more to ask at once.
    unfinished: bool,
}

impl Poller {
    /// Asks what is due and says when to come again.
    pub(super) async fn round(&self, due: &Due) -> Result<Duration, Unusable> {
        let station = self.station(due).await?;
        let mut station = station.lock().await;
        let store = station.client.store();
        let mut plan = Plan::read(&self.database, due.workspace, due.source, store).await?;
        let told = self.is_told(due).await?;
        let outcome = self.ask(due, &mut station.client, &mut plan, told).await?;
        let hot = self.hot(due).await?;
        plan.settle(&hot, &self.settings, station.client.allowance(), &outcome.answered, draw);
        plan.write(&self.database, &outcome.gone, due.at).await?;
        self.note_round(due, &station.client).await?;
        let whole = outcome.ended.is_none();
        metrics::counter!("statusledger_sweeps_total", "outcome" => if whole { "ok" } else { "failed" })
            .increment(1);
        metrics::counter!("statusledger_transitions_total").increment(outcome.news.transitions as u64);
        let wait = match &outcome.ended {
            // Its own pace is no failure: it goes on when there is something to spend.
            Some(StoreError::BudgetSpent { retry_after }) => *retry_after,
            Some(e) => {
                let floor = e.retry_after().unwrap_or_default().max(self.settings.hot());
                station.failing.fail(Some(floor)).min(LONGEST_WAIT.max(floor))
            }
            None => {
                station.failing.reset();
                let until =
                    plan.next_due().unwrap_or_else(OffsetDateTime::now_utc) - OffsetDateTime::now_utc();
                if outcome.unfinished {
                    Duration::ZERO
                } else {
                    Duration::try_from(until).unwrap_or_default()
                }
            }
        };
        self.judge(due, &mut station, &plan, outcome.ended.as_ref(), outcome.failed.as_ref()).await?;
        Ok(wait)
    }

    async fn ask(
        &self,
        due: &Due,
        client: &mut Client,
        plan: &mut Plan,
        told: bool,
    ) -> Result<Outcome, Unusable> {
        let started = Instant::now();
        let mut outcome = Outcome::default();
        let mut queue = plan.due(OffsetDateTime::now_utc());
        queue.reverse();
        let mut settled = 0;
        while let Some(poll) = queue.pop() {
            if started.elapsed() > self.settings.scaled(LONGEST_ROUND) {
                outcome.unfinished = true;
                break;
            }
            if !plan.is_hot(&poll)
                && settled >= SETTLED_IN_ANY_CASE
                && plan.hot_is_due(
                    OffsetDateTime::now_utc(),
                    &outcome.answered,
                    &self.settings,
                    client.allowance(),
                )
            {
                // However much of what is settled fell due at once, what is hot does not wait for it.
                outcome.unfinished = true;
                break;
            }
            settled += usize::from(!plan.is_hot(&poll));
            let left = client.requests_left();
            if !plan.is_hot(&poll) && left < client.allowance().requests * RESERVE_PERCENT / 100 {
                // What is settled waits until there is plenty again.
                plan.again(&poll, OffsetDateTime::now_utc(), self.settings.hot());
                continue;
            }
            let made = client.requests_made();
            let at = OffsetDateTime::now_utc();
            let asked = Asked {
                workspace: due.workspace,
                source: due.source,
                store: client.store(),
                at,
                direct: false,
            };
            let since = plan.answered_at(&poll).unwrap_or(at) - TOLD_AGAIN;
            client.look_for_what_was_told(told.then_some(since));
            if client.needs_hot_builds(&poll) {
                client.look_for_hot_builds(self.hot_builds(due).await?);
            }
            let mut look = Look::default();
            let answer = tokio::time::timeout(LONGEST_POLL, client.look(&poll, &mut look))
                .await
                .unwrap_or(Err(StoreError::Timeout));
            let news = record::record(&self.writer, &asked, &look, &mut outcome.missed).await?;
            outcome.news.transitions += news.transitions;
            self.backfill(due, client.store(), std::mem::take(&mut look.told)).await?;
            let now = OffsetDateTime::now_utc();
            // Where it failed, what it cost before stays its price.
            match answer {
                Ok(()) => {
                    plan.answered(&poll, at, client.requests_made() - made);
                    outcome.answered.insert(poll.clone());
                    if poll == "apps" {
                        let whole = look.covered.iter().any(|c| c.kind == Kind::App && c.scope.is_none());
                        let seen = apps(&look);
                        if told {
                            look.polls.extend(seen.iter().map(|app| format!("webhooks:{}", app.id)));
                        }
                        if whole && client.store().list_of_apps_is_the_plan() {
                            outcome.gone.extend(plan.retain(&look.polls, now));
                        }
                        client.learn(seen, whole);
                    }
                    let fresh: Vec<String> = look.polls.iter().filter(|p| !plan.has(p)).cloned().collect();
                    plan.want(look.polls, now);
                    // What was just found is asked at once: half a first look is none.
                    queue.extend(fresh.into_iter().rev());
                }
                Err(e) => match self.excuse(&e, &poll, plan, now) {
                    true => outcome.failed = Some(e),
                    false => {
                        outcome.ended = Some(e);
                        break;
                    }
                },
            }
            if let Err(e) = self.settle_doubts(due, client, plan, &poll, news.doubtful, &mut outcome).await? {
                outcome.ended = Some(e);
                break;
            }
        }
        Ok(outcome)
    }

    /// Whether a failure is one poll's alone, so that the others are still asked.
    fn excuse(&self, error: &StoreError, poll: &str, plan: &mut Plan, now: OffsetDateTime) -> bool {
        let alone = poll != "apps";
        match error {
            StoreError::Forbidden { code, .. } if code == TAKEN_OVER => {
                plan.stopped("rollouts", TAKEN_OVER);
                true
            }
            StoreError::Forbidden { cause: ForbiddenCause::Role | ForbiddenCause::Other, code } if alone => {
                plan.refused(poll, code, now);
                true
            }
            // The app, or what was asked of it, is not there: its listing tells.
            StoreError::NotFound { .. } if alone => {
                plan.again(poll, now, self.settings.settled());
                true
            }
            StoreError::Malformed { .. }
            | StoreError::NotJson
            | StoreError::ForeignPage
            | StoreError::EndlessPages
            | StoreError::TooLarge { .. }
            | StoreError::Refused { .. } => {
                plan.failed(poll, now, &self.settings);
                true
            }
            _ => false,
        }
    }

    /// Asks for what is in doubt by itself.
    async fn settle_doubts(
        &self,
        due: &Due,
        client: &mut Client,
        plan: &mut Plan,
        poll: &str,
        doubts: Vec<Doubt>,
        outcome: &mut Outcome,
    ) -> Result<Result<(), StoreError>, Unusable> {
        let store = client.store();
        for doubt in doubts.into_iter().take(DIRECT_AT_ONCE) {
            let at = OffsetDateTime::now_utc();
            let asked = Asked { workspace: due.workspace, source: due.source, store, at, direct: true };
            let answer = if store.has_address(doubt.kind) {
                match client.direct(&doubt).await {
                    Ok(answer) => answer,
                    // It may not be asked for alone: then nothing is concluded from its absence.
                    Err(StoreError::Forbidden { .. } | StoreError::Malformed { .. }) => continue,
                    Err(e) => return Ok(Err(e)),
                }
            } else if doubt.absent {
                if !store.listing_tells(doubt.kind) {
                    continue;
                }
                None
            } else {
                plan.again(poll, at, self.settings.scaled(LOOK_AGAIN).min(self.settings.hot()));
                outcome.answered.remove(poll);
                continue;
            };
            match answer {
                Some(observation) => {
                    let look = Look { observations: vec![observation], ..Look::default() };
                    let news = record::record(&self.writer, &asked, &look, &mut outcome.missed).await?;
                    outcome.news.transitions += news.transitions;
                }
                None if doubt.absent => {
                    let gone = record::record_gone(&self.writer, &asked, doubt.kind, &doubt.key).await?;
                    if gone && doubt.kind == Kind::App {
                        outcome.gone.extend(plan.forget(&doubt.scope));
                    }
                }
                // A state that the listing gives of a thing that is not there: neither is believed.
                None => {}
            }
        }
        Ok(Ok(()))
    }

    /// Records what the store has told, by its own list of that.
    async fn backfill(&self, due: &Due, store: Store, mut told: Vec<Event>) -> Result<(), Unusable> {
        // The list has the newest first, as far as it can be relied on; the events' own times go before that.
        told.reverse();
        told.sort_by_key(Event::at);
        let received_at = OffsetDateTime::now_utc();
        let (workspace, source) = (due.workspace, due.source);
        let how = Told { workspace, source, store, via: Via::Backfill, received_at };
        for event in told {
            webhook::take(&self.writer, &how, event).await?;
        }
        Ok(())
    }

    /// Whether the store's own webhooks come to this source.
    async fn is_told(&self, due: &Due) -> Result<bool, sqlx::Error> {
        let mut tx = self.database.workspace(due.workspace).await?;
        sqlx::query_scalar!(
            r#"SELECT webhook_secret IS NOT NULL AS "told!" FROM sources WHERE workspace_id = $1 AND source_id = $2"#,
            due.workspace.uuid(),
            due.source.uuid()
        )
        .fetch_one(&mut *tx)
        .await
    }

    /// What is hot, by kind and app.
    async fn hot(&self, due: &Due) -> Result<HashSet<(Kind, String)>, sqlx::Error> {
        let mut tx = self.database.workspace(due.workspace).await?;
        let rows = sqlx::query!(
            "SELECT DISTINCT kind, scope FROM subjects
              WHERE workspace_id = $1 AND source_id = $2 AND (hot OR pending_state IS NOT NULL) AND gone_at IS NULL",
            due.workspace.uuid(),
            due.source.uuid()
        )
        .fetch_all(&mut *tx)
        .await?;
        Ok(rows.into_iter().filter_map(|r| Some((Kind::from_name(&r.kind)?, r.scope))).collect())
    }

    /// The ids of builds that are hot themselves or in TestFlight, whose states go by the ids of their builds.
    async fn hot_builds(&self, due: &Due) -> Result<Vec<String>, sqlx::Error> {
        let mut tx = self.database.workspace(due.workspace).await?;
        sqlx::query_scalar!(
            "SELECT subject_key FROM subjects
              WHERE workspace_id = $1 AND source_id = $2 AND (hot OR pending_state IS NOT NULL) AND gone_at IS NULL
                AND kind IN ('build', 'beta_internal', 'beta_external', 'beta_review')
              GROUP BY subject_key ORDER BY min(last_seen_at), subject_key",
            due.workspace.uuid(),
            due.source.uuid()
        )
        .fetch_all(&mut *tx)
        .await
    }

    /// Notes when the key was last used, and the store's word on its limit.
    async fn note_round(&self, due: &Due, client: &Client) -> Result<(), sqlx::Error> {
        let rate = client.rate();
        let number = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
        let mut tx = self.database.workspace(due.workspace).await?;
        sqlx::query!(
            "UPDATE sources SET last_polled_at = $3, rate_limit = COALESCE($4, rate_limit),
                    rate_remaining = COALESCE($5, rate_remaining),
                    rate_at = CASE WHEN $4::int4 IS NULL THEN rate_at ELSE $3 END
              WHERE workspace_id = $1 AND source_id = $2",
            due.workspace.uuid(),
            due.source.uuid(),
            OffsetDateTime::now_utc(),
            rate.map(|r| number(r.limit)),
            rate.map(|r| number(r.remaining))
        )
        .execute(&mut *tx)
        .await?;
        tx.commit().await
    }

    /// Finds out how the source fares, and tells it where that is news.
    async fn judge(
        &self,
        due: &Due,
        station: &mut Station,
        plan: &Plan,
        error: Option<&StoreError>,
        failed: Option<&StoreError>,
    ) -> Result<(), Unusable> {
        let unauthorized = matches!(error, Some(StoreError::Unauthorized { .. }));
        station.refusals = if unauthorized { station.refusals + 1 } else { 0 };
        let (refused, failing) = (plan.refusals(), plan.failing());
        let skew = station.client.contact().skew.filter(|skew| skew.abs() > MOST_SKEW);
        let (health, detail) = match error {
            Some(e) => {
                let health = match e {
                    StoreError::Unauthorized { .. } if station.refusals >= REFUSALS => Health::Refused,
                    StoreError::Unauthorized { .. } => Health::Suspect,
                    StoreError::Forbidden { cause: ForbiddenCause::Agreements, .. } => {
                        Health::AgreementsMissing
                    }
                    StoreError::Forbidden { .. } => Health::RoleTooSmall,
                    // Its own pace is no trouble of the store's.
                    StoreError::BudgetSpent { .. } => return Ok(()),
                    _ => Health::Degraded,
                };
                (health, Some(e.to_string()))
            }
            None if skew.is_some() => {
                let seconds = skew.map_or(0, time::Duration::whole_seconds);
                (
                    Health::ClockSkewed,
                    Some(format!("the store's clock is {seconds} s ahead of this machine's")),
                )
            }
            None if plan.is_stopped(TAKEN_OVER) => (Health::Degraded, Some(TAKEN_OVER_ADVICE.to_owned())),
            None if !failing.is_empty() => {
                let why = failed.map_or_else(|| "it cannot be read".to_owned(), ToString::to_string);
                (Health::Degraded, Some(format!("of {}: {why}", kinds(&failing))))
            }
            None if !refused.is_empty() => {
                (Health::RoleTooSmall, Some(format!("the key may not read: {}", kinds(&refused))))
            }
            None => (Health::Ok, None),
        };
        // One failure of a store is not worth telling; a second in a row is.
        let worth = health != Health::Degraded || error.is_none() || station.failing.failures() >= 2;
        let told = (health, detail);
        if worth && station.health.as_ref() != Some(&told) {
            source::set_health(&self.writer, due.workspace, due.source, told.0, told.1.as_deref()).await?;
            station.health = Some(told);
        }
        Ok(())
    }
}

/// What polls are about, without the apps.
fn kinds(polls: &[&str]) -> String {
    let kinds: std::collections::BTreeSet<&str> =
        polls.iter().map(|poll| poll.split(':').next().unwrap_or(poll)).collect();
    kinds.into_iter().collect::<Vec<_>>().join(", ")
}

/// The apps of a look.
pub(super) fn apps(look: &Look) -> Vec<KnownApp> {
    let name = |o: &crate::observation::Observation| {
        o.description.get("name").and_then(|n| n.as_str().map(str::to_owned))
    };
    look.observations
        .iter()
        .filter(|o| o.kind == Kind::App)
        .map(|o| KnownApp {
            id: o.scope.clone(),
            bundle_id: o.app.clone(),
            name: name(o).unwrap_or_default(),
        })
        .collect()
}
