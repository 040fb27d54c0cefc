//! The nodes and the resources used on them, updated incrementally.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::event::ClusterEvents;
use crate::node::{NodeInfo, NodeSpec};
use crate::pod::{Footprint, PodInfo, PodKey};

/// Index in [`Snapshot::slots`]. It stays the same as long as the node, or a pod on it, is known.
type Slot = u32;

/// A pod on a node, bound in the store or just assumed by the scheduler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedPod {
    pub uid: Arc<str>,
    pub node: Arc<str>,
    pub footprint: Footprint,
    /// Whether the scheduler has decided the node and the store has not confirmed it yet.
    pub assumed: bool,
}

/// The cluster as the scheduler sees it.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    slots: Vec<NodeInfo>,
    free: Vec<Slot>,
    by_name: HashMap<Arc<str>, Slot>,
    /// Nodes with a Node object, ordered by a hash of their names. A run of neighbours is therefore a fair sample of
    /// the cluster and its zones, and the order depends only on the names, not on the history.
    order: Vec<Slot>,
    pods: HashMap<PodKey, PlacedPod>,
    /// Number of pods of each controller on each node.
    owners: HashMap<Arc<str>, HashMap<Slot, u32>>,
}

impl Snapshot {
    #[must_use]
    pub fn new() -> Snapshot {
        Snapshot::default()
    }

    /// Returns the number of nodes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.order.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    #[must_use]
    pub fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.by_name.get(name).map(|&slot| self.at(slot)).filter(|node| node.spec.is_some())
    }

    /// Returns the node at an index of the hashed order, modulo the number of nodes. The snapshot must not be empty.
    pub(crate) fn nth(&self, index: usize) -> (&NodeSpec, &NodeInfo) {
        let node = self.at(self.order[index % self.order.len()]);
        (node.spec.as_ref().expect("the order holds only nodes with a Node object"), node)
    }

    pub(crate) fn named(&self, name: &str) -> Option<(&NodeSpec, &NodeInfo)> {
        let node = self.at(*self.by_name.get(name)?);
        Some((node.spec.as_ref()?, node))
    }

    #[must_use]
    pub fn pod(&self, key: &PodKey) -> Option<&PlacedPod> {
        self.pods.get(key)
    }

    /// Iterates over the nodes with pods of a controller and a Node object, with the number of those pods.
    pub(crate) fn pods_of_owner(&self, owner: &str) -> impl Iterator<Item = (&NodeSpec, u32)> {
        let counts = self.owners.get(owner).into_iter().flatten();
        counts.filter_map(|(&slot, &count)| Some((self.at(slot).spec.as_ref()?, count)))
    }

    /// Adds or replaces a node. Returns the events by which this may help waiting pods.
    pub fn upsert_node(&mut self, spec: NodeSpec) -> ClusterEvents {
        let slot = self.slot(&spec.name);
        let node = &mut self.slots[slot as usize];
        match node.spec.replace(spec) {
            Some(before) => node.spec.as_ref().map_or(ClusterEvents::NONE, |now| now.improvements_over(&before)),
            None => {
                let place = self.place_in_order(slot);
                self.order.insert(place, slot);
                ClusterEvents::NODE_ADDED
            }
        }
    }

    /// Removes a node. Pods bound to it stay in the snapshot until they are removed.
    pub fn remove_node(&mut self, name: &str) {
        let Some(&slot) = self.by_name.get(name) else { return };
        if self.at(slot).spec.is_none() {
            return;
        }
        let place = self.place_in_order(slot);
        self.order.remove(place);
        self.slots[slot as usize].spec = None;
        self.release_if_unused(slot, name);
    }

    /// Adds a pod that is bound to `node` in the store, or confirms an assumed one. Returns an event if this freed
    /// resources.
    pub fn add_pod(&mut self, key: PodKey, uid: Arc<str>, node: &str, footprint: Footprint) -> ClusterEvents {
        self.place(key, PlacedPod { uid, node: Arc::from(node), footprint, assumed: false })
    }

    /// Records a decision before it is in the store.
    pub fn assume(&mut self, pod: &PodInfo, node: &str) {
        let placed =
            PlacedPod { uid: pod.uid.clone(), node: Arc::from(node), footprint: pod.footprint.clone(), assumed: true };
        self.place(pod.key.clone(), placed);
    }

    /// Undoes an assumption. Nothing happens if the store has confirmed it meanwhile, or if the pod has another uid.
    pub fn forget(&mut self, key: &PodKey, uid: &str) -> ClusterEvents {
        match self.pods.get(key) {
            Some(placed) if placed.assumed && placed.uid.as_ref() == uid => self.remove_pod(key),
            _ => ClusterEvents::NONE,
        }
    }

    /// Removes a pod that is gone or has ended.
    pub fn remove_pod(&mut self, key: &PodKey) -> ClusterEvents {
        let Some(placed) = self.pods.remove(key) else { return ClusterEvents::NONE };
        let Some(&slot) = self.by_name.get(&placed.node) else { return ClusterEvents::NONE };
        self.slots[slot as usize].remove(key, &placed.footprint);
        if let Some(owner) = &placed.footprint.owner {
            self.decrement_owner(owner, slot);
        }
        self.release_if_unused(slot, &placed.node);
        ClusterEvents::POD_REMOVED
    }

    fn place(&mut self, key: PodKey, placed: PlacedPod) -> ClusterEvents {
        let mut events = ClusterEvents::NONE;
        if let Some(existing) = self.pods.get_mut(&key) {
            if existing.node == placed.node && existing.footprint == placed.footprint {
                *existing = placed;
                return events;
            }
            events = self.remove_pod(&key);
        }
        let slot = self.slot(&placed.node);
        self.slots[slot as usize].add(&key, &placed.footprint);
        if let Some(owner) = &placed.footprint.owner {
            *self.owners.entry(owner.clone()).or_default().entry(slot).or_default() += 1;
        }
        self.pods.insert(key, placed);
        events
    }

    fn decrement_owner(&mut self, owner: &Arc<str>, slot: Slot) {
        let Some(counts) = self.owners.get_mut(owner) else { return };
        if let Some(count) = counts.get_mut(&slot) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&slot);
            }
        }
        if counts.is_empty() {
            self.owners.remove(owner);
        }
    }

    fn at(&self, slot: Slot) -> &NodeInfo {
        &self.slots[slot as usize]
    }

    fn slot(&mut self, name: &Arc<str>) -> Slot {
        if let Some(&slot) = self.by_name.get(name) {
            return slot;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(NodeInfo::default());
            Slot::try_from(self.slots.len() - 1).expect("a cluster has far fewer than 2^32 nodes")
        });
        self.by_name.insert(name.clone(), slot);
        slot
    }

    fn release_if_unused(&mut self, slot: Slot, name: &str) {
        let node = &mut self.slots[slot as usize];
        if node.spec.is_none() && node.pods.is_empty() {
            *node = NodeInfo::default();
            self.by_name.remove(name);
            self.free.push(slot);
        }
    }

    fn place_in_order(&self, slot: Slot) -> usize {
        let key = self.hashed(slot);
        self.order.partition_point(|&other| self.hashed(other) < key)
    }

    fn hashed(&self, slot: Slot) -> (u64, &str) {
        let name = self.at(slot).spec.as_ref().map_or("", |spec| spec.name.as_ref());
        (fnv1a(name), name)
    }
}

/// Snapshots are equal when they hold the same nodes and pods, regardless of their history.
impl PartialEq for Snapshot {
    fn eq(&self, other: &Snapshot) -> bool {
        fn nodes(snapshot: &Snapshot) -> BTreeMap<&str, &NodeInfo> {
            snapshot.by_name.iter().map(|(name, &slot)| (name.as_ref(), snapshot.at(slot))).collect()
        }
        fn order(snapshot: &Snapshot) -> Vec<&str> {
            snapshot.order.iter().map(|&slot| snapshot.hashed(slot).1).collect()
        }
        fn owners(snapshot: &Snapshot) -> BTreeMap<(&str, &str), u32> {
            let name_of: HashMap<Slot, &str> = snapshot.by_name.iter().map(|(name, &slot)| (slot, &**name)).collect();
            let counts = snapshot
                .owners
                .iter()
                .flat_map(|(owner, counts)| counts.iter().map(move |(slot, &count)| (owner.as_ref(), *slot, count)));
            counts.map(|(owner, slot, count)| ((owner, name_of[&slot]), count)).collect()
        }
        nodes(self) == nodes(other)
            && order(self) == order(other)
            && owners(self) == owners(other)
            && self.pods == other.pods
    }
}

impl Eq for Snapshot {}

/// Computes FNV-1a with 64 bits. The hash is fixed, because the order must not change between runs or versions of the
/// standard library.
fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests;
