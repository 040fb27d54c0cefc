use std::collections::{BTreeMap, BTreeSet};

use quorate_manager::ManagerConfig;
use serde_json::{Value, json};

use crate::harness::{Cluster, ENDPOINT_SLICES, ENDPOINTS, NOT_READY, PODS, SERVICES};

/// What a pod is to the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Ready,
    NotReady,
    /// Being deleted, and still serving.
    Leaving,
}
use Standing::{Leaving, NotReady, Ready};

/// A pod's name and its address.
type Backend = (String, String);

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The Endpoints object: those that are ready, and those that are not.
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

/// All EndpointSlices together: ready, serving, terminating.
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

/// Waits until both forms of the endpoints hold just these pods, with the addresses that the pods have.
async fn settle(cluster: &Cluster, pods: &[(&str, Standing)]) {
    cluster
        .wait(&format!("the endpoints {pods:?}"), || {
            let backend = |name: &str| {
                let pod = cluster.object(&PODS, Some("default"), name).unwrap_or_default();
                (name.to_owned(), text(&pod["status"]["podIP"]))
            };
            let of = |wanted: Standing| -> BTreeSet<Backend> {
                pods.iter().filter(|(_, standing)| *standing == wanted).map(|(name, _)| backend(name)).collect()
            };
            let expected = pods.iter().map(|(name, standing)| {
                let conditions = match standing {
                    Ready => [true, true, false],
                    NotReady => [false, false, false],
                    Leaving => [false, true, true],
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
async fn endpoints_follow_pods_that_become_ready_and_unready_and_go() {
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
    settle(&cluster, &[("a", Ready), ("b", Leaving)]).await;
    cluster.release("b").await;
    settle(&cluster, &[("a", Ready)]).await;

    // A pod that the selector no longer matches runs on, for nobody.
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
