//! Commands about the server and the user.

use std::io::{Read, Write};
use std::net::TcpStream;

use harness::Lines;

use super::Kubectl;

const RULES: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reconciled, namespace: team}
rules:
- {apiGroups: [''], resources: [pods], verbs: [VERBS]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: reconciled, namespace: team}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reconciled}
subjects:
- {kind: User, apiGroup: rbac.authorization.k8s.io, name: somebody}
";

pub fn the_server_is_described(kubectl: &Kubectl<'_>) {
    kubectl.shows("version", &["Client Version: v1.", "Server Version: v1.36."]);
    kubectl.shows("version -o json", &["\"serverVersion\"", "\"gitVersion\": \"v1.36."]);
    kubectl.shows("cluster-info", &["Kubernetes control plane", "is running at", "https://127.0.0.1:"]);
    kubectl.shows("cluster-info dump --namespaces team", &["\"kind\": \"NodeList\"", "\"kind\": \"PodList\""]);
    let versions = kubectl.ok("api-versions");
    for version in ["apps/v1", "batch/v1", "networking.k8s.io/v1", "v1"] {
        assert!(versions.lines().any(|line| line == version), "{versions}");
    }
    let namespaced = kubectl.ok("api-resources --namespaced -o name --verbs=list,watch");
    assert!(namespaced.lines().any(|line| line == "deployments.apps"), "{namespaced}");
    assert!(!namespaced.lines().any(|line| line == "nodes"), "{namespaced}");
    kubectl
        .shows("api-resources --api-group=apps", &["NAME", "SHORTNAMES", "deployments", "deploy", "apps/v1", "true"]);
    kubectl.shows("api-resources --categories=all -o wide", &["pods", "po", "v1", "true", "Pod", "get,list", "all"]);
    for format in ["plaintext", "plaintext-openapiv2"] {
        let explained = kubectl.ok(&format!("explain pod.spec.containers --output={format}"));
        assert!(explained.contains("livenessProbe\t<"), "{explained}");
        kubectl.shows(&format!("explain deployments --recursive --output={format}"), &["strategy", "maxSurge"]);
    }
    kubectl.shows("get --raw /readyz", &["ok"]);

    kubectl.says("auth can-i create pods", "yes\n");
    kubectl.says("auth can-i get pods --subresource=log", "yes\n");
    kubectl.says("auth can-i get /healthz", "yes\n");
    kubectl.shows("auth can-i --list", &["Resources", "Verbs", "*.*"]);
    kubectl.shows("auth whoami", &["ATTRIBUTE", "Username", "kubernetes-admin", "Groups", "system:masters"]);
    let rules = RULES.replace("VERBS", "get, list");
    let reconciled = kubectl.given("auth reconcile -f -", &rules);
    assert!(reconciled.contains("role.rbac.authorization.k8s.io/reconciled reconciled"), "{reconciled}");
    kubectl.given("auth reconcile -f - --remove-extra-permissions", &RULES.replace("VERBS", "watch"));
    kubectl.says("get role reconciled -o jsonpath={.rules[*].verbs}", "[\"watch\"]");

    let mut proxy = Lines::start(&mut kubectl.command("proxy --port=0"));
    let line = proxy.until("the proxy's port", |line| line.starts_with("Starting to serve on 127.0.0.1:"));
    let port = line.rsplit(':').next().and_then(|port| port.parse::<u16>().ok()).expect("a port");
    let answer = get(port, "/api/v1/namespaces/team");
    assert!(answer.contains("\"name\":\"team\"") || answer.contains("\"name\": \"team\""), "{answer}");
}

fn get(port: u16, path: &str) -> String {
    let mut connection = TcpStream::connect(("127.0.0.1", port)).expect("the proxy listens");
    let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).expect("written");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).expect("an answer");
    answer
}
