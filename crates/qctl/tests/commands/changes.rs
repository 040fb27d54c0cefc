//! `replace` and `expose`.

use serde_json::{Value, json};

use crate::exec::objects;
use crate::server::{Behaviour, Recorded, Server};

const MAP: &str = r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"a": "b"}}"#;

fn map_of(request: &Recorded) -> Option<(u16, Value)> {
    match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/api/v1/namespaces/default/configmaps/m") => {
            Some((200, json!({"kind": "ConfigMap", "metadata": {"name": "m", "resourceVersion": "41"}})))
        }
        ("PUT" | "POST" | "DELETE", path) if path.contains("configmaps") => Some((200, request.body.clone())),
        ("GET", "/api/v1/namespaces/default/configmaps") => {
            Some((200, json!({"metadata": {"resourceVersion": "7"}, "items": []})))
        }
        _ => None,
    }
}

#[tokio::test]
async fn an_object_is_replaced_at_its_current_version() {
    let server = Server::start(Behaviour::answers(map_of)).await;
    let ran = server.qctl(&["replace", "-f", "-"], MAP).await;
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (0, "configmap/m replaced\n", ""));
    let sent = server.requests().pop().expect("a request");
    assert_eq!((sent.method.as_str(), &sent.body["metadata"]["resourceVersion"]), ("PUT", &json!("41")));

    let forced = server.qctl(&["replace", "-f", "-", "--force", "--grace-period=0"], MAP).await;
    let output = "configmap \"m\" deleted\nconfigmap/m replaced\n";
    assert_eq!((forced.code, forced.stdout.as_str(), forced.stderr.as_str()), (0, output, ""));
    let requests = server.requests();
    let methods: Vec<&str> = requests[2..].iter().map(|request| request.method.as_str()).collect();
    assert_eq!(methods, ["DELETE", "GET", "POST"]);
    assert_eq!(requests[2].body["gracePeriodSeconds"], 1, "the containers are waited for");

    let missing = MAP.replace("\"m\"", "\"other\"");
    let absent = Server::start(Behaviour::answers(|_| None)).await;
    let ran = absent.qctl(&["replace", "-f", "-"], &missing).await;
    let message = "Error from server (NotFound): error when replacing \"STDIN\": other not found\n";
    assert_eq!((ran.code, ran.stderr.as_str()), (1, message));
    for (flags, message) in [
        (&[][..], "must specify --filename to replace"),
        (&["-f", "-", "--grace-period=5"], "--grace-period must have --force specified"),
        (&["-f", "-", "--timeout=5s"], "--timeout must have --force specified"),
        (&["-f", "-", "--force", "--dry-run=server"], "--dry-run can not be used when --force is set"),
    ] {
        let ran = server.qctl(&[&["replace"][..], flags].concat(), MAP).await;
        assert_eq!((ran.code, ran.stderr), (1, format!("error: {message}\n")), "{flags:?}");
    }
}

fn exposable(request: &Recorded) -> Option<(u16, Value)> {
    match request.path.as_str() {
        "/apis/apps/v1/namespaces/default/deployments/two" => Some((
            200,
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "two", "namespace": "default", "labels": {"l": "m"}},
                "spec": {"selector": {"matchLabels": {"app": "two"}}, "template": {"spec": {"containers": [{"ports": [
                    {"containerPort": 80}, {"containerPort": 53, "protocol": "UDP"}, {"containerPort": 53, "protocol": "TCP"}]}]}}}}),
        )),
        _ => objects(request),
    }
}

#[tokio::test]
async fn a_service_gets_the_ports_and_the_selector_of_the_object() {
    let server = Server::start(Behaviour::answers(exposable)).await;
    let exposed = async |flags: &[&str]| {
        let ran = server.qctl(&[&["expose"][..], flags, &["--dry-run=client", "-o", "json"]].concat(), "").await;
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{flags:?}");
        serde_json::from_str::<Value>(&ran.stdout).expect("JSON")
    };
    let service = |name: &str, labels: Value, spec: Value| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "labels": labels}, "spec": spec});
    assert_eq!(
        exposed(&["pod", "a", "--type=NodePort", "--name=n", "--target-port=http"]).await,
        service(
            "n",
            json!({"app": "web"}),
            json!({"type": "NodePort", "selector": {"app": "web"},
            "ports": [{"port": 8080, "protocol": "TCP", "targetPort": "http"}]})
        )
    );
    assert_eq!(
        exposed(&["deploy/two"]).await,
        service(
            "two",
            json!({"l": "m"}),
            json!({"selector": {"app": "two"}, "ports": [
            {"name": "port-1", "port": 80, "protocol": "TCP", "targetPort": 80},
            {"name": "port-2-udp", "port": 53, "protocol": "UDP", "targetPort": 53},
            {"name": "port-2-tcp", "port": 53, "protocol": "TCP", "targetPort": 53}]})
        )
    );
    assert_eq!(
        exposed(&["deploy/two", "--port=90", "--protocol=SCTP", "--selector=x=y", "-l", "z=1", "--cluster-ip=None"])
            .await,
        service(
            "two",
            json!({"z": "1"}),
            json!({"selector": {"x": "y"}, "clusterIP": "None",
            "ports": [{"port": 90, "protocol": "SCTP", "targetPort": 90}]})
        )
    );
    for (flags, message) in [
        (&["deploy/web"][..], "couldn't find port via --port flag or introspection"),
        (&["deploy/web", "--port=1", "--session-affinity=x"], "unknown session affinity: x"),
        (&["deploy"], "name the object to expose, as TYPE NAME, TYPE/NAME or with -f"),
    ] {
        let ran = server.qctl(&[&["expose"][..], flags].concat(), "").await;
        assert_eq!((ran.code, ran.stderr), (1, format!("error: {message}\n")), "{flags:?}");
    }
}
