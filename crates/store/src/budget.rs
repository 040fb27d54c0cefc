//! Budgets of bytes for the requests and responses that wait in memory for a client.
//!
//! A reservation moves with the bytes that it is for, and is released with the last of them: HTTP/2 takes a body whole,
//! long before the client reads it.

use std::sync::Arc;

use bytes::Bytes;

use crate::platform::tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A budget of bytes. Clones share it.
#[derive(Clone, Debug)]
pub struct ByteBudget {
    bytes: Arc<Semaphore>,
    /// The permit of the one large reservation that may exceed the budget.
    excess: Arc<Semaphore>,
    /// Maximum size of a reservation that takes nothing from the budget.
    free_bytes: usize,
    /// Minimum size of a reservation that may exceed the budget.
    large_bytes: usize,
}

/// There are not enough bytes left in the budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the memory budget is exhausted")]
pub struct BudgetExhausted;

impl ByteBudget {
    /// Returns a budget that no reservation may exceed. Reservations of up to `free_bytes` take nothing from it.
    #[must_use]
    pub fn new(bytes: usize, free_bytes: usize) -> Self {
        let (bytes, excess) = (Arc::new(Semaphore::new(bytes)), Arc::new(Semaphore::new(0)));
        ByteBudget { bytes, excess, free_bytes, large_bytes: usize::MAX }
    }

    /// Lets one reservation at a time exceed the budget, so that a single one may have any size. It must have at least
    /// `large_bytes`.
    #[must_use]
    pub fn exceeded_by_one(self, large_bytes: usize) -> Self {
        ByteBudget { excess: Arc::new(Semaphore::new(1)), large_bytes, ..self }
    }

    /// Starts a reservation that grows.
    #[must_use]
    pub fn reservation(&self) -> Reservation {
        Reservation { budget: self.clone(), size_bytes: 0, held: None, is_in_excess: false }
    }

    /// Reserves bytes. Returns `None` for so few that they need no reservation.
    ///
    /// # Errors
    /// When the budget is exhausted.
    pub fn hold(&self, bytes: usize) -> Result<Option<HeldBudget>, BudgetExhausted> {
        let mut reservation = self.reservation();
        reservation.grow(bytes)?;
        Ok(reservation.into_held())
    }

    /// Reserves bytes, or as many as are left. Returns `None` for so few that they need no reservation.
    #[must_use]
    pub fn hold_remainder(&self, bytes: usize) -> Option<HeldBudget> {
        if bytes <= self.free_bytes {
            return None;
        }
        loop {
            let left = u32::try_from(bytes.min(self.available_bytes())).unwrap_or(u32::MAX);
            // This fails when another reservation has taken bytes since they were counted.
            if let Ok(permit) = self.bytes.clone().try_acquire_many_owned(left) {
                return Some(HeldBudget::of(permit));
            }
        }
    }

    #[must_use]
    pub fn available_bytes(&self) -> usize {
        self.bytes.available_permits()
    }
}

/// A reservation for bytes that are still being collected. Dropping it releases them.
#[derive(Debug)]
pub struct Reservation {
    budget: ByteBudget,
    size_bytes: usize,
    /// Permits for the whole size, once it exceeds `free_bytes`; or the permit to exceed the budget.
    held: Option<OwnedSemaphorePermit>,
    is_in_excess: bool,
}

impl Reservation {
    /// Reserves more bytes.
    ///
    /// # Errors
    /// When the budget is exhausted. The bytes reserved so far stay reserved.
    pub fn grow(&mut self, bytes: usize) -> Result<(), BudgetExhausted> {
        self.size_bytes += bytes;
        if self.is_in_excess || self.size_bytes <= self.budget.free_bytes {
            return Ok(());
        }
        let missing = self.size_bytes - self.held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let available = &self.budget.bytes;
        let more = u32::try_from(missing).ok().and_then(|more| available.clone().try_acquire_many_owned(more).ok());
        if let Some(more) = more {
            match &mut self.held {
                Some(held) => held.merge(more),
                None => self.held = Some(more),
            }
            return Ok(());
        }
        if self.size_bytes < self.budget.large_bytes {
            return Err(BudgetExhausted);
        }
        let excess = self.budget.excess.clone().try_acquire_owned().map_err(|_| BudgetExhausted)?;
        (self.held, self.is_in_excess) = (Some(excess), true);
        Ok(())
    }

    /// Releases all bytes, because they are collected anew.
    pub fn reset(&mut self) {
        *self = self.budget.reservation();
    }

    /// Returns the reservation to attach to the bytes, or `None` when they need none.
    #[must_use]
    pub fn into_held(self) -> Option<HeldBudget> {
        self.held.map(HeldBudget::of)
    }
}

/// A reservation that is released when its last clone is dropped.
#[derive(Clone, Debug)]
pub struct HeldBudget {
    _permit: Arc<OwnedSemaphorePermit>,
}

impl HeldBudget {
    fn of(permit: OwnedSemaphorePermit) -> Self {
        HeldBudget { _permit: Arc::new(permit) }
    }

    /// Returns bytes that keep this reservation until all parts of them are dropped.
    #[must_use]
    pub fn attach(&self, data: Bytes) -> Bytes {
        Bytes::from_owner(BudgetedBytes { data, _held: self.clone() })
    }
}

struct BudgetedBytes {
    data: Bytes,
    _held: HeldBudget,
}

impl AsRef<[u8]> for BudgetedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_reservations_are_free_and_one_large_one_may_exceed_the_budget() {
        let budget = ByteBudget::new(100, 10).exceeded_by_one(25);
        assert!(budget.hold(10).expect("it is free").is_none());
        let first = budget.hold(90).expect("budget is left").expect("it needs a reservation");
        assert_eq!(budget.hold(11).err(), Some(BudgetExhausted));
        let large = budget.hold(25).expect("it may exceed the budget").expect("it needs a reservation");
        assert_eq!(budget.hold(1000).err(), Some(BudgetExhausted), "only one may exceed it");
        let clone = large.clone();
        drop(large);
        assert_eq!(budget.hold(1000).err(), Some(BudgetExhausted));
        drop(clone);
        assert!(budget.hold(1000).is_ok_and(|held| held.is_some()));
        drop(first);
        assert_eq!(budget.available_bytes(), 100);
        assert_eq!(ByteBudget::new(100, 10).hold(101).err(), Some(BudgetExhausted), "none may exceed this budget");
    }

    #[test]
    fn a_growing_reservation_holds_its_whole_size_and_releases_it_in_excess() {
        let budget = ByteBudget::new(100, 10).exceeded_by_one(25);
        let mut growing = budget.reservation();
        for (size_bytes, left) in [(10, 100), (11, 89), (99, 1), (100, 0)] {
            growing.grow(size_bytes - growing.size_bytes).expect("budget is left");
            assert_eq!(budget.available_bytes(), left, "of {size_bytes}");
        }
        growing.grow(1).expect("it may exceed the budget");
        assert_eq!(budget.available_bytes(), 100, "the budget is for the others");
        growing.grow(1000).expect("its size does not matter any more");
        let mut other = budget.reservation();
        other.grow(100).expect("budget is left");
        assert_eq!(other.grow(1), Err(BudgetExhausted));
        other.reset();
        assert_eq!(budget.available_bytes(), 100);
        drop(growing);
        other.grow(101).expect("it may exceed the budget now");
    }

    #[test]
    fn a_remainder_is_what_is_left() {
        let budget = ByteBudget::new(100, 10);
        assert!(budget.hold_remainder(10).is_none());
        let _first = budget.hold_remainder(60);
        let second = budget.hold_remainder(60);
        assert_eq!(budget.available_bytes(), 0);
        assert!(budget.hold_remainder(60).is_some(), "nothing is left, and nothing is refused");
        drop(second);
        assert_eq!(budget.available_bytes(), 40);
    }

    #[test]
    fn bytes_keep_their_reservation_until_the_last_part_is_dropped() {
        let budget = ByteBudget::new(100, 10);
        let held = budget.hold(50).expect("budget is left").expect("it needs a reservation");
        let data = held.attach(Bytes::from(vec![7; 50]));
        drop(held);
        let rest = data.slice(49..);
        drop(data);
        assert_eq!((budget.available_bytes(), &rest[..]), (50, &[7][..]));
        drop(rest);
        assert_eq!(budget.available_bytes(), 100);
    }
}
