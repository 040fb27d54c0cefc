//! The applied state on RocksDB.
//!
//! The database runs without a WAL: the Raft log is the WAL. All tables are flushed together, so the disk holds the
//! state at one applied index, and later entries are replayed from the log.
//!
//! [`backend`] maps the tables of `quorate-mvcc` to column families, [`fault`] classifies its errors, and [`directory`]
//! keeps the database's directories across the installation of snapshots. [`store`] is the state that the rest of the
//! member uses, and [`open`] the handle that readers hold on it. [`state_machine`] applies openraft's entries to it,
//! [`snapshot`] is a copy of it, and [`watching`] the watch hub over a state that may be replaced.
//!
//! Entries that are not applied are in [`log`](super::log).

pub mod backend;
pub mod directory;
pub mod fault;
mod open;
pub mod snapshot;
pub mod state_machine;
pub mod store;
pub mod watching;

pub use open::OpenState;
pub use store::{StateOptions, StateStore};

/// The backend of the state.
#[cfg(not(test))]
pub type StateBackend = backend::RocksBackend;
#[cfg(test)]
pub type StateBackend = crate::raft::simulation::backend::EitherBackend;
