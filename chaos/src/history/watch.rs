//! What watchers were told.

use serde::{Deserialize, Serialize};

use super::{Micros, Value};

/// A change of one key as a watcher saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub key: String,
    /// `None`: it was deleted.
    pub value: Value,
    /// The revision of the change.
    pub revision: u64,
    /// Zero for a deletion.
    pub create_revision: u64,
    /// How often the key was written since its creation; zero for a deletion.
    pub version: u64,
    /// The value before, and the revision at which it was written, when the watcher asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<(String, u64)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum WatchRecord {
    /// A stream at `member` that begins at revision `from`.
    Opened { at: Micros, member: usize, from: u64 },
    /// One answer with its events.
    Batch { at: Micros, events: Vec<Seen> },
    /// "You have been told everything up to `revision`".
    Progress { at: Micros, revision: u64 },
    /// The stream ended; the watcher resumes after the last revision it has seen.
    Ended { at: Micros, reason: String },
    /// The server cannot tell what came after the watcher's revision any more.
    Compacted { at: Micros, compacted: u64 },
}

/// One watcher of a prefix, over all its streams.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchLog {
    pub watcher: String,
    /// It asked for the values before.
    pub with_previous: bool,
    /// It was told in time everything up to this revision, at the end of the run.
    pub complete_to: u64,
    pub records: Vec<WatchRecord>,
}

impl WatchLog {
    /// All events, in the order in which they came.
    pub fn events(&self) -> impl Iterator<Item = &Seen> {
        self.records.iter().flat_map(|record| match record {
            WatchRecord::Batch { events, .. } => &events[..],
            _ => &[],
        })
    }
}

/// What an informer did: lists and watches, as a Kubernetes client library does it.
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
    /// A watch from `from` on.
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
    /// The watch ended; `gone`: its revision is not kept any more, and the informer lists anew.
    Ended {
        at: Micros,
        gone: bool,
        reason: String,
    },
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InformerLog {
    pub informer: String,
    /// It was told in time everything up to this revision, at the end of the run.
    pub complete_to: u64,
    pub records: Vec<InformerRecord>,
}
