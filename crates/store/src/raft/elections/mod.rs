//! Who leads: votes for candidates ([`voting`]), an early election when the leader's process is dead ([`failover`]), and
//! the leader as this member knows it ([`leadership`]).
//!
//! openraft runs the elections. Work that only a leader does is not here: see [`upkeep`](super::upkeep) and
//! [`membership`](super::membership).

pub mod failover;
pub mod leadership;
pub mod voting;
