//! The store's interface to the system: the runtime and its clock, tasks and threads, files, and randomness.
//!
//! Outside of tests, these are re-exports of Tokio and the standard library ([`real`]), without anything in between. In
//! this crate's tests each has a simulated form behind the same name, which is used when a simulation runs on the
//! current thread ([`switched`]). The store's code therefore runs unchanged in simulated time and on simulated disks,
//! and a seed decides every interleaving. See [`crate::raft::simulation`].
//!
//! Code that depends on time, tasks, files or randomness must use this module and not the crates behind it.

#[cfg(not(test))]
mod real;
#[cfg(test)]
mod switched;

#[cfg(not(test))]
pub use real::*;
#[cfg(test)]
pub use switched::*;
