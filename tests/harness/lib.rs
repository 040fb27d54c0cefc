//! Shared code of the black-box tests: a cluster of real processes, clients for it, and waiting for conditions.

mod balancer;
mod cluster;
mod commands;
mod containers;
mod lines;
mod machines;
mod retry;

pub use balancer::Balancer;
pub use cluster::{Cluster, Member, Runtime, Spec, binary, installed_clients, kubectl_is_recent};
pub use commands::{Output, Running, run};
pub use containers::{Container, containers, kill_containers, remove_image, tag_image};
pub use lines::Lines;
pub use machines::{Machine, Network};
pub use retry::{Deadline, eventually, eventually_async};
