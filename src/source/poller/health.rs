//! How a source fares, found out at the end of each round.

use super::client::Client;
use super::plan::{Plan, kind_of};
use super::round::Outcome;
use super::{Due, LONG_WAIT, Poller, REFUSALS, Station, Unusable};
use crate::source::fetch::{ForbiddenCause, StoreError};
use crate::source::google_play::edits::{TAKEN_OVER, TAKEN_OVER_ADVICE};
use crate::source::{self, Health};
use std::collections::BTreeSet;
use std::time::Duration;
use time::OffsetDateTime;

/// How far the clocks may be apart before that is told: what tokens can bear.
const MOST_SKEW: time::Duration = time::Duration::seconds(45);

impl Poller {
    /// Notes when the key was last used, and the store's word on its limit.
    pub(super) async fn note_round(
        &self,
        due: &Due,
        client: &Client,
        under: [u8; 32],
    ) -> Result<(), sqlx::Error> {
        let rate = client.rate();
        let number = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
        let mut tx = self.database.workspace(due.workspace).await?;
        sqlx::query!(
            "UPDATE sources SET last_polled_at = $3, rate_limit = COALESCE($4, rate_limit),
                    rate_remaining = COALESCE($5, rate_remaining),
                    rate_at = CASE WHEN $4::int4 IS NULL THEN rate_at ELSE $3 END
              WHERE workspace_id = $1 AND source_id = $2 AND sha256(secret) = $6",
            due.workspace.uuid(),
            due.source.uuid(),
            OffsetDateTime::now_utc(),
            rate.map(|r| number(r.limit)),
            rate.map(|r| number(r.remaining)),
            &under
        )
        .execute(&mut *tx)
        .await?;
        tx.commit().await
    }

    /// Finds out how the source fares, and tells it where that is news.
    pub(super) async fn judge(
        &self,
        due: &Due,
        station: &mut Station,
        plan: &Plan,
        outcome: &Outcome,
    ) -> Result<(), Unusable> {
        let error = outcome.ended.as_ref();
        if outcome.is_silent() {
            // Nothing was due: what is known of the key is what it was.
            return Ok(());
        }
        if matches!(error, Some(StoreError::Unauthorized { .. })) {
            (station.refusals, station.unheard) = (station.refusals + 1, 0);
        } else if outcome.heard || matches!(error, Some(StoreError::Forbidden { .. })) {
            // The store knows it. That it does not answer, or is not asked, says nothing of the key.
            station.refusals = 0;
        }
        if outcome.failed.is_some() {
            station.why.clone_from(&outcome.failed);
        }
        let (refused, failing) = (plan.refusals(), plan.failing());
        let long =
            error.and_then(StoreError::retry_after).filter(|wait| *wait > self.settings.scaled(LONG_WAIT));
        let skew = station.client.contact().skew.filter(|skew| skew.abs() > MOST_SKEW);
        let (health, detail) = match error {
            // Its own pace is no trouble of the store's, unless it is a standstill.
            Some(StoreError::BudgetSpent { .. }) if long.is_none() => return Ok(()),
            Some(e) => {
                let health = match e {
                    StoreError::Unauthorized { .. } if station.refusals >= REFUSALS => Health::Refused,
                    StoreError::Unauthorized { .. } => Health::Suspect,
                    StoreError::Forbidden { cause: ForbiddenCause::Agreements, .. } => {
                        Health::AgreementsMissing
                    }
                    StoreError::Forbidden { .. } => Health::RoleTooSmall,
                    _ => Health::Degraded,
                };
                let never = matches!(e, StoreError::Unauthorized { .. })
                    && !plan.was_ever_answered()
                    && !outcome.heard;
                let detail = match long {
                    Some(wait) => format!("{e}; it is asked again in {} min", minutes(wait)),
                    None if never => format!("{e}; it has not accepted it yet"),
                    None => e.to_string(),
                };
                (health, Some(detail))
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
                let why = station.why.as_deref().unwrap_or("it cannot be read");
                (Health::Degraded, Some(format!("of {}: {why}", kinds(&failing))))
            }
            None if !refused.is_empty() => {
                (Health::RoleTooSmall, Some(format!("the key may not read: {}", kinds(&refused))))
            }
            // It failed once.
            None if outcome.failed.is_some() => return Ok(()),
            None => (Health::Ok, None),
        };
        if health == Health::Degraded && station.refusals > 0 {
            // Both are true, the key's refusal is the older news, and each in turn would be an entry a round.
            station.unheard += 1;
            if station.unheard < REFUSALS {
                return Ok(());
            }
            station.refusals = 0;
        }
        // One failure of a store is not worth telling; a second in a row is, and one that lasts.
        let worth = health != Health::Degraded
            || error.is_none()
            || long.is_some()
            || station.failing.failures() >= 2
            || !failing.is_empty();
        let told = (health, detail);
        if worth && station.health.as_ref() != Some(&told) {
            let (under, detail) = (Some(station.under), told.1.as_deref());
            source::set_health(&self.writer, due.workspace, due.source, told.0, detail, under).await?;
            station.health = Some(told);
        }
        Ok(())
    }
}

/// A wait in whole minutes, rounded up.
const fn minutes(wait: Duration) -> u64 {
    wait.as_secs().div_ceil(60)
}

/// What polls are about, without the apps.
fn kinds(polls: &[&str]) -> String {
    let kinds: BTreeSet<&str> = polls.iter().map(|poll| kind_of(poll)).collect();
    kinds.into_iter().collect::<Vec<_>>().join(", ")
}
