use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use crate::exec::{objects, pod, say, say_bytes};
use crate::server::{Behaviour, Server, Socket};

/// Answers the client's text after it has ended its side, or reports an error for the port 9090.
async fn shout(mut socket: Socket, port: u16) {
    for channel in [0, 1] {
        say_bytes(&mut socket, channel, &port.to_le_bytes()).await;
    }
    if port == 9090 {
        say(&mut socket, 1, "connection refused").await;
    } else {
        let mut text = Vec::new();
        loop {
            match socket.next().await.expect("a message").expect("a message") {
                Message::Binary(bytes) if bytes == Bytes::from_static(&[255, 0]) => break,
                Message::Binary(bytes) if bytes.first() == Some(&0) => text.extend_from_slice(&bytes[1..]),
                other => panic!("unexpected: {other:?}"),
            }
        }
        say(&mut socket, 0, &String::from_utf8(text).expect("text").to_uppercase()).await;
    }
    socket.close(None).await.expect("the client is there");
    while let Some(Ok(_)) = socket.next().await {}
}

#[tokio::test]
async fn clients_reach_the_pod_until_it_ends() {
    let ended = Arc::new(AtomicBool::new(false));
    let is_gone = ended.clone();
    let behaviour = Behaviour::answers(move |request| {
        if request.query.contains("watch=true") {
            return Some((200, json!({"type": "BOOKMARK", "object": {}})));
        }
        if request.query.contains("fieldSelector=metadata.name%3Da") {
            let phase = if is_gone.load(Ordering::SeqCst) { "Succeeded" } else { "Running" };
            return Some((200, json!({"metadata": {"resourceVersion": "7"}, "items": [pod("a", phase)]})));
        }
        objects(request)
    });
    let mut behaviour = behaviour.serves(|request, socket| {
        let port = request.query.strip_prefix("ports=").and_then(|port| port.parse().ok()).expect("a port");
        Box::pin(shout(socket, port))
    });
    behaviour.protocol = "v4.channel.k8s.io";
    let server = Server::start(behaviour).await;
    let running = server.begin(&["port-forward", "--address", "127.0.0.1", "deployment/web", ":http", ":9090"]);
    let ports = running.until(|output| {
        let ports = output.lines().filter_map(|line| line.strip_prefix("Forwarding from 127.0.0.1:"));
        let ports: Vec<(u16, String)> = ports
            .filter_map(|line| line.split_once(" -> "))
            .map(|(local, remote)| (local.parse().expect("a port"), remote.to_owned()))
            .collect();
        (ports.len() == 2).then_some(ports)
    });
    let ports = ports.await;
    assert_eq!((ports[0].1.as_str(), ports[1].1.as_str()), ("8080", "9090"));

    let mut answers = Vec::new();
    for text in ["first", "second"] {
        let mut client = TcpStream::connect(("127.0.0.1", ports[0].0)).await.expect("a connection");
        client.write_all(text.as_bytes()).await.expect("written");
        client.shutdown().await.expect("half closed");
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.expect("an answer");
        answers.push(answer);
    }
    assert_eq!(answers, ["FIRST", "SECOND"]);
    let handled = format!("Handling connection for {}\n", ports[0].0);
    assert_eq!(running.output().matches(&handled).count(), 2, "{}", running.output());

    let mut refused = TcpStream::connect(("127.0.0.1", ports[1].0)).await.expect("a connection");
    assert_eq!(refused.read(&mut [0; 8]).await.expect("the end"), 0);
    ended.store(true, Ordering::SeqCst);
    let ran = tokio::time::timeout(Duration::from_secs(60), running.end()).await.expect("the end of the command");
    let error = format!("an error occurred forwarding {} -> 9090: connection refused\n", ports[1].0);
    assert_eq!((ran.code, ran.stderr), (1, error + "error: lost connection to pod a, which has ended\n"));
}

#[tokio::test]
async fn ports_that_cannot_be_forwarded_are_refused() {
    let server = Server::start(Behaviour::answers(objects)).await;
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let ran = server.qctl(&["port-forward", "--address=127.0.0.1", "pod/a", &format!("{port}:80")], "").await;
    let expected = format!(
        "Unable to listen on port {port}: 127.0.0.1:{port}: Address already in use (os error 98)\n\
         error: unable to listen on any of the requested ports: [{{{port} 80}}]; choose other local ports\n"
    );
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr), (1, "", expected));
    for (args, message) in [
        (&["a"][..], "error: TYPE/NAME and list of ports are required for port-forward\n"),
        (&["a", "ftp"], "error: Pod 'a' does not have a named port 'ftp'\n"),
        (&["done", "80"], "error: unable to forward port because pod is not running. Current status=Succeeded\n"),
        (&["--address=here", "a", "80"], "error: here is not a valid IP address: invalid IP address syntax\n"),
    ] {
        let ran = server.qctl(&[&["port-forward"][..], args].concat(), "").await;
        assert_eq!((ran.code, ran.stderr.as_str()), (1, message), "{args:?}");
    }
}
