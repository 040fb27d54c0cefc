//! Whole members in one process, and openraft's own suite on our storage.

pub mod cluster;
mod cluster_tests;
mod damage;
mod failover;
mod performance;
mod suite;
