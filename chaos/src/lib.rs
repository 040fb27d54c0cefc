//! Chaos: a quorum of real processes with workers, clients that record what they see, faults on a seeded schedule, and checks of the
//! recorded history.
//!
//! | module | holds |
//! |---|---|
//! | [`fault`], [`schedule`], [`world`] | pure: the faults, which comes when, and what the active ones add up to |
//! | [`history`], [`checker`] | pure: what was seen, and what it must fulfil |
//! | [`cluster`] | the processes of members and agents, the network between them, their disks, clocks and machines |
//! | [`nemesis`], [`replacement`] | carries out the schedule |
//! | [`clients`], [`leader`] | ask and record |
//! | [`run`], [`settle`], [`ending`] | all of it, from the empty directory to the history |
//! | [`verdict`], [`report`] | pure: all checks, and how they are told |

pub mod checker;
pub mod clients;
pub mod cluster;
pub mod ending;
pub mod fault;
pub mod history;
pub mod leader;
pub mod nemesis;
pub mod replacement;
pub mod report;
pub mod run;
pub mod schedule;
pub mod settle;
pub mod verdict;
pub mod world;
