//! The scheduler as a pure library: a [`Snapshot`] of the nodes that is updated incrementally, [`schedule`], which
//! picks a node for a pod or returns why none fits, and the [`Queue`] of the waiting pods. No clock (`now` is an
//! argument), no randomness (the [`Cursor`] is passed in), no I/O.
//!
//! The table [`filter::FILTERS`] lists the conditions on a node, and the table [`score::SCORERS`] ranks the nodes that
//! meet them. Both follow kube-scheduler's default profile in order, weights and wording.

pub mod event;
pub mod filter;
pub mod node;
pub mod node_selector;
pub mod pod;
pub mod ports;
pub mod queue;
pub mod requests;
pub mod resources;
pub mod schedule;
pub mod score;
pub mod snapshot;
mod spread;
pub mod taint;
pub mod unschedulable;
pub mod unsupported;

pub use event::ClusterEvents;
pub use node::{NodeInfo, NodeSpec};
pub use pod::{Footprint, PodInfo, PodKey};
pub use queue::{Backoff, Queue};
pub use resources::{ParseError, Resources};
pub use schedule::{Cursor, Decision, schedule};
pub use snapshot::{PlacedPod, Snapshot};
pub use unschedulable::Unschedulable;
