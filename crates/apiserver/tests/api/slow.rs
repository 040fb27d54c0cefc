//! Tests of clients that are slow or go away: each has a deadline, and what it holds is released.

use std::time::Duration;

use quorate_apiserver::{Deadlines, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::harness::{DEADLINE, Server, config_map};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// Deadlines that a test can wait for. A slow machine misses none of them with its own requests.
const SHORT: Duration = Duration::from_secs(5);

async fn server(deadlines: Deadlines) -> Server {
    Server::start_with(ServerConfig::DEFAULT_MAX_IN_FLIGHT, deadlines).await
}

/// Reads until the server closes the connection.
async fn rest(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut bytes = Vec::new();
    // A connection that is cut off without a TLS alert has ended as well.
    let ended = timeout(DEADLINE, stream.read_to_end(&mut bytes)).await.expect("the server ends the connection");
    drop(ended);
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_a_handshake_is_closed() {
    let server = server(Deadlines { handshake: SHORT, ..Deadlines::default() }).await;
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", server.port)).await.expect("the server accepts");
    assert_eq!(rest(&mut stream).await, "");
    assert_eq!(server.admin().get("/readyz").await.code, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_a_request_is_closed() {
    let server = server(Deadlines { idle: SHORT, ..Deadlines::default() }).await;
    for client in [server.admin(), server.anonymous()] {
        assert_eq!(rest(&mut client.raw().await).await, "");
        // The beginning of a line that may become HTTP/2.
        let mut begun = client.raw().await;
        begun.write_all(b"PRI * HTTP").await.expect("it is sent");
        begun.flush().await.expect("it is sent");
        assert_eq!(rest(&mut begun).await, "");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_do_not_end_are_given_up() {
    let server = server(Deadlines { headers: SHORT, idle: SHORT, ..Deadlines::default() }).await;
    let mut slow = server.admin().raw().await;
    slow.write_all(b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ").await.expect("it is sent");
    slow.flush().await.expect("it is sent");
    let answer = rest(&mut slow).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    assert_eq!(server.admin().get("/readyz").await.code, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_end_gets_a_status() {
    let server = server(Deadlines { body: SHORT, ..Deadlines::default() }).await;
    let mut slow = server.admin().stall(MAPS).await;
    let answer = rest(&mut slow).await;
    assert!(answer.starts_with("HTTP/1.1 504"), "{answer}");
    assert!(answer.contains("\"reason\":\"Timeout\"") && answer.contains("took too long"), "{answer}");
    server.admin().post(MAPS, &config_map("a")).await.expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_whose_client_has_closed_its_side_ends() {
    let server = Server::start().await;
    let admin = server.admin();
    let watch = format!("GET {MAPS}?watch=1 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
    let mut half = admin.raw().await;
    half.write_all(watch.as_bytes()).await.expect("it is sent");
    half.flush().await.expect("it is sent");
    let mut head = [0; 15];
    timeout(DEADLINE, half.read_exact(&mut head)).await.expect("in time").expect("an answer");
    assert_eq!(&head, b"HTTP/1.1 200 OK");
    half.shutdown().await.expect("the client closes its side");
    rest(&mut half).await;
    assert_eq!(admin.get("/readyz").await.code, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_with_a_watch_is_not_idle() {
    let server = server(Deadlines { idle: SHORT, last_response: SHORT, ..Deadlines::default() }).await;
    let admin = server.admin();
    let mut lines = admin.watch(&format!("{MAPS}?watch=1&resourceVersion={}", server.api.store().revision())).await;
    // If the watch counted as idle, it would be cut off before the last of these connections is closed.
    for _ in 0..4 {
        assert_eq!(rest(&mut admin.raw().await).await, "");
    }
    admin.post(MAPS, &config_map("a")).await.expect(201);
    assert_eq!(lines.named().await, ("ADDED".to_owned(), "a".to_owned()));
}
