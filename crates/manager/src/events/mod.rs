//! Kubernetes Events about the leader's work. Repetitions are counted, the rate is limited, reporters never wait, and
//! old Events are deleted.

mod correlator;
mod expiry;
mod recorder;

pub(crate) use expiry::EventExpiry;
pub(crate) use recorder::{EventWriter, Record, Recorder};
