use insta::assert_snapshot;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::simulation::{Chance, Cluster, in_default, render};

fn service(spec: &Value) -> Value {
    let mut object = json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "namespace": "default", "labels": {"team": "blue"}},
        "spec": {"clusterIP": "10.96.0.1", "selector": {"app": "web"},
            "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}]}});
    quorate_api::patch::merge::apply(&mut object["spec"], spec);
    object
}

fn pod(name: &str, ip: Option<&str>, ready: bool, port: i32) -> Value {
    let status = if ready { "True" } else { "False" };
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": "web"}},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": port}]}]},
        "status": {"phase": "Running", "podIP": ip, "conditions": [{"type": "Ready", "status": status}]}})
}

fn cluster() -> Cluster {
    let mut cluster = Cluster::new();
    cluster.add_node("n1");
    cluster.patch("nodes/n1", &json!({"metadata": {"labels": {"topology.kubernetes.io/zone": "z1"}}}));
    cluster
}

/// Returns the ready and not ready (`!`) addresses of the Endpoints object, with their ports.
fn endpoints(cluster: &Cluster) -> Vec<String> {
    let Some(object) = cluster.get("endpoints/default/web") else { return Vec::new() };
    let mut rows = Vec::new();
    for subset in object["subsets"].as_array().cloned().unwrap_or_default() {
        for (field, mark) in [("addresses", ""), ("notReadyAddresses", "!")] {
            for address in subset[field].as_array().cloned().unwrap_or_default() {
                let ip = address["ip"].as_str().expect("an address").to_owned();
                rows.push(format!("{mark}{ip}:{}", subset["ports"][0]["port"]));
            }
        }
    }
    rows
}

/// Returns the endpoints of all slices: address, port, and the letters of the true conditions (ready, serving,
/// terminating).
fn slices(cluster: &Cluster) -> Vec<String> {
    let mut rows = Vec::new();
    for name in cluster.names("endpointslices") {
        let slice = cluster.get(&format!("discovery.k8s.io/endpointslices/default/{name}")).expect("there");
        for endpoint in slice["endpoints"].as_array().cloned().unwrap_or_default() {
            let conditions = &endpoint["conditions"];
            let marks: String = [("ready", 'r'), ("serving", 's'), ("terminating", 't')]
                .iter()
                .filter(|(condition, _)| conditions[*condition] == true)
                .map(|(_, mark)| *mark)
                .collect();
            let address = endpoint["addresses"][0].as_str().expect("an address").to_owned();
            rows.push(format!("{address}:{} {marks}", slice["ports"][0]["port"]));
        }
    }
    rows.sort();
    rows
}

#[test]
fn endpoints_follow_their_pods() {
    let mut cluster = cluster();
    cluster.create(service(&json!({})));
    cluster.settle();
    assert!(endpoints(&cluster).is_empty() && slices(&cluster).is_empty());
    assert_eq!(cluster.names("endpointslices").len(), 1, "an empty slice shows that the service has been processed");

    cluster.create(pod("a", Some("10.0.0.1"), true, 8080));
    cluster.create(pod("b", Some("10.0.0.2"), false, 8080));
    cluster.create(pod("c", Some("10.0.0.3"), true, 9090));
    cluster.create(pod("d", None, false, 8080));
    assert_snapshot!("endpoints", render(&cluster.plan("endpoints", &in_default("web"))));
    assert_snapshot!("slices", render(&cluster.plan("endpointslice", &in_default("web"))));
    cluster.settle();
    assert_eq!(endpoints(&cluster), ["10.0.0.1:8080", "!10.0.0.2:8080", "10.0.0.3:9090"]);
    assert_eq!(slices(&cluster), ["10.0.0.1:8080 rs", "10.0.0.2:8080 ", "10.0.0.3:9090 rs"]);
    cluster.assert_at_rest();

    // A terminating pod is no longer in the Endpoints object, but still in a slice.
    cluster.delete("pods/default/a", None);
    cluster.settle();
    assert_eq!(endpoints(&cluster), ["!10.0.0.2:8080", "10.0.0.3:9090"]);
    assert_eq!(slices(&cluster), ["10.0.0.1:8080 st", "10.0.0.2:8080 ", "10.0.0.3:9090 rs"]);
    cluster.confirm_deletion("pods/default/a");
    // A changed label removes a pod, and so does its end.
    cluster.patch("pods/default/c", &json!({"metadata": {"labels": {"app": "other"}}}));
    cluster.patch_status("pods/default/b", &json!({"status": {"phase": "Succeeded"}}));
    cluster.settle();
    assert!(endpoints(&cluster).is_empty() && slices(&cluster).is_empty());
    assert_eq!(cluster.names("endpointslices").len(), 1);
    cluster.assert_at_rest();

    cluster.delete("services/default/web", None);
    cluster.settle();
    assert!(cluster.names("endpoints").is_empty() && cluster.names("endpointslices").is_empty());
}

#[test]
fn a_service_without_a_selector_is_left_alone() {
    let mut cluster = cluster();
    cluster.settle();
    cluster.create(service(&json!({"selector": null})));
    cluster.create(json!({"apiVersion": "v1", "kind": "Endpoints",
        "metadata": {"name": "web", "namespace": "default"}, "subsets": [{"addresses": [{"ip": "192.0.2.1"}]}]}));
    cluster.create(pod("a", Some("10.0.0.1"), true, 8080));
    let writes = cluster.writes;
    cluster.settle();
    assert_eq!(cluster.writes, writes);
    cluster.assert_at_rest();
}

#[test]
fn a_service_may_publish_pods_that_are_not_ready() {
    let mut cluster = cluster();
    cluster.create(service(&json!({"publishNotReadyAddresses": true, "clusterIP": "None"})));
    cluster.create(pod("a", Some("10.0.0.1"), false, 8080));
    cluster.settle();
    assert_eq!(endpoints(&cluster), ["10.0.0.1:8080"]);
    assert_eq!(slices(&cluster), ["10.0.0.1:8080 r"]);
    let labels = cluster.get("endpoints/default/web").expect("there")["metadata"]["labels"].clone();
    assert_eq!(labels["service.kubernetes.io/headless"], "");
    assert_eq!(labels["team"], "blue");
}

#[test]
fn a_pod_without_the_named_port_is_left_out_of_endpoints() {
    let mut cluster = cluster();
    cluster.create(service(&json!({"ports": [{"port": 53, "targetPort": "dns"}]})));
    cluster.create(pod("a", Some("10.0.0.1"), true, 8080));
    cluster.settle();
    assert!(endpoints(&cluster).is_empty());
    cluster.assert_at_rest();
}

#[test]
fn a_changed_port_reuses_the_slice() {
    let mut cluster = cluster();
    cluster.create(service(&json!({})));
    cluster.create(pod("a", Some("10.0.0.1"), true, 8080));
    cluster.settle();
    let before = cluster.names("endpointslices").join(" ");
    cluster.patch("services/default/web", &json!({"spec": {"ports": [{"name": "http", "port": 80, "targetPort": 1}]}}));
    cluster.settle();
    assert_eq!(slices(&cluster), ["10.0.0.1:1 rs"]);
    assert_eq!(cluster.names("endpointslices").join(" "), before);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 50, ..ProptestConfig::default() })]

    /// For any sequence of added and removed pods, each pod is in exactly one slice and no slice is too large.
    #[test]
    fn slices_hold_every_pod_once(seed: u64, waves in prop::collection::vec((0..130_usize, 0..60_usize), 1..4)) {
        let mut cluster = cluster();
        let mut chance = Chance::new(seed);
        cluster.create(service(&json!({})));
        let mut serial = 0;
        let mut alive: Vec<String> = Vec::new();
        for (come, go) in waves {
            for _ in 0..come {
                serial += 1;
                let ip = format!("10.0.{}.{}", serial / 250, serial % 250);
                cluster.create(pod(&format!("p{serial}"), Some(&ip), true, 8080));
                alive.push(format!("p{serial}"));
            }
            for _ in 0..go.min(alive.len()) {
                let index = chance.below(alive.len());
                cluster.confirm_deletion(&format!("pods/default/{}", alive.swap_remove(index)));
            }
            cluster.settle();
            let mut found: Vec<String> = Vec::new();
            for name in cluster.names("endpointslices") {
                let slice = cluster.get(&format!("discovery.k8s.io/endpointslices/default/{name}")).expect("there");
                let endpoints = slice["endpoints"].as_array().cloned().unwrap_or_default();
                prop_assert!(endpoints.len() <= 100);
                found.extend(endpoints.iter().map(|e| e["targetRef"]["name"].as_str().expect("a name").to_owned()));
            }
            found.sort();
            alive.sort();
            prop_assert_eq!(&found, &alive);
            cluster.assert_at_rest();
        }
    }
}
