//! Runs the controllers of `quorate-controllers`: a work queue for each, workers that reconcile one key at a time, and
//! the executor of their plans.

mod dispatch;
mod executor;
mod runner;
mod work_queue;

pub(crate) use dispatch::Dispatch;
pub(crate) use executor::Executor;
pub(crate) use runner::ControllerRunner;
