//! A member's background tasks: the end of leases ([`leases`]), compaction ([`compaction`]), the purge of the log
//! ([`log_purge`]) and the proof of its last batch ([`log_proof`]), the space on the disk ([`space`]), and the comparison
//! of states ([`integrity`]).
//!
//! The tasks that change the membership are in [`membership`](super::membership).

pub mod compaction;
pub mod integrity;
pub mod leases;
pub mod log_proof;
pub mod log_purge;
pub mod space;
