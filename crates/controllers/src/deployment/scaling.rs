//! Scaling of a deployment. In the middle of a rollout, every set keeps its share.

use std::cmp::Reverse;

use super::Pass;
use super::limits;
use super::revision::{DESIRED_REPLICAS, MAX_REPLICAS, Managed};
use crate::resource::name;

impl Pass<'_> {
    /// Returns whether the deployment's size differs from the size that its sets were scaled for.
    pub(super) fn is_scaling_event(&self) -> bool {
        let wanted = i64::from(self.limits.replicas);
        let mut active = self.sets().filter(|set| set.replicas > 0);
        active.any(|set| set.number(DESIRED_REPLICAS).is_some_and(|desired| desired != wanted))
    }

    /// Scales the sets to the deployment's size. A single active set takes all of it. After a finished rollout, the old
    /// sets are scaled to zero. In the middle of a rollout, the difference is spread in proportion to the sets' sizes.
    pub(super) fn scale(&mut self) {
        let limits = self.limits;
        let is_saturated = self.is_saturated();
        if let Some(set) = self.active_or_latest() {
            set.scale(limits.replicas, &limits);
        } else if is_saturated {
            for set in self.old.iter_mut().filter(|set| set.replicas > 0) {
                set.scale(0, &limits);
            }
        } else if limits::is_recreate(self.deployment) {
            // Several sets of a Recreate deployment are active. The rollout scales them down, so only their annotations
            // change.
            for set in self.active_mut() {
                set.scale(set.replicas, &limits);
            }
        } else {
            self.scale_in_proportion();
        }
    }

    /// Returns the only set with pods, or the newest set when none has pods.
    fn active_or_latest(&mut self) -> Option<&mut Managed> {
        match self.sets().filter(|set| set.replicas > 0).count() {
            0 if self.new.is_some() => self.new.as_mut(),
            0 => self.old.last_mut(),
            1 => self.active_mut().next(),
            _ => None,
        }
    }

    fn active_mut(&mut self) -> impl Iterator<Item = &mut Managed> {
        self.new.iter_mut().chain(&mut self.old).filter(|set| set.replicas > 0)
    }

    /// Returns whether the new set has all the pods that the deployment asks for, and all are available.
    fn is_saturated(&self) -> bool {
        let wanted = self.limits.replicas;
        self.new.as_ref().is_some_and(|new| {
            new.number(DESIRED_REPLICAS) == Some(i64::from(wanted))
                && new.replicas == wanted
                && new.available() == wanted
        })
    }

    fn scale_in_proportion(&mut self) {
        let limits = self.limits;
        let observed = self.deployment.status.as_ref().and_then(|status| status.replicas).unwrap_or(0);
        let total: i32 = self.sets().map(|set| set.replicas).sum();
        let allowed = if limits.replicas > 0 { limits.max_total() } else { 0 };
        let missing = allowed - total;

        let mut sets: Vec<&mut Managed> = self.active_mut().collect();
        // The largest set takes the rounding error. Among sets of equal size, the newest grows first and the oldest
        // shrinks first.
        sets.sort_by_key(|set| {
            let metadata = &set.object().metadata;
            let created = metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second());
            let age = if missing > 0 { -created } else { created };
            (Reverse(set.replicas), age, name(metadata).to_owned())
        });
        let mut spread = 0;
        let mut sizes = Vec::with_capacity(sets.len());
        for set in &sets {
            let share = share_of(set, limits.replicas, limits.max_total(), observed);
            let share = if missing > 0 { share.min(missing - spread) } else { share.max(missing - spread) };
            let share = if missing == 0 || missing == spread { 0 } else { share };
            spread += share;
            sizes.push(set.replicas + share);
        }
        if let Some(largest) = sizes.first_mut() {
            *largest = (*largest + missing - spread).max(0);
        }
        for (set, size) in sets.into_iter().zip(sizes) {
            set.scale(size, &limits);
        }
    }
}

/// Returns the change in size by which the set keeps its share of the deployment.
fn share_of(set: &Managed, replicas: i32, max_total: i32, observed: i32) -> i32 {
    if replicas == 0 {
        return -set.replicas;
    }
    let before = set.number(MAX_REPLICAS).filter(|before| *before > 0).unwrap_or(i64::from(observed));
    if before <= 0 {
        return 0;
    }
    let scaled = i64::from(set.replicas) * i64::from(max_total);
    // Rounded half up.
    let size = (2 * scaled + before) / (2 * before);
    i32::try_from(size).unwrap_or(i32::MAX) - set.replicas
}
