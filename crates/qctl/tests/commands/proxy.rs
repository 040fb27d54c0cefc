use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::exec::{end, objects, say};
use crate::server::{Behaviour, Server};

async fn ask(port: u16, request: &str) -> String {
    let mut connection = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection");
    connection.write_all(request.as_bytes()).await.expect("written");
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(60), connection.read_to_end(&mut answer));
    read.await.expect("an end").expect("an answer");
    String::from_utf8_lossy(&answer).into_owned()
}

fn get(path: &str, host: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
}

#[tokio::test]
async fn the_api_is_served_beside_files() {
    let behaviour = Behaviour::answers(|request| match request.path.as_str() {
        "/version" => Some((200, json!({"major": "1", "method": request.method.as_str(), "body": request.body}))),
        _ => objects(request),
    });
    let server = Server::start(behaviour.serves(|_, mut socket| {
        Box::pin(async move {
            say(&mut socket, 1, "through the proxy").await;
            end(&mut socket, 0).await;
        })
    }))
    .await;
    let directory = tempfile::tempdir().expect("a temporary directory");
    std::fs::create_dir(directory.path().join("www")).expect("writable");
    std::fs::write(directory.path().join("www/page.html"), "a page").expect("writable");
    std::fs::write(directory.path().join("secret"), "secret").expect("writable");
    let www = format!("--www={}", directory.path().join("www").display());
    let running = server.begin(&["proxy", "--port=0", "--api-prefix=/k8s", &www]);
    let port = running.until(|output| {
        output.strip_prefix("Starting to serve on 127.0.0.1:").and_then(|port| port.trim().parse::<u16>().ok())
    });
    let port = port.await;

    let answer = ask(port, &get("/k8s/version", "localhost:8001")).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"method\":\"GET\""), "{answer}");
    let post =
        "POST /k8s/version HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 7\r\nConnection: close\r\n\r\n{\"a\":1}";
    let answer = ask(port, post).await;
    assert!(answer.contains("\"method\":\"POST\"") && answer.contains("{\"a\":1}"), "{answer}");
    for (path, host, code) in [
        ("/k8s/nothing", "localhost", "404"),
        ("/version", "localhost", "404"),
        ("/k8s/version", "example.org", "403"),
        ("/k8s/api/v1/namespaces/default/pods/a/exec?command=x", "localhost", "403"),
        ("/k8s/api/v1/namespaces/default/pods/a/%65xec?command=x", "localhost", "403"),
        ("/static/page.html", "localhost", "200"),
        ("/static/../secret", "localhost", "404"),
        ("/static/%2e%2e/secret", "localhost", "404"),
    ] {
        let answer = ask(port, &get(path, host)).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {code}")), "{path} {host}: {answer}");
        assert!(!answer.contains("secret"), "{path}: {answer}");
    }
    let upgrade = "GET /k8s/api/v1/namespaces/default/pods/a/portforward HTTP/1.1\r\nHost: localhost\r\n\
                   Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let mut connection = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection");
    connection.write_all(upgrade.as_bytes()).await.expect("written");
    let mut answer = Vec::new();
    while !String::from_utf8_lossy(&answer).contains("through the proxy") {
        let read = tokio::time::timeout(Duration::from_secs(60), connection.read_buf(&mut answer)).await;
        assert!(read.expect("in time").expect("readable") > 0, "{}", String::from_utf8_lossy(&answer));
    }
    assert!(String::from_utf8_lossy(&answer).starts_with("HTTP/1.1 101"));
}
