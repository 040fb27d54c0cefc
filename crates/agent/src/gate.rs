//! Bounds the number of concurrent requests to the container engine. The pod that is furthest in its start goes first,
//! so that pods become ready one after the other instead of all of them late.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// The steps of a pod's start, furthest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    StartContainer,
    CreateContainer,
    StartSandbox,
    CreateSandbox,
}

struct State {
    free: usize,
    /// Waiters in the order in which they are served: by stage, then by arrival.
    waiting: BTreeMap<(Stage, u64), oneshot::Sender<Permit>>,
    arrivals: u64,
}

/// A semaphore whose waiters are served by [`Stage`].
#[derive(Clone)]
pub(crate) struct Gate {
    state: Arc<Mutex<State>>,
}

/// A permit of the gate. Dropping it serves the next waiter.
pub(crate) struct Permit {
    gate: Gate,
}

impl Gate {
    pub(crate) fn new(permits: usize) -> Self {
        Gate { state: Arc::new(Mutex::new(State { free: permits, waiting: BTreeMap::new(), arrivals: 0 })) }
    }

    /// Waits for a permit.
    pub(crate) async fn pass(&self, stage: Stage) -> Permit {
        let turn = {
            let mut state = self.state.lock();
            if state.free > 0 {
                state.free -= 1;
                return Permit { gate: self.clone() };
            }
            let (sender, turn) = oneshot::channel();
            let key = (stage, state.arrivals);
            state.arrivals += 1;
            state.waiting.insert(key, sender);
            turn
        };
        // The borrowed gate keeps the sender in its queue, so the sender is never dropped unused.
        turn.await.unwrap_or_else(|_| Permit { gate: self.clone() })
    }

    fn release(&self) {
        let next = {
            let mut state = self.state.lock();
            match state.waiting.pop_first() {
                Some((_, next)) => next,
                None => {
                    state.free += 1;
                    return;
                }
            }
        };
        // A waiter that has given up sends the permit back. Dropping it here serves the waiter after that one.
        drop(next.send(Permit { gate: self.clone() }));
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.gate.release();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn later_stages_go_first_and_equal_stages_in_order_of_arrival() {
        let gate = Gate::new(1);
        let first = gate.pass(Stage::CreateSandbox).now_or_never().expect("the gate is free");
        let stages = [
            (Stage::CreateSandbox, "a"),
            (Stage::CreateSandbox, "b"),
            (Stage::StartSandbox, "c"),
            (Stage::CreateContainer, "d"),
            (Stage::StartContainer, "e"),
            (Stage::StartContainer, "f"),
        ];
        let mut waiting: Vec<_> = stages.map(|(stage, name)| (Box::pin(gate.pass(stage)), name)).into();
        assert!(waiting.iter_mut().all(|(turn, _)| turn.now_or_never().is_none()));
        drop(first);
        let mut order = Vec::new();
        while !waiting.is_empty() {
            let served = waiting.iter_mut().position(|(turn, _)| turn.now_or_never().is_some());
            order.push(waiting.remove(served.expect("one waiter is served")).1);
        }
        assert_eq!(order, ["e", "f", "d", "c", "a", "b"]);
    }

    #[test]
    fn a_waiter_that_gives_up_loses_no_permit() {
        let gate = Gate::new(1);
        let held = gate.pass(Stage::StartSandbox).now_or_never().expect("the gate is free");
        let mut impatient = Box::pin(gate.pass(Stage::StartSandbox));
        let mut served = Box::pin(gate.pass(Stage::StartSandbox));
        assert!((&mut impatient).now_or_never().is_none() && (&mut served).now_or_never().is_none());
        drop(impatient);
        drop(held);
        drop((&mut served).now_or_never().expect("its turn"));
        // A permit that was sent but never received is not lost either.
        let held = gate.pass(Stage::StartSandbox).now_or_never().expect("the gate is free again");
        let mut given = Box::pin(gate.pass(Stage::StartSandbox));
        assert!((&mut given).now_or_never().is_none());
        drop(held);
        drop(given);
        assert!(gate.pass(Stage::StartSandbox).now_or_never().is_some());
    }
}
