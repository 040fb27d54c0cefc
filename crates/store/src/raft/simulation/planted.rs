//! Bugs that a simulation can plant in the store, to show that the invariants find them.

use std::cell::Cell;

use super::invariants::Invariant;

thread_local! {
    static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
}

/// A bug that can be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Writes are acknowledged before they are synced to disk.
    AcknowledgesBeforeSync,
    /// Some commands are applied twice.
    AppliesTwice,
    /// The state does not record its applied position.
    LosesPosition,
    /// A leader answers reads without confirming that it still leads.
    ReadsStale,
    /// A leader answers reads from its applied state, although other members may have applied more.
    ReadsWhatIsApplied,
    /// Some events are not delivered.
    WatchSkips,
    /// Leases expire after half of their TTL.
    LeasesEndEarly,
    /// Leases never expire.
    LeasesStay,
    /// A member that has lost its disk is accepted as the member that it was before.
    HearsWhoWasWiped,
    /// Traced transactions are not recognized when they are applied.
    OverlooksLandings,
}

/// All bugs, each with its invariants. At least one of these must find the bug, whatever else it breaks.
pub const BUGS: [(Bug, &[Invariant]); 10] = [
    // Entries or votes are lost, or a log lacks entries that it records as durable and is refused.
    (Bug::AcknowledgesBeforeSync, &[Invariant::Durability, Invariant::Restarts]),
    (Bug::AppliesTwice, &[Invariant::OnceInOrder]),
    // The member applies commands again that it had applied before, unlike the other members.
    (Bug::LosesPosition, &[Invariant::OnceInOrder, Invariant::Equality]),
    (Bug::ReadsStale, &[Invariant::Linearizability]),
    (Bug::ReadsWhatIsApplied, &[Invariant::Linearizability]),
    (Bug::WatchSkips, &[Invariant::Watches]),
    (Bug::LeasesEndEarly, &[Invariant::Leases]),
    // Progress includes that all leases expire.
    (Bug::LeasesStay, &[Invariant::Progress]),
    // Nearly always the leader sees it first: openraft panics when a follower has lost acknowledged entries. Otherwise
    // committed entries are lost or replaced, or a member votes twice in a term.
    (Bug::HearsWhoWasWiped, &[Invariant::Soundness, Invariant::Durability, Invariant::Equality, Invariant::Elections]),
    // A swap that has taken effect is reported as refused.
    (Bug::OverlooksLandings, &[Invariant::OnceInOrder]),
];

/// Whether the simulation on this thread has that bug.
pub fn is(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Plants a bug in the simulation on this thread, or removes it.
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}
