//! Table of this node's containers, by pod. Every change notifies the pod's worker.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::look::OOM_KILLED;
use crate::plan::{ContainerRecord, Observed, PodRef, Role, RunState, Sandbox};
use crate::runtime::KnownPod;

/// Exit code of a container that SIGKILL ended.
const KILLED: i32 = 128 + 9;
/// Maximum number of removed containers that are remembered.
const REMEMBERED: usize = 1024;

/// One container of the agent, of which no more than its labels are known.
#[derive(Clone, Debug)]
pub(super) struct Container {
    pub pod: PodRef,
    pub id: String,
    pub role: Role,
}

/// One container in its last known state.
#[derive(Clone, Debug)]
pub(super) enum Seen {
    Sandbox(Sandbox),
    Container(ContainerRecord),
}

impl Seen {
    pub(super) fn id(&self) -> &str {
        match self {
            Seen::Sandbox(sandbox) => &sandbox.id,
            Seen::Container(record) => &record.id,
        }
    }
}

struct Entry {
    pod: Option<PodRef>,
    state: watch::Sender<Arc<Observed>>,
}

impl Entry {
    fn new() -> Self {
        Entry { pod: None, state: watch::Sender::new(Arc::default()) }
    }
}

/// Ids of the containers that were removed last. An inspection that began before the removal may end after it.
#[derive(Default)]
struct Gone {
    ids: HashSet<String>,
    oldest_first: VecDeque<String>,
}

impl Gone {
    fn add(&mut self, id: &str) {
        if self.ids.insert(id.to_owned()) {
            self.oldest_first.push_back(id.to_owned());
        }
        if self.oldest_first.len() > REMEMBERED
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            self.ids.remove(&oldest);
        }
    }
}

#[derive(Default)]
pub(super) struct Table {
    pods: Mutex<HashMap<String, Entry>>,
    /// Locked before `pods`, and for as long.
    gone: Mutex<Gone>,
}

impl Table {
    pub(super) fn subscribe(&self, uid: &str) -> watch::Receiver<Arc<Observed>> {
        self.pods.lock().entry(uid.to_owned()).or_insert_with(Entry::new).state.subscribe()
    }

    pub(super) fn observed(&self, uid: &str) -> Arc<Observed> {
        self.pods.lock().get(uid).map(|entry| Arc::clone(&entry.state.borrow())).unwrap_or_default()
    }

    /// Drops the pod's entry if it is empty and has no subscribers.
    pub(super) fn forget(&self, uid: &str) {
        let mut pods = self.pods.lock();
        let idle = pods.get(uid).is_some_and(|e| e.state.receiver_count() == 0 && e.state.borrow().is_empty());
        if idle {
            pods.remove(uid);
        }
    }

    pub(super) fn known(&self) -> Vec<KnownPod> {
        let pods = self.pods.lock();
        let known = pods.values().filter_map(|entry| {
            let observed = entry.state.borrow();
            let pod = entry.pod.clone().filter(|_| !observed.is_empty())?;
            Some(KnownPod { pod, may_run: observed.sandbox().is_some() || !observed.unknown.is_empty() })
        });
        known.collect()
    }

    pub(super) fn update(&self, pod: &PodRef, seen: Seen) {
        let gone = self.gone.lock();
        if gone.ids.contains(seen.id()) {
            return;
        }
        let mut pods = self.pods.lock();
        let entry = pods.entry(pod.uid.clone()).or_insert_with(Entry::new);
        entry.pod = Some(pod.clone());
        entry.state.send_if_modified(|observed| {
            let observed = Arc::make_mut(observed);
            let was_unknown = observed.unknown.remove(seen.id()).is_some();
            merge(observed, seen) || was_unknown
        });
    }

    /// Notes that the state of a container could not be found out. Returns whether this is news. A container that has
    /// ended stays so.
    pub(super) fn lose(&self, pod: &PodRef, id: &str, role: Role) -> bool {
        let gone = self.gone.lock();
        if gone.ids.contains(id) || self.ended(&pod.uid, id).is_some() {
            return false;
        }
        let mut pods = self.pods.lock();
        let entry = pods.entry(pod.uid.clone()).or_insert_with(Entry::new);
        entry.pod = Some(pod.clone());
        entry.state.send_if_modified(|observed| Arc::make_mut(observed).unknown.insert(id.to_owned(), role).is_none())
    }

    /// Returns the containers whose state could not be found out.
    pub(super) fn unknown(&self) -> Vec<Container> {
        let pods = self.pods.lock();
        let unknown = pods.values().filter_map(|entry| {
            let pod = entry.pod.clone()?;
            Some(
                entry
                    .state
                    .borrow()
                    .unknown
                    .iter()
                    .map(|(id, role)| Container { pod: pod.clone(), id: id.clone(), role: *role })
                    .collect::<Vec<_>>(),
            )
        });
        unknown.flatten().collect()
    }

    pub(super) fn is_unknown(&self, container: &Container) -> bool {
        self.observed(&container.pod.uid).unknown.contains_key(&container.id)
    }

    pub(super) fn remove(&self, uid: &str, id: &str) {
        let mut gone = self.gone.lock();
        gone.add(id);
        let pods = self.pods.lock();
        let Some(entry) = pods.get(uid) else { return };
        entry.state.send_if_modified(|observed| drop_where(observed, |other| other == id));
    }

    /// Notes that a container ran out of memory. Docker reports it in a separate event, possibly after the exit.
    pub(super) fn ran_out_of_memory(&self, uid: &str, id: &str) {
        let pods = self.pods.lock();
        let Some(entry) = pods.get(uid) else { return };
        entry.state.send_if_modified(|observed| {
            let observed = Arc::make_mut(observed);
            let Some(record) = observed.containers.iter_mut().find(|record| record.id == id) else { return false };
            let RunState::Exited(exit) = &mut record.state else { return false };
            let is_news = exit.code == KILLED && exit.reason != OOM_KILLED;
            if is_news {
                OOM_KILLED.clone_into(&mut exit.reason);
            }
            is_news
        });
    }

    /// Removes containers that are missing from a complete list, unless they appeared after the list was requested.
    pub(super) fn retain(&self, ids: &HashSet<String>, known_before: &HashSet<String>) {
        let is_gone = |id: &str| known_before.contains(id) && !ids.contains(id);
        let mut gone = self.gone.lock();
        known_before.difference(ids).for_each(|id| gone.add(id));
        for entry in self.pods.lock().values() {
            entry.state.send_if_modified(|observed| drop_where(observed, is_gone));
        }
    }

    pub(super) fn ids(&self) -> HashSet<String> {
        let pods = self.pods.lock();
        let ids = pods.values().flat_map(|entry| {
            let observed = entry.state.borrow();
            let containers = observed.containers.iter().map(|record| record.id.clone());
            let sandboxes = observed.sandboxes.iter().map(|sandbox| sandbox.id.clone());
            containers.chain(sandboxes).chain(observed.unknown.keys().cloned()).collect::<Vec<_>>()
        });
        ids.collect()
    }

    /// Returns the record of a container, if it is known to have ended.
    pub(super) fn ended(&self, uid: &str, id: &str) -> Option<ContainerRecord> {
        let observed = self.observed(uid);
        observed.containers.iter().find(|record| record.id == id && record.exit().is_some()).cloned()
    }
}

/// Removes everything with such an id, and returns whether there was anything.
fn drop_where(observed: &mut Arc<Observed>, is_dropped: impl Fn(&str) -> bool) -> bool {
    let any = observed.containers.iter().any(|record| is_dropped(&record.id))
        || observed.sandboxes.iter().any(|sandbox| is_dropped(&sandbox.id))
        || observed.unknown.keys().any(|id| is_dropped(id));
    if any {
        let observed = Arc::make_mut(observed);
        observed.containers.retain(|record| !is_dropped(&record.id));
        observed.sandboxes.retain(|sandbox| !is_dropped(&sandbox.id));
        observed.unknown.retain(|id, _| !is_dropped(id));
    }
    any
}

/// Merges the state of a container, and returns whether anything changed. Inspections may finish out of order. A
/// container only moves from created to running to ended, so a state before the known one is outdated and ignored.
fn merge(observed: &mut Observed, seen: Seen) -> bool {
    match seen {
        Seen::Sandbox(sandbox) => match observed.sandboxes.iter_mut().find(|known| known.id == sandbox.id) {
            Some(known) if *known == sandbox || sandbox.state < known.state => false,
            Some(known) => {
                // Docker shows no address for a stopped sandbox, so the last known one is kept.
                let ips = std::mem::take(&mut known.ips);
                *known = sandbox;
                if known.ips.is_empty() {
                    known.ips = ips;
                }
                true
            }
            None => {
                observed.sandboxes.push(sandbox);
                true
            }
        },
        Seen::Container(record) => match observed.containers.iter_mut().find(|known| known.id == record.id) {
            Some(known) if *known == record || rank(&record.state) < rank(&known.state) => false,
            Some(known) => {
                *known = record;
                true
            }
            None => {
                observed.containers.push(record);
                true
            }
        },
    }
}

fn rank(state: &RunState) -> u8 {
    match state {
        RunState::Created => 0,
        RunState::Running { .. } => 1,
        RunState::Exited(_) => 2,
    }
}
