//! The plan of a store key: what is asked of it, and when next.
//!
//! What is in review, processing or rolling out is asked for again within the hot interval, what is settled within the
//! settled one. Where the key's budget does not cover that, the hot interval is what gives: the settled polls cost
//! little, and a key that is out of budget sees nothing at all.

use super::super::look::MAX_POLL;
use super::super::store::Store;
use crate::config::PollingSettings;
use crate::database::Database;
use crate::id::{SourceId, WorkspaceId};
use crate::observation::Kind;
use std::collections::{BTreeMap, HashSet};
use std::time::Duration;
use time::OffsetDateTime;

/// How long a poll that the store refuses by itself is left alone.
const REFUSED_FOR: Duration = Duration::from_secs(6 * 3600);
/// How long polls that were stopped are not made: for good.
const STOPPED_FOR: time::Duration = time::Duration::days(3650);
/// A refused poll that is due later than this was stopped, and is nobody's to make due ([`super::make_due`]).
const STOPPED_FROM: time::Duration = time::Duration::days(1);
/// The share of the budget that hot polls have in any case.
const HOT_SHARE: f64 = 0.1;

/// The share of what is left of the budget that settled polls leave to the hot ones, and to others, in percent.
const RESERVE_PERCENT: u64 = 5;

/// The part of its interval by which a poll is due sooner at most, so that polls that began together drift apart.
const SPREAD: f64 = 0.1;

/// A poll's row.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Planned {
    pub(super) due_at: OffsetDateTime,
    pub(super) answered_at: Option<OffsetDateTime>,
    pub(super) requests: i32,
    pub(super) hot: bool,
    pub(super) failures: i32,
    pub(super) refused: Option<String>,
    /// Whether the row is not as it is here.
    dirty: bool,
}

impl Planned {
    /// Whether it is not made for good, whoever wishes it.
    fn is_stopped(&self) -> bool {
        self.refused.is_some() && self.due_at > OffsetDateTime::now_utc() + STOPPED_FROM
    }
}

/// What a poll is about, without the app.
pub(super) fn kind_of(poll: &str) -> &str {
    poll.split_once(':').map_or(poll, |(kind, _)| kind)
}

/// All polls of a key, by name.
#[derive(Debug)]
pub(super) struct Plan {
    workspace: WorkspaceId,
    source: SourceId,
    store: Store,
    polls: BTreeMap<String, Planned>,
}

/// What a key may spend.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    /// Requests a window.
    pub(super) requests: u32,
    /// The window.
    pub(super) window: Duration,
}

impl Allowance {
    /// What settled polls leave to the hot ones, and to others.
    pub(super) fn reserve(self) -> u32 {
        u32::try_from(u64::from(self.requests) * RESERVE_PERCENT / 100).unwrap_or(u32::MAX)
    }
}

impl Plan {
    /// Reads the plan, or begins it with the one poll that finds the others.
    pub(super) async fn read(
        database: &Database,
        workspace: WorkspaceId,
        source: SourceId,
        store: Store,
    ) -> Result<Self, sqlx::Error> {
        let mut tx = database.workspace(workspace).await?;
        let rows = sqlx::query!(
            "SELECT poll, due_at, answered_at, requests, hot, failures, refused FROM polls
              WHERE workspace_id = $1 AND source_id = $2",
            workspace.uuid(),
            source.uuid()
        )
        .fetch_all(&mut *tx)
        .await?;
        let mut plan = Self { workspace, source, store, polls: BTreeMap::new() };
        for row in rows {
            let planned = Planned {
                due_at: row.due_at,
                answered_at: row.answered_at,
                requests: row.requests,
                hot: row.hot,
                failures: row.failures,
                refused: row.refused,
                dirty: false,
            };
            plan.polls.insert(row.poll, planned);
        }
        plan.want(["apps".to_owned()], OffsetDateTime::now_utc());
        Ok(plan)
    }

    /// The polls that are due, the hot ones before the settled ones, each in the order in which they fell due. That one has
    /// failed puts it off ([`Plan::failed`]) and behind no other: where there is more to ask than time, it would never be.
    pub(super) fn due(&self, now: OffsetDateTime) -> Vec<String> {
        let mut due: Vec<(&String, &Planned)> = self.polls.iter().filter(|(_, p)| p.due_at <= now).collect();
        due.sort_by_key(|(_, p)| (!p.hot, p.due_at));
        due.into_iter().map(|(name, _)| name.clone()).collect()
    }

    /// Whether a hot poll is due by now, where those in `answered` were answered in this round, which has not settled
    /// yet when they are due again.
    pub(super) fn hot_is_due(
        &self,
        now: OffsetDateTime,
        answered: &HashSet<String>,
        settings: &PollingSettings,
        allowance: Allowance,
    ) -> bool {
        let interval = self.hot_interval(settings, allowance).mul_f64(1.0 - SPREAD);
        self.polls.iter().filter(|(_, p)| p.hot).any(|(name, planned)| match planned.answered_at {
            Some(at) if answered.contains(name) => at + interval <= now,
            _ => planned.due_at <= now,
        })
    }

    pub(super) fn has(&self, poll: &str) -> bool {
        self.polls.contains_key(poll)
    }

    pub(super) fn answered_at(&self, poll: &str) -> Option<OffsetDateTime> {
        self.polls.get(poll)?.answered_at
    }

    /// Drops the polls that there is no reason for any more: a hot one after it was asked once again, for how it ended.
    pub(super) fn retain(&mut self, wanted: &[String], now: OffsetDateTime) -> Vec<String> {
        let wanted: HashSet<&str> = wanted.iter().map(String::as_str).collect();
        let mut gone = Vec::new();
        self.polls.retain(|name, planned| {
            if name == "apps" || wanted.contains(name.as_str()) {
                return true;
            }
            let last_time = planned.hot && planned.answered_at.is_some();
            if last_time {
                (planned.hot, planned.due_at, planned.dirty) = (false, now, true);
            } else {
                gone.push(name.clone());
            }
            last_time
        });
        gone
    }

    /// When all that a poll which was never asked would tell was told by another in this round, in which those in `answered`
    /// were answered. None: it has to be asked itself.
    pub(super) fn told_by_the_whole(&self, poll: &str, answered: &HashSet<String>) -> Option<OffsetDateTime> {
        let whole = self.store.within(poll).filter(|whole| answered.contains(whole))?;
        self.answered_at(&whole).filter(|_| self.answered_at(poll).is_none())
    }

    pub(super) fn is_hot(&self, poll: &str) -> bool {
        self.polls.get(poll).is_some_and(|p| p.hot)
    }

    /// Adds polls that are not there yet, due at once. A name that no row takes is none.
    pub(super) fn want(&mut self, polls: impl IntoIterator<Item = String>, now: OffsetDateTime) {
        for poll in polls {
            if poll.chars().count() > MAX_POLL || poll.contains('\0') {
                continue;
            }
            self.polls.entry(poll).or_insert(Planned {
                due_at: now,
                answered_at: None,
                requests: 1,
                hot: true,
                failures: 0,
                refused: None,
                dirty: true,
            });
        }
    }

    /// A poll was answered, for so many requests. When it is due again is settled by [`Plan::settle`].
    pub(super) fn answered(&mut self, poll: &str, at: OffsetDateTime, requests: u64) {
        if let Some(planned) = self.polls.get_mut(poll) {
            planned.answered_at = Some(at);
            planned.requests = i32::try_from(requests.max(1)).unwrap_or(i32::MAX);
            planned.failures = 0;
            planned.refused = None;
            planned.dirty = true;
        }
    }

    /// A poll is refused, it alone.
    pub(super) fn refused(&mut self, poll: &str, why: &str, now: OffsetDateTime) {
        if let Some(planned) = self.polls.get_mut(poll) {
            planned.refused = Some(why.to_owned());
            planned.due_at = now + REFUSED_FOR;
            planned.dirty = true;
        }
    }

    /// A poll was not answered, or its answer could not be read or recorded: it is asked again, later each time. `draw`,
    /// from 0 to 1, keeps those that failed together from failing together again.
    pub(super) fn failed(&mut self, poll: &str, now: OffsetDateTime, settings: &PollingSettings, draw: f64) {
        if let Some(planned) = self.polls.get_mut(poll) {
            let wait = settings.hot().saturating_mul(1 << planned.failures.clamp(0, 12));
            planned.failures = planned.failures.saturating_add(1);
            let wait = wait.min(settings.settled()).min(settings.longest_wait());
            planned.due_at = now + wait.mul_f64(1.0 + SPREAD * draw);
            planned.dirty = true;
        }
    }

    /// Whether a poll failed when it was last asked.
    pub(super) fn has_failed(&self, poll: &str) -> bool {
        self.polls.get(poll).is_some_and(|p| p.failures > 0)
    }

    /// A poll of this kind is answered again: the others of it that failed need not wait out their time.
    pub(super) fn recovered(&mut self, kind: &str, now: OffsetDateTime) {
        for (_, planned) in self.polls.iter_mut().filter(|(name, _)| kind_of(name) == kind) {
            if planned.failures > 0 && planned.refused.is_none() && planned.due_at > now {
                (planned.due_at, planned.dirty) = (now, true);
            }
        }
    }

    /// Which polls failed twice in a row.
    pub(super) fn failing(&self) -> Vec<&str> {
        self.polls.iter().filter(|(_, p)| p.failures >= 2).map(|(name, _)| name.as_str()).collect()
    }

    /// Another poll than the refused one, which tells whether the key is: the listing of the apps, which every key may
    /// read, else what is queued next, else what was answered last.
    pub(super) fn another(&self, refused: &str, queue: &[String]) -> Option<String> {
        if refused != "apps" {
            return Some("apps".to_owned());
        }
        let answered = self.polls.iter().filter(|(name, p)| *name != refused && p.refused.is_none());
        let last = || answered.filter_map(|(name, p)| Some((p.answered_at?, name))).max();
        queue.last().cloned().or_else(|| last().map(|(_, name)| name.clone()))
    }

    /// Whether the store has ever answered what is asked here.
    pub(super) fn was_ever_answered(&self) -> bool {
        self.polls.values().any(|p| p.answered_at.is_some())
    }

    /// A poll said what needs a second look: it is due after `wait`.
    pub(super) fn again(&mut self, poll: &str, now: OffsetDateTime, wait: Duration) {
        if let Some(planned) = self.polls.get_mut(poll) {
            planned.due_at = now + wait;
            planned.dirty = true;
        }
    }

    /// What these polls ask is not to be asked any more, until a person has set the source up anew.
    pub(super) fn stopped(&mut self, what: &str, why: &str) {
        for (_, planned) in self.polls.iter_mut().filter(|(name, _)| kind_of(name) == what) {
            planned.refused = Some(why.to_owned());
            planned.due_at = OffsetDateTime::now_utc() + STOPPED_FOR;
            planned.dirty = true;
        }
    }

    /// Whether polls were stopped for this reason.
    pub(super) fn is_stopped(&self, why: &str) -> bool {
        self.polls.values().any(|p| p.refused.as_deref() == Some(why))
    }

    /// Which polls the store refuses.
    pub(super) fn refusals(&self) -> Vec<&str> {
        self.polls.iter().filter(|(_, p)| p.refused.is_some()).map(|(name, _)| name.as_str()).collect()
    }

    /// Forgets the polls of an app that is gone.
    pub(super) fn forget(&mut self, scope: &str) -> Vec<String> {
        let of_it = |name: &str| {
            name.split_once(':').is_some_and(|(_, of)| {
                of == scope || of.strip_prefix(scope).is_some_and(|rest| rest.starts_with('/'))
            })
        };
        let gone: Vec<String> = self.polls.keys().filter(|name| of_it(name)).cloned().collect();
        self.polls.retain(|name, _| !of_it(name));
        gone
    }

    /// When the hot polls are due again, given what all of them cost.
    fn hot_interval(&self, settings: &PollingSettings, allowance: Allowance) -> Duration {
        let cost = |hot: bool| {
            self.polls
                .values()
                .filter(|p| p.hot == hot && p.refused.is_none())
                .map(|p| f64::from(p.requests))
                .sum::<f64>()
        };
        let allowed = f64::from(allowance.requests.max(1)) / allowance.window.as_secs_f64();
        // Polls are due sooner by half of the spread on average, and cost so much more an hour.
        let mean = 1.0 - SPREAD / 2.0;
        let for_settled = cost(false) / (settings.settled().as_secs_f64() * mean);
        let for_hot = (allowed - for_settled).max(allowed * HOT_SHARE);
        settings.hot().max(Duration::from_secs_f64((cost(true) / for_hot / mean).min(86_400.0)))
    }

    /// Finds out which polls are hot now, and when each that was answered is due again. `draw`, from 0 to 1, spreads
    /// those of one interval.
    pub(super) fn settle(
        &mut self,
        hot: &HashSet<(Kind, String)>,
        settings: &PollingSettings,
        allowance: Allowance,
        answered: &HashSet<String>,
        mut draw: impl FnMut() -> f64,
    ) {
        let store = self.store;
        let mut turned = HashSet::new();
        for (name, planned) in &mut self.polls {
            let is_hot = planned.answered_at.is_none() || store.is_hot(name, hot);
            if is_hot != planned.hot {
                planned.hot = is_hot;
                planned.dirty = true;
                turned.insert(name.clone());
            }
        }
        let (hot_interval, settled) = (self.hot_interval(settings, allowance), settings.settled());
        for (name, planned) in &mut self.polls {
            let Some(at) = planned.answered_at.filter(|_| planned.refused.is_none()) else { continue };
            if !answered.contains(name) && (!turned.contains(name) || planned.failures > 0) {
                continue;
            }
            // Never later than the interval, so that the promise holds.
            let interval = if planned.hot { hot_interval } else { settled };
            let due = at + interval.mul_f64(1.0 - SPREAD * draw());
            // A poll that turned hot is due sooner; one that cooled down keeps its date if that is sooner.
            planned.due_at = if answered.contains(name) { due } else { due.min(planned.due_at) };
            planned.dirty = true;
        }
    }

    /// When the next poll is due.
    pub(super) fn next_due(&self) -> Option<OffsetDateTime> {
        self.polls.values().map(|p| p.due_at).min()
    }

    /// Writes what has changed, at the end of a round that was due at `round`. If the source was made due meanwhile, so is
    /// all that is written: its answers may be older than the wish. A crash before this leaves the old dates: polls are
    /// asked again.
    pub(super) async fn write(
        &mut self,
        database: &Database,
        gone: &[String],
        round: Option<OffsetDateTime>,
        under: [u8; 32],
    ) -> Result<(), sqlx::Error> {
        let dirty: Vec<(&String, &Planned)> = self.polls.iter().filter(|(_, p)| p.dirty).collect();
        if dirty.is_empty() && gone.is_empty() {
            return Ok(());
        }
        let mut tx = database.workspace(self.workspace).await?;
        // One after the other with whoever makes polls due: what of it is not seen here comes after.
        let wished = super::lock(&mut tx, self.workspace, self.source).await?.filter(|at| Some(*at) != round);
        let holds = sqlx::query_scalar!(
            r#"SELECT COALESCE(sha256(secret) = $3, false) AS "holds!" FROM sources
                WHERE workspace_id = $1 AND source_id = $2"#,
            self.workspace.uuid(),
            self.source.uuid(),
            &under
        )
        .fetch_optional(&mut *tx)
        .await?;
        if holds != Some(true) {
            // What another key was refused says nothing of the one that there is now.
            return Ok(());
        }
        let due_at = |planned: &Planned| match wished {
            Some(wished) if !planned.is_stopped() => wished.min(planned.due_at),
            _ => planned.due_at,
        };
        sqlx::query!(
            "INSERT INTO polls (workspace_id, source_id, poll, due_at, answered_at, requests, hot, failures, refused)
             SELECT $1, $2, * FROM unnest($3::text[], $4::timestamptz[], $5::timestamptz[], $6::int4[], $7::bool[],
                                          $8::int4[], $9::text[])
             ON CONFLICT (workspace_id, source_id, poll) DO UPDATE
                SET due_at = excluded.due_at, answered_at = excluded.answered_at, requests = excluded.requests,
                    hot = excluded.hot, failures = excluded.failures, refused = excluded.refused",
            self.workspace.uuid(),
            self.source.uuid(),
            &dirty.iter().map(|(name, _)| (*name).clone()).collect::<Vec<_>>(),
            &dirty.iter().map(|(_, p)| due_at(p)).collect::<Vec<_>>(),
            &dirty.iter().map(|(_, p)| p.answered_at).collect::<Vec<_>>() as &[Option<OffsetDateTime>],
            &dirty.iter().map(|(_, p)| p.requests).collect::<Vec<_>>(),
            &dirty.iter().map(|(_, p)| p.hot).collect::<Vec<_>>(),
            &dirty.iter().map(|(_, p)| p.failures).collect::<Vec<_>>(),
            &dirty.iter().map(|(_, p)| p.refused.clone()).collect::<Vec<_>>() as &[Option<String>]
        )
        .execute(&mut *tx)
        .await?;
        sqlx::query!(
            "DELETE FROM polls WHERE workspace_id = $1 AND source_id = $2 AND poll = ANY($3)",
            self.workspace.uuid(),
            self.source.uuid(),
            gone
        )
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        for planned in self.polls.values_mut() {
            planned.dirty = false;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn plan(polls: &[(&str, i32)]) -> Plan {
        let now = OffsetDateTime::UNIX_EPOCH;
        let mut plan = Plan {
            workspace: WorkspaceId::new(),
            source: SourceId::new(),
            store: Store::AppStore,
            polls: BTreeMap::new(),
        };
        plan.want(polls.iter().map(|(name, _)| (*name).to_owned()), now);
        for (name, requests) in polls {
            plan.answered(name, now, *requests as u64);
        }
        plan
    }

    fn settled(plan: &mut Plan, hot: &[(Kind, &str)], allowance: u32) {
        let hot = hot.iter().map(|(kind, scope)| (*kind, (*scope).to_owned())).collect();
        let all = plan.polls.keys().cloned().collect();
        let allowance = Allowance { requests: allowance, window: HOUR };
        plan.settle(&hot, &PollingSettings::default(), allowance, &all, || 0.0);
    }

    fn due_after(plan: &Plan, poll: &str) -> i64 {
        (plan.polls[poll].due_at - OffsetDateTime::UNIX_EPOCH).whole_seconds()
    }

    #[test]
    fn a_first_look_at_all_builds_tells_the_newest_once() {
        let mut plan = plan(&[("apps", 1), ("builds", 1)]);
        plan.want(["recent_builds".to_owned()], OffsetDateTime::UNIX_EPOCH);
        let all = HashSet::from(["apps".to_owned(), "builds".to_owned()]);
        assert_eq!(plan.told_by_the_whole("recent_builds", &all), Some(OffsetDateTime::UNIX_EPOCH));
        assert_eq!(plan.told_by_the_whole("recent_builds", &HashSet::new()), None, "not in this round");
        assert_eq!(plan.told_by_the_whole("builds", &all), None, "nothing tells all that this does");
        plan.answered("recent_builds", OffsetDateTime::UNIX_EPOCH, 1);
        assert_eq!(plan.told_by_the_whole("recent_builds", &all), None, "no first look");
    }

    #[test]
    fn what_is_in_review_is_asked_for_within_a_minute_and_what_is_settled_within_the_hour() {
        let mut plan = plan(&[("apps", 1), ("availability:1", 1), ("versions:1", 1), ("versions:2", 1)]);
        settled(&mut plan, &[(Kind::PhasedRelease, "1")], 2800);
        assert_eq!(due_after(&plan, "versions:1"), 50);
        assert_eq!(due_after(&plan, "versions:2"), 3300);
        assert_eq!(due_after(&plan, "availability:1"), 3300);
        assert_eq!(plan.due(OffsetDateTime::UNIX_EPOCH + HOUR)[0], "versions:1", "the hot ones come first");
    }

    #[test]
    fn where_the_budget_does_not_cover_them_the_hot_polls_are_what_gives() {
        let mut plan = plan(&[("recent_builds", 25), ("versions:1", 25)]);
        settled(&mut plan, &[(Kind::Build, "1"), (Kind::PhasedRelease, "1")], 2800);
        // 50 requests a round, 2,800 an hour: one each 64 s on average, which is by half of a tenth sooner than this.
        assert_eq!(due_after(&plan, "recent_builds"), 67);
        let mut poor = self::plan(&[("recent_builds", 200), ("availability:1", 5000)]);
        settled(&mut poor, &[(Kind::Build, "1")], 2800);
        assert_eq!(due_after(&poor, "recent_builds"), 2706, "a tenth of the budget is theirs in any case");
    }

    #[test]
    fn the_reserve_of_the_largest_limit_is_a_number() {
        let of = |requests| Allowance { requests, window: HOUR }.reserve();
        assert_eq!((of(2800), of(u32::MAX), of(0)), (140, 214_748_364, 0));
    }

    #[test]
    fn a_round_knows_when_what_is_hot_is_due_again() {
        let mut plan = plan(&[("availability:1", 1), ("versions:1", 1), ("versions:2", 1)]);
        settled(&mut plan, &[(Kind::PhasedRelease, "1")], 2800);
        let at = |s| OffsetDateTime::UNIX_EPOCH + Duration::from_secs(s);
        let allowance = Allowance { requests: 2800, window: HOUR };
        let is_due = |plan: &Plan, s, answered: &[&str]| {
            let answered = answered.iter().map(|name| (*name).to_owned()).collect();
            plan.hot_is_due(at(s), &answered, &PollingSettings::default(), allowance)
        };
        assert!(!is_due(&plan, 49, &[]));
        assert!(is_due(&plan, 50, &[]));
        assert!(!is_due(&plan, 44, &["versions:1"]));
        assert!(is_due(&plan, 45, &["versions:1"]), "as early as it may be due once the round is settled");
        // What is settled interrupts nothing, however long it is overdue.
        settled(&mut plan, &[], 2800);
        assert!(!is_due(&plan, 9000, &[]));
    }

    #[test]
    fn a_poll_that_turns_hot_is_due_at_once_and_one_that_cools_down_is_not_put_off() {
        let mut plan = plan(&[("versions:1", 1)]);
        settled(&mut plan, &[], 2800);
        assert_eq!(due_after(&plan, "versions:1"), 3300);
        let hot = HashSet::from([(Kind::PhasedRelease, "1".to_owned())]);
        let allowance = Allowance { requests: 2800, window: HOUR };
        plan.settle(&hot, &PollingSettings::default(), allowance, &HashSet::new(), || 0.0);
        assert_eq!(due_after(&plan, "versions:1"), 50);
        plan.settle(&HashSet::new(), &PollingSettings::default(), allowance, &HashSet::new(), || 0.0);
        assert_eq!(due_after(&plan, "versions:1"), 50);
    }

    #[test]
    fn a_poll_that_fails_is_due_later_each_time_until_its_kind_is_answered() {
        let (start, settings) = (OffsetDateTime::UNIX_EPOCH, PollingSettings::default());
        let mut plan = plan(&[("uploads:1", 1), ("uploads:2", 1), ("versions:1", 1)]);
        let mut waits = Vec::new();
        for _ in 0..7 {
            plan.failed("uploads:1", start, &settings, 0.0);
            waits.push(due_after(&plan, "uploads:1"));
        }
        assert_eq!(waits, [50, 100, 200, 400, 800, 900, 900]);
        plan.failed("uploads:1", start, &settings, 1.0);
        assert_eq!(due_after(&plan, "uploads:1"), 990);
        assert_eq!(plan.failing(), ["uploads:1"]);
        assert_eq!(plan.due(start + HOUR), ["uploads:2", "versions:1", "uploads:1"]);
        plan.failed("versions:1", start, &settings, 0.0);
        plan.recovered("uploads", start);
        assert_eq!((due_after(&plan, "uploads:1"), due_after(&plan, "versions:1")), (0, 50));
        assert!(plan.has_failed("uploads:1") && !plan.has_failed("uploads:2"));
        // That it turns hot while it fails hurries nobody.
        plan.failed("uploads:1", start, &settings, 0.0);
        let hot = HashSet::from([(Kind::BuildUpload, "1".to_owned())]);
        let allowance = Allowance { requests: 2800, window: HOUR };
        plan.settle(&HashSet::new(), &settings, allowance, &HashSet::new(), || 0.0);
        plan.settle(&hot, &settings, allowance, &HashSet::new(), || 0.0);
        assert_eq!(due_after(&plan, "uploads:1"), 900);
    }

    #[test]
    fn another_list_tells_whether_it_is_the_key_that_is_refused() {
        let mut plan = plan(&[("apps", 1), ("versions:1", 1), ("uploads:1", 1), ("uploads:2", 1)]);
        let queue = ["builds".to_owned(), "reviews".to_owned()];
        assert_eq!(plan.another("versions:1", &queue).as_deref(), Some("apps"));
        assert_eq!(plan.another("apps", &queue).as_deref(), Some("reviews"), "the end of it is next");
        let at = |s| OffsetDateTime::UNIX_EPOCH + Duration::from_secs(s);
        plan.answered("versions:1", at(10), 1);
        plan.answered("uploads:1", at(20), 1);
        plan.refused("uploads:1", "FORBIDDEN", at(21));
        plan.answered("apps", at(30), 1);
        assert_eq!(plan.another("apps", &[]).as_deref(), Some("versions:1"));
        let mut alone = self::plan(&[]);
        alone.want(["apps".to_owned()], at(0));
        assert_eq!(alone.another("apps", &[]), None);
        assert!(!alone.was_ever_answered() && plan.was_ever_answered());
    }

    #[test]
    fn an_app_that_is_gone_takes_its_polls_along_and_no_others() {
        let mut plan =
            plan(&[("apps", 1), ("versions:1", 1), ("versions:12", 1), ("releases:1/production", 1)]);
        assert_eq!(plan.forget("1"), ["releases:1/production", "versions:1"]);
        assert_eq!(plan.polls.keys().collect::<Vec<_>>(), ["apps", "versions:12"]);
    }
}
