//! What the ledger has to hold: the documented rules (docs/events.md, decisions 14 and 15) applied to what was served
//! and told, and nothing of how the service does it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use time::{Duration, OffsetDateTime};

/// The kind and the store's id.
pub type Subject = (&'static str, String);

/// How far the store's clock may be from ours.
const CLOCKS: Duration = Duration::seconds(10);

/// Between which times something was asked or told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    pub from: OffsetDateTime,
    pub to: OffsetDateTime,
}

impl Window {
    pub fn holds(&self, at: OffsetDateTime) -> bool {
        // Times in entries end at the microsecond.
        self.from - Duration::microseconds(1) <= at && at <= self.to
    }
}

/// An entry that has to be there.
#[derive(Clone, Debug)]
pub struct Expected {
    pub what: &'static str,
    pub from: Option<String>,
    pub to: Option<String>,
    pub via: &'static str,
    pub seen: Window,
    pub changed: BTreeSet<String>,
    pub event: Option<String>,
    pub late: bool,
}

#[derive(Clone, Debug)]
pub struct Known {
    pub state: String,
    facts: Value,
    previous: Option<String>,
    /// A state that goes back, and when it was said first.
    pending: Option<(String, Window)>,
    missing: u32,
    pub gone: bool,
    /// The app that it belongs to, by the store's id.
    app: Option<String>,
    since: OffsetDateTime,
    last_seen: OffsetDateTime,
    /// When the event that made this its state happened, by the store's clock.
    told_at: Option<OffsetDateTime>,
}

/// A transition that was recorded, for which no event has come yet.
struct Step {
    from: String,
    to: String,
    after: OffsetDateTime,
    seen: OffsetDateTime,
}

/// What an answer said of a subject.
#[derive(Clone, Debug)]
pub struct Sight {
    pub subject: Subject,
    pub app: String,
    pub state: String,
    pub facts: Value,
}

/// An event of the store's own webhooks.
#[derive(Clone, Debug)]
pub struct Told {
    pub id: String,
    pub subject: Subject,
    pub from: Option<String>,
    pub to: String,
    pub at: OffsetDateTime,
}

/// What was in doubt after an answer, so that it has to be asked for by itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Doubt {
    pub subject: Subject,
    pub absent: bool,
}

/// The record as it has to be.
#[derive(Default)]
pub struct Oracle {
    pub known: BTreeMap<Subject, Known>,
    pub expected: BTreeMap<Subject, Vec<Expected>>,
    steps: BTreeMap<Subject, Vec<Step>>,
    /// Events that filled the record.
    late: BTreeMap<Subject, Vec<Told>>,
    taken: BTreeSet<String>,
}

impl Oracle {
    /// An answer said this. `direct` where it was asked for by itself. Answers whether it is in doubt.
    pub fn sight(&mut self, sight: &Sight, direct: bool, seen: Window) -> bool {
        let Some(known) = self.known.get_mut(&sight.subject) else {
            self.known.insert(sight.subject.clone(), Known::new(sight, seen));
            self.expect(&sight.subject, "first_seen", None, Some(&sight.state), seen, BTreeSet::new());
            return false;
        };
        let before = known.clone();
        known.app = Some(sight.app.clone());
        if before.gone {
            known.come_to(&sight.state, seen);
            known.facts = sight.facts.clone();
            let from = Some(before.state.as_str());
            self.expect(&sight.subject, "visible_again", from, Some(&sight.state), seen, BTreeSet::new());
            return false;
        }
        let mut first = seen;
        if before.state == sight.state {
            (known.missing, known.pending, known.last_seen) = (0, None, seen.from);
            if before.facts == sight.facts || before.facts.is_null() {
                // What was only told of has no facts yet: they are not others than before.
                known.facts = sight.facts.clone();
                return false;
            }
        } else {
            let again = before.pending.filter(|(pending, _)| *pending == sight.state);
            let back = before.previous.as_ref() == Some(&sight.state);
            match again {
                Some((_, said_first)) => first = said_first,
                None if back && !direct => {
                    known.pending = Some((sight.state.clone(), seen));
                    return true;
                }
                None => {}
            }
        }
        known.come_to(&sight.state, first);
        known.last_seen = seen.from;
        known.facts = sight.facts.clone();
        let from = before.state;
        let changed =
            if before.facts.is_null() { BTreeSet::new() } else { differing(&before.facts, &sight.facts) };
        self.expect(&sight.subject, "transitioned", Some(&from), Some(&sight.state), first, changed);
        let step = Step { from, to: sight.state.clone(), after: before.last_seen, seen: first.from };
        self.steps.entry(sight.subject.clone()).or_default().push(step);
        false
    }

    /// A complete listing of a kind, of an app or a part of one or (`None`) of everything, had these in it. Answers
    /// what has to be asked for by itself. `enough`: how many rounds with such listings in a row make an absence;
    /// `missed`: what was missing in this one already.
    pub fn listed(
        &mut self,
        kind: &'static str,
        app: Option<&str>,
        there: &BTreeSet<Subject>,
        enough: u32,
        missed: &mut BTreeSet<Subject>,
    ) -> Vec<Doubt> {
        let mut doubts = Vec::new();
        for (subject, known) in &mut self.known {
            let covered = subject.0 == kind && (app.is_none() || known.app.as_deref() == app);
            if covered && !known.gone && !there.contains(subject) && missed.insert(subject.clone()) {
                known.missing += 1;
                if known.missing >= enough {
                    doubts.push(Doubt { subject: subject.clone(), absent: true });
                }
            }
        }
        doubts
    }

    /// What was missing is not there. An app takes all that belongs to it along.
    pub fn gone(&mut self, subject: &Subject, seen: Window) {
        let Some(known) = self.known.get_mut(subject).filter(|known| !known.gone) else { return };
        known.leave();
        let from = known.state.clone();
        self.expect(subject, "no_longer_visible", Some(&from), None, seen, BTreeSet::new());
        if subject.0 == "app" {
            let part = format!("{}/", subject.1);
            let belongs = |app: &str| app == subject.1 || app.starts_with(&part);
            for known in self.known.values_mut().filter(|k| k.app.as_deref().is_some_and(belongs)) {
                known.leave();
            }
        }
    }

    /// The store told something.
    pub fn told(&mut self, told: &Told, via: &'static str, received: Window) {
        if !self.taken.insert(told.id.clone()) {
            return;
        }
        let at = told.at.min(received.to);
        let step = self.steps.entry(told.subject.clone()).or_default();
        let same = step.iter().position(|step| {
            step.to == told.to
                && told.from.as_ref().is_none_or(|from| *from == step.from)
                && step.after - CLOCKS <= at
                && at <= step.seen + CLOCKS
        });
        if let Some(place) = same {
            step.remove(place);
            return;
        }
        let known = self.known.get_mut(&told.subject);
        let late = known.as_ref().is_some_and(|known| known.had_moved_on(told, at));
        let from = match &known {
            Some(known) if !late => Some(known.state.clone()),
            _ => told.from.clone(),
        };
        match known {
            Some(known) if !late => known.told_of(&told.to, at),
            Some(_) => {
                let late = Told { at, ..told.clone() };
                self.late.entry(told.subject.clone()).or_default().push(late);
            }
            None => drop(self.known.insert(told.subject.clone(), Known::told(told, at))),
        }
        if !late {
            self.follow(told, at);
        }
        let expected = Expected {
            what: "transitioned",
            from,
            to: Some(told.to.clone()),
            via,
            seen: received,
            changed: BTreeSet::new(),
            event: Some(told.id.clone()),
            late,
        };
        self.expected.entry(told.subject.clone()).or_default().push(expected);
    }

    /// Events that left this state and came before the one that led to it are entries already: the state goes on by
    /// them.
    fn follow(&mut self, told: &Told, at: OffsetDateTime) {
        let Some(known) = self.known.get_mut(&told.subject) else { return };
        let mut late = self.late.get(&told.subject).cloned().unwrap_or_default();
        late.sort_by_key(|late| late.at);
        let (mut state, mut at) = (told.to.clone(), at);
        while let Some(place) = late.iter().position(|l| l.from.as_ref() == Some(&state) && l.at >= at) {
            let next = late.remove(place);
            known.told_of(&next.to, next.at);
            (state, at) = (next.to, next.at);
        }
    }

    fn expect(
        &mut self,
        subject: &Subject,
        what: &'static str,
        from: Option<&str>,
        to: Option<&str>,
        seen: Window,
        changed: BTreeSet<String>,
    ) {
        let (from, to) = (from.map(str::to_owned), to.map(str::to_owned));
        let expected = Expected { what, from, to, via: "poll", seen, changed, event: None, late: false };
        self.expected.entry(subject.clone()).or_default().push(expected);
    }
}

impl Known {
    fn new(sight: &Sight, seen: Window) -> Self {
        Self {
            state: sight.state.clone(),
            facts: sight.facts.clone(),
            previous: None,
            pending: None,
            missing: 0,
            gone: false,
            app: Some(sight.app.clone()),
            since: seen.from,
            last_seen: seen.from,
            told_at: None,
        }
    }

    /// What was told of and never seen.
    fn told(told: &Told, at: OffsetDateTime) -> Self {
        Self {
            state: told.to.clone(),
            facts: Value::Null,
            previous: told.from.clone(),
            pending: None,
            missing: 0,
            gone: false,
            app: None,
            since: at,
            last_seen: at,
            told_at: Some(at),
        }
    }

    fn come_to(&mut self, state: &str, seen: Window) {
        if self.state != state {
            self.previous = Some(std::mem::replace(&mut self.state, state.to_owned()));
        }
        (self.missing, self.pending, self.gone, self.told_at) = (0, None, false, None);
        (self.since, self.last_seen) = (seen.from, self.last_seen.max(seen.from));
    }

    /// Whether an answer had it, and not events alone.
    pub fn was_seen(&self) -> bool {
        self.app.is_some()
    }

    fn told_of(&mut self, state: &str, at: OffsetDateTime) {
        self.come_to(state, Window { from: at, to: at });
        self.told_at = Some(at);
    }

    fn leave(&mut self) {
        (self.missing, self.pending, self.gone) = (0, None, true);
    }

    /// Whether an event is of the time before this state: by the store's clock among events (of one moment, the second
    /// leaves the state of the first), by ours with ten seconds' allowance between events and polls, and by the state
    /// that it says it leaves.
    fn had_moved_on(&self, told: &Told, at: OffsetDateTime) -> bool {
        let leaves_it = told.from.as_ref() == Some(&self.state);
        if let Some(last) = self.told_at
            && (at < last || (at == last && !leaves_it))
        {
            return true;
        }
        if at > self.last_seen + CLOCKS || (self.told_at.is_some() && at + CLOCKS > self.last_seen) {
            return false;
        }
        match &told.from {
            Some(_) if leaves_it => at + CLOCKS < self.since,
            Some(_) => at <= self.last_seen || at <= self.since + CLOCKS,
            None => at <= self.last_seen || told.to == self.state,
        }
    }
}

fn differing(one: &Value, other: &Value) -> BTreeSet<String> {
    let names =
        |of: &Value| of.as_object().map(|o| o.keys().cloned().collect::<Vec<_>>()).unwrap_or_default();
    names(one).into_iter().chain(names(other)).filter(|name| one.get(name) != other.get(name)).collect()
}
