//! The manager over the in-memory store and the real API pipeline; only the nodes are fakes.

mod deployments;
mod harness;
mod leadership;
mod nodes;
mod ownership;
mod rollouts;
mod scheduling;
mod services;
