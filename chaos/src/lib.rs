//! Chaos: a quorum of real processes with workers, clients that record their observations, faults on a seeded schedule,
//! and checks of the recorded history.
//!
//! | module | holds |
//! |---|---|
//! | [`fault`], [`schedule`], [`world`] | pure: the faults, their times, and the combined effect of the active ones |
//! | [`history`], [`checker`] | pure: recorded observations, and the checks on them |
//! | [`cluster`] | the processes of members and agents, the network between them, their disks, clocks and machines |
//! | [`nemesis`], [`replacement`] | carry out the schedule |
//! | [`clients`], [`leader`] | send requests and record the answers |
//! | [`run`], [`settle`], [`ending`] | a whole run, from an empty directory to the history |
//! | [`verdict`], [`report`] | pure: all checks, and their report |

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
