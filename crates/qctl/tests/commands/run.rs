use serde_json::{Value, json};

use crate::exec::{end, objects, pod};
use crate::server::{Behaviour, Recorded, Server};

const PODS: &str = "/api/v1/namespaces/default/pods";
/// The longest duration that a flag accepts, after which no time can be computed.
const ENDLESS: &str = "18446744073709551615";

/// The pod `a`, which has ended.
fn ended(request: &Recorded) -> Option<(u16, Value)> {
    match (request.method.as_str(), request.path.as_str()) {
        ("POST", PODS) => Some((201, request.body.clone())),
        ("DELETE", "/api/v1/namespaces/default/pods/a") => Some((200, json!({}))),
        ("GET", PODS) => Some((200, json!({"metadata": {"resourceVersion": "7"}, "items": [pod("a", "Succeeded")]}))),
        ("GET", "/api/v1/namespaces/default/pods/a/log") => Some((200, json!("the log"))),
        _ => objects(request),
    }
}

#[tokio::test]
async fn flags_describe_the_pod() {
    let server = Server::start(Behaviour::answers(ended)).await;
    let args = ["run", "a", "--image=i", "--env=Z=1", "--env=A=$(Z)", "--env=M=", "-l", "b=c", "--annotations=d=e=f"];
    let ran = server.qctl(&args, "").await;
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (0, "pod/a created\n", ""));
    let sent = server.requests().pop().expect("a request").body;
    let variables = json!([{"name": "Z", "value": "1"}, {"name": "A", "value": "$(Z)"}, {"name": "M", "value": ""}]);
    assert_eq!(sent["spec"]["containers"][0]["env"], variables, "one may refer to those before it");
    assert_eq!(sent["metadata"], json!({"name": "a", "labels": {"b": "c"}, "annotations": {"d": "e=f"}}));
}

#[tokio::test]
async fn a_quiet_run_prints_only_the_output_of_the_pod() {
    let server = Server::start(Behaviour::answers(ended)).await;
    let args = ["run", "a", "--image=i", "--attach", "--rm"];
    for (flags, printed) in [(&["-q"][..], "\"the log\""), (&[], "\"the log\"pod \"a\" deleted\n")] {
        let ran = server.qctl(&[&args[..], flags].concat(), "").await;
        assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (0, printed, ""), "{flags:?}");
        assert_eq!(server.requests().pop().expect("a request").method, "DELETE");
    }
}

#[tokio::test]
async fn a_timeout_may_be_longer_than_all_time() {
    let behaviour = Behaviour::answers(|request| match (request.method.as_str(), request.path.as_str()) {
        ("GET", PODS) if request.query.contains("watch=") => {
            Some((200, json!({"type": "ADDED", "object": pod("a", "Running")})))
        }
        ("GET", PODS) => Some((200, json!({"metadata": {"resourceVersion": "7"}, "items": []}))),
        _ => ended(request),
    });
    let server =
        Server::start(behaviour.serves(|_, mut socket| Box::pin(async move { end(&mut socket, 0).await }))).await;
    let (patience, timeout) = (format!("--pod-running-timeout={ENDLESS}"), format!("--timeout={ENDLESS}"));
    for args in [&["exec", "deploy/web", "-c", "main", &patience, "--", "ls"][..], &["delete", "pod", "a", &timeout]] {
        let ran = server.qctl(args, "").await;
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{args:?}");
    }
    let server = Server::start(Behaviour::answers(ended)).await;
    let ran = server.qctl(&["run", "a", "--image=i", "--attach", &patience], "").await;
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
}

#[tokio::test]
async fn a_container_that_cannot_be_attached_to_shows_its_log() {
    let server = Server::start(Behaviour::answers(|request| match (request.method.as_str(), request.path.as_str()) {
        ("GET", PODS) => Some((200, json!({"metadata": {"resourceVersion": "7"}, "items": [pod("a", "Running")]}))),
        _ => ended(request),
    }))
    .await;
    let ran = server.qctl(&["run", "a", "--image=i", "-iq"], "").await;
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "\"the log\""));
    let reason = "container a is not valid for pod a";
    let warning = format!("warning: couldn't attach to pod/a, falling back to streaming logs: {reason}\n");
    assert_eq!(ran.stderr, warning);
}
