//! Linearizability of registers, single ones and groups, with steps that simplify the history before the search.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::events::EventLog;
use super::linearizability::{self, Entry, Model, Verdict};
use crate::history::{Api, Micros, Operation, Outcome, Value};

/// Limit of the search. Clients keep the history of one object short, so a longer search is rare and not worth its
/// memory.
const MAX_STATES: usize = 1_000_000;

/// Model of several registers that change together.
struct Registers {
    count: usize,
}

/// A transaction on numbered registers with numbered values; value 0 stands for a key that does not exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Call {
    expect: Vec<(usize, u32)>,
    writes: Vec<(usize, u32)>,
    observed: Vec<(usize, u32)>,
    /// Whether all expectations held.
    succeeded: bool,
}

impl Model for Registers {
    type State = Vec<u32>;
    type Call = Call;

    fn initial(&self) -> Vec<u32> {
        vec![0; self.count]
    }

    fn step(&self, state: &Vec<u32>, call: &Call) -> Option<Vec<u32>> {
        let holds = |pairs: &[(usize, u32)]| pairs.iter().all(|(key, value)| state[*key] == *value);
        if holds(&call.expect) != call.succeeded || !holds(&call.observed) {
            return None;
        }
        let mut next = state.clone();
        if call.succeeded {
            for (key, value) in &call.writes {
                next[*key] = *value;
            }
        }
        Some(next)
    }
}

/// Result for one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub object: String,
    pub verdict: Verdict,
    /// Operations that the indices of the verdict refer to.
    pub operations: Vec<Operation>,
}

impl Finding {
    /// Describes a violation: the end of the longest order, and the operation that cannot follow it.
    #[must_use]
    pub fn describe(&self) -> Option<String> {
        let Verdict::Violated { explained, stuck } = &self.verdict else { return None };
        let line = |place: &usize| serde_json::to_string(&self.operations[*place]).unwrap_or_default();
        let tail = explained.iter().rev().take(6).rev().map(line).collect::<Vec<_>>().join("\n  ");
        Some(format!(
            "{}: no order explains its {} operations. The longest has {}, and ends with\n  {tail}\nafter which this \
             cannot be:\n  {}",
            self.object,
            self.operations.len(),
            explained.len(),
            line(stuck)
        ))
    }
}

/// Checks every object of a history by itself, because linearizability is local (Herlihy and Wing, 1990). Reads that
/// may be stale are left out.
///
/// When a search is too long, the watchers' events decide which unanswered writes took effect. `events` must be
/// complete if it is given.
#[must_use]
pub fn check(operations: &[Operation], events: Option<&EventLog>) -> Vec<Finding> {
    let mut objects: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    for operation in operations.iter().filter(|operation| operation.api != Api::EtcdStale) {
        objects.entry(&operation.object).or_default().push(operation);
    }
    let check = |(object, operations): (&str, Vec<&Operation>)| {
        let finding = check_object(object, relevant(&operations));
        match (&finding.verdict, events) {
            (Verdict::Undecided { .. }, Some(events)) if operations[0].api == Api::Etcd => {
                check_object(object, with_witness(relevant(&operations), events))
            }
            _ => finding,
        }
    };
    objects.into_iter().map(check).collect()
}

fn check_object(object: &str, operations: Vec<(&Operation, Option<Micros>)>) -> Finding {
    let mut numbers = Numbers::default();
    let (entries, operations): (Vec<_>, Vec<_>) = operations
        .into_iter()
        .map(|(operation, returned)| {
            let call = numbers.call(operation);
            (Entry { call, called: operation.called, returned }, operation.clone())
        })
        .unzip();
    let model = Registers { count: numbers.keys.len() };
    let verdict = linearizability::check(&model, &entries, MAX_STATES);
    Finding { object: object.to_owned(), verdict, operations }
}

/// Numbers for the names of keys and values.
#[derive(Default)]
struct Numbers {
    keys: HashMap<String, usize>,
    values: HashMap<String, u32>,
}

impl Numbers {
    fn pairs(&mut self, pairs: &[(String, Value)]) -> Vec<(usize, u32)> {
        pairs.iter().map(|(key, value)| (self.key(key), self.value(value))).collect()
    }

    fn key(&mut self, key: &str) -> usize {
        let next = self.keys.len();
        *self.keys.entry(key.to_owned()).or_insert(next)
    }

    fn value(&mut self, value: &Value) -> u32 {
        let Some(value) = value else { return 0 };
        let next = u32::try_from(self.values.len()).unwrap_or(u32::MAX - 1) + 1;
        *self.values.entry(value.clone()).or_insert(next)
    }

    fn call(&mut self, operation: &Operation) -> Call {
        let expect = self.pairs(&operation.request.expect);
        let writes = self.pairs(&operation.request.writes);
        match &operation.outcome {
            Outcome::Done { succeeded, observed, .. } => {
                Call { expect, writes, observed: self.pairs(observed), succeeded: *succeeded }
            }
            // If the write takes effect at all, its expectations hold.
            Outcome::Refused { .. } | Outcome::Unknown { .. } => {
                Call { expect, writes, observed: Vec::new(), succeeded: true }
            }
        }
    }
}

/// Operations that the search must order, each with the latest time at which it took effect.
///
/// A refused operation had no effect, and an unanswered read says nothing. Written values are unique, so an unanswered
/// write whose value was seen took effect before that. An unanswered write whose value was never seen is left out,
/// because every answer that could depend on it contains the value that was there instead. Unanswered deletions stay,
/// and so do unanswered writes that a failed transaction without the current value may have seen: both may take effect
/// at any later time.
fn relevant<'a>(operations: &[&'a Operation]) -> Vec<(&'a Operation, Option<Micros>)> {
    let seen = first_seen(operations);
    let blind = operations.iter().filter(|operation| is_blind_refusal(operation)).map(|o| o.returned).max();
    let keep = |operation: &&'a Operation| match &operation.outcome {
        Outcome::Done { .. } => Some((*operation, Some(operation.returned))),
        Outcome::Refused { .. } => None,
        Outcome::Unknown { .. } if !operation.request.is_write() => None,
        Outcome::Unknown { .. } => {
            let at = operation.request.writes.iter().filter_map(|written| seen.get(written)).min();
            let may_matter = operation.request.writes.iter().any(|(_, value)| value.is_none())
                || blind.is_some_and(|last| operation.called <= last);
            match at {
                Some(at) => Some((*operation, Some(*at))),
                None => may_matter.then_some((*operation, None)),
            }
        }
    };
    operations.iter().filter_map(keep).collect()
}

/// Uses the watchers' events for unanswered operations that may take effect at any time. A written value took effect
/// before a watcher received it, or never. Deletions cannot be distinguished, so they stay possible if one of their
/// keys was deleted.
fn with_witness<'a>(
    operations: Vec<(&'a Operation, Option<Micros>)>,
    events: &EventLog,
) -> Vec<(&'a Operation, Option<Micros>)> {
    let mut delivered: HashMap<(&str, &Value), Option<Micros>> = HashMap::new();
    for seen in events.iter() {
        delivered.insert((&seen.key, &seen.value), events.delivered(seen.revision));
    }
    let settle = |(operation, until): (&'a Operation, Option<Micros>)| {
        if until.is_some() {
            return Some((operation, until));
        }
        let writes = &operation.request.writes;
        let written = writes.iter().find(|(_, value)| value.is_some());
        match written {
            Some((key, value)) => delivered.get(&(key.as_str(), value)).map(|at| (operation, *at)),
            None => writes
                .iter()
                .any(|(key, _)| delivered.contains_key(&(key.as_str(), &None)))
                .then_some((operation, None)),
        }
    };
    operations.into_iter().filter_map(settle).collect()
}

/// Whether the operation failed on an expectation and its answer lacks the current value.
fn is_blind_refusal(operation: &Operation) -> bool {
    let Outcome::Done { succeeded: false, observed, .. } = &operation.outcome else { return false };
    let returned: BTreeSet<&str> = observed.iter().map(|(key, _)| key.as_str()).collect();
    operation.request.expect.iter().any(|(key, _)| !returned.contains(key.as_str()))
}

type Pair = (String, Value);

/// Returns the earliest time by which each pair of key and value had certainly existed.
fn first_seen(operations: &[&Operation]) -> HashMap<Pair, Micros> {
    let mut seen: HashMap<Pair, Micros> = HashMap::new();
    let note = |seen: &mut HashMap<Pair, Micros>, pair: &Pair, at: Micros| -> bool {
        if pair.1.is_none() {
            return false;
        }
        let known = seen.entry(pair.clone()).or_insert(Micros::MAX);
        let is_news = at < *known;
        *known = at.min(*known);
        is_news
    };
    for operation in operations {
        if let Outcome::Done { succeeded, observed, .. } = &operation.outcome {
            let held = if *succeeded { &operation.request.expect[..] } else { &[] };
            for pair in observed.iter().chain(held) {
                note(&mut seen, pair, operation.returned);
            }
        }
    }
    // If an unanswered write took effect, its expected values existed before.
    let unknown = || operations.iter().filter(|operation| matches!(operation.outcome, Outcome::Unknown { .. }));
    loop {
        let mut is_news = false;
        for operation in unknown() {
            let at = operation.request.writes.iter().filter_map(|pair| seen.get(pair)).min().copied();
            if let Some(at) = at {
                for pair in &operation.request.expect {
                    is_news |= note(&mut seen, pair, at);
                }
            }
        }
        if !is_news {
            return seen;
        }
    }
}

#[cfg(test)]
mod tests;
