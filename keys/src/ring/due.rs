//! What the ring needs done, and when.

use statusledger_verify::time::Timestamp;

use super::{REPUBLISH_BEFORE_DAYS, ROTATION_DAYS, Ring, WARNING_DAYS};
use crate::signing::KeyPurpose;

const DAY_SECONDS: i64 = 86_400;

/// Work that a ring needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DueWork {
    /// [`Ring::rotate`] the receipt or the checkpoint key.
    Rotate(KeyPurpose),
    /// [`Ring::republish`] the manifest before it expires. A rotation does that too.
    Republish,
}

/// One piece of work, due now or announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// What to do.
    pub work: DueWork,
    /// From when on.
    pub at: Timestamp,
    /// Whether that time has come; otherwise this is the announcement, [`WARNING_DAYS`] days ahead at most.
    pub now: bool,
    /// Whether it needs the root's file, and so a person.
    pub root_is_offline: bool,
}

impl Ring {
    /// What is due, and what will be within [`WARNING_DAYS`] days, earliest first.
    pub fn due(&self, now: Timestamp) -> Vec<Due> {
        let rotation = |purpose| {
            let at = days_after(self.current(purpose).not_before, ROTATION_DAYS);
            (DueWork::Rotate(purpose), at)
        };
        let republish = (DueWork::Republish, days_after(self.expires(), -REPUBLISH_BEFORE_DAYS));
        let mut due: Vec<Due> = [rotation(KeyPurpose::Receipt), rotation(KeyPurpose::Checkpoint), republish]
            .into_iter()
            .filter(|(_, at)| days_after(*at, -WARNING_DAYS) <= now)
            .map(|(work, at)| Due { work, at, now: at <= now, root_is_offline: self.root_is_offline() })
            .collect();
        due.sort_by_key(|due| due.at);
        due
    }
}

/// A time that many days later; the same time where the format has no such time, so that work at the end of
/// all time is due early rather than never.
fn days_after(time: Timestamp, days: i64) -> Timestamp {
    time.plus_seconds(days * DAY_SECONDS).unwrap_or(time)
}
