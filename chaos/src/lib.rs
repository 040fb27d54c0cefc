//! Chaos: a quorum of real processes, clients that record what they see, faults on a seeded schedule, and checks of the
//! recorded history.

pub mod checker;
pub mod history;
