//! The proxies of pods, services and nodes, to real containers through a master that does not lead.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use harness::{Cluster, Lines, Runtime, Spec, eventually};
use http::Request;
use serde_json::{Value, json};

use crate::demo_path::TEST_IMAGE;

/// A web server for pages and scripts at port 8080, and one that tells the method of a request at port 8081.
const WEB: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: IMAGE
    imagePullPolicy: Never
    ports: [{name: pages, containerPort: 8080}, {name: methods, containerPort: 8081}]
    readinessProbe: {httpGet: {port: 8080, path: /}, periodSeconds: 1}
    command:
    - sh
    - -c
    - |
      mkdir -p /w/cgi-bin /w/below; echo '<a href="/rewriteme">page</a>' > /w/index.html; echo below > /w/below/index.html
      printf '#!/bin/sh\necho Content-Type: text/plain; echo\necho "$REQUEST_METHOD $QUERY_STRING $HTTP_AUTHORIZATION"; wc -c\n' > /w/cgi-bin/echo
      printf '#!/bin/sh\necho Content-Type: text/plain; echo\nn=0; while [ ! -e /tmp/stop ]; do n=$((n+1)); echo line $n; sleep 0.2; done; echo end\n' > /w/cgi-bin/lines
      printf '#!/bin/sh\nread method path rest; while read line; do [ ${#line} -gt 1 ] || break; done; printf "HTTP/1.0 200 OK\\r\\n\\r\\n%%s" "$method $path"\n' > /bin/methods
      chmod 755 /w/cgi-bin/* /bin/methods
      nc -ll -p 8081 -e /bin/methods &
      exec httpd -f -p 8080 -h /w
---
apiVersion: v1
kind: Service
metadata: {name: front}
spec:
  selector: {app: web}
  ports: [{name: web, port: 80, targetPort: pages}, {name: methods, port: 81, targetPort: 8081}]
---
apiVersion: v1
kind: Service
metadata: {name: nobody}
spec:
  selector: {app: nobody}
  ports: [{port: 80}]
"#;
const NAMESPACE: &str = "/api/v1/namespaces/default";

fn start() -> Cluster {
    let cluster = Cluster::start(Spec { masters: 3, workers: 2, runtime: Runtime::Docker, flags: vec![] });
    cluster.kubectl(&["apply", "-f", "-"], &WEB.replace("IMAGE", TEST_IMAGE)).ok();
    cluster.kubectl(&["wait", "pod/web", "--for=condition=Ready", "--timeout=120s"], "").ok();
    cluster
}

/// Returns a master that does not lead.
fn follower(cluster: &Cluster) -> String {
    let leader = cluster.leader_seen_by("master-1");
    let mut masters = cluster.masters().into_iter().map(|member| member.name);
    masters.rfind(|name| *name != leader).expect("a follower")
}

#[test]
fn pods_services_and_nodes_are_reached_through_a_follower() {
    let cluster = start();
    let master = follower(&cluster);
    let kubectl = |args: &[&str], stdin: &str| cluster.kubectl_at(&master, args, stdin);
    let get = |path: &str| kubectl(&["get", "--raw", path], "");
    let (pod, service) = (format!("{NAMESPACE}/pods/web/proxy"), format!("{NAMESPACE}/services/front:web/proxy"));
    eventually("the service's endpoints", || {
        get(&format!("{service}/below/")).result().map_err(|output| output.stderr)
    });
    for proxy in [&pod, &service, &pod.replace("/web/", "/http:web:8080/")] {
        assert_eq!(get(&format!("{proxy}/below/")).ok(), "below\n", "{proxy}");
        let page = format!("<a href=\"{proxy}/rewriteme\">page</a>\n");
        assert_eq!(get(&format!("{proxy}/")).ok(), page, "links lead back through the proxy");
        // The web server sends a redirect for the folder, and kubectl follows it.
        assert_eq!(get(&format!("{proxy}/below")).ok(), "below\n", "{proxy}");
        assert_eq!(get(proxy).ok(), page, "kubectl follows the redirect");
        let echo = format!("{proxy}/cgi-bin/echo?a=b%26&c");
        // kubectl sends the body in chunks, which this web server does not understand, and completes the query.
        let posted = kubectl(&["create", "--raw", &echo, "-f", "-"], "x").ok();
        assert!(posted.starts_with("POST a=b%26&c= \n"), "{proxy}: {posted}");
    }
    let refused = get(&format!("{NAMESPACE}/pods/web:9999/proxy/"));
    assert!(refused.stderr.contains("error trying to reach service: dial tcp"), "{}", refused.stderr);
    let nobody = get(&format!("{NAMESPACE}/services/nobody/proxy/"));
    assert!(nobody.stderr.contains("no endpoints available for service \"nobody\""), "{}", nobody.stderr);

    let pods: Value = ["worker-1", "worker-2"]
        .iter()
        .flat_map(|node| {
            assert_eq!(get(&format!("/api/v1/nodes/{node}/proxy/healthz")).ok(), "ok");
            let pods = get(&format!("/api/v1/nodes/{node}/proxy/pods")).ok();
            let pods: Value = serde_json::from_str(&pods).expect("JSON");
            pods["items"].as_array().cloned().expect("pods")
        })
        .map(|pod| pod["metadata"]["name"].clone())
        .collect();
    assert_eq!(pods, json!(["web"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_method_passes() {
    let cluster = start();
    let client = cluster.client(&follower(&cluster)).await;
    for method in ["DELETE", "GET", "OPTIONS", "PATCH", "POST", "PUT"] {
        for proxy in ["pods/web:8081", "services/front:methods", "services/front:81"] {
            let request = Request::builder().method(method).uri(format!("{NAMESPACE}/{proxy}/proxy/a//b?c=%2F"));
            let got = client.request_text(request.body(Vec::new()).expect("a request")).await.expect("a response");
            assert_eq!(got, format!("{method} /a//b?c=%2F"), "{proxy}");
        }
    }
    for proxy in ["pods/web:8080", "services/front:web"] {
        let uri = format!("{NAMESPACE}/{proxy}/proxy/cgi-bin/echo?a=b%26&c");
        let request = Request::post(uri).body(vec![b'x'; 100_000]).expect("a request");
        let got = client.request_text(request).await.expect("a response");
        assert_eq!(got, "POST a=b%26&c \n100000\n", "{proxy}");
    }
}

/// Asks a local proxy for a page, and returns the whole response.
fn fetch(port: &str, path: &str) -> std::io::Result<String> {
    let mut connection = TcpStream::connect(format!("127.0.0.1:{port}"))?;
    write!(connection, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn browsers_reach_pods_through_the_proxies_of_the_clients() {
    let cluster = start();
    let commands: [fn(&Cluster) -> Command; 2] = [Cluster::kubectl_command, Cluster::qctl_command];
    for mut command in commands.map(|command| command(&cluster)) {
        let mut proxy = Lines::start(command.args(["proxy", "--port=0"]));
        let line = proxy.until("the address", |line| line.starts_with("Starting to serve on 127.0.0.1:"));
        let port = line.rsplit(':').next().expect("a port");
        let path = format!("{NAMESPACE}/services/front:web/proxy");
        let answer = eventually("the page", || match fetch(port, &format!("{path}/")) {
            Ok(answer) if answer.starts_with("HTTP/1.1 200 ") => Ok(answer),
            other => Err(format!("{other:?}")),
        });
        assert!(answer.contains(&format!("<a href=\"{path}/rewriteme\">")), "{command:?}: {answer}");
        let redirect = fetch(port, &path).expect("a response");
        assert!(redirect.starts_with("HTTP/1.1 301 ") && redirect.contains(&format!("{path}/\r\n")), "{redirect}");
    }
}

#[test]
fn a_response_outlives_the_leader_and_ends_with_its_own_master() {
    let cluster = start();
    let (leader, follower) = (cluster.leader_seen_by("master-1"), follower(&cluster));
    let path = format!("{NAMESPACE}/pods/web/proxy/cgi-bin/lines");
    let through = |master: &str| {
        let url = cluster.member(master).api.expect("an API");
        let mut lines = Lines::start(cluster.kubectl_command().args(["--server", &url, "get", "--raw", &path]));
        lines.until("the first line", |line| line == "line 1");
        lines
    };
    let (mut outlives, mut ends) = (through(&follower), through(&leader));
    cluster.kill(&leader);
    assert!(!ends.ended(), "the response of a dead master does not look whole");
    // The hexadecimal port 8080 with the state of an established connection.
    let open = "grep -ci ':1F90 [0-9A-F:]* 01' /proc/net/tcp /proc/net/tcp6; true";
    eventually("the end of the connection to the pod", || {
        let args = ["exec", "web", "--", "sh", "-c", open];
        let counts = cluster.kubectl_at(&follower, &args, "").result().map_err(|output| output.stderr)?;
        let count: u32 = counts.lines().filter_map(|line| line.rsplit(':').next()?.parse::<u32>().ok()).sum();
        if count == 1 { Ok(()) } else { Err(counts) }
    });
    cluster.kubectl_at(&follower, &["exec", "web", "--", "touch", "/tmp/stop"], "").ok();
    outlives.until("the end", |line| line == "end");
    assert!(outlives.ended());
}
