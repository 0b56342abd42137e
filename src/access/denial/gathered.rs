//! What was noted within a second, counted: bounded in memory, and so that nobody takes another's place.

use super::{Denial, FailedSignIn, Reason};
use crate::audit::{Actor, Record};
use crate::id::{KeyId, SessionId, SourceId, WorkspaceId};
use statusledger_verify::json::{Object, Value};
use statusledger_verify::time::Timestamp;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;

/// Different refusals that one party has room for in a second; beyond that they are counted as dropped.
pub(super) const EACH: usize = 256;
/// Different refusals of all parties in a second, some 500 bytes each.
const ALL: usize = 32_768;
/// Parties of which anything is kept in a second.
const PARTIES: usize = 4096;
/// Sources that were named and are not known to exist: whoever sends nonsense fills no more than this.
const UNKNOWN_SOURCES: usize = 256;
/// Different workspaces that are counted in one aggregate.
const ASKED: usize = 1000;
/// Different addresses that are told apart in one aggregate: as many, or more, are this many.
pub(super) const ADDRESSES: usize = 100;
/// Keys and sources whose workspaces are remembered; of sources half as many are known before anybody knocks.
pub(super) const REMEMBERED: usize = 10_000;
/// Keys and sessions in use that wait to be marked so.
const IN_USE: usize = 65_536;

/// In whose share a refusal is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Party {
    /// Whom it concerns.
    Ledger(WorkspaceId),
    /// Who asked; whom that concerns is looked up when it is written.
    Actor(Actor),
    /// A source whose workspace is looked up when it is written.
    Source(SourceId),
    /// Nobody is known.
    Nobody,
}

/// What is one entry: the same asked by the same, refused for the same. Where nobody is known the routes are one. Whose a
/// session is is looked up when it is written, and so is in whose ledger: what it asked of one workspace is not another's.
pub(super) type Kind = (Option<Actor>, Option<SourceId>, Reason, Option<String>, Option<WorkspaceId>);

/// Likewise of sign-ins: one way of signing in, one reason. A flood is one entry a second, whoever sends it.
type FailedKind = (&'static str, Option<String>, &'static str);

/// The same, so many times.
#[derive(Clone, Debug)]
pub(super) struct Counted<T> {
    pub(super) first: T,
    pub(super) count: u64,
    first_at: Timestamp,
    last_at: Timestamp,
    /// By route. There are no more than the document has.
    pub(super) routes: BTreeMap<String, u64>,
    /// Which workspaces were asked for, and which of them first.
    asked: HashSet<WorkspaceId>,
    pub(super) asked_first: Option<WorkspaceId>,
    /// From where: an entry has the first, sealed, and of all how many they are. Most aggregates have no other.
    address: Option<IpAddr>,
    other_addresses: HashSet<IpAddr>,
}

impl<T> Counted<T> {
    fn one(first: T, address: Option<IpAddr>) -> Self {
        let now = Timestamp::now();
        Self {
            first,
            count: 1,
            first_at: now,
            last_at: now,
            routes: BTreeMap::new(),
            asked: HashSet::new(),
            asked_first: None,
            address: address.map(|address| address.to_canonical()),
            other_addresses: HashSet::new(),
        }
    }

    fn again(&mut self, address: Option<IpAddr>) {
        self.count += 1;
        self.last_at = Timestamp::now();
        address.into_iter().for_each(|address| self.comes_from(address));
    }

    fn comes_from(&mut self, address: IpAddr) {
        let address = address.to_canonical();
        if *self.address.get_or_insert(address) != address && self.addresses() < ADDRESSES {
            self.other_addresses.insert(address);
        }
    }

    /// From how many different addresses it came, as far as they are known; [`ADDRESSES`] are so many or more.
    fn addresses(&self) -> usize {
        usize::from(self.address.is_some()) + self.other_addresses.len()
    }

    /// Adds what was counted elsewhere.
    pub(super) fn add(&mut self, other: Self) {
        self.count += other.count;
        self.first_at = self.first_at.min(other.first_at);
        self.last_at = self.last_at.max(other.last_at);
        for (route, count) in other.routes {
            *self.routes.entry(route).or_default() += count;
        }
        for workspace in other.asked_first.into_iter().chain(other.asked) {
            self.asks(workspace);
        }
        for address in other.address.into_iter().chain(other.other_addresses) {
            self.comes_from(address);
        }
    }

    fn asks(&mut self, workspace: WorkspaceId) {
        // No path names that: it stands for one that could not be read.
        if workspace.uuid().is_nil() {
            return;
        }
        self.asked_first.get_or_insert(workspace);
        if self.asked.len() < ASKED {
            self.asked.insert(workspace);
        }
    }

    /// The same, with what each aggregate says.
    pub(super) fn details<'a>(&self, record: Record<'a>) -> Record<'a> {
        let mut record = record
            .detail("count", int(self.count))
            .detail("first_at", Value::String(self.first_at.to_string()))
            .detail("last_at", Value::String(self.last_at.to_string()));
        if !self.asked.is_empty() {
            record = record.detail("workspaces", int(self.asked.len() as u64));
        }
        // The first stands in the entry, sealed: an address is somebody's, how many there were is not.
        if self.addresses() > 1 {
            record = record.detail("addresses", int(self.addresses() as u64));
        }
        record
    }

    /// How many times each route was asked for.
    pub(super) fn by_route(&self) -> Value {
        let mut routes = Object::default();
        for (route, count) in &self.routes {
            routes.insert(route.clone(), int(*count));
        }
        Value::Object(routes)
    }
}

pub(super) fn int(n: u64) -> Value {
    Value::Int(i64::try_from(n).unwrap_or(i64::MAX))
}

/// What a party has noted.
#[derive(Debug, Default)]
pub(super) struct Share {
    pub(super) kinds: HashMap<Kind, Counted<Denial>>,
    /// What found no room.
    pub(super) dropped: u64,
}

/// What was noted since it was last written, and what does not change from one second to the next.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub(super) shares: HashMap<Party, Share>,
    /// Over all shares.
    kinds: usize,
    unknown_sources: usize,
    /// Whether some of them found no room: one that was made since the others became known can be among them.
    pub(super) unknown_left_out: bool,
    pub(super) failed: HashMap<FailedKind, Counted<FailedSignIn>>,
    pub(super) keys: HashSet<KeyId>,
    pub(super) sessions: HashSet<SessionId>,
    /// What was looked up before, so that a second flood is counted where it belongs from the first refusal on.
    known: Known,
}

/// Whose keys and sources are, as far as was looked up.
#[derive(Debug, Default)]
pub(super) struct Known {
    keys: HashMap<KeyId, WorkspaceId>,
    sources: HashMap<SourceId, WorkspaceId>,
}

impl Known {
    fn insert<K: Hash + Eq>(map: &mut HashMap<K, WorkspaceId>, id: K, workspace: WorkspaceId) {
        if map.len() >= REMEMBERED {
            map.clear();
        }
        map.insert(id, workspace);
    }

    /// That a key is of that workspace.
    pub(super) fn key(&mut self, key: KeyId, workspace: WorkspaceId) {
        Self::insert(&mut self.keys, key, workspace);
    }

    /// That these are all the sources there are, or the newest of them.
    pub(super) fn all_sources(&mut self, sources: HashMap<SourceId, WorkspaceId>) {
        self.sources = sources;
    }

    /// That a source is.
    pub(super) fn source(&mut self, source: SourceId, workspace: WorkspaceId) {
        Self::insert(&mut self.sources, source, workspace);
    }
}

/// What kind a refusal is of, as it is counted.
pub(super) fn kind(denial: &Denial) -> Kind {
    let route = denial.actor.map(|_| denial.route.clone());
    let asked = denial.asked.filter(|_| matches!(denial.actor, Some(Actor::Session(_))));
    (denial.actor, denial.source, denial.reason, route, asked)
}

impl Gathered {
    fn party(&self, denial: &Denial) -> Party {
        let known = match (denial.workspace, denial.actor, denial.source) {
            (Some(workspace), ..) => Some(workspace),
            (None, Some(Actor::Key(key)), _) => self.known.keys.get(&key).copied(),
            (None, _, Some(source)) => self.known.sources.get(&source).copied(),
            _ => None,
        };
        match (known, denial.actor, denial.source) {
            (Some(workspace), ..) => Party::Ledger(workspace),
            (None, Some(actor), _) => Party::Actor(actor),
            (None, None, Some(source)) => Party::Source(source),
            (None, None, None) => Party::Nobody,
        }
    }

    /// Counts a refusal.
    pub(super) fn denied(&mut self, mut denial: Denial) {
        let mut party = self.party(&denial);
        if matches!(party, Party::Source(_)) && !self.shares.contains_key(&party) {
            if self.unknown_sources >= UNKNOWN_SOURCES {
                self.unknown_left_out = true;
                denial.source = None;
                party = Party::Nobody;
            } else {
                self.unknown_sources += 1;
            }
        }
        let parties = self.shares.len();
        let share = match self.shares.entry(party) {
            Entry::Occupied(share) => share.into_mut(),
            Entry::Vacant(place) if parties < PARTIES || party == Party::Nobody => {
                place.insert(Share::default())
            }
            // Nobody knows any more whose it was: the instance tells it.
            Entry::Vacant(_) => {
                self.shares.entry(Party::Nobody).or_default().dropped += 1;
                return;
            }
        };
        let asked = denial.asked;
        let route = denial.route.clone();
        let address = denial.context.ip;
        let room = share.kinds.len() < EACH && self.kinds < ALL;
        let counted = match share.kinds.entry(kind(&denial)) {
            Entry::Occupied(counted) => {
                let counted = counted.into_mut();
                counted.again(address);
                counted
            }
            Entry::Vacant(place) if room => {
                self.kinds += 1;
                place.insert(Counted::one(denial, address))
            }
            Entry::Vacant(_) => {
                share.dropped += 1;
                return;
            }
        };
        *counted.routes.entry(route).or_default() += 1;
        if let Some(workspace) = asked {
            counted.asks(workspace);
        }
    }

    /// Counts a sign-in that failed.
    pub(super) fn failed(&mut self, failed: FailedSignIn) {
        let room = self.failed.len() < EACH;
        let address = failed.context.ip;
        match self.failed.entry((failed.method.name(), failed.provider.clone(), failed.reason)) {
            Entry::Occupied(mut counted) => counted.get_mut().again(address),
            Entry::Vacant(place) if room => drop(place.insert(Counted::one(failed, address))),
            Entry::Vacant(_) => self.shares.entry(Party::Nobody).or_default().dropped += 1,
        }
    }

    /// That a key was used.
    pub(super) fn used(&mut self, key: KeyId) {
        if self.keys.len() < IN_USE {
            self.keys.insert(key);
        }
    }

    /// That a session was.
    pub(super) fn seen(&mut self, session: SessionId) {
        if self.sessions.len() < IN_USE {
            self.sessions.insert(session);
        }
    }
}

/// What the writing task takes.
#[derive(Debug)]
pub struct Noted {
    gathered: Arc<Mutex<Gathered>>,
    pub(super) woken: mpsc::Receiver<()>,
}

impl Noted {
    pub(super) const fn new(gathered: Arc<Mutex<Gathered>>, woken: mpsc::Receiver<()>) -> Self {
        Self { gathered, woken }
    }

    /// Takes what has gathered.
    pub(super) fn take(&self) -> Gathered {
        let mut gathered = self.gathered.lock().unwrap_or_else(PoisonError::into_inner);
        let known = std::mem::take(&mut gathered.known);
        std::mem::replace(&mut gathered, Gathered { known, ..Gathered::default() })
    }

    /// Remembers what was looked up.
    pub(super) fn learn(&self, learn: impl FnOnce(&mut Known)) {
        learn(&mut self.gathered.lock().unwrap_or_else(PoisonError::into_inner).known);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::context::RequestContext;

    fn denial(actor: Option<Actor>, workspace: Option<WorkspaceId>, route: usize) -> Denial {
        Denial {
            actor,
            workspace,
            asked: None,
            source: None,
            route: format!("GET /v1/{route}"),
            reason: Reason::Scope,
            context: RequestContext::none(),
        }
    }

    #[test]
    fn whoever_floods_one_ledger_takes_no_others_room_and_its_losses_are_its_own() {
        let (flooded, other) = (WorkspaceId::new(), WorkspaceId::new());
        let victim = Actor::Key(KeyId::new());
        let mut gathered = Gathered::default();
        let flood: Vec<Actor> = (0..12).map(|_| Actor::Key(KeyId::new())).collect();
        for n in 0..4000 {
            gathered.denied(denial(Some(flood[n % 12]), Some(flooded), n % 41));
            if n % 100 == 0 {
                gathered.denied(denial(Some(victim), Some(other), 0));
            }
        }
        let of = |party| &gathered.shares[&Party::Ledger(party)];
        assert_eq!((of(flooded).kinds.len(), of(other).dropped), (EACH, 0));
        assert!(of(flooded).dropped > 0);
        let counted: u64 = of(other).kinds.values().map(|counted| counted.count).sum();
        assert_eq!(counted, 40, "all of the other's");
        let counted: u64 = of(flooded).kinds.values().map(|counted| counted.count).sum();
        assert_eq!(counted + of(flooded).dropped, 4000, "what is not told is counted");
    }

    #[test]
    fn strangers_are_one_aggregate_a_reason_whatever_they_ask_for() {
        let mut gathered = Gathered::default();
        for n in 0..2000 {
            gathered.denied(Denial { asked: Some(WorkspaceId::new()), ..denial(None, None, n % 50) });
        }
        let share = &gathered.shares[&Party::Nobody];
        let counted: Vec<_> = share.kinds.values().collect();
        assert_eq!((counted.len(), counted[0].count, share.dropped), (1, 2000, 0));
        assert_eq!((counted[0].routes.len(), counted[0].asked.len()), (50, ASKED));
        assert_eq!(counted[0].asked_first, counted[0].first.asked);
    }

    #[test]
    fn addresses_are_counted_exactly_up_to_a_bound_and_those_of_two_aggregates_together() {
        let gathered = |addresses: &mut dyn Iterator<Item = u16>| {
            let mut gathered = Gathered::default();
            for n in addresses {
                let mut one = denial(None, None, 0);
                one.context.ip = Some(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n).into());
                gathered.denied(one);
            }
            let share = gathered.shares.remove(&Party::Nobody).unwrap_or_default();
            share.kinds.into_values().next()
        };
        let counted = |addresses: &mut dyn Iterator<Item = u16>| gathered(addresses).map(|c| c.addresses());
        assert_eq!(counted(&mut [7, 7, 7].into_iter()), Some(1));
        assert_eq!(counted(&mut (0..300).map(|n| n % 40)), Some(40));
        assert_eq!(counted(&mut (0..=u16::MAX)), Some(ADDRESSES));
        let (Some(mut one), Some(two)) = (gathered(&mut (0..30)), gathered(&mut (20..50))) else {
            panic!("nothing is counted");
        };
        one.add(two);
        assert_eq!((one.addresses(), one.count), (50, 60));
        // An address is the same however it is written, and none is none.
        let mut mapped = Counted::one((), Some(std::net::Ipv4Addr::LOCALHOST.into()));
        mapped.again(Some(std::net::Ipv4Addr::LOCALHOST.to_ipv6_mapped().into()));
        mapped.again(None);
        assert_eq!((mapped.addresses(), Counted::one((), None).addresses()), (1, 0));
    }

    #[test]
    fn sources_that_nobody_has_fill_no_more_than_their_part() {
        let mut gathered = Gathered::default();
        for _ in 0..5000 {
            gathered.denied(Denial { source: Some(SourceId::new()), ..denial(None, None, 0) });
        }
        let real = SourceId::new();
        gathered.known.source(real, WorkspaceId::new());
        gathered.denied(Denial { source: Some(real), ..denial(None, None, 0) });
        assert_eq!(gathered.shares.len(), UNKNOWN_SOURCES + 2, "those, nobody's, and the real one's");
        let nobody = &gathered.shares[&Party::Nobody];
        assert_eq!(nobody.kinds.values().map(|c| c.count).sum::<u64>(), 5000 - UNKNOWN_SOURCES as u64);
        assert_eq!(nobody.kinds.len(), 1);
    }

    #[test]
    fn memory_has_a_bound_however_many_ask() {
        let mut gathered = Gathered::default();
        for n in 0..20_000 {
            gathered.denied(denial(Some(Actor::Key(KeyId::new())), None, n));
        }
        assert_eq!(gathered.shares.len(), PARTIES + 1);
        assert!(gathered.kinds <= ALL);
        assert_eq!(gathered.shares[&Party::Nobody].dropped, 20_000 - PARTIES as u64);
    }
}
