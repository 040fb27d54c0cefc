//! Events that watchers receive.

use quorate_api::Revision;
use serde::{Deserialize, Serialize};

use crate::kv::KeyValue;

/// A change of one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    Put {
        kv: KeyValue,
        prev: Previous,
    },
    /// `kv` is the tombstone: key and `mod_revision` only.
    Delete {
        kv: KeyValue,
        prev: Previous,
    },
}

/// The version before a change. `apply` does not need it, so it is read only when a watcher asks for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Previous {
    /// The change created the key, or the previous version has been compacted.
    #[default]
    None,
    /// The revision that wrote the previous version; [`State::with_previous`](crate::State::with_previous) reads it.
    Unread(Revision),
    Read(KeyValue),
}

impl Previous {
    /// The revision that wrote the previous version, or zero when there is none.
    #[must_use]
    pub fn revision(&self) -> Revision {
        match self {
            Previous::None => Revision::ZERO,
            Previous::Unread(revision) => *revision,
            Previous::Read(kv) => kv.mod_revision,
        }
    }
}

impl From<Option<KeyValue>> for Previous {
    fn from(kv: Option<KeyValue>) -> Self {
        kv.map_or(Previous::None, Previous::Read)
    }
}

impl Event {
    #[must_use]
    pub fn kv(&self) -> &KeyValue {
        match self {
            Event::Put { kv, .. } | Event::Delete { kv, .. } => kv,
        }
    }

    /// Approximate size in memory, in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let size = |kv: &KeyValue| size_of::<KeyValue>() + kv.key.len() + kv.value.len();
        size(self.kv()) + self.prev().map_or(0, size)
    }

    #[must_use]
    pub fn previous(&self) -> &Previous {
        match self {
            Event::Put { prev, .. } | Event::Delete { prev, .. } => prev,
        }
    }

    /// The previous version, if it was read.
    #[must_use]
    pub fn prev(&self) -> Option<&KeyValue> {
        match self.previous() {
            Previous::Read(kv) => Some(kv),
            Previous::None | Previous::Unread(_) => None,
        }
    }

    /// Returns the same change with another previous version.
    #[must_use]
    pub(crate) fn after(self, prev: Previous) -> Self {
        match self {
            Event::Put { kv, .. } => Event::Put { kv, prev },
            Event::Delete { kv, .. } => Event::Delete { kv, prev },
        }
    }
}
