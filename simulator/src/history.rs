//! Every state change that was applied, in order: what a test holds against what a client found out.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};

use crate::scenario::Fact;

/// How many changes are remembered; a demo may run for weeks.
const REMEMBERED: usize = 131_072;

/// A change of one attribute of one resource, in what the stores hold.
#[derive(Clone, Debug, PartialEq)]
pub struct StateChange {
    /// When, in scenario seconds from the start; what a scenario begins with is at 0.
    pub at: f64,
    /// The JSON:API type as App Store Connect writes it, or `releases` for Google Play.
    pub resource: &'static str,
    /// The id on the wire; of a Play release `package/track/codes`, with commas between the version codes.
    pub id: String,
    /// The attribute on the wire; `state` of an upload is `state.state`'s value.
    pub attribute: &'static str,
    /// The value before; `None` where the resource (or the attribute) appears.
    pub from: Option<String>,
    /// The value after; `None` where it is gone. Numbers and booleans are as JSON writes them, several values
    /// stand with commas between them.
    pub to: Option<String>,
}

/// The last changes, and what was said before the last change of each attribute.
#[derive(Debug, Default)]
pub(crate) struct History {
    changes: VecDeque<StateChange>,
    previous: HashMap<(String, String), Vec<(&'static str, String)>>,
}

impl History {
    /// Remembers what differs between two tellings of the same resources, and gives it back.
    pub(crate) fn record(&mut self, at: f64, before: Vec<Fact>, after: &[Fact]) -> Vec<StateChange> {
        let mut changes = Vec::new();
        let same = |one: &Fact, other: &Fact| {
            (one.resource, &one.id, one.attribute) == (other.resource, &other.id, other.attribute)
        };
        let mut change = |fact: &Fact, from: Option<String>, to: Option<String>| {
            let Fact { resource, id, attribute, .. } = fact;
            changes.push(StateChange { at, resource, id: id.clone(), attribute, from, to });
        };
        for fact in after {
            let old = before.iter().find(|old| same(old, fact)).map(|old| old.value.clone());
            if old.as_ref() != Some(&fact.value) {
                change(fact, old, Some(fact.value.clone()));
            }
        }
        for fact in before {
            if !after.iter().any(|new| same(new, &fact)) {
                change(&fact, Some(fact.value.clone()), None);
            }
        }
        for change in &changes {
            self.remember(change.clone());
        }
        changes
    }

    fn remember(&mut self, change: StateChange) {
        let key = (change.resource.to_owned(), change.id.clone());
        match (&change.from, &change.to) {
            (Some(from), Some(_)) => {
                let told = self.previous.entry(key).or_default();
                told.retain(|(attribute, _)| *attribute != change.attribute);
                told.push((change.attribute, from.clone()));
            }
            // What is gone has no past: it would pile up, and it may come back as something else.
            (_, None) => {
                if let Entry::Occupied(mut told) = self.previous.entry(key) {
                    told.get_mut().retain(|(attribute, _)| *attribute != change.attribute);
                    if told.get().is_empty() {
                        told.remove();
                    }
                }
            }
            (None, Some(_)) => {}
        }
        if self.changes.len() == REMEMBERED {
            self.changes.pop_front();
        }
        self.changes.push_back(change);
    }

    /// What the attributes of a resource were before each one's last change.
    pub(crate) fn previous(&self, resource: &str, id: &str) -> &[(&'static str, String)] {
        self.previous.get(&(resource.to_owned(), id.to_owned())).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn all(&self) -> Vec<StateChange> {
        self.changes.iter().cloned().collect()
    }
}
