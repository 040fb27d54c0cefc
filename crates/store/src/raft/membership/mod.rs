//! Who belongs to the quorum: how it forms, how members join and leave, and which of them vote.
//!
//! [`roster`] is the membership as this member knows it. [`formation`] begins the log of a new quorum. [`invitations`]
//! are for members that may come, [`joining`] lets them in, and [`departure`] notices that this member is out.
//! [`changing`] changes the membership while this member leads, and [`balance`] decides who votes, as a pure function.
//!
//! Leadership is in [`elections`](super::elections).

pub mod balance;
pub mod changing;
pub mod departure;
pub mod formation;
pub mod invitations;
pub mod joining;
pub mod roster;
