//! What one poll of a store brought.

use super::app_store::webhook::Event;
use crate::observation::{Kind, Observation};

/// The longest name of a poll, in characters: what its row takes.
pub const MAX_POLL: usize = 300;

/// The longest text of a store that is taken over into a description, in characters.
pub const MAX_TEXT: usize = 300;

/// A store's text as a description has it: what a database cannot keep is taken out, what is long is cut.
#[must_use]
pub fn kept(text: &str) -> String {
    text.chars().filter(|c| *c != '\0').take(MAX_TEXT).collect()
}

/// How likely it is that a state changes without the team's doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Heat {
    /// It rests until somebody does something.
    Settled,
    /// In review, processing or rolling out: the store is about to change it.
    Hot,
}

/// A listing that was walked to its end: of this kind and scope, what was not in it is absent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Covered {
    /// What was listed.
    pub kind: Kind,
    /// Of which app (see [`Observation::scope`]); none where it was of every app that the key sees.
    pub scope: Option<String>,
}

/// What one poll brought, also where it failed half-way: each observation is true by itself.
#[derive(Debug, Default)]
pub struct Look {
    /// What was said.
    pub observations: Vec<Observation>,
    /// What was listed to the end.
    pub covered: Vec<Covered>,
    /// Polls that there is reason for now, by name: those of each app that was seen, and what a listing was too long
    /// for. Polls of an app are named `what:scope`.
    pub polls: Vec<String>,
    /// What the store has told by itself, by its own list of that.
    pub told: Vec<Event>,
    /// Items that could not be read, and were left out.
    pub unread: u32,
}
