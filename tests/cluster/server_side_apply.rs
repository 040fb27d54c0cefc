//! Server-side apply with the unmodified `kubectl` on PATH, and with `qctl`.

use harness::{Cluster, Runtime, Spec};

fn settings(data: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: settings\ndata:\n{data}")
}

#[test]
fn managers_share_conflict_and_give_up_fields() {
    let cluster = Cluster::start(Spec { masters: 3, workers: 0, runtime: Runtime::Hollow, flags: vec![] });
    let apply = |flags: &[&str], data: &str| {
        cluster.kubectl(&[&["apply", "--server-side", "-f", "-"], flags].concat(), &settings(data))
    };
    let data = || cluster.kubectl(&["get", "configmap", "settings", "-o", "jsonpath={.data}"], "").ok();
    let applied = apply(&["--field-manager=one"], "  a: '1'\n  b: '1'\n").ok();
    assert!(applied.contains("configmap/settings serverside-applied"), "{applied}");

    let refused = apply(&["--field-manager=two"], "  a: '2'\n");
    assert!(!refused.success, "{refused:?}");
    for part in ["Apply failed with 1 conflict: conflict with \"one\": .data.a", "--force-conflicts"] {
        assert!(refused.stderr.contains(part), "{refused:?}");
    }
    apply(&["--field-manager=two", "--force-conflicts"], "  a: '2'\n").ok();
    assert_eq!(data(), r#"{"a":"2","b":"1"}"#);

    // Both managers have `a`; it goes with the second of them.
    apply(&["--field-manager=one"], "  a: '2'\n").ok();
    assert_eq!(data(), r#"{"a":"2"}"#);
    apply(&["--field-manager=two"], "  c: '1'\n").ok();
    assert_eq!(data(), r#"{"a":"2","c":"1"}"#);
    apply(&["--field-manager=one"], "  d: '1'\n").ok();
    assert_eq!(data(), r#"{"c":"1","d":"1"}"#);

    let shown = cluster.kubectl(&["get", "configmap", "settings", "-o", "yaml", "--show-managed-fields"], "").ok();
    assert!(shown.contains("manager: one") && shown.contains("operation: Apply"), "{shown}");
    let qctl = cluster.qctl(&["apply", "--server-side", "-f", "-"], &settings("  d: '2'\n"));
    assert!(!qctl.success && qctl.stderr.contains("conflict with \"one\": .data.d"), "{qctl:?}");
    let forced = ["apply", "--server-side", "--force-conflicts", "--field-manager=third", "-f", "-"];
    assert!(cluster.qctl(&forced, &settings("  d: '2'\n")).ok().contains("serverside-applied"));
    let shown = cluster.qctl(&["get", "configmap", "settings", "-o", "yaml", "--show-managed-fields"], "").ok();
    assert!(shown.contains("manager: third"), "{shown}");
    let hidden = cluster.qctl(&["get", "configmap", "settings", "-o", "yaml"], "").ok();
    assert!(!hidden.contains("managedFields"), "{hidden}");
}

#[test]
fn kubectl_changes_from_client_side_to_server_side_apply() {
    let cluster = Cluster::start(Spec { masters: 1, workers: 0, runtime: Runtime::Hollow, flags: vec![] });
    cluster.kubectl(&["apply", "-f", "-"], &settings("  a: '1'\n  b: '1'\n")).ok();
    cluster.kubectl(&["apply", "--server-side", "-f", "-"], &settings("  a: '2'\n")).ok();
    let data = cluster.kubectl(&["get", "configmap", "settings", "-o", "jsonpath={.data}"], "").ok();
    assert_eq!(data, r#"{"a":"2"}"#, "kubectl has moved its fields to the server-side manager");
}
