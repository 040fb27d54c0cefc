//! What a watcher sees.

use serde::{Deserialize, Serialize};

use crate::kv::KeyValue;

/// A change of one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    Put {
        kv: KeyValue,
        /// The version before; `None` when the key was created, or when that version has been compacted away.
        prev: Option<KeyValue>,
    },
    /// `kv` is the tombstone: key and `mod_revision` only.
    Delete { kv: KeyValue, prev: Option<KeyValue> },
}

impl Event {
    #[must_use]
    pub fn kv(&self) -> &KeyValue {
        match self {
            Event::Put { kv, .. } | Event::Delete { kv, .. } => kv,
        }
    }

    /// Roughly what it takes in memory.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let size = |kv: &KeyValue| size_of::<KeyValue>() + kv.key.len() + kv.value.len();
        size(self.kv()) + self.prev().map_or(0, size)
    }

    #[must_use]
    pub fn prev(&self) -> Option<&KeyValue> {
        match self {
            Event::Put { prev, .. } | Event::Delete { prev, .. } => prev.as_ref(),
        }
    }
}
