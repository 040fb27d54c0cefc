//! The real kubectl.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

use crate::harness::{Server, config_map, deployment};

struct Kubectl {
    directory: tempfile::TempDir,
}

impl Kubectl {
    /// `None` when there is no kubectl on this machine.
    fn new(server: &Server) -> Option<Self> {
        if std::process::Command::new("kubectl").arg("version").arg("--client").output().is_err() {
            skip("there is no kubectl on PATH");
            return None;
        }
        let directory = tempfile::tempdir().expect("a directory");
        server.kubeconfig(directory.path());
        Some(Kubectl { directory })
    }

    async fn run(&self, arguments: &[&str], input: &str) -> (bool, String) {
        let home: &Path = self.directory.path();
        let mut child = Command::new("kubectl")
            .args(arguments)
            .env("KUBECONFIG", home.join("kubeconfig"))
            .env("HOME", home)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("kubectl starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin.write_all(input.as_bytes()).await.expect("kubectl reads");
        drop(stdin);
        let output = timeout(Duration::from_secs(60), child.wait_with_output());
        let output = output.await.expect("kubectl ends in time").expect("kubectl ran");
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.success(), text)
    }

    async fn expect(&self, arguments: &[&str], input: &str) -> String {
        let (is_well, text) = self.run(arguments, input).await;
        assert!(is_well, "kubectl {arguments:?}: {text}");
        text
    }
}

#[expect(clippy::print_stderr, reason = "whoever runs the tests should see what was left out")]
fn skip(why: &str) {
    eprintln!("skipped: {why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_works_unmodified() {
    let server = Server::start().await;
    let Some(kubectl) = Kubectl::new(&server) else { return };
    assert!(kubectl.expect(&["version"], "").await.contains("v1.36.0+quorate"));
    assert!(kubectl.expect(&["api-resources"], "").await.contains("deployments"));
    let manifest = deployment("web").to_string();
    assert_eq!(kubectl.expect(&["apply", "-f", "-"], &manifest).await, "deployment.apps/web created\n");
    assert_eq!(kubectl.expect(&["apply", "-f", "-"], &manifest).await, "deployment.apps/web unchanged\n");
    let changed = manifest.replace("\"replicas\":2", "\"replicas\":4");
    assert_eq!(kubectl.expect(&["apply", "-f", "-"], &changed).await, "deployment.apps/web configured\n");
    let shown = kubectl.expect(&["get", "deployments"], "").await;
    assert!(shown.starts_with("NAME") && shown.contains("web") && shown.contains("0/4"), "{shown}");
    assert!(kubectl.expect(&["get", "ns", "-o", "name"], "").await.contains("namespace/kube-system"));
    kubectl.expect(&["scale", "deployment/web", "--replicas=3"], "").await;
    let replicas = kubectl.expect(&["get", "deploy", "web", "-o", "jsonpath={.spec.replicas}"], "").await;
    assert_eq!(replicas, "3");
    assert!(kubectl.expect(&["describe", "deployment", "web"], "").await.contains("3 desired"));
    // `create configmap` and its like send protobuf, which is not understood; manifests are sent as JSON.
    kubectl.expect(&["create", "-f", "-"], &config_map("settings").to_string()).await;
    kubectl.expect(&["label", "configmap", "settings", "tier=front"], "").await;
    kubectl.expect(&["annotate", "configmap", "settings", "note=x"], "").await;
    assert!(kubectl.expect(&["get", "cm", "-l", "tier=front"], "").await.contains("settings"));
    let misspelt = manifest.replace("\"replicas\"", "\"replicsa\"");
    let (is_well, text) = kubectl.run(&["apply", "-f", "-"], &misspelt).await;
    assert!(!is_well && text.contains("unknown field \"spec.replicsa\""), "{text}");
    let (is_well, text) = kubectl.run(&["get", "pod", "absent"], "").await;
    assert!(!is_well && text == "Error from server (NotFound): pods \"absent\" not found\n", "{text}");
    let diff = kubectl.run(&["diff", "-f", "-"], &manifest).await.1;
    assert!(diff.contains("replicas: 2"), "{diff}");
    assert!(kubectl.expect(&["delete", "deployment", "web"], "").await.contains("deleted"));
    assert!(kubectl.expect(&["get", "deployments"], "").await.contains("No resources found"));
    let namespace = "{\"apiVersion\":\"v1\",\"kind\":\"Namespace\",\"metadata\":{\"name\":\"staging\"}}";
    kubectl.expect(&["create", "-f", "-"], namespace).await;
    kubectl.expect(&["run", "one", "--image=busybox", "-n", "staging", "--restart=Never"], "").await;
    assert!(kubectl.expect(&["get", "pods", "-A"], "").await.contains("one"));
    kubectl.expect(&["delete", "pod", "one", "-n", "staging"], "").await;
}
