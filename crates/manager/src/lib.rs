//! The tasks that run only on the leader (controllers, scheduler, events), and the informer and caches that every
//! master keeps up to date so that it can take over. The pure crates `quorate-controllers` and `quorate-scheduler`
//! decide; this crate executes their decisions through the API's pipeline. It names no kind, except where scheduling
//! and events are about that kind.

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
pub use quorate_controllers::{EvictionRate, Settings};
