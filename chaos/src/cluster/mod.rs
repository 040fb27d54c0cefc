//! The cluster under test: its processes, the network between them, their disks and clocks, and the workers' machines.

mod agents;
mod disk;
mod engine;
pub mod failpoints;
mod layout;
mod log_version;
mod lossy;
mod machine;
pub mod mounts;
mod pki;
mod ports;
mod process;
pub mod proxy;
mod shim;

pub use agents::{AgentEnded, Agents};
pub use disk::SmallDisk;
pub use engine::{Engine, IMAGES};
pub use failpoints::Failpoints;
pub use layout::{Layout, Place, WorkerPlace, Workers};
pub use lossy::LossyDisk;
pub use machine::Machine;
pub use process::{Ended, Processes};
pub use shim::Shim;
