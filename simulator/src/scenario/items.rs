//! What all resources of App Store Connect in a scenario have in common: an id, something they hang on, and
//! facts that change.

use time::OffsetDateTime;

use crate::scenario::{AppStoreTeam, ScenarioError};

/// What a store says of one attribute of one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fact {
    /// The JSON:API type, or `releases` for Google Play.
    pub(crate) resource: &'static str,
    pub(crate) id: String,
    pub(crate) attribute: &'static str,
    pub(crate) value: String,
}

impl Fact {
    pub(crate) fn new(
        resource: &'static str,
        id: &str,
        attribute: &'static str,
        value: impl ToString,
    ) -> Self {
        Self { resource, id: id.to_owned(), attribute, value: value.to_string() }
    }
}

/// A resource in one of a team's lists.
pub(crate) trait Item: Clone {
    /// Its JSON:API type.
    const KIND: &'static str;

    /// What it hangs on, in the words of an error.
    const PARENT: &'static str;

    /// The store's id, unique over all teams.
    fn id(&self) -> &str;

    /// The id of what it hangs on.
    fn parent(&self) -> &str;

    /// Whether what it hangs on belongs to a team.
    fn hangs_in(&self, team: &AppStoreTeam) -> bool {
        team.apps.iter().any(|app| app.id == self.parent())
    }

    /// Whether its values but its state are ones that the store gives.
    fn check(&self) -> Result<(), ScenarioError>;

    /// What else it names: what that is, whether the team has it, and its id.
    fn refers_to(&self, _team: &AppStoreTeam) -> Vec<(&'static str, bool, String)> {
        Vec::new()
    }

    /// Fills in the dates that follow from when the simulator learned of it.
    fn appear(&mut self, _now: OffsetDateTime) {}

    /// Its state: what it is called in an error, the values that the store gives, and the state itself.
    fn state_mut(&mut self) -> Option<(&'static str, &'static [&'static str], &mut String)>;

    /// What the store says of it. `old` is whether versions carry only the deprecated attribute.
    fn facts(&self, old: bool) -> Vec<Fact>;

    /// A team's list of them.
    fn list(team: &AppStoreTeam) -> &Vec<Self>;

    /// The same, to change it.
    fn list_mut(team: &mut AppStoreTeam) -> &mut Vec<Self>;
}

/// The lists of one type of resource.
macro_rules! listed {
    ($field:ident) => {
        fn list(team: &AppStoreTeam) -> &Vec<Self> {
            &team.$field
        }

        fn list_mut(team: &mut AppStoreTeam) -> &mut Vec<Self> {
            &mut team.$field
        }
    };
}

pub(super) use listed;
