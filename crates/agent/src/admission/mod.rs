//! Admission of pods by this node. A pod that asks for something the agent does not support is rejected before anything
//! of it is started, so that it never runs with less protection than it asked for. Pure.
//!
//! The modules decide on every field. They destructure the structs of the API without `..`, so that a new field of the
//! API does not compile until somebody decides whether it is honoured, harmless to ignore, or refused.

mod container;
mod pod;
mod security;
mod volume;

use k8s_openapi::api::core::v1::{Container, Pod};

pub(crate) use self::security::app_armor;

use crate::plan::Rejection;
use crate::runtime::Capabilities;

/// The kubelet's reason for rejections without a specific reason.
const UNEXPECTED: &str = "UnexpectedAdmissionError";

/// The node's decision about a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub rejection: Option<Rejection>,
    /// Messages about limits that are not enforced. The pod runs all the same, because without such a limit it gets no
    /// less than it asked for.
    pub unenforced: Vec<String>,
}

/// Examines every field of a pod.
pub(crate) fn examine(pod: &Pod, capabilities: &Capabilities) -> Verdict {
    let mut findings = Findings::new(capabilities);
    pod::examine(pod, &mut findings);
    findings.verdict()
}

/// Examines every field of an ephemeral container, which is added to a pod after its admission.
pub(crate) fn examine_ephemeral(pod: &Pod, container: &Container, capabilities: &Capabilities) -> Verdict {
    let mut findings = Findings::new(capabilities);
    container::examine(pod, container, &format!("spec.ephemeralContainers{{{}}}", container.name), &mut findings);
    findings.verdict()
}

/// Collects the fields of a pod that the node does not support.
struct Findings {
    capabilities: Capabilities,
    refused: Vec<(&'static str, String)>,
    unenforced: Vec<String>,
}

impl Findings {
    fn new(capabilities: &Capabilities) -> Self {
        Findings { capabilities: *capabilities, refused: Vec::new(), unenforced: Vec::new() }
    }

    fn verdict(self) -> Verdict {
        let Findings { refused, unenforced, .. } = self;
        let rejection = refused.first().map(|(reason, _)| Rejection {
            reason,
            message: refused.iter().map(|(_, message)| message.as_str()).collect::<Vec<_>>().join("; "),
        });
        Verdict { rejection, unenforced }
    }

    /// Refuses the pod with a specific reason of the kubelet.
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

/// Whether a list is set and not empty.
fn any<T>(list: Option<&Vec<T>>) -> bool {
    list.is_some_and(|list| !list.is_empty())
}

#[cfg(test)]
mod tests;
