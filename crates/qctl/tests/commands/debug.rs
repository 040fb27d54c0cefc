use serde_json::{Value, json};

use crate::exec::{end, input, objects, pod, say};
use crate::server::{Behaviour, Recorded, Server};

const POD: &str = "/api/v1/namespaces/default/pods/a";

/// The pod `a` with a debugging container that runs or has ended.
fn debugged(state: &Value) -> Value {
    let mut pod = pod("a", "Running");
    pod["spec"]["ephemeralContainers"] = json!([{"name": "d", "stdin": true}]);
    pod["status"]["ephemeralContainerStatuses"] = json!([{"name": "d", "state": state}]);
    pod
}

fn cluster(state: Value) -> impl Fn(&Recorded) -> Option<(u16, Value)> + Send + Sync + 'static {
    move |request| {
        if request.path == format!("{POD}/ephemeralcontainers") {
            return Some((200, debugged(&json!({}))));
        }
        if request.path == format!("{POD}/log") {
            return Some((200, json!("the log")));
        }
        if request.query.starts_with("fieldSelector=metadata.name%3Da") {
            return Some((200, json!({"metadata": {"resourceVersion": "7"}, "items": [debugged(&state)]})));
        }
        match (request.method.as_str(), request.path.as_str()) {
            ("POST", "/api/v1/namespaces/default/pods") => Some((201, request.body.clone())),
            ("DELETE", POD) => Some((200, json!({}))),
            _ => objects(request),
        }
    }
}

#[tokio::test]
async fn a_debugging_container_is_added_and_attached_to() {
    let behaviour = Behaviour::answers(cluster(json!({"running": {}})));
    let server = Server::start(behaviour.serves(|_, mut socket| {
        Box::pin(async move {
            let text = String::from_utf8(input(&mut socket).await).expect("text");
            say(&mut socket, 1, &format!("got {text}")).await;
            end(&mut socket, 3).await;
        })
    }))
    .await;
    let ran =
        server.qctl(&["debug", "a", "-iq", "-c", "d", "--image=tools", "--target=main", "--", "sh"], "typed").await;
    assert_eq!((ran.code, ran.stdout.as_str()), (3, "got typed"));
    assert_eq!(ran.stderr, "command terminated with exit code 3\n");
    let requests = server.requests();
    let patch = requests.iter().find(|request| request.method == "PATCH").expect("a patch");
    assert_eq!(
        patch.body,
        json!({"spec": {"ephemeralContainers": [{"name": "d", "image": "tools", "command": ["sh"], "stdin": true,
            "terminationMessagePolicy": "File", "targetContainerName": "main",
            "securityContext": {"capabilities": {"add": ["SYS_PTRACE"]}}}]}})
    );
    let attached = requests.last().expect("a request");
    assert_eq!(
        (attached.path.as_str(), attached.query.as_str()),
        ("/api/v1/namespaces/default/pods/a/attach", "container=d&stdin=true&stdout=true&stderr=true")
    );
}

#[tokio::test]
async fn a_container_that_has_ended_shows_its_log() {
    let server = Server::start(Behaviour::answers(cluster(json!({"terminated": {"exitCode": 0}})))).await;
    let ran = server.qctl(&["debug", "pod/a", "-i", "--image=tools", "-c", "d"], "").await;
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (0, "\"the log\"", ""));
    let plain = server.qctl(&["debug", "pod/a", "--image=tools"], "").await;
    assert!(plain.code == 0 && plain.stdout.starts_with("Defaulting debug container name to debugger-"), "{plain:?}");
}

#[tokio::test]
async fn a_pod_is_copied_and_replaced() {
    let server = Server::start(Behaviour::answers(cluster(json!({})))).await;
    let args = ["debug", "a", "--copy-to=c", "--set-image=main=x:2", "--share-processes=false", "--replace"];
    let ran = server.qctl(&args, "").await;
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (0, "", ""));
    let requests = server.requests();
    let [.., created, deleted] = requests.as_slice() else { panic!("{requests:?}") };
    assert_eq!((created.method.as_str(), &created.body["metadata"]["name"]), ("POST", &json!("c")));
    assert_eq!(created.body["spec"]["containers"][0]["image"], "x:2");
    assert!(created.body["spec"].get("nodeName").is_none(), "{}", created.body);
    assert_eq!((deleted.method.as_str(), deleted.path.as_str()), ("DELETE", POD));
}

#[tokio::test]
async fn what_cannot_be_debugged_is_refused() {
    let server = Server::start(Behaviour::answers(|request| {
        let missing =
            json!({"kind": "Status", "code": 404, "reason": "NotFound", "message": "no such path", "details": {}});
        if request.method == "PATCH" { Some((404, missing)) } else { objects(request) }
    }))
    .await;
    for (args, message) in [
        (
            &["a", "--image=i", "-c", "d"][..],
            "ephemeral containers are disabled for this cluster (error from server: \"no such path\"); debug a copy of the pod with --copy-to",
        ),
        (&["deploy/web", "--image=i"], "deployment.apps is not supported by debug; name a pod or a node"),
        (&["a"], "you must specify --image when not using --copy-to."),
        (&["a", "--image=i", "--replace"], "--replace may only be used with --copy-to."),
        (&["a", "--image=i", "-t"], "-i/--stdin is required for containers with -t/--tty=true"),
        (&["--image=i"], "NAME or filename is required for debug"),
        (&["a", "--copy-to=c"], "you must specify --image, --set-image or command arguments."),
        (
            &["a", "--copy-to=c", "--", "sh"],
            "you must specify an existing container or a new image when specifying args.",
        ),
        (
            &["a", "--copy-to=c", "--image=i", "--target=main"],
            "--target is incompatible with --copy-to. Use --share-processes instead.",
        ),
    ] {
        let ran = server.qctl(&[&["debug"][..], args].concat(), "").await;
        assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr), (1, "", format!("error: {message}\n")), "{args:?}");
    }
}
