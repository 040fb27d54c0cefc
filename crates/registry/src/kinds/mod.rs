//! The built-in kinds, one file each: defaulting, validation, printing. Nothing here depends on requests or storage.

mod config_map;
mod deployment;
mod endpoint_slice;
mod endpoints;
mod event;
mod lease;
pub mod namespace;
mod node;
pub mod pod;
mod replica_set;
mod secret;
mod service;
mod service_account;
pub mod workload;

pub use config_map::ConfigMap;
pub use deployment::Deployment;
pub use endpoint_slice::EndpointSlice;
pub use endpoints::Endpoints;
pub use event::Event;
pub use lease::Lease;
pub use namespace::Namespace;
pub use node::Node;
pub use pod::Pod;
pub use replica_set::ReplicaSet;
pub use secret::Secret;
pub use service::Service;
pub use service_account::ServiceAccount;

#[cfg(test)]
mod tests;
