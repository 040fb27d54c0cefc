use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::controller::WorkKey;
use crate::simulation::{Cluster, render};

fn object(kind: &str, api_version: &str, name: &str, finalizers: &Value) -> Value {
    json!({"apiVersion": api_version, "kind": kind,
        "metadata": {"name": name, "namespace": "default", "finalizers": finalizers}})
}

#[test]
fn a_namespace_is_deleted_after_its_contents() {
    let mut cluster = Cluster::new();
    cluster.add_node("n1");
    let mut pod = object("Pod", "v1", "p", &Value::Null);
    pod["spec"] = json!({"nodeName": "n1", "containers": []});
    cluster.create(pod);
    cluster.create(object("ConfigMap", "v1", "c", &Value::Null));
    cluster.create(object("Widget", "example.com/v1", "w", &json!(["example.com/hold"])));
    cluster.settle();
    cluster.assert_at_rest();

    cluster.delete("namespaces/default", None);
    cluster.settle();
    // The objects that a pod may use outlive the pod.
    assert!(cluster.get("pods/default/p").expect("terminating")["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(cluster.names("configmaps"), ["c"]);
    cluster.assert_at_rest();

    cluster.confirm_deletion("pods/default/p");
    assert_snapshot!("contents", render(&cluster.plan("namespace", &WorkKey::cluster("default"))));
    cluster.settle();
    assert!(cluster.names("configmaps").is_empty());
    assert_eq!(cluster.names("widgets"), ["w"]);
    let stored = cluster.get("namespaces/default").expect("held");
    let reported: Vec<(&str, &str)> = stored["status"]["conditions"]
        .as_array()
        .expect("conditions")
        .iter()
        .map(|c| (c["status"].as_str().expect("a status"), c["message"].as_str().expect("a message")))
        .collect();
    assert_eq!(
        reported,
        [
            ("False", "All content successfully deleted, may be waiting on finalization"),
            ("True", "Some resources are remaining: widgets.example.com has 1 resource instances"),
            (
                "True",
                "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances"
            ),
        ]
    );
    cluster.assert_at_rest();

    cluster.patch("example.com/widgets/default/w", &json!({"metadata": {"finalizers": null}}));
    cluster.settle();
    assert!(cluster.get("namespaces/default").is_none());
    assert_eq!(cluster.names("leases"), ["n1"]);
}

#[test]
fn controllers_create_nothing_in_a_terminating_namespace() {
    let mut cluster = Cluster::new();
    cluster.add_node("n1");
    cluster.create(json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": []}}}}));
    cluster.create(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "default"},
        "spec": {"clusterIP": "10.96.0.1", "selector": {"app": "web"}, "ports": [{"port": 80, "protocol": "TCP"}]}}));
    cluster.run(&["n1"], 1, |_| {});
    cluster.delete("namespaces/default", None);
    cluster.run(&["n1"], 2, |_| {});
    assert!(cluster.get("namespaces/default").is_none());
    // Controllers do not attempt creations that the API refuses in a terminating namespace.
    assert_eq!(cluster.refusals, 0);
}

#[test]
fn foreign_finalizers_are_left_in_place() {
    let mut cluster = Cluster::new();
    cluster.patch("namespaces/default", &json!({"metadata": {"finalizers": ["example.com/hold"]}}));
    cluster.delete("namespaces/default", None);
    cluster.settle();
    let stored = cluster.get("namespaces/default").expect("held");
    assert!(stored["spec"]["finalizers"].is_null(), "{stored}");
    cluster.assert_at_rest();
    cluster.patch("namespaces/default", &json!({"metadata": {"finalizers": null}}));
    cluster.settle();
    assert!(cluster.get("namespaces/default").is_none());
}
