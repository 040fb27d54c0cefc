//! Commands in real containers, and connections to their ports, through the node API.

use std::sync::Arc;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::harness::{IMAGE, Node1, eventually, is_ready};

pub type Client = WebSocketStream<TlsStream<TcpStream>>;

/// Opens a WebSocket to the node API.
pub async fn open(node: &Node1, path: &str, protocol: &str) -> Client {
    let identity = node.pki.identity("quorate:apiserver", "system:masters");
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(node.pki.ca_pem.as_bytes()).expect("a certificate"))
        .expect("an authority");
    let certificate = CertificateDer::from_pem_slice(identity.cert_pem.as_bytes()).expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).expect("a key");
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![certificate], key)
        .expect("an identity");
    let tcp = TcpStream::connect(("127.0.0.1", node.port)).await.expect("the node API accepts");
    let name = ServerName::try_from("127.0.0.1").expect("a name");
    let mut tls = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.expect("TLS");
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: node\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: {protocol}\r\n\r\n"
    );
    tls.write_all(request.as_bytes()).await.expect("sent");
    tls.flush().await.expect("sent");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tls.read_u8().await.expect("a response"));
    }
    let head = String::from_utf8(head).expect("text");
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    WebSocketStream::from_raw_socket(tls, Role::Client, None).await
}

/// Reads up to the end, and returns the two outputs and the status.
pub async fn finish(mut client: Client) -> (String, String, Value) {
    let mut channels = vec![Vec::new(); 5];
    loop {
        match client.next().await.expect("a close frame ends the streams").expect("a message") {
            Message::Binary(bytes) => channels[usize::from(bytes[0])].extend_from_slice(&bytes[1..]),
            Message::Close(_) => break,
            _ => {}
        }
    }
    let text = |channel: &Vec<u8>| String::from_utf8_lossy(channel).into_owned();
    (text(&channels[1]), text(&channels[2]), serde_json::from_slice(&channels[3]).expect("a status"))
}

async fn send(client: &mut Client, message: &[u8]) {
    client.send(Message::binary(Bytes::copy_from_slice(message))).await.expect("sent");
}

fn exec(script: &str, flags: &str) -> String {
    let script: String = script.bytes().map(|byte| format!("%{byte:02x}")).collect();
    format!("/exec/default/stays/main?{flags}&command=sh&command=-c&command={script}")
}

pub const V5: &str = "v5.channel.k8s.io";

#[tokio::test(flavor = "multi_thread")]
async fn commands_run_in_a_container_and_end_with_their_client() {
    let Some(node) = Node1::start().await else { return };
    let pod = node.cluster.create("stays", json!({
        "terminationGracePeriodSeconds": 1,
        "containers": [{ "name": "main", "image": IMAGE, "imagePullPolicy": "Never", "stdin": true,
            "command": ["sh", "-c", "mkdir /w; echo hello >/w/index.html; httpd -p 127.0.0.1:8080 -h /w; while read x; do echo got $x; done; sleep 3600"] }],
    }));
    node.cluster.wait(&pod, "the pod becomes ready", is_ready).await;

    let streams = "stdin=true&stdout=true&stderr=true";
    let client = open(&node, &exec("echo out; echo err >&2; exit 7", "stdout=true&stderr=true"), V5).await;
    let (out, err, status) = finish(client).await;
    assert_eq!((out.as_str(), err.as_str()), ("out\n", "err\n"));
    assert_eq!(status["details"]["causes"], json!([{ "reason": "ExitCode", "message": "7" }]));

    let mut client = open(&node, &exec("wc -c", streams), V5).await;
    for _ in 0..100 {
        send(&mut client, &[0; 10_001]).await;
    }
    send(&mut client, &[255, 0]).await;
    let (out, _, status) = finish(client).await;
    assert_eq!((out.trim(), &status["status"]), ("1000000", &json!("Success")));

    let mut client = open(&node, &exec("read x; stty size; echo $x", "stdin=true&stdout=true&tty=true"), V5).await;
    send(&mut client, b"\x04{\"Width\":97,\"Height\":31}\n").await;
    // The size arrives before the line that ends the command, because it is handled first.
    eventually("the terminal's size", async || {
        let mut other = open(&node, &exec("stty size < /dev/pts/0", "stdout=true&stderr=true"), V5).await;
        other.flush().await.expect("flushed");
        let (out, err, _) = finish(other).await;
        if out == "31 97\n" { Ok(()) } else { Err((out, err)) }
    })
    .await;
    send(&mut client, b"\x00typed\n").await;
    let (out, _, _) = finish(client).await;
    assert!(out.contains("31 97\r\n") && out.ends_with("typed\r\n"), "{out:?}");

    // A command whose client goes away is killed.
    let client = open(&node, &exec("touch /tmp/runs; exec sleep 4242", streams), V5).await;
    let processes = async || finish(open(&node, &exec("ps; ls /tmp", "stdout=true"), V5).await).await.0;
    eventually("the command", async || {
        let running = processes().await;
        if running.contains("sleep 4242") { Ok(()) } else { Err(running) }
    })
    .await;
    drop(client);
    eventually("its end", async || {
        let running = processes().await;
        if running.contains("sleep 4242") { Err(running) } else { Ok(()) }
    })
    .await;

    let mut client = open(&node, &format!("/attach/default/stays/main?{streams}"), V5).await;
    send(&mut client, b"\x00word\n").await;
    let mut answer = Vec::new();
    while !answer.ends_with(b"got word\n") {
        let message = client.next().await.expect("the stream is open").expect("a message").into_data();
        if message.first() == Some(&1) {
            answer.extend_from_slice(&message[1..]);
        }
    }
    drop(client);

    // The port is open on localhost only.
    let mut client = open(&node, "/portForward/default/stays?ports=8080,8081", "v4.channel.k8s.io").await;
    send(&mut client, b"\x00GET /index.html HTTP/1.0\r\n\r\n").await;
    let mut channels = vec![Vec::new(); 4];
    while let Some(Ok(message)) = client.next().await {
        if let Message::Binary(bytes) = message {
            channels[usize::from(bytes[0])].extend_from_slice(&bytes[1..]);
        }
    }
    let text = |channel: usize| String::from_utf8_lossy(&channels[channel][2..]).into_owned();
    assert_eq!((&channels[0][..2], &channels[3][..2]), (&8080_u16.to_le_bytes()[..], &8081_u16.to_le_bytes()[..]));
    assert!(text(0).ends_with("hello\n") && text(1).is_empty(), "{} {}", text(0), text(1));
    assert!(text(2).is_empty() && text(3).contains("failed to connect to port 8081"), "{}", text(3));
    node.finish(&[&pod]).await;
}
