//! A round: what is due of one key, asked and recorded.

use super::client::{Client, KnownApp};
use super::plan::{Plan, kind_of};
use super::{Due, Poller, Unusable, draw};
use crate::observation::event::{Told, Under};
use crate::observation::record::{self, Asked, Missed};
use crate::observation::{self, Doubt, Kind, News, Via};
use crate::source::app_store::webhook::Event;
use crate::source::fetch::{ForbiddenCause, StoreError};
use crate::source::google_play::edits::TAKEN_OVER;
use crate::source::look::Look;
use crate::source::webhook;
use std::collections::{HashMap, HashSet};
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
/// How far back what the store has told is read again: its list may be behind, and ids make the overlap harmless.
const TOLD_AGAIN: time::Duration = time::Duration::minutes(15);
/// Polls of a kind that may fail in a round before the others of it are spared: an endpoint that answers nobody is not asked
/// for each of two hundred apps.
const FAILURES_OF_A_KIND: u32 = 3;
/// Kinds of polls that fail one after the other before the round is given up: then it is not a list, it is the store.
const KINDS_THAT_FAIL: usize = 3;

/// What came of a round.
#[derive(Default)]
pub(super) struct Outcome {
    answered: HashSet<String>,
    gone: Vec<String>,
    /// A failure that ended it: of the key or of the store, not of one poll.
    pub(super) ended: Option<StoreError>,
    /// Why the last poll that failed did.
    pub(super) failed: Option<String>,
    /// How often each kind of poll failed since it was last answered.
    failures: HashMap<String, u32>,
    /// The store knows the key: it answered something else than that it does not.
    pub(super) heard: bool,
    /// The polls that met a 401 before that: theirs or the key's, others tell.
    refused: Vec<String>,
    /// The kinds that failed since any poll was answered.
    in_a_row: HashSet<String>,
    news: News,
    /// What was missing from its listings.
    missed: Missed,
    /// There is more to ask at once.
    unfinished: bool,
}

impl Outcome {
    /// Whether nothing was asked: then nothing was learned of the key, nor of the store.
    pub(super) fn is_silent(&self) -> bool {
        !self.heard && self.ended.is_none() && self.failed.is_none()
    }

    /// A poll was answered.
    fn answer(&mut self, poll: &str) {
        self.answered.insert(poll.to_owned());
        self.failures.remove(kind_of(poll));
        self.in_a_row.clear();
    }

    /// A poll was not answered.
    fn failure(&mut self, poll: &str, why: String) {
        let kind = kind_of(poll).to_owned();
        *self.failures.entry(kind.clone()).or_default() += 1;
        self.in_a_row.insert(kind);
        self.failed = Some(why);
    }

    /// Whether polls of this kind fail whatever the app.
    fn spares(&self, poll: &str) -> bool {
        self.failures.get(kind_of(poll)).is_some_and(|failures| *failures >= FAILURES_OF_A_KIND)
    }
}

/// Whose failure it is.
enum Blame {
    /// The poll's alone.
    Poll,
    /// Of the poll, or of the store: the polls behind it tell.
    Either,
    /// The key's or the store's.
    Key,
}

impl Poller {
    /// Asks what is due and says when to come again.
    pub(super) async fn round(&self, due: &Due) -> Result<Duration, Unusable> {
        let station = self.station(due).await?;
        let mut station = station.lock().await;
        let store = station.client.store();
        let mut plan = {
            let _turn = self.turn().await;
            Plan::read(&self.database, due.workspace, due.source, store).await?
        };
        let made = station.client.requests_made();
        let under = station.under;
        let outcome = self.ask(due, &mut station.client, under, &mut plan).await?;
        let _turn = self.turn().await;
        let hot = self.hot(due).await?;
        plan.settle(&hot, &self.settings, station.client.allowance(), &outcome.answered, draw);
        plan.write(&self.database, &outcome.gone, due.at, under).await?;
        if station.client.requests_made() > made {
            self.note_round(due, &station.client, under).await?;
        }
        let whole = outcome.ended.is_none();
        metrics::counter!("statusledger_sweeps_total", "outcome" => if whole { "ok" } else { "failed" })
            .increment(1);
        metrics::counter!("statusledger_transitions_total").increment(outcome.news.transitions as u64);
        let wait = match &outcome.ended {
            // Its own pace is no failure: it goes on when there is something to spend.
            Some(StoreError::BudgetSpent { retry_after }) => *retry_after,
            Some(e) => {
                if !outcome.answered.is_empty() {
                    station.failing.reset();
                }
                let floor = e.retry_after().unwrap_or_default().max(self.settings.hot());
                station.failing.fail(Some(floor))
            }
            None => {
                if !outcome.is_silent() {
                    station.failing.reset();
                }
                let until =
                    plan.next_due().unwrap_or_else(OffsetDateTime::now_utc) - OffsetDateTime::now_utc();
                if outcome.unfinished {
                    Duration::ZERO
                } else {
                    Duration::try_from(until).unwrap_or_default()
                }
            }
        };
        self.judge(due, &mut station, &plan, &outcome).await?;
        Ok(wait)
    }

    async fn ask(
        &self,
        due: &Due,
        client: &mut Client,
        under: [u8; 32],
        plan: &mut Plan,
    ) -> Result<Outcome, Unusable> {
        let started = Instant::now();
        let mut outcome = Outcome::default();
        let mut queue = plan.due(OffsetDateTime::now_utc());
        queue.reverse();
        let mut settled = 0;
        let mut refusal: Option<StoreError> = None;
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
            if outcome.spares(&poll) {
                plan.failed(&poll, OffsetDateTime::now_utc(), &self.settings, draw());
                continue;
            }
            // A first look at everything; later both are asked, so that an absence from both counts.
            if let Some(at) = plan.told_by_the_whole(&poll, &outcome.answered) {
                plan.answered(&poll, at, 1);
                outcome.answer(&poll);
                continue;
            }
            settled += usize::from(!plan.is_hot(&poll));
            let left = client.requests_left();
            if !plan.is_hot(&poll) && left < client.allowance().reserve() {
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
                under,
            };
            let told = self.is_told(due.workspace, due.source, under).await?;
            let since = plan.answered_at(&poll).unwrap_or(at) - TOLD_AGAIN;
            client.look_for_what_was_told(told.then_some(since));
            if client.needs_hot_builds(&poll) {
                client.look_for_hot_builds(self.hot_builds(due).await?);
            }
            let mut look = Look::default();
            let answer = tokio::time::timeout(LONGEST_POLL, client.look(&poll, &mut look))
                .await
                .unwrap_or(Err(StoreError::Timeout));
            let recorded = self.record(&asked, &mut look, &mut outcome).await?;
            let now = OffsetDateTime::now_utc();
            if matches!(answer, Ok(()) | Err(StoreError::Forbidden { .. } | StoreError::NotFound { .. })) {
                outcome.heard = true;
                // The store knows the key: what was refused before was so by itself.
                for refused in std::mem::take(&mut outcome.refused) {
                    plan.failed(&refused, now, &self.settings, draw());
                    outcome.failure(&refused, refusal.as_ref().map_or_else(String::new, ToString::to_string));
                }
            }
            // Where it failed, what it cost before stays its price.
            match answer {
                Ok(()) => {
                    if plan.has_failed(&poll) {
                        plan.recovered(kind_of(&poll), now);
                    }
                    if recorded.is_some() {
                        plan.answered(&poll, at, client.requests_made() - made);
                        outcome.answer(&poll);
                    } else {
                        plan.failed(&poll, now, &self.settings, draw());
                    }
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
                Err(e @ StoreError::Unauthorized { .. }) if !outcome.heard => {
                    // Put off, or it would be the first of every round; and no failure of its own, as far as is known.
                    plan.again(&poll, now, self.settings.hot());
                    outcome.refused.push(poll.clone());
                    let other = (outcome.refused.len() == 1).then(|| plan.another(&poll, &queue)).flatten();
                    let Some(other) = other else {
                        outcome.ended = Some(e);
                        break;
                    };
                    refusal = Some(e);
                    queue.retain(|queued| *queued != other);
                    queue.push(other);
                }
                Err(e) => match self.blame(&e, &poll, plan, now) {
                    Blame::Poll => outcome.failed = Some(e.to_string()),
                    Blame::Either => {
                        outcome.failure(&poll, e.to_string());
                        if outcome.in_a_row.len() >= KINDS_THAT_FAIL {
                            outcome.ended = Some(e);
                            break;
                        }
                    }
                    Blame::Key => {
                        outcome.ended = Some(e);
                        break;
                    }
                },
            }
            if let Err(e) = self
                .settle_doubts(&asked, client, plan, &poll, recorded.unwrap_or_default(), &mut outcome)
                .await?
            {
                outcome.ended = Some(e);
                break;
            }
        }
        if !outcome.heard && outcome.ended.is_none() && !outcome.unfinished {
            // Nobody contradicted it.
            outcome.ended = refusal;
        }
        Ok(outcome)
    }

    /// Whose a failure is, and when the poll is due again. Also where it is the key's: a poll that kept its date would be
    /// the first of every round, and end each.
    fn blame(&self, error: &StoreError, poll: &str, plan: &mut Plan, now: OffsetDateTime) -> Blame {
        let alone = poll != "apps";
        match error {
            StoreError::Forbidden { code, .. } if code == TAKEN_OVER => {
                plan.stopped("rollouts", TAKEN_OVER);
                return Blame::Poll;
            }
            StoreError::Forbidden { cause: ForbiddenCause::Role | ForbiddenCause::Other, code } if alone => {
                plan.refused(poll, code, now);
                return Blame::Poll;
            }
            // The app, or what was asked of it, is not there: its listing tells.
            StoreError::NotFound { .. } if alone => {
                plan.again(poll, now, self.settings.settled());
                return Blame::Poll;
            }
            // Nothing was sent, or nothing of this key can be.
            StoreError::BudgetSpent { .. }
            | StoreError::Credential { .. }
            | StoreError::Setup { .. }
            | StoreError::Forbidden { .. } => return Blame::Key,
            _ => plan.failed(poll, now, &self.settings, draw()),
        }
        match error {
            // Without an answer nobody knows.
            StoreError::Server { retry_after: None, .. }
            | StoreError::Timeout
            | StoreError::Network { .. } => Blame::Either,
            // The key is good for other lists: it was taken in this round.
            StoreError::Unauthorized { .. } => Blame::Either,
            e if e.is_of_one_request() => Blame::Poll,
            _ => Blame::Key,
        }
    }

    /// Asks for what is in doubt by itself.
    async fn settle_doubts(
        &self,
        asked: &Asked,
        client: &mut Client,
        plan: &mut Plan,
        poll: &str,
        doubts: Vec<Doubt>,
        outcome: &mut Outcome,
    ) -> Result<Result<(), StoreError>, Unusable> {
        let store = client.store();
        let mut failures = 0;
        for doubt in doubts.into_iter().take(DIRECT_AT_ONCE) {
            if failures >= FAILURES_OF_A_KIND {
                break;
            }
            self.is_told(asked.workspace, asked.source, asked.under).await?;
            let at = OffsetDateTime::now_utc();
            let asked = Asked { at, direct: true, ..*asked };
            let answer = if store.has_address(doubt.kind) {
                match client.direct(&doubt).await {
                    Ok(answer) => answer,
                    // It may not be asked for alone: then nothing is concluded from its absence.
                    Err(StoreError::Forbidden { .. } | StoreError::Malformed { .. }) => continue,
                    // It stays in doubt until it is seen, or missed, again. The lists are asked for all the same.
                    // Nor is the key refused, which its list was just answered to.
                    Err(e) if e.is_of_one_request() || matches!(e, StoreError::Unauthorized { .. }) => {
                        failures += 1;
                        outcome.failed = Some(e.to_string());
                        continue;
                    }
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
                    let mut look = Look { observations: vec![observation], ..Look::default() };
                    self.record(&asked, &mut look, outcome).await?;
                }
                None if doubt.absent => {
                    let _turn = self.turn().await;
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

    /// Records a look, and gives what is in doubt after it; none where what it says cannot be recorded. That is the poll's
    /// trouble, and keeps no other from being asked.
    async fn record(
        &self,
        asked: &Asked,
        look: &mut Look,
        outcome: &mut Outcome,
    ) -> Result<Option<Vec<Doubt>>, Unusable> {
        let _turn = self.turn().await;
        let mut refused = None;
        let news = match record::record(&self.writer, asked, look, &mut outcome.missed).await {
            Err(e) if e.is_of_what_was_said() => {
                refused = Some(e);
                News::default()
            }
            news => news?,
        };
        outcome.news.transitions += news.transitions;
        let left_out = u64::from(look.unread) + news.left_out as u64;
        if left_out > 0 {
            metrics::counter!("statusledger_store_items_left_out_total").increment(left_out);
            tracing::warn!(source = %asked.source, items = left_out, "items of a store's answer are left out");
        }
        if let Some(e) = self.backfill(asked, std::mem::take(&mut look.told)).await? {
            refused = Some(e);
        }
        let Some(e) = refused else { return Ok(Some(news.doubtful)) };
        tracing::warn!(source = %asked.source, error = %e, "what a store says cannot be recorded");
        outcome.failed = Some(format!("what the store says cannot be recorded: {e}"));
        Ok(None)
    }

    /// Records what the store has told, by its own list of that. Gives why one of it cannot be; the others are.
    async fn backfill(
        &self,
        asked: &Asked,
        mut told: Vec<Event>,
    ) -> Result<Option<observation::Error>, Unusable> {
        // The list has the newest first, as far as it can be relied on; the events' own times go before that.
        told.reverse();
        told.sort_by_key(Event::at);
        let received_at = OffsetDateTime::now_utc();
        let Asked { workspace, source, store, under, .. } = *asked;
        let under = Under::Key(under);
        let how = Told { workspace, source, store, via: Via::Backfill, received_at, under };
        let mut refused = None;
        for event in told {
            match webhook::take(&self.writer, &how, event).await {
                Err(e) if e.is_of_what_was_said() => refused = Some(e),
                taken => drop(taken?),
            }
        }
        Ok(refused)
    }
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
