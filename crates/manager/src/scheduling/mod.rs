//! Runs the scheduler of `quorate-scheduler`: its view of the cluster, kept warm on every master, and on the leader the
//! loop that decides and binds.

mod runner;
mod status;
mod view;

pub(crate) use runner::SchedulerRunner;
pub(crate) use view::Scheduling;
