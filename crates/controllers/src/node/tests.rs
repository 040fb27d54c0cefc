use std::time::Duration;

use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::controller::{Settings, WorkKey};
use crate::plan::Verb;
use crate::simulation::{Cluster, render};

const SET: &str = "apps/replicasets/default/rs";

/// Returns a cluster of two nodes with two pods each and the default grace period. No node sends heartbeats yet.
fn cluster() -> Cluster {
    let mut cluster = Cluster::new();
    cluster.settings = Settings::default();
    cluster.add_node("n1");
    cluster.add_node("n2");
    cluster.create(json!({"apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {"name": "rs", "namespace": "default"},
        "spec": {"replicas": 4, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": []}}}}));
    cluster.settle();
    let pods: Vec<String> = cluster.names("pods").into_iter().map(str::to_owned).collect();
    for (index, (pod, node)) in pods.iter().zip(["n1", "n1", "n2", "n2"]).enumerate() {
        let path = format!("pods/default/{pod}");
        cluster.patch(&path, &json!({"spec": {"nodeName": node}}));
        cluster.start(&path, &format!("10.0.0.{index}"));
    }
    cluster.settle();
    cluster
}

fn taints(cluster: &Cluster, node: &str) -> Vec<String> {
    let node = cluster.get(&format!("nodes/{node}")).expect("there");
    let list = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().expect("text").trim_start_matches("node.kubernetes.io/").to_owned();
    list.iter().map(|taint| format!("{}:{}", text(&taint["key"]), text(&taint["effect"]))).collect()
}

fn ready(cluster: &Cluster, path: &str) -> String {
    let object = cluster.get(path).expect("there");
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let ready = conditions.iter().find(|condition| condition["type"] == "Ready").expect("a Ready condition");
    ready["status"].as_str().expect("a status").to_owned()
}

fn pods_of(cluster: &Cluster, node: &str) -> Vec<String> {
    cluster.cache.pods_on_node(node).filter_map(|pod| pod.metadata.name.clone()).collect()
}

#[test]
fn a_silent_node_is_tainted_and_its_pods_are_evicted() {
    let mut cluster = cluster();
    let evicted_pods = pods_of(&cluster, "n1");
    cluster.advance_with_heartbeats(9, &["n2"]);
    assert_eq!(ready(&cluster, "nodes/n1"), "True");
    cluster.advance_with_heartbeats(2, &["n2"]);
    assert_eq!(ready(&cluster, "nodes/n1"), "Unknown");
    assert_eq!(ready(&cluster, "nodes/n2"), "True");
    assert_eq!(taints(&cluster, "n1"), ["unreachable:NoSchedule", "unreachable:NoExecute"]);
    assert!(taints(&cluster, "n2").is_empty());
    for pod in &evicted_pods {
        let path = format!("pods/default/{pod}");
        assert_eq!(ready(&cluster, &path), "False");
        assert!(cluster.get(&path).expect("there")["metadata"]["deletionTimestamp"].is_null());
    }
    assert_eq!(cluster.get(SET).expect("there")["status"]["readyReplicas"], 2);

    cluster.advance_with_heartbeats(10, &["n2"]);
    for pod in &evicted_pods {
        let metadata = cluster.get(&format!("pods/default/{pod}")).expect("not confirmed")["metadata"].clone();
        assert!(metadata["deletionTimestamp"].is_string());
    }
    // The evicted pods are replaced at once: two pods run, two are terminating, and two are new.
    assert_eq!(cluster.names("pods").len(), 6);

    // The agent may only be cut off and still run the pods, so they stay until it confirms their end.
    cluster.advance_with_heartbeats(600, &["n2"]);
    assert_eq!(pods_of(&cluster, "n1"), evicted_pods);
    cluster.assert_at_rest();

    cluster.heartbeat("n1");
    cluster.report_ready("n1");
    for pod in &evicted_pods {
        cluster.confirm_deletion(&format!("pods/default/{pod}"));
    }
    cluster.settle();
    assert_eq!(cluster.names("pods").len(), 4);
    cluster.assert_at_rest();
}

#[test]
fn pods_of_an_unreachable_node_are_removed_with_its_node_object() {
    let mut cluster = cluster();
    cluster.advance_with_heartbeats(30, &["n2"]);
    assert_eq!(pods_of(&cluster, "n1").len(), 2);
    cluster.delete("nodes/n1", None);
    cluster.settle();
    assert!(pods_of(&cluster, "n1").is_empty());
    cluster.assert_at_rest();
}

/// Creates a pod on `n1` with this fence and a grace period of 20 s, and labels the node as one that enforces fences or
/// not.
fn fenced(cluster: &mut Cluster, fence: &str, node_keeps_fences: bool) -> &'static str {
    cluster.patch("nodes/n1", &json!({"metadata": {"labels": {"quorate.io/fencing": node_keeps_fences.to_string()}}}));
    cluster.create(json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "namespace": "default", "annotations": {"quorate.io/fence-after": fence}},
        "spec": {"nodeName": "n1", "containers": [], "terminationGracePeriodSeconds": 20}}));
    cluster.settle();
    "pods/default/p"
}

#[test]
fn a_fenced_pod_is_removed_once_its_node_must_have_stopped_it() {
    let mut cluster = cluster();
    let pod = fenced(&mut cluster, "30s", true);
    // The pod is removable after the fence of 30 s, the grace period of 20 s, one second of drift, and ten seconds of
    // margin.
    cluster.advance_with_heartbeats(60, &["n2"]);
    assert!(cluster.get(pod).expect("it may still run")["metadata"]["deletionTimestamp"].is_string());
    cluster.advance_with_heartbeats(2, &["n2"]);
    assert!(cluster.get(pod).is_none());
    // Pods without a fence stay.
    assert_eq!(pods_of(&cluster, "n1").len(), 2);
    cluster.assert_at_rest();
}

#[test]
fn fences_count_only_on_nodes_that_enforce_them() {
    for (fence, node_keeps_fences) in [("30s", false), ("none", true), ("soon", true)] {
        let mut cluster = cluster();
        let pod = fenced(&mut cluster, fence, node_keeps_fences);
        cluster.advance_with_heartbeats(600, &["n2"]);
        assert!(cluster.get(pod).is_some(), "{fence}, {node_keeps_fences}");
    }
}

#[test]
fn a_renewal_that_the_cache_has_not_seen_stops_the_removal_of_a_fenced_pod() {
    let mut cluster = cluster();
    let pod = fenced(&mut cluster, "30s", true);
    cluster.advance_with_heartbeats(60, &["n2"]);
    let key = WorkKey::cluster("n1");
    cluster.now += Duration::from_secs(2);
    let plan = cluster.plan("node-lifecycle", &key);
    assert_snapshot!("removal_of_a_fenced_pod", render(&plan));
    cluster.is_cache_cut_off = true;
    cluster.heartbeat("n1");
    for action in &plan.actions {
        assert!(cluster.act(action).is_err(), "the node renewed its lease meanwhile");
    }
    assert!(cluster.get(pod).is_some());
}

#[test]
fn wall_clock_jumps_do_not_shorten_a_fence() {
    let mut cluster = cluster();
    let pod = fenced(&mut cluster, "30s", true);
    cluster.advance_with_heartbeats(25, &["n2"]);
    cluster.wall_clock_ahead = Duration::from_secs(3600);
    cluster.advance_with_heartbeats(30, &["n2"]);
    assert!(cluster.get(pod).is_some());
    cluster.advance_with_heartbeats(10, &["n2"]);
    assert!(cluster.get(pod).is_none());
}

/// Returns a cluster of `count` nodes in one zone and a healthy node in another, and the names of the first `failed`
/// nodes, which will fall silent together.
fn zone(count: usize, failed: usize) -> (Cluster, Vec<String>) {
    let mut cluster = Cluster::new();
    cluster.settings = Settings::default();
    let names: Vec<String> = (1..=count).map(|number| format!("a{number}")).collect();
    for (zone, name) in names.iter().map(|name| ("a", name.as_str())).chain([("b", "b1")]) {
        cluster.add_node(name);
        cluster
            .patch(&format!("nodes/{name}"), &json!({"metadata": {"labels": {"topology.kubernetes.io/zone": zone}}}));
    }
    cluster.settle();
    (cluster, names.into_iter().take(failed).collect())
}

/// Returns how many of the nodes have the eviction taint.
fn evicted(cluster: &Cluster, nodes: &[String]) -> usize {
    nodes.iter().filter(|node| taints(cluster, node).contains(&"unreachable:NoExecute".to_owned())).count()
}

#[test]
fn nodes_of_a_zone_are_evicted_one_at_a_time() {
    let (mut cluster, failed) = zone(6, 3);
    let alive = ["a4", "a5", "a6", "b1"];
    cluster.advance_with_heartbeats(11, &alive);
    assert_eq!(evicted(&cluster, &failed), 1, "the first one at once");
    for node in &failed {
        assert!(taints(&cluster, node).contains(&"unreachable:NoSchedule".to_owned()));
    }
    cluster.advance_with_heartbeats(8, &alive);
    assert_eq!(evicted(&cluster, &failed), 1);
    // A new leader sees the same bucket.
    let uptime = cluster.uptime();
    cluster.cache.begin_observation(uptime);
    cluster.advance_with_heartbeats(3, &alive);
    assert_eq!(evicted(&cluster, &failed), 2);
    cluster.advance_with_heartbeats(20, &alive);
    assert_eq!(evicted(&cluster, &failed), 3);
    cluster.assert_at_rest();
}

#[test]
fn a_mostly_failed_zone_is_not_evicted_until_it_recovers() {
    let (mut cluster, failed) = zone(5, 3);
    cluster.advance_with_heartbeats(60, &["a4", "a5", "b1"]);
    assert_eq!(evicted(&cluster, &failed), 0, "three of five");
    cluster.assert_at_rest();
    cluster.report_ready("a3");
    cluster.advance_with_heartbeats(1, &["a3", "a4", "a5", "b1"]);
    assert_eq!(evicted(&cluster, &failed[..2]), 1);
}

#[test]
fn a_fully_failed_zone_is_evicted_while_another_zone_is_healthy() {
    let (mut cluster, failed) = zone(3, 3);
    cluster.advance_with_heartbeats(45, &["b1"]);
    assert_eq!(evicted(&cluster, &failed), 3);
}

#[test]
fn removing_a_taint_cancels_the_eviction_that_it_had_scheduled() {
    let mut cluster = cluster();
    let toleration = |seconds: Value| json!([{"key": "mine", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}]);
    for (name, tolerations) in
        [("held", toleration(json!(30))), ("never", toleration(Value::Null)), ("control", json!([]))]
    {
        cluster.create(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
            "spec": {"nodeName": "n1", "containers": [], "tolerations": tolerations}}));
    }
    let is_terminating = |cluster: &Cluster, name: &str| {
        let pod = cluster.get(&format!("pods/default/{name}")).expect("there");
        pod["metadata"]["deletionTimestamp"].is_string()
    };
    let set = |cluster: &mut Cluster, taints: Value| cluster.patch("nodes/n1", &json!({"spec": {"taints": taints}}));
    let taint = json!([{"key": "mine", "effect": "NoExecute"}]);
    set(&mut cluster, taint.clone());
    cluster.advance_with_heartbeats(20, &["n1", "n2"]);
    assert!(is_terminating(&cluster, "control") && !is_terminating(&cluster, "held"));
    set(&mut cluster, Value::Null);
    cluster.advance_with_heartbeats(60, &["n1", "n2"]);
    assert!(!is_terminating(&cluster, "held"), "the taint is gone");
    // The toleration time starts again with the next taint.
    set(&mut cluster, taint);
    cluster.advance_with_heartbeats(28, &["n1", "n2"]);
    assert!(!is_terminating(&cluster, "held"));
    cluster.advance_with_heartbeats(4, &["n1", "n2"]);
    assert!(is_terminating(&cluster, "held") && !is_terminating(&cluster, "never"));
}

#[test]
fn the_shortest_toleration_decides_the_eviction_time() {
    let mut cluster = cluster();
    let tolerates = |key: &str, seconds: u64| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds});
    cluster.create(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"},
        "spec": {"nodeName": "n1", "containers": [], "tolerations": [tolerates("a", 60), tolerates("b", 20)]}}));
    let taint = |key: &str| json!({"key": key, "effect": "NoExecute"});
    cluster.patch("nodes/n1", &json!({"spec": {"taints": [taint("a"), taint("b")]}}));
    cluster.advance_with_heartbeats(10, &["n1", "n2"]);
    cluster.patch("nodes/n1", &json!({"spec": {"taints": [taint("a")]}}));
    cluster.advance_with_heartbeats(30, &["n1", "n2"]);
    let is_terminating =
        |cluster: &Cluster| cluster.get("pods/default/p").expect("there")["metadata"]["deletionTimestamp"].is_string();
    assert!(!is_terminating(&cluster));
    cluster.patch("nodes/n1", &json!({"spec": {"taints": [taint("a"), taint("b"), taint("untolerated")]}}));
    cluster.advance_with_heartbeats(1, &["n1", "n2"]);
    assert!(is_terminating(&cluster));
}

#[test]
fn a_node_failure_is_handled_step_by_step() {
    let mut cluster = cluster();
    let key = WorkKey::cluster("n1");
    let mut steps = String::new();
    let mut step = |cluster: &mut Cluster, title: &str| {
        let plan = render(&cluster.plan("node-lifecycle", &key));
        steps.push_str(&format!("--- {title}\n{plan}"));
        cluster.carry_out("node-lifecycle", &key);
    };
    step(&mut cluster, "alive");
    cluster.now += Duration::from_secs(10);
    cluster.heartbeat("n2");
    step(&mut cluster, "silent for 10 s");
    step(&mut cluster, "Unknown");
    step(&mut cluster, "tainted");
    step(&mut cluster, "given up");
    cluster.now += Duration::from_secs(10);
    cluster.heartbeat("n2");
    step(&mut cluster, "given up for 10 s");
    step(&mut cluster, "emptied");
    cluster.now += Duration::from_secs(40);
    cluster.heartbeat("n2");
    step(&mut cluster, "emptied for 40 s");
    for pod in pods_of(&cluster, "n1") {
        cluster.confirm_deletion(&format!("pods/default/{pod}"));
    }
    let rest = render(&cluster.plan("node-lifecycle", &key));
    assert_snapshot!("death", format!("{steps}--- confirmed by the node\n{rest}"));
}

#[test]
fn a_returning_node_keeps_its_remaining_pods() {
    let mut cluster = cluster();
    let pods = pods_of(&cluster, "n1");
    cluster.advance_with_heartbeats(15, &["n2"]);
    assert_eq!(taints(&cluster, "n1").len(), 2);
    // The node has renewed its lease but not yet written its status. No more pods are evicted from it.
    cluster.heartbeat("n1");
    cluster.advance_with_heartbeats(8, &["n1", "n2"]);
    assert!(pods.iter().all(|pod| {
        cluster.get(&format!("pods/default/{pod}")).expect("there")["metadata"]["deletionTimestamp"].is_null()
    }));
    cluster.report_ready("n1");
    cluster.settle();
    assert!(taints(&cluster, "n1").is_empty());
    assert_eq!(pods_of(&cluster, "n1"), pods);
    cluster.assert_at_rest();
}

#[test]
fn a_new_leader_gives_every_node_a_full_grace_period() {
    let mut cluster = cluster();
    // The masters were down for a minute, so no heartbeat could be stored.
    cluster.now += Duration::from_secs(60);
    let uptime = cluster.uptime();
    cluster.cache.begin_observation(uptime);
    cluster.advance(Duration::from_secs(9));
    assert_eq!((ready(&cluster, "nodes/n1"), ready(&cluster, "nodes/n2")), ("True".to_owned(), "True".to_owned()));
    cluster.heartbeat("n2");
    cluster.advance(Duration::from_secs(2));
    assert_eq!((ready(&cluster, "nodes/n1"), ready(&cluster, "nodes/n2")), ("Unknown".to_owned(), "True".to_owned()));
}

#[test]
fn no_pod_is_evicted_while_all_nodes_are_silent() {
    let mut cluster = cluster();
    cluster.advance_with_heartbeats(60, &[]);
    assert_eq!(taints(&cluster, "n1"), ["unreachable:NoSchedule"]);
    assert_eq!(taints(&cluster, "n2"), ["unreachable:NoSchedule"]);
    assert_eq!(cluster.names("pods").len(), 4);
    cluster.assert_at_rest();
    // One node comes back, so the other node's failure counts as its own.
    cluster.report_ready("n2");
    cluster.advance_with_heartbeats(1, &["n2"]);
    assert_eq!(taints(&cluster, "n1"), ["unreachable:NoSchedule", "unreachable:NoExecute"]);
    assert!(taints(&cluster, "n2").is_empty());
}

#[test]
fn tolerations_delay_the_eviction() {
    let toleration = |seconds: Value| {
        json!([{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute",
            "tolerationSeconds": seconds}])
    };
    // Each row: tolerations, seconds after the taint at which the pod stays, and seconds at which it is being deleted.
    let table = [
        (json!([]), 8, Some(12)),
        (toleration(json!(3)), 1, Some(5)),
        (toleration(json!(30)), 28, Some(32)),
        (toleration(json!(0)), 0, Some(1)),
        (toleration(Value::Null), 60, None),
        (json!([{"operator": "Exists"}]), 60, None),
        (json!([{"key": "other", "operator": "Exists"}]), 8, Some(12)),
    ];
    for (tolerations, stays, goes) in table {
        let mut cluster = cluster();
        cluster.create(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"},
            "spec": {"nodeName": "n1", "containers": [], "tolerations": tolerations}}));
        // The node becomes unreachable after exactly 10 s.
        cluster.advance_with_heartbeats(10, &["n2"]);
        let is_terminating = |cluster: &Cluster| {
            cluster.get("pods/default/p").is_none_or(|pod| pod["metadata"]["deletionTimestamp"].is_string())
        };
        cluster.advance_with_heartbeats(stays, &["n2"]);
        assert!(stays == 0 || !is_terminating(&cluster), "{tolerations} after {stays} s");
        if let Some(goes) = goes {
            cluster.advance_with_heartbeats(goes - stays, &["n2"]);
            assert!(is_terminating(&cluster), "{tolerations} after {goes} s");
        }
    }
}

#[test]
fn an_unwritable_pod_does_not_block_the_eviction_of_others() {
    let mut cluster = cluster();
    let evicted_pods = pods_of(&cluster, "n1");
    let unwritable = evicted_pods[0].clone();
    cluster.refuses = Box::new(move |verb, target| (verb == Verb::Update && target.name == unwritable).then_some("no"));
    cluster.advance_with_heartbeats(22, &["n2"]);
    let is_terminating = |cluster: &Cluster, pod: &str| {
        let pod = cluster.get(&format!("pods/default/{pod}")).expect("not confirmed");
        pod["metadata"]["deletionTimestamp"].is_string()
    };
    assert!(!is_terminating(&cluster, &evicted_pods[0]) && is_terminating(&cluster, &evicted_pods[1]));
}

#[test]
fn conditions_and_cordons_become_taints() {
    let mut cluster = cluster();
    cluster.patch(
        "nodes/n1",
        &json!({"spec": {"unschedulable": true,
        "taints": [{"key": "mine", "value": "x", "effect": "NoSchedule"}]}}),
    );
    cluster.patch_status(
        "nodes/n1",
        &json!({"status": {"conditions": [
        {"type": "Ready", "status": "False"}, {"type": "DiskPressure", "status": "True"}]}}),
    );
    cluster.settle();
    let expected = [
        "mine:NoSchedule",
        "not-ready:NoSchedule",
        "not-ready:NoExecute",
        "disk-pressure:NoSchedule",
        "unschedulable:NoSchedule",
    ];
    assert_eq!(taints(&cluster, "n1"), expected);
    cluster.patch("nodes/n1", &json!({"spec": {"unschedulable": null}}));
    cluster.report_ready("n1");
    cluster.settle();
    assert_eq!(taints(&cluster, "n1"), ["mine:NoSchedule"]);
    cluster.assert_at_rest();
}

#[test]
fn the_out_of_service_taint_removes_terminating_pods_at_once() {
    let mut cluster = cluster();
    cluster.advance_with_heartbeats(11, &["n2"]);
    cluster.patch(
        "nodes/n1",
        &json!({"spec": {"taints": [
        {"key": "node.kubernetes.io/out-of-service", "value": "nodeshutdown", "effect": "NoExecute"}]}}),
    );
    cluster.settle();
    assert!(pods_of(&cluster, "n1").is_empty());
    assert_eq!(cluster.names("pods").len(), 4);
}

#[test]
fn pods_of_a_node_that_does_not_exist_are_removed() {
    let mut cluster = cluster();
    cluster.advance_with_heartbeats(30, &["n1", "n2"]);
    cluster.delete("nodes/n1", None);
    cluster.settle();
    assert!(pods_of(&cluster, "n1").is_empty());
    assert_eq!(cluster.names("pods").len(), 4);

    // A pod bound before its node exists gets a grace period.
    cluster.create(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "early", "namespace": "default"},
        "spec": {"nodeName": "n3", "containers": []}}));
    cluster.advance_with_heartbeats(19, &["n2"]);
    assert_eq!(pods_of(&cluster, "n3"), ["early"]);
    cluster.advance_with_heartbeats(2, &["n2"]);
    assert!(pods_of(&cluster, "n3").is_empty());
    cluster.assert_at_rest();
}
