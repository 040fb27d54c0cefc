//! Tests of whole members, and openraft's test suite on the storage of this crate.

pub(crate) mod cluster;
mod cluster_tests;
mod commands;
mod damage;
mod failover;
mod membership;
mod performance;
mod suite;
mod voting;
