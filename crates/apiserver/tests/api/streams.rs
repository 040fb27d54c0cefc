//! Exec, attach and port-forward: upgraded connections to a node that the test plays.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::harness::{Client, DEADLINE, Server, pod};

const PODS: &str = "/api/v1/namespaces/default/pods";
const UPGRADE: [(&str, &str); 5] = [
    ("connection", "Upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("sec-websocket-protocol", "v5.channel.k8s.io"),
];

/// A node whose streams echo their bytes; dropping it stops it.
struct Node {
    /// The method, path and query of each request, and its protocol.
    asked: mpsc::UnboundedReceiver<(String, String)>,
    _tasks: JoinSet<()>,
}

impl Node {
    /// Starts the node API, and registers the node `worker` with its address.
    async fn start(server: &Server) -> Self {
        let (listener, acceptor) = server.node_api().await;
        let (sender, asked) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, acceptor, sender));
        Node { asked, _tasks: tasks }
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, asked: mpsc::UnboundedSender<(String, String)>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        let (acceptor, asked) = (acceptor.clone(), asked.clone());
        connections.spawn(async move {
            let stream = acceptor.accept(stream).await.expect("TLS");
            let service = service_fn(move |request: Request<Incoming>| {
                let protocol = request.headers().get("sec-websocket-protocol");
                let protocol = protocol.map_or("", |value| value.to_str().expect("text")).to_owned();
                asked.send((format!("{} {}", request.method(), request.uri()), protocol)).expect("the test listens");
                std::future::ready(Ok::<_, Infallible>(answer(request)))
            });
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades();
            // The API server closes the connection with its client's.
            drop(connection.await);
        });
    }
}

fn answer(request: Request<Incoming>) -> Response<Full<Bytes>> {
    if request.uri().path().contains("refused") {
        let refusal = Response::builder().status(StatusCode::BAD_REQUEST);
        return refusal.body(Full::from("container main of pod refused is not running")).expect("a response");
    }
    tokio::spawn(async move {
        let mut io = TokioIo::new(hyper::upgrade::on(request).await.expect("an upgrade"));
        let mut buffer = [0; 64];
        while let Ok(read) = io.read(&mut buffer).await {
            let bye = &buffer[..read] == b"bye";
            if read == 0 || bye || io.write_all(&buffer[..read]).await.is_err() || io.flush().await.is_err() {
                break;
            }
        }
        drop(io.shutdown().await);
    });
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header("sec-websocket-protocol", "v5.channel.k8s.io")
        .header("x-own", "not for clients")
        .body(Full::default())
        .expect("a response")
}

async fn pod_on_node(server: &Server, name: &str) -> String {
    let mut object = pod(name);
    object["spec"]["nodeName"] = "worker".into();
    server.admin().post(PODS, &object).await.expect(201);
    format!("{PODS}/{name}")
}

async fn upgrade(client: &Client, method: Method, path: &str) -> Response<Incoming> {
    let mut request = Request::builder().method(method).uri(path).header(header::HOST, "127.0.0.1");
    for (name, value) in UPGRADE {
        request = request.header(name, value);
    }
    client.send(request.body(Full::default()).expect("a request")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgraded_connection_is_a_tunnel_to_the_node() {
    let server = Server::start().await;
    let admin = server.admin();
    let mut node = Node::start(&server).await;
    let path = pod_on_node(&server, "web").await;
    let cases = [
        (
            Method::GET,
            "exec?command=sh&command=-c&command=&command=a+b%26&stdin=true&stdout=1&stderr=false&container=main&x=y",
            "GET /exec/default/web/main?stdin=true&stdout=true&command=sh&command=%2Dc&command=&command=a%20b%26",
        ),
        (
            Method::POST,
            "exec?command=sh&stdin=true&stdout=true&stderr=true&tty=true",
            "POST /exec/default/web/main?stdin=true&stdout=true&tty=true&command=sh",
        ),
        (Method::GET, "attach?stdout=true&stderr=true", "GET /attach/default/web/main?stdout=true&stderr=true"),
        (Method::POST, "portforward?ports=80&ports=443", "POST /portForward/default/web?ports=80&ports=443"),
    ];
    for (method, given, passed_on) in cases {
        let answer = upgrade(&admin, method, &format!("{path}/{given}")).await;
        assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS, "{given}");
        assert_eq!(answer.headers()["sec-websocket-protocol"], "v5.channel.k8s.io");
        assert!(!answer.headers().contains_key("x-own") && !answer.headers().contains_key(header::CONTENT_TYPE));
        let asked = timeout(DEADLINE, node.asked.recv()).await.expect("in time").expect("a request");
        assert_eq!(asked, (passed_on.to_owned(), "v5.channel.k8s.io".to_owned()));
        let mut io = TokioIo::new(hyper::upgrade::on(answer).await.expect("an upgrade"));
        let mut echoed = [0; 5];
        io.write_all(b"hello").await.expect("sent");
        io.flush().await.expect("sent");
        timeout(DEADLINE, io.read_exact(&mut echoed)).await.expect("in time").expect("an echo");
        assert_eq!(&echoed, b"hello");
        io.write_all(b"bye").await.expect("sent");
        io.flush().await.expect("sent");
        let end = timeout(DEADLINE, io.read(&mut echoed)).await.expect("in time");
        assert_eq!(end.expect("an orderly end"), 0, "the client's connection ends with the node's");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_cannot_be_served_are_refused_with_a_status() {
    let server = Server::start().await;
    let admin = server.admin();
    let mut node = Node::start(&server).await;
    let path = pod_on_node(&server, "web").await;
    let headers = &UPGRADE[..];
    let wanted = "command=ls&stdout=true";
    let mut two = pod("two");
    two["spec"]["containers"] = json!([{ "name": "a", "image": "b" }, { "name": "b", "image": "b" }]);
    two["spec"]["nodeName"] = "worker".into();
    admin.post(PODS, &two).await.expect(201);
    admin.post(PODS, &pod("unscheduled")).await.expect(201);
    let cases = [
        (format!("{path}/exec?{wanted}"), &[][..], 400, "Upgrade request required"),
        (format!("{path}/exec?command=ls"), headers, 400, "you must specify at least 1 of stdin, stdout, stderr"),
        (format!("{path}/exec?stdout=true"), headers, 400, "you must specify a command to execute"),
        (format!("{path}/exec?{wanted}&container=other"), headers, 400, "container other is not valid for pod web"),
        (format!("{PODS}/two/attach?stdout=true"), headers, 400, "a container name must be specified for pod two"),
        (format!("{PODS}/unscheduled/exec?{wanted}"), headers, 400, "pod unscheduled does not have a host assigned"),
        (format!("{PODS}/absent/exec?{wanted}"), headers, 404, "pods \"absent\" not found"),
    ];
    for (path, headers, code, message) in cases {
        let refused = admin.request(Method::GET, &path, headers, "").await.failure();
        assert_eq!(refused.0, code, "{path}: {}", refused.2);
        assert!(refused.2.starts_with(message), "{path}: {}", refused.2);
    }
    let worker = server.node("worker");
    for method in [Method::GET, Method::POST] {
        let refused = worker.request(method, &format!("{path}/exec?{wanted}"), headers, "").await.failure();
        assert_eq!(refused.0, 403, "{}", refused.2);
    }
    assert!(node.asked.try_recv().is_err(), "the node has not been asked");
    let refused = pod_on_node(&server, "refused").await;
    let answer = admin.request(Method::GET, &format!("{refused}/exec?{wanted}"), headers, "").await.failure();
    let expected = (400, "BadRequest".to_owned(), "container main of pod refused is not running".to_owned());
    assert_eq!(answer, expected, "the node's error is passed on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_ends_its_tunnels() {
    let mut server = Server::start().await;
    let _node = Node::start(&server).await;
    let path = pod_on_node(&server, "web").await;
    let answer = upgrade(&server.admin(), Method::GET, &format!("{path}/attach?stdout=true")).await;
    let mut io = TokioIo::new(hyper::upgrade::on(answer).await.expect("an upgrade"));
    server.shutdown.cancel();
    server.ended().await;
    let end = timeout(DEADLINE, io.read(&mut [0; 8])).await.expect("the client's connection ends");
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
}
