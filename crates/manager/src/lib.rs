//! What runs on the leader alone, and what every master keeps warm for the day that it leads: informer, leader gate,
//! controllers, scheduler, events. Decisions are made in the pure crates `quorate-controllers` and
//! `quorate-scheduler`; here they are carried out, always through the API's pipeline. Nothing here names a kind except
//! where scheduling and events are about that kind.

mod cluster;
mod config;
mod controllers;
mod events;
mod guard;
mod informer;
mod leader;
mod manager;
mod masters;
mod repair;
mod scheduling;

pub use config::ManagerConfig;
pub use manager::{Manager, ManagerError};
pub use quorate_controllers::EvictionRate;
