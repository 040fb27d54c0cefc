//! What a watcher sees.

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

/// The version before a change. Nothing that is applied depends on it, so it is read when somebody wants to see it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Previous {
    /// The key was created, or that version has been compacted away.
    #[default]
    None,
    /// It was written at this revision; [`State::with_previous`](crate::State::with_previous) reads it.
    Unread(Revision),
    Read(KeyValue),
}

impl Previous {
    /// The revision that wrote it; zero when there is none.
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

    /// Roughly what it takes in memory.
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

    /// The version before, if it was read.
    #[must_use]
    pub fn prev(&self) -> Option<&KeyValue> {
        match self.previous() {
            Previous::Read(kv) => Some(kv),
            Previous::None | Previous::Unread(_) => None,
        }
    }

    /// The same change with what is known of the version before.
    #[must_use]
    pub(crate) fn after(self, prev: Previous) -> Self {
        match self {
            Event::Put { kv, .. } => Event::Put { kv, prev },
            Event::Delete { kv, .. } => Event::Delete { kv, prev },
        }
    }
}
