//! The two strategies: growing the new set while the old ones shrink, or only once their pods are gone.

use super::Pass;
use super::status::is_complete;
use super::{limits, revision::Managed};
use crate::pod_state::is_terminal;
use crate::resource::uid;

impl Pass<'_> {
    /// RollingUpdate: one step up or one step down in each pass, decided on what is observed.
    pub(super) fn roll(&mut self) {
        if !self.ensure_new() || self.grow_new() || self.shrink_old() {
            return;
        }
        if is_complete(self.deployment, &self.status()) {
            self.clean_up();
        }
    }

    /// Recreate: no new pod before the last old one has ended.
    pub(super) fn recreate(&mut self) {
        self.sync_revision();
        let limits = self.limits;
        let mut scaled = false;
        for set in self.old.iter_mut().filter(|set| set.replicas > 0) {
            scaled |= set.scale(0, &limits);
        }
        if scaled || self.are_old_pods_left() || !self.ensure_new() || self.grow_new() {
            return;
        }
        if is_complete(self.deployment, &self.status()) {
            self.clean_up();
        }
    }

    /// How many pods the new set may have, given that it has `present` of them.
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

    /// Takes pods from the old sets, first those that serve nobody anyway, as far as enough stay available.
    fn shrink_old(&mut self) -> bool {
        let limits = self.limits;
        let new_replicas = self.new.as_ref().map_or(0, |new| new.replicas);
        let new_available = self.new.as_ref().map_or(0, Managed::lasting_available);
        let old_replicas: i32 = self.old.iter().map(|set| set.replicas).sum();
        if old_replicas == 0 {
            return false;
        }
        // As if every old pod were available: what the specs alone still allow to go.
        let may_go = old_replicas + new_replicas - limits.min_available() - (new_replicas - new_available);
        if may_go <= 0 {
            return false;
        }
        let mut gone = 0;
        for set in self.old.iter_mut().filter(|set| set.replicas > 0) {
            let unhealthy = (set.replicas - set.lasting_available()).min(may_go - gone);
            if unhealthy > 0 {
                set.scale(set.replicas - unhealthy, &limits);
                gone += unhealthy;
            }
        }
        let available = new_available + self.old.iter().map(Managed::lasting_available).sum::<i32>();
        let mut spare = (available - limits.min_available()).min(may_go - gone);
        for set in self.old.iter_mut().filter(|set| set.replicas > 0) {
            let step = set.replicas.min(spare);
            if step > 0 {
                set.scale(set.replicas - step, &limits);
                spare -= step;
                gone += step;
            }
        }
        gone > 0
    }

    /// Pods of old sets that run or may run, which includes those still terminating.
    fn are_old_pods_left(&self) -> bool {
        self.old.iter().any(|set| {
            let mut pods = self.cache.controlled_pods(uid(&set.object().metadata));
            set.observed_replicas() > 0 || pods.any(|pod| !is_terminal(pod))
        })
    }
}
