//! What comes next: the scenario's own steps and the churn's, in the order of their times.

use std::collections::VecDeque;

use crate::churn::Course;
use crate::scenario::{Scenario, ScenarioError, Step, TimedStep};

/// The steps that have not been taken.
#[derive(Debug)]
pub(crate) struct Timeline {
    scripted: VecDeque<TimedStep>,
    course: Option<Course>,
}

impl Timeline {
    pub(crate) fn new(scenario: &Scenario) -> Result<Self, ScenarioError> {
        let mut scripted = scenario.steps.clone();
        if scripted.iter().any(|step| !step.at.is_finite() || step.at < 0.0) {
            return Err(ScenarioError::Number("the time of a step is not a number from 0 on"));
        }
        scripted.sort_by(|one, other| one.at.total_cmp(&other.at));
        let course = match &scenario.churn {
            Some(churn) => {
                // A dwell of nothing would put the whole endless course into one moment.
                if !(churn.dwell[0] > 0.0 && churn.dwell[0] <= churn.dwell[1] && churn.dwell[1].is_finite()) {
                    return Err(ScenarioError::Number("the churn's dwell is not a range above 0"));
                }
                if !(0.0..1.0).contains(&churn.rejection) {
                    return Err(ScenarioError::Number("the churn's rejection is not from 0 to below 1"));
                }
                Some(Course::new(scenario, churn))
            }
            None => None,
        };
        Ok(Self { scripted: scripted.into(), course })
    }

    /// When the next steps are due, in scenario seconds.
    pub(crate) fn next_at(&self) -> Option<f64> {
        let scripted = self.scripted.front().map(|step| step.at);
        let churned = self.course.as_ref().and_then(Course::next_at);
        match (scripted, churned) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    /// The next steps, if they are due by then, with the time at which they are.
    pub(crate) fn due(&mut self, now: f64) -> Option<(f64, Vec<Step>)> {
        let at = self.next_at().filter(|at| *at <= now)?;
        if let Some(step) = self.scripted.pop_front_if(|step| step.at <= at) {
            return Some((step.at, vec![step.step]));
        }
        Some((at, self.course.as_mut()?.advance()))
    }
}
