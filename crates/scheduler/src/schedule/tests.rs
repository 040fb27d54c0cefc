use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};

use super::*;
use crate::event::ClusterEvents;

fn node(name: &str, extra: Value) -> NodeSpec {
    let mut object = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": {},
        "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110", "ephemeral-storage": "100Gi"}},
    });
    merge(&mut object, extra);
    let object: Node = serde_json::from_value(object).expect("a node");
    NodeSpec::parse(&object).expect("valid quantities")
}

fn pod(name: &str, spec: Value) -> PodInfo {
    owned_pod(name, None, spec)
}

fn owned_pod(name: &str, owner: Option<&str>, spec: Value) -> PodInfo {
    let mut object = json!({
        "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}")},
        "spec": {"containers": [{"name": "c"}]},
    });
    if let Some(owner) = owner {
        object["metadata"]["ownerReferences"] = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": owner,
            "uid": owner, "controller": true}]);
    }
    merge(&mut object["spec"], spec);
    let object: Pod = serde_json::from_value(object).expect("a pod");
    PodInfo::parse(&object).expect("valid quantities")
}

fn merge(target: &mut Value, patch: Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(target.entry(key).or_insert(Value::Null), value);
            }
        }
        (target, patch) => *target = patch,
    }
}

fn requests(resources: Value) -> Value {
    json!({"containers": [{"name": "c", "resources": {"requests": resources}}]})
}

fn snapshot(nodes: Vec<NodeSpec>) -> Snapshot {
    let mut snapshot = Snapshot::new();
    for node in nodes {
        snapshot.upsert_node(node);
    }
    snapshot
}

fn decide(snapshot: &Snapshot, pod: &PodInfo) -> Result<String, String> {
    match schedule(snapshot, pod, Cursor::default()) {
        Decision::Bind { node, .. } => Ok(node.to_string()),
        Decision::Unschedulable(why) => Err(why.message),
    }
}

/// Schedules the pod and assumes the decision.
fn place(snapshot: &mut Snapshot, pod: &PodInfo, seed: u64) -> String {
    match schedule(snapshot, pod, Cursor { start: 0, seed }) {
        Decision::Bind { node, .. } => {
            snapshot.assume(pod, &node);
            node.to_string()
        }
        Decision::Unschedulable(why) => panic!("{}", why.message),
    }
}

fn taint(key: &str, value: &str, effect: &str) -> Value {
    json!({"spec": {"taints": [{"key": key, "value": value, "effect": effect}]}})
}

#[test]
fn messages_match_those_of_kube_scheduler() {
    let small = || node("small", json!({"status": {"allocatable": {"cpu": "100m"}}}));
    let dead = || node("dead", taint("node.kubernetes.io/unreachable", "", "NoSchedule"));
    let big = requests(json!({"cpu": "2"}));
    let gpu_node = |name: &str| node(name, json!({"status": {"allocatable": {"example.com/gpu": "1"}}}));
    for (nodes, spec, message) in [
        (vec![], json!({}), "no nodes available to schedule pods"),
        (
            vec![small(), dead()],
            big.clone(),
            "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint \
             {node.kubernetes.io/unreachable: }. preemption: 0/2 nodes are available: 2 Preemption is not helpful for \
             scheduling.",
        ),
        (
            vec![small()],
            requests(json!({"cpu": "8", "memory": "1Ti", "ephemeral-storage": "1Ti", "example.com/gpu": "1"})),
            "0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient ephemeral-storage, 1 Insufficient \
             example.com/gpu, 1 Insufficient memory. preemption: 0/1 nodes are available: 1 Preemption is not helpful \
             for scheduling.",
        ),
        (
            vec![gpu_node("a"), gpu_node("b"), small()],
            requests(json!({"example.com/gpu": "2"})),
            "0/3 nodes are available: 3 Insufficient example.com/gpu. preemption: 0/3 nodes are available: 3 \
             Preemption is not helpful for scheduling.",
        ),
        (
            vec![node("full", json!({"status": {"allocatable": {"pods": "0"}}}))],
            json!({}),
            "0/1 nodes are available: 1 Too many pods. preemption: 0/1 nodes are available: 1 No preemption victims \
             found for incoming pod.",
        ),
        (
            vec![
                node(
                    "cordoned",
                    json!({"spec": {"unschedulable": true, "taints": [
                    {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]}}),
                ),
                node("db", taint("dedicated", "db", "NoExecute")),
            ],
            json!({}),
            "0/2 nodes are available: 1 node(s) had untolerated taint {dedicated: db}, 1 node(s) were unschedulable. \
             preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling.",
        ),
        (
            vec![small()],
            json!({"nodeSelector": {"disk": "ssd"}}),
            "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector. preemption: 0/1 nodes are \
             available: 1 Preemption is not helpful for scheduling.",
        ),
        (
            vec![small()],
            json!({"nodeName": "other"}),
            "0/1 nodes are available: 1 node(s) didn't match the requested node name. preemption: 0/1 nodes are \
             available: 1 Preemption is not helpful for scheduling.",
        ),
        (
            vec![small()],
            json!({"schedulingGates": [{"name": "example.com/wait"}]}),
            "Scheduling is blocked due to non-empty scheduling gates",
        ),
        (
            vec![small(), dead()],
            json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                {"nodeSelectorTerms": [{"matchFields": [
                    {"key": "metadata.name", "operator": "In", "values": ["dead"]}]}]}}}}),
            "0/2 nodes are available: 1 node(s) didn't satisfy plugin(s) [NodeAffinity], 1 node(s) had untolerated \
             taint {node.kubernetes.io/unreachable: }. preemption: 0/2 nodes are available: 2 Preemption is not \
             helpful for scheduling.",
        ),
        (
            vec![small()],
            json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                {"nodeSelectorTerms": [{"matchFields": [
                    {"key": "metadata.name", "operator": "In", "values": ["a"]},
                    {"key": "metadata.name", "operator": "In", "values": ["b"]}]}]}}}}),
            "0/1 nodes are available: pod affinity terms conflict. preemption: 0/1 nodes are available: 1 Preemption \
             is not helpful for scheduling.",
        ),
    ] {
        assert_eq!(decide(&snapshot(nodes), &pod("web", spec)), Err(message.to_owned()));
    }
}

#[test]
fn a_pod_with_unsupported_fields_is_unschedulable_and_names_them() {
    let term = json!([{"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "web"}}}]);
    let required = json!({"requiredDuringSchedulingIgnoredDuringExecution": term});
    let spread = |when: &str| json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": when}]});
    let nodes = || snapshot(vec![node("a", json!({})), node("b", json!({}))]);
    for (spec, fields) in [
        (
            json!({"affinity": {"podAntiAffinity": required}}),
            "spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution",
        ),
        (
            json!({"affinity": {"podAffinity": required}, "resourceClaims": [{"name": "gpu"}]}),
            "spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution, spec.resourceClaims",
        ),
        (spread("DoNotSchedule"), "spec.topologySpreadConstraints[0].whenUnsatisfiable=DoNotSchedule"),
        (
            json!({"volumes": [{"name": "v", "emptyDir": {}}, {"name": "w", "persistentVolumeClaim": {"claimName": "c"}},
                {"name": "x", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}}]}),
            "spec.volumes[1].persistentVolumeClaim, spec.volumes[2].ephemeral",
        ),
        (
            json!({"containers": [{"name": "c", "resources": {"claims": [{"name": "gpu"}]}}]}),
            "spec.containers[0].resources.claims",
        ),
        (json!({"schedulingGroup": {"podGroupName": "g"}}), "spec.schedulingGroup"),
    ] {
        let message = format!(
            "0/2 nodes are available: not supported by the scheduler yet: {fields}. preemption: 0/2 nodes are available: \
             2 Preemption is not helpful for scheduling."
        );
        assert_eq!(decide(&nodes(), &pod("web", spec.clone())), Err(message), "{spec}");
    }
    let preferred = json!({"affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 1, "podAffinityTerm": {"topologyKey": "zone"}}]}}});
    for spec in [spread("ScheduleAnyway"), preferred, json!({"affinity": {"podAffinity": {}}})] {
        assert!(decide(&nodes(), &pod("web", spec.clone())).is_ok(), "{spec}");
    }
}

#[test]
fn the_preemption_sentence_is_left_out_when_there_are_victims() {
    let cpu = |cpu: &str, priority: i32| {
        let mut spec = requests(json!({"cpu": cpu}));
        spec["priority"] = json!(priority);
        spec
    };
    let mut cluster = snapshot(vec![node("full", json!({})), node("tainted", taint("a", "", "NoSchedule"))]);
    cluster.assume(&pod("low", cpu("3", 5)), "full");
    let message = |cluster: &Snapshot, spec: Value| decide(cluster, &pod("web", spec)).expect_err("no node");
    assert_eq!(
        message(&cluster, cpu("2", 5)),
        "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint {a: }. preemption: 0/2 nodes are \
         available: 1 No preemption victims found for incoming pod, 1 Preemption is not helpful for scheduling."
    );
    assert_eq!(
        message(&cluster, cpu("2", 6)),
        "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint {a: }."
    );
    assert!(message(&cluster, cpu("5", 6)).ends_with(": 2 Preemption is not helpful for scheduling."));
    cluster.remove_pod(&pod("low", json!({})).key);
    assert!(decide(&cluster, &pod("web", cpu("2", 6))).is_ok());
}

#[test]
fn reasons_are_sorted_as_text_with_their_counts() {
    let mut nodes: Vec<NodeSpec> = (0..10).map(|i| node(&format!("n{i}"), taint("a", "", "NoSchedule"))).collect();
    nodes.extend((0..2).map(|i| node(&format!("m{i}"), json!({"spec": {"unschedulable": true}}))));
    assert_eq!(
        decide(&snapshot(nodes), &pod("web", json!({}))),
        Err("0/12 nodes are available: 10 node(s) had untolerated taint {a: }, 2 node(s) were unschedulable. \
             preemption: 0/12 nodes are available: 12 Preemption is not helpful for scheduling."
            .into())
    );
}

#[test]
fn host_ports_keep_pods_apart() {
    let ports = json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 8080}]}]});
    let mut snapshot = snapshot(vec![node("a", json!({})), node("b", json!({}))]);
    let first = place(&mut snapshot, &pod("one", ports.clone()), 0);
    let second = place(&mut snapshot, &pod("two", ports.clone()), 0);
    assert_ne!(first, second);
    assert_eq!(
        decide(&snapshot, &pod("three", ports.clone())),
        Err("0/2 nodes are available: 2 node(s) didn't have free ports for the requested pod ports. preemption: 0/2 \
             nodes are available: 2 No preemption victims found for incoming pod."
            .into())
    );
    let events = snapshot.remove_pod(&pod("one", json!({})).key);
    assert!(events.intersects(ClusterEvents::POD_REMOVED));
    assert_eq!(decide(&snapshot, &pod("three", ports)), Ok(first));
}

#[test]
fn tolerations_admit_pods_to_tainted_and_cordoned_nodes() {
    let cordoned = snapshot(vec![node("a", json!({"spec": {"unschedulable": true}}))]);
    let tolerant = json!({"tolerations": [{"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}]});
    assert_eq!(decide(&cordoned, &pod("web", tolerant)), Ok("a".into()));
    let uncordoned = snapshot(vec![node("a", taint("node.kubernetes.io/unschedulable", "", "NoSchedule"))]);
    assert_eq!(decide(&uncordoned, &pod("web", json!({}))), Ok("a".into()), "the taint of a lifted cordon is ignored");
    let tainted = snapshot(vec![node("a", taint("dedicated", "db", "NoSchedule"))]);
    let tolerant = json!({"tolerations": [{"key": "dedicated", "value": "db", "effect": "NoSchedule"}]});
    assert_eq!(decide(&tainted, &pod("web", tolerant)), Ok("a".into()));
}

#[test]
fn soft_taints_and_preferences_affect_the_score() {
    let nodes = || {
        vec![
            node("a", taint("slow", "", "PreferNoSchedule")),
            node("b", json!({"metadata": {"labels": {"disk": "hdd"}}})),
            node(
                "c",
                json!({"metadata": {"labels": {"disk": "ssd"}}, "spec": {"taints": [
                {"key": "slow", "effect": "PreferNoSchedule"}]}}),
            ),
        ]
    };
    assert_eq!(decide(&snapshot(nodes()), &pod("web", json!({}))), Ok("b".into()));
    let prefers_ssd = json!({
        "tolerations": [{"key": "slow", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 10, "preference": {"matchExpressions": [
                {"key": "disk", "operator": "In", "values": ["ssd"]}]}}]}},
    });
    assert_eq!(decide(&snapshot(nodes()), &pod("web", prefers_ssd)), Ok("c".into()));
}

#[test]
fn the_emptier_and_the_more_balanced_node_wins() {
    let mut cluster = snapshot(vec![node("a", json!({})), node("b", json!({}))]);
    cluster.assume(&pod("filler", requests(json!({"cpu": "2", "memory": "4Gi"}))), "a");
    assert_eq!(decide(&cluster, &pod("web", requests(json!({"cpu": "1", "memory": "1Gi"})))), Ok("b".into()));

    // Both nodes have the same sum of free shares. On `b`, cpu and memory would be used evenly.
    let mut cluster = snapshot(vec![node("a", json!({})), node("b", json!({}))]);
    cluster.assume(&pod("cpu", requests(json!({"cpu": "2", "memory": "1Gi"}))), "a");
    cluster.assume(&pod("memory", requests(json!({"cpu": "500m", "memory": "4Gi"}))), "b");
    assert_eq!(decide(&cluster, &pod("web", requests(json!({"cpu": "2", "memory": "1Gi"})))), Ok("b".into()));
}

#[test]
fn pods_of_a_controller_spread_over_nodes_and_zones() {
    let zone = |zone: &str| json!({"metadata": {"labels": {"topology.kubernetes.io/zone": zone}}});
    let mut cluster =
        snapshot(vec![node("a1", zone("a")), node("a2", zone("a")), node("b1", zone("b")), node("b2", zone("b"))]);
    let mut used: Vec<String> = (0..4)
        .map(|i| place(&mut cluster, &owned_pod(&format!("web-{i}"), Some("rs"), requests(json!({"cpu": "1m"}))), i))
        .collect();
    assert_ne!(used[0].as_bytes()[0], used[1].as_bytes()[0], "the second pod goes to the other zone: {used:?}");
    used.sort();
    assert_eq!(used, ["a1", "a2", "b1", "b2"]);
}

#[test]
fn six_replicas_share_two_workers_evenly() {
    let mut cluster = snapshot(vec![node("worker-1", json!({})), node("worker-2", json!({}))]);
    let used: Vec<String> =
        (0..6).map(|i| place(&mut cluster, &owned_pod(&format!("web-{i}"), Some("rs"), json!({})), i)).collect();
    assert_eq!(used.iter().filter(|name| *name == "worker-1").count(), 3, "{used:?}");
}

#[test]
fn large_clusters_are_sampled_in_rotation() {
    let cluster = snapshot((0..1000).map(|i| node(&format!("n{i}"), json!({}))).collect());
    let web = pod("web", json!({}));
    let mut cursor = Cursor::default();
    let mut seen = 0;
    while seen < 1000 {
        let decision = schedule(&cluster, &web, cursor);
        assert!(matches!(decision, Decision::Bind { evaluated: 420, feasible: 420, .. }), "{decision:?}");
        cursor.start += decision.evaluated();
        seen += decision.evaluated();
    }
    assert_eq!([50, 100, 500, 1000, 5000, 10000].map(feasible_nodes_to_find), [50, 100, 230, 420, 500, 500]);
}

#[test]
fn an_unschedulable_pod_waits_for_events_that_may_help() {
    let check = |nodes: Vec<NodeSpec>, spec: Value, helpful: ClusterEvents, useless: ClusterEvents| {
        let Decision::Unschedulable(why) = schedule(&snapshot(nodes), &pod("web", spec), Cursor::default()) else {
            panic!("it should not fit");
        };
        assert!(why.wake_on.intersects(helpful), "{why:?}");
        assert!(!why.wake_on.intersects(useless), "{why:?}");
        assert!(why.wake_on.intersects(ClusterEvents::NODE_ADDED), "{why:?}");
    };
    let nodes = || vec![node("a", json!({}))];
    let full = || vec![node("a", json!({"status": {"allocatable": {"pods": "0"}}}))];
    check(full(), json!({}), ClusterEvents::POD_REMOVED, ClusterEvents::NODE_LABELS);
    check(nodes(), requests(json!({"cpu": "9"})), ClusterEvents::NODE_ALLOCATABLE, ClusterEvents::POD_REMOVED);
    check(nodes(), requests(json!({"cpu": "9"})), ClusterEvents::NODE_ALLOCATABLE, ClusterEvents::NODE_TAINTS);
    check(nodes(), json!({"nodeSelector": {"a": "b"}}), ClusterEvents::NODE_LABELS, ClusterEvents::POD_REMOVED);
    let tainted = vec![node("a", taint("k", "", "NoSchedule"))];
    check(tainted, json!({}), ClusterEvents::NODE_TAINTS, ClusterEvents::POD_REMOVED);
    let cordoned = vec![node("a", json!({"spec": {"unschedulable": true}}))];
    check(cordoned, json!({}), ClusterEvents::NODE_UNCORDONED, ClusterEvents::NODE_ALLOCATABLE);
}

#[test]
#[ignore = "measures this machine; run it alone, with --release"]
fn a_thousand_decisions_a_second_among_five_thousand_nodes() {
    let zone = |i: usize| json!({"metadata": {"labels": {"topology.kubernetes.io/zone": format!("z{}", i % 3)}}});
    let mut cluster = snapshot((0..5000).map(|i| node(&format!("n{i}"), zone(i))).collect());
    let pods: Vec<PodInfo> = (0..2000)
        .map(|i| owned_pod(&format!("p{i}"), Some(["a", "b", "c"][i % 3]), requests(json!({"cpu": "10m"}))))
        .collect();
    let mut cursor = Cursor::default();
    let started = std::time::Instant::now();
    for pod in &pods {
        let Decision::Bind { node, evaluated, .. } = schedule(&cluster, pod, cursor) else { panic!("it fits") };
        cluster.assume(pod, &node);
        cursor = Cursor { start: cursor.start + evaluated, seed: cursor.seed + 1 };
    }
    let rate = pods.len() as f64 / started.elapsed().as_secs_f64();
    assert!(rate > 1000.0, "{rate:.0} decisions/s");
}
