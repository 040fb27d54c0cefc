//! The quorum under test: its processes, the network between them, their disks and clocks.

mod disk;
mod layout;
mod pki;
mod ports;
mod process;
pub mod proxy;
mod shim;

pub use disk::SmallDisk;
pub use layout::{Layout, Place};
pub use process::{Ended, Processes};
pub use shim::Shim;
