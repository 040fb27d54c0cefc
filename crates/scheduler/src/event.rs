//! Cluster events that may make an unschedulable pod schedulable.

use std::ops::BitOr;

/// A set of event kinds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClusterEvents(u8);

impl ClusterEvents {
    pub const NONE: ClusterEvents = ClusterEvents(0);
    pub const NODE_ADDED: ClusterEvents = ClusterEvents(1);
    /// A node has more of a resource than before.
    pub const NODE_ALLOCATABLE: ClusterEvents = ClusterEvents(1 << 1);
    pub const NODE_LABELS: ClusterEvents = ClusterEvents(1 << 2);
    pub const NODE_TAINTS: ClusterEvents = ClusterEvents(1 << 3);
    pub const NODE_UNCORDONED: ClusterEvents = ClusterEvents(1 << 4);
    /// A pod that held resources on a node is gone, has ended, or holds less.
    pub const POD_REMOVED: ClusterEvents = ClusterEvents(1 << 5);

    #[must_use]
    pub const fn union(self, other: ClusterEvents) -> ClusterEvents {
        ClusterEvents(self.0 | other.0)
    }

    #[must_use]
    pub const fn without(self, other: ClusterEvents) -> ClusterEvents {
        ClusterEvents(self.0 & !other.0)
    }

    #[must_use]
    pub const fn intersects(self, other: ClusterEvents) -> bool {
        self.0 & other.0 != 0
    }

    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl BitOr for ClusterEvents {
    type Output = ClusterEvents;

    fn bitor(self, other: ClusterEvents) -> ClusterEvents {
        self.union(other)
    }
}
