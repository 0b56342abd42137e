//! What the tests stand on: a cluster, a database each, nodes, receivers, the program itself.
//!
//! Everything waits for what it expects, with a deadline; nothing sleeps to let time pass.

mod api;
mod between;
mod cluster;
mod export;
mod held;
mod liar;
mod moto;
mod people;
mod program;
mod receiver;
mod replica;
mod wire;
mod world;

pub use api::{Answer, Api, Destination, Inbound, Workspace, send, try_send};
pub use between::{Between, Moment};
pub use cluster::{CONNECTIONS, TestDatabase, noted, prepare, temporary};
pub use export::{verify_export, verify_export_with_python};
pub use held::Held;
pub use liar::{Liar, Lie, Said};
pub use moto::Moto;
pub use people::Person;
pub use program::{Place, Program, run, spawn};
pub use receiver::{Hook, Receiver, Reply};
pub use replica::{Address, Server};
pub use wire::{Requests, proxy};
pub use world::{World, quick};

use std::future::Future;
use std::time::{Duration, Instant};

/// How long anything may take that has to happen.
pub const DEADLINE: Duration = Duration::from_secs(30);
/// How often a condition is looked at that cannot call by itself.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Looks until `condition` gives something.
///
/// # Panics
/// If it gives nothing within [`DEADLINE`]; `what` says what was waited for.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut condition: impl FnMut() -> F) -> T {
    eventually_within(DEADLINE, what, &mut condition).await
}

/// The same, with another deadline.
///
/// # Panics
/// If the condition gives nothing in time.
pub async fn eventually_within<T, F: Future<Output = Option<T>>>(
    deadline: Duration,
    what: &str,
    mut condition: impl FnMut() -> F,
) -> T {
    let end = Instant::now() + deadline;
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(Instant::now() < end, "waited {deadline:?} in vain: {what}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
