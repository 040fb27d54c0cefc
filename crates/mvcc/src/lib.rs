//! The state machine of the store, without the replication: commands in, a deterministic `apply`, events out.
//!
//! It is multi-version like etcd v3: each transaction that changes something gets a revision, and there are historical
//! reads, leases and compaction. The crate is pure: it reads through [`Backend`] and returns the changes, without a
//! clock, randomness or I/O.

pub mod apply;
pub mod backend;
pub mod command;
mod compact;
pub mod event;
mod hash;
pub mod index;
pub mod kv;
pub mod layout;
pub mod lease;
pub mod memory;
mod range;
mod read_txn;
pub mod replay;
pub mod state;
mod txn;
mod view;

pub use apply::{Applied, Applier};
pub use backend::{Backend, BackendError, Cursor, Table, WriteBatch};
pub use command::*;
pub use event::{Event, Previous};
pub use kv::{KeyRange, KeyValue, LeaseId, next_key};
pub use lease::LeaseInfo;
pub use memory::MemoryBackend;
pub use range::RangePage;
pub use read_txn::{ReadPlan, ReadTxn};
pub use replay::EventPage;
pub use state::{Prepared, ReadError, State};
