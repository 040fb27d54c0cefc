//! The Raft log.
//!
//! openraft hands over entries, votes, truncations and purges in an order that must survive a crash. They become
//! visible to readers at once, in [`view`], and go through one queue to one thread ([`writer`]). The thread turns all
//! queued tasks into a single write with a single fsync, and only then calls their callbacks. So the core never waits
//! for the disk, and one fsync serves all tasks that wait for it.
//!
//! [`disk`] keeps the log in segments ([`segment`]) of records ([`record`]), which [`batch`] makes of changes, [`index`]
//! finds again, and [`recovery`] reads when the log is opened. [`votes`] remembers whom this member has voted for. This
//! module does not interpret commands.

mod batch;
mod disk;
mod index;
mod reader;
mod record;
mod recovery;
mod segment;
mod store;
#[cfg(test)]
pub mod tests;
mod view;
pub mod votes;
mod writer;

pub use store::{LogOptions, LogStore};
