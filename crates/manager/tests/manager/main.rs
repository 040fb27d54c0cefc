//! Tests of the manager over the in-memory store and the real API pipeline. Only the nodes are fakes.

mod deployments;
mod harness;
mod kinds;
mod leadership;
mod nodes;
mod ownership;
mod quotas;
mod rollouts;
mod scheduling;
mod services;
