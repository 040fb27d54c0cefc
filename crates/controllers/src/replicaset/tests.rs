use std::time::Duration;

use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::simulation::{Cluster, in_default, render};

const SET: &str = "apps/replicasets/default/rs";

fn replica_set(replicas: i32, min_ready_seconds: i32) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "rs", "namespace": "default"},
        "spec": {"replicas": replicas, "minReadySeconds": min_ready_seconds,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}, "annotations": {"note": "x"}},
                "spec": {"containers": [{"name": "c", "image": "web:1"}]}}}})
}

fn pod(name: &str, labels: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default", "labels": labels},
        "spec": {"containers": []}})
}

fn running(cluster: &mut Cluster) {
    cluster.settle();
    cluster.run(&["n1", "n2"], 1, |_| {});
}

fn with_nodes() -> Cluster {
    let mut cluster = Cluster::new();
    cluster.add_node("n1");
    cluster.add_node("n2");
    cluster
}

#[test]
fn pods_are_created_in_growing_waves() {
    let mut cluster = Cluster::new();
    cluster.create(replica_set(5, 0));
    assert_snapshot!("waves", render(&cluster.plan("replicaset", &in_default("rs"))));
    cluster.settle();
    assert_eq!(cluster.names("pods").len(), 5);
    cluster.assert_at_rest();
}

#[test]
fn many_pods_are_created_in_bursts() {
    let mut cluster = Cluster::new();
    cluster.create(replica_set(700, 0));
    cluster.settle();
    assert_eq!(cluster.names("pods").len(), 700);
    cluster.patch(SET, &json!({"spec": {"replicas": 3}}));
    cluster.settle();
    assert_eq!(cluster.names("pods").len(), 3);
}

#[test]
fn ended_and_terminating_pods_are_replaced() {
    let mut cluster = with_nodes();
    cluster.create(replica_set(2, 0));
    running(&mut cluster);
    let names: Vec<String> = cluster.names("pods").into_iter().map(str::to_owned).collect();
    cluster.patch_status(&format!("pods/default/{}", names[0]), &json!({"status": {"phase": "Failed"}}));
    cluster.delete(&format!("pods/default/{}", names[1]), None);
    cluster.settle();
    assert_eq!(cluster.names("pods").len(), 4);
    let status = &cluster.get(SET).expect("there")["status"];
    assert_eq!((&status["replicas"], &status["terminatingReplicas"]), (&json!(2), &json!(1)));
    assert!(status["readyReplicas"].is_null(), "{status}");
    cluster.assert_at_rest();
}

#[test]
fn matching_orphans_are_adopted_and_mismatched_pods_released() {
    let mut cluster = with_nodes();
    cluster.create(pod("lonely", &json!({"app": "web"})));
    cluster.create(pod("other", &json!({"app": "db"})));
    cluster.create(replica_set(2, 0));
    assert_snapshot!("adoption", render(&cluster.plan("replicaset", &in_default("rs"))));
    running(&mut cluster);
    assert_eq!(cluster.names("pods").len(), 3);
    assert_eq!(cluster.get("pods/default/lonely").expect("there")["metadata"]["ownerReferences"][0]["name"], "rs");
    assert!(cluster.get("pods/default/other").expect("there")["metadata"]["ownerReferences"].is_null());

    cluster.patch("pods/default/lonely", &json!({"metadata": {"labels": {"app": "debug"}}}));
    running(&mut cluster);
    assert!(cluster.get("pods/default/lonely").expect("there")["metadata"]["ownerReferences"].is_null());
    assert_eq!(cluster.names("pods").len(), 4);
    cluster.assert_at_rest();
}

#[test]
fn a_pod_is_available_once_it_has_been_ready_for_long_enough() {
    let mut cluster = with_nodes();
    cluster.create(replica_set(1, 10));
    running(&mut cluster);
    let available = |cluster: &Cluster| cluster.get(SET).expect("there")["status"]["availableReplicas"].clone();
    assert_eq!(cluster.get(SET).expect("there")["status"]["readyReplicas"], 1);
    assert!(available(&cluster).is_null());
    cluster.advance(Duration::from_secs(5));
    assert!(available(&cluster).is_null());
    cluster.advance(Duration::from_secs(6));
    assert_eq!(available(&cluster), 1);
}

#[test]
fn the_lowest_ranked_pod_is_deleted_first() {
    // Each row: the difference between the deleted pod and a second pod that has long been running and ready.
    let old = "2025-12-01T00:00:00Z";
    let ready = |since: &str| json!([{"type": "Ready", "status": "True", "lastTransitionTime": since}]);
    let best = json!({"metadata": {"annotations": null}, "spec": {"nodeName": "n1"},
        "status": {"phase": "Running", "conditions": ready(old)}});
    let table = [
        ("unassigned", json!({"spec": {"nodeName": null}})),
        ("pending", json!({"status": {"phase": "Pending"}})),
        ("not ready", json!({"status": {"conditions": []}})),
        ("cheap", json!({"metadata": {"annotations": {"controller.kubernetes.io/pod-deletion-cost": "-5"}}})),
        ("ready for less long", json!({"status": {"conditions": ready("2025-12-31T23:59:00Z")}})),
        (
            "restarted",
            json!({"status": {"containerStatuses": [
            {"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 3}]}}),
        ),
    ];
    for (case, difference) in table {
        for loser in ["a", "b"] {
            let mut cluster = Cluster::new();
            cluster.create(replica_set(1, 0));
            for name in ["a", "b"] {
                let path = format!("pods/default/{name}");
                let mut object = pod(name, &json!({"app": "web"}));
                quorate_api::patch::merge::apply(&mut object, &best);
                if name == loser {
                    quorate_api::patch::merge::apply(&mut object, &difference);
                }
                object["metadata"]["ownerReferences"] = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet",
                    "name": "rs", "uid": cluster.get(SET).expect("there")["metadata"]["uid"], "controller": true}]);
                cluster.create(object);
                assert!(cluster.get(&path).is_some());
            }
            let plan = render(&cluster.plan("replicaset", &in_default("rs")));
            assert!(plan.contains(&format!("delete pods {loser} ")), "{case}, {loser}:\n{plan}");
        }
    }
}

#[test]
fn a_refused_pod_is_reported_until_there_is_nothing_left_to_create() {
    let mut cluster = with_nodes();
    cluster.refuses = Box::new(|_, target| (target.resource.resource == "pods").then_some("exceeded quota"));
    cluster.create(replica_set(3, 0));
    cluster.advance(Duration::from_secs(1));
    let condition = |cluster: &Cluster| cluster.get(SET).expect("there")["status"]["conditions"][0].clone();
    let failure = condition(&cluster);
    assert_eq!(
        (&failure["type"], &failure["status"], &failure["reason"]),
        (&json!("ReplicaFailure"), &json!("True"), &json!("FailedCreate"))
    );
    let message = failure["message"].as_str().expect("a message");
    assert!(message.starts_with("pods \"rs-") && message.ends_with("\" is forbidden: exceeded quota"), "{message}");
    assert!(cluster.events.contains(&format!("FailedCreate: Error creating: {message}")), "{:?}", cluster.events);
    assert!(!cluster.events.iter().any(|event| event.starts_with("SuccessfulCreate")), "{:?}", cluster.events);

    // The API still refuses the pods. Attempts continue, and nothing is written.
    let (writes, events) = (cluster.writes, cluster.events.len());
    cluster.advance(Duration::from_secs(1));
    assert_eq!(cluster.writes, writes);
    assert!(cluster.events.len() > events);

    cluster.refuses = Box::new(|_, _| None);
    cluster.advance(Duration::from_secs(1));
    running(&mut cluster);
    assert!(condition(&cluster).is_null());
    assert_eq!(cluster.names("pods").len(), 3);
    assert_eq!(cluster.events.iter().filter(|event| event.starts_with("SuccessfulCreate")).count(), 3);
    cluster.assert_at_rest();

    cluster.refuses = Box::new(|_, target| (target.resource.resource == "pods").then_some("not yours"));
    cluster.patch(SET, &json!({"spec": {"replicas": 2}}));
    cluster.advance(Duration::from_secs(1));
    assert_eq!(condition(&cluster)["reason"], "FailedDelete");
    // No pod is left to create or delete, so the failure condition is removed.
    cluster.patch(SET, &json!({"spec": {"replicas": 3}}));
    cluster.advance(Duration::from_secs(1));
    assert!(condition(&cluster).is_null());
    cluster.assert_at_rest();
}

#[test]
fn pods_that_share_a_node_are_deleted_first() {
    let mut cluster = Cluster::new();
    cluster.create(replica_set(2, 0));
    let uid = cluster.get(SET).expect("there")["metadata"]["uid"].clone();
    for (name, node) in [("a", "n1"), ("b", "n2"), ("c", "n2")] {
        let mut object = pod(name, &json!({"app": "web"}));
        object["spec"]["nodeName"] = json!(node);
        object["status"] = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
        object["metadata"]["ownerReferences"] = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rs",
            "uid": uid, "controller": true}]);
        cluster.create(object);
    }
    let plan = render(&cluster.plan("replicaset", &in_default("rs")));
    assert!(plan.contains("delete pods b ") || plan.contains("delete pods c "), "{plan}");
}

#[test]
fn rejected_pods_are_replaced_ever_more_slowly_until_one_runs() {
    let mut cluster = with_nodes();
    cluster.settings.failed_pods_per_replica_set = 12;
    cluster.rejecting = ["n1", "n2"].map(str::to_owned).into();
    cluster.create(replica_set(5, 0));
    let mut seen = std::collections::BTreeSet::new();
    let mut attempts = Vec::new();
    for _ in 0..60 {
        cluster.run_for(60, &["n1", "n2"], |cluster| {
            seen.extend(cluster.names("pods").into_iter().map(str::to_owned));
            assert!(cluster.names("pods").len() <= 12 + 5, "failed pods pile up: {:?}", cluster.names("pods"));
        });
        attempts.push(seen.len());
    }
    // All pods twice, then one at a time, at last one in five minutes.
    assert!(attempts[0] <= 20, "{attempts:?}");
    assert!(attempts[59] - attempts[29] <= 7, "{attempts:?}");
    assert!(attempts[59] > attempts[49], "the set no longer tries: {attempts:?}");
    let held_back = cluster.events.iter().filter(|event| event.starts_with("ReplacementHeldBack")).count();
    assert_eq!(held_back, attempts[59] - 10, "one event for each attempt after the first two rounds");

    // A pod that runs ends the backoff.
    cluster.rejecting.clear();
    cluster.run_for(310, &["n1", "n2"], |_| {});
    let ready = |cluster: &Cluster| cluster.get(SET).expect("there")["status"]["readyReplicas"].clone();
    assert_eq!(ready(&cluster), 5);
    cluster.assert_at_rest();

    // One node rejects its pods. The backoff does not keep the set from growing on the other.
    cluster.rejecting = ["n1"].map(str::to_owned).into();
    cluster.patch(SET, &json!({"spec": {"replicas": 25}}));
    cluster.run_for(900, &["n1", "n2"], |_| {});
    assert_eq!(ready(&cluster), 25);
}

#[test]
fn the_backoff_holds_for_sets_that_exceed_the_limit_of_failed_pods() {
    let mut cluster = with_nodes();
    cluster.rejecting = ["n1", "n2"].map(str::to_owned).into();
    let (replicas, limit) = (60, cluster.settings.failed_pods_per_replica_set);
    assert!(replicas > limit);
    cluster.create(replica_set(i32::try_from(replicas).expect("a number"), 0));
    let mut seen = std::collections::BTreeSet::new();
    cluster.run_for(1800, &["n1", "n2"], |cluster| {
        seen.extend(cluster.names("pods").into_iter().map(str::to_owned));
    });
    // All pods twice, then one at a time.
    assert!((2 * replicas..2 * replicas + 20).contains(&seen.len()), "{} pods were created", seen.len());
    // The rounds whose pods are not among the newest ones are known from one pod each.
    assert!(cluster.names("pods").len() <= limit + 10, "{:?}", cluster.names("pods"));
}

#[test]
fn pods_that_ran_before_they_failed_are_replaced_at_once() {
    let mut cluster = with_nodes();
    cluster.create(replica_set(3, 0));
    running(&mut cluster);
    for round in 0..10 {
        let path = |name: &str| format!("pods/default/{name}");
        let is_running = |name: &&str| cluster.get(&path(name)).is_some_and(|pod| pod["status"]["phase"] == "Running");
        let running: Vec<_> = cluster.names("pods").into_iter().filter(is_running).map(str::to_owned).collect();
        for name in running {
            let started = json!({"terminated": {"exitCode": 137, "startedAt": "2026-01-01T00:00:00Z"}});
            let container = json!({"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": started});
            let status = json!({"phase": "Failed", "reason": "Evicted", "containerStatuses": [container]});
            cluster.patch_status(&path(&name), &json!({"status": status}));
        }
        cluster.run_for(3, &["n1", "n2"], |_| {});
        assert_eq!(cluster.get(SET).expect("there")["status"]["readyReplicas"], 3, "round {round}");
    }
    assert!(!cluster.events.iter().any(|event| event.starts_with("ReplacementHeldBack")), "{:?}", cluster.events);
}
