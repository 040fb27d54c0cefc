use std::collections::{BTreeMap, BTreeSet};

use std::time::Duration;

use quorate_manager::ManagerConfig;
use quorate_store::MemberRole;
use serde_json::{Value, json};

use crate::harness::{Cluster, ENDPOINT_SLICES, ENDPOINTS, EVENTS, NAMESPACES, NOT_READY, PODS, SERVICES};

/// State of a pod as a backend of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BackendState {
    Ready,
    NotReady,
    /// Being deleted, but still serving.
    Terminating,
}
use BackendState::{NotReady, Ready, Terminating};

/// A pod's name and its address.
type Backend = (String, String);

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Returns the ready and the not ready addresses of the Endpoints object.
fn addresses(cluster: &Cluster) -> Option<[BTreeSet<Backend>; 2]> {
    let endpoints = cluster.object(&ENDPOINTS, Some("default"), "web")?;
    let of = |field: &str| -> BTreeSet<Backend> {
        let addresses = list(&endpoints["subsets"]).iter().flat_map(|subset| list(&subset[field]));
        addresses.map(|address| (text(&address["targetRef"]["name"]), text(&address["ip"]))).collect()
    };
    Some(["addresses", "notReadyAddresses"].map(of))
}

fn slices(cluster: &Cluster) -> Vec<Value> {
    let slices = cluster.list(&ENDPOINT_SLICES, Some("default")).into_iter();
    slices.filter(|slice| slice["metadata"]["labels"]["kubernetes.io/service-name"] == "web").collect()
}

/// Returns the conditions (ready, serving, terminating) of the endpoints in all slices.
fn conditions(cluster: &Cluster) -> BTreeMap<Backend, [bool; 3]> {
    let slices = slices(cluster);
    let endpoints = slices.iter().flat_map(|slice| list(&slice["endpoints"]));
    endpoints
        .map(|endpoint| {
            let backend = (text(&endpoint["targetRef"]["name"]), text(&endpoint["addresses"][0]));
            (backend, ["ready", "serving", "terminating"].map(|condition| endpoint["conditions"][condition] == true))
        })
        .collect()
}

/// Waits until both forms of the endpoints contain exactly these pods with their addresses.
async fn settle(cluster: &Cluster, pods: &[(&str, BackendState)]) {
    cluster
        .wait(&format!("the endpoints {pods:?}"), || {
            let backend = |name: &str| {
                let pod = cluster.object(&PODS, Some("default"), name).unwrap_or_default();
                (name.to_owned(), text(&pod["status"]["podIP"]))
            };
            let of = |wanted: BackendState| -> BTreeSet<Backend> {
                pods.iter().filter(|(_, state)| *state == wanted).map(|(name, _)| backend(name)).collect()
            };
            let expected = pods.iter().map(|(name, state)| {
                let conditions = match state {
                    Ready => [true, true, false],
                    NotReady => [false, false, false],
                    Terminating => [false, true, true],
                };
                (backend(name), conditions)
            });
            addresses(cluster) == Some([of(Ready), of(NotReady)])
                && !slices(cluster).is_empty()
                && conditions(cluster) == expected.collect::<BTreeMap<_, _>>()
        })
        .await;
}

async fn start(cluster: &Cluster, name: &str) {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "web", "image": "web:1", "ports": [{"name": "http", "containerPort": 8080}]}]}});
    cluster.client.create(&PODS, Some("default"), pod).await.expect("the pod is created");
}

async fn stop(cluster: &Cluster, name: &str) {
    cluster.client.delete(&PODS, Some("default"), name, json!({})).await.expect("the deletion begins");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_follow_the_readiness_and_deletion_of_pods() {
    let (mut cluster, master) = Cluster::led(ManagerConfig::default()).await;
    cluster.node("worker-1").await;
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]}});
    cluster.client.create(&SERVICES, Some("default"), service).await.expect("the service is created");
    settle(&cluster, &[]).await;

    start(&cluster, "a").await;
    start(&cluster, "b").await;
    settle(&cluster, &[("a", Ready), ("b", Ready)]).await;
    let endpoints = cluster.object(&ENDPOINTS, Some("default"), "web").expect("it is there");
    assert_eq!(endpoints["subsets"][0]["ports"], json!([{"port": 8080, "protocol": "TCP"}]));
    let ports: Vec<Value> = slices(&cluster).iter().map(|slice| slice["ports"][0]["port"].clone()).collect();
    assert_eq!(ports, [json!(8080)]);

    cluster.patch(&PODS, "a", json!({"metadata": {"annotations": {NOT_READY: "true"}}})).await;
    settle(&cluster, &[("a", NotReady), ("b", Ready)]).await;
    cluster.patch(&PODS, "a", json!({"metadata": {"annotations": {NOT_READY: null}}})).await;
    settle(&cluster, &[("a", Ready), ("b", Ready)]).await;

    cluster.hold("b").await;
    stop(&cluster, "b").await;
    settle(&cluster, &[("a", Ready), ("b", Terminating)]).await;
    cluster.release("b").await;
    settle(&cluster, &[("a", Ready)]).await;

    // A pod that the selector no longer matches keeps running, but is no endpoint.
    cluster.patch(&PODS, "a", json!({"metadata": {"labels": {"app": "other"}}})).await;
    settle(&cluster, &[]).await;
    cluster.patch(&PODS, "a", json!({"metadata": {"labels": {"app": "web"}}})).await;
    settle(&cluster, &[("a", Ready)]).await;
    stop(&cluster, "a").await;
    cluster.wait("the pod to be gone", || cluster.list(&PODS, Some("default")).is_empty()).await;
    settle(&cluster, &[]).await;

    cluster.client.delete(&SERVICES, Some("default"), "web", json!({})).await.expect("the service is deleted");
    cluster.wait("its endpoints to be gone", || addresses(&cluster).is_none() && slices(&cluster).is_empty()).await;
    master.stop().await;
}

/// Returns the addresses of `default/kubernetes`, if both forms of its endpoints agree on them.
fn masters(cluster: &Cluster) -> Option<BTreeSet<String>> {
    let endpoints = cluster.object(&ENDPOINTS, Some("default"), "kubernetes")?;
    let slice = cluster.object(&ENDPOINT_SLICES, Some("default"), "kubernetes")?;
    let addresses = list(&endpoints["subsets"]).iter().flat_map(|subset| list(&subset["addresses"]));
    let addresses: BTreeSet<String> = addresses.map(|address| text(&address["ip"])).collect();
    let in_slice = list(&slice["endpoints"]).iter().flat_map(|endpoint| list(&endpoint["addresses"]));
    (addresses == in_slice.map(text).collect()).then_some(addresses)
}

fn set(addresses: &[&str]) -> BTreeSet<String> {
    addresses.iter().map(|address| (*address).to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kubernetes_service_lists_the_live_masters() {
    let config = ManagerConfig { forget_masters_after: Duration::from_millis(500), ..ManagerConfig::default() };
    let (cluster, master) = Cluster::led(config).await;
    let (alive, dead) = (MemberRole::Follower, MemberRole::Unreachable);
    let [a, b, c] = ["https://192.0.2.1:6443", "https://192.0.2.2:6443", "https://192.0.2.3:6443"];
    master.set_members(&[(a, alive), (b, alive), (c, alive)]).await;
    let all = set(&["192.0.2.1", "192.0.2.2", "192.0.2.3"]);
    cluster.wait("all masters as endpoints", || masters(&cluster).as_ref() == Some(&all)).await;
    let service = cluster.object(&SERVICES, Some("default"), "kubernetes").expect("the service");
    assert_eq!(
        (&service["spec"]["clusterIP"], &service["spec"]["ports"][0]["port"]),
        (&json!("10.96.0.1"), &json!(443))
    );

    master.set_members(&[(a, alive), (b, dead), (c, alive)]).await;
    let rest = set(&["192.0.2.1", "192.0.2.3"]);
    cluster.wait("the dead master to leave", || masters(&cluster).as_ref() == Some(&rest)).await;

    cluster.client.delete(&SERVICES, Some("default"), "kubernetes", json!({})).await.expect("deleted");
    let is_there = || cluster.object(&SERVICES, Some("default"), "kubernetes").is_some();
    cluster.wait("the service to be recreated", is_there).await;
    // Pods cannot reach a master at a loopback address, so it is not an endpoint.
    master.set_members(&[("https://127.0.0.1:6443", alive)]).await;
    cluster.wait("no endpoint", || masters(&cluster).is_some_and(|masters| masters.is_empty())).await;
    master.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_leader_allocates_missing_cluster_ips_and_reports_them() {
    let cluster = Cluster::new();
    let bare = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "old", "namespace": "default", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {
            "type": "ClusterIP", "sessionAffinity": "None", "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
            "internalTrafficPolicy": "Cluster", "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
        },
    });
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}});
    cluster.client.create(&NAMESPACES, None, namespace).await.expect("the namespace is made");
    cluster.write_past_the_api("/registry/core/services/default/old", &bare).await;
    let master = cluster.master(ManagerConfig::default());
    master.elect(1);
    let address =
        || cluster.object(&SERVICES, Some("default"), "old").map(|service| text(&service["spec"]["clusterIP"]));
    cluster.wait("an address", || address().is_some_and(|address| address.starts_with("10.96."))).await;
    let is_reported = || {
        let events = cluster.list(&EVENTS, Some("default"));
        events
            .iter()
            .any(|event| event["reason"] == "ClusterIPNotAllocated" && event["involvedObject"]["name"] == "old")
    };
    cluster.wait("the event", is_reported).await;
    master.stop().await;
}
