//! Tests with the real kubectl.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

use crate::harness::{Server, config_map, deployment, pod};

struct Kubectl {
    directory: tempfile::TempDir,
}

/// The minor version of kubectl 1.27, the oldest that is tested; Debian 12 has an older one.
const OLDEST_MINOR: u32 = 27;

impl Kubectl {
    /// Returns `None` when this machine has no kubectl, or one that is too old.
    fn new(server: &Server) -> Option<Self> {
        let version = std::process::Command::new("kubectl").args(["version", "--client", "-o", "json"]).output();
        let version: Option<serde_json::Value> =
            version.ok().and_then(|output| serde_json::from_slice(&output.stdout).ok());
        let minor = version.as_ref().and_then(|version| version["clientVersion"]["minor"].as_str());
        let minor = minor.and_then(|minor| minor.trim_end_matches('+').parse::<u32>().ok());
        if minor.is_none_or(|minor| minor < OLDEST_MINOR) {
            skip("there is no kubectl on PATH that is new enough");
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

#[expect(clippy::print_stderr, reason = "a skipped test must be visible")]
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

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_asks_about_permissions() {
    let server = Server::start().await;
    let Some(kubectl) = Kubectl::new(&server) else { return };
    assert_eq!(kubectl.expect(&["auth", "can-i", "get", "pods"], "").await, "yes\n");
    assert_eq!(kubectl.expect(&["auth", "can-i", "create", "deployments/scale", "-n", "x"], "").await, "yes\n");
    assert_eq!(kubectl.expect(&["auth", "can-i", "get", "/quorum/backup"], "").await, "yes\n");
    let list = kubectl.expect(&["auth", "can-i", "--list"], "").await;
    assert!(list.contains("*.*") && list.contains("selfsubjectreviews.authentication.k8s.io"), "{list}");
    let who = kubectl.expect(&["auth", "whoami"], "").await;
    assert!(who.contains("kubernetes-admin") && who.contains("[system:masters system:authenticated]"), "{who}");
}

/// Runs the commands for which kubectl sends typed objects: in Protocol Buffers since 1.32, as JSON before.
#[tokio::test(flavor = "multi_thread")]
async fn kubectl_creates_typed_objects() {
    let server = Server::start().await;
    let Some(kubectl) = Kubectl::new(&server) else { return };
    let home = kubectl.directory.path();
    let pair = server.pki.sign("site", &[]);
    std::fs::write(home.join("tls.crt"), &pair.certificate_pem).expect("a certificate");
    std::fs::write(home.join("tls.key"), &pair.key_pem).expect("a key");
    let (certificate, key) = (home.join("tls.crt"), home.join("tls.key"));
    let certificate = format!("--cert={}", certificate.display());
    let key = format!("--key={}", key.display());
    let registry = ["--docker-server=r.example", "--docker-username=u", "--docker-password=p"];
    let sets_replicas = ["--image=nginx", "--port=80", "--replicas=0"];
    let cases: [(&[&str], &[&str], &str, &str); 10] = [
        (&["namespace", "staging"], &[], "{.status.phase}", "Active"),
        (&["configmap", "settings"], &["--from-literal=a=1", "--from-literal=b="], "{.data}", r#"{"a":"1","b":""}"#),
        (&["secret", "generic", "keys"], &["--from-literal=user=admin"], "{.data.user}", "YWRtaW4="),
        (&["secret", "tls", "pair"], &[&certificate, &key], "{.type}", "kubernetes.io/tls"),
        (&["secret", "docker-registry", "pull"], &registry, "{.type}", "kubernetes.io/dockerconfigjson"),
        (&["serviceaccount", "robot"], &[], "{.metadata.name}", "robot"),
        (&["deployment", "none"], &sets_replicas, "{.spec.replicas}", "0"),
        (&["deployment", "web"], &["--image=nginx", "--", "sleep", "1"], "{.spec.replicas}", "1"),
        (&["service", "clusterip", "web"], &["--tcp=80:8080"], "{.spec.ports[0].targetPort}", "8080"),
        (&["service", "externalname", "alias"], &["--external-name=db.example"], "{.spec.type}", "ExternalName"),
    ];
    for (what, arguments, path, expected) in cases {
        let created = kubectl.expect(&[&["create"], what, arguments].concat(), "").await;
        assert!(created.ends_with("created\n"), "{what:?}: {created}");
        let name = what.last().expect("a name");
        let shown = kubectl.expect(&["get", what[0], name, "-o", &format!("jsonpath={path}")], "").await;
        assert_eq!(shown, expected, "{what:?}");
    }
    let (is_well, text) = kubectl.run(&["create", "configmap", "settings"], "").await;
    assert!(!is_well && text.contains("configmaps \"settings\" already exists"), "{text}");
    kubectl.expect(&["delete", "deployment", "web", "--cascade=orphan", "--wait=false"], "").await;
    let finalizers = kubectl.expect(&["get", "deployment", "web", "-o", "jsonpath={.metadata.finalizers}"], "").await;
    assert_eq!(finalizers, r#"["orphan"]"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_drains_a_node() {
    let server = Server::start().await;
    let Some(kubectl) = Kubectl::new(&server) else { return };
    let node = "{\"apiVersion\":\"v1\",\"kind\":\"Node\",\"metadata\":{\"name\":\"one\"}}";
    kubectl.expect(&["create", "-f", "-"], node).await;
    let mut bound = pod("bound");
    bound["spec"]["nodeName"] = "one".into();
    kubectl.expect(&["create", "-f", "-"], &bound.to_string()).await;
    kubectl.expect(&["create", "-f", "-"], &pod("free").to_string()).await;
    // No agent stops the pod here, so its grace period is zero.
    let drained = kubectl.expect(&["drain", "one", "--force", "--grace-period=0"], "").await;
    assert!(drained.contains("pod/bound evicted") && drained.contains("node/one drained"), "{drained}");
    assert_eq!(kubectl.expect(&["get", "pods", "-o", "name"], "").await, "pod/free\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_applies_on_the_server() {
    let server = Server::start().await;
    let Some(kubectl) = Kubectl::new(&server) else { return };
    let map = |data: &str| format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: settings\ndata:\n{data}");
    let show = ["get", "configmap", "settings", "-o", "jsonpath={.data}"];
    let first = ["apply", "--server-side", "--field-manager=first", "-f", "-"];
    let second = ["apply", "--server-side", "--field-manager=second", "-f", "-"];
    kubectl.expect(&first, &map("  a: '1'\n  b: '1'\n")).await;
    let (is_well, text) = kubectl.run(&second, &map("  a: '2'\n")).await;
    assert!(!is_well && text.contains("Apply failed with 1 conflict: conflict with \"first\": .data.a"), "{text}");
    kubectl.expect(&[&second[..], &["--force-conflicts"]].concat(), &map("  a: '2'\n")).await;
    kubectl.expect(&first, &map("  a: '2'\n")).await;
    assert_eq!(kubectl.expect(&show, "").await, r#"{"a":"2"}"#);

    // The fields of a client-side apply move to the server-side manager, and one of them is given up.
    kubectl.expect(&["delete", "configmap", "settings"], "").await;
    kubectl.expect(&["apply", "-f", "-"], &map("  a: '1'\n  b: '1'\n")).await;
    kubectl.expect(&["apply", "--server-side", "-f", "-"], &map("  a: '2'\n")).await;
    assert_eq!(kubectl.expect(&show, "").await, r#"{"a":"2"}"#);
    let again = kubectl.expect(&["apply", "--server-side", "-f", "-"], &map("  a: '2'\n")).await;
    assert!(again.contains("serverside-applied"), "{again}");
}
