//! The shell of `quorate-scheduler`: its view of the cluster, kept up to date on every master, and the leader's loop
//! that decides and binds.

mod runner;
mod status;
mod view;

pub(crate) use runner::SchedulerRunner;
pub(crate) use view::Scheduling;
