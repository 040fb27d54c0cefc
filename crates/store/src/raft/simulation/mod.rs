//! Deterministic simulation of whole clusters.
//!
//! The store's own code runs here, all of it that is ours or openraft's: proposals, batching, reads, leases, watches, the
//! log with its records and segments, the state, snapshots, the supervisor, and the protocol between members. What it
//! stands on is simulated, by way of [`crate::platform`] and of two types that have a second form:
//!
//! | what | in use | in a simulation |
//! |---|---|---|
//! | runtime, clock, tasks | Tokio | openraft's `SimRuntime`: one thread, simulated time |
//! | a member's process | a process | [`process`]: stopped, gone on with, killed at any await |
//! | files | the system's | [`disk`]: what was not synced may be gone after a power cut |
//! | the state's tables | RocksDB | [`backend`]: tables in memory, flushed as one to the simulated disk |
//! | connections | HTTP/2 over TLS over TCP | [`network`]: delay, loss, cut links, broken connections |
//! | chance | the system's | [`random`]: the seed's |
//!
//! A seed determines everything: the [`cluster`]'s shape, the course of [`faults`], what [`clients`] and [`watchers`] do
//! and when. What they see is [`evidence`], which the [`invariants`] judge. [`planted`] bugs show that they would find
//! one. [`runs`] are the tests.

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
mod random;
mod runs;
mod trial;
mod watchers;
