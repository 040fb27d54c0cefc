//! The replicated store: openraft over RocksDB behind one handle, [`Store`].

pub mod backup;
pub mod budget;
pub mod changes;
pub mod error;
pub mod handle;
pub mod hub;
pub mod membership;
mod memory;
mod once;
mod platform;
pub mod raft;
pub mod reader;
pub mod traces;
pub mod watch;

pub use backup::{Backup, BackupError, Manifest};
pub use budget::{BudgetExhausted, ByteBudget, HeldBudget, Reservation};
pub use changes::{Addresses, Change, ChangeError, Changed, Invite, MemberName, Token};
pub use error::StoreError;
pub use handle::{Consistency, LeaseStatus, StateHash, Store};
pub use membership::{Alarm, Identity, Intent, Leadership, Member, MemberId, MemberRole, MemberStatus, QuorumStatus};
pub use reader::{Reader, StateReader};
pub use watch::{IndexFunc, IndexedValue, Watch, WatchBatch, WatchBudget, WatchError, WatchEvents, WatchOptions};
