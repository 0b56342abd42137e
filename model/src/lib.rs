//! The protocol of append, checkpoint and lease as a model, explored exhaustively within its bounds.
//!
//! Two nodes over one database that never loses what it committed, one ledger, one destination that wants everything.
//! Nodes crash and come back, connections are lost while a statement is on its way (which may then still be executed,
//! later), leases run out with an attempt in flight. A step of the model is what happens at once in the service: one
//! statement of Postgres, one write of the node's file of heads, one attempt. The service's names stand at the steps.

#![cfg(test)]

use stateright::{Checker, HasDiscoveries, Model, Property};

/// An entry: which request it records, and its nonce, by which a batch is known again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Entry {
    request: u8,
    nonce: u8,
}

/// A ledger's entries stand for its head: the head's leaf hash is over all of them.
type Ledger = Vec<Entry>;

/// Entries that are to be written behind a head.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Batch {
    before: Ledger,
    entry: Entry,
}

/// What a committer knows of its batch (`ledger::append`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Committing {
    /// Built, or to be sent again as it is (`again`).
    Ready { batch: Batch, again: bool },
    /// On its way.
    Sent { batch: Batch, again: bool },
    /// The connection was lost.
    Unknown { batch: Batch },
}

/// A lane as its holder sees it (`delivery::lane`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Holding {
    fence: u8,
    next: usize,
    /// Its time is up: what is in flight ends, nothing begins.
    lapsed: bool,
    in_flight: bool,
    /// An outcome that is to be written.
    report: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Node {
    down: bool,
    /// The remembered head.
    head: Option<Ledger>,
    committing: Option<Committing>,
    holding: Option<Holding>,
    /// The file of heads: the newest tree handed out, on disk.
    seen: Ledger,
}

/// A statement at the server; `alive`: somebody hears its answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Statement {
    node: usize,
    batch: Batch,
    alive: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct State {
    // In the database.
    ledger: Ledger,
    holder: Option<usize>,
    leased: bool,
    fence: u8,
    /// Deliveries up to this number are settled.
    sent_through: usize,
    /// The most that ever were.
    settled: usize,
    statements: Vec<Statement>,
    // Outside.
    nodes: [Node; 2],
    asked: u8,
    nonces: u8,
    acknowledged: Vec<u8>,
    /// Trees that were handed out.
    signed: Vec<Ledger>,
    /// Numbers in the order of their first attempts.
    first_attempts: Vec<usize>,
    received: Vec<usize>,
    crashes: u8,
    losses: u8,
    lapses: u8,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Action {
    Ask(usize),
    Send(usize),
    Execute(usize),
    Abort(usize),
    Lose(usize),
    Look(usize),
    Claim(usize),
    Lapse,
    Start(usize),
    Arrive(usize),
    Report(usize),
    Crash(usize),
    Restart(usize),
}

/// The bounds within which everything is explored, and the faults that a test puts in.
#[derive(Clone, Debug)]
struct Protocol {
    requests: u8,
    crashes: u8,
    losses: u8,
    lapses: u8,
    /// Whether a batch that was perhaps written is looked for once more when the head has moved.
    looks_again: bool,
    /// Whether an outcome counts only under the fence that it was attempted under.
    fenced: bool,
    /// Whether a tree is on disk before it leaves.
    remembers: bool,
}

impl Protocol {
    const AS_BUILT: Self = Self {
        requests: 2,
        crashes: 1,
        losses: 1,
        lapses: 1,
        looks_again: true,
        fenced: true,
        remembers: true,
    };

    /// Builds a batch for `request` on the head that is remembered, or read now.
    fn build(state: &mut State, node: usize, request: u8) {
        let ledger = state.ledger.clone();
        let before = state.nodes[node].head.get_or_insert(ledger).clone();
        let entry = Entry { request, nonce: state.nonces };
        state.nonces += 1;
        let batch = Batch { before, entry };
        state.nodes[node].committing = Some(Committing::Ready { batch, again: false });
    }

    /// `ledger_append`: compare and swap, the delivery, the lane.
    fn execute(&self, state: &mut State, at: usize) {
        let Statement { node, batch, alive } = state.statements.remove(at);
        let written = state.ledger == batch.before;
        if written {
            state.ledger.push(batch.entry);
            if !state.leased {
                state.holder = Some(node);
                state.fence += 1;
                state.leased = true;
            }
        }
        if !alive {
            return;
        }
        let Some(Committing::Sent { again, .. }) = state.nodes[node].committing.take() else { return };
        if written {
            self.acknowledge(state, node, &batch);
            let (held, fence, next) = (state.holder == Some(node), state.fence, state.sent_through + 1);
            let known = state.nodes[node].holding.as_ref().is_some_and(|h| h.fence == fence);
            if held && !known {
                state.nodes[node].holding =
                    Some(Holding { fence, next, lapsed: false, in_flight: false, report: false });
            }
        } else if again && self.looks_again {
            // It may have been the batch itself that has moved the head.
            state.nodes[node].committing = Some(Committing::Unknown { batch });
        } else {
            state.nodes[node].head = None;
            Self::build(state, node, batch.entry.request);
        }
    }

    fn acknowledge(&self, state: &mut State, node: usize, batch: &Batch) {
        let mut after = batch.before.clone();
        after.push(batch.entry);
        state.nodes[node].head = Some(after);
        state.acknowledged.push(batch.entry.request);
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::default()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (n, node) in state.nodes.iter().enumerate() {
            if node.down {
                actions.push(Action::Restart(n));
                continue;
            }
            match &node.committing {
                None if state.asked < self.requests => actions.push(Action::Ask(n)),
                Some(Committing::Ready { .. }) => actions.push(Action::Send(n)),
                Some(Committing::Unknown { .. }) => actions.push(Action::Look(n)),
                _ => {}
            }
            if let Some(holding) = &node.holding {
                if !holding.lapsed
                    && !holding.in_flight
                    && !holding.report
                    && holding.next <= state.ledger.len()
                {
                    actions.push(Action::Start(n));
                }
                if holding.in_flight {
                    actions.push(Action::Arrive(n));
                }
                if holding.report {
                    actions.push(Action::Report(n));
                }
            }
            if !state.leased && state.sent_through < state.ledger.len() {
                actions.push(Action::Claim(n));
            }
            if state.crashes < self.crashes {
                actions.push(Action::Crash(n));
            }
        }
        for (i, statement) in state.statements.iter().enumerate() {
            actions.push(Action::Execute(i));
            if !statement.alive {
                actions.push(Action::Abort(i));
            } else if state.losses < self.losses {
                actions.push(Action::Lose(i));
            }
        }
        // A lease that nobody renews runs out; one that somebody does, when its holder is cut off.
        let cut_off = state.lapses < self.lapses;
        let gone = state.holder.is_some_and(|n| {
            state.nodes[n].holding.as_ref().is_none_or(|holding| holding.fence != state.fence)
        });
        if state.leased && (cut_off || gone) {
            actions.push(Action::Lapse);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Ask(n) => {
                state.asked += 1;
                let request = state.asked;
                Self::build(&mut state, n, request);
            }
            Action::Send(n) => {
                let Some(Committing::Ready { batch, again }) = state.nodes[n].committing.take() else {
                    return None;
                };
                state.statements.push(Statement { node: n, batch: batch.clone(), alive: true });
                state.nodes[n].committing = Some(Committing::Sent { batch, again });
            }
            Action::Execute(i) => self.execute(&mut state, i),
            Action::Abort(i) => drop(state.statements.remove(i)),
            Action::Lose(i) => {
                state.losses += 1;
                let n = state.statements[i].node;
                state.statements[i].alive = false;
                let Some(Committing::Sent { batch, .. }) = state.nodes[n].committing.take() else {
                    return None;
                };
                state.nodes[n].committing = Some(Committing::Unknown { batch });
            }
            Action::Look(n) => {
                // `is_written`: what stands at the batch's first place.
                let Some(Committing::Unknown { batch }) = state.nodes[n].committing.take() else {
                    return None;
                };
                let place = batch.before.len();
                match state.ledger.get(place) {
                    Some(entry) if *entry == batch.entry => self.acknowledge(&mut state, n, &batch),
                    Some(_) if self.looks_again => {
                        state.nodes[n].head = None;
                        Self::build(&mut state, n, batch.entry.request);
                    }
                    _ => state.nodes[n].committing = Some(Committing::Ready { batch, again: true }),
                }
            }
            Action::Claim(n) => {
                state.holder = Some(n);
                state.fence += 1;
                state.leased = true;
                let (fence, next) = (state.fence, state.sent_through + 1);
                state.nodes[n].holding =
                    Some(Holding { fence, next, lapsed: false, in_flight: false, report: false });
            }
            Action::Lapse => {
                let n = state.holder?;
                if state.nodes[n].holding.as_ref().is_some_and(|holding| holding.fence == state.fence) {
                    state.lapses += 1;
                }
                // The holder stops by its own clock before the lease is over in the database.
                if let Some(holding) = state.nodes[n].holding.as_mut() {
                    holding.lapsed = true;
                    if !holding.in_flight && !holding.report {
                        state.nodes[n].holding = None;
                    }
                }
                state.leased = false;
            }
            Action::Start(n) => {
                let next = state.nodes[n].holding.as_ref()?.next;
                let tree = state.ledger[..next].to_vec();
                if self.remembers && state.nodes[n].seen.len() < tree.len() {
                    state.nodes[n].seen.clone_from(&tree);
                }
                if !state.signed.contains(&tree) {
                    state.signed.push(tree);
                }
                if !state.first_attempts.contains(&next) {
                    state.first_attempts.push(next);
                }
                state.nodes[n].holding.as_mut()?.in_flight = true;
            }
            Action::Arrive(n) => {
                let holding = state.nodes[n].holding.as_mut()?;
                (holding.in_flight, holding.report) = (false, true);
                let number = holding.next;
                if !state.received.contains(&number) {
                    state.received.push(number);
                }
            }
            Action::Report(n) => {
                let holding = state.nodes[n].holding.clone()?;
                if (state.holder == Some(n) && state.fence == holding.fence) || !self.fenced {
                    state.sent_through = state.sent_through.max(holding.next);
                    if !self.fenced {
                        // Whoever overwrites takes back what a newer holder has settled.
                        state.sent_through = holding.next;
                    }
                    state.settled = state.settled.max(state.sent_through);
                    let holding = state.nodes[n].holding.as_mut()?;
                    (holding.report, holding.next) = (false, holding.next + 1);
                    if holding.lapsed {
                        state.nodes[n].holding = None;
                    }
                } else {
                    state.nodes[n].holding = None;
                }
            }
            Action::Crash(n) => {
                state.crashes += 1;
                for statement in state.statements.iter_mut().filter(|s| s.node == n) {
                    statement.alive = false;
                }
                let seen = std::mem::take(&mut state.nodes[n].seen);
                state.nodes[n] = Node { down: true, seen, ..Node::default() };
            }
            Action::Restart(n) => {
                // `check_heads`: a node that finds another history than it handed out does not come back.
                if !state.ledger.starts_with(&state.nodes[n].seen) {
                    return None;
                }
                state.nodes[n].down = false;
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let once = |_: &Self, s: &State| {
            s.ledger
                .iter()
                .enumerate()
                .all(|(i, e)| s.ledger[..i].iter().all(|other| other.request != e.request))
        };
        let kept = |_: &Self, s: &State| {
            s.acknowledged.iter().all(|request| s.ledger.iter().any(|e| e.request == *request))
        };
        let consistent = |_: &Self, s: &State| s.signed.iter().all(|tree| s.ledger.starts_with(tree));
        let remembered = |_: &Self, s: &State| {
            s.signed.iter().all(|tree| s.nodes.iter().any(|node| node.seen.starts_with(tree)))
        };
        let in_order = |_: &Self, s: &State| s.first_attempts.is_sorted();
        let stays = |_: &Self, s: &State| s.sent_through >= s.settled;
        let settled = |_: &Self, s: &State| (1..=s.sent_through).all(|number| s.received.contains(&number));
        let all = |model: &Self, s: &State| {
            s.asked == model.requests && (1..=s.ledger.len()).all(|number| s.received.contains(&number))
        };
        let at_the_worst = |model: &Self, s: &State| {
            s.acknowledged.len() == usize::from(model.requests)
                && s.crashes == model.crashes
                && s.losses == model.losses
                && s.lapses == model.lapses
                && s.sent_through == s.ledger.len()
        };
        vec![
            Property::always("a request is recorded once", once),
            Property::always("what was acknowledged is recorded", kept),
            Property::always("what was signed is what is recorded", consistent),
            Property::always("what was signed is remembered by who signed it", remembered),
            Property::always("first attempts are in the order of numbers", in_order),
            Property::always("what is settled has arrived", settled),
            Property::always("what is settled stays settled", stays),
            Property::eventually("whatever is recorded arrives", all),
            Property::sometimes("all is done in spite of every fault", at_the_worst),
        ]
    }
}

/// How far a test goes: two requests within a second or so; with `STATUSLEDGER_PROTOCOL_REQUESTS=3` a minute.
fn requests() -> u8 {
    std::env::var("STATUSLEDGER_PROTOCOL_REQUESTS").ok().and_then(|n| n.parse().ok()).unwrap_or(2)
}

#[test]
fn the_protocol_holds_in_every_order_of_two_nodes_and_their_faults() {
    let model = Protocol { requests: requests(), ..Protocol::AS_BUILT };
    let explored = model.checker().threads(2).spawn_bfs().join();
    explored.assert_properties();
}

/// What each of the three rules is for: without it, the explorer names the steps to the fault.
#[test]
fn without_each_rule_of_the_protocol_the_explorer_finds_the_fault() {
    let without = [
        (Protocol { looks_again: false, ..Protocol::AS_BUILT }, "a request is recorded once"),
        (Protocol { fenced: false, ..Protocol::AS_BUILT }, "what is settled stays settled"),
        (
            Protocol { remembers: false, ..Protocol::AS_BUILT },
            "what was signed is remembered by who signed it",
        ),
    ];
    for (model, property) in without {
        let explored = model.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
        let found = explored.discoveries();
        assert!(found.contains_key(property), "{property}: {:?}", found.keys());
    }
}
