//! Containers on the Docker engine, read through the `docker` command.

use std::process::Command;

use crate::commands::run;

/// A running container of a pod; sandboxes are left out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Container {
    pub id: String,
    pub pod: String,
    pub pod_uid: String,
    pub name: String,
    pub node: String,
}

fn docker(args: &[&str]) -> String {
    run(Command::new("docker").args(args), "").ok()
}

/// Returns all running containers of a cluster's pods.
#[must_use]
pub fn containers(cluster: &str) -> Vec<Container> {
    let label = |name: &str| format!("{{{{.Label \"{name}\"}}}}");
    let format = [
        "{{.ID}}".to_owned(),
        label("io.kubernetes.pod.name"),
        label("io.kubernetes.pod.uid"),
        label("io.kubernetes.container.name"),
        label("io.quorate.node"),
    ]
    .join("\t");
    let filter = format!("label=io.quorate.cluster={cluster}");
    let text = docker(&["ps", "--no-trunc", "--filter", &filter, "--format", &format]);
    let mut found = text
        .lines()
        .filter_map(|line| {
            let [id, pod, pod_uid, name, node] = line.split('\t').collect::<Vec<_>>().try_into().ok()?;
            let [id, pod, pod_uid, name, node] = [id, pod, pod_uid, name, node].map(|s: &str| s.to_owned());
            (name != "POD").then_some(Container { id, pod, pod_uid, name, node })
        })
        .collect::<Vec<_>>();
    found.sort();
    found
}

/// Kills all containers of a node at once, including sandboxes, as a power cut would.
pub fn kill_containers(cluster: &str, node: &str) {
    let (cluster, node) = (format!("label=io.quorate.cluster={cluster}"), format!("label=io.quorate.node={node}"));
    let ids = docker(&["ps", "-q", "--filter", &cluster, "--filter", &node]);
    let ids = ids.split_whitespace().collect::<Vec<_>>();
    if !ids.is_empty() {
        // A container that has just ended makes the command fail, but the others are still killed.
        let outcome = run(Command::new("docker").arg("kill").args(&ids), "");
        assert!(outcome.success || outcome.stderr.contains("is not running"), "{outcome:?}");
    }
}

/// Adds a name to an image.
pub fn tag_image(image: &str, name: &str) {
    docker(&["tag", image, name]);
}

/// Removes a name from an image.
pub fn remove_image(name: &str) {
    docker(&["rmi", name]);
}
