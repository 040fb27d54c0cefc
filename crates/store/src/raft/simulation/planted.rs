//! Bugs that a simulation can have in the store, to see that they are found.

use std::cell::Cell;

use super::invariants::Invariant;

thread_local! {
    static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
}

/// What may be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Writes are acknowledged when they are written, not when they are on disk.
    AcknowledgesBeforeSync,
    /// Some commands are applied a second time.
    AppliesTwice,
    /// The state does not know up to where it was applied.
    LosesPosition,
    /// A leader answers reads without asking whether it still leads.
    ReadsStale,
    /// A leader answers with what it has applied, though others may have applied more.
    ReadsWhatIsApplied,
    /// Some events are delivered to nobody.
    WatchSkips,
    /// Leases end when half of their time is over.
    LeasesEndEarly,
    /// Leases never end.
    LeasesStay,
    /// Who has lost its disk is taken for who had it.
    HearsWhoWasWiped,
    /// A transaction whose answer was lost is told from others by nothing.
    OverlooksLandings,
}

/// All of them, each with the invariants that are about it: it is found by one of these, whatever else it breaks.
pub const BUGS: [(Bug, &[Invariant]); 10] = [
    // Entries are lost, or votes; or a log misses what it says was on the disk, and is refused.
    (Bug::AcknowledgesBeforeSync, &[Invariant::Durability, Invariant::Restarts]),
    (Bug::AppliesTwice, &[Invariant::OnceInOrder]),
    // It applies again what it had applied, which no other member does.
    (Bug::LosesPosition, &[Invariant::OnceInOrder, Invariant::Equality]),
    (Bug::ReadsStale, &[Invariant::Linearizability]),
    (Bug::ReadsWhatIsApplied, &[Invariant::Linearizability]),
    (Bug::WatchSkips, &[Invariant::Watches]),
    (Bug::LeasesEndEarly, &[Invariant::Leases]),
    // That all leases end is a part of it.
    (Bug::LeasesStay, &[Invariant::Progress]),
    // Nearly always the leader is the first to see it: openraft panics when a follower has forgotten what it had
    // acknowledged. Else what was committed is lost or replaced, or a vote is given twice.
    (Bug::HearsWhoWasWiped, &[Invariant::Soundness, Invariant::Durability, Invariant::Equality, Invariant::Elections]),
    // A swap that has taken effect is told to have been refused.
    (Bug::OverlooksLandings, &[Invariant::OnceInOrder]),
];

/// Whether the simulation on this thread has that bug.
pub fn is(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Has everything that runs on this thread have a bug, or none.
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}
