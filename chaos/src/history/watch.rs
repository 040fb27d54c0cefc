//! Records of watchers and informers.

use serde::{Deserialize, Serialize};

use super::{Micros, Value};

/// A change of one key as a watcher received it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub key: String,
    /// New value; `None` for a deletion.
    pub value: Value,
    /// Revision of the change.
    pub revision: u64,
    /// Revision of the key's creation; zero for a deletion.
    pub create_revision: u64,
    /// Number of writes of the key since its creation; zero for a deletion.
    pub version: u64,
    /// Previous value and its revision, if the watcher asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<(String, u64)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum WatchRecord {
    /// A stream at `member` was opened from revision `from` on.
    Opened { at: Micros, member: usize, from: u64 },
    /// One response with its events.
    Batch { at: Micros, events: Vec<Seen> },
    /// Progress notification: all events up to `revision` were delivered.
    Progress { at: Micros, revision: u64 },
    /// The stream ended; the watcher resumes after the last revision it has seen.
    Ended { at: Micros, reason: String },
    /// The server has compacted the watcher's next revision.
    Compacted { at: Micros, compacted: u64 },
}

/// One watcher of a prefix, over all its streams.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchLog {
    pub watcher: String,
    /// The watcher asked for previous values.
    pub with_previous: bool,
    /// Last revision up to which everything was delivered in time at the end of the run.
    pub complete_to: u64,
    pub records: Vec<WatchRecord>,
}

impl WatchLog {
    /// All events in the order of their delivery.
    pub fn events(&self) -> impl Iterator<Item = &Seen> {
        self.records.iter().flat_map(|record| match record {
            WatchRecord::Batch { events, .. } => &events[..],
            _ => &[],
        })
    }
}

/// Record of an informer, which lists and watches like a Kubernetes client library.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum InformerRecord {
    /// A list at `revision`: names, values and resource versions.
    Listed {
        at: Micros,
        member: usize,
        revision: u64,
        objects: Vec<(String, String, u64)>,
    },
    /// A watch was opened from `from` on.
    Watched {
        at: Micros,
        member: usize,
        from: u64,
    },
    Added {
        at: Micros,
        name: String,
        value: String,
        revision: u64,
    },
    Modified {
        at: Micros,
        name: String,
        value: String,
        revision: u64,
    },
    Deleted {
        at: Micros,
        name: String,
        value: String,
        revision: u64,
    },
    Bookmark {
        at: Micros,
        revision: u64,
    },
    /// The watch ended. If `gone`, its revision is compacted and the informer relists.
    Ended {
        at: Micros,
        gone: bool,
        reason: String,
    },
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InformerLog {
    pub informer: String,
    /// Last revision up to which everything was delivered in time at the end of the run.
    pub complete_to: u64,
    pub records: Vec<InformerRecord>,
}
