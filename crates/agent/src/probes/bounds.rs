//! HTTP responses that never end.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream as StdStream};

use super::*;

/// Starts a server that answers one request with `head` and then sends bytes for as long as the client reads. Its
/// thread returns the number of bytes sent.
fn endless(head: &'static str) -> (u16, std::thread::JoinHandle<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let serve = move || {
        let (mut stream, _): (StdStream, _) = listener.accept().expect("a client");
        let mut request = [0; 1024];
        assert!(stream.read(&mut request).expect("a request") > 0);
        let mut sent = 0;
        let mut next = head.as_bytes();
        while stream.write_all(next).is_ok() {
            sent += next.len();
            next = &[b'x'; 4096];
        }
        sent
    };
    (port, std::thread::spawn(serve))
}

#[tokio::test]
async fn an_endless_response_is_read_up_to_a_limit() {
    let cases = [
        ("HTTP/1.1 200 OK\r\n\r\n", Some(200)),
        ("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 999999999999\r\n\r\n", Some(503)),
        ("HTTP/1.1 200 OK\r\nX-Header: ", None),
    ];
    for (head, status) in cases {
        let (port, server) = endless(head);
        let stream = dial("127.0.0.1", port).await.expect("a connection");
        let request = http::Request::get("/").body(Empty::<Bytes>::new()).expect("a request");
        let answer = exchange(stream, request).await;
        assert_eq!(answer.as_ref().ok().map(|(status, _)| *status), status, "{head:?}");
        assert!(answer.is_err() || answer.is_ok_and(|(_, body)| body.len() <= BODY_LIMIT));
        let sent = server.join().expect("the server ends when the client stops reading");
        assert!(sent < 32 << 20, "{sent} bytes were taken: {head:?}");
    }
}
