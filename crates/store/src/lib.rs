//! The replicated store: openraft over RocksDB behind one handle, [`Store`].

pub mod error;
pub mod handle;
pub mod hub;
pub mod membership;
mod memory;
pub mod raft;
pub mod watch;

pub use error::StoreError;
pub use handle::{Consistency, Store};
pub use membership::{Leadership, Member, MemberId, MemberRole, MemberStatus, QuorumStatus};
pub use watch::{Watch, WatchBatch, WatchError};
