//! What is sold, in its review that never ends.

use crate::churn::Churn;
use crate::random::Random;
use crate::scenario::{InAppPurchase, Item, Scenario, Step, Subscription};

/// An in-app purchase or a subscription.
#[derive(Debug)]
pub(super) struct SaleLine {
    resource: &'static str,
    id: String,
    state: String,
}

pub(super) fn sale_lines(scenario: &Scenario) -> Vec<SaleLine> {
    let teams = || scenario.app_store.iter();
    let line =
        |resource, id: &String, state: &String| SaleLine { resource, id: id.clone(), state: state.clone() };
    let purchases = teams().flat_map(|team| &team.in_app_purchases);
    let subscriptions = teams().flat_map(|team| &team.subscriptions);
    purchases
        .map(|known| line(InAppPurchase::KIND, &known.id, &known.state))
        .chain(subscriptions.map(|known| line(Subscription::KIND, &known.id, &known.state)))
        .collect()
}

impl SaleLine {
    pub(super) fn advance(&mut self, random: &mut Random, churn: &Churn) -> Step {
        let state = match self.state.as_str() {
            "WAITING_FOR_REVIEW" => "IN_REVIEW",
            "IN_REVIEW" if random.chance(churn.rejection) => "REJECTED",
            "IN_REVIEW" => "APPROVED",
            _ => "WAITING_FOR_REVIEW",
        };
        state.clone_into(&mut self.state);
        Step::State { resource: self.resource.to_owned(), id: self.id.clone(), state: state.to_owned() }
    }
}
