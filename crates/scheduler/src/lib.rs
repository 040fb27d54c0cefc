//! The scheduler as a pure library: a [`Snapshot`] of the nodes that is kept incrementally, [`schedule`], which picks a
//! node for a pod or says why there is none, and the [`Queue`] of the pods that wait. No clock (`now` is an argument),
//! no randomness (the [`Cursor`] is passed in), no I/O.
//!
//! What a node must satisfy is the table [`filter::FILTERS`], what makes one node better than another the table
//! [`score::SCORERS`]; both follow kube-scheduler's default profile in order, weights and wording.

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
