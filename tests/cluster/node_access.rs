//! Access of a worker's certificate: it can read only the objects that its pods name, and these suffice to run them.

use harness::{Cluster, Runtime, Spec, eventually};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{Api, ListParams};
use serde_json::json;

use crate::demo_path::TEST_IMAGE;

/// Manifests of two Secrets, and of a pod that uses one of them in its environment and as files.
fn objects() -> String {
    let secret = |name: &str| {
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "stringData": { "key": "value" },
        })
    };
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "reader" },
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "main", "image": TEST_IMAGE, "imagePullPolicy": "Never",
                "command": ["sh", "-c", "echo env=$KEY; echo file=$(cat /secret/key); echo masters=$KUBERNETES_SERVICE_HOST; sleep 3600"],
                "env": [{ "name": "KEY", "valueFrom": { "secretKeyRef": { "name": "named", "key": "key" } } }],
                "volumeMounts": [{ "name": "secret", "mountPath": "/secret" }],
            }],
            "volumes": [{ "name": "secret", "secret": { "secretName": "named" } }],
        },
    });
    json!({ "apiVersion": "v1", "kind": "List", "items": [secret("named"), secret("other"), pod] }).to_string()
}

fn code<T>(result: kube::Result<T>) -> u16 {
    match result {
        Ok(_) => 200,
        Err(kube::Error::Api(status)) => status.code,
        Err(error) => panic!("no answer: {error}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_reads_the_secrets_of_its_pods_and_no_others() {
    let cluster = Cluster::start(Spec {
        masters: 3,
        workers: 2,
        runtime: Runtime::Docker,
        flags: vec!["--heartbeat-interval", "1s"],
    });
    // Pods that start before the Service exists do not have it in their environment.
    eventually("the Service of the masters", || cluster.qctl(&["get", "service/kubernetes"], "").result());
    cluster.qctl(&["apply", "-f", "-"], &objects()).ok();
    eventually("the pod to print its secret", || {
        let log = cluster.qctl(&["logs", "reader"], "").result().map_err(|output| output.stderr)?;
        let is_whole = ["env=value", "file=value", "masters=10.96.0.1"].iter().all(|line| log.contains(line));
        if is_whole { Ok(()) } else { Err(log) }
    });
    let admin: Api<Pod> = Api::default_namespaced(cluster.client("master-1").await);
    let node = admin.get("reader").await.expect("the pod").spec.and_then(|spec| spec.node_name).expect("its node");
    let idle = if node == "worker-1" { "worker-2" } else { "worker-1" };
    for master in ["master-1", "master-2", "master-3"] {
        let (own, foreign) = (cluster.worker_client(&node, master).await, cluster.worker_client(idle, master).await);
        let secrets = |client: &kube::Client| Api::<Secret>::namespaced(client.clone(), "default");
        assert_eq!(code(secrets(&own).get("named").await), 200, "{master}");
        assert_eq!(code(secrets(&own).get("other").await), 403, "{master}");
        assert_eq!(code(secrets(&foreign).get("named").await), 403, "{master}");
        for client in [own, foreign] {
            assert_eq!(code(Api::<Secret>::all(client.clone()).list(&ListParams::default()).await), 403, "{master}");
            assert_eq!(code(secrets(&client).list(&ListParams::default()).await), 403, "{master}");
            assert_eq!(code(Api::<Pod>::all(client).list(&ListParams::default()).await), 403, "{master}");
        }
    }
}
