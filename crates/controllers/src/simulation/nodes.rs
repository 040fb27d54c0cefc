//! The scheduler and the agents of the simulation: pods are bound, run, become ready, and end.

use std::time::Duration;

use serde_json::{Value, json};

use super::Cluster;

impl Cluster {
    pub(crate) fn add_node(&mut self, name: &str) {
        self.create(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": {}}));
        self.report_ready(name);
        self.create(json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": name, "namespace": "kube-node-lease"}, "spec": {"renewTime": null}}));
        self.heartbeat(name);
    }

    /// Writes the status of a healthy node, as its agent does.
    pub(crate) fn report_ready(&mut self, name: &str) {
        let at = self.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let condition = |type_: &str, status: &str| json!({"type": type_, "status": status, "lastHeartbeatTime": at, "lastTransitionTime": at});
        let conditions = json!([
            condition("Ready", "True"),
            condition("MemoryPressure", "False"),
            condition("DiskPressure", "False"),
            condition("PIDPressure", "False")
        ]);
        self.patch_status(&format!("nodes/{name}"), &json!({"status": {"conditions": conditions}}));
    }

    pub(crate) fn heartbeat(&mut self, name: &str) {
        let renewed = self.now.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
        let lease = format!("coordination.k8s.io/leases/kube-node-lease/{name}");
        self.patch(&lease, &json!({"spec": {"renewTime": renewed}}));
    }

    /// Advances time while only the named nodes renew their leases.
    pub(crate) fn advance_with_heartbeats(&mut self, seconds: u64, alive: &[&str]) {
        for _ in 0..seconds {
            self.advance(Duration::from_secs(1));
            for name in alive {
                self.heartbeat(name);
            }
        }
    }

    /// Binds, starts or removes each pod that waits for it, with a chance of one in `odds`. Returns whether any pod
    /// waited.
    pub(crate) fn run_pods(&mut self, nodes: &[&str], odds: usize) -> bool {
        let pods: Vec<Value> =
            self.objects.iter().filter(|(key, _)| key.resource == "pods").map(|(_, pod)| pod.clone()).collect();
        let mut has_work = false;
        for (index, pod) in pods.into_iter().enumerate() {
            let node = pod["spec"]["nodeName"].as_str();
            let is_terminating = pod["metadata"]["deletionTimestamp"].is_string();
            let is_settled = matches!(pod["status"]["phase"].as_str(), Some("Running" | "Failed"));
            if node.is_some_and(|node| !nodes.contains(&node)) || (is_settled && !is_terminating) {
                continue;
            }
            has_work = true;
            if self.chance.below(odds) > 0 {
                continue;
            }
            let path = format!("pods/default/{}", pod["metadata"]["name"].as_str().expect("a name"));
            match node {
                None => {
                    let node = nodes[self.chance.below(nodes.len())];
                    self.patch(&path, &json!({"spec": {"nodeName": node}}));
                }
                Some(_) if is_terminating => self.confirm_deletion(&path),
                Some(node) if self.rejecting.contains(node) => {
                    self.patch_status(&path, &json!({"status": {"phase": "Failed", "reason": "Rejected"}}));
                }
                Some(_) => self.start(&path, &format!("10.0.{}.{}", self.revision % 250, index % 250)),
            }
        }
        has_work
    }

    pub(crate) fn start(&mut self, path: &str, ip: &str) {
        let at = self.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        self.patch_status(
            path,
            &json!({"status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": at}]}}),
        );
    }

    /// Advances time in steps of a second, in each of which the scheduler and the nodes act.
    pub(crate) fn run_for(&mut self, seconds: u64, nodes: &[&str], mut invariant: impl FnMut(&Cluster)) {
        for _ in 0..seconds {
            self.advance(Duration::from_secs(1));
            self.run_pods(nodes, 1);
            self.settle_with(&mut invariant);
        }
    }

    /// Runs controllers and nodes until both are idle.
    pub(crate) fn run(&mut self, nodes: &[&str], odds: usize, mut invariant: impl FnMut(&Cluster)) {
        for _ in 0..2_000 {
            self.settle_with(&mut invariant);
            self.now += Duration::from_secs(1);
            if !self.run_pods(nodes, odds) {
                self.settle_with(&mut invariant);
                if !self.run_pods(nodes, odds) {
                    return;
                }
            }
        }
        panic!("pods are never idle");
    }
}
