//! Controllers as pure functions: each has a module that computes a [`Plan`] from the observed state and performs
//! nothing itself. Pure: no clock (`now` is an argument), no randomness, no I/O.

pub mod cache;
pub mod controller;
mod deployment;
mod garbage;
pub mod kinds;
pub mod masters;
mod namespace;
mod naming;
mod node;
mod ownership;
pub mod plan;
mod pod_gc;
mod pod_state;
mod replicaset;
mod resource;
mod resource_quota;
mod root_authority;
mod service;
mod service_account;
#[cfg(test)]
mod simulation;

pub use cache::{Cache, CacheError, CachedKind, Change, Decoded};
pub use controller::{Controller, EvictionRate, Input, Settings, WorkKey, Writes, controllers};
pub use kinds::{KindInfo, Kinds};
pub use plan::{Action, EventType, Failure, Guard, Plan, Target, Verb};
