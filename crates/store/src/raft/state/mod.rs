//! The applied state on RocksDB.
//!
//! The database runs without a WAL: the Raft log is the WAL. All tables are flushed together, so the disk holds the
//! state at one applied index, and later entries are replayed from the log.
//!
//! [`backend`] maps the tables of `quorate-mvcc` to column families, [`fault`] classifies its errors, and [`directory`]
//! keeps the database's directories across the installation of snapshots. [`store`] is the state that the rest of the
//! member uses, and [`open`] the handle that readers hold on it.

pub mod backend;
pub mod directory;
pub mod fault;
mod open;
pub mod store;

pub use open::OpenState;
pub use store::{StateOptions, StateStore};

/// The backend of the state.
#[cfg(not(test))]
pub type StateBackend = backend::RocksBackend;
#[cfg(test)]
pub type StateBackend = crate::raft::simulation::backend::EitherBackend;
