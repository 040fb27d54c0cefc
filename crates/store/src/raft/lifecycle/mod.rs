//! The life of a member on this machine: its start, the Raft instance that may die and be opened again, its end, and the
//! tools that work on a stopped member's directory.
//!
//! [`start`] starts a member, [`supervisor`] keeps a Raft instance running in it, [`closing`] tells when the databases of
//! an instance are closed. A member ends by itself for a [`FirstReason`](first_reason::FirstReason), when its state is
//! damaged ([`damage`]), or with one of the [`exit_codes`]. [`identity`] is the owner of a data directory; [`recovery`]
//! and [`restore`] change the directory of a member that does not run.
//!
//! Membership changes are in [`membership`](super::membership).

pub mod closing;
pub mod damage;
pub mod exit_codes;
pub mod first_reason;
pub mod identity;
pub mod recovery;
pub mod restore;
pub mod start;
pub mod supervisor;
