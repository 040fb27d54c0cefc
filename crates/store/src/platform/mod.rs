//! What the store takes from the system: the runtime and its clock, tasks and threads, files, and chance.
//!
//! In a build for use these are Tokio's and the standard library's own, by re-export ([`real`]); nothing lies between.
//! In a build for this crate's tests each has a second form behind the same name, and which one it is is decided where a
//! simulation runs on the thread ([`switched`]): so the store's own code, unchanged, runs in simulated time, on simulated
//! disks, with every interleaving decided by a seed. See [`crate::raft::simulation`].
//!
//! Whatever depends on time, tasks, files or chance names these, and not the crates behind them.

#[cfg(not(test))]
mod real;
#[cfg(test)]
mod switched;

#[cfg(not(test))]
pub use real::*;
#[cfg(test)]
pub use switched::*;
