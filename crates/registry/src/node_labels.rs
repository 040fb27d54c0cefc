//! The labels that a node's agent may set on its own Node (upstream's NodeRestriction). Labels steer pods, so an agent
//! must not be able to claim any role.

/// Kubernetes' own labels that an agent may set.
const OWN_LABELS: &[&str] = &[
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "kubernetes.io/arch",
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];
/// Label prefixes that an agent may use, including their subdomains.
const OWN_DOMAINS: &[&str] = &["kubelet.kubernetes.io", "node.kubernetes.io"];
const RESTRICTED_DOMAIN: &str = "node-restriction.kubernetes.io";

/// Returns whether an agent may set this label on its Node: one of the agent's own labels, or one outside of
/// Kubernetes' domains.
#[must_use]
pub fn agent_may_set(key: &str) -> bool {
    let Some((domain, _)) = key.split_once('/') else { return true };
    let is_in = |parent: &str| domain == parent || domain.strip_suffix(parent).is_some_and(|rest| rest.ends_with('.'));
    if is_in(RESTRICTED_DOMAIN) {
        return false;
    }
    let is_kubernetes = is_in("kubernetes.io") || is_in("k8s.io");
    !is_kubernetes || OWN_LABELS.contains(&key) || OWN_DOMAINS.iter().any(|domain| is_in(domain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_may_set_few_kubernetes_labels() {
        for (key, allowed) in [
            ("disk", true),
            ("example.com/disk", true),
            ("notkubernetes.io/disk", true),
            ("kubernetes.io/hostname", true),
            ("kubernetes.io/role", false),
            ("node-role.kubernetes.io/control-plane", false),
            ("node-restriction.kubernetes.io/secure", false),
            ("a.node-restriction.kubernetes.io/secure", false),
            ("node.kubernetes.io/anything", true),
            ("a.kubelet.kubernetes.io/anything", true),
            ("topology.kubernetes.io/zone", true),
            ("topology.kubernetes.io/rack", false),
            ("x.k8s.io/a", false),
        ] {
            assert_eq!(agent_may_set(key), allowed, "{key}");
        }
    }
}
