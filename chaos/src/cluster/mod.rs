//! The quorum under test: its processes, the network between them, their disks and clocks.

mod disk;
pub mod failpoints;
mod layout;
mod log_version;
mod lossy;
mod pki;
mod ports;
mod process;
pub mod proxy;
mod shim;

pub use disk::SmallDisk;
pub use failpoints::Failpoints;
pub use layout::{Layout, Place};
pub use lossy::LossyDisk;
pub use process::{Ended, Processes};
pub use shim::Shim;
