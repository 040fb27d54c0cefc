//! Whole members in one process, and openraft's own suite on our storage.

pub(crate) mod cluster;
mod cluster_tests;
mod commands;
mod damage;
mod failover;
mod membership;
mod performance;
mod suite;
