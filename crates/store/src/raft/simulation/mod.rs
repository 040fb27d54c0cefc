//! Deterministic simulation of whole clusters.
//!
//! The store's own code and openraft's run here unchanged: proposals, batching, reads, leases, watches, the log with
//! its records and segments, the state, snapshots, the supervisor, and the protocol between members. The layers below
//! are simulated, through [`crate::platform`] and two types that have a second form:
//!
//! | layer | in use | in a simulation |
//! |---|---|---|
//! | runtime, clock, tasks | Tokio | openraft's `SimRuntime`: one thread, simulated time |
//! | a member's process | a process | [`process`]: stopped, resumed, or killed at any await |
//! | files | the system's | [`disk`]: a power cut may lose unsynced data |
//! | the state's tables | RocksDB | [`backend`]: tables in memory, flushed together to the simulated disk |
//! | connections | HTTP/2 over TLS over TCP | [`network`]: delay, loss, cut links, broken connections |
//! | randomness | the system's | [`random`]: derived from the seed |
//!
//! A seed determines everything: the shape of the [`cluster`], the [`faults`], and the actions of [`clients`] and
//! [`watchers`] with their times. Their observations are the [`evidence`], which the [`invariants`] check. [`planted`]
//! bugs show that the invariants can fail. [`runs`] has the tests.

pub mod backend;
mod clients;
mod cluster;
pub mod disk;
mod evidence;
mod faults;
mod invariants;
pub mod network;
pub mod planted;
pub mod process;
mod proofs;
mod random;
mod runs;
mod trial;
mod watchers;
