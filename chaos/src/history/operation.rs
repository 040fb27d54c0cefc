//! Operations on registers. A register is a key, and every operation on registers is a small transaction.

use serde::{Deserialize, Serialize};

use super::Micros;

/// Value of a register; `None` while its key does not exist. Written values are unique in a run.
pub type Value = Option<String>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Api {
    /// Linearizable operation over gRPC.
    Etcd,
    /// Serializable read over gRPC: it may be stale, but must return a past state.
    EtcdStale,
    Rest,
}

/// Requested transaction. If all of `expect` hold, `writes` take effect atomically; in either case the reads see the
/// state before the writes.
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

    /// Writes `value` if the key holds `expected`, and returns the old value.
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

/// Outcome of an operation, as far as its client knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "outcome")]
pub enum Outcome {
    /// The server answered.
    Done {
        /// All expectations held, so the writes took effect.
        succeeded: bool,
        /// State before the writes, of the keys in the answer.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        observed: Vec<(String, Value)>,
        /// Revision of the store at which the transaction happened; zero when the answer does not contain it.
        revision: u64,
    },
    /// The server refused it in a way that guarantees no effect now or later.
    Refused { reason: String },
    /// The operation may have taken effect, may take effect at any later time, or never.
    Unknown { reason: String },
}

/// One call of one client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    pub client: String,
    pub api: Api,
    /// Name of the group of registers that are checked together. No operation uses keys of two objects.
    pub object: String,
    /// Member that received the request, from 0.
    pub member: usize,
    pub called: Micros,
    /// Time at which the answer came or the client gave up.
    pub returned: Micros,
    pub request: Transaction,
    #[serde(flatten)]
    pub outcome: Outcome,
}

impl Operation {
    /// Whether the writes have certainly taken effect.
    #[must_use]
    pub fn has_written(&self) -> bool {
        self.request.is_write() && matches!(self.outcome, Outcome::Done { succeeded: true, .. })
    }

    /// Revision in the answer, if it contains one.
    #[must_use]
    pub fn revision(&self) -> Option<u64> {
        match self.outcome {
            Outcome::Done { revision, .. } if revision > 0 => Some(revision),
            _ => None,
        }
    }
}
