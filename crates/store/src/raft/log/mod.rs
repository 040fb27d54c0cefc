//! The Raft log.
//!
//! openraft hands over entries, votes, truncations and purges in an order that must survive a crash. They become
//! visible to readers at once, in [`view`], and go through one queue to one thread ([`writer`]) that turns everything
//! that waits into a single write with a single fsync. Only then do the callbacks fire. So the core never waits for
//! the disk, and one fsync serves all who wait for it.
//!
//! [`disk`] keeps the log in segments ([`segment`]) of records ([`record`]). Nothing here knows what an entry means.

mod disk;
mod reader;
mod record;
mod segment;
mod store;
#[cfg(test)]
pub mod tests;
mod view;
mod writer;

pub use store::{LogOptions, LogStore};
