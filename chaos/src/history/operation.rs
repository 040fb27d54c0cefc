//! Operations on registers: a register is a key, and every operation on registers is a small transaction.

use serde::{Deserialize, Serialize};

use super::Micros;

/// A register's value; `None` while its key does not exist. Values that are written are unique in a run.
pub type Value = Option<String>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Api {
    /// gRPC, linearizable.
    Etcd,
    /// A serializable read over gRPC: it may be old, and must be what once was.
    EtcdStale,
    Rest,
}

/// What was asked for. If all of `expect` hold, `writes` take effect at once; in either case the reads see the state
/// before the writes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transaction {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expect: Vec<(String, Value)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub writes: Vec<(String, Value)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reads: Vec<String>,
}

impl Transaction {
    #[must_use]
    pub fn get(key: impl Into<String>) -> Self {
        Transaction { reads: vec![key.into()], ..Transaction::default() }
    }

    #[must_use]
    pub fn put(key: impl Into<String>, value: impl Into<String>) -> Self {
        Transaction { writes: vec![(key.into(), Some(value.into()))], ..Transaction::default() }
    }

    #[must_use]
    pub fn delete(key: impl Into<String>) -> Self {
        Transaction { writes: vec![(key.into(), None)], ..Transaction::default() }
    }

    /// Writes `value` if the key holds `expected`, and tells what it held.
    #[must_use]
    pub fn compare_and_swap(key: impl Into<String>, expected: Value, value: impl Into<String>) -> Self {
        let key = key.into();
        Transaction {
            expect: vec![(key.clone(), expected)],
            writes: vec![(key.clone(), Some(value.into()))],
            reads: vec![key],
        }
    }

    #[must_use]
    pub fn is_write(&self) -> bool {
        !self.writes.is_empty()
    }
}

/// How an operation ended, as far as its client knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "outcome")]
pub enum Outcome {
    /// It was answered.
    Done {
        /// What was expected held, so that the writes took effect.
        succeeded: bool,
        /// The state before the writes, of the keys that the answer tells of.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        observed: Vec<(String, Value)>,
        /// The store's revision at which it happened; zero when the answer does not tell.
        revision: u64,
    },
    /// It was refused in a way that promises that it has had no effect and never will.
    Refused { reason: String },
    /// It may have taken effect, may do so at any later time, or never.
    Unknown { reason: String },
}

/// One call of one client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    pub client: String,
    pub api: Api,
    /// The registers that are checked together: keys of one object stand in no operation of another.
    pub object: String,
    /// The member that was asked, from 0.
    pub member: usize,
    pub called: Micros,
    /// When the answer came, or the client gave up.
    pub returned: Micros,
    pub request: Transaction,
    #[serde(flatten)]
    pub outcome: Outcome,
}

impl Operation {
    /// Whether its writes have certainly taken effect.
    #[must_use]
    pub fn has_written(&self) -> bool {
        self.request.is_write() && matches!(self.outcome, Outcome::Done { succeeded: true, .. })
    }

    /// The revision that the answer told, if it did.
    #[must_use]
    pub fn revision(&self) -> Option<u64> {
        match self.outcome {
            Outcome::Done { revision, .. } if revision > 0 => Some(revision),
            _ => None,
        }
    }
}
