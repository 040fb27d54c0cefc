//! Bugs that a simulation can have in the store, to see that they are found.

use std::cell::Cell;

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
}

impl Bug {
    pub const ALL: [Bug; 9] = [
        Bug::AcknowledgesBeforeSync,
        Bug::AppliesTwice,
        Bug::LosesPosition,
        Bug::ReadsStale,
        Bug::ReadsWhatIsApplied,
        Bug::WatchSkips,
        Bug::LeasesEndEarly,
        Bug::LeasesStay,
        Bug::HearsWhoWasWiped,
    ];
}

/// Whether the simulation on this thread has that bug.
pub fn is(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Has everything that runs on this thread have a bug, or none.
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}
