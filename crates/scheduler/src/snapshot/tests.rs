//! Property tests of the snapshot over random histories.

use proptest::prelude::*;

use super::*;
use crate::ports::HostPort;
use crate::requests::PodRequests;
use crate::resources::Resources;
use crate::schedule::{Cursor, Decision, schedule};
use crate::taint::{Effect, Taint};

#[derive(Clone, Debug)]
enum Step {
    UpsertNode {
        node: u8,
        cpu: i64,
        pods: i64,
        tainted: bool,
    },
    RemoveNode {
        node: u8,
    },
    AddPod {
        pod: u8,
        node: u8,
        cpu: i64,
        port: Option<u8>,
        owner: Option<u8>,
    },
    /// Schedules the pod and assumes the outcome.
    Schedule {
        pod: u8,
        cpu: i64,
        port: Option<u8>,
        owner: Option<u8>,
        seed: u64,
    },
    Forget {
        pod: u8,
    },
    RemovePod {
        pod: u8,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let port = || proptest::option::of(0..3_u8);
    let owner = || proptest::option::of(0..3_u8);
    prop_oneof![
        (0..6_u8, 0..4000_i64, 0..5_i64, any::<bool>()).prop_map(|(node, cpu, pods, tainted)| Step::UpsertNode {
            node,
            cpu,
            pods,
            tainted
        }),
        (0..6_u8).prop_map(|node| Step::RemoveNode { node }),
        (0..20_u8, 0..6_u8, 0..1500_i64, port(), owner()).prop_map(|(pod, node, cpu, port, owner)| Step::AddPod {
            pod,
            node,
            cpu,
            port,
            owner
        }),
        (0..20_u8, 0..1500_i64, port(), owner(), any::<u64>())
            .prop_map(|(pod, cpu, port, owner, seed)| Step::Schedule { pod, cpu, port, owner, seed }),
        (0..20_u8).prop_map(|pod| Step::Forget { pod }),
        (0..20_u8).prop_map(|pod| Step::RemovePod { pod }),
    ]
}

fn node_spec(node: u8, cpu: i64, pods: i64, tainted: bool) -> NodeSpec {
    NodeSpec {
        name: Arc::from(format!("node-{node}")),
        labels: BTreeMap::from([("topology.kubernetes.io/zone".to_owned(), format!("z{}", node % 2))]),
        taints: tainted.then(|| Taint::new("t", "", Effect::NoSchedule)).into_iter().collect(),
        unschedulable: false,
        allocatable: Resources { milli_cpu: cpu, memory_bytes: 1 << 30, ..Resources::default() },
        allowed_pods: pods,
    }
}

fn pod_info(pod: u8, cpu: i64, port: Option<u8>, owner: Option<u8>) -> PodInfo {
    let footprint = Footprint {
        requests: PodRequests {
            requested: Resources { milli_cpu: cpu, ..Resources::default() },
            non_zero_milli_cpu: cpu,
            non_zero_memory_bytes: 1000,
        },
        ports: port
            .map(|port| HostPort { port: i32::from(port) + 1, protocol: "TCP".into(), address: "0.0.0.0".into() })
            .into_iter()
            .collect(),
        owner: owner.map(|owner| Arc::from(format!("owner-{owner}"))),
        priority: i32::from(pod % 3),
    };
    PodInfo {
        key: PodKey::new("default", &format!("pod-{pod}")),
        uid: Arc::from(format!("uid-{pod}")),
        footprint,
        node_name: None,
        required: Default::default(),
        named_nodes: None,
        preferred: Vec::new(),
        tolerations: Vec::new(),
        unsupported: Vec::new(),
        gated: false,
    }
}

/// Executes a step. A scheduled pod must fit on its node beside the pods that are already there.
fn apply(snapshot: &mut Snapshot, step: &Step) {
    match *step {
        Step::UpsertNode { node, cpu, pods, tainted } => {
            snapshot.upsert_node(node_spec(node, cpu, pods, tainted));
        }
        Step::RemoveNode { node } => snapshot.remove_node(&format!("node-{node}")),
        Step::AddPod { pod, node, cpu, port, owner } => {
            let info = pod_info(pod, cpu, port, owner);
            snapshot.add_pod(info.key, info.uid, &format!("node-{node}"), info.footprint);
        }
        Step::Schedule { pod, cpu, port, owner, seed } => {
            let info = pod_info(pod, cpu, port, owner);
            if snapshot.pod(&info.key).is_some() {
                return;
            }
            let cursor = Cursor { start: usize::from(pod), seed };
            let decision = schedule(snapshot, &info, cursor);
            assert_eq!(schedule(snapshot, &info, cursor), decision, "the decision is repeatable");
            if let Decision::Bind { node, .. } = decision {
                let taken = snapshot.node(&node).map(|node| node.ports.clone()).unwrap_or_default();
                snapshot.assume(&info, &node);
                let node = snapshot.node(&node).expect("it was chosen");
                let spec = node.spec.as_ref().expect("it has a Node object");
                assert!(cpu == 0 || node.requested.milli_cpu <= spec.allocatable.milli_cpu, "cpu is over-committed");
                assert!(node.pods.len() as i64 <= spec.allowed_pods, "too many pods");
                assert!(spec.taints.is_empty(), "the taint was ignored");
                assert!(info.footprint.ports.iter().all(|port| !taken.contains(port)), "the host port was taken");
            }
        }
        Step::Forget { pod } => {
            snapshot.forget(&PodKey::new("default", &format!("pod-{pod}")), &format!("uid-{pod}"));
        }
        Step::RemovePod { pod } => {
            snapshot.remove_pod(&PodKey::new("default", &format!("pod-{pod}")));
        }
    }
}

fn rebuilt(snapshot: &Snapshot) -> Snapshot {
    let mut fresh = Snapshot::new();
    let mut pods: Vec<_> = snapshot.pods.iter().collect();
    pods.sort_by_key(|(key, _)| *key);
    for (key, placed) in pods {
        fresh.place(key.clone(), placed.clone());
    }
    for node in snapshot.slots.iter().rev() {
        if let Some(spec) = &node.spec {
            fresh.upsert_node(spec.clone());
        }
    }
    fresh
}

proptest! {
    #[test]
    fn incremental_updates_match_a_rebuild_and_never_overcommit(steps in proptest::collection::vec(step(), 1..80)) {
        let mut snapshot = Snapshot::new();
        for step in &steps {
            apply(&mut snapshot, step);
        }
        let fresh = rebuilt(&snapshot);
        prop_assert_eq!(&fresh, &snapshot);
        let probe = pod_info(99, 100, None, Some(1));
        let cursor = Cursor { start: 3, seed: 7 };
        prop_assert_eq!(schedule(&fresh, &probe, cursor), schedule(&snapshot, &probe, cursor));
    }
}

#[test]
fn an_assumption_is_confirmed_or_forgotten() {
    let mut snapshot = Snapshot::new();
    snapshot.upsert_node(node_spec(0, 1000, 10, false));
    let pod = pod_info(1, 600, None, None);
    snapshot.assume(&pod, "node-0");
    assert!(matches!(
        schedule(&snapshot, &pod_info(2, 600, None, None), Cursor::default()),
        Decision::Unschedulable(_)
    ));
    assert_eq!(snapshot.forget(&pod.key, "another-uid"), ClusterEvents::NONE);
    assert_eq!(snapshot.forget(&pod.key, &pod.uid), ClusterEvents::POD_REMOVED);
    assert!(matches!(schedule(&snapshot, &pod_info(2, 600, None, None), Cursor::default()), Decision::Bind { .. }));

    snapshot.assume(&pod, "node-0");
    snapshot.add_pod(pod.key.clone(), pod.uid.clone(), "node-0", pod.footprint.clone());
    assert_eq!(snapshot.forget(&pod.key, &pod.uid), ClusterEvents::NONE, "a confirmed pod is not forgotten");
    assert!(snapshot.pod(&pod.key).is_some());
}

#[test]
fn pods_of_an_unknown_node_count_once_it_appears() {
    let mut snapshot = Snapshot::new();
    let pod = pod_info(1, 600, None, None);
    snapshot.add_pod(pod.key.clone(), pod.uid.clone(), "node-0", pod.footprint.clone());
    assert_eq!(snapshot.len(), 0);
    assert_eq!(snapshot.upsert_node(node_spec(0, 1000, 10, false)), ClusterEvents::NODE_ADDED);
    assert_eq!(snapshot.node("node-0").map(|node| node.requested.milli_cpu), Some(600));
    snapshot.remove_node("node-0");
    snapshot.remove_pod(&pod.key);
    assert_eq!(snapshot, Snapshot::new());
}
