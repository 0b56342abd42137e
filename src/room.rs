//! Memory that is given out by the byte, so that there is a bound to it.
//!
//! Whoever is about to hold something large takes room for it first and gives it back by dropping what was given. Where
//! there is none, a request is refused at once (503, `Retry-After`), and a delivery is left in the database until its turn.
//! Nobody waits for room: what waits costs memory too.

use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bodies of requests that a node holds at once. What a request costs besides its body is a multiple of it
/// (docs/operations.md, "Under load").
pub const REQUESTS: usize = 32 << 20;
/// Entries and openings that wait for the dispatcher. What has no room is read from the database.
pub const DELIVERIES: usize = 32 << 20;
/// What a request counts as at least: its head, its task, its place in a batch. So many small ones are as many as
/// [`REQUESTS`] has room for: 2,048.
const LEAST: usize = 16 << 10;
/// Room is counted in these.
const UNIT: usize = 1 << 10;

/// So many bytes.
#[derive(Clone, Debug)]
pub struct Room(Arc<Semaphore>);

/// Some of them; free again when dropped.
#[derive(Debug)]
pub struct Taken(#[allow(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

impl Room {
    /// Room for `bytes`.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes / UNIT)))
    }

    /// Room for `bytes` more, if there is.
    #[must_use]
    pub fn take(&self, bytes: usize) -> Option<Taken> {
        let units = u32::try_from(bytes.max(LEAST).div_ceil(UNIT)).ok()?;
        Arc::clone(&self.0).try_acquire_many_owned(units).ok().map(Taken)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn there_is_room_for_so_many_bytes_and_it_is_free_again() {
        let room = Room::new(REQUESTS);
        let small: Vec<Taken> = std::iter::from_fn(|| room.take(1)).collect();
        assert_eq!(small.len(), 2048);
        assert!(room.take(0).is_none());
        drop(small);
        let large: Vec<Taken> = std::iter::from_fn(|| room.take(1 << 20)).collect();
        assert_eq!(large.len(), 32);
        drop(large);
        assert!(room.take(REQUESTS + 1).is_none());
        assert!(room.take(REQUESTS).is_some());
    }
}
