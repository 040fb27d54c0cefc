//! Admission of pods by this node. A pod that asks for something that the agent does not do is rejected before anything of
//! it is started: it never runs with less protection, or as something else, than it asked for. Pure.
//!
//! Every field is decided on here. The structs of the API are taken apart without `..`, so that a field which a new version
//! of the API brings does not compile before somebody has decided whether it is honoured, harmless to leave, or refused.

mod container;
mod pod;
mod security;
mod volume;

use k8s_openapi::api::core::v1::Pod;

pub(crate) use self::security::app_armor;

use crate::plan::Rejection;
use crate::runtime::Capabilities;

/// The kubelet's reason for a rejection that has none of its own.
const UNEXPECTED: &str = "UnexpectedAdmissionError";

/// What the node makes of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub rejection: Option<Rejection>,
    /// Limits that are not enforced. They bound what the pod takes from others, so the pod itself gets no less than it
    /// asked for, and runs.
    pub unenforced: Vec<String>,
}

/// Decides on every field of a pod.
pub(crate) fn examine(pod: &Pod, capabilities: &Capabilities) -> Verdict {
    let mut findings = Findings { capabilities: *capabilities, refused: Vec::new(), unenforced: Vec::new() };
    pod::examine(pod, &mut findings);
    let Findings { refused, unenforced, .. } = findings;
    let rejection = refused.first().map(|(reason, _)| Rejection {
        reason,
        message: refused.iter().map(|(_, message)| message.as_str()).collect::<Vec<_>>().join("; "),
    });
    Verdict { rejection, unenforced }
}

/// Collects what the node does not do for a pod.
struct Findings {
    capabilities: Capabilities,
    refused: Vec<(&'static str, String)>,
    unenforced: Vec<String>,
}

impl Findings {
    /// Refuses the pod for a reason that the kubelet has a name for.
    fn refuse_as(&mut self, reason: &'static str, message: String) {
        self.refused.push((reason, message));
    }

    fn refuse(&mut self, field: &str, why: &str) {
        self.refuse_as(UNEXPECTED, format!("{field}: {why}"));
    }

    /// Refuses a field that is set.
    fn refuse_if(&mut self, is_set: bool, field: &str) {
        if is_set {
            self.refuse(field, "this node does not support it");
        }
    }

    /// Refuses a field with any value but those listed.
    fn refuse_unless(&mut self, value: Option<&str>, supported: &[&str], field: &str) {
        if let Some(value) = value.filter(|value| !value.is_empty() && !supported.contains(value)) {
            self.refuse(field, &format!("this node does not support {value:?}"));
        }
    }

    fn leave_unenforced(&mut self, field: &str) {
        self.unenforced.push(format!("{field}: this node does not enforce the limit"));
    }
}

/// Whether a list is given and has something in it.
fn any<T>(list: Option<&Vec<T>>) -> bool {
    list.is_some_and(|list| !list.is_empty())
}

#[cfg(test)]
mod tests;
