//! Kubernetes Events about what the leader does: counted instead of repeated, limited, never in anyone's way, and
//! deleted when they are old.

mod correlator;
mod expiry;
mod recorder;

pub(crate) use expiry::EventExpiry;
pub(crate) use recorder::{EventWriter, Record, Recorder};
