//! Decides whether a history of concurrent operations is linearizable.
//!
//! This is the search of Wing and Gong ("Testing and Verifying Concurrent Objects", 1993) with Lowe's cache of visited
//! states ("Testing for Linearizability", 2017). The history is a list of calls and returns by time. Any call before
//! the first return may be next in the order. If the object's model allows it, its call and return are removed from the
//! list, and the search continues from the front. When it reaches a return whose call was not chosen, it undoes its
//! last choice.

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hash;

use crate::history::Micros;

/// Sequential behaviour of an object.
pub trait Model {
    type State: Clone + Eq + Hash;
    type Call: Debug;

    fn initial(&self) -> Self::State;

    /// Returns the state after the call; `None` when the call cannot have that answer in `state`.
    fn step(&self, state: &Self::State, call: &Self::Call) -> Option<Self::State>;
}

/// A call with its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<C> {
    pub call: C,
    pub called: Micros,
    /// Time of the return; with `None` the call may take effect at any later time, or never.
    pub returned: Option<Micros>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Linearizable,
    /// No order exists. `explained` is the longest one found, as indices of entries; `stuck` is the entry that returned
    /// next and cannot follow it.
    Violated {
        explained: Vec<usize>,
        stuck: usize,
    },
    /// The search stopped after this many states.
    Undecided {
        states: usize,
    },
}

/// Searches for an order of the entries. Gives up after `max_states`.
pub fn check<M: Model>(model: &M, entries: &[Entry<M::Call>], max_states: usize) -> Verdict {
    let mut search = Search {
        list: Timeline::new(entries),
        chosen: vec![0; entries.len().div_ceil(64)],
        tried: HashSet::new(),
        order: Vec::new(),
        longest: None,
    };
    search.run(model, entries, max_states)
}

struct Search<S> {
    list: Timeline,
    /// One bit for each entry that is in the order so far.
    chosen: Vec<u64>,
    tried: HashSet<(Vec<u64>, S)>,
    /// The order so far, with the state before each entry.
    order: Vec<(usize, S)>,
    longest: Option<(Vec<usize>, usize)>,
}

impl<S: Clone + Eq + Hash> Search<S> {
    fn run<M: Model<State = S>>(&mut self, model: &M, entries: &[Entry<M::Call>], max_states: usize) -> Verdict {
        let mut state = model.initial();
        let mut at = self.list.first();
        loop {
            match self.list.node(at) {
                // Only calls with an unknown outcome are left; they may never take effect.
                Node::End => return Verdict::Linearizable,
                Node::Call(entry) => match self.choose(model, &state, entry, &entries[entry].call) {
                    Some(next) => {
                        self.order.push((entry, std::mem::replace(&mut state, next)));
                        self.list.lift(entry);
                        at = self.list.first();
                        if self.tried.len() > max_states {
                            return Verdict::Undecided { states: self.tried.len() };
                        }
                    }
                    None => at = self.list.after(at),
                },
                Node::Return(stuck) => {
                    self.note_longest(stuck);
                    let Some((entry, before)) = self.order.pop() else { return self.violated(stuck) };
                    state = before;
                    self.chosen[entry / 64] &= !(1 << (entry % 64));
                    self.list.unlift(entry);
                    at = self.list.after(self.list.call(entry));
                }
            }
        }
    }

    /// Returns the state after `entry`, unless that is impossible or was visited before.
    fn choose<M: Model<State = S>>(&mut self, model: &M, state: &S, entry: usize, call: &M::Call) -> Option<S> {
        let next = model.step(state, call)?;
        self.chosen[entry / 64] |= 1 << (entry % 64);
        if self.tried.insert((self.chosen.clone(), next.clone())) {
            return Some(next);
        }
        self.chosen[entry / 64] &= !(1 << (entry % 64));
        None
    }

    fn note_longest(&mut self, stuck: usize) {
        if self.longest.as_ref().is_none_or(|(longest, _)| longest.len() < self.order.len()) {
            self.longest = Some((self.order.iter().map(|(entry, _)| *entry).collect(), stuck));
        }
    }

    fn violated(&mut self, stuck: usize) -> Verdict {
        let (explained, stuck) = self.longest.take().unwrap_or((Vec::new(), stuck));
        Verdict::Violated { explained, stuck }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    Call(usize),
    Return(usize),
    End,
}

/// Doubly linked list of calls and returns by time, so that pairs can be removed and restored. Node 0 is the head; the
/// last node is the end.
struct Timeline {
    nodes: Vec<Node>,
    next: Vec<usize>,
    previous: Vec<usize>,
    calls: Vec<usize>,
    returns: Vec<Option<usize>>,
}

impl Timeline {
    fn new<C>(entries: &[Entry<C>]) -> Self {
        // At equal times calls sort first, so such operations count as concurrent.
        let calls = entries.iter().enumerate().map(|(i, entry)| (entry.called, 0, Node::Call(i)));
        let returned = |(i, entry): (usize, &Entry<C>)| {
            entry.returned.map(|returned| (returned.max(entry.called), 1, Node::Return(i)))
        };
        let mut moments: Vec<_> = calls.chain(entries.iter().enumerate().filter_map(returned)).collect();
        moments.sort_by_key(|(at, kind, _)| (*at, *kind));
        let nodes: Vec<Node> = std::iter::once(Node::End)
            .chain(moments.into_iter().map(|(_, _, node)| node))
            .chain(std::iter::once(Node::End))
            .collect();
        let (mut calls, mut returns) = (vec![0; entries.len()], vec![None; entries.len()]);
        for (place, node) in nodes.iter().enumerate() {
            match *node {
                Node::Call(entry) => calls[entry] = place,
                Node::Return(entry) => returns[entry] = Some(place),
                Node::End => {}
            }
        }
        let last = nodes.len() - 1;
        Timeline {
            next: (0..=last).map(|place| (place + 1).min(last)).collect(),
            previous: (0..=last).map(|place| place.saturating_sub(1)).collect(),
            nodes,
            calls,
            returns,
        }
    }

    fn first(&self) -> usize {
        self.next[0]
    }

    fn after(&self, place: usize) -> usize {
        self.next[place]
    }

    fn node(&self, place: usize) -> Node {
        self.nodes[place]
    }

    fn call(&self, entry: usize) -> usize {
        self.calls[entry]
    }

    fn unlink(&mut self, place: usize) {
        let (before, after) = (self.previous[place], self.next[place]);
        self.next[before] = after;
        self.previous[after] = before;
    }

    fn relink(&mut self, place: usize) {
        let (before, after) = (self.previous[place], self.next[place]);
        self.next[before] = place;
        self.previous[after] = place;
    }

    fn lift(&mut self, entry: usize) {
        self.unlink(self.calls[entry]);
        if let Some(place) = self.returns[entry] {
            self.unlink(place);
        }
    }

    fn unlift(&mut self, entry: usize) {
        if let Some(place) = self.returns[entry] {
            self.relink(place);
        }
        self.relink(self.calls[entry]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Model of one number.
    struct Number;

    #[derive(Clone, Copy, Debug)]
    enum Call {
        Read(u8),
        Write(u8),
    }

    impl Model for Number {
        type State = u8;
        type Call = Call;

        fn initial(&self) -> u8 {
            0
        }

        fn step(&self, state: &u8, call: &Call) -> Option<u8> {
            match *call {
                Call::Read(value) => (value == *state).then_some(value),
                Call::Write(value) => Some(value),
            }
        }
    }

    fn verdict(entries: &[(Call, Micros, Option<Micros>)]) -> Verdict {
        let entry = |&(call, called, returned): &(Call, Micros, Option<Micros>)| Entry { call, called, returned };
        check(&Number, &entries.iter().map(entry).collect::<Vec<_>>(), 100_000)
    }

    fn holds(entries: &[(Call, Micros, Option<Micros>)]) -> bool {
        match verdict(entries) {
            Verdict::Linearizable => true,
            Verdict::Violated { .. } => false,
            Verdict::Undecided { .. } => panic!("undecided"),
        }
    }

    use Call::{Read, Write};

    #[test]
    fn concurrent_operations_take_any_order() {
        assert!(holds(&[]));
        assert!(holds(&[(Write(1), 0, Some(10)), (Read(0), 1, Some(5)), (Read(1), 6, Some(9))]));
        assert!(holds(&[(Write(1), 0, Some(10)), (Write(2), 0, Some(10)), (Read(1), 11, Some(12))]));
        // Touching intervals count as concurrent.
        assert!(holds(&[(Write(1), 0, Some(10)), (Read(0), 10, Some(12))]));
    }

    #[test]
    fn a_stale_read_is_a_violation() {
        assert!(!holds(&[(Write(1), 0, Some(10)), (Read(0), 11, Some(12))]));
        assert_eq!(
            verdict(&[(Write(1), 0, Some(10)), (Read(1), 11, Some(12)), (Read(0), 13, Some(14))]),
            Verdict::Violated { explained: vec![0, 1], stuck: 2 }
        );
    }

    #[test]
    fn two_readers_that_disagree_on_the_order_are_a_violation() {
        let writes = [(Write(1), 0, Some(100)), (Write(2), 0, Some(100))];
        let readers = [(Read(1), 1, Some(10)), (Read(2), 11, Some(20)), (Read(1), 21, Some(30))];
        assert!(!holds(&[&writes[..], &readers[..]].concat()));
        assert!(holds(&[&writes[..], &readers[..2]].concat()));
    }

    #[test]
    fn an_unanswered_call_takes_effect_late_or_never() {
        let lost = (Write(1), 0, None);
        assert!(holds(&[lost, (Read(0), 100, Some(101))]));
        assert!(holds(&[lost, (Read(0), 100, Some(101)), (Read(1), 200, Some(201))]));
        // The write cannot take effect twice or before its call.
        assert!(!holds(&[lost, (Read(1), 10, Some(11)), (Write(2), 12, Some(13)), (Read(1), 14, Some(15))]));
        assert!(!holds(&[(Read(1), 1, Some(2)), (Write(1), 3, None)]));
    }

    #[test]
    fn a_search_that_is_too_long_is_undecided() {
        let mut entries: Vec<_> = (1..20).map(|value| (Write(value), 0, Some(10))).collect();
        entries.push((Read(77), 11, Some(12)));
        let entry = |&(call, called, returned): &(Call, Micros, Option<Micros>)| Entry { call, called, returned };
        let entries = entries.iter().map(entry).collect::<Vec<_>>();
        assert!(matches!(check(&Number, &entries, 1000), Verdict::Undecided { .. }));
    }
}
