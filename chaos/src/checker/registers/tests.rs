use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};

use super::*;
use crate::history::Transaction;

fn operation(called: Micros, returned: Micros, request: Transaction, outcome: Outcome) -> Operation {
    Operation {
        client: "c".to_owned(),
        api: Api::Etcd,
        object: "x".to_owned(),
        member: 0,
        called,
        returned,
        request,
        outcome,
    }
}

fn done(succeeded: bool, observed: &[(&str, Option<&str>)]) -> Outcome {
    let observed = observed.iter().map(|(key, value)| ((*key).to_owned(), value.map(str::to_owned))).collect();
    Outcome::Done { succeeded, observed, revision: 0 }
}

fn unknown() -> Outcome {
    Outcome::Unknown { reason: "no answer".to_owned() }
}

fn read(called: Micros, returned: Micros, value: Option<&str>) -> Operation {
    operation(called, returned, Transaction::get("x"), done(true, &[("x", value)]))
}

fn write(called: Micros, returned: Micros, value: &str, outcome: Outcome) -> Operation {
    operation(called, returned, Transaction::put("x", value), outcome)
}

fn swap(called: Micros, returned: Micros, from: &str, to: &str, outcome: Outcome) -> Operation {
    operation(called, returned, Transaction::compare_and_swap("x", Some(from.to_owned()), to), outcome)
}

fn is_linearizable(operations: &[Operation]) -> bool {
    check(operations, None).iter().all(|finding| match finding.verdict {
        Verdict::Linearizable => true,
        Verdict::Violated { .. } => {
            assert!(finding.describe().is_some());
            false
        }
        Verdict::Undecided { .. } => panic!("undecided"),
    })
}

#[test]
fn planted_violations_are_found() {
    let a = write(0, 1, "a", done(true, &[]));
    let b = write(2, 3, "b", done(true, &[]));
    let explained =
        [a.clone(), b.clone(), read(4, 5, Some("b")), swap(6, 7, "b", "c", done(true, &[("x", Some("b"))]))];
    assert!(is_linearizable(&explained));
    let with = |planted: &[Operation]| [&explained[..], planted].concat();

    let violations: Vec<(&str, Vec<Operation>)> = vec![
        ("a stale read", with(&[read(8, 9, Some("b"))])),
        ("a write that was acknowledged and lost", vec![a.clone(), read(2, 3, None)]),
        ("a value that no client has written", with(&[read(8, 9, Some("z"))])),
        ("two swaps of the same value", with(&[swap(8, 9, "b", "d", done(true, &[]))])),
        ("a swap that failed although its value was there", with(&[swap(8, 9, "c", "d", done(false, &[]))])),
        ("a write before its call", vec![read(0, 1, Some("a")), write(2, 3, "a", done(true, &[]))]),
        (
            "a refused write that took effect",
            with(&[write(8, 9, "d", Outcome::Refused { reason: "no leader".to_owned() }), read(10, 11, Some("d"))]),
        ),
        (
            "an unanswered write that took effect twice",
            with(&[
                write(8, 9, "d", unknown()),
                read(10, 11, Some("d")),
                write(12, 13, "e", done(true, &[])),
                read(14, 15, Some("d")),
            ]),
        ),
        (
            "an unanswered swap that took effect on another value",
            with(&[swap(8, 9, "a", "d", unknown()), read(10, 11, Some("d"))]),
        ),
        ("an unanswered write seen before its call", with(&[read(8, 9, Some("d")), write(10, 11, "d", unknown())])),
        (
            "a deletion that no client requested",
            vec![a, read(2, 3, Some("a")), read(4, 5, None), operation(6, 7, Transaction::delete("x"), unknown())],
        ),
    ];
    for (what, operations) in violations {
        assert!(!is_linearizable(&operations), "{what} was not found");
    }
}

#[test]
fn unanswered_writes_explain_later_values() {
    let a = write(0, 1, "a", done(true, &[]));
    let lost = write(2, 3, "b", unknown());
    assert!(is_linearizable(&[a.clone(), lost.clone(), read(4, 5, Some("a")), read(50, 51, Some("b"))]));
    assert!(is_linearizable(&[a.clone(), lost.clone(), read(4, 5, Some("a"))]));
    // A chain: the second unanswered swap was seen, so the first took effect too.
    let chain = [a.clone(), lost, swap(4, 5, "b", "c", unknown()), read(6, 7, Some("c"))];
    assert!(is_linearizable(&chain));
    assert!(!is_linearizable(&[&chain[..], &[read(8, 9, Some("a"))]].concat()));
    // A failed swap without the current value is explained by an unanswered write that was never seen.
    let blind = [a.clone(), write(2, 3, "b", unknown()), swap(4, 5, "a", "c", done(false, &[]))];
    assert!(is_linearizable(&blind));
    assert!(!is_linearizable(&[a.clone(), swap(4, 5, "a", "c", done(false, &[]))]));
    let deleted = operation(2, 3, Transaction::delete("x"), unknown());
    assert!(is_linearizable(&[a, deleted, read(4, 5, Some("a")), read(6, 7, None)]));
}

#[test]
fn registers_that_change_together_are_checked_together() {
    let pair = |called, keys: [&str; 2], value: &str| {
        let request = Transaction {
            writes: keys.map(|key| (key.to_owned(), Some(format!("{value}{key}")))).to_vec(),
            ..Transaction::default()
        };
        operation(called, called + 1, request, done(true, &[]))
    };
    let read = |called, values: [Option<&str>; 2]| {
        let request = Transaction { reads: vec!["x".to_owned(), "y".to_owned()], ..Transaction::default() };
        operation(called, called + 1, request, done(true, &[("x", values[0]), ("y", values[1])]))
    };
    let writes = [pair(0, ["x", "y"], "a"), pair(2, ["x", "y"], "b")];
    assert!(is_linearizable(&[&writes[..], &[read(4, [Some("bx"), Some("by")])]].concat()));
    // Each value could come from a slow write, but the combination never existed.
    let overlapping = [pair(0, ["x", "y"], "a"), Operation { returned: 9, ..pair(1, ["x", "y"], "b") }];
    assert!(!is_linearizable(&[&overlapping[..], &[read(4, [Some("ax"), Some("by")])]].concat()));
}

/// A linearizable history: operations take effect one after the other between their call and return, and some answers
/// are lost.
fn linearizable_history(rng: &mut StdRng, length: usize, keys: usize) -> Vec<Operation> {
    let keys: Vec<String> = (0..keys).map(|key| format!("k{key}")).collect();
    let mut state: HashMap<String, Value> = keys.iter().map(|key| (key.clone(), None)).collect();
    let mut written: Vec<Value> = vec![None];
    let mut operations = Vec::new();
    let mut now = 0;
    for place in 0..length {
        now += rng.random_range(1..5);
        let (called, returned) = (now - rng.random_range(0..20).min(now), now + rng.random_range(0..20));
        let request = random_request(rng, &keys, &written, &state, place);
        let is_lost = rng.random_bool(0.15);
        let happens = !is_lost || rng.random_bool(0.5);
        let observed: Vec<(String, Value)> =
            request.reads.iter().map(|key| (key.clone(), state[key].clone())).collect();
        let succeeded = request.expect.iter().all(|(key, value)| state[key] == *value);
        if happens && succeeded {
            for (key, value) in &request.writes {
                state.insert(key.clone(), value.clone());
                written.push(value.clone());
            }
        }
        let outcome = if is_lost { unknown() } else { Outcome::Done { succeeded, observed, revision: 0 } };
        // The client of a lost answer may have given up before the operation took effect.
        let returned = if is_lost { called + (returned - called) / 3 } else { returned };
        operations.push(operation(called, returned, request, outcome));
    }
    operations
}

fn random_request(
    rng: &mut StdRng,
    keys: &[String],
    written: &[Value],
    state: &HashMap<String, Value>,
    place: usize,
) -> Transaction {
    let key = keys.choose(rng).expect("a key").clone();
    let expected = if rng.random_bool(0.7) { state[&key].clone() } else { written.choose(rng).expect("one").clone() };
    match rng.random_range(0..10) {
        0..3 => Transaction { reads: keys.to_vec(), ..Transaction::default() },
        3..5 => Transaction::put(key, format!("v{place}")),
        5 => Transaction::delete(key),
        6 => Transaction {
            writes: keys.iter().map(|key| (key.clone(), Some(format!("v{place}{key}")))).collect(),
            ..Transaction::default()
        },
        7 => Transaction { reads: Vec::new(), ..Transaction::compare_and_swap(key, expected, format!("v{place}")) },
        _ => Transaction::compare_and_swap(key, expected, format!("v{place}")),
    }
}

#[test]
fn random_linearizable_histories_pass() {
    for seed in 0..300 {
        let mut rng = StdRng::seed_from_u64(seed);
        let (length, keys) = (rng.random_range(1..120), rng.random_range(1..4));
        let mut history = linearizable_history(&mut rng, length, keys);
        history.shuffle(&mut rng);
        assert!(is_linearizable(&history), "seed {seed}");
    }
}

#[test]
fn random_histories_with_a_changed_answer_fail() {
    let mut found = 0;
    for seed in 0..60 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut history = linearizable_history(&mut rng, 30, 1);
        // A late read returns a value that was overwritten long ago.
        let values: Vec<Value> = history
            .iter()
            .filter(|o| o.has_written() && o.request.writes[0].1.is_some())
            .map(|o| o.request.writes[0].1.clone())
            .collect();
        let [old, .., _, _] = &values[..] else { continue };
        let end = history.iter().map(|o| o.returned).max().unwrap_or(0);
        history.push(operation(end + 1, end + 2, Transaction::put("k0", "last"), done(true, &[])));
        assert!(is_linearizable(&history), "seed {seed}");
        let stale = Outcome::Done { succeeded: true, observed: vec![("k0".to_owned(), old.clone())], revision: 0 };
        history.push(operation(end + 3, end + 4, Transaction::get("k0"), stale));
        assert!(!is_linearizable(&history), "seed {seed}");
        found += 1;
    }
    assert!(found > 30, "only {found} histories were long enough");
}

/// Whether an order exists, by trying every order and every subset of the unanswered operations.
fn has_order(operations: &[Operation], state: &HashMap<String, Value>) -> bool {
    let definite = |o: &Operation| matches!(o.outcome, Outcome::Done { .. });
    if !operations.iter().any(definite) {
        return true;
    }
    let first_return = operations.iter().filter(|o| definite(o)).map(|o| o.returned).min().unwrap_or(Micros::MAX);
    (0..operations.len()).filter(|&i| operations[i].called <= first_return).any(|i| {
        let mut rest = operations.to_vec();
        let next = rest.remove(i);
        let held = |key: &String| state.get(key).cloned().flatten();
        let expected = next.request.expect.iter().all(|(key, value)| held(key) == *value);
        let is_possible = match &next.outcome {
            Outcome::Done { succeeded, observed, .. } => {
                expected == *succeeded && observed.iter().all(|(key, value)| held(key) == *value)
            }
            Outcome::Refused { .. } => false,
            Outcome::Unknown { .. } => expected,
        };
        let mut after = state.clone();
        if expected {
            after.extend(next.request.writes.iter().cloned());
        }
        is_possible && has_order(&rest, &after)
    })
}

#[test]
fn the_search_agrees_with_brute_force() {
    let (mut good, mut bad) = (0, 0);
    for seed in 0..1500 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut history = linearizable_history(&mut rng, 7, 2);
        // Answers are swapped, so that many of these histories have no order.
        if rng.random_bool(0.7) {
            let values: Vec<Value> = (0..7).map(|place| Some(format!("v{place}"))).chain([None]).collect();
            for operation in &mut history {
                if let Outcome::Done { observed, .. } = &mut operation.outcome
                    && rng.random_bool(0.3)
                {
                    for (_, value) in observed {
                        value.clone_from(values.choose(&mut rng).expect("a value"));
                    }
                }
            }
        }
        let expected = has_order(&history, &HashMap::new());
        assert_eq!(is_linearizable(&history), expected, "seed {seed}: {history:#?}");
        if expected { good += 1 } else { bad += 1 }
    }
    assert!(good > 300 && bad > 100, "{good} good and {bad} bad histories");
}

#[test]
fn events_decide_which_unanswered_operations_took_effect() {
    use super::super::events::tests::{delete, put, watch};
    let deletes = |called| {
        let request = Transaction {
            writes: vec![("x".to_owned(), None), ("y".to_owned(), Some(format!("v{called}")))],
            ..Transaction::default()
        };
        operation(called, called + 1, request, unknown())
    };
    // A watcher received the second deletion at 40; the others never took effect.
    let lost = [deletes(10), deletes(20), deletes(30)];
    let (events, _) = EventLog::of(&[watch("w", &[put(3, "x", "a", 1, 3), delete(4, "x"), put(4, "y", "v20", 1, 4)])]);
    let operations: Vec<&Operation> = lost.iter().collect();
    let open = relevant(&operations);
    assert_eq!(open.iter().map(|(_, until)| *until).collect::<Vec<_>>(), vec![None; 3]);
    assert_eq!(with_witness(open, &events), vec![(&lost[1], Some(40))]);
}
