//! The applied state on RocksDB.
//!
//! Its database runs without a WAL: the Raft log is the WAL. All tables are flushed together, so whatever is on disk is
//! the state at one applied index, and what is missing is replayed from the log.
//!
//! [`backend`] puts the tables of `quorate-mvcc` into column families, [`fault`] knows what its errors mean,
//! [`directory`] keeps the database's directories across the installation of snapshots, and [`store`] is the state that
//! the rest of the member uses, and [`open`] what readers have of it while it is open.

pub mod backend;
pub mod directory;
pub mod fault;
mod open;
pub mod store;

pub use open::OpenState;
pub use store::{StateOptions, StateStore};

/// What the state lies in.
#[cfg(not(test))]
pub type StateBackend = backend::RocksBackend;
#[cfg(test)]
pub type StateBackend = crate::raft::simulation::backend::EitherBackend;
