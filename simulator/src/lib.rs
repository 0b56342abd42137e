//! App Store Connect and Google Play as their wire protocols are, scripted: for the demo, for tests, and for
//! whoever writes a client.
//!
//! It is a real HTTP server on 127.0.0.1 that checks tokens, counts quotas, pages, filters and fails as the
//! stores do, over a world that a [`Scenario`] describes and [`Step`]s change. It covers the reads of all that
//! has a status in either store, Google Play's edits as far as they read, and App Store Connect's webhooks,
//! which it sends. What it does not implement of the stores' descriptions it refuses, rather than to ignore it.
//!
//! - [`scenario`]: what the stores hold, and what happens when
//! - [`values`]: the values that the stores know
//! - [`faults`]: the ways in which they answer wrongly
//! - [`churn`]: releases that go on by themselves
//! - [`keys`]: the stores' credentials
//! - [`simulator`]: the running whole

mod app_store;
pub mod churn;
mod clock;
mod demo;
mod distort;
pub mod faults;
mod google_play;
mod history;
pub mod keys;
mod postman;
mod quota;
mod random;
mod record;
pub mod scenario;
mod server;
pub mod simulator;
mod timeline;
pub mod values;
mod world;

pub use faults::{Fault, FaultKind, Service};
pub use history::StateChange;
pub use keys::AppStoreKey;
pub use record::RecordedRequest;
pub use scenario::{PingShape, Scenario, ScenarioError, Step};
pub use simulator::{Options, Simulator, SimulatorError};
pub use world::WebhookDelivery;
