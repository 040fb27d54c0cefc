//! Observations of clients and watchers. This module has no I/O and no checks; those are in [`crate::checker`].

mod counter;
mod lease;
mod node;
mod operation;
mod watch;

pub use counter::{Counted, Increment};
pub use lease::{LeaseEvent, LeaseLog};
pub use node::{
    Answer, ApiSeen, Container, ContainerStatus, DeploymentSeen, EndpointSeen, Killed, MAIN, MachineSeen, PodSample,
    PodSeen, Request, SANDBOX, Sample, Settled, Start, Wanted, node_name,
};
pub use operation::{Api, Operation, Outcome, Transaction, Value};
pub use watch::{InformerLog, InformerRecord, Seen, WatchLog, WatchRecord};

use serde::{Deserialize, Serialize};

/// Microseconds since the run began, on the monotonic clock of this process. Values are rounded down, so a smaller
/// value is certainly earlier.
pub type Micros = u64;

/// Everything that a run recorded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    pub operations: Vec<Operation>,
    pub watches: Vec<WatchLog>,
    pub informers: Vec<InformerLog>,
    pub leases: Vec<LeaseLog>,
    pub increments: Vec<Increment>,
    /// Writes on Deployments.
    pub requests: Vec<Request>,
    pub samples: Vec<Sample>,
}

/// One line of a saved history.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Line {
    Operation(Operation),
    Watch(WatchLog),
    Informer(InformerLog),
    Lease(LeaseLog),
    Increment(Increment),
    Request(Request),
    Sample(Sample),
}

impl History {
    /// Writes JSON lines: operations in the order of their calls, then the records of watchers, informers, leases and
    /// counters.
    ///
    /// # Errors
    /// When a line cannot be written.
    pub fn write_lines(&self, to: &mut impl std::io::Write) -> std::io::Result<()> {
        let mut operations: Vec<&Operation> = self.operations.iter().collect();
        operations.sort_by_key(|operation| operation.called);
        let lines = (operations.into_iter().cloned().map(Line::Operation))
            .chain(self.watches.iter().cloned().map(Line::Watch))
            .chain(self.informers.iter().cloned().map(Line::Informer))
            .chain(self.leases.iter().cloned().map(Line::Lease))
            .chain(self.increments.iter().cloned().map(Line::Increment))
            .chain(self.requests.iter().cloned().map(Line::Request))
            .chain(self.samples.iter().cloned().map(Line::Sample));
        for line in lines {
            serde_json::to_writer(&mut *to, &line)?;
            to.write_all(b"\n")?;
        }
        Ok(())
    }

    /// Reads what [`History::write_lines`] wrote.
    ///
    /// # Errors
    /// When a line is not part of a history.
    pub fn read_lines(from: impl std::io::BufRead) -> std::io::Result<History> {
        let mut history = History::default();
        for line in from.lines() {
            match serde_json::from_str(&line?)? {
                Line::Operation(operation) => history.operations.push(operation),
                Line::Watch(watch) => history.watches.push(watch),
                Line::Informer(informer) => history.informers.push(informer),
                Line::Lease(lease) => history.leases.push(lease),
                Line::Increment(increment) => history.increments.push(increment),
                Line::Request(request) => history.requests.push(request),
                Line::Sample(sample) => history.samples.push(sample),
            }
        }
        Ok(history)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saved_history_is_read_back() {
        let operation = Operation {
            client: "register-1".to_owned(),
            api: Api::Etcd,
            object: "reg/0/1".to_owned(),
            member: 2,
            called: 10,
            returned: 20,
            request: Transaction::put("reg/0/1", "c1.1"),
            outcome: Outcome::Done { succeeded: true, observed: Vec::new(), revision: 7 },
        };
        let unknown =
            Operation { called: 5, outcome: Outcome::Unknown { reason: "timeout".to_owned() }, ..operation.clone() };
        let history = History { operations: vec![unknown, operation], ..History::default() };
        let mut lines = Vec::new();
        history.write_lines(&mut lines).expect("a vector takes everything");
        assert_eq!(History::read_lines(&lines[..]).expect("its own lines"), history);
    }
}
