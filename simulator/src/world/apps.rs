//! Apps that come, go and are transferred, each with all that hangs on it.

use crate::scenario::{App, AppStoreTeam, Fact, Item, ScenarioError};
use crate::world::{World, duplicate, missing};

/// An app that left a team.
#[derive(Debug)]
pub(super) struct Away {
    app: String,
    /// The team that it left.
    team: String,
    /// What was taken with it; `None` where another team has it.
    kept: Option<AppStoreTeam>,
}

/// Does the same with every list of resources that hang on an app.
macro_rules! each_list {
    ($do:ident) => {
        $do!(
            versions,
            builds,
            beta_reviews,
            build_uploads,
            review_submissions,
            review_items,
            app_infos,
            in_app_purchases,
            subscription_groups,
            subscriptions,
            app_events,
            availabilities,
            webhooks
        )
    };
}

impl World {
    pub(super) fn add_app(&mut self, team: &str, app: App) -> Result<(), ScenarioError> {
        if self.teams.iter().any(|team| team.apps.iter().any(|known| known.id == app.id)) {
            return Err(duplicate("app", &app.id));
        }
        let found = self.teams.iter_mut().find(|known| known.name == team);
        found.ok_or_else(|| missing("team", team))?.apps.push(app);
        Ok(())
    }

    pub(super) fn remove_app(&mut self, id: &str, at: f64) -> Result<(), ScenarioError> {
        let (team, kept) = self.take_app(id, at)?;
        self.put_aside(Away { app: id.to_owned(), team, kept: Some(kept) });
        Ok(())
    }

    pub(super) fn transfer_app(&mut self, id: &str, to: Option<&str>, at: f64) -> Result<(), ScenarioError> {
        let Some(to) = to else { return self.remove_app(id, at) };
        let to = self.team_named(to)?;
        let (team, taken) = self.take_app(id, at)?;
        self.put_app(to, taken, at);
        self.put_aside(Away { app: id.to_owned(), team, kept: None });
        Ok(())
    }

    pub(super) fn return_app(&mut self, id: &str, at: f64) -> Result<(), ScenarioError> {
        let place = self.away.iter().position(|away| away.app == id);
        let place = place.ok_or_else(|| missing("app that left", id))?;
        let to = self.team_named(&self.away[place].team)?;
        let there = self.teams.iter().any(|team| team.apps.iter().any(|app| app.id == id));
        if self.away[place].kept.is_some() && there {
            return Err(duplicate("app", id));
        }
        let taken = match self.away[place].kept.take() {
            Some(kept) => kept,
            None => self.take_app(id, at)?.1,
        };
        self.away.remove(place);
        self.put_app(to, taken, at);
        Ok(())
    }

    fn team_named(&self, name: &str) -> Result<usize, ScenarioError> {
        self.teams.iter().position(|team| team.name == name).ok_or_else(|| missing("team", name))
    }

    /// Keeps what an app left behind; of several times that it left, the last counts.
    fn put_aside(&mut self, away: Away) {
        self.away.retain(|known| known.app != away.app);
        self.away.push(away);
    }

    /// Takes an app out of its team, with all that hangs on it.
    fn take_app(&mut self, id: &str, at: f64) -> Result<(String, AppStoreTeam), ScenarioError> {
        let found = self.teams.iter_mut().find(|team| team.apps.iter().any(|app| app.id == id));
        let team = found.ok_or_else(|| missing("app", id))?;
        let mut taken = AppStoreTeam {
            apps: team.apps.extract_if(.., |app| app.id == id).collect(),
            ..AppStoreTeam::default()
        };
        // In the order in which they hang on each other, so that each finds what it hangs on taken already.
        macro_rules! take {
            ($($list:ident),*) => {
                $(taken.$list = team.$list.extract_if(.., |item| item.hangs_in(&taken)).collect();)*
            };
        }
        each_list!(take);
        let (name, facts) = (team.name.clone(), all_facts(&taken, team.old_states));
        self.changed(at, facts, &[]);
        Ok((name, taken))
    }

    /// Puts an app into the team at a place, with all that hangs on it.
    fn put_app(&mut self, team: usize, mut app: AppStoreTeam, at: f64) {
        let team = &mut self.teams[team];
        let facts = all_facts(&app, team.old_states);
        team.apps.append(&mut app.apps);
        macro_rules! put {
            ($($list:ident),*) => {
                $(team.$list.append(&mut app.$list);)*
            };
        }
        each_list!(put);
        self.changed(at, Vec::new(), &facts);
    }
}

/// What the store says of all that hangs on an app.
fn all_facts(app: &AppStoreTeam, old_states: bool) -> Vec<Fact> {
    let mut facts = Vec::new();
    macro_rules! tell {
        ($($list:ident),*) => {
            $(facts.extend(app.$list.iter().flat_map(|item| item.facts(old_states)));)*
        };
    }
    each_list!(tell);
    facts
}
