//! What was asked of the simulator, so that a test can show that nothing else was.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

/// How many requests are remembered; a demo may run for weeks.
const REMEMBERED: usize = 65_536;

/// A request, as it came over the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedRequest {
    /// When it came.
    pub at: Instant,
    /// Its method.
    pub method: String,
    /// Its path, still percent-encoded.
    pub path: String,
    /// Its query, still percent-encoded, without the question mark; empty where there is none.
    pub query: String,
    /// The path's template in the store's description; `None` for a path that no description has.
    pub operation: Option<&'static str>,
    /// The id of the key that its token names, whether or not it holds; `None` without a token, or where that names none.
    pub key: Option<String>,
    /// The status of the answer; 0 where the connection was cut.
    pub status: u16,
}

/// The last requests, and how many there were.
#[derive(Debug, Default)]
pub(crate) struct Record {
    requests: VecDeque<RecordedRequest>,
    count: u64,
    by_key: HashMap<String, u64>,
}

impl Record {
    pub(crate) fn push(&mut self, request: RecordedRequest) {
        if self.requests.len() == REMEMBERED {
            self.requests.pop_front();
        }
        if let Some(key) = &request.key {
            match self.by_key.get_mut(key) {
                Some(count) => *count += 1,
                None => drop(self.by_key.insert(key.clone(), 1)),
            }
        }
        self.requests.push_back(request);
        self.count += 1;
    }

    pub(crate) fn all(&self) -> Vec<RecordedRequest> {
        self.requests.iter().cloned().collect()
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn by_key(&self) -> HashMap<String, u64> {
        self.by_key.clone()
    }
}
