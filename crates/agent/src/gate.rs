//! Who may ask the container engine next. It starts few things at a time, and whoever is furthest goes first: pods get
//! ready one after the other, instead of all of them late.

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
    /// By stage, then by arrival.
    waiting: BTreeMap<(Stage, u64), oneshot::Sender<Permit>>,
    arrivals: u64,
}

/// A semaphore whose waiters are served by [`Stage`].
#[derive(Clone)]
pub(crate) struct Gate {
    state: Arc<Mutex<State>>,
}

/// Leave to go through, until it is dropped.
pub(crate) struct Permit {
    gate: Gate,
}

impl Gate {
    pub(crate) fn new(permits: usize) -> Self {
        Gate { state: Arc::new(Mutex::new(State { free: permits, waiting: BTreeMap::new(), arrivals: 0 })) }
    }

    /// Waits for its turn.
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
        // The gate cannot go away while it is borrowed, so the sender is never dropped unused.
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
        // Sent to somebody who has stopped waiting, the permit comes back and, dropped, goes to the one after.
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
    fn the_furthest_goes_first_and_equals_in_order_of_arrival() {
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
            order.push(waiting.remove(served.expect("somebody is served")).1);
        }
        assert_eq!(order, ["e", "f", "d", "c", "a", "b"]);
    }

    #[test]
    fn whoever_stops_waiting_takes_no_permit_along() {
        let gate = Gate::new(1);
        let held = gate.pass(Stage::StartSandbox).now_or_never().expect("the gate is free");
        let mut impatient = Box::pin(gate.pass(Stage::StartSandbox));
        let mut served = Box::pin(gate.pass(Stage::StartSandbox));
        assert!((&mut impatient).now_or_never().is_none() && (&mut served).now_or_never().is_none());
        drop(impatient);
        drop(held);
        drop((&mut served).now_or_never().expect("its turn"));
        // A permit that was given but never taken is not lost either.
        let held = gate.pass(Stage::StartSandbox).now_or_never().expect("the gate is free again");
        let mut given = Box::pin(gate.pass(Stage::StartSandbox));
        assert!((&mut given).now_or_never().is_none());
        drop(held);
        drop(given);
        assert!(gate.pass(Stage::StartSandbox).now_or_never().is_some());
    }
}
