use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use super::*;

fn pod(name: &str, priority: i32) -> Arc<PodInfo> {
    built(json!({"metadata": {"name": name, "namespace": "default", "uid": name},
        "spec": {"containers": [], "priority": priority}}))
}

fn built(object: serde_json::Value) -> Arc<PodInfo> {
    let object: Pod = serde_json::from_value(object).expect("a pod");
    Arc::new(PodInfo::parse(&object).expect("valid"))
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn popped(queue: &mut Queue, now: u64) -> Option<String> {
    queue.pop(seconds(now)).map(|pod| pod.key.name.to_string())
}

#[test]
fn pods_are_ordered_by_priority_then_by_arrival() {
    let mut queue = Queue::default();
    for (name, priority) in [("a", 0), ("b", 100), ("c", 0), ("d", 100)] {
        queue.upsert(pod(name, priority));
    }
    let order: Vec<_> = std::iter::from_fn(|| popped(&mut queue, 0)).collect();
    assert_eq!(order, ["b", "d", "a", "c"]);
    assert_eq!(queue.len(), 4, "pods in flight stay in the queue");
}

#[test]
fn parked_pods_wait_for_an_event_that_may_help() {
    let mut queue = Queue::default();
    queue.upsert(pod("a", 0));
    assert_eq!(popped(&mut queue, 0).as_deref(), Some("a"));
    let key = PodKey::new("default", "a");
    queue.park(&key, ClusterEvents::NODE_ADDED | ClusterEvents::POD_REMOVED, seconds(0));
    assert_eq!(queue.wake(ClusterEvents::NODE_LABELS, seconds(60)), 0);
    assert_eq!(popped(&mut queue, 60), None);
    assert_eq!(queue.wake(ClusterEvents::POD_REMOVED, seconds(60)), 1, "its backoff has long passed");
    assert_eq!(popped(&mut queue, 60).as_deref(), Some("a"));
}

#[test]
fn backoff_doubles_from_one_second_to_ten() {
    let mut queue = Queue::default();
    queue.upsert(pod("a", 0));
    let key = PodKey::new("default", "a");
    let mut now = Duration::ZERO;
    let mut waits = Vec::new();
    for _ in 0..6 {
        queue.pop(now).expect("it is due");
        queue.park(&key, ClusterEvents::NODE_ADDED, now);
        queue.wake(ClusterEvents::NODE_ADDED, now);
        let due = queue.next_deadline().expect("it backs off");
        assert!(queue.pop(due - Duration::from_millis(1)).is_none());
        waits.push((due - now).as_secs());
        now = due;
    }
    assert_eq!(waits, [1, 2, 4, 8, 10, 10]);
}

#[test]
fn an_error_is_retried_after_the_backoff() {
    let mut queue = Queue::default();
    queue.upsert(pod("a", 0));
    queue.pop(seconds(0)).expect("it is active");
    queue.retry(&PodKey::new("default", "a"), seconds(5));
    assert_eq!(queue.next_deadline(), Some(seconds(6)));
    assert_eq!(popped(&mut queue, 5), None);
    assert_eq!(popped(&mut queue, 6).as_deref(), Some("a"));
}

#[test]
fn nothing_is_parked_for_more_than_five_minutes() {
    let mut queue = Queue::default();
    queue.upsert(pod("a", 0));
    queue.pop(seconds(0)).expect("it is active");
    queue.park(&PodKey::new("default", "a"), ClusterEvents::NONE, seconds(0));
    assert_eq!(queue.next_deadline(), Some(seconds(300)));
    assert_eq!(popped(&mut queue, 299), None);
    assert_eq!(popped(&mut queue, 300).as_deref(), Some("a"));
}

#[test]
fn a_gated_pod_waits_for_its_gates() {
    let object = |gates: serde_json::Value| {
        json!({"metadata": {"name": "a", "namespace": "default", "uid": "u"},
            "spec": {"containers": [], "schedulingGates": gates}})
    };
    let mut queue = Queue::default();
    queue.upsert(built(object(json!([{"name": "g"}]))));
    assert_eq!(popped(&mut queue, 1000), None);
    queue.upsert(built(object(json!([]))));
    assert_eq!(popped(&mut queue, 1000).as_deref(), Some("a"));
}

#[test]
fn only_a_changed_pod_is_tried_again_at_once() {
    let mut queue = Queue::default();
    queue.upsert(pod("a", 0));
    queue.pop(seconds(0)).expect("it is active");
    queue.park(&PodKey::new("default", "a"), ClusterEvents::NONE, seconds(0));
    queue.upsert(pod("a", 0));
    assert_eq!(popped(&mut queue, 1), None);
    queue.upsert(pod("a", 7));
    assert_eq!(popped(&mut queue, 1).as_deref(), Some("a"));
}

#[test]
fn removed_pods_do_not_return() {
    let mut queue = Queue::default();
    queue.upsert(pod("a", 0));
    queue.upsert(pod("b", 0));
    queue.remove(&PodKey::new("default", "a"));
    assert_eq!(popped(&mut queue, 0).as_deref(), Some("b"));
    let key = PodKey::new("default", "b");
    queue.remove(&key);
    queue.park(&key, ClusterEvents::NODE_ADDED, seconds(0));
    queue.retry(&key, seconds(0));
    assert!(queue.is_empty());
    assert_eq!((popped(&mut queue, 1000), queue.next_deadline()), (None, None));
}

#[test]
fn a_restart_activates_every_pod_that_is_not_gated() {
    let mut queue = Queue::default();
    for name in ["active", "parked", "backing-off", "in-flight"] {
        queue.upsert(pod(name, if name == "active" { -1 } else { 0 }));
    }
    queue.upsert(built(json!({"metadata": {"name": "gated", "namespace": "default", "uid": "gated"},
        "spec": {"containers": [], "schedulingGates": [{"name": "g"}]}})));
    for _ in 0..3 {
        queue.pop(seconds(0)).expect("it is active");
    }
    queue.park(&PodKey::new("default", "parked"), ClusterEvents::NONE, seconds(0));
    queue.retry(&PodKey::new("default", "backing-off"), seconds(0));
    queue.restart();
    let order: Vec<_> = std::iter::from_fn(|| popped(&mut queue, 0)).collect();
    assert_eq!(order, ["backing-off", "in-flight", "parked", "active"]);
    assert_eq!((queue.len(), queue.next_deadline()), (5, None));
}
