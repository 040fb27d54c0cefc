//! The two strategies. RollingUpdate grows the new set while the old ones shrink; Recreate grows it once the old pods
//! are removed.

use super::Pass;
use super::status::is_complete;
use super::{limits, revision::Managed};
use crate::pod_state::is_terminal;
use crate::resource::uid;

impl Pass<'_> {
    /// RollingUpdate: each pass makes one step up or one step down, based on the observed state.
    pub(super) fn roll(&mut self) {
        if !self.ensure_new() || self.grow_new() || self.shrink_old() {
            return;
        }
        if is_complete(self.deployment, &self.status()) {
            self.clean_up();
        }
    }

    /// Recreate: no new pod starts before the last old one has ended.
    pub(super) fn recreate(&mut self) {
        self.sync_revision();
        let limits = self.limits;
        let mut scaled = false;
        for set in self.old.iter_mut().filter(|set| set.replicas > 0) {
            scaled |= set.scale(0, &limits);
        }
        if scaled || self.has_old_pods() || !self.ensure_new() || self.grow_new() {
            return;
        }
        if is_complete(self.deployment, &self.status()) {
            self.clean_up();
        }
    }

    /// Returns how many pods the new set may have, given that its spec has `present`.
    pub(super) fn room_for_new(&self, present: i32) -> i32 {
        let Self { limits, old, .. } = self;
        if limits::is_recreate(self.deployment) {
            return limits.replicas;
        }
        let new = self.new.as_ref().map_or(0, Managed::extant).max(present);
        let room = limits.max_total() - new - old.iter().map(Managed::extant).sum::<i32>();
        if room <= 0 { present } else { present + room.min(limits.replicas - present) }
    }

    fn grow_new(&mut self) -> bool {
        let limits = self.limits;
        let Some(present) = self.new.as_ref().map(|new| new.replicas) else { return false };
        let wanted = if present >= limits.replicas { limits.replicas } else { self.room_for_new(present) };
        wanted != present && self.new.as_mut().is_some_and(|new| new.scale(wanted, &limits))
    }

    /// Scales the old sets down while enough pods stay available. Unavailable pods go first.
    fn shrink_old(&mut self) -> bool {
        let limits = self.limits;
        let new_replicas = self.new.as_ref().map_or(0, |new| new.replicas);
        let new_available = self.new.as_ref().map_or(0, Managed::lasting_available);
        let old_replicas: i32 = self.old.iter().map(|set| set.replicas).sum();
        if old_replicas == 0 {
            return false;
        }
        // Upper bound of the pods to remove: every old pod counts as available here.
        let max_removed = old_replicas + new_replicas - limits.min_available() - (new_replicas - new_available);
        if max_removed <= 0 {
            return false;
        }
        let mut removed = 0;
        for set in self.old.iter_mut().filter(|set| set.replicas > 0) {
            let unhealthy = (set.replicas - set.lasting_available()).min(max_removed - removed);
            if unhealthy > 0 {
                set.scale(set.replicas - unhealthy, &limits);
                removed += unhealthy;
            }
        }
        let available = new_available + self.old.iter().map(Managed::lasting_available).sum::<i32>();
        let mut spare = (available - limits.min_available()).min(max_removed - removed);
        for set in self.old.iter_mut().filter(|set| set.replicas > 0) {
            let step = set.replicas.min(spare);
            if step > 0 {
                set.scale(set.replicas - step, &limits);
                spare -= step;
                removed += step;
            }
        }
        removed > 0
    }

    /// Returns whether pods of old sets run or may still run, terminating pods included.
    fn has_old_pods(&self) -> bool {
        self.old.iter().any(|set| {
            let mut pods = self.cache.controlled_pods(uid(&set.object().metadata));
            set.observed_replicas() > 0 || pods.any(|pod| !is_terminal(pod))
        })
    }
}
