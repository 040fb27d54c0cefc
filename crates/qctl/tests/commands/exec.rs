use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::server::{Behaviour, Recorded, Server, Socket};

pub fn pod(name: &str, phase: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"app": "web"}},
        "spec": {"nodeName": "n", "initContainers": [{"name": "first"}], "containers": [
            {"name": "main", "ports": [{"name": "http", "containerPort": 8080}]}, {"name": "side", "tty": true}]},
        "status": {"phase": phase}})
}

/// Answers for the pods `a` (running) and `done`, the deployment `web` and its pod `a`.
pub fn objects(request: &Recorded) -> Option<(u16, Value)> {
    let object = match request.path.as_str() {
        "/api/v1/namespaces/default/pods/a" => pod("a", "Running"),
        "/api/v1/namespaces/default/pods/done" => pod("done", "Succeeded"),
        "/api/v1/namespaces/default/pods" => {
            json!({"kind": "PodList", "metadata": {"resourceVersion": "7"}, "items": [pod("late", "Pending"), pod("a", "Running")]})
        }
        "/apis/apps/v1/namespaces/default/deployments/web" => json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "namespace": "default"}, "spec": {"selector": {"matchLabels": {"app": "web"}}}}),
        _ => return None,
    };
    Some((200, object))
}

pub async fn say(socket: &mut Socket, channel: u8, text: &str) {
    say_bytes(socket, channel, text.as_bytes()).await;
}

pub async fn say_bytes(socket: &mut Socket, channel: u8, bytes: &[u8]) {
    let message = [&[channel][..], bytes].concat();
    socket.send(Message::binary(message)).await.expect("the client reads");
}

/// Reports the end of the process, and waits for the client to close the connection.
pub async fn end(socket: &mut Socket, code: u8) {
    let report = if code == 0 {
        json!({"metadata": {}, "status": "Success"})
    } else {
        json!({"status": "Failure", "reason": "NonZeroExitCode", "message": "it failed",
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]}})
    };
    say(socket, 3, &report.to_string()).await;
    socket.close(None).await.expect("the client is there");
    while let Some(Ok(_)) = socket.next().await {}
}

/// Reads the client's input until it ends the channel.
pub async fn input(socket: &mut Socket) -> Vec<u8> {
    let mut read = Vec::new();
    loop {
        match socket.next().await.expect("a message").expect("a message") {
            Message::Binary(bytes) if bytes == Bytes::from_static(&[255, 0]) => return read,
            Message::Binary(bytes) if bytes.first() == Some(&0) => read.extend_from_slice(&bytes[1..]),
            other => panic!("unexpected: {other:?}"),
        }
    }
}

#[tokio::test]
async fn outputs_are_separate_and_the_exit_code_is_passed_on() {
    let server = Server::start(Behaviour::answers(objects).serves(|_, mut socket| {
        Box::pin(async move {
            say(&mut socket, 1, "out").await;
            say(&mut socket, 2, "err\n").await;
            say(&mut socket, 1, "put\n").await;
            end(&mut socket, 5).await;
        })
    }))
    .await;
    let ran = server.qctl(&["exec", "deploy/web", "-c", "side", "--", "sh", "-c", "a b"], "ignored").await;
    assert_eq!((ran.code, ran.stdout.as_str()), (5, "output\n"));
    assert_eq!(ran.stderr, "err\ncommand terminated with exit code 5\n");
    let asked = server.requests().pop().expect("a request");
    assert_eq!(asked.path, "/api/v1/namespaces/default/pods/a/exec", "the running pod is chosen");
    assert_eq!(asked.query, "container=side&command=sh&command=-c&command=a%20b&stdout=true&stderr=true");
}

#[tokio::test]
async fn a_large_input_is_echoed_while_it_is_sent() {
    let server = Server::start(Behaviour::answers(objects).serves(|_, mut socket| {
        Box::pin(async move {
            // The server reads the next piece only after the client has taken the former one.
            loop {
                match socket.next().await.expect("a message").expect("a message") {
                    Message::Binary(bytes) if bytes == Bytes::from_static(&[255, 0]) => break,
                    Message::Binary(bytes) => {
                        let echo = [&[1][..], &bytes[1..]].concat();
                        socket.send(Message::binary(echo)).await.expect("the client reads");
                    }
                    other => panic!("unexpected: {other:?}"),
                }
            }
            end(&mut socket, 0).await;
        })
    }))
    .await;
    let large = "0123456789abcdef".repeat(500_000);
    let ran = server.qctl(&["exec", "-i", "a", "-c", "main", "--", "cat"], &large).await;
    assert_eq!((ran.code, ran.stdout.len(), ran.stderr.as_str()), (0, large.len(), ""));
    assert!(ran.stdout == large, "the output is the input");
}

#[tokio::test]
async fn the_default_container_is_announced_unless_quiet() {
    let server = Server::start(Behaviour::answers(objects).serves(|_, mut socket| {
        Box::pin(async move {
            let text = String::from_utf8(input(&mut socket).await).expect("text");
            say(&mut socket, 1, &text).await;
            end(&mut socket, 0).await;
        })
    }))
    .await;
    let ran = server.qctl(&["exec", "-it", "a", "--", "cat"], "typed").await;
    let expected = "Defaulted container \"main\" out of: main, side, first (init)\n\
                    Unable to use a TTY - input is not a terminal or the right kind of file\n";
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (0, "typed", expected));
    let quiet = server.qctl(&["exec", "-itq", "a", "--", "cat"], "typed").await;
    assert_eq!((quiet.code, quiet.stdout.as_str(), quiet.stderr.as_str()), (0, "typed", ""));
    let asked = server.requests().pop().expect("a request");
    assert_eq!(asked.query, "container=main&command=cat&stdin=true&stdout=true&stderr=true");
}

#[tokio::test]
async fn attach_reads_the_process_of_the_container() {
    let server = Server::start(Behaviour::answers(objects).serves(|_, mut socket| {
        Box::pin(async move {
            say(&mut socket, 1, "from the container\n").await;
            end(&mut socket, 0).await;
        })
    }))
    .await;
    let ran = server.qctl(&["attach", "pod", "a", "-c", "main", "-t"], "").await;
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "from the container\n"));
    assert!(
        ran.stderr.starts_with(
            "error: Unable to use a TTY - container main did not allocate one\nAll commands and output from this session"
        ),
        "{ran:?}"
    );
    assert!(ran.stderr.ends_with("If you don't see a command prompt, try pressing enter.\n"), "{ran:?}");
    let asked = server.requests().pop().expect("a request");
    assert_eq!(asked.path, "/api/v1/namespaces/default/pods/a/attach");
    assert_eq!(asked.query, "container=main&stdout=true&stderr=true");
}

#[tokio::test]
async fn failures_say_what_to_do() {
    // A broken stream, a refusal of the upgrade, and command lines that cannot work.
    let server = Server::start(Behaviour::answers(|request| match request.query.contains("command=refused") {
        true => Some((400, json!({"kind": "Status", "code": 400, "reason": "BadRequest", "message": "container main of pod a is not running"}))),
        false => objects(request),
    }))
    .await;
    let cases: [(&[&str], &str); 9] = [
        (
            &["exec", "a", "-c", "main", "--", "refused"],
            "Error from server (BadRequest): container main of pod a is not running\n",
        ),
        (
            &["exec", "a", "-c", "third", "--", "ls"],
            "error: container third is not valid for pod a out of: main, side, first (init)\n",
        ),
        (
            &["exec", "done", "--", "ls"],
            "error: cannot exec into a container in a completed pod; current phase is Succeeded\n",
        ),
        (
            &["exec", "a", "ls"],
            "error: exec [POD] [COMMAND] is not supported anymore. Use exec [POD] -- [COMMAND] instead\n",
        ),
        (&["exec", "--", "ls"], "error: pod, type/name or --filename must be specified\n"),
        (&["exec", "a"], "error: you must specify at least one command for the container\n"),
        (&["exec", "b", "--", "ls"], "Error from server (NotFound): b not found\n"),
        (&["attach", "done"], "error: cannot attach a container in a completed pod; current phase is Succeeded\n"),
        (&["attach"], "error: at least 1 argument is required for attach\n"),
    ];
    for (args, message) in cases {
        let ran = server.qctl(args, "").await;
        assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (1, "", message), "{args:?}");
    }
    let broken = server.qctl(&["exec", "a", "-c", "main", "--", "ls"], "").await;
    assert_eq!(broken.code, 1);
    assert!(broken.stderr.starts_with("error: lost the connection to the server http://127.0.0.1:"), "{broken:?}");
    assert!(broken.stderr.ends_with("; run the command again\n"), "{broken:?}");
}
